//! Reads replies that come whole.

use std::borrow::Cow;

use super::read_message::{Answer, answer};
use super::usage::decode_usage;
use super::words::{Ending, Known, finish, natives};
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::What;
use crate::neutral::{Candidate, PartKind, Raw, Reply};

/// What replies and chunks may have that no other dialect has.
pub(super) const OF_REPLIES: Known = &[
    ("system_fingerprint", What::UnknownField),
    ("moderation", What::Safety),
    ("metadata", What::Metadata),
    // Azure.
    ("prompt_filter_results", What::Safety),
    ("prompt_annotations", What::Safety),
    // OpenRouter, xAI, Perplexity.
    ("provider", What::UnknownField),
    ("openrouter_metadata", What::UnknownField),
    ("citations", What::Citation),
    ("search_results", What::Citation),
    // Groq, vLLM, llama.cpp, Together.
    ("usage_breakdown", What::UsageDetail),
    ("prompt_logprobs", What::LogProbabilities),
    ("prompt_token_ids", What::UnknownField),
    ("kv_transfer_params", What::UnknownField),
    ("timings", What::UsageDetail),
    ("prompt", What::UnknownField),
];

/// What an answer may have that no other dialect has.
pub(super) const OF_ANSWERS: Known = &[
    ("content_filter_results", What::Safety),
    ("content_filter_result", What::Safety),
    ("content_filter_offsets", What::Safety),
    ("token_ids", What::UnknownField),
    ("routed_experts", What::UnknownField),
    ("seed", What::Seed),
];

/// Reads a reply.
///
/// # Errors
/// When the body is none of this dialect's.
pub fn decode_reply<'a>(body: &'a [u8], reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
    reader.object(parse(body)?, &Path::Root, |fields, reader| {
        fields.text("object")?;
        let id = fields.text("id")?.unwrap_or_default();
        let choices = fields.need("choices")?;
        let mut made_of = id.to_string();
        let mut candidates = reader.array(choices, &Path::Root.field("choices"), |node, path, reader| {
            candidate(node, path, &mut made_of, reader)
        })?;
        candidates.sort_by_key(|candidate| candidate.index);
        let usage = fields.take("usage").map(|node| decode_usage(&node));
        // Groq tells it here, too.
        let ours = fields.take("x_groq").and_then(|node| node.get("usage").map(decode_usage));
        Ok(Reply {
            model: fields.text("model")?.unwrap_or_default(),
            created: created(fields)?,
            candidates,
            usage: usage.or(ours),
            service_tier: fields.text("service_tier")?,
            native: natives(fields, OF_REPLIES),
            id,
        })
    })
}

/// When it was made. Some servers tell fractions of seconds.
pub(super) fn created(fields: &mut Fields<'_, '_>) -> Result<Option<u64>, Invalid> {
    Ok(fields.number("created")?.and_then(|number| {
        let value = number.as_f64();
        number.as_u64().or((0.0..1e15).contains(&value).then_some(value as u64))
    }))
}

fn candidate<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    made_of: &mut String,
    reader: &mut Reader,
) -> Result<Candidate<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let index = fields.whole("index")?.unwrap_or(0);
        let made = if index == 0 { made_of.clone() } else { format!("{made_of}{index}") };
        let Answer { parts, legacy: _, native: mut own } =
            reader.object(fields.need("message")?, &path.field("message"), |fields, reader| {
                fields.text("role")?;
                answer(fields, &made, reader)
            })?;
        // An answer that is nothing but an empty text has no parts: that is how a stream tells it.
        let says = |kind: &PartKind<'_>| !matches!(kind, PartKind::Text { text, citations } if text.is_empty() && citations.is_empty());
        let parts: Vec<_> = parts.into_iter().filter(|part| says(&part.kind)).collect();
        let word = fields.text("finish_reason")?;
        let stop = stop_text(fields.take("stop_reason").or(fields.take("matched_stop")));
        let behind = fields.text("native_finish_reason")?;
        let has = |is: fn(&PartKind<'_>) -> bool| parts.iter().any(|part| is(&part.kind));
        let ending = Ending {
            calls_tools: has(|kind| matches!(kind, PartKind::ToolCall { .. })),
            refuses: has(|kind| matches!(kind, PartKind::Refusal { .. })),
            stop: stop.as_deref(),
            native: behind.as_deref(),
        };
        let finish = finish(word.as_deref(), ending);
        let log_probabilities = match fields.take("logprobs") {
            Some(node) => probabilities(&node),
            None => None,
        };
        own.extend(natives(fields, OF_ANSWERS));
        Ok(Candidate { index, parts, finish, log_probabilities, native: own })
    })
}

/// The text at which an answer ended (vLLM, SGLang). A number is a token's, and means nothing elsewhere.
pub(super) fn stop_text<'a>(node: Option<Node<'a>>) -> Option<Cow<'a, str>> {
    match node?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The objects of `logprobs`, without the brackets around them: of the content, and else of the refusal.
pub(super) fn probabilities<'a>(node: &Node<'a>) -> Option<Raw<'a>> {
    let objects = |name: &str| match node.get(name) {
        Some(Node { value: Value::Array(items), raw }) if !items.is_empty() => {
            Some(raw[1..raw.len() - 1].trim())
        }
        _ => None,
    };
    objects("content").or_else(|| objects("refusal")).map(Cow::Borrowed)
}
