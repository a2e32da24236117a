//! Named lists: which there are, the way back to the generation before, and the end of an imported one.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_kernel::{ListInfo, Owner};

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::lists::Side;
use super::output::{Column, Out, clean, entries, spell};
use super::own_address;
use crate::control::{ConfirmBody, ExplainBody, Reply, Request};

const COLUMNS: [Column; 7] = [
    Column::words("LIST"),
    Column::number("IPV4"),
    Column::number("IPV6"),
    Column::words("MODE"),
    Column::number("GENERATION"),
    Column::words("SINCE"),
    Column::words("SOURCE"),
];

pub(super) fn show(side: Side, json: bool, backend: &Backend, out: &mut Out) -> Outcome {
    let mut lists = backend.lists()?;
    lists.retain(|list| list.kind == side.list_kind());
    if json {
        return Ok(out.json(&lists)?);
    }
    if lists.is_empty() && out.terminal {
        return Ok(out.line("there are no named lists")?);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rows: Vec<Vec<String>> = lists.iter().map(|list| row(list, now, out.terminal)).collect();
    Ok(out.table(&COLUMNS, &rows)?)
}

/// `now` is since the Unix epoch.
fn row(list: &ListInfo, now: Duration, terminal: bool) -> Vec<String> {
    let age = now.saturating_sub(Duration::from_secs(list.loaded_at));
    let owner = match list.owner {
        Owner::Config => "config",
        Owner::Operator => "operator",
    };
    vec![
        clean(&list.name),
        list.entries_v4.to_string(),
        list.entries_v6.to_string(),
        if list.shadow { "shadow" } else { "enforced" }.to_owned(),
        list.generation.to_string(),
        if terminal { format!("{} ago", spell(age)) } else { list.loaded_at.to_string() },
        format!("{owner}: {}", clean(&list.source)),
    ]
}

pub(super) fn roll_back(backend: &Backend, out: &mut Out) -> Outcome {
    roll_back_from(own_address::of_the_session(), backend, out)
}

/// Whom the former lists deny shows when they are in force; if it is whoever typed this, they leave at once.
fn roll_back_from(address: Option<IpAddr>, backend: &Backend, out: &mut Out) -> Outcome {
    let is_denied = |source| -> Outcome<bool> {
        let packet = ExplainBody { source, destination: None };
        Ok(backend.explain(packet)?.explanation.verdict == "drop")
    };
    // Who is denied already has nothing to lose.
    let address = address.map(|source| is_denied(source).map(|denied| (source, denied))).transpose()?;
    let generation = backend.roll_back()?;
    if let Some((source, false)) = address
        && is_denied(source)?
    {
        backend.roll_back()?;
        return Err(Failure::Wrong(format!(
            "generation {generation} of the lists denies {source}, from where you are connected, and would lock you \
             out; the present one is in force again. `gateway allow add {source}` first, if that is what you want"
        )));
    }
    Ok(out.line(format!("generation {generation} of the lists is in force"))?)
}

pub(super) fn forget(side: Side, name: &str, backend: &Backend, out: &mut Out) -> Outcome {
    let count = backend.forget(side.list_kind(), name)?;
    Ok(out.line(format!("{}: {} removed", clean(name), entries(count)))?)
}

/// What is held, the agent knows, wherever it enforces.
pub(super) fn confirm(name: &str, global: &Global, out: &mut Out) -> Outcome {
    let (agent, _) = global.agent()?;
    let body = ConfirmBody { name: name.to_owned(), asked_from: own_address::of_the_session() };
    match agent.call(&Request::Confirm(body))? {
        Reply::Replaced(replaced) => Ok(out.line(format!(
            "{}: {} in force, generation {}",
            clean(name),
            entries(replaced.entries),
            replaced.generation
        ))?),
        other => Err(Failure::System(format!("the agent answered something else: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListEntry, ListKind, NewList, Rules};

    use super::super::output::testing::printed;
    use super::*;

    fn import(rules: &Rules, name: &str, prefixes: &[&str]) {
        let entry =
            |text: &&str| ListEntry { prefix: text.parse().expect("a prefix"), label: 0, shadow: false };
        let list = NewList {
            kind: ListKind::Deny,
            name: name.to_owned(),
            source: format!("{name}.txt"),
            shadow: name == "trial",
            labels: vec![name.to_owned()],
            entries: prefixes.iter().map(entry).collect(),
        };
        rules.replace(Owner::Operator, &list, &mut |_| {}).expect("replaced");
    }

    #[test]
    fn lists_come_go_and_come_back() {
        let rules = Rules::in_userspace().expect("rules");
        let backend = Backend::Here(rules.clone());
        let shown = |backend: &Backend| {
            let text = printed(false, |out| show(Side::Deny, false, backend, out));
            // The time is not the test's.
            let rows = text.lines().map(|line| {
                let cells: Vec<&str> = line.split('\t').collect();
                [&cells[..5], &cells[6..]].concat().join(" ")
            });
            rows.collect::<Vec<_>>().join("; ")
        };
        import(&rules, "a", &["192.0.2.0/24", "2001:db8::/32"]);
        import(&rules, "trial", &["198.51.100.0/24"]);
        let both = "a 1 1 enforced 1 operator: a.txt; trial 1 0 shadow 2 operator: trial.txt";
        assert_eq!(shown(&backend), both);
        let text = printed(false, |out| forget(Side::Deny, "a", &backend, out));
        assert_eq!(text, "a: 2 entries removed\n");
        assert_eq!(shown(&backend), "trial 1 0 shadow 2 operator: trial.txt");
        let text = printed(false, |out| roll_back_from(None, &backend, out));
        assert_eq!(text, "generation 2 of the lists is in force\n");
        assert_eq!(shown(&backend), both);
        assert!(
            matches!(backend.forget(ListKind::Deny, "b"), Err(Failure::Wrong(why)) if why.contains("a, trial"))
        );
        assert!(matches!(backend.forget(ListKind::Allow, "a"), Err(Failure::Wrong(_))));
    }

    #[test]
    fn nobody_locks_themselves_out_by_a_way_back() {
        let rules = Rules::in_userspace().expect("rules");
        let backend = Backend::Here(rules.clone());
        import(&rules, "a", &["192.0.2.0/24"]);
        import(&rules, "a", &["198.51.100.0/24"]);
        let table = [
            ("denied then", "192.0.2.7", false, 2),
            ("denied now", "198.51.100.7", true, 1),
            ("back again, by who is denied already", "192.0.2.7", true, 2),
            ("neither", "203.0.113.7", true, 1),
        ];
        for (name, address, done, expected) in table {
            let address = Some(address.parse().expect("an address"));
            let mut answer = Ok(());
            printed(false, |out| {
                answer = roll_back_from(address, &backend, out);
                Ok::<(), Failure>(())
            });
            match &answer {
                Err(Failure::Wrong(why)) => assert!(!done && why.contains("generation 1"), "{name}: {why}"),
                other => assert!(done && other.is_ok(), "{name}: {other:?}"),
            }
            assert_eq!(rules.generation().expect("read"), expected, "{name}");
        }
    }
}
