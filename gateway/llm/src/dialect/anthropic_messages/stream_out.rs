//! Writes a client's stream.

use std::borrow::Cow;

use super::block::{fit_name, own_citation};
use super::reply::{BESIDE_DELTA, IN_DELTA, carried, write_finish, write_head};
use super::usage::{self, Extent};
use super::{DIALECT, IDS, failure};
use crate::custom;
use crate::dialect::Asked;
use crate::failure::Failure;
use crate::frames::write_event;
use crate::json::{self, Object};
use crate::loss::{Losses, What};
use crate::neutral::{self, Delta, Event, Finish, Native, PartStart, Signature, Text, Usage};
use crate::tool_ids;

/// Writes a client's stream.
#[derive(Debug)]
pub struct StreamEncoder {
    pub(crate) losses: Losses,
    asked: Asked,
    progress: Progress,
    /// The index of the next block.
    next: usize,
    /// The index of the block that is open, as text: it is written with each delta.
    index: String,
    open: Open,
    /// The signature of the part that is open, as far as it has come.
    signature: Option<Signature<'static>>,
    has_calls: bool,
    finish: Finish<'static>,
    native: Vec<Native<'static>>,
    usage: Usage,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Started,
    Done,
}

/// The part that is being said.
#[derive(Debug)]
enum Open {
    /// None, or one of which nothing can be said.
    Nothing,
    /// Words.
    Text,
    /// Sound, of which what is said becomes words. Whether a block has begun for them.
    Sound(bool),
    /// Thoughts.
    Thinking,
    /// Thoughts that are hidden in their signature, which comes last.
    Redacted,
    /// A call.
    Call(Call),
    /// A block that is already complete.
    Whole,
}

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    is_custom: bool,
    /// Fields that only this dialect knows. They belong into the event that begins the block, so that it is written with
    /// the first piece of input.
    native: Vec<(String, String)>,
    has_begun: bool,
    has_input: bool,
}

