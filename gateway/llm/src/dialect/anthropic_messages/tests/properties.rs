//! What must hold of everything that this dialect reads and writes.

use proptest::prelude::*;
use proptest::sample::select;

use crate::dialect::anthropic_messages::{
    StreamDecoder, StreamEncoder, decode_failure, decode_reply, decode_request, decode_usage, encode_failure,
    encode_reply, encode_request,
};
use crate::dialect::{Asked, Call};
use crate::fold::{Fold, unfold};
use crate::frames::{Frames, Framing};
use crate::json::{self, Reader};
use crate::loss::Losses;
use crate::neutral::{End, Event, Request};
use crate::order::Order;
use crate::target::{Model, Target};

const MARK: &str = r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#;

/// What a user says.
const USER_BLOCKS: &[&str] = &[
    r#"{"type":"text","text":"hi \u00e9\n"}"#,
    r#"{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}"#,
    r#"{"type":"image","source":{"type":"base64","media_type":"image/webp","data":"AA=="}}"#,
    r#"{"type":"image","source":{"type":"url","url":"https://e.com/a"},"transformations":{"oversized_image":"error"}}"#,
    r#"{"type":"image","source":{"type":"file","file_id":"file_1"}}"#,
    r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AA=="},"title":"t","context":"c","citations":{"enabled":true}}"#,
    r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"}}"#,
    r#"{"type":"document","source":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},"citations":{"enabled":false}}"#,
    r#"{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url","url":"u"}}]}}"#,
    r#"{"type":"document","source":{"type":"url","url":"https://e.com/a.pdf"}}"#,
    r#"{"type":"search_result","source":"https://e.com","title":"t","content":[{"type":"text","text":"a"}]}"#,
    r#"{"type":"container_upload","file_id":"file_1"}"#,
];

/// What a model says. Calls have the place `#` for their number.
const MODEL_BLOCKS: &[&str] = &[
    r#"{"type":"text","text":"yes"}"#,
    r#"{"type":"text","text":"cited","citations":[{"type":"web_search_result_location","url":"u","title":"t","encrypted_index":"e","cited_text":"c"}]}"#,
    r#"{"type":"thinking","thinking":"hm","signature":"sig"}"#,
    r#"{"type":"thinking","thinking":"","signature":"sig"}"#,
    r#"{"type":"redacted_thinking","data":"data"}"#,
    r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"}}"#,
    r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]}"#,
    r#"{"type":"mcp_tool_use","id":"m","name":"n","server_name":"s","input":{}}"#,
    r#"{"type":"compaction","content":"c"}"#,
    r#"{"type":"tool_use","id":"toolu_#","name":"f","input":{"a":[1.50,"x"]}}"#,
    r#"{"type":"tool_use","id":"gwi-call-2E#","name":"gwi-a-2Eb","input":{}}"#,
    r#"{"type":"tool_use","id":"toolu_#","name":"f","input":{},"caller":{"type":"code_execution_20260120","tool_id":"t"}}"#,
];

const RESULTS: &[&str] = &[
    r#""content":"7""#,
    r#""content":"bad","is_error":true"#,
    r#""content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"url","url":"u"}}]"#,
    r#""content":[{"type":"tool_reference","tool_name":"f"}],"toolset_name":"browser""#,
    r#""is_error":false"#,
];

/// Fields of a request that exclude none of each other.
const FIELDS: &[&str] = &[
    r#""system":"be brief""#,
    r#""stream":true"#,
    r#""top_k":40"#,
    r#""temperature":0.70"#,
    r#""stop_sequences":["a","b"]"#,
    r#""metadata":{"user_id":"u"}"#,
    r#""service_tier":"auto""#,
    r#""tools":[{"name":"f","description":"d","input_schema":{"type":"object","properties":{"a":{"minLength":1}}},"input_examples":[{}],"defer_loading":true},{"type":"web_search_20250305","name":"web_search"}],"tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#,
    r#""output_config":{"effort":"max","format":{"type":"json_schema","schema":{"type":"object","properties":{},"additionalProperties":false}},"task_budget":{"total":1}}"#,
    r#""container":"c""#,
    r#""context_management":{"edits":[]}"#,
    r#""mcp_servers":[]"#,
    r#""inference_geo":"eu""#,
    r#""cache_control":{"type":"ephemeral"}"#,
];

fn subset(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(of), 0..=most)
}

