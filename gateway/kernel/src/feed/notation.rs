//! The small notations that list files share with the command line and the configuration: prefixes,
//! durations and rule labels. Pure: text in, a value or a sentence out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

/// Bytes of a rule's label, which becomes the value of a metric's label.
pub const MAX_LABEL_BYTES: usize = 63;
/// The longest duration anywhere: ten years, far from where a clock in nanoseconds overflows.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);
/// Characters of an offending text that an error repeats.
pub(super) const MAX_SHOWN_CHARS: usize = 60;

const _: () = assert!(MAX_DURATION.as_nanos() < u64::MAX as u128 / 2);

/// Why a text is not a prefix, and which one may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPrefix {
    /// What is wrong, with the text itself.
    pub why: String,
    /// The prefix that was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for BadPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suggestion {
            Some(suggestion) => write!(out, "{}; did you mean {suggestion}?", self.why),
            None => out.write_str(&self.why),
        }
    }
}

impl std::error::Error for BadPrefix {}

/// Reads an address or a prefix, and refuses what would silently mean something else: host bits, an
/// IPv4 address dressed as IPv6 (whose packets are IPv4 and would never match), the whole internet.
///
/// # Errors
/// What is wrong and, where it can be told, what was meant.
pub fn read_prefix(text: &str) -> Result<IpNet, BadPrefix> {
    scan_prefix(text, false).map_err(|fault| fault.explain(text))
}

/// [`read_prefix`] that leaves the sentence for later: a file of millions of bad lines keeps a hundred.
pub(super) fn scan_prefix(text: &str, allow_everything: bool) -> Result<IpNet, Fault> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = address.parse::<IpAddr>().map_err(|_| Fault::NotAPrefix)?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(digits) => {
            read_length(digits).filter(|&length| length <= longest).ok_or(Fault::Length { longest })?
        }
    };
    judge(IpNet::new_assert(address, length), allow_everything)
}

/// Refuses a prefix that would silently mean something else.
pub(super) fn judge(prefix: IpNet, allow_everything: bool) -> Result<IpNet, Fault> {
    if let IpNet::V6(v6) = prefix
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        return Err(Fault::Mapped { v4, length: v6.prefix_len() - 96 });
    }
    if prefix.prefix_len() == 0 && !allow_everything {
        return Err(Fault::Everything);
    }
    if prefix.addr() != prefix.network() {
        return Err(Fault::HostBits { meant: prefix.trunc() });
    }
    Ok(prefix)
}

/// What is wrong with a prefix, before anybody asks for the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not even an address.
    NotAPrefix,
    /// The length is not a number up to the longest.
    Length { longest: u8 },
    /// IPv4 dressed as IPv6.
    Mapped { v4: Ipv4Addr, length: u8 },
    /// A length of 0.
    Everything,
    /// Bits behind the length.
    HostBits { meant: IpNet },
}

impl Fault {
    pub(super) fn explain(self, text: &str) -> BadPrefix {
        let text = shown(text);
        let (why, suggestion) = match self {
            Fault::NotAPrefix => (format!("{text} is not an address or a prefix"), None),
            Fault::Length { longest } => {
                (format!("the prefix length of {text} is not a number from 1 to {longest}"), None)
            }
            Fault::Mapped { v4, length } => {
                let why = format!("{text} is IPv4 mapped into IPv6, and its packets are IPv4");
                (why, unmapped(v4, length))
            }
            Fault::Everything => (format!("{text} covers every address there is"), None),
            Fault::HostBits { meant } => (format!("{text} has host bits set"), Some(meant.to_string())),
        };
        BadPrefix { why, suggestion }
    }
}

/// [`read_prefix`] with the suggestion in the sentence, for command-line arguments.
///
/// # Errors
/// One sentence.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    read_prefix(text).map_err(|bad| bad.to_string())
}

