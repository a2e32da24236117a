//! What a route asks of a request beyond host and path, held against the request.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::IpAddr;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use crate::model::{BodyTests, Conditions, HostPattern, MediaType, Test};

use super::super::json::Wanted;
use super::super::{cookie, media_type};

/// What is known of a request.
pub(in crate::proxy) struct Facts<'a> {
    pub(in crate::proxy) method: &'a Method,
    pub(in crate::proxy) headers: &'a HeaderMap,
    pub(in crate::proxy) query: Option<&'a str>,
    /// Index of the listener.
    pub(in crate::proxy) listener: usize,
    /// What the client asked for in the handshake of TLS.
    pub(in crate::proxy) server_name: Option<&'a str>,
    /// On whose behalf it comes. Seldom asked, and it takes a look into the header.
    pub(in crate::proxy) client: &'a dyn Fn() -> IpAddr,
    pub(in crate::proxy) content: Content<'a>,
}

/// What is known of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Content<'a> {
    /// Nobody has looked.
    Unread,
    /// There is none, or it is not in JSON.
    Other,
    /// It is this.
    Json(&'a str),
}

/// What of the conditions does not hold, but for those about the body: the first, in the words of the configuration.
pub(in crate::proxy) fn failing(conditions: &Conditions, facts: &Facts<'_>) -> Option<Cow<'static, str>> {
    let Conditions {
        headers,
        query,
        cookies,
        content_types,
        accepts,
        sources,
        listeners,
        server_names,
        body: _,
    } = conditions;
    for (name, test) in headers {
        if !holds(test, facts.headers.get_all(name).iter().map(value_text)) {
            return Some(format!("headers: {name}").into());
        }
    }
    for (name, test) in query {
        if !holds(test, parameters(facts.query).filter(|(key, _)| key == name).map(|(_, value)| value)) {
            return Some(format!("query: {name}").into());
        }
    }
    for (name, test) in cookies {
        let named = cookie::all(facts.headers).filter(|(known, _)| *known == name.as_bytes());
        let values = named.map(|(_, value)| String::from_utf8_lossy(value));
        if !holds(test, values) {
            return Some(format!("cookies: {name}").into());
        }
    }
    if !content_types.is_empty() && !is_one_of(content_types, facts.headers) {
        return Some("content_types".into());
    }
    if !accepts.is_empty() && quality(accepts, facts.headers) == 0 {
        return Some("accepts".into());
    }
    if !listeners.is_empty() && !listeners.contains(&facts.listener) {
        return Some("listeners".into());
    }
    if !server_names.is_empty() && !names_one(server_names, facts.server_name) {
        return Some("server_names".into());
    }
    if !sources.is_empty() {
        let client = (facts.client)();
        if !sources.iter().any(|net| net.contains(&client)) {
            return Some("sources".into());
        }
    }
    None
}

/// What of the conditions about the body does not hold.
pub(in crate::proxy) fn failing_body(body: &BodyTests, content: Content<'_>) -> Option<Cow<'static, str>> {
    let Content::Json(text) = content else { return Some("body".into()) };
    let wanted = Wanted::new(body.fields.iter().map(|(pointer, _)| pointer));
    let fields = match wanted.read(text) {
        Ok(fields) => fields,
        Err(unreadable) => return Some(format!("body: {}", unreadable.sentence()).into()),
    };
    let failing = body.fields.iter().find(|(pointer, test)| !wanted.holds(&fields, pointer, test));
    failing.map(|(pointer, _)| format!("body: {pointer}").into())
}

/// How much the client wants one of these, in thousandths.
pub(super) fn quality(accepts: &[MediaType], headers: &HeaderMap) -> u16 {
    accepts.iter().map(|wanted| media_type::accepted(headers, wanted)).max().unwrap_or_default()
}

fn is_one_of(content_types: &[MediaType], headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(named), None) = (lines.next(), lines.next()) else { return false };
    media_type::parse(named.as_bytes())
        .is_some_and(|named| content_types.iter().any(|wanted| named.is(wanted)))
}

fn names_one(patterns: &[HostPattern], name: Option<&str>) -> bool {
    name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
}

/// Whether what is asked holds for any of the values.
fn holds<'a>(test: &Test, mut values: impl Iterator<Item = Cow<'a, str>>) -> bool {
    match test {
        Test::Is(expected) => values.any(|value| value == *expected),
        Test::Matches(pattern) => values.any(|value| pattern.matches(&value)),
        Test::Present(expected) => values.next().is_some() == *expected,
    }
}

