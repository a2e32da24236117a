//! What is near: bits that tell most addresses from all prefixes, before any table is looked into.
//!
//! An address has a network of 24 bits: of IPv4 its /24, of IPv6 two hashes of its /32 and two of its /48. The map
//! `near_v4` has two bits for each, which say what prefixes touch it; `near_v6` has a bit for each hash. That is megabytes, and a
//! processor that has other things to do has them in none of its caches: reading a word takes as long as all the rest
//! of a packet. So in front of the bits stands a pyramid of coarser
//! ones: level `n` has a bit for the first `n` bits of a network, set if any below it is. All levels are kept, and
//! readers ask the one that the word in `in_force` names: the coarsest that still tells enough addresses apart.
//! Whichever that is, the answer is right, so writers change it at any time.

use super::{HINTS_V4, HINTS_V6, KINDS_WORD, LINE_WORDS, Lines, SETS_WORD, Words, mix};

/// Bits of a network.
pub const NETWORK_BITS: u32 = 24;
/// The coarsest level: 8 KiB.
pub const COARSEST: u32 = 16;
/// The finest level of IPv4, behind which the two bits a network are; 1 MiB.
pub const FINEST_V4: u32 = 23;
/// The finest level of IPv6: a bit a network; 2 MiB.
pub const FINEST_V6: u32 = NETWORK_BITS;

const LINE_BITS: u32 = LINE_WORDS as u32 * 64;
/// Where the two bits a network begin in `near_v4`.
pub const KINDS_V4: u32 = (2 << FINEST_V4) / LINE_BITS;
/// Lines of two bits a network.
pub const KINDS_LINES: u32 = (2 << NETWORK_BITS) / LINE_BITS;
/// Lines of the finest level of IPv4.
pub const FINEST_V4_LINES: u32 = (1 << FINEST_V4) / LINE_BITS;
/// Lines of a bit a network.
pub const MARKS_LINES: u32 = (1 << NETWORK_BITS) / LINE_BITS;
/// Lines of the map `near_v4`.
pub const NEAR_V4_LINES: u32 = KINDS_V4 + KINDS_LINES;
/// Lines of the map `near_v6`.
pub const NEAR_V6_LINES: u32 = (2 << FINEST_V6) / LINE_BITS;

/// What comes near an address, a bit each.
///
/// Prefixes that no bit tells of: of IPv6, those shorter than [`MARKED_FROM`], which would set too many. The bit is
/// set for every address as long as there is one.
pub const SHORT: u32 = 1;
/// Prefixes that cover its network: of IPv4 /24 and shorter, of IPv6 shorter than [`LONG_FROM`].
pub const MIDDLE: u32 = 2;
/// Longer ones.
pub const LONG: u32 = 4;
/// Where nothing can be told, everything may be near.
pub const ANYTHING: u32 = SHORT | MIDDLE | LONG;

/// The shortest prefix of IPv6 that marks its /32; shorter ones set [`SHORT`].
pub const MARKED_FROM: u32 = 21;
/// The shortest prefix of IPv6 that marks its /48.
pub const LONG_FROM: u32 = 45;
/// Networks of IPv6 that get a mark, for [`MIDDLE`] and [`LONG`].
pub const MARKED_V6: [u32; 2] = [32, 48];

/// How the bits are to be read, one word: the level that readers ask, by family, and which kinds of IPv6 prefixes
/// there are at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grain(u64);

impl Grain {
    const KINDS_AT: u32 = 16;

    /// Levels of IPv4 and IPv6, and the kinds of IPv6 prefixes there are.
    pub const fn new(v4: u32, v6: u32, kinds_v6: u32) -> Self {
        Self(v4 as u64 | (v6 as u64) << 8 | ((kinds_v6 & ANYTHING) as u64) << Self::KINDS_AT)
    }

    /// As the map has it.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// What the map has. A word that nobody has written yet names a level without a bit.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The level to ask of IPv4.
    #[inline(always)]
    pub const fn v4(self) -> u32 {
        self.0 as u32 & 0xff
    }

