//! Named lists: all of them are one table, which is made as a whole and exchanged in one write.
//!
//! A packet therefore meets the lists of one generation, whoever dies at whatever moment; the generation before
//! stays in its slot, so that going back to it is one write as well.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway_common::abi::List;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::edit::rules_in_use;
use crate::entry::{ListKind, NewList, Owner};
use crate::error::Error;
use crate::feed::MAX_LABEL_BYTES;
use crate::rulebook::{MAX_NAME_BYTES, Rulebook, fit};
use crate::rules::Progress;
use crate::store::{Lock, Slot, Store};
use crate::table::{Content, Directory, Generation, Item, Key, ListInfo, Live, build_lists, digest};

/// Named lists of one gateway.
pub const MAX_LISTS: usize = 256;

/// What became of the lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The generation in force afterwards.
    pub generation: u64,
    /// Whether it is a new one; lists that say what they said before make none.
    pub changed: bool,
    /// Entries of the lists that were replaced.
    pub entries: usize,
}

/// What replacing a list would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Entries it has now.
    pub before: usize,
    /// Entries it would have.
    pub after: usize,
    /// Prefixes that would come.
    pub added: usize,
    /// Prefixes that would go.
    pub removed: usize,
    /// Prefixes whose rule or shadow flag would be another.
    pub changed: usize,
    /// Sources that passed in the last minute, as far as they were noted.
    pub sources: usize,
    /// Those of them that the list would have hit.
    pub hits: usize,
}

/// One writer's turn.
pub(crate) struct Turn<'a> {
    store: &'a dyn Store,
    directory: Directory,
    /// The generation in force.
    number: u64,
    /// The highest number there is: after a rollback the former one's.
    newest: u64,
    _turn: Lock<'a>,
}

impl<'a> Turn<'a> {
    pub(crate) fn begin(store: &'a dyn Store) -> Result<Self, Error> {
        let turn = store.lock()?;
        // What a writer left behind that died with a table half made.
        store.sweep()?;
        let is_torn = store.table(Slot::Live)?.is_some_and(|live| Live(&live).is_torn());
        let (mut directory, mut number, mut newest) = (Directory::default(), 0, 0);
        if let Some(table) = store.table(Slot::Lists)? {
            let lists = Generation(&table);
            if is_torn {
                lists.mend();
            }
            // Its writer may have died before it could say so.
            lists.finish();
            (directory, number, newest) = (lists.directory(), lists.number(), lists.number());
        }
        if let Some(former) = store.table(Slot::Former)? {
            newest = newest.max(Generation(&former).number());
        }
        Ok(Self { store, directory, number, newest, _turn: turn })
    }

    /// The configuration's lists become these.
    pub(crate) fn reconcile(self, lists: &[NewList]) -> Result<Replaced, Error> {
        let mut names = HashSet::new();
        let keeps = |info: &ListInfo| info.owner == Owner::Operator;
        // Only what stays can be in the way: a list may move from deny to allow.
        let in_the_way =
            |list: &&NewList| self.directory.lists.iter().any(|info| keeps(info) && info.name == list.name);
        for list in lists.iter().filter(in_the_way) {
            check_owner(&self.directory.lists, Owner::Config, list.kind, &list.name)?;
        }
        for list in lists {
            if !names.insert(&list.name) {
                let name = &list.name;
                return Err(Error::Refused(format!("two lists are called {name}; give one another name")));
            }
        }
        self.make(Owner::Config, lists, &keeps, &mut |_| {})
    }

    /// One list becomes this.
    pub(crate) fn replace(self, owner: Owner, list: &NewList, progress: Progress) -> Result<Replaced, Error> {
        check_owner(&self.directory.lists, owner, list.kind, &list.name)?;
        let (kind, name) = (list.kind, &list.name);
        let keeps = |info: &ListInfo| (info.kind, &info.name) != (kind, name);
        self.make(owner, std::slice::from_ref(list), &keeps, progress)
    }

