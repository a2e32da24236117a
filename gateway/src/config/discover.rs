//! Endpoints that are not written down in the configuration: the keys that say where they come from, what those mean, and
//! the files that list them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::keys;
use crate::config::lower::{distinct, located};
use crate::config::node::{Files, Node, Value};
use crate::config::notation::{FilePath, NameServer, Server, Service, Span};
use crate::config::reader::Reader;
use crate::config::report::{Diagnostic, Report};
use crate::config::shape::{At, Choice, FieldInfo, ListOf, Located, Optional, Or, Shape, record, section};
use crate::config::too_large;
use crate::config::upstream_keys::{ServerOrMap, has_one_of};
use crate::discovery::MAX_ENDPOINTS;
use crate::files;
use crate::model::{Discovery, DnsDiscovery, Endpoint, Family, Location, Records};

/// Bytes of a file of endpoints.
pub(crate) const MAX_ENDPOINTS_BYTES: u64 = 1024 * 1024;

/// Name servers that may be asked.
pub(crate) const MAX_RESOLVERS: usize = 8;

record! {
    /// `upstreams.<name>.discover`: it has `dns`, `srv` or `file`.
    Discovering {
        /// Each address of this name is a server: its A and AAAA records are asked for again and again. Under https:// the
        /// certificate has to be for the name.
        dns: Option<Located<Endpoint>> = Optional(At(Server)),
        /// Each target of this name's SRV records is a server, with its port, priority and weight.
        srv: Option<(String, bool)> = Optional(Service),
        /// Each entry of this file, a list as `endpoints` is, in YAML or JSON, is a server; relative to the configuration's
        /// directory. It is read again when it has changed.
        file: Option<Located<String>> = Optional(At(FilePath(4096))),
        /// Which addresses are asked for.
        family: Family = Or(
            Choice(&[("both", Family::Both), ("ipv4", Family::V4), ("ipv6", Family::V6)]),
            "both"
        ),
        /// An answer is good for so long at least, whatever it says. So long it takes to ask again after a failure.
        min_ttl: Duration = Or(Span("1s", "1h"), "5s"),
        /// And for so long at most.
        max_ttl: Duration = Or(Span("1s", "1d"), "5m"),
        /// The name servers that are asked. Left out, the `resolvers` of the whole file.
        resolvers: Option<Vec<SocketAddr>> = Optional(ListOf(NameServer, MAX_RESOLVERS)),
    }
}

/// What goes with name servers alone.
const OF_DNS: [&str; 4] = ["family", "min_ttl", "max_ttl", "resolvers"];

/// Where endpoints come from.
pub(crate) struct Discover;

impl Shape for Discover {
    type Out = Discovering;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Discovering> {
        has_one_of(node, &["dns", "srv", "file"], "discover", reader)?;
        if let Value::Map(entries) = &node.value
            && entries.iter().any(|(key, _)| key.name == "file")
        {
            for (key, _) in entries.iter().filter(|(key, _)| OF_DNS.contains(&key.name.as_str())) {
                reader.error::<()>(key.place, format!("`{}` goes with `dns` or `srv`", key.name));
            }
        }
        section::<Discovering>().read(node, reader)
    }

    fn noun(&self) -> String {
        section::<Discovering>().noun()
    }

    fn schema(&self) -> Json {
        let mut map = section::<Discovering>().schema();
        map["type"] = json!("object");
        map
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<Discovering>().keys()
    }
}

/// An upstream, which says where its endpoints are or where they come from.
pub(crate) struct Servers;

impl Shape for Servers {
    type Out = keys::Upstream;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<keys::Upstream> {
        let entries: &[_] = if let Value::Map(entries) = &node.value { entries } else { &[] };
        let says = entries.iter().any(|(key, _)| ["endpoints", "discover"].contains(&key.name.as_str()));
        let place = reader.owner.unwrap_or(node.place);
        let upstream = section::<keys::Upstream>().read(node, reader)?;
        if !says {
            reader.error::<()>(place, "an upstream needs `endpoints` or `discover`");
        }
        Some(upstream)
    }

    fn noun(&self) -> String {
        section::<keys::Upstream>().noun()
    }

    fn schema(&self) -> Json {
        let mut map = section::<keys::Upstream>().schema();
        map["type"] = json!("object");
        map["anyOf"] = json!([{ "required": ["endpoints"] }, { "required": ["discover"] }]);
        map
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<keys::Upstream>().keys()
    }
}

/// The source of endpoints. A file of them is read here, so that `check` finds what is wrong with it.
pub(crate) fn lower(
    discover: &Located<Discovering>,
    resolvers: Option<&Vec<SocketAddr>>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<Discovery> {
    let Discovering { dns, srv, file, family, min_ttl, max_ttl, resolvers: own } = &discover.value;
    if min_ttl > max_ttl {
        reader.error::<()>(discover.place, "`min_ttl` is longer than `max_ttl`");
    }
    if let Some(file) = file {
        let path = base_dir.join(&file.value);
        match files::read_bounded(&path, MAX_ENDPOINTS_BYTES) {
            Ok(bytes) => {
                let report = endpoints(&path, bytes, base_dir).err();
                let found = report.iter().flat_map(Report::diagnostics);
                found.for_each(|diagnostic| reader.findings.push(diagnostic.clone()));
            }
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                reader.error::<()>(file.place, message);
            }
        }
        return Some(Discovery::File { path, base_dir: base_dir.to_owned() });
    }
    let (name, is_secure, records) = match (dns, srv) {
        (Some(server), _) => {
            let Location::Tcp { host, port } = &server.value.at else {
                return reader.error(server.place, "a socket on this host has no name to look up");
            };
            if host.parse::<IpAddr>().is_ok() {
                let message = "an address has nothing to look up; name it in `endpoints`";
                return reader.error(server.place, message);
            }
            (host.clone(), server.value.is_secure, Records::Addresses { port: *port })
        }
        (None, Some((name, is_secure))) => (name.clone(), *is_secure, Records::Services),
        // Its mistake is reported.
        (None, None) => return None,
    };
    Some(Discovery::Dns(DnsDiscovery {
        name,
        records,
        is_secure,
        family: *family,
        resolvers: own.as_ref().or(resolvers).filter(|servers| !servers.is_empty()).cloned(),
        min_ttl: *min_ttl,
        max_ttl: *max_ttl,
    }))
}

