//! Errors, as OpenAI and the servers after it write them.

use crate::failure::{Failure, FailureKind};
use crate::json::{Node, Value, object, parse};

/// Reads an error. A page of HTML, or whatever else is no error of this dialect, is told by its status.
#[must_use]
pub fn decode_failure(status: u16, body: &[u8]) -> Failure {
    let Ok(node) = parse(body) else { return unknown(status) };
    read(status, &node).unwrap_or_else(|| unknown(status))
}

fn unknown(status: u16) -> Failure {
    let message = format!("The provider answered with status {status}, and did not say why.");
    Failure { status, ..Failure::new(FailureKind::of_status(status), message) }
}

/// Reads the object that holds an error, or is one: of a body, or of an event of a stream.
pub(super) fn read(status: u16, node: &Node<'_>) -> Option<Failure> {
    let node = match &node.value {
        // Google's compatible address answers with a list of one.
        Value::Array(items) => items.first()?,
        _ => node,
    };
    let error = match node.get("error") {
        Some(Node { value: Value::Text(message), .. }) => return Some(bare(status, message, node)),
        Some(error) if error.value != Value::Null => error,
        // vLLM and Mistral have no object around it; FastAPI tells of it in `detail`.
        _ => node,
    };
    let text = |name: &str| error.get(name).and_then(word);
    // Mistral puts FastAPI's list into the message.
    let message = error.get("message").and_then(|node| word(node).or_else(|| detail(node)));
    let message = message.or_else(|| detail(error))?;
    let code = text("code");
    let kind_word = text("type").or_else(|| text("status"));
    // OpenRouter, and Azure in its codes, tell a status here; in a stream it is the only one.
    let told = code.as_deref().and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let status = if (400..600).contains(&status) { Some(status) } else { told };
    let kind = kind(status, kind_word.as_deref(), code.as_deref());
    let details = ["innererror", "inner_error", "metadata", "details", "content_filter_result"];
    Some(Failure {
        status: status.unwrap_or_else(|| kind.status()),
        kind,
        provider_type: kind_word,
        code,
        message,
        param: text("param"),
        request_id: text("request_id").or_else(|| node.get("request_id").and_then(word)),
        details: details
            .iter()
            .find_map(|name| error.get(name))
            .filter(|node| node.value != Value::Null)
            .map(|node| node.raw.to_owned()),
    })
}

/// A string, or a number as one: codes are either.
fn word(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.to_string()),
        Value::Number(text) => Some((*text).to_owned()),
        _ => None,
    }
}

fn bare(status: u16, message: &str, node: &Node<'_>) -> Failure {
    let is_error = (400..600).contains(&status);
    let kind = if is_error { FailureKind::of_status(status) } else { FailureKind::Server };
    let status = if is_error { status } else { kind.status() };
    let code = node.get("code").and_then(word);
    Failure { status, code, ..Failure::new(kind, message) }
}

/// FastAPI's list of what is wrong where.
fn detail(node: &Node<'_>) -> Option<String> {
    match &node.get("detail")?.value {
        Value::Text(text) => Some(text.to_string()),
        Value::Array(items) => {
            let first = items.first()?;
            let place = match first.get("loc").map(|loc| &loc.value) {
                Some(Value::Array(steps)) => steps.iter().filter_map(word).collect::<Vec<_>>().join("."),
                _ => String::new(),
            };
            let message = first.get("msg").and_then(word)?;
            Some(if place.is_empty() { message } else { format!("{place}: {message}") })
        }
        _ => None,
    }
}

/// Of which kind an error is. A code says more than a status; a status more than a type, which servers spell as they like.
fn kind(status: Option<u16>, kind: Option<&str>, code: Option<&str>) -> FailureKind {
    for word in [code, kind].into_iter().flatten() {
        match word {
            "insufficient_quota" | "billing_hard_limit_reached" => return FailureKind::Quota,
            "content_filter" | "content_policy_violation" | "ResponsibleAIPolicyViolation" => {
                return FailureKind::ContentFilter;
            }
            _ => {}
        }
    }
    if let Some(status) = status {
        return FailureKind::of_status(status);
    }
    match code.or(kind).unwrap_or_default() {
        "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests" | "RESOURCE_EXHAUSTED" => {
            FailureKind::RateLimit
        }
        "invalid_api_key" | "authentication_error" => FailureKind::Authentication,
        "permission_error" => FailureKind::Permission,
        "model_not_found" | "not_found_error" | "not_found" => FailureKind::NotFound,
        "invalid_request_error" | "context_length_exceeded" | "BadRequestError" | "tool_use_failed" => {
            FailureKind::InvalidRequest
        }
        "overloaded_error" | "service_unavailable" | "server_overloaded" => FailureKind::Overloaded,
        "timeout" => FailureKind::Timeout,
        _ => match kind {
            Some("invalid_request_error") => FailureKind::InvalidRequest,
            _ => FailureKind::Server,
        },
    }
}

/// OpenAI's types of errors.
const TYPES: [&str; 12] = [
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "insufficient_quota",
    "server_error",
    "timeout",
    "requests",
    "tokens",
    "image_generation_user_error",
];

/// Writes an error.
#[must_use]
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(failure, &mut out);
    out
}

/// Writes the object around an error, in a body or in an event of a stream.
pub(super) fn write(failure: &Failure, out: &mut Vec<u8>) {
    let Failure { status: _, kind, provider_type, code, message, param, request_id, details } = failure;
    let ours = match kind {
        FailureKind::InvalidRequest | FailureKind::TooLarge | FailureKind::ContentFilter => {
            "invalid_request_error"
        }
        FailureKind::Authentication => "authentication_error",
        FailureKind::Permission => "permission_error",
        FailureKind::NotFound => "not_found_error",
        FailureKind::Conflict => "conflict_error",
        FailureKind::RateLimit => "rate_limit_error",
        FailureKind::Quota => "insufficient_quota",
        FailureKind::Server | FailureKind::Overloaded => "server_error",
        FailureKind::Timeout => "timeout",
    };
    let theirs = provider_type.as_deref();
    let kind_word = theirs.filter(|theirs| TYPES.contains(theirs)).unwrap_or(ours);
    // A type of another dialect's says more than ours, and is not lost.
    let code = code.as_deref().or(theirs.filter(|theirs| *theirs != kind_word)).or(match kind {
        FailureKind::ContentFilter => Some("content_filter"),
        _ => None,
    });
    object(out, |object| {
        object.object("error", |object| {
            object.text("message", message);
            object.text("type", kind_word);
            match param {
                Some(param) => object.text("param", param),
                None => object.null("param"),
            }
            match code {
                Some(code) => object.text("code", code),
                None => object.null("code"),
            }
            object.some_text("request_id", request_id.as_ref());
            object.some_raw("details", details.as_ref());
        });
    });
}
