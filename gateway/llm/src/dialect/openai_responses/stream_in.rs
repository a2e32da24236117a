//! Reads a provider's stream.

use super::content::{citation, unbracketed};
use super::read_items::{From, Item, read_item};
use super::reply::{parts_of, read_ending, read_head};
use super::slots::{Key, Slots};
use super::tools::{self, Names};
use super::{DIALECT, failure};
use crate::failure::{Failure, FailureKind};
use crate::frames::Frame;
use crate::json::{Node, Path, Reader, Value, parse};
use crate::loss::What;
use crate::neutral::{End, Event, Native, Part, PartKind, PartStart, Text};

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    pub(crate) reader: Reader,
    slots: Slots,
    has_begun: bool,
    has_ended: bool,
}

type Say<'s> = dyn FnMut(Event<'_>) + 's;

impl StreamDecoder {
    /// Reads a frame.
    pub fn step(&mut self, frame: &Frame<'_>, say: &mut Say<'_>) {
        // Not of this API, but servers end streams with it.
        if self.has_ended || frame.data == "[DONE]" {
            return;
        }
        let Ok(node) = parse(frame.data.as_bytes()) else {
            return self
                .fail(Failure::new(FailureKind::Server, "The provider's stream cannot be read."), say);
        };
        let kind = node.get("type").and_then(Node::as_text).or(frame.event).unwrap_or_default();
        match kind {
            "response.output_text.delta" => self.delta(&node, Key::Content, text, say),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.delta(&node, |_| Key::Whole, || None, say);
            }
            "response.reasoning_summary_text.delta" => {
                let id = self.slots.id(output(&node));
                self.delta(&node, Key::Summary, move || thought(true, id), say);
            }
            "response.reasoning_text.delta" => {
                let id = self.slots.id(output(&node));
                self.delta(&node, Key::Content, move || thought(false, id), say);
            }
            "response.refusal.delta" => self.delta(&node, Key::Content, || Some(PartStart::Refusal), say),
            "response.output_text.done" => self.whole(&node, "text", Key::Content, text, say),
            "response.refusal.done" => {
                self.whole(&node, "refusal", Key::Content, || Some(PartStart::Refusal), say);
            }
            "response.function_call_arguments.done" => {
                self.whole(&node, "arguments", |_| Key::Whole, || None, say);
            }
            "response.custom_tool_call_input.done" => {
                self.whole(&node, "input", |_| Key::Whole, || None, say)
            }
            "response.reasoning_summary_text.done" => {
                let id = self.slots.id(output(&node));
                self.whole(&node, "text", Key::Summary, move || thought(true, id), say);
            }
            "response.reasoning_text.done" => {
                let id = self.slots.id(output(&node));
                self.whole(&node, "text", Key::Content, move || thought(false, id), say);
            }
            "response.output_text.annotation.added" => self.annotation(&node, say),
            "response.output_item.added" => self.added(&node, say),
            "response.output_item.done" => {
                self.begin(None, say);
                if let Some(item) = node.get("item") {
                    self.done(output(&node), item, say);
                }
            }
            "response.created" | "response.in_progress" | "response.queued" => {
                self.begin(node.get("response"), say);
            }
            "response.completed" | "response.incomplete" | "response.cancelled" => self.last(node, say),
            "response.failed" | "error" => self.failed(&node, say),
            "keepalive" | "ping" => say(Event::Ping),
            // Each of its pieces is the same loss.
            sound if sound.starts_with("response.audio.") => {
                if !self.reader.losses.has(What::Audio) {
                    self.reader.loses(What::Audio, &Path::Root.field("response.audio"));
                }
            }
            known if is_progress(known) => {}
            unknown => {
                let path = Path::Root.field(unknown);
                self.reader.loses(What::UnknownPart, &path);
            }
        }
        if self.slots.is_too_large() {
            self.fail(
                Failure::new(FailureKind::Server, "The provider's stream is in too little order."),
                say,
            );
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self, end: End, say: &mut Say<'_>) {
        let failure = match end {
            End::TimedOut => Failure::new(FailureKind::Timeout, "The provider was silent too long."),
            End::Broken | End::Complete => Failure::new(
                FailureKind::Server,
                "The provider's stream ended before its answer was complete.",
            ),
        };
        self.fail(failure, say);
    }

