//! Plain hyper that passes on: a crate of its own beside this one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::Setting;
use crate::{process, workspace};

pub(super) fn build() -> Result<()> {
    let manifest = workspace::root().join("xtask/peers/floor/Cargo.toml");
    let mut build = process::cargo(&["build", "--quiet", "--release", "--locked"]);
    process::run(build.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target_dir()))
}

pub(super) fn command(setting: &Setting) -> Command {
    let mut command = process::command(target_dir().join("release/bench-floor"));
    command.args([setting.listen.to_string(), setting.upstream.to_string()]);
    command
}

fn target_dir() -> PathBuf {
    workspace::target_dir().join("bench-peers/floor")
}
