//! When a head comes, where it goes, and what is written into it; what is a request at all, `smuggling` says.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::*;

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
        let (answer, closed) = read_rest(&mut stream, LONG);
        assert_eq!((status(&answer), closed), ("408", true), "{name}");
        assert!(answer.contains("header_timeout"), "{name}: {answer}");
        assert!(begun.elapsed() >= Duration::from_millis(280), "{name}: too early");
    }

    let mut stream = connect(&proxy);
    assert_eq!(status(&get(&mut stream)), "200");
    let begun = Instant::now();
    assert_eq!(read_rest(&mut stream, LONG), (String::new(), true));
    assert!(begun.elapsed() >= Duration::from_millis(500));

    let mut stream = connect(&proxy);
    assert_eq!(status(&get(&mut stream)), "200");
    stream.write_all(b"GET / HT").unwrap();
    let (answer, closed) = read_rest(&mut stream, LONG);
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