impl StreamEncoder {
    /// For a client that asked so.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self {
            losses: Losses::default(),
            asked,
            progress: Progress::Waiting,
            next: 0,
            index: String::new(),
            open: Open::Nothing,
            signature: None,
            has_calls: false,
            finish: Finish::Stop,
            native: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Writes what an event means.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.progress == Progress::Done {
            return;
        }
        match event {
            Event::Start { id, model, created: _, usage, service_tier, native } => {
                let native: Vec<_> = neutral::own(native, DIALECT, "", &mut self.losses).collect();
                self.start((id, model), usage.unwrap_or_default(), service_tier.as_ref(), &native, out);
            }
            Event::PartStart { candidate: 0, index, part } => self.part_start(*index, part, out),
            Event::PartDelta { candidate: 0, index, delta } => self.part_delta(*index, delta, out),
            Event::PartEnd { candidate: 0, index } => self.part_end(*index, out),
            Event::Finish { candidate: 0, finish, native } => {
                neutral::own(native, DIALECT, "", &mut self.losses).for_each(drop);
                self.finish = finish.to_static();
                let own = native.iter().filter(|native| native.dialect == DIALECT);
                self.native = own.map(Native::to_static).collect();
            }
            // There is only one answer.
            Event::Finish { candidate, .. } => {
                self.losses.add(What::Candidates, format!("candidates[{candidate}]"));
            }
            Event::PartStart { .. } | Event::PartDelta { .. } | Event::PartEnd { .. } => {}
            Event::LogProbabilities { .. } => {
                if !self.losses.has(What::LogProbabilities) {
                    self.losses.add(What::LogProbabilities, "logprobs");
                }
            }
            Event::Usage(usage) => self.usage.update(usage),
            Event::Ping => write_event(out, Some("ping"), |out| out.extend_from_slice(br#"{"type":"ping"}"#)),
            Event::Failed(failure) => self.fail(failure, out),
            Event::End => self.end(out),
        }
    }

    fn start(
        &mut self,
        (id, model): (&str, &str),
        usage: Usage,
        service_tier: Option<&Text<'_>>,
        native: &[&Native<'_>],
        out: &mut Vec<u8>,
    ) {
        self.progress = Progress::Started;
        self.usage = usage;
        let Self { asked, losses, .. } = self;
        write_event(out, Some("message_start"), |out| {
            json::object(out, |object| {
                object.text("type", "message_start");
                object.object("message", |object| {
                    write_head(object, id, model, asked);
                    object.array("content", |_| {});
                    object.null("stop_reason");
                    object.null("stop_sequence");
                    for native in native.iter().filter(|native| !native.name.contains('.')) {
                        object.raw(&native.name, &native.raw);
                    }
                    usage::write(object, &usage, service_tier, native, Extent::Whole, losses);
                });
            });
        });
    }

    /// Begins a block with what `write` says of it.
    fn begin(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.index = self.next.to_string();
        self.next += 1;
        write_event(out, Some("content_block_start"), |out| {
            json::object(out, |object| {
                object.text("type", "content_block_start");
                object.raw("index", &self.index);
                object.object("content_block", write);
            });
        });
    }

    /// A piece of the block that is open.
    fn delta(&self, out: &mut Vec<u8>, kind: &str, write: impl FnOnce(&mut Object<'_>)) {
        write_event(out, Some("content_block_delta"), |out| {
            json::object(out, |object| {
                object.raw("type", "\"content_block_delta\"");
                object.raw("index", &self.index);
                object.object("delta", |object| {
                    object.text("type", kind);
                    write(object);
                });
            });
        });
    }

    fn stop(&self, out: &mut Vec<u8>) {
        write_event(out, Some("content_block_stop"), |out| {
            json::object(out, |object| {
                object.text("type", "content_block_stop");
                object.raw("index", &self.index);
            });
        });
    }

    fn begin_text(&mut self, out: &mut Vec<u8>) {
        self.begin(out, |object| {
            object.text("type", "text");
            object.text("text", "");
        });
    }

    fn part_start(&mut self, index: usize, part: &PartStart<'_>, out: &mut Vec<u8>) {
        self.signature = None;
        self.open = match part {
            PartStart::Text | PartStart::Refusal => {
                self.begin_text(out);
                Open::Text
            }
            PartStart::Thinking { is_summary: _, is_redacted: true, id: _ } => Open::Redacted,
            PartStart::Thinking { is_summary: _, is_redacted: false, id: _ } => {
                self.begin_thinking(out);
                Open::Thinking
            }
            PartStart::ToolCall { id, name, is_custom } => self.call(index, id, name, *is_custom),
            PartStart::Audio { media_type: _ } => {
                self.losses.add(What::Audio, format!("parts[{index}]"));
                Open::Sound(false)
            }
            PartStart::Image { media_type: _ } => {
                self.losses.add(What::Image, format!("parts[{index}]"));
                Open::Nothing
            }
            PartStart::Native { dialect, kind: _, raw } if *dialect == DIALECT => {
                self.whole(raw, out);
                Open::Whole
            }
            PartStart::Native { .. } => {
                self.losses.add(What::ProviderTool, format!("parts[{index}]"));
                Open::Nothing
            }
        };
    }

    fn begin_thinking(&mut self, out: &mut Vec<u8>) {
        self.begin(out, |object| {
            object.text("type", "thinking");
            object.text("thinking", "");
            object.text("signature", "");
        });
    }

    fn call(&mut self, index: usize, id: &str, name: &str, is_custom: bool) -> Open {
        let Ok(name) = fit_name(name, || format!("parts[{index}].name")) else {
            self.losses.add(What::ToolDetail, format!("parts[{index}].name"));
            return Open::Nothing;
        };
        self.has_calls = true;
        Open::Call(Call {
            id: tool_ids::fit(id, IDS).into_owned(),
            name: name.into_owned(),
            is_custom,
            native: Vec::new(),
            has_begun: false,
            has_input: false,
        })
    }

    /// A block that came whole.
    fn whole(&mut self, raw: &str, out: &mut Vec<u8>) {
        self.index = self.next.to_string();
        self.next += 1;
        write_event(out, Some("content_block_start"), |out| {
            json::object(out, |object| {
                object.text("type", "content_block_start");
                object.raw("index", &self.index);
                object.raw("content_block", raw);
            });
        });
    }

    fn part_delta(&mut self, index: usize, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match (delta, &mut self.open) {
            (Delta::Text(text), Open::Text) => {
                self.delta(out, "text_delta", |object| object.text("text", text))
            }
            (Delta::Text(text), Open::Thinking) => {
                self.delta(out, "thinking_delta", |object| object.text("thinking", text));
            }
            (Delta::Arguments(text), Open::Call(_)) => self.input(text, out),
            (Delta::Signature(signature), _) => match &mut self.signature {
                Some(known) if known.by == signature.by => known.value.to_mut().push_str(&signature.value),
                other => *other = Some(signature.to_static()),
            },
            (Delta::Citation(citation), Open::Text) => match own_citation(citation) {
                Some(raw) => self.delta(out, "citations_delta", |object| object.raw("citation", raw)),
                None => self.losses.add(What::Citation, format!("parts[{index}].citations")),
            },
            (Delta::Transcript(text), Open::Sound(has_begun)) => {
                if !std::mem::replace(has_begun, true) {
                    self.begin_text(out);
                }
                self.delta(out, "text_delta", |object| object.text("text", text));
            }
            (Delta::Native(native), open) => match open {
                Open::Call(call) if native.dialect == DIALECT && !call.has_begun => {
                    call.native.push((native.name.to_string(), native.raw.to_string()));
                }
                _ => self.losses.add(native.what, format!("parts[{index}].{}", native.name)),
            },
            // Sound and pictures, which were noted when they began, and what such a part cannot have.
            _ => {}
        }
    }

    /// A piece of a call's input.
    fn input(&mut self, text: &str, out: &mut Vec<u8>) {
        self.begin_call(out);
        let Open::Call(call) = &mut self.open else { return };
        let is_first = !std::mem::replace(&mut call.has_input, true);
        if !call.is_custom {
            return self.delta(out, "input_json_delta", |object| object.text("partial_json", text));
        }
        // A piece of a text, as a piece of the object that it is in.
        let quoted = json::quoted(text);
        let piece = &quoted[1..quoted.len() - 1];
        let before = if is_first { format!("{{{}:\"", json::quoted(custom::FIELD)) } else { String::new() };
        self.delta(out, "input_json_delta", |object| {
            object.text("partial_json", &format!("{before}{piece}"))
        });
    }

    fn begin_call(&mut self, out: &mut Vec<u8>) {
        let Open::Call(call) = &mut self.open else { return };
        if std::mem::replace(&mut call.has_begun, true) {
            return;
        }
        let (id, name) = (call.id.clone(), call.name.clone());
        let native = std::mem::take(&mut call.native);
        self.begin(out, |object| {
            object.text("type", "tool_use");
            object.text("id", &id);
            object.text("name", &name);
            object.raw("input", "{}");
            native.iter().for_each(|(name, raw)| object.raw(name, raw));
        });
    }

    fn part_end(&mut self, index: usize, out: &mut Vec<u8>) {
        self.begin_call(out);
        let signature = self.signature.take();
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing | Open::Sound(false) => {
                if signature.is_some() {
                    self.losses.add(What::Signature, format!("parts[{index}].signature"));
                }
                return;
            }
            Open::Thinking => {
                if let Some(signature) = &signature {
                    self.sign(signature, out);
                }
                return self.stop(out);
            }
            Open::Redacted => return self.redacted(signature.as_ref(), out),
            Open::Call(call) => {
                let rest = match (call.is_custom, call.has_input) {
                    (false, true) => None,
                    (false, false) => Some("{}".to_owned()),
                    (true, true) => Some("\"}".to_owned()),
                    (true, false) => Some(custom::arguments("")),
                };
                if let Some(rest) = rest {
                    self.delta(out, "input_json_delta", |object| object.text("partial_json", &rest));
                }
                self.stop(out);
            }
            Open::Text | Open::Sound(true) | Open::Whole => self.stop(out),
        }
        if let Some(signature) = &signature {
            self.carry(&carried(signature), out);
        }
    }

    /// All of a signature at once: clients replace what they have by what comes.
    fn sign(&self, signature: &Signature<'_>, out: &mut Vec<u8>) {
        self.delta(out, "signature_delta", |object| object.text("signature", &signature.pack(DIALECT)));
    }

    fn redacted(&mut self, signature: Option<&Signature<'_>>, out: &mut Vec<u8>) {
        match signature {
            Some(own) if own.by == DIALECT => self.carry(&Cow::Borrowed(&*own.value), out),
            other => {
                self.begin_thinking(out);
                if let Some(signature) = other {
                    self.sign(signature, out);
                }
                self.stop(out);
            }
        }
    }

    /// A block that is nothing but a signature.
    fn carry(&mut self, data: &str, out: &mut Vec<u8>) {
        self.begin(out, |object| {
            object.text("type", "redacted_thinking");
            object.text("data", data);
        });
        self.stop(out);
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.progress = Progress::Done;
        write_event(out, Some("error"), |out| failure::write(out, failure));
    }

    /// What always comes at the end, whatever came before.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.progress = Progress::Done;
        let Self { losses, finish, native, usage, has_calls, .. } = self;
        for native in native.iter() {
            let name = &*native.name;
            if !name.contains('.') && !BESIDE_DELTA.contains(&name) && !IN_DELTA.contains(&name) {
                losses.add(native.what, name);
            }
        }
        let fields = |object: &mut Object<'_>, names: &[&str]| {
            for native in native.iter().filter(|native| names.contains(&&*native.name)) {
                object.raw(&native.name, &native.raw);
            }
        };
        write_event(out, Some("message_delta"), |out| {
            json::object(out, |object| {
                object.text("type", "message_delta");
                object.object("delta", |object| {
                    write_finish(object, finish, *has_calls, losses);
                    fields(object, &IN_DELTA);
                });
                fields(object, &BESIDE_DELTA);
                let native: Vec<&Native<'_>> = native.iter().collect();
                usage::write(object, usage, None, &native, Extent::Final, losses);
            });
        });
        write_event(out, Some("message_stop"), |out| out.extend_from_slice(br#"{"type":"message_stop"}"#));
    }
}
