//! Keeps the bits that programs look at before they look into any table: [`gateway_common::table::near_v4`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_common::abi::NEAR_WORD;
use gateway_common::table::{
    BLOCK_BITS, COARSEST, FINEST_V4, FINEST_V4_LINES, FINEST_V6, Grain, HINTS_V4, HINTS_V6, KINDS_LINES,
    KINDS_V4, KINDS_WORD, LINE_WORDS, LONG, LONG_FROM, MARKED_FROM, MARKED_V6, MARKS_LINES, MIDDLE,
    NETWORK_BITS, Place, SHORT, at_level, kinds_at, longs_at, mark_at, network_v4, networks_v6,
};

use super::layout::Levels;
use super::memory::Memory;
use super::slots::{Key, Slots};
use crate::error::Error;

/// Words of a plane of a bit a network that one word of the coarsest level stands for.
const CHUNK: usize = (1 << (NETWORK_BITS - COARSEST)) as usize;
/// Lines of a table's plane of IPv4: two bits a network, and the finest level.
pub(super) const PLANE_V4_LINES: u32 = KINDS_LINES + FINEST_V4_LINES;
/// Nanoseconds to read a random word of a level, above one in the nearest cache: measured on a busy machine (Zen 3,
/// 512 KiB of second-level cache), once each 160 ns. Of 8 KiB first, then twice as much each.
const READING: [f64; (FINEST_V6 - COARSEST + 1) as usize] = [0.0, 0.0, 0.0, 0.0, 3.0, 8.0, 16.0, 40.0, 95.0];
/// What an address costs that a level lets through: of IPv4 a word of 4 MiB, of IPv6 a look-up in the tables.
const PAST_V4: f64 = 125.0;
const PAST_V6: f64 = 300.0;
/// Where a level lets most addresses through, the processor expects as much, and reads that word of IPv4 while it goes
/// on to the next packet. Then this is what one costs (the difference of two runs at a million prefixes), and that one
/// which the level holds back after all (assumed, about a branch foretold wrongly; it was not measured).
const PAST_V4_EXPECTED: f64 = 36.0;
const HELD_BACK_V4: f64 = 20.0;

/// What lies behind a level costs an address of IPv4, by the share that the level lets through.
fn past_v4(share: f64) -> f64 {
    if share < 0.5 { PAST_V4 * share } else { PAST_V4_EXPECTED * share + HELD_BACK_V4 * (1.0 - share) }
}

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
            self.set(&|plane, index, bits| bits | planes.word(plane, index));
        } else {
            entries(table, &mut |key| self.mark(key));
        }
        self.note(kinds_v6(table));
    }

    /// Leaves what comes near the prefixes of these tables, and nothing else.
    pub(crate) fn become_that_of(&self, lists: Option<&Memory>, live: Option<&Memory>) -> Result<(), Error> {
        let planes = lists.map(Planes::of).unwrap_or_default();
        // Of a table without planes they are made here; what nobody writes to takes no memory.
        let single = Memory::anonymous(PLANE_V4_LINES + MARKS_LINES)?;
        let made = Planes { v4: Some((&single, 0)), v6: Some((&single, PLANE_V4_LINES)) };
        if let Some(live) = live {
            entries(live, &mut |key| made.mark(key));
        }
        self.set(&|plane, index, _| planes.word(plane, index) | made.word(plane, index));
        let kinds = [lists, live].into_iter().flatten().map(kinds_v6).fold(0, |all, kinds| all | kinds);
        self.choose_levels(kinds);
        Ok(())
    }

    /// Adds what comes near one prefix of a table in force. Before the prefix is there.
    pub(crate) fn mark(&self, key: Key) {
        if !key.v6 {
            mark_kinds(&self.v4, KINDS_V4, key);
            let (first, count) = networks_of_v4(key);
            (COARSEST..=FINEST_V4).for_each(|level| fill_level(&self.v4, level, first, count));
            return;
        }
        for network in networks_of_v6(key) {
            (COARSEST..=FINEST_V6).for_each(|level| fill_level(&self.v6, level, network, 1));
        }
        self.note(kind_v6(key.length));
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
        let v4 = cheapest(&self.v4, FINEST_V4, &past_v4);
        // Two bits have to be set.
        let v6 = cheapest(&self.v6, FINEST_V6, &|set| PAST_V6 * set * set);
        self.in_force.set(0, NEAR_WORD, Grain::new(v4, v6, kinds_v6).to_word());
    }

    /// Gives every word another value, by its index in its plane and the one it has.
    fn set(&self, wanted: &dyn Fn(Plane, usize, u64) -> u64) {
        let kinds = self.v4.words().get(KINDS_V4 as usize * LINE_WORDS..).unwrap_or_default();
        set_words(kinds, &|index, former| wanted(Plane::KindsV4, index, former));
        set_levels(&self.v4, FINEST_V4, &|index, former| wanted(Plane::FinestV4, index, former));
        set_levels(&self.v6, FINEST_V6, &|index, former| wanted(Plane::FinestV6, index, former));
    }
}

