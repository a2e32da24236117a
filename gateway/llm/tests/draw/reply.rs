//! Replies.

use gateway_llm::loss::What;
use gateway_llm::neutral::{Candidate, Finish, Part, PartKind, Reply, State, Usage};

use super::Draw;

impl Draw<'_> {
    /// A reply, as a provider of any dialect could have given it.
    pub(crate) fn reply(&mut self) -> Reply<'static> {
        let mut candidates = vec![self.candidate(0)];
        if self.chance(6) {
            let before = self.marks.len();
            candidates.push(self.candidate(1));
            // One answer is all that some dialects have.
            for mark in &mut self.marks[before..] {
                mark.may_be.push(What::Candidates);
            }
        }
        Reply {
            id: "id-of-provider".into(),
            model: "model-of-provider".into(),
            created: self.some(2, |_| 1_700_000_000),
            candidates,
            usage: self.some(1, Self::usage),
            service_tier: self.some(6, |draw| draw.pick(&["default", "flex", "priority"]).into()),
            native: self.natives(),
        }
    }

    fn candidate(&mut self, index: u64) -> Candidate<'static> {
        let mut parts = Vec::new();
        if self.chance(3) {
            parts.push(self.thinking(&[What::Reasoning, What::ReasoningBlock]));
        }
        let texts = self.below(3);
        for _ in 0..texts {
            parts.push(self.answer_part());
        }
        let calls = self.many(2, |draw| draw.call(&[What::CustomTool]).0);
        let finish = if calls.is_empty() { self.finish() } else { Finish::ToolCalls };
        parts.extend(calls);
        let log_probabilities = self.some(9, |draw| {
            let token = draw.mark(&[What::LogProbabilities]);
            format!(r#"{{"token":"{token}","logprob":-0.5,"bytes":[104],"top_logprobs":[]}}"#).into()
        });
        Candidate { index, parts, finish, log_probabilities, native: self.natives() }
    }

    fn answer_part(&mut self) -> Part<'static> {
        match self.below(8) {
            0..=5 => {
                let text = self.mark(&[]).into();
                let citations = self.some(6, |draw| vec![draw.citation()]).unwrap_or_default();
                let signature = self.some(9, Self::signature);
                let kind = PartKind::Text { text, citations };
                Part { kind, state: State { signature, ..State::default() } }
            }
            6 => Part::new(PartKind::Refusal { text: self.mark(&[What::Refusal]).into() }),
            _ => self.native_part(),
        }
    }

    fn finish(&mut self) -> Finish<'static> {
        match self.below(6) {
            0..=2 => Finish::Stop,
            3 => Finish::Length,
            4 => Finish::ContentFilter(None),
            _ => Finish::StopSequence(None),
        }
    }

    fn usage(&mut self) -> Usage {
        let (read, written) = (self.below(50) as u64, self.below(50) as u64);
        let reasoning = self.below(20) as u64;
        Usage {
            input: Some(200 + self.below(50) as u64),
            output: Some(50 + self.below(50) as u64),
            cache_read: self.some(2, |_| read),
            cache_written: self.some(4, |_| written),
            reasoning: self.some(3, |_| reasoning),
            ..Usage::default()
        }
    }
}
