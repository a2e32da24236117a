//! A connection over HTTP/2 (RFC 9113): h2 runs it; each of its streams is a task with a watch of its own.
//!
//! h2 bounds what a stream may hold and how many streams there are at a time. What costs work and leads to nothing
//! (resets, settings, pings) is bounded by [`frames`](super::frames), in front of it. hyper's layer over h2 was in
//! between once: it cannot send interim responses, and takes a client's reset for the end of a request's body.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::task::spawn_local;

use crate::observe::http::Refused;

use super::super::body::ResponseBody;
use super::super::hop;
use super::super::incoming::Incoming;
use super::super::outgoing::Outgoing;
use super::super::pipeline;
use super::super::stream::Stream;
use super::super::stream_tunnel::{self, StreamTunnel};
use super::super::watch::{Expiry, FOREVER, Watch};
use super::frames::FrameIo;
use super::timer::{Closing, Ended, Timed, Timer};
use super::{MAX_BUFFER, Session, date};

/// How much of a request's body may wait in the gateway, for one stream and for all of a connection: enough for
/// 80 Mbit/s and 800 Mbit/s at a round trip of 25 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 10 * STREAM_WINDOW;

/// Streams that clients may get wrong before the connection ends; h2 resets them.
const MAX_WRONG_STREAMS: usize = 100;

/// Serves the connection until it ends. `read` was read of it already.
pub(super) async fn serve(
    session: Rc<Session>,
    stream: Stream,
    read: Vec<u8>,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) {
    let streams = Rc::new(Streams::new(Rc::clone(&session)));
    let flooded = Rc::new(Cell::new(false));
    let io = FrameIo::new(stream, read, Rc::clone(&flooded));
    if let Some(mut connection) = shake_hands(&session, io, timer, closing).await {
        run(&streams, &mut connection, timer, closing).await;
    }
    if flooded.get() {
        session.worker.count_refused(session.listens_on, Refused::Http2Flood);
    }
}

/// Exchanges settings.
async fn shake_hands(
    session: &Session,
    io: FrameIo,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) -> Option<Connection<FrameIo, Bytes>> {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let header_bytes = u32::try_from(listener.max_header_bytes).unwrap_or(u32::MAX);
    let mut handshake = pin!(
        Builder::new()
            .max_concurrent_streams(listener.max_concurrent_streams)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(header_bytes)
            .max_send_buffer_size(MAX_BUFFER)
            .max_local_error_reset_streams(Some(MAX_WRONG_STREAMS))
            .enable_connect_protocol()
            .handshake(io)
    );
    let watch = session.watch();
    poll_fn(|cx| {
        watch.set_waker(cx.waker());
        if let Poll::Ready(shaken) = handshake.as_mut().poll(cx) {
            return Poll::Ready(shaken.ok());
        }
        closing.begins(watch);
        ready!(timer.poll(cx, &**watch));
        Poll::Ready(None)
    })
    .await
}

