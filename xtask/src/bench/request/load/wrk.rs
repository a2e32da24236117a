//! The load: wrk, what it reports, and a second pair of eyes that reads whole replies while it runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// How often a whole reply is read beside wrk's: rarely enough to cost nothing. Under TLS a program has to be started
/// for it.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_EVERY_TLS: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Ours is 1 KiB and a head; a reply beyond this is not read to its end.
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scene {
    /// In the clear, over connections that are kept
    Plain,
    /// The same under TLS
    Tls,
    /// A new connection under TLS for each request
    Handshakes,
}

impl Scene {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Handshakes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "in the clear, kept-alive connections",
            Self::Tls => "TLS, kept-alive connections",
            Self::Handshakes => "TLS, a connection and a full handshake for each request",
        }
    }

    pub(crate) fn is_secure(self) -> bool {
        self != Self::Plain
    }

    fn url(self, address: SocketAddr) -> String {
        format!("http{}://{address}/", if self.is_secure() { "s" } else { "" })
    }
}

/// What wrk counted in one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Loads the address for so long; fails on any reply that is not the expected one.
pub(crate) fn run(
    wrk: &Path,
    scene: Scene,
    address: SocketAddr,
    connections: usize,
    seconds: u32,
    body: &[u8],
) -> Result<Report> {
    let mut command = Command::new(wrk);
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"]);
    if scene == Scene::Handshakes {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(scene.url(address));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` could not be started", process::shown(&command)))?;
    let mut probed = Ok(());
    // wrk ends by itself; a probe that fails ends it early.
    while child.try_wait()?.is_none() {
        thread::sleep(if scene.is_secure() { PROBE_EVERY_TLS } else { PROBE_EVERY });
        // It may have ended meanwhile, and the address be nobody's.
        if child.try_wait()?.is_some() {
            break;
        }
        probed = probe(scene, address, body);
        if probed.is_err() {
            let _ = child.kill();
            break;
        }
    }
    let output = child.wait_with_output()?;
    probed.context("a wrong reply under load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text, body.len()).with_context(|| format!("wrk said:\n{text}"))
}

/// Fetches once on a connection of its own and compares status, length and every byte of the body.
pub(crate) fn probe(scene: Scene, address: SocketAddr, body: &[u8]) -> Result<()> {
    if scene.is_secure() {
        let mut curl = Command::new("curl");
        let timeout = PROBE_TIMEOUT.as_secs().to_string();
        curl.args(["--silent", "--show-error", "--insecure", "--include", "--http1.1", "--noproxy", "*"]);
        curl.args(["--max-time", &timeout, &scene.url(address)]);
        let output = curl.output().context("`curl` could not be started (apt-get install curl)")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
        return check_reply(&output.stdout, body);
    }
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    check_reply(&reply, body)
}

fn check_reply(reply: &[u8], body: &[u8]) -> Result<()> {
    let end = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("a reply without an end of its head")?;
    let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200 "), "not 200: {}", head.lines().next().unwrap_or_default());
    let length = format!("content-length: {}", body.len());
    ensure!(head.lines().any(|line| line == length), "no `{length}` in the head:\n{head}");
    ensure!(&reply[end + 4..] == body, "the body is not the upstream's");
    Ok(())
}

/// Reads wrk's report and refuses one with errors or with too few bytes for its requests.
fn parse(text: &str, body_bytes: usize) -> Result<Report> {
    for line in text.lines().map(str::trim) {
        if line.starts_with("Non-2xx") || line.starts_with("Socket errors") {
            bail!("{line}");
        }
    }
    let after = |label: &str| -> Result<&str> {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(label));
        Ok(line.with_context(|| format!("no line `{label}`"))?[label.len()..].trim())
    };
    let counts = text.lines().find(|line| line.contains(" requests in ")).context("no count of requests")?;
    let requests: u64 = counts.split_whitespace().next().unwrap_or_default().parse()?;
    let bytes = bytes(counts.rsplit(", ").next().unwrap_or_default().trim_end_matches(" read"))?;
    ensure!(requests > 0, "no request was answered");
    // wrk rounds the bytes to three digits.
    ensure!(
        bytes / requests as f64 >= body_bytes as f64 * 0.99,
        "{bytes} bytes in {requests} replies are less than {body_bytes} each"
    );
    Ok(Report {
        requests,
        requests_per_s: after("Requests/sec:")?.parse()?,
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
    })
}

fn microseconds(text: &str) -> Result<f64> {
    scaled(text, &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)])
}

fn bytes(text: &str) -> Result<f64> {
    let (kib, mib, gib) = (1024.0, 1024.0 * 1024.0, 1024.0 * 1024.0 * 1024.0);
    scaled(text, &[("KB", kib), ("MB", mib), ("GB", gib), ("B", 1.0)])
}

/// A number with the first unit that fits its end.
fn scaled(text: &str, units: &[(&str, f64)]) -> Result<f64> {
    for (unit, factor) in units {
        if let Some(number) = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok()) {
            return Ok(number * factor);
        }
    }
    bail!("`{text}` is no figure with a unit")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  Thread Stats   Avg\n    \
        Latency   352.12us  120.00us   3.00ms   90.00%\n  Latency Distribution\n     50%  345.00us\n     75%  360.00us\n     \
        90%  400.00us\n     99%    1.25ms\n  91000 requests in 1.00s, 110.50MB read\nRequests/sec:  90999.10\n\
        Transfer/sec:    110.49MB\n";

    #[test]
    fn reports() {
        let good = Report { requests: 91000, requests_per_s: 90999.10, p50_us: 345.0, p99_us: 1250.0 };
        let cases = [
            ("good", GOOD.to_owned(), Ok(good)),
            (
                "refusals",
                GOOD.to_owned() + "  Non-2xx or 3xx responses: 7\n",
                Err("Non-2xx or 3xx responses: 7"),
            ),
            (
                "broken connections",
                GOOD.to_owned() + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
                Err("Socket errors: connect 0, read 3, write 0, timeout 0"),
            ),
            (
                "empty replies",
                GOOD.replace("110.50MB", "9.00KB"),
                Err("9216 bytes in 91000 replies are less than 1024 each"),
            ),
            (
                "nothing answered",
                GOOD.replace("91000 requests", "0 requests"),
                Err("no request was answered"),
            ),
            ("not a report", "unable to connect\n".to_owned(), Err("no count of requests")),
        ];
        for (name, text, expected) in cases {
            let read = parse(&text, 1024).map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{name}");
        }
    }

    #[test]
    fn replies() {
        let reply = |head: &str, body: &str| format!("{head}\r\nServer: x\r\n\r\n{body}");
        let cases = [
            ("right", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "abc"), true),
            ("other status", reply("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3", "abc"), false),
            ("other length", reply("HTTP/1.1 200 OK\r\nContent-Length: 30", "abc"), false),
            ("other body", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "xyz"), false),
            ("cut", reply("HTTP/1.1 200 OK\r\nContent-Length: 3", "ab"), false),
            ("no head", "abc".to_owned(), false),
        ];
        for (name, reply, expected) in cases {
            assert_eq!(check_reply(reply.as_bytes(), b"abc").is_ok(), expected, "{name}");
        }
    }
}
