//! Sampled verdicts, from the programs to whoever reads the ring.
//!
//! Sampling costs the programs no clock: each reason has a credit a processor, which the reader renews
//! ten times a second. Without a reader there is no credit and nothing is sampled; a flood spends its credit
//! and the rest is only counted as lost.

/// Bytes of the ring buffer.
pub const EVENT_RING_BYTES: u32 = 1 << 18;

/// A credit below zero: nobody reads, so nothing is sampled and nothing counted as lost.
pub const NOBODY_READS: i64 = -1;

/// Events a reason may still send from one processor.
pub type EventCredit = i64;

/// One sampled verdict. Fields that parsing did not reach are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// Index into the rule table, or [`super::NO_RULE`].
    pub rule: u32,
    /// [`crate::verdict::Reason`] as a number.
    pub reason: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Row of the interface.
    pub slot: u32,
    /// As on the wire; IPv4 in the first word.
    pub source: [u32; 4],
    /// As on the wire; IPv4 in the first word.
    pub destination: [u32; 4],
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// 4, 6, or 0 when there was no IP header.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<Event>() == 64 && align_of::<Event>() == 8);
