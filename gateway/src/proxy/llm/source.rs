//! The body of a provider's answer: decoded where it was compressed, and what was read of it ahead.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body as _;

use super::super::incoming::Incoming;
use super::super::upstream::Lease;
use super::super::watch::Watch;
use super::coding::{Decoder, Unknown};

/// A body and the connection that it comes over. Dropped before its end, the connection is closed: so a provider learns
/// that nobody waits any more.
pub(super) struct Source {
    incoming: Incoming,
    lease: Lease,
    decoder: Option<Decoder>,
    ahead: VecDeque<Bytes>,
    has_ended: bool,
}

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection broke, or what it brought cannot be decoded.
    Broken,
    /// It was silent too long.
    Silent,
    /// It is longer than may be.
    TooLong,
    /// It takes longer than it may.
    Endless,
}

impl Source {
    /// Reads the header that tells how the body is coded, and takes that out of it.
    pub(super) fn new(incoming: Incoming, lease: Lease, headers: &mut HeaderMap) -> Result<Self, Unknown> {
        let decoder = Decoder::of(headers)?;
        headers.remove(CONTENT_ENCODING);
        if decoder.is_some() {
            headers.remove(CONTENT_LENGTH);
        }
        Ok(Self { incoming, lease, decoder, ahead: VecDeque::new(), has_ended: false })
    }

    /// The next piece; nothing of it is empty. `None` at the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            let piece = match ready!(self.lease.poll_frame(&mut self.incoming, cx)) {
                Some(Ok(frame)) => {
                    // Providers send no trailers that would say anything.
                    let Ok(data) = frame.into_data() else { continue };
                    match &mut self.decoder {
                        None => data,
                        Some(decoder) => match decoder.decode(&data) {
                            Ok(decoded) => decoded,
                            Err(_) => return Poll::Ready(Some(Err(self.cut()))),
                        },
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(self.cut()))),
                None => {
                    self.has_ended = true;
                    match self.decoder.take().map(|mut decoder| decoder.finish()) {
                        None => return Poll::Ready(None),
                        Some(Ok(rest)) => rest,
                        Some(Err(_)) => return Poll::Ready(Some(Err(self.cut()))),
                    }
                }
            };
            if piece.has_remaining() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }

    fn cut(&mut self) -> Cut {
        self.has_ended = true;
        Cut::Broken
    }

    /// The next piece, waited for no longer than this.
    pub(super) async fn next(&mut self, watch: &Watch, idle: Duration) -> Option<Result<Bytes, Cut>> {
        watch.awaits_response(Instant::now() + idle);
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending if watch.is_expired() => Poll::Ready(Some(Err(Cut::Silent))),
            polled => polled,
        })
        .await
    }

    /// All of it, if it is not longer than this.
    pub(super) async fn whole(&mut self, watch: &Watch, idle: Duration, limit: usize) -> Result<Bytes, Cut> {
        let Some(first) = self.next(watch, idle).await.transpose()? else { return Ok(Bytes::new()) };
        let mut all = Vec::new();
        let mut last = first;
        while let Some(piece) = self.next(watch, idle).await.transpose()? {
            if all.len() + last.len() + piece.len() > limit {
                return Err(Cut::TooLong);
            }
            all.extend_from_slice(&last);
            last = piece;
        }
        if last.len() > limit {
            return Err(Cut::TooLong);
        }
        // Mostly there is one piece, which need not be copied.
        if all.is_empty() {
            return Ok(last);
        }
        all.extend_from_slice(&last);
        Ok(all.into())
    }

    /// What was read ahead comes first.
    pub(super) fn put_back(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        let mut pieces: VecDeque<Bytes> = pieces.into_iter().collect();
        pieces.append(&mut self.ahead);
        self.ahead = pieces;
    }

    /// Whether nothing more comes, as far as that is known.
    pub(super) fn is_end(&self) -> bool {
        self.ahead.is_empty() && (self.has_ended || (self.decoder.is_none() && self.incoming.is_end_stream()))
    }

    /// How long it is, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        if self.decoder.is_some() {
            return None;
        }
        let ahead: usize = self.ahead.iter().map(Bytes::len).sum();
        self.incoming.size_hint().exact().map(|rest| rest + ahead as u64)
    }
}
