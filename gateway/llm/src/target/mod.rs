//! What a request is written for: a model, what it can, and how its server differs from the dialect's own.

mod quirks;

pub use quirks::{Efforts, Files, Images, Quirks, Sounds, Thinks, Thoughts, Tiers};

/// Where a translated request goes.
#[derive(Debug, Clone)]
pub struct Target<'t> {
    /// The model, as the provider calls it.
    pub model: &'t str,
    /// What the model can.
    pub model_facts: Model,
    /// How the server differs.
    pub quirks: Quirks,
}

impl<'t> Target<'t> {
    /// A model of which nothing is known, at a server without quirks.
    #[must_use]
    pub fn new(model: &'t str) -> Self {
        Self { model, model_facts: Model::default(), quirks: Quirks::default() }
    }
}

/// What a model can. `None`: it is not known, and then nothing is changed on its account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Model {
    /// Tokens of prompt and answer together.
    pub context_tokens: Option<u64>,
    /// Tokens of an answer at most, reasoning included.
    pub output_tokens: Option<u64>,
    /// How it is told to think.
    pub thinking: Option<Thinking>,
    /// Whether it takes sampling parameters at all (OpenAI's reasoning models do not).
    pub takes_sampling: Option<bool>,
    /// Whether it can be held to a schema of the answer (Claude from 4.5).
    pub structured_output: Option<bool>,
    /// Whether instructions may stand within the conversation (Claude from 4.8, at Anthropic).
    pub system_turns: Option<bool>,
}

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// It does not think.
    None,
    /// By a number of tokens, as Claude up to 4.5 and Gemini 2.5.
    Budget {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Whether it can be switched off.
        can_be_off: bool,
    },
    /// By a word, as OpenAI's reasoning models (`reasoning_effort`) and Gemini 3 (`thinkingLevel`).
    Effort,
    /// By itself, within an effort (Claude from 4.6: `thinking: {type: adaptive}`, `output_config.effort`).
    Adaptive,
}
