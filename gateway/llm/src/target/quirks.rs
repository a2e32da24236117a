//! How servers that speak OpenAI's Chat Completions differ from OpenAI's own: a table of named sets.
//!
//! What differs is data here and decisions in the encoder, so that a server that is new is a row and no code. Replies
//! have no quirks: a decoder reads whatever any of these servers sends, since a server changes its ways without asking,
//! and since a chain of gateways shows another one's.

use crate::json::Edit;
use crate::loss::{Loss, What};
use crate::tool_ids::Shape;

/// How a server differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// Its name in configurations.
    pub name: &'static str,
    /// The field that bounds the answer: `max_completion_tokens`, or `max_tokens` as it was before.
    pub output_limit: &'static str,
    /// Fields of the request that it refuses or takes without doing anything. They are not sent, and are lost.
    pub refused: &'static [(&'static str, What)],
    /// Fields that have another name there.
    pub renamed: &'static [(&'static str, &'static str)],
    /// Whether it knows the role `developer`; else `system` is written.
    pub developer_role: bool,
    /// Whether it takes `stream_options`. The usage of a stream is asked for wherever it can be.
    pub stream_options: bool,
    /// Which identities of tool calls it takes.
    pub tool_ids: Shape,
    /// Whether it takes `strict` of functions and schemas.
    pub strict: bool,
    /// Whether it takes tools whose input is text.
    pub custom_tools: bool,
    /// Whether it takes `tool_choice: {type: allowed_tools}`.
    pub allowed_tools: bool,
    /// Whether it takes a schema as the answer's format, and not only "some JSON".
    pub json_schema: bool,
    /// Whether `logprobs` is the number of alternatives (as it was in OpenAI's oldest API) and no boolean.
    pub logprobs_are_counted: bool,
    /// Which images it takes.
    pub images: Images,
    /// Which documents it takes.
    pub files: Files,
    /// How it takes sound, if it does.
    pub audio: Sounds,
    /// Whether it takes films (`video_url`).
    pub video: bool,
    /// Whether messages can have a speaker's name.
    pub names: bool,
    /// Whether an assistant's message can hold a refusal.
    pub refusals: bool,
    /// Whether messages other than the user's can be lists of parts.
    pub lists: bool,
    /// Whether it takes Anthropic's cache marks on parts and tools.
    pub cache_marks: bool,
    /// Whether it takes signatures of Gemini's beside tool calls (`extra_content`).
    pub extra_content: bool,
    /// Whether it takes fields that OpenAI does not have, or reads past them. Where not, they are not sent, and are lost.
    pub extensions: bool,
    /// Those that it takes, where it does not take any.
    pub own_fields: &'static [&'static str],
    /// Whether it takes `top_k`.
    pub top_k: bool,
    /// At how many texts it can stop.
    pub max_stops: usize,
    /// Whether it pads the events of streams unless told otherwise.
    pub pads_streams: bool,
    /// How thoughts are given back to it.
    pub thoughts: Thoughts,
    /// How it is told to think.
    pub thinks: Thinks,
    /// Which efforts it knows.
    pub efforts: Efforts,
    /// What its tiers of service are called there, where not as OpenAI's. One that is not among them is lost.
    pub tiers: Option<Tiers>,
}

/// Which images a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// None.
    None,
    /// In the message only: it fetches nothing.
    Data,
    /// In the message, and by address.
    Any,
}

/// Which documents a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// None.
    None,
    /// As OpenAI: in the message, or uploaded before.
    Openai,
    /// As OpenRouter: an address may stand where the data would.
    DataOrUrl,
    /// As Mistral: `document_url`.
    DocumentUrl,
}

/// How a server takes sound in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sounds {
    /// Not at all.
    None,
    /// As OpenAI: `input_audio: {data, format}`.
    Openai,
    /// As Mistral: `input_audio` is the base64 itself.
    Bare,
}

/// How thoughts are given back to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoughts {
    /// Not at all: it refuses them, or keeps none.
    None,
    /// As a field of the message, of this name.
    Field(&'static str),
    /// As OpenRouter's `reasoning_details`, with signatures.
    Details,
    /// As parts of type `thinking` (Mistral).
    Parts,
}

