//! Whose turn it is: picks one of a group of endpoints for a request.

use std::cell::{Cell, RefCell};

use crate::model::Balance;

use super::super::random::Random;
use super::ring::Ring;

/// How often chance may hit somebody who is out before the others are asked in order.
const DRAWS: usize = 8;

/// Warmth is told in percent.
pub(super) const WARM: u64 = 100;

/// Endpoints that share requests, and what is kept to share them well.
#[derive(Debug)]
pub(super) struct Group {
    members: Vec<Member>,
    policy: Policy,
}

/// An endpoint in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Among the upstream's endpoints.
    pub(super) index: usize,
    pub(super) weight: u32,
    /// Says who it is, whatever its place.
    pub(super) identity: u64,
}

#[derive(Debug)]
enum Policy {
    /// One after the other.
    Turns(Cell<usize>),
    /// One after the other by weight, with what each has saved up: of weights 5, 1, 1 the first gets no five in a row
    /// (as nginx does it).
    Smooth(RefCell<Vec<i64>>),
    /// The better of two. Each member with the sum of the weights up to its own.
    Choices(Vec<u64>, Measure),
    /// By a key.
    Keys(Ring),
}

/// What makes one better.
#[derive(Debug, Clone, Copy)]
enum Measure {
    InFlight,
    Latency,
}

/// How the endpoints fare at this moment; by their index.
pub(super) trait Fares {
    /// Requests that it has to answer.
    fn in_flight(&self, index: usize) -> usize;
    /// In how many seconds it is expected to answer one.
    fn latency(&self, index: usize) -> f64;
    /// How much of its weight counts, in percent.
    fn warmth(&self, index: usize) -> u64;
    /// Whether it is worth asking.
    fn is_usable(&self, index: usize) -> bool;
}

impl Group {
    pub(super) fn new(members: Vec<Member>, balance: &Balance, has_slow_start: bool) -> Self {
        let alike = members.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let policy = match balance {
            Balance::RoundRobin | Balance::Sticky { .. } if alike && !has_slow_start => {
                Policy::Turns(Cell::new(0))
            }
            Balance::RoundRobin | Balance::Sticky { .. } => {
                Policy::Smooth(RefCell::new(vec![0; members.len()]))
            }
            Balance::LeastRequest => Policy::Choices(sums(&members), Measure::InFlight),
            Balance::PeakEwma => Policy::Choices(sums(&members), Measure::Latency),
            Balance::Hash(_) => Policy::Keys(Ring::new(members.iter().map(|m| (m.identity, m.weight)))),
        };
        Self { members, policy }
    }

    /// The index of a usable endpoint. A request without the key that its upstream hashes by goes anywhere.
    pub(super) fn pick(&self, key: Option<u64>, fares: &impl Fares, random: &Random) -> Option<usize> {
        let member = match &self.policy {
            Policy::Turns(next) => {
                let start = next.get();
                next.set(start.wrapping_add(1));
                self.first_from(start, fares)
            }
            Policy::Smooth(saved) => self.smooth(&mut saved.borrow_mut(), fares),
            Policy::Choices(sums, measure) => self.better_of_two(sums, *measure, fares, random),
            Policy::Keys(ring) => self.of_key(ring, key.unwrap_or_else(|| random.next()), fares),
        };
        member.map(|member| self.members[member].index)
    }

    fn is_usable(&self, member: usize, fares: &impl Fares) -> bool {
        fares.is_usable(self.members[member].index)
    }

    fn first_from(&self, start: usize, fares: &impl Fares) -> Option<usize> {
        let count = self.members.len();
        (0..count)
            .map(|offset| start.wrapping_add(offset) % count)
            .find(|member| self.is_usable(*member, fares))
    }

    fn weight(&self, member: usize, fares: &impl Fares) -> u64 {
        let Member { index, weight, .. } = self.members[member];
        u64::from(weight) * fares.warmth(index)
    }