    fn fail(&mut self, failure: Failure, say: &mut Say<'_>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            say(Event::Failed(failure));
        }
    }

    fn failed(&mut self, node: &Node<'_>, say: &mut Say<'_>) {
        let failure = failure::read(node.get("response").unwrap_or(node), 0);
        let unexplained = || Failure::new(FailureKind::Server, "The provider's answer failed.");
        self.fail(failure.unwrap_or_else(unexplained), say);
    }

    /// The answer begins, if it has not.
    fn begin(&mut self, response: Option<&Node<'_>>, say: &mut Say<'_>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let field = |name: &str| response.and_then(|node| node.get(name));
        let text = |name: &str| field(name).and_then(Node::as_text);
        let created = field("created_at").and_then(|node| match &node.value {
            Value::Number(digits) => digits.parse::<f64>().ok().map(|seconds| seconds.max(0.0) as u64),
            _ => None,
        });
        say(Event::Start {
            id: text("id").unwrap_or_default().into(),
            model: text("model").unwrap_or_default().into(),
            created,
            usage: None,
            // What was asked for and not yet decided.
            service_tier: text("service_tier").filter(|tier| *tier != "auto").map(Text::Borrowed),
            native: Vec::new(),
        });
    }

    /// More of a text.
    fn delta(
        &mut self,
        node: &Node<'_>,
        key: impl FnOnce(u64) -> Key,
        start: impl FnOnce() -> Option<PartStart<'static>>,
        say: &mut Say<'_>,
    ) {
        self.begin(None, say);
        let Some(text) = node.get("delta").and_then(Node::as_text) else { return };
        let key = key(index(node));
        let at = self.slots.find(output(node), key, start, say);
        self.slots.text(at, Text::Borrowed(text), key == Key::Whole, say);
        if let Some(raw) = node.get("logprobs").and_then(|node| unbracketed(node.raw)) {
            self.slots.weigh(at, raw, false, say);
        }
    }

    /// All of a text.
    fn whole(
        &mut self,
        node: &Node<'_>,
        field: &str,
        key: impl FnOnce(u64) -> Key,
        start: impl FnOnce() -> Option<PartStart<'static>>,
        say: &mut Say<'_>,
    ) {
        self.begin(None, say);
        let Some(text) = node.get(field).and_then(Node::as_text) else { return };
        let key = key(index(node));
        let start = start();
        // Thoughts without a word are none.
        if text.is_empty() && matches!(start, Some(PartStart::Thinking { .. })) {
            return;
        }
        let at = self.slots.find(output(node), key, || start, say);
        self.slots.whole(at, text, key == Key::Whole, say);
        if let Some(raw) = node.get("logprobs").and_then(|node| unbracketed(node.raw)) {
            self.slots.weigh(at, raw, true, say);
        }
    }

    fn annotation(&mut self, node: &Node<'_>, say: &mut Say<'_>) {
        self.begin(None, say);
        let Some(annotation) = node.get("annotation").filter(|node| node.value != Value::Null) else {
            return;
        };
        let at = self.slots.find(output(node), Key::Content(index(node)), text, say);
        self.slots.cite(at, whole(node, "annotation_index").unwrap_or(0) as usize, citation(annotation), say);
    }

    /// An item begins. Whatever it is told with is told again at its end, but names are needed now.
    fn added(&mut self, node: &Node<'_>, say: &mut Say<'_>) {
        self.begin(None, say);
        let Some(item) = node.get("item") else { return };
        let output = output(node);
        let field = |name: &str| item.get(name).and_then(Node::as_text);
        match field("type") {
            Some("message") => {
                let phase = item.get("phase").filter(|node| node.value != Value::Null);
                let phase =
                    phase.map(|node| Native::new(DIALECT, What::PartDetail, "phase", node.raw).to_static());
                self.slots.announce(output, None, phase.into_iter().collect());
            }
            Some("reasoning") => {
                let id = field("id").filter(|id| !id.is_empty() && !id.starts_with(super::OWN_REASONING));
                self.slots.announce(output, id.map(|id| id.to_owned().into()), Vec::new());
            }
            Some(kind @ ("function_call" | "custom_tool_call")) => {
                let (Some(id), Some(name)) = (field("call_id").filter(|id| !id.is_empty()), field("name"))
                else {
                    return;
                };
                let space = field("namespace").filter(|space| !space.is_empty());
                let flat = space.map_or_else(
                    || tools::restored(name.into()).into_owned(),
                    |space| tools::flat(space, name),
                );
                let space = space.map(|space| tools::namespace(space, name, None));
                self.slots.announce(output, None, space.into_iter().chain(details(item)).collect());
                let start = PartStart::ToolCall {
                    id: id.to_owned().into(),
                    name: flat.into(),
                    is_custom: kind == "custom_tool_call",
                };
                self.slots.find(output, Key::Whole, || Some(start), say);
            }
            _ => self.slots.announce(output, None, Vec::new()),
        }
    }

    /// An item is complete: says of it what was not said.
    fn done(&mut self, output: u64, item: &Node<'_>, say: &mut Say<'_>) {
        if self.slots.is_done(output) {
            return;
        }
        let place = Path::Root.field("output");
        let path = place.item(usize::try_from(output).unwrap_or(usize::MAX));
        match read_item(item.clone(), &path, &mut self.reader, &Names::default(), From::Provider) {
            Ok(Item::Turn(turn, probabilities)) => {
                let parts = parts_of(turn);
                for (key, part) in keys(&parts).into_iter().zip(parts) {
                    self.part(output, key, part, say);
                }
                if let Some((raw, at)) = probabilities.zip(self.slots.last(output)) {
                    self.slots.weigh(at, &raw, true, say);
                }
            }
            // Of a provider that is a gateway like this one: the part that it belongs to has ended.
            Ok(Item::Carried(_)) => self.reader.loses(What::Signature, &path),
            Err(_) => self.reader.loses(What::UnknownPart, &path),
        }
        self.slots.done(output, say);
    }

    fn part(&mut self, output: u64, key: Key, part: Part<'_>, say: &mut Say<'_>) {
        let Part { kind, state } = part;
        let start = start_of(&kind);
        let at = self.slots.find(output, key, || start, say);
        for native in state.native {
            self.slots.native(at, native, say);
        }
        match &kind {
            PartKind::Text { text, .. } | PartKind::Refusal { text } | PartKind::Thinking { text, .. } => {
                self.slots.whole(at, text, false, say);
            }
            PartKind::ToolCall { arguments, .. } => self.slots.whole(at, arguments, true, say),
            _ => {}
        }
        if let PartKind::Text { citations, .. } = kind {
            for (number, citation) in citations.into_iter().enumerate() {
                self.slots.cite(at, number, citation, say);
            }
        }
        if let Some(signature) = state.signature {
            self.slots.sign(at, signature, say);
        }
        self.slots.complete(at, say);
    }

    /// The answer is complete.
    fn last(&mut self, node: Node<'_>, say: &mut Say<'_>) {
        self.begin(node.get("response"), say);
        if let Some(Value::Array(items)) =
            node.get("response").and_then(|node| node.get("output")).map(|node| &node.value)
        {
            for (output, item) in items.iter().enumerate() {
                self.done(output as u64, item, say);
            }
        }
        self.slots.finish(say);
        self.has_ended = true;
        if self.slots.has_misfit {
            self.reader.loses(What::UnknownPart, &Path::Root.field("output"));
        }
        // Without a response in it, it is the end all the same.
        let response = match node.value {
            Value::Object(members) => members.into_iter().find(|(name, _)| name == "response"),
            _ => None,
        };
        let read = response.and_then(|(_, response)| {
            let read = self.reader.object(response, &Path::Root, |fields, _| {
                let head = read_head(fields)?;
                fields.take("output");
                Ok((head, read_ending(fields)?))
            });
            read.ok()
        });
        let (head, ending) = read.unwrap_or_default();
        let usage = ending.usage;
        let finish = ending.finish(self.slots.has_call, self.slots.has_refusal);
        say(Event::Finish { candidate: 0, finish, native: head.native });
        if let Some(usage) = usage {
            say(Event::Usage(usage));
        }
        say(Event::End);
    }
}

