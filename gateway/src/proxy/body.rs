//! Bodies on their way through: what hyper or h3 gives is passed on frame by frame, and the connection's watch
//! hears of it. Nothing is gathered, so a slow reader slows the sender.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::exchange::Exchange;
use super::forwarded;
use super::framing::Refusal;
use super::gather::Gathered;
use super::grpc;
use super::grpc_web;
use super::incoming::Incoming;
use super::kept::Kept;
use super::llm::Spoken;
use super::mirror::{Copied, GivenUp, Tee};
use super::problem::Kind;
use super::trailers;
use super::tunnel::Tunnel;
use super::upstream::Lease;
use super::watch::Watch;

/// A request's body on its way to the upstream. Most requests have none and are moved some twenty times on their way
/// through hyper, so a body that there is stands in a box.
#[derive(Debug)]
pub(super) struct RequestBody(Option<Box<Upload>>);

#[derive(Debug)]
struct Upload {
    /// `None` when all of it was read.
    incoming: Option<Source>,
    watch: Option<Rc<Watch>>,
    /// From its end to the head of the response.
    response_timeout: Duration,
    /// It comes in base64.
    text: Option<grpc_web::TextReader>,
    /// Where copies of it go.
    tee: Option<Tee>,
    /// What has gone, while it may have to go once more.
    kept: Kept,
    /// What has gone once, and goes before the rest.
    again: VecDeque<Bytes>,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    Client(Incoming),
    /// It was read before.
    Gathered(Gathered),
    /// It was made here.
    Here(Option<Bytes>),
    /// It is the copy of another one.
    Copy(Copied),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[cfg(feature = "http3")]
    #[error(transparent)]
    Http3(#[from] h3::error::StreamError),
    #[cfg(feature = "http3")]
    #[error("the body has not the length that Content-Length says")]
    Length,
    #[error("the body is not in base64")]
    NotBase64,
    #[error("the copy was given up")]
    GivenUp,
    #[error("the answer broke off")]
    Cut,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let upload = Upload { watch: Some(watch), response_timeout, ..Upload::of(Source::Client(incoming)) };
        Self(Some(Box::new(upload)))
    }

    /// One that was read before.
    pub(super) fn gathered(gathered: Gathered, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        let upload =
            Upload { watch: Some(watch), response_timeout, ..Upload::of(Source::Gathered(gathered)) };
        Self(Some(Box::new(upload)))
    }

    /// One that is here.
    pub(super) fn of_bytes(bytes: Bytes, watch: Rc<Watch>, response_timeout: Duration) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        let upload = Upload { watch: Some(watch), response_timeout, ..Upload::of(Source::Here(Some(bytes))) };
        Self(Some(Box::new(upload)))
    }

    /// The copy of another one.
    pub(super) fn copied(copied: Copied) -> Self {
        Self(Some(Box::new(Upload::of(Source::Copy(copied)))))
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// It comes in this form of gRPC-Web.
    pub(super) fn in_form(mut self, form: grpc_web::Form) -> Self {
        if let Some(upload) = &mut self.0 {
            upload.text = (form == grpc_web::Form::Text).then(grpc_web::TextReader::default);
        }
        self
    }

    /// Whatever comes of it goes there, too.
    pub(super) fn copy_to(&mut self, tee: Tee) {
        if let Some(upload) = &mut self.0 {
            upload.tee = Some(tee);
        }
    }

    /// Keeps what goes from here on, in case that it has to go once more.
    pub(super) fn remember(&mut self) {
        if let Some(upload) = &mut self.0 {
            upload.kept = Kept::begin();
        }
    }

    /// It will not have to.
    pub(super) fn forget(&mut self) {
        if let Some(upload) = &mut self.0 {
            upload.kept = Kept::Nothing;
        }
    }

    /// The body as it was when it began to be remembered. `None` if more of it has gone than is kept.
    pub(super) fn rewound(mut self) -> Option<Self> {
        if let Some(upload) = &mut self.0 {
            let mut pieces = std::mem::take(&mut upload.kept).into_pieces()?;
            pieces.append(&mut upload.again);
            upload.again = pieces;
        }
        Some(self)
    }
}

