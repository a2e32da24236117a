//! What the keys of routes are written in, beyond hosts and paths.

use gateway_kernel::feed::shown;
use http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use time::{Date, Month, OffsetDateTime};

use crate::config::reader::{Wrong, closest};
use crate::config::shape::Notation;
use crate::model::{FieldPart, FieldTemplate, MediaType, OriginPattern, Pattern, Pointer, Variable};

use super::proxy::{DnsName, check_path_bytes};

/// A regular expression.
pub(crate) struct Regex;

impl Notation for Regex {
    type Out = Pattern;

    fn parse(&self, text: &str) -> Result<Pattern, Wrong> {
        Pattern::new(text).map_err(Wrong::from)
    }

    fn noun(&self) -> String {
        "a regular expression".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "maxLength": Pattern::MAX_BYTES })
    }
}

/// Where a value is in a JSON text.
pub(crate) struct PointerTo;

impl Notation for PointerTo {
    type Out = Pointer;

    fn parse(&self, text: &str) -> Result<Pointer, Wrong> {
        Pointer::new(text).map_err(|why| match text.strip_prefix("$.") {
            // As JSONPath has it, which knows much more than a place.
            Some(path) if !path.is_empty() => Wrong::suggest(why, format!("/{}", path.replace('.', "/"))),
            _ => why.into(),
        })
    }

    fn noun(&self) -> String {
        "a JSON pointer such as /model".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/", "maxLength": Pointer::MAX_BYTES })
    }
}

/// A moment, as a day in UTC or to the second (RFC 3339, in UTC).
pub(crate) struct Moment;

impl Notation for Moment {
    type Out = OffsetDateTime;

    fn parse(&self, text: &str) -> Result<OffsetDateTime, Wrong> {
        moment(text).ok_or_else(|| format!("{} is not {}", shown(text), Notation::noun(self)).into())
    }

    fn noun(&self) -> String {
        "a day such as 2027-06-30 or a time such as 2027-06-30T22:00:00Z".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$" })
    }
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let numbers = |text: &str, separator: char, widths: [usize; 3]| {
        let mut parts = text.split(separator);
        let mut number = |width: usize| {
            let part = parts.next().filter(|part| part.len() == width)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
        };
        let numbers = [number(widths[0])?, number(widths[1])?, number(widths[2])?];
        parts.next().is_none().then_some(numbers)
    };
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time.strip_suffix('Z')?, ':', [2, 2, 2])?;
    let small = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let day = Date::from_calendar_date(i32::from(year), month, small(day)?).ok()?;
    Some(day.with_hms(small(hour)?, small(minute)?, small(second)?).ok()?.assume_utc())
}

/// Where something is to be read.
pub(crate) struct WebAddress;

impl Notation for WebAddress {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        // What would end it in a field of links, and what no address has (RFC 3986, section 2).
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte);
        if rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_plain)) && text.len() <= 1024 {
            return Ok(text.to_owned());
        }
        Err(format!("{} is not {}", shown(text), Notation::noun(self)).into())
    }

    fn noun(&self) -> String {
        "a URL such as https://example.com/changes".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^https?://", "maxLength": 1024 })
    }
}

/// A media type, perhaps with parameters.
pub(crate) struct MediaTypeName;

impl Notation for MediaTypeName {
    type Out = MediaType;

    fn parse(&self, text: &str) -> Result<MediaType, Wrong> {
        MediaType::new(text).map_err(Wrong::from)
    }

