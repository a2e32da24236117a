//! Where requests go: path and query of every operation, and what a client's path asks for.
//!
//! A model's name comes from a client or from a configuration, and is one segment of a path at most: everything in it
//! that could end the segment is escaped, and a name that is `.` or `..` is refused, since clients and servers resolve
//! those even when they are escaped.

use std::borrow::Cow;

use crate::dialect::Dialect;

/// What is asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An answer.
    Generate {
        /// Whether it is streamed: Gemini has another path for it.
        stream: bool,
    },
    /// How many tokens a prompt has.
    CountTokens,
    /// Vectors.
    Embeddings {
        /// Whether there are several texts: Gemini has another path for them.
        batch: bool,
    },
    /// Which models there are.
    Models,
    /// One of them.
    Model,
    /// Pictures.
    Images,
    /// Pictures, made of others.
    ImageEdits,
    /// What is said in a recording.
    Transcriptions,
    /// The same, in English.
    Translations,
    /// A text, spoken.
    Speech,
    /// Whether a text should be.
    Moderations,
    /// Which texts fit a question best.
    Rerank,
    /// A conversation, made shorter (Responses).
    Compact,
}

/// How a provider lays out its paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout<'l> {
    /// As the dialect's own provider.
    #[default]
    Plain,
    /// Azure's `/openai/v1`, where the model is named in the body; with a version where one is set (`preview`).
    AzureV1(Option<&'l str>),
    /// Azure's deployments, each with paths of its own, under a dated version.
    AzureDeployments(&'l str),
}

/// A path and a query, as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// With its slash in front.
    pub path: String,
    /// Without its question mark; empty if there is none.
    pub query: String,
}

/// Why there is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The provider has no such operation.
    #[error("the provider's dialect has no such operation")]
    NotThere,
    /// The name is no segment of a path.
    #[error("a model cannot have this name")]
    BadModel,
}

/// Where an operation goes, at a provider whose base URL has this path.
///
/// # Errors
/// When the dialect has no such operation, or the model's name is none.
pub fn endpoint(
    dialect: Dialect,
    layout: Layout<'_>,
    base: &str,
    operation: Operation,
    model: &str,
) -> Result<Endpoint, NoEndpoint> {
    let base = base.trim_end_matches('/');
    match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => openai(dialect, layout, base, operation, model),
        Dialect::AnthropicMessages => anthropic(base, operation, model),
        Dialect::Gemini => gemini(base, operation, model),
    }
}

/// The operation's path behind the version.
fn openai_path(dialect: Dialect, operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::Generate { .. } if dialect == Dialect::OpenaiResponses => "responses",
        Operation::Generate { .. } => "chat/completions",
        Operation::CountTokens if dialect == Dialect::OpenaiResponses => "responses/input_tokens",
        Operation::Compact if dialect == Dialect::OpenaiResponses => "responses/compact",
        Operation::CountTokens | Operation::Compact => return None,
        Operation::Embeddings { .. } => "embeddings",
        Operation::Models | Operation::Model => "models",
        Operation::Images => "images/generations",
        Operation::ImageEdits => "images/edits",
        Operation::Transcriptions => "audio/transcriptions",
        Operation::Translations => "audio/translations",
        Operation::Speech => "audio/speech",
        Operation::Moderations => "moderations",
        Operation::Rerank => "rerank",
    })
}

fn openai(
    dialect: Dialect,
    layout: Layout<'_>,
    base: &str,
    operation: Operation,
    model: &str,
) -> Result<Endpoint, NoEndpoint> {
    let rest = openai_path(dialect, operation).ok_or(NoEndpoint::NotThere)?;
    let (mut path, query) = match layout {
        // A base URL has a path as a rule (`/v1`, `/api/v1`, `/openai/v1`); a bare host means OpenAI's.
        Layout::Plain if base.is_empty() => (format!("/v1/{rest}"), String::new()),
        Layout::Plain => (format!("{base}/{rest}"), String::new()),
        Layout::AzureV1(version) => {
            let base = base.trim_end_matches("/openai/v1").trim_end_matches("/openai");
            (format!("{base}/openai/v1/{rest}"), version.map(api_version).unwrap_or_default())
        }
        Layout::AzureDeployments(version) => {
            let base = base.trim_end_matches("/openai");
            // These are no deployment's.
            let is_shared = matches!(operation, Operation::Models | Operation::Model)
                || (dialect == Dialect::OpenaiResponses && rest.starts_with("responses"));
            let deployment =
                if is_shared { String::new() } else { format!("deployments/{}/", segment(model)?) };
            (format!("{base}/openai/{deployment}{rest}"), api_version(version))
        }
    };
    if operation == Operation::Model {
        path.push('/');
        path.push_str(&segment(model)?);
    }
    Ok(Endpoint { path, query })
}

