//! Builds frames, right and wrong, for tables.

use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// An Ethernet header with these VLAN tags' EtherTypes in front of `ether_type`, then `payload`.
pub(crate) fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet. `options` in whole words; `fragment` is the field of flags and offset.
pub(crate) fn ipv4(source: &str, protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(((header_len + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(address(source));
    packet.extend([198, 18, 0, 1]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose first header behind the fixed one is `next`.
pub(crate) fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(address(source));
    packet.extend(address("2001:db8::1"));
    packet.extend(payload);
    packet
}

/// Extension headers of these kinds in a row, then the transport header of `last`.
pub(crate) fn extensions(kinds: &[u8], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (at, _) in kinds.iter().enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(last);
        chain.extend([next, 0, 0, 0, 0, 0, 0, 0]);
    }
    chain.extend(payload);
    chain
}

/// An IPv6 fragment header: offset in units of 8 bytes, and whether more come.
pub(crate) fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0, 9]);
    header
}

pub(crate) fn tcp() -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0, 80];
    header.extend([0; 8]);
    header.extend([0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

pub(crate) fn udp() -> Vec<u8> {
    vec![0x9c, 0x40, 0, 53, 0, 8, 0, 0]
}

pub(crate) fn echo() -> Vec<u8> {
    vec![8, 0, 0, 0, 0, 1, 0, 1]
}

fn address(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
