//! Tools and which of them may be called, both ways.
//!
//! A namespace groups tools, and a call names both. No other dialect has that: the tools of a namespace become plain
//! ones under [`flat`] names, and an answer's calls get their namespace back from the tools that the client declared.

use std::borrow::Cow;
use std::collections::HashMap;

use super::DIALECT;
use crate::invalid::Invalid;
use crate::json::{Array, Fields, Node, Object, Path, Reader, Value, object, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Native, Raw, Text, Tool, ToolChoice, ToolKind, own};
use crate::tool_ids::{Shape, fit, fit_name, restore};

/// The field of a flat tool that says which namespace it comes from, and under which name.
pub(super) const NAMESPACE: &str = "namespace";

/// How long the name of a function may be, at OpenAI and elsewhere.
const MAX_NAME: usize = 64;

/// The name of a tool of a namespace where there are none. Namespaces of MCP servers end in the separator already. One
/// that is too long is cut and told from others by a hash, so that the same tool always has the same name.
pub(super) fn flat(namespace: &str, name: &str) -> String {
    let separator = if namespace.ends_with("__") { "" } else { "__" };
    let whole = format!("{namespace}{separator}{name}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    // FNV-1a: nothing depends on it but that names differ.
    let hash =
        whole.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let cut = (0..=MAX_NAME - 9).rev().find(|&at| whole.is_char_boundary(at)).unwrap_or(0);
    format!("{}_{hash:08x}", &whole[..cut])
}

/// A name as this provider takes it. Other dialects allow dots and colons; answers are read with [`restored`].
pub(super) fn fitted(name: &str) -> Cow<'_, str> {
    fit_name(name, MAX_NAME).unwrap_or(Cow::Borrowed(name))
}

/// The name that was made to fit.
pub(super) fn restored(name: Text<'_>) -> Text<'_> {
    restore(name)
}

/// The identity of a call as this provider takes it.
pub(super) fn fitted_id(id: &str) -> Cow<'_, str> {
    fit(id, Shape::UpTo(MAX_NAME))
}

/// A tool as the client declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// Its namespace, and its name in it.
    pub(super) namespace: Option<(String, String)>,
    /// Whether it takes text.
    pub(super) is_custom: bool,
}

/// The tools that the client declared, by the names that they have in the neutral form.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, Declared>);

impl Names {
    pub(super) fn of(tools: &[Tool<'_>]) -> Self {
        let mut names = HashMap::new();
        for tool in tools {
            let (name, is_custom) = match &tool.kind {
                ToolKind::Function { name, .. } => (name, false),
                ToolKind::Custom { name, .. } => (name, true),
                ToolKind::Provider { .. } => continue,
            };
            let namespace = tool.native.iter().find_map(|native| spaced(native, name));
            names.entry(name.to_string()).or_insert(Declared { namespace, is_custom });
        }
        Self(names)
    }

    /// Of the tools in what the client is repeated.
    pub(super) fn of_echo(raw: &str) -> Self {
        let mut reader = Reader::default();
        let tools = parse(raw.as_bytes()).and_then(|node| read_tools(node, &Path::Root, &mut reader));
        tools.map_or_else(|_| Self::default(), |tools| Self::of(&tools))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Declared> {
        self.0.get(name)
    }
}

/// What a native says of a namespace, if it does.
pub(super) fn spaced(native: &Native<'_>, name: &str) -> Option<(String, String)> {
    if native.dialect != DIALECT || native.name != NAMESPACE {
        return None;
    }
    let node = parse(native.raw.as_bytes()).ok()?;
    let namespace = node.get("name")?.as_text()?;
    let plain = node.get("tool").and_then(Node::as_text).unwrap_or(name);
    Some((namespace.to_owned(), plain.to_owned()))
}

/// The native that says which namespace a tool or a call belongs to.
pub(super) fn namespace<'a>(name: &str, tool: &str, description: Option<&str>) -> Native<'a> {
    let mut raw = Vec::new();
    object(&mut raw, |object| {
        object.text("name", name);
        object.text("tool", tool);
        object.some_text("description", description);
    });
    Native::new(DIALECT, What::CustomTool, NAMESPACE, String::from_utf8(raw).unwrap_or_default())
}

pub(super) fn read_tools<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Vec<Tool<'a>>, Invalid> {
    let tools = reader.array(node, path, |node, path, reader| read_tool(node, path, reader))?;
    Ok(tools.into_iter().flatten().collect())
}

fn read_tool<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Vec<Tool<'a>>, Invalid> {
    let kind = match &node.value {
        Value::Object(_) => match node.get("type") {
            None => return Err(path.misses("type")),
            Some(kind) => kind.clone().into_text(&path.field("type"))?,
        },
        // Says that it is no object.
        _ => return reader.object(node, path, |_, _| Ok(Vec::new())),
    };
    match &*kind {
        "function" | "custom" => {
            reader.object(node, path, |fields, _| read_callable(fields)).map(|tool| vec![tool])
        }
        "namespace" if holds_tools(&node) => reader.object(node, path, read_namespace),
        // Run by the provider, or by a client that knows OpenAI's tools: in their own words.
        _ => Ok(vec![Tool { kind: provider(kind, node.raw), cache: None, native: Vec::new() }]),
    }
}

