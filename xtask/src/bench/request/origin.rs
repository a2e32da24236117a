//! The server behind every proxy: 1 KiB or 1 MiB from memory, bodies read to their end, WebSocket messages echoed.
//!
//! A thread a connection: there are no more of them than the load has. Not nginx, as that one cannot echo, and answers
//! an upload before it has read it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::scene::{LARGE_BYTES, LARGE_PATH};
use super::websocket;

/// What a head may hold before it is no request of the benchmark.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
pub(crate) const BODY_BYTES: usize = 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
}

/// The body of a reply of so many bytes.
pub(crate) fn body(bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(bytes).collect()
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    let reply = |bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), body(bytes)].concat()
    };
    let replies = Arc::new((reply(BODY_BYTES), reply(LARGE_BYTES)));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let replies = Arc::clone(&replies);
        // A proxy that goes away breaks its connections: that is the end of a round and no mistake.
        thread::spawn(move || serve(stream, &replies.0, &replies.1));
    }
    Ok(())
}

fn serve(stream: TcpStream, small: &[u8], large: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    while let Some(head) = Head::read(&mut reader)? {
        if let Some(key) = head.websocket_key {
            writer.write_all(websocket::agreement(&key).as_bytes())?;
            return websocket::echo(&mut reader, &mut writer);
        }
        head.copy_body(&mut reader, &mut std::io::sink())?;
        writer.write_all(if head.target.ends_with(LARGE_PATH) { large } else { small })?;
    }
    Ok(())
}

/// What of a request matters to an origin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::bench) struct Head {
    pub(in crate::bench) target: String,
    length: u64,
    is_chunked: bool,
    websocket_key: Option<String>,
}

impl Head {
    /// `None` at the end of the connection.
    pub(in crate::bench) fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let mut reader = reader.take(HEAD_BYTES_MAX);
        let (mut head, mut line) = (Self::default(), String::new());
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        head.target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "a head without an end");
            let field = line.trim_end();
            if field.is_empty() {
                return Ok(Some(head));
            }
            let Some((name, value)) = field.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse()?,
                "transfer-encoding" => head.is_chunked = true,
                "sec-websocket-key" => head.websocket_key = Some(value.to_owned()),
                _ => {}
            }
        }
    }

    /// Reads the body to its end, whichever way its length is told.
    pub(in crate::bench) fn copy_body(&self, reader: &mut impl BufRead, to: &mut impl Write) -> Result<()> {
        if !self.is_chunked {
            std::io::copy(&mut reader.take(self.length), to)?;
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16)?;
            std::io::copy(&mut reader.take(size), to)?;
            std::io::copy(&mut reader.take(2), &mut std::io::sink())?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = |target: &str, length, is_chunked| Head {
            target: target.to_owned(),
            length,
            is_chunked,
            websocket_key: None,
        };
        let cases = [
            ("small", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", head("/", 0, false)),
            ("large", "GET /large HTTP/1.1\r\n\r\n", head("/large", 0, false)),
            ("a length", "POST / HTTP/1.1\r\ncontent-LENGTH: 12\r\n\r\n", head("/", 12, false)),
            ("chunks", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", head("/", 0, true)),
        ];
        for (name, text, expected) in cases {
            assert_eq!(Head::read(&mut text.as_bytes()).unwrap(), Some(expected), "{name}");
        }
        assert_eq!(Head::read(&mut &b""[..]).unwrap(), None);
        assert!(Head::read(&mut &b"GET / HTTP/1.1\r\nHost: a\r\n"[..]).is_err());
    }

    #[test]
    fn bodies() {
        let chunked = Head { is_chunked: true, ..Head::default() };
        let sized = Head { length: 3, ..Head::default() };
        let cases = [("chunks", chunked, "3\r\nabc\r\n0\r\n\r\nrest"), ("a length", sized, "abcrest")];
        for (name, head, text) in cases {
            let (mut text, mut body) = (text.as_bytes(), Vec::new());
            head.copy_body(&mut text, &mut body).unwrap();
            assert_eq!((text, body.as_slice()), (&b"rest"[..], &b"abc"[..]), "{name}");
        }
    }
}
