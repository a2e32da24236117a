//! Reads streams.

use std::borrow::Cow;

use super::failure;
use super::read_message::{extra_content, picture};
use super::reasoning::{Detail, read_detail};
use super::reply_in::{OF_ANSWERS, OF_REPLIES, created, probabilities, stop_text};
use super::stream_parts::{Key, Parts};
use super::usage::decode_usage;
use super::words::{Ending, citation, finish, made_id, natives, sniff_sound};
use crate::dialect::Dialect;
use crate::failure::{Failure, FailureKind};
use crate::frames::Frame;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::{Loss, What};
use crate::neutral::{Delta, End, Event, Native, PartKind, PartStart, Signature, Source, Text, Usage};

/// How many answers and calls there may be: more than anyone asks for.
const MAX_CANDIDATES: usize = 1024;
const MAX_CALLS: usize = 4096;

/// Reads a stream.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    pub(crate) reader: Reader,
    head: Head,
    candidates: Vec<Candidate>,
    usage: Option<Usage>,
    is_over: bool,
}

/// What chunks say of the reply as a whole. The first of Azure's says nothing but what its filter found, and has neither
/// name nor model: the answer begins with the chunk that has choices.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    id: String,
    model: String,
    created: Option<u64>,
    service_tier: Option<String>,
    native: Vec<Native<'static>>,
    /// What came after the beginning.
    late: Vec<Native<'static>>,
}

