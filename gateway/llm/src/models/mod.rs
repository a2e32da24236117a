//! What models can and what they cost: a table that comes with the program, dated, which a file of the user's can change.
//!
//! Names are forgiving, since one model has many: `claude-sonnet-4-5-20250929`, `anthropic/claude-sonnet-4.5`,
//! `us.anthropic.claude-sonnet-4-5-20250929-v1:0` and `claude-sonnet-4-5@20250929` are one. What no entry names is unknown:
//! nothing is guessed from a name that looks like another, and an unknown model has no price rather than none to pay.

mod price;
mod read;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use price::{Card, Prices, Rates, Tier};

use crate::invalid::Invalid;
use crate::neutral::Usage;
use crate::target::{self, Thinking};

/// The table that comes with the program. Prices are those that the makers ask, in micro-dollars for a million tokens;
/// facts of open weights have no prices, which hosts make. Dates and figures were taken from the makers' own pages.
const EMBEDDED: &str = include_str!("models.json");

/// How many models a table may have.
pub const MAX_MODELS: usize = 10_000;

/// How long a model's name may be. Longer ones are unknown.
pub const MAX_NAME: usize = 256;

/// A kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the kinds of content")]
pub enum Modality {
    Text,
    Image,
    Document,
    Audio,
    Video,
}

/// A model. What is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name. One that ends in `*` is every name that begins so.
    pub id: String,
    /// Other names, which may end in `*`, too.
    pub aliases: Vec<String>,
    /// Who made it.
    pub owner: Option<String>,
    /// When this was true, as `2026-11`.
    pub as_of: String,
    /// Tokens of prompt and answer together, or of the prompt where a maker bounds the two apart (Gemini).
    pub context_tokens: Option<u64>,
    /// Tokens of an answer at most, reasoning included.
    pub output_tokens: Option<u64>,
    /// What it takes.
    pub input: Option<Vec<Modality>>,
    /// What it answers with.
    pub output: Option<Vec<Modality>>,
    /// Whether it calls tools.
    pub tools: Option<bool>,
    /// Whether it calls several at once.
    pub parallel_tools: Option<bool>,
    /// Whether its answers follow a JSON schema.
    pub structured_output: Option<bool>,
    /// How it is told to think.
    pub thinking: Option<Thinking>,
    /// Whether it takes sampling parameters.
    pub takes_sampling: Option<bool>,
    /// Whether it takes instructions within the conversation (Anthropic).
    pub system_turns: Option<bool>,
    /// What it costs.
    pub prices: Option<Prices>,
}

impl Entry {
    /// What encoders have to know of it.
    #[must_use]
    pub const fn facts(&self) -> target::Model {
        target::Model {
            context_tokens: self.context_tokens,
            output_tokens: self.output_tokens,
            thinking: self.thinking,
            takes_sampling: self.takes_sampling,
            structured_output: self.structured_output,
            system_turns: self.system_turns,
        }
    }
}

/// Models.
#[derive(Debug, Clone, Default)]
pub struct Models {
    entries: Vec<Entry>,
    /// Names and aliases, in lower case, and whose they are.
    names: HashMap<String, usize>,
    /// Beginnings of names, longest first.
    beginnings: Vec<(String, usize)>,
}

