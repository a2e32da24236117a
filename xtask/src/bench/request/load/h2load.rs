//! HTTP/2 by h2load, of nghttp2.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::super::origin::BODY_BYTES;
use super::{CONNECTIONS, Load, Report, probe};
use crate::process;

/// Streams that a connection carries at the same time.
const STREAMS: usize = 4;

pub(super) fn run(load: &Load) -> Result<Report> {
    let program = process::find("h2load").context("h2load is missing (apt-get install nghttp2-client)")?;
    let mut command = Command::new(program);
    let connections = CONNECTIONS / STREAMS;
    command.args(["-t1", &format!("-c{connections}"), &format!("-m{STREAMS}")]);
    command.args([&format!("-D{}", load.seconds), &load.scene.url(load.address)]);
    let text = probe::watched(&mut command, load)?;
    parse(&text).with_context(|| format!("h2load said:\n{text}"))
}

/// Reads h2load's report and refuses one with errors, of another protocol, or with too few bytes for its requests.
fn parse(text: &str) -> Result<Report> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label).map(str::trim));
    let protocol = after("Application protocol:").unwrap_or("none");
    ensure!(protocol == "h2", "the protocol was {protocol}");
    let counts = after("requests:").context("no count of requests")?;
    let count = |what: &str| -> Result<u64> {
        let count = counts.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
        count.with_context(|| format!("no count of those {what}"))
    };
    for what in ["failed", "errored", "timeout"] {
        if count(what)? > 0 {
            bail!("{counts}");
        }
    }
    let requests = count("succeeded")?;
    let statuses = after("status codes:").unwrap_or_default();
    ensure!(statuses.contains(" 0 3xx, 0 4xx, 0 5xx"), "{statuses}");
    ensure!(requests > 0, "no request was answered");
    let traffic = after("traffic:").unwrap_or_default();
    let data = traffic.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')?.0.parse::<u64>().ok());
    let data = data.context("no count of bytes")?;
    ensure!(
        data >= requests * BODY_BYTES as u64,
        "{data} bytes in {requests} replies are less than {BODY_BYTES} each"
    );
    let rate = after("finished in").and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"));
    Ok(Report { requests, requests_per_s: rate.context("no rate")?.parse()?, latency: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "starting benchmark...\nTLS Protocol: TLSv1.3\nApplication protocol: h2\n\n\
        finished in 1.00s, 91000.10 req/s, 90.50MB/s\n\
        requests: 91000 total, 91032 started, 91000 done, 91000 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 91000 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 90.50MB (94900000) total, 1.50MB (1500000) headers (space savings 80.00%), 88.87MB (93184000) data\n";

    #[test]
    fn reports() {
        let good = Report { requests: 91000, requests_per_s: 91000.10, latency: None };
        let cases = [
            ("good", GOOD.to_owned(), Ok(good)),
            ("another protocol", GOOD.replace("l: h2", "l: http/1.1"), Err("the protocol was http/1.1")),
            (
                "refusals",
                GOOD.replace("91000 2xx, 0 3xx, 0 4xx, 0", "0 2xx, 0 3xx, 0 4xx, 9"),
                Err("0 2xx, 0 3xx, 0 4xx, 9 5xx"),
            ),
            (
                "broken streams",
                GOOD.replace("0 errored", "3 errored"),
                Err(
                    "91000 total, 91032 started, 91000 done, 91000 succeeded, 0 failed, 3 errored, 0 timeout",
                ),
            ),
            (
                "empty replies",
                GOOD.replace("93184000", "93183999"),
                Err("93183999 bytes in 91000 replies are less than 1024 each"),
            ),
            ("nothing answered", GOOD.replace("91000 succ", "0 succ"), Err("no request was answered")),
            ("not a report", "unable to connect\n".to_owned(), Err("the protocol was none")),
        ];
        for (name, text, expected) in cases {
            let read = parse(&text).map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{name}");
        }
    }
}
