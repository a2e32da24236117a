//! Which API of which dialect a request calls: its path says so.

use std::borrow::Cow;

use gateway_llm::dialect::Dialect;
use http::{HeaderMap, Method};

/// A call of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call<'a> {
    /// What its client speaks, and gets errors in.
    pub(super) dialect: Dialect,
    pub(super) api: Api<'a>,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Api<'a> {
    /// An answer of a model: what is translated where it has to be.
    Generate {
        /// The model, where the path says it.
        model: Option<Cow<'a, str>>,
        /// Whether the path asks for a stream.
        stream: bool,
    },
    /// Something else of a model, which only a provider of the same dialect can do.
    Other {
        /// The model, where the path says it.
        model: Option<Cow<'a, str>>,
        /// What stands behind the version in the path; behind the colon, where the model stands in the path.
        tail: &'static str,
        /// Whether the body may be a form.
        is_form: bool,
    },
    /// The list of models.
    Models,
    /// One of them.
    Model(Cow<'a, str>),
}

impl Call<'_> {
    /// Whether it only asks how many tokens a request has.
    pub(super) fn counts(&self) -> bool {
        let Api::Other { tail, .. } = &self.api else { return false };
        [Dialect::AnthropicMessages, Dialect::OpenaiResponses, Dialect::Gemini]
            .into_iter()
            .any(|d| count_tail(d) == *tail)
    }
}

/// Where a dialect is asked how many tokens a request has. Chat Completions has no such place.
pub(super) const fn count_tail(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::AnthropicMessages => "/messages/count_tokens",
        Dialect::OpenaiChat | Dialect::OpenaiResponses => "/responses/input_tokens",
        Dialect::Gemini => "countTokens",
    }
}

/// APIs of OpenAI and those that took their form, which name the model in the body.
const OTHERS: [(&str, bool); 12] = [
    ("/completions", false),
    ("/embeddings", false),
    ("/moderations", false),
    ("/rerank", false),
    ("/images/generations", false),
    ("/images/edits", true),
    ("/images/variations", true),
    ("/audio/speech", false),
    ("/audio/transcriptions", true),
    ("/audio/translations", true),
    ("/responses/input_tokens", false),
    ("/responses/compact", false),
];

/// Methods of Gemini's models beside those that generate.
const METHODS: [&str; 4] = ["countTokens", "embedContent", "batchEmbedContents", "predict"];

/// What stands before an API's own path. Behind a longer path, as a route may have.
const VERSIONS: [&str; 4] = ["/v1", "/v1beta", "/v1alpha", "/openai"];

/// Finds out what is called; `None`: nothing that is served here.
pub(super) fn of<'a>(
    method: &Method,
    path: &'a str,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Option<Call<'a>> {
    let tail = tail(path);
    match *method {
        Method::POST => post(tail).or_else(|| deployment(path)),
        Method::GET => get(path, tail, headers, query),
        _ => None,
    }
}

/// The path behind the version.
fn tail(path: &str) -> &str {
    let behind = |version: &str| {
        let at = path.rfind(version)? + version.len();
        path[at..].starts_with('/').then_some(at)
    };
    VERSIONS.into_iter().filter_map(behind).max().map_or(path, |at| &path[at..])
}

fn post(tail: &str) -> Option<Call<'_>> {
    let generate = |dialect| Some(Call { dialect, api: Api::Generate { model: None, stream: false } });
    match tail {
        "/chat/completions" => return generate(Dialect::OpenaiChat),
        "/responses" => return generate(Dialect::OpenaiResponses),
        "/messages" => return generate(Dialect::AnthropicMessages),
        "/messages/count_tokens" => {
            let api = Api::Other { model: None, tail: "/messages/count_tokens", is_form: false };
            return Some(Call { dialect: Dialect::AnthropicMessages, api });
        }
        _ => {}
    }
    if let Some((tail, is_form)) = OTHERS.into_iter().find(|(known, _)| *known == tail) {
        let dialect =
            if tail.starts_with("/responses") { Dialect::OpenaiResponses } else { Dialect::OpenaiChat };
        return Some(Call { dialect, api: Api::Other { model: None, tail, is_form } });
    }
    gemini(tail)
}

/// `/models/{model}:{method}`, and tuned models likewise.
fn gemini(tail: &str) -> Option<Call<'_>> {
    let (named, method) = tail.rsplit_once(':')?;
    let named = named
        .strip_prefix("/models/")
        .or_else(|| named.strip_prefix('/').filter(|n| n.starts_with("tunedModels/")))?;
    let model = Some(decode(named)?);
    let api = match method {
        "generateContent" => Api::Generate { model, stream: false },
        "streamGenerateContent" => Api::Generate { model, stream: true },
        method => {
            let tail = METHODS.into_iter().find(|known| *known == method)?;
            Api::Other { model, tail, is_form: false }
        }
    };
    Some(Call { dialect: Dialect::Gemini, api })
}

/// `/openai/deployments/{model}/chat/completions`, as Azure's clients ask.
fn deployment(path: &str) -> Option<Call<'_>> {
    let (_, rest) = path.split_once("/openai/deployments/")?;
    let (model, tail) = rest.split_at(rest.find('/')?);
    let named = Some(decode(model)?);
    let mut call = post(tail).filter(|call| call.dialect == Dialect::OpenaiChat)?;
    match &mut call.api {
        Api::Generate { model, .. } | Api::Other { model, .. } => *model = named,
        Api::Models | Api::Model(_) => return None,
    }
    Some(call)
}

