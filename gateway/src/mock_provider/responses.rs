//! OpenAI Responses.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::answer::{Asked, Choice, End, Said, Usage, media_url, shreds, signature, words};
use super::chat::{function, json_object, json_schema, named, word};
use super::checks::{Checked, Object, Problem, What, wrong};
use super::delivery::{Reply, Stream};
use super::script::Script;

const KNOWN: [&str; 33] = [
    "background",
    "client_metadata",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
    "verbosity",
];
const ITEMS: [&str; 13] = [
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "item_reference",
    "local_shell_call",
    "local_shell_call_output",
    "web_search_call",
    "image_generation_call",
    "file_search_call",
    "compaction",
];

/// What only this dialect asks.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// What the response repeats of the request.
    echoed: Map<String, Value>,
    pub(super) store: bool,
    encrypted: bool,
}

/// Reads and checks a request; `earlier` has the calls that the previous response left open.
pub(super) fn read(body: &Value, earlier: &dyn Fn(&str) -> Option<Vec<String>>) -> Checked<(Asked, Extra)> {
    let request = Object::of(body, "")?;
    request.only(&KNOWN)?;
    let mut asked = Asked { model: request.need_text("model")?.to_owned(), ..Asked::default() };
    if let Some(text) = request.text("instructions")? {
        asked.instruct(text);
    }
    let previous = request.text("previous_response_id")?.map(str::to_owned);
    let mut open = match &previous {
        None => Vec::new(),
        Some(id) => earlier(id).ok_or_else(|| Problem {
            at: "previous_response_id".to_owned(),
            what: What::Status(400, format!("Previous response with id '{id}' not found.")),
        })?,
    };
    match request.need("input")? {
        Value::String(text) => {
            asked.turns.push("user");
            asked.hear(text);
        }
        _ => {
            for item in request.objects("input")? {
                read_item(&item, &mut asked, &mut open)?;
            }
        }
    }
    if let Some(id) = open.first() {
        return wrong("input", format!("No tool output found for function call {id}."));
    }
    tools(&request, &mut asked)?;
    settings(&request, &mut asked)?;
    asked.stream = request.flag("stream")?;
    let include = request.texts("include")?;
    let echoed = [
        "instructions",
        "max_output_tokens",
        "metadata",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "truncation",
        "user",
        "prompt_cache_key",
        "safety_identifier",
    ];
    let defaults = json!({"instructions": null, "max_output_tokens": null, "metadata": {}, "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": true, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "user": null});
    let mut all = defaults.as_object().cloned().unwrap_or_default();
    all.extend(echoed.iter().filter_map(|key| Some(((*key).to_owned(), request.get(key)?.clone()))));
    let store = request.get("store").is_none() || request.flag("store")?;
    let encrypted = include.iter().any(|name| name == "reasoning.encrypted_content");
    Ok((asked, Extra { echoed: all, store, encrypted }))
}

