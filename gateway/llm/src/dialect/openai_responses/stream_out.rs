//! Writes a client's stream, and replies that are not streamed.
//!
//! The last event repeats the whole answer, so what was written is kept, and bounded by [`MAX_REPLY`].

use super::content::UNKNOWN;
use super::open::{Call, Calling, Kind, Message, Place, Sink, Thoughts, Writing, add_signature, push};
use super::output::{Head, Status, lose_usage, write_response};
use super::tools::{NAMESPACE, Names, spaced};
use super::{DIALECT, FOR_PREVIOUS, OWN_REASONING, failure};
use crate::dialect::Asked;
use crate::failure::{Failure, FailureKind};
use crate::fold::MAX_REPLY;
use crate::json::{Node, Object, object, parse, quoted};
use crate::loss::{Losses, What};
use crate::neutral::{Delta, Event, Finish, Native, PartStart, Signature, Text, Usage, own};

/// Writes a client's stream.
#[derive(Debug)]
pub struct StreamEncoder {
    pub(crate) losses: Losses,
    asked: Asked,
    names: Names,
    /// Whether the client asked how likely tokens were.
    wants_probabilities: bool,
    sink: Sink,
    stem: String,
    head: Head,
    /// Items that are complete, without brackets.
    output: Vec<u8>,
    /// How many have begun.
    items: u64,
    item: Option<Item>,
    part: Option<Part>,
    /// What the part that is open is signed with, where its item has no field for it.
    carried: Option<Signature<'static>>,
    /// How likely tokens were of which no text is open.
    early: String,
    usage: Option<Usage>,
    finish: Option<Finish<'static>>,
    has_refusal: bool,
    stage: Stage,
    kept: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Running,
    Ended,
}

/// The item that is open.
#[derive(Debug)]
enum Item {
    Message(Message),
    Thoughts(Thoughts),
}

/// The part that is open.
#[derive(Debug)]
enum Part {
    /// A text of which nothing was written: what it belongs to may still be said.
    Text { is_refusal: bool, phase: Option<String> },
    /// A text of a message.
    Writing(Writing),
    /// Thoughts of which nothing was written.
    Thought { is_summary: bool },
    /// A text of thoughts.
    Thinking { is_summary: bool, writing: Writing },
    /// A call of which nothing was written.
    Call {
        id: String,
        name: String,
        is_custom: bool,
        space: Option<(String, String)>,
        /// Who called, and how: what only this dialect knows.
        details: Vec<Native<'static>>,
    },
    /// A call.
    Calling(Calling),
    /// A picture: its media type and base64.
    Picture(String, String),
    /// Sound, of which nothing but what is said in it has a place.
    Sound,
    /// Nothing that can be said.
    Lost,
}

