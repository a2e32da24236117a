//! Each dialect of a client by each of a provider, whole and streamed, against a mock that refuses what providers refuse.

use gateway::mock_provider::MockProvider;

use super::*;
use crate::harness::status;

/// A dialect, where its clients ask, what they say, and what only a stream says; `STREAM` and `METHOD` stand for whether it
/// streams.
const CLIENTS: [(&str, &str, &str, &str); 4] = [
    (
        "openai_chat",
        "/v1/chat/completions",
        r#"{"model":"MODEL","stream":STREAM,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"[[say=\"ho né\"]]"}]}"#,
        "data: [DONE]",
    ),
    (
        "openai_responses",
        "/v1/responses",
        r#"{"model":"MODEL","stream":STREAM,"instructions":"be brief","input":"[[say=\"ho né\"]]"}"#,
        "event: response.completed",
    ),
    (
        "anthropic_messages",
        "/v1/messages",
        r#"{"model":"MODEL","max_tokens":64,"stream":STREAM,"system":"be brief","messages":[{"role":"user","content":"[[say=\"ho né\"]]"}]}"#,
        "event: message_stop",
    ),
    (
        "gemini",
        "/v1beta/models/MODEL:METHOD",
        r#"{"systemInstruction":{"parts":[{"text":"be brief"}]},"contents":[{"role":"user","parts":[{"text":"[[say=\"ho né\"]]"}]}]}"#,
        "data: ",
    ),
];

#[test]
fn every_client_reaches_every_provider() {
    let mock = MockProvider::start().unwrap();
    let at = mock.address();
    let llm = format!(
        "  providers:
    openai_chat: {{dialect: openai_chat, base_url: \"http://{at}/v1\", api_key: sk-mock}}
    openai_responses: {{dialect: openai_responses, base_url: \"http://{at}/v1\", api_key: sk-mock}}
    anthropic_messages: {{dialect: anthropic_messages, base_url: \"http://{at}\", api_key: sk-mock}}
    gemini: {{dialect: gemini, base_url: \"http://{at}/v1beta\", api_key: sk-mock}}"
    );
    let proxy = gateway_of(&llm, "true");
    let models = [
        ("openai_chat", "gpt-4.1"),
        ("openai_responses", "gpt-4.1"),
        ("anthropic_messages", "claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash"),
    ];
    for (client, target, body, last) in CLIENTS {
        for (provider, model) in models {
            for streams in ["false", "true"] {
                let named = format!("{provider}/{model}");
                let body = body.replace("MODEL", &named).replace("STREAM", streams);
                let method =
                    if streams == "true" { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let target = target.replace("MODEL", &named).replace("METHOD", method);
                let (head, text) = ask(&proxy, &post(&target, "anthropic-version: 2023-06-01\r\n", &body));
                let name = format!("{client} to {provider}, streams: {streams}");
                assert_eq!(status(&head), "200", "{name}: {text}");
                assert!(text.contains("ho"), "{name}: {text}");
                assert_eq!(text.contains(last), streams == "true", "{name}: {text}");
                assert!(!text.contains("\"error\":{"), "{name}: {text}");
            }
        }
    }
    assert_eq!(mock.requests().len(), 32);
}