/// How a server is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinks {
    /// By `reasoning_effort`.
    Effort,
    /// By OpenRouter's `reasoning`: effort, tokens, and whether thoughts are shown.
    Object,
    /// By `thinking: {type}` and, if it has any efforts, `reasoning_effort` (DeepSeek).
    Switch,
    /// By `reasoning: {enabled}` and `reasoning_effort` (Together).
    Flag,
}

/// Efforts, from the least to the most.
pub type Efforts = &'static [&'static str];

/// Tiers of service: OpenAI's word, and the server's.
pub type Tiers = &'static [(&'static str, &'static str)];

/// What OpenAI alone has: servers that are built after it refuse these fields or read past them.
const OPENAI_ONLY: &[(&str, What)] = &[
    ("store", What::Stored),
    ("metadata", What::Metadata),
    ("service_tier", What::ServiceTier),
    ("prediction", What::Prediction),
    ("modalities", What::Modalities),
    ("audio", What::Audio),
    ("verbosity", What::Verbosity),
    ("web_search_options", What::ProviderTool),
    ("moderation", What::Safety),
    ("prompt_cache_key", What::CacheControl),
    ("prompt_cache_options", What::CacheControl),
    ("prompt_cache_retention", What::CacheControl),
    ("safety_identifier", What::Metadata),
];

const TO_MAX_TOKENS: &[(&str, &str)] = &[("max_completion_tokens", "max_tokens")];
const TO_MAX_COMPLETION_TOKENS: &[(&str, &str)] = &[("max_tokens", "max_completion_tokens")];
const ALL_EFFORTS: Efforts = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const FEW_EFFORTS: Efforts = &["low", "medium", "high"];

const OPENAI: Quirks = Quirks {
    name: "openai",
    output_limit: "max_completion_tokens",
    refused: &[],
    renamed: TO_MAX_COMPLETION_TOKENS,
    developer_role: true,
    stream_options: true,
    tool_ids: Shape::UpTo(40),
    strict: true,
    custom_tools: true,
    allowed_tools: true,
    json_schema: true,
    logprobs_are_counted: false,
    images: Images::Any,
    files: Files::Openai,
    audio: Sounds::Openai,
    video: false,
    names: true,
    refusals: true,
    lists: true,
    cache_marks: false,
    extra_content: false,
    extensions: false,
    own_fields: &[],
    top_k: false,
    max_stops: 4,
    pads_streams: true,
    thoughts: Thoughts::None,
    thinks: Thinks::Effort,
    efforts: ALL_EFFORTS,
    tiers: None,
};

/// A server of which nothing is known but that it speaks the dialect. What it may refuse is left out.
const GENERIC: Quirks = Quirks {
    name: "generic",
    output_limit: "max_tokens",
    refused: OPENAI_ONLY,
    renamed: TO_MAX_TOKENS,
    developer_role: false,
    tool_ids: Shape::UpTo(64),
    custom_tools: false,
    allowed_tools: false,
    files: Files::None,
    audio: Sounds::None,
    refusals: false,
    lists: false,
    extensions: true,
    top_k: true,
    max_stops: 16,
    pads_streams: false,
    efforts: FEW_EFFORTS,
    ..OPENAI
};

