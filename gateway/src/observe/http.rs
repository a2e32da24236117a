//! Counts requests and connections for the `metrics` crate.
//!
//! A request touches only plain cells of its own worker. A few times a second, and only after requests, the
//! worker adds what it has counted to the shared handles: no lookup by label and no contended line of cache
//! on the path of a request. The recorder has to be installed before the proxy starts.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Upper bounds of the request duration's buckets, in seconds; the exporter should use the same.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How long counts may wait in a worker.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// The name of the histogram that [`DURATION_BUCKETS`] are for.
pub const REQUEST_DURATION: &str = "gateway_http_request_duration_seconds";

const REQUESTS: &str = "gateway_http_requests_total";
const CONNECTIONS: &str = "gateway_http_connections";
const ACCEPT_REFUSED: &str = "gateway_accept_refused_total";
const UPSTREAM_REQUESTS: &str = "gateway_upstream_requests_total";
const UPSTREAM_CONNECTS: &str = "gateway_upstream_connects_total";
const UPSTREAM_EJECTIONS: &str = "gateway_upstream_ejections_total";
const UPSTREAM_TURNED_AWAY: &str = "gateway_upstream_turned_away_total";
const UPSTREAM_RETRIES: &str = "gateway_upstream_retries_total";
const MIRRORED: &str = "gateway_mirror_requests_total";

/// Describes every metric of the proxy; call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests, by the status sent (499: the client went away first).");
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "From a request's head to the end of its response.");
    describe_gauge!(CONNECTIONS, "Open client connections.");
    describe_counter!(
        ACCEPT_REFUSED,
        "Connections that were dropped when or after they were accepted, or could not be accepted."
    );
    describe_counter!(UPSTREAM_REQUESTS, "Requests sent to an upstream, by the class of the answer.");
    describe_counter!(UPSTREAM_CONNECTS, "Connections opened to an upstream, or not.");
    describe_counter!(UPSTREAM_TURNED_AWAY, "Requests that were not sent, by what forbade it.");
    describe_counter!(UPSTREAM_EJECTIONS, "Endpoints taken out because requests to them failed.");
    describe_counter!(
        MIRRORED,
        "Copies of requests to an upstream that mirrors another, by what became of them (answered, or why not)."
    );
    describe_counter!(
        UPSTREAM_RETRIES,
        "Requests sent again, by what came of them before (stale: the pooled connection had been closed; hedge: no answer yet)."
    );
}

/// A method as a label: the registered ones that are in use, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MethodLabel(u8);

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "other"];

impl MethodLabel {
    pub(crate) fn of(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::PATCH => 5,
            Method::OPTIONS => 6,
            Method::TRACE => 7,
            Method::CONNECT => 8,
            _ => 9,
        })
    }
}

/// What a snapshot's listeners and routes are called. Shared by all workers: thousands of names would be copied by each of
/// them when it takes over, while its requests wait.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) listeners: Vec<String>,
    pub(crate) routes: Vec<String>,
}

/// What a worker has counted for a snapshot's listeners and routes.
pub(crate) struct HttpMeter {
    names: Arc<Names>,
    /// By listener, then by route; the last one is for requests without a route. Most pairs are never used.
    cells: Vec<OnceCell<Box<RouteMeter>>>,
}

struct RouteMeter {
    listener: String,
    route: String,
    dirty: Cell<bool>,
    /// By method, then by status less 100.
    requests: RefCell<[Option<Box<[u64]>>; METHODS.len()]>,
    /// Count and sum by bucket; the last one is beyond every bound.
    durations: RefCell<[(usize, Duration); DURATION_BUCKETS.len() + 1]>,
    duration: Histogram,
}

/// HTTP has statuses from 100 to 999.
const STATUSES: usize = 900;

impl HttpMeter {
    pub(crate) fn new(names: Arc<Names>) -> Self {
        let count = names.listeners.len() * (names.routes.len() + 1);
        let cells = std::iter::repeat_with(OnceCell::new).take(count).collect();
        Self { names, cells }
    }

    /// Counts a request.
    pub(crate) fn record(
        &self,
        listener: usize,
        route: Option<usize>,
        method: MethodLabel,
        status: u16,
        elapsed: Duration,
    ) {
        let routes = self.names.routes.len();
        let route = route.unwrap_or(routes);
        let Some(cell) = self.cells.get(listener * (routes + 1) + route) else { return };
        cell.get_or_init(|| Box::new(self.open(listener, route))).record(method, status, elapsed);
    }

