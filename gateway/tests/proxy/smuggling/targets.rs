//! Targets, paths and hosts (RFC 9112, section 3.2; RFC 9110, section 7; RFC 3986, section 6).

use super::End::{Closed, Open};
use super::{Case, case, get, passes, post, refused};

pub(super) fn cases() -> Vec<Case> {
    [forms(), absolute_forms(), paths(), odd_paths(), hosts()].into_iter().flatten().collect()
}

fn with_line(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn forms() -> Vec<Case> {
    let not_implemented = |name, line: &str| case(name, with_line(line), &[501], Closed, &[]);
    vec![
        passes("asterisk-form", with_line("OPTIONS *"), &["OPTIONS *"]),
        passes("OPTIONS of a path", with_line("OPTIONS /a"), &["OPTIONS /a"]),
        refused("asterisk-form of GET", get("*")),
        refused("an asterisk and a query", with_line("OPTIONS *?a")),
        refused("an asterisk and a path", with_line("OPTIONS */a")),
        refused("two asterisks", with_line("OPTIONS **")),
        not_implemented("CONNECT", "CONNECT a:443"),
        not_implemented("CONNECT to an address", "CONNECT [::1]:443"),
        case("CONNECT to a path", with_line("CONNECT /"), &[501], Closed, &[]),
        refused("CONNECT in small letters", with_line("connect a:443")),
        refused("authority-form of GET", get("a:80")),
        refused("a name alone", get("a")),
        refused("a name and a path", get("a/b")),
        refused("a dot", get(".")),
        refused("a query alone", get("?a")),
        refused("a fragment alone", get("#a")),
        refused("a fragment", get("/a#b")),
        refused("a fragment behind a query", get("/a?b#c")),
        refused("a fragment in absolute-form", get("http://a/b#c")),
        refused("a control character", get("/a\x01b")),
        refused("NUL", get("/a\0b")),
        refused("CR", get("/a\rb")),
        refused("a tab", get("/a\tb")),
        refused("DEL", get("/a\x7fb")),
    ]
}

/// Who names a host in the target means that one; what Host says does not count, but must be one valid host.
fn absolute_forms() -> Vec<Case> {
    let refused = |name, target: &str| refused(name, get(target));
    let goes_to = |name, target: &str, seen: &str, host: &'static str| {
        let mut case = passes(name, get(target), &[seen]);
        case.fields = Some(vec![host]);
        case
    };
    let with_fields = |fields: &str| format!("GET http://b.test/ HTTP/1.1\r\n{fields}\r\n");
    vec![
        goes_to("absolute-form", "http://a/b?c", "GET /b?c", "host: a"),
        goes_to("absolute-form of another host", "http://b.test/", "GET /", "host: b.test"),
        goes_to("absolute-form with a port", "http://b.test:81/", "GET /", "host: b.test:81"),
        goes_to("absolute-form without a path", "http://b.test", "GET /", "host: b.test"),
        goes_to("absolute-form with a query alone", "http://b.test?c", "GET /?c", "host: b.test"),
        goes_to("absolute-form in capitals", "HTTP://B.TEST/", "GET /", "host: B.TEST"),
        goes_to("absolute-form of https", "https://b.test/", "GET /", "host: b.test"),
        goes_to("absolute-form with dots", "http://b.test/a/../c", "GET /c", "host: b.test"),
        goes_to("two slashes are a path", "//b.test/c", "GET //b.test/c", "host: a"),
        refused("absolute-form with a user", "http://u@b.test/"),
        refused("absolute-form with a user and a password", "http://u:p@b.test/"),
        refused("absolute-form with two users", "http://a@b@c/"),
        refused("absolute-form without a host", "http:///b"),
        refused("absolute-form without anything", "http://"),
        refused("absolute-form with one slash", "http:/b"),
        refused("absolute-form without slashes", "http:b"),
        refused("absolute-form with backslashes", "http:\\\\b.test\\"),
        refused("absolute-form with a backslash in the host", "http://b.test\\c/"),
        refused("absolute-form with an escape in the host", "http://b%2etest/"),
        refused("absolute-form with a port that is no number", "http://b.test:x/"),
        refused("absolute-form with a long port", "http://b.test:123456/"),
        refused("absolute-form with two ports", "http://b.test:1:2/"),
        refused("absolute-form with a bad address", "http://[::g]/"),
        refused("absolute-form with half an address", "http://[::1/"),
        refused("absolute-form with a comma in the host", "http://b.test,c.test/"),
        refused("absolute-form of ftp", "ftp://b.test/"),
        refused("absolute-form of file", "file:///etc/passwd"),
        refused("absolute-form of javascript", "javascript:alert(1)"),
        super::refused("absolute-form without Host", with_fields("")),
        super::refused("absolute-form with two Hosts", with_fields("host: a\r\nhost: b.test\r\n")),
        super::refused("absolute-form with a bad Host", with_fields("host: a b\r\n")),
    ]
}

