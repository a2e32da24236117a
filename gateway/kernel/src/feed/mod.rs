//! List files as others publish them: bytes in, entries and errors out. Pure; nothing here reads a file.
//!
//! [`parse`] tells the format by the content. Every format gives the same [`Feed`], and what a format says
//! that an entry cannot hold is an error of its line, never left out in silence.

mod csv;
mod detect;
mod ipset;
pub mod mmdb;
mod nft;
mod notation;
mod plain;
pub mod prefixes;
mod spamhaus;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ipnet::IpNet;

pub use notation::{
    BadPrefix, MAX_DURATION, MAX_LABEL_BYTES, check_label, is_printable, parse_duration, parse_prefix,
    read_prefix, shown,
};
use notation::{Fault, judge, printable, scan_prefix};
pub use plain::write_line;
use prefixes::Span;

/// Errors kept of one file; the rest is only counted, for a wrong file would make one a line.
pub const MAX_ERRORS: usize = 100;
/// Bytes of one line. A longer one is not a list's line, whatever it begins with.
pub const MAX_LINE_BYTES: usize = 4096;
/// The label of an entry that has none.
pub const NO_LABEL: u32 = u32::MAX;

// A list has millions of entries, so their size is what a file costs.
const _: () = assert!(size_of::<FeedEntry>() <= 40);

/// Reads a whole list file, whatever its format, every line of it whatever is wrong with the others.
pub fn parse(bytes: &[u8]) -> Feed {
    parse_as(bytes, &Format::Auto, Options::default())
}

/// Reads a whole list file of a known format.
pub fn parse_as(bytes: &[u8], format: &Format, options: Options) -> Feed {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reading = Reading::new(options);
    match format {
        Format::Auto => read(bytes, &detect::format_of(bytes), &mut reading),
        format => read(bytes, format, &mut reading),
    }
    reading.end(bytes)
}

fn read(bytes: &[u8], format: &Format, reading: &mut Reading) {
    match format {
        Format::Auto | Format::Plain => plain::read(bytes, reading),
        Format::Ipset => ipset::read(bytes, reading),
        Format::Nft => nft::read(bytes, reading),
        Format::SpamhausJson => spamhaus::read(bytes, reading),
        Format::Csv { column } => csv::read(bytes, column, reading),
    }
}

/// How a list file is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// Whatever the first lines look like; plain text if they look like nothing else.
    #[default]
    Auto,
    /// A prefix a line, then `reason=TEXT`, `ttl=10m`, `shadow`; comments begin with `#` or `;`.
    Plain,
    /// What `ipset save` prints.
    Ipset,
    /// What `nft list ruleset` and `nft list set` print.
    Nft,
    /// A JSON object a line, with the member `cidr`.
    SpamhausJson,
    /// Columns separated by commas, semicolons or tabs.
    Csv {
        /// Which of them holds the prefixes.
        column: Column,
    },
}

/// A column of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// By its name in the first line, capital letters or not.
    Name(String),
    /// By its number, from 1.
    Number(usize),
}

/// What else a reader may accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Read `0.0.0.0/0` and `::/0` instead of refusing them.
    pub allow_everything: bool,
}

/// What a list file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// What could be read, in order. A prefix may stand twice: the last one counts.
    pub entries: Vec<FeedEntry>,
    /// The labels that entries refer to, each a valid one.
    pub labels: Vec<String>,
    /// The first [`MAX_ERRORS`] lines that could not be read, by line; only one if the whole is no list.
    pub errors: Vec<FeedError>,
    /// All lines that could not, those not kept included.
    pub error_count: usize,
}

impl Feed {
    /// The reason that an entry came with.
    pub fn reason(&self, entry: &FeedEntry) -> Option<&str> {
        self.labels.get(usize::try_from(entry.label).ok()?).map(String::as_str)
    }
}

/// One prefix of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedEntry {
    /// What it covers; host bits are zero.
    pub prefix: IpNet,
    /// The number of its line, from 1.
    pub line: u32,
    /// Its reason, an index into [`Feed::labels`], or [`NO_LABEL`].
    pub label: u32,
    /// How long it holds, in milliseconds; 0 until it is deleted.
    pub ttl_ms: u64,
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

/// What is said of a prefix beside the prefix itself.
#[derive(Debug, Clone, Copy)]
struct Said {
    label: u32,
    ttl_ms: u64,
    shadow: bool,
}

const NOTHING_SAID: Said = Said { label: NO_LABEL, ttl_ms: 0, shadow: false };

