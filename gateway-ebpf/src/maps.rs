//! The maps, all pinned, and the lookups of the stages in them. Layouts: `gateway_common::abi`.

use aya_ebpf::{
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use gateway_common::{
    abi::{
        ALLOW_CAPACITY, BAN_CAPACITY, COUNTER_SLOTS, Counter, DENY_CAPACITY, EVENT_RING_BYTES, Entry,
        EventCredit, Flow, FlowKey, FlowTable, INTERFACE_SLOTS, Interface, List, ListSizes, RULE_SLOTS,
        RuleCounter, RuleRecord, Settings, UNUSED_FLOWS_CAPACITY,
    },
    flows::Flows,
    packet::{Address, Family},
    stages::Tables,
};

type V4 = LpmTrie<u32, Entry>;
type V6 = LpmTrie<[u32; 4], Entry>;

#[map(name = "allow_v4")]
static ALLOW_V4: V4 = V4::pinned(ALLOW_CAPACITY, 0);
#[map(name = "allow_v6")]
static ALLOW_V6: V6 = V6::pinned(ALLOW_CAPACITY, 0);
#[map(name = "ban_v4")]
static BAN_V4: V4 = V4::pinned(BAN_CAPACITY, 0);
#[map(name = "ban_v6")]
static BAN_V6: V6 = V6::pinned(BAN_CAPACITY, 0);
#[map(name = "deny_v4")]
static DENY_V4: V4 = V4::pinned(DENY_CAPACITY, 0);
#[map(name = "deny_v6")]
static DENY_V6: V6 = V6::pinned(DENY_CAPACITY, 0);

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

#[map(name = "list_sizes")]
static LIST_SIZES: Array<ListSizes> = Array::pinned(1, 0);

/// What `kernel.default` says.
#[map(name = "settings")]
static SETTINGS: Array<Settings> = Array::pinned(1, 0);
// The loader makes them as large as the default verdict asks.
#[map(name = "flows_new")]
static FLOWS_NEW: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(UNUSED_FLOWS_CAPACITY, 0);
#[map(name = "flows")]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(UNUSED_FLOWS_CAPACITY, 0);

// Only userspace reads these two; they stand here so that one loader makes and pins all maps.
#[map(name = "rules")]
static RULES: Array<RuleRecord> = Array::pinned(RULE_SLOTS, 0);
#[map(name = "interfaces")]
static INTERFACES: Array<Interface> = Array::pinned(INTERFACE_SLOTS, 0);

/// The pinned tries, as the stages ask them.
pub struct KernelTables;

impl Tables for KernelTables {
    /// Map values live until the program returns, and entries are replaced, never changed in place.
    type Found = &'static Entry;

    #[inline(always)]
    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Option<&'static Entry> {
        let index = list as usize * 2 + matches!(address.family, Family::V6) as usize;
        if LIST_SIZES.get(0)?.entries[index] == 0 {
            return None;
        }
        match address.family {
            Family::V4 => {
                let trie = match list {
                    List::Allow => &ALLOW_V4,
                    List::Ban => &BAN_V4,
                    List::Deny => &DENY_V4,
                };
                trie.get(Key::new(max_len, address.words[0]))
            }
            Family::V6 => {
                let trie = match list {
                    List::Allow => &ALLOW_V6,
                    List::Ban => &BAN_V6,
                    List::Deny => &DENY_V6,
                };
                trie.get(Key::new(max_len, address.words))
            }
        }
    }

    #[inline(always)]
    fn default_drop(&self) -> bool {
        SETTINGS.get(0).is_some_and(|settings| settings.default_drop != 0)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }
}

impl Flows for KernelTables {
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
