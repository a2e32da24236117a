//! One request and its response, from the parser to the last byte: whatever way it ends, it is counted once,
//! and the connection goes back to waiting.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, StatusCode, Version};

use crate::model::{self, Deprecation};
use crate::observe::http::MethodLabel;

use super::connection::Session;
use super::record::{End, OK, Record, Trail};
use super::snapshot::Local;
use super::watch::Watch;
use super::{cors, grpc, headers};

/// What a route does to the header of the answer, made while the request was there.
#[derive(Default)]
pub(super) struct Reply {
    pub(super) changes: Option<headers::Ready>,
    /// What keeps the client with the upstream that it was given.
    pub(super) cookie: Option<HeaderValue>,
    pub(super) cors: Option<cors::Said>,
    pub(super) deprecated: Option<Arc<Deprecation>>,
    /// The request's name.
    pub(super) request_id: Option<HeaderValue>,
    /// Where HTTP/3 is spoken, for who does not speak it yet.
    pub(super) alternative: Option<HeaderValue>,
}

/// Dropping it ends it.
pub(super) struct Exchange {
    session: Rc<Session>,
    /// Of the connection or, under HTTP/2 and HTTP/3, of the stream.
    watch: Rc<Watch>,
    local: Rc<Local>,
    /// Index of the listener in `local`.
    listener: usize,
    started: Instant,
    version: Version,
    /// Of gRPC.
    is_call: bool,
    method: MethodLabel,
    route: Option<usize>,
    reply: Reply,
    /// What the access log will have, if there is one.
    record: Option<Box<Record>>,
    /// Bytes of the answer's body, so far.
    sent: u64,
    /// What decided about it.
    why: &'static str,
    status: StatusCode,
}

/// The client went away before it had an answer: never sent, only counted. nginx uses the same number.
const CLIENT_CLOSED: u16 = 499;
/// What decided then, and of an answer that somebody did not wait for.
const GONE: &str = "client_closed";

impl Exchange {
    pub(super) fn new<B>(session: Rc<Session>, watch: Rc<Watch>, request: &Request<B>) -> Self {
        let status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::BAD_REQUEST);
        let (local, started) = (session.local(), Instant::now());
        let listener = session.listener_index();
        watch.busy(started);
        let record = local.access_log().map(|_| Box::new(Record::of(&session, request)));
        let (method, version) = (MethodLabel::of(request.method()), request.version());
        // Over HTTP/3 none is sent.
        watch.interims().begin(version >= Version::HTTP_11);
        let alternative = local.alternative(listener).filter(|_| version < Version::HTTP_3).cloned();
        let is_call = version >= Version::HTTP_2 && grpc::is_call(request.headers());
        Self {
            session,
            watch,
            local,
            listener,
            started,
            version,
            is_call,
            method,
            route: None,
            reply: Reply { alternative, ..Reply::default() },
            record,
            sent: 0,
            why: GONE,
            status,
        }
    }

    /// Whether several requests share the connection, each as a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.version >= Version::HTTP_2
    }

    /// Whether the request is a call of gRPC.
    pub(super) fn is_call(&self) -> bool {
        self.is_call
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn session(&self) -> &Rc<Session> {
        &self.session
    }

    pub(super) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    pub(super) fn listener(&self) -> &model::Listener {
        &self.local.listeners()[self.listener]
    }

    pub(super) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// What the route does to the answer's header.
    pub(super) fn reply(&mut self) -> &mut Reply {
        &mut self.reply
    }

    /// Index of the listener.
    pub(super) fn listener_index(&self) -> usize {
        self.listener
    }

    /// The upgrades that the route allows.
    pub(super) fn upgrades(&self) -> &[String] {
        self.route().map_or(&[], |route| &route.upgrades)
    }

    /// The route, once it is found.
    pub(super) fn route(&self) -> Option<&model::Route> {
        self.local.route(self.route?)
    }

    /// A route was found.
    pub(super) fn routed(&mut self, route: usize) {
        self.route = Some(route);
    }

    /// There is an answer. What is left is its body.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
        if let Some(record) = &mut self.record {
            record.answered();
        }
    }

    /// This is what decided about it: `ok`, or the code of a problem.
    pub(super) fn because(&mut self, why: &'static str) {
        self.why = why;
    }

    /// So many bytes of the answer's body are on their way, and perhaps they are the last.
    pub(super) fn sent(&mut self, bytes: usize, is_last: bool) {
        self.sent += bytes as u64;
        if is_last && self.why == GONE {
            self.why = OK;
        }
    }

    /// What is written down of it.
    pub(super) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    /// Where it is written down which endpoints it is tried at, if anybody wants to know.
    pub(super) fn trail(&self) -> Option<&Trail> {
        self.record.as_deref().map(Record::trail)
    }

    /// The body broke off. The client is told by a reset: an orderly close could pass for its end.
    pub(super) fn aborted(&mut self) {
        self.watch.abort();
        self.why = "upstream_broke_off";
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.started);
        self.local.meter().record(self.listener, self.route, self.method, self.status.as_u16(), elapsed);
        if let Some(record) = self.record.take()
            && let Some(log) = self.local.access_log()
            && log.takes(self.status.as_u16(), self.local.random().next())
        {
            log.write(record.end(&End {
                session: &self.session,
                local: &self.local,
                listener: self.listener,
                route: self.route,
                started: self.started,
                now,
                status: self.status,
                bytes: self.sent,
                // Whoever is cut off did not go away.
                why: if self.why == GONE && self.watch.is_aborted() { "idle_timeout" } else { self.why },
            }));
        }
        self.session.end(&self.watch, now);
    }
}
