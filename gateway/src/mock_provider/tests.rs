//! What the mock refuses, in each dialect's words, and what it sends. That it is faithful, the suite shows with the
//! providers' own SDKs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::request::Parts;
use serde_json::{Value, json};

use super::delivery::Reply;
use super::routes::State;
use super::{Dialect, Ended, MockProvider, anthropic_reply, chat_reply, gemini_reply};

fn parts(path: &str, key: &str) -> Parts {
    let request = http::Request::post(path).header("anthropic-version", "2023-06-01");
    let request = match key {
        "" => request,
        key => request.header("authorization", format!("Bearer {key}")),
    };
    request.body(()).unwrap().into_parts().0
}

fn ask(state: &State, path: &str, body: &Value) -> Result<Reply, (u16, Value)> {
    let (_, reply) = state.answer(&parts(path, "key"), body.to_string().as_bytes());
    reply.map_err(|(dialect, problem)| match dialect {
        Dialect::OpenAi => chat_reply::problem(&problem),
        Dialect::Anthropic => anthropic_reply::problem(&problem, 0),
        Dialect::Gemini => gemini_reply::problem(&problem),
    })
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const GEMINI: &str = "/v1beta/models/gemini-3-pro:generateContent";

/// A body with one field of another value; null takes the field away.
fn with(body: &Value, field: &str, value: Value) -> Value {
    let mut body = body.clone();
    match value {
        Value::Null => drop(body.as_object_mut().unwrap().remove(field)),
        value => body[field] = value,
    }
    body
}

fn chat_body() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
}

fn messages_body() -> Value {
    json!({"model": "m", "max_tokens": 2048, "messages": [{"role": "user", "content": "hello"}]})
}

fn gemini_body() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
}

