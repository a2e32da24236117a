//! `gateway counters`: packets and bytes by reason and by rule.

use clap::Args;
use gateway_kernel::{Count, Counters};

use super::Global;
use super::backend::Backend;
use super::failure::Outcome;
use super::output::{Column, Out, clean};

/// How to show them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const COLUMNS: [Column; 6] = [
    Column::words("BY"),
    Column::words("WHERE"),
    Column::words("VERDICT"),
    Column::words("NAME"),
    Column::number("PACKETS"),
    Column::number("BYTES"),
];

pub(super) fn run(arguments: &Arguments, global: &Global, out: &mut Out) -> Outcome {
    let counters = Backend::open(global)?.counters()?;
    if arguments.json { Ok(out.json(&counters)?) } else { print(&counters, out) }
}

/// One table, so that a pipe gets one kind of line: what counted, where, with what verdict, by which name.
fn print(counters: &Counters, out: &mut Out) -> Outcome {
    let row = |words: [&str; 4], count: Count| -> Vec<String> {
        let numbers = [count.packets.to_string(), count.bytes.to_string()];
        words.into_iter().map(clean).chain(numbers).collect()
    };
    let reasons = counters
        .reasons
        .iter()
        .map(|row_| row(["reason", &row_.interface, &row_.verdict, &row_.reason], row_.count));
    let rules = counters.rules.iter().map(|row_| row(["rule", &row_.from, "-", &row_.rule], row_.count));
    let rows: Vec<Vec<String>> = reasons.chain(rules).collect();
    if rows.is_empty() && out.terminal {
        out.line("nothing was counted yet")?;
    } else {
        out.table(&COLUMNS, &rows)?;
    }
    if counters.events_lost > 0 && out.terminal {
        out.line(format!("{} sampled events were left out", counters.events_lost))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListKind, ReasonCount, RuleCount};

    use super::super::output::testing::printed;
    use super::*;

    #[test]
    fn both_readers_get_their_form() {
        let count = Count { packets: 12, bytes: 720 };
        let counters = Counters {
            reasons: vec![ReasonCount {
                interface: "eth0".into(),
                verdict: "drop".into(),
                reason: "deny_list".into(),
                count,
            }],
            rules: vec![RuleCount { rule: "spam".into(), list: ListKind::Deny, from: "deny".into(), count }],
            events_lost: 3,
        };
        assert_eq!(
            printed(true, |out| print(&counters, out)),
            "BY      WHERE  VERDICT  NAME       PACKETS  BYTES\n\
             reason  eth0   drop     deny_list       12    720\n\
             rule    deny   -        spam            12    720\n\
             3 sampled events were left out\n"
        );
        assert_eq!(
            printed(false, |out| print(&counters, out)),
            "reason\teth0\tdrop\tdeny_list\t12\t720\nrule\tdeny\t-\tspam\t12\t720\n"
        );
    }
}
