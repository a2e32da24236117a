//! The entries of `kernel.allow` and `kernel.deny`, written in the configuration or in the files it names.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use gateway_kernel::NewEntry;
use gateway_kernel::feed::{self, Feed, FeedEntry, FeedError};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use crate::config::keys::ListItem;
use crate::config::read_bounded;
use crate::config::reader::Reader;
use crate::config::report::Diagnostic;
use crate::config::shape::Located;

/// Bytes of one list file: some ten million lines.
const MAX_LIST_BYTES: usize = 256 * 1024 * 1024;
/// Characters of a bad line that the report repeats.
const MAX_SHOWN_CHARS: usize = 200;

/// A list, each prefix once: of several with one prefix the last counts, in the position of the first. The
/// bytes of every file go into the hash.
pub(crate) fn lower(
    items: &[Located<ListItem>],
    reader: &mut Reader<'_>,
    base_dir: &Path,
    hash: &mut Sha256,
) -> List {
    let mut list = List::default();
    for (index, item) in items.iter().enumerate() {
        list.item = u32::try_from(index).unwrap_or(u32::MAX);
        match (&item.value.cidr, &item.value.file) {
            (Some(cidr), None) => list.add_prefix(&item.value, cidr),
            (None, Some(file)) => list.add_file(&item.value, file, reader, base_dir, hash),
            (Some(_), Some(file)) => {
                reader.error::<()>(file.place, "an entry has `cidr` or `file`, not both");
            }
            // Nothing, or something that could not be read and is reported already.
            (None, None) => {}
        }
    }
    list
}

/// A list's entries, and where each came from.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) entries: Vec<NewEntry>,
    /// For each entry, the item of the configuration that brought it.
    pub(crate) items: Vec<u32>,
    positions: HashMap<IpNet, usize>,
    /// The item under way.
    item: u32,
}

impl List {
    pub(crate) fn add(&mut self, entry: NewEntry) {
        match self.positions.entry(entry.prefix) {
            Entry::Occupied(position) => {
                self.entries[*position.get()] = entry;
                self.items[*position.get()] = self.item;
            }
            Entry::Vacant(free) => {
                free.insert(self.entries.len());
                self.entries.push(entry);
                self.items.push(self.item);
            }
        }
    }

    fn add_prefix(&mut self, item: &ListItem, cidr: &Located<IpNet>) {
        let rule = item.reason.clone().unwrap_or_else(|| cidr.value.to_string());
        self.add(NewEntry { prefix: cidr.value, rule, ttl: None, shadow: item.shadow });
    }

    fn add_file(
        &mut self,
        item: &ListItem,
        file: &Located<String>,
        reader: &mut Reader<'_>,
        base_dir: &Path,
        hash: &mut Sha256,
    ) {
        let Some(label) = label(item, file, reader) else { return };
        let shown = file.written.as_ref().unwrap_or(&file.value);
        let bytes = match read_bounded(&base_dir.join(&file.value), MAX_LIST_BYTES) {
            Ok(bytes) => bytes,
            Err(why) => {
                let message = format!("cannot read the list {}: {why}", feed::shown(shown));
                reader.error::<()>(file.place, message);
                return;
            }
        };
        // The length in front keeps one file's end from passing for the next one's beginning.
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(&bytes);
        let name = match &file.written {
            Some(written) => written.clone(),
            None => base_dir.join(&file.value).display().to_string(),
        };
        let feed = refuse_ttl(feed::parse(&bytes));
        report(&feed, &bytes, &name, reader);
        for entry in &feed.entries {
            let rule = feed.reason(entry).unwrap_or(&label).to_owned();
            self.add(NewEntry { prefix: entry.prefix, rule, ttl: None, shadow: item.shadow || entry.shadow });
        }
    }
}

/// The label of a file's entries: the reason given, or the file's name.
fn label(item: &ListItem, file: &Located<String>, reader: &mut Reader<'_>) -> Option<String> {
    if let Some(reason) = &item.reason {
        return Some(reason.clone());
    }
    let name = Path::new(&file.value).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match feed::check_label(name) {
        Ok(()) => Some(name.to_owned()),
        Err(why) => {
            let message = format!("the file's name cannot be the rule's label ({why}); give it a `reason`");
            reader.error(file.place, message)
        }
    }
}

/// What the configuration lists holds for as long as it is listed: a time to live would begin anew with
/// every reload and never end.
fn refuse_ttl(mut feed: Feed) -> Feed {
    let Feed { entries, errors, error_count, .. } = &mut feed;
    for FeedEntry { line, .. } in entries.iter().filter(|entry| entry.ttl_ms > 0) {
        *error_count += 1;
        if errors.len() < feed::MAX_ERRORS {
            let why = "a list of the configuration has no ttl, it would begin anew with every reload; import the \
                       file with `gateway deny import` or `gateway allow import`";
            errors.push(FeedError { line: *line as usize, text: "ttl=".to_owned(), why: why.to_owned() });
        }
    }
    errors.sort_by_key(|error| error.line);
    feed
}

fn report(feed: &Feed, bytes: &[u8], name: &str, reader: &mut Reader<'_>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = bytes.split(|&byte| byte == b'\n').enumerate().peekable();
    for error in &feed.errors {
        // A line may have several errors, so that it is only looked at.
        while lines.next_if(|(index, _)| index + 1 < error.line).is_some() {}
        let line = lines.peek().map_or(&b""[..], |(_, line)| *line);
        let line = String::from_utf8_lossy(&line[..line.len().min(4 * MAX_SHOWN_CHARS)]);
        let source_line: String = line.trim_end().chars().take(MAX_SHOWN_CHARS).collect();
        let marked = error.text.trim_end_matches('…');
        let (before, length) = match source_line.find(marked) {
            Some(start) => (source_line[..start].chars().count(), marked.chars().count()),
            None => (0, source_line.chars().count()),
        };
        reader.findings.push(Diagnostic {
            file: name.to_owned(),
            line: error.line,
            column: before + 1,
            length: length.max(1),
            message: error.why.clone(),
            suggestion: None,
            valid: Vec::new(),
            source_line,
        });
    }
    reader.findings.count_more(feed.error_count - feed.errors.len());
}
