//! `gateway deny` and `gateway allow`: the operator's entries, changed while everything runs.
//!
//! What people call the deny list is two: bans with a time to live, and entries that stay. `deny add`
//! picks by `--ttl`, and the other verbs speak of both. Lists that come as a whole: `named_lists.rs`.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use gateway_kernel::feed;
use gateway_kernel::{Entry, ListKind, Owner};
use ipnet::IpNet;

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::output::{Column, Out, clean, entries, spell};
use super::{import, named_lists, own_address};
use crate::control::{Batch, ExplainBody, WireEntry, check_evidence};

/// Characters of a progress bar.
const BAR_CHARS: usize = 40;
/// A list longer than this shows its progress.
const PROGRESS_FROM: usize = 10_000;
/// Lines about single prefixes on stderr, before the rest is only counted.
pub(super) const MAX_REMARKS: usize = 20;

/// What to do with a list.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add addresses or prefixes
    Add {
        /// Addresses or prefixes: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
        #[command(flatten)]
        attributes: Attributes,
        /// Where the evidence is: a ticket, the id of a request; at most 64 bytes
        #[arg(long, value_name = "TEXT", value_parser = evidence)]
        evidence: Option<String>,
    },
    /// Take prefixes out, exactly as they stand in the list
    Del {
        /// Addresses or prefixes
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
    },
    /// Show the entries
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a file a named list: all of it or, if one line is bad, none
    Import(import::Arguments),
    /// Show the named lists
    Lists {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Return to the lists before the last change of lists; once more returns to the later ones
    Rollback,
    /// Take a named list out that was imported
    Forget {
        /// The list's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Apply what a list of the configuration would have become by itself, had it not changed so much
    Confirm {
        /// The list's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print the operators' entries in the form that `import` reads; those of the configuration are left out
    Export,
    /// Take all entries out; those of the configuration stay
    Flush,
}

/// What is said of entries, whether typed or imported.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Attributes {
    /// How long they hold: 30s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub(super) ttl: Option<Duration>,
    /// The label their hits are counted under
    #[arg(long, value_name = "TEXT", value_parser = label)]
    pub(super) reason: Option<String>,
    /// Count what they would decide, without deciding it
    #[arg(long)]
    pub(super) shadow: bool,
    /// Take 0.0.0.0/0 and ::/0, too
    #[arg(long)]
    pub(super) force: bool,
}

/// The two commands that share these verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Deny,
    Allow,
}

impl Side {
    /// The lists it speaks of, in the order in which packets meet them.
    pub(super) fn lists(self) -> &'static [ListKind] {
        match self {
            Self::Deny => &[ListKind::Ban, ListKind::Deny],
            Self::Allow => &[ListKind::Allow],
        }
    }

    /// What its named lists are.
    pub(super) fn list_kind(self) -> ListKind {
        match self {
            Self::Deny => ListKind::Deny,
            Self::Allow => ListKind::Allow,
        }
    }

    /// Where entries with a time to live go.
    pub(super) fn timed(self) -> ListKind {
        match self {
            Self::Deny => ListKind::Ban,
            Self::Allow => ListKind::Allow,
        }
    }

    /// The list for an entry.
    fn list_for(self, entry: &WireEntry) -> ListKind {
        match (self, entry.ttl_ms) {
            (Self::Allow, _) => ListKind::Allow,
            (Self::Deny, Some(_)) => ListKind::Ban,
            (Self::Deny, None) => ListKind::Deny,
        }
    }
}

pub(super) fn run(side: Side, arguments: Arguments, global: &Global, out: &mut Out) -> Outcome {
    match arguments.verb {
        Verb::Add { prefixes, attributes, evidence } => {
            let wanted = typed(&prefixes, &attributes)?;
            let backend = Backend::open(global)?;
            let dropped = wanted.iter().filter(|entry| !entry.shadow).map(|entry| entry.prefix);
            refuse_own_address(side, dropped, &backend)?;
            write(side, wanted, evidence, attributes.force, &backend, out)
        }
        Verb::Del { prefixes } => {
            remove(side, &read_prefixes(&prefixes, true)?, &Backend::open(global)?, out)
        }
        Verb::List { json } => list(side, json, &Backend::open(global)?, out),
        Verb::Import(arguments) => {
            // The file is read before the rules are opened: its mistakes are told to whoever asks.
            let imported = import::read(side, &arguments)?;
            import::apply(side, imported, &Backend::open(global)?, out)
        }
        Verb::Lists { json } => named_lists::show(side, json, &Backend::open(global)?, out),
        Verb::Rollback => named_lists::roll_back(&Backend::open(global)?, out),
        Verb::Forget { name } => named_lists::forget(side, &name, &Backend::open(global)?, out),
        Verb::Confirm { name } => named_lists::confirm(&name, global, out),
        Verb::Export => export(side, &Backend::open(global)?, out),
        Verb::Flush => flush(side, &Backend::open(global)?, out),
    }
}

