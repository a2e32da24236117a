//! Reads a client's request.

use std::borrow::Cow;

use super::DIALECT;
use super::read_items::{From, Item, read_item};
use super::tools::{Names, read_choice, read_tools};
use crate::dialect::Call;
use crate::invalid::{Invalid, Reason};
use crate::json::{Fields, Node, Path, Reader, Value, parse};
use crate::loss::What;
use crate::neutral::{
    Format, LogProbabilities, Native, Part, PartKind, Raw, Reasoning, Request, Role, Text, Turn,
};

/// Fields that a response repeats. `tools` is always among them, so that a request of this dialect is known by it, and
/// `include`, which says what the answer is to have.
const ECHOED: &[&str] = &[
    "background",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
    "include",
];

/// Fields that no other dialect has, and what is lost with them.
const NATIVE: &[(&str, What)] = &[
    ("access_programs", What::Safety),
    ("background_options", What::Stored),
    ("client_metadata", What::Metadata),
    ("context_management", What::Truncation),
    ("conversation", What::Stored),
    ("image", What::PartDetail),
    ("max_tool_calls", What::ProviderTool),
    ("moderation", What::Safety),
    ("prompt", What::Stored),
    ("prompt_cache_options", What::CacheControl),
    ("prompt_cache_retention", What::CacheControl),
];

/// Fields that no other dialect has, and the value of each that says what is so everywhere.
const DEFAULTED: &[(&str, &str, What)] =
    &[("background", "false", What::Stored), ("truncation", "\"disabled\"", What::Truncation)];

/// What a client may have included that other providers tell without being asked.
const ENCRYPTED: &str = "reasoning.encrypted_content";
const PROBABILITIES: &str = "message.output_text.logprobs";

/// Reads a request.
///
/// # Errors
/// When it is none of this dialect's.
pub fn decode_request<'a>(body: &'a [u8], _: &Call<'a>, reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    let node = parse(body)?;
    let echo = echo(&node);
    let mut request = reader.object(node, &Path::Root, read_fields)?;
    request.echo = echo;
    Ok(request)
}

fn echo<'a>(node: &Node<'a>) -> Vec<(Text<'a>, Raw<'a>)> {
    let said = ECHOED.iter().filter_map(|name| Some((Cow::Borrowed(*name), node.get(name)?.raw)));
    let mut echo: Vec<_> =
        said.filter(|(_, raw)| *raw != "null").map(|(name, raw)| (name, raw.into())).collect();
    if !echo.iter().any(|(name, _)| name == "tools") {
        echo.push(("tools".into(), "[]".into()));
    }
    echo
}

fn read_fields<'a>(fields: &mut Fields<'a, '_>, reader: &mut Reader) -> Result<Request<'a>, Invalid> {
    let mut request = Request { model: fields.text("model")?.unwrap_or_default(), ..Request::default() };
    if let Some(node) = fields.take("tools") {
        request.tools = read_tools(node, &Path::Root.field("tools"), reader)?;
    }
    let names = Names::of(&request.tools);
    if let Some(text) = fields.text("instructions")? {
        request.turns.push(Turn::new(Role::System, vec![Part::text(text)]));
    }
    read_input(fields, &mut request, &names, reader)?;
    if let Some(node) = fields.take("tool_choice") {
        match read_choice(node, &Path::Root.field("tool_choice"), reader)? {
            Ok(choice) => request.tool_choice = Some(choice),
            Err(native) => request.native.push(native),
        }
    }
    request.parallel_tool_calls = fields.boolean("parallel_tool_calls")?;
    request.max_output_tokens = fields.whole("max_output_tokens")?;
    request.sampling.temperature = fields.number("temperature")?;
    request.sampling.top_p = fields.number("top_p")?;
    read_include(fields, &mut request)?;
    read_reasoning(fields, &mut request, reader)?;
    read_text(fields, &mut request, reader)?;
    read_stream(fields, &mut request, reader)?;
    read_metadata(fields, &mut request, reader)?;
    read_user(fields, &mut request)?;
    request.service_tier = fields.text("service_tier")?;
    request.store = fields.boolean("store")?;
    request.previous_response = fields.text("previous_response_id")?;
    request.prompt_cache_key = fields.text("prompt_cache_key")?;
    for (name, what) in NATIVE {
        request.native.extend(fields.raw(name).map(|raw| Native::new(DIALECT, *what, *name, raw)));
    }
    for (name, default, what) in DEFAULTED {
        let raw = fields.raw(name).filter(|raw| raw != default);
        request.native.extend(raw.map(|raw| Native::new(DIALECT, *what, *name, raw)));
    }
    Ok(request)
}