/// Each row changes one field of a body that is taken.
#[test]
fn refusals() {
    let tool = |schema: Value| json!([{"name": "t", "input_schema": schema}]);
    let used =
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {}}]});
    let user = json!({"role": "user", "content": "x"});
    let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    let call = json!({"role": "model", "parts": [{"functionCall": {"name": "t", "args": {}}}]});
    let answered =
        json!({"role": "user", "parts": [{"functionResponse": {"name": "t", "response": {"a": 1}}}]});
    let asked = json!({"role": "user", "parts": [{"text": "x"}]});
    let rows: Vec<(&str, Value, &str, Value, &str)> = vec![
        (CHAT, chat_body(), "model", Value::Null, "Missing required parameter: 'model'."),
        (CHAT, chat_body(), "messages", json!([]), "empty array"),
        (CHAT, chat_body(), "messages", json!("x"), "Invalid type for 'messages'"),
        (CHAT, chat_body(), "max_output_tokens", json!(5), "Unknown parameter: 'max_output_tokens'."),
        (CHAT, chat_body(), "temperature", json!(3), "between 0 and 2"),
        (
            CHAT,
            chat_body(),
            "stream_options",
            json!({"include_usage": true}),
            "only allowed when 'stream' is enabled",
        ),
        (
            CHAT,
            chat_body(),
            "messages",
            json!([{"role": "model", "content": "x"}]),
            "Invalid value: 'model'.",
        ),
        (
            CHAT,
            chat_body(),
            "messages",
            json!([{"role": "tool", "content": "x", "tool_call_id": "a"}]),
            "must be a response to a preceeding message",
        ),
        (
            CHAT,
            chat_body(),
            "messages",
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "t", "arguments": ""}}]}, user]),
            "did not have response messages: a",
        ),
        (
            CHAT,
            chat_body(),
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}]}]),
            "Failed to download image",
        ),
        (
            CHAT,
            chat_body(),
            "tools",
            json!([{"type": "function", "function": {"name": "a b"}}]),
            "does not match pattern",
        ),
        (
            CHAT,
            chat_body(),
            "tools",
            json!([{"type": "function", "function": {"name": "t", "strict": true, "parameters": {"type": "object", "properties": {"a": {}}}}}]),
            "'additionalProperties' is required",
        ),
        (CHAT, chat_body(), "tool_choice", json!("auto"), "only allowed when 'tools' are specified"),
        (
            CHAT,
            chat_body(),
            "response_format",
            json!({"type": "json_object"}),
            "must contain the word 'json'",
        ),
        (CHAT, chat_body(), "stop", json!(["a", "b", "c", "d", "e"]), "array too long"),
        (
            CHAT,
            with(&chat_body(), "model", json!("gpt-5")),
            "max_tokens",
            json!(5),
            "Use 'max_completion_tokens' instead",
        ),
        (
            RESPONSES,
            json!({"model": "m", "input": "x"}),
            "messages",
            json!([]),
            "Unknown parameter: 'messages'.",
        ),
        (
            RESPONSES,
            json!({"model": "m", "input": "x"}),
            "max_output_tokens",
            json!(5),
            "below minimum value",
        ),
        (
            RESPONSES,
            json!({"model": "m", "input": "x"}),
            "previous_response_id",
            json!("resp_none"),
            "'resp_none' not found",
        ),
        (
            RESPONSES,
            json!({"model": "m"}),
            "input",
            json!([{"type": "function_call_output", "call_id": "a", "output": "x"}]),
            "No tool call found",
        ),
        (
            RESPONSES,
            json!({"model": "m"}),
            "input",
            json!([{"type": "function_call", "call_id": "a", "name": "t", "arguments": "{}"}]),
            "No tool output found for function call a",
        ),
        (
            RESPONSES,
            json!({"model": "m"}),
            "input",
            json!([{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}]),
            "could not be verified",
        ),
        (
            RESPONSES,
            json!({"model": "m"}),
            "input",
            json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
            "Invalid value: 'text'.",
        ),
        (MESSAGES, messages_body(), "max_tokens", Value::Null, "max_tokens: Field required"),
        (MESSAGES, messages_body(), "n", json!(1), "n: Extra inputs are not permitted"),
        (MESSAGES, messages_body(), "messages", json!([used]), "first message must use the \"user\" role"),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([{"role": "system", "content": "x"}]),
            "Unexpected role \"system\"",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([{"role": "user", "content": ""}]),
            "must have non-empty content",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([{"role": "user", "content": [{"type": "text", "text": " "}]}]),
            "non-whitespace",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([user, used]),
            "without `tool_result` blocks immediately after: a",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]),
            "unexpected `tool_use_id`",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([user, {"role": "assistant", "content": "x "}]),
            "trailing whitespace",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([user, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"}]}]),
            "Invalid `signature`",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([{"role": "user", "content": vec![marked; 5]}]),
            "maximum of 4 blocks",
        ),
        (
            MESSAGES,
            messages_body(),
            "messages",
            json!([user, {"role": "assistant", "content": [{"type": "tool_use", "id": "a.b", "name": "t", "input": {}}]}]),
            "should match pattern",
        ),
        (
            MESSAGES,
            messages_body(),
            "thinking",
            json!({"type": "enabled", "budget_tokens": 500}),
            "greater than or equal to 1024",
        ),
        (
            MESSAGES,
            messages_body(),
            "thinking",
            json!({"type": "enabled", "budget_tokens": 4000}),
            "must be greater than `thinking.budget_tokens`",
        ),
        (
            MESSAGES,
            with(&messages_body(), "temperature", json!(0.5)),
            "thinking",
            json!({"type": "enabled", "budget_tokens": 1024}),
            "only be set to 1 when thinking",
        ),
        (MESSAGES, messages_body(), "tools", tool(json!({"properties": {}})), "type: Field required"),
        (
            MESSAGES,
            messages_body(),
            "tool_choice",
            json!({"type": "any"}),
            "only be specified while providing tools",
        ),
        (
            MESSAGES,
            messages_body(),
            "output_config",
            json!({"format": {"type": "json_schema", "schema": {"type": "array", "uniqueItems": true}}}),
            "'uniqueItems' is not supported",
        ),
        (GEMINI, gemini_body(), "messages", json!([]), "Unknown name \"messages\": Cannot find field."),
        (GEMINI, gemini_body(), "contents", json!([]), "contents is not specified"),
        (
            GEMINI,
            gemini_body(),
            "contents",
            json!([{"role": "assistant", "parts": [{"text": "x"}]}]),
            "valid role: user, model",
        ),
        (GEMINI, gemini_body(), "contents", json!([{"role": "user", "parts": []}]), "must not be empty"),
        (GEMINI, gemini_body(), "contents", json!([answered]), "immediately after a function call turn"),
        (GEMINI, gemini_body(), "contents", json!([asked, call]), "number of function response parts"),
        (GEMINI, gemini_body(), "contents", json!([asked, call, answered]), "missing a thought_signature"),
        (GEMINI, gemini_body(), "contents", json!([call, answered]), "immediately after a user turn"),
        (
            GEMINI,
            gemini_body(),
            "tools",
            json!([{"function_declarations": [{"name": "t", "parameters": {"type": "object", "$schema": "x"}}]}]),
            "Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters'",
        ),
        (
            GEMINI,
            gemini_body(),
            "tools",
            json!([{"googleSearch": {}}, {"functionDeclarations": [{"name": "t"}]}]),
            "unsupported by the model",
        ),
        (
            GEMINI,
            gemini_body(),
            "generationConfig",
            json!({"responseSchema": {"type": "STRING"}}),
            "only supported with response mime type",
        ),
        (
            GEMINI,
            gemini_body(),
            "generation_config",
            json!({"thinking_config": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}),
            "only one of thinking budget",
        ),
        (
            GEMINI,
            with(&gemini_body(), "cachedContent", json!("c")),
            "systemInstruction",
            json!({"parts": [{"text": "x"}]}),
            "CachedContent can not be used",
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "x"}), "input", json!([""]), "'$.input' is invalid"),
    ];
    let state = State::default();
    for (path, body, field, value, expected) in rows {
        let before = with(&body, field, Value::Null);
        let body = with(&body, field, value);
        let Err((status, error)) = ask(&state, path, &body) else { panic!("taken: {path} {body}") };
        let inner = &error["error"];
        let message = inner["message"].as_str().unwrap_or_default();
        assert!(
            status == 400 && message.contains(expected),
            "{path} {body}: {status} {error}, before: {before}"
        );
    }
}

