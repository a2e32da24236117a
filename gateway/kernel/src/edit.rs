//! One writer's changes to entries made singly: under the lock, in place, all of them or none.
//!
//! A handful of entries are written into the table in force, a word each. Many make a new table, which comes
//! into force as a whole; so does whatever the table has no room for.

use std::collections::{HashMap, HashSet};

use gateway_common::abi::{ALLOW_CAPACITY, DENY_CAPACITY, List};
use gateway_common::table::{SETS, set_of};
use ipnet::IpNet;

use crate::entry::{BanBounds, ListKind, NewEntry, Note, Owner};
use crate::error::Error;
use crate::rulebook::Rulebook;
use crate::rules::{Added, Progress, Removed};
use crate::store::{Lock, Made, Slot, Store};
use crate::table::{
    Directory, Generation, Key, Live, LiveEntry, MAX_EVIDENCE, Memory, NoRoom, Put, build_live,
};

/// More entries than these at once make a new table.
const AT_ONCE: usize = 256;

/// One writer's turn.
pub(crate) struct Edit<'a> {
    store: &'a dyn Store,
    bans: BanBounds,
    live: std::sync::Arc<Memory>,
    _turn: Lock<'a>,
}

impl<'a> Edit<'a> {
    pub(crate) fn begin(store: &'a dyn Store) -> Result<Self, Error> {
        Self::within(store, store.lock()?)
    }

    pub(crate) fn within(store: &'a dyn Store, turn: Lock<'a>) -> Result<Self, Error> {
        let live = match store.table(Slot::Live)? {
            // A writer died half-way: what it left is put together anew.
            Some(table) if Live(&table).is_torn() => {
                if let Some(lists) = store.table(Slot::Lists)? {
                    Generation(&lists).mend();
                }
                let (entries, evicted) = (Live(&table).salvage(), Live(&table).evicted());
                remake(store, &entries, evicted)?.memory
            }
            Some(table) => table,
            None => remake(store, &[], 0)?.memory,
        };
        Ok(Self { store, bans: store.ban_bounds()?, live, _turn: turn })
    }

    pub(crate) fn add(
        self,
        note: &Note,
        batches: &[(ListKind, Vec<NewEntry>)],
        progress: Progress,
    ) -> Result<Vec<Added>, Error> {
        let now_ns = self.store.now_ns();
        let mut wanted = Vec::with_capacity(batches.len());
        let mut book = Rulebook::read(self.store)?;
        for (list, entries) in batches {
            // Of two for one prefix the later.
            let last: HashMap<IpNet, usize> =
                entries.iter().enumerate().map(|(index, entry)| (entry.prefix, index)).collect();
            let kept =
                entries.iter().enumerate().filter(|(index, entry)| last.get(&entry.prefix) == Some(index));
            let kept = kept.map(|(_, entry)| self.entry(*list, note, entry, &mut book, now_ns));
            wanted.push(kept.collect::<Result<Vec<_>, _>>()?);
        }
        match self.check_room(&wanted) {
            // Entries whose time is over take room until somebody removes them, which the agent may not
            // have been there to do.
            Err(Error::Full { .. }) if self.drop_expired(now_ns) > 0 => self.check_room(&wanted)?,
            other => other?,
        }
        let total = wanted.iter().map(Vec::len).sum::<usize>();
        let done = if total <= AT_ONCE { self.put_in_place(&wanted) } else { Err(NoRoom) };
        let done = match done {
            Ok(done) => {
                self.make_room();
                done
            }
            Err(NoRoom) => self.put_in_new_table(&wanted)?,
        };
        progress(total);
        Ok(done)
    }

    /// Makes a crowded table anew. The entries that came last are in force by now, so no packet waits for it.
    fn make_room(&self) {
        if !Live(&self.live).is_crowded() {
            return;
        }
        if let Err(error) = self.remake() {
            // Nothing is lost: who finds no room at all will be told.
            tracing::warn!("the table of single entries stays as small as it is: {error}");
        }
    }

    /// Makes the table of single entries anew, with what is in it.
    fn remake(&self) -> Result<(), Error> {
        let live = Live(&self.live);
        let mut entries = Vec::new();
        live.for_each(&mut |entry| entries.push(entry));
        remake(self.store, &entries, live.evicted()).map(|_| ())
    }

