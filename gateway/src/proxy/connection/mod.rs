//! One client connection: what comes before requests, then HTTP/1.1, HTTP/2 or HTTP/3. One timer ends its waits, the worker
//! may ask it to close.

mod client_io;
mod date;
mod frames;
mod http1;
mod http2;
#[cfg(feature = "http3")]
pub(super) mod http3;
mod passthrough;
mod prepare;
pub(super) mod timer;

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::Version;
use ipnet::IpNet;
use tokio::net::TcpStream;

use super::Arrival;
use super::forwarded::Peer;
use super::snapshot::Local;
use super::stream::Stream;
use super::tunnel::{self, Tunnel};
use super::watch::{Phase, Watch};
use super::worker::Worker;

pub(super) use client_io::{SCRATCH_BYTES, Scratch};
use http1::Left;
use prepare::Prepared;
use timer::{Closing, Ended, Timer};

/// How much of a response may wait for a client that reads slowly, and the least that hyper reads at once.
const MAX_BUFFER: usize = 64 * 1024;

/// What the requests of a connection share.
pub(super) struct Session {
    worker: Rc<Worker>,
    watch: Rc<Watch>,
    /// Another one, once a load balancer has said whom the connection is from.
    peer: RefCell<Peer>,
    /// What the client asked for in the handshake of TLS.
    server_name: RefCell<Option<Rc<str>>>,
    /// What was agreed on there.
    tls_version: Cell<Option<&'static str>>,
    /// The addresses of both ends, the client's first.
    ends: Cell<(SocketAddr, SocketAddr)>,
    /// As it stands in the configuration: how the listener is found again after a reload.
    listens_on: SocketAddr,
    local: RefCell<Rc<Local>>,
    /// Index of the listener in `local`.
    listener: Cell<usize>,
    /// What takes the place of HTTP once the answer that agrees to it is written.
    tunnel: RefCell<Option<Box<Tunnel>>>,
}

impl Session {
    /// `None` if no listener has this address (any more).
    pub(super) fn new(
        worker: Rc<Worker>,
        peer: SocketAddr,
        ours: SocketAddr,
        listens_on: SocketAddr,
        now: Instant,
    ) -> Option<Rc<Self>> {
        let local = worker.local();
        let listener = find(&local, listens_on)?;
        let watch = Rc::new(Watch::new(now, local.listeners()[listener].header_timeout));
        let is_secure = local.tls(listener).is_some();
        Some(Rc::new(Self {
            worker,
            watch,
            peer: RefCell::new(Peer::new(peer, is_secure)),
            server_name: RefCell::default(),
            tls_version: Cell::default(),
            ends: Cell::new((peer, ours)),
            listens_on,
            local: RefCell::new(local),
            listener: Cell::new(listener),
            tunnel: RefCell::default(),
        }))
    }

    pub(super) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
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

    /// What the client asked for in the handshake of TLS, in lower case.
    pub(super) fn server_name(&self) -> Option<Rc<str>> {
        self.server_name.borrow().clone()
    }

    /// The version of TLS, where it is spoken.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        self.tls_version.get()
    }

    /// The addresses of both ends of the connection: the client's, as far as is known, and ours.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        self.ends.get()
    }

    pub(super) fn listener_index(&self) -> usize {
        self.listener.get()
    }

    #[cfg(feature = "http3")]
    fn header_timeout(&self) -> Duration {
        self.local().listeners()[self.listener_index()].header_timeout
    }

    /// Hands out who the client is and whom the listener trusts.
    pub(super) fn with_trusted<T>(&self, read: impl FnOnce(&Peer, &[IpNet]) -> T) -> T {
        let local = self.local.borrow();
        let trusted = local.listeners().get(self.listener.get()).map(|l| l.trusted_proxies.as_slice());
        read(&self.peer.borrow(), trusted.unwrap_or_default())
    }

    /// A load balancer says whom the connection is from. No packet of his was judged, so the rules are asked now.
    fn is_from(&self, client: SocketAddr, local: SocketAddr, is_secure: bool) -> io::Result<()> {
        if !self.worker.admits(Arrival { peer: client, local, announced: true }) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.peer.replace(Peer::new(client, is_secure));
        self.ends.set((client, local));
        Ok(())
    }

    /// The request at hand, the last one, becomes a tunnel.
    pub(super) fn becomes(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(Box::new(tunnel));
    }

    fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.borrow_mut().take()
    }

    /// A request is over.
    pub(super) fn end(&self, watch: &Rc<Watch>, now: Instant) {
        // The end of a stream is not that of the connection's work: `http2` knows how many are open.
        if Rc::ptr_eq(watch, &self.watch)
            && let Some(timeout) = self.idle_timeout()
        {
            self.watch.idles_until_rest(now, timeout);
        }
        self.worker.counted();
    }

    /// How long the connection may wait for its next request.
    fn idle_timeout(&self) -> Option<Duration> {
        let local = self.local.borrow();
        local.listeners().get(self.listener.get()).map(|listener| listener.idle_timeout)
    }
}

