//! Writes messages of requests.

use std::borrow::Cow;

use super::reasoning::{Said, write_of_call};
use super::words::{SELF, data_url, format_of, write_citation};
use crate::custom;
use crate::dialect::Dialect;
use crate::json::{Array, Object, object};
use crate::loss::{Losses, What};
use crate::neutral::{Citation, Native, Part, PartKind, Role, Signature, Source, State, Turn, own};
use crate::target::{Files, Images, Quirks, Thoughts};
use crate::tool_ids::fit;

/// What is the same for all messages.
struct Writer<'w> {
    quirks: &'w Quirks,
    losses: &'w mut Losses,
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
    fn is_marked(&self, part: &Part<'_>) -> bool {
        let own = part
            .state
            .native
            .iter()
            .any(|native| native.dialect == SELF && native.name == "prompt_cache_breakpoint");
        own || (part.state.cache.is_some() && self.quirks.cache_marks)
    }

    /// Notes what of a part's state is not written.
    fn state(&mut self, state: &State<'_>, at: &str) {
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
    fn marks(&mut self, state: &State<'_>, at: &str, object: &mut Object<'_>) {
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
    fn part(&mut self, part: &'w Part<'w>, at: &str, array: &mut Array<'_>) {
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
                if self.quirks.audio =>
            {
                object.text("type", "input_audio");
                object.object("input_audio", |object| {
                    object.text("data", data);
                    object.text("format", format_of(media_type));
                });
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
    fn lose(&mut self, part: &Part<'_>, at: String) {
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

    /// Writes what the model said.
    fn assistant(&mut self, parts: &[(String, &'w Part<'w>)], object: &mut Object<'_>) {
        let mut answer = Answer::default();
        for (at, part) in parts {
            self.sort(part, at, &mut answer);
        }
        self.words(&answer, object);
        self.thoughts(&answer, object);
        if let Some((_, id)) = &answer.audio {
            object.object("audio", |object| object.text("id", id));
        }
        if !answer.images.is_empty() {
            object.array("images", |array| {
                answer.images.iter().for_each(|(at, part)| self.part(part, at, array))
            });
        }
        if !answer.calls.is_empty() {
            object.array("tool_calls", |array| answer.calls.iter().for_each(|call| self.call(call, array)));
        }
    }

    fn sort(&mut self, part: &'w Part<'w>, at: &str, answer: &mut Answer<'w>) {
        let at = at.to_owned();
        let place = answer.place();
        match &part.kind {
            PartKind::Text { .. } => answer.texts.push((at, part)),
            PartKind::Refusal { .. } => answer.refusals.push((at, part)),
            PartKind::Thinking { text, is_summary, is_redacted, id } => {
                let (is_summary, is_redacted, id) = (*is_summary, *is_redacted, id.as_deref());
                let signature = part.state.signature.as_ref();
                answer.thoughts.push((at, Said { place, text, is_summary, is_redacted, id, signature }));
            }
            PartKind::ToolCall { .. } => answer.calls.push((at, part)),
            PartKind::Audio { source: Source::File { id, dialect: SELF }, .. } if self.quirks.audio => {
                answer.audio = Some((at, id));
            }
            // OpenRouter gives its models' pictures back as it sent them.
            PartKind::Image { .. } if self.quirks.thoughts == Thoughts::Details => {
                answer.images.push((at, part))
            }
            PartKind::Native { dialect: SELF, .. } => answer.texts.push((at, part)),
            _ => self.lose(part, at),
        }
    }

    /// Writes `content` and `refusal`.
    fn words(&mut self, answer: &Answer<'w>, object: &mut Object<'_>) {
        let Answer { texts, refusals, thoughts, calls, audio, .. } = answer;
        let signed = texts.iter().find_map(|(_, part)| part.state.signature.as_ref());
        let thinks = self.quirks.thoughts == Thoughts::Parts && !thoughts.is_empty();
        let is_marked = texts.iter().any(|(_, part)| self.is_marked(part));
        let is_native = texts.iter().any(|(_, part)| matches!(part.kind, PartKind::Native { .. }));
        let is_list = self.quirks.lists && (texts.len() > 1 || is_marked || thinks || is_native)
            || (self.quirks.refusals && (!texts.is_empty() || refusals.len() > 1) && !refusals.is_empty());
        if is_list {
            object.array("content", |array| {
                if thinks {
                    thoughts.iter().for_each(|(_, said)| write_thought(said, array));
                }
                for (at, part) in texts.iter().chain(refusals) {
                    self.assistant_part(part, at, array);
                }
            });
        } else if let ([(at, part)], true) = (&refusals[..], texts.is_empty() && self.quirks.refusals) {
            self.state(&part.state, at);
            object.null("content");
            object.text("refusal", text_of(part));
        } else if texts.is_empty() && refusals.is_empty() {
            if calls.is_empty() && audio.is_none() {
                object.text("content", "")
            } else {
                object.null("content")
            }
        } else {
            for (at, part) in texts.iter().chain(refusals) {
                let State { cache, signature: _, native } = part.state.clone();
                self.state(&State { cache, signature: None, native }, at);
                match &part.kind {
                    PartKind::Refusal { .. } => self.losses.add(What::Refusal, at),
                    PartKind::Native { .. } => self.losses.add(What::UnknownPart, at),
                    _ => {}
                }
            }
            let all: Vec<_> = texts.iter().chain(refusals).cloned().collect();
            object.text("content", &joined(&all, ""));
        }
        self.annotations(texts, object);
        self.signed_text(signed, object);
    }

    fn assistant_part(&mut self, part: &'w Part<'w>, at: &str, array: &mut Array<'_>) {
        match &part.kind {
            PartKind::Native { raw, .. } => array.raw(raw),
            PartKind::Refusal { text } => array.object(|object| {
                object.text("type", "refusal");
                object.text("refusal", text);
            }),
            _ => array.object(|object| {
                text_part(text_of(part), object);
                let State { cache, signature: _, native } = part.state.clone();
                self.marks(&State { cache, signature: None, native }, at, object);
            }),
        }
    }

    /// Where statements come from is taken back by routers only.
    fn annotations(&mut self, texts: &[(String, &'w Part<'w>)], object: &mut Object<'_>) {
        let mut cited = Vec::new();
        let mut moved = 0;
        for (at, part) in texts {
            if let PartKind::Text { text, citations } = &part.kind {
                let each = citations.iter().enumerate();
                cited.extend(
                    each.map(|(index, citation)| (format!("{at}.citations[{index}]"), citation, moved)),
                );
                moved += text.chars().count() as u64;
            }
        }
        if cited.is_empty() {
        } else if self.quirks.thoughts == Thoughts::Details {
            object.array("annotations", |array| {
                for (at, citation, moved) in cited {
                    write_citation(array, citation, moved, || at, self.losses);
                }
            });
        } else {
            cited.into_iter().for_each(|(at, ..)| self.losses.add(What::Citation, at));
        }
    }

    fn signed_text(&mut self, signature: Option<&Signature<'_>>, object: &mut Object<'_>) {
        let Some(signature) = signature else { return };
        match signature.for_provider(Dialect::Gemini) {
            Some(value) if self.quirks.extra_content => extra_content(value, object),
            _ => self.losses.add(What::Signature, "turns.signature"),
        }
    }

    fn thoughts(&mut self, answer: &Answer<'w>, object: &mut Object<'_>) {
        let Answer { thoughts, calls, .. } = answer;
        match self.quirks.thoughts {
            Thoughts::Details => {
                let signed: Vec<_> =
                    calls.iter().filter(|(_, part)| part.state.signature.is_some()).collect();
                if thoughts.is_empty() && signed.is_empty() {
                    return;
                }
                object.array("reasoning_details", |array| {
                    thoughts.iter().for_each(|(_, said)| said.write(array));
                    for (index, (_, part)) in signed.into_iter().enumerate() {
                        if let (PartKind::ToolCall { id, .. }, Some(signature)) =
                            (&part.kind, &part.state.signature)
                        {
                            write_of_call(
                                array,
                                &fit(id, self.quirks.tool_ids),
                                signature,
                                thoughts.len() + index,
                            );
                        }
                    }
                });
            }
            Thoughts::Field(name) => {
                let all: String = thoughts.iter().map(|(_, said)| said.text).collect();
                if !all.is_empty() {
                    object.text(name, &all);
                }
                for (at, said) in thoughts {
                    if said.is_redacted {
                        self.losses.add(What::ReasoningBlock, at);
                    } else if said.signature.is_some() {
                        self.losses.add(What::Signature, format!("{at}.signature"));
                    }
                }
            }
            Thoughts::Parts => {
                let hidden = thoughts.iter().filter(|(_, said)| said.is_redacted);
                hidden.for_each(|(at, _)| self.losses.add(What::ReasoningBlock, at));
            }
            Thoughts::None => thoughts.iter().for_each(|(at, _)| self.losses.add(What::ReasoningBlock, at)),
        }
    }

    fn call(&mut self, (at, part): &(String, &'w Part<'w>), array: &mut Array<'_>) {
        let PartKind::ToolCall { id, name, arguments, is_custom } = &part.kind else { return };
        array.object(|object| {
            object.text("id", &fit(id, self.quirks.tool_ids));
            if *is_custom && !self.quirks.custom_tools {
                // As a function with one argument: what is in the history must be JSON.
                self.losses.add(What::CustomTool, at);
                write_call(name, &custom::arguments(arguments), false, object);
            } else {
                write_call(name, arguments, *is_custom, object);
            }
            let State { cache, signature, native } = &part.state;
            if cache.is_some() {
                self.losses.add(What::CacheControl, format!("{at}.cache"));
            }
            if let Some(signature) = signature {
                match signature.for_provider(Dialect::Gemini) {
                    Some(value) if self.quirks.extra_content => extra_content(value, object),
                    _ if self.quirks.thoughts == Thoughts::Details => {}
                    _ => self.losses.add(What::Signature, format!("{at}.signature")),
                }
            }
            for native in own(native, SELF, at, self.losses) {
                object.raw(&native.name, &native.raw);
            }
        });
    }
}

/// What an assistant's message is made of.
#[derive(Debug, Default)]
struct Answer<'w> {
    texts: Vec<(String, &'w Part<'w>)>,
    refusals: Vec<(String, &'w Part<'w>)>,
    thoughts: Vec<(String, Said<'w>)>,
    calls: Vec<(String, &'w Part<'w>)>,
    images: Vec<(String, &'w Part<'w>)>,
    audio: Option<(String, &'w str)>,
}

impl Answer<'_> {
    /// How many parts there are so far, as a reader of the message will count them.
    fn place(&self) -> usize {
        let Self { texts, refusals, thoughts, calls, images, audio } = self;
        texts.len()
            + refusals.len()
            + thoughts.len()
            + calls.len()
            + images.len()
            + usize::from(audio.is_some())
    }
}

/// Writes what is called, with what.
pub(super) fn write_call(name: &str, arguments: &str, is_custom: bool, object: &mut Object<'_>) {
    let (kind, field) = if is_custom { ("custom", "input") } else { ("function", "arguments") };
    object.text("type", kind);
    object.object(kind, |object| {
        object.text("name", name);
        // Clients and servers parse it, and nothing is no JSON.
        object.text(field, if arguments.is_empty() && !is_custom { "{}" } else { arguments });
    });
}

/// Writes a signature where Gemini's compatible address has it.
pub(super) fn extra_content(signature: &str, object: &mut Object<'_>) {
    object.object("extra_content", |object| {
        object.object("google", |object| object.text("thought_signature", signature));
    });
}

fn write_thought(said: &Said<'_>, array: &mut Array<'_>) {
    if said.is_redacted {
        return;
    }
    array.object(|object| {
        object.text("type", "thinking");
        object.array("thinking", |array| array.object(|object| text_part(said.text, object)));
        let signature = said.signature.and_then(|signature| signature.for_provider(SELF));
        object.some_text("signature", signature);
    });
}

fn document_url(url: &str, name: Option<&str>, object: &mut Object<'_>) -> bool {
    object.text("type", "document_url");
    object.text("document_url", url);
    object.some_text("document_name", name);
    true
}

fn text_part(text: &str, object: &mut Object<'_>) {
    object.text("type", "text");
    object.text("text", text);
}

fn text_of<'p>(part: &'p Part<'_>) -> &'p str {
    match &part.kind {
        PartKind::Text { text, .. } | PartKind::Refusal { text } => text,
        _ => "",
    }
}

fn joined(parts: &[(String, &Part<'_>)], between: &str) -> String {
    parts.iter().map(|(_, part)| text_of(part)).collect::<Vec<_>>().join(between)
}
