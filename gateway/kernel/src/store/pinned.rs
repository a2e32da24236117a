//! The pinned maps. They outlive the agent, so every command can open them.
//!
//! The map of tables says by number which table is in a slot; each table is pinned under its number, so that
//! whoever may open the directory finds it (asking the kernel for a map by number would take CAP_SYS_ADMIN).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use gateway_common::abi::{
    self, COUNTER_SLOTS, Counter, Flow, FlowKey, FlowTable, HEAD_LINES, INTERFACE_SLOTS, Interface,
    LEFT_WORD, LISTS_TABLES, LIVE_TABLES, RULE_SLOTS, RuleCounter, SOURCE_SLOTS, Settings, Source,
    TABLE_SLOTS, WAITING_SLOT,
};
use gateway_common::packet::Address;
use gateway_common::table::{NEAR_V4_LINES, NEAR_V6_LINES};
use gateway_common::verdict::Reason;

use super::{InterfaceCounters, Lock, Made, Slot, Store};
use crate::entry::{BanBounds, DefaultVerdict};
use crate::error::Error;
use crate::flows;
use crate::interfaces::name_of;
use crate::pin::PinDir;
use crate::rulebook::RECORD_LINES;
use crate::sys;
use crate::table::{Live, Memory, Near, Place};

/// What tables are pinned as, before their number.
const TABLE_PIN: &str = "table_";
/// Longer than any run of a program.
const LONGEST_RUN_NS: u64 = 1_000_000_000;
/// Looks for a table that another process puts away at the same moment.
const LOOKS: usize = 100;

/// Maps of one pin directory.
pub(crate) struct Pinned {
    dir: PinDir,
    tables: MapData,
    /// Tables that are mapped into this process, by number: mapping one again would cost more than most of what
    /// is done with it.
    mapped: Mutex<HashMap<u32, Arc<Memory>>>,
    in_force: Arc<Memory>,
    heads: Arc<Memory>,
    near: Arc<Near>,
    rules: Arc<Memory>,
    rule_hits: RwLock<PerCpuArray<MapData, RuleCounter>>,
    counters: RwLock<PerCpuArray<MapData, Counter>>,
    interfaces: RwLock<Array<MapData, Interface>>,
    settings: RwLock<Array<MapData, Settings>>,
    sources: RwLock<Array<MapData, Source>>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Opens the maps under a pin directory.
    pub(crate) fn open(dir: &PinDir) -> Result<Self, Error> {
        let maps = dir.maps();
        let mapped = |name: &str, lines: u32| Memory::of_map(open_map(&maps, name)?.fd().as_fd(), lines);
        let in_force = Arc::new(mapped("in_force", 1)?);
        let near = Near {
            v4: mapped("near_v4", NEAR_V4_LINES)?,
            v6: mapped("near_v6", NEAR_V6_LINES)?,
            in_force: Arc::clone(&in_force),
        };
        if in_force.get(0, 0) == 0 {
            near.begin();
            in_force.set(0, 0, abi::in_force(LISTS_TABLES[0], LIVE_TABLES[0]));
        }
        Ok(Self {
            tables: open_map(&maps, "tables")?,
            mapped: Mutex::default(),
            near: Arc::new(near),
            in_force,
            heads: Arc::new(mapped("heads", TABLE_SLOTS as u32 * HEAD_LINES as u32)?),
            rules: Arc::new(mapped("rules", RULE_SLOTS * RECORD_LINES)?),
            rule_hits: RwLock::new(open_per_cpu(&maps, "rule_hits")?),
            counters: RwLock::new(open_per_cpu(&maps, "counters")?),
            interfaces: RwLock::new(open_array(&maps, "interfaces")?),
            settings: RwLock::new(open_array(&maps, "settings")?),
            sources: RwLock::new(open_array(&maps, "sources")?),
            dir: dir.clone(),
        })
    }

    /// The number of the table in a slot of the map of tables.
    fn number_at(&self, place: u32) -> Result<Option<u32>, Error> {
        sys::inner_id(self.tables.fd().as_fd(), place)
            .map_err(|error| kernel("say which table is in force", error))
    }

