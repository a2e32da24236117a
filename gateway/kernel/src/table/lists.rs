//! A generation: the table of all lists, made as a whole, never changed but for a deleted entry.

use std::collections::HashMap;

use gateway_common::abi::{LISTS_CAPACITY_V4, LISTS_CAPACITY_V6, List};
use gateway_common::table::{SETS, mix, set_of};

use super::directory::{Directory, ListInfo};
use super::layout::{Layout, Lengths, Levels, Wanted, head, pair, plan_levels, tally};
use super::memory::Memory;
use super::slots::{Key, NoRoom, Slots};
use crate::error::Error;

/// Attempts to place all prefixes, each with another seed and more room.
const ATTEMPTS: u32 = 8;
/// From this attempt on lengths no longer share levels: look-ups ask more often, but neighbours crowd no more.
const APART_FROM: u32 = 2;
/// Words of an entry that another list has already: set, length and payload; address.
const OVERLAP_WORDS: usize = 4;

/// One entry of a generation to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Key,
    /// The rule's number.
    pub(crate) rule: u32,
    pub(crate) shadow: bool,
}

/// One list of a generation to be.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) info: ListInfo,
    pub(crate) items: Vec<Item>,
}

/// What two lists with the same content have in common.
pub(crate) fn digest(items: &[Item]) -> u64 {
    items.iter().fold(items.len() as u64, |digest, item| {
        let Key { high, low, length, v6 } = item.key;
        let rest =
            u64::from(item.rule) << 16 | u64::from(length) << 8 | u64::from(v6) << 1 | u64::from(item.shadow);
        mix(low ^ rest, mix(high, digest))
    })
}

/// Makes the table of a generation. Of lists of a kind that name the same prefix the first one counts.
///
/// # Errors
/// [`Error::Full`], or what `make` says.
pub(crate) fn build<M>(
    lists: &[Content],
    generation: u64,
    make: &mut dyn FnMut(u32) -> Result<M, Error>,
    progress: &mut dyn FnMut(usize),
) -> Result<M, Error>
where
    M: AsRef<Memory>,
{
    let mut directory = Directory { lists: lists.iter().map(|list| list.info.clone()).collect() };
    let (mut wanted, lengths) = measure(lists, generation, directory.to_bytes().len())?;
    for attempt in 0..ATTEMPTS {
        wanted.slack = attempt;
        let apart = attempt >= APART_FROM;
        wanted.levels =
            std::array::from_fn(|v6| std::array::from_fn(|set| plan_levels(&lengths[v6][set], apart)));
        let seed = mix(u64::from(attempt) + 1, crate::store::boot_ns());
        let overlaps = {
            let layout = Layout::of(&wanted).ok_or_else(too_large)?;
            let made = make(layout.lines)?;
            let memory = made.as_ref();
            layout.write(memory, &wanted, seed);
            memory.set(0, head::WRITING, 1);
            match fill(lists, memory, progress) {
                Err(NoRoom) => continue,
                Ok(filled) if filled.overlaps.len() <= wanted.overlaps as usize => {
                    write_overlaps(&filled.overlaps, memory);
                    for (info, [v4, v6]) in directory.lists.iter_mut().zip(filled.twice) {
                        info.entries_v4 = info.entries_v4.saturating_sub(v4);
                        info.entries_v6 = info.entries_v6.saturating_sub(v6);
                    }
                    directory.write(memory);
                    return Ok(made);
                }
                Ok(filled) => filled.overlaps.len(),
            }
        };
        // How many there are is known only now.
        wanted.overlaps = overlaps as u32;
    }
    Err(too_large())
}

fn too_large() -> Error {
    Error::Kernel {
        what: "place the lists in a table".to_owned(),
        why: "too many of their prefixes fall together; leave a list out".to_owned(),
    }
}

/// Prefixes by family, set and length.
type Histogram = [[Lengths; SETS as usize]; 2];

fn measure(
    lists: &[Content],
    generation: u64,
    directory_bytes: usize,
) -> Result<(Wanted, Box<Histogram>), Error> {
    let mut lengths: Box<Histogram> = Box::new([[[0; 129]; SETS as usize]; 2]);
    let mut wanted = Wanted {
        generation,
        prefixes: [[0; SETS as usize]; 2],
        levels: Default::default(),
        planes: true,
        records: 0,
        overlaps: 0,
        directory_bytes: u32::try_from(directory_bytes).map_err(|_| too_large())?,
        lists: u32::try_from(lists.len()).map_err(|_| too_large())?,
        slack: 0,
    };
    for list in lists {
        for item in &list.items {
            let (family, set) = (usize::from(item.key.v6), set(list, item) as usize);
            wanted.prefixes[family][set] += 1;
            lengths[family][set][usize::from(item.key.length.min(128))] += 1;
        }
    }
    let [v4, v6] = wanted.prefixes.map(|sets| sets.iter().sum::<u64>());
    for (map, used, capacity) in [("lists_v4", v4, LISTS_CAPACITY_V4), ("lists_v6", v6, LISTS_CAPACITY_V6)] {
        if used > capacity {
            return Err(Error::Full { map: map.to_owned(), capacity, used: 0, wanted: used });
        }
    }
    Ok((wanted, lengths))
}

