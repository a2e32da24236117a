//! Anthropic Messages, and its counting of tokens.

use serde_json::Value;

use super::answer::{Asked, Choice, Tool, media, signature};
use super::checks::{Checked, Object, is_name, wrong};

const KNOWN: [&str; 23] = [
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "betas",
];
const BLOCKS: [&str; 12] = [
    "text",
    "image",
    "document",
    "search_result",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "container_upload",
];

/// Reads and checks a request; one that only counts tokens needs no limit to them.
pub(super) fn read(body: &Value, counts: bool) -> Checked<Asked> {
    let request = Object::of(body, "")?;
    // `betas` travels in a header.
    request.only(&KNOWN[..KNOWN.len() - 1])?;
    let mut asked = Asked { model: request.need_text("model")?.to_owned(), ..Asked::default() };
    if !counts {
        request.need("max_tokens")?;
    }
    asked.max_tokens = request.integer("max_tokens")?;
    if asked.max_tokens == Some(0) {
        return wrong("max_tokens", "Input should be greater than or equal to 1");
    }
    let mut marks = 0;
    match request.get("system") {
        Some(Value::String(text)) => asked.instruct(text),
        _ => {
            for block in request.objects("system")? {
                block.need_choice("type", &["text"])?;
                block.only(&["type", "text", "cache_control", "citations"])?;
                marks += mark(&block)?;
                asked.instruct(some_text(&block)?);
            }
        }
    }
    thinking(&request, &mut asked)?;
    messages(&request, &mut asked, &mut marks)?;
    tools(&request, &mut asked, &mut marks)?;
    if marks > 4 {
        return wrong(
            "",
            format!("A maximum of 4 blocks with cache_control may be provided. Found {marks}."),
        );
    }
    settings(&request, &mut asked)?;
    asked.stream = request.flag("stream")?;
    Ok(asked)
}

fn mark(block: &Object<'_>) -> Checked<usize> {
    let Some(mark) = block.object("cache_control")? else { return Ok(0) };
    mark.only(&["type", "ttl", "scope"])?;
    mark.need_choice("type", &["ephemeral"])?;
    mark.choice("ttl", &["5m", "1h"])?;
    Ok(1)
}

fn some_text<'a>(block: &Object<'a>) -> Checked<&'a str> {
    let text = block.need_text("text")?;
    if text.is_empty() {
        return wrong("", "messages: text content blocks must be non-empty");
    }
    if text.trim().is_empty() {
        return wrong("", "messages: text content blocks must contain non-whitespace text");
    }
    Ok(text)
}

fn thinking(request: &Object<'_>, asked: &mut Asked) -> Checked {
    let Some(thinking) = request.object("thinking")? else { return Ok(()) };
    let kind = thinking.need_choice("type", &["enabled", "disabled", "adaptive"])?;
    match kind {
        "enabled" => {
            thinking.only(&["type", "budget_tokens", "display"])?;
            thinking.need("budget_tokens")?;
            let budget = thinking.integer("budget_tokens")?.unwrap_or_default();
            if budget < 1024 {
                return wrong(
                    "thinking.enabled.budget_tokens",
                    "Input should be greater than or equal to 1024",
                );
            }
            if asked.max_tokens.is_some_and(|most| most <= budget) {
                return wrong(
                    "",
                    "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size",
                );
            }
            asked.set("budget", Some(budget));
        }
        "adaptive" => thinking.only(&["type", "display"])?,
        _ => thinking.only(&["type"])?,
    }
    asked.thinking = kind != "disabled";
    asked.shows_thinking = asked.thinking && thinking.text("display")? != Some("omitted");
    if !asked.thinking {
        return Ok(());
    }
    if request.number("temperature", 0.0, 1.0)?.is_some_and(|temperature| temperature < 1.0) {
        return wrong(
            "",
            "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking#important-considerations-when-using-extended-thinking",
        );
    }
    if request.get("top_k").is_some() {
        return wrong(
            "",
            "`top_k` must be unset when thinking is enabled. Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking#important-considerations-when-using-extended-thinking",
        );
    }
    let forced = request.object("tool_choice")?.map(|choice| choice.need_text("type")).transpose()?;
    if matches!(forced, Some("any" | "tool")) {
        return wrong("", "Thinking may not be enabled when tool_choice forces tool use.");
    }
    Ok(())
}

