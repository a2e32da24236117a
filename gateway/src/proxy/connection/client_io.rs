//! A client's socket as hyper sees it: heads arrive whole and checked, or not at all.
//!
//! A head that [`Framing`] refuses is replaced by a stand-in request, and the pipeline answers that one with
//! the refusal. So 400, 408 and 431 reach the client as problem details and through hyper's own writing,
//! after every response that is still due before them.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use crate::model;

use super::super::framing::{Framing, Limits, Refusal, Step};
use super::super::interim;
use super::super::stream::Stream;
use super::super::watch::Watch;

/// Where a worker reads heads into before they are checked; one for all of its connections.
pub(in crate::proxy) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// A body's bytes that are read at once: as many as hyper's buffer takes when it has grown, so a large body costs a system
/// call each way for every one of these.
pub(in crate::proxy) const SCRATCH_BYTES: usize = super::MAX_BUFFER;

/// Bytes that are read where a head is due: it nearly always comes in one read. What comes behind it is held.
const HEAD_BYTES: usize = 16 * 1024;
const _: () = assert!(HEAD_BYTES <= SCRATCH_BYTES);

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";

pub(super) struct ClientIo {
    stream: TokioIo<Stream>,
    framing: Framing,
    header_timeout: Duration,
    /// A client may begin with HTTP/2's preface, in the clear (prior knowledge; RFC 9113, section 3.3).
    speaks_http2: bool,
    watch: Rc<Watch>,
    scratch: Scratch,
    /// Bytes read and not yet given to hyper. Bounded: a head's limit and one read.
    held: Vec<u8>,
    /// How many of the held bytes may go to hyper.
    approved: usize,
    refused: bool,
    /// Of interim responses, and not yet written.
    interim: Vec<u8>,
    shut_down: bool,
    /// Bytes thrown away after the end.
    discarded: usize,
}

/// How long a client may take to read a refusal, and how much it may still send.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// What was found at the front of the bytes at hand.
struct Found {
    skipped: usize,
    approved: usize,
    refusal: Option<Refusal>,
}

impl ClientIo {
    pub(super) fn new(
        stream: Stream,
        limits: Limits,
        listener: &model::Listener,
        watch: Rc<Watch>,
        scratch: Scratch,
    ) -> Self {
        Self {
            stream: TokioIo::new(stream),
            framing: Framing::new(limits),
            header_timeout: listener.header_timeout,
            speaks_http2: listener.http2,
            watch,
            scratch,
            held: Vec::new(),
            approved: 0,
            refused: false,
            interim: Vec::new(),
            shut_down: false,
            discarded: 0,
        }
    }

    /// The socket, and what was read of it and not given to hyper.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream.into_inner(), self.held)
    }

    /// Gives back the memory of what was held.
    pub(super) fn shrink(&mut self) {
        self.held.shrink_to_fit();
    }

    /// Reads when nobody else does, and holds what came; `false` at the end of the stream, or when it is broken.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = self.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch[..HEAD_BYTES]);
        let read = ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer));
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(read.is_ok() && !self.held.is_empty())
    }

    /// Says goodbye, if the socket takes it at once.
    pub(super) fn end(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut nobody);
    }

    /// Ends the connection by a reset: an orderly end could pass for the end of the response.
    pub(super) fn reset(&self) {
        let _ = self.stream.inner().socket().set_linger(Some(Duration::ZERO));
    }

    /// Looks at bytes up to the end of one message: what follows waits until hyper asks again, because the
    /// refusal of one request must not overtake the one before it.
    fn look(&mut self, bytes: &mut [u8]) -> Found {
        let mut found = Found { skipped: 0, approved: 0, refusal: None };
        loop {
            let was_head = self.framing.in_head();
            match self.framing.step(&bytes[found.skipped + found.approved..]) {
                Step::Skip(count) => found.skipped += count,
                Step::Pass(count) => {
                    if was_head {
                        self.framing.settle_version(&mut bytes[found.skipped + found.approved..]);
                        self.watch.count_head();
                        if self.framing.asks_upgrade() {
                            self.watch.hold();
                        }
                    }
                    found.approved += count;
                    if self.framing.at_start() {
                        return found;
                    }
                }
                Step::More => return found,
                Step::Refuse(refusal) => {
                    // After approved bytes it will be found again.
                    found.refusal = Some(refusal).filter(|_| found.approved == 0);
                    return found;
                }
            }
        }
    }

    /// Ends the connection: with an answer where one can be given.
    fn refuse(&mut self, refusal: Refusal) -> io::Result<()> {
        if refusal == Refusal::Preface && self.speaks_http2 && self.watch.is_new() {
            self.watch.switch_to_http2();
            return Ok(());
        }
        self.refused = true;
        self.watch.refuse(refusal);
        if !self.framing.in_head() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request's body is malformed"));
        }
        self.held.clear();
        self.held.extend_from_slice(STAND_IN);
        self.approved = STAND_IN.len();
        self.watch.count_head();
        Ok(())
    }

    /// Gives hyper what it may have.
    fn deliver(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let count = self.approved.min(cursor.remaining());
        cursor.put_slice(&self.held[..count]);
        self.approved -= count;
        if count == self.held.len() {
            self.held.clear();
        } else {
            self.held.drain(..count);
        }
    }

    /// Looks at the held bytes; `true` if that led to something.
    fn look_at_held(&mut self) -> io::Result<bool> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let mut held = std::mem::take(&mut self.held);
        let found = self.look(&mut held);
        self.held = held;
        self.held.drain(..found.skipped);
        self.approved = found.approved;
        if let Some(refusal) = found.refusal {
            self.refuse(refusal)?;
        }
        Ok(self.approved > 0)
    }

    /// Reads from the socket. Bodies take the same way as heads, by a copy of at most one read: handing
    /// hyper's own buffer to the socket would need unsafe code, and it could read past the body's end.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<Filled>> {
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        // Of a body no more than hyper takes now, so that nothing has to be held.
        let count =
            if self.framing.in_head() { HEAD_BYTES } else { cursor.remaining().clamp(1, SCRATCH_BYTES) };
        let mut buffer = ReadBuf::new(&mut scratch[..count]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Filled::End));
        }
        self.watch.progressed();
        if !self.held.is_empty() {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(Filled::Held));
        }
        // The usual case: one read, one whole head, nothing held.
        let found = self.look(bytes);
        let rest = &bytes[found.skipped..];
        let count = found.approved.min(cursor.remaining());
        cursor.put_slice(&rest[..count]);
        self.held.extend_from_slice(&rest[count..]);
        self.approved = found.approved - count;
        if let Some(refusal) = found.refusal {
            self.refuse(refusal)?;
        }
        Poll::Ready(Ok(if count > 0 { Filled::Delivered } else { Filled::Held }))
    }
}

