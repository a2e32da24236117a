//! A worker: one thread, one runtime, its own listening sockets, its own connections to upstreams. Workers
//! share nothing on the path of a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_local;

use crate::observe::http::{ACCEPT_REFUSED, CONNECTIONS, FLUSH_INTERVAL};

use super::client_io::{SCRATCH_BYTES, Scratch};
use super::connection::{self, Session};
use super::listen::{Address, Slot};
use super::snapshot::{Local, Snapshot};
use super::watch::Watch;
use super::{Admission, EndpointStatus};

/// How often idle upstream connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A wait when the system has no file descriptor left: connections in the backlog are not lost by it.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a worker is told.
pub(super) enum Command {
    /// Serve by this snapshot; listen on these in addition, and only on what the snapshot names.
    Apply { snapshot: Arc<Snapshot>, sockets: Vec<(Address, TcpListener)>, done: sync_mpsc::Sender<()> },
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
    let mut accepting = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply { snapshot, sockets, done } => {
                worker.apply(snapshot, sockets, &mut accepting);
                let _ = done.send(());
            }
            Command::Status(reply) => drop(reply.send(worker.endpoints())),
            Command::Drain { deadline, done } => {
                accepting.clear();
                let cut = worker.drain(deadline).await;
                worker.flush();
                let _ = done.send(cut);
                return;
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
    addresses: RefCell<Vec<Address>>,
    scratch: Scratch,
    connections: RefCell<HashMap<u64, Rc<Watch>>>,
    next_connection: Cell<u64>,
    draining: Cell<bool>,
    /// No connection is left.
    empty: Notify,
    has_counts: Cell<bool>,
    counts: Notify,
}

/// Dropping it tells the accepting task to take what waits in the backlog and to end.
struct Accepting {
    stop: Rc<Notify>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Worker {
    fn new(admission: Admission) -> Self {
        let nothing = Arc::new(Snapshot::empty());
        Self {
            admission,
            local: RefCell::new(Rc::new(Local::new(nothing, None))),
            addresses: RefCell::default(),
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
        for address in &*self.addresses.borrow() {
            let listener = local.listeners().iter().find(|l| l.address == address.configured);
            if let Some(listener) = listener {
                gauge!(CONNECTIONS, "listener" => listener.name.clone()).set(address.slots.open() as f64);
            }
        }
    }

    fn apply(
        self: &Rc<Self>,
        snapshot: Arc<Snapshot>,
        sockets: Vec<(Address, TcpListener)>,
        accepting: &mut HashMap<SocketAddr, Accepting>,
    ) {
        let next = Rc::new(Local::new(snapshot, Some(&self.local())));
        let kept = |address: SocketAddr| next.listeners().iter().any(|l| l.address == address);
        accepting.retain(|address, _| kept(*address));
        self.addresses.borrow_mut().retain(|address| kept(address.configured));
        *self.local.borrow_mut() = next;
        for (address, socket) in sockets {
            let stop = Rc::new(Notify::new());
            self.addresses.borrow_mut().push(address.clone());
            accepting.insert(address.configured, Accepting { stop: Rc::clone(&stop) });
            spawn_local(accept(Rc::clone(self), address, socket, stop));
        }
    }

    /// Serves a connection in a task of its own.
    fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, address: &Address, slot: Slot) {
        let local_address = stream.local_addr().unwrap_or(address.actual);
        if !(self.admission)(peer, local_address) {
            return self.count_refused(address, "denied");
        }
        if stream.set_nodelay(true).is_err() {
            // It is gone already.
            return self.count_refused(address, "error");
        }
        let Some(session) = Session::new(Rc::clone(self), peer, address.configured, Instant::now()) else {
            return;
        };
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        self.connections.borrow_mut().insert(id, Rc::clone(session.watch()));
        if self.draining.get() {
            session.watch().close();
        }
        self.counted();
        let open = Open { worker: Rc::clone(self), id, _slot: slot };
        spawn_local(async move {
            connection::serve(session, stream).await;
            drop(open);
        });
    }

    fn count_refused(&self, address: &Address, reason: &'static str) {
        let local = self.local();
        let listener = local.listeners().iter().find(|l| l.address == address.configured);
        if let Some(listener) = listener {
            counter!(ACCEPT_REFUSED, "listener" => listener.name.clone(), "reason" => reason).increment(1);
        }
    }

    async fn drain(&self, deadline: Instant) -> usize {
        self.draining.set(true);
        // The accepting tasks take what waits in their backlogs before they end.
        tokio::task::yield_now().await;
        for watch in self.connections.borrow().values() {
            watch.close();
        }
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
            upstream.endpoints().iter().map(|endpoint| EndpointStatus {
                upstream: upstream.settings().name.clone(),
                endpoint: endpoint.to_string(),
                idle: endpoint.idle(),
                in_use: endpoint.in_use(),
                last_error: endpoint.last_error(),
            })
        });
        status.collect()
    }
}

/// A connection in the worker's list, and its slot in the listener's limit.
struct Open {
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

/// Accepts until it is stopped, then what is left in the backlog.
///
/// At the limit, the connection that was just accepted waits for its slot and no other is accepted: only a
/// waiting connection asks for a slot, so an idle worker never keeps one from a busy worker.
async fn accept(worker: Rc<Worker>, address: Address, socket: TcpListener, stop: Rc<Notify>) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::error!(%error, address = %address.actual, "cannot watch a listening socket");
        }
    };
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::select! {
                    biased;
                    slot = address.slots.acquire() => worker.serve(stream, peer, &address, slot),
                    () = stop.notified() => break,
                }
            }
            Err(error) => {
                if let Some(reason) = exhausted(&error) {
                    tracing::warn!(%error, address = %address.actual, "cannot accept; trying again");
                    worker.count_refused(&address, reason);
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
    while let Poll::Ready(Ok((stream, peer))) = poll_fn(|cx| Poll::Ready(socket.poll_accept(cx))).await {
        let Some(slot) = address.slots.try_acquire() else { break };
        worker.serve(stream, peer, &address, slot);
    }
}

/// Errors of the system's limits last; others are of one connection.
fn exhausted(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Some("no_file_descriptors"),
        Some(libc::ENOBUFS | libc::ENOMEM) => Some("no_memory"),
        _ => None,
    }
}
