//! Reads a request's body before the request has a route, where a route asks for what is in it: once, whole, and within
//! bounds. It goes on as it came.
//!
//! Whoever could keep a body from being read could choose the route that the request gets. So what calls itself JSON and
//! cannot be read is refused, rather than taken for a body without the fields that were asked for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http_body::{Body as _, Frame};

use crate::model::{BodyBounds, LlmRoute};

use super::incoming::Incoming;
use super::media_type;
use super::problem::{Kind, Problem};
use super::watch::Watch;

/// Bytes of bodies that one worker holds at a time. Beyond it, requests whose bodies have to be read are turned away.
const MAX_HELD_BYTES: usize = 64 << 20;

// One body, as large as may be, must not keep out all others.
const _: () = assert!(MAX_HELD_BYTES >= 4 * BodyBounds::MAX_BYTES);

/// The same of requests to LLMs, which are held until one of their targets has answered. They are apart: prompts are long,
/// and must not keep others from being routed.
const MAX_PROMPT_BYTES: usize = 256 << 20;
const _: () = assert!(MAX_PROMPT_BYTES >= 4 * LlmRoute::MAX_BODY_BYTES);

/// What a worker may still hold.
#[derive(Debug, Clone)]
pub(super) struct Budget(Rc<Cell<usize>>);

impl Default for Budget {
    fn default() -> Self {
        Self(Rc::new(Cell::new(MAX_HELD_BYTES)))
    }
}

impl Budget {
    /// For requests to LLMs.
    pub(super) fn of_prompts() -> Self {
        Self(Rc::new(Cell::new(MAX_PROMPT_BYTES)))
    }
}

/// What is held. It is given back when this is dropped.
#[derive(Debug)]
struct Held {
    budget: Budget,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let Some(left) = self.budget.0.get().checked_sub(bytes) else {
            return Err(Problem::new(Kind::BodiesFull, "Too many bodies are being read."));
        };
        self.budget.0.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

/// A body that was read.
#[derive(Debug)]
pub(super) struct Gathered {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    /// Its length was said beforehand.
    has_length: bool,
    /// It is being passed on. Before, nothing is over, for an empty body without a length has an end that is written.
    is_moving: bool,
    _held: Held,
}

impl Gathered {
    /// The text; `None` if there is nothing in it.
    pub(super) fn text(&self) -> Option<&str> {
        // It was looked at when it was read.
        std::str::from_utf8(&self.bytes).ok().filter(|text| !text.is_empty())
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What comes next of it.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        self.is_moving = true;
        if !self.bytes.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.bytes)));
        }
        self.trailers.take().map(Frame::trailers)
    }

    pub(super) fn is_end(&self) -> bool {
        self.is_moving && self.bytes.is_empty() && self.trailers.is_none()
    }

    /// Bytes that are left, if the request says how many they are.
    pub(super) fn length(&self) -> Option<u64> {
        self.has_length.then_some(self.bytes.len() as u64)
    }
}

/// Whether there is a body that may be JSON. One that does not say what it is may be anything, and is read by many an
/// upstream; of one that calls itself something else nobody has to think so.
pub(super) fn may_be_json(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(named), None) = (types.next(), types.next()) else {
        if headers.contains_key(CONTENT_TYPE) {
            return Err(Problem::new(Kind::BodyUnreadable, "There is more than one Content-Type."));
        }
        return Ok(true);
    };
    let Some(named) = media_type::parse(named.as_bytes()) else { return Ok(false) };
    if !named.is_json() {
        return Ok(false);
    }
    if named.parameter("charset").is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
        return Err(Problem::new(Kind::BodyCoding, "The body is JSON that is not in UTF-8."));
    }
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Problem::new(
            Kind::BodyCoding,
            "The request is routed by its body, which is compressed.",
        ));
    }
    Ok(true)
}

/// What is said of a body that is too large.
pub(super) fn too_large() -> Problem {
    Problem::new(Kind::BodyTooLarge, "The request is routed by its body, which is too large.")
}

/// The text of a body in JSON, which is in UTF-8 (RFC 8259, section 8.1).
pub(super) fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body)
        .map_err(|_| Problem::new(Kind::BodyUnreadable, "The body is JSON that is not in UTF-8."))
}

