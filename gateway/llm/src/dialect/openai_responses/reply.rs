//! Replies that are not streamed, both ways, and what they cost.

use std::borrow::Cow;

use super::content::what;
use super::read_items::{From, Item, read_item};
use super::stream_out::StreamEncoder;
use super::tools::{Names, restored};
use super::{DIALECT, failure};
use crate::dialect::Asked;
use crate::fold::unfold;
use crate::invalid::{Invalid, Reason};
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Candidate, Event, Finish, Native, Part, PartKind, Reply, Source, Turn, Usage};

/// Fields that repeat the request, or say what a client knows by having the answer. They are the client's own words, so
/// nothing is lost with them.
const REPEATED: &[&str] = &[
    "object",
    "access_programs",
    "background",
    "completed_at",
    "error",
    "frequency_penalty",
    "image",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "output_text",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// What only this dialect's provider says of an answer.
const NATIVE: &[(&str, What)] = &[
    ("conversation", What::Stored),
    ("input_transformations", What::ReasoningBlock),
    ("moderation", What::Safety),
    ("prompt_cache_diagnostics", What::CacheControl),
    ("tool_usage", What::UsageDetail),
    ("content_filters", What::Safety),
];

/// Reads a provider's reply.
///
/// # Errors
/// When it is no response, or one that failed: [`super::decode_failure`] reads why.
pub fn decode_reply<'a>(body: &'a [u8], reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
    let node = parse(body)?;
    let is_failed =
        node.get("status").and_then(Node::as_text) == Some("failed") || node.get("output").is_none();
    if is_failed && let Some(failure) = failure::read(&node, 0) {
        let message = format!("The provider's response failed: {}", failure.message);
        return Err(Invalid::new(Reason::Value, "error".to_owned(), message));
    }
    reader.object(node, &Path::Root, read_response)
}

fn read_response<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
    let start = read_head(fields)?;
    let output = fields.need("output")?;
    let mut candidate = Candidate {
        index: 0,
        parts: Vec::new(),
        finish: Finish::Stop,
        log_probabilities: None,
        native: Vec::new(),
    };
    let names = Names::default();
    let items = reader.array(output, &Path::Root.field("output"), |node, path, reader| {
        let item = read_item(node, path, reader, &names, From::Provider)?;
        if matches!(item, Item::Carried(_)) {
            // Of a provider that is a gateway like this one: in a stream, the part that it belongs to has ended.
            reader.loses(What::Signature, path);
        }
        Ok(item)
    })?;
    for item in items {
        if let Item::Turn(turn, probabilities) = item {
            candidate.parts.extend(parts_of(turn));
            if let Some(more) = probabilities {
                add_probabilities(&mut candidate.log_probabilities, more);
            }
        }
    }
    let ending = read_ending(fields)?;
    let has = |wanted: fn(&PartKind<'_>) -> bool| candidate.parts.iter().any(|part| wanted(&part.kind));
    let has_call = has(|kind| matches!(kind, PartKind::ToolCall { .. }));
    let has_refusal = has(|kind| matches!(kind, PartKind::Refusal { .. }));
    candidate.finish = ending.finish(has_call, has_refusal);
    Ok(Reply {
        id: start.id,
        model: start.model,
        created: start.created,
        candidates: vec![candidate],
        usage: ending.usage,
        service_tier: start.service_tier,
        native: start.native,
    })
}

fn add_probabilities<'a>(known: &mut Option<Cow<'a, str>>, more: Cow<'a, str>) {
    match known {
        Some(known) => {
            let known = known.to_mut();
            known.push(',');
            known.push_str(&more);
        }
        none => *none = Some(more),
    }
}

/// What a response says before its items.
#[derive(Debug, Default)]
pub(super) struct Start<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) model: Cow<'a, str>,
    pub(super) created: Option<u64>,
    pub(super) service_tier: Option<Cow<'a, str>>,
    pub(super) native: Vec<Native<'a>>,
}

pub(super) fn read_head<'a>(fields: &mut Fields<'a, '_>) -> Result<Start<'a>, Invalid> {
    for name in REPEATED {
        fields.take(name);
    }
    let native = NATIVE.iter().filter_map(|(name, what)| {
        // What is empty says nothing.
        let raw = fields.raw(name).filter(|raw| *raw != "[]")?;
        Some(Native::new(DIALECT, *what, *name, raw))
    });
    let native = native.collect();
    // A fraction of a second is none here.
    let created = fields.number("created_at")?.map(|number| number.as_f64().max(0.0) as u64);
    Ok(Start {
        id: fields.text("id")?.unwrap_or_default(),
        model: fields.text("model")?.unwrap_or_default(),
        created,
        // What was asked for and not yet decided.
        service_tier: fields.text("service_tier")?.filter(|tier| tier != "auto"),
        native,
    })
}

