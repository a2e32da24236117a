//! The keys of LLM routes, providers and models.

use std::time::Duration;

use gateway_kernel::feed::shown;
use gateway_llm::dialect::Dialect;
use http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use crate::config::node::{Node, Value};
use crate::config::notation::{
    ApiKey, BaseUrl, Count, FieldName, FieldValue, Label, ModelName, ModelPattern, NameOf, Secret, Size, Span,
};
use crate::config::reader::Reader;
use crate::config::shape::{
    At, Choice, FieldInfo, ListOf, Located, MapOf, Named, Notation as _, Optional, Or, OrEmpty, Required,
    Shape, entries_of, record, section,
};
use crate::model::{Endpoint, NamePattern};

use super::UpstreamTls;

/// Names of models, and targets of one.
const MAX_MODELS: usize = 10_000;
const MAX_TARGETS: usize = 16;

record! {
    /// `llm`
    Llm {
        /// Who serves models, by name. The name stands in metrics, and in front of a model (`openai/gpt-4.1`) it names who
        /// is asked.
        providers: Vec<Named<Provider>> = OrEmpty(MapOf(section::<Provider>(), 256)),
        /// Models, by the names that clients use. A name that ends in `*` is every name that begins so; the longest wins,
        /// after whole names and `provider/model`.
        models: Vec<Named<Model>> = OrEmpty(ModelsOf(section::<Model>(), MAX_MODELS)),
        /// Other names of models: what clients write, and what it stands for.
        aliases: Vec<Named<Located<String>>> = OrEmpty(ModelsOf(At(ModelName), MAX_MODELS)),
    }
}

record! {
    /// An entry of `llm.providers`. Its requests go to the host of `base_url` and to no other; redirects are not followed.
    Provider {
        /// What it speaks.
        dialect: Option<Located<Dialect>> = Required(At(Choice(&[
            ("openai_chat", Dialect::OpenaiChat),
            ("openai_responses", Dialect::OpenaiResponses),
            ("anthropic_messages", Dialect::AnthropicMessages),
            ("gemini", Dialect::Gemini),
        ]))),
        /// Where it is: what stands in front of `/chat/completions` or `/responses` (as in `https://api.openai.com/v1`), of
        /// `/v1/messages` or of `/v1beta/models`.
        base_url: Option<Located<(Endpoint, String)>> = Required(At(BaseUrl)),
        /// The key that it is shown, as a rule a reference: `${NAME}`, `${file:PATH}` or `${command: PROGRAM ARGUMENTS}`.
        /// `pass` shows it the client's own. Left out, it is shown none.
        api_key: Option<Located<Secret>> = Optional(At(ApiKey)),
        /// How its server differs from OpenAI's: fields that it does not take are left out or renamed, and what goes beyond
        /// that is translated. With `openai`, requests of OpenAI's clients pass as they are. `generic` is a server of which
        /// nothing is known.
        quirks: Located<&'static str> = Or(At(Choice(QUIRKS)), "openai"),
        /// Ask in this version of Azure's dated API, as in 2024-10-21: models are deployments then, and stand in paths.
        api_version: Option<Located<String>> = Optional(At(Label)),
        /// Fields that every request to it has.
        headers: Vec<(HeaderName, Located<HeaderValue>)> = OrEmpty(FixedFields(64)),
        /// The models that may be asked for as `provider/model`, as in `gpt-*`. Left out, any. Where no entry of
        /// `llm.models` names a model, the first provider that names it here gets it, too.
        models: Vec<Located<NamePattern>> = OrEmpty(ListOf(At(ModelPattern), 1000)),
        /// Spread its requests over the endpoints of this upstream, by its timeouts, health checks and breaker. Left out,
        /// they go to the host of `base_url`.
        upstream: Option<Located<String>> = Optional(At(NameOf("an upstream"))),
        /// Whom it has to be, where `base_url` is https://.
        tls: Option<UpstreamTls> = Optional(section::<UpstreamTls>()),
        /// To resolve the name, open a connection and shake hands.
        connect_timeout: Duration = Or(Span("10ms", "5m"), "5s"),
        /// From the end of the request to the head of the answer: models think for minutes before they say a word.
        response_timeout: Duration = Or(Span("10ms", "1d"), "10m"),
        /// Between two pieces of an answer.
        idle_timeout: Duration = Or(Span("10ms", "1d"), "5m"),
        /// Idle connections that each worker keeps.
        max_idle_connections: usize = Or(Count(0, 100_000), "64"),
    }
}

/// Servers that speak OpenAI's Chat Completions with differences.
pub(crate) const QUIRKS: &[(&str, &str)] = &[
    ("openai", "openai"),
    ("azure", "azure"),
    ("mistral", "mistral"),
    ("groq", "groq"),
    ("deepseek", "deepseek"),
    ("xai", "xai"),
    ("together", "together"),
    ("openrouter", "openrouter"),
    ("vllm", "vllm"),
    ("ollama", "ollama"),
    ("llama_cpp", "llama_cpp"),
    ("google", "google"),
    ("generic", "generic"),
];

