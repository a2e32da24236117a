//! The parts of one answer that is streamed, in order.
//!
//! Chunks say which tool call they go on with, and servers that run calls side by side let them alternate. Events do not:
//! a part is complete before the next one begins. So what comes while the arguments of a call are not complete waits until
//! they are. A call whose arguments are whole JSON is complete without being told, and the next one is not held up: in the
//! order in which all but a few servers send calls, nothing ever waits.

use std::collections::VecDeque;

use crate::neutral::{Delta, Event, PartStart};

/// How much may wait, in bytes. Beyond it, parts end where they are.
const MAX_WAITING: usize = 16 << 20;

/// Which part a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Text,
    Refusal,
    Audio,
    /// By its index in `reasoning_details`, and whether it is a summary; without index where there are none.
    Thinking(Option<u64>, bool),
    /// By its place among the calls.
    Call(usize),
    /// A part that comes whole, and goes on with nothing.
    Whole,
}

/// The parts of an answer.
#[derive(Debug, Default)]
pub(super) struct Parts {
    candidate: u64,
    /// How many were begun.
    begun: usize,
    open: Option<Open>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Open {
    key: Key,
    /// Of a call: whether its arguments are complete.
    balance: Balance,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    start: PartStart<'static>,
    deltas: Vec<Delta<'static>>,
}

impl Parts {
    pub(super) fn new(candidate: u64) -> Self {
        Self { candidate, ..Self::default() }
    }

    /// Whether the part is the one that goes on.
    pub(super) fn is_open(&self, key: Key) -> bool {
        self.open.as_ref().is_some_and(|open| open.key == key)
    }

    /// The part that goes on.
    pub(super) fn open(&self) -> Option<Key> {
        self.open.as_ref().map(|open| open.key)
    }

    /// A piece of a part, which begins with it unless it has begun.
    pub(super) fn piece(
        &mut self,
        key: Key,
        start: impl FnOnce() -> PartStart<'static>,
        delta: Option<Delta<'_>>,
        say: &mut dyn FnMut(Event<'_>),
    ) {
        if !self.is_open(key) {
            if self.must_wait() {
                return self.wait(key, start, delta, say);
            }
            self.end(say);
            self.begin(key, start(), say);
        }
        if let Some(delta) = delta {
            self.go_on(delta, say);
        }
    }

    /// A piece of a part that may have ended: says whether it has.
    pub(super) fn late(&mut self, key: Key, delta: Delta<'_>, say: &mut dyn FnMut(Event<'_>)) -> bool {
        if self.is_open(key) {
            self.go_on(delta, say);
        } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.key == key) {
            self.waiting_bytes += size(&delta);
            waiting.deltas.push(kept(&delta));
        } else {
            return true;
        }
        false
    }

    /// All that is there is complete.
    pub(super) fn finish(&mut self, say: &mut dyn FnMut(Event<'_>)) {
        self.end(say);
        while let Some(waiting) = self.waiting.pop_front() {
            self.release(waiting, say);
            self.end(say);
        }
        self.waiting_bytes = 0;
    }

    fn must_wait(&self) -> bool {
        let is_incomplete = |open: &Open| matches!(open.key, Key::Call(_)) && !open.balance.is_complete();
        self.open.as_ref().is_some_and(is_incomplete)
    }

    fn wait(
        &mut self,
        key: Key,
        start: impl FnOnce() -> PartStart<'static>,
        delta: Option<Delta<'_>>,
        say: &mut dyn FnMut(Event<'_>),
    ) {
        let known = match key {
            // Calls go on wherever they wait; anything else goes on only if nothing came after it.
            Key::Call(_) => self.waiting.iter().position(|waiting| waiting.key == key),
            Key::Whole => None,
            _ => self.waiting.len().checked_sub(1).filter(|&last| self.waiting[last].key == key),
        };
        let at = known.unwrap_or_else(|| {
            self.waiting.push_back(Waiting { key, start: start(), deltas: Vec::new() });
            self.waiting.len() - 1
        });
        self.waiting_bytes += 64 + delta.as_ref().map_or(0, size);
        self.waiting[at].deltas.extend(delta.as_ref().map(kept));
        if self.waiting_bytes > MAX_WAITING {
            self.finish(say);
        }
    }

    fn begin(&mut self, key: Key, part: PartStart<'_>, say: &mut dyn FnMut(Event<'_>)) {
        say(Event::PartStart { candidate: self.candidate, index: self.begun, part });
        self.begun += 1;
        self.open = Some(Open { key, balance: Balance::default() });
    }

    fn go_on(&mut self, delta: Delta<'_>, say: &mut dyn FnMut(Event<'_>)) {
        let Some(open) = &mut self.open else { return };
        if let Delta::Arguments(text) = &delta {
            open.balance.read(text);
        }
        say(Event::PartDelta { candidate: self.candidate, index: self.begun - 1, delta });
        while !self.must_wait()
            && let Some(next) = self.waiting.pop_front()
        {
            self.end(say);
            self.release(next, say);
        }
    }

