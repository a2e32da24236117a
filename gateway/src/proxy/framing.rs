//! Finds where each request of a connection ends, and refuses what two servers could read in two ways.
//!
//! hyper is the parser; this is the doorman before it. hyper accepts line ends without CR, lets
//! Transfer-Encoding win over Content-Length and drops the latter unseen, and closes without a word where a
//! client should read 408; and what it cannot parse at all, it answers with an empty 400. A gateway that forwards to servers it does not know must be stricter (RFC 9112,
//! sections 2.2, 5.2 and 6.3), so a head reaches hyper only when it is complete and free of those. For
//! that, the end of each message has to be known: a length or chunk sizes, nothing else is read.
//!
//! Should this file and hyper ever disagree about where a message ends, hyper still decides what is
//! forwarded; the doorman would then refuse, or wait until the header timeout.

use memchr::memchr;

use super::grammar::{self, Minor};

/// Why a request is not passed to the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The text is for the client.
    Malformed(&'static str),
    /// It is no request but what HTTP/2 begins with.
    Preface,
    /// It is of another major version of HTTP.
    Version,
    /// Too many bytes or too many fields.
    TooLarge,
    /// The head did not arrive in time. Set by the connection's timer, not here.
    TooSlow,
}

/// What to do with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes may go to the parser.
    Pass(usize),
    /// This many bytes mean nothing: empty lines before a request.
    Skip(usize),
    /// More bytes are needed to tell.
    More,
    /// The connection has to end here.
    Refuse(Refusal),
}

/// How much a head may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// A chunk-size line holds 16 digits; the rest is for extensions, which nobody sends.
const MAX_CHUNK_LINE: usize = 256;

/// Empty lines taken before a request; old clients send one after a body.
const MAX_EMPTY_LINES: u8 = 4;

#[derive(Debug)]
pub(super) struct Framing {
    limits: Limits,
    state: State,
    head: Head,
    /// The head before this byte asks for another protocol, perhaps.
    asks_upgrade: bool,
    /// Where in it the minor version stands, if that is one that hyper does not know.
    later: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes left of a body with a length.
    Body(u64),
    ChunkSize,
    /// Bytes left of a chunk.
    Chunk(u64),
    ChunkEnd,
    /// Bytes of trailers so far.
    Trailers(usize),
}

