//! List entries as people and programs outside the kernel speak of them.

use std::time::Duration;

use gateway_common::abi::List;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Error;

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

impl ListKind {
    /// As commands, metrics and JSON spell it. Entries made singly stand under it as their list's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ban => "ban",
            Self::Deny => "deny",
        }
    }
}

/// Who keeps an entry.
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

/// Who made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum SetBy {
    /// Somebody at the command line.
    Cli = 1,
    /// A program that speaks to the admin API.
    Api = 2,
    /// A policy of the proxy.
    Policy = 3,
}

impl SetBy {
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            2 => Self::Api,
            3 => Self::Policy,
            _ => Self::Cli,
        }
    }
}

/// What is remembered of a decision to list a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who decided.
    pub by: SetBy,
    /// Where the evidence is: the id of a request, a ticket; at most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

impl Note {
    /// Decided at the command line, without evidence.
    pub const CLI: Self = Self { by: SetBy::Cli, evidence: None };
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

/// What a ban may be at most, whoever sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanBounds {
    /// Bans at a time; beyond it the oldest leave.
    pub max: u32,
    /// The longest time to live.
    pub max_ttl: Duration,
    /// The shortest prefix of IPv4.
    pub v4_prefix: u8,
    /// The shortest prefix of IPv6.
    pub v6_prefix: u8,
}

impl Default for BanBounds {
    /// As much as there can be.
    fn default() -> Self {
        Self {
            max: gateway_common::abi::BAN_CAPACITY as u32,
            max_ttl: crate::feed::MAX_DURATION,
            v4_prefix: 0,
            v6_prefix: 0,
        }
    }
}

impl BanBounds {
    /// Why a ban is beyond them.
    pub(crate) fn refuse(&self, ban: &NewEntry) -> Result<(), Error> {
        let NewEntry { prefix, ttl, .. } = ban;
        let shortest = if prefix.addr().is_ipv4() { self.v4_prefix } else { self.v6_prefix };
        if prefix.prefix_len() < shortest {
            return Err(Error::Refused(format!(
                "{prefix} is wider than a ban may be here, which is /{shortest} (kernel.bans); put it on a deny list"
            )));
        }
        match ttl {
            Some(ttl) if *ttl > self.max_ttl => Err(Error::Refused(format!(
                "a ban may last {} s here (kernel.bans.max_ttl), and that of {prefix} is to last {} s",
                self.max_ttl.as_secs(),
                ttl.as_secs()
            ))),
            _ => Ok(()),
        }
    }
}

/// A named list, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewList {
    /// Allow or deny.
    pub kind: ListKind,
    /// Its name; no two lists have one.
    pub name: String,
    /// Where it comes from, for people.
    pub source: String,
    /// Count what it would drop, and let it pass.
    pub shadow: bool,
    /// Rules: what hits are counted under.
    pub labels: Vec<String>,
    /// What it holds.
    pub entries: Vec<ListEntry>,
}

/// A prefix of a named list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEntry {
    /// Host bits are zero.
    pub prefix: IpNet,
    /// Its rule: an index into [`NewList::labels`].
    #[serde(default)]
    pub label: u32,
    /// Count what it would drop, and let it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}
