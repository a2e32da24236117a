//! Finds the route of a request: compiled once from the model, then a few hash lookups a request, however
//! many routes there are.
//!
//! Precedence, as the Gateway API has it. Hosts: one written out, then wildcards, the longest suffix first, then routes
//! for every host; a host whose routes do not match is no dead end. Of a host, paths: one written out, then those with
//! parameters, more written out on the left first, then regular expressions, the longest first, then prefixes, the
//! longest first, those with parameters after those without. Of a path: routes that name methods, then the number of
//! header fields, of query parameters, of cookies and of the body's fields that are asked for, then those that name content types, then
//! those that name what is accepted, then the longest source, server names, listeners, and last the name of the route.
//! Of several routes that match and name what is accepted, the one whose media type the client wants most.

mod conditions;
mod shadow;
mod template;

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use crate::model;
use crate::model::{BodyBounds, BodyTests, Conditions, HostPattern, PathPattern, Pattern, RouteMatch};

use super::json::{Fields, Wanted};
use super::path;

pub(super) use conditions::{Content, Facts, failing, failing_body};
pub(crate) use shadow::shadowed;
use template::Tree;
pub(super) use template::captures;

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
    /// Everything else matches, but no route there takes this method; these they take.
    OtherMethods(Vec<Method>),
    /// Nothing matches.
    Nothing,
    /// It depends on the body, which has to be read within these bounds.
    Unread(BodyBounds),
    /// It depends on the body, which can be read in several ways.
    Unreadable(&'static str),
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Routes>,
    templates: Tree<Routes>,
    /// The longest first.
    regexes: Vec<(Pattern, Routes)>,
    prefixes: HashMap<Box<str>, Routes>,
    /// No prefix is longer: what bounds the lookups for a very long path.
    longest_prefix: usize,
}

/// The routes of one host and path.
#[derive(Debug, Default)]
struct Routes {
    /// In the order in which they are asked.
    candidates: Vec<Candidate>,
    /// What all of them together ask of the body; `None`: nothing.
    body: Option<Box<BodyPlan>>,
}

/// How a body is read.
#[derive(Debug)]
struct BodyPlan {
    bounds: BodyBounds,
    wanted: Wanted,
}

/// One of them.
#[derive(Debug)]
struct Candidate {
    route: usize,
    methods: Vec<Method>,
    /// `None`: there are none.
    conditions: Option<Box<Conditions>>,
}

