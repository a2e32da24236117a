//! Finds the route of a request: compiled once from the model, then a few hash lookups a request, however
//! many routes there are.
//!
//! Precedence: a host written out before a wildcard (the longest suffix first) before any host; then an
//! exact path before a prefix (the longest first); then a route that names methods before one that does
//! not. A host whose routes do not match the path is no dead end: the next less specific host is asked.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use crate::model;
use crate::model::{HostPattern, PathPattern};

use super::path;

/// Every route, ready to be matched.
#[derive(Debug, Default)]
pub(super) struct Router {
    hosts: HashMap<Box<str>, Paths>,
    /// By suffix, its leading dot included.
    suffixes: HashMap<Box<str>, Paths>,
    any: Paths,
    /// No wildcard is longer, so no longer suffix of a request's host is looked up.
    longest_suffix: usize,
}

/// What a request matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// The index of the route in the model.
    Route(usize),
    /// Host and path match, but no route there takes this method; these they take.
    OtherMethods(Vec<Method>),
    /// Nothing matches.
    Nothing,
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Methods>,
    prefixes: HashMap<Box<str>, Methods>,
    /// No prefix is longer: what bounds the lookups for a very long path.
    longest_prefix: usize,
}

/// The routes of one host and path.
#[derive(Debug, Default)]
struct Methods {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
}

impl Router {
    /// Compiles the routes. Where two routes say the same, the first one holds.
    pub(super) fn new(routes: &[model::Route]) -> Self {
        let mut router = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let matches = &route.matches;
            if matches.hosts.is_empty() {
                router.any.add(&matches.path, &matches.methods, index);
            }
            for host in &matches.hosts {
                let paths = match host {
                    HostPattern::Exact(name) => router.hosts.entry(name.as_str().into()).or_default(),
                    HostPattern::Wildcard(suffix) => {
                        router.longest_suffix = router.longest_suffix.max(suffix.len());
                        router.suffixes.entry(suffix.as_str().into()).or_default()
                    }
                };
                paths.add(&matches.path, &matches.methods, index);
            }
        }
        router
    }

    /// Finds the route for a host (lower case, without port) and a normalised path.
    pub(super) fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Match {
        let mut allowed = Vec::new();
        let host = host.unwrap_or_default();
        let exact = self.hosts.get(host);
        let suffixes = self.suffixes_of(host);
        for paths in exact.into_iter().chain(suffixes).chain([&self.any]) {
            if let Some(route) = paths.find(path, method, &mut allowed) {
                return Match::Route(route);
            }
        }
        if allowed.is_empty() { Match::Nothing } else { Match::OtherMethods(allowed) }
    }

    /// The wildcards that cover a host, the longest first. At least one label stands before a suffix.
    fn suffixes_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        let dots = if self.suffixes.is_empty() { "" } else { host };
        dots.match_indices('.')
            .filter(|(at, _)| *at > 0 && host.len() - at <= self.longest_suffix)
            .filter_map(|(at, _)| self.suffixes.get(&host[at..]))
    }
}

impl Paths {
    fn add(&mut self, pattern: &PathPattern, methods: &[Method], route: usize) {
        let slot = match pattern {
            PathPattern::Exact(path) => self.exact.entry(normal(path)).or_default(),
            PathPattern::Prefix(path) => {
                let path = normal(path);
                self.longest_prefix = self.longest_prefix.max(path.len());
                self.prefixes.entry(path).or_default()
            }
        };
        if methods.is_empty() {
            slot.any.get_or_insert(route);
        }
        for method in methods {
            if !slot.named.iter().any(|(known, _)| known == method) {
                slot.named.push((method.clone(), route));
            }
        }
    }

