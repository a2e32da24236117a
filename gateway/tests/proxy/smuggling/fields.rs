//! Fields of one connection, upgrades and expectations (RFC 9110, sections 7.6, 7.8 and 10.1.1).

use super::End::Closed;
use super::{Case, case, get, passes, post};

pub(super) fn cases() -> Vec<Case> {
    [hops(), named(), upgrades(), expectations(), claims()].into_iter().flatten().collect()
}

/// A request with these field lines reaches the upstream with those.
fn becomes(name: &'static str, sent: &str, seen: &[&'static str]) -> Case {
    let mut case = passes(name, format!("GET / HTTP/1.1\r\nhost: a\r\n{sent}\r\n"), &["GET /"]);
    case.fields = Some(seen.to_vec());
    case
}

fn hops() -> Vec<Case> {
    vec![
        becomes("Keep-Alive", "keep-alive: timeout=5\r\n", &["host: a"]),
        becomes("Connection of keep-alive", "connection: keep-alive\r\n", &["host: a"]),
        becomes("Proxy-Connection", "proxy-connection: keep-alive\r\n", &["host: a"]),
        becomes("Proxy-Authorization", "proxy-authorization: x\r\n", &["host: a"]),
        becomes("Proxy-Authenticate", "proxy-authenticate: x\r\n", &["host: a"]),
        becomes("Proxy-Authentication-Info", "proxy-authentication-info: x\r\n", &["host: a"]),
        becomes("TE", "te: gzip\r\n", &["host: a"]),
        becomes("TE of chunked", "te: chunked\r\n", &["host: a"]),
        becomes("TE of trailers", "te: trailers\r\n", &["connection: te", "host: a", "te: trailers"]),
        becomes(
            "TE of trailers and more",
            "te: trailers, chunked;q=0.5\r\nconnection: te\r\n",
            &["connection: te", "host: a", "te: trailers"],
        ),
        case(
            "Proxy-Connection of close does not close",
            "GET / HTTP/1.1\r\nhost: a\r\nproxy-connection: close\r\n\r\n",
            &[204],
            super::End::Open,
            &["GET /"],
        ),
        case(
            "Connection of close",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            &[204],
            Closed,
            &["GET /"],
        ),
        case(
            "Connection of close in capitals, in a list",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x, CLOSE\r\n\r\n",
            &[204],
            Closed,
            &["GET /"],
        ),
    ]
}

