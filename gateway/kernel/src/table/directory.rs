//! What a generation's lists are: for people and for the next writer; the programs never look.

use gateway_common::table::LINE_WORDS;
use serde::{Deserialize, Serialize};

use super::layout::{head, pair};
use super::memory::Memory;
use crate::entry::{ListKind, Owner};

/// One list of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInfo {
    /// Allow or deny.
    pub kind: ListKind,
    /// Its name, one of its kind.
    pub name: String,
    /// Who brought it.
    pub owner: Owner,
    /// Where it came from: a file, a URL, the configuration.
    pub source: String,
    /// Whether the whole list only counts.
    pub shadow: bool,
    /// Prefixes of IPv4.
    pub entries_v4: u64,
    /// Prefixes of IPv6.
    pub entries_v6: u64,
    /// The generation in which it became what it is.
    pub generation: u64,
    /// When that was, in seconds since the Unix epoch.
    pub loaded_at: u64,
    /// Of its prefixes and rules: two lists with one digest are one.
    pub(crate) digest: u64,
    /// Numbers of its rules.
    pub(crate) rules: Vec<u32>,
}

impl ListInfo {
    /// Prefixes of both families.
    pub fn entries(&self) -> u64 {
        self.entries_v4 + self.entries_v6
    }
}

/// All lists of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Directory {
    pub(crate) lists: Vec<ListInfo>,
}

impl Directory {
    /// As a table keeps it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings and numbers always is JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a table's; what cannot be read has no lists.
    pub(crate) fn read(memory: &Memory) -> Self {
        let (first, bytes) = pair(memory, 0, head::DIRECTORY);
        let words = memory.words();
        let start = first as usize * LINE_WORDS;
        let used = words.get(start..start + (bytes as usize).div_ceil(8)).unwrap_or_default();
        let mut text: Vec<u8> = used
            .iter()
            .flat_map(|word| word.load(std::sync::atomic::Ordering::Acquire).to_le_bytes())
            .collect();
        text.truncate(bytes as usize);
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it where the layout has made room.
    pub(crate) fn write(bytes: &[u8], memory: &Memory) {
        let (first, _) = pair(memory, 0, head::DIRECTORY);
        for (index, eight) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            let line = first + (index / LINE_WORDS) as u32;
            memory.set(line, index % LINE_WORDS, u64::from_le_bytes(word));
        }
    }

    /// A list by kind and name.
    pub(crate) fn find(&self, kind: ListKind, name: &str) -> Option<&ListInfo> {
        self.lists.iter().find(|list| list.kind == kind && list.name == name)
    }
}
