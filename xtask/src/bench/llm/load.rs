//! Many connections at once: wrk, with the scene's request, and a second pair of eyes that reads whole answers meanwhile.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::request::load::{CONNECTIONS, Report, wrk};
use super::client::{Client, Expected};
use super::scene::Scene;
use super::wire;
use crate::bench::scratch::write;
use crate::process;

/// Whole answers are read so often: rarely enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(
    dir: &Path,
    scene: Scene,
    address: SocketAddr,
    headers: &[(&str, String)],
    seconds: u32,
    expected: Expected,
) -> Result<Report> {
    let body = write(dir, "body.json", &wire::request(scene))?;
    let mut script = format!(
        "local file = io.open(\"{}\", \"rb\")\nwrk.body = file:read(\"*a\")\nwrk.method = \"POST\"\n\
         wrk.headers[\"Content-Type\"] = \"application/json\"\n",
        body.display()
    );
    for (name, value) in headers {
        writeln!(script, "wrk.headers[\"{name}\"] = \"{value}\"")?;
    }
    let script = write(dir, "load.lua", &script)?;
    let mut command = Command::new(process::find("wrk").context("wrk is missing (apt-get install wrk)")?);
    command.args([
        "-t1",
        &format!("-c{CONNECTIONS}"),
        &format!("-d{seconds}s"),
        "--latency",
        "--timeout",
        "30s",
    ]);
    command.arg("-s").arg(script).arg(format!("http://{address}{}", super::PATH));
    let text = watched(&mut command, scene, address, headers, expected)?;
    // What every answer has at least, in whichever words a gateway wraps it.
    let answer_bytes = match scene.events() {
        Some(words) => words * wire::word(0).len(),
        None => wire::reply_text(wire::Dialect::Messages).len(),
    };
    wrk::parse(&text, answer_bytes).with_context(|| format!("wrk said:\n{text}"))
}

/// Runs the load and returns what it printed; fails on a wrong answer beside it.
fn watched(
    command: &mut Command,
    scene: Scene,
    address: SocketAddr,
    headers: &[(&str, String)],
    expected: Expected,
) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` could not be started", process::shown(command)))?;
    let mut client = Client::connect(scene, address, headers)?;
    let mut looked = Ok(());
    // The program ends by itself; a wrong answer ends it early.
    while child.try_wait()?.is_none() {
        thread::sleep(LOOK_EVERY);
        // It may have ended meanwhile; what is asked then would be counted as its processor time.
        if child.try_wait()?.is_some() {
            break;
        }
        looked = client.ask().and_then(|_| client.check(expected));
        if looked.is_err() {
            let _ = child.kill();
            break;
        }
    }
    let output = child.wait_with_output()?;
    looked.context("a wrong answer under load")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
