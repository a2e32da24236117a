//! Sends a request to an upstream: picks an endpoint, takes a pooled connection or opens one, tries again
//! where that is safe.

mod affinity;
mod attempt;
mod balance;
mod breaker;
mod check;
mod early;
mod ejection;
mod fleet;
mod hedge;
mod io;
mod latency;
mod link;
mod load;
mod pool;
mod replay;
mod retry;
mod ring;
mod shared;
mod state;
mod steward;
mod view;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;

use crate::model::{self, Balance, HashKey};
use crate::observe::http::{Turned, UpstreamMeter};

use super::body::RequestBody;
use super::problem::Kind;
use super::record::Trail;
use super::stream::Stream;
use super::watch::Watch;
use super::{forwarded, proxy_protocol};

use affinity::Sticky;
use attempt::{Aim, Answer};
use breaker::Pass;
pub use breaker::Position;
use ejection::Outcome;
use fleet::Fleet;
pub(super) use link::Lease;
use link::{ConnectError, Failed, Unsent};
use load::{Permit, TooMany};
pub(super) use pool::Endpoint;
use retry::{Head, Reason};
use state::Open;
pub use state::{Condition, EndpointHealth};
pub(super) use state::{State, states};
pub(super) use steward::Steward;

/// One upstream as one worker sees it.
pub(super) struct Upstream {
    state: Arc<State>,
    fleet: Fleet,
    sticky: Option<Sticky>,
    meter: UpstreamMeter,
    /// Copies of requests that are under way; reloads do not begin to count anew.
    copies: Rc<Cell<usize>>,
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
    /// Where it is written down which endpoints it is tried at, if anybody wants to know.
    pub(super) trail: Option<&'a Trail>,
}

impl Delivery<'_> {
    fn tries(&self, endpoint: &Rc<Endpoint>) {
        if let Some(trail) = self.trail {
            trail.tries(endpoint);
        }
    }
}

/// The request is sent once more.
struct Again {
    reason: Reason,
    wait: Duration,
    /// The endpoint that failed.
    failed: Option<usize>,
}

/// The time for all of a request is over.
fn overdue(watch: &Watch) -> Kind {
    if watch.limit().is_some_and(|limit| limit <= Instant::now()) {
        return Kind::DeadlineExceeded;
    }
    let kind = if watch.awaits_client() { Kind::BodyTimeout } else { Kind::UpstreamTimeout };
    watch.busy(Instant::now());
    kind
}

impl Upstream {
    /// Takes over the connections that `former` holds to the same endpoints, if it trusted whom this one trusts and
    /// spoke what this one speaks.
    pub(super) fn new(state: Arc<State>, former: Option<&Self>, meter: UpstreamMeter) -> Self {
        let settings = &state.settings;
        let copies = former.map(|former| Rc::clone(&former.copies)).unwrap_or_default();
        let former = former.filter(|former| {
            let former = former.settings();
            former.tls == settings.tls && former.protocol == settings.protocol
        });
        let known: HashMap<_, _> = former
            .into_iter()
            .flat_map(|former| former.endpoints())
            .map(|endpoint| (endpoint.settings().identity(), endpoint))
            .collect();
        let endpoint = |endpoint: &model::Endpoint| {
            let known = known.get(&endpoint.identity());
            known.map_or_else(|| Rc::new(Endpoint::new(endpoint)), |known| Rc::clone(known))
        };
        let endpoints = settings.endpoints.iter().map(endpoint).collect();
        let (sticky, fleet) = (Sticky::new(settings), Fleet::new(endpoints, Arc::clone(&state)));
        Self { state, fleet, sticky, meter, copies }
    }

