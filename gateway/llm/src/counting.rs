//! Requests that only ask how many tokens a request has: Anthropic's `/v1/messages/count_tokens`, Gemini's
//! `:countTokens` and OpenAI's `/v1/responses/input_tokens`. Chat Completions has none.
//!
//! They are requests like any other, without what has no bearing on the prompt, so that each dialect's own reading and
//! writing does the work, and fields are chosen here.

use crate::dialect::{Call, Dialect, anthropic_messages};
use crate::invalid::{Invalid, Reason};
use crate::json::{self, Node, Number, Path, Reader, Value};
use crate::loss::{Losses, What};
use crate::neutral::Request;
use crate::target::Target;

/// What Anthropic takes of a request.
const ANTHROPIC_FIELDS: &[&str] = &[
    "billing_policy",
    "cache_control",
    "compaction",
    "context_management",
    "mcp_servers",
    "messages",
    "model",
    "output_config",
    "speed",
    "system",
    "thinking",
    "tool_choice",
    "tools",
    "user_profile_id",
    "workspace_id",
];

/// What OpenAI takes of a request.
const RESPONSES_FIELDS: &[&str] = &[
    "conversation",
    "input",
    "instructions",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
];

/// How many tokens a request has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub input: u64,
    /// Of these, in a cache (Gemini).
    pub cached: Option<u64>,
    /// How many they were before the context was edited (Anthropic).
    pub original: Option<u64>,
}

/// Whether a dialect can ask this.
#[must_use]
pub const fn counts(dialect: Dialect) -> bool {
    !matches!(dialect, Dialect::OpenaiChat)
}

/// Reads a client's request.
///
/// # Errors
/// When the body is none of this dialect's.
pub fn decode_request<'a>(
    dialect: Dialect,
    body: &'a [u8],
    call: &Call<'a>,
    reader: &mut Reader,
) -> Result<Request<'a>, Invalid> {
    match dialect {
        Dialect::AnthropicMessages => anthropic_messages::decode_counting(body, reader),
        Dialect::Gemini => {
            // Either the contents alone, or a whole request under this name.
            let node = json::parse(body)?;
            let whole = node.get("generateContentRequest").or_else(|| node.get("generate_content_request"));
            let body = whole.map_or(body, |whole| whole.raw.as_bytes());
            let mut request = dialect.decode_request(body, call, reader)?;
            if request.model.is_empty()
                && let Some(model) = whole.and_then(|whole| whole.get("model")).and_then(Node::as_text)
            {
                request.model = model.trim_start_matches("models/").to_owned().into();
            }
            Ok(request)
        }
        Dialect::OpenaiChat | Dialect::OpenaiResponses => dialect.decode_request(body, call, reader),
    }
}

/// Writes a request for a provider.
///
/// # Errors
/// When the dialect has none such, or the provider would refuse it.
pub fn encode_request(
    dialect: Dialect,
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Vec<u8>, Invalid> {
    let fields = match dialect {
        Dialect::AnthropicMessages => ANTHROPIC_FIELDS,
        Dialect::OpenaiResponses => RESPONSES_FIELDS,
        Dialect::Gemini => {
            return Ok(within_gemini(&dialect.encode_request(request, target, losses)?, target));
        }
        Dialect::OpenaiChat => {
            let message = "The provider's dialect has no request that counts tokens.";
            return Err(Invalid::new(Reason::Value, String::new(), message));
        }
    };
    // What is left out of the body has no bearing on the count: it is not lost.
    let body = dialect.encode_request(request, target, losses)?;
    only(&body, fields)
}

/// The members of an object that have one of these names.
fn only(body: &[u8], names: &[&str]) -> Result<Vec<u8>, Invalid> {
    let node = json::parse(body)?;
    let mut out = Vec::with_capacity(body.len());
    json::object(&mut out, |object| {
        if let Value::Object(members) = &node.value {
            for (name, value) in members.iter().filter(|(name, _)| names.contains(&&**name)) {
                object.raw(name, value.raw);
            }
        }
    });
    Ok(out)
}

/// A whole request of Gemini's, in one that counts: only there system instructions and tools count as well.
fn within_gemini(body: &[u8], target: &Target<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 80);
    let model = match target.model.split_once('/') {
        Some(_) => target.model.to_owned(),
        None => format!("models/{}", target.model),
    };
    let node = json::parse(body).ok();
    json::object(&mut out, |object| {
        object.object("generateContentRequest", |object| {
            object.text("model", &model);
            if let Some(Value::Object(members)) = node.as_ref().map(|node| &node.value) {
                for (name, value) in members.iter().filter(|(name, _)| name != "model") {
                    object.raw(name, value.raw);
                }
            }
        });
    });
    out
}

