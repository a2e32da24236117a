//! `gateway translate`: bodies between the dialects of LLM APIs, and what is lost on the way.

use gateway_tests::{Net, Setup, require_root};

const REQUEST: &str = r#"{"model": "m", "seed": 7, "max_tokens": 100, "messages": [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]}"#;

const REPLY: &str = r#"{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello back"}], "stop_reason": "end_turn", "stop_sequence": null,
    "usage": {"input_tokens": 3, "output_tokens": 2}}"#;

const STREAM: &str = concat!(
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,",
    "\"delta\":{\"role\":\"assistant\",\"content\":\"Hello back\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,",
    "\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
);

const ERROR: &str = r#"{"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}"#;

#[test]
fn bodies_are_translated_and_losses_are_told() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).prepare("");
    let file = |name: &str, text: &str| {
        let path = agent.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (request, reply) = (file("request.json", REQUEST), file("reply.json", REPLY));
    let (stream, error) = (file("stream.sse", STREAM), file("error.json", ERROR));
    let wrong = file("wrong.json", r#"{"model": "m", "messages": [{"role": "nobody", "content": "x"}]}"#);

    let to_claude = ["translate", "--from", "openai_chat", "--to", "anthropic_messages"];
    let with = |more: &[&str]| agent.cli(&[&to_claude[..], more].concat());
    let answer = with(&["--model", "claude-sonnet-4-5", &request]).ok().says(&["seed"]);
    let body = answer.json();
    assert_eq!(body["model"], "claude-sonnet-4-5");
    assert_eq!(body["max_tokens"], 100);
    assert!(answer.out.contains("Be brief.") && !answer.out.contains("seed"), "{}", answer.out);

    let answer = with(&["--losses-only", &request]).fails_with(1);
    assert!(answer.out.starts_with("seed\t") && answer.out.lines().count() == 1, "{}", answer.out);
    let document = with(&["--json", &request]).ok().json();
    assert_eq!(document["losses"][0]["what"], "seed");
    assert!(document["body"].as_str().unwrap().contains("Hello"));
    with(&[&wrong]).fails_with(1).says(&["messages[0].role"]);
    with(&["/nonexistent"]).fails_with(1).says(&["/nonexistent"]);

    let to_chat =
        |more: &[&str]| agent.cli(&[&["translate", "--to", "openai_chat", "--from"], more].concat());
    let body = to_chat(&["anthropic_messages", "--reply", &reply]).ok().json();
    assert_eq!(body["choices"][0]["message"]["content"], "Hello back");
    let answer = to_chat(&["anthropic_messages", "--error", "429", &error]).ok().says(&["429"]);
    assert!(answer.out.contains("Slow down"), "{}", answer.out);
    let answer = with(&["--stream", &stream]).ok();
    assert!(answer.out.contains("event: message_stop"), "{}", answer.out);
}
