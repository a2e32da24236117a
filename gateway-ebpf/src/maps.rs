//! The maps, all pinned, and how the stages read tables in them. Layouts: `gateway_common::abi`.

use aya_ebpf::{
    btf_maps::{Array as InnerArray, ArrayOfMaps},
    helpers::bpf_ktime_get_boot_ns,
    macros::{btf_map, map},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use gateway_common::{
    abi::{
        COUNTER_SLOTS, Counter, EVENT_RING_BYTES, EventCredit, Flow, FlowKey, FlowTable, HEAD_LINES,
        INTERFACE_SLOTS, Interface, MAPPED, NEAR_WORD, RULE_SLOTS, RuleCounter, RuleRecord, SOURCE_SLOTS,
        Settings, Source, TABLE_FLAGS, TABLE_SLOTS, UNUSED_FLOWS_CAPACITY, lists_slot, live_slot,
    },
    flows::Flows,
    packet::{Address, Family},
    stages::Tables,
    table::{
        Grain, Hints, Hit, LINE_WORDS, Line, Lines, NEAR_V4_LINES, NEAR_V6_LINES, Words, near_v4, near_v6,
        search_v4, search_v6,
    },
};

/// A table of lines. Of any length, whatever this one says: userspace makes the tables.
type Table = InnerArray<Line, 1, { TABLE_FLAGS as usize }>;

/// The tables: two generations of lists, and what is made singly.
#[btf_map(name = "tables")]
static TABLES: ArrayOfMaps<Table, TABLE_SLOTS> = ArrayOfMaps::new();
/// Which of them are in force: in the first word, one number, so a packet meets the lists of one generation. The
/// second says how `near_v4` and `near_v6` are to be read.
#[map(name = "in_force")]
static IN_FORCE: Array<Line> = Array::pinned(1, MAPPED);
/// By slot: the lines that describe a table.
#[map(name = "heads")]
static HEADS: Array<[Line; HEAD_LINES]> = Array::pinned(TABLE_SLOTS as u32, MAPPED);
/// What prefixes of any table in force touch, by /24.
#[map(name = "near_v4")]
static NEAR_V4: Array<Line> = Array::pinned(NEAR_V4_LINES, MAPPED);
/// The same by hash of a /32 or /48 of IPv6.
#[map(name = "near_v6")]
static NEAR_V6: Array<Line> = Array::pinned(NEAR_V6_LINES, MAPPED);

/// By interface row and reason.
#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::pinned(INTERFACE_SLOTS * COUNTER_SLOTS, 0);
/// By rule.
#[map(name = "rule_hits")]
pub static RULE_HITS: PerCpuArray<RuleCounter> = PerCpuArray::pinned(RULE_SLOTS, 0);
/// Sampled verdicts.
#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::pinned(EVENT_RING_BYTES, 0);
/// By reason: what may still be sampled.
#[map(name = "event_credit")]
pub static EVENT_CREDIT: PerCpuArray<EventCredit> = PerCpuArray::pinned(COUNTER_SLOTS, 0);

/// What the agent may change while the programs run.
#[map(name = "settings")]
pub static SETTINGS: Array<Settings> = Array::pinned(1, 0);
/// By hash of the address: sources that passed.
#[map(name = "sources")]
pub static SOURCES: Array<Source> = Array::pinned(SOURCE_SLOTS, 0);

// The loader makes them as large as the default verdict asks.
#[map(name = "flows_new")]
static FLOWS_NEW: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(UNUSED_FLOWS_CAPACITY, 0);
#[map(name = "flows")]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(UNUSED_FLOWS_CAPACITY, 0);

// Only userspace reads these two; they stand here so that one loader makes and pins all maps.
#[map(name = "rules")]
static RULES: Array<RuleRecord> = Array::pinned(RULE_SLOTS, MAPPED);
#[map(name = "interfaces")]
static INTERFACES: Array<Interface> = Array::pinned(INTERFACE_SLOTS, 0);

/// The pinned tables, as the stages ask them about a source that has prefixes near it.
pub struct KernelTables {
    pub near: u32,
}

impl Tables for KernelTables {
    type Lines = KernelLines;

    #[inline(always)]
    fn near(&self, _source: &Address) -> u32 {
        self.near
    }

    #[inline(always)]
    fn in_force(&self) -> Option<(KernelLines, KernelLines)> {
        let in_force = KernelLine(IN_FORCE.get_ptr(0)?).word(0);
        Some((KernelLines(live_slot(in_force)), KernelLines(lists_slot(in_force))))
    }
}

/// What the tables in force have near a source.
#[inline(always)]
pub fn near(source: &Address) -> u32 {
    let Some(in_force) = IN_FORCE.get_ptr(0) else { return 0 };
    let grain = Grain::from_word(KernelLine(in_force).word(NEAR_WORD));
    let (high, _) = source.halves();
    match source.family {
        Family::V4 => near_v4(|line| NEAR_V4.get_ptr(line).map(KernelLine), grain, high as u32),
        Family::V6 => near_v6(|line| NEAR_V6.get_ptr(line).map(KernelLine), grain, high),
    }
}

/// One slot of the map of tables. By number and not by the table's address, for the functions below take
/// numbers only.
#[derive(Clone, Copy)]
pub struct KernelLines(u32);

impl Lines for KernelLines {
    type Line = KernelLine;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<KernelLine> {
        TABLES.get_value_ptr_mut(self.0, &index).map(|line| KernelLine(line))
    }

    #[inline(always)]
    fn head(&self, index: u32) -> Option<KernelLine> {
        let lines = HEADS.get_ptr(self.0)?.cast::<Line>();
        // SAFETY: the line is kept inside the value, which lives as long as the map.
        Some(KernelLine(unsafe { lines.add(index as usize & (HEAD_LINES - 1)) }))
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn search_v4(&self, set: u32, address: u32, hints: Hints) -> Hit {
        Hit::from_number(search_table_v4(self.0, set, address, hints.to_number()))
    }

    #[inline(always)]
    fn search_v6(&self, set: u32, high: u64, low: u64, hints: Hints) -> Hit {
        Hit::from_number(search_table_v6(self.0, set, high, low, hints.to_number()))
    }
}

/// Looks an address up in a set of a table. A global function, as is the next: the verifier knows nothing of its
/// arguments but that they are numbers, and so walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn search_table_v4(slot: u32, set: u32, address: u32, hints: u32) -> u64 {
    search_v4(&KernelLines(slot), set, address, Hints::from_number(hints)).to_number()
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn search_table_v6(slot: u32, set: u32, high: u64, low: u64, hints: u32) -> u64 {
    search_v6(&KernelLines(slot), set, high, low, Hints::from_number(hints)).to_number()
}

/// A line in the map's own memory.
pub struct KernelLine(*const Line);

impl Words for KernelLine {
    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the index is kept inside the line, which lives as long as its map. Volatile, because
        // userspace writes lines while programs read them: a word is read once, and as it is then.
        unsafe { self.0.cast::<u64>().add(index & (LINE_WORDS - 1)).read_volatile() }
    }
}

/// The pinned flows.
pub struct KernelFlows;

impl Flows for KernelFlows {
    type Row = *mut Flow;

    #[inline(always)]
    fn find(&self, table: FlowTable, key: &FlowKey) -> Option<*mut Flow> {
        flow_map(table).get_ptr_mut(key)
    }

    #[inline(always)]
    fn read(&self, row: &*mut Flow) -> Flow {
        // SAFETY: the pointer came from a lookup, and the map's memory stays until the program returns. A row
        // may be given to another flow meanwhile; both are of this moment, so at worst one of them is taken
        // for busy once.
        unsafe { row.read() }
    }

    #[inline(always)]
    fn write(&self, row: &*mut Flow, flow: Flow) {
        // SAFETY: as above; each field is one aligned store.
        unsafe { row.write(flow) }
    }

    #[inline(always)]
    fn insert(&self, table: FlowTable, key: &FlowKey, flow: Flow) {
        // Refused only while another processor holds the bucket: the flow's next packet tries again.
        let _ = flow_map(table).insert(key, flow, 0);
    }

    #[inline(always)]
    fn remove(&self, table: FlowTable, key: &FlowKey) {
        // Another processor may have been faster.
        let _ = flow_map(table).remove(key);
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }
}

#[inline(always)]
fn flow_map(table: FlowTable) -> &'static LruHashMap<FlowKey, Flow> {
    match table {
        FlowTable::New => &FLOWS_NEW,
        FlowTable::Established => &FLOWS,
    }
}

/// CLOCK_BOOTTIME, which goes on while the machine is suspended.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
