//! QUIC: a UDP socket a worker for each listener that speaks HTTP/3, and what is decided about a connection before its
//! handshake costs anything.
//!
//! The kernel spreads datagrams over the workers' sockets by both addresses, so a client that changes its own comes to
//! a worker that does not know it: clients are told not to (RFC 9000, section 18.2), and one that was moved by its NAT
//! is told by a stateless reset to connect anew rather than left to wait.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming, TokioRuntime, TransportConfig,
};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::sync::Notify;
use tokio::task::{coop, spawn_local};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::model;
use crate::observe::http::Refused;
use crate::tls;

use super::Arrival;
use super::ProxyError;
use super::connection::http3;
use super::listen::{Address, Bound, Socket};
use super::snapshot::Local;
use super::worker::Worker;

/// A peer that does not answer for so long is gone; it is asked a few times before that. How long a connection may wait
/// for requests is the listener's to say, and is watched as for the other versions.
const SILENCE: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// How much of a request's body may wait in the gateway, for one stream and for all of a connection: as over HTTP/2.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 10 * STREAM_WINDOW;
/// How much of a connection's answers may wait for its client: enough for 80 Mbit/s at a round trip of 100 ms.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Streams of the client's own: for settings, two for QPACK, and some of kinds that nobody knows.
const OTHER_STREAMS: u32 = 8;
/// Bytes of a handshake's messages: a client's chain of certificates is among them.
const HANDSHAKE_BYTES: usize = 64 * 1024;

/// With so many handshakes under way in a worker, clients first have to show that they are where they say (a retry, RFC
/// 9000, section 8.1.2): a round trip for them, and nothing kept here.
const UNPROVED_HANDSHAKES: usize = 64;
/// Connections that wait to be decided about, and bytes that are kept for them: they are decided about at once.
const WAITING: usize = 1024;
const WAITING_BYTES: u64 = 64 * 1024;
const ALL_WAITING_BYTES: u64 = 4 * 1024 * 1024;

/// Asked of the system; it may give less. One burst of a download's acknowledgements must not be lost.
const SOCKET_BYTES: usize = 1024 * 1024;

/// Binds a socket a worker for each listener that has none yet, beside those for TCP.
pub(super) fn bind(
    model: &model::Proxy,
    workers: usize,
    known: &[(String, Address)],
    bound: &mut Vec<Bound>,
) -> Result<(), ProxyError> {
    for listener in model.listeners.iter().filter(|listener| listener.http3) {
        let known = known.iter().map(|(_, address)| address);
        let mut all = known.chain(bound.iter().map(|bound| &bound.address));
        let Some(address) = all.find(|address| address.configured == listener.address).cloned() else {
            continue;
        };
        if !address.datagrams {
            let failed = |source: io::Error| ProxyError::bind_datagrams(listener, address.actual, source);
            let sockets = open_all(address.actual, workers).map_err(failed)?;
            bound.push(Bound { address, sockets });
        }
    }
    Ok(())
}

fn open_all(address: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
    // As for TCP: with SO_REUSEPORT the port would be shared with a stranger.
    open(address, false)?;
    (0..count).map(|_| open(address, true).map(Socket::Udp)).collect()
}

