//! The rules in force: one handle over the pinned maps or over the same tables in userspace.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_common::abi;
use gateway_common::packet::{Fragment, Headers, Packet};
use gateway_common::stages::{Judgement, Observer, judge, judge_packet};
use gateway_common::verdict::Verdict;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::entry::{ListKind, NewEntry, Owner};
use crate::error::Error;
use crate::pin::PinDir;
use crate::rulebook::Rulebook;
use crate::store::{InterfaceCounters, Pinned, StageTables, Store, Table, Userspace, exact};

/// The rules in force. Cheap to clone; every clone speaks of the same tables. Writers are serialised by
/// a lock on the pin directory (or inside the process), so commands and the agent never lose an update.
#[derive(Debug, Clone)]
pub struct Rules {
    store: Arc<dyn Store>,
    sweep: Arc<std::sync::Mutex<Instant>>,
}

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

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// Entries written between two reports of progress.
const PROGRESS_STEP: usize = 4096;

impl Rules {
    /// Opens the rules that a gateway has pinned under `pin_dir`, whether its agent runs or not.
    ///
    /// # Errors
    /// [`Error::NotPinned`] when there are none, [`Error::Privilege`] when they may not be opened.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let dir = PinDir::new(pin_dir);
        if !dir.exists() {
            return Err(Error::NotPinned(pin_dir.to_owned()));
        }
        Ok(Self::over(Arc::new(Pinned::open(&dir)?)))
    }

    /// Rules in userspace, empty.
    pub fn in_userspace() -> Self {
        Self::over(Arc::new(Userspace::new()))
    }

    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        Self { store, sweep: Arc::new(std::sync::Mutex::new(Instant::now())) }
    }

    /// Adds or updates entries. All or none: capacity is checked before anything is written, and a write
    /// that the kernel refuses takes the ones before it back. Of two entries for one prefix the later holds.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::RulesFull`], or what the kernel refused.
    pub fn add(
        &self,
        list: ListKind,
        owner: Owner,
        entries: &[NewEntry],
        progress: Progress,
    ) -> Result<Added, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let mut added = Added::default();
        for Planned { table, entry, present } in edit.plan(list, entries)? {
            if edit.wants_change(owner, entry, present.as_ref()) {
                let rule = edit.book.number(table.list, &entry.rule)?;
                let new = merged(owner, entry, rule, present.as_ref(), self.store.now_ns());
                edit.put(table, entry.prefix, new, present);
                if present.is_some() { added.updated += 1 } else { added.added += 1 }
            }
        }
        edit.commit(progress)?;
        Ok(added)
    }

    /// Takes the operator's entries for these very prefixes out of a list.
    ///
    /// # Errors
    /// What the kernel refused; then nothing is removed.
    pub fn remove(&self, list: ListKind, prefixes: &[IpNet]) -> Result<Removed, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let mut removed = Removed::default();
        for prefix in prefixes {
            let table = Table::of(list.into(), prefix);
            match exact(&*self.store, table, prefix)? {
                None => removed.missing.push(*prefix),
                Some(entry) if entry.flags & abi::Entry::CONFIG != 0 => {
                    edit.give_up(table, *prefix, entry, abi::Entry::OPERATOR);
                    removed.kept_by_config.push(*prefix);
                }
                Some(entry) => {
                    edit.delete(table, *prefix, entry);
                    removed.removed += 1;
                }
            }
        }
        edit.commit(&mut |_| {})?;
        Ok(removed)
    }

    /// Every entry of a list that still holds, v4 before v6, in address order.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn entries(&self, list: ListKind) -> Result<Vec<Entry>, Error> {
        // Under the writers' lock, because the kernel's walk ends early when its place is deleted.
        let _turn = self.store.lock()?;
        let book = Rulebook::read(&*self.store)?;
        let now_ns = self.store.now_ns();
        let mut found = Vec::new();
        for table in tables(list) {
            self.store.for_each(table, &mut |prefix, entry| {
                if !entry.has_expired(|| now_ns) {
                    found.push(read_back(list, prefix, &entry, &book, now_ns));
                }
            })?;
        }
        found.sort_unstable_by_key(|entry| entry.prefix);
        Ok(found)
    }

    /// Takes all of the operator's entries out of a list; returns how many entries left it.
    ///
    /// # Errors
    /// What the kernel refused; then nothing is removed.
    pub fn flush(&self, list: ListKind) -> Result<usize, Error> {
        self.give_up_all(list, abi::Entry::OPERATOR, &HashMap::new())
    }

    /// Makes the configuration's share of a list what `desired` says.
    ///
    /// # Errors
    /// As [`Rules::add`]; then the list is as before.
    pub fn reconcile(&self, list: ListKind, desired: &[NewEntry]) -> Result<Reconciled, Error> {
        // What is new comes before what is no longer wanted goes, so that a prefix which moves from one
        // entry to another is never unlisted in between.
        let added = self.add(list, Owner::Config, desired, &mut |_| {})?;
        let kept: HashMap<IpNet, ()> = desired.iter().map(|entry| (entry.prefix, ())).collect();
        let removed = self.give_up_all(list, abi::Entry::CONFIG, &kept)?;
        Ok(Reconciled {
            added: added.added,
            removed,
            unchanged: kept.len().saturating_sub(added.added + added.updated),
        })
    }

    /// Removes entries whose time is over; the programs ignore them already. Returns how many. Called
    /// every second, it spends at most a small share of the time on large lists.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn expire(&self) -> Result<usize, Error> {
        let started = Instant::now();
        {
            let next = self.sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if started < *next {
                return Ok(0);
            }
        }
        let mut expired = 0;
        for table in [ListKind::Ban, ListKind::Allow].into_iter().flat_map(tables) {
            if self.store.sizes()?.entries[table.index()] > 0 {
                expired += self.expire_table(table)?;
            }
        }
        let rest = (started.elapsed() * 50).max(Duration::from_millis(500));
        *self.sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now() + rest;
        Ok(expired)
    }

    fn expire_table(&self, table: Table) -> Result<usize, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let now_ns = self.store.now_ns();
        let mut over = Vec::new();
        self.store.for_each(table, &mut |prefix, entry| {
            if entry.has_expired(|| now_ns) {
                over.push((prefix, entry));
            }
        })?;
        for (prefix, entry) in &over {
            edit.delete(table, *prefix, *entry);
        }
        edit.commit(&mut |_| {})?;
        Ok(over.len())
    }

    /// How full each list's map is.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn usage(&self) -> Result<Vec<MapUsage>, Error> {
        let mut sizes = self.store.sizes()?;
        if sizes.torn != 0 {
            // Somebody is writing, or died while writing: taking a turn waits for the one and mends the other.
            drop(Edit::begin(&*self.store)?);
            sizes = self.store.sizes()?;
        }
        let usage = |table: &Table| MapUsage {
            map: table.name().to_owned(),
            entries: sizes.entries[table.index()],
            capacity: table.capacity(),
        };
        Ok(Table::ALL.iter().map(usage).collect())
    }

    /// All counters, summed over processors.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut counters = Counters::default();
        for InterfaceCounters { interface, reasons } in self.store.counters()? {
            for (reason, counted) in reasons {
                counters.events_lost += counted.events_lost;
                if counted.packets > 0 {
                    counters.reasons.push(ReasonCount {
                        interface: interface.clone(),
                        verdict: reason.verdict().name().to_owned(),
                        reason: reason.name().to_owned(),
                        count: Count { packets: counted.packets, bytes: counted.bytes },
                    });
                }
            }
        }
        for (number, list, label, entries) in Rulebook::read(&*self.store)?.rules() {
            let hits = self.store.rule_hits(number)?;
            if entries > 0 || hits.packets > 0 {
                let count = Count { packets: hits.packets, bytes: hits.bytes };
                counters.rules.push(RuleCount { rule: label.to_owned(), list: list.into(), count });
            }
        }
        Ok(counters)
    }

    /// Replays the stages for a TCP SYN from `source`, with the code the kernel runs.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn explain(&self, source: IpAddr, destination: Option<SocketAddr>) -> Result<Explanation, Error> {
        let packet = syn(source, destination);
        let tables = StageTables::new(&*self.store);
        let mut trace = crate::explain::Trace::default();
        let judgement = judge_packet(&packet, &tables, &mut trace);
        if let Some(error) = tables.into_failure() {
            return Err(error);
        }
        let book = Rulebook::read(&*self.store)?;
        let now_ns = self.store.now_ns();
        let read_back = |list: abi::List, entry: &abi::Entry| {
            let prefix = IpNet::new(source, entry.prefix_len as u8).ok()?.trunc();
            Some(read_back(list.into(), prefix, entry, &book, now_ns))
        };
        Ok(Explanation {
            source,
            verdict: judgement.verdict().name().to_owned(),
            reason: judgement.reason.name().to_owned(),
            sentence: judgement.reason.sentence().to_owned(),
            stages: trace.into_stages(read_back),
        })
    }

    /// Judges a frame with the code the kernel runs, over the same tables, and counts nothing.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn judge(&self, frame: &[u8]) -> Result<Judgement, Error> {
        let tables = StageTables::new(&*self.store);
        let mut headers = Headers::BLANK;
        let judgement = judge(&frame, &mut headers, &tables, &mut ());
        tables.into_failure().map_or(Ok(judgement), Err)
    }

    /// Judges and counts a connection at accept. `true`: serve it. Always `true` where the kernel
    /// already judged its packets.
    pub fn admits(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        if self.store.is_kernel() {
            return true;
        }
        let mut packet = syn(peer.ip().to_canonical(), Some(local));
        packet.source_port = peer.port();
        let tables = StageTables::new(&*self.store);
        let judgement = judge_packet(&packet, &tables, &mut Hits(&*self.store));
        self.store.count(judgement.reason);
        judgement.verdict() == Verdict::Pass
    }

    fn give_up_all(&self, list: ListKind, owner: u16, keep: &HashMap<IpNet, ()>) -> Result<usize, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let mut gone = 0;
        for table in tables(list) {
            let mut owned = Vec::new();
            self.store.for_each(table, &mut |prefix, entry| {
                if entry.flags & owner != 0 && !keep.contains_key(&prefix) {
                    owned.push((prefix, entry));
                }
            })?;
            for (prefix, entry) in owned {
                if entry.flags & (abi::Entry::CONFIG | abi::Entry::OPERATOR) == owner {
                    edit.delete(table, prefix, entry);
                    gone += 1;
                } else {
                    edit.give_up(table, prefix, entry, owner);
                }
            }
        }
        edit.commit(&mut |_| {})?;
        Ok(gone)
    }
}

