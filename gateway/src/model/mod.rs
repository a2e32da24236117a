//! What runs: parsed, complete and immutable. `config` lowers what users wrote into these types once;
//! nothing here is optional because a user may leave it out, only because it may really be absent.

mod access_log;
mod acme;
mod action;
mod balance;
mod deprecation;
mod discovery;
mod headers;
mod health;
mod limits;
mod llm;
mod matching;
mod retry;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_kernel::{Plan, Recipe};
use ipnet::IpNet;

use crate::sources::Origin;

pub use access_log::{AccessLog, LogFormat, LogTarget};
pub use acme::{Acme, AcmeChallenge};
pub use action::{Action, FixedAnswer, Forward, Mirror, PathChange, Piece, Redirect, Share, Sticky};
pub use balance::{Balance, HashKey};
pub use deprecation::Deprecation;
pub use discovery::{Discovery, DnsDiscovery, Family, Records};
pub use headers::{Cors, FieldPart, FieldTemplate, HeaderChanges, OriginPattern, Variable};
pub use health::{Ejection, HealthCheck, Probe, SuccessRate};
pub use limits::{Breaker, Limits};
pub use llm::{
    Found, Llm, LlmRoute, NamePattern, Provider, ProviderKey, Target as LlmTarget, facts as model_facts,
};
pub use matching::{
    BodyBounds, BodyTests, Conditions, HostPattern, MediaType, PathPattern, Pattern, Pointer, RouteMatch,
    Segment, Template, Test,
};
pub use retry::{Retry, RetryOn};

/// Everything one configuration says, complete with every default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What the kernel programs enforce.
    pub kernel: Plan,
    /// The lists among them that refresh by themselves.
    pub lists: ListSources,
    /// The path of a request.
    pub proxy: Proxy,
    /// How certificates are obtained from an authority; `None`: they are all files of the operator's.
    pub acme: Option<Acme>,
    /// Where operators and scrapers reach the agent.
    pub admin: Admin,
    /// What it was read from, the main file first.
    pub config_files: Vec<PathBuf>,
    /// SHA-256 of the configuration text, in hexadecimal: the same in `status`, logs and metrics.
    pub config_hash: String,
}

/// Lists that refresh by themselves, and where their last good copies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSources {
    /// The directory of the copies.
    pub cache: PathBuf,
    /// The lists.
    pub sources: Vec<ListSource>,
}

/// A list that refreshes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSource {
    /// How its bytes become a list.
    pub recipe: Recipe,
    /// Where its bytes come from.
    pub origin: Origin,
    /// By how many percent of its length it may change without being asked about; `None` is any.
    pub max_change: Option<u32>,
}

/// The proxy: listeners, routes and upstreams, joined by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Worker threads, each with a runtime of its own; at least 1.
    pub workers: usize,
    /// How long a drain may take before what is left is cut.
    pub drain_timeout: Duration,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where requests go.
    pub upstreams: Vec<Upstream>,
    /// Who serves which model.
    pub llm: Arc<Llm>,
    /// Where a line for each request goes; `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// Which request goes where; order has no meaning, precedence comes from the patterns.
    pub routes: Vec<Route>,
}

/// One listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the configuration and in metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it speaks TLS; `None`: in the clear.
    pub tls: Option<Tls>,
    /// Whether it speaks HTTP/2 with clients that ask for it, by ALPN or, in the clear, by prior knowledge.
    pub http2: bool,
    /// Whether it speaks HTTP/3, too, on the same port of UDP. There is `tls` then.
    pub http3: bool,
    /// Requests at a time on one connection over HTTP/2 or HTTP/3.
    pub max_concurrent_streams: u32,
    /// Connections under TLS that are passed on as they are, by the name that they ask for.
    pub passthrough: Vec<Passthrough>,
    /// Peers that say in front of each connection whom it is from (the PROXY protocol).
    pub proxy_protocol: Vec<IpNet>,
    /// Peers whose X-Forwarded-For and Forwarded are believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// From the first byte of a request (or from accept) to the end of its headers: 408 after that.
    pub header_timeout: Duration,
    /// How long a keep-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Request line and headers together, in bytes: 431 beyond.
    pub max_header_bytes: usize,
    /// Number of header fields: 431 beyond.
    pub max_header_count: usize,
    /// Whether requests get a name in X-Request-Id.
    pub request_ids: bool,
    /// Whether traces that begin here are sampled; `None`: none begins here.
    pub begin_traces: Option<bool>,
    /// Open client connections over all workers; more are not accepted until one closes.
    pub max_connections: usize,
}

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tls {
    /// At least one. The first is shown to clients that ask for a name that none of them has, or for none.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether HTTP/2 is offered (ALPN).
    pub http2: bool,
    /// Who may issue clients' certificates; `None`: nobody is asked for one.
    pub clients: Option<ClientAuthority>,
}

/// Connections under TLS that are not ended here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// The names they ask for (SNI); at least one.
    pub server_names: Vec<HostPattern>,
    /// Index into [`Proxy::upstreams`].
    pub upstream: usize,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A certificate, its chain and its key, as files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate, and after it those of its issuers.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// What its issuer's OCSP responder said of it, in DER (RFC 6960).
    pub ocsp: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Clients that show certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientAuthority {
    /// The authorities' certificates, as a file in PEM.
    pub ca: PathBuf,
    /// Whether clients without a certificate are refused.
    pub required: bool,
}