    fn entry(
        &self,
        list: ListKind,
        note: &Note,
        new: &NewEntry,
        book: &mut Rulebook,
        now_ns: u64,
    ) -> Result<LiveEntry, Error> {
        if list == ListKind::Ban {
            self.bans.refuse(new)?;
        }
        let used = || rules_in_use(self.store);
        let ttl_ns = new.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let mut evidence = note.evidence.clone().unwrap_or_default();
        while evidence.len() > MAX_EVIDENCE {
            evidence.pop();
        }
        Ok(LiveEntry {
            list: list.into(),
            key: new.prefix.into(),
            shadow: new.shadow,
            rule: book.number(self.store, (list.into(), list.name(), &new.rule), &used)?,
            expires_ns: ttl_ns.map_or(0, |ttl_ns| now_ns.saturating_add(ttl_ns)),
            set_ns: now_ns,
            by: note.by,
            evidence,
        })
    }

    /// Bans make room for themselves, up to as many as there may be at all.
    fn check_room(&self, wanted: &[Vec<LiveEntry>]) -> Result<(), Error> {
        let live = Live(&self.live);
        for (list, capacity) in [
            (List::Allow, ALLOW_CAPACITY),
            (List::Ban, u64::from(self.bans.max)),
            (List::Deny, DENY_CAPACITY),
        ] {
            let new = wanted.iter().flatten().filter(|entry| {
                entry.list == list && (list == List::Ban || live.get(list, entry.key).is_none())
            });
            let new = new.count() as u64;
            let used = if list == List::Ban { 0 } else { live.count(list) };
            if new > 0 && used + new > capacity {
                let map = ListKind::from(list).name().to_owned();
                return Err(Error::Full { map, capacity, used, wanted: new });
            }
        }
        Ok(())
    }

    fn put_in_place(&self, wanted: &[Vec<LiveEntry>]) -> Result<Vec<Added>, NoRoom> {
        let live = Live(&self.live);
        let mut done = Vec::with_capacity(wanted.len());
        let mut former = Vec::new();
        live.begin();
        for entries in wanted {
            let mut added = Added::default();
            for entry in entries {
                let before = live.get(entry.list, entry.key);
                if entry.list == List::Ban
                    && before.is_none()
                    && live.count(List::Ban) >= u64::from(self.bans.max)
                {
                    live.evict_oldest(entry.set_ns);
                }
                match live.put(entry) {
                    Ok(put) => {
                        added.note(put);
                        former.push((entry, before));
                    }
                    Err(NoRoom) => {
                        // As it was, for the new table is made of it.
                        former
                            .iter()
                            .rev()
                            .for_each(|(entry, before)| put_back(live, entry, before.as_ref()));
                        live.done();
                        return Err(NoRoom);
                    }
                }
            }
            done.push(added);
        }
        live.done();
        Ok(done)
    }

