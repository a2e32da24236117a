//! `deny import` and `allow import`: a file becomes a named list, all of it or, if a line is bad, none of it.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gateway_kernel::feed::{self, Feed, FeedError, Format, Options};
use gateway_kernel::{Form, NewList, Preview, Recipe, check_list_name};

use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::lists::{Attributes, Progress, Side, millis, refuse_own_address};
use super::output::{Out, entries};
use crate::config::column_of;
use crate::control::{Batch, ImportBody, WireEntry};

/// A list file: about ten million lines.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Which file, and what is said of its entries.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Arguments {
    /// A list file or, with --country or --asn, a MaxMind database; - reads the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The list that the file becomes; without it, the file's name. What the list held before goes
    #[arg(long, value_name = "NAME", value_parser = list_name)]
    list: Option<String>,
    /// What is given here holds for every entry, whatever its line says
    #[command(flatten)]
    attributes: Attributes,
    /// Leave bad lines out instead of refusing the file
    #[arg(long)]
    skip_invalid: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How the file is written; without it, its content tells
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatName>,
    /// The column of a CSV file that holds the prefixes, by its name or its number from 1
    #[arg(long, value_name = "COLUMN")]
    column: Option<String>,
    /// Countries of a database, by their ISO 3166 codes
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    country: Vec<String>,
    /// Autonomous systems of a database, by their numbers
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    asn: Vec<u32>,
}

/// The formats that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Plain,
    Ipset,
    Nft,
    SpamhausJson,
    Csv,
}

/// A file, read.
#[derive(Debug)]
pub(super) struct Imported {
    pub(super) list: NewList,
    /// Lines with a time to live, which no list has.
    pub(super) timed: Vec<WireEntry>,
    pub(super) dry_run: bool,
    pub(super) force: bool,
}

/// Reads a file. Its mistakes are told before the rules are opened, to whoever asks.
pub(super) fn read(side: Side, arguments: &Arguments) -> Outcome<Imported> {
    let path = &arguments.file;
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let bytes = contents(path).map_err(|error| Failure::Wrong(format!("cannot read {name}: {error}")))?;
    list_of(side, &name, bytes, arguments)
}

/// The list that a file's bytes make; bad lines are told on stderr.
pub(super) fn list_of(side: Side, name: &str, bytes: Vec<u8>, arguments: &Arguments) -> Outcome<Imported> {
    let said = &arguments.attributes;
    let label = label_of(name);
    let recipe = Recipe {
        kind: side.list_kind(),
        name: arguments.list.clone().unwrap_or_else(|| label.clone()),
        source: feed::shown(name),
        reason: said.reason.clone(),
        label,
        shadow: said.shadow,
        form: arguments.form()?,
    };
    let prepared =
        recipe.prepare(bytes).map_err(|error| Failure::Wrong(format!("cannot use {name}: {error}")))?;
    tell(name, &prepared.mistakes, arguments.skip_invalid)?;
    let mut list = prepared.list;
    let mut timed: Vec<WireEntry> = prepared.timed.into_iter().map(WireEntry::from).collect();
    if let Some(ttl) = said.ttl {
        let entries = std::mem::take(&mut list.entries);
        timed.extend(entries.into_iter().map(|entry| WireEntry {
            prefix: entry.prefix,
            rule: list.labels.get(entry.label as usize).cloned().unwrap_or_default(),
            ttl_ms: None,
            shadow: list.shadow || entry.shadow,
        }));
        timed.iter_mut().for_each(|entry| entry.ttl_ms = Some(millis(ttl)));
    }
    Ok(Imported { list, timed, dry_run: arguments.dry_run, force: said.force })
}

