//! Where things are in a table: computed before it is made, read from its head lines ever after.

use gateway_common::table::{
    CHAIN_V4, CHAIN_V6, FIRST_LINE, HINTS_V4, HINTS_V6, LEVELS_AT, LINE_WORDS, MAGIC, MARKS_LINES,
    MAX_LEVELS, NO_LEVEL, RECORD_LINES, SETS, SLOTS_V4, set_head,
};

use super::memory::Memory;
use super::near::PLANE_V4_LINES;

/// Words of line 0. What a table of lists and one of single entries need not both have shares a word.
pub(crate) mod head {
    pub(crate) const MAGIC: usize = 0;
    /// The generation of the lists.
    pub(crate) const GENERATION: usize = 1;
    /// 1 while a writer is at work: whoever finds it set knows that the one before died half-way.
    pub(crate) const WRITING: usize = 2;
    /// First line (low half) and bytes (high half) of the directory.
    pub(crate) const DIRECTORY: usize = 3;
    /// First line and number of records.
    pub(crate) const RECORDS: usize = 4;
    /// The first free record (low half) and how many have ever been used (high half).
    pub(crate) const FREE: usize = 5;
    /// The first line of what was deleted since the table was made, a word a list: prefixes of IPv4 (low half)
    /// and of IPv6. Where there are records there are no lists.
    pub(crate) const DELETED: usize = 5;
    /// The oldest and the newest ban's record.
    pub(crate) const AGES: usize = 6;
    /// First line and number of entries that stand in another list already.
    pub(crate) const OVERLAPS: usize = 7;
}

/// Words of line 1.
pub(crate) mod tally {
    /// Entries by list and family: `list * 2`, and one more for IPv6.
    pub(crate) const ENTRIES: usize = 0;
    /// Bans that left because there were too many.
    pub(crate) const EVICTED: usize = 6;
    /// Entries deleted since the table was made: their marks are still set.
    pub(crate) const STALE: usize = 7;
}

/// How prefix lengths of a family are put into levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Levels {
    /// Several lengths a level, as [`plan_levels`] put them into the sets' heads: for tables that are made as a
    /// whole.
    Planned,
    /// A level a length, for tables that are edited in place.
    Exact,
}

impl Levels {
    /// The level of a prefix length in a set.
    pub(crate) fn of(self, length: u8, memory: &Memory, head: u32) -> Option<u8> {
        match self {
            Self::Exact => Some(length),
            // The longest one that does not ask for more bits than the prefix has.
            Self::Planned => every_level(memory, head).find(|level| *level <= length),
        }
    }
}

/// Prefixes of a set by length.
pub(crate) type Lengths = [u64; 129];

/// The levels of a set that is made as a whole. Four lengths share one, which is the shortest of them that there
/// is: a list of addresses alone is then spread by all of their bits, and neighbours do not crowd one line. Where
/// that was too crowded all the same (`apart`), lengths get a level of their own, the most frequent ones first.
pub(crate) fn plan_levels(lengths: &Lengths, apart: bool) -> Vec<u8> {
    let present = |length: &u8| lengths[usize::from(*length)] > 0;
    let group = |length: u8| length.div_ceil(4);
    let mut levels: Vec<u8> = Vec::new();
    for length in (0..=128).filter(present) {
        if levels.last().is_none_or(|last| group(*last) != group(length)) {
            levels.push(length);
        }
    }
    if apart {
        let mut by_number: Vec<u8> = (0..=128).filter(present).collect();
        by_number.sort_by_key(|length| std::cmp::Reverse(lengths[usize::from(*length)]));
        for length in by_number {
            // A level ends where the next one begins.
            let next = (length + 1..=128).find(present).filter(|next| group(*next) == group(length));
            for level in [Some(length), next].into_iter().flatten() {
                if !levels.contains(&level) && levels.len() < MAX_LEVELS {
                    levels.push(level);
                }
            }
        }
    }
    levels
}

/// What a table is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) generation: u64,
    /// Prefixes a set, by family (IPv4 first) and set.
    pub(crate) prefixes: [[u64; SETS as usize]; 2],
    /// Levels of sets, if they are known beforehand.
    pub(crate) levels: [[Vec<u8>; SETS as usize]; 2],
    /// Whether it says by itself what comes near its prefixes. One that is edited has few, and goes without: it is
    /// made anew the quicker.
    pub(crate) planes: bool,
    pub(crate) records: u32,
    pub(crate) overlaps: u32,
    pub(crate) directory_bytes: u32,
    pub(crate) lists: u32,
    /// How much roomier than usual; each failed attempt makes it one more.
    pub(crate) slack: u32,
}

/// Where the parts of a table are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) lines: u32,
    /// First lines of the two planes, or 0.
    planes: [u32; 2],
    sets: [[(u32, u32); SETS as usize]; 2],
    records: u32,
    overlaps: u32,
    directory: u32,
    deleted: u32,
}

