//! Entries that are made singly: what add, remove, flush and expire do, alike over pinned maps and in userspace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gateway_kernel::{
    Added, BanBounds, Entry, Error, ListKind, NewEntry, NewList, Note, Owner, Removed, Rules, SetBy,
};
use ipnet::{IpNet, Ipv4Net};

/// Most allow entries made singly, and most bans.
const ALLOW_CAPACITY: u32 = 65_536;
const BAN_CAPACITY: u32 = 262_144;
/// Different rules.
const RULES: u32 = 4096;

pub(crate) fn new(prefix: &str) -> NewEntry {
    NewEntry { prefix: prefix.parse().unwrap(), rule: "test".to_owned(), ttl: None, shadow: false }
}

pub(crate) fn all(prefixes: &[&str]) -> Vec<NewEntry> {
    prefixes.iter().map(|prefix| new(prefix)).collect()
}

fn for_a_while(prefix: &str, seconds: u64) -> NewEntry {
    NewEntry { ttl: Some(Duration::from_secs(seconds)), rule: format!("{seconds} s"), ..new(prefix) }
}

/// Addresses in a row.
fn address(number: u32) -> IpNet {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)).into()
}

fn addresses(numbers: impl Iterator<Item = u32>) -> Vec<NewEntry> {
    numbers.map(|number| NewEntry { prefix: address(number), ..new("192.0.2.1/32") }).collect()
}

pub(crate) fn prefixes(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.prefix.to_string()).collect()
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn add(rules: &Rules, list: ListKind, entries: &[NewEntry]) -> Added {
    rules.add(list, entries, &mut |_| {}).unwrap()
}

/// Runs a check over both stores.
pub(crate) fn over_both(check: impl Fn(&Rules)) {
    check(&Rules::in_userspace().unwrap());
    if let Some(sandbox) = crate::sandbox() {
        check(sandbox.rules());
    }
}

pub(crate) fn size(rules: &Rules, map: &str) -> u64 {
    rules.usage().unwrap().into_iter().find(|usage| usage.map == map).unwrap().entries
}

/// The reason, and the entry that decided or would have: its list's name, prefix and rule.
pub(crate) fn explained(rules: &Rules, source: &str) -> (String, String) {
    let explained = rules.explain(source.parse().unwrap(), None).unwrap();
    let entry = explained.stages.iter().filter_map(|stage| stage.entry.as_ref()).next_back();
    let shown =
        entry.map_or_else(String::new, |entry| format!("{} {} {}", entry.from, entry.prefix, entry.rule));
    (explained.reason, shown)
}

pub(crate) fn check_explained(rules: &Rules, table: &[(&str, &str, &str)]) {
    for (source, reason, entry) in table {
        let found = explained(rules, source);
        assert_eq!((found.0.as_str(), found.1.as_str()), (*reason, *entry), "{source}");
        let ruling = rules.ruling(source.parse().unwrap()).unwrap();
        let explained = rules.explain(source.parse().unwrap(), None).unwrap();
        let entry = explained.stages.iter().filter_map(|stage| stage.entry.as_ref()).next_back();
        let named = entry.map(|entry| (entry.from.clone(), entry.rule.clone()));
        assert_eq!(ruling.reason, *reason, "{source}, as a ruling");
        let ruled = ruling.list.zip(ruling.rule);
        // An entry that would have let through what passes anyway decides nothing.
        if ruled.is_some() || *reason != "no_match" {
            assert_eq!(ruled, named, "{source}, as a ruling");
        }
    }
}

#[test]
fn entries_come_back_in_address_order_and_once_a_prefix() {
    over_both(|rules| {
        let given = ["2001:db8::/32", "203.0.113.0/24", "192.0.2.0/24", "192.0.2.0/25", "203.0.113.0/24"];
        assert_eq!(add(rules, ListKind::Deny, &all(&given)), Added { added: 4, updated: 0 });
        let entries = rules.entries(ListKind::Deny).unwrap();
        assert_eq!(prefixes(&entries), ["192.0.2.0/24", "192.0.2.0/25", "203.0.113.0/24", "2001:db8::/32"]);
        assert_eq!((size(rules, "deny"), size(rules, "allow")), (4, 0));
        let again = add(rules, ListKind::Deny, &all(&["192.0.2.0/24"]));
        assert_eq!(again, Added::default(), "the same entry again changes nothing");
        let shadow = NewEntry { shadow: true, ..new("192.0.2.0/24") };
        assert_eq!(add(rules, ListKind::Deny, &[shadow]), Added { added: 0, updated: 1 });
        assert_eq!(size(rules, "deny"), 4, "an entry in another mode takes the place of the one before");
    });
}

