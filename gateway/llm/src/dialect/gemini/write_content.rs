//! Lays a conversation out as Google wants it: instructions apart; turns of user and model by turns; results of tools in a
//! turn of their own, in the order of the calls that they answer.

use std::borrow::Cow;

use super::parts::{write_arguments, write_source, write_state};
use crate::dialect::Dialect;
use crate::invalid::{Invalid, Reason};
use crate::json::{self, Array, Node, Object, Value};
use crate::loss::{Losses, What};
use crate::neutral::{self, Native, Part, PartKind, Role, Source, State, Turn};

/// What Google documents for calls of other models in a history, which have no signature of its own: Gemini 3 refuses a
/// call without any.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// A part, and where it stood.
type Placed<'s, 'a> = (String, &'s Part<'a>);

/// The conversation.
pub(super) struct Contents<'s, 'a> {
    system: Vec<Placed<'s, 'a>>,
    turns: Vec<Content<'s, 'a>>,
    /// Calls by identity, with their names, in order.
    calls: Vec<(&'s str, &'s str)>,
    wants_signatures: bool,
}

struct Content<'s, 'a> {
    kind: Kind,
    parts: Vec<Placed<'s, 'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Model,
    Results,
}

impl<'s, 'a> Contents<'s, 'a> {
    pub(super) fn of(turns: &'s [Turn<'a>], model: &str, losses: &mut Losses) -> Result<Self, Invalid> {
        let wants_signatures = model.rsplit('/').next().is_some_and(|name| name.starts_with("gemini-3"));
        let mut contents =
            Self { system: Vec::new(), turns: Vec::new(), calls: Vec::new(), wants_signatures };
        for (index, turn) in turns.iter().enumerate() {
            contents.add(index, turn, losses)?;
        }
        for turn in contents.turns.iter_mut().filter(|turn| turn.kind == Kind::Results) {
            let place = |part: &Part<'_>| match &part.kind {
                PartKind::ToolResult { id, .. } => contents.calls.iter().position(|(call, _)| call == id),
                _ => None,
            };
            turn.parts.sort_by_key(|(_, part)| place(part));
        }
        Ok(contents)
    }

    fn add(&mut self, index: usize, turn: &'s Turn<'a>, losses: &mut Losses) -> Result<(), Invalid> {
        let Turn { role, name, parts, native } = turn;
        let at = format!("turns[{index}]");
        if name.is_some() {
            losses.add(What::SpeakerName, &*at);
        }
        neutral::own(native, Dialect::Gemini, &at, losses).for_each(|_: &Native<'_>| {});
        for (place, part) in parts.iter().enumerate() {
            let at = format!("{at}.parts[{place}]");
            let kind = match (role, &part.kind) {
                (Role::System | Role::Developer, _) => {
                    if !self.turns.is_empty() {
                        losses.add(What::InstructionPlace, &*at);
                    }
                    self.system.push((at, part));
                    continue;
                }
                (_, PartKind::ToolResult { id, .. }) => {
                    if !self.calls.iter().any(|(call, _)| call == id) {
                        let message = "There is no call before this that it could answer.";
                        return Err(Invalid::new(Reason::Value, at, message));
                    }
                    Kind::Results
                }
                (Role::Assistant, kind) => {
                    if let PartKind::ToolCall { id, name, .. } = kind {
                        self.calls.push((id, name));
                    }
                    Kind::Model
                }
                (Role::User | Role::Tool, _) => Kind::User,
            };
            if is_nothing(part) {
                continue;
            }
            match self.turns.last_mut() {
                Some(last) if last.kind == kind => last.parts.push((at, part)),
                _ => self.turns.push(Content { kind, parts: vec![(at, part)] }),
            }
        }
        Ok(())
    }

    pub(super) fn has_system(&self) -> bool {
        !self.system.is_empty()
    }

    pub(super) fn write_system(&self, object: &mut Object<'_>, losses: &mut Losses) {
        if self.system.is_empty() {
            return;
        }
        object.object("systemInstruction", |object| {
            object.array("parts", |array| {
                self.system.iter().for_each(|(at, part)| self.write_part(at, part, false, array, losses));
            });
        });
    }

    pub(super) fn write(&self, object: &mut Object<'_>, losses: &mut Losses) {
        object.array("contents", |array| {
            for turn in &self.turns {
                array.object(|object| {
                    object.text("role", if turn.kind == Kind::Model { "model" } else { "user" });
                    object.array("parts", |array| self.write_parts(turn, array, losses));
                });
            }
            if self.turns.is_empty() {
                array.object(|object| {
                    object.text("role", "user");
                    object.array("parts", |array| array.object(|object| object.text("text", " ")));
                });
            }
        });
    }

    fn write_parts(&self, turn: &Content<'s, 'a>, array: &mut Array<'_>, losses: &mut Losses) {
        let mut has_signed = false;
        for (at, part) in &turn.parts {
            // Of calls at once, the first one has the signature of all.
            let is_call = matches!(part.kind, PartKind::ToolCall { .. });
            let wants = is_call && self.wants_signatures && !has_signed;
            has_signed |= is_call;
            self.write_part(at, part, wants, array, losses);
        }
        let says_nothing = |(_, part): &Placed<'_, '_>| {
            matches!(
                part.kind,
                PartKind::Image { .. }
                    | PartKind::Audio { .. }
                    | PartKind::Video { .. }
                    | PartKind::Document { .. }
            )
        };
        // Some models refuse a picture without a word, and an array without a part.
        if array.is_empty() || turn.kind == Kind::User && turn.parts.iter().all(says_nothing) {
            array.object(|object| object.text("text", " "));
        }
    }

    fn write_part(
        &self,
        at: &str,
        part: &Part<'_>,
        wants_signature: bool,
        array: &mut Array<'_>,
        losses: &mut Losses,
    ) {
        let Part { kind, state } = part;
        match kind {
            PartKind::Text { text, citations } => {
                if !citations.is_empty() {
                    losses.add(What::Citation, at);
                }
                array.object(|object| {
                    object.text("text", text);
                    for_provider(state, at, object, losses);
                });
            }
            PartKind::Refusal { text } => {
                losses.add(What::Refusal, at);
                array.object(|object| object.text("text", text));
            }
            PartKind::Thinking { text, is_summary: _, is_redacted: _, id: _ } => {
                let own =
                    state.signature.as_ref().and_then(|signature| signature.for_provider(Dialect::Gemini));
                if own.is_none() && state.signature.is_some() || text.is_empty() && own.is_none() {
                    return losses.add(What::ReasoningBlock, at);
                }
                array.object(|object| {
                    object.text("text", text);
                    object.boolean("thought", true);
                    for_provider(state, at, object, losses);
                });
            }
            PartKind::ToolCall { id, name, arguments, is_custom } => array.object(|object| {
                object.object("functionCall", |object| {
                    object.text("id", id);
                    object.text("name", name);
                    write_arguments(arguments, *is_custom, at, object, losses);
                });
                let is_signed = for_provider(state, at, object, losses);
                if wants_signature && !is_signed {
                    object.text("thoughtSignature", NO_SIGNATURE);
                }
            }),
            PartKind::ToolResult { id, name: _, content, is_error, is_custom: _ } => {
                let called = self.calls.iter().find(|(call, _)| call == id).map_or("", |(_, name)| name);
                array.object(|object| {
                    object.object("functionResponse", |object| {
                        object.text("id", id);
                        object.text("name", called);
                        write_response(content, *is_error == Some(true), at, object, losses);
                    });
                    for_provider(state, at, object, losses);
                });
            }
            PartKind::Image { source, detail: _ } => {
                note_details(kind, at, losses);
                write_file(source, state, What::Image, at, array, losses);
            }
            PartKind::Audio { source, transcript: _ } => {
                note_details(kind, at, losses);
                write_file(source, state, What::Audio, at, array, losses);
            }
            PartKind::Video { source } => write_file(source, state, What::Video, at, array, losses),
            PartKind::Document { source, name: _, context: _, cite: _ } => {
                note_details(kind, at, losses);
                write_file(source, state, What::Document, at, array, losses);
            }
            PartKind::Native { dialect: Dialect::Gemini, kind: _, raw } => array.raw(raw),
            PartKind::Native { .. } => losses.add(What::ProviderTool, at),
        }
    }
}

