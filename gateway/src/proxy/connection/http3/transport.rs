//! quinn as h3 asks for it. In place of h3-quinn, which tells nobody that a client has lost interest in an answer,
//! panics when a stream is stopped while it is read, and ends an answer in good order when it is dropped half-way.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};

use super::frames::{FrameError, Frames};

/// What is read of a stream at once.
const READ_BYTES: usize = 64 * 1024;

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;
/// Ends when the client stops the answer, has all of it, or is gone.
pub(super) type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>>>>;

/// A connection.
pub(super) struct Quic {
    connection: quinn::Connection,
    max_headers: u64,
    requests: Opening<(quinn::SendStream, quinn::RecvStream)>,
    others: Opening<quinn::RecvStream>,
    opening: Option<Opening<quinn::SendStream>>,
    accepted: Accepted,
}

/// What is known beside h3 of the request's stream that it was given last.
pub(super) type Accepted = Rc<RefCell<Option<(Stopped, Known)>>>;

/// Whether the request is known. Before that only h3 itself answers, with 431, and leaves it to the stream to end that.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Rc<Cell<bool>>);

impl Known {
    /// From here on, what is dropped before it is complete is reset.
    pub(super) fn set(&self) {
        self.0.set(true);
    }
}

impl Quic {
    /// `max_headers` are the bytes of a HEADERS frame.
    pub(super) fn new(connection: quinn::Connection, max_headers: u64) -> (Self, Accepted) {
        let accepted = Accepted::default();
        let (requests, others) = (next_request(&connection), next_other(&connection));
        let quic =
            Self { connection, max_headers, requests, others, opening: None, accepted: Rc::clone(&accepted) };
        (quic, accepted)
    }
}

fn next_request(connection: &quinn::Connection) -> Opening<(quinn::SendStream, quinn::RecvStream)> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

fn next_other(connection: &quinn::Connection) -> Opening<quinn::RecvStream> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

impl quic::Connection<Bytes> for Quic {
    type RecvStream = Receive;
    type OpenStreams = Self;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receive, ConnectionErrorIncoming>> {
        let stream = ready!(self.others.as_mut().poll(cx)).map_err(lost)?;
        self.others = next_other(&self.connection);
        Poll::Ready(Ok(Receive::new(stream, &self.connection, Frames::of_connection())))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let (send, receive) = ready!(self.requests.as_mut().poll(cx)).map_err(lost)?;
        self.requests = next_request(&self.connection);
        let known = Known::default();
        *self.accepted.borrow_mut() = Some((Box::pin(send.stopped()), known.clone()));
        let receive = Receive::new(receive, &self.connection, Frames::of_request(self.max_headers));
        Poll::Ready(Ok(Both { send: Send::new(send, known), receive }))
    }

    fn opener(&self) -> Self {
        Self::new(self.connection.clone(), self.max_headers).0
    }
}

impl quic::OpenStreams<Bytes> for Quic {
    type BidiStream = Both;
    type SendStream = Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        let why = "a server of HTTP/3 opens no requests";
        let connection_error = ConnectionErrorIncoming::InternalError(why.to_owned());
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Send, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map(|stream| Send::new(stream, Known::default())).map_err(lost_under))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(number(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct Both {
    send: Send,
    receive: Receive,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Send;
    type RecvStream = Receive;

    fn split(self) -> (Send, Receive) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What comes from the client.
pub(super) struct Receive {
    stream: quinn::RecvStream,
    connection: quinn::Connection,
    frames: Frames,
    /// What was read and not looked at yet.
    read: Bytes,
}

impl Receive {
    fn new(stream: quinn::RecvStream, connection: &quinn::Connection, frames: Frames) -> Self {
        Self { stream, connection: connection.clone(), frames, read: Bytes::new() }
    }

    fn refused(&self, error: FrameError) -> StreamErrorIncoming {
        match error {
            FrameError::TooLong => {
                StreamErrorIncoming::StreamTerminated { error_code: Code::H3_EXCESSIVE_LOAD.value() }
            }
            // An error of the connection (RFC 9114, section 7.1).
            FrameError::Truncated => {
                self.connection.close(number(Code::H3_FRAME_ERROR.value()), error.to_string().as_bytes());
                let connection_error = ConnectionErrorIncoming::Undefined(Arc::new(error));
                StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
            }
        }
    }
}

impl quic::RecvStream for Receive {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            while !self.read.is_empty() {
                match self.frames.take(&mut self.read) {
                    Ok(Some(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(self.refused(error))),
                }
            }
            // Nothing is lost with this future: the stream itself remembers who waits.
            let chunk = ready!(pin!(self.stream.read_chunk(READ_BYTES, true)).poll(cx));
            match chunk {
                Ok(Some(chunk)) => self.read = chunk.bytes,
                Ok(None) => {
                    return Poll::Ready(self.frames.end().map(|()| None).map_err(|e| self.refused(e)));
                }
                Err(ReadError::Reset(code)) => {
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated {
                        error_code: code.into(),
                    }));
                }
                Err(ReadError::ConnectionLost(error)) => return Poll::Ready(Err(lost_under(error))),
                Err(other) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(other)))),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        let _ = self.stream.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        // Nobody reads the rest, and that is no fault of the client's. If there is no rest, nothing is sent.
        let _ = self.stream.stop(number(Code::H3_NO_ERROR.value()));
    }
}

/// What goes to the client.
pub(super) struct Send {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    known: Known,
    has_begun: bool,
    is_complete: bool,
}

impl Send {
    fn new(stream: quinn::SendStream, known: Known) -> Self {
        Self { stream, writing: None, known, has_begun: false, is_complete: false }
    }
}

impl quic::SendStream<Bytes> for Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(writing) = self.writing.as_mut().filter(|writing| writing.has_remaining()) {
            let count = match ready!(Pin::new(&mut self.stream).poll_write(cx, writing.chunk())) {
                Ok(count) => count,
                Err(WriteError::Stopped(code)) => {
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated {
                        error_code: code.into(),
                    }));
                }
                Err(WriteError::ConnectionLost(error)) => return Poll::Ready(Err(lost_under(error))),
                Err(other) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(other)))),
            };
            writing.advance(count);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let connection_error = ConnectionErrorIncoming::InternalError(
                "a write was begun before the last one ended".to_owned(),
            );
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.has_begun = true;
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.is_complete = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.is_complete = true;
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        let code = match (self.has_begun, self.known.0.get()) {
            _ if self.is_complete => return,
            (true, false) => return,
            (false, false) => Code::H3_REQUEST_REJECTED,
            (_, true) => Code::H3_INTERNAL_ERROR,
        };
        let _ = self.stream.reset(number(code.value()));
    }
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").finish_non_exhaustive()
    }
}

/// A code of HTTP/3. All of them fit.
pub(super) fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner()).expect("both are of 62 bits")
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost_under(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
}
