//! What a client asks for, as far as the gateway has to know: the model, whether it streams, and the key that came along.

use std::borrow::Cow;

use bytes::Bytes;
use gateway_llm::dialect::Dialect;
use gateway_llm::failure::FailureKind;
use gateway_llm::frames::Framing;
use gateway_llm::json::{Edit, Members, Piece, quoted};
use gateway_llm::loss::Losses;
use gateway_llm::target::Quirks;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;

use super::call::{Api, Call};
use super::failure::{INVALID, Refusal};
use super::form::Form;

/// A request, read as far as that.
#[derive(Debug)]
pub(super) struct Ask<'b> {
    pub(super) model: Cow<'b, str>,
    /// How the answer is cut, if it comes in pieces.
    pub(super) framing: Option<Framing>,
    /// Whether the client of a stream is told the usage (OpenAI's Chat Completions).
    pub(super) wants_usage: bool,
    /// It goes on with an answer that a provider keeps: no other dialect can be told.
    pub(super) is_continued: bool,
    body: Body<'b>,
}

#[derive(Debug)]
enum Body<'b> {
    Json(Members<'b>),
    Form(Form),
}

impl<'b> Ask<'b> {
    /// Reads a body.
    pub(super) fn read(call: &Call<'b>, head: &Parts, body: &'b Bytes) -> Result<Self, Refusal> {
        let (named, streams, may_be_form) = match &call.api {
            Api::Generate { model, stream } => (model, *stream, false),
            Api::Other { model, is_form, .. } => (model, false, *is_form),
            Api::Models | Api::Model(_) => (&None, false, false),
        };
        let form = may_be_form
            .then(|| head.headers.get(CONTENT_TYPE).and_then(|value| Form::of(value, body)))
            .flatten();
        if let Some(form) = form {
            let model = form.model(body).map(Cow::Borrowed).or_else(|| named.clone()).ok_or_else(no_model)?;
            return Ok(Self {
                model,
                framing: None,
                wants_usage: false,
                is_continued: false,
                body: Body::Form(form),
            });
        }
        let members = Members::of(body).map_err(|invalid| Refusal::invalid(&invalid))?;
        let invalid = |invalid| Refusal::invalid(&invalid);
        let model = match named {
            Some(named) => named.clone(),
            None => {
                let said = members.text("model").map_err(invalid)?;
                said.or_else(|| usual_model(&call.api).map(Cow::Borrowed)).ok_or_else(no_model)?
            }
        };
        // A method of Gemini's is what streams there, and no field.
        let says_stream =
            call.dialect != Dialect::Gemini && members.boolean("stream").map_err(invalid)?.unwrap_or(false);
        let is_array = call.dialect == Dialect::Gemini && !has_pair(head.uri.query(), "alt", "sse");
        let framing = if is_array { Framing::Items } else { Framing::Events };
        let options = members.raw("stream_options").and_then(|raw| Members::of(raw.as_bytes()).ok());
        let wants_usage = options.is_some_and(|options| options.raw("include_usage") == Some("true"));
        let is_named = |name| members.raw(name).is_some_and(|raw| raw != "null");
        let is_continued = call.dialect == Dialect::OpenaiResponses
            && ["previous_response_id", "conversation"].into_iter().any(is_named);
        Ok(Self {
            model,
            framing: (streams || says_stream).then_some(framing),
            wants_usage,
            is_continued,
            body: Body::Json(members),
        })
    }

    /// The body for a provider of the same dialect, and whether it had to be changed.
    pub(super) fn spliced(&self, body: &Bytes, changes: Changes<'_>) -> (Bytes, bool) {
        let renamed = changes.model.filter(|model| **model != *self.model);
        let members = match &self.body {
            Body::Form(form) => {
                return renamed
                    .map_or_else(|| (body.clone(), false), |model| (form.with_model(body, model), true));
            }
            Body::Json(members) => members,
        };
        let mut edits: Vec<Edit<'_>> = changes.quirks.into_iter().flat_map(Quirks::edits).collect();
        if let Some(model) = renamed {
            edits.push(Edit::Set("model", Cow::Owned(quoted(model))));
        }
        if changes.asks_usage {
            edits.push(Edit::Set("stream_options", Cow::Owned(with_usage(members))));
        }
        if edits.is_empty() {
            return (body.clone(), false);
        }
        let pieces = members.with(&edits);
        if let [Piece::Kept(range)] = pieces.as_slice()
            && range.len() == body.len()
        {
            return (body.clone(), false);
        }
        let mut out = Vec::with_capacity(body.len() + 64);
        for piece in pieces {
            match piece {
                Piece::Kept(range) => out.extend_from_slice(&body[range]),
                Piece::New(new) => out.extend_from_slice(new.as_bytes()),
            }
        }
        (out.into(), true)
    }

