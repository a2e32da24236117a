//! Words that this dialect has for what the neutral form says otherwise.

use std::borrow::Cow;

use crate::dialect::Dialect;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Value};
use crate::loss::What;
use crate::neutral::{Citation, Finish, Native, Source, Text};

/// This dialect.
pub(super) const SELF: Dialect = Dialect::OpenaiChat;

/// Fields that are known, with what is lost where they cannot be said.
pub(super) type Known = &'static [(&'static str, What)];

/// Takes the fields of a list, in the dialect's own words.
pub(super) fn natives<'a>(fields: &mut Fields<'a, '_>, known: Known) -> Vec<Native<'a>> {
    let take = |&(name, what): &(&'static str, What)| {
        fields.take(name).map(|node| Native::new(SELF, what, name, node.raw))
    };
    known.iter().filter_map(take).collect()
}

/// Takes what is left, of which nothing is known: a server that is built after OpenAI's may know it all the same.
pub(super) fn unknown<'a>(fields: &mut Fields<'a, '_>) -> Vec<Native<'a>> {
    let rest = fields.take_rest().into_iter().filter(|(_, node)| node.value != Value::Null);
    rest.map(|(name, node)| Native::new(SELF, What::UnknownField, name, node.raw)).collect()
}

/// How sound is called here, and elsewhere.
const SOUNDS: &[(&str, &str)] = &[
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("flac", "audio/flac"),
    ("opus", "audio/opus"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("m4a", "audio/mp4"),
    ("aiff", "audio/aiff"),
    ("pcm16", "audio/pcm"),
];

/// The media type of a format.
pub(super) fn media_type_of(format: Text<'_>) -> Text<'_> {
    match SOUNDS.iter().find(|(name, _)| *name == format) {
        Some((_, media_type)) => Cow::Borrowed(media_type),
        None => Cow::Owned(format!("audio/{format}")),
    }
}

/// The format of a media type.
pub(super) fn format_of(media_type: &str) -> &str {
    // A type may have parameters: `audio/L16;codec=pcm;rate=24000`.
    let plain = media_type.split(';').next().unwrap_or_default().trim();
    let known = SOUNDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(plain));
    match (known, plain) {
        (Some((format, _)), _) => format,
        (None, "audio/x-wav" | "audio/wave") => "wav",
        (None, "audio/mp3") => "mp3",
        (None, "audio/L16" | "audio/l16") => "pcm16",
        _ => plain.split_once('/').map_or(plain, |(_, format)| format),
    }
}

/// What sound is, by how its base64 begins: replies do not say.
pub(super) fn sniff_sound(base64: &str) -> &'static str {
    for (start, media_type) in [
        ("UklGR", "audio/wav"),
        ("SUQz", "audio/mpeg"),
        ("//s", "audio/mpeg"),
        ("//N", "audio/mpeg"),
        ("ZkxhQ", "audio/flac"),
        ("T2dnU", "audio/ogg"),
        ("//E", "audio/aac"),
        ("//F", "audio/aac"),
    ] {
        if base64.starts_with(start) {
            return media_type;
        }
    }
    "audio/pcm"
}

/// Reads an address that may hold the content itself: `data:image/png;base64,…`.
pub(super) fn source<'a>(url: Text<'a>, path: &Path<'_>) -> Result<Source<'a>, Invalid> {
    let Some(rest) = url.strip_prefix("data:") else { return Ok(Source::Url { url, media_type: None }) };
    let Some((head, data)) = rest.split_once(',') else {
        return Err(path.refused("This data URL has no comma before its data."));
    };
    let Some(media_type) = head.strip_suffix(";base64") else {
        return Err(path.refused("The data of a data URL must be in base64."));
    };
    let media_type = if media_type.is_empty() { "text/plain" } else { media_type };
    let (media_type, start) = (media_type.to_owned(), url.len() - data.len());
    let data = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[start..]),
        Cow::Owned(mut url) => Cow::Owned(url.split_off(start)),
    };
    Ok(Source::Data { media_type: Cow::Owned(media_type), data })
}

/// Writes content as an address.
pub(super) fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// The media type of a file by its name. PDF, which is what files were taken for first, where the name says nothing.
pub(super) fn type_of_file(name: Option<&str>) -> &'static str {
    let ending = name.and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("txt" | "log") => "text/plain",
        Some("md") => "text/markdown",
        Some("csv") => "text/csv",
        Some("html" | "htm") => "text/html",
        Some("json") => "application/json",
        Some("docx") => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        Some("xlsx") => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        Some("pptx") => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => "application/pdf",
    }
}

/// What is known of how an answer ended, beside the word itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending<'e> {
    /// Whether it calls tools.
    pub(super) calls_tools: bool,
    /// Whether it refuses.
    pub(super) refuses: bool,
    /// The text at which it ended (vLLM).
    pub(super) stop: Option<&'e str>,
    /// The word of the provider behind a router (OpenRouter).
    pub(super) native: Option<&'e str>,
}

/// Reads why an answer ended. That it calls tools counts for more than the word: some servers say `stop` then.
pub(super) fn finish(word: Option<&str>, ending: Ending<'_>) -> Finish<'static> {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    match word.unwrap_or("stop") {
        "length" | "max_tokens" | "model_length" => match ending.native {
            Some("model_context_window_exceeded") => Finish::ContextExceeded,
            Some(cut) if CUT.contains(&cut) => Finish::Other(owned(cut)),
            _ => Finish::Length,
        },
        "tool_calls" | "function_call" | "tool_use" => Finish::ToolCalls,
        "content_filter" => match ending.native {
            Some("refusal") => Finish::Refusal,
            native => Finish::ContentFilter(native.map(owned)),
        },
        "" | "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => match ending {
            Ending { calls_tools: true, .. } => Finish::ToolCalls,
            Ending { refuses: true, .. } => Finish::Refusal,
            Ending { stop: Some(stop), .. } => Finish::StopSequence(Some(owned(stop))),
            Ending { native: Some("pause_turn"), .. } => Finish::Pause,
            Ending { native: Some("stop_sequence"), .. } => Finish::StopSequence(None),
            _ if word == Some("stop_sequence") => Finish::StopSequence(None),
            _ => Finish::Stop,
        },
        other => Finish::Other(owned(other)),
    }
}

