//! Pieces of content, both ways: what stands in messages and in the outputs of tools.

use std::borrow::Cow;

use super::DIALECT;
use super::read_items::From;
use super::write_items::of_message;
use crate::invalid::Invalid;
use crate::json::{Array, Fields, Node, Object, Path, Reader, Value};
use crate::loss::{Losses, What};
use crate::neutral::{Citation, Native, Part, PartKind, Source, State, Text, own};

/// Before the type of a piece of content that we do not know: it has a place in its message, and is no item.
pub(super) const UNKNOWN: &str = "content.";

/// The field that marks the end of a prompt that is worth keeping.
const BREAKPOINT: &str = "prompt_cache_breakpoint";

/// Reads a piece of content, and the log probabilities that a text has, without their brackets.
pub(super) fn read_content<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
    from: From,
) -> Result<(Part<'a>, Option<&'a str>), Invalid> {
    let raw = node.raw;
    let kind = match node.get("type") {
        Some(kind) => kind.clone().into_text(&path.field("type"))?,
        None => return reader.object(node, path, |_, _| Err(path.misses("type"))),
    };
    if !KINDS.contains(&&*kind) {
        if kind == "computer_screenshot" || from == From::Provider {
            let kind =
                if kind == "computer_screenshot" { kind } else { Cow::Owned(format!("{UNKNOWN}{kind}")) };
            let kind = PartKind::Native { dialect: DIALECT, kind, raw: Cow::Borrowed(raw) };
            return Ok((Part::new(kind), None));
        }
        let message = "This must be `input_text`, `input_image`, `input_file`, `input_audio`, `output_text` or `refusal`.";
        return Err(path.field("type").refused(message));
    }
    reader.object(node, path, |fields, reader| {
        fields.take("type");
        let mut probabilities = None;
        let mut part = match &*kind {
            "input_image" => read_image(fields)?,
            "input_file" => read_file(fields)?,
            "input_audio" => read_audio(fields, reader)?,
            "refusal" => Part::new(PartKind::Refusal { text: fields.need_text("refusal")? }),
            _ => {
                let text = fields.need_text("text")?;
                let citations = match fields.take("annotations") {
                    Some(node) => {
                        reader.array(node, &path.field("annotations"), |node, _, _| Ok(citation(&node)))?
                    }
                    None => Vec::new(),
                };
                probabilities = fields.raw("logprobs").and_then(unbracketed);
                Part::new(PartKind::Text { text, citations })
            }
        };
        let mark =
            fields.raw(BREAKPOINT).map(|raw| Native::new(DIALECT, What::CacheControl, BREAKPOINT, raw));
        part.state.native.extend(mark);
        Ok((part, probabilities))
    })
}

const KINDS: [&str; 6] = ["input_text", "input_image", "input_file", "input_audio", "output_text", "refusal"];

/// The items of an array, if it has any.
pub(super) fn unbracketed(raw: &str) -> Option<&str> {
    let inner = raw.strip_prefix('[')?.strip_suffix(']')?.trim();
    (!inner.is_empty()).then_some(inner)
}

fn read_image<'a>(fields: &mut Fields<'a, '_>) -> Result<Part<'a>, Invalid> {
    let detail = fields.text("detail")?;
    let source = match (fields.text("image_url")?, fields.text("file_id")?) {
        (Some(url), None) => of_url(url),
        (None, Some(id)) => Source::File { id, dialect: DIALECT },
        (None, None) => return Err(fields.path().misses("image_url")),
        (Some(_), Some(_)) => {
            return Err(fields.path().field("file_id").refused("An image has either this or `image_url`."));
        }
    };
    Ok(Part::new(PartKind::Image { source, detail }))
}