/// Gives words another value. True: one of them is or was not 0.
fn set_words(words: &[AtomicU64], wanted: &dyn Fn(usize, u64) -> u64) -> bool {
    let mut any = false;
    for (index, word) in words.iter().enumerate() {
        let former = word.load(READ);
        let wanted = wanted(index, former);
        if former != wanted {
            word.store(wanted, WRITE);
        }
        any |= former | wanted != 0;
    }
    any
}

/// Gives every word of a finest level another value, and the coarser levels what follows from it.
fn set_levels(memory: &Memory, finest: u32, wanted: &dyn Fn(usize, u64) -> u64) {
    let size = CHUNK >> (NETWORK_BITS - finest);
    let words = memory.words().get(words_of(finest)).unwrap_or_default();
    for (chunk, words) in words.chunks_exact(size).enumerate() {
        // Whether or not a word changed: a writer may have been killed between it and the coarser levels.
        if set_words(words, &|index, former| wanted(chunk * size + index, former)) {
            raise(memory, finest, chunk, words);
        }
    }
}

/// What a table keeps of [`Near`]'s bits: the coarser levels follow.
#[derive(Debug, Clone, Copy)]
enum Plane {
    KindsV4,
    FinestV4,
    FinestV6,
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

    fn word(&self, plane: Plane, index: usize) -> u64 {
        match plane {
            Plane::KindsV4 => word(self.v4, index),
            Plane::FinestV4 => word(self.v4, KINDS_LINES as usize * LINE_WORDS + index),
            Plane::FinestV6 => word(self.v6, index),
        }
    }

    /// Adds a prefix.
    pub(super) fn mark(&self, key: Key) {
        match (self.v4, self.v6) {
            (Some((memory, line)), _) if !key.v6 => {
                mark_kinds(memory, line, key);
                let (first, count) = networks_of_v4(key);
                // Half as many bits as networks.
                let at = |network: u32| behind(line + KINDS_LINES, mark_at(network / 2));
                fill(memory, at(first), at(first + (count - 1)), u64::MAX);
            }
            (_, Some((memory, line))) if key.v6 => {
                for network in networks_of_v6(key) {
                    let (line, word, bit) = behind(line, mark_at(network));
                    memory.set_bits(line, word, 1 << bit);
                }
            }
            _ => {}
        }
    }
}

/// A place behind a line.
fn behind(first: u32, (line, word, bit): Place) -> Place {
    (first + line, word, bit)
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

/// The networks that a prefix of IPv4 touches: a first one and a number.
fn networks_of_v4(key: Key) -> (u32, u32) {
    (network_v4((key.high >> 32) as u32), open(NETWORK_BITS, key))
}

/// The networks that a prefix of IPv6 has bits for: none if it is a short one.
fn networks_of_v6(key: Key) -> impl Iterator<Item = u32> {
    let (bits, prefixes) = match kind_v6(key.length) {
        SHORT => (MARKED_V6[0], 0),
        MIDDLE => (MARKED_V6[0], open(MARKED_V6[0], key)),
        _ => (MARKED_V6[1], open(MARKED_V6[1], key)),
    };
    (0..prefixes).flat_map(move |one| networks_v6(key.high + (u64::from(one) << (64 - bits)), bits))
}

/// How many prefixes of so many bits cover another one.
fn open(bits: u32, key: Key) -> u32 {
    1 << bits.saturating_sub(key.length.into())
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

/// Sets what the two bits a network, which begin at this line, say of a prefix.
fn mark_kinds(memory: &Memory, line: u32, key: Key) {
    let (first, count) = networks_of_v4(key);
    let at = |network: u32| behind(line, kinds_at(network));
    if u32::from(key.length) <= NETWORK_BITS {
        return fill(memory, at(first), at(first + (count - 1)), 0x5555_5555_5555_5555);
    }
    for block in 0..open(BLOCK_BITS, key) {
        let address = (key.high >> 32) as u32 + (block << (32 - BLOCK_BITS));
        for (word, bit) in longs_at(address) {
            memory.set_bits(at(first).0, word, 1 << bit);
        }
    }
}

/// Sets the bits of a pattern from the first to the last.
fn fill(memory: &Memory, first: Place, last: Place, bits: u64) {
    let index = |(line, word, _): Place| line as usize * LINE_WORDS + word;
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

/// Makes the coarser levels of a chunk what the finest one says.
fn raise(memory: &Memory, finest: u32, chunk: usize, finest_words: &[AtomicU64]) {
    let mut bits = [0; CHUNK];
    bits.iter_mut().zip(finest_words).for_each(|(bits, word)| *bits = word.load(READ));
    let mut words = finest_words.len();
    for level in (COARSEST..finest).rev() {
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

const READ: Ordering = Ordering::Relaxed;
const WRITE: Ordering = Ordering::Release;

const _: () = assert!(FINEST_V6 == NETWORK_BITS && FINEST_V4 + 1 == NETWORK_BITS && BLOCK_BITS <= 32);
