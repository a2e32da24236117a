//! The response object: what stands around the items of an answer.

use super::failure::code_in_response;
use crate::dialect::Asked;
use crate::failure::Failure;
use crate::json::Object;
use crate::loss::{Losses, What};
use crate::neutral::{Finish, Native, Usage};

/// What is known of an answer from its beginning.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) created: u64,
    pub(super) service_tier: Option<String>,
    pub(super) native: Vec<Native<'static>>,
}

impl Head {
    /// What comes after the prefix in identities of this answer and its items.
    pub(super) fn stem(id: &str, now: u64) -> String {
        let stem = match id.split_once('_') {
            Some(("resp" | "msg", stem)) => stem,
            _ => id.strip_prefix("chatcmpl-").unwrap_or(id),
        };
        if stem.is_empty() { format!("{now:x}") } else { stem.to_owned() }
    }
}

/// How far an answer is.
#[derive(Debug)]
pub(super) enum Status<'s> {
    InProgress,
    Completed,
    Incomplete(&'s str),
    /// A status of this dialect's own, of an answer that is made in the background.
    Other(&'static str),
    Failed(&'s Failure),
}

impl<'s> Status<'s> {
    /// How an answer ended. `has_refusal`: its words say that the model would not, and it is complete with them.
    pub(super) fn of(finish: &'s Finish<'_>, has_refusal: bool, losses: &mut Losses) -> Self {
        match finish {
            Finish::Stop | Finish::StopSequence(None) | Finish::ToolCalls => Self::Completed,
            Finish::StopSequence(Some(_)) => {
                losses.add(What::StopSequences, "stop_sequence");
                Self::Completed
            }
            Finish::Length | Finish::ContextExceeded => Self::Incomplete("max_output_tokens"),
            Finish::Refusal if has_refusal => Self::Completed,
            Finish::Refusal | Finish::ContentFilter(None) => Self::Incomplete("content_filter"),
            Finish::ContentFilter(Some(_)) => {
                losses.add(What::Safety, "finish_reason");
                Self::Incomplete("content_filter")
            }
            Finish::Pause => Self::Incomplete("pause"),
            Finish::Other(word) => {
                let own = ["queued", "in_progress", "cancelled"].into_iter().find(|own| own == word);
                own.map_or(Self::Incomplete(word), Self::Other)
            }
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Other(word) => word,
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
        }
    }

    /// The event that says so.
    pub(super) const fn event(&self) -> &'static str {
        match self {
            Self::InProgress => "response.in_progress",
            Self::Completed => "response.completed",
            Self::Incomplete(_) | Self::Other(_) => "response.incomplete",
            Self::Failed(_) => "response.failed",
        }
    }

    /// The status of an item that was open when the answer ended.
    pub(super) const fn of_item(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            _ => "incomplete",
        }
    }
}

/// Writes the fields of a response. `output` is its items, without brackets.
pub(super) fn write_response(
    object: &mut Object<'_>,
    head: &Head,
    status: &Status<'_>,
    output: &[u8],
    usage: Option<&Usage>,
    asked: &Asked,
) {
    object.text("id", &head.id);
    object.text("object", "response");
    object.whole("created_at", head.created);
    object.text("status", status.word());
    let echo = |object: &mut Object<'_>, name: &str, default: &str| {
        let said = asked.echo.iter().find(|(known, _)| known == name);
        object.raw(name, said.map_or(default, |(_, raw)| raw));
    };
    echo(object, "background", "false");
    match status {
        Status::Completed => object.whole("completed_at", asked.now.max(head.created)),
        _ => object.null("completed_at"),
    }
    match status {
        Status::Failed(failure) => object.object("error", |object| {
            object.text("code", code_in_response(failure));
            object.text("message", &failure.message);
        }),
        _ => object.null("error"),
    }
    match status {
        Status::Incomplete(reason) => {
            object.object("incomplete_details", |object| object.text("reason", reason))
        }
        _ => object.null("incomplete_details"),
    }
    for name in ["instructions", "max_output_tokens", "max_tool_calls"] {
        echo(object, name, "null");
    }
    object.text("model", &head.model);
    let output = std::str::from_utf8(output).unwrap_or_default();
    object.array("output", |array| {
        if !output.is_empty() {
            array.raw(output);
        }
    });
    echo(object, "parallel_tool_calls", "true");
    object.null("previous_response_id");
    for name in ["prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"] {
        echo(object, name, "null");
    }
    echo(object, "reasoning", r#"{"effort":null,"summary":null}"#);
    echo(object, "safety_identifier", "null");
    object.text("service_tier", head.service_tier.as_deref().unwrap_or("default"));
    object.boolean("store", false);
    echo(object, "temperature", "null");
    echo(object, "text", r#"{"format":{"type":"text"}}"#);
    echo(object, "tool_choice", "\"auto\"");
    echo(object, "tools", "[]");
    echo(object, "top_logprobs", "0");
    echo(object, "top_p", "null");
    echo(object, "truncation", "\"disabled\"");
    match usage {
        Some(usage) => object.object("usage", |object| write_usage(object, usage)),
        None => object.null("usage"),
    }
    echo(object, "user", "null");
    echo(object, "metadata", "{}");
    head.native.iter().for_each(|native| object.raw(&native.name, &native.raw));
}

/// What has no place in this dialect's usage.
pub(super) fn lose_usage(usage: &Usage, losses: &mut Losses) {
    let Usage {
        input: _,
        output: _,
        cache_read: _,
        cache_written: _,
        cache_written_1h,
        reasoning: _,
        audio_input,
        audio_output,
        prediction_accepted,
        prediction_rejected,
        tool_prompt,
        web_searches,
    } = usage;
    for (name, count) in [
        ("cache_written_1h", cache_written_1h),
        ("audio_input", audio_input),
        ("audio_output", audio_output),
        ("prediction_accepted", prediction_accepted),
        ("prediction_rejected", prediction_rejected),
        ("tool_prompt", tool_prompt),
        ("web_searches", web_searches),
    ] {
        if count.is_some_and(|count| count > 0) {
            losses.add(What::UsageDetail, format!("usage.{name}"));
        }
    }
}

fn write_usage(object: &mut Object<'_>, usage: &Usage) {
    object.whole("input_tokens", usage.input.unwrap_or(0));
    object.object("input_tokens_details", |object| {
        object.whole("cached_tokens", usage.cache_read.unwrap_or(0));
        object.whole("cache_write_tokens", usage.cache_written.unwrap_or(0));
    });
    object.whole("output_tokens", usage.output.unwrap_or(0));
    object.object("output_tokens_details", |object| {
        object.whole("reasoning_tokens", usage.reasoning.unwrap_or(0));
    });
    object.whole("total_tokens", usage.total());
}
