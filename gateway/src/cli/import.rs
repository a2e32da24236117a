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
    // A feed that broke off is empty more often than a list that is meant to be.
    if list.entries.is_empty() && timed.is_empty() {
        return Err(Failure::Wrong(format!(
            "{name} has no entries, so nothing was changed; what takes a list out is `gateway {} forget NAME`",
            list.kind.name()
        )));
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
    // The list first: it may be refused for its name, which bans are not.
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
    if !timed.is_empty() {
        let batch = Batch { list: side.timed(), entries: timed };
        let kind = batch.list;
        for added in backend.add(vec![batch], None, force, &mut |_| {})? {
            out.line(format!("{}: {} added, {} updated", kind.name(), added.added, added.updated))?;
        }
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

    use super::super::output::testing::printed;
    use super::*;

    /// The list and what is timed, a line each.
    fn summary(read: &Imported) -> Vec<String> {
        let Imported { list, timed, .. } = read;
        let entry = |entry: &gateway_kernel::ListEntry| {
            let label = &list.labels[entry.label as usize];
            format!("{}: {} {label} {}", list.name, entry.prefix, list.shadow || entry.shadow)
        };
        let timed = timed.iter().map(|entry| {
            format!("{} {} {} {}", entry.prefix, entry.rule, entry.ttl_ms.unwrap_or(0), entry.shadow)
        });
        list.entries.iter().map(entry).chain(timed).collect()
    }

    fn said(ttl: Option<u64>, reason: Option<&str>, shadow: bool, force: bool) -> Arguments {
        let ttl = ttl.map(Duration::from_secs);
        let attributes = Attributes { ttl, reason: reason.map(str::to_owned), shadow, force };
        Arguments { attributes, ..Arguments::default() }
    }

    #[test]
    fn lines_and_options_are_joined() {
        let named = Arguments { list: Some("mine".into()), ..Arguments::default() };
        let table: [(&str, &str, Arguments, &[&str]); 7] = [
            ("plain", "192.0.2.1\n", Arguments::default(), &["drop.txt: 192.0.2.1/32 drop.txt false"]),
            ("named", "192.0.2.1\n", named, &["mine: 192.0.2.1/32 drop.txt false"]),
            (
                "the line's own",
                "192.0.2.1 reason=scan ttl=1s shadow\n192.0.2.2 reason=scan shadow\n",
                Arguments::default(),
                &["drop.txt: 192.0.2.2/32 scan true", "192.0.2.1/32 scan 1000 true"],
            ),
            (
                "the option wins",
                "192.0.2.1 reason=scan ttl=1s\n192.0.2.2",
                said(Some(2), Some("mine"), true, false),
                &["192.0.2.1/32 mine 2000 true", "192.0.2.2/32 mine 2000 true"],
            ),
            (
                "a list in shadow",
                "192.0.2.1\n",
                said(None, None, true, false),
                &["drop.txt: 192.0.2.1/32 drop.txt true"],
            ),
            (
                "everything, by force",
                "0.0.0.0/0\n::/0\n",
                said(None, None, false, true),
                &["drop.txt: 0.0.0.0/0 drop.txt false", "drop.txt: ::/0 drop.txt false"],
            ),
            (
                "another format",
                "network,note\n192.0.2.0/24,x\n",
                Arguments { column: Some("network".into()), ..Arguments::default() },
                &["drop.txt: 192.0.2.0/24 drop.txt false"],
            ),
        ];
        for (name, text, arguments, expected) in table {
            let read = list_of(Side::Deny, "lists/drop.txt", text.into(), &arguments).expect(name);
            assert_eq!(summary(&read), expected, "{name}");
        }
    }

    #[test]
    fn a_bad_line_refuses_the_file_unless_told_otherwise() {
        let text = b"192.0.2.1\nnonsense\n192.0.2.2\n0.0.0.0/0\n::ffff:192.0.2.3\n192.0.2.1/24\n";
        let strict = list_of(Side::Deny, "x", text.to_vec(), &Arguments::default());
        assert!(matches!(strict, Err(Failure::Wrong(why)) if why.contains("4 bad lines, so nothing")));
        let lax = Arguments { skip_invalid: true, ..Arguments::default() };
        let read = list_of(Side::Deny, "x", text.to_vec(), &lax).expect("the rest");
        assert_eq!(read.list.entries.len(), 2);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let of = |format, column: Option<&str>, country: &[&str]| Arguments {
            format,
            column: column.map(str::to_owned),
            country: country.iter().map(|code| (*code).to_owned()).collect(),
            ..Arguments::default()
        };
        let table = [
            ("a plain file has no columns", of(Some(FormatName::Plain), Some("2"), &[]), "only a CSV file"),
            ("a database has no format", of(Some(FormatName::Csv), None, &["DE"]), "has no format"),
            ("a database has no columns", of(None, Some("2"), &["DE"]), "has no format"),
        ];
        for (name, arguments, expected) in table {
            let read = list_of(Side::Deny, "x", b"192.0.2.1\n".to_vec(), &arguments);
            assert!(matches!(&read, Err(Failure::Usage(why)) if why.contains(expected)), "{name}: {read:?}");
        }
        let rubbish = list_of(Side::Deny, "x", b"rubbish".to_vec(), &of(None, None, &["DE"]));
        assert!(matches!(&rubbish, Err(Failure::Wrong(why)) if why.contains("cannot use x")), "{rubbish:?}");
    }

    #[test]
    fn a_list_replaces_what_it_held() {
        let rules = gateway_kernel::Rules::in_userspace().expect("rules");
        let visitor = ("192.0.2.9:1".parse().expect("a peer"), "198.18.0.1:80".parse().expect("an address"));
        assert!(rules.admits(visitor.0, visitor.1));
        let backend = Backend::Here(rules);
        let dry = || Arguments { dry_run: true, ..Arguments::default() };
        let table: [(&str, &str, Arguments, &str); 8] = [
            (
                "first",
                "192.0.2.1\n192.0.2.2\n",
                Arguments::default(),
                "x: 2 entries in force, generation 1\n",
            ),
            (
                "the same",
                "192.0.2.1\n192.0.2.2\n",
                Arguments::default(),
                "x: 2 entries in force, generation 1, as it was before\n",
            ),
            (
                "what another would change",
                "192.0.2.2 reason=a\n192.0.2.0/28\n192.0.2.16/28\n192.0.2.17 ttl=1m\n",
                dry(),
                "x: 2 added, 1 removed, 1 changed; 2 entries now, 3 entries then\n\
                 and 1 entry with a time to live\n\
                 it would have hit 1 of 1 sources that passed in the last minute\n",
            ),
            (
                "what the same would change",
                "192.0.2.1\n192.0.2.2\n",
                dry(),
                "x: 0 added, 0 removed, 0 changed; 2 entries now, 2 entries then\n\
                 it would have hit 0 of 1 sources that passed in the last minute\n",
            ),
            ("another", "192.0.2.3\n", Arguments::default(), "x: 1 entry in force, generation 2\n"),
            (
                "with a ban",
                "192.0.2.3\n192.0.2.4 ttl=1m\n",
                Arguments::default(),
                "x: 1 entry in force, generation 2, as it was before\nban: 1 added, 0 updated\n",
            ),
            ("bans only", "192.0.2.4 ttl=1m\n", Arguments::default(), "ban: 0 added, 1 updated\n"),
            (
                "everything, by force",
                "0.0.0.0/0\n",
                said(None, None, false, true),
                "x: 1 entry in force, generation 3\n",
            ),
        ];
        for (name, text, arguments, expected) in table {
            let read = list_of(Side::Deny, "x", text.into(), &arguments).expect(name);
            let answer = printed(false, |out| apply(Side::Deny, read, &backend, out));
            assert_eq!(answer, expected, "{name}");
        }
        let empty = list_of(Side::Deny, "x", b"# nothing\n".to_vec(), &Arguments::default());
        assert!(matches!(&empty, Err(Failure::Wrong(why)) if why.contains("x has no entries")), "{empty:?}");
    }

    /// Lists are full of addresses in a row, and all of them have to find a place.
    #[test]
    fn neighbours_have_a_place() {
        const LENGTH: u128 = 60_000;
        let v6 = 0x2001_0db8_u128 << 96;
        for (name, v4, first, length) in [
            ("addresses of IPv4", true, 0x0a00_0000, 32),
            ("networks of IPv4", true, 0x0a00_0000, 24),
            ("addresses of IPv6", false, v6, 128),
            ("networks of IPv6", false, v6, 64),
            ("sites of IPv6", false, v6, 48),
        ] {
            let prefix = |number: u128| {
                let bits = first + (number << (if v4 { 32 } else { 128 } - length));
                let address: IpAddr = if v4 {
                    std::net::Ipv4Addr::from(bits as u32).into()
                } else {
                    std::net::Ipv6Addr::from(bits).into()
                };
                let prefix = ipnet::IpNet::new(address, length).expect("a prefix");
                gateway_kernel::ListEntry { prefix, label: 0, shadow: false }
            };
            let list = NewList {
                kind: gateway_kernel::ListKind::Deny,
                name: "x".into(),
                source: "x".into(),
                shadow: false,
                labels: vec!["x".into()],
                entries: (0..LENGTH).map(prefix).collect(),
            };
            let backend = Backend::Here(gateway_kernel::Rules::in_userspace().expect("rules"));
            let replaced = backend.import(ImportBody { list, force: false }, &mut |_| {});
            assert_eq!(replaced.map(|replaced| replaced.entries), Ok(LENGTH as usize), "{name}");
        }
    }

    #[test]
    fn what_was_deleted_comes_back_with_the_file() {
        let rules = gateway_kernel::Rules::in_userspace().expect("rules");
        let backend = Backend::Here(rules.clone());
        let import = |name: &str, text: &str| {
            let arguments = Arguments { list: Some(name.to_owned()), ..Arguments::default() };
            let read = list_of(Side::Deny, name, text.as_bytes().to_vec(), &arguments).expect("a list");
            printed(false, |out| apply(Side::Deny, read, &backend, out))
        };
        let deny = gateway_kernel::ListKind::Deny;
        let delete =
            |text: &str| backend.remove(deny, vec![text.parse().expect("a prefix")]).expect("removed");
        let found = || rules.entries(deny).expect("read").len();
        let three = "192.0.2.1\n192.0.2.2\n2001:db8::1\n";
        assert_eq!(import("x", three), "x: 3 entries in force, generation 1\n");
        delete("192.0.2.1/32");
        assert_eq!((import("x", three).as_str(), found()), ("x: 3 entries in force, generation 2\n", 3));
        assert_eq!(import("x", three), "x: 3 entries in force, generation 2, as it was before\n");
        // Also when another list has made a generation since.
        delete("2001:db8::1/128");
        assert_eq!(import("y", "198.51.100.1\n"), "y: 1 entry in force, generation 3\n");
        let counted: Vec<u64> = rules.lists().expect("read").iter().map(|list| list.entries()).collect();
        assert_eq!((counted, found()), (vec![2, 1], 3));
        assert_eq!((import("x", three).as_str(), found()), ("x: 3 entries in force, generation 4\n", 4));
    }

    #[test]
    fn a_list_that_is_refused_leaves_no_bans() {
        let rules = gateway_kernel::Rules::in_userspace().expect("rules");
        let backend = Backend::Here(rules.clone());
        let import = |side, arguments: &Arguments| {
            let text = b"192.0.2.3\n192.0.2.4 ttl=1m\n".to_vec();
            list_of(side, "x", text, arguments)
        };
        let read = import(Side::Allow, &Arguments::default()).expect("a list");
        assert!(printed(false, |out| apply(Side::Allow, read, &backend, out)).starts_with("x: 1 entry"));
        let own = Arguments { list: Some("config-deny".into()), ..Arguments::default() };
        let table = [("an allow list's name", Arguments::default()), ("the configuration's", own)];
        for (name, arguments) in table {
            let read = import(Side::Deny, &arguments).expect(name);
            let mut answer = Ok(());
            printed(false, |out| {
                answer = apply(Side::Deny, read, &backend, out);
                Ok::<(), Failure>(())
            });
            assert!(matches!(answer, Err(Failure::Wrong(_))), "{name}: {answer:?}");
            assert!(rules.entries(gateway_kernel::ListKind::Ban).expect("read").is_empty(), "{name}");
        }
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
