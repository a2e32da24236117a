//! A second pair of eyes: while a program loads an address, whole replies are read and compared here; and before that,
//! whether who answers there speaks what a scene is about.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::origin::{self, BODY_BYTES};
use super::super::scene::{LARGE_BYTES, Scene};
use super::{Load, websocket};
use crate::process;

/// How often a whole reply is read beside the load's: rarely enough to cost nothing. Under TLS a program has to be
/// started for it, and a large reply is much to compare.
const EVERY: Duration = Duration::from_millis(100);
const EVERY_COSTLY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Ours have a body and a head; what is longer is not read to its end.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Runs a program that loads the address and returns what it printed; fails on a wrong reply beside it.
pub(super) fn watched(command: &mut Command, load: &Load) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` could not be started", process::shown(command)))?;
    let is_costly = load.scene.is_secure() || load.scene == Scene::Downloads;
    let mut probed = Ok(());
    // The program ends by itself; a probe that fails ends it early.
    while child.try_wait()?.is_none() {
        thread::sleep(if is_costly { EVERY_COSTLY } else { EVERY });
        // It may have ended meanwhile, and the address be nobody's.
        if child.try_wait()?.is_some() {
            break;
        }
        probed = once(load.scene, load.address);
        if probed.is_err() {
            let _ = child.kill();
            break;
        }
    }
    let output = child.wait_with_output()?;
    probed.context("a wrong reply under load")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fetches once on a connection of its own and compares status, length and every byte of the body.
pub(crate) fn once(scene: Scene, address: SocketAddr) -> Result<()> {
    if scene.is_secure() {
        let output = curl(scene, address, "--http1.1")?;
        return check_reply(&output, &expected(scene));
    }
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    exchange(&mut stream, scene, address, false)
}

/// Whether who answers there speaks what the scene is about. It has answered [`once`] before.
pub(crate) fn is_spoken(scene: Scene, address: SocketAddr) -> Result<bool> {
    match scene {
        Scene::H2 => {
            let reply = curl(scene, address, "--http2")?;
            let is_spoken = reply.starts_with(b"HTTP/2 ");
            if is_spoken {
                check_reply(&reply, &expected(scene))?;
            }
            Ok(is_spoken)
        }
        Scene::Websocket => Ok(websocket::connect(address)?.is_some()),
        _ => Ok(true),
    }
}

/// One request over a connection that is kept or not, and its whole reply.
pub(super) fn exchange(
    stream: &mut TcpStream,
    scene: Scene,
    address: SocketAddr,
    is_kept: bool,
) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let connection = if is_kept { "keep-alive" } else { "close" };
    let path = scene.path();
    // In one write: of several, the second waits until the first is acknowledged, which takes 40 ms.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (body, mut reply) = (expected(scene), Vec::new());
    let mut chunk = [0; 16 * 1024];
    let most = HEAD_BYTES_MAX as usize + body.len();
    let is_whole = |reply: &[u8]| end_of_head(reply).is_some_and(|end| reply.len() >= end + body.len());
    while !is_whole(&reply) && reply.len() < most {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        reply.extend_from_slice(&chunk[..count]);
    }
    check_reply(&reply, &body)
}

fn expected(scene: Scene) -> Vec<u8> {
    origin::body(if scene == Scene::Downloads { LARGE_BYTES } else { BODY_BYTES })
}

fn curl(scene: Scene, address: SocketAddr, version: &str) -> Result<Vec<u8>> {
    let mut curl = Command::new("curl");
    let timeout = TIMEOUT.as_secs().to_string();
    curl.args(["--silent", "--show-error", "--insecure", "--include", version, "--noproxy", "*"]);
    curl.args(["--max-time", &timeout, &scene.url(address)]);
    let output = curl.output().context("`curl` could not be started (apt-get install curl)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(output.stdout)
}

fn end_of_head(reply: &[u8]) -> Option<usize> {
    reply.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
}

fn check_reply(reply: &[u8], body: &[u8]) -> Result<()> {
    let end = end_of_head(reply).context("a reply without an end of its head")?;
    let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
    let line = head.lines().next().unwrap_or_default();
    ensure!(line.split(' ').nth(1) == Some("200"), "not 200: {line}");
    let length = format!("content-length: {}", body.len());
    ensure!(head.lines().any(|line| line == length), "no `{length}` in the head:\n{head}");
    ensure!(&reply[end..] == body, "the body is not the upstream's");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let reply = |head: &str, body: &str| format!("{head}\r\nServer: x\r\n\r\n{body}");
        let cases = [
            ("right", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "abc"), true),
            ("other status", reply("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3", "abc"), false),
            ("other length", reply("HTTP/1.1 200 OK\r\nContent-Length: 30", "abc"), false),
            ("other body", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "xyz"), false),
            ("cut", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "ab"), false),
            ("HTTP/2", reply("HTTP/2 200 \r\ncontent-length: 3", "abc"), true),
            ("no head", "abc".to_owned(), false),
        ];
        for (name, reply, expected) in cases {
            assert_eq!(check_reply(reply.as_bytes(), b"abc").is_ok(), expected, "{name}");
        }
    }
}
