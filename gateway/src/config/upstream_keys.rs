//! The keys of an upstream that say how its requests are spread: a part of the table in `keys.rs`.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde_json::{Value as Json, json};

use crate::config::node::{Node, Value};
use crate::config::notation::{
    Cause, CookieName, Count, FieldName, HostField, Label, Part, RetryCause, Server, Span, Statuses, Target,
};
use crate::config::reader::Reader;
use crate::config::shape::{
    At, Choice, FieldInfo, ListOf, Located, Notation, Optional, Or, OrEmpty, Record as _, Required, Shape,
    either, record, section,
};
use crate::config::upstreams::count;
use crate::model::{Balance, Endpoint, HashKey};

record! {
    /// An entry of `upstreams.<name>.endpoints` that is a map.
    Member {
        /// Where the server is, as for an endpoint that is not a map.
        url: Option<Endpoint> = Required(Server),
        /// Its share of the requests, held against the others'.
        weight: usize = Or(Count(1, 1000), "1"),
        /// Who is asked first: servers with higher numbers get requests only as far as too few with lower ones are well.
        priority: usize = Or(Count(0, 99), "0"),
        /// Where it is. Servers in the gateway's own `zone` come before others of their priority.
        zone: Option<String> = Optional(Label),
    }
}

record! {
    /// `upstreams.<name>.health`
    Health {
        /// What a server is asked: to answer a GET (`http`), to accept a connection (`tcp`), or to say that it serves
        /// (`grpc`, by grpc.health.v1).
        r#type: Located<ProbeName> = Or(
            At(Choice(&[("http", ProbeName::Http), ("tcp", ProbeName::Tcp), ("grpc", ProbeName::Grpc)])),
            "http"
        ),
        /// What is got. Left out, `/`.
        path: Option<Located<PathAndQuery>> = Optional(At(Target)),
        /// The Host that it is got from. Left out, the server's own.
        host: Option<Located<String>> = Optional(At(HostField)),
        /// Statuses that are good, single ones or ranges. Left out, `[200-299]`.
        expect: Option<Located<Vec<RangeInclusive<u16>>>> = Optional(At(ListOf(Statuses, 20))),
        /// The service that is asked for. Left out, the server as a whole.
        service: Option<Located<String>> = Optional(At(Label)),
        /// From the end of one check to the next, a tenth more or less.
        interval: Duration = Or(Span("10ms", "1d"), "5s"),
        /// How long a check may take, from connecting to the answer.
        timeout: Duration = Or(Span("10ms", "5m"), "1s"),
        /// So many good answers in a row bring a server back.
        healthy: usize = Or(Count(1, 100), "2"),
        /// So many bad ones in a row take it out. The very first answer decides alone.
        unhealthy: usize = Or(Count(1, 100), "3"),
        /// Whether a new server gets requests before its first check (`up`) or not (`down`).
        initial: bool = Or(Choice(&[("up", true), ("down", false)]), "up"),
    }
}

record! {
    /// `upstreams.<name>.ejection`
    Ejecting {
        /// So many answers of 5xx in a row take a server out; an answer that does not come is one of them.
        consecutive_5xx: usize = Or(Count(1, 100_000), "5"),
        /// So many answers of 502, 503 or 504 in a row, or that did not come, take it out.
        consecutive_gateway_errors: usize = Or(Count(1, 100_000), "5"),
        /// How often it is looked whose time is over.
        interval: Duration = Or(Span("10ms", "1h"), "10s"),
        /// How long the first ejection takes; the second takes twice as long, and so on. Each interval without one counts
        /// one less.
        base_time: Duration = Or(Span("10ms", "1d"), "30s"),
        /// How long one takes at most.
        max_time: Duration = Or(Span("10ms", "7d"), "300s"),
        /// How many of the servers may be out at a time. One of several always may.
        max_percent: u32 = Or(Part(1, 100), "10%"),
    }
}

record! {
    /// `upstreams.<name>.retry`
    Retrying {
        /// How often a request is sent once more.
        attempts: usize = Or(Count(1, 10), "1"),
        /// After what: `connect` (nobody could be connected to), `reset` (the connection ended before the response began),
        /// `timeout` (the response did not begin in time), `gateway_error` (502, 503, 504 and `timeout`), `5xx`, or
        /// statuses. Left out, `[connect, reset, gateway_error]`.
        on: Option<Vec<RetryCause>> = Optional(ListOf(Cause, 50)),
        /// How many of the requests under way may be retries.
        budget: u32 = Or(Part(0, 100), "20%"),
        /// So many may always be, however few requests there are.
        min_concurrent: usize = Or(Count(0, 100_000), "3"),
        /// How long to wait before one.
        backoff: Backoff = OrEmpty(section::<Backoff>()),
        /// How long each attempt may wait for the head of the response. Left out, `response_timeout`.
        per_try_timeout: Option<Duration> = Optional(Span("10ms", "1d")),
        /// Ask a second endpoint, too, when the first has not answered for a while, and take the answer that comes first.
        /// Left out, nobody is asked.
        hedge: Option<Located<Hedging>> = Optional(At(section::<Hedging>())),
    }
}

record! {
    /// `upstreams.<name>.retry.hedge`
    Hedging {
        /// From the begin of a request to the second one: longer than most answers take, or it doubles the load.
        after: Option<Duration> = Required(Span("1ms", "1h")),
    }
}

record! {
    /// `upstreams.<name>.retry.backoff`
    Backoff {
        /// The first retry waits for a random time below this; each further one below twice as much as the one before.
        base: Duration = Or(Span("1ms", "1m"), "25ms"),
        /// The longest wait. An upstream that asks for more by Retry-After is not asked again.
        max: Duration = Or(Span("1ms", "10m"), "250ms"),
    }
}

record! {
    /// `upstreams.<name>.limits`
    Limiting {
        /// Requests under way, until their response is over, over all workers. More are answered 503.
        max_requests: Option<usize> = Optional(Count(1, 10_000_000)),
    }
}

record! {
    /// `upstreams.<name>.breaker`
    Breaking {
        /// When so many of the requests within the window fail (with 5xx or no answer), nothing is sent any more.
        error_ratio: u32 = Or(Part(1, 100), "50%"),
        /// But only if there were so many.
        min_requests: usize = Or(Count(1, 1_000_000), "20"),
        /// How far back is looked.
        window: Duration = Or(Span("100ms", "1h"), "10s"),
        /// How long nothing is sent.
        open_for: Duration = Or(Span("10ms", "1d"), "30s"),
        /// So many are sent after that. When all of them succeed it is over; one that fails begins it anew.
        half_open_requests: usize = Or(Count(1, 255), "3"),
        /// A response whose head takes longer counts as a failure. Left out, time does not count.
        slow: Option<Duration> = Optional(Span("1ms", "1d")),
    }
}

/// What a health check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeName {
    Http,
    Tcp,
    Grpc,
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
        let (weight, priority) = (count(member.weight), count(member.priority));
        Some(Endpoint { weight, priority, zone: member.zone, ..member.url? })
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
pub(crate) fn has_one_of(node: &Node, names: &[&str], what: &str, reader: &mut Reader<'_>) -> Option<()> {
    // What is no map is reported by whoever reads it.
    let Value::Map(entries) = &node.value else { return Some(()) };
    if entries.iter().filter(|(key, _)| names.contains(&key.name.as_str())).count() == 1 {
        return Some(());
    }
    reader.error(node.place, format!("`{what}` takes one of {}", either(names, "and")))
}
