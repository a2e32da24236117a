//! Upgrades (RFC 9110, section 7.8), WebSocket above all: which are asked for, and the bytes both ways afterwards.
//!
//! What a route does not name is not upgraded: the upstream sees a plain request. `h2c` can never be named, for an
//! upstream that took it would read requests that nobody here has seen.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Version};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::connection::Scratch;
use super::exchange::Exchange;
use super::stream::Stream;
use super::stream_tunnel::{Connect, upgrade};
use super::watch::Watch;

/// The upgrade that a request asks for, if it is one of these (in lower case): the field for the upstream.
pub(super) fn asked<B>(request: &Request<B>, allowed: &[String]) -> Option<HeaderValue> {
    if request.extensions().get::<Connect>().is_some() {
        return allowed.iter().any(|name| *name == upgrade()).then(upgrade);
    }
    if request.version() != Version::HTTP_11 || !names_upgrade(request.headers()) {
        return None;
    }
    let mut lines = request.headers().get_all(UPGRADE).iter();
    // Several are an order of preference. Only clients that try for HTTP/2 send one; then nothing is switched.
    let (Some(protocol), None) = (lines.next(), lines.next()) else { return None };
    let is_allowed = |name: &String| protocol.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    allowed.iter().any(is_allowed).then(|| protocol.clone())
}

/// Whether Connection names Upgrade: without that, the field means nothing.
fn names_upgrade(headers: &HeaderMap) -> bool {
    let names = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    names.into_iter().any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Whether an upstream that answers 101 switches to what it was asked for.
pub(super) fn agrees(response: &HeaderMap, asked: &HeaderValue) -> bool {
    let agreed = response.get(UPGRADE);
    agreed.is_some_and(|agreed| agreed.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// Writes what asks for the upgrade, or agrees to it. The hop before wrote its own.
pub(super) fn write(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// A connection to an upstream that has switched protocols, and the request that it began with.
pub(super) struct Tunnel {
    pub(super) upstream: Stream,
    /// What the upstream has sent behind its agreement.
    pub(super) read: Bytes,
    pub(super) exchange: Exchange,
    /// How long nothing may move.
    pub(super) idle: Duration,
}

/// One end of a tunnel, and what was read from it already.
pub(super) type End = (Stream, Vec<u8>);

/// Carries bytes both ways until both ends have ended, or one of them broke. Nothing is kept while nothing moves:
/// whoever has ten thousand of these idle pays for sockets.
pub(super) fn run(
    [(mut client, sent), (mut upstream, answered)]: [End; 2],
    watch: Rc<Watch>,
    scratch: Scratch,
) -> impl Future<Output = io::Result<()>> {
    let mut up = Half { held: sent, ..Half::default() };
    let mut down = Half { held: answered, ..Half::default() };
    poll_fn(move |cx| {
        let mut scratch = scratch.borrow_mut();
        let sent = up.poll(cx, &mut client, &mut upstream, &mut scratch, &watch)?;
        let received = down.poll(cx, &mut upstream, &mut client, &mut scratch, &watch)?;
        ready!(sent);
        ready!(received);
        Poll::Ready(Ok(()))
    })
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Read, and not taken by the other side.
    held: Vec<u8>,
    /// No more will be read.
    ended: bool,
    /// The other side knows.
    is_shut: bool,
}

impl Half {
    /// Moves what can be moved; ready when the end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        watch: &Watch,
    ) -> Poll<io::Result<()>> {
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        while !self.is_shut {
            if !self.held.is_empty() {
                let count = ready!(to.as_mut().poll_write(cx, &self.held))?;
                watch.progressed();
                self.held.drain(..count);
                continue;
            }
            if self.ended {
                ready!(to.as_mut().poll_shutdown(cx))?;
                self.is_shut = true;
                break;
            }
            let mut buffer = ReadBuf::new(scratch);
            let Poll::Ready(read) = from.as_mut().poll_read(cx, &mut buffer) else {
                // Under TLS, what the socket did not take waits in front of it.
                ready!(to.as_mut().poll_flush(cx))?;
                return Poll::Pending;
            };
            read?;
            let bytes = buffer.filled();
            self.ended = bytes.is_empty();
            let Poll::Ready(written) = to.as_mut().poll_write(cx, bytes) else {
                self.held.extend_from_slice(bytes);
                return Poll::Pending;
            };
            watch.progressed();
            self.held.extend_from_slice(&bytes[written?..]);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_asked_for_in_one_way() {
        let allowed = ["websocket".to_owned(), "tls/1.3".to_owned()];
        for (name, version, fields, expected) in [
            ("plain", "1.1", &["connection: Upgrade", "upgrade: WebSocket"][..], Some("WebSocket")),
            (
                "among others",
                "1.1",
                &["connection: keep-alive, upgrade", "upgrade: websocket"],
                Some("websocket"),
            ),
            (
                "on two lines",
                "1.1",
                &["connection: a", "connection: upgrade", "upgrade: tls/1.3"],
                Some("tls/1.3"),
            ),
            ("not named by Connection", "1.1", &["connection: keep-alive", "upgrade: websocket"], None),
            ("no Connection", "1.1", &["upgrade: websocket"], None),
            ("nothing to upgrade to", "1.1", &["connection: upgrade"], None),
            ("another", "1.1", &["connection: upgrade", "upgrade: h2c"], None),
            ("a list", "1.1", &["connection: upgrade", "upgrade: websocket, h2c"], None),
            ("two", "1.1", &["connection: upgrade", "upgrade: websocket", "upgrade: h2c"], None),
            ("HTTP/1.0", "1.0", &["connection: upgrade", "upgrade: websocket"], None),
        ] {
            let version = if version == "1.1" { Version::HTTP_11 } else { Version::HTTP_10 };
            let mut request = Request::get("/").version(version);
            for field in fields {
                let (name, value) = field.split_once(": ").unwrap();
                request = request.header(name, value);
            }
            let asked = asked(&request.body(()).unwrap(), &allowed);
            assert_eq!(asked.as_ref().map(|value| value.to_str().unwrap()), expected, "{name}");
        }
    }
}
