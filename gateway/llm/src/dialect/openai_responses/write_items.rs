//! Writes turns as items of a request's input.

use super::DIALECT;
use super::content::{self, Side, is_content, write_content};
use super::tools::{NAMESPACE, Names, fitted, fitted_id, spaced};
use crate::json::{Array, Object};
use crate::loss::{Losses, What};
use crate::neutral::{Native, Part, PartKind, Role, State, Turn, own};

/// Writes the items of a turn. Content that stands together becomes a message; calls, results and thoughts are items of
/// their own.
pub(super) fn write_turn(
    array: &mut Array<'_>,
    turn: &Turn<'_>,
    at: &str,
    names: &Names,
    is_own: bool,
    losses: &mut Losses,
) {
    let Turn { role, name, parts, native } = turn;
    if name.is_some() {
        losses.add(What::SpeakerName, format!("{at}.name"));
    }
    let natives: Vec<&Native<'_>> = own(native, DIALECT, at, losses).collect();
    if parts.is_empty() && matches!(role, Role::Assistant) {
        // Nothing was said; a message of an assistant must say something.
        return;
    }
    let mut index = 0;
    let mut is_first = true;
    while index < parts.len() || (is_first && parts.is_empty()) {
        let start = index;
        let place = |index: usize| format!("{at}.parts[{index}]");
        let is_more = |(offset, part): &(usize, &Part<'_>)| {
            is_content(&part.kind) && (*offset == 0 || !part.state.native.iter().any(of_message))
        };
        let count = parts[start..].iter().enumerate().take_while(is_more).count();
        if count > 0 || parts.is_empty() {
            index += count;
            let said = &parts[start..index];
            array.object(|object| {
                object.text("type", "message");
                object.text("role", word(*role));
                let side = if *role == Role::Assistant { Side::Output } else { Side::Input };
                object.array("content", |array| {
                    for (offset, part) in said.iter().enumerate() {
                        write_content(array, part, side, &place(start + offset), losses);
                    }
                });
                let own = said.first().into_iter().flat_map(|part| &part.state.native);
                let own = own.filter(|native| native.dialect == DIALECT && of_message(native));
                let natives = natives.iter().copied().chain(own);
                natives.for_each(|native| object.raw(&native.name, &native.raw));
            });
        } else if let PartKind::Thinking { id, .. } = &parts[index].kind {
            let mut count = 1;
            while let [part, next, ..] = &parts[index + count - 1..]
                && let PartKind::Thinking { id: other, .. } = &next.kind
                && other == id
                // Some clients keep no name of an item: then its signature ends it.
                && (id.is_some() || part.state.signature.is_none())
            {
                count += 1;
            }
            write_thoughts(array, &parts[index..index + count], &place(index), is_own, losses);
            index += count;
        } else {
            write_single(array, &parts[index], &place(index), names, losses);
            index += 1;
        }
        is_first = false;
    }
}

/// Whether it is said of a message, in its first part.
pub(super) fn of_message(native: &Native<'_>) -> bool {
    matches!(&*native.name, "phase" | "status")
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Developer => "developer",
        // Content beside the results of tools is the user's.
        Role::User | Role::Tool => "user",
        Role::Assistant => "assistant",
    }
}

/// Writes thoughts of one item. Those that this provider neither signed nor has under a name of its own it would not
/// know, and refuse.
fn write_thoughts(array: &mut Array<'_>, parts: &[Part<'_>], at: &str, is_own: bool, losses: &mut Losses) {
    let signature = parts.iter().rev().find_map(|part| part.state.signature.as_ref());
    let encrypted = signature.and_then(|signature| signature.for_provider(DIALECT));
    let id = parts.iter().find_map(|part| match &part.kind {
        PartKind::Thinking { id, .. } => id.as_deref(),
        _ => None,
    });
    if encrypted.is_none() && (signature.is_some() || id.is_none() || !is_own) {
        losses.add(What::ReasoningBlock, at);
        return;
    }
    array.object(|object| {
        object.text("type", "reasoning");
        object.some_text("id", id);
        write_texts(object, parts);
        object.some_text("encrypted_content", encrypted);
        for part in parts {
            let State { cache, signature: _, native } = &part.state;
            if cache.is_some() {
                losses.add(What::CacheControl, format!("{at}.cache_control"));
            }
            own(native, DIALECT, at, losses).for_each(|native| object.raw(&native.name, &native.raw));
        }
    });
}

