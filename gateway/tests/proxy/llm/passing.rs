//! A client and a provider that speak the same: bytes go through as they are, but for the model and the key.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use super::*;
use crate::harness::{count, eventually, status};

#[test]
fn requests_of_every_dialect_reach_a_provider_of_the_same() {
    for (dialect, target, fields, body, expected_target, key) in [
        (
            "openai_chat",
            "/v1/chat/completions",
            "authorization: Bearer client\r\n",
            CHAT,
            "/v1/chat/completions",
            "authorization: Bearer sk-own",
        ),
        (
            "openai_responses",
            "/v1/responses",
            "",
            r#"{"model":"m","input":"hi"}"#,
            "/v1/responses",
            "authorization: Bearer sk-own",
        ),
        (
            "anthropic_messages",
            "/v1/messages?beta=true",
            "x-api-key: client\r\n",
            r#"{"model":"m","max_tokens":1,"messages":[]}"#,
            "/v1/messages?beta=true",
            "x-api-key: sk-own",
        ),
        (
            "anthropic_messages",
            "/v1/messages/count_tokens",
            "",
            r#"{"model":"m","messages":[]}"#,
            "/v1/messages/count_tokens",
            "x-api-key: sk-own",
        ),
        (
            "gemini",
            "/v1beta/models/m:generateContent?key=client",
            "",
            r#"{"contents":[]}"#,
            "/v1beta/models/m:generateContent",
            "x-goog-api-key: sk-own",
        ),
        (
            "gemini",
            "/v1/models/m:countTokens",
            "x-goog-api-key: client\r\n",
            r#"{"contents":[]}"#,
            "/v1beta/models/m:countTokens",
            "x-goog-api-key: sk-own",
        ),
        (
            "openai_chat",
            "/v1/embeddings",
            "",
            r#"{"model":"m","input":"a"}"#,
            "/v1/embeddings",
            "authorization: Bearer sk-own",
        ),
        (
            "openai_responses",
            "/v1/moderations",
            "",
            r#"{"model":"m","input":"a"}"#,
            "/v1/moderations",
            "authorization: Bearer sk-own",
        ),
    ] {
        let (upstream, heard) = provider(|_, conn| conn.send(&json("200", r#"{"a": 1.0, "unknown":[ ]}"#)));
        let proxy = gateway_of(&one(dialect, &upstream), "true");
        let private =
            "cookie: client\r\nx-forwarded-for: client\r\nopenai-organization: client\r\napi-key: client\r\n";
        let (head, text) = ask(&proxy, &post(target, &format!("{fields}{private}"), body));
        assert_eq!(status(&head), "200", "{target}: {head}");
        assert_eq!(text, r#"{"a": 1.0, "unknown":[ ]}"#, "{target}");
        let heard = next(&heard);
        assert_eq!((heard.target(), heard.body.as_str()), (expected_target, body), "{target}");
        assert!(heard.head.contains(&format!("{key}\r\n")), "{target}: {}", heard.head);
        assert!(!heard.head.contains("client"), "{target}: {}", heard.head);
        assert_eq!(heard.field("accept-encoding"), Some("identity"), "{target}");
        assert_eq!(heard.field("host"), Some(upstream.address.to_string().as_str()), "{target}");
    }
}

#[test]
fn only_the_model_changes() {
    let (upstream, heard) = provider(|_, conn| conn.send(&json("200", "{}")));
    let llm = format!(
        "  providers: {{one: {{dialect: openai_chat, base_url: \"http://{}/v1\", models: [gpt-a]}}}}
  models: {{fast: {{targets: [{{provider: one, model: gpt-x}}]}}, \"g-*\": {{targets: [{{provider: one}}]}}}}
  aliases: {{quick: fast, same: gpt-a}}",
        upstream.address
    );
    let proxy = gateway_of(&llm, "true");
    for (asked, expected) in [
        ("fast", "gpt-x"),
        ("quick", "gpt-x"),
        ("same", "gpt-a"),
        ("gpt-a", "gpt-a"),
        ("one/gpt-a", "gpt-a"),
        ("g-7", "g-7"),
    ] {
        let body =
            |model: &str| format!("\n{{ \"x\" : 1.00 ,\"model\":\"{model}\", \"messages\":[ \"\\u00e9\" ]}}");
        let (head, _) = ask(&proxy, &post("/v1/chat/completions", "", &body(asked)));
        assert_eq!(status(&head), "200", "{asked}: {head}");
        assert_eq!(next(&heard).body, body(expected), "{asked}");
    }
}

#[test]
fn a_form_keeps_its_file() {
    let (upstream, heard) = provider(|_, conn| conn.send(&json("200", "{\"text\":\"hi\"}")));
    let llm = format!(
        "  providers: {{one: {{dialect: openai_chat, base_url: \"http://{}/v1\"}}}}
  models: {{ears: {{targets: [{{provider: one, model: whisper-1}}]}}}}",
        upstream.address
    );
    let proxy = gateway_of(&llm, "true");
    let form = |model: &str| {
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\u{0}\u{1}--b\r\n--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n"
        )
    };
    let body = form("ears");
    let request = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a.test\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (head, _) = ask(&proxy, &request);
    assert_eq!(status(&head), "200", "{head}");
    let heard = next(&heard);
    assert_eq!(
        (heard.target(), heard.body.as_str()),
        ("/v1/audio/transcriptions", form("whisper-1").as_str())
    );
    assert_eq!(heard.field("content-type"), Some("multipart/form-data; boundary=b"));
}

#[test]
fn a_client_keeps_its_own_key_where_the_provider_says_so() {
    let (upstream, heard) = provider(|_, conn| conn.send(&json("200", "{}")));
    let llm = format!(
        "  providers: {{one: {{dialect: gemini, base_url: \"http://{}\", api_key: pass, models: [\"*\"]}}}}",
        upstream.address
    );
    let proxy = gateway_of(&llm, "true");
    for (target, fields) in [
        ("/v1beta/models/m:generateContent?key=mine", ""),
        ("/v1beta/models/m:generateContent", "authorization: Bearer mine\r\n"),
        ("/v1beta/models/m:generateContent", "x-api-key: mine\r\n"),
    ] {
        ask(&proxy, &post(target, fields, "{}"));
        let heard = next(&heard);
        assert_eq!(heard.field("x-goog-api-key"), Some("mine"), "{target} {fields}");
        assert_eq!(
            (heard.target(), heard.field("authorization")),
            ("/v1beta/models/m:generateContent", None)
        );
    }
}

const STREAM: &[&str] = &[
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\"}}]}\n\n",
    ": a comment\n\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
];
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":4,\"total_tokens\":11}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn the_usage_of_a_stream_is_asked_for_and_told_to_who_wants_it() {
    let tokens = |direction: &str| {
        count(&format!(
            "gateway_llm_tokens_total{{provider=\"one\",model=\"usage\",direction=\"{direction}\"}}"
        ))
    };
    let before = (tokens("input"), tokens("output"));
    let (upstream, heard) = provider(|_, conn| {
        let events: Vec<&str> = STREAM.iter().copied().chain([USAGE, DONE]).collect();
        conn.send(EVENTS);
        events.iter().for_each(|event| conn.send(&chunk(event)));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    for (name, options, sent, told) in [
        ("not asked", "", r#""stream_options":{"include_usage":true},"#, false),
        ("asked", r#","stream_options":{"include_usage":true}"#, "", true),
    ] {
        let body = format!("{{\"model\":\"usage\",\"stream\":true{options}}}");
        let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", &body));
        assert!(head.contains("content-type: text/event-stream"), "{name}: {head}");
        assert_eq!(next(&heard).body, body.replacen('{', &format!("{{{sent}"), 1), "{name}");
        let usage = if told { USAGE } else { "" };
        assert_eq!(text, format!("{}{usage}{DONE}", STREAM.concat()), "{name}");
    }
    eventually("the tokens are counted", || {
        (tokens("input") - before.0, tokens("output") - before.1) == (14, 8)
    });
}

#[test]
fn an_event_is_with_the_client_before_the_next_one_is_written() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk("data: {\"a\":1}\n\n"));
        thread::sleep(Duration::from_millis(400));
        conn.send(&chunk("data: {\"a\":2}\n\n"));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/chat/completions", "", r#"{"model":"m","stream":true}"#).as_bytes()).unwrap();
    let (first, _) = rest(&mut client, 200);
    assert!(first.contains("{\"a\":1}") && !first.contains("{\"a\":2}"), "{first}");
    let (second, _) = rest(&mut client, 600);
    assert!(second.contains("{\"a\":2}") && second.ends_with("0\r\n\r\n"), "{second}");
}

#[test]
fn what_is_about_the_gateways_account_stays_here() {
    let (upstream, _heard) = provider(|_, conn| {
        let fields = "content-type: application/json\r\nset-cookie: a=b\r\nopenai-organization: acme\r\nx-ratelimit-remaining-tokens: 5\r\nx-request-id: r\r\n";
        conn.send(&whole("200", fields, "{}"));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let (head, _) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
    assert!(!head.contains("set-cookie") && !head.contains("acme"), "{head}");
    assert!(head.contains("x-ratelimit-remaining-tokens: 5") && head.contains("x-request-id: r"), "{head}");
}

#[test]
fn models_are_listed_in_the_clients_dialect() {
    let (upstream, heard) = provider(|_, conn| conn.send(&json("200", "{}")));
    let llm = format!(
        "  providers: {{one: {{dialect: openai_chat, base_url: \"http://{}/v1\", models: [gpt-a, \"gpt-*\"]}}}}
  models: {{fast: {{targets: [{{provider: one, model: gpt-x}}]}}}}
  aliases: {{quick: fast}}",
        upstream.address
    );
    let proxy = gateway_of(&llm, "true");
    let get = |target: &str, fields: &str| {
        let (head, body) = ask(&proxy, &format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status(&head).to_owned(), body)
    };
    let names = |list: &serde_json::Value, name: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|model| model[name].as_str().unwrap().to_owned()).collect()
    };
    let (_, openai) = get("/v1/models", "");
    assert_eq!(
        (names(&openai["data"], "id"), &openai["object"]),
        (vec!["fast".into(), "gpt-a".into(), "quick".into()], &"list".into())
    );
    let (_, anthropic) = get("/v1/models", "anthropic-version: 2023-06-01\r\n");
    assert_eq!((&anthropic["first_id"], &anthropic["data"][0]["type"]), (&"fast".into(), &"model".into()));
    let (_, gemini) = get("/v1beta/models", "");
    assert_eq!(names(&gemini["models"], "name"), ["models/fast", "models/gpt-a", "models/quick"]);
    assert_eq!(get("/v1/models/gpt-7", "").1["id"], "gpt-7");
    assert!(is_silent(&heard));
}
