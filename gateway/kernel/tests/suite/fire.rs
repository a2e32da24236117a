//! Under fire: while tables are exchanged packet after packet is judged, and not one by a mixture of two.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gateway_kernel::sandbox::Sandbox;
use gateway_kernel::{ListEntry, ListKind, NewEntry, NewList, Rules};
use ipnet::IpNet;

use crate::frame::*;

/// Packets of one test run.
const REPEAT: u32 = 200_000;

fn frame() -> Vec<u8> {
    ethernet(&[], 0x0800, &ipv4("198.18.0.1", TCP, &[], 0, &tcp()))
}

fn list(kind: ListKind, prefix: &str) -> NewList {
    NewList {
        kind,
        name: format!("a list to {}", kind.name()),
        source: "here".to_owned(),
        shadow: false,
        labels: vec!["rule".to_owned()],
        entries: vec![ListEntry { prefix: prefix.parse().unwrap(), label: 0, shadow: false }],
    }
}

/// Judges the frame over and over while `exchange` is called so many times; returns packets and drops.
fn under_fire(sandbox: &Sandbox, times: usize, exchange: impl Fn(&Rules, usize) + Sync) -> (u64, u64) {
    let (over, packets) = (AtomicBool::new(false), AtomicU64::new(0));
    let dropped = || {
        let reasons = sandbox.rules().counters().unwrap().reasons;
        reasons.iter().filter(|row| row.verdict == "drop").map(|row| row.count.packets).sum::<u64>()
    };
    let before = dropped();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(1);
            while !over.load(Ordering::Relaxed) {
                sandbox.run(&frame(), REPEAT).unwrap();
                packets.fetch_add(REPEAT.into(), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            stay_on(0);
            (0..times).for_each(|time| exchange(sandbox.rules(), time));
            over.store(true, Ordering::Relaxed);
        });
    });
    println!("{packets:?} packets, {times} in {:?}", began.elapsed());
    (packets.into_inner(), dropped() - before)
}

/// On one processor the packets would wait while tables are exchanged, and meet no mixture whatever happens.
fn stay_on(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    // With a single processor there is nothing to be had.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

#[test]
fn no_packet_meets_lists_of_two_generations() {
    let Some(sandbox) = crate::sandbox() else { return };
    // In the one generation the source is allowed and denied, in the other it is in no list, but near enough to
    // some that it is looked up: a packet that asked this one for the allow stage and the former for the deny
    // stage would be dropped.
    let both = vec![list(ListKind::Allow, "198.18.0.0/24"), list(ListKind::Deny, "198.18.0.0/15")];
    let neither = vec![list(ListKind::Allow, "198.18.0.128/25"), list(ListKind::Deny, "198.18.0.64/26")];
    sandbox.rules().reconcile(&neither).unwrap();
    sandbox.rules().reconcile(&both).unwrap();
    let (packets, drops) = under_fire(&sandbox, 1000, |rules, time| match time % 4 {
        // To and fro between the two, then two in a row that fill the slot that was just left.
        0 | 1 => assert!(rules.roll_back().unwrap() > 0),
        2 => assert!(rules.reconcile(&neither).unwrap().changed),
        _ => assert!(rules.reconcile(&both).unwrap().changed),
    });
    assert_eq!(drops, 0, "of {packets} packets");
    assert!(packets > 1_000_000, "{packets} packets");
}

#[test]
fn no_packet_meets_half_of_a_live_table() {
    let Some(sandbox) = crate::sandbox() else { return };
    let rules = sandbox.rules();
    let entry = |prefix: IpNet| NewEntry { prefix, rule: "rule".to_owned(), ttl: None, shadow: false };
    rules.add(ListKind::Allow, &[entry("198.18.0.1/32".parse().unwrap())], &mut |_| {}).unwrap();
    rules.add(ListKind::Deny, &[entry("198.18.0.0/15".parse().unwrap())], &mut |_| {}).unwrap();
    let (packets, drops) = under_fire(&sandbox, 100, |rules, _| {
        // A list that is emptied makes the table anew.
        rules.add(ListKind::Ban, &[entry("203.0.113.1/32".parse().unwrap())], &mut |_| {}).unwrap();
        rules.flush(ListKind::Ban).unwrap();
    });
    assert_eq!(drops, 0, "of {packets} packets");
}
