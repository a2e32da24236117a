//! The model, compiled: shared by all workers, and what each of them adds of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::model;
use crate::observe::access_log::AccessLog;
use crate::observe::http::{HttpMeter, ListenerMeter, Names, UpstreamMeter};
use crate::observe::llm::LlmMeter;
use crate::tls;

use super::gather::Budget;
use super::listen::Address;
use super::random::Random;
use super::route::Router;
use super::upstream::{State, Upstream};

/// What every worker reads.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) router: Router,
    pub(super) model: model::Proxy,
    secrets: Secrets,
    access_log: Option<Arc<AccessLog>>,
    names: Arc<Names>,
    /// In the order of the listeners.
    alternatives: Vec<Option<HeaderValue>>,
}

/// How long clients may remember that HTTP/3 is spoken (RFC 7838): a day, as unless they are told.
const ALTERNATIVE_SECONDS: u32 = 24 * 60 * 60;

/// What TLS is spoken with.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) listeners: tls::InOrder<model::Tls>,
    pub(super) upstreams: tls::InOrder<model::UpstreamTls>,
}

impl Snapshot {
    pub(super) fn new(
        model: &model::Proxy,
        secrets: Secrets,
        access_log: Option<Arc<AccessLog>>,
        addresses: &[(String, Address)],
    ) -> Self {
        let alternative = |listener: &model::Listener| {
            let (_, address) = addresses.iter().find(|(name, _)| *name == listener.name)?;
            let port = address.actual.port();
            HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALTERNATIVE_SECONDS}"))
                .ok()
                .filter(|_| listener.http3)
        };
        Self {
            router: Router::new(&model.routes),
            model: model.clone(),
            secrets,
            access_log,
            names: Arc::new(Names {
                listeners: model.listeners.iter().map(|listener| listener.name.clone()).collect(),
                routes: model.routes.iter().map(|route| route.name.clone()).collect(),
            }),
            alternatives: model.listeners.iter().map(alternative).collect(),
        }
    }

    pub(super) fn upstream_tls(&self) -> &tls::InOrder<model::UpstreamTls> {
        &self.secrets.upstreams
    }

    /// What a worker has before it is told anything.
    pub(super) fn empty() -> Self {
        let nothing = model::Proxy {
            workers: 1,
            drain_timeout: Duration::ZERO,
            access_log: None,
            listeners: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
            llm: Arc::default(),
        };
        Self::new(&nothing, Secrets::default(), None, &[])
    }
}

/// A snapshot in one worker, with the worker's own connections and counts. A request keeps the one it began
/// with; a reload puts the next one in its place.
pub(super) struct Local {
    snapshot: Arc<Snapshot>,
    upstreams: Vec<Rc<Upstream>>,
    meter: Rc<HttpMeter>,
    random: Random,
    held_bodies: Budget,
    held_prompts: Budget,
    /// In the order of the listeners.
    listener_meters: Rc<Vec<ListenerMeter>>,
    llm_meter: Rc<LlmMeter>,
}

impl Local {
    /// Takes over the upstream connections that are still wanted. The states stand in the order of the upstreams.
    pub(super) fn new(snapshot: Arc<Snapshot>, states: &[Arc<State>], former: Option<&Self>) -> Self {
        let known: HashMap<_, _> = former
            .into_iter()
            .flat_map(|former| &former.upstreams)
            .map(|upstream| (upstream.state().name(), upstream))
            .collect();
        let upstream = |state: &Arc<State>| match known.get(state.name()) {
            Some(known) if Arc::ptr_eq(known.state(), state) => Rc::clone(known),
            known => {
                let meter = UpstreamMeter::new(state.name());
                Rc::new(Upstream::new(Arc::clone(state), known.map(|known| known.as_ref()), meter))
            }
        };
        let upstreams = states.iter().map(upstream).collect();
        let held_bodies = former.map(|former| former.held_bodies.clone()).unwrap_or_default();
        let held_prompts = former.map_or_else(Budget::of_prompts, |former| former.held_prompts.clone());
        if let Some(same) = former.filter(|former| Arc::ptr_eq(&former.snapshot, &snapshot)) {
            // Only endpoints have come or gone.
            let (meter, listener_meters) = (Rc::clone(&same.meter), Rc::clone(&same.listener_meters));
            return Self {
                snapshot,
                upstreams,
                meter,
                random: Random::default(),
                held_bodies,
                held_prompts,
                listener_meters,
                llm_meter: Rc::clone(&same.llm_meter),
            };
        }
        let model = &snapshot.model;
        let listener_meters = model.listeners.iter().map(|l| ListenerMeter::new(&l.name)).collect();
        let meter = Rc::new(HttpMeter::new(Arc::clone(&snapshot.names)));
        let listener_meters = Rc::new(listener_meters);
        let llm_meter = former.map(|former| Rc::clone(&former.llm_meter)).unwrap_or_default();
        let random = Random::default();
        Self { snapshot, upstreams, meter, random, held_bodies, held_prompts, listener_meters, llm_meter }
    }

