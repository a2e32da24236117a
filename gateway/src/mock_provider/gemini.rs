//! Gemini: generateContent in its three ways, counting tokens, embeddings.

use serde_json::{Value, json};

use super::answer::{Asked, Choice, Tool, media, signature};
use super::checks::{Checked, Object, Problem, What, is_name, wrong};
use super::schema;

/// What the documentation tells clients to send where they have no signature.
const NO_SIGNATURE: [&str; 2] = ["context_engineering_is_the_way_to_go", "skip_thought_signature_validator"];

/// What only this dialect asks.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) n: u64,
    pub(super) logprobs: bool,
    /// Calls whose results have to follow.
    open: Vec<String>,
}

/// A field's name as the documentation has it; requests may have either spelling.
pub(super) fn camel(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        let upper = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &upper.into_iter().collect::<String>() + letters.as_str()
    })
}

/// Refuses fields that are none of these, in either spelling. Both at once would be two fields for one.
fn only(object: &Object<'_>, known: &[&str]) -> Checked {
    match object.keys().find(|key| !known.contains(&camel(key).as_str())) {
        Some(key) => Err(Problem { at: object.place(key), what: What::Unknown }),
        None => Ok(()),
    }
}

fn snake(key: &str) -> String {
    key.chars().fold(String::new(), |mut name, letter| {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
        name
    })
}

/// An object's field by its documented name, in either spelling.
fn field<'a>(object: &Object<'a>, key: &str) -> Option<&'a Value> {
    object.any([key, &snake(key)])
}

fn spelled(object: &Object<'_>, key: &str) -> String {
    if object.get(key).is_some() { key.to_owned() } else { snake(key) }
}

fn sub<'a>(object: &Object<'a>, key: &str) -> Checked<Option<Object<'a>>> {
    object.object(&spelled(object, key))
}

/// Reads and checks a request.
pub(super) fn read(body: &Value, model: &str) -> Checked<(Asked, Extra)> {
    let request = Object::of(body, "")?;
    only(
        &request,
        &[
            "contents",
            "systemInstruction",
            "tools",
            "toolConfig",
            "safetySettings",
            "generationConfig",
            "cachedContent",
            "labels",
            "model",
            "store",
            "serviceTier",
        ],
    )?;
    let mut asked = Asked { model: model.to_owned(), ..Asked::default() };
    let mut extra = Extra { n: 1, ..Extra::default() };
    if let Some(system) = sub(&request, "systemInstruction")? {
        only(&system, &["role", "parts"])?;
        for part in system.objects("parts")? {
            asked.instruct(part.need_text("text")?);
        }
    }
    if let Some(cached) = field(&request, "cachedContent") {
        if ["systemInstruction", "tools", "toolConfig"].iter().any(|key| field(&request, key).is_some()) {
            return wrong(
                "",
                "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config.\n\nProposed fix: move those values to CachedContent from GenerateContent request.",
            );
        }
        asked.set("cached_content", cached.as_str());
    }
    tools(&request, &mut asked)?;
    contents(&request, &mut asked, &mut extra)?;
    for setting in request.objects(&spelled(&request, "safetySettings"))? {
        setting.need_text("category")?;
        setting.need_choice(
            "threshold",
            &[
                "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
                "BLOCK_LOW_AND_ABOVE",
                "BLOCK_MEDIUM_AND_ABOVE",
                "BLOCK_ONLY_HIGH",
                "BLOCK_NONE",
                "OFF",
            ],
        )?;
    }
    if let Some(config) = sub(&request, "generationConfig")? {
        generation(&config, &mut asked, &mut extra)?;
    }
    Ok((asked, extra))
}

