//! Trailers (RFC 9110, section 6.5): what may come behind a body, whichever versions of HTTP it travels by.
//!
//! They stay trailers all the way; nothing here becomes part of a header. Towards HTTP/1.1 those pass that the field
//! Trailer has announced, and to clients only if they said that trailers are welcome (TE): a chunked body ends at once where
//! nothing was announced, and over HTTP/2 nobody has to announce them.

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::hop;

/// What decides about a message before its body is read, and is no trailer therefore (section 6.5.1). A receiver that
/// merges trailers into the header would be made to believe it.
static OF_HEADERS: [HeaderName; 30] = [
    // Where the body ends, and how it is read.
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    HeaderName::from_static("content_length"),
    HeaderName::from_static("transfer_encoding"),
    // Where it goes, and who asks.
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    // What is asked.
    header::CACHE_CONTROL,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    header::TE,
    // What becomes of the answer.
    header::AGE,
    header::DATE,
    header::EXPIRES,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
];

/// Removes what is none.
pub(super) fn clean(trailers: &mut HeaderMap) {
    hop::remove(trailers);
    for name in &OF_HEADERS {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_belongs_in_a_header_is_removed() {
        let mut trailers = HeaderMap::new();
        for name in OF_HEADERS.iter().map(HeaderName::as_str).chain(["connection", "upgrade", "keep-alive"]) {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        for name in ["grpc-status", "etag", "digest", "server-timing", "authentication-info"] {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        clean(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authentication-info", "digest", "etag", "grpc-status", "server-timing"]);
    }
}
