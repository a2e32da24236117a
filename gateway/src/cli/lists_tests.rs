//! The list commands over rules in this process: what is typed, what is shown, what stays.

use gateway_kernel::{ListEntry, NewList, Rules};

use super::super::output::testing::printed;
use super::*;

fn rules() -> Backend {
    Backend::Here(Rules::in_userspace().expect("rules"))
}

fn add(side: Side, backend: &Backend, prefixes: &[&str], attributes: &Attributes) -> String {
    let prefixes: Vec<String> = prefixes.iter().map(|text| (*text).to_owned()).collect();
    printed(false, |out| write(side, typed(&prefixes, attributes)?, None, attributes.force, backend, out))
}

fn attributes(ttl_seconds: Option<u64>, reason: Option<&str>, shadow: bool) -> Attributes {
    let ttl = ttl_seconds.map(Duration::from_secs);
    Attributes { ttl, reason: reason.map(str::to_owned), shadow, force: false }
}

/// Imports a file's text as the list `x`.
fn import_text(backend: &Backend, text: &str) -> String {
    let read = import::list_of(Side::Deny, "x", text.as_bytes().to_vec(), &import::Arguments::default());
    printed(false, |out| import::apply(Side::Deny, read?, backend, out))
}

#[test]
fn entries_go_where_they_belong() {
    let table = [
        (
            Side::Deny,
            attributes(None, None, false),
            "deny: 1 added, 0 updated\n",
            "deny\tdeny\tcli\t-\tenforced",
        ),
        (
            Side::Deny,
            attributes(Some(600), None, false),
            "ban: 1 added, 0 updated\n",
            "ban\tban\tcli\t600\tenforced",
        ),
        (
            Side::Deny,
            attributes(None, Some("scan"), true),
            "deny: 1 added, 0 updated\n",
            "deny\tdeny\tscan\t-\tshadow",
        ),
        (
            Side::Allow,
            attributes(None, None, false),
            "allow: 1 added, 0 updated\n",
            "allow\tallow\tcli\t-\tenforced",
        ),
        (
            Side::Allow,
            attributes(Some(60), None, false),
            "allow: 1 added, 0 updated\n",
            "allow\tallow\tcli\t60\tenforced",
        ),
    ];
    for (side, attributes, said, shown) in table {
        let backend = rules();
        assert_eq!(add(side, &backend, &["192.0.2.0/24"], &attributes), said);
        let listed = printed(false, |out| list(side, false, &backend, out));
        assert_eq!(listed, format!("192.0.2.0/24\t{shown}\toperator\n"));
    }
}

#[test]
fn every_bad_prefix_is_named() {
    let texts = ["192.0.2.1", "nonsense", "192.0.2.1/24", "0.0.0.0/0", "::ffff:192.0.2.1"].map(str::to_owned);
    let table: [(bool, &[&str]); 2] = [
        (
            false,
            &[
                "nonsense",
                "did you mean 192.0.2.0/24",
                "every address there is; `--force` takes it",
                "IPv4 mapped",
            ],
        ),
        (true, &["nonsense", "did you mean 192.0.2.0/24", "IPv4 mapped"]),
    ];
    for (force, expected) in table {
        let Err(Failure::Wrong(message)) = read_prefixes(&texts, force) else { panic!("accepted") };
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), expected.len(), "force: {force}: {message}");
        for (line, fragment) in lines.iter().zip(expected) {
            assert!(line.contains(fragment), "force: {force}: {line}");
        }
    }
}

#[test]
fn everything_is_taken_by_force_only() {
    let everything = ["0.0.0.0/0", "::/0"];
    for text in everything {
        assert!(matches!(read_prefixes(&[text.to_owned()], false), Err(Failure::Wrong(_))), "{text}");
    }
    let backend = rules();
    let forced = Attributes { force: true, ..attributes(None, None, true) };
    assert_eq!(add(Side::Deny, &backend, &everything, &forced), "deny: 2 added, 0 updated\n");
    let listed = printed(false, |out| list(Side::Deny, false, &backend, out));
    for text in everything {
        assert!(listed.contains(&format!("{text}\tdeny\tdeny\tcli\t-\tshadow")), "{listed}");
    }
}

