//! Kernel and host always agree: on random frames, over random lists.

use std::collections::BTreeMap;

use gateway_common::verdict::Verdict;
use gateway_kernel::Rules;
use gateway_kernel::sandbox::Action;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::algebra::{apply, operation, v4_source, v6_source};
use crate::frame::*;

/// Frames that are right but for a few bytes, and some that are not right at all.
pub(crate) fn frame() -> impl Strategy<Value = Vec<u8>> {
    let transport =
        prop_oneof![Just((TCP, tcp())), Just((UDP, udp())), Just((ICMP, echo())), Just((47, vec![]))];
    let tags = prop::collection::vec(prop_oneof![Just(0x8100_u16), Just(0x88a8)], 0..4);
    let fragment = prop_oneof![6 => Just(0_u16), 1 => Just(0x2000), 1 => Just(1), 1 => any::<u16>()];
    let options = (0_usize..=10).prop_map(|words| vec![1; words * 4]);
    let v4 = (tags.clone(), v4_source(), transport.clone(), options, fragment).prop_map(
        |(tags, source, (protocol, header), options, fragment)| {
            ethernet(&tags, 0x0800, &ipv4(&source.to_string(), protocol, &options, fragment, &header))
        },
    );
    let kinds = prop::collection::vec(prop_oneof![Just(0_u8), Just(43), Just(44), Just(51), Just(60)], 0..10);
    let v6 = (tags, v6_source(), transport, kinds).prop_map(|(tags, source, (protocol, header), kinds)| {
        let first = kinds.first().copied().unwrap_or(protocol);
        ethernet(&tags, 0x86dd, &ipv6(&source.to_string(), first, &extensions(&kinds, protocol, &header)))
    });
    let right = prop_oneof![v4, v6];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let damaged = (right, damage, prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(mut frame, damage, cut)| {
            for (at, byte) in damage {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 13));
            }
            frame
        },
    );
    prop_oneof![9 => damaged, 1 => prop::collection::vec(any::<u8>(), 14..200)]
}

/// Cases, changes of the lists in each, and frames that are judged after every change: 100,000 packets over 2,000
/// states of the tables.
const CASES: u32 = 400;
const CHANGES: usize = 5;
const FRAMES: usize = 50;

#[test]
fn kernel_and_host_agree_on_random_frames_over_random_lists() {
    let Some(sandbox) = crate::sandbox() else { return };
    let rules = sandbox.rules();
    // The tables go on from case to case: what one left is what the next one changes.
    let cases = (prop::collection::vec(operation(), CHANGES), prop::collection::vec(frame(), FRAMES));
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let checked = TestRunner::new(config).run(&cases, |(operations, frames)| {
        let mut expected = counted(rules);
        for operation in &operations {
            apply(rules, operation);
            for frame in &frames {
                let host = rules.judge(frame).unwrap();
                let wanted = if host.verdict() == Verdict::Pass { Action::Pass } else { Action::Drop };
                let action = sandbox.run(frame, 1).unwrap().action;
                prop_assert_eq!(action, wanted, "{:?} {:02x?}", host, frame);
                *expected.entry(host.reason.name().to_owned()).or_default() += 1;
            }
        }
        prop_assert_eq!(counted(rules), expected);
        Ok(())
    });
    checked.unwrap();
}

/// Packets by reason.
fn counted(rules: &Rules) -> BTreeMap<String, u64> {
    rules.counters().unwrap().reasons.into_iter().map(|row| (row.reason, row.count.packets)).collect()
}
