//! What metrics tell of the sources of endpoints.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const UP: &str = "gateway_upstream_discovery_up";
const ENDPOINTS: &str = "gateway_upstream_discovered_endpoints";
const FAILURES: &str = "gateway_upstream_discovery_failures_total";

/// Describes the metrics; call it once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(
        UP,
        "1 when the source of an upstream's endpoints has brought them; NaN when it is gone."
    );
    describe_gauge!(ENDPOINTS, "Endpoints of an upstream that its source has brought; NaN when it is gone.");
    describe_counter!(
        FAILURES,
        "Looks at the source of an upstream's endpoints that failed, wholly or in part."
    );
}

/// What is counted of one source.
pub(super) struct Meter {
    up: Gauge,
    endpoints: Gauge,
    failures: Counter,
}

impl Meter {
    pub(super) fn new(upstream: &str) -> Self {
        let name = upstream.to_owned();
        Self {
            up: gauge!(UP, "upstream" => name.clone()),
            endpoints: gauge!(ENDPOINTS, "upstream" => name.clone()),
            failures: counter!(FAILURES, "upstream" => name),
        }
    }

    /// How the source stands.
    pub(super) fn show(&self, endpoints: usize, is_up: bool) {
        self.up.set(if is_up { 1.0 } else { 0.0 });
        self.endpoints.set(endpoints as f64);
    }

    /// A look is over.
    pub(super) fn count_look(&self, is_good: bool) {
        self.failures.increment(u64::from(!is_good));
    }

    /// There is no such source any more. A series cannot be taken back, so it says that it is no number.
    pub(super) fn gone(&self) {
        self.up.set(f64::NAN);
        self.endpoints.set(f64::NAN);
    }
}