fn messages(request: &Object<'_>, asked: &mut Asked, marks: &mut usize) -> Checked {
    request.need("messages")?;
    let messages = request.objects("messages")?;
    if messages.is_empty() {
        return wrong("", "messages: at least one message is required");
    }
    let mut open: Vec<String> = Vec::new();
    let mut before = "";
    for (index, message) in messages.iter().enumerate() {
        message.only(&["role", "content"])?;
        let role = message.need_text("role")?;
        if role == "system" {
            return wrong(
                "",
                "messages: Unexpected role \"system\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role.",
            );
        }
        message.need_choice("role", &["user", "assistant"])?;
        if index == 0 && role == "assistant" {
            return wrong("", "messages: first message must use the \"user\" role");
        }
        // Turns of the same role that follow each other count as one.
        if role != before {
            asked.turns.push(if role == "user" { "user" } else { "assistant" });
        }
        before = role;
        let is_last = index + 1 == messages.len();
        if let Value::String(text) = message.need("content")? {
            no_results(&open, index)?;
            if text.is_empty() && !(is_last && role == "assistant") {
                return wrong(
                    "",
                    format!(
                        "messages.{index}: all messages must have non-empty content except for the optional final assistant message"
                    ),
                );
            }
            if role == "user" { asked.hear(text) } else { asked.count(text) }
        } else {
            let blocks = message.objects("content")?;
            if blocks.is_empty() && !(is_last && role == "assistant") {
                return wrong(
                    "",
                    format!(
                        "messages.{index}: all messages must have non-empty content except for the optional final assistant message"
                    ),
                );
            }
            content(&blocks, role, index, asked, &mut open, marks)?;
        }
        if is_last
            && role == "assistant"
            && last_text(message).is_some_and(|text| text.ends_with(char::is_whitespace))
        {
            return wrong("", "messages: final assistant content cannot end with trailing whitespace");
        }
    }
    no_results(&open, messages.len())?;
    signed(&messages, asked)
}

fn last_text(message: &Object<'_>) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        blocks => blocks.as_array()?.last()?["text"].as_str().map(str::to_owned),
    }
}

fn no_results(open: &[String], index: usize) -> Checked {
    if open.is_empty() {
        return Ok(());
    }
    wrong(
        "",
        format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block \
         must have a corresponding `tool_result` block in the next message.",
            index.saturating_sub(1),
            open.join(", ")
        ),
    )
}

