//! One health check of one endpoint, over a connection of its own: so it also finds out whether new ones are accepted.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, spawn_local};

use crate::model::{HealthCheck, Probe};

use super::super::proxy_protocol;
use super::super::stream::Stream;
use super::link;
use super::pool::Endpoint;
use super::state::State;

/// Bytes of an answer about health that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// The answer to a call: a byte of flags and four of length, then field 1 with the value SERVING.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];

/// Whether the endpoint is well; if not, why.
pub(super) async fn check(
    endpoint: &Rc<Endpoint>,
    state: &State,
    health: &HealthCheck,
) -> Result<(), String> {
    let checked = tokio::time::timeout(health.timeout, ask(endpoint, state, &health.probe));
    checked.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", health.timeout)))
}

async fn ask(endpoint: &Rc<Endpoint>, state: &State, probe: &Probe) -> Result<(), String> {
    // Of nobody: the check is the gateway's own.
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let announce =
        state.settings.proxy_protocol.map(|version| proxy_protocol::write(version, nobody, nobody));
    let connected = link::connect(endpoint, state.tls.as_deref(), announce.as_deref()).await;
    let stream = connected.map_err(|error| error.to_string())?;
    let request = match probe {
        Probe::Tcp => return Ok(()),
        Probe::Http { path, host, .. } => {
            let host = host.clone().unwrap_or_else(|| endpoint.authority());
            get(host, path.clone().into())
        }
        Probe::Grpc { service } => call(endpoint.authority(), service),
    };
    let is_http2 = link::speaks_http2(&stream, endpoint, state.settings.protocol);
    let mut connection = Connection::open(stream, is_http2).await.map_err(|error| error.to_string())?;
    let scheme = if endpoint.secure_host().is_some() { "https" } else { "http" };
    let response = connection.send(request.map_err(|error| error.to_string())?, scheme).await;
    let response = response.map_err(|error| error.to_string())?;
    match probe {
        Probe::Http { expect, .. } => is_expected(&response, expect),
        _ => is_serving(response).await,
    }
}

fn get(host: String, target: Uri) -> http::Result<Request<Full<Bytes>>> {
    let request = Request::builder().method(Method::GET).uri(target).header(HOST, host);
    request.header(USER_AGENT, "gateway-health").body(Full::default())
}

/// `grpc.health.v1.Health/Check`: a message with a name in field 1, and nothing in it for the server as a whole.
fn call(host: String, service: &str) -> http::Result<Request<Full<Bytes>>> {
    let mut message = Vec::new();
    if let (Ok(length @ 1..=127), name) = (u8::try_from(service.len()), service.as_bytes()) {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(name);
    }
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.append(&mut message);
    let request =
        Request::builder().method(Method::POST).uri("/grpc.health.v1.Health/Check").header(HOST, host);
    let request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
    request.body(Full::new(frame.into()))
}

fn is_expected(response: &Response<Incoming>, expect: &[RangeInclusive<u16>]) -> Result<(), String> {
    let status = response.status().as_u16();
    let good = expect.iter().any(|range| range.contains(&status));
    if good { Ok(()) } else { Err(format!("it answers {status}")) }
}

async fn is_serving(response: Response<Incoming>) -> Result<(), String> {
    let failed = |status: &HeaderValue| status != "0";
    if response.headers().get("grpc-status").is_some_and(failed) {
        return Err("the call fails".to_owned());
    }
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.trailers().and_then(|trailers| trailers.get("grpc-status")).is_some_and(failed) {
        return Err("the call fails".to_owned());
    }
    if answer.to_bytes() == SERVING { Ok(()) } else { Err("it says that it is not serving".to_owned()) }
}

/// A connection for one request. It ends with this.
struct Connection {
    sender: Sender,
    task: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(stream: Stream, is_http2: bool) -> hyper::Result<Self> {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(Executor, io).await?;
            let task = spawn_local(async move { drop(connection.await) }).abort_handle();
            return Ok(Self { sender: Sender::Http2(sender), task });
        }
        let (sender, connection) = http1::handshake(io).await?;
        let task = spawn_local(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender: Sender::Http1(sender), task })
    }

    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
        scheme: &str,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => {
                *request.version_mut() = Version::HTTP_2;
                if let Some(host) = request.headers_mut().remove(HOST)
                    && let Some(path) = request.uri().path_and_query().cloned()
                    && let Ok(uri) =
                        Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build()
                {
                    *request.uri_mut() = uri;
                }
                sender.send_request(request).await
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs hyper's tasks in the worker's own thread.
#[derive(Clone)]
struct Executor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
