//! What the access log has of a request, gathered while it is there. Without a log, nothing.

use std::time::{Instant, SystemTime};

use http::header::{HOST, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use crate::observe::access_log::Entry;

use super::connection::Session;
use super::request_id::X_REQUEST_ID;
use super::snapshot::Local;

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Values are shared with the request, not copied.
pub(super) struct Record {
    time: SystemTime,
    client: std::net::IpAddr,
    method: Method,
    host: Option<HeaderValue>,
    path: String,
    version: Version,
    request_id: Option<HeaderValue>,
    trace_parent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    upstream: Option<String>,
    endpoint: Option<String>,
    first_byte: Option<Instant>,
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
            method: request.method().clone(),
            // Of HTTP/2 it stands in the target.
            host: field(HOST).or_else(|| HeaderValue::from_str(request.uri().authority()?.as_str()).ok()),
            path: request.uri().path().to_owned(),
            version: request.version(),
            request_id: None,
            trace_parent: field(TRACE_PARENT),
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            upstream: None,
            endpoint: None,
            first_byte: None,
        }
    }

    /// The request has its name now.
    pub(super) fn named(&mut self, headers: &HeaderMap) {
        self.request_id = headers.get(X_REQUEST_ID).cloned();
    }

    /// It went there.
    pub(super) fn went_to(&mut self, upstream: &str, endpoint: Option<String>) {
        self.upstream = Some(upstream.to_owned());
        self.endpoint = endpoint;
    }

    pub(super) fn answered(&mut self) {
        self.first_byte = Some(Instant::now());
    }

    pub(super) fn end(self, end: &End<'_>) -> Entry {
        let End { session, local, listener, route, started, now, status, bytes, why } = *end;
        Entry {
            time: self.time,
            client: self.client,
            listener: local.listeners().get(listener).map(|l| l.name.clone()).unwrap_or_default(),
            method: self.method,
            host: self.host,
            path: self.path,
            version: self.version,
            status: status.as_u16(),
            bytes,
            duration: now.saturating_duration_since(started),
            first_byte: self.first_byte.map(|first| first.saturating_duration_since(started)),
            route: route.and_then(|route| local.route(route)).map(|route| route.name.clone()),
            upstream: self.upstream,
            endpoint: self.endpoint,
            server_name: session.server_name().map(|name| name.as_ref().to_owned()),
            request_id: self.request_id,
            trace_parent: self.trace_parent,
            referer: self.referer,
            user_agent: self.user_agent,
            why,
        }
    }
}
