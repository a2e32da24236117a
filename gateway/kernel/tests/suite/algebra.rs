//! The algebra of lists: after any operations every source is judged as a naive scan of all entries says, and what
//! is listed is what a model holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_kernel::{ListEntry, ListKind, NewEntry, NewList, Owner, Rules};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What somebody does to the lists.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Add(ListKind, Vec<NewEntry>),
    Remove(ListKind, Vec<IpNet>),
    Replace(NewList),
    Reconcile(Vec<NewList>),
    Forget(ListKind, String),
    RollBack,
    Flush(ListKind),
}

/// Addresses from a small pool, so that prefixes nest and sources meet them.
pub(crate) fn source() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4_source(), v6_source()]
}

pub(crate) fn v4_source() -> impl Strategy<Value = IpAddr> {
    let networks =
        prop_oneof![Just(0xc612_0000_u32), Just(0xc612_0300), Just(0xc000_0200), Just(0xcb00_7100)];
    (0_u32..64, networks).prop_map(|(low, high)| IpAddr::V4((high | low).into()))
}

pub(crate) fn v6_source() -> impl Strategy<Value = IpAddr> {
    (0_u128..16, 0_u128..4, 0_u128..3).prop_map(|(low, net, site)| {
        IpAddr::V6((0x2001_0db8_u128 << 96 | site << 80 | net << 64 | low).into())
    })
}

pub(crate) fn prefix() -> impl Strategy<Value = IpNet> {
    (source(), 0_u8..=128).prop_map(|(address, length)| match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 32 - length % 33).unwrap().trunc().into(),
        // Live tables hold forty lengths of IPv6 a set.
        IpAddr::V6(v6) => Ipv6Net::new(v6, length / 4 * 4).unwrap().trunc().into(),
    })
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    (source(), 0_u8..=128).prop_map(|(address, length)| match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 32 - length % 33).unwrap().trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, length).unwrap().trunc().into(),
    })
}

/// An entry for a prefix.
pub(crate) fn entry_of(prefix: impl Strategy<Value = IpNet>) -> impl Strategy<Value = NewEntry> {
    // A time to live of nothing is over when anybody looks; ten minutes are not.
    let ttl = prop_oneof![Just(None), Just(Some(Duration::ZERO)), Just(Some(Duration::from_secs(600)))];
    (prefix, ttl, any::<bool>(), 0..4).prop_map(|(prefix, ttl, shadow, rule)| NewEntry {
        prefix,
        rule: format!("rule {rule}"),
        ttl,
        shadow,
    })
}

fn kind() -> impl Strategy<Value = ListKind> {
    prop_oneof![Just(ListKind::Allow), Just(ListKind::Deny)]
}

fn name(owner: Owner) -> impl Strategy<Value = String> {
    (0..3).prop_map(move |number| format!("{owner:?} {number}"))
}

fn list(owner: Owner) -> impl Strategy<Value = NewList> {
    let entry = (any_prefix(), 0_u32..3, prop::bool::weighted(0.2));
    let entry = entry.prop_map(|(prefix, label, shadow)| ListEntry { prefix, label, shadow });
    (kind(), name(owner), prop::bool::weighted(0.2), prop::collection::vec(entry, 0..40)).prop_map(
        |(kind, name, shadow, entries)| NewList {
            kind,
            // No two lists have one name.
            name: format!("{name} to {}", kind.name()),
            source: String::new(),
            shadow,
            labels: (0..3).map(|number| format!("label {number}")).collect(),
            entries,
        },
    )
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let any_kind = || prop_oneof![Just(ListKind::Allow), Just(ListKind::Ban), Just(ListKind::Deny)];
    let entries = || prop::collection::vec(entry_of(prefix()), 1..20);
    prop_oneof![
        6 => (any_kind(), entries()).prop_map(|(kind, entries)| Operation::Add(kind, entries)),
        4 => (any_kind(), prop::collection::vec(any_prefix(), 1..40))
            .prop_map(|(kind, prefixes)| Operation::Remove(kind, prefixes)),
        4 => list(Owner::Operator).prop_map(Operation::Replace),
        3 => prop::collection::vec(list(Owner::Config), 0..4).prop_map(Operation::Reconcile),
        1 => (kind(), name(Owner::Operator))
            .prop_map(|(kind, name)| Operation::Forget(kind, format!("{name} to {}", kind.name()))),
        3 => Just(Operation::RollBack),
        1 => any_kind().prop_map(Operation::Flush),
    ]
}

