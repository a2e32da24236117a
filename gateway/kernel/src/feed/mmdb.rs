//! Databases of MaxMind's format: the networks of countries and of network operators.
//!
//! Three layouts are known: MaxMind's and DB-IP's (`country.iso_code`, `autonomous_system_number`) and
//! IPinfo's (`country_code` or `country`, `asn` as in `AS64496`).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maxminddb::{LookupResult, MaxMindDbError, Reader};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::notation::shown;
use super::prefixes::aggregate;

/// The networks of a database that are of one of these countries (two letters, capital or not) or of one of
/// these operators (AS numbers), as the fewest prefixes, IPv4 before IPv6. None, if the database knows none.
///
/// A network's country is where it is used; where it is registered counts only if that is all the database
/// says. IPv4 networks are IPv4 whichever tree holds them, and what IPv6 databases repeat of them for the
/// tunnels 6to4 and Teredo is left out.
///
/// # Errors
/// If the bytes are no such database, or a damaged one, or one that does not say what is asked.
pub fn select(bytes: impl AsRef<[u8]>, countries: &[String], asns: &[u32]) -> Result<Vec<IpNet>, MmdbError> {
    let countries = countries.iter().map(|text| Country::read(text)).collect::<Result<Vec<_>, _>>()?;
    let reader = Reader::from_source(bytes)?;
    let mut selection =
        Selection { countries, asns, known: HashMap::new(), any_country: false, any_asn: false };
    let mut networks = Vec::new();
    walk(&reader, |found, network| {
        if selection.takes(found)? {
            networks.push(network);
        }
        Ok(())
    })?;
    let kind = || shown(&reader.metadata().database_type);
    if !selection.countries.is_empty() && !selection.any_country {
        return Err(MmdbError::NoCountries { kind: kind() });
    }
    if !asns.is_empty() && !selection.any_asn {
        return Err(MmdbError::NoAsns { kind: kind() });
    }
    aggregate(&mut networks);
    Ok(networks)
}

/// Why no networks can be selected from a database.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MmdbError {
    /// It has no description, or one that cannot be used, such as of another version of the format.
    #[error("this is no MaxMind database that can be read, or a damaged one: {why}")]
    Unreadable {
        /// What the reader says.
        why: String,
    },
    /// Its tree leads to more networks than it has nodes for: it runs in circles.
    #[error("this MaxMind database is damaged: its tree does not end")]
    Endless,
    /// It is of another kind.
    #[error("a database of the kind {kind} does not say which country a network is in")]
    NoCountries {
        /// What it calls itself.
        kind: String,
    },
    /// It is of another kind.
    #[error("a database of the kind {kind} does not say which AS a network belongs to")]
    NoAsns {
        /// What it calls itself.
        kind: String,
    },
    /// What was asked for is no code of a country.
    #[error("{text} is not a country; write the two letters of ISO 3166, such as NL")]
    BadCountry {
        /// What was asked for.
        text: String,
    },
}

impl From<MaxMindDbError> for MmdbError {
    fn from(error: MaxMindDbError) -> Self {
        MmdbError::Unreadable { why: shown_whole(&error.to_string()) }
    }
}

/// An error's sentence may repeat bytes of the file, and may be longer than what is shown of a word.
fn shown_whole(why: &str) -> String {
    const MAX_CHARS: usize = 300;
    why.chars()
        .take(MAX_CHARS)
        .map(|char| if super::is_printable(char) { char } else { '\u{fffd}' })
        .collect()
}

