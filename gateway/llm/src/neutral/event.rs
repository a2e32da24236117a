//! What a stream says, piece by piece.
//!
//! Decoders keep this order, whatever the provider's is: [`Event::Start`] once and first; for each candidate parts one
//! after the other, each begun, continued and ended before the next one begins, under indices that count from 0; then
//! [`Event::Finish`] once for each candidate; then [`Event::Usage`] at most once, and [`Event::End`] once. What comes out
//! of turn (two tool calls whose pieces alternate) is held back by the decoder. After [`Event::Failed`] comes nothing.
//! [`Event::Ping`] may stand anywhere.

use super::{Citation, Finish, Native, Raw, Signature, Text, Usage};
use crate::failure::Failure;

/// One step of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The answer begins.
    Start {
        /// The provider's name for it.
        id: Text<'a>,
        /// The model, as the provider calls it.
        model: Text<'a>,
        /// When, in seconds since 1970, where the provider says so.
        created: Option<u64>,
        /// What it cost so far, where the provider says so (Anthropic).
        usage: Option<Usage>,
        /// The tier of service.
        service_tier: Option<Text<'a>>,
        /// What only the provider's dialect knows.
        native: Vec<Native<'a>>,
    },
    /// A part begins.
    PartStart {
        /// Of which candidate.
        candidate: u64,
        /// Which of its parts.
        index: usize,
        /// What it is.
        part: PartStart<'a>,
    },
    /// A part goes on.
    PartDelta {
        /// Of which candidate.
        candidate: u64,
        /// Which of its parts.
        index: usize,
        /// What is new.
        delta: Delta<'a>,
    },
    /// A part is complete.
    PartEnd {
        /// Of which candidate.
        candidate: u64,
        /// Which of its parts.
        index: usize,
    },
    /// How likely the tokens were that came since the last time: objects in OpenAI's words, as in
    /// [`super::Candidate::log_probabilities`].
    LogProbabilities {
        /// Of which candidate.
        candidate: u64,
        /// Them.
        raw: Raw<'a>,
    },
    /// A candidate is complete.
    Finish {
        /// Which.
        candidate: u64,
        /// Why it ended.
        finish: Finish<'a>,
        /// What only the provider's dialect knows.
        native: Vec<Native<'a>>,
    },
    /// What all of it cost.
    Usage(Usage),
    /// The provider is still there.
    Ping,
    /// The provider, or the way to it, failed after the stream had begun.
    Failed(Failure),
    /// The answer is complete.
    End,
}

/// What a part is, before anything of it has come.
#[derive(Debug, Clone, PartialEq)]
pub enum PartStart<'a> {
    /// Words.
    Text,
    /// Thoughts.
    Thinking {
        /// Whether they are a summary.
        is_summary: bool,
        /// Whether they are hidden in the signature.
        is_redacted: bool,
        /// The item's identity (Responses).
        id: Option<Text<'a>>,
    },
    /// A call of a tool.
    ToolCall {
        /// Which the result names; never empty.
        id: Text<'a>,
        /// The tool's name.
        name: Text<'a>,
        /// Whether the tool takes text and not JSON.
        is_custom: bool,
    },
    /// The model says that it will not.
    Refusal,
    /// Sound; its base64 comes in [`Delta::Data`].
    Audio {
        /// Media type, as `audio/wav`.
        media_type: Text<'a>,
    },
    /// A picture; its base64 comes in [`Delta::Data`].
    Image {
        /// Media type, as `image/png`.
        media_type: Text<'a>,
    },
    /// A block that only one dialect knows, whole.
    Native {
        /// Whose.
        dialect: crate::dialect::Dialect,
        /// Its type.
        kind: Text<'a>,
        /// It, as it was written.
        raw: Raw<'a>,
    },
}

/// What is new of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta<'a> {
    /// Words, of a text, a refusal or thoughts.
    Text(Text<'a>),
    /// A piece of a tool's arguments.
    Arguments(Text<'a>),
    /// What the provider signed.
    Signature(Signature<'a>),
    /// Where a statement comes from.
    Citation(Citation<'a>),
    /// Base64, of sound or a picture; each piece is base64 by itself.
    Data(Text<'a>),
    /// What is said in sound.
    Transcript(Text<'a>),
    /// What only the provider's dialect knows of the part.
    Native(Native<'a>),
}

/// How a provider's stream came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In the way of its dialect and framing.
    Complete,
    /// The connection broke, or the body ended in the middle.
    Broken,
    /// The provider was silent too long.
    TimedOut,
}
