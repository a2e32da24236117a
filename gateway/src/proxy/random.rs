//! Numbers that nobody needs to be unable to guess, and hashes that are the same on every gateway.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

/// Chances for a worker: splitmix64 (Steele, Lea and Flood, 2014), seeded by the system.
#[derive(Debug)]
pub(super) struct Random(Cell<u64>);

impl Default for Random {
    /// Each one begins elsewhere, so that workers do not all draw the same.
    fn default() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u8))
    }
}

impl Random {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        mix(state)
    }

    /// A number below this one, or 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        // The upper half of the product: no division, and next to no bias for bounds as small as ours.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// A hash of some bytes that no version and no machine changes: FNV-1a, its bits mixed. Who may choose the bytes may
/// choose the hash, so it decides nothing that has to be kept from him.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(folded)
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_what_they_are() {
        // Clients keep the side of a split that they were given by these.
        assert_eq!(stable_hash(b""), 0xf52a15e9a9b5e89b);
        assert_eq!(stable_hash(b"alice"), 0xc5d1556d66774a5c);
    }

    #[test]
    fn chances_are_even() {
        let random = Random::default();
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        // 10,000 each, and five standard deviations are 475.
        assert!(counts.iter().all(|count| (9_400..10_600).contains(count)), "{counts:?}");
    }
}
