//! What OpenAI Chat Completions answers: replies, streams, and the errors that all of OpenAI has.

use serde_json::{Value, json};

use super::answer::{Asked, End, Said, Usage, shreds, words};
use super::chat::Extra;
use super::checks::{Problem, What};
use super::delivery::{Reply, Stream, sse};
use super::script::Script;

/// Writes the answer.
pub(super) fn write(asked: &Asked, extra: &Extra, said: &Said, script: &Script, number: u64) -> Reply {
    let id = format!("chatcmpl-mock{number}");
    let head = |object: &str, choices: Vec<Value>| {
        json!({"id": id, "object": object, "created": 1_760_000_000_u64 + number, "model": asked.model,
            "service_tier": "default", "system_fingerprint": "fp_mock", "choices": choices})
    };
    if asked.stream {
        return Reply::Stream(stream(extra, said, script, &|choices| head("chat.completion.chunk", choices)));
    }
    let mut message =
        json!({"role": "assistant", "content": said.text, "refusal": said.refusal, "annotations": []});
    if let Some(thinking) = said.thinking.as_ref().filter(|_| script.reasoning_content) {
        message["reasoning_content"] = json!(thinking);
    }
    if !said.calls.is_empty() {
        message["tool_calls"] = said.calls.iter().map(|call| {
            let id = format!("call_{}", call.id);
            if call.free {
                json!({"id": id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}})
            } else {
                json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
            }
        }).collect();
    }
    let choice = |index| {
        let logprobs = extra.logprobs.then(|| logprobs(said.text.as_deref().unwrap_or_default()));
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish(said)})
    };
    let mut reply = head("chat.completion", (0..extra.n).map(choice).collect());
    reply["usage"] = usage(said.usage, extra.n);
    Reply::Json(200, reply)
}

fn stream(extra: &Extra, said: &Said, script: &Script, chunk: &dyn Fn(Vec<Value>) -> Value) -> Stream {
    let mut stream = Stream {
        error: sse(
            None,
            &error(500, "The server had an error while processing your request", None, None).to_string(),
        ),
        ..Stream::default()
    };
    let with_usage = |mut chunk: Value| {
        if extra.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    if script.azure {
        let mut first = chunk(Vec::new());
        first["prompt_filter_results"] = json!([{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": false, "severity": "safe"}}}]);
        (first["model"], first["id"]) = (json!(""), json!(""));
        stream.event(None, &first);
    }
    for index in 0..extra.n {
        for delta in deltas(said, script) {
            let text =
                delta["content"].as_str().filter(|text| extra.logprobs && !text.is_empty()).map(logprobs);
            let is_text = delta.get("role").is_none() && delta.get("content").is_some();
            if is_text && stream.repeats.is_none() {
                stream.repeats = Some(stream.events.len());
            }
            stream.event(
                None,
                &with_usage(chunk(vec![
                    json!({"index": index, "delta": delta, "logprobs": text, "finish_reason": null}),
                ])),
            );
        }
        if script.azure {
            let filter = json!({"index": index, "finish_reason": null, "content_filter_offsets": {"check_offset": 1, "start_offset": 0, "end_offset": 9}, "content_filter_results": {}});
            stream.event(None, &chunk(vec![filter]));
        }
        let mut last = with_usage(chunk(vec![
            json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish(said)}),
        ]));
        if script.usage_on_choice {
            last["usage"] = usage(said.usage, extra.n);
        }
        stream.event(None, &last);
    }
    if extra.include_usage && !script.usage_on_choice {
        let mut last = chunk(Vec::new());
        last["usage"] = usage(said.usage, extra.n);
        for _ in 0..=usize::from(script.usage_twice) {
            stream.event(None, &last);
        }
    }
    stream.events.push("data: [DONE]\n\n".to_owned());
    stream
}

fn deltas(said: &Said, script: &Script) -> Vec<Value> {
    let content = if said.calls.is_empty() { json!("") } else { Value::Null };
    let mut deltas = vec![json!({"role": "assistant", "content": content, "refusal": null})];
    if let Some(thinking) = said.thinking.as_ref().filter(|_| script.reasoning_content) {
        deltas.extend(words(thinking).into_iter().map(|piece| json!({"reasoning_content": piece})));
    }
    deltas.extend(said.text.iter().flat_map(|text| words(text)).map(|piece| json!({"content": piece})));
    deltas.extend(said.refusal.iter().flat_map(|text| words(text)).map(|piece| json!({"refusal": piece})));
    for (index, call) in said.calls.iter().enumerate() {
        let (kind, field) = if call.free { ("custom", "input") } else { ("function", "arguments") };
        deltas.push(json!({"tool_calls": [{"index": index, "id": format!("call_{}", call.id), "type": kind, kind: {"name": call.name, field: ""}}]}));
        deltas.extend(
            shreds(&call.arguments)
                .into_iter()
                .map(|piece| json!({"tool_calls": [{"index": index, kind: {field: piece}}]})),
        );
    }
    deltas
}

fn finish(said: &Said) -> &'static str {
    match said.end {
        End::Calls => "tool_calls",
        End::Length => "length",
        End::Filter => "content_filter",
        End::Stop | End::Refusal | End::Sequence(_) => "stop",
    }
}

fn logprobs(text: &str) -> Value {
    let each = words(text).into_iter().map(|token| {
        json!({"token": token, "logprob": -0.25, "bytes": token.as_bytes(), "top_logprobs": [{"token": token, "logprob": -0.25, "bytes": token.as_bytes()}]})
    });
    json!({"content": each.collect::<Vec<_>>(), "refusal": null})
}

fn usage(usage: Usage, n: u64) -> Value {
    let output = usage.output * n;
    json!({"prompt_tokens": usage.input, "completion_tokens": output, "total_tokens": usage.input + output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning * n, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
}

/// An error as OpenAI writes it.
pub(super) fn error(status: u16, message: &str, param: Option<&str>, code: Option<Value>) -> Value {
    let kind = match status {
        400 | 404 | 413 | 415 | 422 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        _ => "server_error",
    };
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// A problem as OpenAI words it; Chat has another sentence for unknown fields than the other endpoints.
pub(super) fn problem(problem: &Problem) -> (u16, Value) {
    let at = problem.at.as_str();
    let (status, message, code) = match &problem.what {
        What::Missing => {
            (400, format!("Missing required parameter: '{at}'."), Some("missing_required_parameter"))
        }
        What::Unknown => (400, format!("Unknown parameter: '{at}'."), Some("unknown_parameter")),
        What::Type(name) => (
            400,
            format!("Invalid type for '{at}': expected {name}, but got another type instead."),
            Some("invalid_type"),
        ),
        What::Value(text) => (400, text.clone(), Some("invalid_value")),
        What::Sentence(text) => (400, text.clone(), None),
        What::Status(status, text) => (
            *status,
            text.clone(),
            match status {
                401 => Some("invalid_api_key"),
                429 => Some("rate_limit_exceeded"),
                404 => Some("model_not_found"),
                _ => None,
            },
        ),
    };
    let param = Some(at).filter(|at| !at.is_empty());
    (status, error(status, &message, param, code.map(Into::into)))
}
