//! Writes a request for a server that speaks this dialect, as far as its quirks let it.

use std::borrow::Cow;

use super::words::SELF;
use super::{write_message, write_tools};
use crate::invalid::Invalid;
use crate::json::{Object, object};
use crate::loss::{Losses, What};
use crate::neutral::{Format, Native, Raw, Reasoning, Request, Sampling, Text, own};
use crate::target::{Quirks, Target, Thinking, Thinks};

/// Efforts, from the least to the most, to find the nearest of those that a server knows.
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Fields that OpenAI has and the neutral form has not: they are no extension.
const OWN: [&str; 7] = [
    "audio",
    "moderation",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "web_search_options",
];

/// The fields of a request, as far as the server takes them.
pub(super) struct Sent<'s, 'o> {
    object: &'s mut Object<'o>,
    quirks: &'s Quirks,
    losses: &'s mut Losses,
}

impl Sent<'_, '_> {
    /// Under which name a field goes out, if at all.
    fn name<'f>(&mut self, field: &'f str) -> Option<&'f str> {
        match self.quirks.refuses(field) {
            Some(what) => {
                self.losses.add(what, field);
                None
            }
            None => Some(self.quirks.name_of(field)),
        }
    }

    fn raw(&mut self, field: &str, json: Option<&str>) {
        if let Some(json) = json
            && let Some(name) = self.name(field)
        {
            self.object.raw(name, json);
        }
    }

    fn text(&mut self, field: &str, value: Option<&str>) {
        if let Some(value) = value
            && let Some(name) = self.name(field)
        {
            self.object.text(name, value);
        }
    }

    fn whole(&mut self, field: &str, value: Option<u64>) {
        self.raw(field, value.map(|value| value.to_string()).as_deref());
    }

    fn boolean(&mut self, field: &str, value: Option<bool>) {
        self.raw(field, value.map(|value| if value { "true" } else { "false" }));
    }
}

