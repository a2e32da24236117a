//! Reads a provider's stream: `message_start`, blocks that begin, go on and stop, `message_delta`, `message_stop`.

use std::borrow::Cow;

use super::read_content::{name_call, read_block, read_citation};
use super::reply::Tail;
use super::{DIALECT, Side, failure};
use crate::dialect::Dialect;
use crate::failure::{Failure, FailureKind};
use crate::frames::{Frame, MAX_FRAME};
use crate::invalid::Invalid;
use crate::json::{self, Node, Number, Path, Reader, Value};
use crate::loss::What;
use crate::neutral::{Delta, End, Event, Part, PartKind, PartStart, Signature, State};

type Say<'s> = dyn FnMut(Event<'_>) + 's;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    pub(crate) reader: Reader,
    progress: Progress,
    /// The answer's name.
    id: String,
    tail: Tail,
    /// The block that is being said.
    open: Option<Open>,
    /// Events of blocks that began before the one before them had stopped, which is not this dialect's way: they wait.
    waiting: Vec<(u64, Vec<String>)>,
    /// How much waits or is gathered, in bytes.
    held: usize,
    /// The index of the next part.
    next: usize,
    has_calls: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Waiting,
    Started,
    Done,
}

/// A block that began.
#[derive(Debug)]
struct Open {
    /// The provider's index.
    block: u64,
    /// The part's.
    index: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thinking,
    /// A call. `begun` is the input it began with.
    Call {
        begun: String,
        has_input: bool,
    },
    /// A block that travels whole: what it began with, and what came since.
    Whole {
        kind: String,
        raw: String,
        input: String,
        fields: Vec<(String, String)>,
    },
}