/// Calls a function for each network that has a record.
///
/// It goes from network to network by address. `Reader::networks` would be faster, but where a damaged file
/// has a tree whose branches meet again, that takes every way through it, and there may be 2^128.
fn walk<S: AsRef<[u8]>>(
    reader: &Reader<S>,
    mut found: impl FnMut(&LookupResult<'_, S>, IpNet) -> Result<(), MmdbError>,
) -> Result<(), MmdbError> {
    // A tree has one network more than it has nodes. Four times as many allow for branches that a database
    // repeats on purpose.
    let mut left = u64::from(reader.metadata().node_count).saturating_add(1).saturating_mul(4);
    let mut spend = || {
        left = left.checked_sub(1).ok_or(MmdbError::Endless)?;
        Ok::<_, MmdbError>(())
    };
    let mut any_v4 = false;
    let mut next = Some(0u32);
    while let Some(address) = next {
        spend()?;
        let result = reader.lookup(IpAddr::V4(Ipv4Addr::from_bits(address)))?;
        // A record above the IPv4 tree covers all of it.
        let network = match network_of(&result)? {
            IpNet::V4(network) => network,
            IpNet::V6(_) => Ipv4Net::default(),
        };
        if result.has_data() {
            any_v4 = true;
            found(&result, IpNet::V4(network))?;
        }
        next = network.broadcast().to_bits().checked_add(1);
    }
    if reader.metadata().ip_version != 6 {
        return Ok(());
    }
    let repeated = repeated_v4(any_v4);
    // The IPv4 tree is ::/96.
    let mut next = Some(1u128 << 32);
    while let Some(bits) = next {
        let address = Ipv6Addr::from_bits(bits);
        let network = match repeated.iter().flatten().find(|network| network.contains(&address)) {
            Some(repeated) => *repeated,
            None => {
                spend()?;
                let result = reader.lookup(IpAddr::V6(address))?;
                let IpNet::V6(network) = network_of(&result)? else { return Err(MmdbError::Endless) };
                if result.has_data() {
                    found(&result, unmapped(network))?;
                }
                network
            }
        };
        next = network.broadcast().to_bits().checked_add(1);
    }
    Ok(())
}

fn network_of<S: AsRef<[u8]>>(result: &LookupResult<'_, S>) -> Result<IpNet, MmdbError> {
    let network = result.network()?;
    IpNet::new(network.ip(), network.prefix())
        .map_err(|error| MmdbError::Unreadable { why: error.to_string() })
}

/// Where IPv6 databases hold the IPv4 tree once more: Teredo, 6to4 and, unless that is the only place, the
/// IPv4 addresses mapped into IPv6.
fn repeated_v4(is_in_its_place: bool) -> [Option<Ipv6Net>; 3] {
    let network = |bits: u128, length| Ipv6Net::new(Ipv6Addr::from_bits(bits), length).ok();
    [
        network(0x2001 << 112, 32),
        network(0x2002 << 112, 16),
        network(0xffff << 32, 96).filter(|_| is_in_its_place),
    ]
}

fn unmapped(network: Ipv6Net) -> IpNet {
    let v4 = network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96));
    match v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => IpNet::V6(network),
    }
}

/// What is selected, and what is known of records by where they are: many networks share one.
struct Selection<'q> {
    countries: Vec<Country>,
    asns: &'q [u32],
    known: HashMap<usize, bool>,
    any_country: bool,
    any_asn: bool,
}

impl Selection<'_> {
    fn takes<S: AsRef<[u8]>>(&mut self, found: &LookupResult<'_, S>) -> Result<bool, MmdbError> {
        let Some(offset) = found.offset() else { return Ok(false) };
        if let Some(&takes) = self.known.get(&offset) {
            return Ok(takes);
        }
        let record: Record<'_> = found.decode()?.unwrap_or_default();
        let (country, asn) = (record.country(), record.asn());
        self.any_country |= country.is_some();
        self.any_asn |= asn.is_some();
        let takes = country.is_some_and(|country| self.countries.contains(&country))
            || asn.is_some_and(|asn| self.asns.contains(&asn));
        self.known.insert(offset, takes);
        Ok(takes)
    }
}

/// The two letters of a country, capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Country([u8; 2]);

impl Country {
    fn read(text: &str) -> Result<Self, MmdbError> {
        Country::of(text).ok_or_else(|| MmdbError::BadCountry { text: shown(text) })
    }

    fn of(text: &str) -> Option<Self> {
        let code: [u8; 2] = text.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_alphabetic).then(|| Country(code.map(|byte| byte.to_ascii_uppercase())))
    }
}

/// What a record of any of the layouts says of its network.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Field<'a>,
    #[serde(borrow)]
    country_code: Field<'a>,
    #[serde(borrow)]
    registered_country: Field<'a>,
    #[serde(borrow)]
    autonomous_system_number: Field<'a>,
    #[serde(borrow)]
    asn: Field<'a>,
}

impl Record<'_> {
    fn country(&self) -> Option<Country> {
        // Beside `country_code`, `country` is the name.
        let used = self.country_code.country().or_else(|| self.country.country());
        used.or_else(|| self.registered_country.country())
    }

    fn asn(&self) -> Option<u32> {
        self.autonomous_system_number.asn().or_else(|| self.asn.asn())
    }
}

/// A member of a record. The layouts differ in types, and writers in the widths of numbers.
#[derive(Debug, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Number(u64),
}

impl Field<'_> {
    fn country(&self) -> Option<Country> {
        let Field::Text(text) = self else { return None };
        Country::of(text)
    }

    fn asn(&self) -> Option<u32> {
        match self {
            Field::Absent => None,
            Field::Text(text) => text.strip_prefix("AS").unwrap_or(text).parse().ok(),
            Field::Number(number) => u32::try_from(*number).ok(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a country or the number of an AS")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Field::Number(number))
    }

    /// A country with its names; its code is what counts.
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut code = Field::Absent;
        while let Some(key) = map.next_key::<&str>()? {
            if key == "iso_code" {
                code = Field::Text(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests;
