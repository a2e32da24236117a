//! Request lines, field lines and limits (RFC 9112, sections 2, 3 and 5).

use super::End::{Closed, Open};
use super::{Case, MAX_FIELDS, MAX_HEAD_BYTES, case, get, passes, refused};

pub(super) fn cases() -> Vec<Case> {
    [request_lines(), methods(), versions(), before(), names(), values(), folds(), limits()]
        .into_iter()
        .flatten()
        .collect()
}

/// A request whose first line this is.
fn with_line(line: &str) -> String {
    format!("{line}\r\nhost: a\r\n\r\n")
}

fn request_lines() -> Vec<Case> {
    let refused = |name, line: &str| refused(name, with_line(line));
    vec![
        passes("a request", get("/"), &["GET /"]),
        passes("pipelined requests", get("/1") + &get("/2") + &get("/3"), &["GET /1", "GET /2", "GET /3"]),
        refused("one word", "GET"),
        refused("two words", "GET /"),
        refused("four words", "GET / HTTP/1.1 x"),
        refused("two versions", "GET / HTTP/1.1 HTTP/1.1"),
        refused("no method", " / HTTP/1.1"),
        refused("a space before the method", " GET / HTTP/1.1"),
        refused("a tab before the method", "\tGET / HTTP/1.1"),
        refused("two spaces before the target", "GET  / HTTP/1.1"),
        refused("two spaces before the version", "GET /  HTTP/1.1"),
        refused("a space behind the version", "GET / HTTP/1.1 "),
        refused("a tab behind the version", "GET / HTTP/1.1\t"),
        refused("tabs between the words", "GET\t/\tHTTP/1.1"),
        refused("a vertical tab between the words", "GET\x0b/ HTTP/1.1"),
        refused("a form feed between the words", "GET\x0c/ HTTP/1.1"),
        refused("CR between the words", "GET\r/ HTTP/1.1"),
        refused("NUL between the words", "GET\0/ HTTP/1.1"),
        refused("no target", "GET  HTTP/1.1"),
        refused("a space in the target", "GET /a b HTTP/1.1"),
        refused("another request line within the target", "GET /a HTTP/1.1\rGET /b HTTP/1.1"),
        refused("CR CR LF", "GET / HTTP/1.1\r"),
        super::refused("LF alone behind the request line", "GET / HTTP/1.1\nhost: a\r\n\r\n"),
        super::refused("LF alone everywhere", "GET / HTTP/1.1\nhost: a\n\n"),
        super::refused("LF alone at the end of the head", "GET / HTTP/1.1\r\nhost: a\r\n\n"),
        super::refused("LF alone behind a field", "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"),
        super::refused("CR alone at the end of the head", "GET / HTTP/1.1\r\nhost: a\r\n\r"),
        super::refused("words that are no request", "hello\r\n\r\n"),
        super::refused("a TLS handshake", "\x16\x03\x01\x02\0\x01\0\r\n\r\n"),
        super::refused("an SSH banner", "SSH-2.0-x\r\n\r\n"),
        super::refused("a header of the PROXY protocol", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        super::refused("a response", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ]
}

fn methods() -> Vec<Case> {
    let refused = |name, method: &str| refused(name, with_line(&format!("{method} / HTTP/1.1")));
    let passes = |name, method: &str| {
        passes(name, with_line(&format!("{method} / HTTP/1.1")), &[&format!("{method} /")])
    };
    vec![
        passes("HEAD", "HEAD"),
        passes("TRACE", "TRACE"),
        passes("an unknown method", "BREW"),
        passes("a method in small letters", "get"),
        passes("a method of all that a token may hold", "!#$%&'*+-.^_`|~aZ09"),
        passes("a long method", &"A".repeat(2000)),
        refused("a method with a colon", "GET:"),
        refused("a method with a slash", "GET/"),
        refused("a method with an at sign", "G@T"),
        refused("a method with a bracket", "G(T"),
        refused("a method in quotes", "\"GET\""),
        refused("a method with NUL", "GET\0"),
        refused("a method with DEL", "GET\x7f"),
        refused("a method beyond ASCII", "G\u{c9}T"),
    ]
}

fn versions() -> Vec<Case> {
    let refused = |name, version: &str| refused(name, with_line(&format!("GET / {version}")));
    let later = |name, version: &str| passes(name, with_line(&format!("GET / {version}")), &["GET /"]);
    let unknown =
        |name, version: &str| case(name, with_line(&format!("GET / {version}")), &[505], Closed, &[]);
    vec![
        case("HTTP/1.0", with_line("GET / HTTP/1.0"), &[204], Closed, &["GET /"]),
        case("HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", &[204], Closed, &["GET /"]),
        passes(
            "HTTP/1.0 that is kept alive",
            with_line("GET / HTTP/1.0\r\nconnection: keep-alive"),
            &["GET /"],
        ),
        super::refused("HTTP/0.9", "GET /\r\n"),
        refused("HTTP/0.9 by name", "HTTP/0.9"),
        later("HTTP/1.2", "HTTP/1.2"),
        later("HTTP/1.9", "HTTP/1.9"),
        passes(
            "HTTP/1.9 in chunks",
            with_line("POST / HTTP/1.9\r\ntransfer-encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n",
            &["POST / chunked:abc"],
        ),
        case(
            "HTTP/1.9 that is closed",
            with_line("GET / HTTP/1.9\r\nconnection: close"),
            &[204],
            Closed,
            &["GET /"],
        ),
        super::refused("HTTP/1.9 without Host", "GET / HTTP/1.9\r\n\r\n"),
        refused("HTTP/1.10", "HTTP/1.10"),
        refused("HTTP/1.01", "HTTP/1.01"),
        refused("HTTP/01.1", "HTTP/01.1"),
        refused("HTTP/11", "HTTP/11"),
        refused("HTTP/1", "HTTP/1"),
        refused("HTTP/1.", "HTTP/1."),
        refused("HTTP/1.1.1", "HTTP/1.1.1"),
        refused("HTTP/1,1", "HTTP/1,1"),
        refused("HTTP/-1.1", "HTTP/-1.1"),
        refused("HTTP/1.1 with a letter", "HTTP/1.1x"),
        refused("HTTP/1.1 with NUL", "HTTP/1.1\0"),
        unknown("HTTP/2.0", "HTTP/2.0"),
        unknown("HTTP/2.1", "HTTP/2.1"),
        unknown("HTTP/9.9", "HTTP/9.9"),
        refused("HTTP/2.00", "HTTP/2.00"),
        refused("HTTP/10.0", "HTTP/10.0"),
        refused("HTTP/2", "HTTP/2"),
        unknown("HTTP/3.0", "HTTP/3.0"),
        refused("a version in small letters", "http/1.1"),
        refused("a version in mixed letters", "Http/1.1"),
        refused("a space in the version", "HTTP /1.1"),
        refused("HTTPS/1.1", "HTTPS/1.1"),
        refused("ICAP/1.0", "ICAP/1.0"),
    ]
}

fn before() -> Vec<Case> {
    let refused = |name, front: &str| refused(name, front.to_owned() + &get("/"));
    let passes = |name, front: &str| passes(name, front.to_owned() + &get("/"), &["GET /"]);
    vec![
        passes("an empty line before", "\r\n"),
        passes("four empty lines before", "\r\n\r\n\r\n\r\n"),
        refused("five empty lines before", "\r\n\r\n\r\n\r\n\r\n"),
        refused("LF alone before", "\n"),
        refused("CR alone before", "\r"),
        refused("CR CR LF before", "\r\r\n"),
        refused("a space before", " "),
        refused("a line of a space before", " \r\n"),
        refused("NUL before", "\0"),
        refused("a byte order mark before", "\u{feff}"),
        super::passes("empty lines between", get("/1") + "\r\n\r\n" + &get("/2"), &["GET /1", "GET /2"]),
        case("LF alone between", get("/1") + "\n" + &get("/2"), &[204, 400], Closed, &["GET /1"]),
        case("a space between", get("/1") + " " + &get("/2"), &[204, 400], Closed, &["GET /1"]),
    ]
}

/// A request with this field line.
fn with_field(line: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nhost: a\r\n", line, b"\r\n\r\n"].concat()
}

fn names() -> Vec<Case> {
    let refused = |name, line: &[u8]| refused(name, with_field(line));
    vec![
        passes("a name of all that a token may hold", with_field(b"!#$%&'*+-.^_`|~aZ09: x"), &["GET /"]),
        refused("a name that no colon follows", b"name"),
        refused("an empty name", b": x"),
        refused("only a colon", b":"),
        refused("a space before the colon", b"name : x"),
        refused("a tab before the colon", b"name\t: x"),
        refused("a space in the name", b"na me: x"),
        refused("NUL in the name", b"na\0me: x"),
        refused("NUL before the name", b"\0name: x"),
        refused("CR in the name", b"na\rme: x"),
        refused("a vertical tab in the name", b"na\x0bme: x"),
        refused("DEL in the name", b"na\x7fme: x"),
        refused("a byte beyond ASCII in the name", b"na\xffme: x"),
        refused("UTF-8 in the name", "n\u{e4}me: x".as_bytes()),
        refused("quotes around the name", b"\"name\": x"),
        refused("a slash in the name", b"na/me: x"),
        refused("a bracket in the name", b"na(me: x"),
        refused("a comma in the name", b"na,me: x"),
        refused("a semicolon in the name", b"na;me: x"),
        refused("an equals sign in the name", b"na=me: x"),
        refused("an at sign in the name", b"na@me: x"),
        refused("a backslash in the name", b"na\\me: x"),
    ]
}

fn values() -> Vec<Case> {
    let refused = |name, line: &[u8]| refused(name, with_field(line));
    let passes = |name, line: &[u8], seen: &'static str| {
        let mut case = passes(name, with_field(line), &["GET /"]);
        case.fields = Some(vec!["host: a", seen]);
        case
    };
    vec![
        passes("a value", b"name: x", "name: x"),
        passes("an empty value", b"name:", "name: "),
        passes("a value with colons", b"name::x:y", "name: :x:y"),
        passes("a tab in the value", b"name: x\ty", "name: x\ty"),
        passes("space around the value", b"name: \t x \t", "name: x"),
        passes("bytes beyond ASCII in the value", b"name: \xe4\xff", "name: \u{e4}\u{ff}"),
        passes("a value that looks like fields", b"name: x\\r\\ny: z", "name: x\\r\\ny: z"),
        refused("NUL in the value", b"name: x\0y"),
        refused("NUL at the end of the value", b"name: x\0"),
        refused("CR in the value", b"name: x\ry"),
        refused("CR at the end of the value", b"name: x\r"),
        refused("CR at the beginning of the value", b"name:\rx"),
        refused("a first control character in the value", b"name: x\x01y"),
        refused("a last control character in the value", b"name: x\x1fy"),
        refused("a backspace in the value", b"name: x\x08y"),
        refused("a vertical tab in the value", b"name: x\x0by"),
        refused("a form feed in the value", b"name: x\x0cy"),
        refused("an escape in the value", b"name: x\x1b[31my"),
        refused("DEL in the value", b"name: x\x7fy"),
    ]
}

fn folds() -> Vec<Case> {
    let refused = |name, fields: &str| refused(name, format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
    vec![
        refused("a field folded with a space", "host: a\r\nx: y\r\n z"),
        refused("a field folded with a tab", "host: a\r\nx: y\r\n\tz"),
        refused("a field folded into a line of spaces", "host: a\r\nx: y\r\n  "),
        refused("a field folded into what looks like one", "host: a\r\nx: y\r\n z: w"),
        refused("Host folded", "host:\r\n a"),
        refused("Host folded behind its value", "host: a\r\n b"),
        refused("a first field that begins folded", " host: a"),
        refused("a first field of a tab", "\t\r\nhost: a"),
    ]
}

fn limits() -> Vec<Case> {
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1));
    let bytes = |count: usize| {
        let frame = "GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n";
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(count - frame.len()))
    };
    let target = |count: usize| get(&format!("/{}", "a".repeat(count - get("/").len())));
    let passes = |name, sent: String| case(name, sent, &[204], Open, &["GET /"]);
    let too_large = |name, sent: String| case(name, sent, &[431], Closed, &[]);
    let long_target = target(MAX_HEAD_BYTES);
    let line = long_target.split(" HTTP").next().unwrap_or_default();
    vec![
        passes("one field less than may be", fields(MAX_FIELDS - 1)),
        passes("as many fields as may be", fields(MAX_FIELDS)),
        too_large("one field more than may be", fields(MAX_FIELDS + 1)),
        too_large("many more fields than may be", fields(1000)),
        passes("one byte less than may be", bytes(MAX_HEAD_BYTES - 1)),
        passes("as many bytes as may be", bytes(MAX_HEAD_BYTES)),
        too_large("one byte more than may be", bytes(MAX_HEAD_BYTES + 1)),
        too_large("many more bytes than may be", bytes(MAX_HEAD_BYTES * 10)),
        case("as long a target as may be", target(MAX_HEAD_BYTES), &[204], Open, &[line]),
        too_large("a target one byte longer than may be", target(MAX_HEAD_BYTES + 1)),
        too_large("a target of a megabyte", target(1024 * 1024)),
        too_large("a line without end", "x".repeat(100_000)),
        too_large("a name without end", format!("GET / HTTP/1.1\r\nhost: a\r\n{}", "x".repeat(100_000))),
        case(
            "a head that is too large, behind a good one",
            get("/1") + &bytes(MAX_HEAD_BYTES + 1),
            &[204, 431],
            Closed,
            &["GET /1"],
        ),
    ]
}
