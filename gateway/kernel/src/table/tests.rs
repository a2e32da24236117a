//! What the suites do not reach: full chains, a head that changes under a reader, the order in which bans leave.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_common::abi::{List, NEAR_WORD};
use gateway_common::table::{
    COARSEST, FINEST_V4, FINEST_V6, Grain, LEVELS_AT, LINE_WORDS, LONG, Lines as _, MAX_LEVELS, MIDDLE,
    NEAR_V4_LINES, NEAR_V6_LINES, NO_LEVEL, near_v4, near_v6, set_head,
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::layout::{Layout, Levels, Wanted, add_level, head, pair, plan_levels};
use super::live::{Live, LiveEntry, build};
use super::near::kind_v6;
use super::slots::{NoRoom, Slots};
use super::{Content, Item, Key, ListInfo, Memory, Near, build_lists};
use crate::entry::{ListKind, Owner, SetBy};

/// A table with room for some prefixes of each family in its first set.
fn table(prefixes: u64) -> Memory {
    let mut sets = [[0; 6]; 2];
    (sets[0][0], sets[1][0]) = (prefixes, prefixes);
    let wanted = Wanted {
        generation: 1,
        prefixes: sets,
        levels: Default::default(),
        planes: true,
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
fn a_table_is_crowded_before_it_is_full_and_not_once_it_is_made_anew() {
    let entry = |number: u32, v6: bool, shadow: bool| LiveEntry {
        list: List::Ban,
        key: key(number, v6),
        shadow,
        rule: 0,
        expires_ns: 0,
        set_ns: number.into(),
        by: SetBy::Cli,
        evidence: String::new(),
    };
    let empty = || build(&[], [[0; 6]; 2], 0, &mut |lines| Memory::anonymous(lines).map(Made)).unwrap();
    for v6 in [false, true] {
        let (mut made, mut times) = (empty(), 0);
        for number in 0..20_000 {
            let put = Live(&made.0).put(&entry(number, v6, number % 8 == 0));
            assert!(put.is_ok(), "{number} {v6}");
            if Live(&made.0).is_crowded() {
                let mut entries = Vec::new();
                Live(&made.0).for_each(&mut |entry| entries.push(entry));
                made =
                    build(&entries, [[0; 6]; 2], 0, &mut |lines| Memory::anonymous(lines).map(Made)).unwrap();
                assert!(!Live(&made.0).is_crowded(), "{number}");
                times += 1;
            }
        }
        assert!((5..16).contains(&times), "{times}");

        // What leaves, and what changes into the other mode, makes room.
        let made = empty();
        let live = Live(&made.0);
        let until_crowded = (0..1024).find(|number| {
            live.put(&entry(*number, v6, false)).unwrap();
            live.is_crowded()
        });
        let last = until_crowded.unwrap();
        live.put(&entry(0, v6, true)).unwrap();
        assert!(!live.is_crowded());
        live.put(&entry(last + 1, v6, false)).unwrap();
        assert!(live.is_crowded());
        assert!(live.remove(List::Ban, key(1, v6)));
        assert!(!live.is_crowded());
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

/// The maps that programs look at first, with nothing in them.
fn nothing_near() -> Near {
    Near {
        v4: Memory::anonymous(NEAR_V4_LINES).unwrap(),
        v6: Memory::anonymous(NEAR_V6_LINES).unwrap(),
        in_force: Arc::new(Memory::anonymous(1).unwrap()),
    }
}

/// Every word of them.
fn words(near: &Near) -> Vec<u64> {
    let all = [&near.v4, &near.v6, &near.in_force].map(Memory::words);
    all.into_iter().flatten().map(|word| word.load(Ordering::Relaxed)).collect()
}

/// What programs see near an address when they ask these levels.
fn seen(near: &Near, high: u64, v6: bool, levels: (u32, u32)) -> u32 {
    let kinds = Grain::from_word(near.in_force.get(0, NEAR_WORD)).kinds_v6();
    let grain = Grain::new(levels.0, levels.1, kinds);
    match v6 {
        false => near_v4(|line| (&near.v4).line(line), grain, (high >> 32) as u32),
        true => near_v6(|line| (&near.v6).line(line), grain, high),
    }
}

/// Prefixes of both families, rarely very short ones.
fn prefixes() -> impl Strategy<Value = Vec<Key>> {
    let v4 = (any::<u32>(), prop_oneof![9 => 16_u8..=32, 1 => 0_u8..=32]);
    let v4 = v4.prop_map(|(address, length)| IpNet::new(Ipv4Addr::from(address).into(), length).unwrap());
    let v6 = (any::<u128>(), prop_oneof![9 => 28_u8..=128, 1 => 0_u8..=128]);
    let v6 = v6.prop_map(|(address, length)| IpNet::new(Ipv6Addr::from(address).into(), length).unwrap());
    prop::collection::vec(prop_oneof![v4, v6].prop_map(|prefix| Key::from(prefix.trunc())), 0..40)
}

/// A generation of one list with these prefixes, and entries made singly.
fn tables(list: &[Key], single: &[Key]) -> (Made, Made) {
    let info = ListInfo {
        kind: ListKind::Deny,
        name: "list".to_owned(),
        owner: Owner::Operator,
        source: String::new(),
        shadow: false,
        entries_v4: 0,
        entries_v6: 0,
        generation: 1,
        loaded_at: 0,
        digest: 0,
        rules: vec![0],
    };
    let items = list.iter().map(|key| Item { key: *key, rule: 0, shadow: false }).collect();
    let mut make = |lines| Memory::anonymous(lines).map(Made);
    let lists = build_lists(&[Content { info, items }], 1, &mut make, &mut |_| {}).unwrap();
    let entry = |key: &Key| LiveEntry {
        list: List::Deny,
        key: *key,
        shadow: false,
        rule: 0,
        expires_ns: 0,
        set_ns: 0,
        by: SetBy::Cli,
        evidence: String::new(),
    };
    let entries: Vec<LiveEntry> = single.iter().map(entry).collect();
    (lists, build(&entries, [[0; 6]; 2], 0, &mut make).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever covers an address is seen near it at every level, whether it came with its table or alone; and what
    /// goes leaves nothing behind.
    #[test]
    fn near_shows_every_prefix_and_forgets_those_that_went(list in prefixes(), mut single in prefixes()) {
        single.truncate(20);
        let (lists, live) = tables(&list, &single);
        let near = nothing_near();
        near.add(&lists.0);
        // As if its writer had been killed before the coarser levels, and the next one brought the same.
        for (memory, finest) in [(&near.v4, FINEST_V4), (&near.v6, FINEST_V6 - 1)] {
            let levels = &memory.words()[..(2 << finest) / 64];
            levels.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        near.add(&lists.0);
        near.add(&live.0);
        let alone = nothing_near();
        list.iter().chain(&single).for_each(|key| alone.mark(*key));
        for key in list.iter().chain(&single) {
            let wanted = match (key.v6, key.length) {
                (false, ..=24) => MIDDLE,
                (false, _) => LONG,
                (true, _) => kind_v6(key.length),
            };
            let open = u64::MAX.checked_shr(key.length.into()).unwrap_or_default();
            let last = key.high | if key.v6 { open } else { open >> 32 << 32 };
            for level in COARSEST..=FINEST_V6 {
                for (near, high) in [(&near, key.high), (&near, last), (&alone, key.high), (&alone, last)] {
                    let seen = seen(near, high, key.v6, (level.min(FINEST_V4), level));
                    prop_assert!(seen & wanted != 0, "{:?} at level {}: {}", key, level, seen);
                }
            }
        }
        for (lists, live) in [(Some(&lists.0), Some(&live.0)), (None, Some(&live.0)), (Some(&lists.0), None), (None, None)] {
            near.become_that_of(lists, live).unwrap();
            let fresh = nothing_near();
            [lists, live].into_iter().flatten().for_each(|table| fresh.add(table));
            fresh.tune();
            prop_assert!(lists.is_none() && live.is_none() || words(&near) == words(&fresh));
        }
        let left = words(&near);
        let bits = left.len() - LINE_WORDS;
        prop_assert!(left[..bits].iter().all(|word| *word == 0), "only how to read is said");
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
