//! Requests at a given rate, whether the former ones were answered or not: how long they take when a proxy is not at its
//! limit. wrk sends the next when the last is answered, and so hides the waits of those that would have come meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::origin::BODY_BYTES;
use super::{CONNECTIONS, Load, Report, threads};

pub(super) fn run(load: &Load) -> Result<Report> {
    let period = Duration::from_secs_f64(CONNECTIONS as f64 / load.rate);
    threads::run(load.seconds, |number, end| {
        // Spread over the period, so that they do not all ask at once.
        let first = Instant::now() + period.mul_f64(number as f64 / CONNECTIONS as f64);
        client(load, period, first, end)
    })
}

/// Asks when it is time to, and measures from then on: who comes late because the last reply was, has waited too.
fn client(load: &Load, period: Duration, first: Instant, end: Instant) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(load.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(threads::PATIENCE))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.scene.path(), load.address);
    let (mut took, mut due, mut buffer) = (Vec::new(), first, Vec::new());
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes())?;
        read_reply(&mut stream, &mut buffer)?;
        took.push(due.elapsed());
        due += period;
    }
    Ok(took)
}

/// Reads one reply to its end.
fn read_reply(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    let mut chunk = [0; 4096];
    loop {
        let head = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head.filter(|head| buffer.len() >= head + 4 + BODY_BYTES) {
            ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "not 200");
            ensure!(buffer.len() == head + 4 + BODY_BYTES, "more than a reply");
            return Ok(());
        }
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the connection ended within a reply");
        buffer.extend_from_slice(&chunk[..count]);
    }
}
