//! Reads messages, in requests and in replies.

use std::borrow::Cow;
use std::collections::HashMap;

use super::reasoning;
use super::words::{
    Known, SELF, citation, made_id, media_type_of, natives, sniff_sound, source, type_of_file, unknown,
};
use crate::dialect::Dialect;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value};
use crate::loss::What;
use crate::neutral::{CacheControl, Native, Part, PartKind, Role, Signature, Source, State, Text, Turn};
use crate::tool_ids::restore;

/// What a part may have beside its content.
const OF_PARTS: Known = &[("prompt_cache_breakpoint", What::CacheControl)];

/// What an assistant's message may have that only some servers know.
const OF_ASSISTANT: Known = &[
    ("prefix", What::UnknownField),
    ("partial", What::UnknownField),
    ("executed_tools", What::ProviderTool),
    ("provider_specific_fields", What::UnknownField),
];

/// The conversation so far.
#[derive(Debug, Default)]
struct Conversation<'a> {
    /// By identity, whether the tool takes text.
    calls: HashMap<Text<'a>, bool>,
    /// Calls of functions as they were before tools, which have no identity: name, and the one that was made.
    legacy: Vec<(Text<'a>, Text<'a>)>,
}

/// Reads `messages`.
pub(super) fn read<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Vec<Turn<'a>>, Invalid> {
    let mut conversation = Conversation::default();
    let mut index = 0;
    reader.array(node, path, |node, path, reader| {
        let turn = message(node, path, index, &mut conversation, reader);
        index += 1;
        turn
    })
}

fn message<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    index: usize,
    conversation: &mut Conversation<'a>,
    reader: &mut Reader,
) -> Result<Turn<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let mut turn = match &*fields.need_text("role")? {
            "system" => said(Role::System, fields, reader),
            "developer" => said(Role::Developer, fields, reader),
            "user" => said(Role::User, fields, reader),
            "assistant" => assistant(fields, index, conversation, reader),
            "tool" => tool(fields, conversation, reader),
            "function" => function(fields, conversation, reader),
            _ => {
                let known = "This must be system, developer, user, assistant, tool or function.";
                return Err(path.field("role").refused(known));
            }
        }?;
        turn.native.extend(unknown(fields));
        Ok(turn)
    })
}

fn said<'a>(role: Role, fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Turn<'a>, Invalid> {
    let path = fields.path();
    let name = fields.text("name")?;
    let cache = mark(fields);
    let Some(node) = fields.take("content") else { return Err(path.misses("content")) };
    let mut parts = content(node, &path.field("content"), reader)?;
    put(cache, &mut parts);
    Ok(Turn { role, name, parts, native: Vec::new() })
}

/// A cache mark on a message (LiteLLM) is one on its last part.
fn put<'a>(cache: Option<CacheControl<'a>>, parts: &mut [Part<'a>]) {
    if let Some(last) = parts.last_mut()
        && let Some(cache) = cache
    {
        last.state.cache.get_or_insert(cache);
    }
}

fn mark<'a>(fields: &mut Fields<'a, '_>) -> Option<CacheControl<'a>> {
    fields.raw("cache_control").map(|raw| CacheControl { raw: Cow::Borrowed(raw) })
}

fn assistant<'a>(
    fields: &mut Fields<'a, '_>,
    index: usize,
    conversation: &mut Conversation<'a>,
    reader: &mut Reader,
) -> Result<Turn<'a>, Invalid> {
    let name = fields.text("name")?;
    let cache = mark(fields);
    // Made identities must be apart from each other's, and there is no name of a reply here.
    let made = format!("message{index}");
    let Answer { mut parts, legacy, native } = answer(fields, &made, reader)?;
    for part in &parts {
        if let PartKind::ToolCall { id, is_custom, .. } = &part.kind {
            conversation.calls.insert(id.clone(), *is_custom);
        }
    }
    conversation.legacy.extend(legacy);
    put(cache, &mut parts);
    Ok(Turn { role: Role::Assistant, name, parts, native })
}

fn tool<'a>(
    fields: &mut Fields<'a, '_>,
    conversation: &mut Conversation<'a>,
    reader: &mut Reader,
) -> Result<Turn<'a>, Invalid> {
    let path = fields.path();
    let id = restore(fields.need_text("tool_call_id")?);
    let Some(&is_custom) = conversation.calls.get(&id) else {
        let message = "No message before this one has a tool call with this id.";
        return Err(path.field("tool_call_id").refused(message));
    };
    let name = fields.text("name")?;
    let cache = mark(fields);
    let mut content = match fields.take("content") {
        Some(node) => self::content(node, &path.field("content"), reader)?,
        None => Vec::new(),
    };
    put(cache, &mut content);
    let kind = PartKind::ToolResult { id, name, content, is_error: None, is_custom };
    Ok(Turn::new(Role::Tool, vec![Part::new(kind)]))
}