#[test]
fn of_two_entries_for_one_prefix_the_later_holds() {
    over_both(|rules| {
        let first = NewEntry { rule: "first".to_owned(), ..new("192.0.2.0/24") };
        let second = NewEntry { rule: "second".to_owned(), shadow: true, ..new("192.0.2.0/24") };
        assert_eq!(add(rules, ListKind::Deny, &[first, second]), Added { added: 1, updated: 0 });
        check_explained(rules, &[("192.0.2.1", "deny_shadow", "deny 192.0.2.0/24 second")]);
    });
}

#[test]
fn remove_names_what_was_not_there() {
    over_both(|rules| {
        add(rules, ListKind::Deny, &all(&["192.0.2.0/24", "192.0.2.0/25", "2001:db8::/33"]));
        // A prefix named twice is removed once.
        let gone =
            nets(&["192.0.2.0/24", "192.0.2.0/24", "203.0.113.0/24", "2001:db8::/33", "2001:db8::/32"]);
        let removed = rules.remove(ListKind::Deny, &gone).unwrap();
        let missing = vec![gone[2], gone[4]];
        assert_eq!(removed, Removed { removed: 2, missing, kept_by_config: Vec::new() });
        assert_eq!(prefixes(&rules.entries(ListKind::Deny).unwrap()), ["192.0.2.0/25"]);
        assert_eq!(size(rules, "deny"), 1);
        assert_eq!(
            rules.remove(ListKind::Allow, &nets(&["192.0.2.0/25"])).unwrap().removed,
            0,
            "another list's"
        );
        assert_eq!((rules.flush(ListKind::Deny).unwrap(), rules.flush(ListKind::Deny).unwrap()), (1, 0));
        assert_eq!(size(rules, "deny"), 0);
    });
}

#[test]
fn whoever_made_an_entry_is_remembered() {
    over_both(|rules| {
        let note = Note { by: SetBy::Policy, evidence: Some("é".repeat(40)) };
        rules
            .add_batches(&note, &[(ListKind::Ban, vec![for_a_while("192.0.2.1/32", 60)])], &mut |_| {})
            .unwrap();
        let entry = rules.entries(ListKind::Ban).unwrap().remove(0);
        // Evidence is cut between characters.
        assert_eq!((entry.set_by, entry.evidence.as_deref()), (Some(SetBy::Policy), Some(&*"é".repeat(32))));
        assert_eq!((entry.ttl_seconds, entry.age_seconds, entry.owner), (Some(60), Some(0), Owner::Operator));
    });
}

#[test]
fn an_expired_entry_does_not_hide_a_shorter_prefix_that_holds() {
    let over = |prefix: String| for_a_while(&prefix, 0);
    let table: [(&str, Vec<NewEntry>, &str, &str); 4] = [
        (
            "every longer length of IPv4",
            (1..=32).map(|length| over(format!("192.0.0.0/{length}"))).collect(),
            "0.0.0.0/0",
            "192.0.0.0",
        ),
        (
            "within one /24",
            (25..=32).map(|length| over(format!("192.0.2.0/{length}"))).collect(),
            "192.0.2.0/24",
            "192.0.2.0",
        ),
        (
            "thirty-nine lengths of IPv6",
            (90..=128).map(|length| over(format!("2001:db8::/{length}"))).collect(),
            "2001:db8::/32",
            "2001:db8::",
        ),
        (
            "short ones of IPv6",
            (1..=24).map(|length| over(format!("2000::/{length}"))).collect(),
            "::/0",
            "2000::",
        ),
    ];
    over_both(|rules| {
        for (name, expired, holds, source) in &table {
            let nested = [expired.clone(), vec![for_a_while(holds, 600)]].concat();
            add(rules, ListKind::Ban, &nested);
            check_explained(rules, &[(source, "ban_list", &format!("ban {holds} 600 s"))]);
            assert_eq!(
                prefixes(&rules.entries(ListKind::Ban).unwrap()),
                [*holds],
                "{name}: what is over is not listed"
            );
            rules.flush(ListKind::Ban).unwrap();
        }
    });
}

