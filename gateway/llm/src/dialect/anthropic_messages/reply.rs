//! Replies that were not streamed, and what they share with those that were: how an answer ends, and what it cost.

use std::borrow::Cow;

use super::block::{Block, Kind, Place, lower};
use super::read_content::{name_call, read_block};
use super::usage::{self, Counts, Extent};
use super::{DIALECT, Side};
use crate::dialect::Asked;
use crate::invalid::Invalid;
use crate::json::{self, Fields, Object, Path, Reader};
use crate::loss::{Losses, What};
use crate::neutral::{self, Candidate, Finish, Native, Part, PartKind, Reply, Role, Signature};
use crate::tool_ids::{self, Shape};

/// Fields of an answer that only this dialect knows.
const OWN_FIELDS: &[(&str, What)] = &[
    ("container", What::ProviderTool),
    ("context_management", What::Stored),
    ("diagnostics", What::UsageDetail),
    ("input_transformations", What::ReasoningBlock),
    ("stop_details", What::Refusal),
];

/// Of these, the ones that stand beside `delta` in the last event of a stream, and those within it.
pub(super) const BESIDE_DELTA: [&str; 2] = ["context_management", "input_transformations"];
pub(super) const IN_DELTA: [&str; 2] = ["container", "stop_details"];

/// What is known of an answer besides its content.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) counts: Counts,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    own: Vec<(&'static str, What, String)>,
}

impl Tail {
    /// Reads the fields of a message, or of the event that ends one. Later ones replace earlier ones.
    pub(super) fn read(&mut self, fields: &mut Fields<'_, '_>, reader: &mut Reader) -> Result<(), Invalid> {
        if let Some(reason) = fields.text("stop_reason")? {
            self.stop_reason = Some(reason.into_owned());
        }
        if let Some(sequence) = fields.text("stop_sequence")? {
            self.stop_sequence = Some(sequence.into_owned());
        }
        for (name, what) in OWN_FIELDS {
            if let Some(raw) = fields.raw(name) {
                self.own.retain(|(known, _, _)| known != name);
                self.own.push((name, *what, raw.to_owned()));
            }
        }
        if let Some(node) = fields.take("usage") {
            self.counts.read(node, &fields.path().field("usage"), reader)?;
        }
        Ok(())
    }

    /// Whether the provider said why the answer ends.
    pub(super) const fn has_ended(&self) -> bool {
        self.stop_reason.is_some()
    }

    /// Why the answer ended.
    pub(super) fn finish(&self, has_calls: bool) -> Finish<'static> {
        match self.stop_reason.as_deref() {
            // Some servers say end_turn all the same.
            None | Some("end_turn") if has_calls => Finish::ToolCalls,
            None | Some("end_turn") => Finish::Stop,
            Some("tool_use") => Finish::ToolCalls,
            Some("max_tokens") => Finish::Length,
            Some("stop_sequence") => Finish::StopSequence(self.stop_sequence.clone().map(Cow::Owned)),
            Some("pause_turn") => Finish::Pause,
            Some("refusal") => Finish::Refusal,
            Some("model_context_window_exceeded") => Finish::ContextExceeded,
            Some(other) => Finish::Other(Cow::Owned(other.to_owned())),
        }
    }

    /// What only this dialect knows, by name.
    pub(super) fn natives(&self) -> Vec<Native<'static>> {
        let own = self.own.iter().map(|(name, what, raw)| Native::new(DIALECT, *what, *name, raw.clone()));
        let mut natives: Vec<_> = own.collect();
        natives.sort_by(|one, other| one.name.cmp(&other.name));
        natives.extend(self.counts.natives());
        natives
    }
}

/// Reads a provider's reply.
///
/// # Errors
/// When it is none.
pub fn decode_reply<'a>(body: &'a [u8], reader: &mut Reader) -> Result<Reply<'a>, Invalid> {
    reader.object(json::parse(body)?, &Path::Root, |fields, reader| {
        // Always the same: `message`, `assistant`.
        fields.text("type")?;
        fields.text("role")?;
        let id = fields.text("id")?.unwrap_or_default();
        let model = fields.text("model")?.unwrap_or_default();
        let path = fields.path().field("content");
        let mut parts = reader.array(fields.need("content")?, &path, |node, path, reader| {
            read_block(node, path, Side::Provider, reader)
        })?;
        parts.iter_mut().enumerate().for_each(|(index, part)| name_call(part, &id, index));
        let mut tail = Tail::default();
        tail.read(fields, reader)?;
        let has_calls = parts.iter().any(|part| matches!(part.kind, PartKind::ToolCall { .. }));
        let candidate = Candidate {
            index: 0,
            parts,
            finish: tail.finish(has_calls),
            log_probabilities: None,
            native: tail.natives(),
        };
        Ok(Reply {
            id,
            model,
            created: None,
            candidates: vec![candidate],
            usage: Some(tail.counts.usage()),
            service_tier: tail.counts.service_tier.take().map(Cow::Owned),
            native: Vec::new(),
        })
    })
}

