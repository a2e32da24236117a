//! The provider behind every gateway: whole replies and streams of two dialects, by the path. A stream's words come one a
//! millisecond, each in a write of its own, as models write them.
//!
//! A thread a connection: there are no more of them than the load has. Not `gateway mock-provider`, which reads what it
//! is asked: that would cost more than what is measured.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::request::origin::Head;
use super::wire::{self, Dialect};

/// From one word of a stream to the next.
const PACE: Duration = Duration::from_millis(1);
/// What a stream has at most; a request may ask for more.
const WORDS_MAX: usize = 1000;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        // A gateway that goes away breaks its connections: that is the end of a round and no mistake.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let (chat, messages) = (whole(Dialect::Chat), whole(Dialect::Messages));
    let mut body = Vec::new();
    while let Some(head) = Head::read(&mut reader)? {
        body.clear();
        head.copy_body(&mut reader, &mut body)?;
        let dialect = if head.target.ends_with("/messages") { Dialect::Messages } else { Dialect::Chat };
        match words(&body) {
            None if dialect == Dialect::Messages => writer.write_all(&messages)?,
            None => writer.write_all(&chat)?,
            Some(words) => say(&mut writer, &wire::stream(dialect, words))?,
        }
    }
    Ok(())
}

fn whole(dialect: Dialect) -> Vec<u8> {
    let body = wire::reply(dialect);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// How many words a request wants to have streamed, if it wants that. Everybody writes these two fields differently
/// spaced, and nobody in another way.
fn words(body: &[u8]) -> Option<usize> {
    value(body, b"\"stream\":").filter(|value| value.starts_with(b"true"))?;
    let digits = value(body, b"\"max_tokens\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let words: usize = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
    Some(words.min(WORDS_MAX))
}

/// What stands behind the first of this key.
fn value<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = body.windows(key.len()).position(|window| window == key)?;
    Some(body[at + key.len()..].trim_ascii_start())
}

fn say(writer: &mut impl Write, stream: &wire::Stream) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut first = head.to_owned() + &chunk(&stream.begin);
    for (number, word) in stream.words.iter().enumerate() {
        if number == 0 {
            first += &chunk(word);
            writer.write_all(first.as_bytes())?;
            continue;
        }
        thread::sleep(PACE);
        writer.write_all(chunk(word).as_bytes())?;
    }
    let mut end = chunk(&stream.end);
    write!(end, "0\r\n\r\n")?;
    writer.write_all(end.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let cases = [
            ("whole", r#"{"model":"m","max_tokens":7}"#, None),
            ("streamed", r#"{"model":"m","max_tokens":7,"stream":true}"#, Some(7)),
            ("spaced", r#"{"max_tokens": 7, "stream": true}"#, Some(7)),
            ("not streamed", r#"{"max_tokens": 7, "stream": false}"#, None),
            ("too much", r#"{"max_tokens":99999,"stream":true}"#, Some(WORDS_MAX)),
        ];
        for (name, body, expected) in cases {
            assert_eq!(words(body.as_bytes()), expected, "{name}");
        }
    }
}
