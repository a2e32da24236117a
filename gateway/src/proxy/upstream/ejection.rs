//! Ejection: an endpoint that fails request after request, or more of them than the others, gets none for a while, and for
//! longer each time. The numbers are Envoy's (outlier detection).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::model::{Ejection, SuccessRate};

/// What came of sending a request to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer that is not the server's failure.
    Good,
    /// A status of 5xx.
    ServerError,
    /// 502, 503 or 504, or no answer at all.
    GatewayError,
}

impl Outcome {
    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::GatewayError,
            500..=599 => Self::ServerError,
            _ => Self::Good,
        }
    }
}

/// The record of an endpoint, over all workers.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Failures in a row.
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    /// Since the last look: requests in the upper half, good ones among them in the lower. One word, so that a request
    /// writes once and a look takes both as they belong together. It is only kept where rates are compared; in the
    /// hour that an interval may last, a million requests a second fit.
    rate: AtomicU64,
    /// Until when it is out, in milliseconds; 0: it is not.
    until: AtomicU64,
    /// How often it was ejected, less one for each interval in which it was not.
    times: AtomicU32,
}

impl Record {
    /// One more outcome. Whether it is one too many.
    pub(super) fn count(&self, outcome: Outcome, limits: &Ejection) -> bool {
        if limits.success_rate.is_some() {
            let one = ONE_REQUEST + u64::from(outcome == Outcome::Good);
            self.rate.fetch_add(one, Ordering::Relaxed);
        }
        let counted = [
            (&self.server_errors, outcome != Outcome::Good, limits.consecutive_5xx),
            (&self.gateway_errors, outcome == Outcome::GatewayError, limits.consecutive_gateway_errors),
        ];
        let mut is_too_many = false;
        for (count, is_failure, limit) in counted {
            if is_failure {
                is_too_many |= count.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= limit;
            } else if count.load(Ordering::Relaxed) != 0 {
                // Only then is it written: workers would take the line from each other with every good answer.
                count.store(0, Ordering::Relaxed);
            }
        }
        is_too_many
    }

    /// Requests since the last time, and good ones among them.
    pub(super) fn take_rate(&self) -> (u32, u32) {
        let rate = self.rate.swap(0, Ordering::Relaxed);
        ((rate / ONE_REQUEST) as u32, rate as u32)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// For how long it stays out.
    pub(super) fn left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.until.load(Ordering::Relaxed).saturating_sub(now_ms))
    }

    /// Takes it out. For how long; `None` if it was out already.
    pub(super) fn eject(&self, now_ms: u64, limits: &Ejection) -> Option<Duration> {
        let time = time(self.times.load(Ordering::Relaxed).saturating_add(1), limits);
        let until = now_ms + (time.as_millis() as u64).max(1);
        self.until.compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.times.fetch_add(1, Ordering::Relaxed);
        Some(time)
    }

    /// An interval is over. Whether the endpoint is back by it.
    pub(super) fn look(&self, now_ms: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            let fewer = |times: u32| times.checked_sub(1);
            let _ = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
            return false;
        }
        if until > now_ms {
            return false;
        }
        self.server_errors.store(0, Ordering::Relaxed);
        self.gateway_errors.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
        true
    }
}

/// In a record's rate.
const ONE_REQUEST: u64 = 1 << 32;