/// How an end is said.
pub(super) struct EndWords<'f> {
    /// `finish_reason`
    pub(super) reason: &'f str,
    /// `native_finish_reason`, where the reason alone would hide something.
    pub(super) native: Option<&'f str>,
    /// `stop_reason`: the text at which it ended.
    pub(super) stop: Option<&'f str>,
}

/// Words of servers for an answer that is not all there: vLLM's, OpenRouter's, DeepSeek's, and states of a response.
/// Nobody must take it for a whole one.
const CUT: &[&str] = &[
    "abort",
    "cancelled",
    "error",
    "failed",
    "in_progress",
    "incomplete",
    "insufficient_system_resource",
    "queued",
];

/// Says why an answer ended.
pub(super) fn end_words<'f>(finish: &'f Finish<'_>, has_refusal: bool, is_legacy: bool) -> EndWords<'f> {
    let (reason, native, stop) = match finish {
        Finish::Stop => ("stop", None, None),
        Finish::StopSequence(Some(stop)) => ("stop", None, Some(&**stop)),
        Finish::StopSequence(None) => ("stop", Some("stop_sequence"), None),
        Finish::Length => ("length", None, None),
        Finish::ToolCalls if is_legacy => ("function_call", None, None),
        Finish::ToolCalls => ("tool_calls", None, None),
        Finish::ContentFilter(word) => ("content_filter", word.as_deref(), None),
        // With its words beside it, `stop` is how OpenAI says it; without, clients must not take it for an answer.
        Finish::Refusal if has_refusal => ("stop", None, None),
        Finish::Refusal => ("content_filter", Some("refusal"), None),
        Finish::Pause => ("stop", Some("pause_turn"), None),
        Finish::ContextExceeded => ("length", Some("model_context_window_exceeded"), None),
        // Clients take their words from a closed list, and what is none of them breaks those that are strict.
        Finish::Other(word) if CUT.contains(&&**word) => ("length", Some(&**word), None),
        Finish::Other(word) => ("stop", Some(&**word), None),
    };
    EndWords { reason, native, stop }
}

/// The name of a reply. Those of the other dialects lose their own prefix, so that the provider's can be found by it.
pub(super) fn reply_id(id: &str) -> Cow<'_, str> {
    const OWN: [&str; 3] = ["chatcmpl", "cmpl-", "gen-"];
    if OWN.iter().any(|own| id.starts_with(own)) {
        return Cow::Borrowed(id);
    }
    let bare = ["msg_", "resp_"].iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id);
    Cow::Owned(format!("chatcmpl-{bare}"))
}

/// An identity for a tool call that came without one: of the reply's, so that no two replies share one, and the place.
pub(super) fn made_id(reply: &str, candidate: u64, ordinal: usize) -> String {
    let letters: Vec<char> = reply.chars().rev().filter(char::is_ascii_alphanumeric).take(20).collect();
    let tail: String = letters.into_iter().rev().collect();
    let line = if tail.is_empty() { "" } else { "_" };
    format!("call{line}{tail}_{candidate}_{ordinal}")
}

/// Reads `annotations`: where statements come from. What is no citation of an address stays in its own words.
pub(super) fn citation<'a>(node: Node<'a>) -> Citation<'a> {
    let raw = node.raw;
    let whole =
        |name: &str| match node.get("url_citation").and_then(|cited| cited.get(name)).map(|node| &node.value)
        {
            Some(Value::Number(text)) => crate::json::Number::from_text(text).as_u64(),
            _ => None,
        };
    let range = whole("start_index").zip(whole("end_index"));
    let is_known = node.get("type").and_then(Node::as_text) == Some("url_citation");
    let text = |name: &str| {
        let cited = node.get("url_citation")?.get(name)?;
        Some(Cow::Owned(cited.as_text()?.to_owned()))
    };
    let (url, title, quote) = (text("url"), text("title"), text("content"));
    if is_known && url.is_some() {
        return Citation { url, title, quote, range, native: None };
    }
    let native = Some(Native::new(SELF, What::Citation, "annotations", raw));
    Citation { native, ..Citation::default() }
}

/// Writes an annotation, if it has an address. Where it stands in the content moves by what was written before.
pub(super) fn write_citation(
    array: &mut crate::json::Array<'_>,
    citation: &Citation<'_>,
    moved: u64,
    at: impl FnOnce() -> String,
    losses: &mut crate::loss::Losses,
) {
    let Citation { url, title, quote, range, native } = citation;
    if let Some(native) = native.as_ref().filter(|native| native.dialect == SELF) {
        array.raw(&native.raw);
        return;
    }
    let Some(url) = url else {
        losses.add(What::Citation, at());
        return;
    };
    array.object(|object| {
        object.text("type", "url_citation");
        object.object("url_citation", |object| {
            let (start, end) = range.unwrap_or_default();
            object.whole("start_index", start.saturating_add(moved));
            object.whole("end_index", end.saturating_add(moved));
            object.text("title", title.as_deref().unwrap_or_default());
            object.text("url", url);
            object.some_text("content", quote.as_ref());
        });
    });
}
