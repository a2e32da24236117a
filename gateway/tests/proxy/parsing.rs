//! What is a request, what is none, and what the client reads.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::*;

/// Sends bytes; expects these statuses in order, and whether the connection is closed then.
#[track_caller]
fn check(name: &str, bytes: &str, expected: &[&str], closed: bool) {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|l| l.parse().unwrap());
            if let Some(length) = length {
                conn.body(length);
            }
            if head.contains("transfer-encoding") {
                while !conn.body(1).is_empty() && !conn.body(4).ends_with(b"\r\n\r\n") {}
            }
            let body = if head.starts_with("HEAD") { "" } else { "ok" };
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}"));
        }
    });
    let mut model = model(&[up.address]);
    model.listeners[0].max_header_bytes = 8 * 1024;
    model.listeners[0].max_header_count = 20;
    let proxy = start(&model);
    let mut stream = connect(&proxy);
    let _ = stream.write_all(bytes.as_bytes());
    // Patient until all is there that should be, on a busy machine too; then a moment for what should not.
    let (mut answer, mut was_closed) = (String::new(), false);
    for _ in 0..30 {
        let (more, ended) = read_rest(&mut stream, Duration::from_millis(300));
        answer.push_str(&more);
        was_closed |= ended;
        if was_closed || (!closed && statuses(&answer).len() >= expected.len()) {
            break;
        }
    }
    let statuses = statuses(&answer);
    assert_eq!((statuses.as_slice(), was_closed), (expected, closed), "{name}: {answer}");
    for refusal in ["400", "408", "431"] {
        if expected.last() == Some(&refusal) {
            assert!(answer.contains("application/problem+json"), "{name}: {answer}");
        }
    }
}

/// The statuses of the responses in a text.
fn statuses(text: &str) -> Vec<&str> {
    let after_version = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12));
    after_version.filter(|status| status.parse::<u16>().is_ok()).collect()
}

#[test]
fn requests_are_read_or_refused() {
    let ok = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}");
    for (name, bytes, expected, closed) in [
        ("plain", ok.to_owned(), &["200"][..], false),
        ("pipelined", ok.repeat(3), &["200", "200", "200"], false),
        ("close", "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), &["200"], true),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), &["200"], true),
        (
            "HTTP/1.0 keep-alive",
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
            &["200"],
            false,
        ),
        ("a length", post("content-length: 3", "abc") + ok, &["200", "200"], false),
        ("HEAD", format!("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n{ok}"), &["200", "200"], false),
        ("absolute-form", "GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["200"], false),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["200"], false),
        (
            "an upgrade that is not made",
            format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n{ok}"),
            &["200", "200"],
            false,
        ),
        (
            "an expectation in HTTP/1.0",
            "GET / HTTP/1.0\r\nexpect: wonders\r\n\r\n".to_owned(),
            &["200"],
            true,
        ),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_owned(), &["400"], true),
        ("two Hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), &["400"], true),
        ("CONNECT", "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["501"], true),
        ("an encoded slash", "GET /a%2fb HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["400"], false),
        ("CL and TE", post("content-length: 3\r\ntransfer-encoding: chunked", "0\r\n\r\n"), &["400"], true),
        ("TE and CL", post("transfer-encoding: chunked\r\ncontent-length: 3", "0\r\n\r\n"), &["400"], true),
        ("two lengths", post("content-length: 3\r\ncontent-length: 4", "abc"), &["400"], true),
        ("chunked not last", post("transfer-encoding: chunked, gzip", "0\r\n\r\n"), &["400"], true),
        (
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["400"],
            true,
        ),
        ("an invalid chunk size", post("transfer-encoding: chunked", "zz\r\n"), &["400"], true),
        ("bare LF", "GET / HTTP/1.1\nhost: a\n\n".to_owned(), &["400"], true),
        ("one bare LF", "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n".to_owned(), &["400"], true),
        ("obs-fold", "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n".to_owned(), &["400"], true),
        ("space before colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned(), &["400"], true),
        (
            "space before the colon of TE",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["400"],
            true,
        ),
        ("NUL", "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".to_owned(), &["400"], true),
        ("bare CR", "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n".to_owned(), &["400"], true),
        ("no HTTP at all", "hello\r\n\r\n".to_owned(), &["400"], true),
        ("a later version", "GET / HTTP/1.2\r\nhost: a\r\n\r\n".to_owned(), &["400"], true),
        ("a space in the target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["400"], true),
        ("no path in the target", "GET a/b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &["400"], true),
        (
            "a malformed trailer",
            post("transfer-encoding: chunked", "1\r\na\r\n0\r\nx : y\r\n\r\n"),
            &["400"],
            true,
        ),
        ("a refusal after a good one", format!("{ok}GET / HTTP/1.1\nhost: a\n\n"), &["200", "400"], true),
        ("nothing after a refusal", format!("GET / HTTP/1.1\r\n\r\n{ok}"), &["400"], true),
        (
            "a large head",
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(9000)),
            &["431"],
            true,
        ),
        ("a head without end", "x".repeat(100_000), &["431"], true),
        (
            "many fields",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(20)),
            &["431"],
            true,
        ),
        (
            "as many fields as may be",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(19)),
            &["200"],
            false,
        ),
        ("an expectation", post("expect: wonders\r\ncontent-length: 3", "abc"), &["417"], true),
    ] {
        check(name, &bytes, expected, closed);
    }
}

#[test]
fn a_slow_head_is_told_so_and_an_idle_connection_is_not() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].header_timeout = Duration::from_millis(300);
    model.listeners[0].idle_timeout = Duration::from_millis(600);
    let proxy = start(&model);

    for (name, bytes) in [("nothing sent", &b""[..]), ("half a head", b"GET / HTTP/1.1\r\nho")] {
        let mut stream = connect(&proxy);
        let begun = Instant::now();
        stream.write_all(bytes).unwrap();
        let (answer, closed) = read_rest(&mut stream, Duration::from_secs(3));
        assert_eq!((status(&answer), closed), ("408", true), "{name}");
        assert!(answer.contains("header_timeout"), "{name}: {answer}");
        assert!(begun.elapsed() >= Duration::from_millis(280), "{name}: too early");
    }

    let mut stream = connect(&proxy);
    assert_eq!(status(&get(&mut stream)), "200");
    let begun = Instant::now();
    assert_eq!(read_rest(&mut stream, Duration::from_secs(3)), (String::new(), true));
    assert!(begun.elapsed() >= Duration::from_millis(500));

    let mut stream = connect(&proxy);
    assert_eq!(status(&get(&mut stream)), "200");
    stream.write_all(b"GET / HT").unwrap();
    let (answer, closed) = read_rest(&mut stream, Duration::from_secs(3));
    assert_eq!((status(&answer), closed), ("408", true), "a slow second head");
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let (up, heads) = reporting();
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    for piece in b"GET /pieces HTTP/1.1\r\nHost: A.test:80\r\n\r\n".chunks(3) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(status(&response(&mut stream)), "200");
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /pieces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: A.test:80\r\n"), "{head}");
}

#[test]
fn the_upstream_reads_what_it_should() {
    let (up, heads) = reporting();
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream
        .write_all(
            b"GET /a/../b?c HTTP/1.1\r\nhost: a.test\r\nconnection: keep-alive, x-forwarded-for, host, hint\r\n\
              hint: 1\r\nte: trailers\r\nproxy-authorization: secret\r\nx-forwarded-for: 6.6.6.6\r\n\
              forwarded: for=6.6.6.6\r\nupgrade: h2c\r\nauthorization: mine\r\n\r\n",
        )
        .unwrap();
    assert_eq!(status(&response(&mut stream)), "200");
    let head = heads.recv().unwrap();
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /b?c HTTP/1.1",
            "authorization: mine",
            "connection: te",
            "forwarded: for=127.0.0.1;host=a.test;proto=http",
            "host: a.test",
            "te: trailers",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: a.test",
            "x-forwarded-proto: http",
        ]
    );
}