    fn smooth(&self, saved: &mut [i64], fares: &impl Fares) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for member in (0..self.members.len()).filter(|member| self.is_usable(*member, fares)) {
            let weight = self.weight(member, fares).max(1) as i64;
            saved[member] += weight;
            total += weight;
            if best.is_none_or(|best| saved[member] > saved[best]) {
                best = Some(member);
            }
        }
        saved[best?] -= total;
        best
    }

    /// Draws two by weight and takes the better one. Of equal ones the first that was drawn, so that weights hold
    /// while there is little to do.
    fn better_of_two(
        &self,
        sums: &[u64],
        measure: Measure,
        fares: &impl Fares,
        random: &Random,
    ) -> Option<usize> {
        let first = self.draw(sums, None, fares, random)?;
        let Some(second) = self.draw(sums, Some(first), fares, random) else { return Some(first) };
        // Held against the weight; the other's instead of a division by one's own.
        let cost = |member: usize, other: usize| {
            let index = self.members[member].index;
            let in_flight = fares.in_flight(index) as f64;
            let cost = match measure {
                Measure::InFlight => in_flight,
                Measure::Latency => fares.latency(index) * (in_flight + 1.0),
            };
            cost * self.weight(other, fares) as f64
        };
        Some(if cost(second, first) < cost(first, second) { second } else { first })
    }

    fn draw(
        &self,
        sums: &[u64],
        other_than: Option<usize>,
        fares: &impl Fares,
        random: &Random,
    ) -> Option<usize> {
        let fits = |member: usize| Some(member) != other_than && self.is_usable(member, fares);
        let total = *sums.last()?;
        for _ in 0..DRAWS {
            let point = random.below(total);
            let member = sums.partition_point(|sum| *sum <= point);
            let is_warm = random.below(WARM) < fares.warmth(self.members[member].index);
            if is_warm && fits(member) {
                return Some(member);
            }
        }
        let start = random.below(self.members.len() as u64) as usize;
        (0..self.members.len())
            .map(|offset| (start + offset) % self.members.len())
            .find(|member| fits(*member))
    }

    /// The first behind the key that would not have more than 1.25 times its share of the requests in flight. There
    /// always is one: they cannot all have more than their share.
    fn of_key(&self, ring: &Ring, key: u64, fares: &impl Fares) -> Option<usize> {
        let (mut in_flight, mut total) = (1, 0);
        for member in (0..self.members.len()).filter(|member| self.is_usable(*member, fares)) {
            in_flight += fares.in_flight(self.members[member].index) as u64;
            total += u64::from(self.members[member].weight);
        }
        let has_room = |member: usize| {
            let Member { index, weight, .. } = self.members[member];
            let bound = (5 * in_flight * u64::from(weight)).div_ceil(4 * total.max(1));
            (fares.in_flight(index) as u64) < bound
        };
        ring.walk(key).find(|member| self.is_usable(*member, fares) && has_room(*member))
    }
}