/// What is known of a head that is not complete.
#[derive(Debug, Default)]
struct Head {
    /// Up to here there are whole lines, all seen.
    scanned: usize,
    lines: usize,
    empty_lines: u8,
    /// HTTP/1.0.
    old: bool,
    later: Option<usize>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Framing {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head, head: Head::default(), asks_upgrade: false, later: None }
    }

    /// Whether the next byte belongs to a head.
    pub(super) fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether the last head has the field Upgrade.
    pub(super) fn asks_upgrade(&self) -> bool {
        self.asks_upgrade
    }

    /// The last head speaks of HTTP/1.1 from here on, where it spoke of a later version: all that is done about it is
    /// what would be done about HTTP/1.1.
    pub(super) fn settle_version(&self, head: &mut [u8]) {
        if let Some(digit) = self.later.and_then(|at| head.get_mut(at)) {
            *digit = b'1';
        }
    }

    /// Whether the next byte is the first of a message.
    pub(super) fn at_start(&self) -> bool {
        self.in_head() && self.head.lines == 0
    }

    /// Looks at the bytes that are not yet passed, from the first of them; for an incomplete head they are
    /// the same bytes again, and more.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() {
            return Step::More;
        }
        match self.state {
            State::Head => self.step_head(bytes),
            State::Body(_) | State::Chunk(_) => self.pass_opaque(bytes.len()),
            State::ChunkSize => self.step_chunk_size(bytes),
            State::ChunkEnd => self.step_chunk_end(bytes),
            State::Trailers(seen) => self.step_trailers(bytes, seen),
        }
    }

    fn pass_opaque(&mut self, available: usize) -> Step {
        let (State::Body(left) | State::Chunk(left)) = self.state else { return Step::More };
        let count = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - count as u64;
        self.state = match self.state {
            State::Body(_) if left == 0 => State::Head,
            State::Body(_) => State::Body(left),
            State::Chunk(_) if left == 0 => State::ChunkEnd,
            State::Chunk(_) => State::Chunk(left),
            other => other,
        };
        Step::Pass(count)
    }

    fn step_head(&mut self, bytes: &[u8]) -> Step {
        while let Some(end) = memchr(b'\n', &bytes[self.head.scanned..]) {
            let next = self.head.scanned + end + 1;
            let line = match line(&bytes[self.head.scanned..next]) {
                Ok(line) => line,
                Err(refusal) => return Step::Refuse(refusal),
            };
            if line.is_empty() && self.head.lines == 0 {
                self.head.empty_lines += 1;
                if self.head.empty_lines > MAX_EMPTY_LINES {
                    return Step::Refuse(Refusal::Malformed("Empty lines stand where a request should."));
                }
                return Step::Skip(next);
            }
            if next > self.limits.bytes || self.head.lines > self.limits.fields + 1 {
                return Step::Refuse(Refusal::TooLarge);
            }
            self.head.scanned = next;
            if line.is_empty() {
                return self.end_head(next);
            }
            self.head.lines += 1;
            if self.head.lines > self.limits.fields + 1 {
                return Step::Refuse(Refusal::TooLarge);
            }
            if let Err(refusal) = self.head.look_at(line) {
                return Step::Refuse(refusal);
            }
        }
        if bytes.len() > self.limits.bytes { Step::Refuse(Refusal::TooLarge) } else { Step::More }
    }

    fn end_head(&mut self, length: usize) -> Step {
        let head = std::mem::take(&mut self.head);
        (self.asks_upgrade, self.later) = (head.upgrade, head.later);
        self.state = match (head.chunked, head.length) {
            (true, Some(_)) => {
                return Step::Refuse(Refusal::Malformed(
                    "Content-Length and Transfer-Encoding exclude each other.",
                ));
            }
            (true, None) => State::ChunkSize,
            (false, Some(0) | None) => State::Head,
            (false, Some(left)) => State::Body(left),
        };
        Step::Pass(length)
    }

    fn step_chunk_size(&mut self, bytes: &[u8]) -> Step {
        let Some(end) = memchr(b'\n', &bytes[..bytes.len().min(MAX_CHUNK_LINE)]) else {
            if bytes.len() >= MAX_CHUNK_LINE {
                return Step::Refuse(Refusal::Malformed("A chunk's size line is too long."));
            }
            return Step::More;
        };
        let size = match line(&bytes[..=end]).map(chunk_size) {
            Ok(Some(size)) => size,
            Ok(None) => {
                return Step::Refuse(Refusal::Malformed("A chunk's size is not a hexadecimal number."));
            }
            Err(refusal) => return Step::Refuse(refusal),
        };
        self.state = if size == 0 { State::Trailers(0) } else { State::Chunk(size) };
        Step::Pass(end + 1)
    }

    fn step_chunk_end(&mut self, bytes: &[u8]) -> Step {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkSize;
                Step::Pass(2)
            }
            [b'\r'] => Step::More,
            _ => Step::Refuse(Refusal::Malformed("A chunk is longer than its size says.")),
        }
    }

    fn step_trailers(&mut self, bytes: &[u8], seen: usize) -> Step {
        let Some(end) = memchr(b'\n', bytes) else {
            let too_large = seen + bytes.len() > self.limits.bytes;
            return if too_large { Step::Refuse(Refusal::TooLarge) } else { Step::More };
        };
        let seen = seen + end + 1;
        if seen > self.limits.bytes {
            return Step::Refuse(Refusal::TooLarge);
        }
        self.state = match line(&bytes[..=end]) {
            Ok([]) => State::Head,
            Ok([b' ' | b'\t', ..]) => return Step::Refuse(FOLDED),
            Ok(field) => match grammar::field(field) {
                Ok(_) => State::Trailers(seen),
                Err(refusal) => return Step::Refuse(refusal),
            },
            Err(refusal) => return Step::Refuse(refusal),
        };
        Step::Pass(end + 1)
    }
}

const IMITATED: Refusal =
    Refusal::Malformed("A field's name looks like Content-Length or Transfer-Encoding.");
const FOLDED: Refusal = Refusal::Malformed("A field is folded over several lines.");

/// A line without its end; `bytes` ends with LF.
fn line(bytes: &[u8]) -> Result<&[u8], Refusal> {
    bytes.strip_suffix(b"\r\n").ok_or(Refusal::Malformed("A line ends with LF alone."))
}

