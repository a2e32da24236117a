//! What comes before the first request of a connection.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Instant;

use http::Version;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::acme::TLS_ALPN;
use crate::observe::http::Refused;
use crate::tls;

use super::super::proxy_protocol::{self, Announced, Progress};
use super::super::stream::Stream;
use super::timer::{Closing, Timer};
use super::{Session, passthrough};

/// What a connection turned out to be.
pub(super) enum Prepared {
    /// This version of HTTP was agreed on.
    Http(Stream, Version),
    /// There was nothing to it but its handshake.
    Seen,
    /// It goes to the upstream with this index as it is.
    Forward(TcpStream, usize),
}

/// Hears whom the connection is from, where a load balancer says so, and shakes hands for TLS. Together they have as
/// long as a request's header has, and as little as that when the worker closes its connections.
/// `None`: it came to nothing.
pub(super) async fn prepare(
    session: &Session,
    stream: TcpStream,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) -> Option<Prepared> {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let tls = local.tls(session.listener_index());
    let peer = session.peer.borrow().address();
    let is_announced = listener.proxy_protocol.iter().any(|net| net.contains(&peer));
    if tls.is_none() && !is_announced && listener.passthrough.is_empty() {
        return Some(Prepared::Http(Stream::Plain(stream), Version::HTTP_11));
    }
    let watch = &session.watch;
    // Whatever fails, or takes too long, fails for what it was at.
    let at = Cell::new(Refused::ProxyHeader);
    let mut prepared = pin!(async {
        let mut stream = stream;
        if is_announced {
            let announced = announced(&mut stream).await?;
            if let Announced::Client(client) = announced {
                at.set(Refused::Denied);
                session.is_from(client, stream.local_addr()?, tls.is_some())?;
            }
        }
        at.set(Refused::TlsHandshake);
        if !listener.passthrough.is_empty() {
            match passthrough::destination(&stream, &listener.passthrough).await? {
                Some(upstream) => return Ok(Prepared::Forward(stream, upstream)),
                None if tls.is_none() => {
                    return Err(io::Error::other("no entry of passthrough is for its name"));
                }
                None => {}
            }
        }
        let Some(tls) = tls else { return Ok(Prepared::Http(Stream::Plain(stream), Version::HTTP_11)) };
        let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
        let agreed = stream.get_ref().1;
        session.peer.borrow().shows(agreed.peer_certificates().unwrap_or_default());
        if agreed.alpn_protocol() == Some(TLS_ALPN) {
            // The handshake was all that the authority wanted to see.
            return Ok(Prepared::Seen);
        }
        let name = agreed.server_name().map(|name| name.to_ascii_lowercase().into());
        session.server_name.replace(name);
        session.tls_version.set(agreed.protocol_version().map(tls::version_name));
        let is_http2 = agreed.alpn_protocol() == Some(tls::HTTP2);
        let version = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        io::Result::Ok(Prepared::Http(Stream::Tls(Box::new(stream.into())), version))
    });
    let prepared = poll_fn(|cx| {
        watch.set_waker(cx.waker());
        if let Poll::Ready(prepared) = prepared.as_mut().poll(cx) {
            return Poll::Ready(prepared);
        }
        closing.begins(watch);
        ready!(timer.poll(cx, &**watch));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    });
    match prepared.await {
        Ok(prepared) => {
            watch.begins(Instant::now(), listener.header_timeout);
            Some(prepared)
        }
        Err(error) => {
            tracing::debug!(client = %session.peer.borrow().address(), reason = ?at.get(), %error, "not served");
            session.worker.count_refused(session.listens_on, at.get());
            None
        }
    }
}

/// Reads what a load balancer says of a connection, and nothing behind it. Of version 1 a few bytes at a time: how
/// long it is, only its end says.
async fn announced(stream: &mut TcpStream) -> io::Result<Announced> {
    let mut header = Vec::new();
    loop {
        match proxy_protocol::read(&header).map_err(io::Error::other)? {
            Progress::Done(announced) => return Ok(announced),
            Progress::Needs(count) => {
                let begin = header.len();
                header.resize(begin + count, 0);
                stream.read_exact(&mut header[begin..]).await?;
            }
        }
    }
}
