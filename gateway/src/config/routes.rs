//! The routes: what each asks, what it does, and no two for the same requests.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use gateway_kernel::feed::shown;
use http::{HeaderName, Method, StatusCode};

use crate::config::keys::{self, Root};
use crate::config::llm;
use crate::config::lower::distinct;
use crate::config::notation::METHODS;
use crate::config::reader::{Reader, Wrong, closest};
use crate::config::shape::{Located, Named};
use crate::model::{
    Action, BodyBounds, BodyTests, Conditions, Cors, Deprecation, FieldTemplate, FixedAnswer, Forward,
    HeaderChanges, HostPattern, Mirror, OriginPattern, PathChange, PathPattern, Piece, Redirect, Route,
    RouteMatch, Segment, Share, Sticky,
};

/// Names of a valid list that are shown: beyond, it is no help.
const MAX_VALID: usize = 50;

/// The routes, with the indices that their upstreams and listeners have in the model.
pub(crate) fn lower(root: &Root, reader: &mut Reader<'_>) -> Vec<Route> {
    let names = Names { upstreams: indices(&root.upstreams), listeners: indices(&root.listeners), root };
    let mut lowered: Vec<(Route, &Named<keys::Route>)> = Vec::new();
    for named in &root.routes {
        let Some(route) = &named.value else { continue };
        let matches = matches(&route.r#match, &names, reader);
        let action = action(named, route, &matches.path, &names, reader);
        let upgrades = route.upgrades.clone().unwrap_or_else(|| vec!["websocket".to_owned()]);
        let Some(action) = action else { continue };
        let request_headers = route.request_headers.as_ref().map(|changes| {
            let keys::Changes { remove, set, add } = changes;
            lower_changes(remove, set, add, reader)
        });
        let response_headers = route.response_headers.as_ref().map(|changes| {
            let keys::ReplyChanges { remove, set, add, always_errors } = changes;
            HeaderChanges { always_errors: *always_errors, ..lower_changes(remove, set, add, reader) }
        });
        let cors = route.cors.as_ref().and_then(|cors| lower_cors(cors, reader));
        let deprecated =
            route.deprecated.as_ref().and_then(|deprecated| lower_deprecated(deprecated, reader));
        let name = named.name.clone();
        let route =
            Route { name, matches, action, request_headers, response_headers, cors, deprecated, upgrades };
        lowered.push((route, named));
    }
    refuse_ambiguity(&lowered, reader);
    lowered.into_iter().map(|(route, _)| route).collect()
}

/// What routes may name.
struct Names<'a> {
    upstreams: HashMap<&'a str, usize>,
    listeners: HashMap<&'a str, usize>,
    root: &'a Root,
}

fn indices<T>(named: &[Named<T>]) -> HashMap<&str, usize> {
    named.iter().enumerate().map(|(index, named)| (named.name.as_str(), index)).collect()
}

impl Names<'_> {
    fn upstream(&self, wanted: &Located<String>, reader: &mut Reader<'_>) -> Option<usize> {
        let found = self.upstreams.get(wanted.value.as_str()).copied();
        if found.is_none() {
            unknown_upstream(wanted, &self.root.upstreams, reader);
        }
        found
    }

    fn listener(&self, wanted: &Located<String>, reader: &mut Reader<'_>) -> Option<usize> {
        let found = self.listeners.get(wanted.value.as_str()).copied();
        if found.is_none() {
            unknown("a listener", "listeners", wanted, &self.root.listeners, reader);
        }
        found
    }
}

