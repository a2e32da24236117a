//! How fast an endpoint answers: a mean that follows peaks at once and forgets them slowly, so that one slow answer
//! keeps requests away for a while (peak EWMA, as Finagle calls it).

use std::cell::Cell;
use std::time::{Duration, Instant};

/// In how long what was seen loses two thirds of its weight.
const DECAY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Latency {
    seconds: Cell<f64>,
    seen: Cell<Option<Instant>>,
}

impl Latency {
    /// An answer took so long.
    pub(super) fn observe(&self, took: Duration, now: Instant) {
        let (took, known) = (took.as_secs_f64(), self.seconds.get());
        let kept = self.kept(now);
        self.seconds.set(if took > known { took } else { known * kept + took * (1.0 - kept) });
        self.seen.set(Some(now));
    }

    /// In how many seconds an answer is expected. Nothing, as long as there was none: whoever is new is tried.
    pub(super) fn expected(&self, now: Instant) -> f64 {
        self.seconds.get() * self.kept(now)
    }

    fn kept(&self, now: Instant) -> f64 {
        let Some(seen) = self.seen.get() else { return 0.0 };
        (-now.saturating_duration_since(seen).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let (latency, now) = (Latency::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(latency.expected(now), 0.0);
        latency.observe(second / 100, now);
        assert_eq!(latency.expected(now), 0.01);
        latency.observe(second, now);
        assert_eq!(latency.expected(now), 1.0, "a peak");
        latency.observe(second / 100, now + second);
        let expected = latency.expected(now + second);
        assert!((0.9..1.0).contains(&expected), "one fast answer is no proof: {expected}");
        let expected = latency.expected(now + 60 * second);
        assert!(expected < 0.01, "nobody is kept away for ever: {expected}");
    }
}
