//! What a route asks of a request.

use http::{HeaderName, Method};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

/// The patterns of a route. A request has to match every one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The path's pattern.
    pub path: PathPattern,
    /// Empty: every method.
    pub methods: Vec<Method>,
    /// What else there is to it.
    pub conditions: Conditions,
}

/// A host pattern, lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(String),
    /// `*.example.com`: one or more labels in front of this suffix, which is kept with its leading dot.
    Wildcard(String),
}

impl HostPattern {
    /// Whether a host in lower case is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// A path pattern, as written after percent-decoding of unreserved characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// `/v1/users`
    Exact(String),
    /// `/v1/**`: this path itself and everything below it, by segment; kept without the `/**`
    /// (so `/**` is the empty string).
    Prefix(String),
    /// `/v1/users/{id}`, perhaps with `/**` behind it.
    Template(Template),
    /// The whole path matches it.
    Regex(Pattern),
}

/// A path of which some segments are anything but empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    /// The segments, in order.
    pub segments: Vec<Segment>,
    /// Whether it takes everything below, too.
    pub below: bool,
}

/// A segment of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This one.
    Literal(String),
    /// Any, under this name.
    Parameter(String),
}

/// A regular expression that has to match the whole of something. It takes time in proportion to what it is held
/// against, and is compiled within bounds.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Bytes of one as it is written.
    pub const MAX_BYTES: usize = 1024;
    /// Bytes of one when it is compiled.
    const MAX_COMPILED: usize = 256 * 1024;

    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            let limit = Self::MAX_BYTES;
            return Err(format!(
                "a regular expression has at most {limit} bytes, this one has {}",
                text.len()
            ));
        }
        let compiled = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(Self::MAX_COMPILED)
            .dfa_size_limit(Self::MAX_COMPILED)
            .build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "this regular expression takes too much memory".to_owned(),
            // The last line of its message says what; those before show where, in an expression that is not the user's.
            other => {
                let what = other.to_string();
                let what = what.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("this is no regular expression: {what}")
            }
        })
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        let whole = self.0.as_str();
        whole.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(whole)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// What a route asks beyond host, path and method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Header fields.
    pub headers: Vec<(HeaderName, Test)>,
    /// Parameters of the query, decoded.
    pub query: Vec<(String, Test)>,
    /// Cookies.
    pub cookies: Vec<(String, Test)>,
    /// Where the client is; empty: anywhere.
    pub sources: Vec<IpNet>,
    /// Indices of listeners; empty: every one.
    pub listeners: Vec<usize>,
    /// The name asked for in the handshake of TLS; empty: any, or none.
    pub server_names: Vec<HostPattern>,
}

/// What is asked of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It is this.
    Is(String),
    /// It matches this.
    Matches(Pattern),
    /// It is there, or is not.
    Present(bool),
}
