//! Named lists: replaced, previewed, forgotten, rolled back, and what overlaps of several come to.

use gateway_kernel::{Error, ListEntry, ListKind, NewEntry, NewList, Owner, Preview, Removed, Rules};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::lists::{add, all, check_explained, nets, new, over_both, prefixes, size};

const DENY: ListKind = ListKind::Deny;

/// A list with one rule, which has the list's name.
pub(crate) fn list(kind: ListKind, name: &str, prefixes: &[&str]) -> NewList {
    list_of(kind, name, nets(prefixes))
}

pub(crate) fn list_of(kind: ListKind, name: &str, prefixes: Vec<IpNet>) -> NewList {
    let entries = prefixes.into_iter().map(|prefix| ListEntry { prefix, label: 0, shadow: false }).collect();
    let labels = vec![format!("rule of {name}")];
    NewList { kind, name: name.to_owned(), source: "a file".to_owned(), shadow: false, labels, entries }
}

pub(crate) fn replace(rules: &Rules, owner: Owner, list: NewList) -> (u64, bool, usize) {
    let replaced = rules.replace(owner, &list, &mut |_| {}).unwrap();
    (replaced.generation, replaced.changed, replaced.entries)
}

/// Names with the entries of each, and the generation they are of.
fn lists(rules: &Rules) -> Vec<(String, u64, u64)> {
    let infos = rules.lists().unwrap().into_iter();
    infos.map(|info| (info.name.clone(), info.entries(), info.generation)).collect()
}

fn owned(name: &str, entries: u64, generation: u64) -> (String, u64, u64) {
    (name.to_owned(), entries, generation)
}

