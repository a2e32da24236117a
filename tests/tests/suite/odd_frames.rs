//! Frames that no ordinary host sends: each odd case is counted under a name of its own, and what passes
//! comes through byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_tests::frames::{self, DOT1AD, DOT1Q, IPV4, IPV6, TCP, Tap, UDP, V4, Wire};
use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, GATEWAY_V4, GATEWAY_V6, Net, Setup, require_root,
};

use crate::config;

const DENY_BOTH: &str = "deny: [198.18.1.66/32, \"2001:db8:1::66/128\"]";
/// Headers of IPv6 that are read over.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Name, frame, the reason it is counted under, and whether it passes.
type Case = (&'static str, Vec<u8>, &'static str, bool);

#[test]
fn each_odd_frame_has_its_reason() {
    require_root!();
    for attach in ["native", "generic"] {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(&format!("{DENY_BOTH}\nattach: {attach}")));
        let wire = Wire::open(&net.client, "eth0");
        let mut tap = Tap::open(&net.gateway, "front0");
        let cases: Vec<Case> = [vlan_cases(), v4_cases(), v6_cases(), transport_cases()].concat();
        for (name, frame, reason, passes) in cases {
            let before = agent.reason(reason);
            wire.send(&frame);
            wire.send(&sentinel());
            let came = tap.until(b"sentinel").len() - 1;
            assert_eq!(came, usize::from(passes), "{attach}: {name}: frames that came through");
            let counted = agent.reason(reason) - before;
            // The sentinel is itself a packet without a match.
            let expected = if reason == "no_match" { 2 } else { 1 };
            // The client's own stack speaks when it likes: it looks for neighbours and for routers.
            let others = u64::from(matches!(reason, "no_match" | "not_ip")) * 3;
            let right = expected..=expected + others;
            assert!(
                right.contains(&counted),
                "{attach}: {name}: {counted} counted under {reason}, not {expected}: {}",
                reasons(&agent)
            );
        }
    }
}

fn vlan_cases() -> Vec<Case> {
    let packet = v4(CLIENT_V4, &V4::default(), UDP, &udp());
    let deep = frames::ethernet(&[(DOT1AD, 1), (DOT1Q, 2), (DOT1Q, 3)], IPV4, &packet);
    let mut short = frames::ethernet(&[(DOT1AD, 1), (DOT1Q, 2)], IPV4, &[]);
    short.truncate(20);
    let arp = frames::ethernet(&[], 0x0806, &[0; 28]);
    vec![
        ("three tags", deep, "vlan_depth", false),
        ("a frame that ends inside its second tag", short, "truncated_vlan", false),
        ("neither IPv4 nor IPv6", arp, "not_ip", true),
    ]
}

fn v4_cases() -> Vec<Case> {
    let options = V4 { options: vec![1; 40], ..V4::default() };
    let first = V4 { more_fragments: true, ..V4::default() };
    let later = V4 { fragment_offset: 64, ..V4::default() };
    let second = V4 { fragment_offset: 1, ..V4::default() };
    let plain = v4(CLIENT_V4, &V4::default(), UDP, &udp());
    let with_options = v4(CLIENT_V4, &options, UDP, &udp());
    let changed = |index: usize, byte: u8| {
        let mut packet = plain.clone();
        packet[index] = byte;
        packet
    };
    vec![
        ("all 40 bytes of options", ether4(&with_options), "no_match", true),
        ("options of a denied source", ether4(&v4(DENIED_V4, &options, UDP, &udp())), "deny_list", false),
        ("a first fragment", ether4(&v4(CLIENT_V4, &first, UDP, &udp())), "no_match", true),
        ("a later fragment", ether4(&v4(CLIENT_V4, &later, UDP, b"payload.")), "fragment", true),
        ("a denied later fragment", ether4(&v4(DENIED_V4, &later, UDP, b"payload.")), "deny_list", false),
        (
            "a first fragment without its header",
            ether4(&v4(CLIENT_V4, &first, TCP, &[0; 8])),
            "tiny_fragment",
            false,
        ),
        (
            "a fragment over a TCP header",
            ether4(&v4(CLIENT_V4, &second, TCP, &[0; 16])),
            "tiny_fragment",
            false,
        ),
        ("a frame that ends inside the header", ether4(&plain[..16]), "truncated_ipv4", false),
        ("a frame that ends inside the options", ether4(&with_options[..40]), "truncated_ipv4", false),
        ("a header of four words", ether4(&changed(0, 0x44)), "bad_ipv4", false),
        ("version 5", ether4(&changed(0, 0x55)), "bad_ipv4", false),
        ("a length shorter than the header", ether4(&changed(3, 19)), "bad_ipv4", false),
    ]
}

