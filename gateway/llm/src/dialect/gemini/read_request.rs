//! Reads a client's request. Google's clients write names in `camelCase`, some in `snake_case`, and types in upper or lower
//! case: all of it is read.

use std::borrow::Cow;

use super::parts::{Ids, either, read_part};
use super::schema;
use crate::dialect::{Call, Dialect};
use crate::invalid::Invalid;
use crate::json::{self, Fields, Node, Path, Reader, Value};
use crate::loss::What;
use crate::neutral::{
    Format, LogProbabilities, Native, Part, PartKind, Raw, Reasoning, Request, Role, Sampling, Text, Tool,
    ToolChoice, ToolKind, Turn,
};

/// Fields of a request that only this dialect knows.
const OWN_OF_REQUESTS: [(&str, &str, What); 4] = [
    ("safetySettings", "safety_settings", What::Safety),
    ("cachedContent", "cached_content", What::CacheControl),
    ("labels", "labels", What::Metadata),
    ("serviceTier", "service_tier", What::ServiceTier),
];

/// The same within `generationConfig`, which stands before their names here.
const OWN_OF_GENERATION: [(&str, &str, What); 9] = [
    ("speechConfig", "speech_config", What::Audio),
    ("imageConfig", "image_config", What::Image),
    ("mediaResolution", "media_resolution", What::PartDetail),
    ("audioTimestamp", "audio_timestamp", What::Audio),
    ("enableEnhancedCivicAnswers", "enable_enhanced_civic_answers", What::Safety),
    ("enableAffectiveDialog", "enable_affective_dialog", What::Audio),
    ("routingConfig", "routing_config", What::UnknownField),
    ("modelSelectionConfig", "model_selection_config", What::UnknownField),
    ("modelConfig", "model_config", What::UnknownField),
];

/// Reads a client's request. Model and whether it is streamed stand in its path.
///
/// # Errors
/// When the body is none of this dialect's.
pub fn decode_request<'a>(
    body: &'a [u8],
    call: &Call<'a>,
    reader: &mut Reader,
) -> Result<Request<'a>, Invalid> {
    reader.object(json::parse(body)?, &Path::Root, |fields, reader| {
        let mut request = Request {
            model: Cow::Borrowed(call.model.unwrap_or_default()),
            stream: call.stream,
            stream_usage: Some(true),
            ..Request::default()
        };
        // Some clients repeat it.
        if let Some(model) = fields.text("model")?
            && request.model.is_empty()
        {
            request.model = match model.strip_prefix("models/") {
                Some(name) => Cow::Owned(name.to_owned()),
                None => model,
            };
        }
        request.native = own(fields, "", &OWN_OF_REQUESTS);
        let mut calls = Calls::default();
        if let Some(node) = either(fields, "systemInstruction", "system_instruction") {
            let path = fields.path().field("systemInstruction");
            request.turns.extend(read_system(node, &path, reader)?);
        }
        let path = fields.path().field("contents");
        let contents = fields.need("contents")?;
        // A single one is taken as well.
        if matches!(contents.value, Value::Object(_)) {
            request.turns.push(read_content(contents, &path, &mut calls, reader)?);
        } else {
            let turns = reader
                .array(contents, &path, |node, path, reader| read_content(node, path, &mut calls, reader))?;
            request.turns.extend(turns);
        }
        if let Some(node) = fields.take("tools") {
            let tools = reader.array(node, &fields.path().field("tools"), read_tools)?;
            request.tools = tools.into_iter().flatten().collect();
        }
        if let Some(node) = either(fields, "toolConfig", "tool_config") {
            read_tool_config(node, &fields.path().field("toolConfig"), &mut request, reader)?;
        }
        if let Some(node) = either(fields, "generationConfig", "generation_config") {
            read_generation(node, &fields.path().field("generationConfig"), &mut request, reader)?;
        }
        Ok(request)
    })
}

fn own<'a>(
    fields: &mut Fields<'a, '_>,
    before: &str,
    names: &[(&'static str, &'static str, What)],
) -> Vec<Native<'a>> {
    let own = names.iter().filter_map(|(camel, snake, what)| {
        let node = either(fields, camel, snake)?;
        Some(Native::new(Dialect::Gemini, *what, format!("{before}{camel}"), node.raw))
    });
    own.collect()
}

fn read_system<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Option<Turn<'a>>, Invalid> {
    if let Value::Text(text) = node.value {
        return Ok(Some(Turn::new(Role::System, vec![Part::text(text)])));
    }
    let turn = read_content(node, path, &mut Calls::default(), reader)?;
    Ok((!turn.parts.is_empty()).then_some(Turn { role: Role::System, ..turn }))
}

