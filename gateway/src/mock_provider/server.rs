//! Connections of the mock: HTTP/1.1, and HTTP/2 to clients that begin with its preface or agreed on it.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::delivery::{Pieces, Resets};
use super::routes::State;

/// The largest request that is read.
const LARGEST: usize = 64 * 1024 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<State>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        // Accept fails for want of files, which passes; it must not take all of the processor until then.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (state, tls) = (Arc::clone(&state), tls.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let resets = Resets::default();
            let plain = Resettable { stream, resets: Arc::clone(&resets) };
            match tls {
                None => {
                    let is_http2 = begins_http2(&plain.stream).await;
                    connection(plain, is_http2, state, resets).await;
                }
                Some(config) => {
                    let Ok(stream) = TlsAcceptor::from(config).accept(plain).await else { return };
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    connection(stream, is_http2, state, resets).await;
                }
            }
        });
    }
}

async fn begins_http2(stream: &TcpStream) -> bool {
    let mut seen = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut seen).await {
            Ok(0) | Err(_) => return false,
            Ok(count) if count >= PREFACE.len() || seen[..count] != PREFACE[..count] => {
                return seen[..count] == PREFACE[..count];
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn connection<S>(stream: S, is_http2: bool, state: Arc<State>, resets: Resets)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (state, resets) = (Arc::clone(&state), Arc::clone(&resets));
        async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(io::Error::other)?.to_bytes();
            let reply: Option<http::Response<Pieces>> = state.reply(&parts, &body, &resets).await;
            reply.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))
        }
    });
    // How a connection ends, the client sees.
    let _ = if is_http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), service).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(false).serve_connection(TokioIo::new(stream), service).await
    };
}

/// A connection that can be told to end in a reset (RST) instead of an orderly end.
struct Resettable {
    stream: TcpStream,
    resets: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.resets.load(Ordering::Relaxed) {
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.resets.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(())); // An orderly end before the reset would be one.
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
