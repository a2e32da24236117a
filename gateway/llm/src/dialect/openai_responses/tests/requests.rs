//! Requests.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{mutated, text, word};
use crate::dialect::openai_responses::{decode_request, encode_request, refuse_state};
use crate::dialect::{Asked, Call};
use crate::frames::Framing;
use crate::json::Reader;
use crate::loss::Losses;
use crate::neutral::{PartKind, Request, Role, ToolChoice};
use crate::target::Target;

fn read<'a>(body: &'a str, reader: &mut Reader) -> Request<'a> {
    decode_request(body.as_bytes(), &Call::default(), reader).expect("it is one")
}

/// There and back, as JSON.
fn again(body: &str) -> (Value, Losses) {
    let mut reader = Reader::default();
    let request = read(body, &mut reader);
    let target = Target::new(&request.model);
    let bytes = encode_request(&request, &target, &mut reader.losses).expect("it can be written");
    (serde_json::from_slice(&bytes).expect("it is JSON"), reader.losses)
}

#[test]
fn what_is_said_is_said_again() {
    for (name, body) in [
        (
            "a list",
            json!({"input": [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "original"},
                {"type": "input_image", "file_id": "file_1"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA==", "detail": "low"},
                {"type": "input_file", "file_url": "https://a.example/b.pdf"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
            ]}]}),
        ),
        (
            "an answer",
            json!({"input": [{"type": "message", "role": "assistant", "phase": "commentary", "content": [
                {"type": "output_text", "text": "a", "annotations": [
                    {"type": "file_citation", "file_id": "f", "filename": "a.txt", "index": 1},
                    {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "https://a.example", "title": "A"},
                ]},
                {"type": "refusal", "refusal": "no"},
            ]}]}),
        ),
        (
            "thoughts",
            json!({"input": [
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"},
                 {"type": "summary_text", "text": "b"}], "content": [{"type": "reasoning_text", "text": "c"}],
                 "encrypted_content": "gAAA"},
                {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gBBB"},
                {"type": "reasoning", "summary": [], "encrypted_content": "gCCC"},
            ]}),
        ),
        (
            "calls",
            json!({"input": [
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{ }"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x\n"},
                {"type": "function_call", "call_id": "c3", "namespace": "crm", "name": "get", "arguments": "{}",
                 "caller": {"type": "program", "caller_id": "p"}, "status": "incomplete"},
                {"type": "function_call_output", "call_id": "c1", "output": "a"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "b"},
                 {"type": "input_image", "image_url": "https://a.example/a.png"}]},
                {"type": "function_call_output", "call_id": "c3", "output": ""},
            ]}),
        ),
        (
            "items of OpenAI's",
            json!({"input": [
                {"type": "item_reference", "id": "msg_1"},
                {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "a"}},
                {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": "x"}},
                {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"},
                {"type": "tool_search_output", "tools": []},
                {"type": "mcp_approval_response", "approval_request_id": "m", "approve": true},
            ]}),
        ),
        (
            "tools",
            json!({"input": [], "tools": [
            {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "x": 1.0}, "strict": true,
             "defer_loading": true},
            {"type": "function", "name": "f2", "parameters": null},
            {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"a\""}},
            {"type": "namespace", "name": "crm", "description": "C", "tools": [
                {"type": "function", "name": "get", "parameters": {}}, {"type": "custom", "name": "note"}]},
            {"type": "namespace", "name": "mcp__docs__", "description": "D", "tools": [
                {"type": "function", "name": "get", "parameters": {}, "strict": false}]},
            {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}},
            {"type": "apply_patch"}, {"type": "local_shell"}, {"type": "tool_search"},
            {"type": "namespace", "name": "none", "description": "", "tools": []},
        ], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [
            {"type": "function", "name": "f"}, {"type": "custom", "name": "g"},
            {"type": "function", "namespace": "crm", "name": "get"}]}, "parallel_tool_calls": false}),
        ),
        ("a hosted choice", json!({"input": [], "tool_choice": {"type": "mcp", "server_label": "a"}})),
        (
            "an allowed hosted tool",
            json!({"input": [], "tool_choice":
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "image_generation"}]}}),
        ),
        (
            "settings",
            json!({"input": [], "max_output_tokens": 100, "temperature": 0.10, "top_p": 1,
            "top_logprobs": 3, "include": ["reasoning.encrypted_content", "message.output_text.logprobs",
            "file_search_call.results"],
            "reasoning": {"effort": "xhigh", "summary": "detailed", "context": "all_turns", "mode": "pro"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}, "strict": true},
            "verbosity": "low"}, "stream": true, "metadata": {"a": "b"}, "safety_identifier": "s", "user": "u",
            "service_tier": "flex", "store": false, "prompt_cache_key": "k", "prompt_cache_retention": "24h",
            "prompt_cache_options": {"mode": "explicit"}, "truncation": "auto", "background": true,
            "max_tool_calls": 3, "conversation": {"id": "conv_1"}, "prompt": {"id": "pmpt_1", "version": "2"},
            "stream_options": {"include_obfuscation": true}, "previous_response_id": "resp_1",
            "context_management": [{"type": "compaction", "compact_threshold": 1000}],
            "moderation": {"model": "omni-moderation-latest"}, "client_metadata": {"a": "b"}}),
        ),
        (
            "instructions",
            json!({"instructions": "i", "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "s"}]}]}),
        ),
    ] {
        let mut body = body;
        body["model"] = json!("m");
        let (again, losses) = again(&body.to_string());
        let fields = |value: &Value| value.as_object().expect("it is an object").clone();
        let (mut before, mut after) = (fields(&body), fields(&again));
        for list in [&mut before, &mut after] {
            if let Some(Value::Array(included)) = list.get_mut("include") {
                included.sort_by_key(Value::to_string);
            }
        }
        assert_eq!(Value::Object(after), Value::Object(before), "{name}");
        assert!(losses.is_empty(), "{name}: {losses}");
    }
}