    /// Operators' lists of a kind go: the one of this name, or all.
    pub(crate) fn forget(self, kind: ListKind, name: Option<&str>) -> Result<usize, Error> {
        let goes = |info: &ListInfo| {
            info.owner == Owner::Operator && info.kind == kind && name.is_none_or(|name| info.name == name)
        };
        let gone: u64 = self.directory.lists.iter().filter(|info| goes(info)).map(ListInfo::entries).sum();
        let found = self.directory.lists.iter().any(goes);
        match (found, name) {
            (false, None) => return Ok(0),
            (false, Some(name)) => {
                let why = match self.directory.find(kind, name) {
                    Some(_) => {
                        "the configuration brings it; take it out there and `gateway reload`".to_owned()
                    }
                    None => format!("there are {}", self.names(kind)),
                };
                return Err(Error::Refused(format!("no operator's list is called {name}: {why}")));
            }
            (true, _) => {}
        }
        self.make(Owner::Operator, &[], &|info| !goes(info), &mut |_| {})?;
        Ok(gone as usize)
    }

    fn names(&self, kind: ListKind) -> String {
        let of_kind = self.directory.lists.iter().filter(|info| info.kind == kind);
        let names: Vec<&str> = of_kind.map(|info| info.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// A generation of some lists as they are and some new ones.
    fn make(
        self,
        owner: Owner,
        new: &[NewList],
        keeps: &dyn Fn(&ListInfo) -> bool,
        progress: Progress,
    ) -> Result<Replaced, Error> {
        let number = self.newest + 1;
        let mut book = Rulebook::read(self.store)?;
        let fresh = new.iter().map(|list| self.content(owner, list, number, &mut book));
        let fresh = fresh.collect::<Result<Vec<Content>, Error>>()?;
        let names: Vec<(ListKind, String)> =
            fresh.iter().map(|list| (list.info.kind, list.info.name.clone())).collect();
        let entries_in = |directory: &Directory| {
            let infos = names.iter().filter_map(|(kind, name)| directory.find(*kind, name));
            infos.map(ListInfo::entries).sum::<u64>() as usize
        };
        if self.is_unchanged(&fresh, keeps) {
            let entries = entries_in(&self.directory);
            return Ok(Replaced { generation: self.number, changed: false, entries });
        }
        let mut lists = self.kept(keeps, &book)?;
        // Where a list was, it stays: of two lists that name one prefix the first one counts.
        for list in fresh {
            let place = self.directory.lists.iter().position(|info| same(info, &list.info));
            lists.push((place.unwrap_or(usize::MAX), list));
        }
        lists.sort_by_key(|(place, _)| *place);
        let lists: Vec<Content> = lists.into_iter().map(|(_, list)| list).collect();
        if lists.len() > MAX_LISTS {
            return Err(Error::Refused(format!("a gateway has at most {MAX_LISTS} lists")));
        }
        let made = build_lists(&lists, number, &mut |lines| self.store.make(lines), progress)?;
        drop(lists);
        self.store.publish_lists(&made)?;
        Generation(&made.memory).finish();
        self.store.sweep()?;
        let entries = entries_in(&Generation(&made.memory).directory());
        Ok(Replaced { generation: number, changed: true, entries })
    }

    fn is_unchanged(&self, fresh: &[Content], keeps: &dyn Fn(&ListInfo) -> bool) -> bool {
        let going: Vec<&ListInfo> = self.directory.lists.iter().filter(|info| !keeps(info)).collect();
        // In whatever order: a list that is there keeps its place.
        let is_there = |list: &Content| {
            going.iter().any(|info| {
                same(info, &list.info)
                    && info.digest == list.info.digest
                    && info.shadow == list.info.shadow
                    && info.source == list.info.source
            })
        };
        going.len() == fresh.len() && fresh.iter().all(is_there)
    }

    fn content(
        &self,
        owner: Owner,
        list: &NewList,
        generation: u64,
        book: &mut Rulebook,
    ) -> Result<Content, Error> {
        let kind = List::from(list.kind);
        if let Some(entry) = list.entries.iter().find(|entry| entry.label as usize >= list.labels.len()) {
            return Err(Error::Refused(format!(
                "{} of the list {} has rule {}, and the list has {}",
                entry.prefix,
                list.name,
                entry.label,
                list.labels.len()
            )));
        }
        let used = || rules_in_use(self.store);
        let rules = list.labels.iter().map(|label| book.number(self.store, (kind, &list.name, label), &used));
        let rules = rules.collect::<Result<Vec<u32>, _>>()?;
        let mut items: Vec<Item> = list
            .entries
            .iter()
            .map(|entry| Item {
                key: Key::from(entry.prefix),
                rule: rules.get(entry.label as usize).copied().unwrap_or_default(),
                shadow: entry.shadow,
            })
            .collect();
        if !list.shadow && items.iter().any(|item| item.shadow) {
            last_of_each(&mut items);
        }
        let of_v6 = items.iter().filter(|item| item.key.v6).count() as u64;
        let mut sorted = rules;
        sorted.sort_unstable();
        sorted.dedup();
        let info = ListInfo {
            kind: list.kind,
            name: list.name.clone(),
            owner,
            source: list.source.clone(),
            shadow: list.shadow,
            entries_v4: items.len() as u64 - of_v6,
            entries_v6: of_v6,
            generation,
            loaded_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            digest: digest(&items),
            rules: sorted,
        };
        Ok(Content { info, items })
    }

    /// The lists of the generation in force that stay, each with its place.
    fn kept(
        &self,
        keeps: &dyn Fn(&ListInfo) -> bool,
        book: &Rulebook,
    ) -> Result<Vec<(usize, Content)>, Error> {
        let Some(table) = self.store.table(Slot::Lists)? else { return Ok(Vec::new()) };
        let mut kept: Vec<(usize, Content)> = Vec::new();
        let mut of_rule: HashMap<u32, usize> = HashMap::new();
        for (place, info) in self.directory.lists.iter().enumerate().filter(|(_, info)| keeps(info)) {
            of_rule.extend(info.rules.iter().map(|rule| (*rule, kept.len())));
            kept.push((place, Content { info: info.clone(), items: Vec::new() }));
        }
        if kept.is_empty() {
            return Ok(kept);
        }
        Generation(&table).for_each(&mut |standing| {
            let list = of_rule.get(&standing.item.rule).and_then(|index| kept.get_mut(*index));
            if let Some((_, list)) = list.filter(|_| book.name(standing.item.rule).is_some()) {
                // A list's own flag comes back with the list.
                let shadow = standing.item.shadow && !list.info.shadow;
                list.items.push(Item { shadow, ..standing.item });
            }
        });
        for (_, list) in &mut kept {
            if list.items.len() as u64 != list.info.entries() {
                let of_v6 = list.items.iter().filter(|item| item.key.v6).count() as u64;
                (list.info.entries_v4, list.info.entries_v6) = (list.items.len() as u64 - of_v6, of_v6);
            }
        }
        Ok(kept)
    }

    /// Back to the generation before.
    pub(crate) fn roll_back(self) -> Result<u64, Error> {
        let (Some(now), Some(former)) = (self.store.table(Slot::Lists)?, self.store.table(Slot::Former)?)
        else {
            return Err(Error::Refused("there is no generation of lists before this one".to_owned()));
        };
        let finished = Generation(&former).is_finished();
        let (number, former) = (Generation(&now).number(), Generation(&former).number());
        if !finished {
            return Err(Error::Refused(format!(
                "the writer of generation {former} died before it was in force; there is none before {number} left"
            )));
        }
        self.store.exchange_lists()?;
        Ok(former)
    }
}

/// Whether a text can be a list's name.
///
/// # Errors
/// One sentence.
pub fn check_list_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("a list's name has 1 to {MAX_NAME_BYTES} bytes, this one has {}", name.len()));
    }
    if !name.chars().all(crate::feed::is_printable) {
        return Err("a list's name has no control characters".to_owned());
    }
    if [ListKind::Allow, ListKind::Ban, ListKind::Deny].iter().any(|kind| kind.name() == name) {
        return Err(format!("{name} is the name of the entries that are made singly; give the list another"));
    }
    Ok(())
}

