//! The lists and frames that everybody gets: the same in every run.

use std::net::{Ipv4Addr, Ipv6Addr};

use gateway_kernel::{ListEntry, ListKind, NewList};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// A TCP SYN in Ethernet; its source is 0.
    pub(crate) fn frame(self) -> Vec<u8> {
        match self {
            Self::V4 => frame_v4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => frame_v6(),
        }
    }

    /// Random prefixes: half are networks, half as long as one sees them. The networks have odd numbers, and the
    /// programs' sources are from even ones: none is in a network of the list.
    pub(crate) fn random(self, count: usize) -> Vec<IpNet> {
        match self {
            Self::V4 => random_v4(count).map(IpNet::from).collect(),
            Self::V6 => random_v6(count).map(IpNet::from).collect(),
        }
    }

    /// Two prefixes that hold every source which the programs make.
    pub(crate) fn everything(self) -> Vec<IpNet> {
        let halves = match self {
            Self::V4 => ["0.0.0.0/1", "128.0.0.0/1"],
            Self::V6 => ["2000::/4", "3000::/4"],
        };
        halves.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// The rule of all entries.
pub(crate) const RULE: &str = "bench";

/// As the gateway takes them.
pub(crate) fn list(prefixes: &[IpNet]) -> NewList {
    NewList {
        kind: ListKind::Deny,
        name: "bench".to_owned(),
        source: "bench".to_owned(),
        shadow: false,
        labels: vec![RULE.to_owned()],
        entries: prefixes
            .iter()
            .map(|prefix| ListEntry { prefix: *prefix, label: 0, shadow: false })
            .collect(),
    }
}

/// As an LPM trie of one family takes them.
pub(crate) fn lpm_keys(prefixes: &[IpNet]) -> Vec<u8> {
    let mut keys = Vec::with_capacity(prefixes.len() * 20);
    for prefix in prefixes {
        keys.extend(u32::from(prefix.prefix_len()).to_ne_bytes());
        match prefix {
            IpNet::V4(prefix) => keys.extend(prefix.network().octets()),
            IpNet::V6(prefix) => keys.extend(prefix.network().octets()),
        }
    }
    keys
}

/// As [`Family::random`], but each prefix once.
pub(crate) fn shuffled_v4(count: usize) -> Vec<Ipv4Net> {
    let mut prefixes: Vec<Ipv4Net> = random_v4(count).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut random = Random(13);
    for end in (1..prefixes.len()).rev() {
        prefixes.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
    prefixes
}

/// Half /24 of odd number, half /32.
fn random_v4(count: usize) -> impl Iterator<Item = Ipv4Net> {
    let mut random = Random(7);
    (0..count).filter_map(move |number| {
        let (length, odd) = if number % 2 == 0 { (24, 0x100) } else { (32, 0) };
        Some(Ipv4Net::new(Ipv4Addr::from(random.next() as u32 | odd), length).ok()?.trunc())
    })
}

/// Half /48 of odd number, half /64, in 2000::/3.
fn random_v6(count: usize) -> impl Iterator<Item = Ipv6Net> {
    let mut random = Random(11);
    (0..count).filter_map(move |number| {
        let (length, odd) = if number % 2 == 0 { (48, 0x1_0000) } else { (64, 0) };
        let high = random.next() & 0x1fff_ffff_ffff_ffff | 0x2000_0000_0000_0000 | odd;
        Some(Ipv6Net::new(Ipv6Addr::from(u128::from(high) << 64), length).ok()?.trunc())
    })
}

/// A network cut into exactly `count` prefixes of its last two lengths, evenly mixed: every address of it is
/// in one, and in one only.
pub(crate) fn cover(network: Ipv4Net, count: u32) -> Vec<Ipv4Net> {
    let first = u32::from(network.network());
    let pairs = (u32::from(network.hostmask()) / 2) + 1;
    let split = count.clamp(pairs, pairs * 2) - pairs;
    let mut prefixes = Vec::with_capacity(count as usize);
    for pair in 0..pairs {
        let address = first + pair * 2;
        // Every so many-th pair stands as two single addresses.
        let is_split = u64::from(pair + 1) * u64::from(split) / u64::from(pairs)
            > u64::from(pair) * u64::from(split) / u64::from(pairs);
        let parts: &[(u32, u8)] = if is_split { &[(0, 32), (1, 32)] } else { &[(0, 31)] };
        let part =
            |(offset, length): &(u32, u8)| Ipv4Net::new(Ipv4Addr::from(address + offset), *length).ok();
        prefixes.extend(parts.iter().filter_map(part));
    }
    prefixes
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A TCP SYN of 60 bytes in Ethernet.
pub(crate) fn frame_v4(source: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[17] = 46;
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&source.octets());
    frame[46] = 0x50;
    frame
}

fn frame_v6() -> Vec<u8> {
    let mut frame = vec![0; 74];
    (frame[12], frame[13]) = (0x86, 0xdd);
    frame[14] = 0x60;
    frame[19] = 20;
    frame[20] = 6;
    frame[66] = 0x50;
    frame
}
