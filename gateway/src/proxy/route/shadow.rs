//! Routes that can never take a request, because those that are asked before them take every one. Only what can be
//! proved: of two expressions nobody says whether one takes all that the other does.

use std::collections::HashMap;

use http::Method;

use crate::model::{BodyTests, Conditions, HostPattern, MediaType, Route, Test};

use super::{Candidate, Paths, Router};

/// Routes of one host and path that are held against each other, each against all before it. Of more nothing is said.
const MAX_COMPARED: usize = 2000;

/// The expression that every path matches.
const EVERY_PATH: &str = ".*";

/// Each route that takes no request, and one of those that take them instead.
pub(crate) fn shadowed(routes: &[Route]) -> Vec<(usize, usize)> {
    let mut seen = Seen::default();
    for paths in Router::new(routes).paths_mut() {
        look(paths, &mut seen);
    }
    let mut shadowed: Vec<_> = seen.into_iter().filter_map(|(route, by)| Some((route, by?))).collect();
    shadowed.sort_unstable();
    shadowed
}

/// Routes, and what takes their requests instead; `None` of those that get some anywhere.
type Seen = HashMap<usize, Option<usize>>;

/// Looks at the routes of one host.
fn look(paths: &mut Paths, seen: &mut Seen) {
    paths.exact.values().for_each(|routes| compare(&[], &routes.candidates, seen));
    paths.templates.each(&mut |routes| compare(&[], &routes.candidates, seen));
    paths.regexes.iter().for_each(|(_, routes)| compare(&[], &routes.candidates, seen));
    // Expressions are asked before prefixes.
    let everywhere = paths.regexes.iter().find(|(pattern, _)| pattern.as_str() == EVERY_PATH);
    let everywhere = everywhere.map_or(&[][..], |(_, routes)| &routes.candidates);
    paths.prefixes.values().for_each(|routes| compare(everywhere, &routes.candidates, seen));
}

/// Holds each against those that are asked before it.
fn compare(before: &[Candidate], candidates: &[Candidate], seen: &mut Seen) {
    let is_too_much = before.len() + candidates.len() > MAX_COMPARED;
    for (index, candidate) in candidates.iter().enumerate() {
        let earlier = before.iter().chain(&candidates[..index]);
        let by = if is_too_much { None } else { covering(candidate, earlier) };
        seen.entry(candidate.route).and_modify(|known| *known = known.and(by)).or_insert(by);
    }
}

/// One of those that together take all that this one would.
fn covering<'a>(
    candidate: &Candidate,
    earlier: impl Iterator<Item = &'a Candidate> + Clone,
) -> Option<usize> {
    let covers = |other: &&Candidate| implies(candidate.conditions.as_deref(), other.conditions.as_deref());
    let takes = |method: Option<&Method>| {
        let all_of = |other: &&Candidate| {
            other.methods.is_empty() || method.is_some_and(|method| other.methods.contains(method))
        };
        earlier.clone().filter(all_of).find(covers).map(|other| other.route)
    };
    match candidate.methods.as_slice() {
        [] => takes(None),
        [first, rest @ ..] => {
            takes(Some(first)).filter(|_| rest.iter().all(|method| takes(Some(method)).is_some()))
        }
    }
}

/// Whether whatever meets these conditions meets those others.
fn implies(these: Option<&Conditions>, others: Option<&Conditions>) -> bool {
    let Some(others) = others else { return true };
    let Some(these) = these else { return false };
    let Conditions {
        headers,
        query,
        cookies,
        content_types,
        accepts,
        body,
        sources,
        listeners,
        server_names,
    } = others;
    tests_imply(&these.headers, headers)
        && tests_imply(&these.query, query)
        && tests_imply(&these.cookies, cookies)
        && one_of(&these.content_types, content_types, is_media_type)
        // Then the client can want no media type of these more.
        && one_of(&these.accepts, accepts, MediaType::eq)
        && body.as_ref().is_none_or(|body| body_implies(these.body.as_ref(), body))
        && one_of(&these.sources, sources, |this, other| other.contains(this))
        && one_of(&these.listeners, listeners, usize::eq)
        && one_of(&these.server_names, server_names, is_host)
}

/// Whether each of these is one of the others; where there are no others, everything is.
fn one_of<T>(these: &[T], others: &[T], is: impl Fn(&T, &T) -> bool) -> bool {
    let is_one = |this| others.iter().any(|other| is(this, other));
    others.is_empty() || (!these.is_empty() && these.iter().all(is_one))
}

fn tests_imply<N: PartialEq>(these: &[(N, Test)], others: &[(N, Test)]) -> bool {
    others
        .iter()
        .all(|(name, other)| these.iter().any(|(known, this)| known == name && test_implies(this, other)))
}

fn test_implies(this: &Test, other: &Test) -> bool {
    match (this, other) {
        (Test::Is(_) | Test::Matches(_), Test::Present(true)) => true,
        (Test::Is(text), Test::Matches(pattern)) => pattern.matches(text),
        (this, other) => this == other,
    }
}

fn body_implies(this: Option<&BodyTests>, other: &BodyTests) -> bool {
    this.is_some_and(|this| tests_imply(&this.fields, &other.fields))
}

fn is_media_type(this: &MediaType, other: &MediaType) -> bool {
    this.essence == other.essence
        && other.parameters.iter().all(|parameter| this.parameters.contains(parameter))
}

fn is_host(this: &HostPattern, other: &HostPattern) -> bool {
    match (this, other) {
        (HostPattern::Exact(name), other) => other.matches(name),
        (HostPattern::Wildcard(suffix), HostPattern::Wildcard(shorter)) => suffix.ends_with(shorter.as_str()),
        (HostPattern::Wildcard(_), HostPattern::Exact(_)) => false,
    }
}
