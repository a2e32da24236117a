//! How single values are written: durations, sizes, counts, addresses, names, paths, patterns.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gateway_kernel::feed::{self, is_printable, shown};
use http::Method;
use ipnet::IpNet;
use serde_json::{Value as Json, json};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::keys::MAX_SOCKET_PATH;
use crate::config::reader::{Wrong, closest};
use crate::config::shape::Notation;
use crate::model::{Endpoint, HostPattern, Location, PathPattern};

/// A duration within bounds, both written as a user would.
pub(crate) struct Span(pub(crate) &'static str, pub(crate) &'static str);

impl Notation for Span {
    type Out = Duration;

    fn parse(&self, text: &str) -> Result<Duration, Wrong> {
        // The bounds are read where they are used; a test reads those of every field.
        let bound = |text| feed::parse_duration(text).unwrap_or_default();
        let duration = feed::parse_duration(text).map_err(|why| unit_missing(text, "s", why))?;
        if (bound(self.0)..=bound(self.1)).contains(&duration) {
            Ok(duration)
        } else {
            Err(format!("{} is out of bounds; expected {}", shown(text), Notation::noun(self)).into())
        }
    }

    fn noun(&self) -> String {
        format!("a duration from {} to {}", self.0, self.1)
    }

    fn schema(&self) -> Json {
        json!({
            "type": "string",
            "minLength": 2,
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        })
    }
}

/// A size in bytes within bounds.
pub(crate) struct Size(pub(crate) &'static str, pub(crate) &'static str);

impl Notation for Size {
    type Out = usize;

    fn parse(&self, text: &str) -> Result<usize, Wrong> {
        let bound = |text| parse_size(text).unwrap_or_default();
        let size = parse_size(text)?;
        if !(bound(self.0)..=bound(self.1)).contains(&size) {
            return Err(format!("{} is out of bounds; expected {}", shown(text), Notation::noun(self)).into());
        }
        usize::try_from(size).map_err(|_| "this machine has no such size".into())
    }

    fn noun(&self) -> String {
        format!("a size from {} to {}", self.0, self.1)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$" })
    }
}

fn parse_size(text: &str) -> Result<u64, Wrong> {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let malformed =
        || format!("{} is not a size; write one like 32KiB (B, kB, MB, GB, KiB, MiB, GiB)", shown(text));
    if number.is_empty() {
        return Err(malformed().into());
    }
    if unit.is_empty() {
        let why = format!("{} has no unit; add a unit, such as 32KiB", shown(text));
        let kibibytes = text.parse::<u64>().ok().filter(|size| *size >= 1024 && size.is_multiple_of(1024));
        return Err(match kibibytes {
            Some(size) => Wrong::suggest(why, format!("{}KiB", size / 1024)),
            None => unit_missing(text, "B", why),
        });
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let near = UNITS.iter().find(|(name, _)| {
            name.eq_ignore_ascii_case(unit) || name.trim_end_matches('B').eq_ignore_ascii_case(unit)
        });
        let suggestion = near.map(|(name, _)| format!("{}{name}", shown(number)));
        return Err(Wrong { message: malformed(), suggestion, valid: Vec::new() });
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    size.ok_or_else(|| format!("{} is too large", shown(text)).into())
}

/// A bare number is nearly right, and can be told how to become so.
fn unit_missing(text: &str, unit: &str, why: String) -> Wrong {
    let bare = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    if bare { Wrong::suggest(why, format!("{text}{unit}")) } else { why.into() }
}

/// A whole number within bounds.
pub(crate) struct Count(pub(crate) usize, pub(crate) usize);

impl Notation for Count {
    type Out = usize;

    fn parse(&self, text: &str) -> Result<usize, Wrong> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number =
            digits.then(|| text.parse().ok()).flatten().filter(|number| (self.0..=self.1).contains(number));
        number.ok_or_else(|| {
            let what = if digits { "is out of bounds" } else { "is not a whole number" };
            format!("{} {what}; expected {}", shown(text), Notation::noun(self)).into()
        })
    }

    fn noun(&self) -> String {
        format!("a number from {} to {}", self.0, self.1)
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.0, "maximum": self.1 })
    }
}

