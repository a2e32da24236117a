//! What `ipset save` prints and `ipset restore` reads: a command a line. Entries of sets of addresses are
//! read; what makes an entry more than an address is refused, because it would then drop more than it did.

use std::collections::HashMap;

use super::notation::{MAX_DURATION, shown};
use super::plain::{checked_text, next_line};
use super::{NOTHING_SAID, Reading, Refused, Said};

const MAX_TIMEOUT_SECONDS: u64 = MAX_DURATION.as_secs();

pub(super) fn read(bytes: &[u8], reading: &mut Reading) {
    let (mut rest, mut number) = (bytes, 1);
    let mut sets = HashMap::new();
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        if let Err(refused) = read_line(number, line, &mut sets, reading) {
            reading.refuse(number, refused);
        }
        rest = after;
        number += 1;
    }
}

/// What the line that creates a set says of its entries.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    /// Of entries that have no timeout of their own; 0 for none.
    ttl_ms: u64,
    /// Entries are written as addresses and stand for networks.
    has_mask: bool,
}

fn read_line<'a>(
    number: usize,
    line: &'a [u8],
    sets: &mut HashMap<&'a str, Set>,
    reading: &mut Reading,
) -> Result<(), Refused<'a>> {
    let mut words = Words(checked_text(line)?);
    let Some(command) = words.next_but_flags() else { return Ok(()) };
    match command {
        "create" | "-N" => {
            let name = words.next_but_flags().unwrap_or_default();
            sets.insert(name, read_set(&mut words)?);
            Ok(())
        }
        "add" | "-A" => {
            let set = words.next_but_flags().and_then(|name| sets.get(name)).copied().unwrap_or_default();
            let Some(entry) = words.next_but_flags() else {
                return Err(Refused::new(line, "`add` takes a set and an address"));
            };
            check_entry(entry, set)?;
            let said = read_options(&mut words, set, reading)?;
            reading.add_span(number, entry, said)
        }
        // Scripts empty a set before they fill it, and swap it in afterwards.
        "flush" | "-F" if reading.feed.entries.is_empty() => Ok(()),
        "swap" | "-W" | "destroy" | "-X" | "rename" | "-E" | "COMMIT" | "quit" => Ok(()),
        _ if command.starts_with('#') => Ok(()),
        "del" | "-D" | "flush" | "-F" => {
            let why = format!("`{command}` takes away what other lines add; leave those out instead");
            Err(Refused::new(command.as_bytes(), why))
        }
        _ => Err(Refused::foreign(command.as_bytes(), "the line is not one of `ipset save`")),
    }
}

fn read_set(words: &mut Words<'_>) -> Result<Set, Refused<'static>> {
    let mut set = Set::default();
    while let Some(word) = words.next() {
        match word {
            // A set whose default cannot be read has entries that name their own, or are refused for it.
            "timeout" => set.ttl_ms = words.next().and_then(|text| read_timeout(text).ok()).unwrap_or(0),
            "netmask" | "bitmask" => set.has_mask = true,
            _ => {}
        }
    }
    Ok(set)
}

fn check_entry(entry: &str, set: Set) -> Result<(), Refused<'_>> {
    let refuse = |why: &str| Err(Refused::new(entry.as_bytes(), why));
    if entry.contains(',') {
        return refuse("the entry is an address and more, such as a port; only addresses are listed");
    }
    if set.has_mask {
        return refuse("its set has a netmask, so it stands for a network that the line does not name");
    }
    Ok(())
}

fn read_options<'a>(words: &mut Words<'a>, set: Set, reading: &mut Reading) -> Result<Said, Refused<'a>> {
    let mut said = Said { ttl_ms: set.ttl_ms, ..NOTHING_SAID };
    while let Some(word) = words.next() {
        let refuse = |why: String| Refused::new(word.as_bytes(), why);
        match word {
            "timeout" => {
                let text = words.next().unwrap_or_default();
                said.ttl_ms = read_timeout(text).map_err(refuse)?;
            }
            "comment" => {
                let text =
                    words.next_quoted().ok_or_else(|| refuse("the comment does not end".to_owned()))?;
                if !text.is_empty() {
                    said.label = reading.label(text).map_err(|why| Refused::new(text.as_bytes(), why))?;
                }
            }
            // Counters say what was, not what shall be.
            "packets" | "bytes" => {
                words.next();
            }
            "-exist" | "-!" => {}
            "nomatch" => {
                let why = "nomatch takes this out of a larger prefix; put it into the allow list instead";
                return Err(refuse(why.to_owned()));
            }
            _ => {
                let why = format!("{} is nothing that an entry of a list can have", shown(word));
                return Err(refuse(why));
            }
        }
    }
    Ok(said)
}

/// Seconds, in milliseconds; 0 is forever.
fn read_timeout(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().ok().filter(|&seconds| seconds <= MAX_TIMEOUT_SECONDS);
    seconds
        .map(|seconds| seconds * 1000)
        .ok_or_else(|| format!("a timeout is a number of seconds up to {MAX_TIMEOUT_SECONDS}"))
}

/// What is left of a line.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let (word, rest) = text.split_at(text.find([' ', '\t']).unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// `-exist` may stand anywhere.
    fn next_but_flags(&mut self) -> Option<&'a str> {
        loop {
            match self.next() {
                Some("-exist" | "-!") => {}
                word => return word,
            }
        }
    }

    /// A text in quotes, which holds none itself, or a single word.
    fn next_quoted(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let Some(inner) = text.strip_prefix('"') else { return self.next() };
        let (quoted, rest) = inner.split_once('"')?;
        self.0 = rest;
        Some(quoted)
    }
}