#[test]
fn a_time_to_live_ends() {
    over_both(|rules| {
        let brief = NewEntry { ttl: Some(Duration::from_millis(150)), ..new("192.0.2.1/32") };
        add(rules, ListKind::Ban, &[brief.clone(), for_a_while("192.0.2.0/24", 600)]);
        add(rules, ListKind::Allow, &[brief]);
        check_explained(rules, &[("192.0.2.1", "allow_list", "allow 192.0.2.1/32 test")]);
        std::thread::sleep(Duration::from_millis(160));
        check_explained(rules, &[("192.0.2.1", "ban_list", "ban 192.0.2.0/24 600 s")]);
        // Takes its time between two sweeps.
        let until = Instant::now() + Duration::from_secs(10);
        let mut expired = 0;
        while expired < 2 && Instant::now() < until {
            expired += rules.expire().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!((expired, size(rules, "ban"), size(rules, "allow")), (2, 1, 0));
        // Set anew, it holds anew.
        add(rules, ListKind::Ban, &[for_a_while("192.0.2.0/24", 0)]);
        check_explained(rules, &[("192.0.2.1", "no_match", "")]);
        add(rules, ListKind::Ban, &[for_a_while("192.0.2.0/24", 5)]);
        check_explained(rules, &[("192.0.2.1", "ban_list", "ban 192.0.2.0/24 5 s")]);
    });
}

#[test]
fn explain_names_every_stage_up_to_the_one_that_decides() {
    over_both(|rules| {
        add(rules, ListKind::Ban, &[NewEntry { shadow: true, ..for_a_while("192.0.2.0/24", 60) }]);
        add(rules, ListKind::Deny, &all(&["192.0.2.0/25"]));
        add(rules, ListKind::Allow, &all(&["192.0.2.1/32"]));
        for (source, reason, path) in [
            ("192.0.2.2", "deny_list", "allow next, ban shadow, deny drop"),
            ("192.0.2.200", "ban_shadow", "allow next, ban shadow, deny next, default next, pass pass"),
            ("192.0.2.1", "allow_list", "allow pass"),
            ("::ffff:192.0.2.2", "deny_list", "allow next, ban shadow, deny drop"),
            ("2001:db8::1", "no_match", "allow next, ban next, deny next, default next, pass pass"),
        ] {
            let explained = rules.explain(source.parse().unwrap(), None).unwrap();
            let stages: Vec<_> =
                explained.stages.iter().map(|stage| format!("{} {}", stage.stage, stage.outcome)).collect();
            assert_eq!((explained.reason.as_str(), stages.join(", ").as_str()), (reason, path), "{source}");
        }
    });
}

#[test]
fn an_entry_in_shadow_mode_lets_nothing_through() {
    over_both(|rules| {
        let shadow = |prefix: &str| NewEntry { shadow: true, rule: "shadow".to_owned(), ..new(prefix) };
        add(rules, ListKind::Allow, &[shadow("192.0.2.9/32")]);
        add(
            rules,
            ListKind::Deny,
            &[new("192.0.2.0/24"), shadow("192.0.2.64/26"), shadow("198.51.100.0/24")],
        );
        check_explained(
            rules,
            &[
                ("192.0.2.9", "deny_list", "deny 192.0.2.0/24 test"),
                ("192.0.2.65", "deny_list", "deny 192.0.2.0/24 test"),
                ("198.51.100.1", "deny_shadow", "deny 198.51.100.0/24 shadow"),
            ],
        );
        let shadows = rules.explain("192.0.2.65".parse().unwrap(), None).unwrap().shadow;
        assert_eq!(prefixes(&shadows), ["192.0.2.64/26"], "named all the same");
    });
}

#[test]
fn batches_are_written_together_or_not_at_all() {
    over_both(|rules| {
        add(rules, ListKind::Allow, &all(&["192.0.2.1/32"]));
        let batches =
            [(ListKind::Deny, all(&["192.0.2.0/24"])), (ListKind::Allow, addresses(0..ALLOW_CAPACITY))];
        match rules.add_batches(&Note::CLI, &batches, &mut |_| {}) {
            Err(Error::Full { map, capacity, used, wanted }) => {
                let figures = (u64::from(ALLOW_CAPACITY), 1, u64::from(ALLOW_CAPACITY));
                assert_eq!((map.as_str(), (capacity, used, wanted)), ("allow", figures));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((size(rules, "deny"), size(rules, "allow")), (0, 1));
        // What fits, fits.
        let batches =
            [(ListKind::Deny, all(&["192.0.2.0/24"])), (ListKind::Allow, addresses(1..ALLOW_CAPACITY))];
        let added = rules.add_batches(&Note::CLI, &batches, &mut |_| {}).unwrap();
        assert_eq!(
            added.iter().map(|added| added.added).collect::<Vec<_>>(),
            [1, ALLOW_CAPACITY as usize - 1]
        );
        assert_eq!(rules.entries(ListKind::Allow).unwrap().len(), ALLOW_CAPACITY as usize);
    });
}

#[test]
fn more_bans_than_there_may_be_push_the_oldest_out() {
    let rules = Rules::in_userspace().unwrap();
    let bans = |numbers: std::ops::Range<u32>| -> Vec<NewEntry> {
        let ttl = Some(Duration::from_secs(3600));
        addresses(numbers).into_iter().map(|entry| NewEntry { ttl, ..entry }).collect()
    };
    assert!(matches!(
        rules.add(ListKind::Ban, &bans(0..BAN_CAPACITY + 1), &mut |_| {}),
        Err(Error::Full { .. })
    ));
    assert_eq!(size(&rules, "ban"), 0);
    // The oldest first, one after another, then the rest at once.
    let began = Instant::now();
    (0..20).for_each(|number| _ = add(&rules, ListKind::Ban, &bans(number..number + 1)));
    add(&rules, ListKind::Ban, &bans(20..BAN_CAPACITY));
    assert_eq!((size(&rules, "ban"), rules.evicted_bans().unwrap()), (u64::from(BAN_CAPACITY), 0));
    // A ban that is set anew is the newest.
    add(&rules, ListKind::Ban, &bans(0..1));
    let held = |number: u32| rules.explain(address(number).addr(), None).unwrap().reason == "ban_list";
    for number in 0..10 {
        assert_eq!(
            add(&rules, ListKind::Ban, &bans(BAN_CAPACITY + number..BAN_CAPACITY + number + 1)).added,
            1
        );
        assert!(!held(number + 1) && held(number + 2) && held(0), "{number}");
    }
    // As many in one change as make a new table.
    add(&rules, ListKind::Ban, &bans(BAN_CAPACITY + 10..BAN_CAPACITY + 310));
    assert!(held(0) && !(1..20).any(held));
    assert_eq!((size(&rules, "ban"), rules.evicted_bans().unwrap()), (u64::from(BAN_CAPACITY), 310));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn bans_that_are_over_make_room_and_are_not_counted_as_evicted() {
    let rules = Rules::in_userspace().unwrap();
    let over =
        addresses(0..BAN_CAPACITY).into_iter().map(|entry| NewEntry { ttl: Some(Duration::ZERO), ..entry });
    add(&rules, ListKind::Ban, &over.collect::<Vec<_>>());
    add(&rules, ListKind::Ban, &[for_a_while("203.0.113.1/32", 60)]);
    assert_eq!(prefixes(&rules.entries(ListKind::Ban).unwrap()), ["203.0.113.1/32"]);
    assert_eq!(rules.evicted_bans().unwrap(), 0);
}

#[test]
fn a_hundred_thousand_single_changes_leave_an_exact_table() {
    let rules = Rules::in_userspace().unwrap();
    let mut model: BTreeMap<IpNet, (String, bool)> = BTreeMap::new();
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut added, mut removed) = (0, 0);
    for _ in 0..100_000 {
        let bits = 0x0a00_0000 + next(1 << 14) as u32;
        let prefix = IpNet::V4(Ipv4Net::new(bits.into(), 24 + next(9) as u8).unwrap().trunc());
        if next(2) == 0 {
            let entry =
                NewEntry { prefix, rule: format!("rule {}", next(3)), ttl: None, shadow: next(4) == 0 };
            let did = add(&rules, ListKind::Deny, std::slice::from_ref(&entry));
            let before = model.insert(prefix, (entry.rule.clone(), entry.shadow));
            let wanted = match before {
                None => Added { added: 1, updated: 0 },
                Some(before) => {
                    Added { added: 0, updated: usize::from(before != (entry.rule, entry.shadow)) }
                }
            };
            assert_eq!(did, wanted, "{prefix}");
            added += 1;
        } else {
            let did = rules.remove(ListKind::Deny, &[prefix]).unwrap();
            assert_eq!(did.removed == 1, model.remove(&prefix).is_some(), "{prefix}");
            removed += 1;
        }
    }
    assert!(added > 40_000 && removed > 40_000);
    let found: BTreeMap<IpNet, (String, bool)> = rules
        .entries(ListKind::Deny)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.prefix, (entry.rule, entry.shadow)))
        .collect();
    assert_eq!(found, model);
    assert_eq!(size(&rules, "deny"), model.len() as u64);
    for prefix in model.keys().copied().collect::<Vec<_>>() {
        assert_eq!(rules.remove(ListKind::Deny, &[prefix]).unwrap().removed, 1);
    }
    assert!(rules.entries(ListKind::Deny).unwrap().is_empty());
    assert_eq!(size(&rules, "deny"), 0);
}

#[test]
fn a_rule_table_that_is_full_refuses_new_labels_and_reuses_idle_rows() {
    let rules = Rules::in_userspace().unwrap();
    let labelled =
        |number: u32| NewEntry { rule: format!("label {number}"), prefix: address(number), ..new("::/0") };
    let many: Vec<NewEntry> = (0..RULES).map(labelled).collect();
    add(&rules, ListKind::Deny, &many);
    let refused = |entries: &[NewEntry]| {
        let answer = rules.add(ListKind::Deny, entries, &mut |_| {});
        assert!(matches!(answer, Err(Error::RulesFull { capacity: RULES })), "{answer:?}");
    };
    refused(&[labelled(5000)]);
    rules.remove(ListKind::Deny, &[many[7].prefix, many[9].prefix]).unwrap();
    refused(&[labelled(5000), labelled(5001), labelled(5002)]);
    assert_eq!(size(&rules, "deny"), u64::from(RULES) - 2, "nothing was written");
    // Two at once get two rows.
    add(&rules, ListKind::Deny, &[labelled(5000), labelled(5001)]);
    for number in [5000, 5001, 8] {
        let (_, shown) = explained(&rules, &address(number).addr().to_string());
        assert_eq!(shown, format!("deny {} label {number}", address(number)));
    }
    let counted = rules.counters().unwrap().rules;
    assert_eq!(counted.len(), RULES as usize);
    let named = |rule: &str| counted.iter().filter(|row| row.rule == rule).count();
    assert_eq!([named("label 7"), named("label 9"), named("label 5000"), named("label 5001")], [0, 0, 1, 1]);
    // A list's rules come from the same table.
    let list = NewList {
        kind: ListKind::Deny,
        name: "list".to_owned(),
        source: String::new(),
        shadow: false,
        labels: vec!["its rule".to_owned()],
        entries: Vec::new(),
    };
    let answer = rules.replace(Owner::Operator, &list, &mut |_| {});
    assert!(matches!(answer, Err(Error::RulesFull { .. })), "{answer:?}");
    assert_eq!((rules.generation().unwrap(), rules.lists().unwrap()), (0, Vec::new()));
}

#[test]
fn userspace_judges_and_counts_connections_at_accept() {
    let rules = Rules::in_userspace().unwrap();
    add(&rules, ListKind::Deny, &all(&["192.0.2.0/24"]));
    let local: SocketAddr = "198.18.0.1:80".parse().unwrap();
    for (peer, expected) in [
        ("192.0.2.1:4000", false),
        ("192.0.3.1:4000", true),
        // A dual-stack listener shows v4 peers as mapped v6 addresses; the v4 lists hold for them.
        ("[::ffff:192.0.2.1]:4000", false),
    ] {
        assert_eq!(rules.admits(peer.parse().unwrap(), local), expected, "{peer}");
    }
    let counters = rules.counters().unwrap();
    let dropped = counters.reasons.iter().find(|row| row.reason == "deny_list").unwrap();
    assert_eq!((dropped.interface.as_str(), dropped.count.packets), ("accept", 2));
    assert_eq!(counters.rules[0].count.packets, 2);
}

#[test]
fn a_ban_stays_within_its_bounds() {
    over_both(|rules| {
        let bounds = BanBounds { max: 2, max_ttl: Duration::from_secs(3600), v4_prefix: 16, v6_prefix: 32 };
        rules.set_ban_bounds(bounds).unwrap();
        for (prefix, seconds, refused) in [
            ("192.0.0.0/16", 3600, None),
            ("192.0.0.0/15", 60, Some("192.0.0.0/15 is wider than a ban may be here, which is /16")),
            ("2001:db8::/31", 60, Some("/32")),
            ("192.0.2.1/32", 3601, Some("may last 3600 s")),
            ("2001:db8::/32", 60, None),
            ("192.0.2.1/32", 60, None),
        ] {
            let added = rules.add(ListKind::Ban, &[for_a_while(prefix, seconds)], &mut |_| {});
            match (added, refused) {
                (Ok(_), None) => {}
                (Err(Error::Refused(why)), Some(expected)) => assert!(why.contains(expected), "{why}"),
                (added, _) => panic!("{prefix}: {added:?}"),
            }
        }
        // Two at a time: the first one left.
        assert_eq!(prefixes(&rules.entries(ListKind::Ban).unwrap()), ["192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(rules.evicted_bans().unwrap(), 1);
    });
}
