//! Reads tools, and which of them may be called: as they are today, and as functions were before.

use std::borrow::Cow;

use super::words::SELF;
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value};
use crate::neutral::{CacheControl, Request, Text, Tool, ToolChoice, ToolKind};

/// The mark in [`Request::echo`] that the client knows functions only, and no tools.
pub(super) const LEGACY: &str = "function_call";

/// The names in [`Request::echo`] of the client's tools that take text.
pub(super) const CUSTOM: &str = "custom_tools";

/// Reads `tools`, `tool_choice`, `parallel_tool_calls`, `functions` and `function_call`.
pub(super) fn read<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let path = fields.path();
    if let Some(tools) = fields.take("tools") {
        request.tools = reader.array(tools, &path.field("tools"), tool)?;
    }
    if let Some(functions) = fields.take("functions") {
        let functions = reader.array(functions, &path.field("functions"), function)?;
        let tool = |kind| Tool { kind, cache: None, native: Vec::new() };
        request.tools.extend(functions.into_iter().map(|(kind, _)| tool(kind)));
        request.echo.push((Cow::Borrowed(LEGACY), Cow::Borrowed("true")));
    }
    remember_custom(request);
    request.parallel_tool_calls = fields.boolean("parallel_tool_calls")?;
    request.tool_choice = match (fields.take("tool_choice"), fields.take("function_call")) {
        (Some(node), _) => Some(choice(node, &path.field("tool_choice"), reader)?),
        (None, Some(node)) => Some(legacy_choice(node, &path.field("function_call"), reader)?),
        (None, None) => None,
    };
    Ok(())
}

/// A provider that knows no tools of text gets functions instead, and answers with calls of those. What they were is
/// known by the request only.
fn remember_custom(request: &mut Request<'_>) {
    let custom = request.tools.iter().filter_map(|tool| match &tool.kind {
        ToolKind::Custom { name, .. } => Some(crate::json::quoted(name)),
        _ => None,
    });
    let names: Vec<String> = custom.collect();
    if !names.is_empty() {
        let raw = Cow::Owned(format!("[{}]", names.join(",")));
        request.echo.push((Cow::Borrowed(CUSTOM), raw));
    }
}

fn tool<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Tool<'a>, Invalid> {
    let raw = node.raw;
    let mark = |fields: &mut Fields<'a, '_>| {
        fields.raw("cache_control").map(|raw| CacheControl { raw: Cow::Borrowed(raw) })
    };
    let (kind, cache) = match node.get("type").and_then(Node::as_text) {
        Some("function") => reader.object(node, path, |fields, reader| {
            fields.need_text("type")?;
            let cache = mark(fields);
            let (kind, inner) = function(fields.need("function")?, &path.field("function"), reader)?;
            Ok((kind, cache.or(inner)))
        })?,
        Some("custom") => reader.object(node, path, |fields, reader| {
            fields.need_text("type")?;
            let cache = mark(fields);
            let kind = reader.object(fields.need("custom")?, &path.field("custom"), |fields, _| {
                Ok(ToolKind::Custom {
                    name: fields.need_text("name")?,
                    description: fields.text("description")?,
                    format: fields.raw("format").map(Cow::Borrowed),
                })
            })?;
            Ok((kind, cache))
        })?,
        Some(kind) => {
            let kind = Cow::Owned(kind.to_owned());
            (ToolKind::Provider { dialect: SELF, kind, raw: Cow::Borrowed(raw) }, None)
        }
        None => return Err(path.misses("type")),
    };
    Ok(Tool { kind, cache, native: Vec::new() })
}

fn function<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<(ToolKind<'a>, Option<CacheControl<'a>>), Invalid> {
    reader.object(node, path, |fields, _| {
        let name = fields.need_text("name")?;
        if name.is_empty() {
            return Err(path.field("name").refused("A function needs a name."));
        }
        let kind = ToolKind::Function {
            name,
            description: fields.text("description")?,
            schema: fields.raw("parameters").map(Cow::Borrowed),
            strict: fields.boolean("strict")?,
        };
        let cache = fields.raw("cache_control").map(|raw| CacheControl { raw: Cow::Borrowed(raw) });
        Ok((kind, cache))
    })
}

fn choice<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<ToolChoice<'a>, Invalid> {
    if let Value::Text(word) = &node.value {
        return match &**word {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            // `any` is Mistral's word.
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(path.refused("This must be none, auto, required, or an object that names a tool.")),
        };
    }
    let kind = node.get("type").and_then(Node::as_text).map(str::to_owned);
    reader.object(node, path, |fields, reader| {
        fields.need_text("type")?;
        match kind.as_deref() {
            Some(kind @ ("function" | "custom")) => {
                // Some clients leave the inner object out.
                if let Some(name) = fields.text("name")? {
                    return Ok(ToolChoice::Named(name));
                }
                named(fields.need(kind)?, &path.field(kind), reader).map(ToolChoice::Named)
            }
            Some("allowed_tools") => {
                let inner = path.field("allowed_tools");
                reader.object(fields.need("allowed_tools")?, &inner, |fields, reader| {
                    let required = match &*fields.need_text("mode")? {
                        "auto" => false,
                        "required" => true,
                        _ => return Err(inner.field("mode").refused("This must be auto or required.")),
                    };
                    let names = reader.array(fields.need("tools")?, &inner.field("tools"), allowed)?;
                    Ok(ToolChoice::Allowed { required, names })
                })
            }
            _ => Err(path.field("type").refused("This must be function, custom or allowed_tools.")),
        }
    })
}

fn allowed<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Text<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let kind = fields.need_text("type")?;
        if !matches!(&*kind, "function" | "custom") {
            return Err(path.field("type").refused("This must be function or custom."));
        }
        named(fields.need(&kind)?, &path.field(&kind), reader)
    })
}

fn named<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Text<'a>, Invalid> {
    reader.object(node, path, |fields, _| fields.need_text("name"))
}

fn legacy_choice<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<ToolChoice<'a>, Invalid> {
    match &node.value {
        Value::Text(word) if word == "none" => Ok(ToolChoice::None),
        Value::Text(word) if word == "auto" => Ok(ToolChoice::Auto),
        Value::Text(_) => Err(path.refused("This must be none, auto, or an object with a name.")),
        _ => named(node, path, reader).map(ToolChoice::Named),
    }
}
