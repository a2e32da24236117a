//! The lists of `kernel.allow` and `kernel.deny`: prefixes written in the configuration, and what it says of lists that
//! come from elsewhere. Files are read here, so that `check` finds their mistakes; what is fetched is taken as
//! it was fetched last.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gateway_kernel::feed::{self, Column, Feed, FeedEntry, FeedError, Format, Options};
use gateway_kernel::{Form, ListEntry, ListKind, NewList, Recipe, check_list_name};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use crate::config::keys::{ListFormat, ListItem};
use crate::config::node::Place;
use crate::config::read_bounded;
use crate::config::reader::Reader;
use crate::config::report::{Diagnostic, Severity};
use crate::config::shape::Located;
use crate::model::ListSource;
use crate::sources::{self, Origin, Url};

/// Bytes of one list file: some ten million lines.
const MAX_LIST_BYTES: usize = 256 * 1024 * 1024;
/// Characters of a bad line that the report repeats.
const MAX_SHOWN_CHARS: usize = 200;
/// How long fetching a list may take, whatever its server does.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The list of the prefixes of a kind that stand in the configuration itself.
fn own_list(kind: ListKind) -> String {
    format!("config-{}", kind.name())
}

/// Whether a name is the configuration's: a list of an operator's under it would keep a configuration with prefixes
/// of its own from being loaded.
pub(crate) fn is_own_list(name: &str) -> bool {
    [ListKind::Allow, ListKind::Deny].into_iter().any(|kind| own_list(kind) == name)
}

/// The lists of one kind.
#[derive(Default)]
pub(crate) struct Lists {
    /// In their order, each with the place that brought it.
    pub(crate) lists: Vec<(Place, NewList)>,
    /// Those that refresh by themselves.
    pub(crate) sources: Vec<ListSource>,
}

/// Reports lists that have one name.
pub(crate) fn check_names(lists: &[(Place, NewList)], reader: &mut Reader<'_>) {
    let mut names = HashMap::new();
    for (place, list) in lists {
        if let Some(other) = names.insert(list.name.as_str(), place) {
            let message = format!(
                "two lists are called {}, the other one on line {}; give one of them a `name`",
                list.name, other.line
            );
            reader.error::<()>(*place, message);
        }
    }
}

/// Where paths start from, and what goes into the configuration's hash.
pub(crate) struct Surroundings<'a> {
    pub(crate) base_dir: &'a Path,
    pub(crate) cache: &'a Path,
    pub(crate) hash: &'a mut Sha256,
}

/// The lists of one kind. The bytes of every file go into the hash.
pub(crate) fn lower(
    kind: ListKind,
    items: &[Located<ListItem>],
    reader: &mut Reader<'_>,
    around: &mut Surroundings<'_>,
) -> Lists {
    let mut lists = Lists::default();
    let mut own = Own::default();
    for Located { value: item, place, .. } in items {
        let place = *place;
        let origins = [item.cidr.is_some(), item.file.is_some(), item.url.is_some(), item.mmdb.is_some()];
        match origins.iter().filter(|there| **there).count() {
            // Something that could not be read and is reported already.
            0 => continue,
            1 => {}
            _ => {
                reader.error::<()>(place, "an entry has one of `cidr`, `file`, `url` and `mmdb`");
                continue;
            }
        }
        check_keys(item, place, reader);
        if let Some(cidr) = &item.cidr {
            own.add(item, cidr.value, place);
        } else if let Some((list, source)) = from_elsewhere(kind, item, reader, around) {
            lists.lists.push((place, list));
            lists.sources.push(source);
        }
    }
    lists.lists.splice(0..0, own.into_list(kind));
    lists
}

/// Reports keys that mean nothing beside the one that says where the list comes from: whoever wrote them expects
/// something of them.
fn check_keys(item: &ListItem, place: Place, reader: &mut Reader<'_>) {
    let (fetched, database) = (item.url.is_some(), item.mmdb.is_some());
    let written = item.file.is_some() || fetched;
    let keys = [
        ("name", item.name.is_some(), item.cidr.is_none(), "`file`, `url` and `mmdb`"),
        ("format", item.format != ListFormat::Auto, written, "`file` and `url`"),
        ("column", item.column.is_some(), written, "`file` and `url`"),
        ("country", !item.country.is_empty(), database, "`mmdb`"),
        ("asn", !item.asn.is_empty(), database, "`mmdb`"),
        ("ca", item.ca.is_some(), fetched, "`url`"),
    ];
    for (key, _, _, whose) in keys.iter().filter(|(_, given, belongs, _)| *given && !belongs) {
        reader.error::<()>(place, format!("`{key}` is a key of {whose}"));
    }
}

