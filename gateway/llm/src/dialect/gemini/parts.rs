//! Parts of answers, read alike from whole replies and from pieces of streams, and written alike.

use std::borrow::Cow;

use crate::dialect::Dialect;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Object, Path, Reader, Value, parse};
use crate::loss::{Losses, What};
use crate::neutral::{self, Native, Part, PartKind, Signature, Source, State, Text};

/// Fields of a part that only this dialect knows.
const OWN_FIELDS: [(&str, &str, What); 3] = [
    ("videoMetadata", "video_metadata", What::PartDetail),
    ("mediaResolution", "media_resolution", What::PartDetail),
    ("partMetadata", "part_metadata", What::PartDetail),
];

/// Makes identities for calls, which this dialect's models rarely give: of the reply's, and of the call's number in it.
#[derive(Debug, Default)]
pub(super) struct Ids {
    reply: String,
    calls: usize,
}

impl Ids {
    pub(super) fn of(reply: &str) -> Self {
        Self { reply: reply.to_owned(), calls: 0 }
    }

    pub(super) fn next(&mut self) -> String {
        let number = self.calls;
        self.calls += 1;
        if self.reply.is_empty() { format!("call_{number}") } else { format!("call_{}_{number}", self.reply) }
    }
}

/// Reads a part of an answer. `None`: an empty one, as streams end with.
pub(super) fn read_part<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    ids: &mut Ids,
    reader: &mut Reader,
) -> Result<Option<Part<'a>>, Invalid> {
    let raw = node.raw;
    reader.object(node, path, |fields, reader| {
        let signature = either(fields, "thoughtSignature", "thought_signature")
            .map(|node| node.into_text(&path.field("thoughtSignature")))
            .transpose()?
            .map(|value| Signature::unpack(value, Dialect::Gemini));
        let native = OWN_FIELDS.iter().filter_map(|(camel, snake, what)| {
            either(fields, camel, snake).map(|node| Native::new(Dialect::Gemini, *what, *camel, node.raw))
        });
        let state = State { cache: None, signature, native: native.collect() };
        let is_thought = fields.boolean("thought")? == Some(true);
        let kind = match read_kind(fields, is_thought, raw, ids, reader)? {
            Some(kind) => kind,
            // Gemini 3 sends a signature alone, at the end of an answer: it belongs to the text before it.
            None if state.signature.is_some() => {
                PartKind::Text { text: Cow::Borrowed(""), citations: Vec::new() }
            }
            None => return Ok(None),
        };
        Ok(Some(Part { kind, state }))
    })
}

fn read_kind<'a>(
    fields: &mut Fields<'a, '_>,
    is_thought: bool,
    raw: &'a str,
    ids: &mut Ids,
    reader: &mut Reader,
) -> Result<Option<PartKind<'a>>, Invalid> {
    let path = fields.path();
    if let Some(text) = fields.text("text")? {
        return Ok(Some(if is_thought {
            PartKind::Thinking { text, is_summary: true, is_redacted: false, id: None }
        } else {
            PartKind::Text { text, citations: Vec::new() }
        }));
    }
    if let Some(call) = either(fields, "functionCall", "function_call") {
        let path = path.field("functionCall");
        if call.get("partialArgs").or_else(|| call.get("partial_args")).is_some() {
            // Pieces by JSONPath, which only Vertex sends, and only when it is asked to. We never do.
            reader.loses(What::ToolDetail, &path.field("partialArgs"));
        }
        return read_call(&call, &path, ids).map(Some);
    }
    if let Some(data) = either(fields, "inlineData", "inline_data") {
        return read_data(&data, &path.field("inlineData")).map(Some);
    }
    if let Some(file) = either(fields, "fileData", "file_data") {
        return read_file(&file, &path.field("fileData")).map(Some);
    }
    // Code that the provider ran, and whatever comes with the next model: whole, in its own words.
    let rest = fields.take_rest();
    Ok(rest.into_iter().next().map(|(kind, _)| PartKind::Native {
        dialect: Dialect::Gemini,
        kind,
        raw: raw.into(),
    }))
}

pub(super) fn either<'a>(fields: &mut Fields<'a, '_>, camel: &str, snake: &str) -> Option<Node<'a>> {
    fields.take_either(camel, snake)
}

/// The text of a field, whoever it belongs to after that.
fn own_text<'a>(node: &Node<'a>, camel: &str, snake: &str) -> Option<Text<'a>> {
    match &node.get(camel).or_else(|| node.get(snake))?.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn read_call<'a>(call: &Node<'a>, path: &Path<'_>, ids: &mut Ids) -> Result<PartKind<'a>, Invalid> {
    let name = own_text(call, "name", "name").ok_or_else(|| path.misses("name"))?;
    let made = ids.next();
    let id = own_text(call, "id", "id").filter(|id| !id.is_empty()).unwrap_or(Cow::Owned(made));
    let arguments = match call.get("args") {
        Some(node) if node.value != Value::Null => Cow::Borrowed(node.raw),
        _ => Cow::Borrowed("{}"),
    };
    Ok(PartKind::ToolCall { id, name, arguments, is_custom: false })
}

