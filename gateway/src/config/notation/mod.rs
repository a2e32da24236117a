//! How single values are written: durations, sizes, counts, addresses, names, paths.

mod llm;
mod proxy;
mod routes;
mod upstream;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use gateway_kernel::feed::{self, is_printable, shown};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use crate::config::reader::Wrong;
use crate::config::shape::Notation;

pub(crate) use llm::{ApiKey, BaseUrl, ModelName, ModelPattern, Secret};
pub(crate) use proxy::{DnsName, Host, METHODS, MethodName, Pattern, ProtocolName, Server};
pub(crate) use routes::{
    CookieName, FieldName, FieldValue, FreeText, MediaTypeName, Moment, NewHost, NewPath, Origin, PointerTo,
    RawText, Regex, Template, WebAddress,
};
pub(crate) use upstream::{Cause, HostField, NameServer, Part, RetryCause, Service, Statuses, Target};

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

/// A part of a whole in percent, as parts of a million.
pub(crate) struct Portion;

impl Notation for Portion {
    type Out = u32;

    fn parse(&self, text: &str) -> Result<u32, Wrong> {
        let wrong = format!("{} is not a share; expected {}", shown(text), Notation::noun(self));
        let Some(number) = text.strip_suffix('%') else { return Err(unit_missing(text, "%", wrong)) };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(part, 4) {
            return Err(wrong.into());
        }
        // One percent is 10,000 of a million: four digits.
        let millionths = format!("{whole}{part:0<4}").parse().ok();
        millionths.filter(|share| *share <= 1_000_000).ok_or_else(|| wrong.into())
    }

    fn noun(&self) -> String {
        "a share from 0% to 100%".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{1,3}([.][0-9]{1,4})?%$" })
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
