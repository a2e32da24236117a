//! Errors: `{"error": {"code", "message", "status", "details"}}`, by the statuses of google.rpc. Some of Google's servers
//! wrap it in an array.

use crate::failure::{Failure, FailureKind};
use crate::json::{self, Array, Node, Number, Value};

/// Statuses of google.rpc, with their kinds and the statuses of HTTP that they have.
const STATUSES: &[(&str, FailureKind, u16)] = &[
    ("INVALID_ARGUMENT", FailureKind::InvalidRequest, 400),
    ("FAILED_PRECONDITION", FailureKind::InvalidRequest, 400),
    ("OUT_OF_RANGE", FailureKind::InvalidRequest, 400),
    ("UNAUTHENTICATED", FailureKind::Authentication, 401),
    ("PERMISSION_DENIED", FailureKind::Permission, 403),
    ("NOT_FOUND", FailureKind::NotFound, 404),
    ("ALREADY_EXISTS", FailureKind::Conflict, 409),
    ("ABORTED", FailureKind::Conflict, 409),
    ("RESOURCE_EXHAUSTED", FailureKind::RateLimit, 429),
    ("CANCELLED", FailureKind::Timeout, 499),
    ("INTERNAL", FailureKind::Server, 500),
    ("UNKNOWN", FailureKind::Server, 500),
    ("DATA_LOSS", FailureKind::Server, 500),
    ("UNIMPLEMENTED", FailureKind::Server, 501),
    ("UNAVAILABLE", FailureKind::Overloaded, 503),
    ("DEADLINE_EXCEEDED", FailureKind::Timeout, 504),
];

/// The status of a kind that no status above has as its own.
const fn status_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::InvalidRequest | FailureKind::ContentFilter | FailureKind::TooLarge => {
            "INVALID_ARGUMENT"
        }
        FailureKind::Authentication => "UNAUTHENTICATED",
        FailureKind::Permission => "PERMISSION_DENIED",
        FailureKind::NotFound => "NOT_FOUND",
        FailureKind::Conflict => "ABORTED",
        FailureKind::RateLimit | FailureKind::Quota => "RESOURCE_EXHAUSTED",
        FailureKind::Server => "INTERNAL",
        FailureKind::Overloaded => "UNAVAILABLE",
        FailureKind::Timeout => "DEADLINE_EXCEEDED",
    }
}

/// Reads a provider's error.
#[must_use]
pub fn decode_failure(status: u16, body: &[u8]) -> Failure {
    let read = json::parse(body).ok().and_then(|node| of_node(&node, Some(status)));
    read.unwrap_or_else(|| {
        let message = format!("The provider answered with status {status} and no error that can be read.");
        Failure { status, ..Failure::new(FailureKind::of_status(status), message) }
    })
}

/// Reads an error, also from within a stream, where there is no status beside it.
pub(super) fn of_node(node: &Node<'_>, status: Option<u16>) -> Option<Failure> {
    if let Value::Array(items) = &node.value {
        return items.first().and_then(|item| of_node(item, status));
    }
    let error = node.get("error")?;
    let message = error.as_text().or_else(|| error.get("message").and_then(Node::as_text))?;
    let word = error.get("status").and_then(Node::as_text);
    let known = STATUSES.iter().find(|(name, _, _)| Some(*name) == word);
    let code = match error.get("code").map(|node| &node.value) {
        Some(Value::Number(text)) => Some((*text).to_owned()),
        Some(Value::Text(text)) => Some(text.to_string()),
        _ => None,
    };
    let said = code.as_deref().and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let status = status.or(said).or_else(|| known.map(|(_, _, status)| *status)).unwrap_or(500);
    Some(Failure {
        status,
        kind: known.map_or_else(|| FailureKind::of_status(status), |(_, kind, _)| *kind),
        provider_type: word.map(str::to_owned),
        code,
        message: message.to_owned(),
        param: violated_field(error),
        request_id: None,
        details: error
            .get("details")
            .filter(|node| node.value != Value::Null)
            .map(|node| node.raw.to_owned()),
    })
}

