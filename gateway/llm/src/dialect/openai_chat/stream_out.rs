//! Writes streams.

use std::borrow::Cow;

use super::failure;
use super::reasoning::Piece;
use super::reply_in::OF_REPLIES;
use super::reply_out::{Tools, write_image, write_probabilities};
use super::usage;
use super::words::{SELF, data_url, end_words, reply_id, write_citation};
use super::write_answer::extra_content;
use crate::custom;
use crate::dialect::{Asked, Dialect};
use crate::frames::write_event;
use crate::json::{Object, object};
use crate::loss::{Losses, What};
use crate::neutral::{Delta, Event, Finish, Native, PartStart, Usage, own};

/// How many answers are told apart.
const MAX_CANDIDATES: usize = 1024;

/// Up to which index candidates are begun in order. OpenAI's `n` is at most 128.
const MAX_LOWER: u64 = 128;
const _: () = assert!(MAX_LOWER <= MAX_CANDIDATES as u64);

/// Writes a stream.
#[derive(Debug)]
pub struct StreamEncoder {
    pub(crate) losses: Losses,
    asked: Asked,
    tools: Tools,
    /// What each chunk begins with: an object that is not closed.
    head: Vec<u8>,
    /// What only the first chunk has beside its choices.
    first: Vec<u8>,
    candidates: Vec<Candidate>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Candidate {
    index: u64,
    has_role: bool,
    /// Calls so far: their index is not that of parts.
    calls: usize,
    /// Characters of content that were written: citations count from the beginning.
    written: u64,
    /// Characters written before the open part began.
    before: u64,
    refuses: bool,
    says_text: bool,
    /// Whether a signature of the text was written: there is room for one.
    is_signed: bool,
    /// Parts so far, as a reader of the message counts them.
    place: usize,
    open: Open,
}

/// The part that goes on.
#[derive(Debug, Default)]
enum Open {
    #[default]
    None,
    Text,
    Refusal,
    Thinking(Piece),
    Call {
        index: usize,
        is_custom: bool,
        has_arguments: bool,
        /// The arguments of a function that stands for a tool that takes text: the text is in them.
        wrapped: Option<String>,
    },
    Audio,
    Image {
        media_type: String,
        data: String,
    },
}

impl StreamEncoder {
    /// For a client that asked this.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        let tools = Tools::of(&asked);
        Self {
            losses: Losses::default(),
            asked,
            tools,
            head: Vec::new(),
            first: Vec::new(),
            candidates: Vec::new(),
            is_over: false,
        }
    }

    /// Writes what an event means.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        match event {
            Event::Start { id, model, created, usage: _, service_tier, native } => {
                self.start(id, model, *created, service_tier.as_deref(), native);
            }
            Event::PartStart { candidate, index: _, part } => self.part(*candidate, part, out),
            Event::PartDelta { candidate, index, delta } => self.delta(*candidate, *index, delta, out),
            Event::PartEnd { candidate, index: _ } => self.part_end(*candidate, out),
            Event::LogProbabilities { candidate, raw } => self.probabilities(*candidate, raw, out),
            Event::Finish { candidate, finish, native } => self.finish(*candidate, finish, native, out),
            Event::Usage(usage) => self.usage(usage, out),
            // A comment, which clients read past.
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::Failed(failure) => {
                self.is_over = true;
                write_event(out, None, |out| failure::write(failure, out));
            }
            Event::End => {
                self.is_over = true;
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
    }

