//! Reads what a stream says of one choice: its parts, in whatever pieces a server sends them.

use std::borrow::Cow;

use super::read_message::{extra_content, picture};
use super::reasoning::{Detail, read_detail};
use super::stream_in::Say;
use super::stream_parts::{Key, Parts};
use super::words::{citation, made_id, natives, sniff_sound};
use crate::dialect::Dialect;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::{Loss, What};
use crate::neutral::{Delta, Native, PartKind, PartStart, Signature, Source, Text};

/// How many calls there may be: more than any model makes.
const MAX_CALLS: usize = 4096;

/// One answer.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    pub(super) index: u64,
    parts: Parts,
    calls: Vec<Call>,
    /// Signatures of calls that did not come yet.
    signatures: Vec<(String, Signature<'static>)>,
    pub(super) refuses: bool,
    /// The summary that is open, by its identity: what is encrypted belongs to it.
    summary: Option<Option<String>>,
    pub(super) word: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) behind: Option<String>,
    pub(super) native: Vec<Native<'static>>,
}

#[derive(Debug, Default)]
struct Call {
    /// As the server counts it.
    index: Option<u64>,
    id: String,
    /// As the server wrote it, where it did.
    given: String,
    name: String,
    is_custom: bool,
    /// What came before the name did.
    before: String,
}

fn text_start() -> PartStart<'static> {
    PartStart::Text
}

impl Candidate {
    pub(super) fn new(index: u64) -> Self {
        Self { index, parts: Parts::new(index), ..Self::default() }
    }

    pub(super) const fn calls_tools(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Reads what is new of it.
    pub(super) fn delta<'a>(
        &mut self,
        fields: &mut Fields<'a, '_>,
        made_of: &str,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        fields.take("role");
        self.thoughts(fields, reader, say)?;
        let path = fields.path();
        match fields.take("content") {
            Some(Node { value: Value::Array(_), raw }) => {
                self.list(raw, &path.field("content"), reader, say)?
            }
            Some(node) => {
                let text = node.into_text(&path.field("content"))?;
                if !text.is_empty() {
                    self.parts.piece(Key::Text, text_start, Some(Delta::Text(text)), say);
                }
            }
            None => {}
        }
        if let Some(text) = fields.text("refusal")?.filter(|text| !text.is_empty()) {
            self.refuses = true;
            self.parts.piece(Key::Refusal, || PartStart::Refusal, Some(Delta::Text(text)), say);
        }
        if let Some(Node { value: Value::Array(items), .. }) = fields.take("annotations") {
            for item in items {
                self.parts.piece(Key::Text, text_start, Some(Delta::Citation(citation(item))), say);
            }
        }
        if let Some(signature) = extra_content(fields, reader)? {
            self.parts.piece(Key::Text, text_start, Some(Delta::Signature(signature)), say);
        }
        if let Some(audio) = fields.take("audio") {
            self.audio(audio, &path.field("audio"), reader, say)?;
        }
        if let Some(images) = fields.take("images") {
            for part in reader.array(images, &path.field("images"), picture)? {
                if let PartKind::Image { source: Source::Data { media_type, data }, .. } = part.kind {
                    let start = || PartStart::Image { media_type: Cow::Owned(media_type.into_owned()) };
                    self.parts.piece(Key::Whole, start, Some(Delta::Data(data)), say);
                } else {
                    reader.loses(What::Image, &path.field("images"));
                }
            }
        }
        if let Some(calls) = fields.take("tool_calls") {
            reader.array(calls, &path.field("tool_calls"), |node, path, reader| {
                reader.object(node, path, |fields, reader| self.call(fields, made_of, reader, say))
            })?;
        }
        if let Some(call) = fields.take("function_call") {
            reader.object(call, &path.field("function_call"), |fields, reader| {
                let (name, arguments) = (fields.text("name")?, fields.text("arguments")?);
                self.call_piece(Some(0), None, name, false, arguments, None, made_of, reader, say)
            })?;
        }
        Ok(())
    }

    /// Mistral's content, in parts.
    fn list(&mut self, raw: &str, path: &Path<'_>, reader: &mut Reader, say: Say<'_>) -> Result<(), Invalid> {
        let parts = super::read_message::content(parse(raw.as_bytes())?, path, reader)?;
        for part in parts {
            match part.kind {
                PartKind::Text { text, .. } => {
                    self.parts.piece(Key::Text, text_start, Some(Delta::Text(text)), say)
                }
                PartKind::Thinking { text, .. } => {
                    let start = || PartStart::Thinking { is_summary: false, is_redacted: false, id: None };
                    let key = Key::Thinking(None, false);
                    self.parts.piece(key, start, Some(Delta::Text(text)), say);
                    if let Some(signature) = part.state.signature {
                        self.parts.piece(key, start, Some(Delta::Signature(signature)), say);
                    }
                }
                _ => reader.loses(What::UnknownPart, path),
            }
        }
        Ok(())
    }

