//! What ties a request to an endpoint: the key that it is hashed by, or a cookie that the gateway gave its client.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HeaderValue, SET_COOKIE};
use sha2::{Digest as _, Sha256};

use crate::model::{self, Balance, HashKey};

use super::super::cookie;
use super::ring;

/// The key of a request, if its upstream hashes by one and the request has it.
pub(super) fn key(balance: &Balance, path: &str, headers: &HeaderMap, client: Option<IpAddr>) -> Option<u64> {
    let Balance::Hash(key) = balance else { return None };
    match key {
        HashKey::Header(name) => headers.get(name).map(|value| ring::hash(value.as_bytes())),
        HashKey::Cookie(name) => cookie::first(headers, name).map(ring::hash),
        HashKey::Source => client.map(|client| ring::hash(&client)),
        HashKey::Path => Some(ring::hash(path.as_bytes())),
    }
}

/// The cookie that names an endpoint.
#[derive(Debug)]
pub(super) struct Sticky {
    name: String,
    /// By the endpoint's index.
    values: Vec<String>,
}

impl Sticky {
    /// `None` if the upstream's requests do not stick.
    pub(super) fn new(upstream: &model::Upstream) -> Option<Self> {
        let Balance::Sticky { cookie } = &upstream.balance else { return None };
        let values = upstream.endpoints.iter().map(|endpoint| value(&upstream.name, endpoint)).collect();
        Some(Self { name: cookie.clone(), values })
    }

    /// The endpoint that the request's cookie names, if there still is such a one.
    pub(super) fn named(&self, headers: &HeaderMap) -> Option<usize> {
        let wanted = cookie::first(headers, &self.name)?;
        self.values.iter().position(|value| value.as_bytes() == wanted)
    }

    /// Has the client come back to this endpoint.
    pub(super) fn set(&self, headers: &mut HeaderMap, index: usize, is_secure: bool) {
        let Some(value) = self.values.get(index) else { return };
        let secure = if is_secure { "; Secure" } else { "" };
        let cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name);
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// A hash of who the endpoint is: the same in every worker and every gateway, whatever its place in the list.
fn value(upstream: &str, endpoint: &model::Endpoint) -> String {
    let who = format!("{upstream}\0{:?}\0{}", endpoint.at, endpoint.is_secure);
    let mut value = String::with_capacity(16);
    for byte in Sha256::digest(who.as_bytes()).iter().take(8) {
        let _ = write!(value, "{byte:02x}");
    }
    value
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        lines.iter().map(pair).collect()
    }

    #[test]
    fn keys_are_what_they_are_said_to_be() {
        let request = headers(&[("x-user", "ann"), ("cookie", "a=1; user=bob;c=2"), ("cookie", "late=x")]);
        let client = "192.0.2.1".parse().unwrap();
        for (name, by, expected) in [
            ("a header", HashKey::Header(HeaderName::from_static("x-user")), Some(ring::hash(&b"ann"[..]))),
            ("a header that is not there", HashKey::Header(HeaderName::from_static("x-no")), None),
            ("a cookie", HashKey::Cookie("user".to_owned()), Some(ring::hash(&b"bob"[..]))),
            ("another line", HashKey::Cookie("late".to_owned()), Some(ring::hash(&b"x"[..]))),
            ("a part of a name", HashKey::Cookie("use".to_owned()), None),
            ("the source", HashKey::Source, Some(ring::hash::<IpAddr>(&client))),
            ("the path", HashKey::Path, Some(ring::hash(&b"/p"[..]))),
        ] {
            assert_eq!(key(&Balance::Hash(by), "/p", &request, Some(client)), expected, "{name}");
        }
        assert_eq!(key(&Balance::RoundRobin, "/p", &request, Some(client)), None);
    }

    #[test]
    fn a_cookie_names_an_endpoint_and_does_not_tell_where_it_is() {
        let endpoint = |text: &str| model::Endpoint::tcp(text.parse().unwrap());
        let endpoints = vec![endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")];
        let mut upstream = model::Upstream::new("u", endpoints);
        assert!(Sticky::new(&upstream).is_none());
        upstream.balance = Balance::Sticky { cookie: "at".to_owned() };
        let sticky = Sticky::new(&upstream).unwrap();
        let mut response = HeaderMap::new();
        sticky.set(&mut response, 1, true);
        let set = response[SET_COOKIE].to_str().unwrap().to_owned();
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure") && !set.contains("10.0"), "{set}");
        let back = headers(&[("cookie", set.split(';').next().unwrap())]);
        assert_eq!(sticky.named(&back), Some(1));
        assert_eq!(sticky.named(&headers(&[("cookie", "at=0123456789abcdef")])), None);
        upstream.endpoints.reverse();
        assert_eq!(Sticky::new(&upstream).unwrap().named(&back), Some(0), "whatever its place");
    }
}
