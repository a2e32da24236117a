//! Header changes and CORS over the wire.

use std::time::Duration;

use gateway::model::{
    Action, Cors, Deprecation, FieldPart, FieldTemplate, FixedAnswer, HeaderChanges, OriginPattern, Variable,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::harness::*;

fn fixed(text: &'static str) -> FieldTemplate {
    FieldTemplate::Fixed(HeaderValue::from_static(text))
}

const fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

#[test]
fn both_sides_see_what_the_route_makes_of_fields() {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            conn.send(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nserver: secret\r\nx-a: 1\r\n\r\n{head}",
                head.len()
            ));
        }
    });
    let mut model = model(&[up.address]);
    let made = vec![
        FieldPart::Variable(Variable::ClientIp),
        FieldPart::Text(" via ".to_owned()),
        FieldPart::Variable(Variable::Route),
    ];
    model.routes[0].request_headers = Some(HeaderChanges {
        remove: vec![name("x-internal")],
        set: vec![(name("x-who"), FieldTemplate::Made(made)), (name("authorization"), fixed("Basic YTpi"))],
        add: vec![(name("x-a"), fixed("2"))],
        ..HeaderChanges::default()
    });
    let path = FieldTemplate::Made(vec![FieldPart::Variable(Variable::Path)]);
    model.routes[0].response_headers = Some(HeaderChanges {
        remove: vec![name("server")],
        set: vec![(name("x-path"), path), (name("strict-transport-security"), fixed("max-age=1"))],
        add: vec![(name("x-a"), fixed("2"))],
        ..HeaderChanges::default()
    });
    let proxy = start(&model);
    let (answer, _) = talk(
        &proxy,
        b"GET /p/./q HTTP/1.1\r\nhost: a.test\r\nx-internal: 1\r\nx-who: me\r\nx-a: 1\r\nauthorization: mine\r\n\r\n",
    );
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
    for line in ["x-who: 127.0.0.1 via all", "authorization: Basic YTpi", "x-a: 1", "x-a: 2"] {
        assert_eq!(seen.lines().filter(|l| *l == line).count(), 1, "{line}: {seen}");
    }
    assert!(!seen.contains("x-internal") && !seen.contains("mine") && !seen.contains("x-who: me"), "{seen}");
    for line in ["x-path: /p/q", "strict-transport-security: max-age=1", "x-a: 1", "x-a: 2"] {
        assert_eq!(head.lines().filter(|l| *l == line).count(), 1, "{line}: {head}");
    }
    assert!(!head.contains("secret"), "{head}");
    // The gateway's own answers of the route have them as well, its problems have not.
    model.routes[0].action = Action::Respond(FixedAnswer {
        status: StatusCode::OK,
        body: "hello".into(),
        content_type: HeaderValue::from_static("text/plain"),
    });
    proxy.reload(&model).unwrap();
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(answer.contains("\r\nx-path: /\r\n"), "{answer}");
    let (answer, _) = talk(&proxy, b"GET /a%2fb HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(status(&answer) == "400" && !answer.contains("x-path"), "{answer}");
}

#[test]
fn pages_of_other_origins_may_what_the_route_says() {
    let (up, heads) = reporting();
    let mut model = model(&[up.address]);
    model.routes[0].matches.methods = vec![Method::PUT];
    model.routes[0].cors = Some(Cors {
        origins: vec![OriginPattern::Wildcard("https://".to_owned(), ".app.test".to_owned())],
        methods: vec![Method::PUT],
        headers: Vec::new(),
        expose: Vec::new(),
        credentials: true,
        max_age: Duration::from_secs(60),
    });
    let proxy = start(&model);
    let ask = |method: &str, origin: &str, more: &str| {
        let request = format!(
            "{method} / HTTP/1.1\r\nhost: a.test\r\norigin: {origin}\r\n{more}content-length: 0\r\n\r\n"
        );
        talk(&proxy, request.as_bytes()).0
    };
    let preflight = "access-control-request-method: PUT\r\naccess-control-request-headers: x-a\r\n";
    let allowed = ask("OPTIONS", "https://x.app.test", preflight);
    assert_eq!(status(&allowed), "204", "{allowed}");
    for line in [
        "access-control-allow-origin: https://x.app.test",
        "access-control-allow-methods: PUT",
        "access-control-allow-headers: x-a",
        "access-control-allow-credentials: true",
        "access-control-max-age: 60",
        "vary: origin",
    ] {
        assert!(allowed.contains(&format!("\r\n{line}\r\n")), "{line}: {allowed}");
    }
    let refused = ask("OPTIONS", "https://evil.test", preflight);
    assert_eq!(status(&refused), "403");
    assert!(refused.contains("cors_refused") && !refused.contains("access-control"), "{refused}");
    // Only the very request reaches the upstream, whoever asks: browsers keep the answer from those who may not.
    assert!(heads.try_recv().is_err());
    let answer = ask("PUT", "https://x.app.test", "");
    assert!(answer.contains("\r\naccess-control-allow-origin: https://x.app.test\r\n"), "{answer}");
    let answer = ask("PUT", "https://evil.test", "");
    assert!(status(&answer) == "200" && !answer.contains("access-control"), "{answer}");
    assert!(answer.contains("\r\nvary: origin\r\n"), "{answer}");
    assert_eq!(heads.try_iter().count(), 2);
    // OPTIONS that is no preflight is a request like any other.
    assert_eq!(status(&ask("OPTIONS", "https://x.app.test", "")), "405");
    // Pages may read the gateway's errors, too.
    model.upstreams[0].endpoints = vec![gateway::model::Endpoint::tcp(black_hole_address())];
    proxy.reload(&model).unwrap();
    let answer = ask("PUT", "https://x.app.test", "");
    assert_eq!(status(&answer), "502");
    assert!(answer.contains("\r\naccess-control-allow-origin: https://x.app.test\r\n"), "{answer}");
}

