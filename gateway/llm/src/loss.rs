//! What a translation could not carry. Nothing is lost in silence.

use std::fmt;

/// How many losses are kept word for word. The others are counted.
pub const MAX_KEPT: usize = 32;

/// One thing that the target cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Of which kind: a label that is bounded.
    pub what: What,
    /// Where it stood in what was translated, in the terms of the client's dialect where they are known and else in
    /// those of the neutral form.
    pub at: String,
}

impl Loss {
    /// What was lost where.
    #[must_use]
    pub fn new(what: What, at: impl Into<String>) -> Self {
        Self { what, at: at.into() }
    }
}

macro_rules! what {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Kinds of losses: what a metric counts by, and what a route can name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum What { $($(#[$doc])* $name,)* }

        impl What {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is written in headers, metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

what! {
    /// A field that we do not know.
    UnknownField = "unknown_field",
    /// A part, block or item of a type that we do not know, or that only its own provider knows.
    UnknownPart = "unknown_part",
    /// An image.
    Image = "image",
    /// A document.
    Document = "document",
    /// Sound, in or out.
    Audio = "audio",
    /// A film.
    Video = "video",
    /// What an image, document or part has beside its content: detail, title, context.
    PartDetail = "part_detail",
    /// A tool that the provider itself runs, its calls and its results.
    ProviderTool = "provider_tool",
    /// A tool whose input is no JSON, or that belongs to a namespace.
    CustomTool = "custom_tool",
    /// What a tool has beside name, description and schema.
    ToolDetail = "tool_detail",
    /// Which tools may or must be called, in parts.
    ToolChoice = "tool_choice",
    /// Whether several tools may be called at once.
    ParallelToolCalls = "parallel_tool_calls",
    /// That a tool failed.
    ToolError = "tool_error",
    /// A constraint in a schema.
    SchemaKeyword = "schema_keyword",
    /// The shape that the answer should have.
    OutputFormat = "output_format",
    /// How long or hard to think, or how to show it.
    Reasoning = "reasoning",
    /// A block of thinking whose signature another provider made.
    ReasoningBlock = "reasoning_block",
    /// What a provider signed or encrypted, for itself.
    Signature = "signature",
    /// Where a prompt's cache ends.
    CacheControl = "cache_control",
    /// Where a statement comes from.
    Citation = "citation",
    /// How likely tokens were.
    LogProbabilities = "logprobs",
    /// A sampling parameter.
    Sampling = "sampling",
    /// Texts at which the answer ends.
    StopSequences = "stop_sequences",
    /// A seed.
    Seed = "seed",
    /// Several answers at once.
    Candidates = "candidates",
    /// A bound on the answer's length.
    OutputLimit = "output_limit",
    /// Who the request is from, or what it is labelled with.
    Metadata = "metadata",
    /// The tier of service.
    ServiceTier = "service_tier",
    /// Whether, and under which name, the provider keeps it.
    Stored = "stored",
    /// Thresholds of safety, and ratings.
    Safety = "safety",
    /// That an answer was refused, and why.
    Refusal = "refusal",
    /// A speaker's name.
    SpeakerName = "speaker_name",
    /// Which kinds of content the answer should have.
    Modalities = "modalities",
    /// How wordy the answer should be.
    Verbosity = "verbosity",
    /// An answer that was predicted.
    Prediction = "prediction",
    /// Counts of tokens that have no place.
    UsageDetail = "usage_detail",
    /// Where in a conversation an instruction stood.
    InstructionPlace = "instruction_place",
    /// That words stood behind a call of a tool, and not before it.
    PartOrder = "part_order",
    /// What becomes of a prompt that is too long.
    Truncation = "truncation",
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What was lost, in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    kept: Vec<Loss>,
    more: usize,
}

impl Losses {
    /// One more.
    pub fn note(&mut self, loss: Loss) {
        if self.kept.len() < MAX_KEPT { self.kept.push(loss) } else { self.more += 1 }
    }

    /// One more, in the neutral form's terms.
    pub fn add(&mut self, what: What, at: impl Into<String>) {
        self.note(Loss::new(what, at));
    }

    /// Those of another step.
    pub fn append(&mut self, others: Self) {
        others.kept.into_iter().for_each(|loss| self.note(loss));
        self.more += others.more;
    }

    /// Those that were kept.
    #[must_use]
    pub fn kept(&self) -> &[Loss] {
        &self.kept
    }

    /// How many there were.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Whether nothing was lost.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Whether one of this kind is among those that were kept.
    #[must_use]
    pub fn has(&self, what: What) -> bool {
        self.kept.iter().any(|loss| loss.what == what)
    }
}

impl fmt::Display for Losses {
    /// As in the response header: `cache_control;at="messages[0].content[1]", seed;at="seed"`, a list of tokens with
    /// parameters (RFC 9651). What is not printable ASCII is left out of places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, loss) in self.kept.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", loss.what)?;
            let plain = |c: &char| (' '..='~').contains(c) && *c != '"' && *c != '\\';
            let at: String = loss.at.chars().filter(plain).take(80).collect();
            if !at.is_empty() {
                write!(f, ";at=\"{at}\"")?;
            }
        }
        if self.more > 0 {
            write!(f, "{}more;count={}", if self.kept.is_empty() { "" } else { ", " }, self.more)?;
        }
        Ok(())
    }
}
