//! What of a request's body has gone to the upstream, while it may have to go once more: an upstream over HTTP/2 may refuse
//! a request without a look at it.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::Frame;

/// As much of a body is kept until the upstream answers. Most bodies are no longer, and of those that are, h2 buffers as
/// much for a stream.
pub(super) const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Pieces of it. Each keeps the whole of what was read with it, so a client that sends a byte at a time would make us keep
/// far more than it sent; to copy them into one would cost each upload.
const MAX_KEPT_PIECES: usize = 16;

#[derive(Debug, Default)]
pub(super) enum Kept {
    /// Nobody asks.
    #[default]
    Nothing,
    All {
        pieces: VecDeque<Bytes>,
        bytes: usize,
    },
    /// It was too much, or something that is not kept.
    Lost,
}

impl Kept {
    /// Of what goes from here on.
    pub(super) fn begin() -> Self {
        Self::All { pieces: VecDeque::new(), bytes: 0 }
    }

    /// This goes. Trailers are not kept: hardly any client sends them, and behind them there is nothing to wait for.
    pub(super) fn note<E>(&mut self, frame: &Option<Result<Frame<Bytes>, E>>) {
        let (Self::All { pieces, bytes }, Some(frame)) = (&mut *self, frame) else { return };
        match frame.as_ref().ok().and_then(Frame::data_ref) {
            Some(piece) if piece.is_empty() => {}
            Some(piece) if *bytes + piece.len() <= MAX_KEPT_BYTES && pieces.len() < MAX_KEPT_PIECES => {
                *bytes += piece.len();
                pieces.push_back(piece.clone());
            }
            _ => *self = Self::Lost,
        }
    }

    /// All that has gone, if all of it is kept.
    pub(super) fn into_pieces(self) -> Option<VecDeque<Bytes>> {
        match self {
            Self::All { pieces, .. } => Some(pieces),
            Self::Nothing | Self::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_all_that_has_gone_or_nothing(
            lengths in proptest::collection::vec(prop_oneof![0usize..40, 10_000usize..30_000], 0..24),
            trailers in any::<bool>(),
        ) {
            let (mut kept, mut gone) = (Kept::begin(), Vec::new());
            for (index, length) in lengths.iter().enumerate() {
                let piece = vec![index as u8; *length];
                gone.extend_from_slice(&piece);
                kept.note::<()>(&Some(Ok(Frame::data(piece.into()))));
            }
            if trailers {
                kept.note::<()>(&Some(Ok(Frame::trailers(HeaderMap::new()))));
            }
            kept.note::<()>(&None);
            let pieces = lengths.iter().filter(|length| **length > 0).count();
            let fits = gone.len() <= MAX_KEPT_BYTES && pieces <= MAX_KEPT_PIECES && !trailers;
            prop_assert_eq!(kept.into_pieces().map(|pieces| pieces.iter().flatten().copied().collect()), fits.then_some(gone));
        }
    }

    #[test]
    fn what_breaks_off_or_is_not_asked_for_is_not_kept() {
        let mut kept = Kept::begin();
        kept.note(&Some(Err(())));
        assert!(kept.into_pieces().is_none());
        let mut kept = Kept::default();
        kept.note::<()>(&Some(Ok(Frame::data(Bytes::from("a")))));
        assert!(kept.into_pieces().is_none());
    }
}
