//! What the agent may change in the programs while they run.

/// The one row of the settings map. All zero is what a host has that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// 1: drop what no entry names and nothing of this host asks for.
    pub default_drop: u32,
    /// A mask, one less than a power of two: the source of a packet that passes is noted when its counter has
    /// none of these bits. 0 notes every source, so that a trickle is seen whole.
    pub source_sampling: u32,
    /// Always 0.
    pub padding: [u32; 2],
}

const _: () = assert!(size_of::<Settings>() == 16);
