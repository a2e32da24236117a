//! What the keys of an upstream mean that say who gets its requests and what is done when it fails.

use http::uri::PathAndQuery;

use crate::config::keys;
use crate::config::notation::RetryCause;
use crate::config::reader::Reader;
use crate::config::routes;
use crate::config::shape::{Located, Named};
use crate::config::upstream_keys::{Breaking, Ejecting, Health, Limiting, ProbeName, Retrying};
use crate::model::{Breaker, Ejection, HealthCheck, Limits, Probe, Protocol, Retry, RetryOn, SuccessRate};

/// How endpoints are asked whether they are well.
pub(crate) fn health(health: &Health, protocol: &Located<Protocol>, reader: &mut Reader<'_>) -> HealthCheck {
    let kind = health.r#type.value;
    let mut only_of = |place, key: &str, owner: ProbeName, name: &str| {
        if let Some(place) = place
            && kind != owner
        {
            reader.error::<()>(place, format!("`{key}` goes with `type: {name}`"));
        }
    };
    only_of(health.path.as_ref().map(|path| path.place), "path", ProbeName::Http, "http");
    only_of(health.host.as_ref().map(|host| host.place), "host", ProbeName::Http, "http");
    only_of(health.expect.as_ref().map(|expect| expect.place), "expect", ProbeName::Http, "http");
    only_of(health.service.as_ref().map(|service| service.place), "service", ProbeName::Grpc, "grpc");
    if kind == ProbeName::Grpc && protocol.value == Protocol::Http1 {
        let message = "gRPC takes HTTP/2; say `protocol: http2` of the upstream";
        reader.error::<()>(health.r#type.place, message);
    }
    let probe = match kind {
        ProbeName::Tcp => Probe::Tcp,
        ProbeName::Http => Probe::Http {
            path: health.path.as_ref().map_or(PathAndQuery::from_static("/"), |path| path.value.clone()),
            host: health.host.as_ref().map(|host| host.value.clone()),
            expect: health.expect.as_ref().map_or_else(|| vec![200..=299], |expect| expect.value.clone()),
        },
        ProbeName::Grpc => Probe::Grpc {
            service: health.service.as_ref().map(|service| service.value.clone()).unwrap_or_default(),
        },
    };
    HealthCheck {
        probe,
        interval: health.interval,
        timeout: health.timeout,
        healthy: count(health.healthy),
        unhealthy: count(health.unhealthy),
        starts_up: health.initial,
    }
}

/// When endpoints are taken out.
pub(crate) fn ejection(ejection: &Ejecting) -> Ejection {
    Ejection {
        consecutive_5xx: count(ejection.consecutive_5xx),
        consecutive_gateway_errors: count(ejection.consecutive_gateway_errors),
        success_rate: ejection.success_rate.as_ref().map(|rate| SuccessRate {
            minimum_hosts: count(rate.minimum_hosts),
            request_volume: count(rate.request_volume),
            stdev_factor: count(rate.stdev_factor),
        }),
        interval: ejection.interval,
        base_time: ejection.base_time,
        max_time: ejection.max_time,
        max_percent: ejection.max_percent,
    }
}

/// When requests are sent once more.
pub(crate) fn retry(located: &Located<Retrying>, reader: &mut Reader<'_>) -> Retry {
    let retry = &located.value;
    if retry.backoff.base > retry.backoff.max {
        reader.error::<()>(located.place, "`backoff.base` is longer than `backoff.max`");
    }
    let default = [RetryCause::Connect, RetryCause::Reset, RetryCause::GatewayError];
    let mut on = RetryOn::default();
    for cause in retry.on.as_deref().unwrap_or(&default) {
        match cause {
            RetryCause::Connect => on.connect = true,
            RetryCause::Reset => on.reset = true,
            RetryCause::Timeout => on.timeout = true,
            RetryCause::GatewayError => {
                on.timeout = true;
                on.statuses.push(502..=504);
            }
            RetryCause::Statuses(statuses) => on.statuses.push(statuses.clone()),
        }
    }
    Retry {
        attempts: count(retry.attempts),
        on,
        budget: retry.budget,
        min_concurrent: count(retry.min_concurrent),
        backoff_base: retry.backoff.base,
        backoff_max: retry.backoff.max,
        per_try_timeout: retry.per_try_timeout,
        hedge_after: retry.hedge.as_ref().and_then(|hedge| hedge.value.after),
    }
}

/// What may be under way.
pub(crate) fn limits(limits: &Limiting) -> Limits {
    let Limiting { max_requests, max_connections, max_pending } = *limits;
    Limits { max_requests, max_connections, max_pending }
}

/// When nothing is sent.
pub(crate) fn breaker(breaker: &Breaking) -> Breaker {
    Breaker {
        error_ratio: breaker.error_ratio,
        min_requests: count(breaker.min_requests),
        window: breaker.window,
        open_for: breaker.open_for,
        half_open_requests: count(breaker.half_open_requests),
        slow: breaker.slow,
    }
}

/// Who stands in for each upstream. Whoever would stand in for itself in the end is reported.
pub(crate) fn fallbacks(upstreams: &[Named<keys::Upstream>], reader: &mut Reader<'_>) -> Vec<Option<usize>> {
    let wanted =
        |named: &Named<keys::Upstream>| named.value.as_ref().and_then(|value| value.fallback.clone());
    let find = |wanted: &Located<String>| upstreams.iter().position(|named| named.name == wanted.value);
    let mut found = Vec::with_capacity(upstreams.len());
    for named in upstreams {
        let wanted = wanted(named);
        let index = wanted.as_ref().and_then(find);
        if let (Some(wanted), None) = (&wanted, index) {
            routes::unknown_upstream(wanted, upstreams, reader);
        }
        found.push(index);
    }
    for (start, named) in upstreams.iter().enumerate() {
        let chain = std::iter::successors(found[start], |index| found[*index]).take(upstreams.len());
        if let Some(wanted) = wanted(named)
            && chain.into_iter().any(|index| index == start)
        {
            let message = format!("the upstream `{}` would stand in for itself in the end", named.name);
            reader.error::<()>(wanted.place, message);
        }
    }
    found
}

/// Counts are bounded where they are read.
pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
