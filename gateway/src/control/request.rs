//! What can be asked of the rules, whoever asks: the command line over the pinned maps, or a client of
//! the admin socket. One request type, one reply type, and one function that answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway_kernel::{
    Added, Counters, Entry, Error, Event, Explanation, ListInfo, ListKind, MapUsage, NewEntry, NewList, Note,
    Owner, Preview, Removed, Replaced, Rules, SetBy,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::is_own_list;

/// Bytes of a list's source: a path.
const MAX_SOURCE_BYTES: usize = 4096;
/// Bytes of an entry's evidence.
const MAX_EVIDENCE_BYTES: usize = 64;

/// A question or an order to the rules. On the socket, the method and path say which one it is, and
/// `Add` and `Remove` have a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Add or update entries of one or several lists, all or none.
    Add(AddBody),
    /// Make one of the operators' lists what it is to be.
    Import(ImportBody),
    /// What that would change.
    Preview(ImportBody),
    /// Take one of the operators' lists out.
    Forget(ListKind, NameBody),
    /// Apply what a list's source brought and was held.
    Confirm(ConfirmBody),
    /// Return to the generation of lists before the one in force.
    RollBack,
    /// Which named lists there are.
    Lists,
    /// Take the operator's entries for these prefixes out.
    Remove(ListKind, RemoveBody),
    /// Take all of the operator's entries out.
    Flush(ListKind),
    /// Read a list.
    Entries(ListKind),
    /// Read all counters.
    Counters,
    /// Read how full the maps are.
    Usage,
    /// Replay the stages for a packet.
    Explain(ExplainBody),
    /// Which sources passed lately.
    Sources(SourcesBody),
}

/// Entries to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBody {
    /// A list may stand once.
    pub batches: Vec<Batch>,
    /// Who decided, and why; left out, it is a program that speaks to this API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// Take 0.0.0.0/0 and ::/0, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A named list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody {
    /// All of it.
    pub list: NewList,
    /// Take 0.0.0.0/0 and ::/0, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A list by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameBody {
    /// Its name.
    pub name: String,
}

/// A held list that is to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    /// Its name.
    pub name: String,
    /// Where whoever asks is connected from: what would deny that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_from: Option<IpAddr>,
}

/// Entries to add to one list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Which one.
    pub list: ListKind,
    /// Of two entries for one prefix the later holds.
    pub entries: Vec<WireEntry>,
}

/// Prefixes to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBody {
    /// Exactly as they stand in the list.
    pub prefixes: Vec<IpNet>,
}

/// A packet to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainBody {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
}

/// How far back to look for sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcesBody {
    /// In seconds.
    pub within_seconds: u64,
}

/// What becomes of a packet, and what became of the last ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What would become of it.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The last events of its source, newest first; absent where no agent samples events in the kernel.
    #[serde(default)]
    pub recent: Option<Vec<Event>>,
}

/// An entry as it travels: what is not said is left out, for a list of a million must fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireEntry {
    /// What it covers.
    pub prefix: IpNet,
    /// The label its hits are counted under.
    pub rule: String,
    /// How long it holds, in milliseconds; left out: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Count what it would drop, and let it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Add`: what became of each batch, in their order.
    Added(Vec<Added>),
    /// To `Import` and `Confirm`.
    Replaced(Replaced),
    /// To `Preview`.
    Previewed(Preview),
    /// To `RollBack`: the generation in force now.
    RolledBack(u64),
    /// To `Lists`.
    Lists(Vec<ListInfo>),
    /// To `Remove`.
    Removed(Removed),
    /// To `Flush` and `Forget`: how many entries left.
    Flushed(usize),
    /// To `Entries`.
    Entries(Vec<Entry>),
    /// To `Counters`.
    Counters(Counters),
    /// To `Usage`.
    Usage(Vec<MapUsage>),
    /// To `Explain`.
    Explanation(Explained),
    /// To `Sources`.
    Sources(Vec<IpAddr>),
}

