//! Connections that have asked once and then wait.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::scene::Scene;
use super::probe;

pub(crate) const CONNECTIONS: usize = 10_000;

/// Open files that a proxy, and this program, need for them and for themselves.
const FILES: u64 = CONNECTIONS as u64 + 2000;

/// Lets this program, and those that it starts, open as many files as the system lets them.
pub(crate) fn raise_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(most >= FILES, "{FILES} open files are needed, and the limit is {most} (`ulimit -Hn {FILES}`)");
    if limit.current.is_some_and(|current| current < FILES) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(())
}

/// Opens them, one after the other, and has each answered once.
pub(crate) fn open(address: SocketAddr) -> Result<Vec<TcpStream>> {
    let open = |number| {
        let mut stream = TcpStream::connect(address)?;
        probe::exchange(&mut stream, Scene::Idle, address, true)
            .with_context(|| format!("connection {number} of {CONNECTIONS}"))?;
        Ok(stream)
    };
    (1..=CONNECTIONS).map(open).collect()
}

/// Fails if any of them was closed meanwhile.
pub(crate) fn check(streams: &[TcpStream]) -> Result<()> {
    for stream in streams {
        stream.set_nonblocking(true)?;
        let ended = stream.peek(&mut [0]).is_ok();
        ensure!(!ended, "a connection was closed while it was idle");
    }
    Ok(())
}
