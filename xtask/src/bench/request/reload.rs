//! New configurations while a proxy is under load: what the tail of its latencies has of that.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, ensure};

use super::scene::route_prefix;
use crate::process::Group;

/// From one reload to the next. Nobody reloads thousands of routes more often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a proxy may take until a new configuration is in force.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The route that has another path in every other configuration; none that the load asks for.
const CHANGED: usize = 17;

/// How often there was a new configuration, and how long it took on average until it was in force.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    pub(super) count: u32,
    pub(super) took_ms: f64,
}

/// Reloads the group again and again while `work` runs. Its configuration is this file.
pub(super) fn during<T>(
    group: &Group,
    file: &Path,
    address: SocketAddr,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Reloads)> {
    let here = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let (prefix, other) = (route_prefix(CHANGED), "/moved/".to_owned());
    ensure!(here.contains(&prefix), "{} has no route {prefix}", file.display());
    let texts = [(here.replace(&prefix, &other), other), (here, prefix)];
    let (stop, stopped) = channel();
    thread::scope(|scope| {
        let reloading = scope.spawn(move || repeat(group, file, address, &texts, &stopped));
        let done = work();
        drop(stop);
        let reloads = reloading.join().map_err(|_| anyhow!("the thread that reloads panicked"))??;
        ensure!(reloads.count > 0, "nothing was reloaded");
        Ok((done?, reloads))
    })
}

/// Each configuration in turn, with the path that only it has, until the sender is gone.
fn repeat(
    group: &Group,
    file: &Path,
    address: SocketAddr,
    texts: &[(String, String)],
    stopped: &Receiver<()>,
) -> Result<Reloads> {
    let mut reloads = Reloads::default();
    let mut took = Duration::ZERO;
    for (text, path) in texts.iter().cycle() {
        let begin = Instant::now();
        fs::write(file, text)?;
        group.hang_up()?;
        while !is_served(address, path)? {
            ensure!(begin.elapsed() < PATIENCE, "a new configuration was not in force in time");
            thread::sleep(LOOK_EVERY);
        }
        took += begin.elapsed();
        reloads.count += 1;
        if stopped.recv_timeout(EVERY.saturating_sub(begin.elapsed())) == Err(RecvTimeoutError::Disconnected)
        {
            break;
        }
    }
    reloads.took_ms = took.as_secs_f64() * 1e3 / f64::from(reloads.count);
    Ok(reloads)
}

/// Whether a path leads somewhere.
fn is_served(address: SocketAddr, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut begin = [0; 13];
    stream.read_exact(&mut begin).context("an answer during a reload")?;
    Ok(&begin == b"HTTP/1.1 200 ")
}