/// Answers a request. `progress` hears how many entries of an `Add` are written.
///
/// # Errors
/// What the rules refuse; nothing is half-applied then.
pub fn apply(rules: &Rules, request: Request, progress: &mut dyn FnMut(usize)) -> Result<Reply, Error> {
    match request {
        Request::Add(body) => {
            let new = |batch: Batch| (batch.list, batch.entries.into_iter().map(NewEntry::from).collect());
            let batches: Vec<(ListKind, Vec<NewEntry>)> = body.batches.into_iter().map(new).collect();
            let note = body.note.unwrap_or(Note { by: SetBy::Api, evidence: None });
            rules.add_batches(&note, &batches, progress).map(Reply::Added)
        }
        Request::Import(ImportBody { list, .. }) | Request::Preview(ImportBody { list, .. })
            if is_own_list(&list.name) =>
        {
            Err(Error::Refused(format!(
                "{} is the list of what stands in the configuration itself; give this one another name",
                list.name
            )))
        }
        Request::Import(body) => rules.replace(Owner::Operator, &body.list, progress).map(Reply::Replaced),
        Request::Preview(body) => rules.preview(&body.list).map(Reply::Previewed),
        Request::Forget(list, body) => rules.forget(list, &body.name).map(Reply::Flushed),
        Request::Confirm(body) => Err(Error::Refused(format!(
            "{}: only a running agent knows what was held; there is none",
            gateway_kernel::feed::shown(&body.name)
        ))),
        Request::RollBack => rules.roll_back().map(Reply::RolledBack),
        Request::Lists => rules.lists().map(Reply::Lists),
        Request::Remove(list, body) => rules.remove(list, &body.prefixes).map(Reply::Removed),
        Request::Flush(list) => rules.flush(list).map(Reply::Flushed),
        Request::Entries(list) => rules.entries(list).map(Reply::Entries),
        Request::Counters => rules.counters().map(Reply::Counters),
        Request::Usage => rules.usage().map(Reply::Usage),
        Request::Explain(body) => {
            let explanation = rules.explain(body.source, body.destination)?;
            Ok(Reply::Explanation(Explained { explanation, recent: None }))
        }
        Request::Sources(body) => {
            rules.recent_sources(Duration::from_secs(body.within_seconds)).map(Reply::Sources)
        }
    }
}

/// Why a body was not understood, or what in it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// No such path, or not with this method.
    NotFound,
    /// One sentence about the body.
    Body(String),
}

impl Request {
    /// The HTTP method and path of this request.
    #[must_use]
    pub fn route(&self) -> (http::Method, String) {
        let list = |list: ListKind, verb: &str| format!("/api/v1/lists/{}/{verb}", list.name());
        match self {
            Self::Add(_) => (http::Method::POST, "/api/v1/lists/add".to_owned()),
            Self::Import(_) => (http::Method::POST, "/api/v1/lists/import".to_owned()),
            Self::Preview(_) => (http::Method::POST, "/api/v1/lists/preview".to_owned()),
            Self::Confirm(_) => (http::Method::POST, "/api/v1/lists/confirm".to_owned()),
            Self::RollBack => (http::Method::POST, "/api/v1/lists/rollback".to_owned()),
            Self::Lists => (http::Method::GET, "/api/v1/lists".to_owned()),
            Self::Forget(kind, _) => (http::Method::POST, list(*kind, "forget")),
            Self::Remove(kind, _) => (http::Method::POST, list(*kind, "remove")),
            Self::Flush(kind) => (http::Method::POST, list(*kind, "flush")),
            Self::Entries(kind) => (http::Method::GET, list(*kind, "entries")),
            Self::Counters => (http::Method::GET, "/api/v1/counters".to_owned()),
            Self::Usage => (http::Method::GET, "/api/v1/usage".to_owned()),
            Self::Explain(_) => (http::Method::POST, "/api/v1/explain".to_owned()),
            Self::Sources(_) => (http::Method::POST, "/api/v1/sources".to_owned()),
        }
    }

