//! Checks what hyper has parsed, and brings it into the form in which it is routed and forwarded.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::{COOKIE, EXPECT, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri, Version};

use super::path;
use super::problem::{Kind, Problem};

/// DNS allows 255 bytes; more is no host.
const MAX_HOST_BYTES: usize = 255;

/// Checks the request and puts its target into origin-form. What it is routed by is found by [`host`] and
/// [`route_path`] after that.
pub(super) fn admit<B>(request: &mut Request<B>, max_fields: usize) -> Result<(), Problem> {
    // Those of HTTP/1.1 were counted before they were parsed.
    if request.headers().len() > max_fields {
        return Err(Problem::new(Kind::HeadersTooLarge, "The header has more fields than are taken."));
    }
    if request.method() == Method::CONNECT {
        return Err(Problem::new(Kind::ConnectRefused, "This is no forward proxy."));
    }
    check_names(request)?;
    check_expectation(request)?;
    take_authority(request)?;
    join_cookies(request);
    check_host(request)?;
    check_target(request)
}

/// Many an application server takes an underscore for a dash, and would find another framing than was meant. In
/// HTTP/1.1 such fields are refused before they are parsed.
fn check_names<B>(request: &Request<B>) -> Result<(), Problem> {
    let imitates = |name| request.headers().contains_key(name);
    if request.version() >= Version::HTTP_2
        && ["content_length", "transfer_encoding"].into_iter().any(imitates)
    {
        let detail = "A field's name looks like Content-Length or Transfer-Encoding.";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(())
}

/// hyper answers 100-continue when the body is first asked for; nothing else can be expected. The field ends
/// here, like the interim response. From HTTP/1.0 it has no meaning (RFC 9110, section 10.1.1).
fn check_expectation<B>(request: &Request<B>) -> Result<(), Problem> {
    let is_met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.version() < Version::HTTP_11 || request.headers().get_all(EXPECT).iter().all(is_met) {
        return Ok(());
    }
    Err(Problem::new(Kind::ExpectationFailed, "Only 100-continue can be expected."))
}

/// A target in absolute-form names the host, and what Host says does not count then (RFC 9112, section 3.2.2).
fn take_authority<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let uri = request.uri();
    if uri.scheme().is_none() && uri.authority().is_none() {
        return Ok(());
    }
    let bad = |detail| Err(Problem::new(Kind::BadRequest, detail));
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return bad("The target's scheme is not http.");
    }
    let Some(host) = uri.authority().and_then(authority_value) else {
        return bad("The target's authority is not valid.");
    };
    // Under HTTP/2 and HTTP/3 both may come, and then nothing says which of them counts (RFC 9113, section 8.3.1).
    if request.version() >= Version::HTTP_2
        && request
            .headers()
            .get_all(HOST)
            .iter()
            .any(|other| !other.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    {
        return bad("Host is not what :authority says.");
    }
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    // It has to be one valid host all the same: another server may listen to it.
    if request.version() <= Version::HTTP_11 {
        check_host(request)?;
    }
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// Under HTTP/2 and HTTP/3 a cookie may come in several fields, so that they compress; HTTP/1.1 has one (RFC 9113, section 8.2.3).
fn join_cookies<B>(request: &mut Request<B>) {
    if request.version() < Version::HTTP_2 || request.headers().get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Values that are valid one by one are valid joined.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        request.headers_mut().insert(COOKIE, cookie);
    }
}

fn authority_value(authority: &Authority) -> Option<HeaderValue> {
    if authority.as_str().contains('@') {
        return None;
    }
    HeaderValue::from_str(authority.as_str()).ok()
}

fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let bad = |detail| Err(Problem::new(Kind::BadRequest, detail));
    let mut lines = request.headers().get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        (None, _) => bad("Host is missing."),
        (Some(_), Some(_)) => bad("There is more than one Host."),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => bad("Host is not valid."),
    }
}

/// A name or an address, and perhaps a port. Names are kept to what resolvers take: a looser grammar would
/// only help those who want two servers to read it differently.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = split_port(host);
    let port_is_valid = port.is_none_or(|port| port.len() <= 5 && port.iter().all(u8::is_ascii_digit));
    let name_is_valid = match name.strip_prefix(b"[") {
        Some(rest) => {
            let address = rest.strip_suffix(b"]").and_then(|address| std::str::from_utf8(address).ok());
            address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        None => {
            !name.is_empty()
                && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    port_is_valid && name_is_valid && name.len() <= MAX_HOST_BYTES
}

fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    }
}

fn check_target<B>(request: &mut Request<B>) -> Result<(), Problem> {
    if request.uri().path() == "*" {
        if request.method() == Method::OPTIONS {
            return Ok(());
        }
        return Err(Problem::new(Kind::BadRequest, "Only OPTIONS may ask for *."));
    }
    let normal = route_path(request.uri())?;
    if !normal.rewritten {
        return Ok(());
    }
    let target = match request.uri().query() {
        Some(query) => format!("{}?{query}", normal.path),
        None => normal.path.into_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| {
        Problem::new(Kind::AmbiguousPath, "The path is not valid once its dots are resolved.")
    })?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// The path that routes are matched against.
pub(super) fn route_path(uri: &Uri) -> Result<path::Normal<'_>, Problem> {
    path::normalise(uri.path()).map_err(|ambiguous| Problem::new(Kind::AmbiguousPath, ambiguous.0))
}

