//! Plain text: a line holds an address or a prefix, then attributes: `reason=TEXT`, `ttl=10m`, `shadow`.
//! Comments begin with `#` or `;`, so the lists that Spamhaus, FireHOL and others publish are read as they
//! are.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use memchr::memchr;

use super::notation::{read_ttl, scan_prefix, shown};
use super::{MAX_LINE_BYTES, NO_LABEL, NOTHING_SAID, Options, Reading, Refused, Said};

pub(super) fn read(bytes: &[u8], reading: &mut Reading) {
    let (mut rest, mut number) = (bytes, 1);
    while !rest.is_empty() {
        if let Some((prefix, used)) = bare_v4(rest) {
            reading.add(number, IpNet::V4(prefix), NOTHING_SAID);
            rest = &rest[used..];
        } else {
            let (line, after) = next_line(rest);
            if let Err(refused) = read_line(number, line, reading) {
                reading.refuse(number, refused);
            }
            rest = after;
        }
        number += 1;
    }
}

/// Whether a line is one of plain text.
pub(super) fn can_read(line: &[u8]) -> bool {
    let mut trial = Reading::new(Options { allow_everything: true });
    read_line(1, line, &mut trial).is_ok()
}

/// The first line without its end, and what follows it.
pub(super) fn next_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b""[..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// A line that is nothing but `a.b.c.d` or `a.b.c.d/n`, and how many bytes it takes. Most lines of most
/// lists are, and this is several times faster than [`read_line`], which must say the same; whatever is
/// unusual is left to it.
fn bare_v4(bytes: &[u8]) -> Option<(Ipv4Net, usize)> {
    let (mut bits, mut at) = (0u32, 0);
    for index in 0..4 {
        if index > 0 {
            at = skip(bytes, at, b'.')?;
        }
        let (octet, after) = number(bytes, at)?;
        bits = bits << 8 | u32::from(octet);
        at = after;
    }
    let mut length = 32;
    if let Some(digits) = skip(bytes, at, b'/') {
        (length, at) = number(bytes, digits)?;
    }
    if length == 0 {
        return None;
    }
    at = match bytes.get(at) {
        None => at,
        Some(b'\n') => at + 1,
        Some(b'\r') => skip(bytes, at + 1, b'\n')?,
        Some(_) => return None,
    };
    let prefix = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).ok()?;
    (prefix.network() == prefix.addr()).then_some((prefix, at))
}

fn skip(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// A number up to 255 without leading zeros.
fn number(bytes: &[u8], start: usize) -> Option<(u8, usize)> {
    let (mut value, mut at) = (0u16, start);
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        if at - start == 3 {
            return None;
        }
        value = value * 10 + u16::from(digit);
        at += 1;
    }
    let plain = at > start && (bytes[start] != b'0' || at == start + 1);
    plain.then(|| u8::try_from(value).ok()).flatten().map(|value| (value, at))
}

fn read_line<'a>(number: usize, line: &'a [u8], reading: &mut Reading) -> Result<(), Refused<'a>> {
    let text = checked_text(line)?;
    let text = text.trim_ascii();
    let end = text.bytes().position(|byte| matches!(byte, b' ' | b'\t' | b'#' | b';')).unwrap_or(text.len());
    let (address, rest) = text.split_at(end);
    if address.is_empty() {
        return Ok(());
    }
    let prefix = scan_prefix(address, reading.options.allow_everything)
        .map_err(|fault| Refused::prefix(address, fault))?;
    let said = read_attributes(rest, reading)?;
    reading.add(number, prefix, said);
    Ok(())
}

/// A line of a length that a list may have, as text.
pub(super) fn checked_text(line: &[u8]) -> Result<&str, Refused<'_>> {
    if line.len() > MAX_LINE_BYTES {
        let why = format!("a line has at most {MAX_LINE_BYTES} bytes, this one has {}", line.len());
        return Err(Refused::new(line, why));
    }
    std::str::from_utf8(line).map_err(|_| Refused::foreign(line, "the line is not UTF-8"))
}