    fn find(&self, path: &str, method: &Method, allowed: &mut Vec<Method>) -> Option<usize> {
        if let Some(route) = self.exact.get(path).and_then(|methods| methods.find(method, allowed)) {
            return Some(route);
        }
        if self.prefixes.is_empty() {
            return None;
        }
        // From the whole path upwards, by segment. Nothing longer than the longest prefix is hashed: the
        // cut before it is the first that can match.
        let mut prefix = path;
        if prefix.len() > self.longest_prefix {
            let reach = &prefix.as_bytes()[..=self.longest_prefix];
            prefix = &prefix[..memchr::memrchr(b'/', reach).unwrap_or(0)];
        }
        loop {
            if let Some(route) = self.prefixes.get(prefix).and_then(|methods| methods.find(method, allowed)) {
                return Some(route);
            }
            if prefix.is_empty() {
                return None;
            }
            prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
        }
    }
}

/// A pattern in the form that requests are matched in. One that has no such form can match no request, so
/// it may stay as it is.
fn normal(pattern: &str) -> Box<str> {
    path::normalise(pattern).map_or(Cow::Borrowed(pattern), |normal| normal.path).into()
}

impl Methods {
    fn find(&self, method: &Method, allowed: &mut Vec<Method>) -> Option<usize> {
        let named = self.named.iter().find(|(known, _)| known == method).map(|(_, route)| *route);
        let found = named.or(self.any);
        if found.is_none() {
            for (known, _) in &self.named {
                if !allowed.contains(known) {
                    allowed.push(known.clone());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(hosts: &[&str], path: &str, methods: &[&str]) -> model::Route {
        let host = |h: &&str| match h.strip_prefix('*') {
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None => HostPattern::Exact((*h).to_owned()),
        };
        let path = match path.strip_suffix("/**") {
            Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
            None => PathPattern::Exact(path.to_owned()),
        };
        model::Route {
            name: "r".to_owned(),
            matches: model::RouteMatch {
                hosts: hosts.iter().map(host).collect(),
                path,
                methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
            },
            upstream: 0,
            upgrades: vec!["websocket".to_owned()],
        }
    }

    #[test]
    fn routes_are_found_by_precedence() {
        let router = Router::new(&[
            route(&[], "/**", &[]),                                // 0
            route(&["api.example.com"], "/v1/**", &[]),            // 1
            route(&["api.example.com"], "/v1/users", &[]),         // 2
            route(&["api.example.com"], "/v1/users/**", &["GET"]), // 3
            route(&["*.example.com"], "/**", &[]),                 // 4
            route(&["*.b.example.com"], "/x/**", &[]),             // 5
            route(&["api.example.com"], "/v1/users/**", &[]),      // 6
            route(&["m.test"], "/only/**", &["PUT", "DELETE"]),    // 7
        ]);
        let other = |methods: &[&str]| {
            Match::OtherMethods(methods.iter().map(|m| m.parse::<Method>().unwrap()).collect())
        };
        let narrow = Router::new(&[route(&["m.test"], "/only/**", &["PUT", "DELETE"])]);
        for (name, router, host, path, method, expected) in [
            ("any host", &router, Some("other.test"), "/x", "GET", Match::Route(0)),
            ("no host", &router, None, "/x", "GET", Match::Route(0)),
            ("exact host, prefix itself", &router, Some("api.example.com"), "/v1", "GET", Match::Route(1)),
            ("prefix with slash", &router, Some("api.example.com"), "/v1/", "GET", Match::Route(1)),
            ("below the prefix", &router, Some("api.example.com"), "/v1/a/b", "GET", Match::Route(1)),
            ("never by half a segment", &router, Some("api.example.com"), "/v1x", "GET", Match::Route(4)),
            ("exact before prefix", &router, Some("api.example.com"), "/v1/users", "GET", Match::Route(2)),
            ("methods before none", &router, Some("api.example.com"), "/v1/users/1", "GET", Match::Route(3)),
            ("none takes the rest", &router, Some("api.example.com"), "/v1/users/1", "PUT", Match::Route(6)),
            ("wildcard", &router, Some("z.example.com"), "/v1", "GET", Match::Route(4)),
            ("wildcard needs a label", &router, Some("example.com"), "/v1", "GET", Match::Route(0)),
            ("longest suffix", &router, Some("a.b.example.com"), "/x/y", "GET", Match::Route(5)),
            ("a shorter suffix", &router, Some("a.b.example.com"), "/y", "GET", Match::Route(4)),
            (
                "next host when only the method differs",
                &router,
                Some("m.test"),
                "/only/x",
                "GET",
                Match::Route(0),
            ),
            ("only the method differs", &narrow, Some("m.test"), "/only/x", "GET", other(&["PUT", "DELETE"])),
            ("nothing", &narrow, Some("m.test"), "/onlyx", "PUT", Match::Nothing),
            ("other host", &narrow, Some("n.test"), "/only/x", "PUT", Match::Nothing),
        ] {
            assert_eq!(router.find(host, path, &method.parse().unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn a_long_path_costs_no_more_lookups_than_the_longest_prefix_has_segments() {
        let router = Router::new(&[route(&[], "/a/b/**", &[])]);
        let long = format!("/a/b{}", "/x".repeat(30_000));
        assert_eq!(router.find(None, &long, &Method::GET), Match::Route(0));
        assert_eq!(router.find(None, &"/x".repeat(30_000), &Method::GET), Match::Nothing);
    }

    /// The precedence as the header of this file says it, without any index.
    fn naive(routes: &[model::Route], host: &str, path: &str, method: &Method) -> Option<usize> {
        let host_rank = |r: &model::Route| {
            let hosts = &r.matches.hosts;
            if hosts.is_empty() {
                return Some((0, 0));
            }
            hosts
                .iter()
                .filter_map(|h| match h {
                    HostPattern::Exact(name) => (name == host).then_some((2, 0)),
                    HostPattern::Wildcard(suffix) => (host.ends_with(suffix.as_str())
                        && host.len() > suffix.len())
                    .then_some((1, suffix.len())),
                })
                .max()
        };
        let path_rank = |r: &model::Route| match &r.matches.path {
            PathPattern::Exact(p) => (p == path).then_some((1, 0)),
            PathPattern::Prefix(p) => {
                (path == p || path.starts_with(&format!("{p}/"))).then_some((0, p.len()))
            }
        };
        let method_rank = |r: &model::Route| {
            if r.matches.methods.is_empty() {
                return Some(0);
            }
            r.matches.methods.contains(method).then_some(1)
        };
        let mut best = None;
        for (index, r) in routes.iter().enumerate() {
            if let (Some(h), Some(p), Some(m)) = (host_rank(r), path_rank(r), method_rank(r)) {
                let rank = (h, p, m);
                if best.is_none_or(|(known, _)| rank > known) {
                    best = Some((rank, index));
                }
            }
        }
        best.map(|(_, index)| index)
    }

    fn routes() -> impl Strategy<Value = Vec<model::Route>> {
        let hosts = proptest::sample::subsequence(vec!["a.b", "c.a.b", "*.b", "*.a.b", "b"], 0..3);
        let path = "(/[ab]){0,3}(/\\*\\*)?".prop_map(|p| if p.is_empty() { "/".to_owned() } else { p });
        let methods = proptest::sample::subsequence(vec!["GET", "PUT"], 0..=2);
        let one = (hosts, path, methods).prop_map(|(h, p, m)| route(&h, &p, &m));
        proptest::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_naive_search(
            routes in routes(),
            host in "([ab]|c|d)(\\.[ab]){0,3}",
            path in "(/[ab]?){1,4}",
            method in proptest::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
        ) {
            let found = match Router::new(&routes).find(Some(&host), &path, &method) {
                Match::Route(index) => Some(index),
                _ => None,
            };
            prop_assert_eq!(found, naive(&routes, &host, &path, &method));
        }
    }
}
