//! A body on its way out as a stream of HTTP/2, to a client or to an upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// A body and the stream that it goes out on. Dropped before its end, the stream is reset.
pub(super) struct Outgoing<B> {
    stream: SendStream<Bytes>,
    body: B,
    broken_off: Reason,
    /// A piece of the body that waits for the receiver's window, and whether it is the last.
    held: Option<(Bytes, bool)>,
}

/// The body did not go out as a whole: the receiver does not want it, or it broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// The reason is what the receiver is told when the body breaks off.
    pub(super) fn new(stream: SendStream<Bytes>, body: B, broken_off: Reason) -> Self {
        Self { stream, body, broken_off, held: None }
    }

    /// Sends what there is to send; ready at the end of the body.
    ///
    /// A piece is asked for before room is: a claim on the window of the whole connection, made by a body that then
    /// brings nothing, would keep the others waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            if self.stream.poll_reset(cx).map_err(stopped)?.is_ready() {
                return Poll::Ready(Err(Stopped));
            }
            if let Some((piece, is_last)) = self.held.take() {
                if !piece.is_empty() && self.poll_room(cx)?.is_pending() {
                    self.held = Some((piece, is_last));
                    return Poll::Pending;
                }
                self.stream.send_data(piece, is_last).map_err(stopped)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(stopped));
            };
            let Ok(frame) = frame else {
                self.stream.send_reset(self.broken_off);
                return Poll::Ready(Err(Stopped));
            };
            match frame.into_data() {
                Ok(piece) => self.held = Some((piece, self.body.is_end_stream())),
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    self.stream.reserve_capacity(0);
                    return Poll::Ready(self.stream.send_trailers(trailers).map_err(stopped));
                }
            }
        }
    }

    /// Whether some bytes may be sent. h2 keeps those that are too many until there is room for them, too, and asks for
    /// it: so no more than one piece waits.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        self.stream.reserve_capacity(1);
        loop {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(_)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(stopped(error))),
                None => return Poll::Ready(Err(Stopped)),
            }
        }
    }
}

fn stopped(error: h2::Error) -> Stopped {
    tracing::debug!(%error, "a body did not go out as a whole");
    Stopped
}
