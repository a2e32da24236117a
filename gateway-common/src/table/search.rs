//! Looks an address up in a table.
//!
//! Nothing here trusts a table: whatever its words are (sums wrap), a look-up ends after a bounded number of lines
//! and says something, so that a reader of a table that is being written, or is damaged, comes to no harm.

use super::opaque::opaque;
use super::{
    CHAIN_V4, CHAIN_V6, HINTS_V4, HINTS_V6, Hit, LEVELS_AT, LONG, LONG_FROM, Lines, MARKED_FROM, MAX_LEVELS,
    MIDDLE, NO_LEVEL, PAYLOAD, PAYLOAD_BITS, SETS_WORD, SHORT, SLOTS_V4, SLOTS_V6, V4_ADDRESS_AT,
    V4_LENGTH_AT, V6_HIGH_SHIFT_AT, V6_LENGTH_AT, V6_LOW_SHIFT_AT, Words, home_v4, home_v6, set_head,
};

/// Levels of a set of IPv4: each length, and none at all.
const MAX_LEVELS_V4: u32 = 33;

/// Which levels can have a prefix for an address, and which sets have any at all: what has none costs no look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hints(u32);

impl Hints {
    /// No prefix comes near.
    pub const NONE: Self = Self(0);
    const LEVELS: u32 = super::ANYTHING;
    const SETS_AT: u32 = 8;

    #[inline(always)]
    const fn new(near: u32, sets: u64) -> Self {
        Self(near & Self::LEVELS | (sets as u32) << Self::SETS_AT)
    }

    /// As a function of the kernel's program takes it.
    #[inline(always)]
    pub const fn to_number(self) -> u32 {
        self.0
    }

    /// What such a function was given.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Whether there is anything to look for.
    #[inline(always)]
    pub const fn any(self) -> bool {
        self.0 & Self::LEVELS != 0
    }

    /// Whether a set may have a prefix for the address.
    #[inline(always)]
    pub const fn any_in(self, set: u32) -> bool {
        self.any() && self.0 >> (Self::SETS_AT + set) & 1 != 0
    }

    #[inline(always)]
    const fn v4(self, level: u32) -> bool {
        self.0 & if level > 24 { LONG } else { MIDDLE } != 0
    }

    #[inline(always)]
    const fn v6(self, level: u32) -> bool {
        let class = if level >= LONG_FROM {
            LONG
        } else if level >= MARKED_FROM {
            MIDDLE
        } else {
            SHORT
        };
        self.0 & class != 0
    }
}

/// Where to look in a table for an address that has these prefixes near it.
#[inline(always)]
pub fn hints<L: Lines>(lines: &L, v6: bool, near: u32) -> Hints {
    let Some(head) = lines.head(if v6 { HINTS_V6 } else { HINTS_V4 }) else { return Hints::NONE };
    Hints::new(near, head.word(SETS_WORD))
}

/// The longest prefix of a set that covers an address of IPv4 (host order) and holds.
#[inline(always)]
pub fn search_v4<L: Lines>(lines: &L, set: u32, address: u32, hints: Hints) -> Hit {
    let Some(head) = lines.head(set_head(false, set)) else { return Hit::NONE };
    let place = head.word(0);
    if place >> 32 == 0 {
        return Hit::NONE;
    }
    let (seed, records) = (head.word(1), head.word(2) as u32);
    let exact = if_some(records);
    for index in 0..MAX_LEVELS_V4 {
        let level = level(&head, index);
        if level > 32 {
            break;
        }
        if !hints.v4(level) {
            continue;
        }
        let home = home_v4(place, seed, address, level);
        let length = Length { wanted: u64::from(level) + 1, exact };
        let mut best = 0;
        for step in 0..CHAIN_V4 {
            let Some(line) = lines.line(home.wrapping_add(step)) else { break };
            for slot in 0..SLOTS_V4 {
                best = greater(best, if_covers_v4(line.word(1 + slot), address, length));
            }
            if line.word(0) == 0 {
                break;
            }
        }
        if best != 0 {
            let length = ((best >> V4_LENGTH_AT) as u32).wrapping_sub(1);
            let hit = held(lines, records, (best & PAYLOAD) as u32, length);
            if hit.is_some() {
                return hit;
            }
        }
    }
    Hit::NONE
}

