//! HTTP/1.1 by wrk: each connection asks for the next reply when it has the last one.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::super::origin::BODY_BYTES;
use super::super::scene::{LARGE_BYTES, Scene};
use super::{CONNECTIONS, Latency, Load, Report, probe};
use crate::process;

pub(super) fn run(load: &Load) -> Result<Report> {
    let program = process::find("wrk").context("wrk is missing (apt-get install wrk)")?;
    let mut command = Command::new(program);
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", load.seconds), "--latency"]);
    match load.scene {
        Scene::Handshakes => drop(command.args(["-H", "Connection: close"])),
        Scene::Uploads => {
            let script = load.dir.join("upload.lua");
            let text = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {LARGE_BYTES})\n");
            fs::write(&script, text)?;
            command.arg("-s").arg(script);
        }
        _ => {}
    }
    command.arg(load.scene.url(load.address));
    let text = probe::watched(&mut command, load)?;
    let body_bytes = if load.scene == Scene::Downloads { LARGE_BYTES } else { BODY_BYTES };
    parse(&text, body_bytes).with_context(|| format!("wrk said:\n{text}"))
}

/// Reads wrk's report and refuses one with errors or with too few bytes for its requests.
pub(in crate::bench) fn parse(text: &str, body_bytes: usize) -> Result<Report> {
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
        latency: Some(Latency {
            p50_us: microseconds(after("50%")?)?,
            p99_us: microseconds(after("99%")?)?,
            p999_us: None,
        }),
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
        let latency = Some(Latency { p50_us: 345.0, p99_us: 1250.0, p999_us: None });
        let good = Report { requests: 91000, requests_per_s: 90999.10, latency };
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
}
