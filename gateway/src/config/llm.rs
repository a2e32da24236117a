//! Who serves which model: providers become upstreams, and every name that a client may write leads to targets.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use gateway_llm::dialect::Dialect;
use gateway_llm::target::Quirks;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::config::keys::{self, Root};
use crate::config::lower::whom;
use crate::config::node::Place;
use crate::config::reader::{Reader, Wrong, closest};
use crate::config::routes::{unknown, unknown_upstream};
use crate::config::shape::{Located, Named};
use crate::model::{
    Endpoint, Llm, LlmRoute, LlmTarget, Location, NamePattern, Protocol, Provider, ProviderKey, Upstream,
};
use crate::tls;

/// What stands in place of a key to show a provider the client's own.
const PASS: &str = "pass";

/// Fields that nobody sets: they frame the message, or are the key.
const OWN_FIELDS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

/// Providers, each with an upstream of its own behind those of the configuration, and models.
pub(crate) fn lower(
    root: &Root,
    upstreams: &mut Vec<Upstream>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Llm {
    let keys::Llm { providers, models, aliases } = &root.llm;
    let mut lowered = Vec::new();
    for named in providers {
        if let Some(provider) = provider(named, root, upstreams, reader, base_dir) {
            lowered.push(provider);
        }
    }
    let index_of = |name: &str| lowered.iter().position(|provider: &Provider| provider.name == name);
    let mut llm = Llm::default();
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for Named { name, place, value } in models {
        seen.insert(name, *place);
        let Some(keys::LlmModel { strategy: keys::Strategy::Fallback, targets: Some(targets) }) = value
        else {
            continue;
        };
        if targets.is_empty() {
            reader.error::<()>(*place, format!("{} needs at least one target", keys::named_model(name)));
        }
        let targets: Vec<LlmTarget> =
            targets.iter().filter_map(|target| lower_target(target, providers, &index_of, reader)).collect();
        add(&mut llm, name, targets.into());
    }
    for (index, provider) in lowered.iter().enumerate() {
        for pattern in &provider.models {
            let text = match pattern {
                NamePattern::Exact(name) => name.clone(),
                NamePattern::Prefix(prefix) => format!("{prefix}*"),
            };
            if !is_known(&llm, pattern) {
                add(&mut llm, &text, Arc::new([LlmTarget { provider: index, model: None }]));
            }
        }
    }
    llm.providers = lowered;
    lower_aliases(aliases, &seen, &mut llm, reader);
    llm.prefixes.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    llm.listed = listed(&llm);
    llm
}

/// How a provider's server differs: what it charges may, too.
fn quirks_of(llm: &Llm, provider: usize) -> &'static str {
    llm.providers.get(provider).map_or("openai", |provider| provider.quirks.name)
}

fn is_known(llm: &Llm, pattern: &NamePattern) -> bool {
    match pattern {
        NamePattern::Exact(name) => llm.names.contains_key(name),
        NamePattern::Prefix(prefix) => llm.prefixes.iter().any(|(known, _)| known == prefix),
    }
}

fn add(llm: &mut Llm, name: &str, targets: Arc<[LlmTarget]>) {
    match NamePattern::new(name) {
        Some(NamePattern::Exact(name)) => drop(llm.names.insert(name, targets)),
        Some(NamePattern::Prefix(prefix)) => llm.prefixes.push((prefix, targets)),
        None => {}
    }
}

/// What clients are told that there is: whole names. What a star stands for only the provider knows.
fn listed(llm: &Llm) -> Vec<String> {
    let mut names: Vec<String> = llm.names.keys().cloned().collect();
    names.sort_unstable();
    names
}

