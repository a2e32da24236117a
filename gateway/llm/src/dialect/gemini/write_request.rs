//! Writes a request for a provider. Its model and whether it is streamed stand in its path.

use super::schema;
use super::write_content::Contents;
use crate::custom;
use crate::dialect::Dialect;
use crate::invalid::{Invalid, Reason};
use crate::json::{self, Array, Number, Object};
use crate::loss::{Losses, What};
use crate::neutral::{self, Format, Native, Reasoning, Request, Sampling, Tool, ToolChoice, ToolKind};
use crate::target::{Model, Target, Thinking};

/// How many texts may end an answer.
const MAX_STOPS: usize = 5;

/// What an effort is in tokens, and how far a budget goes for an effort: Google's own table for its compatible address.
const EFFORTS: [(&str, u64); 4] = [("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24_576)];

/// What is sent, and what is known of whom it is for.
struct Sent<'s, 'a> {
    request: &'s Request<'a>,
    facts: &'s Model,
    /// Whether the model takes JSON Schema as it is.
    takes_schema: bool,
    /// How it is told to think: where nothing is known of it, its name tells its generation.
    thinking: Option<Thinking>,
    native: Vec<&'s Native<'a>>,
}

/// Writes a request for a provider.
///
/// # Errors
/// When Google would refuse it, and no other way of saying it is left.
pub fn encode_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, Invalid> {
    if request.previous_response.is_some() {
        let message = "What this goes on from is kept by another provider: send the whole conversation.";
        return Err(Invalid::new(Reason::Value, "previous_response_id".to_owned(), message));
    }
    let contents = Contents::of(&request.turns, target.model, losses)?;
    note_losses(request, losses);
    let native: Vec<&Native<'_>> = neutral::own(&request.native, Dialect::Gemini, "", losses).collect();
    let sent = Sent {
        request,
        facts: &target.model_facts,
        takes_schema: takes_schema(target.model),
        thinking: thinking(target),
        native,
    };
    // What is cached already holds these, and saying them again is an error.
    let is_cached = sent.native.iter().any(|native| native.name == "cachedContent");

    let mut out = Vec::with_capacity(1024);
    json::object(&mut out, |object| {
        if is_cached {
            if contents.has_system() {
                losses.add(What::InstructionPlace, "systemInstruction");
            }
            if !request.tools.is_empty() {
                losses.add(What::ToolDetail, "tools");
            }
        } else {
            contents.write_system(object, losses);
        }
        contents.write(object, losses);
        if !is_cached {
            write_tools(&sent, object, losses);
            write_tool_config(&sent, object);
        }
        write_generation(&sent, object, losses);
        for native in sent.native.iter().filter(|native| !native.name.contains('.')) {
            object.raw(&native.name, &native.raw);
        }
    });
    Ok(out)
}

/// Models before 2.5 know the subset only.
fn takes_schema(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    !["gemini-1.", "gemini-2.0", "gemma", "learnlm"].iter().any(|old| name.starts_with(old))
}

fn thinking(target: &Target<'_>) -> Option<Thinking> {
    let name = target.model.rsplit('/').next().unwrap_or(target.model);
    target.model_facts.thinking.or_else(|| name.starts_with("gemini-3").then_some(Thinking::Effort))
}

fn write_tools(sent: &Sent<'_, '_>, object: &mut Object<'_>, losses: &mut Losses) {
    let tools = &sent.request.tools;
    let is_function = |tool: &&Tool<'_>| !matches!(tool.kind, ToolKind::Provider { .. });
    let has_functions = tools.iter().any(|tool| is_function(&tool));
    let mut own = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        match &tool.kind {
            ToolKind::Provider { dialect: Dialect::Gemini, kind: _, raw } => own.push(raw),
            ToolKind::Provider { .. } => losses.add(What::ProviderTool, format!("tools[{index}]")),
            ToolKind::Function { .. } | ToolKind::Custom { .. } => {}
        }
        if tool.cache.is_some() {
            losses.add(What::CacheControl, format!("tools[{index}]"));
        }
    }
    if !has_functions && own.is_empty() {
        return;
    }
    object.array("tools", |array| {
        if has_functions {
            array.object(|object| {
                object.array("functionDeclarations", |array| {
                    for (index, tool) in tools.iter().enumerate() {
                        write_function(sent, tool, &format!("tools[{index}]"), array, losses);
                    }
                });
            });
        }
        own.iter().for_each(|raw| array.raw(raw));
    });
}

fn write_function(
    sent: &Sent<'_, '_>,
    tool: &Tool<'_>,
    at: &str,
    array: &mut Array<'_>,
    losses: &mut Losses,
) {
    let Tool { kind, cache: _, native } = tool;
    let (name, said, schema, strict) = match kind {
        ToolKind::Function { name, description, schema, strict } => {
            (name, description.as_deref().map(Into::into), schema.as_deref(), *strict)
        }
        ToolKind::Custom { name, description, format } => {
            let said = custom::description(description.as_deref(), format.as_deref());
            (name, said, Some(custom::SCHEMA), None)
        }
        ToolKind::Provider { .. } => return,
    };
    if strict == Some(true) {
        losses.add(What::ToolDetail, format!("{at}.strict"));
    }
    array.object(|object| {
        object.text("name", name);
        object.some_text("description", said.as_ref());
        match schema {
            Some(schema) if sent.takes_schema => object.raw("parametersJsonSchema", schema),
            // A function without parameters must not have an object without properties.
            Some(schema) if has_properties(schema) => {
                object.raw("parameters", &schema::to_subset(schema, at, losses));
            }
            _ => {}
        }
        for native in neutral::own(native, Dialect::Gemini, at, losses) {
            object.raw(&native.name, &native.raw);
        }
    });
}

fn has_properties(schema: &str) -> bool {
    let node = json::parse(schema.as_bytes()).ok();
    let is_empty =
        |node: &json::Node<'_>| matches!(&node.value, json::Value::Object(members) if members.is_empty());
    node.is_some_and(|node| {
        node.get("properties").map_or_else(
            || !is_empty(&node) && node.get("$ref").is_some() || node.get("allOf").is_some(),
            |node| !is_empty(node),
        )
    })
}

fn write_tool_config(sent: &Sent<'_, '_>, object: &mut Object<'_>) {
    let choice = sent.request.tool_choice.as_ref();
    let own: Vec<_> = sent
        .native
        .iter()
        .filter_map(|native| Some((native.name.strip_prefix("toolConfig.")?, &native.raw)))
        .collect();
    if choice.is_none() && own.is_empty() {
        return;
    }
    object.object("toolConfig", |object| {
        if let Some(choice) = choice {
            object.object("functionCallingConfig", |object| {
                let (mode, names) = match choice {
                    ToolChoice::Auto => ("AUTO", &[][..]),
                    ToolChoice::None => ("NONE", &[][..]),
                    ToolChoice::Required => ("ANY", &[][..]),
                    ToolChoice::Named(name) => ("ANY", std::slice::from_ref(name)),
                    ToolChoice::Allowed { required: true, names } => ("ANY", &names[..]),
                    ToolChoice::Allowed { required: false, names } => ("VALIDATED", &names[..]),
                };
                object.text("mode", mode);
                if !names.is_empty() {
                    object.texts("allowedFunctionNames", names);
                }
            });
        }
        own.iter().for_each(|(name, raw)| object.raw(name, raw));
    });
}

fn write_generation(sent: &Sent<'_, '_>, object: &mut Object<'_>, losses: &mut Losses) {
    let mut out = Vec::new();
    json::object(&mut out, |object| {
        let Request { sampling, stop, candidates, modalities, reasoning, format, .. } = sent.request;
        write_sampling(sampling, object, losses);
        object.some_whole("candidateCount", *candidates);
        object.some_whole("maxOutputTokens", output_limit(sent, losses));
        if stop.len() > MAX_STOPS {
            losses.add(What::StopSequences, format!("stop[{MAX_STOPS}]"));
        }
        if !stop.is_empty() {
            object.texts("stopSequences", &stop[..stop.len().min(MAX_STOPS)]);
        }
        if !modalities.is_empty() {
            let upper: Vec<_> = modalities.iter().map(|kind| kind.to_ascii_uppercase().into()).collect();
            object.texts("responseModalities", &upper);
        }
        write_format(sent, format.as_ref(), object, losses);
        if let Some(reasoning) = reasoning {
            write_thinking(sent.thinking, reasoning, object, losses);
        }
        for native in &sent.native {
            if let Some(name) = native.name.strip_prefix("generationConfig.") {
                object.raw(name, &native.raw);
            }
        }
    });
    if out != b"{}" {
        object.raw("generationConfig", &String::from_utf8(out).unwrap_or_default());
    }
}

fn output_limit(sent: &Sent<'_, '_>, losses: &mut Losses) -> Option<u64> {
    match (sent.request.max_output_tokens, sent.facts.output_tokens) {
        (Some(asked), Some(most)) if most < asked => {
            losses.add(What::OutputLimit, "max_output_tokens");
            Some(most)
        }
        (asked, _) => asked,
    }
}

fn write_sampling(sampling: &Sampling<'_>, object: &mut Object<'_>, losses: &mut Losses) {
    let Sampling {
        temperature,
        top_p,
        top_k,
        presence_penalty,
        frequency_penalty,
        seed,
        logit_bias,
        log_probabilities,
    } = sampling;
    object.some_number("temperature", temperature.as_ref());
    object.some_number("topP", top_p.as_ref());
    object.some_number("topK", top_k.as_ref());
    object.some_number("presencePenalty", presence_penalty.as_ref());
    object.some_number("frequencyPenalty", frequency_penalty.as_ref());
    // An int32 there.
    match seed.as_ref().and_then(Number::as_i64) {
        Some(whole) if i32::try_from(whole).is_ok() => object.some_number("seed", seed.as_ref()),
        _ if seed.is_some() => losses.add(What::Seed, "seed"),
        _ => {}
    }
    if logit_bias.is_some() {
        losses.add(What::Sampling, "logit_bias");
    }
    if let Some(told) = log_probabilities {
        object.boolean("responseLogprobs", true);
        object.some_whole("logprobs", told.alternatives);
    }
}

fn write_format(
    sent: &Sent<'_, '_>,
    format: Option<&Format<'_>>,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    match format {
        None => {}
        Some(Format::Text) => object.text("responseMimeType", "text/plain"),
        Some(Format::Json) => object.text("responseMimeType", "application/json"),
        // Its name is nothing that the model reads; it is always followed.
        Some(Format::Schema { name: _, description, schema, strict: _ }) => {
            if description.is_some() {
                losses.add(What::OutputFormat, "format.description");
            }
            object.text("responseMimeType", "application/json");
            if sent.takes_schema {
                object.raw("responseJsonSchema", schema);
            } else {
                object.raw("responseSchema", &schema::to_subset(schema, "format.schema", losses));
            }
        }
    }
}

