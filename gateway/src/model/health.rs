//! How it is found out which endpoints of an upstream are well.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::uri::PathAndQuery;

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// How long a check may take, from connecting to the answer.
    pub timeout: Duration,
    /// So many good answers in a row bring an endpoint back.
    pub healthy: u32,
    /// So many bad ones in a row take it out.
    pub unhealthy: u32,
    /// Whether an endpoint gets requests before it was asked for the first time.
    pub starts_up: bool,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// To accept a connection and, under TLS, to shake hands.
    Tcp,
    /// To answer a GET.
    Http {
        /// Of this.
        path: PathAndQuery,
        /// By this Host; `None`: the endpoint's own.
        host: Option<String>,
        /// With one of these statuses.
        expect: Vec<RangeInclusive<u16>>,
    },
    /// To say that it is serving (grpc.health.v1).
    Grpc {
        /// This; empty: the server as a whole.
        service: String,
    },
}

/// When an endpoint is taken out because requests to it fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// After so many answers of 5xx in a row, those that did not come among them.
    pub consecutive_5xx: u32,
    /// After so many answers of 502, 503 and 504 in a row, or that did not come.
    pub consecutive_gateway_errors: u32,
    /// And when more of its requests fail than the others' do; `None`: that is not looked at.
    pub success_rate: Option<SuccessRate>,
    /// How often it is looked whether somebody's time is over, and at the rates.
    pub interval: Duration,
    /// How long the first ejection takes; the second takes twice as long, and so on.
    pub base_time: Duration,
    /// How long any takes at most.
    pub max_time: Duration,
    /// How many of the endpoints may be out at a time, in percent; one always may.
    pub max_percent: u32,
}

/// When an endpoint's share of good answers is too far below the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRate {
    /// So many endpoints have to have had so many requests, or there is nothing to compare.
    pub minimum_hosts: u32,
    /// Within an interval.
    pub request_volume: u32,
    /// How many standard deviations below the mean are too far, in thousandths.
    pub stdev_factor: u32,
}
