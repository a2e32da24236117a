//! Prefix tables: what a list looks like in memory, and how an address is looked up in one.
//!
//! A table is one array of lines of 64 bytes, which the kernel maps into userspace: programs read lines, the
//! agent and the commands fill them. It holds every list of both families:
//!
//! ```text
//! line 0        head: what the table is (userspace only, but for nothing)
//! lines 2..14   a head a family and set: where its slots are, and which prefix lengths are in use
//! line 14, 15   hints of IPv4 and IPv6
//! lines 16..    lists: two bits for each /24, which say what prefixes are near (4 MiB), and one for each /23 (1 MiB)
//!               lists: two bits by hash for each /32 or /48 of IPv6 that any prefix touches (2 MiB)
//!               slots, hashed: a word a prefix of IPv4, three of IPv6
//!               records: time to live, rule and evidence of entries that were made singly
//! ```
//!
//! The bits of all tables in force stand together in the maps `near_v4` and `near_v6`, so a source that no prefix
//! comes near costs a line or two, whatever the tables hold ([`near_v4`]). One that a prefix
//! touches is looked for by *level*, longest prefix first: a level is a number of leading bits that are hashed to find a
//! line, and the slots of that line say by themselves how long their prefix is. Lists that are made as a whole
//! have at most four lengths in a level, so that every length there is costs nine look-ups and not 33; a table
//! that is edited in place has a level a length, so that of two nested entries, of which the longer one's time
//! is over, the shorter one is found.
//!
//! A slot of IPv4 is one word, so a reader sees it whole or not at all; a slot of IPv6 is published by its
//! first word, and a reader looks at that word twice.

mod near;
mod opaque;
mod search;

pub use near::{
    ANYTHING, BLOCK_BITS, COARSEST, FINEST_V4, FINEST_V4_LINES, FINEST_V6, Grain, KINDS_LINES, KINDS_V4,
    LONG, LONG_FROM, MARKED_FROM, MARKED_V6, MARKS_LINES, MIDDLE, NEAR_V4_LINES, NEAR_V6_LINES, NETWORK_BITS,
    Place, SHORT, at_level, kinds_at, longs_at, mark_at, near_in_v4, near_in_v6, near_v4, near_v6,
    network_v4, networks_v6,
};
pub use search::{Hints, hints, search_v4, search_v6};

/// 64-bit words of a line: a cache line of most machines.
pub const LINE_WORDS: usize = 8;

/// A line, as the map's value.
pub type Line = [u64; LINE_WORDS];

/// Where lines are read, and the clock that their times to live go by.
///
/// What has a body here is as a table in one piece of memory answers. The kernel's program has shorter ways.
pub trait Lines: Sized {
    /// A line in place.
    type Line: Words;
    /// A line, if the table is that long.
    fn line(&self, index: u32) -> Option<Self::Line>;
    /// Boot clock in nanoseconds. Asked only when an entry with a time to live was found.
    fn now_ns(&self) -> u64;
    /// One of the first [`crate::abi::HEAD_LINES`] lines.
    fn head(&self, index: u32) -> Option<Self::Line> {
        self.line(index)
    }
    /// [`search_v4`]. The kernel's program has a function of its own for it, which the verifier walks once; in
    /// line it would walk it for every set and table.
    fn search_v4(&self, set: u32, address: u32, hints: Hints) -> Hit {
        search_v4(self, set, address, hints)
    }
    /// [`search_v6`], likewise.
    fn search_v6(&self, set: u32, high: u64, low: u64, hints: Hints) -> Hit {
        search_v6(self, set, high, low, hints)
    }
}

/// The words of one line. Each is read exactly once a call: somebody else may write them.
pub trait Words {
    /// The word with this number, below [`LINE_WORDS`].
    fn word(&self, index: usize) -> u64;
}

/// "GATEWAY" and the version of everything in this module.
pub const MAGIC: u64 = 0x4741_5445_5741_5904;

