//! List entries as people and programs outside the kernel speak of them.

use std::time::Duration;

use gateway_common::abi::{Entry, List};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The lists a packet's source is looked up in, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// Sources that pass whatever the later lists say.
    Allow,
    /// Denied sources with a time to live.
    Ban,
    /// Denied sources without one.
    Deny,
}

/// Who keeps an entry alive. An entry leaves the list when its last owner gives it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The configuration file: entries come and go with reloads.
    Config,
    /// Somebody at the command line or the admin API.
    Operator,
}

impl From<ListKind> for List {
    fn from(list: ListKind) -> Self {
        match list {
            ListKind::Allow => Self::Allow,
            ListKind::Ban => Self::Ban,
            ListKind::Deny => Self::Deny,
        }
    }
}

impl From<List> for ListKind {
    fn from(list: List) -> Self {
        match list {
            List::Allow => Self::Allow,
            List::Ban => Self::Ban,
            List::Deny => Self::Deny,
        }
    }
}

impl Owner {
    /// Its bit in an entry's flags.
    pub(crate) const fn bit(self) -> u16 {
        match self {
            Self::Config => Entry::CONFIG,
            Self::Operator => Entry::OPERATOR,
        }
    }
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    /// Host bits are zero.
    pub prefix: IpNet,
    /// The label its hits are counted under: a reason, a file's name or the prefix itself.
    pub rule: String,
    /// How long it holds; `None` is until it is deleted.
    pub ttl: Option<Duration>,
    /// Count what it would drop, and let it pass.
    pub shadow: bool,
}

/// How the programs are attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// In the driver, else in the network stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack.
    Generic,
    /// Not at all: the same lists at accept, in userspace.
    Off,
}

/// What happens to packets that no entry names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultVerdict {
    /// They pass.
    #[default]
    Pass,
    /// They are dropped, unless they answer what the host sent.
    Drop,
}

impl DefaultVerdict {
    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}
