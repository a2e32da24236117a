//! What `nft list ruleset` and `nft list set` print: the elements of sets of addresses, wherever they stand
//! among tables, chains and rules. Files for `nft -f` that add elements are read, too.

use memchr::{memchr, memchr2};

use super::notation::{millis, parse_duration, shown};
use super::{NOTHING_SAID, Reading, Refused, Said};

/// Words and quoted texts of one statement or element; what has more of them is neither's.
const MAX_WORDS: usize = 32;

pub(super) fn read(bytes: &[u8], reading: &mut Reading) {
    let mut file = File { tokens: Tokens { rest: bytes, line: 1 }, reading };
    while !file.tokens.rest.is_empty() {
        file.statement();
    }
}

/// A file under way.
struct File<'a, 'r> {
    tokens: Tokens<'a>,
    reading: &'r mut Reading,
}

/// What the elements of a set or the keys of a map are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holds<'a> {
    /// Addresses, as far as is known.
    #[default]
    Addresses,
    /// Addresses together with something else, the last part of which is named.
    More(&'a [u8]),
    /// No addresses: ports, interfaces, marks. A list has no more to do with them than with a chain.
    Others,
}

impl<'a> Holds<'a> {
    /// By a statement, if it says so.
    fn read(statement: &[&'a [u8]]) -> Option<Self> {
        let is_address = |word: &&[u8]| matches!(*word, b"ipv4_addr" | b"ipv6_addr" | b"ip" | b"ip6");
        match statement {
            [b"type", b"ipv4_addr" | b"ipv6_addr"] => Some(Holds::Addresses),
            [b"typeof", b"ip" | b"ip6", b"saddr" | b"daddr"] => Some(Holds::Addresses),
            [b"type" | b"typeof", parts @ .., last] => {
                let any = parts.iter().any(is_address) || is_address(last);
                Some(if any { Holds::More(last) } else { Holds::Others })
            }
            _ => None,
        }
    }
}

/// What a set says before its elements.
#[derive(Default)]
struct Set<'a> {
    holds: Holds<'a>,
    /// Of elements that say nothing else; 0 for none.
    ttl_ms: u64,
}

