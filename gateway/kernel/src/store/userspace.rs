//! The tables where the kernel cannot be used: the same entries and stages, looked up at accept.
//!
//! Longest match probes one hash table a prefix length in use, longest first: a list seldom has more than
//! a handful of lengths, and a connection costs microseconds anyway. Readers share a lock that only
//! list changes take for writing; a request on an open connection never comes here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use gateway_common::abi::{
    Counter, Entry, Flow, FlowKey, FlowTable, LIST_MAPS, List, ListSizes, RULE_SLOTS, RuleCounter, RuleRecord,
};
use gateway_common::packet::Address;
use gateway_common::verdict::Reason;
use ipnet::IpNet;

use super::{InterfaceCounters, Lock, Store, Table, boot_ns, prefix};
use crate::entry::DefaultVerdict;
use crate::error::Error;

/// Tables of this process.
#[derive(Debug)]
pub(crate) struct Userspace {
    tables: RwLock<[Lengths; LIST_MAPS]>,
    sizes: RwLock<ListSizes>,
    rules: RwLock<Vec<RuleRecord>>,
    /// Made once, so that counting at accept needs no lock.
    rule_hits: Box<[AtomicU64]>,
    reasons: [AtomicU64; Reason::ALL.len()],
    default_drop: AtomicBool,
    writer: Mutex<()>,
}

/// One family of one list: the prefixes of each length.
#[derive(Debug, Default)]
struct Lengths {
    by_length: HashMap<u32, HashMap<Address, Entry>>,
    /// Lengths in use, longest first.
    in_use: Vec<u32>,
}

impl Lengths {
    fn longest_match(&self, address: &Address, max_len: u32) -> Option<Entry> {
        self.in_use
            .iter()
            .filter(|length| **length <= max_len)
            .find_map(|length| self.by_length.get(length)?.get(&masked(address, *length)).copied())
    }

    fn put(&mut self, prefix: &IpNet, entry: Entry) {
        let length = u32::from(prefix.prefix_len());
        self.by_length.entry(length).or_default().insert(prefix.network().into(), entry);
        self.note_lengths();
    }

    fn delete(&mut self, prefix: &IpNet) {
        let length = u32::from(prefix.prefix_len());
        if let Some(entries) = self.by_length.get_mut(&length) {
            entries.remove(&prefix.network().into());
            if entries.is_empty() {
                self.by_length.remove(&length);
            }
        }
        self.note_lengths();
    }

    fn note_lengths(&mut self) {
        if self.in_use.len() != self.by_length.len() {
            self.in_use = self.by_length.keys().copied().collect();
            self.in_use.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
}

/// The address with everything behind `length` bits set to zero.
fn masked(address: &Address, length: u32) -> Address {
    match IpNet::new(IpAddr::from(*address), u8::try_from(length).unwrap_or(u8::MAX)) {
        Ok(net) => net.network().into(),
        Err(_) => *address,
    }
}

impl Userspace {
    pub(crate) fn new() -> Self {
        Self {
            tables: RwLock::default(),
            sizes: RwLock::default(),
            rules: RwLock::default(),
            rule_hits: (0..RULE_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            reasons: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            default_drop: AtomicBool::new(false),
            writer: Mutex::new(()),
        }
    }

    // A writer that panicked leaves whole entries behind, so a poisoned lock is still good to use.
    fn read(&self) -> RwLockReadGuard<'_, [Lengths; LIST_MAPS]> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, [Lengths; LIST_MAPS]> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Userspace {
    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Result<Option<Entry>, Error> {
        Ok(self.read()[Table { list, family: address.family }.index()].longest_match(address, max_len))
    }

    fn put(&self, table: Table, prefix: &IpNet, entry: Entry) -> Result<(), Error> {
        self.write()[table.index()].put(prefix, entry);
        Ok(())
    }

    fn delete(&self, table: Table, prefix: &IpNet) -> Result<(), Error> {
        self.write()[table.index()].delete(prefix);
        Ok(())
    }

    fn for_each(&self, table: Table, visit: &mut dyn FnMut(IpNet, Entry)) -> Result<(), Error> {
        for (length, entries) in &self.read()[table.index()].by_length {
            for (address, entry) in entries {
                if let Some(prefix) = prefix(*address, *length) {
                    visit(prefix, *entry);
                }
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Result<ListSizes, Error> {
        Ok(*self.sizes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_sizes(&self, sizes: &ListSizes) -> Result<(), Error> {
        *self.sizes.write().unwrap_or_else(PoisonError::into_inner) = *sizes;
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

    /// A connection to one of our listeners answers nothing.
    fn flow(&self, _table: FlowTable, _key: &FlowKey) -> Result<Option<Flow>, Error> {
        Ok(None)
    }

    fn rule(&self, number: u32) -> Result<RuleRecord, Error> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rules.get(number as usize).copied().unwrap_or(crate::rulebook::EMPTY))
    }

    fn set_rule(&self, number: u32, record: &RuleRecord) -> Result<(), Error> {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let number = number as usize;
        if rules.len() <= number {
            rules.resize(number + 1, crate::rulebook::EMPTY);
        }
        rules[number] = *record;
        Ok(())
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
