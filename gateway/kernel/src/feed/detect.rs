//! Which format a file has, told by its first line that is neither blank nor a comment.

use std::net::IpAddr;

use memchr::memmem;

use super::notation::{Fault, scan_prefix};
use super::plain::{self, next_line};
use super::{Column, Feed, Format, MAX_LINE_BYTES, csv};

/// Bytes at the beginning of a file that tell text from anything else.
const HEAD_BYTES: usize = 8192;
/// Bytes at the end of a MaxMind database within which its description begins.
const MMDB_TAIL_BYTES: usize = 128 * 1024;
const MMDB_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// What a list may be packed as, and how that begins.
const PACKED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
];

/// The format of a file; plain text if nothing tells another one.
pub(super) fn format_of(bytes: &[u8]) -> Format {
    let (first, rest) = meaningful_line(bytes);
    if first.starts_with(b"{") {
        return Format::SpamhausJson;
    }
    if is_nft(first) {
        return Format::Nft;
    }
    if is_ipset(first) {
        return Format::Ipset;
    }
    if plain::can_read(first) {
        return Format::Plain;
    }
    let (second, _) = meaningful_line(rest);
    match column_of(first, second) {
        Some(number) => Format::Csv { column: Column::Number(number) },
        None => Format::Plain,
    }
}

/// The first line that is neither blank nor a comment, and what follows it. A longer one than a list has is
/// cut: it tells nothing.
fn meaningful_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        let line = line[..line.len().min(MAX_LINE_BYTES)].trim_ascii();
        if line.starts_with(b"#!") && line.ends_with(b"nft -f") {
            return (line, after);
        }
        if !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b";") {
            return (line, after);
        }
        rest = after;
    }
    (b"", b"")
}

fn is_nft(line: &[u8]) -> bool {
    if line.starts_with(b"#!") {
        return true;
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match words.next() {
        Some(b"table" | b"set" | b"define") => words.next().is_some(),
        Some(b"elements") => words.next().is_some_and(|word| word.starts_with(b"=")),
        Some(b"elements=") => true,
        Some(b"add" | b"create" | b"delete" | b"destroy" | b"flush" | b"insert") => matches!(
            words.next(),
            Some(b"table" | b"set" | b"element" | b"chain" | b"rule" | b"map" | b"ruleset")
        ),
        _ => false,
    }
}

fn is_ipset(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match words.next() {
        Some(b"create" | b"-N" | b"add" | b"-A" | b"del" | b"-D") => words.nth(1).is_some(),
        Some(b"flush" | b"-F" | b"destroy" | b"-X") => words.next().is_some(),
        _ => false,
    }
}

/// The number of the only column that holds addresses, in the first line or, if that is the header, in the
/// second. Two such columns are the ends of ranges as often as not, so nobody guesses between them.
fn column_of(first: &[u8], second: &[u8]) -> Option<usize> {
    let separator = csv::separator_of(first);
    if !first.contains(&separator) {
        return None;
    }
    let is_address = |field: &[u8]| {
        let Ok(text) = std::str::from_utf8(field) else { return false };
        match text.split_once('-') {
            Some((first, last)) => first.parse::<IpAddr>().is_ok() && last.parse::<IpAddr>().is_ok(),
            None => !matches!(scan_prefix(text, true), Err(Fault::NotAPrefix)),
        }
    };
    let only = |fields: Vec<Vec<u8>>| {
        let mut found = fields.iter().enumerate().filter(|(_, field)| is_address(field));
        let (index, _) = found.next().filter(|_| fields.len() > 1)?;
        found.next().is_none().then_some(index + 1)
    };
    let names = csv::fields(first, separator)?;
    if names.iter().any(|field| is_address(field)) {
        only(names)
    } else {
        only(csv::fields(second, separator)?)
    }
}

/// Whether a file begins like no text.
pub(super) fn is_binary(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(HEAD_BYTES)].contains(&0) || packed(bytes).is_some()
}

fn packed(bytes: &[u8]) -> Option<&'static str> {
    PACKED.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, name)| name)
}

/// One sentence for a file of which nothing looked like a list.
pub(super) fn what_else(bytes: &[u8], feed: &Feed) -> String {
    let tail = &bytes[bytes.len().saturating_sub(MMDB_TAIL_BYTES)..];
    if let Some(name) = packed(bytes) {
        format!("this does not look like a list file but like one packed with {name}; unpack it first")
    } else if memmem::find(tail, MMDB_MARKER).is_some() {
        "this does not look like a list file but like a MaxMind database".to_owned()
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        "this does not look like a list file but like a web page".to_owned()
    } else if is_binary(bytes) {
        "this does not look like a list file; it is not even text".to_owned()
    } else {
        format!("this does not look like a list file: none of its {} lines could be read", feed.error_count)
    }
}