fn v6_cases() -> Vec<Case> {
    let udp = udp();
    let chain = |count: usize| {
        (0..count)
            .fold((UDP, udp.clone()), |(next, payload), _| (DESTINATION, frames::extension(next, &payload)))
    };
    let (eight, nine) = (chain(8), chain(9));
    let routed = frames::extension(ROUTING, &frames::extension(UDP, &udp));
    let first = frames::fragment(UDP, 0, true, &udp);
    let later = frames::fragment(UDP, 64, false, b"payload.");
    let bare = frames::fragment(TCP, 0, true, &[0; 8]);
    let over = frames::fragment(TCP, 1, true, &[0; 16]);
    let mut version = v6(CLIENT_V6, UDP, &udp);
    version[0] = 0x40;
    vec![
        ("two kinds of extension headers", ether6(&v6(CLIENT_V6, HOP_BY_HOP, &routed)), "no_match", true),
        ("the same of a denied source", ether6(&v6(DENIED_V6, HOP_BY_HOP, &routed)), "deny_list", false),
        ("eight extension headers", ether6(&v6(CLIENT_V6, eight.0, &eight.1)), "no_match", true),
        ("nine extension headers", ether6(&v6(CLIENT_V6, nine.0, &nine.1)), "extension_depth", false),
        ("a first v6 fragment", ether6(&v6(CLIENT_V6, FRAGMENT, &first)), "no_match", true),
        ("a later v6 fragment", ether6(&v6(CLIENT_V6, FRAGMENT, &later)), "fragment", true),
        ("a denied later v6 fragment", ether6(&v6(DENIED_V6, FRAGMENT, &later)), "deny_list", false),
        (
            "a first v6 fragment without its header",
            ether6(&v6(CLIENT_V6, FRAGMENT, &bare)),
            "tiny_fragment",
            false,
        ),
        ("a v6 fragment over a TCP header", ether6(&v6(CLIENT_V6, FRAGMENT, &over)), "tiny_fragment", false),
        (
            "a frame that ends inside the v6 header",
            ether6(&v6(CLIENT_V6, UDP, &udp)[..30]),
            "truncated_ipv6",
            false,
        ),
        (
            "a frame that ends before an extension",
            ether6(&v6(CLIENT_V6, DESTINATION, &[])),
            "truncated_extension",
            false,
        ),
        ("IPv6 by type, not by version", ether6(&version), "bad_ipv6", false),
    ]
}

fn transport_cases() -> Vec<Case> {
    let syn = frames::syn(9, 9, b"");
    let mut offset = syn.clone();
    offset[12] = 0x40;
    // Padding follows, as every Ethernet card adds: a header must not be read out of it.
    let mut padded = ether4(&v4(CLIENT_V4, &V4::default(), UDP, &udp()[..4]));
    padded.resize(60, 0);
    let tcp = |source, segment: &[u8]| ether4(&v4(source, &V4::default(), TCP, segment));
    vec![
        ("a whole TCP header", tcp(CLIENT_V4, &syn), "no_match", true),
        ("a TCP header cut short", tcp(CLIENT_V4, &syn[..19]), "truncated_transport", false),
        ("a TCP offset of four words", tcp(CLIENT_V4, &offset), "bad_tcp", false),
        ("a UDP header cut short", ether6(&v6(CLIENT_V6, UDP, &udp()[..7])), "truncated_transport", false),
        ("a UDP header that padding completes", padded, "truncated_transport", false),
        (
            "an ICMP header cut short",
            ether4(&v4(CLIENT_V4, &V4::default(), 1, &[8, 0])),
            "truncated_transport",
            false,
        ),
        ("a protocol without ports", ether4(&v4(CLIENT_V4, &V4::default(), 47, &[])), "no_match", true),
    ]
}

fn udp() -> Vec<u8> {
    frames::udp(9, 9, b"eight by")
}

fn sentinel() -> Vec<u8> {
    ether4(&v4(CLIENT_V4, &V4::default(), UDP, &frames::udp(9, 9, b"sentinel")))
}

fn v4(source: IpAddr, extras: &V4, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let family = |address| if let IpAddr::V4(v4) = address { v4 } else { Ipv4Addr::UNSPECIFIED };
    frames::ipv4(family(source), family(GATEWAY_V4), protocol, extras, payload)
}

fn v6(source: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let family = |address| if let IpAddr::V6(v6) = address { v6 } else { Ipv6Addr::UNSPECIFIED };
    frames::ipv6(family(source), family(GATEWAY_V6), next, payload)
}

fn ether4(packet: &[u8]) -> Vec<u8> {
    frames::ethernet(&[], IPV4, packet)
}

fn ether6(packet: &[u8]) -> Vec<u8> {
    frames::ethernet(&[], IPV6, packet)
}

fn reasons(agent: &Agent) -> String {
    agent.cli(&["counters", "--json"]).out
}
