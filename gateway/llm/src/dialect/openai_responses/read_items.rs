//! Reads items, of a request's input and of a reply's output.
//!
//! A message has its role, what the model made is the assistant's, and what a tool answered is the tool's. Items of the
//! assistant that follow each other are one turn: thoughts, words and calls of one answer, which other dialects have in
//! one message and refuse in several. An item's `id` is its name at OpenAI and says nothing that the item does not say itself, so it is kept only
//! where it stands for something: of reasoning, and in items that only this dialect knows, which stay as they were
//! written. Keeping it everywhere would make every conversation of several turns a loss at any other provider.

use std::borrow::Cow;

use super::content::{read_content, read_summary, read_texts};
use super::tools::{self, Names};
use super::{DIALECT, FOR_PREVIOUS, OWN_REASONING, REDACTED};
use crate::invalid::Invalid;
use crate::json::{Fields, Node, Path, Reader, Value};
use crate::loss::What;
use crate::neutral::{Native, Part, PartKind, Role, Signature, Text, Turn};

/// Whose items they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// A client's: what we do not know is an error.
    Client,
    /// A provider's: what we do not know may be newer than we are.
    Provider,
}

/// What an item is.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// Something that somebody said or did. Log probabilities of its text come beside it, without brackets.
    Turn(Turn<'a>, Option<Cow<'a, str>>),
    /// What a provider signed of the item before: a field that this dialect has no place for.
    Carried(Signature<'a>),
}

/// What the model does, and what is done with it, in items that only this dialect knows.
const ASSISTANTS: &[&str] = &[
    "web_search_call",
    "file_search_call",
    "computer_call",
    "code_interpreter_call",
    "image_generation_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_call",
    "tool_search_call",
    "compaction",
    "compaction_summary",
    "program",
    "program_output",
];
const USERS: &[&str] = &[
    "item_reference",
    "computer_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "mcp_approval_response",
    "tool_search_output",
    "additional_tools",
    "configuration_update",
    "compaction_trigger",
];

pub(super) fn read_item<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
    names: &Names,
    from: From,
) -> Result<Item<'a>, Invalid> {
    let kind = match &node.value {
        Value::Object(_) => match node.get("type").filter(|kind| kind.value != Value::Null) {
            Some(kind) => kind.clone().into_text(&path.field("type"))?,
            None if node.get("role").is_some() => Cow::Borrowed("message"),
            None if node.get("id").is_some() => Cow::Borrowed("item_reference"),
            None => return Err(path.misses("type")),
        },
        // Says that it is no object.
        _ => Cow::Borrowed("message"),
    };
    let raw = node.raw;
    let turn = match &*kind {
        "message" => return reader.object(node, path, |fields, reader| read_message(fields, reader, from)),
        "reasoning" => {
            return reader.object(node, path, |fields, reader| read_reasoning(fields, reader, from));
        }
        "function_call" => reader.object(node, path, |fields, _| read_call(fields, "arguments", names)),
        "custom_tool_call" => reader.object(node, path, |fields, _| read_call(fields, "input", names)),
        "function_call_output" => {
            reader.object(node, path, |fields, reader| read_output(fields, reader, false))
        }
        "custom_tool_call_output" => {
            reader.object(node, path, |fields, reader| read_output(fields, reader, true))
        }
        known if USERS.contains(&known) => Ok(native(Role::User, kind, raw)),
        known if from == From::Provider || ASSISTANTS.contains(&known) => {
            Ok(native(Role::Assistant, kind, raw))
        }
        _ => Err(path.field("type").refused("There is no such type of item.")),
    };
    turn.map(|turn| Item::Turn(turn, None))
}

fn native<'a>(role: Role, kind: Text<'a>, raw: &'a str) -> Turn<'a> {
    let kind = PartKind::Native { dialect: DIALECT, kind, raw: Cow::Borrowed(raw) };
    Turn::new(role, vec![Part::new(kind)])
}

