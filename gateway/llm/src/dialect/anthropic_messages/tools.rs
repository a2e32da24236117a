//! Tools as they are written, and which of them may be called.

use std::borrow::Cow;

use super::block::fit_name;
use super::{DIALECT, schema};
use crate::custom;
use crate::invalid::Invalid;
use crate::json::Object;
use crate::loss::{Losses, What};
use crate::neutral::{self, Native, Request, Tool, ToolChoice, ToolKind};

/// A tool that can be written.
#[derive(Debug)]
struct Written<'r> {
    body: Body<'r>,
    cache: Option<&'r str>,
    native: Vec<(&'r str, &'r str)>,
}

#[derive(Debug)]
enum Body<'r> {
    Function {
        name: Cow<'r, str>,
        description: Option<Cow<'r, str>>,
        schema: Cow<'r, str>,
        strict: Option<bool>,
    },
    Raw(&'r str),
}

/// Type and name of a choice.
type Choice<'r> = (&'static str, Option<Cow<'r, str>>);

/// The tools of a request, and which of them may be called.
#[derive(Debug)]
pub(super) struct Tools<'r> {
    tools: Vec<Written<'r>>,
    choice: Option<Choice<'r>>,
    parallel: Option<bool>,
}

impl<'r> Tools<'r> {
    /// The tools of a request.
    ///
    /// # Errors
    /// When the name of one cannot be said.
    pub(super) fn of(request: &'r Request<'_>, losses: &mut Losses) -> Result<Self, Invalid> {
        // There is no list of allowed tools. Those that are not allowed are left out, so that they cannot be called; but
        // that changes the beginning of the prompt, which a cache is for, and is told as a loss.
        let allowed = match &request.tool_choice {
            Some(ToolChoice::Allowed { required: _, names }) => Some(names),
            _ => None,
        };
        let mut tools = Vec::with_capacity(request.tools.len());
        for (index, tool) in request.tools.iter().enumerate() {
            let is_allowed = match (name(tool), allowed) {
                (Some(name), Some(allowed)) => allowed.iter().any(|allowed| allowed == name),
                _ => true,
            };
            let is_unmarked =
                matches!(&tool.kind, ToolKind::Provider { raw, .. } if !raw.contains("\"cache_control\""));
            let written = if is_allowed { written(tool, index, losses)? } else { None };
            if (written.is_none() || is_unmarked) && tool.cache.is_some() {
                losses.add(What::CacheControl, format!("tools[{index}].cache_control"));
            }
            tools.extend(written);
        }
        let choice = if tools.is_empty() { None } else { choice(request)? };
        if allowed.is_some() && !tools.is_empty() {
            losses.add(What::ToolChoice, "tool_choice");
        }
        let is_default = matches!(request.tool_choice, None | Some(ToolChoice::Auto));
        if tools.is_empty() && !is_default {
            losses.add(What::ToolChoice, "tool_choice");
        }
        // There is nothing to be called at once.
        let has_place = !tools.is_empty() && !matches!(choice, Some(("none", _)));
        if request.parallel_tool_calls == Some(false) && !has_place {
            losses.add(What::ParallelToolCalls, "parallel_tool_calls");
        }
        Ok(Self { tools, choice, parallel: request.parallel_tool_calls })
    }

