//! Named lists: which there are, the way back to the generation before, and the end of an imported one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_kernel::{ListInfo, Owner};

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::lists::Side;
use super::output::{Column, Out, clean, entries, spell};
use crate::control::{NameBody, Reply, Request};

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
    let generation = backend.roll_back()?;
    Ok(out.line(format!("generation {generation} of the lists is in force"))?)
}

pub(super) fn forget(side: Side, name: &str, backend: &Backend, out: &mut Out) -> Outcome {
    let count = backend.forget(side.list_kind(), name)?;
    Ok(out.line(format!("{}: {} removed", clean(name), entries(count)))?)
}

/// What is held, the agent knows, wherever it enforces.
pub(super) fn confirm(name: &str, global: &Global, out: &mut Out) -> Outcome {
    let (agent, _) = global.agent()?;
    match agent.call(&Request::Confirm(NameBody { name: name.to_owned() }))? {
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
        let text = printed(false, |out| roll_back(&backend, out));
        assert_eq!(text, "generation 2 of the lists is in force\n");
        assert_eq!(shown(&backend), both);
        assert!(
            matches!(backend.forget(ListKind::Deny, "b"), Err(Failure::Wrong(why)) if why.contains("a, trial"))
        );
        assert!(matches!(backend.forget(ListKind::Allow, "a"), Err(Failure::Wrong(_))));
    }
}
