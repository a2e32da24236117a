//! What sets of prefixes are equal to: a range as the fewest prefixes, and prefixes without those that
//! others cover.
//!
//! `ipnet` has both, but its `aggregate` builds several lists beside the one given, and lists of countries
//! have hundreds of thousands of prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

/// Makes a list of prefixes the shortest one that covers the same addresses, IPv4 before IPv6, in ascending
/// order. Host bits are dropped.
pub fn aggregate(prefixes: &mut Vec<IpNet>) {
    for prefix in prefixes.iter_mut() {
        *prefix = prefix.trunc();
    }
    // By address, and of one address the larger prefix first: what covers a prefix stands before it.
    prefixes.sort_unstable();
    let mut kept = 0;
    for index in 0..prefixes.len() {
        let mut prefix = prefixes[index];
        if kept > 0 && prefixes[kept - 1].contains(&prefix) {
            continue;
        }
        // What was merged may be the sibling of what stands before it.
        while kept > 0
            && let Some(parent) = merged(prefixes[kept - 1], prefix)
        {
            prefix = parent;
            kept -= 1;
        }
        prefixes[kept] = prefix;
        kept += 1;
    }
    prefixes.truncate(kept);
}

/// The parent of two halves.
fn merged(left: IpNet, right: IpNet) -> Option<IpNet> {
    let parent = right.supernet()?;
    (left.supernet() == Some(parent)).then_some(parent)
}

/// Consecutive addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    first: u128,
    last: u128,
    is_v4: bool,
}

/// Why two addresses are not the ends of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSpan {
    /// One is IPv4, the other IPv6.
    #[error("a range has two addresses of one family")]
    Families,
    /// The first is behind the last.
    #[error("the range ends before it begins")]
    Backwards,
}