    fn put_in_new_table(&self, wanted: &[Vec<LiveEntry>]) -> Result<Vec<Added>, Error> {
        let now_ns = self.store.now_ns();
        let live = Live(&self.live);
        // Few come to many, so only they are looked up.
        let coming: HashSet<(List, Key)> =
            wanted.iter().flatten().map(|entry| (entry.list, entry.key)).collect();
        let mut there: HashMap<(List, Key), LiveEntry> = HashMap::new();
        let mut all = Vec::new();
        live.for_each(&mut |entry| {
            let place = (entry.list, entry.key);
            if coming.contains(&place) {
                there.extend((!entry.is_over(now_ns)).then_some((place, entry)));
            } else if !entry.is_over(now_ns) {
                all.push(entry);
            }
        });
        let mut done = Vec::with_capacity(wanted.len());
        for entries in wanted {
            let mut added = Added::default();
            for entry in entries {
                let place = (entry.list, entry.key);
                added.note(match there.get(&place) {
                    Some(former) if former.says_the_same(entry) => Put::Unchanged,
                    _ => there.insert(place, entry.clone()).map_or(Put::Added, |_| Put::Updated),
                });
            }
            done.push(added);
        }
        all.extend(there.into_values());
        let (mut bans, mut all): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|entry| entry.list == List::Ban);
        bans.sort_by_key(|entry| entry.set_ns);
        let beyond = bans.len().saturating_sub(self.bans.max as usize);
        all.extend(bans.into_iter().skip(beyond));
        remake(self.store, &all, live.evicted() + beyond as u64)?;
        Ok(done)
    }

    pub(crate) fn remove(self, list: ListKind, prefixes: &[IpNet]) -> Result<Removed, Error> {
        let table = self.store.table(Slot::Lists)?;
        let lists = table.as_deref().map(Generation);
        let directory = lists.map(|lists| lists.directory()).unwrap_or_default();
        let book = Rulebook::read(self.store)?;
        let goes = |rule| {
            let name = book.name(rule);
            let info = name.and_then(|name| directory.find(list, &name.list));
            info.is_none_or(|info| info.owner == Owner::Operator)
        };
        let live = Live(&self.live);
        let mut removed = Removed::default();
        let mut seen = HashSet::new();
        live.begin();
        for prefix in prefixes.iter().filter(|prefix| seen.insert(**prefix)) {
            let key = Key::from(*prefix);
            let mut gone = usize::from(live.remove(list.into(), key));
            let listed = lists.map(|lists| lists.find(list.into(), key)).unwrap_or_default();
            if let Some(lists) = lists.filter(|_| !listed.is_empty()) {
                for rule in lists.remove(list.into(), key, &goes) {
                    gone += 1;
                    if let Some(index) = directory.of_rule(rule) {
                        Directory::count_deleted(lists.0, index, key.v6);
                    }
                }
            }
            if listed.iter().any(|entry| !goes(entry.item.rule)) {
                removed.kept_by_config.push(*prefix);
            } else if gone == 0 {
                removed.missing.push(*prefix);
            }
            removed.removed += usize::from(gone > 0);
        }
        live.done();
        Ok(removed)
    }

    /// Takes every entry of a list out.
    pub(crate) fn flush(self, list: ListKind) -> Result<usize, Error> {
        let live = Live(&self.live);
        let mut kept = Vec::new();
        let mut gone = 0;
        live.for_each(&mut |entry| {
            if entry.list == list.into() {
                gone += 1;
            } else {
                kept.push(entry);
            }
        });
        if gone > 0 {
            remake(self.store, &kept, live.evicted())?;
        }
        Ok(gone)
    }

    /// Takes entries out whose time is over; makes the table anew if too much of it is gone.
    pub(crate) fn expire(self) -> Result<usize, Error> {
        let expired = self.drop_expired(self.store.now_ns());
        if Live(&self.live).is_stale() {
            self.remake()?;
        }
        // What a writer left behind that died with a table half made.
        self.store.sweep()?;
        Ok(expired)
    }

    fn drop_expired(&self, now_ns: u64) -> usize {
        let live = Live(&self.live);
        if live.count(List::Ban) + live.count(List::Allow) == 0 {
            return 0;
        }
        let mut over = Vec::new();
        live.for_each(&mut |entry| {
            if entry.is_over(now_ns) {
                over.push((entry.list, entry.key));
            }
        });
        if over.is_empty() {
            return 0;
        }
        live.begin();
        over.iter().for_each(|(list, key)| {
            live.remove(*list, *key);
        });
        live.done();
        over.len()
    }
}

impl Added {
    fn note(&mut self, put: Put) {
        match put {
            Put::Added => self.added += 1,
            Put::Updated => self.updated += 1,
            Put::Unchanged => {}
        }
    }
}

fn put_back(live: Live<'_>, entry: &LiveEntry, before: Option<&LiveEntry>) {
    live.remove(entry.list, entry.key);
    if let Some(before) = before {
        // There was room for it a moment ago.
        let _ = live.put(before);
    }
}

/// Brings a new live table with these entries into force.
fn remake(store: &dyn Store, entries: &[LiveEntry], evicted: u64) -> Result<Made, Error> {
    let mut room = [[0; SETS as usize]; 2];
    for entry in entries {
        room[usize::from(entry.key.v6)][set_of(entry.list, entry.shadow) as usize] += AT_ONCE as u64;
    }
    // Room for as many more as came; twice what is there at most.
    for sets in &mut room {
        sets.iter_mut().for_each(|set| *set = (*set).min(AT_ONCE as u64));
    }
    let made = build_live(entries, room, evicted, &mut |lines| store.make(lines))?;
    store.publish_live(&made)?;
    store.sweep()?;
    Ok(made)
}

/// Rules that entries in force go under.
pub(crate) fn rules_in_force(store: &dyn Store) -> Result<HashSet<u32>, Error> {
    rules_of(store, &[Slot::Live, Slot::Lists])
}

/// The same, and those of the generation that a rollback would bring back.
pub(crate) fn rules_in_use(store: &dyn Store) -> Result<HashSet<u32>, Error> {
    rules_of(store, &[Slot::Live, Slot::Lists, Slot::Former])
}

fn rules_of(store: &dyn Store, slots: &[Slot]) -> Result<HashSet<u32>, Error> {
    let mut rules = HashSet::new();
    for slot in slots {
        let Some(table) = store.table(*slot)? else { continue };
        if *slot == Slot::Live {
            Live(&table).for_each(&mut |entry| {
                rules.insert(entry.rule);
            });
        } else {
            rules.extend(
                Generation(&table).directory().lists.iter().flat_map(|list| list.rules.iter().copied()),
            );
        }
    }
    Ok(rules)
}
