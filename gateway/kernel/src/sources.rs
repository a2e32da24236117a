//! Recently seen sources: whose packets passed within the last minutes, and how densely the programs look.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use gateway_common::verdict::Verdict;

use crate::error::Error;
use crate::rules::Rules;

/// Packets a second whose sources are noted: enough to see a source of one packet in a hundred within a
/// minute almost surely, and a write a millisecond however fast packets come.
const NOTED_PER_SECOND: u64 = 1000;
/// At most one packet in a million is noted, whatever the rate says.
const MAX_MASK: u32 = (1 << 20) - 1;
/// What stays when the agent ends and nobody adapts any more: one in 16 is dense enough for a trickle, and
/// costs a flood little.
const RESTING_MASK: u32 = 15;

impl Rules {
    /// Sources whose packets passed (or that were admitted at accept) within this time, each once, in the
    /// order of addresses. A sample: the programs note about a thousand packets a second, in a table of 8192
    /// rows where a source may take another's place.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn recent_sources(&self, within: Duration) -> Result<Vec<IpAddr>, Error> {
        let now = self.store().now_ns() / 1_000_000_000;
        let oldest = u32::try_from(now.saturating_sub(within.as_secs())).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        self.store().for_each_source(&mut |slot, row| {
            // A row never written has no family, so that a machine just booted does not show it.
            if row.seconds >= oldest
                && let Some(address) = row.stands_in(slot)
            {
                found.push(IpAddr::from(address));
            }
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Notes the source of a packet that passes only when none of the mask's bits are set in its counter.
    /// For benchmarks and for [`SourceSampling`]; nothing changes where the rules run at accept.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn sample_sources(&self, mask: u32) -> Result<(), Error> {
        self.store().set_source_sampling(mask)
    }

    /// Packets that passed since the counters began, over all interfaces.
    fn passed(&self) -> Result<u64, Error> {
        let counted = self.store().counters()?;
        let reasons = counted.iter().flat_map(|interface| &interface.reasons);
        let passed = reasons.filter(|(reason, _)| reason.verdict() == Verdict::Pass);
        Ok(passed.map(|(_, counter)| counter.packets).sum())
    }
}

/// Keeps the number of noted sources near a thousand a second, at any rate of packets: the agent calls
/// [`SourceSampling::adapt`] once a second. When dropped it leaves the programs at rest.
#[derive(Debug)]
pub struct SourceSampling {
    rules: Rules,
    seen: Option<(Instant, u64)>,
    mask: u32,
}

impl SourceSampling {
    /// Begins with every packet; the first two calls of `adapt` measure the rate.
    #[must_use]
    pub const fn new(rules: Rules) -> Self {
        Self { rules, seen: None, mask: 0 }
    }

    /// Measures the rate of packets that pass since the last call, and sets the mask for the next second.
    ///
    /// # Errors
    /// What the kernel refused; the mask stays as it was.
    pub fn adapt(&mut self) -> Result<(), Error> {
        let (now, passed) = (Instant::now(), self.rules.passed()?);
        if let Some((then, before)) = self.seen.replace((now, passed)) {
            self.mask = mask_for(passed.saturating_sub(before), now.duration_since(then));
        }
        self.rules.sample_sources(self.mask)
    }
}

impl Drop for SourceSampling {
    fn drop(&mut self) {
        if let Err(error) = self.rules.sample_sources(self.mask.max(RESTING_MASK)) {
            tracing::warn!("the sampling of sources stays as dense as it was: {error}");
        }
    }
}

/// The mask that lets about [`NOTED_PER_SECOND`] of so many packets through.
fn mask_for(packets: u64, elapsed: Duration) -> u32 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = packets.saturating_mul(1000) / millis;
    let one_in = rate.div_ceil(NOTED_PER_SECOND).max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
    u32::try_from(one_in - 1).unwrap_or(MAX_MASK).min(MAX_MASK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mask_follows_the_rate() {
        let second = Duration::from_secs(1);
        let table = [
            ("nothing", 0, second, 0),
            ("a trickle", 1000, second, 0),
            ("twice as much", 1001, second, 1),
            ("a line at 10 Gbit/s", 14_880_952, second, 16_383),
            ("two seconds", 4000, Duration::from_secs(2), 1),
            ("half a second", 4000, Duration::from_millis(500), 7),
            ("no time", 10, Duration::ZERO, 15),
            ("more than there is", u64::MAX, Duration::ZERO, MAX_MASK),
        ];
        for (name, packets, elapsed, mask) in table {
            assert_eq!(mask_for(packets, elapsed), mask, "{name}");
        }
    }

    #[test]
    fn who_was_admitted_is_seen_and_who_was_not_is_not() {
        let rules = Rules::in_userspace().unwrap();
        let denied = crate::NewEntry {
            prefix: "192.0.2.66/32".parse().unwrap(),
            rule: "x".to_owned(),
            ttl: None,
            shadow: false,
        };
        rules.add(crate::ListKind::Deny, &[denied], &mut |_| {}).unwrap();
        let local = "198.18.0.1:80".parse().unwrap();
        for peer in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.66:1", "[2001:db8::1]:1", "[::ffff:192.0.2.9]:1"]
        {
            rules.admits(peer.parse().unwrap(), local);
        }
        let seen: Vec<String> =
            rules.recent_sources(Duration::from_secs(60)).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["192.0.2.1", "192.0.2.9", "2001:db8::1"]);
    }

    proptest! {
        #[test]
        fn never_much_more_than_wanted_and_never_much_less(rate in 0..1_000_000_000_u64) {
            let mask = u64::from(mask_for(rate, Duration::from_secs(1)));
            prop_assert!((mask + 1).is_power_of_two());
            let noted = rate / (mask + 1);
            prop_assert!(noted <= NOTED_PER_SECOND, "{noted}");
            prop_assert!(mask == 0 || noted >= NOTED_PER_SECOND / 2 - 1, "{noted}");
        }
    }
}
