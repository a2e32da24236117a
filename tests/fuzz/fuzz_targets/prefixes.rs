//! Any prefixes and any two addresses: what the algebra makes of them is what `ipnet` makes of them, and
//! nothing of it can be put together any more.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_kernel::feed::prefixes::{Span, aggregate};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut before = Vec::new();
    let mut spans = Vec::new();
    for chunk in bytes.as_chunks::<18>().0 {
        let [kind, length, address @ ..] = *chunk;
        let bits = u128::from_be_bytes(address);
        match kind % 4 {
            0 => before.push(IpNet::new_assert(Ipv4Addr::from_bits(bits as u32).into(), length % 33)),
            1 => before.push(IpNet::new_assert(Ipv6Addr::from_bits(bits).into(), length % 129)),
            2 => spans.push((true, bits & u128::from(u32::MAX), bits >> 96)),
            // Ranges at the end, where numbers overflow, as well as from the beginning.
            _ if length % 2 == 0 => spans.push((false, bits, u128::MAX - (u128::from(length) >> 1))),
            _ => spans.push((false, bits >> (length >> 1).min(127), bits)),
        }
    }
    let mut after = before.clone();
    aggregate(&mut after);
    for prefix in &mut before {
        *prefix = prefix.trunc();
    }
    assert_eq!(after, IpNet::aggregate(&before));
    for (is_v4, a, b) in spans {
        check_span(is_v4, a.min(b), a.max(b));
    }
});

fn check_span(is_v4: bool, first: u128, last: u128) {
    let address = |bits: u128| -> IpAddr {
        if is_v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
    };
    let ours: Vec<_> = Span::new(address(first), address(last)).expect("in order").prefixes().collect();
    let theirs: Vec<IpNet> = match (address(first), address(last)) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
        _ => unreachable!(),
    };
    assert_eq!(ours, theirs);
    let mut fewest = ours.clone();
    aggregate(&mut fewest);
    assert_eq!(ours, fewest);
}