fn sums(members: &[Member]) -> Vec<u64> {
    let mut sum = 0;
    members
        .iter()
        .map(|member| {
            sum += u64::from(member.weight);
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ring::hash;
    use super::*;
    use crate::model::HashKey;

    /// Endpoints as a test wants them.
    #[derive(Debug, Clone)]
    struct Wanted {
        in_flight: Vec<usize>,
        latency: Vec<f64>,
        warmth: Vec<u64>,
        out: Vec<usize>,
    }

    impl Wanted {
        fn new(count: usize) -> Self {
            Self {
                in_flight: vec![0; count],
                latency: vec![0.0; count],
                warmth: vec![WARM; count],
                out: Vec::new(),
            }
        }
    }

    impl Fares for Wanted {
        fn in_flight(&self, index: usize) -> usize {
            self.in_flight[index]
        }
        fn latency(&self, index: usize) -> f64 {
            self.latency[index]
        }
        fn warmth(&self, index: usize) -> u64 {
            self.warmth[index]
        }
        fn is_usable(&self, index: usize) -> bool {
            !self.out.contains(&index)
        }
    }

    fn group(weights: &[u32], balance: &Balance) -> Group {
        let member =
            |(index, weight): (usize, &u32)| Member { index, weight: *weight, identity: hash(&index) };
        Group::new(weights.iter().enumerate().map(member).collect(), balance, true)
    }

    fn counts(group: &Group, fares: &Wanted, picks: usize) -> Vec<usize> {
        let random = Random::seeded(7);
        let mut counts = vec![0; fares.in_flight.len()];
        for _ in 0..picks {
            counts[group.pick(None, fares, &random).unwrap()] += 1;
        }
        counts
    }

    fn every() -> [Balance; 5] {
        [
            Balance::RoundRobin,
            Balance::LeastRequest,
            Balance::PeakEwma,
            Balance::Hash(HashKey::Path),
            Balance::Sticky { cookie: "c".to_owned() },
        ]
    }

    #[test]
    fn weights_are_shares() {
        for balance in every() {
            let counts = counts(&group(&[1, 3, 6], &balance), &Wanted::new(3), 10_000);
            for (count, expected) in counts.iter().zip([1000, 3000, 6000]) {
                let off = count.abs_diff(expected);
                assert!(off < expected / 5, "{balance:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn nobody_gets_all_of_its_turns_in_a_row() {
        let (group, fares) = (group(&[5, 1, 1], &Balance::RoundRobin), Wanted::new(3));
        let random = Random::seeded(1);
        let picks: Vec<_> = (0..7).map(|_| group.pick(None, &fares, &random).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn who_is_out_is_passed_by() {
        for balance in every() {
            let fares = Wanted { out: vec![0, 2], ..Wanted::new(4) };
            let counts = counts(&group(&[1, 1, 1, 1], &balance), &fares, 1000);
            assert_eq!((counts[0], counts[2]), (0, 0), "{balance:?}");
            assert!(counts[1] > 200 && counts[3] > 200, "{balance:?}: {counts:?}");
            let nobody = Wanted { out: vec![0, 1, 2, 3], ..Wanted::new(4) };
            let group = group(&[1, 1, 1, 1], &balance);
            assert_eq!(group.pick(None, &nobody, &Random::seeded(1)), None, "{balance:?}");
        }
    }

    #[test]
    fn the_better_of_two_gets_it() {
        let busy = Wanted { in_flight: vec![9, 1], ..Wanted::new(2) };
        assert_eq!(counts(&group(&[1, 1], &Balance::LeastRequest), &busy, 100), [0, 100]);
        assert_eq!(counts(&group(&[20, 1], &Balance::LeastRequest), &busy, 100), [100, 0], "by weight");
        let slow = Wanted { latency: vec![0.001, 0.1], in_flight: vec![9, 1], ..Wanted::new(2) };
        assert_eq!(counts(&group(&[1, 1], &Balance::PeakEwma), &slow, 100), [100, 0]);
        let slow = Wanted { in_flight: vec![500, 0], ..slow };
        assert_eq!(counts(&group(&[1, 1], &Balance::PeakEwma), &slow, 100), [0, 100], "and what waits there");
    }

    #[test]
    fn two_choices_keep_the_load_even() {
        let group = group(&[1; 10], &Balance::LeastRequest);
        let (mut fares, random) = (Wanted::new(10), Random::seeded(3));
        for _ in 0..10_000 {
            let index = group.pick(None, &fares, &random).unwrap();
            fares.in_flight[index] += 1;
        }
        let (least, most) = (fares.in_flight.iter().min(), fares.in_flight.iter().max());
        assert!(most.unwrap() - least.unwrap() < 20, "{:?}", fares.in_flight);
    }

    #[test]
    fn who_is_new_gets_little() {
        for balance in [Balance::RoundRobin, Balance::LeastRequest] {
            let fares = Wanted { warmth: vec![10, WARM], ..Wanted::new(2) };
            let cold = counts(&group(&[1, 1], &balance), &fares, 11_000)[0];
            assert!((800..2200).contains(&cold), "{balance:?}: {cold}");
        }
    }

    proptest! {
        #[test]
        fn no_endpoint_gets_much_more_than_its_share(
            weights in proptest::collection::vec(1_u32..10, 1..12),
            keys in proptest::collection::vec(0_u64..3, 1..400),
        ) {
            let group = group(&weights, &Balance::Hash(HashKey::Path));
            let (mut fares, random) = (Wanted::new(weights.len()), Random::seeded(1));
            let total: u32 = weights.iter().sum();
            for (sent, key) in (1..).zip(keys) {
                let index = group.pick(Some(hash(&key)), &fares, &random).expect("there is always one");
                fares.in_flight[index] += 1;
                let share = 1.25 * f64::from(sent) * f64::from(weights[index]) / f64::from(total);
                prop_assert!(fares.in_flight[index] as f64 <= share.ceil(), "{:?}", fares.in_flight);
            }
        }

        #[test]
        fn a_key_has_one_endpoint(key in any::<u64>(), count in 1_usize..20) {
            let group = group(&vec![1; count], &Balance::Hash(HashKey::Path));
            let (mut fares, random) = (Wanted::new(count), Random::seeded(1));
            let first = group.pick(Some(key), &fares, &random);
            prop_assert_eq!(group.pick(Some(key), &fares, &random), first);
            if count > 1 {
                fares.out.push(first.unwrap());
                let second = group.pick(Some(key), &fares, &random);
                prop_assert!(second.is_some() && second != first);
            }
        }
    }
}
