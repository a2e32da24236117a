//! Consistent hashing: endpoints stand at many points of a circle, and a key belongs to the first one behind it.
//! When one comes or goes, only the keys move that it gets or had.
//!
//! A Maglev table was weighed: it looks keys up in one step, but moves a few more of them, is made anew in some
//! hundred thousand steps, and has no order in which a full endpoint is passed by.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// Points of an endpoint of average weight. With so many, shares differ by less than a tenth from the weights', and
/// what is left of that is the bounded load's to even out.
const POINTS: u64 = 160;

/// Points of all endpoints: what a worker has to sort when one goes.
const MAX_POINTS: u64 = 1 << 16;

/// The circle.
#[derive(Debug)]
pub(super) struct Ring {
    /// Where, and which member.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// Of members with an identity and a weight each.
    pub(super) fn new(members: impl ExactSizeIterator<Item = (u64, u32)> + Clone) -> Self {
        let total: u64 = members.clone().map(|(_, weight)| u64::from(weight)).sum();
        let all = (POINTS * members.len() as u64).min(MAX_POINTS);
        let mut points = Vec::new();
        for (member, (identity, weight)) in (0_u32..).zip(members) {
            let count = (all * u64::from(weight)).div_ceil(total.max(1));
            points.extend((0..count).map(|turn| (hash(&(identity, turn)), member)));
        }
        points.sort_unstable();
        Self { points }
    }

    /// Members in the order in which a key asks them; many of them several times.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, behind) = self.points.split_at(start);
        behind.iter().chain(before).map(|(_, member)| *member as usize)
    }
}

/// The same in every worker and every gateway of one build, so that they agree; SipHash, as keys come from clients.
/// Not [`stable_hash`](super::super::random::stable_hash), which promises to stay what it is from version to version, and of
/// which anybody can choose many keys that meet in one place. It has no key: who wants all requests at one endpoint needs no collisions, and meets the bound of the load.
pub(super) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owners(members: &[(u64, u32)], keys: u64) -> Vec<u64> {
        let ring = Ring::new(members.iter().copied());
        (0..keys).map(|key| members[ring.walk(hash(&key)).next().unwrap()].0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_new_member_takes_its_share_and_nobody_else_moves(count in 1_u64..40, seed in any::<u64>()) {
            const KEYS: u64 = 4000;
            let before: Vec<_> = (0..count).map(|index| (hash(&(seed, index)), 1)).collect();
            let mut after = before.clone();
            after.push((hash(&(seed, count)), 1));
            let moved: Vec<_> =
                owners(&before, KEYS).into_iter().zip(owners(&after, KEYS)).filter(|(was, is)| was != is).collect();
            for (_, is) in &moved {
                prop_assert_eq!(*is, after[count as usize].0, "a key moved between two that both stayed");
            }
            let share = KEYS as f64 / (count + 1) as f64;
            prop_assert!((moved.len() as f64) < share * 1.5, "{} of {KEYS} moved", moved.len());
            prop_assert!((moved.len() as f64) > share * 0.5, "{} of {KEYS} moved", moved.len());
        }
    }

    #[test]
    fn shares_follow_weights() {
        let owners = owners(&[(1, 1), (2, 3)], 20_000);
        let heavy = owners.iter().filter(|owner| **owner == 2).count();
        assert!((14_000..16_000).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_walk_meets_everybody() {
        let ring = Ring::new((0..50_u32).map(|index| (u64::from(index), 1)));
        let met: std::collections::HashSet<_> = ring.walk(hash("key")).collect();
        assert_eq!(met.len(), 50);
    }
}
