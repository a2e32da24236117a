//! Reads blocks of content, in requests and in replies.

use std::borrow::Cow;

use super::{DIALECT, Side};
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value};
use crate::loss::What;
use crate::neutral::{CacheControl, Citation, Native, Part, PartKind, Signature, Source, State, Text};
use crate::tool_ids;

/// Blocks of which only this dialect knows the meaning. They travel whole.
const OWN_BLOCKS: &[&str] = &[
    "advisor_tool_result",
    "bash_code_execution_tool_result",
    "browser_state",
    "code_execution_tool_result",
    "compaction",
    "connector_text",
    "container_upload",
    "fallback",
    "mcp_tool_listing",
    "mcp_tool_result",
    "mcp_tool_use",
    "server_tool_use",
    "text_editor_code_execution_tool_result",
    "tool_addition",
    "tool_reference",
    "tool_removal",
    "tool_search_tool_result",
    "web_fetch_tool_result",
    "web_search_tool_result",
];

/// A string, which is one text, or an array of blocks.
pub(super) fn read_content<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    side: Side,
    reader: &mut Reader,
) -> Result<Vec<Part<'a>>, Invalid> {
    if let Value::Text(text) = node.value {
        return Ok(vec![Part::text(text)]);
    }
    let mut parts: Vec<Part<'a>> = Vec::new();
    if !matches!(node.value, Value::Array(_)) {
        return Err(path.refused("This must be a string or an array of blocks."));
    }
    for mut part in reader.array(node, path, |node, path, reader| read_block(node, path, side, reader))? {
        if let PartKind::Thinking { is_redacted, .. } = &mut part.kind
            && *is_redacted
            && part.state.signature.as_ref().is_some_and(|signature| signature.by != DIALECT)
        {
            // Another provider's signature of the part before, on its way home.
            match parts.last_mut().filter(|before| before.state.signature.is_none()) {
                Some(before) => {
                    before.state.signature = part.state.signature;
                    continue;
                }
                None => *is_redacted = false,
            }
        }
        parts.push(part);
    }
    Ok(parts)
}

/// A block.
pub(super) fn read_block<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    side: Side,
    reader: &mut Reader,
) -> Result<Part<'a>, Invalid> {
    let raw = node.raw;
    reader.object(node, path, |fields, reader| {
        let kind = fields.need_text("type")?;
        let part = match &*kind {
            "text" => read_text(fields, reader)?,
            "image" => read_image(fields, reader)?,
            "document" => read_document(fields, raw, reader)?,
            "search_result" => read_search_result(fields, raw)?,
            "thinking" => read_thinking(fields, side)?,
            "redacted_thinking" => read_redacted(fields, side)?,
            "tool_use" => read_tool_use(fields, side)?,
            "tool_result" => read_tool_result(fields, side, reader)?,
            // A provider may be newer than this; what a client sends must mean something.
            known if side == Side::Provider || OWN_BLOCKS.contains(&known) => whole(fields, kind, raw),
            unknown => {
                let message = format!("There is no block of the type {unknown:?}.");
                return Err(path.field("type").refused(message));
            }
        };
        Ok(part)
    })
}

/// A block in its own words.
fn whole<'a>(fields: &mut Fields<'a, '_>, kind: Text<'a>, raw: &'a str) -> Part<'a> {
    let cache = read_cache(fields);
    fields.take_rest();
    let kind = PartKind::Native { dialect: DIALECT, kind, raw: Cow::Borrowed(raw) };
    Part { kind, state: State { cache, ..State::default() } }
}

pub(super) fn read_cache<'a>(fields: &mut Fields<'a, '_>) -> Option<CacheControl<'a>> {
    fields.raw("cache_control").map(|raw| CacheControl { raw: Cow::Borrowed(raw) })
}

fn marked<'a>(kind: PartKind<'a>, fields: &mut Fields<'a, '_>) -> Part<'a> {
    Part { kind, state: State { cache: read_cache(fields), ..State::default() } }
}

fn read_text<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    let text = fields.need_text("text")?;
    let citations = match fields.take("citations") {
        Some(node) => reader.array(node, &fields.path().field("citations"), read_citation)?,
        None => Vec::new(),
    };
    Ok(marked(PartKind::Text { text, citations }, fields))
}

