//! The list commands over rules in this process: what is typed, what is shown, what stays.

use gateway_kernel::{NewEntry, Rules};

use super::super::output::testing::printed;
use super::*;

fn rules() -> Backend {
    Backend::Here(Rules::in_userspace())
}

fn add(side: Side, backend: &Backend, prefixes: &[&str], attributes: &Attributes) -> String {
    let prefixes: Vec<String> = prefixes.iter().map(|text| (*text).to_owned()).collect();
    printed(false, |out| write(side, typed(&prefixes, attributes)?, backend, out))
}

fn attributes(ttl_seconds: Option<u64>, reason: Option<&str>, shadow: bool) -> Attributes {
    Attributes { ttl: ttl_seconds.map(Duration::from_secs), reason: reason.map(str::to_owned), shadow }
}

#[test]
fn entries_go_where_they_belong() {
    let table = [
        (Side::Deny, attributes(None, None, false), "deny: 1 added, 0 updated\n", "deny\tcli\t-\tenforced"),
        (
            Side::Deny,
            attributes(Some(600), None, false),
            "ban: 1 added, 0 updated\n",
            "ban\tcli\t600\tenforced",
        ),
        (
            Side::Deny,
            attributes(None, Some("scan"), true),
            "deny: 1 added, 0 updated\n",
            "deny\tscan\t-\tshadow",
        ),
        (
            Side::Allow,
            attributes(None, None, false),
            "allow: 1 added, 0 updated\n",
            "allow\tcli\t-\tenforced",
        ),
        (
            Side::Allow,
            attributes(Some(60), None, false),
            "allow: 1 added, 0 updated\n",
            "allow\tcli\t60\tenforced",
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
    let texts = ["192.0.2.1", "nonsense", "192.0.2.1/24", "0.0.0.0/0"].map(str::to_owned);
    let Err(Failure::Wrong(message)) = read_prefixes(&texts) else { panic!("accepted") };
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    for (line, fragment) in lines.iter().zip(["nonsense", "did you mean 192.0.2.0/24", "every address"]) {
        assert!(line.contains(fragment), "{line}");
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
    let backend = rules();
    add(Side::Deny, &backend, &["192.0.2.0/24", "2001:db8::/32"], &attributes(None, Some("two words"), true));
    add(Side::Deny, &backend, &["192.0.2.9"], &attributes(Some(600), None, false));
    let exported = printed(false, |out| export(Side::Deny, &backend, out));
    let other = rules();
    let wanted =
        import::entries_of("x", exported.as_bytes(), &import::Arguments::default()).expect("read back");
    printed(false, |out| write(Side::Deny, wanted, &other, out));
    let shown = |backend: &Backend| printed(false, |out| list(Side::Deny, false, backend, out));
    assert_eq!(shown(&other), shown(&backend));
    assert_eq!(shown(&other).lines().count(), 3);
}

#[test]
fn a_prefix_may_be_banned_and_denied() {
    let backend = rules();
    add(Side::Deny, &backend, &["192.0.2.9"], &attributes(Some(600), Some("a"), false));
    add(Side::Deny, &backend, &["192.0.2.9"], &attributes(None, Some("b"), false));
    let exported = printed(false, |out| export(Side::Deny, &backend, out));
    let other = rules();
    let wanted =
        import::entries_of("x", exported.as_bytes(), &import::Arguments::default()).expect("read back");
    let said = printed(false, |out| write(Side::Deny, wanted, &other, out));
    assert_eq!(said, "ban: 1 added, 0 updated\ndeny: 1 added, 0 updated\n");
    let shown = |backend: &Backend| printed(false, |out| list(Side::Deny, false, backend, out));
    assert_eq!(shown(&other), shown(&backend));
}

#[test]
fn export_leaves_to_the_configuration_what_is_its() {
    let configured = Rules::in_userspace();
    let new = |text: &str| NewEntry {
        prefix: text.parse().expect("a prefix"),
        rule: "config".to_owned(),
        ttl: None,
        shadow: false,
    };
    let (alone, shared) = (new("192.0.2.1/32"), new("192.0.2.2/32"));
    configured.reconcile(ListKind::Deny, &[alone, shared]).expect("written");
    let backend = Backend::Here(configured);
    add(Side::Deny, &backend, &["192.0.2.2", "192.0.2.3"], &attributes(None, Some("mine"), false));
    let exported = printed(false, |out| export(Side::Deny, &backend, out));
    assert_eq!(exported, "192.0.2.2 reason=mine\n192.0.2.3 reason=mine\n");
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