fn read_attributes<'a>(text: &'a str, reading: &mut Reading) -> Result<Said, Refused<'a>> {
    let mut said = NOTHING_SAID;
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() && !rest.starts_with(['#', ';']) {
        let (word, tail) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
        let refuse = |why: String| Refused::new(word.as_bytes(), why);
        if word.starts_with("reason=\"") {
            let (reason, tail) = read_quoted(&rest["reason=".len()..])
                .ok_or_else(|| Refused::new(rest.as_bytes(), "the reason is not a JSON string"))?;
            if !tail.is_empty() && !tail.starts_with([' ', '\t']) {
                return Err(Refused::new(rest.as_bytes(), "a space must follow the closing quote"));
            }
            set_reason(&mut said, &reason, reading).map_err(refuse)?;
            rest = tail.trim_ascii_start();
            continue;
        }
        match word.split_once('=') {
            Some(("reason", reason)) => set_reason(&mut said, reason, reading).map_err(refuse)?,
            Some(("ttl", ttl)) => {
                let ttl_ms = read_ttl(ttl).map_err(refuse)?;
                if std::mem::replace(&mut said.ttl_ms, ttl_ms) != 0 {
                    return Err(refuse("ttl is given twice".to_owned()));
                }
            }
            None if word == "shadow" => said.shadow = true,
            _ => {
                let why = format!(
                    "{} is not an attribute; after a prefix may stand reason=TEXT, ttl=10m, shadow, or a \
                     comment that begins with # or ;",
                    shown(word)
                );
                return Err(refuse(why));
            }
        }
        rest = tail.trim_ascii_start();
    }
    Ok(said)
}

fn set_reason(said: &mut Said, reason: &str, reading: &mut Reading) -> Result<(), String> {
    if said.label != NO_LABEL {
        return Err("reason is given twice".to_owned());
    }
    said.label = reading.label(reason)?;
    Ok(())
}

/// A JSON string at the beginning of a text, and what follows it.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = strings.next()?.ok()?;
    let end = strings.byte_offset();
    Some((value, text.get(end..)?))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Appends one line that [`parse`](super::parse) reads back as it is. The reason must be a valid label; a time to
/// live is written in whole milliseconds, rounded up.
pub fn write_line(
    out: &mut String,
    prefix: IpNet,
    reason: Option<&str>,
    ttl: Option<Duration>,
    shadow: bool,
) {
    // Writing to a String cannot fail.
    let _ = if prefix.prefix_len() == prefix.max_prefix_len() {
        write!(out, "{}", prefix.addr())
    } else {
        write!(out, "{prefix}")
    };
    if let Some(reason) = reason {
        let plain = !reason.is_empty() && !reason.starts_with('"') && !reason.contains(char::is_whitespace);
        let _ =
            if plain { write!(out, " reason={reason}") } else { write!(out, " reason={}", quoted(reason)) };
    }
    if let Some(ttl) = ttl {
        let millis = ttl.as_nanos().div_ceil(1_000_000);
        let _ = if millis.is_multiple_of(1000) {
            write!(out, " ttl={}s", millis / 1000)
        } else {
            write!(out, " ttl={millis}ms")
        };
    }
    if shadow {
        out.push_str(" shadow");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines like those that [`bare_v4`] takes, and like those that it must not.
    fn any_line() -> impl Strategy<Value = String> {
        let near = proptest::string::string_regex(
            "(0|[1-9][0-9]{0,2}|00?1|256)(\\.(0|[1-9][0-9]{0,2}|012)){2,4}(/[0-9]{0,3})?[ \r\t#x]?",
        )
        .expect("a pattern");
        let exact = (any::<u32>(), 0..=33u8, any::<bool>()).prop_map(|(bits, length, masked)| {
            let mask = if masked {
                u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
            } else {
                u32::MAX
            };
            format!("{}/{length}", Ipv4Addr::from_bits(bits & mask))
        });
        let address = any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_string());
        prop_oneof![near, exact, address]
    }

    proptest! {
        #[test]
        fn the_fast_path_says_what_the_other_says(line in any_line(), end in "(\n|\r\n|\r)?", more in "(192.0.2.1)?") {
            let file = format!("{line}{end}{more}");
            if let Some((prefix, used)) = bare_v4(file.as_bytes()) {
                let (text, rest) = next_line(file.as_bytes());
                let mut reading = Reading::new(Options::default());
                prop_assert!(read_line(1, text, &mut reading).is_ok(), "{file:?}");
                prop_assert_eq!(reading.feed.entries.len(), 1);
                prop_assert_eq!(reading.feed.entries[0].prefix, IpNet::V4(prefix));
                prop_assert_eq!(&file.as_bytes()[used..], rest);
            }
        }

        #[test]
        fn the_fast_path_takes_what_it_is_for(bits: u32, length in 1..=32u8, whole: bool) {
            let prefix = Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length).trunc();
            let text = if whole { prefix.to_string() } else { prefix.addr().to_string() };
            let expected = if whole { prefix } else { prefix.addr().into() };
            prop_assert_eq!(bare_v4(text.as_bytes()), Some((expected, text.len())));
        }
    }
}