    /// What is lost by changes to the fields of a body that its server does not take.
    pub(super) fn losses(&self, quirks: &Quirks) -> Losses {
        let mut losses = Losses::default();
        if let Body::Json(members) = &self.body {
            let has = |name: &str| members.raw(name).is_some_and(|raw| raw != "null");
            quirks.losses_of(has).for_each(|loss| losses.note(loss));
        }
        losses
    }
}

/// What a body must change in for a provider of the same dialect.
#[derive(Debug, Default)]
pub(super) struct Changes<'c> {
    /// The model, where it stands in the body.
    pub(super) model: Option<&'c str>,
    /// The usage of a stream is asked for.
    pub(super) asks_usage: bool,
    /// The server differs from the dialect's own.
    pub(super) quirks: Option<&'c Quirks>,
}

/// What a client says of its stream, and that it wants the usage.
fn with_usage(members: &Members<'_>) -> String {
    let said = members.raw("stream_options").and_then(|raw| Members::of(raw.as_bytes()).ok());
    let added = said.map(|said| said.changed(&[Edit::Set("include_usage", "true".into())]));
    added
        .and_then(|added| String::from_utf8(added).ok())
        .unwrap_or_else(|| "{\"include_usage\":true}".to_owned())
}

/// The model of requests that need not name one.
fn usual_model(api: &Api<'_>) -> Option<&'static str> {
    match api {
        Api::Other { tail: "/moderations", .. } => Some("omni-moderation-latest"),
        _ => None,
    }
}

fn no_model() -> Refusal {
    let mut refusal = Refusal::new(INVALID, FailureKind::InvalidRequest, "model: This field is required.");
    refusal.failure.param = Some("model".to_owned());
    refusal
}

fn has_pair(query: Option<&str>, name: &str, value: &str) -> bool {
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(n, v)| n == name && v == value);
    query.is_some_and(|query| query.split('&').any(is_pair))
}

/// Where clients put their keys, whatever they speak.
const KEY_FIELDS: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];

/// The client's key, wherever it stands, as a value without its scheme.
pub(super) fn key_of(head: &Parts) -> Option<HeaderValue> {
    let bearer = || {
        let text = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| HeaderValue::from_str(key.trim()).ok())?
    };
    let named = || KEY_FIELDS.iter().find_map(|name| head.headers.get(*name).cloned());
    let of_query = || {
        let key = head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
        HeaderValue::from_str(key).ok()
    };
    let mut key = named().or_else(bearer).or_else(of_query)?;
    key.set_sensitive(true);
    Some(key)
}

/// The query without keys, and without what is Azure's.
pub(super) fn query_without_keys(query: &str) -> String {
    let is_kept = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !["key", "access_token", "api-version", "$httpMethod"].contains(&name)
    };
    query.split('&').filter(is_kept).collect::<Vec<_>>().join("&")
}

