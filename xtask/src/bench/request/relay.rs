//! The floor: a relay that copies bytes between two sockets and looks at none of them.
//!
//! One thread, one epoll set, one buffer: wait, read, write. A proxy that also reads requests cannot cost less, so
//! what it costs above this is what its HTTP costs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::epoll::{self, EventData, EventFlags};

/// More than any benchmark opens; a connection above it is closed at once.
const CONNECTIONS_MAX: usize = 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// A peer that takes no bytes for so long is given up: writes block the only thread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The event of the listening socket; connections have the numbers below.
const LISTENER: u64 = u64::MAX;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    to: SocketAddr,
}

/// A client and its own connection to the upstream.
struct Pair {
    client: TcpStream,
    upstream: TcpStream,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;

    let mut pairs: Vec<Option<Pair>> = Vec::new();
    pairs.resize_with(CONNECTIONS_MAX, || None);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for events"),
        }
        for event in &events {
            if event.data.u64() == LISTENER {
                accept(&listener, options.to, &set, &mut pairs)?;
                continue;
            }
            // Two events a pair: even for the client's bytes, odd for the upstream's.
            let number = event.data.u64() as usize;
            let Some(Some(pair)) = pairs.get_mut(number / 2) else { continue };
            let copied = if number.is_multiple_of(2) {
                copy(&mut pair.client, &mut pair.upstream, &mut buffer)
            } else {
                copy(&mut pair.upstream, &mut pair.client, &mut buffer)
            };
            if !copied.unwrap_or(false) {
                pairs[number / 2] = None; // Closing the sockets takes them out of the set.
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    to: SocketAddr,
    set: &rustix::fd::OwnedFd,
    pairs: &mut [Option<Pair>],
) -> Result<()> {
    let (client, _) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Ok(()),
        Err(error) => return Err(error).context("accepting"),
    };
    let Some(free) = pairs.iter().position(Option::is_none) else { return Ok(()) };
    let upstream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    for (offset, socket) in [(0, &client), (1, &upstream)] {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        epoll::add(set, socket, EventData::new_u64(free as u64 * 2 + offset), EventFlags::IN)?;
    }
    pairs[free] = Some(Pair { client, upstream });
    Ok(())
}

/// One read and one write; false at the end of the stream.
fn copy(from: &mut TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<bool> {
    let read = from.read(buffer)?;
    to.write_all(&buffer[..read])?;
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy() {
        let cases: [(&str, &[u8], bool); 2] =
            [("bytes", b"GET / HTTP/1.1\r\n\r\n", true), ("the end", b"", false)];
        for (name, sent, expected) in cases {
            let (mut client, mut from) = socket_pair();
            let (mut to, mut upstream) = socket_pair();
            client.write_all(sent).unwrap();
            drop(client);
            assert_eq!(copy(&mut from, &mut to, &mut [0; 1024]).unwrap(), expected, "{name}");
            drop(to);
            let mut received = Vec::new();
            upstream.read_to_end(&mut received).unwrap();
            assert_eq!(received, sent, "{name}");
        }
    }

    fn socket_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }
}