#[test]
fn what_is_short_means_the_same() {
    for (name, short, long) in [
        (
            "a string",
            json!("a"),
            json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}]),
        ),
        (
            "no type",
            json!([{"role": "user", "content": "a"}]),
            json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}]),
        ),
        (
            "a reference",
            json!([{"id": "msg_1"}, {"id": "msg_2", "type": null}]),
            json!([{"id": "msg_1"}, {"id": "msg_2", "type": null}]),
        ),
        (
            "identities",
            json!([{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]}]),
            json!([{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]),
        ),
        (
            "ours",
            json!([{"type": "reasoning", "id": "rs_gw_1_0", "summary": [], "encrypted_content": "x"}]),
            json!([{"type": "reasoning", "summary": [], "encrypted_content": "x"}]),
        ),
    ] {
        let (after, losses) = again(&json!({"model": "m", "input": short}).to_string());
        assert_eq!(after["input"], long, "{name}");
        assert!(losses.is_empty(), "{name}: {losses}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (body, path) in [
        (json!({"input": 1}), "input"),
        (json!({"input": [1]}), "input[0]"),
        (json!({"input": [{}]}), "input[0].type"),
        (json!({"input": [{"type": "massage"}]}), "input[0].type"),
        (json!({"input": [{"type": 1}]}), "input[0].type"),
        (json!({"input": [{"role": "tool", "content": "a"}]}), "input[0].role"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (json!({"input": [{"role": "user", "content": 1}]}), "input[0].content"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
            "input[0].content[0].type",
        ),
        (json!({"input": [{"role": "user", "content": [{"text": "a"}]}]}), "input[0].content[0].type"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
            "input[0].content[0].text",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].image_url",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
            "input[0].content[0].file_data",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}]}]}),
            "input[0].content[0].input_audio.format",
        ),
        (json!({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}), "input[0].call_id"),
        (
            json!({"input": [{"type": "function_call", "call_id": "", "name": "f", "arguments": "{}"}]}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]}),
            "input[0].arguments",
        ),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c", "output": "a"}]}),
            "input[0].call_id",
        ),
        (
            json!({"instructions": "i", "input": [{"type": "custom_tool_call_output", "call_id": "c", "output": "a"}]}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "reasoning", "summary": [{"type": "x", "text": "a"}]}]}),
            "input[0].summary[0].type",
        ),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [1]}), "tools[0]"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (json!({"tools": [{"type": "function", "name": "f", "strict": "yes"}]}), "tools[0].strict"),
        (
            json!({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}),
            "tools[0].tools[0].type",
        ),
        (json!({"tool_choice": "any"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "tool_choice.name"),
        (json!({"tool_choice": {}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}), "tool_choice.mode"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format.schema"),
        (json!({"max_output_tokens": -1}), "max_output_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"include": "all"}), "include"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"instructions": 1}), "instructions"),
        (json!({"reasoning": "high"}), "reasoning"),
    ] {
        let text = body.to_string();
        let error = decode_request(text.as_bytes(), &Call::default(), &mut Reader::default());
        assert_eq!(error.map_err(|error| error.path).err().as_deref(), Some(path), "{body}");
    }
}

#[test]
fn what_a_provider_keeps_is_refused_elsewhere() {
    for (body, path) in [
        (json!({"input": "a"}), None),
        (json!({"input": "a", "previous_response_id": "resp_1"}), Some("previous_response_id")),
        (json!({"input": "a", "conversation": "conv_1"}), Some("conversation")),
        (json!({"input": "a", "prompt": {"id": "pmpt_1"}}), Some("prompt")),
        (
            json!({"instructions": "i", "input": [{"role": "user", "content": "a"}, {"id": "msg_1"}]}),
            Some("input"),
        ),
    ] {
        let text = body.to_string();
        let refused = refuse_state(&read(&text, &mut Reader::default()));
        assert_eq!(refused.map_err(|error| error.path).err().as_deref(), path, "{body}");
    }
}

/// Names in the neutral form are those that any provider takes, and the same for the declaration, the choice and the call.
#[test]
fn namespaces_are_names_elsewhere() {
    let long = "n".repeat(60);
    let body = json!({"tools": [
        {"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "get"}]},
        {"type": "namespace", "name": long, "description": "", "tools": [{"type": "function", "name": "one"},
         {"type": "function", "name": "two"}]},
    ], "tool_choice": {"type": "function", "namespace": "crm", "name": "get"}, "input": [
        {"type": "function_call", "call_id": "c", "namespace": "crm", "name": "get", "arguments": "{}"}]});
    let text = body.to_string();
    let request = read(&text, &mut Reader::default());
    let names: Vec<String> = request
        .tools
        .iter()
        .map(|tool| match &tool.kind {
            crate::neutral::ToolKind::Function { name, .. } => name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names[0], "crm__get");
    assert!(names.iter().all(|name| name.len() <= 64), "{names:?}");
    assert_ne!(names[1], names[2]);
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("crm__get".into())));
    let [part] = &request.turns[0].parts[..] else { panic!("{request:?}") };
    assert!(matches!(&part.kind, PartKind::ToolCall { name, .. } if name == "crm__get"));
    assert!(part.state.is_empty(), "what is declared is no loss: {part:?}");
}

/// Thoughts that went through a client of another dialect are one item again.
#[test]
fn thoughts_without_a_name_end_with_their_signature() {
    let body = json!({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": [
        {"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "y"}]});
    let text = body.to_string();
    let mut request = read(&text, &mut Reader::default());
    request.echo.clear();
    for part in request.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        if let PartKind::Thinking { id, .. } = &mut part.kind {
            *id = None;
        }
    }
    let mut losses = Losses::default();
    let written = encode_request(&request, &Target::new("m"), &mut losses).expect("it can be written");
    let written: Value = serde_json::from_slice(&written).expect("it is JSON");
    let mut expected = body["input"].clone();
    for item in expected.as_array_mut().expect("it is a list") {
        item.as_object_mut().expect("it is an object").remove("id");
    }
    assert_eq!(written["input"], expected);
    assert!(losses.is_empty(), "{losses}");
}

/// Names and identities that other dialects allow fit, and names come back.
#[test]
fn names_of_others_fit() {
    let long = "c".repeat(200);
    let body = json!({"tools": [{"type": "function", "name": "docs.find:all"}], "input": [
        {"type": "function_call", "call_id": long, "name": "docs.find:all", "arguments": "{}"},
        {"type": "function_call_output", "call_id": long, "output": "a"}],
        "tool_choice": {"type": "function", "name": "docs.find:all"}});
    let (written, losses) = again(&body.to_string());
    let name = written["tools"][0]["name"].as_str().expect("it has one");
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{name}");
    assert_eq!((&written["input"][0]["name"], &written["tool_choice"]["name"]), (&json!(name), &json!(name)));
    let id = written["input"][0]["call_id"].as_str().expect("it has one");
    assert!(id.len() <= 64, "{id}");
    assert_eq!(written["input"][1]["call_id"], id);
    assert!(losses.is_empty(), "{losses}");
    let reply =
        json!({"output": [{"type": "function_call", "call_id": "c", "name": name, "arguments": "{}"}]})
            .to_string();
    let reply = crate::dialect::openai_responses::decode_reply(reply.as_bytes(), &mut Reader::default())
        .expect("it is one");
    assert!(
        matches!(&reply.candidates[0].parts[0].kind, PartKind::ToolCall { name, .. } if name == "docs.find:all")
    );
}

/// Fields that another dialect's client knows nothing of have that dialect's meaning.
#[test]
fn a_client_of_another_dialect_keeps_its_meaning() {
    let body = json!({"instructions": "i", "input": "a", "reasoning": {"effort": "low"}, "tools": [
        {"type": "function", "name": "f"}], "text": {"format": {"type": "json_object"}}});
    let text = body.to_string();
    let mut request = read(&text, &mut Reader::default());
    request.echo.clear();
    let write = |request: &Request<'_>| -> Value {
        let bytes =
            encode_request(request, &Target::new("m"), &mut Losses::default()).expect("it can be written");
        serde_json::from_slice(&bytes).expect("it is JSON")
    };
    let written = write(&request);
    assert_eq!(written["store"], false);
    assert_eq!(written["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(written["tools"][0]["strict"], false);
    assert_eq!(written["tools"][0]["parameters"], json!({"type": "object", "properties": {}}));
    // To answer in JSON, the word must stand in the input.
    assert_eq!(written["instructions"], Value::Null);
    assert_eq!(written["input"][0]["role"], "system");
    request.format = None;
    assert_eq!(write(&request)["instructions"], "i");
    request.turns.retain(|turn| turn.role == Role::System);
    assert_eq!(write(&request)["input"][0]["role"], "system", "an input without items is refused");
    request.reasoning = None;
    assert_eq!(write(&request)["include"], Value::Null, "models that do not think refuse it");
}

fn content() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(|text| json!({"type": "input_text", "text": text})),
        (word(), word()).prop_map(|(kind, data)| json!({"type": "input_image",
            "image_url": format!("data:image/{kind};base64,{data}"), "detail": "low"})),
        word().prop_map(|url| json!({"type": "input_image", "image_url": format!("https://{url}.example")})),
        (word(), word())
            .prop_map(|(name, data)| json!({"type": "input_file", "filename": name, "file_data": data})),
        text().prop_map(|text| json!({"type": "output_text", "text": text, "annotations": [
            {"type": "url_citation", "url": text, "title": "", "start_index": 0, "end_index": 0}]})),
        text().prop_map(|text| json!({"type": "refusal", "refusal": text})),
    ]
}

fn item() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![
        text().prop_map(|text| vec![json!({"role": "user", "content": text})]),
        (0..4_usize, prop::collection::vec(content(), 1..4)).prop_map(|(role, content)| {
            let role = ["user", "system", "developer", "assistant"][role];
            // What a model wrote has no pictures, and what it read no citations.
            let content: Vec<Value> = content
                .into_iter()
                .filter(|part| {
                    let is_output = matches!(part["type"].as_str(), Some("output_text" | "refusal"));
                    (role == "assistant") == is_output
                })
                .collect();
            if content.is_empty() {
                Vec::new()
            } else {
                vec![json!({"type": "message", "role": role, "content": content})]
            }
        }),
        (word(), text(), text()).prop_map(|(id, one, two)| vec![json!({"type": "reasoning", "id": id,
            "summary": [{"type": "summary_text", "text": one}], "encrypted_content": format!("x{two}")})]),
        (word(), word(), text(), text(), any::<bool>()).prop_map(
            |(id, name, arguments, output, is_custom)| {
                let (kind, field) =
                    if is_custom { ("custom_tool_call", "input") } else { ("function_call", "arguments") };
                let arguments = format!("{arguments}.");
                vec![
                    json!({"type": kind, "call_id": id, "name": name, field: arguments}),
                    json!({"type": format!("{kind}_output"), "call_id": id, "output": output}),
                ]
            }
        ),
        word().prop_map(|id| vec![json!({"type": "web_search_call", "id": id})]),
    ]
}

prop_compose! {
    fn request()(
        items in prop::collection::vec(item(), 0..6),
        instructions in prop::option::of(text()),
        effort in prop::option::of(word()),
        names in prop::collection::btree_set(word(), 0..4),
        space in word(),
        temperature in prop::option::of(0.0..2.0_f64),
        limit in prop::option::of(16..9999_u64),
        stream in any::<bool>(),
    ) -> Value {
        let mut tools: Vec<Value> = names.iter().map(|name| json!({"type": "function", "name": name, "strict": true})).collect();
        tools.push(json!({"type": "namespace", "name": space, "description": space, "tools": tools.clone()}));
        if names.is_empty() {
            tools.clear();
        }
        let mut body = json!({"model": "m", "input": items.concat(), "tools": tools, "stream": stream});
        for (name, value) in [("instructions", instructions.map(|text| json!(text))),
            ("reasoning", effort.map(|effort| json!({"effort": effort}))),
            ("temperature", temperature.map(|value| json!(value))), ("max_output_tokens", limit.map(|value| json!(value)))] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body
    }
}

/// Without what the dialect repeats in its answer: that is the client's text, which is written in other words.
fn said(mut request: Request<'_>) -> Request<'_> {
    request.echo.retain(|(name, _)| name == "include");
    request
}

proptest! {
    #[test]
    fn reading_what_was_written_is_reading_what_was_read(body in request()) {
        let body = body.to_string();
        let mut reader = Reader::default();
        let first = read(&body, &mut reader);
        let written = encode_request(&first, &Target::new("m"), &mut reader.losses).expect("it can be written");
        let written = String::from_utf8(written).expect("it is text");
        let second = read(&written, &mut reader);
        prop_assert_eq!(said(second), said(first));
        prop_assert!(reader.losses.is_empty(), "{}", reader.losses);
    }

    #[test]
    fn nothing_makes_it_panic(body in request(), changes in prop::collection::vec((0..99_usize, 0..99_usize), 1..4)) {
        let body = mutated(body, &changes);
        let mut reader = Reader::default();
        if let Ok(request) = decode_request(body.as_bytes(), &Call::default(), &mut reader) {
            let _ = refuse_state(&request);
            let written = encode_request(&request, &Target::new("m"), &mut reader.losses).expect("it can be written");
            prop_assert!(crate::json::parse(&written).is_ok());
            let asked = Asked::new(&request, Framing::Events, 0);
            let _ = crate::dialect::Dialect::OpenaiResponses.stream_encoder(asked);
        }
    }
}
