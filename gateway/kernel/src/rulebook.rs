//! The table of rules: which number stands for which label of which list.
//!
//! A rule is what hits are counted under: a reason, a file, a prefix of the configuration. Rows fill from
//! the front; a row that no table uses keeps its label (its counters still mean something) until the table
//! of rules is full and somebody else needs it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gateway_common::abi::{List, RULE_SLOTS, RuleRecord};
use gateway_common::table::LINE_WORDS;

use crate::error::Error;
use crate::feed::MAX_LABEL_BYTES;
use crate::store::Store;
use crate::table::Memory;

/// Lines of a record in the mapped table of rules.
pub(crate) const RECORD_LINES: u32 = (size_of::<RuleRecord>() / (LINE_WORDS * 8)) as u32;
/// Bytes of a list's name.
pub const MAX_NAME_BYTES: usize = 56;

/// What a rule is told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) kind: List,
    pub(crate) list: String,
    pub(crate) label: String,
}

/// The table as a writer sees it: new rows are written at once, since nothing refers to them yet.
#[derive(Debug)]
pub(crate) struct Rulebook {
    memory: Arc<Memory>,
    rows: Vec<Name>,
    numbers: HashMap<Name, u32>,
    /// Rules that this writer was given: no table uses them yet.
    given: HashSet<u32>,
    /// Rules that tables use, once somebody had to ask.
    used: Option<HashSet<u32>>,
}

impl Rulebook {
    /// Reads the rows in use.
    pub(crate) fn read(store: &dyn Store) -> Result<Self, Error> {
        let memory = store.rules()?;
        let rows: Vec<Name> = (0..RULE_SLOTS).map_while(|number| name(&memory, number)).collect();
        let numbers = rows.iter().enumerate().map(|(number, name)| (name.clone(), number as u32)).collect();
        Ok(Self { memory, rows, numbers, given: HashSet::new(), used: None })
    }

    /// The number of a rule, taking a row for it if it has none. `used` is asked for the rules that tables
    /// use only if all rows are taken.
    pub(crate) fn number(
        &mut self,
        store: &dyn Store,
        (kind, list, label): (List, &str, &str),
        used: &dyn Fn() -> Result<HashSet<u32>, Error>,
    ) -> Result<u32, Error> {
        let name = Name {
            kind,
            list: fit(list, MAX_NAME_BYTES).to_owned(),
            label: fit(label, MAX_LABEL_BYTES).to_owned(),
        };
        if let Some(number) = self.numbers.get(&name) {
            self.given.insert(*number);
            return Ok(*number);
        }
        let number = if self.rows.len() < RULE_SLOTS as usize {
            self.rows.push(name.clone());
            self.rows.len() as u32 - 1
        } else {
            let used = match &mut self.used {
                Some(used) => used,
                unknown => unknown.insert(used()?),
            };
            let idle = (0..RULE_SLOTS).find(|number| !used.contains(number) && !self.given.contains(number));
            let idle = idle.ok_or(Error::RulesFull { capacity: RULE_SLOTS })?;
            store.clear_rule_hits(idle)?;
            let former = std::mem::replace(&mut self.rows[idle as usize], name.clone());
            self.numbers.remove(&former);
            idle
        };
        write(&self.memory, number, &name);
        self.given.insert(number);
        self.numbers.insert(name, number);
        self.given.insert(number);
        Ok(number)
    }

    /// A rule's name.
    pub(crate) fn name(&self, number: u32) -> Option<&Name> {
        self.rows.get(number as usize)
    }

    /// A rule's label.
    pub(crate) fn label(&self, number: u32) -> &str {
        self.name(number).map_or("unknown", |name| &name.label)
    }

    /// Every rule.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (u32, &Name)> {
        self.rows.iter().enumerate().map(|(number, name)| (number as u32, name))
    }
}

/// The label of a row.
pub(crate) fn label(memory: &Memory, number: u32) -> Option<String> {
    name(memory, number).map(|name| name.label)
}

/// What a rule's row says.
pub(crate) fn name(memory: &Memory, number: u32) -> Option<Name> {
    let line = number * RECORD_LINES;
    let head = memory.get(line, 0);
    let (label_len, list_len) = ((head >> 32) as u16 as usize, (head >> 48) as u16 as usize);
    if label_len == 0 {
        return None;
    }
    let words = LINE_WORDS * RECORD_LINES as usize;
    let bytes: Vec<u8> = (1..words).flat_map(|word| memory.get(line, word).to_le_bytes()).collect();
    let text = |from: usize, length: usize, most: usize| {
        let used = bytes.get(from..from + length.min(most)).unwrap_or_default();
        String::from_utf8_lossy(used).into_owned()
    };
    Some(Name {
        kind: [List::Allow, List::Ban, List::Deny][(head as u32).min(2) as usize],
        label: text(0, label_len, MAX_LABEL_BYTES),
        list: text(LABEL_BYTES, list_len, MAX_NAME_BYTES),
    })
}

/// Bytes that a record has for a label.
const LABEL_BYTES: usize = 64;

fn write(memory: &Memory, number: u32, name: &Name) {
    let line = number * RECORD_LINES;
    let mut bytes = [0_u8; LABEL_BYTES + MAX_NAME_BYTES];
    bytes[..name.label.len()].copy_from_slice(name.label.as_bytes());
    bytes[LABEL_BYTES..][..name.list.len()].copy_from_slice(name.list.as_bytes());
    for (index, eight) in bytes.chunks_exact(8).enumerate() {
        memory.set(line, 1 + index, u64::from_le_bytes(std::array::from_fn(|byte| eight[byte])));
    }
    // The lengths last: a row without them is not there.
    let head = name.kind as u64 | (name.label.len() as u64) << 32 | (name.list.len() as u64) << 48;
    memory.set(line, 0, head);
}

/// As much of a text as a row holds, cut between characters; never empty.
pub(crate) fn fit(text: &str, most: usize) -> &str {
    if text.is_empty() {
        return "unnamed";
    }
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const _: () = {
    assert!(MAX_LABEL_BYTES <= LABEL_BYTES);
    assert!(size_of::<RuleRecord>() == 8 + LABEL_BYTES + MAX_NAME_BYTES);
};