/// A `data:` URL holds what it names.
fn of_url(url: Text<'_>) -> Source<'_> {
    let split = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    // Parameters of the media type (`;charset=…`) say nothing of what is in base64.
    let media_type = split.map(|(media_type, _)| media_type.split(';').next().unwrap_or_default().len());
    let Some((length, data)) = media_type.zip(split.map(|(_, data)| url.len() - data.len())) else {
        return Source::Url { url, media_type: None };
    };
    let (from, to) = ("data:".len(), "data:".len() + length);
    match url {
        Cow::Borrowed(url) => {
            Source::Data { media_type: Cow::Borrowed(&url[from..to]), data: Cow::Borrowed(&url[data..]) }
        }
        Cow::Owned(mut url) => {
            let data = url.split_off(data);
            Source::Data { media_type: Cow::Owned(url[from..to].to_owned()), data: Cow::Owned(data) }
        }
    }
}

fn read_file<'a>(fields: &mut Fields<'a, '_>) -> Result<Part<'a>, Invalid> {
    let name = fields.text("filename")?;
    let data = fields.text("file_data")?;
    let url = fields.text("file_url")?;
    let id = fields.text("file_id")?;
    let source = match (data, url, id) {
        (Some(data), None, None) => match of_url(data) {
            // Base64 without more: the name says what it is.
            Source::Url { url: data, media_type: _ } => {
                let media_type = media_type_of(name.as_deref().unwrap_or_default());
                Source::Data { media_type: Cow::Borrowed(media_type), data }
            }
            source => source,
        },
        (None, Some(url), None) => Source::Url { url, media_type: None },
        (None, None, Some(id)) => Source::File { id, dialect: DIALECT },
        (None, None, None) => return Err(fields.path().misses("file_data")),
        _ => {
            let message = "A file has one of `file_data`, `file_url` and `file_id`.";
            return Err(fields.path().refused(message));
        }
    };
    let mut part = Part::new(PartKind::Document { source, name, context: None, cite: None });
    let detail = fields.raw("detail").map(|raw| Native::new(DIALECT, What::PartDetail, "detail", raw));
    part.state.native.extend(detail);
    Ok(part)
}

/// Endings of names, and what they say.
const MEDIA_TYPES: &[(&str, &str)] = &[
    (".pdf", "application/pdf"),
    (".txt", "text/plain"),
    (".md", "text/markdown"),
    (".csv", "text/csv"),
    (".html", "text/html"),
    (".json", "application/json"),
    (".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (".pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
];

fn media_type_of(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    MEDIA_TYPES.iter().find(|(end, _)| name.ends_with(end)).map_or("application/pdf", |(_, kind)| kind)
}

fn read_audio<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Part<'a>, Invalid> {
    let path = *fields.path();
    let node = fields.need("input_audio")?;
    reader.object(node, &path.field("input_audio"), |fields, _| {
        let data = fields.need_text("data")?;
        let media_type = match &*fields.need_text("format")? {
            "wav" => "audio/wav",
            "mp3" => "audio/mpeg",
            _ => return Err(fields.path().field("format").refused("This must be `wav` or `mp3`.")),
        };
        let source = Source::Data { media_type: Cow::Borrowed(media_type), data };
        Ok(Part::new(PartKind::Audio { source, transcript: None }))
    })
}

/// Reads an annotation. Its own words stay with it.
pub(super) fn citation<'a>(node: &Node<'a>) -> Citation<'a> {
    let text = |name| node.get(name).and_then(Node::as_text).map(|text| Cow::Owned(text.to_owned()));
    let whole = |name| match node.get(name).map(|node| &node.value) {
        Some(Value::Number(digits)) => digits.parse::<u64>().ok(),
        _ => None,
    };
    let kind = text("type").unwrap_or_default();
    Citation {
        url: text("url"),
        title: text("title").or_else(|| text("filename")),
        quote: None,
        range: whole("start_index").zip(whole("end_index")),
        native: Some(Native::new(DIALECT, What::Citation, kind, node.raw)),
    }
}

/// Texts of a list of objects of one type. An empty one says nothing.
fn list<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    name: &str,
    kind: &str,
) -> Result<Vec<Text<'a>>, Invalid> {
    let Some(node) = fields.take(name) else { return Ok(Vec::new()) };
    let texts = reader.array(node, &fields.path().field(name), |node, path, reader| {
        reader.object(node, path, |fields, _| {
            // Open models write `text` for thoughts.
            if !matches!(&*fields.need_text("type")?, known if known == kind || known == "text") {
                return Err(path.field("type").refused(format!("This must be `{kind}`.")));
            }
            fields.need_text("text")
        })
    })?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

