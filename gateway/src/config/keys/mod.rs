//! Every key there is, with its shape, default and sentence. `gateway schema`, the mistakes' lists of
//! valid names and the guide's tables are made of this file.

mod llm;
mod routes;

use std::net::SocketAddr;
use std::time::Duration;

use gateway_common::abi::{BAN_CAPACITY, INTERFACE_SLOTS, RULE_SLOTS};
use gateway_kernel::{Attach, DefaultVerdict};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use crate::config::discover::{Discover, Discovering, MAX_RESOLVERS, Servers};
use crate::config::node::{Node, Value};
use crate::config::notation::{
    Address, Count, Country, DnsName, FilePath, Host, Interface, Label, ListName, ListUrl, NameOf,
    NameServer, Part, Percent, Portion, Prefix, RawText, Size, Span, WordOr,
};
use crate::config::reader::Reader;
use crate::config::shape::{
    At, Choice, FieldInfo, ListOf, Located, MapOf, Named, Optional, Or, OrEmpty, Required, Shape, record,
    section,
};
use crate::config::upstream_keys::{Balancing, Breaking, Ejecting, Health, Limiting, Retrying, ServerOrMap};
use crate::model::{
    AcmeChallenge, Balance, Endpoint, HostPattern, LogFormat, Protocol, ProxyVersion, TlsVersion,
};

pub(crate) use llm::{
    IsLlm, Llm, LlmRoute, Model as LlmModel, Provider, Strategy, Target, named as named_model,
};
pub(crate) use routes::{
    Body, Changes, CorsKeys, Deprecated, Match, Mirror, Redirect, ReplyChanges, Rewrite, Route, Share, Sticky,
};

/// Entries written into one list by hand; longer lists are files.
const MAX_LIST_ITEMS: usize = 100_000;
/// Bytes of a Unix socket's path in the kernel, without the closing zero.
pub(crate) const MAX_SOCKET_PATH: usize = 107;

record! {
    /// The whole file.
    Root {
        /// What the kernel programs do with packets before anything else sees them.
        kernel: Kernel = OrEmpty(section::<Kernel>()),
        /// Where clients connect, by name. The name stands in metrics.
        listeners: Vec<Named<Listener>> = OrEmpty(MapOf(section::<Listener>(), 64)),
        /// The servers that requests are sent to, by name.
        upstreams: Vec<Named<Upstream>> = OrEmpty(MapOf(Servers, 10_000)),
        /// Which request goes where, by name. The most specific route wins, whatever the order. Hosts: one written out,
        /// then the longest wildcard, then none. Paths: one written out, then with parameters, then regular expressions
        /// (the longest first), then prefixes (the longest first). Then routes that name methods, then the number of
        /// headers, of query parameters, of cookies, of the body's fields, then those with content types, with what is
        /// accepted, then the narrowest source, server names, listeners, and last the name of the route.
        routes: Vec<Named<Route>> = OrEmpty(MapOf(section::<Route>(), 10_000)),
        /// Models of LLM providers: who serves them, for routes with `llm`.
        llm: Llm = OrEmpty(section::<Llm>()),
        /// Where this gateway is: endpoints of this zone come before others.
        zone: Option<String> = Optional(Label),
        /// The name servers that are asked for endpoints. Left out, those of /etc/resolv.conf. It does not matter to names
        /// in `endpoints`, which the system looks up.
        resolvers: Option<Vec<SocketAddr>> = Optional(ListOf(NameServer, MAX_RESOLVERS)),
        /// A line for each request.
        access_log: Option<AccessLog> = Optional(section::<AccessLog>()),
        /// Threads that serve requests. `auto` is one for each processor this process may use.
        workers: Option<usize> = Or(WordOr("auto", Count(1, 1024)), "auto"),
        /// How long requests in flight may go on after SIGTERM before they are cut.
        drain_timeout: Duration = Or(Span("0s", "1h"), "30s"),
        /// How certificates are obtained from an authority by ACME.
        acme: Option<Located<Acme>> = Optional(At(section::<Acme>())),
        /// Where operators and scrapers reach the agent.
        admin: Admin = OrEmpty(section::<Admin>()),
    }
}

