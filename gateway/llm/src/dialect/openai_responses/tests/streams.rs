//! Streams.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::replies::{asked, response};
use super::{mutated, text};
use crate::dialect::openai_responses::{StreamDecoder, StreamEncoder, decode_reply, encode_reply};
use crate::dialect::{Asked, Dialect};
use crate::fold::{Fold, unfold};
use crate::frames::{Frames, Framing};
use crate::json::Reader;
use crate::loss::Losses;
use crate::neutral::{Delta, End, Event, Finish, PartStart, Reply, Signature};
use crate::order::Order;

fn write(reply: &Reply<'_>, asked: Asked) -> (Vec<u8>, Losses) {
    let mut encoder = StreamEncoder::new(asked);
    let mut out = Vec::new();
    unfold(reply, &mut |event| encoder.step(&event, &mut out));
    (out, encoder.losses)
}

fn frames(stream: &[u8]) -> Vec<(String, Value)> {
    let mut said = Vec::new();
    let mut frames = Frames::new(Framing::Events);
    let mut say = |frame: crate::frames::Frame<'_>| {
        let data = serde_json::from_str(&frame.data).expect("it is JSON");
        said.push((frame.event.unwrap_or_default().to_owned(), data));
    };
    frames.feed(stream, &mut say).and_then(|()| frames.finish(&mut say)).expect("they are frames");
    said
}

fn events(values: &[Value]) -> Vec<u8> {
    values.iter().map(|value| format!("data: {value}\n\n")).collect::<String>().into_bytes()
}

/// Reads a stream, holds its order against what is promised, and folds it.
fn fold(stream: &[u8], end: End) -> (Result<Reply<'static>, String>, Losses) {
    let mut decoder = StreamDecoder::default();
    let mut fold = Fold::default();
    let mut order = Order::default();
    let mut frames = Frames::new(Framing::Events);
    let mut say = |event: Event<'_>| {
        order.step(&event).expect("events are in order");
        fold.step(&event);
    };
    frames.feed(stream, |frame| decoder.step(&frame, &mut say)).expect("they are frames");
    frames.finish(|frame| decoder.step(&frame, &mut say)).expect("they are frames");
    decoder.finish(end, &mut say);
    order.finish().expect("it has an end");
    (fold.finish().map_err(|failure| failure.message), decoder.reader.losses)
}

/// What must hold of every stream: numbers without gaps, a name that says what the data says, items that are announced,
/// filled and completed in order, and pieces that make the whole.
fn check(stream: &[u8]) {
    let frames = frames(stream);
    let mut texts = std::collections::BTreeMap::<String, String>::new();
    let mut open: Option<u64> = None;
    let mut items = 0;
    for (number, (name, data)) in frames.iter().enumerate() {
        assert_eq!(data["type"], json!(name));
        assert_eq!(data["sequence_number"], json!(number));
        let place = format!("{}/{}/{}", data["output_index"], data["content_index"], data["summary_index"]);
        if let Some(index) = data["output_index"].as_u64() {
            match name.as_str() {
                "response.output_item.added" => {
                    assert_eq!((open, index), (None, items), "{name}");
                    open = Some(index);
                    items += 1;
                }
                _ => assert_eq!(open, Some(index), "{name}"),
            }
        }
        if name == "response.output_item.done" {
            open = None;
        }
        if let Some(delta) = data["delta"].as_str() {
            assert!(!delta.is_empty());
            texts.entry(place.clone()).or_default().push_str(delta);
        }
        for field in ["text", "refusal", "arguments", "input"] {
            if let (true, Some(whole)) = (name.ends_with(".done"), data[field].as_str()) {
                assert_eq!(texts.get(&place).map_or("", String::as_str), whole, "{name}");
            }
        }
    }
    assert_eq!(open, None);
    let (name, last) = frames.last().expect("there are some");
    assert!(
        matches!(name.as_str(), "response.completed" | "response.incomplete" | "response.failed"),
        "{name}"
    );
    assert_eq!(last["response"]["output"].as_array().map(|output| output.len() as u64), Some(items));
}

const CREATED: &str = r#"{"type":"response.created","response":{"id":"resp_1","model":"m","created_at":1}}"#;

fn created() -> Value {
    serde_json::from_str(CREATED).expect("it is JSON")
}

fn completed(output: Value) -> Value {
    json!({"type": "response.completed", "response": {"id": "resp_1", "model": "m", "created_at": 1,
        "status": "completed", "output": output}})
}