fn holds_tools(node: &Node<'_>) -> bool {
    node.get("tools").is_none_or(|tools| !matches!(&tools.value, Value::Array(tools) if tools.is_empty()))
}

fn provider<'a>(kind: Text<'a>, raw: &'a str) -> ToolKind<'a> {
    ToolKind::Provider { dialect: DIALECT, kind, raw: Cow::Borrowed(raw) }
}

/// A function or a custom tool.
fn read_callable<'a>(fields: &mut Fields<'a, '_>) -> Result<Tool<'a>, Invalid> {
    let is_custom = fields.need_text("type")? == "custom";
    let name = fields.need_text("name")?;
    if name.is_empty() {
        return Err(fields.path().field("name").refused("A tool must have a name."));
    }
    let description = fields.text("description")?;
    let kind = if is_custom {
        ToolKind::Custom { name, description, format: fields.raw("format").map(Cow::Borrowed) }
    } else {
        let schema = fields.raw("parameters").map(Cow::Borrowed);
        ToolKind::Function { name, description, schema, strict: fields.boolean("strict")? }
    };
    let mut native = Vec::new();
    for name in ["defer_loading", "allowed_callers", "output_schema", "async"] {
        // What is not so by default says nothing.
        if let Some(raw) = fields.raw(name).filter(|raw| *raw != "false") {
            native.push(Native::new(DIALECT, What::ToolDetail, name, raw));
        }
    }
    Ok(Tool { kind, cache: None, native })
}

fn read_namespace<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Vec<Tool<'a>>, Invalid> {
    fields.take("type");
    let space = fields.need_text("name")?;
    let description = fields.text("description")?;
    let path = *fields.path();
    let tools = fields.need("tools")?;
    reader.array(tools, &path.field("tools"), |node, path, reader| {
        let mut tool = reader.object(node, path, |fields, _| match fields.peek_text("type") {
            Some("function" | "custom") => read_callable(fields),
            Some(_) => Err(path.field("type").refused("A namespace holds functions and custom tools only.")),
            None => Err(path.misses("type")),
        })?;
        if let ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } = &mut tool.kind {
            let flat = flat(&space, name);
            tool.native.insert(0, namespace(&space, name, description.as_deref()));
            *name = Cow::Owned(flat);
        }
        Ok(tool)
    })
}

/// Reads which tools may be called; what no other dialect can say comes as a native.
pub(super) fn read_choice<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Result<ToolChoice<'a>, Native<'a>>, Invalid> {
    let raw = node.raw;
    if let Value::Text(word) = &node.value {
        return match &**word {
            "auto" => Ok(Ok(ToolChoice::Auto)),
            "none" => Ok(Ok(ToolChoice::None)),
            "required" => Ok(Ok(ToolChoice::Required)),
            _ => Err(path.refused("This must be `none`, `auto`, `required` or an object.")),
        };
    }
    let kind = node.get("type").and_then(Node::as_text).map(str::to_owned);
    match kind.as_deref() {
        Some("function" | "custom") => reader.object(node, path, |fields, _| {
            fields.take("type");
            Ok(Ok(ToolChoice::Named(named(fields)?)))
        }),
        Some("allowed_tools") => reader.object(node, path, |fields, reader| {
            fields.take("type");
            let required = match &*fields.need_text("mode")? {
                "auto" => false,
                "required" => true,
                _ => return Err(path.field("mode").refused("This must be `auto` or `required`.")),
            };
            let tools = fields.need("tools")?;
            let mut is_plain = true;
            let names = reader.array(tools, &path.field("tools"), |node, path, reader| {
                let kind = node.get("type").and_then(Node::as_text);
                if !matches!(kind, Some("function" | "custom")) {
                    is_plain = false;
                    return Ok(Cow::Borrowed(""));
                }
                reader.object(node, path, |fields, _| {
                    fields.take("type");
                    named(fields)
                })
            })?;
            Ok(if is_plain { Ok(ToolChoice::Allowed { required, names }) } else { Err(choice(raw)) })
        }),
        // One of the provider's tools.
        Some(_) => Ok(Err(choice(raw))),
        None => reader.object(node, path, |_, _| Err(path.misses("type"))),
    }
}

fn choice(raw: &str) -> Native<'_> {
    Native::new(DIALECT, What::ToolChoice, "tool_choice", raw)
}

fn named<'a>(fields: &mut Fields<'a, '_>) -> Result<Text<'a>, Invalid> {
    let name = fields.need_text("name")?;
    Ok(match fields.text("namespace")? {
        Some(space) => Cow::Owned(flat(&space, &name)),
        None => name,
    })
}

