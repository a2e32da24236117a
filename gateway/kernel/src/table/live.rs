//! The live table: entries made singly, each with a record of its own. Bans, and what operators add and delete;
//! changed in place, one write an entry, under the writers' lock.

use gateway_common::abi::List;
use gateway_common::table::{RECORD_LINES, SETS, mix, set_of};

use super::layout::{Layout, Levels, Wanted, count_entry, head, is_crowded, pair, tally};
use super::memory::Memory;
use super::slots::{Key, NoRoom, Place, Slots};
use crate::entry::SetBy;
use crate::error::Error;

/// No record.
const NONE: u32 = u32::MAX;
/// Room in a table that has nothing in it yet, a set of IPv4 and of IPv6: 2 MiB in all.
const FIRST_ROOM: u64 = 1024;
/// Bytes of evidence.
pub(crate) const MAX_EVIDENCE: usize = 64;
/// Attempts to place all entries.
const ATTEMPTS: u32 = 8;

/// Words of a record's first line. The programs read the first two.
mod record {
    pub(super) const EXPIRES: usize = 0;
    /// Rule (low half), list, shadow, length, family; 0 is a free record.
    pub(super) const WHAT: usize = 1;
    /// Boot clock.
    pub(super) const SET: usize = 2;
    /// The next older and the next newer ban; of a free record, the next free one.
    pub(super) const LINKS: usize = 3;
    pub(super) const HIGH: usize = 4;
    pub(super) const LOW: usize = 5;
    /// Who set it, and bytes of evidence.
    pub(super) const NOTE: usize = 6;
}

/// An entry of the live table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveEntry {
    pub(crate) list: List,
    pub(crate) key: Key,
    pub(crate) shadow: bool,
    pub(crate) rule: u32,
    /// Boot clock; 0 is never.
    pub(crate) expires_ns: u64,
    /// Boot clock.
    pub(crate) set_ns: u64,
    pub(crate) by: SetBy,
    pub(crate) evidence: String,
}

impl LiveEntry {
    /// Whether another entry differs in nothing but when it was made.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        Self { set_ns: other.set_ns, ..self.clone() } == *other
    }

    /// Whether its time is over.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        self.expires_ns != 0 && self.expires_ns <= now_ns
    }
}

/// What putting an entry in did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Added,
    Updated,
    Unchanged,
}

/// The live table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live<'a>(pub(crate) &'a Memory);

/// A live table with these entries, of which no two are of one list and prefix, and room for more of them.
pub(crate) fn build<M: AsRef<Memory>>(
    entries: &[LiveEntry],
    room: [[u64; SETS as usize]; 2],
    evicted: u64,
    make: &mut dyn FnMut(u32) -> Result<M, Error>,
) -> Result<M, Error> {
    let mut prefixes = [[0_u64; SETS as usize]; 2];
    for entry in entries {
        prefixes[usize::from(entry.key.v6)][set_of(entry.list, entry.shadow) as usize] += 1;
    }
    for (v6, (family, room)) in prefixes.iter_mut().zip(room).enumerate() {
        for (set, room) in family.iter_mut().zip(room) {
            // So much that half as many again may come before the set is crowded.
            *set = (*set + room).max(*set * [2, 4][v6]).max(FIRST_ROOM);
        }
    }
    let records = prefixes.iter().flatten().sum::<u64>();
    let mut wanted = Wanted {
        generation: 0,
        prefixes,
        levels: Default::default(),
        planes: false,
        records: records as u32,
        overlaps: 0,
        directory_bytes: 0,
        lists: 0,
        slack: 0,
    };
    // Oldest first, for that is the order in which bans leave.
    let mut by_age: Vec<&LiveEntry> = entries.iter().collect();
    by_age.sort_by_key(|entry| entry.set_ns);
    for attempt in 0..ATTEMPTS {
        wanted.slack = attempt;
        let Some(layout) = Layout::of(&wanted) else { break };
        let made = make(layout.lines)?;
        layout.write(made.as_ref(), &wanted, mix(u64::from(attempt) + 1, crate::store::boot_ns()));
        let live = Live(made.as_ref());
        if by_age.iter().all(|entry| live.put_new(entry).is_ok()) {
            live.0.set(1, tally::EVICTED, evicted);
            return Ok(made);
        }
    }
    Err(Error::Kernel {
        what: "place the entries in a table".to_owned(),
        why: "they have too many different prefix lengths of IPv6 (40 fit); use lengths in common".to_owned(),
    })
}

