//! A connection over HTTP/2 (RFC 9113): hyper runs it; each of its streams is a task with a watch of its own.
//!
//! hyper and h2 bound what a stream may hold and how many streams there are at a time. What costs work and leads to
//! nothing (resets, settings, pings) is bounded by [`frames`](super::frames), in front of them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Instant;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use tokio::task::spawn_local;

use crate::observe::http::Refused;

use super::super::body::ClientBody;
use super::super::pipeline;
use super::super::stream::Stream;
use super::super::watch::{Expiry, FOREVER, Watch};
use super::frames::FrameIo;
use super::timer::{Closing, Ended, Timed, Timer};
use super::{MAX_BUFFER, Session};

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
    let watch = session.watch();
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let serve = {
        let streams = Rc::clone(&streams);
        move |request: Request<Incoming>| {
            let request = request.map(ClientBody::Hyper);
            pipeline::serve(Rc::clone(&streams.session), streams.begin(), request)
        }
    };
    let flooded = Rc::new(Cell::new(false));
    let io = FrameIo::new(stream, read, session.worker.scratch(), Rc::clone(&flooded));
    let header_bytes = u32::try_from(listener.max_header_bytes).unwrap_or(u32::MAX);
    let http = http2::Builder::new(Executor(Rc::clone(&streams)))
        .max_concurrent_streams(listener.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_send_buf_size(MAX_BUFFER)
        .max_local_error_reset_streams(MAX_WRONG_STREAMS)
        .serve_connection(io, service_fn(serve));
    let mut http = pin!(http);
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if closing.begins(watch) {
                // GOAWAY: streams that are open, or on their way, are still served.
                http.as_mut().graceful_shutdown();
                continue;
            }
            if ready!(timer.poll(cx, &*streams)) == Ended::Close {
                return Poll::Ready(());
            }
        }
    })
    .await;
    if flooded.get() {
        session.worker.count_refused(session.listens_on, Refused::Http2Flood);
    }
}

/// The streams of a connection that are open, of HTTP/2 or HTTP/3.
pub(super) struct Streams {
    session: Rc<Session>,
    open: RefCell<Vec<Rc<Watch>>>,
    /// Of the request that was handed to the service last: hyper hands what became of it to the executor next.
    begun: RefCell<Option<Rc<Watch>>>,
    /// No stream is due before this.
    due: Cell<Instant>,
}

impl Streams {
    pub(super) fn new(session: Rc<Session>) -> Self {
        let due = Cell::new(Instant::now() + FOREVER);
        Self { session, open: RefCell::default(), begun: RefCell::default(), due }
    }

    /// A request came.
    pub(super) fn begin(&self) -> Rc<Watch> {
        let now = Instant::now();
        let watch = Rc::new(Watch::new(now, FOREVER));
        self.session.watch().busy(now);
        self.session.watch().count_request();
        self.open.borrow_mut().push(Rc::clone(&watch));
        *self.begun.borrow_mut() = Some(Rc::clone(&watch));
        watch
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
    fn see(&self, watch: &Watch) {
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

/// Runs each stream as a task of its own.
#[derive(Clone)]
struct Executor(Rc<Streams>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let begun = self.0.begun.borrow_mut().take();
        match begun {
            Some(watch) => drop(spawn_local(run(future, Open { streams: Rc::clone(&self.0), watch }))),
            None => drop(spawn_local(future)),
        }
    }
}

/// Runs a stream until it ends, or until its time is over: dropped, it is reset.
pub(super) async fn run(stream: impl Future<Output = ()>, open: Open) {
    let mut stream = pin!(stream);
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            open.watch.set_waker(cx.waker());
        }
        if stream.as_mut().poll(cx).is_ready() || open.watch.is_aborted() {
            return Poll::Ready(());
        }
        open.streams.see(&open.watch);
        Poll::Pending
    })
    .await;
}

/// A stream in the list of its connection.
pub(super) struct Open {
    streams: Rc<Streams>,
    watch: Rc<Watch>,
}

#[cfg(feature = "http3")]
impl Open {
    /// Of a stream that [`Streams::begin`] has begun.
    pub(super) fn new(streams: &Rc<Streams>, watch: Rc<Watch>) -> Self {
        Self { streams: Rc::clone(streams), watch }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.end(&self.watch);
    }
}
