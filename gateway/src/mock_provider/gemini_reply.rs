//! What Gemini answers: replies, streams of events, arrays that come in pieces, and errors.

use serde_json::{Value, json};

use super::answer::{Asked, End, Said, Usage, signature, words};
use super::checks::{Problem, What};
use super::delivery::{Reply, Stream, sse};
use super::gemini::Extra;
use super::script::Script;

/// Writes the answer: one reply, a stream of events, or the array that a stream without `alt=sse` is.
pub(super) fn write(
    asked: &Asked,
    extra: &Extra,
    said: &Said,
    script: &Script,
    number: u64,
    events: bool,
) -> Reply {
    let head = |candidates: Value, whole: bool| {
        let mut reply = json!({"candidates": candidates, "usageMetadata": usage(said.usage, whole), "modelVersion": asked.model, "responseId": format!("mock{number}")});
        if said.end == End::Filter && whole {
            reply["promptFeedback"] = json!({"blockReason": "PROHIBITED_CONTENT"});
            if let Some(map) = reply.as_object_mut() {
                map.remove("candidates");
            }
        }
        reply
    };
    let candidate = |index: u64, parts: &[Value], ends: bool| {
        let mut candidate = json!({"index": index, "content": {"parts": parts, "role": "model"}});
        if parts.is_empty() {
            candidate["content"] = json!({"role": "model"});
        }
        if ends {
            candidate["finishReason"] = json!(finish(said));
            if said.end == End::Refusal {
                candidate["safetyRatings"] = json!([{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": true}]);
            }
        }
        if extra.logprobs && ends {
            candidate["avgLogprobs"] = json!(-0.25);
        }
        candidate
    };
    if !asked.stream {
        let parts = parts(asked, said, script, false);
        let candidates = (0..extra.n).map(|index| candidate(index, &parts, true)).collect();
        return Reply::Json(200, head(candidates, true));
    }
    let mut chunks = Vec::new();
    let mut text_at = None;
    for index in 0..extra.n {
        let parts = parts(asked, said, script, true);
        let last = parts.len().saturating_sub(1);
        for (at, part) in parts.iter().enumerate() {
            if part.get("text").is_some() && part.get("thought").is_none() {
                text_at.get_or_insert(chunks.len());
            }
            let ends = at == last && !matches!(said.end, End::Calls);
            chunks.push(head(json!([candidate(index, std::slice::from_ref(part), ends)]), ends));
        }
        // A call and the end of its turn come apart.
        if parts.is_empty() || said.end == End::Calls {
            chunks.push(head(json!([candidate(index, &[], true)]), true));
        }
    }
    if script.usage_twice {
        chunks.extend(chunks.last().cloned());
    }
    let error = error(503, "The model is overloaded. Please try again later.");
    let mut stream = Stream { repeats: text_at, is_json: !events, ..Stream::default() };
    if events {
        chunks.iter().for_each(|chunk| stream.event(None, chunk));
        stream.error = sse(None, &error.to_string());
    } else {
        let separated = chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| format!("{}{chunk}", if index == 0 { "[" } else { "\n,\r\n" }));
        stream.events = separated.collect();
        stream.events.push("\n]\n".to_owned());
        stream.error = format!("\n,\r\n{error}\n]\n");
    }
    Reply::Stream(stream)
}

fn parts(asked: &Asked, said: &Said, script: &Script, split: bool) -> Vec<Value> {
    let pieces = |text: &str| -> Vec<String> {
        if split { words(text).into_iter().map(str::to_owned).collect() } else { vec![text.to_owned()] }
    };
    let mut parts = Vec::new();
    if let Some(thinking) = said.thinking.as_ref().filter(|_| asked.shows_thinking) {
        parts.extend(pieces(thinking).into_iter().map(|text| json!({"text": text, "thought": true})));
    }
    parts.extend(said.text.iter().flat_map(|text| pieces(text)).map(|text| json!({"text": text})));
    for (index, call) in said.calls.iter().enumerate() {
        let mut part = json!({"functionCall": {"name": call.name, "args": call.object()}});
        if script.empty_args {
            part["functionCall"] = json!({"name": call.name});
        }
        // Models that think sign the first call of a turn.
        if index == 0 && (asked.thinking || asked.model.contains("gemini-3")) {
            part["thoughtSignature"] = json!(signature(&call.name));
        }
        parts.push(part);
    }
    parts
}

fn finish(said: &Said) -> &'static str {
    match said.end {
        End::Length => "MAX_TOKENS",
        End::Refusal => "SAFETY",
        // Stop sequences and calls have no reason of their own.
        End::Stop | End::Calls | End::Filter | End::Sequence(_) => "STOP",
    }
}

/// Counted up over a stream: each chunk says what it has come to. Thoughts stand beside the candidates' tokens.
fn usage(usage: Usage, whole: bool) -> Value {
    let output = if whole { usage.output - usage.reasoning } else { 1.min(usage.output - usage.reasoning) };
    let mut value = json!({"promptTokenCount": usage.input, "candidatesTokenCount": output, "totalTokenCount": usage.input + output + usage.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input}]});
    if usage.cached > 0 {
        value["cachedContentTokenCount"] = json!(usage.cached);
    }
    if usage.reasoning > 0 {
        value["thoughtsTokenCount"] = json!(usage.reasoning);
    }
    value
}

/// An error as Google writes it.
pub(super) fn error(status: u16, message: &str) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": name}})
}

/// A problem as Google words it.
pub(super) fn problem(problem: &Problem) -> (u16, Value) {
    let at = &problem.at;
    let (place, name) = at.rsplit_once('.').unwrap_or(("", at));
    let (status, message) = match &problem.what {
        What::Unknown if place.is_empty() => {
            (400, format!("Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."))
        }
        What::Unknown => (
            400,
            format!(
                "Invalid JSON payload received. Unknown name \"{name}\" at '{place}': Cannot find field."
            ),
        ),
        What::Missing => (400, format!("* GenerateContentRequest.{at}: required field is missing\n")),
        What::Type(kind) => {
            (400, format!("Invalid value at '{at}' (TYPE_{}), a value of another type", kind.to_uppercase()))
        }
        What::Value(text) => (400, format!("Invalid value at '{at}': {text}")),
        What::Sentence(text) => (400, text.clone()),
        What::Status(status, text) => (*status, text.clone()),
    };
    let mut value = error(status, &message);
    if problem.what == What::Unknown {
        value["error"]["details"] = json!([{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": place, "description": message}]}]);
    }
    (status, value)
}