fn paths() -> Vec<Case> {
    let passes = |name, target: &str, seen: &str| passes(name, get(target), &[&format!("GET {seen}")]);
    // Where it ends is certain, what it means is not: the connection may live on.
    let ambiguous = |name, target: &str| case(name, get(target), &[400], Open, &[]);
    vec![
        passes("two slashes", "//", "//"),
        passes("empty segments", "/a//b///c/", "/a//b///c/"),
        passes("a dot segment", "/a/./b", "/a/b"),
        passes("a last dot segment", "/a/.", "/a/"),
        passes("two dots", "/a/../b", "/b"),
        passes("two dots at the end", "/a/b/..", "/a/"),
        passes("two dots behind an empty segment", "/a//../b", "/a/b"),
        passes("encoded dots", "/a/%2e%2E/b", "/b"),
        passes("a dot and an encoded dot", "/a/.%2e/b", "/b"),
        passes("an encoded dot segment", "/a/%2e/b", "/a/b"),
        passes("three dots", "/a/.../b", "/a/.../b"),
        passes("a name that begins with dots", "/a/..b", "/a/..b"),
        passes("dots in a query", "/a?b=/../c", "/a?b=/../c"),
        passes("dots in a path and in a query", "/a/../b?c=/../d", "/b?c=/../d"),
        passes("dots that are encoded twice", "/a/%252e%252e/b", "/a/%252e%252e/b"),
        passes("a slash that is encoded twice", "/a%252fb", "/a%252fb"),
        passes("escapes that need none", "/%61%2Db", "/%61%2Db"),
        passes("an encoded line end", "/a%0d%0ab", "/a%0d%0ab"),
        passes("an encoded space", "/a%20b", "/a%20b"),
        passes("an encoded question mark", "/a%3fb", "/a%3fb"),
        passes("an encoded number sign", "/a%23b", "/a%23b"),
        passes("an encoded colon", "/a%3Ab", "/a%3Ab"),
        passes("an encoded semicolon", "/a%3bb", "/a%3bb"),
        passes("UTF-8 in escapes", "/%c3%a4", "/%c3%a4"),
        passes("Latin-1 in escapes", "/%e4", "/%e4"),
        passes("parameters of a segment", "/a;b=c/d", "/a;b=c/d"),
        ambiguous("two dots above the root", "/.."),
        ambiguous("two dots above the root, further in", "/a/../../b"),
        ambiguous("encoded dots above the root", "/%2e%2e/b"),
        ambiguous("two dots with parameters", "/a/..;/b"),
        ambiguous("two dots with parameters that have a value", "/a/..;b=c/d"),
        ambiguous("a dot with parameters", "/a/.;b/c"),
        ambiguous("two dots with encoded parameters", "/a/..%3bb/c"),
        ambiguous("encoded dots with parameters", "/a/%2e%2e;/b"),
        ambiguous("an encoded slash", "/a%2fb"),
        ambiguous("an encoded slash in capitals", "/a%2Fb"),
        ambiguous("encoded slashes and dots", "/a/..%2f..%2fb"),
        ambiguous("a backslash", "/a\\b"),
        ambiguous("backslashes and dots", "/a\\..\\b"),
        ambiguous("an encoded backslash", "/a%5cb"),
        ambiguous("an encoded NUL", "/a%00b"),
        ambiguous("half an escape", "/a%2"),
        ambiguous("a percent sign", "/a%"),
        ambiguous("an escape that is no number", "/a%zzb"),
        ambiguous("an escape with a sign", "/a%+1b"),
        ambiguous("an escape of IIS", "/a%u002fb"),
        ambiguous("an encoded slash in absolute-form", "http://a/b%2fc"),
    ]
}

