//! Errors, both ways.
//!
//! The provider's are read leniently: servers that speak this dialect have shapes of their own, and an error that is
//! masked by another one is the worst of them.

use crate::failure::{Failure, FailureKind};
use crate::json::{Node, Object, Value, object, parse};

/// How much is kept of a message that is no JSON of this dialect.
const MAX_MESSAGE: usize = 4096;

/// Reads a provider's error; also a response that failed, whose status is that of an answer.
#[must_use]
pub fn decode_failure(status: u16, body: &[u8]) -> Failure {
    let node = parse(body).ok();
    let said = node.as_ref().and_then(|node| read(node, status));
    said.unwrap_or_else(|| {
        let kind = FailureKind::of_status(status);
        let message = format!("The provider answered with status {status} and nothing that explains it.");
        Failure { status: status_of(status, kind), ..Failure::new(kind, message) }
    })
}

/// An error never has the status of an answer.
const fn status_of(status: u16, kind: FailureKind) -> u16 {
    if status >= 400 { status } else { kind.status() }
}

/// Reads the object that holds an error, or is one: `{"error": {…}}` of OpenAI's, an event `error`, a response that
/// failed, `{"detail": …}` and `{"message": …}` of other servers.
pub(super) fn read(node: &Node<'_>, status: u16) -> Option<Failure> {
    let error = match node.get("error").or_else(|| node.get("detail")) {
        Some(Node { value: Value::Null, .. }) | None => node,
        Some(error) => error,
    };
    let word = |name: &str| match error.get(name).map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.to_string()),
        Some(Value::Number(digits)) => Some((*digits).to_owned()),
        _ => None,
    };
    let message = match &error.value {
        Value::Text(text) => text.to_string(),
        // FastAPI lists what is wrong with a request.
        Value::Array(items) => items.first()?.get("msg")?.as_text()?.to_owned(),
        _ => word("message")?,
    };
    let provider_type = word("type").filter(|kind| kind != "error" && kind != "response");
    let code = word("code");
    let kind = kind_of(provider_type.as_deref(), code.as_deref(), status);
    let message = message.chars().take(MAX_MESSAGE).collect();
    // Some put the status into the object.
    let said = word("status").and_then(|status| status.parse().ok()).filter(|said| (400..600).contains(said));
    let status = if status >= 400 { status } else { said.unwrap_or_else(|| kind.status()) };
    let details =
        error.get("misalignment").filter(|node| node.value != Value::Null).map(|node| node.raw.to_owned());
    Some(Failure {
        status,
        kind,
        provider_type,
        code,
        message,
        param: word("param"),
        request_id: None,
        details,
    })
}

fn kind_of(provider_type: Option<&str>, code: Option<&str>, status: u16) -> FailureKind {
    for word in [code, provider_type].into_iter().flatten() {
        return match word {
            "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => FailureKind::Quota,
            "rate_limit_exceeded" | "rate_limit_error" | "requests" | "tokens" => FailureKind::RateLimit,
            "invalid_api_key" | "authentication_error" => FailureKind::Authentication,
            "permission_error" | "permission_denied" | "data_residency_mismatch" => FailureKind::Permission,
            "model_not_found" | "not_found" | "not_found_error" | "previous_response_not_found" => {
                FailureKind::NotFound
            }
            "content_filter"
            | "content_policy_violation"
            | "invalid_prompt"
            | "bio_policy"
            | "misalignment_policy_violation"
            | "image_content_policy_violation" => FailureKind::ContentFilter,
            "context_length_exceeded" => FailureKind::InvalidRequest,
            "vector_store_timeout" | "timeout" => FailureKind::Timeout,
            "server_is_overloaded" | "slow_down" | "overloaded_error" | "service_unavailable" => {
                FailureKind::Overloaded
            }
            "server_error" | "internal_error" if status < 500 => FailureKind::Server,
            // Everything about images, and what is wrong with a request in other ways.
            "invalid_request_error" if !(400..=499).contains(&status) => FailureKind::InvalidRequest,
            word if word.contains("image") && status < 400 => FailureKind::InvalidRequest,
            _ => continue,
        };
    }
    FailureKind::of_status(status)
}

/// Writes an error for a client.
#[must_use]
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |object| {
        object.object("error", |object| {
            object.text("message", &failure.message);
            object.text("type", type_of(failure));
            match &failure.param {
                Some(param) => object.text("param", param),
                None => object.null("param"),
            }
            match code_of(failure) {
                Some(code) => object.text("code", code),
                None => object.null("code"),
            }
            write_details(object, failure);
        });
    });
    out
}

/// What a provider said beside the rest. The field is not OpenAI's; clients ignore what they do not know.
fn write_details(object: &mut Object<'_>, failure: &Failure) {
    if let Some(details) = failure.details.as_ref().filter(|details| parse(details.as_bytes()).is_ok()) {
        object.raw("details", details);
    }
}

/// Types that OpenAI has. Another provider's own words would mean nothing to whoever looks for these.
const TYPES: &[&str] = &[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "insufficient_quota",
    "server_error",
    "requests",
    "tokens",
    "image_generation_user_error",
];

fn type_of(failure: &Failure) -> &str {
    if let Some(known) = failure.provider_type.as_deref().filter(|kind| TYPES.contains(kind)) {
        return known;
    }
    match failure.kind {
        FailureKind::InvalidRequest
        | FailureKind::Conflict
        | FailureKind::TooLarge
        | FailureKind::NotFound
        | FailureKind::ContentFilter => "invalid_request_error",
        FailureKind::Authentication => "authentication_error",
        FailureKind::Permission => "permission_error",
        FailureKind::RateLimit => "rate_limit_error",
        FailureKind::Quota => "insufficient_quota",
        FailureKind::Server | FailureKind::Overloaded | FailureKind::Timeout => "server_error",
    }
}

fn code_of(failure: &Failure) -> Option<&str> {
    failure.code.as_deref().or(match failure.kind {
        FailureKind::Authentication => Some("invalid_api_key"),
        FailureKind::NotFound => Some("model_not_found"),
        FailureKind::RateLimit => Some("rate_limit_exceeded"),
        FailureKind::Quota => Some("insufficient_quota"),
        FailureKind::ContentFilter => Some("content_filter"),
        FailureKind::Overloaded => Some("server_is_overloaded"),
        FailureKind::InvalidRequest
        | FailureKind::Permission
        | FailureKind::Conflict
        | FailureKind::TooLarge
        | FailureKind::Server
        | FailureKind::Timeout => None,
    })
}

/// The code in the `error` of a response, where there always is one.
pub(super) fn code_in_response(failure: &Failure) -> &str {
    code_of(failure).unwrap_or(match failure.kind {
        FailureKind::Server | FailureKind::Timeout => "server_error",
        _ => type_of(failure),
    })
}