/// Google refuses texts without anything in them.
fn is_nothing(part: &Part<'_>) -> bool {
    matches!(&part.kind, PartKind::Text { text, .. } if text.is_empty()) && part.state.is_empty()
}

/// What belongs to a part, as the provider may have it. Returns whether it has a signature.
fn for_provider(state: &State<'_>, at: &str, object: &mut Object<'_>, losses: &mut Losses) -> bool {
    let State { cache, signature, native } = state;
    let own = signature.as_ref().filter(|signature| signature.by == Dialect::Gemini);
    if own.is_none() && signature.is_some() {
        losses.add(What::Signature, at);
    }
    let state = State { cache: cache.clone(), signature: own.cloned(), native: native.clone() };
    write_state(&state, at, object, losses);
    own.is_some()
}

fn write_file(
    source: &Source<'_>,
    state: &State<'_>,
    what: What,
    at: &str,
    array: &mut Array<'_>,
    losses: &mut Losses,
) {
    match source {
        Source::File { dialect, .. } if *dialect != Dialect::Gemini => losses.add(what, at),
        _ => write_source(source, Some(state), at, array, losses),
    }
}

/// What a file has beside its content, for which there is no place.
fn note_details(kind: &PartKind<'_>, at: &str, losses: &mut Losses) {
    match kind {
        PartKind::Image { detail: Some(detail), .. } if detail != "auto" => losses.add(What::PartDetail, at),
        PartKind::Document { name, context, cite, .. }
            if name.is_some() || context.is_some() || *cite == Some(true) =>
        {
            losses.add(What::PartDetail, at);
        }
        PartKind::Audio { transcript: Some(_), .. } => losses.add(What::Audio, at),
        _ => {}
    }
}

