//! The flows, as they stand in pinned maps.
//!
//! The flow tables are as large as the default verdict needs, so they are made anew when it changes. Whoever
//! looks at them therefore opens them at each look; only `explain` and tests do.

use std::path::Path;

use aya::maps::{HashMap, Map, MapError, MapInfo};
use gateway_common::abi::{
    FLOWS_CAPACITY, Flow, FlowKey, FlowTable, NEW_FLOWS_CAPACITY, UNUSED_FLOWS_CAPACITY,
};

use crate::entry::DefaultVerdict;
use crate::error::Error;
use crate::object;
use crate::store::{kernel, open_map};

/// Rows of a flow table under a default verdict.
pub(crate) const fn capacity(table: FlowTable, default: DefaultVerdict) -> u32 {
    match (default, table) {
        (DefaultVerdict::Pass, _) => UNUSED_FLOWS_CAPACITY,
        (DefaultVerdict::Drop, FlowTable::New) => NEW_FLOWS_CAPACITY,
        (DefaultVerdict::Drop, FlowTable::Established) => FLOWS_CAPACITY,
    }
}

/// Makes the flow tables anew if they have another size than the default verdict needs, and says whether it
/// did. Programs that run go on with the tables they have, so they must be replaced afterwards.
pub(crate) fn fit(maps: &Path, default: DefaultVerdict) -> Result<bool, Error> {
    let fits = |table: FlowTable| {
        MapInfo::from_pin(maps.join(table.name()))
            .is_ok_and(|info| info.max_entries() == capacity(table, default))
    };
    if fits(FlowTable::New) && fits(FlowTable::Established) {
        return Ok(false);
    }
    for table in [FlowTable::New, FlowTable::Established] {
        match std::fs::remove_file(maps.join(table.name())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(kernel(&format!("unpin {}", table.name()), error));
            }
            _ => {}
        }
    }
    object::make_maps(maps, default).map(|()| true)
}

/// What a table remembers of a flow.
pub(crate) fn flow(maps: &Path, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, Error> {
    let map = match open_map(maps, table.name()) {
        Err(Error::NotPinned(_)) => return Ok(None),
        opened => opened?,
    };
    let refused = |error: MapError| kernel("look a flow up", error);
    let map: HashMap<_, FlowKey, Flow> = HashMap::try_from(Map::LruHashMap(map)).map_err(refused)?;
    match map.get(key, 0) {
        Ok(flow) => Ok(Some(flow)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}
