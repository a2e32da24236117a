//! What a route changes of header fields, and whom it lets read its answers across origins.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

/// How a header changes: first what is removed, then what is set, then what is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Fields that go.
    pub remove: Vec<HeaderName>,
    /// Fields that have this value and no other.
    pub set: Vec<(HeaderName, FieldTemplate)>,
    /// Values that come beside those that are there.
    pub add: Vec<(HeaderName, FieldTemplate)>,
    /// Of answers: whether those change that the gateway gives when something is wrong.
    pub always_errors: bool,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldTemplate {
    /// Always the same.
    Fixed(HeaderValue),
    /// Made for each request.
    Made(Vec<FieldPart>),
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPart {
    /// This text.
    Text(String),
    /// What stands for this.
    Variable(Variable),
}

/// What values can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The client's address.
    ClientIp,
    /// The method.
    Method,
    /// The host, as it was asked for.
    Host,
    /// The path that the request was routed by.
    Path,
    /// `http` or `https`.
    Scheme,
    /// The name that was asked for in the handshake of TLS.
    ServerName,
    /// The request's name, where the listener gives it one.
    RequestId,
    /// The route's name.
    Route,
    /// The listener's name.
    Listener,
}

impl Variable {
    /// Every one, by its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("client.ip", Self::ClientIp),
        ("request.method", Self::Method),
        ("request.host", Self::Host),
        ("request.path", Self::Path),
        ("request.scheme", Self::Scheme),
        ("tls.server_name", Self::ServerName),
        ("request.id", Self::RequestId),
        ("route", Self::Route),
        ("listener", Self::Listener),
    ];
}

/// Who may read a route's answers from pages of other origins (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may.
    pub origins: Vec<OriginPattern>,
    /// Methods that a preflight allows.
    pub methods: Vec<Method>,
    /// Fields that a preflight allows; empty: those that it asks for.
    pub headers: Vec<HeaderName>,
    /// Fields of answers that pages may read beside the usual ones.
    pub expose: Vec<HeaderName>,
    /// Whether cookies and the like are sent.
    pub credentials: bool,
    /// How long a browser may remember what a preflight said.
    pub max_age: Duration,
}

/// An origin, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// `https://app.example.com`, or `null`.
    Exact(String),
    /// `https://*.example.com`: one or more labels between these two.
    Wildcard(String, String),
}

impl OriginPattern {
    /// Whether an origin in lower case is one of these.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Wildcard(begin, end) => {
                let between =
                    origin.strip_prefix(begin.as_str()).and_then(|rest| rest.strip_suffix(end.as_str()));
                between.is_some_and(|labels| {
                    !labels.is_empty()
                        && labels.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                })
            }
        }
    }
}