record! {
    /// `kernel`
    Kernel {
        /// Interfaces whose incoming packets are judged.
        interfaces: Vec<Located<String>> = OrEmpty(ListOf(At(Interface), INTERFACE_SLOTS as usize)),
        /// How the programs are attached: in the driver, else in the network stack (`auto`); only one of the two
        /// (`native`, `generic`); or not at all (`off`), and the same lists are applied when a connection is accepted.
        attach: Attach = Or(
            Choice(&[
                ("auto", Attach::Auto),
                ("native", Attach::Native),
                ("generic", Attach::Generic),
                ("off", Attach::Off),
            ]),
            "auto"
        ),
        /// What happens to packets that no list names. With `drop`, only sources that `allow` names reach this
        /// host; answers to what the host sends pass. Needs Linux 6.6 where the programs are attached.
        default: Located<DefaultVerdict> = Or(
            At(Choice(&[("pass", DefaultVerdict::Pass), ("drop", DefaultVerdict::Drop)])),
            "pass"
        ),
        /// Sources that pass whatever other lists say. Each entry is an address, a prefix, or a map with the keys below.
        allow: Vec<Located<ListItem>> = OrEmpty(ListOf(At(Item), MAX_LIST_ITEMS)),
        /// Sources that are dropped. Each entry is an address, a prefix, or a map with the keys below.
        deny: Vec<Located<ListItem>> = OrEmpty(ListOf(At(Item), MAX_LIST_ITEMS)),
        /// What a ban may be at most, whoever sets it.
        bans: Bans = OrEmpty(section::<Bans>()),
        /// Where the last good copies of fetched lists are kept, relative to the configuration's directory.
        list_cache: String = Or(FilePath(4096), "/var/lib/gateway/lists"),
    }
}

record! {
    /// `kernel.bans`
    Bans {
        /// Bans at a time. Beyond it the oldest leave, and are counted.
        max: usize = Or(Count(1, BAN_CAPACITY as usize), "262144"),
        /// The longest time to live.
        max_ttl: Duration = Or(Span("1s", "3650d"), "365d"),
        /// The shortest prefix of IPv4 that may be banned.
        v4_prefix: usize = Or(Count(0, 32), "8"),
        /// The shortest prefix of IPv6 that may be banned.
        v6_prefix: usize = Or(Count(0, 128), "19"),
    }
}

