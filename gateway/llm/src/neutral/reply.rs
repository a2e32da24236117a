//! What a provider answers.

use super::{Native, Part, Raw, Text, Usage};

/// An answer, whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply<'a> {
    /// The provider's name for it.
    pub id: Text<'a>,
    /// The model that answered, as the provider calls it.
    pub model: Text<'a>,
    /// When, in seconds since 1970, where the provider says so.
    pub created: Option<u64>,
    /// Answers; more than one where several were asked for.
    pub candidates: Vec<Candidate<'a>>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// The tier of service that it had.
    pub service_tier: Option<Text<'a>>,
    /// What only the provider's dialect knows.
    pub native: Vec<Native<'a>>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'a> {
    /// From 0.
    pub index: u64,
    /// What it says.
    pub parts: Vec<Part<'a>>,
    /// Why it ended.
    pub finish: Finish<'a>,
    /// How likely its tokens were: an array of objects in OpenAI's words (`token`, `logprob`, `bytes`,
    /// `top_logprobs`), without the brackets around it.
    pub log_probabilities: Option<Raw<'a>>,
    /// What only the provider's dialect knows.
    pub native: Vec<Native<'a>>,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish<'a> {
    /// It was complete.
    Stop,
    /// It came to one of the texts at which it was to end; to which, where the provider says so.
    StopSequence(Option<Text<'a>>),
    /// It was too long.
    Length,
    /// It calls tools.
    ToolCalls,
    /// The provider's filter cut it, or would not have the prompt; with the provider's word for the reason.
    ContentFilter(Option<Text<'a>>),
    /// The model would not.
    Refusal,
    /// The provider paused a long turn, to be gone on with (Anthropic's `pause_turn`).
    Pause,
    /// The prompt and answer together are too long for the model.
    ContextExceeded,
    /// Something that no other dialect knows, in the provider's word.
    Other(Text<'a>),
}
