//! What a route does with a request: which upstream it goes to and in which form, or what the client is told instead.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};

use crate::model::{self, FixedAnswer, Forward, PathChange, PathPattern, Piece, Redirect, Share, Sticky};

use super::random::{Random, stable_hash};
use super::{cookie, path, request, route};

/// Which upstream a request goes to, and the cookie that keeps its client there, if one has to be set.
pub(super) fn choose(
    forward: &Forward,
    name_of: impl Fn(usize) -> String,
    headers: &HeaderMap,
    random: &Random,
    is_secure: bool,
) -> (usize, Option<HeaderValue>) {
    if let [only] = forward.shares.as_slice() {
        return (only.upstream, None);
    }
    let at_random = || by_weight(&forward.shares, random.next());
    match &forward.sticky {
        None => (at_random(), None),
        Some(Sticky::Header(name)) => match headers.get(name) {
            Some(value) => (by_weight(&forward.shares, stable_hash(value.as_bytes())), None),
            None => (at_random(), None),
        },
        Some(Sticky::Cookie(name)) => {
            // The client sees neither the upstreams' names nor how many there are.
            let mark = |upstream: usize| format!("{:016x}", stable_hash(name_of(upstream).as_bytes()));
            let known = cookie::first(headers, name);
            let kept = forward.shares.iter().filter(|share| share.weight > 0).map(|share| share.upstream);
            if let Some(kept) =
                known.and_then(|known| kept.into_iter().find(|upstream| mark(*upstream).as_bytes() == known))
            {
                return (kept, None);
            }
            let upstream = at_random();
            let secure = if is_secure { "; Secure" } else { "" };
            let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}", mark(upstream));
            (upstream, HeaderValue::try_from(cookie).ok())
        }
    }
}

/// The share that a number falls into, of numbers that are spread evenly. When weights change, only those move who have
/// to.
fn by_weight(shares: &[Share], number: u64) -> usize {
    let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    // The high bits of the product: as even as a remainder, and in the order of the numbers.
    let mut at = (u128::from(number) * u128::from(total)) >> 64;
    for share in shares {
        match at.checked_sub(u128::from(share.weight)) {
            Some(rest) => at = rest,
            None => return share.upstream,
        }
    }
    shares.last().map_or(0, |share| share.upstream)
}

/// Brings a request into the form in which the route's upstream wants to see it.
pub(super) fn rewrite<B>(request: &mut Request<B>, route: &model::Route) {
    let model::Action::Forward(forward) = &route.action else { return };
    if let Some(host) = &forward.host {
        request.headers_mut().insert(HOST, host.clone());
    }
    let Some(change) = &forward.path else { return };
    let Ok(path) = request::route_path(request.uri()) else { return };
    let target = with_query(changed(change, &route.matches.path, &path.path), request.uri());
    // Made of a path that was valid and of a text that was checked.
    if let Ok(target) = PathAndQuery::try_from(target) {
        *request.uri_mut() = Uri::from(target);
    }
}

fn with_query(mut path: String, uri: &Uri) -> String {
    if let Some(query) = uri.query() {
        let _ = write!(path, "?{query}");
    }
    path
}

fn changed(change: &PathChange, pattern: &PathPattern, path: &str) -> String {
    let taken = || match pattern {
        PathPattern::Template(template) => route::captures(template, path).unwrap_or_default(),
        // As it stands in the path: perhaps shorter than it was written.
        PathPattern::Prefix(prefix) => {
            (Vec::new(), path::normalise(prefix).map_or(prefix.len(), |normal| normal.path.len()))
        }
        PathPattern::Exact(_) | PathPattern::Regex(_) => (Vec::new(), path.len()),
    };
    let (values, taken) = taken();
    let changed = match change {
        PathChange::Whole(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Parameter(index) => values.get(*index).copied().unwrap_or_default(),
            })
            .collect(),
        PathChange::Prefix(prefix) => format!("{prefix}{}", path.get(taken..).unwrap_or_default()),
    };
    if changed.starts_with('/') { changed } else { format!("/{changed}") }
}