fn contents(request: &Object<'_>, asked: &mut Asked, extra: &mut Extra) -> Checked {
    let contents = request.objects("contents")?;
    if contents.is_empty() {
        return wrong("", "* GenerateContentRequest.contents: contents is not specified\n");
    }
    let mut signed = true;
    for content in &contents {
        only(content, &["role", "parts"])?;
        let role = content.text("role")?.unwrap_or("user");
        if !["user", "model", "function", ""].contains(&role) {
            return wrong("", "Please use a valid role: user, model.");
        }
        let parts = content.objects("parts")?;
        if parts.is_empty() {
            return wrong(
                "",
                format!("* GenerateContentRequest.{}.parts: contents.parts must not be empty.\n", content.at),
            );
        }
        let has = |key: &str| parts.iter().filter(|part| field(part, key).is_some()).count();
        if !extra.open.is_empty() && has("functionResponse") != extra.open.len() {
            return wrong(
                "",
                "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
            );
        }
        if extra.open.is_empty() && has("functionResponse") > 0 {
            return wrong(
                "",
                "Please ensure that function response turn comes immediately after a function call turn.",
            );
        }
        if has("functionCall") > 0 && asked.turns.last().is_none_or(|turn| *turn == "assistant") {
            return wrong(
                "",
                "Please ensure that function call turn comes immediately after a user turn or after a function response turn.",
            );
        }
        asked.turns.push(if role == "model" {
            "assistant"
        } else if has("functionResponse") > 0 {
            "tool"
        } else {
            "user"
        });
        let mut first_call = true;
        for part in &parts {
            read_part(part, role == "model", asked, extra)?;
            if field(part, "functionCall").is_some() && std::mem::take(&mut first_call) {
                signed &= field(part, "thoughtSignature").is_some();
            }
        }
        if has("text") > 0 && role != "model" {
            signed = true; // Only calls of the current turn have to be signed.
        }
    }
    if !extra.open.is_empty() {
        return wrong(
            "",
            "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
        );
    }
    if !signed && asked.model.contains("gemini-3") {
        return wrong(
            "",
            "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and missing thought_signature may lead to degraded model performance.",
        );
    }
    Ok(())
}

fn read_part(part: &Object<'_>, by_model: bool, asked: &mut Asked, extra: &mut Extra) -> Checked {
    const DATA: [&str; 7] = [
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "executableCode",
        "codeExecutionResult",
    ];
    only(
        part,
        &[&DATA[..], &["thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"]]
            .concat(),
    )?;
    let given = DATA.iter().filter(|key| field(part, key).is_some()).count();
    if given > 1 {
        return wrong(
            &part.at,
            format!("Invalid value at '{}' (oneof), oneof field 'data' is already set.", part.at),
        );
    }
    if given == 0 && field(part, "thoughtSignature").is_none() {
        return wrong(
            "",
            format!(
                "* GenerateContentRequest.{}.data: required oneof field 'data' must have one initialized field\n",
                part.at
            ),
        );
    }
    if let Some(text) = part.text("text")? {
        if by_model { asked.count(text) } else { asked.hear(text) }
    }
    for key in ["inlineData", "fileData"] {
        let Some(data) = sub(part, key)? else { continue };
        let kind = field(&data, "mimeType").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() {
            return wrong("", format!("* GenerateContentRequest.{}.mime_type: must be set\n", data.at));
        }
        let media = match field(&data, "fileUri") {
            Some(uri) => uri.as_str().map(str::to_owned),
            None => media(kind, data.text("data")?.unwrap_or_default()),
        };
        let Some(media) = media else {
            return wrong(
                &data.place("data"),
                format!("Invalid value at '{}' (TYPE_BYTES), Base64 decoding failed", data.place("data")),
            );
        };
        asked.media.push(media);
    }
    if let Some(call) = sub(part, "functionCall")? {
        only(&call, &["id", "name", "args"])?;
        let name = call.need_text("name")?;
        call.object("args")?;
        let sign = field(part, "thoughtSignature").and_then(Value::as_str);
        // Base64 of URLs, as some clients write it, decodes to the same bytes.
        let plain = sign.map(|sign| sign.replace('-', "+").replace('_', "/"));
        if plain.is_some_and(|sign| {
            sign != signature(name) && !NO_SIGNATURE.iter().any(|none| sign.replace('/', "_") == *none)
        }) {
            return wrong("", "Corrupted thought signature.");
        }
        extra.open.push(name.to_owned());
    }
    if let Some(response) = sub(part, "functionResponse")? {
        only(&response, &["id", "name", "response", "willContinue", "scheduling", "parts"])?;
        let name = response.need_text("name")?;
        let result = response.need_object("response")?;
        let Some(index) = extra.open.iter().position(|open| open == name) else {
            return wrong(
                "",
                "Please ensure that function response turn comes immediately after a function call turn.",
            );
        };
        extra.open.remove(index);
        // What clients wrap results in differs; some name the function beside it.
        let inner = ["output", "result", "content", "error"].iter().find_map(|key| result.get(key));
        let whole = inner.or(response.get("response")).cloned().unwrap_or_default();
        let text = whole.as_str().map_or_else(|| whole.to_string(), str::to_owned);
        asked.result(&text);
    }
    Ok(())
}

