//! Who is measured, and how each is set up: one thread or process for requests, connections kept on both sides, no access
//! log, the same provider behind.

mod ferrogw;
mod floor;
mod gateway;
mod litellm;
mod portkey;
mod rolter;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::client::Expected;
use super::scene::{Lane, Scene};
use super::wire::Dialect;
use crate::bench::machine;

/// One gateway under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Gateway,
    /// Plain hyper that passes on: built here
    Floor,
    /// From a wheel
    Rolter,
    /// From a wheel
    Ferrogw,
    /// From npm
    Portkey,
    /// From wheels, in Python
    Litellm,
}

/// What a peer serves, and for whom.
pub(super) struct Setting<'a> {
    /// A directory of its own.
    pub(super) dir: &'a Path,
    pub(super) scene: Scene,
    pub(super) listen: SocketAddr,
    /// The provider of both dialects.
    pub(super) upstream: SocketAddr,
}

impl Peer {
    pub(super) const ALL: [Self; 6] =
        [Self::Gateway, Self::Floor, Self::Rolter, Self::Ferrogw, Self::Portkey, Self::Litellm];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Floor => "floor",
            Self::Rolter => "rolter",
            Self::Ferrogw => "ferrogw",
            Self::Portkey => "Portkey",
            Self::Litellm => "LiteLLM",
        }
    }

    /// Whether the benchmark is worth nothing without it.
    pub(super) fn is_needed(self) -> bool {
        matches!(self, Self::Gateway | Self::Floor)
    }

    /// What a client gets from it. The floor passes on what comes, so that its provider answers in the client's dialect;
    /// of the others, ours has to give back the provider's bytes where nothing is translated.
    pub(super) fn expected(self, scene: Scene) -> Expected {
        if self == Self::Floor || scene.lane() != Lane::Translate {
            return Expected { dialect: Dialect::Chat, is_exact: self.is_needed() };
        }
        Expected { dialect: Dialect::Messages, is_exact: false }
    }

    /// Finds its program, or builds or installs it.
    pub(super) fn provide(self) -> Result<()> {
        match self {
            Self::Gateway => gateway::build(),
            Self::Floor => floor::build(),
            Self::Rolter => rolter::PACKAGE.install(),
            Self::Ferrogw => ferrogw::PACKAGE.install(),
            Self::Portkey => portkey::install(),
            Self::Litellm => litellm::PACKAGE.install(),
        }
    }

    pub(super) fn version(self) -> String {
        match self {
            Self::Gateway => machine::version_of(&gateway::program(), "--version"),
            Self::Floor => "this repository's".to_owned(),
            Self::Rolter => rolter::PACKAGE.version.to_owned(),
            Self::Ferrogw => ferrogw::PACKAGE.version.to_owned(),
            Self::Portkey => portkey::VERSION.to_owned(),
            Self::Litellm => litellm::PACKAGE.version.to_owned(),
        }
    }

    /// Whether it can be set up for this. The floor has no names of models to change, but what it costs is the measure
    /// in every scene.
    pub(super) fn takes_part(self, scene: Scene) -> bool {
        match self {
            Self::Ferrogw | Self::Portkey => scene.lane() != Lane::Splice,
            _ => true,
        }
    }

    /// What a client has to say besides its request.
    pub(super) fn headers(self, setting: &Setting) -> Vec<(&'static str, String)> {
        match self {
            Self::Portkey => portkey::headers(setting),
            _ => vec![("Authorization", "Bearer client".to_owned())],
        }
    }

    /// The command that serves, its files written into its directory.
    pub(super) fn command(self, setting: &Setting) -> Result<Command> {
        match self {
            Self::Gateway => gateway::command(setting),
            Self::Floor => Ok(floor::command(setting)),
            Self::Rolter => rolter::command(setting),
            Self::Ferrogw => ferrogw::command(setting),
            Self::Portkey => Ok(portkey::command(setting)),
            Self::Litellm => litellm::command(setting),
        }
    }
}

/// A program with variables of its environment.
fn with_environment(variables: &[(&str, &str)], program: &Path) -> Command {
    let mut command = crate::process::command("env");
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    command
}