/// The field that a detail of google.rpc.BadRequest blames.
fn violated_field(error: &Node<'_>) -> Option<String> {
    let Value::Array(details) = &error.get("details")?.value else { return None };
    details.iter().find_map(|detail| {
        let Value::Array(violations) = &detail.get("fieldViolations")?.value else { return None };
        violations.first()?.get("field")?.as_text().map(str::to_owned)
    })
}

/// Writes an error for a client.
#[must_use]
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(failure, &mut out);
    out
}

/// Writes an error, whole or as a piece of a stream.
pub(super) fn write(failure: &Failure, out: &mut Vec<u8>) {
    // The identity of the request has no place but in the message, where nobody looks for it; the provider's own code of
    // another dialect goes into the details.
    let Failure { status, kind, provider_type, code, message, param, request_id: _, details } = failure;
    let own = provider_type.as_deref().filter(|word| STATUSES.iter().any(|(name, _, _)| name == word));
    json::object(out, |object| {
        object.object("error", |object| {
            object.whole("code", u64::from(*status));
            object.text("message", message);
            object.text("status", own.unwrap_or_else(|| status_of(*kind)));
            // Google's details are an array; those of others are not.
            let array = details.as_deref().filter(|raw| raw.trim_start().starts_with('['));
            let is_number = code.as_deref().is_some_and(|code| code.parse::<u64>().is_ok());
            match array {
                Some(raw) => object.raw("details", raw),
                None if param.is_some() || (code.is_some() && !is_number) => {
                    object.array("details", |array| write_details(array, code.as_deref(), param.as_deref()));
                }
                None => {}
            }
        });
    });
}

/// What google.rpc has for a code and a field that is to blame.
fn write_details(array: &mut Array<'_>, code: Option<&str>, param: Option<&str>) {
    if let Some(code) = code {
        array.object(|object| {
            object.text("@type", "type.googleapis.com/google.rpc.ErrorInfo");
            object.text("reason", code);
        });
    }
    if let Some(param) = param {
        array.object(|object| {
            object.text("@type", "type.googleapis.com/google.rpc.BadRequest");
            object.array("fieldViolations", |array| array.object(|object| object.text("field", param)));
        });
    }
}

/// After how many seconds the provider wants to be asked again: google.rpc.RetryInfo's `retryDelay`, as `"3.5s"`, rounded
/// up.
#[must_use]
pub fn retry_after_s(details: &str) -> Option<u64> {
    let node = json::parse(details.as_bytes()).ok()?;
    let Value::Array(items) = &node.value else { return None };
    let delay = items.iter().find_map(|item| item.get("retryDelay").and_then(Node::as_text))?;
    let seconds = Number::from_text(delay.strip_suffix('s')?).as_f64();
    (0.0..=86_400.0).contains(&seconds).then(|| seconds.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read() {
        for (name, status, body, kind, code, message) in [
            (
                "one",
                400,
                r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#,
                FailureKind::InvalidRequest,
                Some("400"),
                "m",
            ),
            (
                "an array",
                429,
                r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#,
                FailureKind::RateLimit,
                Some("429"),
                "m",
            ),
            ("a sentence", 403, r#"{"error":"no"}"#, FailureKind::Permission, None, "no"),
            (
                "a page",
                502,
                "<html>",
                FailureKind::Server,
                None,
                "The provider answered with status 502 and no error that can be read.",
            ),
            (
                "an empty array",
                500,
                "[]",
                FailureKind::Server,
                None,
                "The provider answered with status 500 and no error that can be read.",
            ),
        ] {
            let failure = decode_failure(status, body.as_bytes());
            assert_eq!(
                (failure.status, failure.kind, failure.code.as_deref(), &*failure.message),
                (status, kind, code, message),
                "{name}"
            );
        }
    }

    #[test]
    fn waits_are_read() {
        for (details, expected) in [
            (
                r#"[{"@type":"x"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.2s"}]"#,
                Some(4),
            ),
            (r#"[{"retryDelay":"34s"}]"#, Some(34)),
            (r#"[{"retryDelay":"-1s"}]"#, None),
            (r#"[{"retryDelay":"99999999s"}]"#, None),
            ("{}", None),
        ] {
            assert_eq!(retry_after_s(details), expected, "{details}");
        }
    }
}
