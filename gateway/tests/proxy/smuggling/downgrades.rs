//! What comes by HTTP/2 and goes on by HTTP/1.1: what is a field there must not become more than a field here (RFC 9113,
//! section 8).
//!
//! Frames are written by hand, as no client library sends what is wrong.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::upstream::{Message, Recorder};
use super::{Named, each};
use crate::harness::{connect, model, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What would be smuggled.
const INNER: &str = "GET /inner HTTP/1.1\r\nhost: a\r\n\r\n";

struct Case {
    name: &'static str,
    fields: Vec<(&'static str, String)>,
    body: &'static str,
    /// The one request that the upstream sees, if it sees any.
    seen: Option<String>,
}

impl Named for Case {
    fn name(&self) -> &'static str {
        self.name
    }
}

/// A request with these fields in the place of the usual ones of the same name, and others behind.
fn case(name: &'static str, fields: &[(&'static str, &str)], body: &'static str, seen: Option<&str>) -> Case {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")] {
        let replaced: Vec<_> = fields.iter().filter(|field| field.0 == name).collect();
        let kept = replaced.is_empty().then_some((name, value.to_owned()));
        all.extend(kept.into_iter().chain(replaced.iter().map(|field| (field.0, field.1.to_owned()))));
    }
    let is_usual = |name: &str| [":method", ":scheme", ":authority", ":path"].contains(&name);
    all.extend(fields.iter().filter(|field| !is_usual(field.0)).map(|field| (field.0, field.1.to_owned())));
    Case { name, fields: all, body, seen: seen.map(str::to_owned) }
}

fn cases() -> Vec<Case> {
    let refused = |name, field: &'static str, value: &str| case(name, &[(field, value)], INNER, None);
    let chunked = format!("POST / chunked:{INNER}");
    let whole = format!("POST / {}:{INNER}", INNER.len());
    let length = INNER.len().to_string();
    vec![
        case("a body", &[], INNER, Some(&chunked)),
        case("a body and its length", &[("content-length", &length)], INNER, Some(&whole)),
        case("no body", &[], "", Some("POST /")),
        case("GET with a body", &[(":method", "GET")], "abc", Some("GET / chunked:abc")),
        refused("a transfer coding", "transfer-encoding", "chunked"),
        refused("a transfer coding that is none", "transfer-encoding", "identity"),
        refused("Connection", "connection", "transfer-encoding"),
        refused("Keep-Alive", "keep-alive", "timeout=5"),
        refused("Upgrade", "upgrade", "h2c"),
        refused("TE of chunked", "te", "chunked"),
        refused("a length in a list", "content-length", "3, 3"),
        refused("a signed length", "content-length", "+3"),
        refused("a coding with an underscore", "transfer_encoding", "chunked"),
        refused("a length with an underscore", "content_length", "3"),
        refused("a name in capitals", "Content-Length", "3"),
        refused("a line end in a value", "x", "y\r\ntransfer-encoding: chunked"),
        refused("LF in a value", "x", "y\ntransfer-encoding: chunked"),
        refused("NUL in a value", "x", "y\0"),
        refused("a line end in a name", "x\r\ny", "z"),
        refused("a colon in a name", "x: y", "z"),
        refused("a space in a name", "content-length ", "3"),
        refused("an empty name", "", "x"),
        refused("an unknown pseudo-field", ":host", "b"),
        refused("a line end in the method", ":method", "GET /inner HTTP/1.1\r\nx: y\r\n\r\nGET"),
        refused("a space in the method", ":method", "GET /inner"),
        refused("a line end in the path", ":path", "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /inner"),
        refused("a space in the path", ":path", "/a b"),
        refused("NUL in the path", ":path", "/a\0b"),
        // The library drops it before anybody here could see it.
        case("a fragment in the path", &[(":path", "/a#b")], "", Some("POST /a")),
        refused("an empty path", ":path", ""),
        refused("a path without a slash", ":path", "a"),
        refused("an asterisk for another method", ":path", "*"),
        refused("an encoded slash", ":path", "/a%2fb"),
        refused("a line end in the authority", ":authority", "a\r\nx: y"),
        refused("a space in the authority", ":authority", "a b"),
        refused("a user in the authority", ":authority", "u@a"),
        refused("a path in the authority", ":authority", "a/b"),
        refused("a line end in the scheme", ":scheme", "http://a/\r\nx: y"),
        refused("another Host", "host", "b"),
        case("two paths", &[(":path", "/a"), (":path", "/b")], INNER, None),
        case("two methods", &[(":method", "GET"), (":method", "POST")], INNER, None),
        case("two authorities", &[(":authority", "a"), (":authority", "b")], INNER, None),
        case("two Hosts", &[("host", "a"), ("host", "b")], INNER, None),
        case("a length and another", &[("content-length", &length), ("content-length", "3")], INNER, None),
    ]
}

#[test]
fn streams_become_one_request_or_none() {
    each(&cases(), check);
}

/// Sends the row as a stream and a plain request as the next one. Whether the connection survives a row that is
/// refused is left open; that the upstream sees nothing of it is not.
#[track_caller]
fn check(case: &Case) {
    let recorder = Recorder::start();
    let proxy = start(&model(&[recorder.address()]));
    let mut stream = connect(&proxy);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let flags = END_HEADERS | if case.body.is_empty() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, flags, 1, &block(&case.fields)));
    if !case.body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, case.body.as_bytes()));
    }
    stream.write_all(&bytes).unwrap();
    let is_alive = wait_for_answer(&mut stream, 1);
    let mut following = Vec::new();
    for (name, value) in
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/following")]
    {
        following.push((name, value.to_owned()));
    }
    let is_served = is_alive
        && stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&following))).is_ok()
        && wait_for_answer(&mut stream, 3);
    drop(stream);
    drop(proxy);
    let seen: Vec<String> = recorder.finish().iter().map(Message::to_string).collect();
    let mut expected: Vec<String> = case.seen.clone().into_iter().collect();
    if case.seen.is_some() || is_served {
        expected.push("GET /following".to_owned());
    }
    assert_eq!(seen, expected, "{}: what the upstream saw", case.name);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields that nobody keeps (RFC 7541, section 6.2.2).
fn block(fields: &[(&'static str, String)]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127, "a longer length takes more bytes");
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Reads until this stream is answered or reset; false if the connection ends instead.
fn wait_for_answer(stream: &mut TcpStream, wanted: u32) -> bool {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() || head[3] == GO_AWAY {
            return false;
        }
        if number == wanted && matches!(head[3], HEADERS | RESET) {
            return true;
        }
    }
}
