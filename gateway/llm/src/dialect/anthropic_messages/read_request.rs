//! Reads a client's request.

use std::borrow::Cow;
use std::collections::HashSet;

use super::read_content::{read_cache, read_content};
use super::{DIALECT, Side};
use crate::dialect::Call;
use crate::invalid::Invalid;
use crate::json::{self, Fields, Node, Path, Reader};
use crate::loss::What;
use crate::neutral::{
    Format, Native, PartKind, Reasoning, Request, Role, Sampling, Text, Tool, ToolChoice, ToolKind, Turn,
};

/// Fields of a request that only this dialect knows. Some are still in beta.
const OWN_FIELDS: &[(&str, What)] = &[
    ("anthropic_beta", What::UnknownField),
    ("anthropic_version", What::UnknownField),
    ("betas", What::UnknownField),
    ("billing_policy", What::ServiceTier),
    ("compaction", What::Stored),
    ("container", What::ProviderTool),
    ("context_management", What::Stored),
    ("diagnostics", What::UsageDetail),
    ("fallback_credit_token", What::ServiceTier),
    ("fallbacks", What::ServiceTier),
    ("inference_geo", What::ServiceTier),
    ("mcp_servers", What::ProviderTool),
    ("speed", What::ServiceTier),
    ("thread", What::Stored),
    ("user_profile_id", What::Metadata),
    ("workspace_id", What::Metadata),
];

/// Fields of a tool of the client's that only this dialect knows.
const OWN_TOOL_FIELDS: &[&str] =
    &["allowed_callers", "defer_loading", "eager_input_streaming", "input_examples"];

/// Reads a client's request.
///
/// # Errors
/// When the body is none, with the place.
pub fn decode_request<'a>(
    body: &'a [u8],
    _call: &Call<'a>,
    reader: &mut Reader,
) -> Result<Request<'a>, Invalid> {
    let request = decode_counting(body, reader)?;
    if request.max_output_tokens.is_none() {
        return Err(Path::Root.misses("max_tokens"));
    }
    Ok(request)
}

/// Reads a request whose tokens are to be counted: the same without a bound on the answer.
pub(crate) fn decode_counting<'a>(body: &'a [u8], reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    reader.object(json::parse(body)?, &Path::Root, read_fields)
}

fn read_fields<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    let (tool_choice, parallel_tool_calls) = read_tool_choice(fields, reader)?;
    let mut request = Request {
        model: fields.need_text("model")?,
        turns: read_turns(fields, reader)?,
        tools: read_tools(fields, reader)?,
        tool_choice,
        parallel_tool_calls,
        max_output_tokens: fields.whole("max_tokens")?,
        sampling: Sampling {
            temperature: fields.number("temperature")?,
            top_p: fields.number("top_p")?,
            top_k: fields.number("top_k")?,
            ..Sampling::default()
        },
        stop: fields.texts("stop_sequences")?.unwrap_or_default(),
        stream: fields.boolean("stream")?.unwrap_or(false),
        stream_usage: Some(true),
        // `default` is what others call it.
        service_tier: fields
            .text("service_tier")?
            .map(|tier| if tier == "standard_only" { Cow::Borrowed("default") } else { tier }),
        cache: read_cache(fields),
        ..Request::default()
    };
    read_metadata(fields, reader, &mut request)?;
    read_thinking(fields, reader, &mut request)?;
    read_output_config(fields, reader, &mut request)?;
    for (name, what) in OWN_FIELDS {
        if let Some(raw) = fields.raw(name) {
            request.native.push(Native::new(DIALECT, *what, *name, raw));
        }
    }
    Ok(request)
}

fn read_turns<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Vec<Turn<'a>>, Invalid> {
    let mut turns = Vec::new();
    if let Some(system) = fields.take("system") {
        let parts = read_content(system, &fields.path().field("system"), Side::Client, reader)?;
        turns.push(Turn::new(Role::System, parts));
    }
    let path = fields.path().field("messages");
    let messages = reader.array(fields.need("messages")?, &path, read_turn)?;
    // The calls of a thread may be at the provider.
    if !fields.has("thread") {
        check_results(&messages, &path)?;
    }
    turns.extend(messages);
    Ok(turns)
}

fn read_turn<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Turn<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let role = fields.need_text("role")?;
        let role = match &*role {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            unknown => {
                let message = format!("The role must be user, assistant or system, and is {unknown:?}.");
                return Err(path.field("role").refused(message));
            }
        };
        let content = fields.need("content")?;
        let parts = read_content(content, &path.field("content"), Side::Client, reader)?;
        let mut turn = Turn::new(role, parts);
        if role == Role::System {
            for (name, what) in [("clear_at", What::InstructionPlace), ("output_config", What::OutputFormat)]
            {
                if let Some(raw) = fields.raw(name) {
                    turn.native.push(Native::new(DIALECT, what, name, raw));
                }
            }
        }
        Ok(turn)
    })
}

