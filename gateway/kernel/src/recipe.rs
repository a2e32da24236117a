//! How the bytes of a source become a named list: the same for `import`, for the configuration and for a feed that
//! refreshes by itself.

use std::time::Duration;

use crate::entry::{ListEntry, ListKind, NewEntry, NewList};
use crate::feed::mmdb::{self, MmdbError};
use crate::feed::{self, Feed, FeedEntry, Format, Options};

/// What is known of a list before its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Allow or deny.
    pub kind: ListKind,
    /// The list's name.
    pub name: String,
    /// Where it comes from, for people.
    pub source: String,
    /// The label of every entry, whatever its line says.
    pub reason: Option<String>,
    /// The label of entries that have none.
    pub label: String,
    /// Whether the whole list only counts.
    pub shadow: bool,
    /// What the bytes are.
    pub form: Form,
}

/// What the bytes of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A list file.
    Feed {
        /// How it is written.
        format: Format,
        /// What else is accepted.
        options: Options,
    },
    /// A MaxMind or DB-IP database.
    Mmdb {
        /// ISO 3166 codes of countries.
        countries: Vec<String>,
        /// Numbers of autonomous systems.
        asns: Vec<u32>,
    },
}

/// What a source's bytes gave.
#[derive(Debug)]
pub struct Prepared {
    /// The list; without the lines that have a time to live.
    pub list: NewList,
    /// The lines that have one.
    pub timed: Vec<NewEntry>,
    /// What could not be read: the feed without its entries.
    pub mistakes: Feed,
}

impl Recipe {
    /// Reads a source's bytes, which are let go of as soon as they are read.
    ///
    /// # Errors
    /// A database that cannot be used. Lines of a list file that cannot be read are told beside the rest.
    pub fn prepare(&self, bytes: Vec<u8>) -> Result<Prepared, MmdbError> {
        match &self.form {
            Form::Feed { format, options } => {
                let feed = feed::parse_as(&bytes, format, *options);
                drop(bytes);
                Ok(self.of_feed(feed))
            }
            Form::Mmdb { countries, asns } => {
                let prefixes = mmdb::select(bytes, countries, asns)?;
                let label = self.reason.as_ref().unwrap_or(&self.label).clone();
                let entries = prefixes
                    .into_iter()
                    .map(|prefix| ListEntry { prefix, label: 0, shadow: false })
                    .collect();
                Ok(Prepared {
                    list: self.list(vec![label], entries),
                    timed: Vec::new(),
                    mistakes: Feed::default(),
                })
            }
        }
    }

    /// The list that a feed makes.
    pub fn of_feed(&self, mut feed: Feed) -> Prepared {
        // Without a reason for all, the list's own label comes behind those of the lines.
        let own = feed.labels.len() as u32;
        let label_of = |entry: &FeedEntry| match &self.reason {
            Some(_) => 0,
            None => entry.label.min(own),
        };
        let mut timed = Vec::new();
        let mut entries = Vec::with_capacity(feed.entries.len());
        for entry in &feed.entries {
            if entry.ttl_ms > 0 {
                timed.push(NewEntry {
                    prefix: entry.prefix,
                    rule: self.reason.as_deref().or(feed.reason(entry)).unwrap_or(&self.label).to_owned(),
                    ttl: Some(Duration::from_millis(entry.ttl_ms)),
                    shadow: self.shadow || entry.shadow,
                });
            } else {
                entries.push(ListEntry {
                    prefix: entry.prefix,
                    label: label_of(entry),
                    shadow: entry.shadow,
                });
            }
        }
        feed.entries = Vec::new();
        let labels = match &self.reason {
            Some(reason) => vec![reason.clone()],
            None => used(std::mem::take(&mut feed.labels), &self.label, &mut entries),
        };
        Prepared { list: self.list(labels, entries), timed, mistakes: feed }
    }

    fn list(&self, labels: Vec<String>, entries: Vec<ListEntry>) -> NewList {
        NewList {
            kind: self.kind,
            name: self.name.clone(),
            source: self.source.clone(),
            shadow: self.shadow,
            labels,
            entries,
        }
    }
}

/// The labels that entries use, and no others, for each takes a row of the table of rules.
fn used(mut labels: Vec<String>, own: &str, entries: &mut [ListEntry]) -> Vec<String> {
    labels.push(own.to_owned());
    let mut numbers = vec![u32::MAX; labels.len()];
    let mut kept = Vec::new();
    for entry in entries {
        let old = (entry.label as usize).min(labels.len() - 1);
        if numbers[old] == u32::MAX {
            numbers[old] = kept.len() as u32;
            kept.push(labels[old].clone());
        }
        entry.label = numbers[old];
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(reason: Option<&str>) -> Recipe {
        Recipe {
            kind: ListKind::Deny,
            name: "feed".into(),
            source: "feed.txt".into(),
            reason: reason.map(str::to_owned),
            label: "feed.txt".into(),
            shadow: false,
            form: Form::Feed { format: Format::Auto, options: Options::default() },
        }
    }

    #[test]
    fn labels_are_those_of_the_lines_or_the_one_for_all() {
        let text = "192.0.2.1 reason=scan\n192.0.2.2\n192.0.2.3 reason=spam ttl=1m\n192.0.2.4 reason=scan shadow\nx\n";
        for (reason, labels, numbers, timed) in [
            (None, &["scan", "feed.txt"][..], &[0, 1, 0][..], "spam"),
            (Some("mine"), &["mine"][..], &[0, 0, 0][..], "mine"),
        ] {
            let prepared = recipe(reason).prepare(text.into()).unwrap();
            assert_eq!(prepared.list.labels, labels);
            let found: Vec<u32> = prepared.list.entries.iter().map(|entry| entry.label).collect();
            assert_eq!(found, numbers);
            assert_eq!(prepared.list.entries.iter().filter(|entry| entry.shadow).count(), 1);
            assert_eq!(prepared.timed.len(), 1);
            assert_eq!(prepared.timed[0].rule, timed);
            assert_eq!(prepared.mistakes.error_count, 1);
        }
    }
}
