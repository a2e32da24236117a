//! Reads streams.

use std::borrow::Cow;

use super::failure;
use super::reply_in::{OF_ANSWERS, OF_REPLIES, created, probabilities, stop_text};
use super::stream_choice::Candidate;
use super::usage::decode_usage;
use super::words::{Ending, finish, natives};
use crate::failure::{Failure, FailureKind};
use crate::frames::Frame;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::neutral::{End, Event, Native, Usage};

/// How many answers there may be: more than anyone asks for.
const MAX_CANDIDATES: usize = 1024;

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

pub(super) type Say<'s> = &'s mut dyn FnMut(Event<'_>);

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
                calls_tools: candidate.calls_tools(),
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
                self.candidates.push(Candidate::new(index));
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
