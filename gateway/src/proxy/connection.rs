//! One client connection: hyper runs it, one timer ends its waits, the worker may ask it to close.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use ipnet::IpNet;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::observe::http::Refused;

use super::Arrival;
use super::body::ResponseBody;
use super::client_io::ClientIo;
use super::forwarded::Peer;
use super::framing::Limits;
use super::pipeline;
use super::proxy_protocol::{self, Announced, Progress};
use super::snapshot::Local;
use super::stream::Stream;
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
    /// Another one, once a load balancer has said whom the connection is from.
    peer: RefCell<Peer>,
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
        let is_secure = local.tls(listener).is_some();
        Some(Rc::new(Self {
            worker,
            watch,
            peer: RefCell::new(Peer::new(peer, is_secure)),
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
        read(&self.peer.borrow(), trusted.unwrap_or_default())
    }

    /// A load balancer says whom the connection is from. No packet of his was judged, so the rules are asked now.
    fn is_from(&self, client: SocketAddr, local: SocketAddr, is_secure: bool) -> io::Result<()> {
        if !self.worker.admits(Arrival { peer: client, local, announced: true }) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.peer.replace(Peer::new(client, is_secure));
        Ok(())
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
    let watch = Rc::clone(&session.watch);
    let mut timer = Timer { sleep: pin!(tokio::time::sleep_until(watch.deadline().into())), is_set: false };
    let mut closing = Closing::default();
    let Some(stream) = prepare(&session, stream, &mut timer, &mut closing).await else { return };
    let mut http = pin!(speak(session, stream));
    let mut waker_is_known = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waker_is_known, true) {
            watch.set_waker(cx.waker());
        }
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if closing.begins(&watch) {
                http.as_mut().graceful_shutdown();
                continue;
            }
            if ready!(timer.poll(cx, &watch)) == Ended::Close {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

/// What comes before the first request: whom the connection is from, where a load balancer says so, and the handshake
/// of TLS. Together they have as long as a request's header has, and as little as that when the worker closes its
/// connections. `None`: it did not come to a request.
async fn prepare(
    session: &Session,
    stream: TcpStream,
    timer: &mut Timer<'_>,
    closing: &mut Closing,
) -> Option<Stream> {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let tls = local.tls(session.listener_index());
    let peer = session.peer.borrow().address();
    let is_announced = listener.proxy_protocol.iter().any(|net| net.contains(&peer));
    if tls.is_none() && !is_announced {
        return Some(Stream::Plain(stream));
    }
    let watch = &session.watch;
    // Whatever fails, or takes too long, fails for what it was at.
    let at = Cell::new(Refused::ProxyHeader);
    let mut prepared = pin!(async {
        let mut stream = stream;
        if is_announced {
            let announced = announced(&mut stream).await?;
            if let Announced::Client(client) = announced {
                at.set(Refused::Denied);
                session.is_from(client, stream.local_addr()?, tls.is_some())?;
            }
        }
        at.set(Refused::TlsHandshake);
        let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
        let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
        session.peer.borrow().shows(stream.get_ref().1.peer_certificates().unwrap_or_default());
        io::Result::Ok(Stream::Tls(Box::new(stream.into())))
    });
    let prepared = poll_fn(|cx| {
        watch.set_waker(cx.waker());
        if let Poll::Ready(prepared) = prepared.as_mut().poll(cx) {
            return Poll::Ready(prepared);
        }
        closing.begins(watch);
        ready!(timer.poll(cx, watch));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    });
    match prepared.await {
        Ok(stream) => {
            watch.begins(Instant::now(), listener.header_timeout);
            Some(stream)
        }
        Err(error) => {
            tracing::debug!(client = %session.peer.borrow().address(), reason = ?at.get(), %error, "not served");
            session.worker.count_refused(session.listens_on, at.get());
            None
        }
    }
}

/// Reads what a load balancer says of a connection, and nothing behind it. Of version 1 a few bytes at a time: how
/// long it is, only its end says.
async fn announced(stream: &mut TcpStream) -> io::Result<Announced> {
    let mut header = Vec::new();
    loop {
        match proxy_protocol::read(&header).map_err(io::Error::other)? {
            Progress::Done(announced) => return Ok(announced),
            Progress::Needs(count) => {
                let begin = header.len();
                header.resize(begin + count, 0);
                stream.read_exact(&mut header[begin..]).await?;
            }
        }
    }
}

/// The connection as hyper runs it.
fn speak(
    session: Rc<Session>,
    stream: Stream,
) -> http1::Connection<
    ClientIo,
    impl Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
> {
    let local = session.local();
    let listener = &local.listeners()[session.listener_index()];
    let limits = Limits { bytes: listener.max_header_bytes, fields: listener.max_header_count };
    let (watch, scratch) = (Rc::clone(&session.watch), session.worker.scratch());
    let io = ClientIo::new(stream, limits, listener.header_timeout, watch, scratch);
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER.max(limits.bytes.saturating_add(1)));
    if limits.fields > STACK_FIELDS {
        http.max_headers(limits.fields);
    }
    http.serve_connection(io, service_fn(move |request| pipeline::serve(Rc::clone(&session), request)))
}

/// The one timer of a connection. Most deadlines only move away, so it is left where it is; when it fires too
/// early, it is set anew. One that moves nearer (a head after a long wait) has to be set at once.
struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    /// The runtime knows when to wake this task.
    is_set: bool,
}

/// What the end of a wait means for the connection.
#[derive(PartialEq, Eq)]
enum Ended {
    Run,
    Close,
}

impl Timer<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Ended> {
        loop {
            let deadline = watch.deadline().into();
            if deadline < self.sleep.deadline() {
                self.set(deadline);
            }
            if self.is_set && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.is_set = true;
            ready!(self.sleep.as_mut().poll(cx));
            match watch.look(Instant::now()) {
                Expiry::Later(deadline) => self.set(deadline.into()),
                Expiry::Run => return Poll::Ready(Ended::Run),
                Expiry::Close => return Poll::Ready(Ended::Close),
            }
        }
    }

    fn set(&mut self, deadline: tokio::time::Instant) {
        self.sleep.as_mut().reset(deadline);
        self.is_set = false;
    }
}

/// How far a connection is in closing once the worker has asked it to.
#[derive(Default)]
struct Closing {
    begun: bool,
    has_grace: bool,
}

impl Closing {
    /// Whether hyper is to be told now that the current request is the last; `true` once.
    fn begins(&mut self, watch: &Watch) -> bool {
        if self.begun || !watch.is_closing() {
            return false;
        }
        self.begun = watch.has_requests();
        // A connection from the backlog: its first request is most likely on the way already.
        if !self.begun && !std::mem::replace(&mut self.has_grace, true) {
            watch.idles(Instant::now(), FIRST_REQUEST_GRACE);
        }
        self.begun
    }
}
