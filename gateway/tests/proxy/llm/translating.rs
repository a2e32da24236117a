//! A client and a provider that speak different dialects.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use super::*;
use crate::harness::{count, eventually, status};

const MESSAGES: &str = r#"{"model":"m","max_tokens":64,"messages":[{"role":"user","content":"hi"}]}"#;
const MESSAGES_STREAMED: &str =
    r#"{"model":"m","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// An answer of Responses.
const RESPONSE: &str = r#"{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"gpt-x","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"ho","annotations":[]}]}],"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":10}}"#;

/// The events of a stream of Responses, to where the text is said.
const BEGUN: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1,\"status\":\"in_progress\",\"model\":\"gpt-x\",\"output\":[]}}\n\nevent: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"sequence_number\":1,\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"in_progress\",\"role\":\"assistant\",\"content\":[]}}\n\nevent: response.content_part.added\ndata: {\"type\":\"response.content_part.added\",\"sequence_number\":2,\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":3,\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\"h\\u00e9\"}\n\n";

fn completed() -> String {
    format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"sequence_number\":4,\"response\":{RESPONSE}}}\n\n"
    )
}

fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_answer_comes_back_in_the_clients_dialect() {
    let (upstream, heard) = provider(|_, conn| {
        conn.send(&whole("200", "content-type: application/json\r\nx-request-id: r\r\n", RESPONSE));
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "true");
    let (head, text) =
        ask(&proxy, &post("/v1/messages", "x-api-key: client\r\nanthropic-beta: b\r\n", MESSAGES));
    assert_eq!(status(&head), "200", "{text}");
    let body = parsed(&text);
    assert_eq!((&body["type"], &body["content"][0]["text"]), (&"message".into(), &"ho".into()), "{text}");
    assert_eq!(
        (&body["usage"]["output_tokens"], &body["stop_reason"]),
        (&3.into(), &"end_turn".into()),
        "{text}"
    );
    assert!(head.contains("x-request-id: r"), "{head}");
    let heard = next(&heard);
    assert_eq!((heard.target(), heard.field("authorization")), ("/v1/responses", Some("Bearer sk-own")));
    assert!(!heard.head.contains("client") && !heard.head.contains("anthropic"), "{}", heard.head);
    assert_eq!(parsed(&heard.body)["max_output_tokens"], 64, "{}", heard.body);
}

#[test]
fn a_stream_is_translated_event_by_event() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        // In the middle of a character, too.
        let (first, second) = BEGUN.as_bytes().split_at(BEGUN.len() - 30);
        conn.send(&chunk(std::str::from_utf8(first).unwrap()));
        conn.send(&chunk(std::str::from_utf8(second).unwrap()));
        thread::sleep(Duration::from_millis(400));
        conn.send(&chunk(&completed()));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "true");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/messages", "", MESSAGES_STREAMED).as_bytes()).unwrap();
    let (first, _) = rest(&mut client, 250);
    assert!(first.contains("event: message_start") && first.contains("hé"), "{first}");
    assert!(!first.contains("message_stop"), "{first}");
    let (second, _) = rest(&mut client, 600);
    for event in ["event: content_block_stop", "event: message_delta", "event: message_stop"] {
        assert!(second.contains(event), "{event}: {second}");
    }
    assert!(second.ends_with("0\r\n\r\n"), "{second}");
}

