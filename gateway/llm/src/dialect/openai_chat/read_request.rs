//! Reads a client's request: what stands beside the messages.

use std::borrow::Cow;

use super::words::{Known, SELF, natives, unknown};
use super::{read_message, read_tools};
use crate::dialect::Call;
use crate::invalid::{Invalid, Reason};
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::What;
use crate::neutral::{CacheControl, Format, LogProbabilities, Native, Reasoning, Request, Sampling, Text};

/// How many messages, tools and texts to stop at there may be: more than any provider takes.
const MAX_ITEMS: usize = 16_384;

/// What only this dialect has: OpenAI's own, and what clients say to servers that are built after it.
const KNOWN: Known = &[
    ("audio", What::Audio),
    ("moderation", What::Safety),
    ("prediction", What::Prediction),
    ("prompt_cache_options", What::CacheControl),
    ("prompt_cache_retention", What::CacheControl),
    ("web_search_options", What::ProviderTool),
    // OpenRouter.
    ("models", What::UnknownField),
    ("provider", What::UnknownField),
    ("plugins", What::ProviderTool),
    ("route", What::UnknownField),
    ("transforms", What::UnknownField),
    ("session_id", What::Metadata),
    ("image_config", What::Modalities),
    ("top_a", What::Sampling),
    // vLLM, llama.cpp, Together, Mistral and others.
    ("min_p", What::Sampling),
    ("typical_p", What::Sampling),
    ("repetition_penalty", What::Sampling),
    ("length_penalty", What::Sampling),
    ("mirostat", What::Sampling),
    ("best_of", What::Candidates),
    ("use_beam_search", What::Sampling),
    ("min_tokens", What::OutputLimit),
    ("ignore_eos", What::StopSequences),
    ("stop_token_ids", What::StopSequences),
    ("include_stop_str_in_output", What::StopSequences),
    ("guided_json", What::OutputFormat),
    ("guided_regex", What::OutputFormat),
    ("guided_choice", What::OutputFormat),
    ("guided_grammar", What::OutputFormat),
    ("structured_outputs", What::OutputFormat),
    ("grammar", What::OutputFormat),
    ("chat_template_kwargs", What::Reasoning),
    ("reasoning_format", What::Reasoning),
    ("include_reasoning", What::Reasoning),
    ("prompt_mode", What::Reasoning),
    ("safe_prompt", What::Safety),
    ("safety_model", What::Safety),
    ("guardrails", What::Safety),
    ("search_parameters", What::ProviderTool),
    ("search_settings", What::ProviderTool),
    ("compound_custom", What::ProviderTool),
    ("documents", What::Document),
    ("citation_options", What::Citation),
    ("priority", What::ServiceTier),
    ("keep_alive", What::UnknownField),
    ("cache_prompt", What::CacheControl),
    ("extra_body", What::UnknownField),
];

/// Reads a request.
///
/// # Errors
/// When the body is none of this dialect's.
pub fn decode_request<'a>(body: &'a [u8], _: &Call<'a>, reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    let mut messages = None;
    let mut request = reader.object(parse(body)?, &Path::Root, |fields, reader| {
        messages = Some(fields.need("messages")?);
        read(fields, reader)
    })?;
    let path = Path::Root;
    if let Some(messages) = messages {
        request.turns =
            read_message::read(bounded(messages, &path.field("messages"))?, &path.field("messages"), reader)?;
    }
    Ok(request)
}

fn bounded<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Node<'a>, Invalid> {
    match &node.value {
        Value::Array(items) if items.len() > MAX_ITEMS => Err(Invalid::new(
            Reason::TooLarge,
            path.to_string(),
            format!("There may be at most {MAX_ITEMS}."),
        )),
        _ => Ok(node),
    }
}

