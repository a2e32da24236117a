//! The table of frames: name, frame, and under which reason it is counted. Every row runs on the host and
//! through BPF_PROG_TEST_RUN.

use std::time::Duration;

use gateway_common::verdict::{Reason, Verdict};
use gateway_kernel::sandbox::{Action, Sandbox};
use gateway_kernel::{ListKind, NewEntry, Rules};

use crate::frame::*;

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
const MORE: u16 = 0x2000;

/// 192.0.2.0/24 is denied, .64/26 in it in shadow mode, .7 allowed; 203.0.113.5 banned, 203.0.113.0/25
/// banned in shadow mode; the same in v6.
fn fill(rules: &Rules) {
    let entry = |prefix: &str, ttl: Option<u64>, shadow| NewEntry {
        prefix: prefix.parse().unwrap(),
        rule: format!("rule of {prefix}"),
        ttl: ttl.map(Duration::from_secs),
        shadow,
    };
    let lists = [
        (ListKind::Allow, vec![entry("192.0.2.7/32", None, false), entry("2001:db8:d::7/128", None, false)]),
        (
            ListKind::Ban,
            vec![
                entry("203.0.113.0/25", Some(600), true),
                entry("203.0.113.5/32", Some(600), false),
                entry("2001:db8:b::/48", Some(600), false),
            ],
        ),
        (
            ListKind::Deny,
            vec![
                entry("192.0.2.0/24", None, false),
                entry("192.0.2.64/26", None, true),
                entry("203.0.113.16/28", None, false),
                entry("2001:db8:d::/64", None, false),
            ],
        ),
    ];
    for (list, entries) in lists {
        rules.add(list, &entries, &mut |_| {}).unwrap();
    }
}

fn v4(source: &str) -> Vec<u8> {
    ethernet(&[], V4, &ipv4(source, TCP, &[], 0, &tcp()))
}

fn v6(source: &str) -> Vec<u8> {
    ethernet(&[], V6, &ipv6(source, TCP, &tcp()))
}

fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

