//! Remembers what each stage said of a packet, for `explain`.

use gateway_common::stages::{Match, Observer, Outcome, Stage};

use crate::rules::{Entry, StageTrace};

/// The stages a packet went through, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    matched: Option<Match>,
    stages: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    stage: Stage,
    outcome: Outcome,
    matched: Option<Match>,
}

impl Observer for Trace {
    fn matched(&mut self, found: &Match) {
        self.matched = Some(*found);
    }

    fn left(&mut self, stage: Stage, outcome: Outcome) {
        self.stages.push(Step { stage, outcome, matched: self.matched.take() });
    }
}

impl Trace {
    /// The stages in words; `read_back` makes what was found readable.
    pub(crate) fn into_stages(self, read_back: impl Fn(&Match) -> Option<Entry>) -> Vec<StageTrace> {
        let stages = self.stages.into_iter().map(|step| StageTrace {
            stage: step.stage.name().to_owned(),
            outcome: match step.outcome {
                Outcome::Next => "next",
                Outcome::Shadow(_) => "shadow",
                Outcome::Decided(judgement) => judgement.verdict().name(),
            }
            .to_owned(),
            entry: step.matched.as_ref().and_then(&read_back),
        });
        stages.collect()
    }
}