pub(super) fn read_summary<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<Vec<Text<'a>>, Invalid> {
    list(fields, reader, "summary", "summary_text")
}

pub(super) fn read_texts<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<Vec<Text<'a>>, Invalid> {
    list(fields, reader, "content", "reasoning_text")
}

/// Which words a message is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What a model reads.
    Input,
    /// What it wrote.
    Output,
}

/// Whether a part stands in the content of a message or of a tool's output.
pub(super) fn is_content(kind: &PartKind<'_>) -> bool {
    match kind {
        PartKind::Text { .. }
        | PartKind::Image { .. }
        | PartKind::Document { .. }
        | PartKind::Audio { .. }
        | PartKind::Video { .. }
        | PartKind::Refusal { .. } => true,
        PartKind::Native { kind, .. } => kind == "computer_screenshot",
        PartKind::ToolCall { .. } | PartKind::ToolResult { .. } | PartKind::Thinking { .. } => false,
    }
}

/// Writes a piece of content for a provider.
pub(super) fn write_content(
    array: &mut Array<'_>,
    part: &Part<'_>,
    side: Side,
    at: &str,
    losses: &mut Losses,
) {
    let Part { kind, state } = part;
    let State { cache, signature, native } = state;
    if cache.is_some() {
        losses.add(What::CacheControl, format!("{at}.cache_control"));
    }
    if signature.is_some() {
        // A text has no field for one here.
        losses.add(What::Signature, at);
    }
    let natives = own(native, DIALECT, at, losses).filter(|native| !of_message(native));
    let natives: Vec<&Native<'_>> = natives.collect();
    let finish =
        |object: &mut Object<'_>| natives.iter().for_each(|native| object.raw(&native.name, &native.raw));
    match kind {
        PartKind::Text { text, citations } => array.object(|object| {
            object.text("type", if side == Side::Input { "input_text" } else { "output_text" });
            object.text("text", text);
            let length = text.chars().count() as u64;
            if side == Side::Output && !citations.is_empty() {
                object.array("annotations", |array| write_citations(array, citations, length, at, losses));
            } else if !citations.is_empty() {
                losses.add(What::Citation, at);
            }
            finish(object);
        }),
        PartKind::Refusal { text } => array.object(|object| {
            if side == Side::Output {
                object.text("type", "refusal");
                object.text("refusal", text);
            } else {
                object.text("type", "input_text");
                object.text("text", text);
            }
            finish(object);
        }),
        PartKind::Image { .. }
        | PartKind::Audio { .. }
        | PartKind::Video { .. }
        | PartKind::Document { .. }
            if side == Side::Output =>
        {
            losses.add(what(kind), at);
        }
        PartKind::Image { source, detail } => {
            write_image(array, source, detail.as_deref(), at, losses, finish)
        }
        PartKind::Document { source, name, context, cite } => {
            if context.is_some() {
                losses.add(What::PartDetail, format!("{at}.context"));
            }
            if *cite == Some(true) {
                losses.add(What::PartDetail, format!("{at}.citations"));
            }
            write_document(array, source, name.as_deref(), at, losses, finish);
        }
        PartKind::Audio { source, transcript: _ } => match source {
            Source::Data { media_type, data } if audio_format(media_type).is_some() => {
                array.object(|object| {
                    object.text("type", "input_audio");
                    object.object("input_audio", |object| {
                        object.text("data", data);
                        object.some_text("format", audio_format(media_type));
                    });
                    finish(object);
                })
            }
            _ => losses.add(What::Audio, at),
        },
        PartKind::Native { dialect, kind: _, raw } if *dialect == DIALECT => array.raw(raw),
        PartKind::Native { .. }
        | PartKind::Video { .. }
        | PartKind::ToolCall { .. }
        | PartKind::ToolResult { .. }
        | PartKind::Thinking { .. } => losses.add(what(kind), at),
    }
}