/// Servers leave out what others say three times.
#[test]
fn whatever_is_left_out_is_found() {
    let call = |arguments: &str| json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": arguments});
    let message = |text: &str| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
    let added = |index: u64, item: Value| json!({"type": "response.output_item.added", "output_index": index, "item": item});
    let done = |index: u64, item: Value| json!({"type": "response.output_item.done", "output_index": index, "item": item});
    let arguments = |kind: &str, field: &str, text: &str| json!({"type": format!("response.function_call_arguments.{kind}"), "output_index": 0, field: text});
    let piece = |index: u64, text: &str| json!({"type": "response.output_text.delta", "output_index": index, "content_index": 0, "delta": text});
    let whole = call("{\"a\":1}");
    for (name, stream, output) in [
        ("only the end", vec![completed(json!([whole, message("hi")]))], json!([whole, message("hi")])),
        (
            "items that are done",
            vec![created(), done(0, whole.clone()), completed(json!([]))],
            json!([whole]),
        ),
        (
            "arguments only in done",
            vec![
                created(),
                added(0, call("")),
                arguments("done", "arguments", "{\"a\":1}"),
                completed(json!([])),
            ],
            json!([whole]),
        ),
        (
            "arguments only with the item",
            vec![created(), added(0, call("")), done(0, whole.clone()), completed(json!([whole]))],
            json!([whole]),
        ),
        (
            "half of the pieces",
            vec![
                created(),
                added(0, call("")),
                arguments("delta", "delta", "{\"a\""),
                done(0, whole.clone()),
                completed(json!([whole])),
            ],
            json!([whole]),
        ),
        (
            "everything three times",
            vec![
                created(),
                added(0, call("")),
                arguments("delta", "delta", "{\"a\":1}"),
                arguments("done", "arguments", "{\"a\":1}"),
                done(0, whole.clone()),
                done(0, whole.clone()),
                completed(json!([whole])),
            ],
            json!([whole]),
        ),
        (
            "pieces that are not announced",
            vec![created(), piece(0, "h"), piece(0, "i"), completed(json!([]))],
            json!([message("hi")]),
        ),
        (
            "no end of an item",
            vec![created(), added(0, message("")), piece(0, "hi"), completed(json!([]))],
            json!([message("hi")]),
        ),
        (
            "two at once",
            vec![created(), piece(0, "a"), piece(1, "c"), piece(0, "b"), piece(1, "d"), completed(json!([]))],
            json!([message("ab"), message("cd")]),
        ),
        ("no beginning", vec![piece(0, "hi"), completed(json!([]))], json!([message("hi")])),
    ] {
        let (folded, _) = fold(&events(&stream), End::Complete);
        let body = completed(output)["response"].to_string();
        let mut expected = decode_reply(body.as_bytes(), &mut Reader::default()).expect("it is one");
        if name == "no beginning" {
            expected = Reply { id: "".into(), model: "".into(), created: None, ..expected };
        }
        assert_eq!(folded.as_ref(), Ok(&expected), "{name}");
    }
}

#[test]
fn what_ends_badly_says_so() {
    let error = |value: Value| vec![created(), value];
    for (name, stream, message) in [
        ("an event", error(json!({"type": "error", "code": "x", "message": "M", "param": null})), "M"),
        (
            "an object in it",
            error(json!({"type": "error", "error": {"type": "server_error", "message": "M"}})),
            "M",
        ),
        (
            "a response",
            error(
                json!({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "M"}}}),
            ),
            "M",
        ),
        (
            "nothing said",
            error(json!({"type": "response.failed", "response": {"error": null}})),
            "The provider's answer failed.",
        ),
        (
            "no JSON",
            error(json!({"type": "x"})).into_iter().chain([Value::Null]).collect(),
            "The provider's stream ended before its answer was complete.",
        ),
        ("no end", vec![created()], "The provider's stream ended before its answer was complete."),
        ("nothing", vec![], "The provider's stream ended before its answer was complete."),
    ] {
        assert_eq!(fold(&events(&stream), End::Complete).0, Err(message.to_owned()), "{name}");
    }
    let (folded, _) = fold(b"data: {\"type\n\n", End::Complete);
    assert_eq!(folded, Err("The provider's stream cannot be read.".to_owned()));
    assert_eq!(fold(b"", End::TimedOut).0, Err("The provider was silent too long.".to_owned()));
}

