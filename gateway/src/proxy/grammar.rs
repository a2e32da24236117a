//! The grammar of a head's lines (RFC 9112, sections 3 and 5): what hyper's parser would refuse, refused before.
//!
//! hyper answers a head that it cannot parse with an empty 400 of its own, and the service never hears of it. A
//! client should read what was wrong, and the refusal should be counted like any other. So this takes what hyper
//! takes, but for targets with fragments, and refuses what it refuses, but for later versions of HTTP/1; a property test
//! holds the two together. The one thing left to hyper is a target beyond 64 KiB, where the header limit most often
//! strikes first.

use http::Uri;

use super::framing::Refusal;

/// A bit a byte: what a name or a method is made of (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = bytes_of(b"!#$%&'*+-.^_`|~");
/// Bytes of a path and a query that no parser objects to.
const TARGET: [bool; 256] = bytes_of(b"/?-._~%!$&'()*+,;=:@");

/// Letters, digits and these.
const fn bytes_of(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}

/// Which HTTP/1 a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Minor {
    Zero,
    One,
    /// Nobody has defined one. Whoever speaks it is to be understood as if it were HTTP/1.1 (RFC 9110, section 2.5), as
    /// nginx does. To answer 505 would be as safe, for what goes on says HTTP/1.1 either way, but 505 is about major
    /// versions.
    Later,
}

/// Checks a request line; gives the version.
pub(super) fn request_line(line: &[u8]) -> Result<Minor, Refusal> {
    if line == b"PRI * HTTP/2.0" {
        return Err(Refusal::Preface);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed("The request line is not a method, a target and a version."));
    };
    if method.is_empty() || !consists_of(method, &TOKEN) {
        return Err(Refusal::Malformed("The method is not a token."));
    }
    if !is_target(target) {
        return Err(Refusal::Malformed("The target is malformed."));
    }
    match version {
        b"HTTP/1.1" => Ok(Minor::One),
        b"HTTP/1.0" => Ok(Minor::Zero),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', b'0'..=b'9'] => match major {
            b'1' => Ok(Minor::Later),
            b'2'..=b'9' => Err(Refusal::Version),
            // HTTP/0.9 has no version in its requests: whoever writes one down speaks nothing that there is.
            _ => Err(Refusal::Malformed("There is no such version of HTTP.")),
        },
        _ => Err(Refusal::Malformed("The version is not one of HTTP.")),
    }
}

/// Splits a field into name and value.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let end = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(line.len());
    match (end, line.get(end)) {
        (1.., Some(b':')) => {}
        // Servers differ about it, and that has carried many an attack.
        (1.., Some(b' ' | b'\t')) => {
            return Err(Refusal::Malformed("A space stands before a field's colon."));
        }
        _ => return Err(Refusal::Malformed("A field's name is not a token.")),
    }
    let (name, value) = (&line[..end], &line[end + 1..]);
    // Without an early end, so that it is done many bytes at a time.
    let controls = value.iter().fold(false, |found, &byte| found | is_control(byte));
    if controls {
        return Err(Refusal::Malformed("A field's value holds a control character."));
    }
    Ok((name, value.trim_ascii()))
}

fn consists_of(text: &[u8], table: &[bool; 256]) -> bool {
    text.iter().all(|byte| table[usize::from(*byte)])
}

