//! List files in plain text, and the small notations they share with the command line and the
//! configuration: prefixes, durations and rule labels. Pure: bytes in, entries and errors out.
//!
//! A line holds an address or a prefix, then attributes: `reason=TEXT`, `ttl=10m`, `shadow`. Comments
//! begin with `#` or `;`, so the lists that Spamhaus, FireHOL and others publish are read as they are.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

/// Errors kept of one file; the rest is only counted, for a wrong file would make one a line.
pub const MAX_ERRORS: usize = 100;
/// Bytes of one line. A longer one is not a list's line, whatever it begins with.
pub const MAX_LINE_BYTES: usize = 4096;
/// Bytes of a rule's label, which becomes the value of a metric's label.
pub const MAX_LABEL_BYTES: usize = 63;
/// The longest duration anywhere: ten years, far from where a clock in nanoseconds overflows.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);
/// Characters of an offending text that an error repeats.
const MAX_SHOWN_CHARS: usize = 60;

const _: () = assert!(MAX_DURATION.as_nanos() < u64::MAX as u128 / 2);

/// What a list file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// The lines that could be read, in order. A prefix may stand twice: the last one counts.
    pub entries: Vec<FeedEntry>,
    /// The first [`MAX_ERRORS`] lines that could not.
    pub errors: Vec<FeedError>,
    /// All lines that could not, those not kept included.
    pub error_count: usize,
}

/// One line that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its number, from 1.
    pub line: usize,
    /// What it covers; host bits are zero.
    pub prefix: IpNet,
    /// A valid label, if one is given.
    pub reason: Option<String>,
    /// How long it holds, if not until it is deleted.
    pub ttl: Option<Duration>,
    /// Count what it would drop, and let it pass.
    pub shadow: bool,
}

/// One line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedError {
    /// Its number, from 1.
    pub line: usize,
    /// The offending part of it, shortened and printable.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// Reads a whole list file, every line of it whatever is wrong with the others.
pub fn parse(bytes: &[u8]) -> Feed {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut feed = Feed::default();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(index + 1, line) {
            Ok(entry) => feed.entries.extend(entry),
            Err((text, why)) => {
                feed.error_count += 1;
                if feed.errors.len() < MAX_ERRORS {
                    feed.errors.push(FeedError { line: index + 1, text: printable(text), why });
                }
            }
        }
    }
    feed
}

/// Appends one line that [`parse`] reads back as it is. The reason must be a valid label; a time to
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
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let no_suggestion = |why: String| BadPrefix { why, suggestion: None };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(no_suggestion(format!("{} is not an address or a prefix", shown(text))));
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(digits) => match read_length(digits).filter(|&length| length <= longest) {
            Some(length) => length,
            None => {
                let why = format!("the prefix length of {} is not a number from 1 to {longest}", shown(text));
                return Err(no_suggestion(why));
            }
        },
    };
    if let IpAddr::V6(v6) = address
        && length >= 96
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(mapped(text, v4, length - 96));
    }
    if length == 0 {
        return Err(no_suggestion(format!("{} covers every address there is", shown(text))));
    }
    let prefix = IpNet::new_assert(address, length);
    if prefix.addr() != prefix.network() {
        return Err(BadPrefix {
            why: format!("{} has host bits set", shown(text)),
            suggestion: Some(prefix.trunc().to_string()),
        });
    }
    Ok(prefix)
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

/// What is wrong with a line: the offending part of it, and why.
type Refused<'a> = (&'a [u8], String);

fn parse_line(number: usize, line: &[u8]) -> Result<Option<FeedEntry>, Refused<'_>> {
    if line.len() > MAX_LINE_BYTES {
        return Err((
            line,
            format!("a line has at most {MAX_LINE_BYTES} bytes, this one has {}", line.len()),
        ));
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Err((line, "the line is not UTF-8".to_owned()));
    };
    let text = text.trim_ascii();
    let end = text.bytes().position(|byte| matches!(byte, b' ' | b'\t' | b'#' | b';')).unwrap_or(text.len());
    let (address, rest) = text.split_at(end);
    if address.is_empty() {
        return Ok(None);
    }
    let prefix = parse_prefix(address).map_err(|why| (address.as_bytes(), why))?;
    let mut entry = FeedEntry { line: number, prefix, reason: None, ttl: None, shadow: false };
    parse_attributes(rest, &mut entry)?;
    Ok(Some(entry))
}

