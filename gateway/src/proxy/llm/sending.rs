//! A request as a provider gets it: at its address, with its key, and with nothing of the client's that is not its business.

use std::fmt::Write as _;

use gateway_llm::dialect::Dialect;
use gateway_llm::frames::Framing;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};

use crate::config::key_field;
use crate::model::{Provider, ProviderKey};
use crate::observe::llm::Lane;

use super::super::body::RequestBody;
use super::super::headers::{self, Ready};
use super::ask::{goes_on, key_of, query_without_keys};
use super::call::{Api, Call, count_tail, encode};

/// What a request to a provider is made of.
pub(super) struct Sending<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) head: &'a Parts,
    pub(super) provider: &'a Provider,
    pub(super) model: &'a str,
    /// How the client's answer is cut, if it comes in pieces.
    pub(super) framing: Option<Framing>,
    pub(super) lane: Lane,
    /// What stands at the end of the provider's path, where that is not what the client's call says.
    pub(super) tail: Option<&'static str>,
    /// What the route changes of the header.
    pub(super) changes: Option<&'a Ready>,
}

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

impl Sending<'_> {
    /// The request. `None`: it has no address that can be written, which takes a model of many kilobytes.
    pub(super) fn request(&self, body: RequestBody) -> Option<Request<RequestBody>> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(PathAndQuery::try_from(self.target()).ok()?);
        *request.headers_mut() = self.headers();
        if let Some(changes) = self.changes {
            headers::apply(changes.clone(), request.headers_mut());
        }
        Some(request)
    }

    fn headers(&self) -> HeaderMap {
        let Self { head, provider, lane, .. } = *self;
        let is_translated = lane == Lane::Translate;
        let mut fields = HeaderMap::with_capacity(16);
        fields.insert(HOST, provider.host.clone());
        for (name, value) in head.headers.iter().filter(|(name, _)| goes_on(name, !is_translated)) {
            fields.append(name.clone(), value.clone());
        }
        // What is compressed could be neither metered nor translated.
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if is_translated {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let accepted = if self.framing.is_some() { "text/event-stream" } else { "application/json" };
            fields.insert(ACCEPT, HeaderValue::from_static(accepted));
        }
        if provider.dialect == Dialect::AnthropicMessages && !fields.contains_key(ANTHROPIC_VERSION) {
            fields.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        }
        for (name, value) in &provider.headers {
            fields.insert(name.clone(), value.clone());
        }
        if let Some((name, value)) = self.key() {
            fields.insert(name, value);
        }
        fields
    }

    fn key(&self) -> Option<(HeaderName, HeaderValue)> {
        match &self.provider.key {
            ProviderKey::None => None,
            ProviderKey::Own(name, value) => Some((name.clone(), value.clone())),
            ProviderKey::Pass => {
                let key = key_of(self.head)?;
                let (name, prefix) = key_field(self.provider.dialect, self.provider.quirks.name);
                let mut value =
                    HeaderValue::from_bytes(&[prefix.as_bytes(), key.as_bytes()].concat()).ok()?;
                value.set_sensitive(true);
                Some((name, value))
            }
        }
    }

    /// Path and query.
    fn target(&self) -> String {
        let Self { provider, model, .. } = *self;
        let mut target = match provider.dialect {
            Dialect::OpenaiChat | Dialect::OpenaiResponses => self.of_openai(),
            Dialect::AnthropicMessages => {
                let base = &provider.base_path;
                let version = if base.ends_with("/v1") { "" } else { "/v1" };
                format!("{base}{version}{}", self.tail())
            }
            Dialect::Gemini => {
                let base = &provider.base_path;
                let has_version =
                    ["/v1", "/v1beta", "/v1alpha"].iter().any(|version| base.ends_with(version));
                let version = if has_version { "" } else { "/v1beta" };
                let collection = if model.starts_with("tunedModels/") { "tunedModels" } else { "models" };
                let name =
                    model.strip_prefix(collection).and_then(|name| name.strip_prefix('/')).unwrap_or(model);
                format!("{base}{version}/{collection}/{}:{}", encode(name), self.tail())
            }
        };
        let query = match (self.lane, self.head.uri.query()) {
            (Lane::Translate, _) | (_, None) => String::new(),
            (_, Some(query)) => query_without_keys(query),
        };
        let mut separator = if target.contains('?') { '&' } else { '?' };
        if !query.is_empty() {
            let _ = write!(target, "{separator}{query}");
            separator = '&';
        }
        let is_streamed = self.lane == Lane::Translate && self.framing.is_some();
        if provider.dialect == Dialect::Gemini && is_streamed {
            let _ = write!(target, "{separator}alt=sse");
        }
        target
    }

    fn of_openai(&self) -> String {
        let Self { provider, model, .. } = *self;
        let (base, tail) = (&provider.base_path, self.tail());
        match &provider.api_version {
            Some(version) => {
                let base = base.strip_suffix("/openai").unwrap_or(base);
                format!("{base}/openai/deployments/{}{tail}?api-version={}", encode(model), encode(version))
            }
            None => format!("{base}{tail}"),
        }
    }

    /// What stands behind the version in the path, or behind the colon.
    fn tail(&self) -> &'static str {
        if let Some(tail) = self.tail {
            return tail;
        }
        match &self.call.api {
            Api::Other { .. } if self.call.counts() => return count_tail(self.provider.dialect),
            Api::Other { tail, .. } => return tail,
            _ => {}
        }
        match self.provider.dialect {
            Dialect::OpenaiChat => "/chat/completions",
            Dialect::OpenaiResponses => "/responses",
            Dialect::AnthropicMessages => "/messages",
            Dialect::Gemini if self.framing.is_some() => "streamGenerateContent",
            Dialect::Gemini => "generateContent",
        }
    }
}

