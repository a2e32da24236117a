//! Lists: what add, remove, flush and reconcile do, alike over pinned maps and in userspace.

use std::net::SocketAddr;
use std::time::Duration;

use gateway_kernel::{Added, Entry, Error, ListKind, NewEntry, Owner, Rules};

fn new(prefix: &str) -> NewEntry {
    NewEntry { prefix: prefix.parse().unwrap(), rule: "test".to_owned(), ttl: None, shadow: false }
}

fn all(prefixes: &[&str]) -> Vec<NewEntry> {
    prefixes.iter().map(|prefix| new(prefix)).collect()
}

fn prefixes(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.prefix.to_string()).collect()
}

fn add(rules: &Rules, owner: Owner, list: ListKind, entries: &[NewEntry]) -> Added {
    rules.add(list, owner, entries, &mut |_| {}).unwrap()
}

/// Runs a check over both stores.
fn over_both(check: impl Fn(&Rules)) {
    check(&Rules::in_userspace());
    if let Some(sandbox) = crate::sandbox() {
        check(sandbox.rules());
    }
}

fn size(rules: &Rules, map: &str) -> u64 {
    rules.usage().unwrap().into_iter().find(|usage| usage.map == map).unwrap().entries
}

#[test]
fn entries_come_back_in_address_order_and_once_a_prefix() {
    over_both(|rules| {
        let added = add(
            rules,
            Owner::Operator,
            ListKind::Deny,
            &all(&["2001:db8::/32", "203.0.113.0/24", "192.0.2.0/24", "192.0.2.0/25", "203.0.113.0/24"]),
        );
        assert_eq!(added, Added { added: 4, updated: 0 });
        let entries = rules.entries(ListKind::Deny).unwrap();
        assert_eq!(prefixes(&entries), ["192.0.2.0/24", "192.0.2.0/25", "203.0.113.0/24", "2001:db8::/32"]);
        assert_eq!((size(rules, "deny_v4"), size(rules, "deny_v6")), (3, 1));
        let again = add(rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.0/24"]));
        assert_eq!(again, Added::default(), "the same entry again changes nothing");
    });
}

#[test]
fn remove_names_what_was_not_there_and_what_the_configuration_keeps() {
    over_both(|rules| {
        add(rules, Owner::Config, ListKind::Deny, &all(&["192.0.2.0/24"]));
        add(rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.0/24", "198.51.100.0/24"]));
        let gone = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"].map(|text| text.parse().unwrap());
        let removed = rules.remove(ListKind::Deny, &gone).unwrap();
        assert_eq!(removed.removed, 1);
        assert_eq!(removed.missing, [gone[2]]);
        assert_eq!(removed.kept_by_config, [gone[0]]);
        let left = rules.entries(ListKind::Deny).unwrap();
        assert_eq!(prefixes(&left), ["192.0.2.0/24"]);
        assert_eq!(left[0].owners, [Owner::Config]);
    });
}

#[test]
fn a_prefix_named_twice_is_removed_once_and_the_list_stays_in_force() {
    over_both(|rules| {
        add(rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.1/32", "198.51.100.0/24"]));
        let twice = ["192.0.2.1/32", "192.0.2.1/32"].map(|text| text.parse().unwrap());
        assert_eq!(rules.remove(ListKind::Deny, &twice).unwrap().removed, 1);
        assert_eq!(size(rules, "deny_v4"), 1, "a size of none would switch the list off in the kernel");
    });
}

#[test]
fn what_the_configuration_allows_outlasts_an_operators_time_to_live() {
    over_both(|rules| {
        add(rules, Owner::Config, ListKind::Allow, &all(&["192.0.2.1/32"]));
        let over =
            NewEntry { ttl: Some(Duration::ZERO), rule: "for a while".to_owned(), ..new("192.0.2.1/32") };
        add(rules, Owner::Operator, ListKind::Allow, std::slice::from_ref(&over));
        add(rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.0/24"]));
        let reason = || rules.explain("192.0.2.1".parse().unwrap(), None).unwrap().reason;
        assert_eq!(reason(), "allow_list", "before the sweep");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(rules.expire().unwrap(), 0, "it stays in the list");
        assert_eq!(reason(), "allow_list", "after the sweep");
        let entry = rules.entries(ListKind::Allow).unwrap().remove(0);
        assert_eq!((entry.owners.as_slice(), entry.ttl_seconds), (&[Owner::Config][..], None));
        // An agent that was down meanwhile finds the operator's entry over, and takes the prefix for itself.
        add(rules, Owner::Operator, ListKind::Allow, &[over]);
        rules.reconcile(ListKind::Allow, &all(&["192.0.2.1/32"])).unwrap();
        let entry = rules.entries(ListKind::Allow).unwrap().remove(0);
        assert_eq!((entry.owners.as_slice(), entry.rule.as_str()), (&[Owner::Config][..], "test"));
    });
}

#[test]
fn a_configurations_shadow_comes_back_when_the_operator_lets_go() {
    over_both(|rules| {
        let shadow = NewEntry { shadow: true, ..new("192.0.2.1/32") };
        add(rules, Owner::Config, ListKind::Allow, std::slice::from_ref(&shadow));
        add(rules, Owner::Operator, ListKind::Allow, &all(&["192.0.2.1/32"]));
        assert!(!rules.entries(ListKind::Allow).unwrap()[0].shadow);
        rules.remove(ListKind::Allow, &[shadow.prefix]).unwrap();
        assert!(rules.entries(ListKind::Allow).unwrap()[0].shadow);
    });
}

#[test]
fn a_configured_list_is_replaced_by_another_that_fits_only_alone() {
    let many = |from: u32| -> Vec<NewEntry> {
        let address = |low| std::net::IpAddr::from(std::net::Ipv4Addr::from(from + low));
        (0..40_000).map(|low| NewEntry { prefix: address(low).into(), ..new("192.0.2.1/32") }).collect()
    };
    let rules = Rules::in_userspace();
    rules.reconcile(ListKind::Allow, &many(0xc612_0000)).unwrap();
    let replaced = rules.reconcile(ListKind::Allow, &many(0xc613_0000)).unwrap();
    assert_eq!((replaced.added, replaced.removed), (40_000, 40_000));
    assert_eq!(size(&rules, "allow_v4"), 40_000);
}

#[test]
fn batches_of_several_lists_are_written_together_or_not_at_all() {
    over_both(|rules| {
        let many: Vec<NewEntry> = (0..65_537_u32)
            .map(|low| NewEntry {
                prefix: std::net::IpAddr::from(std::net::Ipv4Addr::from(0xc612_0000 + low)).into(),
                ..new("192.0.2.1/32")
            })
            .collect();
        let batches = [(ListKind::Deny, all(&["192.0.2.0/24"])), (ListKind::Allow, many)];
        let refused = rules.add_batches(Owner::Operator, &batches, &mut |_| {});
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        assert!(rules.entries(ListKind::Deny).unwrap().is_empty());
        assert_eq!((size(rules, "deny_v4"), size(rules, "allow_v4")), (0, 0));
    });
}

#[test]
fn expired_bans_make_room_before_a_list_is_called_full() {
    let rules = Rules::in_userspace();
    let address = |low: u32| std::net::IpAddr::from(std::net::Ipv4Addr::from(0xc612_0000 + low));
    let over =
        |low| NewEntry { prefix: address(low).into(), ttl: Some(Duration::ZERO), ..new("192.0.2.1/32") };
    let full: Vec<NewEntry> = (0..262_144).map(over).collect();
    add(&rules, Owner::Operator, ListKind::Ban, &full);
    let one = NewEntry { ttl: Some(Duration::from_secs(60)), ..new("203.0.113.1/32") };
    assert_eq!(add(&rules, Owner::Operator, ListKind::Ban, &[one]).added, 1);
    assert_eq!(size(&rules, "ban_v4"), 1);
}

#[test]
fn an_operators_shadow_ends_with_the_operators_entry() {
    over_both(|rules| {
        add(rules, Owner::Config, ListKind::Deny, &all(&["192.0.2.0/24"]));
        let shadow = NewEntry { shadow: true, rule: "trial".to_owned(), ..new("192.0.2.0/24") };
        add(rules, Owner::Operator, ListKind::Deny, std::slice::from_ref(&shadow));
        assert!(rules.entries(ListKind::Deny).unwrap()[0].shadow);
        rules.reconcile(ListKind::Deny, &all(&["192.0.2.0/24"])).unwrap();
        assert!(rules.entries(ListKind::Deny).unwrap()[0].shadow, "a reload keeps the operator's word");
        rules.flush(ListKind::Deny).unwrap();
        assert!(!rules.entries(ListKind::Deny).unwrap()[0].shadow);
    });
}

#[test]
fn reconcile_makes_the_configurations_share_what_it_says() {
    over_both(|rules| {
        add(rules, Owner::Operator, ListKind::Deny, &all(&["198.51.100.0/24", "192.0.2.9/32"]));
        let first = rules.reconcile(ListKind::Deny, &all(&["192.0.2.0/24", "192.0.2.9/32"])).unwrap();
        assert_eq!((first.added, first.removed), (1, 0));
        let second = rules.reconcile(ListKind::Deny, &all(&["203.0.113.0/24"])).unwrap();
        assert_eq!((second.added, second.removed), (1, 1));
        let entries = rules.entries(ListKind::Deny).unwrap();
        assert_eq!(prefixes(&entries), ["192.0.2.9/32", "198.51.100.0/24", "203.0.113.0/24"]);
        let third = rules.reconcile(ListKind::Deny, &all(&["203.0.113.0/24"])).unwrap();
        assert_eq!((third.added, third.removed, third.unchanged), (0, 0, 1));
        assert_eq!(rules.flush(ListKind::Deny).unwrap(), 2);
        assert_eq!(prefixes(&rules.entries(ListKind::Deny).unwrap()), ["203.0.113.0/24"]);
    });
}

#[test]
fn a_list_longer_than_its_map_is_refused_with_both_figures_and_writes_nothing() {
    over_both(|rules| {
        add(rules, Owner::Operator, ListKind::Allow, &all(&["192.0.2.1/32"]));
        let many: Vec<NewEntry> = (0..65_536_u32)
            .map(|low| NewEntry {
                prefix: std::net::IpAddr::from(std::net::Ipv4Addr::from(0xc612_0000 + low)).into(),
                ..new("192.0.2.1/32")
            })
            .collect();
        let refused = rules.add(ListKind::Allow, Owner::Operator, &many, &mut |_| {});
        match refused {
            Err(Error::Full { map, capacity: 65_536, used: 1, wanted: 65_536 }) => {
                assert_eq!(map, "allow_v4")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(rules.entries(ListKind::Allow).unwrap().len(), 1);
        assert_eq!(add(rules, Owner::Operator, ListKind::Allow, &many[1..]).added, 65_535, "what fits, fits");
    });
}

#[test]
fn an_expired_entry_does_not_hide_a_shorter_prefix_that_holds() {
    over_both(|rules| {
        let over =
            |prefix: &str| NewEntry { ttl: Some(Duration::ZERO), rule: "over".to_owned(), ..new(prefix) };
        let holds =
            NewEntry { ttl: Some(Duration::from_secs(600)), rule: "holds".to_owned(), ..new("192.0.2.0/24") };
        let nested: Vec<NewEntry> =
            (25..=32).map(|length| over(&format!("192.0.2.0/{length}"))).chain([holds]).collect();
        add(rules, Owner::Operator, ListKind::Ban, &nested);
        let explained = rules.explain("192.0.2.0".parse().unwrap(), None).unwrap();
        assert_eq!(explained.reason, "ban_list");
        let entry = explained.stages.iter().find_map(|stage| stage.entry.clone()).unwrap();
        assert_eq!((entry.rule.as_str(), entry.prefix.to_string().as_str()), ("holds", "192.0.2.0/24"));
        assert_eq!(rules.entries(ListKind::Ban).unwrap().len(), 1, "what is over is not listed");
        assert_eq!(rules.expire().unwrap(), 8);
        assert_eq!(size(rules, "ban_v4"), 1);
    });
}

#[test]
fn explain_names_every_stage_up_to_the_one_that_decides() {
    over_both(|rules| {
        let shadow = NewEntry { shadow: true, ttl: Some(Duration::from_secs(60)), ..new("192.0.2.0/24") };
        add(rules, Owner::Operator, ListKind::Ban, &[shadow]);
        add(rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.0/25"]));
        add(rules, Owner::Operator, ListKind::Allow, &all(&["192.0.2.1/32"]));
        for (source, reason, path) in [
            ("192.0.2.2", "deny_list", "allow next, ban shadow, deny drop"),
            ("192.0.2.200", "ban_shadow", "allow next, ban shadow, deny next, default next, pass pass"),
            ("192.0.2.1", "allow_list", "allow pass"),
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
fn userspace_judges_and_counts_connections_at_accept() {
    let rules = Rules::in_userspace();
    add(&rules, Owner::Operator, ListKind::Deny, &all(&["192.0.2.0/24"]));
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
fn a_rule_table_that_is_full_refuses_new_labels_and_reuses_idle_rows() {
    let rules = Rules::in_userspace();
    let labelled = |number: u32| NewEntry {
        prefix: std::net::IpAddr::from(std::net::Ipv4Addr::from(0xc612_0000 + number)).into(),
        rule: format!("label {number}"),
        ..new("192.0.2.0/24")
    };
    let many: Vec<NewEntry> = (0..4096).map(labelled).collect();
    add(&rules, Owner::Operator, ListKind::Deny, &many);
    let refused = rules.add(ListKind::Deny, Owner::Operator, &[labelled(5000)], &mut |_| {});
    assert!(matches!(refused, Err(Error::RulesFull { capacity: 4096 })), "{refused:?}");
    rules.remove(ListKind::Deny, &[many[7].prefix]).unwrap();
    add(&rules, Owner::Operator, ListKind::Deny, &[labelled(5000)]);
    let counted = rules.counters().unwrap();
    assert!(counted.rules.iter().any(|row| row.rule == "label 5000"));
    assert!(!counted.rules.iter().any(|row| row.rule == "label 7"));
}

#[test]
fn concurrent_writers_lose_nothing() {
    over_both(|rules| {
        std::thread::scope(|scope| {
            for writer in 0..8_u32 {
                let rules = rules.clone();
                scope.spawn(move || {
                    for number in 0..25 {
                        add(
                            &rules,
                            Owner::Operator,
                            ListKind::Deny,
                            &all(&[&format!("198.18.{writer}.{number}/32")]),
                        );
                    }
                });
            }
        });
        assert_eq!(rules.entries(ListKind::Deny).unwrap().len(), 200);
        assert_eq!(size(rules, "deny_v4"), 200);
    });
}