/// Reads a provider's count.
///
/// # Errors
/// When it is none.
pub fn decode_reply(dialect: Dialect, body: &[u8], reader: &mut Reader) -> Result<Count, Invalid> {
    let name = total_name(dialect);
    reader.object(json::parse(body)?, &Path::Root, |fields, reader| {
        let mut count =
            Count { input: fields.whole(name)?.ok_or_else(|| Path::Root.misses(name))?, ..Count::default() };
        match dialect {
            Dialect::AnthropicMessages => {
                let edited = fields.take("context_management");
                let original = edited.as_ref().and_then(|node| node.get("original_input_tokens"));
                count.original = original.and_then(|node| match node.value {
                    Value::Number(number) => Number::from_text(number).as_u64(),
                    _ => None,
                });
            }
            Dialect::Gemini => {
                count.cached = fields.whole("cachedContentTokenCount")?;
                for name in ["promptTokensDetails", "cacheTokensDetails", "totalBillableCharacters"] {
                    if fields.take(name).is_some() {
                        reader.loses(What::UsageDetail, &Path::Root.field(name));
                    }
                }
            }
            Dialect::OpenaiChat | Dialect::OpenaiResponses => _ = fields.text("object")?,
        }
        Ok(count)
    })
}

/// Writes a count for a client.
#[must_use]
pub fn encode_reply(dialect: Dialect, count: &Count, losses: &mut Losses) -> Vec<u8> {
    let Count { input, cached, original } = *count;
    if cached.is_some() && dialect != Dialect::Gemini {
        losses.add(What::UsageDetail, "cachedContentTokenCount");
    }
    if original.is_some() && dialect != Dialect::AnthropicMessages {
        losses.add(What::UsageDetail, "context_management.original_input_tokens");
    }
    let mut out = Vec::with_capacity(64);
    json::object(&mut out, |object| {
        if matches!(dialect, Dialect::OpenaiChat | Dialect::OpenaiResponses) {
            object.text("object", "response.input_tokens");
        }
        object.whole(total_name(dialect), input);
        match dialect {
            Dialect::Gemini => object.some_whole("cachedContentTokenCount", cached),
            Dialect::AnthropicMessages => {
                if let Some(original) = original {
                    let write =
                        |object: &mut json::Object<'_>| object.whole("original_input_tokens", original);
                    object.object("context_management", write);
                }
            }
            Dialect::OpenaiChat | Dialect::OpenaiResponses => {}
        }
    });
    out
}

