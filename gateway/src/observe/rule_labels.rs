//! Which rules have a series of their own in metrics, where there are more rules than a monitoring system
//! should have to keep series for.
//!
//! The rules with the most hits are shown, and the rest is summed, a list at a time, under [`OTHER`]. Once
//! shown, a rule keeps its series for as long as it is there and has room: a series that comes and goes is
//! worth less than one that is there. Only a rule without a single hit gives its place up, for it has said
//! nothing yet. The sum only grows, as a counter must: a rule that gets a series of its own later leaves what
//! it was counted for in the sum, because a sum that shrinks would read as a restart, and its whole value as
//! new packets.

use std::collections::{BTreeMap, HashMap, HashSet};

use gateway_kernel::RuleCount;

/// The label of the sum. A rule of this very name is always part of it, or its series would stand twice.
const OTHER: &str = "other";

/// A list's name and a label: what a series is named by.
type Key = (String, String);

/// Remembers from scrape to scrape which rules are shown.
#[derive(Debug)]
pub struct RuleLabels {
    max: usize,
    shown: HashSet<Key>,
    /// Hits of every rule that is not shown, as of the last scrape.
    hidden: HashMap<Key, u64>,
    /// By the list's name.
    other: BTreeMap<String, u64>,
}

/// What one scrape shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ShownRules {
    /// Label, list and hits of each series.
    pub series: Vec<(String, String, u64)>,
    /// Rules without a series of their own.
    pub left_out: usize,
}

impl RuleLabels {
    /// At most `max` rules get a series; the sums come on top.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, shown: HashSet::new(), hidden: HashMap::new(), other: BTreeMap::new() }
    }

    /// Changes the limit from the next scrape on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Chooses what this scrape shows; `rules` are all there are, with what they counted so far.
    pub fn choose(&mut self, rules: &[RuleCount]) -> ShownRules {
        let shown = self.pick(rules);
        let mut chosen = ShownRules::default();
        let mut hidden = HashMap::new();
        for rule in rules {
            let (key, hits) = (key(rule), rule.count.packets);
            if shown.contains(&key) {
                chosen.series.push((key.1, key.0, hits));
                continue;
            }
            // What it counted under its own name is not counted again.
            let before =
                if self.shown.contains(&key) { hits } else { self.hidden.get(&key).copied().unwrap_or(0) };
            // A label that was given up and taken again counts anew.
            let more = hits.checked_sub(before).unwrap_or(hits);
            *self.other.entry(rule.from.clone()).or_default() += more;
            chosen.left_out += usize::from(rule.rule != OTHER);
            hidden.insert(key, hits);
        }
        chosen.series.extend(self.other.iter().map(|(list, hits)| (OTHER.to_owned(), list.clone(), *hits)));
        (self.shown, self.hidden) = (shown, hidden);
        chosen
    }

    /// First those that are shown and have hits, then whoever has most hits, then whoever is shown.
    fn pick(&self, rules: &[RuleCount]) -> HashSet<Key> {
        let mut ranked: Vec<(bool, u64, bool, Key)> = rules
            .iter()
            .filter(|rule| rule.rule != OTHER)
            .map(|rule| {
                let (key, hits) = (key(rule), rule.count.packets);
                let is_shown = self.shown.contains(&key);
                (is_shown && hits > 0, hits, is_shown, key)
            })
            .collect();
        // Of equals the first by list and name, so that the choice does not depend on the order they came in.
        let rank = |(stays, hits, shown, _): &(bool, u64, bool, Key)| (*stays, *hits, *shown);
        ranked.sort_unstable_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.3.cmp(&b.3)));
        ranked.into_iter().take(self.max).map(|(.., key)| key).collect()
    }
}

