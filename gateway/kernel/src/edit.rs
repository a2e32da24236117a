//! One writer's changes to the lists: planned under the lock, checked as a whole, then written, and undone if
//! the kernel refuses one. [`crate::Rules`] says what its operations are; how they become writes is here.

use std::collections::{HashMap, HashSet};

use gateway_common::abi;
use ipnet::IpNet;

use crate::entry::{ListKind, NewEntry, Owner};
use crate::error::Error;
use crate::rulebook::Rulebook;
use crate::rules::{Added, Progress, tables};
use crate::store::{Lock, Store, Table, exact};

/// Entries written between two reports of progress.
const PROGRESS_STEP: usize = 4096;

/// One writer's turn, and what it is going to change.
pub(crate) struct Edit<'a> {
    store: &'a dyn Store,
    book: Rulebook,
    changes: Vec<Change>,
    added: [u64; abi::LIST_MAPS],
    deleted: [u64; abi::LIST_MAPS],
    _turn: Lock<'a>,
}

/// A prefix's entry as it was and as it is to be. An edit changes a prefix of a list once.
struct Change {
    table: Table,
    prefix: IpNet,
    former: Option<abi::Entry>,
    new: Option<abi::Entry>,
}

impl<'a> Edit<'a> {
    pub(crate) fn begin(store: &'a dyn Store) -> Result<Self, Error> {
        Self::within(store, store.lock()?)
    }

    pub(crate) fn within(store: &'a dyn Store, turn: Lock<'a>) -> Result<Self, Error> {
        if store.sizes()?.torn != 0 {
            recount(store)?;
        }
        let book = Rulebook::read(store)?;
        let (added, deleted) = ([0; abi::LIST_MAPS], [0; abi::LIST_MAPS]);
        Ok(Self { store, book, changes: Vec::new(), added, deleted, _turn: turn })
    }

    /// Plans an owner's entries; of two for one prefix the later.
    pub(crate) fn add(&mut self, list: ListKind, owner: Owner, entries: &[NewEntry]) -> Result<Added, Error> {
        let now_ns = self.store.now_ns();
        let last: HashMap<IpNet, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.prefix, index)).collect();
        let mut done = Added::default();
        for (index, entry) in entries.iter().enumerate() {
            if last.get(&entry.prefix) != Some(&index) {
                continue;
            }
            let table = Table::of(list.into(), &entry.prefix);
            let present = exact(self.store, table, &entry.prefix)?;
            let rule = self.book.number(table.list, &entry.rule)?;
            let new = merged(owner, entry, rule, present.as_ref(), now_ns);
            // A reload of the same configuration writes nothing.
            if present == Some(new) {
                continue;
            }
            if present.is_some() {
                done.updated += 1
            } else {
                done.added += 1
            }
            self.put(table, entry.prefix, new, present);
        }
        Ok(done)
    }

    /// Plans that an owner lets all of its entries of a list go, but for some; returns how many leave it.
    pub(crate) fn give_up_all(
        &mut self,
        list: ListKind,
        owner: Owner,
        keep: &HashSet<IpNet>,
    ) -> Result<usize, Error> {
        let mut gone = 0;
        for table in tables(list) {
            let mut owned = Vec::new();
            self.store.for_each(table, &mut |prefix, entry| {
                if entry.flags & owner.bit() != 0 && !keep.contains(&prefix) {
                    owned.push((prefix, entry));
                }
            })?;
            for (prefix, entry) in owned {
                gone += usize::from(self.give_up(table, prefix, entry, owner));
            }
        }
        Ok(gone)
    }

    /// Plans that one owner lets an entry go. It leaves the list (true) unless the other owner keeps it.
    /// What the configuration keeps goes back to what the configuration says, all but the label, which the
    /// next reload puts right.
    pub(crate) fn give_up(&mut self, table: Table, prefix: IpNet, former: abi::Entry, owner: Owner) -> bool {
        let config = former.flags & (abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW);
        let flags = match owner {
            Owner::Operator if former.flags & abi::Entry::CONFIG == 0 => 0,
            Owner::Operator if former.flags & abi::Entry::CONFIG_SHADOW != 0 => config | abi::Entry::SHADOW,
            Owner::Operator => config,
            Owner::Config if former.flags & abi::Entry::OPERATOR == 0 => 0,
            Owner::Config => former.flags & !(abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW),
        };
        if flags == 0 {
            self.delete(table, prefix, former);
            return true;
        }
        let expires_ns = if owner == Owner::Operator { 0 } else { former.expires_ns };
        let kept = abi::Entry { flags, expires_ns, ..former };
        if kept != former {
            self.put(table, prefix, kept, Some(former));
        }
        false
    }

    fn put(&mut self, table: Table, prefix: IpNet, new: abi::Entry, former: Option<abi::Entry>) {
        match former {
            Some(former) => self.book.lost(former.rule),
            None => self.added[table.index()] += 1,
        }
        self.book.gained(new.rule);
        self.changes.push(Change { table, prefix, former, new: Some(new) });
    }

    fn delete(&mut self, table: Table, prefix: IpNet, former: abi::Entry) {
        self.book.lost(former.rule);
        self.deleted[table.index()] += 1;
        self.changes.push(Change { table, prefix, former: Some(former), new: None });
    }

    pub(crate) fn commit(mut self, progress: Progress) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        if self.fits()? {
            // What is new comes before what goes, so that a source which moves from one entry to another is
            // never unlisted in between.
            self.changes.sort_by_key(|change| change.new.is_none());
        } else {
            self.changes.sort_by_key(|change| change.new.is_some());
        }
        self.store.set_sizes(&self.sizes_while_writing()?)?;
        self.book.write(self.store)?;
        for (done, change) in self.changes.iter().enumerate() {
            if let Err(error) = self.write(change, change.new) {
                for change in self.changes[..done].iter().rev() {
                    // The kernel took it once, so there is room to put it back.
                    let _ = self.write(change, change.former);
                }
                recount(self.store)?;
                return Err(error);
            }
            if (done + 1) % PROGRESS_STEP == 0 {
                progress(done + 1);
            }
        }
        progress(self.changes.len());
        let mut sizes = self.store.sizes()?;
        for (size, shrunk) in sizes.entries.iter_mut().zip(self.deleted) {
            *size = size.saturating_sub(shrunk);
        }
        sizes.torn = 0;
        self.store.set_sizes(&sizes)
    }

    /// Whether old and new fit side by side; refused if not even the new alone does.
    fn fits(&self) -> Result<bool, Error> {
        let sizes = self.store.sizes()?;
        let mut side_by_side = true;
        for table in Table::ALL {
            let (used, wanted) = (sizes.entries[table.index()], self.added[table.index()]);
            if wanted == 0 {
                continue;
            }
            side_by_side &= used + wanted <= table.capacity();
            let used = used.saturating_sub(self.deleted[table.index()]);
            if used + wanted > table.capacity() {
                let map = table.name().to_owned();
                return Err(Error::Full { map, capacity: table.capacity(), used, wanted });
            }
        }
        Ok(side_by_side)
    }

    /// Torn until the end, and never smaller than what the programs may find.
    fn sizes_while_writing(&self) -> Result<abi::ListSizes, Error> {
        let mut sizes = self.store.sizes()?;
        for (size, added) in sizes.entries.iter_mut().zip(self.added) {
            *size += added;
        }
        sizes.torn = 1;
        Ok(sizes)
    }

    fn write(&self, change: &Change, entry: Option<abi::Entry>) -> Result<(), Error> {
        match entry {
            Some(entry) => self.store.put(change.table, &change.prefix, entry),
            None => self.store.delete(change.table, &change.prefix),
        }
    }
}

