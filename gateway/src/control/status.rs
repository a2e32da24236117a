//! What `status` shows: one document, whether the agent runs or only what it pinned is there.

use std::net::SocketAddr;
use std::path::PathBuf;

use gateway_kernel::{ListInfo, MapUsage, State};
use serde::{Deserialize, Serialize};

use crate::proxy;
use crate::sources::SourceStatus;

/// Everything `status` knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The running agent; absent when it is down and its pinned programs work alone.
    pub agent: Option<AgentStatus>,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Where and how the rules are enforced.
    pub kernel: State,
    /// How full the lists are.
    pub maps: Vec<MapUsage>,
    /// The named lists in force.
    pub lists: Vec<ListInfo>,
    /// Where lists come from that refresh by themselves; empty while the agent is down.
    pub sources: Vec<SourceStatus>,
    /// Listeners and upstreams; absent when the agent is down.
    pub proxy: Option<proxy::Status>,
}

/// The running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process.
    pub pid: u32,
    /// The version of its binary.
    pub version: String,
    /// What it is doing.
    pub phase: Phase,
    /// Since its start.
    pub uptime_seconds: u64,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// Where scrapers reach it.
    pub admin: Option<SocketAddr>,
    /// Where commands reach it.
    pub socket: PathBuf,
}

/// The configuration in force, and what became of the last attempt to replace it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file it was read from.
    pub path: PathBuf,
    /// Its hash.
    pub hash: String,
    /// Reloads that were refused since the start.
    pub reload_failures: u64,
    /// The last reload, if there was one.
    pub last_reload: Option<ReloadStatus>,
}

/// One attempt to reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Why it was refused; absent when it was not.
    pub error: Option<String>,
}

/// The life of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not everything listens yet.
    Starting,
    /// At work.
    Ready,
    /// Takes no new work and ends soon.
    Draining,
}

/// Who answers on a socket: enough for a command to know whether it is the gateway it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process.
    pub pid: u32,
    /// Where it pins its maps and links.
    pub pin_dir: PathBuf,
    /// Whether its rules are enforced in userspace, where no pinned map shows them.
    pub userspace: bool,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The hash of the configuration now in force.
    pub hash: String,
    /// What the new configuration asks for that only a restart brings.
    pub needs_restart: Vec<String>,
}

/// A refusal on the socket, as a problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable name for programs.
    pub code: String,
    /// What happened and what to do.
    pub detail: String,
}
