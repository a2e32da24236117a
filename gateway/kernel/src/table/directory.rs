//! What a generation's lists are: for people and for the next writer; the programs never look.

use gateway_common::table::{LINE_WORDS, mix};
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

    /// Reads a table's; what cannot be read has no lists. A list of which something was deleted is another one
    /// than the list that was loaded.
    pub(crate) fn read(memory: &Memory) -> Self {
        let mut directory = Self::as_made(memory);
        for (index, info) in directory.lists.iter_mut().enumerate() {
            let (line, word) = deleted_at(memory, index);
            let (v4, v6) = pair(memory, line, word);
            if (v4, v6) != (0, 0) {
                info.entries_v4 = info.entries_v4.saturating_sub(v4.into());
                info.entries_v6 = info.entries_v6.saturating_sub(v6.into());
                info.digest = mix(info.digest, memory.get(line, word));
            }
        }
        directory
    }

    /// The same as it was when the table was made.
    pub(crate) fn as_made(memory: &Memory) -> Self {
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

    /// Writes it where the layout has made room; what is shorter than that ends in spaces.
    pub(crate) fn write(&self, memory: &Memory) {
        let (first, room) = pair(memory, 0, head::DIRECTORY);
        let mut bytes = self.to_bytes();
        bytes.resize(room as usize, b' ');
        for (index, eight) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            let line = first + (index / LINE_WORDS) as u32;
            memory.set(line, index % LINE_WORDS, u64::from_le_bytes(word));
        }
    }

    /// Says how much of a list is gone since it was loaded.
    pub(crate) fn set_deleted(memory: &Memory, index: usize, v4: u64, v6: u64) {
        let (line, word) = deleted_at(memory, index);
        memory.set(line, word, v4 | v6 << 32);
    }

    /// One prefix more of a list is gone.
    pub(crate) fn count_deleted(memory: &Memory, index: usize, of_v6: bool) {
        let (line, word) = deleted_at(memory, index);
        let (v4, v6) = pair(memory, line, word);
        Self::set_deleted(memory, index, u64::from(v4) + u64::from(!of_v6), u64::from(v6) + u64::from(of_v6));
    }

    /// The list that a rule belongs to.
    pub(crate) fn of_rule(&self, rule: u32) -> Option<usize> {
        self.lists.iter().position(|info| info.rules.binary_search(&rule).is_ok())
    }

    /// A list by kind and name.
    pub(crate) fn find(&self, kind: ListKind, name: &str) -> Option<&ListInfo> {
        self.lists.iter().find(|list| list.kind == kind && list.name == name)
    }
}

fn deleted_at(memory: &Memory, index: usize) -> (u32, usize) {
    let first = memory.get(0, head::DELETED) as u32;
    (first + (index / LINE_WORDS) as u32, index % LINE_WORDS)
}