/// Runs the connection until it ends, and starts a task for each of its streams.
async fn run(
    streams: &Rc<Streams>,
    connection: &mut Connection<FrameIo, Bytes>,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) {
    let watch = streams.session.watch();
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, reply)))) => {
                    let open = streams.begin();
                    spawn_local(answer(open, request, reply));
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if closing.begins(watch) {
                // GOAWAY: streams that are open, or on their way, are still served.
                connection.graceful_shutdown();
                continue;
            }
            if ready!(timer.poll(cx, &**streams)) == Ended::Close {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

/// Serves one stream until it ends, or until its time is over: dropped, it is reset.
async fn answer(open: Open, request: Request<RecvStream>, mut reply: SendResponse<Bytes>) {
    let Open { streams, watch } = &open;
    let is_head = request.method() == Method::HEAD;
    let (mut head, stream) = request.into_parts();
    // Of a stream that is to become a tunnel, there is no body.
    let mut end = None;
    let body = if stream_tunnel::is_asked(&head) {
        stream_tunnel::translate(&mut head, streams.session.local().random());
        end = Some(stream);
        Incoming::Nothing
    } else {
        Incoming::of_stream(stream, &head.headers)
    };
    let request = Request::from_parts(head, body);
    let mut waker_is_known = false;
    let response = {
        let mut service = pin!(pipeline::serve(Rc::clone(&streams.session), Rc::clone(watch), request));
        poll_fn(|cx| {
            if !std::mem::replace(&mut waker_is_known, true) {
                watch.set_waker(cx.waker());
            }
            loop {
                if let Poll::Ready(Ok(response)) = service.as_mut().poll(cx) {
                    return Poll::Ready(Some(response));
                }
                if !watch.interims().are_owed() {
                    break;
                }
                // If one cannot be sent, the stream is over, which is seen next.
                let _ = watch.interims().take().into_iter().try_for_each(|one| reply.send_informational(one));
                watch.interims().are_gone();
            }
            if watch.is_aborted() || !matches!(reply.poll_reset(cx), Poll::Pending) {
                return Poll::Ready(None);
            }
            streams.see(watch);
            Poll::Pending
        })
        .await
    };
    let Some(response) = response else { return };
    let Some((stream, body)) = send(response, is_head, &mut reply) else { return };
    let mut outgoing = match (body, end) {
        (ResponseBody::Tunnel(tunnel), Some(end)) => {
            let scratch = streams.session.worker.scratch();
            let mut tunnel = StreamTunnel::new(*tunnel, scratch, stream, end);
            return run_stream(&open, |cx| tunnel.poll(cx)).await;
        }
        (body, _) => Outgoing::new(stream, body, Reason::INTERNAL_ERROR),
    };
    // Whatever stopped it has been told to those who wait for it.
    run_stream(&open, |cx| outgoing.poll(cx).map(drop)).await;
}

/// Runs what is left of a stream. Where the time of a call is over and there is no room to say so, a reset does.
async fn run_stream(Open { streams, watch }: &Open, mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) {
    poll_fn(|cx| {
        if poll(cx).is_ready() || watch.is_aborted() || watch.is_overdue() {
            return Poll::Ready(());
        }
        streams.see(watch);
        Poll::Pending
    })
    .await;
}

/// Sends the head of a response. What is left is its body, if it has one, and the stream for it.
fn send(
    response: Response<ResponseBody>,
    is_head: bool,
    reply: &mut SendResponse<Bytes>,
) -> Option<(SendStream<Bytes>, ResponseBody)> {
    let (mut head, body) = response.into_parts();
    // A route may have added what HTTP/2 does not allow.
    hop::remove(&mut head.headers);
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date::now());
    }
    let mut ends = body.is_end_stream() && !matches!(body, ResponseBody::Tunnel(_));
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    ends |= is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match reply.send_response(Response::from_parts(head, ()), ends) {
        Ok(stream) => (!ends).then_some((stream, body)),
        Err(error) => {
            tracing::debug!(%error, "a response could not be sent");
            reply.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}

/// The streams of a connection that are open, of HTTP/2 or HTTP/3.
pub(super) struct Streams {
    session: Rc<Session>,
    open: RefCell<Vec<Rc<Watch>>>,
    /// No stream is due before this.
    due: Cell<Instant>,
}

impl Streams {
    pub(super) fn new(session: Rc<Session>) -> Self {
        let due = Cell::new(Instant::now() + FOREVER);
        Self { session, open: RefCell::default(), due }
    }

    /// A request came.
    pub(super) fn begin(self: &Rc<Self>) -> Open {
        let now = Instant::now();
        let watch = Rc::new(Watch::new(now, FOREVER));
        self.session.watch().busy(now);
        self.session.watch().count_request();
        self.open.borrow_mut().push(Rc::clone(&watch));
        Open { streams: Rc::clone(self), watch }
    }

    /// A stream is over.
    fn end(&self, watch: &Rc<Watch>) {
        let mut open = self.open.borrow_mut();
        // Bounded by the streams at a time; the youngest end first most often.
        if let Some(index) = open.iter().rposition(|other| Rc::ptr_eq(other, watch)) {
            open.swap_remove(index);
        }
        if open.is_empty()
            && let Some(timeout) = self.session.idle_timeout()
        {
            self.session.watch().idles(Instant::now(), timeout);
        }
    }

    #[cfg(feature = "http3")]
    pub(super) fn are_none(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Lets the connection look again.
    #[cfg(feature = "http3")]
    pub(super) fn wake(&self) {
        self.session.watch().wake();
    }

    /// A stream may have come to wait for something that is due before all the others.
    pub(super) fn see(&self, watch: &Watch) {
        if watch.deadline() < self.due.get() {
            self.due.set(watch.deadline());
            self.session.watch().wake();
        }
    }
}

impl Timed for Streams {
    fn deadline(&self) -> Instant {
        self.due.get().min(self.session.watch().deadline())
    }

    fn look(&self, now: Instant) -> Expiry {
        if self.due.get() <= now {
            let look = |watch: &Rc<Watch>| match watch.look(now) {
                Expiry::Later(due) => due,
                // Its task sees what it is that is over.
                Expiry::Run | Expiry::Close => {
                    watch.wake();
                    now + FOREVER
                }
            };
            let due = self.open.borrow().iter().map(look).min();
            self.due.set(due.unwrap_or(now + FOREVER));
        }
        match self.session.watch().look(now) {
            Expiry::Later(due) => Expiry::Later(due.min(self.due.get())),
            // There is no request that could be answered with 408.
            Expiry::Run | Expiry::Close => Expiry::Close,
        }
    }
}

/// A stream in the list of its connection.
pub(super) struct Open {
    pub(super) streams: Rc<Streams>,
    pub(super) watch: Rc<Watch>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.end(&self.watch);
    }
}
