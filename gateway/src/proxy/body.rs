//! Bodies on their way through: what hyper gives is passed on frame by frame, and the connection's watch
//! hears of it. Nothing is gathered, so a slow reader slows the sender.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::forwarded;
use super::upstream::Lease;
use super::watch::Watch;

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    watch: Option<Rc<Watch>>,
    /// From its end to the head of the response.
    response_timeout: Duration,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { incoming: Some(incoming), watch: Some(watch), response_timeout }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self { incoming: None, watch: None, response_timeout: Duration::ZERO }
    }

    fn ended(&mut self) {
        self.incoming = None;
        if let Some(watch) = self.watch.take() {
            watch.set_awaits_client(false);
            watch.upload_ended(Instant::now() + self.response_timeout);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        if let Some(watch) = &this.watch {
            watch.set_awaits_client(frame.is_pending());
        }
        let mut frame = ready!(frame);
        if let Some(watch) = &this.watch {
            watch.progressed();
        }
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            // Some servers merge them into the header, where the upstream may believe what it reads.
            forwarded::remove_claims(trailers);
        }
        if frame.is_none() || this.incoming.as_ref().is_some_and(Body::is_end_stream) {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A response's body on its way to the client.
pub(super) enum ResponseBody {
    /// The gateway's own words.
    Own { text: Option<Bytes>, _exchange: Exchange },
    /// The upstream's.
    Upstream(UpstreamBody),
    /// None: the connection is another protocol's from here on.
    Nothing,
}

/// Over HTTP/1.1 the body comes out of a connection that nobody else runs: whoever asks for a frame runs it.
pub(super) struct UpstreamBody {
    incoming: Incoming,
    lease: Lease,
    exchange: Exchange,
}

impl ResponseBody {
    pub(super) fn own(text: Bytes, exchange: Exchange) -> Self {
        Self::Own { text: Some(text).filter(|text| !text.is_empty()), _exchange: exchange }
    }

    pub(super) fn upstream(incoming: Incoming, lease: Lease, exchange: Exchange) -> Self {
        Self::Upstream(UpstreamBody { incoming, lease, exchange })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Upstream(body) => body.poll_frame(cx),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_none(),
            Self::Upstream(body) => body.incoming.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Upstream(body) => body.incoming.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl UpstreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = if self.lease.is_shared() {
            Pin::new(&mut self.incoming).poll_frame(cx)
        } else {
            self.run_for_frame(cx)
        };
        let frame = ready!(frame);
        self.exchange.watch().progressed();
        if let Some(Err(_)) = frame {
            self.exchange.aborted();
        }
        Poll::Ready(frame)
    }

    /// The connection and the body talk through wakers, but both are run here, so waking this very task
    /// would only make it run once more for nothing. The no-op waker goes first; only when there is nothing
    /// left to do does the connection learn whom to wake.
    fn run_for_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
        if frame.is_pending() {
            self.lease.run(&mut quiet);
            frame = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
        }
        if frame.is_pending() {
            self.lease.run(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
        }
        frame
    }
}
