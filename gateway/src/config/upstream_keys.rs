//! The keys of an upstream that say how its requests are spread: a part of the table in `keys.rs`.

use serde_json::{Value as Json, json};

use crate::config::node::{Node, Value};
use crate::config::notation::{CookieName, Count, FieldName, Server};
use crate::config::reader::Reader;
use crate::config::shape::{
    Choice, FieldInfo, Notation, Optional, Or, Record as _, Required, Shape, either, record, section,
};
use crate::model::{Balance, Endpoint, HashKey};

record! {
    /// An entry of `upstreams.<name>.endpoints` that is a map.
    Member {
        /// Where the server is, as for an endpoint that is not a map.
        url: Option<Endpoint> = Required(Server),
        /// Its share of the requests, held against the others'.
        weight: usize = Or(Count(1, 1000), "1"),
    }
}

record! {
    /// `upstreams.<name>.balance` when it is a map: it has one of these.
    Affinity {
        /// Requests with the same key go to the same endpoint, as long as that one has no more than 1.25 times its share.
        /// When endpoints come or go, only the keys move that have to.
        hash: Option<HashKey> = Optional(Hashing),
        /// Requests of one client go to the same endpoint, by a cookie that the gateway sets.
        sticky: Option<Sticky> = Optional(section::<Sticky>()),
    }
}

record! {
    /// `upstreams.<name>.balance.hash`: it has one of these.
    HashBy {
        /// The key is the value of this header field.
        header: Option<http::HeaderName> = Optional(FieldName),
        /// The key is the value of this cookie.
        cookie: Option<String> = Optional(CookieName),
        /// The key is the client's address.
        source: Option<()> = Optional(Choice(&[("true", ())])),
        /// The key is the path, without the query.
        path: Option<()> = Optional(Choice(&[("true", ())])),
    }
}

record! {
    /// `upstreams.<name>.balance.sticky`
    Sticky {
        /// The cookie's name. Its value is a hash of the endpoint and tells nobody where that is.
        cookie: Option<String> = Required(CookieName),
    }
}

/// An endpoint: its URL alone, or a map.
pub(crate) struct ServerOrMap;

impl Shape for ServerOrMap {
    type Out = Endpoint;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Endpoint> {
        let Value::Map(_) = &node.value else { return Shape::read(&Server, node, reader) };
        let member = section::<Member>().read(node, reader)?;
        Some(Endpoint { weight: u32::try_from(member.weight).unwrap_or(u32::MAX), ..member.url? })
    }

    fn noun(&self) -> String {
        format!("{} or a map", Notation::noun(&Server))
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [Shape::schema(&Server), section::<Member>().schema()] })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<Member>().keys()
    }
}

/// Who gets a request: a word, or a map.
pub(crate) struct Balancing;

/// What one word says.
const WORDS: Choice<Word> = Choice(&[
    ("round_robin", Word::RoundRobin),
    ("least_request", Word::LeastRequest),
    ("peak_ewma", Word::PeakEwma),
]);

#[derive(Debug, Clone, Copy)]
enum Word {
    RoundRobin,
    LeastRequest,
    PeakEwma,
}

impl Shape for Balancing {
    type Out = Balance;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Balance> {
        let Value::Map(_) = &node.value else {
            return Shape::read(&WORDS, node, reader).map(|word| match word {
                Word::RoundRobin => Balance::RoundRobin,
                Word::LeastRequest => Balance::LeastRequest,
                Word::PeakEwma => Balance::PeakEwma,
            });
        };
        has_one_of(node, &["hash", "sticky"], "balance", reader)?;
        let affinity = section::<Affinity>().read(node, reader)?;
        match (affinity.hash, affinity.sticky) {
            (Some(key), _) => Some(Balance::Hash(key)),
            (None, sticky) => Some(Balance::Sticky { cookie: sticky?.cookie? }),
        }
    }

    fn noun(&self) -> String {
        format!("{} or a map", Notation::noun(&WORDS))
    }

    fn schema(&self) -> Json {
        let mut map = section::<Affinity>().schema();
        map["type"] = json!("object");
        json!({ "anyOf": [Shape::schema(&WORDS), map] })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<Affinity>().keys()
    }
}

/// What a request is hashed by.
struct Hashing;

impl Shape for Hashing {
    type Out = HashKey;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<HashKey> {
        has_one_of(node, &HashBy::names(), "hash", reader)?;
        let by = section::<HashBy>().read(node, reader)?;
        let header = by.header.map(HashKey::Header);
        let cookie = by.cookie.map(HashKey::Cookie);
        let (source, path) = (by.source.map(|()| HashKey::Source), by.path.map(|()| HashKey::Path));
        header.or(cookie).or(source).or(path)
    }

    fn noun(&self) -> String {
        section::<HashBy>().noun()
    }

    fn schema(&self) -> Json {
        let mut map = section::<HashBy>().schema();
        map["type"] = json!("object");
        map
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<HashBy>().keys()
    }
}

/// Reports a map that has none of these keys, or several.
fn has_one_of(node: &Node, names: &[&str], what: &str, reader: &mut Reader<'_>) -> Option<()> {
    // What is no map is reported by whoever reads it.
    let Value::Map(entries) = &node.value else { return Some(()) };
    if entries.iter().filter(|(key, _)| names.contains(&key.name.as_str())).count() == 1 {
        return Some(());
    }
    reader.error(node.place, format!("`{what}` takes one of {}", either(names, "and")))
}