    fn open(&self, listener: usize, route: usize) -> RouteMeter {
        let listener = self.names.listeners.get(listener).cloned().unwrap_or_default();
        let route = self.names.routes.get(route).map_or_else(|| "none".to_owned(), Clone::clone);
        let duration = histogram!(REQUEST_DURATION, "listener" => listener.clone(), "route" => route.clone());
        RouteMeter {
            listener,
            route,
            dirty: Cell::new(false),
            requests: RefCell::default(),
            durations: RefCell::default(),
            duration,
        }
    }

    /// Adds what was counted to the shared handles.
    pub(crate) fn flush(&self) {
        for meter in self.cells.iter().filter_map(OnceCell::get) {
            if meter.dirty.replace(false) {
                meter.flush();
            }
        }
    }
}

impl Drop for HttpMeter {
    fn drop(&mut self) {
        self.flush();
    }
}

impl RouteMeter {
    fn record(&self, method: MethodLabel, status: u16, elapsed: Duration) {
        self.dirty.set(true);
        let mut requests = self.requests.borrow_mut();
        let statuses = requests[usize::from(method.0)].get_or_insert_with(|| vec![0; STATUSES].into());
        if let Some(count) = statuses.get_mut(usize::from(status).wrapping_sub(100)) {
            *count += 1;
        }
        let seconds = elapsed.as_secs_f64();
        let bucket = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound);
        let mut durations = self.durations.borrow_mut();
        let (count, sum) = &mut durations[bucket.unwrap_or(DURATION_BUCKETS.len())];
        *count += 1;
        *sum += elapsed;
    }

    fn flush(&self) {
        for (method, statuses) in self.requests.borrow_mut().iter_mut().enumerate() {
            for (status, count) in statuses.iter_mut().flatten().enumerate().filter(|(_, count)| **count > 0)
            {
                let labels = [
                    ("listener", self.listener.clone()),
                    ("route", self.route.clone()),
                    ("method", METHODS[method].to_owned()),
                    ("status", (status + 100).to_string()),
                ];
                counter!(REQUESTS, &labels).increment(std::mem::take(count));
            }
        }
        for (count, sum) in self.durations.borrow_mut().iter_mut().filter(|(count, _)| *count > 0) {
            // The mean lies within the bucket: with the same bounds, buckets and sum are exact.
            self.duration.record_many(sum.as_secs_f64() / *count as f64, *count);
            (*count, *sum) = (0, Duration::ZERO);
        }
    }
}

/// What a worker has counted for a listener's connections. A flood of refused ones costs no lookup either.
pub(crate) struct ListenerMeter {
    open: Gauge,
    refused: [Pending; REFUSED.len()],
}

/// Why a connection was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The rules deny its source.
    Denied,
    /// It broke while it was accepted.
    Broken,
    /// The process has no file descriptor left.
    NoFileDescriptors,
    /// The system has no memory for it.
    NoMemory,
    /// No TLS handshake came about, or not in time.
    TlsHandshake,
    /// A load balancer did not say whom it is from.
    ProxyHeader,
    /// It carried more resets, settings, pings and the like than requests explain.
    Http2Flood,
    /// It carried more requests that were thrown away than a browser does.
    #[cfg_attr(not(feature = "http3"), expect(dead_code, reason = "nobody counts it in this build"))]
    Http3Flood,
}

const REFUSED: [&str; 8] = [
    "denied",
    "error",
    "no_file_descriptors",
    "no_memory",
    "tls_handshake",
    "proxy_header",
    "http2_flood",
    "http3_flood",
];

impl ListenerMeter {
    pub(crate) fn new(listener: &str) -> Self {
        let name = listener.to_owned();
        let refused = |reason: &'static str| {
            Pending::new(counter!(ACCEPT_REFUSED, "listener" => name.clone(), "reason" => reason))
        };
        Self { open: gauge!(CONNECTIONS, "listener" => name.clone()), refused: REFUSED.map(refused) }
    }

    pub(crate) fn count_refused(&self, reason: Refused) {
        self.refused[reason as usize].add();
    }

    /// How many connections are open, over all workers.
    pub(crate) fn set_open(&self, open: usize) {
        self.open.set(open as f64);
    }

    /// Adds what was counted to the shared handles.
    pub(crate) fn flush(&self) {
        self.refused.iter().for_each(Pending::flush);
    }
}

