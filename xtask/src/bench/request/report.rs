//! What was measured of whom, and the table of it: each figure beside that of the best other proxy.

use super::peers::Peer;
use super::scene::Scene;
use crate::bench::table::{Spread, markdown};

/// A figure, as its column is headed, and its digits behind the point.
type Column = (&'static str, usize);

/// One peer in one round: a figure a column, the first of which is compared. What nobody measured is no number.
pub(super) type Sample = Vec<f64>;

/// All samples of one peer, a round each.
pub(super) struct Series {
    pub(super) peer: Peer,
    /// Whether it speaks what the scene is about.
    pub(super) is_spoken: bool,
    pub(super) samples: Vec<Sample>,
}

impl Series {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, is_spoken: true, samples: Vec::new() }
    }

    fn spread(&self, column: usize) -> Option<Spread> {
        let figures: Option<Vec<f64>> =
            self.samples.iter().map(|sample| sample.get(column).copied()).collect();
        Spread::of(&figures?)
    }
}

pub(super) fn columns(scene: Scene) -> &'static [Column] {
    match scene {
        Scene::Latency => &[
            ("p99 µs", 0),
            ("p50 µs", 0),
            ("p99.9 µs", 0),
            ("requests/s", 0),
            ("CPU µs/request", 2),
            ("RSS MiB", 1),
        ],
        Scene::Routes => &[
            ("CPU, 5,000 to 10", 2),
            ("CPU µs/request of 10", 2),
            ("of 5,000", 2),
            ("RSS MiB of 10", 1),
            ("of 5,000", 1),
        ],
        Scene::Reloads => &[
            ("p99, reloaded to not", 2),
            ("p99 µs", 0),
            ("reloaded", 0),
            ("p50 µs", 0),
            ("reloaded", 0),
            ("p99.9 µs", 0),
            ("reloaded", 0),
            ("reloads", 0),
            ("ms each", 0),
        ],
        Scene::Idle => &[("KiB/connection", 2), ("RSS MiB", 1), ("RSS MiB without", 1)],
        Scene::Websocket => &[
            ("CPU µs/message", 2),
            ("messages/s", 0),
            ("core busy %", 0),
            ("p50 µs", 0),
            ("p99 µs", 0),
            ("RSS MiB", 1),
        ],
        _ => &[
            ("CPU µs/request", 2),
            ("requests/s", 0),
            ("core busy %", 0),
            ("p50 µs", 0),
            ("p99 µs", 0),
            ("RSS MiB", 1),
        ],
    }
}

/// The other proxy whose first figure is least.
fn best(series: &[Series]) -> Option<&Series> {
    let rivals = series.iter().filter(|one| one.peer.is_rival());
    let measured = rivals.filter_map(|one| Some((one, one.spread(0)?.median)));
    measured.min_by(|one, other| one.1.total_cmp(&other.1)).map(|(one, _)| one)
}

pub(super) fn render(scene: Scene, series: &[Series]) -> String {
    let columns = columns(scene);
    let best = best(series);
    let ratio = best.map_or_else(|| "× best".to_owned(), |best| format!("× {}", best.peer.name()));
    let mut header = vec!["", columns[0].0, &ratio];
    header.extend(columns[1..].iter().map(|(title, _)| *title));
    let row = |one: &Series| {
        if !one.is_spoken {
            return vec![one.peer.name().to_owned(), "not spoken".to_owned()];
        }
        let nothing = || "–".to_owned();
        let figure =
            |column: usize| one.spread(column).map_or_else(nothing, |spread| spread.show(columns[column].1));
        let ratio = best.and_then(|best| Spread::of(&ratios(&one.samples, &best.samples)));
        let mut row =
            vec![one.peer.name().to_owned(), figure(0), ratio.map_or_else(nothing, |ratio| ratio.show(2))];
        row.extend((1..columns.len()).map(figure));
        row
    };
    markdown(&header, &series.iter().map(row).collect::<Vec<_>>())
}

/// Round by round, so that a slow minute of the machine cancels out.
fn ratios(samples: &[Sample], to: &[Sample]) -> Vec<f64> {
    samples.iter().zip(to).map(|(one, other)| one[0] / other[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(cpu_us: &[f64]) -> Vec<Sample> {
        cpu_us.iter().map(|cpu_us| vec![*cpu_us, 1000.0, 99.5, 300.0, f64::NAN, 8.25]).collect()
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let cases: [(&str, &[f64], &[f64], f64); 3] = [
            ("equal", &[10.0, 11.0, 12.0], &[10.0, 11.0, 12.0], 1.0),
            // The median of each side would say 22 / 20 = 1.1.
            ("a machine that slows down", &[11.0, 22.0, 48.0], &[10.0, 20.0, 40.0], 1.1),
            ("one bad round", &[10.0, 10.0, 99.0], &[10.0, 10.0, 10.0], 1.0),
        ];
        for (name, ours, theirs, expected) in cases {
            let median = Spread::of(&ratios(&samples(ours), &samples(theirs))).unwrap().median;
            assert!((median - expected).abs() < 1e-9, "{name}: {median}");
        }
    }

    #[test]
    fn tables_name_everybody_and_compare_with_the_best() {
        let series = |peer, cpu_us: &[f64]| Series { samples: samples(cpu_us), ..Series::new(peer) };
        let ours = || series(Peer::Gateway, &[11.0]);
        let mute = Series { is_spoken: false, ..Series::new(Peer::Caddy) };
        let cases = [
            ("one other", vec![ours(), series(Peer::Nginx, &[10.0])], "× nginx", "1.10 (1.10–1.10)"),
            (
                "the better of two",
                vec![ours(), series(Peer::Nginx, &[10.0]), series(Peer::Haproxy, &[5.5])],
                "× HAProxy",
                "2.00 (2.00–2.00)",
            ),
            (
                "a relay is no rival",
                vec![ours(), series(Peer::Nginx, &[10.0]), series(Peer::Relay, &[1.0])],
                "× nginx",
                "0.10 (0.10–0.10)",
            ),
            ("nobody else", vec![ours()], "× best", " – |"),
            ("one that does not speak", vec![ours(), mute], "× best", "not spoken"),
            ("nobody measured", vec![series(Peer::Gateway, &[])], "× best", "| gateway |              – |"),
        ];
        for (name, series, header, expected) in cases {
            let table = render(Scene::Plain, &series);
            assert!(table.contains(header) && table.contains(expected), "{name}:\n{table}");
        }
    }
}
