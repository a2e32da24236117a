//! Says which route takes a request, and why the others do not: what `gateway explain request` shows.

use std::net::IpAddr;

use http::{HeaderMap, Request, Uri};
use serde::Serialize;

use crate::model::{self, Action, BodyBounds, PathPattern, RouteMatch};

use super::problem::Problem;
use super::route::{self, Content, Facts, Match, Router};
use super::{gather, path, request};

/// A request that nobody sends.
#[derive(Debug)]
pub struct Asked {
    /// Its line and its header, in the form of a client's: with a Host, or a target that has one.
    pub request: Request<()>,
    /// Its body; empty: none.
    pub body: Vec<u8>,
    /// Whom it comes from.
    pub client: IpAddr,
    /// The listener that it comes by, by its name; `None`: the first.
    pub listener: Option<String>,
    /// The name that the client asked for in the handshake of TLS.
    pub server_name: Option<String>,
}

/// What becomes of it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The host that it is routed by.
    pub host: Option<String>,
    /// The path, in the form that routes are matched against.
    pub path: String,
    /// The route that takes it; `None`: none.
    pub route: Option<String>,
    /// What that route does with it, or how it is refused.
    pub outcome: String,
    /// Those that match its host and path, the one that takes it first.
    pub candidates: Vec<Candidate>,
    /// How many others there are.
    pub others: usize,
}

/// A route that matches host and path.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub route: String,
    /// Its path, as it is written.
    pub path: String,
    /// Why it takes the request, or why not.
    pub why: String,
}

/// Routes a request without sending it.
///
/// # Errors
/// Why it is refused before it is routed.
pub fn explain(proxy: &model::Proxy, asked: Asked) -> Result<Explanation, String> {
    let Asked { mut request, body, client, listener, server_name } = asked;
    let listener = match &listener {
        None => 0,
        Some(name) => {
            let found = proxy.listeners.iter().position(|listener| listener.name == *name);
            found.ok_or_else(|| format!("there is no listener `{name}`"))?
        }
    };
    request::admit(&mut request, usize::MAX).map_err(|problem| {
        format!("it is refused with {}: {}", problem.status().as_u16(), problem.detail())
    })?;
    let host = request::host(request.headers()).map(|host| host.into_owned());
    let path = normal_path(request.uri())?;
    let mut facts = Facts {
        method: request.method(),
        headers: request.headers(),
        query: request.uri().query(),
        listener,
        server_name: server_name.as_deref(),
        client: &|| client,
        content: Content::Unread,
    };
    let router = Router::new(&proxy.routes);
    let mut found = router.find(host.as_deref(), &path, &facts);
    let mut refused = None;
    if let Match::Unread(bounds) = found {
        match read(request.headers(), &body, bounds) {
            Ok(content) => {
                facts.content = content;
                found = router.find(host.as_deref(), &path, &facts);
            }
            Err(problem) => refused = Some(problem),
        }
    }
    let winner = match found {
        Match::Route(index) => Some(index),
        _ => None,
    };
    let near = |route: &&model::Route| {
        takes_host(&route.matches, host.as_deref()) && takes_path(&route.matches.path, &path)
    };
    let mut candidates: Vec<Candidate> = proxy
        .routes
        .iter()
        .filter(near)
        .map(|route| {
            let wins = winner.is_some_and(|winner| proxy.routes[winner].name == route.name);
            let why = if wins { "takes the request".to_owned() } else { why_not(&route.matches, &facts) };
            Candidate { route: route.name.clone(), path: spell_path(&route.matches.path), why }
        })
        .collect();
    candidates.sort_by_key(|candidate| candidate.why != "takes the request");
    let others = proxy.routes.len() - candidates.len();
    let outcome = match &found {
        Match::Route(index) => spell_action(&proxy.routes[*index].action, proxy),
        Match::OtherMethods(methods) => {
            let methods: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
            format!("405: routes for it take {}", methods.join(", "))
        }
        Match::Nothing => "404: no route matches".to_owned(),
        Match::Unreadable(why) => format!("400: {why}"),
        Match::Unread(_) => refused.map_or_else(String::new, |problem| {
            format!("{}: {}", problem.status().as_u16(), problem.detail())
        }),
    };
    let route = winner.map(|index| proxy.routes[index].name.clone());
    Ok(Explanation { host, path, route, outcome, candidates, others })
}

