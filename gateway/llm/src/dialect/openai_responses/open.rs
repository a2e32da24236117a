//! What of an answer is being written: the open item and the open part in it.

use std::io::Write as _;

use super::DIALECT;
use super::content::annotation;
use crate::frames::write_event;
use crate::json::{Object, object};
use crate::loss::{Losses, What};
use crate::neutral::{Citation, Native, Signature};

/// Where events go, each with the next number. A reply that is not streamed is written by the same code and without
/// them, so that both say the same.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) sequence: u64,
    pub(super) is_quiet: bool,
}

impl Sink {
    pub(super) fn event(&mut self, out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        if self.is_quiet {
            return;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        write_event(out, Some(name), |out| {
            object(out, |object| {
                object.text("type", name);
                object.whole("sequence_number", sequence);
                write(object);
            });
        });
    }

    /// Writes a delta, from what was made ready when its part began: there are many.
    fn delta(&mut self, out: &mut Vec<u8>, ready: &Ready, text: &str, probabilities: &str) {
        if self.is_quiet {
            return;
        }
        out.extend_from_slice(&ready.start);
        // Writing into memory cannot fail, and a string can always be written.
        let _ = write!(out, "{}", self.sequence);
        self.sequence += 1;
        out.extend_from_slice(&ready.middle);
        let _ = serde_json::to_writer(&mut *out, text);
        if ready.has_probabilities {
            out.extend_from_slice(b",\"logprobs\":[");
            out.extend(
                probabilities.bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }),
            );
            out.push(b']');
        }
        out.extend_from_slice(b"}\n\n");
    }
}

/// What stands around the text of each delta of a part.
#[derive(Debug, Default)]
struct Ready {
    start: Vec<u8>,
    middle: Vec<u8>,
    has_probabilities: bool,
}

impl Ready {
    fn new(name: &str, place: impl FnOnce(&mut Object<'_>)) -> Self {
        let start = format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":").into_bytes();
        let mut middle = Vec::new();
        object(&mut middle, place);
        // From `{…}` to `,…,"delta":`.
        if let Some(first) = middle.first_mut() {
            *first = b',';
        }
        middle.pop();
        middle.extend_from_slice(b",\"delta\":");
        Self { start, middle, has_probabilities: name == "response.output_text.delta" }
    }
}

/// Where a part is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) item: String,
    pub(super) output: u64,
}

impl Place {
    pub(super) fn write(&self, object: &mut Object<'_>) {
        object.text("item_id", &self.item);
        object.whole("output_index", self.output);
    }
}

/// A list of JSON without its brackets.
pub(super) fn push(list: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    if !list.is_empty() {
        list.push(b',');
    }
    object(list, write);
}

pub(super) fn raw_list(object: &mut Object<'_>, name: &str, list: &[u8]) {
    let list = std::str::from_utf8(list).unwrap_or_default();
    object.array(name, |array| {
        if !list.is_empty() {
            array.raw(list);
        }
    });
}

/// What kind of text a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Refusal,
    Summary,
    Reasoning,
}

impl Kind {
    /// Its type, the name of its text, and how its events begin.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Text => ("output_text", "text", "response.output_text"),
            Self::Refusal => ("refusal", "refusal", "response.refusal"),
            Self::Summary => ("summary_text", "text", "response.reasoning_summary_text"),
            Self::Reasoning => ("reasoning_text", "text", "response.reasoning_text"),
        }
    }

    /// How the events of the part as a whole begin, and what counts it.
    const fn part(self) -> (&'static str, &'static str) {
        match self {
            Self::Summary => ("response.reasoning_summary_part", "summary_index"),
            _ => ("response.content_part", "content_index"),
        }
    }
}

/// A text that is being written, of a message or of reasoning.
#[derive(Debug)]
pub(super) struct Writing {
    kind: Kind,
    place: Place,
    index: u64,
    text: String,
    citations: Vec<Citation<'static>>,
    probabilities: String,
    /// The last piece, until it is known how likely it was.
    held: Option<String>,
    ready: Ready,
}

impl Writing {
    /// Begins a part.
    pub(super) fn begin(kind: Kind, place: Place, index: u64, sink: &mut Sink, out: &mut Vec<u8>) -> Self {
        let counter = kind.part().1;
        sink.event(out, &format!("{}.added", kind.part().0), |object| {
            place.write(object);
            object.whole(counter, index);
            object.object("part", |object| write_part(object, kind, "", &[], ""));
        });
        let ready = Ready::new(&format!("{}.delta", kind.words().2), |object| {
            place.write(object);
            object.whole(counter, index);
        });
        Self {
            kind,
            place,
            index,
            text: String::new(),
            citations: Vec::new(),
            probabilities: String::new(),
            held: None,
            ready,
        }
    }

