//! Media types (RFC 9110, section 8.3.1): what a body calls itself, and what a client accepts (section 12.5.1).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::ACCEPT;

use crate::model;

/// A media type as it stands in a field.
#[derive(Debug)]
pub(super) struct MediaType<'a> {
    /// `application/json`, in whatever case.
    essence: &'a str,
    /// What follows it, from the first semicolon on.
    parameters: &'a str,
}

/// Reads a media type; `None` of what is none.
pub(super) fn parse(value: &[u8]) -> Option<MediaType<'_>> {
    let value = std::str::from_utf8(value).ok()?;
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let essence = essence.trim_matches([' ', '\t']);
    let (kind, subtype) = essence.split_once('/')?;
    (model::MediaType::is_token(kind) && model::MediaType::is_token(subtype))
        .then_some(MediaType { essence, parameters })
}

impl<'a> MediaType<'a> {
    /// Type and subtype, in whatever case.
    pub(super) fn essence(&self) -> &'a str {
        self.essence
    }

    /// Whether it is JSON, or built on it (RFC 6839).
    pub(super) fn is_json(&self) -> bool {
        let essence = self.essence.to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json") || essence == "text/json"
    }

    /// The value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.parameters().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn parameters(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        pieces(self.parameters, b';').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            Some((name.trim_matches([' ', '\t']), unquoted(value.trim_matches([' ', '\t']))))
        })
    }

    /// Whether it is this one: what parameters that one has, this one has, too.
    pub(super) fn is(&self, wanted: &model::MediaType) -> bool {
        let has = |name: &str, value: &str| {
            self.parameter(name).is_some_and(|known| known.eq_ignore_ascii_case(value))
        };
        self.essence.eq_ignore_ascii_case(&wanted.essence)
            && wanted.parameters.iter().all(|(name, value)| has(name, value))
    }

    /// How much it is wanted, in thousandths; nothing is nothing. What cannot be read does not count.
    fn quality(&self) -> u16 {
        self.parameter("q").map_or(1000, |text| thousandths(&text).unwrap_or(0))
    }
}

/// How much a client wants a media type by its Accept, in thousandths: 0 if it does not name it. Whoever accepts
/// anything has not asked for one of several versions, so ranges such as `*/*` do not count.
pub(super) fn accepted(headers: &HeaderMap, wanted: &model::MediaType) -> u16 {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges = lines.flat_map(|line| pieces(line, b',')).filter_map(|range| parse(range.as_bytes()));
    ranges.filter(|range| range.is(wanted)).map(|range| range.quality()).max().unwrap_or_default()
}

/// `0.5` is 500.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(digits),
        "1" if digits == 0 => Some(1000),
        _ => None,
    }
}

/// What stands between separators that are not in quotes.
fn pieces(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = is_quoted,
                b'"' => is_quoted = !is_quoted,
                _ => return byte == separator && !is_quoted,
            }
            false
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return Cow::Borrowed(value);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut chars = inner.chars();
    let mut text = String::with_capacity(inner.len());
    while let Some(char) = chars.next() {
        text.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_client_accepts_has_a_quality() {
        let v2 = "application/vnd.acme.v2+json";
        for (name, accept, wanted, expected) in [
            ("nothing", &[][..], v2, 0),
            ("this", &["application/vnd.acme.v2+json"], v2, 1000),
            ("in another case", &["Application/VND.acme.V2+json"], v2, 1000),
            ("another", &["application/json"], v2, 0),
            ("among others", &["text/html, application/vnd.acme.v2+json;q=0.7 , */*"], v2, 700),
            ("on another line", &["text/html", "application/vnd.acme.v2+json;q=0.25"], v2, 250),
            ("twice", &["application/vnd.acme.v2+json;q=0.2,application/vnd.acme.v2+json;q=0.3"], v2, 300),
            ("not", &["application/vnd.acme.v2+json;q=0"], v2, 0),
            ("not, in long", &["application/vnd.acme.v2+json;q=0.000"], v2, 0),
            ("just", &["application/vnd.acme.v2+json;q=0.001"], v2, 1),
            ("all of it", &["application/vnd.acme.v2+json; Q=1.000"], v2, 1000),
            ("more than all", &["application/vnd.acme.v2+json;q=1.001"], v2, 0),
            ("too many digits", &["application/vnd.acme.v2+json;q=0.5555"], v2, 0),
            ("no number", &["application/vnd.acme.v2+json;q=high"], v2, 0),
            ("a sign", &["application/vnd.acme.v2+json;q=-0.5"], v2, 0),
            ("anything", &["*/*"], v2, 0),
            ("any of a kind", &["application/*"], v2, 0),
            ("a parameter", &["application/json; version=2"], "application/json;version=2", 1000),
            ("another value of it", &["application/json;version=1"], "application/json;version=2", 0),
            ("no parameter", &["application/json"], "application/json;version=2", 0),
            (
                "one more parameter",
                &["application/json;version=2;x=y;q=0.5"],
                "application/json;version=2",
                500,
            ),
            ("quotes", &["application/json; version=\"2\""], "application/json;version=2", 1000),
            ("a comma in quotes", &["text/x;a=\"b,c\", application/json"], "application/json", 1000),
            ("its name in quotes", &["text/x;a=\"b,application/json,c\""], "application/json", 0),
            ("a quote in quotes", &["text/x;a=\"b\\\",application/json,c\""], "application/json", 0),
            ("a quote that stays open", &["text/x;a=\"b, application/json"], "application/json", 0),
            ("empty pieces", &[",, ,application/json,"], "application/json", 1000),
        ] {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            assert_eq!(accepted(&headers, &model::MediaType::new(wanted).unwrap()), expected, "{name}");
        }
    }
}