/// One answer.
#[derive(Debug, Default)]
struct Candidate {
    index: u64,
    parts: Parts,
    calls: Vec<Call>,
    /// Signatures of calls that did not come yet.
    signatures: Vec<(String, Signature<'static>)>,
    refuses: bool,
    /// The summary that is open, by its identity: what is encrypted belongs to it.
    summary: Option<Option<String>>,
    word: Option<String>,
    stop: Option<String>,
    behind: Option<String>,
    native: Vec<Native<'static>>,
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

type Say<'s> = &'s mut dyn FnMut(Event<'_>);

impl StreamDecoder {
    /// Reads a frame, and says what it means.
    pub fn step(&mut self, frame: &Frame<'_>, say: &mut dyn FnMut(Event<'_>)) {
        let data = frame.data.trim();
        if self.is_over || data.is_empty() {
            return;
        }
        if data == "[DONE]" {
            return self.end(say);
        }
        let Ok(node) = parse(data.as_bytes()) else {
            return self
                .fail(Failure::new(FailureKind::Server, "The provider sent an event that is no JSON."), say);
        };
        let has_error = node.get("error").is_some_and(|error| error.value != Value::Null);
        if has_error
            || frame.event == Some("error")
            || node.get("object").and_then(Node::as_text) == Some("error")
        {
            let unknown = || Failure::new(FailureKind::Server, "The provider failed, and did not say why.");
            return self.fail(failure::read(0, &node).unwrap_or_else(unknown), say);
        }
        let mut reader = Reader::default();
        let read = reader.object(node, &Path::Root, |fields, reader| self.chunk(fields, reader, say));
        // What is not known is not known in each chunk.
        for loss in reader.losses.kept() {
            if !self.reader.losses.kept().contains(loss) {
                self.reader.losses.note(loss.clone());
            }
        }
        if let Err(invalid) = read {
            let message = format!("The provider sent an event that cannot be read: {invalid}");
            self.fail(Failure::new(FailureKind::Server, message), say);
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self, end: End, say: &mut dyn FnMut(Event<'_>)) {
        if self.is_over {
            return;
        }
        // Some servers forget [DONE]. Those that were cut off forget why they ended, too.
        let is_whole =
            self.head.has_begun && self.candidates.iter().all(|candidate| candidate.word.is_some());
        match end {
            End::Complete if is_whole => self.end(say),
            End::TimedOut => {
                self.fail(Failure::new(FailureKind::Timeout, "The provider was silent for too long."), say);
            }
            End::Complete | End::Broken => {
                self.fail(Failure::new(FailureKind::Server, "The provider's answer ended too early."), say);
            }
        }
    }

    fn fail(&mut self, failure: Failure, say: Say<'_>) {
        self.is_over = true;
        say(Event::Failed(failure));
    }

    fn end(&mut self, say: Say<'_>) {
        self.is_over = true;
        self.begin(say);
        self.candidates.sort_by_key(|candidate| candidate.index);
        for candidate in &mut self.candidates {
            candidate.flush(&mut self.reader, say);
        }
        let mut late = std::mem::take(&mut self.head.late);
        for candidate in &mut self.candidates {
            let ending = Ending {
                calls_tools: !candidate.calls.is_empty(),
                refuses: candidate.refuses,
                stop: candidate.stop.as_deref(),
                native: candidate.behind.as_deref(),
            };
            let finish = finish(candidate.word.as_deref(), ending);
            let mut native = std::mem::take(&mut candidate.native);
            native.append(&mut late);
            say(Event::Finish { candidate: candidate.index, finish, native });
        }
        if let Some(usage) = self.usage {
            say(Event::Usage(usage));
        }
        say(Event::End);
    }

    fn begin(&mut self, say: Say<'_>) {
        if std::mem::replace(&mut self.head.has_begun, true) {
            return;
        }
        let Head { id, model, created, service_tier, native, .. } = &self.head;
        say(Event::Start {
            id: Cow::Borrowed(id),
            model: Cow::Borrowed(model),
            created: *created,
            usage: None,
            service_tier: service_tier.as_deref().map(Cow::Borrowed),
            native: native.clone(),
        });
    }

    fn chunk<'a>(
        &mut self,
        fields: &mut Fields<'a, '_>,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        fields.take("object");
        // Padding.
        fields.take("obfuscation");
        fields.take("p");
        let choices = fields.take("choices");
        let has_choices =
            matches!(&choices, Some(Node { value: Value::Array(items), .. }) if !items.is_empty());
        self.head.read(fields)?;
        if let Some(usage) = fields.take("usage") {
            self.add(decode_usage(&usage));
        }
        if let Some(usage) = fields.take("x_groq").and_then(|node| node.get("usage").map(decode_usage)) {
            self.add(usage);
        }
        if has_choices {
            self.begin(say);
        }
        if let Some(choices) = choices {
            reader.array(choices, &Path::Root.field("choices"), |node, path, reader| {
                reader.object(node, path, |fields, reader| self.choice(fields, reader, say))
            })?;
        }
        Ok(())
    }

    fn add(&mut self, usage: Usage) {
        self.usage.get_or_insert_default().update(&usage);
    }

    fn choice<'a>(
        &mut self,
        fields: &mut Fields<'a, '_>,
        reader: &mut Reader,
        say: Say<'_>,
    ) -> Result<(), Invalid> {
        let index = fields.whole("index")?.unwrap_or(0);
        // Moonshot tells the usage here.
        if let Some(usage) = fields.take("usage") {
            self.add(decode_usage(&usage));
        }
        let at = match self.candidates.iter().position(|candidate| candidate.index == index) {
            Some(at) => at,
            None if self.candidates.len() < MAX_CANDIDATES => {
                self.candidates.push(Candidate { index, parts: Parts::new(index), ..Candidate::default() });
                self.candidates.len() - 1
            }
            None => return Err(fields.path().refused("There are too many choices.")),
        };
        let candidate = &mut self.candidates[at];
        let path = fields.path();
        // Azure's filter has chunks of its own without it.
        if let Some(delta) = fields.take("delta").or_else(|| fields.take("message")) {
            let made_of = &self.head.id;
            reader.object(delta, &path.field("delta"), |fields, reader| {
                candidate.delta(fields, made_of, reader, say)
            })?;
        }
        fields.take("text");
        if let Some(raw) = fields.take("logprobs").and_then(|node| probabilities(&node)) {
            say(Event::LogProbabilities { candidate: index, raw });
        }
        if let Some(stop) = stop_text(fields.take("stop_reason").or(fields.take("matched_stop"))) {
            candidate.stop = Some(stop.into_owned());
        }
        if let Some(behind) = fields.text("native_finish_reason")? {
            candidate.behind = Some(behind.into_owned());
        }
        for native in natives(fields, OF_ANSWERS) {
            // Azure's filter says it again and again, and the last time for all.
            candidate.native.retain(|known| known.name != native.name);
            candidate.native.push(native.to_static());
        }
        if let Some(word) = fields.text("finish_reason")?.filter(|word| !word.is_empty()) {
            candidate.word = Some(word.into_owned());
            candidate.flush(reader, say);
        }
        Ok(())
    }
}

impl Head {
    fn read(&mut self, fields: &mut Fields<'_, '_>) -> Result<(), Invalid> {
        let id = fields.take("id");
        let model = fields.take("model");
        let created = created(fields)?;
        let tier = fields.text("service_tier")?;
        let text = |node: Option<Node<'_>>| node.and_then(|node| node.as_text().map(str::to_owned));
        if !self.has_begun {
            self.id = text(id).filter(|id| !id.is_empty()).unwrap_or(std::mem::take(&mut self.id));
            self.model =
                text(model).filter(|model| !model.is_empty()).unwrap_or(std::mem::take(&mut self.model));
            self.created = created.filter(|created| *created > 0).or(self.created);
            self.service_tier = tier.map(Cow::into_owned).or(self.service_tier.take());
        }
        for native in natives(fields, OF_REPLIES) {
            // Most say the same in each chunk.
            if self.has_begun && self.native.contains(&native) {
                continue;
            }
            let list = if self.has_begun { &mut self.late } else { &mut self.native };
            list.retain(|known| known.name != native.name);
            list.push(native.to_static());
        }
        Ok(())
    }
}

fn text_start() -> PartStart<'static> {
    PartStart::Text
}

impl Candidate {
    fn delta<'a>(
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
    fn flush(&mut self, reader: &mut Reader, say: Say<'_>) {
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
