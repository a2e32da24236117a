//! Kernel and host always agree: on random frames, over random lists.

use std::time::Duration;

use gateway_common::abi::FlowTable;
use gateway_common::verdict::{Reason, Verdict};
use gateway_kernel::sandbox::{Action, Program, Sandbox};
use gateway_kernel::{DefaultVerdict, ListKind, NewEntry};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frame::*;
use crate::packets::run;

/// Addresses from a small pool, so that lists and packets meet.
fn v4_source() -> impl Strategy<Value = std::net::Ipv4Addr> {
    (0_u32..64, prop_oneof![Just(0xc612_0000_u32), Just(0xc000_0200), Just(0xcb00_7100)])
        .prop_map(|(low, high)| (high | low).into())
}

fn v6_source() -> impl Strategy<Value = std::net::Ipv6Addr> {
    (0_u128..16, 0_u128..4).prop_map(|(low, net)| (0x2001_0db8_u128 << 96 | net << 64 | low).into())
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (v4_source(), 1_u8..=32)
            .prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap().trunc().into()),
        (v6_source(), 1_u8..=128)
            .prop_map(|(address, length)| Ipv6Net::new(address, length).unwrap().trunc().into()),
    ]
}

fn entry() -> impl Strategy<Value = NewEntry> {
    // A time to live of nothing is over when the packet comes; ten minutes are not.
    let ttl = prop_oneof![Just(None), Just(Some(Duration::ZERO)), Just(Some(Duration::from_secs(600)))];
    (prefix(), ttl, any::<bool>(), 0..4).prop_map(|(prefix, ttl, shadow, rule)| NewEntry {
        prefix,
        rule: format!("rule {rule}"),
        ttl,
        shadow,
    })
}

/// Frames that are right but for a few bytes, and some that are not right at all.
fn frame() -> impl Strategy<Value = Vec<u8>> {
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

#[test]
fn kernel_and_host_agree_on_random_frames_over_random_lists() {
    let Some(sandbox) = crate::sandbox() else { return };
    let lists = prop::collection::vec((0_usize..3, entry()), 0..40);
    let cases = (lists, prop::collection::vec(frame(), 60));
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&cases, |(lists, frames)| {
        fill(&sandbox, &lists);
        for frame in frames {
            let host = sandbox.rules().judge(&frame).unwrap();
            let wanted = if host.verdict() == Verdict::Pass { Action::Pass } else { Action::Drop };
            prop_assert_eq!(run(&sandbox, &frame), (wanted, host.reason.name().to_owned()), "{:02x?}", frame);
        }
        Ok(())
    });
    checked.unwrap();
}

/// The same where the default is to drop and the host has sent frames of the same kind; some that come are
/// those turned round, so that they answer.
#[test]
fn kernel_and_host_agree_on_random_answers() {
    let Some(sandbox) = crate::sandbox_with(Program::Gateway, DefaultVerdict::Drop) else { return };
    let frames = || prop::collection::vec(frame(), 20);
    let cases = (prop::collection::vec((0_usize..3, entry()), 0..10), frames(), frames());
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let answered = std::cell::Cell::new(0);
    let checked = runner.run(&cases, |(lists, sent, unasked)| {
        fill(&sandbox, &lists);
        sandbox.forget_flows().unwrap();
        // A test run takes no packet that ends in its IP header, and the stack sends none.
        for frame in sent.iter().filter(|frame| frame.len() >= if frame[12] == 0x86 { 54 } else { 34 }) {
            prop_assert_eq!(sandbox.send(frame, 1).unwrap().0, -1, "{:02x?}", frame);
        }
        let remembered =
            || [FlowTable::New, FlowTable::Established].map(|table| sandbox.flows(table).unwrap().len());
        let before = remembered();
        for frame in sent.iter().map(|frame| turned_round(frame)).chain(unasked) {
            let host = sandbox.rules().judge(&frame).unwrap();
            answered.set(answered.get() + usize::from(host.reason == Reason::Reply));
            let wanted = if host.verdict() == Verdict::Pass { Action::Pass } else { Action::Drop };
            prop_assert_eq!(run(&sandbox, &frame), (wanted, host.reason.name().to_owned()), "{:02x?}", frame);
        }
        prop_assert_eq!(remembered(), before, "what arrives takes and gives no place in a table");
        Ok(())
    });
    checked.unwrap();
    assert!(answered.get() > 50, "{} of the frames were answers", answered.get());
}

/// Source and destination change places, and a request is answered, as far as the frame has all of that.
fn turned_round(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    // Returns early where the frame ends; what is turned by then stays so.
    let _ = turn_round(&mut frame);
    frame
}

fn turn_round(frame: &mut [u8]) -> Option<()> {
    let mut ip = 14;
    while matches!(frame.get(ip - 2..ip)?, [0x81, 0] | [0x88, 0xa8]) {
        ip += 4;
    }
    let (addresses, length, mut transport) = match frame.get(ip)? >> 4 {
        4 => (ip + 12, 4, ip + usize::from(frame[ip] & 0xf) * 4),
        _ => (ip + 8, 16, ip + 40),
    };
    let (source, destination) = frame.get_mut(addresses..addresses + 2 * length)?.split_at_mut(length);
    source.swap_with_slice(destination);
    let mut kind = if length == 4 { frame[ip + 9] } else { frame[ip + 6] };
    while length == 16 && matches!(kind, 0 | 43 | 44 | 60) {
        kind = *frame.get(transport)?;
        transport += 8;
    }
    match kind {
        ICMP => *frame.get_mut(transport)? = 0,
        _ => frame.get_mut(transport..transport + 4)?.rotate_left(2),
    }
    if kind == TCP {
        *frame.get_mut(transport + 13)? |= 16;
    }
    Some(())
}

fn fill(sandbox: &Sandbox, lists: &[(usize, NewEntry)]) {
    for (number, list) in [ListKind::Allow, ListKind::Ban, ListKind::Deny].into_iter().enumerate() {
        let entries: Vec<_> =
            lists.iter().filter(|(of, _)| *of == number).map(|(_, entry)| entry.clone()).collect();
        sandbox.rules().flush(list).unwrap();
        sandbox.rules().add(list, &entries, &mut |_| {}).unwrap();
    }
}
