//! A client's socket as h2 sees it: frames that cost work and lead to nothing are counted, and too many of them end
//! the connection.
//!
//! A reset of each request right after it (CVE-2023-44487), settings, pings, priorities and continuations cost the
//! sender a few bytes and us an answer, a search or a task that begins in vain. All of them have their use, so each
//! connection has an allowance that grows with time and with what it really carries: downloads bring window updates,
//! and uploads bring pings of those who measure the path.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::stream::Stream;

pub(super) struct FrameIo {
    stream: Stream,
    /// Read before, and not yet given to h2.
    held: Vec<u8>,
    frames: Frames,
    flooded: Rc<Cell<bool>>,
}

impl FrameIo {
    /// `flooded` is set when the client is cut off.
    pub(super) fn new(stream: Stream, held: Vec<u8>, flooded: Rc<Cell<bool>>) -> Self {
        Self { stream, held, frames: Frames::new(Instant::now()), flooded }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.look(bytes, Instant::now()).map_err(|Flood| {
            self.flooded.set(true);
            io::Error::other("the client floods the connection with frames that lead to nothing")
        })
    }
}

impl AsyncRead for FrameIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let count = this.held.len().min(buffer.remaining());
            buffer.put_slice(&this.held[..count]);
            this.held.drain(..count);
        }
        Poll::Ready(this.look(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for FrameIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.frames.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.frames.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Bytes of HTTP/2's preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's header (section 4.1).
const HEADER_BYTES: usize = 9;

/// What a connection may cost at once, and how much of that comes back in a second. A browser that leaves a page
/// resets some hundred requests at worst; nobody does so every second.
const ALLOWANCE: u32 = 1000;
const REFILL: u32 = 100;
/// A reset ends what has cost more than to read its frame.
const RESET_COST: u32 = 4;
/// Receivers update windows about once in this many bytes, most of them far less often.
const BYTES_A_WINDOW_UPDATE: usize = 1024;

/// There is nothing left of the allowance.
#[derive(Debug, PartialEq, Eq)]
struct Flood;

/// Follows the frames of a connection.
struct Frames {
    /// Bytes that are not looked at: of the preface, or of a frame behind its header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// How much of the header there is.
    known: usize,
    allowance: u32,
    refilled: Instant,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self { skip: PREFACE_BYTES, header: [0; HEADER_BYTES], known: 0, allowance: ALLOWANCE, refilled: now }
    }

    /// Looks at the next bytes.
    fn look(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        self.refill(now);
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let count = (HEADER_BYTES - self.known).min(bytes.len());
            self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes = &bytes[count..];
            if self.known == HEADER_BYTES {
                self.known = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    /// A frame's header is complete.
    fn count(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        let cost = match kind {
            DATA if length > 0 => {
                self.earn(1);
                0
            }
            DATA if flags & END_STREAM != 0 => 0,
            // As many as there may be streams, and those are bounded.
            HEADERS => 0,
            RST_STREAM => RESET_COST,
            _ => 1,
        };
        self.allowance = self.allowance.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn wrote(&mut self, bytes: usize) {
        self.earn(u32::try_from(bytes / BYTES_A_WINDOW_UPDATE + 1).unwrap_or(ALLOWANCE));
    }

    fn earn(&mut self, count: u32) {
        self.allowance = self.allowance.saturating_add(count).min(ALLOWANCE);
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).min(Duration::from_secs(60));
        let count = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX) * REFILL / 1000;
        if count > 0 {
            self.refilled = now;
            self.earn(count);
        }
    }
}

/// Kinds of frames and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const CONTINUATION: u8 = 9;
    const WINDOW_UPDATE: u8 = 8;
    const SETTINGS: u8 = 4;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length, 0);
        frame
    }

    /// How many of these frames a new connection may send at once, up to 5,000.
    fn taken(frame: &[u8], pieces: usize, wrote: usize) -> usize {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.look(&[b'x'; PREFACE_BYTES], now).unwrap();
        let take = |_: &usize| {
            frames.wrote(wrote);
            frame.chunks(pieces).all(|piece| frames.look(piece, now).is_ok())
        };
        (0..5_000).take_while(take).count()
    }

    #[test]
    fn what_leads_to_nothing_is_bounded() {
        let [reset, ping, settings] = [frame(RST_STREAM, 0, 4), frame(PING, 0, 8), frame(SETTINGS, 0, 0)];
        let empty_end = frame(DATA, END_STREAM, 0);
        for (name, frame, expected) in [
            ("resets", reset, 250),
            ("pings", ping.clone(), 1000),
            ("settings", settings, 1000),
            ("window updates", frame(WINDOW_UPDATE, 0, 4), 1000),
            ("continuations", frame(CONTINUATION, 0, 10), 1000),
            ("an unknown kind", frame(99, 0, 3), 1000),
            ("empty data", frame(DATA, 0, 0), 1000),
            ("data", frame(DATA, 0, 7), 5000),
            ("ends", empty_end, 5000),
            ("headers", frame(HEADERS, 0, 40), 5000),
            ("data, and a ping", [frame(DATA, 0, 1), ping].concat(), 5000),
        ] {
            // Some credit comes with each write, and here there is none but the one that a write of nothing brings.
            for pieces in [1, 7, 4096] {
                let now = Instant::now();
                let mut frames = Frames::new(now);
                frames.look(&[b'x'; PREFACE_BYTES], now).unwrap();
                let take = |_: &usize| frame.chunks(pieces).all(|piece| frames.look(piece, now).is_ok());
                assert_eq!((0..5_000).take_while(take).count(), expected, "{name}, {pieces} at a time");
            }
        }
    }

    #[test]
    fn downloads_pay_for_their_window_updates() {
        assert_eq!(taken(&frame(WINDOW_UPDATE, 0, 4), 4096, 8 * 1024), 5_000);
    }

    #[test]
    fn an_allowance_comes_back_with_time() {
        let mut now = Instant::now();
        let mut frames = Frames::new(now);
        frames.look(&[b'x'; PREFACE_BYTES], now).unwrap();
        let ping = frame(PING, 0, 8);
        for _ in 0..ALLOWANCE {
            frames.look(&ping, now).unwrap();
        }
        for _ in 0..10_000 {
            now += Duration::from_millis(10);
            frames.look(&ping, now).unwrap();
        }
        now += Duration::from_secs(3600);
        for _ in 0..ALLOWANCE {
            frames.look(&ping, now).unwrap();
        }
        assert_eq!(frames.look(&ping, now), Err(Flood));
    }
}