    fn release(&mut self, part: Waiting, say: &mut dyn FnMut(Event<'_>)) {
        let Waiting { key, start, deltas } = part;
        self.begin(key, start, say);
        for delta in deltas {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(64 + size(&delta));
            if let (Delta::Arguments(text), Some(open)) = (&delta, &mut self.open) {
                open.balance.read(text);
            }
            say(Event::PartDelta { candidate: self.candidate, index: self.begun - 1, delta });
        }
    }

    fn end(&mut self, say: &mut dyn FnMut(Event<'_>)) {
        if self.open.take().is_some() {
            say(Event::PartEnd { candidate: self.candidate, index: self.begun - 1 });
        }
    }
}

fn size(delta: &Delta<'_>) -> usize {
    match delta {
        Delta::Text(text) | Delta::Arguments(text) | Delta::Data(text) | Delta::Transcript(text) => {
            text.len()
        }
        Delta::Signature(signature) => signature.value.len(),
        Delta::Citation(_) => 256,
        Delta::Native(native) => native.raw.len(),
    }
}

fn kept(delta: &Delta<'_>) -> Delta<'static> {
    let owned = |text: &str| std::borrow::Cow::Owned(text.to_owned());
    match delta {
        Delta::Text(text) => Delta::Text(owned(text)),
        Delta::Arguments(text) => Delta::Arguments(owned(text)),
        Delta::Signature(signature) => Delta::Signature(signature.to_static()),
        Delta::Citation(citation) => Delta::Citation(citation.to_static()),
        Delta::Data(text) => Delta::Data(owned(text)),
        Delta::Transcript(text) => Delta::Transcript(owned(text)),
        Delta::Native(native) => Delta::Native(native.to_static()),
    }
}

/// Whether JSON that comes in pieces is complete: an object or array whose brackets are closed. What begins otherwise
/// (the text of a custom tool) never is.
#[derive(Debug, Default)]
struct Balance {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Within,
    Complete,
    Never,
}

impl Balance {
    fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match (byte, self.in_text) {
                _ if self.state == State::Never => return,
                _ if self.is_escaped => self.is_escaped = false,
                (b'\\', true) => self.is_escaped = true,
                (b'"', true) => self.in_text = false,
                (_, true) | (b' ' | b'\t' | b'\r' | b'\n', false) => {}
                _ if self.state == State::Complete => self.state = State::Never,
                (b'{' | b'[', false) => {
                    self.depth += 1;
                    self.state = State::Within;
                }
                _ if self.state == State::Before => self.state = State::Never,
                (b'}' | b']', false) => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.state = State::Complete;
                    }
                }
                (b'"', false) => self.in_text = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_complete_when_its_brackets_are() {
        for (text, expected) in [
            ("", false),
            ("{", false),
            ("{}", true),
            (" {\"a\": [1, \"}\"]} ", true),
            ("{\"a\": \"\\\"}", false),
            ("{\"a\": \"\\\\\"}", true),
            ("{} {}", false),
            ("}", false),
            ("null", false),
            ("print(1)", false),
        ] {
            let mut whole = Balance::default();
            whole.read(text);
            assert_eq!(whole.is_complete(), expected, "{text}");
            let mut pieces = Balance::default();
            text.char_indices().for_each(|(at, c)| pieces.read(&text[at..at + c.len_utf8()]));
            assert_eq!(pieces.is_complete(), expected, "{text}, piece by piece");
        }
    }
}