fn set(list: &Content, item: &Item) -> u32 {
    set_of(list.info.kind.into(), list.info.shadow || item.shadow)
}

/// What came of putting the lists in.
struct Filled {
    overlaps: Vec<Overlap>,
    /// Prefixes that a list names more often than once, by list and family.
    twice: Vec<[u64; 2]>,
}

/// An entry that another list has already.
struct Overlap {
    set: u32,
    list: usize,
    item: Item,
}

fn fill(lists: &[Content], memory: &Memory, progress: &mut dyn FnMut(usize)) -> Result<Filled, NoRoom> {
    const STEP: usize = 1 << 14;
    let slots = Slots { memory, levels: Levels::Planned };
    let (mut overlaps, mut twice) = (Vec::new(), vec![[0, 0]; lists.len()]);
    let (mut entries, mut done) = ([0_u64; 6], 0);
    for (number, list) in lists.iter().enumerate() {
        // Rules of a list are its own, so they tell a list's own entry from another's.
        let own = |rule| list.info.rules.binary_search(&rule).is_ok();
        for item in &list.items {
            let set = set(list, item);
            match slots.find(set, item.key) {
                None => {
                    slots.insert(set, item.key, item.rule)?;
                    entries[list.info.kind as usize * 2 + usize::from(item.key.v6)] += 1;
                }
                // Twice in one list: the last one counts.
                Some((place, rule)) if number == 0 || own(rule) => {
                    slots.update(item.key, place, item.rule);
                    twice[number][usize::from(item.key.v6)] += 1;
                }
                Some(_) => overlaps.push(Overlap { set, list: number, item: *item }),
            }
            done += 1;
            if done % STEP == 0 {
                progress(done);
            }
        }
    }
    // Of one prefix the lists stay in their order, and so do the entries of one list.
    overlaps.sort_by_key(|overlap| (overlap.set, overlap.item.key, overlap.list));
    overlaps.dedup_by(|later, kept| {
        let same = (later.set, later.item.key, later.list) == (kept.set, kept.item.key, kept.list);
        if same {
            twice[kept.list][usize::from(kept.item.key.v6)] += 1;
            kept.item = later.item;
        }
        same
    });
    for (index, number) in entries.iter().enumerate() {
        memory.set(1, tally::ENTRIES + index, *number);
    }
    progress(done);
    Ok(Filled { overlaps, twice })
}

fn write_overlaps(overlaps: &[Overlap], memory: &Memory) {
    let (first, _) = pair(memory, 0, head::OVERLAPS);
    for (index, Overlap { set, item, .. }) in overlaps.iter().enumerate() {
        let (line, word) = overlap_at(first, index);
        let Key { high, low, length, v6 } = item.key;
        memory.set(line, word + 1, high);
        memory.set(line, word + 2, low);
        let meta = u64::from(item.rule) << 32
            | u64::from(v6) << 24
            | u64::from(length) << 16
            | u64::from(*set) << 8
            | 1;
        memory.set(line, word, meta);
    }
}

fn overlap_at(first: u32, index: usize) -> (u32, usize) {
    (first + (index / 2) as u32, index % 2 * OVERLAP_WORDS)
}

/// A generation as it is read back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generation<'a>(pub(crate) &'a Memory);

/// One entry as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) kind: List,
    pub(crate) item: Item,
}