fn matches(keys: &keys::Match, names: &Names<'_>, reader: &mut Reader<'_>) -> RouteMatch {
    distinct(&keys.hosts, reader, "host");
    distinct(&keys.methods, reader, "method");
    distinct(&keys.listeners, reader, "listener");
    // In one order, so that two that say the same are seen to.
    let sorted = |mut tests: Vec<_>| {
        tests.sort_by(|(a, _): &(String, _), (b, _)| a.cmp(b));
        tests
    };
    let mut headers = keys.headers.clone();
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    let listeners = keys.listeners.iter().filter_map(|listener| names.listener(listener, reader)).collect();
    let body = keys.body.as_ref().and_then(|body| lower_body(body, reader));
    RouteMatch {
        hosts: keys.hosts.iter().map(|host| host.value.clone()).collect(),
        path: keys.path.value.clone(),
        methods: keys.methods.iter().map(|method| method.value.clone()).collect(),
        conditions: Conditions {
            headers,
            query: sorted(keys.query.clone()),
            cookies: sorted(keys.cookies.clone()),
            content_types: keys.content_types.clone(),
            accepts: keys.accepts.clone(),
            body,
            sources: keys.sources.clone(),
            listeners,
            server_names: keys.server_names.clone(),
        },
    }
}

fn lower_body(located: &Located<keys::Body>, reader: &mut Reader<'_>) -> Option<BodyTests> {
    let keys::Body { max_size, timeout, fields } = &located.value;
    let mut fields = fields.clone()?;
    if fields.is_empty() {
        return reader.error(located.place, "`body` needs at least one field to ask for");
    }
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Some(BodyTests { bounds: BodyBounds { max_bytes: *max_size, timeout: *timeout }, fields })
}

fn action(
    named: &Named<keys::Route>,
    route: &keys::Route,
    pattern: &PathPattern,
    names: &Names<'_>,
    reader: &mut Reader<'_>,
) -> Option<Action> {
    let keys::Route { upstream, split, llm, sticky, mirror, rewrite, redirect, respond, .. } = route;
    let llm = llm.as_ref().and_then(|llm| Some((llm.place, llm.value.as_ref()?)));
    let actions =
        [upstream.is_some(), !split.is_empty(), llm.is_some(), redirect.is_some(), respond.is_some()];
    match actions.iter().filter(|has| **has).count() {
        1 => {}
        0 => {
            let message = format!(
                "the route `{}` needs `upstream`, `split`, `llm`, `redirect` or `respond`",
                named.name
            );
            return reader.error(named.place, message);
        }
        _ => {
            let message = format!(
                "the route `{}` has more than one of `upstream`, `split`, `llm`, `redirect` and `respond`",
                named.name
            );
            return reader.error(named.place, message);
        }
    }
    if let Some(sticky) = sticky.as_ref().filter(|_| split.is_empty()) {
        reader.error::<()>(sticky.place, "`sticky` is for routes with `split`");
    }
    let goes_nowhere = llm.is_some() || redirect.is_some() || respond.is_some();
    if let Some(rewrite) = rewrite.as_ref().filter(|_| goes_nowhere) {
        reader.error::<()>(rewrite.place, "`rewrite` is for routes with `upstream` or `split`");
    }
    if let Some(mirror) = mirror.first().filter(|_| goes_nowhere) {
        reader.error::<()>(mirror.place, "`mirror` is for routes with `upstream` or `split`");
    }
    if let Some((place, keys)) = llm {
        return llm::route(place, keys, names.root, reader).map(Action::Llm);
    }
    if let Some(redirect) = redirect {
        return lower_redirect(redirect, pattern, reader).map(Action::Redirect);
    }
    if let Some(respond) = respond {
        let respond = &respond.value;
        // The notation has bounded it.
        let status =
            u16::try_from(respond.status).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
        let (body, content_type) = (Bytes::from(respond.body.clone()), respond.content_type.clone());
        return Some(Action::Respond(FixedAnswer { status, body, content_type }));
    }
    let shares = match upstream {
        Some(wanted) => vec![Share { upstream: names.upstream(wanted, reader)?, weight: 1 }],
        None => lower_split(named, split, names, reader)?,
    };
    let sticky = match sticky {
        Some(sticky) => Some(lower_sticky(sticky, reader)?),
        None => None,
    };
    let mirrors = lower_mirrors(mirror, names, reader)?;
    let (mut host, mut path) = (None, None);
    if let Some(rewrite) = rewrite {
        let keys::Rewrite { host: new, path: whole, prefix } = &rewrite.value;
        host = new.clone();
        path = change(whole.as_ref(), prefix.as_ref(), pattern, reader);
    }
    Some(Action::Forward(Forward { shares, sticky, host, path, mirrors }))
}