fn read_data<'a>(node: &Node<'a>, path: &Path<'_>) -> Result<PartKind<'a>, Invalid> {
    let media_type = own_text(node, "mimeType", "mime_type").ok_or_else(|| path.misses("mimeType"))?;
    let data = own_text(node, "data", "data").ok_or_else(|| path.misses("data"))?;
    let name = own_text(node, "displayName", "display_name");
    Ok(of_media_type(Source::Data { media_type: media_type.clone(), data }, &media_type, name))
}

fn read_file<'a>(node: &Node<'a>, path: &Path<'_>) -> Result<PartKind<'a>, Invalid> {
    let url = own_text(node, "fileUri", "file_uri").ok_or_else(|| path.misses("fileUri"))?;
    let media_type = own_text(node, "mimeType", "mime_type");
    let kind = media_type.clone().unwrap_or_default();
    // What was uploaded to Google is nothing to anybody else.
    let is_own = url.starts_with("gs://") || url.starts_with("https://generativelanguage.googleapis.com/");
    let source = if is_own && media_type.is_none() {
        Source::File { id: url, dialect: Dialect::Gemini }
    } else {
        Source::Url { url, media_type }
    };
    Ok(of_media_type(source, &kind, own_text(node, "displayName", "display_name")))
}

fn of_media_type<'a>(source: Source<'a>, media_type: &str, name: Option<Text<'a>>) -> PartKind<'a> {
    match media_type.split('/').next().unwrap_or_default() {
        "image" => PartKind::Image { source, detail: None },
        "audio" => PartKind::Audio { source, transcript: None },
        "video" => PartKind::Video { source },
        _ => PartKind::Document { source, name, context: None, cite: None },
    }
}

/// Writes a part of an answer. Returns whether there was anything to write.
pub(super) fn write_part(part: &Part<'_>, at: &str, array: &mut crate::json::Array<'_>, losses: &mut Losses) {
    let Part { kind, state } = part;
    match kind {
        PartKind::Text { text, citations } => {
            if !citations.is_empty() {
                losses.add(What::Citation, at);
            }
            array.object(|object| {
                object.text("text", text);
                write_state(state, at, object, losses);
            });
        }
        PartKind::Refusal { text } => {
            losses.add(What::Refusal, at);
            array.object(|object| object.text("text", text));
        }
        PartKind::Thinking { text, is_summary: _, is_redacted, id: _ } => {
            if *is_redacted && state.signature.is_none() {
                return losses.add(What::ReasoningBlock, at);
            }
            array.object(|object| {
                object.text("text", text);
                object.boolean("thought", true);
                write_state(state, at, object, losses);
            });
        }
        PartKind::ToolCall { id, name, arguments, is_custom } => array.object(|object| {
            object.object("functionCall", |object| {
                object.text("id", id);
                object.text("name", name);
                write_arguments(arguments, *is_custom, at, object, losses);
            });
            write_state(state, at, object, losses);
        }),
        PartKind::Image { source, detail: _ }
        | PartKind::Audio { source, transcript: _ }
        | PartKind::Video { source }
        | PartKind::Document { source, name: _, context: _, cite: _ } => match source {
            Source::File { dialect, .. } if *dialect != Dialect::Gemini => losses.add(What::Document, at),
            _ => write_source(source, Some(state), at, array, losses),
        },
        PartKind::Native { dialect: Dialect::Gemini, kind: _, raw } => array.raw(raw),
        PartKind::Native { .. } => losses.add(What::ProviderTool, at),
        PartKind::ToolResult { .. } => losses.add(What::UnknownPart, at),
    }
}

/// Writes a file of any kind, and what belongs to it.
pub(super) fn write_source(
    source: &Source<'_>,
    state: Option<&State<'_>>,
    at: &str,
    array: &mut crate::json::Array<'_>,
    losses: &mut Losses,
) {
    array.object(|object| {
        match source {
            Source::Data { media_type, data } => object.object("inlineData", |object| {
                object.text("mimeType", media_type);
                object.text("data", data);
            }),
            Source::Url { url, media_type } => object.object("fileData", |object| {
                object.some_text("mimeType", media_type.as_ref());
                object.text("fileUri", url);
            }),
            Source::Text { text } => object.text("text", text),
            Source::File { id, dialect: _ } => object.object("fileData", |object| object.text("fileUri", id)),
        }
        if let Some(state) = state {
            write_state(state, at, object, losses);
        }
    });
}

/// Signature and what else only this dialect knows.
pub(super) fn write_state(state: &State<'_>, at: &str, object: &mut Object<'_>, losses: &mut Losses) {
    let State { cache, signature, native } = state;
    if cache.is_some() {
        losses.add(What::CacheControl, at);
    }
    if let Some(signature) = signature {
        object.text("thoughtSignature", &signature.pack(Dialect::Gemini));
    }
    for native in neutral::own(native, Dialect::Gemini, at, losses) {
        object.raw(&native.name, &native.raw);
    }
}

/// `args`, which must be an object here. What is none stands in one, under the name that tools for text use.
pub(super) fn write_arguments(
    text: &str,
    is_custom: bool,
    at: &str,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    if is_custom {
        return object.raw("args", &crate::custom::arguments(text));
    }
    if text.trim().is_empty() {
        return object.raw("args", "{}");
    }
    match parse(text.as_bytes()) {
        Ok(Node { value: Value::Object(_), raw }) => object.raw("args", raw),
        _ => {
            losses.add(What::ToolDetail, at);
            object.raw("args", &crate::custom::arguments(text));
        }
    }
}