    /// Adds to it. `holds`: how likely the text is may still be said, and belongs to the same event.
    pub(super) fn add(&mut self, text: &str, holds: bool, sink: &mut Sink, out: &mut Vec<u8>) {
        self.flush("", sink, out);
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if holds && self.kind == Kind::Text {
            self.held = Some(text.to_owned());
        } else {
            sink.delta(out, &self.ready, text, "");
        }
    }

    pub(super) fn cite(&mut self, citation: Citation<'static>) {
        self.citations.push(citation);
    }

    /// How likely the last piece was.
    pub(super) fn weigh(&mut self, probabilities: &str, sink: &mut Sink, out: &mut Vec<u8>) {
        if !self.probabilities.is_empty() && !probabilities.is_empty() {
            self.probabilities.push(',');
        }
        self.probabilities.push_str(probabilities);
        self.flush(probabilities, sink, out);
    }

    fn flush(&mut self, probabilities: &str, sink: &mut Sink, out: &mut Vec<u8>) {
        if let Some(text) = self.held.take() {
            sink.delta(out, &self.ready, &text, probabilities);
        }
    }

    /// Ends it, and adds it to the content of its item.
    pub(super) fn end(
        mut self,
        content: &mut Vec<u8>,
        losses: &mut Losses,
        sink: &mut Sink,
        out: &mut Vec<u8>,
    ) {
        self.flush("", sink, out);
        let Self { kind, place, index, text, citations, probabilities, .. } = self;
        let (_, name, events) = kind.words();
        let (part, counter) = kind.part();
        let length = text.chars().count() as u64;
        let mut annotations = Vec::new();
        for citation in &citations {
            match annotation(citation, length) {
                Some(raw) => annotations.push(raw.into_owned()),
                None => losses.add(What::Citation, "citations"),
            }
        }
        for (number, raw) in annotations.iter().enumerate() {
            sink.event(out, "response.output_text.annotation.added", |object| {
                place.write(object);
                object.whole(counter, index);
                object.whole("annotation_index", number as u64);
                object.raw("annotation", raw);
            });
        }
        sink.event(out, &format!("{events}.done"), |object| {
            place.write(object);
            object.whole(counter, index);
            object.text(name, &text);
            if kind == Kind::Text {
                raw_list(object, "logprobs", probabilities.as_bytes());
            }
        });
        sink.event(out, &format!("{part}.done"), |object| {
            place.write(object);
            object.whole(counter, index);
            object.object("part", |object| write_part(object, kind, &text, &annotations, &probabilities));
        });
        push(content, |object| write_part(object, kind, &text, &annotations, &probabilities));
    }
}

fn write_part(object: &mut Object<'_>, kind: Kind, text: &str, annotations: &[String], probabilities: &str) {
    let (word, name, _) = kind.words();
    object.text("type", word);
    if kind == Kind::Text {
        object.array("annotations", |array| annotations.iter().for_each(|raw| array.raw(raw)));
        raw_list(object, "logprobs", probabilities.as_bytes());
    }
    object.text(name, text);
}

/// A call of a tool that is being written.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) place: Place,
    call_id: String,
    name: String,
    namespace: Option<String>,
    is_custom: bool,
    /// Whether the provider was told of a function where the client declared a tool that takes text. What its arguments
    /// hold is known when they are complete.
    is_wrapped: bool,
    details: Vec<Native<'static>>,
    text: String,
    ready: Ready,
}

impl Calling {
    pub(super) fn begin(call: Call, place: Place, sink: &mut Sink, out: &mut Vec<u8>) -> Self {
        let Call { call_id, name, namespace, is_custom, is_wrapped, details } = call;
        let events =
            if is_custom { "response.custom_tool_call_input" } else { "response.function_call_arguments" };
        let ready = Ready::new(&format!("{events}.delta"), |object| place.write(object));
        let calling = Self {
            place,
            call_id,
            name,
            namespace,
            is_custom,
            is_wrapped,
            details,
            text: String::new(),
            ready,
        };
        sink.event(out, "response.output_item.added", |object| {
            object.whole("output_index", calling.place.output);
            object.object("item", |object| calling.write(object, "in_progress", ""));
        });
        calling
    }

    pub(super) fn add(&mut self, text: &str, sink: &mut Sink, out: &mut Vec<u8>) {
        self.text.push_str(text);
        if !self.is_wrapped && !text.is_empty() {
            sink.delta(out, &self.ready, text, "");
        }
    }

