//! `gateway watch --rate`: packets and bytes a second, from the counters. Needs no agent where the rules are
//! in the kernel, and misses nothing, for counting is not sampled.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway_kernel::{Count, Counters};
use serde::Serialize;

use super::Global;
use super::backend::Backend;
use super::failure::Outcome;
use super::output::{Column, Out, clean};
use super::watch::clock;
use crate::control::Filter;

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(1);

/// What happened in one second. Rows of nothing are left out.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rates {
    /// Milliseconds since the Unix epoch.
    time_ms: u64,
    reasons: Vec<ReasonRate>,
    rules: Vec<RuleRate>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ReasonRate {
    interface: String,
    verdict: String,
    reason: String,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct RuleRate {
    rule: String,
    list: String,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Rate {
    packets_per_second: u64,
    bytes_per_second: u64,
}

const COLUMNS: [Column; 7] = [
    Column::words("TIME"),
    Column::words("BY"),
    Column::words("WHERE"),
    Column::words("VERDICT"),
    Column::words("NAME"),
    Column::number("PACKETS/S"),
    Column::number("BYTES/S"),
];

/// Prints until its reader goes away or the counters cannot be read any more.
pub(super) fn run(filter: &Filter, json: bool, global: &Global, out: &mut Out) -> Outcome {
    let backend = Backend::open(global)?;
    let mut before = (Instant::now(), backend.counters()?);
    let mut next = before.0 + EVERY;
    loop {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let after = (Instant::now(), backend.counters()?);
        // After a pause of the machine there is nothing to catch up with.
        next = (next + EVERY).max(after.0);
        let rates = Rates::between(&before.1, &after.1, after.0.duration_since(before.0), filter);
        if json {
            out.json_line(&rates)?
        } else {
            print(&rates, out)?
        }
        // It is read as it happens.
        out.flush()?;
        before = after;
    }
}

impl Rates {
    fn between(before: &Counters, after: &Counters, elapsed: Duration, filter: &Filter) -> Self {
        let was = |count: Option<Count>| count.unwrap_or_default();
        let reasons =
            after.reasons.iter().filter(|row| filter.counts_reason(&row.reason)).filter_map(|row| {
                let same = |other: &&gateway_kernel::ReasonCount| {
                    (&other.interface, &other.reason) == (&row.interface, &row.reason)
                };
                let rate =
                    rate(was(before.reasons.iter().find(same).map(|row| row.count)), row.count, elapsed)?;
                let (interface, verdict) = (row.interface.clone(), row.verdict.clone());
                Some(ReasonRate { interface, verdict, reason: row.reason.clone(), rate })
            });
        let former: std::collections::HashMap<_, _> =
            before.rules.iter().map(|row| ((&row.from, &row.rule), row.count)).collect();
        let rules = after.rules.iter().filter(|row| filter.counts_rule(&row.rule)).filter_map(|row| {
            let rate = rate(was(former.get(&(&row.from, &row.rule)).copied()), row.count, elapsed)?;
            Some(RuleRate { rule: row.rule.clone(), list: row.from.clone(), rate })
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            reasons: reasons.collect(),
            rules: rules.collect(),
        }
    }
}

/// The rate between two readings; `None` if nothing came. Counters that began anew in between, because their
/// row is another's now, count from 0.
fn rate(before: Count, after: Count, elapsed: Duration) -> Option<Rate> {
    let began_anew = after.packets < before.packets || after.bytes < before.bytes;
    let before = if began_anew { Count::default() } else { before };
    let packets = after.packets - before.packets;
    let micros = elapsed.as_micros().max(1);
    let per_second = |count: u64| {
        let rounded = (u128::from(count) * 1_000_000 + micros / 2) / micros;
        u64::try_from(rounded).unwrap_or(u64::MAX)
    };
    (packets > 0).then(|| Rate {
        packets_per_second: per_second(packets),
        bytes_per_second: per_second(after.bytes - before.bytes),
    })
}

fn print(rates: &Rates, out: &mut Out) -> Outcome {
    let time = clock(rates.time_ms);
    let row = |words: [&str; 4], rate: Rate| -> Vec<String> {
        let numbers = [rate.packets_per_second.to_string(), rate.bytes_per_second.to_string()];
        std::iter::once(time.clone()).chain(words.into_iter().map(clean)).chain(numbers).collect()
    };
    let reasons =
        rates.reasons.iter().map(|of| row(["reason", &of.interface, &of.verdict, &of.reason], of.rate));
    let rules = rates.rules.iter().map(|of| row(["rule", &of.list, "-", &of.rule], of.rate));
    let rows: Vec<Vec<String>> = reasons.chain(rules).collect();
    if rows.is_empty() && out.terminal {
        return Ok(out.line(format!("{time}  nothing"))?);
    }
    Ok(out.table(&COLUMNS, &rows)?)
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListKind, ReasonCount, RuleCount};

    use super::super::output::testing::printed;
    use super::*;

    fn counters(reasons: &[(&str, &str, u64)], rules: &[(&str, u64)]) -> Counters {
        let count = |packets| Count { packets, bytes: packets * 60 };
        Counters {
            reasons: reasons
                .iter()
                .map(|(interface, reason, packets)| ReasonCount {
                    interface: (*interface).to_owned(),
                    verdict: if *reason == "no_match" { "pass" } else { "drop" }.to_owned(),
                    reason: (*reason).to_owned(),
                    count: count(*packets),
                })
                .collect(),
            rules: rules
                .iter()
                .map(|(rule, packets)| RuleCount {
                    rule: (*rule).to_owned(),
                    list: ListKind::Deny,
                    from: "deny".to_owned(),
                    count: count(*packets),
                })
                .collect(),
            events_lost: 0,
        }
    }

    #[test]
    fn what_came_in_between_by_the_second() {
        let before =
            counters(&[("eth0", "no_match", 100), ("eth0", "deny_list", 7)], &[("spam", 7), ("gone", 9)]);
        let after = counters(
            &[
                ("eth0", "no_match", 350),
                ("eth0", "deny_list", 7),
                ("eth1", "deny_list", 3),
                ("eth1", "bad_tcp", 1),
            ],
            &[("spam", 7), ("gone", 4), ("new", 3)],
        );
        let table = [
            (
                "everything",
                "",
                1000,
                "reason eth0 pass no_match 250 15000, reason eth1 drop deny_list 3 180, reason eth1 drop bad_tcp 1 60, \
                 rule deny - gone 4 240, rule deny - new 3 180",
            ),
            ("a reason", "reason=deny_list", 1000, "reason eth1 drop deny_list 3 180"),
            ("a rule", "rule=new", 1000, "rule deny - new 3 180"),
            ("both", "rule=new&reason=bad_tcp", 1000, "reason eth1 drop bad_tcp 1 60, rule deny - new 3 180"),
            ("two seconds", "reason=no_match", 2000, "reason eth0 pass no_match 125 7500"),
            ("nothing", "rule=spam", 1000, ""),
        ];
        for (name, query, millis, expected) in table {
            let filter = Filter::from_query(query).expect("a filter");
            let rates = Rates::between(&before, &after, Duration::from_millis(millis), &filter);
            let text = printed(false, |out| print(&rates, out));
            let rows: Vec<String> =
                text.lines().map(|line| line.split('\t').skip(1).collect::<Vec<_>>().join(" ")).collect();
            assert_eq!(rows.join(", "), expected, "{name}");
        }
    }

    #[test]
    fn both_readers_get_their_form() {
        let rate = Rate { packets_per_second: 12, bytes_per_second: 720 };
        let rates = Rates {
            time_ms: 86_400_000 + 3_723_004,
            reasons: vec![ReasonRate {
                interface: "eth0".to_owned(),
                verdict: "drop".to_owned(),
                reason: "deny_list".to_owned(),
                rate,
            }],
            rules: vec![RuleRate { rule: "spam".to_owned(), list: "deny".to_owned(), rate }],
        };
        assert_eq!(
            printed(true, |out| print(&rates, out)),
            "TIME           BY      WHERE  VERDICT  NAME       PACKETS/S  BYTES/S\n\
             01:02:03.004Z  reason  eth0   drop     deny_list         12      720\n\
             01:02:03.004Z  rule    deny   -        spam              12      720\n"
        );
        let silent = Rates { reasons: Vec::new(), rules: Vec::new(), ..rates };
        assert_eq!(printed(true, |out| print(&silent, out)), "01:02:03.004Z  nothing\n");
        assert_eq!(printed(false, |out| print(&silent, out)), "");
        assert_eq!(
            printed(false, |out| out.json_line(&silent)),
            "{\"time_ms\":90123004,\"reasons\":[],\"rules\":[]}\n"
        );
    }
}