impl Models {
    /// The table that comes with the program.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static TABLE: LazyLock<Models> = LazyLock::new(|| {
            // A test reads it: there is no table that cannot be read, and none is no reason to stop.
            Models::default().merged(EMBEDDED).unwrap_or_default()
        });
        &TABLE
    }

    /// This table, changed by a file: a field that an entry names replaces the one that was known, `prices` as a whole; an
    /// entry of another name is added.
    ///
    /// # Errors
    /// When the file is no such table: the path names the field, as in `models[3].prices.input`.
    pub fn merged(&self, file: &str) -> Result<Self, Invalid> {
        let mut entries = self.entries.clone();
        read::merge(file, &mut entries)?;
        Ok(Self::of(entries))
    }

    /// Later entries win where two have a name in common, so that a user's are heard.
    fn of(entries: Vec<Entry>) -> Self {
        let mut names = HashMap::new();
        let mut beginnings = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            // An entry's own name is never taken from it by another's alias.
            for alias in &entry.aliases {
                match alias.strip_suffix('*') {
                    Some(beginning) => beginnings.push((beginning.to_lowercase(), index)),
                    None => drop(names.insert(alias.to_lowercase(), index)),
                }
            }
        }
        for (index, entry) in entries.iter().enumerate() {
            match entry.id.strip_suffix('*') {
                Some(beginning) => beginnings.push((beginning.to_lowercase(), index)),
                None => drop(names.insert(entry.id.to_lowercase(), index)),
            }
        }
        beginnings.sort_by_key(|(beginning, index)| {
            (std::cmp::Reverse(beginning.len()), std::cmp::Reverse(*index))
        });
        Self { entries, names, beginnings }
    }

    /// All of them, in the order of the table.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The model of a name, in whatever way it is written.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        if name.len() > MAX_NAME {
            return None;
        }
        let name = name.to_lowercase();
        let found = prefixes(&name).find_map(|name| self.exact(name).or_else(|| self.beginning(name)));
        found.map(|index| &self.entries[index])
    }

    /// The model of a name at a host: prices that the host makes (`groq/openai/gpt-oss-120b`) go before those of the maker.
    #[must_use]
    pub fn find_at(&self, host: &str, name: &str) -> Option<&Entry> {
        self.find(&format!("{host}/{name}")).or_else(|| self.find(name))
    }

    /// What a request cost, in micro-dollars, rounded up; `None` where the model or its price is not known.
    #[must_use]
    pub fn cost(&self, name: &str, usage: &Usage, tier: Tier) -> Option<u64> {
        Some(self.find(name)?.prices.as_ref()?.cost(usage, tier))
    }

    fn exact(&self, name: &str) -> Option<usize> {
        stems(name).find_map(|stem| self.names.get(stem).copied())
    }

    fn beginning(&self, name: &str) -> Option<usize> {
        self.beginnings
            .iter()
            .find(|(beginning, _)| name.starts_with(beginning.as_str()))
            .map(|(_, index)| *index)
    }
}

/// A name, and what is left of it without each of the words in front of it: hosts and makers before a slash, and before a
/// dot regions and makers as Bedrock writes them.
fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    const BEFORE_DOT: &[&str] = &[
        "us",
        "eu",
        "apac",
        "jp",
        "au",
        "us-gov",
        "global",
        "anthropic",
        "meta",
        "mistral",
        "amazon",
        "openai",
        "qwen",
        "deepseek",
        "google",
    ];
    std::iter::successors(Some(name), |rest| {
        if let Some((_, after)) = rest.split_once('/') {
            return Some(after);
        }
        rest.split_once('.').filter(|(before, _)| BEFORE_DOT.contains(before)).map(|(_, after)| after)
    })
}

/// A name, and what is left of it without each of the marks behind it: dates, versions, `-latest`, `-preview`, tags.
fn stems(name: &str) -> impl Iterator<Item = &str> {
    // `ft:gpt-4.1-2025-04-14:acme::abc`: a fine-tuned model costs what all of its base cost.
    let tuned = name.starts_with("ft:").then(|| name.match_indices(':').nth(1)).flatten();
    let name = tuned.map_or(name, |(end, _)| &name[..end]);
    std::iter::successors(Some(name), |rest| without_mark(rest))
}

fn without_mark(name: &str) -> Option<&str> {
    if let Some((before, _)) = name.rsplit_once('@') {
        return Some(before);
    }
    if let Some((before, _)) = name.rsplit_once(':').filter(|(before, _)| *before != "ft") {
        return Some(before);
    }
    let (before, last) = name.rsplit_once('-')?;
    let is_number =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_version = last.strip_prefix('v').is_some_and(|digits| is_number(digits, 1));
    if matches!(last, "latest" | "preview")
        || is_version
        || [3, 4, 8].iter().any(|digits| is_number(last, *digits))
    {
        return Some(before);
    }
    // 2025-04-14, and 05-20 behind `preview`.
    let (earlier, month) = before.rsplit_once('-')?;
    if !is_number(last, 2) || !is_number(month, 2) {
        return None;
    }
    match earlier.rsplit_once('-') {
        Some((first, year)) if is_number(year, 4) => Some(first),
        Some((_, "preview")) => Some(earlier),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
