//! The agent's half: attach the programs (or say why not), keep them attached, read their events.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::entry::{Attach, NewEntry};
use crate::error::Error;
use crate::rules::Rules;

/// What the configuration wants of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Interfaces to protect.
    pub interfaces: Vec<String>,
    /// How to attach to them.
    pub attach: Attach,
    /// The configuration's allow entries.
    pub allow: Vec<NewEntry>,
    /// The configuration's deny entries.
    pub deny: Vec<NewEntry>,
}

/// Where the rules are enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "where")]
pub enum Enforcement {
    /// In XDP.
    Kernel,
    /// At accept, for the reason given.
    Userspace {
        /// One sentence: `attach: off`, a missing privilege, a kernel without XDP.
        why: String,
    },
}

/// One protected interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceState {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Why it is not native although that was tried first.
    pub note: Option<String>,
}

/// The whole state, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where the rules are enforced.
    pub enforcement: Enforcement,
    /// The interfaces the programs are attached to.
    pub interfaces: Vec<InterfaceState>,
}

/// Protection held by a running agent. Dropping it leaves the pinned programs in force.
#[derive(Debug)]
pub struct Protection;

/// A sampled verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The interface's name.
    pub interface: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The reason's stable name.
    pub reason: String,
    /// The rule's label, where a rule matched.
    pub rule: Option<String>,
    /// Where it came from, if the packet got that far in parsing.
    pub source: Option<IpAddr>,
    /// Where it went.
    pub destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source port, for TCP and UDP.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Bytes on the wire.
    pub length: u32,
}

/// The reading end of the programs' ring buffer. Poll its descriptor for reading, then call `read`.
#[derive(Debug)]
pub struct Events;

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}

impl Events {
    /// Hands every waiting event to `sink`.
    pub fn read(&mut self, _sink: &mut dyn FnMut(Event)) {
        todo!()
    }
    /// Grants each reason another share of events; call it every 100 ms while somebody reads.
    pub fn grant(&mut self) {
        todo!()
    }
}

impl Protection {
    /// Converges on the plan: takes over what is pinned, attaches what is missing, detaches what is no
    /// longer wanted, reconciles the configuration's entries. Falls back to userspace when `attach` is
    /// `auto` (or `off`) and the kernel cannot be used.
    ///
    /// # Errors
    /// An unknown interface, a foreign program on the hook, another agent on this pin directory, a pin
    /// directory that cannot be written, or a list longer than its map. Nothing is half-applied.
    pub fn start(_plan: &Plan, _pin_dir: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// Converges on a new plan while running. On error the former state stays.
    pub fn apply(&mut self, _plan: &Plan) -> Result<(), Error> {
        todo!()
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        todo!()
    }

    /// Where and how the rules are enforced.
    pub fn state(&self) -> State {
        todo!()
    }

    /// The ring buffer's reading end; `None` in userspace or when already taken.
    pub fn take_events(&mut self) -> Option<Events> {
        todo!()
    }
}

/// The attachments pinned under `pin_dir`, for `status` while no agent runs.
pub fn attachments(_pin_dir: &Path) -> Result<Vec<InterfaceState>, Error> {
    todo!()
}

/// Detaches the programs and removes the maps under `pin_dir`; refused while an agent runs. Returns the
/// interfaces that were released.
pub fn detach(_pin_dir: &Path) -> Result<Vec<String>, Error> {
    todo!()
}

/// Whether an accepted connection's addresses are used by `Rules::admits`.
pub type Peer = (SocketAddr, SocketAddr);