fn read_input<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    names: &Names,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("input") else { return Ok(()) };
    let path = Path::Root.field("input");
    let items = match node.value {
        Value::Text(text) => {
            request.turns.push(Turn::new(Role::User, vec![Part::text(text)]));
            return Ok(());
        }
        Value::Array(items) => items,
        other => {
            return Err(path.refused(format!("This must be a string or an array, and is {}.", other.kind())));
        }
    };
    let mut calls = Calls {
        ids: Vec::new(),
        are_kept: ["previous_response_id", "conversation", "prompt"].iter().any(|name| fields.has(name)),
    };
    for (index, node) in items.into_iter().enumerate() {
        let path = path.item(index);
        match read_item(node, &path, reader, names, From::Client)? {
            Item::Turn(turn, _) => {
                calls.check(&turn, &path)?;
                let last = request.turns.last_mut().filter(|last| last.role == turn.role);
                match last {
                    Some(last) if turn.role == Role::Assistant => last.parts.extend(turn.parts),
                    _ => request.turns.push(turn),
                }
            }
            Item::Carried(signature) => {
                let last = request.turns.last_mut().filter(|turn| turn.role == Role::Assistant);
                match last.and_then(|turn| turn.parts.last_mut()) {
                    Some(part) => part.state.signature = Some(signature),
                    None => reader.loses(What::Signature, &path),
                }
            }
        }
    }
    Ok(())
}

/// The calls so far.
struct Calls<'a> {
    ids: Vec<Text<'a>>,
    /// Whether more of them may be where the provider keeps them.
    are_kept: bool,
}

