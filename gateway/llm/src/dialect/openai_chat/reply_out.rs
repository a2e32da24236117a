//! Writes replies for clients.

use super::read_tools::{CUSTOM, LEGACY};
use super::reasoning::Said;
use super::usage;
use super::words::{SELF, data_url, end_words, reply_id, write_citation};
use super::write_answer::{extra_content, write_call};
use crate::custom;
use crate::dialect::{Asked, Dialect};
use crate::json::{Object, Value, object, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Candidate, Citation, Native, Part, PartKind, Reply, Signature, Source, State, own};

/// Writes a reply.
#[must_use]
pub fn encode_reply(reply: &Reply<'_>, asked: &Asked, losses: &mut Losses) -> Vec<u8> {
    let Reply { id, model, created, candidates, usage, service_tier, native } = reply;
    let mut out = Vec::with_capacity(1024);
    let tools = Tools::of(asked);
    object(&mut out, |object| {
        object.text("id", &reply_id(id));
        object.text("object", "chat.completion");
        object.whole("created", created.unwrap_or(asked.now));
        object.text("model", if model.is_empty() { &asked.model } else { model });
        object.array("choices", |array| {
            for candidate in candidates {
                array.object(|object| write_candidate(candidate, &tools, object, losses));
            }
        });
        if let Some(usage) = usage {
            if usage::unsaid(usage) {
                losses.add(What::UsageDetail, "usage");
            }
            object.object("usage", |object| usage::write(usage, object));
        }
        object.some_text("service_tier", service_tier.as_ref());
        for native in own(native, SELF, "", losses) {
            object.raw(&native.name, &native.raw);
        }
    });
    out
}

/// What of the client's tools decides how calls of them are written.
#[derive(Debug)]
pub(super) struct Tools {
    /// Whether the client knows functions only, and no tools.
    pub(super) are_legacy: bool,
    /// The names of those that take text.
    custom: Vec<String>,
}