/// The calls of the conversation so far that have no result yet.
#[derive(Debug, Default)]
struct Calls {
    turn: usize,
    open: Vec<(String, String)>,
}

impl Calls {
    /// The identity of the call that a result answers: the one that it names, or the first of this name.
    fn answered(&mut self, id: Option<&str>, name: &str) -> Option<String> {
        let is_it = |(call, called): &(String, String)| id.map_or(called == name, |id| call == id);
        let at = self.open.iter().position(is_it)?;
        Some(self.open.remove(at).0)
    }
}

fn read_content<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    calls: &mut Calls,
    reader: &mut Reader,
) -> Result<Turn<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let role = fields.text("role")?;
        let mut ids = Ids::of(&calls.turn.to_string());
        calls.turn += 1;
        let parts = match fields.take("parts") {
            Some(parts) => {
                let path = fields.path().field("parts");
                reader
                    .array(parts, &path, |node, path, reader| read_one(node, path, calls, &mut ids, reader))?
            }
            None => Vec::new(),
        };
        let parts: Vec<Part<'a>> = parts.into_iter().flatten().collect();
        let are_results =
            !parts.is_empty() && parts.iter().all(|part| matches!(part.kind, PartKind::ToolResult { .. }));
        let role = match role.as_deref() {
            Some("model") => Role::Assistant,
            Some("system") => Role::System,
            Some("user" | "function" | "tool") | None if are_results => Role::Tool,
            Some("user" | "function" | "tool") | None => Role::User,
            Some(_) => return Err(path.field("role").refused("This must be \"user\" or \"model\".")),
        };
        Ok(Turn::new(role, parts))
    })
}

fn read_one<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    calls: &mut Calls,
    ids: &mut Ids,
    reader: &mut Reader,
) -> Result<Option<Part<'a>>, Invalid> {
    let response = node.get("functionResponse").or_else(|| node.get("function_response"));
    if response.is_some() {
        return read_result(node, path, calls, reader).map(Some);
    }
    let part = read_part(node, path, ids, reader)?;
    if let Some(PartKind::ToolCall { id, name, .. }) = part.as_ref().map(|part| &part.kind) {
        calls.open.push((id.to_string(), name.to_string()));
    }
    Ok(part)
}

fn read_result<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    calls: &mut Calls,
    reader: &mut Reader,
) -> Result<Part<'a>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let inner = path.field("functionResponse");
        let Some(node) = either(fields, "functionResponse", "function_response") else {
            return Err(path.misses("functionResponse"));
        };
        if fields.boolean("thought")?.is_some()
            || either(fields, "thoughtSignature", "thought_signature").is_some()
        {
            reader.loses(What::Signature, path);
        }
        reader.object(node, &inner, |fields, reader| {
            let name = fields.need_text("name")?;
            let given = fields.text("id")?.filter(|id| !id.is_empty());
            let Some(id) = calls.answered(given.as_deref(), &name) else {
                return Err(inner.refused("There is no functionCall before this that it could answer."));
            };
            let (mut content, is_error) = match fields.take("response") {
                Some(node) => read_response(node, &inner.field("response"))?,
                None => (Vec::new(), None),
            };
            if let Some(parts) = fields.take("parts") {
                let path = inner.field("parts");
                let more = reader.array(parts, &path, |node, path, reader| {
                    read_part(node, path, &mut Ids::default(), reader)
                })?;
                content.extend(more.into_iter().flatten());
            }
            Ok(Part::new(PartKind::ToolResult {
                id: Cow::Owned(id),
                name: Some(name),
                content,
                is_error,
                is_custom: false,
            }))
        })
    })
}

/// `{"output": text}` and `{"error": text}` are what clients make of texts, and `{"result": text}` is what Google's SDKs make
/// of what a function returned; every other object is passed on as JSON.
fn read_response<'a>(node: Node<'a>, path: &Path<'_>) -> Result<(Vec<Part<'a>>, Option<bool>), Invalid> {
    let raw = node.raw;
    let Value::Object(members) = node.value else {
        return Err(path.refused("This must be an object."));
    };
    let mut members = members.into_iter();
    Ok(match (members.next(), members.next()) {
        (Some((name, Node { value: Value::Text(text), .. })), None)
            if name == "output" || name == "result" =>
        {
            (vec![Part::text(text)], None)
        }
        (Some((name, Node { value: Value::Text(text), .. })), None) if name == "error" => {
            (vec![Part::text(text)], Some(true))
        }
        _ => (vec![Part::text(raw)], None),
    })
}