impl StreamDecoder {
    /// Reads a frame, and says what it means.
    pub fn step(&mut self, frame: &Frame<'_>, say: &mut dyn FnMut(Event<'_>)) {
        let data = frame.data.trim();
        // What some servers end their streams with, after OpenAI's fashion.
        if self.progress == Progress::Done || data.is_empty() || data == "[DONE]" {
            return;
        }
        let read = json::parse(data.as_bytes()).and_then(|node| {
            let kind = match node.get("type").and_then(Node::as_text).or(frame.event) {
                Some("content_block_delta") => return self.block_event(&node, data, Self::delta, say),
                kind => kind.unwrap_or_default().to_owned(),
            };
            self.event(&kind, node, data, say)
        });
        match read {
            Ok(()) => self.pump(say),
            Err(invalid) => {
                let message = format!("The provider sent an event that cannot be read: {invalid}");
                self.fail(Failure::new(FailureKind::Server, message), say);
            }
        }
        if self.held > MAX_FRAME && self.progress != Progress::Done {
            let message = "The provider's answer cannot be put in order.";
            self.fail(Failure::new(FailureKind::Server, message), say);
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self, end: End, say: &mut dyn FnMut(Event<'_>)) {
        if self.progress == Progress::Done {
            return;
        }
        match end {
            // Some servers leave out the last event.
            End::Complete if self.tail.has_ended() => self.stop(say),
            End::Complete | End::Broken => {
                self.fail(Failure::new(FailureKind::Server, "The provider's answer ended too early."), say);
            }
            End::TimedOut => {
                self.fail(Failure::new(FailureKind::Timeout, "The provider was silent for too long."), say);
            }
        }
    }

    fn fail(&mut self, failure: Failure, say: &mut Say<'_>) {
        self.progress = Progress::Done;
        say(Event::Failed(failure));
    }

    fn event(&mut self, kind: &str, node: Node<'_>, data: &str, say: &mut Say<'_>) -> Result<(), Invalid> {
        match kind {
            "content_block_start" => self.block_event(&node, data, Self::begin, say),
            "content_block_stop" => self.block_event(&node, data, Self::end_block, say),
            "message_start" => self.start(node, say),
            "message_delta" => self.message_delta(node, say),
            "message_stop" => {
                self.stop(say);
                Ok(())
            }
            "ping" => {
                say(Event::Ping);
                Ok(())
            }
            "error" => {
                let unknown =
                    || Failure::new(FailureKind::Server, "The provider failed, and did not say why.");
                self.fail(failure::of_event(&node, None).unwrap_or_else(unknown), say);
                Ok(())
            }
            // There may be new ones, and they may be passed over.
            unknown => {
                self.reader.losses.add(What::UnknownPart, unknown);
                Ok(())
            }
        }
    }

    fn start(&mut self, node: Node<'_>, say: &mut Say<'_>) -> Result<(), Invalid> {
        if self.progress != Progress::Waiting {
            return Ok(());
        }
        let (mut id, mut model) = (String::new(), String::new());
        let Self { reader, tail, .. } = self;
        reader.object(node, &Path::Root, |fields, reader| {
            fields.text("type")?;
            let path = fields.path().field("message");
            reader.object(fields.need("message")?, &path, |fields, reader| {
                id = fields.text("id")?.unwrap_or_default().into_owned();
                model = fields.text("model")?.unwrap_or_default().into_owned();
                // Always the same; the content is always empty.
                for name in ["type", "role", "content"] {
                    fields.take(name);
                }
                tail.read(fields, reader)
            })
        })?;
        self.progress = Progress::Started;
        self.id.clone_from(&id);
        say(Event::Start {
            id: Cow::Owned(id),
            model: Cow::Owned(model),
            created: None,
            usage: Some(self.tail.counts.usage()),
            service_tier: self.tail.counts.service_tier.clone().map(Cow::Owned),
            native: Vec::new(),
        });
        Ok(())
    }

    /// Whatever a server forgot to begin with, events begin with this.
    fn ensure_started(&mut self, say: &mut Say<'_>) {
        if self.progress == Progress::Waiting {
            self.progress = Progress::Started;
            say(Event::Start {
                id: Cow::Borrowed(""),
                model: Cow::Borrowed(""),
                created: None,
                usage: None,
                service_tier: None,
                native: Vec::new(),
            });
        }
    }

    /// An event of a block: now if it is its turn, and else when it is.
    fn block_event(
        &mut self,
        node: &Node<'_>,
        data: &str,
        read: fn(&mut Self, u64, &Node<'_>, &mut Say<'_>) -> Result<(), Invalid>,
        say: &mut Say<'_>,
    ) -> Result<(), Invalid> {
        self.ensure_started(say);
        let block = match node.get("index").map(|node| &node.value) {
            Some(Value::Number(number)) => Number::from_text(number).as_u64(),
            _ => None,
        };
        let block = block.ok_or_else(|| Path::Root.misses("index"))?;
        let is_its_turn = self.open.as_ref().is_none_or(|open| open.block == block);
        if is_its_turn {
            return read(self, block, node, say);
        }
        self.held += data.len();
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == block) {
            Some((_, events)) => events.push(data.to_owned()),
            None => self.waiting.push((block, vec![data.to_owned()])),
        }
        Ok(())
    }

    /// Says what waited, if its turn has come.
    fn pump(&mut self, say: &mut Say<'_>) {
        while self.open.is_none() && !self.waiting.is_empty() && self.progress != Progress::Done {
            let (_, events) = self.waiting.remove(0);
            for data in events {
                self.held -= data.len();
                let Ok(node) = json::parse(data.as_bytes()) else { continue };
                let read = match node.get("type").and_then(Node::as_text) {
                    Some("content_block_start") => Self::begin,
                    Some("content_block_stop") => Self::end_block,
                    _ => Self::delta,
                };
                if let Err(invalid) = self.block_event(&node, &data, read, say) {
                    let message = format!("The provider sent an event that cannot be read: {invalid}");
                    return self.fail(Failure::new(FailureKind::Server, message), say);
                }
            }
        }
    }

    fn begin(&mut self, block: u64, node: &Node<'_>, say: &mut Say<'_>) -> Result<(), Invalid> {
        if self.open.is_some() {
            // The same index begins again: what was open has stopped.
            self.close(say);
        }
        let content = node.get("content_block").ok_or_else(|| Path::Root.misses("content_block"))?;
        let path = Path::Root.field("content_block");
        let raw = content.raw;
        let mut part = read_block(content.clone(), &path, Side::Provider, &mut self.reader)?;
        let index = self.next;
        self.next += 1;
        name_call(&mut part, &self.id, index);
        let Part { kind, state } = part;
        let kind = open(kind, &state, raw, index, say);
        self.has_calls |= matches!(kind, Kind::Call { .. });
        self.open = Some(Open { block, index, kind });
        Ok(())
    }

    fn delta(&mut self, _: u64, node: &Node<'_>, say: &mut Say<'_>) -> Result<(), Invalid> {
        let Some(delta) = node.get("delta") else { return Err(Path::Root.misses("delta")) };
        let kind = delta.get("type").and_then(Node::as_text).unwrap_or_default();
        let text = |name: &str| delta.get(name).and_then(Node::as_text);
        let Some(Open { index, kind: open, .. }) = &mut self.open else {
            self.reader.losses.add(What::UnknownPart, "content_block_delta");
            return Ok(());
        };
        let index = *index;
        let mut tell = |delta| say(Event::PartDelta { candidate: 0, index, delta });
        match (kind, open) {
            ("text_delta", Kind::Text) => tell(Delta::Text(Cow::Borrowed(text("text").unwrap_or_default()))),
            ("thinking_delta", Kind::Thinking) => {
                tell(Delta::Text(Cow::Borrowed(text("thinking").unwrap_or_default())));
            }
            ("signature_delta", Kind::Thinking) => {
                let value = Cow::Borrowed(text("signature").unwrap_or_default());
                tell(Delta::Signature(Signature { by: DIALECT, value }));
            }
            ("input_json_delta", Kind::Call { has_input, .. }) => {
                let piece = text("partial_json").unwrap_or_default();
                *has_input |= !piece.is_empty();
                if !piece.is_empty() {
                    tell(Delta::Arguments(Cow::Borrowed(piece)));
                }
            }
            ("input_json_delta", Kind::Whole { input, .. }) => {
                let piece = text("partial_json").unwrap_or_default();
                self.held += piece.len();
                input.push_str(piece);
            }
            ("citations_delta", Kind::Text) => {
                let path = Path::Root.field("delta");
                let citation = delta.get("citation").ok_or_else(|| path.misses("citation"))?;
                let citation = read_citation(citation.clone(), &path.field("citation"), &mut self.reader)?;
                tell(Delta::Citation(citation));
            }
            // Whatever else grows, by its fields (`compaction_delta`).
            (_, Kind::Whole { fields, .. }) => {
                let Value::Object(members) = &delta.value else { return Ok(()) };
                for (name, value) in members.iter().filter(|(name, _)| name != "type") {
                    self.held += value.raw.len();
                    grow(fields, name, value);
                }
            }
            (unknown, _) => {
                self.reader.losses.add(What::UnknownPart, format!("content_block_delta.{unknown}"))
            }
        }
        Ok(())
    }

    fn end_block(&mut self, _: u64, _: &Node<'_>, say: &mut Say<'_>) -> Result<(), Invalid> {
        self.close(say);
        Ok(())
    }

    /// Ends the part that is being said.
    fn close(&mut self, say: &mut Say<'_>) {
        let Some(Open { block: _, index, kind }) = self.open.take() else { return };
        match kind {
            Kind::Text | Kind::Thinking => {}
            Kind::Call { begun, has_input } => {
                // A call without any input has an empty one.
                if !has_input {
                    let delta = Delta::Arguments(Cow::Owned(begun));
                    say(Event::PartDelta { candidate: 0, index, delta });
                }
            }
            Kind::Whole { kind, raw, input, fields } => {
                let gathered: usize =
                    input.len() + fields.iter().map(|(_, value)| value.len()).sum::<usize>();
                self.held = self.held.saturating_sub(gathered);
                let raw = complete(&raw, &input, &fields).unwrap_or(Cow::Borrowed(&raw));
                let part = PartStart::Native { dialect: DIALECT, kind: kind.into(), raw };
                say(Event::PartStart { candidate: 0, index, part });
            }
        }
        say(Event::PartEnd { candidate: 0, index });
    }

    fn message_delta(&mut self, node: Node<'_>, say: &mut Say<'_>) -> Result<(), Invalid> {
        self.ensure_started(say);
        let Self { reader, tail, .. } = self;
        reader.object(node, &Path::Root, |fields, reader| {
            fields.text("type")?;
            if let Some(delta) = fields.take("delta") {
                reader.object(delta, &fields.path().field("delta"), |fields, reader| {
                    tail.read(fields, reader)
                })?;
            }
            tail.read(fields, reader)
        })
    }

    fn stop(&mut self, say: &mut Say<'_>) {
        self.ensure_started(say);
        while self.open.is_some() || !self.waiting.is_empty() {
            self.close(say);
            self.pump(say);
            if self.progress == Progress::Done {
                return;
            }
        }
        self.progress = Progress::Done;
        let finish = self.tail.finish(self.has_calls);
        say(Event::Finish { candidate: 0, finish, native: self.tail.natives() });
        say(Event::Usage(self.tail.counts.usage()));
        say(Event::End);
    }
}