fn tools(request: &Object<'_>, asked: &mut Asked) -> Checked {
    let mut searches = false;
    for tool in request.objects("tools")? {
        only(
            &tool,
            &[
                "functionDeclarations",
                "googleSearch",
                "googleSearchRetrieval",
                "codeExecution",
                "urlContext",
                "computerUse",
                "fileSearch",
                "googleMaps",
                "mcpServers",
                "retrieval",
            ],
        )?;
        searches |= ["googleSearch", "googleSearchRetrieval"].iter().any(|key| field(&tool, key).is_some());
        for function in tool.objects(&spelled(&tool, "functionDeclarations"))? {
            only(
                &function,
                &[
                    "name",
                    "description",
                    "parameters",
                    "parametersJsonSchema",
                    "response",
                    "responseJsonSchema",
                    "behavior",
                ],
            )?;
            let name = function.need_text("name")?;
            let begins = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
            if !begins || !is_name(&name.replace(['.', ':'], "_"), 128) {
                return wrong(
                    "",
                    format!(
                        "* GenerateContentRequest.{}.name: Invalid function name. Must start with a letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:) or dashes (-), with a maximum length of 128.\n",
                        function.at
                    ),
                );
            }
            let parameters = function.get("parameters");
            if let Some(parameters) = parameters {
                schema::check_gemini(parameters, &function.place("parameters"), 0)?;
            }
            let other = field(&function, "parametersJsonSchema");
            if parameters.is_some() && other.is_some() {
                return wrong(&function.at, "only one of parameters and parameters_json_schema may be set");
            }
            let schema =
                parameters.or(other).cloned().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            asked.tools.push(Tool { name: name.to_owned(), schema, free: false });
        }
    }
    if searches && !asked.tools.is_empty() {
        return wrong("", "Tool use with function calling is unsupported by the model.");
    }
    let Some(config) = sub(request, "toolConfig")? else { return Ok(()) };
    only(&config, &["functionCallingConfig", "retrievalConfig", "includeServerSideToolInvocations"])?;
    let Some(calling) = sub(&config, "functionCallingConfig")? else { return Ok(()) };
    only(&calling, &["mode", "allowedFunctionNames", "streamFunctionCallArguments"])?;
    let allowed = calling.texts(&spelled(&calling, "allowedFunctionNames"))?;
    let mode = calling
        .choice("mode", &["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED", "auto", "any", "none"])?;
    let mode = mode.unwrap_or("AUTO").to_ascii_uppercase();
    if !allowed.is_empty() && mode != "ANY" && mode != "VALIDATED" {
        return wrong(
            "",
            "Function calling config is set without function_declarations or allowed_function_names is set with a mode other than ANY.",
        );
    }
    if let Some(name) = allowed.iter().find(|name| asked.tools.iter().all(|tool| tool.name != **name)) {
        return wrong("", format!("allowed_function_names: {name} is not a declared function"));
    }
    asked.choice = match (mode.as_str(), &allowed[..]) {
        ("ANY", [name]) => Choice::Named(name.clone()),
        ("ANY", _) => Choice::Any,
        ("NONE", _) => Choice::Never,
        _ => Choice::Auto,
    };
    Ok(())
}