#[test]
fn a_list_that_says_the_same_makes_no_generation() {
    over_both(|rules| {
        let first = list(DENY, "a", &["192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(replace(rules, Owner::Operator, first.clone()), (1, true, 2));
        assert_eq!(replace(rules, Owner::Operator, first.clone()), (1, false, 2));
        for (number, (name, other)) in [
            ("an entry less", list(DENY, "a", &["192.0.2.0/24"])),
            ("shadow", NewList { shadow: true, ..first.clone() }),
            ("a rule", NewList { labels: vec!["another".to_owned()], ..first.clone() }),
            ("a source", NewList { source: "elsewhere".to_owned(), ..first.clone() }),
            ("the first one", first.clone()),
            ("nothing", list(DENY, "a", &[])),
        ]
        .into_iter()
        .enumerate()
        {
            let entries = other.entries.len();
            assert_eq!(replace(rules, Owner::Operator, other), (number as u64 + 2, true, entries), "{name}");
        }
        assert_eq!(lists(rules), [owned("a", 0, 7)], "an empty list is a list");
    });
}

#[test]
fn the_configurations_lists_come_and_go_and_operators_stay() {
    over_both(|rules| {
        replace(rules, Owner::Operator, list(DENY, "mine", &["203.0.113.0/24"]));
        let one = list(DENY, "one", &["192.0.2.0/24"]);
        let two = list(ListKind::Allow, "two", &["192.0.2.9/32"]);
        let made = rules.reconcile(&[one.clone(), two.clone()]).unwrap();
        assert_eq!((made.generation, made.changed, made.entries), (2, true, 2));
        let turned = rules.reconcile(&[two.clone(), one.clone()]).unwrap();
        assert_eq!((turned.generation, turned.changed), (2, false), "in another order");
        assert_eq!(lists(rules), [owned("mine", 1, 1), owned("one", 1, 2), owned("two", 1, 2)]);
        check_explained(
            rules,
            &[
                ("192.0.2.1", "deny_list", "one 192.0.2.0/24 rule of one"),
                ("192.0.2.9", "allow_list", "two 192.0.2.9/32 rule of two"),
                ("203.0.113.9", "deny_list", "mine 203.0.113.0/24 rule of mine"),
            ],
        );
        rules.reconcile(&[two]).unwrap();
        assert_eq!(lists(rules), [owned("mine", 1, 1), owned("two", 1, 3)]);
        rules.reconcile(&[]).unwrap();
        assert_eq!((lists(rules), rules.generation().unwrap()), (vec![owned("mine", 1, 1)], 4));
    });
}

#[test]
fn of_equal_prefixes_the_single_one_then_the_first_list_is_named() {
    over_both(|rules| {
        let both = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24"];
        replace(rules, Owner::Operator, list(DENY, "first", &both));
        rules.reconcile(&[list(DENY, "second", &[&both[..], &["192.0.2.0/25"]].concat())]).unwrap();
        add(rules, DENY, &all(&["198.51.100.0/24"]));
        check_explained(
            rules,
            &[
                ("192.0.2.200", "deny_list", "first 192.0.2.0/24 rule of first"),
                ("192.0.2.1", "deny_list", "second 192.0.2.0/25 rule of second"),
                ("2001:db8::1", "deny_list", "first 2001:db8::/32 rule of first"),
                ("198.51.100.1", "deny_list", "deny 198.51.100.0/24 test"),
            ],
        );
        let entry = |source: &str| {
            let explained = rules.explain(source.parse().unwrap(), None).unwrap();
            assert_eq!(explained.generation, 2);
            explained.stages.into_iter().filter_map(|stage| stage.entry).next_back().unwrap()
        };
        assert_eq!((entry("192.0.2.1").generation, entry("192.0.2.1").owner), (Some(2), Owner::Config));
        assert_eq!((entry("192.0.2.200").generation, entry("192.0.2.200").owner), (Some(1), Owner::Operator));
        assert_eq!(entry("198.51.100.1").generation, None);
        // All are kept: three of the first, four of the second, and the single one.
        assert_eq!(rules.entries(DENY).unwrap().len(), 8);
        assert_eq!((size(rules, "lists_v4"), size(rules, "lists_v6"), size(rules, "deny")), (3, 1, 1));
        // A list that is replaced stays in its place.
        replace(rules, Owner::Operator, list(DENY, "first", &both[..2]));
        check_explained(
            rules,
            &[
                ("192.0.2.200", "deny_list", "first 192.0.2.0/24 rule of first"),
                ("198.51.100.1", "deny_list", "deny 198.51.100.0/24 test"),
            ],
        );
        rules.remove(DENY, &nets(&["198.51.100.0/24"])).unwrap();
        check_explained(rules, &[("198.51.100.1", "deny_list", "second 198.51.100.0/24 rule of second")]);
    });
}

#[test]
fn remove_takes_the_operators_entries_and_leaves_the_configurations() {
    over_both(|rules| {
        replace(rules, Owner::Operator, list(DENY, "mine", &["192.0.2.0/24", "198.51.100.0/24"]));
        let theirs = list(DENY, "theirs", &["192.0.2.0/24", "203.0.113.0/24"]);
        rules.reconcile(std::slice::from_ref(&theirs)).unwrap();
        add(rules, DENY, &all(&["192.0.2.0/24", "203.0.113.0/24"]));
        let all = nets(&["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/25"]);
        let removed = rules.remove(DENY, &all).unwrap();
        let kept_by_config = vec![all[0], all[2]];
        assert_eq!(removed, Removed { removed: 3, missing: vec![all[3]], kept_by_config });
        check_explained(
            rules,
            &[
                ("192.0.2.1", "deny_list", "theirs 192.0.2.0/24 rule of theirs"),
                ("198.51.100.1", "no_match", ""),
                ("203.0.113.1", "deny_list", "theirs 203.0.113.0/24 rule of theirs"),
            ],
        );
        assert_eq!(prefixes(&rules.entries(DENY).unwrap()), ["192.0.2.0/24", "203.0.113.0/24"]);
        assert_eq!(lists(rules), [owned("mine", 0, 1), owned("theirs", 2, 2)]);
        assert_eq!((size(rules, "lists_v4"), rules.generation().unwrap()), (2, 2));
        // What is gone is gone in the next generation too, until the list is loaded anew.
        assert!(!rules.reconcile(&[theirs]).unwrap().changed);
        replace(rules, Owner::Operator, list(DENY, "other", &["10.0.0.0/8"]));
        assert_eq!(lists(rules), [owned("mine", 0, 1), owned("theirs", 2, 2), owned("other", 1, 3)]);
        let mine = list(DENY, "mine", &["192.0.2.0/24", "198.51.100.0/24"]);
        assert_eq!(replace(rules, Owner::Operator, mine), (4, true, 2));
        check_explained(rules, &[("198.51.100.1", "deny_list", "mine 198.51.100.0/24 rule of mine")]);
    });
}

#[test]
fn what_is_deleted_from_a_list_comes_back_with_the_list() {
    over_both(|rules| {
        let mine = list(DENY, "mine", &["192.0.2.0/24", "2001:db8::/32"]);
        replace(rules, Owner::Operator, mine.clone());
        assert_eq!(rules.remove(DENY, &nets(&["2001:db8::/32"])).unwrap().removed, 1);
        assert_eq!((lists(rules), size(rules, "lists_v6")), (vec![owned("mine", 1, 1)], 0));
        assert_eq!(replace(rules, Owner::Operator, mine), (2, true, 2));
        check_explained(rules, &[("2001:db8::1", "deny_list", "mine 2001:db8::/32 rule of mine")]);
    });
}

#[test]
fn a_prefix_that_a_list_names_twice_is_one_entry_the_last() {
    let twice = |name: &str, shadow: bool| NewList {
        labels: vec!["a".to_owned(), "b".to_owned()],
        entries: [("192.0.2.0/24", 0, false), ("203.0.113.0/24", 0, false), ("192.0.2.0/24", 1, shadow)]
            .map(|(prefix, label, shadow)| ListEntry { prefix: prefix.parse().unwrap(), label, shadow })
            .to_vec(),
        ..list(DENY, name, &[])
    };
    over_both(|rules| {
        for (number, shadow) in [false, true].into_iter().enumerate() {
            let made = 2 * number as u64 + 1;
            let reason = if shadow { "deny_shadow" } else { "deny_list" };
            assert_eq!(replace(rules, Owner::Operator, twice("once", shadow)), (made, true, 2), "{shadow}");
            check_explained(rules, &[("192.0.2.1", reason, "once 192.0.2.0/24 b")]);
            // The same behind another list that has the prefix.
            assert_eq!(
                replace(rules, Owner::Operator, twice("again", shadow)),
                (made + 1, true, 2),
                "{shadow}"
            );
            assert_eq!(rules.entries(DENY).unwrap().len(), 4, "{shadow}");
            assert!(lists(rules).iter().all(|(_, entries, _)| *entries == 2), "{shadow}: {:?}", lists(rules));
            assert_eq!(
                rules.preview(&twice("again", shadow)).unwrap(),
                Preview { before: 2, after: 2, ..Preview::default() }
            );
            rules.remove(DENY, &nets(&["192.0.2.0/24"])).unwrap();
            check_explained(rules, &[("192.0.2.1", "no_match", "")]);
            assert_eq!(rules.entries(DENY).unwrap().len(), 2, "{shadow}");
        }
    });
}

#[test]
fn a_rollback_goes_back_and_forth() {
    over_both(|rules| {
        let state = |rules: &Rules| (rules.generation().unwrap(), prefixes(&rules.entries(DENY).unwrap()));
        assert!(matches!(rules.roll_back(), Err(Error::Refused(_))));
        replace(rules, Owner::Operator, list(DENY, "a", &["192.0.2.0/24"]));
        assert!(matches!(rules.roll_back(), Err(Error::Refused(_))), "there is only one");
        replace(rules, Owner::Operator, list(DENY, "a", &["192.0.2.0/25"]));
        add(rules, DENY, &all(&["203.0.113.1/32"]));
        let (first, second) =
            (vec!["192.0.2.0/24", "203.0.113.1/32"], vec!["192.0.2.0/25", "203.0.113.1/32"]);
        let of = |list: &Vec<&str>| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(rules.roll_back().unwrap(), 1);
        assert_eq!(state(rules), (1, of(&first)));
        assert_eq!(rules.roll_back().unwrap(), 2);
        assert_eq!(state(rules), (2, of(&second)));
        rules.roll_back().unwrap();
        // What is made after a rollback gets a number that nothing had before, and leads back to where it came from.
        assert_eq!(replace(rules, Owner::Operator, list(DENY, "a", &["192.0.2.0/26"])), (3, true, 1));
        assert_eq!(rules.roll_back().unwrap(), 1);
        assert_eq!(replace(rules, Owner::Operator, list(DENY, "a", &["192.0.2.0/24"])), (1, false, 1));
    });
}

#[test]
fn lists_are_forgotten_by_name_or_flushed_all_together() {
    over_both(|rules| {
        replace(rules, Owner::Operator, list(DENY, "a", &["192.0.2.0/24", "192.0.2.0/25"]));
        replace(rules, Owner::Operator, list(DENY, "b", &["192.0.2.0/24"]));
        replace(rules, Owner::Operator, list(ListKind::Allow, "d", &["192.0.2.1/32"]));
        rules.reconcile(&[list(DENY, "c", &["203.0.113.0/24"])]).unwrap();
        add(rules, DENY, &all(&["198.51.100.1/32"]));
        assert_eq!(rules.forget(DENY, "a").unwrap(), 2);
        check_explained(rules, &[("192.0.2.2", "deny_list", "b 192.0.2.0/24 rule of b")]);
        for (name, why) in [("a", "there are b, c"), ("c", "the configuration brings it")] {
            let said = rules.forget(DENY, name).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        assert_eq!(rules.flush(DENY).unwrap(), 2);
        assert_eq!(lists(rules), [owned("d", 1, 3), owned("c", 1, 4)]);
        assert_eq!(prefixes(&rules.entries(DENY).unwrap()), ["203.0.113.0/24"]);
    });
}

#[test]
fn names_that_cannot_be_are_refused_and_nothing_changes() {
    let table: [(&str, Owner, NewList, &str); 8] = [
        ("no name", Owner::Operator, list(DENY, "", &[]), "1 to 56 bytes"),
        ("a long name", Owner::Operator, list(DENY, &"x".repeat(57), &[]), "1 to 56 bytes"),
        ("a reserved name", Owner::Operator, list(DENY, "allow", &[]), "made singly"),
        ("a list of bans", Owner::Operator, list(ListKind::Ban, "x", &[]), "made singly"),
        ("the configuration's", Owner::Operator, list(DENY, "theirs", &[]), "of the configuration"),
        ("an operator's", Owner::Config, list(DENY, "mine", &[]), "of an operator's"),
        (
            "a rule that is not there",
            Owner::Operator,
            NewList { labels: Vec::new(), ..list(DENY, "x", &["192.0.2.0/24"]) },
            "has rule 0",
        ),
        (
            "more prefixes than fit",
            Owner::Operator,
            list_of(DENY, "x", (0..(1 << 21) + 1).map(|number| v6(number, 128)).collect()),
            "2097152",
        ),
    ];
    over_both(|rules| {
        replace(rules, Owner::Operator, list(DENY, "mine", &["192.0.2.0/24"]));
        rules.reconcile(&[list(DENY, "theirs", &["203.0.113.0/24"])]).unwrap();
        let before = (rules.entries(DENY).unwrap(), rules.lists().unwrap());
        for (name, owner, list, why) in &table {
            let said = rules.replace(*owner, list, &mut |_| {}).unwrap_err().to_string();
            assert!(said.contains(why), "{name}: {said}");
        }
        let twins = vec![list(DENY, "x", &[]), list(DENY, "x", &["192.0.2.0/24"])];
        assert!(matches!(rules.reconcile(&twins), Err(Error::Refused(_))));
        let many: Vec<NewList> = (0..256).map(|number| list(DENY, &format!("list {number}"), &[])).collect();
        assert!(rules.reconcile(&many).unwrap_err().to_string().contains("256 lists"));
        assert_eq!((rules.entries(DENY).unwrap(), rules.lists().unwrap()), before);
        assert_eq!(rules.generation().unwrap(), 2);
        // With what is there already it is 256 that fit.
        let most: Vec<NewList> =
            (0..255).map(|number| list(DENY, &format!("list {number}"), &["10.0.0.0/8"])).collect();
        assert_eq!(rules.reconcile(&most).unwrap().entries, 255);
        assert_eq!((rules.lists().unwrap().len(), rules.entries(DENY).unwrap().len()), (256, 256));
    });
}

#[test]
fn a_preview_says_what_a_replacement_would_change() {
    over_both(|rules| {
        let shadowed = |list: NewList| NewList { shadow: true, ..list };
        let labelled = |list: NewList, label: &str| NewList { labels: vec![label.to_owned()], ..list };
        let there = list(DENY, "a", &["192.0.2.0/24", "192.0.2.0/25", "2001:db8::/32"]);
        let long = "é".repeat(40);
        let fewer = list(DENY, "a", &["192.0.2.0/24", "192.0.2.0/26"]);
        let preview = |before, after, added, removed, changed| Preview {
            before,
            after,
            added,
            removed,
            changed,
            sources: 0,
            hits: 0,
        };
        replace(rules, Owner::Operator, list(DENY, "other", &["192.0.2.0/24"]));
        assert_eq!(rules.preview(&there).unwrap(), preview(0, 3, 3, 0, 0));
        replace(rules, Owner::Operator, labelled(there.clone(), &long));
        for (name, list, expected) in [
            ("the same, with a long rule", labelled(there.clone(), &long), preview(3, 3, 0, 0, 0)),
            ("another rule", there.clone(), preview(3, 3, 0, 0, 3)),
            ("in shadow mode", shadowed(labelled(there.clone(), &long)), preview(3, 3, 0, 0, 3)),
            ("others", labelled(fewer, &long), preview(3, 2, 1, 2, 0)),
            ("nothing", list(DENY, "a", &[]), preview(3, 0, 0, 3, 0)),
        ] {
            assert_eq!(rules.preview(&list).unwrap(), expected, "{name}");
        }
        // What would be refused is not previewed.
        replace(rules, Owner::Config, list(DENY, "theirs", &["198.51.100.0/24"]));
        let refused = rules.preview(&list(DENY, "theirs", &["192.0.2.0/24"]));
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert_eq!(rules.generation().unwrap(), 3);
    });
}

fn v6(number: u128, length: u8) -> IpNet {
    Ipv6Net::new(((0x2001_0db8_u128 << 96) + (number << (128 - length))).into(), length).unwrap().into()
}

fn v4(number: u32, length: u8) -> IpNet {
    Ipv4Net::new((0x0a00_0000 + (number << (32 - length))).into(), length).unwrap().into()
}

#[test]
fn every_length_is_found() {
    let v6_source = "fedc:ba98:7654:3210:0123:4567:89ab:cdef"; // typos: ignore
    let v4_source = "251.186.152.118";
    over_both(|rules| {
        let nested = |source: &str, longest: u8| -> Vec<IpNet> {
            (0..=longest).map(|length| IpNet::new(source.parse().unwrap(), length).unwrap().trunc()).collect()
        };
        for (source, longest) in [(v6_source, 128), (v4_source, 32)] {
            let mut left = nested(source, longest);
            while let Some(most_specific) = left.last() {
                let shown = format!("a {most_specific} rule of a");
                replace(rules, Owner::Operator, list_of(DENY, "a", left.clone()));
                check_explained(rules, &[(source, "deny_list", &shown)]);
                assert_eq!(rules.entries(DENY).unwrap().len(), left.len());
                // Every length first, then some of them as the longest.
                left.truncate(if longest == 32 { left.len() - 1 } else { left.len().saturating_sub(9) });
            }
        }
    });
}

#[test]
fn dense_lists_have_room() {
    let table: [(&str, Vec<IpNet>); 7] = [
        ("addresses in a row", (0..70_000).map(|number| v4(number, 32)).collect()),
        ("networks in a row", (0..10_000).map(|number| v4(number, 24)).collect()),
        ("pairs, and one larger", (0..30_000).map(|number| v4(number, 31)).chain([v4(3, 29)]).collect()),
        ("sites of IPv6 in a row", (0..10_000).map(|number| v6(number, 48)).collect()),
        ("networks of IPv6 in a row", (0..30_000).map(|number| v6(number, 64)).collect()),
        ("addresses of IPv6 in a row", (0..30_000).map(|number| v6(number, 128)).collect()),
        (
            "a whole tree",
            (100..=112)
                .flat_map(|length| (0..1 << (length - 100)).map(move |number| v6(number, length)))
                .collect(),
        ),
    ];
    let rules = Rules::in_userspace().unwrap();
    for (name, prefixes) in table {
        let last = prefixes.iter().max_by_key(|prefix| prefix.prefix_len()).copied().unwrap();
        replace(&rules, Owner::Operator, list_of(DENY, name, prefixes.clone()));
        let shown = format!("{name} {last} rule of {name}");
        check_explained(&rules, &[(&last.addr().to_string(), "deny_list", &shown)]);
        let mut sorted = prefixes;
        sorted.sort_unstable();
        let found: Vec<IpNet> = rules.entries(DENY).unwrap().iter().map(|entry| entry.prefix).collect();
        assert_eq!(found, sorted, "{name}");
        rules.forget(DENY, name).unwrap();
    }
}

#[test]
fn a_list_in_shadow_mode_only_counts() {
    over_both(|rules| {
        let shadow = NewList { shadow: true, ..list(DENY, "trial", &["192.0.2.0/25"]) };
        replace(rules, Owner::Operator, shadow);
        replace(rules, Owner::Operator, list(DENY, "real", &["192.0.2.0/26"]));
        add(rules, ListKind::Allow, &[NewEntry { shadow: true, ..new("192.0.2.0/24") }]);
        check_explained(
            rules,
            &[
                ("192.0.2.1", "deny_list", "real 192.0.2.0/26 rule of real"),
                ("192.0.2.100", "deny_shadow", "trial 192.0.2.0/25 rule of trial"),
                ("192.0.2.200", "no_match", "allow 192.0.2.0/24 test"),
            ],
        );
    });
}