#[test]
fn what_cannot_be_said_is_told_or_refused() {
    let body = MESSAGES.replacen("{", r#"{"top_k":5,"#, 1);
    let lost = || count("gateway_llm_losses_total{kind=\"sampling\"}");
    let before = lost();
    for (route, expected) in [("true", "200"), ("{lossy: refuse}", "400")] {
        let (upstream, heard) = provider(|_, conn| conn.send(&json("200", RESPONSE)));
        let proxy = gateway_of(&one("openai_responses", &upstream), route);
        let (head, text) = ask(&proxy, &post("/v1/messages", "", &body));
        assert_eq!(status(&head), expected, "{text}");
        if expected == "200" {
            assert!(head.contains("gateway-llm-losses: sampling;at=\"top_k\""), "{head}");
            next(&heard);
        } else {
            assert!(text.contains("top_k") && text.contains("\"type\":\"error\""), "{text}");
            assert!(is_silent(&heard));
        }
    }
    eventually("it is counted", || lost() == before + 1);
}

#[test]
fn a_stream_that_breaks_is_told_in_the_clients_words() {
    for (name, sent, is_closed) in [
        ("it breaks", BEGUN.to_owned(), true),
        ("within an event", format!("{BEGUN}event: response.out"), true),
        ("it hangs", BEGUN.to_owned(), false),
        (
            "an error",
            format!(
                "{BEGUN}event: error\ndata: {{\"type\":\"error\",\"code\":\"server_error\",\"message\":\"oh\",\"param\":null,\"sequence_number\":5}}\n\n"
            ),
            false,
        ),
    ] {
        let (upstream, _heard) = provider(move |_, conn| {
            conn.send(EVENTS);
            conn.send(&chunk(&sent));
            if is_closed {
                let _ = conn.stream.shutdown(std::net::Shutdown::Both);
            } else {
                thread::sleep(Duration::from_secs(3));
            }
        });
        let llm = one("openai_responses", &upstream).replace("api_key", "idle_timeout: 300ms, api_key");
        let proxy = gateway_of(&llm, "true");
        let (_, text) = ask(&proxy, &post("/v1/messages", "", MESSAGES_STREAMED));
        assert!(text.contains("event: error\ndata: {\"type\":\"error\""), "{name}: {text}");
        assert!(!text.contains("end_turn"), "{name}: {text}");
    }
}

#[test]
fn who_waits_is_told_that_it_goes_on() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk(BEGUN));
        thread::sleep(Duration::from_millis(700));
        conn.send(&chunk(&completed()));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "{ping: 100ms}");
    let (_, text) = ask(&proxy, &post("/v1/messages", "", MESSAGES_STREAMED));
    let pings = text.matches("event: ping").count();
    assert!((4..=8).contains(&pings), "{pings}: {text}");
    assert!(text.contains("event: message_stop"), "{text}");
}

#[test]
fn a_providers_error_is_told_in_the_clients_words() {
    for (name, answer, expected, kind) in [
        (
            "a limit",
            whole(
                "429",
                "content-type: application/json\r\nretry-after: 9\r\n",
                r#"{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
            ),
            "429",
            "rate_limit_error",
        ),
        ("a page", whole("502", "content-type: text/html\r\n", "<html>slow down"), "502", "api_error"),
        ("an answer that is none", json("200", r#"{"slow down":1}"#), "502", "api_error"),
    ] {
        let is_limit = expected == "429";
        let (upstream, _heard) = provider(move |_, conn| conn.send(&answer));
        let proxy = gateway_of(&one("openai_responses", &upstream), "true");
        let (head, text) = ask(&proxy, &post("/v1/messages", "", MESSAGES));
        assert_eq!(status(&head), expected, "{name}: {text}");
        let body = parsed(&text);
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&"error".into(), &kind.into()),
            "{name}: {text}"
        );
        assert_eq!(text.contains("slow down"), is_limit, "{name}: {text}");
        assert_eq!(head.contains("retry-after: 9"), is_limit, "{name}: {head}");
    }
}