    fn thoughts<'a>(
        &mut self,
        fields: &mut Fields<'a, '_>,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        let content = fields.text("reasoning_content")?;
        let plain = fields.text("reasoning")?;
        let mut has_details = false;
        if let Some(details) = fields.take("reasoning_details") {
            let path = fields.path().field("reasoning_details");
            for detail in reader.array(details, &path, read_detail)?.into_iter().flatten() {
                has_details = true;
                self.detail(detail, reader, say);
            }
        }
        if let Some(text) = content.or(plain).filter(|text| !has_details && !text.is_empty()) {
            let start = || PartStart::Thinking { is_summary: false, is_redacted: false, id: None };
            self.parts.piece(Key::Thinking(None, false), start, Some(Delta::Text(text)), say);
        }
        Ok(())
    }

    fn detail(&mut self, detail: Detail<'_>, reader: &mut Reader, say: Say<'_>) {
        let Detail { index, text, is_summary, is_encrypted, signature, id } = detail;
        let by = signature.as_ref().map(|signature| signature.by);
        let owned = |id: &Option<Text<'_>>| id.as_ref().map(|id| id.to_string());
        if is_encrypted {
            let Some(signature) = signature else { return };
            if let (Some(id), Some(Dialect::Gemini)) = (&id, by) {
                return self.sign_call(id, &signature, reader, say);
            }
            if self.summary.as_ref() == Some(&owned(&id))
                && let Some(key @ Key::Thinking(_, true)) = self.parts.open()
            {
                self.summary = None;
                return self.parts.piece(key, text_start, Some(Delta::Signature(signature)), say);
            }
            let is_summary = by == Some(Dialect::OpenaiResponses);
            let id = owned(&id).map(Cow::Owned);
            let start = || PartStart::Thinking { is_summary, is_redacted: !is_summary, id };
            return self.parts.piece(Key::Whole, start, Some(Delta::Signature(signature)), say);
        }
        let key = Key::Thinking(Some(index.unwrap_or(0)), is_summary);
        if !self.parts.is_open(key) {
            self.summary = is_summary.then(|| owned(&id));
        }
        let start = || PartStart::Thinking { is_summary, is_redacted: false, id: owned(&id).map(Cow::Owned) };
        self.parts.piece(
            key,
            start,
            Some(Delta::Text(text)).filter(|delta| *delta != Delta::Text("".into())),
            say,
        );
        if let Some(signature) = signature {
            self.parts.piece(key, start, Some(Delta::Signature(signature)), say);
        }
    }

    /// OpenRouter says Gemini's signature of a call by the call's identity, before or behind the call.
    fn sign_call(&mut self, id: &str, signature: &Signature<'_>, reader: &mut Reader, say: Say<'_>) {
        match self.calls.iter().position(|call| call.id == id && !call.name.is_empty()) {
            Some(at) => {
                if self.parts.late(Key::Call(at), Delta::Signature(signature.to_static()), say) {
                    reader.losses.note(Loss::new(What::Signature, "reasoning_details"));
                }
            }
            None => self.signatures.push((id.to_owned(), signature.to_static())),
        }
    }

    fn audio(
        &mut self,
        node: Node<'_>,
        path: &Path<'_>,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        reader.object(node, path, |fields, _| {
            let data = fields.text("data")?;
            let media_type = data.as_deref().map_or("audio/pcm", sniff_sound);
            let mut piece = |delta| {
                let start = || PartStart::Audio { media_type: Cow::Borrowed(media_type) };
                self.parts.piece(Key::Audio, start, Some(delta), say);
            };
            for native in natives(fields, &[("id", What::Audio), ("expires_at", What::Audio)]) {
                piece(Delta::Native(native));
            }
            if let Some(transcript) = fields.text("transcript")? {
                piece(Delta::Transcript(transcript));
            }
            if let Some(data) = data {
                piece(Delta::Data(data));
            }
            Ok(())
        })
    }

    fn call<'a>(
        &mut self,
        fields: &mut Fields<'a, '_>,
        made_of: &str,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        let path = fields.path();
        let index = fields.whole("index")?;
        let id = fields.text("id")?.filter(|id| !id.is_empty() && id != "null");
        let kind = fields.text("type")?;
        let signature = extra_content(fields, reader)?;
        let custom = fields.take("custom");
        let is_custom = custom.is_some() || kind.as_deref() == Some("custom");
        let mut piece = (None, None);
        if let Some(node) = custom {
            piece = reader.object(node, &path.field("custom"), |fields, _| {
                Ok((fields.text("name")?, fields.text("input")?))
            })?;
        } else if let Some(node) = fields.take("function") {
            piece = reader.object(node, &path.field("function"), |fields, _| {
                let name = fields.text("name")?;
                let arguments = match fields.take("arguments") {
                    // Ollama's are an object.
                    Some(Node { value: Value::Object(_), raw }) => Some(Cow::Borrowed(raw)),
                    Some(node) => Some(node.into_text(&path.field("function").field("arguments"))?),
                    None => None,
                };
                Ok((name, arguments))
            })?;
        }
        self.call_piece(index, id, piece.0, is_custom, piece.1, signature, made_of, reader, say)
    }

    /// Which call a piece belongs to. An index that comes with another identity than before is one that the server gives
    /// to all its calls.
    fn find_call(&mut self, index: Option<u64>, id: Option<&str>, is_named: bool) -> Option<usize> {
        let known = match (index, id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.given == id),
            (None, None) if is_named => None,
            (None, None) => self.calls.len().checked_sub(1),
        };
        let is_other = |at: &usize| {
            let given = &self.calls[*at].given;
            id.is_some_and(|id| !given.is_empty() && given != id)
        };
        known.filter(|at| !is_other(at)).or_else(|| {
            if self.calls.len() >= MAX_CALLS {
                return None;
            }
            self.calls.push(Call { index, ..Call::default() });
            Some(self.calls.len() - 1)
        })
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "they are the fields of a piece, said once here and once in each of two places"
    )]
    fn call_piece(
        &mut self,
        index: Option<u64>,
        id: Option<Text<'_>>,
        name: Option<Text<'_>>,
        is_custom: bool,
        arguments: Option<Text<'_>>,
        signature: Option<Signature<'_>>,
        made_of: &str,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        let name = name.filter(|name| !name.is_empty());
        let Some(at) = self.find_call(index, id.as_deref(), name.is_some()) else {
            return Err(Path::Root.refused("There are too many tool calls."));
        };
        let candidate = self.index;
        let call = &mut self.calls[at];
        if let Some(id) = &id {
            call.given = id.to_string();
        }
        if call.name.is_empty() {
            let Some(name) = name else {
                call.before.push_str(&arguments.unwrap_or_default());
                return Ok(());
            };
            call.name = name.into_owned();
            call.is_custom = is_custom;
            call.id = if call.given.is_empty() {
                made_id(&made_of_candidate(made_of, candidate), 0, at)
            } else {
                call.given.clone()
            };
            let start = || PartStart::ToolCall {
                id: Cow::Owned(call.id.clone()),
                name: Cow::Owned(call.name.clone()),
                is_custom,
            };
            let before = std::mem::take(&mut call.before);
            let known = self.signatures.iter().position(|(id, _)| *id == call.id);
            let known = known.map(|known| self.signatures.swap_remove(known).1);
            self.parts.piece(Key::Call(at), start, None, say);
            let signed = signature.map(|signature| signature.to_static()).or(known);
            if let Some(signature) = signed {
                self.parts.late(Key::Call(at), Delta::Signature(signature), say);
            }
            if !before.is_empty() {
                self.parts.late(Key::Call(at), Delta::Arguments(Cow::Owned(before)), say);
            }
        } else if let Some(signature) = signature
            && self.parts.late(Key::Call(at), Delta::Signature(signature), say)
        {
            reader.losses.note(Loss::new(What::Signature, "tool_calls"));
        }
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty())
            && self.parts.late(Key::Call(at), Delta::Arguments(arguments), say)
        {
            // The call was complete, and something followed it all the same.
            reader.losses.note(Loss::new(What::UnknownPart, "tool_calls"));
        }
        Ok(())
    }

    /// All parts are complete. A call that never got a name is none.
    pub(super) fn flush(&mut self, reader: &mut Reader, say: Say<'_>) {
        self.parts.finish(say);
        if self.calls.iter().any(|call| call.name.is_empty()) {
            reader.losses.note(Loss::new(What::UnknownPart, "tool_calls"));
            self.calls.retain(|call| !call.name.is_empty());
        }
        if !self.signatures.is_empty() {
            self.signatures.clear();
            reader.losses.note(Loss::new(What::Signature, "reasoning_details"));
        }
    }
}

fn made_of_candidate(id: &str, candidate: u64) -> String {
    if candidate == 0 { id.to_owned() } else { format!("{id}{candidate}") }
}
