//! What was measured of whom, and the table of it: each figure beside the floor's.

use super::peers::Peer;
use super::scene::Kind;
use crate::bench::table::{Spread, markdown};

/// One peer in one round: a figure a column, the first of which is compared.
pub(super) type Sample = Vec<f64>;

/// All samples of one peer, a round each.
pub(super) struct Series {
    pub(super) peer: Peer,
    pub(super) samples: Vec<Sample>,
    /// Why it could not be measured.
    pub(super) failure: Option<String>,
}

impl Series {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, samples: Vec::new(), failure: None }
    }
}

/// A figure, as its column is headed, and its digits behind the point.
pub(super) fn columns(kind: Kind) -> &'static [(&'static str, usize)] {
    match kind {
        Kind::Replies => &[
            ("CPU µs/request", 1),
            ("requests/s", 0),
            ("core busy %", 0),
            ("p50 µs", 0),
            ("p99 µs", 0),
            ("RSS MiB", 1),
        ],
        Kind::Events => &[("CPU µs/event", 2), ("events/s", 0), ("core busy %", 0), ("RSS MiB", 1)],
        Kind::Alone | Kind::First => &[("p50 µs", 0), ("p99 µs", 0), ("CPU µs/request", 1), ("RSS MiB", 1)],
    }
}

/// Whether a figure is told as what it is above the floor; else as a multiple of it.
fn is_difference(kind: Kind) -> bool {
    matches!(kind, Kind::Alone | Kind::First)
}

pub(super) fn render(kind: Kind, series: &[Series]) -> String {
    let columns = columns(kind);
    let floor = series.iter().find(|one| one.peer == Peer::Floor);
    let compared = if is_difference(kind) { "above the floor" } else { "× floor" };
    let mut header = vec!["", columns[0].0, compared];
    header.extend(columns[1..].iter().map(|(title, _)| *title));
    let row = |one: &Series| {
        if let Some(failure) = &one.failure {
            let words = failure.lines().next().unwrap_or_default();
            return vec![one.peer.name().to_owned(), format!("failed: {words}")];
        }
        let figure = |column: usize| {
            let figures: Vec<f64> = one.samples.iter().map(|sample| sample[column]).collect();
            Spread::of(&figures).map_or_else(|| "–".to_owned(), |spread| spread.show(columns[column].1))
        };
        let compared = floor.and_then(|floor| Spread::of(&compare(kind, &one.samples, &floor.samples)));
        let digits = if is_difference(kind) { columns[0].1 } else { 2 };
        let compared = compared.map_or_else(|| "–".to_owned(), |spread| spread.show(digits));
        let mut row = vec![one.peer.name().to_owned(), figure(0), compared];
        row.extend((1..columns.len()).map(figure));
        row
    };
    markdown(&header, &series.iter().map(row).collect::<Vec<_>>())
}

/// Round by round, so that a slow minute of the machine cancels out.
fn compare(kind: Kind, samples: &[Sample], floor: &[Sample]) -> Vec<f64> {
    let one = |(sample, floor): (&Sample, &Sample)| {
        if is_difference(kind) { sample[0] - floor[0] } else { sample[0] / floor[0] }
    };
    samples.iter().zip(floor).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_beside_the_floor() {
        let series = |peer, first: &[f64]| Series {
            samples: first.iter().map(|first| vec![*first, 1000.0, 99.0, 40.0, 90.0, 8.0]).collect(),
            ..Series::new(peer)
        };
        let both =
            |first: &[f64], floor: &[f64]| vec![series(Peer::Gateway, first), series(Peer::Floor, floor)];
        let cases = [
            ("a multiple", Kind::Replies, both(&[11.0, 24.0], &[10.0, 20.0]), "1.15 (1.10–1.20)"),
            ("a difference", Kind::Alone, both(&[60.0, 70.0], &[50.0, 50.0]), "15 (10–20)"),
            (
                "one that failed",
                Kind::Replies,
                vec![Series { failure: Some("not 200\nmore".to_owned()), ..Series::new(Peer::Rolter) }],
                "| failed: not 200 |",
            ),
            ("no floor", Kind::Replies, vec![series(Peer::Gateway, &[11.0])], " – |"),
        ];
        for (name, kind, series, expected) in cases {
            let table = render(kind, &series);
            assert!(table.contains(expected), "{name}:\n{table}");
        }
    }
}
