//! Requests that are wrong on purpose: refused, the connection closed, and nothing of them forwarded.

use std::time::{Duration, Instant};

use gateway_tests::{Agent, CLIENT_V4, Net, Setup, Upstream, require_root};

use crate::config;

/// A request that follows at once; if it is ever answered or forwarded, it was smuggled.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn an_ambiguous_request_is_refused_and_the_connection_closed() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    for (name, request) in [
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks and length",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
        (
            "a length beyond 64 bits",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        ),
        ("an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked, but not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"),
        ("bare LFs throughout", "GET / HTTP/1.1\nHost: a\n\n"),
        ("a bare CR in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n"),
        ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        ("a folded coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
        ("a space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("a NUL in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no request at all", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    ] {
        let before = upstream.requests().len();
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        connection.patience(Duration::from_secs(5));
        // The refusal may come, and the connection end, before all of it is written.
        let _ = connection.send(request);
        let _ = connection.send(SMUGGLED);
        let reply = connection.reply().unwrap_or_else(|error| panic!("{name}: no reply: {error}"));
        assert_eq!(reply.status(), 400, "{name}: {reply:?}");
        assert!(connection.is_closed(), "{name}: the connection stayed open");
        assert_eq!(upstream.requests().len(), before, "{name}: something was forwarded");
    }
}

#[test]
fn a_bad_chunk_ends_both_sides() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    for (name, body) in [
        ("a size that is no number", "zz\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "1ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("data longer than its size", "3\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
    ] {
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        connection.patience(Duration::from_secs(5));
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = connection.send(format!("{head}{body}{SMUGGLED}"));
        if let Ok(reply) = connection.reply() {
            assert!((400..=502).contains(&reply.status()), "{name}: {reply:?}");
        }
        assert!(connection.is_closed(), "{name}: the connection stayed open");
        let whole = upstream.requests();
        assert!(whole.is_empty(), "{name}: the upstream got a whole request: {whole:?}");
    }
}

#[test]
fn headers_beyond_the_limit_are_a_431() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let limits = ", max_header_size: 8KiB, max_header_count: 20";
    let _agent = Setup::new(&net).start(&config::with("interfaces: [front0]", limits, upstream.address()));
    let long = format!("X: {}\r\n", "x".repeat(9 * 1024));
    let many: String = (0..30).map(|number| format!("X-{number}: 1\r\n")).collect();
    let endless = "X-Endless: 1\r\n".repeat(100_000);
    for (name, fields) in [("a long field", &long), ("many fields", &many), ("fields without end", &endless)]
    {
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        let _ = connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}"));
        let _ = connection.send("\r\n");
        let reply = connection.reply().unwrap_or_else(|error| panic!("{name}: no reply: {error}"));
        assert_eq!(reply.status(), 431, "{name}");
        assert!(connection.is_closed(), "{name}: the connection stayed open");
    }
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    let fits = format!("X: {}\r\n", "x".repeat(4 * 1024));
    connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fits}\r\n")).unwrap();
    assert_eq!(connection.reply().unwrap().status(), 200, "headers within the limits");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn slow_headers_are_a_408() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::with(
        "interfaces: [front0]",
        ", header_timeout: 500ms",
        upstream.address(),
    ));
    // One stops in the middle, the other sends a byte now and then and would go on for ever.
    for drips in [false, true] {
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        connection.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
        let start = Instant::now();
        while drips && start.elapsed() < Duration::from_millis(450) {
            connection.send("x").unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let reply = connection.reply().unwrap();
        assert_eq!(reply.status(), 408, "drips: {drips}");
        let took = start.elapsed();
        assert!((400..3000).contains(&took.as_millis()), "500 ms took {took:?} (drips: {drips})");
        assert!(connection.is_closed());
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::with(
        "interfaces: [front0]",
        ", idle_timeout: 500ms",
        upstream.address(),
    ));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    connection.get("/").unwrap();
    connection.patience(Duration::from_secs(5));
    let start = Instant::now();
    assert!(connection.is_closed());
    let took = start.elapsed();
    assert!((400..3000).contains(&took.as_millis()), "500 ms took {took:?}");
}

#[test]
fn connections_beyond_the_limit_wait() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::with(
        "interfaces: [front0]",
        ", max_connections: 2",
        upstream.address(),
    ));
    let mut held: Vec<_> = (0..2).map(|_| Agent::connect(&net, CLIENT_V4).unwrap()).collect();
    for connection in &mut held {
        assert_eq!(connection.get("/").unwrap().status(), 200);
    }
    let mut third = Agent::connect(&net, CLIENT_V4).unwrap();
    third.patience(Duration::from_millis(400));
    assert!(third.get("/third").is_err(), "a third connection was served beside two");
    held.pop();
    third.patience(Duration::from_secs(5));
    assert_eq!(third.reply().unwrap().text(), "/third", "its turn never came");
}
