//! One attempt to have a request answered: over a pooled connection to the endpoint that was picked, or a new one to the
//! first that takes one.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body as _;

use crate::model::{self, Balance};

use super::super::body::RequestBody;
use super::super::grpc;
use super::super::incoming::Incoming;
use super::super::problem::Kind;
use super::super::proxy_protocol;
use super::super::watch::Phase;
use super::ejection::Outcome;
use super::link::{ConnectError, Failed, Lease, Unsent};
use super::load::{Pending, TooMany};
use super::pool::Endpoint;
use super::retry::{Reason, is_idempotent};
use super::shared::Shared;
use super::slots::{self, Slot};
use super::{Delivery, Turned, Upstream};

/// An endpoint that could not be connected to is asked last for this long.
const COOLDOWN: Duration = Duration::from_secs(1);

/// A response, and the connection that its body comes from.
pub(super) type Answer = (Response<Incoming>, Lease);

/// How a request gets to a connection.
pub(super) enum Way<T> {
    /// One that got free.
    Pooled(Lease),
    /// A new one.
    New(T),
}

/// The endpoint that is asked first, and those that are only asked when nobody else is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim<'a> {
    pub(super) first: usize,
    pub(super) tried: &'a [usize],
}

impl Upstream {
    pub(super) async fn attempt(
        &self,
        aim: Aim<'_>,
        unsent: &mut Unsent,
        delivery: &Delivery<'_>,
    ) -> Result<Answer, Failed> {
        let care = unsent.as_ref().map(Care::of).unwrap_or_default();
        let mut pooled = self.take_pooled(aim.first, delivery.now, None);
        if let Some(lease) = &pooled {
            delivery.tries(lease.endpoint());
        }
        let mut refused_by = None;
        for is_last in [false, true] {
            let way = match pooled.take() {
                Some(lease) => Way::Pooled(lease),
                None => {
                    let connected = self.connect(aim, refused_by.as_ref(), delivery).await;
                    connected.map_err(Failed::to_connect)?
                }
            };
            let (lease, care) = match way {
                Way::New(lease) => (lease, Care::default()),
                Way::Pooled(mut lease) => {
                    lease.prepare(care);
                    (lease, care)
                }
            };
            let failed = match self.exchange(lease, unsent, delivery, care, is_last).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            // Another connection is tried, once, where the pooled one had been closed, and the request was not written or
            // may be written twice; and where the upstream has not looked at the request. Neither takes of the budget of
            // retries: that is there for an upstream which has too much to do, and this one has done nothing.
            refused_by = failed.refused_by().cloned();
            if is_last || unsent.is_none() || (refused_by.is_none() && !care.is_for_pooled()) {
                return Err(failed);
            }
            self.meter.count_retry(if refused_by.is_some() { Reason::Refused } else { Reason::Stale });
        }
        Err(Failed::to_connect(Kind::UpstreamConnect))
    }