/// Does it; what is refused is nothing.
pub(crate) fn apply(rules: &Rules, operation: &Operation) {
    match operation.clone() {
        Operation::Add(kind, entries) => _ = rules.add(kind, &entries, &mut |_| {}).unwrap(),
        Operation::Remove(kind, prefixes) => _ = rules.remove(kind, &prefixes).unwrap(),
        Operation::Replace(list) => _ = rules.replace(Owner::Operator, &list, &mut |_| {}).unwrap(),
        Operation::Reconcile(lists) => _ = rules.reconcile(&lists),
        Operation::Forget(kind, name) => _ = rules.forget(kind, &name),
        Operation::RollBack => _ = rules.roll_back(),
        Operation::Flush(kind) => _ = rules.flush(kind).unwrap(),
    }
}

/// An entry of the model: rule, and whether it only counts.
type Held = (String, bool);

#[derive(Debug, Clone, PartialEq)]
struct ModelList {
    kind: ListKind,
    name: String,
    shadow: bool,
    entries: BTreeMap<IpNet, Held>,
}

impl ModelList {
    fn of(list: &NewList) -> Self {
        let entries = list.entries.iter().map(|entry| {
            let rule = list.labels[entry.label as usize].clone();
            (entry.prefix, (rule, list.shadow || entry.shadow))
        });
        Self { kind: list.kind, name: list.name.clone(), shadow: list.shadow, entries: entries.collect() }
    }

    fn is_config(&self) -> bool {
        self.name.starts_with("Config")
    }
}

#[derive(Debug, Default)]
struct Model {
    live: BTreeMap<(u8, IpNet), (Held, bool)>,
    lists: Vec<ModelList>,
    former: Option<Vec<ModelList>>,
    is_any: bool,
}

