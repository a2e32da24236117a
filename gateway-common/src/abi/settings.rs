//! What the agent may change while programs and commands run.

/// The one row of the settings map. All zero is what a host has that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// 1: drop what no entry names and nothing of this host asks for.
    pub default_drop: u32,
    /// A mask, one less than a power of two: the source of a packet that passes is noted when its counter has
    /// none of these bits. 0 notes every source, so that a trickle is seen whole.
    pub source_sampling: u32,
    /// The most bans there may be; 0 is as many as fit. These are for writers, whether or not an agent runs.
    pub ban_count: u32,
    /// The longest time to live of a ban, in seconds; 0 is any.
    pub ban_seconds: u32,
    /// The shortest prefix of IPv4 that may be banned.
    pub ban_prefix_v4: u32,
    /// The same of IPv6.
    pub ban_prefix_v6: u32,
}

const _: () = assert!(size_of::<Settings>() == 24);
