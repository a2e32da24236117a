//! The rules in force: one handle over the pinned maps or over the same tables in userspace.

use std::collections::HashSet;
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

use crate::edit::Edit;
use crate::entry::{DefaultVerdict, ListKind, NewEntry, Owner};
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
    /// `parse`, `allow`, `ban`, `deny`, `default` or `pass`.
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

    /// What happens to packets that no entry names.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn default_verdict(&self) -> Result<DefaultVerdict, Error> {
        self.store.default_verdict()
    }

    pub(crate) fn set_default(&self, default: DefaultVerdict) -> Result<(), Error> {
        self.store.set_default(default)
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

pub(crate) fn tables(list: ListKind) -> impl Iterator<Item = Table> {
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
