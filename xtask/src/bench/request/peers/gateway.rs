//! This repository's own.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::super::scene::route_prefix;
use super::{CONNECTIONS_MAX, Setting};
use crate::bench::scratch::{free_address, write};
use crate::{process, workspace};

pub(super) fn build() -> Result<()> {
    process::run(&mut process::cargo(&["build", "--quiet", "--release", "--locked", "--package", "gateway"]))
}

pub(super) fn program() -> PathBuf {
    workspace::target_dir().join("release/gateway")
}

pub(super) fn configure(command: &mut Command, setting: &Setting) -> Result<()> {
    let Setting { dir, scene, pem, listen, upstream } = setting;
    let tls = pem.map_or_else(String::new, |pem| {
        format!(", tls: {{certificates: [{{cert: \"{0}\", key: \"{0}\"}}]}}", pem.display())
    });
    let mut routes = String::new();
    for number in 0..scene.routes() {
        let prefix = route_prefix(number);
        writeln!(routes, "  service_{number}: {{match: {{path: \"{prefix}**\"}}, upstream: origin}}")?;
    }
    if routes.is_empty() {
        routes.push_str("  all: {match: {path: \"/**\"}, upstream: origin}\n");
    }
    let (admin, socket) = (free_address()?, dir.join("admin.sock"));
    let config = format!(
        "workers: 1\nkernel: {{attach: \"off\"}}\nlisteners:\n  \
         web: {{address: \"{listen}\", max_connections: {CONNECTIONS_MAX}{tls}}}\nupstreams:\n  \
         origin: {{endpoints: [\"http://{upstream}\"]}}\nroutes:\n{routes}\
         admin: {{address: \"{admin}\", socket: \"{}\"}}\n",
        socket.display()
    );
    command.args(["run", "--config"]).arg(write(dir, "gateway.yaml", &config)?);
    Ok(())
}
