//! Writes a request for a provider.

use std::borrow::Cow;

use super::DIALECT;
use super::tools::{Names, write_choice, write_tools};
use super::write_items::write_turn;
use crate::invalid::Invalid;
use crate::json::{Node, Object, Value, object, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Format, Native, Part, PartKind, Reasoning, Request, Role, Sampling, Turn, own};
use crate::target::{Target, Thinking};

/// How long the name of a user may be.
const MAX_USER: usize = 128;

/// The least bound on an answer that is taken.
const MIN_OUTPUT: u64 = 16;

/// Writes a request.
///
/// # Errors
/// None: what cannot be said is a loss.
pub fn encode_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, Invalid> {
    let mut out = Vec::with_capacity(1024);
    object(&mut out, |object| write_fields(object, request, target, losses));
    Ok(out)
}

fn write_fields(object: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>, losses: &mut Losses) {
    let Request {
        model: _,
        turns,
        tools,
        tool_choice,
        parallel_tool_calls,
        format,
        max_output_tokens,
        sampling,
        reasoning,
        candidates,
        stop,
        modalities,
        verbosity,
        stream,
        // It is always told.
        stream_usage: _,
        metadata,
        user,
        service_tier,
        store,
        previous_response,
        prompt_cache_key,
        cache,
        echo,
        native,
    } = request;
    // What this dialect repeats to its clients tells that the client speaks it, and what it included.
    let is_own = !echo.is_empty();
    let names = Names::of(tools);
    let natives: Vec<&Native<'_>> = own(native, DIALECT, "", losses).collect();

    object.text("model", target.model);
    write_turns(object, turns, format.as_ref(), &names, is_own, losses);
    if !tools.is_empty() {
        object.array("tools", |array| write_tools(array, tools, is_own, losses));
    }
    if let Some(choice) = tool_choice {
        write_choice(object, choice, &names);
    }
    object.some_boolean("parallel_tool_calls", *parallel_tool_calls);
    write_limit(object, *max_output_tokens, target, losses);
    write_sampling(object, sampling, target, losses);
    write_reasoning(object, reasoning.as_ref(), &natives, losses);
    write_include(object, request, target, &natives);
    write_text(object, format.as_ref(), verbosity.as_deref(), is_own);
    if candidates.is_some_and(|count| count > 1) {
        losses.add(What::Candidates, "n");
    }
    if !stop.is_empty() {
        losses.add(What::StopSequences, "stop");
    }
    if modalities.iter().any(|kind| kind != "text") {
        losses.add(What::Modalities, "modalities");
    }
    if cache.is_some() {
        losses.add(What::CacheControl, "cache_control");
    }
    if *stream {
        object.boolean("stream", true);
    }
    if !metadata.is_empty() {
        object.object("metadata", |object| metadata.iter().for_each(|(name, text)| object.text(name, text)));
    }
    match user {
        Some(user) if user.chars().count() <= MAX_USER => object.text("safety_identifier", user),
        Some(_) => losses.add(What::Metadata, "user"),
        None => {}
    }
    // Anthropic's word for the tier that everybody gets.
    object.some_text(
        "service_tier",
        service_tier.as_deref().map(|tier| match tier {
            "standard_only" => "default",
            other => other,
        }),
    );
    match store {
        Some(store) => object.boolean("store", *store),
        None if is_own => {}
        // Here answers are kept unless one says no, elsewhere they are not.
        None => object.boolean("store", false),
    }
    object.some_text("previous_response_id", previous_response.as_ref());
    object.some_text("prompt_cache_key", prompt_cache_key.as_ref());
    for native in natives {
        if native.name != "include" && !native.name.starts_with("reasoning.") {
            object.raw(&native.name, &native.raw);
        }
    }
}

