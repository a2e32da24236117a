//! Replies that were not streamed, and what they share with those that were: how a candidate ends, and what stands beside
//! it.

use std::borrow::Cow;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::parts::{Ids, read_part, write_part};
use super::usage;
use crate::dialect::{Asked, Dialect};
use crate::invalid::Invalid;
use crate::json::{self, Array, Fields, Node, Object, Path, Reader, Value};
use crate::loss::{Losses, What};
use crate::neutral::{self, Candidate, Finish, Native, Part, PartKind, Reply, Text, Usage};

/// Fields of a candidate that only this dialect knows. What a search found is told in Google's words only: its places
/// count bytes of several parts, and its terms forbid to show a statement without the search's own entry point.
const OWN_OF_CANDIDATES: [(&str, &str, What); 7] = [
    ("finishMessage", "finish_message", What::Refusal),
    ("safetyRatings", "safety_ratings", What::Safety),
    ("citationMetadata", "citation_metadata", What::Citation),
    ("groundingMetadata", "grounding_metadata", What::Citation),
    ("groundingAttributions", "grounding_attributions", What::Citation),
    ("urlContextMetadata", "url_context_metadata", What::Citation),
    ("avgLogprobs", "avg_logprobs", What::LogProbabilities),
];

/// The same of replies.
const OWN_OF_REPLIES: [(&str, &str, What); 2] = [
    ("promptFeedback", "prompt_feedback", What::Safety),
    ("modelStatus", "model_status", What::UnknownField),
];

/// Reasons of Google's that are a filter's.
const FILTERS: [&str; 9] = [
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
];

/// Reasons that no other dialect has a word for.
const OTHERS: [&str; 9] = [
    "FINISH_REASON_UNSPECIFIED",
    "OTHER",
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "NO_IMAGE",
    "IMAGE_OTHER",
    "MALFORMED_RESPONSE",
];

/// What stands in a reply, or in a piece of one.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) id: Option<Text<'a>>,
    pub(super) model: Option<Text<'a>>,
    pub(super) created: Option<u64>,
    pub(super) usage: Option<Usage>,
    pub(super) service_tier: Option<Text<'a>>,
    pub(super) native: Vec<Native<'a>>,
    pub(super) block_reason: Option<Text<'a>>,
    pub(super) candidates: Vec<Piece<'a>>,
}

/// A candidate, or what is new of one.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) index: u64,
    pub(super) parts: Vec<Part<'a>>,
    /// The provider's word for why it ended, if it has.
    pub(super) finish: Option<Text<'a>>,
    pub(super) log_probabilities: Option<String>,
    pub(super) native: Vec<Native<'a>>,
}

impl<'a> Body<'a> {
    /// Reads a reply, or a piece of one. Identities of calls go on from those that were made.
    pub(super) fn read(node: Node<'a>, ids: &mut Option<Ids>, reader: &mut Reader) -> Result<Self, Invalid> {
        reader.object(node, &Path::Root, |fields, reader| {
            let mut body = Self {
                id: text(fields, "responseId", "response_id")?,
                model: text(fields, "modelVersion", "model_version")?,
                created: text(fields, "createTime", "create_time")?.and_then(|time| seconds(&time)),
                native: own(fields, &OWN_OF_REPLIES),
                ..Self::default()
            };
            if let Some(node) = fields.take_either("usageMetadata", "usage_metadata") {
                let tier = node.get("serviceTier").or_else(|| node.get("service_tier"));
                body.service_tier =
                    tier.and_then(Node::as_text).map(|tier| Cow::Owned(tier.to_ascii_lowercase()));
                body.usage = Some(usage::decode_usage(&node));
            }
            let feedback = body.native.iter().find(|native| native.name == "promptFeedback");
            body.block_reason = feedback.and_then(|native| block_reason(&native.raw));
            let ids = ids.get_or_insert_with(|| Ids::of(body.id.as_deref().unwrap_or_default()));
            if let Some(node) = fields.take("candidates") {
                let path = fields.path().field("candidates");
                let mut place = 0;
                body.candidates = reader.array(node, &path, |node, path, reader| {
                    place += 1;
                    Piece::read(node, path, place - 1, ids, reader)
                })?;
            }
            Ok(body)
        })
    }
}

impl<'a> Piece<'a> {
    fn read(
        node: Node<'a>,
        path: &Path<'_>,
        place: u64,
        ids: &mut Ids,
        reader: &mut Reader,
    ) -> Result<Self, Invalid> {
        reader.object(node, path, |fields, reader| {
            let index = fields.whole("index")?.unwrap_or(place);
            // Counted in the usage as well.
            fields.take_either("tokenCount", "token_count");
            let parts = match fields.take("content") {
                Some(node) => read_content(node, &path.field("content"), ids, reader)?,
                None => Vec::new(),
            };
            Ok(Self {
                index,
                parts,
                finish: text(fields, "finishReason", "finish_reason")?,
                log_probabilities: fields
                    .take_either("logprobsResult", "logprobs_result")
                    .as_ref()
                    .map(probabilities),
                native: own(fields, &OWN_OF_CANDIDATES),
            })
        })
    }
}

