//! A request's body over HTTP/3, as the pipeline reads it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h3::server::RequestStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::super::super::body::BodyError;
use super::super::super::framing::Refusal;
use super::super::super::watch::Watch;
use super::transport::Receive;

/// h3 does not hold the length that Content-Length says against the body: that is done here (RFC 9114, section 4.1.2).
pub(in crate::proxy) struct Http3Body {
    stream: RequestStream<Receive, Bytes>,
    watch: Rc<Watch>,
    at: At,
    /// What came before the request was handed on.
    first: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// What is left, if Content-Length says so.
    left: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Data,
    Trailers,
    End,
}

impl Http3Body {
    pub(super) fn new(stream: RequestStream<Receive, Bytes>, watch: Rc<Watch>, length: Option<u64>) -> Self {
        Self { stream, watch, at: At::Data, first: None, trailers: None, left: length }
    }

    /// Looks whether there is a body at all, and waits until that is known if it should.
    pub(super) async fn begins(&mut self, waits: bool) {
        poll_fn(|cx| match self.poll_begin(cx) {
            Poll::Pending if waits => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if self.at == At::Data {
            self.first = ready!(self.poll_data(cx))?;
        }
        if self.at == At::Trailers {
            self.trailers = ready!(self.stream.poll_recv_trailers(cx))?;
            self.at = At::End;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether it has ended, and has not the length that was promised.
    pub(super) fn is_short(&self) -> bool {
        self.at == At::End && self.left.is_some_and(|left| left > 0)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let data =
            ready!(self.stream.poll_recv_data(cx))?.map(|mut data| data.copy_to_bytes(data.remaining()));
        if data.is_none() {
            self.at = At::Trailers;
        }
        Poll::Ready(Ok(data))
    }

    /// So much of it came.
    fn counts(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        if let Some(left) = self.left {
            self.left = Some(left.checked_sub(data.len() as u64).ok_or_else(|| self.is_malformed())?);
        }
        Ok(data)
    }

    fn is_malformed(&self) -> BodyError {
        self.watch.refuse(Refusal::Malformed("The body has not the length that Content-Length says."));
        BodyError::Length
    }
}

impl Body for Http3Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(this.counts(first).map(Frame::data)));
        }
        if this.at == At::Data
            && let Some(data) = ready!(this.poll_data(cx))?
        {
            return Poll::Ready(Some(this.counts(data).map(Frame::data)));
        }
        if this.at == At::End {
            return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let trailers = ready!(this.stream.poll_recv_trailers(cx))?;
        this.at = At::End;
        if this.left.is_some_and(|left| left > 0) {
            return Poll::Ready(Some(Err(this.is_malformed())));
        }
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == At::End && self.first.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.at, self.left) {
            (At::End, _) => SizeHint::with_exact(0),
            (_, Some(left)) => SizeHint::with_exact(left),
            (_, None) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Http3Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3Body").field("at", &self.at).field("left", &self.left).finish_non_exhaustive()
    }
}
