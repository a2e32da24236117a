//! Puts parts in order: items and parts of items come one after the other, whatever the provider does.
//!
//! A provider says most things three times: as they come, when a part is complete, and when its item is. What was said
//! is counted, so that each later time adds what the earlier ones left out, which at some servers is everything, and
//! nothing comes twice.

use crate::neutral::{Citation, Delta, Event, Native, PartStart, Signature, Text};

/// How much is held back, in bytes: a provider whose first item never ends must not fill the memory.
const MAX_HELD: usize = 64 << 20;

/// Which part of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Of a message's or reasoning's `content`.
    Content(u64),
    /// Of reasoning's `summary`.
    Summary(u64),
    /// All there is of an item that has no parts.
    Whole,
}

/// A part.
#[derive(Debug)]
struct Slot {
    key: Key,
    /// What it is, once that is known, until it has begun.
    start: Option<PartStart<'static>>,
    kind: Kind,
    held: Vec<Held>,
    /// How much of its text has come.
    text: usize,
    citations: usize,
    natives: Vec<String>,
    is_weighed: bool,
    is_open: bool,
    is_complete: bool,
}

/// What may be added to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is not known what it is.
    Any,
    /// A text.
    Text,
    /// Words without citations.
    Words,
    Call,
    /// It came whole.
    Whole,
}

impl Kind {
    const fn of(start: &PartStart<'_>) -> Self {
        match start {
            PartStart::Text => Self::Text,
            PartStart::Refusal | PartStart::Thinking { .. } => Self::Words,
            PartStart::ToolCall { .. } => Self::Call,
            PartStart::Audio { .. } | PartStart::Image { .. } | PartStart::Native { .. } => Self::Whole,
        }
    }

    const fn takes(self, delta: &Delta<'_>) -> bool {
        match delta {
            Delta::Native(_) | Delta::Signature(_) => true,
            Delta::Text(_) => matches!(self, Self::Any | Self::Text | Self::Words),
            Delta::Citation(_) => matches!(self, Self::Any | Self::Text),
            Delta::Arguments(_) => matches!(self, Self::Any | Self::Call),
            Delta::Data(_) | Delta::Transcript(_) => false,
        }
    }
}

#[derive(Debug)]
enum Held {
    Delta(Delta<'static>),
    Probabilities(String),
}

/// An item.
#[derive(Debug)]
struct Item {
    output: u64,
    slots: Vec<Slot>,
    /// The first slot that has not ended.
    cursor: usize,
    is_done: bool,
    /// What is said of the item before its first part has come.
    natives: Vec<Native<'static>>,
    id: Option<Text<'static>>,
}

/// The items of a stream.
#[derive(Debug, Default)]
pub(super) struct Slots {
    items: Vec<Item>,
    /// The first item that has not ended.
    cursor: usize,
    /// How many parts have begun.
    parts: usize,
    held: usize,
    pub(super) has_call: bool,
    pub(super) has_refusal: bool,
    /// Whether something was said of a part that such a part cannot have.
    pub(super) has_misfit: bool,
}

/// Names a part, once found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    item: usize,
    slot: usize,
}

type Say<'s> = dyn FnMut(Event<'_>) + 's;

impl Slots {
    /// The item at this place of the output. One that was not announced begins here.
    fn item(&mut self, output: u64) -> usize {
        // The last one is asked for most.
        self.items.iter().rposition(|item| item.output == output).unwrap_or_else(|| {
            self.items.push(Item {
                output,
                slots: Vec::new(),
                cursor: 0,
                is_done: false,
                natives: Vec::new(),
                id: None,
            });
            self.items.len() - 1
        })
    }

    /// Announces an item: its identity and what is said of it as a whole.
    pub(super) fn announce(&mut self, output: u64, id: Option<Text<'static>>, natives: Vec<Native<'static>>) {
        let item = self.item(output);
        self.items[item].natives = natives;
        self.items[item].id = id;
    }