    /// The body of this request; empty where it has none.
    ///
    /// # Errors
    /// Never in practice: every body is made of strings and numbers.
    pub fn body(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Add(body) => serde_json::to_vec(body),
            Self::Import(body) | Self::Preview(body) => serde_json::to_vec(body),
            Self::Forget(_, body) => serde_json::to_vec(body),
            Self::Confirm(body) => serde_json::to_vec(body),
            Self::Remove(_, body) => serde_json::to_vec(body),
            Self::Explain(body) => serde_json::to_vec(body),
            Self::Sources(body) => serde_json::to_vec(body),
            Self::Flush(_)
            | Self::Entries(_)
            | Self::Counters
            | Self::Usage
            | Self::RollBack
            | Self::Lists => Ok(Vec::new()),
        }
    }

    /// Reads a request as it came over the socket.
    ///
    /// # Errors
    /// An unknown path, a body that is not the one wanted, or an entry that no list can take.
    pub fn parse(method: &http::Method, path: &str, body: &[u8]) -> Result<Self, Malformed> {
        let parts: Vec<&str> = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["lists", "add"]) => {
                let body: AddBody = json(body)?;
                check_batches(&body.batches, body.force)?;
                if let Some(evidence) = body.note.as_ref().and_then(|note| note.evidence.as_deref()) {
                    check_evidence(evidence).map_err(Malformed::Body)?;
                }
                Ok(Self::Add(body))
            }
            ("POST", ["lists", verb @ ("import" | "preview")]) => {
                let body: ImportBody = json(body)?;
                check_list(&body.list, body.force)?;
                Ok(if *verb == "import" { Self::Import(body) } else { Self::Preview(body) })
            }
            ("POST", ["lists", "confirm"]) => json(body).map(Self::Confirm),
            ("POST", ["lists", "rollback"]) => Ok(Self::RollBack),
            ("GET", ["lists"]) => Ok(Self::Lists),
            ("POST", ["lists", list, "forget"]) => Ok(Self::Forget(list_named(list)?, json(body)?)),
            ("POST", ["lists", list, "remove"]) => {
                let list = list_named(list)?;
                let mut body: RemoveBody = json(body)?;
                body.prefixes.iter_mut().for_each(|prefix| *prefix = prefix.trunc());
                Ok(Self::Remove(list, body))
            }
            ("POST", ["lists", list, "flush"]) => Ok(Self::Flush(list_named(list)?)),
            ("GET", ["lists", list, "entries"]) => Ok(Self::Entries(list_named(list)?)),
            ("GET", ["counters"]) => Ok(Self::Counters),
            ("GET", ["usage"]) => Ok(Self::Usage),
            ("POST", ["explain"]) => json(body).map(Self::Explain),
            ("POST", ["sources"]) => json(body).map(Self::Sources),
            _ => Err(Malformed::NotFound),
        }
    }
}

impl From<NewEntry> for WireEntry {
    fn from(entry: NewEntry) -> Self {
        let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { prefix: entry.prefix, rule: entry.rule, ttl_ms: entry.ttl.map(millis), shadow: entry.shadow }
    }
}

impl From<WireEntry> for NewEntry {
    fn from(entry: WireEntry) -> Self {
        Self {
            prefix: entry.prefix,
            rule: entry.rule,
            ttl: entry.ttl_ms.map(Duration::from_millis),
            shadow: entry.shadow,
        }
    }
}

fn check_batches(batches: &[Batch], force: bool) -> Result<(), Malformed> {
    for (index, Batch { list, entries }) in batches.iter().enumerate() {
        if batches[..index].iter().any(|earlier| earlier.list == *list) {
            return Err(Malformed::Body(format!("the {} list stands in two batches", list.name())));
        }
        check_entries(*list, entries, force)?;
    }
    Ok(())
}

/// Whether a text can be an entry's evidence.
///
/// # Errors
/// One sentence.
pub fn check_evidence(text: &str) -> Result<(), String> {
    if text.is_empty()
        || text.len() > MAX_EVIDENCE_BYTES
        || !text.chars().all(gateway_kernel::feed::is_printable)
    {
        return Err(format!(
            "evidence is a text of 1 to {MAX_EVIDENCE_BYTES} bytes without control characters"
        ));
    }
    Ok(())
}

/// A client of the socket is held to the same rules as a list file.
fn check_entries(list: ListKind, entries: &[WireEntry], force: bool) -> Result<(), Malformed> {
    for entry in entries {
        let refuse = |why: &str| Err(Malformed::Body(format!("{}: {why}", entry.prefix)));
        check_prefix(&entry.prefix, force)?;
        if let Err(why) = gateway_kernel::feed::check_label(&entry.rule) {
            return refuse(&format!("its rule cannot be a label: {why}"));
        }
        match (list, entry.ttl_ms) {
            (_, Some(0)) => return refuse("a time to live of 0 would be over before it began"),
            (_, Some(ms)) if Duration::from_millis(ms) > gateway_kernel::feed::MAX_DURATION => {
                return refuse("its time to live is too long");
            }
            (ListKind::Deny, Some(_)) => {
                return refuse("an entry with a time to live belongs in the ban list");
            }
            (ListKind::Ban, None) => return refuse("an entry of the ban list needs a time to live"),
            _ => {}
        }
    }
    Ok(())
}

