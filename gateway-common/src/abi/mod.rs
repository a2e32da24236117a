//! The layout of the pinned maps: what the kernel programs, the agent and every command agree on.
//!
//! A change to anything in here is a change of [`SCHEMA_VERSION`], so that a new agent never reads an old
//! map by mistake: maps live in a directory named after it.

mod counters;
mod events;
mod flows;
mod interfaces;
mod lists;
#[cfg(feature = "aya")]
mod pod;
mod settings;
mod sources;

pub use counters::{COUNTER_SLOTS, Counter, RuleCounter, counter_index};
pub use events::{EVENT_RING_BYTES, Event, EventCredit, NOBODY_READS};
pub use flows::{
    ECHO_TIMEOUT_NS, FLOW_REFRESH_NS, FLOWS_CAPACITY, Flow, FlowKey, FlowTable, NEW_FLOWS_CAPACITY,
    TCP_NEW_TIMEOUT_NS, TCP_TIMEOUT_NS, UDP_NEW_TIMEOUT_NS, UDP_TIMEOUT_NS, UNUSED_FLOWS_CAPACITY,
};
pub use interfaces::{INTERFACE_SLOTS, Interface, Mode};
pub use lists::{
    ALLOW_CAPACITY, BAN_CAPACITY, DENY_CAPACITY, HEAD_LINES, LEFT_WORD, LISTS_CAPACITY_V4, LISTS_CAPACITY_V6,
    LISTS_TABLES, LIVE_TABLES, List, MAPPED, NEAR_WORD, NO_RULE, RULE_SLOTS, RuleRecord, TABLE_FLAGS,
    TABLE_SLOTS, WAITING_SLOT, in_force, lists_slot, live_slot,
};
pub use settings::Settings;
pub use sources::{SOURCE_SLOTS, Source, source_slot};

/// Version of everything in this module; part of the pin directory's name.
pub const SCHEMA_VERSION: u32 = 4;

/// The XDP program's name in the object and in the kernel.
pub const XDP_PROGRAM: &str = "gateway_xdp";

/// The program that remembers what the host sends.
pub const EGRESS_PROGRAM: &str = "gateway_egress";

/// The constant in the program that says which row of counters is its own.
pub const SLOT_GLOBAL: &str = "INTERFACE_SLOT";