fn get<'a>(path: &str, tail: &'a str, headers: &HeaderMap, query: Option<&str>) -> Option<Call<'a>> {
    let named = tail.strip_prefix("/models")?;
    let has_key = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")));
    let is_gemini = path.contains("/v1beta/")
        || path.contains("/v1alpha/")
        || headers.contains_key("x-goog-api-key")
        || has_key;
    let dialect = if headers.contains_key("anthropic-version") {
        Dialect::AnthropicMessages
    } else if is_gemini {
        Dialect::Gemini
    } else {
        Dialect::OpenaiChat
    };
    match named.strip_prefix('/') {
        None if named.is_empty() => Some(Call { dialect, api: Api::Models }),
        None => None,
        Some("") => Some(Call { dialect, api: Api::Models }),
        Some(model) => Some(Call { dialect, api: Api::Model(decode(model)?) }),
    }
}

/// A name as it stands in a path. `None` where it is no text.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() {
        return None;
    }
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A name as one segment of a path: whatever a client calls a model, it stays within it.
pub(super) fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        let is_plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'.' | b'@' | b':');
        if is_plain {
            out.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([
                '%',
                char::from(DIGITS[usize::from(byte >> 4)]),
                char::from(DIGITS[usize::from(byte & 15)]),
            ]);
        }
    }
    // A segment of dots alone would lead elsewhere, and so would one that is not there.
    if out.bytes().all(|byte| byte == b'.') { "%2E".repeat(out.len().max(1)) } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(call: Option<Call<'_>>) -> String {
        let Some(Call { dialect, api }) = call else { return "nothing".to_owned() };
        let model =
            |model: &Option<Cow<'_, str>>| model.as_ref().map_or(String::new(), |model| format!(" {model}"));
        match api {
            Api::Generate { model: named, stream } => {
                format!("{dialect}{}{}", model(&named), if stream { " streams" } else { "" })
            }
            Api::Other { model: named, tail, is_form } => {
                format!("{dialect} {tail}{}{}", model(&named), if is_form { " form" } else { "" })
            }
            Api::Models => format!("{dialect} models"),
            Api::Model(named) => format!("{dialect} model {named}"),
        }
    }

    #[test]
    fn paths_say_what_is_called() {
        for (method, path, expected) in [
            (Method::POST, "/v1/chat/completions", "openai_chat"),
            (Method::POST, "/chat/completions", "openai_chat"),
            (Method::POST, "/team/v1/chat/completions", "openai_chat"),
            (Method::POST, "/openai/v1/chat/completions", "openai_chat"),
            (Method::POST, "/openai/deployments/my%2Fgpt/chat/completions", "openai_chat my/gpt"),
            (Method::POST, "/openai/deployments/gpt/embeddings", "openai_chat /embeddings gpt"),
            (Method::POST, "/v1/responses", "openai_responses"),
            (Method::POST, "/v1/responses/input_tokens", "openai_responses /responses/input_tokens"),
            (Method::POST, "/v1/messages", "anthropic_messages"),
            (Method::POST, "/v1/messages/count_tokens", "anthropic_messages /messages/count_tokens"),
            (Method::POST, "/v1/threads/x/messages", "nothing"),
            (Method::POST, "/v1/models/gemini-2.5-pro:generateContent", "gemini gemini-2.5-pro"),
            (Method::POST, "/v1beta/models/g:streamGenerateContent", "gemini g streams"),
            (Method::POST, "/v1beta/models/a:b:generateContent", "gemini a:b"),
            (Method::POST, "/v1beta/models/%2e%2e%2fx:generateContent", "gemini ../x"),
            (Method::POST, "/v1beta/tunedModels/t:generateContent", "gemini tunedModels/t"),
            (Method::POST, "/v1beta/models/g:countTokens", "gemini countTokens g"),
            (Method::POST, "/v1beta/models/:generateContent", "nothing"),
            (Method::POST, "/v1beta/models/g:deleteEverything", "nothing"),
            (Method::POST, "/v1beta/models/%ff:generateContent", "nothing"),
            (Method::POST, "/v1/audio/transcriptions", "openai_chat /audio/transcriptions form"),
            (Method::GET, "/v1/models", "openai_chat models"),
            (Method::GET, "/v1/models/", "openai_chat models"),
            (Method::GET, "/v1/models/gpt-4.1", "openai_chat model gpt-4.1"),
            (Method::GET, "/v1beta/models", "gemini models"),
            (Method::GET, "/v1/modelsx", "nothing"),
            (Method::GET, "/v1/chat/completions", "nothing"),
            (Method::PUT, "/v1/responses", "nothing"),
        ] {
            assert_eq!(spelt(of(&method, path, &HeaderMap::new(), None)), expected, "{method} {path}");
        }
    }

    #[test]
    fn who_asks_for_the_list_says_what_it_speaks() {
        let header = |name: &'static str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static("x"))])
        };
        for (headers, query, expected) in [
            (HeaderMap::new(), None, "openai_chat models"),
            (header("anthropic-version"), None, "anthropic_messages models"),
            (header("x-goog-api-key"), None, "gemini models"),
            (HeaderMap::new(), Some("pageSize=1&key=x"), "gemini models"),
        ] {
            assert_eq!(spelt(of(&Method::GET, "/v1/models", &headers, query)), expected);
        }
    }

    #[test]
    fn names_stay_within_their_segment() {
        for (name, expected) in [
            ("gpt-4.1", "gpt-4.1"),
            ("a/b?c#d e%", "a%2Fb%3Fc%23d%20e%25"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("../v1", "..%2Fv1"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(encode(name), expected, "{name}");
        }
    }
}