    /// Whether one must be called.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self.choice, Some(("any" | "tool", _)))
    }

    /// How many cache marks they have.
    pub(super) fn marks(&self) -> usize {
        self.tools.iter().filter(|tool| tool.cache.is_some()).count()
    }

    /// Leaves at most so many cache marks, the last ones.
    pub(super) fn limit_marks(&mut self, most: usize, losses: &mut Losses) {
        let over = self.marks().saturating_sub(most);
        let marked = self.tools.iter_mut().filter(|tool| tool.cache.is_some());
        for tool in marked.filter(|tool| !matches!(tool.body, Body::Raw(_))).take(over) {
            tool.cache = None;
            losses.add(What::CacheControl, "tools");
        }
    }

    /// Writes `tools` and `tool_choice`.
    pub(super) fn write(&self, object: &mut Object<'_>) {
        if self.tools.is_empty() {
            return;
        }
        object.array("tools", |array| {
            for tool in &self.tools {
                match &tool.body {
                    Body::Raw(raw) => array.raw(raw),
                    Body::Function { name, description, schema, strict } => array.object(|object| {
                        object.text("name", name);
                        object.some_text("description", description.as_ref());
                        object.raw("input_schema", schema);
                        object.some_boolean("strict", *strict);
                        tool.native.iter().for_each(|(name, raw)| object.raw(name, raw));
                        object.some_raw("cache_control", tool.cache);
                    }),
                }
            }
        });
        let (kind, name) = match (&self.choice, self.parallel) {
            (Some((kind, name)), _) => (*kind, name.as_ref()),
            (None, Some(false)) => ("auto", None),
            (None, _) => return,
        };
        object.object("tool_choice", |object| {
            object.text("type", kind);
            object.some_text("name", name);
            if kind != "none" {
                object.some_boolean("disable_parallel_tool_use", self.parallel.map(|parallel| !parallel));
            }
        });
    }
}

fn name<'t>(tool: &'t Tool<'_>) -> Option<&'t str> {
    match &tool.kind {
        ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } => Some(name),
        ToolKind::Provider { .. } => None,
    }
}

fn choice<'r>(request: &'r Request<'_>) -> Result<Option<Choice<'r>>, Invalid> {
    let Some(choice) = &request.tool_choice else { return Ok(None) };
    Ok(Some(match choice {
        ToolChoice::Auto => ("auto", None),
        ToolChoice::None => ("none", None),
        ToolChoice::Required | ToolChoice::Allowed { required: true, names: _ } => ("any", None),
        ToolChoice::Allowed { required: false, names: _ } => ("auto", None),
        ToolChoice::Named(name) => ("tool", Some(fit_name(name, || "tool_choice.name".to_owned())?)),
    }))
}

fn written<'r>(
    tool: &'r Tool<'_>,
    index: usize,
    losses: &mut Losses,
) -> Result<Option<Written<'r>>, Invalid> {
    let Tool { kind, cache, native } = tool;
    let place = format!("tools[{index}]");
    if let ToolKind::Provider { dialect, .. } = kind {
        // Whatever is not in its own words has no place.
        native.iter().for_each(|native| losses.add(native.what, format!("{place}.{}", native.name)));
        if *dialect != DIALECT {
            losses.add(What::ProviderTool, place);
            return Ok(None);
        }
    }
    let native: &[Native<'_>] = if matches!(kind, ToolKind::Provider { .. }) { &[] } else { native };
    let native = neutral::own(native, DIALECT, &place, losses);
    let native = native.map(|native| (&*native.name, &*native.raw)).collect();
    let body = match kind {
        ToolKind::Function { name, description, schema, strict } => {
            let at = format!("{place}.schema");
            Body::Function {
                name: fit_name(name, || format!("{place}.name"))?,
                description: description.as_deref().map(Cow::Borrowed),
                schema: schema::of_input(schema.as_deref(), *strict == Some(true), &at, losses),
                strict: *strict,
            }
        }
        ToolKind::Custom { name, description, format } => {
            if format.as_ref().is_some_and(|format| !format.contains("\"text\"")) {
                losses.add(What::CustomTool, format!("{place}.format"));
            }
            Body::Function {
                name: fit_name(name, || format!("{place}.name"))?,
                description: custom::description(description.as_deref(), format.as_deref()),
                schema: Cow::Borrowed(custom::SCHEMA),
                strict: None,
            }
        }
        ToolKind::Provider { dialect: _, kind: _, raw } => Body::Raw(raw),
    };
    Ok(Some(Written { body, cache: cache.as_ref().map(|cache| &*cache.raw), native }))
}
