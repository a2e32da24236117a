//! Keeps the bits that programs look at before they look into any table: [`gateway_common::table::near_v4`].

use std::sync::Arc;

use gateway_common::abi::NEAR_WORD;
use gateway_common::table::{
    COARSEST, FINEST_V4, FINEST_V6, Grain, HINTS_V4, HINTS_V6, KINDS_LINES, KINDS_V4, KINDS_WORD, LINE_WORDS,
    LONG, LONG_FROM, MARKED_FROM, MARKED_V6, MARKS_LINES, MIDDLE, NETWORK_BITS, SHORT, at_level, kinds_at,
    mark_at, network_v4, networks_v6,
};

use super::layout::Levels;
use super::memory::Memory;
use super::slots::{Key, Slots};
use crate::error::Error;

/// Words of a plane of a bit a network that one word of the coarsest level stands for.
const CHUNK: usize = (1 << (NETWORK_BITS - COARSEST)) as usize;
/// Words of the coarsest level.
const CHUNKS: usize = (1 << COARSEST) / 64;
/// Nanoseconds to read a random word of a level, above one in the nearest cache: measured on a busy machine (Zen 3,
/// 512 KiB of second-level cache), once each 160 ns. Of 8 KiB first, then twice as much each.
const READING: [f64; (FINEST_V6 - COARSEST + 1) as usize] = [0.0, 0.0, 0.0, 0.0, 3.0, 8.0, 16.0, 40.0, 95.0];
/// What an address costs that a level lets through: of IPv4 a word of 4 MiB, of IPv6 a look-up in the tables.
const PAST_V4: f64 = 125.0;
const PAST_V6: f64 = 300.0;

/// The bits of all tables in force, in memory that programs read.
#[derive(Debug)]
pub(crate) struct Near {
    pub(crate) v4: Memory,
    pub(crate) v6: Memory,
    /// Whose word says how the others are to be read.
    pub(crate) in_force: Arc<Memory>,
}

impl Near {
    /// Adds what comes near the prefixes of a table, before it comes into force.
    pub(crate) fn add(&self, table: &Memory) {
        let planes = Planes::of(table);
        if planes.v4.is_some() || planes.v6.is_some() {
            self.set_v4(&|index, bits| bits | planes.v4(index));
            self.set_v6(&|index, bits| bits | planes.v6(index));
        } else {
            entries(table, &mut |key| self.mark(key));
        }
        self.note(kinds_v6(table));
    }

    /// Leaves what comes near the prefixes of these tables, and nothing else.
    pub(crate) fn become_that_of(&self, lists: Option<&Memory>, live: Option<&Memory>) -> Result<(), Error> {
        let planes = lists.map(Planes::of).unwrap_or_default();
        // Of a table without planes they are made here; what nobody writes to takes no memory.
        let single = Memory::anonymous(KINDS_LINES + MARKS_LINES)?;
        let made = Planes { v4: Some((&single, 0)), v6: Some((&single, KINDS_LINES)) };
        if let Some(live) = live {
            entries(live, &mut |key| made.mark(key));
        }
        self.set_v4(&|index, _| planes.v4(index) | made.v4(index));
        self.set_v6(&|index, _| planes.v6(index) | made.v6(index));
        let kinds = [lists, live].into_iter().flatten().map(kinds_v6).fold(0, |all, kinds| all | kinds);
        self.choose_levels(kinds);
        Ok(())
    }

    /// Adds what comes near one prefix of a table in force. Before the prefix is there.
    pub(crate) fn mark(&self, key: Key) {
        let Some((networks, kind)) = networks(key) else { return self.note(SHORT) };
        for (first, count) in networks {
            if key.v6 {
                for level in COARSEST..=FINEST_V6 {
                    fill_level(&self.v6, level, first, count);
                }
            } else {
                fill_kinds(&self.v4, KINDS_V4, first, count, kind);
                for level in COARSEST..=FINEST_V4 {
                    fill_level(&self.v4, level, first, count);
                }
            }
        }
        if key.v6 {
            self.note(kind);
        }
    }

    fn grain(&self) -> Grain {
        Grain::from_word(self.in_force.get(0, NEAR_WORD))
    }

    /// From now on there are such prefixes of IPv6.
    fn note(&self, kinds: u32) {
        let grain = self.grain();
        if grain.kinds_v6() | kinds != grain.kinds_v6() {
            let grain = Grain::new(grain.v4(), grain.v6(), grain.kinds_v6() | kinds);
            self.in_force.set(0, NEAR_WORD, grain.to_word());
        }
    }

    /// Nothing is near anything yet.
    pub(crate) fn begin(&self) {
        self.in_force.set(0, NEAR_WORD, Grain::new(COARSEST, COARSEST, 0).to_word());
    }

