//! The tables where the kernel cannot be used: the same lines, looked up by the same code, at accept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

use gateway_common::abi::{
    Counter, Flow, FlowKey, FlowTable, RULE_SLOTS, RuleCounter, SOURCE_SLOTS, Source, source_slot,
};
use gateway_common::packet::Address;
use gateway_common::verdict::Reason;

use super::{InterfaceCounters, Lock, Made, Slot, Store, boot_ns};
use crate::entry::{BanBounds, DefaultVerdict};
use crate::error::Error;
use crate::rulebook::RECORD_LINES;
use crate::table::Memory;

/// Tables of this process.
#[derive(Debug)]
pub(crate) struct Userspace {
    tables: RwLock<Tables>,
    rules: Arc<Memory>,
    /// Made once, so that counting at accept needs no lock.
    rule_hits: Box<[AtomicU64]>,
    reasons: [AtomicU64; Reason::ALL.len()],
    default_drop: AtomicBool,
    ban_bounds: Mutex<BanBounds>,
    /// A lock a row: two connections from one row's sources at one moment are an accident.
    sources: Box<[Mutex<Source>]>,
    writer: Mutex<()>,
}

#[derive(Debug, Default)]
struct Tables {
    live: Option<Arc<Memory>>,
    lists: Option<Arc<Memory>>,
    former: Option<Arc<Memory>>,
}

impl Userspace {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            tables: RwLock::default(),
            rules: Arc::new(Memory::anonymous(RULE_SLOTS * RECORD_LINES)?),
            rule_hits: (0..RULE_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            reasons: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            default_drop: AtomicBool::new(false),
            ban_bounds: Mutex::default(),
            sources: (0..SOURCE_SLOTS).map(|_| Mutex::default()).collect(),
            writer: Mutex::new(()),
        })
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Userspace {
    fn table(&self, slot: Slot) -> Result<Option<Arc<Memory>>, Error> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(match slot {
            Slot::Live => tables.live.clone(),
            Slot::Lists => tables.lists.clone(),
            Slot::Former => tables.former.clone(),
        })
    }

    fn make(&self, lines: u32) -> Result<Made, Error> {
        Ok(Made { memory: Arc::new(Memory::anonymous(lines)?), map: None })
    }

    fn publish_live(&self, made: &Made) -> Result<(), Error> {
        self.write().live = Some(Arc::clone(&made.memory));
        Ok(())
    }

    fn publish_lists(&self, made: &Made) -> Result<(), Error> {
        let mut tables = self.write();
        tables.former = tables.lists.replace(Arc::clone(&made.memory));
        Ok(())
    }

    fn exchange_lists(&self) -> Result<(), Error> {
        let mut tables = self.write();
        let Tables { lists, former, .. } = &mut *tables;
        std::mem::swap(lists, former);
        Ok(())
    }

    fn sweep(&self) -> Result<(), Error> {
        Ok(())
    }

    fn default_verdict(&self) -> Result<DefaultVerdict, Error> {
        let drops = self.default_drop.load(Ordering::Relaxed);
        Ok(if drops { DefaultVerdict::Drop } else { DefaultVerdict::Pass })
    }

    fn set_default(&self, default: DefaultVerdict) -> Result<(), Error> {
        self.default_drop.store(default == DefaultVerdict::Drop, Ordering::Relaxed);
        Ok(())
    }

    fn ban_bounds(&self) -> Result<BanBounds, Error> {
        Ok(*self.ban_bounds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_ban_bounds(&self, bounds: BanBounds) -> Result<(), Error> {
        *self.ban_bounds.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
        Ok(())
    }

    /// A connection to one of our listeners answers nothing.
    fn flow(&self, _table: FlowTable, _key: &FlowKey) -> Result<Option<Flow>, Error> {
        Ok(None)
    }

    fn rules(&self) -> Result<Arc<Memory>, Error> {
        Ok(Arc::clone(&self.rules))
    }

    fn rule_hits(&self, number: u32) -> Result<RuleCounter, Error> {
        let packets = self.rule_hits.get(number as usize).map_or(0, |hits| hits.load(Ordering::Relaxed));
        Ok(RuleCounter { packets, bytes: 0 })
    }

    fn clear_rule_hits(&self, number: u32) -> Result<(), Error> {
        if let Some(hits) = self.rule_hits.get(number as usize) {
            hits.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<InterfaceCounters>, Error> {
        let counts = Reason::ALL.iter().zip(&self.reasons).map(|(reason, packets)| {
            (*reason, Counter { packets: packets.load(Ordering::Relaxed), ..Counter::default() })
        });
        Ok(vec![InterfaceCounters { interface: "accept".to_owned(), reasons: counts.collect() }])
    }

    fn count(&self, reason: Reason) {
        self.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_rule(&self, rule: u32) {
        if let Some(hits) = self.rule_hits.get(rule as usize) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn for_each_source(&self, visit: &mut dyn FnMut(u32, Source)) -> Result<(), Error> {
        for (slot, row) in (0..).zip(&self.sources) {
            visit(slot, *row.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    fn note_source(&self, address: &Address) {
        if let Some(row) = self.sources.get(source_slot(address) as usize) {
            *row.lock().unwrap_or_else(PoisonError::into_inner) = Source::new(address, boot_ns());
        }
    }

    fn set_source_sampling(&self, _mask: u32) -> Result<(), Error> {
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        boot_ns()
    }

    fn lock(&self) -> Result<Lock<'_>, Error> {
        Ok(Lock::Process(self.writer.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn try_lock(&self) -> Result<Option<Lock<'_>>, Error> {
        match self.writer.try_lock() {
            Ok(held) => Ok(Some(Lock::Process(held))),
            Err(TryLockError::Poisoned(held)) => Ok(Some(Lock::Process(held.into_inner()))),
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    fn is_kernel(&self) -> bool {
        false
    }
}