/// The sets, by name.
const ALL: &[Quirks] = &[
    OPENAI,
    Quirks {
        name: "azure",
        refused: &[
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_options", What::CacheControl),
        ],
        ..OPENAI
    },
    Quirks {
        name: "mistral",
        extensions: false,
        own_fields: &[
            "safe_prompt",
            "prompt_mode",
            "guardrails",
            "repetition_penalty",
            "min_tokens",
            "prefix",
            "prompt_logprobs",
            "top_prompt_logprobs",
        ],
        refused: &[
            ("store", What::Stored),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("user", What::Metadata),
            ("logit_bias", What::Sampling),
            // It tells the usage of a stream without being asked, and refuses to be.
            ("stream_options", What::UnknownField),
        ],
        renamed: &[("max_completion_tokens", "max_tokens"), ("seed", "random_seed")],
        stream_options: false,
        tool_ids: Shape::Exactly(9),
        files: Files::DocumentUrl,
        audio: Sounds::Bare,
        names: false,
        lists: true,
        thoughts: Thoughts::Parts,
        efforts: ALL_EFFORTS,
        tiers: Some(&[("auto", "auto"), ("default", "standard_only")]),
        ..GENERIC
    },
    Quirks {
        name: "groq",
        max_stops: 4,
        extensions: false,
        own_fields: &[
            "reasoning_format",
            "include_reasoning",
            "search_settings",
            "compound_custom",
            "documents",
            "citation_options",
            "include_domains",
            "exclude_domains",
            "disable_tool_validation",
        ],
        top_k: false,
        output_limit: "max_completion_tokens",
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("prediction", What::Prediction),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("logit_bias", What::Sampling),
            ("logprobs", What::LogProbabilities),
            ("top_logprobs", What::LogProbabilities),
            ("n", What::Candidates),
        ],
        renamed: TO_MAX_COMPLETION_TOKENS,
        developer_role: true,
        names: false,
        thoughts: Thoughts::Field("reasoning"),
        efforts: &["none", "low", "medium", "high"],
        tiers: Some(&[
            ("auto", "auto"),
            ("default", "on_demand"),
            ("on_demand", "on_demand"),
            ("flex", "flex"),
            ("priority", "performance"),
            ("performance", "performance"),
        ]),
        ..GENERIC
    },
    Quirks {
        name: "deepseek",
        extensions: false,
        own_fields: &["prefix"],
        top_k: false,
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("service_tier", What::ServiceTier),
            ("prediction", What::Prediction),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("user", What::Metadata),
            ("logit_bias", What::Sampling),
            ("seed", What::Seed),
            ("n", What::Candidates),
            ("parallel_tool_calls", What::ParallelToolCalls),
        ],
        json_schema: false,
        images: Images::None,
        thoughts: Thoughts::Field("reasoning_content"),
        thinks: Thinks::Switch,
        efforts: &["high", "max"],
        ..GENERIC
    },
    Quirks {
        name: "xai",
        max_stops: 4,
        extensions: false,
        own_fields: &["search_parameters"],
        top_k: false,
        output_limit: "max_completion_tokens",
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("service_tier", What::ServiceTier),
            ("prediction", What::Prediction),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("logit_bias", What::Sampling),
        ],
        renamed: TO_MAX_COMPLETION_TOKENS,
        developer_role: true,
        thoughts: Thoughts::Field("reasoning_content"),
        efforts: &["none", "low", "medium", "high", "xhigh"],
        ..GENERIC
    },
    Quirks {
        name: "together",
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("service_tier", What::ServiceTier),
            ("prediction", What::Prediction),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("user", What::Metadata),
            ("parallel_tool_calls", What::ParallelToolCalls),
        ],
        logprobs_are_counted: true,
        video: true,
        thoughts: Thoughts::Field("reasoning"),
        thinks: Thinks::Flag,
        ..GENERIC
    },
    Quirks {
        name: "openrouter",
        refused: &[
            ("store", What::Stored),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
        ],
        developer_role: true,
        files: Files::DataOrUrl,
        audio: Sounds::Openai,
        video: true,
        refusals: true,
        lists: true,
        cache_marks: true,
        thoughts: Thoughts::Details,
        thinks: Thinks::Object,
        efforts: ALL_EFFORTS,
        ..GENERIC
    },
    Quirks {
        name: "vllm",
        audio: Sounds::Openai,
        video: true,
        thoughts: Thoughts::Field("reasoning"),
        ..GENERIC
    },
    Quirks {
        name: "ollama",
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("service_tier", What::ServiceTier),
            ("prediction", What::Prediction),
            ("modalities", What::Modalities),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("user", What::Metadata),
            ("logit_bias", What::Sampling),
            ("n", What::Candidates),
            ("parallel_tool_calls", What::ParallelToolCalls),
            ("tool_choice", What::ToolChoice),
        ],
        strict: false,
        // Its own API has it, and this dialect's address reads past it.
        top_k: false,
        images: Images::Data,
        names: false,
        thoughts: Thoughts::Field("reasoning"),
        efforts: &["none", "low", "medium", "high", "max"],
        ..GENERIC
    },
    Quirks {
        name: "llama_cpp",
        strict: false,
        audio: Sounds::Openai,
        thoughts: Thoughts::Field("reasoning_content"),
        ..GENERIC
    },
    // Gemini under its OpenAI-compatible address.
    Quirks {
        name: "google",
        extensions: false,
        own_fields: &["extra_body"],
        top_k: false,
        refused: &[
            ("store", What::Stored),
            ("metadata", What::Metadata),
            ("service_tier", What::ServiceTier),
            ("prediction", What::Prediction),
            ("audio", What::Audio),
            ("verbosity", What::Verbosity),
            ("web_search_options", What::ProviderTool),
            ("moderation", What::Safety),
            ("prompt_cache_key", What::CacheControl),
            ("prompt_cache_options", What::CacheControl),
            ("prompt_cache_retention", What::CacheControl),
            ("safety_identifier", What::Metadata),
            ("user", What::Metadata),
            ("logit_bias", What::Sampling),
            ("logprobs", What::LogProbabilities),
            ("top_logprobs", What::LogProbabilities),
            ("parallel_tool_calls", What::ParallelToolCalls),
        ],
        images: Images::Data,
        audio: Sounds::Openai,
        names: false,
        extra_content: true,
        efforts: &["none", "minimal", "low", "medium", "high"],
        ..GENERIC
    },
    GENERIC,
];