/// Whose share of good answers is too far below the others', by their indices. Each of them with its requests and the good
/// ones among those.
pub(super) fn outliers(rates: &[(u32, u32)], limits: &SuccessRate) -> Vec<usize> {
    let share = |(index, &(all, good)): (usize, &(u32, u32))| {
        (all >= limits.request_volume.max(1)).then(|| (index, f64::from(good) / f64::from(all)))
    };
    let shares: Vec<(usize, f64)> = rates.iter().enumerate().filter_map(share).collect();
    if shares.is_empty() || shares.len() < limits.minimum_hosts as usize {
        return Vec::new();
    }
    let count = shares.len() as f64;
    let mean = shares.iter().map(|(_, share)| share).sum::<f64>() / count;
    let variance = shares.iter().map(|(_, share)| (share - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - variance.sqrt() * f64::from(limits.stdev_factor) / 1000.0;
    shares.into_iter().filter(|(_, share)| *share < threshold).map(|(index, _)| index).collect()
}

/// How long the `times`th ejection takes.
fn time(times: u32, limits: &Ejection) -> Duration {
    limits.base_time.saturating_mul(times).min(limits.max_time.max(limits.base_time))
}

/// Whether one more may be taken out. One always may, or a small upstream would have no use for this; but not the only
/// one.
pub(super) fn has_room(ejected: usize, all: usize, limits: &Ejection) -> bool {
    let part_is_left = (ejected + 1) * 100 <= all * limits.max_percent as usize;
    all > 1 && (ejected == 0 || part_is_left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Ejection {
        Ejection {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 3,
            success_rate: None,
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(100),
            max_percent: 10,
        }
    }

    #[test]
    fn failures_count_in_a_row() {
        // g: a gateway's error, s: another error of the server, +: none; the result is when it is one too many.
        for (name, outcomes, expected) in [
            ("few", "ssss", None),
            ("five", "sssss", Some(4)),
            ("an answer in between", "ssss+ssss", None),
            ("three of the other kind", "ggg", Some(2)),
            ("both kinds are errors", "sggss", Some(4)),
            ("other errors break a row of gateway errors", "ggsgg", Some(4)),
            ("and are counted", "gsgs", None),
        ] {
            let record = Record::default();
            let outcome = |char| match char {
                's' => Outcome::ServerError,
                'g' => Outcome::GatewayError,
                _ => Outcome::Good,
            };
            let reached = outcomes.chars().position(|char| record.count(outcome(char), &limits()));
            assert_eq!(reached, expected, "{name}");
        }
    }

    #[test]
    fn rates_are_held_against_each_other() {
        let limits = SuccessRate { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 };
        let good = (100, 100);
        for (name, rates, expected) in [
            ("nobody", &[][..], &[][..]),
            ("all alike", &[good; 6], &[]),
            ("all alike and bad", &[(100, 50); 6], &[]),
            ("one falls behind", &[good, good, (100, 90), good, good, good], &[2]),
            ("too few to compare", &[good, good, (100, 0), good], &[]),
            ("too few that have enough requests", &[good, good, (100, 0), good, (99, 99)], &[]),
            ("it has too few itself", &[good, good, (99, 0), good, good, good], &[]),
            // Of five, one can be two deviations away at most: the others' spread hides it.
            ("within the spread", &[(100, 90), (100, 95), (100, 100), (100, 85), (100, 80)], &[]),
            ("more requests count no more", &[(9000, 9000), good, (100, 90), good, good, good], &[2]),
        ] {
            assert_eq!(outliers(rates, &limits), expected, "{name}");
        }
        let near = SuccessRate { stdev_factor: 0, ..limits };
        assert_eq!(outliers(&[good, good, good, good, (100, 99)], &near), [4]);
    }

    #[test]
    fn a_rate_is_kept_where_it_is_compared() {
        let rates = Some(SuccessRate { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 });
        for (success_rate, expected) in [(rates, (5, 3)), (None, (0, 0))] {
            let (record, limits) = (Record::default(), Ejection { success_rate, ..limits() });
            for outcome in
                [Outcome::Good, Outcome::ServerError, Outcome::Good, Outcome::GatewayError, Outcome::Good]
            {
                record.count(outcome, &limits);
            }
            assert_eq!((record.take_rate(), record.take_rate()), (expected, (0, 0)));
        }
    }

    #[test]
    fn each_time_is_longer() {
        let (record, limits) = (Record::default(), limits());
        let mut now = 0;
        for seconds in [30, 60, 90, 100, 100] {
            assert_eq!(record.eject(now, &limits), Some(Duration::from_secs(seconds)));
            assert_eq!(record.eject(now, &limits), None, "it is out already");
            now += seconds * 1000 - 1;
            assert!(!record.look(now) && record.is_ejected(), "not yet");
            now += 1;
            assert!(record.look(now) && !record.is_ejected());
        }
        // Good behaviour is rewarded, an interval at a time.
        for _ in 0..4 {
            assert!(!record.look(now));
        }
        assert_eq!(record.eject(now, &limits), Some(Duration::from_secs(60)));
        assert_eq!(record.left(now + 1000), Duration::from_secs(59));
    }

    #[test]
    fn not_everybody_is_taken_out() {
        for (ejected, all, max_percent, expected) in [
            (0, 1, 100, false),
            (0, 2, 10, true),
            (1, 2, 10, false),
            (1, 10, 10, false),
            (1, 20, 10, true),
            (2, 20, 10, false),
            (1, 2, 100, true),
        ] {
            let limits = Ejection { max_percent, ..limits() };
            assert_eq!(has_room(ejected, all, &limits), expected, "{ejected} of {all}, {max_percent}%");
        }
    }

    #[test]
    fn statuses_are_outcomes() {
        for (status, expected) in [
            (200, Outcome::Good),
            (404, Outcome::Good),
            (499, Outcome::Good),
            (500, Outcome::ServerError),
            (501, Outcome::ServerError),
            (502, Outcome::GatewayError),
            (504, Outcome::GatewayError),
            (505, Outcome::ServerError),
        ] {
            assert_eq!(Outcome::of(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