/// Sets of a family: three lists, each enforced or in shadow mode.
pub const SETS: u32 = 6;
/// The first set's head. IPv4's come first, then IPv6's.
pub const SET_HEADS: u32 = 2;
/// Hints of IPv4: word 0 is the first line of the two bits a network, or 0 where the table has none.
pub const HINTS_V4: u32 = 14;
/// Hints of IPv6: word 0 is the first line of the marks, or 0; word 2 says which kinds of prefixes there are.
pub const HINTS_V6: u32 = 15;
/// The word of IPv6's hints that says which kinds of prefixes there are.
pub const KINDS_WORD: usize = 2;
/// The word of a family's hints that has a bit for each set with a prefix in it.
pub const SETS_WORD: usize = 4;
/// The first line behind the heads.
pub const FIRST_LINE: u32 = crate::abi::HEAD_LINES as u32;

/// Lines in a row that a look-up follows from where a prefix belongs; writers go no further either.
pub const CHAIN_V4: u32 = 4;
/// As above. A level of four lengths holds 15 prefixes of one hash, two a line.
pub const CHAIN_V6: u32 = 8;
/// Slots of a line of IPv4: words 1 to 7.
pub const SLOTS_V4: usize = 7;
/// Slots of a line of IPv6: words 1 to 3 and 4 to 6.
pub const SLOTS_V6: usize = 2;
/// Words of a set's head before its levels: place, seed, first record.
pub const LEVELS_AT: usize = 3;
/// Levels a set can have: bytes of a head behind [`LEVELS_AT`].
pub const MAX_LEVELS: usize = (LINE_WORDS - LEVELS_AT) * 8;
/// Ends a set's levels.
pub const NO_LEVEL: u8 = 0xff;
/// Lines of a record. The programs read the first one: expiry, rule.
pub const RECORD_LINES: u32 = 2;

/// The head line of a set.
#[inline(always)]
pub const fn set_head(v6: bool, set: u32) -> u32 {
    SET_HEADS + if v6 { SETS } else { 0 } + set
}

/// The set of a list, enforced or in shadow mode.
#[inline(always)]
pub const fn set_of(list: crate::abi::List, shadow: bool) -> u32 {
    list as u32 * 2 + shadow as u32
}

/// What a look-up found: nothing, or the length of the prefix and its rule, in one word, since the verifier
/// refuses to copy a value that one of two branches left unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit(u64);

impl Hit {
    /// Nothing.
    pub const NONE: Self = Self(0);

    const LIVE: u64 = 1 << 31;

    /// A prefix of a list, of this length and under this rule.
    #[inline(always)]
    pub const fn new(prefix_len: u32, rule: u32) -> Self {
        Self(((prefix_len as u64 + 1) << 32) | (rule as u64 & PAYLOAD))
    }

    /// The same of an entry that was made singly.
    #[inline(always)]
    pub const fn live(prefix_len: u32, rule: u32) -> Self {
        Self(Self::new(prefix_len, rule).0 | Self::LIVE)
    }

    /// Whether the entry was made singly, and is no list's.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & Self::LIVE != 0
    }

    /// As a function of the kernel's program returns it.
    #[inline(always)]
    pub const fn to_number(self) -> u64 {
        self.0
    }

    /// What such a function returned.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Whether anything was found.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Bits of the prefix.
    #[inline(always)]
    pub const fn prefix_len(self) -> u32 {
        ((self.0 >> 32) as u32).wrapping_sub(1)
    }

    /// The rule's number.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        (self.0 & PAYLOAD) as u32
    }

    /// The one with the longer prefix; of two equals, this one.
    #[inline(always)]
    pub const fn or_longer(self, other: Self) -> Self {
        if other.0 >> 32 > self.0 >> 32 { other } else { self }
    }
}

/// The low bits of a slot's first word: a rule's number in a list, a record's in a table that is edited.
pub const PAYLOAD_BITS: u32 = 24;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
const V4_ADDRESS_AT: u32 = 25;
const V4_LENGTH_AT: u32 = 57;
const V6_LENGTH_AT: u32 = 48;
const V6_LOW_SHIFT_AT: u32 = 40;
const V6_HIGH_SHIFT_AT: u32 = 32;

/// A slot of IPv4: length and one, address, payload. Never 0, and its top bit always is.
#[inline(always)]
pub const fn slot_v4(address: u32, prefix_len: u32, payload: u32) -> u64 {
    (prefix_len as u64 + 1) << V4_LENGTH_AT | (address as u64) << V4_ADDRESS_AT | (payload as u64 & PAYLOAD)
}

