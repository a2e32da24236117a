//! Routes that ask for what is in a body: it is read once, within bounds, and goes on as it came.

use std::io::Write;
use std::thread;
use std::time::Duration;

use gateway::model::{self, Action, BodyBounds, BodyTests, Forward, Pointer, Retry, RetryOn, Share, Test};

use crate::harness::*;
use crate::http2::{Client, full};

/// An upstream that says its name and the body that it was sent, chunks and all.
fn telling(name: &'static str) -> Upstream {
    upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = conn.body(length.map_or(0, |length| length.parse().unwrap()));
            if head.contains("transfer-encoding: chunked") {
                while !body.ends_with(b"\r\n\r\n") {
                    body.extend(conn.body(1));
                }
            }
            let text = format!("{name}: {}", String::from_utf8(body).unwrap());
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

const BOUNDS: BodyBounds = BodyBounds { max_bytes: 64, timeout: Duration::from_secs(5) };

/// Everything goes to `blue`, but bodies with this model to `green`.
fn by_model(blue: &Upstream, green: &Upstream, bounds: BodyBounds) -> model::Proxy {
    let mut model = model(&[blue.address]);
    let mut second = model.upstreams[0].clone();
    second.name = "green".to_owned();
    second.endpoints = vec![model::Endpoint::tcp(green.address)];
    model.upstreams.push(second);
    let mut route = model.routes[0].clone();
    route.name = "by-model".to_owned();
    let shares = vec![Share { upstream: 1, weight: 1 }];
    route.action =
        Action::Forward(Forward { shares, sticky: None, mirrors: Vec::new(), host: None, path: None });
    let fields = vec![(Pointer::new("/model").unwrap(), Test::Is("gpt-4".to_owned()))];
    route.matches.conditions.body = Some(BodyTests { bounds, fields });
    model.routes.push(route);
    model
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n{body}")
}

fn json(body: &str) -> String {
    post(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()), body)
}

fn chunked(body: &str) -> String {
    post("content-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n", body)
}

#[test]
fn a_request_goes_where_its_body_says_and_the_body_goes_with_it() {
    let (blue, green) = (telling("blue"), telling("green"));
    let proxy = start(&by_model(&blue, &green, BOUNDS));
    // Over one connection: what was read leaves it in order.
    let mut client = connect(&proxy);
    let body = r#"{ "model":"gpt-4" , "x":1}"#;
    let other = r#"{"model":"gpt-5"}"#;
    let labelled = |media_type: &str| {
        post(&format!("content-type: {media_type}\r\ncontent-length: {}\r\n", body.len()), body)
    };
    let unlabelled = post(&format!("content-length: {}\r\n", body.len()), body);
    let pieces = "5\r\n{\"mod\r\n10\r\nel\": \"gpt-4\"   }\r\n0\r\n";
    for (name, request, expected) in [
        ("this model", json(body), format!("green: {body}")),
        ("another model", json(other), format!("blue: {other}")),
        ("a media type built on JSON", labelled("application/vnd.acme+json"), format!("green: {body}")),
        ("no media type", unlabelled, format!("green: {body}")),
        ("not JSON by its media type", labelled("text/plain"), format!("blue: {body}")),
        ("no body", post("content-type: application/json\r\n", ""), "blue: ".to_owned()),
        ("an empty body", json(""), "blue: ".to_owned()),
        (
            "in chunks",
            chunked(&format!("{pieces}\r\n")),
            "green: 15\r\n{\"model\": \"gpt-4\"   }\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "with trailers",
            chunked(&format!("{pieces}x-sum: 7\r\nx-forwarded-for: 1.2.3.4\r\n\r\n")),
            "green: 15\r\n{\"model\": \"gpt-4\"   }\r\n0\r\nx-sum: 7\r\n\r\n".to_owned(),
        ),
        ("no chunk at all", chunked("0\r\n\r\n"), "blue: 0\r\n\r\n".to_owned()),
        ("as large as may be", json(&format!("{body:<64}")), format!("green: {body:<64}")),
    ] {
        client.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut client);
        assert_eq!(answer.split_once("\r\n\r\n").map(|(_, body)| body), Some(expected.as_str()), "{name}");
    }
}