    /// The level to ask of IPv6.
    #[inline(always)]
    pub const fn v6(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff
    }

    /// The kinds of IPv6 prefixes there are.
    #[inline(always)]
    pub const fn kinds_v6(self) -> u32 {
        (self.0 >> Self::KINDS_AT) as u32 & ANYTHING
    }
}

/// Where a bit is: line, word, bit.
pub type Place = (u32, usize, u32);

#[inline(always)]
const fn place(bit: u32) -> Place {
    (bit >> 9, (bit >> 6) as usize & 7, bit & 63)
}

/// The place of a network's bit at a level of the pyramid. The levels stand one behind the other, each where its
/// size says: level `n` begins at bit 2^n.
#[inline(always)]
pub const fn at_level(network: u32, level: u32) -> Place {
    let level = level & 31;
    place((1 << level) | network >> (NETWORK_BITS.wrapping_sub(level) & 31))
}

/// The place of a network's two bits, behind the first line of theirs; the lower bit. It says that a prefix
/// covers the network. The upper bits of a line's 256 networks tell of longer prefixes: [`longs_at`].
#[inline(always)]
pub const fn kinds_at(network: u32) -> Place {
    place(network << 1)
}

/// Bits of a block, the longest part of an address of IPv4 that longer prefixes set bits for.
pub const BLOCK_BITS: u32 = 28;

/// The three bits, word and bit each, that an address's block has among the upper ones of its line. All are set if a
/// prefix longer than /24 is there. Not one for its network: a list of a million hosts has one in 3 of 100 networks,
/// and every packet from those would cost a look-up.
#[inline(always)]
pub const fn longs_at(address: u32) -> [(usize, u32); 3] {
    // Fibonacci hashing of the twelve bits that a line does not say (Knuth, vol. 3, 6.4).
    let hash = (address >> (32 - BLOCK_BITS) & 0xfff).wrapping_mul(0x9e37_79b1);
    [upper_at(hash >> 24), upper_at(hash >> 16 & 0xff), upper_at(hash >> 8 & 0xff)]
}

#[inline(always)]
const fn upper_at(network: u32) -> (usize, u32) {
    let (_, word, bit) = kinds_at(network);
    (word, bit + 1)
}

/// The place of a network's bit, behind the first line of a plane of marks.
#[inline(always)]
pub const fn mark_at(network: u32) -> Place {
    place(network)
}

/// The network of an address of IPv4 (host order).
#[inline(always)]
pub const fn network_v4(address: u32) -> u32 {
    address >> 8
}

/// The networks of the first 32 or 48 bits of an address of IPv6 (its upper half): two bits of one line, which are
/// both set if a prefix is there, so that the bits of others hardly ever pass for it (Putze, Sanders and Singler,
/// "Cache-, Hash- and Space-Efficient Bloom Filters", 2009). What does by chance costs a look-up; whoever makes that
/// happen on purpose gains nothing, so the hash needs no secret, and the marks of several tables can be put together.
#[inline(always)]
pub const fn networks_v6(high: u64, bits: u32) -> [u32; 2] {
    let hash = mix((high >> (64 - bits)) | (bits as u64) << 56, 0);
    let first = (hash >> 40) as u32;
    // They differ in bits that are in one line at each of the three finest levels.
    [first, first ^ (hash as u32 & 0x7f) << 2]
}

/// Whether a bit is set.
#[inline(always)]
fn is_set(line: Option<impl Words>, (_, word, bit): Place) -> bool {
    line.is_some_and(|line| line.word(word) >> bit & 1 != 0)
}

/// What is near an address of IPv4, of the map's lines.
#[inline(always)]
pub fn near_v4<L: Words>(lines: impl Fn(u32) -> Option<L>, grain: Grain, address: u32) -> u32 {
    let network = network_v4(address);
    let coarse = at_level(network, grain.v4());
    if !is_set(lines(coarse.0), coarse) {
        return 0;
    }
    lines(KINDS_V4 + kinds_at(network).0).map_or(ANYTHING, |line| kinds_v4(&line, address))
}