/// Fields that no route changes: they say how the message is framed, or are about one connection.
const UNTOUCHED: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Fields, and what they are to be.
type Written = [(HeaderName, Located<FieldTemplate>)];

fn lower_changes(
    remove: &[Located<HeaderName>],
    set: &Written,
    add: &Written,
    reader: &mut Reader<'_>,
) -> HeaderChanges {
    let removed = remove.iter().map(|name| (&name.value, name.place));
    let written = set.iter().chain(add).map(|(name, value)| (name, value.place));
    for (name, place) in removed.chain(written) {
        if UNTOUCHED.contains(&name.as_str()) {
            let instead = if name == http::header::HOST { "; see `rewrite`" } else { "" };
            reader.error::<()>(place, format!("{name} cannot be changed: the gateway writes it{instead}"));
        }
    }
    let fields =
        |fields: &Written| fields.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect();
    HeaderChanges {
        remove: remove.iter().map(|name| name.value.clone()).collect(),
        set: fields(set),
        add: fields(add),
        always_errors: false,
    }
}

fn lower_cors(located: &Located<keys::CorsKeys>, reader: &mut Reader<'_>) -> Option<Cors> {
    let keys::CorsKeys { origins, methods, headers, expose, credentials, max_age } = &located.value;
    let origins = origins.as_ref()?;
    distinct(origins, reader, "origin");
    distinct(methods, reader, "method");
    if origins.is_empty() {
        return reader.error(located.place, "`cors` needs at least one origin");
    }
    if let Some(any) = origins.iter().find(|origin| origin.value == OriginPattern::Any) {
        if *credentials {
            let message =
                "with `credentials`, every page anywhere could act as its visitor here; name the origins";
            return reader.error(any.place, message);
        }
        if origins.len() > 1 {
            return reader.error(any.place, "`*` is everybody: name no other origin beside it");
        }
    }
    let usual = || vec![Method::GET, Method::HEAD, Method::POST];
    let methods: Vec<Method> = methods.iter().map(|method| method.value.clone()).collect();
    Some(Cors {
        origins: origins.iter().map(|origin| origin.value.clone()).collect(),
        methods: if methods.is_empty() { usual() } else { methods },
        headers: headers.clone(),
        expose: expose.clone(),
        credentials: *credentials,
        max_age: *max_age,
    })
}

fn lower_deprecated(
    located: &Located<keys::Deprecated>,
    reader: &mut Reader<'_>,
) -> Option<Arc<Deprecation>> {
    let keys::Deprecated { since, sunset, link, sunset_link } = &located.value;
    if since.is_none() && sunset.is_none() {
        return reader.error(located.place, "`deprecated` needs `since`, `sunset` or both");
    }
    if sunset_link.is_some() && sunset.is_none() {
        return reader.error(located.place, "`sunset_link` is about a `sunset`, and there is none");
    }
    if let (Some(since), Some(sunset)) = (since, sunset)
        && sunset < since
    {
        return reader
            .error(located.place, "a route cannot be gone (`sunset`) before it is deprecated (`since`)");
    }
    Deprecation::new(*since, *sunset, link.as_deref(), sunset_link.as_deref())
}

fn lower_split(
    named: &Named<keys::Route>,
    split: &[Located<keys::Share>],
    names: &Names<'_>,
    reader: &mut Reader<'_>,
) -> Option<Vec<Share>> {
    let wanted: Vec<_> = split.iter().filter_map(|share| share.value.upstream.clone()).collect();
    distinct(&wanted, reader, "upstream");
    let share = |share: &Located<keys::Share>| {
        let upstream = names.upstream(share.value.upstream.as_ref()?, reader)?;
        Some(Share { upstream, weight: u32::try_from(share.value.weight).unwrap_or(u32::MAX) })
    };
    let shares: Vec<Share> = split.iter().filter_map(share).collect();
    if shares.len() == split.len() && shares.iter().all(|share| share.weight == 0) {
        return reader
            .error(named.place, format!("every weight in `split` of the route `{}` is 0", named.name));
    }
    Some(shares).filter(|shares| shares.len() == split.len())
}

