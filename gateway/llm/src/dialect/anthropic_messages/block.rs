//! Blocks of content, as they are written: what a part of the neutral form becomes, or why it is lost.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{DIALECT, IDS, MAX_NAME, Side};
use crate::invalid::{Invalid, Reason};
use crate::json::{self, Array, Object, Value};
use crate::loss::{Losses, What};
use crate::neutral::{self, Citation, Native, Part, PartKind, Role, Source, State, Text};
use crate::{custom, tool_ids};

/// Where a part stands in the neutral form.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    /// In a turn of a request.
    Turn(usize, usize),
    /// In a tool's result.
    Nested(&'p Place<'p>, usize),
    /// In an answer.
    Reply(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn(turn, part) => write!(f, "turns[{turn}].parts[{part}]"),
            Self::Nested(result, part) => write!(f, "{result}.content[{part}]"),
            Self::Reply(part) => write!(f, "parts[{part}]"),
        }
    }
}

/// A block that can be written.
#[derive(Debug)]
pub(super) struct Block<'r> {
    pub(super) kind: Kind<'r>,
    /// The mark behind it.
    pub(super) cache: Option<&'r str>,
    /// Fields that only this dialect knows.
    native: Vec<(&'r str, &'r str)>,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Kind<'r> {
    Text { text: Cow<'r, str>, citations: Vec<&'r str> },
    Image(Where<'r>),
    Document { source: Where<'r>, title: Option<&'r str>, context: Option<&'r str>, cite: Option<bool> },
    Thinking { text: &'r str, signature: Cow<'r, str> },
    Redacted { data: Cow<'r, str> },
    ToolUse { id: Cow<'r, str>, name: Cow<'r, str>, input: Cow<'r, str> },
    ToolResult { id: Cow<'r, str>, content: Vec<Block<'r>>, is_error: Option<bool> },
    Raw(&'r str),
}

/// Where an image or a document is.
#[derive(Debug)]
pub(super) enum Where<'r> {
    Base64 { media_type: &'r str, data: &'r str },
    Url(&'r str),
    File(&'r str),
    Text(Cow<'r, str>),
    Raw(&'r str),
}

impl<'r> Block<'r> {
    pub(super) const fn new(kind: Kind<'r>) -> Self {
        Self { kind, cache: None, native: Vec::new() }
    }

    pub(super) const fn is_result(&self) -> bool {
        matches!(self.kind, Kind::ToolResult { .. })
    }

    pub(super) const fn is_thinking(&self) -> bool {
        matches!(self.kind, Kind::Thinking { .. } | Kind::Redacted { .. })
    }

    /// The text, if that is all there is.
    pub(super) fn sole_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, citations }
                if citations.is_empty() && self.cache.is_none() && self.native.is_empty() =>
            {
                Some(text)
            }
            _ => None,
        }
    }
}

/// Makes a block of a part, or notes what is lost.
///
/// # Errors
/// When the part must not be lost and cannot be said.
pub(super) fn lower<'r>(
    part: &'r Part<'_>,
    role: Role,
    side: Side,
    place: Place<'_>,
    losses: &mut Losses,
) -> Result<Option<Block<'r>>, Invalid> {
    let State { cache, signature: _, native } = &part.state;
    let Some(kind) = lower_kind(part, role, side, place, losses)? else {
        if cache.is_some() {
            losses.add(What::CacheControl, format!("{place}.cache_control"));
        }
        for native in native {
            losses.add(native.what, format!("{place}.{}", native.name));
        }
        return Ok(None);
    };
    let is_raw = matches!(kind, Kind::Raw(_));
    let mut own: Vec<&Native<'_>> = own_fields(native, place, losses).collect();
    // These were written already, and beside a block that travels whole there is no place for more.
    own.retain(|native| !matches!(&*native.name, "source" | "search_result"));
    if is_raw {
        own.drain(..).for_each(|native| losses.add(native.what, format!("{place}.{}", native.name)));
    }
    let native = own.into_iter();
    // Thoughts cannot be marked, and what travels whole has its mark in it.
    let takes_mark = match &kind {
        Kind::Thinking { .. } | Kind::Redacted { .. } => false,
        Kind::Raw(raw) => raw.contains("\"cache_control\""),
        _ => true,
    };
    if cache.is_some() && !takes_mark {
        losses.add(What::CacheControl, format!("{place}.cache_control"));
    }
    let cache = cache.as_ref().filter(|_| takes_mark);
    let native = native.map(|native| (&*native.name, &*native.raw)).collect();
    Ok(Some(Block { kind, cache: cache.map(|cache| &*cache.raw), native }))
}

fn own_fields<'r>(
    native: &'r [Native<'_>],
    place: Place<'_>,
    losses: &mut Losses,
) -> impl Iterator<Item = &'r Native<'r>> + use<'r> {
    if native.iter().any(|native| native.dialect != DIALECT) {
        neutral::own(native, DIALECT, &place.to_string(), losses).for_each(drop);
    }
    native.iter().filter(|native| native.dialect == DIALECT)
}

