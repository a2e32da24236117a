//! The body of a message as it comes in: of a client's request or of an upstream's response, over every version of
//! HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming as Http1;

use super::body::BodyError;
#[cfg(feature = "http3")]
use super::connection::http3::Http3Body;

/// A body that somebody sends us.
#[derive(Debug)]
pub(super) enum Incoming {
    Http1(Http1),
    Http2(Received),
    #[cfg(feature = "http3")]
    Http3(Box<Http3Body>),
    /// There is none.
    Nothing,
}

/// A body that comes as a stream of HTTP/2.
#[derive(Debug)]
pub(super) struct Received {
    stream: RecvStream,
    /// Bytes that are still to come, where the header says how many. h2 holds them against it.
    left: Option<u64>,
    /// What is left is trailers.
    has_data: bool,
}

impl Incoming {
    /// The body that comes after this header.
    pub(super) fn of_stream(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let left = if stream.is_end_stream() { Some(0) } else { length() };
        Self::Http2(Received { stream, left, has_data: true })
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(received) => received.poll_frame(cx),
            #[cfg(feature = "http3")]
            Self::Http3(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(received) => received.stream.is_end_stream(),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(received) => received.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl Received {
    /// A reset is no end, whatever its reason: what is cut off must not pass for whole.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The stream may be over; nobody counts then.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.has_data = false,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(
            trailers
                .map(|trailers| trailers.map(Frame::trailers))
                .transpose()
                .map(|frame| frame.map_err(BodyError::from)),
        )
    }
}