fn parse_attributes<'a>(text: &'a str, entry: &mut FeedEntry) -> Result<(), Refused<'a>> {
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() && !rest.starts_with(['#', ';']) {
        let (word, tail) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
        let refuse = |why: String| (word.as_bytes(), why);
        if word.starts_with("reason=\"") {
            let (reason, tail) = read_quoted(&rest["reason=".len()..])
                .ok_or_else(|| (rest.as_bytes(), "the reason is not a JSON string".to_owned()))?;
            if !tail.is_empty() && !tail.starts_with([' ', '\t']) {
                return Err((rest.as_bytes(), "a space must follow the closing quote".to_owned()));
            }
            set(&mut entry.reason, checked_label(reason).map_err(refuse)?, "reason").map_err(refuse)?;
            rest = tail.trim_ascii_start();
            continue;
        }
        match word.split_once('=') {
            Some(("reason", reason)) => {
                let reason = checked_label(reason.to_owned()).map_err(refuse)?;
                set(&mut entry.reason, reason, "reason").map_err(refuse)?;
            }
            Some(("ttl", ttl)) => {
                let ttl = parse_duration(ttl).map_err(refuse)?;
                if ttl.is_zero() {
                    return Err(refuse("a time to live of 0 would be over before it began".to_owned()));
                }
                set(&mut entry.ttl, ttl, "ttl").map_err(refuse)?;
            }
            None if word == "shadow" => entry.shadow = true,
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
    Ok(())
}

fn set<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is given twice")),
    }
}