fn lower_kind<'r>(
    part: &'r Part<'_>,
    role: Role,
    side: Side,
    place: Place<'_>,
    losses: &mut Losses,
) -> Result<Option<Kind<'r>>, Invalid> {
    if !matches!(part.kind, PartKind::Thinking { .. })
        && part.state.signature.is_some()
        && side == Side::Provider
    {
        losses.add(What::Signature, format!("{place}.signature"));
    }
    // Pictures and documents are the user's to send, and a tool's.
    let is_user = matches!(role, Role::User | Role::Tool);
    let kind = match &part.kind {
        PartKind::Text { text, citations } => {
            // What is blank is refused, and says nothing.
            let is_blank = if side == Side::Provider { text.trim().is_empty() } else { text.is_empty() };
            (!is_blank).then(|| Kind::Text {
                text: Cow::Borrowed(text),
                citations: own_citations(citations, place, losses),
            })
        }
        PartKind::Image { source, detail } => {
            if detail.as_ref().is_some_and(|detail| *detail != "auto") {
                losses.add(What::PartDetail, format!("{place}.detail"));
            }
            let source = if is_user { image_source(source) } else { None };
            lost_if_none(source.map(Kind::Image), What::Image, place, losses)
        }
        PartKind::Document { source, name, context, cite } => {
            let whole = native_field(&part.state, "search_result").map(Kind::Raw);
            let blocks = native_field(&part.state, "source").map(Where::Raw);
            let document = || Kind::Document {
                source: Where::Raw(""),
                title: name.as_deref(),
                context: context.as_deref(),
                cite: *cite,
            };
            let lowered = whole.or_else(|| {
                let found = blocks.or_else(|| document_source(source)).filter(|_| is_user)?;
                let mut document = document();
                if let Kind::Document { source, .. } = &mut document {
                    *source = found;
                }
                Some(document)
            });
            lost_if_none(lowered, What::Document, place, losses)
        }
        PartKind::Audio { source: _, transcript } => {
            losses.add(What::Audio, place.to_string());
            transcript.as_deref().and_then(said)
        }
        PartKind::Video { source: _ } => lost_if_none(None, What::Video, place, losses),
        PartKind::ToolCall { id, name, arguments, is_custom } => {
            Some(call(id, name, arguments, *is_custom, place, losses)?)
        }
        PartKind::ToolResult { id, name: _, content, is_error, is_custom: _ } => {
            let mut blocks = Vec::with_capacity(content.len());
            for (index, part) in content.iter().enumerate() {
                blocks.extend(lower(part, Role::Tool, side, Place::Nested(&place, index), losses)?);
            }
            Some(Kind::ToolResult { id: tool_ids::fit(id, IDS), content: blocks, is_error: *is_error })
        }
        PartKind::Thinking { text, is_summary: _, is_redacted, id: _ } => {
            thinking(part, text, *is_redacted, side, place, losses)
        }
        PartKind::Refusal { text } => {
            if side == Side::Provider {
                losses.add(What::Refusal, place.to_string());
            }
            said(text)
        }
        PartKind::Native { dialect, kind: _, raw } => {
            let own = (*dialect == DIALECT).then_some(Kind::Raw(raw));
            lost_if_none(own, What::ProviderTool, place, losses)
        }
    };
    Ok(kind)
}