/// A citation. What a provider can check of it (indexes, what is encrypted) stays in its own words.
pub(super) fn read_citation<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Citation<'a>, Invalid> {
    let raw = node.raw;
    reader.object(node, path, |fields, _| {
        let source = fields.text("source")?.filter(|source| source.starts_with("http"));
        let citation = Citation {
            url: fields.text("url")?.or(source),
            title: fields.text("title")?.or(fields.text("document_title")?),
            quote: fields.text("cited_text")?,
            range: None,
            native: Some(Native::new(DIALECT, What::Citation, "citation", raw)),
        };
        fields.take_rest();
        Ok(citation)
    })
}

fn read_image<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    let node = fields.need("source")?;
    let source = read_source(node, &fields.path().field("source"), reader)?;
    let mut part = marked(PartKind::Image { source, detail: None }, fields);
    keep(fields, &mut part, &["transformations"], What::PartDetail);
    Ok(part)
}

/// Takes fields that only this dialect knows.
fn keep<'a>(fields: &mut Fields<'a, '_>, part: &mut Part<'a>, names: &[&'static str], what: What) {
    for name in names {
        if let Some(raw) = fields.raw(name) {
            part.state.native.push(Native::new(DIALECT, what, *name, raw));
        }
    }
}

fn read_source<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Source<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        let kind = fields.need_text("type")?;
        Ok(match &*kind {
            "base64" => {
                Source::Data { media_type: fields.need_text("media_type")?, data: fields.need_text("data")? }
            }
            "url" => Source::Url { url: fields.need_text("url")?, media_type: None },
            "file" => Source::File { id: fields.need_text("file_id")?, dialect: DIALECT },
            "text" => {
                // It is text/plain, and cannot be anything else.
                fields.text("media_type")?;
                Source::Text { text: fields.need_text("data")? }
            }
            unknown => {
                let message = format!("There is no source of the type {unknown:?}.");
                return Err(path.field("type").refused(message));
            }
        })
    })
}

fn read_document<'a>(
    fields: &mut Fields<'a, '_>,
    raw: &'a str,
    reader: &mut Reader,
) -> Result<Part<'a>, Invalid> {
    let node = fields.need("source")?;
    let path = fields.path().field("source");
    let mut blocks = None;
    let source = if node.get("type").and_then(Node::as_text) == Some("content") {
        let content = node.get("content").ok_or_else(|| path.misses("content"))?;
        let Some(text) = joined_text(content) else {
            return Ok(whole(fields, Cow::Borrowed("document"), raw));
        };
        blocks = Some(Native::new(DIALECT, What::PartDetail, "source", node.raw));
        Source::Text { text: Cow::Owned(text) }
    } else {
        read_source(node, &path, reader)?
    };
    let document = PartKind::Document {
        source,
        name: fields.text("title")?,
        context: fields.text("context")?,
        cite: read_cite(fields)?,
    };
    let mut part = marked(document, fields);
    part.state.native.extend(blocks);
    Ok(part)
}

fn read_cite(fields: &mut Fields<'_, '_>) -> Result<Option<bool>, Invalid> {
    let path = fields.path().field("citations");
    let Some(node) = fields.take("citations") else { return Ok(None) };
    match node.get("enabled").map(|node| &node.value) {
        Some(Value::Bool(enabled)) => Ok(Some(*enabled)),
        None => Ok(None),
        Some(_) => Err(path.field("enabled").refused("This must be true or false.")),
    }
}

/// The texts of blocks, if they are all texts.
fn joined_text(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.to_string()),
        Value::Array(blocks) => {
            let texts: Option<Vec<&str>> = blocks
                .iter()
                .map(|block| {
                    let is_text = block.get("type").and_then(Node::as_text) == Some("text");
                    block.get("text").and_then(Node::as_text).filter(|_| is_text)
                })
                .collect();
            texts.map(|texts| texts.join("\n\n"))
        }
        _ => None,
    }
}

/// What a search of the client's found. To others it is a document with a title and an address.
fn read_search_result<'a>(fields: &mut Fields<'a, '_>, raw: &'a str) -> Result<Part<'a>, Invalid> {
    let content = fields.need("content")?;
    let path = fields.path().field("content");
    let text = joined_text(&content).ok_or_else(|| path.refused("This must be an array of texts."))?;
    let document = PartKind::Document {
        source: Source::Text { text: Cow::Owned(text) },
        name: Some(fields.need_text("title")?),
        context: Some(fields.need_text("source")?),
        cite: read_cite(fields)?,
    };
    let mut part = marked(document, fields);
    part.state.native.push(Native::new(DIALECT, What::PartDetail, "search_result", raw));
    Ok(part)
}