fn generation(config: &Object<'_>, asked: &mut Asked, extra: &mut Extra) -> Checked {
    only(
        config,
        &[
            "temperature",
            "topP",
            "topK",
            "candidateCount",
            "maxOutputTokens",
            "stopSequences",
            "responseMimeType",
            "responseSchema",
            "responseJsonSchema",
            "presencePenalty",
            "frequencyPenalty",
            "seed",
            "responseLogprobs",
            "logprobs",
            "responseModalities",
            "speechConfig",
            "thinkingConfig",
            "mediaResolution",
            "enableEnhancedCivicAnswers",
            "imageConfig",
        ],
    )?;
    asked.set("temperature", config.number("temperature", 0.0, 2.0)?);
    asked.set("top_p", config.number(&spelled(config, "topP"), 0.0, 1.0)?);
    asked.set("top_k", config.number(&spelled(config, "topK"), 0.0, 1e6)?);
    asked.set("presence_penalty", config.number(&spelled(config, "presencePenalty"), -2.0, 2.0)?);
    asked.set("frequency_penalty", config.number(&spelled(config, "frequencyPenalty"), -2.0, 2.0)?);
    asked.set("seed", config.integer("seed")?);
    asked.max_tokens = config.integer(&spelled(config, "maxOutputTokens"))?;
    asked.stops = config.texts(&spelled(config, "stopSequences"))?;
    if asked.stops.len() > 5 {
        return wrong(
            "",
            "* GenerateContentRequest.generation_config.stop_sequences: must have at most 5 elements\n",
        );
    }
    extra.n = config.integer(&spelled(config, "candidateCount"))?.unwrap_or(1);
    if !(1..=8).contains(&extra.n) {
        return wrong(
            "",
            "* GenerateContentRequest.generation_config.candidate_count: candidate_count must be in the range of 1 (inclusive) to 8 (inclusive)\n",
        );
    }
    extra.logprobs = config.flag(&spelled(config, "responseLogprobs"))?;
    let kind = field(config, "responseMimeType").and_then(Value::as_str).unwrap_or("text/plain");
    let own = field(config, "responseSchema");
    let schema = own.or(field(config, "responseJsonSchema"));
    if schema.is_some() && kind != "application/json" && kind != "text/x.enum" {
        return wrong(
            "",
            "Response schema is only supported with response mime type 'application/json' or 'text/x.enum'.",
        );
    }
    if let Some(schema) = own {
        schema::check_gemini(schema, &config.place(&spelled(config, "responseSchema")), 0)?;
    }
    if kind == "application/json" {
        if !asked.tools.is_empty() && !asked.model.contains("gemini-3") {
            return wrong(
                "",
                "Function calling with a response mime type: 'application/json' is unsupported",
            );
        }
        asked.schema = Some(schema.cloned().unwrap_or_default());
    }
    let Some(thinking) = sub(config, "thinkingConfig")? else { return Ok(()) };
    only(&thinking, &["includeThoughts", "thinkingBudget", "thinkingLevel"])?;
    let budget = field(&thinking, "thinkingBudget");
    let level = field(&thinking, "thinkingLevel");
    if budget.is_some() && level.is_some() {
        return wrong("", "You can only set only one of thinking budget and thinking level.");
    }
    if level.is_some() && !asked.model.contains("gemini-3") {
        return wrong("", "Thinking level is not supported for this model.");
    }
    asked.shows_thinking = thinking.flag(&spelled(&thinking, "includeThoughts"))?;
    asked.thinking = asked.shows_thinking || budget.is_none_or(|budget| *budget != 0);
    asked.set("budget", budget.cloned());
    asked.set("effort", level.and_then(Value::as_str).map(str::to_ascii_lowercase));
    Ok(())
}