/// Whether a provider's own body names the model: elsewhere the path does.
pub(super) fn names_model(provider: &Provider) -> bool {
    provider.dialect != Dialect::Gemini && provider.api_version.is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_llm::target::Quirks;

    use super::*;

    fn provider(dialect: Dialect, base_path: &str) -> Provider {
        Provider {
            name: "p".to_owned(),
            dialect,
            quirks: Quirks::default(),
            host: HeaderValue::from_static("p.test"),
            base_path: base_path.to_owned(),
            api_version: None,
            key: ProviderKey::None,
            headers: Vec::new(),
            models: Vec::new(),
            upstream: 0,
            idle_timeout: Duration::from_secs(1),
        }
    }

    fn sent(
        call: &Call<'_>,
        uri: &str,
        provider: &Provider,
        model: &str,
        streams: bool,
        lane: Lane,
    ) -> Request<RequestBody> {
        let mut request = Request::post(uri).body(()).unwrap();
        for (name, value) in [
            ("authorization", "Bearer client"),
            ("x-api-key", "client"),
            ("cookie", "client"),
            ("x-forwarded-for", "1.2.3.4"),
            ("anthropic-beta", "b"),
            ("user-agent", "u"),
            ("x-custom", "client"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let head = request.into_parts().0;
        let framing = streams.then_some(Framing::Events);
        let sending =
            Sending { call, head: &head, provider, model, framing, lane, tail: None, changes: None };
        sending.request(RequestBody::empty()).unwrap()
    }

    #[test]
    fn requests_go_to_the_address_of_their_api() {
        let generate = |dialect| Call { dialect, api: Api::Generate { model: None, stream: false } };
        let other = |dialect, tail| Call { dialect, api: Api::Other { model: None, tail, is_form: false } };
        let (chat, claude, gemini) = (Dialect::OpenaiChat, Dialect::AnthropicMessages, Dialect::Gemini);
        let azure = Provider { api_version: Some("2024-10-21".to_owned()), ..provider(chat, "/openai") };
        for (name, call, uri, provider, model, streams, lane, expected) in [
            (
                "chat",
                generate(chat),
                "/v1/chat/completions?key=x",
                provider(chat, "/v1"),
                "m",
                false,
                Lane::Pass,
                "/v1/chat/completions",
            ),
            (
                "responses",
                generate(chat),
                "/",
                provider(Dialect::OpenaiResponses, "/v1"),
                "m",
                false,
                Lane::Translate,
                "/v1/responses",
            ),
            (
                "another API",
                other(chat, "/embeddings"),
                "/",
                provider(chat, "/v1"),
                "m",
                false,
                Lane::Pass,
                "/v1/embeddings",
            ),
            (
                "Anthropic",
                generate(claude),
                "/v1/messages?beta=true",
                provider(claude, ""),
                "m",
                true,
                Lane::Pass,
                "/v1/messages?beta=true",
            ),
            (
                "Anthropic with a version",
                generate(chat),
                "/",
                provider(claude, "/anthropic/v1"),
                "m",
                true,
                Lane::Translate,
                "/anthropic/v1/messages",
            ),
            (
                "Gemini",
                generate(gemini),
                "/v1beta/models/m:generateContent?key=x",
                provider(gemini, ""),
                "m",
                false,
                Lane::Pass,
                "/v1beta/models/m:generateContent",
            ),
            (
                "Gemini, an array",
                generate(gemini),
                "/?key=x",
                provider(gemini, "/v1"),
                "m",
                true,
                Lane::Pass,
                "/v1/models/m:streamGenerateContent",
            ),
            (
                "Gemini, events",
                generate(gemini),
                "/?alt=sse",
                provider(gemini, ""),
                "m",
                true,
                Lane::Pass,
                "/v1beta/models/m:streamGenerateContent?alt=sse",
            ),
            (
                "Gemini, translated",
                generate(chat),
                "/?x=y",
                provider(gemini, ""),
                "m",
                true,
                Lane::Translate,
                "/v1beta/models/m:streamGenerateContent?alt=sse",
            ),
            (
                "Gemini, a tuned model",
                generate(chat),
                "/",
                provider(gemini, ""),
                "tunedModels/t",
                false,
                Lane::Translate,
                "/v1beta/tunedModels/t:generateContent",
            ),
            (
                "Gemini, a model that leads elsewhere",
                generate(chat),
                "/",
                provider(gemini, ""),
                "../../x?y",
                false,
                Lane::Translate,
                "/v1beta/models/..%2F..%2Fx%3Fy:generateContent",
            ),
            (
                "Gemini, tokens",
                other(gemini, "countTokens"),
                "/",
                provider(gemini, ""),
                "models/m",
                false,
                Lane::Pass,
                "/v1beta/models/m:countTokens",
            ),
            (
                "Azure by deployment",
                generate(chat),
                "/?api-version=1",
                azure,
                "a/b",
                false,
                Lane::Splice,
                "/openai/deployments/a%2Fb/chat/completions?api-version=2024-10-21",
            ),
        ] {
            let request = sent(&call, uri, &provider, model, streams, lane);
            assert_eq!(request.uri().to_string(), expected, "{name}");
        }
    }

    #[test]
    fn nothing_of_the_clients_goes_on_that_is_not_the_providers_business() {
        let call =
            Call { dialect: Dialect::AnthropicMessages, api: Api::Generate { model: None, stream: false } };
        let key = HeaderValue::from_static("own");
        let own = Provider {
            key: ProviderKey::Own(HeaderName::from_static("x-api-key"), key),
            headers: vec![(HeaderName::from_static("x-team"), HeaderValue::from_static("t"))],
            ..provider(Dialect::AnthropicMessages, "")
        };
        let pass = Provider { key: ProviderKey::Pass, ..own.clone() };
        let none = Provider { key: ProviderKey::None, ..own.clone() };
        for (name, provider, lane, expected) in [
            (
                "its key",
                &own,
                Lane::Pass,
                "accept-encoding: identity, anthropic-beta: b, anthropic-version: 2023-06-01, host: p.test, user-agent: u, x-api-key: own, x-team: t",
            ),
            (
                "the client's",
                &pass,
                Lane::Pass,
                "accept-encoding: identity, anthropic-beta: b, anthropic-version: 2023-06-01, host: p.test, user-agent: u, x-api-key: client, x-team: t",
            ),
            (
                "none, translated",
                &none,
                Lane::Translate,
                "accept-encoding: identity, accept: application/json, anthropic-version: 2023-06-01, content-type: application/json, host: p.test, user-agent: u, x-team: t",
            ),
        ] {
            let request = sent(&call, "/?key=client", provider, "m", false, lane);
            let mut fields: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            fields.sort();
            assert_eq!(fields.join(", "), expected, "{name}");
        }
    }
}
