//! Writers that die and writers that meet: a process is killed in the middle of a change, and the next one finds
//! lists that are whole.
//!
//! The process is this test program itself, told by its environment which change to make over and over.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway_common::abi::SCHEMA_VERSION;
use gateway_kernel::sandbox::Sandbox;
use gateway_kernel::{ListKind, NewEntry, NewList, Owner, Rules};
use ipnet::{IpNet, Ipv4Net};

use crate::lists::{add, new, size};
use crate::named::list_of;

const DENY: ListKind = ListKind::Deny;
/// Which change, and where the maps are.
const CHANGE: &str = "GATEWAY_TEST_CHANGE";
const PINS: &str = "GATEWAY_TEST_PINS";
/// Prefixes of the longer of two lists: so many that a writer is killed in the middle of all that it does.
const PREFIXES: u32 = 100_000;
/// Entries that come and go singly, and labels that they have.
const SINGLES: u32 = 200;
const LABELS: u32 = 7;

/// What a process that is going to be killed does; of the tests it is none.
#[test]
fn child() {
    let (Ok(change), Some(pins)) = (std::env::var(CHANGE), std::env::var_os(PINS)) else { return };
    let rules = Rules::open(Path::new(&pins)).unwrap();
    match change.as_str() {
        "replace" => loop {
            for content in contents() {
                rules.replace(Owner::Operator, &content, &mut |_| {}).unwrap();
            }
        },
        "singles" => loop {
            (0..SINGLES).for_each(|number| _ = add(&rules, DENY, &[single(number)]));
            // Of each pair one, singly and from the list; the other stays as it is.
            for number in (0..SINGLES).step_by(2) {
                rules.remove(DENY, &[single(number).prefix, listed(number)]).unwrap();
            }
            rules.replace(Owner::Operator, &list(), &mut |_| {}).unwrap();
        },
        other => panic!("{other}"),
    }
}

/// Two contents of one list that share nothing.
fn contents() -> [NewList; 2] {
    let of = |first: u32, number: u32| {
        list_of(DENY, "big", (first..first + number).map(|address| v4(address, 32)).collect())
    };
    [of(0x0a00_0000, PREFIXES), of(0x0b00_0000, PREFIXES / 2)]
}

fn v4(address: u32, length: u8) -> IpNet {
    Ipv4Net::new(address.into(), length).unwrap().trunc().into()
}

fn single(number: u32) -> NewEntry {
    NewEntry {
        prefix: v4(0xc612_0000 + number * 64, 26 + (number % 7) as u8),
        rule: format!("label {}", number % LABELS),
        ttl: None,
        shadow: number.is_multiple_of(5),
    }
}

fn listed(number: u32) -> IpNet {
    v4(0xc613_0000 + number * 256, 24)
}

fn list() -> NewList {
    list_of(DENY, "small", (0..SINGLES).map(listed).collect())
}

