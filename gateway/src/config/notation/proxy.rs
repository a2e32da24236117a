//! What the keys of listeners, upstreams and routes are written in.

use std::net::{IpAddr, Ipv6Addr};

use gateway_kernel::feed::shown;
use http::Method;
use serde_json::{Value as Json, json};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::keys::MAX_SOCKET_PATH;
use crate::config::reader::{Wrong, closest};
use crate::config::shape::Notation;
use crate::model::{Endpoint, HostPattern, Location, PathPattern, Segment, Template};

use super::FilePath;

/// One server of an upstream: `http://host:port`, `https://host:port` or `unix:path`.
pub(crate) struct Server;

impl Notation for Server {
    type Out = Endpoint;

    fn parse(&self, text: &str) -> Result<Endpoint, Wrong> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = FilePath(MAX_SOCKET_PATH).parse(path)?;
            return Ok(Endpoint::new(Location::Unix(path.into()), false));
        }
        let schemes = [("http://", false), ("https://", true)];
        let of_scheme = |(scheme, is_secure)| Some((scheme, is_secure, text.strip_prefix(scheme)?));
        let Some((scheme, is_secure, authority)) = schemes.into_iter().find_map(of_scheme) else {
            let message = format!("{} does not begin with http://, https:// or unix:", shown(text));
            return Err(if parse_authority(text, false).is_none() {
                message.into()
            } else {
                Wrong::suggest(message, format!("http://{text}"))
            });
        };
        if let Some(path) = authority.find(['/', '?', '#']) {
            let message = "an endpoint has no path; the request's own path is sent on";
            return Err(Wrong::suggest(message, format!("{scheme}{}", &authority[..path])));
        }
        if authority.contains('@') {
            return Err("an endpoint has no user name or password".into());
        }
        parse_authority(authority, is_secure)
            .ok_or_else(|| format!("{} is not {scheme}HOST or {scheme}HOST:PORT", shown(text)).into())
    }

    fn noun(&self) -> String {
        "a server such as http://127.0.0.1:9001".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^(https?://[^/?#@\\s]+|unix:.+)$" })
    }
}

fn parse_authority(text: &str, is_secure: bool) -> Option<Endpoint> {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => {
            if is_secure {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0)?
        }
        Some(_) => return None,
    };
    if host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
        return None;
    }
    let at = Location::Tcp { host: host.to_ascii_lowercase(), port };
    Some(Endpoint::new(at, is_secure))
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, and not only digits at the end: that
/// would be an address with a typing mistake.
pub(super) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(numeric)
}

/// A host that a route answers for.
pub(crate) struct Host;

impl Notation for Host {
    type Out = HostPattern;

    fn parse(&self, text: &str) -> Result<HostPattern, Wrong> {
        let host = text.to_ascii_lowercase();
        if host == "*" {
            return Err("to match every host, leave `hosts` out".into());
        }
        if !host.is_ascii() {
            return Err(format!("{} is not ASCII; write its labels in Punycode (xn--…)", shown(text)).into());
        }
        if let Some(rest) = host.strip_prefix("*.")
            && is_dns_name(rest)
        {
            return Ok(HostPattern::Wildcard(format!(".{rest}")));
        }
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(Ok(v6)) = v6.map(str::parse::<Ipv6Addr>) {
            return Ok(HostPattern::Exact(format!("[{v6}]")));
        }
        if host.parse::<std::net::Ipv4Addr>().is_ok() || is_dns_name(&host) {
            return Ok(HostPattern::Exact(host));
        }
        Err(self.explain(text, &host))
    }

    fn noun(&self) -> String {
        "a host such as api.example.com or *.example.com".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

impl Host {
    fn explain(&self, text: &str, host: &str) -> Wrong {
        if let Ok(v6) = host.parse::<Ipv6Addr>() {
            return Wrong::suggest("an IPv6 host stands in brackets", format!("[{v6}]"));
        }
        if let Some((name, _)) = host.rsplit_once(':')
            && self.parse(name).is_ok()
        {
            return Wrong::suggest("a route matches hosts without their port", name);
        }
        if let Some(name) = host.strip_suffix('.')
            && self.parse(name).is_ok()
        {
            return Wrong::suggest("a route's host has no dot at its end", name);
        }
        let rule = "a `*` stands only for whole labels in front, as in *.example.com";
        format!("{} is not {}; {rule}", shown(text), Notation::noun(self)).into()
    }
}

/// The path pattern of a route.
pub(crate) struct Pattern;

/// Bytes of a path pattern.
const MAX_PATTERN_BYTES: usize = 1024;

impl Notation for Pattern {
    type Out = PathPattern;

    fn parse(&self, text: &str) -> Result<PathPattern, Wrong> {
        check_path_begin(text)?;
        let (path, below) = match text.strip_suffix("/**") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.contains('*') {
            let message = "a `*` stands only at the end, as in /v1/**";
            let prefix = path.strip_suffix("/*").filter(|prefix| !below && !prefix.contains('*'));
            return Err(match prefix {
                Some(prefix) => Wrong::suggest(message, format!("{}/**", shown(prefix))),
                None => message.into(),
            });
        }
        check_path_bytes(path)?;
        let path = decode_unreserved(path)?;
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("a path has no `.` or `..` segments".into());
        }
        if path.contains(['{', '}']) {
            return template(&path, below).map(PathPattern::Template);
        }
        Ok(if below { PathPattern::Prefix(path) } else { PathPattern::Exact(path) })
    }

    fn noun(&self) -> String {
        "a path such as /v1/users, /v1/** or /v1/users/{id}".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/[^?#*\\s]*(/\\*\\*)?$|^/\\*\\*$", "maxLength": MAX_PATTERN_BYTES })
    }
}

fn check_path_begin(text: &str) -> Result<(), Wrong> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(
            format!("a path has at most {MAX_PATTERN_BYTES} bytes, this one has {}", text.len()).into()
        );
    }
    if !text.starts_with('/') {
        let message = format!("the path {} does not begin with a slash", shown(text));
        return Err(Wrong::suggest(message, format!("/{}", shown(text))));
    }
    Ok(())
}