/// A word that stands for `None`, or else a value.
pub(crate) struct WordOr<N>(pub(crate) &'static str, pub(crate) N);

impl<N: Notation> Notation for WordOr<N> {
    type Out = Option<N::Out>;

    fn parse(&self, text: &str) -> Result<Self::Out, Wrong> {
        if text == self.0 {
            Ok(None)
        } else {
            self.1.parse(text).map(Some).map_err(|wrong| self.name_word(wrong))
        }
    }

    fn noun(&self) -> String {
        format!("`{}` or {}", self.0, self.1.noun())
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "const": self.0 }, self.1.schema()] })
    }
}

impl<N: Notation> WordOr<N> {
    fn name_word(&self, mut wrong: Wrong) -> Wrong {
        wrong.message = format!("{}, or `{}`", wrong.message, self.0);
        wrong
    }
}

/// Where to listen.
pub(crate) struct Address;

impl Notation for Address {
    type Out = SocketAddr;

    fn parse(&self, text: &str) -> Result<SocketAddr, Wrong> {
        let wrong = |suggestion: Option<String>| Wrong {
            message: format!(
                "{} is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080",
                shown(text)
            ),
            suggestion,
            valid: Vec::new(),
        };
        let address: SocketAddr = text.parse().map_err(|_| wrong(nearest_address(text)))?;
        if address.port() == 0 {
            return Err("port 0 would be another one at every start; name one from 1 to 65535".into());
        }
        Ok(address)
    }

    fn noun(&self) -> String {
        "an IP address and a port".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// The address that `:8080`, `8080`, `*:8080`, `localhost:8080` or `::1:8080` was probably meant to be.
fn nearest_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    match host {
        "" | "*" => Some(format!("0.0.0.0:{port}")),
        "localhost" => Some(format!("127.0.0.1:{port}")),
        host => host.parse::<Ipv6Addr>().ok().map(|host| format!("[{host}]:{port}")),
    }
}

/// An address or a prefix.
pub(crate) struct Prefix;

impl Notation for Prefix {
    type Out = IpNet;

    fn parse(&self, text: &str) -> Result<IpNet, Wrong> {
        feed::read_prefix(text).map_err(|bad| Wrong {
            message: bad.why,
            suggestion: bad.suggestion,
            valid: Vec::new(),
        })
    }

    fn noun(&self) -> String {
        "an address or a prefix".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// A rule's label.
pub(crate) struct Label;

impl Notation for Label {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        feed::check_label(text).map(|()| text.to_owned()).map_err(Wrong::from)
    }

    fn noun(&self) -> String {
        format!("a label of 1 to {} bytes", feed::MAX_LABEL_BYTES)
    }

    fn schema(&self) -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": feed::MAX_LABEL_BYTES })
    }
}

/// A list's name: what commands and metrics call it.
pub(crate) struct ListName;

impl Notation for ListName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        gateway_kernel::check_list_name(text).map(|()| text.to_owned()).map_err(Wrong::from)
    }

    fn noun(&self) -> String {
        format!("a name of 1 to {} bytes", gateway_kernel::MAX_NAME_BYTES)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": gateway_kernel::MAX_NAME_BYTES })
    }
}

/// A country, as databases name it.
pub(crate) struct Country;

impl Notation for Country {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let upper = text.to_ascii_uppercase();
        if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(format!("{} is not a country's ISO 3166 code of two letters", shown(text)).into());
        }
        Ok(upper)
    }

    fn noun(&self) -> String {
        "a country's code of two letters".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z]{2}$" })
    }
}

/// A share in percent.
pub(crate) struct Percent;

impl Notation for Percent {
    type Out = u32;

