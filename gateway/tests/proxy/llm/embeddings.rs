//! Texts become vectors whoever is asked: OpenAI's shape and Gemini's, both ways, against the mock.

use gateway::mock_provider::MockProvider;
use serde_json::{Value, json};

use super::*;
use crate::harness::{count, eventually, status};

fn everybody(mock: &MockProvider) -> String {
    let at = mock.address();
    format!(
        "  providers:
    openai: {{dialect: openai_chat, base_url: \"http://{at}/v1\", api_key: sk-mock}}
    gemini: {{dialect: gemini, base_url: \"http://{at}/v1beta\", api_key: sk-mock}}
    claude: {{dialect: anthropic_messages, base_url: \"http://{at}\", api_key: sk-mock}}
  models:
    vectors: {{targets: [{{provider: gemini, model: gemini-embedding-001}}]}}
    text-embedding-3-small: {{targets: [{{provider: openai}}]}}
    either: {{targets: [{{provider: gemini, model: gemini-embedding-001}}, {{provider: openai, model: text-embedding-3-small}}]}}"
    )
}

fn asked(proxy: &Proxy, target: &str, body: &Value) -> (String, String, Value) {
    let (head, text) = ask(proxy, &post(target, "", &body.to_string()));
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status(&head).to_owned(), head, value)
}

#[test]
fn shapes_are_translated_both_ways() {
    let mock = MockProvider::start().unwrap();
    let proxy = gateway_of(&everybody(&mock), "true");
    let part = |text: &str| json!({"parts": [{"text": text}]});
    let one = |text: &str| json!({"model": "models/x", "content": part(text), "outputDimensionality": 4});
    // What comes back has as many vectors, of as many numbers, where the client looks for them.
    let cases = [
        (
            "OpenAI's, one text",
            "/v1/embeddings",
            json!({"model": "gemini/gemini-embedding-001", "input": "a", "dimensions": 4}),
            vec!["/data/0/embedding/3"],
            "/data/1",
            "/v1beta/models/gemini-embedding-001:embedContent",
        ),
        (
            "OpenAI's, several",
            "/v1/embeddings",
            json!({"model": "gemini/gemini-embedding-001", "input": ["a", "b"], "dimensions": 4}),
            vec!["/data/0/embedding/3", "/data/1/embedding/3"],
            "/data/2",
            "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        ),
        (
            "Gemini's, one text",
            "/v1beta/models/text-embedding-3-small:embedContent",
            json!({"content": part("a"), "outputDimensionality": 4}),
            vec!["/embedding/values/3"],
            "/embeddings",
            "/v1/embeddings",
        ),
        (
            "Gemini's, several",
            "/v1beta/models/text-embedding-3-small:batchEmbedContents",
            json!({"requests": [one("a"), one("b")]}),
            vec!["/embeddings/0/values/3", "/embeddings/1/values/3"],
            "/embeddings/2",
            "/v1/embeddings",
        ),
        (
            "Gemini's, by another name",
            "/v1beta/models/vectors:batchEmbedContents",
            json!({"requests": [{"model": "models/vectors", "content": part("a"), "outputDimensionality": 4}]}),
            vec!["/embeddings/0/values/3"],
            "/embeddings/1",
            "/v1beta/models/gemini-embedding-001:embedContent",
        ),
    ];
    for (name, target, body, there, not_there, path) in cases {
        mock.forget();
        let (status, _, answer) = asked(&proxy, target, &body);
        assert_eq!(status, "200", "{name}: {answer}");
        for pointer in there {
            assert!(answer.pointer(pointer).is_some_and(Value::is_number), "{name}: {pointer}: {answer}");
        }
        assert_eq!(answer.pointer(not_there), None, "{name}");
        let heard = mock.requests();
        assert_eq!(heard.len(), 1, "{name}");
        assert_eq!(heard[0].target, path, "{name}");
        let names = ["models/gemini-embedding-001", "text-embedding-3-small"];
        let body: Value = serde_json::from_slice(&heard[0].body).unwrap();
        let inside = body.pointer("/requests/0/model").unwrap_or(&body["model"]);
        assert!(names.iter().any(|name| inside == name), "{name}: {inside}");
    }
}

#[test]
fn vectors_come_as_the_client_wants_them_and_losses_are_told() {
    let mock = MockProvider::start().unwrap();
    let proxy = gateway_of(&everybody(&mock), "true");
    let body = json!({"model": "gemini/gemini-embedding-001", "input": "a", "encoding_format": "base64", "user": "u"});
    let (status, head, answer) = asked(&proxy, "/v1/embeddings", &body);
    assert_eq!(status, "200", "{answer}");
    // Eight floats of four bytes each.
    assert_eq!(answer["data"][0]["embedding"].as_str().map(str::len), Some(44), "{answer}");
    assert_eq!(answer["model"], "gemini/gemini-embedding-001", "{answer}");
    assert!(head.contains("gateway-llm-losses: ") && head.contains("at=\"user\""), "{head}");

    let tokens = || {
        count(
            "gateway_llm_tokens_total{provider=\"openai\",model=\"text-embedding-3-small\",direction=\"input\"}",
        )
    };
    let before = tokens();
    let body = json!({"content": {"parts": [{"text": "two words"}]}});
    let target = "/v1beta/models/text-embedding-3-small:embedContent";
    assert_eq!(asked(&proxy, target, &body).0, "200");
    eventually("tokens of a translated answer are counted", || tokens() == before + 2);
}

#[test]
fn who_cannot_be_asked_is_passed_over() {
    let mock = MockProvider::start().unwrap();
    let proxy = gateway_of(&everybody(&mock), "true");
    let tokens = json!([1, 2, 3]);
    for (name, model, input, expected) in [
        ("a dialect without embeddings", "claude/claude-haiku-4-5", json!("a"), "400"),
        ("numbers of tokens mean nothing to the one", "gemini/gemini-embedding-001", tokens.clone(), "400"),
        ("and something to the next", "either", tokens, "200"),
        ("no input", "gemini/gemini-embedding-001", json!(null), "400"),
    ] {
        let body = json!({"model": model, "input": input});
        let (status, _, answer) = asked(&proxy, "/v1/embeddings", &body);
        assert_eq!(status, expected, "{name}: {answer}");
        assert_eq!(answer.pointer("/error/message").is_some(), expected == "400", "{name}: {answer}");
    }
}
