//! Reads a request back from the bytes that were written for it, to send it once more.
//!
//! Every request over a pooled connection may need that, hardly any does: so its head is kept as bytes, by
//! one short copy, and not as a second map of headers. Over HTTP/2, where other bytes are written, the copy is made
//! for this alone.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::super::body::RequestBody;

/// More fields than any listener lets through.
const MAX_FIELDS: usize = 1024;

/// Room for a usual head.
const HEAD_BYTES: usize = 512;

/// A head as HTTP/1.1 would have it.
pub(super) fn head<B>(request: &Request<B>) -> Vec<u8> {
    let mut written = Vec::with_capacity(HEAD_BYTES);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        written.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            written.extend_from_slice(part);
        }
    }
    written.extend_from_slice(b"\r\n");
    written
}

/// The request, or `None` if the bytes are not one whole head.
pub(super) fn request(written: &[u8]) -> Option<Request<RequestBody>> {
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = head.parse(written).ok()?;
    if length.is_partial() || length.unwrap() != written.len() {
        return None;
    }
    let mut request = Request::new(RequestBody::empty());
    *request.version_mut() = Version::HTTP_11;
    *request.method_mut() = Method::from_bytes(head.method?.as_bytes()).ok()?;
    *request.uri_mut() = head.path?.parse::<Uri>().ok()?;
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_of_a_head_is_read_back(
            method in "[A-Z]{1,8}",
            target in "/[a-z0-9/%._~-]{0,20}(\\?[a-z0-9&=]{0,10})?",
            fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,10}", "([!-~\u{80}-\u{ff}]([ -~\t]{0,10}[!-~])?)?"), 0..12),
        ) {
            let mut request = Request::new(());
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            *request.uri_mut() = target.parse().unwrap();
            for (name, value) in fields {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let read = super::request(&head(&request)).unwrap();
            prop_assert_eq!(read.method(), request.method());
            prop_assert_eq!(read.uri(), request.uri());
            prop_assert_eq!(read.headers(), request.headers());
        }
    }

    #[test]
    fn a_written_head_is_read_back() {
        let request = request(b"GET /a?b=%20 HTTP/1.1\r\nhost: x\r\na: 1\r\na: 2\r\n\r\n").unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/a?b=%20");
        assert_eq!(request.headers()["host"], "x");
        assert_eq!(request.headers().get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn anything_but_a_whole_head_is_not() {
        for written in [&b""[..], b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\n\r\nbody"] {
            assert!(request(written).is_none());
        }
    }
}
