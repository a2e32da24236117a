//! When an upstream gets no more requests than it has, or none at all.

use std::time::Duration;

/// What may be under way to an upstream, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests, until their response is over: 503 beyond.
    pub max_requests: Option<usize>,
    /// Connections. Requests beyond them wait for as long as connecting may take: 503 after that.
    pub max_connections: Option<usize>,
    /// Requests that have no connection yet: 503 beyond.
    pub max_pending: Option<usize>,
}

/// When requests are not sent any more because too many of them fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// When so many of those within the window fail, in percent.
    pub error_ratio: u32,
    /// But only if there were so many.
    pub min_requests: u32,
    /// How far back is looked.
    pub window: Duration,
    /// How long nothing is sent.
    pub open_for: Duration,
    /// So many are sent after that, and have to succeed.
    pub half_open_requests: u32,
    /// A response whose head takes longer is a failure, too.
    pub slow: Option<Duration>,
}
