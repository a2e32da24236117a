//! gRPC (its protocol over HTTP/2): what the gateway itself answers, said in a way that its clients understand.
//!
//! A client reads `grpc-status` and not the status of HTTP, so a problem becomes a response that has nothing but
//! trailers, which is one with status 200 whose header says how the call ended.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::problem::{Kind, Problem};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What ends a call whose time is over.
const OVERDUE: &str = "The call did not end in time.";

/// Whether a request is a call: its media type is `application/grpc`, perhaps with the format of its messages.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return false };
    let rest = media_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A timeout that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// How long a call may take, if the client says so.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => read_timeout(value.as_bytes()).ok_or(Malformed).map(Some),
        (Some(_), Some(_)) => Err(Malformed),
    }
}

/// At most eight digits and a unit.
fn read_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Says how long a call may still take: in the smallest unit that eight digits are enough for, and never more.
pub(super) fn write_timeout(headers: &mut HeaderMap, left: Duration) {
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm')];
    let fits = units.into_iter().find(|(count, _)| *count < 100_000_000);
    let (count, unit) = fits.unwrap_or((u128::from(left.as_secs()).min(99_999_999), 'S'));
    if let Ok(value) = HeaderValue::try_from(format!("{count}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// What comes after the messages of a call whose time is over.
pub(super) fn overdue() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(Status::DeadlineExceeded as u16));
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(OVERDUE));
    trailers
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
        Kind::UpstreamTimeout | Kind::DeadlineExceeded => return Status::DeadlineExceeded,
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
    use proptest::prelude::*;

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
    fn timeouts_are_read() {
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["1H"], Ok(Some(3_600_000_000_000))),
            (&["2M"], Ok(Some(120_000_000_000))),
            (&["3S"], Ok(Some(3_000_000_000))),
            (&["99999999m"], Ok(Some(99_999_999_000_000))),
            (&["5u"], Ok(Some(5_000))),
            (&["0n"], Ok(Some(0))),
            (&["99999999H"], Ok(Some(359_999_996_400_000_000_000))),
            (&["100000000m"], Err(Malformed)),
            (&["1"], Err(Malformed)),
            (&["S"], Err(Malformed)),
            (&[""], Err(Malformed)),
            (&["1s"], Err(Malformed)),
            (&["-1S"], Err(Malformed)),
            (&["1.5S"], Err(Malformed)),
            (&["1 S"], Err(Malformed)),
            (&["1S", "2S"], Err(Malformed)),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("grpc-timeout", HeaderValue::from_static(value));
            }
            let read = timeout(&headers).map(|timeout| timeout.map(|timeout| timeout.as_nanos()));
            assert_eq!(read, expected, "{values:?}");
        }
    }

    proptest! {
        /// Nobody gets more time than there is, and hardly less.
        #[test]
        fn what_is_left_is_written_and_read(nanos in 0u64..400_000_000_000_000_000) {
            let left = Duration::from_nanos(nanos);
            let mut headers = HeaderMap::new();
            write_timeout(&mut headers, left);
            let read = timeout(&headers).unwrap().unwrap();
            prop_assert!(read <= left);
            prop_assert!(left - read <= (left / 1_000).max(Duration::from_nanos(1)) || read.as_secs() == 99_999_999);
        }
    }

    #[test]
    fn a_problem_becomes_a_status() {
        for (kind, expected) in [
            (Kind::NoRoute, "12"),
            (Kind::UpstreamConnect, "14"),
            (Kind::UpstreamConnectTimeout, "14"),
            (Kind::UpstreamTimeout, "4"),
            (Kind::DeadlineExceeded, "4"),
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
