//! Writes messages of requests.

use std::borrow::Cow;

use super::words::{SELF, data_url, format_of};
use crate::dialect::Dialect;
use crate::json::{Array, Object, object};
use crate::loss::{Losses, What};
use crate::neutral::{Citation, Native, Part, PartKind, Role, Source, State, Turn, own};
use crate::target::{Files, Images, Quirks, Sounds};
use crate::tool_ids::fit;

/// What is the same for all messages.
pub(super) struct Writer<'w> {
    pub(super) quirks: &'w Quirks,
    pub(super) losses: &'w mut Losses,
    /// Images and documents that tools answered with: a tool's message holds text only, so they follow in the user's.
    moved: Vec<(String, &'w Part<'w>)>,
}

/// Writes `messages`.
pub(super) fn write(turns: &[Turn<'_>], array: &mut Array<'_>, quirks: &Quirks, losses: &mut Losses) {
    let mut writer = Writer { quirks, losses, moved: Vec::new() };
    for (index, turn) in turns.iter().enumerate() {
        writer.turn(turn, &format!("turns[{index}]"), array);
    }
    writer.flush(array);
}

impl<'w> Writer<'w> {
    /// What only this dialect knows of a message. OpenAI knows none of it.
    fn native(&mut self, native: &[Native<'_>], at: &str, object: Option<&mut Object<'_>>) {
        let mut object = object;
        for native in own(native, SELF, at, self.losses) {
            match &mut object {
                Some(object) if self.quirks.knows(&native.name) => object.raw(&native.name, &native.raw),
                _ => self.losses.add(native.what, format!("{at}.{}", native.name)),
            }
        }
    }

    fn turn(&mut self, turn: &'w Turn<'_>, at: &str, array: &mut Array<'_>) {
        let Turn { role, name, parts, native } = turn;
        let mut others = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let at = format!("{at}.parts[{index}]");
            match &part.kind {
                PartKind::ToolResult { .. } => self.result(part, &at, array),
                _ => others.push((at, part)),
            }
        }
        if *role == Role::Tool || (others.is_empty() && !parts.is_empty()) {
            for (at, part) in others {
                self.lose(part, at);
            }
            if name.is_some() {
                self.losses.add(What::SpeakerName, format!("{at}.name"));
            }
            return self.native(native, at, None);
        }
        self.flush(array);
        array.object(|object| {
            object.text("role", self.role(*role));
            match name {
                Some(name) if self.quirks.names => object.text("name", name),
                Some(_) => self.losses.add(What::SpeakerName, format!("{at}.name")),
                None => {}
            }
            match role {
                Role::Assistant => self.assistant(&others, object),
                _ => self.said(*role, &others, object),
            }
            self.native(native, at, Some(object));
        });
    }

    const fn role(&self, role: Role) -> &'static str {
        match role {
            Role::Developer if self.quirks.developer_role => "developer",
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    /// Writes what the user said, or instructions.
    fn said(&mut self, role: Role, parts: &[(String, &'w Part<'w>)], object: &mut Object<'_>) {
        let may_list = self.quirks.lists || role == Role::User;
        let only_text = parts.iter().all(|(_, part)| matches!(part.kind, PartKind::Text { .. }));
        match parts {
            [] => object.text("content", ""),
            [(at, part)] if only_text && !self.is_marked(part) => {
                self.state(&part.state, at);
                object.text("content", text_of(part));
            }
            _ if only_text && !may_list => {
                parts.iter().for_each(|(at, part)| self.state(&part.state, at));
                object.text("content", &joined(parts, "\n\n"));
            }
            _ => object.array("content", |array| {
                for (at, part) in parts {
                    self.part(part, at, array);
                }
                // A list without parts is refused.
                if array.is_empty() {
                    array.object(|object| text_part("", object));
                }
            }),
        }
    }

    /// Whether a part's mark can be written.
    pub(super) fn is_marked(&self, part: &Part<'_>) -> bool {
        let own = part
            .state
            .native
            .iter()
            .any(|native| native.dialect == SELF && native.name == "prompt_cache_breakpoint");
        own || (part.state.cache.is_some() && self.quirks.cache_marks)
    }

    /// Notes what of a part's state is not written.
    pub(super) fn state(&mut self, state: &State<'_>, at: &str) {
        let State { cache, signature, native } = state;
        if cache.is_some() {
            self.losses.add(What::CacheControl, format!("{at}.cache"));
        }
        if signature.is_some() {
            self.losses.add(What::Signature, format!("{at}.signature"));
        }
        for native in native {
            self.losses.add(native.what, format!("{at}.{}", native.name));
        }
    }

    /// Writes marks into a part's object.
    pub(super) fn marks(&mut self, state: &State<'_>, at: &str, object: &mut Object<'_>) {
        let State { cache, signature, native } = state;
        match cache {
            Some(cache) if self.quirks.cache_marks => object.raw("cache_control", &cache.raw),
            Some(_) => self.losses.add(What::CacheControl, format!("{at}.cache")),
            None => {}
        }
        if signature.is_some() {
            self.losses.add(What::Signature, format!("{at}.signature"));
        }
        for native in own(native, SELF, at, self.losses) {
            object.raw(&native.name, &native.raw);
        }
    }

    /// Writes a part of the user's.
    pub(super) fn part(&mut self, part: &'w Part<'w>, at: &str, array: &mut Array<'_>) {
        if let PartKind::Native { dialect: SELF, raw, .. } = &part.kind {
            return array.raw(raw);
        }
        let mut out = Vec::new();
        let mut is_written = false;
        object(&mut out, |object| {
            is_written = self.content(part, at, object);
            if is_written {
                self.marks(&part.state, at, object);
            }
        });
        match String::from_utf8(out) {
            Ok(json) if is_written => array.raw(&json),
            _ => self.lose(part, at.to_owned()),
        }
    }

    /// Writes what a part holds, if the server takes it.
    fn content(&mut self, part: &Part<'_>, at: &str, object: &mut Object<'_>) -> bool {
        match &part.kind {
            PartKind::Text { text, citations } => {
                self.uncited(citations, at);
                text_part(text, object);
            }
            PartKind::Refusal { text } if self.quirks.refusals => {
                object.text("type", "refusal");
                object.text("refusal", text);
            }
            PartKind::Refusal { text } => {
                self.losses.add(What::Refusal, at);
                text_part(text, object);
            }
            PartKind::Image { source, detail } => {
                let url = match source {
                    Source::Data { media_type, data } if self.quirks.images != Images::None => {
                        data_url(media_type, data)
                    }
                    Source::Url { url, media_type: _ } if self.quirks.images == Images::Any => {
                        url.to_string()
                    }
                    _ => return false,
                };
                object.text("type", "image_url");
                object.object("image_url", |object| {
                    object.text("url", &url);
                    object.some_text("detail", detail.as_ref());
                });
            }
            PartKind::Audio { source: Source::Data { media_type, data }, transcript: _ }
                if self.quirks.audio != Sounds::None =>
            {
                object.text("type", "input_audio");
                if self.quirks.audio == Sounds::Bare {
                    object.text("input_audio", data);
                } else {
                    object.object("input_audio", |object| {
                        object.text("data", data);
                        object.text("format", format_of(media_type));
                    });
                }
            }
            // Mistral fetches sound, too.
            PartKind::Audio { source: Source::Url { url, media_type: _ }, transcript: _ }
                if self.quirks.audio == Sounds::Bare =>
            {
                object.text("type", "input_audio");
                object.text("input_audio", url);
            }
            PartKind::Video { source } if self.quirks.video => {
                let url = match source {
                    Source::Data { media_type, data } => data_url(media_type, data),
                    Source::Url { url, media_type: _ } => url.to_string(),
                    Source::File { .. } | Source::Text { .. } => return false,
                };
                object.text("type", "video_url");
                object.object("video_url", |object| object.text("url", &url));
            }
            PartKind::Document { source, name, context, cite } => {
                return self.document(
                    source,
                    name.as_deref(),
                    context.is_some() || *cite == Some(true),
                    at,
                    object,
                );
            }
            PartKind::Audio { .. }
            | PartKind::Video { .. }
            | PartKind::ToolCall { .. }
            | PartKind::ToolResult { .. }
            | PartKind::Thinking { .. }
            | PartKind::Native { .. } => return false,
        }
        true
    }

    fn document(
        &mut self,
        source: &Source<'_>,
        name: Option<&str>,
        has_details: bool,
        at: &str,
        object: &mut Object<'_>,
    ) -> bool {
        let data = match (self.quirks.files, source) {
            // Text is text, whatever else the server takes.
            (_, Source::Text { text }) => {
                if has_details || name.is_some() {
                    self.losses.add(What::PartDetail, at);
                }
                text_part(text, object);
                return true;
            }
            (Files::DocumentUrl, Source::Url { url, .. }) => return document_url(url, name, object),
            (Files::DocumentUrl, Source::Data { media_type, data }) => {
                return document_url(&data_url(media_type, data), name, object);
            }
            (Files::Openai | Files::DataOrUrl, Source::Data { media_type, data }) => {
                ("file_data", Cow::Owned(data_url(media_type, data)))
            }
            (Files::DataOrUrl, Source::Url { url, .. }) => ("file_data", Cow::Borrowed(&**url)),
            (Files::Openai, Source::File { id, dialect: SELF | Dialect::OpenaiResponses }) => {
                ("file_id", Cow::Borrowed(&**id))
            }
            _ => return false,
        };
        if has_details {
            self.losses.add(What::PartDetail, at);
        }
        object.text("type", "file");
        object.object("file", |object| {
            // Data without a name is refused.
            let name = name.or((data.0 == "file_data").then_some("document.pdf"));
            object.some_text("filename", name);
            object.text(data.0, &data.1);
        });
        true
    }

    fn uncited(&mut self, citations: &[Citation<'_>], at: &str) {
        for index in 0..citations.len() {
            self.losses.add(What::Citation, format!("{at}.citations[{index}]"));
        }
    }

    /// Notes that a part is not written.
    pub(super) fn lose(&mut self, part: &Part<'_>, at: String) {
        let what = match &part.kind {
            PartKind::Image { .. } => What::Image,
            PartKind::Document { .. } => What::Document,
            PartKind::Audio { .. } => What::Audio,
            PartKind::Video { .. } => What::Video,
            PartKind::Thinking { .. } => What::ReasoningBlock,
            _ => What::UnknownPart,
        };
        self.state(&part.state, &at);
        self.losses.add(what, at);
    }

    /// Writes what a tool answered as a message of its own.
    fn result(&mut self, part: &'w Part<'w>, at: &str, array: &mut Array<'_>) {
        let PartKind::ToolResult { id, name, content, is_error, is_custom: _ } = &part.kind else { return };
        if *is_error == Some(true) {
            self.losses.add(What::ToolError, at);
        }
        let mut texts = Vec::new();
        for (index, part) in content.iter().enumerate() {
            let at = format!("{at}.content[{index}]");
            match &part.kind {
                PartKind::Text { .. } => texts.push((at, part)),
                PartKind::Image { .. }
                | PartKind::Document { .. }
                | PartKind::Audio { .. }
                | PartKind::Video { .. } => {
                    self.losses.add(What::PartDetail, &*at);
                    self.moved.push((at, part));
                }
                _ => self.lose(part, at),
            }
        }
        array.object(|object| {
            object.text("role", "tool");
            object.text("tool_call_id", &fit(id, self.quirks.tool_ids));
            if self.quirks.extensions {
                object.some_text("name", name.as_ref());
            }
            self.said(Role::Tool, &texts, object);
            // A mark on the result as a whole is one on the message.
            match &part.state.cache {
                Some(cache) if self.quirks.cache_marks => object.raw("cache_control", &cache.raw),
                Some(_) => self.losses.add(What::CacheControl, format!("{at}.cache")),
                None => {}
            }
            self.state(&State { cache: None, ..part.state.clone() }, at);
        });
    }

    /// Writes what tools answered with that is no text, once all of their messages are there: nothing may stand between
    /// those.
    fn flush(&mut self, array: &mut Array<'_>) {
        let moved = std::mem::take(&mut self.moved);
        if !moved.is_empty() {
            array.object(|object| {
                object.text("role", "user");
                self.said(Role::User, &moved, object);
            });
        }
    }
}

fn document_url(url: &str, name: Option<&str>, object: &mut Object<'_>) -> bool {
    object.text("type", "document_url");
    object.text("document_url", url);
    object.some_text("document_name", name);
    true
}

pub(super) fn text_part(text: &str, object: &mut Object<'_>) {
    object.text("type", "text");
    object.text("text", text);
}

pub(super) fn text_of<'p>(part: &'p Part<'_>) -> &'p str {
    match &part.kind {
        PartKind::Text { text, .. } | PartKind::Refusal { text } => text,
        _ => "",
    }
}

pub(super) fn joined(parts: &[(String, &Part<'_>)], between: &str) -> String {
    parts.iter().map(|(_, part)| text_of(part)).collect::<Vec<_>>().join(between)
}