fn open(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket =
        RawSocket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
        // Best effort: the system's limit is not ours to judge.
        let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket of this worker. When it is dropped, no connection is taken any more; the socket is closed with the last of
/// those that are there.
pub(super) struct Listening {
    pub(super) address: Address,
    stop: Rc<Notify>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Begins to accept.
pub(super) fn listen(worker: &Rc<Worker>, address: Address, socket: UdpSocket) -> io::Result<Listening> {
    let offers = Offers::new(worker, address.configured).ok_or(io::ErrorKind::InvalidInput)?;
    let config = Some(quinn::ServerConfig::clone(&offers.config));
    let endpoint = Endpoint::new(ENDPOINT.clone(), config, socket, Arc::new(TokioRuntime))?;
    let stop = Rc::new(Notify::new());
    let acceptor = Acceptor {
        worker: Rc::clone(worker),
        address: address.clone(),
        endpoint,
        offers,
        handshakes: Rc::default(),
    };
    spawn_local(acceptor.run(Rc::clone(&stop)));
    Ok(Listening { address, stop })
}

/// Takes connections from one socket.
struct Acceptor {
    worker: Rc<Worker>,
    address: Address,
    endpoint: Endpoint,
    offers: Offers,
    /// How many are under way.
    handshakes: Rc<Cell<usize>>,
}

impl Acceptor {
    /// Accepts until it is stopped, and then sends away who comes while connections are left: left without an answer,
    /// they would not know to try TCP.
    async fn run(mut self, stop: Rc<Notify>) {
        let mut stopped = pin!(stop.notified());
        loop {
            // A flood of connections must not keep those that are there from being served.
            coop::consume_budget().await;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.decide(incoming),
                    None => return,
                },
            }
        }
        loop {
            coop::consume_budget().await;
            tokio::select! {
                biased;
                () = self.endpoint.wait_idle() => return,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
            }
        }
    }

    /// Lets a connection in, asks it to prove its address, or sends it away.
    fn decide(&mut self, incoming: Incoming) {
        let (worker, address) = (&self.worker, &self.address);
        let peer = incoming.remote_address();
        let ip = incoming.local_ip().unwrap_or(address.actual.ip());
        let local = SocketAddr::new(ip, address.actual.port());
        if !worker.admits(Arrival { peer, local, announced: false }) {
            worker.count_refused(address.configured, Refused::Denied);
            return incoming.ignore();
        }
        if self.handshakes.get() >= UNPROVED_HANDSHAKES && incoming.may_retry() {
            // It cannot fail for one that may.
            return drop(incoming.retry());
        }
        // Nothing holds datagrams back, as the backlog of TCP does: who is too many is told so.
        let Some(slot) = address.slots.try_acquire() else { return incoming.refuse() };
        let Some(config) = self.offers.newest(worker) else { return incoming.refuse() };
        let Ok(connecting) = incoming.accept_with(config) else {
            return worker.count_refused(address.configured, Refused::Broken);
        };
        let Some((session, open)) = worker.begin((peer, local), address, slot, true) else { return };
        let handshake = Handshake::new(&self.handshakes);
        spawn_local(async move {
            http3::serve(session, connecting, handshake).await;
            drop(open);
        });
    }
}

/// A handshake that is under way.
pub(super) struct Handshake(Rc<Cell<usize>>);

impl Handshake {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What new connections are offered: made anew when certificates or the configuration change.
struct Offers {
    listens_on: SocketAddr,
    local: Rc<Local>,
    tls: Arc<ServerConfig>,
    config: Arc<quinn::ServerConfig>,
}

impl Offers {
    /// `None` if there is nothing to offer at this address.
    fn new(worker: &Worker, listens_on: SocketAddr) -> Option<Self> {
        let local = worker.local();
        let index = local.listeners().iter().position(|listener| listener.address == listens_on)?;
        let tls = local.tls(index)?.config();
        let config = Arc::new(config(&local.listeners()[index], &tls)?);
        Some(Self { listens_on, local, tls, config })
    }

    fn newest(&mut self, worker: &Worker) -> Option<Arc<quinn::ServerConfig>> {
        let index = self.local.listeners().iter().position(|listener| listener.address == self.listens_on)?;
        let tls = self.local.tls(index)?.config();
        if !worker.has(&self.local) || !Arc::ptr_eq(&tls, &self.tls) {
            *self = Self::new(worker, self.listens_on)?;
        }
        Some(Arc::clone(&self.config))
    }
}

fn config(listener: &model::Listener, tls: &ServerConfig) -> Option<quinn::ServerConfig> {
    let crypto = match QuicServerConfig::try_from(tls::for_http3(tls)) {
        Ok(crypto) => crypto,
        Err(error) => {
            tracing::error!(listener = listener.name, %error, "cannot speak HTTP/3");
            return None;
        }
    };
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(listener.max_concurrent_streams.into())
        .max_concurrent_uni_streams(OTHER_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(SILENCE.try_into().ok())
        .keep_alive_interval(Some(ASKED_EVERY))
        .crypto_buffer_size(HANDSHAKE_BYTES)
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(ALL_WAITING_BYTES);
    Some(config)
}

/// One for all workers, so that each can end what another one knows.
static ENDPOINT: LazyLock<EndpointConfig> = LazyLock::new(|| {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomIds));
    config
});

/// Ids of connections, which tell nothing. quinn's own ones have a key a socket, and what bears an id of another
/// socket's is dropped without a word.
struct RandomIds;

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        // It fails only where nothing at all could be encrypted; ids need not be secret.
        let _ = aws_lc_rs::default_provider().secure_random.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
