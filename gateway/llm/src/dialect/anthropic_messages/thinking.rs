//! What a model is told of thinking. The table is in the module's documentation.

use super::DIALECT;
use crate::json::Object;
use crate::loss::{Losses, What};
use crate::neutral::{Native, Reasoning};
use crate::target::{Model, Thinking};

/// No budget is smaller.
const MIN_BUDGET: u64 = 1024;

/// What is said in `thinking` and `output_config`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan<'r> {
    pub(super) thinking: Option<Config<'r>>,
    pub(super) effort: Option<&'r str>,
}

/// `thinking`
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Config<'r> {
    Enabled {
        budget: u64,
        display: Option<&'r str>,
    },
    Adaptive {
        display: Option<&'r str>,
    },
    Disabled,
    /// As the client wrote it.
    Raw(&'r str),
}

/// What stands in the way of thinking, whoever asks for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Obstacles {
    /// A tool must be called.
    pub(super) is_forced: bool,
    /// The turn that is gone on with has no thoughts.
    pub(super) lacks_thoughts: bool,
    /// The bound on the answer.
    pub(super) max_tokens: u64,
}

impl<'r> Plan<'r> {
    /// What a model is told.
    pub(super) fn of(
        reasoning: Option<&'r Reasoning<'_>>,
        native: &'r [Native<'_>],
        facts: &Model,
        obstacles: Obstacles,
        losses: &mut Losses,
    ) -> Self {
        let own = native.iter().find(|native| native.dialect == DIALECT && native.name == "thinking");
        let mut plan = match (own, reasoning) {
            (Some(own), _) => {
                let effort = reasoning.and_then(|asked| asked.effort.as_deref());
                Self { thinking: Some(Config::Raw(&own.raw)), effort }
            }
            (None, Some(asked)) => Self::by_style(asked, facts.thinking, obstacles, losses),
            (None, None) => return Self::default(),
        };
        let refused = match &plan.thinking {
            Some(Config::Enabled { .. }) => obstacles.is_forced || obstacles.lacks_thoughts,
            Some(Config::Adaptive { .. }) => obstacles.is_forced,
            Some(Config::Disabled | Config::Raw(_)) | None => false,
        };
        if refused {
            losses.add(What::Reasoning, "reasoning");
            plan.thinking = None;
        }
        plan
    }

    fn by_style(
        asked: &'r Reasoning<'_>,
        style: Option<Thinking>,
        obstacles: Obstacles,
        losses: &mut Losses,
    ) -> Self {
        let Reasoning { enabled, effort, budget, summary } = asked;
        let effort = effort.as_deref();
        let is_off = *enabled == Some(false) || effort == Some("none");
        let wants = *enabled == Some(true) || budget.is_some();
        match style {
            Some(Thinking::None) => {
                if !is_off && (wants || effort.is_some()) {
                    losses.add(What::Reasoning, "reasoning");
                }
                Self::default()
            }
            Some(Thinking::Budget { min: _, max: _, can_be_off }) if is_off => {
                if !can_be_off {
                    losses.add(What::Reasoning, "reasoning");
                }
                let thinking = can_be_off.then_some(Config::Disabled);
                Self { thinking, effort: None }
            }
            Some(Thinking::Budget { min, max, can_be_off: _ }) => {
                if !wants && effort.is_none() {
                    return Self::default();
                }
                let display = display(summary.as_deref(), losses);
                let budget = budgeted(*budget, effort, min, max, obstacles.max_tokens, losses);
                let thinking = budget.map(|budget| Config::Enabled { budget, display });
                // Only a client of this dialect can have said both.
                let effort = effort.filter(|_| asked.budget.is_some());
                Self { thinking, effort }
            }
            None if budget.is_some() && !is_off => {
                let display = display(summary.as_deref(), losses);
                let budget = budgeted(*budget, None, 0, u64::MAX, obstacles.max_tokens, losses);
                let thinking = budget.map(|budget| Config::Enabled { budget, display });
                Self { thinking, effort: worded(effort, losses) }
            }
            Some(Thinking::Effort | Thinking::Adaptive) | None => {
                let effort_of_budget = budget.map(|budget| {
                    // A bound on tokens becomes a word.
                    losses.add(What::Reasoning, "reasoning.budget");
                    effort_of(budget)
                });
                let effort =
                    if is_off { worded(effort, losses) } else { worded(effort.or(effort_of_budget), losses) };
                let speaks = style != Some(Thinking::Effort);
                let is_implied = style == Some(Thinking::Adaptive) && effort.is_some();
                let thinking = if is_off {
                    speaks.then_some(Config::Disabled)
                } else if speaks && (wants || is_implied || summary.is_some() && style.is_some()) {
                    Some(Config::Adaptive { display: display(summary.as_deref(), losses) })
                } else {
                    if summary.is_some() {
                        losses.add(What::Reasoning, "reasoning.summary");
                    }
                    None
                };
                Self { thinking, effort }
            }
        }
    }

    /// Whether the model thinks because of it.
    pub(super) fn thinks(&self) -> bool {
        match &self.thinking {
            Some(Config::Enabled { .. } | Config::Adaptive { .. }) => true,
            Some(Config::Raw(raw)) => raw.contains("\"adaptive\"") || raw.contains("\"enabled\""),
            Some(Config::Disabled) | None => false,
        }
    }

    /// Writes `thinking`.
    pub(super) fn write(&self, object: &mut Object<'_>) {
        let Some(config) = &self.thinking else { return };
        if let Config::Raw(raw) = config {
            return object.raw("thinking", raw);
        }
        object.object("thinking", |object| match config {
            Config::Enabled { budget, display } => {
                object.text("type", "enabled");
                object.whole("budget_tokens", *budget);
                object.some_text("display", *display);
            }
            Config::Adaptive { display } => {
                object.text("type", "adaptive");
                object.some_text("display", *display);
            }
            Config::Disabled => object.text("type", "disabled"),
            Config::Raw(_) => {}
        });
    }
}

