//! Configurations that can run, each with what they are warned of: `line:column+length message`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Part, directory, env, findings, parse_all};

/// Name, configuration, warnings.
const WARNED: &[(&str, &str, &[&str])] = &[
    ("nothing at all", "", &[]),
    (
        "all is used",
        "listeners:\n  web: {address: 127.0.0.1:80}\n  tls: {address: 127.0.0.1:443, passthrough: [{server_names: [a.test], upstream: p}]}\nupstreams:\n  a: {endpoints: [http://a], fallback: b}\n  b: {endpoints: [http://b], fallback: c}\n  c: {endpoints: [http://c]}\n  p: {endpoints: [http://p]}\n  s: {endpoints: [http://s]}\n  m: {endpoints: [http://m]}\nroutes:\n  a: {upstream: a, mirror: {upstream: m}}\n  s: {match: {path: /s}, split: [{upstream: a}, {upstream: s, weight: 0}]}\n",
        &[],
    ),
    (
        "upstreams that nobody uses",
        "listeners: {web: {address: 127.0.0.1:80}}\nupstreams:\n  a: {endpoints: [http://a]}\n  b: {endpoints: [http://b], fallback: c}\n  c: {endpoints: [http://c]}\nroutes: {r: {upstream: a}}\n",
        &[
            "4:3+1 no route and no listener uses the upstream `b`",
            "5:3+1 no route and no listener uses the upstream `c`",
        ],
    ),
    (
        "no listener",
        "routes:\n  a: {respond: {}}\n  b: {match: {path: /b, server_names: [a.test]}, respond: {}}\n",
        &["2:3+1 no listener is declared, so no route gets a request"],
    ),
    (
        "server names in the clear",
        "listeners:\n  web: {address: 127.0.0.1:80}\n  tls: {address: 127.0.0.1:443, tls: {certificates: [{cert: site.pem, key: site.key}]}}\nroutes:\n  any: {match: {path: /a, server_names: [a.test]}, respond: {}}\n  tls: {match: {path: /b, server_names: [a.test], listeners: [tls]}, respond: {}}\n  web: {match: {path: /c, server_names: [a.test], listeners: [web]}, respond: {}}\n",
        &[
            "7:3+3 the route `web` asks for a server name, and none of its listeners speaks TLS: it takes no request",
        ],
    ),
    (
        "names of requests that have none",
        "listeners:\n  web: {address: 127.0.0.1:80}\n  named: {address: 127.0.0.1:81, request_ids: true}\nroutes:\n  a: {match: {path: /a}, respond: {}, response_headers: {set: {x: \"{request.id}\"}}}\n  b: {match: {path: /b, listeners: [web]}, respond: {}, response_headers: {add: {x: \"is {request.id}\"}}}\n",
        &[
            "6:3+1 the route `b` has {request.id} in a value, and none of its listeners has `request_ids`: the field is left out",
        ],
    ),
    (
        "an end that is past",
        "listeners: {web: {address: 127.0.0.1:80}}\nroutes:\n  a: {match: {path: /a}, respond: {}, deprecated: {sunset: 2020-02-29}}\n  b: {match: {path: /b}, respond: {}, deprecated: {since: 2020-02-29, sunset: 9999-12-31}}\n",
        &["3:3+1 the `sunset` of the route `a` was on 2020-02-29"],
    ),
    (
        "certificates",
        "listeners:\n  web:\n    address: 127.0.0.1:443\n    tls:\n      certificates:\n        - {cert: site.pem, key: site.key}\n        - {cert: over.pem, key: over.key}\n        - {cert: soon.pem, key: soon.key}\n        - {cert: early.pem, key: early.key}\nupstreams: {u: {endpoints: [https://u], tls: {ca: clients.pem, certificate: {cert: over.pem, key: over.key}}}}\nroutes: {r: {upstream: u}}\n",
        &[
            "7:11+31 the certificate in DIR/over.pem ended on OVER",
            "8:11+31 the certificate in DIR/soon.pem ends on SOON",
            "9:11+33 the certificate in DIR/early.pem begins on EARLY",
            "10:77+31 the certificate in DIR/over.pem ended on OVER",
        ],
    ),
];