impl Generation<'_> {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.0.get(0, head::GENERATION)
    }

    /// It came into force.
    pub(crate) fn finish(&self) {
        self.0.set(0, head::WRITING, 0);
    }

    /// Whether it ever came into force.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.get(0, head::WRITING) == 0
    }

    /// Entries of a list and family that look-ups find.
    pub(crate) fn entries(&self, list: List, v6: bool) -> u64 {
        self.0.get(1, tally_of(list, v6))
    }

    fn slots(&self) -> Slots<'_> {
        Slots { memory: self.0, levels: Levels::Planned }
    }

    /// Every entry, those included that another list has too.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(Standing)) {
        self.slots().for_each(&mut |set, key, rule| visit(standing(set, key, rule)));
        self.overlaps(&mut |_, entry| visit(entry));
    }

    fn overlaps(&self, visit: &mut dyn FnMut((u32, usize), Standing)) {
        let (first, number) = pair(self.0, 0, head::OVERLAPS);
        for index in 0..number as usize {
            let at = overlap_at(first, index);
            let meta = self.0.get(at.0, at.1);
            if meta == 0 {
                continue;
            }
            let (high, low) = (self.0.get(at.0, at.1 + 1), self.0.get(at.0, at.1 + 2));
            let key = Key { high, low, length: (meta >> 16) as u8, v6: meta >> 24 & 1 == 1 };
            visit(at, standing((meta >> 8) as u32 & 0xff, key, (meta >> 32) as u32));
        }
    }

    /// The entries of a kind for one very prefix, the one that look-ups find first.
    pub(crate) fn find(&self, kind: List, key: Key) -> Vec<Standing> {
        let mut found: Vec<Standing> = [false, true]
            .into_iter()
            .filter_map(|shadow| {
                let set = set_of(kind, shadow);
                self.slots().find(set, key).map(|(_, rule)| standing(set, key, rule))
            })
            .collect();
        self.overlaps(&mut |_, entry| {
            if entry.kind == kind && entry.item.key == key {
                found.push(entry);
            }
        });
        found
    }

    /// Takes out the entries of a kind for one very prefix whose rule `goes`, each in one write. Where
    /// another list names the prefix too, its entry comes into the place. Returns the rules of those that went.
    pub(crate) fn remove(&self, kind: List, key: Key, goes: &dyn Fn(u32) -> bool) -> Vec<u32> {
        let mut gone = Vec::new();
        let mut staying = Vec::new();
        self.overlaps(&mut |at, entry| {
            if entry.kind == kind && entry.item.key == key {
                if goes(entry.item.rule) {
                    self.0.set(at.0, at.1, 0);
                    gone.push(entry.item.rule);
                } else {
                    staying.push((at, entry));
                }
            }
        });
        for shadow in [false, true] {
            let set = set_of(kind, shadow);
            let Some((place, rule)) = self.slots().find(set, key) else { continue };
            if !goes(rule) {
                continue;
            }
            gone.push(rule);
            let heir = staying.iter().position(|(_, entry)| entry.item.shadow == shadow);
            match heir.map(|index| staying.remove(index)) {
                Some((at, entry)) => {
                    self.slots().update(key, place, entry.item.rule);
                    self.0.set(at.0, at.1, 0);
                }
                None => {
                    self.slots().remove(place);
                    let tally = tally_of(kind, key.v6);
                    self.0.set(1, tally, self.0.get(1, tally).saturating_sub(1));
                }
            }
        }
        gone
    }

    /// Counts anew what is there, after a writer that died while it deleted entries.
    pub(crate) fn mend(&self) {
        // An heir that is in its place already.
        self.overlaps(&mut |at, entry| {
            let set = set_of(entry.kind, entry.item.shadow);
            if self.slots().find(set, entry.item.key).is_some_and(|(_, rule)| rule == entry.item.rule) {
                self.0.set(at.0, at.1, 0);
            }
        });
        let mut found = [0_u64; 6];
        self.slots().for_each(&mut |set, key, _| {
            if let Some(number) = found.get_mut(set as usize / 2 * 2 + usize::from(key.v6)) {
                *number += 1;
            }
        });
        for (index, number) in found.iter().enumerate() {
            self.0.set(1, tally::ENTRIES + index, *number);
        }
        let directory = Directory::as_made(self.0);
        let mut left: Vec<[u64; 2]> =
            directory.lists.iter().map(|info| [info.entries_v4, info.entries_v6]).collect();
        let mut of_rule = HashMap::new();
        for (index, info) in directory.lists.iter().enumerate() {
            of_rule.extend(info.rules.iter().map(|rule| (*rule, index)));
        }
        self.for_each(&mut |entry| {
            if let Some(index) = of_rule.get(&entry.item.rule) {
                let gone = &mut left[*index][usize::from(entry.item.key.v6)];
                *gone = gone.saturating_sub(1);
            }
        });
        for (index, [v4, v6]) in left.into_iter().enumerate() {
            Directory::set_deleted(self.0, index, v4, v6);
        }
    }

    /// Its lists.
    pub(crate) fn directory(&self) -> Directory {
        Directory::read(self.0)
    }
}

/// The word of line 1 that counts a list's entries of a family.
fn tally_of(list: List, v6: bool) -> usize {
    tally::ENTRIES + list as usize * 2 + usize::from(v6)
}

fn standing(set: u32, key: Key, rule: u32) -> Standing {
    let kind = [List::Allow, List::Ban, List::Deny][(set / 2).min(2) as usize];
    Standing { kind, item: Item { key, rule, shadow: set % 2 == 1 } }
}
