//! Who of an upstream's endpoints gets requests at all: the highest priority that is well enough, the gateway's own zone
//! before the others, and everybody when so few are well that they would break down, too.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model;

use super::super::random::Random;
use super::balance::{Group, Member};
use super::ring;

/// A level takes all requests until fewer than 100/140 of its endpoints are well: so much more than its share everybody
/// can take. Envoy's factor.
const OVERPROVISIONING: u64 = 140;

/// The endpoints that get requests, until a verdict changes.
#[derive(Debug)]
pub(super) struct View {
    /// Of the state that it shows.
    pub(super) version: u64,
    /// The first ones take the requests; those with no share are only asked when nobody else can be connected to.
    parts: Vec<Part>,
    /// The indices of all of them, part by part.
    candidates: Vec<usize>,
}

#[derive(Debug)]
struct Part {
    /// Of a hundred requests, how many come here or to a part before.
    until: u64,
    group: Group,
    range: Range<usize>,
}

impl View {
    pub(super) fn new(settings: &model::Upstream, version: u64, is_up: impl Fn(usize) -> bool) -> Self {
        let mut view = Self { version, parts: Vec::new(), candidates: Vec::new() };
        let (mut until, mut reserves) = (0, Vec::new());
        for (share, members) in divide(settings, is_up) {
            match share {
                0 => reserves.push(members),
                share => {
                    until += share;
                    view.push(until, &members, settings);
                }
            }
        }
        for members in reserves {
            view.push(until, &members, settings);
        }
        view
    }

    fn push(&mut self, until: u64, members: &[usize], settings: &model::Upstream) {
        let member = |&index: &usize| {
            let endpoint = &settings.endpoints[index];
            let identity = ring::hash(&(&endpoint.at, endpoint.is_secure));
            Member { index, weight: endpoint.weight, identity }
        };
        let group = Group::new(
            members.iter().map(member).collect(),
            &settings.balance,
            settings.slow_start.is_some(),
        );
        let start = self.candidates.len();
        self.candidates.extend(members);
        self.parts.push(Part { until, group, range: start..self.candidates.len() });
    }

    /// The groups in the order in which a request asks them. The same key takes the same group.
    pub(super) fn groups(&self, key: Option<u64>, random: &Random) -> impl Iterator<Item = &Group> {
        let first = match self.parts.first() {
            // There is nothing to choose.
            Some(part) if part.until >= 100 => 0,
            _ => {
                let point = key.map_or_else(|| random.below(100), |key| key % 100);
                self.parts.iter().position(|part| part.until > point).unwrap_or(0)
            }
        };
        let others = self.parts.iter().enumerate().filter(move |(index, _)| *index != first);
        self.parts.get(first).into_iter().chain(others.map(|(_, part)| part)).map(|part| &part.group)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.candidates.contains(&index)
    }

    /// The `turn`th to be asked when the first is this one: those of its part one after the other, then all others.
    pub(super) fn after(&self, first: usize, turn: usize) -> Option<usize> {
        let part = self.parts.iter().find(|part| self.candidates[part.range.clone()].contains(&first))?;
        let own = &self.candidates[part.range.clone()];
        let start = own.iter().position(|index| *index == first)?;
        if turn < own.len() {
            return Some(own[(start + turn) % own.len()]);
        }
        let rest = turn - own.len();
        let skipped = if rest < part.range.start { rest } else { rest + own.len() };
        self.candidates.get(skipped).copied()
    }
}

/// Endpoints that get a share of the requests together, in percent.
type Share = (u64, Vec<usize>);