fn write_image(
    array: &mut Array<'_>,
    source: &Source<'_>,
    detail: Option<&str>,
    at: &str,
    losses: &mut Losses,
    finish: impl FnOnce(&mut Object<'_>),
) {
    let (name, value) = match source {
        Source::Data { media_type, data } => ("image_url", Cow::Owned(data_url(media_type, data))),
        Source::Url { url, media_type: _ } => ("image_url", Cow::Borrowed(&**url)),
        Source::File { id, dialect }
            if *dialect == DIALECT || *dialect == crate::dialect::Dialect::OpenaiChat =>
        {
            ("file_id", Cow::Borrowed(&**id))
        }
        Source::File { .. } | Source::Text { .. } => return losses.add(What::Image, at),
    };
    array.object(|object| {
        object.text("type", "input_image");
        object.text(name, &value);
        object.some_text("detail", detail);
        finish(object);
    });
}

fn write_document(
    array: &mut Array<'_>,
    source: &Source<'_>,
    title: Option<&str>,
    at: &str,
    losses: &mut Losses,
    finish: impl FnOnce(&mut Object<'_>),
) {
    let (name, value) = match source {
        Source::Data { media_type, data } => ("file_data", Cow::Owned(data_url(media_type, data))),
        Source::Url { url, media_type: _ } => ("file_url", Cow::Borrowed(&**url)),
        Source::File { id, dialect }
            if *dialect == DIALECT || *dialect == crate::dialect::Dialect::OpenaiChat =>
        {
            ("file_id", Cow::Borrowed(&**id))
        }
        Source::File { .. } => return losses.add(What::Document, at),
        // A text is read as one.
        Source::Text { text } => {
            if title.is_some() {
                losses.add(What::PartDetail, format!("{at}.title"));
            }
            return array.object(|object| {
                object.text("type", "input_text");
                object.text("text", text);
                finish(object);
            });
        }
    };
    array.object(|object| {
        object.text("type", "input_file");
        match (title, source) {
            (Some(title), _) => object.text("filename", title),
            // Data without a name is refused.
            (None, Source::Data { media_type, .. }) => object.text("filename", &name_of(media_type)),
            (None, _) => {}
        }
        object.text(name, &value);
        finish(object);
    });
}

fn name_of(media_type: &str) -> String {
    let end = MEDIA_TYPES.iter().find(|(_, kind)| *kind == media_type).map_or("", |(end, _)| end);
    format!("document{end}")
}

fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// Which of the two formats that can be said.
fn audio_format(media_type: &str) -> Option<&'static str> {
    match media_type {
        "audio/wav" | "audio/x-wav" | "audio/wave" => Some("wav"),
        "audio/mpeg" | "audio/mp3" => Some("mp3"),
        _ => None,
    }
}

/// Writes annotations to a text of this length. What has no address and no words of this dialect has no place.
pub(super) fn write_citations(
    array: &mut Array<'_>,
    citations: &[Citation<'_>],
    length: u64,
    at: &str,
    losses: &mut Losses,
) {
    for citation in citations {
        match annotation(citation, length) {
            Some(raw) => array.raw(&raw),
            None => losses.add(What::Citation, at),
        }
    }
}

/// An annotation in this dialect's words. One that names no place is of the whole text.
pub(super) fn annotation<'c>(citation: &'c Citation<'_>, length: u64) -> Option<Cow<'c, str>> {
    let Citation { url, title, quote: _, range, native } = citation;
    if let Some(native) = native.as_ref().filter(|native| native.dialect == DIALECT) {
        return Some(Cow::Borrowed(&native.raw));
    }
    let url = url.as_ref()?;
    let (start, end) = range.unwrap_or((0, length));
    let mut out = Vec::new();
    crate::json::object(&mut out, |object| {
        object.text("type", "url_citation");
        object.whole("start_index", start);
        object.whole("end_index", end);
        object.text("title", title.as_deref().unwrap_or_default());
        object.text("url", url);
    });
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// What is lost with a part.
pub(super) const fn what(kind: &PartKind<'_>) -> What {
    match kind {
        PartKind::Text { .. } => What::UnknownPart,
        PartKind::Image { .. } => What::Image,
        PartKind::Document { .. } => What::Document,
        PartKind::Audio { .. } => What::Audio,
        PartKind::Video { .. } => What::Video,
        PartKind::Thinking { .. } => What::ReasoningBlock,
        PartKind::Refusal { .. } => What::Refusal,
        PartKind::ToolCall { .. } | PartKind::ToolResult { .. } | PartKind::Native { .. } => {
            What::ProviderTool
        }
    }
}
