//! Who is asked next when a target fails, and when nobody is.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::harness::{black_hole, count, eventually, status};

/// Two providers of a model, the first of which is asked first.
fn two(first: std::net::SocketAddr, second: std::net::SocketAddr, more: &str) -> String {
    format!(
        "  providers:
    one: {{dialect: openai_chat, base_url: \"http://{first}/v1\", api_key: sk-one{more}}}
    two: {{dialect: openai_chat, base_url: \"http://{second}/v1\", api_key: sk-two}}
  models: {{m: {{targets: [{{provider: one, model: a}}, {{provider: two, model: b}}]}}}}"
    )
}

const STREAMED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;

#[test]
fn a_target_that_fails_is_given_up_for_the_next() {
    let error = r#"{"error":{"message":"no","code":null}}"#;
    for (name, answer, falls_back) in [
        ("too many requests", json("429", error), true),
        ("a timeout of its own", json("408", error), true),
        ("broken", json("500", error), true),
        ("overloaded", json("529", error), true),
        ("its key is refused", json("401", error), true),
        ("its key may not", json("403", error), true),
        ("it has no such model", json("404", error), true),
        ("a page", whole("200", "content-type: text/html\r\n", "<html>"), true),
        ("no JSON", json("200", "<html>"), true),
        ("a redirect", whole("302", "location: http://127.0.0.1:1/\r\n", ""), true),
        ("it closes", String::new(), true),
        ("the request is wrong", json("400", error), false),
        ("the request is too large", json("413", error), false),
        (
            "an answer that is kept elsewhere",
            json("400", r#"{"error":{"message":"no","code":"previous_response_not_found"}}"#),
            true,
        ),
        ("an answer", json("200", "{}"), false),
    ] {
        let (first, heard) = provider(move |_, conn| {
            conn.send(&answer);
            if answer.is_empty() {
                let _ = conn.stream.shutdown(std::net::Shutdown::Both);
            }
        });
        let (second, of_second) = provider(|_, conn| conn.send(&json("200", REPLY)));
        let proxy = gateway_of(&two(first.address, second.address, ""), "true");
        let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
        assert_eq!(next(&heard).body, CHAT.replace("\"m\"", "\"a\""), "{name}");
        assert_eq!(text == REPLY, falls_back, "{name}: {head} {text}");
        if falls_back {
            let request = next(&of_second);
            assert_eq!(request.body, CHAT.replace("\"m\"", "\"b\""), "{name}");
            assert_eq!(request.field("authorization"), Some("Bearer sk-two"), "{name}");
            assert_eq!(status(&head), "200", "{name}");
        } else {
            assert!(is_silent(&of_second), "{name}");
        }
    }
}

#[test]
fn nobody_who_cannot_be_connected_to_is_waited_for_long() {
    let (hole, _sockets) = black_hole();
    let (second, _heard) = provider(|_, conn| conn.send(&json("200", REPLY)));
    let proxy = gateway_of(&two(hole, second.address, ", connect_timeout: 100ms"), "true");
    let began = Instant::now();
    let (_, text) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
    assert_eq!(text, REPLY);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_stream_that_begins_with_an_error_is_another_targets() {
    let given_up =
        || count("gateway_llm_fallbacks_total{provider=\"one\",model=\"a\",reason=\"stream_error\"}");
    let before = given_up();
    let (first, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"));
        conn.send(&chunk(""));
    });
    let (second, _of_second) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk("data: {\"id\":\"b\",\"choices\":[]}\n\ndata: [DONE]\n\n"));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&two(first.address, second.address, ""), "true");
    let (_, text) = ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
    assert_eq!(text, "data: {\"id\":\"b\",\"choices\":[]}\n\ndata: [DONE]\n\n");
    eventually("it is counted", || given_up() == before + 1);
}

#[test]
fn a_stream_that_begins_late_is_not_held_for_ever() {
    let (first, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        thread::sleep(Duration::from_millis(500));
        conn.send(&chunk("data: {\"error\":{\"message\":\"late\"}}\n\n"));
        conn.send(&chunk(""));
    });
    let (second, of_second) = provider(|_, conn| conn.send(&json("200", REPLY)));
    let proxy = gateway_of(&two(first.address, second.address, ""), "{hold: 100ms}");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/chat/completions", "", STREAMED).as_bytes()).unwrap();
    // The head is there before the first event is.
    let (head, _) = rest(&mut client, 300);
    assert_eq!(status(&head), "200", "{head}");
    let (text, _) = rest(&mut client, 600);
    assert!(text.contains("late"), "{text}");
    assert!(is_silent(&of_second));
}

#[test]
fn all_targets_together_have_one_deadline() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (first, _heard) = provider(move |_, conn| {
        count.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(300));
        conn.send(&json("503", "{}"));
    });
    let (second, _of_second) = provider(|_, _| thread::sleep(Duration::from_secs(5)));
    let proxy = gateway_of(&two(first.address, second.address, ""), "{timeout: 600ms}");
    let began = Instant::now();
    let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", CHAT));
    assert_eq!(status(&head), "504", "{head} {text}");
    assert!(text.contains("\"error\"") && text.contains("upstream_timeout"), "{text}");
    assert!((500..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