    /// After bits were added: the level that was best may not be so any more.
    pub(crate) fn tune(&self) {
        self.choose_levels(self.grain().kinds_v6());
    }

    /// Lets programs ask the level that is cheapest: a coarse one stays in the processor's nearer caches, and lets
    /// more addresses through to what is looked at next.
    fn choose_levels(&self, kinds_v6: u32) {
        let v4 = cheapest(&self.v4, FINEST_V4, &|set| PAST_V4 * set);
        // Two bits have to be set.
        let v6 = cheapest(&self.v6, FINEST_V6, &|set| PAST_V6 * set * set);
        self.in_force.set(0, NEAR_WORD, Grain::new(v4, v6, kinds_v6).to_word());
    }

    /// Gives every word of the two bits a network of IPv4 another value, by its index and the one it has.
    fn set_v4(&self, wanted: &dyn Fn(usize, u64) -> u64) {
        let words = self.v4.words().get(KINDS_V4 as usize * LINE_WORDS..).unwrap_or_default();
        for (chunk, words) in words.chunks_exact(2 * CHUNK).enumerate() {
            let mut any = false;
            for (index, word) in words.iter().enumerate() {
                let former = word.load(READ);
                let wanted = wanted(chunk * 2 * CHUNK + index, former);
                if former != wanted {
                    word.store(wanted, WRITE);
                }
                any |= former | wanted != 0;
            }
            // Whether or not a word changed: a writer may have been killed between it and the coarser levels.
            if any {
                let pair = |pair: usize| joined(words[2 * pair].load(READ), words[2 * pair + 1].load(READ));
                raise(&self.v4, chunk, std::array::from_fn(pair));
            }
        }
    }

    /// The same of the marks of IPv6.
    fn set_v6(&self, wanted: &dyn Fn(usize, u64) -> u64) {
        let words = self.v6.words().get(words_of(FINEST_V6)).unwrap_or_default();
        for (chunk, words) in words.chunks_exact(CHUNK).enumerate() {
            let mut any = false;
            for (index, word) in words.iter().enumerate() {
                let former = word.load(READ);
                let wanted = wanted(chunk * CHUNK + index, former);
                if former != wanted {
                    word.store(wanted, WRITE);
                }
                any |= former | wanted != 0;
            }
            if any {
                raise(&self.v6, chunk, std::array::from_fn(|index| words[index].load(READ)));
            }
        }
    }
}

