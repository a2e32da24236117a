//! The pinned maps. They outlive the agent, so every command can open them.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use gateway_common::abi::{
    COUNTER_SLOTS, Counter, Entry, Flow, FlowKey, FlowTable, INTERFACE_SLOTS, Interface, List, ListSizes,
    RuleCounter, RuleRecord,
};
use gateway_common::packet::{Address, Family};
use gateway_common::verdict::Reason;
use ipnet::IpNet;

use super::{InterfaceCounters, Lock, Store, Table, prefix};
use crate::entry::DefaultVerdict;
use crate::error::Error;
use crate::flows;
use crate::interfaces::name_of;
use crate::pin::PinDir;

/// Maps of one pin directory.
pub(crate) struct Pinned {
    dir: PinDir,
    // One lock a trie: aya asks for exclusive access to write; writers of other processes are kept out
    // by the directory's lock, and the kernel itself needs none of them.
    v4: [RwLock<LpmTrie<MapData, u32, Entry>>; 3],
    v6: [RwLock<LpmTrie<MapData, [u32; 4], Entry>>; 3],
    sizes: RwLock<Array<MapData, ListSizes>>,
    rules: RwLock<Array<MapData, RuleRecord>>,
    rule_hits: RwLock<PerCpuArray<MapData, RuleCounter>>,
    counters: RwLock<PerCpuArray<MapData, Counter>>,
    interfaces: RwLock<Array<MapData, Interface>>,
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
        Ok(Self {
            v4: [
                RwLock::new(open_trie(&maps, "allow_v4")?),
                RwLock::new(open_trie(&maps, "ban_v4")?),
                RwLock::new(open_trie(&maps, "deny_v4")?),
            ],
            v6: [
                RwLock::new(open_trie(&maps, "allow_v6")?),
                RwLock::new(open_trie(&maps, "ban_v6")?),
                RwLock::new(open_trie(&maps, "deny_v6")?),
            ],
            sizes: RwLock::new(open_array(&maps, "list_sizes")?),
            rules: RwLock::new(open_array(&maps, "rules")?),
            rule_hits: RwLock::new(open_per_cpu(&maps, "rule_hits")?),
            counters: RwLock::new(open_per_cpu(&maps, "counters")?),
            interfaces: RwLock::new(open_array(&maps, "interfaces")?),
            dir: dir.clone(),
        })
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
    fn longest_match(&self, list: List, address: &Address, max_len: u32) -> Result<Option<Entry>, Error> {
        let found = match address.family {
            Family::V4 => read(&self.v4[list as usize]).get(&Key::new(max_len, address.words[0]), 0),
            Family::V6 => read(&self.v6[list as usize]).get(&Key::new(max_len, address.words), 0),
        };
        match found {
            Ok(entry) => Ok(Some(entry)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(kernel("look an address up", error)),
        }
    }

    fn put(&self, table: Table, prefix: &IpNet, entry: Entry) -> Result<(), Error> {
        let length = u32::from(prefix.prefix_len());
        let words = Address::from(prefix.network()).words;
        match table.family {
            Family::V4 => write(&self.v4[table.list as usize]).insert(&Key::new(length, words[0]), entry, 0),
            Family::V6 => write(&self.v6[table.list as usize]).insert(&Key::new(length, words), entry, 0),
        }
        .map_err(|error| kernel(&format!("add {prefix} to {}", table.name()), error))
    }

    fn delete(&self, table: Table, prefix: &IpNet) -> Result<(), Error> {
        let length = u32::from(prefix.prefix_len());
        let words = Address::from(prefix.network()).words;
        let deleted = match table.family {
            Family::V4 => write(&self.v4[table.list as usize]).remove(&Key::new(length, words[0])),
            Family::V6 => write(&self.v6[table.list as usize]).remove(&Key::new(length, words)),
        };
        match deleted {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(kernel(&format!("take {prefix} out of {}", table.name()), error)),
        }
    }

    fn for_each(&self, table: Table, visit: &mut dyn FnMut(IpNet, Entry)) -> Result<(), Error> {
        let mut each = |address: Address, length: u32, entry: Entry| {
            if let Some(prefix) = prefix(address, length) {
                visit(prefix, entry);
            }
        };
        // The kernel ends the walk early if its current key is deleted meanwhile; callers who must see
        // everything hold the writers' lock.
        match table.family {
            Family::V4 => {
                for item in read(&self.v4[table.list as usize]).iter() {
                    let (key, entry) = item.map_err(|error| kernel("walk a list", error))?;
                    each(Address::v4(key.data()), key.prefix_len(), entry);
                }
            }
            Family::V6 => {
                for item in read(&self.v6[table.list as usize]).iter() {
                    let (key, entry) = item.map_err(|error| kernel("walk a list", error))?;
                    each(Address::v6(key.data()), key.prefix_len(), entry);
                }
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Result<ListSizes, Error> {
        read(&self.sizes).get(&0, 0).map_err(|error| kernel("read the lists' sizes", error))
    }

    fn set_sizes(&self, sizes: &ListSizes) -> Result<(), Error> {
        write(&self.sizes).set(0, sizes, 0).map_err(|error| kernel("write the lists' sizes", error))
    }

    fn default_verdict(&self) -> Result<DefaultVerdict, Error> {
        flows::default_verdict(&self.dir.maps())
    }

    fn set_default(&self, default: DefaultVerdict) -> Result<(), Error> {
        flows::set_default(&self.dir.maps(), default)
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, Error> {
        flows::flow(&self.dir.maps(), table, key)
    }

    fn rule(&self, number: u32) -> Result<RuleRecord, Error> {
        read(&self.rules).get(&number, 0).map_err(|error| kernel("read a rule", error))
    }

    fn set_rule(&self, number: u32, record: &RuleRecord) -> Result<(), Error> {
        write(&self.rules).set(number, record, 0).map_err(|error| kernel("write a rule", error))
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

fn open_trie<K: aya::Pod>(maps: &Path, name: &str) -> Result<LpmTrie<MapData, K, Entry>, Error> {
    LpmTrie::try_from(Map::LpmTrie(open_map(maps, name)?)).map_err(|error| foreign(name, &error))
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