/// The answer of a function, as it was before tools: it names the function and not the call.
fn function<'a>(
    fields: &mut Fields<'a, '_>,
    conversation: &mut Conversation<'a>,
    reader: &mut Reader,
) -> Result<Turn<'a>, Invalid> {
    let path = fields.path();
    let name = fields.need_text("name")?;
    let Some(at) = conversation.legacy.iter().position(|(called, _)| *called == name) else {
        return Err(path.field("name").refused("No message before this one calls this function."));
    };
    let (_, id) = conversation.legacy.remove(at);
    let content = match fields.take("content") {
        Some(node) => self::content(node, &path.field("content"), reader)?,
        None => Vec::new(),
    };
    let kind = PartKind::ToolResult { id, name: Some(name), content, is_error: None, is_custom: false };
    Ok(Turn::new(Role::Tool, vec![Part::new(kind)]))
}

/// Reads `content`: a text, or parts.
pub(super) fn content<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Vec<Part<'a>>, Invalid> {
    match node.value {
        Value::Text(text) => Ok(vec![Part::text(text)]),
        Value::Array(_) => reader.array(node, path, part),
        _ => Err(path.refused("This must be a string or an array of parts.")),
    }
}

fn part<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    let raw = node.raw;
    // Together with the type, which is taken where it is known.
    let kind = match node.get("type") {
        Some(Node { value: Value::Text(kind), .. }) => kind.clone().into_owned(),
        Some(_) => return Err(path.field("type").refused("This must be a string.")),
        None => return Err(path.misses("type")),
    };
    let known =
        ["text", "image_url", "input_audio", "file", "refusal", "video_url", "document_url", "thinking"];
    if !known.contains(&&*kind) {
        if kind.is_empty() {
            return Err(path.field("type").refused("A part needs a type."));
        }
        let kind = PartKind::Native { dialect: SELF, kind: Cow::Owned(kind), raw: Cow::Borrowed(raw) };
        return Ok(Part::new(kind));
    }
    reader.object(node, path, |fields, reader| {
        fields.need_text("type")?;
        let cache = mark(fields);
        let native = natives(fields, OF_PARTS);
        let mut signature = None;
        let kind = match &*kind {
            "text" => PartKind::Text { text: fields.need_text("text")?, citations: Vec::new() },
            "refusal" => PartKind::Refusal { text: fields.need_text("refusal")? },
            "image_url" => image(fields, reader)?,
            "input_audio" => audio(fields, reader)?,
            "file" => file(fields, reader)?,
            "video_url" => PartKind::Video { source: address(fields, "video_url", reader)?.0 },
            "document_url" => {
                let name = fields.text("document_name")?;
                let source = address(fields, "document_url", reader)?.0;
                PartKind::Document { source, name, context: None, cite: None }
            }
            _ => {
                signature = fields.text("signature")?.map(|value| Signature { by: SELF, value });
                // Mistral's, which says whether it is complete; here it always is.
                fields.boolean("closed")?;
                let text = thought(fields.need("thinking")?, &path.field("thinking"), reader)?;
                PartKind::Thinking { text, is_summary: false, is_redacted: false, id: None }
            }
        };
        Ok(Part { kind, state: State { cache, signature, native } })
    })
}

/// Mistral's thoughts are parts again.
fn thought<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Text<'a>, Invalid> {
    if let Value::Text(text) = node.value {
        return Ok(text);
    }
    let mut pieces = reader.array(node, path, |node, path, reader| {
        reader.object(node, path, |fields, _| {
            fields.text("type")?;
            fields.text("text")
        })
    })?;
    if pieces.len() == 1
        && let Some(Some(text)) = pieces.pop()
    {
        return Ok(text);
    }
    Ok(Cow::Owned(pieces.into_iter().flatten().collect()))
}

