//! What is beside conversations: embeddings, lists of models, images, sound, moderation and ranking.

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::checks::{Checked, Object, wrong};
use super::delivery::{Reply, Stream, sse};
use super::script::Script;
use super::{Dialect, answer};

/// A vector of so many numbers, the same for the same text, of length 1.
fn vector(text: &str, size: usize) -> Vec<f32> {
    let hash = Sha256::digest(text);
    let raw: Vec<f32> = (0..size).map(|index| f32::from(hash[index % hash.len()]) - 127.5).collect();
    let length = raw.iter().map(|number| number * number).sum::<f32>().sqrt();
    raw.into_iter().map(|number| number / length).collect()
}

/// OpenAI's embeddings.
pub(super) fn embeddings(body: &Value) -> Checked<Reply> {
    let request = Object::of(body, "")?;
    request.only(&["model", "input", "encoding_format", "dimensions", "user"])?;
    let model = request.need_text("model")?;
    let texts = match request.need("input")? {
        Value::String(text) => vec![text.clone()],
        Value::Array(_) => {
            let tokens = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let values: Vec<_> = request.list("input")?.into_iter().map(|(_, value)| value).collect();
            // An array of numbers is one text in tokens.
            if values.iter().all(|value| value.is_u64()) {
                vec![request.need("input")?.to_string()]
            } else {
                values.into_iter().map(tokens).collect()
            }
        }
        _ => {
            return wrong(
                "input",
                "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
            );
        }
    };
    if texts.is_empty() || texts.len() > 2048 || texts.iter().any(String::is_empty) {
        return wrong(
            "input",
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
        );
    }
    let size = size(request.integer("dimensions")?)?;
    let packed = request.choice("encoding_format", &["float", "base64"])? == Some("base64");
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, size);
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            let value = if packed {
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": value})
        })
        .collect();
    let count: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
    Ok(Reply::Json(
        200,
        json!({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": count, "total_tokens": count}}),
    ))
}

fn size(asked: Option<u64>) -> Checked<usize> {
    match asked.unwrap_or(8) {
        size @ 1..=3072 => Ok(usize::try_from(size).unwrap_or(8)),
        size => wrong(
            "dimensions",
            format!("Invalid value for 'dimensions' = {size}. Must be between 1 and 3072."),
        ),
    }
}

/// Gemini's, one or several.
pub(super) fn gemini_embeddings(body: &Value, several: bool) -> Checked<Reply> {
    let request = Object::of(body, "")?;
    let each = if several { request.objects("requests")? } else { vec![request] };
    let mut vectors = Vec::new();
    for one in &each {
        one.only(&[
            "model",
            "content",
            "taskType",
            "task_type",
            "title",
            "outputDimensionality",
            "output_dimensionality",
            "embedContentConfig",
        ])?;
        if several {
            one.need_text("model")?;
        }
        let mut text = String::new();
        for part in one.need_object("content")?.objects("parts")? {
            text += part.need_text("text")?;
        }
        if text.is_empty() {
            return wrong("", "* EmbedContentRequest.content: content is empty\n");
        }
        let asked = one.integer("outputDimensionality")?.or(one.integer("output_dimensionality")?);
        vectors.push(json!({"values": vector(&text, size(asked)?)}));
    }
    if several {
        return Ok(Reply::Json(200, json!({"embeddings": vectors})));
    }
    Ok(Reply::Json(200, json!({"embedding": vectors.first()})))
}

/// The models of the mock, in a dialect's shape.
pub(super) fn models(dialect: Dialect, one: Option<&str>) -> Reply {
    let names = ["mock-small", "mock-large"];
    let names: Vec<&str> = one.map_or(names.to_vec(), |name| vec![name]);
    let each: Vec<Value> = names.iter().map(|name| match dialect {
        Dialect::OpenAi => json!({"id": name, "object": "model", "created": 1_760_000_000, "owned_by": "mock"}),
        Dialect::Anthropic => json!({"type": "model", "id": name, "display_name": name, "created_at": "2025-10-01T00:00:00Z"}),
        Dialect::Gemini => json!({"name": format!("models/{name}"), "version": "001", "displayName": name, "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent", "countTokens"]}),
    }).collect();
    if one.is_some() {
        return Reply::Json(200, each.first().cloned().unwrap_or_default());
    }
    Reply::Json(
        200,
        match dialect {
            Dialect::OpenAi => json!({"object": "list", "data": each}),
            Dialect::Anthropic => {
                json!({"data": each, "has_more": false, "first_id": names.first(), "last_id": names.last()})
            }
            Dialect::Gemini => json!({"models": each}),
        },
    )
}