/// By priority and then by zone.
fn divide(settings: &model::Upstream, is_up: impl Fn(usize) -> bool) -> Vec<Share> {
    let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, endpoint) in settings.endpoints.iter().enumerate() {
        levels.entry(endpoint.priority).or_default().push(index);
    }
    let levels: Vec<Level> = levels
        .into_values()
        .map(|all| Level { up: all.iter().copied().filter(|index| is_up(*index)).collect(), all })
        .collect();
    let counts: Vec<_> = levels.iter().map(Level::counts).collect();
    // As long as the levels can take all requests together, nobody panics.
    let can_take: u64 = counts.iter().map(|(up, all)| capacity(*up, *all)).sum();
    let panics =
        |(up, all): (usize, usize)| can_take < 100 && (up * 100) < all * settings.panic_threshold as usize;
    let shares = if counts.iter().all(|count| panics(*count)) {
        // Who is well says nothing any more, so the number of endpoints does.
        let everybody: usize = counts.iter().map(|(_, all)| all).sum();
        whole(counts.iter().map(|(_, all)| (all * 100 / everybody.max(1)) as u64).collect())
    } else {
        spread(&counts)
    };
    let mut divided = Vec::new();
    for ((level, count), share) in levels.into_iter().zip(counts).zip(shares) {
        if panics(count) {
            divided.push((share, level.all));
        } else {
            divided.extend(level.by_zone(share, settings));
        }
    }
    divided.retain(|(_, members)| !members.is_empty());
    divided
}

/// Endpoints of one priority.
struct Level {
    all: Vec<usize>,
    up: Vec<usize>,
}

impl Level {
    fn counts(&self) -> (usize, usize) {
        (self.up.len(), self.all.len())
    }

    /// The gateway's own zone first, then the others together.
    fn by_zone(self, share: u64, settings: &model::Upstream) -> Vec<Share> {
        let Some(zone) = &settings.zone else { return vec![(share, self.up)] };
        let is_near = |index: &usize| settings.endpoints[*index].zone.as_ref() == Some(zone);
        let near_all = self.all.iter().filter(|index| is_near(index)).count();
        let far_all = self.all.len() - near_all;
        let (near, far): (Vec<_>, Vec<_>) = self.up.into_iter().partition(is_near);
        let parts = spread(&[(near.len(), near_all), (far.len(), far_all)]);
        let near_share = share * parts[0] / 100;
        vec![(near_share, near), (share - near_share, far)]
    }
}

/// How much of all requests a level can take, in percent.
fn capacity(up: usize, all: usize) -> u64 {
    if all == 0 { 0 } else { (OVERPROVISIONING * up as u64 / all as u64).min(100) }
}

/// Gives each level what it can take of what those before it leave; in percent, a hundred together. If all of them
/// cannot take everything, each gets as much more. Nobody gets anything where nobody is up.
fn spread(levels: &[(usize, usize)]) -> Vec<u64> {
    let capacities: Vec<u64> = levels.iter().map(|(up, all)| capacity(*up, *all)).collect();
    let total: u64 = capacities.iter().sum();
    let mut left = if total == 0 { 0 } else { 100 };
    let mut shares: Vec<u64> = Vec::with_capacity(levels.len());
    for capacity in capacities {
        let share = (capacity * 100 / total.clamp(1, 100)).min(left);
        left -= share;
        shares.push(share);
    }
    whole(shares)
}

