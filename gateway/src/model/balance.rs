//! How requests are spread over the endpoints of an upstream.

use http::HeaderName;

/// Who of an upstream's endpoints gets a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// One after the other, by weight.
    RoundRobin,
    /// The one of two with fewer requests in flight.
    LeastRequest,
    /// The one of two that is expected to answer first.
    PeakEwma,
    /// The same one for the same key, as long as it has not too much to do.
    Hash(HashKey),
    /// The one that a cookie of the gateway names; without it as for [`Balance::RoundRobin`].
    Sticky {
        /// The cookie's name.
        cookie: String,
    },
}

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header field's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The client's address.
    Source,
    /// The path, without the query.
    Path,
}
