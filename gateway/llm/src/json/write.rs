//! Writes JSON straight into bytes, in the order in which it is said.

use std::borrow::Cow;

use super::Number;

/// Writes an object.
pub fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, is_first: true });
    out.push(b'}');
}

/// A string with its quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// What stands between the quotes. serde_json writes the same, and looks at one byte after the other: a prompt is mostly
/// long strings, in which nearly nothing is escaped.
fn escaped(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, behind)) = behind.split_first() else { return };
        rest = behind;
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => {
                let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
}

/// How many bytes come before the first that is escaped. Whole blocks are looked at without stopping within them, which
/// takes a few instructions a block.
fn plain_len(bytes: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let is_escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let is_plain = |block: &&[u8]| !block.iter().fold(false, |has, &byte| has | is_escaped(byte));
    let start = bytes.chunks_exact(BLOCK).take_while(is_plain).count() * BLOCK;
    let rest = &bytes[start..];
    start + rest.iter().position(|&byte| is_escaped(byte)).unwrap_or(rest.len())
}

fn array(out: &mut Vec<u8>, write: impl FnOnce(&mut Array<'_>)) {
    out.push(b'[');
    write(&mut Array { out, is_first: true });
    out.push(b']');
}

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl Object<'_> {
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A string.
    pub fn text(&mut self, name: &str, value: &str) {
        string(self.name(name), value);
    }

    /// A string, if there is one.
    pub fn some_text(&mut self, name: &str, value: Option<&(impl AsRef<str> + ?Sized)>) {
        if let Some(value) = value {
            self.text(name, value.as_ref());
        }
    }

    /// A string that is written in pieces: they stand after each other.
    pub fn joined<'t>(&mut self, name: &str, pieces: impl IntoIterator<Item = &'t str>) {
        let out = self.name(name);
        out.push(b'"');
        pieces.into_iter().for_each(|piece| escaped(out, piece));
        out.push(b'"');
    }

    /// A whole number.
    pub fn whole(&mut self, name: &str, value: u64) {
        self.raw(name, &value.to_string());
    }

    /// A whole number, if there is one.
    pub fn some_whole(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.whole(name, value);
        }
    }

    /// A number, if there is one.
    pub fn some_number(&mut self, name: &str, value: Option<&Number<'_>>) {
        if let Some(value) = value {
            self.raw(name, value.text());
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }

    /// `true` or `false`, if it was said.
    pub fn some_boolean(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.boolean(name, value);
        }
    }

    /// `null`
    pub fn null(&mut self, name: &str) {
        self.raw(name, "null");
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.name(name).extend_from_slice(json.as_bytes());
    }

    /// A value that is JSON already, if there is one.
    pub fn some_raw(&mut self, name: &str, json: Option<&(impl AsRef<str> + ?Sized)>) {
        if let Some(json) = json {
            self.raw(name, json.as_ref());
        }
    }

    /// An object.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.name(name), write);
    }

    /// An array.
    pub fn array(&mut self, name: &str, write: impl FnOnce(&mut Array<'_>)) {
        array(self.name(name), write);
    }

    /// An array of strings.
    pub fn texts(&mut self, name: &str, values: &[Cow<'_, str>]) {
        self.array(name, |array| values.iter().for_each(|value| array.text(value)));
    }
}

/// An array that is being written.
#[derive(Debug)]
pub struct Array<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl Array<'_> {
    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        self.out
    }

    /// A string.
    pub fn text(&mut self, value: &str) {
        string(self.next(), value);
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &str) {
        self.next().extend_from_slice(json.as_bytes());
    }

    /// An object.
    pub fn object(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        object(self.next(), write);
    }

    /// An array.
    pub fn array(&mut self, write: impl FnOnce(&mut Array<'_>)) {
        array(self.next(), write);
    }

    /// Whether nothing was written so far.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.is_first
    }
}
