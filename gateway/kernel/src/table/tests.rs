//! What the suites do not reach: full chains, a head that changes under a reader, the order in which bans leave.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_common::abi::List;
use gateway_common::table::{LEVELS_AT, MAX_LEVELS, NO_LEVEL, set_head};
use proptest::prelude::*;

use super::layout::{Layout, Levels, Wanted, add_level, head, pair, plan_levels};
use super::live::{Live, LiveEntry, build};
use super::slots::{NoRoom, Slots};
use super::{Key, Memory};
use crate::entry::SetBy;

/// A table with room for some prefixes of each family in its first set.
fn table(prefixes: u64) -> Memory {
    let mut sets = [[0; 6]; 2];
    (sets[0][0], sets[1][0]) = (prefixes, prefixes);
    let wanted = Wanted {
        generation: 1,
        prefixes: sets,
        levels: Default::default(),
        kinds: true,
        records: 0,
        overlaps: 0,
        directory_bytes: 0,
        lists: 0,
        slack: 0,
    };
    let layout = Layout::of(&wanted).unwrap();
    let memory = Memory::anonymous(layout.lines).unwrap();
    layout.write(&memory, &wanted, 7);
    memory
}

fn key(number: u32, v6: bool) -> Key {
    match v6 {
        false => Key::of_v4(0x0a00_0000 + number, 32),
        true => Key { high: 0x2001_0db8 << 32, low: number.into(), length: 128, v6 },
    }
}

/// The words in which lines count who was put behind them.
fn passed(memory: &Memory, v6: bool) -> u64 {
    let head = memory.get(set_head(v6, 0), 0);
    (head as u32..head as u32 + (head >> 32) as u32 + 8).map(|line| memory.get(line, 0)).sum()
}

#[test]
fn chains_fill_and_empty_and_nobody_behind_is_lost() {
    for v6 in [false, true] {
        let memory = table(20);
        let slots = Slots { memory: &memory, levels: Levels::Exact };
        let mut there: Vec<u32> = Vec::new();
        let full = (0..).find(|number| {
            let put = slots.insert(0, key(*number, v6), number + 1);
            there.extend(put.is_ok().then_some(*number));
            put == Err(NoRoom)
        });
        assert!(full > Some(20), "as many as were asked for, and more");
        assert!(passed(&memory, v6) > 0, "some had to go behind others");
        // From the middle, so that those behind stay for a while.
        while !there.is_empty() {
            for number in &there {
                assert_eq!(slots.find(0, key(*number, v6)).unwrap().1, number + 1);
            }
            let gone = there.remove(there.len() / 2);
            slots.remove(slots.find(0, key(gone, v6)).unwrap().0);
            assert!(slots.find(0, key(gone, v6)).is_none());
        }
        assert_eq!(passed(&memory, v6), 0, "nobody is behind anybody");
    }
}

#[test]
fn a_reader_of_levels_misses_none_while_others_come() {
    // Which were there before a walk began; the order makes each word's levels move on.
    let order: Vec<u8> =
        (0..MAX_LEVELS as u8).map(|number| (u16::from(number) * 27 % MAX_LEVELS as u16) as u8).collect();
    for _ in 0..200 {
        let memory = Memory::anonymous(64).unwrap();
        (LEVELS_AT..8).for_each(|word| memory.set(2, word, u64::MAX));
        let come = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for level in &order {
                    assert!(add_level(&memory, 2, *level));
                    come.fetch_add(1, Ordering::Release);
                }
            });
            loop {
                let before = come.load(Ordering::Acquire);
                let walk = (0..MAX_LEVELS)
                    .map(|index| (memory.get(2, LEVELS_AT + index / 8) >> (index % 8 * 8)) as u8);
                // One more than fit may pass by when a level is met twice, and that is the shortest of all.
                let seen: BTreeSet<u8> = walk.take_while(|level| *level != NO_LEVEL).collect();
                for level in &order[..before] {
                    assert!(seen.contains(level) || before + 1 >= MAX_LEVELS, "{level} of {before}");
                }
                if before == order.len() {
                    break;
                }
            }
        });
    }
    let memory = table(1);
    (0..MAX_LEVELS as u8).for_each(|level| assert!(add_level(&memory, 2, level)));
    assert!(add_level(&memory, 2, 5) && !add_level(&memory, 2, 100));
}

