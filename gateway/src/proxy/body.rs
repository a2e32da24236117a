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
use super::framing::Refusal;
use super::gather::Gathered;
use super::grpc_web;
use super::upstream::Lease;
use super::watch::Watch;

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    /// It was read before, and nothing of it comes any more.
    gathered: Option<Box<Gathered>>,
    watch: Option<Rc<Watch>>,
    /// From its end to the head of the response.
    response_timeout: Duration,
    /// It comes in base64.
    text: Option<grpc_web::TextReader>,
}

/// Why a request's body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the body is not in base64")]
    NotBase64,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { incoming: Some(incoming), watch: Some(watch), response_timeout, ..Self::empty() }
    }

    /// One that was read before.
    pub(super) fn gathered(gathered: Gathered, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        let gathered = Some(Box::new(gathered));
        Self { gathered, watch: Some(watch), response_timeout, ..Self::empty() }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self { incoming: None, gathered: None, watch: None, response_timeout: Duration::ZERO, text: None }
    }

    /// It comes in this form of gRPC-Web.
    pub(super) fn in_form(self, form: grpc_web::Form) -> Self {
        Self { text: (form == grpc_web::Form::Text).then(grpc_web::TextReader::default), ..self }
    }

    /// Reads a piece that came in base64. The last one has to be whole.
    fn read_text(&mut self, piece: &[u8], is_last: bool) -> Result<Bytes, BodyError> {
        let Some(text) = &mut self.text else { return Ok(Bytes::copy_from_slice(piece)) };
        let read =
            text.read(piece).and_then(|read| if is_last { text.end().map(|()| read) } else { Ok(read) });
        read.map_err(|grpc_web::NotBase64| {
            if let Some(watch) = &self.watch {
                watch.refuse(Refusal::Malformed("The body is not in base64."));
            }
            BodyError::NotBase64
        })
    }

    /// The next piece of one that was read before.
    fn next_gathered(&mut self) -> Option<Frame<Bytes>> {
        let gathered = self.gathered.as_mut()?;
        let mut frame = gathered.next();
        if gathered.is_end() {
            self.gathered = None;
            self.ended();
        }
        frame.as_mut().and_then(Frame::trailers_mut).map(forwarded::remove_claims);
        frame
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
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(this.next_gathered().map(Ok)) };
        let frame = Pin::new(incoming).poll_frame(cx);
        if let Some(watch) = &this.watch {
            watch.set_awaits_client(frame.is_pending());
        }
        let mut frame = ready!(frame).map(|frame| frame.map_err(BodyError::from));
        if let Some(watch) = &this.watch {
            watch.progressed();
        }
        if this.text.is_some() {
            let is_last = frame.is_none() || this.incoming.as_ref().is_some_and(Body::is_end_stream);
            let piece = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            match this.read_text(piece.map_or(&[], |piece| piece), is_last) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(read) if piece.is_some() => frame = Some(Ok(Frame::data(read))),
                Ok(_) => {}
            }
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
        self.incoming.as_ref().is_none_or(Body::is_end_stream) && self.gathered.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.text.is_some() {
            return SizeHint::default();
        }
        match (&self.incoming, &self.gathered) {
            (Some(incoming), _) => incoming.size_hint(),
            (None, None) => SizeHint::with_exact(0),
            (None, Some(gathered)) => gathered.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// A response's body on its way to the client.
pub(super) enum ResponseBody {
    /// The gateway's own words.
    Own { text: Option<Bytes>, exchange: Exchange },
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
    /// It goes to a client of gRPC-Web.
    form: Option<grpc_web::Form>,
}

impl ResponseBody {
    pub(super) fn own(text: Bytes, mut exchange: Exchange) -> Self {
        // It is here as a whole. Who asked by HEAD gets nothing of it, and nobody asks for it then.
        exchange.sent(0, true);
        Self::Own { text: Some(text).filter(|text| !text.is_empty()), exchange }
    }

    pub(super) fn upstream(
        incoming: Incoming,
        lease: Lease,
        mut exchange: Exchange,
        form: Option<grpc_web::Form>,
    ) -> Self {
        exchange.sent(0, incoming.is_end_stream());
        Self::Upstream(UpstreamBody { incoming, lease, exchange, form })
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
            Self::Own { text, exchange } => {
                let text = text.take();
                exchange.sent(text.as_ref().map_or(0, Bytes::len), true);
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
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
            Self::Upstream(UpstreamBody { form: Some(_), .. }) => SizeHint::default(),
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
        let is_last = frame.is_none() || self.incoming.is_end_stream();
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        self.exchange.sent(bytes, is_last);
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.in_form(frame))))
    }

    fn in_form(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(form) = self.form else { return frame };
        match frame.into_data() {
            Ok(data) => Frame::data(grpc_web::encode(data, form)),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::data(grpc_web::encode_trailers(&trailers, form)),
                Err(other) => other,
            },
        }
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
