//! What can go wrong between the agent and the kernel, in words an operator can act on.

use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate. `Display` says what happened and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No gateway has pinned its maps here.
    #[error("no gateway has pinned its maps under {}; start one with `gateway run`, or name its directory with --pin-dir", .0.display())]
    NotPinned(PathBuf),
    /// The process may not use BPF.
    #[error("{what} needs root or CAP_BPF and CAP_NET_ADMIN")]
    Privilege {
        /// What was tried.
        what: String,
    },
    /// A list does not fit.
    #[error(
        "the {map} map holds {capacity} entries and has {used}; {wanted} more do not fit, so nothing was written"
    )]
    Full {
        /// The map's name.
        map: String,
        /// Entries it can hold.
        capacity: u64,
        /// Entries in it.
        used: u64,
        /// Entries that would have been added.
        wanted: u64,
    },
    /// A change that is not made, for what it says.
    #[error("{0}")]
    Refused(String),
    /// Too many distinct rules.
    #[error(
        "{capacity} different rules have entries already, and a new one does not fit; use reasons in common for more entries"
    )]
    RulesFull {
        /// Rules that can be told apart.
        capacity: u32,
    },
    /// An interface that does not exist.
    #[error("there is no interface {name}; this host has {known}")]
    UnknownInterface {
        /// As configured.
        name: String,
        /// The names of those there are, with commas.
        known: String,
    },
    /// Somebody else's XDP program holds the hook.
    #[error(
        "{interface} already runs the XDP program {program}, which is not this gateway's; it was left alone. Detach it (`bpftool net` shows how it is attached: a link ends with its owner, others by `ip link set dev {interface} xdp off`), or take the interface out of kernel.interfaces"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The program's id and name.
        program: String,
    },
    /// Another agent holds the directory's lock.
    #[error("another gateway holds {}; stop it, or give this one its own --pin-dir", .0.display())]
    Locked(PathBuf),
    /// The pin directory cannot be used.
    #[error("cannot use the pin directory {}: {why}", path.display())]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The kernel refused something.
    #[error("the kernel refused to {what}: {why}")]
    Kernel {
        /// What was tried, as an infinitive.
        what: String,
        /// Its answer.
        why: String,
    },
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    // The verifier's log runs over many lines; the first one says what it is about.
    text.lines().next().unwrap_or_default().to_owned()
}