/// The map entry that an owner's new entry and the one that is there make. An operator's word about a
/// prefix stands over the configuration's, as long as the operator's entry lasts.
fn merged(owner: Owner, new: &NewEntry, rule: u32, present: Option<&abi::Entry>, now_ns: u64) -> abi::Entry {
    const CONFIG: u16 = abi::Entry::CONFIG | abi::Entry::CONFIG_SHADOW;
    let flag = |wanted: bool, flag: u16| if wanted { flag } else { 0 };
    let shadow = flag(new.shadow, abi::Entry::SHADOW);
    let of_config = abi::Entry::CONFIG | flag(new.shadow, abi::Entry::CONFIG_SHADOW);
    let operators = present.filter(|entry| entry.flags & abi::Entry::OPERATOR != 0 && !entry.is_over(now_ns));
    if let (Owner::Config, Some(present)) = (owner, operators) {
        return abi::Entry { flags: present.flags & !CONFIG | of_config, ..*present };
    }
    let ttl_ns = new.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
    abi::Entry {
        expires_ns: ttl_ns.map_or(0, |ttl_ns| now_ns.saturating_add(ttl_ns)),
        rule,
        flags: match owner {
            Owner::Config => of_config | shadow,
            Owner::Operator => {
                abi::Entry::OPERATOR | shadow | present.map_or(0, |entry| entry.flags & CONFIG)
            }
        },
        prefix_len: u16::from(new.prefix.prefix_len()),
    }
}

/// Counts entries anew, a list and a rule, after a writer died half-way.
fn recount(store: &dyn Store) -> Result<(), Error> {
    let mut book = Rulebook::read(store)?;
    book.forget_entries();
    let mut sizes = abi::ListSizes::default();
    for table in Table::ALL {
        store.for_each(table, &mut |_, entry| {
            sizes.entries[table.index()] += 1;
            book.gained(entry.rule);
        })?;
    }
    book.write(store)?;
    store.set_sizes(&sizes)
}
