//! The routes: each to its upstream, and no two for the same requests.

use std::collections::HashMap;

use gateway_kernel::feed::shown;
use http::Method;

use crate::config::keys;
use crate::config::lower::distinct;
use crate::config::notation::METHODS;
use crate::config::reader::{Reader, Wrong, closest};
use crate::config::shape::{Located, Named};
use crate::model::{HostPattern, PathPattern, Route, RouteMatch};

/// Names of a valid list that are shown: beyond, it is no help.
const MAX_VALID: usize = 50;

/// The routes, with the indices that their upstreams have in the model.
pub(crate) fn lower(
    routes: &[Named<keys::Route>],
    upstreams: &[Named<keys::Upstream>],
    reader: &mut Reader<'_>,
) -> Vec<Route> {
    let indices: HashMap<&str, usize> =
        upstreams.iter().enumerate().map(|(index, named)| (named.name.as_str(), index)).collect();
    let mut lowered = Vec::new();
    for Named { name, value, .. } in routes {
        let Some(route) = value else { continue };
        distinct(&route.r#match.hosts, reader, "host");
        distinct(&route.r#match.methods, reader, "method");
        let Some(wanted) = &route.upstream else { continue };
        let Some(&upstream) = indices.get(wanted.value.as_str()) else {
            unknown_upstream(wanted, upstreams, reader);
            continue;
        };
        let matches = RouteMatch {
            hosts: route.r#match.hosts.iter().map(|host| host.value.clone()).collect(),
            path: route.r#match.path.clone(),
            methods: route.r#match.methods.iter().map(|method| method.value.clone()).collect(),
        };
        let upgrades = route.upgrades.clone().unwrap_or_else(|| vec!["websocket".to_owned()]);
        lowered.push(Route { name: name.clone(), matches, upstream, upgrades });
    }
    refuse_ambiguity(routes, reader);
    lowered
}

pub(crate) fn unknown_upstream(
    wanted: &Located<String>,
    upstreams: &[Named<keys::Upstream>],
    reader: &mut Reader<'_>,
) {
    let names = || upstreams.iter().map(|named| named.name.as_str());
    let valid: Vec<String> = names().take(MAX_VALID).map(str::to_owned).collect();
    let none = if valid.is_empty() { "; no upstreams are declared" } else { "" };
    let message =
        format!("there is no upstream `{}`{none}", shown(wanted.written.as_ref().unwrap_or(&wanted.value)));
    let suggestion = match wanted.written {
        None => closest(&wanted.value, names()).map(str::to_owned),
        Some(_) => None,
    };
    reader.wrong::<()>(wanted.place, Wrong { message, suggestion, valid });
}

/// Two routes for one host, path and method: neither is more specific, and order has no meaning.
fn refuse_ambiguity(routes: &[Named<keys::Route>], reader: &mut Reader<'_>) {
    type Taken<'a> = Vec<(u64, &'a Named<keys::Route>)>;
    let mut taken: HashMap<(Option<&HostPattern>, &PathPattern), Taken<'_>> = HashMap::new();
    for named in routes {
        let Some(route) = &named.value else { continue };
        let methods = method_set(&route.r#match.methods);
        let hosts = &route.r#match.hosts;
        let every = hosts.is_empty().then_some(None);
        let mut clash = None;
        for host in hosts.iter().map(|host| Some(&host.value)).chain(every) {
            let others = taken.entry((host, &route.r#match.path)).or_default();
            let other =
                others.iter().find(|(theirs, other)| theirs & methods != 0 && !std::ptr::eq(*other, named));
            clash = clash.or(other.map(|(_, other)| *other));
            // A set that adds nothing is not kept, so that a search is never longer than the methods are many.
            if others.iter().fold(methods, |rest, (theirs, _)| rest & !theirs) != 0 {
                others.push((methods, named));
            }
        }
        if let Some(other) = clash {
            let message = format!(
                "the routes `{}` (line {}) and `{}` take the same requests; give one of them another host, path or \
                 method",
                other.name, other.place.line, named.name
            );
            reader.error::<()>(named.place, message);
        }
    }
}

/// Methods as bits; the highest stands for "every method", which is less specific than any of them.
fn method_set(methods: &[Located<Method>]) -> u64 {
    if methods.is_empty() {
        return 1 << 63;
    }
    let bit = |method: &Method| {
        METHODS.iter().position(|name| *name == method.as_str()).map_or(0, |index| 1 << index)
    };
    methods.iter().fold(0, |set, method| set | bit(&method.value))
}