fn api_version(version: &str) -> String {
    format!("api-version={}", escaped(version))
}

/// A base path with the version that it has, or with this one.
fn versioned<'b>(base: &'b str, versions: &[&str], default: &str) -> Cow<'b, str> {
    let last = base.rsplit('/').next().unwrap_or_default();
    if versions.contains(&last) { Cow::Borrowed(base) } else { Cow::Owned(format!("{base}/{default}")) }
}

/// Foundry has Anthropic's paths under `/anthropic`, which stands in the base URL.
fn anthropic(base: &str, operation: Operation, model: &str) -> Result<Endpoint, NoEndpoint> {
    let base = versioned(base, &["v1"], "v1");
    let path = match operation {
        Operation::Generate { .. } => format!("{base}/messages"),
        Operation::CountTokens => format!("{base}/messages/count_tokens"),
        Operation::Models => format!("{base}/models"),
        Operation::Model => format!("{base}/models/{}", segment(model)?),
        _ => return Err(NoEndpoint::NotThere),
    };
    Ok(Endpoint { path, query: String::new() })
}

fn gemini(base: &str, operation: Operation, model: &str) -> Result<Endpoint, NoEndpoint> {
    let base = versioned(base, &["v1", "v1beta", "v1alpha"], "v1beta");
    let action = match operation {
        Operation::Generate { stream: false } => "generateContent",
        Operation::Generate { stream: true } => "streamGenerateContent",
        Operation::CountTokens => "countTokens",
        Operation::Embeddings { batch: false } => "embedContent",
        Operation::Embeddings { batch: true } => "batchEmbedContents",
        Operation::Models => return Ok(Endpoint { path: format!("{base}/models"), query: String::new() }),
        Operation::Model => "",
        _ => return Err(NoEndpoint::NotThere),
    };
    let (kind, name) = gemini_model(model);
    let colon = if action.is_empty() { "" } else { ":" };
    let path = format!("{base}/{kind}/{}{colon}{action}", segment(name)?);
    // Without it the stream is one JSON array, which nobody reads as it comes.
    let query = if operation == (Operation::Generate { stream: true }) { "alt=sse" } else { "" };
    Ok(Endpoint { path, query: query.to_owned() })
}

/// The collection that a model is of, and its name there: names may bring theirs.
fn gemini_model(model: &str) -> (&'static str, &str) {
    match model.split_once('/') {
        Some(("models", name)) => ("models", name),
        Some(("tunedModels", name)) => ("tunedModels", name),
        _ => ("models", model),
    }
}

/// A name as one segment of a path.
fn segment(name: &str) -> Result<String, NoEndpoint> {
    if matches!(name, "" | "." | "..") { Err(NoEndpoint::BadModel) } else { Ok(escaped(name)) }
}

/// With escapes for all but the characters that mean nothing anywhere (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// In which dialect. What all of OpenAI's have (models, embeddings) counts as Chat Completions'.
    pub dialect: Dialect,
    /// For what. Whether a body asks for a stream, or has one text or several, is not known by the path.
    pub operation: Operation,
    /// Of which model, where the path says so.
    pub model: Option<String>,
}

/// Reads a client's path: behind whatever prefix the route has taken off, and with the prefixes that clients of Azure
/// write. `is_anthropic` says that the request has Anthropic's `anthropic-version`: `/v1/models` is a path of two
/// dialects.
#[must_use]
pub fn asks(path: &str, is_anthropic: bool) -> Option<Asks> {
    let path = path.strip_prefix('/')?;
    let (path, deployment) = without_azure(path);
    let version = path.split('/').next()?;
    let found = |dialect, operation, model| Some(Asks { dialect, operation, model });
    let rest = match version {
        "v1beta" | "v1alpha" => return asks_gemini(path.split_once('/')?.1),
        "v1" => path.split_once('/')?.1,
        _ => path,
    };
    if rest.contains(':') {
        return asks_gemini(rest);
    }
    let list = if is_anthropic { Dialect::AnthropicMessages } else { Dialect::OpenaiChat };
    let both = Operation::Generate { stream: false };
    match rest {
        "chat/completions" => found(Dialect::OpenaiChat, both, deployment),
        "responses" => found(Dialect::OpenaiResponses, both, None),
        "responses/input_tokens" => found(Dialect::OpenaiResponses, Operation::CountTokens, None),
        "responses/compact" => found(Dialect::OpenaiResponses, Operation::Compact, None),
        "messages" => found(Dialect::AnthropicMessages, both, None),
        "messages/count_tokens" => found(Dialect::AnthropicMessages, Operation::CountTokens, None),
        "models" => found(list, Operation::Models, None),
        _ => {
            if let Some(model) = rest.strip_prefix("models/") {
                return found(list, Operation::Model, Some(decoded(model)?));
            }
            let operation = match rest {
                "embeddings" => Operation::Embeddings { batch: false },
                "images/generations" => Operation::Images,
                "images/edits" => Operation::ImageEdits,
                "audio/transcriptions" => Operation::Transcriptions,
                "audio/translations" => Operation::Translations,
                "audio/speech" => Operation::Speech,
                "moderations" => Operation::Moderations,
                "rerank" => Operation::Rerank,
                _ => return None,
            };
            found(Dialect::OpenaiChat, operation, deployment)
        }
    }
}

