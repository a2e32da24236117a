//! Streams and whole replies are the same: [`Fold`] makes a reply of events, [`unfold`] events of a reply.
//!
//! Folding serves clients that do not stream from providers that only do, and metering. Unfolding serves clients that
//! stream from providers that answered whole.

use std::borrow::Cow;

use crate::failure::Failure;
use crate::neutral::{
    Candidate, Citation, Delta, Event, Finish, Native, Part, PartKind, PartStart, Reply, Signature, Source,
    State, Text,
};

/// How large a reply may become, in bytes of its texts. A stream that never ends must not fill the memory.
pub const MAX_REPLY: usize = 64 << 20;

/// Makes a reply of events.
#[derive(Debug, Default)]
pub struct Fold {
    reply: Reply<'static>,
    failed: Option<Failure>,
    has_ended: bool,
    bytes: usize,
}

impl Fold {
    /// Takes the next event.
    pub fn step(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { id, model, created, usage, service_tier, native } => {
                self.reply.id = owned(id);
                self.reply.model = owned(model);
                self.reply.created = *created;
                self.reply.usage = *usage;
                self.reply.service_tier = service_tier.as_ref().map(owned);
                self.reply.native = native.iter().map(Native::to_static).collect();
            }
            Event::PartStart { candidate, index: _, part } => {
                let part = begun(part);
                self.candidate(*candidate).parts.push(part);
            }
            Event::PartDelta { candidate, index, delta } => self.grow(*candidate, *index, delta),
            Event::PartEnd { .. } | Event::Ping => {}
            Event::LogProbabilities { candidate, raw } => {
                let known = self.candidate(*candidate).log_probabilities.get_or_insert_default();
                let known = known.to_mut();
                if !known.is_empty() && !raw.is_empty() {
                    known.push(',');
                }
                known.push_str(raw);
            }
            Event::Finish { candidate, finish, native } => {
                let candidate = self.candidate(*candidate);
                candidate.finish = finish.to_static();
                candidate.native.extend(native.iter().map(Native::to_static));
            }
            Event::Usage(usage) => match &mut self.reply.usage {
                Some(known) => known.update(usage),
                none => *none = Some(*usage),
            },
            Event::Failed(failure) => self.failed = Some(failure.clone()),
            Event::End => self.has_ended = true,
        }
    }

    /// The reply, once the stream has ended.
    ///
    /// # Errors
    /// When the stream failed, ended too early or grew too large.
    pub fn finish(mut self) -> Result<Reply<'static>, Box<Failure>> {
        if let Some(failure) = self.failed {
            return Err(Box::new(failure));
        }
        if self.bytes > MAX_REPLY {
            return Err(Box::new(Failure::new(
                crate::failure::FailureKind::Server,
                "The provider's answer is too large.",
            )));
        }
        if !self.has_ended {
            return Err(Box::new(Failure::new(
                crate::failure::FailureKind::Server,
                "The provider's answer ended too early.",
            )));
        }
        // Which answer a provider begins with is chance; a whole reply has them in order.
        self.reply.candidates.sort_by_key(|candidate| candidate.index);
        Ok(self.reply)
    }

    fn candidate(&mut self, index: u64) -> &mut Candidate<'static> {
        let candidates = &mut self.reply.candidates;
        let at = candidates.iter().position(|candidate| candidate.index == index).unwrap_or_else(|| {
            candidates.push(Candidate {
                index,
                parts: Vec::new(),
                finish: Finish::Stop,
                log_probabilities: None,
                native: Vec::new(),
            });
            candidates.len() - 1
        });
        &mut candidates[at]
    }

    fn grow(&mut self, candidate: u64, index: usize, delta: &Delta<'_>) {
        self.bytes += match delta {
            Delta::Text(text) | Delta::Arguments(text) | Delta::Data(text) | Delta::Transcript(text) => {
                text.len()
            }
            Delta::Signature(signature) => signature.value.len(),
            Delta::Native(native) => native.raw.len(),
            Delta::Citation(_) => 256,
        };
        if self.bytes > MAX_REPLY {
            return;
        }
        let Some(part) = self.candidate(candidate).parts.get_mut(index) else { return };
        match (delta, &mut part.kind) {
            (
                Delta::Text(new),
                PartKind::Text { text, .. } | PartKind::Thinking { text, .. } | PartKind::Refusal { text },
            )
            | (Delta::Arguments(new), PartKind::ToolCall { arguments: text, .. }) => {
                text.to_mut().push_str(new)
            }
            (Delta::Citation(citation), PartKind::Text { citations, .. }) => {
                citations.push(citation.to_static())
            }
            (
                Delta::Data(new),
                PartKind::Audio { source: Source::Data { data, .. }, .. }
                | PartKind::Image { source: Source::Data { data, .. }, .. },
            ) => data.to_mut().push_str(new),
            (Delta::Transcript(new), PartKind::Audio { transcript, .. }) => {
                transcript.get_or_insert_default().to_mut().push_str(new);
            }
            (Delta::Signature(new), _) => match &mut part.state.signature {
                Some(known) if known.by == new.by => known.value.to_mut().push_str(&new.value),
                other => *other = Some(new.to_static()),
            },
            (Delta::Native(new), _) => part.state.native.push(new.to_static()),
            // Something that such a part cannot have.
            _ => {}
        }
    }
}

