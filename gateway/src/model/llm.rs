//! Models behind LLM routes: who serves which, under which name, and with whose key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_llm::dialect::Dialect;
use gateway_llm::models::{Entry, Models};
use gateway_llm::target::{self, Quirks};
use http::{HeaderName, HeaderValue};

/// Every provider and model, compiled: a name is found by one look-up, and by a few comparisons if it is none of those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Llm {
    /// Who serves models.
    pub providers: Vec<Provider>,
    /// Models under their whole names, those of aliases among them.
    pub names: HashMap<String, Arc<[Target]>>,
    /// Models under names that end in `*`: the beginning, the longest first.
    pub prefixes: Vec<(String, Arc<[Target]>)>,
    /// Names that clients may be told, in order.
    pub listed: Vec<String>,
}

/// Who serves models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name in the configuration and in metrics.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// How its server differs from the dialect's own.
    pub quirks: Quirks,
    /// Host and perhaps port, as they stand in a request.
    pub host: HeaderValue,
    /// What stands in front of the dialect's own paths; without a slash at its end.
    pub base_path: String,
    /// The version that a dated API of Azure's is asked in: deployments then stand in paths.
    pub api_version: Option<String>,
    /// Who is said to ask.
    pub key: ProviderKey,
    /// Fields that every request to it has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The models that may be asked for as `provider/model`; empty: any.
    pub models: Vec<NamePattern>,
    /// The upstream that its requests go to: an index into [`super::Proxy::upstreams`].
    pub upstream: usize,
    /// How long it may be silent within an answer.
    pub idle_timeout: Duration,
}

/// Whose key a provider is shown. Keys are marked as sensitive: they are not printed, and HTTP/2 puts them into no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKey {
    /// Nobody's.
    None,
    /// The gateway's: a field and its value.
    Own(HeaderName, HeaderValue),
    /// The client's own, wherever it stood in its request.
    Pass,
}

/// Who is asked for a model, and by which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index into [`Llm::providers`].
    pub provider: usize,
    /// As the provider calls it, and what it can; `None`: as the client does.
    pub model: Option<(String, target::Model)>,
}

impl Target {
    /// A model of a provider.
    pub fn new(provider: usize, host: &str, model: Option<&str>) -> Self {
        Self { provider, model: model.map(|model| (model.to_owned(), facts(host, model))) }
    }
}

/// What a model can, by the table that comes with the program.
pub fn facts(host: &str, model: &str) -> target::Model {
    Models::embedded().find_at(host, model).map(Entry::facts).unwrap_or_default()
}

/// A name, or the beginning of names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This one.
    Exact(String),
    /// Whatever begins like this.
    Prefix(String),
}

impl NamePattern {
    /// Reads `gpt-4.1` or `gpt-*`. `None` if there is a `*` anywhere but at the end.
    pub fn new(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            None if !text.contains('*') => Some(Self::Exact(text.to_owned())),
            _ => None,
        }
    }

    /// Whether it is this name, or begins it.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

/// Who serves a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// These, in this order.
    Group(&'a Arc<[Target]>),
    /// This provider (an index) under this name.
    Named(usize, &'a str),
}

impl Llm {
    /// Who serves a model: whole names come first, then `provider/model`, then names that end in `*`, the longest first.
    pub fn find<'a>(&'a self, model: &'a str) -> Option<Found<'a>> {
        if let Some(targets) = self.names.get(model) {
            return Some(Found::Group(targets));
        }
        if let Some((provider, rest)) = model.split_once('/')
            && let Some(index) = self.providers.iter().position(|known| known.name == provider)
            && self.providers[index].takes(rest)
        {
            return Some(Found::Named(index, rest));
        }
        let (_, targets) = self.prefixes.iter().find(|(prefix, _)| model.starts_with(prefix.as_str()))?;
        Some(Found::Group(targets))
    }
}

impl Provider {
    /// Whether it may be asked for this model by its own name.
    pub fn takes(&self, model: &str) -> bool {
        !model.is_empty()
            && (self.models.is_empty() || self.models.iter().any(|pattern| pattern.matches(model)))
    }
}

/// What a route for LLM clients does beside passing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LlmRoute {
    /// Refuse what a translation would lose; else it is reported.
    pub refuses_losses: bool,
    /// Bytes of a request.
    pub max_body_bytes: usize,
    /// From the head of a request to the end of its body.
    pub body_timeout: Duration,
    /// From the head of a request to the begin of its answer, over all targets.
    pub timeout: Duration,
    /// How long a translated stream may be silent before the client is told that it goes on.
    pub ping: Duration,
    /// From the head of a request to the end of its answer, whatever comes.
    pub max_answer: Duration,
    /// How long the first event of a stream is waited for, so that another target can be asked if it is an error.
    pub hold: Duration,
}

impl LlmRoute {
    /// The most that `max_body_bytes` can be.
    pub const MAX_BODY_BYTES: usize = 64 << 20;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(name: &str, models: &[&str]) -> Provider {
        Provider {
            name: name.to_owned(),
            dialect: Dialect::OpenaiChat,
            quirks: Quirks::default(),
            host: HeaderValue::from_static("a.test"),
            base_path: String::new(),
            api_version: None,
            key: ProviderKey::None,
            headers: Vec::new(),
            models: models.iter().filter_map(|model| NamePattern::new(model)).collect(),
            upstream: 0,
            idle_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn models_are_found() {
        let group = |provider: usize| -> Arc<[Target]> { Arc::new([Target { provider, model: None }]) };
        let llm = Llm {
            providers: vec![provider("openai", &["gpt-*", "o3"]), provider("any", &[])],
            names: HashMap::from([("fast".to_owned(), group(0)), ("openai/gpt-x".to_owned(), group(1))]),
            prefixes: vec![("gpt-5".to_owned(), group(1)), ("gpt-".to_owned(), group(0))],
            listed: Vec::new(),
        };
        for (name, model, expected) in [
            ("a name", "fast", Some((0, None))),
            ("a name in another case", "Fast", None),
            ("a provider's", "openai/gpt-4", Some((0, Some("gpt-4")))),
            ("a provider's, with a slash", "any/meta/llama", Some((1, Some("meta/llama")))),
            ("one that the provider is not asked for", "openai/o4", None),
            ("one that it is", "openai/o3", Some((0, Some("o3")))),
            ("no model", "any/", None),
            ("a name before a provider's", "openai/gpt-x", Some((1, None))),
            ("the longest beginning", "gpt-5-mini", Some((1, None))),
            ("a shorter one", "gpt-4", Some((0, None))),
            ("no provider", "x/gpt-4", None),
            ("nothing", "", None),
        ] {
            let found = llm.find(model).map(|found| match found {
                Found::Group(targets) => (targets[0].provider, None),
                Found::Named(provider, model) => (provider, Some(model)),
            });
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let mut value = HeaderValue::from_static("Bearer sk-1234567890");
        value.set_sensitive(true);
        let provider =
            Provider { key: ProviderKey::Own(http::header::AUTHORIZATION, value), ..provider("a", &[]) };
        assert!(!format!("{provider:?}").contains("sk-"), "{provider:?}");
    }

    #[test]
    fn a_star_stands_at_the_end() {
        for (text, is_one) in
            [("gpt-*", true), ("*", true), ("gpt", true), ("g*t", false), ("*t", false), ("g**", false)]
        {
            assert_eq!(NamePattern::new(text).is_some(), is_one, "{text}");
        }
    }
}