/// Writes a reply for a client.
#[must_use]
pub fn encode_reply(reply: &Reply<'_>, asked: &Asked, losses: &mut Losses) -> Vec<u8> {
    let Reply { id, model, created: _, candidates, usage, service_tier, native: whole } = reply;
    let whole = neutral::own(whole, DIALECT, "", losses);
    if candidates.len() > 1 {
        losses.add(What::Candidates, "candidates[1]");
    }
    let nothing = Candidate {
        index: 0,
        parts: Vec::new(),
        finish: Finish::Stop,
        log_probabilities: None,
        native: Vec::new(),
    };
    let Candidate { index: _, parts, finish, log_probabilities, native } =
        candidates.first().unwrap_or(&nothing);
    if log_probabilities.is_some() {
        losses.add(What::LogProbabilities, "logprobs");
    }
    let whole: Vec<_> = whole.collect();
    let native: Vec<_> = whole.into_iter().chain(neutral::own(native, DIALECT, "", losses)).collect();
    let blocks = blocks(parts, losses);
    let has_calls = blocks.iter().any(|block| matches!(block.kind, Kind::ToolUse { .. }));
    let mut out = Vec::with_capacity(1024);
    json::object(&mut out, |object| {
        write_head(object, id, model, asked);
        object.array("content", |array| blocks.iter().for_each(|block| block.write(array)));
        write_finish(object, finish, has_calls, losses);
        for native in native.iter().filter(|native| !native.name.contains('.')) {
            object.raw(&native.name, &native.raw);
        }
        let usage = usage.unwrap_or_default();
        usage::write(object, &usage, service_tier.as_ref(), &native, Extent::Whole, losses);
    });
    out
}

/// The first fields of a message.
pub(super) fn write_head(object: &mut Object<'_>, id: &str, model: &str, asked: &Asked) {
    object.text("id", &message_id(id, asked.now));
    object.text("type", "message");
    object.text("role", "assistant");
    object.text("model", if model.is_empty() { &asked.model } else { model });
}

fn blocks<'r>(parts: &'r [Part<'_>], losses: &mut Losses) -> Vec<Block<'r>> {
    let mut blocks = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        match lower(part, Role::Assistant, Side::Client, Place::Reply(index), losses) {
            Ok(block) => blocks.extend(block),
            // Only names of tools are refused, and the client cannot have called one like that.
            Err(invalid) => losses.add(What::ToolDetail, invalid.path),
        }
        blocks.extend(carrier(part).map(Block::new));
    }
    blocks
}

/// A block behind a part that has a signature and, in this dialect, no field for it.
fn carrier<'r>(part: &'r Part<'_>) -> Option<Kind<'r>> {
    let signature = part.state.signature.as_ref()?;
    (!matches!(part.kind, PartKind::Thinking { .. })).then(|| Kind::Redacted { data: carried(signature) })
}

/// What stands in such a block.
pub(super) fn carried<'r>(signature: &'r Signature<'_>) -> Cow<'r, str> {
    signature.pack(DIALECT)
}

/// `stop_reason` and `stop_sequence`.
pub(super) fn write_finish(
    object: &mut Object<'_>,
    finish: &Finish<'_>,
    has_calls: bool,
    losses: &mut Losses,
) {
    let (reason, sequence) = match finish {
        Finish::Stop if has_calls => ("tool_use", None),
        Finish::Stop => ("end_turn", None),
        Finish::StopSequence(sequence) => ("stop_sequence", sequence.as_deref()),
        Finish::Length => ("max_tokens", None),
        Finish::ToolCalls => ("tool_use", None),
        Finish::ContentFilter(word) => {
            if word.is_some() {
                losses.add(What::Safety, "finish");
            }
            ("refusal", None)
        }
        Finish::Refusal => ("refusal", None),
        Finish::Pause => ("pause_turn", None),
        Finish::ContextExceeded => ("model_context_window_exceeded", None),
        Finish::Other(word) if word == "compaction" => ("compaction", None),
        Finish::Other(_) => {
            losses.add(What::UnknownField, "finish");
            ("end_turn", None)
        }
    };
    object.text("stop_reason", reason);
    match sequence {
        Some(sequence) => object.text("stop_sequence", sequence),
        None => object.null("stop_sequence"),
    }
}

/// An answer's name in this dialect: made of the provider's, so that both can be found by either.
fn message_id(id: &str, now: u64) -> Cow<'_, str> {
    if id.starts_with("msg_") {
        return Cow::Borrowed(id);
    }
    let bare =
        ["chatcmpl-", "cmpl-", "resp_"].iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id);
    Cow::Owned(if bare.is_empty() {
        format!("msg_{now}")
    } else {
        format!("msg_{}", tool_ids::fit(bare, Shape::Words(128)))
    })
}
