//! What the programs ask before they pass what no entry names.

/// The one row of the map `settings`. All zero is what a host has that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// 1: drop what no entry names and nothing of this host asks for.
    pub default_drop: u32,
    /// Kept for counting sources by sample; no program reads it.
    pub source_sampling: u32,
    /// Always 0.
    pub padding: [u32; 2],
}

const _: () = assert!(size_of::<Settings>() == 16);