/// The planes of a table: where they begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planes<'a> {
    v4: Option<(&'a Memory, u32)>,
    v6: Option<(&'a Memory, u32)>,
}

impl<'a> Planes<'a> {
    /// Those of a table; the ones of entries made singly have none.
    pub(super) fn of(table: &'a Memory) -> Self {
        let first = |head: u32| Some(table.get(head, 0) as u32).filter(|line| *line != 0);
        Self { v4: first(HINTS_V4).map(|line| (table, line)), v6: first(HINTS_V6).map(|line| (table, line)) }
    }

    fn v4(&self, index: usize) -> u64 {
        word(self.v4, index)
    }

    fn v6(&self, index: usize) -> u64 {
        word(self.v6, index)
    }

    /// Adds a prefix.
    pub(super) fn mark(&self, key: Key) {
        let plane = if key.v6 { self.v6 } else { self.v4 };
        let (Some((memory, line)), Some((networks, kind))) = (plane, networks(key)) else { return };
        for (first, count) in networks {
            if key.v6 {
                let (ahead, word, bit) = mark_at(first);
                memory.set_bits(line + ahead, word, 1 << bit);
            } else {
                fill_kinds(memory, line, first, count, kind);
            }
        }
    }
}

/// A word of a plane, by its index; 0 where there is no plane.
fn word(plane: Option<(&Memory, u32)>, index: usize) -> u64 {
    plane.map_or(0, |(memory, line)| memory.get(line, index))
}

/// Which kind of prefix of IPv6 this is: what [`near_v6`](gateway_common::table::near_v6) says of it.
pub(super) fn kind_v6(length: u8) -> u32 {
    match u32::from(length) {
        length if length < MARKED_FROM => SHORT,
        length if length < LONG_FROM => MIDDLE,
        _ => LONG,
    }
}

/// Which kinds of prefixes of IPv6 a table has.
fn kinds_v6(table: &Memory) -> u32 {
    table.get(HINTS_V6, KINDS_WORD) as u32
}

/// The networks that a prefix touches, in rows of a first one and a number, and what it is to them; `None` for those
/// that no bit tells of.
fn networks(key: Key) -> Option<(impl Iterator<Item = (u32, u32)>, u32)> {
    let length = u32::from(key.length);
    let (kind, bits) = match (key.v6, kind_v6(key.length)) {
        (false, _) => (if length > NETWORK_BITS { LONG } else { MIDDLE }, NETWORK_BITS),
        (true, SHORT) => return None,
        (true, MIDDLE) => (MIDDLE, MARKED_V6[0]),
        (true, kind) => (kind, MARKED_V6[1]),
    };
    let open = 1_u32 << bits.saturating_sub(length);
    // Neighbours of IPv6 are none in the plane, and each has two places there.
    let (rows, count) = if key.v6 { (2 * open, 1) } else { (1, open) };
    let first = move |row: u32| match key.v6 {
        true => networks_v6(key.high + (u64::from(row / 2) << (64 - bits)), bits)[row as usize % 2],
        false => network_v4((key.high >> 32) as u32),
    };
    Some(((0..rows).map(move |row| (first(row), count)), kind))
}

/// Every prefix of a table that is edited in place.
fn entries(table: &Memory, visit: &mut dyn FnMut(Key)) {
    Slots { memory: table, levels: Levels::Exact }.for_each(&mut |_, key, _| visit(key));
}

/// Sets the bits at a level of a row of networks.
fn fill_level(memory: &Memory, level: u32, first: u32, count: u32) {
    let last = first + (count - 1);
    fill(memory, at_level(first, level), at_level(last, level), u64::MAX);
}

/// Sets a kind for a row of networks.
fn fill_kinds(memory: &Memory, line: u32, first: u32, count: u32, kind: u32) {
    let at = |network: u32, more: u32| {
        let (ahead, word, bit) = kinds_at(network);
        (line + ahead, word, bit + more)
    };
    fill(memory, at(first, 0), at(first + (count - 1), 1), 0x5555_5555_5555_5555 * u64::from(kind / MIDDLE));
}

/// Sets the bits of a pattern from the first to the last.
fn fill(memory: &Memory, first: gateway_common::table::Place, last: gateway_common::table::Place, bits: u64) {
    let index = |(line, word, _): gateway_common::table::Place| line as usize * LINE_WORDS + word;
    for at in index(first)..=index(last) {
        let below = if at == index(first) { u64::MAX << first.2 } else { u64::MAX };
        let above = if at == index(last) { u64::MAX >> (63 - last.2) } else { u64::MAX };
        memory.set_bits(0, at, bits & below & above);
    }
}

/// The level at which an address that has nothing near it costs least.
fn cheapest(memory: &Memory, finest: u32, past: &dyn Fn(f64) -> f64) -> u32 {
    let cost = |level: u32| {
        let words = memory.words().get(words_of(level)).unwrap_or_default();
        let set: u32 = words.iter().map(|word| word.load(READ).count_ones()).sum();
        READING[(level - COARSEST) as usize] + past(f64::from(set) / f64::from(1_u32 << level))
    };
    let levels = (COARSEST..=finest).map(|level| (level, cost(level)));
    levels.min_by(|(_, cost), (_, other)| cost.total_cmp(other)).map_or(finest, |(level, _)| level)
}

/// Makes the coarser levels of a chunk what its networks' bits say.
fn raise(memory: &Memory, chunk: usize, mut bits: [u64; CHUNK]) {
    let mut words = CHUNK;
    for level in (COARSEST..NETWORK_BITS).rev() {
        words /= 2;
        for index in 0..words {
            bits[index] = joined(bits[2 * index], bits[2 * index + 1]);
            let word = memory.at(0, words_of(level).start + chunk * words + index);
            if word.load(READ) != bits[index] {
                word.store(bits[index], WRITE);
            }
        }
    }
}

/// The words of a level.
fn words_of(level: u32) -> std::ops::Range<usize> {
    (1 << level) / 64..(2 << level) / 64
}

/// Two words in one: a bit for each pair of bits.
fn joined(low: u64, high: u64) -> u64 {
    halved(low) | halved(high) << 32
}

fn halved(word: u64) -> u64 {
    if word == 0 {
        return 0;
    }
    let mut word = (word | word >> 1) & 0x5555_5555_5555_5555;
    word = (word | word >> 1) & 0x3333_3333_3333_3333;
    word = (word | word >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    word = (word | word >> 4) & 0x00ff_00ff_00ff_00ff;
    word = (word | word >> 8) & 0x0000_ffff_0000_ffff;
    (word | word >> 16) & 0xffff_ffff
}

const READ: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;
const WRITE: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Release;

const _: () = assert!(CHUNK * CHUNKS * 64 == 1 << NETWORK_BITS && FINEST_V6 == NETWORK_BITS);
