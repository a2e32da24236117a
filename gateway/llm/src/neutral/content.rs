//! What turns and answers are made of.

use super::{Native, Raw, Signature, Text};
use crate::dialect::Dialect;

/// A piece of content.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<'a> {
    /// What it is.
    pub kind: PartKind<'a>,
    /// What providers attach to it.
    pub state: State<'a>,
}

impl<'a> Part<'a> {
    /// A part without state.
    #[must_use]
    pub fn new(kind: PartKind<'a>) -> Self {
        Self { kind, state: State::default() }
    }

    /// A text without state.
    #[must_use]
    pub fn text(text: impl Into<Text<'a>>) -> Self {
        Self::new(PartKind::Text { text: text.into(), citations: Vec::new() })
    }
}

/// What a piece of content is.
#[derive(Debug, Clone, PartialEq)]
pub enum PartKind<'a> {
    /// Words.
    Text {
        /// Them.
        text: Text<'a>,
        /// Where they come from.
        citations: Vec<Citation<'a>>,
    },
    /// A picture.
    Image {
        /// Where it is.
        source: Source<'a>,
        /// How closely it is looked at (`low`, `high`, `auto`).
        detail: Option<Text<'a>>,
    },
    /// A document: PDF, text.
    Document {
        /// Where it is.
        source: Source<'a>,
        /// Its title or file name.
        name: Option<Text<'a>>,
        /// What it is about (Anthropic's `context`).
        context: Option<Text<'a>>,
        /// Whether statements are to be cited from it.
        cite: Option<bool>,
    },
    /// Sound.
    Audio {
        /// Where it is.
        source: Source<'a>,
        /// What is said in it.
        transcript: Option<Text<'a>>,
    },
    /// A film.
    Video {
        /// Where it is.
        source: Source<'a>,
    },
    /// The model calls a tool.
    ToolCall {
        /// Which the result names. Empty where the dialect has none (Gemini): decoders then make one of the place.
        id: Text<'a>,
        /// The tool's name.
        name: Text<'a>,
        /// JSON as the model wrote it, which may be none; of a custom tool, its text.
        arguments: Text<'a>,
        /// Whether the tool takes text and not JSON.
        is_custom: bool,
    },
    /// What a tool answered.
    ToolResult {
        /// The call's.
        id: Text<'a>,
        /// The tool's, where it was said.
        name: Option<Text<'a>>,
        /// What it said.
        content: Vec<Part<'a>>,
        /// Whether it failed.
        is_error: Option<bool>,
        /// Whether the tool takes text and not JSON.
        is_custom: bool,
    },
    /// What the model thought.
    Thinking {
        /// In its words, or as a summary. Empty where the provider shows none.
        text: Text<'a>,
        /// Whether it is a summary of thoughts and not the thoughts themselves.
        is_summary: bool,
        /// Whether the provider hid the thoughts in the signature (Anthropic's `redacted_thinking`).
        is_redacted: bool,
        /// The item's identity (Responses).
        id: Option<Text<'a>>,
    },
    /// The model says that it will not.
    Refusal {
        /// Its words.
        text: Text<'a>,
    },
    /// A block that only one dialect knows: calls and results of its provider's own tools.
    Native {
        /// Whose.
        dialect: Dialect,
        /// Its type.
        kind: Text<'a>,
        /// The whole block, as it was written.
        raw: Raw<'a>,
    },
}

/// Where content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'a> {
    /// In the message, in base64.
    Data {
        /// Media type, as `image/png`.
        media_type: Text<'a>,
        /// The base64.
        data: Text<'a>,
    },
    /// At an address that the provider fetches.
    Url {
        /// The address.
        url: Text<'a>,
        /// Media type, where it was said.
        media_type: Option<Text<'a>>,
    },
    /// At the provider, under a name that only it knows.
    File {
        /// The name.
        id: Text<'a>,
        /// Whose name it is.
        dialect: Dialect,
    },
    /// Plain text, in the message (a document of Anthropic's).
    Text {
        /// It.
        text: Text<'a>,
    },
}

/// What providers attach to content, which must come back to them unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State<'a> {
    /// A cache mark behind it.
    pub cache: Option<CacheControl<'a>>,
    /// What the provider signed or encrypted: Anthropic's `signature`, Gemini's `thoughtSignature`, OpenAI's
    /// `encrypted_content`.
    pub signature: Option<Signature<'a>>,
    /// What only one dialect knows.
    pub native: Vec<Native<'a>>,
}

/// A mark: the prompt up to here is worth keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheControl<'a> {
    /// The object in Anthropic's words, as it was written.
    pub raw: Raw<'a>,
}

/// Where a statement comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Citation<'a> {
    /// The address.
    pub url: Option<Text<'a>>,
    /// The title of page or document.
    pub title: Option<Text<'a>>,
    /// The words that were cited.
    pub quote: Option<Text<'a>>,
    /// Where the statement begins and ends in the text, in characters.
    pub range: Option<(u64, u64)>,
    /// The object in the words of its dialect.
    pub native: Option<Native<'a>>,
}