/// Leaves of several items for one prefix the last. Enforced prefixes and those in shadow mode stand in two sets, so
/// that filling the table would not show that they are the same.
fn last_of_each(items: &mut Vec<Item>) {
    let last: HashMap<Key, usize> = items.iter().enumerate().map(|(index, item)| (item.key, index)).collect();
    let mut index = 0;
    items.retain(|item| {
        index += 1;
        last.get(&item.key) == Some(&(index - 1))
    });
}

fn same(info: &ListInfo, other: &ListInfo) -> bool {
    (info.kind, &info.name) == (other.kind, &other.name)
}

/// Whether this owner may have a list of this name among these.
fn check_owner(lists: &[ListInfo], owner: Owner, kind: ListKind, name: &str) -> Result<(), Error> {
    if kind == ListKind::Ban {
        return Err(Error::Refused(
            "bans are made singly, each with its time to live; a list allows or denies".to_owned(),
        ));
    }
    check_list_name(name).map_err(Error::Refused)?;
    let whose = |owner| match owner {
        Owner::Config => "of the configuration",
        Owner::Operator => "of an operator's",
    };
    match lists.iter().find(|info| info.name == name) {
        Some(info) if (info.owner, info.kind) != (owner, kind) => Err(Error::Refused(format!(
            "there is a {} list {name} {} already; give this one another name",
            info.kind.name(),
            whose(info.owner)
        ))),
        _ => Ok(()),
    }
}

