//! Hop-by-hop fields: what belongs to one connection and must not travel further (RFC 9110, section 7.6.1).
//!
//! `Connection` may name more such fields, and they are removed as well. It must not become a tool to strip
//! what the message means or what servers decide by, so the fields in [`END_TO_END`] stay even when they are
//! named: a client that sends `Connection: authorization` is treated as if it had not named that field.
//!
//! No `Via` is added: nginx, HAProxy and Envoy add none unless told to, and it tells strangers about the
//! inside of a network.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// Fields of one connection, whether `Connection` names them or not. Transfer-Encoding is among them: the
/// framing of each side is hyper's. `Trailer` is not: it describes the message, and hyper needs it to pass
/// trailers on.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    // Of an upgrade to HTTP/2, which is not passed on (RFC 7540, section 3.2.1).
    HeaderName::from_static("http2-settings"),
];

/// What survives being named by `Connection`: no sender may name fields that are meant for every recipient
/// (RFC 9110, section 7.6.1), and losing one of these changes who asks, what is asked or how it is read.
/// Every other field goes, whatever its name looks like, for so the standard has it.
static END_TO_END: [HeaderName; 19] = [
    // Where the request goes.
    header::HOST,
    // How the content is read.
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    // hyper sends no trailers without it.
    header::TRAILER,
    // Who asks, and where from.
    header::AUTHORIZATION,
    header::COOKIE,
    header::ORIGIN,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
    // What the other side is told to keep, and for whom.
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    header::CACHE_CONTROL,
];

/// Which of the hop-by-hop fields a message may carry; a bit a field. One walk over the names costs less
/// than ten lookups that nearly always find nothing.
fn present(headers: &HeaderMap) -> u16 {
    let mut bits = 0;
    for name in headers.keys() {
        let bit = match *name {
            header::CONNECTION => 0,
            header::TRANSFER_ENCODING => 1,
            header::UPGRADE => 2,
            header::TE => 3,
            header::PROXY_AUTHENTICATE => 6,
            header::PROXY_AUTHORIZATION => 7,
            _ => match name.as_str() {
                "keep-alive" => 4,
                "proxy-connection" => 5,
                "proxy-authentication-info" => 8,
                "http2-settings" => 9,
                _ => continue,
            },
        };
        bits |= 1 << bit;
    }
    bits
}

/// Removes every hop-by-hop field.
pub(super) fn remove(headers: &mut HeaderMap) {
    let bits = present(headers);
    if bits == 0 {
        return;
    }
    if bits & 1 != 0 {
        remove_named(headers);
    }
    for (index, name) in HOP_BY_HOP.iter().enumerate() {
        if bits & (1 << index) != 0 {
            headers.remove(name);
        }
    }
}

/// Removes them from a request, but says upstream that trailers are welcome if the client said so.
pub(super) fn remove_from_request(headers: &mut HeaderMap) {
    let trailers = headers.get_all(header::TE).iter().any(accepts_trailers);
    remove(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn remove_named(headers: &mut HeaderMap) {
    // Most often `close` or `keep-alive`, which name no field: nothing is allocated for them.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        for (name, sent, kept) in [
            ("nothing to do", &["host: a", "accept: */*"][..], &["host: a", "accept: */*"][..]),
            ("close", &["connection: close", "host: a"], &["host: a"]),
            (
                "each of them",
                &[
                    "keep-alive: timeout=5",
                    "proxy-connection: x",
                    "proxy-authenticate: x",
                    "proxy-authorization: x",
                    "transfer-encoding: chunked",
                    "upgrade: h2c",
                    "http2-settings: AAMAAABk",
                    "te: gzip",
                    "a: b",
                ],
                &["a: b"],
            ),
            ("a named field", &["connection: hint, close", "hint: 1", "host: a"], &["host: a"]),
            (
                "several lines and cases",
                &["connection: A", "connection: b,  C ", "a: 1", "b: 2", "c: 3", "d: 4"],
                &["d: 4"],
            ),
            (
                "names that only look like a standard's",
                &[
                    "connection: x-hop, sec-a, if-b, content-c",
                    "x-hop: 1",
                    "sec-a: 1",
                    "if-b: 1",
                    "content-c: 1",
                ],
                &[],
            ),
            ("trailers are welcome", &["te: trailers, deflate;q=0.5"], &["te: trailers", "connection: te"]),
            ("not a name", &["connection: @, ,", "a: b"], &["a: b"]),
        ] {
            let mut map = headers(sent);
            remove_from_request(&mut map);
            assert_eq!(map, headers(kept), "{name}");
        }
    }

    #[test]
    fn what_a_message_means_cannot_be_named_away() {
        let names: Vec<&str> = END_TO_END.iter().map(HeaderName::as_str).collect();
        let mut sent = HeaderMap::new();
        sent.insert(header::CONNECTION, names.join(", ").parse().unwrap());
        for name in &END_TO_END {
            sent.insert(name.clone(), HeaderValue::from_static("kept"));
        }
        remove(&mut sent);
        for name in &END_TO_END {
            assert_eq!(sent.get(name), Some(&HeaderValue::from_static("kept")), "{name}");
        }
        assert_eq!(sent.len(), END_TO_END.len());
    }
}