impl StreamEncoder {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self::quiet(asked, false)
    }

    /// One that writes no events but the response alone.
    pub(super) fn quiet(asked: Asked, is_quiet: bool) -> Self {
        let echoed =
            |name: &str| asked.echo.iter().find(|(known, _)| known == name).map(|(_, raw)| raw.as_str());
        let names = echoed("tools").map_or_else(Names::default, Names::of_echo);
        let wants_probabilities = echoed("include").is_some_and(|raw| raw.contains("logprobs"))
            || echoed("top_logprobs").is_some_and(|raw| raw != "0");
        Self {
            losses: Losses::default(),
            names,
            wants_probabilities,
            asked,
            sink: Sink { sequence: 0, is_quiet },
            stem: String::new(),
            head: Head::default(),
            output: Vec::new(),
            items: 0,
            item: None,
            part: None,
            carried: None,
            early: String::new(),
            usage: None,
            finish: None,
            has_refusal: false,
            stage: Stage::Fresh,
            kept: 0,
        }
    }

    /// Writes what an event means.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.stage == Stage::Ended {
            return;
        }
        match event {
            Event::PartDelta { candidate: 0, index: _, delta } => self.delta(delta, out),
            Event::Ping if !self.sink.is_quiet => out.extend_from_slice(b": ping\n\n"),
            Event::Ping => {}
            Event::Start { id, model, created, usage, service_tier, native } => {
                self.usage = *usage;
                let native = own(native, DIALECT, "", &mut self.losses).map(Native::to_static).collect();
                self.start(
                    Head {
                        id: id.to_string(),
                        model: model.to_string(),
                        created: created.unwrap_or(self.asked.now),
                        service_tier: service_tier.as_ref().map(ToString::to_string),
                        native,
                    },
                    out,
                );
            }
            Event::PartStart { candidate: 0, index: _, part } => self.begin(part, out),
            Event::PartEnd { candidate: 0, index: _ } => self.end_part(out),
            Event::LogProbabilities { candidate: 0, raw } => self.weigh(raw, out),
            Event::Finish { candidate: 0, finish, native } => {
                let natives = own(native, DIALECT, "finish", &mut self.losses);
                self.head.native.extend(natives.map(Native::to_static));
                self.finish = Some(finish.to_static());
            }
            Event::Usage(usage) => match &mut self.usage {
                Some(known) => known.update(usage),
                none => *none = Some(*usage),
            },
            Event::Failed(failure) => self.fail(failure, out),
            Event::End => self.end(out),
            // A response is one answer.
            Event::PartStart { .. } | Event::Finish { .. } => {
                if !self.losses.has(What::Candidates) {
                    self.losses.add(What::Candidates, "candidates[1]");
                }
            }
            Event::PartDelta { .. } | Event::PartEnd { .. } | Event::LogProbabilities { .. } => {}
        }
        if self.kept > MAX_REPLY && self.stage == Stage::Running {
            self.fail(&Failure::new(FailureKind::Server, "The provider's answer is too large."), out);
        }
    }

    fn start(&mut self, mut head: Head, out: &mut Vec<u8>) {
        self.stage = Stage::Running;
        self.stem = Head::stem(&head.id, self.asked.now);
        head.id = format!("resp_{}", self.stem);
        if head.model.is_empty() {
            head.model.clone_from(&self.asked.model);
        }
        // Anthropic's word for the tier that everybody gets.
        if head.service_tier.as_deref() == Some("standard") {
            head.service_tier = Some("default".to_owned());
        }
        self.head = head;
        for name in ["response.created", "response.in_progress"] {
            self.sink.event(out, name, |object| {
                object.object("response", |object| {
                    write_response(object, &self.head, &Status::InProgress, b"", None, &self.asked);
                });
            });
        }
    }

    /// Where the next item is.
    fn next(&mut self, prefix: &str) -> Place {
        let output = self.items;
        self.items += 1;
        Place { item: format!("{prefix}{}_{output}", self.stem), output }
    }

    fn begin(&mut self, part: &PartStart<'_>, out: &mut Vec<u8>) {
        // Its decoder ends parts; one that does not is ended here.
        self.end_part(out);
        self.part = Some(match part {
            PartStart::Text => Part::Text { is_refusal: false, phase: None },
            PartStart::Refusal => {
                self.has_refusal = true;
                Part::Text { is_refusal: true, phase: None }
            }
            PartStart::Thinking { is_summary, is_redacted, id } => {
                self.think(id.as_ref(), *is_redacted, out);
                Part::Thought { is_summary: *is_summary }
            }
            PartStart::ToolCall { id, name, is_custom } => {
                self.close("completed", out);
                let (id, name, is_custom) = (id.to_string(), name.to_string(), *is_custom);
                Part::Call { id, name, is_custom, space: None, details: Vec::new() }
            }
            PartStart::Audio { media_type: _ } => {
                self.losses.add(What::Audio, "output");
                Part::Sound
            }
            PartStart::Image { media_type } => {
                self.close("completed", out);
                Part::Picture(media_type.to_string(), String::new())
            }
            PartStart::Native { dialect, kind, raw } if *dialect == DIALECT && !kind.starts_with(UNKNOWN) => {
                self.close("completed", out);
                self.native(kind, raw, out);
                Part::Lost
            }
            PartStart::Native { dialect: _, kind, raw: _ } => {
                self.losses.add(What::ProviderTool, format!("output.{kind}"));
                Part::Lost
            }
        });
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match delta {
            Delta::Text(text) => self.text(text, out),
            Delta::Arguments(text) => {
                self.begin_call(out);
                if let Some(Part::Calling(calling)) = &mut self.part {
                    self.kept += text.len();
                    calling.add(text, &mut self.sink, out);
                }
            }
            Delta::Signature(signature) => match (&self.part, &mut self.item) {
                (Some(Part::Thought { .. } | Part::Thinking { .. }), Some(Item::Thoughts(thoughts))) => {
                    self.kept += signature.value.len();
                    add_signature(&mut thoughts.signature, signature);
                }
                (Some(Part::Lost | Part::Sound | Part::Picture(..)) | None, _) => {
                    self.losses.add(What::Signature, "output");
                }
                _ => {
                    self.kept += signature.value.len();
                    add_signature(&mut self.carried, signature);
                }
            },
            Delta::Citation(citation) => {
                self.begin_text(out);
                match &mut self.part {
                    Some(Part::Writing(writing)) => writing.cite(citation.to_static()),
                    _ => self.losses.add(What::Citation, "output"),
                }
            }
            Delta::Data(data) => {
                if let Some(Part::Picture(_, known)) = &mut self.part {
                    self.kept += data.len();
                    known.push_str(data);
                }
            }
            Delta::Transcript(text) => {
                if let Some(Part::Sound) = self.part {
                    self.part = Some(Part::Text { is_refusal: false, phase: None });
                }
                self.text(text, out);
            }
            Delta::Native(native) => self.attach(native),
        }
    }

    fn text(&mut self, text: &Text<'_>, out: &mut Vec<u8>) {
        self.kept += text.len();
        if let Some(Part::Writing(writing)) = &mut self.part {
            return writing.add(text, self.wants_probabilities, &mut self.sink, out);
        }
        if text.is_empty() {
            return;
        }
        self.begin_text(out);
        self.begin_thinking(out);
        if let Some(Part::Writing(writing) | Part::Thinking { writing, .. }) = &mut self.part {
            writing.add(text, self.wants_probabilities, &mut self.sink, out);
        }
    }

    /// What only one dialect knows of a part. It comes before anything else of it.
    fn attach(&mut self, native: &Native<'_>) {
        if native.dialect != DIALECT {
            return self.losses.add(native.what, format!("output.{}", native.name));
        }
        match &mut self.part {
            Some(Part::Text { phase, .. }) if native.name == "phase" => *phase = Some(native.raw.to_string()),
            Some(Part::Call { name, space, .. }) if native.name == NAMESPACE => *space = spaced(native, name),
            Some(Part::Call { details, .. }) => details.push(native.to_static()),
            _ => self.losses.add(native.what, format!("output.{}", native.name)),
        }
    }

    /// Begins a text, and a message around it if the open one is no place for it.
    fn begin_text(&mut self, out: &mut Vec<u8>) {
        let Some(Part::Text { is_refusal, phase }) = &mut self.part else { return };
        let (kind, phase) = (if *is_refusal { Kind::Refusal } else { Kind::Text }, phase.take());
        let fits = matches!(&self.item, Some(Item::Message(message)) if message.phase == phase);
        if !fits {
            self.close("completed", out);
            let place = self.next("msg_");
            self.item = Some(Item::Message(Message::begin(phase, place, &mut self.sink, out)));
        }
        let Some(Item::Message(message)) = &mut self.item else { return };
        let mut writing = Writing::begin(kind, message.place.clone(), message.parts, &mut self.sink, out);
        message.parts += 1;
        if kind == Kind::Text && !self.early.is_empty() {
            writing.weigh(&std::mem::take(&mut self.early), &mut self.sink, out);
        }
        self.part = Some(Part::Writing(writing));
    }

    /// Begins thoughts, in the open item if they are of it.
    fn think(&mut self, id: Option<&Text<'_>>, is_redacted: bool, out: &mut Vec<u8>) {
        if let Some(Item::Thoughts(thoughts)) = &self.item
            && id.is_some()
            && thoughts.id.as_deref() == id.map(|id| &**id)
        {
            return;
        }
        self.close("completed", out);
        let mut place = self.next(OWN_REASONING);
        let id = id.map(ToString::to_string);
        if let Some(id) = &id {
            place.item.clone_from(id);
        }
        self.item = Some(Item::Thoughts(Thoughts::begin(id, is_redacted, place, &mut self.sink, out)));
    }

    fn begin_thinking(&mut self, out: &mut Vec<u8>) {
        let (Some(Part::Thought { is_summary }), Some(Item::Thoughts(thoughts))) =
            (&self.part, &mut self.item)
        else {
            return;
        };
        let is_summary = *is_summary;
        let kind = if is_summary { Kind::Summary } else { Kind::Reasoning };
        let count = &mut thoughts.parts[usize::from(is_summary)];
        let writing = Writing::begin(kind, thoughts.place.clone(), *count, &mut self.sink, out);
        *count += 1;
        self.part = Some(Part::Thinking { is_summary, writing });
    }

    fn begin_call(&mut self, out: &mut Vec<u8>) {
        let Some(Part::Call { id, name, is_custom, space, details }) = &mut self.part else { return };
        let declared = self.names.get(name);
        let is_wrapped = !*is_custom && declared.is_some_and(|declared| declared.is_custom);
        let is_custom = *is_custom || is_wrapped;
        let space = space.take().or_else(|| declared.and_then(|declared| declared.namespace.clone()));
        let call_id = std::mem::take(id);
        let (namespace, name) = match space {
            Some((space, plain)) => (Some(space), plain),
            None => (None, std::mem::take(name)),
        };
        let details = std::mem::take(details);
        let call = Call { call_id, name, namespace, is_custom, is_wrapped, details };
        let place = self.next(if is_custom { "ctc_" } else { "fc_" });
        self.part = Some(Part::Calling(Calling::begin(call, place, &mut self.sink, out)));
    }

    fn weigh(&mut self, raw: &str, out: &mut Vec<u8>) {
        self.kept += raw.len();
        match &mut self.part {
            Some(Part::Writing(writing)) => writing.weigh(raw, &mut self.sink, out),
            _ => {
                if !self.early.is_empty() && !raw.is_empty() {
                    self.early.push(',');
                }
                self.early.push_str(raw);
            }
        }
    }

    fn end_part(&mut self, out: &mut Vec<u8>) {
        // A part of which nothing came is one all the same.
        self.begin_text(out);
        self.begin_call(out);
        match (self.part.take(), &mut self.item) {
            (Some(Part::Writing(writing)), Some(Item::Message(message))) => {
                writing.end(&mut message.content, &mut self.losses, &mut self.sink, out);
                if self.carried.is_some() {
                    self.close("completed", out);
                }
            }
            (Some(Part::Thinking { is_summary, writing }), Some(Item::Thoughts(thoughts))) => {
                let list = if is_summary { &mut thoughts.summary } else { &mut thoughts.content };
                writing.end(list, &mut self.losses, &mut self.sink, out);
            }
            (Some(Part::Calling(calling)), _) => {
                self.add_comma();
                let mut item = Vec::new();
                calling.end(&mut item, &mut self.sink, out);
                self.output.extend_from_slice(&item);
            }
            (Some(Part::Picture(media_type, data)), _) => self.picture(&media_type, &data, out),
            _ => {}
        }
        self.carry(out);
    }

    /// Writes the item that holds what the one before it was signed with.
    fn carry(&mut self, out: &mut Vec<u8>) {
        let Some(signature) = self.carried.take() else { return };
        let place = self.next(OWN_REASONING);
        let encrypted = format!("{FOR_PREVIOUS}{}", signature.pack(DIALECT));
        self.whole(&place, out, &[], |object| {
            object.text("id", &place.item);
            object.text("type", "reasoning");
            object.array("summary", |_| {});
            object.text("encrypted_content", &encrypted);
        });
    }

    fn add_comma(&mut self) {
        if !self.output.is_empty() {
            self.output.push(b',');
        }
    }

    /// Writes an item that is known at once, with events between its beginning and its end.
    fn whole(&mut self, place: &Place, out: &mut Vec<u8>, between: &[&str], write: impl Fn(&mut Object<'_>)) {
        self.sink.event(out, "response.output_item.added", |object| {
            object.whole("output_index", place.output);
            object.object("item", &write);
        });
        for name in between {
            self.sink.event(out, name, |object| place.write(object));
        }
        self.sink.event(out, "response.output_item.done", |object| {
            object.whole("output_index", place.output);
            object.object("item", &write);
        });
        push(&mut self.output, &write);
    }

    /// A picture is what the provider's tool for them would have made.
    fn picture(&mut self, media_type: &str, data: &str, out: &mut Vec<u8>) {
        const BETWEEN: &[&str] = &[
            "response.image_generation_call.in_progress",
            "response.image_generation_call.generating",
            "response.image_generation_call.completed",
        ];
        let place = self.next("ig_");
        let format = media_type.strip_prefix("image/").unwrap_or("png");
        self.whole(&place, out, BETWEEN, |object| {
            object.text("id", &place.item);
            object.text("type", "image_generation_call");
            object.text("status", "completed");
            object.text("output_format", format);
            object.text("result", data);
        });
    }

    /// An item in this dialect's own words, and what its provider says while it works.
    fn native(&mut self, kind: &str, raw: &str, out: &mut Vec<u8>) {
        const SEARCH: &[&str] = &["in_progress", "searching", "completed"];
        let steps: &[&str] = match kind {
            "web_search_call" | "file_search_call" => SEARCH,
            "code_interpreter_call" => &["in_progress", "interpreting", "completed"],
            "image_generation_call" => &["in_progress", "generating", "completed"],
            "mcp_call" | "mcp_list_tools" => &["in_progress", "completed"],
            _ => &[],
        };
        let id = parse(raw.as_bytes()).ok();
        let id = id.as_ref().and_then(|node| node.get("id")).and_then(Node::as_text).unwrap_or_default();
        let output = self.items;
        self.items += 1;
        self.kept += raw.len();
        let place = Place { item: id.to_owned(), output };
        let names: Vec<String> = steps.iter().map(|step| format!("response.{kind}.{step}")).collect();
        for name in ["response.output_item.added", "response.output_item.done"] {
            self.sink.event(out, name, |object| {
                object.whole("output_index", output);
                object.raw("item", raw);
            });
            if name.ends_with("added") {
                names.iter().for_each(|name| self.sink.event(out, name, |object| place.write(object)));
            }
        }
        self.add_comma();
        self.output.extend_from_slice(raw.as_bytes());
    }

    /// Ends the open item.
    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        match self.item.take() {
            Some(Item::Message(message)) => {
                self.closed(message.place.output, out, |object| message.write(object, status))
            }
            Some(Item::Thoughts(thoughts)) => {
                self.closed(thoughts.place.output, out, |object| thoughts.write(object))
            }
            None => {}
        }
    }

    fn closed(&mut self, output: u64, out: &mut Vec<u8>, write: impl Fn(&mut Object<'_>)) {
        self.sink.event(out, "response.output_item.done", |object| {
            object.whole("output_index", output);
            object.object("item", &write);
        });
        push(&mut self.output, &write);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.stage == Stage::Fresh {
            self.start(Head { created: self.asked.now, ..Head::default() }, out);
        }
        self.end_part(out);
        let finish = self.finish.take().unwrap_or(Finish::Stop);
        let status = Status::of(&finish, self.has_refusal, &mut self.losses);
        self.close(status.of_item(), out);
        if !self.early.is_empty() {
            self.losses.add(What::LogProbabilities, "output");
        }
        if let Some(usage) = &self.usage {
            lose_usage(usage, &mut self.losses);
        }
        self.last(&status, out);
    }

    /// Writes the last event, or the whole reply.
    fn last(&mut self, status: &Status<'_>, out: &mut Vec<u8>) {
        self.stage = Stage::Ended;
        let Self { sink, head, output, usage, asked, .. } = self;
        let write =
            |object: &mut Object<'_>| write_response(object, head, status, output, usage.as_ref(), asked);
        if sink.is_quiet {
            object(out, write);
        } else {
            sink.event(out, status.event(), |object| object.object("response", write));
        }
    }

    /// An answer that has begun ends as one that failed; one that has not is an error alone.
    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        if self.stage == Stage::Running {
            return self.last(&Status::Failed(failure), out);
        }
        self.stage = Stage::Ended;
        self.sink.event(out, "error", |object| {
            object.text("code", failure::code_in_response(failure));
            object.text("message", &failure.message);
            object.raw("param", &failure.param.as_deref().map_or("null".to_owned(), quoted));
        });
    }
}
