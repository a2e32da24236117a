//! Where the rules stand: pinned maps or tables of this process, behind one trait, so that everything
//! above ([`crate::Rules`]) is written once.

mod pinned;
mod userspace;

use std::fmt::Debug;
use std::net::IpAddr;

use gateway_common::abi::{
    ALLOW_CAPACITY, BAN_CAPACITY, Counter, DENY_CAPACITY, Entry, Flow, FlowKey, FlowTable, List, ListSizes,
    RuleCounter, RuleRecord,
};
use gateway_common::flows::Flows;
use gateway_common::packet::{Address, Family};
use gateway_common::stages::Tables;
use gateway_common::verdict::Reason;
use ipnet::IpNet;

pub(crate) use pinned::{Pinned, boot_ns, kernel, open_map, open_per_cpu, processors};
pub(crate) use userspace::Userspace;

use crate::entry::DefaultVerdict;
use crate::error::Error;

/// A list's table for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub(crate) list: List,
    pub(crate) family: Family,
}

impl Table {
    pub(crate) const ALL: [Self; 6] = [
        Self { list: List::Allow, family: Family::V4 },
        Self { list: List::Allow, family: Family::V6 },
        Self { list: List::Ban, family: Family::V4 },
        Self { list: List::Ban, family: Family::V6 },
        Self { list: List::Deny, family: Family::V4 },
        Self { list: List::Deny, family: Family::V6 },
    ];

    pub(crate) fn of(list: List, prefix: &IpNet) -> Self {
        let family = if prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        Self { list, family }
    }

    /// Its place in [`Self::ALL`] and in the map of sizes.
    pub(crate) const fn index(self) -> usize {
        self.list as usize * 2 + matches!(self.family, Family::V6) as usize
    }

    /// The map's name, in the object and in metrics.
    pub(crate) const fn name(self) -> &'static str {
        ["allow_v4", "allow_v6", "ban_v4", "ban_v6", "deny_v4", "deny_v6"][self.index()]
    }

    pub(crate) const fn capacity(self) -> u64 {
        match self.list {
            List::Allow => ALLOW_CAPACITY as u64,
            List::Ban => BAN_CAPACITY as u64,
            List::Deny => DENY_CAPACITY as u64,
        }
    }
}

/// The tables, one operation at a time. Callers hold [`Store::lock`] while they write.
pub(crate) trait Store: Debug + Send + Sync {
    /// The entry with the longest prefix, of at most `max_len` bits, that covers the address.
    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Result<Option<Entry>, Error>;
    fn put(&self, table: Table, prefix: &IpNet, entry: Entry) -> Result<(), Error>;
    fn delete(&self, table: Table, prefix: &IpNet) -> Result<(), Error>;
    fn for_each(&self, table: Table, visit: &mut dyn FnMut(IpNet, Entry)) -> Result<(), Error>;

    fn sizes(&self) -> Result<ListSizes, Error>;
    fn set_sizes(&self, sizes: &ListSizes) -> Result<(), Error>;

    /// What happens to packets that no entry names.
    fn default_verdict(&self) -> Result<DefaultVerdict, Error>;
    fn set_default(&self, default: DefaultVerdict) -> Result<(), Error>;
    /// What is remembered of a flow; in userspace nothing is.
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, Error>;

    fn rule(&self, number: u32) -> Result<RuleRecord, Error>;
    fn set_rule(&self, number: u32, record: &RuleRecord) -> Result<(), Error>;
    fn rule_hits(&self, number: u32) -> Result<RuleCounter, Error>;
    fn clear_rule_hits(&self, number: u32) -> Result<(), Error>;

    /// Every interface's name with its counters by reason.
    fn counters(&self) -> Result<Vec<InterfaceCounters>, Error>;
    /// Counts a judgement made in userspace; where the kernel judges there is none.
    fn count(&self, reason: Reason);
    /// Counts a rule's match in userspace.
    fn count_rule(&self, rule: u32);

    /// Boot clock.
    fn now_ns(&self) -> u64;
    /// Keeps other writers out, in this process and in others, until dropped.
    fn lock(&self) -> Result<Lock<'_>, Error>;
    /// The same without waiting; `None` while somebody else writes.
    fn try_lock(&self) -> Result<Option<Lock<'_>>, Error>;
    /// Whether packets are judged before they reach this process.
    fn is_kernel(&self) -> bool;
}

/// What one interface counted, by reason.
#[derive(Debug)]
pub(crate) struct InterfaceCounters {
    pub(crate) interface: String,
    pub(crate) reasons: Vec<(Reason, Counter)>,
}

/// A writer's turn, until dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) enum Lock<'a> {
    /// Among the threads of this process.
    Process(std::sync::MutexGuard<'a, ()>),
    /// Among all processes: flock(2) on the pin directory.
    Directory(std::os::fd::OwnedFd),
}

/// A store as the stages ask it. A failed look-up (which the kernel does not know) counts as no match;
/// it is remembered so that `explain` can say so.
pub(crate) struct StageTables<'a> {
    store: &'a dyn Store,
    failure: std::cell::RefCell<Option<Error>>,
}

impl<'a> StageTables<'a> {
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, failure: std::cell::RefCell::new(None) }
    }

    fn failed<T>(&self, error: Error) -> Option<T> {
        self.failure.borrow_mut().get_or_insert(error);
        None
    }

    /// The first look-up that failed, if one did.
    pub(crate) fn into_failure(self) -> Option<Error> {
        self.failure.into_inner()
    }
}

impl Tables for StageTables<'_> {
    type Found = Entry;

    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Option<Entry> {
        self.store.longest_match(list, address, max_len).unwrap_or_else(|error| self.failed(error))
    }

    fn default_drop(&self) -> bool {
        let default = self.store.default_verdict().map(Some).unwrap_or_else(|error| self.failed(error));
        default == Some(DefaultVerdict::Drop)
    }

    fn now_ns(&self) -> u64 {
        self.store.now_ns()
    }
}

/// Asking changes nothing: only the programs write flows.
impl Flows for StageTables<'_> {
    type Row = Flow;

    fn find(&self, table: FlowTable, key: &FlowKey) -> Option<Flow> {
        self.store.flow(table, key).unwrap_or_else(|error| self.failed(error))
    }

    fn read(&self, row: &Flow) -> Flow {
        *row
    }

    fn write(&self, _row: &Flow, _flow: Flow) {}

    fn insert(&self, _table: FlowTable, _key: &FlowKey, _flow: Flow) {}

    fn remove(&self, _table: FlowTable, _key: &FlowKey) {}
}

/// The entry for this very prefix, if there is one.
pub(crate) fn exact(store: &dyn Store, table: Table, prefix: &IpNet) -> Result<Option<Entry>, Error> {
    let length = u32::from(prefix.prefix_len());
    let found = store.longest_match(table.list, &Address::from(prefix.addr()), length)?;
    Ok(found.filter(|entry| u32::from(entry.prefix_len) == length))
}

/// The prefix that a key of a table stands for.
fn prefix(address: Address, length: u32) -> Option<IpNet> {
    IpNet::new(IpAddr::from(address), u8::try_from(length).ok()?).ok()
}
