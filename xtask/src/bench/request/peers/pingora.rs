//! A proxy on Cloudflare's framework: a crate of its own beside this one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Setting;
use crate::{process, tools, workspace};

pub(super) fn build() -> Result<()> {
    if !program().is_file() {
        eprintln!("building a proxy on pingora (minutes, once)");
    }
    // A C library among its dependencies.
    if process::find("cmake").is_none() {
        tools::apt_install(&["cmake"])?;
    }
    let mut build = process::cargo(&["build", "--quiet", "--release", "--locked"]);
    build.arg("--manifest-path").arg(crate_dir().join("Cargo.toml")).arg("--target-dir").arg(target_dir());
    process::run(&mut build)
}

pub(super) fn program() -> PathBuf {
    target_dir().join("release/bench-pingora")
}

/// The framework's, as its lock names it.
pub(super) fn version() -> Result<String> {
    let lock = std::fs::read_to_string(crate_dir().join("Cargo.lock"))?;
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"pingora\"");
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    Ok(version.context("the lock does not name pingora")?.trim_end_matches('"').to_owned())
}

pub(super) fn configure(command: &mut Command, setting: &Setting) {
    command.args([setting.listen.to_string(), setting.upstream.to_string()]);
    command.args(setting.pem);
}

fn crate_dir() -> PathBuf {
    workspace::root().join("xtask/peers/pingora")
}

fn target_dir() -> PathBuf {
    workspace::target_dir().join("bench-peers/pingora")
}
