//! What an upstream replies: passed on whole and well-formed, cut so that everybody sees it, or a 502. And whatever it
//! sends too much is nobody's answer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{FOLLOWED, FOLLOWING, Named, each};
use crate::harness::{connect, model, read_rest, start, status, upstream};

struct Reply {
    name: &'static str,
    method: &'static str,
    bytes: Vec<u8>,
    /// What the upstream does then.
    ends: &'static [Then],
    expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    /// 502, and the request that follows is served.
    Refused,
    /// This status and body, and the request that follows is served.
    Whole(u16, &'static str),
    /// A status, some of this body, and a connection that does not end as if that had been all.
    Cut(u16, &'static str),
}

const BOTH: &[Then] = &[Then::Stays, Then::Closes];

fn refused(name: &'static str, reply: impl Into<Vec<u8>>) -> Reply {
    Reply { name, method: "GET", bytes: reply.into(), ends: BOTH, expected: Expected::Refused }
}

fn whole(name: &'static str, reply: impl Into<Vec<u8>>, status: u16, body: &'static str) -> Reply {
    Reply { name, method: "GET", bytes: reply.into(), ends: BOTH, expected: Expected::Whole(status, body) }
}

/// The reply ends where the connection does.
fn until_close(reply: Reply) -> Reply {
    Reply { ends: &[Then::Closes], ..reply }
}

fn cut(name: &'static str, reply: impl Into<Vec<u8>>, body: &'static str) -> Reply {
    Reply { name, method: "GET", bytes: reply.into(), ends: BOTH, expected: Expected::Cut(200, body) }
}

fn to(method: &'static str, reply: Reply) -> Reply {
    Reply { method, ..reply }
}

/// What nobody may ever read as an answer.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

fn status_lines() -> Vec<Reply> {
    let refused = |name, line: &str| refused(name, format!("{line}\r\ncontent-length: 2\r\n\r\nok"));
    let whole = |name, line: &str, status| {
        whole(name, format!("{line}\r\ncontent-length: 2\r\n\r\nok"), status, "ok")
    };
    vec![
        whole("a reply", "HTTP/1.1 200 OK", 200),
        whole("no reason", "HTTP/1.1 200 ", 200),
        whole("no reason and no space", "HTTP/1.1 200", 200),
        whole("a long reason", "HTTP/1.1 200 All Is Well", 200),
        whole("an unknown status", "HTTP/1.1 299 Odd", 299),
        whole("HTTP/1.0", "HTTP/1.0 200 OK", 200),
        refused("HTTP/1.2", "HTTP/1.2 200 OK"),
        refused("HTTP/2", "HTTP/2 200 OK"),
        refused("HTTP/2.0", "HTTP/2.0 200 OK"),
        refused("HTTP/0.9", "HTTP/0.9 200 OK"),
        refused("a version in small letters", "http/1.1 200 OK"),
        refused("another protocol", "ICY 200 OK"),
        refused("no version", "200 OK"),
        refused("no status", "HTTP/1.1 OK"),
        refused("a status of two digits", "HTTP/1.1 20 OK"),
        refused("a status of four digits", "HTTP/1.1 2000 OK"),
        refused("a status of 99", "HTTP/1.1 099 OK"),
        refused("a negative status", "HTTP/1.1 -20 OK"),
        refused("a status with a letter", "HTTP/1.1 2x0 OK"),
        refused("two spaces before the status", "HTTP/1.1  200 OK"),
        refused("a tab before the status", "HTTP/1.1\t200 OK"),
        refused("a space before the version", " HTTP/1.1 200 OK"),
        refused("NUL in the reason", "HTTP/1.1 200 O\0K"),
        refused("CR in the reason", "HTTP/1.1 200 O\rK"),
        refused("101 without being asked", "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c"),
    ]
}

fn heads() -> Vec<Reply> {
    let with = |name, field: &str| {
        refused(name, format!("HTTP/1.1 200 OK\r\n{field}\r\ncontent-length: 2\r\n\r\nok"))
    };
    vec![
        refused("bytes that are no HTTP", "<html>hello</html>\r\n\r\n"),
        refused("a request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        refused("random bytes", b"\x16\x03\x01\x02\0\xff\r\n\r\n".to_vec()),
        until_close(refused("nothing", "")),
        until_close(refused("half a status line", "HTTP/1.1 20")),
        until_close(refused("half a head", "HTTP/1.1 200 OK\r\ncontent-le")),
        with("a space before a colon", "x : y"),
        with("a field without a colon", "x"),
        with("a field without a name", ": y"),
        with("a folded field", "x: y\r\n z"),
        with("a first field that begins folded", " x: y"),
        with("NUL in a value", "x: y\0z"),
        with("CR in a value", "x: y\rz"),
        with("NUL in a name", "x\0: y"),
        with("a head of 200 kilobytes", &format!("x: {}", "y".repeat(200_000))),
        with("a head of 10,000 fields", &"x: y\r\n".repeat(10_000)),
    ]
}

fn lengths() -> Vec<Reply> {
    let with = |field: &str| format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nok");
    vec![
        whole("two equal lengths", with("content-length: 2\r\ncontent-length: 2"), 200, "ok"),
        refused("two lengths", with("content-length: 2\r\ncontent-length: 3")),
        refused("lengths in a list", with("content-length: 2, 3")),
        refused("a length with a plus", with("content-length: +2")),
        refused("a length with a minus", with("content-length: -2")),
        refused("a length in hexadecimal", with("content-length: 0x2")),
        refused("an empty length", with("content-length:")),
        refused("a length that is no number", with("content-length: x")),
        refused("a length of more than 64 bits", with("content-length: 18446744073709551618")),
        refused("length, then chunks", with("content-length: 2\r\ntransfer-encoding: chunked")),
        refused("chunks, then length", with("transfer-encoding: chunked\r\ncontent-length: 2")),
        refused("another coding", with("transfer-encoding: gzip")),
        refused("identity", with("transfer-encoding: identity\r\ncontent-length: 2")),
        refused("chunked is not last", with("transfer-encoding: chunked, gzip")),
        refused("chunked is not alone", with("transfer-encoding: gzip, chunked")),
        refused("chunked twice", with("transfer-encoding: chunked, chunked")),
        refused("chunked in two lines", with("transfer-encoding: chunked\r\ntransfer-encoding: chunked")),
        refused("xchunked", with("transfer-encoding: xchunked")),
        refused("no coding", with("transfer-encoding:")),
        refused(
            "chunked in HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        until_close(whole("no length", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok")),
        until_close(whole("no length in HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nok", 200, "ok")),
        until_close(cut("an end within the length", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "ok")),
        until_close(cut("an end before the length", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "")),
    ]
}

fn in_chunks() -> Vec<Reply> {
    let with = |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let cut = |name, body: &str, seen| cut(name, with(body), seen);
    vec![
        whole("chunks", with("2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"), 200, "ok!"),
        whole("an extension", with("2;a=b\r\nok\r\n0\r\n\r\n"), 200, "ok"),
        whole("undeclared trailers", with("2\r\nok\r\n0\r\na: b\r\n\r\n"), 200, "ok"),
        cut("a size that is no number", "2\r\nok\r\nx\r\n\r\n", "ok"),
        cut("a size that is no number at once", "x\r\n\r\n", ""),
        cut("0x before a size", "0x2\r\nok\r\n0\r\n\r\n", ""),
        cut("a plus before a size", "+2\r\nok\r\n0\r\n\r\n", ""),
        cut("a minus before a size", "-2\r\nok\r\n0\r\n\r\n", ""),
        cut("no size", "\r\nok\r\n0\r\n\r\n", ""),
        cut("a size of more than 64 bits", "10000000000000002\r\nok\r\n0\r\n\r\n", ""),
        cut("a chunk longer than its size", "2\r\noks\r\n0\r\n\r\n", "ok"),
        cut("LF alone in an extension", "2;a\nb\r\nok\r\n0\r\n\r\n", ""),
        cut("a trailer without a colon", "2\r\nok\r\n0\r\na\r\n\r\n", "ok"),
        until_close(cut("an end within a chunk", "9\r\nok", "ok")),
        until_close(cut("an end between chunks", "2\r\nok\r\n", "ok")),
        until_close(cut("an end within the last chunk", "2\r\nok\r\n0\r\n", "ok")),
        until_close(cut("an end within the trailers", "2\r\nok\r\n0\r\na: b\r\n", "ok")),
        until_close(cut("an end before the first chunk", "", "")),
    ]
}

/// What comes behind a reply is not the answer to what is asked next.
fn too_much() -> Vec<Reply> {
    let behind = |head: &str| format!("{head}{SMUGGLED}");
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    vec![
        whole("a reply behind a length", behind(length), 200, "ok"),
        whole("a reply behind chunks", behind(chunked), 200, "ok"),
        whole("an empty line behind a length", format!("{length}\r\n"), 200, "ok"),
        whole("text behind a length", format!("{length}text"), 200, "ok"),
        whole("half a reply behind a length", format!("{length}HTTP/1.1 200 O"), 200, "ok"),
        whole("204 with a reply behind it", behind("HTTP/1.1 204 No Content\r\n\r\n"), 204, ""),
        whole("204 with a body", "HTTP/1.1 204 No Content\r\n\r\nbody", 204, ""),
        whole("204 with a length", behind("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n"), 204, ""),
        whole(
            "204 in chunks",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            204,
            "",
        ),
        whole("304 with a length", behind("HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n"), 304, ""),
        whole("304 with a body", "HTTP/1.1 304 Not Modified\r\n\r\nbody", 304, ""),
        to("HEAD", whole("HEAD with a length", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", 200, "")),
        to("HEAD", whole("HEAD with a body", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", 200, "")),
        to(
            "HEAD",
            whole(
                "HEAD with a reply behind it",
                behind("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"),
                200,
                "",
            ),
        ),
        to(
            "HEAD",
            whole(
                "HEAD in chunks",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                200,
                "",
            ),
        ),
        whole(
            "an interim reply before",
            format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{length}"),
            200,
            "ok",
        ),
        whole(
            "interim replies of odd kinds",
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n{length}"),
            200,
            "ok",
        ),
        whole("many interim replies", "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000) + length, 200, "ok"),
        until_close(refused("nothing but interim replies", "HTTP/1.1 102 Processing\r\n\r\n".repeat(10))),
    ]
}

#[test]
fn replies_are_whole_or_cut_or_a_502() {
    let replies = [status_lines(), heads(), lengths(), in_chunks(), too_much()].into_iter().flatten();
    each(&replies.collect::<Vec<_>>(), |reply| {
        for then in reply.ends {
            check(reply, *then);
        }
    });
}

impl Named for Reply {
    fn name(&self) -> &'static str {
        self.name
    }
}

#[track_caller]
fn check(reply: &Reply, then: Then) {
    let (method, bytes) = (reply.method, reply.bytes.clone());
    let up = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("GET /following ") {
                conn.send(&format!("HTTP/1.1 204 No Content\r\n{FOLLOWED}\r\n"));
                continue;
            }
            let _ = conn.stream.write_all(&bytes);
            if then == Then::Closes {
                return;
            }
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream.write_all(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n{FOLLOWING}").as_bytes()).unwrap();
    let (text, is_reset) = read_answers(reply.name, &mut stream);
    let context = format!("{}, the upstream {then:?}: {text}", reply.name);
    assert!(!text.contains("evil"), "{context}");
    let is_cut = matches!(reply.expected, Expected::Cut(..));
    assert_eq!((is_reset, is_following(&text)), (is_cut, !is_cut), "{context}");
    // The reset may come before the first byte.
    let Some((answer, rest)) = Answer::read(&text, method == "HEAD") else {
        assert!(is_cut && text.is_empty(), "{context}");
        return;
    };
    match reply.expected {
        Expected::Refused => {
            assert_eq!((answer.status, answer.is_whole), (502, true), "{context}");
            assert!(answer.body.contains("\"code\":\"upstream_"), "{context}");
        }
        Expected::Whole(status, body) => {
            assert_eq!(
                (answer.status, answer.body.as_str(), answer.is_whole),
                (status, body, true),
                "{context}"
            );
        }
        Expected::Cut(status, body) => {
            assert_eq!((answer.status, answer.is_whole), (status, false), "{context}");
            assert!(body.starts_with(&answer.body), "{context}");
        }
    }
    assert!(is_cut || rest.starts_with("HTTP/1.1 204 "), "only the answer to what follows: {context}");
}

/// Reads until the request that follows is answered or the connection ends; tells whether that was by a reset.
#[track_caller]
fn read_answers(name: &str, stream: &mut TcpStream) -> (String, bool) {
    let (mut read, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&read);
        if is_following(&text) {
            return (text.into_owned(), false);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return (text.into_owned(), false),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (text.into_owned(), true),
            Err(error) => panic!("{name}: neither answered nor closed ({error}): {text}"),
        }
    }
}

/// Whether the request that follows has its whole answer.
fn is_following(text: &str) -> bool {
    text.contains(FOLLOWED) && text.ends_with("\r\n\r\n")
}

/// What a client makes of an answer that it reads by the letter of RFC 9112, section 6.3.
struct Answer {
    status: u16,
    body: String,
    is_whole: bool,
}

impl Answer {
    /// The first final one of a text, and what is left of it. `None`: there is no whole head.
    #[track_caller]
    fn read(mut text: &str, is_head: bool) -> Option<(Self, &str)> {
        while text.starts_with("HTTP/1.1 1") {
            text = text.split_once("\r\n\r\n")?.1;
        }
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {text}"));
        let odd = |c: char| c.is_control() && c != '\t';
        assert!(head.split("\r\n").all(|line| !line.contains(odd)), "a malformed head: {text}");
        let values = |name: &str| {
            let named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
            head.split("\r\n").filter(named).map(|line| line[name.len() + 1..].trim()).collect::<Vec<_>>()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "framed in more than one way: {text}");
        let whole = |body: &str| Self { status, body: body.to_owned(), is_whole: true };
        if status == 204 {
            assert!(lengths.is_empty() && codings.is_empty(), "204 has no framing: {text}");
        }
        if is_head || status == 204 || status == 304 {
            return Some((whole(""), rest));
        }
        match (lengths.as_slice(), codings.as_slice()) {
            ([length], []) => {
                let length: usize = length.parse().unwrap();
                let body = rest.get(..length);
                let part = || Self { is_whole: false, ..whole(rest) };
                Some(body.map_or_else(|| (part(), ""), |body| (whole(body), &rest[length..])))
            }
            ([], ["chunked"]) => {
                let (body, rest) = chunks(rest);
                let is_whole = rest.is_some();
                Some((Self { status, body, is_whole }, rest.unwrap_or_default()))
            }
            _ => panic!("not framed: {text}"),
        }
    }
}

/// The data of a body in chunks, and what comes behind its end, if it has one.
fn chunks(mut text: &str) -> (String, Option<&str>) {
    let mut body = String::new();
    loop {
        let Some((size, rest)) = text.split_once("\r\n") else { return (body, None) };
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("not a chunk size: {text}"));
        if size == 0 {
            return (body, rest.strip_prefix("\r\n"));
        }
        body.push_str(rest.get(..size).unwrap_or(rest));
        let Some(rest) = rest.get(size..).and_then(|rest| rest.strip_prefix("\r\n")) else {
            return (body, None);
        };
        text = rest;
    }
}

#[test]
fn an_upstream_that_never_comes_to_the_answer_times_out() {
    let up = upstream(|mut conn| {
        conn.head();
        while conn.stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    let (text, _) = read_rest(&mut client, Duration::from_secs(3));
    let heads: Vec<_> = text.split("\r\n\r\n").map(status).collect();
    let interim = heads.iter().take_while(|status| **status == "102").count();
    assert_eq!((interim, heads[interim]), (16, "504"), "{text}");
}