/// Sends a client elsewhere.
pub(super) fn redirect(
    redirect: &Redirect,
    asked: &Request<impl Sized>,
    pattern: &PathPattern,
    path: &str,
    is_secure: bool,
) -> Response<Bytes> {
    let asked_host = asked.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (asked_name, asked_port) = split_port(asked_host);
    let to_secure = redirect.is_secure.unwrap_or(is_secure);
    // Another scheme has another port; which, only the configuration knows if it is not the usual one.
    let kept_port = asked_port.filter(|_| to_secure == is_secure && redirect.host.is_none());
    let scheme = if to_secure { "https" } else { "http" };
    let mut location = format!("{scheme}://{}", redirect.host.as_deref().unwrap_or(asked_name));
    let usual = if to_secure { 443 } else { 80 };
    match (redirect.port, kept_port) {
        (Some(port), _) if port != usual => drop(write!(location, ":{port}")),
        (None, Some(port)) => drop(write!(location, ":{port}")),
        _ => {}
    }
    let to = match &redirect.path {
        Some(change) => changed(change, pattern, path),
        None => asked.uri().path().to_owned(),
    };
    location.push_str(&with_query(to, asked.uri()));
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = redirect.status;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

/// Answers what is always answered.
pub(super) fn respond(answer: &FixedAnswer) -> Response<Bytes> {
    let mut response = Response::new(answer.body.clone());
    *response.status_mut() = answer.status;
    if !answer.body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, answer.content_type.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::model::{Segment, Template};

    fn shares(weights: &[u32]) -> Vec<Share> {
        weights.iter().enumerate().map(|(upstream, weight)| Share { upstream, weight: *weight }).collect()
    }

    fn to(shares: Vec<Share>, sticky: Option<Sticky>) -> Forward {
        Forward { shares, sticky, host: None, path: None, mirrors: Vec::new() }
    }

    #[test]
    fn requests_are_shared_by_weight() {
        let (forward, random) = (to(shares(&[90, 0, 10]), None), Random::default());
        let mut counts = [0; 3];
        for _ in 0..20_000 {
            counts[choose(&forward, |_| String::new(), &HeaderMap::new(), &random, false).0] += 1;
        }
        // Five standard deviations are 212.
        assert!(counts[1] == 0 && (1_780..2_220).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn a_header_is_given_the_same_share_and_moves_only_as_weights_do() {
        let by = Some(Sticky::Header(http::HeaderName::from_static("x-user")));
        let random = Random::default();
        let share = |weights: &[u32], user: usize| {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", HeaderValue::from(user));
            choose(&to(shares(weights), by.clone()), |_| String::new(), &headers, &random, false).0
        };
        let mut moved = 0;
        for user in 0..10_000 {
            assert_eq!(share(&[50, 50], user), share(&[50, 50], user));
            let (before, after) = (share(&[90, 10], user), share(&[80, 20], user));
            assert!(before == 0 || after == 1, "nobody goes back");
            moved += usize::from(before != after);
        }
        assert!((850..1_150).contains(&moved), "{moved} of 10,000");
    }

    #[test]
    fn a_cookie_keeps_a_client_where_it_is() {
        let forward = to(shares(&[1, 1]), Some(Sticky::Cookie("side".to_owned())));
        let random = Random::default();
        let name_of = |upstream: usize| ["blue", "green"][upstream].to_owned();
        let (first, cookie) = choose(&forward, name_of, &HeaderMap::new(), &random, true);
        let cookie = cookie.unwrap().to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        assert!(!cookie.contains("blue") && !cookie.contains("green"));
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("a=b; {}", cookie.split(';').next().unwrap()).parse().unwrap());
        for _ in 0..100 {
            assert_eq!(choose(&forward, name_of, &headers, &random, true), (first, None));
        }
        // Its side is gone.
        let mut weights = [1, 1];
        weights[first] = 0;
        let moved = to(shares(&weights), forward.sticky.clone());
        assert!(
            matches!(choose(&moved, name_of, &headers, &random, true), (other, Some(_)) if other != first)
        );
    }

    #[test]
    fn paths_are_changed() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        let parameter = |name: &str| Segment::Parameter(name.to_owned());
        let prefix = |text: &str| PathPattern::Prefix(text.to_owned());
        let users = PathPattern::Template(Template {
            segments: vec![literal("users"), parameter("id")],
            below: true,
        });
        let to_prefix = |text: &str| PathChange::Prefix(text.to_owned());
        let whole = PathChange::Whole(vec![
            Piece::Text("/u/".to_owned()),
            Piece::Parameter(0),
            Piece::Text("/x".to_owned()),
        ]);
        for (name, change, pattern, path, expected) in [
            ("a prefix taken away", to_prefix(""), prefix("/api"), "/api/v1/a", "/v1/a"),
            ("all of it", to_prefix(""), prefix("/api"), "/api", "/"),
            ("another prefix", to_prefix("/v2"), prefix("/api"), "/api/a", "/v2/a"),
            ("a prefix in front", to_prefix("/v2"), prefix(""), "/a/b", "/v2/a/b"),
            ("a pattern that was written longer", to_prefix("/x"), prefix("/%61pi"), "/api/a", "/x/a"),
            ("a template's prefix", to_prefix("/me"), users.clone(), "/users/7/posts", "/me/posts"),
            ("a parameter", whole.clone(), users, "/users/7/posts", "/u/7/x"),
            ("one path", to_prefix("/b"), PathPattern::Exact("/a".to_owned()), "/a", "/b"),
        ] {
            assert_eq!(changed(&change, &pattern, path), expected, "{name}");
        }
    }

    #[test]
    fn redirects_say_where_to() {
        let same =
            Redirect { is_secure: None, host: None, port: None, path: None, status: StatusCode::FOUND };
        let secure = Redirect { is_secure: Some(true), ..same.clone() };
        let elsewhere = Redirect { host: Some("b.test".to_owned()), ..same.clone() };
        for (name, to, host, expected) in [
            ("nothing changes", same.clone(), "a.test:8080", "http://a.test:8080/p/q?r=1"),
            ("to https", secure.clone(), "a.test:8080", "https://a.test/p/q?r=1"),
            (
                "on a port of its own",
                Redirect { port: Some(8443), ..secure },
                "a.test",
                "https://a.test:8443/p/q?r=1",
            ),
            (
                "the usual port",
                Redirect { port: Some(80), ..same.clone() },
                "a.test:8080",
                "http://a.test/p/q?r=1",
            ),
            ("another host", elsewhere, "a.test:8080", "http://b.test/p/q?r=1"),
            ("IPv6", same.clone(), "[::1]:80", "http://[::1]:80/p/q?r=1"),
            ("IPv6 without a port", same.clone(), "[::1]", "http://[::1]/p/q?r=1"),
            (
                "another path",
                Redirect { path: Some(PathChange::Prefix("/new".to_owned())), ..same },
                "a.test",
                "http://a.test/new/q?r=1",
            ),
        ] {
            let asked = Request::get("/p/q?r=1").header(HOST, host).body(()).unwrap();
            let response = redirect(&to, &asked, &PathPattern::Prefix("/p".to_owned()), "/p/q", false);
            assert_eq!(response.headers()[LOCATION], expected, "{name}");
            assert_eq!(response.status(), StatusCode::FOUND);
        }
    }
}
