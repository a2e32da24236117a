//! Whether the lists of a configuration fit into what the programs read: what `check` calls sound, `run` must
//! be able to write. Each mistake is reported at the entry with which a list grows too long.

use gateway_common::abi::{LISTS_CAPACITY_V4, LISTS_CAPACITY_V6, RULE_SLOTS};
use gateway_kernel::{MAX_LISTS, NewList};

use crate::config::node::Place;
use crate::config::reader::Reader;

/// Reports what does not fit. What operators import later is not known here.
pub(crate) fn check(lists: &[(Place, NewList)], reader: &mut Reader<'_>) {
    check_within(lists, [LISTS_CAPACITY_V4 as usize, LISTS_CAPACITY_V6 as usize], reader);
}

fn check_within(lists: &[(Place, NewList)], capacities: [usize; 2], reader: &mut Reader<'_>) {
    let of_family = |v6: bool| {
        move |list: &NewList| list.entries.iter().filter(|entry| entry.prefix.addr().is_ipv6() == v6).count()
    };
    let [v4, v6] = capacities;
    sum_up(lists, &of_family(false), v4, reader, |sum| {
        format!("the lists have {sum} IPv4 prefixes; {v4} fit")
    });
    sum_up(lists, &of_family(true), v6, reader, |sum| {
        format!("the lists have {sum} IPv6 prefixes; {v6} fit")
    });
    let labels = |list: &NewList| list.labels.len();
    sum_up(lists, &labels, RULE_SLOTS as usize, reader, |sum| {
        format!(
            "the lists have {sum} different labels; {RULE_SLOTS} can be told apart, give entries a `reason` in \
             common"
        )
    });
    sum_up(lists, &|_| 1, MAX_LISTS, reader, |sum| {
        format!("there are {sum} lists; a gateway has {MAX_LISTS}")
    });
}

/// Reports, at the list that goes beyond it, that a sum is too large.
fn sum_up(
    lists: &[(Place, NewList)],
    count: &dyn Fn(&NewList) -> usize,
    capacity: usize,
    reader: &mut Reader<'_>,
    message: impl Fn(usize) -> String,
) {
    let (mut sum, mut beyond) = (0, None);
    for (place, list) in lists {
        sum += count(list);
        if sum > capacity && beyond.is_none() {
            beyond = Some(*place);
        }
    }
    if let Some(place) = beyond {
        reader.error::<()>(place, message(sum));
    }
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListEntry, ListKind};

    use super::*;

    /// The real capacities are more than a test can write down, so small ones stand for them.
    #[test]
    fn lists_are_measured_together_and_by_family() {
        type Lists = &'static [&'static [&'static str]];
        let table: &[(Lists, [usize; 2], Option<&str>)] = &[
            (&[&[]], [0, 0], None),
            (&[&["192.0.2.1/32"]], [0, 0], Some("the lists have 1 IPv4 prefixes; 0 fit")),
            (&[&["192.0.2.1/32"], &["2001:db8::/32"]], [1, 1], None),
            (&[&["192.0.2.1/32"], &["192.0.2.2/32"]], [1, 1], Some("the lists have 2 IPv4 prefixes; 1 fit")),
            (&[&["2001:db8::/32", "2001:db8::/48"]], [1, 1], Some("the lists have 2 IPv6 prefixes; 1 fit")),
        ];
        for (lists, capacities, expected) in table {
            let entry =
                |text: &&str| ListEntry { prefix: text.parse().expect("a prefix"), label: 0, shadow: false };
            let list = |prefixes: &&[&str]| NewList {
                kind: ListKind::Deny,
                name: "x".into(),
                source: "x".into(),
                shadow: false,
                labels: vec!["x".into()],
                entries: prefixes.iter().map(entry).collect(),
            };
            let place = Place { file: 0, line: 1, column: 1, length: 1 };
            let lists: Vec<_> = lists.iter().map(|prefixes| (place, list(prefixes))).collect();
            let mut reader = Reader::new("f".to_owned(), "kernel:\n");
            check_within(&lists, *capacities, &mut reader);
            let report = reader.findings.into_report("f");
            let found: Vec<&str> = report.diagnostics().iter().map(|found| found.message.as_str()).collect();
            assert_eq!(found, expected.iter().copied().collect::<Vec<_>>());
        }
    }
}
