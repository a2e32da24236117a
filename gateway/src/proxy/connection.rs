//! One client connection: hyper runs it, one timer ends its waits, the worker may ask it to close.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use ipnet::IpNet;
use tokio::net::TcpStream;

use super::client_io::ClientIo;
use super::forwarded::Peer;
use super::framing::Limits;
use super::pipeline;
use super::snapshot::Local;
use super::watch::{Expiry, Watch};
use super::worker::Worker;

/// How much of a response may wait for a client that reads slowly, and the least that hyper reads at once.
const MAX_BUFFER: usize = 64 * 1024;

/// Up to this many fields hyper parses on the stack.
const STACK_FIELDS: usize = 100;

/// How long a new connection may take for its first request when the worker closes its connections.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// What the requests of a connection share.
pub(super) struct Session {
    worker: Rc<Worker>,
    watch: Rc<Watch>,
    peer: Peer,
    /// As it stands in the configuration: how the listener is found again after a reload.
    listens_on: SocketAddr,
    local: RefCell<Rc<Local>>,
    /// Index of the listener in `local`.
    listener: Cell<usize>,
}

impl Session {
    /// `None` if no listener has this address (any more).
    pub(super) fn new(
        worker: Rc<Worker>,
        peer: SocketAddr,
        listens_on: SocketAddr,
        now: Instant,
    ) -> Option<Rc<Self>> {
        let local = worker.local();
        let listener = find(&local, listens_on)?;
        let watch = Rc::new(Watch::new(now, local.listeners()[listener].header_timeout));
        Some(Rc::new(Self {
            worker,
            watch,
            peer: Peer::new(peer),
            listens_on,
            local: RefCell::new(local),
            listener: Cell::new(listener),
        }))
    }

    pub(super) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// The snapshot for the next request. When a reload has removed the listener, the connection ends with
    /// that request, under the rules that it began with.
    pub(super) fn local(&self) -> Rc<Local> {
        let mut local = self.local.borrow_mut();
        if !self.worker.has(&local) {
            let newest = self.worker.local();
            match find(&newest, self.listens_on) {
                Some(listener) => {
                    self.listener.set(listener);
                    *local = newest;
                }
                None => self.watch.close(),
            }
        }
        Rc::clone(&local)
    }

    pub(super) fn listener_index(&self) -> usize {
        self.listener.get()
    }

    /// Hands out who the client is and whom the listener trusts.
    pub(super) fn with_trusted<T>(&self, read: impl FnOnce(&Peer, &[IpNet]) -> T) -> T {
        let local = self.local.borrow();
        let trusted = local.listeners().get(self.listener.get()).map(|l| l.trusted_proxies.as_slice());
        read(&self.peer, trusted.unwrap_or_default())
    }

    /// A request begins.
    pub(super) fn begin(&self, now: Instant) {
        self.watch.busy(now);
    }

    /// A request is over.
    pub(super) fn end(&self, now: Instant) {
        let local = self.local.borrow();
        if let Some(listener) = local.listeners().get(self.listener.get()) {
            self.watch.idles(now, listener.idle_timeout);
        }
        self.worker.counted();
    }
}

fn find(local: &Local, address: SocketAddr) -> Option<usize> {
    local.listeners().iter().position(|listener| listener.address == address)
}

/// Serves a connection until it ends.
pub(super) async fn serve(session: Rc<Session>, stream: TcpStream) {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let limits = Limits { bytes: listener.max_header_bytes, fields: listener.max_header_count };
    let timeout = listener.header_timeout;
    let watch = Rc::clone(&session.watch);
    let scratch = session.worker.scratch();
    drop(local);

    let io = ClientIo::new(stream, limits, timeout, Rc::clone(&watch), scratch);
    let service = service_fn(move |request| pipeline::serve(Rc::clone(&session), request));
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER.max(limits.bytes.saturating_add(1)));
    if limits.fields > STACK_FIELDS {
        http.max_headers(limits.fields);
    }
    let mut http = pin!(http.serve_connection(io, service));
    let mut timer = pin!(tokio::time::sleep_until(watch.deadline().into()));
    let mut timer_is_new = true;
    let mut asked_to_close = false;
    let mut has_grace = false;

    poll_fn(|cx| {
        if timer_is_new {
            watch.set_waker(cx.waker());
        }
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if watch.is_closing() && !asked_to_close {
                if watch.has_requests() {
                    asked_to_close = true;
                    http.as_mut().graceful_shutdown();
                    continue;
                }
                // A connection from the backlog: its first request is most likely on the way already.
                if !std::mem::replace(&mut has_grace, true) {
                    watch.idles(Instant::now(), FIRST_REQUEST_GRACE);
                }
            }
            // Most deadlines only move away, so the timer is left where it is; when it fires too early, it
            // is set anew. One that moves nearer (a head after a long wait) has to be set at once.
            let deadline = watch.deadline().into();
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
                timer_is_new = true;
            }
            if !timer_is_new && !timer.is_elapsed() {
                return Poll::Pending;
            }
            timer_is_new = false;
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match watch.look(Instant::now()) {
                Expiry::Later(deadline) => {
                    timer.as_mut().reset(deadline.into());
                    timer_is_new = true;
                }
                Expiry::Run => {}
                Expiry::Close => return Poll::Ready(()),
            }
        }
    })
    .await;
}