fn read_tools<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Vec<Tool<'a>>, Invalid> {
    reader.object(node, path, |fields, reader| {
        let mut tools = Vec::new();
        if let Some(node) = either(fields, "functionDeclarations", "function_declarations") {
            tools = reader.array(node, &path.field("functionDeclarations"), read_function)?;
        }
        // Tools of Google's own: each is a field by itself.
        for (kind, node) in fields.take_rest() {
            let mut raw = Vec::new();
            json::object(&mut raw, |object| object.raw(&kind, node.raw));
            let raw = Cow::Owned(String::from_utf8(raw).unwrap_or_default());
            let kind = ToolKind::Provider { dialect: Dialect::Gemini, kind, raw };
            tools.push(Tool { kind, cache: None, native: Vec::new() });
        }
        Ok(tools)
    })
}

fn read_function<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Tool<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        let native = own(
            fields,
            "",
            &[
                ("response", "response", What::ToolDetail),
                ("responseJsonSchema", "response_json_schema", What::ToolDetail),
                ("behavior", "behavior", What::ToolDetail),
            ],
        );
        let kind = ToolKind::Function {
            name: fields.need_text("name")?,
            description: fields.text("description")?,
            schema: read_schema(
                fields,
                ("parametersJsonSchema", "parameters_json_schema"),
                ("parameters", "parameters"),
            ),
            strict: None,
        };
        Ok(Tool { kind, cache: None, native })
    })
}

/// A schema in either notation: JSON Schema as it is, or Google's subset of OpenAPI's, made JSON Schema.
fn read_schema<'a>(fields: &mut Fields<'a, '_>, json: (&str, &str), subset: (&str, &str)) -> Option<Raw<'a>> {
    let of_json = either(fields, json.0, json.1).map(|node| Cow::Borrowed(node.raw));
    of_json.or_else(|| either(fields, subset.0, subset.1).map(|node| schema::from_subset(&node)))
}

fn read_tool_config<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    reader.object(node, path, |fields, reader| {
        request.native.extend(own(
            fields,
            "toolConfig.",
            &[
                ("retrievalConfig", "retrieval_config", What::ProviderTool),
                (
                    "includeServerSideToolInvocations",
                    "include_server_side_tool_invocations",
                    What::ProviderTool,
                ),
            ],
        ));
        let Some(node) = either(fields, "functionCallingConfig", "function_calling_config") else {
            return Ok(());
        };
        let path = path.field("functionCallingConfig");
        request.tool_choice = reader.object(node, &path, |fields, reader| {
            let mode = fields.text("mode")?.unwrap_or_default().to_ascii_uppercase();
            if either(fields, "streamFunctionCallArguments", "stream_function_call_arguments").is_some() {
                reader.loses(What::ToolDetail, &path.field("streamFunctionCallArguments"));
            }
            let names = match either(fields, "allowedFunctionNames", "allowed_function_names") {
                Some(node) => reader
                    .array(node, &path.field("allowedFunctionNames"), |node, path, _| node.into_text(path))?,
                None => Vec::new(),
            };
            choice(&mode, names, &path, reader)
        })?;
        Ok(())
    })
}

fn choice<'a>(
    mode: &str,
    mut names: Vec<Text<'a>>,
    path: &Path<'_>,
    reader: &mut Reader,
) -> Result<Option<ToolChoice<'a>>, Invalid> {
    Ok(Some(match (mode, names.len()) {
        ("" | "MODE_UNSPECIFIED", _) => return Ok(None),
        ("AUTO", _) => ToolChoice::Auto,
        ("NONE", _) => ToolChoice::None,
        ("ANY", 0) => ToolChoice::Required,
        ("ANY", 1) => ToolChoice::Named(names.remove(0)),
        ("ANY", _) => ToolChoice::Allowed { required: true, names },
        ("VALIDATED", 0) => {
            // That calls follow their schemas is promised by nobody else in this way.
            reader.loses(What::ToolChoice, &path.field("mode"));
            ToolChoice::Auto
        }
        ("VALIDATED", _) => ToolChoice::Allowed { required: false, names },
        _ => return Err(path.field("mode").refused("This must be AUTO, ANY, NONE or VALIDATED.")),
    }))
}

fn read_generation<'a>(
    node: Node<'a>,
    path: &Path<'_>,
    request: &mut Request<'a>,
    reader: &mut Reader,
) -> Result<(), Invalid> {
    reader.object(node, path, |fields, reader| {
        request.native.extend(own(fields, "generationConfig.", &OWN_OF_GENERATION));
        request.candidates = whole(fields, "candidateCount", "candidate_count")?;
        request.max_output_tokens = whole(fields, "maxOutputTokens", "max_output_tokens")?;
        request.sampling = read_sampling(fields)?;
        request.format = read_format(fields)?;
        if let Some(node) = either(fields, "stopSequences", "stop_sequences") {
            request.stop =
                reader.array(node, &path.field("stopSequences"), |node, path, _| node.into_text(path))?;
        }
        if let Some(node) = either(fields, "responseModalities", "response_modalities") {
            request.modalities = reader.array(node, &path.field("responseModalities"), |node, path, _| {
                Ok(Cow::Owned(node.into_text(path)?.to_ascii_lowercase()))
            })?;
        }
        if let Some(node) = either(fields, "thinkingConfig", "thinking_config") {
            request.reasoning = Some(read_thinking(node, &path.field("thinkingConfig"), reader)?);
        }
        Ok(())
    })
}