impl Drop for ListenerMeter {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mirrored {
    /// There was an answer, and it was read to its end.
    Answered,
    /// There was none, or it broke off.
    Failed,
    /// It took too long.
    TimedOut,
    /// The upstream did not take the body as fast as it came.
    TooSlow,
    /// The request's own body did not come to its end.
    Incomplete,
    /// It was not sent: there are as many under way as there may be.
    TooMany,
    /// The worker ended before it did.
    Cancelled,
}

const MIRRORED_RESULTS: [&str; 7] =
    ["answered", "failed", "timeout", "too_slow", "incomplete", "too_many", "cancelled"];

/// What a worker has counted for an upstream.
pub(crate) struct UpstreamMeter {
    name: String,
    /// Most upstreams never get a copy, and have no series of them.
    mirrored: OnceCell<[Pending; MIRRORED_RESULTS.len()]>,
    responses: [Pending; CLASSES.len()],
    connects: [Pending; 2],
    retries: [Pending; RETRY_REASONS.len()],
    ejections: Pending,
    turned: [Pending; TURNED.len()],
}

const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// What forbade to send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The breaker is open.
    Breaker,
    /// There are as many under way as there may be.
    MaxRequests,
    /// As many wait for a connection as may.
    MaxPending,
    /// There are as many connections as there may be, and none got free in time.
    MaxConnections,
}

const TURNED: [&str; 4] = ["breaker", "max_requests", "max_pending", "max_connections"];

/// Why a request is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// The pooled connection had been closed before.
    Stale,
    /// The upstream has not looked at the request, and said so.
    Refused,
    /// No endpoint could be connected to.
    Connect,
    /// The connection ended before the response began.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// The response is one of those that are not taken for an answer.
    Status,
    /// The response has not begun yet: another endpoint is asked beside the first.
    Hedge,
}

const RETRY_REASONS: [&str; 7] = ["stale", "refused", "connect", "reset", "timeout", "status", "hedge"];

/// A shared counter and what is not yet added to it.
struct Pending {
    counter: Counter,
    count: Cell<u64>,
}

impl Pending {
    fn new(counter: Counter) -> Self {
        Self { counter, count: Cell::new(0) }
    }

    fn add(&self) {
        self.count.set(self.count.get() + 1);
    }

    fn flush(&self) {
        let count = self.count.take();
        if count > 0 {
            self.counter.increment(count);
        }
    }
}

impl UpstreamMeter {
    pub(crate) fn new(upstream: &str) -> Self {
        let name = upstream.to_owned();
        let class = |class: &'static str| {
            Pending::new(counter!(UPSTREAM_REQUESTS, "upstream" => name.clone(), "status_class" => class))
        };
        let connect = |result: &'static str| {
            Pending::new(counter!(UPSTREAM_CONNECTS, "upstream" => name.clone(), "result" => result))
        };
        let turned = |by: &'static str| {
            Pending::new(counter!(UPSTREAM_TURNED_AWAY, "upstream" => name.clone(), "by" => by))
        };
        let retry = |reason: &'static str| {
            Pending::new(counter!(UPSTREAM_RETRIES, "upstream" => name.clone(), "reason" => reason))
        };
        Self {
            name: name.clone(),
            mirrored: OnceCell::new(),
            responses: CLASSES.map(class),
            connects: ["error", "ok"].map(connect),
            retries: RETRY_REASONS.map(retry),
            turned: TURNED.map(turned),
            ejections: Pending::new(counter!(UPSTREAM_EJECTIONS, "upstream" => name.clone())),
        }
    }

    /// `None`: there was no response.
    pub(crate) fn count_response(&self, status: Option<StatusCode>) {
        let class = status.map(|status| usize::from(status.as_u16() / 100).wrapping_sub(1));
        let class = class.filter(|class| *class < 5).unwrap_or(5);
        self.responses[class].add();
    }

    pub(crate) fn count_connect(&self, ok: bool) {
        self.connects[usize::from(ok)].add();
    }

    pub(crate) fn count_turned(&self, by: Turned) {
        self.turned[by as usize].add();
    }

    pub(crate) fn count_ejection(&self) {
        self.ejections.add();
    }

    pub(crate) fn count_retry(&self, reason: RetryReason) {
        self.retries[reason as usize].add();
    }

    pub(crate) fn count_mirrored(&self, result: Mirrored) {
        let open = |result: &'static str| {
            Pending::new(counter!(MIRRORED, "upstream" => self.name.clone(), "result" => result))
        };
        self.mirrored.get_or_init(|| MIRRORED_RESULTS.map(open))[result as usize].add();
    }

    /// Adds what was counted to the shared handles.
    pub(crate) fn flush(&self) {
        self.responses
            .iter()
            .chain(&self.connects)
            .chain(&self.retries)
            .chain(&self.turned)
            .chain([&self.ejections])
            .chain(self.mirrored.get().into_iter().flatten())
            .for_each(Pending::flush);
    }
}

