//! Kernel and host agree on what answers the host, where the default is to drop.

use gateway_common::abi::FlowTable;
use gateway_common::verdict::{Reason, Verdict};
use gateway_kernel::sandbox::{Action, Program, Sandbox};
use gateway_kernel::{DefaultVerdict, ListKind, NewEntry};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::agreement::frame;
use crate::algebra::entry_of;
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

/// The host has sent random frames; some that come are those turned round, so that they answer.
#[test]
fn kernel_and_host_agree_on_random_answers() {
    let Some(sandbox) = crate::sandbox_with(Program::Gateway, DefaultVerdict::Drop) else { return };
    let frames = || prop::collection::vec(frame(), 20);
    let cases = (prop::collection::vec((0_usize..3, entry_of(prefix())), 0..10), frames(), frames());
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
