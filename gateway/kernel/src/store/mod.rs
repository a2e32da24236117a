//! Where the tables stand: pinned maps or memory of this process, behind one trait, so that everything above
//! ([`crate::Rules`]) is written once, and the stages look the same lines up in both.

mod pinned;
mod userspace;

use std::fmt::Debug;
use std::sync::Arc;

use gateway_common::abi::{Counter, Flow, FlowKey, FlowTable, RuleCounter, Source};
use gateway_common::flows::Flows;
use gateway_common::packet::{Address, Family};
use gateway_common::stages::Tables;
use gateway_common::table::{near_in_v4, near_in_v6};
use gateway_common::verdict::Reason;

pub(crate) use pinned::{Pinned, boot_ns, kernel, open_map, open_per_cpu, processors};
pub(crate) use userspace::Userspace;

use crate::entry::{BanBounds, DefaultVerdict};
use crate::error::Error;
use crate::table::Memory;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Entries made singly.
    Live,
    /// The lists in force.
    Lists,
    /// The lists before those.
    Former,
}

/// The tables and what belongs to them. Callers hold [`Store::lock`] while they write.
pub(crate) trait Store: Debug + Send + Sync {
    /// The table in a slot.
    fn table(&self, slot: Slot) -> Result<Option<Arc<Memory>>, Error>;
    /// Makes a table that is not in force yet.
    fn make(&self, lines: u32) -> Result<Made, Error>;
    /// Brings entries made singly into force, in one write.
    fn publish_live(&self, made: &Made) -> Result<(), Error>;
    /// Brings lists into force, in one write; those in force become the former ones.
    fn publish_lists(&self, made: &Made) -> Result<(), Error>;
    /// Exchanges the lists in force for the former ones, in one write.
    fn exchange_lists(&self) -> Result<(), Error>;
    /// Lets go of tables that are in no slot any more.
    fn sweep(&self) -> Result<(), Error>;

    /// What happens to packets that no entry names.
    fn default_verdict(&self) -> Result<DefaultVerdict, Error>;
    fn set_default(&self, default: DefaultVerdict) -> Result<(), Error>;
    /// What a ban may be at most.
    fn ban_bounds(&self) -> Result<BanBounds, Error>;
    fn set_ban_bounds(&self, bounds: BanBounds) -> Result<(), Error>;
    /// What is remembered of a flow; in userspace nothing is.
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, Error>;

    /// The table of rules: two lines a record.
    fn rules(&self) -> Result<Arc<Memory>, Error>;
    fn rule_hits(&self, number: u32) -> Result<RuleCounter, Error>;
    fn clear_rule_hits(&self, number: u32) -> Result<(), Error>;

    /// Every interface's name with its counters by reason.
    fn counters(&self) -> Result<Vec<InterfaceCounters>, Error>;
    /// Counts a judgement made in userspace; where the kernel judges there is none.
    fn count(&self, reason: Reason);
    /// Counts a rule's match in userspace.
    fn count_rule(&self, rule: u32);

    /// Every row of the table of recent sources, with its place.
    fn for_each_source(&self, visit: &mut dyn FnMut(u32, Source)) -> Result<(), Error>;
    /// Notes a source that passed in userspace; where the kernel judges, the programs do it.
    fn note_source(&self, address: &Address);
    /// How densely the programs note sources: see [`gateway_common::abi::Settings::source_sampling`].
    fn set_source_sampling(&self, mask: u32) -> Result<(), Error>;

    /// Boot clock.
    fn now_ns(&self) -> u64;
    /// Keeps other writers out, in this process and in others, until dropped.
    fn lock(&self) -> Result<Lock<'_>, Error>;
    /// The same without waiting; `None` while somebody else writes.
    fn try_lock(&self) -> Result<Option<Lock<'_>>, Error>;
    /// Whether packets are judged before they reach this process.
    fn is_kernel(&self) -> bool;
}

/// A table that was made here.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) memory: Arc<Memory>,
    /// Its map, where it is one.
    pub(crate) map: Option<std::os::fd::OwnedFd>,
}

impl AsRef<Memory> for Made {
    fn as_ref(&self) -> &Memory {
        &self.memory
    }
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

/// The tables in force at one moment, as the stages ask them.
#[derive(Debug)]
pub(crate) struct InForce {
    live: Arc<Memory>,
    lists: Arc<Memory>,
}

impl InForce {
    /// A table that is not there is as good as an empty one.
    pub(crate) fn new(live: Option<Arc<Memory>>, lists: Option<Arc<Memory>>) -> Result<Self, Error> {
        let or_empty = |table: Option<Arc<Memory>>| match table {
            Some(table) => Ok(table),
            None => Memory::anonymous(1).map(Arc::new),
        };
        Ok(Self { live: or_empty(live)?, lists: or_empty(lists)? })
    }

    pub(crate) fn of(store: &dyn Store) -> Result<Self, Error> {
        Self::new(store.table(Slot::Live)?, store.table(Slot::Lists)?)
    }
}

impl<'a> Tables for &'a InForce {
    type Lines = &'a Memory;

    fn near(&self, source: &Address) -> u32 {
        let (high, _) = source.halves();
        let of = |table: &Arc<Memory>| match source.family {
            Family::V4 => near_in_v4(&&**table, high as u32),
            Family::V6 => near_in_v6(&&**table, high),
        };
        of(&self.live) | of(&self.lists)
    }

    fn in_force(&self) -> Option<(&'a Memory, &'a Memory)> {
        Some((&self.live, &self.lists))
    }
}

/// A store's flows, as the stages ask them. Asking changes nothing: only the programs write flows. A failed
/// look-up (which the kernel does not know) counts as no flow; it is remembered so that `explain` can say so.
pub(crate) struct StoreFlows<'a> {
    store: &'a dyn Store,
    failure: std::cell::RefCell<Option<Error>>,
}

impl<'a> StoreFlows<'a> {
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, failure: std::cell::RefCell::new(None) }
    }

    /// For the stages: nothing where the default is to pass.
    pub(crate) fn by_default(&self) -> Result<Option<&Self>, Error> {
        Ok((self.store.default_verdict()? == DefaultVerdict::Drop).then_some(self))
    }

    /// The first look-up that failed, if one did.
    pub(crate) fn into_failure(self) -> Option<Error> {
        self.failure.into_inner()
    }
}

impl Flows for StoreFlows<'_> {
    type Row = Flow;

    fn find(&self, table: FlowTable, key: &FlowKey) -> Option<Flow> {
        self.store.flow(table, key).unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            None
        })
    }

    fn read(&self, row: &Flow) -> Flow {
        *row
    }

    fn write(&self, _row: &Flow, _flow: Flow) {}

    fn insert(&self, _table: FlowTable, _key: &FlowKey, _flow: Flow) {}

    fn remove(&self, _table: FlowTable, _key: &FlowKey) {}

    fn now_ns(&self) -> u64 {
        self.store.now_ns()
    }
}
