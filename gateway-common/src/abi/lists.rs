//! Lists: which there are, the slots of the map of tables, and the table that gives a rule's number its label.
//! What is inside a table: [`crate::table`].

/// The lists, in the order in which a source is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum List {
    /// Sources that pass whatever the later lists say.
    Allow = 0,
    /// Denied sources with a time to live.
    Ban = 1,
    /// Denied sources without one.
    Deny = 2,
}

/// Slots of the map of tables.
pub const TABLE_SLOTS: usize = 3;
/// Entries made singly: bans, and what operators add and delete.
pub const LIVE_TABLE: u32 = 0;
/// The two slots of lists: the generation in force and the one before, by turns. The map `lists_slot` says
/// which one is in force; a packet looks once, and asks that slot for all that it wants to know. A writer
/// fills the other slot and changes the number.
pub const LISTS_TABLES: [u32; 2] = [1, 2];
/// Flags of a table's map: mapped into userspace, and of any length (BPF_F_MMAPABLE, BPF_F_INNER_MAP).
pub const TABLE_FLAGS: u32 = 1 << 10 | 1 << 12;

/// Prefixes that all lists of a generation hold together, of IPv4. A table takes memory by what is in it.
pub const LISTS_CAPACITY_V4: u64 = 1 << 23;
/// The same of IPv6.
pub const LISTS_CAPACITY_V6: u64 = 1 << 21;
/// Allow entries made singly, both families together.
pub const ALLOW_CAPACITY: u64 = 1 << 16;
/// Bans, both families together; beyond it the oldest leave.
pub const BAN_CAPACITY: u64 = 1 << 18;
/// Deny entries made singly, both families together; longer ones are lists.
pub const DENY_CAPACITY: u64 = 1 << 18;
/// Distinct rules that can be told apart in counters; the last resort is refusing a new label.
pub const RULE_SLOTS: u32 = 4096;
/// No rule matched.
pub const NO_RULE: u32 = u32::MAX;

/// Flags of the map of rules: mapped into userspace (BPF_F_MMAPABLE).
pub const RULE_FLAGS: u32 = 1 << 10;

/// A row of the rule table. Only userspace reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RuleRecord {
    /// [`List`] as a number.
    pub kind: u32,
    /// Bytes of `label` in use; 0 is a row never used.
    pub label_len: u16,
    /// Bytes of `list` in use.
    pub list_len: u16,
    /// UTF-8.
    pub label: [u8; 64],
    /// The name of the list the rule belongs to, UTF-8.
    pub list: [u8; 56],
}

const _: () = {
    assert!(size_of::<RuleRecord>() == 128 && align_of::<RuleRecord>() == 4);
    assert!(RULE_SLOTS < NO_RULE && LISTS_TABLES[1] < TABLE_SLOTS as u32);
};