impl Tools {
    pub(super) fn of(asked: &Asked) -> Self {
        let echoed = |wanted: &str| asked.echo.iter().find(|(name, _)| name == wanted).map(|(_, raw)| raw);
        let names = echoed(CUSTOM).and_then(|raw| parse(raw.as_bytes()).ok()).map(|node| node.value);
        let custom = match names {
            Some(Value::Array(items)) => {
                items.iter().filter_map(|item| item.as_text().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        Self { are_legacy: echoed(LEGACY).is_some(), custom }
    }

    /// Whether a call of a function is one of a tool that takes text.
    pub(super) fn is_wrapped(&self, name: &str, is_custom: bool) -> bool {
        !is_custom && self.custom.iter().any(|custom| custom == name)
    }
}

fn write_candidate(candidate: &Candidate<'_>, tools: &Tools, object: &mut Object<'_>, losses: &mut Losses) {
    let Candidate { index, parts, finish, log_probabilities, native } = candidate;
    let at = format!("candidates[{index}]");
    object.whole("index", *index);
    let refuses = parts.iter().any(|part| matches!(part.kind, PartKind::Refusal { .. }));
    let mut later = Vec::new();
    object.object("message", |object| {
        write_message(parts, &at, tools, object, losses);
        // Those that stand in a message; the others stand beside it.
        for native in own(native, SELF, &at, losses) {
            if IN_MESSAGE.contains(&&*native.name) {
                object.raw(&native.name, &native.raw);
            } else {
                later.push(native);
            }
        }
    });
    match log_probabilities {
        Some(raw) => {
            object.object("logprobs", |object| write_probabilities(raw, refuses && !has_text(parts), object))
        }
        None => object.null("logprobs"),
    }
    let words = end_words(finish, refuses, tools.are_legacy);
    object.text("finish_reason", words.reason);
    object.some_text("native_finish_reason", words.native);
    object.some_text("stop_reason", words.stop);
    later.into_iter().for_each(|native| object.raw(&native.name, &native.raw));
}

const IN_MESSAGE: [&str; 4] = ["prefix", "partial", "executed_tools", "provider_specific_fields"];

fn has_text(parts: &[Part<'_>]) -> bool {
    parts.iter().any(|part| matches!(part.kind, PartKind::Text { .. }))
}

/// Writes `logprobs`.
pub(super) fn write_probabilities(raw: &str, of_refusal: bool, object: &mut Object<'_>) {
    let list = format!("[{raw}]");
    let (full, empty) = if of_refusal { ("refusal", "content") } else { ("content", "refusal") };
    object.raw(full, &list);
    object.null(empty);
}

/// What a message is made of.
#[derive(Debug, Default)]
struct Message<'p> {
    texts: Vec<&'p str>,
    citations: Vec<(String, &'p Citation<'p>, u64)>,
    signature: Option<&'p Signature<'p>>,
    refusals: Vec<&'p str>,
    thoughts: Vec<Said<'p>>,
    images: Vec<String>,
    audio: Option<&'p Part<'p>>,
    calls: Vec<&'p Part<'p>>,
}

fn gather<'p>(parts: &'p [Part<'p>], at: &str, losses: &mut Losses) -> Message<'p> {
    let mut message = Message::default();
    let mut moved = 0;
    let mut place = 0;
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{at}.parts[{index}]");
        // A reader counts the content as one part.
        let was_text = !message.texts.is_empty();
        match &part.kind {
            PartKind::Text { text, citations } => {
                if !message.calls.is_empty() && !text.trim().is_empty() {
                    losses.add(What::PartOrder, &*at);
                }
                let each = citations.iter().enumerate();
                message
                    .citations
                    .extend(each.map(|(n, citation)| (format!("{at}.citations[{n}]"), citation, moved)));
                moved += text.chars().count() as u64;
                message.texts.push(text);
                match (&part.state.signature, message.signature) {
                    // There is room for one.
                    (Some(_), Some(_)) => losses.add(What::Signature, format!("{at}.signature")),
                    (Some(signature), None) => message.signature = Some(signature),
                    (None, _) => {}
                }
                place += usize::from(!was_text);
                continue;
            }
            PartKind::Refusal { text } => message.refusals.push(text),
            PartKind::Thinking { text, is_summary, is_redacted, id } => message.thoughts.push(Said {
                place,
                text,
                is_summary: *is_summary,
                is_redacted: *is_redacted,
                id: id.as_deref(),
                signature: part.state.signature.as_ref(),
            }),
            PartKind::ToolCall { .. } => message.calls.push(part),
            PartKind::Image { source: Source::Data { media_type, data }, detail: _ } => {
                message.images.push(data_url(media_type, data));
            }
            PartKind::Image { source: Source::Url { url, media_type: _ }, detail: _ } => {
                message.images.push(url.to_string());
            }
            PartKind::Audio { source: Source::Data { .. }, .. } => message.audio = Some(part),
            PartKind::Native { .. } => losses.add(What::ProviderTool, at),
            PartKind::Image { .. } => losses.add(What::Image, at),
            PartKind::Audio { .. } => losses.add(What::Audio, at),
            PartKind::Document { .. } => losses.add(What::Document, at),
            PartKind::Video { .. } => losses.add(What::Video, at),
            PartKind::ToolResult { .. } => losses.add(What::UnknownPart, at),
        }
        place += 1;
    }
    message
}

fn write_message(parts: &[Part<'_>], at: &str, tools: &Tools, object: &mut Object<'_>, losses: &mut Losses) {
    let message = gather(parts, at, losses);
    object.text("role", "assistant");
    if message.texts.is_empty() {
        object.null("content");
    } else {
        object.joined("content", message.texts);
    }
    if message.refusals.is_empty() {
        object.null("refusal");
    } else {
        object.joined("refusal", message.refusals);
    }
    write_thoughts(&message.thoughts, object);
    if !message.citations.is_empty() {
        object.array("annotations", |array| {
            for (at, citation, moved) in message.citations {
                write_citation(array, citation, moved, || at, losses);
            }
        });
    }
    if let Some(part) = message.audio {
        object.object("audio", |object| write_audio(part, object));
    }
    if !message.images.is_empty() {
        object.array("images", |array| {
            message.images.iter().for_each(|url| array.object(|object| write_image(url, object)));
        });
    }
    if let Some(signature) = message.signature {
        extra_content(&signature.pack(Dialect::Gemini), object);
    }
    if message.calls.is_empty() {
        return;
    }
    if let (true, [part]) = (tools.are_legacy, &message.calls[..]) {
        if let PartKind::ToolCall { name, arguments, .. } = &part.kind {
            object.object("function_call", |object| {
                object.text("name", name);
                object.text("arguments", if arguments.is_empty() { "{}" } else { arguments });
            });
        }
        return;
    }
    object.array("tool_calls", |array| {
        message
            .calls
            .iter()
            .for_each(|part| array.object(|object| write_tool_call(part, at, tools, object, losses)));
    });
}

fn write_tool_call(part: &Part<'_>, at: &str, tools: &Tools, object: &mut Object<'_>, losses: &mut Losses) {
    let Part { kind, state: State { cache: _, signature, native } } = part;
    let PartKind::ToolCall { id, name, arguments, is_custom } = kind else { return };
    object.text("id", id);
    if tools.is_wrapped(name, *is_custom) {
        write_call(name, &custom::input(arguments), true, object);
    } else {
        write_call(name, arguments, *is_custom, object);
    }
    if let Some(signature) = signature {
        extra_content(&signature.pack(Dialect::Gemini), object);
    }
    for native in own(native, SELF, at, losses) {
        object.raw(&native.name, &native.raw);
    }
}

fn write_thoughts(thoughts: &[Said<'_>], object: &mut Object<'_>) {
    if thoughts.iter().any(|said| !said.text.is_empty()) {
        object.joined("reasoning_content", thoughts.iter().map(|said| said.text));
    }
    // Only where it says more: it doubles the thoughts.
    if thoughts.len() > 1 || thoughts.iter().any(Said::needs_detail) {
        object.array("reasoning_details", |array| thoughts.iter().for_each(|said| said.write(array)));
    }
}

/// Writes an image as OpenRouter has it.
pub(super) fn write_image(url: &str, object: &mut Object<'_>) {
    object.text("type", "image_url");
    object.object("image_url", |object| object.text("url", url));
}

fn write_audio(part: &Part<'_>, object: &mut Object<'_>) {
    let PartKind::Audio { source: Source::Data { media_type: _, data }, transcript } = &part.kind else {
        return;
    };
    let natives: Vec<&Native<'_>> =
        part.state.native.iter().filter(|native| native.dialect == SELF).collect();
    natives.iter().for_each(|native| object.raw(&native.name, &native.raw));
    let says = |name: &str| natives.iter().any(|native| native.name == name);
    if !says("id") {
        object.text("id", "audio_0");
    }
    object.text("data", data);
    object.text("transcript", transcript.as_deref().unwrap_or_default());
    if !says("expires_at") {
        object.whole("expires_at", 0);
    }
}
