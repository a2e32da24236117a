//! What clients are told when something is wrong: with their requests, or with a provider.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use super::*;
use crate::harness::status;

#[test]
fn requests_that_are_wrong_go_nowhere() {
    let (upstream, heard) = provider(|_, conn| conn.send(&json("200", "{}")));
    let llm = format!(
        "  providers: {{one: {{dialect: openai_chat, base_url: \"http://{}/v1\", models: [m]}}}}",
        upstream.address
    );
    let proxy = gateway_of(&llm, "{max_body: 1KiB, body_timeout: 300ms}");
    let target = "/v1/chat/completions";
    let large = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "x".repeat(1024));
    for (name, request, expected, code) in [
        ("no JSON", post(target, "", "{\"model\":\"m\","), "400", "invalid_json"),
        ("no object", post(target, "", "[]"), "400", "invalid_type"),
        ("no model", post(target, "", "{}"), "400", "llm_invalid_request"),
        ("a model that is none", post(target, "", "{\"model\":1}"), "400", "invalid_type"),
        ("a name twice", post(target, "", "{\"model\":\"m\",\"model\":\"n\"}"), "400", "duplicate_key"),
        ("too deep", post(target, "", &format!("{{\"a\":{}", "[".repeat(500))), "413", "too_large"),
        ("an unknown model", post(target, "", "{\"model\":\"n\"}"), "404", "model_not_found"),
        ("too large", post(target, "", &large), "413", "body_too_large"),
        ("compressed", post(target, "content-encoding: gzip\r\n", "{}"), "415", "body_coding"),
    ] {
        let mut client = connect(&proxy);
        client.write_all(request.as_bytes()).unwrap();
        let (head, text) = answer(&mut client);
        assert_eq!(status(&head), expected, "{name}: {text}");
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["error"]["code"], code, "{name}: {text}");
    }
    // Half of a body, and then nothing.
    let mut client = connect(&proxy);
    let begin = post(target, "", "{\"model\":\"m\"}").replace("content-length: 13", "content-length: 99");
    client.write_all(begin.as_bytes()).unwrap();
    let (head, text) = answer(&mut client);
    assert_eq!(status(&head), "408", "{head}");
    assert!(text.starts_with("{\"error\"") && text.contains("body_timeout"), "{text}");
    // What is no API of an LLM is told in the gateway's own words.
    let (head, text) = ask(&proxy, &post("/v1/other", "", "{}"));
    assert_eq!(status(&head), "404");
    assert!(text.contains("\"code\":\"no_route\""), "{text}");
    assert!(is_silent(&heard));
}

#[test]
fn a_providers_errors_are_told_as_they_are() {
    let own =
        r#"{"error": {"message":"slow down","type":"x","param":null,"code":"rate_limit"} , "more": 1.0}"#;
    for (name, answer, expected, text, fields) in [
        (
            "its own",
            whole(
                "429",
                "content-type: application/json\r\nretry-after: 7\r\nx-ratelimit-limit-requests: 5\r\n",
                own,
            ),
            "429",
            Some(own),
            &["retry-after: 7", "x-ratelimit-limit-requests: 5"][..],
        ),
        ("wrong", json("422", own), "422", Some(own), &[]),
        (
            "a page",
            whole("503", "content-type: text/html\r\nretry-after: 3\r\n", "<html>secret</html>"),
            "503",
            None,
            &["retry-after: 3", "content-type: application/json"],
        ),
        ("JSON that is none", json("500", "<html>secret"), "500", None, &["content-type: application/json"]),
        ("nothing", whole("502", "", ""), "502", None, &["content-type: application/json"]),
        ("a redirect", whole("307", "location: http://127.0.0.1:1/secret\r\n", ""), "502", None, &[]),
        (
            "an answer that is a page",
            whole("200", "content-type: text/html\r\n", "<html>secret"),
            "502",
            None,
            &[],
        ),
        ("an answer of no type", whole("200", "", "secret"), "502", None, &[]),
        ("an answer that is no JSON", json("200", "secret"), "502", None, &[]),
        (
            "its key, and a part of it",
            json("401", r#"{"error":{"message":"Incorrect API key: sk-secret"}}"#),
            "401",
            None,
            &[],
        ),
    ] {
        let (upstream, _heard) = provider(move |_, conn| conn.send(&answer));
        let proxy = gateway_of(&one("openai_chat", &upstream), "true");
        let (head, body) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
        assert_eq!(status(&head), expected, "{name}: {body}");
        match text {
            Some(text) => assert_eq!(body, text, "{name}"),
            None => {
                let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert!(parsed["error"]["message"].is_string(), "{name}: {body}");
            }
        }
        assert!(!body.contains("secret") && !head.contains("secret"), "{name}: {head} {body}");
        for field in fields {
            assert!(head.contains(field), "{name}: {head}");
        }
    }
}

#[test]
fn a_provider_that_stops_is_not_waited_for() {
    for (name, begin, expected) in [
        ("before its answer", String::new(), "504"),
        (
            "after the head",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n".to_owned(),
            "504",
        ),
    ] {
        let (upstream, _heard) = provider(move |_, conn| {
            conn.send(&begin);
            thread::sleep(Duration::from_secs(5));
        });
        let llm = one("openai_chat", &upstream)
            .replace("api_key", "response_timeout: 200ms, idle_timeout: 200ms, api_key");
        let proxy = gateway_of(&llm, "true");
        let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
        assert_eq!(status(&head), expected, "{name}: {text}");
        assert!(text.starts_with("{\"error\""), "{name}: {text}");
    }
}

#[test]
fn a_body_that_breaks_off_does_not_pass_for_whole() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
        conn.send(&chunk("{\"a\":"));
        let _ = conn.stream.shutdown(std::net::Shutdown::Both);
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/chat/completions", "", CHAT).as_bytes()).unwrap();
    let (text, is_closed) = rest(&mut client, 2_000);
    assert!(is_closed && !text.ends_with("0\r\n\r\n"), "{text}");
}

#[test]
fn what_a_provider_compresses_is_decoded() {
    let encoded = {
        use flate2::{Compression, write::GzEncoder};
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(REPLY.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let (upstream, _heard) = provider(move |_, conn| {
        conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", encoded.len()));
        conn.stream.write_all(&encoded).unwrap();
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let (head, text) = ask(&proxy, &post("/v1/chat/completions", "accept-encoding: gzip\r\n", CHAT));
    assert_eq!(text, REPLY, "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
}