/// `response`, an object: JSON as the tool wrote it, or its words in one.
fn write_response(
    content: &[Part<'_>],
    is_error: bool,
    at: &str,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    let mut texts = Vec::new();
    let mut files = Vec::new();
    for part in content {
        match &part.kind {
            PartKind::Text { text, citations: _ } => texts.push(&**text),
            PartKind::Image { source, .. } => files.push((What::Image, source)),
            PartKind::Document { source, .. } => files.push((What::Document, source)),
            PartKind::Audio { source, .. } => files.push((What::Audio, source)),
            PartKind::Video { source } => files.push((What::Video, source)),
            _ => losses.add(What::UnknownPart, at),
        }
        note_details(&part.kind, at, losses);
        let State { cache, signature, native } = &part.state;
        if cache.is_some() {
            losses.add(What::CacheControl, at);
        }
        if signature.is_some() {
            losses.add(What::Signature, at);
        }
        for native in native {
            losses.add(native.what, at);
        }
    }
    let text: Cow<'_, str> = match &texts[..] {
        [sole] => Cow::Borrowed(sole),
        texts => Cow::Owned(texts.join("\n")),
    };
    match json::parse(text.as_bytes()) {
        Ok(Node { value: Value::Object(_), raw }) if !is_error => object.raw("response", raw),
        _ => {
            object.object("response", |object| object.text(if is_error { "error" } else { "output" }, &text))
        }
    }
    let is_foreign =
        |source: &Source<'_>| matches!(source, Source::File { dialect, .. } if *dialect != Dialect::Gemini);
    let (lost, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, source)| is_foreign(source));
    lost.iter().for_each(|(what, _)| losses.add(*what, at));
    if !files.is_empty() {
        object.array("parts", |array| {
            for (_, source) in files {
                write_source(source, None, at, array, losses);
            }
        });
    }
}