record! {
    /// An entry of `kernel.allow` or `kernel.deny`: a prefix, or a list from somewhere else.
    ListItem {
        /// The address or prefix. An entry has this, `file`, `url` or `mmdb`.
        cidr: Option<Located<IpNet>> = Optional(At(Prefix)),
        /// A list file, relative to the configuration's directory. It is read again when it changes.
        file: Option<Located<String>> = Optional(At(FilePath(4096))),
        /// A list that is fetched over HTTPS and kept in `kernel.list_cache`, so that the last good copy holds when
        /// the server does not answer.
        url: Option<Located<String>> = Optional(At(ListUrl)),
        /// A MaxMind or DB-IP database, relative to the configuration's directory; needs `country` or `asn`.
        mmdb: Option<Located<String>> = Optional(At(FilePath(4096))),
        /// The list's name in commands and metrics. Left out, it is the name of the file.
        name: Option<Located<String>> = Optional(At(ListName)),
        /// The label under which hits are counted. Left out, it is the prefix or the name of the list; a line of a
        /// file may name its own.
        reason: Option<String> = Optional(Label),
        /// Count what the entry matches, and let it pass.
        shadow: bool = Or(Choice(&[("true", true), ("false", false)]), "false"),
        /// How `file` or `url` is written; `auto` tells by the content.
        format: ListFormat = Or(
            Choice(&[
                ("auto", ListFormat::Auto),
                ("plain", ListFormat::Plain),
                ("ipset", ListFormat::Ipset),
                ("nft", ListFormat::Nft),
                ("spamhaus_json", ListFormat::SpamhausJson),
                ("csv", ListFormat::Csv),
            ]),
            "auto"
        ),
        /// The column of a CSV file that holds the prefixes, by its name or its number from 1.
        column: Option<Located<String>> = Optional(At(Label)),
        /// Countries of a database, by their ISO 3166 codes.
        country: Vec<String> = OrEmpty(ListOf(Country, 300)),
        /// Autonomous systems of a database, by their numbers.
        asn: Vec<usize> = OrEmpty(ListOf(Count(1, u32::MAX as usize), 10_000)),
        /// How often `url` is fetched.
        refresh: Duration = Or(Span("5s", "30d"), "1h"),
        /// By how much of its length a list may change when it refreshes by itself; more is held until `gateway deny
        /// confirm NAME`.
        max_change: Option<u32> = Or(WordOr("any", Percent), "50%"),
        /// Bytes of what `url` answers.
        max_size: usize = Or(Size("1KiB", "256MiB"), "64MiB"),
        /// Certificates that `url` may be signed by beside the system's, a PEM file relative to the configuration's
        /// directory.
        ca: Option<String> = Optional(FilePath(4096)),
    }
}

/// How a list is written, as far as one word says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListFormat {
    Auto,
    Plain,
    Ipset,
    Nft,
    SpamhausJson,
    Csv,
}

record! {
    /// An entry of `listeners`.
    Listener {
        /// Where it listens.
        address: Option<Located<SocketAddr>> = Required(At(Address)),
        /// Speak TLS. Left out, the listener speaks in the clear.
        tls: Option<Tls> = Optional(section::<Tls>()),
        /// Speak HTTP/2, too, with clients that ask for it: by ALPN under TLS, else by beginning with its preface.
        http2: bool = Or(Choice(&[("true", true), ("false", false)]), "true"),
        /// Speak HTTP/3, too, on the same port of UDP, and say so in answers over TCP (Alt-Svc). Needs `tls`, and a gateway
        /// that was built with it.
        http3: Located<bool> = Or(At(Choice(&[("true", true), ("false", false)])), "false"),
        /// Requests at a time on one connection over HTTP/2 or HTTP/3.
        max_concurrent_streams: usize = Or(Count(1, 10_000), "100"),
        /// Connections under TLS that are passed on to an upstream as they are, by the name that they ask for. Others are
        /// ended here if there is `tls`, and refused if not.
        passthrough: Vec<Passthrough> = OrEmpty(ListOf(section::<Passthrough>(), 1000)),
        /// Load balancers that say in front of each connection whom it is from: the PROXY protocol, version 1 or 2. They
        /// have to, and nobody else may.
        proxy_protocol: Vec<IpNet> = OrEmpty(ListOf(Prefix, 1000)),
        /// Peers whose X-Forwarded-For and Forwarded headers are believed. Of everybody else they are replaced.
        trusted_proxies: Vec<IpNet> = OrEmpty(ListOf(Prefix, 1000)),
        /// From the first byte of a request, or from accept, to the end of its headers. Later ones are answered 408.
        header_timeout: Duration = Or(Span("100ms", "1h"), "10s"),
        /// How long a connection may wait for its next request.
        idle_timeout: Duration = Or(Span("100ms", "1d"), "75s"),
        /// Request line and headers together. More is answered 431.
        max_header_size: usize = Or(Size("1KiB", "1MiB"), "32KiB"),
        /// Header fields of a request. More are answered 431.
        max_header_count: usize = Or(Count(1, 1000), "100"),
        /// Give each request a name in X-Request-Id, which the upstream and the client get, too. One that a trusted proxy
        /// gave stays.
        request_ids: bool = Or(Choice(&[("true", true), ("false", false)]), "false"),
        /// Begin a trace (traceparent, W3C Trace Context) for requests that come with none, or with one that cannot be read,
        /// and say whether it is sampled. One that comes is passed on as it is.
        begin_traces: Option<bool> = Or(
            WordOr("off", Choice(&[("sampled", true), ("unsampled", false)])),
            "off"
        ),
        /// Open connections over all workers. More wait in the kernel's queue until one closes.
        max_connections: usize = Or(Count(1, 1_000_000), "10000"),
    }
}

