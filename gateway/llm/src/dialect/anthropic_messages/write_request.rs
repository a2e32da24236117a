//! Writes a request for a provider.

use super::layout::{Layout, Message};
use super::schema::Heading;
use super::thinking::{Obstacles, Plan};
use super::tools::Tools;
use super::{DIALECT, block, schema};
use crate::invalid::Invalid;
use crate::json::{self, Number, Object};
use crate::loss::{Losses, What};
use crate::neutral::{self, Format, Native, Request, Role, Sampling, Text};
use crate::target::{Model, Target};

/// The bound on an answer where neither the client nor the model's facts name one: the least of what the models can that
/// Anthropic serves.
const MAX_TOKENS: u64 = 32_000;

/// How long `metadata.user_id` may be.
const MAX_USER: usize = 256;

/// How many cache marks tools may have: the conversation needs one.
const MAX_TOOL_MARKS: usize = 3;

/// Writes a request for a provider.
///
/// # Errors
/// When Anthropic would refuse it, and no other way of saying it is left.
pub fn encode_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, Invalid> {
    let facts = &target.model_facts;
    let mut layout = Layout::of(&request.turns, facts.system_turns == Some(true), losses)?;
    let mut tools = Tools::of(request, losses)?;
    tools.limit_marks(MAX_TOOL_MARKS, losses);
    layout.limit_marks(tools.marks() + usize::from(request.cache.is_some()), losses);
    let max_tokens = max_tokens(request, facts, losses);
    let obstacles =
        Obstacles { is_forced: tools.is_forced(), lacks_thoughts: layout.lacks_thoughts(), max_tokens };
    let plan = Plan::of(request.reasoning.as_ref(), &request.native, facts, obstacles, losses);
    note_losses(request, losses);
    let native: Vec<&Native<'_>> = neutral::own(&request.native, DIALECT, "", losses).collect();

    let mut out = Vec::with_capacity(1024);
    json::object(&mut out, |object| {
        object.text("model", target.model);
        object.whole("max_tokens", max_tokens);
        write_system(object, &layout);
        object.array("messages", |array| {
            for message in &layout.messages {
                array.object(|object| write_message(object, message));
            }
        });
        tools.write(object);
        plan.write(object);
        write_output_config(object, request.format.as_ref(), &plan, &native, facts, losses);
        write_sampling(object, &request.sampling, facts, plan.thinks(), losses);
        write_stop(object, &request.stop, losses);
        write_user(object, request.user.as_ref(), losses);
        object.some_text("service_tier", service_tier(request.service_tier.as_ref(), losses));
        object.some_raw("cache_control", request.cache.as_ref().map(|cache| &cache.raw));
        for native in native.iter().filter(|native| native.name != "thinking" && !native.name.contains('.')) {
            object.raw(&native.name, &native.raw);
        }
        if request.stream {
            object.boolean("stream", true);
        }
    });
    Ok(out)
}

fn max_tokens(request: &Request<'_>, facts: &Model, losses: &mut Losses) -> u64 {
    let Some(asked) = request.max_output_tokens else {
        let budget = request.reasoning.as_ref().and_then(|reasoning| reasoning.budget).unwrap_or(0);
        return facts.output_tokens.unwrap_or(MAX_TOKENS.saturating_add(budget));
    };
    match facts.output_tokens {
        Some(most) if most < asked => {
            losses.add(What::OutputLimit, "max_output_tokens");
            most
        }
        _ => asked,
    }
}

fn write_system(object: &mut Object<'_>, layout: &Layout<'_>) {
    match &layout.system[..] {
        [] => {}
        [sole] if sole.sole_text().is_some() => object.some_text("system", sole.sole_text()),
        blocks => object.array("system", |array| blocks.iter().for_each(|block| block.write(array))),
    }
}

fn write_message(object: &mut Object<'_>, message: &Message<'_>) {
    let role = match message.role {
        Role::Assistant => "assistant",
        Role::System | Role::Developer => "system",
        Role::User | Role::Tool => "user",
    };
    object.text("role", role);
    block::write_content(object, &message.blocks);
    message.native.iter().for_each(|(name, raw)| object.raw(name, raw));
}

