//! Loads, attaches and pins the kernel programs, and owns their maps; the same rules in userspace where
//! the kernel cannot be used. Only this crate speaks bpf(2).

mod entry;
mod error;
mod protection;
mod rules;

pub use entry::{Attach, ListKind, NewEntry, Owner};
pub use error::Error;
pub use protection::{
    Enforcement, Event, Events, InterfaceState, Plan, Protection, State, attachments, detach,
};
pub use rules::{
    Added, Count, Counters, Entry, Explanation, MapUsage, Progress, ReasonCount, Reconciled, Removed,
    RuleCount, Rules, StageTrace,
};