/// Writes `instructions` and `input`.
fn write_turns(
    object: &mut Object<'_>,
    turns: &[Turn<'_>],
    format: Option<&Format<'_>>,
    names: &Names,
    is_own: bool,
    losses: &mut Losses,
) {
    let mut first = 0;
    // To answer in JSON, the provider wants the word in the input; instructions do not count. And an input without items
    // is refused.
    if turns.len() > 1
        && *format.unwrap_or(&Format::Text) != Format::Json
        && let Some(text) = turns.first().and_then(instructions)
    {
        object.text("instructions", text);
        first = 1;
    }
    object.array("input", |array| {
        for (index, turn) in turns.iter().enumerate().skip(first) {
            write_turn(array, turn, &format!("turns[{index}]"), names, is_own, losses);
        }
    });
}

/// The text of a turn that is nothing but instructions.
fn instructions<'t>(turn: &'t Turn<'_>) -> Option<&'t str> {
    match turn {
        Turn { role: Role::System, name: None, parts, native } if native.is_empty() => match &parts[..] {
            [Part { kind: PartKind::Text { text, citations }, state }]
                if citations.is_empty() && state.is_empty() =>
            {
                Some(text)
            }
            _ => None,
        },
        _ => None,
    }
}

fn write_limit(object: &mut Object<'_>, limit: Option<u64>, target: &Target<'_>, losses: &mut Losses) {
    let Some(limit) = limit else { return };
    let most = target.model_facts.output_tokens.unwrap_or(u64::MAX).max(MIN_OUTPUT);
    let bounded = limit.clamp(MIN_OUTPUT, most);
    if bounded != limit {
        losses.add(What::OutputLimit, "max_output_tokens");
    }
    object.whole("max_output_tokens", bounded);
}

fn write_sampling(
    object: &mut Object<'_>,
    sampling: &Sampling<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) {
    let Sampling {
        temperature,
        top_p,
        top_k,
        presence_penalty,
        frequency_penalty,
        seed,
        logit_bias,
        // With `include`.
        log_probabilities: _,
    } = sampling;
    for (name, value) in [("temperature", temperature), ("top_p", top_p)] {
        if target.model_facts.takes_sampling == Some(false) {
            if value.is_some() {
                losses.add(What::Sampling, name);
            }
        } else {
            object.some_number(name, value.as_ref());
        }
    }
    for (name, value) in
        [("top_k", top_k), ("presence_penalty", presence_penalty), ("frequency_penalty", frequency_penalty)]
    {
        // Nought takes nothing off.
        if value.as_ref().is_some_and(|value| value.as_f64() != 0.0) {
            losses.add(What::Sampling, name);
        }
    }
    if logit_bias.is_some() {
        losses.add(What::Sampling, "logit_bias");
    }
    if seed.is_some() {
        losses.add(What::Seed, "seed");
    }
}

fn write_reasoning(
    object: &mut Object<'_>,
    reasoning: Option<&Reasoning<'_>>,
    natives: &[&Native<'_>],
    losses: &mut Losses,
) {
    let more =
        natives.iter().filter_map(|native| Some((native.name.strip_prefix("reasoning.")?, &native.raw)));
    let none = Reasoning::default();
    let Reasoning { enabled, effort, budget, summary } = reasoning.unwrap_or(&none);
    let effort = match (effort, budget, enabled) {
        (Some(effort), _, _) => Some(&**effort),
        (None, _, Some(false)) | (None, Some(0), _) => Some("none"),
        (None, Some(budget), _) => {
            // A number of tokens is more than a word says.
            losses.add(What::Reasoning, "reasoning.budget");
            Some(effort_of(*budget))
        }
        (None, None, _) => None,
    };
    let summary = match summary.as_deref() {
        Some("summarized") => Some("auto"),
        Some("omitted") => None,
        other => other,
    };
    let more: Vec<_> = more.collect();
    if reasoning.is_none() && more.is_empty() {
        return;
    }
    object.object("reasoning", |object| {
        object.some_text("effort", effort);
        object.some_text("summary", summary);
        more.iter().for_each(|(name, raw)| object.raw(name, raw));
    });
}

/// The effort that a number of tokens comes nearest to.
const fn effort_of(budget: u64) -> &'static str {
    match budget {
        0..=1023 => "minimal",
        1024..=4095 => "low",
        4096..=16_383 => "medium",
        _ => "high",
    }
}

/// Writes `include` and `top_logprobs`.
fn write_include(
    object: &mut Object<'_>,
    request: &Request<'_>,
    target: &Target<'_>,
    natives: &[&Native<'_>],
) {
    let mut included: Vec<Cow<'_, str>> = Vec::new();
    if wants_encrypted(request, target) {
        included.push("reasoning.encrypted_content".into());
    }
    if let Some(probabilities) = request.sampling.log_probabilities {
        included.push("message.output_text.logprobs".into());
        object.some_whole("top_logprobs", probabilities.alternatives);
    }
    let more = natives.iter().filter(|native| native.name == "include");
    let more: Vec<Node<'_>> = more.filter_map(|native| parse(native.raw.as_bytes()).ok()).collect();
    for node in &more {
        if let Value::Array(items) = &node.value {
            included.extend(items.iter().filter_map(Node::as_text).map(Cow::Borrowed));
        }
    }
    if !included.is_empty() {
        object.texts("include", &included);
    }
}

/// Whether thoughts are to come encrypted, so that they can come back. A client of another dialect cannot ask for it; a
/// model that does not think refuses it.
fn wants_encrypted(request: &Request<'_>, target: &Target<'_>) -> bool {
    let asked = request
        .echo
        .iter()
        .any(|(name, raw)| name == "include" && raw.contains("reasoning.encrypted_content"));
    if !request.echo.is_empty() {
        return asked;
    }
    let thinks = match target.model_facts.thinking {
        Some(Thinking::None) => false,
        Some(_) => true,
        None => request.reasoning.as_ref().is_some_and(|reasoning| reasoning.enabled != Some(false)),
    };
    let signed =
        |part: &Part<'_>| part.state.signature.as_ref().is_some_and(|signature| signature.by == DIALECT);
    thinks || request.turns.iter().flat_map(|turn| &turn.parts).any(signed)
}

fn write_text(object: &mut Object<'_>, format: Option<&Format<'_>>, verbosity: Option<&str>, is_own: bool) {
    if format.is_none() && verbosity.is_none() {
        return;
    }
    object.object("text", |object| {
        if let Some(format) = format {
            object.object("format", |object| write_format(object, format, is_own));
        }
        object.some_text("verbosity", verbosity);
    });
}

fn write_format(object: &mut Object<'_>, format: &Format<'_>, is_own: bool) {
    match format {
        Format::Text => object.text("type", "text"),
        Format::Json => object.text("type", "json_object"),
        Format::Schema { name, description, schema, strict } => {
            object.text("type", "json_schema");
            // It must have one.
            object.text("name", name.as_deref().unwrap_or("answer"));
            object.some_text("description", description.as_ref());
            object.raw("schema", schema);
            match strict {
                Some(strict) => object.boolean("strict", *strict),
                None if is_own => {}
                None => object.boolean("strict", false),
            }
        }
    }
}
