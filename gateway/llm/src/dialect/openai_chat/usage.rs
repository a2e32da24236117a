//! What a reply cost, wherever servers say it.

use crate::json::{Node, Number, Object, Value};
use crate::neutral::Usage;

fn count(node: &Node<'_>, name: &str) -> Option<u64> {
    match node.get(name)?.value {
        Value::Number(text) => Number::from_text(text).as_u64(),
        _ => None,
    }
}

/// Reads `usage`.
#[must_use]
pub fn decode_usage(node: &Node<'_>) -> Usage {
    let own = |name| count(node, name);
    let of = |details: &str, name| node.get(details).and_then(|details| count(details, name));
    let input = own("prompt_tokens");
    let completion = own("completion_tokens");
    let reasoning = of("completion_tokens_details", "reasoning_tokens").or_else(|| own("reasoning_tokens"));
    // xAI and Gemini's compatible address count reasoning in the total only. The total is what is charged.
    let rest = own("total_tokens").zip(input).map(|(total, input)| total.saturating_sub(input));
    let output = completion.map(|completion| rest.map_or(completion, |rest| completion.max(rest)));
    let prompt = "prompt_tokens_details";
    let answer = "completion_tokens_details";
    Usage {
        input,
        output,
        cache_read: of(prompt, "cached_tokens")
            .or_else(|| own("prompt_cache_hit_tokens"))
            .or_else(|| own("cached_tokens"))
            .or_else(|| own("cache_read_input_tokens")),
        cache_written: of(prompt, "cache_write_tokens")
            .or_else(|| of(prompt, "cache_creation_tokens"))
            .or_else(|| own("cache_creation_input_tokens")),
        cache_written_1h: None,
        reasoning,
        audio_input: of(prompt, "audio_tokens"),
        audio_output: of(answer, "audio_tokens"),
        prediction_accepted: of(answer, "accepted_prediction_tokens"),
        prediction_rejected: of(answer, "rejected_prediction_tokens"),
        tool_prompt: None,
        web_searches: node
            .get("server_tool_use_details")
            .and_then(|details| count(details, "web_search_requests")),
    }
}

/// Writes what `usage` holds. Details that no provider told are not made up as zeros.
pub(super) fn write(usage: &Usage, object: &mut Object<'_>) {
    let Usage {
        input,
        output,
        cache_read,
        cache_written,
        // A part of `cache_written`, for which there is no word.
        cache_written_1h: _,
        reasoning,
        audio_input,
        audio_output,
        prediction_accepted,
        prediction_rejected,
        // A part of `input`, as above.
        tool_prompt: _,
        web_searches,
    } = *usage;
    object.whole("prompt_tokens", input.unwrap_or(0));
    object.whole("completion_tokens", output.unwrap_or(0));
    object.whole("total_tokens", usage.total());
    if cache_read.or(cache_written).or(audio_input).is_some() {
        object.object("prompt_tokens_details", |object| {
            object.some_whole("cached_tokens", cache_read);
            object.some_whole("cache_write_tokens", cache_written);
            object.some_whole("audio_tokens", audio_input);
        });
    }
    if reasoning.or(audio_output).or(prediction_accepted).or(prediction_rejected).is_some() {
        object.object("completion_tokens_details", |object| {
            object.some_whole("reasoning_tokens", reasoning);
            object.some_whole("audio_tokens", audio_output);
            object.some_whole("accepted_prediction_tokens", prediction_accepted);
            object.some_whole("rejected_prediction_tokens", prediction_rejected);
        });
    }
    if let Some(searches) = web_searches {
        object.object("server_tool_use_details", |object| object.whole("web_search_requests", searches));
    }
}

/// The counts that `write` has no words for.
pub(super) const fn unsaid(usage: &Usage) -> bool {
    matches!(usage.cache_written_1h, Some(1..)) || matches!(usage.tool_prompt, Some(1..))
}