/// What clients rightly send and a strict reader could take offence at.
#[test]
fn what_is_taken() {
    let signature = super::answer::signature("t");
    let rows = [
        (CHAT, with(&chat_body(), "temperature", json!(null))),
        (
            CHAT,
            with(
                &chat_body(),
                "messages",
                json!([{"role": "developer", "content": [{"type": "text", "text": "x"}]}, {"role": "user", "content": "x"}]),
            ),
        ),
        (
            MESSAGES,
            with(
                &messages_body(),
                "messages",
                json!([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]),
            ),
        ),
        (
            MESSAGES,
            with(
                &messages_body(),
                "messages",
                json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]),
            ),
        ),
        (
            GEMINI,
            json!({"contents": [{"parts": [{"text": "x"}]}, {"role": "model", "parts": [{"function_call": {"name": "t"}, "thought_signature": signature}]},
            {"role": "user", "parts": [{"function_response": {"name": "t", "response": {"a": 1}}}]}], "generation_config": {"max_output_tokens": 5}}),
        ),
        ("/openai/deployments/d/chat/completions?api-version=2025-01-01", chat_body()),
        ("/v1/messages/count_tokens", json!({"model": "m", "messages": [{"role": "user", "content": "x"}]})),
    ];
    for (path, body) in rows {
        assert!(
            ask(&State::default(), path, &body).is_ok(),
            "{path} {body}: {:?}",
            ask(&State::default(), path, &body)
        );
    }
}

/// The keys that each dialect asks for.
#[test]
fn keys() {
    let state = State::default();
    for (path, key, status) in [
        (CHAT, "", 401),
        (CHAT, "wrong", 401),
        (MESSAGES, "", 401),
        (MESSAGES, "wrong", 401),
        (GEMINI, "", 403),
        (GEMINI, "wrong", 400),
    ] {
        let (_, reply) = state.answer(&parts(path, key), b"{}");
        let (dialect, problem) = reply.unwrap_err();
        let (answer, _) = match dialect {
            Dialect::OpenAi => chat_reply::problem(&problem),
            Dialect::Anthropic => anthropic_reply::problem(&problem, 0),
            Dialect::Gemini => gemini_reply::problem(&problem),
        };
        assert_eq!(answer, status, "{path} {key:?}");
    }
}