struct Made(Memory);

impl AsRef<Memory> for Made {
    fn as_ref(&self) -> &Memory {
        &self.0
    }
}

proptest! {
    #[test]
    fn planned_levels_hold_every_length(present in prop::collection::btree_map(0_u8..=128, 1_u64..1000, 0..129), apart: bool) {
        let mut lengths = [0; 129];
        present.iter().for_each(|(length, number)| lengths[usize::from(*length)] = *number);
        let levels = plan_levels(&lengths, apart);
        prop_assert!(levels.len() <= MAX_LEVELS);
        let memory = Memory::anonymous(64).unwrap();
        (LEVELS_AT..8).for_each(|word| memory.set(2, word, u64::MAX));
        levels.iter().for_each(|level| assert!(add_level(&memory, 2, *level)));
        for length in present.keys() {
            let level = Levels::Planned.of(*length, &memory, 2).unwrap();
            // What marks tell apart is not put together.
            prop_assert!(level <= *length && level.div_ceil(4) == length.div_ceil(4), "{} in {}", length, level);
            prop_assert!(!apart || present.len() > MAX_LEVELS || level == *length);
        }
    }

    /// Numbers of bans: below 40 one is put in, below 60 one goes, else the oldest.
    #[test]
    fn bans_leave_in_the_order_in_which_they_came(steps in prop::collection::vec((0_u32..20, 0_u32..64), 1..200)) {
        let made = build(&[], [[0; 6]; 2], 0, &mut |lines| Memory::anonymous(lines).map(Made)).unwrap();
        let live = Live(&made.0);
        let mut model: Vec<u32> = Vec::new();
        for (time, (number, what)) in steps.into_iter().enumerate() {
            let ban = |number: u32| LiveEntry {
                list: List::Ban,
                key: key(number, number % 2 == 1),
                shadow: number.is_multiple_of(3),
                rule: number,
                expires_ns: 0,
                set_ns: time as u64,
                by: SetBy::Cli,
                evidence: format!("evidence {time}"),
            };
            match what {
                0..40 => {
                    // Another evidence each time, so that none is as it was.
                    live.put(&ban(number)).unwrap();
                    model.retain(|other| *other != number);
                    model.push(number);
                }
                40..60 => {
                    let was = model.contains(&number);
                    prop_assert_eq!(live.remove(List::Ban, ban(number).key), was);
                    model.retain(|other| *other != number);
                }
                _ => {
                    prop_assert_eq!(live.evict_oldest(0), !model.is_empty());
                    model.drain(..model.len().min(1));
                }
            }
            prop_assert_eq!(live.count(List::Ban), model.len() as u64);
            let mut found = Vec::new();
            live.for_each(&mut |entry| found.push((entry.set_ns, entry.rule)));
            found.sort_unstable();
            let found: Vec<u32> = found.into_iter().map(|(_, rule)| rule).collect();
            prop_assert_eq!(&found, &model);
        }
        while !model.is_empty() {
            let oldest = model.remove(0);
            prop_assert!(live.evict_oldest(0) && live.get(List::Ban, key(oldest, oldest % 2 == 1)).is_none());
        }
        prop_assert!(!live.evict_oldest(0));
        // Every record is free again.
        let (_, records) = pair(&made.0, 0, head::RECORDS);
        let free = std::iter::from_fn(|| live.take_record()).collect::<BTreeSet<u32>>();
        prop_assert_eq!(free.len() as u32, records);
        prop_assert_eq!(live.entries(List::Ban, true), 0);
    }
}
