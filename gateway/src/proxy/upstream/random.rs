//! Chance that costs a few instructions: enough to spread requests, and no secret depends on it.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
pub(super) struct Random(Cell<u64>);

impl Random {
    /// Each one begins elsewhere, so that workers do not all draw the same.
    pub(super) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u8))
    }

    pub(super) fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one, or 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        // The upper half of the product: no division, and next to no bias for bounds as small as ours.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
