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
pub const TABLE_SLOTS: usize = 11;
/// A slot that no program looks at: whoever writes it waits, as for any, until every program that runs has ended.
pub const WAITING_SLOT: u32 = 10;
/// The two slots of lists: the generation in force and the one before, by turns. The number in the map `in_force`
/// says which one is in force; a packet looks once, and asks that slot for all that it wants to know. A writer
/// fills the other slot and changes the number.
pub const LISTS_TABLES: [u32; 2] = [0, 1];
/// The slots of entries made singly: bans, and what operators add and delete. They change in place; when the table is
/// made anew, likewise by turns. A slot may be filled once every program has ended that could have read its number,
/// for which a ban should not wait. So there are as many as a table can become full and double within a second.
pub const LIVE_TABLES: [u32; 8] = [2, 3, 4, 5, 6, 7, 8, 9];

/// The word of the map `in_force` that says how `near_v4` and `near_v6` are to be read: a [`crate::table::Grain`].
pub const NEAR_WORD: usize = 1;
/// The word of a slot's first line in the map `heads` that says when the slot was last in force, by the boot clock.
pub const LEFT_WORD: usize = 7;

/// Which slots are in force, as the map `in_force` has it: one number, so that it is changed in one write.
#[inline(always)]
pub const fn in_force(lists: u32, live: u32) -> u64 {
    lists as u64 | (live as u64) << 32
}

/// The slot of the lists in force. Before there are any, it is an empty one.
#[inline(always)]
pub const fn lists_slot(in_force: u64) -> u32 {
    in_force as u32
}

/// The slot of the entries made singly.
#[inline(always)]
pub const fn live_slot(in_force: u64) -> u32 {
    (in_force >> 32) as u32
}

/// Lines of a table that describe it. Each slot has a copy of them in the map `heads`, a plain array: the compiler in
/// the kernel makes a few instructions of a look-up there, and a call of one in a map of maps. A call costs as
/// much as all the rest, since its return is guarded against speculation.
pub const HEAD_LINES: usize = 16;

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

/// Flags of arrays that are mapped into userspace (BPF_F_MMAPABLE).
pub const MAPPED: u32 = 1 << 10;

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
    assert!(RULE_SLOTS < NO_RULE && LIVE_TABLES[7] < WAITING_SLOT && WAITING_SLOT < TABLE_SLOTS as u32);
};
