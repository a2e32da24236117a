//! A worker: one thread, one runtime, its own listening sockets, its own connections to upstreams. Workers
//! share nothing on the path of a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{coop, spawn_local};

use crate::observe::http::{FLUSH_INTERVAL, Refused};

use super::connection::{self, SCRATCH_BYTES, Scratch, Session};
use super::listen::{self, Address, Slot, Socket};
#[cfg(feature = "http3")]
use super::quic;
use super::snapshot::{Local, Snapshot};
use super::upstream::State;
use super::watch::Watch;
use super::{Admission, Arrival, EndpointStatus};

/// How often idle upstream connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A wait when the system has no file descriptor left: connections in the backlog are not lost by it.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a worker is told.
pub(super) enum Command {
    /// Serve by this snapshot; listen on these in addition, and only on what the snapshot names.
    Apply {
        snapshot: Arc<Snapshot>,
        states: Arc<[Arc<State>]>,
        sockets: Vec<(Address, Socket)>,
        done: sync_mpsc::Sender<()>,
    },
    /// Tell how the endpoints fare.
    Status(sync_mpsc::Sender<Vec<EndpointStatus>>),
    /// Stop accepting, finish what is in flight until then, tell how many connections were cut, and end.
    Drain { deadline: Instant, done: oneshot::Sender<usize> },
}

/// A worker from outside.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

/// Starts a worker; it serves nothing until the first [`Command::Apply`].
pub(super) fn start(index: usize, admission: Admission) -> io::Result<Handle> {
    // Bounded by its senders: each of them waits for the answer.
    let (commands, inbox) = mpsc::unbounded_channel();
    let (started, ready) = sync_mpsc::channel();
    let body = move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime: LocalRuntime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let _ = started.send(Ok(()));
        runtime.block_on(run(admission, inbox));
    };
    // The thread ends with its commands; nobody has to wait for it.
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(body)?;
    ready.recv().map_err(io::Error::other)??;
    Ok(Handle { commands })
}

async fn run(admission: Admission, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker::new(admission));
    spawn_local(keep_counts(Rc::clone(&worker)));
    spawn_local(keep_pools(Rc::clone(&worker)));
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply { snapshot, states, sockets, done } => {
                worker.apply(snapshot, &states, sockets);
                // The tasks that accepted for listeners that are gone end now, and close their sockets:
                // whoever is told that the reload is done may bind the address.
                tokio::task::yield_now().await;
                let _ = done.send(());
            }
            Command::Status(reply) => drop(reply.send(worker.endpoints())),
            Command::Drain { deadline, done } => {
                let cut = drain(&worker, deadline, &mut inbox).await;
                worker.flush();
                let _ = done.send(cut);
                return;
            }
        }
    }
}

/// Drains, and goes on telling how the endpoints fare: whoever asks must not wait for the end of it.
async fn drain(
    worker: &Rc<Worker>,
    deadline: Instant,
    inbox: &mut mpsc::UnboundedReceiver<Command>,
) -> usize {
    let mut drained = pin!(worker.drain(deadline));
    loop {
        tokio::select! {
            cut = &mut drained => return cut,
            Some(command) = inbox.recv() => match command {
                Command::Status(reply) => drop(reply.send(worker.endpoints())),
                // Dropped unanswered: there is nothing to serve any more.
                Command::Apply { .. } | Command::Drain { .. } => {}
            }
        }
    }
}

/// Hands counts on, but only after there were some: an idle worker sleeps.
async fn keep_counts(worker: Rc<Worker>) {
    loop {
        worker.counts.notified().await;
        tokio::time::sleep(FLUSH_INTERVAL).await;
        worker.flush();
    }
}

async fn keep_pools(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        worker.local().sweep(Instant::now());
    }
}

/// What the tasks of a worker share.
pub(super) struct Worker {
    admission: Admission,
    local: RefCell<Rc<Local>>,
    listening: RefCell<Vec<Listening>>,
    scratch: Scratch,
    #[cfg(feature = "http3")]
    listening_quic: RefCell<Vec<quic::Listening>>,
    /// By number.
    connections: RefCell<HashMap<u64, Connection>>,
    next_connection: Cell<u64>,
    draining: Cell<bool>,
    /// No connection is left.
    empty: Notify,
    has_counts: Cell<bool>,
    counts: Notify,
}

/// An open connection.
struct Connection {
    /// The address of its listener, as it stands in the configuration.
    listens_on: SocketAddr,
    #[cfg_attr(not(feature = "http3"), expect(dead_code, reason = "none is, in this build"))]
    is_quic: bool,
    watch: Rc<Watch>,
}

/// A listening socket of this worker. Dropping it ends the task that accepts from it.
struct Listening {
    address: Address,
    socket: Rc<AsyncFd<TcpListener>>,
    stop: Rc<Notify>,
}

