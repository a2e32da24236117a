//! Recently seen sources: which addresses passed within the last minutes, from the programs to whoever asks
//! what a list would have hit.
//!
//! One array that all processors share, a row a hash of the address: no search, no eviction, and a source
//! that hashes like another takes its row. Rejected: a hash map with eviction, which takes a lock a packet.
//! Two processors that write one row at one moment may leave a mixture of both, which hashes to another row
//! and is left out by the reader ([`Source::stands_in`]).

use crate::packet::{Address, Family};

/// Rows of the table.
pub const SOURCE_SLOTS: u32 = 8192;

/// A source that passed. A row of zeros was never written: no family is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Source {
    /// As on the wire; IPv4 in the first word, the others 0.
    pub source: [u32; 4],
    /// 4 or 6.
    pub family: u32,
    /// Boot clock, whole seconds.
    pub seconds: u32,
}

impl Source {
    /// A source seen at this time of the boot clock.
    #[inline(always)]
    pub const fn new(address: &Address, now_ns: u64) -> Self {
        Self {
            source: address.words,
            family: address.family as u32,
            seconds: (now_ns / 1_000_000_000) as u32,
        }
    }

    /// The address, if this is one and belongs in this row.
    pub fn stands_in(&self, slot: u32) -> Option<Address> {
        let family = match self.family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        };
        let address = Address { family, words: self.source };
        (source_slot(&address) == slot).then_some(address)
    }
}

/// The row of an address. The hash is not keyed: whoever makes addresses collide hides sources from a
/// statistic, and from nothing else.
#[inline(always)]
pub const fn source_slot(address: &Address) -> u32 {
    let [a, b, c, d] = address.words;
    let mut hash = a ^ b.rotate_left(7) ^ c.rotate_left(14) ^ d.rotate_left(21) ^ address.family as u32;
    // The finaliser of MurmurHash3: every bit of the address moves every bit of the row.
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    hash % SOURCE_SLOTS
}

const _: () = {
    assert!(size_of::<Source>() == 24 && align_of::<Source>() == 4);
    assert!(SOURCE_SLOTS.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_row_is_read_only_where_it_belongs() {
        let address = Address::from(IpAddr::from([192, 0, 2, 1]));
        let row = Source::new(&address, 5_999_999_999);
        let slot = source_slot(&address);
        let mixed = Source { source: [row.source[0], 1, 0, 0], ..row };
        let table = [
            ("its own", row, slot, Some(address)),
            ("another's", row, (slot + 1) % SOURCE_SLOTS, None),
            ("never written", Source::default(), 0, None),
            ("mixed of two", mixed, slot, None),
            ("no family", Source { family: 5, ..row }, slot, None),
        ];
        for (name, row, slot, expected) in table {
            assert_eq!(row.stands_in(slot), expected, "{name}");
        }
        assert_eq!(row.seconds, 5);
    }

    #[test]
    fn neighbours_spread_over_the_table() {
        // 4096 balls into 8192 boxes at random leave 3225 boxes taken; a hash that ignored the host part
        // of an address would leave a handful.
        let nets: [fn(u32) -> Address; 3] = [
            |number| Address::v4((0xc612_0000 + number).to_be()),
            |number| Address::v6([0x2001_0db8_u32.to_be(), 0, 0, number.to_be()]),
            |number| Address::v6([0x2001_0db8_u32.to_be(), number.to_be(), 0, 1_u32.to_be()]),
        ];
        for (name, net) in nets.iter().enumerate() {
            let mut taken = [false; SOURCE_SLOTS as usize];
            (0..4096).for_each(|number| taken[source_slot(&net(number)) as usize] = true);
            let count = taken.iter().filter(|taken| **taken).count();
            assert!((3000..=4096).contains(&count), "net {name}: {count} rows");
        }
    }
}
