//! Writes tools, and which of them may be called.

use std::borrow::Cow;

use super::words::SELF;
use crate::custom;
use crate::json::{Array, Object, object, parse};
use crate::loss::{Losses, What};
use crate::neutral::{Tool, ToolChoice, ToolKind, own};
use crate::target::Quirks;

/// Writes `tools` and `tool_choice`.
pub(super) fn write(
    tools: &[Tool<'_>],
    choice: Option<&ToolChoice<'_>>,
    quirks: &Quirks,
    object: &mut Object<'_>,
    losses: &mut Losses,
    refuses: impl Fn(&str) -> Option<What>,
) {
    let sendable = |tool: &Tool<'_>| match &tool.kind {
        ToolKind::Function { .. } => true,
        ToolKind::Custom { .. } => true,
        ToolKind::Provider { dialect, .. } => *dialect == SELF,
    };
    let any = tools.iter().any(sendable);
    if any {
        object.array("tools", |array| {
            for (index, tool) in tools.iter().enumerate() {
                write_tool(tool, index, quirks, array, losses);
            }
        });
    } else {
        // An empty list is refused. Those of other providers are all there are.
        for (index, tool) in tools.iter().enumerate() {
            let at = format!("tools[{index}]");
            losses.add(What::ProviderTool, &*at);
            if tool.cache.is_some() {
                losses.add(What::CacheControl, format!("{at}.cache"));
            }
            own(&tool.native, SELF, &at, losses).for_each(drop);
        }
    }
    let Some(choice) = choice else { return };
    if let Some(what) = refuses("tool_choice") {
        // What the server does anyway is no loss.
        if *choice != ToolChoice::Auto {
            losses.add(what, "tool_choice");
        }
    } else if any {
        write_choice(choice, tools, quirks, object, losses);
    } else if *choice != ToolChoice::Auto {
        losses.add(What::ToolChoice, "tool_choice");
    }
}

fn write_tool(tool: &Tool<'_>, index: usize, quirks: &Quirks, array: &mut Array<'_>, losses: &mut Losses) {
    let Tool { kind, cache, native } = tool;
    let at = format!("tools[{index}]");
    match kind {
        ToolKind::Function { name, description, schema, strict } => array.object(|object| {
            object.text("type", "function");
            object.object("function", |object| {
                object.text("name", name);
                object.some_text("description", description.as_ref());
                object.some_raw("parameters", schema.as_ref());
                match strict {
                    Some(true) if !quirks.strict => losses.add(What::ToolDetail, format!("{at}.strict")),
                    _ if quirks.strict => object.some_boolean("strict", *strict),
                    _ => {}
                }
            });
            mark(cache.as_ref(), &at, quirks, object, losses);
            for native in own(native, SELF, &at, losses) {
                object.raw(&native.name, &native.raw);
            }
        }),
        ToolKind::Custom { name, description, format } if !quirks.custom_tools => {
            if format.is_some() {
                losses.add(What::CustomTool, format!("{at}.format"));
            }
            array.object(|object| {
                object.text("type", "function");
                object.object("function", |object| {
                    object.text("name", name);
                    let description = custom::description(description.as_deref(), format.as_deref());
                    object.some_text("description", description.as_deref());
                    object.raw("parameters", custom::SCHEMA);
                });
                mark(cache.as_ref(), &at, quirks, object, losses);
                for native in own(native, SELF, &at, losses) {
                    object.raw(&native.name, &native.raw);
                }
            });
        }
        ToolKind::Custom { name, description, format } => array.object(|object| {
            object.text("type", "custom");
            object.object("custom", |object| {
                object.text("name", name);
                object.some_text("description", description.as_ref());
                if let Some(format) = format {
                    object.raw("format", &grammar(format));
                }
            });
            mark(cache.as_ref(), &at, quirks, object, losses);
            for native in own(native, SELF, &at, losses) {
                object.raw(&native.name, &native.raw);
            }
        }),
        ToolKind::Provider { dialect, kind: _, raw } => {
            if *dialect == SELF {
                array.raw(raw);
            } else {
                losses.add(What::ProviderTool, &*at);
            }
            if cache.is_some() {
                losses.add(What::CacheControl, format!("{at}.cache"));
            }
            own(native, SELF, &at, losses).for_each(drop);
        }
    }
}

fn mark(
    cache: Option<&crate::neutral::CacheControl<'_>>,
    at: &str,
    quirks: &Quirks,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    match cache {
        Some(cache) if quirks.cache_marks => object.raw("cache_control", &cache.raw),
        Some(_) => losses.add(What::CacheControl, format!("{at}.cache")),
        None => {}
    }
}

/// A grammar as this dialect writes it: in an object of its own. Responses has its fields beside the type.
fn grammar<'f>(format: &'f str) -> Cow<'f, str> {
    let Ok(node) = parse(format.as_bytes()) else { return Cow::Borrowed(format) };
    let (Some(syntax), Some(definition)) = (node.get("syntax"), node.get("definition")) else {
        return Cow::Borrowed(format);
    };
    let mut out = Vec::with_capacity(format.len() + 16);
    object(&mut out, |object| {
        object.text("type", "grammar");
        object.object("grammar", |object| {
            object.raw("syntax", syntax.raw);
            object.raw("definition", definition.raw);
        });
    });
    String::from_utf8(out).map_or(Cow::Borrowed(format), Cow::Owned)
}

/// Of which type a tool is that is named.
fn kind_of(name: &str, tools: &[Tool<'_>], quirks: &Quirks) -> &'static str {
    let is_custom =
        |tool: &Tool<'_>| matches!(&tool.kind, ToolKind::Custom { name: known, .. } if known == name);
    if quirks.custom_tools && tools.iter().any(is_custom) { "custom" } else { "function" }
}

fn write_named(name: &str, tools: &[Tool<'_>], quirks: &Quirks, object: &mut Object<'_>) {
    let kind = kind_of(name, tools, quirks);
    object.text("type", kind);
    object.object(kind, |object| object.text("name", name));
}

fn write_choice(
    choice: &ToolChoice<'_>,
    tools: &[Tool<'_>],
    quirks: &Quirks,
    object: &mut Object<'_>,
    losses: &mut Losses,
) {
    const NAME: &str = "tool_choice";
    match choice {
        ToolChoice::Auto => object.text(NAME, "auto"),
        ToolChoice::None => object.text(NAME, "none"),
        ToolChoice::Required => object.text(NAME, "required"),
        ToolChoice::Named(name) => object.object(NAME, |object| write_named(name, tools, quirks, object)),
        ToolChoice::Allowed { required, names } if quirks.allowed_tools => object.object(NAME, |object| {
            object.text("type", "allowed_tools");
            object.object("allowed_tools", |object| {
                object.text("mode", if *required { "required" } else { "auto" });
                object.array("tools", |array| {
                    names
                        .iter()
                        .for_each(|name| array.object(|object| write_named(name, tools, quirks, object)));
                });
            });
        }),
        // One that must be called is one that is named. Otherwise the model is not told which it may call, rather than be
        // sent fewer tools: that would change the prompt that caches know.
        ToolChoice::Allowed { required: true, names } if names.len() == 1 => {
            object.object(NAME, |object| write_named(&names[0], tools, quirks, object));
        }
        ToolChoice::Allowed { required, names: _ } => {
            losses.add(What::ToolChoice, NAME);
            object.text(NAME, if *required { "required" } else { "auto" });
        }
    }
}