fn role(fields: &mut Fields<'_, '_>) -> Result<Role, Invalid> {
    match &*fields.need_text("role")? {
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        _ => Err(fields
            .path()
            .field("role")
            .refused("This must be `user`, `assistant`, `system` or `developer`.")),
    }
}

fn read_message<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    from: From,
) -> Result<Item<'a>, Invalid> {
    take_identity(fields);
    let mut turn = Turn::new(role(fields)?, Vec::new());
    turn.native.extend(status(fields)?);
    turn.native.extend(fields.raw("phase").map(|raw| Native::new(DIALECT, What::PartDetail, "phase", raw)));
    let path = *fields.path();
    let content = fields.need("content")?;
    let mut probabilities: Option<Cow<'a, str>> = None;
    match content.value {
        Value::Text(text) => turn.parts.push(Part::text(text)),
        Value::Array(items) => {
            for (index, node) in items.into_iter().enumerate() {
                let list = path.field("content");
                let (part, more) = read_content(node, &list.item(index), reader, from)?;
                turn.parts.push(part);
                match (&mut probabilities, more) {
                    (Some(known), Some(more)) => {
                        let known = known.to_mut();
                        known.push(',');
                        known.push_str(more);
                    }
                    (none, more) => *none = none.take().or(more.map(Cow::Borrowed)),
                }
            }
        }
        other => {
            let message = format!("This must be a string or an array of content, and is {}.", other.kind());
            return Err(path.field("content").refused(message));
        }
    }
    // Of an answer's message it is said in its first part: its turn may have more than this message.
    if turn.role == Role::Assistant
        && let Some(first) = turn.parts.first_mut()
    {
        first.state.native.splice(0..0, std::mem::take(&mut turn.native));
    }
    Ok(Item::Turn(turn, probabilities))
}

/// What names an item, and who made it. See the module's comment.
fn take_identity(fields: &mut Fields<'_, '_>) {
    for name in ["type", "id", "created_by"] {
        fields.take(name);
    }
}

/// How far an item came. Those of a conversation are complete; others say something.
fn status<'a>(fields: &mut Fields<'a, '_>) -> Result<Option<Native<'a>>, Invalid> {
    let Some(node) = fields.take("status") else { return Ok(None) };
    let raw = node.raw;
    let status = node.into_text(&fields.path().field("status"))?;
    Ok((status != "completed").then(|| Native::new(DIALECT, What::PartDetail, "status", raw)))
}

fn read_reasoning<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    from: From,
) -> Result<Item<'a>, Invalid> {
    // Names that we gave say nothing to a provider, which would look for what it made under them.
    let id = fields.text("id")?.filter(|id| !id.is_empty() && !id.starts_with(OWN_REASONING));
    take_identity(fields);
    let native = status(fields)?;
    let signature = fields.text("encrypted_content")?.filter(|field| !field.is_empty());
    let (mark, signature) = match signature {
        Some(field) => {
            let mark = [FOR_PREVIOUS, REDACTED].into_iter().find(|mark| field.starts_with(mark));
            let start = mark.map_or(0, str::len);
            let field = match field {
                Cow::Borrowed(field) => Cow::Borrowed(&field[start..]),
                Cow::Owned(mut field) => Cow::Owned(field.split_off(start)),
            };
            (mark, Some(Signature::unpack(field, DIALECT)))
        }
        None => (None, None),
    };
    let mut parts = Vec::new();
    let thought = |text, is_summary| {
        let is_redacted = mark == Some(REDACTED);
        Part::new(PartKind::Thinking { text, is_summary, is_redacted, id: id.clone() })
    };
    parts.extend(read_summary(fields, reader)?.into_iter().map(|text| thought(text, true)));
    parts.extend(read_texts(fields, reader)?.into_iter().map(|text| thought(text, false)));
    if parts.is_empty() {
        if mark == Some(FOR_PREVIOUS)
            && let Some(signature) = signature
        {
            return Ok(Item::Carried(signature));
        }
        // Thoughts of which a provider shows nothing, and which it cannot be sent back, say nothing. A client's stand for
        // what the provider keeps under their name.
        if signature.is_some() || from == From::Client {
            parts.push(thought(Cow::Borrowed(""), false));
        }
    }
    if let Some(last) = parts.last_mut() {
        last.state.signature = signature;
    }
    if let Some(first) = parts.first_mut() {
        first.state.native.extend(native);
    }
    Ok(Item::Turn(Turn::new(Role::Assistant, parts), None))
}