    fn number(&self, slot: Slot) -> Result<Option<u32>, Error> {
        self.number_at(self.place(slot))
    }

    /// Where a slot is in the map of tables.
    fn place(&self, slot: Slot) -> u32 {
        let in_force = self.in_force.get(0, 0);
        match slot {
            Slot::Live => abi::live_slot(in_force),
            Slot::Lists => abi::lists_slot(in_force),
            Slot::Former => next(&LISTS_TABLES, abi::lists_slot(in_force)),
        }
    }

    /// Brings a table into force in an idle place; `chosen` is what is in force then. Whatever programs may look for
    /// is there before they may look for it, and goes after they do not any more.
    fn bring_into_force(&self, made: &Made, place: u32, chosen: u64) -> Result<(), Error> {
        self.wait_for_programs(place)?;
        self.near.add(&made.memory);
        made.memory.show_at(Place {
            heads: Arc::clone(&self.heads),
            row: place,
            near: Arc::clone(&self.near),
        });
        self.put(place, made)?;
        self.choose(chosen);
        Ok(())
    }

    /// What is in force from now on, in one write.
    fn choose(&self, chosen: u64) {
        let before = self.in_force.get(0, 0);
        let slots = |in_force| [abi::lists_slot(in_force), abi::live_slot(in_force)];
        for place in slots(before).into_iter().filter(|place| !slots(chosen).contains(place)) {
            self.heads.set(place * HEAD_LINES as u32, LEFT_WORD, boot_ns());
        }
        self.in_force.set(0, 0, chosen);
    }

    /// Waits until no program is left that looked for the table in a place that is going to be filled. No program
    /// runs for a second, so mostly there is nothing to wait for.
    fn wait_for_programs(&self, place: u32) -> Result<(), Error> {
        let left = self.heads.get(place * HEAD_LINES as u32, LEFT_WORD);
        if boot_ns().saturating_sub(left) > LONGEST_RUN_NS {
            return Ok(());
        }
        // The kernel waits for them whenever a map of maps is written. Nobody looks at this slot.
        let nothing = sys::create_table(1).map_err(|error| kernel("make a table", error))?;
        sys::set_inner(self.tables.fd().as_fd(), WAITING_SLOT, nothing.as_fd())
            .map_err(|error| kernel("wait for running programs", error))
    }

    /// Takes bits out that no table in force has any more.
    fn tidy_near(&self) -> Result<(), Error> {
        let (lists, live) = (self.table(Slot::Lists)?, self.table(Slot::Live)?);
        self.near.become_that_of(lists.as_deref(), live.as_deref())
    }

    /// Puts a table into the map of tables.
    fn put(&self, place: u32, made: &Made) -> Result<(), Error> {
        let Some(map) = &made.map else { return Ok(()) };
        let own: OwnedFd = map.try_clone().map_err(|error| kernel("keep a table", error))?;
        let data = MapData::from_fd(own).map_err(|error| kernel("describe a table", error))?;
        let number = data.info().map_err(|error| kernel("describe a table", error))?.id();
        // The pin before the slot: whoever finds the table in its slot must be able to open it.
        match data.pin(self.pin_of(number)) {
            Err(_) if self.pin_of(number).exists() => {}
            pinned => pinned.map_err(|error| kernel("pin a table", error))?,
        }
        self.set_slot(place, map, number).map_err(|error| kernel("put a table into force", error))?;
        locked(&self.mapped).insert(number, Arc::clone(&made.memory));
        Ok(())
    }