/// An address in an object, or bare, as some servers take it; with the detail beside it.
fn address<'a>(
    fields: &mut Fields<'a, '_>,
    name: &str,
    reader: &mut Reader,
) -> Result<(Source<'a>, Option<Text<'a>>), Invalid> {
    let path = fields.path().field(name);
    let node = fields.need(name)?;
    if let Value::Text(url) = node.value {
        return Ok((source(url, &path)?, None));
    }
    reader.object(node, &path, |fields, _| {
        let url = fields.need_text("url")?;
        Ok((source(url, &path.field("url"))?, fields.text("detail")?))
    })
}

fn image<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<PartKind<'a>, Invalid> {
    let path = fields.path().field("image_url").field("url").to_string();
    let (source, detail) = address(fields, "image_url", reader)?;
    if let Source::Data { media_type, .. } = &source
        && !media_type.starts_with("image/")
    {
        return Err(Invalid::new(crate::invalid::Reason::Value, path, "This data is no image's."));
    }
    Ok(PartKind::Image { source, detail })
}

fn audio<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<PartKind<'a>, Invalid> {
    let path = fields.path().field("input_audio");
    let node = fields.need("input_audio")?;
    if let Value::Text(text) = node.value {
        // Mistral's: base64, or where the sound is.
        let source = match source(text, &path)? {
            Source::Url { url, .. } if !url.starts_with("https://") && !url.starts_with("http://") => {
                Source::Data { media_type: Cow::Borrowed(sniff_sound(&url)), data: url }
            }
            other => other,
        };
        return Ok(PartKind::Audio { source, transcript: None });
    }
    reader.object(node, &path, |fields, _| {
        let data = fields.need_text("data")?;
        let media_type = media_type_of(fields.need_text("format")?);
        Ok(PartKind::Audio { source: Source::Data { media_type, data }, transcript: None })
    })
}

fn file<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<PartKind<'a>, Invalid> {
    let path = fields.path().field("file");
    reader.object(fields.need("file")?, &path, |fields, _| {
        let name = fields.text("filename")?;
        let at = path.field("file_data");
        let source = match (fields.text("file_data")?, fields.text("file_id")?) {
            (Some(_), Some(_)) => return Err(path.refused("A file has file_data or file_id, and not both.")),
            (Some(data), _) if data.starts_with("data:") => source(data, &at)?,
            (Some(url), _) if url.starts_with("https://") || url.starts_with("http://") => {
                Source::Url { url, media_type: None }
            }
            (Some(data), _) => {
                Source::Data { media_type: Cow::Borrowed(type_of_file(name.as_deref())), data }
            }
            (None, Some(id)) => Source::File { id, dialect: SELF },
            (None, None) => return Err(path.refused("A file needs file_data or file_id.")),
        };
        Ok(PartKind::Document { source, name, context: None, cite: None })
    })
}

/// What an assistant said.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    /// In the order of the neutral form.
    pub(super) parts: Vec<Part<'a>>,
    /// Name and identity of a function's call as it was before tools.
    pub(super) legacy: Option<(Text<'a>, Text<'a>)>,
    /// What only this dialect knows.
    pub(super) native: Vec<Native<'a>>,
}

/// Reads what an assistant's message holds, in a request or a reply. Identities that are missing are made of `made_of`.
pub(super) fn answer<'a>(
    fields: &mut Fields<'a, '_>,
    made_of: &str,
    reader: &mut Reader,
) -> Result<Answer<'a>, Invalid> {
    let path = fields.path();
    let thoughts = reasoning::take(fields, reader)?;
    let mut parts = match fields.take("content") {
        Some(node) => content(node, &path.field("content"), reader)?,
        None => Vec::new(),
    };
    if let Some(node) = fields.take("annotations") {
        cite(node, &mut parts);
    }
    if let Some(text) = fields.text("refusal")? {
        parts.push(Part::new(PartKind::Refusal { text }));
    }
    if let Some(node) = fields.take("audio") {
        parts.push(spoken(node, &path.field("audio"), reader)?);
    }
    if let Some(node) = fields.take("images") {
        parts.extend(reader.array(node, &path.field("images"), picture)?);
    }
    let signature = extra_content(fields, reader)?;
    if let Some(signature) = signature {
        let text = parts.iter_mut().rfind(|part| matches!(part.kind, PartKind::Text { .. }));
        match text {
            Some(part) => part.state.signature = Some(signature),
            None => reader.loses(What::Signature, &path.field("extra_content")),
        }
    }
    if let Some(node) = fields.take("tool_calls") {
        let mut ordinal = 0;
        parts.extend(reader.array(node, &path.field("tool_calls"), |node, path, reader| {
            ordinal += 1;
            call(node, path, || made_id(made_of, 0, ordinal - 1), reader)
        })?);
    }
    let mut legacy = None;
    if let Some(node) = fields.take("function_call") {
        let id: Text<'a> = Cow::Owned(made_id(made_of, 0, parts.len()));
        let (name, arguments) = called(node, &path.field("function_call"), reader)?;
        legacy = Some((name.clone(), id.clone()));
        parts.push(Part::new(PartKind::ToolCall { id, name, arguments, is_custom: false }));
    }
    let native = natives(fields, OF_ASSISTANT);
    Ok(Answer { parts: thoughts.place(parts), legacy, native })
}