/// `output_config`: effort, the shape of the answer, and what only this dialect knows.
fn write_output_config(
    object: &mut Object<'_>,
    format: Option<&Format<'_>>,
    plan: &Plan<'_>,
    native: &[&Native<'_>],
    facts: &Model,
    losses: &mut Losses,
) {
    let schema = match format {
        None | Some(Format::Text) => None,
        Some(Format::Json) => {
            losses.add(What::OutputFormat, "format");
            None
        }
        Some(Format::Schema { .. }) if facts.structured_output == Some(false) => {
            losses.add(What::OutputFormat, "format");
            None
        }
        Some(Format::Schema { name, description, schema, strict: _ }) => {
            let heading = Heading { name: name.as_deref(), description: description.as_deref() };
            Some(schema::of_answer(schema, heading, "format.schema", losses))
        }
    };
    let inner = |native: &&&Native<'_>| native.name.starts_with("output_config.");
    let native: Vec<_> = native.iter().filter(inner).collect();
    if schema.is_none() && plan.effort.is_none() && native.is_empty() {
        return;
    }
    object.object("output_config", |object| {
        object.some_text("effort", plan.effort);
        if let Some(schema) = schema {
            object.object("format", |object| {
                object.text("type", "json_schema");
                object.raw("schema", &schema);
            });
        }
        for native in native {
            object.raw(native.name.trim_start_matches("output_config."), &native.raw);
        }
    });
}

fn write_sampling(
    object: &mut Object<'_>,
    sampling: &Sampling<'_>,
    facts: &Model,
    thinks: bool,
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
        log_probabilities,
    } = sampling;
    let lost = [
        ("presence_penalty", What::Sampling, presence_penalty.is_some()),
        ("frequency_penalty", What::Sampling, frequency_penalty.is_some()),
        ("seed", What::Seed, seed.is_some()),
        ("logit_bias", What::Sampling, logit_bias.is_some()),
        ("logprobs", What::LogProbabilities, log_probabilities.is_some()),
    ];
    for (name, what, _) in lost.into_iter().filter(|(_, _, is_lost)| *is_lost) {
        losses.add(what, name);
    }
    let takes_any = facts.takes_sampling != Some(false);
    let one = Number::from_text("1");
    if let Some(asked) = temperature {
        // Other dialects go up to 2. With thoughts, only 1 is taken.
        let is_one = asked.as_f64() == 1.0;
        if !takes_any || thinks {
            lose_unless(is_one, "temperature", losses);
        } else if asked.as_f64() > 1.0 {
            losses.add(What::Sampling, "temperature");
            object.some_number("temperature", Some(&one));
        } else {
            object.some_number("temperature", Some(asked));
        }
    }
    if let Some(asked) = top_p {
        // Models since 4.1 refuse to be told both.
        let is_refused = temperature.is_some() || thinks && asked.as_f64() < 0.95;
        if !takes_any || is_refused {
            lose_unless(asked.as_f64() == 1.0, "top_p", losses);
        } else {
            object.some_number("top_p", Some(asked));
        }
    }
    if let Some(asked) = top_k {
        if takes_any && !thinks {
            object.some_number("top_k", Some(asked));
        } else {
            losses.add(What::Sampling, "top_k");
        }
    }
}

/// A parameter that is left out is lost, unless it says what is so without it.
fn lose_unless(is_default: bool, name: &str, losses: &mut Losses) {
    if !is_default {
        losses.add(What::Sampling, name);
    }
}

fn write_stop(object: &mut Object<'_>, stop: &[Text<'_>], losses: &mut Losses) {
    let (said, blank): (Vec<_>, Vec<_>) = stop.iter().cloned().partition(|text| !text.trim().is_empty());
    if !blank.is_empty() {
        losses.add(What::StopSequences, "stop");
    }
    if !said.is_empty() {
        object.texts("stop_sequences", &said);
    }
}

fn write_user(object: &mut Object<'_>, user: Option<&Text<'_>>, losses: &mut Losses) {
    match user {
        Some(user) if user.chars().count() <= MAX_USER => {
            object.object("metadata", |object| object.text("user_id", user));
        }
        Some(_) => losses.add(What::Metadata, "user"),
        None => {}
    }
}

fn service_tier(tier: Option<&Text<'_>>, losses: &mut Losses) -> Option<&'static str> {
    match &**tier? {
        "auto" => Some("auto"),
        "standard_only" | "default" => Some("standard_only"),
        _ => {
            losses.add(What::ServiceTier, "service_tier");
            None
        }
    }
}

/// Notes what this dialect has no words for.
fn note_losses(request: &Request<'_>, losses: &mut Losses) {
    let Request {
        model: _,
        turns: _,
        tools: _,
        tool_choice: _,
        parallel_tool_calls: _,
        format: _,
        max_output_tokens: _,
        sampling: _,
        reasoning: _,
        candidates,
        stop: _,
        modalities,
        verbosity,
        stream: _,
        // This dialect always tells it.
        stream_usage: _,
        metadata,
        user: _,
        service_tier: _,
        store,
        previous_response,
        prompt_cache_key,
        cache: _,
        echo: _,
        native: _,
    } = request;
    let lost = [
        ("candidates", What::Candidates, candidates.is_some_and(|count| count > 1)),
        ("modalities", What::Modalities, modalities.iter().any(|kind| kind != "text")),
        ("verbosity", What::Verbosity, verbosity.is_some()),
        ("metadata", What::Metadata, !metadata.is_empty()),
        // That it is not kept is what happens.
        ("store", What::Stored, *store == Some(true)),
        ("previous_response", What::Stored, previous_response.is_some()),
        ("prompt_cache_key", What::CacheControl, prompt_cache_key.is_some()),
    ];
    for (name, what, _) in lost.into_iter().filter(|(_, _, is_lost)| *is_lost) {
        losses.add(what, name);
    }
}
