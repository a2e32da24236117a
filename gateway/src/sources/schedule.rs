//! When a source is fetched next.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The part of a wait that chance may add: hosts that were started together must not fetch together for ever.
const JITTER: f64 = 0.1;

/// The waits of one source.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    /// After the first failure; doubled with each one that follows.
    backoff: Duration,
    failures: u32,
}

impl Schedule {
    pub(super) fn new(refresh: Duration, backoff: Duration) -> Self {
        // A refresh of nothing would be a flood.
        Self { refresh: refresh.max(backoff), backoff, failures: 0 }
    }

    /// How long to wait after an attempt. `chance` is in 0..1.
    pub(super) fn after(&mut self, failed: bool, chance: f64) -> Duration {
        let wait = if failed {
            let doubled = self.backoff.saturating_mul(1 << self.failures.min(30));
            self.failures = self.failures.saturating_add(1);
            doubled.min(self.refresh)
        } else {
            self.failures = 0;
            self.refresh
        };
        wait.saturating_add(wait.mul_f64(JITTER * chance.clamp(0.0, 1.0)))
    }
}

/// A number in 0..1. The keys of hash maps are random enough to spread fetches, and are in the standard library.
pub(super) fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_and_begin_anew_after_success() {
        // A letter an attempt: `.` succeeds, `x` fails. The waits are in seconds.
        let cases: &[(&str, u64, &str, f64, &[f64])] = &[
            ("refresh", 600, "..", 0.0, &[600.0, 600.0]),
            ("doubling", 600, "xxxx", 0.0, &[5.0, 10.0, 20.0, 40.0]),
            ("at most a refresh", 12, "xxxx", 0.0, &[5.0, 10.0, 12.0, 12.0]),
            ("begun anew", 600, "xx.x", 0.0, &[5.0, 10.0, 600.0, 5.0]),
            ("jitter adds a tenth at most", 600, ".x", 1.0, &[660.0, 5.5]),
            ("half of the jitter", 600, ".", 0.5, &[630.0]),
            ("a refresh of nothing", 0, ".x", 0.0, &[5.0, 5.0]),
        ];
        for (name, refresh, attempts, chance, expected) in cases {
            let mut schedule = Schedule::new(Duration::from_secs(*refresh), Duration::from_secs(5));
            let waits: Vec<f64> = attempts
                .chars()
                .map(|attempt| schedule.after(attempt == 'x', *chance).as_secs_f64())
                .collect();
            assert_eq!(waits, *expected, "{name}");
        }
        let mut schedule = Schedule::new(Duration::MAX, Duration::from_secs(5));
        for _ in 0..100 {
            assert!(schedule.after(true, chance()) >= Duration::from_secs(5));
        }
    }
}