/// What the line of an address's network says.
#[inline(always)]
fn kinds_v4(line: &impl Words, address: u32) -> u32 {
    let (_, word, bit) = kinds_at(network_v4(address));
    let [first, second, third] = longs_at(address).map(|(word, bit)| line.word(word) >> bit);
    let long = first & second & third & 1;
    let middle = line.word(word) >> bit & 1;
    (middle as u32 * MIDDLE) | (long as u32 * LONG)
}

/// What is near an address of IPv6 (its upper half), likewise.
#[inline(always)]
pub fn near_v6<L: Words>(lines: impl Fn(u32) -> Option<L>, grain: Grain, high: u64) -> u32 {
    let kinds = grain.kinds_v6();
    let marked = |bits: u32| {
        let [first, second] = networks_v6(high, bits).map(|network| at_level(network, grain.v6()));
        is_set(lines(first.0), first) && is_set(lines(second.0), second)
    };
    let mut near = kinds & SHORT;
    if kinds & MIDDLE != 0 && marked(MARKED_V6[0]) {
        near |= MIDDLE;
    }
    if kinds & LONG != 0 && marked(MARKED_V6[1]) {
        near |= LONG;
    }
    near
}

/// What a table alone has near an address of IPv4.
pub fn near_in_v4<L: Lines>(table: &L, address: u32) -> u32 {
    let Some(head) = table.head(HINTS_V4) else { return 0 };
    if head.word(SETS_WORD) == 0 {
        return 0;
    }
    let first = head.word(0) as u32;
    if first == 0 {
        return ANYTHING;
    }
    let line = table.line(first.wrapping_add(kinds_at(network_v4(address)).0));
    line.map_or(ANYTHING, |line| kinds_v4(&line, address))
}

/// What a table alone has near an address of IPv6 (its upper half).
pub fn near_in_v6<L: Lines>(table: &L, high: u64) -> u32 {
    let Some(head) = table.head(HINTS_V6) else { return 0 };
    let kinds = head.word(KINDS_WORD) as u32 & ANYTHING;
    let first = head.word(0) as u32;
    if first == 0 {
        return kinds;
    }
    let is_marked = |network| {
        let at = mark_at(network);
        is_set(table.line(first.wrapping_add(at.0)), at)
    };
    let marked = |bits, kind| if networks_v6(high, bits).into_iter().all(is_marked) { kind } else { 0 };
    kinds & SHORT | marked(MARKED_V6[0], MIDDLE) | marked(MARKED_V6[1], LONG)
}

const _: () = {
    assert!(COARSEST < FINEST_V4 && FINEST_V4 < NETWORK_BITS && FINEST_V6 == NETWORK_BITS);
    assert!(KINDS_V4.is_multiple_of(64), "whole pages");
    assert!(MIDDLE == 2 && LONG == 4 && SHORT == 1);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stand_one_behind_the_other() {
        for level in COARSEST..=FINEST_V6 {
            let bit = |(line, word, bit): Place| line * LINE_BITS + word as u32 * 64 + bit;
            let last = (1 << NETWORK_BITS) - 1;
            assert_eq!(bit(at_level(0, level)), 1 << level);
            assert_eq!(bit(at_level(last, level)), (2 << level) - 1);
        }
        assert_eq!(at_level(u32::MAX >> 8, FINEST_V4).0, KINDS_V4 - 1);
        assert_eq!(at_level(u32::MAX >> 8, FINEST_V6).0, NEAR_V6_LINES - 1);
        assert_eq!(kinds_at(u32::MAX >> 8), (KINDS_LINES - 1, 7, 62));
    }

    #[test]
    fn a_grain_is_one_word() {
        let grain = Grain::new(FINEST_V4, FINEST_V6, SHORT | LONG);
        assert_eq!(Grain::from_word(grain.to_word()), grain);
        assert_eq!((grain.v4(), grain.v6(), grain.kinds_v6()), (FINEST_V4, FINEST_V6, SHORT | LONG));
        assert_eq!(Grain::from_word(0).v4(), 0);
    }
}
