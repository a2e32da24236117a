//! OpenAI Chat Completions.

use serde_json::{Value, json};

use super::answer::{Asked, Choice, Tool, media, media_url};
use super::checks::{Checked, Object, Problem, What, is_name, wrong};
use super::schema;

const KNOWN: [&str; 37] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
    "moderation",
];
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// What only this dialect asks.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) include_usage: bool,
    pub(super) n: u64,
    pub(super) logprobs: bool,
}

/// Reads and checks a request.
pub(super) fn read(body: &Value) -> Checked<(Asked, Extra)> {
    let request = Object::of(body, "")?;
    request.only(&KNOWN)?;
    let mut asked = Asked { model: request.need_text("model")?.to_owned(), ..Asked::default() };
    request.need("messages")?;
    let messages = request.objects("messages")?;
    if messages.is_empty() {
        return wrong(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        );
    }
    let mut open: Vec<String> = Vec::new();
    for message in &messages {
        read_message(message, &mut asked, &mut open)?;
    }
    unanswered(&open, "messages")?;
    tools(&request, &mut asked)?;
    settings(&request, &mut asked)?;
    asked.stream = request.flag("stream")?;
    let options = request.object("stream_options")?;
    if options.is_some() && !asked.stream {
        return wrong(
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        );
    }
    if let Some(options) = &options {
        options.only(&["include_usage", "include_obfuscation"])?;
    }
    let include_usage = options.map(|options| options.flag("include_usage")).transpose()?.unwrap_or_default();
    let n = request.integer("n")?.unwrap_or(1);
    if n == 0 || n > 128 {
        return wrong(
            "n",
            format!(
                "Invalid 'n': integer out of range. Expected a value between 1 and 128, but got {n} instead."
            ),
        );
    }
    let logprobs = request.flag("logprobs")?;
    if request.get("top_logprobs").is_some() && !logprobs {
        return wrong(
            "top_logprobs",
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
        );
    }
    Ok((asked, Extra { include_usage, n, logprobs }))
}

fn unanswered(open: &[String], at: &str) -> Checked {
    if open.is_empty() {
        return Ok(());
    }
    wrong(
        at,
        format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
         The following tool_call_ids did not have response messages: {}",
            open.join(", ")
        ),
    )
}

fn read_message(message: &Object<'_>, asked: &mut Asked, open: &mut Vec<String>) -> Checked {
    let role = message.need_choice("role", &ROLES)?;
    if role != "tool" {
        unanswered(open, &message.at)?;
    }
    match role {
        "system" | "developer" => {
            message.only(&["role", "content", "name"])?;
            let text = texts(message, &["text"])?;
            asked.instruct(&text);
        }
        "user" => {
            message.only(&["role", "content", "name"])?;
            message.need("content")?;
            asked.turns.push("user");
            parts(message, asked)?;
        }
        "assistant" => assistant(message, asked, open)?,
        "tool" => {
            message.only(&["role", "content", "tool_call_id", "name"])?;
            let id = message.need_text("tool_call_id")?;
            let Some(index) = open.iter().position(|known| known == id) else {
                return wrong(
                    &message.at,
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                );
            };
            open.remove(index);
            asked.turns.push("tool");
            let text = texts(message, &["text"])?;
            asked.result(&text);
        }
        _ => {}
    }
    Ok(())
}

fn assistant(message: &Object<'_>, asked: &mut Asked, open: &mut Vec<String>) -> Checked {
    message.only(&[
        "role",
        "content",
        "name",
        "refusal",
        "tool_calls",
        "function_call",
        "audio",
        "annotations",
        "reasoning_content",
    ])?;
    asked.turns.push("assistant");
    let calls = message.objects("tool_calls")?;
    if message.get("content").is_some() {
        let text = texts(message, &["text", "refusal"])?;
        asked.count(&text);
    } else if calls.is_empty() && message.get("refusal").is_none() && message.get("function_call").is_none() {
        return Err(Problem { at: message.place("content"), what: What::Type("string or array") });
    }
    if message.get("tool_calls").is_some() && calls.is_empty() {
        return wrong(
            &message.place("tool_calls"),
            format!(
                "Invalid '{}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
                message.place("tool_calls")
            ),
        );
    }
    for call in calls {
        let kind = call.need_choice("type", &["function", "custom"])?;
        let inner = call.need_object(kind)?;
        let name = inner.need_text("name")?;
        if !is_name(name, 64) {
            return wrong(
                &inner.place("name"),
                format!(
                    "Invalid '{}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                    inner.place("name")
                ),
            );
        }
        let arguments = inner.need_text(if kind == "function" { "arguments" } else { "input" })?;
        asked.count(arguments);
        let id = call.need_text("id")?;
        if id.len() > 64 {
            return wrong(
                &call.place("id"),
                format!(
                    "Invalid '{}': string too long. Expected a string with maximum length 64, but got a string with length {} instead.",
                    call.place("id"),
                    id.len()
                ),
            );
        }
        open.push(id.to_owned());
    }
    Ok(())
}