fn write_thinking(
    style: Option<Thinking>,
    reasoning: &Reasoning<'_>,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    let Reasoning { enabled, effort, budget, summary } = reasoning;
    let effort = effort.as_deref();
    let is_off = *enabled == Some(false) || effort == Some("none");
    if style == Some(Thinking::None) {
        if !is_off {
            losses.add(What::Reasoning, "reasoning");
        }
        return;
    }
    let mut level = None;
    let mut tokens: Option<i64> = None;
    match style {
        Some(Thinking::Effort | Thinking::Adaptive) => {
            level = match (effort, budget) {
                _ if is_off => {
                    losses.add(What::Reasoning, "reasoning");
                    Some("minimal")
                }
                (Some(known @ ("minimal" | "low" | "medium" | "high")), _) => Some(known),
                (Some(_), _) => {
                    losses.add(What::Reasoning, "reasoning.effort");
                    Some("high")
                }
                (None, Some(budget)) => {
                    losses.add(What::Reasoning, "reasoning.budget");
                    Some(effort_of(*budget))
                }
                (None, None) => None,
            };
        }
        Some(Thinking::Budget { can_be_off: false, .. }) if is_off => {
            losses.add(What::Reasoning, "reasoning")
        }
        _ if is_off => tokens = Some(0),
        style => {
            let bounds = match style {
                Some(Thinking::Budget { min, max, can_be_off: _ }) => (min, max),
                _ => (1, u64::MAX),
            };
            tokens = budget_of(*budget, effort, bounds, *enabled, losses);
        }
    }
    let shown = summary.as_deref().map(|how| !matches!(how, "omitted" | "none"));
    if level.is_none() && tokens.is_none() && shown.is_none() {
        return;
    }
    object.object("thinkingConfig", |object| {
        object.some_boolean("includeThoughts", shown);
        if let Some(tokens) = tokens {
            object.raw("thinkingBudget", &tokens.to_string());
        }
        object.some_text("thinkingLevel", level);
    });
}

