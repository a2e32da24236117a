//! A stream of HTTP/3 as h3 sees it (RFC 9114, section 7): frames that it may keep have a limit, frames that nobody
//! knows never reach it, and no stream ends in the middle of a frame.
//!
//! h3 gathers every frame but DATA before it looks at it, whatever length the frame claims, and gives the sender credit
//! for what it gathered: one stream could fill the memory. And it takes the end of a stream inside of a DATA frame for
//! the end of the body, so that a request that was cut short would be passed on as a whole one.

use bytes::{Buf as _, Bytes};

/// Bytes of a frame on the control stream, and of one that has no place where it stands: settings are the longest.
const MAX_CONTROL_BYTES: u64 = 4096;
/// A type and a length, each of 8 bytes at most (RFC 9000, section 16).
const MAX_HEAD_BYTES: usize = 16;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
/// The last one of those that RFC 9114 names, or reserves because HTTP/2 had them.
const LAST_NAMED: u64 = 0xd;
/// Type of a stream in one direction.
const CONTROL_STREAM: u64 = 0x0;

/// Why a stream is read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame is longer than is taken")]
    TooLong,
    #[error("the stream ended in the middle of a frame")]
    Truncated,
}

/// Follows the frames of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// What there is of a type and a length that came in pieces.
    head: [u8; MAX_HEAD_BYTES],
    known: usize,
    /// Bytes of a HEADERS frame.
    max_headers: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The type of a stream in one direction.
    StreamType,
    /// A frame's type and length.
    Head,
    /// So many bytes are left of a frame that h3 gets.
    Frame(u64),
    /// So many bytes are left of a frame that it does not get.
    Skipped(u64),
    /// No frames: h3 reads nothing of such a stream, or stops it.
    Other,
}

impl Frames {
    /// A request's stream.
    pub(super) fn of_request(max_headers: u64) -> Self {
        Self { at: At::Head, head: [0; MAX_HEAD_BYTES], known: 0, max_headers }
    }

    /// A stream in one direction.
    pub(super) fn of_connection() -> Self {
        Self { at: At::StreamType, head: [0; MAX_HEAD_BYTES], known: 0, max_headers: MAX_CONTROL_BYTES }
    }

    /// Takes from the front of `bytes`, which are not empty, and returns what h3 gets of that, if anything.
    pub(super) fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        match self.at {
            At::Other => Ok(Some(bytes.split_to(bytes.len()))),
            At::Frame(left) => {
                let count = up_to(left, bytes.len());
                self.at = after(left, count, At::Frame);
                Ok(Some(bytes.split_to(count)))
            }
            At::Skipped(left) => {
                let count = up_to(left, bytes.len());
                self.at = after(left, count, At::Skipped);
                bytes.advance(count);
                Ok(None)
            }
            At::StreamType => {
                let Some(head) = self.gather(bytes, 1) else { return Ok(None) };
                let is_control = varint(&head).is_some_and(|(kind, _)| kind == CONTROL_STREAM);
                self.at = if is_control { At::Head } else { At::Other };
                Ok(Some(head))
            }
            At::Head => {
                let Some(head) = self.gather(bytes, 2) else { return Ok(None) };
                let Some((kind, length)) = type_and_length(&head) else { return Ok(None) };
                self.at = self.judge(kind, length)?;
                let is_passed = !matches!(self.at, At::Skipped(_));
                if length == 0 {
                    self.at = At::Head;
                }
                Ok(is_passed.then_some(head))
            }
        }
    }

    /// What becomes of a frame.
    fn judge(&self, kind: u64, length: u64) -> Result<At, FrameError> {
        let max = match kind {
            DATA => u64::MAX,
            HEADERS => self.max_headers,
            // What has no place where it stands, h3 knows.
            _ if kind <= LAST_NAMED => MAX_CONTROL_BYTES,
            _ => return Ok(At::Skipped(length)),
        };
        if length > max { Err(FrameError::TooLong) } else { Ok(At::Frame(length)) }
    }

    /// Takes `count` numbers. Nearly always they are there in one piece, and nothing is copied.
    fn gather(&mut self, bytes: &mut Bytes, count: usize) -> Option<Bytes> {
        if self.known == 0
            && let Some(length) = length_of(bytes, count)
        {
            return Some(bytes.split_to(length));
        }
        while bytes.has_remaining() {
            // The longest is complete where the array ends.
            *self.head.get_mut(self.known)? = bytes.get_u8();
            self.known += 1;
            if let Some(length) = length_of(self.head.get(..self.known)?, count) {
                self.known = 0;
                return self.head.get(..length).map(Bytes::copy_from_slice);
            }
        }
        None
    }

    /// The stream ends.
    pub(super) fn end(&self) -> Result<(), FrameError> {
        match self.at {
            At::Other | At::StreamType => Ok(()),
            At::Head if self.known == 0 => Ok(()),
            At::Head | At::Frame(_) | At::Skipped(_) => Err(FrameError::Truncated),
        }
    }
}