/// OpenAI's images, moderation and speech; ranking as Cohere and Jina have it.
pub(super) fn media(kind: &str, body: &Value) -> Checked<Reply> {
    let request = Object::of(body, "")?;
    match kind {
        "images/generations" => {
            request.need_text("prompt")?;
            let n = request.integer("n")?.unwrap_or(1).min(10);
            let image = json!({"b64_json": base64::engine::general_purpose::STANDARD.encode(b"\x89PNG\r\n\x1a\nmock")});
            Ok(Reply::Json(
                200,
                json!({"created": 1_760_000_000, "data": vec![image; usize::try_from(n).unwrap_or(1)],
                "usage": {"total_tokens": 12, "input_tokens": 2, "output_tokens": 10, "input_tokens_details": {"text_tokens": 2, "image_tokens": 0}}}),
            ))
        }
        "moderations" => {
            request.need("input")?;
            let flagged = request.get("input").is_some_and(|input| input.to_string().contains("harm"));
            Ok(Reply::Json(
                200,
                json!({"id": "modr-mock", "model": request.text("model")?.unwrap_or("omni-moderation-latest"),
                "results": [{"flagged": flagged, "categories": {"violence": flagged}, "category_scores": {"violence": 0.1}, "category_applied_input_types": {"violence": ["text"]}}]}),
            ))
        }
        "audio/speech" => {
            request.need_text("model")?;
            request.need_text("voice")?;
            Ok(Reply::Bytes("audio/mpeg", request.need_text("input")?.as_bytes().repeat(4)))
        }
        _ => {
            let query = request.need_text("query")?;
            request.need("documents")?;
            let documents = request.list("documents")?;
            let score = |document: &Value| {
                let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
                query.split_whitespace().filter(|word| text.contains(word)).count() as f64 / 10.0
            };
            let mut results: Vec<(usize, f64)> =
                documents.iter().map(|(_, document)| score(document)).enumerate().collect();
            results.sort_by(|one, other| other.1.total_cmp(&one.1));
            let most = request
                .integer("top_n")?
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(results.len());
            let results: Vec<Value> = results
                .into_iter()
                .take(most)
                .map(|(index, score)| json!({"index": index, "relevance_score": score}))
                .collect();
            Ok(Reply::Json(
                200,
                json!({"id": "rerank-mock", "results": results, "meta": {"billed_units": {"search_units": 1}}}),
            ))
        }
    }
}

/// Transcription: a form with a file and a model, which is looked at no closer than that.
pub(super) fn transcription(body: &[u8], script: &Script) -> Checked<Reply> {
    let has = |name: &str| memchr::memmem::find(body, format!("name=\"{name}\"").as_bytes()).is_some();
    for name in ["file", "model"] {
        if !has(name) {
            return wrong(name, format!("Missing required parameter: '{name}'."));
        }
    }
    let text = answer::text_of(script.words.unwrap_or(8), script.unicode);
    let usage = json!({"type": "tokens", "total_tokens": 22, "input_tokens": 14, "output_tokens": 8, "input_token_details": {"text_tokens": 0, "audio_tokens": 14}});
    if memchr::memmem::find(body, b"name=\"stream\"\r\n\r\ntrue").is_none() {
        return Ok(Reply::Json(200, json!({"text": text, "usage": usage})));
    }
    let mut stream = Stream::default();
    let mut event = |data: Value| stream.events.push(sse(None, &data.to_string()));
    answer::words(&text)
        .into_iter()
        .for_each(|piece| event(json!({"type": "transcript.text.delta", "delta": piece})));
    event(json!({"type": "transcript.text.done", "text": text, "usage": usage}));
    Ok(Reply::Stream(stream))
}