    /// Fills a slot of the map of tables. The kernel does so at once, and then takes some twenty milliseconds to see
    /// every program end that might have met the table before. That one is in nobody's way, and a ban that made
    /// this table necessary is not to wait: another thread does.
    fn set_slot(&self, place: u32, map: &OwnedFd, number: u32) -> io::Result<()> {
        let (outer, inner) = (self.tables.fd().as_fd().try_clone_to_owned()?, map.try_clone()?);
        let fill = move || sys::set_inner(outer.as_fd(), place, inner.as_fd());
        let waiting = std::thread::Builder::new().name("put-table".to_owned()).spawn(fill)?;
        while !waiting.is_finished() {
            if sys::inner_id(self.tables.fd().as_fd(), place)? == Some(number) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        waiting.join().unwrap_or_else(|_| Err(io::Error::other("the thread that does it panicked")))
    }

    fn pin_of(&self, number: u32) -> PathBuf {
        self.dir.maps().join(format!("{TABLE_PIN}{number}"))
    }

    /// Numbers of the tables that are in force or could be again.
    fn numbers(&self) -> Result<Vec<u32>, Error> {
        let numbers = [Slot::Live, Slot::Lists, Slot::Former].map(|slot| self.number(slot));
        Ok(numbers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The rows of the interface table.
    pub(crate) fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let table = read(&self.interfaces);
        (0..INTERFACE_SLOTS)
            .map(|slot| table.get(&slot, 0).map_err(|error| kernel("read the interface table", error)))
            .collect()
    }

    /// Counts of a row begin anew: it is about to be another interface's.
    pub(crate) fn clear_counters(&self, slot: u32) -> Result<(), Error> {
        let processors = processors()?;
        for index in slot * COUNTER_SLOTS..(slot + 1) * COUNTER_SLOTS {
            let zeros = PerCpuValues::try_from(vec![Counter::default(); processors]).map_err(|error| {
                Error::Kernel { what: "clear counters".to_owned(), why: error.to_string() }
            })?;
            write(&self.counters)
                .set(index, zeros, 0)
                .map_err(|error| kernel("clear an interface's counters", error))?;
        }
        Ok(())
    }

    pub(crate) fn set_interface(&self, slot: u32, row: &Interface) -> Result<(), Error> {
        write(&self.interfaces).set(slot, row, 0).map_err(|error| kernel("write the interface table", error))
    }

    fn settings(&self) -> Result<Settings, Error> {
        read(&self.settings).get(&0, 0).map_err(|error| kernel("read the settings", error))
    }

    /// Changes the settings and leaves what `change` does not touch. Only the agent writes them, through one
    /// handle, so its lock is enough.
    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<(), Error> {
        let mut map = write(&self.settings);
        let mut settings = map.get(&0, 0).map_err(|error| kernel("read the settings", error))?;
        let before = settings;
        change(&mut settings);
        if settings == before {
            return Ok(());
        }
        map.set(0, settings, 0).map_err(|error| kernel("write the settings", error))
    }

    fn summed(&self, index: u32) -> Result<Counter, Error> {
        let values = read(&self.counters).get(&index, 0).map_err(|error| kernel("read counters", error))?;
        Ok(values.iter().fold(Counter::default(), |sum, one| Counter {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
            events_lost: sum.events_lost + one.events_lost,
        }))
    }
}

impl Store for Pinned {
    fn table(&self, slot: Slot) -> Result<Option<Arc<Memory>>, Error> {
        for look in 1.. {
            let Some(number) = self.number(slot)? else { return Ok(None) };
            if let Some(memory) = locked(&self.mapped).get(&number) {
                return Ok(Some(Arc::clone(memory)));
            }
            match MapData::from_pin(self.pin_of(number)) {
                Ok(map) => {
                    let lines = map.info().map_err(|error| kernel("describe a table", error))?.max_entries();
                    let memory = Arc::new(Memory::of_map(map.fd().as_fd(), lines)?);
                    // What changes in it has to show where programs look.
                    if slot == Slot::Live {
                        memory.show_at(Place {
                            heads: Arc::clone(&self.heads),
                            row: self.place(slot),
                            near: Arc::clone(&self.near),
                        });
                    }
                    let numbers = self.numbers()?;
                    let mut mapped = locked(&self.mapped);
                    mapped.retain(|number, _| numbers.contains(number));
                    mapped.insert(number, Arc::clone(&memory));
                    return Ok(Some(memory));
                }
                // Between the two questions another process may have put another table in its place.
                Err(_) if look < LOOKS && self.number(slot)? != Some(number) => {}
                Err(error) => {
                    return Err(crate::pin::opening(
                        &self.dir.maps(),
                        &format!("{TABLE_PIN}{number}"),
                        &error,
                    ));
                }
            }
        }
        Ok(None)
    }

    fn make(&self, lines: u32) -> Result<Made, Error> {
        let map = sys::create_table(lines).map_err(|error| kernel("make a table", error))?;
        Ok(Made { memory: Arc::new(Memory::of_map(map.as_fd(), lines)?), map: Some(map) })
    }

    fn publish_live(&self, made: &Made) -> Result<(), Error> {
        // Of a table that only grew, all bits stay. Finding out that they do would take the time of a hundred bans.
        let grew = |live: Arc<Memory>| Live(&live).only_grew_to(Live(&made.memory));
        let only_grew = self.table(Slot::Live)?.is_none_or(grew);
        let place = next(&LIVE_TABLES, self.place(Slot::Live));
        self.bring_into_force(made, place, abi::in_force(self.place(Slot::Lists), place))?;
        if only_grew {
            self.near.tune();
            return Ok(());
        }
        self.tidy_near()
    }

    fn publish_lists(&self, made: &Made) -> Result<(), Error> {
        let place = self.place(Slot::Former);
        self.bring_into_force(made, place, abi::in_force(place, self.place(Slot::Live)))?;
        self.tidy_near()
    }

    fn exchange_lists(&self) -> Result<(), Error> {
        if let Some(former) = self.table(Slot::Former)? {
            self.near.add(&former);
        }
        self.choose(abi::in_force(self.place(Slot::Former), self.place(Slot::Live)));
        self.tidy_near()
    }

    fn sweep(&self) -> Result<(), Error> {
        let numbers = self.numbers()?;
        locked(&self.mapped).retain(|number, _| numbers.contains(number));
        let entries =
            std::fs::read_dir(self.dir.maps()).map_err(|error| kernel("list the pinned maps", error))?;
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(TABLE_PIN)?.parse().ok());
            if number.is_some_and(|number: u32| !numbers.contains(&number)) {
                std::fs::remove_file(entry.path()).map_err(|error| kernel("let go of a table", error))?;
            }
        }
        Ok(())
    }

