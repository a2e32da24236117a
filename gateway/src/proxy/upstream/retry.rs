//! Whether and when a request is sent once more: the arithmetic of it.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;

use crate::model::{Retry, RetryOn};

use super::super::body::RequestBody;
use super::super::random::Random;

pub(super) use crate::observe::http::RetryReason as Reason;

/// Whether the upstream is asked once more after this.
pub(super) fn wants(reason: Reason, on: &RetryOn) -> bool {
    match reason {
        Reason::Stale | Reason::Refused | Reason::Hedge => true,
        Reason::Connect => on.connect,
        Reason::Reset => on.reset,
        Reason::Timeout => on.timeout,
        // Whoever names it has looked.
        Reason::Status => !on.statuses.is_empty(),
    }
}

/// Whether a response with this status is asked for once more.
pub(super) fn wants_status(status: StatusCode, on: &RetryOn) -> bool {
    on.statuses.iter().any(|range| range.contains(&status.as_u16()))
}

/// Whether one retry more is within the budget.
pub(super) fn is_affordable(requests: usize, retries: usize, retry: &Retry) -> bool {
    let share = requests.saturating_mul(retry.budget as usize) / 100;
    retries < share.max(retry.min_concurrent as usize)
}

/// How long to wait before the `turn`th retry, from 0: full jitter, as waits that are alike bring back at once whoever
/// failed at once. `None` if the upstream wants to be left alone for longer than anybody waits here.
pub(super) fn wait(
    turn: u32,
    headers: Option<&HeaderMap>,
    retry: &Retry,
    random: &Random,
) -> Option<Duration> {
    let longest = retry.backoff_base.saturating_mul(1 << turn.min(16)).min(retry.backoff_max);
    let drawn = Duration::from_nanos(random.below(u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX)));
    let asked = headers.and_then(|headers| headers.get(RETRY_AFTER)).map(|after| {
        // The other form, a date, is for clients that wait for hours.
        let seconds = after.to_str().ok().and_then(|text| text.trim().parse().ok());
        seconds.map_or(Duration::MAX, Duration::from_secs)
    });
    let wait = drawn.max(asked.unwrap_or_default());
    (wait <= retry.backoff_max.max(longest)).then_some(wait)
}

/// What is kept of a request that may be sent twice: it has no body, and doing it twice is doing it once.
#[derive(Debug, Clone)]
pub(super) struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    /// `None` if it may not.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        let may = is_idempotent(request.method()) && request.body().is_end_stream();
        may.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    pub(super) fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.version_mut() = Version::HTTP_11;
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// RFC 9110, section 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Retry {
        Retry {
            attempts: 3,
            on: RetryOn { statuses: vec![502..=504, 429..=429], ..RetryOn::default() },
            budget: 20,
            min_concurrent: 3,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            per_try_timeout: None,
            hedge_after: None,
        }
    }

    #[test]
    fn retries_are_a_share_of_what_is_under_way() {
        for (requests, retries, expected) in [
            (1, 0, true),
            (1, 2, true),
            (1, 3, false),
            (15, 3, false),
            (20, 3, true),
            (20, 4, false),
            (1000, 199, true),
            (1000, 200, false),
        ] {
            assert_eq!(is_affordable(requests, retries, &policy()), expected, "{retries} of {requests}");
        }
        assert!(!is_affordable(1000, 0, &Retry { budget: 0, min_concurrent: 0, ..policy() }));
    }

    #[test]
    fn waits_grow_and_are_spread() {
        let random = Random::seeded(1);
        for (turn, longest) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
            let waits: Vec<_> = (0..200).map(|_| wait(turn, None, &policy(), &random).unwrap()).collect();
            let longest = Duration::from_millis(longest);
            assert!(waits.iter().all(|wait| *wait < longest), "{turn}");
            assert!(waits.iter().any(|wait| *wait > longest * 9 / 10), "{turn}");
            assert!(waits.iter().any(|wait| *wait < longest / 10), "{turn}");
        }
    }

    #[test]
    fn whoever_asks_for_time_gets_it_or_nothing() {
        let policy = Retry { backoff_max: Duration::from_secs(2), ..policy() };
        for (after, expected) in [
            ("0", Some(0)),
            ("1", Some(1)),
            (" 2 ", Some(2)),
            ("3", None),
            ("99999999999999999999", None),
            ("Fri, 27 Nov 2026 00:00:00 GMT", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, after.parse().unwrap())]);
            let waited = wait(0, Some(&headers), &policy, &Random::seeded(1));
            assert_eq!(waited.map(|wait| wait.as_secs()), expected, "{after}");
        }
    }

    #[test]
    fn statuses_are_named() {
        for (status, expected) in [(200, false), (429, true), (500, false), (502, true), (504, true)] {
            assert_eq!(
                wants_status(StatusCode::from_u16(status).unwrap(), &policy().on),
                expected,
                "{status}"
            );
        }
    }
}