/// Writes a request.
///
/// # Errors
/// None so far: whatever a request says, something can be written for it.
pub fn encode_request(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, Invalid> {
    let mut out = Vec::with_capacity(1024);
    object(&mut out, |object| {
        object.text("model", target.model);
        object.array("messages", |array| {
            write_message::write(&request.turns, array, &target.quirks, losses);
        });
        let mut sent = Sent { object, quirks: &target.quirks, losses };
        fields(request, target, &mut sent);
    });
    Ok(out)
}

fn fields(request: &Request<'_>, target: &Target<'_>, sent: &mut Sent<'_, '_>) {
    let Request {
        // The target's is written instead.
        model: _,
        turns: _,
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
    write_tools::write(tools, tool_choice.as_ref(), sent.quirks, sent.object, sent.losses, |name| {
        target.quirks.refuses(name)
    });
    if !tools.is_empty() {
        sent.boolean("parallel_tool_calls", *parallel_tool_calls);
    }
    write_format(format.as_ref(), sent);
    if let Some(limit) = max_output_tokens {
        sent.object.whole(sent.quirks.output_limit, *limit);
    }
    write_sampling(sampling, target, sent);
    if let Some(reasoning) = reasoning {
        write_reasoning(reasoning, target, sent);
    }
    // One is what there is anyway.
    sent.whole("n", candidates.filter(|count| *count != 1 || sent.quirks.refuses("n").is_none()));
    write_stop(stop, sent);
    let is_text = modalities.iter().all(|modality| modality == "text");
    // Texts are what there is anyway.
    let is_said = !is_text || sent.quirks.refuses("modalities").is_none();
    if !modalities.is_empty() && is_said {
        list("modalities", modalities, sent);
    }
    sent.text("verbosity", verbosity.as_deref());
    write_metadata(metadata, sent);
    write_user(user.as_deref(), echo, native, sent);
    write_tier(service_tier.as_deref(), sent);
    sent.boolean("store", *store);
    if previous_response.is_some() {
        sent.losses.add(What::Stored, "previous_response");
    }
    sent.text("prompt_cache_key", prompt_cache_key.as_deref());
    match cache {
        Some(cache) if sent.quirks.cache_marks => sent.object.raw("cache_control", &cache.raw),
        Some(_) => sent.losses.add(What::CacheControl, "cache"),
        None => {}
    }
    write_native(native, sent);
    write_stream(*stream, echo, sent);
}

fn write_tier(tier: Option<&str>, sent: &mut Sent<'_, '_>) {
    let Some(tier) = tier else { return };
    let tier = if tier == "standard_only" { "default" } else { tier };
    let there = match sent.quirks.tiers {
        None => Some(tier),
        Some(tiers) => tiers.iter().find(|(known, _)| *known == tier).map(|(_, there)| *there),
    };
    match there {
        Some(there) => sent.text("service_tier", Some(there)),
        None => sent.losses.add(What::ServiceTier, "service_tier"),
    }
}

fn list(field: &str, values: &[Text<'_>], sent: &mut Sent<'_, '_>) {
    if let Some(name) = sent.name(field) {
        sent.object.texts(name, values);
    }
}

fn write_native(native: &[Native<'_>], sent: &mut Sent<'_, '_>) {
    for native in own(native, SELF, "", sent.losses) {
        if !sent.quirks.knows(&native.name) && !OWN.contains(&&*native.name) {
            sent.losses.add(native.what, &*native.name);
        } else {
            sent.raw(&native.name, Some(&native.raw));
        }
    }
}

fn write_stream(stream: bool, echo: &[(Text<'_>, Raw<'_>)], sent: &mut Sent<'_, '_>) {
    if !stream {
        return;
    }
    sent.object.boolean("stream", true);
    // Without it nobody would know what the stream cost. Whether the client is told is decided where its stream is written.
    if sent.quirks.stream_options {
        sent.object.object("stream_options", |object| {
            object.boolean("include_usage", true);
            if sent.quirks.pads_streams {
                object.some_raw("include_obfuscation", echoed(echo, "include_obfuscation"));
            }
        });
    }
}

fn echoed<'e>(echo: &'e [(Text<'_>, Raw<'_>)], name: &str) -> Option<&'e str> {
    echo.iter().find(|(known, _)| known == name).map(|(_, raw)| &**raw)
}

fn write_user(
    user: Option<&str>,
    echo: &[(Text<'_>, Raw<'_>)],
    native: &[Native<'_>],
    sent: &mut Sent<'_, '_>,
) {
    let is_safety = echoed(echo, "safety_identifier").is_some()
        && sent.quirks.refuses("safety_identifier").is_none()
        && !native.iter().any(|native| native.dialect == SELF && native.name == "safety_identifier");
    sent.text(if is_safety { "safety_identifier" } else { "user" }, user);
}

fn write_metadata(metadata: &[(Text<'_>, Text<'_>)], sent: &mut Sent<'_, '_>) {
    if !metadata.is_empty()
        && let Some(name) = sent.name("metadata")
    {
        sent.object.object(name, |object| metadata.iter().for_each(|(name, value)| object.text(name, value)));
    }
}

fn write_stop(stop: &[Text<'_>], sent: &mut Sent<'_, '_>) {
    let most = sent.quirks.max_stops;
    for index in most..stop.len() {
        sent.losses.add(What::StopSequences, format!("stop[{index}]"));
    }
    if !stop.is_empty() {
        list("stop", &stop[..stop.len().min(most)], sent);
    }
}

fn write_format(format: Option<&Format<'_>>, sent: &mut Sent<'_, '_>) {
    let Some(format) = format else { return };
    let Some(name) = sent.name("response_format") else { return };
    let Sent { object, quirks, losses } = sent;
    object.object(name, |object| match format {
        Format::Text => object.text("type", "text"),
        Format::Json => object.text("type", "json_object"),
        Format::Schema { .. } if !quirks.json_schema => {
            losses.add(What::OutputFormat, "format.schema");
            object.text("type", "json_object");
        }
        Format::Schema { name, description, schema, strict } => {
            object.text("type", "json_schema");
            object.object("json_schema", |object| {
                object.text("name", name.as_deref().unwrap_or("response"));
                object.some_text("description", description.as_ref());
                object.raw("schema", schema);
                match strict {
                    Some(true) if !quirks.strict => losses.add(What::OutputFormat, "format.strict"),
                    _ if quirks.strict => object.some_boolean("strict", *strict),
                    _ => {}
                }
            });
        }
    });
}

fn write_sampling(sampling: &Sampling<'_>, target: &Target<'_>, sent: &mut Sent<'_, '_>) {
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
    let takes = target.model_facts.takes_sampling != Some(false);
    for (field, number) in [
        ("temperature", temperature),
        ("top_p", top_p),
        ("presence_penalty", presence_penalty),
        ("frequency_penalty", frequency_penalty),
    ] {
        match number {
            Some(_) if !takes => sent.losses.add(What::Sampling, field),
            number => sent.raw(field, number.as_ref().map(|number| number.text())),
        }
    }
    match top_k {
        Some(_) if !takes || !sent.quirks.top_k => sent.losses.add(What::Sampling, "top_k"),
        number => sent.raw("top_k", number.as_ref().map(|number| number.text())),
    }
    sent.raw("seed", seed.as_ref().map(|seed| seed.text()));
    match logit_bias {
        Some(_) if !takes => sent.losses.add(What::Sampling, "logit_bias"),
        bias => sent.raw("logit_bias", bias.as_deref()),
    }
    let Some(log_probabilities) = log_probabilities else { return };
    if !takes {
        sent.losses.add(What::LogProbabilities, "logprobs");
    } else if sent.quirks.logprobs_are_counted {
        // None asked for is one of them: zero would ask for nothing at all.
        sent.whole("logprobs", Some(log_probabilities.alternatives.unwrap_or(1).max(1)));
    } else {
        sent.boolean("logprobs", Some(true));
        if sent.quirks.refuses("logprobs").is_none() {
            sent.whole("top_logprobs", log_probabilities.alternatives);
        }
    }
}

/// An effort that stands for so many tokens.
const fn effort_of(budget: u64) -> &'static str {
    match budget {
        0 => "none",
        1..=2048 => "low",
        2049..=12_288 => "medium",
        _ => "high",
    }
}

/// The nearest effort that the server knows. A word that is no effort of ours is the server's own.
fn fit<'e>(effort: &'e str, known: &'static [&'static str]) -> Option<&'e str> {
    let rank = |word: &str| EFFORTS.iter().position(|known| *known == word);
    let Some(wanted) = rank(effort) else { return Some(effort) };
    // Of two that are as near, the lesser costs less.
    let distance = |known: &&&str| rank(known).map_or(usize::MAX, |rank| rank.abs_diff(wanted));
    // The least is not none: who asks for a little is not given nothing.
    let is_off = |known: &&&str| (**known == "none") == (effort == "none");
    known.iter().filter(is_off).min_by_key(distance).or_else(|| known.first()).copied()
}

