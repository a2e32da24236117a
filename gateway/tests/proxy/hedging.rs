//! A second endpoint that is asked when the first has not answered for a while.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway::model::{self, AccessLog, LogFormat, LogTarget, Protocol, Retry, RetryOn};
use http::Response;
use http_body_util::{BodyExt as _, Full};

use crate::harness::*;
use crate::http2_upstreams::server;

/// So much later than [`AFTER`] that nobody takes one for the other.
const LATE: Duration = Duration::from_millis(900);
const AFTER: Duration = Duration::from_millis(200);

fn policy() -> Retry {
    Retry {
        attempts: 1,
        on: RetryOn { statuses: vec![503..=503], ..RetryOn::default() },
        budget: 20,
        min_concurrent: 3,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        per_try_timeout: None,
        hedge_after: Some(AFTER),
    }
}

/// Requests go to the first of these; the others are there for hedges.
fn hedging(endpoints: &[SocketAddr], policy: Retry) -> model::Proxy {
    let mut model = model(endpoints);
    model.upstreams[0].endpoints[0].weight = 1000;
    model.upstreams[0].retry = Some(policy);
    model
}

/// An endpoint that after a while answers this, closes, refuses or goes on saying nothing.
fn answering(after: Duration, what: &'static str) -> Upstream {
    upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            conn.body(length.map_or(0, |length| length.parse().unwrap()));
            std::thread::sleep(after);
            match what {
                "close" => return,
                "hang" => {
                    conn.is_closed();
                    return;
                }
                "sick" => conn.send("HTTP/1.1 503 Oh\r\ncontent-length: 4\r\n\r\nsick"),
                body => {
                    conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
                }
            }
        }
    })
}

#[test]
fn the_answer_that_comes_first_is_taken() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let (now, late) = (Duration::ZERO, LATE);
    let spent = Retry { budget: 0, min_concurrent: 0, ..policy() };
    let never = Retry { hedge_after: None, ..policy() };
    type Server = (Duration, &'static str);
    type Case = (&'static str, &'static str, Retry, Server, Server, &'static str, usize, &'static str, u32);
    // What is asked, of whom, and: the answer, how many the second one was asked, what the access log says.
    let cases: [Case; 11] = [
        ("a fast one", get, policy(), (now, "first"), (now, "second"), "first", 0, "ok", 1),
        ("a slow one", get, policy(), (late, "first"), (now, "second"), "second", 1, "hedged", 2),
        ("one that hangs", get, policy(), (now, "hang"), (now, "second"), "second", 1, "hedged", 2),
        ("a slower hedge", get, policy(), (late, "first"), (2 * late, "second"), "first", 1, "ok", 2),
        ("a hedge that refuses", get, policy(), (late, "first"), (now, "sick"), "first", 1, "ok", 2),
        ("a hedge that closes", get, policy(), (late, "first"), (now, "close"), "first", 1, "ok", 2),
        ("a late refusal", get, policy(), (late, "sick"), (2 * late, "second"), "second", 1, "hedged", 2),
        ("a late end", get, policy(), (late, "close"), (2 * late, "second"), "second", 1, "hedged", 2),
        ("what has effects", post, policy(), (late, "first"), (now, "second"), "first", 0, "ok", 1),
        ("no budget", get, spent, (late, "first"), (now, "second"), "first", 0, "ok", 1),
        ("no hedge", get, never, (late, "first"), (now, "second"), "first", 0, "ok", 1),
    ];
    for (name, request, policy, first, second, expected, asked, why, attempts) in cases {
        let (one, other) = (answering(first.0, first.1), answering(second.0, second.1));
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("access.log");
        let mut model = hedging(&[one.address, other.address], policy);
        model.access_log = Some(AccessLog {
            to: LogTarget::File(path.clone()),
            format: LogFormat::Json,
            sample: 1_000_000,
            queue: 100,
        });
        let proxy = start(&model);
        let mut client = connect(&proxy);
        client.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut client);
        assert!(answer.ends_with(expected), "{name}: {answer}");
        assert_eq!(other.accepted.load(Ordering::SeqCst), asked, "{name}");
        let line = || std::fs::read_to_string(&path).ok().filter(|line| line.ends_with('\n'));
        eventually(name, || line().is_some());
        let line: serde_json::Value = serde_json::from_str(&line().unwrap()).unwrap();
        let endpoint = if why == "hedged" { other.address } else { one.address };
        assert_eq!((&line["why"], &line["attempts"]), (&why.into(), &attempts.into()), "{name}: {line}");
        assert_eq!(line["endpoint"], endpoint.to_string(), "{name}: {line}");
    }
}

#[test]
fn nobody_else_is_nobody_to_ask() {
    let alone = answering(LATE, "alone");
    let proxy = start(&hedging(&[alone.address], policy()));
    assert!(get(&mut connect(&proxy)).ends_with("alone"));
    assert_eq!(alone.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn who_is_not_waited_for_any_more_is_told() {
    let (closed, was_closed) = mpsc::channel();
    let slow = upstream(move |mut conn| {
        conn.head();
        let _ = closed.send(conn.is_closed());
    });
    let fast = answering(Duration::ZERO, "fast");
    count("");
    let mut model = hedging(&[slow.address, fast.address], policy());
    model.upstreams[0].name = "hedged".to_owned();
    let proxy = start(&model);
    let mut client = connect(&proxy);
    assert!(get(&mut client).ends_with("fast"));
    assert_eq!(was_closed.recv_timeout(LONG), Ok(true));
    eventually("it is not counted", || {
        count("gateway_upstream_retries_total{upstream=\"hedged\",reason=\"hedge\"}") == 1
    });
    let in_use = || proxy.status().endpoints.iter().map(|endpoint| endpoint.in_use).sum::<usize>();
    eventually("a request stays", || in_use() == 0);
}

#[test]
fn each_attempt_has_its_time() {
    for (name, timeout, first, second, expected) in [
        // The first one's time is over while the hedge's is not.
        ("the hedge answers", 1000, "hang", (LATE * 3 / 4, "second"), "200"),
        ("nobody does", 1000, "hang", (Duration::ZERO, "hang"), "504"),
    ] {
        let (one, other) = (answering(Duration::ZERO, first), answering(second.0, second.1));
        let mut policy = policy();
        policy.hedge_after = Some(Duration::from_millis(500));
        let mut model = hedging(&[one.address, other.address], policy);
        model.upstreams[0].response_timeout = Duration::from_millis(timeout);
        let proxy = start(&model);
        let mut client = connect(&proxy);
        let begun = Instant::now();
        let answer = get(&mut client);
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        assert!(begun.elapsed() >= Duration::from_millis(1000), "{name}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < LONG / 2, "{name}: {:?}", begun.elapsed());
        // The client's connection lives on.
        assert_eq!(status(&get(&mut client)), expected, "{name}, again");
    }
}

#[test]
fn hedges_go_over_http2_too() {
    let slow = server(|_| async {
        tokio::time::sleep(LATE).await;
        Response::new(Full::from("slow").boxed_unsync())
    });
    let fast = server(|_| async { Response::new(Full::from("fast").boxed_unsync()) });
    let mut model = hedging(&[slow.address, fast.address], policy());
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut client = connect(&proxy);
    for _ in 0..3 {
        assert!(get(&mut client).ends_with("fast"));
    }
}
