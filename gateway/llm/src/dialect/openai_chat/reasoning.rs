//! Thoughts in messages: `reasoning_content` (DeepSeek and most servers after it), `reasoning` (OpenRouter, Groq, vLLM)
//! and `reasoning_details` (OpenRouter), the only one of them that holds signatures.
//!
//! The format of a detail says whose signature it is, so that thoughts of Claude's that went through a client of this
//! dialect come back to Claude as Claude signed them.

use std::borrow::Cow;

use super::words::SELF;
use crate::dialect::Dialect;
use crate::invalid::Invalid;
use crate::json::{Array, Fields, Node, Path, Reader};
use crate::loss::What;
use crate::neutral::{Part, PartKind, Signature, State, Text};

/// Formats of details, and who signs them. The first of a dialect is the one that is written.
const FORMATS: &[(&str, Dialect)] = &[
    ("anthropic-claude-v1", Dialect::AnthropicMessages),
    ("openai-responses-v1", Dialect::OpenaiResponses),
    ("azure-openai-responses-v1", Dialect::OpenaiResponses),
    ("xai-responses-v1", Dialect::OpenaiResponses),
    ("google-gemini-v1", Dialect::Gemini),
    ("unknown", Dialect::OpenaiChat),
];

fn signer(format: Option<&str>) -> Dialect {
    FORMATS.iter().find(|(name, _)| Some(*name) == format).map_or(SELF, |&(_, by)| by)
}

fn format_of(by: Dialect) -> &'static str {
    FORMATS.iter().find(|(_, dialect)| *dialect == by).map_or("unknown", |(name, _)| name)
}

/// One of `reasoning_details`.
#[derive(Debug)]
pub(super) struct Detail<'a> {
    /// Where it stands among the parts of its message; pieces of a stream that have the same are of one detail.
    pub(super) index: Option<u64>,
    /// Its words.
    pub(super) text: Text<'a>,
    /// Whether they are a summary.
    pub(super) is_summary: bool,
    /// Whether it has none.
    pub(super) is_encrypted: bool,
    /// What its provider signed or encrypted.
    pub(super) signature: Option<Signature<'a>>,
    /// Its identity, or that of the tool call it belongs to.
    pub(super) id: Option<Text<'a>>,
}

/// Reads one of `reasoning_details`. One of a type that is not known is lost.
pub(super) fn read_detail<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Option<Detail<'a>>, Invalid> {
    let kind = node.get("type").and_then(Node::as_text).unwrap_or_default();
    if !matches!(kind, "reasoning.text" | "reasoning.summary" | "reasoning.encrypted") {
        reader.loses(What::ReasoningBlock, path);
        return Ok(None);
    }
    reader.object(node, path, |fields, _| {
        let kind = fields.need_text("type")?;
        let format = fields.text("format")?;
        let by = signer(format.as_deref());
        let signed = fields.text("signature")?.or(fields.text("data")?).filter(|value| !value.is_empty());
        let text = fields.text("text")?.or(fields.text("summary")?).unwrap_or_default();
        Ok(Some(Detail {
            index: fields.whole("index")?,
            text,
            is_summary: kind == "reasoning.summary",
            is_encrypted: kind == "reasoning.encrypted",
            signature: signed.map(|value| Signature::unpack(value, by)),
            id: fields.text("id")?,
        }))
    })
}

impl<'a> Detail<'a> {
    fn into_part(self) -> Part<'a> {
        let by = self.signature.as_ref().map(|signature| signature.by);
        // OpenAI's items that show nothing are summaries that are empty, not thoughts that were hidden.
        let is_empty_summary = self.is_encrypted && by == Some(Dialect::OpenaiResponses);
        let kind = PartKind::Thinking {
            text: self.text,
            is_summary: self.is_summary || is_empty_summary,
            is_redacted: self.is_encrypted && !is_empty_summary,
            id: self.id,
        };
        Part { kind, state: State { signature: self.signature, ..State::default() } }
    }

    /// Whether it is the encrypted half of the item that the part before it is the summary of.
    pub(super) fn completes(&self, before: &Part<'_>) -> bool {
        let PartKind::Thinking { is_summary: true, id, .. } = &before.kind else { return false };
        self.is_encrypted && before.state.signature.is_none() && self.id == *id
    }
}

/// Thoughts of a message, and signatures for its tool calls.
#[derive(Debug, Default)]
pub(super) struct Thoughts<'a> {
    /// Each with the place that it has among the parts.
    pub(super) parts: Vec<(usize, Part<'a>)>,
    /// By the call's identity.
    pub(super) of_calls: Vec<(Text<'a>, Signature<'a>)>,
}

/// Takes the thoughts of a message. Details say all that the other fields say, and more.
pub(super) fn take<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Thoughts<'a>, Invalid> {
    let content = fields.text("reasoning_content")?;
    let reasoning = fields.text("reasoning")?;
    let mut thoughts = Thoughts::default();
    if let Some(details) = fields.take("reasoning_details") {
        let path = fields.path().field("reasoning_details");
        for detail in reader.array(details, &path, read_detail)?.into_iter().flatten() {
            add(detail, &mut thoughts);
        }
    }
    if thoughts.parts.is_empty()
        && let Some(text) = content.or(reasoning).filter(|text| !text.is_empty())
    {
        let kind = PartKind::Thinking { text, is_summary: false, is_redacted: false, id: None };
        thoughts.parts.push((0, Part::new(kind)));
    }
    Ok(thoughts)
}

