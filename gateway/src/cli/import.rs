//! `deny import` and `allow import`: a list file, all of it or, if a line is bad, none of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use gateway_kernel::feed::{self, FeedError};

use super::failure::{Failure, Outcome};
use super::lists::{Attributes, millis};
use crate::control::WireEntry;

/// A list file: about ten million lines.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Which file, and what is said of its entries.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Arguments {
    /// A list file, one prefix a line; - reads the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What is given here holds for every entry, whatever its line says
    #[command(flatten)]
    attributes: Attributes,
    /// Leave bad lines out instead of refusing the file
    #[arg(long)]
    skip_invalid: bool,
}

/// Reads the entries of a file.
pub(super) fn read(arguments: &Arguments) -> Outcome<Vec<WireEntry>> {
    let path = &arguments.file;
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let bytes = contents(path).map_err(|error| Failure::Wrong(format!("cannot read {name}: {error}")))?;
    entries_of(&name, &bytes, arguments)
}

/// The entries that a file's bytes hold; bad lines are told on stderr.
pub(super) fn entries_of(name: &str, bytes: &[u8], arguments: &Arguments) -> Outcome<Vec<WireEntry>> {
    let feed = feed::parse(bytes);
    for error in &feed.errors {
        eprintln!("{}", describe(name, error));
    }
    let untold = feed.error_count - feed.errors.len();
    if untold > 0 {
        eprintln!("{name}: and {untold} more bad lines");
    }
    if feed.error_count > 0 {
        let bad =
            if feed.error_count == 1 { "1 bad line" } else { &format!("{} bad lines", feed.error_count) };
        if !arguments.skip_invalid {
            return Err(Failure::Wrong(format!(
                "{name} has {bad}, so nothing of it was applied; mend it, or leave them out with --skip-invalid"
            )));
        }
        eprintln!("{name}: {bad} skipped");
    }
    let default_rule = label_of(name);
    let said = &arguments.attributes;
    let entry = |line: &feed::FeedEntry| WireEntry {
        prefix: line.prefix,
        rule: said.reason.as_deref().or(feed.reason(line)).unwrap_or(&default_rule).to_owned(),
        ttl_ms: said.ttl.map(millis).or((line.ttl_ms > 0).then_some(line.ttl_ms)),
        shadow: said.shadow || line.shadow,
    };
    Ok(feed.entries.iter().map(entry).collect())
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