/// The entries of `add`.
fn typed(prefixes: &[String], attributes: &Attributes) -> Outcome<Vec<WireEntry>> {
    let rule = attributes.reason.clone().unwrap_or_else(|| "cli".to_owned());
    let entry = |prefix| WireEntry {
        prefix,
        rule: rule.clone(),
        ttl_ms: attributes.ttl.map(millis),
        shadow: attributes.shadow,
    };
    Ok(read_prefixes(prefixes, attributes.force)?.into_iter().map(entry).collect())
}

/// Reads all prefixes of a command line, or says of each bad one what is wrong with it.
fn read_prefixes(texts: &[String], force: bool) -> Outcome<Vec<IpNet>> {
    let (mut prefixes, mut mistakes) = (Vec::new(), Vec::new());
    for text in texts {
        let everything = text.parse::<IpNet>().ok().filter(|prefix| prefix.prefix_len() == 0);
        match (everything, feed::parse_prefix(text)) {
            (Some(prefix), _) if force => prefixes.push(prefix.trunc()),
            (Some(_), Err(why)) => mistakes.push(format!("{why}; `--force` takes it")),
            (_, Ok(prefix)) => prefixes.push(prefix),
            (None, Err(why)) => mistakes.push(why),
        }
    }
    if mistakes.is_empty() { Ok(prefixes) } else { Err(Failure::Wrong(mistakes.join("\n"))) }
}

/// Adds entries to the lists they belong to: all or none, whatever the list.
fn write(
    side: Side,
    wanted: Vec<WireEntry>,
    evidence: Option<String>,
    force: bool,
    backend: &Backend,
    out: &mut Out,
) -> Outcome {
    let (batches, repeated) = batches(side, wanted);
    say_repeated(&repeated);
    if batches.is_empty() {
        return Ok(out.line("there was nothing to add")?);
    }
    let lists: Vec<ListKind> = batches.iter().map(|batch| batch.list).collect();
    let mut progress = Progress::of(batches.iter().map(|batch| batch.entries.len()).sum());
    let outcome = backend.add(batches, evidence, force, &mut |done| progress.at(done));
    progress.end();
    for (list, added) in lists.into_iter().zip(outcome?) {
        out.line(format!("{}: {} added, {} updated", list.name(), added.added, added.updated))?;
    }
    Ok(())
}

