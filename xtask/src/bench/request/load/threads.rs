//! Load of this program's own: a thread a connection, and percentiles of what each of them measured.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::{CONNECTIONS, Latency, Report};

/// How long one thread waits for bytes before the run has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs one client a connection until the time is over, and puts together how long each of their requests took.
pub(super) fn run(
    seconds: u32,
    client: impl Fn(usize, Instant) -> Result<Vec<Duration>> + Sync,
) -> Result<Report> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds.into());
    let results = thread::scope(|scope| {
        let client = &client;
        let running: Vec<_> =
            (0..CONNECTIONS).map(|number| scope.spawn(move || client(number, end))).collect();
        running
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow!("a client panicked")))
            .collect::<Vec<_>>()
    });
    let elapsed_s = begin.elapsed().as_secs_f64();
    let mut took = Vec::new();
    for result in results {
        took.extend(result??);
    }
    ensure!(!took.is_empty(), "no request was answered");
    took.sort_unstable();
    Ok(Report {
        requests: took.len() as u64,
        requests_per_s: took.len() as f64 / elapsed_s,
        latency: Some(Latency {
            p50_us: percentile_us(&took, 500),
            p99_us: percentile_us(&took, 990),
            p999_us: Some(percentile_us(&took, 999)),
        }),
    })
}

/// Of sorted figures: the least that so many of a thousand are not above.
pub(in crate::bench) fn percentile_us(sorted: &[Duration], of_thousand: usize) -> f64 {
    let rank = (sorted.len() * of_thousand).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let figures: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        for (of_thousand, expected) in [(500, 500.0), (990, 990.0), (999, 999.0), (1000, 1000.0)] {
            assert!((percentile_us(&figures, of_thousand) - expected).abs() < 1e-6, "{of_thousand}");
        }
        assert!((percentile_us(&figures[..1], 990) - 1.0).abs() < 1e-6);
    }
}
