//! The configuration as a whole: tables of broken and of good files, the report as a terminal shows it,
//! and that the table of keys, the schema and the guide say the same.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_kernel::feed::{Column, Format, Options};
use gateway_kernel::{Attach, DefaultVerdict, Form, ListKind, NewList};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::keys::Root;
use super::parts::Part;
use super::shape::{FieldInfo, Record as _};
use super::{Report, load, parse, parse_all, reference, schema};
use crate::model::{
    Balance, Endpoint, HashKey, HostPattern, Location, Model, PathPattern, Probe, RetryOn, Upstream,
};

mod broken;
mod files;
mod parts;
mod warnings;

use files::directory;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" | "OPENAI_API_KEY" => Some("hunter2".to_owned()),
        "EMPTY" => Some(String::new()),
        "PORT" => Some("8080".to_owned()),
        _ => None,
    }
}

/// A list in the tables' notation.
fn list(list: &NewList) -> String {
    let entry = |entry: &gateway_kernel::ListEntry| {
        let shadow = if entry.shadow { " shadow" } else { "" };
        format!("{} {}{shadow}", entry.prefix, list.labels[entry.label as usize])
    };
    let entries: Vec<String> = list.entries.iter().map(entry).collect();
    let shadow = if list.shadow { " in shadow" } else { "" };
    format!("{} {} from {}{shadow}: {}", list.kind.name(), list.name, list.source, entries.join(", "))
}

fn read(text: &str) -> Result<Model, Report> {
    parse(text, Path::new("gateway.yaml"), &env, directory().path())
}

fn good(text: &str) -> Model {
    read(text).unwrap_or_else(|report| panic!("{text}\n{report}"))
}

/// A report in the table's notation.
fn findings(report: &Report, dir: &Path) -> Vec<String> {
    let row = |diagnostic: &super::Diagnostic| {
        let mut row = String::new();
        if diagnostic.file != "gateway.yaml" {
            let _ = write!(row, "{} ", diagnostic.file.replace(&dir.display().to_string(), "DIR"));
        }
        let (line, column, length) = (diagnostic.line, diagnostic.column, diagnostic.length);
        let message = diagnostic.message.replace(&dir.display().to_string(), "DIR");
        let _ = write!(row, "{line}:{column}+{length} {message}");
        if let Some(suggestion) = &diagnostic.suggestion {
            let _ = write!(row, " -> {suggestion}");
        }
        row
    };
    report.diagnostics().iter().map(row).collect()
}

#[test]
fn broken_files_are_told_everything_that_is_wrong() {
    let dir = directory();
    for (name, text, expected) in broken::BROKEN {
        let report = parse(text, Path::new("gateway.yaml"), &env, dir.path()).expect_err(name);
        assert_eq!(findings(&report, dir.path()), *expected, "{name}");
        let shown = report.render(true) + &report.json().to_string();
        assert!(!shown.contains("hunter2"), "{name}: a secret is shown");
    }
}

#[test]
fn each_mistake_in_a_line_of_a_list_is_shown_in_it() {
    let dir = directory();
    let text = "kernel: {attach: off, deny: [{file: bad.nft}]}";
    let report = parse(text, Path::new("gateway.yaml"), &env, dir.path()).expect_err("mistakes");
    let rendered = report.render(false).replace(&dir.path().display().to_string(), "DIR");
    let expected = "\
DIR/bad.nft:3:18: error: 192.0.2.1/24 has host bits set; did you mean 192.0.2.0/24?
 3 |     elements = { 192.0.2.1/24, nonsense }
   |                  ^^^^^^^^^^^^

DIR/bad.nft:3:32: error: nonsense is not an address or a prefix
 3 |     elements = { 192.0.2.1/24, nonsense }
   |                                ^^^^^^^^
";
    assert!(rendered.contains(expected), "{rendered}");
}

