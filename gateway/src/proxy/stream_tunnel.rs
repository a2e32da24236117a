//! WebSocket over HTTP/2 (RFC 8441): a stream of a client's carries what would be a connection of its own over HTTP/1.1,
//! and the upstream is asked for an upgrade all the same.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf, ReadHalf, WriteHalf};

use super::connection::Scratch;
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::random::Random;
use super::stream::Stream;
use super::tunnel::Tunnel;
use super::watch::{Phase, Watch};

const WEBSOCKET: &str = "websocket";

/// Of a request that asks for a stream to become a tunnel, and is written as one for an upgrade.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connect;

/// Whether a request asks for a stream to become WebSocket's. Nothing else is asked for so.
pub(super) fn is_asked(head: &Parts) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.method == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET))
}

/// Writes such a request as HTTP/1.1 has it. The key is of the hop to the upstream: over HTTP/2 there is none.
pub(super) fn translate(head: &mut Parts, random: &Random) {
    head.method = Method::GET;
    head.extensions.insert(Connect);
    let key = STANDARD.encode([random.next().to_ne_bytes(), random.next().to_ne_bytes()].concat());
    if let Ok(key) = HeaderValue::try_from(key) {
        head.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    // What follows is no body.
    head.headers.remove(CONTENT_LENGTH);
}

/// The upgrade that such a request asks for.
pub(super) const fn upgrade() -> HeaderValue {
    HeaderValue::from_static(WEBSOCKET)
}

/// Writes an upstream's agreement as HTTP/2 has it.
pub(super) fn agree(status: &mut StatusCode, headers: &mut HeaderMap) {
    const OF_HTTP1: [HeaderName; 2] = [SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH];
    *status = StatusCode::OK;
    for name in OF_HTTP1 {
        headers.remove(name);
    }
}

/// A stream that carries another protocol, and the connection to the upstream.
pub(super) struct StreamTunnel {
    /// `None`: the upstream has ended.
    down: Option<Outgoing<Answered>>,
    up: Sent,
    _exchange: Exchange,
}

impl StreamTunnel {
    pub(super) fn new(tunnel: Tunnel, scratch: Scratch, down: SendStream<Bytes>, up: RecvStream) -> Self {
        let Tunnel { upstream, read, exchange, idle } = tunnel;
        let watch = Rc::clone(exchange.watch());
        watch.moves(Phase::Download(idle), Instant::now(), idle);
        let (reader, writer) = tokio::io::split(upstream);
        let read = Some(read).filter(|read| !read.is_empty());
        let answered = Answered { read, reader, scratch, watch: Rc::clone(&watch) };
        // A connection that is cut is a stream that is cancelled (RFC 8441, section 5).
        let down = Some(Outgoing::new(down, answered, Reason::CANCEL));
        let up = Sent { held: Bytes::new(), stream: up, writer, is_ended: false, is_shut: false, watch };
        Self { down, up, _exchange: exchange }
    }

    /// Carries bytes both ways until both ends have ended, or one of them broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(down) = &mut self.down
            && let Poll::Ready(sent) = down.poll(cx)
        {
            if sent.is_err() {
                return Poll::Ready(());
            }
            self.down = None;
        }
        match self.up.poll(cx) {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a tunnel ended");
                Poll::Ready(())
            }
            Poll::Ready(Ok(())) if self.down.is_none() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// What the upstream says: the body of what goes to the client, which has no end but the connection's.
struct Answered {
    /// Behind its agreement.
    read: Option<Bytes>,
    reader: ReadHalf<Stream>,
    scratch: Scratch,
    watch: Rc<Watch>,
}

impl Body for Answered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(read) = this.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let mut scratch = this.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut this.reader).poll_read(cx, &mut buffer))?;
        this.watch.progressed();
        let bytes = buffer.filled();
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(Bytes::copy_from_slice(bytes)))))
    }
}

/// What the client says, on its way to the upstream. Its window opens as the upstream takes it.
struct Sent {
    held: Bytes,
    stream: RecvStream,
    writer: WriteHalf<Stream>,
    is_ended: bool,
    is_shut: bool,
    watch: Rc<Watch>,
}

impl Sent {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = Pin::new(&mut self.writer);
        while !self.is_shut {
            if !self.held.is_empty() {
                let count = ready!(writer.as_mut().poll_write(cx, &self.held))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.held.advance(count);
                // The stream may be over; nobody counts then.
                let _ = self.stream.flow_control().release_capacity(count);
                self.watch.progressed();
                continue;
            }
            if self.is_ended {
                ready!(writer.as_mut().poll_shutdown(cx))?;
                self.is_shut = true;
                break;
            }
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(data)) => self.held = data.map_err(io::Error::other)?,
                Poll::Ready(None) => self.is_ended = true,
                Poll::Pending => {
                    // Under TLS, what the socket did not take waits in front of it.
                    ready!(writer.as_mut().poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