/// Who gets copies. An error at one of them leaves no route.
fn lower_mirrors(
    mirrors: &[Located<keys::Mirror>],
    names: &Names<'_>,
    reader: &mut Reader<'_>,
) -> Option<Vec<Mirror>> {
    let wanted: Vec<_> = mirrors.iter().filter_map(|mirror| mirror.value.upstream.clone()).collect();
    distinct(&wanted, reader, "upstream");
    let mirror = |mirror: &Located<keys::Mirror>| {
        let keys::Mirror { upstream, percent, timeout, buffer, max_concurrent } = &mirror.value;
        let upstream = names.upstream(upstream.as_ref()?, reader)?;
        let (share, timeout, buffer) = (*percent, *timeout, *buffer);
        Some(Mirror { upstream, share, timeout, buffer, max_concurrent: *max_concurrent })
    };
    let lowered: Vec<Mirror> = mirrors.iter().filter_map(mirror).collect();
    Some(lowered).filter(|lowered| lowered.len() == mirrors.len())
}

fn lower_sticky(sticky: &Located<keys::Sticky>, reader: &mut Reader<'_>) -> Option<Sticky> {
    match (&sticky.value.cookie, &sticky.value.header) {
        (Some(cookie), None) => Some(Sticky::Cookie(cookie.clone())),
        (None, Some(header)) => Some(Sticky::Header(header.clone())),
        _ => reader.error(sticky.place, "`sticky` takes one of `cookie` and `header`"),
    }
}

fn lower_redirect(
    redirect: &Located<keys::Redirect>,
    pattern: &PathPattern,
    reader: &mut Reader<'_>,
) -> Option<Redirect> {
    let keys::Redirect { scheme, host, port, path, prefix, status } = &redirect.value;
    if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() && prefix.is_none() {
        return reader.error(redirect.place, "`redirect` changes nothing: clients would come back for ever");
    }
    Some(Redirect {
        is_secure: *scheme,
        host: host.clone(),
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: change(path.as_ref(), prefix.as_ref(), pattern, reader),
        status: *status,
    })
}

/// How the path changes; what cannot be is reported.
fn change(
    path: Option<&Located<String>>,
    prefix: Option<&Located<String>>,
    pattern: &PathPattern,
    reader: &mut Reader<'_>,
) -> Option<PathChange> {
    match (path, prefix) {
        (None, None) => None,
        (Some(_), Some(prefix)) => reader.error(prefix.place, "a path changes by one of `path` and `prefix`"),
        (Some(path), None) => {
            let pieces = pieces(path, pattern, reader)?;
            Some(PathChange::Whole(pieces))
        }
        (None, Some(prefix)) => {
            if matches!(pattern, PathPattern::Regex(_)) {
                return reader.error(prefix.place, "a regular expression has no prefix; use `path`");
            }
            if prefix.value.contains(['{', '}']) {
                return reader.error(prefix.place, "parameters stand in `path`, not in `prefix`");
            }
            Some(PathChange::Prefix(prefix.value.trim_end_matches('/').to_owned()))
        }
    }
}

