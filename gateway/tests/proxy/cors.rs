//! Pages of other origins over the wire: every field of CORS that an answer has, and Vary, row by row.

use std::time::Duration;

use gateway::model::{self, Action, Cors, FixedAnswer, OriginPattern, PathPattern};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::harness::*;

/// An upstream that has an opinion of its own about who may read it, and varies by what it is told.
fn opinionated() -> Upstream {
    upstream(|mut conn| {
        while let Some(head) = conn.head() {
            let vary = head.lines().find_map(|line| line.strip_prefix("x-vary: "));
            let vary = vary.map_or_else(String::new, |vary| format!("vary: {vary}\r\n"));
            conn.send(&format!(
                "HTTP/1.1 200 OK\r\naccess-control-allow-origin: upstream\r\naccess-control-allow-credentials: \
                 true\r\n{vary}content-length: 0\r\n\r\n"
            ));
        }
    })
}

fn exact(origin: &str) -> OriginPattern {
    OriginPattern::Exact(origin.to_owned())
}

fn cors(origin: OriginPattern, credentials: bool) -> Cors {
    Cors {
        origins: vec![origin],
        methods: vec![Method::GET, Method::PUT],
        headers: Vec::new(),
        expose: Vec::new(),
        credentials,
        max_age: Duration::from_secs(60),
    }
}

fn routes(mut model: model::Proxy) -> model::Proxy {
    let all = model.routes.remove(0);
    let name = HeaderName::from_static;
    let app = || cors(exact("https://app.test"), true);
    let wild = OriginPattern::Wildcard("https://".to_owned(), ".app.test".to_owned());
    let fixed = Action::Respond(FixedAnswer {
        status: StatusCode::OK,
        body: "hello".into(),
        content_type: HeaderValue::from_static("text/plain"),
    });
    let mut down = all.action.clone();
    if let Action::Forward(forward) = &mut down {
        forward.shares[0].upstream = 1;
    }
    let same = || all.action.clone();
    for (path, cors, action) in [
        ("/app", Some(Cors { expose: vec![name("x-total")], ..app() }), same()),
        ("/any", Some(cors(OriginPattern::Any, false)), same()),
        ("/wild", Some(Cors { headers: vec![name("x-a"), name("x-b")], ..cors(wild, false) }), same()),
        ("/null", Some(cors(exact("null"), false)), same()),
        ("/plain", None, same()),
        ("/down", Some(app()), down),
        ("/put", Some(app()), same()),
        ("/fixed", Some(app()), fixed),
    ] {
        let mut route = all.clone();
        (route.name, route.cors, route.action) = (path.trim_start_matches('/').to_owned(), cors, action);
        route.matches.path = PathPattern::Exact(path.to_owned());
        if path == "/put" {
            route.matches.methods = vec![Method::PUT];
        }
        model.routes.push(route);
    }
    model
}

/// Name, method, target, fields, status, and what there is of CORS and Vary, sorted.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const APP: &str = "origin: https://app.test\r\n";
const ASKS_PUT: &str = "origin: https://app.test\r\naccess-control-request-method: PUT\r\n";
const NOTHING: &[&str] = &["vary: origin"];
const READS: &[&str] = &[
    "access-control-allow-credentials: true",
    "access-control-allow-origin: https://app.test",
    "vary: origin",
];
const APP_READS: &[&str] = &[
    "access-control-allow-credentials: true",
    "access-control-allow-origin: https://app.test",
    "access-control-expose-headers: x-total",
    "vary: origin",
];
const MAY_PUT: &[&str] = &[
    "access-control-allow-credentials: true",
    "access-control-allow-methods: GET, PUT",
    "access-control-allow-origin: https://app.test",
    "access-control-max-age: 60",
    "vary: access-control-request-headers",
    "vary: access-control-request-method",
    "vary: origin",
];
const APP_MAY_PUT: &[&str] = &[
    "access-control-allow-credentials: true",
    "access-control-allow-methods: GET, PUT",
    "access-control-allow-origin: https://app.test",
    "access-control-expose-headers: x-total",
    "access-control-max-age: 60",
    "vary: access-control-request-headers",
    "vary: access-control-request-method",
    "vary: origin",
];