/// The conditions of two routes for one path, the one that is asked first in front, and whether it takes all that the
/// other asks for.
const SHADOWS: &[(&str, &str, &str, bool)] = &[
    ("a name of a parameter", "path: '/a/{x}'", "path: '/a/{y}'", true),
    ("another path", "path: /a", "path: /b", false),
    ("a shorter path", "path: /a/**", "path: /**", false),
    ("an expression for everything", "path: {regex: .*}", "path: /a/**", true),
    ("an expression for nearly everything", "path: {regex: .+}", "path: /a/**", false),
    ("everything, and one path", "path: {regex: .*}", "path: /a", false),
    ("everything, of some", "path: {regex: .*}, headers: {x: \"1\"}", "path: /a/**", false),
    ("methods", "methods: [GET, PUT], listeners: [web, tls]", "methods: [PUT], listeners: [web]", true),
    (
        "other methods",
        "methods: [GET, PUT], listeners: [web, tls]",
        "methods: [PUT, POST], listeners: [web]",
        false,
    ),
    ("every method", "methods: [GET], listeners: [web, tls]", "listeners: [web]", false),
    ("present", "headers: {x: {present: true}}", "headers: {x: \"1\"}", true),
    ("present by an expression", "query: {x: {present: true}}", "query: {x: {regex: a+}}", true),
    ("absent", "cookies: {x: {present: false}}", "cookies: {x: \"1\"}", false),
    ("in an expression", "headers: {x: {regex: \"[0-9]+\"}}", "headers: {x: \"1\"}", true),
    ("not in an expression", "headers: {x: {regex: \"[0-9]+\"}}", "headers: {x: a}", false),
    ("another field", "headers: {x: {present: true}}", "headers: {y: \"1\"}", false),
    ("more that is asked", "headers: {x: \"1\", y: \"1\"}", "headers: {x: \"1\"}", false),
    ("hosts", "hosts: [a.test, b.test], listeners: [web, tls]", "hosts: [a.test], listeners: [web]", true),
    (
        "more hosts",
        "hosts: [a.test], listeners: [web, tls]",
        "hosts: [a.test, b.test], listeners: [web]",
        false,
    ),
    ("a wildcard", "hosts: [\"*.test\"], listeners: [web, tls]", "hosts: [a.test], listeners: [web]", false),
    ("sources", "sources: [10.1.2.0/24, 10.0.0.0/8]", "sources: [10.2.0.0/16]", true),
    ("other sources", "sources: [10.1.2.0/24, 10.0.0.0/8]", "sources: [11.0.0.0/16]", false),
    (
        "server names",
        "server_names: [\"*.a.test\", b.test]",
        "server_names: [x.a.test, \"*.b.a.test\"]",
        true,
    ),
    ("other server names", "server_names: [\"*.a.test\", b.test]", "server_names: [a.test]", false),
    ("bodies", "body: {fields: {/a: {present: true}}}", "body: {fields: {/a: x}}", true),
    ("other bodies", "body: {fields: {/a: {present: true}}}", "body: {fields: {/b: x}}", false),
    ("content types", "content_types: [a/b, a/c]", "content_types: [a/b;x=y]", true),
    ("other content types", "content_types: [a/b;x=y]", "content_types: [a/b]", false),
    ("what is accepted", "accepts: [a/b, a/c]", "accepts: [a/b]", true),
    ("what else is accepted", "accepts: [a/b, a/c]", "accepts: [a/b, a/d]", false),
];

fn warnings(text: &str, dir: &Path) -> Vec<String> {
    let part = Part { path: "gateway.yaml".into(), text: text.to_owned() };
    let checked = parse_all(&[part], &env, dir).unwrap_or_else(|report| panic!("{text}\n{report}"));
    findings(&checked.warnings, dir)
}

/// A certificate that is good from some days from now to some others.
fn write_certificate(dir: &Path, name: &str, from_days: i64, to_days: i64) {
    let mut params = rcgen::CertificateParams::new(vec!["example.com".to_owned()]).expect("a name");
    let now = time::OffsetDateTime::from(SystemTime::now());
    (params.not_before, params.not_after) =
        (now + time::Duration::days(from_days), now + time::Duration::days(to_days));
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("a certificate");
    std::fs::write(dir.join(format!("{name}.pem")), cert.pem()).expect("a file");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
}

#[test]
fn what_may_not_be_meant_is_warned_of() {
    let dir = directory();
    for (name, from, to) in [("over", -20, -10), ("soon", -1, 29), ("early", 10, 100)] {
        write_certificate(dir.path(), name, from, to);
    }
    let day = |days: u64, is_past: bool| {
        let (now, span) = (SystemTime::now(), Duration::from_secs(days * 24 * 3600));
        let at = if is_past { now - span } else { now + span };
        time::OffsetDateTime::from(at).date().to_string()
    };
    let (over, soon, early) = (day(10, true), day(29, false), day(10, false));
    for (name, text, expected) in WARNED {
        let named = |row: String| row.replace(&over, "OVER").replace(&soon, "SOON").replace(&early, "EARLY");
        let found: Vec<_> = warnings(text, dir.path()).into_iter().map(named).collect();
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn routes_that_take_nothing_are_warned_of() {
    let dir = directory();
    for (name, first, second, is_shadowed) in SHADOWS {
        let text = format!(
            "listeners:\n  web: {{address: \"127.0.0.1:80\"}}\n  tls: {{address: \"127.0.0.1:443\", tls: {{certificates: \
             [{{cert: site.pem, key: site.key}}]}}}}\nroutes:\n  b: {{respond: {{}}, match: {{{second}}}}}\n  a: \
             {{respond: {{}}, match: {{{first}}}}}\n"
        );
        let expected = "5:3+1 the route `b` takes no request: what it asks for, `a` (line 6) takes before it";
        let expected: &[&str] = if *is_shadowed { &[expected] } else { &[] };
        assert_eq!(warnings(&text, dir.path()), expected, "{name}");
    }
    // Two that take together what a third asks for.
    let text = "\
listeners: {web: {address: 127.0.0.1:80}, more: {address: 127.0.0.1:81}}
routes:
  a: {respond: {}, match: {methods: [GET], listeners: [web, more]}}
  b: {respond: {}, match: {methods: [PUT], listeners: [web, more]}}
  c: {respond: {}, match: {methods: [GET, PUT], listeners: [web]}}
";
    let expected = "5:3+1 the route `c` takes no request: what it asks for, `a` (line 3) takes before it";
    assert_eq!(warnings(text, dir.path()), [expected]);
}

#[test]
fn a_warning_looks_like_a_mistake_and_is_none() {
    let dir = directory();
    let text = "upstreams:\n  u: {endpoints: [http://a]}\n".to_owned();
    let part = Part { path: "gateway.yaml".into(), text };
    let warnings = parse_all(&[part], &env, dir.path()).expect("a good configuration").warnings;
    assert_eq!(
        warnings.render(false),
        "\
gateway.yaml:2:3: warning: no route and no listener uses the upstream `u`
 2 |   u: {endpoints: [http://a]}
   |   ^

1 warning
"
    );
    assert_eq!(warnings.json()[0]["severity"], "warning");
}