/// Counts rules that match at accept.
struct Hits<'a>(&'a dyn Store);

impl Observer for Hits<'_> {
    fn matched(&mut self, _list: abi::List, entry: &abi::Entry) {
        self.0.count_rule(entry.rule);
    }
}

/// The packet that opens a connection.
fn syn(source: IpAddr, destination: Option<SocketAddr>) -> Packet {
    let unspecified = match source {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Packet {
        source: source.into(),
        destination: destination.map_or(unspecified, |to| to.ip()).into(),
        protocol: TCP,
        fragment: Fragment::NONE,
        source_port: 0,
        destination_port: destination.map_or(0, |to| to.port()),
    }
}

fn tables(list: ListKind) -> impl Iterator<Item = Table> {
    Table::ALL.into_iter().filter(move |table| table.list == list.into())
}

fn read_back(list: ListKind, prefix: IpNet, entry: &abi::Entry, book: &Rulebook, now_ns: u64) -> Entry {
    let owners = [(abi::Entry::CONFIG, Owner::Config), (abi::Entry::OPERATOR, Owner::Operator)];
    Entry {
        list,
        prefix,
        rule: book.label(entry.rule).to_owned(),
        ttl_seconds: (entry.expires_ns != 0)
            .then(|| entry.expires_ns.saturating_sub(now_ns).div_ceil(1_000_000_000)),
        shadow: entry.is_shadow(),
        owners: owners
            .into_iter()
            .filter(|(bit, _)| entry.flags & bit != 0)
            .map(|(_, owner)| owner)
            .collect(),
    }
}

/// The map entry that an owner's new entry and the one that is there make. An operator's word about a
/// prefix stands over the configuration's, as long as the operator's entry lasts.
fn merged(owner: Owner, new: &NewEntry, rule: u32, present: Option<&abi::Entry>, now_ns: u64) -> abi::Entry {
    let held = present.map_or(0, |entry| entry.flags & (abi::Entry::CONFIG | abi::Entry::OPERATOR));
    if let (Owner::Config, Some(present)) = (owner, present)
        && held & abi::Entry::OPERATOR != 0
    {
        return abi::Entry { flags: present.flags | abi::Entry::CONFIG, ..*present };
    }
    let ttl_ns = new.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
    abi::Entry {
        expires_ns: ttl_ns.map_or(0, |ttl_ns| now_ns.saturating_add(ttl_ns)),
        rule,
        flags: held | owner.bit() | if new.shadow { abi::Entry::SHADOW } else { 0 },
        prefix_len: u16::from(new.prefix.prefix_len()),
    }
}

/// One writer's changes: planned under the lock, checked, then written; undone if the kernel refuses one.
struct Edit<'a> {
    store: &'a dyn Store,
    book: Rulebook,
    changes: Vec<Change>,
    added: [u64; abi::LIST_MAPS],
    deleted: [u64; abi::LIST_MAPS],
    _turn: crate::store::Lock<'a>,
}