fn add<'a>(detail: Detail<'a>, thoughts: &mut Thoughts<'a>) {
    // Gemini signs calls, and OpenRouter says of which by the call's identity.
    let is_of_call = detail.is_encrypted && signed_by(&detail) == Some(Dialect::Gemini);
    match (detail.id.clone(), &detail.signature) {
        (Some(id), Some(signature)) if is_of_call => thoughts.of_calls.push((id, signature.clone())),
        _ => match thoughts.parts.last_mut() {
            Some((_, before)) if detail.completes(before) => before.state.signature = detail.signature,
            _ => {
                let place = detail.index.and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
                thoughts.parts.push((place, detail.into_part()));
            }
        },
    }
}

fn signed_by(detail: &Detail<'_>) -> Option<Dialect> {
    detail.signature.as_ref().map(|signature| signature.by)
}

impl<'a> Thoughts<'a> {
    /// Puts them where they stood among the other parts.
    pub(super) fn place(self, others: Vec<Part<'a>>) -> Vec<Part<'a>> {
        if self.parts.is_empty() && self.of_calls.is_empty() {
            return others;
        }
        let mut parts = Vec::with_capacity(self.parts.len() + others.len());
        let mut others = others.into_iter();
        for (place, thought) in self.parts {
            while parts.len() < place
                && let Some(other) = others.next()
            {
                parts.push(other);
            }
            parts.push(thought);
        }
        parts.extend(others);
        for (call, signature) in self.of_calls {
            let is_it =
                |part: &&mut Part<'_>| matches!(&part.kind, PartKind::ToolCall { id, .. } if *id == call);
            if let Some(part) = parts.iter_mut().find(is_it) {
                part.state.signature.get_or_insert(signature);
            }
        }
        parts
    }
}

/// What a thought is, to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'t> {
    pub(super) place: usize,
    pub(super) text: &'t str,
    pub(super) is_summary: bool,
    pub(super) is_redacted: bool,
    pub(super) id: Option<&'t str>,
    pub(super) signature: Option<&'t Signature<'t>>,
}

impl Said<'_> {
    /// Whether the words alone would lose something.
    pub(super) fn needs_detail(&self) -> bool {
        self.signature.is_some() || self.is_redacted || self.is_summary || self.id.is_some() || self.place > 0
    }

    /// Writes it as one of `reasoning_details`, or as two: a summary, and what is encrypted beside it.
    pub(super) fn write(&self, array: &mut Array<'_>) {
        let Self { place, text, is_summary, is_redacted, id, signature } = *self;
        let value =
            |signature: &Signature<'_>| -> Cow<'static, str> { Cow::Owned(signature.value.to_string()) };
        let mut write = |kind: &str, words: Option<(&str, &str)>, sign: Option<(&str, &str)>| {
            array.object(|object| {
                object.text("type", kind);
                for (name, value) in words.into_iter().chain(sign) {
                    object.text(name, value);
                }
                object.some_text("id", id);
                let format = signature.map_or("unknown", |signature| format_of(signature.by));
                object.text("format", format);
                object.whole("index", place as u64);
            });
        };
        let signed = signature.map(value);
        if is_redacted || (is_summary && text.is_empty() && signed.is_some()) {
            write("reasoning.encrypted", None, Some(("data", signed.as_deref().unwrap_or_default())));
        } else if is_summary {
            write("reasoning.summary", Some(("summary", text)), None);
            if let Some(signed) = &signed {
                write("reasoning.encrypted", None, Some(("data", signed)));
            }
        } else {
            write(
                "reasoning.text",
                Some(("text", text)),
                signed.as_deref().map(|signed| ("signature", signed)),
            );
        }
    }
}

/// Writes the signature of a tool call as one of `reasoning_details`, as OpenRouter has Gemini's.
pub(super) fn write_of_call(array: &mut Array<'_>, call: &str, signature: &Signature<'_>, place: usize) {
    array.object(|object| {
        object.text("type", "reasoning.encrypted");
        object.text("data", &signature.value);
        object.text("id", call);
        object.text("format", format_of(signature.by));
        object.whole("index", place as u64);
    });
}

/// What is the same in all pieces of a thought that is streamed. Each is one of `reasoning_details` as well as a piece of
/// `reasoning_content`: that a signature will follow is not known before.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) place: usize,
    pub(super) is_summary: bool,
    pub(super) is_redacted: bool,
    pub(super) id: Option<String>,
}

impl Piece {
    /// Writes more of its words.
    pub(super) fn write_text(&self, text: &str, array: &mut Array<'_>) {
        let (kind, field) =
            if self.is_summary { ("reasoning.summary", "summary") } else { ("reasoning.text", "text") };
        array.object(|object| {
            object.text("type", kind);
            object.text(field, text);
            object.some_text("id", self.id.as_ref());
            object.whole("index", self.place as u64);
        });
    }

    /// Writes what its provider signed.
    pub(super) fn write_signature(&self, signature: &Signature<'_>, array: &mut Array<'_>) {
        let (kind, field) = if self.is_summary || self.is_redacted {
            ("reasoning.encrypted", "data")
        } else {
            ("reasoning.text", "signature")
        };
        array.object(|object| {
            object.text("type", kind);
            object.text(field, &signature.value);
            object.some_text("id", self.id.as_ref());
            object.text("format", format_of(signature.by));
            object.whole("index", self.place as u64);
        });
    }
}
