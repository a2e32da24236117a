//! One endpoint as one worker sees it: its address, its idle connections, how it fares.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::model;

use super::link::{ConnectError, Link};

/// Lookups of one name at the same time.
const MAX_LOOKUPS: usize = 2;

pub(in crate::proxy) struct Endpoint {
    host: String,
    port: u16,
    is_secure: bool,
    /// `None` if the host is a name: it is resolved for every connection, as the answer may change.
    address: Option<SocketAddr>,
    lookups: Arc<Semaphore>,
    /// The last one that came back goes out first: the others get old and are closed.
    idle: RefCell<Vec<Idle>>,
    in_use: Cell<usize>,
    cooling_until: Cell<Option<Instant>>,
    last_error: RefCell<Option<String>>,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

impl Endpoint {
    pub(super) fn new(endpoint: &model::Endpoint) -> Self {
        let address = endpoint.host.parse::<IpAddr>().ok();
        Self {
            host: endpoint.host.clone(),
            port: endpoint.port,
            is_secure: endpoint.is_secure,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            address: address.map(|ip| SocketAddr::new(ip, endpoint.port)),
            idle: RefCell::default(),
            in_use: Cell::new(0),
            cooling_until: Cell::new(None),
            last_error: RefCell::default(),
        }
    }

    pub(super) fn is(&self, endpoint: &model::Endpoint) -> bool {
        self.host == endpoint.host && self.port == endpoint.port && self.is_secure == endpoint.is_secure
    }

    /// Whether it is spoken to under TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(in crate::proxy) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    pub(in crate::proxy) fn in_use(&self) -> usize {
        self.in_use.get()
    }

    pub(in crate::proxy) fn last_error(&self) -> Option<String> {
        self.last_error.borrow().clone()
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect(self.resolve().await?.as_slice()).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Looks the name up. The system does that in a thread of its own and cannot be told to stop, so the thread
    /// keeps its turn until it is done: while no name server answers, requests run into their timeouts and
    /// lookups do not pile up behind them.
    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let turn = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let (host, port) = (self.host.clone(), self.port);
        let lookup = move || {
            let _turn = turn;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        };
        tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
    }

    /// Takes an idle connection.
    pub(super) fn take(&self, now: Instant, keepalive: Duration) -> Option<Box<Link>> {
        let idle = self.idle.borrow_mut().pop()?;
        if now.saturating_duration_since(idle.since) < keepalive {
            return Some(idle.link);
        }
        // All the others are older.
        self.idle.borrow_mut().clear();
        None
    }

    pub(super) fn lease(&self) {
        self.in_use.set(self.in_use.get() + 1);
    }

    /// A request is over; its connection, if it can serve another.
    pub(super) fn release(self: &Rc<Self>, link: Option<Box<Link>>, max_idle: usize) {
        self.in_use.set(self.in_use.get() - 1);
        let mut idle = self.idle.borrow_mut();
        if let Some(link) = link
            && idle.len() < max_idle
        {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long; the oldest stand first.
    pub(super) fn sweep(&self, now: Instant, keepalive: Duration) {
        let mut idle = self.idle.borrow_mut();
        let fresh = idle.partition_point(|idle| now.saturating_duration_since(idle.since) >= keepalive);
        idle.drain(..fresh);
    }

    pub(super) fn connected(&self) {
        self.cooling_until.set(None);
        self.last_error.borrow_mut().take();
    }

    pub(super) fn failed(&self, cooling_until: Instant, error: &ConnectError) {
        self.cooling_until.set(Some(cooling_until));
        *self.last_error.borrow_mut() = Some(error.to_string());
    }

    pub(super) fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.get().is_some_and(|until| until > now)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