/// The names of a stream's events, in order, repeated ones once.
fn names(reply: Reply) -> Vec<String> {
    let Reply::Stream(stream) = reply else { panic!("{reply:?}") };
    let name =
        |event: &String| event.lines().next().unwrap_or_default().trim_start_matches("event: ").to_owned();
    let mut names: Vec<String> = stream.events.iter().map(name).collect();
    names.dedup();
    names
}

#[test]
fn events_in_order() {
    let state = State::default();
    let body = with(
        &with(&messages_body(), "stream", json!(true)),
        "thinking",
        json!({"type": "enabled", "budget_tokens": 1024}),
    );
    let body = with(&body, "messages", json!([{"role": "user", "content": "[[thinking=2 words=2]]"}]));
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(ask(&state, MESSAGES, &body).unwrap()), expected);
    let tools = json!([{"type": "function", "name": "t"}]);
    let body = json!({"model": "m", "input": "[[tool=t say=x]]", "tools": tools, "stream": true});
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names(ask(&state, RESPONSES, &body).unwrap()), expected);
}

/// Sends a request to Gemini's endpoint over a connection of its own.
fn begin(mock: &MockProvider, verb: &str, script: &str) -> TcpStream {
    let mut stream = TcpStream::connect(mock.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let body = json!({"contents": [{"parts": [{"text": format!("[[{script}]]")}]}]}).to_string();
    let length = body.len();
    let head = format!(
        "POST /v1beta/models/m:{verb}?key=k HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {length}"
    );
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
    stream
}

/// What each fault looks like to a client, and how the record calls it.
#[test]
fn faults_on_the_wire() {
    let rows = [
        ("words=2", "\r\n0\r\n\r\n", Ok(()), Ended::Whole),
        ("words=2 end=1", "\r\n0\r\n\r\n", Ok(()), Ended::Whole),
        ("words=2 half=1", "the", Ok(()), Ended::Broken),
        ("words=2 reset=1", "the", Err(std::io::ErrorKind::ConnectionReset), Ended::Broken),
        ("reset=head", "", Err(std::io::ErrorKind::ConnectionReset), Ended::Broken),
    ];
    for (script, expected, end, ended) in rows {
        let mock = MockProvider::start().unwrap();
        let mut bytes = Vec::new();
        let read = begin(&mock, "streamGenerateContent", script).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(read.map(drop).map_err(|error| error.kind()), end, "{script}: {text}");
        assert!(text.contains(expected), "{script}: {text}");
        assert_eq!(text.ends_with("0\r\n\r\n"), ended == Ended::Whole, "{script}: {text}");
        assert_eq!(mock.requests()[0].ended, ended, "{script}");
    }
}

/// A client that leaves is noticed while the mock waits and while it sends.
#[test]
fn clients_that_leave() {
    for script in ["hang=1", "endless", "delay_first=60000"] {
        let mock = MockProvider::start().unwrap();
        let mut stream = begin(&mock, "streamGenerateContent", script);
        let _ = stream.read(&mut [0; 100]).unwrap();
        assert_eq!(mock.requests()[0].ended, Ended::NotYet, "{script}");
        drop(stream);
        let until = Instant::now() + Duration::from_secs(10);
        while mock.requests()[0].ended == Ended::NotYet && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(mock.requests()[0].ended, Ended::Left, "{script}");
    }
}

/// Without `alt=sse` a stream of Gemini's is one array, whatever the pieces.
#[test]
fn an_array_in_pieces() {
    let mut body = json!({"contents": [{"parts": [{"text": "[[words=3]]"}]}]});
    body["generationConfig"] = json!({"maxOutputTokens": 100});
    let reply = ask(&State::default(), "/v1beta/models/m:streamGenerateContent", &body).unwrap();
    let Reply::Stream(stream) = reply else { panic!("{reply:?}") };
    let array: Vec<Value> = serde_json::from_str(&stream.events.concat()).unwrap();
    let texts: Vec<_> = array
        .iter()
        .filter_map(|chunk| chunk["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(texts.concat(), "the gateway reads");
    assert_eq!(array.last().unwrap()["candidates"][0]["finishReason"], "STOP");
}
