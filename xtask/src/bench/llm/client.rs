//! One connection of one client: it sends a request, reads the answer to its end, and can say whether it is right.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::scene::Scene;
use super::wire::{self, Dialect};

/// A gateway in Python needs its time for a mebibyte.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer here has.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What a right answer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// What the provider was asked in, and so what it says.
    pub(super) dialect: Dialect,
    /// Whether the client gets the provider's bytes; else the same text in other words.
    pub(super) is_exact: bool,
}

pub(super) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    scene: Scene,
    answer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(scene: Scene, address: SocketAddr, headers: &[(&str, String)]) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = wire::request(scene);
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {address}\r\n", super::PATH);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        Ok(Self { stream, request: (head + &body).into_bytes(), scene, answer: Vec::new() })
    }

    /// Asks once. Returns the time to the first word of a stream, or to the end of what is not one.
    pub(super) fn ask(&mut self) -> Result<Duration> {
        let is_stream = self.scene.events().is_some();
        let first_word = wire::word(0);
        let mut first = None;
        self.answer.clear();
        let begin = Instant::now();
        self.stream.write_all(&self.request)?;
        let mut chunk = [0; 16 * 1024];
        while !is_whole(&self.answer) {
            let count = self.stream.read(&mut chunk)?;
            ensure!(count > 0, "the connection ended within an answer");
            self.answer.extend_from_slice(&chunk[..count]);
            ensure!(self.answer.len() <= ANSWER_BYTES_MAX, "an answer without an end");
            if first.is_none() && (!is_stream || contains(&self.answer, first_word.trim_end().as_bytes())) {
                first = Some(begin.elapsed());
            }
        }
        let whole = begin.elapsed();
        if is_stream { first.context("a stream without words") } else { Ok(whole) }
    }

    /// Whether the last answer is the right one.
    pub(super) fn check(&self, expected: Expected) -> Result<()> {
        let Expected { dialect, is_exact } = expected;
        let (head, body) = split(&self.answer).context("no whole answer")?;
        let line = head.lines().next().unwrap_or_default();
        let shown = || String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
        ensure!(line.split(' ').nth(1) == Some("200"), "not 200: {line}: {}", shown());
        let Some(words) = self.scene.events() else {
            if is_exact {
                ensure!(body == wire::reply(dialect).as_bytes(), "not the provider's body: {}", shown());
            }
            let text = format!("\"{}\"", wire::reply_text(dialect));
            ensure!(contains(&body, text.as_bytes()), "not the provider's text: {}", shown());
            return Ok(());
        };
        if is_exact {
            let stream = wire::stream(dialect, words);
            let whole = [stream.begin, stream.words.concat(), stream.end].concat();
            ensure!(body == whole.as_bytes(), "not the provider's stream: {}", shown());
        }
        let text = String::from_utf8(body).context("a stream that is no text")?;
        let mut rest = text.as_str();
        for number in 0..words {
            let word = wire::word(number);
            let at = rest.find(&word).with_context(|| format!("no `{word}` in its turn: {rest}"))?;
            rest = &rest[at + word.len()..];
        }
        ensure!(rest.trim_end().ends_with("data: [DONE]"), "a stream without its end: {rest}");
        Ok(())
    }
}

/// Asks over and over, and returns how long each took.
pub(super) fn run(
    scene: Scene,
    address: SocketAddr,
    headers: &[(&str, String)],
    seconds: u32,
    expected: Expected,
) -> Result<Vec<Duration>> {
    let mut client = Client::connect(scene, address, headers)?;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut took = Vec::new();
    while Instant::now() < end {
        took.push(client.ask()?);
        client.check(expected)?;
    }
    Ok(took)
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn content_length(head: &str) -> Option<usize> {
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    })?;
    field.trim().parse().ok()
}

/// Whether the answer has come to its end. No body here has in it what ends one that comes in chunks.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = end_of_head(answer) else { return false };
    let head = String::from_utf8_lossy(&answer[..end]);
    match content_length(&head) {
        Some(length) => answer.len() >= end + length,
        None => answer[end..].ends_with(b"0\r\n\r\n"),
    }
}

/// Head and body, the latter without the marks of its chunks.
fn split(answer: &[u8]) -> Option<(String, Vec<u8>)> {
    let end = end_of_head(answer)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut rest = &answer[end..];
    if content_length(&head).is_some() {
        return Some((head, rest.to_vec()));
    }
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?.trim(), 16).ok()?;
        let from = line_end + 2;
        body.extend_from_slice(rest.get(from..from + size)?);
        rest = rest.get(from + size + 2..)?;
        if size == 0 {
            return Some((head, body));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let cases = [
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true, Some("abc")),
            ("cut", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", false, Some("abc")),
            ("chunks", "HTTP/1.1 200 OK\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", true, Some("abc")),
            ("chunks without an end", "HTTP/1.1 200 OK\r\n\r\n2\r\nab\r\n", false, None),
            ("no head", "HTTP/1.1 200 OK\r\n", false, None),
        ];
        for (name, answer, whole, body) in cases {
            assert_eq!(is_whole(answer.as_bytes()), whole, "{name}");
            let read = split(answer.as_bytes()).map(|(_, body)| String::from_utf8(body).unwrap());
            assert_eq!(read.as_deref(), body, "{name}");
        }
    }
}