/// The pieces of a path, with the parameters that the route's pattern has.
fn pieces(path: &Located<String>, pattern: &PathPattern, reader: &mut Reader<'_>) -> Option<Vec<Piece>> {
    let segments: &[Segment] = match pattern {
        PathPattern::Template(template) => &template.segments,
        _ => &[],
    };
    let parameters: Vec<&str> = segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
        .collect();
    let (mut pieces, mut rest) = (Vec::new(), path.value.as_str());
    while let Some((text, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else {
            return reader.error(path.place, "a `{` in this path has no `}`");
        };
        let Some(index) = parameters.iter().position(|known| *known == name) else {
            if let Some(written) = &path.written {
                // What a reference stands for may be a secret.
                let message =
                    format!("what `{}` stands for names a parameter that `match` has not", shown(written));
                return reader.error(path.place, message);
            }
            let wrong = Wrong {
                message: format!("the path of `match` has no parameter {{{}}}", shown(name)),
                suggestion: closest(name, parameters.iter().copied()).map(|name| format!("{{{name}}}")),
                valid: parameters.iter().map(|name| format!("{{{name}}}")).collect(),
            };
            return reader.wrong(path.place, wrong);
        };
        pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
        pieces.push(Piece::Parameter(index));
        rest = behind;
    }
    pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
    Some(pieces)
}

/// Reports a name that no upstream has.
pub(crate) fn unknown_upstream(
    wanted: &Located<String>,
    upstreams: &[Named<keys::Upstream>],
    reader: &mut Reader<'_>,
) {
    unknown("an upstream", "upstreams", wanted, upstreams, reader);
}

pub(crate) fn unknown<T>(
    one: &str,
    all: &str,
    wanted: &Located<String>,
    known: &[Named<T>],
    reader: &mut Reader<'_>,
) {
    let names = || known.iter().map(|named| named.name.as_str());
    let valid: Vec<String> = names().take(MAX_VALID).map(str::to_owned).collect();
    let none = if valid.is_empty() { format!("; no {all} are declared") } else { String::new() };
    let what = one.split_once(' ').map_or(one, |(_, what)| what);
    let message =
        format!("there is no {what} `{}`{none}", shown(wanted.written.as_ref().unwrap_or(&wanted.value)));
    let suggestion = match wanted.written {
        None => closest(&wanted.value, names()).map(str::to_owned),
        Some(_) => None,
    };
    reader.wrong::<()>(wanted.place, Wrong { message, suggestion, valid });
}

/// Two routes that ask the same: neither is more specific, and order has no meaning.
fn refuse_ambiguity(routes: &[(Route, &Named<keys::Route>)], reader: &mut Reader<'_>) {
    type Taken<'a> = Vec<(u64, &'a Named<keys::Route>)>;
    // What else they ask, as text: a compiled expression is no key.
    let mut taken: HashMap<(Option<&HostPattern>, String), Taken<'_>> = HashMap::new();
    for (route, named) in routes {
        let RouteMatch { hosts, path, methods, conditions } = &route.matches;
        let methods = method_set(methods);
        let asked = format!("{path:?} {conditions:?}");
        let every = hosts.is_empty().then_some(None);
        let mut clash = None;
        for host in hosts.iter().map(Some).chain(every) {
            let others = taken.entry((host, asked.clone())).or_default();
            let other =
                others.iter().find(|(theirs, other)| theirs & methods != 0 && !std::ptr::eq(*other, *named));
            clash = clash.or(other.map(|(_, other)| *other));
            // A set that adds nothing is not kept, so that a search is never longer than the methods are many.
            if others.iter().fold(methods, |rest, (theirs, _)| rest & !theirs) != 0 {
                others.push((methods, named));
            }
        }
        if let Some(other) = clash {
            let message = format!(
                "the routes `{}` ({}) and `{}` take the same requests; give one of them another host, path or \
                 method",
                other.name,
                reader.line(other.place, named.place),
                named.name
            );
            reader.error::<()>(named.place, message);
        }
    }
}

/// Methods as bits; the highest stands for "every method", which is less specific than any of them.
fn method_set(methods: &[Method]) -> u64 {
    if methods.is_empty() {
        return 1 << 63;
    }
    let bit = |method: &Method| {
        METHODS.iter().position(|name| *name == method.as_str()).map_or(0, |index| 1 << index)
    };
    methods.iter().fold(0, |set, method| set | bit(method))
}