/// Each result must have a call before it: no provider takes one that has none.
fn check_results(messages: &[Turn<'_>], path: &Path<'_>) -> Result<(), Invalid> {
    let mut calls: HashSet<&str> = HashSet::new();
    for (at, turn) in messages.iter().enumerate() {
        for (index, part) in turn.parts.iter().enumerate() {
            match &part.kind {
                PartKind::ToolCall { id, .. } => _ = calls.insert(id),
                PartKind::ToolResult { id, .. } if !calls.contains(&**id) => {
                    let message = path.item(at);
                    let content = message.field("content");
                    let block = content.item(index);
                    return Err(block.field("tool_use_id").refused("No tool_use before this has this id."));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn read_tools<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Vec<Tool<'a>>, Invalid> {
    let Some(node) = fields.take("tools") else { return Ok(Vec::new()) };
    reader.array(node, &fields.path().field("tools"), |node, path, reader| {
        let raw = node.raw;
        reader.object(node, path, |fields, _| match fields.text("type")? {
            Some(kind) if kind != "custom" => {
                let cache = read_cache(fields);
                fields.take_rest();
                let kind = ToolKind::Provider { dialect: DIALECT, kind, raw: Cow::Borrowed(raw) };
                Ok(Tool { kind, cache, native: Vec::new() })
            }
            _ => read_function(fields),
        })
    })
}

fn read_function<'a>(fields: &mut Fields<'a, '_>) -> Result<Tool<'a>, Invalid> {
    let path = fields.path().field("input_schema");
    let schema = fields.need("input_schema")?;
    if !matches!(schema.value, json::Value::Object(_)) {
        let message = format!("This must be an object, and is {}.", schema.value.kind());
        return Err(Invalid::new(crate::invalid::Reason::Type, path.to_string(), message));
    }
    let kind = ToolKind::Function {
        name: crate::tool_ids::restore(fields.need_text("name")?),
        description: fields.text("description")?,
        schema: Some(Cow::Borrowed(schema.raw)),
        strict: fields.boolean("strict")?,
    };
    let mut tool = Tool { kind, cache: read_cache(fields), native: Vec::new() };
    for name in OWN_TOOL_FIELDS {
        if let Some(raw) = fields.raw(name) {
            tool.native.push(Native::new(DIALECT, What::ToolDetail, *name, raw));
        }
    }
    Ok(tool)
}

/// Which tools may be called, and whether several at once.
fn read_tool_choice<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
) -> Result<(Option<ToolChoice<'a>>, Option<bool>), Invalid> {
    let path = fields.path().field("tool_choice");
    let Some(node) = fields.take("tool_choice") else { return Ok((None, None)) };
    reader.object(node, &path, |fields, _| {
        let kind = fields.need_text("type")?;
        let choice = match &*kind {
            "auto" => ToolChoice::Auto,
            "any" => ToolChoice::Required,
            "none" => ToolChoice::None,
            "tool" => ToolChoice::Named(crate::tool_ids::restore(fields.need_text("name")?)),
            unknown => {
                let message = format!("This must be auto, any, tool or none, and is {unknown:?}.");
                return Err(path.field("type").refused(message));
            }
        };
        let is_single = fields.boolean("disable_parallel_tool_use")?;
        Ok((Some(choice), is_single.map(|is_single| !is_single)))
    })
}

fn read_metadata<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("metadata") else { return Ok(()) };
    let path = fields.path().field("metadata");
    request.user = reader.object(node, &path, |fields, _| fields.text("user_id"))?;
    Ok(())
}

fn read_thinking<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("thinking") else { return Ok(()) };
    let raw = node.raw;
    let path = fields.path().field("thinking");
    reader.object(node, &path, |fields, _| {
        let kind = fields.need_text("type")?;
        let mut reasoning = Reasoning { summary: fields.text("display")?, ..Reasoning::default() };
        let mut is_own = fields.take("block_binding").is_some();
        match &*kind {
            "enabled" => {
                let budget = fields.whole("budget_tokens")?.ok_or_else(|| path.misses("budget_tokens"))?;
                reasoning.enabled = Some(true);
                reasoning.budget = Some(budget);
            }
            "adaptive" => reasoning.enabled = Some(true),
            "disabled" => reasoning.enabled = Some(false),
            "between_tools" => {
                reasoning.enabled = Some(false);
                is_own = true;
            }
            unknown => {
                let message = format!("This must be enabled, adaptive or disabled, and is {unknown:?}.");
                return Err(path.field("type").refused(message));
            }
        }
        if reasoning.enabled == Some(true) && reasoning.summary.is_none() {
            // What its clients get unless they say otherwise; elsewhere thoughts are shown only if that is asked for.
            reasoning.summary = Some(Cow::Borrowed("summarized"));
        }
        if is_own {
            request.native.push(Native::new(DIALECT, What::Reasoning, "thinking", raw));
        }
        request.reasoning = Some(reasoning);
        Ok(())
    })
}

fn read_output_config<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    if let Some(node) = fields.take("output_config") {
        let path = fields.path().field("output_config");
        reader.object(node, &path, |fields, reader| {
            if let Some(effort) = fields.text("effort")? {
                request.reasoning.get_or_insert_default().effort = Some(effort);
            }
            if let Some(node) = fields.take("format") {
                request.format = Some(read_format(node, &path.field("format"), reader)?);
            }
            if let Some(raw) = fields.raw("task_budget") {
                let native = Native::new(DIALECT, What::OutputLimit, "output_config.task_budget", raw);
                request.native.push(native);
            }
            Ok(())
        })?;
    }
    // As it was called in beta.
    if let Some(node) = fields.take("output_format") {
        request.format = Some(read_format(node, &fields.path().field("output_format"), reader)?);
    }
    Ok(())
}

fn read_format<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Format<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        let kind: Text<'a> = fields.need_text("type")?;
        if kind != "json_schema" {
            return Err(path.field("type").refused(format!("This must be json_schema, and is {kind:?}.")));
        }
        let schema = fields.need("schema")?.raw;
        Ok(Format::Schema {
            name: None,
            description: None,
            schema: Cow::Borrowed(schema),
            // This dialect knows no other.
            strict: Some(true),
        })
    })
}
