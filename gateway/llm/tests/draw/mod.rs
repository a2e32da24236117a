//! Draws arbitrary requests and replies in which each text is a mark of its own, so that one that is missing later is seen.
//!
//! They are built from bytes, in a program's way, and not from proptest's strategies: a conversation has to make sense
//! (results follow calls, identities agree), which strategies that know nothing of each other cannot see to. Fewer and
//! smaller bytes are a smaller request, so cases still shrink.

mod part;
mod reply;
mod request;

use gateway_llm::dialect::Dialect;
use gateway_llm::loss::{Losses, What};
use gateway_llm::neutral::Native;

/// Draws from bytes.
#[derive(Debug)]
pub(crate) struct Draw<'b> {
    bytes: std::slice::Iter<'b, u8>,
    /// For which dialect.
    pub(crate) dialect: Dialect,
    pub(crate) marks: Vec<Mark>,
}

/// A text that must not vanish.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) text: String,
    /// As what it may be lost.
    pub(crate) may_be: Vec<What>,
    /// Whether it must be in what was read again; else it is enough that it was written.
    pub(crate) is_read: bool,
}

impl<'b> Draw<'b> {
    pub(crate) fn new(bytes: &'b [u8], dialect: Dialect) -> Self {
        Self { bytes: bytes.iter(), dialect, marks: Vec::new() }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// Below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One time in `of`; never, when nothing is left.
    pub(crate) fn chance(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }

    pub(crate) fn some<T>(&mut self, of: u8, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(of).then(|| draw(self))
    }

    pub(crate) fn many<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| draw(self)).collect()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A text that may be lost only as one of these. It is a name, an identity, base64, and words.
    pub(crate) fn mark(&mut self, may_be: &'static [What]) -> String {
        let text = format!("mk{:04}xz", self.marks.len());
        self.marks.push(Mark { text: text.clone(), may_be: may_be.to_vec(), is_read: true });
        text
    }

    /// Fields that only another dialect knows: their loss must be noted. What a dialect makes of its own fields is known to
    /// its decoder only, and looked at in its own tests.
    pub(crate) fn natives(&mut self) -> Vec<Native<'static>> {
        let other = self.other();
        if !self.chance(6) {
            return Vec::new();
        }
        let value = self.mark(&[What::UnknownField]);
        vec![Native::new(other, What::UnknownField, format!("native_{value}"), format!("\"{value}\""))]
    }

    /// Another dialect.
    fn other(&mut self) -> Dialect {
        let dialect = self.pick(&Dialect::ALL);
        if dialect != self.dialect {
            dialect
        } else if dialect == Dialect::Gemini {
            Dialect::OpenaiChat
        } else {
            Dialect::Gemini
        }
    }
}

impl Mark {
    /// What is wrong, if it has vanished.
    pub(crate) fn vanished(&self, written: &str, read: &str, losses: &Losses) -> Option<String> {
        let is_there = if self.is_read { read.contains(&self.text) } else { written.contains(&self.text) };
        let is_lost = self.may_be.iter().any(|what| losses.has(*what));
        (!is_there && !is_lost)
            .then(|| format!("{} has vanished, and is lost as none of {:?}", self.text, self.may_be))
    }
}