/// An entry to write, its table, and what stands there.
struct Planned<'e> {
    table: Table,
    entry: &'e NewEntry,
    present: Option<abi::Entry>,
}

struct Change {
    table: Table,
    prefix: IpNet,
    former: Option<abi::Entry>,
    new: Option<abi::Entry>,
}

impl<'a> Edit<'a> {
    fn begin(store: &'a dyn Store) -> Result<Self, Error> {
        let turn = store.lock()?;
        if store.sizes()?.torn != 0 {
            recount(store)?;
        }
        let book = Rulebook::read(store)?;
        Ok(Self {
            store,
            book,
            changes: Vec::new(),
            added: [0; abi::LIST_MAPS],
            deleted: [0; abi::LIST_MAPS],
            _turn: turn,
        })
    }

    /// The entries to write, each with its table and what stands there, one a prefix; refused as a whole
    /// if they do not fit.
    fn plan<'e>(&self, list: ListKind, entries: &'e [NewEntry]) -> Result<Vec<Planned<'e>>, Error> {
        let mut last: HashMap<IpNet, usize> = HashMap::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            last.insert(entry.prefix, index);
        }
        let mut planned = Vec::with_capacity(last.len());
        let mut wanted = [0_u64; abi::LIST_MAPS];
        for (index, entry) in entries.iter().enumerate() {
            if last.get(&entry.prefix) != Some(&index) {
                continue;
            }
            let table = Table::of(list.into(), &entry.prefix);
            let present = exact(self.store, table, &entry.prefix)?;
            wanted[table.index()] += u64::from(present.is_none());
            planned.push(Planned { table, entry, present });
        }
        let sizes = self.store.sizes()?;
        for table in tables(list) {
            let (used, wanted) = (sizes.entries[table.index()], wanted[table.index()]);
            if used + wanted > table.capacity() {
                let map = table.name().to_owned();
                return Err(Error::Full { map, capacity: table.capacity(), used, wanted });
            }
        }
        Ok(planned)
    }

    /// Whether writing an entry would change anything: a reload of the same configuration writes nothing.
    fn wants_change(&self, owner: Owner, new: &NewEntry, present: Option<&abi::Entry>) -> bool {
        let Some(present) = present else { return true };
        let same = present.flags & owner.bit() != 0
            && new.ttl.is_none()
            && present.expires_ns == 0
            && present.is_shadow() == new.shadow
            && self.book.label(present.rule) == new.rule;
        let overruled = owner == Owner::Config
            && present.flags & abi::Entry::OPERATOR != 0
            && present.flags & abi::Entry::CONFIG != 0;
        !(same || overruled)
    }

    fn put(&mut self, table: Table, prefix: IpNet, new: abi::Entry, former: Option<abi::Entry>) {
        match former {
            Some(former) => self.book.lost(former.rule),
            None => self.added[table.index()] += 1,
        }
        self.book.gained(new.rule);
        self.changes.push(Change { table, prefix, former, new: Some(new) });
    }

    fn delete(&mut self, table: Table, prefix: IpNet, former: abi::Entry) {
        self.book.lost(former.rule);
        self.deleted[table.index()] += 1;
        self.changes.push(Change { table, prefix, former: Some(former), new: None });
    }

    /// One of two owners lets go. What the operator's shadow flag softened is enforced again: the
    /// configuration's own flag comes back with the next reload, and until then the strict reading holds.
    fn give_up(&mut self, table: Table, prefix: IpNet, former: abi::Entry, owner: u16) {
        let mut flags = former.flags & !owner;
        let mut expires_ns = former.expires_ns;
        if owner == abi::Entry::OPERATOR {
            flags &= !abi::Entry::SHADOW;
            expires_ns = 0;
        }
        self.put(table, prefix, abi::Entry { flags, expires_ns, ..former }, Some(former));
    }

    fn commit(self, progress: Progress) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.store.set_sizes(&self.sizes_while_writing()?)?;
        self.book.write(self.store)?;
        for (done, change) in self.changes.iter().enumerate() {
            if let Err(error) = self.write(change, change.new) {
                for change in self.changes[..done].iter().rev() {
                    // The kernel took it once, so there is room to put it back.
                    let _ = self.write(change, change.former);
                }
                recount(self.store)?;
                return Err(error);
            }
            if (done + 1) % PROGRESS_STEP == 0 {
                progress(done + 1);
            }
        }
        progress(self.changes.len());
        let mut sizes = self.store.sizes()?;
        for (size, shrunk) in sizes.entries.iter_mut().zip(self.deleted) {
            *size = size.saturating_sub(shrunk);
        }
        sizes.torn = 0;
        self.store.set_sizes(&sizes)
    }

    /// Torn until the end, and never smaller than what the programs may find.
    fn sizes_while_writing(&self) -> Result<abi::ListSizes, Error> {
        let mut sizes = self.store.sizes()?;
        for (size, added) in sizes.entries.iter_mut().zip(self.added) {
            *size += added;
        }
        sizes.torn = 1;
        Ok(sizes)
    }

    fn write(&self, change: &Change, entry: Option<abi::Entry>) -> Result<(), Error> {
        match entry {
            Some(entry) => self.store.put(change.table, &change.prefix, entry),
            None => self.store.delete(change.table, &change.prefix),
        }
    }
}

/// Counts entries anew, a list and a rule, after a writer died half-way.
fn recount(store: &dyn Store) -> Result<(), Error> {
    let mut book = Rulebook::read(store)?;
    book.forget_entries();
    let mut sizes = abi::ListSizes::default();
    for table in Table::ALL {
        store.for_each(table, &mut |_, entry| {
            sizes.entries[table.index()] += 1;
            book.gained(entry.rule);
        })?;
    }
    book.write(store)?;
    store.set_sizes(&sizes)
}