#[test]
fn errors_change_where_the_route_says_so() {
    let mut model = model(&[black_hole_address()]);
    model.listeners[0].request_ids = true;
    let made = FieldTemplate::Made(vec![FieldPart::Variable(Variable::RequestId)]);
    model.routes[0].response_headers =
        Some(HeaderChanges { set: vec![(name("x-name"), made)], ..HeaderChanges::default() });
    let proxy = start(&model);
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(status(&answer) == "502" && !answer.contains("x-name"), "{answer}");
    model.routes[0].response_headers.as_mut().unwrap().always_errors = true;
    proxy.reload(&model).unwrap();
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    assert_eq!(status(&answer), "502");
    assert!(field("x-name: ").is_some() && field("x-name: ") == field("x-request-id: "), "{answer}");
    // Nobody has named the request: what it calls itself is anybody's word.
    model.listeners[0].request_ids = false;
    proxy.reload(&model).unwrap();
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\nx-request-id: forged\r\n\r\n");
    assert!(status(&answer) == "502" && !answer.contains("forged"), "{answer}");
}

#[test]
fn answers_say_that_their_route_is_on_its_way_out() {
    let up = upstream(|mut conn| {
        while conn.head().is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndeprecation: @1\r\nlink: </a>; rel=\"next\"\r\n\r\n",
            );
        }
    });
    let mut model = model(&[up.address]);
    let time = |seconds| Some(time::OffsetDateTime::from_unix_timestamp(seconds).unwrap());
    let (since, sunset) = (time(1_767_225_600), time(1_798_761_599));
    model.routes[0].deprecated = Deprecation::new(since, sunset, Some("https://a.test/v2"), None);
    let proxy = start(&model);
    let check = |expected: &str, model: &gateway::model::Proxy| {
        proxy.reload(model).unwrap();
        let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert_eq!(status(&answer), expected, "{answer}");
        for line in [
            "deprecation: @1767225600",
            "sunset: Thu, 31 Dec 2026 23:59:59 GMT",
            "link: <https://a.test/v2>; rel=\"deprecation\"",
        ] {
            assert_eq!(answer.lines().filter(|l| *l == line).count(), 1, "{line}: {answer}");
        }
        answer
    };
    let answer = check("200", &model);
    assert!(!answer.contains("@1\r\n") && answer.contains("\r\nlink: </a>; rel=\"next\"\r\n"), "{answer}");
    model.upstreams[0].endpoints = vec![gateway::model::Endpoint::tcp(black_hole_address())];
    check("502", &model);
    model.routes[0].action = Action::Respond(FixedAnswer {
        status: StatusCode::GONE,
        body: "gone".into(),
        content_type: HeaderValue::from_static("text/plain"),
    });
    check("410", &model);
}

#[test]
fn a_trace_begins_where_none_comes() {
    let up = echo();
    let mut model = model(&[up.address]);
    let proxy = start(&model);
    let seen = |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n");
        let answer = talk(&proxy, request.as_bytes()).0;
        answer.lines().find_map(|line| line.strip_prefix("traceparent: ")).map(str::to_owned)
    };
    let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let fields = format!("traceparent: {known}\r\n");
    assert_eq!(seen(""), None);
    assert_eq!(seen("traceparent: x\r\n").as_deref(), Some("x"));
    model.listeners[0].begin_traces = Some(true);
    proxy.reload(&model).unwrap();
    assert_eq!(seen(&fields).as_deref(), Some(known));
    for fields in ["", "traceparent: x\r\n"] {
        let begun = seen(fields).unwrap();
        assert!(begun.len() == 55 && begun.ends_with("-01"), "{begun}");
    }
}

/// An address where nobody listens.
fn black_hole_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
