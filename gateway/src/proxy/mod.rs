//! The path of a request: listeners, routes, upstreams. [`Proxy`] starts, reloads and drains it; the stages
//! of a request stand in `pipeline.rs`.

mod action;
mod body;
mod connection;
mod cookie;
mod cors;
mod exchange;
mod explain;
mod forwarded;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gather;
mod grammar;
mod grpc;
mod grpc_web;
mod headers;
mod hop;
mod incoming;
mod interim;
mod json;
mod kept;
mod listen;
mod llm;
mod media_type;
mod mirror;
mod outgoing;
mod path;
mod pipeline;
mod problem;
pub mod proxy_protocol;
#[cfg(feature = "http3")]
mod quic;
mod random;
mod record;
mod request;
mod request_id;
mod route;
mod snapshot;
mod stream;
mod stream_tunnel;
mod trace;
mod trailers;
mod tunnel;
mod upstream;
mod watch;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use gateway_kernel::Ruling;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::discovery::Discovery;
use crate::observe::access_log::AccessLog;
use crate::{model, tls};

pub use explain::{Asked, Candidate, Explanation, explain};
use listen::{Address, Bound, Socket};
pub(crate) use route::shadowed;
use snapshot::{Secrets, Snapshot};
pub use upstream::{Condition, EndpointHealth, Position};
use upstream::{State, Steward};
use worker::{Command, Handle};

/// Judges a connection before a byte of a request is read.
pub type Admission = Arc<dyn Fn(Arrival) -> bool + Send + Sync>;

/// Says for the access log what the rules for packets say of a client; `None` where nobody knows.
pub type Rulings = Arc<dyn Fn(IpAddr) -> Option<Ruling> + Send + Sync>;

/// A connection that wants in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whom it is from.
    pub peer: SocketAddr,
    /// Our end of it.
    pub local: SocketAddr,
    /// Whether a load balancer said so: then the packets were its own, and nobody has judged their sender yet.
    pub announced: bool,
}

/// A running proxy. Dropping it ends it at once; [`Proxy::drain`] first lets requests finish.
pub struct Proxy {
    workers: Vec<Handle>,
    /// What listens now. The lock also keeps reloads apart.
    addresses: Mutex<Vec<(String, Address)>>,
    /// What TLS is spoken with, each setting once.
    secrets: Mutex<Known>,
    access_log: Mutex<Option<Arc<AccessLog>>>,
    rulings: Rulings,
    /// What all workers know of the upstreams.
    states: Mutex<Arc<[Arc<State>]>>,
    steward: Steward,
    /// Without the endpoints that were found.
    snapshot: Mutex<Arc<Snapshot>>,
    /// Those before it, as long as a worker may have them.
    former: Mutex<Vec<Arc<Snapshot>>>,
    discovery: Discovery,
}

/// What TLS is spoken with, each setting once.
#[derive(Debug, Clone, Default)]
struct Known {
    listeners: Vec<Arc<tls::Server>>,
    upstreams: Vec<Arc<tls::Client>>,
}