#[test]
fn what_cannot_be_read_does_not_choose_its_route() {
    let (blue, green) = (telling("blue"), telling("green"));
    let proxy = start(&by_model(&blue, &green, BOUNDS));
    let large = format!("{:<65}", r#"{"model":"gpt-5"}"#);
    let labelled = |fields: &str| {
        post(&format!("{fields}content-type: application/json\r\ncontent-length: 2\r\n"), "{}")
    };
    for (name, request, status_is, code) in [
        ("too large", json(&large), "413", "body_too_large"),
        ("too large in chunks", chunked(&format!("41\r\n{large}\r\n0\r\n\r\n")), "413", "body_too_large"),
        ("no JSON", json("{model:1}"), "400", "body_unreadable"),
        ("a name twice", json(r#"{"model":"gpt-5","model":"gpt-4"}"#), "400", "body_unreadable"),
        ("a name in another case", json(r#"{"Model":"gpt-4"}"#), "400", "body_unreadable"),
        ("compressed", labelled("content-encoding: gzip\r\n"), "415", "body_coding"),
        ("two media types", labelled("content-type: text/plain\r\n"), "400", "body_unreadable"),
        ("broken chunks", chunked("2\r\n{}\r\nxx\r\n"), "400", "bad_request"),
    ] {
        let (answer, _) = talk(&proxy, request.as_bytes());
        assert_eq!(status(&answer), status_is, "{name}: {answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{name}: {answer}");
    }
    let accepted = |upstream: &Upstream| upstream.accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((accepted(&blue), accepted(&green)), (0, 0));
}

#[test]
fn a_body_that_does_not_arrive_is_not_waited_for() {
    let (blue, green) = (telling("blue"), telling("green"));
    let bounds = BodyBounds { timeout: Duration::from_millis(100), ..BOUNDS };
    let proxy = start(&by_model(&blue, &green, bounds));
    let mut client = connect(&proxy);
    let begin = "content-type: application/json\r\ncontent-length: 9\r\n";
    client.write_all(post(begin, "{\"a").as_bytes()).unwrap();
    let (answer, closed) = read_rest(&mut client, LONG);
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(closed && answer.contains("\"code\":\"body_timeout\""), "{answer}");
}

#[test]
fn a_body_that_was_read_goes_to_the_endpoint_that_takes_it() {
    let (blue, green) = (telling("blue"), telling("green"));
    let mut model = by_model(&blue, &green, BOUNDS);
    // Nobody listens at the first of them.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    model.upstreams[1].endpoints.insert(0, model::Endpoint::tcp(gone));
    model.upstreams[1].retry = Some(Retry {
        attempts: 2,
        on: RetryOn { connect: true, ..RetryOn::default() },
        budget: 100,
        min_concurrent: 3,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        per_try_timeout: None,
        hedge_after: None,
    });
    let proxy = start(&model);
    let body = r#"{"model":"gpt-4"}"#;
    for _ in 0..4 {
        let answer = talk(&proxy, json(body).as_bytes()).0;
        assert!(answer.ends_with(&format!("green: {body}")), "{answer}");
    }
}

#[test]
fn a_stream_goes_where_its_body_says() {
    let (blue, green) = (telling("blue"), telling("green"));
    let proxy = start(&by_model(&blue, &green, BOUNDS));
    let client = Client::new(&proxy);
    let post = |body: &str| {
        let request = http::Request::post("http://a.test/").header("content-type", "application/json");
        client.answer(request.body(full(body.to_owned())).unwrap())
    };
    let body = r#"{"model":"gpt-4"}"#;
    assert_eq!(post(body).2, format!("green: {body}"));
    assert_eq!(post("{}").2, "blue: {}");
    // One that is too large ends its stream, and no other.
    assert_eq!(post(&" ".repeat(65)).0, http::StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post(body).2, format!("green: {body}"));
}

#[test]
fn an_upload_that_nobody_asks_about_is_not_held_up() {
    let (upstream, heads) = reporting();
    let other = telling("green");
    let mut model = by_model(&upstream, &other, BOUNDS);
    model.routes[1].matches.path = model::PathPattern::Exact("/chat".to_owned());
    let proxy = start(&model);
    let mut client = connect(&proxy);
    client.write_all(post("content-type: application/json\r\ncontent-length: 9\r\n", "").as_bytes()).unwrap();
    // The head is with the upstream before a byte of the body is here.
    assert!(heads.recv_timeout(LONG).unwrap().starts_with("POST / "));
    thread::sleep(Duration::from_millis(1));
    client.write_all(b"{\"a\": 12}").unwrap();
}

#[test]
fn an_explanation_takes_a_body() {
    use gateway::proxy::{Asked, explain};
    let up = telling("blue");
    let model = by_model(&up, &up, BOUNDS);
    let large = format!("{:<65}", "{}");
    for (name, body, route, outcome, why) in [
        (
            "this model",
            r#"{"model":"gpt-4"}"#,
            Some("by-model"),
            "sent to the upstream green",
            "takes the request",
        ),
        (
            "another",
            r#"{"model":"gpt-5"}"#,
            Some("all"),
            "sent to the upstream up",
            "asks for something else: body: /model",
        ),
        ("none", "", Some("all"), "sent to the upstream up", "asks for something else: body"),
        (
            "too large",
            &large,
            None,
            "413: The request is routed by its body, which is too large.",
            "asks for something else: body",
        ),
        (
            "no JSON",
            "model=gpt-4",
            None,
            "400: The body says that it is JSON, and is not.",
            "asks for something else: body: The body says that it is JSON, and is not.",
        ),
    ] {
        let request = http::Request::post("/x").header("host", "a.test").body(()).unwrap();
        let (body, client) = (body.as_bytes().to_vec(), [127, 0, 0, 1].into());
        let found =
            explain(&model, Asked { request, body, client, listener: None, server_name: None }).unwrap();
        assert_eq!((found.route.as_deref(), found.outcome.as_str()), (route, outcome), "{name}");
        let candidate = found.candidates.iter().find(|candidate| candidate.route == "by-model").unwrap();
        assert_eq!(candidate.why, why, "{name}");
    }
}
