//! The rules in force: one handle over the pinned maps or over the same tables in userspace.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::store::{InterfaceCounters, Lock, Pinned, StageTables, Store, Table, Userspace, exact};

/// The rules in force. Cheap to clone; every clone speaks of the same tables. Writers are serialised by
/// a lock on the pin directory (or inside the process), so commands and the agent never lose an update.
#[derive(Debug, Clone)]
pub struct Rules {
    store: Arc<dyn Store>,
    sweep: Arc<Mutex<Instant>>,
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
        Self { store, sweep: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Adds or updates entries of one list; see [`Rules::add_batches`].
    ///
    /// # Errors
    /// As there.
    pub fn add(
        &self,
        list: ListKind,
        owner: Owner,
        entries: &[NewEntry],
        progress: Progress,
    ) -> Result<Added, Error> {
        self.add_borrowed(owner, &[(list, entries)], progress).map(|added| added[0])
    }

    /// Adds or updates entries of several lists. All or none: capacity is checked before anything is
    /// written, and a write that the kernel refuses takes the ones before it back. Of two entries for one
    /// prefix of one list the later holds.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::RulesFull`], or what the kernel refused.
    pub fn add_batches(
        &self,
        owner: Owner,
        batches: &[(ListKind, Vec<NewEntry>)],
        progress: Progress,
    ) -> Result<Vec<Added>, Error> {
        let borrowed: Vec<_> = batches.iter().map(|(list, entries)| (*list, entries.as_slice())).collect();
        self.add_borrowed(owner, &borrowed, progress)
    }

    fn add_borrowed(
        &self,
        owner: Owner,
        batches: &[(ListKind, &[NewEntry])],
        progress: Progress,
    ) -> Result<Vec<Added>, Error> {
        let attempt = |progress: Progress| {
            let mut edit = Edit::begin(&*self.store)?;
            let added = batches.iter().map(|(list, entries)| edit.add(*list, owner, entries));
            let added = added.collect::<Result<Vec<_>, _>>()?;
            edit.commit(progress).map(|()| added)
        };
        match attempt(&mut *progress) {
            // Entries whose time is over take room until somebody removes them, which the agent may not
            // have been there to do.
            Err(Error::Full { .. }) if self.expire_now()? > 0 => attempt(progress),
            other => other,
        }
    }

    /// Takes the operator's entries for these very prefixes out of a list.
    ///
    /// # Errors
    /// What the kernel refused; then nothing is removed.
    pub fn remove(&self, list: ListKind, prefixes: &[IpNet]) -> Result<Removed, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let mut removed = Removed::default();
        let mut seen = HashSet::new();
        for prefix in prefixes.iter().filter(|prefix| seen.insert(**prefix)) {
            let table = Table::of(list.into(), prefix);
            match exact(&*self.store, table, prefix)? {
                None => removed.missing.push(*prefix),
                Some(entry) => {
                    if edit.give_up(table, *prefix, entry, Owner::Operator) {
                        removed.removed += 1;
                    } else {
                        removed.kept_by_config.push(*prefix);
                    }
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
        let mut edit = Edit::begin(&*self.store)?;
        let gone = edit.give_up_all(list, Owner::Operator, &HashSet::new())?;
        edit.commit(&mut |_| {})?;
        Ok(gone)
    }

    /// Makes the configuration's share of a list what `desired` says.
    ///
    /// # Errors
    /// As [`Rules::add_batches`]; then the list is as before.
    pub fn reconcile(&self, list: ListKind, desired: &[NewEntry]) -> Result<Reconciled, Error> {
        self.reconcile_all(&[(list, desired)]).map(|done| done[0])
    }

    /// Makes the configuration's share of several lists what it says, all or none.
    pub(crate) fn reconcile_all(
        &self,
        desired: &[(ListKind, &[NewEntry])],
    ) -> Result<Vec<Reconciled>, Error> {
        let mut edit = Edit::begin(&*self.store)?;
        let mut done = Vec::with_capacity(desired.len());
        for (list, entries) in desired {
            let added = edit.add(*list, Owner::Config, entries)?;
            let kept: HashSet<IpNet> = entries.iter().map(|entry| entry.prefix).collect();
            let removed = edit.give_up_all(*list, Owner::Config, &kept)?;
            let unchanged = kept.len().saturating_sub(added.added + added.updated);
            done.push(Reconciled { added: added.added, removed, unchanged });
        }
        edit.commit(&mut |_| {})?;
        Ok(done)
    }

    /// Removes entries whose time is over; the programs ignore them already. Returns how many. Made to be
    /// called every second: it spends a small share of the time on large lists, and skips a turn rather
    /// than wait for a writer.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn expire(&self) -> Result<usize, Error> {
        let started = Instant::now();
        {
            let next = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
            if started < *next {
                return Ok(0);
            }
        }
        let Some(turn) = self.store.try_lock()? else { return Ok(0) };
        let expired = self.expire_within(turn)?;
        let rest = (started.elapsed() * 50).max(Duration::from_millis(500));
        *self.sweep.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + rest;
        Ok(expired)
    }

    fn expire_now(&self) -> Result<usize, Error> {
        self.expire_within(self.store.lock()?)
    }

    fn expire_within(&self, turn: Lock<'_>) -> Result<usize, Error> {
        let sizes = self.store.sizes()?;
        let mut edit = Edit::within(&*self.store, turn)?;
        let now_ns = self.store.now_ns();
        let mut expired = 0;
        // The deny list's entries have no time to live.
        for table in [ListKind::Ban, ListKind::Allow].into_iter().flat_map(tables) {
            if sizes.entries[table.index()] == 0 {
                continue;
            }
            let mut over = Vec::new();
            self.store.for_each(table, &mut |prefix, entry| {
                if entry.is_over(now_ns) {
                    over.push((prefix, entry));
                }
            })?;
            for (prefix, entry) in over {
                expired += usize::from(edit.give_up(table, prefix, entry, Owner::Operator));
            }
        }
        edit.commit(&mut |_| {})?;
        Ok(expired)
    }

    /// How full each list's map is.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn usage(&self) -> Result<Vec<MapUsage>, Error> {
        let mut sizes = self.store.sizes()?;
        // Somebody is writing, or died while writing; in the latter case taking a turn mends it.
        if sizes.torn != 0
            && let Some(turn) = self.store.try_lock()?
        {
            drop(Edit::within(&*self.store, turn)?);
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
        // On the wire a mapped address is an IPv4 packet.
        let source = source.to_canonical();
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
    const CONFIG: u16 = abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW;
    let flag = |wanted: bool, flag: u16| if wanted { flag } else { 0 };
    let shadow = flag(new.shadow, abi::Entry::SHADOW);
    let of_config = abi::Entry::CONFIG | flag(new.shadow, abi::Entry::CONFIG_SHADOW);
    let operators = present.filter(|entry| entry.flags & abi::Entry::OPERATOR != 0 && !entry.is_over(now_ns));
    if let (Owner::Config, Some(present)) = (owner, operators) {
        return abi::Entry { flags: present.flags & !CONFIG | of_config, ..*present };
    }
    let ttl_ns = new.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
    abi::Entry {
        expires_ns: ttl_ns.map_or(0, |ttl_ns| now_ns.saturating_add(ttl_ns)),
        rule,
        flags: match owner {
            Owner::Config => of_config | shadow,
            Owner::Operator => {
                abi::Entry::OPERATOR | shadow | present.map_or(0, |entry| entry.flags & CONFIG)
            }
        },
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
    _turn: Lock<'a>,
}

/// A prefix's entry as it was and as it is to be. An edit changes a prefix of a list once.
struct Change {
    table: Table,
    prefix: IpNet,
    former: Option<abi::Entry>,
    new: Option<abi::Entry>,
}

impl<'a> Edit<'a> {
    fn begin(store: &'a dyn Store) -> Result<Self, Error> {
        Self::within(store, store.lock()?)
    }

    fn within(store: &'a dyn Store, turn: Lock<'a>) -> Result<Self, Error> {
        if store.sizes()?.torn != 0 {
            recount(store)?;
        }
        let book = Rulebook::read(store)?;
        let (added, deleted) = ([0; abi::LIST_MAPS], [0; abi::LIST_MAPS]);
        Ok(Self { store, book, changes: Vec::new(), added, deleted, _turn: turn })
    }

    /// Plans an owner's entries; of two for one prefix the later.
    fn add(&mut self, list: ListKind, owner: Owner, entries: &[NewEntry]) -> Result<Added, Error> {
        let now_ns = self.store.now_ns();
        let last: HashMap<IpNet, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.prefix, index)).collect();
        let mut done = Added::default();
        for (index, entry) in entries.iter().enumerate() {
            if last.get(&entry.prefix) != Some(&index) {
                continue;
            }
            let table = Table::of(list.into(), &entry.prefix);
            let present = exact(self.store, table, &entry.prefix)?;
            let rule = self.book.number(table.list, &entry.rule)?;
            let new = merged(owner, entry, rule, present.as_ref(), now_ns);
            // A reload of the same configuration writes nothing.
            if present == Some(new) {
                continue;
            }
            if present.is_some() {
                done.updated += 1
            } else {
                done.added += 1
            }
            self.put(table, entry.prefix, new, present);
        }
        Ok(done)
    }

    /// Plans that an owner lets all of its entries of a list go, but for some; returns how many leave it.
    fn give_up_all(&mut self, list: ListKind, owner: Owner, keep: &HashSet<IpNet>) -> Result<usize, Error> {
        let mut gone = 0;
        for table in tables(list) {
            let mut owned = Vec::new();
            self.store.for_each(table, &mut |prefix, entry| {
                if entry.flags & owner.bit() != 0 && !keep.contains(&prefix) {
                    owned.push((prefix, entry));
                }
            })?;
            for (prefix, entry) in owned {
                gone += usize::from(self.give_up(table, prefix, entry, owner));
            }
        }
        Ok(gone)
    }

    /// Plans that one owner lets an entry go. It leaves the list (true) unless the other owner keeps it.
    /// What the configuration keeps goes back to what the configuration says, all but the label, which the
    /// next reload puts right.
    fn give_up(&mut self, table: Table, prefix: IpNet, former: abi::Entry, owner: Owner) -> bool {
        let config = former.flags & (abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW);
        let flags = match owner {
            Owner::Operator if former.flags & abi::Entry::CONFIG == 0 => 0,
            Owner::Operator if former.flags & abi::Entry::CONFIG_SHADOW != 0 => config | abi::Entry::SHADOW,
            Owner::Operator => config,
            Owner::Config if former.flags & abi::Entry::OPERATOR == 0 => 0,
            Owner::Config => former.flags & !(abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW),
        };
        if flags == 0 {
            self.delete(table, prefix, former);
            return true;
        }
        let expires_ns = if owner == Owner::Operator { 0 } else { former.expires_ns };
        let kept = abi::Entry { flags, expires_ns, ..former };
        if kept != former {
            self.put(table, prefix, kept, Some(former));
        }
        false
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

    fn commit(mut self, progress: Progress) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        if self.fits()? {
            // What is new comes before what goes, so that a source which moves from one entry to another is
            // never unlisted in between.
            self.changes.sort_by_key(|change| change.new.is_none());
        } else {
            self.changes.sort_by_key(|change| change.new.is_some());
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

    /// Whether old and new fit side by side; refused if not even the new alone does.
    fn fits(&self) -> Result<bool, Error> {
        let sizes = self.store.sizes()?;
        let mut side_by_side = true;
        for table in Table::ALL {
            let (used, wanted) = (sizes.entries[table.index()], self.added[table.index()]);
            if wanted == 0 {
                continue;
            }
            side_by_side &= used + wanted <= table.capacity();
            let used = used.saturating_sub(self.deleted[table.index()]);
            if used + wanted > table.capacity() {
                let map = table.name().to_owned();
                return Err(Error::Full { map, capacity: table.capacity(), used, wanted });
            }
        }
        Ok(side_by_side)
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