/// A path without `openai/` and `openai/deployments/NAME/`, and the name.
fn without_azure(path: &str) -> (&str, Option<String>) {
    let Some(rest) = path.strip_prefix("openai/") else { return (path, None) };
    match rest.strip_prefix("deployments/").and_then(|rest| rest.split_once('/')) {
        Some((name, rest)) => (rest, decoded(name)),
        None => (rest, None),
    }
}

fn asks_gemini(rest: &str) -> Option<Asks> {
    let found = |operation, model| Some(Asks { dialect: Dialect::Gemini, operation, model });
    if rest == "models" {
        return found(Operation::Models, None);
    }
    let (name, action) = match rest.rsplit_once(':') {
        Some((name, action)) => (name, Some(action)),
        None => (rest, None),
    };
    let model = match name.strip_prefix("models/") {
        Some(model) => decoded(model)?,
        None => decoded(name).filter(|name| name.starts_with("tunedModels/"))?,
    };
    let operation = match action {
        None => Operation::Model,
        Some("generateContent") => Operation::Generate { stream: false },
        Some("streamGenerateContent") => Operation::Generate { stream: true },
        Some("countTokens") => Operation::CountTokens,
        Some("embedContent") => Operation::Embeddings { batch: false },
        Some("batchEmbedContents") => Operation::Embeddings { batch: true },
        Some(_) => return None,
    };
    found(operation, Some(model))
}