/// How thoughts are shown, in this dialect's words.
fn display<'r>(summary: Option<&'r str>, losses: &mut Losses) -> Option<&'r str> {
    match summary? {
        own @ ("summarized" | "omitted" | "updates") => Some(own),
        "none" => Some("omitted"),
        "auto" => Some("summarized"),
        _ => {
            // How long a summary is cannot be said.
            losses.add(What::Reasoning, "reasoning.summary");
            Some("summarized")
        }
    }
}

/// An effort in this dialect's words.
fn worded<'r>(effort: Option<&'r str>, losses: &mut Losses) -> Option<&'r str> {
    match effort? {
        known @ ("low" | "medium" | "high" | "xhigh" | "max") => Some(known),
        "none" => None,
        "minimal" => {
            losses.add(What::Reasoning, "reasoning.effort");
            Some("low")
        }
        _ => {
            losses.add(What::Reasoning, "reasoning.effort");
            None
        }
    }
}

/// The tokens that a model may think, or none where there is no room for them.
fn budgeted(
    asked: Option<u64>,
    effort: Option<&str>,
    min: u64,
    max: u64,
    max_tokens: u64,
    losses: &mut Losses,
) -> Option<u64> {
    let least = min.max(MIN_BUDGET);
    let most = max.min(max_tokens.saturating_sub(1));
    if most < least {
        losses.add(What::Reasoning, "reasoning");
        return None;
    }
    let Some(asked) = asked else {
        return Some(budget_of(effort).min(max_tokens / 2).clamp(least, most));
    };
    let budget = asked.clamp(least, most);
    if budget != asked {
        losses.add(What::Reasoning, "reasoning.budget");
    }
    Some(budget)
}

fn budget_of(effort: Option<&str>) -> u64 {
    match effort {
        Some("minimal" | "low") => 1024,
        Some("high") => 24_576,
        Some("xhigh") => 32_768,
        Some("max") => u64::MAX,
        _ => 8192,
    }
}

fn effort_of(budget: u64) -> &'static str {
    match budget {
        ..=2048 => "low",
        2049..=8192 => "medium",
        8193..=32_768 => "high",
        _ => "max",
    }
}
