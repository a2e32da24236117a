//! Counters: arrays a processor, so that counting needs no atomic operation; readers sum them.

use super::INTERFACE_SLOTS;
use crate::verdict::Reason;

/// Reasons an interface has room for; more than there are, so that a new reason moves nobody's row.
pub const COUNTER_SLOTS: u32 = 64;

/// What one processor counted for one interface and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
    /// Events that were not sent although somebody reads: the credit was spent, or the ring full.
    pub events_lost: u64,
}

/// What one processor counted for one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct RuleCounter {
    /// Frames, those in shadow mode included.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Where an interface's counter for a reason stands.
#[inline(always)]
pub const fn counter_index(slot: u32, reason: Reason) -> u32 {
    slot * COUNTER_SLOTS + reason as u32
}

const _: () = {
    assert!(size_of::<Counter>() == 24 && size_of::<RuleCounter>() == 16);
    assert!(Reason::ALL.len() <= COUNTER_SLOTS as usize);
    assert!(INTERFACE_SLOTS <= u32::MAX / COUNTER_SLOTS);
};