impl ClientIo {
    /// Writes interim responses. hyper flushes when it has nothing to write, and that is between two responses: while
    /// one is waited for, nothing of it is written.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for interim in self.watch.interims().take() {
            interim::write(&interim, &mut self.interim);
        }
        ready!(self.poll_interim_rest(cx))?;
        self.watch.interims().are_gone();
        self.watch.wake();
        Poll::Ready(Ok(()))
    }

    /// What was begun is written to its end before anything else.
    fn poll_interim_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.interim))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.watch.progressed();
            self.interim.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

/// What a read from the socket led to.
enum Filled {
    Delivered,
    Held,
    End,
}

impl Read for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.approved > 0 {
                this.deliver(&mut cursor);
                return Poll::Ready(Ok(()));
            }
            if this.refused || this.watch.speaks_http2() {
                // Nothing after it is read; hyper closes when the answer is written.
                return Poll::Pending;
            }
            if this.watch.holds() && this.framing.at_start() {
                // Woken when the request is answered, by a response of HTTP/1.1.
                return Poll::Pending;
            }
            if let Some(refusal) = this.watch.refusal() {
                this.refuse(refusal)?;
                continue;
            }
            if this.look_at_held()? {
                continue;
            }
            if !this.held.is_empty() && this.framing.in_head() {
                this.watch.head_begins(this.header_timeout);
            }
            let filled = this.poll_fill(cx, &mut cursor);
            this.watch.set_listens(filled.is_pending() && this.held.is_empty() && this.framing.at_start());
            match ready!(filled)? {
                Filled::Delivered | Filled::End => return Poll::Ready(Ok(())),
                Filled::Held => {}
            }
        }
    }
}

impl Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.set_flushed(false);
        ready!(this.poll_interim_rest(cx))?;
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.watch.progressed();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = slices {
            return self.poll_write(cx, one);
        }
        let this = self.get_mut();
        this.watch.set_flushed(false);
        ready!(this.poll_interim_rest(cx))?;
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.watch.progressed();
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket keeps nothing back; under TLS, what it did not take waits in front of it. hyper flushes when it has
    /// written all that it has.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.interims().are_owed() {
            ready!(this.poll_interims(cx))?;
        }
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.watch.set_flushed(true);
        Poll::Ready(Ok(()))
    }

    /// After a refusal, bytes may still be on their way; a socket that is closed with unread bytes resets
    /// the connection, and the client may never see the answer. So they are read, up to a limit; the watch
    /// sees to it that this does not last.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut_down {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.shut_down = true;
            this.watch.idles(Instant::now(), LINGER_TIMEOUT);
        }
        let mut scratch = this.scratch.borrow_mut();
        while this.watch.lingers() && this.discarded < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(this.stream.inner_mut()).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            this.discarded += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
