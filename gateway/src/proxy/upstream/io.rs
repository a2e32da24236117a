//! An upstream's socket as hyper sees it, and what the pool wants to know of it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite as _, ReadBuf};

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

pub(super) struct UpstreamIo {
    stream: TokioIo<Looked>,
    tap: Rc<Tap>,
}

/// A socket whose bytes are looked at where they were read to, if they may be interim: what is in a buffer of hyper's, only
/// unsafe code could look at, but here it is still one of tokio's.
struct Looked {
    stream: Stream,
    tap: Rc<Tap>,
}

impl AsyncRead for Looked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, tap } = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        if tap.looks.get() {
            tap.looks.set(tap.early.borrow_mut().look(&buffer.filled()[before..]));
        }
        Poll::Ready(Ok(()))
    }
}

impl UpstreamIo {
    pub(super) fn new(stream: Stream, tap: Rc<Tap>) -> Self {
        Self { stream: TokioIo::new(Looked { stream, tap: Rc::clone(&tap) }), tap }
    }

    /// The socket, for another protocol.
    pub(super) fn into_stream(self) -> Stream {
        self.stream.into_inner().stream
    }

    /// Whether the upstream has closed, or says something although nothing was asked. The runtime learns
    /// that only when it next looks at its events; a system call knows now. Under TLS it may be a session ticket that
    /// nobody has read yet: then a good connection is given up, which costs no more than a new one.
    fn is_spoiled(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match self.stream.inner().stream.socket().peek(&mut byte) {
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

    fn socket(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream.inner_mut().stream)
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
        ready!(Pin::new(&mut this.stream).poll_read(cx, cursor))?;
        this.tap.reads.set(this.tap.reads.get().saturating_add(1));
        Poll::Ready(Ok(()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(this.socket().poll_write(cx, bytes));
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
        let result = ready!(this.socket().poll_write_vectored(cx, slices));
        Poll::Ready(Ok(this.written(slices, result)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket keeps nothing back; under TLS, what it did not take waits in front of it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.socket().poll_flush(cx)).is_err() {
            // As for a write that fails.
            this.tap.broken.set(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket().poll_shutdown(cx)
    }
}