/// A content of texts only.
fn texts(message: &Object<'_>, kinds: &[&str]) -> Checked<String> {
    match message.need("content")? {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => {
            let mut all = Vec::new();
            for part in message.objects("content")? {
                all.push(part.need_text(part.need_choice("type", kinds)?)?);
            }
            Ok(all.join("\n"))
        }
        _ => Err(Problem { at: message.place("content"), what: What::Type("string or array") }),
    }
}

fn parts(message: &Object<'_>, asked: &mut Asked) -> Checked {
    if message.get("content").is_some_and(Value::is_string) {
        asked.hear(message.need_text("content")?);
        return Ok(());
    }
    for part in message.objects("content")? {
        match part.need_choice("type", &["text", "image_url", "input_audio", "file"])? {
            "text" => asked.hear(part.need_text("text")?),
            "image_url" => {
                let image = part.need_object("image_url")?;
                image.only(&["url", "detail"])?;
                image.choice("detail", &["auto", "low", "high"])?;
                let url = image.need_text("url")?;
                let Some(media) = media_url(url) else {
                    return wrong(
                        &image.place("url"),
                        format!("Failed to download image from {url}. Image URL is not valid."),
                    );
                };
                asked.media.push(media);
            }
            "input_audio" => {
                let audio = part.need_object("input_audio")?;
                let kind = audio.need_choice("format", &["wav", "mp3"])?;
                let data = media(&format!("audio/{kind}"), audio.need_text("data")?);
                let Some(data) = data else { return wrong(&audio.at, "Invalid base64-encoded audio data.") };
                asked.media.push(data);
            }
            _ => {
                let file = part.need_object("file")?;
                file.only(&["file_data", "file_id", "filename"])?;
                match file.text("file_data")?.map(media_url) {
                    Some(Some(media)) => asked.media.push(media),
                    Some(None) => {
                        return wrong(
                            &file.at,
                            "Invalid file data: expected a base64-encoded data URL with a MIME type.",
                        );
                    }
                    None => asked.media.push(file.need_text("file_id")?.to_owned()),
                }
            }
        }
    }
    Ok(())
}

fn tools(request: &Object<'_>, asked: &mut Asked) -> Checked {
    for tool in request.objects("tools")? {
        let kind = tool.need_choice("type", &["function", "custom"])?;
        let inner = tool.need_object(kind)?;
        asked.tools.push(function(&inner, kind == "custom")?);
    }
    if asked.tools.is_empty() && request.get("tool_choice").is_some() {
        return wrong(
            "tool_choice",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        );
    }
    if asked.tools.is_empty() && request.get("parallel_tool_calls").is_some() {
        return wrong(
            "parallel_tool_calls",
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified.",
        );
    }
    asked.one_call = request.get("parallel_tool_calls").is_some() && !request.flag("parallel_tool_calls")?;
    asked.choice = match request.get("tool_choice") {
        Some(Value::Object(_)) => {
            let choice = request.need_object("tool_choice")?;
            let kind = choice.need_choice("type", &["function", "custom", "allowed_tools"])?;
            if kind == "allowed_tools" {
                Choice::Auto
            } else {
                named(choice.need_object(kind)?.need_text("name")?, asked)?
            }
        }
        Some(_) => word(request.choice("tool_choice", &["none", "auto", "required"])?),
        None => Choice::Auto,
    };
    Ok(())
}

pub(super) fn word(word: Option<&str>) -> Choice {
    match word {
        Some("none") => Choice::Never,
        Some("required" | "any") => Choice::Any,
        _ => Choice::Auto,
    }
}

