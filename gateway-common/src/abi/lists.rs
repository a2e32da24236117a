//! Lists: one LPM trie a list and family, and the table that gives a rule's number its label.

/// The lists, in the order in which a source is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum List {
    /// Sources that pass whatever the later lists say.
    Allow = 0,
    /// Denied sources with a time to live.
    Ban = 1,
    /// Denied sources without one.
    Deny = 2,
}

/// Entries the allow list holds, a family.
pub const ALLOW_CAPACITY: u32 = 1 << 16;
/// Entries the ban list holds, a family.
pub const BAN_CAPACITY: u32 = 1 << 18;
/// Entries the deny list holds, a family. A trie takes memory by entry, so a large limit costs nothing.
pub const DENY_CAPACITY: u32 = 1 << 22;
/// Lists times families: allow_v4, allow_v6, ban_v4 and so on.
pub const LIST_MAPS: usize = 6;
/// Distinct rules (labels) that can be told apart in counters; the last resort is refusing a new label.
pub const RULE_SLOTS: u32 = 4096;
/// No rule matched.
pub const NO_RULE: u32 = u32::MAX;

/// The value of a trie entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Entry {
    /// Boot clock (CLOCK_BOOTTIME, which counts suspended time) in nanoseconds; 0 is never.
    pub expires_ns: u64,
    /// Index into the rule table.
    pub rule: u32,
    /// Bits below.
    pub flags: u16,
    /// The entry's own prefix length: a lookup continues with the next shorter one if this has expired.
    pub prefix_len: u16,
}

impl Entry {
    /// The configuration names it.
    pub const CONFIG: u16 = 1;
    /// An operator added it.
    pub const OPERATOR: u16 = 2;
    /// Count what it would drop, and let it pass.
    pub const SHADOW: u16 = 4;
    /// The configuration's own shadow flag, kept while an operator's word about the prefix holds.
    pub const CONFIG_SHADOW: u16 = 8;

    /// Whether it only counts.
    #[inline(always)]
    pub const fn is_shadow(&self) -> bool {
        self.flags & Self::SHADOW != 0
    }

    /// Whether it no longer holds. The clock is a function because reading it costs more than the lookup,
    /// and most entries have no time to live. What the configuration names holds as long as it does: there
    /// the time is only that of an operator's word about it.
    #[inline(always)]
    pub fn has_expired(&self, now_ns: impl FnOnce() -> u64) -> bool {
        self.expires_ns != 0 && self.flags & Self::CONFIG == 0 && self.is_over(now_ns())
    }

    /// Whether the time of an operator's entry is over.
    #[inline(always)]
    pub const fn is_over(&self, now_ns: u64) -> bool {
        self.expires_ns != 0 && self.expires_ns <= now_ns
    }
}

/// How many entries each list map has. The programs skip a list of none, so that empty lists cost a packet
/// nothing; writers therefore count an entry before they add it, and after they removed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ListSizes {
    /// By list and family: `list * 2`, and one more for IPv6.
    pub entries: [u64; LIST_MAPS],
    /// 1 while somebody writes: a writer that finds it set knows that the one before died half-way, and
    /// counts anew.
    pub torn: u64,
}

/// A row of the rule table. Only userspace reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RuleRecord {
    /// Entries that carry this rule; a row with 0 may be given to another label.
    pub entries: u64,
    /// [`List`] as a number.
    pub list: u32,
    /// Bytes of `label` in use; 0 is a row never used.
    pub label_len: u32,
    /// UTF-8.
    pub label: [u8; 64],
}

const _: () = {
    assert!(size_of::<Entry>() == 16 && align_of::<Entry>() == 8);
    assert!(size_of::<ListSizes>() == 56);
    assert!(size_of::<RuleRecord>() == 80 && align_of::<RuleRecord>() == 8);
    assert!(RULE_SLOTS < NO_RULE);
};