    /// Closes what is idle to endpoints that `next` does not have. Clients that are silent keep this snapshot, so it
    /// would otherwise wait for them.
    pub(super) fn retire(&self, next: &Self) {
        let next: HashMap<_, _> =
            next.upstreams.iter().map(|upstream| (upstream.state().name(), upstream)).collect();
        for upstream in &self.upstreams {
            let next = next.get(upstream.state().name());
            if !next.is_some_and(|next| Rc::ptr_eq(next, upstream)) {
                upstream.retire(next.map(|next| next.as_ref()));
            }
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.snapshot.router
    }

    pub(super) fn listeners(&self) -> &[model::Listener] {
        &self.snapshot.model.listeners
    }

    /// How a listener speaks TLS, if it does.
    pub(super) fn tls(&self, listener: usize) -> Option<&Arc<tls::Server>> {
        self.snapshot.secrets.listeners.get(listener)?.as_ref()
    }

    /// Where a listener speaks HTTP/3, for those who speak another version with it (Alt-Svc).
    pub(super) fn alternative(&self, listener: usize) -> Option<&HeaderValue> {
        self.snapshot.alternatives.get(listener)?.as_ref()
    }

    pub(super) fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    pub(super) fn route(&self, index: usize) -> Option<&model::Route> {
        self.snapshot.model.routes.get(index)
    }

    pub(super) fn access_log(&self) -> Option<&AccessLog> {
        self.snapshot.access_log.as_deref()
    }

    /// This upstream, or the one that stands in for it.
    pub(super) fn serving(&self, mut index: usize, now: Instant) -> Option<&Rc<Upstream>> {
        // There is no cycle.
        while let Some(other) = self.snapshot.model.upstreams.get(index)?.fallback
            && self.upstreams.get(index)?.is_out(now)
        {
            index = other;
        }
        self.upstreams.get(index)
    }

    /// What decides where nothing else does.
    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    /// What the worker may hold of bodies that decide about routes.
    pub(super) fn held_bodies(&self) -> &Budget {
        &self.held_bodies
    }

    /// What the worker may hold of requests to LLMs.
    pub(super) fn held_prompts(&self) -> &Budget {
        &self.held_prompts
    }

    /// Who serves which model.
    pub(super) fn llm(&self) -> &model::Llm {
        &self.snapshot.model.llm
    }

    pub(super) fn llm_meter(&self) -> &LlmMeter {
        &self.llm_meter
    }

    pub(super) fn meter(&self) -> &HttpMeter {
        &self.meter
    }

    /// The meter of the listener on this address, as it stands in the configuration.
    pub(super) fn listener_meter(&self, address: SocketAddr) -> Option<&ListenerMeter> {
        self.listener_meters.get(self.listeners().iter().position(|l| l.address == address)?)
    }

    /// Hands the counts on.
    pub(super) fn flush(&self) {
        self.meter.flush();
        self.llm_meter.flush();
        self.listener_meters.iter().for_each(ListenerMeter::flush);
        for upstream in &self.upstreams {
            upstream.meter().flush();
        }
    }

    /// Closes upstream connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for upstream in &self.upstreams {
            upstream.sweep(now);
        }
    }
}