fn number(kind: ListKind) -> u8 {
    match kind {
        ListKind::Allow => 0,
        ListKind::Ban => 1,
        ListKind::Deny => 2,
    }
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Add(kind, entries) => {
                for entry in entries {
                    let over = entry.ttl == Some(Duration::ZERO);
                    let held = ((entry.rule.clone(), entry.shadow), over);
                    self.live.insert((number(*kind), entry.prefix), held);
                }
            }
            Operation::Remove(kind, prefixes) => {
                for prefix in prefixes {
                    self.live.remove(&(number(*kind), *prefix));
                    for list in self.lists.iter_mut().filter(|list| list.kind == *kind && !list.is_config()) {
                        list.entries.remove(prefix);
                    }
                }
            }
            Operation::Replace(list) => {
                let list = ModelList::of(list);
                self.exchange(|lists| place(lists, list));
            }
            Operation::Reconcile(new) => {
                let mut names: Vec<_> = new.iter().map(|list| (number(list.kind), &list.name)).collect();
                names.sort_unstable();
                names.dedup();
                if names.len() < new.len() {
                    return;
                }
                let new: Vec<ModelList> = new.iter().map(ModelList::of).collect();
                self.exchange(|lists| {
                    let is_new = |old: &ModelList| {
                        new.iter().any(|list| (list.kind, &list.name) == (old.kind, &old.name))
                    };
                    lists.retain(|old| !old.is_config() || is_new(old));
                    new.iter().for_each(|list| place(lists, list.clone()));
                });
            }
            Operation::Forget(kind, name) => {
                self.exchange(|lists| lists.retain(|list| list.kind != *kind || list.name != *name));
            }
            Operation::RollBack => {
                if let Some(former) = &mut self.former {
                    std::mem::swap(former, &mut self.lists);
                }
            }
            Operation::Flush(kind) => {
                self.live.retain(|(of, _), _| *of != number(*kind));
                self.exchange(|lists| lists.retain(|list| list.kind != *kind || list.is_config()));
            }
        }
    }

    /// A new generation, if the lists are other ones then.
    fn exchange(&mut self, change: impl FnOnce(&mut Vec<ModelList>)) {
        let before = self.lists.clone();
        change(&mut self.lists);
        if self.lists != before {
            self.former = self.is_any.then_some(before);
            self.is_any = true;
        }
    }

    /// Entries of a kind that hold, those made singly first: list, prefix, rule, shadow.
    fn entries(&self, kind: ListKind) -> Vec<(String, IpNet, String, bool)> {
        let single = self.live.iter().filter(|((of, _), (_, over))| *of == number(kind) && !over).map(
            |((_, prefix), ((rule, shadow), _))| (kind.name().to_owned(), *prefix, rule.clone(), *shadow),
        );
        let listed = self.lists.iter().filter(|list| list.kind == kind).flat_map(|list| {
            let entries = list.entries.iter();
            entries.map(|(prefix, (rule, shadow))| (list.name.clone(), *prefix, rule.clone(), *shadow))
        });
        single.chain(listed).collect()
    }

    /// The reason, and the entry that is named last.
    fn judge(&self, source: IpAddr) -> (String, Option<(String, IpNet, String)>) {
        let mut named = None;
        let mut shadow = None;
        for (kind, enforced, shadowed) in [
            (ListKind::Allow, "allow_list", None),
            (ListKind::Ban, "ban_list", Some("ban_shadow")),
            (ListKind::Deny, "deny_list", Some("deny_shadow")),
        ] {
            let entries = self.entries(kind);
            let best = |in_shadow: bool| {
                let covering = entries
                    .iter()
                    .filter(|(_, prefix, _, shadow)| *shadow == in_shadow && prefix.contains(&source));
                // Of equal lengths the first one.
                covering.rev().max_by_key(|(_, prefix, ..)| prefix.prefix_len())
            };
            let found = |(list, prefix, rule, _): &(String, IpNet, String, bool)| {
                Some((list.clone(), *prefix, rule.clone()))
            };
            if let Some(entry) = best(false) {
                return (enforced.to_owned(), found(entry));
            }
            if let Some(entry) = best(true) {
                named = found(entry);
                shadow = shadow.or(shadowed);
            }
        }
        (shadow.unwrap_or("no_match").to_owned(), named)
    }
}

/// Puts a list where it was, or at the end.
fn place(lists: &mut Vec<ModelList>, new: ModelList) {
    match lists.iter_mut().find(|list| (list.kind, &list.name) == (new.kind, &new.name)) {
        Some(old) => *old = new,
        None => lists.push(new),
    }
}

#[test]
fn lists_are_what_a_naive_model_says() {
    let cases = (prop::collection::vec(operation(), 1..16), prop::collection::vec(source(), 40));
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&cases, |(operations, sources)| {
        let rules = Rules::in_userspace().unwrap();
        let mut model = Model::default();
        for (step, operation) in operations.iter().enumerate() {
            apply(&rules, operation);
            model.apply(operation);
            for source in &sources {
                let explained = rules.explain(*source, None).unwrap();
                let entry = explained.stages.into_iter().filter_map(|stage| stage.entry).next_back();
                let found = (explained.reason, entry.map(|entry| (entry.from, entry.prefix, entry.rule)));
                prop_assert_eq!(found, model.judge(*source), "{} after step {}", source, step);
            }
        }
        for kind in [ListKind::Allow, ListKind::Ban, ListKind::Deny] {
            let mut expected = model.entries(kind);
            expected.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
            let found: Vec<_> = rules.entries(kind).unwrap();
            let found: Vec<_> =
                found.into_iter().map(|entry| (entry.from, entry.prefix, entry.rule, entry.shadow)).collect();
            prop_assert_eq!(found, expected);
        }
        for (info, list) in rules.lists().unwrap().iter().zip(&model.lists) {
            prop_assert_eq!((&info.name, info.entries()), (&list.name, list.entries.len() as u64));
        }
        Ok(())
    });
    checked.unwrap();
}
