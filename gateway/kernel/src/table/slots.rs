//! Prefixes in a table's sets: put in, taken out, found, walked over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::table::{
    CHAIN_V4, CHAIN_V6, HINTS_V4, HINTS_V6, KINDS_WORD, SETS, SETS_WORD, SLOTS_V4, SLOTS_V6, home_v4,
    home_v6, read_slot_v4, read_slot_v6, set_head, slot_v4, slot_v6,
};
use ipnet::IpNet;

use super::layout::{Levels, add_level, pair};
use super::memory::Memory;
use super::near::{Planes, kind_v6};

/// A prefix as tables keep it: the address's bits from the top of two words, whatever the family. Two words
/// and not one of 128 bits, whose alignment would make a list of millions half as large again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) high: u64,
    pub(crate) low: u64,
    pub(crate) length: u8,
    pub(crate) v6: bool,
}

impl From<IpNet> for Key {
    fn from(prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(v4) => Self::of_v4(v4.network().into(), v4.prefix_len()),
            IpNet::V6(v6) => {
                let bits = u128::from(v6.network());
                Self { high: (bits >> 64) as u64, low: bits as u64, length: v6.prefix_len(), v6: true }
            }
        }
    }
}

impl Key {
    pub(crate) fn of_v4(address: u32, length: u8) -> Self {
        Self { high: u64::from(address) << 32, low: 0, length, v6: false }
    }

    /// The prefix.
    pub(crate) fn net(self) -> IpNet {
        let address: IpAddr = if self.v6 {
            Ipv6Addr::from(u128::from(self.high) << 64 | u128::from(self.low)).into()
        } else {
            Ipv4Addr::from(self.v4()).into()
        };
        // A length that no prefix has can only come from a table that somebody else wrote.
        IpNet::new(address, self.length).unwrap_or_else(|_| address.into())
    }

    fn v4(self) -> u32 {
        (self.high >> 32) as u32
    }
}

/// The slots of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) levels: Levels,
}

/// Where a slot is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    line: u32,
    word: usize,
    home: u32,
}