/// A tool that has to be called; it has to be there.
pub(super) fn named(name: &str, asked: &Asked) -> Checked<Choice> {
    if asked.tools.iter().any(|tool| tool.name == name) {
        return Ok(Choice::Named(name.to_owned()));
    }
    wrong(
        "tool_choice",
        format!(
            "Invalid value for 'tool_choice': tool choice function '{name}' not found in 'tools' parameter."
        ),
    )
}

/// The definition of a tool, which Chat nests and Responses does not.
pub(super) fn function(tool: &Object<'_>, free: bool) -> Checked<Tool> {
    let name = tool.need_text("name")?;
    if !is_name(name, 64) {
        return wrong(
            &tool.place("name"),
            format!(
                "Invalid '{}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                tool.place("name")
            ),
        );
    }
    tool.text("description")?;
    if free {
        return Ok(Tool { name: name.to_owned(), schema: Value::Null, free });
    }
    let schema = tool.object("parameters")?.and_then(|_| tool.get("parameters")).cloned();
    let schema = schema.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let what = format!("function '{name}'");
    if !schema["type"].is_null() && schema["type"] != "object"
        || schema.as_object().is_some_and(|map| !map.is_empty() && map.get("type").is_none())
    {
        return wrong(
            &tool.place("parameters"),
            format!(
                "Invalid schema for {what}: schema must be a JSON Schema of 'type: \"object\"', got 'type: {}'.",
                schema["type"]
            ),
        );
    }
    if tool.flag("strict")? {
        schema::check_strict(&schema, &tool.place("parameters"), &what, 0)?;
    }
    Ok(Tool { name: name.to_owned(), schema, free })
}

fn settings(request: &Object<'_>, asked: &mut Asked) -> Checked {
    asked.set("temperature", request.number("temperature", 0.0, 2.0)?);
    asked.set("top_p", request.number("top_p", 0.0, 1.0)?);
    asked.set("presence_penalty", request.number("presence_penalty", -2.0, 2.0)?);
    asked.set("frequency_penalty", request.number("frequency_penalty", -2.0, 2.0)?);
    asked.set("seed", request.integer("seed")?);
    asked.set("user", request.text("user")?);
    asked.set(
        "service_tier",
        request.choice("service_tier", &["auto", "default", "flex", "priority", "scale"])?,
    );
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    let effort = request.choice("reasoning_effort", &efforts)?;
    asked.thinking = effort.is_some_and(|effort| effort != "none");
    asked.set("effort", effort);
    let limits = (request.integer("max_tokens")?, request.integer("max_completion_tokens")?);
    if let (Some(_), Some(_)) = limits {
        return wrong(
            "max_tokens",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        );
    }
    if limits.0.is_some() && ["o1", "o3", "o4", "gpt-5"].iter().any(|family| asked.model.starts_with(family))
    {
        return wrong(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        );
    }
    asked.max_tokens = limits.0.or(limits.1);
    asked.stops = match request.get("stop") {
        Some(Value::String(stop)) => vec![stop.clone()],
        _ => request.texts("stop")?,
    };
    if asked.stops.len() > 4 {
        return wrong(
            "stop",
            format!(
                "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {} instead.",
                asked.stops.len()
            ),
        );
    }
    if let Some(format) = request.object("response_format")? {
        match format.need_choice("type", &["text", "json_object", "json_schema"])? {
            "json_object" => asked.schema = Some(json_object(&format, asked)?),
            "json_schema" => asked.schema = Some(json_schema(&format.need_object("json_schema")?)?),
            _ => {}
        }
    }
    Ok(())
}

/// JSON of any form, which the prompt has to ask for as well.
pub(super) fn json_object(format: &Object<'_>, asked: &Asked) -> Checked<Value> {
    let says = |text: &str| text.to_lowercase().contains("json");
    if says(&asked.system) || says(&asked.last) {
        return Ok(Value::Null);
    }
    wrong(
        &format.at,
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
    )
}

pub(super) fn json_schema(format: &Object<'_>) -> Checked<Value> {
    let name = format.need_text("name")?;
    if !is_name(name, 64) {
        return wrong(
            &format.place("name"),
            format!(
                "Invalid '{}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                format.place("name")
            ),
        );
    }
    format.need_object("schema")?;
    let schema = format.get("schema").cloned().unwrap_or_default();
    if format.flag("strict")? {
        schema::check_strict(&schema, &format.at, &format!("response_format '{name}'"), 0)?;
    }
    Ok(schema)
}
