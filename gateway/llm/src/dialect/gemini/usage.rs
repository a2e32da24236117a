//! Tokens: `usageMetadata`. Google counts thoughts beside the answer and prompts of its own tools beside the prompt;
//! totals of the neutral form hold both.

use crate::json::{Node, Number, Object, Value};
use crate::loss::{Losses, What};
use crate::neutral::Usage;

/// Reads `usageMetadata`.
#[must_use]
pub fn decode_usage(node: &Node<'_>) -> Usage {
    let count = |camel: &str, snake: &str| whole(node.get(camel).or_else(|| node.get(snake))?);
    let sound = |camel: &str, snake: &str| of_modality(node.get(camel).or_else(|| node.get(snake))?, "AUDIO");
    let tool_prompt = count("toolUsePromptTokenCount", "tool_use_prompt_token_count");
    let reasoning = count("thoughtsTokenCount", "thoughts_token_count");
    let plus = |one: Option<u64>, other: Option<u64>| {
        one.or(other).map(|_| one.unwrap_or(0).saturating_add(other.unwrap_or(0)))
    };
    Usage {
        input: plus(count("promptTokenCount", "prompt_token_count"), tool_prompt),
        output: plus(count("candidatesTokenCount", "candidates_token_count"), reasoning),
        cache_read: count("cachedContentTokenCount", "cached_content_token_count"),
        reasoning,
        audio_input: sound("promptTokensDetails", "prompt_tokens_details"),
        audio_output: sound("candidatesTokensDetails", "candidates_tokens_details"),
        tool_prompt,
        ..Usage::default()
    }
}

fn whole(node: &Node<'_>) -> Option<u64> {
    match node.value {
        Value::Number(text) => Number::from_text(text).as_u64(),
        _ => None,
    }
}

fn of_modality(details: &Node<'_>, modality: &str) -> Option<u64> {
    let Value::Array(items) = &details.value else { return None };
    let is_it = |item: &&Node<'_>| item.get("modality").and_then(Node::as_text) == Some(modality);
    let item = items.iter().find(is_it)?;
    whole(item.get("tokenCount").or_else(|| item.get("token_count"))?)
}

/// Writes `usageMetadata`.
pub(super) fn write(usage: &Usage, object: &mut Object<'_>, losses: &mut Losses) {
    let Usage {
        input,
        output,
        cache_read,
        cache_written,
        // A part of `cache_written`.
        cache_written_1h: _,
        reasoning,
        audio_input,
        audio_output,
        prediction_accepted,
        prediction_rejected,
        tool_prompt,
        web_searches,
    } = *usage;
    for (name, count) in [
        ("cache_written", cache_written),
        ("prediction_accepted", prediction_accepted),
        ("prediction_rejected", prediction_rejected),
        ("web_searches", web_searches),
    ] {
        if count.is_some_and(|count| count > 0) {
            losses.add(What::UsageDetail, format!("usage.{name}"));
        }
    }
    let prompt = input.map(|input| input.saturating_sub(tool_prompt.unwrap_or(0)));
    let answer = output.map(|output| output.saturating_sub(reasoning.unwrap_or(0)));
    object.object("usageMetadata", |object| {
        object.some_whole("promptTokenCount", prompt);
        object.some_whole("candidatesTokenCount", answer);
        object.whole("totalTokenCount", usage.total());
        object.some_whole("cachedContentTokenCount", cache_read);
        object.some_whole("thoughtsTokenCount", reasoning);
        object.some_whole("toolUsePromptTokenCount", tool_prompt);
        write_sound(object, "promptTokensDetails", audio_input);
        write_sound(object, "candidatesTokensDetails", audio_output);
    });
}

/// How much of it was sound. What the rest was nobody said, and it is not made up: it may be pictures as well as text.
fn write_sound(object: &mut Object<'_>, name: &str, sound: Option<u64>) {
    let Some(sound) = sound.filter(|count| *count > 0) else { return };
    object.array(name, |array| {
        array.object(|object| {
            object.text("modality", "AUDIO");
            object.whole("tokenCount", sound);
        });
    });
}
