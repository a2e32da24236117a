//! What holds for all bodies: those of the golden cases, and what chance makes of them.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::dialect::{Asked, Call};
use crate::fold::{Fold, unfold};
use crate::frames::{Frames, Framing};
use crate::json::Reader;
use crate::loss::Losses;
use crate::neutral::{End, Event, ToolChoice};
use crate::order::Order;
use crate::target::{Quirks, Target};

/// The inputs of the golden cases whose names begin like this.
fn inputs(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openai_chat");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).expect("there are cases") {
        let directory = entry.expect("it can be read").path();
        for ending in ["json", "sse"] {
            let path = directory.join(format!("{kind}.openai_chat.{ending}"));
            if let Ok(bytes) = std::fs::read(&path) {
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    assert!(found.len() > 5, "there are cases of {kind}");
    found
}

fn asked() -> Asked {
    Asked { model: "m".into(), stream_usage: true, framing: Framing::Events, now: 7, echo: Vec::new() }
}

/// Reads a stream that comes in pieces; the order of its events is looked at.
fn events<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, mut say: impl FnMut(&Event<'_>)) {
    let (mut frames, mut decoder, mut order) =
        (Frames::new(Framing::Events), StreamDecoder::default(), Order::default());
    let mut said = |event: Event<'_>| {
        order.step(&event).expect("events are in order");
        say(&event);
    };
    for piece in pieces {
        let _ = frames.feed(piece, |frame| decoder.step(&frame, &mut said));
    }
    let _ = frames.finish(|frame| decoder.step(&frame, &mut said));
    decoder.finish(End::Complete, &mut said);
}

/// What is compared. It is meant that a call without arguments has an empty object for them, that sound in streams is what
/// OpenAI streams, since nobody says what it is, and that an event has no lines within.
fn compared(value: &impl std::fmt::Debug) -> String {
    format!("{value:#?}")
        .replace("arguments: \"\"", "arguments: \"{}\"")
        .replace("audio/wav", "audio/pcm")
        .replace("\\n", " ")
}

#[test]
fn requests_say_the_same_when_they_are_written() {
    let mut whole = 0;
    for quirks in Quirks::ALL {
        for (path, body) in inputs("request") {
            let Ok(said) = decode_request(&body, &Call::default(), &mut Reader::default()) else { continue };
            let (mut losses, target) =
                (Losses::default(), Target { quirks: *quirks, ..Target::new(&said.model) });
            let written = encode_request(&said, &target, &mut losses).expect("it can be written");
            let mut reader = Reader::default();
            let read = decode_request(&written, &Call::default(), &mut reader);
            let mut read =
                read.unwrap_or_else(|error| panic!("{} to {}: {error}", path.display(), quirks.name));
            assert!(reader.losses.is_empty(), "{} to {}: {}", path.display(), quirks.name, reader.losses);
            // What is the client's own is not sent; that a stream tells its usage always is.
            read.echo.clone_from(&said.echo);
            read.stream_usage = said.stream_usage;
            // One of several that must be called is the one that is named.
            let is_one =
                matches!(&said.tool_choice, Some(ToolChoice::Allowed { names, .. }) if names.len() == 1);
            // An identity that is too long gets another.
            let is_long = path.to_string_lossy().contains("tool_id_long");
            if losses.is_empty() && !is_one && !is_long && quirks.name == "openrouter" {
                whole += 1;
                let text = String::from_utf8_lossy(&written).into_owned();
                assert_eq!(compared(&read), compared(&said), "{}\n{text}", path.display());
            }
        }
    }
    assert!(whole > 40, "only {whole} requests were written without loss");
}

#[test]
fn replies_say_the_same_when_they_are_written() {
    for (path, body) in inputs("reply") {
        let reply = decode_reply(&body, &mut Reader::default()).expect("it is one");
        let mut losses = Losses::default();
        let written = encode_reply(&reply, &asked(), &mut losses);
        let mut reader = Reader::default();
        let read = decode_reply(&written, &mut reader).expect("it can be read");
        assert!(
            losses.is_empty() && reader.losses.is_empty(),
            "{}: {losses} {}",
            path.display(),
            reader.losses
        );
        assert_eq!(compared(&read), compared(&reply), "{}", path.display());
        // Streamed, it says that, too.
        let mut stream = Vec::new();
        let mut encoder = StreamEncoder::new(asked());
        unfold(&reply, &mut |event| encoder.step(&event, &mut stream));
        let mut fold = Fold::default();
        events([&stream[..]], |event| fold.step(event));
        let text = String::from_utf8_lossy(&stream).into_owned();
        assert_eq!(
            compared(&fold.finish().expect("it is whole")),
            compared(&reply),
            "{}\n{text}",
            path.display()
        );
    }
}

#[test]
fn failures_say_the_same_when_they_are_written() {
    for (path, body) in inputs("error") {
        let failure = decode_failure(429, &body);
        let read = decode_failure(429, &encode_failure(&failure));
        assert_eq!(read.message, failure.message, "{}", path.display());
        assert_eq!((read.kind, read.status), (failure.kind, failure.status), "{}", path.display());
        assert_eq!(read.param, failure.param, "{}", path.display());
    }
}

proptest! {
    /// Wherever a stream is cut, it says the same.
    #[test]
    fn cuts_of_a_stream_change_nothing(case in any::<prop::sample::Index>(), size in 1usize..40) {
        let inputs = inputs("stream");
        let (_, stream) = &inputs[case.index(inputs.len())];
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        events([&stream[..]], |event| whole.push(format!("{event:?}")));
        events(stream.chunks(size), |event| pieces.push(format!("{event:?}")));
        prop_assert_eq!(whole, pieces);
    }

    /// Nothing that a client or provider sends makes a decoder panic, and a stream keeps its order whatever it is.
    #[test]
    fn bodies_that_are_broken_break_nothing(
        kind in prop::sample::select(vec!["request", "reply", "stream", "error"]),
        case in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..30), 1..5),
    ) {
        let inputs = inputs(kind);
        let mut body = inputs[case.index(inputs.len())].1.clone();
        for (from, to, length) in changes {
            // Pieces of the body in other places of it: closer to JSON than what is drawn byte by byte.
            let start = from.index(body.len());
            let piece = body[start..(start + length).min(body.len())].to_vec();
            let at = to.index(body.len());
            body.splice(at..(at + length / 2).min(body.len()), piece);
            if body.is_empty() {
                body.push(b'{');
            }
        }
        let mut reader = Reader::default();
        if let Ok(request) = decode_request(&body, &Call::default(), &mut reader) {
            for quirks in Quirks::ALL {
                let target = Target { quirks: *quirks, ..Target::new("m") };
                let _ = encode_request(&request, &target, &mut Losses::default());
            }
        }
        if let Ok(reply) = decode_reply(&body, &mut reader) {
            let _ = encode_reply(&reply, &asked(), &mut Losses::default());
        }
        let _ = encode_failure(&decode_failure(500, &body));
        let (mut encoder, mut out) = (StreamEncoder::new(asked()), Vec::new());
        events([&body[..]], |event| encoder.step(event, &mut out));
    }
}

#[test]
fn tools_of_text_come_back_as_what_they_were() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"custom","custom":{"name":"patch"}}]}"#;
    let request = decode_request(body, &Call::default(), &mut Reader::default()).expect("it is one");
    let asked = Asked::new(&request, Framing::Events, 7);
    let reply = br#"{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"patch","arguments":"{\"input\":\"a\\nb\"}"}}]},"finish_reason":"tool_calls"}]}"#;
    let reply = decode_reply(reply, &mut Reader::default()).expect("it is one");
    let expected = r#""custom":{"name":"patch","input":"a\nb"}"#;
    let written = encode_reply(&reply, &asked, &mut Losses::default());
    assert!(String::from_utf8_lossy(&written).contains(expected));
    let (mut encoder, mut stream) = (StreamEncoder::new(asked), Vec::new());
    unfold(&reply, &mut |event| encoder.step(&event, &mut stream));
    let mut fold = Fold::default();
    events([&stream[..]], |event| fold.step(event));
    let folded = encode_reply(&fold.finish().expect("it is whole"), &self::asked(), &mut Losses::default());
    assert!(String::from_utf8_lossy(&folded).contains(expected), "{}", String::from_utf8_lossy(&stream));
}
