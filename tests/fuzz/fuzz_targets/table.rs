//! Any memory is a table: an address is looked up in it without a panic, an overflow or an end that never comes.
#![no_main]

use std::cell::Cell;

use gateway_common::table::{
    ANYTHING, Hit, LINE_WORDS, Lines, MAX_LEVELS, SETS, Words, hints, near_in_v4, near_in_v6, search_v4,
    search_v6,
};
use libfuzzer_sys::fuzz_target;

/// Bytes of the addresses, in front of the table.
const ADDRESSES: usize = 20;
/// Lines that one look-up may read: of each level its chain and a record, and the head.
const MOST_LINES: usize = (MAX_LEVELS + 1) * 10;

/// A table of these words; what is beyond them is the last line again, so that wild places are read too.
#[derive(Clone, Copy)]
struct Table<'a> {
    words: &'a [u64],
    reads: &'a Cell<usize>,
    /// Whether the table ends where its memory ends.
    ends: bool,
}

struct Line<'a>(&'a [u64]);

impl Words for Line<'_> {
    fn word(&self, index: usize) -> u64 {
        self.0[index]
    }
}

impl<'a> Lines for Table<'a> {
    type Line = Line<'a>;

    fn line(&self, index: u32) -> Option<Line<'a>> {
        self.reads.set(self.reads.get() + 1);
        let lines = self.words.len() / LINE_WORDS;
        let index = if self.ends { index as usize } else { index as usize % lines.max(1) };
        self.words.get(index * LINE_WORDS..(index + 1) * LINE_WORDS).map(Line)
    }

    fn now_ns(&self) -> u64 {
        1 << 32
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((addresses, rest)) = bytes.split_at_checked(ADDRESSES) else { return };
    let v4 = u32::from_le_bytes(addresses[..4].try_into().expect("four bytes"));
    let v6 = u128::from_le_bytes(addresses[4..].try_into().expect("sixteen bytes"));
    let (high, low) = ((v6 >> 64) as u64, v6 as u64);
    let words: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    for ends in [false, true] {
        let reads = Cell::new(0);
        let table = Table { words: &words, reads: &reads, ends };
        let near = [near_in_v4(&table, v4), near_in_v6(&table, high), ANYTHING];
        for set in 0..SETS {
            for near in near {
                let hints = [false, true].map(|v6| hints(&table, v6, near));
                let hits =
                    [search_v4(&table, set, v4, hints[0]), search_v6(&table, set, high, low, hints[1])];
                for hit in hits {
                    assert!(reads.replace(0) <= 2 * MOST_LINES);
                    assert!(!hit.is_some() || hit.prefix_len() <= 1 << 16, "{hit:?}");
                }
            }
        }
    }
});