fn write_reasoning(reasoning: &Reasoning<'_>, target: &Target<'_>, sent: &mut Sent<'_, '_>) {
    let Reasoning { enabled, effort, budget, summary } = reasoning;
    let is_off = *enabled == Some(false) || effort.as_deref() == Some("none");
    if target.model_facts.thinking == Some(Thinking::None) {
        if !is_off {
            sent.losses.add(What::Reasoning, "reasoning");
        }
        return;
    }
    if sent.quirks.thinks == Thinks::Object {
        return write_object(reasoning, sent);
    }
    if sent.quirks.thinks == Thinks::Switch && (enabled.is_some() || is_off) {
        sent.object.object("thinking", |object| {
            object.text("type", if is_off { "disabled" } else { "enabled" });
        });
        if is_off {
            return;
        }
    }
    if sent.quirks.thinks == Thinks::Flag && (enabled.is_some() || is_off) {
        sent.object.object("reasoning", |object| object.boolean("enabled", !is_off));
        if is_off {
            return;
        }
    }
    // How thoughts are shown is not asked for here. That they are not is what this dialect does anyway.
    if summary.as_deref().is_some_and(|summary| summary != "omitted") && *sent.quirks == Quirks::default() {
        sent.losses.add(What::Reasoning, "reasoning.summary");
    }
    let wanted: Cow<'_, str> = match (effort, budget) {
        // A model of which it is not known that it can be told an effort refuses this one more often than not.
        (None, _) if is_off && target.model_facts.thinking.is_none() => {
            return sent.losses.add(What::Reasoning, "reasoning.enabled");
        }
        _ if is_off => Cow::Borrowed("none"),
        (Some(effort), _) => Cow::Borrowed(&**effort),
        (None, Some(budget)) => Cow::Borrowed(effort_of(*budget)),
        (None, None) => return,
    };
    let fitting = fit(&wanted, sent.quirks.efforts);
    if budget.is_some() {
        sent.losses.add(What::Reasoning, "reasoning.budget");
    } else if fitting != Some(&*wanted) {
        sent.losses.add(What::Reasoning, "reasoning.effort");
    }
    sent.text("reasoning_effort", fitting);
}

/// OpenRouter's `reasoning`. It takes an effort or a number of tokens, and not both.
fn write_object(reasoning: &Reasoning<'_>, sent: &mut Sent<'_, '_>) {
    let Reasoning { enabled, effort, budget, summary } = reasoning;
    let Some(name) = sent.name("reasoning") else { return };
    if effort.is_some() && budget.is_some() {
        sent.losses.add(What::Reasoning, "reasoning.effort");
    }
    sent.object.object(name, |object| {
        object.some_boolean("enabled", *enabled);
        match (effort, budget) {
            (_, Some(budget)) => object.whole("max_tokens", *budget),
            (effort, None) => object.some_text("effort", effort.as_ref()),
        }
        match summary.as_deref() {
            Some("omitted") => object.boolean("exclude", true),
            Some(summary @ ("auto" | "concise" | "detailed")) => object.text("summary", summary),
            // Anthropic's `summarized` is what is shown anyway.
            _ => {}
        }
    });
}