/// An alias is looked up once, when the configuration is read: one that leads to another, or nowhere, is a mistake.
fn lower_aliases(
    aliases: &[Named<Located<String>>],
    models: &HashMap<&str, Place>,
    llm: &mut Llm,
    reader: &mut Reader<'_>,
) {
    let mut added = Vec::new();
    for Named { name, place, value } in aliases {
        let Some(wanted) = value else { continue };
        if name.ends_with('*') {
            reader.error::<()>(*place, "an alias is one name; names with a `*` are models");
            continue;
        }
        if let Some(other) = models.get(name.as_str()) {
            let message =
                format!("{} is declared on {}, too", keys::named_model(name), reader.line(*other, *place));
            reader.error::<()>(*place, message);
            continue;
        }
        let targets: Arc<[LlmTarget]> = match llm.find(&wanted.value) {
            Some(crate::model::Found::Group(targets)) => {
                // The alias is not what a target without a name of its own is called.
                let named = |target: &LlmTarget| match &target.model {
                    Some(_) => target.clone(),
                    None => {
                        LlmTarget::new(target.provider, quirks_of(llm, target.provider), Some(&wanted.value))
                    }
                };
                targets.iter().map(named).collect()
            }
            Some(crate::model::Found::Named(provider, model)) => {
                Arc::new([LlmTarget::new(provider, quirks_of(llm, provider), Some(model))])
            }
            None => {
                let wrong = Wrong {
                    message: format!("nobody serves {}", keys::named_model(&wanted.value)),
                    suggestion: closest(&wanted.value, llm.names.keys().map(String::as_str))
                        .map(str::to_owned),
                    valid: Vec::new(),
                };
                reader.wrong::<()>(wanted.place, wrong);
                continue;
            }
        };
        added.push((name.clone(), targets));
    }
    llm.names.extend(added);
}

fn lower_target(
    located: &Located<keys::Target>,
    providers: &[Named<keys::Provider>],
    index_of: &impl Fn(&str) -> Option<usize>,
    reader: &mut Reader<'_>,
) -> Option<LlmTarget> {
    let wanted = located.value.provider.as_ref()?;
    if !providers.iter().any(|named| named.name == wanted.value) {
        unknown("a provider", "providers", wanted, providers, reader);
        return None;
    }
    // One that has a mistake in it is known by its name, and has no place.
    let quirks =
        providers.iter().find(|named| named.name == wanted.value).and_then(|named| named.value.as_ref());
    let quirks = quirks.map_or("openai", |provider| provider.quirks.value);
    Some(LlmTarget::new(index_of(&wanted.value)?, quirks, located.value.model.as_deref()))
}