/// One exchange: what the user said, what the model said, which results its calls had.
type Exchange = (Vec<&'static str>, Vec<&'static str>, &'static str);

fn exchange() -> impl Strategy<Value = Exchange> {
    let user = subset(USER_BLOCKS, 2).prop_map(|mut blocks| {
        blocks.push(USER_BLOCKS[0]);
        blocks
    });
    (user, prop::collection::vec(select(MODEL_BLOCKS), 1..4), select(RESULTS))
}

/// A request as a client of this dialect would write it.
fn request_text() -> impl Strategy<Value = String> {
    (prop::collection::vec(exchange(), 0..3), prop::sample::subsequence(FIELDS, 0..FIELDS.len())).prop_map(
        |(exchanges, fields)| {
            let mut messages: Vec<String> = Vec::new();
            let mut pending: Vec<String> = Vec::new();
            let mut calls = 0;
            for (user, model, result) in exchanges {
                let said = pending.drain(..).chain(user.into_iter().map(str::to_owned));
                messages.push(message("user", said));
                let blocks: Vec<String> = model
                    .into_iter()
                    .map(|block| {
                        calls += 1;
                        block.replace('#', &calls.to_string())
                    })
                    .collect();
                for block in blocks.iter().filter(|block| block.contains("\"tool_use\"")) {
                    let id = block.split('"').nth(7).unwrap_or_default();
                    pending.push(format!(r#"{{"type":"tool_result","tool_use_id":"{id}",{result}{MARK}}}"#));
                }
                messages.push(message("assistant", blocks.into_iter()));
            }
            let last = USER_BLOCKS[0].to_owned();
            messages.push(message("user", pending.into_iter().chain([last])));
            let fields: String = fields.into_iter().map(|field| format!(",{field}")).collect();
            format!(r#"{{"model":"m","max_tokens":2048,"messages":[{}]{fields}}}"#, messages.join(","))
        },
    )
}

fn message(role: &str, blocks: impl Iterator<Item = String>) -> String {
    format!(r#"{{"role":"{role}","content":[{}]}}"#, blocks.collect::<Vec<_>>().join(","))
}

/// A reply as Anthropic would write it.
fn reply_text() -> impl Strategy<Value = String> {
    const TAILS: &[&str] = &[
        r#""stop_reason":"end_turn","stop_sequence":null"#,
        r#""stop_reason":"stop_sequence","stop_sequence":"x""#,
        r#""stop_reason":"max_tokens""#,
        r#""stop_reason":"refusal","stop_details":{"type":"refusal"},"container":{"id":"c"}"#,
        r#""stop_reason":"compaction","context_management":{"applied_edits":[]}"#,
    ];
    const USAGES: &[&str] = &[
        r#"{"input_tokens":1,"output_tokens":2}"#,
        r#"{"input_tokens":1,"cache_read_input_tokens":20,"cache_creation_input_tokens":300,"output_tokens":2,"service_tier":"priority"}"#,
        r#"{"input_tokens":1,"output_tokens":2,"output_tokens_details":{"thinking_tokens":1},"server_tool_use":{"web_search_requests":1,"web_fetch_requests":2}}"#,
    ];
    (prop::collection::vec(select(MODEL_BLOCKS), 0..5), select(TAILS), select(USAGES)).prop_map(
        |(blocks, tail, usage)| {
            let numbered = blocks.iter().enumerate();
            let blocks: Vec<String> =
                numbered.map(|(index, block)| block.replace('#', &index.to_string())).collect();
            let head = r#""id":"msg_1","type":"message","role":"assistant","model":"m""#;
            format!(r#"{{{head},"content":[{}],{tail},"usage":{usage}}}"#, blocks.join(","))
        },
    )
}

fn asked() -> Asked {
    Asked::new(&Request::default(), Framing::Events, 7)
}

fn read(text: &str) -> Request<'_> {
    let mut reader = Reader::default();
    let request = decode_request(text.as_bytes(), &Call::default(), &mut reader).expect("it is a request");
    assert!(reader.losses.is_empty(), "{:?} of {text}", reader.losses);
    request
}

/// Reads a stream that was written whole, and folds it. The order is checked, too.
fn folded(bytes: &[u8]) -> Fold {
    let (mut decoder, mut order, mut fold) = (StreamDecoder::default(), Order::default(), Fold::default());
    let mut say = |event: Event<'_>| {
        order.step(&event).expect("events are in order");
        fold.step(&event);
    };
    let mut frames = Frames::new(Framing::Events);
    frames.feed(bytes, |frame| decoder.step(&frame, &mut say)).expect("it is a stream");
    decoder.finish(End::Complete, &mut say);
    order.finish().expect("it has ended");
    fold
}

/// A text with some of its bytes changed.
fn damaged(text: String, changes: Vec<(usize, u8)>) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for (at, change) in changes {
        let at = at % bytes.len().max(1);
        match change {
            0..=63 => drop(bytes.drain(at..(at + usize::from(change)).min(bytes.len()))),
            64..=127 => bytes.insert(at, b"{}[]\",:01n"[usize::from(change) % 10]),
            _ => bytes[at] = change & 0x7f,
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((any::<usize>(), any::<u8>()), 0..4)
}

proptest! {
    /// What was read and written is the same when it is read again, and nothing of it was lost but cache marks.
    #[test]
    fn requests_stay_the_same(text in request_text()) {
        let request = read(&text);
        let mut losses = Losses::default();
        let target = Target {
            model_facts: Model { system_turns: Some(true), ..Model::default() },
            ..Target::new("m")
        };
        let written = encode_request(&request, &target, &mut losses).expect("it can be written");
        let written = String::from_utf8(written).expect("it is text");
        prop_assert!(losses.kept().iter().all(|loss| loss.what == crate::loss::What::CacheControl), "{losses}");
        if losses.is_empty() {
            prop_assert_eq!(&read(&written), &request, "{}", written);
        }
        prop_assert!(written.matches("\"ephemeral\"").count() <= 4, "{}", written);
    }

    #[test]
    fn replies_stay_the_same(text in reply_text()) {
        let mut reader = Reader::default();
        let reply = decode_reply(text.as_bytes(), &mut reader).expect("it is a reply");
        prop_assert!(reader.losses.is_empty());
        let mut losses = Losses::default();
        let written = encode_reply(&reply, &asked(), &mut losses);
        prop_assert!(losses.is_empty(), "{}", losses);
        prop_assert_eq!(&decode_reply(&written, &mut reader).expect("it is a reply"), &reply);
    }

    /// A client that streams is told what a client is told that does not.
    #[test]
    fn streams_say_what_replies_say(text in reply_text()) {
        let reply = decode_reply(text.as_bytes(), &mut Reader::default()).expect("it is a reply");
        let mut encoder = StreamEncoder::new(asked());
        let mut written = Vec::new();
        unfold(&reply, &mut |event| encoder.step(&event, &mut written));
        prop_assert!(encoder.losses.is_empty(), "{}", encoder.losses);
        let text = String::from_utf8_lossy(&written).into_owned();
        prop_assert_eq!(folded(&written).finish(), Ok(reply), "{}", text);
    }

    /// Nothing that a client or a provider sends makes it panic, and what it makes of it is JSON.
    #[test]
    fn damage_is_survived(request in request_text(), reply in reply_text(), changes in changes(), status in any::<u16>()) {
        let request = damaged(request, changes.clone());
        let mut reader = Reader::default();
        if let Ok(request) = decode_request(&request, &Call::default(), &mut reader)
            && let Ok(written) = encode_request(&request, &Target::new("m"), &mut Losses::default())
        {
            prop_assert!(json::parse(&written).is_ok());
        }
        let reply = damaged(reply, changes);
        if let Ok(reply) = decode_reply(&reply, &mut reader) {
            prop_assert!(json::parse(&encode_reply(&reply, &asked(), &mut Losses::default())).is_ok());
        }
        if let Ok(node) = json::parse(&reply) {
            let _ = decode_usage(&node);
        }
        prop_assert!(json::parse(&encode_failure(&decode_failure(status, &reply))).is_ok());
    }

    /// Whatever a provider streams, events keep their order, and the client's stream is one.
    #[test]
    fn any_stream_is_put_in_order(events in prop::collection::vec((select(EVENTS), 0..4u8), 0..14), is_complete in any::<bool>()) {
        let mut decoder = StreamDecoder::default();
        let mut encoder = StreamEncoder::new(asked());
        let (mut order, mut written) = (Order::default(), Vec::new());
        let mut say = |event: Event<'_>| {
            order.step(&event).expect("events are in order");
            encoder.step(&event, &mut written);
        };
        let mut frames = Frames::new(Framing::Events);
        for (event, index) in events {
            let data = format!("data: {}\n\n", event.replace('#', &index.to_string()));
            frames.feed(data.as_bytes(), |frame| decoder.step(&frame, &mut say)).expect("it is a stream");
        }
        decoder.finish(if is_complete { End::Complete } else { End::Broken }, &mut say);
        order.finish().expect("it has ended");
        let ends = String::from_utf8(written).expect("it is text");
        prop_assert!(ends.contains("\"message_stop\"") != ends.contains("event: error"), "{}", ends);
    }
}

/// Events of a stream. Those of blocks have the place `#` for their index.
const EVENTS: &[&str] = &[
    r#"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":1,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":#,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_start","index":#,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    r#"{"type":"content_block_start","index":#,"content_block":{"type":"tool_use","id":"","name":"f","input":{}}}"#,
    r#"{"type":"content_block_start","index":#,"content_block":{"type":"server_tool_use","id":"s","name":"n","input":{}}}"#,
    r#"{"type":"content_block_start","index":#,"content_block":{"type":"image","source":{"type":"url","url":"u"}}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"text_delta","text":"a"}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"thinking_delta","thinking":"a"}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"signature_delta","signature":"a"}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"citations_delta","citation":{"cited_text":"a"}}}"#,
    r#"{"type":"content_block_delta","index":#,"delta":{"type":"compaction_delta","content":"a"}}"#,
    r#"{"type":"content_block_stop","index":#}"#,
    r#"{"type":"content_block_stop","index":#}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#,
    r#"{"type":"message_stop"}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
    r#"{"type":"new"}"#,
];
