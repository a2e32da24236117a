//! The list of models, as each dialect writes it: the names that the configuration has.

use bytes::Bytes;
use gateway_llm::dialect::Dialect;
use gateway_llm::failure::FailureKind;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value as Json, json};

use crate::model::Llm;

use super::failure::{NO_MODEL, Refusal};

/// When each of them was made, which nobody knows: a time that is the same on every gateway.
const CREATED: u64 = 1_735_689_600;
const CREATED_AT: &str = "2025-01-01T00:00:00Z";

/// All of them.
pub(super) fn list(llm: &Llm, dialect: Dialect) -> Response<Bytes> {
    let models: Vec<Json> = llm.listed.iter().map(|name| entry(name, dialect)).collect();
    let body = match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => json!({ "object": "list", "data": models }),
        Dialect::AnthropicMessages => json!({
            "data": models,
            "has_more": false,
            "first_id": llm.listed.first(),
            "last_id": llm.listed.last(),
        }),
        Dialect::Gemini => json!({ "models": models }),
    };
    answer(&body)
}

/// One of them.
pub(super) fn one(llm: &Llm, dialect: Dialect, name: &str) -> Result<Response<Bytes>, Refusal> {
    if llm.find(name).is_none() {
        return Err(unknown(name));
    }
    Ok(answer(&entry(name, dialect)))
}

/// Nobody serves a model.
pub(super) fn unknown(name: &str) -> Refusal {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let mut refusal =
        Refusal::new(NO_MODEL, FailureKind::NotFound, format!("The model `{shown}` does not exist here."));
    refusal.failure.code = Some("model_not_found".to_owned());
    refusal.failure.param = Some("model".to_owned());
    refusal
}

fn entry(name: &str, dialect: Dialect) -> Json {
    match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => {
            json!({ "id": name, "object": "model", "created": CREATED, "owned_by": "gateway" })
        }
        Dialect::AnthropicMessages => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": CREATED_AT })
        }
        Dialect::Gemini => json!({
            "name": format!("models/{name}"),
            "displayName": name,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
    }
}

fn answer(body: &Json) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
