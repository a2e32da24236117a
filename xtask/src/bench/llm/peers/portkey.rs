//! Portkey's gateway, in JavaScript, from npm. Its clients name the provider in fields of their requests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::super::scene::Lane;
use super::Setting;
use crate::{process, workspace};

pub(super) const VERSION: &str = "1.15.2";

pub(super) fn install() -> Result<()> {
    let wanted = format!("@portkey-ai/gateway@{VERSION}");
    let mark = root().join(VERSION);
    if mark.is_file() {
        return Ok(());
    }
    eprintln!("installing {wanted} (once)");
    std::fs::create_dir_all(root())?;
    let npm = process::find("npm").context("npm is missing (apt-get install npm)")?;
    let mut install = process::command(npm);
    // No script of a package runs: what it brings is built already.
    install.args(["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    process::read(install.arg(root()).arg(&wanted))?;
    std::fs::write(mark, "")?;
    Ok(())
}

pub(super) fn headers(setting: &Setting) -> Vec<(&'static str, String)> {
    let provider = if setting.scene.lane() == Lane::Translate { "anthropic" } else { "openai" };
    vec![
        ("Authorization", "Bearer client".to_owned()),
        ("x-portkey-provider", provider.to_owned()),
        ("x-portkey-custom-host", format!("http://{}/v1", setting.upstream)),
    ]
}

pub(super) fn command(setting: &Setting) -> Command {
    let server = root().join("node_modules/@portkey-ai/gateway/build/start-server.js");
    let mut command = process::command("node");
    command.arg(server).arg(format!("--port={}", setting.listen.port())).arg("--headless");
    command
}

fn root() -> PathBuf {
    workspace::target_dir().join("bench-peers/portkey")
}
