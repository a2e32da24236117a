//! Replies and errors.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{mutated, text, word};
use crate::dialect::Asked;
use crate::dialect::openai_responses::{decode_failure, decode_reply, encode_failure, encode_reply};
use crate::failure::FailureKind;
use crate::frames::Framing;
use crate::json::Reader;
use crate::loss::Losses;

pub(super) fn asked(echo: &[(&str, &str)]) -> Asked {
    Asked {
        model: "asked".to_owned(),
        stream_usage: true,
        framing: Framing::Events,
        now: 1_800_000_000,
        echo: echo.iter().map(|(name, raw)| ((*name).to_owned(), (*raw).to_owned())).collect(),
    }
}

fn item() -> impl Strategy<Value = Value> {
    prop_oneof![
        (text(), text(), prop::option::of(word())).prop_map(|(one, two, phase)| {
            let mut item = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": one, "annotations": [
                    {"type": "url_citation", "url": "https://a.example", "title": two, "start_index": 0, "end_index": 1}]},
                {"type": "output_text", "text": two, "annotations": []}]});
            if let Some(phase) = phase {
                item["phase"] = json!(phase);
            }
            item
        }),
        text().prop_map(|text| json!({"type": "message", "id": "msg_2", "role": "assistant", "content": [
            {"type": "refusal", "refusal": text}]})),
        (word(), prop::collection::vec(text(), 0..3), prop::collection::vec(text(), 0..2), prop::option::of(word()))
            .prop_map(|(id, summary, content, encrypted)| {
                let list = |kind: &str, texts: &[String]| -> Vec<Value> {
                    texts.iter().map(|text| json!({"type": kind, "text": format!("{text}.")})).collect()
                };
                json!({"type": "reasoning", "id": id, "summary": list("summary_text", &summary),
                    "content": list("reasoning_text", &content), "encrypted_content": encrypted})
            }),
        (word(), word(), text()).prop_map(|(id, name, arguments)| json!({"type": "function_call", "id": "fc_1",
            "call_id": id, "name": name, "arguments": format!("{{{arguments}}}"), "status": "completed"})),
        (word(), word(), text()).prop_map(|(id, name, input)| json!({"type": "custom_tool_call", "id": "ctc_1",
            "call_id": id, "name": name, "input": input, "namespace": "crm"})),
        word().prop_map(|id| json!({"type": "web_search_call", "id": id, "status": "completed"})),
    ]
}

prop_compose! {
    /// A response as the provider writes it. Neighbours of equal identity would be one item.
    pub(super) fn response()(
        items in prop::collection::vec(item(), 0..6),
        status in 0..4_usize,
        input in 0..9999_u64,
    ) -> Value {
        let items: Vec<Value> = items.into_iter().enumerate().map(|(index, mut item)| {
            if item["type"] == "reasoning" {
                item["id"] = json!(format!("rs_{index}"));
            }
            item
        }).collect();
        let (status, details) = [("completed", Value::Null), ("incomplete", json!({"reason": "max_output_tokens"})),
            ("incomplete", json!({"reason": "content_filter"})), ("incomplete", json!({"reason": "steered"}))][status].clone();
        json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "m", "status": status,
            "incomplete_details": details, "error": null, "output": items, "service_tier": "flex", "usage": {
                "input_tokens": input, "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
                "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": input + 2}})
    }
}

#[test]
fn what_fails_is_no_reply() {
    for (name, body, message) in [
        (
            "failed",
            json!({"id": "resp_1", "status": "failed", "output": [], "error": {"code": "server_error", "message": "M"}}),
            "The provider's response failed: M",
        ),
        ("an error", json!({"error": {"message": "M", "code": 1}}), "The provider's response failed: M"),
        ("neither", json!({"id": "x"}), "This field is required."),
    ] {
        let text = body.to_string();
        let error = decode_reply(text.as_bytes(), &mut Reader::default()).expect_err(name);
        assert_eq!(error.message, message, "{name}");
    }
}