fn key(rule: &RuleCount) -> Key {
    (rule.from.clone(), rule.rule.clone())
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{Count, ListKind};
    use proptest::prelude::*;

    use super::*;

    fn rules(hits: &[(&str, u64)]) -> Vec<RuleCount> {
        let rule = |(label, packets): &(&str, u64)| {
            let list = if label.starts_with("ban") { ListKind::Ban } else { ListKind::Deny };
            RuleCount {
                rule: (*label).to_owned(),
                list,
                from: list.name().to_owned(),
                count: Count { packets: *packets, bytes: 0 },
            }
        };
        hits.iter().map(rule).collect()
    }

    /// `label=hits` of each series, sorted, then how many rules are left out.
    fn told(chosen: &ShownRules) -> String {
        let mut series: Vec<String> =
            chosen.series.iter().map(|(label, list, hits)| format!("{list}/{label}={hits}")).collect();
        series.sort();
        format!("{} +{}", series.join(" "), chosen.left_out)
    }

    #[test]
    fn scrape_after_scrape() {
        type Scrapes = &'static [(&'static [(&'static str, u64)], &'static str)];
        let table: &[(&str, Scrapes)] = &[
            ("room for all", &[(&[("a", 1), ("b", 0)], "deny/a=1 deny/b=0 +0")]),
            (
                "the busiest are shown",
                &[(&[("a", 1), ("b", 5), ("c", 3)], "deny/b=5 deny/c=3 deny/other=1 +1")],
            ),
            (
                "a list at a time",
                &[(
                    &[("a", 9), ("b", 8), ("c", 3), ("ban1", 1), ("ban2", 1)],
                    "ban/other=2 deny/a=9 deny/b=8 deny/other=3 +3",
                )],
            ),
            (
                "who is shown stays, however busy others are",
                &[
                    (&[("a", 1), ("b", 2)], "deny/a=1 deny/b=2 +0"),
                    (&[("a", 1), ("b", 2), ("c", 900)], "deny/a=1 deny/b=2 deny/other=900 +1"),
                ],
            ),
            (
                "but not without a single hit",
                &[
                    (&[("a", 0), ("b", 2)], "deny/a=0 deny/b=2 +0"),
                    (&[("a", 0), ("b", 2), ("c", 0)], "deny/a=0 deny/b=2 deny/other=0 +1"),
                    (&[("a", 0), ("b", 2), ("c", 7)], "deny/b=2 deny/c=7 deny/other=0 +1"),
                ],
            ),
            (
                "room again: the sum keeps what it had",
                &[
                    (&[("a", 5), ("b", 4), ("c", 3)], "deny/a=5 deny/b=4 deny/other=3 +1"),
                    (&[("b", 4), ("c", 6)], "deny/b=4 deny/c=6 deny/other=3 +0"),
                    (&[("b", 4), ("c", 8)], "deny/b=4 deny/c=8 deny/other=3 +0"),
                ],
            ),
            (
                "a label taken again counts anew",
                &[
                    (&[("a", 50), ("b", 40), ("c", 30)], "deny/a=50 deny/b=40 deny/other=30 +1"),
                    (&[("a", 50), ("b", 40), ("c", 2)], "deny/a=50 deny/b=40 deny/other=32 +1"),
                    (&[("a", 50), ("b", 40)], "deny/a=50 deny/b=40 deny/other=32 +0"),
                    (&[("a", 50), ("b", 40), ("c", 4)], "deny/a=50 deny/b=40 deny/other=36 +1"),
                ],
            ),
            (
                "a rule called other",
                &[
                    (&[("a", 1), ("other", 900)], "deny/a=1 deny/other=900 +0"),
                    (&[("a", 1), ("b", 2), ("c", 3), ("other", 901)], "deny/a=1 deny/c=3 deny/other=903 +1"),
                ],
            ),
        ];
        for (name, scrapes) in table {
            let mut labels = RuleLabels::new(2);
            for (step, (hits, expected)) in scrapes.iter().enumerate() {
                assert_eq!(told(&labels.choose(&rules(hits))), *expected, "{name}, scrape {step}");
            }
        }
    }

    #[test]
    fn a_lower_limit_counts_nothing_twice() {
        let mut labels = RuleLabels::new(3);
        let hits = [("a", 5), ("b", 4), ("c", 3)];
        assert_eq!(told(&labels.choose(&rules(&hits))), "deny/a=5 deny/b=4 deny/c=3 +0");
        labels.set_max(1);
        assert_eq!(told(&labels.choose(&rules(&hits))), "deny/a=5 deny/other=0 +2");
        assert_eq!(told(&labels.choose(&rules(&[("a", 5), ("b", 6), ("c", 3)]))), "deny/a=5 deny/other=2 +2");
    }

    proptest! {
        /// Rules come, go and grow: the limit holds, nothing is told twice, and the sums only grow.
        #[test]
        fn the_limit_holds_and_sums_only_grow(
            max in 1..6_usize,
            scrapes in proptest::collection::vec(proptest::collection::vec(proptest::option::weighted(0.8, 0..5_u64), 10), 1..12),
        ) {
            let mut labels = RuleLabels::new(max);
            let mut hits = [0_u64; 10];
            let (mut sums, mut shown): (HashMap<String, u64>, HashSet<String>) = Default::default();
            for scrape in scrapes {
                let mut there = Vec::new();
                for (number, more) in scrape.iter().enumerate() {
                    if let Some(more) = more {
                        hits[number] += more;
                        let label = if number % 2 == 0 { format!("ban{number}") } else { format!("deny{number}") };
                        there.push((label, hits[number]));
                    }
                }
                let borrowed: Vec<(&str, u64)> = there.iter().map(|(label, hits)| (label.as_str(), *hits)).collect();
                let chosen = labels.choose(&rules(&borrowed));
                let (others, own): (Vec<_>, Vec<_>) = chosen.series.iter().partition(|(label, ..)| label == OTHER);
                prop_assert!(own.len() <= max);
                prop_assert_eq!(own.len() + chosen.left_out, there.len());
                for (_, list, sum) in others {
                    let before = sums.insert(list.clone(), *sum).unwrap_or(0);
                    prop_assert!(*sum >= before, "{} fell from {} to {}", list, before, sum);
                }
                let now: HashSet<String> = own.iter().map(|(label, ..)| label.clone()).collect();
                for (label, hits) in &there {
                    let gone = shown.contains(label) && !now.contains(label);
                    prop_assert!(!gone || *hits == 0, "{} was shown and has hits", label);
                }
                shown = now;
            }
        }
    }
}