/// What is known of the body, or why the request is refused.
fn read<'a>(headers: &HeaderMap, body: &'a [u8], bounds: BodyBounds) -> Result<Content<'a>, Problem> {
    if body.is_empty() || !gather::may_be_json(headers)? {
        return Ok(Content::Other);
    }
    if body.len() > bounds.max_bytes {
        return Err(gather::too_large());
    }
    gather::text(body).map(Content::Json)
}

fn normal_path(uri: &Uri) -> Result<String, String> {
    let normal = request::route_path(uri).map_err(|problem| problem.detail().to_owned())?;
    Ok(normal.path.into_owned())
}

fn takes_host(matches: &RouteMatch, host: Option<&str>) -> bool {
    matches.hosts.is_empty() || matches.hosts.iter().any(|pattern| pattern.matches(host.unwrap_or_default()))
}

fn takes_path(pattern: &PathPattern, asked: &str) -> bool {
    let normal =
        |text: &str| path::normalise(text).map_or(text.to_owned(), |normal| normal.path.into_owned());
    match pattern {
        PathPattern::Exact(text) => normal(text) == asked,
        PathPattern::Prefix(text) => {
            let rest = asked.strip_prefix(normal(text).as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathPattern::Template(template) => route::captures(template, asked).is_some(),
        PathPattern::Regex(pattern) => pattern.matches(asked),
    }
}

/// Why a route that matches host and path does not take the request.
fn why_not(matches: &RouteMatch, facts: &Facts<'_>) -> String {
    if !matches.methods.is_empty() && !matches.methods.contains(facts.method) {
        let methods: Vec<&str> = matches.methods.iter().map(http::Method::as_str).collect();
        return format!("does not take {}, only {}", facts.method, methods.join(", "));
    }
    let conditions = &matches.conditions;
    let failing = route::failing(conditions, facts)
        .or_else(|| route::failing_body(conditions.body.as_ref()?, facts.content));
    match failing {
        Some(condition) => format!("asks for something else: {condition}"),
        None => "matches, and is less specific".to_owned(),
    }
}

fn spell_path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(text) => text.clone(),
        PathPattern::Prefix(text) => format!("{text}/**"),
        PathPattern::Template(template) => {
            let mut text: String = template
                .segments
                .iter()
                .map(|segment| match segment {
                    model::Segment::Literal(text) => format!("/{text}"),
                    model::Segment::Parameter(name) => format!("/{{{name}}}"),
                })
                .collect();
            if template.below {
                text.push_str("/**");
            }
            text
        }
        PathPattern::Regex(pattern) => format!("regex {}", pattern.as_str()),
    }
}

fn spell_action(action: &Action, proxy: &model::Proxy) -> String {
    match action {
        Action::Redirect(redirect) => format!("redirected with {}", redirect.status.as_u16()),
        Action::Respond(answer) => format!("answered with {}", answer.status.as_u16()),
        Action::Llm(_) => "sent to whoever serves its model".to_owned(),
        Action::Forward(forward) => {
            let name = |share: &model::Share| proxy.upstreams[share.upstream].name.as_str();
            if let [only] = forward.shares.as_slice() {
                return format!("sent to the upstream {}", name(only));
            }
            let total: u64 = forward.shares.iter().map(|share| u64::from(share.weight)).sum();
            let spell = |share: &model::Share| {
                format!("{} ({:.1} %)", name(share), f64::from(share.weight) * 100.0 / total as f64)
            };
            format!("shared by {}", forward.shares.iter().map(spell).collect::<Vec<_>>().join(", "))
        }
    }
}
