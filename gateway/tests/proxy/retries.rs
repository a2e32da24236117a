//! Requests that are sent once more, those that are not, and how long all of it may take.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway::model::{self, Protocol, Retry, RetryOn};
use http::Response;
use http_body_util::{BodyExt as _, Full};

use crate::harness::*;
use crate::http2_upstreams::server;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LATE: &str = "HTTP/1.1 503 Oh\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nlate";
const UNAVAILABLE: &str = "HTTP/1.1 503 Oh\r\ncontent-length: 4\r\n\r\nsick";

fn policy() -> Retry {
    Retry {
        attempts: 1,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses: vec![502..=504] },
        budget: 20,
        min_concurrent: 3,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        per_try_timeout: None,
        hedge_after: None,
    }
}

fn retrying(endpoints: &[SocketAddr], policy: Retry) -> model::Proxy {
    let mut model = model(endpoints);
    model.upstreams[0].retry = Some(policy);
    model
}

/// A server whose nth request, over all connections, is answered by the nth of these; the last one goes on. One that is
/// empty closes, `hang` says nothing until the gateway goes away.
fn scripted(answers: &'static [&'static str]) -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upstream = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("POST") {
                conn.body(3);
            }
            match answers[count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)] {
                "" => return,
                "hang" => {
                    conn.is_closed();
                    return;
                }
                answer => conn.send(answer),
            }
        }
    });
    (upstream, asked)
}

#[test]
fn what_may_be_sent_twice_is() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    type Case = (&'static str, &'static str, &'static [&'static str], &'static str, usize);
    let cases: [Case; 11] = [
        ("a bad answer", get, &[UNAVAILABLE, OK], "200", 2),
        ("a connection that ends", get, &["", OK], "200", 2),
        ("half an answer's head", get, &["HTTP/1.1 200", OK], "200", 2),
        ("no answer in time", get, &["hang", OK], "200", 2),
        ("without a body", put, &[UNAVAILABLE, OK], "200", 2),
        ("a good answer", get, &[OK], "200", 1),
        ("a status that nobody named", get, &["HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", OK], "500", 1),
        ("not more often than allowed", get, &[UNAVAILABLE], "503", 2),
        ("not what has effects: an answer", post, &[UNAVAILABLE, OK], "503", 1),
        ("not what has effects: none", post, &["", OK], "502", 1),
        ("not what wants to be left alone", get, &[LATE, OK], "503", 1),
    ];
    for (name, request, answers, expected, times) in cases {
        let (up, asked) = scripted(answers);
        let mut policy = policy();
        if answers[0].starts_with("HTTP/1.1 200") || answers[0] == "hang" {
            policy.per_try_timeout = Some(Duration::from_millis(200));
        }
        let proxy = start(&retrying(&[up.address], policy));
        let mut stream = connect(&proxy);
        stream.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut stream);
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{name}");
    }
}

#[test]
fn without_a_policy_nothing_is_sent_twice() {
    for (answers, expected) in [(&[UNAVAILABLE, OK][..], "503"), (&["", OK], "502")] {
        let (up, asked) = scripted(answers);
        let proxy = start(&model(&[up.address]));
        assert_eq!(status(&get(&mut connect(&proxy))), expected);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn another_endpoint_is_asked() {
    let ((bad, _), (good, _)) = (scripted(&[UNAVAILABLE]), scripted(&[OK]));
    let mut model = retrying(&[bad.address, good.address], policy());
    // By turns alone, it would be the bad one's again.
    model.upstreams[0].endpoints[0].weight = 100;
    let proxy = start(&model);
    let mut stream = connect(&proxy);
    for _ in 0..10 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
}

#[test]
fn whoever_was_not_connected_to_is_asked_again_whatever_the_request() {
    // Nobody listens at first: the address is free until a server takes it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut policy = policy();
    (policy.attempts, policy.backoff_base, policy.backoff_max) =
        (10, Duration::from_millis(200), Duration::from_secs(1));
    let proxy = start(&retrying(&[address], policy));
    let mut stream = connect(&proxy);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").unwrap();
    eventually("a first attempt", || proxy.status().endpoints[0].last_error.is_some());
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let (mut server, _) = listener.accept().unwrap();
        let mut read = Vec::new();
        let mut buffer = [0; 1024];
        while !read.ends_with(b"abc") {
            let count = std::io::Read::read(&mut server, &mut buffer).unwrap();
            read.extend_from_slice(&buffer[..count]);
        }
        server.write_all(OK.as_bytes()).unwrap();
    });
    assert_eq!(status(&response(&mut stream)), "200");
}

#[test]
fn retries_stay_within_their_budget() {
    let (up, asked) = scripted(&[UNAVAILABLE]);
    let none = Retry { budget: 0, min_concurrent: 0, ..policy() };
    let proxy = start(&retrying(&[up.address], none));
    let mut stream = connect(&proxy);
    for _ in 0..5 {
        assert_eq!(status(&get(&mut stream)), "503");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    // What was spent comes back with the end of each request.
    let one = Retry { budget: 0, min_concurrent: 1, ..policy() };
    proxy.reload(&retrying(&[up.address], one)).unwrap();
    for _ in 0..5 {
        assert_eq!(status(&get(&mut stream)), "503");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 15);
}

#[test]
fn requests_over_http2_are_sent_again_too() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let up = server(move |_| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let response = Response::builder().status(if turn.is_multiple_of(2) { 503 } else { 200 });
            response.body(Full::from("x").boxed_unsync()).unwrap()
        }
    });
    let mut model = retrying(&[up.address], policy());
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut stream = connect(&proxy);
    for _ in 0..4 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 8);
}

#[test]
fn a_request_has_its_time_over_all_attempts() {
    let (up, _) = scripted(&["hang"]);
    let mut policy = policy();
    (policy.attempts, policy.per_try_timeout) = (10, Some(Duration::from_millis(100)));
    let mut model = retrying(&[up.address], policy);
    model.upstreams[0].request_timeout = Some(Duration::from_millis(250));
    let proxy = start(&model);
    let mut stream = connect(&proxy);
    let begun = Instant::now();
    let answer = get(&mut stream);
    assert_eq!(status(&answer), "504", "{answer}");
    assert!(answer.contains("upstream_timeout"), "{answer}");
    let accepted = up.accepted.load(Ordering::SeqCst);
    assert!(begun.elapsed() >= Duration::from_millis(250) && accepted >= 2, "{accepted} attempts");
    // The client's connection lives on.
    assert_eq!(status(&get(&mut stream)), "504");
}
