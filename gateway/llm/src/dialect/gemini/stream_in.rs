//! Reads a provider's stream: each piece is a reply that holds what is new. There is no word for the end: the last piece
//! says why each candidate ended, and then the body ends.

use std::borrow::Cow;

use super::failure;
use super::parts::Ids;
use super::reply::{Body, Piece, finish};
use crate::dialect::Dialect;
use crate::failure::{Failure, FailureKind};
use crate::frames::Frame;
use crate::json::{self, Reader};
use crate::neutral::{Delta, End, Event, Native, Part, PartKind, PartStart, Source, State, Text, Usage};

type Say<'s> = dyn FnMut(Event<'_>) + 's;

/// How many answers are told apart.
const MAX_CANDIDATES: usize = 64;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    pub(crate) reader: Reader,
    has_started: bool,
    is_over: bool,
    ids: Option<Ids>,
    candidates: Vec<Candidate>,
    usage: Option<Usage>,
    /// Why the prompt was not let through.
    blocked: Option<Text<'static>>,
}

#[derive(Debug)]
struct Candidate {
    index: u64,
    /// How many parts have begun.
    begun: usize,
    /// What the last of them is, as long as it can go on.
    open: Option<Open>,
    has_calls: bool,
    finish: Option<Text<'static>>,
    native: Vec<Native<'static>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
}

impl StreamDecoder {
    /// Reads a frame, and says what it means.
    pub fn step(&mut self, frame: &Frame<'_>, say: &mut dyn FnMut(Event<'_>)) {
        let data = frame.data.trim();
        if self.is_over || data.is_empty() || data == "[DONE]" {
            return;
        }
        let node = match json::parse(data.as_bytes()) {
            Ok(node) => node,
            Err(invalid) => return self.fail_at(&invalid.to_string(), say),
        };
        if let Some(failure) = failure::of_node(&node, None) {
            return self.fail(failure, say);
        }
        let mut reader = std::mem::take(&mut self.reader);
        let read = Body::read(node, &mut self.ids, &mut reader);
        self.reader = reader;
        match read {
            Ok(body) => self.piece(body, say),
            Err(invalid) => self.fail_at(&invalid.to_string(), say),
        }
    }

    fn fail_at(&mut self, what: &str, say: &mut Say<'_>) {
        let message = format!("The provider sent an event that cannot be read: {what}");
        self.fail(Failure::new(FailureKind::Server, message), say);
    }

    fn fail(&mut self, failure: Failure, say: &mut Say<'_>) {
        self.is_over = true;
        say(Event::Failed(failure));
    }

    fn piece(&mut self, body: Body<'_>, say: &mut Say<'_>) {
        let Body { id, model, created, usage, service_tier, native, block_reason, candidates } = body;
        if !self.has_started {
            self.has_started = true;
            let (id, model) = (id.unwrap_or_default(), model.unwrap_or_default());
            say(Event::Start { id, model, created, usage: None, service_tier, native });
        }
        if let Some(usage) = usage {
            // Each piece tells what it cost so far.
            self.usage.get_or_insert_default().update(&usage);
        }
        if let Some(reason) = block_reason {
            self.blocked = Some(Cow::Owned(reason.into_owned()));
        }
        for piece in candidates {
            let Some(at) = self.candidate(piece.index) else {
                return self.fail_at("there are too many candidates", say);
            };
            self.candidates[at].piece(piece, say);
        }
    }

    fn candidate(&mut self, index: u64) -> Option<usize> {
        if let Some(at) = self.candidates.iter().position(|candidate| candidate.index == index) {
            return Some(at);
        }
        let candidate =
            Candidate { index, begun: 0, open: None, has_calls: false, finish: None, native: Vec::new() };
        self.candidates.push(candidate);
        (self.candidates.len() <= MAX_CANDIDATES).then(|| self.candidates.len() - 1)
    }

    /// The stream has ended.
    pub fn finish(&mut self, end: End, say: &mut dyn FnMut(Event<'_>)) {
        if self.is_over {
            return;
        }
        let has_ended = !self.candidates.is_empty()
            && self.candidates.iter().all(|candidate| candidate.finish.is_some())
            || self.blocked.is_some();
        match end {
            // Nothing but usage could have followed: what breaks now breaks nothing that the client waits for.
            _ if has_ended => self.complete(say),
            End::TimedOut => {
                self.fail(Failure::new(FailureKind::Timeout, "The provider was silent for too long."), say);
            }
            End::Complete | End::Broken => {
                self.fail(Failure::new(FailureKind::Server, "The provider's answer ended too early."), say);
            }
        }
    }

    fn complete(&mut self, say: &mut Say<'_>) {
        self.is_over = true;
        let reason = self.blocked.take();
        if self.candidates.is_empty() {
            let finish = crate::neutral::Finish::ContentFilter(reason);
            say(Event::Finish { candidate: 0, finish, native: Vec::new() });
        }
        for candidate in &mut self.candidates {
            candidate.close(say);
        }
        for candidate in std::mem::take(&mut self.candidates) {
            let Candidate { index, begun: _, open: _, has_calls, finish: word, native } = candidate;
            say(Event::Finish { candidate: index, finish: finish(word, has_calls), native });
        }
        if let Some(usage) = self.usage {
            say(Event::Usage(usage));
        }
        say(Event::End);
    }
}

