//! Entries of the tables, made readable: for `list`, `explain` and the next writer.

use std::net::IpAddr;
use std::sync::Arc;

use gateway_common::abi::List;
use gateway_common::packet::{Address, Family};
use gateway_common::stages::Match;
use gateway_common::table::{ANYTHING, Hit, hints, search_v4, search_v6, set_of};
use ipnet::IpNet;

use crate::entry::{ListKind, Owner};
use crate::error::Error;
use crate::rulebook::Rulebook;
use crate::rules::Entry;
use crate::store::{InForce, Slot, Store};
use crate::table::{Directory, Generation, Key, Live, LiveEntry, Memory};

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// The tables of one moment, with all that their numbers stand for.
pub(crate) struct Reader {
    pub(crate) tables: InForce,
    lists: Option<Arc<Memory>>,
    live: Option<Arc<Memory>>,
    book: Rulebook,
    directory: Directory,
    now_ns: u64,
}

impl Reader {
    pub(crate) fn new(store: &dyn Store) -> Result<Self, Error> {
        let lists = store.table(Slot::Lists)?;
        let live = store.table(Slot::Live)?;
        let directory = lists.as_ref().map(|table| Generation(table).directory()).unwrap_or_default();
        Ok(Self {
            tables: InForce::new(live.clone(), lists.clone())?,
            lists,
            live,
            book: Rulebook::read(store)?,
            directory,
            now_ns: store.now_ns(),
        })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.lists.as_ref().map_or(0, |table| Generation(table).number())
    }

    /// Every entry of a list that still holds.
    pub(crate) fn for_each(&self, list: ListKind, visit: &mut dyn FnMut(Entry)) {
        if let Some(table) = &self.live {
            Live(table).for_each(&mut |entry| {
                if entry.list == list.into() && !entry.is_over(self.now_ns) {
                    visit(self.live_entry(entry));
                }
            });
        }
        if let Some(table) = &self.lists {
            Generation(table).for_each(&mut |standing| {
                if standing.kind == list.into() {
                    visit(self.list_entry(
                        list,
                        standing.item.key.net(),
                        standing.item.rule,
                        standing.item.shadow,
                    ));
                }
            });
        }
    }

    /// What a stage found for a source.
    pub(crate) fn matched(&self, source: IpAddr, found: &Match) -> Option<Entry> {
        let prefix = IpNet::new(source, u8::try_from(found.hit.prefix_len()).ok()?).ok()?.trunc();
        if found.hit.is_live() {
            let live = self.live.as_ref()?;
            return Live(live).get(found.list, Key::from(prefix)).map(|entry| self.live_entry(entry));
        }
        Some(self.list_entry(found.list.into(), prefix, found.hit.rule(), found.shadow))
    }

    /// The entries in shadow mode that cover a source, of each list the most specific one.
    pub(crate) fn in_shadow(&self, source: IpAddr) -> Vec<Entry> {
        let mut found = Vec::new();
        for list in [List::Allow, List::Ban, List::Deny] {
            for table in [&self.live, &self.lists].into_iter().flatten() {
                let hit = search(table, set_of(list, true), &source.into());
                if hit.is_some() {
                    found.extend(self.matched(source, &Match { list, shadow: true, hit }));
                }
            }
        }
        found
    }

    fn live_entry(&self, entry: LiveEntry) -> Entry {
        let list = ListKind::from(entry.list);
        Entry {
            list,
            from: list.name().to_owned(),
            prefix: entry.key.net(),
            rule: self.book.label(entry.rule).to_owned(),
            ttl_seconds: (entry.expires_ns != 0)
                .then(|| entry.expires_ns.saturating_sub(self.now_ns).div_ceil(SECOND_NS)),
            shadow: entry.shadow,
            owner: Owner::Operator,
            generation: None,
            set_by: Some(entry.by),
            age_seconds: Some(self.now_ns.saturating_sub(entry.set_ns) / SECOND_NS),
            evidence: (!entry.evidence.is_empty()).then_some(entry.evidence),
        }
    }

    fn list_entry(&self, list: ListKind, prefix: IpNet, rule: u32, shadow: bool) -> Entry {
        let name = self.book.name(rule);
        let info = name.and_then(|name| self.directory.find(list, &name.list));
        Entry {
            list,
            from: name.map_or_else(|| "unknown".to_owned(), |name| name.list.clone()),
            prefix,
            rule: self.book.label(rule).to_owned(),
            ttl_seconds: None,
            shadow,
            owner: info.map_or(Owner::Operator, |info| info.owner),
            generation: info.map(|info| info.generation),
            set_by: None,
            age_seconds: None,
            evidence: None,
        }
    }
}

/// A look-up in one set of one table, as the stages do it.
fn search(memory: &Memory, set: u32, address: &Address) -> Hit {
    let (high, low) = address.halves();
    match address.family {
        Family::V4 => search_v4(&memory, set, high as u32, hints(&memory, false, ANYTHING)),
        Family::V6 => search_v6(&memory, set, high, low, hints(&memory, true, ANYTHING)),
    }
}