fn lost_if_none<'r>(
    kind: Option<Kind<'r>>,
    what: What,
    place: Place<'_>,
    losses: &mut Losses,
) -> Option<Kind<'r>> {
    if kind.is_none() {
        losses.add(what, place.to_string());
    }
    kind
}

fn said(text: &str) -> Option<Kind<'_>> {
    (!text.trim().is_empty()).then(|| Kind::Text { text: Cow::Borrowed(text), citations: Vec::new() })
}

fn native_field<'r>(state: &'r State<'_>, name: &str) -> Option<&'r str> {
    state
        .native
        .iter()
        .find(|native| native.dialect == DIALECT && native.name == name)
        .map(|native| &*native.raw)
}

/// Citations in this dialect's words. Those of others say where a page is, but not which of the texts that the provider
/// was given: nothing here could say that truthfully.
fn own_citations<'r>(citations: &'r [Citation<'_>], place: Place<'_>, losses: &mut Losses) -> Vec<&'r str> {
    let mut own = Vec::new();
    for (index, citation) in citations.iter().enumerate() {
        match own_citation(citation) {
            Some(raw) => own.push(raw),
            None => losses.add(What::Citation, format!("{place}.citations[{index}]")),
        }
    }
    own
}

pub(super) fn own_citation<'r>(citation: &'r Citation<'_>) -> Option<&'r str> {
    let Citation { url: _, title: _, quote: _, range: _, native } = citation;
    native.as_ref().filter(|native| native.dialect == DIALECT).map(|native| &*native.raw)
}

fn image_source<'r>(source: &'r Source<'_>) -> Option<Where<'r>> {
    Some(match source {
        Source::Data { media_type, data } => {
            let media_type = match &**media_type {
                "image/jpeg" | "image/jpg" => "image/jpeg",
                known @ ("image/png" | "image/gif" | "image/webp") => known,
                _ => return None,
            };
            Where::Base64 { media_type, data }
        }
        Source::Url { url, media_type: _ } => Where::Url(url),
        Source::File { id, dialect } if *dialect == DIALECT => Where::File(id),
        Source::File { .. } | Source::Text { .. } => return None,
    })
}

fn document_source<'r>(source: &'r Source<'_>) -> Option<Where<'r>> {
    const PDF: &str = "application/pdf";
    Some(match source {
        Source::Data { media_type, data } if media_type == PDF => Where::Base64 { media_type: PDF, data },
        Source::Data { media_type, data } if is_text(media_type) => {
            let bytes = STANDARD.decode(data.as_bytes()).ok()?;
            Where::Text(Cow::Owned(String::from_utf8(bytes).ok()?))
        }
        // What stands at an address can only be a PDF.
        Source::Url { url, media_type } if media_type.as_ref().is_none_or(|kind| kind == PDF) => {
            Where::Url(url)
        }
        Source::File { id, dialect } if *dialect == DIALECT => Where::File(id),
        Source::Text { text } => Where::Text(Cow::Borrowed(text)),
        Source::Data { .. } | Source::Url { .. } | Source::File { .. } => return None,
    })
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || matches!(media_type, "application/json" | "application/xml")
}

fn call<'r>(
    id: &'r str,
    name: &'r str,
    arguments: &'r str,
    is_custom: bool,
    place: Place<'_>,
    losses: &mut Losses,
) -> Result<Kind<'r>, Invalid> {
    let input = if is_custom {
        Cow::Owned(custom::arguments(arguments))
    } else if arguments.trim().is_empty() {
        Cow::Borrowed("{}")
    } else if json::parse(arguments.as_bytes()).is_ok_and(|node| matches!(node.value, Value::Object(_))) {
        Cow::Borrowed(arguments)
    } else {
        // Models sometimes write what is no object. A history that holds it must be sayable all the same.
        losses.add(What::ToolDetail, format!("{place}.arguments"));
        Cow::Owned(custom::arguments(arguments))
    };
    let name = fit_name(name, || format!("{place}.name"))?;
    Ok(Kind::ToolUse { id: tool_ids::fit(id, IDS), name, input })
}