/// What a response says when its items are complete.
#[derive(Debug, Default)]
pub(super) struct Ending<'a> {
    status: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    pub(super) usage: Option<Usage>,
}

pub(super) fn read_ending<'a>(fields: &mut Fields<'a, '_>) -> Result<Ending<'a>, Invalid> {
    let status = fields.text("status")?.unwrap_or_default();
    let reason = fields.take("incomplete_details").and_then(|node| match node.value {
        Value::Object(members) => {
            members.into_iter().find(|(name, _)| name == "reason").map(|(_, node)| node.value)
        }
        _ => None,
    });
    let reason = match reason {
        Some(Value::Text(reason)) => Some(reason),
        _ => None,
    };
    Ok(Ending { status, reason, usage: fields.take("usage").map(|node| decode_usage(&node)) })
}

impl<'a> Ending<'a> {
    /// Why the answer ended, by its status and what is in it.
    pub(super) fn finish(&self, has_call: bool, has_refusal: bool) -> Finish<'a> {
        match (&*self.status, &self.reason) {
            // A response without a status is a server's that forgot it.
            ("completed" | "", _) if has_call => Finish::ToolCalls,
            ("completed" | "", _) if has_refusal => Finish::Refusal,
            ("completed" | "", _) => Finish::Stop,
            ("incomplete", Some(reason)) => match &**reason {
                "max_output_tokens" => Finish::Length,
                "content_filter" => Finish::ContentFilter(None),
                "pause" => Finish::Pause,
                _ => Finish::Other(reason.clone()),
            },
            _ => Finish::Other(self.status.clone()),
        }
    }
}

/// The parts of an item. How far it came the response says.
pub(super) fn parts_of(turn: Turn<'_>) -> Vec<Part<'_>> {
    let mut parts = turn.parts;
    for part in &mut parts {
        if let PartKind::ToolCall { name, .. } = &mut part.kind {
            *name = restored(std::mem::take(name));
        }
        part.state.native.retain(|native| native.name != "status");
    }
    parts
}

/// Reads `usage`.
#[must_use]
pub fn decode_usage(node: &Node<'_>) -> Usage {
    let count = |node: &Node<'_>, name: &str| match node.get(name).map(|node| &node.value) {
        Some(Value::Number(digits)) => digits.parse::<u64>().ok(),
        _ => None,
    };
    let detail = |list: &str, name: &str| node.get(list).and_then(|node| count(node, name));
    Usage {
        input: count(node, "input_tokens"),
        output: count(node, "output_tokens"),
        cache_read: detail("input_tokens_details", "cached_tokens"),
        cache_written: detail("input_tokens_details", "cache_write_tokens"),
        reasoning: detail("output_tokens_details", "reasoning_tokens"),
        ..Usage::default()
    }
}

/// Writes a reply.
#[must_use]
pub fn encode_reply(reply: &Reply<'_>, asked: &Asked, losses: &mut Losses) -> Vec<u8> {
    let mut encoder = StreamEncoder::quiet(asked.clone(), true);
    let mut out = Vec::with_capacity(2048);
    // All of an answer's probabilities stand beside it, and here in its text.
    let mut first = reply.candidates.iter().filter(|candidate| candidate.index == 0);
    let probabilities = first.next().and_then(|candidate| candidate.log_probabilities.as_deref());
    lose_unsayable(reply, losses);
    unfold(reply, &mut |event| match event {
        Event::LogProbabilities { .. } => {}
        event => {
            encoder.step(&event, &mut out);
            if let (Event::Start { .. }, Some(raw)) = (&event, probabilities) {
                encoder.step(&Event::LogProbabilities { candidate: 0, raw: raw.into() }, &mut out);
            }
        }
    });
    losses.append(std::mem::take(&mut encoder.losses));
    out
}

/// What no stream says: a model answers with none of it.
fn lose_unsayable(reply: &Reply<'_>, losses: &mut Losses) {
    for part in reply.candidates.iter().flat_map(|candidate| &candidate.parts) {
        let is_here = |source: &Source<'_>| matches!(source, Source::Data { .. });
        match &part.kind {
            PartKind::Document { .. } | PartKind::Video { .. } | PartKind::ToolResult { .. } => {
                losses.add(what(&part.kind), "output");
            }
            PartKind::Image { source, .. } | PartKind::Audio { source, .. } if !is_here(source) => {
                losses.add(what(&part.kind), "output");
            }
            _ => {}
        }
    }
}