/// Brings a file's list into force, or says what that would change.
pub(super) fn apply(side: Side, read: Imported, backend: &Backend, out: &mut Out) -> Outcome {
    let Imported { list, timed, dry_run, force } = read;
    let dropped = list.entries.iter().filter(|entry| !list.shadow && !entry.shadow).map(|entry| entry.prefix);
    let banned = timed.iter().filter(|entry| !entry.shadow).map(|entry| entry.prefix);
    refuse_own_address(side, dropped.chain(banned), backend)?;
    if dry_run {
        let name = list.name.clone();
        let preview = backend.preview(ImportBody { list, force })?;
        return tell_preview(&name, &preview, timed.len(), out);
    }
    if list.entries.is_empty() && timed.is_empty() {
        return Ok(out.line("there was nothing to add")?);
    }
    if !timed.is_empty() {
        let batch = Batch { list: side.timed(), entries: timed };
        let kind = batch.list;
        for added in backend.add(vec![batch], None, force, &mut |_| {})? {
            out.line(format!("{}: {} added, {} updated", kind.name(), added.added, added.updated))?;
        }
    }
    if !list.entries.is_empty() {
        let name = list.name.clone();
        let mut progress = Progress::of(list.entries.len());
        let outcome = backend.import(ImportBody { list, force }, &mut |done| progress.at(done));
        progress.end();
        let replaced = outcome?;
        let unchanged = if replaced.changed { "" } else { ", as it was before" };
        out.line(format!(
            "{name}: {} in force, generation {}{unchanged}",
            entries(replaced.entries),
            replaced.generation
        ))?;
    }
    Ok(())
}

fn tell_preview(name: &str, preview: &Preview, timed: usize, out: &mut Out) -> Outcome {
    out.line(format!(
        "{name}: {} added, {} removed, {} changed; {} now, {} then",
        preview.added,
        preview.removed,
        preview.changed,
        entries(preview.before),
        entries(preview.after)
    ))?;
    if timed > 0 {
        out.line(format!("and {} with a time to live", entries(timed)))?;
    }
    out.line(format!(
        "it would have hit {} of {} sources that passed in the last minute",
        preview.hits, preview.sources
    ))?;
    Ok(())
}

impl Arguments {
    fn form(&self) -> Outcome<Form> {
        if !self.country.is_empty() || !self.asn.is_empty() {
            if self.format.is_some() || self.column.is_some() {
                return Err(Failure::Usage(
                    "--country and --asn choose from a database, which has no format".into(),
                ));
            }
            let countries = self.country.iter().map(|code| code.to_ascii_uppercase()).collect();
            return Ok(Form::Mmdb { countries, asns: self.asn.clone() });
        }
        let column = self.column.as_deref().map(column_of);
        let format = match (self.format, column) {
            (None, None) => Format::Auto,
            (None | Some(FormatName::Csv), Some(column)) => Format::Csv { column },
            (Some(FormatName::Csv), None) => Format::Csv { column: feed::Column::Number(1) },
            (Some(_), Some(_)) => return Err(Failure::Usage("only a CSV file has columns".into())),
            (Some(FormatName::Plain), None) => Format::Plain,
            (Some(FormatName::Ipset), None) => Format::Ipset,
            (Some(FormatName::Nft), None) => Format::Nft,
            (Some(FormatName::SpamhausJson), None) => Format::SpamhausJson,
        };
        Ok(Form::Feed { format, options: Options { allow_everything: self.attributes.force } })
    }
}

/// Tells the bad lines of a file; an error, unless they are to be left out.
fn tell(name: &str, mistakes: &Feed, skip_invalid: bool) -> Outcome {
    for error in &mistakes.errors {
        eprintln!("{}", describe(name, error));
    }
    let untold = mistakes.error_count - mistakes.errors.len();
    if untold > 0 {
        eprintln!("{name}: and {untold} more bad lines");
    }
    let bad = match mistakes.error_count {
        0 => return Ok(()),
        1 => "1 bad line".to_owned(),
        count => format!("{count} bad lines"),
    };
    if !skip_invalid {
        return Err(Failure::Wrong(format!(
            "{name} has {bad}, so nothing of it was applied; mend it, or leave them out with --skip-invalid"
        )));
    }
    eprintln!("{name}: {bad} skipped");
    Ok(())
}

