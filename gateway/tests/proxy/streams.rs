//! HTTP/2 as its frames are, on either side of the gateway: what a client or a server over a layer more does not show.

use std::net::SocketAddr;

use bytes::Bytes;
use gateway::proxy::Proxy;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use tokio::runtime::Runtime;

use crate::harness::{LONG, connect};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A client with one connection.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    pub(crate) sender: SendRequest<Bytes>,
}

impl Client {
    pub(crate) fn new(proxy: &Proxy) -> Self {
        let runtime = runtime();
        let stream = connect(proxy);
        stream.set_nonblocking(true).unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.ready().await.unwrap()
        });
        Self { runtime, sender }
    }

    /// Runs something, but not for ever.
    #[track_caller]
    pub(crate) fn run<T>(&self, something: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(LONG, something).await.unwrap() })
    }
}

/// A server whose every stream is served by `serve`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

pub(crate) fn server<F>(
    serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, reply))) = connection.accept().await {
                    tokio::spawn(serve(request, reply));
                }
            });
        }
    });
    Server { address, _runtime: runtime }
}

/// Reads a body to its end, and its trailers.
pub(crate) async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?))
}