fn begun(part: &PartStart<'_>) -> Part<'static> {
    let data =
        |media_type: &Text<'_>| Source::Data { media_type: owned(media_type), data: Cow::Borrowed("") };
    Part::new(match part {
        PartStart::Text => PartKind::Text { text: Cow::Borrowed(""), citations: Vec::new() },
        PartStart::Thinking { is_summary, is_redacted, id } => PartKind::Thinking {
            text: Cow::Borrowed(""),
            is_summary: *is_summary,
            is_redacted: *is_redacted,
            id: id.as_ref().map(owned),
        },
        PartStart::ToolCall { id, name, is_custom } => PartKind::ToolCall {
            id: owned(id),
            name: owned(name),
            arguments: Cow::Borrowed(""),
            is_custom: *is_custom,
        },
        PartStart::Refusal => PartKind::Refusal { text: Cow::Borrowed("") },
        PartStart::Audio { media_type } => PartKind::Audio { source: data(media_type), transcript: None },
        PartStart::Image { media_type } => PartKind::Image { source: data(media_type), detail: None },
        PartStart::Native { dialect, kind, raw } => {
            PartKind::Native { dialect: *dialect, kind: owned(kind), raw: owned(raw) }
        }
    })
}

/// Says a reply as a stream would have said it.
pub fn unfold(reply: &Reply<'_>, say: &mut dyn FnMut(Event<'_>)) {
    say(Event::Start {
        id: lent(&reply.id),
        model: lent(&reply.model),
        created: reply.created,
        usage: reply.usage,
        service_tier: reply.service_tier.as_ref().map(lent),
        native: reply.native.clone(),
    });
    for candidate in &reply.candidates {
        for (index, part) in candidate.parts.iter().enumerate() {
            unfold_part(candidate.index, index, part, say);
        }
        if let Some(raw) = &candidate.log_probabilities {
            say(Event::LogProbabilities { candidate: candidate.index, raw: lent(raw) });
        }
    }
    for candidate in &reply.candidates {
        let (finish, native) = (candidate.finish.clone(), candidate.native.clone());
        say(Event::Finish { candidate: candidate.index, finish, native });
    }
    if let Some(usage) = reply.usage {
        say(Event::Usage(usage));
    }
    say(Event::End);
}

fn unfold_part(candidate: u64, index: usize, part: &Part<'_>, say: &mut dyn FnMut(Event<'_>)) {
    let Some((start, deltas)) = pieces(&part.kind) else { return };
    say(Event::PartStart { candidate, index, part: start });
    let signature = part.state.signature.clone().map(Delta::Signature);
    let natives = part.state.native.iter().cloned().map(Delta::Native);
    // What only one dialect knows of a part may decide how its encoder begins it.
    for delta in natives.chain(deltas).chain(signature) {
        say(Event::PartDelta { candidate, index, delta });
    }
    say(Event::PartEnd { candidate, index });
}

