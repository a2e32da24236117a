//! Loads, attaches and pins the kernel programs, and owns their maps; the same rules in userspace where
//! the kernel cannot be used. Only this crate speaks bpf(2).
// Everything here that touches the kernel goes through aya, except an interface's index and its XDP
// program, which only libc and rtnetlink know; each such call says why it is sound.
#![allow(unsafe_code)]

mod attach;
mod attach_egress;
mod edit;
mod entry;
mod error;
mod events;
mod explain;
pub mod feed;
mod flows;
mod interfaces;
mod object;
mod pin;
mod privilege;
#[cfg(feature = "ebpf-log")]
mod program_log;
mod protection;
mod rulebook;
mod rules;
pub mod sandbox;
mod store;

pub use entry::{Attach, DefaultVerdict, ListKind, NewEntry, Owner};
pub use error::Error;
pub use events::{Event, Events};
pub use protection::{
    DETACHED, Enforcement, InterfaceState, Plan, Protection, State, attachments, default_verdict, detach,
};
pub use rules::{
    Added, Count, Counters, Entry, Explanation, MapUsage, Progress, ReasonCount, Reconciled, Removed,
    RuleCount, Rules, StageTrace,
};