/// What rounding left over is the first one's.
fn whole(mut shares: Vec<u64>) -> Vec<u64> {
    let left = 100_u64.saturating_sub(shares.iter().sum());
    if let Some(share) = shares.iter_mut().find(|share| **share > 0) {
        *share += left;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Endpoint;

    #[test]
    fn levels_take_what_they_can() {
        for (name, levels, expected) in [
            ("all are well", &[(5, 5), (5, 5)][..], &[100, 0][..]),
            ("enough are", &[(8, 10), (5, 5)], &[100, 0]),
            ("too few are", &[(5, 10), (5, 5)], &[70, 30]),
            ("none is", &[(0, 10), (5, 5)], &[0, 100]),
            ("both have too few", &[(1, 4), (1, 4)], &[50, 50]),
            ("three", &[(1, 2), (1, 7), (9, 9)], &[70, 20, 10]),
            ("nobody", &[(0, 2), (0, 2)], &[0, 0]),
        ] {
            assert_eq!(spread(levels), expected, "{name}");
        }
    }

    /// Endpoints as `priority zone`, with a `-` behind if they are down.
    fn divided(endpoints: &[&str], zone: Option<&str>, panic_threshold: u32) -> Vec<Share> {
        let mut settings = model::Upstream::new("u", Vec::new());
        settings.zone = zone.map(str::to_owned);
        settings.panic_threshold = panic_threshold;
        for (port, text) in (1..).zip(endpoints) {
            let mut endpoint = Endpoint::tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
            endpoint.priority = u32::from(text.as_bytes()[0] - b'0');
            endpoint.zone = Some(text[1..2].to_owned());
            settings.endpoints.push(endpoint);
        }
        divide(&settings, |index| !endpoints[index].ends_with('-'))
    }

    #[test]
    fn priorities_zones_and_panic() {
        for (name, endpoints, zone, threshold, expected) in [
            ("one level", &["0a", "0b"][..], None, 50, vec![(100, vec![0, 1])]),
            ("a reserve", &["0a", "1a"], None, 50, vec![(100, vec![0]), (0, vec![1])]),
            ("the reserve's turn", &["0a-", "1a"], None, 50, vec![(100, vec![1])]),
            ("spill-over", &["0a", "0a-", "1a"], None, 50, vec![(70, vec![0]), (30, vec![2])]),
            ("panic", &["0a", "0a-", "0a-"], None, 50, vec![(100, vec![0, 1, 2])]),
            ("no panic at the threshold", &["0a", "0a-"], None, 50, vec![(100, vec![0])]),
            ("panic switched off", &["0a", "0a-", "0a-"], None, 0, vec![(100, vec![0])]),
            ("all down", &["0a-", "1a-", "1a-", "1a-"], None, 50, vec![(25, vec![0]), (75, vec![1, 2, 3])]),
            ("all down and no panic", &["0a-"], None, 0, vec![]),
            (
                "nobody panics while a reserve can take it",
                &["0a-", "0a-", "0a", "1a"],
                None,
                50,
                vec![(46, vec![2]), (54, vec![3])],
            ),
            ("the own zone", &["0a", "0b", "0a"], Some("a"), 50, vec![(100, vec![0, 2]), (0, vec![1])]),
            ("it is short", &["0a", "0b", "0a-"], Some("a"), 50, vec![(70, vec![0]), (30, vec![1])]),
            ("nobody is there", &["0a", "0b"], Some("c"), 50, vec![(100, vec![0, 1])]),
            ("panic knows no zones", &["0a-", "0b", "0a-"], Some("a"), 50, vec![(100, vec![0, 1, 2])]),
        ] {
            assert_eq!(divided(endpoints, zone, threshold), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_a_whole(levels in proptest::collection::vec((0_usize..9, 0_usize..9), 1..6)) {
            let levels: Vec<_> = levels.into_iter().map(|(up, down)| (up, up + down)).collect();
            let shares = spread(&levels);
            let expected = if levels.iter().any(|(up, _)| *up > 0) { 100 } else { 0 };
            prop_assert_eq!(shares.iter().sum::<u64>(), expected);
            for (share, (up, _)) in shares.iter().zip(&levels) {
                prop_assert!(*share == 0 || *up > 0);
            }
        }

        #[test]
        fn everybody_is_asked_once(count in 1_usize..8, first in 0_usize..8, reserves in 0_usize..3) {
            let names: Vec<_> = (0..count).map(|_| "0a").chain((0..reserves).map(|_| "1a")).collect();
            let mut settings = model::Upstream::new("u", Vec::new());
            for (port, name) in (1..).zip(&names) {
                let mut endpoint = Endpoint::tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
                endpoint.priority = u32::from(name.as_bytes()[0] - b'0');
                settings.endpoints.push(endpoint);
            }
            let view = View::new(&settings, 0, |_| true);
            let first = first % names.len();
            let mut asked: Vec<_> = (0..names.len()).filter_map(|turn| view.after(first, turn)).collect();
            prop_assert_eq!(asked[0], first);
            prop_assert_eq!(view.after(first, names.len()), None);
            asked.sort_unstable();
            prop_assert_eq!(asked, (0..names.len()).collect::<Vec<_>>());
        }
    }
}