impl Span {
    /// The addresses from the first to the last, both included.
    ///
    /// # Errors
    /// If they are of two families, or the wrong way round.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, BadSpan> {
        let (is_v4, first, last) = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (true, first.to_bits().into(), last.to_bits().into()),
            (IpAddr::V6(first), IpAddr::V6(last)) => (false, first.to_bits(), last.to_bits()),
            _ => return Err(BadSpan::Families),
        };
        if first > last { Err(BadSpan::Backwards) } else { Ok(Span { first, last, is_v4 }) }
    }

    /// The fewest prefixes that cover these addresses and no others, in ascending order; at most 62 for
    /// IPv4 and 254 for IPv6.
    pub fn prefixes(self) -> impl Iterator<Item = IpNet> {
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let first = next?;
            let (prefix, end) = self.largest_at(first);
            next = end.checked_add(1).filter(|&after| after <= self.last);
            Some(prefix)
        })
    }

    /// The largest prefix that begins at an address and does not reach beyond the last, and its own last
    /// address.
    fn largest_at(self, first: u128) -> (IpNet, u128) {
        let width: u32 = if self.is_v4 { 32 } else { 128 };
        let aligned = first.trailing_zeros().min(width);
        // One more than the span's length would overflow for all of IPv6.
        let room = self.last - first;
        let fitting = if room == u128::MAX { 128 } else { (room + 1).ilog2() };
        let free = aligned.min(fitting);
        let end = first | u128::MAX.checked_shr(128 - free).unwrap_or(0);
        // Neither narrowing loses anything: an IPv4 span has 32 bits, and a length is at most 128.
        let address = if self.is_v4 { IpAddr::V4((first as u32).into()) } else { IpAddr::V6(first.into()) };
        (IpNet::new_assert(address, (width - free) as u8), end)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn span(first: &str, last: &str) -> Result<Span, BadSpan> {
        Span::new(first.parse().unwrap(), last.parse().unwrap())
    }

    #[test]
    fn ranges_are_prefixes() {
        let table = [
            ("one", "192.0.2.1", "192.0.2.1", "192.0.2.1/32"),
            ("two", "192.0.2.0", "192.0.2.1", "192.0.2.0/31"),
            ("unaligned", "192.0.2.1", "192.0.2.2", "192.0.2.1/32 192.0.2.2/32"),
            (
                "some",
                "198.51.100.1",
                "198.51.100.9",
                "198.51.100.1/32 198.51.100.2/31 198.51.100.4/30 198.51.100.8/31",
            ),
            ("all of IPv4", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("all of IPv6", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            ("the last", "255.255.255.254", "255.255.255.255", "255.255.255.254/31"),
            ("the first of IPv6", "::", "::2", "::/127 ::2/128"),
        ];
        for (name, first, last, expected) in table {
            let prefixes: Vec<_> =
                span(first, last).expect(name).prefixes().map(|prefix| prefix.to_string()).collect();
            assert_eq!(prefixes.join(" "), expected, "{name}");
        }
        assert_eq!(span("192.0.2.1", "::1"), Err(BadSpan::Families));
        assert_eq!(span("::2", "::1"), Err(BadSpan::Backwards));
        let worst = |first, last| span(first, last).expect("a range").prefixes().count();
        assert_eq!(worst("0.0.0.1", "255.255.255.254"), 62);
        assert_eq!(worst("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"), 254);
    }

    #[test]
    fn lists_are_made_shorter() {
        let table = [
            ("nothing", "", ""),
            ("siblings", "192.0.3.0/24 192.0.2.0/24", "192.0.2.0/23"),
            ("neighbours", "192.0.1.0/24 192.0.2.0/24", "192.0.1.0/24 192.0.2.0/24"),
            ("covered", "192.0.2.7/32 192.0.2.0/24 192.0.2.0/24", "192.0.2.0/24"),
            ("step by step", "192.0.2.0/25 192.0.2.128/26 192.0.2.192/26 192.0.3.0/24", "192.0.2.0/23"),
            ("everything", "0.0.0.0/1 128.0.0.0/1 ::/1 8000::/1", "0.0.0.0/0 ::/0"),
            ("host bits", "192.0.2.9/24", "192.0.2.0/24"),
            ("families", "::/128 0.0.0.0/32 ::1/128 0.0.0.1/32", "0.0.0.0/31 ::/127"),
        ];
        for (name, before, expected) in table {
            let mut prefixes: Vec<IpNet> =
                before.split_whitespace().map(|text| text.parse().expect(name)).collect();
            aggregate(&mut prefixes);
            let after: Vec<_> = prefixes.iter().map(IpNet::to_string).collect();
            assert_eq!(after.join(" "), expected, "{name}");
        }
    }

    /// The width of the model: addresses of so many bits, at both ends of each family, are few enough to be
    /// asked one by one.
    const BITS: u8 = 6;

    fn v4(low: u32, at_the_end: bool) -> IpAddr {
        let high = if at_the_end { u32::MAX << BITS } else { 0 };
        IpAddr::V4(Ipv4Addr::from_bits(high | low))
    }

    fn v6(low: u32, at_the_end: bool) -> IpAddr {
        let high = if at_the_end { u128::MAX << BITS } else { 0 };
        IpAddr::V6(Ipv6Addr::from_bits(high | u128::from(low)))
    }

    fn corners() -> impl Iterator<Item = IpAddr> {
        (0..1 << BITS).flat_map(|low| [v4(low, false), v4(low, true), v6(low, false), v6(low, true)])
    }

    fn any_corner() -> impl Strategy<Value = IpNet> {
        (0..1u32 << BITS, any::<bool>(), any::<bool>(), 0..=BITS).prop_map(|(low, is_v4, end, free)| {
            let (address, width) = if is_v4 { (v4(low, end), 32) } else { (v6(low, end), 128) };
            IpNet::new_assert(address, width - free).trunc()
        })
    }

    proptest! {
        #[test]
        fn aggregation_changes_no_address(before in proptest::collection::vec(any_corner(), 0..40)) {
            let mut after = before.clone();
            aggregate(&mut after);
            for address in corners() {
                let is_in = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.contains(&address));
                prop_assert_eq!(is_in(&before), is_in(&after), "{}", address);
            }
            // Nothing of it can be left out or put together.
            for (index, one) in after.iter().enumerate() {
                for other in &after[index + 1..] {
                    prop_assert!(one < other && !one.contains(other) && merged(*one, *other).is_none());
                }
            }
            prop_assert_eq!(after, IpNet::aggregate(&before));
        }

        #[test]
        fn a_range_is_covered_exactly(a in 0..1u32 << BITS, b in 0..1u32 << BITS, is_v4: bool, end: bool) {
            let at = |low| if is_v4 { v4(low, end) } else { v6(low, end) };
            let (first, last) = (at(a.min(b)), at(a.max(b)));
            let prefixes: Vec<_> = Span::new(first, last).expect("a range").prefixes().collect();
            for address in corners().filter(|address| address.is_ipv4() == is_v4) {
                let times = prefixes.iter().filter(|prefix| prefix.contains(&address)).count();
                prop_assert_eq!(times, usize::from(first <= address && address <= last), "{}", address);
            }
            let mut fewest = prefixes.clone();
            aggregate(&mut fewest);
            prop_assert_eq!(prefixes, fewest);
        }

        #[test]
        fn wide_ranges_are_what_others_say(a: u128, b: u128) {
            let (first, last) = (a.min(b), a.max(b));
            let ours: Vec<_> = Span::new(Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into())
                .expect("a range").prefixes().collect();
            let theirs: Vec<_> = ipnet::Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6).collect();
            prop_assert_eq!(ours, theirs);
            let (first, last) = (a as u32, (a >> 32) as u32);
            let (first, last) = (first.min(last), first.max(last));
            let ours: Vec<_> = Span::new(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into())
                .expect("a range").prefixes().collect();
            let theirs: Vec<_> = ipnet::Ipv4Subnets::new(first.into(), last.into(), 0).map(IpNet::V4).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