const ROWS: &[Row] = &[
    // Simple requests.
    ("an origin that may", "GET", "/app", APP, "200", APP_READS),
    ("with a body", "POST", "/app", APP, "200", APP_READS),
    ("no origin", "GET", "/app", "", "200", NOTHING),
    ("another origin", "GET", "/app", "origin: https://evil.test\r\n", "200", NOTHING),
    ("another port", "GET", "/app", "origin: https://app.test:8443\r\n", "200", NOTHING),
    ("another scheme", "GET", "/app", "origin: http://app.test\r\n", "200", NOTHING),
    ("it in front", "GET", "/app", "origin: https://app.test.evil.test\r\n", "200", NOTHING),
    ("it behind", "GET", "/app", "origin: https://evilapp.test\r\n", "200", NOTHING),
    ("a slash", "GET", "/app", "origin: https://app.test/\r\n", "200", NOTHING),
    ("null, where it may not", "GET", "/app", "origin: null\r\n", "200", NOTHING),
    ("an empty origin", "GET", "/app", "origin: \r\n", "200", NOTHING),
    ("no ASCII", "GET", "/app", "origin: https://äpp.test\r\n", "200", NOTHING),
    (
        "case",
        "GET",
        "/app",
        "origin: HTTPS://App.Test\r\n",
        "200",
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-origin: HTTPS://App.Test",
            "access-control-expose-headers: x-total",
            "vary: origin",
        ],
    ),
    // Preflights.
    ("a preflight", "OPTIONS", "/app", ASKS_PUT, "204", APP_MAY_PUT),
    (
        "a preflight with fields",
        "OPTIONS",
        "/app",
        "origin: https://app.test\r\naccess-control-request-method: GET\r\naccess-control-request-headers: x-1, x-2\r\n",
        "204",
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-1, x-2",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://app.test",
            "access-control-expose-headers: x-total",
            "access-control-max-age: 60",
            "vary: access-control-request-headers",
            "vary: access-control-request-method",
            "vary: origin",
        ],
    ),
    (
        "a method that may not",
        "OPTIONS",
        "/app",
        "origin: https://app.test\r\naccess-control-request-method: DELETE\r\n",
        "403",
        &[],
    ),
    (
        "a method in another case",
        "OPTIONS",
        "/app",
        "origin: https://app.test\r\naccess-control-request-method: put\r\n",
        "403",
        &[],
    ),
    (
        "a preflight of another origin",
        "OPTIONS",
        "/app",
        "origin: https://evil.test\r\naccess-control-request-method: PUT\r\n",
        "403",
        &[],
    ),
    (
        "a private network, which nobody is let into",
        "OPTIONS",
        "/app",
        "origin: https://app.test\r\naccess-control-request-method: PUT\r\naccess-control-request-private-network: true\r\n",
        "204",
        APP_MAY_PUT,
    ),
    ("OPTIONS without a method", "OPTIONS", "/app", APP, "200", APP_READS),
    (
        "OPTIONS without an origin",
        "OPTIONS",
        "/app",
        "access-control-request-method: PUT\r\n",
        "200",
        NOTHING,
    ),
    (
        "OPTIONS with what is no method",
        "OPTIONS",
        "/app",
        "origin: https://app.test\r\naccess-control-request-method: a b\r\n",
        "200",
        APP_READS,
    ),
    // Everybody.
    ("anybody", "GET", "/any", APP, "200", &["access-control-allow-origin: *"]),
    ("nobody", "GET", "/any", "", "200", &[]),
    ("null, among everybody", "GET", "/any", "origin: null\r\n", "200", &["access-control-allow-origin: *"]),
    (
        "with cookies, which everybody may not",
        "GET",
        "/any",
        "origin: https://app.test\r\ncookie: a=b\r\n",
        "200",
        &["access-control-allow-origin: *"],
    ),
    (
        "anybody's preflight",
        "OPTIONS",
        "/any",
        ASKS_PUT,
        "204",
        &[
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: *",
            "access-control-max-age: 60",
            "vary: access-control-request-headers",
            "vary: access-control-request-method",
        ],
    ),
    // Patterns.
    (
        "a label",
        "GET",
        "/wild",
        "origin: https://x.app.test\r\n",
        "200",
        &["access-control-allow-origin: https://x.app.test", "vary: origin"],
    ),
    (
        "two labels",
        "GET",
        "/wild",
        "origin: https://x.y.app.test\r\n",
        "200",
        &["access-control-allow-origin: https://x.y.app.test", "vary: origin"],
    ),
    ("no label", "GET", "/wild", APP, "200", NOTHING),
    ("an empty label", "GET", "/wild", "origin: https://.app.test\r\n", "200", NOTHING),
    ("a path in it", "GET", "/wild", "origin: https://evil.test/.app.test\r\n", "200", NOTHING),
    ("a user in it", "GET", "/wild", "origin: https://evil@.app.test\r\n", "200", NOTHING),
    ("a port in it", "GET", "/wild", "origin: https://evil:1.app.test\r\n", "200", NOTHING),
    (
        "fields that may",
        "OPTIONS",
        "/wild",
        "origin: https://x.app.test\r\naccess-control-request-method: GET\r\naccess-control-request-headers: x-z\r\n",
        "204",
        &[
            "access-control-allow-headers: x-a, x-b",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://x.app.test",
            "access-control-max-age: 60",
            "vary: access-control-request-headers",
            "vary: access-control-request-method",
            "vary: origin",
        ],
    ),
    // Null.
    (
        "null, where it may",
        "GET",
        "/null",
        "origin: null\r\n",
        "200",
        &["access-control-allow-origin: null", "vary: origin"],
    ),
    ("an origin, where only null may", "GET", "/null", APP, "200", NOTHING),
    // Vary.
    ("it varies by more", "GET", "/null", "x-vary: accept\r\n", "200", &["vary: accept", "vary: origin"]),
    ("it says so itself", "GET", "/null", "x-vary: accept, Origin\r\n", "200", &["vary: accept, Origin"]),
    ("it varies by everything", "GET", "/null", "x-vary: *\r\n", "200", &["vary: *"]),
    ("everybody, and it varies", "GET", "/any", "x-vary: accept\r\n", "200", &["vary: accept"]),
    // Who says nothing leaves it to the upstream.
    (
        "the upstream's own",
        "GET",
        "/plain",
        APP,
        "200",
        &["access-control-allow-credentials: true", "access-control-allow-origin: upstream"],
    ),
    (
        "the upstream's preflight",
        "OPTIONS",
        "/plain",
        ASKS_PUT,
        "200",
        &["access-control-allow-credentials: true", "access-control-allow-origin: upstream"],
    ),
    // What the gateway answers itself.
    ("a fixed answer", "GET", "/fixed", APP, "200", READS),
    ("an error", "GET", "/down", APP, "502", READS),
    ("an error for another origin", "GET", "/down", "origin: https://evil.test\r\n", "502", NOTHING),
    ("an error for nobody", "GET", "/down", "", "502", NOTHING),
    ("a preflight while all is down", "OPTIONS", "/down", ASKS_PUT, "204", MAY_PUT),
    ("a preflight for the one method", "OPTIONS", "/put", ASKS_PUT, "204", MAY_PUT),
    ("another method than the one", "GET", "/put", APP, "405", &[]),
    ("no route", "GET", "/nowhere", APP, "404", &[]),
    ("a preflight for no route", "OPTIONS", "/nowhere", ASKS_PUT, "404", &[]),
    ("a path that is refused", "OPTIONS", "/app%2f", ASKS_PUT, "400", &[]),
];

#[test]
fn every_field_is_what_the_route_says() {
    let up = opinionated();
    let mut model = model(&[up.address]);
    let mut down = model.upstreams[0].clone();
    down.name = "down".to_owned();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    down.endpoints = vec![model::Endpoint::tcp(nobody)];
    model.upstreams.push(down);
    let proxy = start(&routes(model));
    for (name, method, target, fields, expected_status, expected) in ROWS {
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: a.test\r\n{fields}connection: close\r\n\r\n");
        let (answer, _) = talk(&proxy, request.as_bytes());
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let is_about_origins =
            |line: &&str| line.starts_with("access-control-") || line.starts_with("vary: ");
        let mut found: Vec<&str> = head.lines().filter(is_about_origins).collect();
        found.sort_unstable();
        assert_eq!((status(&answer), found.as_slice()), (*expected_status, *expected), "{name}: {answer}");
    }
}