#[rustfmt::skip]
fn table() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let free = "198.18.0.9";
    let free6 = "2001:db8:f::9";
    vec![
        // Lists.
        ("v4, no list", v4(free), Reason::NoMatch),
        ("v4, denied", v4("192.0.2.1"), Reason::DenyList),
        ("v4, denied network, allowed host", v4("192.0.2.7"), Reason::AllowList),
        ("v4, more specific entry in shadow", v4("192.0.2.65"), Reason::DenyList),
        ("v4, last address of the denied network", v4("192.0.2.255"), Reason::DenyList),
        ("v4, first address behind it", v4("192.0.3.0"), Reason::NoMatch),
        ("v4, banned host", v4("203.0.113.5"), Reason::BanList),
        ("v4, shadow ban alone", v4("203.0.113.6"), Reason::BanShadow),
        ("v4, shadow ban, then denied", v4("203.0.113.17"), Reason::DenyList),
        ("v6, no list", v6(free6), Reason::NoMatch),
        ("v6, denied", v6("2001:db8:d::1"), Reason::DenyList),
        ("v6, allowed host", v6("2001:db8:d::7"), Reason::AllowList),
        ("v6, banned", v6("2001:db8:b:1::1"), Reason::BanList),
        ("v6, behind the denied network", v6("2001:db8:d:1::"), Reason::NoMatch),
        // Protocols.
        ("v4 UDP", ethernet(&[], V4, &ipv4("192.0.2.1", UDP, &[], 0, &udp())), Reason::DenyList),
        ("v4 ICMP", ethernet(&[], V4, &ipv4("192.0.2.1", ICMP, &[], 0, &echo())), Reason::DenyList),
        ("v4 GRE: addresses hold", ethernet(&[], V4, &ipv4("192.0.2.1", 47, &[], 0, &[])), Reason::DenyList),
        ("v6 ICMPv6", ethernet(&[], V6, &ipv6(free6, ICMPV6, &echo())), Reason::NoMatch),
        ("v6 no next header", ethernet(&[], V6, &ipv6(free6, 59, &[])), Reason::NoMatch),
        ("ARP", ethernet(&[], 0x0806, &[0; 28]), Reason::NotIp),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46]), Reason::NotIp),
        ("802.3 length instead of a type", ethernet(&[], 46, &[0; 46]), Reason::NotIp),
        // VLAN.
        ("one tag", ethernet(&[C_TAG], V4, &ipv4("192.0.2.1", TCP, &[], 0, &tcp())), Reason::DenyList),
        ("two tags", ethernet(&[S_TAG, C_TAG], V4, &ipv4("192.0.2.1", TCP, &[], 0, &tcp())), Reason::DenyList),
        ("two tags, v6", ethernet(&[S_TAG, C_TAG], V6, &ipv6("2001:db8:d::1", TCP, &tcp())), Reason::DenyList),
        ("two tags, ARP", ethernet(&[C_TAG, C_TAG], 0x0806, &[0; 28]), Reason::NotIp),
        ("three tags", ethernet(&[S_TAG, C_TAG, C_TAG], V4, &ipv4(free, TCP, &[], 0, &tcp())), Reason::VlanDepth),
        ("ends in the first tag", cut(ethernet(&[C_TAG], V4, &[]), 16), Reason::TruncatedVlan),
        ("ends in the second tag", cut(ethernet(&[S_TAG, C_TAG], V4, &[]), 20), Reason::TruncatedVlan),
        // IPv4 headers.
        ("v4 options", ethernet(&[], V4, &ipv4("192.0.2.1", TCP, &[1; 8], 0, &tcp())), Reason::DenyList),
        ("v4, 40 bytes of options", ethernet(&[], V4, &ipv4(free, TCP, &[1; 40], 0, &tcp())), Reason::NoMatch),
        ("v4 ends in the header", cut(v4(free), 33), Reason::TruncatedIpv4),
        ("v4 ends in the options", cut(ethernet(&[], V4, &ipv4(free, TCP, &[1; 40], 0, &[])), 50), Reason::TruncatedIpv4),
        ("v4 with version 5", with(v4(free), 14, 0x55), Reason::BadIpv4),
        ("v4, header of 16 bytes", with(v4(free), 14, 0x44), Reason::BadIpv4),
        ("v4, total length inside the header", with(v4(free), 17, 19), Reason::BadIpv4),
        ("v4, total length 0 (merged packet)", with(v4(free), 17, 0), Reason::NoMatch),
        ("v4 under the EtherType of v6", ethernet(&[], V6, &ipv4(free, TCP, &[], 0, &[0; 40])), Reason::BadIpv6),
        // Transport.
        ("TCP ends early", cut(v4(free), 53), Reason::TruncatedTransport),
        ("TCP only in the padding", with(v4(free), 17, 39), Reason::TruncatedTransport),
        ("TCP, data offset 4", with(v4(free), 46, 0x40), Reason::BadTcp),
        ("UDP ends early", cut(ethernet(&[], V4, &ipv4(free, UDP, &[], 0, &udp())), 41), Reason::TruncatedTransport),
        ("ICMP ends early", cut(ethernet(&[], V4, &ipv4(free, ICMP, &[], 0, &echo())), 36), Reason::TruncatedTransport),
        ("v6 TCP ends early", cut(v6(free6), 73), Reason::TruncatedTransport),
        ("v6, payload length inside TCP", with(v6(free6), 19, 19), Reason::TruncatedTransport),
        ("v6, payload length 0 (jumbogram)", with(v6(free6), 19, 0), Reason::NoMatch),
        // Fragments.
        ("v4, first fragment", ethernet(&[], V4, &ipv4(free, TCP, &[], MORE, &tcp())), Reason::NoMatch),
        ("v4, later fragment", ethernet(&[], V4, &ipv4(free, UDP, &[], 185, &[0; 8])), Reason::Fragment),
        ("v4, later fragment, denied", ethernet(&[], V4, &ipv4("192.0.2.1", UDP, &[], 185, &[0; 8])), Reason::DenyList),
        ("v4, first fragment without its header", ethernet(&[], V4, &ipv4(free, TCP, &[], MORE, &[0; 8])), Reason::TinyFragment),
        ("v4, second fragment over the TCP header", ethernet(&[], V4, &ipv4(free, TCP, &[], 1, &[0; 16])), Reason::TinyFragment),
        ("v4, second fragment of UDP at 8 bytes", ethernet(&[], V4, &ipv4(free, UDP, &[], 1, &[0; 16])), Reason::Fragment),
        ("v4, don't fragment", ethernet(&[], V4, &ipv4(free, TCP, &[], 0x4000, &tcp())), Reason::NoMatch),
        ("v6, first fragment", ethernet(&[], V6, &ipv6(free6, 44, &[fragment_header(TCP, 0, true), tcp()].concat())), Reason::NoMatch),
        ("v6, atomic fragment", ethernet(&[], V6, &ipv6(free6, 44, &[fragment_header(TCP, 0, false), tcp()].concat())), Reason::NoMatch),
        ("v6, later fragment", ethernet(&[], V6, &ipv6(free6, 44, &[fragment_header(TCP, 90, false), vec![0; 8]].concat())), Reason::Fragment),
        ("v6, later fragment, denied", ethernet(&[], V6, &ipv6("2001:db8:d::1", 44, &fragment_header(UDP, 90, true))), Reason::DenyList),
        ("v6, first fragment without its header", ethernet(&[], V6, &ipv6(free6, 44, &fragment_header(TCP, 0, true))), Reason::TinyFragment),
        ("v6, chain continues behind a first fragment", ethernet(&[], V6, &ipv6(free6, 44, &[fragment_header(60, 0, true), vec![TCP, 0, 0, 0, 0, 0, 0, 0], tcp()].concat())), Reason::NoMatch),
        ("v6, second fragment over the TCP header", ethernet(&[], V6, &ipv6(free6, 44, &[fragment_header(TCP, 1, false), vec![0; 16]].concat())), Reason::TinyFragment),
        // IPv6 headers.
        ("v6 ends in the header", cut(v6(free6), 53), Reason::TruncatedIpv6),
        ("v6 with version 4", with(v6(free6), 14, 0x40), Reason::BadIpv6),
        ("v6, hop-by-hop", ethernet(&[], V6, &ipv6("2001:db8:d::1", 0, &extensions(&[0], TCP, &tcp()))), Reason::DenyList),
        ("v6, eight extension headers", ethernet(&[], V6, &ipv6(free6, 60, &extensions(&[60; 8], TCP, &tcp()))), Reason::NoMatch),
        ("v6, nine extension headers", ethernet(&[], V6, &ipv6(free6, 60, &extensions(&[60; 9], TCP, &tcp()))), Reason::ExtensionDepth),
        ("v6, authentication header", ethernet(&[], V6, &ipv6(free6, 51, &[vec![TCP, 4], vec![0; 22], tcp()].concat())), Reason::NoMatch),
        ("v6, ends in an extension header", ethernet(&[], V6, &ipv6(free6, 60, &[TCP, 0])), Reason::TruncatedExtension),
        ("v6, extension header longer than the frame", ethernet(&[], V6, &ipv6(free6, 60, &[TCP, 200, 0, 0, 0, 0, 0, 0])), Reason::TruncatedTransport),
        ("v6, eight of the longest extension headers", ethernet(&[], V6, &ipv6(free6, 60, &[60, 255, 0, 0, 0, 0, 0, 0])), Reason::TruncatedExtension),
    ]
}

