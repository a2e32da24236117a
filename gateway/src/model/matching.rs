//! What a route asks of a request.

use std::fmt;
use std::time::Duration;

use gateway_kernel::feed::shown;
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
    /// What the body may call itself; empty: anything, or nothing.
    pub content_types: Vec<MediaType>,
    /// What the client has to name in Accept, one of them; empty: anything, or nothing.
    pub accepts: Vec<MediaType>,
    /// Fields of a body in JSON; `None`: the body is not looked at.
    pub body: Option<BodyTests>,
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

/// What is asked of a body in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTests {
    /// How much of it is read, and for how long.
    pub bounds: BodyBounds,
    /// At least one.
    pub fields: Vec<(Pointer, Test)>,
}

/// Within which a body is read before a request has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyBounds {
    /// Bytes of it.
    pub max_bytes: usize,
    /// From the head of the request to the end of its body.
    pub timeout: Duration,
}

impl BodyBounds {
    /// The most that `max_bytes` may be.
    pub const MAX_BYTES: usize = 16 << 20;

    /// What both allow.
    #[must_use]
    pub fn widest(self, other: Self) -> Self {
        Self { max_bytes: self.max_bytes.max(other.max_bytes), timeout: self.timeout.max(other.timeout) }
    }
}

/// Where a value is in a JSON text (RFC 6901): the names, or places in arrays, from the outside in. At least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Bytes of one as it is written.
    pub const MAX_BYTES: usize = 256;
    /// Steps of one: what is read of a body goes as deep.
    pub const MAX_STEPS: usize = 16;

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let Some(steps) = text.strip_prefix('/') else {
            return Err("a JSON pointer begins with a slash, such as /model or /user/tier".to_owned());
        };
        if text.len() > Self::MAX_BYTES {
            return Err(format!("a JSON pointer has at most {} bytes", Self::MAX_BYTES));
        }
        let steps: Option<Vec<String>> = steps.split('/').map(unescaped).collect();
        let steps = steps.ok_or("in a JSON pointer, `~` is written ~0 and a slash in a name ~1")?;
        if steps.len() > Self::MAX_STEPS {
            return Err(format!("a JSON pointer has at most {} steps", Self::MAX_STEPS));
        }
        Ok(Self(steps))
    }

    /// The names, or places in arrays.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// A step without its escapes; `None` where one is none.
fn unescaped(step: &str) -> Option<String> {
    let mut pieces = step.split('~');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        name.push(match piece.chars().next()? {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        name.push_str(&piece[1..]);
    }
    Some(name)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

/// A media type, in lower case but for the values of its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType {
    /// `application/json`
    pub essence: String,
    /// `version=2`
    pub parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = || format!("{} is not a media type such as application/json", shown(text));
        let mut pieces = text.split(';').map(str::trim);
        let essence = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/').ok_or_else(wrong)?;
        if !Self::is_token(kind) || !Self::is_token(subtype) {
            return Err(wrong());
        }
        if essence.contains('*') {
            return Err(format!("{} is a range of media types; name one", shown(text)));
        }
        let mut parameters = Vec::new();
        for parameter in pieces {
            let (name, value) = parameter.split_once('=').ok_or_else(wrong)?;
            if !Self::is_token(name) || !Self::is_token(value) {
                return Err(wrong());
            }
            if name.eq_ignore_ascii_case("q") {
                return Err("a quality (`q`) is the client's to say".to_owned());
            }
            parameters.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Self { essence, parameters })
    }

    /// Whether a text is a token (RFC 9110, section 5.6.2).
    pub fn is_token(text: &str) -> bool {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.essence)?;
        self.parameters.iter().try_for_each(|(name, value)| write!(f, ";{name}={value}"))
    }
}