    fn start(
        &mut self,
        id: &str,
        model: &str,
        created: Option<u64>,
        tier: Option<&str>,
        native: &[Native<'_>],
    ) {
        let model = if model.is_empty() { self.asked.model.clone() } else { model.to_owned() };
        let created = created.unwrap_or(self.asked.now);
        let losses = &mut self.losses;
        let mut first = Vec::new();
        self.head.clear();
        object(&mut self.head, |object| {
            object.text("id", &reply_id(id));
            object.text("object", "chat.completion.chunk");
            object.whole("created", created);
            object.text("model", &model);
            object.some_text("service_tier", tier);
            for native in own(native, SELF, "", losses) {
                if native.name == "system_fingerprint" {
                    object.raw(&native.name, &native.raw);
                } else {
                    first.push(native);
                }
            }
        });
        // Without its brace: each chunk goes on with its choices.
        self.head.pop();
        self.first.clear();
        first.into_iter().for_each(|native| field(&native.name, &native.raw, &mut self.first));
    }

    fn candidate(&mut self, index: u64) -> usize {
        match self.candidates.iter().position(|candidate| candidate.index == index) {
            Some(at) => at,
            // Beyond what anyone asks for they share the last place, so that memory has a bound.
            None if self.candidates.len() >= MAX_CANDIDATES => MAX_CANDIDATES - 1,
            None => {
                self.candidates.push(Candidate { index, ..Candidate::default() });
                self.candidates.len() - 1
            }
        }
    }

    /// Writes a chunk with one choice.
    fn chunk(&mut self, at: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>, bool)) {
        let Self { head, first, candidates, asked, .. } = self;
        let candidate = &mut candidates[at];
        let is_first = !std::mem::replace(&mut candidate.has_role, true);
        let (index, asks) = (candidate.index, asked.stream_usage);
        write_event(out, None, |out| {
            out.extend_from_slice(head);
            out.append(first);
            out.extend_from_slice(b",\"choices\":[");
            object(out, |object| {
                object.whole("index", index);
                write(object, is_first);
            });
            // Those who ask for the usage are told in each chunk that it is still to come.
            out.extend_from_slice(if asks { b"],\"usage\":null}" } else { b"]}" });
        });
    }

    /// Writes a chunk that says something more of a message.
    fn piece(&mut self, at: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.chunk(at, out, |object, is_first| {
            object.object("delta", |object| {
                if is_first {
                    object.text("role", "assistant");
                }
                write(object);
            });
            object.null("finish_reason");
        });
    }

    /// Begins the candidates before this one, which may say their first word later: OpenAI's accumulators keep choices in a
    /// list, and an index beyond its end breaks them.
    fn begin_lower(&mut self, candidate: u64, out: &mut Vec<u8>) {
        // Of more nobody asks for, and who sends such an index alone is not answered with as many chunks.
        let lower = if candidate < MAX_LOWER { candidate } else { 0 };
        for index in 0..lower {
            let at = self.candidate(index);
            if !self.candidates[at].has_role {
                self.piece(at, out, |object| object.text("content", ""));
            }
        }
    }

    fn part(&mut self, candidate: u64, part: &PartStart<'_>, out: &mut Vec<u8>) {
        self.begin_lower(candidate, out);
        let at = self.candidate(candidate);
        let Self { candidates, losses, tools, .. } = self;
        let candidate = &mut candidates[at];
        let is_first_text = !candidate.says_text;
        let place = candidate.place;
        let open = match part {
            PartStart::Text => {
                candidate.says_text = true;
                candidate.before = candidate.written;
                candidate.place += usize::from(is_first_text);
                candidate.open = Open::Text;
                // The first chunk says who speaks, before there is anything to say.
                if !candidate.has_role {
                    self.piece(at, out, |object| object.text("content", ""));
                }
                return;
            }
            PartStart::Refusal => {
                candidate.refuses = true;
                Open::Refusal
            }
            PartStart::Thinking { is_summary, is_redacted, id } => Open::Thinking(Piece {
                place,
                is_summary: *is_summary,
                is_redacted: *is_redacted,
                id: id.as_ref().map(|id| id.to_string()),
            }),
            PartStart::ToolCall { id, name, is_custom } => {
                let index = candidate.calls;
                candidate.calls += 1;
                candidate.place += 1;
                let wrapped = tools.is_wrapped(name, *is_custom).then(String::new);
                let is_custom = *is_custom || wrapped.is_some();
                candidate.open = Open::Call { index, is_custom, has_arguments: false, wrapped };
                let is_legacy = tools.are_legacy;
                return self
                    .piece(at, out, |object| write_call(index, id, name, is_custom, is_legacy, object));
            }
            PartStart::Audio { media_type: _ } => Open::Audio,
            PartStart::Image { media_type } => {
                Open::Image { media_type: media_type.to_string(), data: String::new() }
            }
            PartStart::Native { .. } => {
                losses.add(What::ProviderTool, format!("candidates[{}]", candidate.index));
                Open::None
            }
        };
        candidate.place += 1;
        candidate.open = open;
    }