fn read_call<'a>(fields: &mut Fields<'a, '_>, field: &str, names: &Names) -> Result<Turn<'a>, Invalid> {
    take_identity(fields);
    let id = call_id(fields)?;
    let name = fields.need_text("name")?;
    let arguments = fields.need_text(field)?;
    let status = status(fields)?;
    let (name, space) = spaced_name(fields, name, names)?;
    let mut part = Part::new(PartKind::ToolCall { id, name, arguments, is_custom: field == "input" });
    part.state.native.extend(space.into_iter().chain(status));
    part.state.native.extend(details(fields));
    Ok(Turn::new(Role::Assistant, vec![part]))
}

fn call_id<'a>(fields: &mut Fields<'a, '_>) -> Result<Text<'a>, Invalid> {
    let id = fields.need_text("call_id")?;
    if id.is_empty() {
        return Err(fields.path().field("call_id").refused("This must not be empty."));
    }
    Ok(id)
}

/// The name of a tool, flat, and its namespace where the declared tools do not tell it.
fn spaced_name<'a>(
    fields: &mut Fields<'a, '_>,
    name: Text<'a>,
    names: &Names,
) -> Result<(Text<'a>, Option<Native<'a>>), Invalid> {
    let Some(space) = fields.text("namespace")?.filter(|space| !space.is_empty()) else {
        return Ok((name, None));
    };
    let flat = tools::flat(&space, &name);
    let is_declared = names.get(&flat).is_some_and(|declared| declared.namespace.is_some());
    let native = (!is_declared).then(|| tools::namespace(&space, &name, None));
    Ok((Cow::Owned(flat), native))
}

/// Who called: the model itself, if nothing else is said.
fn details<'a>(fields: &mut Fields<'a, '_>) -> Vec<Native<'a>> {
    let mut natives = Vec::new();
    if let Some(node) = fields.take("caller")
        && node.get("type").and_then(Node::as_text) != Some("direct")
    {
        natives.push(Native::new(DIALECT, What::ToolDetail, "caller", node.raw));
    }
    if let Some(raw) = fields.raw("async").filter(|raw| *raw != "false") {
        natives.push(Native::new(DIALECT, What::ToolDetail, "async", raw));
    }
    natives
}

fn read_output<'a>(
    fields: &mut Fields<'a, '_>,
    reader: &mut Reader,
    is_custom: bool,
) -> Result<Turn<'a>, Invalid> {
    take_identity(fields);
    let id = call_id(fields)?;
    let status = status(fields)?;
    let name = match fields.text("name")? {
        Some(name) => match fields.text("namespace")? {
            Some(space) => Some(Cow::Owned(tools::flat(&space, &name))),
            None => Some(name),
        },
        None => None,
    };
    let path = *fields.path();
    let output = fields.need("output")?;
    let content = match output.value {
        Value::Text(text) => vec![Part::text(text)],
        Value::Array(_) => reader.array(output, &path.field("output"), |node, path, reader| {
            read_content(node, path, reader, From::Client).map(|(part, _)| part)
        })?,
        other => {
            let message = format!("This must be a string or an array of content, and is {}.", other.kind());
            return Err(path.field("output").refused(message));
        }
    };
    let mut part = Part::new(PartKind::ToolResult { id, name, content, is_error: None, is_custom });
    part.state.native.extend(status.into_iter().chain(details(fields)));
    Ok(Turn::new(Role::Tool, vec![part]))
}
