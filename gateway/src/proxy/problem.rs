//! What the gateway itself answers: problem details (RFC 9457) with a `code` that stays the same between
//! versions. One table; a client sees nothing of the inside.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};

use super::framing::Refusal;

/// One answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// What was wrong with this very request, in a sentence without internals.
    detail: &'static str,
    /// For [`Kind::MethodNotAllowed`].
    allow: Vec<Method>,
}

macro_rules! problems {
    ($($(#[$doc:meta])* $kind:ident $status:ident $code:literal $title:literal $close:literal;)+) => {
        /// Which kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            /// Every kind, for the tests.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Status, code, title, and whether the connection is closed after it.
            const fn row(self) -> (StatusCode, &'static str, &'static str, bool) {
                match self { $(Self::$kind => (StatusCode::$status, $code, $title, $close),)+ }
            }
        }
    };
}

// After `true` rows the connection is closed: the bytes that follow cannot be trusted to be a request.
problems! {
    /// Not a request, or one that servers may read in two ways.
    BadRequest BAD_REQUEST "bad_request" "The request is malformed" true;
    /// The path can be read in two ways.
    AmbiguousPath BAD_REQUEST "ambiguous_path" "The path is ambiguous" false;
    /// No route matches.
    NoRoute NOT_FOUND "no_route" "No route matches" false;
    /// A route matches but for its methods.
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The method is not allowed here" false;
    /// A page of an origin that may not, or a method that may not from there.
    CorsRefused FORBIDDEN "cors_refused" "The origin may not do that" false;
    /// The head of the request did not arrive in time.
    HeaderTimeout REQUEST_TIMEOUT "header_timeout" "The request's header took too long" true;
    /// The body of the request stopped arriving.
    BodyTimeout REQUEST_TIMEOUT "body_timeout" "The request's body took too long" true;
    /// The request is routed by its body, which is larger than may be.
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is too large" false;
    /// The request is routed by its body, which is not what it says, or can be read in two ways.
    BodyUnreadable BAD_REQUEST "body_unreadable" "The body cannot be read" false;
    /// The request is routed by its body, which is compressed or in another character set.
    BodyCoding UNSUPPORTED_MEDIA_TYPE "body_coding" "The body's coding is not supported" false;
    /// As many bodies are being read as may be.
    BodiesFull SERVICE_UNAVAILABLE "too_many_bodies" "Too many bodies are being read" false;
    /// An expectation other than 100-continue.
    ExpectationFailed EXPECTATION_FAILED "expectation_failed" "The expectation is not supported" true;
    /// The head of the request is longer, or has more fields, than the listener takes.
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "headers_too_large" "The request's header is too large" true;
    /// Another major version of HTTP, in a request of HTTP/1.
    VersionUnknown HTTP_VERSION_NOT_SUPPORTED "version_not_supported" "The version of HTTP is not supported" true;
    /// CONNECT.
    ConnectRefused NOT_IMPLEMENTED "connect_refused" "CONNECT is not supported" true;
    /// No endpoint of the upstream could be connected to.
    UpstreamConnect BAD_GATEWAY "upstream_connect" "The upstream cannot be reached" false;
    /// No endpoint of the upstream was who it should be, or spoke TLS.
    UpstreamTls BAD_GATEWAY "upstream_tls" "The upstream cannot be reached securely" false;
    /// The upstream closed the connection before it had answered.
    UpstreamClosed BAD_GATEWAY "upstream_closed" "The upstream closed the connection" false;
    /// The upstream's answer is not HTTP, or is HTTP that may be read in two ways.
    UpstreamProtocol BAD_GATEWAY "upstream_protocol" "The upstream's response is malformed" false;
    /// Too many requests to the upstream failed.
    UpstreamBreaker SERVICE_UNAVAILABLE "upstream_breaker_open" "The upstream is given time to recover" false;
    /// There are as many requests to the upstream as there may be.
    UpstreamOverloaded SERVICE_UNAVAILABLE "upstream_overloaded" "The upstream has too much to do" false;
    /// No endpoint of the upstream is well.
    UpstreamUnhealthy SERVICE_UNAVAILABLE "upstream_unhealthy" "The upstream is not healthy" false;
    /// No connection to the upstream within its connect timeout.
    UpstreamConnectTimeout GATEWAY_TIMEOUT "upstream_connect_timeout" "Connecting to the upstream took too long" false;
    /// The time that a client gave its call of gRPC is over.
    DeadlineExceeded GATEWAY_TIMEOUT "deadline_exceeded" "The call's deadline is over" false;
    /// No answer within the upstream's response timeout.
    UpstreamTimeout GATEWAY_TIMEOUT "upstream_timeout" "The upstream took too long to respond" false;
}

impl Kind {
    /// The code that stays the same between versions.
    pub(super) fn code(self) -> &'static str {
        self.row().1
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: &'static str) -> Self {
        Self { kind, detail, allow: Vec::new() }
    }

    /// A route matches but for its methods; these it takes.
    pub(super) fn method_not_allowed(allow: Vec<Method>) -> Self {
        Self { kind: Kind::MethodNotAllowed, detail: "See Allow for the methods that are.", allow }
    }

    /// The request's body ended before its end: that is its client's doing.
    pub(super) fn broken_off(refusal: Option<Refusal>) -> Self {
        let detail = match refusal {
            Some(Refusal::Malformed(detail)) => detail,
            _ => "The body broke off.",
        };
        Self::new(Kind::BadRequest, detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind.row().0
    }

    /// Its kind's code.
    pub(super) fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What was wrong with this very request.
    pub(super) fn detail(&self) -> &'static str {
        self.detail
    }

    /// Whether the connection is closed after this answer.
    pub(super) fn closes(&self) -> bool {
        self.kind.row().3
    }

    /// The answer, its body still apart.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let (status, code, title, _) = self.kind.row();
        let body = serde_json::json!({
            "type": format!("urn:gateway:problem:{code}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "code": code,
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind == Kind::MethodNotAllowed {
            let allow = self.allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            // Methods are tokens, so their list is a valid value.
            if let Ok(allow) = HeaderValue::try_from(allow) {
                headers.insert(ALLOW, allow);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_problem_details() {
        let mut codes = std::collections::HashSet::new();
        for &kind in Kind::ALL {
            let response = Problem::new(kind, "a sentence").into_response();
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(body["status"], response.status().as_u16(), "{kind:?}");
            assert_eq!(body["detail"], "a sentence");
            assert_eq!(body["type"], format!("urn:gateway:problem:{}", body["code"].as_str().unwrap()));
            assert!(codes.insert(body["code"].to_string()), "{kind:?} shares its code");
        }
    }

    #[test]
    fn a_method_problem_says_which_are_allowed() {
        let response = Problem::method_not_allowed(vec![Method::GET, Method::PUT]).into_response();
        assert_eq!(response.headers()[ALLOW], "GET, PUT");
    }
}