fn checked_label(label: String) -> Result<String, String> {
    check_label(&label).map(|()| label)
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

/// Digits only, where the standard parser would take a sign too.
fn read_length(digits: &str) -> Option<u8> {
    let plain = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn mapped(text: &str, v4: Ipv4Addr, length: u8) -> BadPrefix {
    let suggestion = match Ipv4Net::new(v4, length) {
        Ok(_) if length == 32 => Some(v4.to_string()),
        Ok(prefix) if length > 0 => Some(prefix.trunc().to_string()),
        _ => None,
    };
    BadPrefix {
        why: format!("{} is IPv4 mapped into IPv6, and its packets are IPv4", shown(text)),
        suggestion,
    }
}

fn printable(bytes: &[u8]) -> String {
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
    use proptest::prelude::*;

    use super::*;

    /// What a table expects of one file, in one string: entries as they are exported, then errors.
    fn summary(bytes: &[u8]) -> String {
        let feed = parse(bytes);
        assert_eq!(feed.errors.len(), feed.error_count.min(MAX_ERRORS));
        let mut out = String::new();
        for entry in &feed.entries {
            let _ = write!(out, "{}: ", entry.line);
            write_line(&mut out, entry.prefix, entry.reason.as_deref(), entry.ttl, entry.shadow);
        }
        for error in &feed.errors {
            let _ = writeln!(out, "{}! {} | {}", error.line, error.text, error.why);
        }
        out
    }

    #[test]
    fn files_are_read_line_by_line() {
        let table: &[(&str, &[u8], &str)] = &[
            ("empty", b"", ""),
            ("blank and comments", b"\n  \n# a\n; b\n\t# c\n", ""),
            ("address", b"192.0.2.1", "1: 192.0.2.1\n"),
            ("prefix", b"192.0.2.0/24\n", "1: 192.0.2.0/24\n"),
            ("v6", b"2001:db8::/32\n2001:DB8::1\n", "1: 2001:db8::/32\n2: 2001:db8::1\n"),
            ("BOM and CRLF", b"\xef\xbb\xbf192.0.2.1\r\n192.0.2.2\r\n", "1: 192.0.2.1\n2: 192.0.2.2\n"),
            ("Spamhaus", b"192.0.2.0/24 ; SBL1\n", "1: 192.0.2.0/24\n"),
            ("comment at once", b"192.0.2.1# x\n192.0.2.2;y", "1: 192.0.2.1\n2: 192.0.2.2\n"),
            ("twice", b"192.0.2.1\n192.0.2.1 shadow", "1: 192.0.2.1\n2: 192.0.2.1 shadow\n"),
            (
                "attributes",
                b"192.0.2.1 shadow\tttl=1h30m reason=a#b;c # x",
                "1: 192.0.2.1 reason=a#b;c ttl=5400s shadow\n",
            ),
            (
                "quoted",
                br#"192.0.2.1 reason="a # \"b\" \u00e9""#,
                "1: 192.0.2.1 reason=\"a # \\\"b\\\" é\"\n",
            ),
            (
                "quoted and more",
                br#"192.0.2.1 reason="a b"  ttl=540s"#,
                "1: 192.0.2.1 reason=\"a b\" ttl=540s\n",
            ),
            ("garbage", b"x\n192.0.2.1\n", "2: 192.0.2.1\n1! x | x is not an address or a prefix\n"),
            (
                "host bits",
                b"198.51.100.7/24",
                "1! 198.51.100.7/24 | 198.51.100.7/24 has host bits set; did you mean 198.51.100.0/24?\n",
            ),
            (
                "mapped",
                b"::ffff:192.0.2.1\n::ffff:192.0.2.1/120\n::ffff:0:0/96",
                "1! ::ffff:192.0.2.1 | ::ffff:192.0.2.1 is IPv4 mapped into IPv6, and its packets are IPv4; did you mean 192.0.2.1?\n\
                 2! ::ffff:192.0.2.1/120 | ::ffff:192.0.2.1/120 is IPv4 mapped into IPv6, and its packets are IPv4; did you mean 192.0.2.0/24?\n\
                 3! ::ffff:0:0/96 | ::ffff:0:0/96 is IPv4 mapped into IPv6, and its packets are IPv4\n",
            ),
            (
                "everything",
                b"0.0.0.0/0\n::/0",
                "1! 0.0.0.0/0 | 0.0.0.0/0 covers every address there is\n2! ::/0 | ::/0 covers every address there is\n",
            ),
            (
                "length",
                b"192.0.2.0/33\n192.0.2.0/+8\n192.0.2.0/\n2001:db8::/129",
                "1! 192.0.2.0/33 | the prefix length of 192.0.2.0/33 is not a number from 1 to 32\n\
                 2! 192.0.2.0/+8 | the prefix length of 192.0.2.0/+8 is not a number from 1 to 32\n\
                 3! 192.0.2.0/ | the prefix length of 192.0.2.0/ is not a number from 1 to 32\n\
                 4! 2001:db8::/129 | the prefix length of 2001:db8::/129 is not a number from 1 to 128\n",
            ),
            ("not UTF-8", b"192.0.2.1 \xff\n", "1! 192.0.2.1 \u{fffd} | the line is not UTF-8\n"),
            ("escape sequence", b"\x1b[2J\n", "1! \u{fffd}[2J | \u{fffd}[2J is not an address or a prefix\n"),
            (
                "unknown attribute",
                b"192.0.2.1 SBL1",
                "1! SBL1 | SBL1 is not an attribute; after a prefix may stand reason=TEXT, ttl=10m, shadow, or a comment that begins with # or ;\n",
            ),
            ("ttl without unit", b"192.0.2.1 ttl=5", "1! ttl=5 | 5 has no unit; add a unit, such as 5s\n"),
            (
                "ttl of zero",
                b"192.0.2.1 ttl=0s",
                "1! ttl=0s | a time to live of 0 would be over before it began\n",
            ),
            ("ttl twice", b"192.0.2.1 ttl=1s ttl=2s", "1! ttl=2s | ttl is given twice\n"),
            ("open quote", b"192.0.2.1 reason=\"a b", "1! reason=\"a b | the reason is not a JSON string\n"),
            (
                "quote then text",
                b"192.0.2.1 reason=\"a\"b",
                "1! reason=\"a\"b | a space must follow the closing quote\n",
            ),
            (
                "control in a reason",
                br#"192.0.2.1 reason="\n""#,
                "1! reason=\"\\n\" | a label has no control characters\n",
            ),
            (
                "empty reason",
                b"192.0.2.1 reason=",
                "1! reason= | a label has 1 to 63 bytes, this one has 0\n",
            ),
        ];
        for (name, bytes, expected) in table {
            assert_eq!(summary(bytes), *expected, "{name}");
        }
    }

    #[test]
    fn long_lines_and_many_errors_are_bounded() {
        let long = vec![b'1'; MAX_LINE_BYTES + 1];
        assert_eq!(
            parse(&long).errors[0].why,
            format!("a line has at most {MAX_LINE_BYTES} bytes, this one has {}", MAX_LINE_BYTES + 1)
        );
        assert_eq!(parse(&long).errors[0].text.chars().count(), MAX_SHOWN_CHARS + 1);
        let feed = parse(&b"x\n".repeat(1000));
        assert_eq!((feed.errors.len(), feed.error_count), (MAX_ERRORS, 1000));
    }

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

    fn any_prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 1..=32u8)
            .prop_map(|(bits, length)| IpNet::new_assert(Ipv4Addr::from(bits).into(), length).trunc());
        let v6 = (any::<u128>(), 1..=128u8).prop_map(|(bits, length)| {
            IpNet::new_assert(std::net::Ipv6Addr::from(bits).into(), length).trunc()
        });
        prop_oneof![v4, v6]
            .prop_filter("neither mapped nor everything", |net| read_prefix(&net.to_string()).is_ok())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            prefix in any_prefix(),
            reason in proptest::option::of("[ -~éß\u{4e00}]{1,21}"),
            ttl in proptest::option::of(1..=MAX_DURATION.as_millis() as u64),
            shadow: bool,
        ) {
            let ttl = ttl.map(Duration::from_millis);
            let mut text = String::new();
            write_line(&mut text, prefix, reason.as_deref(), ttl, shadow);
            let feed = parse(text.as_bytes());
            prop_assert_eq!(feed.errors, vec![]);
            prop_assert_eq!(feed.entries, vec![FeedEntry { line: 1, prefix, reason, ttl, shadow }]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let feed = parse(&bytes);
            prop_assert!(feed.errors.len() + feed.entries.len() <= bytes.len() + 1);
        }

        #[test]
        fn no_line_panics(text in "[0-9a-f:./]{1,20}( (reason=|ttl=|shadow|\"|[a-z0-9\\\\\"= #;]){0,8})?") {
            parse(text.as_bytes());
        }
    }
}