#[test]
fn tokens_are_counted_by_whoever_serves_the_model() {
    let (upstream, heard) = provider(|_, conn| {
        conn.send(&json("200", r#"{"object":"response.input_tokens","input_tokens":42}"#));
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "true");
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let (head, text) = ask(&proxy, &post("/v1/messages/count_tokens", "", body));
    assert_eq!(status(&head), "200", "{text}");
    assert_eq!(parsed(&text)["input_tokens"], 42, "{text}");
    assert_eq!(next(&heard).target(), "/v1/responses/input_tokens");
}

#[test]
fn what_goes_on_with_an_answer_that_is_kept_goes_to_who_speaks_the_same() {
    let (claude, of_claude) = provider(|_, conn| conn.send(&json("200", "{}")));
    let (openai, of_openai) = provider(|_, conn| conn.send(&json("200", RESPONSE)));
    let llm = format!(
        "  providers:
    claude: {{dialect: anthropic_messages, base_url: \"http://{}\"}}
    openai: {{dialect: openai_responses, base_url: \"http://{}/v1\"}}
  models: {{both: {{targets: [{{provider: claude, model: c}}, {{provider: openai, model: o}}]}}, alone: {{targets: [{{provider: claude, model: c}}]}}}}",
        claude.address, openai.address
    );
    let proxy = gateway_of(&llm, "true");
    let body = |model: &str| {
        format!("{{\"model\":\"{model}\",\"input\":\"hi\",\"previous_response_id\":\"resp_0\"}}")
    };
    let (head, text) = ask(&proxy, &post("/v1/responses", "", &body("both")));
    assert_eq!((status(&head), text.as_str()), ("200", RESPONSE));
    assert!(next(&of_openai).body.contains("resp_0"));
    let (head, text) = ask(&proxy, &post("/v1/responses", "", &body("alone")));
    assert_eq!(status(&head), "400", "{text}");
    assert!(text.contains("\"error\""), "{text}");
    assert!(is_silent(&of_claude));
}

#[test]
fn chat_clients_reach_other_dialects_and_servers_that_differ() {
    let chat = r#"{"model":"m","max_completion_tokens":9,"messages":[{"role":"developer","content":"be brief"},{"role":"user","content":"hi"}]}"#;
    let claude = r#"{"id":"msg_1","type":"message","role":"assistant","model":"c","content":[{"type":"text","text":"ho"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#;
    for (name, dialect, quirks, reply, target, has) in [
        (
            "Claude",
            "anthropic_messages",
            "",
            claude,
            "/v1/messages",
            &["\"system\"", "be brief", "\"max_tokens\":9"][..],
        ),
        (
            "Mistral",
            "openai_chat",
            "quirks: mistral, ",
            REPLY,
            "/v1/chat/completions",
            &["\"role\":\"system\"", "\"max_tokens\":9"],
        ),
    ] {
        let (upstream, heard) = provider(move |_, conn| conn.send(&json("200", reply)));
        let llm = one(dialect, &upstream).replace("api_key", &format!("{quirks}api_key"));
        let proxy = gateway_of(&llm, "true");
        let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", chat));
        assert_eq!(status(&head), "200", "{name}: {text}");
        let body = parsed(&text);
        assert_eq!(
            (&body["object"], &body["choices"][0]["message"]["content"]),
            (&"chat.completion".into(), &"ho".into()),
            "{name}: {text}"
        );
        assert_eq!(
            (&body["usage"]["total_tokens"], &body["choices"][0]["finish_reason"]),
            (&5.into(), &"stop".into()),
            "{name}: {text}"
        );
        let heard = next(&heard);
        assert_eq!(heard.target(), target, "{name}");
        for text in has {
            assert!(heard.body.contains(text), "{name}: {}", heard.body);
        }
    }
}

#[test]
fn a_compressed_stream_is_decoded_as_it_comes() {
    use flate2::{Compression, write::GzEncoder};
    let (upstream, _heard) = provider(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(BEGUN.as_bytes()).unwrap();
        encoder.flush().unwrap();
        conn.stream.write_all(&std::mem::take(encoder.get_mut())).unwrap();
        thread::sleep(Duration::from_millis(400));
        encoder.write_all(completed().as_bytes()).unwrap();
        conn.stream.write_all(&encoder.finish().unwrap()).unwrap();
        let _ = conn.stream.shutdown(std::net::Shutdown::Both);
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "true");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/messages", "", MESSAGES_STREAMED).as_bytes()).unwrap();
    let (first, _) = rest(&mut client, 250);
    assert!(first.contains("hé") && !first.contains("message_stop"), "{first}");
    let (second, _) = rest(&mut client, 600);
    assert!(second.contains("event: message_stop"), "{second}");
}

#[test]
fn a_stream_over_http2_is_translated_likewise() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk(BEGUN));
        conn.send(&chunk(&completed()));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_responses", &upstream), "true");
    let client = crate::http2::Client::new(&proxy);
    let request = http::Request::post("http://a.test/v1/messages").header("content-type", "application/json");
    let (code, headers, text) =
        client.answer(request.body(crate::http2::full(MESSAGES_STREAMED.to_owned())).unwrap());
    assert_eq!(code, http::StatusCode::OK, "{text}");
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert!(text.contains("hé") && text.contains("event: message_stop"), "{text}");
}

#[test]
fn the_access_log_says_which_model_was_asked_and_what_it_cost() {
    let (upstream, _heard) = provider(|_, conn| conn.send(&json("200", RESPONSE)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut model = model_of(&one("openai_responses", &upstream), "true");
    let to = gateway::model::LogTarget::File(path.clone());
    let format = gateway::model::LogFormat::Json;
    model.access_log = Some(gateway::model::AccessLog { to, format, sample: 1_000_000, queue: 16 });
    let proxy = crate::harness::start(&model);
    let line = |at: usize| {
        let mut line = None;
        eventually("a line is written", || {
            line = std::fs::read_to_string(&path).unwrap().lines().nth(at).map(str::to_owned);
            line.is_some()
        });
        parsed(&line.unwrap())
    };
    ask(&proxy, &post("/v1/messages?key=secret", "", &MESSAGES.replacen('{', "{\"top_k\":5,", 1)));
    let said = line(0);
    let expected = serde_json::json!({"provider": "one", "model": "m", "lane": "translate", "input_tokens": 7, "output_tokens": 3, "losses": 1});
    assert_eq!(
        (&said["llm"], &said["upstream"], &said["why"]),
        (&expected, &"llm/one".into(), &"ok".into()),
        "{said}"
    );
    ask(&proxy, &post("/v1/messages", "", "{"));
    assert_eq!((&line(1)["why"], &line(1)["llm"]), (&"llm_invalid_request".into(), &serde_json::Value::Null));
    assert!(!std::fs::read_to_string(&path).unwrap().contains("secret"));
}