fn read_content<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    ids: &mut Ids,
    reader: &mut Reader,
) -> Result<Vec<Part<'a>>, Invalid> {
    reader.object(node, path, |fields, reader| {
        // Always `model`.
        fields.text("role")?;
        let Some(parts) = fields.take("parts") else { return Ok(Vec::new()) };
        let path = fields.path().field("parts");
        let parts = reader.array(parts, &path, |node, path, reader| read_part(node, path, ids, reader))?;
        Ok(parts.into_iter().flatten().collect())
    })
}

fn text<'a>(fields: &mut Fields<'a, '_>, camel: &str, snake: &str) -> Result<Option<Text<'a>>, Invalid> {
    let path = fields.path().field(camel);
    fields.take_either(camel, snake).map(|node| node.into_text(&path)).transpose()
}

fn own<'a>(fields: &mut Fields<'a, '_>, names: &[(&'static str, &'static str, What)]) -> Vec<Native<'a>> {
    let own = names.iter().filter_map(|(camel, snake, what)| {
        fields.take_either(camel, snake).map(|node| Native::new(Dialect::Gemini, *what, *camel, node.raw))
    });
    own.collect()
}

fn block_reason(raw: &str) -> Option<Text<'static>> {
    let node = json::parse(raw.as_bytes()).ok()?;
    let reason = node.get("blockReason").or_else(|| node.get("block_reason"))?.as_text()?;
    Some(Cow::Owned(reason.to_owned()))
}

/// Seconds since 1970 of a time as in RFC 3339.
fn seconds(time: &str) -> Option<u64> {
    u64::try_from(OffsetDateTime::parse(time, &Rfc3339).ok()?.unix_timestamp()).ok()
}

fn either<'n, 'a>(node: &'n Node<'a>, camel: &str, snake: &str) -> Option<&'n Node<'a>> {
    node.get(camel).or_else(|| node.get(snake))
}

fn list<'n, 'a>(node: Option<&'n Node<'a>>) -> &'n [Node<'a>] {
    match node.map(|node| &node.value) {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}

/// Probabilities in OpenAI's words.
fn probabilities(result: &Node<'_>) -> String {
    let write = |object: &mut Object<'_>, node: &Node<'_>| {
        let token = node.get("token").and_then(Node::as_text).unwrap_or_default();
        object.text("token", token);
        match either(node, "logProbability", "log_probability").map(|node| &node.value) {
            Some(Value::Number(text)) => object.raw("logprob", text),
            // Google leaves out what is 0.
            _ => object.raw("logprob", "0"),
        }
        // Responses has always a list here, and strict clients need it.
        object.array("bytes", |array| token.bytes().for_each(|byte| array.raw(&byte.to_string())));
    };
    let chosen = list(either(result, "chosenCandidates", "chosen_candidates"));
    let top = list(either(result, "topCandidates", "top_candidates"));
    let mut out = Vec::new();
    for (index, token) in chosen.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::object(&mut out, |object| {
            write(object, token);
            object.array("top_logprobs", |array| {
                for alternative in list(top.get(index).and_then(|node| node.get("candidates"))) {
                    array.object(|object| write(object, alternative));
                }
            });
        });
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Writes probabilities that stand in OpenAI's words.
pub(super) fn write_probabilities(raw: &str, object: &mut Object<'_>) {
    let text = format!("[{raw}]");
    let Ok(Node { value: Value::Array(tokens), .. }) = json::parse(text.as_bytes()) else { return };
    let write = |array: &mut Array<'_>, node: &Node<'_>| {
        array.object(|object| {
            object.text("token", node.get("token").and_then(Node::as_text).unwrap_or_default());
            if let Some(Value::Number(number)) = node.get("logprob").map(|node| &node.value) {
                object.raw("logProbability", number);
            }
        });
    };
    object.object("logprobsResult", |object| {
        object.array("topCandidates", |array| {
            for token in &tokens {
                array.object(|object| {
                    object.array("candidates", |array| {
                        if let Some(Value::Array(others)) = token.get("top_logprobs").map(|node| &node.value)
                        {
                            others.iter().for_each(|other| write(array, other));
                        }
                    });
                });
            }
        });
        object.array("chosenCandidates", |array| tokens.iter().for_each(|token| write(array, token)));
    });
}

/// Why a candidate ended.
pub(super) fn finish<'a>(word: Option<Text<'a>>, has_calls: bool) -> Finish<'a> {
    match word.as_deref() {
        None | Some("STOP") if has_calls => Finish::ToolCalls,
        None | Some("STOP") => Finish::Stop,
        Some("MAX_TOKENS") => Finish::Length,
        Some(known) if FILTERS.contains(&known) => Finish::ContentFilter(word),
        Some(_) => Finish::Other(word.unwrap_or_default()),
    }
}