    /// Ends it, and adds it to the items.
    pub(super) fn end(self, items: &mut Vec<u8>, sink: &mut Sink, out: &mut Vec<u8>) {
        let text = match (self.is_wrapped, self.is_custom, self.text.is_empty()) {
            (true, ..) => crate::custom::input(&self.text),
            // A tool without parameters may be called without a word, which is no JSON.
            (_, false, true) => "{}".into(),
            _ => self.text.as_str().into(),
        };
        if (self.is_wrapped || self.text.is_empty()) && !text.is_empty() {
            sink.delta(out, &self.ready, &text, "");
        }
        let (name, field) = if self.is_custom {
            ("response.custom_tool_call_input.done", "input")
        } else {
            ("response.function_call_arguments.done", "arguments")
        };
        sink.event(out, name, |object| {
            self.place.write(object);
            object.text(field, &text);
        });
        sink.event(out, "response.output_item.done", |object| {
            object.whole("output_index", self.place.output);
            object.object("item", |object| self.write(object, "completed", &text));
        });
        push(items, |object| self.write(object, "completed", &text));
    }

    fn write(&self, object: &mut Object<'_>, status: &str, text: &str) {
        object.text("id", &self.place.item);
        object.text("type", if self.is_custom { "custom_tool_call" } else { "function_call" });
        object.text("status", status);
        object.text("call_id", &self.call_id);
        object.some_text("namespace", self.namespace.as_ref());
        object.text("name", &self.name);
        object.text(if self.is_custom { "input" } else { "arguments" }, text);
        self.details.iter().for_each(|native| object.raw(&native.name, &native.raw));
    }
}

/// What a call is of.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) is_custom: bool,
    pub(super) is_wrapped: bool,
    pub(super) details: Vec<Native<'static>>,
}

/// A message that is being written.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) place: Place,
    pub(super) phase: Option<String>,
    pub(super) content: Vec<u8>,
    pub(super) parts: u64,
}

impl Message {
    pub(super) fn begin(phase: Option<String>, place: Place, sink: &mut Sink, out: &mut Vec<u8>) -> Self {
        let message = Self { place, phase, content: Vec::new(), parts: 0 };
        sink.event(out, "response.output_item.added", |object| {
            object.whole("output_index", message.place.output);
            object.object("item", |object| message.write(object, "in_progress"));
        });
        message
    }

    pub(super) fn write(&self, object: &mut Object<'_>, status: &str) {
        object.text("id", &self.place.item);
        object.text("type", "message");
        object.text("status", status);
        object.text("role", "assistant");
        object.some_raw("phase", self.phase.as_ref());
        raw_list(object, "content", &self.content);
    }
}

/// More of what a provider signed.
pub(super) fn add_signature(known: &mut Option<Signature<'static>>, new: &Signature<'_>) {
    match known {
        Some(known) if known.by == new.by => known.value.to_mut().push_str(&new.value),
        other => *other = Some(new.to_static()),
    }
}

/// Thoughts that are being written.
#[derive(Debug)]
pub(super) struct Thoughts {
    pub(super) place: Place,
    /// The identity that a provider of this dialect gave them: what has the same is of the same item.
    pub(super) id: Option<String>,
    pub(super) summary: Vec<u8>,
    pub(super) content: Vec<u8>,
    /// How many of each.
    pub(super) parts: [u64; 2],
    pub(super) signature: Option<Signature<'static>>,
    pub(super) is_redacted: bool,
}

impl Thoughts {
    pub(super) fn begin(
        id: Option<String>,
        is_redacted: bool,
        place: Place,
        sink: &mut Sink,
        out: &mut Vec<u8>,
    ) -> Self {
        let (summary, content) = (Vec::new(), Vec::new());
        let thoughts = Self { place, id, summary, content, parts: [0, 0], signature: None, is_redacted };
        sink.event(out, "response.output_item.added", |object| {
            object.whole("output_index", thoughts.place.output);
            object.object("item", |object| thoughts.write(object));
        });
        thoughts
    }

    pub(super) fn write(&self, object: &mut Object<'_>) {
        object.text("id", &self.place.item);
        object.text("type", "reasoning");
        raw_list(object, "summary", &self.summary);
        if !self.content.is_empty() {
            raw_list(object, "content", &self.content);
        }
        if let Some(signature) = &self.signature {
            let mark = if self.is_redacted && signature.by != DIALECT { super::REDACTED } else { "" };
            object.text("encrypted_content", &format!("{mark}{}", signature.pack(DIALECT)));
        }
    }
}