fn remove(side: Side, prefixes: &[IpNet], backend: &Backend, out: &mut Out) -> Outcome {
    let mut missing: HashMap<IpNet, usize> = HashMap::new();
    let mut kept = Vec::new();
    for list in side.lists() {
        let removed = backend.remove(*list, prefixes.to_vec())?;
        out.line(format!("{}: {} removed", list.name(), removed.removed))?;
        removed.missing.into_iter().for_each(|prefix| *missing.entry(prefix).or_default() += 1);
        kept.extend(removed.kept_by_config);
    }
    // A prefix that one of the lists had was there.
    let absent: Vec<&IpNet> =
        prefixes.iter().filter(|prefix| missing.get(prefix) == Some(&side.lists().len())).collect();
    remarks(absent.iter().map(|prefix| format!("{prefix} is not in the list")));
    remarks(kept.iter().map(|prefix| {
        format!("{prefix} stays: the configuration names it; take it out there and `gateway reload`")
    }));
    if absent.is_empty() && kept.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn list(side: Side, json: bool, backend: &Backend, out: &mut Out) -> Outcome {
    let found = read(side, backend)?;
    if json {
        return Ok(print_json(&found, out)?);
    }
    let columns = [
        Column::words("PREFIX"),
        Column::words("LIST"),
        Column::words("FROM"),
        Column::words("RULE"),
        Column::words("LEFT"),
        Column::words("MODE"),
        Column::words("OWNER"),
    ];
    let rows: Vec<Vec<String>> = found.iter().map(|entry| row(entry, out.terminal)).collect();
    if rows.is_empty() && out.terminal {
        return Ok(out.line("there are no entries")?);
    }
    Ok(out.table(&columns, &rows)?)
}

fn row(entry: &Entry, terminal: bool) -> Vec<String> {
    let left = match entry.ttl_seconds {
        None => "-".to_owned(),
        Some(seconds) if terminal => spell(Duration::from_secs(seconds)),
        Some(seconds) => seconds.to_string(),
    };
    let owner = match entry.owner {
        Owner::Config => "config",
        Owner::Operator => "operator",
    };
    let mode = if entry.shadow { "shadow" } else { "enforced" };
    vec![
        entry.prefix.to_string(),
        entry.list.name().to_owned(),
        clean(&entry.from),
        clean(&entry.rule),
        left,
        mode.to_owned(),
        owner.to_owned(),
    ]
}

/// One array, but an entry a line: both `jq` and `grep` can read it.
fn print_json(found: &[Entry], out: &mut Out) -> std::io::Result<()> {
    out.text("[")?;
    for (index, entry) in found.iter().enumerate() {
        out.text(if index == 0 { "\n" } else { ",\n" })?;
        out.text(&serde_json::to_string(entry)?)?;
    }
    out.line(if found.is_empty() { "]" } else { "\n]" })
}

fn export(side: Side, backend: &Backend, out: &mut Out) -> Outcome {
    let mut line = String::new();
    // What only the configuration names would become the operator's when it is imported, and stay when the
    // configuration lets go of it.
    let (operators, others): (Vec<Entry>, Vec<Entry>) =
        read(side, backend)?.into_iter().partition(|entry| entry.owner == Owner::Operator);
    for entry in operators {
        line.clear();
        let ttl = entry.ttl_seconds.map(Duration::from_secs);
        feed::write_line(&mut line, entry.prefix, Some(&entry.rule), ttl, entry.shadow);
        out.text(&line)?;
    }
    if !others.is_empty() {
        eprintln!("left out: {} of the configuration, which brings them by itself", entries(others.len()));
    }
    Ok(())
}

fn flush(side: Side, backend: &Backend, out: &mut Out) -> Outcome {
    for list in side.lists() {
        let count = backend.flush(*list)?;
        out.line(format!("{}: {} removed", list.name(), entries(count)))?;
    }
    Ok(())
}

fn read(side: Side, backend: &Backend) -> Outcome<Vec<Entry>> {
    let mut found = Vec::new();
    for list in side.lists() {
        found.extend(backend.entries(*list)?);
    }
    Ok(found)
}

/// The entries by list, in the order of the lists and of those that are kept: of several for one prefix of
/// one list the last one is. Gives the prefixes that were repeated, too.
fn batches(side: Side, wanted: Vec<WireEntry>) -> (Vec<Batch>, Vec<IpNet>) {
    let mut last: HashMap<(ListKind, IpNet), usize> = HashMap::with_capacity(wanted.len());
    let mut repeated = Vec::new();
    for (index, entry) in wanted.iter().enumerate() {
        if last.insert((side.list_for(entry), entry.prefix), index).is_some() {
            repeated.push(entry.prefix);
        }
    }
    let mut batches: Vec<Batch> =
        side.lists().iter().map(|list| Batch { list: *list, entries: Vec::new() }).collect();
    for (index, entry) in wanted.into_iter().enumerate() {
        let list = side.list_for(&entry);
        if last.get(&(list, entry.prefix)) == Some(&index)
            && let Some(batch) = batches.iter_mut().find(|batch| batch.list == list)
        {
            batch.entries.push(entry);
        }
    }
    batches.retain(|batch| !batch.entries.is_empty());
    (batches, repeated)
}

fn say_repeated(repeated: &[IpNet]) {
    remarks(repeated.iter().map(|prefix| format!("{prefix} is given more than once; the last one counts")));
}

/// Remarks on stderr, as many as somebody reads.
pub(super) fn remarks(texts: impl ExactSizeIterator<Item = String>) {
    let total = texts.len();
    texts.take(MAX_REMARKS).for_each(|text| eprintln!("{text}"));
    if total > MAX_REMARKS {
        eprintln!("… and {} more like it", total - MAX_REMARKS);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ttl(text: &str) -> Result<Duration, String> {
    match feed::parse_duration(text)? {
        Duration::ZERO => Err("a time to live of 0 would be over before it began".to_owned()),
        duration => Ok(duration),
    }
}

fn label(text: &str) -> Result<String, String> {
    feed::check_label(text).map(|()| text.to_owned())
}

fn evidence(text: &str) -> Result<String, String> {
    check_evidence(text).map(|()| text.to_owned())
}

/// Refuses what would deny the address that the command itself comes from, unless an allow entry lets it in.
pub(super) fn refuse_own_address(
    side: Side,
    prefixes: impl Iterator<Item = IpNet>,
    backend: &Backend,
) -> Outcome {
    refuse_address(side, prefixes, own_address::of_the_session(), backend)
}

fn refuse_address(
    side: Side,
    prefixes: impl Iterator<Item = IpNet>,
    address: Option<IpAddr>,
    backend: &Backend,
) -> Outcome {
    let Some(address) = address.filter(|_| side == Side::Deny) else { return Ok(()) };
    let Some(prefix) = import::covers(prefixes, address) else { return Ok(()) };
    let packet = ExplainBody { source: address, destination: None };
    if backend.explain(packet)?.explanation.reason == "allow_list" {
        return Ok(());
    }
    Err(Failure::Wrong(format!(
        "{prefix} covers {address}, from where you are connected, and would lock you out; nothing was changed. \
         `gateway allow add {address}` first, if that is what you want"
    )))
}

/// A line on stderr that counts up, where somebody sees it and the list is long.
pub(super) struct Progress {
    total: usize,
    shown: Option<usize>,
    on: bool,
}

impl Progress {
    pub(super) fn of(total: usize) -> Self {
        Self { total, shown: None, on: total >= PROGRESS_FROM && std::io::stderr().is_terminal() }
    }

    pub(super) fn at(&mut self, done: usize) {
        let percent = done.saturating_mul(100) / self.total.max(1);
        if self.on && self.shown != Some(percent) {
            self.shown = Some(percent);
            let bar = "#".repeat(percent.min(100) * BAR_CHARS / 100);
            eprint!("\r[{bar:<BAR_CHARS$}] {percent:>3} % of {} entries", self.total);
            let _ = std::io::stderr().flush();
        }
    }

    pub(super) fn end(self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
