//! Writes streams: pieces of a reply, as server-sent events or as the items of an array, which clients get who did not ask
//! for events (`alt=sse`).

use super::failure;
use super::parts::write_arguments;
use super::reply::{finish_word, write_probabilities, write_tail};
use super::usage;
use crate::dialect::{Asked, Dialect};
use crate::frames::{Framing, write_event};
use crate::json::{self, Array, Object};
use crate::loss::{Losses, What};
use crate::neutral::{self, Delta, Event, Finish, Native, PartStart, Signature, Usage};

/// Writes a stream.
#[derive(Debug)]
pub struct StreamEncoder {
    pub(crate) losses: Losses,
    asked: Asked,
    id: String,
    model: String,
    created: Option<u64>,
    /// What the whole reply has and no piece of it: it stands in the last one.
    native: Vec<Native<'static>>,
    usage: Option<Usage>,
    open: Vec<(u64, Open)>,
    ended: Vec<Ended>,
    probabilities: Vec<(u64, String)>,
    /// Whether the array has begun.
    has_items: bool,
    is_over: bool,
}

/// A part that goes on.
#[derive(Debug)]
enum Open {
    Text,
    Thinking,
    /// A call travels whole.
    Call {
        id: String,
        name: String,
        is_custom: bool,
        arguments: String,
        signature: Option<String>,
        native: Vec<Native<'static>>,
    },
    Data {
        media_type: String,
    },
    Other,
}

/// A candidate that is complete: its last words are those of the stream.
#[derive(Debug)]
struct Ended {
    candidate: u64,
    finish: Finish<'static>,
    native: Vec<Native<'static>>,
}