impl Quirks {
    /// The sets that have names.
    pub const ALL: &[Self] = ALL;

    /// The set of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|set| set.name == name).copied()
    }

    /// What is lost with a field, if the server refuses it.
    #[must_use]
    pub fn refuses(&self, field: &str) -> Option<What> {
        self.refused.iter().find(|(name, _)| *name == field).map(|&(_, what)| what)
    }

    /// Whether it takes a field that OpenAI does not have.
    #[must_use]
    pub fn knows(&self, field: &str) -> bool {
        self.extensions || self.own_fields.contains(&field)
    }

    /// What a field is called there.
    #[must_use]
    pub fn name_of<'f>(&self, field: &'f str) -> &'f str {
        self.renamed.iter().find(|(name, _)| *name == field).map_or(field, |&(_, other)| other)
    }

    /// What must change at the top of a body of the same dialect that is not translated.
    pub fn edits(&self) -> impl Iterator<Item = Edit<'static>> {
        let removed = self.refused.iter().map(|&(name, _)| Edit::Remove(name));
        removed.chain(self.renamed.iter().map(|&(from, to)| Edit::Rename(from, to)))
    }

    /// What is lost by [`Self::edits`] in a body with these fields.
    pub fn losses_of<'f>(&self, has: impl Fn(&str) -> bool + 'f) -> impl Iterator<Item = Loss> {
        self.refused.iter().filter(move |(name, _)| has(name)).map(|&(name, what)| Loss::new(what, name))
    }

    /// Whether the server differs at the top of a body only. Where it does not, edits are not enough: messages, tools and
    /// formats must be read, and the body is translated though both ends speak the same dialect.
    #[must_use]
    pub fn edits_suffice(&self) -> bool {
        let Self { name, output_limit, refused, renamed, stream_options, .. } = *self;
        *self == Self { name, output_limit, refused, renamed, stream_options, ..OPENAI }
    }
}

impl Default for Quirks {
    fn default() -> Self {
        OPENAI
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_by_their_names() {
        for name in [
            "openai",
            "azure",
            "mistral",
            "groq",
            "deepseek",
            "xai",
            "together",
            "openrouter",
            "vllm",
            "ollama",
            "llama_cpp",
            "google",
            "generic",
        ] {
            assert_eq!(Quirks::named(name).map(|set| set.name), Some(name));
        }
        assert_eq!(Quirks::ALL.len(), 13, "a set without a row above");
        assert_eq!(Quirks::named("OpenAI"), None);
    }

    #[test]
    fn sets_do_not_contradict_themselves() {
        for set in Quirks::ALL {
            let name = set.name;
            let limit = set.output_limit;
            assert!(matches!(limit, "max_tokens" | "max_completion_tokens"), "{name}");
            assert!(set.renamed.iter().any(|&(_, to)| to == limit), "{name}: edits bring no {limit}");
            for (from, to) in set.renamed {
                assert_eq!(
                    set.refuses(from).or(set.refuses(to)),
                    None,
                    "{name}: {from} is refused and renamed"
                );
            }
            for (index, (field, _)) in set.refused.iter().enumerate() {
                assert!(
                    set.refused[index + 1..].iter().all(|(other, _)| other != field),
                    "{name}: {field} twice"
                );
            }
            assert_eq!(set.refuses("stream_options").is_some(), !set.stream_options, "{name}");
            assert_eq!(set.edits_suffice(), matches!(name, "openai" | "azure"), "{name}");
            assert!(
                ALL_EFFORTS.iter().filter(|effort| set.efforts.contains(effort)).eq(set.efforts),
                "{name}"
            );
        }
    }
}
