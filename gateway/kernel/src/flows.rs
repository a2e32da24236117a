//! The default verdict and the flows, as they stand in pinned maps.
//!
//! The flow tables are as large as the default verdict needs, so they are made anew when it changes. Whoever
//! looks at them therefore opens them at each look; only `explain` and tests do.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapError, MapInfo};
use gateway_common::abi::{
    FLOWS_CAPACITY, Flow, FlowKey, FlowTable, NEW_FLOWS_CAPACITY, Settings, UNUSED_FLOWS_CAPACITY,
};

use crate::entry::DefaultVerdict;
use crate::error::Error;
use crate::object;
use crate::store::{kernel, open_map};

const SETTINGS: &str = "settings";

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

/// What happens to packets that no entry names. Maps that an older gateway pinned know only passing.
pub(crate) fn default_verdict(maps: &Path) -> Result<DefaultVerdict, Error> {
    Ok(match read_settings(maps)? {
        Some(Settings { default_drop: 0, .. }) | None => DefaultVerdict::Pass,
        Some(_) => DefaultVerdict::Drop,
    })
}

/// Says it to the programs; the next packet sees it.
pub(crate) fn set_default(maps: &Path, default: DefaultVerdict) -> Result<(), Error> {
    let present = read_settings(maps)?.unwrap_or_default();
    let settings = Settings { default_drop: u32::from(default == DefaultVerdict::Drop), ..present };
    if settings == present {
        return Ok(());
    }
    let refused = |error: MapError| kernel("write the settings", error);
    let mut map: Array<_, Settings> =
        Array::try_from(Map::Array(open_map(maps, SETTINGS)?)).map_err(refused)?;
    map.set(0, settings, 0).map_err(refused)
}

fn read_settings(maps: &Path) -> Result<Option<Settings>, Error> {
    let map = match open_map(maps, SETTINGS) {
        Err(Error::NotPinned(_)) => return Ok(None),
        opened => opened?,
    };
    let refused = |error: MapError| kernel("read the settings", error);
    let map: Array<_, Settings> = Array::try_from(Map::Array(map)).map_err(refused)?;
    map.get(&0, 0).map(Some).map_err(refused)
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
