//! What is no mistake and may not be meant: a configuration that can run, and does less than it says. Only what is
//! certain; who warns of what may be is soon read by nobody.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::config::keys::{self, Root};
use crate::config::reader::Reader;
use crate::config::shape::Located;
use crate::model::{
    Action, CertificateFiles, FieldPart, FieldTemplate, HeaderChanges, Listener, Model, Proxy, Route,
    Variable,
};
use crate::{proxy, tls};

/// How long before its end a certificate is told of: those that renew themselves do so long before.
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks at a configuration without mistakes: what was written, and what became of it, in the same order.
pub(crate) fn look(root: &Root, model: &Model, reader: &mut Reader<'_>, base_dir: &Path) {
    unused_upstreams(root, &model.proxy, reader);
    routes(root, &model.proxy, reader);
    shadowed(root, &model.proxy, reader);
    certificates(root, reader, base_dir);
}

fn unused_upstreams(root: &Root, proxy: &Proxy, reader: &mut Reader<'_>) {
    let forwarded = proxy.routes.iter().filter_map(|route| match &route.action {
        Action::Forward(forward) => {
            let mirrored = forward.mirrors.iter().map(|mirror| mirror.upstream);
            Some(forward.shares.iter().map(|share| share.upstream).chain(mirrored))
        }
        Action::Redirect(_) | Action::Respond(_) | Action::Llm(_) => None,
    });
    let passed = proxy.listeners.iter().flat_map(|listener| &listener.passthrough).map(|to| to.upstream);
    let serving = proxy.llm.providers.iter().map(|provider| provider.upstream);
    let mut wanted: Vec<usize> = forwarded.flatten().chain(passed).chain(serving).collect();
    let mut used = HashSet::new();
    while let Some(upstream) = wanted.pop() {
        if used.insert(upstream) {
            wanted.extend(proxy.upstreams.get(upstream).and_then(|upstream| upstream.fallback));
        }
    }
    for (index, named) in root.upstreams.iter().enumerate() {
        if !used.contains(&index) {
            reader.warn(named.place, format!("no route and no listener uses the upstream `{}`", named.name));
        }
    }
}

/// Each route for itself.
fn routes(root: &Root, proxy: &Proxy, reader: &mut Reader<'_>) {
    if let Some(first) = root.routes.first().filter(|_| proxy.listeners.is_empty()) {
        let message = "no listener is declared, so no route gets a request".to_owned();
        return reader.warn(first.place, message);
    }
    let now = OffsetDateTime::from(SystemTime::now());
    for (named, route) in root.routes.iter().zip(&proxy.routes) {
        let (name, place) = (&named.name, named.place);
        if !route.matches.conditions.server_names.is_empty()
            && !of(route, proxy).any(|listener| listener.tls.is_some())
        {
            let message = format!(
                "the route `{name}` asks for a server name, and none of its listeners speaks TLS: it takes no request"
            );
            reader.warn(place, message);
        }
        if names_requests(route) && !of(route, proxy).any(|listener| listener.request_ids) {
            let message = format!(
                "the route `{name}` has {{request.id}} in a value, and none of its listeners has `request_ids`: the \
                 field is left out"
            );
            reader.warn(place, message);
        }
        if let Some(ends) = route.deprecated.as_ref().and_then(|deprecated| deprecated.ends)
            && ends <= now
        {
            reader.warn(place, format!("the `sunset` of the route `{name}` was on {}", ends.date()));
        }
    }
}

/// The listeners that a route's requests come by.
fn of<'a>(route: &'a Route, proxy: &'a Proxy) -> impl Iterator<Item = &'a Listener> {
    let named = &route.matches.conditions.listeners;
    let is_named = move |index: &usize| named.is_empty() || named.contains(index);
    proxy.listeners.iter().enumerate().filter(move |(index, _)| is_named(index)).map(|(_, listener)| listener)
}

fn names_requests(route: &Route) -> bool {
    let changes = [&route.request_headers, &route.response_headers].into_iter().flatten();
    let mut values = changes.flat_map(|HeaderChanges { set, add, .. }| set.iter().chain(add));
    values.any(|(_, value)| match value {
        FieldTemplate::Made(parts) => parts.contains(&FieldPart::Variable(Variable::RequestId)),
        FieldTemplate::Fixed(_) => false,
    })
}

fn shadowed(root: &Root, proxy: &Proxy, reader: &mut Reader<'_>) {
    for (route, by) in proxy::shadowed(&proxy.routes) {
        let (Some(route), Some(by)) = (root.routes.get(route), root.routes.get(by)) else { continue };
        let message = format!(
            "the route `{}` takes no request: what it asks for, `{}` ({}) takes before it",
            route.name,
            by.name,
            reader.line(by.place, route.place)
        );
        reader.warn(route.place, message);
    }
}

/// Those that are files. Those that are obtained renew themselves, and say when they cannot.
fn certificates(root: &Root, reader: &mut Reader<'_>, base_dir: &Path) {
    let listeners = root.listeners.iter().filter_map(|named| named.value.as_ref()?.tls.as_ref());
    let shown = listeners.filter_map(|tls| tls.certificates.as_ref()).flatten();
    let upstreams = root.upstreams.iter().filter_map(|named| named.value.as_ref()?.tls.as_ref());
    let shown = shown.chain(upstreams.filter_map(|tls| tls.certificate.as_ref()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for certificate in shown {
        if let Some(message) = timely(certificate, now, base_dir) {
            reader.warn(certificate.place, message);
        }
    }
}

/// What is to be said of the time of a certificate.
fn timely(certificate: &Located<keys::Certificate>, now: Duration, base_dir: &Path) -> Option<String> {
    let keys::Certificate { cert, key, .. } = &certificate.value;
    let (cert, key) = (cert.as_ref()?, key.as_ref()?);
    let facts =
        tls::facts(&CertificateFiles { cert: base_dir.join(cert), key: base_dir.join(key), ocsp: None })?;
    // What a reference stands for may be a secret, but a path is in every error of that file, too.
    let says = |what: &str, when: Duration| {
        let when = OffsetDateTime::from(UNIX_EPOCH + when).date();
        Some(format!("the certificate in {} {what} {when}", base_dir.join(cert).display()))
    };
    if facts.not_after <= now {
        return says("ended on", facts.not_after);
    }
    if facts.not_before > now {
        return says("begins on", facts.not_before);
    }
    if facts.not_after - now < EXPIRY_NOTICE {
        return says("ends on", facts.not_after);
    }
    None
}