/// The word for why a candidate ended.
pub(super) fn finish_word<'f>(finish: &'f Finish<'_>, losses: &mut Losses) -> &'f str {
    match finish {
        Finish::Stop | Finish::ToolCalls => "STOP",
        Finish::StopSequence(sequence) => {
            if sequence.is_some() {
                losses.add(What::StopSequences, "finish");
            }
            "STOP"
        }
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter(Some(word)) if FILTERS.contains(&&**word) => word,
        Finish::ContentFilter(word) => {
            if word.is_some() {
                losses.add(What::Safety, "finish");
            }
            "SAFETY"
        }
        Finish::Refusal => {
            losses.add(What::Refusal, "finish");
            "SAFETY"
        }
        Finish::ContextExceeded => {
            losses.add(What::OutputLimit, "finish");
            "MAX_TOKENS"
        }
        Finish::Other(word) if OTHERS.contains(&&**word) => word,
        Finish::Pause | Finish::Other(_) => {
            losses.add(What::UnknownField, "finish");
            "OTHER"
        }
    }
}

/// Reads a provider's reply.
///
/// # Errors
/// When it is none.
pub fn decode_reply<'a>(body: &'a [u8], reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
    let node = json::parse(body)?;
    if node
        .get("candidates")
        .or_else(|| node.get("promptFeedback"))
        .or_else(|| node.get("prompt_feedback"))
        .is_none()
    {
        return Err(Path::Root.misses("candidates"));
    }
    let Body { id, model, created, usage, service_tier, native, block_reason, candidates } =
        Body::read(node, &mut None, reader)?;
    let mut candidates: Vec<Candidate<'a>> = candidates
        .into_iter()
        .map(|piece| {
            let Piece { index, parts, finish: word, log_probabilities, native } = piece;
            let has_calls = parts.iter().any(|part| matches!(part.kind, PartKind::ToolCall { .. }));
            let log_probabilities = log_probabilities.map(Cow::Owned);
            Candidate { index, parts, finish: finish(word, has_calls), log_probabilities, native }
        })
        .collect();
    if candidates.is_empty() {
        candidates.push(blocked(block_reason));
    }
    let (id, model) = (id.unwrap_or_default(), model.unwrap_or_default());
    Ok(Reply { id, model, created, candidates, usage, service_tier, native })
}

/// The answer to a prompt that was not let through: none, and the reason for it.
fn blocked(reason: Option<Text<'_>>) -> Candidate<'_> {
    Candidate {
        index: 0,
        parts: Vec::new(),
        finish: Finish::ContentFilter(reason),
        log_probabilities: None,
        native: Vec::new(),
    }
}

/// Writes a reply for a client.
#[must_use]
pub fn encode_reply(reply: &Reply<'_>, asked: &Asked, losses: &mut Losses) -> Vec<u8> {
    let Reply { id, model, created, candidates, usage, service_tier, native } = reply;
    if service_tier.is_some() {
        losses.add(What::ServiceTier, "service_tier");
    }
    let mut out = Vec::with_capacity(1024);
    json::object(&mut out, |object| {
        let own: Vec<_> = neutral::own(native, Dialect::Gemini, "", losses).collect();
        let is_blocked = own.iter().any(|native| native.name == "promptFeedback")
            && candidates.iter().all(|candidate| candidate.parts.is_empty());
        if !is_blocked {
            object.array("candidates", |array| {
                candidates.iter().for_each(|candidate| write_candidate(candidate, array, losses));
            });
        }
        own.iter().for_each(|native| object.raw(&native.name, &native.raw));
        if let Some(usage) = usage {
            usage::write(usage, object, losses);
        }
        write_tail(object, id, model, *created, asked);
    });
    out
}

/// The fields that stand in every piece of a stream, too.
pub(super) fn write_tail(
    object: &mut Object<'_>,
    id: &str,
    model: &str,
    created: Option<u64>,
    asked: &Asked,
) {
    object.text("modelVersion", if model.is_empty() { &asked.model } else { model });
    if !id.is_empty() {
        object.text("responseId", id);
    }
    object.some_text("createTime", created.and_then(time).as_ref());
}

/// A time as in RFC 3339.
fn time(seconds: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?.format(&Rfc3339).ok()
}

fn write_candidate(candidate: &Candidate<'_>, array: &mut Array<'_>, losses: &mut Losses) {
    let Candidate { index, parts, finish, log_probabilities, native } = candidate;
    array.object(|object| {
        object.object("content", |object| {
            object.array("parts", |array| {
                for (place, part) in parts.iter().enumerate() {
                    write_part(part, &format!("candidates[{index}].parts[{place}]"), array, losses);
                }
            });
            object.text("role", "model");
        });
        object.text("finishReason", finish_word(finish, losses));
        object.whole("index", *index);
        if let Some(raw) = log_probabilities {
            write_probabilities(raw, object);
        }
        for native in neutral::own(native, Dialect::Gemini, "", losses) {
            object.raw(&native.name, &native.raw);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-11-27T15:00:01Z", Some(1_795_791_601)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
            assert_eq!(time(expected.unwrap_or_default()).as_deref(), Some(text));
        }
        assert_eq!(seconds("2026-11-27T15:00:01.123456Z"), Some(1_795_791_601));
        for text in ["", "2026-11-27", "2026-13-01T00:00:00Z", "1969-01-01T00:00:00Z"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