/// Address, prefix length and payload of a slot of IPv4 that is in use.
#[inline(always)]
pub const fn read_slot_v4(slot: u64) -> (u32, u32, u32) {
    ((slot >> V4_ADDRESS_AT) as u32, ((slot >> V4_LENGTH_AT) as u32).wrapping_sub(1), (slot & PAYLOAD) as u32)
}

/// The first word of a slot of IPv6: length and one; how many low bits of each half of the address the prefix
/// leaves open, which look-ups would have to work out otherwise; a version that changes whenever the slot is
/// written anew; payload. The address's halves follow in two words.
#[inline(always)]
pub const fn slot_v6(prefix_len: u32, version: u8, payload: u32) -> u64 {
    let (high, low) = if prefix_len > 64 { (0, 128 - prefix_len) } else { (64 - prefix_len, 64) };
    (prefix_len as u64 + 1) << V6_LENGTH_AT
        | (low as u64) << V6_LOW_SHIFT_AT
        | (high as u64) << V6_HIGH_SHIFT_AT
        | (version as u64) << PAYLOAD_BITS
        | (payload as u64 & PAYLOAD)
}

/// Prefix length, version and payload of a slot of IPv6 that is in use.
#[inline(always)]
pub const fn read_slot_v6(word: u64) -> (u32, u8, u32) {
    (((word >> V6_LENGTH_AT) as u32).wrapping_sub(1), (word >> PAYLOAD_BITS) as u8, (word & PAYLOAD) as u32)
}

/// The line of a set in which a prefix of IPv4 belongs, by its level.
#[inline(always)]
pub const fn home_v4(place: u64, seed: u64, address: u32, level: u32) -> u32 {
    let key = (address as u64) >> (32 - level) | (level as u64) << 40;
    spread(place, mix(key, seed))
}

/// The line of a set in which a prefix of IPv6 belongs, by its level.
#[inline(always)]
pub const fn home_v6(place: u64, seed: u64, high: u64, low: u64, level: u32) -> u32 {
    let seed = seed ^ (level as u64) << 48;
    if level > 64 {
        spread(place, mix(low >> (128 - level), mix(high, seed)))
    } else {
        spread(place, mix(leading(high, level), seed))
    }
}

/// The first `bits` (0 to 64) of a word. In two steps, for a shift by 64 is undefined.
#[inline(always)]
const fn leading(word: u64, bits: u32) -> u64 {
    let rest = 64 - bits;
    (word >> (rest >> 1)) >> (rest - (rest >> 1))
}

/// A line by a hash: `place` is the first line (low half) and their number (high half). A multiplication and
/// no mask, so that a set may have any number of lines (Lemire, "Fast random integer generation", 2019).
#[inline(always)]
const fn spread(place: u64, hash: u64) -> u32 {
    ((((hash >> 32) * (place >> 32)) >> 32) as u32).wrapping_add(place as u32)
}

/// Mixes a key with a table's seed: two rounds of multiply and fold, as in MurmurHash3's finaliser.
#[inline(always)]
pub const fn mix(key: u64, seed: u64) -> u64 {
    let mut mixed = (key ^ seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 29)
}

const _: () = {
    assert!(V4_ADDRESS_AT > PAYLOAD_BITS && V4_LENGTH_AT == V4_ADDRESS_AT + 32);
    assert!(33 << V4_LENGTH_AT > 0_u64 && 33_u64 << V4_LENGTH_AT < 1 << 63);
    assert!(V6_HIGH_SHIFT_AT == PAYLOAD_BITS + 8 && V6_LENGTH_AT == V6_LOW_SHIFT_AT + 8);
    assert!(crate::abi::RULE_SLOTS as u64 <= PAYLOAD);
    assert!(
        set_head(true, SETS - 1) < HINTS_V4
            && HINTS_V6 < crate::abi::HEAD_LINES as u32
            && MAX_LEVELS >= 33
            && MAX_LEVELS < NO_LEVEL as usize
    );
    assert!(SLOTS_V4 < LINE_WORDS && 3 * SLOTS_V6 < LINE_WORDS);
};