fn start(sandbox: &Sandbox, change: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writers::child"]).env(CHANGE, change).env(PINS, sandbox.pin_dir());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Lets a process make a change over and over, and kills it after some time.
fn kill_in(sandbox: &Sandbox, change: &str, milliseconds: u64) {
    let mut child = start(sandbox, change);
    std::thread::sleep(Duration::from_millis(milliseconds));
    assert!(child.try_wait().unwrap().is_none(), "it works until it is killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Which of the two contents is in force; it is all there, and nothing of the other.
fn content_in_force(rules: &Rules) -> usize {
    let lists = rules.lists().unwrap();
    assert_eq!(lists.len(), 1, "{lists:?}");
    let which = usize::from(lists[0].entries() != u64::from(PREFIXES));
    let [first, second] = contents();
    let (whole, none) = if which == 0 { (first, second) } else { (second, first) };
    assert_eq!(
        (lists[0].entries(), size(rules, "lists_v4")),
        (whole.entries.len() as u64, whole.entries.len() as u64)
    );
    let reason = |prefix: IpNet| rules.explain(prefix.addr(), None).unwrap().reason;
    for step in 0..50 {
        let at = |list: &NewList| list.entries[step * list.entries.len() / 50].prefix;
        assert_eq!((reason(at(&whole)).as_str(), reason(at(&none)).as_str()), ("deny_list", "no_match"));
    }
    which
}

fn table_pins(sandbox: &Sandbox) -> usize {
    let maps = sandbox.pin_dir().join(format!("v{SCHEMA_VERSION}/maps"));
    let entries = std::fs::read_dir(maps).unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter(|name| name.to_str().unwrap().starts_with("table_")).count()
}

#[test]
fn a_writer_killed_in_the_middle_of_a_list_leaves_one_list_or_the_other() {
    let Some(sandbox) = crate::sandbox() else { return };
    let rules = sandbox.rules();
    let [_, shorter] = contents();
    rules.replace(Owner::Operator, &shorter, &mut |_| {}).unwrap();
    let (mut refused, mut seen) = (0, [0, 0]);
    for time in 0..30_u64 {
        kill_in(&sandbox, "replace", 60 + time * 37 % 600);
        let which = content_in_force(rules);
        seen[which] += 1;
        match rules.roll_back() {
            Ok(_) => {
                // The generation before may be of either content, and is whole.
                content_in_force(rules);
                rules.roll_back().unwrap();
                assert_eq!(content_in_force(rules), which);
            }
            Err(_) => refused += 1,
        }
        assert!(table_pins(&sandbox) <= 3, "{} tables are pinned", table_pins(&sandbox));
        assert_eq!(add(rules, DENY, &[new(&format!("192.0.2.{time}/32"))]).added, 1);
    }
    assert!(seen[0] > 0 && seen[1] > 0 && refused < 30, "{seen:?}, {refused}");
    let found: Vec<IpNet> = rules.entries(DENY).unwrap().iter().map(|entry| entry.prefix).collect();
    let singles = (0..30).map(|time| v4(0xc000_0200 + time, 32));
    let [first, second] = contents();
    let lists = if content_in_force(rules) == 0 { first } else { second };
    let mut expected: Vec<IpNet> = lists.entries.iter().map(|entry| entry.prefix).chain(singles).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_writer_killed_between_single_changes_leaves_entries_that_are_sound() {
    let Some(sandbox) = crate::sandbox() else { return };
    let rules = sandbox.rules();
    rules.replace(Owner::Operator, &list(), &mut |_| {}).unwrap();
    let known: BTreeMap<IpNet, NewEntry> =
        (0..SINGLES).map(single).map(|entry| (entry.prefix, entry)).collect();
    for time in 0..30_u64 {
        kill_in(&sandbox, "singles", 40 + time * 13 % 200);
        // The next writer.
        add(rules, DENY, &[new("192.0.2.1/32")]);
        rules.remove(DENY, &[new("192.0.2.1/32").prefix]).unwrap();
        let (listed, single): (Vec<_>, Vec<_>) =
            rules.entries(DENY).unwrap().into_iter().partition(|entry| entry.from == "small");
        for entry in &single {
            let known = &known[&entry.prefix];
            assert_eq!((&entry.rule, entry.shadow), (&known.rule, known.shadow), "{}", entry.prefix);
            let reason = rules.explain(entry.prefix.addr(), None).unwrap().reason;
            assert_eq!(reason, if known.shadow { "deny_shadow" } else { "deny_list" }, "{}", entry.prefix);
        }
        assert_eq!(
            (size(rules, "deny"), size(rules, "lists_v4")),
            (single.len() as u64, listed.len() as u64)
        );
        assert_eq!(rules.lists().unwrap()[0].entries(), listed.len() as u64);
        // What is never deleted is there.
        assert!(listed.len() >= SINGLES as usize / 2);
        assert!(time == 0 || single.len() >= SINGLES as usize / 2);
    }
}

#[test]
fn writers_that_meet_lose_nothing() {
    let Some(sandbox) = crate::sandbox() else { return };
    std::thread::scope(|scope| {
        for writer in 0..8_u32 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                // As another process would: by maps and locks of its own.
                let rules = Rules::open(sandbox.pin_dir()).unwrap();
                for number in 0..40 {
                    add(
                        &rules,
                        DENY,
                        &[NewEntry { prefix: v4(0xc612_0000 + (writer << 8) + number, 32), ..new("::/0") }],
                    );
                }
            });
        }
        scope.spawn(|| {
            for number in 0..20 {
                let content = list_of(DENY, "busy", (0..=number).map(listed).collect());
                sandbox.rules().replace(Owner::Operator, &content, &mut |_| {}).unwrap();
            }
        });
    });
    let (listed, single): (Vec<_>, Vec<_>) =
        sandbox.rules().entries(DENY).unwrap().into_iter().partition(|entry| entry.from == "busy");
    assert_eq!((single.len(), listed.len()), (320, 20));
    assert_eq!((size(sandbox.rules(), "deny"), size(sandbox.rules(), "lists_v4")), (320, 20));
    assert_eq!(sandbox.rules().generation().unwrap(), 20);
}