    fn delta(&mut self, candidate: u64, index: usize, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let at = self.candidate(candidate);
        let place = || format!("candidates[{candidate}].parts[{index}]");
        let is_signed = self.candidates[at].is_signed;
        match (delta, &mut self.candidates[at].open) {
            (Delta::Text(text), Open::Text) => {
                self.candidates[at].written += text.chars().count() as u64;
                self.piece(at, out, |object| object.text("content", text));
            }
            (Delta::Text(text), Open::Refusal) => self.piece(at, out, |object| object.text("refusal", text)),
            (Delta::Text(text), Open::Thinking(piece)) => {
                let piece = piece.clone();
                self.piece(at, out, |object| {
                    object.text("reasoning_content", text);
                    object.array("reasoning_details", |array| piece.write_text(text, array));
                });
            }
            (Delta::Arguments(text), Open::Call { wrapped: Some(wrapped), .. }) => wrapped.push_str(text),
            (Delta::Arguments(text), Open::Call { index, is_custom, has_arguments, wrapped: None }) => {
                *has_arguments |= !text.is_empty();
                let (index, is_custom, is_legacy) = (*index, *is_custom, self.tools.are_legacy);
                self.piece(at, out, |object| write_arguments(index, text, is_custom, is_legacy, object));
            }
            // A function as it was before tools has no place for it.
            (Delta::Signature(_), Open::Call { .. }) if self.tools.are_legacy => {
                self.losses.add(What::Signature, place());
            }
            (Delta::Signature(signature), Open::Call { index, is_custom, .. }) => {
                let (index, (kind, field)) = (*index, fields_of_call(*is_custom));
                self.piece(at, out, |object| {
                    object.array("tool_calls", |array| {
                        array.object(|object| {
                            object.whole("index", index as u64);
                            // OpenAI's accumulators take no piece of a call that has none of its arguments.
                            object.object(kind, |object| object.text(field, ""));
                            extra_content(&signature.pack(Dialect::Gemini), object);
                        });
                    });
                });
            }
            (Delta::Signature(signature), Open::Thinking(piece)) => {
                let piece = piece.clone();
                self.piece(at, out, |object| {
                    object.array("reasoning_details", |array| piece.write_signature(signature, array));
                });
            }
            (Delta::Signature(_), Open::Text) if is_signed => {
                self.losses.add(What::Signature, place());
            }
            (Delta::Signature(signature), Open::Text) => {
                self.candidates[at].is_signed = true;
                self.piece(at, out, |object| extra_content(&signature.pack(Dialect::Gemini), object));
            }
            (Delta::Citation(citation), Open::Text) => {
                let before = self.candidates[at].before;
                if citation.url.is_none()
                    && citation.native.as_ref().is_none_or(|native| native.dialect != SELF)
                {
                    return self.losses.add(What::Citation, place());
                }
                let mut none = Losses::default();
                self.piece(at, out, |object| {
                    object.array("annotations", |array| {
                        write_citation(array, citation, before, String::new, &mut none);
                    });
                });
            }
            (Delta::Data(data), Open::Audio) => self.audio(at, out, |object| object.text("data", data)),
            (Delta::Transcript(text), Open::Audio) => {
                self.audio(at, out, |object| object.text("transcript", text));
            }
            (Delta::Native(native), Open::Audio) if native.dialect == SELF => {
                self.audio(at, out, |object| object.raw(&native.name, &native.raw));
            }
            // A picture is sent whole.
            (Delta::Data(new), Open::Image { data, .. }) => data.push_str(new),
            (Delta::Native(native), _) => {
                self.losses.add(native.what, format!("{}.{}", place(), native.name))
            }
            (Delta::Signature(_), _) => self.losses.add(What::Signature, place()),
            // Of a part that was lost as a whole, or that cannot have it.
            _ => {}
        }
    }

    fn audio(&mut self, at: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.piece(at, out, |object| object.object("audio", write));
    }

    fn part_end(&mut self, candidate: u64, out: &mut Vec<u8>) {
        let at = self.candidate(candidate);
        match std::mem::take(&mut self.candidates[at].open) {
            // Clients parse the arguments, and nothing is no JSON.
            Open::Call { index, is_custom: false, has_arguments: false, .. } => {
                let is_legacy = self.tools.are_legacy;
                self.piece(at, out, |object| write_arguments(index, "{}", false, is_legacy, object));
            }
            Open::Call { index, wrapped: Some(wrapped), .. } => {
                let input = custom::input(&wrapped);
                self.piece(at, out, |object| write_arguments(index, &input, true, false, object));
            }
            Open::Image { media_type, data } => {
                let url = data_url(&media_type, &data);
                self.piece(at, out, |object| {
                    object.array("images", |array| array.object(|object| write_image(&url, object)));
                });
            }
            _ => {}
        }
    }