/// `deny` of these prefixes, typed by somebody who is connected from 192.0.2.7.
#[test]
fn nobody_locks_themselves_out() {
    let net = |text: &&str| text.parse::<IpNet>().expect("a prefix");
    type Row = (&'static str, Side, &'static [&'static str], &'static [&'static str], bool);
    let table: &[Row] = &[
        ("the address itself", Side::Deny, &[], &["192.0.2.7/32"], false),
        ("one of many", Side::Deny, &[], &["198.51.100.0/24", "2001:db8::/32", "192.0.2.0/24"], false),
        ("everything", Side::Deny, &[], &["0.0.0.0/0"], false),
        ("others", Side::Deny, &[], &["192.0.2.6/32", "192.0.2.8/32", "::/0"], true),
        ("allowed", Side::Deny, &["192.0.2.0/28"], &["192.0.2.0/24"], true),
        ("another one is allowed", Side::Deny, &["192.0.2.8"], &["192.0.2.0/24"], false),
        ("to allow locks nobody out", Side::Allow, &[], &["192.0.2.0/24"], true),
    ];
    for (name, side, allowed, denied, taken) in table {
        let backend = rules();
        if !allowed.is_empty() {
            add(Side::Allow, &backend, allowed, &attributes(None, None, false));
        }
        let address = Some([192, 0, 2, 7].into());
        let answer = refuse_address(*side, denied.iter().map(net), address, &backend);
        match answer {
            Ok(()) => assert!(taken, "{name}: taken"),
            Err(Failure::Wrong(why)) => {
                assert!(!taken && why.contains("192.0.2.7, from where you are connected"), "{name}: {why}");
            }
            Err(other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(
            refuse_address(*side, denied.iter().map(net), None, &backend),
            Ok(()),
            "{name}: no session"
        );
    }
}

#[test]
fn the_last_of_a_prefix_counts() {
    let entry = |text: &str, rule: &str| WireEntry {
        prefix: text.parse().expect("a prefix"),
        rule: rule.to_owned(),
        ttl_ms: None,
        shadow: false,
    };
    let banned = |text: &str, rule: &str| WireEntry { ttl_ms: Some(1000), ..entry(text, rule) };
    let (kept, repeated) = batches(
        Side::Deny,
        vec![
            entry("192.0.2.1/32", "a"),
            banned("192.0.2.1/32", "ban"),
            entry("192.0.2.2/32", "b"),
            entry("192.0.2.1/32", "c"),
        ],
    );
    let expected = vec![
        Batch { list: ListKind::Ban, entries: vec![banned("192.0.2.1/32", "ban")] },
        Batch { list: ListKind::Deny, entries: vec![entry("192.0.2.2/32", "b"), entry("192.0.2.1/32", "c")] },
    ];
    assert_eq!(kept, expected);
    assert_eq!(repeated, vec![entry("192.0.2.1/32", "c").prefix]);
}

#[test]
fn del_speaks_of_both_deny_lists() {
    let backend = rules();
    add(Side::Deny, &backend, &["192.0.2.1"], &attributes(None, None, false));
    add(Side::Deny, &backend, &["192.0.2.2"], &attributes(Some(60), None, false));
    let prefixes =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<IpNet>>();
    let said =
        printed(false, |out| remove(Side::Deny, &prefixes(&["192.0.2.1/32", "192.0.2.2/32"]), &backend, out));
    assert_eq!(said, "ban: 1 removed\ndeny: 1 removed\n");
    assert_eq!(printed(false, |out| list(Side::Deny, false, &backend, out)), "");
    printed(false, |out| {
        let answer = remove(Side::Deny, &prefixes(&["192.0.2.1/32"]), &backend, out);
        assert_eq!(answer, Err(Failure::No), "what is not there cannot be removed");
        Ok::<(), Failure>(())
    });
}

#[test]
fn export_is_what_import_reads() {
    let exported = |backend: &Backend| printed(false, |out| export(Side::Deny, backend, out));
    type Entries = &'static [(&'static str, Option<u64>, &'static str, bool)];
    let table: [(&str, Entries, &str); 3] = [
        (
            "both families, in shadow",
            &[("192.0.2.0/24", None, "two words", true), ("2001:db8::/32", None, "two words", true)],
            "x: 2 entries in force, generation 1\n",
        ),
        ("a ban", &[("192.0.2.9", Some(600), "cli", false)], "ban: 1 added, 0 updated\n"),
        (
            "banned and denied",
            &[("192.0.2.9", Some(600), "a", false), ("192.0.2.9", None, "b", false)],
            "x: 1 entry in force, generation 1\nban: 1 added, 0 updated\n",
        ),
    ];
    for (name, entries, said) in table {
        let (backend, other) = (rules(), rules());
        for (prefix, ttl, reason, shadow) in entries {
            add(Side::Deny, &backend, &[prefix], &attributes(*ttl, Some(reason), *shadow));
        }
        assert_eq!(exported(&backend).lines().count(), entries.len(), "{name}");
        assert_eq!(import_text(&other, &exported(&backend)), said, "{name}");
        assert_eq!(exported(&other), exported(&backend), "{name}");
    }
}

#[test]
fn export_leaves_to_the_configuration_what_is_its() {
    let configured = Rules::in_userspace().expect("rules");
    let entry = |text: &str| ListEntry { prefix: text.parse().expect("a prefix"), label: 0, shadow: false };
    let own = NewList {
        kind: ListKind::Deny,
        name: "config-deny".into(),
        source: "the configuration".into(),
        shadow: false,
        labels: vec!["config".into()],
        entries: vec![entry("192.0.2.1/32"), entry("192.0.2.2/32")],
    };
    configured.reconcile(&[own]).expect("written");
    let backend = Backend::Here(configured);
    add(Side::Deny, &backend, &["192.0.2.2", "192.0.2.3"], &attributes(None, Some("mine"), false));
    let listed = printed(false, |out| list(Side::Deny, false, &backend, out));
    assert_eq!(
        listed,
        "192.0.2.1/32\tdeny\tconfig-deny\tconfig\t-\tenforced\tconfig\n\
         192.0.2.2/32\tdeny\tconfig-deny\tconfig\t-\tenforced\tconfig\n\
         192.0.2.2/32\tdeny\tdeny\tmine\t-\tenforced\toperator\n\
         192.0.2.3/32\tdeny\tdeny\tmine\t-\tenforced\toperator\n"
    );
    let exported = printed(false, |out| export(Side::Deny, &backend, out));
    assert_eq!(exported, "192.0.2.2 reason=mine\n192.0.2.3 reason=mine\n");
}

#[test]
fn an_entry_keeps_its_evidence() {
    let backend = rules();
    let wanted = typed(&["192.0.2.1".to_owned()], &attributes(Some(60), None, false)).expect("an entry");
    printed(false, |out| write(Side::Deny, wanted, Some("ticket 7".into()), false, &backend, out));
    let entries = backend.entries(ListKind::Ban).expect("read");
    assert_eq!(entries[0].evidence.as_deref(), Some("ticket 7"));
    let table = [("x", true), ("", false), ("a\nb", false)];
    for (text, sound) in table {
        assert_eq!(evidence(text).is_ok(), sound, "{text:?}");
    }
    assert!(evidence(&"x".repeat(64)).is_ok());
    assert!(evidence(&"x".repeat(65)).is_err());
}

#[test]
fn flush_takes_everything() {
    let backend = rules();
    add(Side::Deny, &backend, &["192.0.2.1", "192.0.2.2"], &attributes(None, None, false));
    let said = printed(false, |out| flush(Side::Deny, &backend, out));
    assert_eq!(said, "ban: 0 entries removed\ndeny: 2 entries removed\n");
}

#[test]
fn json_is_one_array() {
    let backend = rules();
    let listed = |backend: &Backend| printed(false, |out| list(Side::Deny, true, backend, out));
    let parse = |text: &str| serde_json::from_str::<Vec<Entry>>(text).expect("an array");
    assert!(parse(&listed(&backend)).is_empty());
    add(Side::Deny, &backend, &["192.0.2.1", "192.0.2.2"], &attributes(None, None, false));
    assert_eq!(parse(&listed(&backend)).len(), 2);
    assert_eq!(listed(&backend).lines().count(), 4);
}
