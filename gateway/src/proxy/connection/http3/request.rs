//! One request over HTTP/3, from the head of it to the moment when its client has the answer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Response};

use super::super::super::body::ResponseBody;
use super::super::super::incoming::Incoming;
use super::super::super::pipeline;
use super::super::super::watch::Watch;
use super::super::Session;
use super::body::Http3Body;
use super::transport::{Known, Quic, Send, Stopped};
use super::{Cancelled, answer};

/// What a request has beside its stream.
pub(super) struct Request {
    pub(super) session: Rc<Session>,
    pub(super) watch: Rc<Watch>,
    pub(super) stopped: Stopped,
    pub(super) known: Known,
    pub(super) cancelled: Rc<Cancelled>,
}

/// Why there is no answer, or not all of one.
enum Failure {
    /// The client threw the request away.
    Cancelled,
    /// Whatever else: the stream is reset, or gone.
    Other,
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { .. } => Self::Cancelled,
            _ => Self::Other,
        }
    }
}

impl Request {
    /// Serves it. Dropped before it has ended, it is reset.
    pub(super) async fn serve(mut self, resolver: RequestResolver<Quic, Bytes>) {
        let stopped = &mut self.stopped;
        let answered = {
            let mut answering = pin!(answer_to(&self.session, &self.watch, &self.known, resolver));
            tokio::select! {
                biased;
                answered = &mut answering => answered,
                // Stopped before it was complete: nobody waits for it, and the upstream need not go on.
                _ = &mut *stopped => Err(Failure::Cancelled),
            }
        };
        match answered {
            // QUIC keeps it until the client has it, and forgets it when the connection is closed before.
            Ok(()) => drop(stopped.await),
            Err(Failure::Cancelled) => self.cancelled.count(Instant::now()),
            Err(Failure::Other) => {}
        }
    }
}

async fn answer_to(
    session: &Rc<Session>,
    watch: &Rc<Watch>,
    known: &Known,
    resolver: RequestResolver<Quic, Bytes>,
) -> Result<(), Failure> {
    let mut is_late = poll_fn(|_| if watch.refusal().is_some() { Poll::Ready(()) } else { Poll::Pending });
    let (request, stream) = tokio::select! {
        biased;
        // h3 itself answers 431 to a head that is too long.
        resolved = resolver.resolve_request() => resolved?,
        () = &mut is_late => return Err(Failure::Other),
    };
    known.set();
    let (mut send, receive) = stream.split();
    let length = length(request.headers());
    let mut body = Http3Body::new(receive, Rc::clone(watch), length.unwrap_or_default());
    let waits = length == Ok(None) && has_seldom_a_body(request.method());
    tokio::select! {
        biased;
        () = body.begins(waits) => {}
        () = is_late => return Err(Failure::Other),
    }
    if length.is_err() || body.is_short() || is_of_http1(request.headers()) {
        send.stop_stream(Code::H3_MESSAGE_ERROR);
        return Err(Failure::Other);
    }
    let is_head = request.method() == Method::HEAD;
    let request = request.map(|()| Incoming::Http3(Box::new(body)));
    // Pinned where it is made, as it is large.
    let serving = pin!(pipeline::serve(Rc::clone(session), Rc::clone(watch), request));
    let response = with_interims(serving, watch, &mut send).await?;
    Ok(answer::send(&mut send, response, is_head).await?)
}

/// Waits for the response, and sends what comes in front of it. A client that does not read that has no longer for it than
/// the upstream has for the response.
async fn with_interims(
    mut serving: Pin<&mut impl Future<Output = Result<Response<ResponseBody>, Infallible>>>,
    watch: &Watch,
    send: &mut RequestStream<Send, Bytes>,
) -> Result<Response<ResponseBody>, Failure> {
    loop {
        let response = poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Pending if watch.interims().are_owed() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(response) = response.await {
            return Ok(response);
        }
        for interim in watch.interims().take() {
            let mut sending = pin!(send.send_response(interim));
            poll_fn(|cx| match sending.as_mut().poll(cx) {
                Poll::Pending if watch.is_expired() => Poll::Ready(Err(Failure::Other)),
                sent => sent.map_err(Failure::from),
            })
            .await?;
        }
        watch.interims().are_gone();
    }
}

/// Whether a request of this kind ends with its head as a rule. Its end may come in a packet of its own, and what the
/// upstream is asked should not depend on how packets were cut: it is worth to wait for. Others may have a body that
/// waits for the answer, as in a gRPC stream.
fn has_seldom_a_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

/// What Content-Length says, if it is there; an error, if that is no length or there are several.
fn length(headers: &HeaderMap) -> Result<Option<u64>, NoLength> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.to_str().ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.map(str::parse), lengths.next()) {
        (Some(Ok(length)), None) => Ok(Some(length)),
        _ => Err(NoLength),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NoLength;

/// Fields of a connection of HTTP/1.1: nobody sends them here who means well (RFC 9114, section 4.2).
fn is_of_http1(headers: &HeaderMap) -> bool {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE]
        .iter()
        .any(|name| headers.contains_key(name))
        || headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let pair = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn a_length_is_one_number() {
        for (name, lines, expected) in [
            ("none", &[][..], Ok(None)),
            ("zero", &["content-length: 0"], Ok(Some(0))),
            ("a sign", &["content-length: +1"], Err(NoLength)),
            ("nothing", &["content-length: "], Err(NoLength)),
            ("more than there are numbers", &["content-length: 18446744073709551616"], Err(NoLength)),
            ("a list", &["content-length: 1, 1"], Err(NoLength)),
        ] {
            assert_eq!(length(&headers(lines)), expected, "{name}");
        }
        let mut twice = headers(&["content-length: 1"]);
        twice.append(CONTENT_LENGTH, http::HeaderValue::from_static("1"));
        assert_eq!(length(&twice), Err(NoLength), "two of them");
    }

    #[test]
    fn fields_of_another_version_are_known() {
        for (line, expected) in [
            ("connection: close", true),
            ("keep-alive: timeout=5", true),
            ("proxy-connection: close", true),
            ("transfer-encoding: chunked", true),
            ("upgrade: websocket", true),
            ("te: gzip", true),
            ("te: trailers", false),
            ("accept: */*", false),
        ] {
            assert_eq!(is_of_http1(&headers(&[line])), expected, "{line}");
        }
    }
}
