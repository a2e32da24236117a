//! Messages over WebSocket: each connection sends the next when the echo of the last is there.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::websocket;
use super::{Load, Report, threads};

const MESSAGE: [u8; 64] = [b'x'; 64];

pub(super) fn run(load: &Load) -> Result<Report> {
    threads::run(load.seconds, |_, end| client(load, end))
}

fn client(load: &Load, end: Instant) -> Result<Vec<Duration>> {
    let Some(mut stream) = connect(load.address)? else { anyhow::bail!("no agreement to WebSocket") };
    let (message, answer) = (websocket::message(&MESSAGE)?, websocket::answer(&MESSAGE)?);
    let mut took = Vec::new();
    let mut read = vec![0; answer.len()];
    while Instant::now() < end {
        let begin = Instant::now();
        stream.get_mut().write_all(&message)?;
        stream.read_exact(&mut read)?;
        took.push(begin.elapsed());
        ensure!(read == answer, "not the echo of the message");
    }
    Ok(took)
}

/// A connection that has switched; `None` if the other side does not.
pub(super) fn connect(address: SocketAddr) -> Result<Option<BufReader<TcpStream>>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(threads::PATIENCE))?;
    stream.write_all(websocket::request(address).as_bytes())?;
    let mut reader = BufReader::new(stream);
    Ok(websocket::agrees(&mut reader)?.then_some(reader))
}