fn read_item(item: &Object<'_>, asked: &mut Asked, open: &mut Vec<String>) -> Checked {
    let kind = if item.get("type").is_some() { item.need_choice("type", &ITEMS)? } else { "message" };
    match kind {
        "message" => message(item, asked),
        "function_call" | "custom_tool_call" => {
            item.need_text("name")?;
            asked.count(item.need_text(if kind == "function_call" { "arguments" } else { "input" })?);
            open.push(item.need_text("call_id")?.to_owned());
            asked.turns.push("assistant");
            Ok(())
        }
        "function_call_output" | "custom_tool_call_output" => {
            let id = item.need_text("call_id")?;
            let Some(index) = open.iter().position(|known| known == id) else {
                return wrong(
                    "input",
                    format!("No tool call found for function call output with call_id {id}."),
                );
            };
            open.remove(index);
            asked.turns.push("tool");
            match item.need("output")? {
                Value::String(text) => asked.result(text),
                _ => {
                    for part in item.objects("output")? {
                        asked.result(part.text("text")?.unwrap_or("(an image)"));
                    }
                }
            }
            Ok(())
        }
        "reasoning" => {
            item.need("summary")?;
            let id = item.text("id")?;
            match item.text("encrypted_content")? {
                Some(content) if !is_content_of(content, id) => wrong(
                    &item.place("encrypted_content"),
                    "The encrypted content for item could not be verified. Reason: Encrypted content could not be decrypted or parsed.",
                ),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// What an item holds encrypted: its name, which items that come back may leave out.
fn encrypted_content(id: &str) -> String {
    format!("gAAAAA{}{}", signature(id), URL_SAFE_NO_PAD.encode(id))
}

fn is_content_of(content: &str, id: Option<&str>) -> bool {
    let decoded = || {
        let rest = content.strip_prefix("gAAAAA")?;
        let (signed, held) = rest.split_at_checked(signature("").len())?;
        let held = String::from_utf8(URL_SAFE_NO_PAD.decode(held).ok()?).ok()?;
        (signature(&held) == signed).then_some(held)
    };
    decoded().is_some_and(|held| id.is_none_or(|id| id == held))
}

fn message(item: &Object<'_>, asked: &mut Asked) -> Checked {
    item.only(&["type", "role", "content", "id", "status", "phase"])?;
    let role = item.need_choice("role", &["assistant", "system", "developer", "user"])?;
    let kinds: &[&str] = if role == "assistant" {
        &["output_text", "refusal"]
    } else {
        &["input_text", "input_image", "input_file"]
    };
    let say = |text: &str, asked: &mut Asked| match role {
        "user" => asked.hear(text),
        "assistant" => asked.count(text),
        _ => asked.instruct(text),
    };
    match role {
        "user" => asked.turns.push("user"),
        "assistant" => asked.turns.push("assistant"),
        _ => {}
    }
    if let Value::String(text) = item.need("content")? {
        say(text, asked);
        return Ok(());
    }
    for part in item.objects("content")? {
        match part.need_choice("type", kinds)? {
            "input_image" => {
                let url = part.text("image_url")?;
                let media = match url {
                    Some(url) => media_url(url),
                    None => Some(part.need_text("file_id")?.to_owned()),
                };
                let Some(media) = media else {
                    return wrong(
                        &part.place("image_url"),
                        format!(
                            "Invalid '{}'. Expected a valid URL, but got a value with an invalid format.",
                            part.place("image_url")
                        ),
                    );
                };
                asked.media.push(media);
            }
            "input_file" => {
                let data = part.text("file_data")?.or(part.text("file_url")?).or(part.text("file_id")?);
                let Some(data) = data else {
                    return Err(Problem { at: part.place("file_id"), what: What::Missing });
                };
                asked.media.push(media_url(data).unwrap_or_else(|| data.to_owned()));
            }
            "refusal" => say(part.need_text("refusal")?, asked),
            _ => say(part.need_text("text")?, asked),
        }
    }
    Ok(())
}

fn tools(request: &Object<'_>, asked: &mut Asked) -> Checked {
    let kinds = [
        "function",
        "custom",
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "mcp",
        "image_generation",
        "local_shell",
        "shell",
        "apply_patch",
        "namespace",
        "tool_search",
    ];
    for tool in request.objects("tools")? {
        match tool.need_choice("type", &kinds)? {
            "function" => {
                tool.only(&["type", "name", "description", "parameters", "strict", "defer_loading"])?;
                asked.tools.push(function(&tool, false)?);
            }
            "custom" => {
                tool.only(&["type", "name", "description", "format", "defer_loading"])?;
                if let Some(format) = tool.object("format")?
                    && format.need_choice("type", &["text", "grammar"])? == "grammar"
                {
                    format.need_choice("syntax", &["lark", "regex"])?;
                    format.need_text("definition")?;
                }
                asked.tools.push(function(&tool, true)?);
            }
            _ => {}
        }
    }
    asked.one_call = request.get("parallel_tool_calls").is_some() && !request.flag("parallel_tool_calls")?;
    asked.choice = match request.get("tool_choice") {
        Some(Value::Object(_)) => {
            let choice = request.need_object("tool_choice")?;
            match choice.need_text("type")? {
                "function" | "custom" => named(choice.need_text("name")?, asked)?,
                _ => Choice::Auto,
            }
        }
        Some(_) => word(request.choice("tool_choice", &["none", "auto", "required"])?),
        None => Choice::Auto,
    };
    Ok(())
}

fn settings(request: &Object<'_>, asked: &mut Asked) -> Checked {
    asked.set("temperature", request.number("temperature", 0.0, 2.0)?);
    asked.set("top_p", request.number("top_p", 0.0, 1.0)?);
    asked.set("user", request.text("user")?);
    asked.set(
        "service_tier",
        request.choice("service_tier", &["auto", "default", "flex", "priority", "scale"])?,
    );
    asked.max_tokens = request.integer("max_output_tokens")?;
    if let Some(least) = asked.max_tokens.filter(|most| *most < 16) {
        return wrong(
            "max_output_tokens",
            format!(
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got {least} instead."
            ),
        );
    }
    if let Some(reasoning) = request.object("reasoning")? {
        reasoning.only(&["effort", "summary", "generate_summary", "context"])?;
        let effort =
            reasoning.choice("effort", &["none", "minimal", "low", "medium", "high", "xhigh", "max"])?;
        let summary = reasoning.choice("summary", &["auto", "concise", "detailed"])?;
        asked.thinking = effort != Some("none");
        asked.shows_thinking = summary.is_some();
        asked.set("effort", effort);
    }
    if let Some(text) = request.object("text")? {
        text.only(&["format", "verbosity"])?;
        text.choice("verbosity", &["low", "medium", "high"])?;
        if let Some(format) = text.object("format")? {
            match format.need_choice("type", &["text", "json_object", "json_schema"])? {
                "json_object" => asked.schema = Some(json_object(&format, asked)?),
                "json_schema" => asked.schema = Some(json_schema(&format)?),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The response as it is stored, and what answers the request.
pub(super) fn write(
    asked: &Asked,
    extra: &Extra,
    said: &Said,
    script: &Script,
    number: u64,
) -> (Value, Reply) {
    let mut response = json!({"id": format!("resp_mock{number}"), "object": "response", "created_at": 1_760_000_000_u64 + number,
        "status": "in_progress", "background": false, "error": null, "incomplete_details": null, "model": asked.model,
        "output": [], "usage": null, "service_tier": "default"});
    if let Some(map) = response.as_object_mut() {
        map.extend(extra.echoed.clone());
    }
    let items = items(asked, extra, said, number);
    let mut done = response.clone();
    done["output"] = items.iter().cloned().collect();
    done["usage"] = usage(said.usage);
    done["status"] = json!("completed");
    if matches!(said.end, End::Length | End::Filter) {
        done["status"] = json!("incomplete");
        let reason = if said.end == End::Length { "max_output_tokens" } else { "content_filter" };
        done["incomplete_details"] = json!({"reason": reason});
    } else {
        done["completed_at"] = json!(1_760_000_001_u64 + number);
    }
    let reply = if asked.stream {
        Reply::Stream(Writer::default().all(&response, &items, &done, script))
    } else {
        Reply::Json(200, done.clone())
    };
    (done, reply)
}

fn items(asked: &Asked, extra: &Extra, said: &Said, number: u64) -> Vec<Value> {
    let mut items = Vec::new();
    if let Some(thinking) = &said.thinking {
        let id = format!("rs_mock{number}");
        let summary = if asked.shows_thinking {
            json!([{"type": "summary_text", "text": thinking}])
        } else {
            json!([])
        };
        let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
        if extra.encrypted {
            item["encrypted_content"] = json!(encrypted_content(&id));
        }
        items.push(item);
    }
    let part = match (&said.text, &said.refusal) {
        (Some(text), _) => {
            Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}))
        }
        (None, Some(text)) => Some(json!({"type": "refusal", "refusal": text})),
        (None, None) => None,
    };
    if let Some(part) = part {
        let status = if said.end == End::Length { "incomplete" } else { "completed" };
        items.push(json!({"id": format!("msg_mock{number}"), "type": "message", "role": "assistant", "status": status, "content": [part]}));
    }
    for call in &said.calls {
        let (kind, field, prefix) = if call.free {
            ("custom_tool_call", "input", "ctc")
        } else {
            ("function_call", "arguments", "fc")
        };
        items.push(json!({"id": format!("{prefix}_{}", call.id), "type": kind, "status": "completed", "call_id": format!("call_{}", call.id), "name": call.name, field: call.arguments}));
    }
    items
}

fn usage(usage: Usage) -> Value {
    json!({"input_tokens": usage.input, "input_tokens_details": {"cached_tokens": usage.cached}, "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning}, "total_tokens": usage.input + usage.output})
}

/// Writes events with their numbers.
#[derive(Default)]
struct Writer {
    stream: Stream,
    next: u64,
}

impl Writer {
    fn event(&mut self, name: &str, mut data: Value) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.next);
        self.next += 1;
        self.stream.event(Some(name), &data);
    }

    fn all(mut self, begun: &Value, items: &[Value], done: &Value, script: &Script) -> Stream {
        self.event("response.created", json!({"response": begun}));
        self.event("response.in_progress", json!({"response": begun}));
        for (index, item) in items.iter().enumerate() {
            self.item(index, item, script);
        }
        let last = if done["status"] == "completed" { "response.completed" } else { "response.incomplete" };
        for _ in 0..=usize::from(script.usage_twice) {
            self.event(last, json!({"response": done}));
        }
        let error = json!({"type": "error", "code": "server_error", "message": "The server had an error while processing your request", "param": null, "sequence_number": self.next});
        self.stream.error = super::delivery::sse(Some("error"), &error.to_string());
        self.stream
    }

    fn item(&mut self, index: usize, item: &Value, script: &Script) {
        let mut begun = item.clone();
        if item["type"] != "reasoning" {
            begun["status"] = json!("in_progress");
        }
        for field in ["content", "summary"].into_iter().filter(|field| item.get(field).is_some()) {
            begun[field] = json!([]);
        }
        for field in ["arguments", "input"].into_iter().filter(|field| item.get(field).is_some()) {
            begun[field] = json!("");
        }
        self.event("response.output_item.added", json!({"output_index": index, "item": begun}));
        let place = json!({"item_id": item["id"], "output_index": index});
        if let Some(part) = item["summary"].get(0) {
            self.part(
                &place,
                part,
                ["response.reasoning_summary_part", "response.reasoning_summary_text"],
                "summary_index",
                "text",
            );
        }
        if let Some(part) = item["content"].get(0) {
            let (text, field) = if part["type"] == "refusal" {
                ("response.refusal", "refusal")
            } else {
                ("response.output_text", "text")
            };
            self.part(&place, part, ["response.content_part", text], "content_index", field);
        }
        for (field, name) in
            [("arguments", "response.function_call_arguments"), ("input", "response.custom_tool_call_input")]
        {
            let Some(whole) = item[field].as_str() else { continue };
            for piece in shreds(whole).into_iter().filter(|_| !script.args_in_done) {
                self.event(&format!("{name}.delta"), with(&place, &[("delta", json!(piece))]));
            }
            let mut last = with(&place, &[(field, json!(whole))]);
            if field == "arguments" {
                last["name"] = item["name"].clone();
            }
            self.event(&format!("{name}.done"), last);
        }
        self.event("response.output_item.done", json!({"output_index": index, "item": item}));
    }

    /// A part of an item: added, its text in pieces, its whole text, done.
    fn part(&mut self, place: &Value, part: &Value, [frame, text]: [&str; 2], index: &str, field: &str) {
        let at = with(place, &[(index, json!(0))]);
        let mut empty = part.clone();
        empty[field] = json!("");
        self.event(&format!("{frame}.added"), with(&at, &[("part", empty)]));
        let whole = part[field].as_str().unwrap_or_default();
        for piece in words(whole) {
            self.stream.repeats.get_or_insert(self.stream.events.len());
            let mut delta = with(&at, &[("delta", json!(piece))]);
            if field == "text" && index == "content_index" {
                delta["logprobs"] = json!([]);
            }
            self.event(&format!("{text}.delta"), delta);
        }
        let mut last = with(&at, &[(field, json!(whole))]);
        if field == "text" && index == "content_index" {
            last["logprobs"] = json!([]);
        }
        self.event(&format!("{text}.done"), last);
        self.event(&format!("{frame}.done"), with(&at, &[("part", part.clone())]));
    }
}

fn with(object: &Value, fields: &[(&str, Value)]) -> Value {
    let mut object = object.clone();
    for (name, value) in fields {
        object[*name] = value.clone();
    }
    object
}