/// Says what a block begins with.
fn open(kind: PartKind<'_>, state: &State<'_>, raw: &str, index: usize, say: &mut Say<'_>) -> Kind {
    let mut begin = |part| say(Event::PartStart { candidate: 0, index, part });
    let mut deltas: Vec<Delta<'_>> = Vec::new();
    let kind = match kind {
        PartKind::Text { text, citations } => {
            begin(PartStart::Text);
            deltas.extend((!text.is_empty()).then_some(Delta::Text(text)));
            deltas.extend(citations.into_iter().map(Delta::Citation));
            Kind::Text
        }
        PartKind::Thinking { text, is_summary, is_redacted, id } => {
            begin(PartStart::Thinking { is_summary, is_redacted, id });
            deltas.extend((!text.is_empty()).then_some(Delta::Text(text)));
            deltas.extend(state.signature.clone().map(Delta::Signature));
            Kind::Thinking
        }
        PartKind::ToolCall { id, name, arguments, is_custom } => {
            begin(PartStart::ToolCall { id, name, is_custom });
            let begun = if arguments.is_empty() { "{}".to_owned() } else { arguments.into_owned() };
            Kind::Call { begun, has_input: false }
        }
        PartKind::Native { kind, raw, dialect: Dialect::AnthropicMessages } => whole(&kind, &raw),
        // No model answers with one. It travels whole if one does.
        PartKind::Native { kind, .. } => whole(&kind, raw),
        PartKind::Image { .. } => whole("image", raw),
        PartKind::Document { .. } => whole("document", raw),
        PartKind::ToolResult { .. } => whole("tool_result", raw),
        PartKind::Audio { .. } | PartKind::Video { .. } | PartKind::Refusal { .. } => whole("unknown", raw),
    };
    deltas.extend(
        state.native.iter().filter(|_| matches!(kind, Kind::Call { .. })).cloned().map(Delta::<'_>::Native),
    );
    for delta in deltas {
        say(Event::PartDelta { candidate: 0, index, delta });
    }
    kind
}

fn whole(kind: &str, raw: &str) -> Kind {
    Kind::Whole { kind: kind.to_owned(), raw: raw.to_owned(), input: String::new(), fields: Vec::new() }
}

/// Texts grow, other values are replaced.
fn grow(fields: &mut Vec<(String, String)>, name: &str, value: &Node<'_>) {
    let known = fields.iter_mut().find(|(known, _)| known == name);
    match (known, value.as_text()) {
        (Some((_, known)), Some(text)) if known.starts_with('"') => {
            known.pop();
            known.push_str(&json::quoted(text)[1..]);
        }
        (Some((_, known)), _) => value.raw.clone_into(known),
        (None, _) => fields.push((name.to_owned(), value.raw.to_owned())),
    }
}

/// A block with what came of it since it began.
fn complete<'r>(raw: &'r str, input: &str, fields: &[(String, String)]) -> Option<Cow<'r, str>> {
    if input.is_empty() && fields.is_empty() {
        return Some(Cow::Borrowed(raw));
    }
    let node = json::parse(raw.as_bytes()).ok()?;
    let Value::Object(members) = &node.value else { return None };
    // Input that is no JSON could not be sent back.
    let input = (!input.is_empty() && json::parse(input.as_bytes()).is_ok()).then_some(("input", input));
    let new: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (&**name, &**value)).chain(input).collect();
    let mut out = Vec::with_capacity(raw.len() + 64);
    json::object(&mut out, |object| {
        for (name, node) in members {
            let value = new.iter().find(|(known, _)| known == name).map_or(node.raw, |(_, value)| value);
            object.raw(name, value);
        }
        for (name, value) in new.iter().filter(|(name, _)| node.get(name).is_none()) {
            object.raw(name, value);
        }
    });
    String::from_utf8(out).ok().map(Cow::Owned)
}