const fn total_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Gemini => "totalTokens",
        Dialect::AnthropicMessages | Dialect::OpenaiChat | Dialect::OpenaiResponses => "input_tokens",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of Anthropic's, as they are asked of others; a bound on the answer is no part of them.
    #[test]
    fn requests_are_asked_of_others() {
        let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
        let own = |rest: &str| format!(r#"{{"model":"m",{hi}{rest}}}"#);
        let tools = r#","tools":[{"name":"f","input_schema":{"type":"object"}}]"#;
        for (name, body, expected) in [
            ("the least", own(""), own("")),
            (
                "system",
                format!(r#"{{"model":"m","system":"s",{hi}}}"#),
                format!(r#"{{"model":"m","system":"s",{hi}}}"#),
            ),
            ("tools", own(tools), own(tools)),
            (
                "what has no bearing is left out",
                own(r#","max_tokens":9,"temperature":1,"stream":true,"metadata":{"user_id":"u"}"#),
                own(""),
            ),
        ] {
            let mut reader = Reader::default();
            let call = Call::default();
            let request = decode_request(Dialect::AnthropicMessages, body.as_bytes(), &call, &mut reader)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut losses = Losses::default();
            let target = Target::new("m");
            let written = encode_request(Dialect::AnthropicMessages, &request, &target, &mut losses)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(String::from_utf8_lossy(&written), expected, "{name}");
            assert!(losses.is_empty() && reader.losses.is_empty(), "{name}: {losses}");
            assert!(encode_request(Dialect::OpenaiChat, &request, &target, &mut losses).is_err());
        }
        assert!(!counts(Dialect::OpenaiChat) && counts(Dialect::Gemini));
    }

    #[test]
    fn whole_requests_of_gemini_name_their_model() {
        for (model, expected) in [("gemini-3-pro", "models/gemini-3-pro"), ("tunedModels/x", "tunedModels/x")]
        {
            let body = within_gemini(br#"{"contents":[],"tools":[]}"#, &Target::new(model));
            let expected =
                format!(r#"{{"generateContentRequest":{{"model":"{expected}","contents":[],"tools":[]}}}}"#);
            assert_eq!(String::from_utf8_lossy(&body), expected);
        }
    }

    #[test]
    fn counts_are_told_in_each_dialect() {
        let (anthropic, gemini, responses) =
            (Dialect::AnthropicMessages, Dialect::Gemini, Dialect::OpenaiResponses);
        for (from, body, to, expected, lost) in [
            (anthropic, r#"{"input_tokens":14}"#, anthropic, r#"{"input_tokens":14}"#, 0),
            (anthropic, r#"{"input_tokens":14}"#, gemini, r#"{"totalTokens":14}"#, 0),
            (
                anthropic,
                r#"{"input_tokens":14,"context_management":{"original_input_tokens":90}}"#,
                anthropic,
                r#"{"input_tokens":14,"context_management":{"original_input_tokens":90}}"#,
                0,
            ),
            (
                anthropic,
                r#"{"input_tokens":14,"context_management":{"original_input_tokens":90}}"#,
                gemini,
                r#"{"totalTokens":14}"#,
                1,
            ),
            (
                gemini,
                r#"{"totalTokens":31,"cachedContentTokenCount":5,"promptTokensDetails":[{"modality":"TEXT","tokenCount":31}]}"#,
                gemini,
                r#"{"totalTokens":31,"cachedContentTokenCount":5}"#,
                1,
            ),
            (
                gemini,
                r#"{"totalTokens":31,"cachedContentTokenCount":5}"#,
                anthropic,
                r#"{"input_tokens":31}"#,
                1,
            ),
            (
                gemini,
                r#"{"totalTokens":31}"#,
                responses,
                r#"{"object":"response.input_tokens","input_tokens":31}"#,
                0,
            ),
            (
                responses,
                r#"{"object":"response.input_tokens","input_tokens":3}"#,
                anthropic,
                r#"{"input_tokens":3}"#,
                0,
            ),
        ] {
            let mut reader = Reader::default();
            let count = decode_reply(from, body.as_bytes(), &mut reader).expect("it is a count");
            let mut losses = reader.losses;
            let written = encode_reply(to, &count, &mut losses);
            assert_eq!(String::from_utf8_lossy(&written), expected, "{body}");
            assert_eq!(losses.count(), lost, "{body}: {losses}");
        }
        assert!(decode_reply(gemini, br#"{"input_tokens":1}"#, &mut Reader::default()).is_err());
        assert!(decode_reply(anthropic, br#"{"input_tokens":-1}"#, &mut Reader::default()).is_err());
    }
}