impl Layout {
    /// Places everything; `None` if it is more than a table can have.
    pub(crate) fn of(wanted: &Wanted) -> Option<Self> {
        let mut next = u64::from(FIRST_LINE);
        let mut take = |lines: u64| {
            let first = next;
            next += lines;
            first as u32
        };
        // A family without a prefix needs none.
        let planes = [(0, PLANE_V4_LINES), (1, MARKS_LINES)].map(|(family, lines): (usize, u32)| {
            let any = wanted.prefixes[family].iter().any(|prefixes| *prefixes > 0);
            if wanted.planes && any { take(u64::from(lines)) } else { 0 }
        });
        // A few lines more each time, too: half as much again is next to nothing for a small set.
        let roomy = |lines: u64| {
            let slack = u64::from(wanted.slack);
            lines + lines * slack / 2 + slack * 16 + 1
        };
        let sets = std::array::from_fn(|v6| {
            std::array::from_fn(|set| {
                let prefixes = wanted.prefixes[v6][set];
                // Half of the slots of IPv4 stay free, and a third of those of IPv6, which are larger.
                let (lines, chain) = match v6 {
                    0 => (roomy(prefixes * 2 / SLOTS_V4 as u64), CHAIN_V4),
                    _ => (roomy(prefixes * 3 / 4), CHAIN_V6),
                };
                if prefixes == 0 { (0, 0) } else { (take(lines + u64::from(chain)), lines as u32) }
            })
        });
        let records = take(u64::from(wanted.records) * u64::from(RECORD_LINES));
        let overlaps = take(u64::from(wanted.overlaps).div_ceil(2));
        let directory = take(u64::from(wanted.directory_bytes).div_ceil(LINE_WORDS as u64 * 8));
        let deleted = take(u64::from(wanted.lists).div_ceil(LINE_WORDS as u64));
        // Whole pages, since that is what the kernel maps.
        let lines = u32::try_from(next.next_multiple_of(64)).ok().filter(|lines| *lines < 1 << 26)?;
        Some(Self { lines, planes, sets, records, overlaps, directory, deleted })
    }

    /// Writes the head lines of an empty table. The seed spreads prefixes: another attempt takes another.
    pub(crate) fn write(&self, memory: &Memory, wanted: &Wanted, seed: u64) {
        let pair = |first: u32, number: u32| u64::from(first) | u64::from(number) << 32;
        memory.set(0, head::GENERATION, wanted.generation);
        memory.set(0, head::DIRECTORY, pair(self.directory, wanted.directory_bytes));
        memory.set(0, head::OVERLAPS, pair(self.overlaps, wanted.overlaps));
        memory.set(0, head::DELETED, u64::from(self.deleted));
        memory.set(HINTS_V4, 0, u64::from(self.planes[0]));
        memory.set(HINTS_V6, 0, u64::from(self.planes[1]));
        for (v6, sets) in self.sets.iter().enumerate() {
            for (set, (first, lines)) in sets.iter().enumerate() {
                let line = set_head(v6 == 1, set as u32);
                memory.set(line, 0, pair(*first, *lines));
                memory.set(line, 1, seed);
                (LEVELS_AT..LINE_WORDS).for_each(|word| memory.set(line, word, u64::MAX));
                for level in &wanted.levels[v6][set] {
                    add_level(memory, line, *level);
                }
                if wanted.records > 0 {
                    memory.set(line, ENTRIES_WORD, u64::from(self.records));
                }
            }
        }
        if wanted.records > 0 {
            memory.set(0, head::RECORDS, pair(self.records, wanted.records));
            memory.set(0, head::FREE, u64::from(u32::MAX));
            memory.set(0, head::AGES, u64::MAX);
        }
        memory.set(0, head::MAGIC, MAGIC);
    }
}

/// The word of a set's head that says where records begin (low half) and, where entries are made singly, how many
/// the set has (high half).
const ENTRIES_WORD: usize = 2;

/// So many entries more or less are in a set.
pub(crate) fn count_entry(memory: &Memory, v6: bool, set: u32, change: i32) {
    let head = set_head(v6, set);
    let (records, entries) = pair(memory, head, ENTRIES_WORD);
    let entries = entries.saturating_add_signed(change);
    memory.set(head, ENTRIES_WORD, u64::from(records) | u64::from(entries) << 32);
}

/// Whether a set has so many of the entries that its layout was made for that one more may find its lines full. Up
/// to there that happens next to never: lines of IPv6 have two slots only, and sooner a row of them is full.
pub(crate) fn is_crowded(memory: &Memory, v6: bool, set: u32) -> bool {
    let head = set_head(v6, set);
    let ((_, lines), (_, entries)) = (pair(memory, head, 0), pair(memory, head, ENTRIES_WORD));
    let (lines, entries) = (u64::from(lines), u64::from(entries));
    if v6 { entries * 2 > lines } else { entries * 8 > lines * 3 * SLOTS_V4 as u64 }
}

/// A pair of words as heads keep them: first line and number.
pub(crate) fn pair(memory: &Memory, line: u32, word: usize) -> (u32, u32) {
    let both = memory.get(line, word);
    (both as u32, (both >> 32) as u32)
}

/// The levels in use of a set, longest first.
fn every_level(memory: &Memory, head: u32) -> impl Iterator<Item = u8> {
    (0..MAX_LEVELS)
        .map(move |index| (memory.get(head, LEVELS_AT + index / 8) >> (index % 8 * 8)) as u8)
        .take_while(|level| *level != NO_LEVEL)
}

/// Puts a level into a set's list. Words are written from the last to the first, so that a reader who goes
/// from the first to the last may meet a level twice but misses none. False: there is no room.
pub(crate) fn add_level(memory: &Memory, head: u32, level: u8) -> bool {
    // Almost always it is there.
    if every_level(memory, head).any(|other| other == level) {
        return true;
    }
    let mut all: Vec<u8> = every_level(memory, head).collect();
    let Err(place) = all.binary_search_by(|other| level.cmp(other)) else { return true };
    if all.len() == MAX_LEVELS {
        return false;
    }
    all.insert(place, level);
    all.resize(MAX_LEVELS, NO_LEVEL);
    for (index, eight) in all.chunks_exact(8).enumerate().rev() {
        let word = u64::from_le_bytes(std::array::from_fn(|byte| eight[byte]));
        memory.set(head, LEVELS_AT + index, word);
    }
    true
}
