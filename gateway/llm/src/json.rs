//! JSON as translation needs it: one pass over a text, in which every value remembers the text it was read from.
//!
//! Schemas, tool inputs and numbers then travel as they were written, a change to one field leaves all other bytes
//! alone, and an error can name its place. `serde_json::Value` keeps neither order nor digits of large numbers nor
//! places; `RawValue` keeps them, but reads a text once for each level of its nesting. So the structure is read here,
//! and serde_json reads strings that hold escapes. A name that stands twice is an error: readers do not agree which of
//! the two counts.

mod fields;
mod members;
mod write;

use std::borrow::Cow;
use std::fmt;

pub use fields::{Fields, Path, Reader};
pub use members::{Edit, Members, Piece};
pub use write::{Array, Object, object, quoted};

use crate::invalid::{Invalid, Reason};

/// How deep arrays and objects may be nested. Schemas of tools reach some 20.
pub const MAX_DEPTH: usize = 64;

/// How many values a text may have in all. A value in memory is some ten times as large as `0,` is: a bound on bytes
/// alone would be no bound on memory.
pub const MAX_VALUES: usize = 1 << 18;

/// A value, and the text that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// What it is.
    pub value: Value<'a>,
    /// As it was written, without the space around it.
    pub raw: &'a str,
}

/// What a value is. A number is its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// In the notation of RFC 8259, section 6.
    Number(&'a str),
    /// Without quotes and escapes.
    Text(Cow<'a, str>),
    /// In order.
    Array(Vec<Node<'a>>),
    /// In order; no name stands twice.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl Value<'_> {
    /// With its article, for errors.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// A number as it was written, or as it is to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

impl<'a> Number<'a> {
    /// From the text of a [`Value::Number`].
    #[must_use]
    pub const fn from_text(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The nearest number of 64 bits.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// If it is a whole number that is not negative, however it is written.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok().or_else(|| {
            let value = self.as_f64();
            // Above 2^53 a float has no units any more.
            (value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
        })
    }

    /// If it is a whole number.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok().or_else(|| {
            let value = self.as_f64();
            (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
        })
    }

    /// With text of its own.
    #[must_use]
    pub fn into_owned(self) -> Number<'static> {
        Number(Cow::Owned(self.0.into_owned()))
    }
}

impl From<u64> for Number<'_> {
    fn from(value: u64) -> Self {
        Self(Cow::Owned(value.to_string()))
    }
}

impl From<f64> for Number<'_> {
    /// What is no number (JSON has no infinity) becomes 0.
    fn from(value: f64) -> Self {
        Self(
            serde_json::Number::from_f64(value)
                .map_or(Cow::Borrowed("0"), |number| number.to_string().into()),
        )
    }
}

impl fmt::Debug for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a text, which must be one value.
///
/// # Errors
/// When it is not JSON in UTF-8, has a name twice in one object, is nested more than [`MAX_DEPTH`] deep or has more
/// than [`MAX_VALUES`] values. The error names line and column.
pub fn parse(text: &[u8]) -> Result<Node<'_>, Invalid> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return Err(at(text, error.valid_up_to(), Reason::Syntax, "This is not UTF-8.")),
    };
    let mut parser = Parser { text, at: 0, values: 0 };
    let parsed = parser.value(0).and_then(|node| {
        parser.space();
        if parser.at == text.len() {
            Ok(node)
        } else {
            Err(Fault::syntax("Something follows the JSON value."))
        }
    });
    parsed.map_err(|fault| at(text.as_bytes(), parser.at, fault.reason, fault.what))
}

fn at(text: &[u8], offset: usize, reason: Reason, what: &str) -> Invalid {
    let before = &text[..offset.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
    Invalid::new(reason, String::new(), format!("{what} (line {line}, column {column} of the body)"))
}

struct Parser<'a> {
    text: &'a str,
    /// The next byte; where parsing failed, the place of the error.
    at: usize,
    values: usize,
}

struct Fault {
    reason: Reason,
    what: &'static str,
}

impl Fault {
    const fn syntax(what: &'static str) -> Self {
        Self { reason: Reason::Syntax, what }
    }

