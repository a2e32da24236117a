//! Where things are in a table: computed before it is made, read from its head lines ever after.

use gateway_common::table::{
    CHAIN_V4, CHAIN_V6, HINTS_V4, HINTS_V6, KINDS_LINES, LEVELS_AT, LINE_WORDS, LONG_FROM, MAGIC,
    MARKED_FROM, MAX_LEVELS, NO_LEVEL, PLANE, PLANE_LINES, RECORD_LINES, SETS, SLOTS_V4, set_head,
};

use super::memory::Memory;

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

/// The most marks of IPv6: 4 MiB.
const MAX_MARKS: u64 = 1 << 25;
/// Marks a marked network: one look-up in sixteen for a network that is not listed finds one by chance.
const MARKS_EACH: u64 = 16;

/// How prefix lengths are put into levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Levels {
    /// Four lengths a level but for the usual ones, for tables that are made as a whole.
    Grouped,
    /// A level a length, for tables that are edited in place.
    Exact,
}

impl Levels {
    /// The level of a prefix length.
    pub(crate) fn of(self, length: u8) -> u8 {
        match self {
            Self::Exact => length,
            // What lists are made of, often one after the other without a gap: eight neighbours with one hash fill a
            // line, and a few such lines beside each other have no place.
            Self::Grouped if matches!(length, 0 | 24 | 32 | 48 | 64 | 128) => length,
            Self::Grouped => length.div_ceil(4) * 4 - 3,
        }
    }
}

/// What a table is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) generation: u64,
    /// Prefixes a set, by family (IPv4 first) and set.
    pub(crate) prefixes: [[u64; SETS as usize]; 2],
    /// Networks of IPv6 to be marked.
    pub(crate) marked: u64,
    /// Whether a prefix of IPv6 is too short to be marked.
    pub(crate) unmarked: bool,
    /// Whether prefixes of IPv4 are told apart by the kinds plane.
    pub(crate) kinds: bool,
    pub(crate) records: u32,
    pub(crate) overlaps: u32,
    pub(crate) directory_bytes: u32,
    /// How much roomier than usual; each failed attempt makes it one more.
    pub(crate) slack: u32,
}

/// Where the parts of a table are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) lines: u32,
    kinds: u32,
    marks: (u32, u32),
    sets: [[(u32, u32); SETS as usize]; 2],
    records: u32,
    overlaps: u32,
    directory: u32,
}

impl Layout {
    /// Places everything; `None` if it is more than a table can have.
    pub(crate) fn of(wanted: &Wanted) -> Option<Self> {
        let mut next = u64::from(PLANE + PLANE_LINES);
        let mut take = |lines: u64| {
            let first = next;
            next += lines;
            first as u32
        };
        let kinds = if wanted.kinds { take(u64::from(KINDS_LINES)) } else { 0 };
        let marks = match wanted.marked {
            0 => (0, 0),
            networks => {
                let marks = (networks * MARKS_EACH).next_power_of_two().clamp(512, MAX_MARKS);
                (take(marks / 512), (marks - 1) as u32)
            }
        };
        let roomy = |lines: u64| lines + lines * u64::from(wanted.slack) / 2 + 1;
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
        // Whole pages, since that is what the kernel maps.
        let lines = u32::try_from(next.next_multiple_of(64)).ok().filter(|lines| *lines < 1 << 26)?;
        Some(Self { lines, kinds, marks, sets, records, overlaps, directory })
    }

    /// Writes the head lines of an empty table. The seed spreads prefixes: another attempt takes another.
    pub(crate) fn write(&self, memory: &Memory, wanted: &Wanted, seed: u64) {
        let pair = |first: u32, number: u32| u64::from(first) | u64::from(number) << 32;
        memory.set(0, head::GENERATION, wanted.generation);
        memory.set(0, head::DIRECTORY, pair(self.directory, wanted.directory_bytes));
        memory.set(0, head::OVERLAPS, pair(self.overlaps, wanted.overlaps));
        memory.set(HINTS_V4, 0, u64::from(self.kinds));
        memory.set(HINTS_V6, 0, pair(self.marks.0, self.marks.1));
        memory.set(HINTS_V6, 1, seed);
        memory.set(HINTS_V6, 2, u64::from(wanted.unmarked));
        for (v6, sets) in self.sets.iter().enumerate() {
            for (set, (first, lines)) in sets.iter().enumerate() {
                let line = set_head(v6 == 1, set as u32);
                memory.set(line, 0, pair(*first, *lines));
                memory.set(line, 1, seed);
                (LEVELS_AT..LINE_WORDS).for_each(|word| memory.set(line, word, u64::MAX));
                if wanted.records > 0 {
                    memory.set(line, 2, u64::from(self.records));
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

/// How many networks a prefix of IPv6 marks; `None` if it is too short.
pub(crate) fn marks_of(length: u8) -> Option<u64> {
    match u32::from(length) {
        length if length < MARKED_FROM => None,
        length if length < 32 => Some(1 << (32 - length)),
        length if length < LONG_FROM => Some(1),
        length if length < 48 => Some(1 << (48 - length)),
        _ => Some(1),
    }
}

/// A pair of words as heads keep them: first line and number.
pub(crate) fn pair(memory: &Memory, line: u32, word: usize) -> (u32, u32) {
    let both = memory.get(line, word);
    (both as u32, (both >> 32) as u32)
}

/// The levels in use of a set, longest first.
pub(crate) fn levels(memory: &Memory, head: u32) -> Vec<u8> {
    (0..MAX_LEVELS)
        .map(|index| (memory.get(head, LEVELS_AT + index / 8) >> (index % 8 * 8)) as u8)
        .take_while(|level| *level != NO_LEVEL)
        .collect()
}

/// Puts a level into a set's list. Words are written from the last to the first, so that a reader who goes
/// from the first to the last may meet a level twice but misses none. False: there is no room.
pub(crate) fn add_level(memory: &Memory, head: u32, level: u8) -> bool {
    let mut all = levels(memory, head);
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
