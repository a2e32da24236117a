//! gRPC (its protocol over HTTP/2): what the gateway itself answers, said in a way that its clients understand.
//!
//! A client reads `grpc-status` and not the status of HTTP, so a problem becomes a response that has nothing but
//! trailers, which is one with status 200 whose header says how the call ended.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::problem::{Kind, Problem};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a call: its media type is `application/grpc`, perhaps with the format of its messages.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return false };
    let rest = media_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The answer to a call, its body still apart.
pub(super) fn answer(problem: &Problem) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status(problem) as u16));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(problem.detail()));
    response
}

/// The statuses of gRPC that a gateway has reason for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// As gRPC maps statuses of HTTP to its own, but for what the gateway knows better than the status says.
fn status(problem: &Problem) -> Status {
    match problem.kind {
        Kind::UpstreamTimeout => return Status::DeadlineExceeded,
        Kind::UpstreamProtocol => return Status::Internal,
        Kind::HeadersTooLarge => return Status::ResourceExhausted,
        _ => {}
    }
    match problem.status() {
        StatusCode::BAD_REQUEST => Status::Internal,
        StatusCode::UNAUTHORIZED => Status::Unauthenticated,
        StatusCode::FORBIDDEN => Status::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Status::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Status::Unavailable,
        _ => Status::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_their_media_type() {
        for (media_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            assert_eq!(is_call(&headers), expected, "{media_type}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn a_problem_becomes_a_status() {
        for (kind, expected) in [
            (Kind::NoRoute, "12"),
            (Kind::UpstreamConnect, "14"),
            (Kind::UpstreamConnectTimeout, "14"),
            (Kind::UpstreamTimeout, "4"),
            (Kind::UpstreamProtocol, "13"),
            (Kind::BadRequest, "13"),
            (Kind::HeadersTooLarge, "8"),
            (Kind::BodyTimeout, "2"),
        ] {
            let answer = answer(&Problem::new(kind, "why"));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["grpc-status"], expected, "{kind:?}");
            assert_eq!(answer.headers()["grpc-message"], "why");
            assert!(answer.body().is_empty());
        }
    }
}
