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
mod generations;
mod interfaces;
mod object;
mod pin;
mod privilege;
#[cfg(feature = "ebpf-log")]
mod program_log;
mod protection;
mod read_back;
mod recipe;
mod rulebook;
mod rules;
pub mod sandbox;
mod sources;
mod store;
mod sys;
mod table;

pub use entry::{
    Attach, BanBounds, DefaultVerdict, ListEntry, ListKind, NewEntry, NewList, Note, Owner, SetBy,
};
pub use error::Error;
pub use events::{Event, Events, Lost, Share};
pub use explain::Ruling;
pub use generations::{MAX_LISTS, Preview, Replaced, check_list_name};
pub use protection::{
    DETACHED, Enforcement, InterfaceState, Plan, Protection, State, attachments, default_verdict, detach,
};
pub use recipe::{Form, Prepared, Recipe};
pub use rulebook::MAX_NAME_BYTES;
pub use rules::{
    Added, Count, Counters, Entry, Explanation, MapUsage, Progress, ReasonCount, Removed, RuleCount, Rules,
    StageTrace,
};
pub use sources::SourceSampling;
pub use table::ListInfo;
