//! What went wrong, in the words of the client's dialect.

use bytes::Bytes;
use gateway_llm::dialect::{Dialect, gemini};
use gateway_llm::failure::{Failure, FailureKind};
use gateway_llm::invalid::{Invalid, Reason};
use gateway_llm::loss::Losses;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::super::problem::{Kind, Problem};
use super::super::record::OK;

/// Why a client gets no answer of a model.
#[derive(Debug)]
pub(super) struct Refusal {
    /// In a box: what every stage may return should be small.
    pub(super) failure: Box<Failure>,
    /// What the access log says decided.
    pub(super) why: &'static str,
    /// What the provider said beside it: when to come back, how much is left.
    pub(super) headers: HeaderMap,
}

/// A body cannot be read, or says what cannot be.
pub(super) const INVALID: &str = "llm_invalid_request";
/// Nobody serves the model.
pub(super) const NO_MODEL: &str = "llm_no_such_model";
/// A target cannot be told all of it, and the route refuses that.
pub(super) const LOSSY: &str = "llm_lossy";
/// No target speaks the client's dialect, and what is asked for cannot be translated.
pub(super) const NO_TARGET: &str = "llm_no_such_target";
/// The provider answered with what is no answer.
pub(super) const RUBBISH: &str = "llm_bad_answer";

impl Refusal {
    /// The gateway's own.
    pub(super) fn new(why: &'static str, kind: FailureKind, message: impl Into<String>) -> Self {
        let failure = Failure { code: Some(why.to_owned()), ..Failure::new(kind, message) };
        Self { failure: Box::new(failure), why, headers: HeaderMap::new() }
    }

    /// The gateway's own, with a status that its kind does not have.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.failure.status = status.as_u16();
        self
    }

    /// What an LLM client is told in place of problem details.
    pub(super) fn of_problem(problem: &Problem) -> Self {
        let status = problem.status();
        let message = match problem.kind {
            Kind::BodyTooLarge => "The request is larger than this route takes.",
            Kind::BodyCoding => "The request is compressed or not in UTF-8.",
            _ => problem.detail(),
        };
        let kind = FailureKind::of_status(status.as_u16());
        Self::new(problem.code(), kind, message).with_status(status)
    }

    /// The body is wrong.
    pub(super) fn invalid(invalid: &Invalid) -> Self {
        let kind = if invalid.reason == Reason::TooLarge {
            FailureKind::TooLarge
        } else {
            FailureKind::InvalidRequest
        };
        let mut refusal = Self::new(INVALID, kind, invalid.to_string());
        refusal.failure.code = Some(invalid.code().to_owned());
        refusal.failure.param = Some(invalid.path.clone()).filter(|path| !path.is_empty());
        refusal
    }

    /// The target cannot be told all of it.
    pub(super) fn lossy(losses: &Losses) -> Self {
        let message =
            format!("This model cannot be told all of the request, and this route refuses that: {losses}");
        let mut refusal = Self::new(LOSSY, FailureKind::InvalidRequest, message);
        refusal.failure.param = losses.kept().first().map(|loss| loss.at.clone());
        refusal
    }

    /// A provider's own error.
    pub(super) fn of_provider(failure: Failure, headers: &HeaderMap) -> Self {
        let mut headers = kept(headers);
        // Google says it in the error and not in the header, where clients of all others look.
        let said = failure.details.as_deref().and_then(gemini::retry_after_s);
        if let Some(seconds) = said
            && !headers.contains_key(RETRY_AFTER)
        {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Self { failure: Box::new(failure), why: OK, headers }
    }

    /// The answer, its body still apart.
    pub(super) fn into_response(self, dialect: Dialect) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(dialect.encode_failure(&self.failure)));
        // A status that is none of an error's would make an answer of it.
        let status = StatusCode::from_u16(self.failure.status).ok().filter(|status| status.as_u16() >= 400);
        *response.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        *headers = self.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Fields of a provider's that clients act on, whatever dialect they speak.
pub(super) fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        kept.append(name.clone(), value.clone());
    }
    kept
}

fn is_kept(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == RETRY_AFTER.as_str()
        || matches!(name, "retry-after-ms" | "x-should-retry" | "request-id" | "x-request-id")
        || ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_when_to_come_back() {
        let info = r#"[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.2s"}]"#;
        for (name, header, details, expected) in [
            ("nothing", None, None, None),
            ("in the header", Some("7"), None, Some("7")),
            ("in the error", None, Some(info), Some("4")),
            ("in both", Some("7"), Some(info), Some("7")),
            ("in neither", None, Some(r#"[{"reason":"x"}]"#), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(seconds) = header {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
            }
            let details = details.map(str::to_owned);
            let failure = Failure { details, ..Failure::new(FailureKind::RateLimit, "Later.") };
            let refusal = Refusal::of_provider(failure, &headers);
            let told = refusal.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{name}");
        }
    }
}