/// A named set of servers that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the configuration and in metrics.
    pub name: String,
    /// At least one, unless there is a source of others.
    pub endpoints: Vec<Endpoint>,
    /// Where more of them come from.
    pub discovery: Option<Discovery>,
    /// Who of them gets a request.
    pub balance: Balance,
    /// How long an endpoint that is new gets less than its share.
    pub slow_start: Option<Duration>,
    /// How endpoints are asked whether they are well; `None`: they are not.
    pub health: Option<HealthCheck>,
    /// When endpoints are taken out because requests to them fail; `None`: never.
    pub ejection: Option<Ejection>,
    /// When fewer are well than this share, in percent, all of them get requests.
    pub panic_threshold: u32,
    /// Where the gateway is: endpoints there come first.
    pub zone: Option<String>,
    /// The version of HTTP that they are spoken to in.
    pub protocol: Protocol,
    /// Tell them at the begin of each connection whom it is for. Then no two requests share one.
    pub proxy_protocol: Option<ProxyVersion>,
    /// For the endpoints that speak TLS; `None` if there are none.
    pub tls: Option<UpstreamTls>,
    /// TCP connect, name resolution included.
    pub connect_timeout: Duration,
    /// From the end of the request to the response's head: 504 after that.
    pub response_timeout: Duration,
    /// From the head of the request to the head of the response, over all attempts: 504 after that.
    pub request_timeout: Option<Duration>,
    /// When requests are sent once more; `None`: only over pooled connections that had been closed.
    pub retry: Option<Retry>,
    /// What may be under way, over all workers.
    pub limits: Limits,
    /// When nothing is sent because too much fails; `None`: never.
    pub breaker: Option<Breaker>,
    /// The upstream that gets the requests while this one is out: an index into [`Proxy::upstreams`], no cycle.
    pub fallback: Option<usize>,
    /// Between two reads or writes of a body in flight.
    pub idle_timeout: Duration,
    /// Idle connections kept in each worker, to each endpoint.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
}

/// The version of HTTP that an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: under TLS by ALPN, in the clear by prior knowledge.
    Http2,
    /// HTTP/2 where it is agreed on in the handshake of TLS, else HTTP/1.1.
    Auto,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where it is.
    pub at: Location,
    /// Whether it is spoken to under TLS.
    pub is_secure: bool,
    /// Its share of the requests, held against the others'.
    pub weight: u32,
    /// Lower ones first; higher ones get requests when too few of those are well.
    pub priority: u32,
    /// Where it is.
    pub zone: Option<String>,
    /// What it is called, where it was found by that: its certificate has to be for this name. `None`: its host.
    pub server_name: Option<String>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// On the network.
    Tcp {
        /// An IP address (without brackets) or a DNS name, resolved at connect time.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// On this host, by its socket's path.
    Unix(PathBuf),
}

impl Endpoint {
    /// A server on the network, in the clear.
    pub fn tcp(address: SocketAddr) -> Self {
        let at = Location::Tcp { host: address.ip().to_string(), port: address.port() };
        Self::new(at, false)
    }

    /// A server with one share of the requests.
    pub fn new(at: Location, is_secure: bool) -> Self {
        Self { at, is_secure, weight: 1, priority: 0, zone: None, server_name: None }
    }

    /// Whether this is the same server, whatever its share.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What tells it from other servers.
    pub fn identity(&self) -> (&Location, bool, Option<&str>) {
        (&self.at, self.is_secure, self.server_name.as_deref())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Location::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Location::Tcp { host, port } => write!(f, "{host}:{port}"),
            Location::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Upstream {
    /// These servers, with every default.
    pub fn new(name: &str, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.to_owned(),
            endpoints,
            discovery: None,
            balance: Balance::RoundRobin,
            slow_start: None,
            health: None,
            ejection: None,
            panic_threshold: 50,
            zone: None,
            protocol: Protocol::Http1,
            proxy_protocol: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(60),
            request_timeout: None,
            retry: None,
            limits: Limits::default(),
            breaker: None,
            fallback: None,
            idle_timeout: Duration::from_secs(60),
            max_idle_connections: 64,
            keepalive_timeout: Duration::from_secs(30),
        }
    }

    /// How long one attempt may wait for the response's head.
    pub fn response_timeout(&self) -> Duration {
        let of_try = self.retry.as_ref().and_then(|retry| retry.per_try_timeout);
        of_try.map_or(self.response_timeout, |of_try| of_try.min(self.response_timeout))
    }
}

/// Whom the endpoints of an upstream that speak TLS have to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Authorities, as a file in PEM; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that their certificates have to be for, and that they are asked for; `None`: each endpoint's host.
    pub name: Option<String>,
    /// What the gateway shows them.
    pub identity: Option<CertificateFiles>,
    /// Whether their certificates are verified at all.
    pub verify: bool,
    /// What is offered to be spoken (ALPN).
    pub protocol: Protocol,
}

/// One route: what becomes of the requests that match every part of `matches`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name in the configuration and in metrics.
    pub name: String,
    /// What it matches.
    pub matches: RouteMatch,
    /// What it does.
    pub action: Action,
    /// What upstreams see differently of requests' headers.
    pub request_headers: Option<HeaderChanges>,
    /// What clients see differently of answers' headers.
    pub response_headers: Option<HeaderChanges>,
    /// Who may read its answers from pages of other origins; `None`: what upstreams say goes.
    pub cors: Option<Cors>,
    /// That it is on its way out.
    pub deprecated: Option<Arc<Deprecation>>,
    /// The protocols, in lower case, that a connection may switch to when client and upstream agree.
    pub upgrades: Vec<String>,
}

/// The admin listener and socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `/metrics`, `/healthz`, `/readyz`; `None` switches the TCP listener off.
    pub address: Option<SocketAddr>,
    /// The Unix socket for commands, mode 0600.
    pub socket: PathBuf,
    /// Rules with a series of their own in `/metrics`; the others are summed.
    pub max_rule_labels: usize,
}