/// Counts endpoints of an upstream that were taken out by no worker.
pub(crate) fn count_ejections(upstream: &str, count: usize) {
    if count > 0 {
        counter!(UPSTREAM_EJECTIONS, "upstream" => upstream.to_owned()).increment(count as u64);
    }
}

impl Drop for UpstreamMeter {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Exposition;
    use crate::observe::metrics::Recorder;

    #[test]
    fn what_was_counted_is_exported_exactly() {
        let recorder = Recorder::default();
        let text = metrics::with_local_recorder(&recorder, || {
            let meter = HttpMeter::new(Arc::new(Names {
                listeners: vec!["web".to_owned()],
                routes: vec!["users".to_owned()],
            }));
            let get = MethodLabel::of(&Method::GET);
            for (route, status, millis) in
                [(Some(0), 200, 1), (Some(0), 200, 2), (Some(0), 503, 700), (None, 404, 1)]
            {
                meter.record(0, route, get, status, Duration::from_millis(millis));
            }
            meter.record(0, Some(0), MethodLabel::of(&"BREW".parse().unwrap()), 999, Duration::from_secs(60));
            meter.record(7, Some(0), get, 200, Duration::ZERO);
            meter.flush();
            meter.flush();
            let upstream = UpstreamMeter::new("u");
            upstream.count_response(Some(StatusCode::CREATED));
            upstream.count_response(None);
            upstream.count_connect(true);
            upstream.count_retry(RetryReason::Reset);
            upstream.count_mirrored(Mirrored::TooSlow);
            drop(upstream);
            let listener = ListenerMeter::new("web");
            listener.set_open(3);
            listener.count_refused(Refused::Denied);
            listener.count_refused(Refused::NoMemory);
            listener.count_refused(Refused::NoMemory);
            drop(listener);
            let mut page = Exposition::default();
            recorder.render(&mut page);
            page.finish()
        });
        for line in [
            r#"gateway_http_requests_total{listener="web",route="users",method="GET",status="200"} 2"#,
            r#"gateway_http_requests_total{listener="web",route="users",method="GET",status="503"} 1"#,
            r#"gateway_http_requests_total{listener="web",route="none",method="GET",status="404"} 1"#,
            r#"gateway_http_requests_total{listener="web",route="users",method="other",status="999"} 1"#,
            r#"gateway_http_request_duration_seconds_bucket{listener="web",route="users",le="0.001"} 1"#,
            r#"gateway_http_request_duration_seconds_bucket{listener="web",route="users",le="0.0025"} 2"#,
            r#"gateway_http_request_duration_seconds_bucket{listener="web",route="users",le="1"} 3"#,
            r#"gateway_http_request_duration_seconds_bucket{listener="web",route="users",le="+Inf"} 4"#,
            r#"gateway_http_request_duration_seconds_sum{listener="web",route="users"} 60.703"#,
            r#"gateway_http_connections{listener="web"} 3"#,
            r#"gateway_accept_refused_total{listener="web",reason="denied"} 1"#,
            r#"gateway_accept_refused_total{listener="web",reason="no_memory"} 2"#,
            r#"gateway_upstream_requests_total{upstream="u",status_class="2xx"} 1"#,
            r#"gateway_upstream_requests_total{upstream="u",status_class="none"} 1"#,
            r#"gateway_upstream_connects_total{upstream="u",result="ok"} 1"#,
            r#"gateway_upstream_retries_total{upstream="u",reason="reset"} 1"#,
            r#"gateway_upstream_retries_total{upstream="u",reason="status"} 0"#,
            r#"gateway_mirror_requests_total{upstream="u",result="too_slow"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