/// A tool's name as this dialect allows it.
///
/// # Errors
/// When it could not be restored in the answer.
pub(super) fn fit_name<'r>(name: &'r str, at: impl FnOnce() -> String) -> Result<Cow<'r, str>, Invalid> {
    tool_ids::fit_name(name, MAX_NAME).ok_or_else(|| {
        Invalid::new(Reason::Value, at(), "This name of a tool is too long for Anthropic's Messages API.")
    })
}

fn thinking<'r>(
    part: &'r Part<'_>,
    text: &'r Text<'_>,
    is_redacted: bool,
    side: Side,
    place: Place<'_>,
    losses: &mut Losses,
) -> Option<Kind<'r>> {
    let signature = part.state.signature.as_ref();
    let packed = match side {
        Side::Client => Some(signature.map_or(Cow::Borrowed(""), |signature| signature.pack(DIALECT))),
        Side::Provider => signature.and_then(|signature| signature.for_provider(DIALECT)).map(Cow::Borrowed),
    };
    let Some(packed) = packed else {
        // Unsigned, or signed by another: it would be refused, and a signature cannot be made.
        losses.add(What::ReasoningBlock, place.to_string());
        return None;
    };
    // A client takes redacted thoughts of another provider for the signature of what stands before them.
    let is_own = signature.is_some_and(|signature| signature.by == DIALECT);
    Some(if is_redacted && is_own {
        Kind::Redacted { data: packed }
    } else {
        Kind::Thinking { text, signature: packed }
    })
}

impl Block<'_> {
    /// Writes it.
    pub(super) fn write(&self, array: &mut Array<'_>) {
        if let Kind::Raw(raw) = self.kind {
            array.raw(raw);
        } else {
            array.object(|object| self.write_fields(object));
        }
    }

    fn write_fields(&self, object: &mut Object<'_>) {
        match &self.kind {
            Kind::Text { text, citations } => {
                object.text("type", "text");
                object.text("text", text);
                if !citations.is_empty() {
                    object.array("citations", |array| citations.iter().for_each(|raw| array.raw(raw)));
                }
            }
            Kind::Image(source) => {
                object.text("type", "image");
                source.write(object);
            }
            Kind::Document { source, title, context, cite } => {
                object.text("type", "document");
                source.write(object);
                object.some_text("title", *title);
                object.some_text("context", *context);
                if let Some(cite) = cite {
                    object.object("citations", |object| object.boolean("enabled", *cite));
                }
            }
            Kind::Thinking { text, signature } => {
                object.text("type", "thinking");
                object.text("thinking", text);
                object.text("signature", signature);
            }
            Kind::Redacted { data } => {
                object.text("type", "redacted_thinking");
                object.text("data", data);
            }
            Kind::ToolUse { id, name, input } => {
                object.text("type", "tool_use");
                object.text("id", id);
                object.text("name", name);
                object.raw("input", input);
            }
            Kind::ToolResult { id, content, is_error } => {
                object.text("type", "tool_result");
                object.text("tool_use_id", id);
                write_content(object, content);
                object.some_boolean("is_error", *is_error);
            }
            Kind::Raw(_) => {}
        }
        self.native.iter().for_each(|(name, raw)| object.raw(name, raw));
        object.some_raw("cache_control", self.cache);
    }
}

/// The field `content`: a string where one says it all, and nothing where there is none.
pub(super) fn write_content(object: &mut Object<'_>, blocks: &[Block<'_>]) {
    match blocks {
        [] => {}
        [sole] if sole.sole_text().is_some() => object.some_text("content", sole.sole_text()),
        blocks => object.array("content", |array| blocks.iter().for_each(|block| block.write(array))),
    }
}

impl Where<'_> {
    fn write(&self, object: &mut Object<'_>) {
        if let Self::Raw(raw) = self {
            return object.raw("source", raw);
        }
        object.object("source", |object| match self {
            Self::Base64 { media_type, data } => {
                object.text("type", "base64");
                object.text("media_type", media_type);
                object.text("data", data);
            }
            Self::Url(url) => {
                object.text("type", "url");
                object.text("url", url);
            }
            Self::File(id) => {
                object.text("type", "file");
                object.text("file_id", id);
            }
            Self::Text(text) => {
                object.text("type", "text");
                object.text("media_type", "text/plain");
                object.text("data", text);
            }
            Self::Raw(_) => {}
        });
    }
}