/// Reads a duration: numbers with units from the largest to the smallest, as in `1h30m` or `250ms`.
/// Zero is a duration; whoever cannot use it refuses it.
///
/// # Errors
/// One sentence; a bare number is told to take a unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let malformed =
        || format!("{} is not a duration; write one like 30s, 1h30m or 250ms (ms, s, m, h, d)", shown(text));
    if text.is_empty() {
        return Err(malformed());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} has no unit; add a unit, such as {}s", shown(text), shown(text)));
    }
    let too_long = || format!("{} is too long; the longest duration is 3650d", shown(text));
    let (mut rest, mut smallest, mut millis) = (text, 0, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let Some(rank) = UNITS.iter().position(|(name, _)| *name == unit) else { return Err(malformed()) };
        if number.is_empty() || rank < smallest {
            return Err(malformed());
        }
        let number: u64 = number.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(UNITS[rank].1).ok_or_else(too_long)?;
        millis = millis.checked_add(part).ok_or_else(too_long)?;
        (rest, smallest) = (tail, rank + 1);
    }
    let duration = Duration::from_millis(millis);
    if duration > MAX_DURATION { Err(too_long()) } else { Ok(duration) }
}

/// Reads a time to live, in milliseconds; it is never 0.
pub(super) fn read_ttl(text: &str) -> Result<u64, String> {
    let ttl = parse_duration(text)?;
    if ttl.is_zero() {
        return Err("a time to live of 0 would be over before it began".to_owned());
    }
    Ok(millis(ttl))
}

/// No duration that is allowed comes near the limit of the number.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a text can be a rule's label: what a terminal, a metric and a log line show as it is.
///
/// # Errors
/// One sentence, without the text.
pub fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() || label.len() > MAX_LABEL_BYTES {
        return Err(format!("a label has 1 to {MAX_LABEL_BYTES} bytes, this one has {}", label.len()));
    }
    if !label.chars().all(is_printable) {
        return Err("a label has no control characters".to_owned());
    }
    Ok(())
}

/// Whether a character shows as itself: no control character, no line or paragraph separator, and none
/// of the marks that reorder the text around them.
pub fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
/// Digits only, where the standard parser would take a sign too.
fn read_length(digits: &str) -> Option<u8> {
    let plain = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn unmapped(v4: Ipv4Addr, length: u8) -> Option<String> {
    match Ipv4Net::new(v4, length) {
        Ok(_) if length == 32 => Some(v4.to_string()),
        Ok(prefix) if length > 0 => Some(prefix.trunc().to_string()),
        _ => None,
    }
}

/// Bytes as an error repeats them.
pub(super) fn printable(bytes: &[u8]) -> String {
    // Four bytes are the longest character, so this much is enough whatever the bytes are.
    let head = &bytes[..bytes.len().min(4 * (MAX_SHOWN_CHARS + 1))];
    shown(&String::from_utf8_lossy(head))
}

/// A text as an error repeats it: shortened, and nothing in it that a terminal would obey.
pub fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars
        .by_ref()
        .take(MAX_SHOWN_CHARS)
        .map(|char| if is_printable(char) { char } else { char::REPLACEMENT_CHARACTER })
        .collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_and_order() {
        let table: &[(&str, Result<u64, &str>)] = &[
            ("250ms", Ok(250)),
            ("0s", Ok(0)),
            ("30s", Ok(30_000)),
            ("1h30m", Ok(5_400_000)),
            ("1d1h1m1s1ms", Ok(90_061_001)),
            ("3650d", Ok(315_360_000_000)),
            ("", Err(" is not a duration")),
            ("30", Err("30 has no unit; add a unit, such as 30s")),
            ("s", Err("s is not a duration")),
            ("30 s", Err("30 s is not a duration")),
            ("1m1h", Err("1m1h is not a duration")),
            ("1s1s", Err("1s1s is not a duration")),
            ("1s5", Err("1s5 is not a duration")),
            ("1.5s", Err("1.5s is not a duration")),
            ("-1s", Err("-1s is not a duration")),
            ("1w", Err("1w is not a duration")),
            ("3651d", Err("3651d is too long")),
            ("99999999999999999999s", Err("is too long")),
            ("18446744073709551615d", Err("is too long")),
        ];
        for (text, expected) in table {
            match (parse_duration(text), expected) {
                (Ok(duration), Ok(millis)) => assert_eq!(duration.as_millis() as u64, *millis, "{text}"),
                (Err(why), Err(fragment)) => assert!(why.contains(fragment), "{text}: {why}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