impl Listening {
    /// Serves the connections that the system has made already and nobody has accepted: without this, their
    /// clients would be cut off when the socket is closed.
    fn take_backlog(&self, worker: &Rc<Worker>) {
        while let Some(slot) = self.address.slots.try_acquire() {
            let Ok((stream, peer)) = listen::accept(&self.socket) else { return };
            worker.serve(stream, peer, &self.address, slot);
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Worker {
    fn new(admission: Admission) -> Self {
        let nothing = Arc::new(Snapshot::empty());
        Self {
            admission,
            local: RefCell::new(Rc::new(Local::new(nothing, &[], None))),
            listening: RefCell::default(),
            #[cfg(feature = "http3")]
            listening_quic: RefCell::default(),
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into())),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            draining: Cell::new(false),
            empty: Notify::new(),
            has_counts: Cell::new(false),
            counts: Notify::new(),
        }
    }

    /// The newest snapshot.
    pub(super) fn local(&self) -> Rc<Local> {
        Rc::clone(&self.local.borrow())
    }

    /// Whether this is the newest snapshot.
    pub(super) fn has(&self, local: &Rc<Local>) -> bool {
        Rc::ptr_eq(&self.local.borrow(), local)
    }

    pub(super) fn scratch(&self) -> Scratch {
        Rc::clone(&self.scratch)
    }

    /// Something was counted.
    pub(super) fn counted(&self) {
        if !self.has_counts.replace(true) {
            self.counts.notify_one();
        }
    }

    fn flush(&self) {
        self.has_counts.set(false);
        let local = self.local();
        local.flush();
        for Listening { address, .. } in &*self.listening.borrow() {
            if let Some(meter) = local.listener_meter(address.configured) {
                meter.set_open(address.slots.open());
            }
        }
    }

    fn apply(
        self: &Rc<Self>,
        snapshot: Arc<Snapshot>,
        states: &[Arc<State>],
        sockets: Vec<(Address, Socket)>,
    ) {
        let former = self.local();
        let next = Rc::new(Local::new(snapshot, states, Some(&former)));
        let is_kept = |l: &Listening| next.listeners().iter().any(|n| n.address == l.address.configured);
        let (kept, gone): (Vec<_>, Vec<_>) = self.listening.take().into_iter().partition(is_kept);
        // Under the snapshot that still knows their listener.
        gone.iter().for_each(|listening| listening.take_backlog(self));
        // Those that wait for a request may have one on its way to us: they end with it.
        for Connection { listens_on, watch, .. } in self.connections.borrow().values() {
            if watch.has_request() && gone.iter().any(|gone| gone.address.configured == *listens_on) {
                watch.close();
            }
        }
        *self.listening.borrow_mut() = kept;
        former.retire(&next);
        *self.local.borrow_mut() = next;
        #[cfg(feature = "http3")]
        self.leave_quic();
        for (address, socket) in sockets {
            match socket {
                Socket::Tcp(socket) => self.listen(address, socket),
                #[cfg(feature = "http3")]
                Socket::Udp(socket) => self.listen_quic(address, socket),
            }
        }
    }

    /// Ends HTTP/3 where it is not wanted any more. Its clients are told which of their requests are still served, so
    /// that none of them has to be waited for.
    #[cfg(feature = "http3")]
    fn leave_quic(&self) {
        let local = self.local();
        let is_wanted = |address| local.listeners().iter().any(|l| l.http3 && l.address == address);
        self.listening_quic.borrow_mut().retain(|listening| is_wanted(listening.address.configured));
        for Connection { listens_on, is_quic, watch } in self.connections.borrow().values() {
            if *is_quic && !is_wanted(*listens_on) {
                watch.close();
            }
        }
    }

    #[cfg(feature = "http3")]
    fn listen_quic(self: &Rc<Self>, address: Address, socket: std::net::UdpSocket) {
        let actual = address.actual;
        match quic::listen(self, address, socket) {
            Ok(listening) => self.listening_quic.borrow_mut().push(listening),
            Err(error) => tracing::error!(%error, address = %actual, "cannot take HTTP/3"),
        }
    }

    /// Begins to accept.
    #[expect(
        deprecated,
        reason = "it is for types that could hand out another descriptor later, which a TcpListener cannot; \
                  the replacement is unsafe, and unsafe code has no place here"
    )]
    fn listen(self: &Rc<Self>, address: Address, socket: TcpListener) {
        let socket = match AsyncFd::with_interest(socket, Interest::READABLE) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                return tracing::error!(%error, address = %address.actual, "cannot watch a listening socket");
            }
        };
        let stop = Rc::new(Notify::new());
        let accepting = accept(Rc::clone(self), address.clone(), Rc::clone(&socket), Rc::clone(&stop));
        self.listening.borrow_mut().push(Listening { address, socket, stop });
        spawn_local(accepting);
    }

    /// Serves a connection in a task of its own.
    fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, address: &Address, slot: Slot) {
        let local_address = stream.local_addr().unwrap_or(address.actual);
        if !self.admits(Arrival { peer, local: local_address, announced: false }) {
            return self.count_refused(address.configured, Refused::Denied);
        }
        if stream.set_nodelay(true).is_err() {
            // It is gone already.
            return self.count_refused(address.configured, Refused::Broken);
        }
        let Some((session, open)) = self.begin((peer, local_address), address, slot, false) else { return };
        spawn_local(async move {
            connection::serve(session, stream).await;
            drop(open);
        });
    }

    /// Puts a connection into the worker's list; both its addresses, the client's first. `None` if its listener is gone.
    pub(super) fn begin(
        self: &Rc<Self>,
        (peer, ours): (SocketAddr, SocketAddr),
        address: &Address,
        slot: Slot,
        is_quic: bool,
    ) -> Option<(Rc<Session>, Open)> {
        let listens_on = address.configured;
        let session = Session::new(Rc::clone(self), peer, ours, listens_on, Instant::now())?;
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let watch = Rc::clone(session.watch());
        self.connections.borrow_mut().insert(id, Connection { listens_on, is_quic, watch });
        if self.draining.get() {
            session.watch().close();
        }
        self.counted();
        Some((session, Open { worker: Rc::clone(self), id, _slot: slot }))
    }

    /// Whether the rules let a connection in.
    pub(super) fn admits(&self, arrival: Arrival) -> bool {
        (self.admission)(arrival)
    }

    /// A connection to a listener was not served; its address as it stands in the configuration.
    pub(super) fn count_refused(&self, listens_on: SocketAddr, reason: Refused) {
        if let Some(meter) = self.local().listener_meter(listens_on) {
            meter.count_refused(reason);
            self.counted();
        }
    }

    async fn drain(self: &Rc<Self>, deadline: Instant) -> usize {
        self.draining.set(true);
        self.listening.take().iter().for_each(|listening| listening.take_backlog(self));
        #[cfg(feature = "http3")]
        self.listening_quic.take();
        self.connections.borrow().values().for_each(|connection| connection.watch.close());
        while !self.connections.borrow().is_empty() {
            let emptied = tokio::time::timeout_at(deadline.into(), self.empty.notified());
            if emptied.await.is_err() {
                break;
            }
        }
        self.connections.borrow().len()
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        let local = self.local();
        let upstreams = local.upstreams().iter();
        let status = upstreams.flat_map(|upstream| {
            let conditions = upstream.state().conditions();
            upstream.endpoints().iter().zip(conditions).map(|(endpoint, (condition, complaint))| {
                EndpointStatus {
                    upstream: upstream.settings().name.clone(),
                    endpoint: endpoint.to_string(),
                    idle: endpoint.idle(),
                    in_use: endpoint.in_use(),
                    last_error: endpoint.last_error(),
                    condition,
                    complaint,
                }
            })
        });
        status.collect()
    }
}