/// The host that routes are matched against: lower case, without port and without the dot of the root.
pub(super) fn host(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let (name, _) = split_port(headers.get(HOST)?.as_bytes());
    let name = std::str::from_utf8(name.strip_suffix(b".").unwrap_or(name)).ok()?;
    let upper = name.bytes().any(|b| b.is_ascii_uppercase());
    Some(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, version: Version, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_joined() {
        let mut crumbs = Request::get("https://a.test/").version(Version::HTTP_2);
        for crumb in ["a=1", "b=2", "c=\"3\""] {
            crumbs = crumbs.header(COOKIE, crumb);
        }
        let mut request = crumbs.body(()).unwrap();
        admit(&mut request, 100).unwrap();
        let cookies: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=\"3\""]);
    }

    #[test]
    fn fields_are_counted() {
        let fields = |count: usize| {
            let mut request = Request::get("/").header(HOST, "a.test").body(()).unwrap();
            for _ in 1..count {
                request.headers_mut().append("x", HeaderValue::from_static("1"));
            }
            admit(&mut request, 4).map_err(|problem| problem.kind)
        };
        assert_eq!(fields(4), Ok(()));
        assert_eq!(fields(5), Err(Kind::HeadersTooLarge));
    }

    #[test]
    fn requests_are_admitted_or_refused() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        for (name, request, expected) in [
            ("plain", request("GET", "/a", new, &["a.test"]), Ok(("/a", Some("a.test")))),
            ("port and case", request("GET", "/a", new, &["A.Test:8080"]), Ok(("/a", Some("a.test")))),
            ("the root's dot", request("GET", "/a", new, &["a.test."]), Ok(("/a", Some("a.test")))),
            ("IPv6", request("GET", "/a", new, &["[2001:DB8::1]:80"]), Ok(("/a", Some("[2001:db8::1]")))),
            ("IPv6 without port", request("GET", "/a", new, &["[::1]"]), Ok(("/a", Some("[::1]")))),
            (
                "absolute",
                request("GET", "http://b.test:1/a?q", new, &["a.test"]),
                Ok(("/a?q", Some("b.test"))),
            ),
            (
                "absolute without path",
                request("GET", "http://b.test", new, &["a.test"]),
                Ok(("/", Some("b.test"))),
            ),
            ("old without host", request("GET", "/a", old, &[]), Ok(("/a", None))),
            ("options", request("OPTIONS", "*", new, &["a.test"]), Ok(("*", Some("a.test")))),
            ("escapes stay", request("GET", "/%61?%2f", new, &["a.test"]), Ok(("/%61?%2f", Some("a.test")))),
            (
                "dots do not",
                request("GET", "/a/../b?c=/../d", new, &["a.test"]),
                Ok(("/b?c=/../d", Some("a.test"))),
            ),
            ("no host", request("GET", "/a", new, &[]), Err(Kind::BadRequest)),
            ("two hosts", request("GET", "/a", new, &["a.test", "a.test"]), Err(Kind::BadRequest)),
            ("two hosts, old", request("GET", "/a", old, &["a.test", "b.test"]), Err(Kind::BadRequest)),
            ("an empty host", request("GET", "/a", new, &[""]), Err(Kind::BadRequest)),
            ("a list", request("GET", "/a", new, &["a.test, b.test"]), Err(Kind::BadRequest)),
            ("a path", request("GET", "/a", new, &["a.test/b"]), Err(Kind::BadRequest)),
            ("a user", request("GET", "/a", new, &["u@a.test"]), Err(Kind::BadRequest)),
            ("a bad port", request("GET", "/a", new, &["a.test:http"]), Err(Kind::BadRequest)),
            ("a long host", request("GET", "/a", new, &[&"a".repeat(256)]), Err(Kind::BadRequest)),
            ("bad IPv6", request("GET", "/a", new, &["[::g]"]), Err(Kind::BadRequest)),
            (
                "a user in the target",
                request("GET", "http://u@b.test/", new, &["b.test"]),
                Err(Kind::BadRequest),
            ),
            ("absolute without host", request("GET", "http://b.test/", new, &[]), Err(Kind::BadRequest)),
            (
                "absolute with two hosts",
                request("GET", "http://b.test/", new, &["b.test", "c.test"]),
                Err(Kind::BadRequest),
            ),
            ("another scheme", request("GET", "ftp://b.test/", new, &["b.test"]), Err(Kind::BadRequest)),
            ("star", request("GET", "*", new, &["a.test"]), Err(Kind::BadRequest)),
            ("connect", request("CONNECT", "a.test:443", new, &["a.test"]), Err(Kind::ConnectRefused)),
            (
                "another authority",
                request("GET", "http://b.test/", Version::HTTP_2, &["a.test"]),
                Err(Kind::BadRequest),
            ),
            (
                "the same authority",
                request("GET", "http://b.test/", Version::HTTP_2, &["B.test"]),
                Ok(("/", Some("b.test"))),
            ),
            ("no authority", request("GET", "/", Version::HTTP_2, &[]), Err(Kind::BadRequest)),
            ("encoded slash", request("GET", "/a%2Fb", new, &["a.test"]), Err(Kind::AmbiguousPath)),
        ] {
            let mut request = request;
            let got = admit(&mut request, 100).map(|()| (request.uri().to_string(), host(request.headers())));
            let got = got.as_ref().map(|(uri, host)| (uri.as_str(), host.as_deref())).map_err(|p| p.kind);
            assert_eq!(got, expected, "{name}");
        }
    }
}