/// Whose a signature is.
fn read_signature(field: Text<'_>, side: Side) -> Option<Signature<'_>> {
    match side {
        _ if field.is_empty() => None,
        Side::Client => Some(Signature::unpack(field, DIALECT)),
        Side::Provider => Some(Signature { by: DIALECT, value: field }),
    }
}

fn read_thinking<'a>(fields: &mut Fields<'a, '_>, side: Side) -> Result<Part<'a>, Invalid> {
    let text = fields.need_text("thinking")?;
    let signature = fields.text("signature")?.and_then(|field| read_signature(field, side));
    let kind = PartKind::Thinking { text, is_summary: false, is_redacted: false, id: None };
    Ok(Part { kind, state: State { signature, ..State::default() } })
}

fn read_redacted<'a>(fields: &mut Fields<'a, '_>, side: Side) -> Result<Part<'a>, Invalid> {
    let signature = read_signature(fields.need_text("data")?, side);
    let kind = PartKind::Thinking { text: Cow::Borrowed(""), is_summary: false, is_redacted: true, id: None };
    Ok(Part { kind, state: State { signature, ..State::default() } })
}

/// Fields of a call that only this dialect knows. That the model calls by itself is what everybody takes it for.
pub(super) fn read_call_details<'a>(fields: &mut Fields<'a, '_>) -> Vec<Native<'a>> {
    let caller =
        fields.take("caller").filter(|node| node.get("type").and_then(Node::as_text) != Some("direct"));
    let caller = caller.map(|node| ("caller", node.raw));
    let toolset = fields.raw("toolset_name").map(|raw| ("toolset_name", raw));
    let both = caller.into_iter().chain(toolset);
    both.map(|(name, raw)| Native::new(DIALECT, What::ToolDetail, name, raw)).collect()
}

fn read_tool_use<'a>(fields: &mut Fields<'a, '_>, side: Side) -> Result<Part<'a>, Invalid> {
    // Who reads the whole answer makes one where a server has none.
    let id = match (fields.text("id")?, side) {
        (Some(id), _) => tool_ids::restore(id),
        (None, Side::Provider) => Cow::Borrowed(""),
        (None, Side::Client) => return Err(fields.path().misses("id")),
    };
    let name = tool_ids::restore(fields.need_text("name")?);
    let path = fields.path().field("input");
    let input = fields.need("input")?;
    let arguments = match &input.value {
        Value::Object(_) => Cow::Borrowed(input.raw),
        // Some servers write the object's text.
        Value::Text(text) if side == Side::Provider => text.clone(),
        other => {
            let message = format!("This must be an object, and is {}.", other.kind());
            return Err(Invalid::new(crate::invalid::Reason::Type, path.to_string(), message));
        }
    };
    let mut part = marked(PartKind::ToolCall { id, name, arguments, is_custom: false }, fields);
    part.state.native = read_call_details(fields);
    Ok(part)
}

fn read_tool_result<'a>(
    fields: &mut Fields<'a, '_>,
    side: Side,
    reader: &mut Reader,
) -> Result<Part<'a>, Invalid> {
    let id = tool_ids::restore(fields.need_text("tool_use_id")?);
    let content = match fields.take("content") {
        Some(node) => read_content(node, &fields.path().field("content"), side, reader)?,
        None => Vec::new(),
    };
    let is_error = fields.boolean("is_error")?;
    let result = PartKind::ToolResult { id, name: None, content, is_error, is_custom: false };
    let mut part = marked(result, fields);
    keep(fields, &mut part, &["toolset_name"], What::ToolDetail);
    Ok(part)
}

/// Gives a call that has no identity one of its place. Answers have different names, so that no other call of the
/// conversation has it.
pub(super) fn name_call(part: &mut Part<'_>, message: &str, index: usize) {
    if let PartKind::ToolCall { id, .. } = &mut part.kind
        && id.is_empty()
    {
        *id = Cow::Owned(format!("toolu_{}_{index}", message.trim_start_matches("msg_")));
    }
}