/// Writes `summary`, which must be there, and `content`.
fn write_texts(object: &mut Object<'_>, parts: &[Part<'_>]) {
    let texts = |wanted: bool| {
        parts.iter().filter_map(move |part| match &part.kind {
            PartKind::Thinking { text, is_summary, .. } if *is_summary == wanted && !text.is_empty() => {
                Some(text)
            }
            _ => None,
        })
    };
    for (name, kind, is_summary) in [("summary", "summary_text", true), ("content", "reasoning_text", false)]
    {
        if !is_summary && texts(false).next().is_none() {
            continue;
        }
        object.array(name, |array| {
            for text in texts(is_summary) {
                array.object(|object| {
                    object.text("type", kind);
                    object.text("text", text);
                });
            }
        });
    }
}

fn write_single(array: &mut Array<'_>, part: &Part<'_>, at: &str, names: &Names, losses: &mut Losses) {
    let Part { kind, state } = part;
    let State { cache, signature, native } = state;
    if cache.is_some() {
        losses.add(What::CacheControl, format!("{at}.cache_control"));
    }
    if signature.is_some() {
        losses.add(What::Signature, at);
    }
    let natives: Vec<&Native<'_>> = own(native, DIALECT, at, losses).collect();
    let finish = |object: &mut Object<'_>| {
        for native in natives.iter().filter(|native| native.name != NAMESPACE) {
            object.raw(&native.name, &native.raw);
        }
    };
    match kind {
        PartKind::ToolCall { id, name, arguments, is_custom } => array.object(|object| {
            object.text("type", if *is_custom { "custom_tool_call" } else { "function_call" });
            object.text("call_id", &fitted_id(id));
            write_name(object, name, &natives, names);
            if *is_custom {
                object.text("input", arguments);
            } else {
                // Nothing is no JSON, and is how some say that there are no arguments.
                object.text("arguments", if arguments.is_empty() { "{}" } else { arguments });
            }
            finish(object);
        }),
        PartKind::ToolResult { id, name: _, content, is_error, is_custom } => array.object(|object| {
            object.text("type", if *is_custom { "custom_tool_call_output" } else { "function_call_output" });
            object.text("call_id", &fitted_id(id));
            if *is_error == Some(true) {
                losses.add(What::ToolError, at);
            }
            match &content[..] {
                [] => object.text("output", ""),
                [Part { kind: PartKind::Text { text, citations }, state }]
                    if citations.is_empty() && state.is_empty() =>
                {
                    object.text("output", text);
                }
                parts => object.array("output", |array| {
                    for (index, part) in parts.iter().enumerate() {
                        write_content(array, part, Side::Input, &format!("{at}.content[{index}]"), losses);
                    }
                }),
            }
            finish(object);
        }),
        PartKind::Native { dialect, kind: _, raw } if *dialect == DIALECT => array.raw(raw),
        other => losses.add(content::what(other), at),
    }
}

/// The name of a tool that is called, with its namespace where it has one.
fn write_name(object: &mut Object<'_>, name: &str, natives: &[&Native<'_>], names: &Names) {
    let said = natives.iter().find_map(|native| spaced(native, name));
    let declared = || names.get(name).and_then(|declared| declared.namespace.clone());
    match said.or_else(declared) {
        Some((space, plain)) => {
            object.text("namespace", &space);
            object.text("name", &plain);
        }
        None => object.text("name", &fitted(name)),
    }
}