impl Router {
    /// Compiles the routes. Where two routes say the same, the first one holds.
    pub(super) fn new(routes: &[model::Route]) -> Self {
        let mut router = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let matches = &route.matches;
            if matches.hosts.is_empty() {
                router.any.add(matches, index);
            }
            for host in &matches.hosts {
                let paths = match host {
                    HostPattern::Exact(name) => router.hosts.entry(name.as_str().into()).or_default(),
                    HostPattern::Wildcard(suffix) => {
                        router.longest_suffix = router.longest_suffix.max(suffix.len());
                        router.suffixes.entry(suffix.as_str().into()).or_default()
                    }
                };
                paths.add(matches, index);
            }
        }
        for paths in router.paths_mut() {
            paths.sort(routes);
        }
        router
    }

    /// What there is for each host pattern.
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut Paths> {
        self.hosts.values_mut().chain(self.suffixes.values_mut()).chain([&mut self.any])
    }

    /// Finds the route for a host (lower case, without port) and a normalised path.
    pub(super) fn find(&self, host: Option<&str>, path: &str, facts: &Facts<'_>) -> Match {
        let mut asked = Asked { facts, allowed: Vec::new() };
        let host = host.unwrap_or_default();
        let exact = self.hosts.get(host);
        let suffixes = self.suffixes_of(host);
        for paths in exact.into_iter().chain(suffixes).chain([&self.any]) {
            if let Some(found) = paths.find(path, &mut asked) {
                return found;
            }
        }
        if asked.allowed.is_empty() { Match::Nothing } else { Match::OtherMethods(asked.allowed) }
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
    fn add(&mut self, matches: &RouteMatch, route: usize) {
        let routes = match &matches.path {
            PathPattern::Exact(path) => self.exact.entry(normal(path)).or_default(),
            PathPattern::Prefix(path) => {
                let path = normal(path);
                self.longest_prefix = self.longest_prefix.max(path.len());
                self.prefixes.entry(path).or_default()
            }
            PathPattern::Template(template) => self.templates.entry(template),
            PathPattern::Regex(pattern) => {
                let known = self.regexes.iter().position(|(known, _)| known == pattern);
                let at = known.unwrap_or_else(|| {
                    self.regexes.push((pattern.clone(), Routes::default()));
                    self.regexes.len() - 1
                });
                &mut self.regexes[at].1
            }
        };
        let conditions =
            (matches.conditions != Conditions::default()).then(|| matches.conditions.clone().into());
        routes.candidates.push(Candidate { route, methods: matches.methods.clone(), conditions });
    }

    fn sort(&mut self, routes: &[model::Route]) {
        let mut sort = |at: &mut Routes| {
            let rank = |candidate: &Candidate| {
                let model::Route { matches, name, .. } = &routes[candidate.route];
                (conditions::precedence(&matches.methods, &matches.conditions), name)
            };
            at.candidates.sort_by(|a, b| rank(a).cmp(&rank(b)));
            at.plan();
        };
        self.exact.values_mut().chain(self.prefixes.values_mut()).for_each(&mut sort);
        self.regexes.iter_mut().for_each(|(_, routes)| sort(routes));
        self.templates.each(&mut sort);
        self.regexes
            .sort_by(|(a, _), (b, _)| (b.as_str().len(), a.as_str()).cmp(&(a.as_str().len(), b.as_str())));
    }

    fn find(&self, path: &str, asked: &mut Asked<'_>) -> Option<Match> {
        let exact = self.exact.get(path).and_then(|routes| routes.find(asked));
        if exact.is_some() {
            return exact;
        }
        if !self.templates.is_empty()
            && let Some(found) = self.templates.whole(path, &mut |routes| routes.find(asked))
        {
            return Some(found);
        }
        let regexes = self.regexes.iter().filter(|(pattern, _)| pattern.matches(path));
        if let Some(found) = regexes.map(|(_, routes)| routes).find_map(|routes| routes.find(asked)) {
            return Some(found);
        }
        self.find_below(path, asked)
    }

    /// By prefixes, the longest first.
    fn find_below(&self, path: &str, asked: &mut Asked<'_>) -> Option<Match> {
        let mut templates = Vec::new();
        if !self.templates.is_empty() {
            self.templates.below(path, 0, &mut templates);
        }
        if self.prefixes.is_empty() && templates.is_empty() {
            return None;
        }
        // From the whole path upwards, by segment. Nothing longer than the longest prefix is hashed: the
        // cut before it is the first that can match.
        let mut prefix = path;
        if templates.is_empty() && prefix.len() > self.longest_prefix {
            let reach = &prefix.as_bytes()[..=self.longest_prefix];
            prefix = &prefix[..memchr::memrchr(b'/', reach).unwrap_or(0)];
        }
        loop {
            if prefix.len() <= self.longest_prefix
                && let Some(found) = self.prefixes.get(prefix).and_then(|routes| routes.find(asked))
            {
                return Some(found);
            }
            while let Some((_, routes)) = templates.pop_if(|(length, _)| *length == prefix.len()) {
                if let Some(found) = routes.find(asked) {
                    return Some(found);
                }
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

/// A request, and the methods of routes that take it but for its own.
struct Asked<'a> {
    facts: &'a Facts<'a>,
    allowed: Vec<Method>,
}

impl Asked<'_> {
    fn allow(&mut self, methods: &[Method]) {
        for method in methods {
            if !self.allowed.contains(method) {
                self.allowed.push(method.clone());
            }
        }
    }
}

impl Routes {
    /// Says how the body is read, if one of them asks for it.
    fn plan(&mut self) {
        let bodies = || self.candidates.iter().filter_map(|at| at.conditions.as_deref()?.body.as_ref());
        self.body = bodies().map(|body| body.bounds).reduce(BodyBounds::widest).map(|bounds| {
            let wanted = Wanted::new(bodies().flat_map(|body| &body.fields).map(|(pointer, _)| pointer));
            Box::new(BodyPlan { bounds, wanted })
        });
    }

    fn find(&self, asked: &mut Asked<'_>) -> Option<Match> {
        let facts = asked.facts;
        let mut fields = None;
        let mut best: Option<(u16, usize)> = None;
        for Candidate { route, methods, conditions } in &self.candidates {
            let takes = methods.is_empty() || methods.contains(facts.method);
            let conditions = conditions.as_deref();
            if conditions.is_some_and(|conditions| failing(conditions, facts).is_some()) {
                continue;
            }
            if !takes {
                asked.allow(methods);
                continue;
            }
            let accepts = conditions.map_or(&[][..], |conditions| &conditions.accepts);
            if let Some((_, best)) = best.filter(|_| accepts.is_empty()) {
                return Some(Match::Route(best));
            }
            if let (Some(plan), Some(body)) = (&self.body, conditions.and_then(|at| at.body.as_ref())) {
                match plan.holds(body, facts.content, &mut fields) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(unknown) => return Some(unknown),
                }
            }
            if accepts.is_empty() {
                return Some(Match::Route(*route));
            }
            let quality = conditions::quality(accepts, facts.headers);
            if best.is_none_or(|(known, _)| quality > known) {
                best = Some((quality, *route));
            }
        }
        best.map(|(_, route)| Match::Route(route))
    }
}

impl BodyPlan {
    /// Whether the body is what is asked for; `Err` if that is not known. It is read when it is first asked.
    fn holds<'a>(
        &self,
        body: &BodyTests,
        content: Content<'a>,
        fields: &mut Option<Fields<'a>>,
    ) -> Result<bool, Match> {
        let text = match content {
            Content::Unread => return Err(Match::Unread(self.bounds)),
            Content::Other => return Ok(false),
            Content::Json(text) => text,
        };
        if fields.is_none() {
            *fields = Some(self.wanted.read(text).map_err(|why| Match::Unreadable(why.sentence()))?);
        }
        let holds =
            |fields| body.fields.iter().all(|(pointer, test)| self.wanted.holds(fields, pointer, test));
        Ok(fields.as_ref().is_some_and(holds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Segment, Template, Test};

    fn pattern(path: &str) -> PathPattern {
        if let Some(regex) = path.strip_prefix('~') {
            return PathPattern::Regex(Pattern::new(regex).unwrap());
        }
        let (path, below) = path.strip_suffix("/**").map_or((path, false), |path| (path, true));
        if path.contains('{') {
            let segment = |text: &str| match text.strip_prefix('{') {
                Some(name) => Segment::Parameter(name.trim_end_matches('}').to_owned()),
                None => Segment::Literal(text.to_owned()),
            };
            return PathPattern::Template(Template {
                segments: path.split('/').skip(1).map(segment).collect(),
                below,
            });
        }
        if below { PathPattern::Prefix(path.to_owned()) } else { PathPattern::Exact(path.to_owned()) }
    }

    fn named(
        name: &str,
        hosts: &[&str],
        path: &str,
        methods: &[&str],
        header: Option<&'static str>,
    ) -> model::Route {
        let mut route = route(hosts, path, methods);
        route.name = name.to_owned();
        let header = header.map(|name| (http::HeaderName::from_static(name), Test::Present(true)));
        route.matches.conditions.headers.extend(header);
        route
    }

    /// What a router finds for a request with these fields and nothing else.
    fn find(router: &Router, host: Option<&str>, path: &str, method: &str, fields: &[&'static str]) -> Match {
        let mut headers = http::HeaderMap::new();
        for name in fields {
            headers.insert(*name, http::HeaderValue::from_static("1"));
        }
        let facts = Facts {
            method: &method.parse().unwrap(),
            headers: &headers,
            query: None,
            listener: 0,
            server_name: None,
            client: &|| std::net::Ipv4Addr::LOCALHOST.into(),
            content: Content::Unread,
        };
        router.find(host, path, &facts)
    }

    fn route(hosts: &[&str], path: &str, methods: &[&str]) -> model::Route {
        let host = |h: &&str| match h.strip_prefix('*') {
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None => HostPattern::Exact((*h).to_owned()),
        };
        model::Route {
            name: "r".to_owned(),
            matches: model::RouteMatch {
                hosts: hosts.iter().map(host).collect(),
                path: pattern(path),
                methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
                conditions: Conditions::default(),
            },
            action: model::Action::Forward(model::Forward {
                shares: vec![model::Share { upstream: 0, weight: 1 }],
                sticky: None,
                host: None,
                path: None,
                mirrors: Vec::new(),
            }),
            upgrades: Vec::new(),
            request_headers: None,
            response_headers: None,
            cors: None,
            deprecated: None,
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
            assert_eq!(find(router, host, path, method, &[]), expected, "{name}");
        }
    }

    #[test]
    fn a_long_path_costs_no_more_lookups_than_the_longest_prefix_has_segments() {
        let router = Router::new(&[route(&[], "/a/b/**", &[])]);
        let long = format!("/a/b{}", "/x".repeat(30_000));
        assert_eq!(find(&router, None, &long, "GET", &[]), Match::Route(0));
        assert_eq!(find(&router, None, &"/x".repeat(30_000), "GET", &[]), Match::Nothing);
    }

    #[test]
    fn paths_and_conditions_have_their_order() {
        let routes = [
            named("any", &[], "/**", &[], None),
            named("exact", &[], "/users/me", &[], None),
            named("user", &[], "/users/{id}", &[], None),
            named("posts", &[], "/users/{id}/posts", &[], None),
            named("my", &[], "/users/me/{what}", &[], None),
            named("below", &[], "/users/{id}/**", &[], None),
            named("regex", &[], "~/v[0-9]+/.*", &[], None),
            named("longer", &[], "~/v[0-9]+/(a|b)", &[], None),
            named("prefix", &[], "/v1/**", &[], None),
            named("tenant", &[], "/t/{tenant}/**", &[], None),
            named("literal", &[], "/t/acme/**", &[], None),
            named("plain", &[], "/c", &[], None),
            named("canary", &[], "/c", &[], Some("x-canary")),
            named("beta", &[], "/c", &["GET"], None),
            named("late", &[], "/d", &[], Some("x-b")),
            named("early", &[], "/d", &[], Some("x-a")),
            named("put", &[], "/e", &["PUT"], Some("x-a")),
        ];
        let router = Router::new(&routes);
        for (path, method, fields, expected) in [
            ("/users/me", "GET", &[][..], "exact"),
            ("/users/7", "GET", &[], "user"),
            ("/users/7/posts", "GET", &[], "posts"),
            ("/users/me/posts", "GET", &[], "my"),
            ("/users/me/a/b", "GET", &[], "below"),
            ("/users/7/other", "GET", &[], "below"),
            ("/users//posts", "GET", &[], "any"),
            ("/users/", "GET", &[], "any"),
            ("/v1/x", "GET", &[], "regex"),
            ("/v1/a", "GET", &[], "longer"),
            ("/v1/a/x", "GET", &[], "regex"),
            ("/v1", "GET", &[], "prefix"),
            ("/t/acme/x", "GET", &[], "literal"),
            ("/t/other/x", "GET", &[], "tenant"),
            ("/t/other", "GET", &[], "tenant"),
            ("/t", "GET", &[], "any"),
            ("/c", "POST", &[], "plain"),
            ("/c", "POST", &["x-canary"], "canary"),
            ("/c", "GET", &["x-canary"], "beta"),
            ("/d", "GET", &["x-a", "x-b"], "early"),
            ("/d", "GET", &["x-b"], "late"),
            ("/d", "GET", &[], "any"),
            ("/e", "PUT", &["x-a"], "put"),
            ("/e", "GET", &["x-a"], "any"),
        ] {
            let found = find(&router, Some("a.test"), path, method, fields);
            let Match::Route(index) = found else { panic!("{method} {path}: {found:?}") };
            assert_eq!(routes[index].name, expected, "{method} {path} {fields:?}");
        }
        // Without the route for everything: a method is refused only where all the rest is met.
        let narrow = Router::new(&routes[16..]);
        let put = Match::OtherMethods(vec![Method::PUT]);
        assert_eq!(find(&narrow, None, "/e", "GET", &["x-a"]), put);
        assert_eq!(find(&narrow, None, "/e", "GET", &[]), Match::Nothing);
    }

    #[test]
    fn what_a_client_wants_most_decides_among_media_types() {
        let by = |name: &str, methods: &[&str], accepts: &[&str]| {
            let mut route = named(name, &[], "/a", methods, None);
            route.matches.conditions.accepts =
                accepts.iter().map(|text| model::MediaType::new(text).unwrap()).collect();
            route
        };
        let routes = [
            by("any", &[], &[]),
            by("v1", &[], &["a/v1"]),
            by("v2", &[], &["a/v2", "a/v2.1"]),
            by("v3", &["PUT"], &["a/v3"]),
        ];
        let router = Router::new(&routes);
        for (accept, method, expected) in [
            ("", "GET", "any"),
            ("*/*", "GET", "any"),
            ("a/v1", "GET", "v1"),
            ("a/v1;q=0.5, a/v2", "GET", "v2"),
            ("a/v1, a/v2;q=0.5", "GET", "v1"),
            ("a/v1;q=0.5, a/v2;q=0.4, a/v2.1;q=0.6", "GET", "v2"),
            ("a/v1, a/v2", "GET", "v1"),
            ("a/v3, a/v2;q=0.1", "GET", "v2"),
            ("a/v3, a/v2;q=0.1", "PUT", "v3"),
            ("a/v3;q=0.1, a/v2", "PUT", "v2"),
            ("a/v1;q=0", "GET", "any"),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(accept));
            let method = method.parse().unwrap();
            let facts = Facts {
                method: &method,
                headers: &headers,
                query: None,
                listener: 0,
                server_name: None,
                client: &|| std::net::Ipv4Addr::LOCALHOST.into(),
                content: Content::Unread,
            };
            let Match::Route(index) = router.find(None, "/a", &facts) else { panic!("{accept}") };
            assert_eq!(routes[index].name, expected, "{accept} {method}");
        }
    }

    #[test]
    fn a_body_is_asked_for_only_where_it_decides() {
        let by = |name: &str, path: &str, header, pointer: &str, max_bytes| {
            let mut route = named(name, &[], path, &["POST"], header);
            let bounds = BodyBounds { max_bytes, timeout: std::time::Duration::from_secs(1) };
            let fields = vec![(model::Pointer::new(pointer).unwrap(), Test::Is("x".to_owned()))];
            route.matches.conditions.body = Some(BodyTests { bounds, fields });
            route
        };
        let routes = [
            named("all", &[], "/**", &[], None),
            by("a", "/a", None, "/a", 10),
            by("b", "/a", None, "/b", 30),
            by("header", "/a", Some("x-a"), "/h", 20),
            by("below", "/a/**", None, "/c", 5),
            named("exact", &[], "/a/b", &["POST"], None),
        ];
        let router = Router::new(&routes);
        let unread = |max_bytes| Err(Some(max_bytes));
        for (name, method, path, content, fields, expected) in [
            ("unread", "POST", "/a", Content::Unread, &[][..], unread(30)),
            ("another method", "GET", "/a", Content::Unread, &[], Ok("all")),
            ("another path", "POST", "/b", Content::Unread, &[], Ok("all")),
            ("a route before it", "POST", "/a/b", Content::Unread, &[], Ok("exact")),
            ("none", "POST", "/a", Content::Other, &[], Ok("all")),
            ("the first", "POST", "/a", Content::Json(r#"{"a":"x"}"#), &[], Ok("a")),
            ("the second", "POST", "/a", Content::Json(r#"{"b":"x"}"#), &[], Ok("b")),
            ("both", "POST", "/a", Content::Json(r#"{"b":"x","a":"x"}"#), &[], Ok("a")),
            ("and a header", "POST", "/a", Content::Json(r#"{"h":"x","a":"x"}"#), &["x-a"], Ok("header")),
            ("without the header", "POST", "/a", Content::Json(r#"{"h":"x"}"#), &[], Ok("all")),
            ("of a shorter path", "POST", "/a", Content::Json(r#"{"c":"x"}"#), &[], Ok("below")),
            ("twice", "POST", "/a", Content::Json(r#"{"a":1,"a":1}"#), &[], Err(None)),
            ("twice for a shorter path", "POST", "/a", Content::Json(r#"{"c":1,"c":1}"#), &[], Err(None)),
            ("twice for another path", "POST", "/a/c", Content::Json(r#"{"a":1,"a":1}"#), &[], Ok("all")),
        ] {
            let mut headers = http::HeaderMap::new();
            for name in fields {
                headers.insert(*name, http::HeaderValue::from_static("1"));
            }
            let method = method.parse().unwrap();
            let facts = Facts {
                method: &method,
                headers: &headers,
                query: None,
                listener: 0,
                server_name: None,
                client: &|| std::net::Ipv4Addr::LOCALHOST.into(),
                content,
            };
            let found = match router.find(None, path, &facts) {
                Match::Route(index) => Ok(routes[index].name.as_str()),
                Match::Unread(bounds) => Err(Some(bounds.max_bytes)),
                Match::Unreadable(_) => Err(None),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    /// The precedence as the header of this file says it, without any index.
    fn naive(
        routes: &[model::Route],
        host: &str,
        path: &str,
        method: &Method,
        fields: &[&'static str],
    ) -> Option<usize> {
        let host_rank = |r: &model::Route| {
            let hosts = &r.matches.hosts;
            let rank = |h: &HostPattern| {
                h.matches(host).then_some(match h {
                    HostPattern::Exact(_) => (2, 0),
                    HostPattern::Wildcard(suffix) => (1, suffix.len()),
                })
            };
            if hosts.is_empty() { Some((0, 0)) } else { hosts.iter().filter_map(rank).max() }
        };
        // Where a template has parameters, as bits from the left: more written out on the left is more.
        let written = |template: &Template| -> Vec<bool> {
            template.segments.iter().map(|segment| matches!(segment, Segment::Literal(_))).collect()
        };
        let path_rank = |r: &model::Route| match &r.matches.path {
            PathPattern::Exact(p) => (p == path).then_some((3, 0, true, Vec::new())),
            PathPattern::Template(template) => {
                let (_, taken) = captures(template, path)?;
                let kind = if template.below { 0 } else { 2 };
                Some((kind, if template.below { taken } else { 0 }, false, written(template)))
            }
            PathPattern::Regex(pattern) => {
                pattern.matches(path).then(|| (1, pattern.as_str().len(), false, Vec::new()))
            }
            PathPattern::Prefix(p) => {
                (path == p || path.starts_with(&format!("{p}/"))).then(|| (0, p.len(), true, Vec::new()))
            }
        };
        let method_rank = |r: &model::Route| {
            let methods = &r.matches.methods;
            if methods.is_empty() { Some(0) } else { methods.contains(method).then_some(1) }
        };
        let header_rank = |r: &model::Route| {
            let headers = &r.matches.conditions.headers;
            headers.iter().all(|(name, _)| fields.contains(&name.as_str())).then_some(headers.len())
        };
        let mut best = None;
        for (index, r) in routes.iter().enumerate() {
            if let (Some(h), Some(p), Some(m), Some(f)) =
                (host_rank(r), path_rank(r), method_rank(r), header_rank(r))
            {
                // Of names, and of expressions of one length, the first.
                let text =
                    if let PathPattern::Regex(pattern) = &r.matches.path { pattern.as_str() } else { "" };
                let rank = (h, p, std::cmp::Reverse(text), m, f, std::cmp::Reverse(&r.name));
                if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                    best = Some((rank, index));
                }
            }
        }
        best.map(|(_, index)| index)
    }

    fn routes() -> impl Strategy<Value = Vec<model::Route>> {
        let hosts = proptest::sample::subsequence(vec!["a.b", "c.a.b", "*.b", "*.a.b", "b"], 0..3);
        let literal = "(/[ab]){0,3}(/\\*\\*)?".prop_map(|p| if p.is_empty() { "/".to_owned() } else { p });
        let template = "(/([ab]|\\{x\\})){1,4}(/\\*\\*)?";
        let regex = proptest::sample::select(vec!["~/a.*", "~/[ab]/b?", "~/b/a", "~/.*b", "~(/a)*"]);
        let path = prop_oneof![4 => literal, 3 => template, 1 => regex.prop_map(str::to_owned)];
        let methods = proptest::sample::subsequence(vec!["GET", "PUT"], 0..=2);
        let header = proptest::option::of(proptest::sample::select(vec!["x-a", "x-b"]));
        let one = (hosts, path, methods, header).prop_map(|(h, p, m, f)| (h, p, m, f));
        proptest::collection::vec(one, 0..12).prop_map(|all| {
            let name = |index| format!("r{index:02}");
            all.iter().enumerate().map(|(i, (h, p, m, f))| named(&name(i), h, p, m, *f)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_index_agrees_with_a_naive_search(
            routes in routes(),
            host in "([ab]|c|d)(\\.[ab]){0,3}",
            path in "(/[ab]?){1,4}",
            method in proptest::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
            fields in proptest::sample::subsequence(vec!["x-a", "x-b"], 0..=2),
        ) {
            let found = match find(&Router::new(&routes), Some(&host), &path, method.as_str(), &fields) {
                Match::Route(index) => Some(index),
                _ => None,
            };
            prop_assert_eq!(found, naive(&routes, &host, &path, &method, &fields));
        }
    }
}