fn provider(
    named: &Named<keys::Provider>,
    root: &Root,
    upstreams: &mut Vec<Upstream>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<Provider> {
    let keys = named.value.as_ref()?;
    let (dialect, (endpoint, path)) = (keys.dialect.as_ref()?.value, &keys.base_url.as_ref()?.value);
    let quirks = keys.quirks.value;
    if quirks != "openai" && !matches!(dialect, Dialect::OpenaiChat | Dialect::OpenaiResponses) {
        reader.error::<()>(
            keys.quirks.place,
            format!("`quirks` are of servers that speak OpenAI's dialects, not {dialect}"),
        );
    }
    if let Some(version) = keys.api_version.as_ref().filter(|_| quirks != "azure") {
        reader.error::<()>(version.place, "`api_version` goes with `quirks: azure`");
    }
    for (name, value) in &keys.headers {
        if OWN_FIELDS.contains(&name.as_str()) || *name == AUTHORIZATION {
            reader.error::<()>(value.place, format!("{name} cannot be set here: the gateway writes it"));
        }
    }
    let upstream = match &keys.upstream {
        None => {
            upstreams.push(own_upstream(named, keys, endpoint, reader, base_dir));
            upstreams.len() - 1
        }
        Some(wanted) => {
            if keys.tls.is_some() {
                reader.error::<()>(wanted.place, "`tls` is the upstream's to say where `upstream` names one");
            }
            let found = root.upstreams.iter().position(|upstream| upstream.name == wanted.value);
            if found.is_none() {
                unknown_upstream(wanted, &root.upstreams, reader);
            }
            found?
        }
    };
    Some(Provider {
        name: named.name.clone(),
        dialect,
        quirks: Quirks::named(quirks).unwrap_or_default(),
        host: host(endpoint)?,
        base_path: path.clone(),
        api_version: keys.api_version.as_ref().map(|version| version.value.clone()),
        key: keys.api_key.as_ref().map_or(ProviderKey::None, |key| shown_key(&key.value.0, dialect, quirks)),
        headers: keys.headers.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
        models: keys.models.iter().map(|pattern| pattern.value.clone()).collect(),
        upstream,
        idle_timeout: keys.idle_timeout,
    })
}

/// The upstream of a provider that names none. No upstream of the configuration has such a name: it has a slash.
fn own_upstream(
    named: &Named<keys::Provider>,
    keys: &keys::Provider,
    endpoint: &Endpoint,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Upstream {
    let protocol = if endpoint.is_secure { Protocol::Auto } else { Protocol::Http1 };
    let tls = endpoint.is_secure.then(|| whom(keys.tls.as_ref(), protocol, reader, base_dir));
    if keys.tls.is_some() && tls.is_none() {
        let message = format!("the provider `{}` has `tls`, and its `base_url` is not https://", named.name);
        reader.error::<()>(named.place, message);
    }
    if let Some(tls) = &tls
        && tls.verify
        && tls.ca.is_none()
        && let Err(why) = tls::system_roots()
    {
        reader.error::<()>(named.place, why);
    }
    Upstream {
        protocol,
        tls,
        connect_timeout: keys.connect_timeout,
        response_timeout: keys.response_timeout,
        idle_timeout: keys.idle_timeout,
        max_idle_connections: keys.max_idle_connections,
        ..Upstream::new(&format!("llm/{}", named.name), vec![endpoint.clone()])
    }
}

/// As it stands in a request: without the port that goes without saying.
fn host(endpoint: &Endpoint) -> Option<HeaderValue> {
    let Location::Tcp { port, .. } = &endpoint.at else { return None };
    let text = endpoint.to_string();
    let usual = if endpoint.is_secure { 443 } else { 80 };
    let text = if *port == usual { text.strip_suffix(&format!(":{port}")).unwrap_or(&text) } else { &text };
    HeaderValue::try_from(text).ok()
}

/// The field that a dialect has for a key.
pub(crate) fn key_field(dialect: Dialect, quirks: &str) -> (HeaderName, &'static str) {
    match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses if quirks == "azure" => {
            (HeaderName::from_static("api-key"), "")
        }
        Dialect::OpenaiChat | Dialect::OpenaiResponses => (AUTHORIZATION, "Bearer "),
        Dialect::AnthropicMessages => (HeaderName::from_static("x-api-key"), ""),
        Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), ""),
    }
}

fn shown_key(key: &str, dialect: Dialect, quirks: &str) -> ProviderKey {
    if key == PASS {
        return ProviderKey::Pass;
    }
    let (name, prefix) = key_field(dialect, quirks);
    // The notation takes what can stand in a field, and nothing else.
    let Ok(mut value) = HeaderValue::try_from(format!("{prefix}{key}")) else { return ProviderKey::None };
    value.set_sensitive(true);
    ProviderKey::Own(name, value)
}

/// What a route with `llm` does.
pub(crate) fn route(
    place: Place,
    keys: &keys::LlmRoute,
    root: &Root,
    reader: &mut Reader<'_>,
) -> Option<LlmRoute> {
    if root.llm.providers.is_empty() {
        return reader.error(place, "`llm` needs somebody who serves models; declare `llm.providers`");
    }
    let keys::LlmRoute { lossy, max_body, body_timeout, timeout, ping, hold, max_answer } = *keys;
    Some(LlmRoute {
        refuses_losses: lossy,
        max_body_bytes: max_body,
        body_timeout,
        timeout,
        ping,
        hold,
        max_answer,
    })
}