/// What is wrong with a line: the offending part of it, and why.
#[derive(Debug)]
struct Refused<'a> {
    text: &'a [u8],
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// The text is not a prefix, or not one that may be listed.
    Prefix(Fault),
    /// The line has nothing of this format. A file of such lines only is no list.
    Foreign(&'static str),
    /// Anything else.
    Other(String),
}

impl<'a> Refused<'a> {
    fn new(text: &'a [u8], why: impl Into<String>) -> Self {
        Refused { text, why: Why::Other(why.into()) }
    }

    fn foreign(text: &'a [u8], why: &'static str) -> Self {
        Refused { text, why: Why::Foreign(why) }
    }

    fn prefix(text: &'a str, fault: Fault) -> Self {
        Refused { text: text.as_bytes(), why: Why::Prefix(fault) }
    }
}

/// A feed while it is read.
struct Reading {
    feed: Feed,
    options: Options,
    /// Labels by their hash instead of by themselves: a file may have as many as it has lines. Two with one
    /// hash are only stored more than once.
    known: HashMap<u64, u32>,
    hasher: RandomState,
    /// Errors of lines that have nothing of the format.
    foreign: usize,
}

impl Reading {
    fn new(options: Options) -> Self {
        let hasher = RandomState::new();
        Reading { feed: Feed::default(), options, known: HashMap::new(), hasher, foreign: 0 }
    }

    fn add(&mut self, line: usize, prefix: IpNet, said: Said) {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        let Said { label, ttl_ms, shadow } = said;
        self.feed.entries.push(FeedEntry { prefix, line, label, ttl_ms, shadow });
    }

    /// An address, a prefix or, for the formats that have them, a range.
    fn add_span<'a>(&mut self, line: usize, text: &'a str, said: Said) -> Result<(), Refused<'a>> {
        let everything = self.options.allow_everything;
        let Some((first, last)) = text.split_once('-') else {
            let prefix = scan_prefix(text, everything).map_err(|fault| Refused::prefix(text, fault))?;
            self.add(line, prefix, said);
            return Ok(());
        };
        let (Ok(first), Ok(last)) = (first.parse::<IpAddr>(), last.parse::<IpAddr>()) else {
            return Err(Refused::prefix(text, Fault::NotAPrefix));
        };
        let span = Span::new(first, last).map_err(|bad| Refused::new(text.as_bytes(), bad.to_string()))?;
        // All of a range or nothing of it.
        for prefix in span.prefixes() {
            judge(prefix, everything).map_err(|fault| Refused::prefix(text, fault))?;
        }
        for prefix in span.prefixes() {
            self.add(line, prefix, said);
        }
        Ok(())
    }

    /// The index of a label, which is checked.
    fn label(&mut self, text: &str) -> Result<u32, String> {
        check_label(text)?;
        let hash = self.hasher.hash_one(text);
        if let Some(&index) = self.known.get(&hash)
            && self.feed.labels.get(index as usize).is_some_and(|label| label == text)
        {
            return Ok(index);
        }
        // A file that names four billion labels is longer than any that is read.
        let index = u32::try_from(self.feed.labels.len()).unwrap_or(NO_LABEL);
        self.feed.labels.push(text.to_owned());
        self.known.insert(hash, index);
        Ok(index)
    }

    fn refuse(&mut self, line: usize, refused: Refused<'_>) {
        self.feed.error_count += 1;
        if matches!(refused.why, Why::Foreign(_) | Why::Prefix(Fault::NotAPrefix)) {
            self.foreign += 1;
        }
        if self.feed.errors.len() < MAX_ERRORS {
            let why = match refused.why {
                Why::Prefix(fault) => {
                    let bad = fault.explain(&String::from_utf8_lossy(refused.text));
                    let force = if fault == Fault::Everything { "; `--force` takes it" } else { "" };
                    format!("{bad}{force}")
                }
                Why::Foreign(why) => why.to_owned(),
                Why::Other(why) => why,
            };
            self.feed.errors.push(FeedError { line, text: printable(refused.text), why });
        }
    }

    fn end(self, bytes: &[u8]) -> Feed {
        let Reading { mut feed, foreign, .. } = self;
        feed.errors.sort_by_key(|error| error.line);
        let binary = detect::is_binary(bytes);
        if feed.entries.is_empty() && feed.error_count == foreign && (foreign > 1 || foreign == 1 && binary) {
            // A hundred lines of rubbish would hide the one thing there is to say.
            let why = detect::what_else(bytes, &feed);
            feed.errors = vec![FeedError { line: 1, text: String::new(), why }];
        }
        feed
    }
}

#[cfg(test)]
mod tests;