record! {
    /// An entry of `listeners.<name>.passthrough`
    Passthrough {
        /// The names that clients ask for (SNI): exact, or `*.example.com`.
        server_names: Option<Vec<Located<HostPattern>>> = Required(ListOf(At(Host), 1000)),
        /// The upstream that gets the connections, TLS and all.
        upstream: Option<Located<String>> = Required(At(NameOf("an upstream"))),
    }
}

record! {
    /// `listeners.<name>.tls`
    Tls {
        /// Certificates. A client gets the one for the name that it asks for: exact before wildcard, and the first one if
        /// there is none. Files that are replaced are taken within ten seconds.
        certificates: Option<Vec<Located<Certificate>>> = Required(ListOf(At(section::<Certificate>()), 10_000)),
        /// The oldest version that is spoken.
        min_version: TlsVersion = Or(Choice(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]), "1.2"),
        /// Ask clients for certificates. Upstreams get them in Client-Cert and Client-Cert-Chain (RFC 9440).
        clients: Option<Clients> = Optional(section::<Clients>()),
    }
}

record! {
    /// `access_log`. It has no queries: secrets stand in them.
    AccessLog {
        /// `stdout`, `stderr` or a file, relative to the configuration's directory. A reload opens the file anew, so that it
        /// can be moved away before.
        path: Option<String> = Required(FilePath(4096)),
        /// `json`, an object a line; or `common` or `combined`, as other servers have them.
        format: LogFormat = Or(
            Choice(&[
                ("json", LogFormat::Json),
                ("common", LogFormat::Common),
                ("combined", LogFormat::Combined),
            ]),
            "json"
        ),
        /// How many requests it has. Those that end in 5xx it has all.
        sample: u32 = Or(Portion, "100%"),
        /// Lines that may wait to be written. More are left out, and counted.
        queue: usize = Or(Count(1, 1_000_000), "8192"),
    }
}

record! {
    /// `acme`
    Acme {
        /// The authority's directory.
        directory: Option<Located<String>> = Required(At(ListUrl)),
        /// That you agree to the authority's terms of service. Nothing is asked for without.
        agree_to_terms: Option<bool> = Required(Choice(&[("true", true), ("false", false)])),
        /// Where the authority reaches you, such as mailto:admin@example.com.
        contact: Vec<String> = OrEmpty(ListOf(RawText(256), 10)),
        /// How names are proved to be yours: by an answer in the clear on port 80 (`http`), or by a handshake on port 443
        /// (`tls_alpn`). A listener has to be reached there.
        challenge: AcmeChallenge = Or(
            Choice(&[("http", AcmeChallenge::Http), ("tls_alpn", AcmeChallenge::TlsAlpn)]),
            "http"
        ),
        /// The directory of certificates, keys and the account, relative to the configuration's directory.
        storage: String = Or(FilePath(4096), "/var/lib/gateway/acme"),
        /// Certificates that the directory may be signed by beside the system's, a PEM file relative to the
        /// configuration's directory.
        ca: Option<Located<String>> = Optional(At(FilePath(4096))),
    }
}