record! {
    /// An entry of `llm.models`
    Model {
        /// Who of `targets` is asked: the first, and the others in order when it fails (`fallback`).
        strategy: Strategy = Or(Choice(&[("fallback", Strategy::Fallback)]), "fallback"),
        /// Who serves it.
        targets: Option<Vec<Located<Target>>> = Required(ListOf(At(section::<Target>()), MAX_TARGETS)),
    }
}

/// Who of a model's targets is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The first, and the others in order.
    Fallback,
}

record! {
    /// An entry of `targets`
    Target {
        /// A provider.
        provider: Option<Located<String>> = Required(At(NameOf("a provider"))),
        /// The model, as the provider calls it. Left out, as the client does.
        model: Option<String> = Optional(ModelName),
    }
}

record! {
    /// `llm` of a route
    LlmRoute {
        /// What becomes of a request that a target cannot be told all of: it goes there, and the answer lists in
        /// `gateway-llm-losses` what was left out (`report`); or it is answered 400 and goes nowhere (`refuse`).
        lossy: bool = Or(Choice(&[("report", false), ("refuse", true)]), "report"),
        /// Bytes of a request; more are answered 413.
        max_body: usize = Or(Size("1KiB", "64MiB"), "32MiB"),
        /// From the head of a request to the end of its body. Later ones are answered 408.
        body_timeout: Duration = Or(Span("10ms", "1h"), "60s"),
        /// From the head of a request to the begin of its answer, over all targets. Later ones are answered 504.
        timeout: Duration = Or(Span("10ms", "1d"), "15m"),
        /// How long a translated stream may be silent before clients are told that it goes on.
        ping: Duration = Or(Span("10ms", "1h"), "15s"),
        /// From the head of a request to the end of its answer, however much comes. Streams that go on end in an error.
        max_answer: Duration = Or(Span("10ms", "1d"), "1h"),
        /// How long the first event of a stream is waited for where another target could be asked if it is an error.
        hold: Duration = Or(Span("0s", "1m"), "3s"),
    }
}

/// `true`, or a map that says more.
pub(crate) struct IsLlm;

impl Shape for IsLlm {
    type Out = Option<LlmRoute>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let Value::Scalar(scalar) = &node.value else {
            return section::<LlmRoute>().read(node, reader).map(Some);
        };
        match scalar.text.as_str() {
            "true" => section::<LlmRoute>()
                .read(&Node { value: Value::Map(Vec::new()), ..node.clone() }, reader)
                .map(Some),
            "false" => Some(None),
            _ => reader.expected(node, &self.noun()),
        }
    }

    fn noun(&self) -> String {
        format!("`true`, `false` or {}", section::<LlmRoute>().noun())
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, section::<LlmRoute>().schema()] })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        section::<LlmRoute>().keys()
    }
}

/// A map from names of models to values, at most so many: such names have dots, slashes and capitals.
pub(crate) struct ModelsOf<S>(pub(crate) S, pub(crate) usize);

impl<S: Shape> Shape for ModelsOf<S> {
    type Out = Vec<Named<S::Out>>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let entries = entries_of(node, self.1, || self.noun(), reader)?;
        let mut read = Vec::new();
        for (key, value) in entries {
            let name_is_good = match ModelPattern.parse(&key.name) {
                Ok(_) => true,
                Err(wrong) => reader.wrong::<()>(key.place, wrong).is_some(),
            };
            reader.owner = Some(key.place);
            let value = self.0.read(value, reader).filter(|_| name_is_good);
            read.push(Named { name: key.name.clone(), place: key.place, value });
        }
        Some(read)
    }

    fn noun(&self) -> String {
        format!("a map from names of models to {}", self.0.noun().replacen("a map", "maps", 1))
    }

    fn schema(&self) -> Json {
        json!({
            "type": ["object", "null"],
            "additionalProperties": self.0.schema(),
            "maxProperties": self.1,
        })
    }

    fn keys(&self) -> Vec<FieldInfo> {
        self.0.keys()
    }

    fn step(&self) -> &'static str {
        ".<name>"
    }
}

/// A map from names of header fields to values that are always the same, at most so many.
pub(crate) struct FixedFields(pub(crate) usize);

impl Shape for FixedFields {
    type Out = Vec<(HeaderName, Located<HeaderValue>)>;

    fn read(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Self::Out> {
        let entries = entries_of(node, self.0, || self.noun(), reader)?;
        let mut read = Vec::new();
        for (key, value) in entries {
            let name = match FieldName.parse(&key.name) {
                Ok(name) => Some(name),
                Err(wrong) => reader.wrong(key.place, wrong),
            };
            if let (Some(name), Some(mut value)) = (name, At(FieldValue).read(value, reader)) {
                // As likely as not it is a token.
                value.value.set_sensitive(true);
                read.push((name, Located { place: key.place, ..value }));
            }
        }
        Some(read)
    }

    fn noun(&self) -> String {
        "a map from header fields to values".to_owned()
    }

    fn schema(&self) -> Json {
        json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "number", "boolean"] },
            "maxProperties": self.0,
        })
    }
}

/// What is said of a name of a model in a report.
pub(crate) fn named(model: &str) -> String {
    format!("the model `{}`", shown(model))
}