impl Upload {
    fn of(source: Source) -> Self {
        Self {
            incoming: Some(source),
            watch: None,
            response_timeout: Duration::ZERO,
            text: None,
            tee: None,
            kept: Kept::Nothing,
            again: VecDeque::new(),
        }
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

    fn ended(&mut self) {
        self.incoming = None;
        if let Some(watch) = &self.watch {
            watch.set_awaits_client(false);
            watch.upload_ended(Instant::now() + self.response_timeout);
        }
    }

    /// A piece that has gone once.
    fn next_again(&mut self) -> Option<Frame<Bytes>> {
        let piece = self.again.pop_front()?;
        if self.again.is_empty() && self.incoming.is_none() {
            self.ended();
        }
        Some(Frame::data(piece))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(this) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        if let Some(piece) = this.next_again() {
            let frame = Some(Ok(piece));
            this.kept.note(&frame);
            return Poll::Ready(frame);
        }
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        if let Some(watch) = &this.watch {
            watch.set_awaits_client(frame.is_pending());
        }
        let mut frame = ready!(frame);
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
            trailers::clean(trailers);
        }
        let is_over = frame.is_none() || this.incoming.as_ref().is_some_and(Body::is_end_stream);
        if let Some(tee) = &this.tee {
            tee.pass(&frame, is_over);
        }
        this.kept.note(&frame);
        if is_over {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(upload) = &self.0 else { return true };
        upload.again.is_empty() && upload.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(upload) = &self.0 else { return SizeHint::with_exact(0) };
        if upload.text.is_some() {
            return SizeHint::default();
        }
        let rest = upload.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let again: usize = upload.again.iter().map(Bytes::len).sum();
        rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + again as u64))
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Client(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Gathered(gathered) => Poll::Ready(gathered.next().map(Ok)),
            Self::Here(bytes) => Poll::Ready(bytes.take().map(Frame::data).map(Ok)),
            Self::Copy(copied) => copied.poll_frame(cx).map_err(|GivenUp| BodyError::GivenUp),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(incoming) => incoming.is_end_stream(),
            Self::Gathered(gathered) => gathered.is_end(),
            Self::Here(bytes) => bytes.is_none(),
            Self::Copy(copied) => copied.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(incoming) => incoming.size_hint(),
            Self::Gathered(gathered) => {
                gathered.length().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Here(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Copy(copied) => copied.size_hint(),
        }
    }
}

/// A response's body on its way to the client; small, because hyper moves it often.
pub(super) enum ResponseBody {
    /// The gateway's own words.
    Own { text: Option<Bytes>, exchange: Box<Exchange> },
    /// The upstream's.
    Upstream(Box<UpstreamBody>),
    /// What a model says.
    Llm(Box<Spoken>),
    /// None: the connection is another protocol's from here on, or a call's time is over.
    Nothing,
    /// None: the stream is another protocol's from here on.
    Tunnel(Box<Tunnel>),
}

/// The upstream's body, and what is told of it on its way.
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
        Self::Own { text: Some(text).filter(|text| !text.is_empty()), exchange: Box::new(exchange) }
    }

    pub(super) fn upstream(
        incoming: Incoming,
        lease: Lease,
        mut exchange: Exchange,
        form: Option<grpc_web::Form>,
    ) -> Self {
        exchange.sent(0, incoming.is_end_stream());
        Self::Upstream(Box::new(UpstreamBody { incoming, lease, exchange, form }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Self::Upstream(body) = this
            && body.exchange.watch().is_overdue()
        {
            let end = body.end_call();
            // The upstream is told by a reset.
            *this = Self::Nothing;
            return Poll::Ready(Some(Ok(end)));
        }
        match this {
            Self::Own { text, exchange } => {
                let text = text.take();
                exchange.sent(text.as_ref().map_or(0, Bytes::len), true);
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Self::Upstream(body) => body.poll_frame(cx),
            Self::Llm(spoken) => spoken.poll_frame(cx),
            Self::Nothing | Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_none(),
            Self::Upstream(body) => body.incoming.is_end_stream(),
            Self::Llm(spoken) => spoken.is_end(),
            Self::Nothing | Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Upstream(body) if body.form.is_some() => SizeHint::default(),
            Self::Upstream(body) => body.incoming.size_hint(),
            Self::Llm(spoken) => spoken.size_hint(),
            Self::Nothing | Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl UpstreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(self.lease.poll_frame(&mut self.incoming, cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            trailers::clean(trailers);
        }
        self.exchange.watch().progressed();
        if let Some(Err(_)) = frame {
            self.exchange.aborted();
        }
        let is_last = frame.is_none() || self.incoming.is_end_stream();
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        self.exchange.sent(bytes, is_last);
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.in_form(frame))))
    }

    /// The time of a call is over.
    fn end_call(&mut self) -> Frame<Bytes> {
        self.exchange.because(Kind::DeadlineExceeded.code());
        self.in_form(Frame::trailers(grpc::overdue()))
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
}