    const fn too_large(what: &'static str) -> Self {
        Self { reason: Reason::TooLarge, what }
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Fault> {
        self.space();
        let start = self.at;
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Fault::too_large("There are too many values in it."));
        }
        let value = match self.peek() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'{') => self.nested(depth, Self::object)?,
            Some(b'[') => self.nested(depth, Self::array)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(_) => return Err(Fault::syntax("No JSON value begins like this.")),
            None => return Err(Fault::syntax("The JSON ends too early.")),
        };
        Ok(Node { value, raw: &self.text[start..self.at] })
    }

    fn nested(
        &mut self,
        depth: usize,
        read: impl Fn(&mut Self, usize) -> Result<Value<'a>, Fault>,
    ) -> Result<Value<'a>, Fault> {
        if depth == MAX_DEPTH {
            return Err(Fault::too_large("It is nested too deep."));
        }
        self.at += 1;
        read(self, depth + 1)
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let mut members: Vec<(Cow<'a, str>, Node<'a>)> = Vec::new();
        if self.ends(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(Fault::syntax("A name in quotes is missing here."));
            }
            let name = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(Fault::syntax("A colon is missing here."));
            }
            self.at += 1;
            let value = self.value(depth)?;
            members.push((name, value));
            // Few names are cheaper to compare than to hash; many are looked through once, at the end.
            if members.len() <= FEW {
                let (last, before) = members.split_last().expect("one was just pushed");
                if before.iter().any(|(name, _)| *name == last.0) {
                    self.at = start;
                    return Err(Fault {
                        reason: Reason::Duplicate,
                        what: "This name stands twice in one object.",
                    });
                }
            }
            if !self.goes_on(b'}')? {
                break;
            }
        }
        if members.len() > FEW {
            let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Fault {
                    reason: Reason::Duplicate,
                    what: "A name stands twice in the object that ends here.",
                });
            }
        }
        Ok(Value::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let mut items = Vec::new();
        if self.ends(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if !self.goes_on(b']')? {
                return Ok(Value::Array(items));
            }
        }
    }

    /// Whether an array or object is empty.
    fn ends(&mut self, end: u8) -> bool {
        self.space();
        let ends = self.peek() == Some(end);
        self.at += usize::from(ends);
        ends
    }

    /// Whether there is one more.
    fn goes_on(&mut self, end: u8) -> Result<bool, Fault> {
        self.space();
        let goes_on = match self.peek() {
            Some(b',') => true,
            Some(byte) if byte == end => false,
            Some(_) => return Err(Fault::syntax("A comma or the end of the list is missing here.")),
            None => return Err(Fault::syntax("The JSON ends too early.")),
        };
        self.at += 1;
        Ok(goes_on)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let text = self.text;
        let start = self.at + 1;
        let mut end = start;
        let mut is_plain = true;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &text.as_bytes()[end..]) else {
                self.at = text.len();
                return Err(Fault::syntax("The JSON ends within a string."));
            };
            end += found;
            if text.as_bytes()[end] == b'"' {
                break;
            }
            is_plain = false;
            // Whatever is escaped: if it is a quote, it does not end the string.
            end += 2;
            if end > text.len() {
                self.at = text.len();
                return Err(Fault::syntax("The JSON ends within a string."));
            }
        }
        let inner = &text[start..end];
        // Looked at to the end, although the first would do: so many bytes are compared at a time, and strings are most of a
        // prompt.
        let has_controls = inner.bytes().fold(false, |has, byte| has | (byte < 0x20));
        let plain = if is_plain && !has_controls {
            Cow::Borrowed(inner)
        } else {
            // Escapes, and what must be escaped and is not. Lone surrogates are refused: no target could be told of one.
            Cow::Owned(serde_json::from_str(&text[self.at..=end]).map_err(|_| {
                Fault::syntax("This string has an escape, half a surrogate pair or a control character that JSON does not allow.")
            })?)
        };
        self.at = end + 1;
        Ok(plain)
    }

    fn number(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Fault::syntax("A digit is missing here.")) } else { Ok(()) }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Fault::syntax("No JSON value begins like this."));
        }
        self.at += word.len();
        Ok(value)
    }
}

/// Up to how many names each is compared with those before it.
const FEW: usize = 16;

#[cfg(test)]
mod tests;