/// Why the proxy cannot start, or cannot take a new configuration. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Somebody else listens there.
    #[error("listener {listener}: {address} is in use by another process; stop it or choose another address")]
    InUse {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("listener {listener}: cannot listen on {address}: {source}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Likewise, for HTTP/3.
    #[cfg(feature = "http3")]
    #[error("listener {listener}: cannot take HTTP/3 on port {} of UDP at {}: {source}", address.port(), address.ip())]
    BindDatagrams {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file that TLS needs.
    #[error("{whose}: {why}")]
    Tls {
        /// The listener or upstream.
        whose: String,
        /// What is wrong with which file.
        why: String,
    },
    /// The access log's file or thread.
    #[error("the access log cannot be written: {0}")]
    AccessLog(io::Error),
    /// A worker thread could not be started.
    #[error("cannot start worker {index}: {source}")]
    Worker {
        /// Which one.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that checks endpoints could not be started.
    #[error("cannot start the thread for health checks: {0}")]
    Steward(io::Error),
    /// The thread that looks for endpoints could not be started.
    #[error("cannot start the thread that looks for endpoints: {0}")]
    Discovery(io::Error),
    /// A worker thread does not answer.
    #[error("worker {index} does not answer; restart the gateway")]
    WorkerGone {
        /// Which one.
        index: usize,
    },
}

impl ProxyError {
    fn bind(listener: &model::Listener, source: io::Error) -> Self {
        let (listener, address) = (listener.name.clone(), listener.address);
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { listener, address },
            _ => Self::Bind { listener, address, source },
        }
    }

    #[cfg(feature = "http3")]
    fn bind_datagrams(listener: &model::Listener, address: SocketAddr, source: io::Error) -> Self {
        Self::BindDatagrams { listener: listener.name.clone(), address, source }
    }
}

/// What a reload could not change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration names another number of workers: that takes a restart.
    pub workers_need_restart: bool,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// What the proxy does at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Worker threads.
    pub workers: usize,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// Where requests go.
    pub endpoints: Vec<EndpointStatus>,
    /// The upstreams that have a breaker.
    pub breakers: Vec<BreakerStatus>,
    /// The upstreams whose endpoints have a source.
    pub discoveries: Vec<DiscoveryStatus>,
}

/// The source of an upstream's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryStatus {
    /// The upstream's name.
    pub upstream: String,
    /// What is asked, or read.
    pub source: String,
    /// How many endpoints it has brought, which are in force.
    pub endpoints: usize,
    /// Why it brings none, if it does not: those of before stay.
    pub failure: Option<String>,
}

/// The breaker of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// The upstream's name.
    pub upstream: String,
    /// How it stands.
    pub position: Position,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its address, with the port that the system chose if the configuration left that open.
    pub address: SocketAddr,
    /// Open client connections.
    pub connections: usize,
}

/// One endpoint, over all workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The upstream's name.
    pub upstream: String,
    /// Host and port.
    pub endpoint: String,
    /// Connections that wait for a request.
    pub idle: usize,
    /// Connections with a request on them.
    pub in_use: usize,
    /// Why the last attempt to connect failed, if it did.
    pub last_error: Option<String>,
    /// Whether it gets requests.
    pub condition: Condition,
    /// Why its last health check failed, if it did.
    pub complaint: Option<String>,
}

