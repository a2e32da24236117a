//! What all workers know of an upstream: whether its endpoints are well. Only atomics, so that nobody waits; whoever
//! changes a verdict says so by a new version, and workers look again at the next request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{model, tls};

use super::breaker::{Breaker, Pass, Position};
use super::ejection::{self, Outcome, Record};
use super::load::Load;

/// An upstream over all workers. It lives as long as its part of the configuration and its endpoints stay the same; what
/// is counted for all of it outlives that.
#[derive(Debug)]
pub(in crate::proxy) struct State {
    /// With the endpoints that were found.
    pub(super) settings: model::Upstream,
    pub(super) tls: Option<Arc<tls::Client>>,
    /// In the order of the endpoints.
    pub(super) vitals: Vec<Arc<Vitals>>,
    /// One for all states of an upstream, like all that follows: requests that began under a former one still report.
    version: Arc<AtomicU64>,
    pub(super) load: Arc<Load>,
    breaker: Arc<Breaker>,
}

/// An endpoint over all workers. It outlives reloads.
#[derive(Debug)]
pub(super) struct Vitals {
    pub(super) endpoint: model::Endpoint,
    /// By its health checks.
    is_down: AtomicBool,
    was_checked: AtomicBool,
    /// Since when it gets requests, by [`millis`].
    since: AtomicU64,
    /// Why the last check failed.
    complaint: Mutex<Option<String>>,
    /// By what came of requests.
    record: Record,
}

/// The breaker lets nothing through.
#[derive(Debug)]
pub(super) struct Open;

/// How an endpoint fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It gets requests.
    Up,
    /// Its health checks fail.
    Unhealthy,
    /// Requests to it fail.
    Ejected,
}

/// Whether an endpoint is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The upstream's name.
    pub upstream: String,
    /// Host and port.
    pub endpoint: String,
    /// Whether it gets requests.
    pub is_healthy: bool,
}

/// The states of all upstreams, with the endpoints that were found. One whose settings have not changed goes on as it is,
/// and of the others what is known of their endpoints is taken over.
pub(in crate::proxy) fn states(
    model: &model::Proxy,
    found: impl Fn(&model::Upstream) -> Vec<model::Endpoint>,
    clients: &tls::InOrder<model::UpstreamTls>,
    former: &[Arc<State>],
) -> Vec<Arc<State>> {
    let former: HashMap<_, _> = former.iter().map(|state| (state.name(), state)).collect();
    let state = |(index, settings): (usize, &model::Upstream)| {
        // Its place in the list may change while the upstream itself does not.
        let mut settings = model::Upstream { fallback: None, ..settings.clone() };
        if settings.discovery.is_some() {
            let found = found(&settings);
            add(&mut settings.endpoints, found);
        }
        let settings = &settings;
        let tls = clients.get(index).cloned().flatten();
        let known = former.get(settings.name.as_str()).copied();
        match known {
            Some(known) if known.settings == *settings && same(known.tls.as_ref(), tls.as_ref()) => {
                Arc::clone(known)
            }
            _ => Arc::new(State::new(settings.clone(), tls, known.map(Arc::as_ref))),
        }
    };
    model.upstreams.iter().enumerate().map(state).collect()
}

