//! What the access log has of a request, gathered while it is there. Without a log, nothing.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use http::header::{HOST, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use gateway_llm::neutral::Usage;

use crate::observe::access_log::{Entry, LlmEntry};
use crate::observe::llm::Lane;

use super::connection::Session;
use super::request_id::X_REQUEST_ID;
use super::snapshot::Local;
use super::trace::TRACE_PARENT;
use super::upstream::Endpoint;

/// Bytes of one text of a client's that wait for a disk: there may be thousands of lines. What is shared with the request
/// would keep its whole header, and is copied when it has ended.
const MAX_TEXT_BYTES: usize = 1024;

/// What decided about a request that was answered.
pub(super) const OK: &str = "ok";
/// The same, and the answer is one that was asked for because another did not come.
const HEDGED: &str = "hedged";

/// Values are shared with the request, not copied.
pub(super) struct Record {
    time: SystemTime,
    client: IpAddr,
    is_unread: bool,
    method: Method,
    host: Option<HeaderValue>,
    path: String,
    version: Version,
    request_id: Option<HeaderValue>,
    trace_parent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    upstream: Option<String>,
    trail: Trail,
    first_byte: Option<Instant>,
    /// In a box: most requests ask no model.
    llm: Option<Box<Spent>>,
}

/// Which model was asked, and what it cost.
#[derive(Debug)]
pub(super) struct Spent {
    provider: String,
    model: String,
    lane: Lane,
    losses: usize,
    usage: Option<Usage>,
}

impl Spent {
    pub(super) fn new(provider: &str, model: &str, lane: Lane, losses: usize) -> Self {
        let model = cut(model.to_owned());
        Self { provider: provider.to_owned(), model, lane, losses, usage: None }
    }
}

/// The endpoints that a request is tried at.
#[derive(Default)]
pub(super) struct Trail {
    attempts: Cell<u32>,
    last: RefCell<Option<Rc<Endpoint>>>,
    /// The answer is one that was asked for beside another.
    is_hedged: Cell<bool>,
}

impl Trail {
    /// It is tried over a connection to this one.
    pub(super) fn tries(&self, endpoint: &Rc<Endpoint>) {
        self.attempts.set(self.attempts.get().saturating_add(1));
        self.last.replace(Some(Rc::clone(endpoint)));
    }

    /// Two were asked at the same time, and this one's answer is taken.
    pub(super) fn takes(&self, endpoint: &Rc<Endpoint>, is_hedged: bool) {
        self.last.replace(Some(Rc::clone(endpoint)));
        self.is_hedged.set(is_hedged);
    }
}

/// How a request ended.
pub(super) struct End<'a> {
    pub(super) session: &'a Session,
    pub(super) local: &'a Local,
    pub(super) listener: usize,
    pub(super) route: Option<usize>,
    pub(super) started: Instant,
    pub(super) now: Instant,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
    pub(super) why: &'static str,
}

impl Record {
    pub(super) fn of<B>(session: &Session, request: &Request<B>) -> Self {
        let headers: &HeaderMap = request.headers();
        let field = |name: HeaderName| headers.get(name).cloned();
        Self {
            time: SystemTime::now(),
            client: session.with_trusted(|peer, trusted| peer.client(headers, trusted)),
            is_unread: false,
            method: request.method().clone(),
            host: host(request),
            path: request.uri().path().to_owned(),
            version: request.version(),
            request_id: None,
            trace_parent: None,
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            upstream: None,
            trail: Trail::default(),
            first_byte: None,
            llm: None,
        }
    }

    /// What there is is a stand-in for what could not be read.
    pub(super) fn is_unread(&mut self) {
        self.is_unread = true;
        self.host = None;
    }

    /// The request has its name and its trace now.
    pub(super) fn named(&mut self, headers: &HeaderMap) {
        self.request_id = headers.get(X_REQUEST_ID).cloned();
        self.trace_parent = headers.get(TRACE_PARENT).cloned();
    }

    /// It goes there.
    pub(super) fn goes_to(&mut self, upstream: &str) {
        self.upstream = Some(upstream.to_owned());
    }

    /// This model is asked. The last one that was is the one that answered.
    pub(super) fn asks(&mut self, spent: Spent) {
        self.llm = Some(Box::new(spent));
    }

    /// The model's answer cost this.
    pub(super) fn used(&mut self, usage: &Usage) {
        if let Some(spent) = &mut self.llm {
            spent.usage = Some(*usage);
        }
    }

    /// Where it is written down which endpoints it is tried at.
    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }

    pub(super) fn answered(&mut self) {
        self.first_byte = Some(Instant::now());
    }

    pub(super) fn end(self, end: &End<'_>) -> Entry {
        let End { session, local, listener, route, started, now, status, bytes, why } = *end;
        Entry {
            time: self.time,
            client: self.client,
            is_unread: self.is_unread,
            listener: local.listeners().get(listener).map(|l| l.name.clone()).unwrap_or_default(),
            method: cut_method(self.method),
            host: self.host.as_ref().and_then(kept),
            path: cut(self.path),
            version: self.version,
            status: status.as_u16(),
            bytes,
            duration: now.saturating_duration_since(started),
            first_byte: self.first_byte.map(|first| first.saturating_duration_since(started)),
            route: route.and_then(|route| local.route(route)).map(|route| route.name.clone()),
            upstream: self.upstream,
            endpoint: self.trail.last.borrow().as_ref().map(|endpoint| endpoint.to_string()),
            attempts: self.trail.attempts.get(),
            tls_version: session.tls_version(),
            server_name: session.server_name().map(|name| name.as_ref().to_owned()),
            request_id: self.request_id.as_ref().and_then(kept),
            trace_parent: self.trace_parent.as_ref().and_then(kept),
            referer: self.referer.as_ref().and_then(without_query),
            user_agent: self.user_agent.as_ref().and_then(kept),
            llm: self.llm.map(|spent| {
                let Spent { provider, model, lane, losses, usage } = *spent;
                let (input, output) = usage.map_or((None, None), |usage| (usage.input, usage.output));
                Box::new(LlmEntry { provider, model, lane: lane.name(), losses, input, output })
            }),
            why: if why == OK && self.trail.is_hedged.get() { HEDGED } else { why },
        }
    }
}

/// Who was asked: what the target says counts before Host. Without a name and a password in front of it.
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| Some(request.headers().get(HOST)?.as_bytes()))?;
    HeaderValue::from_bytes(host.rsplit(|byte| *byte == b'@').next()?).ok()
}

/// Tokens stand in queries, those of the pages before this one as well.
fn without_query(value: &HeaderValue) -> Option<HeaderValue> {
    let page = value.as_bytes().split(|byte| matches!(byte, b'?' | b'#')).next()?;
    HeaderValue::from_bytes(page.get(..MAX_TEXT_BYTES).unwrap_or(page)).ok()
}

/// A copy that keeps nothing else, and ends somewhere.
fn kept(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    HeaderValue::from_bytes(bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes)).ok()
}

fn cut(mut path: String) -> String {
    // Paths are ASCII but for what they should not hold, so this takes a step or two at most.
    let end = (0..=MAX_TEXT_BYTES.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
    path.truncate(end.unwrap_or_default());
    path.shrink_to_fit();
    path
}

fn cut_method(method: Method) -> Method {
    match method.as_str().as_bytes().get(..MAX_TEXT_BYTES) {
        Some(begin) => Method::from_bytes(begin).unwrap_or(method),
        None => method,
    }
}