fn find(local: &Local, address: SocketAddr) -> Option<usize> {
    local.listeners().iter().position(|listener| listener.address == address)
}

/// Serves a connection until it ends.
pub(super) async fn serve(session: Rc<Session>, stream: TcpStream) {
    let first = session.watch.deadline().into();
    let mut timer = Timer { sleep: pin!(tokio::time::sleep_until(first)), is_set: false };
    let mut closing = Closing::default();
    let (stream, version) = match prepare::prepare(&session, stream, &mut timer, &mut closing).await {
        None | Some(Prepared::Seen) => return,
        Some(Prepared::Forward(stream, upstream)) => {
            return forward(&session, stream, upstream, &mut timer).await;
        }
        Some(Prepared::Http(stream, version)) => (stream, version),
    };
    let (stream, read) = if version == Version::HTTP_2 {
        (stream, Vec::new())
    } else {
        match http1::serve(&session, stream, &mut timer, &mut closing).await {
            Left::Nothing => return,
            Left::Http2(stream, read) => (stream, read),
            Left::Tunnel(stream, read, tunnel) => {
                let Tunnel { upstream, read: answered, exchange, idle, slot: _slot } = *tunnel;
                exchange.watch().moves(Phase::Download(idle), Instant::now(), idle);
                let ends = [(stream, read), (upstream, answered.into())];
                return tunnel_through(&session, ends, &mut timer).await;
            }
        }
    };
    // Boxed, as is the conversation over HTTP/1.1: the task itself stays small, also where the connection only waits.
    Box::pin(http2::serve(session, stream, read, &mut timer, &mut closing)).await;
}

/// Passes a connection on to an upstream as it is.
async fn forward(session: &Session, client: TcpStream, upstream: usize, timer: &mut Timer<'_>) {
    let now = Instant::now();
    session.watch.busy(now);
    let local = session.local();
    let Some(upstream) = local.upstreams().get(upstream) else { return };
    match upstream.connect_through(session.ends(), now).await {
        Ok((stream, _lease)) => {
            let idle = upstream.settings().idle_timeout;
            session.watch.moves(Phase::Download(idle), now, idle);
            let ends = [(Stream::Plain(client), Vec::new()), (stream, Vec::new())];
            tunnel_through(session, ends, timer).await;
        }
        Err(_logged) => {
            // The client is told by a reset: an orderly end could pass for the server's.
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Carries another protocol until it ends, or nothing moves for too long. A worker that closes its connections cuts it
/// at the end of its patience: nobody knows how to end a protocol that nobody knows.
async fn tunnel_through(session: &Session, ends: [tunnel::End; 2], timer: &mut Timer<'_>) {
    let mut tunnel = pin!(tunnel::run(ends, Rc::clone(&session.watch), session.worker.scratch()));
    poll_fn(|cx| {
        session.watch.set_waker(cx.waker());
        loop {
            if let Poll::Ready(ended) = tunnel.as_mut().poll(cx) {
                tracing::debug!(client = %session.peer.borrow().address(), ?ended, "a tunnel ended");
                return Poll::Ready(());
            }
            if ready!(timer.poll(cx, &*session.watch)) == Ended::Close {
                return Poll::Ready(());
            }
        }
    })
    .await;
}