/// Digits only, at most what 64 bits hold. What follows a semicolon is an extension, and means nothing.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next()?;
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl Head {
    fn look_at(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if self.lines == 1 {
            let minor = grammar::request_line(line)?;
            self.old = minor == Minor::Zero;
            self.later = (minor == Minor::Later).then(|| line.len() - 1);
            return Ok(());
        }
        if let [b' ' | b'\t', ..] = line {
            return Err(FOLDED);
        }
        let (name, value) = grammar::field(line)?;
        // The lengths tell nearly every other field apart.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.see_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.see_coding(value),
            // Many an application server takes an underscore for a dash.
            14 if name.eq_ignore_ascii_case(b"content_length") => Err(IMITATED),
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => Err(IMITATED),
            _ => Ok(()),
        }
    }

    fn see_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::Malformed("There is more than one Content-Length."));
        }
        let number = || {
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return None;
            }
            // hyper keeps its own marks in the highest values.
            std::str::from_utf8(value).ok()?.parse().ok().filter(|length| *length <= u64::MAX / 2)
        };
        let length = number().ok_or(Refusal::Malformed("Content-Length is not a number."))?;
        self.length = Some(length);
        Ok(())
    }

    /// `chunked` and nothing else: the other codings went out of use, and servers differ about them.
    fn see_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.old {
            return Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding."));
        }
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Malformed("The only Transfer-Encoding supported is chunked, once."));
        }
        self.chunked = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { bytes: 256, fields: 4 };

    /// Feeds `bytes` in pieces; returns what was passed, message by message, and how it ended.
    fn run(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Option<Refusal>) {
        let mut framing = Framing::new(LIMITS);
        let (mut messages, mut message, mut start, mut end) = (Vec::new(), Vec::new(), 0, 0);
        let mut pieces = pieces.iter().cycle();
        loop {
            let was_head = framing.in_head();
            match framing.step(&bytes[start..end]) {
                Step::More if end == bytes.len() => break,
                Step::More => end = (end + pieces.next().unwrap()).min(bytes.len()),
                Step::Skip(count) => start += count,
                Step::Refuse(refusal) => return (messages, Some(refusal)),
                Step::Pass(count) => {
                    let from = message.len();
                    message.extend_from_slice(&bytes[start..start + count]);
                    if was_head {
                        framing.settle_version(&mut message[from..]);
                    }
                    start += count;
                    if framing.at_start() {
                        messages.push(String::from_utf8(std::mem::take(&mut message)).unwrap());
                    }
                }
            }
        }
        (messages, None)
    }

    fn malformed(run: &(Vec<String>, Option<Refusal>)) -> bool {
        matches!(run.1, Some(Refusal::Malformed(_)))
    }

    #[test]
    fn messages_end_where_they_should() {
        let plain = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let length = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let chunked =
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n";
        for (name, input, expected) in [
            ("one", plain.to_owned(), vec![plain]),
            ("two", format!("{plain}{plain}"), vec![plain, plain]),
            ("with a body", format!("{length}{plain}"), vec![length, plain]),
            ("in chunks", format!("{chunked}{length}{chunked}"), vec![chunked, length, chunked]),
            ("empty lines between", format!("{length}\r\n{plain}"), vec![length, plain]),
            (
                "a later version of HTTP/1",
                format!("{}\r\n{}{plain}", chunked.replace("1.1", "1.2"), plain.replace("1.1", "1.9")),
                vec![chunked, plain, plain],
            ),
            ("an incomplete one waits", format!("{plain}GET / HT"), vec![plain]),
        ] {
            for pieces in [&[1][..], &[7], &[4096]] {
                let expected = expected.iter().map(|m| (*m).to_owned()).collect();
                assert_eq!(run(input.as_bytes(), pieces), (expected, None), "{name}");
            }
        }
    }

    #[test]
    fn the_preface_of_http2_is_told_from_a_bad_request() {
        for (input, expected) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Some(Refusal::Preface)),
            (b"PRI * HTTP/2.0\r\n", Some(Refusal::Preface)),
            (b"PRI * HTTP/2.0", None),
        ] {
            assert_eq!(run(input, &[1]).1, expected);
        }
        assert_eq!(run(b"PRI / HTTP/2.0\r\n\r\n", &[64]).1, Some(Refusal::Version));
    }

    #[test]
    fn doubtful_messages_are_refused() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        let chunks = |body: &str| format!("{}{body}", head("transfer-encoding: chunked"));
        for (name, input) in [
            ("bare LF after the request line", "GET / HTTP/1.1\nhost: a\r\n\r\n".to_owned()),
            ("bare LF after a field", "GET / HTTP/1.1\r\nhost: a\n\r\n".to_owned()),
            ("bare LF as the end", "GET / HTTP/1.1\r\nhost: a\r\n\n".to_owned()),
            ("bare LF before", "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            ("folded", head("a: b\r\n c: d")),
            ("folded with a tab", head("a: b\r\n\tc: d")),
            ("both framings", head("content-length: 3\r\ntransfer-encoding: chunked")),
            ("both framings, the other way", head("transfer-encoding: chunked\r\ncontent-length: 3")),
            ("two lengths", head("content-length: 3\r\ncontent-length: 4")),
            ("two equal lengths", head("content-length: 3\r\nContent-Length: 3")),
            ("a list of lengths", head("content-length: 3, 3")),
            ("a signed length", head("content-length: +3")),
            ("no length", head("content-length:")),
            ("a huge length", head("content-length: 99999999999999999999")),
            ("chunked is not last", head("transfer-encoding: chunked, gzip")),
            ("chunked is not alone", head("transfer-encoding: gzip, chunked")),
            ("chunked twice", head("transfer-encoding: chunked\r\ntransfer-encoding: chunked")),
            ("unknown coding", head("transfer-encoding: xchunked")),
            ("chunk size not a number", chunks("x\r\n")),
            ("no chunk size", chunks("\r\n")),
            ("a signed chunk size", chunks("+3\r\nabc\r\n")),
            ("0x", chunks("0x3\r\nabc\r\n")),
            ("a space after the size", chunks("3 \r\nabc\r\n")),
            ("a huge chunk size", chunks("11111111111111111\r\n")),
            ("bare LF after a chunk size", chunks("3\nabc\r\n")),
            ("bare LF in an extension", chunks("3;a\nb\r\nabc\r\n")),
            ("a long extension", chunks(&format!("3;{}", "a".repeat(300)))),
            ("a chunk that is too long", chunks("3\r\nabcd\r\n")),
            ("bare LF after a chunk", chunks("3\r\nabc\n")),
            ("bare LF in trailers", chunks("0\r\na: b\n\r\n")),
            ("a folded trailer", chunks("0\r\na: b\r\n c\r\n\r\n")),
            ("a malformed trailer", chunks("0\r\na : b\r\n\r\n")),
            ("chunks in HTTP/1.0", head("transfer-encoding: chunked").replace("HTTP/1.1", "HTTP/1.0")),
            ("no request line", "hello\r\n\r\n".to_owned()),
            ("a space before the colon", head("transfer-encoding : chunked")),
            ("a length with an underscore", head("content_length: 3")),
            ("a coding with an underscore", head("Transfer_Encoding: chunked")),
            ("NUL", head("a: b\0")),
            ("empty lines without end", "\r\n".repeat(5)),
        ] {
            for pieces in [&[1][..], &[4096]] {
                let got = run(input.as_bytes(), pieces);
                assert!(malformed(&got), "{name}: {got:?}");
            }
        }
    }

    #[test]
    fn large_heads_are_refused() {
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        let bytes = |count: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(count - 23));
        for (name, input, expected) in [
            ("as many fields as allowed", fields(4), None),
            ("one more", fields(5), Some(Refusal::TooLarge)),
            ("as many bytes as allowed", bytes(256), None),
            ("one byte more", bytes(257), Some(Refusal::TooLarge)),
            ("without any end", "a".repeat(300), Some(Refusal::TooLarge)),
            (
                "trailers",
                format!(
                    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}",
                    "a: b\r\n".repeat(50)
                ),
                Some(Refusal::TooLarge),
            ),
        ] {
            for pieces in [&[1][..], &[4096]] {
                assert_eq!(run(input.as_bytes(), pieces).1, expected, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_bytes_arrive_do_not_matter(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n", "GET / HTTP/1.3\r\n", "\r\n", "\n", "content-length: 3\r\n", "transfer-encoding: chunked\r\n",
                "abc", "3\r\n", "0\r\n", " x: y\r\n", "a: b\r\n", "\r",
            ]), 0..24),
            pieces in proptest::collection::vec(1usize..9, 1..6),
        ) {
            let input = parts.concat();
            prop_assert_eq!(run(input.as_bytes(), &pieces), run(input.as_bytes(), &[1 << 20]));
        }
    }
}