/// `file:line: text: why`; a reason that begins with the text is not made to repeat it.
fn describe(name: &str, error: &FeedError) -> String {
    let FeedError { line, text, why } = error;
    if why.starts_with(text.as_str()) {
        format!("{name}:{line}: {why}")
    } else {
        format!("{name}:{line}: {text}: {why}")
    }
}

/// The file's own name as a label: what cannot be shown is replaced, and its end is cut.
fn label_of(name: &str) -> String {
    let file = Path::new(name).file_name().map_or(name.into(), |file| file.to_string_lossy());
    let mut label = String::new();
    for char in file.chars().map(|char| if feed::is_printable(char) { char } else { '_' }) {
        if label.len() + char.len_utf8() > feed::MAX_LABEL_BYTES {
            break;
        }
        label.push(char);
    }
    if label.is_empty() { "file".to_owned() } else { label }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?
    } else {
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?
    };
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

fn list_name(text: &str) -> Result<String, String> {
    check_list_name(text).map(|()| text.to_owned())
}

/// Whether an address is covered by any of some prefixes.
pub(super) fn covers(prefixes: impl Iterator<Item = ipnet::IpNet>, address: IpAddr) -> Option<ipnet::IpNet> {
    let mut covering = prefixes.filter(|prefix| prefix.contains(&address));
    covering.next()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn summary(entries: &[WireEntry]) -> String {
        let line = |entry: &WireEntry| {
            format!("{} {} {:?} {}", entry.prefix, entry.rule, entry.ttl_ms, entry.shadow)
        };
        entries.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn lines_and_options_are_joined() {
        let said =
            |ttl, reason: Option<&str>, shadow| Attributes { ttl, reason: reason.map(str::to_owned), shadow };
        let table = [
            ("plain", "192.0.2.1\n", said(None, None, false), "192.0.2.1/32 drop.txt None false"),
            (
                "the line's own",
                "192.0.2.1 reason=scan ttl=1s shadow\n",
                said(None, None, false),
                "192.0.2.1/32 scan Some(1000) true",
            ),
            (
                "the option wins",
                "192.0.2.1 reason=scan ttl=1s\n192.0.2.2",
                said(Some(Duration::from_secs(2)), Some("mine"), true),
                "192.0.2.1/32 mine Some(2000) true; 192.0.2.2/32 mine Some(2000) true",
            ),
        ];
        for (name, text, attributes, expected) in table {
            let arguments = Arguments { attributes, ..Arguments::default() };
            let entries = entries_of("lists/drop.txt", text.as_bytes(), &arguments).expect(name);
            assert_eq!(summary(&entries), expected, "{name}");
        }
    }

    #[test]
    fn a_bad_line_refuses_the_file_unless_told_otherwise() {
        let text = b"192.0.2.1\nnonsense\n192.0.2.2\n";
        let strict = entries_of("x", text, &Arguments::default());
        assert!(matches!(strict, Err(Failure::Wrong(why)) if why.contains("1 bad line, so nothing")));
        let lax = Arguments { skip_invalid: true, ..Arguments::default() };
        assert_eq!(entries_of("x", text, &lax).expect("the rest").len(), 2);
    }

    #[test]
    fn mistakes_say_where() {
        let error = |text: &str, why: &str| FeedError { line: 3, text: text.into(), why: why.into() };
        let table = [
            (error("x", "x is not an address"), "f:3: x is not an address"),
            (error("ttl=5", "5 has no unit"), "f:3: ttl=5: 5 has no unit"),
        ];
        for (error, expected) in table {
            assert_eq!(describe("f", &error), expected);
        }
    }

    #[test]
    fn names_become_labels() {
        let long = "x".repeat(100);
        let table = [
            ("lists/drop.txt", "drop.txt"),
            ("stdin", "stdin"),
            ("a\nb", "a_b"),
            ("..", ".."),
            (long.as_str(), &long[..feed::MAX_LABEL_BYTES]),
        ];
        for (name, expected) in table {
            assert_eq!(label_of(name), expected, "{name}");
            assert_eq!(feed::check_label(&label_of(name)), Ok(()), "{name}");
        }
    }
}
