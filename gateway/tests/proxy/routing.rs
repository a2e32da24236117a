//! Routes over the wire: what they ask of a request, and what they do with it.

use gateway::model::{
    self, Action, Conditions, FixedAnswer, Forward, HostPattern, PathChange, PathPattern, Piece, Redirect,
    Segment, Share, Sticky, Template, Test,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::harness::*;

/// An upstream that says its name and what it was asked.
fn telling(name: &'static str) -> Upstream {
    upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            let text = format!("{name}: {head}");
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

fn to(upstream: usize) -> Action {
    shared(&[(upstream, 1)], None)
}

fn shared(shares: &[(usize, u32)], sticky: Option<Sticky>) -> Action {
    let shares = shares.iter().map(|&(upstream, weight)| Share { upstream, weight }).collect();
    Action::Forward(Forward { shares, sticky, host: None, path: None, mirrors: Vec::new() })
}

fn route(name: &str, path: PathPattern, conditions: Conditions, action: Action) -> model::Route {
    let matches = model::RouteMatch { hosts: Vec::new(), path, methods: Vec::new(), conditions };
    model::Route {
        name: name.to_owned(),
        matches,
        action,
        upgrades: Vec::new(),
        request_headers: None,
        response_headers: None,
        cors: None,
        deprecated: None,
    }
}

fn below(path: &str) -> PathPattern {
    PathPattern::Prefix(path.to_owned())
}

fn anything() -> Conditions {
    Conditions::default()
}

/// Two upstreams, `blue` and `green`, and these routes.
fn two(blue: &Upstream, green: &Upstream, routes: Vec<model::Route>) -> model::Proxy {
    let mut model = model(&[blue.address]);
    let mut second = model.upstreams[0].clone();
    second.name = "green".to_owned();
    second.endpoints = vec![model::Endpoint::tcp(green.address)];
    model.upstreams.push(second);
    model.routes = routes;
    model
}

fn asked(proxy: &gateway::proxy::Proxy, target: &str, fields: &str) -> String {
    talk(
        proxy,
        format!("GET {target} HTTP/1.1\r\nhost: a.test:8080\r\n{fields}connection: close\r\n\r\n").as_bytes(),
    )
    .0
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn a_request_goes_where_its_fields_say() {
    let (blue, green) = (telling("blue"), telling("green"));
    let header = |name: &'static str, value: &str| Conditions {
        headers: vec![(HeaderName::from_static(name), Test::Is(value.to_owned()))],
        ..anything()
    };
    let query = Conditions { query: vec![("v".to_owned(), Test::Is("2".to_owned()))], ..anything() };
    let cookie =
        Conditions { cookies: vec![("group".to_owned(), Test::Is("beta".to_owned()))], ..anything() };
    let source = Conditions { sources: vec!["198.51.100.0/24".parse().unwrap()], ..anything() };
    let mut model = two(
        &blue,
        &green,
        vec![
            route("all", below(""), anything(), to(0)),
            route("header", below(""), header("x-version", "2"), to(1)),
            route("query", below(""), query, to(1)),
            route("cookie", below(""), cookie, to(1)),
            route("source", below(""), source, to(1)),
        ],
    );
    model.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let proxy = start(&model);
    for (name, target, fields, expected) in [
        ("nothing", "/", "", "blue"),
        ("a header", "/", "X-Version: 2\r\n", "green"),
        ("another value", "/", "x-version: 3\r\n", "blue"),
        ("a parameter", "/x?a=1&v=2", "", "green"),
        ("a cookie", "/", "cookie: a=b; group=beta\r\n", "green"),
        ("a client behind a proxy", "/", "x-forwarded-for: 198.51.100.9\r\n", "green"),
        ("another client", "/", "x-forwarded-for: 198.51.101.9\r\n", "blue"),
    ] {
        let answer = asked(&proxy, target, fields);
        assert!(body(&answer).starts_with(expected), "{name}: {answer}");
    }
}

#[test]
fn an_upstream_sees_the_path_and_host_that_its_route_gives_it() {
    let (blue, green) = (telling("blue"), telling("green"));
    let segments = vec![Segment::Literal("users".to_owned()), Segment::Parameter("id".to_owned())];
    let forward = |host: Option<&'static str>, path| {
        let host = host.map(HeaderValue::from_static);
        Action::Forward(Forward {
            shares: vec![Share { upstream: 0, weight: 1 }],
            sticky: None,
            host,
            path: Some(path),
            mirrors: Vec::new(),
        })
    };
    let whole = vec![Piece::Text("/u/".to_owned()), Piece::Parameter(0)];
    let proxy = start(&two(
        &blue,
        &green,
        vec![
            route("api", below("/api"), anything(), forward(None, PathChange::Prefix(String::new()))),
            route(
                "user",
                PathPattern::Template(Template { segments, below: false }),
                anything(),
                forward(Some("users.internal"), PathChange::Whole(whole)),
            ),
        ],
    ));
    for (target, line, host) in [
        ("/api/v1/a?b=c", "GET /v1/a?b=c HTTP/1.1", "a.test:8080"),
        ("/api", "GET / HTTP/1.1", "a.test:8080"),
        ("/users/7?x", "GET /u/7?x HTTP/1.1", "users.internal"),
    ] {
        let answer = asked(&proxy, target, "");
        let head = body(&answer);
        assert!(head.starts_with(&format!("blue: {line}\r\n")), "{target}: {head}");
        assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{target}: {head}");
        assert!(head.contains("\r\nx-forwarded-host: a.test:8080\r\n"), "{target}: {head}");
    }
}

#[test]
fn the_gateway_answers_where_a_route_says_so() {
    let up = telling("blue");
    let redirect = Redirect {
        is_secure: Some(true),
        host: None,
        port: None,
        path: Some(PathChange::Prefix("/new".to_owned())),
        status: StatusCode::PERMANENT_REDIRECT,
    };
    let fixed = FixedAnswer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        body: "back soon".into(),
        content_type: HeaderValue::from_static("text/plain"),
    };
    let proxy = start(&two(
        &up,
        &up,
        vec![
            route("old", below("/old"), anything(), Action::Redirect(redirect)),
            route("closed", below("/closed"), anything(), Action::Respond(fixed)),
        ],
    ));
    let answer = asked(&proxy, "/old/a?b", "");
    assert_eq!(status(&answer), "308");
    assert!(answer.contains("\r\nlocation: https://a.test/new/a?b\r\n"), "{answer}");
    let answer = asked(&proxy, "/closed", "");
    assert_eq!((status(&answer), body(&answer)), ("503", "back soon"));
    assert!(answer.contains("\r\ncontent-type: text/plain\r\n"), "{answer}");
    // A body that nobody read ends the connection; without one it goes on.
    let pipelined = "GET /closed HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2);
    assert_eq!(talk(&proxy, pipelined.as_bytes()).0.matches("HTTP/1.1 503").count(), 2);
    let posted = b"POST /closed HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let (answer, closed) = talk(&proxy, posted);
    assert!(closed && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(up.accepted.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn a_split_keeps_its_clients() {
    let (blue, green) = (telling("blue"), telling("green"));
    let by_cookie = Some(Sticky::Cookie("side".to_owned()));
    let by_header = Some(Sticky::Header(HeaderName::from_static("x-user")));
    let proxy = start(&two(
        &blue,
        &green,
        vec![
            route("cookie", below("/c"), anything(), shared(&[(0, 1), (1, 1)], by_cookie)),
            route("header", below("/h"), anything(), shared(&[(0, 1), (1, 1)], by_header)),
            route("canary", below("/w"), anything(), shared(&[(0, 0), (1, 5)], None)),
        ],
    ));
    let side = |answer: &str| body(answer).split(':').next().unwrap_or_default().to_owned();
    let first = asked(&proxy, "/c", "");
    let cookie = first.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..20 {
        let again = asked(&proxy, "/c", &format!("cookie: x=y; {pair}\r\n"));
        assert_eq!(side(&again), side(&first));
        assert!(!again.contains("set-cookie"), "{again}");
    }
    let users: Vec<String> =
        (0..40).map(|user| side(&asked(&proxy, "/h", &format!("x-user: {user}\r\n")))).collect();
    let again: Vec<String> =
        (0..40).map(|user| side(&asked(&proxy, "/h", &format!("x-user: {user}\r\n")))).collect();
    assert_eq!(users, again);
    assert!(users.iter().any(|side| side == "blue") && users.iter().any(|side| side == "green"));
    assert!((0..20).all(|_| side(&asked(&proxy, "/w", "")) == "green"));
}

#[test]
fn routes_may_ask_for_a_listener() {
    let (blue, green) = (telling("blue"), telling("green"));
    let by = |index| Conditions { listeners: vec![index], ..anything() };
    let mut model = two(
        &blue,
        &green,
        vec![route("one", below(""), by(0), to(0)), route("two", below(""), by(1), to(1))],
    );
    let mut second = model.listeners[0].clone();
    second.name = "second".to_owned();
    second.address = "127.0.0.2:0".parse().unwrap();
    model.listeners.push(second);
    model.routes[1].matches.hosts = vec![HostPattern::Exact("a.test".to_owned())];
    let proxy = start(&model);
    for (index, expected) in [(0, "blue"), (1, "green")] {
        let mut stream = std::net::TcpStream::connect(proxy.status().listeners[index].address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert!(body(&get(&mut stream)).starts_with(expected));
    }
}

#[test]
fn an_explanation_names_the_route_and_why_not_the_others() {
    use gateway::proxy::{Asked, explain};
    let up = telling("blue");
    let beta = Conditions {
        headers: vec![(HeaderName::from_static("x-beta"), Test::Is("yes".to_owned()))],
        ..anything()
    };
    let mut model = two(
        &up,
        &up,
        vec![
            route("all", below(""), anything(), to(0)),
            route("users", below("/users"), anything(), shared(&[(0, 3), (1, 1)], None)),
            route("beta", below("/users"), beta, to(1)),
            route("new", PathPattern::Exact("/users/new".to_owned()), anything(), to(1)),
            route("other", below("/other"), anything(), to(1)),
        ],
    );
    model.routes[3].matches.methods = vec![http::Method::PUT];
    let ask = |method: &str, target: &str, beta: &str| {
        let request = http::Request::builder().method(method).uri(target).header("host", "a.test");
        let request = request.header("x-beta", beta).body(()).unwrap();
        explain(
            &model,
            Asked {
                request,
                body: Vec::new(),
                client: [127, 0, 0, 1].into(),
                listener: None,
                server_name: None,
            },
        )
    };
    let found = ask("GET", "http://a.test/users/./new?x", "no").unwrap();
    assert_eq!((found.host.as_deref(), found.path.as_str()), (Some("a.test"), "/users/new"));
    assert_eq!(found.route.as_deref(), Some("users"));
    assert_eq!(found.outcome, "shared by up (75.0 %), green (25.0 %)");
    let why: Vec<_> =
        found.candidates.iter().map(|c| (c.route.as_str(), c.path.as_str(), c.why.as_str())).collect();
    assert_eq!(
        why,
        [
            ("users", "/users/**", "takes the request"),
            ("all", "/**", "matches, and is less specific"),
            ("beta", "/users/**", "asks for something else: headers: x-beta"),
            ("new", "/users/new", "does not take GET, only PUT"),
        ]
    );
    assert_eq!(found.others, 1);
    assert_eq!(ask("GET", "/users", "yes").unwrap().route.as_deref(), Some("beta"));
    assert_eq!(ask("PUT", "/users/new", "yes").unwrap().route.as_deref(), Some("new"));
    model.routes.remove(0);
    let request = http::Request::get("/x").header("host", "a.test").body(()).unwrap();
    let asked =
        Asked { request, body: Vec::new(), client: [127, 0, 0, 1].into(), listener: None, server_name: None };
    assert_eq!(explain(&model, asked).unwrap().outcome, "404: no route matches");
    let request = http::Request::get("/a%2fb").header("host", "a.test").body(()).unwrap();
    let asked =
        Asked { request, body: Vec::new(), client: [127, 0, 0, 1].into(), listener: None, server_name: None };
    assert!(explain(&model, asked).unwrap_err().starts_with("it is refused with 400: "));
}