/// A function that the provider was told of in the place of a tool that takes text comes back as what it was.
#[test]
fn custom_tools_come_back() {
    let tools = r#"[{"type":"custom","name":"apply_patch"},{"type":"namespace","name":"crm","description":"","tools":[{"type":"function","name":"get"},{"type":"custom","name":"note"}]}]"#;
    let say = |name: &str, pieces: &[&str]| {
        let mut encoder = StreamEncoder::new(asked(&[("tools", tools)]));
        let mut out = Vec::new();
        let start = Event::Start {
            id: "x".into(),
            model: "m".into(),
            created: None,
            usage: None,
            service_tier: None,
            native: Vec::new(),
        };
        encoder.step(&start, &mut out);
        let part = PartStart::ToolCall { id: "c".into(), name: name.into(), is_custom: false };
        encoder.step(&Event::PartStart { candidate: 0, index: 0, part }, &mut out);
        for piece in pieces {
            let delta = Delta::Arguments((*piece).into());
            encoder.step(&Event::PartDelta { candidate: 0, index: 0, delta }, &mut out);
        }
        encoder.step(&Event::PartEnd { candidate: 0, index: 0 }, &mut out);
        encoder
            .step(&Event::Finish { candidate: 0, finish: Finish::ToolCalls, native: Vec::new() }, &mut out);
        encoder.step(&Event::End, &mut out);
        check(&out);
        frames(&out).pop().expect("there is one").1["response"]["output"][0].clone()
    };
    let item = say("apply_patch", &["{\"inp", "ut\":\"a\\nb\"}"]);
    assert_eq!(
        item,
        json!({"id": "ctc_x_0", "type": "custom_tool_call", "status": "completed", "call_id": "c",
        "name": "apply_patch", "input": "a\nb"})
    );
    let item = say("crm__get", &["{}"]);
    assert_eq!(
        (&item["namespace"], &item["name"], &item["type"]),
        (&json!("crm"), &json!("get"), &json!("function_call"))
    );
    let item = say("crm__note", &["no JSON"]);
    assert_eq!(
        (&item["namespace"], &item["name"], &item["input"]),
        (&json!("crm"), &json!("note"), &json!("no JSON"))
    );
    let item = say("other", &[]);
    assert_eq!((&item["type"], &item["arguments"]), (&json!("function_call"), &json!("{}")));
}

/// What another provider signed goes through the client and comes back to it.
#[test]
fn signatures_come_back() {
    use crate::neutral::{Candidate, Part, PartKind};
    let signed = |kind, value: &'static str| {
        let mut part = Part::new(kind);
        part.state.signature = Some(Signature { by: Dialect::Gemini, value: value.into() });
        part
    };
    let thought = |text: &'static str, is_redacted| PartKind::Thinking {
        text: text.into(),
        is_summary: false,
        is_redacted,
        id: None,
    };
    let call =
        || PartKind::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into(), is_custom: false };
    let parts = vec![
        signed(thought("t", false), "s1"),
        signed(thought("", true), "s2"),
        signed(thought("", false), "s3"),
        signed(PartKind::Text { text: "a".into(), citations: Vec::new() }, "s4"),
        Part::text("b"),
        signed(call(), "s5"),
        Part::new(call()),
    ];
    let candidate = Candidate {
        index: 0,
        parts: parts.clone(),
        finish: Finish::ToolCalls,
        log_probabilities: None,
        native: Vec::new(),
    };
    let reply = Reply { id: "x".into(), model: "m".into(), candidates: vec![candidate], ..Reply::default() };
    let (stream, losses) = write(&reply, asked(&[]));
    check(&stream);
    assert!(losses.is_empty(), "{losses}");
    let response = frames(&stream).pop().expect("there is one").1["response"].clone();
    let body = json!({"input": response["output"]}).to_string();
    let mut reader = Reader::default();
    let request =
        crate::dialect::openai_responses::decode_request(body.as_bytes(), &Default::default(), &mut reader)
            .expect("it is one");
    let back: Vec<_> = request.turns.into_iter().flat_map(|turn| turn.parts).collect();
    assert_eq!(back, parts);
    assert!(reader.losses.is_empty(), "{}", reader.losses);
}