#[test]
fn a_report_shows_lines_carets_suggestions_and_valid_names() {
    let text = "\
kernel:
  atach: off
  deny: [198.51.100.7/24, {file: bad.txt}]
listeners:
  web: {address: \"0.0.0.0:8080\", idle_timeout: 75}
upstreams:
  users: {endpoints: [\"http://127.0.0.1:9001\"]}
routes:
\tbad
";
    let report = read(text).expect_err("a tab");
    assert_eq!(
        report.render(false),
        "\
gateway.yaml:9:2: error: not YAML: tabs disallowed within this context (block indentation)
 9 |  bad
   |  ^

1 error
"
    );
    let text = text.replace("\tbad", "  é: {upstream: \"user\"}\n  r: {upstream: user, match: {path: é*}}");
    let dir = directory();
    let report = parse(&text, Path::new("gateway.yaml"), &env, dir.path()).expect_err("mistakes");
    let rendered = report.render(false).replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(
        rendered,
        "\
gateway.yaml:2:3: error: unknown key `atach`
 2 |   atach: off
   |   ^^^^^
help: did you mean `attach`?
valid: interfaces, attach, default, allow, deny, bans, list_cache

gateway.yaml:3:10: error: 198.51.100.7/24 has host bits set
 3 |   deny: [198.51.100.7/24, {file: bad.txt}]
   |          ^^^^^^^^^^^^^^^
help: did you mean `198.51.100.0/24`?

gateway.yaml:5:48: error: 75 has no unit; add a unit, such as 75s
 5 |   web: {address: \"0.0.0.0:8080\", idle_timeout: 75}
   |                                                ^^
help: did you mean `75s`?

gateway.yaml:9:3: error: `é` cannot be a name; names are 1 to 63 of a-z, 0-9, _ and -
 9 |   é: {upstream: \"user\"}
   |   ^

gateway.yaml:10:17: error: there is no upstream `user`
 10 |   r: {upstream: user, match: {path: é*}}
    |                 ^^^^
help: did you mean `users`?
valid: users

gateway.yaml:10:37: error: the path é* does not begin with a slash
 10 |   r: {upstream: user, match: {path: é*}}
    |                                     ^^
help: did you mean `/é*`?

DIR/bad.txt:2:1: error: 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?
 2 | 10.0.0.1/8 ; comment
   | ^^^^^^^^^^

DIR/bad.txt:4:3: error: nonsense is not an address or a prefix
 4 |   nonsense
   |   ^^^^^^^^

DIR/bad.txt:5:1: error: the line is not UTF-8
 5 | \u{fffd}
   | ^

9 errors
"
    );
    assert!(report.render(true).contains("\x1b["));
}

#[test]
fn a_report_for_editors_is_an_array_of_objects() {
    let report = read("kernel: {attach: nativ}\n").expect_err("a mistake");
    assert_eq!(
        report.json(),
        serde_json::json!([{
            "severity": "error",
            "file": "gateway.yaml",
            "line": 1,
            "column": 18,
            "end_column": 23,
            "message": "expected `auto`, `native`, `generic` or `off`, found `nativ`",
            "suggestion": "native",
            "valid": ["auto", "native", "generic", "off"],
        }])
    );
}

#[test]
fn reports_are_bounded() {
    let many: String = (0..1000).map(|index| format!("k{index}: 1\n")).collect();
    let report = read(&many).expect_err("unknown keys");
    assert_eq!((report.diagnostics().len(), report.total()), (100, 1000));
    assert!(report.render(false).ends_with("1000 errors, 900 not shown\n"));
    let long = format!("{}xyzzy: 1\n", " ".repeat(60_000));
    let rendered = read(&long).expect_err("an unknown key").render(false);
    assert!(rendered.lines().all(|line| line.chars().count() < 200), "{rendered}");
    let marked: Vec<&str> = rendered.lines().skip(1).take(2).collect();
    assert_eq!(marked[0].find("xyzzy").map(|at| marked[0][..at].chars().count()), marked[1].find('^'));
}

#[test]
fn files_that_are_no_configuration_are_refused_as_a_whole() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("latin.yaml"), b"workers: 1\n# \xe9\n").expect("a file");
    std::fs::write(path("large.yaml"), vec![b'#'; super::MAX_FILE_BYTES + 1]).expect("a file");
    std::fs::write(path("wide.yaml"), vec![b'#'; super::MAX_LINE_BYTES + 1]).expect("a file");
    let table = [
        ("missing.yaml", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("latin.yaml", "is not UTF-8; the first wrong byte is on line 2"),
        ("large.yaml", "cannot be read: it has more than 16777216 bytes"),
        ("wide.yaml", "has more than 65536 bytes on line 1"),
    ];
    for (name, expected) in table {
        let report = load(&path(name), &env).expect_err(name);
        let rendered = report.render(false);
        assert!(rendered.starts_with(&format!("{}: error: {expected}", path(name).display())), "{rendered}");
    }
}

#[test]
fn what_no_map_can_hold_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let lines = |count: u32| -> String {
        (0..count)
            .map(|number| format!("{} reason=r{number}\n", Ipv4Addr::from(0x0b00_0000 + number)))
            .collect()
    };
    for name in ["labels.txt", "again.txt"] {
        std::fs::write(dir.path().join(name), lines(4095)).expect("a file in it");
    }
    std::fs::write(dir.path().join("empty.txt"), "").expect("a file in it");
    let interfaces = |count: u32| {
        let names: Vec<String> = (0..count).map(|number| format!("eth{number}")).collect();
        format!("kernel: {{interfaces: [{}]}}\n", names.join(", "))
    };
    let lists = |allow: &str, deny: &str| format!("kernel:\n  allow: [{allow}]\n  deny: [{deny}]\n");
    let many = |count: u32| {
        let items: Vec<String> =
            (0..count).map(|number| format!("{{file: empty.txt, name: l{number:03}}}")).collect();
        format!("kernel:\n  deny:\n    - {}\n", items.join("\n    - "))
    };
    let labels = "{file: labels.txt}";
    let too_many_labels = |count: usize| {
        format!(
            "the lists have {count} different labels; 4096 can be told apart, give entries a `reason` in common"
        )
    };
    let table: &[(&str, String, &[String])] = &[
        ("all interfaces", interfaces(16), &[]),
        (
            "one more",
            interfaces(17),
            &["1:22+109 17 entries are too many here; at most 16 are allowed".to_owned()],
        ),
        ("all labels", lists(labels, "192.0.2.1"), &[]),
        (
            "one label more",
            lists(labels, "192.0.2.1, 192.0.2.2"),
            &["3:10+9 ".to_owned() + &too_many_labels(4097)],
        ),
        (
            "a label counts once a list",
            lists(labels, "{file: again.txt}"),
            &["3:10+17 ".to_owned() + &too_many_labels(8190)],
        ),
        ("all lists", many(256), &[]),
        ("one list more", many(257), &["259:7+29 there are 257 lists; a gateway has 256".to_owned()]),
    ];
    for (name, text, expected) in table {
        let found = match parse(text, Path::new("gateway.yaml"), &env, dir.path()) {
            Ok(_) => Vec::new(),
            Err(report) => findings(&report, dir.path()),
        };
        assert_eq!(found, *expected, "{name}");
    }
}

/// Lists from elsewhere: what each says of its name, its source, its form and its pace.
#[test]
fn lists_from_elsewhere_become_sources() {
    let csv = |column: Column| Form::Feed { format: Format::Csv { column }, options: Options::default() };
    let feed = |format: Format| Form::Feed { format, options: Options::default() };
    let table: &[(&str, &str, &str, Form, Option<u32>)] = &[
        ("{file: good.txt}", "good.txt", "good.txt", feed(Format::Auto), Some(50)),
        ("{file: good.txt, name: mine, max_change: any}", "mine", "good.txt", feed(Format::Auto), None),
        (
            "{file: drop.txt, format: plain, max_change: 1000%}",
            "drop.txt",
            "drop.txt",
            feed(Format::Plain),
            Some(1000),
        ),
        ("{file: table.csv, format: csv}", "table.csv", "table.csv", csv(Column::Number(1)), Some(50)),
        (
            "{file: table.csv, column: network}",
            "table.csv",
            "table.csv",
            csv(Column::Name("network".into())),
            Some(50),
        ),
        (
            "{file: table.csv, format: csv, column: 2}",
            "table.csv",
            "table.csv",
            csv(Column::Number(2)),
            Some(50),
        ),
        (
            "{url: \"https://example.com/lists/drop.txt\", refresh: 5m, max_size: 1MiB, ca: ca.pem}",
            "drop.txt",
            "https://example.com/lists/drop.txt",
            feed(Format::Auto),
            Some(50),
        ),
        (
            "{url: \"https://user:hunter2@example.com/drop.json?token=hunter2#x\", format: spamhaus_json}",
            "drop.json",
            "https://example.com/drop.json?…",
            feed(Format::SpamhausJson),
            Some(50),
        ),
        (
            "{url: \"https://user:hunter2@example.com\", name: root, format: ipset}",
            "root",
            "https://example.com/",
            feed(Format::Ipset),
            Some(50),
        ),
        (
            "{url: \"http://127.0.0.1:8080/a.nft\", format: nft}",
            "a.nft",
            "http://127.0.0.1:8080/a.nft",
            feed(Format::Nft),
            Some(50),
        ),
    ];
    let dir = directory();
    for (item, name, source, form, max_change) in table {
        let text = format!("kernel: {{list_cache: cache, deny: [{item}]}}\n");
        let model = parse(&text, Path::new("gateway.yaml"), &env, dir.path())
            .unwrap_or_else(|report| panic!("{item}\n{report}"));
        let [list] = &model.lists.sources[..] else { panic!("{item}: {:?}", model.lists) };
        let recipe = &list.recipe;
        assert_eq!(
            (recipe.kind, recipe.name.as_str(), recipe.source.as_str()),
            (ListKind::Deny, *name, *source),
            "{item}"
        );
        assert_eq!((&recipe.form, list.max_change), (form, *max_change), "{item}");
        assert_eq!(model.lists.cache, dir.path().join("cache"), "{item}");
        assert_eq!(model.kernel.lists[0].name, *name, "{item}");
        let shown = format!("{:?}", model.kernel.lists);
        assert!(!shown.contains("hunter2"), "{item}: a secret is shown: {shown}");
        if let crate::sources::Origin::Url(url) = &list.origin
            && item.contains("refresh")
        {
            assert_eq!((url.refresh, url.max_bytes), (Duration::from_secs(300), 1 << 20), "{item}");
            assert_eq!(url.ca, Some(dir.path().join("ca.pem")), "{item}");
        }
    }
}

#[test]
fn an_empty_file_is_a_configuration() {
    for text in ["", "# nothing\n", "---\n", "kernel:\nlisteners:\nroutes: {}\nadmin: ~\n", "\u{feff}"] {
        let model = good(text);
        assert!(model.proxy.listeners.is_empty() && model.kernel.lists.is_empty(), "{text:?}");
        assert_eq!(model.kernel.attach, Attach::Auto, "{text:?}");
        assert!(model.proxy.workers >= 1, "{text:?}");
        assert_eq!(model.admin.address, Some(SocketAddr::from(([127, 0, 0, 1], 9900))), "{text:?}");
        assert_eq!(model.admin.socket, PathBuf::from("/run/gateway/admin.sock"), "{text:?}");
    }
}

/// What a configuration without a word means, in words.
const EVERY_DEFAULT: &str = include_str!("tests/every_default.yaml");

#[test]
fn a_default_is_the_same_said_or_unsaid() {
    let dir = directory();
    let read = |text| parse(text, Path::new("gateway.yaml"), &env, dir.path()).expect("a good configuration");
    let said = read(EVERY_DEFAULT);
    let unsaid = read(
        "kernel: {deny: [192.0.2.1]}\nlisteners: {web: {address: 0.0.0.0:8080, tls: {certificates: [{cert: site.pem, \
         key: site.key}], clients: {ca: clients.pem}}}}\nupstreams: {users: {endpoints: [http://127.0.0.1, \
         https://127.0.0.1], discover: {dns: http://users.internal}, health: {}, ejection: {success_rate: {}}, retry: {}, breaker: {}, tls: {ca: clients.pem}}}\nllm: {providers: {openai: {dialect: openai_chat, base_url: \"http://127.0.0.1:9002/v1\"}}, models: {fast: {targets: [{provider: openai}]}}}\nroutes: {models: {match: {path: /f}, llm: true}, all: {upstream: users}, shared: {match: {path: /a}, \
         split: [{upstream: users}]}, copied: {match: {path: /e}, upstream: users, mirror: [{upstream: users}]}, moved: {match: {path: /b}, redirect: {prefix: /c}}, told: {match: {path: /d, \
         body: {fields: {/model: x}}}, \
         respond: {}, response_headers: {}, cors: {origins: [\"https://app.test\"]}}}\nacme: {directory: https://ca.example.com/dir, agree_to_terms: true}\naccess_log: {path: stdout}\n",
    );
    assert_ne!(said.config_hash, unsaid.config_hash);
    assert_eq!(Model { config_hash: unsaid.config_hash.clone(), ..said }, unsaid);
    each_key(&Root::fields(), &mut |field| {
        if let Some(default) = field.default {
            let said = format!("{}: {default}", field.name);
            assert!(EVERY_DEFAULT.contains(&said), "EVERY_DEFAULT lacks `{said}`");
        }
    });
}

#[test]
fn a_configuration_becomes_a_model() {
    let model = good(
        "\
kernel:
  interfaces: [eth0]
  attach: native
  default: drop
  deny:
    - 203.0.113.0/24
    - {file: good.txt, reason: spamhaus-drop}
    - {file: drop.txt, shadow: true}
    - {cidr: 203.0.113.0/24, reason: again, shadow: true}
  allow: [198.51.100.7/32, \"2001:db8::1\"]
listeners:
  web: {address: \"[::1]:${PORT}\", trusted_proxies: [10.0.0.0/8], max_header_size: 1MB}
upstreams:
  users: {endpoints: [\"http://127.0.0.1:9001\", \"http://Users.Internal\", \"http://[2001:DB8::1]:81\"]}
routes:
  a: {match: {hosts: [API.example.com, \"*.Example.com\"], path: /v%31/%7Eusers%2Fx/**, methods: [GET]}, upstream: users}
  b: {match: {path: /}, upstream: \"${file:name.txt}\"}
  c: {upstream: users}
workers: 3
drain_timeout: 1m30s
admin: {address: off, socket: run/admin.sock, max_rule_labels: 4096}
",
    );
    assert_eq!(model.kernel.interfaces, ["eth0"]);
    assert_eq!(model.kernel.attach, Attach::Native);
    assert_eq!(model.kernel.default, DefaultVerdict::Drop);
    assert_eq!(
        model.kernel.lists.iter().map(list).collect::<Vec<_>>(),
        [
            "allow config-allow from the configuration: 198.51.100.7/32 198.51.100.7/32, 2001:db8::1/128 2001:db8::1/128",
            "deny config-deny from the configuration: 203.0.113.0/24 again shadow",
            "deny good.txt from good.txt: 192.0.2.0/24 spamhaus-drop, 2001:db8::/32 its-own shadow",
            "deny drop.txt from drop.txt in shadow: 192.0.2.0/24 drop.txt",
        ]
    );
    let listener = &model.proxy.listeners[0];
    assert_eq!((listener.address.to_string().as_str(), listener.max_header_bytes), ("[::1]:8080", 1_000_000));
    let endpoint = |host: &str, port| Endpoint::new(Location::Tcp { host: host.to_owned(), port }, false);
    assert_eq!(
        model.proxy.upstreams[0].endpoints,
        [endpoint("127.0.0.1", 9001), endpoint("users.internal", 80), endpoint("2001:db8::1", 81)]
    );
    let routes = &model.proxy.routes;
    let hosts =
        [HostPattern::Exact("api.example.com".to_owned()), HostPattern::Wildcard(".example.com".to_owned())];
    assert_eq!(routes[0].matches.hosts, hosts);
    assert_eq!(routes[0].matches.path, PathPattern::Prefix("/v1/~users%2Fx".to_owned()));
    assert_eq!(routes[0].matches.methods, [http::Method::GET]);
    assert_eq!(routes[1].matches.path, PathPattern::Exact("/".to_owned()));
    assert_eq!(routes[2].matches.path, PathPattern::Prefix(String::new()));
    assert_eq!((model.proxy.workers, model.proxy.drain_timeout), (3, Duration::from_secs(90)));
    assert_eq!((model.admin.address, model.admin.max_rule_labels), (None, 4096));
    assert!(model.admin.socket.is_absolute() && model.admin.socket.ends_with("run/admin.sock"));
}

#[test]
fn an_upstream_left_alone_is_the_models_default() {
    let model = good("upstreams: {u: {endpoints: [http://127.0.0.1]}}\n");
    let endpoint = Endpoint::tcp(SocketAddr::from(([127, 0, 0, 1], 80)));
    assert_eq!(model.proxy.upstreams, [Upstream::new("u", vec![endpoint])]);
}

#[test]
fn balancing_is_read() {
    let header = HashKey::Header(http::HeaderName::from_static("x-user"));
    for (written, expected) in [
        ("round_robin", Balance::RoundRobin),
        ("least_request", Balance::LeastRequest),
        ("peak_ewma", Balance::PeakEwma),
        ("{hash: {header: X-User}}", Balance::Hash(header)),
        ("{hash: {cookie: sid}}", Balance::Hash(HashKey::Cookie("sid".to_owned()))),
        ("{hash: {source: true}}", Balance::Hash(HashKey::Source)),
        ("{hash: {path: true}}", Balance::Hash(HashKey::Path)),
        ("{sticky: {cookie: at}}", Balance::Sticky { cookie: "at".to_owned() }),
    ] {
        let endpoints = "[{url: http://127.0.0.1, weight: 3}, http://127.0.0.2]";
        let model = good(&format!("upstreams: {{u: {{endpoints: {endpoints}, balance: {written}}}}}\n"));
        let upstream = &model.proxy.upstreams[0];
        assert_eq!(upstream.balance, expected, "{written}");
        assert_eq!(upstream.endpoints.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>(), [3, 1]);
    }
}

#[test]
fn health_priorities_and_zones_are_read() {
    let model = good(
        "\
zone: a
upstreams:
  u:
    endpoints: [{url: http://127.0.0.1, priority: 1, zone: b}]
    health: {path: \"/up?x=1\", host: shop.test, expect: [204, 300-399], initial: down}
    panic_threshold: 0%
  v: {endpoints: [http://127.0.0.1], zone: c, health: {type: tcp}}
  w: {endpoints: [http://127.0.0.1], protocol: http2, health: {type: grpc, service: shop.Cart}}
",
    );
    let [u, v, w] = &model.proxy.upstreams[..] else { panic!("three upstreams") };
    let zone = |zone: &str| Some(zone.to_owned());
    assert_eq!((u.endpoints[0].priority, &u.endpoints[0].zone, &u.zone), (1, &zone("b"), &zone("a")));
    assert_eq!((&v.zone, u.panic_threshold, v.panic_threshold), (&zone("c"), 0, 50));
    let probe = |upstream: &Upstream| upstream.health.clone().map(|health| (health.probe, health.starts_up));
    let path = "/up?x=1".parse().expect("a path");
    let http = Probe::Http { path, host: Some("shop.test".to_owned()), expect: vec![204..=204, 300..=399] };
    assert_eq!(probe(u), Some((http, false)));
    assert_eq!(probe(v), Some((Probe::Tcp, true)));
    assert_eq!(probe(w), Some((Probe::Grpc { service: "shop.Cart".to_owned() }, true)));
}

#[test]
fn retries_are_read() {
    for (on, connect, reset, timeout, statuses) in [
        ("[connect]", true, false, false, vec![]),
        ("[reset, timeout]", false, true, true, vec![]),
        ("[gateway_error, 429]", false, false, true, vec![502..=504, 429..=429]),
        ("[5xx, 400-404]", false, false, false, vec![500..=599, 400..=404]),
        ("[]", false, false, false, vec![]),
    ] {
        let model = good(&format!("upstreams: {{u: {{endpoints: [http://a], retry: {{on: {on}}}}}}}\n"));
        let retry = model.proxy.upstreams[0].retry.clone().expect("a policy");
        assert_eq!(retry.on, RetryOn { connect, reset, timeout, statuses }, "{on}");
    }
}

#[test]
fn upstreams_stand_in_for_each_other() {
    let model = good(
        "\
upstreams:
  a: {endpoints: [http://a], fallback: c, limits: {max_requests: 100}, breaker: {slow: 2s}}
  b: {endpoints: [http://b]}
  c: {endpoints: [http://c], fallback: b}
",
    );
    let upstreams = model.proxy.upstreams;
    let fallbacks: Vec<_> = upstreams.iter().map(|upstream| upstream.fallback).collect();
    assert_eq!(fallbacks, [Some(2), None, Some(1)]);
    assert_eq!(upstreams[0].limits.max_requests, Some(100));
    assert_eq!(upstreams[0].breaker.clone().and_then(|breaker| breaker.slow), Some(Duration::from_secs(2)));
}

#[test]
fn references_are_replaced_once() {
    let table = [
        ("${SECRET}", "hunter2"),
        ("a${SECRET}b${PORT}", "ahunter2b8080"),
        ("${NOWHERE:-x y}", "x y"),
        ("${EMPTY:-x}", "x"),
        ("a${EMPTY}", "a"),
        ("$${SECRET}", "${SECRET}"),
        ("$$${SECRET}", "$${SECRET}"),
        ("${file:secret.txt}", "hunter2"),
        ("${command: echo hunter2}", "hunter2"),
        ("$SECRET", "$SECRET"),
        ("${NOWHERE:-${PORT}", "${PORT"),
    ];
    for (reason, expected) in table {
        let model = good(&format!("kernel: {{deny: [{{cidr: 192.0.2.1, reason: \"{reason}\"}}]}}\n"));
        assert_eq!(model.kernel.lists[0].labels, [expected], "{reason}");
    }
}

#[test]
fn routes_that_differ_anywhere_live_together() {
    let route = |name: &str, matches: &str| format!("  {name}: {{match: {{{matches}}}, upstream: u}}\n");
    let mut text = "upstreams: {u: {endpoints: [http://a]}}\nroutes:\n".to_owned();
    let patterns = [
        "path: /a",
        "path: /a/**",
        "path: /a, methods: [GET]",
        "path: /a, methods: [PUT, POST]",
        "path: /a, hosts: [a.example]",
        "path: /a, hosts: [\"*.a.example\"]",
        "path: /a, hosts: [a.example], methods: [GET]",
        "path: /A",
    ];
    for (index, pattern) in patterns.iter().enumerate() {
        text += &route(&format!("r{index}"), pattern);
    }
    assert_eq!(good(&text).proxy.routes.len(), patterns.len());
}

#[test]
fn the_hash_follows_the_text_and_the_lists() {
    // As `sha256sum` says of an empty file.
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(good("").config_hash, empty);
    let dir = directory();
    let text = "kernel: {deny: [{file: good.txt}]}\n";
    let hash = || parse(text, Path::new("gateway.yaml"), &env, dir.path()).expect("a model").config_hash;
    let before = hash();
    assert_eq!(before, hash());
    std::fs::write(dir.path().join("good.txt"), "192.0.2.0/25\n").expect("a file");
    assert_ne!(before, hash());
}

fn each_key(fields: &[FieldInfo], visit: &mut dyn FnMut(&FieldInfo)) {
    for field in fields {
        visit(field);
        each_key(&field.keys, visit);
    }
}

#[test]
fn every_key_is_complete() {
    let mut count = 0;
    each_key(&Root::fields(), &mut |field| {
        count += 1;
        assert!(field.doc.ends_with('.'), "{}: {:?}", field.name, field.doc);
        let bounds = field.noun.split(" from ").nth(1).and_then(|bounds| bounds.split_once(" to "));
        if let (Some((low, high)), true) = (bounds, field.noun.starts_with("a duration")) {
            let bound = |text| gateway_kernel::feed::parse_duration(text).expect("a bound is a duration");
            assert!(bound(low) < bound(high), "{}: {}", field.name, field.noun);
        }
    });
    assert!(count > 35, "{count}");
}

/// A field of every record that does not exist names those that do; the schema must name the same.
#[test]
fn the_schema_knows_the_keys_that_the_reader_knows() {
    let properties = |pointer: &str| {
        let schema = schema();
        let record = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
        assert_eq!(record["additionalProperties"], Json::Bool(false), "{pointer}");
        let mut names: Vec<String> =
            record["properties"].as_object().expect("an object").keys().cloned().collect();
        names.sort();
        names
    };
    let table = [
        ("", "zzzzzz: 1\n"),
        ("/properties/kernel", "kernel: {zzzzzz: 1}\n"),
        (
            "/properties/kernel/properties/deny/items/anyOf/1",
            "kernel: {deny: [{cidr: 10.0.0.0/8, zzzzzz: 1}]}\n",
        ),
        ("/properties/listeners/additionalProperties", "listeners: {a: {address: 0.0.0.0:80, zzzzzz: 1}}\n"),
        (
            "/properties/upstreams/additionalProperties",
            "upstreams: {a: {endpoints: [http://a], zzzzzz: 1}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/endpoints/items/anyOf/1",
            "upstreams: {a: {endpoints: [{url: http://a, zzzzzz: 1}]}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/balance/anyOf/1/properties/sticky",
            "upstreams: {a: {endpoints: [http://a], balance: {sticky: {cookie: c, zzzzzz: 1}}}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/retry",
            "upstreams: {a: {endpoints: [http://a], retry: {zzzzzz: 1}}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/breaker",
            "upstreams: {a: {endpoints: [http://a], breaker: {zzzzzz: 1}}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/ejection",
            "upstreams: {a: {endpoints: [http://a], ejection: {zzzzzz: 1}}}\n",
        ),
        (
            "/properties/upstreams/additionalProperties/properties/health",
            "upstreams: {a: {endpoints: [http://a], health: {zzzzzz: 1}}}\n",
        ),
        ("/properties/admin", "admin: {zzzzzz: 1}\n"),
        (
            "/properties/routes/additionalProperties",
            "upstreams: {a: {endpoints: [http://a]}}\nroutes: {a: {upstream: a, zzzzzz: 1}}\n",
        ),
        (
            "/properties/routes/additionalProperties/properties/match",
            "upstreams: {a: {endpoints: [http://a]}}\nroutes: {a: {upstream: a, match: {zzzzzz: 1}}}\n",
        ),
    ];
    for (pointer, text) in table {
        let report = read(text).expect_err(pointer);
        let mut valid = report.diagnostics()[0].valid.clone();
        valid.sort();
        assert_eq!(properties(pointer), valid, "{pointer}");
    }
}

/// `UPDATE_GUIDE=1 cargo test -p gateway guide` writes the table and the report into the guide.
#[test]
fn the_guide_says_what_the_code_says() {
    let guide = std::fs::read_to_string(GUIDE).expect("docs/configuration.md");
    let (_, broken) = guide.split_once("```text broken\n").expect("an example of a broken file");
    let (broken, _) = broken.split_once("```").expect("its end");
    let report = read(broken).expect_err("mistakes").render(false);
    let parts =
        [("<!-- keys -->\n", "<!-- end of keys -->\n", reference()), ("```text report\n", "```\n", report)];
    let mut updated = guide.clone();
    for (begin, end, content) in parts {
        let (before, rest) = updated.split_once(begin).expect(begin);
        let (_, after) = rest.split_once(end).expect(end);
        updated = format!("{before}{begin}{content}{end}{after}");
    }
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, updated).expect("the guide can be written");
    } else {
        assert_eq!(guide, updated, "write it anew with UPDATE_GUIDE=1 cargo test -p gateway guide");
    }
}

#[test]
fn the_examples_of_the_guide_are_good() {
    let guide = std::fs::read_to_string(GUIDE).expect("docs/configuration.md");
    let examples: Vec<&str> =
        guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 5, "{}", examples.len());
    for example in examples {
        good(example);
    }
}

/// What the interface promises of the keys that there are so far.
#[test]
fn the_first_keys_are_written_as_promised() {
    good(
        "\
kernel:
  interfaces: [eth0]
  attach: auto                 # auto (native, then generic) | native | generic | off (same rules in userspace)
  deny:
    - 203.0.113.0/24
    - {file: drop.txt, reason: spamhaus-drop, shadow: true}
  allow: [198.51.100.7/32]
listeners:
  web:    {address: \"0.0.0.0:8080\"}
upstreams:
  users: {endpoints: [\"http://127.0.0.1:9001\", \"http://127.0.0.1:9002\"]}
routes:
  users: {match: {hosts: [api.example.com], path: \"/v1/users/**\", methods: [GET]}, upstream: users}
admin: {address: \"127.0.0.1:9900\", socket: /run/gateway/admin.sock}
",
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read(&text).map_err(|report| (report.render(true), report.json()));
    }

    #[test]
    fn no_yaml_panics(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "kernel", "deny", "listeners", "web", "address", "routes", "match", "hosts", "path", "upstream",
                "upstreams", "endpoints", "admin", "workers", "file", "cidr", "reason", "drain_timeout", "auto",
                "0.0.0.0:80", "http://a", "10.0.0.0/8", "30s", "32KiB", "${SECRET}", "${NOWHERE}", "${", "$$",
                ": ", ": ", ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "\"", "'", "#",
                "|", ">", "!!int ", "~", "é", "\t", "? ", "<<", "---\n", "%",
            ]),
            0..40,
        ),
    ) {
        let text: String = words.concat();
        let _ = read(&text).map_err(|report| (report.render(true), report.json()));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("gateway.yaml");
        std::fs::write(&path, bytes).expect("a file");
        let _ = load(&path, &env).map_err(|report| report.render(false));
    }
}

#[test]
fn providers_become_upstreams_and_names_lead_to_them() {
    let model = good(
        "\
upstreams: {fleet: {endpoints: [\"http://127.0.0.1:8001\", \"http://127.0.0.1:8002\"]}}
llm:
  providers:
    openai: {dialect: openai_chat, base_url: \"https://api.openai.com/v1/\", api_key: \"${SECRET}\", models: [\"gpt-*\", o3]}
    claude: {dialect: anthropic_messages, base_url: \"https://api.anthropic.com:8443\", api_key: \"${SECRET}\", idle_timeout: 7s}
    azure: {dialect: openai_chat, base_url: \"https://a.test/openai\", quirks: azure, api_version: 2024-10-21, api_key: pass}
    own: {dialect: openai_chat, base_url: \"http://vllm/v1\", quirks: vllm, upstream: fleet, headers: {x-team: \"${SECRET}\"}}
  models:
    fast: {targets: [{provider: openai, model: gpt-4.1-mini}, {provider: claude, model: claude-haiku-4-5}]}
    \"gpt-4*\": {targets: [{provider: azure}]}
  aliases: {quick: fast, old: gpt-4-x}
routes: {chat: {llm: {lossy: refuse}}}
",
    );
    let proxy = &model.proxy;
    let names: Vec<_> = proxy.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["fleet", "llm/openai", "llm/claude", "llm/azure"]);
    assert_eq!(proxy.upstreams[2].idle_timeout, Duration::from_secs(7));
    assert!(proxy.upstreams[1].tls.as_ref().is_some_and(|tls| tls.verify));
    let provider = |provider: &crate::model::Provider| {
        (provider.host.to_str().unwrap_or("").to_owned(), provider.base_path.clone(), provider.upstream)
    };
    let expected = [
        ("api.openai.com", "/v1", 1),
        ("api.anthropic.com:8443", "", 2),
        ("a.test", "/openai", 3),
        ("vllm", "/v1", 0),
    ];
    let expected = expected.map(|(host, path, upstream)| (host.to_owned(), path.to_owned(), upstream));
    assert_eq!(proxy.llm.providers.iter().map(provider).collect::<Vec<_>>(), expected);
    let key = |index: usize| match &proxy.llm.providers[index].key {
        crate::model::ProviderKey::Own(name, value) => format!("{name}: {}", value.to_str().unwrap_or("")),
        other => format!("{other:?}"),
    };
    assert_eq!(
        [key(0), key(1), key(2), key(3)],
        ["authorization: Bearer hunter2", "x-api-key: hunter2", "Pass", "None"]
    );
    assert!(!format!("{model:?}").contains("hunter2"), "a secret is shown");
    let target = |name: &str| match proxy.llm.find(name) {
        Some(crate::model::Found::Group(targets)) => {
            let of = |target: &crate::model::LlmTarget| {
                (target.provider, target.model.as_ref().map(|(model, _)| model.clone()))
            };
            targets.iter().map(of).collect::<Vec<_>>()
        }
        Some(crate::model::Found::Named(provider, model)) => vec![(provider, Some(model.to_owned()))],
        None => Vec::new(),
    };
    let fast = vec![(0, Some("gpt-4.1-mini".to_owned())), (1, Some("claude-haiku-4-5".to_owned()))];
    for (name, expected) in [
        ("fast", fast.clone()),
        ("quick", fast),
        ("old", vec![(2, Some("gpt-4-x".to_owned()))]),
        ("gpt-4.1", vec![(2, None)]),
        ("gpt-5", vec![(0, None)]),
        ("o3", vec![(0, None)]),
        ("openai/gpt-4", vec![(0, Some("gpt-4".to_owned()))]),
        ("openai/o4", vec![]),
        ("own/meta/llama", vec![(3, Some("meta/llama".to_owned()))]),
        ("o4", vec![]),
    ] {
        assert_eq!(target(name), expected, "{name}");
    }
    assert_eq!(proxy.llm.listed, ["fast", "o3", "old", "quick"]);
}