impl<'a> File<'a, '_> {
    /// A statement up to its end or, if it opens a block, all of the block; except for a table, whose
    /// statements are read like any.
    fn statement(&mut self) {
        let (words, end) = self.words();
        if end != Token::Open {
            return;
        }
        let line = words.line;
        let (verb, words) = match words.list() {
            [verb @ (b"add" | b"create" | b"delete" | b"destroy"), rest @ ..] => (*verb, rest),
            rest => (&b""[..], rest),
        };
        match words {
            [b"table", ..] => {}
            [b"set", ..] => self.set(line),
            [b"elements", b"="] | [b"element", ..] if verb.starts_with(b"de") => {
                self.refuse(line, verb, "this takes away what others add; leave those out instead");
                self.skip_block(line);
            }
            [b"elements", b"="] | [b"element", ..] => self.elements(line, &Set::default()),
            [b"map", ..] => self.map(line),
            [b"define", ..] => {
                self.refuse(line, b"define", "only the elements of sets are read, not definitions");
                self.skip_block(line);
            }
            _ => self.skip_block(line),
        }
    }

    fn set(&mut self, opened: usize) {
        let mut set = Set::default();
        loop {
            let (words, end) = self.words();
            if let Some(holds) = Holds::read(words.list()) {
                set.holds = holds;
            }
            if let [b"timeout", time] = words.list() {
                set.ttl_ms = read_time(time).unwrap_or(0);
            }
            match (end, words.list()) {
                (Token::Open, [b"elements", b"="]) => self.elements(words.line, &set),
                (Token::Open, _) => self.skip_block(words.line),
                (Token::Close, _) => return,
                (Token::Eof, _) => return self.unclosed(opened),
                _ => {}
            }
        }
    }

    /// A map gives each of its addresses something else, which no list can.
    fn map(&mut self, opened: usize) {
        let mut holds = Holds::default();
        loop {
            let (words, end) = self.words();
            // Behind the colon is what is given to the keys.
            let key = words.list().split(|word| *word == b":").next().unwrap_or_default();
            holds = Holds::read(key).unwrap_or(holds);
            match end {
                Token::Open => {
                    if holds != Holds::Others
                        && let [b"elements", b"="] = words.list()
                    {
                        self.refuse(words.line, b"elements", "these are of a map; only sets are read");
                    }
                    self.skip_block(words.line);
                }
                Token::Close => return,
                Token::Eof => return self.unclosed(opened),
                _ => {}
            }
        }
    }

    /// Elements up to the closing brace.
    fn elements(&mut self, opened: usize, set: &Set<'a>) {
        match set.holds {
            Holds::Addresses => {}
            Holds::More(kind) => {
                self.refuse(
                    opened,
                    kind,
                    "the set holds more than addresses; only sets of addresses are read",
                );
                return self.skip_block(opened);
            }
            Holds::Others => return self.skip_block(opened),
        }
        loop {
            let mut words = Words::default();
            let end = loop {
                match self.tokens.next() {
                    // The list of elements goes on over lines.
                    Token::End => {}
                    token if words.take(token, self.tokens.line) => {}
                    token => break token,
                }
            };
            if let Err(refused) = self.element(&words, set) {
                self.reading.refuse(words.line, refused);
            }
            match end {
                Token::Close => return,
                Token::Eof => return self.unclosed(opened),
                Token::Open => {
                    self.refuse(self.tokens.line, b"{", "an element holds no block");
                    self.skip_block(opened);
                }
                _ => {}
            }
        }
    }

    fn element(&mut self, words: &Words<'a>, set: &Set<'_>) -> Result<(), Refused<'a>> {
        let Some((&address, attributes)) = words.list().split_first() else { return Ok(()) };
        if words.too_many {
            return Err(Refused::new(address, "this is longer than any element"));
        }
        let text = std::str::from_utf8(address)
            .map_err(|_| Refused::foreign(address, "the element is not UTF-8"))?;
        let said = self.attributes(attributes, set)?;
        self.reading.add_span(words.line, text, said)
    }

    fn attributes(&mut self, mut words: &[&'a [u8]], set: &Set<'_>) -> Result<Said, Refused<'a>> {
        let mut said = Said { ttl_ms: set.ttl_ms, ..NOTHING_SAID };
        let mut expires = None;
        loop {
            words = match words {
                [] => break,
                [b"timeout", time, rest @ ..] => {
                    said.ttl_ms = read_time(time).map_err(|why| Refused::new(time, why))?;
                    rest
                }
                [b"expires", time, rest @ ..] => {
                    // What ends in this millisecond is not what never ends.
                    expires = Some(read_time(time).map_err(|why| Refused::new(time, why))?.max(1));
                    rest
                }
                [b"comment", text, rest @ ..] => {
                    said.label = self.label(text).map_err(|why| Refused::new(text, why))?;
                    rest
                }
                // Counters say what was, not what shall be.
                [b"counter", b"packets", _, b"bytes", _, rest @ ..] => rest,
                [b"counter", rest @ ..] | [b"last", b"never", rest @ ..] => rest,
                [b"last", b"used", _, rest @ ..] => rest,
                [word, ..] => {
                    let why = format!(
                        "{} is nothing that an entry of a list can have",
                        shown(&String::from_utf8_lossy(word))
                    );
                    return Err(Refused::new(word, why));
                }
            };
        }
        said.ttl_ms = expires.unwrap_or(said.ttl_ms);
        Ok(said)
    }

    fn label(&mut self, text: &[u8]) -> Result<u32, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the comment is not UTF-8".to_owned())?;
        self.reading.label(text)
    }

    /// The words up to what is none.
    fn words(&mut self) -> (Words<'a>, Token<'a>) {
        let mut words = Words::default();
        loop {
            match self.tokens.next() {
                token if words.take(token, self.tokens.line) => {}
                token => {
                    if words.list().is_empty() {
                        words.line = self.tokens.line;
                    }
                    return (words, token);
                }
            }
        }
    }

    /// Passes over a block that is open, and all blocks within it.
    fn skip_block(&mut self, opened: usize) {
        let mut depth = 1usize;
        while depth > 0 {
            match self.tokens.next() {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                Token::Eof => return self.unclosed(opened),
                _ => {}
            }
        }
    }

    fn unclosed(&mut self, opened: usize) {
        self.refuse(opened, b"{", "the block that begins here is not closed; is the file whole?");
    }

    fn refuse(&mut self, line: usize, text: &[u8], why: &str) {
        self.reading.refuse(line, Refused::new(text, why));
    }
}