#[test]
fn what_a_peer_says_of_others_is_believed_only_of_trusted_proxies() {
    let claims = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: b.test\r\n\
                  forwarded: for=6.6.6.6\r\n";
    let ours = [
        "forwarded: for=127.0.0.1;host=a.test;proto=http",
        "host: a.test",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: a.test",
        "x-forwarded-proto: http",
    ];
    let others =
        "x-forwarded-port: 1\r\nx-real-ip: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX_Real-Ip: 6.6.6.6\r\n";
    for (name, trusted, sent, expected) in [
        ("nobody is trusted", &[][..], claims, &ours[..]),
        ("somebody else is trusted", &["10.0.0.0/8", "::1/128"], claims, &ours),
        ("other spellings", &[], others, &ours),
        (
            "the peer is trusted",
            &["10.0.0.0/8", "127.0.0.0/8"],
            claims,
            &[
                "forwarded: for=6.6.6.6, for=127.0.0.1;host=a.test;proto=http",
                "host: a.test",
                "x-forwarded-for: 6.6.6.6, 127.0.0.1",
                "x-forwarded-host: b.test",
                "x-forwarded-proto: https",
            ],
        ),
        ("a trusted peer says nothing", &["127.0.0.1/32"], "", &ours),
    ] {
        let (up, heads) = reporting();
        let mut model = model(&[up.address]);
        model.listeners[0].trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let proxy = start(&model);
        let mut stream = connect(&proxy);
        write!(stream, "GET / HTTP/1.1\r\nhost: a.test\r\n{sent}\r\n").unwrap();
        assert_eq!(status(&response(&mut stream)), "200", "{name}");
        let head = heads.recv().unwrap();
        let mut lines: Vec<&str> = head.trim_end().lines().skip(1).collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{name}");
    }
}

#[test]
fn routes_decide_and_say_why_not() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.routes[0].matches.hosts = vec![gateway::model::HostPattern::Exact("a.test".to_owned())];
    model.routes[0].matches.methods = vec![http::Method::GET];
    let proxy = start(&model);
    for (request, expected, text) in [
        ("GET / HTTP/1.1\r\nhost: A.TEST:1\r\n\r\n", "200", "GET / HTTP/1.1"),
        ("GET / HTTP/1.1\r\nhost: b.test\r\n\r\n", "404", "no_route"),
        ("DELETE / HTTP/1.1\r\nhost: a.test\r\n\r\n", "405", "allow: GET"),
    ] {
        let mut stream = connect(&proxy);
        stream.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut stream);
        assert_eq!(status(&answer), expected, "{request}");
        assert!(answer.contains(text), "{request}: {answer}");
    }
}
