//! The rules in force: one handle over the pinned maps or over the same tables in userspace.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::entry::{ListKind, NewEntry, Owner};
use crate::error::Error;

/// The rules in force. Cheap to clone; every clone speaks of the same tables. Writers are serialised by
/// a lock on the pin directory (or inside the process), so commands and the agent never lose an update.
#[derive(Debug, Clone)]
pub struct Rules;

/// An entry as read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The list it stands in.
    pub list: ListKind,
    /// What it covers.
    pub prefix: IpNet,
    /// The label its hits are counted under.
    pub rule: String,
    /// What is left of its time to live, whole seconds rounded up; `None` is until deleted.
    pub ttl_seconds: Option<u64>,
    /// Counted, not dropped.
    pub shadow: bool,
    /// Who keeps it: one or both.
    pub owners: Vec<Owner>,
}

/// What an `add` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries whose rule, time to live, shadow flag or owner changed.
    pub updated: usize,
}

/// What a `remove` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Entries that are gone.
    pub removed: usize,
    /// Prefixes that were not in the list.
    pub missing: Vec<IpNet>,
    /// Prefixes that stay because the configuration names them.
    pub kept_by_config: Vec<IpNet>,
}

/// What a `reconcile` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Entries the configuration brought in.
    pub added: usize,
    /// Entries that left because the configuration no longer names them.
    pub removed: usize,
    /// Entries that were there already.
    pub unchanged: usize,
}

/// How full a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUsage {
    /// The map's name, as in metrics: `deny_v4`.
    pub map: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets (connections where the rules run at accept).
    pub packets: u64,
    /// Bytes on the wire, Ethernet header included; 0 at accept.
    pub bytes: u64,
}

/// Counters of one interface, verdict and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The interface's name; `accept` where the rules run at accept.
    pub interface: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's stable name.
    pub reason: String,
    /// How many.
    #[serde(flatten)]
    pub count: Count,
}

/// Counters of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// The rule's label.
    pub rule: String,
    /// The list it belongs to.
    pub list: ListKind,
    /// How many.
    #[serde(flatten)]
    pub count: Count,
}

/// All counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// By interface, verdict and reason; rows of zero are left out.
    pub reasons: Vec<ReasonCount>,
    /// By rule; rules without entries and hits are left out.
    pub rules: Vec<RuleCount>,
    /// Sampled events that no reader got: suppressed by the rate limit, or the ring was full.
    pub events_lost: u64,
}

/// What one stage said of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTrace {
    /// `parse`, `allow`, `ban`, `deny` or `pass`.
    pub stage: String,
    /// `pass`, `drop`, `shadow` or `next`.
    pub outcome: String,
    /// The entry that matched, if one did.
    pub entry: Option<Entry>,
}

/// Why a packet would pass or be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet's source.
    pub source: IpAddr,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's stable name, as in metrics.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// The stages the packet went through, in order.
    pub stages: Vec<StageTrace>,
}

/// Reports progress of long work: entries done so far.
pub type Progress<'a> = &'a mut dyn FnMut(usize);

impl Rules {
    /// Opens the rules that a gateway has pinned under `pin_dir`, whether its agent runs or not.
    ///
    /// # Errors
    /// [`Error::NotPinned`] when there are none, [`Error::Privilege`] when they may not be opened.
    pub fn open(_pin_dir: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// Rules in userspace, empty.
    pub fn in_userspace() -> Self {
        todo!()
    }

    /// Adds or updates entries. All or none: capacity is checked before anything is written.
    /// Entries with a time to live belong in [`ListKind::Ban`] or [`ListKind::Allow`].
    pub fn add(
        &self,
        _list: ListKind,
        _owner: Owner,
        _entries: &[NewEntry],
        _progress: Progress,
    ) -> Result<Added, Error> {
        todo!()
    }

    /// Takes the operator's entries for these very prefixes out of a list.
    pub fn remove(&self, _list: ListKind, _prefixes: &[IpNet]) -> Result<Removed, Error> {
        todo!()
    }

    /// Every entry of a list that still holds, v4 before v6, in address order.
    pub fn entries(&self, _list: ListKind) -> Result<Vec<Entry>, Error> {
        todo!()
    }

    /// Takes all of the operator's entries out of a list; returns how many entries left it.
    pub fn flush(&self, _list: ListKind) -> Result<usize, Error> {
        todo!()
    }

    /// Makes the configuration's share of a list what `desired` says.
    pub fn reconcile(&self, _list: ListKind, _desired: &[NewEntry]) -> Result<Reconciled, Error> {
        todo!()
    }

    /// Removes entries whose time is over; the programs ignore them already. Returns how many.
    pub fn expire(&self) -> Result<usize, Error> {
        todo!()
    }

    /// How full each list's map is.
    pub fn usage(&self) -> Result<Vec<MapUsage>, Error> {
        todo!()
    }

    /// All counters, summed over processors.
    pub fn counters(&self) -> Result<Counters, Error> {
        todo!()
    }

    /// Replays the stages for a TCP SYN from `source`, with the code the kernel runs.
    pub fn explain(&self, _source: IpAddr, _destination: Option<SocketAddr>) -> Result<Explanation, Error> {
        todo!()
    }

    /// Judges and counts a connection at accept. `true`: serve it. Always `true` where the kernel
    /// already judged its packets.
    pub fn admits(&self, _peer: SocketAddr, _local: SocketAddr) -> bool {
        todo!()
    }

    /// What is left of a TTL in the kernel's boot clock never differs from the wall by more than this.
    #[doc(hidden)]
    pub const CLOCK_SLACK: Duration = Duration::from_secs(1);
}