    fn noun(&self) -> String {
        "a media type such as application/json".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[^/*]+/[^*]+$" })
    }
}

/// The name of a header field.
pub(crate) struct FieldName;

impl Notation for FieldName {
    type Out = HeaderName;

    fn parse(&self, text: &str) -> Result<HeaderName, Wrong> {
        let lower = text.to_ascii_lowercase();
        HeaderName::from_bytes(lower.as_bytes())
            .map_err(|_| format!("{} is not the name of a header field", shown(text)).into())
    }

    fn noun(&self) -> String {
        "a header field such as x-version".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// The value of a header field.
pub(crate) struct FieldValue;

impl Notation for FieldValue {
    type Out = HeaderValue;

    fn parse(&self, text: &str) -> Result<HeaderValue, Wrong> {
        HeaderValue::from_str(text).map_err(|_| {
            format!("{} cannot be the value of a header field: it is one line of ASCII", shown(text)).into()
        })
    }

    fn noun(&self) -> String {
        "the value of a header field".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// The name of a cookie (RFC 6265, section 4.1.1).
pub(crate) struct CookieName;

impl Notation for CookieName {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(is_token) {
            return Err(format!("{} is not the name of a cookie", shown(text)).into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        "a cookie".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "maxLength": 128 })
    }
}

/// Any text of one line, not empty and with at most so many bytes.
pub(crate) struct RawText(pub(crate) usize);

impl Notation for RawText {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        if text.is_empty() || text.len() > self.0 {
            return Err(format!("a name has 1 to {} bytes here, this one has {}", self.0, text.len()).into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        "a name".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "maxLength": self.0 })
    }
}

/// Any text of at most so many bytes.
pub(crate) struct FreeText(pub(crate) usize);

impl Notation for FreeText {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        if text.len() > self.0 {
            return Err(format!("the text has {} bytes; at most {} are allowed", text.len(), self.0).into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        format!("a text of at most {} bytes", self.0)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "maxLength": self.0 })
    }
}

/// A host that stands in the place of another, perhaps with a port.
pub(crate) struct NewHost;

impl Notation for NewHost {
    type Out = HeaderValue;

    fn parse(&self, text: &str) -> Result<HeaderValue, Wrong> {
        let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
        match DnsName.parse(name) {
            Ok(_) if port_is_good => FieldValue.parse(&text.to_ascii_lowercase()),
            _ => Err(format!("{} is no host, nor a host and a port", shown(text)).into()),
        }
    }

    fn noun(&self) -> String {
        "a host such as users.internal or users.internal:8080".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// A path that stands in the place of another.
pub(crate) struct NewPath;

impl Notation for NewPath {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        check_path_bytes(text)?;
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("a path has no `.` or `..` segments".into());
        }
        Ok(text.to_owned())
    }

    fn noun(&self) -> String {
        "a path such as /v2/users".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/[^?#*\\s]*$", "maxLength": 1024 })
    }
}

/// The value of a header field, perhaps with variables in braces.
pub(crate) struct Template;

impl Notation for Template {
    type Out = FieldTemplate;

    fn parse(&self, text: &str) -> Result<FieldTemplate, Wrong> {
        FieldValue.parse(text)?;
        let (mut parts, mut fixed, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            fixed.push_str(before);
            if let Some(behind) = behind.strip_prefix('{') {
                fixed.push('{');
                rest = behind;
                continue;
            }
            let Some((name, behind)) = behind.split_once('}') else {
                return Err(format!(
                    "a `{{` in {} has no `}}`; a brace itself is written twice",
                    shown(text)
                )
                .into());
            };
            let Some((_, variable)) = Variable::ALL.iter().find(|(known, _)| *known == name) else {
                let names = Variable::ALL.map(|(name, _)| name);
                return Err(Wrong {
                    message: format!("there is no variable {{{}}}", shown(name)),
                    suggestion: closest(name, names.into_iter()).map(|name| format!("{{{name}}}")),
                    valid: names.map(|name| format!("{{{name}}}")).to_vec(),
                });
            };
            parts.extend((!fixed.is_empty()).then(|| FieldPart::Text(std::mem::take(&mut fixed))));
            parts.push(FieldPart::Variable(*variable));
            rest = behind;
        }
        fixed.push_str(rest);
        if parts.is_empty() {
            return FieldValue.parse(&fixed).map(FieldTemplate::Fixed);
        }
        parts.extend((!fixed.is_empty()).then_some(FieldPart::Text(fixed)));
        Ok(FieldTemplate::Made(parts))
    }

    fn noun(&self) -> String {
        "the value of a header field".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// An origin of pages.
pub(crate) struct Origin;

impl Notation for Origin {
    type Out = OriginPattern;

    fn parse(&self, text: &str) -> Result<OriginPattern, Wrong> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "*" => return Ok(OriginPattern::Any),
            "null" => return Ok(OriginPattern::Exact(lower)),
            _ => {}
        }
        let wrong = || Wrong::from(format!("{} is not {}", shown(text), Notation::noun(self)));
        let (scheme, host) = lower.split_once("://").ok_or_else(wrong)?;
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return Err(wrong());
        }
        if let Some(host) = host.strip_suffix('/') {
            return Err(Wrong::suggest("an origin has no slash at its end", format!("{scheme}://{host}")));
        }
        let (wildcard, rest) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        NewHost.parse(rest).map_err(|_| wrong())?;
        Ok(if wildcard {
            OriginPattern::Wildcard(format!("{scheme}://"), format!(".{rest}"))
        } else {
            OriginPattern::Exact(lower)
        })
    }

    fn noun(&self) -> String {
        "an origin such as https://app.example.com or https://*.example.com, or `*`".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}