/// A connection in the worker's list, and its slot in the listener's limit.
pub(super) struct Open {
    worker: Rc<Worker>,
    id: u64,
    _slot: Slot,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut connections = self.worker.connections.borrow_mut();
        connections.remove(&self.id);
        if connections.is_empty() {
            self.worker.empty.notify_one();
        }
        self.worker.counted();
    }
}

/// Accepts until it is stopped.
///
/// A connection is accepted only once there is a slot for it, so beyond the limit it waits in the system's
/// backlog and not in the gateway. Only for a connection that is there a slot is asked for: an idle worker
/// never keeps one from a busy worker.
async fn accept(worker: Rc<Worker>, address: Address, socket: Rc<AsyncFd<TcpListener>>, stop: Rc<Notify>) {
    let mut stopped = pin!(stop.notified());
    loop {
        // A flood of connections must not keep those that are there from being served.
        coop::consume_budget().await;
        let mut ready = tokio::select! {
            biased;
            () = &mut stopped => return,
            ready = socket.readable() => match ready {
                Ok(ready) => ready,
                // The runtime is ending.
                Err(_) => return,
            },
        };
        let slot = tokio::select! {
            biased;
            () = &mut stopped => return,
            slot = address.slots.acquire() => slot,
        };
        match ready.try_io(listen::accept) {
            Ok(Ok((stream, peer))) => worker.serve(stream, peer, &address, slot),
            Ok(Err(error)) => {
                drop(slot);
                if let Some(reason) = exhausted(&error) {
                    tracing::warn!(%error, address = %address.actual, "cannot accept; trying again");
                    worker.count_refused(address.configured, reason);
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
            // Nobody is there after all.
            Err(_would_block) => {}
        }
    }
}

/// Errors of the system's limits last; others are of one connection.
fn exhausted(error: &io::Error) -> Option<Refused> {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Some(Refused::NoFileDescriptors),
        Some(libc::ENOBUFS | libc::ENOMEM) => Some(Refused::NoMemory),
        _ => None,
    }
}
