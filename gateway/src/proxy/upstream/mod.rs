//! Sends a request to an upstream: picks an endpoint, takes a pooled connection or opens one, tries again
//! where that is safe.

mod affinity;
mod balance;
mod check;
mod ejection;
mod fleet;
mod io;
mod latency;
mod link;
mod pool;
mod random;
mod replay;
mod ring;
mod shared;
mod state;
mod steward;
mod view;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::model::{self, Balance, HashKey};
use crate::observe::http::UpstreamMeter;

use super::body::RequestBody;
use super::problem::Kind;
use super::stream::Stream;
use super::watch::{Phase, Watch};
use super::{forwarded, proxy_protocol};

use affinity::Sticky;
use ejection::Outcome;
use fleet::Fleet;
pub(super) use link::Lease;
use link::{ConnectError, Failed};
pub(super) use pool::Endpoint;
pub use state::{Condition, EndpointHealth};
pub(super) use state::{State, states};
pub(super) use steward::Steward;

/// An endpoint that could not be connected to is asked last for this long.
const COOLDOWN: Duration = Duration::from_secs(1);

/// One upstream as one worker sees it.
pub(super) struct Upstream {
    state: Arc<State>,
    fleet: Fleet,
    sticky: Option<Sticky>,
    meter: UpstreamMeter,
}

/// What a request is sent with.
pub(super) struct Delivery<'a> {
    pub(super) watch: &'a Watch,
    /// When the request came.
    pub(super) now: Instant,
    /// The addresses of both ends of the client's connection, the client's first.
    pub(super) ends: (SocketAddr, SocketAddr),
    /// On whose behalf the request comes, if [`Upstream::wants_client`].
    pub(super) client: Option<IpAddr>,
}

impl Upstream {
    /// Takes over the connections that `former` holds to the same endpoints, if it trusted whom this one trusts and
    /// spoke what this one speaks.
    pub(super) fn new(state: Arc<State>, former: Option<&Self>, meter: UpstreamMeter) -> Self {
        let settings = &state.settings;
        let former = former.filter(|former| {
            let former = former.settings();
            former.tls == settings.tls && former.protocol == settings.protocol
        });
        let endpoints = settings
            .endpoints
            .iter()
            .map(|endpoint| {
                let known = former.into_iter().flat_map(|f| f.endpoints()).find(|e| e.is(endpoint));
                known.map_or_else(|| Rc::new(Endpoint::new(endpoint)), Rc::clone)
            })
            .collect();
        let (sticky, fleet) = (Sticky::new(settings), Fleet::new(endpoints, Arc::clone(&state)));
        Self { state, fleet, sticky, meter }
    }