fn value_text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// The parameters of a query, decoded.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// As forms are written: `+` is a space, and escapes are bytes of UTF-8. An escape that is none stands for itself.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(escaped) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(escaped);
            at += 3;
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// How specific the conditions are: who sorts before others is asked before them.
pub(super) fn precedence(methods: &[Method], conditions: &Conditions) -> impl Ord + use<> {
    let Conditions {
        headers,
        query,
        cookies,
        content_types,
        accepts,
        body,
        sources,
        listeners,
        server_names,
    } = conditions;
    let narrowest = sources.iter().map(|net| net.prefix_len() + 1).max().unwrap_or_default();
    Reverse((
        !methods.is_empty(),
        headers.len(),
        query.len(),
        cookies.len(),
        body.as_ref().map_or(0, |body| body.fields.len()),
        !content_types.is_empty(),
        !accepts.is_empty(),
        narrowest,
        !server_names.is_empty(),
        !listeners.is_empty(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pattern;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn conditions_hold_or_are_named() {
        let (is, like) =
            (|text: &str| Test::Is(text.to_owned()), |text| Test::Matches(Pattern::new(text).unwrap()));
        let header = |name: &'static str, test| Conditions {
            headers: vec![(http::HeaderName::from_static(name), test)],
            ..Conditions::default()
        };
        let query =
            |name: &str, test| Conditions { query: vec![(name.to_owned(), test)], ..Conditions::default() };
        let cookie =
            |name: &str, test| Conditions { cookies: vec![(name.to_owned(), test)], ..Conditions::default() };
        let server = |name: &str| Conditions {
            server_names: vec![HostPattern::Exact(name.to_owned())],
            ..Conditions::default()
        };
        let source = |net: &str| Conditions { sources: vec![net.parse().unwrap()], ..Conditions::default() };
        let listener = |index| Conditions { listeners: vec![index], ..Conditions::default() };
        let sent = headers(&[
            ("x-a", "1"),
            ("x-a", "2"),
            ("x-b", "beta-7"),
            ("cookie", "a=1; b=x=y"),
            ("cookie", "c=3"),
        ]);
        for (name, conditions, expected) in [
            ("nothing", Conditions::default(), None),
            ("a field", header("x-a", is("1")), None),
            ("another line of it", header("x-a", is("2")), None),
            ("another value", header("x-a", is("3")), Some("headers: x-a")),
            ("case counts in values", header("x-b", is("Beta-7")), Some("headers: x-b")),
            ("a pattern", header("x-b", like("beta-[0-9]")), None),
            ("the whole of it", header("x-b", like("beta")), Some("headers: x-b")),
            ("present", header("x-b", Test::Present(true)), None),
            ("absent", header("x-c", Test::Present(true)), Some("headers: x-c")),
            ("to be absent", header("x-c", Test::Present(false)), None),
            ("a parameter", query("q", is("a b/c")), None),
            ("without a value", query("empty", is("")), None),
            ("another", query("q", is("a+b%2fc")), Some("query: q")),
            ("no parameter", query("x", Test::Present(false)), None),
            ("a broken escape", query("bad", is("%zz")), None),
            ("a cookie", cookie("b", is("x=y")), None),
            ("a cookie on another line", cookie("c", is("3")), None),
            ("no cookie", cookie("d", Test::Present(true)), Some("cookies: d")),
            ("a name asked for", server("a.test"), None),
            ("another name", server("b.test"), Some("server_names")),
            ("a source", source("192.0.2.0/24"), None),
            ("another source", source("198.51.100.0/24"), Some("sources")),
            ("a listener", listener(1), None),
            ("another listener", listener(0), Some("listeners")),
        ] {
            let facts = Facts {
                method: &Method::GET,
                headers: &sent,
                query: Some("q=a+b%2Fc&empty&bad=%zz"),
                listener: 1,
                server_name: Some("a.test"),
                client: &|| "192.0.2.7".parse().unwrap(),
                content: Content::Unread,
            };
            assert_eq!(failing(&conditions, &facts).as_deref(), expected, "{name}");
        }
    }
}
