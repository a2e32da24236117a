//! What a route does with its requests.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes to an upstream.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The client gets this answer.
    Respond(FixedAnswer),
    /// It goes to whoever serves the model that it names.
    Llm(super::LlmRoute),
}

/// Which upstream gets a request, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// At least one; together they have a weight.
    pub shares: Vec<Share>,
    /// What keeps a client with its share.
    pub sticky: Option<Sticky>,
    /// The host that the upstream sees instead of the client's.
    pub host: Option<HeaderValue>,
    /// The path that it sees instead.
    pub path: Option<PathChange>,
    /// Who gets copies of requests beside it.
    pub mirrors: Vec<Mirror>,
}

/// One upstream of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index into [`super::Proxy::upstreams`].
    pub upstream: usize,
    /// How many requests of all weights together it gets.
    pub weight: u32,
}

/// An upstream that gets copies of requests. What it answers nobody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Index into [`super::Proxy::upstreams`].
    pub upstream: usize,
    /// How many of a million requests are copied.
    pub share: u32,
    /// From the head of the request to the end of the answer to the copy.
    pub timeout: Duration,
    /// Bytes of a body that may wait for the upstream.
    pub buffer: usize,
    /// Copies under way, in each worker.
    pub max_concurrent: usize,
}

/// What keeps a client with the upstream that it was given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// A cookie that the gateway sets.
    Cookie(String),
    /// A field that clients send: who sends the same gets the same, on every gateway.
    Header(HeaderName),
}

/// Where a client is sent. What is `None` stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Whether it is https.
    pub is_secure: Option<bool>,
    /// A host.
    pub host: Option<String>,
    /// A port; if `None`, the one that was asked for stays where the scheme does.
    pub port: Option<u16>,
    /// A path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// The whole of it, of these pieces.
    Whole(Vec<Piece>),
    /// What the route's pattern names, without what is below; kept without a slash at its end.
    Prefix(String),
}

/// A piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// What stands in the request's path for this parameter, by its place in the template.
    Parameter(usize),
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// The body's media type.
    pub content_type: HeaderValue,
}