/// A prefix's lines are full, or a set has no room for another length: the table must be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Slots<'_> {
    fn home(&self, set: u32, key: Key) -> Option<u32> {
        let head = set_head(key.v6, set);
        let (place, seed) = (self.memory.get(head, 0), self.memory.get(head, 1));
        if place >> 32 == 0 {
            return None;
        }
        let level = u32::from(self.levels.of(key.length, self.memory, head)?);
        Some(if key.v6 {
            home_v6(place, seed, key.high, key.low, level)
        } else {
            home_v4(place, seed, key.v4(), level)
        })
    }

    /// Where a prefix stands in a set, and its payload.
    pub(crate) fn find(&self, set: u32, key: Key) -> Option<(Place, u32)> {
        let home = self.home(set, key)?;
        let (chain, slots) = if key.v6 { (CHAIN_V6, SLOTS_V6) } else { (CHAIN_V4, SLOTS_V4) };
        for line in home..home + chain {
            for slot in 0..slots {
                let word = if key.v6 { 1 + 3 * slot } else { 1 + slot };
                if let Some((found, payload)) = self.read(key.v6, line, word)
                    && found == key
                {
                    return Some((Place { line, word, home }, payload));
                }
            }
            if self.memory.get(line, 0) == 0 {
                break;
            }
        }
        None
    }

    fn read(&self, v6: bool, line: u32, word: usize) -> Option<(Key, u32)> {
        let slot = self.memory.get(line, word);
        if slot == 0 {
            return None;
        }
        Some(if v6 {
            let (length, _, payload) = read_slot_v6(slot);
            let (high, low) = (self.memory.get(line, word + 1), self.memory.get(line, word + 2));
            (Key { high, low, length: length as u8, v6 }, payload)
        } else {
            let (address, length, payload) = read_slot_v4(slot);
            (Key::of_v4(address, length as u8), payload)
        })
    }

    /// Tells readers that a set is not empty, which stays so until the next table.
    fn note_set(&self, v6: bool, set: u32) {
        self.memory.set_bits(if v6 { HINTS_V6 } else { HINTS_V4 }, SETS_WORD, 1 << set);
    }

    /// Puts a prefix in that is not there yet. Readers see it when its first word is written, last of all.
    pub(crate) fn insert(&self, set: u32, key: Key, payload: u32) -> Result<(), NoRoom> {
        let home = self.home(set, key).ok_or(NoRoom)?;
        if self.levels == Levels::Exact && !add_level(self.memory, set_head(key.v6, set), key.length) {
            return Err(NoRoom);
        }
        self.hint(key);
        self.note_set(key.v6, set);
        let (chain, slots) = if key.v6 { (CHAIN_V6, SLOTS_V6) } else { (CHAIN_V4, SLOTS_V4) };
        for line in home..home + chain {
            for slot in 0..slots {
                let word = if key.v6 { 1 + 3 * slot } else { 1 + slot };
                if self.memory.get(line, word) == 0 {
                    // Readers go on to the next line as long as somebody whom they may look for is there.
                    (home..line)
                        .for_each(|passed| self.memory.set(passed, 0, self.memory.get(passed, 0) + 1));
                    self.write(key, Place { line, word, home }, payload);
                    return Ok(());
                }
            }
        }
        Err(NoRoom)
    }

    fn write(&self, key: Key, place: Place, payload: u32) {
        let Place { line, word, .. } = place;
        if key.v6 {
            // The line's last word counts what is written to it: a reader who meets half of a new prefix
            // sees that the version changed.
            let version = self.memory.get(line, 7) as u8;
            self.memory.set(line, 7, u64::from(version.wrapping_add(1)));
            self.memory.set(line, word + 1, key.high);
            self.memory.set(line, word + 2, key.low);
            self.memory.set(line, word, slot_v6(u32::from(key.length), version, payload));
        } else {
            self.memory.set(line, word, slot_v4(key.v4(), u32::from(key.length), payload));
        }
    }

    /// Gives a prefix another payload, in one write.
    pub(crate) fn update(&self, key: Key, place: Place, payload: u32) {
        let slot = if key.v6 {
            let version = self.memory.get(place.line, 7) as u8;
            self.memory.set(place.line, 7, u64::from(version.wrapping_add(1)));
            slot_v6(u32::from(key.length), version, payload)
        } else {
            slot_v4(key.v4(), u32::from(key.length), payload)
        };
        self.memory.set(place.line, place.word, slot);
    }

    /// Takes a prefix out, in one write.
    pub(crate) fn remove(&self, place: Place) {
        self.memory.set(place.line, place.word, 0);
        for passed in place.home..place.line {
            self.memory.set(passed, 0, self.memory.get(passed, 0).saturating_sub(1));
        }
    }

    /// Tells readers that a prefix comes near the addresses it covers. Never taken back: a bit too many costs a
    /// look-up, and the next table has it not.
    fn hint(&self, key: Key) {
        if key.v6 {
            self.memory.set_bits(HINTS_V6, KINDS_WORD, kind_v6(key.length).into());
        }
        Planes::of(self.memory).mark(key);
        if let Some(near) = self.memory.near() {
            near.mark(key);
        }
    }

    /// Calls `visit` for every prefix: set, prefix, payload.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(u32, Key, u32)) {
        for v6 in [false, true] {
            let (chain, slots) = if v6 { (CHAIN_V6, SLOTS_V6) } else { (CHAIN_V4, SLOTS_V4) };
            for set in 0..SETS {
                let (first, lines) = pair(self.memory, set_head(v6, set), 0);
                if lines == 0 {
                    continue;
                }
                for line in first..first.saturating_add(lines + chain).min(self.memory.lines()) {
                    for slot in 0..slots {
                        let word = if v6 { 1 + 3 * slot } else { 1 + slot };
                        if let Some((key, payload)) = self.read(v6, line, word) {
                            visit(set, key, payload);
                        }
                    }
                }
            }
        }
    }
}