    fn parse(&self, text: &str) -> Result<u32, Wrong> {
        let wrong = format!("{} is not a share; expected {}", shown(text), Notation::noun(self));
        let Some(number) = text.strip_suffix('%') else { return Err(unit_missing(text, "%", wrong)) };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let share = digits.then(|| number.parse().ok()).flatten().filter(|share| (1..=1000).contains(share));
        share.ok_or_else(|| wrong.into())
    }

    fn noun(&self) -> String {
        "a share from 1% to 1000%".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{1,4}%$" })
    }
}

/// Where a list is fetched from.
pub(crate) struct ListUrl;

/// Bytes of a URL.
const MAX_URL_BYTES: usize = 2048;

impl Notation for ListUrl {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        if text.len() > MAX_URL_BYTES {
            return Err(
                format!("a URL has at most {MAX_URL_BYTES} bytes here, this one has {}", text.len()).into()
            );
        }
        crate::sources::check_url(text).map(|()| text.to_owned()).map_err(|error| error.to_string().into())
    }

    fn noun(&self) -> String {
        "a URL such as https://example.com/drop.txt".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": MAX_URL_BYTES })
    }
}

/// A path in the file system, of at most so many bytes.
pub(crate) struct FilePath(pub(crate) usize);

impl Notation for FilePath {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        if text.is_empty() || text.len() > self.0 {
            return Err(format!("a path has 1 to {} bytes here, this one has {}", self.0, text.len()).into());
        }
        if !text.chars().all(is_printable) {
            return Err("a path has no control characters here".into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        "a path".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": self.0 })
    }
}

/// A network interface's name, by the kernel's rules.
pub(crate) struct Interface;

impl Notation for Interface {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let allowed = |char: char| is_printable(char) && !char.is_whitespace() && !matches!(char, '/' | ':');
        if (1..=15).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != ".." {
            return Ok(text.to_owned());
        }
        let why = "an interface's name has 1 to 15 bytes, no space, slash or colon";
        Err(format!("{} is not the name of an interface; {why}", shown(text)).into())
    }

    fn noun(&self) -> String {
        "the name of an interface".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[^\\s/:]{1,15}$" })
    }
}

/// The name of something that is declared elsewhere; lowering looks it up.
pub(crate) struct NameOf(pub(crate) &'static str);

impl Notation for NameOf {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        format!("the name of {}", self.0)
    }

    fn schema(&self) -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// One server of an upstream: `http://host:port`, `https://host:port` or `unix:path`.
pub(crate) struct Server;

impl Notation for Server {
    type Out = Endpoint;

    fn parse(&self, text: &str) -> Result<Endpoint, Wrong> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = FilePath(MAX_SOCKET_PATH).parse(path)?;
            return Ok(Endpoint { at: Location::Unix(path.into()), is_secure: false });
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
    Some(Endpoint { at, is_secure })
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, and not only digits at the end: that
/// would be an address with a typing mistake.
fn is_dns_name(name: &str) -> bool {
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
        if text.len() > MAX_PATTERN_BYTES {
            return Err(
                format!("a path has at most {MAX_PATTERN_BYTES} bytes, this one has {}", text.len()).into()
            );
        }
        if !text.starts_with('/') {
            let message = format!("the path {} does not begin with a slash", shown(text));
            return Err(Wrong::suggest(message, format!("/{}", shown(text))));
        }
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
        if let Some(bad) =
            path.chars().find(|char| !char.is_ascii_graphic() || matches!(char, '?' | '#' | '\\'))
        {
            let bad = bad.escape_debug();
            return Err(
                format!("`{bad}` cannot stand in a path; what is no plain ASCII is percent-encoded").into()
            );
        }
        let path = decode_unreserved(path)?;
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("a path has no `.` or `..` segments".into());
        }
        Ok(if below { PathPattern::Prefix(path) } else { PathPattern::Exact(path) })
    }

    fn noun(&self) -> String {
        "a path such as /v1/users or /v1/**".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/[^?#*\\s]*(/\\*\\*)?$|^/\\*\\*$", "maxLength": MAX_PATTERN_BYTES })
    }
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