/// Whether a field of a client's goes on to a provider of the same dialect, or to any. Whatever is not named here stays:
/// it may be a key, a cookie, or about the client's own network.
pub(super) fn goes_on(name: &HeaderName, is_same_dialect: bool) -> bool {
    match name.as_str() {
        "accept-language" | "user-agent" | "traceparent" | "tracestate" | "x-request-id" => true,
        "content-type"
        | "accept"
        | "anthropic-version"
        | "anthropic-beta"
        | "openai-beta"
        | "idempotency-key"
        | "x-client-request-id"
        | "x-goog-api-client"
        | "x-session-id"
        | "session_id"
        | "conversation_id"
        | "originator"
        | "x-app"
        | "anthropic-dangerous-direct-browser-access" => is_same_dialect,
        name => is_same_dialect && (name.starts_with("x-stainless-") || name.starts_with("x-codex-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Request};

    fn head(uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::post(uri).body(()).unwrap();
        let fields = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        *request.headers_mut() = HeaderMap::from_iter(fields);
        request.into_parts().0
    }

    #[test]
    fn keys_are_found_wherever_they_stand() {
        for (name, uri, fields, expected) in [
            ("a bearer", "/", &[("authorization", "Bearer a")][..], Some("a")),
            ("in another case", "/", &[("authorization", "bearer a")], Some("a")),
            ("another scheme", "/", &[("authorization", "Basic a")], None),
            ("Anthropic's", "/", &[("x-api-key", "a")], Some("a")),
            ("Google's", "/", &[("x-goog-api-key", "a")], Some("a")),
            ("Azure's", "/", &[("api-key", "a")], Some("a")),
            ("in the query", "/?alt=sse&key=a", &[], Some("a")),
            ("a field before a bearer", "/", &[("authorization", "Bearer b"), ("x-api-key", "a")], Some("a")),
            ("none", "/?keys=a", &[], None),
        ] {
            let found = key_of(&head(uri, fields));
            assert_eq!(found.as_ref().map(|key| key.to_str().unwrap()), expected, "{name}");
            assert!(found.is_none_or(|key| key.is_sensitive()), "{name}");
        }
    }

    #[test]
    fn no_key_goes_on() {
        for name in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "cookie",
            "openai-organization",
            "x-forwarded-for",
            "accept-encoding",
            "host",
        ] {
            assert!(!goes_on(&HeaderName::from_static(name), true), "{name}");
        }
        assert_eq!(
            query_without_keys("key=a&alt=sse&&api-version=1&beta=true&access_token=x"),
            "alt=sse&beta=true"
        );
        assert!(goes_on(&HeaderName::from_static("anthropic-beta"), true));
        assert!(!goes_on(&HeaderName::from_static("anthropic-beta"), false));
    }

    #[test]
    fn bodies_change_in_what_must_change() {
        let call = Call { dialect: Dialect::OpenaiChat, api: Api::Generate { model: None, stream: false } };
        let parts = head("/v1/chat/completions", &[]);
        let quirky = r#"{"model":"a", "max_completion_tokens":5,"user":"u"}"#;
        for (name, body, model, asks_usage, expected) in [
            (
                "a server that differs",
                quirky,
                "a",
                false,
                Some(r#"{"model":"a", "max_tokens":5,"user":"u"}"#),
            ),
            ("nothing", r#"{ "model":"a" ,"x":1.0}"#, "a", false, None),
            ("the model", r#"{ "model":"a" ,"x":1.0}"#, "b\"", false, Some(r#"{ "model":"b\"" ,"x":1.0}"#)),
            (
                "usage",
                r#"{"model":"a"}"#,
                "a",
                true,
                Some(r#"{"stream_options":{"include_usage":true},"model":"a"}"#),
            ),
            (
                "usage beside something",
                r#"{"model":"a","stream_options":{"include_obfuscation":false}}"#,
                "a",
                true,
                Some(r#"{"model":"a","stream_options":{"include_usage":true,"include_obfuscation":false}}"#),
            ),
            (
                "usage that was refused",
                r#"{"model":"a","stream_options":{"include_usage":false}}"#,
                "a",
                true,
                Some(r#"{"model":"a","stream_options":{"include_usage":true}}"#),
            ),
            (
                "options that are null",
                r#"{"model":"a","stream_options":null}"#,
                "a",
                true,
                Some(r#"{"model":"a","stream_options":{"include_usage":true}}"#),
            ),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let ask = Ask::read(&call, &parts, &body).unwrap();
            let quirks = Quirks::named("vllm").filter(|_| name == "a server that differs");
            let changes = Changes { model: Some(model), asks_usage, quirks: quirks.as_ref() };
            let (spliced, is_changed) = ask.spliced(&body, changes);
            assert_eq!(is_changed, expected.is_some(), "{name}");
            let expected = expected.map_or_else(|| body.clone(), |text| Bytes::from_static(text.as_bytes()));
            assert_eq!(spliced, expected, "{name}");
        }
    }
}