/// A duration in milliseconds; 0 is forever.
fn read_time(text: &[u8]) -> Result<u64, String> {
    match std::str::from_utf8(text) {
        Ok("never") => Ok(0),
        Ok(text) => parse_duration(text).map(millis),
        Err(_) => Err("the time is not UTF-8".to_owned()),
    }
}

/// The first words of a statement or an element.
#[derive(Default)]
struct Words<'a> {
    list: [&'a [u8]; MAX_WORDS],
    count: usize,
    too_many: bool,
    /// Where the first one stands.
    line: usize,
}

impl<'a> Words<'a> {
    /// Takes a token that is a word; says whether it was one.
    fn take(&mut self, token: Token<'a>, line: usize) -> bool {
        let Token::Word(word) = token else { return false };
        if self.count == 0 {
            self.line = line;
        }
        match self.list.get_mut(self.count) {
            Some(free) => {
                *free = word;
                self.count += 1;
            }
            None => self.too_many = true,
        }
        true
    }

    fn list(&self) -> &[&'a [u8]] {
        &self.list[..self.count]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A word, or a text without its quotes.
    Word(&'a [u8]),
    Open,
    Close,
    Comma,
    /// Of a line or a statement.
    End,
    /// Of the file.
    Eof,
}

struct Tokens<'a> {
    rest: &'a [u8],
    /// Of the token that was read last.
    line: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.skip_space();
        let Some((&byte, rest)) = self.rest.split_first() else { return Token::Eof };
        let token = match byte {
            b'{' => Token::Open,
            b'}' => Token::Close,
            b',' => Token::Comma,
            b';' => Token::End,
            b'=' => Token::Word(b"="),
            b'\n' => {
                self.line += 1;
                Token::End
            }
            b'"' => return self.quoted(),
            _ => return self.word(),
        };
        self.rest = rest;
        token
    }
    /// Blanks, comments, and line ends behind a backslash.
    fn skip_space(&mut self) {
        loop {
            match self.rest {
                [b' ' | b'\t' | b'\r', rest @ ..] => self.rest = rest,
                [b'\\', b'\n', rest @ ..] => {
                    self.rest = rest;
                    self.line += 1;
                }
                [b'#', ..] => {
                    let end = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                _ => return,
            }
        }
    }

    /// A text in quotes. It holds no quotes itself and ends on its line.
    fn quoted(&mut self) -> Token<'a> {
        let inner = &self.rest[1..];
        let end = memchr2(b'"', b'\n', inner).unwrap_or(inner.len());
        let after = &inner[end..];
        self.rest = after.strip_prefix(b"\"").unwrap_or(after);
        Token::Word(&inner[..end])
    }

    fn word(&mut self) -> Token<'a> {
        let ends = |byte: &u8| {
            matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'}' | b',' | b';' | b'=' | b'"')
        };
        // A backslash or whatever else begins a word is part of it, so that every token takes a byte.
        let end = self.rest.iter().skip(1).position(ends).map_or(self.rest.len(), |at| at + 1);
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word)
    }
}