/// Writes tools. `is_own` says that the client speaks this dialect, too: then what it left out has this dialect's
/// meaning. `strict` is one such field: it is on here and off elsewhere.
pub(super) fn write_tools(array: &mut Array<'_>, tools: &[Tool<'_>], is_own: bool, losses: &mut Losses) {
    let mut at = 0;
    while let Some(tool) = tools.get(at) {
        let Some(space) = space_of(tool) else {
            write_tool(array, tool, at, is_own, losses);
            at += 1;
            continue;
        };
        let same = |tool: &&Tool<'_>| space_of(tool).is_some_and(|other| other == space);
        let count = tools[at..].iter().take_while(same).count();
        array.object(|object| {
            object.text("type", "namespace");
            object.text("name", &space.0);
            object.text("description", space.1.as_deref().unwrap_or_default());
            object.array("tools", |array| {
                for (offset, tool) in tools[at..at + count].iter().enumerate() {
                    write_tool(array, tool, at + offset, is_own, losses);
                }
            });
        });
        at += count;
    }
}

/// Name and description of the namespace that a tool comes from.
fn space_of(tool: &Tool<'_>) -> Option<(String, Option<String>)> {
    let native = tool.native.iter().find(|native| native.dialect == DIALECT && native.name == NAMESPACE)?;
    let node = parse(native.raw.as_bytes()).ok()?;
    let text = |name| node.get(name).and_then(Node::as_text).map(str::to_owned);
    Some((text("name")?, text("description")))
}

fn write_tool(array: &mut Array<'_>, tool: &Tool<'_>, at: usize, is_own: bool, losses: &mut Losses) {
    let Tool { kind, cache, native } = tool;
    let place = format!("tools[{at}]");
    if cache.is_some() {
        losses.add(What::CacheControl, format!("{place}.cache_control"));
    }
    let plain = |name: &Text<'_>| {
        native
            .iter()
            .find_map(|native| spaced(native, name))
            .map_or_else(|| fitted(name).into_owned(), |(_, plain)| plain)
    };
    match kind {
        ToolKind::Function { name, description, schema, strict } => array.object(|object| {
            object.text("type", "function");
            object.text("name", &plain(name));
            object.some_text("description", description.as_ref());
            match schema {
                Some(schema) => object.raw("parameters", schema),
                None if is_own => object.null("parameters"),
                None => object.raw("parameters", r#"{"type":"object","properties":{}}"#),
            }
            match strict {
                Some(strict) => object.boolean("strict", *strict),
                None if is_own => {}
                None => object.boolean("strict", false),
            }
            write_natives(object, native, &place, losses);
        }),
        ToolKind::Custom { name, description, format } => array.object(|object| {
            object.text("type", "custom");
            object.text("name", &plain(name));
            object.some_text("description", description.as_ref());
            if let Some(format) = format {
                object.raw("format", &flat_format(format));
            }
            write_natives(object, native, &place, losses);
        }),
        ToolKind::Provider { dialect, kind: _, raw } if *dialect == DIALECT => array.raw(raw),
        ToolKind::Provider { dialect: _, kind: _, raw: _ } => losses.add(What::ProviderTool, place),
    }
}

fn write_natives(object: &mut Object<'_>, native: &[Native<'_>], place: &str, losses: &mut Losses) {
    for native in own(native, DIALECT, place, losses).filter(|native| native.name != NAMESPACE) {
        object.raw(&native.name, &native.raw);
    }
}

/// The grammar of a custom tool. Chat Completions has it in an object of its own.
fn flat_format<'f>(format: &'f Raw<'_>) -> Cow<'f, str> {
    let node = parse(format.as_bytes()).ok();
    let inner = node.as_ref().and_then(|node| node.get("grammar"));
    let Some((syntax, definition)) =
        inner.and_then(|inner| Some((inner.get("syntax")?.as_text()?, inner.get("definition")?.as_text()?)))
    else {
        return Cow::Borrowed(format);
    };
    let mut out = Vec::new();
    object(&mut out, |object| {
        object.text("type", "grammar");
        object.text("syntax", syntax);
        object.text("definition", definition);
    });
    Cow::Owned(String::from_utf8(out).unwrap_or_default())
}

pub(super) fn write_choice(object: &mut Object<'_>, choice: &ToolChoice<'_>, names: &Names) {
    match choice {
        ToolChoice::Auto => object.text("tool_choice", "auto"),
        ToolChoice::None => object.text("tool_choice", "none"),
        ToolChoice::Required => object.text("tool_choice", "required"),
        ToolChoice::Named(name) => object.object("tool_choice", |object| write_named(object, name, names)),
        ToolChoice::Allowed { required, names: allowed } => object.object("tool_choice", |object| {
            object.text("type", "allowed_tools");
            object.text("mode", if *required { "required" } else { "auto" });
            object.array("tools", |array| {
                for name in allowed {
                    array.object(|object| write_named(object, name, names));
                }
            });
        }),
    }
}

fn write_named(object: &mut Object<'_>, name: &str, names: &Names) {
    let declared = names.get(name);
    let is_custom = declared.is_some_and(|declared| declared.is_custom);
    object.text("type", if is_custom { "custom" } else { "function" });
    match declared.and_then(|declared| declared.namespace.as_ref()) {
        Some((space, plain)) => {
            object.text("namespace", space);
            object.text("name", plain);
        }
        None => object.text("name", &fitted(name)),
    }
}