/// Without escapes. One that is broken, or that stands for no UTF-8, is refused.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GENERATE: Operation = Operation::Generate { stream: false };
    const STREAM: Operation = Operation::Generate { stream: true };

    #[test]
    fn operations_have_their_paths() {
        use Dialect::{AnthropicMessages as A, Gemini as G, OpenaiChat as C, OpenaiResponses as R};
        let plain = Layout::Plain;
        let v1 = Layout::AzureV1(None);
        let preview = Layout::AzureV1(Some("preview"));
        let dated = Layout::AzureDeployments("2024-10-21");
        for (dialect, layout, base, operation, model, expected) in [
            (C, plain, "/v1", GENERATE, "gpt-6", "/v1/chat/completions"),
            (C, plain, "/v1/", STREAM, "gpt-6", "/v1/chat/completions"),
            (C, plain, "", GENERATE, "gpt-6", "/v1/chat/completions"),
            (C, plain, "/api/v1", Operation::Rerank, "m", "/api/v1/rerank"),
            (C, plain, "/v1", Operation::Model, "a/b?c", "/v1/models/a%2Fb%3Fc"),
            (R, plain, "/v1", GENERATE, "gpt-6", "/v1/responses"),
            (R, plain, "/v1", Operation::CountTokens, "gpt-6", "/v1/responses/input_tokens"),
            (R, plain, "/v1", Operation::Compact, "gpt-6", "/v1/responses/compact"),
            (C, v1, "", GENERATE, "d", "/openai/v1/chat/completions"),
            (C, v1, "/openai/v1", GENERATE, "d", "/openai/v1/chat/completions"),
            (R, preview, "/openai", GENERATE, "d", "/openai/v1/responses?api-version=preview"),
            (C, dated, "", GENERATE, "d", "/openai/deployments/d/chat/completions?api-version=2024-10-21"),
            (
                C,
                dated,
                "",
                GENERATE,
                "../x",
                "/openai/deployments/..%2Fx/chat/completions?api-version=2024-10-21",
            ),
            (
                C,
                dated,
                "/openai",
                Operation::Embeddings { batch: true },
                "d e",
                "/openai/deployments/d%20e/embeddings?api-version=2024-10-21",
            ),
            (
                C,
                dated,
                "",
                Operation::Transcriptions,
                "w",
                "/openai/deployments/w/audio/transcriptions?api-version=2024-10-21",
            ),
            (R, dated, "", GENERATE, "d", "/openai/responses?api-version=2024-10-21"),
            (C, dated, "", Operation::Models, "", "/openai/models?api-version=2024-10-21"),
            (
                C,
                Layout::AzureDeployments("1&x=2"),
                "",
                GENERATE,
                "d",
                "/openai/deployments/d/chat/completions?api-version=1%26x%3D2",
            ),
            (A, plain, "", GENERATE, "claude", "/v1/messages"),
            (A, plain, "/v1", STREAM, "claude", "/v1/messages"),
            (A, plain, "/anthropic", GENERATE, "claude", "/anthropic/v1/messages"),
            (A, plain, "", Operation::CountTokens, "claude", "/v1/messages/count_tokens"),
            (G, plain, "", GENERATE, "gemini-3-pro", "/v1beta/models/gemini-3-pro:generateContent"),
            (G, plain, "/v1", GENERATE, "gemini-3-pro", "/v1/models/gemini-3-pro:generateContent"),
            (
                G,
                plain,
                "/v1beta",
                STREAM,
                "models/gemini-3-pro",
                "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse",
            ),
            (G, plain, "", GENERATE, "tunedModels/t", "/v1beta/tunedModels/t:generateContent"),
            (
                G,
                plain,
                "",
                GENERATE,
                "x:deleteAll/../y",
                "/v1beta/models/x%3AdeleteAll%2F..%2Fy:generateContent",
            ),
            (G, plain, "", Operation::Embeddings { batch: true }, "e", "/v1beta/models/e:batchEmbedContents"),
        ] {
            let made = endpoint(dialect, layout, base, operation, model).expect("it has a path");
            let mark = if made.query.is_empty() { "" } else { "?" };
            assert_eq!(format!("{}{mark}{}", made.path, made.query), expected);
        }
    }

    #[test]
    fn names_that_are_no_segment_are_refused() {
        for name in ["", ".", ".."] {
            let made = endpoint(Dialect::Gemini, Layout::Plain, "", GENERATE, name);
            assert_eq!(made, Err(NoEndpoint::BadModel), "{name:?}");
        }
        let none = endpoint(Dialect::AnthropicMessages, Layout::Plain, "", Operation::Speech, "m");
        assert_eq!(none, Err(NoEndpoint::NotThere));
    }

    #[test]
    fn clients_ask_by_path() {
        use Dialect::{AnthropicMessages as A, Gemini as G, OpenaiChat as C, OpenaiResponses as R};
        for (path, expected) in [
            ("/v1/chat/completions", Some((C, GENERATE, None))),
            ("/chat/completions", Some((C, GENERATE, None))),
            ("/openai/v1/chat/completions", Some((C, GENERATE, None))),
            ("/openai/deployments/a%20b/chat/completions", Some((C, GENERATE, Some("a b")))),
            ("/v1/responses", Some((R, GENERATE, None))),
            ("/v1/messages", Some((A, GENERATE, None))),
            ("/v1/messages/count_tokens", Some((A, Operation::CountTokens, None))),
            ("/v1beta/models/gemini-3-pro:generateContent", Some((G, GENERATE, Some("gemini-3-pro")))),
            ("/v1/models/gemini-3-pro:streamGenerateContent", Some((G, STREAM, Some("gemini-3-pro")))),
            ("/v1beta/models/llama3:8b:generateContent", Some((G, GENERATE, Some("llama3:8b")))),
            ("/v1beta/tunedModels/t:countTokens", Some((G, Operation::CountTokens, Some("tunedModels/t")))),
            ("/v1beta/models", Some((G, Operation::Models, None))),
            ("/v1/models", Some((C, Operation::Models, None))),
            ("/v1/models/a%2Fb", Some((C, Operation::Model, Some("a/b")))),
            ("/v1/embeddings", Some((C, Operation::Embeddings { batch: false }, None))),
            ("/v1beta/models/x:deleteAll", None),
            ("/v1beta/models/%zz:generateContent", None),
            ("/v1/else", None),
            ("/", None),
            ("", None),
        ] {
            let found = asks(path, false).map(|asks| (asks.dialect, asks.operation, asks.model));
            let expected = expected.map(|(d, o, m): (_, _, Option<&str>)| (d, o, m.map(str::to_owned)));
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(asks("/v1/models", true).map(|asks| asks.dialect), Some(A));
    }

    proptest! {
        /// Whatever a model is called, it changes no other segment, and a reader of the path finds it.
        #[test]
        fn a_name_is_one_segment(model in ".{1,20}", stream in any::<bool>()) {
            let operation = Operation::Generate { stream };
            prop_assume!(!model.starts_with("models/") && !model.starts_with("tunedModels/"));
            if let Ok(made) = endpoint(Dialect::Gemini, Layout::Plain, "", operation, &model) {
                prop_assert_eq!(made.path.split('/').count(), 4);
                prop_assert!(made.path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)));
                let expected = Asks { dialect: Dialect::Gemini, operation, model: Some(model) };
                prop_assert_eq!(asks(&made.path, false), Some(expected));
            }
        }
    }
}
