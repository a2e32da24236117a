//! Whether the lists of a configuration fit into the maps that the programs read: what `check` calls sound,
//! `run` must be able to write. Each mistake is reported at the item with which a list grows too long.

use std::collections::HashSet;

use gateway_common::abi::{ALLOW_CAPACITY, DENY_CAPACITY, RULE_SLOTS};

use crate::config::keys::{Kernel, ListItem};
use crate::config::lists::List;
use crate::config::node::Place;
use crate::config::reader::Reader;
use crate::config::shape::Located;

/// Reports what does not fit. What operators add to the maps later is not known here.
pub(crate) fn check(kernel: &Kernel, allow: &List, deny: &List, reader: &mut Reader<'_>) {
    let allow = Share { key: "allow", items: &kernel.allow, list: allow, capacity: ALLOW_CAPACITY as usize };
    let deny = Share { key: "deny", items: &kernel.deny, list: deny, capacity: DENY_CAPACITY as usize };
    for share in [&allow, &deny] {
        share.check_family("IPv4", false, reader);
        share.check_family("IPv6", true, reader);
    }
    check_labels(&[allow, deny], RULE_SLOTS as usize, reader);
}

/// One list, as written and as lowered.
struct Share<'a> {
    key: &'static str,
    items: &'a [Located<ListItem>],
    list: &'a List,
    /// Entries that its map holds, a family.
    capacity: usize,
}

impl Share<'_> {
    fn check_family(&self, family: &str, v6: bool, reader: &mut Reader<'_>) {
        let of_family = |index: &usize| self.list.entries[*index].prefix.addr().is_ipv6() == v6;
        let mut found = (0..self.list.entries.len()).filter(of_family);
        let Some(first_beyond) = found.nth(self.capacity) else { return };
        let count = self.capacity + 1 + found.count();
        let message = format!("`{}` has {count} {family} entries; its map holds {}", self.key, self.capacity);
        self.report(first_beyond, message, reader);
    }

    /// Reports something at the item that brought an entry.
    fn report(&self, entry: usize, message: String, reader: &mut Reader<'_>) {
        let item = self.list.items.get(entry).and_then(|item| self.items.get(*item as usize));
        // Every entry was brought by an item.
        let place = item.map_or(Place { line: 1, column: 1, length: 1 }, |item| item.place);
        reader.error::<()>(place, message);
    }
}

/// Hits are counted by label and list, in one table for all of them.
fn check_labels(shares: &[Share<'_>], capacity: usize, reader: &mut Reader<'_>) {
    let (mut count, mut first_beyond) = (0, None);
    for share in shares {
        let mut labels: HashSet<&str> = HashSet::new();
        for (index, entry) in share.list.entries.iter().enumerate() {
            if labels.insert(&entry.rule) {
                count += 1;
                if count == capacity + 1 {
                    first_beyond = Some((share, index));
                }
            }
        }
    }
    if let Some((share, entry)) = first_beyond {
        let message = format!(
            "`allow` and `deny` have {count} different labels together; {capacity} can be told apart, give \
             entries a `reason` in common"
        );
        share.report(entry, message, reader);
    }
}

#[cfg(test)]
mod tests {
    use gateway_kernel::NewEntry;

    use super::*;

    /// The capacity of the deny list is more than a test can write down, so a small one stands for it.
    #[test]
    fn a_list_is_measured_by_family() {
        let table: &[(&[&str], usize, Option<&str>)] = &[
            (&[], 0, None),
            (&["192.0.2.1/32"], 0, Some("`deny` has 1 IPv4 entries; its map holds 0")),
            (&["192.0.2.1/32", "2001:db8::/32"], 1, None),
            (
                &["192.0.2.1/32", "2001:db8::/32", "2001:db8::/48"],
                1,
                Some("`deny` has 2 IPv6 entries; its map holds 1"),
            ),
        ];
        for (prefixes, capacity, expected) in table {
            let new = |text: &&str| {
                let prefix = text.parse().expect("a prefix");
                NewEntry { prefix, rule: "x".into(), ttl: None, shadow: false }
            };
            let mut list = List::default();
            prefixes.iter().map(new).for_each(|entry| list.add(entry));
            let mut reader = Reader::new("f".to_owned(), "kernel:\n");
            let share = Share { key: "deny", items: &[], list: &list, capacity: *capacity };
            share.check_family("IPv4", false, &mut reader);
            share.check_family("IPv6", true, &mut reader);
            let report = reader.findings.into_report("f");
            let found: Vec<&str> = report.diagnostics().iter().map(|found| found.message.as_str()).collect();
            assert_eq!(found, expected.iter().copied().collect::<Vec<_>>(), "{prefixes:?}");
        }
    }
}
