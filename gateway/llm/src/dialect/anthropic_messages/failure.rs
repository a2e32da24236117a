//! Errors: `{"type": "error", "error": {"type": …, "message": …}, "request_id": …}`.

use crate::failure::{Failure, FailureKind};
use crate::json::{self, Node, Value};

/// The types of errors, with the status that each has.
const TYPES: &[(&str, FailureKind, u16)] = &[
    ("invalid_request_error", FailureKind::InvalidRequest, 400),
    ("authentication_error", FailureKind::Authentication, 401),
    ("billing_error", FailureKind::Quota, 402),
    ("permission_error", FailureKind::Permission, 403),
    ("not_found_error", FailureKind::NotFound, 404),
    ("conflict_error", FailureKind::Conflict, 409),
    ("request_too_large", FailureKind::TooLarge, 413),
    ("rate_limit_error", FailureKind::RateLimit, 429),
    ("api_error", FailureKind::Server, 500),
    ("timeout_error", FailureKind::Timeout, 504),
    ("overloaded_error", FailureKind::Overloaded, 529),
];

/// Where messages of invalid requests begin with a path: the fields that can be to blame.
const FIELDS: &[&str] = &[
    "container",
    "context_management",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Reads a provider's error.
#[must_use]
pub fn decode_failure(status: u16, body: &[u8]) -> Failure {
    let read = json::parse(body).ok().and_then(|node| of_event(&node, Some(status)));
    read.unwrap_or_else(|| {
        // A page of something between the provider and here.
        let kind = FailureKind::of_status(status);
        Failure {
            status,
            ..Failure::new(
                kind,
                format!("The provider answered with status {status} and no error that can be read."),
            )
        }
    })
}

/// Reads an error, also from within a stream, where there is no status any more.
pub(super) fn of_event(node: &Node<'_>, status: Option<u16>) -> Option<Failure> {
    let error = node.get("error")?;
    // Some servers only write a sentence.
    let message = error.as_text().or_else(|| error.get("message").and_then(Node::as_text))?;
    let provider_type = error.get("type").and_then(Node::as_text);
    let known = TYPES.iter().find(|(name, _, _)| Some(*name) == provider_type);
    let kind = match (known, status) {
        (Some((_, kind, _)), _) => *kind,
        (None, Some(status)) => FailureKind::of_status(status),
        (None, None) => FailureKind::Server,
    };
    let own = known.map_or_else(|| kind.status(), |(_, _, status)| *status);
    let text = |node: Option<&Node<'_>>| node.and_then(Node::as_text).map(str::to_owned);
    Some(Failure {
        status: status.unwrap_or(own),
        kind,
        provider_type: provider_type.map(str::to_owned),
        code: error.get("code").and_then(|code| match &code.value {
            Value::Text(text) => Some(text.to_string()),
            Value::Number(number) => Some((*number).to_owned()),
            _ => None,
        }),
        message: message.to_owned(),
        param: text(error.get("param")).or_else(|| param(message)),
        request_id: text(node.get("request_id")),
        details: error
            .get("details")
            .filter(|node| node.value != Value::Null)
            .map(|node| node.raw.to_owned()),
    })
}

/// The path at the beginning of a message, as in `messages.0.content: Field required`.
fn param(message: &str) -> Option<String> {
    let (path, _) = message.split_once(": ")?;
    let is_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let first = path.split('.').next()?;
    (is_path && FIELDS.contains(&first)).then(|| path.to_owned())
}

/// Writes an error for a client.
#[must_use]
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, failure);
    out
}

/// Writes an error, whole or as an event's data.
pub(super) fn write(out: &mut Vec<u8>, failure: &Failure) {
    // Whether the provider had a code or named a field is said in its message, as in this dialect's own errors.
    let Failure { status: _, kind, provider_type: _, code: _, message, param: _, request_id, details } =
        failure;
    let name =
        TYPES.iter().find(|(_, known, _)| known == kind).map_or("invalid_request_error", |(name, _, _)| name);
    json::object(out, |object| {
        object.text("type", "error");
        object.object("error", |object| {
            object.text("type", name);
            object.text("message", message);
            object.some_raw("details", details.as_ref());
        });
        object.some_text("request_id", request_id.as_ref());
    });
}