fn cite<'a>(node: Node<'a>, parts: &mut Vec<Part<'a>>) {
    let Value::Array(items) = node.value else { return };
    if items.is_empty() {
        return;
    }
    if !parts.iter().any(|part| matches!(part.kind, PartKind::Text { .. })) {
        parts.insert(0, Part::text(""));
    }
    let texts = parts.iter_mut().find_map(|part| match &mut part.kind {
        PartKind::Text { citations, .. } => Some(citations),
        _ => None,
    });
    if let Some(citations) = texts {
        citations.extend(items.into_iter().map(citation));
    }
}

fn spoken<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        let id = fields.take("id");
        let transcript = fields.text("transcript")?;
        let source = match (fields.text("data")?, &id) {
            (None, Some(id)) => {
                let id = id.clone().into_text(&path.field("id"))?;
                let kind = PartKind::Audio { source: Source::File { id, dialect: SELF }, transcript };
                return Ok(Part::new(kind));
            }
            (data, _) => {
                let data = data.unwrap_or_default();
                Source::Data { media_type: Cow::Borrowed(sniff_sound(&data)), data }
            }
        };
        let mut native = Vec::new();
        native.extend(id.map(|id| Native::new(SELF, What::Audio, "id", id.raw)));
        native.extend(natives(fields, &[("expires_at", What::Audio)]));
        Ok(Part { kind: PartKind::Audio { source, transcript }, state: State { native, ..State::default() } })
    })
}

/// A picture that a model drew (OpenRouter).
pub(super) fn picture<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        fields.text("type")?;
        fields.whole("index")?;
        image(fields, reader).map(Part::new)
    })
}

/// The signature that Gemini's compatible address puts into `extra_content`, on calls and on messages.
pub(super) fn extra_content<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<Option<Signature<'a>>, Invalid> {
    let Some(node) = fields.take("extra_content") else { return Ok(None) };
    let path = fields.path().field("extra_content");
    reader.object(node, &path, |fields, reader| {
        let Some(google) = fields.take("google") else { return Ok(None) };
        reader.object(google, &path.field("google"), |fields, _| {
            // That the text is a thought is said by its field here.
            fields.boolean("thought")?;
            let signature = fields.text("thought_signature")?;
            Ok(signature.map(|value| Signature::unpack(value, Dialect::Gemini)))
        })
    })
}

fn call<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    made: impl FnOnce() -> String,
    reader: &mut Reader,
) -> Result<Part<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let id = fields.text("id")?.filter(|id| !id.is_empty() && id != "null");
        let id = id.map_or_else(|| Cow::Owned(made()), restore);
        fields.number("index")?;
        let kind = fields.text("type")?;
        let is_custom = match kind.as_deref() {
            None | Some("function") => false,
            Some("custom") => true,
            Some(_) => return Err(path.field("type").refused("This must be function or custom.")),
        };
        let (name, arguments) = if is_custom {
            reader.object(fields.need("custom")?, &path.field("custom"), |fields, _| {
                Ok((fields.need_text("name")?, fields.need_text("input")?))
            })?
        } else {
            called(fields.need("function")?, &path.field("function"), reader)?
        };
        let signature = extra_content(fields, reader)?;
        let kind = PartKind::ToolCall { id, name, arguments, is_custom };
        Ok(Part { kind, state: State { signature, ..State::default() } })
    })
}

fn called<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<(Text<'a>, Text<'a>), Invalid> {
    reader.object(node, path, |fields, _| {
        let name = fields.need_text("name")?;
        let arguments = match fields.take("arguments") {
            None => Cow::Borrowed(""),
            Some(Node { value: Value::Text(text), .. }) => text,
            // Ollama's are an object.
            Some(Node { value: Value::Object(_), raw }) => Cow::Borrowed(raw),
            Some(_) => return Err(path.field("arguments").refused("This must be a string that holds JSON.")),
        };
        Ok((name, arguments))
    })
}
