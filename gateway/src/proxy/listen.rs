//! Listening sockets: one a worker for each listener, all on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::model;

use super::ProxyError;

const BACKLOG: i32 = 4096;

/// A listener's sockets before the workers have them.
pub(super) struct Bound {
    /// What the workers and the handle know of it.
    pub(super) address: Address,
    /// One a worker.
    pub(super) sockets: Vec<Socket>,
}

/// Where connections come from.
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(feature = "http3")]
    Udp(std::net::UdpSocket),
}

/// A listener as long as the proxy runs.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// As it stands in the configuration.
    pub(super) configured: SocketAddr,
    /// As it is: the port, if the configuration left that to the system.
    pub(super) actual: SocketAddr,
    pub(super) slots: Arc<Slots>,
    /// Whether there are sockets for HTTP/3 beside those for TCP.
    #[cfg(feature = "http3")]
    pub(super) datagrams: bool,
}

/// Binds one socket for each of `count` workers.
pub(super) fn bind(listener: &model::Listener, count: usize) -> Result<Bound, ProxyError> {
    let failed = |source: io::Error| ProxyError::bind(listener, source);
    probe(listener.address).map_err(failed)?;
    let mut sockets = Vec::with_capacity(count);
    let mut actual = listener.address;
    for _ in 0..count {
        let socket = open(actual, true).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let socket = TcpListener::from(socket);
        actual = socket.local_addr().map_err(failed)?;
        sockets.push(Socket::Tcp(socket));
    }
    let slots = Arc::new(Slots::new(listener.max_connections));
    let address = Address {
        configured: listener.address,
        actual,
        slots,
        #[cfg(feature = "http3")]
        datagrams: false,
    };
    Ok(Bound { address, sockets })
}

/// Finds out whether somebody else listens there. With SO_REUSEPORT the system would let us share the port
/// with any process of the same user, and each would get some of the connections.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    open(address, false).map(drop)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<RawSocket> {
    let socket =
        RawSocket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of a former process that still wait out their end are no reason to fail.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes one connection out of the backlog, if one is there.
pub(super) fn accept(socket: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    // In one system call; the standard library's accept would take a second one to stop the socket from blocking.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // It is gone again: the system says ECONNABORTED for that, where it says it in time.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(stream.into())?, peer))
}

/// Counts the open connections of a listener over all workers.
#[derive(Debug)]
pub(super) struct Slots {
    open: AtomicUsize,
    limit: AtomicUsize,
    freed: Notify,
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    fn new(limit: usize) -> Self {
        Self { open: AtomicUsize::new(0), limit: AtomicUsize::new(limit), freed: Notify::new() }
    }

    /// Sets another limit. Open connections stay, whatever it says.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until there may be one more connection.
    pub(super) async fn acquire(self: &Arc<Self>) -> Slot {
        loop {
            let freed = self.freed.notified();
            if let Some(slot) = self.try_acquire() {
                return slot;
            }
            freed.await;
        }
    }

    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |open| if open < limit { Some(open + 1) } else { None };
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}