/// How long the end of a drain waits for the disk that the access log is written to.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// A worker answers between two polls of a connection; one that takes longer than this is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Proxy {
    /// Binds every listener, then starts the workers.
    ///
    /// # Errors
    /// An address that is in use or cannot be bound, or a thread that cannot be started. Nothing runs then.
    pub fn start(model: &model::Proxy, admission: Admission) -> Result<Self, ProxyError> {
        Self::start_with(model, admission, Arc::new(|_| None))
    }

    /// The same, with rulings for the access log.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_with(
        model: &model::Proxy,
        admission: Admission,
        rulings: Rulings,
    ) -> Result<Self, ProxyError> {
        let count = model.workers.max(1);
        let bound = bind(model, count, &[])?;
        let secrets = secure(model, &Known::default())?;
        let access_log = open_log(model, None, &rulings)?;
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let handle = worker::start(index, Arc::clone(&admission));
            workers.push(handle.map_err(|source| ProxyError::Worker { index, source })?);
        }
        let steward = Steward::start().map_err(ProxyError::Steward)?;
        let discovery = Discovery::default();
        discovery.follow(model).map_err(ProxyError::Discovery)?;
        let proxy = Self {
            workers,
            addresses: Mutex::default(),
            secrets: Mutex::default(),
            states: Mutex::new(Arc::new([])),
            access_log: Mutex::default(),
            rulings,
            steward,
            snapshot: Mutex::new(Arc::new(Snapshot::empty())),
            former: Mutex::default(),
            discovery,
        };
        proxy.apply(model, bound, secrets, access_log, &mut proxy.addresses())?;
        Ok(proxy)
    }

    /// Serves by another configuration from the next request on. New addresses are bound first; connections
    /// live on, those of listeners that are gone until the end of their request.
    ///
    /// # Errors
    /// As for [`Proxy::start`]; the former configuration stays in force.
    pub fn reload(&self, model: &model::Proxy) -> Result<Reloaded, ProxyError> {
        self.discovery.follow(model).map_err(ProxyError::Discovery)?;
        let reloaded = self.take_over(model);
        // Only now it is known which sources are not wanted any more.
        self.discovery.forget_all_but(&self.snapshot().model);
        reloaded
    }

    fn take_over(&self, model: &model::Proxy) -> Result<Reloaded, ProxyError> {
        let mut addresses = self.addresses();
        let bound = bind(model, self.workers.len(), &addresses)?;
        let secrets = secure(model, &self.secrets())?;
        let access_log = open_log(model, self.access_log().as_ref(), &self.rulings)?;
        self.apply(model, bound, secrets, access_log, &mut addresses)?;
        Ok(Reloaded { workers_need_restart: model.workers.max(1) != self.workers.len() })
    }

    /// Waits until there are other endpoints than those in force; then [`Self::take_endpoints`] is due.
    pub async fn endpoints_found(&self) {
        self.discovery.changed().await;
    }

    /// Sends requests to the endpoints that were found. Those that stay keep their connections and what is known of
    /// them; those that are gone finish what they have. It waits for the workers: not for an event loop.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn take_endpoints(&self) -> Result<(), ProxyError> {
        // The lock keeps reloads apart.
        let _addresses = self.addresses();
        let (snapshot, former) = (self.snapshot(), self.states());
        let states = self.update_states(&snapshot);
        if former.iter().map(Arc::as_ptr).eq(states.iter().map(Arc::as_ptr)) {
            return Ok(());
        }
        self.tell(&snapshot, &states, Vec::new())
    }

    /// Stops accepting, answers what is in flight with `Connection: close`, closes what is idle, and cuts
    /// what is left after `timeout`.
    pub fn drain(&self, timeout: Duration) -> impl Future<Output = Drained> + use<> {
        let deadline = Instant::now() + timeout;
        let drain = |worker: &Handle| {
            let (done, drained) = oneshot::channel();
            worker.commands.send(Command::Drain { deadline, done }).ok().map(|()| drained)
        };
        let workers: Vec<_> = self.workers.iter().filter_map(drain).collect();
        let access_log = self.access_log().clone();
        async move {
            let mut drained = Drained::default();
            for worker in workers {
                drained.cut += worker.await.unwrap_or_default();
            }
            if let Some(log) = access_log {
                // Waiting is not for an event loop. If it breaks off, a few lines are missing.
                let _ = tokio::task::spawn_blocking(move || log.flush(LOG_PATIENCE)).await;
            }
            drained
        }
    }

    /// Frees the configurations that no worker has any more. Not for workers: thousands of routes take milliseconds, in
    /// which requests would wait. Returns whether some are still in use.
    pub fn free_former(&self) -> bool {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, unused) = former.drain(..).partition::<Vec<_>, _>(|one| Arc::strong_count(one) > 1);
        *former = used;
        let are_used = !former.is_empty();
        drop(former);
        drop(unused);
        are_used
    }

    /// Has the access log open its file anew, which somebody may have moved away.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &*self.access_log() {
            log.reopen();
        }
    }

    /// What the proxy does at this moment. Workers that do not answer are left out.
    pub fn status(&self) -> Status {
        let addresses = self.addresses().clone();
        let listeners = addresses.iter().map(|(name, address)| ListenerStatus {
            name: name.clone(),
            address: address.actual,
            connections: address.slots.open(),
        });
        let (listeners, endpoints) = (listeners.collect(), self.endpoints());
        let discoveries = self.discovery.status(&self.snapshot().model);
        Status { workers: self.workers.len(), listeners, endpoints, breakers: self.breakers(), discoveries }
    }

    /// Whether the endpoints are well that somebody looks after. Asks no worker.
    pub fn health(&self) -> Vec<EndpointHealth> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().filter(|state| state.is_watched()).flat_map(|state| state.health()).collect()
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        let (states, now) = (self.states.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let status = |state: &Arc<State>| {
            Some(BreakerStatus { upstream: state.name().to_owned(), position: state.position(now)? })
        };
        states.iter().filter_map(status).collect()
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        let (reply, replies) = mpsc::channel();
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Status(reply.clone()));
        }
        drop(reply);
        let mut endpoints: BTreeMap<(String, String), EndpointStatus> = BTreeMap::new();
        while let Ok(part) = replies.recv_timeout(ANSWER_TIMEOUT) {
            for status in part {
                let key = (status.upstream.clone(), status.endpoint.clone());
                match endpoints.get_mut(&key) {
                    None => drop(endpoints.insert(key, status)),
                    Some(sum) => {
                        sum.idle += status.idle;
                        sum.in_use += status.in_use;
                        sum.last_error = sum.last_error.take().or(status.last_error);
                    }
                }
            }
        }
        endpoints.into_values().collect()
    }

    /// Looks at the files that TLS is made of, and takes those that were replaced. It reads files: not for an event
    /// loop. Returns how many settings have new ones.
    pub fn renew_certificates(&self) -> usize {
        let known = self.secrets().clone();
        let listeners = known.listeners.iter().map(|server| server.look());
        let looked = listeners.chain(known.upstreams.iter().map(|client| client.look()));
        let renewed = looked.inspect(|looked| match looked {
            tls::Looked::Failed(why) => {
                tracing::error!(
                    "a certificate was replaced by what cannot be used; the former one stays: {why}"
                );
            }
            tls::Looked::Renewed => {
                tracing::info!("certificates were replaced, and new connections get them")
            }
            tls::Looked::Nothing => {}
        });
        renewed.filter(|looked| *looked == tls::Looked::Renewed).count()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn states(&self) -> Arc<[Arc<State>]> {
        Arc::clone(&self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The states of the upstreams as they are now, which are looked after from here on.
    fn update_states(&self, snapshot: &Snapshot) -> Arc<[Arc<State>]> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |upstream: &model::Upstream| self.discovery.endpoints(upstream);
        *states = upstream::states(&snapshot.model, found, snapshot.upstream_tls(), &states).into();
        self.steward.look_after(states.to_vec());
        Arc::clone(&states)
    }

    fn secrets(&self) -> MutexGuard<'_, Known> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_log(&self) -> MutexGuard<'_, Option<Arc<AccessLog>>> {
        self.access_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<(String, Address)>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands every worker the snapshot and its sockets, and waits until all have them.
    fn apply(
        &self,
        model: &model::Proxy,
        bound: Vec<Bound>,
        secrets: Secrets,
        access_log: Option<Arc<AccessLog>>,
        addresses: &mut Vec<(String, Address)>,
    ) -> Result<(), ProxyError> {
        let mut shares: Vec<Vec<(Address, Socket)>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut known: Vec<Address> = addresses.drain(..).map(|(_, address)| address).collect();
        for Bound { address, sockets } in bound {
            for (share, socket) in shares.iter_mut().zip(sockets) {
                share.push((address.clone(), socket));
            }
            known.push(address);
        }
        for listener in &model.listeners {
            if let Some(address) = known.iter().find(|address| address.configured == listener.address) {
                address.slots.set_limit(listener.max_connections);
                let address = Address {
                    #[cfg(feature = "http3")]
                    datagrams: listener.http3,
                    ..address.clone()
                };
                addresses.push((listener.name.clone(), address));
            }
        }
        *self.secrets() = Known {
            listeners: tls::distinct(&secrets.listeners),
            upstreams: tls::distinct(&secrets.upstreams),
        };
        self.access_log().clone_from(&access_log);
        let snapshot = Arc::new(Snapshot::new(model, secrets, access_log, addresses));
        // Those that nobody has any more make room.
        self.free_former();
        let former = std::mem::replace(
            &mut *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner),
            Arc::clone(&snapshot),
        );
        self.former.lock().unwrap_or_else(PoisonError::into_inner).push(former);
        let states = self.update_states(&snapshot);
        self.tell(&snapshot, &states, shares)
    }

    /// Hands every worker its share, and waits until all have it.
    fn tell(
        &self,
        snapshot: &Arc<Snapshot>,
        states: &Arc<[Arc<State>]>,
        shares: Vec<Vec<(Address, Socket)>>,
    ) -> Result<(), ProxyError> {
        let mut pending = Vec::new();
        let shares = shares.into_iter().chain(std::iter::repeat_with(Vec::new));
        for (index, (worker, sockets)) in self.workers.iter().zip(shares).enumerate() {
            let (done, applied) = mpsc::channel();
            let (snapshot, states) = (Arc::clone(snapshot), Arc::clone(states));
            let command = Command::Apply { snapshot, states, sockets, done };
            worker.commands.send(command).map_err(|_| ProxyError::WorkerGone { index })?;
            pending.push(applied);
        }
        for (index, applied) in pending.into_iter().enumerate() {
            applied.recv_timeout(ANSWER_TIMEOUT).map_err(|_| ProxyError::WorkerGone { index })?;
        }
        Ok(())
    }
}

/// Opens what the configuration names and nobody listens on yet.
fn bind(model: &model::Proxy, workers: usize, known: &[(String, Address)]) -> Result<Vec<Bound>, ProxyError> {
    let is_new = |l: &&model::Listener| !known.iter().any(|(_, a)| a.configured == l.address);
    let bound = model.listeners.iter().filter(is_new).map(|l| listen::bind(l, workers));
    #[cfg_attr(not(feature = "http3"), expect(unused_mut, reason = "there is nothing else in this build"))]
    let mut bound = bound.collect::<Result<Vec<_>, _>>()?;
    #[cfg(feature = "http3")]
    quic::bind(model, workers, known, &mut bound)?;
    Ok(bound)
}

/// The access log. One whose settings stay is kept, and opens its file anew.
fn open_log(
    model: &model::Proxy,
    known: Option<&Arc<AccessLog>>,
    rulings: &Rulings,
) -> Result<Option<Arc<AccessLog>>, ProxyError> {
    let Some(settings) = &model.access_log else { return Ok(None) };
    if let Some(known) = known.filter(|known| known.settings() == settings) {
        known.reopen();
        return Ok(Some(Arc::clone(known)));
    }
    AccessLog::start(settings, Arc::clone(rulings)).map(Arc::new).map(Some).map_err(ProxyError::AccessLog)
}

/// What listeners and upstreams speak TLS with. A setting that is in use stays, but its files are read again: whoever
/// reloads expects that. Listeners with one setting share it, and so a client's session is taken up at any of them.
fn secure(model: &model::Proxy, known: &Known) -> Result<Secrets, ProxyError> {
    let listeners =
        tls::make_all(model.listeners.iter().map(|listener| listener.tls.as_ref()), &known.listeners);
    let listeners = listeners.map_err(|(index, why)| {
        let whose = model.listeners.get(index).map_or_else(String::new, |listener| listener.name.clone());
        ProxyError::Tls { whose: format!("listener {whose}"), why }
    })?;
    let upstreams =
        tls::make_all(model.upstreams.iter().map(|upstream| upstream.tls.as_ref()), &known.upstreams);
    let upstreams = upstreams.map_err(|(index, why)| {
        let whose = model.upstreams.get(index).map_or_else(String::new, |upstream| upstream.name.clone());
        ProxyError::Tls { whose: format!("upstream {whose}"), why }
    })?;
    Ok(Secrets { listeners, upstreams })
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}
