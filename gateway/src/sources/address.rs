//! Where a list is fetched from: a URL, taken apart once, and never shown with what is secret in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv6Addr};

use http::Uri;
use thiserror::Error;

/// An address that lists can be fetched from. `Display` leaves out credentials and the query, because tokens
/// are passed in both.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Over TLS.
    pub(super) secure: bool,
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as the `Host` field has them.
    pub(super) authority: String,
    /// The request's target: path and query.
    pub(super) target: String,
    /// The value of the `Authorization` field.
    pub(super) authorization: Option<String>,
}

/// Why lists are not fetched from an address. The address itself is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not a URL with a host.
    #[error("this is not a URL ({0}); write it like https://host/path")]
    NotAUrl(String),
    /// Neither https nor http.
    #[error("lists are fetched by https, not by {0}")]
    Scheme(String),
    /// Not encrypted, and not within this host.
    #[error("lists are fetched by https; http is only for this host itself (localhost, 127.0.0.1, [::1])")]
    Plain,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let not_a_url = |why: &str| AddressError::NotAUrl(why.to_owned());
        let uri = Uri::try_from(text).map_err(|error| AddressError::NotAUrl(error.to_string()))?;
        let authority = uri.authority().ok_or_else(|| not_a_url("it has no host"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => return Err(AddressError::Scheme(other.unwrap_or("nothing").to_owned())),
        };
        let (user, bare) = match authority.as_str().rsplit_once('@') {
            Some((user, bare)) => (Some(user), bare),
            None => (None, authority.as_str()),
        };
        let (host, port) =
            host_and_port(bare).ok_or_else(|| not_a_url("its host or its port cannot be read"))?;
        let host = host.to_ascii_lowercase();
        if !secure && !is_this_host(&host) {
            return Err(AddressError::Plain);
        }
        Ok(Self {
            secure,
            port: port.unwrap_or(if secure { 443 } else { 80 }),
            authority: bare.to_ascii_lowercase(),
            target: target(&uri),
            authorization: user.map(|user| format!("Basic {}", STANDARD.encode(percent_decoded(user)))),
            host,
        })
    }

    /// Where a redirect from here leads. Credentials go along only to the same host, port and scheme.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, AddressError> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.secure { "https" } else { "http" };
        let mut to = if has_scheme(location) {
            Self::parse(location)?
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))?
        } else {
            Self::parse(&format!("{scheme}://{}{}", self.authority, self.joined(location)))?
        };
        let same = (to.secure, &to.host, to.port) == (self.secure, &self.host, self.port);
        if same && to.authorization.is_none() {
            to.authorization.clone_from(&self.authorization);
        }
        Ok(to)
    }

    /// The target that a relative reference means here (RFC 3986, 5.2).
    fn joined(&self, location: &str) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        if location.is_empty() {
            return self.target.clone();
        }
        if location.starts_with('?') {
            return format!("{path}{location}");
        }
        let (relative, query) = match location.split_once('?') {
            Some((relative, query)) => (relative, format!("?{query}")),
            None => (location, String::new()),
        };
        let directory =
            if relative.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |cut| cut.0) };
        format!("{}{query}", without_dots(&format!("{directory}/{}", relative.trim_start_matches('/'))))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (self.target.as_str(), ""),
        };
        write!(f, "{}://{}{path}{query}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The path and query of a URL; its path may be left out even before a query.
fn target(uri: &Uri) -> String {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    format!("{path}{query}")
}

/// The host and the port of an authority without credentials. Stricter than `http`, which takes brackets anywhere:
/// what is checked here has to be what is connected to.
fn host_and_port(bare: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if let Some(inside) = bare.strip_prefix('[') {
        inside.split_once(']').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok())?
    } else {
        bare.split_at(bare.find(':').unwrap_or(bare.len()))
    };
    // A name in another script has to be written in the form that the name service has (xn--…).
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        None if rest.is_empty() => Some((host, None)),
        _ => None,
    }
}