    fn default_verdict(&self) -> Result<DefaultVerdict, Error> {
        Ok(match self.settings()?.default_drop {
            0 => DefaultVerdict::Pass,
            _ => DefaultVerdict::Drop,
        })
    }

    fn set_default(&self, default: DefaultVerdict) -> Result<(), Error> {
        let drops = default == DefaultVerdict::Drop;
        self.change_settings(|settings| settings.default_drop = u32::from(drops))
    }

    fn ban_bounds(&self) -> Result<BanBounds, Error> {
        let settings = read(&self.settings).get(&0, 0).map_err(|error| kernel("read the settings", error))?;
        let any = BanBounds::default();
        let or_any = |bound: u32, any: u32| if bound == 0 { any } else { bound };
        Ok(BanBounds {
            max: or_any(settings.ban_count, any.max).min(any.max),
            max_ttl: match settings.ban_seconds {
                0 => any.max_ttl,
                seconds => Duration::from_secs(u64::from(seconds)),
            },
            v4_prefix: settings.ban_prefix_v4.min(32) as u8,
            v6_prefix: settings.ban_prefix_v6.min(128) as u8,
        })
    }

    fn set_ban_bounds(&self, bounds: BanBounds) -> Result<(), Error> {
        self.change_settings(|settings| {
            settings.ban_count = bounds.max;
            settings.ban_seconds = u32::try_from(bounds.max_ttl.as_secs()).unwrap_or(u32::MAX);
            settings.ban_prefix_v4 = u32::from(bounds.v4_prefix);
            settings.ban_prefix_v6 = u32::from(bounds.v6_prefix);
        })
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, Error> {
        flows::flow(&self.dir.maps(), table, key)
    }

    fn rules(&self) -> Result<Arc<Memory>, Error> {
        Ok(Arc::clone(&self.rules))
    }

    fn rule_hits(&self, number: u32) -> Result<RuleCounter, Error> {
        let values =
            read(&self.rule_hits).get(&number, 0).map_err(|error| kernel("read a rule's counter", error))?;
        Ok(values.iter().fold(RuleCounter::default(), |sum, one| RuleCounter {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        }))
    }

    fn clear_rule_hits(&self, number: u32) -> Result<(), Error> {
        let zeros = vec![RuleCounter::default(); processors()?];
        let zeros = PerCpuValues::try_from(zeros)
            .map_err(|error| Error::Kernel { what: "clear a counter".to_owned(), why: error.to_string() })?;
        write(&self.rule_hits).set(number, zeros, 0).map_err(|error| kernel("clear a rule's counter", error))
    }

    fn counters(&self) -> Result<Vec<InterfaceCounters>, Error> {
        let mut counted = Vec::new();
        for (slot, row) in self.interfaces()?.iter().enumerate() {
            if row.name[0] == 0 {
                continue;
            }
            let reasons = Reason::ALL
                .iter()
                .map(|reason| Ok((*reason, self.summed(slot as u32 * COUNTER_SLOTS + *reason as u32)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            counted.push(InterfaceCounters { interface: name_of(row), reasons });
        }
        Ok(counted)
    }

    fn count(&self, _reason: Reason) {}

    fn count_rule(&self, _rule: u32) {}

    fn for_each_source(&self, visit: &mut dyn FnMut(u32, Source)) -> Result<(), Error> {
        let table = read(&self.sources);
        (0..SOURCE_SLOTS).try_for_each(|slot| {
            visit(slot, table.get(&slot, 0).map_err(|error| kernel("read the recent sources", error))?);
            Ok(())
        })
    }

    fn note_source(&self, _address: &Address) {}

    fn set_source_sampling(&self, mask: u32) -> Result<(), Error> {
        self.change_settings(|settings| settings.source_sampling = mask)
    }

    fn now_ns(&self) -> u64 {
        boot_ns()
    }

    fn lock(&self) -> Result<Lock<'_>, Error> {
        self.dir.lock_lists().map(Lock::Directory)
    }

    fn try_lock(&self) -> Result<Option<Lock<'_>>, Error> {
        Ok(self.dir.try_lock_lists()?.map(Lock::Directory))
    }

    fn is_kernel(&self) -> bool {
        true
    }
}

/// Of two places the one that is not in force.
fn next(places: &[u32], in_force: u32) -> u32 {
    let at = places.iter().position(|place| *place == in_force);
    places[at.map_or(0, |at| (at + 1) % places.len())]
}

/// CLOCK_BOOTTIME in nanoseconds: the clock that the programs read.
pub(crate) fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

pub(crate) fn processors() -> Result<usize, Error> {
    aya::util::nr_cpus()
        .map_err(|(path, error)| Error::Kernel { what: format!("read {path}"), why: error.to_string() })
}

pub(crate) fn kernel(what: &str, error: impl std::error::Error) -> Error {
    Error::Kernel { what: what.to_owned(), why: crate::error::chain(&error) }
}

fn locked<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A pinned map's descriptor.
pub(crate) fn open_map(maps: &Path, name: &str) -> Result<MapData, Error> {
    MapData::from_pin(maps.join(name)).map_err(|error| crate::pin::opening(maps, name, &error))
}

fn open_array<V: aya::Pod>(maps: &Path, name: &str) -> Result<Array<MapData, V>, Error> {
    Array::try_from(Map::Array(open_map(maps, name)?)).map_err(|error| foreign(name, &error))
}

pub(crate) fn open_per_cpu<V: aya::Pod>(maps: &Path, name: &str) -> Result<PerCpuArray<MapData, V>, Error> {
    PerCpuArray::try_from(Map::PerCpuArray(open_map(maps, name)?)).map_err(|error| foreign(name, &error))
}

fn foreign(name: &str, error: &MapError) -> Error {
    Error::Kernel {
        what: format!("use the pinned map {name}, which another version or program made"),
        why: format!("{}; `gateway detach` removes it", crate::error::chain(error)),
    }
}