impl Candidate {
    fn piece(&mut self, piece: Piece<'_>, say: &mut Say<'_>) {
        let Piece { index, parts, finish, log_probabilities, native } = piece;
        for part in parts {
            self.part(part, say);
        }
        if let Some(raw) = log_probabilities.filter(|raw| !raw.is_empty()) {
            say(Event::LogProbabilities { candidate: index, raw: Cow::Owned(raw) });
        }
        if let Some(finish) = finish {
            self.finish = Some(Cow::Owned(finish.into_owned()));
        }
        for native in native {
            // Later ones replace earlier ones.
            self.native.retain(|known| known.name != native.name);
            self.native.push(native.to_static());
        }
    }

    fn part(&mut self, part: Part<'_>, say: &mut Say<'_>) {
        let Part { kind, state } = part;
        match kind {
            PartKind::Text { text, .. } => self.words(Open::Text, text, state, say),
            PartKind::Thinking { text, .. } => self.words(Open::Thinking, text, state, say),
            PartKind::ToolCall { id, name, arguments, is_custom } => {
                self.has_calls = true;
                let start = PartStart::ToolCall { id, name, is_custom };
                self.whole(start, Some(Delta::Arguments(arguments)), state, say);
            }
            PartKind::Image { source: Source::Data { media_type, data }, .. } => {
                self.whole(PartStart::Image { media_type }, Some(Delta::Data(data)), state, say);
            }
            PartKind::Audio { source: Source::Data { media_type, data }, .. } => {
                self.whole(PartStart::Audio { media_type }, Some(Delta::Data(data)), state, say);
            }
            PartKind::Native { dialect, kind, raw } => {
                self.whole(PartStart::Native { dialect, kind, raw }, None, state, say);
            }
            // Files that a model answers with, of other types or by address: nothing of a stream's own says them.
            PartKind::Image { source, .. }
            | PartKind::Audio { source, .. }
            | PartKind::Video { source }
            | PartKind::Document { source, .. } => {
                let raw = Cow::Owned(in_own_words(&source));
                let kind = Cow::Borrowed("fileData");
                self.whole(PartStart::Native { dialect: Dialect::Gemini, kind, raw }, None, state, say);
            }
            PartKind::Refusal { .. } | PartKind::ToolResult { .. } => {}
        }
    }

    /// Words go on where words of the same kind were. A signature ends them: what follows is not signed by it.
    fn words(&mut self, kind: Open, text: Text<'_>, state: State<'_>, say: &mut Say<'_>) {
        if text.is_empty() && state.is_empty() {
            return;
        }
        // A signature alone belongs to the words before it.
        if self.open != Some(kind) && !(text.is_empty() && self.open.is_some()) {
            self.close(say);
            let part = match kind {
                Open::Text => PartStart::Text,
                Open::Thinking => PartStart::Thinking { is_summary: true, is_redacted: false, id: None },
            };
            say(Event::PartStart { candidate: self.index, index: self.begun, part });
            self.begun += 1;
            self.open = Some(kind);
        }
        let (candidate, index) = (self.index, self.begun - 1);
        if !text.is_empty() {
            say(Event::PartDelta { candidate, index, delta: Delta::Text(text) });
        }
        if !state.is_empty() {
            self.say_state(state, say);
            self.close(say);
        }
    }

    /// A part that comes in one piece.
    fn whole(&mut self, start: PartStart<'_>, delta: Option<Delta<'_>>, state: State<'_>, say: &mut Say<'_>) {
        self.close(say);
        let (candidate, index) = (self.index, self.begun);
        self.begun += 1;
        say(Event::PartStart { candidate, index, part: start });
        if let Some(delta) = delta {
            say(Event::PartDelta { candidate, index, delta });
        }
        self.say_state(state, say);
        say(Event::PartEnd { candidate, index });
    }

    fn say_state(&self, state: State<'_>, say: &mut Say<'_>) {
        let (candidate, index) = (self.index, self.begun - 1);
        let State { cache: _, signature, native } = state;
        let deltas = signature.map(Delta::Signature).into_iter().chain(native.into_iter().map(Delta::Native));
        for delta in deltas {
            say(Event::PartDelta { candidate, index, delta });
        }
    }

    fn close(&mut self, say: &mut Say<'_>) {
        if self.open.take().is_some() {
            say(Event::PartEnd { candidate: self.index, index: self.begun - 1 });
        }
    }
}

fn in_own_words(source: &Source<'_>) -> String {
    let mut out = Vec::new();
    json::object(&mut out, |object| match source {
        Source::Data { media_type, data } => object.object("inlineData", |object| {
            object.text("mimeType", media_type);
            object.text("data", data);
        }),
        Source::Url { url, media_type } => object.object("fileData", |object| {
            object.some_text("mimeType", media_type.as_ref());
            object.text("fileUri", url);
        }),
        Source::Text { text } | Source::File { id: text, dialect: _ } => object.text("text", text),
    });
    String::from_utf8(out).unwrap_or_default()
}