fn number<'a>(
    fields: &mut Fields<'a, '_>,
    camel: &str,
    snake: &str,
) -> Result<Option<json::Number<'a>>, Invalid> {
    let path = fields.path().field(camel);
    either(fields, camel, snake).map(|node| node.into_number(&path)).transpose()
}

fn whole(fields: &mut Fields<'_, '_>, camel: &str, snake: &str) -> Result<Option<u64>, Invalid> {
    let Some(number) = number(fields, camel, snake)? else { return Ok(None) };
    let refused = || fields.path().field(camel).refused("This must be a whole number, and not negative.");
    number.as_u64().ok_or_else(refused).map(Some)
}

fn read_sampling<'a>(fields: &mut Fields<'a, '_>) -> Result<Sampling<'a>, Invalid> {
    let alternatives = whole(fields, "logprobs", "logprobs")?;
    let path = fields.path().field("responseLogprobs");
    let are_told = match either(fields, "responseLogprobs", "response_logprobs").map(|node| node.value) {
        None => false,
        Some(Value::Bool(are_told)) => are_told,
        Some(_) => return Err(path.refused("This must be a boolean.")),
    };
    Ok(Sampling {
        temperature: number(fields, "temperature", "temperature")?,
        top_p: number(fields, "topP", "top_p")?,
        top_k: number(fields, "topK", "top_k")?,
        presence_penalty: number(fields, "presencePenalty", "presence_penalty")?,
        frequency_penalty: number(fields, "frequencyPenalty", "frequency_penalty")?,
        seed: number(fields, "seed", "seed")?,
        logit_bias: None,
        log_probabilities: are_told.then_some(LogProbabilities { alternatives }),
    })
}

fn read_format<'a>(fields: &mut Fields<'a, '_>) -> Result<Option<Format<'a>>, Invalid> {
    let path = fields.path().field("responseMimeType");
    let kind = either(fields, "responseMimeType", "response_mime_type")
        .map(|node| node.into_text(&path))
        .transpose()?;
    let schema = read_schema(
        fields,
        ("responseJsonSchema", "response_json_schema"),
        ("responseSchema", "response_schema"),
    );
    Ok(match (kind.as_deref(), schema) {
        (_, Some(schema)) => Some(Format::Schema { name: None, description: None, schema, strict: None }),
        (Some("application/json"), None) => Some(Format::Json),
        (Some("text/plain"), None) => Some(Format::Text),
        (None, None) => None,
        (Some(_), None) => return Err(path.refused("This must be text/plain or application/json.")),
    })
}

fn read_thinking<'a>(node: Node<'a>, path: &Path<'_>, reader: &mut Reader) -> Result<Reasoning<'a>, Invalid> {
    reader.object(node, path, |fields, _| {
        let shown = match either(fields, "includeThoughts", "include_thoughts").map(|node| node.value) {
            None => None,
            Some(Value::Bool(true)) => Some("auto"),
            Some(Value::Bool(false)) => Some("omitted"),
            Some(_) => return Err(path.field("includeThoughts").refused("This must be a boolean.")),
        };
        let mut reasoning = Reasoning { summary: shown.map(Cow::Borrowed), ..Reasoning::default() };
        let inner = path.field("thinkingLevel");
        if let Some(node) = either(fields, "thinkingLevel", "thinking_level") {
            let level = node.into_text(&inner)?.to_ascii_lowercase();
            reasoning.effort = Some(Cow::Owned(level)).filter(|level| level != "thinking_level_unspecified");
        }
        match number(fields, "thinkingBudget", "thinking_budget")?.map(|number| number.as_i64()) {
            None => {}
            // As much as the model likes.
            Some(Some(-1)) => reasoning.enabled = Some(true),
            Some(Some(0)) => reasoning.enabled = Some(false),
            Some(Some(budget @ 1..)) => reasoning.budget = u64::try_from(budget).ok(),
            Some(_) => {
                return Err(path
                    .field("thinkingBudget")
                    .refused("This must be -1, 0 or a number of tokens."));
            }
        }
        Ok(reasoning)
    })
}