/// Prefixes that stand in the configuration, each once: of several the last counts, in the position of the first.
#[derive(Default)]
struct Own {
    first: Option<Place>,
    labels: Vec<String>,
    numbers: HashMap<String, u32>,
    entries: Vec<ListEntry>,
    positions: HashMap<IpNet, usize>,
}

impl Own {
    fn add(&mut self, item: &ListItem, prefix: IpNet, place: Place) {
        self.first.get_or_insert(place);
        let rule = item.reason.clone().unwrap_or_else(|| prefix.to_string());
        let label = *self.numbers.entry(rule).or_insert_with_key(|rule| {
            self.labels.push(rule.clone());
            self.labels.len() as u32 - 1
        });
        let entry = ListEntry { prefix, label, shadow: item.shadow };
        match self.positions.entry(prefix) {
            std::collections::hash_map::Entry::Occupied(position) => self.entries[*position.get()] = entry,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    fn into_list(self, kind: ListKind) -> Option<(Place, NewList)> {
        let list = NewList {
            kind,
            name: own_list(kind),
            source: "the configuration".to_owned(),
            shadow: false,
            labels: self.labels,
            entries: self.entries,
        };
        Some((self.first?, list))
    }
}

fn from_elsewhere(
    kind: ListKind,
    item: &ListItem,
    reader: &mut Reader<'_>,
    around: &mut Surroundings<'_>,
) -> Option<(NewList, ListSource)> {
    let (written, origin) = origin(item, around.base_dir)?;
    let name = name(item, written, &origin, reader)?;
    let recipe = Recipe {
        kind,
        source: match &origin {
            Origin::File { .. } => feed::shown(shown_name(written)),
            // Without credentials and query: whoever may look at the lists sees it.
            Origin::Url(_) => feed::shown(&origin.to_string()),
        },
        // A line may name its own, so this is not one for all.
        reason: None,
        label: item.reason.clone().unwrap_or_else(|| name.clone()),
        name,
        shadow: item.shadow,
        form: form(item, reader)?,
    };
    let list = match &origin {
        Origin::File { path } => read_file(&recipe, path, written, reader, around)?,
        Origin::Url(url) => match sources::last_good(around.cache, &url.url) {
            Some(bytes) => fetched(&recipe, bytes, written, reader)?,
            None => recipe.of_feed(Feed::default()).list,
        },
    };
    Some((list, ListSource { recipe, origin, max_change: item.max_change }))
}

/// Where a list comes from, and where that is written.
fn origin<'a>(item: &'a ListItem, base_dir: &Path) -> Option<(&'a Located<String>, Origin)> {
    if let Some(url) = &item.url {
        let origin = Url {
            url: url.value.clone(),
            refresh: item.refresh,
            timeout: FETCH_TIMEOUT,
            max_bytes: item.max_size as u64,
            ca: item.ca.as_ref().map(|path| base_dir.join(path)),
        };
        return Some((url, Origin::Url(origin)));
    }
    let file = item.file.as_ref().or(item.mmdb.as_ref())?;
    Some((file, Origin::File { path: base_dir.join(&file.value) }))
}

fn form(item: &ListItem, reader: &mut Reader<'_>) -> Option<Form> {
    if let Some(mmdb) = &item.mmdb {
        if item.country.is_empty() && item.asn.is_empty() {
            return reader
                .error(mmdb.place, "a database needs `country` or `asn`, or the list would be empty");
        }
        let asns = item.asn.iter().map(|asn| u32::try_from(*asn).unwrap_or(u32::MAX)).collect();
        return Some(Form::Mmdb { countries: item.country.clone(), asns });
    }
    let format = match (item.format, &item.column) {
        (ListFormat::Auto, None) => Format::Auto,
        (ListFormat::Plain, None) => Format::Plain,
        (ListFormat::Ipset, None) => Format::Ipset,
        (ListFormat::Nft, None) => Format::Nft,
        (ListFormat::SpamhausJson, None) => Format::SpamhausJson,
        (ListFormat::Csv, None) => Format::Csv { column: Column::Number(1) },
        (ListFormat::Csv | ListFormat::Auto, Some(column)) => {
            Format::Csv { column: column_of(&column.value) }
        }
        (_, Some(column)) => return reader.error(column.place, "only a CSV file has columns"),
    };
    Some(Form::Feed { format, options: Options::default() })
}

/// A column by its number, if that is what it looks like, or by its name.
pub(crate) fn column_of(text: &str) -> Column {
    match text.parse() {
        Ok(number) => Column::Number(number),
        Err(_) => Column::Name(text.to_owned()),
    }
}

/// The text of a value that a reference stood for is not repeated.
fn shown_name(written: &Located<String>) -> &str {
    written.written.as_ref().unwrap_or(&written.value)
}

/// A list's name: the one given, or the file's.
fn name(
    item: &ListItem,
    written: &Located<String>,
    origin: &Origin,
    reader: &mut Reader<'_>,
) -> Option<String> {
    if let Some(name) = &item.name {
        return Some(name.value.clone());
    }
    let path = match origin {
        Origin::File { path } => path.clone(),
        // Without credentials and query, and without the host, which is no file.
        Origin::Url(_) => {
            let shown = origin.to_string();
            let path = shown.split('?').next().unwrap_or_default();
            path.splitn(4, '/').skip(3).collect::<String>().into()
        }
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match check_list_name(name) {
        Ok(()) => Some(name.to_owned()),
        Err(why) => reader.error(
            written.place,
            format!("the file's name cannot be the list's name ({why}); give it a `name`"),
        ),
    }
}

fn read_file(
    recipe: &Recipe,
    path: &Path,
    written: &Located<String>,
    reader: &mut Reader<'_>,
    around: &mut Surroundings<'_>,
) -> Option<NewList> {
    let bytes = match read_bounded(path, MAX_LIST_BYTES) {
        Ok(bytes) => bytes,
        Err(why) => {
            let message = format!("cannot read the list {}: {why}", feed::shown(shown_name(written)));
            return reader.error(written.place, message);
        }
    };
    // The length in front keeps one file's end from passing for the next one's beginning.
    around.hash.update((bytes.len() as u64).to_be_bytes());
    around.hash.update(&bytes);
    let name: PathBuf = match &written.written {
        Some(written) => written.into(),
        None => path.to_owned(),
    };
    read(recipe, bytes, &name.display().to_string(), written.place, reader)
}

/// What was fetched last and was good then; a mistake in it is not one of the configuration.
fn fetched(
    recipe: &Recipe,
    bytes: Vec<u8>,
    written: &Located<String>,
    reader: &mut Reader<'_>,
) -> Option<NewList> {
    match recipe.prepare(bytes) {
        Ok(prepared) => Some(prepared.list),
        Err(error) => {
            reader.error(written.place, format!("cannot use the database that was fetched: {error}"))
        }
    }
}

fn read(
    recipe: &Recipe,
    bytes: Vec<u8>,
    name: &str,
    place: Place,
    reader: &mut Reader<'_>,
) -> Option<NewList> {
    let Form::Feed { format, options } = &recipe.form else {
        return match recipe.prepare(bytes) {
            Ok(prepared) => Some(prepared.list),
            Err(error) => reader.error(place, format!("cannot use the database {name}: {error}")),
        };
    };
    let feed = refuse_ttl(feed::parse_as(&bytes, format, *options));
    report(&feed, &bytes, name, reader);
    Some(recipe.of_feed(feed).list)
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
            severity: Severity::Error,
            file: name.to_owned(),
            line: error.line,
            column: before + 1,
            length: length.max(1),
            // The configuration has no such switch: what would cover everything is `default: drop`.
            message: error.why.trim_end_matches("; `--force` takes it").to_owned(),
            suggestion: None,
            valid: Vec::new(),
            source_line,
        });
    }
    reader.findings.count_more(feed.error_count - feed.errors.len());
}
