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
        INTERFACE_SLOTS, Interface, MAPPED, RULE_SLOTS, RuleCounter, RuleRecord, SOURCE_SLOTS, Settings,
        Source, TABLE_FLAGS, TABLE_SLOTS, UNUSED_FLOWS_CAPACITY, lists_slot, live_slot,
    },
    flows::Flows,
    packet::{Address, Family},
    stages::Tables,
    table::{
        HINTS_V6, Hints, Hit, LINE_WORDS, Line, Lines, MARKS_LINES, PLANE, PLANE_LINES, Words, is_set, mark,
        plane_bit, search_v4, search_v6,
    },
};

/// A table of lines. Of any length, whatever this one says: userspace makes the tables.
type Table = InnerArray<Line, 1, { TABLE_FLAGS as usize }>;

/// The tables: two generations of lists, and what is made singly.
#[btf_map(name = "tables")]
static TABLES: ArrayOfMaps<Table, TABLE_SLOTS> = ArrayOfMaps::new();
/// Which of them are in force: in the first word, one number, so a packet meets the lists of one generation. The
/// second says when it was changed last, for writers.
#[map(name = "in_force")]
static IN_FORCE: Array<Line> = Array::pinned(1, MAPPED);
/// By slot: the lines that describe a table.
#[map(name = "heads")]
static HEADS: Array<[Line; HEAD_LINES]> = Array::pinned(TABLE_SLOTS as u32, MAPPED);
/// A bit for each /24 that a prefix of any table in force touches.
#[map(name = "near_v4")]
static NEAR_V4: Array<Line> = Array::pinned(PLANE_LINES, MAPPED);
/// A bit for each hash of a /32 or /48 of IPv6 that a prefix of any table in force touches.
#[map(name = "near_v6")]
static NEAR_V6: Array<Line> = Array::pinned(MARKS_LINES, MAPPED);

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

/// The pinned tables, as the stages ask them.
pub struct KernelTables;

impl Tables for KernelTables {
    type Lines = KernelLines;

    #[inline(always)]
    fn in_force(&self) -> Option<(KernelLines, KernelLines)> {
        let in_force = KernelLine(IN_FORCE.get_ptr(0)?).word(0);
        Some((KernelLines(live_slot(in_force)), KernelLines(lists_slot(in_force))))
    }
}

/// Whether a prefix of any table comes near a source.
#[inline(always)]
pub fn is_near(source: &Address) -> bool {
    let (high, _) = source.halves();
    match source.family {
        Family::V4 => {
            let (line, word, bit) = plane_bit(high as u32);
            is_set(NEAR_V4.get_ptr(line - PLANE).map(KernelLine), word, bit)
        }
        Family::V6 => {
            let (middle, long) = near_v6(high);
            middle || long || has_short_prefixes()
        }
    }
}

#[inline(always)]
fn near_v6(high: u64) -> (bool, bool) {
    let marked = |bits| {
        let (line, word, bit) = mark(high, bits);
        is_set(NEAR_V6.get_ptr(line).map(KernelLine), word, bit)
    };
    (marked(32), marked(48))
}

/// Whether a table has a prefix of IPv6 that is too short for a mark.
#[inline(always)]
fn has_short_prefixes() -> bool {
    let Some((live, lists)) = KernelTables.in_force() else { return false };
    let short = |lines: KernelLines| lines.head(HINTS_V6).is_some_and(|head| head.word(2) != 0);
    short(live) || short(lists)
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
    fn is_near_v4(&self, _address: u32) -> bool {
        // Asked before, of all tables at once.
        true
    }

    #[inline(always)]
    fn is_near_v6(&self, high: u64) -> (bool, bool) {
        near_v6(high)
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