/// Probabilities stand in the event of the text that they are about.
#[test]
fn probabilities_stand_with_their_text() {
    let mut encoder = StreamEncoder::new(asked(&[("include", r#"["message.output_text.logprobs"]"#)]));
    let mut out = Vec::new();
    let part = |delta| Event::PartDelta { candidate: 0, index: 0, delta };
    for event in [
        Event::PartStart { candidate: 0, index: 0, part: PartStart::Text },
        part(Delta::Text("a".into())),
        Event::LogProbabilities { candidate: 0, raw: r#"{"token":"a"}"#.into() },
        part(Delta::Text("b".into())),
        Event::LogProbabilities { candidate: 0, raw: r#"{"token":"b"}"#.into() },
        part(Delta::Text("c".into())),
        Event::PartEnd { candidate: 0, index: 0 },
        Event::End,
    ] {
        encoder.step(&event, &mut out);
    }
    let said: Vec<_> =
        frames(&out).into_iter().filter(|(name, _)| name == "response.output_text.delta").collect();
    let said: Vec<_> = said.iter().map(|(_, data)| (data["delta"].as_str(), &data["logprobs"])).collect();
    assert_eq!(
        said,
        [
            (Some("a"), &json!([{"token": "a"}])),
            (Some("b"), &json!([{"token": "b"}])),
            (Some("c"), &json!([]))
        ]
    );
}

proptest! {
    #[test]
    fn streamed_or_not_it_is_the_same(body in response()) {
        let body = body.to_string();
        let reply = decode_reply(body.as_bytes(), &mut Reader::default()).expect("it is one");
        let (stream, losses) = write(&reply, asked(&[]));
        prop_assert!(losses.is_empty(), "{}", losses);
        check(&stream);
        let (folded, losses) = fold(&stream, End::Complete);
        prop_assert_eq!(folded.as_ref(), Ok(&reply));
        prop_assert!(losses.is_empty(), "{}", losses);
        let last = &frames(&stream).pop().expect("there is one").1["response"];
        let whole: Value = serde_json::from_slice(&encode_reply(&reply, &asked(&[]), &mut Losses::default())).expect("it is JSON");
        prop_assert_eq!(last, &whole);
    }

    /// Events that are lost, doubled, changed or out of order make no panic and no disorder.
    #[test]
    fn nothing_makes_it_panic(
        body in response(),
        places in prop::collection::vec((0..60_usize, 0..60_usize), 0..6),
        changes in prop::collection::vec((0..99_usize, 0..99_usize), 0..2),
    ) {
        let body = body.to_string();
        let reply = decode_reply(body.as_bytes(), &mut Reader::default()).expect("it is one");
        let (stream, _) = write(&reply, asked(&[]));
        let mut values: Vec<Value> = frames(&stream).into_iter().map(|(_, data)| data).collect();
        for (from, to) in places {
            let (from, to) = (from % values.len(), to % values.len());
            if from == to { values.push(values[from].clone()) } else { values.swap(from, to) }
        }
        let changed: String = values.into_iter().map(|value| format!("data: {}\n\n", mutated(value, &changes))).collect();
        let _ = fold(changed.as_bytes(), End::Complete);
    }

    /// An encoder that is told anything writes frames of JSON.
    #[test]
    fn whatever_is_said_is_written(steps in prop::collection::vec((0..14_usize, text()), 0..24)) {
        let mut encoder = StreamEncoder::new(asked(&[("tools", r#"[{"type":"custom","name":"f"}]"#)]));
        let mut out = Vec::new();
        for (step, text) in &steps {
            let part = |part| Event::PartStart { candidate: 0, index: 0, part };
            let delta = |delta| Event::PartDelta { candidate: 0, index: 0, delta };
            let event = match step {
                0 => part(PartStart::Text),
                1 => part(PartStart::Refusal),
                2 => part(PartStart::Thinking { is_summary: text.len() > 4, is_redacted: false, id: None }),
                3 => part(PartStart::ToolCall { id: "c".into(), name: "f".into(), is_custom: false }),
                4 => part(PartStart::Image { media_type: "image/png".into() }),
                5 => part(PartStart::Audio { media_type: "audio/wav".into() }),
                6 => delta(Delta::Text(text.into())),
                7 => delta(Delta::Arguments(text.into())),
                8 => delta(Delta::Signature(Signature { by: Dialect::Gemini, value: text.into() })),
                9 => delta(Delta::Data(text.into())),
                10 => delta(Delta::Transcript(text.into())),
                11 => Event::PartEnd { candidate: 0, index: 0 },
                12 => Event::LogProbabilities { candidate: 0, raw: "{}".into() },
                _ => Event::Ping,
            };
            encoder.step(&event, &mut out);
        }
        encoder.step(&Event::End, &mut out);
        check(&out);
    }
}