/// The same for a whole list.
fn check_list(list: &NewList, force: bool) -> Result<(), Malformed> {
    gateway_kernel::check_list_name(&list.name).map_err(Malformed::Body)?;
    if list.kind == ListKind::Ban {
        return Err(Malformed::Body("bans have a time to live each, and no lists".to_owned()));
    }
    if list.source.len() > MAX_SOURCE_BYTES {
        return Err(Malformed::Body(format!("where a list comes from has at most {MAX_SOURCE_BYTES} bytes")));
    }
    for label in &list.labels {
        gateway_kernel::feed::check_label(label).map_err(Malformed::Body)?;
    }
    for entry in &list.entries {
        check_prefix(&entry.prefix, force)?;
        if entry.label as usize >= list.labels.len() {
            return Err(Malformed::Body(format!("{}: there is no label {}", entry.prefix, entry.label)));
        }
    }
    Ok(())
}

fn check_prefix(prefix: &IpNet, force: bool) -> Result<(), Malformed> {
    if force && prefix.prefix_len() == 0 {
        return Ok(());
    }
    gateway_kernel::feed::parse_prefix(&prefix.to_string()).map(|_| ()).map_err(Malformed::Body)
}

fn list_named(name: &str) -> Result<ListKind, Malformed> {
    [ListKind::Allow, ListKind::Ban, ListKind::Deny]
        .into_iter()
        .find(|list| list.name() == name)
        .ok_or(Malformed::NotFound)
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| Malformed::Body(format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use gateway_kernel::ListEntry;
    use http::Method;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn requests_survive_the_socket() {
        let entry = WireEntry { prefix: net("192.0.2.0/24"), rule: "a b".into(), ttl_ms: None, shadow: true };
        let timed = WireEntry { ttl_ms: Some(1500), ..entry.clone() };
        let item = |prefix: &str, label, shadow| ListEntry { prefix: net(prefix), label, shadow };
        let list = NewList {
            kind: ListKind::Deny,
            name: "feed".into(),
            source: "feed.txt".into(),
            shadow: true,
            labels: vec!["a".into(), "b".into()],
            entries: vec![item("192.0.2.0/24", 1, true), item("2001:db8::/32", 0, false)],
        };
        let everything =
            NewList { entries: vec![item("0.0.0.0/0", 0, false), item("::/0", 1, false)], ..list.clone() };
        let table = [
            Request::Add(AddBody {
                batches: vec![Batch { list: ListKind::Deny, entries: vec![entry.clone()] }],
                note: None,
                force: false,
            }),
            Request::Add(AddBody {
                batches: vec![
                    Batch { list: ListKind::Ban, entries: vec![timed.clone()] },
                    Batch { list: ListKind::Allow, entries: vec![entry, timed] },
                ],
                note: Some(Note { by: SetBy::Policy, evidence: Some("request 7".into()) }),
                force: true,
            }),
            Request::Import(ImportBody { list: list.clone(), force: false }),
            Request::Import(ImportBody { list: everything, force: true }),
            Request::Preview(ImportBody { list, force: false }),
            Request::Forget(ListKind::Allow, NameBody { name: "a b/c".into() }),
            Request::Confirm(ConfirmBody { name: "feed".into(), asked_from: None }),
            Request::Confirm(ConfirmBody { name: "feed".into(), asked_from: Some([192, 0, 2, 1].into()) }),
            Request::RollBack,
            Request::Lists,
            Request::Remove(ListKind::Deny, RemoveBody { prefixes: vec![net("2001:db8::/32")] }),
            Request::Flush(ListKind::Ban),
            Request::Entries(ListKind::Allow),
            Request::Counters,
            Request::Usage,
            Request::Explain(ExplainBody { source: [192, 0, 2, 1].into(), destination: None }),
            Request::Sources(SourcesBody { within_seconds: 60 }),
        ];
        for request in table {
            let (method, path) = request.route();
            let body = request.body().expect("a body");
            assert_eq!(Request::parse(&method, &path, &body), Ok(request.clone()), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let table: &[(&str, Method, &str, &str, &str)] = &[
            ("path", Method::GET, "/api/v1/nothing", "", "404"),
            ("list", Method::POST, "/api/v1/lists/block/flush", "", "404"),
            ("method", Method::GET, "/api/v1/lists/deny/flush", "", "404"),
            ("json", Method::POST, "/api/v1/lists/add", "{", "the body"),
            ("unknown field", Method::POST, "/api/v1/lists/add", r#"{"batches":[],"x":1}"#, "`x`"),
            (
                "everything",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"deny","entries":[{"prefix":"0.0.0.0/0","rule":"x"}]}]}"#,
                "covers every address",
            ),
            (
                "host bits",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"deny","entries":[{"prefix":"192.0.2.1/24","rule":"x"}]}]}"#,
                "host bits",
            ),
            (
                "label",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"deny","entries":[{"prefix":"192.0.2.0/24","rule":""}]}]}"#,
                "label",
            ),
            (
                "ttl in deny",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"deny","entries":[{"prefix":"192.0.2.0/24","rule":"x","ttl_ms":1}]}]}"#,
                "belongs in the ban list",
            ),
            (
                "ban without ttl",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"ban","entries":[{"prefix":"192.0.2.0/24","rule":"x"}]}]}"#,
                "needs a time to live",
            ),
            (
                "a list twice",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"deny","entries":[]},{"list":"deny","entries":[]}]}"#,
                "two batches",
            ),
            (
                "list of a batch",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"block","entries":[]}]}"#,
                "block",
            ),
            (
                "endless ttl",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[{"list":"ban","entries":[{"prefix":"192.0.2.0/24","rule":"x","ttl_ms":18446744073709551615}]}]}"#,
                "too long",
            ),
            (
                "evidence",
                Method::POST,
                "/api/v1/lists/add",
                r#"{"batches":[],"note":{"by":"api","evidence":"a\nb"}}"#,
                "without control characters",
            ),
            (
                "everything in a list",
                Method::POST,
                "/api/v1/lists/import",
                r#"{"list":{"kind":"deny","name":"x","source":"x","shadow":false,"labels":["a"],"entries":[{"prefix":"::/0"}]}}"#,
                "covers every address",
            ),
            (
                "host bits in a list, by force",
                Method::POST,
                "/api/v1/lists/preview",
                r#"{"list":{"kind":"deny","name":"x","source":"x","shadow":false,"labels":["a"],"entries":[{"prefix":"192.0.2.1/24"}]},"force":true}"#,
                "host bits",
            ),
            (
                "a list of bans",
                Method::POST,
                "/api/v1/lists/import",
                r#"{"list":{"kind":"ban","name":"x","source":"x","shadow":false,"labels":[],"entries":[]}}"#,
                "no lists",
            ),
            (
                "a list without a name",
                Method::POST,
                "/api/v1/lists/import",
                r#"{"list":{"kind":"deny","name":"","source":"x","shadow":false,"labels":[],"entries":[]}}"#,
                "a list's name has 1 to",
            ),
            (
                "a label of a list",
                Method::POST,
                "/api/v1/lists/import",
                r#"{"list":{"kind":"deny","name":"x","source":"x","shadow":false,"labels":[""],"entries":[]}}"#,
                "a label has",
            ),
            (
                "a label that is not there",
                Method::POST,
                "/api/v1/lists/import",
                r#"{"list":{"kind":"deny","name":"x","source":"x","shadow":false,"labels":["a"],"entries":[{"prefix":"192.0.2.1/32","label":1}]}}"#,
                "there is no label 1",
            ),
            ("forget without a name", Method::POST, "/api/v1/lists/deny/forget", "{}", "`name`"),
            ("rollback by GET", Method::GET, "/api/v1/lists/rollback", "", "404"),
        ];
        for (name, method, path, body, expected) in table {
            let found = match Request::parse(method, path, body.as_bytes()) {
                Err(Malformed::NotFound) => "404".to_owned(),
                Err(Malformed::Body(why)) => why,
                Ok(request) => panic!("{name}: {request:?}"),
            };
            assert!(found.contains(expected), "{name}: {found}");
        }
    }
}
