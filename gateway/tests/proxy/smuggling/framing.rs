//! Where a body ends: lengths, codings, chunks, trailers (RFC 9112, sections 6 and 7).

use super::End::Closed;
use super::{Case, FOLLOWING, broken, case, passes, post, refused};

/// Rows that are also sent in two parts, cut at each of their bytes.
pub(super) const CUT_ANYWHERE: &[&str] = &[
    "a length",
    "a body that looks like a request",
    "length, then chunks",
    "two chunks",
    "a chunk shorter than its size",
    "declared trailers",
    "a request behind the last chunk",
    "LF alone in an extension",
];

pub(super) fn cases() -> Vec<Case> {
    [lengths(), more_lengths(), codings(), both(), chunks(), broken_chunks(), trailers()]
        .into_iter()
        .flatten()
        .collect()
}

fn lengths() -> Vec<Case> {
    let refused = |name, value: &str| refused(name, post(&format!("content-length:{value}"), "abc"));
    let passes = |name, value: &str| {
        let sent = post(&format!("content-length:{value}"), "abc");
        passes(name, sent, &["POST / 3:abc"])
    };
    vec![
        passes("a length", " 3"),
        passes("no space before the length", "3"),
        passes("tabs and spaces around the length", " \t3\t "),
        passes("zeros before the length", " 0003"),
        refused("lengths in a list", " 3, 4"),
        refused("equal lengths in a list", " 3, 3"),
        refused("a list with one length", " 3,"),
        refused("a list that begins with nothing", " ,3"),
        refused("a length with a plus", " +3"),
        refused("a length with a minus", " -3"),
        refused("a length of minus zero", " -0"),
        refused("a length in hexadecimal", " 0x3"),
        refused("a length with a letter", " 3a"),
        refused("a length of two words", " 3 0"),
        refused("a length with a fraction", " 3.0"),
        refused("a length with an exponent", " 3e0"),
        refused("a length with an underscore", " 3_0"),
        refused("a length with a parameter", " 3;a=b"),
        refused("a length in quotes", " \"3\""),
        refused("an empty length", ""),
        refused("a length of spaces", " \t "),
        refused("a length after a vertical tab", " \x0b3"),
        refused("a length before a form feed", " 3\x0c"),
        refused("a length before NUL", " 3\0"),
        refused("a length before CR", " 3\r"),
        refused("a length after a no-break space", " \u{a0}3"),
        refused("a length in Arabic digits", " ٣"),
        refused("a length of 63 bits and one", " 9223372036854775808"),
        refused("a length of 64 bits and one", " 18446744073709551616"),
        refused("a length that is 3 in 64 bits", " 18446744073709551619"),
        refused("a length in the next line", "\r\n 3"),
        refused("a length folded behind its number", " 3\r\n 0"),
    ]
}