fn content(
    blocks: &[Object<'_>],
    role: &str,
    index: usize,
    asked: &mut Asked,
    open: &mut Vec<String>,
    marks: &mut usize,
) -> Checked {
    if role == "user" {
        let results =
            blocks.iter().filter(|block| block.get("type").is_some_and(|kind| kind == "tool_result"));
        let answered: Vec<_> = results.filter_map(|block| block.get("tool_use_id")?.as_str()).collect();
        let missing: Vec<_> = open.iter().filter(|id| !answered.contains(&id.as_str())).cloned().collect();
        no_results(&missing, index)?;
    } else {
        no_results(open, index)?;
    }
    let mut begun_text = false;
    let mut used = Vec::new();
    for (place, block) in blocks.iter().enumerate() {
        *marks += mark(block)?;
        match block.need_choice("type", &BLOCKS)? {
            "text" => {
                block.only(&["type", "text", "cache_control", "citations"])?;
                begun_text = true;
                let text = some_text(block)?;
                if role == "user" { asked.hear(text) } else { asked.count(text) }
            }
            "image" | "document" => source(block, asked)?,
            "tool_use" => {
                block.only(&["type", "id", "name", "input", "cache_control", "caller"])?;
                let id = block.need_text("id")?;
                if !is_name(id, 256) {
                    return wrong(
                        &format!("{}.tool_use.id", block.at),
                        "String should match pattern '^[a-zA-Z0-9_-]+$'",
                    );
                }
                block.need_text("name")?;
                if role == "user" {
                    return wrong(
                        "",
                        format!("messages.{index}: `tool_use` blocks can only be in `assistant` messages"),
                    );
                }
                if block.need("input")?.as_object().is_none() {
                    return wrong(
                        &format!("{}.tool_use.input", block.at),
                        "Input should be a valid dictionary",
                    );
                }
                used.push(id.to_owned());
            }
            "tool_result" => {
                block.only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
                let id = block.need_text("tool_use_id")?;
                let Some(known) = open.iter().position(|open| open == id).filter(|_| role == "user") else {
                    return wrong(
                        "",
                        format!(
                            "messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                         `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        ),
                    );
                };
                if begun_text {
                    return wrong(
                        "",
                        format!("messages.{index}: `tool_result` blocks must come before other content"),
                    );
                }
                open.remove(known);
                result(block, asked)?;
            }
            "thinking" => {
                block.only(&["type", "thinking", "signature"])?;
                let (text, sign) = (block.need_text("thinking")?, block.need_text("signature")?);
                if sign != signature(text) && sign != signature("") {
                    return wrong(
                        "",
                        format!("messages.{index}.content.{place}: Invalid `signature` in `thinking` block"),
                    );
                }
            }
            "redacted_thinking" => drop(block.need_text("data")?),
            _ => {}
        }
    }
    open.extend(used);
    Ok(())
}

fn source(block: &Object<'_>, asked: &mut Asked) -> Checked {
    block.only(&["type", "source", "cache_control", "title", "context", "citations"])?;
    let source = block.need_object("source")?;
    let media = match source.need_choice("type", &["base64", "url", "file", "text", "content"])? {
        "base64" => {
            let kinds: &[&str] = if block.get("type").is_some_and(|kind| kind == "image") {
                &["image/jpeg", "image/png", "image/gif", "image/webp"]
            } else {
                &["application/pdf"]
            };
            let kind = source.need_choice("media_type", kinds)?;
            match media(kind, source.need_text("data")?) {
                Some(media) => media,
                None => return wrong(&format!("{}.base64.data", source.at), "invalid base64 data"),
            }
        }
        "url" => source.need_text("url")?.to_owned(),
        "file" => source.need_text("file_id")?.to_owned(),
        "text" => {
            source.need_choice("media_type", &["text/plain"])?;
            format!("text/plain:{}", source.need_text("data")?.len())
        }
        _ => "content".to_owned(),
    };
    asked.media.push(media);
    Ok(())
}

fn result(block: &Object<'_>, asked: &mut Asked) -> Checked {
    asked.turns.push("tool");
    match block.get("content") {
        None => asked.result(""),
        Some(Value::String(text)) => asked.result(text),
        Some(_) => {
            for part in block.objects("content")? {
                match part
                    .need_choice("type", &["text", "image", "document", "search_result", "tool_reference"])?
                {
                    "text" => asked.result(some_text(&part)?),
                    "image" | "document" => source(&part, asked)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// While it thinks, a turn that calls tools has to begin with what was thought.
fn signed(messages: &[Object<'_>], asked: &Asked) -> Checked {
    if !asked.thinking
        || asked.settings.iter().all(|(name, _)| *name != "budget")
        || asked.turns.last() != Some(&"tool")
    {
        return Ok(());
    }
    let Some((index, message)) = messages
        .iter()
        .enumerate()
        .rfind(|(_, message)| message.get("role").is_some_and(|role| role == "assistant"))
    else {
        return Ok(());
    };
    let first = message
        .objects("content")
        .ok()
        .and_then(|blocks| blocks.first().and_then(|block| block.get("type")?.as_str()));
    match first {
        Some("thinking" | "redacted_thinking") | None => Ok(()),
        Some(kind) => wrong(
            "",
            format!(
                "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When `thinking` \
             is enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of \
             `tool_use` and `tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this \
             requirement, disable `thinking`."
            ),
        ),
    }
}

fn tools(request: &Object<'_>, asked: &mut Asked, marks: &mut usize) -> Checked {
    for tool in request.objects("tools")? {
        *marks += mark(&tool)?;
        let name = tool.need_text("name")?;
        if tool.text("type")?.is_some_and(|kind| kind != "custom") {
            continue; // A tool of the provider's own.
        }
        tool.only(&[
            "type",
            "name",
            "description",
            "input_schema",
            "cache_control",
            "strict",
            "eager_input_streaming",
            "defer_loading",
            "allowed_callers",
            "input_examples",
        ])?;
        if !is_name(name, 128) {
            return wrong(
                &format!("{}.custom.name", tool.at),
                "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
            );
        }
        let schema = tool.need_object("input_schema")?;
        if schema.need_text("type")? != "object" {
            return wrong(&format!("{}.custom.input_schema.type", tool.at), "Input should be 'object'");
        }
        if asked.tools.iter().any(|known| known.name == name) {
            return wrong("tools", "Tool names must be unique.");
        }
        asked.tools.push(Tool {
            name: name.to_owned(),
            schema: tool.need("input_schema")?.clone(),
            free: false,
        });
    }
    let Some(choice) = request.object("tool_choice")? else { return Ok(()) };
    choice.only(&["type", "name", "disable_parallel_tool_use"])?;
    if request.list("tools")?.is_empty() {
        return wrong("", "tool_choice: may only be specified while providing tools");
    }
    asked.one_call = choice.flag("disable_parallel_tool_use")?;
    asked.choice = match choice.need_choice("type", &["auto", "any", "tool", "none"])? {
        "any" => Choice::Any,
        "none" => Choice::Never,
        "tool" => {
            let name = choice.need_text("name")?;
            if asked.tools.iter().all(|tool| tool.name != name) {
                return wrong("", format!("Tool '{name}' not found in provided tools"));
            }
            Choice::Named(name.to_owned())
        }
        _ => Choice::Auto,
    };
    Ok(())
}

fn settings(request: &Object<'_>, asked: &mut Asked) -> Checked {
    let temperature = request.number("temperature", 0.0, 1.0)?;
    let top_p = request.number("top_p", 0.0, 1.0)?;
    if temperature.is_some() && top_p.is_some() && asked.model.contains("-4-5") {
        return wrong(
            "",
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        );
    }
    asked.set("temperature", temperature);
    asked.set("top_p", top_p);
    asked.set("top_k", request.integer("top_k")?);
    asked.set("service_tier", request.choice("service_tier", &["auto", "standard_only"])?);
    if let Some(metadata) = request.object("metadata")? {
        metadata.only(&["user_id"])?;
        asked.set("user", metadata.text("user_id")?);
    }
    asked.stops = request.texts("stop_sequences")?;
    if asked.stops.iter().any(|stop| stop.trim().is_empty()) {
        return wrong("", "stop_sequences: each stop sequence must contain non-whitespace");
    }
    let config = request.object("output_config")?;
    if let Some(config) = &config {
        config.only(&["effort", "format", "task_budget"])?;
        asked.set("effort", config.choice("effort", &["low", "medium", "high", "xhigh", "max"])?);
    }
    let format = config.map(|config| config.object("format")).transpose()?.flatten();
    if let Some(format) = format.or(request.object("output_format")?) {
        format.only(&["type", "schema"])?;
        format.need_choice("type", &["json_schema"])?;
        asked.schema = Some(format.need("schema")?.clone());
        check_output(format.need("schema")?, &format.place("schema"), 0)?;
    }
    Ok(())
}

/// What the schema of an answer may not hold.
fn check_output(schema: &Value, at: &str, depth: usize) -> Checked {
    let Some(map) = schema.as_object().filter(|_| depth < 32) else { return Ok(()) };
    let name = schema["type"].as_str().unwrap_or_default();
    if name == "object" && map.get("additionalProperties") != Some(&Value::Bool(false)) {
        return wrong(at, "For 'object' type, 'additionalProperties' must be explicitly set to false");
    }
    for key in ["minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "uniqueItems"] {
        if map.contains_key(key) {
            return wrong(at, format!("For '{name}' type, property '{key}' is not supported"));
        }
    }
    for schema in map.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
        check_output(schema, at, depth + 1)?;
    }
    map.get("items").map_or(Ok(()), |items| check_output(items, at, depth + 1))
}