fn odd_paths() -> Vec<Case> {
    let ambiguous = |name, target: &str| case(name, get(target), &[400], Open, &[]);
    vec![
        passes("bars, carets and brackets", get("/a|b^c[d]{e}"), &["GET /a|b^c[d]{e}"]),
        passes("a query of odd characters", get("/?a=%zz&b=\\&c=%00"), &["GET /?a=%zz&b=\\&c=%00"]),
        passes("two question marks", get("/?a?b"), &["GET /?a?b"]),
        ambiguous("a dot as two overlong bytes", "/%c0%ae%c0%ae/a"),
        ambiguous("a slash as two overlong bytes", "/a%c0%afb"),
        ambiguous("a backslash as two overlong bytes", "/a%c1%9cb"),
        ambiguous("a slash as three overlong bytes", "/a%e0%80%afb"),
        ambiguous("a slash as four overlong bytes", "/a%f0%80%80%afb"),
        // A body may be on its way that nobody will read.
        case(
            "an ambiguous path with a body",
            "POST /a%2fb HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            &[400],
            Closed,
            &[],
        ),
        case(
            "an ambiguous path in the middle",
            get("/1") + &get("/a%2fb") + &get("/2"),
            &[204, 400, 204],
            Open,
            &["GET /1", "GET /2"],
        ),
        case(
            "a malformed request in the middle",
            get("/1") + &get("/a b") + &get("/2"),
            &[204, 400],
            Closed,
            &["GET /1"],
        ),
        case(
            "a doubtful body in the middle",
            get("/1") + &post("content-length: 3, 3", "abc") + &get("/2"),
            &[204, 400],
            Closed,
            &["GET /1"],
        ),
        case(
            "CONNECT in the middle",
            get("/1") + "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n" + &get("/2"),
            &[204, 501],
            Closed,
            &["GET /1"],
        ),
        case(
            "an end in the middle",
            get("/1") + "GET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" + &get("/3"),
            &[204, 204],
            Closed,
            &["GET /1", "GET /2"],
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let with = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let passes = |name, host: &'static str| {
        let mut case = passes(name, with(&format!("{host}\r\n")), &["GET /"]);
        case.fields = Some(vec![host]);
        case
    };
    let refused = |name, host: &str| refused(name, with(&format!("host: {host}\r\n")));
    vec![
        passes("a host with a port", "host: a.test:8080"),
        passes("a host with an empty port", "host: a.test:"),
        passes("a host in capitals", "host: A.TEST"),
        passes("a host with the root's dot", "host: a.test."),
        passes("a host with an underscore", "host: a_b.test"),
        passes("an IPv4 address", "host: 192.0.2.1"),
        passes("an IPv6 address", "host: [2001:db8::1]:80"),
        super::refused("no Host", with("")),
        super::refused("two Hosts", with("host: a\r\nhost: b\r\n")),
        super::refused("two equal Hosts", with("host: a\r\nhost: a\r\n")),
        super::refused("two Hosts in two cases", with("host: a\r\nHOST: b\r\n")),
        super::refused("a Host and an empty one", with("host: a\r\nhost:\r\n")),
        super::refused("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n"),
        super::refused("a Host with a space before its colon", with("host : a\r\n")),
        refused("an empty Host", ""),
        refused("a port alone", ":80"),
        refused("hosts in a list", "a.test, b.test"),
        refused("hosts with a space between", "a.test b.test"),
        refused("hosts with a tab between", "a.test\tb.test"),
        refused("a host with a path", "a.test/b"),
        refused("a host with a query", "a.test?b"),
        refused("a host with a fragment", "a.test#b"),
        refused("a host with a backslash", "a.test\\b"),
        refused("a host with a user", "u@a.test"),
        refused("a host with an empty user", "@a.test"),
        refused("a host with a scheme", "http://a.test"),
        refused("a host with a port that is no number", "a.test:http"),
        refused("a host with a signed port", "a.test:+80"),
        refused("a host with a long port", "a.test:000080"),
        refused("a host with two ports", "a.test:80:81"),
        refused("a host with an escape", "a%2etest"),
        refused("a host with NUL", "a\0.test"),
        refused("a host with CR", "a\r.test"),
        refused("a host beyond ASCII", "\u{e4}.test"),
        refused("a host of an asterisk", "*"),
        refused("a host in quotes", "\"a.test\""),
        refused("a long host", &"a".repeat(256)),
        refused("a bad IPv6 address", "[::g]"),
        refused("an IPv6 address with a zone", "[fe80::1%25eth0]"),
        refused("an IPv6 address without brackets", "2001:db8::1"),
        refused("half an IPv6 address", "[::1"),
        refused("text behind an IPv6 address", "[::1]a"),
    ]
}