fn more_lengths() -> Vec<Case> {
    let refused = |name, fields: &str| refused(name, post(fields, "abc"));
    let inner = "GET /inner HTTP/1.1\r\nhost: a\r\n\r\n";
    let around = format!("content-length: {}", inner.len());
    let seen = format!("POST / {}:{inner}", inner.len());
    let with_method = |method: &str| {
        format!("{method} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{inner}", inner.len())
    };
    let seen_with = |method: &str| format!("{method} {}:{inner}", inner.len());
    let old = |length: &str| format!("POST / HTTP/1.0\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
    vec![
        passes("a length in capitals", post("CONTENT-LENGTH: 3", "abc"), &["POST / 3:abc"]),
        passes("a body that looks like a request", post(&around, inner), &[&seen]),
        passes("GET with a body", with_method("GET /"), &[&seen_with("GET /")]),
        passes("HEAD with a body", with_method("HEAD /"), &[&seen_with("HEAD /")]),
        passes("DELETE with a body", with_method("DELETE /"), &[&seen_with("DELETE /")]),
        passes("TRACE with a body", with_method("TRACE /"), &[&seen_with("TRACE /")]),
        passes("an unknown method with a body", with_method("BREW /"), &[&seen_with("BREW /")]),
        passes("OPTIONS * with a body", with_method("OPTIONS *"), &[&seen_with("OPTIONS *")]),
        passes("a length of zero", post("content-length: 0", inner), &["POST / 0:", "GET /inner"]),
        passes("no length", format!("POST / HTTP/1.1\r\nhost: a\r\n\r\n{inner}"), &["POST /", "GET /inner"]),
        passes(
            "a request right behind a body",
            post("content-length: 3", &format!("abc{inner}")),
            &["POST / 3:abc", "GET /inner"],
        ),
        case("a body without a length", post("x: y", "abc\r\n\r\n"), &[204, 400], Closed, &["POST /"]),
        case(
            "a body longer than its length",
            post("content-length: 3", "abcd e f\r\n\r\n"),
            &[204, 400],
            Closed,
            &["POST / 3:abc"],
        ),
        case("a length in HTTP/1.0", old("3"), &[204], Closed, &["POST / 3:abc"]),
        super::refused("a bad length in HTTP/1.0", old("3, 3")),
        refused("two lengths", "content-length: 3\r\ncontent-length: 4"),
        refused("two equal lengths", "content-length: 3\r\ncontent-length: 3"),
        refused("two equal lengths in two cases", "content-length: 3\r\nCONTENT-LENGTH: 3"),
        refused("a length and an empty one", "content-length: 3\r\ncontent-length:"),
        refused("a length far behind another", "content-length: 3\r\na: b\r\nc: d\r\ncontent-length: 0"),
        refused("a space before the length's colon", "content-length : 3"),
        refused("a tab before the length's colon", "content-length\t: 3"),
        refused("NUL in the length's name", "content-length\0: 3"),
        refused("a space in the length's name", "content length: 3"),
        refused("a length in a folded line", "x: y\r\n content-length: 3"),
        refused("a length behind CR", "x: y\rcontent-length: 3"),
        refused("a length behind LF", "x: y\ncontent-length: 3"),
        refused("a length whose name has an underscore", "content_length: 3"),
    ]
}

fn codings() -> Vec<Case> {
    let refused = |name, field: &str| refused(name, post(field, "3\r\nabc\r\n0\r\n\r\n"));
    let passes =
        |name, field: &str| passes(name, post(field, "3\r\nabc\r\n0\r\n\r\n"), &["POST / chunked:abc"]);
    vec![
        passes("chunked", "transfer-encoding: chunked"),
        passes("chunked in capitals", "TRANSFER-ENCODING: CHUNKED"),
        passes("no space before chunked", "transfer-encoding:chunked"),
        passes("tabs and spaces around chunked", "transfer-encoding: \tchunked \t"),
        refused("another coding", "transfer-encoding: gzip"),
        refused("chunked is not alone", "transfer-encoding: gzip, chunked"),
        refused("chunked is not last", "transfer-encoding: chunked, gzip"),
        refused("identity", "transfer-encoding: identity"),
        refused("identity behind chunked", "transfer-encoding: chunked, identity"),
        refused("identity before chunked", "transfer-encoding: identity, chunked"),
        refused("chunked twice in a line", "transfer-encoding: chunked, chunked"),
        refused("chunked in two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        refused("chunked, then nonsense", "transfer-encoding: chunked\r\ntransfer-encoding: cow"),
        refused("nonsense, then chunked", "transfer-encoding: cow\r\ntransfer-encoding: chunked"),
        refused("chunked, then nothing", "transfer-encoding: chunked\r\ntransfer-encoding:"),
        refused("no coding", "transfer-encoding:"),
        refused("xchunked", "transfer-encoding: xchunked"),
        refused("chunkedx", "transfer-encoding: chunkedx"),
        refused("chunk", "transfer-encoding: chunk"),
        refused("chunked in quotes", "transfer-encoding: \"chunked\""),
        refused("chunked in single quotes", "transfer-encoding: 'chunked'"),
        refused("chunked with a parameter", "transfer-encoding: chunked;q=1"),
        refused("chunked with a semicolon", "transfer-encoding: chunked;"),
        refused("a comma behind chunked", "transfer-encoding: chunked,"),
        refused("a comma before chunked", "transfer-encoding: ,chunked"),
        refused("two colons", "transfer-encoding:: chunked"),
        refused("chunked after a vertical tab", "transfer-encoding: \x0bchunked"),
        refused("chunked before a vertical tab", "transfer-encoding: chunked\x0b"),
        refused("chunked after a form feed", "transfer-encoding: \x0cchunked"),
        refused("chunked before NUL", "transfer-encoding: chunked\0"),
        refused("chunked before CR", "transfer-encoding: chunked\r"),
        refused("chunked after CR", "transfer-encoding:\rchunked"),
        refused("chunked after a backspace", "transfer-encoding: x\x08chunked"),
        refused("chunked after a no-break space", "transfer-encoding: \u{a0}chunked"),
        refused("chunked with a Kelvin sign", "transfer-encoding: chun\u{212a}ed"),
        refused("chunked in the next line", "transfer-encoding:\r\n chunked"),
        refused("chunked in the next line, with a tab", "transfer-encoding:\r\n\tchunked"),
        refused("a space before the coding's colon", "transfer-encoding : chunked"),
        refused("a tab before the coding's colon", "transfer-encoding\t: chunked"),
        refused("a vertical tab before the coding's colon", "transfer-encoding\x0b: chunked"),
        refused("NUL before the coding's colon", "transfer-encoding\0: chunked"),
        refused("a space before the coding's name", " transfer-encoding: chunked"),
        refused("a tab before the coding's name", "x: y\r\n\ttransfer-encoding: chunked"),
        refused("a space in the coding's name", "transfer encoding: chunked"),
        refused("a coding behind CR", "x: y\rtransfer-encoding: chunked"),
        refused("a coding behind LF", "x: y\ntransfer-encoding: chunked"),
        refused("a coding behind CR CR LF", "x: y\r\r\ntransfer-encoding: chunked"),
        refused("a coding whose name has an underscore", "transfer_encoding: chunked"),
        refused("a coding whose name has a dotless i", "transfer-encod\u{131}ng: chunked"),
        super::refused(
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        super::refused(
            "chunked in HTTP/1.0 that is kept alive",
            "POST / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        super::passes(
            "a coding of the content is none of the message",
            post("content-encoding: chunked\r\ncontent-length: 3", "abc"),
            &["POST / 3:abc"],
        ),
        super::passes(
            "GET in chunks",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            &["GET / chunked:abc"],
        ),
    ]
}

/// CL.TE and TE.CL, with what would be smuggled.
fn both() -> Vec<Case> {
    let refused = |name, fields: &str| refused(name, post(fields, &format!("0\r\n\r\n{FOLLOWING}")));
    vec![
        refused("length, then chunks", "content-length: 5\r\ntransfer-encoding: chunked"),
        refused("chunks, then length", "transfer-encoding: chunked\r\ncontent-length: 5"),
        refused("a length of zero and chunks", "content-length: 0\r\ntransfer-encoding: chunked"),
        refused("chunks and a length in another case", "Transfer-Encoding: chunked\r\nCONTENT-length: 5"),
        refused("a length and another coding", "content-length: 5\r\ntransfer-encoding: identity"),
        refused("a length and an empty coding", "content-length: 5\r\ntransfer-encoding:"),
        refused("chunks and a bad length", "transfer-encoding: chunked\r\ncontent-length: x"),
        refused(
            "two lengths and chunks",
            "content-length: 5\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
        ),
        refused(
            "chunks, whose coding Connection names, and a length",
            "connection: transfer-encoding\r\n\
            transfer-encoding: chunked\r\ncontent-length: 5",
        ),
        refused(
            "chunks, and a length that Connection names",
            "connection: content-length\r\n\
            transfer-encoding: chunked\r\ncontent-length: 5",
        ),
    ]
}

const CHUNKED: &str = "transfer-encoding: chunked";

fn chunks() -> Vec<Case> {
    let passes = |name, body: &str, seen: &str| {
        passes(name, post(CHUNKED, body), &[&format!("POST / chunked:{seen}")])
    };
    vec![
        passes("no chunk", "0\r\n\r\n", ""),
        passes("two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde"),
        passes("a size in capitals", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        passes("a size in small letters", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        passes("zeros before the size", "0003\r\nabc\r\n0\r\n\r\n", "abc"),
        passes("a size of 16 digits", "0000000000000003\r\nabc\r\n0\r\n\r\n", "abc"),
        passes("a last chunk of many zeros", "3\r\nabc\r\n00000\r\n\r\n", "abc"),
        passes("an extension", "3;a=b\r\nabc\r\n0\r\n\r\n", "abc"),
        passes("an extension in quotes", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", "abc"),
        passes("an extension without a value", "3;a\r\nabc\r\n0;z\r\n\r\n", "abc"),
        // Extensions go nowhere.
        passes("NUL in an extension", "3;a\0b\r\nabc\r\n0\r\n\r\n", "abc"),
        passes("a chunk that looks like the last", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        passes("a chunk that looks like a request", "e\r\nGET / HTTP/1.1\r\n0\r\n\r\n", "GET / HTTP/1.1"),
        super::passes(
            "a request behind the last chunk",
            post(CHUNKED, "3\r\nabc\r\n0\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n"),
            &["POST / chunked:abc", "GET /inner"],
        ),
        case(
            "bytes behind the last chunk",
            post(CHUNKED, "0\r\n\r\nabc\r\n\r\n"),
            &[204, 400],
            Closed,
            &["POST / chunked:"],
        ),
    ]
}

fn broken_chunks() -> Vec<Case> {
    let broken =
        |name, body: &str, seen: &str| broken(name, post(CHUNKED, body), &format!("POST / chunked:{seen}"));
    let at_once = |name, size: &str| broken(name, &format!("{size}\r\nabc\r\n0\r\n\r\n"), "");
    vec![
        at_once("0x before a size", "0x3"),
        at_once("0X before a size", "0X3"),
        at_once("x before a size", "x3"),
        at_once("# before a size", "#3"),
        at_once("a plus before a size", "+3"),
        at_once("a minus before a size", "-3"),
        at_once("a size in quotes", "\"3\""),
        at_once("a space before a size", " 3"),
        at_once("a tab before a size", "\t3"),
        at_once("a space after a size", "3 "),
        at_once("a tab after a size", "3\t"),
        at_once("a space before an extension", "3 ;a=b"),
        at_once("a vertical tab after a size", "3\x0b"),
        at_once("NUL after a size", "3\0"),
        at_once("an underscore in a size", "0_3"),
        at_once("a comma in a size", "0,3"),
        at_once("a fraction of a size", "3.0"),
        at_once("a letter that is no digit", "3g"),
        at_once("no size", ""),
        at_once("only an extension", ";a=b"),
        at_once("17 digits", "00000000000000003"),
        at_once("a size of 64 bits and more", "10000000000000003"),
        at_once("CR after a size", "3\r"),
        at_once("CR in a size line", "3\rabc"),
        at_once("CR in an extension", "3;a\rb"),
        at_once("LF alone in an extension", "3;a\nb"),
        at_once("LF alone behind a size that ends a line", "3\n2\r\nab"),
        at_once("a long extension", &format!("3;{}", "a".repeat(300))),
        broken("LF alone after a size", "3\nabc\r\n0\r\n\r\n", ""),
        broken("a chunk without an end of line", "3\r\nabc0\r\n\r\n", "abc"),
        broken("a chunk that ends with LF alone", "3\r\nabc\n0\r\n\r\n", "abc"),
        broken("a chunk that ends with CR alone", "3\r\nabc\r0\r\n\r\n", "abc"),
        broken("a chunk that ends with LF CR", "3\r\nabc\n\r0\r\n\r\n", "abc"),
        broken("a chunk that ends with two bytes of another kind", "3\r\nabcXX0\r\n\r\n", "abc"),
        broken("a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n", "abc"),
        broken("a chunk shorter than its size", "5\r\nabc\r\n0\r\n\r\n", "abc\r\n"),
        broken("a bad size behind a good chunk", "3\r\nabc\r\nx\r\n\r\n", "abc"),
        broken("a last chunk that ends with LF alone", "3\r\nabc\r\n0\n\r\n", "abc"),
        broken("a last chunk of minus zero", "3\r\nabc\r\n-0\r\n\r\n", "abc"),
        broken("a last chunk of 0x0", "3\r\nabc\r\n0x0\r\n\r\n", "abc"),
        broken("a space behind the last chunk", "3\r\nabc\r\n0 \r\n\r\n", "abc"),
    ]
}

fn trailers() -> Vec<Case> {
    let body = |trailers: &str| format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
    let passes = |name, declared: &str, trailers: &str, seen: &str| {
        let sent = post(&format!("{CHUNKED}\r\ntrailer: {declared}"), &body(trailers));
        passes(name, sent, &[&format!("POST / chunked:abc{seen}")])
    };
    let broken = |name, trailers: &str| broken(name, post(CHUNKED, &body(trailers)), "POST / chunked:abc");
    let forbidden = "content-length: 9\r\ntransfer-encoding: chunked\r\nhost: b\r\nauthorization: x\r\n\
                     content-type: x\r\ncontent-encoding: x\r\nsum: 7\r\n";
    let named = "content-length, transfer-encoding, host, authorization, content-type, content-encoding, sum";
    vec![
        passes("declared trailers", "sum", "sum: 7\r\n", " + sum: 7"),
        passes("trailers that nobody declared", "sum", "other: 7\r\n", ""),
        passes("trailers that may not be any", named, forbidden, " + sum: 7"),
        passes(
            "trailers that claim who asks",
            "x-forwarded-for, x-real-ip, forwarded, client-cert, sum",
            "x-forwarded-for: 6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nclient-cert: x\r\nsum: 7\r\n",
            " + sum: 7",
        ),
        broken("a space before a trailer's colon", "a : b\r\n"),
        broken("a trailer without a colon", "abc\r\n"),
        broken("a trailer without a name", ": b\r\n"),
        broken("a folded trailer", "a: b\r\n c\r\n"),
        broken("trailers that begin folded", " a: b\r\n"),
        broken("a trailer that ends with LF alone", "a: b\n"),
        broken("a trailer with CR", "a: b\rc\r\n"),
        broken("a trailer with NUL", "a: b\0\r\n"),
        broken("a trailer with NUL in its name", "a\0: b\r\n"),
        broken("a request line as a trailer", "GET / HTTP/1.1\r\n"),
        broken("trailers that end with LF alone", "a: b\r\n\n"),
        broken("more trailers than a head may have bytes", &"a: b\r\n".repeat(2000)),
    ]
}
