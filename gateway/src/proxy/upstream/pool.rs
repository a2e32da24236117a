//! One endpoint as one worker sees it: its address, its idle connections, how it fares.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use crate::model::{self, Location, Protocol};
use crate::tls;

use super::super::stream::Stream;
use super::latency::Latency;
use super::link::{self, ConnectError, Link, Opened};
use super::shared::Shared;

/// How long a server on this host has to accept somebody before it is tried again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// Lookups of one name at the same time.
const MAX_LOOKUPS: usize = 2;

pub(in crate::proxy) struct Endpoint {
    settings: model::Endpoint,
    /// `None` if the host is a name: it is resolved for every connection, as the answer may change.
    address: Option<SocketAddr>,
    lookups: Arc<Semaphore>,
    /// The last one that came back goes out first: the others get old and are closed.
    idle: RefCell<Vec<Idle>>,
    /// Those over HTTP/2, which requests share.
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Who opens a connection over HTTP/2 has its turn, and the others see what came of it: of a hundred requests
    /// that come at once, not each opens one.
    opening: tokio::sync::Mutex<()>,
    in_use: Cell<usize>,
    /// It is no upstream's any more: a connection on which a request ends is closed.
    is_retired: Cell<bool>,
    pub(super) latency: Latency,
    cooling_until: Cell<Option<Instant>>,
    last_error: RefCell<Option<String>>,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

impl Endpoint {
    pub(super) fn new(endpoint: &model::Endpoint) -> Self {
        let address = match &endpoint.at {
            Location::Tcp { host, port } => host.parse().ok().map(|ip| SocketAddr::new(ip, *port)),
            Location::Unix(_) => None,
        };
        Self {
            settings: endpoint.clone(),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            address,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: tokio::sync::Mutex::default(),
            in_use: Cell::new(0),
            is_retired: Cell::new(false),
            latency: Latency::default(),
            cooling_until: Cell::new(None),
            last_error: RefCell::default(),
        }
    }

    pub(super) fn settings(&self) -> &model::Endpoint {
        &self.settings
    }

    /// Its host, if it is spoken to under TLS.
    pub(super) fn secure_host(&self) -> Option<&str> {
        match &self.settings.at {
            Location::Tcp { host, .. } if self.settings.is_secure => {
                Some(self.settings.server_name.as_deref().unwrap_or(host))
            }
            _ => None,
        }
    }

    /// What stands for it in a Host field.
    pub(in crate::proxy) fn authority(&self) -> String {
        match (&self.settings.at, &self.settings.server_name) {
            (Location::Tcp { port, .. }, Some(name)) => format!("{name}:{port}"),
            (Location::Tcp { .. }, None) => self.to_string(),
            (Location::Unix(_), _) => "localhost".to_owned(),
        }
    }

    pub(in crate::proxy) fn idle(&self) -> usize {
        self.idle.borrow().len() + self.shared.borrow().iter().filter(|link| link.streams() == 0).count()
    }

    pub(in crate::proxy) fn in_use(&self) -> usize {
        self.in_use.get()
    }

    pub(in crate::proxy) fn last_error(&self) -> Option<String> {
        self.last_error.borrow().clone()
    }

    /// Connects, in the clear, and says this first.
    pub(super) async fn connect(&self, announce: Option<&[u8]>) -> io::Result<Stream> {
        let mut stream = match (&self.settings.at, self.address) {
            (Location::Unix(path), _) => Stream::Unix(unix(path).await?),
            (_, Some(address)) => tcp(TcpStream::connect(address).await?)?,
            (Location::Tcp { host, port }, None) => {
                tcp(TcpStream::connect(self.resolve(host, *port).await?.as_slice()).await?)?
            }
        };
        if let Some(announce) = announce {
            stream.write_all(announce).await?;
        }
        Ok(stream)
    }

    /// Looks the name up. The system does that in a thread of its own and cannot be told to stop, so the thread
    /// keeps its turn until it is done: while no name server answers, requests run into their timeouts and
    /// lookups do not pile up behind them.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let lookup = move || {
            let _turn = turn;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        };
        tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
    }

    /// Opens a connection. Over HTTP/2 that may be one that somebody else has opened meanwhile, but not `shunned`.
    pub(super) async fn open(
        &self,
        tls: Option<&tls::Client>,
        protocol: Protocol,
        announce: Option<&[u8]>,
        timeout: Duration,
        shunned: Option<&Weak<Shared>>,
    ) -> Result<Opened, ConnectError> {
        if protocol == Protocol::Http1 {
            return link::open(self, tls, protocol, announce, timeout).await;
        }
        let began = Instant::now();
        let turn = tokio::time::timeout(timeout, self.opening.lock()).await;
        let _turn = turn.map_err(|_| ConnectError::TimedOut(timeout))?;
        if let Some(shared) = self.take_shared(shunned) {
            return Ok(Opened::Shared(shared));
        }
        let opened =
            link::open(self, tls, protocol, announce, timeout.saturating_sub(began.elapsed())).await?;
        if let Opened::Shared(shared) = &opened {
            self.shared.borrow_mut().push(Rc::clone(shared));
        }
        Ok(opened)
    }

    /// A connection over HTTP/2 that takes one request more: the one that has most already, so that those that are
    /// not needed any more get idle and are closed.
    fn take_shared(&self, shunned: Option<&Weak<Shared>>) -> Option<Rc<Shared>> {
        let shared = self.shared.borrow();
        let is_shunned =
            |link: &Rc<Shared>| shunned.is_some_and(|shunned| Weak::as_ptr(shunned) == Rc::as_ptr(link));
        let room = shared.iter().filter(|link| link.has_room() && !is_shunned(link));
        room.max_by_key(|link| link.streams()).map(Rc::clone)
    }

    /// Takes an idle connection, or one that can be shared.
    pub(super) fn take(
        &self,
        now: Instant,
        keepalive: Duration,
        shunned: Option<&Weak<Shared>>,
    ) -> Option<Opened> {
        if let Some(shared) = self.take_shared(shunned) {
            return Some(Opened::Shared(shared));
        }
        let idle = self.idle.borrow_mut().pop()?;
        if now.saturating_duration_since(idle.since) < keepalive {
            return Some(Opened::Exclusive(idle.link));
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
            && !self.is_retired.get()
            && !link.is_given_up()
        {
            link.offer();
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes the connection that was idle for the longest time. `false` if there is none.
    pub(super) fn give_up_idle(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            drop(idle.remove(0));
            return true;
        }
        let mut shared = self.shared.borrow_mut();
        let unused = shared.iter().position(|link| link.streams() == 0);
        unused.map(|index| shared.swap_remove(index)).is_some()
    }

    /// Nobody will send it a new request: closes what is idle, and lets the requests that are under way end.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    /// Closes what was idle for too long; the oldest stand first.
    pub(super) fn sweep(&self, now: Instant, keepalive: Duration) {
        let mut idle = self.idle.borrow_mut();
        let fresh = idle.partition_point(|idle| now.saturating_duration_since(idle.since) >= keepalive);
        idle.drain(..fresh);
        self.shared.borrow_mut().retain(|link| !link.is_over() && !link.is_idle(now, keepalive));
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

/// Connects to a socket of this host. Where too many wait to be accepted the system says so at once, while over TCP it
/// tries again: so it is tried again here, and whoever asked has a time for it.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BACKLOG_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

fn tcp(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    Ok(Stream::Plain(stream))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
