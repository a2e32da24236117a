//! As much of WebSocket (RFC 6455) as an echo takes: the handshake, and short messages in one frame each.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, ensure};

/// What a client asks for. The key is not random, as nobody here has to tell connections apart.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the server says to that very key: RFC 6455 gives it as its example.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// FIN and the opcode of a binary message.
const BINARY: u8 = 0x82;
const IS_MASKED: u8 = 0x80;
/// Above it, a length takes more than one byte.
const SHORT_MAX: u8 = 125;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The request that asks to switch.
pub(crate) fn request(host: impl std::fmt::Display) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The reply that agrees.
pub(crate) fn agreement(key: &str) -> String {
    let accept = if key == KEY { ACCEPT } else { "" };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Reads the reply to [`request`]; false if the other side does not switch.
pub(crate) fn agrees(reader: &mut impl BufRead) -> Result<bool> {
    let (mut agrees, mut accepts) = (false, false);
    for number in 0..100 {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "no reply to the request for WebSocket");
        let line = line.trim_end();
        if number == 0 {
            agrees = line.split(' ').nth(1) == Some("101");
        }
        accepts |= line.split_once(':').is_some_and(|(_, value)| value.trim() == ACCEPT);
        if line.is_empty() {
            return Ok(agrees && accepts);
        }
    }
    anyhow::bail!("the reply to the request for WebSocket has no end")
}

/// A message as a client sends it.
pub(crate) fn message(text: &[u8]) -> Result<Vec<u8>> {
    let length = short(text)?;
    let masked = text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    Ok([BINARY, IS_MASKED | length].into_iter().chain(MASK).chain(masked).collect())
}

/// The same as a server sends it.
pub(crate) fn answer(text: &[u8]) -> Result<Vec<u8>> {
    Ok([&[BINARY, short(text)?], text].concat())
}

fn short(text: &[u8]) -> Result<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length <= SHORT_MAX);
    length.context("a message that is too long for the benchmark")
}

/// Answers each message with itself until the connection ends.
pub(crate) fn echo(reader: &mut impl Read, writer: &mut impl Write) -> Result<()> {
    let mut text = [0; SHORT_MAX as usize];
    loop {
        let mut head = [0; 6];
        if reader.read_exact(&mut head).is_err() {
            return Ok(());
        }
        let [kind, length, mask @ ..] = head;
        ensure!(kind == BINARY && length & IS_MASKED != 0, "not a message of the benchmark: {head:02x?}");
        let text = text.get_mut(..usize::from(length & !IS_MASKED)).context("a message that is too long")?;
        reader.read_exact(text)?;
        for (byte, mask) in text.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        writer.write_all(&answer(text)?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        for text in [&b""[..], b"a", b"hello", &[b'x'; 125]] {
            let mut answered = Vec::new();
            echo(&mut message(text).unwrap().as_slice(), &mut answered).unwrap();
            assert_eq!(answered, answer(text).unwrap());
        }
        assert!(message(&[b'x'; 126]).is_err());
        assert!(echo(&mut &b"GET / HTTP/1.1"[..], &mut Vec::new()).is_err());
    }

    #[test]
    fn replies_to_the_handshake() {
        for (name, reply, expected) in [
            ("an agreement", agreement(KEY), true),
            ("another key", agreement("x"), false),
            ("a refusal", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(), false),
        ] {
            assert_eq!(agrees(&mut reply.as_bytes()).unwrap(), expected, "{name}");
        }
        assert!(agrees(&mut &b"HTTP/1.1 101 "[..]).is_err());
    }
}