/// Who called, and how, where it is not as it mostly is.
fn details(item: &Node<'_>) -> impl Iterator<Item = Native<'static>> {
    let caller = item.get("caller").filter(|node| node.get("type").and_then(Node::as_text) != Some("direct"));
    let is_async = item.get("async").filter(|node| node.value == Value::Bool(true));
    let told = [("caller", caller.filter(|node| node.value != Value::Null)), ("async", is_async)];
    let natives = told.map(|(name, node)| {
        node.map(|node| Native::new(DIALECT, What::ToolDetail, name, node.raw).to_static())
    });
    natives.into_iter().flatten()
}

/// Which part of the item each is.
fn keys(parts: &[Part<'_>]) -> Vec<Key> {
    let mut summaries = 0;
    let mut contents = 0;
    parts
        .iter()
        .map(|part| match &part.kind {
            PartKind::Thinking { is_summary: true, .. } => {
                summaries += 1;
                Key::Summary(summaries - 1)
            }
            PartKind::ToolCall { .. } => Key::Whole,
            _ => {
                contents += 1;
                Key::Content(contents - 1)
            }
        })
        .collect()
}

/// How a part begins that came whole. What no model answers with is none.
fn start_of(kind: &PartKind<'_>) -> Option<PartStart<'static>> {
    let owned = |text: &Text<'_>| Text::Owned(text.to_string());
    match kind {
        PartKind::Text { .. } => Some(PartStart::Text),
        PartKind::Refusal { .. } => Some(PartStart::Refusal),
        PartKind::Thinking { text: _, is_summary, is_redacted, id } => Some(PartStart::Thinking {
            is_summary: *is_summary,
            is_redacted: *is_redacted,
            id: id.as_ref().map(owned),
        }),
        PartKind::ToolCall { id, name, arguments: _, is_custom } => {
            Some(PartStart::ToolCall { id: owned(id), name: owned(name), is_custom: *is_custom })
        }
        PartKind::Native { dialect, kind, raw } => {
            Some(PartStart::Native { dialect: *dialect, kind: owned(kind), raw: owned(raw) })
        }
        _ => None,
    }
}

fn text() -> Option<PartStart<'static>> {
    Some(PartStart::Text)
}

fn thought(is_summary: bool, id: Option<Text<'static>>) -> Option<PartStart<'static>> {
    Some(PartStart::Thinking { is_summary, is_redacted: false, id })
}

fn whole(node: &Node<'_>, name: &str) -> Option<u64> {
    match node.get(name).map(|node| &node.value) {
        Some(Value::Number(digits)) => digits.parse().ok(),
        _ => None,
    }
}

fn output(node: &Node<'_>) -> u64 {
    whole(node, "output_index").unwrap_or(0)
}

fn index(node: &Node<'_>) -> u64 {
    whole(node, "content_index").or_else(|| whole(node, "summary_index")).unwrap_or(0)
}

/// Events that tell how far something is whose whole comes with its item.
fn is_progress(kind: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "response.content_part.",
        "response.reasoning_summary_part.",
        "response.web_search_call.",
        "response.file_search_call.",
        "response.code_interpreter_call",
        "response.image_generation_call.",
        "response.mcp_call",
        "response.mcp_list_tools.",
        "response.shell_call_",
        "response.apply_patch_call_",
        "response.compaction.",
        "response.computer_call.",
        "response.local_shell_call.",
    ];
    BEGINNINGS.iter().any(|beginning| kind.starts_with(beginning))
}