/// The same for an address of IPv6 (its halves as numbers).
#[inline(always)]
pub fn search_v6<L: Lines>(lines: &L, set: u32, high: u64, low: u64, hints: Hints) -> Hit {
    let Some(head) = lines.head(set_head(true, set)) else { return Hit::NONE };
    let place = head.word(0);
    if place >> 32 == 0 {
        return Hit::NONE;
    }
    let (seed, records) = (head.word(1), head.word(2) as u32);
    let exact = if_some(records);
    for index in 0..MAX_LEVELS as u32 {
        let level = level(&head, index);
        if level > 128 {
            break;
        }
        if !hints.v6(level) {
            continue;
        }
        let home = home_v6(place, seed, high, low, level);
        let length = Length { wanted: u64::from(level) + 1, exact };
        let mut best = 0;
        for step in 0..CHAIN_V6 {
            let Some(line) = lines.line(home.wrapping_add(step)) else { break };
            for slot in 0..SLOTS_V6 {
                best = greater(best, if_covers_v6(&line, 1 + 3 * slot, (high, low), length));
            }
            if line.word(0) == 0 {
                break;
            }
        }
        if best != 0 {
            let length = ((best >> V6_LENGTH_AT) as u32).wrapping_sub(1);
            let hit = held(lines, records, (best & PAYLOAD) as u32, length);
            if hit.is_some() {
                return hit;
            }
        }
    }
    Hit::NONE
}

/// Which slots of a line a level asks for: none that are shorter, for another level's that fell into the same line
/// would hide those of the levels between. Where entries have records none that are longer either, whose time may
/// be over; elsewhere a longer one that covers the address would have been found before.
#[derive(Clone, Copy)]
struct Length {
    /// A length and one, as slots have it.
    wanted: u64,
    /// All ones, or 0 if longer ones are welcome.
    exact: u64,
}

impl Length {
    #[inline(always)]
    fn differs(self, length: u64) -> u64 {
        let is_shorter = opaque(length.wrapping_sub(self.wanted)) >> 63;
        (length ^ self.wanted) & self.exact | is_shorter
    }
}

/// A level of a set's head.
#[inline(always)]
fn level(head: &impl Words, index: u32) -> u32 {
    (head.word(LEVELS_AT + (index >> 3) as usize) >> ((index & 7) * 8)) as u32 & NO_LEVEL as u32
}

/// A slot if it is of a length that is asked for and covers the address, else 0. Without a branch, as the next ones:
/// forty levels of sixteen slots are as many ways for the verifier to walk, and it would take half a second.
#[inline(always)]
fn if_covers_v4(slot: u64, address: u32, length: Length) -> u64 {
    let differs = ((slot >> V4_ADDRESS_AT) as u32 ^ address) as u64;
    // 33 less the length and one: an empty slot gives 33 and covers everything, but is 0 all the same.
    let beyond = differs >> (33_u64.wrapping_sub(slot >> V4_LENGTH_AT) & 63);
    slot & if_zero(beyond | length.differs(slot >> V4_LENGTH_AT))
}

/// The same for the slot of IPv6 at a word of a line; without its version.
#[inline(always)]
fn if_covers_v6(line: &impl Words, at: usize, (high, low): (u64, u64), length: Length) -> u64 {
    let word = line.word(at);
    let high = above(line.word(at + 1) ^ high, word >> V6_HIGH_SHIFT_AT & 0x7f);
    let low = above(line.word(at + 2) ^ low, word >> V6_LOW_SHIFT_AT & 0x7f);
    // A writer that gave the slot to another prefix meanwhile has changed its version.
    let changed = line.word(at) ^ word;
    word & !(0xff << PAYLOAD_BITS) & if_zero(high | low | changed | length.differs(word >> V6_LENGTH_AT))
}

/// The bits above the lowest `shift` (0 to 64). In two steps, for a shift by 64 is undefined.
#[inline(always)]
const fn above(bits: u64, shift: u64) -> u64 {
    let half = shift >> 1;
    (bits >> (half & 63)) >> (shift.wrapping_sub(half) & 63)
}

/// 0 for 0, else all ones.
#[inline(always)]
fn if_some(number: u32) -> u64 {
    !if_zero(number as u64)
}

/// All ones for 0, else 0.
#[inline(always)]
fn if_zero(value: u64) -> u64 {
    // Either the value or its negation has the top bit, unless it is 0.
    opaque(opaque(value | value.wrapping_neg()) >> 63).wrapping_sub(1)
}

/// The greater of two numbers below 2^63.
#[inline(always)]
fn greater(a: u64, b: u64) -> u64 {
    let difference = a.wrapping_sub(b);
    let is_negative = opaque((opaque(difference) as i64 >> 63) as u64);
    b.wrapping_add(difference & !is_negative)
}

/// What a slot stands for. In a list its payload is the rule; a table that is edited has records, which know
/// until when an entry holds.
#[inline(always)]
fn held<L: Lines>(lines: &L, records: u32, payload: u32, length: u32) -> Hit {
    if records == 0 {
        return Hit::new(length, payload);
    }
    let Some(record) = lines.line(records.wrapping_add(payload * super::RECORD_LINES)) else {
        return Hit::NONE;
    };
    let (expires_ns, rule) = (record.word(0), record.word(1) as u32);
    if expires_ns != 0 && expires_ns <= lines.now_ns() {
        return Hit::NONE;
    }
    Hit::live(length, rule)
}