/// A part, as it begins and goes on. What no model answers with (results of tools, documents) has none.
fn pieces<'p>(kind: &'p PartKind<'_>) -> Option<(PartStart<'p>, Vec<Delta<'p>>)> {
    let some = |text: &'p Text<'_>, delta: fn(Text<'p>) -> Delta<'p>| {
        if text.is_empty() { Vec::new() } else { vec![delta(lent(text))] }
    };
    Some(match kind {
        PartKind::Text { text, citations } => {
            let mut deltas = some(text, Delta::Text);
            deltas.extend(citations.iter().cloned().map(Delta::Citation));
            (PartStart::Text, deltas)
        }
        PartKind::Thinking { text, is_summary, is_redacted, id } => {
            let (is_summary, is_redacted, id) = (*is_summary, *is_redacted, id.as_ref().map(lent));
            (PartStart::Thinking { is_summary, is_redacted, id }, some(text, Delta::Text))
        }
        PartKind::ToolCall { id, name, arguments, is_custom } => (
            PartStart::ToolCall { id: lent(id), name: lent(name), is_custom: *is_custom },
            some(arguments, Delta::Arguments),
        ),
        PartKind::Refusal { text } => (PartStart::Refusal, some(text, Delta::Text)),
        PartKind::Audio { source: Source::Data { media_type, data }, transcript } => {
            let mut deltas = some(data, Delta::Data);
            deltas.extend(transcript.iter().map(|text| Delta::Transcript(lent(text))));
            (PartStart::Audio { media_type: lent(media_type) }, deltas)
        }
        PartKind::Image { source: Source::Data { media_type, data }, detail: _ } => {
            (PartStart::Image { media_type: lent(media_type) }, some(data, Delta::Data))
        }
        PartKind::Native { dialect, kind, raw } => {
            (PartStart::Native { dialect: *dialect, kind: lent(kind), raw: lent(raw) }, Vec::new())
        }
        PartKind::Image { .. }
        | PartKind::Document { .. }
        | PartKind::Audio { .. }
        | PartKind::Video { .. }
        | PartKind::ToolResult { .. } => return None,
    })
}

fn owned(text: &Text<'_>) -> Text<'static> {
    Cow::Owned(text.to_string())
}

fn lent<'t>(text: &'t Text<'_>) -> Text<'t> {
    Cow::Borrowed(text)
}

impl Finish<'_> {
    /// With texts of its own.
    #[must_use]
    pub fn to_static(&self) -> Finish<'static> {
        match self {
            Self::Stop => Finish::Stop,
            Self::StopSequence(text) => Finish::StopSequence(text.as_ref().map(owned)),
            Self::Length => Finish::Length,
            Self::ToolCalls => Finish::ToolCalls,
            Self::ContentFilter(word) => Finish::ContentFilter(word.as_ref().map(owned)),
            Self::Refusal => Finish::Refusal,
            Self::Pause => Finish::Pause,
            Self::ContextExceeded => Finish::ContextExceeded,
            Self::Other(word) => Finish::Other(owned(word)),
        }
    }
}

impl Native<'_> {
    /// With texts of its own.
    #[must_use]
    pub fn to_static(&self) -> Native<'static> {
        Native::new(self.dialect, self.what, owned(&self.name), owned(&self.raw))
    }
}

impl Signature<'_> {
    /// With text of its own.
    #[must_use]
    pub fn to_static(&self) -> Signature<'static> {
        Signature { by: self.by, value: owned(&self.value) }
    }
}

impl Citation<'_> {
    /// With texts of its own.
    #[must_use]
    pub fn to_static(&self) -> Citation<'static> {
        Citation {
            url: self.url.as_ref().map(owned),
            title: self.title.as_ref().map(owned),
            quote: self.quote.as_ref().map(owned),
            range: self.range,
            native: self.native.as_ref().map(Native::to_static),
        }
    }
}