    pub(super) fn settings(&self) -> &model::Upstream {
        &self.state.settings
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Closes what is idle to endpoints that `next` does not have.
    pub(super) fn retire(&self, next: Option<&Self>) {
        let kept: HashSet<_> = next.into_iter().flat_map(|next| next.endpoints()).map(Rc::as_ptr).collect();
        let gone = self.endpoints().iter().filter(|endpoint| !kept.contains(&Rc::as_ptr(endpoint)));
        gone.for_each(|endpoint| endpoint.retire());
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

    /// How many copies of requests are under way.
    pub(super) fn copies(&self) -> &Cell<usize> {
        &self.copies
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
        let first = self.fleet.pick(None, key, now, &[]).ok_or(Kind::UpstreamUnhealthy)?;
        let announce =
            self.settings().proxy_protocol.map(|version| proxy_protocol::write(version, ends.0, ends.1));
        self.first(Aim { first, tried: &[] }, now, async |index, endpoint, timeout| {
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
    ) -> Result<Answer, Kind> {
        let (watch, began) = (delivery.watch, delivery.now);
        let pass = self.state.enter(began).map_err(|Open| self.turn_away(Turned::Breaker))?;
        let permit = Permit::new(&self.state).map_err(|TooMany| self.turn_away(Turned::MaxRequests))?;
        // Pinned where it is made: it is some kilobytes, and to await it by value would move them.
        let sending = pin!(self.send_and_retry(request, delivery, permit));
        let limits = [self.settings().request_timeout.map(|limit| began + limit), watch.limit()];
        let result = match limits.into_iter().flatten().min() {
            None => sending.await,
            Some(limit) => {
                let sent = tokio::time::timeout_at(limit.into(), sending).await;
                sent.unwrap_or_else(|_| Err(overdue(watch)))
            }
        };
        if let Some(pass) = pass {
            self.tell(pass, began, &result);
        }
        self.meter.count_response(result.as_ref().ok().map(|(response, _)| response.status()));
        result
    }

    /// The request is not sent.
    fn turn_away(&self, why: Turned) -> Kind {
        self.meter.count_turned(why);
        match why {
            Turned::Breaker => Kind::UpstreamBreaker,
            Turned::MaxRequests => Kind::UpstreamOverloaded,
        }
    }

    /// Tells the breaker what came of a request. What the client did says nothing.
    fn tell(&self, pass: Pass<'_>, began: Instant, result: &Result<Answer, Kind>) {
        let now = Instant::now();
        let slow = self.settings().breaker.as_ref().and_then(|breaker| breaker.slow);
        let is_slow = slow.is_some_and(|slow| now.saturating_duration_since(began) > slow);
        let is_failure = match result {
            Err(Kind::BadRequest | Kind::BodyTimeout | Kind::DeadlineExceeded) => return,
            Err(_) => true,
            Ok((response, _)) => response.status().is_server_error() || is_slow,
        };
        if pass.tell(is_failure, state::millis(now)) {
            tracing::warn!(upstream = self.settings().name, "the breaker has opened: too many requests fail");
        }
    }

    /// Whether requests had better go elsewhere.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.state.position(now) == Some(Position::Open) || self.fleet.is_empty()
    }

    async fn send_and_retry(
        &self,
        request: Request<RequestBody>,
        mut delivery: Delivery<'_>,
        mut permit: Option<Permit>,
    ) -> Result<Answer, Kind> {
        let named = self.sticky.as_ref().and_then(|sticky| sticky.named(request.headers()));
        let key =
            affinity::key(&self.settings().balance, request.uri().path(), request.headers(), delivery.client);
        let is_secure = self.sticky.is_some() && forwarded::is_secure(request.headers());
        let head = self.settings().retry.as_ref().and_then(|_| Head::of(&request));
        let mut unsent = Some(request);
        let mut tried = Vec::new();
        for turn in 0.. {
            let first = self.fleet.pick(named, key, delivery.now, &tried).ok_or(Kind::UpstreamUnhealthy)?;
            let aim = Aim { first, tried: &tried };
            let result = match head.as_ref().filter(|_| turn == 0).and_then(|head| self.hedge(head, key)) {
                None => self.attempt(aim, &mut unsent, &delivery).await,
                // Apart, so that it makes no other request longer.
                Some(hedge) => {
                    Box::pin(self.hedged(hedge, aim, &mut unsent, &delivery, permit.as_mut())).await
                }
            };
            let Some(again) = self.again(turn, &result, head.as_ref(), permit.as_mut(), &mut unsent) else {
                let (mut response, mut lease) = result.map_err(|failed| failed.kind())?;
                if let Some(sticky) = self.sticky.as_ref().filter(|_| named != Some(lease.index())) {
                    sticky.set(response.headers_mut(), lease.index(), is_secure);
                }
                lease.hold(permit);
                return Ok((response, lease));
            };
            // The connection of an answer that is not taken goes first: nobody reads the rest.
            drop(result);
            tokio::time::sleep(again.wait).await;
            self.meter.count_retry(again.reason);
            tried.extend(again.failed);
            delivery.now = Instant::now();
        }
        Err(Kind::UpstreamConnect)
    }

    /// Whether the request is sent once more, and how. If so, it is there again.
    fn again(
        &self,
        turn: u32,
        result: &Result<Answer, Failed>,
        head: Option<&Head>,
        permit: Option<&mut Permit>,
        unsent: &mut Unsent,
    ) -> Option<Again> {
        let retry = self.settings().retry.as_ref().filter(|retry| turn < retry.attempts)?;
        let (reason, failed, headers) = match result {
            Ok((response, lease)) if retry::wants_status(response.status(), &retry.on) => {
                (Reason::Status, Some(lease.index()), Some(response.headers()))
            }
            Ok(_) => return None,
            Err(failed) => (failed.reason()?, failed.index(), None),
        };
        let wait = retry::wait(turn, headers, retry, self.fleet.random())?;
        *unsent = unsent.take().or_else(|| head.map(Head::request));
        let may = unsent.is_some() && retry::wants(reason, &retry.on) && permit?.retry(retry);
        may.then_some(Again { reason, wait, failed })
    }

    /// What came of sending something to an endpoint counts for or against it.
    fn note(&self, index: usize, outcome: impl FnOnce() -> Outcome) {
        if self.settings().ejection.is_some() && self.state.report(index, outcome(), Instant::now()).is_some()
        {
            self.meter.count_ejection();
        }
    }
}