fn read<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    let mut request = Request { model: fields.need_text("model")?, ..Request::default() };
    read_tools::read(fields, reader, &mut request)?;
    let longer = fields.whole("max_tokens")?;
    request.max_output_tokens = fields.whole("max_completion_tokens")?.or(longer);
    request.sampling = sampling(fields)?;
    request.reasoning = reasoning(fields, reader)?;
    request.candidates = fields.whole("n")?;
    request.stop = stop(fields)?;
    request.modalities = fields.texts("modalities")?.unwrap_or_default();
    for modality in &mut request.modalities {
        modality.to_mut().make_ascii_lowercase();
    }
    request.verbosity = fields.text("verbosity")?;
    request.stream = fields.boolean("stream")?.unwrap_or(false);
    stream_options(fields, reader, &mut request)?;
    request.metadata = metadata(fields)?;
    user(fields, &mut request)?;
    request.service_tier = fields.text("service_tier")?;
    request.store = fields.boolean("store")?;
    request.prompt_cache_key = fields.text("prompt_cache_key")?;
    request.cache = fields.raw("cache_control").map(|raw| CacheControl { raw: Cow::Borrowed(raw) });
    request.native.extend(natives(fields, KNOWN));
    // Behind the others, since an unknown format is kept among them.
    format(fields, reader, &mut request)?;
    request.native.extend(unknown(fields));
    Ok(request)
}

fn sampling<'a>(fields: &mut Fields<'a, '_>) -> Result<Sampling<'a>, Invalid> {
    let alternatives = fields.whole("top_logprobs")?;
    // Together counts the alternatives here.
    let asked = match fields.take("logprobs") {
        Some(Node { value: Value::Bool(asked), .. }) => Some((asked, None)),
        Some(node) => {
            let path = fields.path().field("logprobs");
            let count = node.into_number(&path)?.as_u64();
            Some((true, Some(count.ok_or_else(|| path.refused("This must be true or false, or a count."))?)))
        }
        None => None,
    };
    let log_probabilities = match (asked, alternatives) {
        (Some((false, _)), _) | (None, None) => None,
        (Some((true, count)), alternatives) => {
            Some(LogProbabilities { alternatives: alternatives.or(count) })
        }
        (None, alternatives) => Some(LogProbabilities { alternatives }),
    };
    let seed = fields.number("seed")?;
    Ok(Sampling {
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.number("top_k")?,
        presence_penalty: fields.number("presence_penalty")?,
        frequency_penalty: fields.number("frequency_penalty")?,
        seed: seed.or(fields.number("random_seed")?),
        logit_bias: fields.raw("logit_bias").map(Cow::Borrowed),
        log_probabilities,
    })
}

/// How to think: `reasoning_effort`; OpenRouter's `reasoning`; `thinking` as DeepSeek and Anthropic write it.
fn reasoning<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Option<Reasoning<'a>>, Invalid> {
    let mut found = Reasoning { effort: fields.text("reasoning_effort")?, ..Reasoning::default() };
    if let Some(node) = fields.take("reasoning") {
        reader.object(node, &fields.path().field("reasoning"), |fields, _| {
            found.effort = fields.text("effort")?.or(found.effort.take());
            found.budget = fields.whole("max_tokens")?;
            found.enabled = fields.boolean("enabled")?;
            found.summary = fields.text("summary")?;
            if let Some(hides) = fields.boolean("exclude")? {
                found.summary = Some(Cow::Borrowed(if hides { "omitted" } else { "auto" }));
            }
            Ok(())
        })?;
    }
    if let Some(node) = fields.take("thinking") {
        let path = fields.path().field("thinking");
        reader.object(node, &path, |fields, _| {
            found.enabled = match &*fields.need_text("type")? {
                "enabled" | "adaptive" | "auto" => Some(true),
                "disabled" => Some(false),
                _ => return Err(path.field("type").refused("This must be enabled, disabled or adaptive.")),
            };
            found.budget = fields.whole("budget_tokens")?.or(found.budget);
            Ok(())
        })?;
    }
    if let Some(enabled) = fields.boolean("enable_thinking")? {
        found.enabled = Some(enabled);
    }
    found.budget = fields.whole("thinking_budget")?.or(found.budget);
    if let Some(effort) = &mut found.effort {
        effort.to_mut().make_ascii_lowercase();
    }
    Ok((found != Reasoning::default()).then_some(found))
}

