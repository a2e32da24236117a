//! What holds for all bodies of this dialect, right or wrong. That streams may be cut anywhere, keep their order and fold to
//! the whole reply is held against each case under `tests/golden`.

use proptest::prelude::*;

use crate::dialect::{Asked, Call, Dialect};
use crate::fold::{Fold, unfold};
use crate::frames::{Frames, Framing};
use crate::json::{Reader, parse};
use crate::loss::Losses;
use crate::neutral::{End, Event};
use crate::order::Order;
use crate::target::Target;

const REQUESTS: [&str; 3] = [
    include_str!("../../../tests/golden/gemini/request_results/request.gemini.json"),
    include_str!("../../../tests/golden/gemini/request_tools_subset/request.gemini.json"),
    include_str!("../../../tests/golden/gemini/request_thinking_budget/request.gemini.json"),
];
const REPLIES: [&str; 3] = [
    include_str!("../../../tests/golden/gemini/reply_calls/reply.gemini.json"),
    include_str!("../../../tests/golden/gemini/reply_logprobs/reply.gemini.json"),
    include_str!("../../../tests/golden/gemini/reply_thoughts/reply.gemini.json"),
];
const STREAMS: [&str; 2] = [
    include_str!("../../../tests/golden/gemini/stream_thoughts/stream.gemini.sse"),
    include_str!("../../../tests/golden/gemini/stream_calls/stream.gemini.sse"),
];

fn asked(framing: Framing) -> Asked {
    Asked { model: "m".to_owned(), stream_usage: true, framing, now: 1, echo: Vec::new() }
}

fn request(body: &str) -> Result<(), TestCaseError> {
    let call = Call { model: Some("gemini-3-pro"), stream: false };
    let Ok(request) = Dialect::Gemini.decode_request(body.as_bytes(), &call, &mut Reader::default()) else {
        return Ok(());
    };
    for to in Dialect::ALL {
        for model in ["m", "gemini-2.0-flash", "gemini-3-pro"] {
            if let Ok(out) = to.encode_request(&request, &Target::new(model), &mut Losses::default()) {
                prop_assert!(parse(&out).is_ok(), "{to}: {}", String::from_utf8_lossy(&out));
            }
        }
    }
    Ok(())
}

fn reply(body: &str) -> Result<(), TestCaseError> {
    let Ok(reply) = Dialect::Gemini.decode_reply(body.as_bytes(), &mut Reader::default()) else {
        return Ok(());
    };
    for to in Dialect::ALL {
        let out = to.encode_reply(&reply, &asked(Framing::Events), &mut Losses::default());
        prop_assert!(parse(&out).is_ok(), "{to}: {}", String::from_utf8_lossy(&out));
    }
    let mut fold = Fold::default();
    unfold(&reply, &mut |event| fold.step(&event));
    prop_assert!(fold.finish().is_ok());
    Ok(())
}

fn stream(body: &str) -> Result<(), TestCaseError> {
    let (mut frames, mut decoder) = (Frames::new(Framing::Events), Dialect::Gemini.stream_decoder());
    let (mut order, mut fault) = (Order::default(), None);
    let mut array = Dialect::Gemini.stream_encoder(asked(Framing::Items));
    let mut items = Vec::new();
    let mut say = |event: Event<'_>| {
        fault = fault.take().or(order.step(&event).err());
        array.step(&event, &mut items);
    };
    let fed = frames.feed(body.as_bytes(), |frame| decoder.step(&frame, &mut say));
    decoder.finish(if fed.is_ok() { End::Complete } else { End::Broken }, &mut say);
    prop_assert_eq!(fault.or(order.finish().err()), None);
    prop_assert!(parse(&items).is_ok(), "{}", String::from_utf8_lossy(&items));
    Ok(())
}

/// A body in which one place is another.
fn changed(body: &str, at: usize, new: char) -> String {
    let at = at % body.chars().count();
    body.chars().enumerate().map(|(index, old)| if index == at { new } else { old }).collect()
}

proptest! {
    #[test]
    fn nothing_that_is_sent_panics(which in 0usize..8, at in any::<usize>(), new in prop_oneof![Just('"'), Just('{'), Just('['), Just('}'), Just('-'), Just('1'), Just('n'), any::<char>()]) {
        match which {
            0..3 => request(&changed(REQUESTS[which], at, new))?,
            3..6 => reply(&changed(REPLIES[which - 3], at, new))?,
            _ => stream(&changed(STREAMS[which - 6], at, new))?,
        }
    }
}

/// A stream that is written for a client of this dialect says what was read.
#[test]
fn streams_are_read_back() {
    let read = |body: &[u8], framing| {
        let (mut frames, mut decoder) = (Frames::new(framing), Dialect::Gemini.stream_decoder());
        let mut encoder = Dialect::Gemini.stream_encoder(asked(Framing::Items));
        let (mut fold, mut out) = (Fold::default(), Vec::new());
        let mut say = |event: Event<'_>| {
            fold.step(&event);
            encoder.step(&event, &mut out);
        };
        frames.feed(body, |frame| decoder.step(&frame, &mut say)).unwrap();
        decoder.finish(End::Complete, &mut say);
        (fold.finish().unwrap(), out)
    };
    for stream in STREAMS {
        let (said, items) = read(stream.as_bytes(), Framing::Events);
        assert_eq!(read(&items, Framing::Items).0, said, "{stream}");
    }
}

/// No word ends a stream of this dialect: an answer is whole when each candidate has said why it ended, however the
/// connection broke after that.
#[test]
fn what_breaks_after_the_end_is_whole() {
    let ended = r#"{"candidates":[{"index":0,"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#;
    let open = r#"{"candidates":[{"index":0,"content":{"parts":[{"text":"a"}]}}]}"#;
    let half = r#"{"candidates":[{"index":0,"finishReason":"STOP"},{"index":1,"content":{"parts":[{"text":"b"}]}}]}"#;
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    for (name, piece, end, is_whole) in [
        ("ended", ended, End::Complete, true),
        ("ended, then broken", ended, End::Broken, true),
        ("ended, then silent", ended, End::TimedOut, true),
        ("blocked, then broken", blocked, End::Broken, true),
        ("open", open, End::Complete, false),
        ("open, then broken", open, End::Broken, false),
        ("one of two ended, then broken", half, End::Broken, false),
        ("nothing", "{}", End::Broken, false),
    ] {
        let (mut frames, mut decoder) = (Frames::new(Framing::Events), Dialect::Gemini.stream_decoder());
        let (mut has_failed, mut has_ended) = (false, false);
        let mut say = |event: Event<'_>| {
            has_failed |= matches!(event, Event::Failed(_));
            has_ended |= matches!(event, Event::End);
        };
        let body = format!("data: {piece}\n\n");
        frames.feed(body.as_bytes(), |frame| decoder.step(&frame, &mut say)).unwrap();
        decoder.finish(end, &mut say);
        assert_eq!((has_ended, has_failed), (is_whole, !is_whole), "{name}");
    }
}

/// Only what was told is told on: of a prompt with sound, nobody said what the rest was.
#[test]
fn modalities_are_not_made_up() {
    let usage = crate::neutral::Usage { input: Some(10), audio_input: Some(4), ..Default::default() };
    let mut out = Vec::new();
    crate::json::object(&mut out, |object| super::usage::write(&usage, object, &mut Losses::default()));
    let expected = r#"{"usageMetadata":{"promptTokenCount":10,"totalTokenCount":10,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":4}]}}"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