/// Whether a name or an address is one that never leaves this host.
fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn has_scheme(location: &str) -> bool {
    location.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// An absolute path with `.` and `..` followed.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        match *part {
            "." | ".." => {
                if *part == ".." {
                    segments.pop();
                }
                // A path that ends in dots is a directory.
                if index + 1 == parts.len() {
                    segments.push("");
                }
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        // Text, then what is shown, host, port and credentials; or the beginning of the refusal.
        type Taken = (&'static str, &'static str, u16, Option<&'static str>);
        let cases: &[(&str, Result<Taken, &str>)] = &[
            ("https://a.example/list", Ok(("https://a.example/list", "a.example", 443, None))),
            ("https://a.example", Ok(("https://a.example/", "a.example", 443, None))),
            ("https://a.example?x", Ok(("https://a.example/?…", "a.example", 443, None))),
            ("https://A.Example:8443/L", Ok(("https://a.example:8443/L", "a.example", 8443, None))),
            ("https://a.example/l?token=x", Ok(("https://a.example/l?…", "a.example", 443, None))),
            (
                "https://me:s%40cret@a.example/l",
                Ok(("https://a.example/l", "a.example", 443, Some("Basic bWU6c0BjcmV0"))),
            ),
            ("https://[2001:db8::1]:1/", Ok(("https://[2001:db8::1]:1/", "2001:db8::1", 1, None))),
            ("http://127.0.0.1:80/", Ok(("http://127.0.0.1:80/", "127.0.0.1", 80, None))),
            ("http://[::1]/", Ok(("http://[::1]/", "::1", 80, None))),
            ("http://localhost/", Ok(("http://localhost/", "localhost", 80, None))),
            ("http://a.example/", Err("lists are fetched by https; http")),
            ("http://localhost.example/", Err("lists are fetched by https; http")),
            ("http://x@10.0.0.1/", Err("lists are fetched by https; http")),
            ("ftp://a.example/", Err("lists are fetched by https, not by ftp")),
            ("https:///list", Err("this is not a URL")),
            ("https://a.example:99999/", Err("this is not a URL")),
            ("https://a.example:/", Err("this is not a URL")),
            ("https://[@]0/", Err("this is not a URL")),
            ("https://[a.example]/", Err("this is not a URL")),
            ("https://[::1]x/", Err("this is not a URL")),
            ("https://a.example:+1/", Err("this is not a URL")),
            ("/list", Err("this is not a URL (it has no host)")),
            ("", Err("this is not a URL")),
            ("https://me:secret@a b/", Err("this is not a URL")),
        ];
        for (text, expected) in cases {
            match (Address::parse(text), expected) {
                (Ok(address), Ok((shown, host, port, credentials))) => {
                    assert_eq!(address.to_string(), *shown, "{text}");
                    assert_eq!((address.host.as_str(), address.port), (*host, *port), "{text}");
                    assert_eq!(address.authorization.as_deref(), *credentials, "{text}");
                    assert!(!address.authority.contains('@'), "{text}");
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().starts_with(expected), "{text}: {error}");
                    assert!(!error.to_string().contains("secret"), "{text}: {error}");
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn redirects_are_followed_like_references() {
        let cases: &[(&str, &str, &str, bool)] = &[
            // Location, where it leads, its target, and whether the credentials go along.
            ("https://b.example/x", "https://b.example/x", "/x", false),
            ("https://a.example/x", "https://a.example/x", "/x", true),
            ("https://a.example:444/x", "https://a.example:444/x", "/x", false),
            ("http://127.0.0.1/x", "http://127.0.0.1/x", "/x", false),
            ("//b.example/x", "https://b.example/x", "/x", false),
            ("/x?y=1", "https://a.example/x?…", "/x?y=1", true),
            ("?y=2", "https://a.example/d/l?…", "/d/l?y=2", true),
            ("x", "https://a.example/d/x", "/d/x", true),
            ("../x", "https://a.example/x", "/x", true),
            ("../../x", "https://a.example/x", "/x", true),
            ("./", "https://a.example/d/", "/d/", true),
            ("..", "https://a.example/", "/", true),
            ("x?u=https://c.example/", "https://a.example/d/x?…", "/d/x?u=https://c.example/", true),
            ("x#part", "https://a.example/d/x", "/d/x", true),
            ("", "https://a.example/d/l?…", "/d/l?q", true),
        ];
        let from = Address::parse("https://me:pw@a.example/d/l?q").unwrap();
        for (location, shown, target, credentials) in cases {
            let to = from.redirected(location).unwrap();
            assert_eq!((to.to_string().as_str(), to.target.as_str()), (*shown, *target), "{location}");
            assert_eq!(to.authorization.is_some(), *credentials, "{location}");
        }
        for location in ["http://b.example/", "ftp://b.example/", "https://"] {
            assert!(from.redirected(location).is_err(), "{location}");
        }
    }

    proptest! {
        #[test]
        fn no_redirect_leads_out_of_tls_or_shows_a_password(
            base in "/?[a-z./?]{0,20}",
            location in "((https?:)?//(me:secret@)?)?[a-z0-9.:/?#%\\[\\]@-]{0,30}",
        ) {
            let from = Address::parse(&format!("https://me:secret@a.example/{base}")).unwrap();
            let shown = format!("{from:?}");
            prop_assert!(!shown.contains("secret"));
            match from.redirected(&location) {
                Ok(to) => {
                    prop_assert!(!to.to_string().contains("secret"));
                    prop_assert!(to.secure || is_this_host(&to.host));
                    prop_assert!(to.target.starts_with('/') && !to.authority.contains('@'));
                    let same = (to.host.as_str(), to.port) == ("a.example", 443) && to.secure;
                    prop_assert!(same || location.contains('@') || to.authorization.is_none());
                    // What is shown leads to the same place.
                    let again = Address::parse(&to.to_string()).unwrap();
                    prop_assert_eq!((again.secure, again.host, again.port), (to.secure, to.host, to.port));
                }
                Err(error) => prop_assert!(!error.to_string().contains("secret")),
            }
        }

        #[test]
        fn any_text_is_an_address_or_an_error(text in ".{0,60}") {
            let _ = Address::parse(&text);
            let _ = Address::parse("https://a.example/b/c").unwrap().redirected(&text);
        }
    }
}
