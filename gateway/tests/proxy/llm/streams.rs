//! Streams that do not end well, and clients that do not stay.

use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::harness::status;

const STREAMED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;

#[test]
fn a_stream_that_breaks_ends_in_an_error_and_never_in_half_an_event() {
    let first = "data: {\"a\":1}\n\n";
    for (name, sent, is_closed, begin) in [
        ("between events", first.to_owned(), true, first),
        ("within one", format!("{first}data: {{\"a\":"), true, first),
        ("it hangs", first.to_owned(), false, first),
        ("it hangs within one", format!("{first}data: {{\"a\":"), false, first),
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
        let llm = one("openai_chat", &upstream).replace("api_key", "idle_timeout: 300ms, api_key");
        let proxy = gateway_of(&llm, "true");
        let (head, text) = ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
        assert_eq!(status(&head), "200", "{name}");
        let error = text.strip_prefix(begin).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(error.starts_with("data: {\"error\":") && error.ends_with("\n\n"), "{name}: {error}");
        assert!(!text.contains("[DONE]"), "{name}: {text}");
    }
}

#[test]
fn a_stream_that_never_ends_is_cut() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        for _ in 0..100 {
            conn.send(&chunk("data: {\"a\":1}\n\n"));
            thread::sleep(Duration::from_millis(20));
        }
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "{max_answer: 300ms}");
    let (_, text) = ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
    let (events, error) = text.rsplit_once("data: {\"error\"").unwrap_or_else(|| panic!("{text}"));
    assert!((2..40).contains(&events.matches("data: ").count()), "{text}");
    assert!(error.contains("longer than it may"), "{text}");
}

#[test]
fn a_stream_that_only_lacks_its_last_line_is_whole() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk("data: {}\n\ndata: {\"b\":1}\n"));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let (_, text) = ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
    assert_eq!(text, "data: {}\n\ndata: {\"b\":1}\n");
}

#[test]
fn a_stream_that_is_said_and_not_ended_ends() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&chunk("data: {}\n\ndata: [DONE]\n\n"));
        thread::sleep(Duration::from_secs(5));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let began = std::time::Instant::now();
    let (_, text) = ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
    assert_eq!(text, "data: {}\n\ndata: [DONE]\n\n");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_connection_serves_one_stream_after_the_other() {
    let (upstream, _heard) = provider(|_, conn| {
        conn.send(EVENTS);
        conn.send(&format!("{}{}", chunk("data: {}\n\ndata: [DONE]\n\n"), chunk("")));
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    for _ in 0..5 {
        ask(&proxy, &post("/v1/chat/completions", "", STREAMED));
    }
    assert_eq!(upstream.accepted.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_leaves_ends_the_providers_work() {
    for (name, body, begin) in [
        ("before the first token", STREAMED, ""),
        (
            "in the middle",
            STREAMED,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nf\r\ndata: {\"a\":1}\n\n\r\n",
        ),
        ("without streaming", CHAT, ""),
        (
            "in the middle of an answer that is whole",
            CHAT,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
        ),
    ] {
        let (sender, closed) = mpsc::channel();
        let (upstream, heard) = provider(move |_, conn| {
            conn.send(begin);
            let _ = sender.send(conn.is_closed());
        });
        let proxy = gateway_of(&one("openai_chat", &upstream), "true");
        let mut client = connect(&proxy);
        client.write_all(post("/v1/chat/completions", "", body).as_bytes()).unwrap();
        next(&heard);
        thread::sleep(Duration::from_millis(50));
        drop(client);
        assert_eq!(closed.recv_timeout(Duration::from_secs(3)), Ok(true), "{name}");
    }
}

#[test]
fn a_client_that_does_not_read_slows_the_provider() {
    let (sender, written) = mpsc::channel();
    let (upstream, _heard) = provider(move |_, conn| {
        conn.send(EVENTS);
        let event = chunk(&format!("data: \"{}\"\n\n", "x".repeat(60_000)));
        conn.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let count = (0..2_000).take_while(|_| conn.stream.write_all(event.as_bytes()).is_ok()).count();
        let _ = sender.send(count);
    });
    let proxy = gateway_of(&one("openai_chat", &upstream), "true");
    let mut client = connect(&proxy);
    client.write_all(post("/v1/chat/completions", "", STREAMED).as_bytes()).unwrap();
    let count = written.recv_timeout(LONG).unwrap();
    // Sockets hold some MiB; 2,000 events are 120.
    assert!(count < 400, "{count} events went somewhere");
}

#[test]
fn a_stream_in_an_array_passes_as_it_is() {
    let text = "[{\"a\": 1}\n,\r\n{\"b\":2}]";
    let (upstream, heard) = provider(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
        let (first, second) = text.split_at(12);
        conn.send(&chunk(first));
        conn.send(&chunk(second));
        conn.send(&chunk(""));
    });
    let proxy = gateway_of(&one("gemini", &upstream), "true");
    let (head, body) = ask(&proxy, &post("/v1beta/models/m:streamGenerateContent", "", "{}"));
    assert_eq!(body, text);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(next(&heard).target(), "/v1beta/models/m:streamGenerateContent");
}