    /// The identity of an item.
    pub(super) fn id(&mut self, output: u64) -> Option<Text<'static>> {
        let item = self.item(output);
        self.items[item].id.clone()
    }

    pub(super) fn is_done(&mut self, output: u64) -> bool {
        let item = self.item(output);
        self.items[item].is_done
    }

    /// The part of an item. `start` says what it is, if nothing has yet.
    pub(super) fn find(
        &mut self,
        output: u64,
        key: Key,
        start: impl FnOnce() -> Option<PartStart<'static>>,
        say: &mut Say<'_>,
    ) -> At {
        let index = self.item(output);
        let item = &mut self.items[index];
        let slot = item.slots.iter().position(|slot| slot.key == key);
        let is_new = slot.is_none();
        let slot = slot.unwrap_or_else(|| {
            item.slots.push(Slot {
                key,
                start: None,
                kind: Kind::Any,
                held: Vec::new(),
                text: 0,
                citations: 0,
                natives: Vec::new(),
                is_weighed: false,
                is_open: false,
                is_complete: false,
            });
            item.slots.len() - 1
        });
        let at = At { item: index, slot };
        if self.items[index].slots[slot].kind == Kind::Any {
            let start = start();
            self.items[index].slots[slot].kind = start.as_ref().map_or(Kind::Any, Kind::of);
            self.has_call |= matches!(start, Some(PartStart::ToolCall { .. }));
            self.has_refusal |= matches!(start, Some(PartStart::Refusal));
            self.items[index].slots[slot].start = start;
        }
        if is_new {
            let natives = std::mem::take(&mut self.items[index].natives);
            natives.into_iter().for_each(|native| self.native(at, native, say));
            self.pump(say);
        }
        at
    }

    fn slot(&mut self, at: At) -> &mut Slot {
        &mut self.items[at.item].slots[at.slot]
    }

    /// The index of a part, if it is the one that is open.
    fn open(&self, at: At) -> Option<usize> {
        (at.item == self.cursor && self.items[at.item].slots[at.slot].is_open).then(|| self.parts - 1)
    }

    fn delta(&mut self, at: At, delta: Delta<'_>, say: &mut Say<'_>) {
        if !self.slot(at).kind.takes(&delta) {
            self.has_misfit = true;
            return;
        }
        match self.open(at) {
            Some(index) => say(Event::PartDelta { candidate: 0, index, delta }),
            None => {
                self.held += size(&delta);
                let delta = to_static(delta);
                self.slot(at).held.push(Held::Delta(delta));
            }
        }
    }

    /// More text of a part that is known by its pieces.
    pub(super) fn text(&mut self, at: At, text: Text<'_>, is_arguments: bool, say: &mut Say<'_>) {
        let slot = self.slot(at);
        if slot.is_complete || text.is_empty() {
            return;
        }
        slot.text += text.len();
        let delta = if is_arguments { Delta::Arguments(text) } else { Delta::Text(text) };
        self.delta(at, delta, say);
    }

    /// All text of a part: what is new of it is said.
    pub(super) fn whole(&mut self, at: At, text: &str, is_arguments: bool, say: &mut Say<'_>) {
        let slot = self.slot(at);
        let known = slot.text;
        if !slot.is_complete
            && known < text.len()
            && let Some(rest) = text.get(known..)
        {
            self.text(at, Text::Borrowed(rest), is_arguments, say);
        }
    }

    /// How likely the last piece was. `is_whole`: of all of the text, which is news only if no piece said it.
    pub(super) fn weigh(&mut self, at: At, raw: &str, is_whole: bool, say: &mut Say<'_>) {
        let slot = self.slot(at);
        if (is_whole && slot.is_weighed) || raw.is_empty() {
            return;
        }
        slot.is_weighed = true;
        match self.open(at) {
            Some(_) => say(Event::LogProbabilities { candidate: 0, raw: raw.into() }),
            None => {
                self.held += raw.len();
                self.slot(at).held.push(Held::Probabilities(raw.to_owned()));
            }
        }
    }

    /// The citation that has this number.
    pub(super) fn cite(&mut self, at: At, number: usize, citation: Citation<'_>, say: &mut Say<'_>) {
        let slot = self.slot(at);
        if number >= slot.citations {
            slot.citations += 1;
            self.delta(at, Delta::Citation(citation), say);
        }
    }

    pub(super) fn native(&mut self, at: At, native: Native<'_>, say: &mut Say<'_>) {
        let slot = self.slot(at);
        if !slot.natives.iter().any(|name| *name == native.name) {
            slot.natives.push(native.name.to_string());
            self.delta(at, Delta::Native(native), say);
        }
    }

    pub(super) fn sign(&mut self, at: At, signature: Signature<'_>, say: &mut Say<'_>) {
        self.delta(at, Delta::Signature(signature), say);
    }

    /// A part is complete; what comes of it in other ways is known.
    pub(super) fn complete(&mut self, at: At, say: &mut Say<'_>) {
        self.slot(at).is_complete = true;
        self.pump(say);
    }

    /// An item is complete.
    pub(super) fn done(&mut self, output: u64, say: &mut Say<'_>) {
        let item = self.item(output);
        self.items[item].is_done = true;
        self.items[item].slots.iter_mut().for_each(|slot| slot.is_complete = true);
        self.pump(say);
    }

    /// What is signed belongs to the part before, which stays open for it.
    pub(super) fn last(&self, output: u64) -> Option<At> {
        let item = self.items.iter().position(|item| item.output == output)?;
        Some(At { item, slot: self.items[item].slots.len().checked_sub(1)? })
    }

    /// Nothing more comes: what was never completed is.
    pub(super) fn finish(&mut self, say: &mut Say<'_>) {
        let outputs: Vec<u64> = self.items.iter().map(|item| item.output).collect();
        outputs.into_iter().for_each(|output| self.done(output, say));
    }

    /// Whether too much is held back.
    pub(super) const fn is_too_large(&self) -> bool {
        self.held > MAX_HELD
    }

    /// Says what its turn has come to.
    fn pump(&mut self, say: &mut Say<'_>) {
        while let Some(item) = self.items.get_mut(self.cursor) {
            let is_last = item.cursor + 1 == item.slots.len();
            let Some(slot) = item.slots.get_mut(item.cursor) else {
                if !item.is_done {
                    return;
                }
                // What has ended is not asked for any more, except whether it has.
                item.slots.shrink_to_fit();
                self.cursor += 1;
                continue;
            };
            if !slot.is_open {
                let Some(part) = slot.start.take() else {
                    if !item.is_done {
                        return;
                    }
                    // Never said what it was.
                    item.cursor += 1;
                    continue;
                };
                slot.is_open = true;
                say(Event::PartStart { candidate: 0, index: self.parts, part });
                self.parts += 1;
            }
            let index = self.parts - 1;
            for held in slot.held.drain(..) {
                match held {
                    Held::Delta(delta) => {
                        self.held -= size(&delta).min(self.held);
                        if !slot.kind.takes(&delta) {
                            self.has_misfit = true;
                            continue;
                        }
                        say(Event::PartDelta { candidate: 0, index, delta });
                    }
                    Held::Probabilities(raw) => {
                        self.held -= raw.len().min(self.held);
                        say(Event::LogProbabilities { candidate: 0, raw: raw.into() });
                    }
                }
            }
            // The last part of an item waits for what is said of the item.
            if !slot.is_complete || (is_last && !item.is_done) {
                return;
            }
            slot.is_open = false;
            item.cursor += 1;
            say(Event::PartEnd { candidate: 0, index });
        }
    }
}

fn size(delta: &Delta<'_>) -> usize {
    match delta {
        Delta::Text(text) | Delta::Arguments(text) | Delta::Data(text) | Delta::Transcript(text) => {
            text.len()
        }
        Delta::Signature(signature) => signature.value.len(),
        Delta::Native(native) => native.raw.len(),
        Delta::Citation(citation) => 64 + citation.native.as_ref().map_or(0, |native| native.raw.len()),
    }
}

fn to_static(delta: Delta<'_>) -> Delta<'static> {
    match delta {
        Delta::Text(text) => Delta::Text(text.into_owned().into()),
        Delta::Arguments(text) => Delta::Arguments(text.into_owned().into()),
        Delta::Data(text) => Delta::Data(text.into_owned().into()),
        Delta::Transcript(text) => Delta::Transcript(text.into_owned().into()),
        Delta::Signature(signature) => Delta::Signature(signature.to_static()),
        Delta::Native(native) => Delta::Native(native.to_static()),
        Delta::Citation(citation) => Delta::Citation(citation.to_static()),
    }
}