/// Reads a body in JSON to its end.
pub(super) async fn gather(
    body: &mut Incoming,
    bounds: BodyBounds,
    began: Instant,
    watch: &Watch,
    budget: &Budget,
) -> Result<Gathered, Problem> {
    let gathered = gather_bytes(body, bounds, began, watch, budget).await?;
    text(&gathered.bytes)?;
    Ok(gathered)
}

/// Reads a body to its end, whatever is in it.
pub(super) async fn gather_bytes(
    body: &mut Incoming,
    bounds: BodyBounds,
    began: Instant,
    watch: &Watch,
    budget: &Budget,
) -> Result<Gathered, Problem> {
    let length = body.size_hint().exact();
    if body.size_hint().lower() > bounds.max_bytes as u64 {
        return Err(too_large());
    }
    let mut held = Held { budget: budget.clone(), bytes: 0 };
    let mut bytes = Vec::new();
    if let Some(length) = length.and_then(|length| usize::try_from(length).ok()) {
        held.grow(length)?;
        bytes.reserve_exact(length);
    }
    let mut trailers = None;
    watch.awaits_response(began + bounds.timeout);
    while let Some(frame) = next_frame(body, watch).await? {
        match frame.into_data() {
            // A copy: many small pieces would each keep the whole of what was read with them.
            Ok(data) => {
                if bytes.len() + data.len() > bounds.max_bytes {
                    return Err(too_large());
                }
                if length.is_none() {
                    held.grow(data.len())?;
                }
                bytes.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    watch.busy(Instant::now());
    Ok(Gathered {
        bytes: bytes.into(),
        trailers,
        has_length: length.is_some(),
        is_moving: false,
        _held: held,
    })
}

/// The next piece; `None` at the end.
async fn next_frame(body: &mut Incoming, watch: &Watch) -> Result<Option<Frame<Bytes>>, Problem> {
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(None) => Poll::Ready(Ok(None)),
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Ok(Some(frame))),
        Poll::Ready(Some(Err(_))) => Poll::Ready(Err(Problem::broken_off(watch.refusal()))),
        Poll::Pending if watch.is_expired() => {
            Poll::Ready(Err(Problem::new(Kind::BodyTimeout, "The whole body did not arrive in time.")))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_itself_json_is_read_as_such() {
        for (name, fields, expected) in [
            ("nothing said", &[][..], Ok(true)),
            ("json", &[("content-type", "application/json")], Ok(true)),
            ("its case", &[("content-type", "Application/JSON")], Ok(true)),
            ("built on it", &[("content-type", "application/vnd.acme.v2+json; x=y")], Ok(true)),
            ("its charset", &[("content-type", "application/json; charset=\"UTF-8\"")], Ok(true)),
            (
                "another charset",
                &[("content-type", "application/json;charset=utf-16")],
                Err(Kind::BodyCoding),
            ),
            ("a form", &[("content-type", "application/x-www-form-urlencoded")], Ok(false)),
            ("its name in another", &[("content-type", "application/jsonx")], Ok(false)),
            ("several texts", &[("content-type", "application/json-seq")], Ok(false)),
            ("no media type", &[("content-type", "json")], Ok(false)),
            (
                "two",
                &[("content-type", "text/plain"), ("content-type", "application/json")],
                Err(Kind::BodyUnreadable),
            ),
            (
                "compressed",
                &[("content-type", "application/json"), ("content-encoding", "gzip")],
                Err(Kind::BodyCoding),
            ),
            (
                "not compressed",
                &[("content-type", "application/json"), ("content-encoding", "Identity")],
                Ok(true),
            ),
            (
                "something else, compressed",
                &[("content-type", "text/csv"), ("content-encoding", "gzip")],
                Ok(false),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(may_be_json(&headers).map_err(|problem| problem.kind), expected, "{name}");
        }
    }

    #[test]
    fn what_is_held_is_given_back() {
        let budget = Budget::default();
        let mut held = Held { budget: budget.clone(), bytes: 0 };
        held.grow(MAX_HELD_BYTES - 1).unwrap();
        let mut other = Held { budget: budget.clone(), bytes: 0 };
        other.grow(1).unwrap();
        assert_eq!(other.grow(1).map_err(|problem| problem.kind), Err(Kind::BodiesFull));
        drop(held);
        assert!(other.grow(1).is_ok());
        drop(other);
        assert_eq!(budget.0.get(), MAX_HELD_BYTES);
    }
}