    fn probabilities(&mut self, candidate: u64, raw: &str, out: &mut Vec<u8>) {
        let at = self.candidate(candidate);
        let of_refusal = self.candidates[at].refuses && !self.candidates[at].says_text;
        self.chunk(at, out, |object, _| {
            object.object("delta", |_| {});
            object.object("logprobs", |object| write_probabilities(raw, of_refusal, object));
            object.null("finish_reason");
        });
    }

    fn finish(&mut self, candidate: u64, finish: &Finish<'_>, native: &[Native<'_>], out: &mut Vec<u8>) {
        let at = self.candidate(candidate);
        let place = format!("candidates[{candidate}]");
        let natives: Vec<&Native<'_>> = own(native, SELF, &place, &mut self.losses).collect();
        // What came late of the reply stands beside the choices, in a chunk of its own.
        let of_reply = |native: &&Native<'_>| OF_REPLIES.iter().any(|(name, _)| *name == native.name);
        let (of_reply, of_choice): (Vec<_>, Vec<_>) = natives.into_iter().partition(of_reply);
        let (refuses, is_legacy) = (self.candidates[at].refuses, self.tools.are_legacy);
        self.chunk(at, out, |object, is_first| {
            object.object("delta", |object| {
                if is_first {
                    object.text("role", "assistant");
                }
            });
            let words = end_words(finish, refuses, is_legacy);
            object.text("finish_reason", words.reason);
            object.some_text("native_finish_reason", words.native);
            object.some_text("stop_reason", words.stop);
            of_choice.iter().for_each(|native| object.raw(&native.name, &native.raw));
        });
        if !of_reply.is_empty() {
            let head = &self.head;
            let fields: Vec<(Cow<'_, str>, &str)> =
                of_reply.iter().map(|native| (Cow::Borrowed(&*native.name), &*native.raw)).collect();
            write_event(out, None, |out| {
                out.extend_from_slice(head);
                out.extend_from_slice(b",\"choices\":[]");
                fields.iter().for_each(|(name, raw)| field(name, raw, out));
                out.push(b'}');
            });
        }
    }

    fn usage(&mut self, usage: &Usage, out: &mut Vec<u8>) {
        if !self.asked.stream_usage {
            return;
        }
        if usage::unsaid(usage) {
            self.losses.add(What::UsageDetail, "usage");
        }
        write_event(out, None, |out| {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"choices\":[],\"usage\":");
            object(out, |object| usage::write(usage, object));
            out.push(b'}');
        });
    }
}

/// Writes a field into an object that is not closed.
fn field(name: &str, raw: &str, out: &mut Vec<u8>) {
    out.push(b',');
    out.extend_from_slice(crate::json::quoted(name).as_bytes());
    out.push(b':');
    out.extend_from_slice(raw.as_bytes());
}

/// What the object of a call is called, and its field for what the model writes.
const fn fields_of_call(is_custom: bool) -> (&'static str, &'static str) {
    if is_custom { ("custom", "input") } else { ("function", "arguments") }
}

fn write_call(index: usize, id: &str, name: &str, is_custom: bool, is_legacy: bool, object: &mut Object<'_>) {
    if is_legacy {
        return object.object("function_call", |object| {
            object.text("name", name);
            object.text("arguments", "");
        });
    }
    let (kind, field) = fields_of_call(is_custom);
    object.array("tool_calls", |array| {
        array.object(|object| {
            object.whole("index", index as u64);
            object.text("id", id);
            object.text("type", kind);
            object.object(kind, |object| {
                object.text("name", name);
                object.text(field, "");
            });
        });
    });
}

fn write_arguments(index: usize, text: &str, is_custom: bool, is_legacy: bool, object: &mut Object<'_>) {
    if is_legacy {
        return object.object("function_call", |object| object.text("arguments", text));
    }
    let (kind, field) = fields_of_call(is_custom);
    object.array("tool_calls", |array| {
        array.object(|object| {
            object.whole("index", index as u64);
            object.object(kind, |object| object.text(field, text));
        });
    });
}