/// What the configuration says of an endpoint goes before what was found.
fn add(endpoints: &mut Vec<model::Endpoint>, found: Vec<model::Endpoint>) {
    let said = endpoints.len();
    for endpoint in found {
        if !endpoints[..said].iter().any(|known| known.at == endpoint.at) {
            endpoints.push(endpoint);
        }
    }
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

impl State {
    fn new(settings: model::Upstream, tls: Option<Arc<tls::Client>>, former: Option<&Self>) -> Self {
        let version = former.map_or_else(Default::default, |former| Arc::clone(&former.version));
        let load = former.map_or_else(Default::default, |former| Arc::clone(&former.load));
        let breaker = former.filter(|former| former.settings.breaker == settings.breaker);
        let breaker = breaker.map_or_else(Default::default, |former| Arc::clone(&former.breaker));
        // By other rules there would have been other verdicts, and without any nobody would take them back.
        let former = former.filter(|former| {
            let rules = |settings: &model::Upstream| (settings.health.clone(), settings.ejection.clone());
            rules(&former.settings) == rules(&settings)
        });
        let starts_up = settings.health.as_ref().is_none_or(|health| health.starts_up);
        let known: HashMap<_, _> = former
            .into_iter()
            .flat_map(|former| &former.vitals)
            .map(|vitals| (vitals.endpoint.identity(), vitals))
            .collect();
        let vitals = |endpoint: &model::Endpoint| {
            let known = known.get(&endpoint.identity());
            known.map_or_else(|| Arc::new(Vitals::new(endpoint, starts_up)), |known| Arc::clone(known))
        };
        let vitals = settings.endpoints.iter().map(vitals).collect();
        Self { settings, tls, vitals, version, load, breaker }
    }

    /// What is another number than before when a verdict has changed.
    pub(super) fn versions(&self) -> &Arc<AtomicU64> {
        &self.version
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether an endpoint gets requests, as long as there are enough of those that do.
    pub(super) fn gets_requests(&self, index: usize) -> bool {
        self.vitals.get(index).is_some_and(|vitals| vitals.condition() == Condition::Up)
    }

    /// The endpoint's health checks have come to a verdict. Whether that is news.
    pub(super) fn judge(&self, vitals: &Vitals, is_up: bool) -> bool {
        if vitals.is_down.swap(!is_up, Ordering::Relaxed) != is_up {
            return false;
        }
        if is_up {
            vitals.since.store(millis(Instant::now()), Ordering::Relaxed);
        }
        self.changed();
        true
    }

    /// Leave to send a request, where there is a breaker; an error if that is open.
    pub(super) fn enter(&self, now: Instant) -> Result<Option<Pass<'_>>, Open> {
        let Some(settings) = &self.settings.breaker else { return Ok(None) };
        self.breaker.enter(settings, millis(now)).map(Some).ok_or(Open)
    }

    /// How the breaker stands, if there is one.
    pub(in crate::proxy) fn position(&self, now: Instant) -> Option<Position> {
        let settings = self.settings.breaker.as_ref()?;
        Some(self.breaker.position(settings, millis(now)))
    }

    /// A request was sent to an endpoint. For how long that has it taken out.
    pub(super) fn report(&self, index: usize, outcome: Outcome, now: Instant) -> Option<Duration> {
        let (limits, vitals) = (self.settings.ejection.as_ref()?, self.vitals.get(index)?);
        if !vitals.record.count(outcome, limits) {
            return None;
        }
        let ejected = self.vitals.iter().filter(|vitals| vitals.record.is_ejected()).count();
        if !ejection::has_room(ejected, self.vitals.len(), limits) {
            return None;
        }
        let time = vitals.record.eject(millis(now), limits)?;
        self.changed();
        tracing::warn!(upstream = self.name(), endpoint = %vitals.endpoint, ?time, "ejected: requests to it fail");
        Some(time)
    }

    /// An interval of ejection is over: lets those back whose time is over, too.
    pub(super) fn look(&self, now: Instant) {
        for vitals in self.vitals.iter().filter(|vitals| vitals.record.look(millis(now))) {
            vitals.since.store(millis(now), Ordering::Relaxed);
            self.changed();
            tracing::info!(upstream = self.name(), endpoint = %vitals.endpoint, "no longer ejected");
        }
    }

    pub(in crate::proxy) fn name(&self) -> &str {
        &self.settings.name
    }

    /// How each endpoint fares, and why it is not well.
    pub(in crate::proxy) fn conditions(&self) -> impl Iterator<Item = (Condition, Option<String>)> {
        let now = millis(Instant::now());
        self.vitals.iter().map(move |vitals| {
            let condition = vitals.condition();
            let why = match condition {
                Condition::Ejected => Some(format!("for {:?} more", vitals.record.left(now))),
                Condition::Up | Condition::Unhealthy => vitals.complaint(),
            };
            (condition, why)
        })
    }

    /// Whether somebody looks how endpoints fare.
    pub(in crate::proxy) fn is_watched(&self) -> bool {
        self.settings.health.is_some() || self.settings.ejection.is_some()
    }

    /// Each endpoint as it stands in metrics, and whether it is well.
    pub(in crate::proxy) fn health(&self) -> impl Iterator<Item = EndpointHealth> {
        self.vitals.iter().map(|vitals| EndpointHealth {
            upstream: self.name().to_owned(),
            endpoint: vitals.endpoint.to_string(),
            is_healthy: vitals.condition() == Condition::Up,
        })
    }
}

impl Vitals {
    fn new(endpoint: &model::Endpoint, starts_up: bool) -> Self {
        Self {
            endpoint: endpoint.clone(),
            is_down: AtomicBool::new(!starts_up),
            was_checked: AtomicBool::new(false),
            since: AtomicU64::new(millis(Instant::now())),
            complaint: Mutex::new(None),
            record: Record::default(),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        match (self.is_down.load(Ordering::Relaxed), self.record.is_ejected()) {
            (true, _) => Condition::Unhealthy,
            (false, true) => Condition::Ejected,
            (false, false) => Condition::Up,
        }
    }

    /// Whether this is its first check.
    pub(super) fn is_first_check(&self) -> bool {
        !self.was_checked.swap(true, Ordering::Relaxed)
    }

    /// For how long it has got requests.
    pub(super) fn age(&self, now: Instant) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.since.load(Ordering::Relaxed)))
    }

    pub(super) fn complain(&self, complaint: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Milliseconds by the monotonic clock: an instant that fits into an atomic.
pub(super) fn millis(now: Instant) -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    now.saturating_duration_since(*BEGAN).as_millis() as u64
}