#[test]
fn every_frame_has_the_verdict_and_reason_of_the_table_on_the_host() {
    let rules = Rules::in_userspace().unwrap();
    fill(&rules);
    for (name, frame, expected) in table() {
        let judged = rules.judge(&frame).unwrap();
        assert_eq!(judged.reason, expected, "{name}");
    }
    // What the kernel's test run does not take: it wants a whole Ethernet header.
    assert_eq!(rules.judge(&[0; 13]).unwrap().reason, Reason::TruncatedEthernet);
    assert_eq!(rules.judge(&[]).unwrap().reason, Reason::TruncatedEthernet);
}

#[test]
fn every_frame_has_the_verdict_and_reason_of_the_table_in_the_kernel() {
    let Some(sandbox) = crate::sandbox() else { return };
    fill(sandbox.rules());
    for (name, frame, expected) in table() {
        let (action, reason) = run(&sandbox, &frame);
        let wanted = if expected.verdict() == Verdict::Pass { Action::Pass } else { Action::Drop };
        assert_eq!((action, reason.as_str()), (wanted, expected.name()), "{name}");
    }
}

#[test]
fn a_rule_counts_packets_and_bytes_also_in_shadow() {
    let Some(sandbox) = crate::sandbox() else { return };
    fill(sandbox.rules());
    sandbox.run(&v4("192.0.2.1"), 1000).unwrap();
    sandbox.run(&v4("203.0.113.17"), 10).unwrap();
    let counters = sandbox.rules().counters().unwrap();
    let hits = |rule: &str| counters.rules.iter().find(|row| row.rule == rule).unwrap().count;
    assert_eq!((hits("rule of 192.0.2.0/24").packets, hits("rule of 192.0.2.0/24").bytes), (1000, 54_000));
    assert_eq!(
        hits("rule of 203.0.113.0/25").packets,
        10,
        "a shadow ban counts before the deny list decides"
    );
    assert_eq!(hits("rule of 203.0.113.16/28").packets, 10);
    assert_eq!(hits("rule of 192.0.2.64/26").packets, 0);
}

/// The kernel's answer, and the one reason whose counter moved.
pub(crate) fn run(sandbox: &Sandbox, frame: &[u8]) -> (Action, String) {
    let before = sandbox.rules().counters().unwrap().reasons;
    let action = sandbox.run(frame, 1).unwrap().action;
    let after = sandbox.rules().counters().unwrap().reasons;
    let was =
        |reason: &str| before.iter().find(|row| row.reason == reason).map_or(0, |row| row.count.packets);
    let moved: Vec<_> = after.into_iter().filter(|row| row.count.packets != was(&row.reason)).collect();
    assert_eq!(moved.len(), 1, "one packet is counted once: {moved:?}");
    (action, moved.into_iter().next().unwrap().reason)
}