/// The endpoints that a file lists.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn endpoints(path: &Path, bytes: Vec<u8>, base_dir: &Path) -> Result<Vec<Endpoint>, Report> {
    let name = path.display().to_string();
    let of_file = |message: &str| Report::from(Diagnostic::of_file(name.clone(), message.to_owned()));
    let text = String::from_utf8(bytes).map_err(|_| of_file("is not UTF-8"))?;
    if let Some(message) = too_large(&text) {
        return Err(of_file(&message));
    }
    let mut reader = Reader::new(name.clone(), &text);
    let tree = Files::default().read(&text, &mut |flaw| {
        reader.error::<()>(flaw.place, flaw.message);
    });
    let tree = tree.map_err(|flaw| reader.error::<()>(flaw.place, flaw.message)).ok().flatten();
    if tree.is_none() && reader.findings.is_empty() {
        return Err(of_file("lists no endpoint"));
    }
    let listed = tree.and_then(|tree| ListOf(At(ServerOrMap), MAX_ENDPOINTS).read(&tree, &mut reader));
    let listed = listed.unwrap_or_default();
    if listed.is_empty() && reader.findings.is_empty() {
        return Err(of_file("lists no endpoint"));
    }
    let servers: Vec<_> = listed.iter().map(|server| server.map(|s| (s.at.clone(), s.is_secure))).collect();
    distinct(&servers, &mut reader, "endpoint");
    let endpoints = listed.iter().map(|endpoint| located(endpoint, &mut reader, base_dir)).collect();
    if reader.findings.is_empty() { Ok(endpoints) } else { Err(reader.findings.into_report(&name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_lists_of_endpoints() {
        for (name, text, expected) in [
            (
                "YAML",
                "- http://10.0.0.1:1\n- {url: 'https://B.test', weight: 3}\n",
                Ok("10.0.0.1:1 b.test:443"),
            ),
            (
                "JSON",
                r#"["http://[::1]:1", {"url": "unix:a.sock", "priority": 2}]"#,
                Ok("[::1]:1 unix:/etc/a.sock"),
            ),
            ("nothing", "", Err("e.yaml: error: lists no endpoint")),
            ("a comment", "# nobody\n", Err("e.yaml: error: lists no endpoint")),
            ("an empty list", "[]", Err("e.yaml: error: lists no endpoint")),
            (
                "a map",
                "endpoints: []",
                Err(
                    "e.yaml:1:1: error: expected a list, each entry a server such as http://127.0.0.1:9001 or a map, found a map",
                ),
            ),
            (
                "half of one",
                "[\"http://a\"",
                Err("e.yaml:1:12: error: not YAML: while parsing a flow sequence, expected ',' or ']'"),
            ),
            (
                "no scheme",
                "- a:80\n",
                Err("e.yaml:1:3: error: a:80 does not begin with http://, https:// or unix:"),
            ),
            (
                "no port",
                "- http://a\n- http://b:0\n",
                Err("e.yaml:2:3: error: http://b:0 is not http://HOST or http://HOST:PORT"),
            ),
            (
                "one twice",
                "- http://a\n- http://A:80\n",
                Err("e.yaml:2:3: error: this endpoint is listed twice; the first is on line 1"),
            ),
            (
                "a variable",
                "- http://${HOST}\n",
                Err("e.yaml:1:3: error: http://${HOST} is not http://HOST or http://HOST:PORT"),
            ),
            (
                "binary",
                "\u{1}",
                Err(
                    "e.yaml:1:1: error: expected a list, each entry a server such as http://127.0.0.1:9001 or a map, found `\u{fffd}`",
                ),
            ),
        ] {
            let read = endpoints(Path::new("e.yaml"), text.as_bytes().to_vec(), Path::new("/etc"));
            let names = |endpoints: Vec<Endpoint>| {
                endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            let read = read.map(names).map_err(|report| report.to_string());
            let first = read.as_deref().map_err(|report| report.lines().next().unwrap_or_default());
            assert_eq!(first, expected, "{name}");
        }
        assert!(endpoints(Path::new("e"), vec![b'-', b' ', 0xff], Path::new("/")).is_err(), "not UTF-8");
        let many = "- http://a\n".repeat(MAX_ENDPOINTS + 1);
        let report = endpoints(Path::new("e"), many.into_bytes(), Path::new("/")).unwrap_err().to_string();
        assert!(report.contains("1001 entries are too many here; at most 1000 are allowed"), "{report}");
    }
}
