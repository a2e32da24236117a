//! An upstream's socket as hyper sees it, and what the pool wants to know of it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::super::stream::Stream;
use super::early::Early;

/// Shared by a connection's socket and its lease.
#[derive(Debug, Default)]
pub(super) struct Tap {
    /// The head of the current request as it was written, if it is recorded.
    pub(super) written: RefCell<Vec<u8>>,
    pub(super) record: Cell<bool>,
    /// The next read first asks the socket itself whether the upstream has closed.
    pub(super) probe: Cell<bool>,
    /// The upstream takes no more bytes.
    pub(super) broken: Cell<bool>,
    /// Reads that came to something since the request began: bytes, or the end of the stream.
    pub(super) reads: Cell<u32>,
    /// What is read next is the begin of a response, and may be interim.
    pub(super) looks: Cell<bool>,
    pub(super) early: RefCell<Early>,
}

/// How much of a response is read at once where it is looked at: most often all of it.
const LOOK_BYTES: usize = 16 * 1024;

pub(super) struct UpstreamIo {
    stream: TokioIo<Stream>,
    tap: Rc<Tap>,
}

impl UpstreamIo {
    pub(super) fn new(stream: Stream, tap: Rc<Tap>) -> Self {
        Self { stream: TokioIo::new(stream), tap }
    }

    /// The socket, for another protocol.
    pub(super) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    /// Whether the upstream has closed, or says something although nothing was asked. The runtime learns
    /// that only when it next looks at its events; a system call knows now. Under TLS it may be a session ticket that
    /// nobody has read yet: then a good connection is given up, which costs no more than a new one.
    fn is_spoiled(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match self.stream.inner().socket().peek(&mut byte) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// What came of a write. An upstream that closes over a request may have answered it before (413, say):
    /// hyper would not look for that after an error, so the bytes go nowhere, and the next read tells.
    fn written(&self, slices: &[IoSlice<'_>], result: io::Result<usize>) -> usize {
        let Ok(count) = result else {
            self.tap.broken.set(true);
            return slices.iter().map(|slice| slice.len()).sum();
        };
        if self.tap.record.get() {
            self.record(slices, count);
        }
        count
    }

    /// Reads what is looked at. By way of a buffer of ours: what is in hyper's own only unsafe code could look at.
    fn poll_look(&mut self, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [MaybeUninit::uninit(); LOOK_BYTES];
        let mut buffer = ReadBuf::uninit(&mut bytes[..LOOK_BYTES.min(cursor.remaining())]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer))?;
        self.tap.looks.set(self.tap.early.borrow_mut().look(buffer.filled()));
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    fn record(&self, slices: &[IoSlice<'_>], mut count: usize) {
        let mut written = self.tap.written.borrow_mut();
        for slice in slices {
            let part = slice.len().min(count);
            written.extend_from_slice(&slice[..part]);
            count -= part;
        }
    }
}

impl Read for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.tap.probe.take() && this.is_spoiled() {
            // The end of the stream: hyper gives the request back, unwritten.
            return Poll::Ready(Ok(()));
        }
        if this.tap.looks.get() {
            ready!(this.poll_look(cx, cursor))?;
        } else {
            ready!(Pin::new(&mut this.stream).poll_read(cx, cursor))?;
        }
        this.tap.reads.set(this.tap.reads.get().saturating_add(1));
        Poll::Ready(Ok(()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        Poll::Ready(Ok(this.written(&[IoSlice::new(bytes)], result)))
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
        let result = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices));
        Poll::Ready(Ok(this.written(slices, result)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket keeps nothing back; under TLS, what it did not take waits in front of it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(Pin::new(&mut this.stream).poll_flush(cx)).is_err() {
            // As for a write that fails.
            this.tap.broken.set(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
