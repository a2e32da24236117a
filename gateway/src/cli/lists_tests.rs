//! The list commands over rules in this process: what is typed, what is shown, what stays.

use gateway_kernel::Rules;

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
    let (kept, repeated) = last_of_each(vec![
        entry("192.0.2.1/32", "a"),
        entry("192.0.2.2/32", "b"),
        entry("192.0.2.1/32", "c"),
    ]);
    assert_eq!(kept, vec![entry("192.0.2.2/32", "b"), entry("192.0.2.1/32", "c")]);
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

#[test]
fn a_refused_share_undoes_the_one_before_it() {
    let backend = rules();
    add(Side::Deny, &backend, &["192.0.2.1"], &attributes(Some(600), Some("before"), false));
    let prefixes = ["192.0.2.1/32", "192.0.2.2/32"].map(|text| text.parse::<IpNet>().expect("a prefix"));
    let share: Vec<WireEntry> = prefixes
        .iter()
        .map(|prefix| WireEntry { prefix: *prefix, rule: "after".into(), ttl_ms: Some(1000), shadow: false })
        .collect();
    let undo = Undo::note(ListKind::Ban, &share, &backend).expect("noted");
    backend.add(ListKind::Ban, share, &mut |_| {}).expect("written");
    undo.apply(&backend).expect("undone");
    let listed = printed(false, |out| list(Side::Deny, false, &backend, out));
    assert_eq!(listed, "192.0.2.1/32\tban\tbefore\t600\tenforced\toperator\n");
}