record! {
    /// An entry of `certificates`: files, whose paths are relative to the configuration's directory, or names.
    Certificate {
        /// The certificate and, after it, those of its issuers, a PEM file.
        cert: Option<String> = Optional(FilePath(4096)),
        /// Its private key, a PEM file.
        key: Option<String> = Optional(FilePath(4096)),
        /// Names for which a certificate is obtained and renewed, as `acme` says. In place of `cert` and `key`.
        acme: Vec<String> = OrEmpty(ListOf(DnsName, 100)),
        /// An OCSP response in DER to staple to it.
        ocsp: Option<String> = Optional(FilePath(4096)),
    }
}

record! {
    /// `listeners.<name>.tls.clients`
    Clients {
        /// The authorities whose certificates are taken, a PEM file relative to the configuration's directory.
        ca: Option<Located<String>> = Required(At(FilePath(4096))),
        /// Refuse clients that show none.
        required: bool = Or(Choice(&[("true", true), ("false", false)]), "true"),
    }
}

record! {
    /// An entry of `upstreams`.
    Upstream {
        /// Servers that can stand in for each other: each a URL, or a map with the keys below. Those with https:// are
        /// spoken to under TLS; port 80 or 443 if none is named. `unix:` and a path is a socket on this host.
        endpoints: Option<Vec<Located<Endpoint>>> = Optional(ListOf(At(ServerOrMap), 1000)),
        /// Find servers, beside or in place of those in `endpoints`. What was found last stays in force while nothing can be
        /// found.
        discover: Option<Located<Discovering>> = Optional(At(Discover)),
        /// Who of them gets a request: one after the other by weight (`round_robin`); of two that are drawn, the one with
        /// fewer requests in flight (`least_request`) or the one expected to answer first (`peak_ewma`); or a map.
        balance: Located<Balance> = Or(At(Balancing), "round_robin"),
        /// How long an endpoint that is new gets less than its share, beginning with a tenth. Left out, it gets all of it
        /// at once.
        slow_start: Option<Located<Duration>> = Optional(At(Span("10ms", "1h"))),
        /// Ask endpoints whether they are well, and send requests to those that are. Left out, nobody is asked.
        health: Option<Health> = Optional(section::<Health>()),
        /// Take endpoints out for a while when requests to them fail. Left out, none is.
        ejection: Option<Ejecting> = Optional(section::<Ejecting>()),
        /// When fewer endpoints are well than this part, all of them get requests: the few would break down, too.
        panic_threshold: u32 = Or(Part(0, 100), "50%"),
        /// Where the gateway is, as this upstream sees it. Left out, the `zone` of the whole file.
        zone: Option<String> = Optional(Label),
        /// The version of HTTP that they are spoken to in: `http1`; `http2`, which gRPC needs; or, of endpoints with
        /// https://, the newer one that they agree to (`auto`).
        protocol: Located<Protocol> = Or(
            At(Choice(&[
                ("http1", Protocol::Http1),
                ("http2", Protocol::Http2),
                ("auto", Protocol::Auto),
            ])),
            "http1"
        ),
        /// Tell the servers at the begin of each connection whom it is for, by the PROXY protocol. Each request then has
        /// a connection of its own, so this takes `protocol: http1`.
        proxy_protocol: Located<Option<ProxyVersion>> = Or(
            At(Choice(&[("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))])),
            "off"
        ),
        /// Whom endpoints with https:// have to be.
        tls: Option<UpstreamTls> = Optional(section::<UpstreamTls>()),
        /// To resolve the name, open a connection and, under TLS, shake hands.
        connect_timeout: Duration = Or(Span("10ms", "5m"), "2s"),
        /// From the end of the request to the head of the response. Later ones are answered 504.
        response_timeout: Duration = Or(Span("10ms", "1d"), "60s"),
        /// From the head of the request to the head of the response, with all that is done in between. Later ones are
        /// answered 504. Left out, only each part has its time.
        request_timeout: Option<Duration> = Optional(Span("10ms", "1d")),
        /// Send requests once more that may be sent twice, when they fail. Left out, only pooled connections that turn out
        /// to be closed are made up for.
        retry: Option<Located<Retrying>> = Optional(At(section::<Retrying>())),
        /// What may be under way.
        limits: Limiting = OrEmpty(section::<Limiting>()),
        /// Send nothing for a while when too many requests fail: 503. Left out, everything is sent.
        breaker: Option<Breaking> = Optional(section::<Breaking>()),
        /// The upstream that gets the requests while this one's breaker is open or none of its endpoints gets requests.
        fallback: Option<Located<String>> = Optional(At(NameOf("an upstream"))),
        /// Between two pieces of a body in flight.
        idle_timeout: Duration = Or(Span("10ms", "1d"), "60s"),
        /// Idle connections that each worker keeps to each endpoint.
        max_idle_connections: usize = Or(Count(0, 100_000), "64"),
        /// How long an idle connection is kept.
        keepalive_timeout: Duration = Or(Span("100ms", "1d"), "30s"),
    }
}

record! {
    /// `upstreams.<name>.tls`
    UpstreamTls {
        /// The authorities that issue their certificates, a PEM file relative to the configuration's directory. Left out,
        /// those of the system.
        ca: Option<Located<String>> = Optional(At(FilePath(4096))),
        /// The name that their certificates have to be for, and that is asked for (SNI). Left out, the host of the
        /// endpoint.
        name: Option<String> = Optional(DnsName),
        /// What the gateway shows them: a certificate with its chain, and its key.
        certificate: Option<Located<Certificate>> = Optional(At(section::<Certificate>())),
        /// Verify who they are. `false` lets anybody on the way read and change everything.
        verify: bool = Or(Choice(&[("true", true), ("false", false)]), "true"),
    }
}

record! {
    /// `admin`
    Admin {
        /// Serves /metrics, /healthz and /readyz. It asks nobody for a password: keep it on an address that only
        /// operators reach.
        address: Located<Option<SocketAddr>> = Or(At(WordOr("off", Address)), "127.0.0.1:9900"),
        /// The Unix socket through which commands reach the agent, relative to the configuration's directory.
        socket: Located<String> = Or(At(FilePath(MAX_SOCKET_PATH)), "/run/gateway/admin.sock"),
        /// Rules with a series of their own in /metrics. The others, those with fewer hits, are summed under
        /// rule="other".
        max_rule_labels: usize = Or(Count(1, RULE_SLOTS as usize), "1000"),
    }
}

/// Where an entry's prefixes may come from: an entry has one of these.
pub(crate) const ORIGINS: [&str; 4] = ["cidr", "file", "url", "mmdb"];

/// An entry of a list: a prefix alone, or a map.
pub(crate) struct Item;

impl Shape for Item {
    type Out = ListItem;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<ListItem> {
        match &node.value {
            Value::Scalar(_) => {
                let cidr = At(Prefix).read(node, reader)?;
                // All the rest is as if it were left out.
                let rest = Node { value: Value::Map(Vec::new()), ..node.clone() };
                Some(ListItem { cidr: Some(cidr), ..section::<ListItem>().read(&rest, reader)? })
            }
            Value::Map(entries) => {
                if !entries.iter().any(|(key, _)| ORIGINS.contains(&key.name.as_str())) {
                    reader.error::<()>(node.place, "an entry needs `cidr`, `file`, `url` or `mmdb`");
                }
                section::<ListItem>().read(node, reader)
            }
            _ => reader.expected(node, &self.noun()),
        }
    }

    fn noun(&self) -> String {
        "an address, a prefix or a map".to_owned()
    }

    fn schema(&self) -> Json {
        let mut map = section::<ListItem>().schema();
        map["type"] = json!("object");
        map["oneOf"] = ORIGINS.iter().map(|origin| json!({ "required": [origin] })).collect();
        json!({ "anyOf": [{ "type": "string" }, map] })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<ListItem>().keys()
    }
}