impl Live<'_> {
    fn slots(&self) -> Slots<'_> {
        Slots { memory: self.0, levels: Levels::Exact }
    }

    /// From here until [`Live::done`] the table may be half-changed.
    pub(crate) fn begin(&self) {
        self.0.set(0, head::WRITING, 1);
    }

    pub(crate) fn done(&self) {
        self.0.set(0, head::WRITING, 0);
    }

    /// Whether a writer died half-way.
    pub(crate) fn is_torn(&self) -> bool {
        self.0.get(0, head::WRITING) != 0
    }

    /// Entries of a list and family.
    pub(crate) fn entries(&self, list: List, v6: bool) -> u64 {
        self.0.get(1, tally::ENTRIES + list as usize * 2 + usize::from(v6))
    }

    /// Entries of a list.
    pub(crate) fn count(&self, list: List) -> u64 {
        self.entries(list, false) + self.entries(list, true)
    }

    /// Bans that left because there were too many.
    pub(crate) fn evicted(&self) -> u64 {
        self.0.get(1, tally::EVICTED)
    }

    /// Whether so much was deleted that a new table would be quicker to look through.
    pub(crate) fn is_stale(&self) -> bool {
        let held: u64 = [List::Allow, List::Ban, List::Deny].into_iter().map(|list| self.count(list)).sum();
        self.0.get(1, tally::STALE) > held.max(4096)
    }

    /// Whether a table that took this one's place has its entries and more. It is at least likely: a few prefixes
    /// less, and what is near them stays marked for a while.
    pub(crate) fn only_grew_to(&self, next: Self) -> bool {
        let held = |live: &Self| [List::Allow, List::Ban, List::Deny].map(|list| live.count(list));
        let (before, after) = (held(self), held(&next));
        self.0.get(1, tally::STALE) == 0 && before.iter().zip(after).all(|(before, after)| *before <= after)
    }

    fn tally(&self, list: List, v6: bool, change: i64) {
        let word = tally::ENTRIES + list as usize * 2 + usize::from(v6);
        self.0.set(1, word, self.0.get(1, word).saturating_add_signed(change));
    }

    fn insert(&self, set: u32, key: Key, number: u32) -> Result<(), NoRoom> {
        self.slots().insert(set, key, number)?;
        count_entry(self.0, key.v6, set, 1);
        Ok(())
    }

    fn take_out(&self, set: u32, key: Key, place: Place) {
        self.slots().remove(place);
        count_entry(self.0, key.v6, set, -1);
    }

    /// Whether the table is to be made anew before one of its sets is full, since whoever meets a full one waits
    /// until that is done.
    pub(crate) fn is_crowded(&self) -> bool {
        [false, true].into_iter().any(|v6| (0..SETS).any(|set| is_crowded(self.0, v6, set)))
    }

    /// Puts an entry in; one for the same prefix and list is replaced.
    pub(crate) fn put(&self, entry: &LiveEntry) -> Result<Put, NoRoom> {
        let (set, other) = (set_of(entry.list, entry.shadow), set_of(entry.list, !entry.shadow));
        let here = self.slots().find(set, entry.key);
        let former = here.and_then(|(_, number)| self.read(number));
        if former.is_some_and(|former| former.says_the_same(entry)) {
            return Ok(Put::Unchanged);
        }
        let number = self.take_record().ok_or(NoRoom)?;
        self.write(number, entry);
        let put = match here {
            Some((place, former)) => {
                self.slots().update(entry.key, place, number);
                self.free_record(former);
                Put::Updated
            }
            None => {
                if let Err(NoRoom) = self.insert(set, entry.key, number) {
                    self.free_record(number);
                    return Err(NoRoom);
                }
                // The other mode's entry goes after the new one has come.
                match self.slots().find(other, entry.key) {
                    Some((place, former)) => {
                        self.take_out(other, entry.key, place);
                        self.free_record(former);
                        Put::Updated
                    }
                    None => {
                        self.tally(entry.list, entry.key.v6, 1);
                        Put::Added
                    }
                }
            }
        };
        if entry.list == List::Ban {
            self.link_newest(number);
        }
        Ok(put)
    }

    /// Puts an entry in of whose list and prefix there is none.
    fn put_new(&self, entry: &LiveEntry) -> Result<(), NoRoom> {
        let number = self.take_record().ok_or(NoRoom)?;
        self.write(number, entry);
        self.insert(set_of(entry.list, entry.shadow), entry.key, number)?;
        self.tally(entry.list, entry.key.v6, 1);
        if entry.list == List::Ban {
            self.link_newest(number);
        }
        Ok(())
    }

    /// The entry of a list for this very prefix.
    pub(crate) fn get(&self, list: List, key: Key) -> Option<LiveEntry> {
        [false, true].into_iter().find_map(|shadow| {
            let (_, number) = self.slots().find(set_of(list, shadow), key)?;
            self.read(number)
        })
    }

    /// Takes an entry out. True: it was there.
    pub(crate) fn remove(&self, list: List, key: Key) -> bool {
        let mut removed = false;
        for shadow in [false, true] {
            let set = set_of(list, shadow);
            if let Some((place, number)) = self.slots().find(set, key) {
                self.take_out(set, key, place);
                self.free_record(number);
                removed = true;
            }
        }
        if removed {
            self.tally(list, key.v6, -1);
            self.0.set(1, tally::STALE, self.0.get(1, tally::STALE) + 1);
        }
        removed
    }

    /// Takes the oldest ban out, for a newer one to have its place. One whose time was over is not missed.
    pub(crate) fn evict_oldest(&self, now_ns: u64) -> bool {
        let (oldest, _) = pair(self.0, 0, head::AGES);
        let Some(entry) = self.read(oldest) else { return false };
        let removed = self.remove(List::Ban, entry.key);
        if removed && !entry.is_over(now_ns) {
            self.0.set(1, tally::EVICTED, self.evicted() + 1);
        }
        removed
    }

    /// Every entry.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(LiveEntry)) {
        self.slots().for_each(&mut |_, _, number| {
            if let Some(entry) = self.read(number) {
                visit(entry);
            }
        });
    }

    /// Every entry that a slot and its record agree on: what can be trusted of a torn table.
    pub(crate) fn salvage(&self) -> Vec<LiveEntry> {
        let mut entries = Vec::new();
        self.slots().for_each(&mut |set, key, number| {
            let entry = self.read(number);
            entries.extend(entry.filter(|entry| entry.key == key && set_of(entry.list, entry.shadow) == set));
        });
        entries
    }

    fn record(&self, number: u32) -> Option<u32> {
        let (first, records) = pair(self.0, 0, head::RECORDS);
        (number < records).then(|| first + number * RECORD_LINES)
    }

    pub(super) fn take_record(&self) -> Option<u32> {
        let (free, used) = pair(self.0, 0, head::FREE);
        if let Some(line) = self.record(free) {
            let next = self.0.get(line, record::LINKS) as u32;
            self.0.set(0, head::FREE, u64::from(next) | u64::from(used) << 32);
            return Some(free);
        }
        self.record(used)?;
        self.0.set(0, head::FREE, u64::from(NONE) | u64::from(used + 1) << 32);
        Some(used)
    }

    fn free_record(&self, number: u32) {
        let Some(line) = self.record(number) else { return };
        if self.read(number).is_some_and(|entry| entry.list == List::Ban) {
            self.unlink(number);
        }
        let (free, used) = pair(self.0, 0, head::FREE);
        self.0.set(line, record::WHAT, 0);
        self.0.set(line, record::LINKS, u64::from(free));
        self.0.set(0, head::FREE, u64::from(number) | u64::from(used) << 32);
    }

    fn write(&self, number: u32, entry: &LiveEntry) {
        let Some(line) = self.record(number) else { return };
        let evidence = &entry.evidence.as_bytes()[..entry.evidence.len().min(MAX_EVIDENCE)];
        for (word, eight) in evidence.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..eight.len()].copy_from_slice(eight);
            self.0.set(line + 1, word, u64::from_le_bytes(bytes));
        }
        self.0.set(line, record::EXPIRES, entry.expires_ns);
        self.0.set(line, record::SET, entry.set_ns);
        self.0.set(line, record::LINKS, u64::MAX);
        self.0.set(line, record::HIGH, entry.key.high);
        self.0.set(line, record::LOW, entry.key.low);
        self.0.set(line, record::NOTE, entry.by as u64 | (evidence.len() as u64) << 8);
        let what = u64::from(entry.rule)
            | (entry.list as u64) << 32
            | u64::from(entry.shadow) << 36
            | u64::from(entry.key.length) << 40
            | u64::from(entry.key.v6) << 48
            | 1 << 56;
        self.0.set(line, record::WHAT, what);
    }

    fn read(&self, number: u32) -> Option<LiveEntry> {
        let line = self.record(number)?;
        let what = self.0.get(line, record::WHAT);
        if what == 0 {
            return None;
        }
        let note = self.0.get(line, record::NOTE);
        let length = ((note >> 8) as usize & 0xff).min(MAX_EVIDENCE);
        let evidence: Vec<u8> =
            (0..8).flat_map(|word| self.0.get(line + 1, word).to_le_bytes()).take(length).collect();
        Some(LiveEntry {
            list: [List::Allow, List::Ban, List::Deny][(what >> 32 & 3).min(2) as usize],
            key: Key {
                high: self.0.get(line, record::HIGH),
                low: self.0.get(line, record::LOW),
                length: (what >> 40) as u8,
                v6: what >> 48 & 1 == 1,
            },
            shadow: what >> 36 & 1 == 1,
            rule: what as u32,
            expires_ns: self.0.get(line, record::EXPIRES),
            set_ns: self.0.get(line, record::SET),
            by: SetBy::from_number(note as u8),
            evidence: String::from_utf8_lossy(&evidence).into_owned(),
        })
    }

    fn links(&self, number: u32) -> Option<(u32, u32)> {
        self.record(number).map(|line| pair(self.0, line, record::LINKS))
    }

    fn set_links(&self, number: u32, older: u32, newer: u32) {
        if let Some(line) = self.record(number) {
            self.0.set(line, record::LINKS, u64::from(older) | u64::from(newer) << 32);
        }
    }

    fn link_newest(&self, number: u32) {
        let (oldest, newest) = pair(self.0, 0, head::AGES);
        self.set_links(number, newest, NONE);
        if let Some((older, _)) = self.links(newest) {
            self.set_links(newest, older, number);
        }
        let oldest = if oldest == NONE { number } else { oldest };
        self.0.set(0, head::AGES, u64::from(oldest) | u64::from(number) << 32);
    }

    fn unlink(&self, number: u32) {
        let Some((older, newer)) = self.links(number) else { return };
        let (mut oldest, mut newest) = pair(self.0, 0, head::AGES);
        // A ban that was never linked, because there was no room for its slot, is nobody's neighbour.
        if older == NONE && newer == NONE && oldest != number {
            return;
        }
        match self.links(older) {
            Some((before, _)) => self.set_links(older, before, newer),
            None => oldest = newer,
        }
        match self.links(newer) {
            Some((_, after)) => self.set_links(newer, older, after),
            None => newest = older,
        }
        self.0.set(0, head::AGES, u64::from(oldest) | u64::from(newest) << 32);
    }
}