/// Connection names fields that end here, but none that say what the message is.
fn named() -> Vec<Case> {
    let with_body = |name, fields: &str, seen: &[&'static str]| {
        let mut case = passes(name, post(fields, "abc"), &["POST / 3:abc"]);
        case.fields = Some(seen.to_vec());
        case
    };
    vec![
        becomes("Connection names a field", "connection: x\r\nx: 1\r\n", &["host: a"]),
        becomes(
            "Connection names fields in two lines",
            "connection: X\r\nconnection: y\r\nx: 1\r\ny: 2\r\n",
            &["host: a"],
        ),
        becomes("Connection names a field that is not there", "connection: x\r\n", &["host: a"]),
        becomes(
            "Connection names what is no name",
            "connection: @, ,;\"x\"\r\nx: 1\r\n",
            &["host: a", "x: 1"],
        ),
        becomes("Connection names Connection", "connection: connection\r\n", &["host: a"]),
        becomes("Connection names Host", "connection: host\r\n", &["host: a"]),
        becomes(
            "Connection names Authorization",
            "connection: authorization\r\nauthorization: x\r\n",
            &["authorization: x", "host: a"],
        ),
        becomes("Connection names Cookie", "connection: cookie\r\ncookie: x\r\n", &["cookie: x", "host: a"]),
        becomes(
            "Connection names who asks",
            "connection: x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded\r\n",
            &["host: a"],
        ),
        with_body(
            "Connection names Content-Length",
            "connection: content-length\r\ncontent-length: 3",
            &["content-length: 3", "host: a"],
        ),
        with_body(
            "Connection names Content-Type",
            "connection: content-type\r\ncontent-type: x/y\r\ncontent-length: 3",
            &["content-length: 3", "content-type: x/y", "host: a"],
        ),
        passes(
            "Connection names Transfer-Encoding",
            post("connection: transfer-encoding\r\ntransfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
            &["POST / chunked:abc"],
        ),
        passes(
            "Connection names Trailer",
            post("connection: trailer\r\ntrailer: sum\r\ntransfer-encoding: chunked", "0\r\nsum: 7\r\n\r\n"),
            &["POST / chunked: + sum: 7"],
        ),
    ]
}

/// Nobody upgrades to HTTP/2 here; and until the upstream has agreed to switch, what follows is a request.
fn upgrades() -> Vec<Case> {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    vec![
        becomes(
            "an upgrade to HTTP/2",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            &["host: a"],
        ),
        becomes(
            "an upgrade whose settings Connection does not name",
            "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            &["host: a"],
        ),
        becomes(
            "an upgrade that Connection does not name",
            "upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            &["host: a"],
        ),
        becomes("settings of HTTP/2 alone", "http2-settings: AAMAAABk\r\n", &["host: a"]),
        becomes("an upgrade in capitals", "CONNECTION: UPGRADE\r\nUPGRADE: H2C\r\n", &["host: a"]),
        becomes("an upgrade to TLS", "connection: upgrade\r\nupgrade: TLS/1.2\r\n", &["host: a"]),
        becomes("an upgrade to anything", "connection: upgrade\r\nupgrade: x, h2c\r\n", &["host: a"]),
        becomes(
            "an upgrade to WebSocket that the upstream does not make",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 777\r\n",
            &["connection: upgrade", "host: a", "sec-websocket-version: 777", "upgrade: websocket"],
        ),
        becomes(
            "an upgrade to WebSocket that Connection does not name",
            "upgrade: websocket\r\n",
            &["host: a"],
        ),
        becomes(
            "an upgrade to WebSocket or HTTP/2",
            "connection: upgrade\r\nupgrade: websocket, h2c\r\n",
            &["host: a"],
        ),
        passes(
            "an upgrade with a body",
            post("connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3", "abc"),
            &["POST / 3:abc"],
        ),
        case(
            "an upgrade, and at once what would follow it",
            format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n{preface}"),
            &[204, 505],
            Closed,
            &["GET /"],
        ),
        case("HTTP/2 at once", preface, &[505], Closed, &[]),
        case("HTTP/2 behind a request", get("/") + preface, &[204, 505], Closed, &["GET /"]),
    ]
}

fn expectations() -> Vec<Case> {
    let expects = |name, value: &str, answers: &[u16]| {
        let sent = post(&format!("expect: {value}\r\ncontent-length: 3"), "abc");
        let mut case = case(name, sent, answers, super::End::Open, &["POST / 3:abc"]);
        case.fields = Some(vec!["content-length: 3", "host: a"]);
        case
    };
    let failed = |name, value: &str| {
        case(name, post(&format!("expect: {value}\r\ncontent-length: 3"), "abc"), &[417], Closed, &[])
    };
    vec![
        expects("100-continue", "100-continue", &[100, 204]),
        expects("100-continue in capitals", "100-CONTINUE", &[100, 204]),
        failed("another expectation", "wonders"),
        failed("100-continue and more", "100-continue, wonders"),
        failed("100-continue twice", "100-continue, 100-continue"),
        failed("100-continue with a parameter", "100-continue;q=1"),
        failed("100", "100"),
        failed("100-continue, and another line", "100-continue\r\nexpect: wonders"),
        failed("another expectation, then 100-continue", "wonders\r\nexpect: 100-continue"),
        failed("no expectation", ""),
        becomes("100-continue without a body", "expect: 100-continue\r\n", &["host: a"]),
        case(
            "100-continue of HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
            &[204],
            Closed,
            &["POST / 3:abc"],
        ),
        case(
            "another expectation of HTTP/1.0",
            "GET / HTTP/1.0\r\nhost: a\r\nexpect: wonders\r\n\r\n",
            &[204],
            Closed,
            &["GET /"],
        ),
        case(
            "100-continue and a bad length",
            post("expect: 100-continue\r\ncontent-length: 3, 3", "abc"),
            &[400],
            Closed,
            &[],
        ),
    ]
}

/// What a client says of itself is not believed; see `parsing` for what is written instead.
fn claims() -> Vec<Case> {
    vec![
        becomes("X-Real-IP", "x-real-ip: 6.6.6.6\r\n", &["host: a"]),
        becomes("Client-Cert", "client-cert: :x:\r\nclient-cert-chain: :x:\r\n", &["host: a"]),
        becomes(
            "claims with underscores",
            "x_forwarded_for: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nclient_cert: :x:\r\n",
            &["host: a"],
        ),
        becomes("claims that are empty", "x-forwarded-for:\r\nforwarded:\r\n", &["host: a"]),
        becomes(
            "claims in many lines",
            "x-forwarded-for: 1\r\nx-forwarded-for: 2\r\nX-FORWARDED-FOR: 3\r\n",
            &["host: a"],
        ),
    ]
}