/// Anything out of the ordinary is left to the very parser that hyper uses, but for fragments: that one drops them
/// without a word, and no target has any (RFC 9112, section 3.2).
fn is_target(target: &[u8]) -> bool {
    (target.starts_with(b"/") && consists_of(target, &TARGET))
        || (!target.contains(&b'#') && Uri::try_from(target).is_ok())
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What hyper makes of a head with this request line and this field; fragments aside.
    fn hyper_takes(line: &[u8], field: &[u8]) -> bool {
        let head = [line, b"\r\n", field, b"\r\n\r\n"].concat();
        let mut fields = [httparse::EMPTY_HEADER; 4];
        let mut request = httparse::Request::new(&mut fields);
        let whole = matches!(request.parse(&head), Ok(status) if status.is_complete());
        whole && request.path.is_some_and(|path| !path.contains('#') && path.parse::<Uri>().is_ok())
    }

    #[test]
    fn request_lines_are_taken_or_refused() {
        const MALFORMED: Result<Minor, Option<Refusal>> = Err(None);
        const VERSION: Result<Minor, Option<Refusal>> = Err(Some(Refusal::Version));
        for (line, expected) in [
            ("GET / HTTP/1.1", Ok(Minor::One)),
            ("GET / HTTP/1.0", Ok(Minor::Zero)),
            ("M-SEARCH * HTTP/1.1", Ok(Minor::One)),
            ("GET /a|b^c?[d] HTTP/1.1", Ok(Minor::One)),
            ("GET http://a.test/b HTTP/1.1", Ok(Minor::One)),
            ("CONNECT a.test:443 HTTP/1.1", Ok(Minor::One)),
            ("GET / HTTP/1.2", Ok(Minor::Later)),
            ("GET / HTTP/1.9", Ok(Minor::Later)),
            ("GET / HTTP/2.0", VERSION),
            ("GET / HTTP/9.9", VERSION),
            ("GET / HTTP/0.9", MALFORMED),
            ("GET / HTTP/1.10", MALFORMED),
            ("GET / HTTP/1.x", MALFORMED),
            ("GET / http/1.1", MALFORMED),
            ("GET  / HTTP/1.1", MALFORMED),
            ("GET / HTTP/1.1 ", MALFORMED),
            ("GET /a b HTTP/1.1", MALFORMED),
            ("GET /", MALFORMED),
            ("GET\t/\tHTTP/1.1", MALFORMED),
            (" / HTTP/1.1", MALFORMED),
            ("G(T / HTTP/1.1", MALFORMED),
            ("GET a/b HTTP/1.1", MALFORMED),
            ("GET /a#b HTTP/1.1", MALFORMED),
            ("GET http://a.test/b#c HTTP/1.1", MALFORMED),
            ("GET /a\0 HTTP/1.1", MALFORMED),
            ("GET /a\r HTTP/1.1", MALFORMED),
            ("PRI * HTTP/2.0", Err(Some(Refusal::Preface))),
            ("hello", MALFORMED),
        ] {
            let read = request_line(line.as_bytes());
            let told = |refusal| if matches!(refusal, Refusal::Malformed(_)) { None } else { Some(refusal) };
            assert_eq!(read.map_err(told), expected, "{line:?}");
            let is_taken = matches!(read, Ok(Minor::Zero | Minor::One));
            assert_eq!(hyper_takes(line.as_bytes(), b"a: b"), is_taken, "{line:?}, by hyper");
        }
    }

    #[test]
    fn fields_are_taken_or_refused() {
        for (line, expected) in [
            (&b"Host: a"[..], Some((&b"Host"[..], &b"a"[..]))),
            (b"a:", Some((b"a", b""))),
            (b"a:b", Some((b"a", b"b"))),
            (b"a: \t b:c \t", Some((b"a", b"b:c"))),
            (b"a: b\tc\xff", Some((b"a", b"b\tc\xff"))),
            (b"a_b: c", Some((b"a_b", b"c"))),
            (b"a : b", None),
            (b"a\t: b", None),
            (b": b", None),
            (b"a", None),
            (b"a b: c", None),
            (b"a\xff: b", None),
            (b"a: b\0", None),
            (b"a: b\rc", None),
            (b"a: b\x7f", None),
        ] {
            assert_eq!(field(line).ok(), expected, "{:?}", line.escape_ascii().to_string());
            let taken = hyper_takes(b"GET / HTTP/1.1", line);
            assert_eq!(taken, expected.is_some(), "{:?}, by hyper", line.escape_ascii().to_string());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn hyper_takes_what_is_taken_here_and_nothing_else(
            line in proptest::collection::vec(proptest::sample::select(vec![
                &b"GET"[..], b" ", b" /", b"*", b"a", b"?", b"#", b"%", b"http://", b":80", b"@", b"[", b"\"", b"^",
                b" HTTP/1.1", b" HTTP/1.0", b"\t", b"\xc3\xa9", b"\\", b"<", b"\x01",
            ]), 1..7),
            name in proptest::collection::vec(any::<u8>().prop_filter("no line end", |b| !b"\r\n".contains(b)), 1..3),
            value in proptest::collection::vec(any::<u8>().prop_filter("no line end", |b| !b"\r\n".contains(b)), 0..3),
        ) {
            let line = line.concat();
            let field_line = [&name[..], b":", &value].concat();
            prop_assume!(!matches!(field_line[0], b' ' | b'\t'));
            prop_assert_eq!(request_line(&line).is_ok(), hyper_takes(&line, b"a: b"));
            prop_assert_eq!(field(&field_line).is_ok(), hyper_takes(b"GET / HTTP/1.1", &field_line));
        }
    }
}
