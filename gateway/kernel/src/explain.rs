//! What the stages say of a packet: remembered one by one for `explain`, and as little as a log has room for.

use gateway_common::stages::{Match, Observer, Outcome, Stage};

use crate::rulebook::Name;
use crate::rules::{Entry, StageTrace};

/// What comes of a source's packets, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// The reason's stable name, as in metrics.
    pub reason: &'static str,
    /// The named list of the entry that decides, or would if it were not in shadow mode; `allow`, `ban` or `deny` if it
    /// was made singly.
    pub list: Option<String>,
    /// The label that the entry's hits are counted under.
    pub rule: Option<String>,
}

impl Ruling {
    pub(crate) fn new(reason: &'static str, rule: Option<Name>) -> Self {
        let (list, rule) = rule.map(|rule| (rule.list, rule.label)).unzip();
        Self { reason, list, rule }
    }
}

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
