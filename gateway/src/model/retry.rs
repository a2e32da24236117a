//! When a request is sent once more.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How often, after what, and how soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often beyond the first time.
    pub attempts: u32,
    /// After what.
    pub on: RetryOn,
    /// How many of the requests under way may be retries, in percent.
    pub budget: u32,
    /// So many may always be.
    pub min_concurrent: u32,
    /// The first one waits between nothing and this; each further one up to twice as long as the one before.
    pub backoff_base: Duration,
    /// But never longer than this.
    pub backoff_max: Duration,
    /// From the end of the request to the head of the response, for each attempt; `None`: all of `response_timeout`.
    pub per_try_timeout: Option<Duration>,
    /// When a second endpoint is asked, too, because the first one has not answered for so long; `None`: never.
    pub hedge_after: Option<Duration>,
}

/// After what a request is sent once more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No endpoint could be connected to.
    pub connect: bool,
    /// The connection ended before the response began.
    pub reset: bool,
    /// The response did not begin in time.
    pub timeout: bool,
    /// The response has one of these statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
}
