//! The rules in force: one handle over the pinned maps or over the same tables in userspace.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway_common::abi::{self, List, NO_RULE};
use gateway_common::packet::{Fragment, Headers, Packet};
use gateway_common::stages::{Inline, Judgement, Match, Observer, judge, judge_packet};
use gateway_common::verdict::Verdict;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::edit::{Edit, rules_in_force};
use crate::entry::{BanBounds, DefaultVerdict, ListKind, NewEntry, NewList, Note, Owner, SetBy};
use crate::error::Error;
use crate::explain::Ruling;
use crate::generations::{self, Preview, Replaced, Turn};
use crate::pin::PinDir;
use crate::read_back::Reader;
use crate::rulebook::{self, Rulebook};
use crate::store::{InForce, InterfaceCounters, Pinned, Slot, Store, StoreFlows, Userspace};
use crate::table::{Generation, ListInfo, Live};

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
    /// The stage that looks at it.
    pub list: ListKind,
    /// The named list it stands in; `allow`, `ban` or `deny` if it was made singly.
    pub from: String,
    /// What it covers.
    pub prefix: IpNet,
    /// The label its hits are counted under.
    pub rule: String,
    /// What is left of its time to live, whole seconds rounded up; `None` is until deleted.
    pub ttl_seconds: Option<u64>,
    /// Counted, not dropped.
    pub shadow: bool,
    /// Who keeps it.
    pub owner: Owner,
    /// The generation in which its list became what it is; `None` of an entry made singly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Who made it, if it was made singly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<SetBy>,
    /// How long ago, in whole seconds, if it was made singly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Where the evidence for it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What an `add` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries whose rule, time to live, shadow flag or note changed.
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
    /// The stage that looks at it.
    pub list: ListKind,
    /// The named list it belongs to; `allow`, `ban` or `deny` of entries made singly.
    pub from: String,
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
    /// The generation of the lists that it was judged by; 0 is none.
    pub generation: u64,
    /// The stages the packet went through, in order.
    pub stages: Vec<StageTrace>,
    /// Entries in shadow mode that cover the source, whatever came of the packet.
    pub shadow: Vec<Entry>,
}