    pub(super) fn settings(&self) -> &model::Upstream {
        &self.state.settings
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Whether calls of gRPC can be sent there: they take HTTP/2.
    pub(super) fn speaks_grpc(&self) -> bool {
        self.settings().protocol != model::Protocol::Http1
    }

    /// Whether it matters on whose behalf a request comes.
    pub(super) fn wants_client(&self) -> bool {
        self.settings().balance == Balance::Hash(HashKey::Source)
    }

    pub(super) fn endpoints(&self) -> &[Rc<Endpoint>] {
        self.fleet.endpoints()
    }

    pub(super) fn meter(&self) -> &UpstreamMeter {
        &self.meter
    }

    /// Closes connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for endpoint in self.endpoints() {
            endpoint.sweep(now, self.settings().keepalive_timeout);
        }
    }

    /// Opens a connection that is the client's alone, in the clear, whatever is spoken on it. The lease counts it.
    pub(super) async fn connect_through(
        &self,
        ends: (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Result<(Stream, Lease), Kind> {
        let key = self.wants_client().then(|| ring::hash(&ends.0.ip().to_canonical()));
        let start = self.fleet.pick(None, key, now, &[]).ok_or(Kind::UpstreamUnhealthy)?;
        let announce =
            self.settings().proxy_protocol.map(|version| proxy_protocol::write(version, ends.0, ends.1));
        self.first(start, now, async |index, endpoint, timeout| {
            let connecting = tokio::time::timeout(timeout, endpoint.connect(announce.as_deref()));
            let stream = connecting.await.map_err(|_| ConnectError::TimedOut(timeout))??;
            Ok((stream, Lease::of_nothing(Rc::clone(endpoint), index)))
        })
        .await
    }

    /// Sends the request and waits for the response's head. Its body is to be read through the lease.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        delivery: Delivery<'_>,
    ) -> Result<(Response<Incoming>, Lease), Kind> {
        let result = self.send_and_retry(request, &delivery).await;
        self.meter.count_response(result.as_ref().ok().map(|(response, _)| response.status()));
        result
    }

    async fn send_and_retry(
        &self,
        request: Request<RequestBody>,
        delivery: &Delivery<'_>,
    ) -> Result<(Response<Incoming>, Lease), Kind> {
        let named = self.sticky.as_ref().and_then(|sticky| sticky.named(request.headers()));
        let key =
            affinity::key(&self.settings().balance, request.uri().path(), request.headers(), delivery.client);
        let is_secure = self.sticky.is_some() && forwarded::is_secure(request.headers());
        let start = self.fleet.pick(named, key, delivery.now, &[]).ok_or(Kind::UpstreamUnhealthy)?;
        let (mut response, lease) = self.send_from(start, request, delivery).await?;
        if let Some(sticky) = &self.sticky {
            let index = lease.index();
            if Some(index) != named {
                sticky.set(response.headers_mut(), index, is_secure);
            }
        }
        Ok((response, lease))
    }

    /// Sends it to this endpoint, or to the next one that takes a connection.
    async fn send_from(
        &self,
        start: usize,
        request: Request<RequestBody>,
        delivery: &Delivery<'_>,
    ) -> Result<(Response<Incoming>, Lease), Kind> {
        let care = Care::of(&request);
        let Some(mut lease) = self.take_pooled(start, delivery.now) else {
            let lease = self.connect(start, delivery).await?;
            return self
                .exchange(lease, request, delivery, Care::default())
                .await
                .map_err(|lost| lost.kind());
        };
        lease.prepare(care);
        let lost = match self.exchange(lease, request, delivery, care).await {
            Ok(answer) => return Ok(answer),
            Err(lost) => lost,
        };
        // The pooled connection had been closed. A fresh one is tried, once, if the request was not
        // written, or may be written twice.
        let kind = lost.kind();
        let Some(request) = lost.into_request() else { return Err(kind) };
        self.meter.count_retry();
        let lease = self.connect(start, delivery).await?;
        self.exchange(lease, request, delivery, Care::default()).await.map_err(|lost| lost.kind())
    }

    /// One attempt over one connection.
    async fn exchange(
        &self,
        mut lease: Lease,
        request: Request<RequestBody>,
        delivery: &Delivery<'_>,
        care: Care,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let watch = delivery.watch;
        if request.body().is_end_stream() {
            watch.awaits_response(delivery.now + self.settings().response_timeout);
        } else {
            watch.moves(
                Phase::Upload(self.settings().idle_timeout),
                delivery.now,
                self.settings().idle_timeout,
            );
        }
        // Only who balances by latency asks for the time.
        let began = (self.settings().balance == Balance::PeakEwma).then(Instant::now);
        let result = lease.exchange(request, watch).await;
        if let Some(began) = began {
            let now = Instant::now();
            lease.endpoint().latency.observe(now.saturating_duration_since(began), now);
        }
        match result {
            Ok(response) => {
                self.note(lease.index(), || Outcome::of(response.status()));
                Ok((response, lease))
            }
            Err(lost) => {
                watch.busy(delivery.now);
                let failed = Failed::new(lost, &lease, care);
                // That a pooled connection was closed says nothing of the endpoint.
                let is_stale = care.is_for_pooled() && failed.is_repeatable();
                if failed.is_endpoints() && !is_stale {
                    self.note(lease.index(), || Outcome::GatewayError);
                }
                Err(failed)
            }
        }
    }

    /// What came of sending something to an endpoint counts for or against it.
    fn note(&self, index: usize, outcome: impl FnOnce() -> Outcome) {
        if self.settings().ejection.is_some() && self.state.report(index, outcome(), Instant::now()).is_some()
        {
            self.meter.count_ejection();
        }
    }

    /// A pooled connection to the endpoint whose turn it is.
    fn take_pooled(&self, start: usize, now: Instant) -> Option<Lease> {
        if self.settings().proxy_protocol.is_some() {
            // It is some other client's.
            return None;
        }
        let endpoint = self.endpoints().get(start)?;
        let link = endpoint.take(now, self.settings().keepalive_timeout)?;
        Some(Lease::new(link, Rc::clone(endpoint), start, self.settings().max_idle_connections))
    }

    /// Opens a connection to the first endpoint that takes one.
    async fn connect(&self, start: usize, delivery: &Delivery<'_>) -> Result<Lease, Kind> {
        let model::Upstream { protocol, proxy_protocol, max_idle_connections, .. } = *self.settings();
        let announce =
            proxy_protocol.map(|version| proxy_protocol::write(version, delivery.ends.0, delivery.ends.1));
        let max_idle = if announce.is_some() { 0 } else { max_idle_connections };
        self.first(start, delivery.now, async |index, endpoint, timeout| {
            let opened =
                endpoint.open(self.state.tls.as_deref(), protocol, announce.as_deref(), timeout).await?;
            Ok(Lease::new(opened, Rc::clone(endpoint), index, max_idle))
        })
        .await
    }

    /// Tries one endpoint after the other, all of them within `connect_timeout`. Each may use up half of what is left,
    /// the last one all of it: one that does not answer leaves time for the others.
    async fn first<T>(
        &self,
        start: usize,
        now: Instant,
        open: impl AsyncFn(usize, &Rc<Endpoint>, Duration) -> Result<T, ConnectError>,
    ) -> Result<T, Kind> {
        let deadline = Instant::now() + self.settings().connect_timeout;
        let mut kind = Kind::UpstreamConnect;
        let mut order = self.fleet.order(start, now, &[]).peekable();
        while let Some(index) = order.next() {
            let Some(endpoint) = self.endpoints().get(index) else { continue };
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if order.peek().is_some() { left / 2 } else { left };
            match open(index, endpoint, share).await {
                Ok(opened) => {
                    endpoint.connected();
                    self.meter.count_connect(true);
                    return Ok(opened);
                }
                Err(error) => {
                    tracing::debug!(upstream = self.settings().name, %endpoint, %error, "cannot connect");
                    endpoint.failed(Instant::now() + COOLDOWN, &error);
                    self.meter.count_connect(false);
                    self.note(index, || Outcome::GatewayError);
                    kind = error.kind();
                }
            }
        }
        Err(kind)
    }
}

/// How a request is protected against a pooled connection that the upstream has closed meanwhile.
#[derive(Debug, Clone, Copy, Default)]
struct Care {
    /// Its head is kept as it is written, and written again if no byte of an answer came.
    record: bool,
    /// The socket is asked first: a request that may not be sent twice had better not be sent in vain.
    probe: bool,
}

impl Care {
    fn of(request: &Request<RequestBody>) -> Self {
        let repeatable = is_idempotent(request.method()) && request.body().is_end_stream();
        Self { record: repeatable, probe: !repeatable }
    }

    fn is_for_pooled(self) -> bool {
        self.record || self.probe
    }
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
