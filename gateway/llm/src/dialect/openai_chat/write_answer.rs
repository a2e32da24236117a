//! Writes what the model said, as a message of a request.

use super::reasoning::{Said, write_of_call};
use super::words::{SELF, write_citation};
use super::write_message::{Writer, joined, text_of, text_part};
use crate::custom;
use crate::dialect::Dialect;
use crate::json::{Array, Object};
use crate::loss::What;
use crate::neutral::{Part, PartKind, Source, State, own};
use crate::target::{Sounds, Thoughts};
use crate::tool_ids::fit;

impl<'w> Writer<'w> {
    /// Writes what the model said.
    pub(super) fn assistant(&mut self, parts: &[(String, &'w Part<'w>)], object: &mut Object<'_>) {
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
            PartKind::Text { .. } | PartKind::Refusal { .. } => {
                // A message says its words first and its calls then. A second message for what follows a call is no way
                // out: only results may follow one that calls.
                if !answer.calls.is_empty() && !text_of(part).trim().is_empty() {
                    self.losses.add(What::PartOrder, &*at);
                }
                let is_text = matches!(part.kind, PartKind::Text { .. });
                if is_text { &mut answer.texts } else { &mut answer.refusals }.push((at, part));
            }
            PartKind::Thinking { text, is_summary, is_redacted, id } => {
                let (is_summary, is_redacted, id) = (*is_summary, *is_redacted, id.as_deref());
                let signature = part.state.signature.as_ref();
                answer.thoughts.push((at, Said { place, text, is_summary, is_redacted, id, signature }));
            }
            PartKind::ToolCall { .. } => answer.calls.push((at, part)),
            PartKind::Audio { source: Source::File { id, dialect: SELF }, .. }
                if self.quirks.audio == Sounds::Openai =>
            {
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
        self.signed_text(texts, object);
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

    /// Writes the signature of a text. A message has room for one.
    fn signed_text(&mut self, texts: &[(String, &'w Part<'w>)], object: &mut Object<'_>) {
        let mut has_one = false;
        for (at, part) in texts {
            let Some(signature) = &part.state.signature else { continue };
            match signature.for_provider(Dialect::Gemini) {
                Some(value) if self.quirks.extra_content && !has_one => {
                    has_one = true;
                    extra_content(value, object);
                }
                _ => self.losses.add(What::Signature, format!("{at}.signature")),
            }
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