    /// One attempt over one connection.
    async fn exchange(
        &self,
        mut lease: Lease,
        unsent: &mut Unsent,
        delivery: &Delivery<'_>,
        care: Care,
        is_last: bool,
    ) -> Result<Answer, Failed> {
        let watch = delivery.watch;
        if let (Some(limit), Some(request)) = (watch.limit(), unsent.as_mut()) {
            grpc::write_timeout(request.headers_mut(), limit.saturating_duration_since(Instant::now()));
        }
        if unsent.as_ref().is_none_or(|request| request.body().is_end_stream()) {
            watch.awaits_response(delivery.now + self.settings().response_timeout());
        } else {
            watch.moves(
                Phase::Upload(self.settings().idle_timeout),
                delivery.now,
                self.settings().idle_timeout,
            );
        }
        // Only who balances by latency asks for the time.
        let began = (self.settings().balance == Balance::PeakEwma).then(Instant::now);
        let result = lease.exchange(unsent, watch).await;
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
                let failed = Failed::new(lost, &lease, care, unsent);
                // That a pooled connection was closed, or takes no more requests, says nothing of the endpoint.
                let is_spent = care.is_for_pooled() || (failed.refused_by().is_some() && !is_last);
                if failed.is_endpoints() && !(is_spent && unsent.is_some()) {
                    self.note(lease.index(), || Outcome::GatewayError);
                }
                Err(failed)
            }
        }
    }

    /// A pooled connection to the endpoint whose turn it is, but not `shunned`.
    fn take_pooled(&self, start: usize, now: Instant, shunned: Option<&Weak<Shared>>) -> Option<Lease> {
        if self.settings().proxy_protocol.is_some() {
            // It is some other client's.
            return None;
        }
        let endpoint = self.endpoints().get(start)?;
        let link = endpoint.take(now, self.settings().keepalive_timeout, shunned)?;
        Some(Lease::new(link, Rc::clone(endpoint), start, self.settings().max_idle_connections))
    }

    /// Counts a request that has no connection yet, or refuses it.
    pub(super) fn pend(&self) -> Result<Option<Pending<'_>>, Kind> {
        Pending::new(&self.state).map_err(|TooMany| self.turn_away(Turned::MaxPending))
    }

    /// A place for a new connection, or a connection that got free before there was one.
    pub(super) async fn way(
        &self,
        limit: usize,
        pooled: impl Fn() -> Option<Lease>,
    ) -> Result<Way<Slot>, Kind> {
        let load = &self.state.load;
        let place = || {
            let take = || Slot::take(limit, load, &self.waiting);
            // What is idle to another endpoint makes room.
            let make_room = || self.endpoints().iter().any(|endpoint| endpoint.give_up_idle());
            take().or_else(|| make_room().then(take).flatten())
        };
        if let Some(slot) = place() {
            return Ok(Way::New(slot));
        }
        let look = || pooled().map(Way::Pooled).or_else(|| place().map(Way::New));
        let waited = slots::wait(load, &self.waiting, self.settings().connect_timeout, look).await;
        waited.ok_or_else(|| self.turn_away(Turned::MaxConnections))
    }

    /// Opens a connection to the first endpoint that takes one. Where their number is bounded, that may take until there
    /// is room.
    async fn connect(
        &self,
        aim: Aim<'_>,
        shunned: Option<&Weak<Shared>>,
        delivery: &Delivery<'_>,
    ) -> Result<Way<Lease>, Kind> {
        let _pending = self.pend()?;
        let mut slot = None;
        if let Some(limit) = self.settings().limits.max_connections {
            // Boxed, as most upstreams have no such bound, and every request would be larger by it.
            let pooled = || self.take_pooled(aim.first, Instant::now(), shunned);
            match Box::pin(self.way(limit, pooled)).await? {
                Way::Pooled(lease) => {
                    delivery.tries(lease.endpoint());
                    return Ok(Way::Pooled(lease));
                }
                Way::New(place) => slot = Some(place),
            }
        }
        let slot = Cell::new(slot);
        let model::Upstream { protocol, proxy_protocol, max_idle_connections, .. } = *self.settings();
        let announce =
            proxy_protocol.map(|version| proxy_protocol::write(version, delivery.ends.0, delivery.ends.1));
        let max_idle = if announce.is_some() { 0 } else { max_idle_connections };
        self.first(aim, delivery.now, async |index, endpoint, timeout| {
            delivery.tries(endpoint);
            let tls = self.state.tls.as_deref();
            let mut opened = endpoint.open(tls, protocol, announce.as_deref(), timeout, shunned).await?;
            opened.occupy(slot.take());
            Ok(Way::New(Lease::new(opened, Rc::clone(endpoint), index, max_idle)))
        })
        .await
    }

    /// Tries one endpoint after the other, all of them within `connect_timeout`. Each may use up half of what is left,
    /// the last one all of it: one that does not answer leaves time for the others.
    pub(super) async fn first<T>(
        &self,
        aim: Aim<'_>,
        now: Instant,
        open: impl AsyncFn(usize, &Rc<Endpoint>, Duration) -> Result<T, ConnectError>,
    ) -> Result<T, Kind> {
        let deadline = Instant::now() + self.settings().connect_timeout;
        let mut kind = Kind::UpstreamConnect;
        let mut order = self.fleet.order(aim.first, now, aim.tried).peekable();
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
pub(super) struct Care {
    /// Its head is kept as it is written, and written again if no byte of an answer came.
    pub(super) record: bool,
    /// The socket is asked first: a request that may not be sent twice had better not be sent in vain.
    pub(super) probe: bool,
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