impl State<'_> {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { cache, signature, native } = self;
        cache.is_none() && signature.is_none() && native.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::loss::What;
    use crate::neutral::Usage;

    fn whole() -> Reply<'static> {
        let signature = Signature { by: Dialect::Gemini, value: "s".into() };
        let thinking = PartKind::Thinking {
            text: "hm".into(),
            is_summary: true,
            is_redacted: false,
            id: Some("r1".into()),
        };
        let call = |id: &'static str, is_custom| PartKind::ToolCall {
            id: id.into(),
            name: "f".into(),
            arguments: "{\"a\":1}".into(),
            is_custom,
        };
        let citation = Citation { url: Some("u".into()), range: Some((0, 1)), ..Citation::default() };
        let media_type: Text<'static> = "image/png".into();
        let source = Source::Data { media_type: media_type.clone(), data: "AAAA".into() };
        let parts = vec![
            Part { kind: thinking, state: State { signature: Some(signature), ..State::default() } },
            Part::new(PartKind::Text { text: "é".into(), citations: vec![citation] }),
            Part::new(call("c1", false)),
            Part {
                kind: call("c2", true),
                state: State {
                    native: vec![Native::new(Dialect::Gemini, What::ToolDetail, "x", "1")],
                    ..State::default()
                },
            },
            Part::new(PartKind::Image { source: source.clone(), detail: None }),
            Part::new(PartKind::Audio { source, transcript: Some("t".into()) }),
            Part::new(PartKind::Native { dialect: Dialect::Gemini, kind: "k".into(), raw: "{}".into() }),
        ];
        let native = vec![Native::new(Dialect::Gemini, What::Safety, "safetyRatings", "[]")];
        let first = Candidate {
            index: 0,
            parts,
            finish: Finish::StopSequence(Some("x".into())),
            log_probabilities: Some("{\"token\":\"a\"}".into()),
            native,
        };
        let refusal = vec![Part::new(PartKind::Refusal { text: "no".into() })];
        let second = Candidate {
            index: 1,
            parts: refusal,
            finish: Finish::Refusal,
            log_probabilities: None,
            native: vec![],
        };
        Reply {
            id: "r".into(),
            model: "m".into(),
            created: Some(7),
            candidates: vec![first, second],
            usage: Some(Usage { input: Some(1), output: Some(2), ..Usage::default() }),
            service_tier: Some("flex".into()),
            native: vec![Native::new(
                Dialect::OpenaiChat,
                What::UnknownField,
                "system_fingerprint",
                "\"fp\"",
            )],
        }
    }

    #[test]
    fn a_reply_that_is_unfolded_folds_to_itself() {
        let mut fold = Fold::default();
        unfold(&whole(), &mut |event| fold.step(&event));
        assert_eq!(fold.finish(), Ok(whole()));
    }

    #[test]
    fn what_is_no_whole_reply_is_an_error() {
        let mut unfinished = Fold::default();
        unfold(&whole(), &mut |event| {
            if event != Event::End {
                unfinished.step(&event);
            }
        });
        assert!(unfinished.finish().is_err(), "it has no end");
        let mut failed = Fold::default();
        let failure = Failure::new(crate::failure::FailureKind::Overloaded, "full");
        unfold(&whole(), &mut |event| failed.step(&event));
        failed.step(&Event::Failed(failure.clone()));
        assert_eq!(failed.finish(), Err(Box::new(failure)));
    }

    #[test]
    fn answers_are_in_order_whichever_began_first() {
        let mut reply = whole();
        reply.candidates.reverse();
        let mut fold = Fold::default();
        unfold(&reply, &mut |event| fold.step(&event));
        assert_eq!(fold.finish(), Ok(whole()));
    }

    #[test]
    fn a_reply_has_a_bound() {
        let mut fold = Fold::default();
        let piece = "a".repeat(1 << 20);
        fold.step(&Event::PartStart { candidate: 0, index: 0, part: PartStart::Text });
        for _ in 0..80 {
            fold.step(&Event::PartDelta {
                candidate: 0,
                index: 0,
                delta: Delta::Text(lent(&Cow::Borrowed(&piece))),
            });
        }
        fold.step(&Event::End);
        assert!(fold.bytes > MAX_REPLY);
        assert!(fold.finish().is_err());
    }
}