impl StreamEncoder {
    /// For a client that asked this.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self {
            losses: Losses::default(),
            asked,
            id: String::new(),
            model: String::new(),
            created: None,
            native: Vec::new(),
            usage: None,
            open: Vec::new(),
            ended: Vec::new(),
            probabilities: Vec::new(),
            has_items: false,
            is_over: false,
        }
    }

    /// Writes what an event means.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        match event {
            Event::Start { id, model, created, usage, service_tier, native } => {
                (self.id, self.model) = (id.to_string(), model.to_string());
                (self.created, self.usage) = (*created, *usage);
                if service_tier.is_some() {
                    self.losses.add(What::ServiceTier, "service_tier");
                }
                let own = neutral::own(native, Dialect::Gemini, "", &mut self.losses);
                self.native = own.map(Native::to_static).collect();
            }
            Event::PartStart { candidate, index, part } => self.begin(*candidate, *index, part, out),
            Event::PartDelta { candidate, index, delta } => self.delta(*candidate, *index, delta, out),
            Event::PartEnd { candidate, index } => self.end(*candidate, *index, out),
            Event::LogProbabilities { candidate, raw } => self.keep_probabilities(*candidate, raw),
            Event::Finish { candidate, finish, native } => {
                let own = neutral::own(native, Dialect::Gemini, "", &mut self.losses);
                let native = own.map(Native::to_static).collect();
                self.ended.push(Ended { candidate: *candidate, finish: finish.to_static(), native });
            }
            Event::Usage(usage) => self.usage.get_or_insert_default().update(usage),
            // An array has no room for it, but the space between items.
            Event::Ping if self.asked.framing == Framing::Items => out.push(b'\n'),
            // Google's own SDKs take a comment for an event that is no JSON, and give up. They know words that are empty.
            Event::Ping => self.part(0, out, |object, _| object.text("text", "")),
            Event::Failed(failure) => {
                self.is_over = true;
                self.piece(out, |_, out| failure::write(failure, out));
                self.close(out);
            }
            Event::End => {
                self.is_over = true;
                self.last(out);
                self.close(out);
            }
        }
    }

    /// Writes a piece in its framing.
    fn piece(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        match self.asked.framing {
            Framing::Events => write_event(out, None, |out| write(self, out)),
            Framing::Items => {
                out.extend_from_slice(if self.has_items { b",\r\n" } else { b"[" });
                self.has_items = true;
                write(self, out);
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.asked.framing == Framing::Items {
            out.extend_from_slice(if self.has_items { b"]" } else { b"[]" });
        }
    }

    /// A piece with one part.
    fn part(&mut self, candidate: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>, &mut Losses)) {
        self.piece(out, |this, out| {
            let Self { losses, asked, id, model, created, .. } = this;
            json::object(out, |object| {
                object.array("candidates", |array| {
                    array.object(|object| {
                        object.object("content", |object| {
                            object.array("parts", |array| array.object(|object| write(object, losses)));
                            object.text("role", "model");
                        });
                        object.whole("index", candidate);
                    });
                });
                write_tail(object, id, model, *created, asked);
            });
        });
    }

    fn begin(&mut self, candidate: u64, index: usize, part: &PartStart<'_>, out: &mut Vec<u8>) {
        let open = match part {
            PartStart::Text => Open::Text,
            PartStart::Refusal => {
                self.losses.add(What::Refusal, at(candidate, index));
                Open::Text
            }
            PartStart::Thinking { is_summary: _, is_redacted: _, id: _ } => Open::Thinking,
            PartStart::ToolCall { id, name, is_custom } => Open::Call {
                id: id.to_string(),
                name: name.to_string(),
                is_custom: *is_custom,
                arguments: String::new(),
                signature: None,
                native: Vec::new(),
            },
            PartStart::Audio { media_type } | PartStart::Image { media_type } => {
                Open::Data { media_type: media_type.to_string() }
            }
            PartStart::Native { dialect: Dialect::Gemini, kind: _, raw } => {
                self.raw_part(candidate, raw, out);
                Open::Other
            }
            PartStart::Native { .. } => {
                self.losses.add(What::ProviderTool, at(candidate, index));
                Open::Other
            }
        };
        self.open.retain(|(known, _)| *known != candidate);
        self.open.push((candidate, open));
    }

    /// A piece with a part that is written already.
    fn raw_part(&mut self, candidate: u64, raw: &str, out: &mut Vec<u8>) {
        self.piece(out, |this, out| {
            json::object(out, |object| {
                object.array("candidates", |array: &mut Array<'_>| {
                    array.object(|object| {
                        object.object("content", |object| {
                            object.array("parts", |array| array.raw(raw));
                            object.text("role", "model");
                        });
                        object.whole("index", candidate);
                    });
                });
                write_tail(object, &this.id, &this.model, this.created, &this.asked);
            });
        });
    }

    fn delta(&mut self, candidate: u64, index: usize, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let Some((_, open)) = self.open.iter_mut().find(|(known, _)| *known == candidate) else { return };
        match (delta, open) {
            (Delta::Text(text), Open::Text) => {
                self.part(candidate, out, |object, _| object.text("text", text))
            }
            (Delta::Text(text), Open::Thinking) => self.part(candidate, out, |object, _| {
                object.text("text", text);
                object.boolean("thought", true);
            }),
            (Delta::Arguments(piece), Open::Call { arguments, .. }) => arguments.push_str(piece),
            (Delta::Signature(signature), Open::Call { signature: known, .. }) => {
                let packed = signature.pack(Dialect::Gemini);
                known.get_or_insert_default().push_str(&packed);
            }
            (Delta::Native(new), Open::Call { native, .. }) if new.dialect == Dialect::Gemini => {
                native.push(new.to_static());
            }
            (Delta::Signature(signature), Open::Text) => self.signature(candidate, signature, false, out),
            (Delta::Signature(signature), Open::Thinking) => self.signature(candidate, signature, true, out),
            (Delta::Data(data), Open::Data { media_type }) => {
                let media_type = media_type.clone();
                self.part(candidate, out, |object, _| {
                    object.object("inlineData", |object| {
                        object.text("mimeType", &media_type);
                        object.text("data", data);
                    });
                });
            }
            (Delta::Citation(_), _) => self.losses.add(What::Citation, at(candidate, index)),
            (Delta::Transcript(_), _) => self.losses.add(What::Audio, at(candidate, index)),
            (Delta::Native(native), _) => self.losses.add(native.what, at(candidate, index)),
            // What such a part cannot have.
            _ => {}
        }
    }

    /// A signature behind words that were written: in a part without any.
    fn signature(&mut self, candidate: u64, signature: &Signature<'_>, is_thought: bool, out: &mut Vec<u8>) {
        let packed = signature.pack(Dialect::Gemini);
        self.part(candidate, out, |object, _| {
            object.text("text", "");
            if is_thought {
                object.boolean("thought", true);
            }
            object.text("thoughtSignature", &packed);
        });
    }

    fn end(&mut self, candidate: u64, index: usize, out: &mut Vec<u8>) {
        let Some(place) = self.open.iter().position(|(known, _)| *known == candidate) else { return };
        let (_, open) = self.open.swap_remove(place);
        let Open::Call { id, name, is_custom, arguments, signature, native } = open else { return };
        self.part(candidate, out, |object, losses| {
            object.object("functionCall", |object| {
                object.text("id", &id);
                object.text("name", &name);
                write_arguments(&arguments, is_custom, &at(candidate, index), object, losses);
            });
            object.some_text("thoughtSignature", signature.as_ref());
            native.iter().for_each(|native| object.raw(&native.name, &native.raw));
        });
    }

    fn keep_probabilities(&mut self, candidate: u64, raw: &str) {
        match self.probabilities.iter_mut().find(|(known, _)| *known == candidate) {
            Some((_, known)) if !raw.is_empty() => {
                if !known.is_empty() {
                    known.push(',');
                }
                known.push_str(raw);
            }
            Some(_) => {}
            None => self.probabilities.push((candidate, raw.to_owned())),
        }
    }

    /// The last piece: why each candidate ended, and what it cost.
    fn last(&mut self, out: &mut Vec<u8>) {
        self.piece(out, |this, out| {
            let Self { losses, asked, id, model, created, native, usage, ended, probabilities, .. } = this;
            json::object(out, |object| {
                let is_blocked = native.iter().any(|native| native.name == "promptFeedback");
                if !is_blocked {
                    object.array("candidates", |array| {
                        for one in ended.iter() {
                            let told = probabilities.iter().find(|(known, _)| *known == one.candidate);
                            array.object(|object| one.write(told.map(|(_, raw)| &**raw), object, losses));
                        }
                    });
                }
                native.iter().for_each(|native| object.raw(&native.name, &native.raw));
                if let Some(usage) = usage {
                    usage::write(usage, object, losses);
                }
                write_tail(object, id, model, *created, asked);
            });
        });
    }
}

impl Ended {
    fn write(&self, probabilities: Option<&str>, object: &mut Object<'_>, losses: &mut Losses) {
        let Self { candidate, finish, native } = self;
        object.object("content", |object| {
            // Clients read parts without looking whether there are any.
            object.array("parts", |array| array.object(|object| object.text("text", "")));
            object.text("role", "model");
        });
        object.text("finishReason", finish_word(finish, losses));
        object.whole("index", *candidate);
        if let Some(raw) = probabilities {
            write_probabilities(raw, object);
        }
        native.iter().for_each(|native| object.raw(&native.name, &native.raw));
    }
}

fn at(candidate: u64, index: usize) -> String {
    format!("candidates[{candidate}].parts[{index}]")
}