/// How far back a preview looks for sources.
const PREVIEWED: Duration = Duration::from_secs(60);

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
    ///
    /// # Errors
    /// No memory.
    pub fn in_userspace() -> Result<Self, Error> {
        Ok(Self::over(Arc::new(Userspace::new()?)))
    }

    /// Where the rules stand, for the other modules that read it.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        Self { store, sweep: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Adds or updates entries of one list, made singly; see [`Rules::add_batches`].
    ///
    /// # Errors
    /// As there.
    pub fn add(&self, list: ListKind, entries: &[NewEntry], progress: Progress) -> Result<Added, Error> {
        let batch = [(list, entries.to_vec())];
        self.add_batches(&Note::CLI, &batch, progress).map(|added| added[0])
    }

    /// Adds or updates entries of several lists, made singly. All or none. Of two entries for one prefix of
    /// one list the later holds. When there are too many bans, the oldest leave.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::RulesFull`], [`Error::Refused`] for a ban beyond its bounds, or what the kernel refused.
    pub fn add_batches(
        &self,
        note: &Note,
        batches: &[(ListKind, Vec<NewEntry>)],
        progress: Progress,
    ) -> Result<Vec<Added>, Error> {
        Edit::begin(&*self.store)?.add(note, batches, progress)
    }

    /// Takes entries for these very prefixes out of a list, whether they were made singly or came with a list
    /// of an operator's. What the configuration names stays.
    ///
    /// # Errors
    /// What the kernel refused; then nothing is removed.
    pub fn remove(&self, list: ListKind, prefixes: &[IpNet]) -> Result<Removed, Error> {
        Edit::begin(&*self.store)?.remove(list, prefixes)
    }

    /// Takes all of the operators' entries out of a list; returns how many.
    ///
    /// # Errors
    /// What the kernel refused; then nothing is removed.
    pub fn flush(&self, list: ListKind) -> Result<usize, Error> {
        let lists = match list {
            ListKind::Ban => 0,
            _ => Turn::begin(&*self.store)?.forget(list, None)?,
        };
        Ok(lists + Edit::begin(&*self.store)?.flush(list)?)
    }

    /// Makes the configuration's lists what it says, as one generation; lists of operators stay as they are.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::RulesFull`] or what the kernel refused; then all is as before.
    pub fn reconcile(&self, lists: &[NewList]) -> Result<Replaced, Error> {
        Turn::begin(&*self.store)?.reconcile(lists)
    }

    /// Makes one list what it is to be, as one generation.
    ///
    /// # Errors
    /// As [`Rules::reconcile`], or [`Error::Refused`] if the other owner has a list of that name.
    pub fn replace(&self, owner: Owner, list: &NewList, progress: Progress) -> Result<Replaced, Error> {
        Turn::begin(&*self.store)?.replace(owner, list, progress)
    }

    /// What [`Rules::replace`] would change, and whom of the last minute's sources it would have hit.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn preview(&self, list: &NewList) -> Result<Preview, Error> {
        generations::preview(&*self.store, list, &self.recent_sources(PREVIEWED)?)
    }

    /// Takes a list of an operator's out, as one generation; returns how many entries it had.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is none of that name.
    pub fn forget(&self, list: ListKind, name: &str) -> Result<usize, Error> {
        Turn::begin(&*self.store)?.forget(list, Some(name))
    }

    /// Returns to the generation of lists before the one in force, in one write; returns its number. Entries made
    /// singly stay. Once more returns to the later one.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no former generation.
    pub fn roll_back(&self) -> Result<u64, Error> {
        Turn::begin(&*self.store)?.roll_back()
    }

    /// The named lists in force.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn lists(&self) -> Result<Vec<ListInfo>, Error> {
        let table = self.store.table(Slot::Lists)?;
        Ok(table.map_or_else(Vec::new, |table| Generation(&table).directory().lists))
    }

    /// The generation of lists in force; 0 is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn generation(&self) -> Result<u64, Error> {
        Ok(self.store.table(Slot::Lists)?.map_or(0, |table| Generation(&table).number()))
    }

    /// Every entry of a list that still holds, v4 before v6, in address order.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn entries(&self, list: ListKind) -> Result<Vec<Entry>, Error> {
        // Under the writers' lock, so that no entry moves behind the walk.
        let _turn = self.store.lock()?;
        let reader = Reader::new(&*self.store)?;
        let mut found = Vec::new();
        reader.for_each(list, &mut |entry| found.push(entry));
        found.sort_by(|a, b| (a.prefix, &a.from).cmp(&(b.prefix, &b.from)));
        Ok(found)
    }

    /// What happens to packets that no entry names.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn default_verdict(&self) -> Result<DefaultVerdict, Error> {
        self.store.default_verdict()
    }

    /// What a ban may be at most, from now on; what is banned already stays.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_ban_bounds(&self, bounds: BanBounds) -> Result<(), Error> {
        self.store.set_ban_bounds(bounds)
    }

    pub(crate) fn ban_bounds(&self) -> Result<BanBounds, Error> {
        self.store.ban_bounds()
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
        let expired = Edit::within(&*self.store, turn)?.expire()?;
        let rest = (started.elapsed() * 50).max(Duration::from_millis(500));
        *self.sweep.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + rest;
        Ok(expired)
    }

    /// How full the lists are.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn usage(&self) -> Result<Vec<MapUsage>, Error> {
        let usage = |map: &str, entries, capacity| MapUsage { map: map.to_owned(), entries, capacity };
        let kinds = [List::Allow, List::Ban, List::Deny];
        let lists = self.store.table(Slot::Lists)?;
        let listed = |v6| {
            lists
                .as_ref()
                .map_or(0, |table| kinds.iter().map(|kind| Generation(table).entries(*kind, v6)).sum())
        };
        let live = self.store.table(Slot::Live)?;
        let made = |kind| live.as_ref().map_or(0, |table| Live(table).count(kind));
        Ok(vec![
            usage("lists_v4", listed(false), abi::LISTS_CAPACITY_V4),
            usage("lists_v6", listed(true), abi::LISTS_CAPACITY_V6),
            usage("allow", made(List::Allow), abi::ALLOW_CAPACITY),
            usage("ban", made(List::Ban), abi::BAN_CAPACITY),
            usage("deny", made(List::Deny), abi::DENY_CAPACITY),
        ])
    }

    /// Bans that left because there were too many, since the tables were made.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn evicted_bans(&self) -> Result<u64, Error> {
        Ok(self.store.table(Slot::Live)?.map_or(0, |table| Live(&table).evicted()))
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
        let used = rules_in_force(&*self.store)?;
        for (number, name) in Rulebook::read(&*self.store)?.rules() {
            let hits = self.store.rule_hits(number)?;
            if used.contains(&number) || hits.packets > 0 {
                let count = Count { packets: hits.packets, bytes: hits.bytes };
                counters.rules.push(RuleCount {
                    rule: name.label.clone(),
                    list: name.kind.into(),
                    from: name.list.clone(),
                    count,
                });
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
        let reader = Reader::new(&*self.store)?;
        let mut trace = crate::explain::Trace::default();
        let flows = StoreFlows::new(&*self.store);
        let mut stages = Inline { tables: &&reader.tables, flows: flows.by_default()?, observer: &mut trace };
        let judgement = judge_packet(&packet, &mut stages);
        if let Some(error) = flows.into_failure() {
            return Err(error);
        }
        Ok(Explanation {
            source,
            verdict: judgement.verdict().name().to_owned(),
            reason: judgement.reason.name().to_owned(),
            sentence: judgement.reason.sentence().to_owned(),
            generation: reader.generation(),
            stages: trace.into_stages(|found| reader.matched(source, found)),
            shadow: reader.in_shadow(source),
        })
    }

    /// What comes of a source's packets at this moment, by the stages that [`Self::explain`] replays. It reads no more than
    /// it has to, as a log asks for every line.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn ruling(&self, source: IpAddr) -> Result<Ruling, Error> {
        let tables = InForce::of(&*self.store)?;
        let flows = StoreFlows::new(&*self.store);
        let mut stages = Inline { tables: &&tables, flows: flows.by_default()?, observer: &mut () };
        let judgement = judge_packet(&syn(source.to_canonical(), None), &mut stages);
        let name = match judgement.rule {
            NO_RULE => None,
            number => rulebook::name(&*self.store.rules()?, number),
        };
        let ruling = Ruling::new(judgement.reason.name(), name);
        flows.into_failure().map_or(Ok(ruling), Err)
    }

    /// Judges a frame with the code the kernel runs, over the same tables, and counts nothing.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn judge(&self, frame: &[u8]) -> Result<Judgement, Error> {
        let tables = InForce::of(&*self.store)?;
        let mut headers = Headers::BLANK;
        let flows = StoreFlows::new(&*self.store);
        let mut stages = Inline { tables: &&tables, flows: flows.by_default()?, observer: &mut () };
        let judgement = judge(&frame, &mut headers, &mut stages);
        flows.into_failure().map_or(Ok(judgement), Err)
    }

    /// Judges and counts a connection at accept. `true`: serve it. Always `true` where the kernel
    /// already judged its packets.
    pub fn admits(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        self.store.is_kernel() || self.admits_announced(peer, local)
    }

    /// The same of a connection that a load balancer announced: its packets were the balancer's, so nobody has judged
    /// the peer yet.
    pub fn admits_announced(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        let mut packet = syn(peer.ip().to_canonical(), Some(local));
        packet.source_port = peer.port();
        // Tables of this process are always there.
        let flows = StoreFlows::new(&*self.store);
        let (Ok(tables), Ok(flows)) = (InForce::of(&*self.store), flows.by_default()) else { return true };
        let mut hits = Hits(&*self.store);
        let judgement = judge_packet(&packet, &mut Inline { tables: &&tables, flows, observer: &mut hits });
        self.store.count(judgement.reason);
        let passes = judgement.verdict() == Verdict::Pass;
        if passes {
            self.store.note_source(&packet.source);
        }
        passes
    }
}

/// Counts rules that match at accept.
struct Hits<'a>(&'a dyn Store);

impl Observer for Hits<'_> {
    fn matched(&mut self, found: &Match) {
        self.0.count_rule(found.hit.rule());
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