#[test]
fn errors_are_read() {
    type Said<'s> = (u16, FailureKind, Option<&'s str>, &'s str);
    let cases: &[(&str, u16, &str, Said<'_>)] = &[
        (
            "OpenAI's",
            400,
            r#"{"error":{"message":"M","type":"invalid_request_error","param":"input[0]","code":"invalid_value"}}"#,
            (400, FailureKind::InvalidRequest, Some("invalid_value"), "M"),
        ),
        (
            "a number",
            429,
            r#"{"error":{"message":"M","code":429}}"#,
            (429, FailureKind::RateLimit, Some("429"), "M"),
        ),
        (
            "no money",
            429,
            r#"{"error":{"message":"M","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            (429, FailureKind::Quota, Some("insufficient_quota"), "M"),
        ),
        (
            "no model",
            404,
            r#"{"error":{"message":"M","code":"model_not_found"}}"#,
            (404, FailureKind::NotFound, Some("model_not_found"), "M"),
        ),
        (
            "a filter",
            400,
            r#"{"error":{"message":"M","code":"content_filter"}}"#,
            (400, FailureKind::ContentFilter, Some("content_filter"), "M"),
        ),
        (
            "a list",
            422,
            r#"{"detail":[{"loc":["body"],"msg":"M"}]}"#,
            (422, FailureKind::InvalidRequest, None, "M"),
        ),
        ("a detail", 401, r#"{"detail":"M"}"#, (401, FailureKind::Authentication, None, "M")),
        ("a string", 503, r#"{"error":"M"}"#, (503, FailureKind::Overloaded, None, "M")),
        (
            "a message",
            500,
            r#"{"object":"error","message":"M","type":"BadRequestError","code":500}"#,
            (500, FailureKind::Server, Some("500"), "M"),
        ),
        (
            "a page",
            502,
            "<html>secret</html>",
            (
                502,
                FailureKind::Server,
                None,
                "The provider answered with status 502 and nothing that explains it.",
            ),
        ),
        (
            "nothing",
            529,
            "",
            (
                529,
                FailureKind::Overloaded,
                None,
                "The provider answered with status 529 and nothing that explains it.",
            ),
        ),
        (
            "a failed response",
            200,
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"M"}}"#,
            (429, FailureKind::RateLimit, Some("rate_limit_exceeded"), "M"),
        ),
        (
            "a failed image",
            200,
            r#"{"error":{"code":"invalid_image_url","message":"M"}}"#,
            (400, FailureKind::InvalidRequest, Some("invalid_image_url"), "M"),
        ),
    ];
    for (name, status, body, expected) in cases {
        let failure = decode_failure(*status, body.as_bytes());
        let said = (failure.status, failure.kind, failure.code.as_deref(), &*failure.message);
        assert_eq!(said, *expected, "{name}");
    }
}

proptest! {
    #[test]
    fn replies_come_back(body in response()) {
        let body = body.to_string();
        let mut reader = Reader::default();
        let first = decode_reply(body.as_bytes(), &mut reader).expect("it is one");
        let mut losses = Losses::default();
        let written = encode_reply(&first, &asked(&[]), &mut losses);
        let second = decode_reply(&written, &mut reader).expect("it is one");
        prop_assert_eq!(&second, &first);
        prop_assert!(losses.is_empty(), "{}", losses);
        prop_assert!(reader.losses.is_empty(), "{}", reader.losses);
    }

    #[test]
    fn nothing_makes_it_panic(body in response(), changes in prop::collection::vec((0..99_usize, 0..99_usize), 1..4)) {
        let body = mutated(body, &changes);
        let mut reader = Reader::default();
        if let Ok(reply) = decode_reply(body.as_bytes(), &mut reader) {
            let written = encode_reply(&reply, &asked(&[("tools", "[]")]), &mut reader.losses);
            prop_assert!(crate::json::parse(&written).is_ok());
        }
        let failure = decode_failure(400, body.as_bytes());
        prop_assert!(crate::json::parse(&encode_failure(&failure)).is_ok());
    }

    #[test]
    fn errors_come_back(message in text(), code in prop::option::of(word()), param in prop::option::of(word())) {
        let body = json!({"error": {"message": message, "type": "server_error", "code": code, "param": param}});
        let first = decode_failure(500, body.to_string().as_bytes());
        prop_assert_eq!(decode_failure(500, &encode_failure(&first)), first);
    }
}
