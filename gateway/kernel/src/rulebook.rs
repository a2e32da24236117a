//! The table of rules: which number stands for which label of which list.
//!
//! A rule is what hits are counted under: a reason, a file, a prefix of the configuration. Rows fill from
//! the front; a row without entries keeps its label (its counters still mean something) until the table is
//! full and somebody else needs it.

use std::collections::HashMap;

use gateway_common::abi::{List, RULE_SLOTS, RuleRecord};

use crate::error::Error;
use crate::feed::MAX_LABEL_BYTES;
use crate::store::Store;

/// A row never used.
pub(crate) const EMPTY: RuleRecord = RuleRecord { entries: 0, list: 0, label_len: 0, label: [0; 64] };

/// The table as a writer sees it: read once, changed here, written back at the end.
#[derive(Debug)]
pub(crate) struct Rulebook {
    rows: Vec<Row>,
    numbers: HashMap<(u32, String), u32>,
}

#[derive(Debug)]
struct Row {
    list: u32,
    label: String,
    entries: u64,
    changed: bool,
    /// It stood for something else before: its counters are cleared when it is written.
    reused: bool,
}

impl Rulebook {
    /// Reads the rows in use.
    pub(crate) fn read(store: &dyn Store) -> Result<Self, Error> {
        let mut rows = Vec::new();
        let mut numbers = HashMap::new();
        for number in 0..RULE_SLOTS {
            let record = store.rule(number)?;
            if record.label_len == 0 {
                break;
            }
            let label = label(&record);
            numbers.insert((record.list, label.clone()), number);
            rows.push(Row {
                list: record.list,
                label,
                entries: record.entries,
                changed: false,
                reused: false,
            });
        }
        Ok(Self { rows, numbers })
    }

    /// The number of a label, taking a row for it if it has none.
    pub(crate) fn number(&mut self, list: List, label: &str) -> Result<u32, Error> {
        let label = fit(label);
        if let Some(number) = self.numbers.get(&(list as u32, label.to_owned())) {
            return Ok(*number);
        }
        let row =
            |reused| Row { list: list as u32, label: label.to_owned(), entries: 0, changed: true, reused };
        let number = if self.rows.len() < RULE_SLOTS as usize {
            self.rows.push(row(false));
            self.rows.len() - 1
        } else {
            let idle = self.rows.iter().position(|row| row.entries == 0 && !row.changed);
            let idle = idle.ok_or(Error::RulesFull { capacity: RULE_SLOTS })?;
            let former = std::mem::replace(&mut self.rows[idle], row(true));
            self.numbers.remove(&(former.list, former.label));
            idle
        };
        self.numbers.insert((list as u32, label.to_owned()), number as u32);
        Ok(number as u32)
    }

    /// An entry came under a rule.
    pub(crate) fn gained(&mut self, number: u32) {
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.entries += 1;
            row.changed = true;
        }
    }

    /// An entry left a rule.
    pub(crate) fn lost(&mut self, number: u32) {
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.entries = row.entries.saturating_sub(1);
            row.changed = true;
        }
    }

    /// No entry counted: for counting anew.
    pub(crate) fn forget_entries(&mut self) {
        for row in &mut self.rows {
            row.entries = 0;
            row.changed = true;
        }
    }

    /// A rule's label.
    pub(crate) fn label(&self, number: u32) -> &str {
        self.rows.get(number as usize).map_or("unknown", |row| &row.label)
    }

    /// Every rule: number, list, label, entries.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (u32, List, &str, u64)> {
        self.rows.iter().enumerate().map(|(number, row)| {
            let list = [List::Allow, List::Ban, List::Deny][row.list.min(2) as usize];
            (number as u32, list, row.label.as_str(), row.entries)
        })
    }

    /// Writes back the rows that changed.
    pub(crate) fn write(&self, store: &dyn Store) -> Result<(), Error> {
        for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| row.changed) {
            if row.reused {
                store.clear_rule_hits(number as u32)?;
            }
            let mut record = EMPTY;
            record.entries = row.entries;
            record.list = row.list;
            record.label_len = row.label.len() as u32;
            record.label[..row.label.len()].copy_from_slice(row.label.as_bytes());
            store.set_rule(number as u32, &record)?;
        }
        Ok(())
    }
}

/// The label of a row.
pub(crate) fn label(record: &RuleRecord) -> String {
    let used = (record.label_len as usize).min(record.label.len());
    String::from_utf8_lossy(&record.label[..used]).into_owned()
}

/// As much of a label as a row holds, cut between characters; never empty.
fn fit(label: &str) -> &str {
    if label.is_empty() {
        return "unnamed";
    }
    let mut end = label.len().min(MAX_LABEL_BYTES);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    &label[..end]
}

const _: () = assert!(MAX_LABEL_BYTES <= EMPTY.label.len());