/// What replacing a list would change.
pub(crate) fn preview(store: &dyn Store, list: &NewList, sources: &[IpAddr]) -> Result<Preview, Error> {
    let _turn = store.lock()?;
    let book = Rulebook::read(store)?;
    let mut before: HashMap<Key, (u32, bool)> = HashMap::new();
    if let Some(table) = store.table(Slot::Lists)? {
        let generation = Generation(&table);
        let directory = generation.directory();
        // As it would be refused.
        check_owner(&directory.lists, Owner::Operator, list.kind, &list.name)?;
        if let Some(info) = directory.find(list.kind, &list.name) {
            generation.for_each(&mut |standing| {
                if info.rules.binary_search(&standing.item.rule).is_ok() {
                    before.insert(standing.item.key, (standing.item.rule, standing.item.shadow));
                }
            });
        }
    }
    let mut preview = Preview { before: before.len(), ..Preview::default() };
    let after: HashMap<Key, (u32, bool)> = list
        .entries
        .iter()
        .map(|entry| (Key::from(entry.prefix), (entry.label, entry.shadow || list.shadow)))
        .collect();
    preview.after = after.len();
    for (key, (label, shadow)) in &after {
        match before.remove(key) {
            None => preview.added += 1,
            Some((rule, was_shadow)) => {
                let label = list.labels.get(*label as usize).map_or("", String::as_str);
                let label = fit(label, MAX_LABEL_BYTES);
                preview.changed += usize::from(book.label(rule) != label || was_shadow != *shadow);
            }
        }
    }
    preview.removed = before.len();
    preview.sources = sources.len();
    let covered = |source: &&IpAddr| {
        let longest = if source.is_ipv4() { 32 } else { 128 };
        (0..=longest).any(|length| {
            IpNet::new(**source, length).is_ok_and(|prefix| after.contains_key(&Key::from(prefix.trunc())))
        })
    };
    preview.hits = sources.iter().filter(covered).count();
    Ok(preview)
}