fn budget_of(
    budget: Option<u64>,
    effort: Option<&str>,
    (min, max): (u64, u64),
    enabled: Option<bool>,
    losses: &mut Losses,
) -> Option<i64> {
    let asked = match (budget, effort) {
        (Some(budget), _) => budget,
        (None, Some(effort)) => {
            // More than the table knows is as much as there is.
            let known = EFFORTS.iter().find(|(name, _)| *name == effort).map(|(_, tokens)| *tokens);
            known.unwrap_or(32_768)
        }
        // As much as the model likes.
        (None, None) => return (enabled == Some(true)).then_some(-1),
    };
    let held = asked.clamp(min, max);
    if budget.is_some() && held != asked {
        losses.add(What::Reasoning, "reasoning.budget");
    }
    i64::try_from(held).ok()
}

fn effort_of(budget: u64) -> &'static str {
    match budget {
        0..=2048 => "low",
        2049..=12_288 => "medium",
        _ => "high",
    }
}

/// Notes what this dialect has no words for.
fn note_losses(request: &Request<'_>, losses: &mut Losses) {
    let Request {
        model: _,
        turns: _,
        tools: _,
        tool_choice: _,
        parallel_tool_calls,
        format: _,
        max_output_tokens: _,
        sampling: _,
        reasoning: _,
        candidates: _,
        stop: _,
        modalities: _,
        verbosity,
        stream: _,
        // This dialect always tells it.
        stream_usage: _,
        metadata,
        user,
        service_tier,
        store,
        previous_response: _,
        prompt_cache_key,
        cache,
        echo: _,
        native: _,
    } = request;
    let lost = [
        ("parallel_tool_calls", What::ParallelToolCalls, *parallel_tool_calls == Some(false)),
        ("verbosity", What::Verbosity, verbosity.is_some()),
        ("metadata", What::Metadata, !metadata.is_empty()),
        ("user", What::Metadata, user.is_some()),
        ("service_tier", What::ServiceTier, service_tier.is_some()),
        // That it is not kept is what happens.
        ("store", What::Stored, *store == Some(true)),
        ("prompt_cache_key", What::CacheControl, prompt_cache_key.is_some()),
        ("cache", What::CacheControl, cache.is_some()),
    ];
    for (name, what, _) in lost.into_iter().filter(|(_, _, is_lost)| *is_lost) {
        losses.add(what, name);
    }
}
