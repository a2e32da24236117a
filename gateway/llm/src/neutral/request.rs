//! What a client asks for.

use super::{CacheControl, Native, Part, Raw, Text};
use crate::json::Number;

/// A request for an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request<'a> {
    /// As the client wrote it.
    pub model: Text<'a>,
    /// Instructions and conversation, in the order in which they were written. Instructions that stand outside of the
    /// conversation (Anthropic's `system`, Gemini's `systemInstruction`, Responses' `instructions`) come first.
    pub turns: Vec<Turn<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Which of them it may or must call.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether it may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// The shape of the answer.
    pub format: Option<Format<'a>>,
    /// A bound on the answer, reasoning included.
    pub max_output_tokens: Option<u64>,
    /// How tokens are drawn.
    pub sampling: Sampling<'a>,
    /// How the model thinks.
    pub reasoning: Option<Reasoning<'a>>,
    /// How many answers.
    pub candidates: Option<u64>,
    /// Texts at which the answer ends.
    pub stop: Vec<Text<'a>>,
    /// Kinds of content that the answer may have (`text`, `audio`, `image`), in lower case.
    pub modalities: Vec<Text<'a>>,
    /// How wordy the answer is to be (`low`, `medium`, `high`).
    pub verbosity: Option<Text<'a>>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the client of a stream wants to be told the usage. Dialects that always tell it say `Some(true)`.
    pub stream_usage: Option<bool>,
    /// Labels: names and texts.
    pub metadata: Vec<(Text<'a>, Text<'a>)>,
    /// Who the request is from (`user`, `safety_identifier`, `metadata.user_id`).
    pub user: Option<Text<'a>>,
    /// The tier of service, in the words of OpenAI (`auto`, `default`, `flex`, `priority`) or Anthropic
    /// (`auto`, `standard_only`).
    pub service_tier: Option<Text<'a>>,
    /// Whether the provider keeps the answer.
    pub store: Option<bool>,
    /// The response that this one goes on from. It lives at one provider only.
    pub previous_response: Option<Text<'a>>,
    /// What requests share that have the same beginning.
    pub prompt_cache_key: Option<Text<'a>>,
    /// A cache mark for the request as a whole.
    pub cache: Option<CacheControl<'a>>,
    /// Fields that the client's dialect repeats in its answer, with their JSON (Responses). They are said elsewhere, too:
    /// encoders of requests leave them alone.
    pub echo: Vec<(Text<'a>, Raw<'a>)>,
    /// What only the client's dialect knows.
    pub native: Vec<Native<'a>>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions of whoever runs the application.
    System,
    /// The same, where a dialect has both.
    Developer,
    /// The user, and in some dialects the results of tools.
    User,
    /// The model.
    Assistant,
    /// A tool. Holds nothing but [`super::PartKind::ToolResult`]s.
    Tool,
}

/// What one of them said.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn<'a> {
    /// Who.
    pub role: Role,
    /// A name of the one who speaks.
    pub name: Option<Text<'a>>,
    /// What. Never merged or split by a decoder; but in Responses an answer's thoughts, words and calls are items, and those
    /// that follow each other are one turn.
    pub parts: Vec<Part<'a>>,
    /// What only the client's dialect knows.
    pub native: Vec<Native<'a>>,
}

impl<'a> Turn<'a> {
    /// A turn of these parts.
    #[must_use]
    pub const fn new(role: Role, parts: Vec<Part<'a>>) -> Self {
        Self { role, name: None, parts, native: Vec::new() }
    }
}

/// Something that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool<'a> {
    /// What it is.
    pub kind: ToolKind<'a>,
    /// A cache mark behind it.
    pub cache: Option<CacheControl<'a>>,
    /// What only the client's dialect knows.
    pub native: Vec<Native<'a>>,
}

/// What a tool is.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolKind<'a> {
    /// Called with JSON.
    Function {
        /// Its name.
        name: Text<'a>,
        /// What it is for.
        description: Option<Text<'a>>,
        /// JSON Schema of its input, as it was written.
        schema: Option<Raw<'a>>,
        /// Whether the input must follow the schema.
        strict: Option<bool>,
    },
    /// Called with text (OpenAI's custom tools).
    Custom {
        /// Its name.
        name: Text<'a>,
        /// What it is for.
        description: Option<Text<'a>>,
        /// The grammar of its input, as it was written.
        format: Option<Raw<'a>>,
    },
    /// Run by the provider (web search, code execution, computer use): an object in the words of one dialect.
    Provider {
        /// Whose words.
        dialect: crate::dialect::Dialect,
        /// Its type or name.
        kind: Text<'a>,
        /// The whole object, as it was written.
        raw: Raw<'a>,
    },
}

/// Which tools may or must be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// Any or none.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(Text<'a>),
    /// Any or none of these; at least one of them if `required`.
    Allowed {
        /// Whether one of them must be called.
        required: bool,
        /// Their names.
        names: Vec<Text<'a>>,
    },
}

/// The shape of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format<'a> {
    /// Text, said expressly.
    Text,
    /// Some JSON object.
    Json,
    /// JSON that follows a schema.
    Schema {
        /// Its name.
        name: Option<Text<'a>>,
        /// What it is for.
        description: Option<Text<'a>>,
        /// JSON Schema, as it was written.
        schema: Raw<'a>,
        /// Whether it is followed to the letter.
        strict: Option<bool>,
    },
}

/// How tokens are drawn. Numbers are those that the client wrote.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling<'a> {
    /// Sharpness.
    pub temperature: Option<Number<'a>>,
    /// Nucleus.
    pub top_p: Option<Number<'a>>,
    /// Among how many.
    pub top_k: Option<Number<'a>>,
    /// Against tokens that were there.
    pub presence_penalty: Option<Number<'a>>,
    /// Against tokens that were there often.
    pub frequency_penalty: Option<Number<'a>>,
    /// Of the random numbers.
    pub seed: Option<Number<'a>>,
    /// By token, as OpenAI writes it.
    pub logit_bias: Option<Raw<'a>>,
    /// Whether probabilities are told.
    pub log_probabilities: Option<LogProbabilities>,
}

/// Which probabilities are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogProbabilities {
    /// Of how many alternatives to each token.
    pub alternatives: Option<u64>,
}

/// How the model thinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning<'a> {
    /// Whether it does at all, if that was said. Anthropic's `adaptive` is `Some(true)` without budget.
    pub enabled: Option<bool>,
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`; in lower case.
    pub effort: Option<Text<'a>>,
    /// Tokens for it. Gemini's -1, as much as the model likes, is `enabled` without budget.
    pub budget: Option<u64>,
    /// Whether thoughts are shown (Gemini's `includeThoughts`), and how (`auto`, `concise`, `detailed`; Anthropic's
    /// `display`: `summarized`, `omitted`).
    pub summary: Option<Text<'a>>,
}