fn stop<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Text<'a>>, Invalid> {
    match fields.take("stop") {
        None => Ok(Vec::new()),
        Some(Node { value: Value::Text(text), .. }) => Ok(vec![text]),
        Some(Node { value: Value::Array(items), .. }) if items.len() <= MAX_ITEMS => {
            let path = fields.path().field("stop");
            let items = items.into_iter().enumerate();
            items.map(|(index, item)| item.into_text(&path.item(index))).collect()
        }
        Some(_) => {
            Err(fields.path().field("stop").refused("This must be a string or a short array of strings."))
        }
    }
}

fn stream_options<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let Some(options) = fields.take("stream_options") else { return Ok(()) };
    reader.object(options, &fields.path().field("stream_options"), |fields, _| {
        request.stream_usage = fields.boolean("include_usage")?;
        // Padding against those who listen to lengths. It is OpenAI's to add, and no loss where there is none to leave out.
        if let Some(padded) = fields.boolean("include_obfuscation")? {
            let raw = if padded { "true" } else { "false" };
            request.echo.push((Cow::Borrowed("include_obfuscation"), Cow::Borrowed(raw)));
        }
        Ok(())
    })
}

fn metadata<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<(Text<'a>, Text<'a>)>, Invalid> {
    let path = fields.path().field("metadata");
    match fields.take("metadata") {
        None => Ok(Vec::new()),
        Some(Node { value: Value::Object(members), .. }) => {
            let read = |(name, node): (Text<'a>, Node<'a>)| {
                let value = node.into_text(&path.field(&name))?;
                Ok((name, value))
            };
            members.into_iter().map(read).collect()
        }
        Some(_) => Err(path.refused("This must be an object of strings.")),
    }
}

/// Who asks. `safety_identifier` took the place of `user`; some clients send both.
fn user<'a>(fields: &mut Fields<'a, '_>, request: &mut Request<'a>) -> Result<(), Invalid> {
    let user = fields.text("user")?;
    let safety = fields.take("safety_identifier");
    match (user, safety) {
        (Some(user), Some(safety)) => {
            request.user = Some(user);
            request.native.push(Native::new(SELF, What::Metadata, "safety_identifier", safety.raw));
        }
        (Some(user), None) => request.user = Some(user),
        (None, Some(safety)) => {
            request.echo.push((Cow::Borrowed("safety_identifier"), Cow::Borrowed(safety.raw)));
            request.user = Some(safety.into_text(&fields.path().field("safety_identifier"))?);
        }
        (None, None) => {}
    }
    Ok(())
}

fn format<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("response_format") else { return Ok(()) };
    let path = fields.path().field("response_format");
    request.format = match node.get("type").and_then(Node::as_text) {
        Some("text") => {
            reader.object(node, &path, |fields, _| fields.need_text("type").map(|_| Some(Format::Text)))?
        }
        Some("json_object") => reader.object(node, &path, |fields, _| {
            fields.need_text("type")?;
            // Together and Fireworks take the schema here.
            let schema = fields.raw("schema").map(Cow::Borrowed);
            Ok(Some(match schema {
                Some(schema) => Format::Schema { name: None, description: None, schema, strict: None },
                None => Format::Json,
            }))
        })?,
        Some("json_schema") => reader.object(node, &path, |fields, reader| {
            fields.need_text("type")?;
            reader.object(fields.need("json_schema")?, &path.field("json_schema"), |fields, _| {
                Ok(Some(Format::Schema {
                    name: fields.text("name")?,
                    description: fields.text("description")?,
                    schema: Cow::Borrowed(fields.raw("schema").unwrap_or("{}")),
                    strict: fields.boolean("strict")?,
                }))
            })
        })?,
        Some(_) => {
            request.native.push(Native::new(SELF, What::OutputFormat, "response_format", node.raw));
            None
        }
        None if node.get("type").is_some() => {
            return Err(path.field("type").refused("This must be a string."));
        }
        None => return Err(path.misses("type")),
    };
    Ok(())
}
