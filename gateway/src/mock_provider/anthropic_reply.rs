//! What Anthropic Messages answers: replies, streams and errors.

use serde_json::{Value, json};

use super::answer::{Asked, End, Said, Usage, shreds, signature, words};
use super::checks::{Problem, What};
use super::delivery::{Reply, Stream, sse};
use super::script::Script;

/// Writes the answer.
pub(super) fn write(asked: &Asked, said: &Said, script: &Script, number: u64) -> Reply {
    let blocks = blocks(asked, said);
    let (reason, sequence) = match &said.end {
        End::Calls => ("tool_use", None),
        End::Length => ("max_tokens", None),
        End::Filter | End::Refusal => ("refusal", None),
        End::Sequence(stop) => ("stop_sequence", Some(stop)),
        End::Stop => ("end_turn", None),
    };
    let mut message = json!({"id": format!("msg_mock{number}"), "type": "message", "role": "assistant", "model": asked.model,
        "content": blocks, "stop_reason": reason, "stop_sequence": sequence, "usage": usage(said.usage, said.usage.output)});
    if !asked.stream {
        return Reply::Json(200, message);
    }
    let mut stream = Stream {
        error: sse(Some("error"), &error("overloaded_error", "Overloaded", number).to_string()),
        ping: sse(Some("ping"), "{\"type\": \"ping\"}"),
        ..Stream::default()
    };
    message["content"] = json!([]);
    (message["stop_reason"], message["stop_sequence"]) = (Value::Null, Value::Null);
    message["usage"] = usage(said.usage, 1);
    stream.event(Some("message_start"), &json!({"type": "message_start", "message": message}));
    for (index, block) in blocks.iter().enumerate() {
        write_block(&mut stream, index, block, script);
        if index == 0 {
            stream.events.push(stream.ping.clone());
        }
    }
    let last = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence},
        "usage": last_usage(said.usage, script)});
    for _ in 0..=usize::from(script.usage_twice) {
        stream.event(Some("message_delta"), &last);
    }
    stream.event(Some("message_stop"), &json!({"type": "message_stop"}));
    Reply::Stream(stream)
}

fn blocks(asked: &Asked, said: &Said) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some(thinking) = &said.thinking {
        let shown = if asked.shows_thinking { thinking.as_str() } else { "" };
        blocks.push(json!({"type": "thinking", "thinking": shown, "signature": signature(shown)}));
    }
    if let Some(text) = said.text.as_ref().or(said.refusal.as_ref()).filter(|text| !text.is_empty()) {
        blocks.push(json!({"type": "text", "text": text}));
    }
    blocks.extend(said.calls.iter().map(|call| json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": call.object()})));
    blocks
}

fn write_block(stream: &mut Stream, index: usize, block: &Value, script: &Script) {
    let mut begun = block.clone();
    let mut deltas = Vec::new();
    match block["type"].as_str() {
        Some("thinking") => {
            (begun["thinking"], begun["signature"]) = (json!(""), json!(""));
            let text = block["thinking"].as_str().filter(|text| !text.is_empty());
            deltas.extend(
                text.iter()
                    .flat_map(|text| words(text))
                    .map(|piece| json!({"type": "thinking_delta", "thinking": piece})),
            );
            deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
        }
        Some("text") => {
            begun["text"] = json!("");
            let pieces = words(block["text"].as_str().unwrap_or_default());
            deltas.extend(pieces.into_iter().map(|piece| json!({"type": "text_delta", "text": piece})));
        }
        _ => {
            begun["input"] = json!({});
            if !script.empty_args {
                deltas.push(json!({"type": "input_json_delta", "partial_json": ""}));
                let whole = script.args.clone().unwrap_or_else(|| block["input"].to_string());
                deltas.extend(
                    shreds(&whole)
                        .into_iter()
                        .map(|piece| json!({"type": "input_json_delta", "partial_json": piece})),
                );
            }
        }
    }
    stream.event(
        Some("content_block_start"),
        &json!({"type": "content_block_start", "index": index, "content_block": begun}),
    );
    for delta in deltas {
        if delta["type"] == "text_delta" {
            stream.repeats.get_or_insert(stream.events.len());
        }
        stream.event(
            Some("content_block_delta"),
            &json!({"type": "content_block_delta", "index": index, "delta": delta}),
        );
    }
    stream.event(Some("content_block_stop"), &json!({"type": "content_block_stop", "index": index}));
}

/// What was cached stands beside the input, not in it.
fn usage(usage: Usage, output: u64) -> Value {
    json!({"input_tokens": usage.input - usage.cached - usage.written, "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached, "output_tokens": output, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": usage.written, "ephemeral_1h_input_tokens": 0}})
}

/// At a stream's end: what it has come to. Servers may leave out what has not changed since the beginning; clients that
/// rely on the rest are many.
fn last_usage(usage: Usage, script: &Script) -> Value {
    if script.short_usage {
        return json!({"output_tokens": usage.output});
    }
    json!({"input_tokens": usage.input - usage.cached - usage.written, "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached, "output_tokens": usage.output})
}

/// An error as Anthropic writes it.
fn error(kind: &str, message: &str, number: u64) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": format!("req_mock{number}")})
}

pub(super) fn status_error(status: u16, message: &str, number: u64) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 | 503 => "overloaded_error",
        _ => "api_error",
    };
    error(kind, message, number)
}

/// A problem as Anthropic words it.
pub(super) fn problem(problem: &Problem, number: u64) -> (u16, Value) {
    let at = problem.at.replace('[', ".").replace(']', "");
    let place = if at.is_empty() { String::new() } else { format!("{at}: ") };
    let (status, message) = match &problem.what {
        What::Missing => (400, format!("{place}Field required")),
        What::Unknown => (400, format!("{place}Extra inputs are not permitted")),
        What::Type(name) => (400, format!("{place}Input should be a valid {name}")),
        What::Value(text) | What::Sentence(text) => (400, format!("{place}{text}")),
        What::Status(status, text) => (*status, text.clone()),
    };
    (status, status_error(status, &message, number))
}