impl<'a> Calls<'a> {
    /// What a tool answered needs the call that it answers.
    fn check(&mut self, turn: &Turn<'a>, path: &Path<'_>) -> Result<(), Invalid> {
        for part in &turn.parts {
            match &part.kind {
                PartKind::ToolCall { id, .. } => self.ids.push(id.clone()),
                PartKind::Native { kind, .. } if matches!(&**kind, "item_reference" | "compaction") => {
                    self.are_kept = true;
                }
                PartKind::ToolResult { id, .. } if !self.are_kept && !self.ids.contains(id) => {
                    let message = format!("No call of a tool has the `call_id` {id} that this output names.");
                    return Err(path.field("call_id").refused(message));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_include<'a>(fields: &mut Fields<'a, '_>, request: &mut Request<'a>) -> Result<(), Invalid> {
    let included = fields.texts("include")?.unwrap_or_default();
    let alternatives = fields.whole("top_logprobs")?;
    if included.iter().any(|name| name == PROBABILITIES) || alternatives.is_some_and(|count| count > 0) {
        request.sampling.log_probabilities = Some(LogProbabilities { alternatives });
    }
    let rest: Vec<_> =
        included.into_iter().filter(|name| name != ENCRYPTED && name != PROBABILITIES).collect();
    if !rest.is_empty() {
        let quoted: Vec<String> = rest.iter().map(|name| crate::json::quoted(name)).collect();
        let raw = format!("[{}]", quoted.join(","));
        request.native.push(Native::new(DIALECT, What::ProviderTool, "include", raw));
    }
    Ok(())
}

fn read_reasoning<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("reasoning") else { return Ok(()) };
    let natives = &mut request.native;
    let reasoning = reader.object(node, &Path::Root.field("reasoning"), |fields, _| {
        let effort = fields.text("effort")?;
        // What `summary` was called before.
        let former = fields.text("generate_summary")?;
        let summary = fields.text("summary")?.or(former);
        // `standard` is how every model thinks.
        for (name, full, default) in
            [("context", "reasoning.context", "\"auto\""), ("mode", "reasoning.mode", "\"standard\"")]
        {
            let raw = fields.raw(name).filter(|raw| *raw != default);
            natives.extend(raw.map(|raw| Native::new(DIALECT, What::Reasoning, full, raw)));
        }
        Ok(Reasoning { enabled: None, effort, budget: None, summary })
    })?;
    request.reasoning = Some(reasoning);
    Ok(())
}

fn read_text<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("text") else { return Ok(()) };
    let path = Path::Root.field("text");
    reader.object(node, &path, |fields, reader| {
        request.verbosity = fields.text("verbosity")?;
        let Some(node) = fields.take("format") else { return Ok(()) };
        request.format = Some(reader.object(node, &path.field("format"), |fields, _| read_format(fields))?);
        Ok(())
    })
}

fn read_format<'a>(fields: &mut Fields<'a, '_>) -> Result<Format<'a>, Invalid> {
    match &*fields.need_text("type")? {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => Ok(Format::Schema {
            name: Some(fields.need_text("name")?),
            description: fields.text("description")?,
            schema: Cow::Borrowed(fields.need("schema")?.raw),
            strict: fields.boolean("strict")?,
        }),
        _ => Err(fields.path().field("type").refused("This must be `text`, `json_object` or `json_schema`.")),
    }
}

fn read_stream<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    request.stream = fields.boolean("stream")?.unwrap_or(false);
    // Usage stands in the last event, whether it is asked for or not.
    request.stream_usage = Some(true);
    let Some(node) = fields.take("stream_options") else { return Ok(()) };
    let raw = node.raw;
    let natives = &mut request.native;
    reader.object(node, &Path::Root.field("stream_options"), |fields, _| {
        // Padding against those who measure events. Without it is how all others stream.
        if fields.boolean("include_obfuscation")? == Some(true) {
            natives.push(Native::new(DIALECT, What::Safety, "stream_options", raw));
        }
        Ok(())
    })
}

fn read_metadata<'a>(
    fields: &mut Fields<'a, '_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    let Some(node) = fields.take("metadata") else { return Ok(()) };
    let path = Path::Root.field("metadata");
    request.metadata = reader.object(node, &path, |fields, _| {
        let pairs = fields.take_rest().into_iter();
        pairs.map(|(name, node)| node.into_text(&path.field(&name)).map(|text| (name, text))).collect()
    })?;
    Ok(())
}

/// Who the request is from: `user` is what `safety_identifier` was called before.
fn read_user<'a>(fields: &mut Fields<'a, '_>, request: &mut Request<'a>) -> Result<(), Invalid> {
    let former = fields.take("user");
    let raw = former.as_ref().map(|node| node.raw);
    let former = former.map(|node| node.into_text(&Path::Root.field("user"))).transpose()?;
    request.user = fields.text("safety_identifier")?;
    match (&request.user, raw) {
        (Some(_), Some(raw)) => request.native.push(Native::new(DIALECT, What::Metadata, "user", raw)),
        _ => request.user = request.user.take().or(former),
    }
    Ok(())
}

/// An error for a request that goes on from something that only the provider has which made it: no provider of another
/// dialect has it, and this program keeps nothing. Losing it would be losing the conversation.
///
/// # Errors
/// When it does.
pub fn refuse_state(request: &Request<'_>) -> Result<(), Invalid> {
    let refused = |path: String, what: &str| {
        let message = format!(
            "{what} lives at the provider that made it. This model is served by a provider of another API, and the \
             gateway keeps no conversations: send the whole input instead."
        );
        Err(Invalid::new(Reason::Lossy, path, message))
    };
    if request.previous_response.is_some() {
        return refused("previous_response_id".to_owned(), "A previous response");
    }
    for native in request.native.iter().filter(|native| native.dialect == DIALECT) {
        match &*native.name {
            "conversation" => return refused("conversation".to_owned(), "A conversation"),
            "prompt" => return refused("prompt".to_owned(), "A prompt template"),
            _ => {}
        }
    }
    let mut parts = request.turns.iter().flat_map(|turn| &turn.parts);
    let is_reference = |part: &Part<'_>| matches!(&part.kind, PartKind::Native { dialect, kind, .. } if *dialect == DIALECT && kind == "item_reference");
    if parts.any(is_reference) {
        return refused("input".to_owned(), "A referenced item");
    }
    Ok(())
}