fn up_to(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

fn after(left: u64, count: usize, more: fn(u64) -> At) -> At {
    match left.saturating_sub(count as u64) {
        0 => At::Head,
        left => more(left),
    }
}

/// A number of 1, 2, 4 or 8 bytes, and how many it has.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let number = rest.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte));
    Some((number, length))
}

fn type_and_length(bytes: &[u8]) -> Option<(u64, u64)> {
    let (kind, size) = varint(bytes)?;
    let (length, _) = varint(bytes.get(size..)?)?;
    Some((kind, length))
}

/// Bytes of so many numbers, if they are all there.
fn length_of(bytes: &[u8], count: usize) -> Option<usize> {
    (0..count).try_fold(0, |length, _| Some(length + varint(bytes.get(length..)?)?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What h3 gets, and how the stream ended, in pieces of `size`.
    fn follow(mut frames: Frames, bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), FrameError>) {
        let mut passed = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = Bytes::copy_from_slice(piece);
            while !piece.is_empty() {
                match frames.take(&mut piece) {
                    Ok(bytes) => passed.extend_from_slice(&bytes.unwrap_or_default()),
                    Err(error) => return (passed, Err(error)),
                }
            }
        }
        (passed, frames.end())
    }

    #[test]
    fn frames_pass_are_left_out_or_end_the_stream() {
        let request = || Frames::of_request(8);
        let uni = Frames::of_connection;
        type Row<'a> = (&'a str, fn() -> Frames, &'a [u8], &'a [u8], Result<(), FrameError>);
        let rows: &[Row<'_>] = &[
            ("nothing", request, &[], &[], Ok(())),
            ("a header", request, &[1, 2, 7, 7], &[1, 2, 7, 7], Ok(())),
            ("a header and data", request, &[1, 1, 7, 0, 2, 8, 8], &[1, 1, 7, 0, 2, 8, 8], Ok(())),
            ("empty data", request, &[1, 1, 7, 0, 0], &[1, 1, 7, 0, 0], Ok(())),
            (
                "the longest header",
                request,
                &[1, 8, 1, 2, 3, 4, 5, 6, 7, 8],
                &[1, 8, 1, 2, 3, 4, 5, 6, 7, 8],
                Ok(()),
            ),
            ("a longer one", request, &[1, 9, 1], &[], Err(FrameError::TooLong)),
            (
                "one of 4 EiB",
                request,
                &[1, 0xff, 255, 255, 255, 255, 255, 255, 255],
                &[],
                Err(FrameError::TooLong),
            ),
            ("long numbers", request, &[0x40, 1, 0x80, 0, 0, 1, 7], &[0x40, 1, 0x80, 0, 0, 1, 7], Ok(())),
            ("an unknown frame", request, &[0x21, 3, 9, 9, 9, 1, 1, 7], &[1, 1, 7], Ok(())),
            ("an empty unknown frame", request, &[0x21, 0, 1, 1, 7], &[1, 1, 7], Ok(())),
            ("one of WebTransport", request, &[0x40, 0x41, 1, 9, 1, 1, 7], &[1, 1, 7], Ok(())),
            ("one of HTTP/2", request, &[8, 1, 9], &[8, 1, 9], Ok(())),
            ("a long one of HTTP/2", request, &[8, 0x80, 0, 0x20, 0], &[], Err(FrameError::TooLong)),
            ("a cut header", request, &[1, 2, 7], &[1, 2, 7], Err(FrameError::Truncated)),
            ("cut data", request, &[0, 2, 7], &[0, 2, 7], Err(FrameError::Truncated)),
            ("a cut unknown frame", request, &[0x21, 2, 7], &[], Err(FrameError::Truncated)),
            ("a cut length", request, &[0], &[], Err(FrameError::Truncated)),
            ("settings", uni, &[0, 4, 2, 6, 0], &[0, 4, 2, 6, 0], Ok(())),
            ("long settings", uni, &[0, 4, 0x80, 0, 0x10, 1], &[0], Err(FrameError::TooLong)),
            ("an encoder's stream", uni, &[2, 0xff, 1, 1], &[2, 0xff, 1, 1], Ok(())),
            ("no type at all", uni, &[], &[], Ok(())),
        ];
        for (name, made, bytes, passed, ended) in rows {
            for size in 1..=bytes.len().max(1) {
                assert_eq!(
                    follow(made(), bytes, size),
                    (passed.to_vec(), *ended),
                    "{name}, {size} at a time"
                );
            }
        }
    }
}