/// Whether a path can stand in a request.
pub(super) fn check_path_bytes(path: &str) -> Result<(), Wrong> {
    if !path.is_empty() {
        check_path_begin(path)?;
    }
    let is_bad = |char: &char| !char.is_ascii_graphic() || matches!(char, '?' | '#' | '\\');
    match path.chars().find(is_bad) {
        None => Ok(()),
        Some(bad) => {
            let bad = bad.escape_debug();
            Err(format!("`{bad}` cannot stand in a path; what is no plain ASCII is percent-encoded").into())
        }
    }
}

/// A path of which some segments are parameters.
fn template(path: &str, below: bool) -> Result<Template, Wrong> {
    let mut names = Vec::new();
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let is_name = |name: &&str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match name.filter(is_name) {
            Some(name) if names.contains(&name) => {
                return Err(format!("the parameter {{{name}}} stands in the path twice").into());
            }
            Some(name) => {
                names.push(name);
                segments.push(Segment::Parameter(name.to_owned()));
            }
            None if segment.contains(['{', '}']) => {
                let message = "a parameter is a whole segment of letters, digits and _ in braces, as in /users/{id}; \
                               parts of a segment take `{regex: \"…\"}`";
                return Err(message.into());
            }
            None => segments.push(Segment::Literal(segment.to_owned())),
        }
    }
    Ok(Template { segments, below })
}

/// Decodes what need not have been encoded: `%41` and `A` are the same path, `%2F` and `/` are not.
fn decode_unreserved(path: &str) -> Result<String, Wrong> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        // The path is ASCII, so every byte is a character.
        let byte = rest
            .get(percent + 1..percent + 3)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or("a `%` in a path is followed by two hexadecimal digits")?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&rest[percent..percent + 3]),
        }
        rest = &rest[percent + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A method that a route answers to. The set is closed, so that a typing mistake is found and a metric's
/// label is bounded; CONNECT is left out because nothing is tunnelled.
pub(crate) struct MethodName;

/// HTTP's own methods, WebDAV's, and those that caches and queries use.
pub(crate) const METHODS: [&str; 22] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "PURGE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "MKCALENDAR",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "LINK",
    "UNLINK",
];

const _: () = assert!(METHODS.len() < u64::BITS as usize, "routes are compared by sets of 64 methods");

impl Notation for MethodName {
    type Out = Method;

    fn parse(&self, text: &str) -> Result<Method, Wrong> {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if METHODS.contains(&text) => Ok(method),
            _ if text == "CONNECT" => Err("CONNECT is not forwarded: this gateway opens no tunnels".into()),
            _ => Err(Wrong {
                message: format!("{} is not a method", shown(text)),
                suggestion: closest(text, METHODS.into_iter()).map(str::to_owned),
                valid: METHODS.map(str::to_owned).to_vec(),
            }),
        }
    }

    fn noun(&self) -> String {
        "a method such as GET".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "enum": METHODS })
    }
}

/// A name that a certificate is for.
pub(crate) struct DnsName;

impl Notation for DnsName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(text.to_ascii_lowercase()),
            Err(_) => Err(format!("{} is no host name", shown(text)).into()),
        }
    }

    fn noun(&self) -> String {
        "a host name".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// A protocol that a connection may switch to. Not HTTP/2: requests in it would pass unseen.
pub(crate) struct ProtocolName;

impl Notation for ProtocolName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let name = text.to_ascii_lowercase();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token) {
            return Err(format!("{} is not {}", shown(text), Notation::noun(self)).into());
        }
        if matches!(name.as_str(), "h2c" | "h2") || name.starts_with("http/") {
            let why = "clients that speak HTTP/2 do so from the first byte on; see `http2` of a listener";
            return Err(format!("{} cannot be upgraded to; {why}", shown(text)).into());
        }
        Ok(name)
    }

    fn noun(&self) -> String {
        "a protocol such as websocket".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "maxLength": 64 })
    }
}
