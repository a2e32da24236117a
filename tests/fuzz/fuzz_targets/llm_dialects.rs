//! Whatever a client or a provider sends in a dialect of LLM APIs, nothing panics, what is written for any other dialect is
//! JSON and not many times as large, and events come in their order.
#![no_main]

use gateway_llm::dialect::{Asked, Call, Dialect};
use gateway_llm::fold::{Fold, unfold};
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::json::{Reader, parse};
use gateway_llm::loss::Losses;
use gateway_llm::neutral::{End, Event};
use gateway_llm::order::Order;
use gateway_llm::target::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, body)) = bytes.split_first() else { return };
    let from = Dialect::ALL[usize::from(kind) % Dialect::ALL.len()];
    match kind / 4 % 4 {
        0 => request(from, body),
        1 => reply(from, body),
        2 => stream(from, body),
        _ => failure(from, body),
    }
});

/// What is written is JSON, and bounded by what was read: identities, names and frames are added, and texts stay.
fn check(written: &[u8], read: &[u8]) {
    assert!(parse(written).is_ok(), "{}", String::from_utf8_lossy(written));
    assert!(written.len() <= 4096 + read.len() * 64, "{} bytes of {}", written.len(), read.len());
}

fn asked() -> Asked {
    Asked { model: "m".to_owned(), stream_usage: true, framing: Framing::Events, now: 1, echo: Vec::new() }
}

fn request(from: Dialect, body: &[u8]) {
    let call = Call { model: Some("m"), stream: false };
    let Ok(request) = from.decode_request(body, &call, &mut Reader::default()) else { return };
    for to in Dialect::ALL {
        if let Ok(written) = to.encode_request(&request, &Target::new("m"), &mut Losses::default()) {
            check(&written, body);
        }
    }
}

fn reply(from: Dialect, body: &[u8]) {
    let Ok(reply) = from.decode_reply(body, &mut Reader::default()) else { return };
    for to in Dialect::ALL {
        check(&to.encode_reply(&reply, &asked(), &mut Losses::default()), body);
        let mut encoder = to.stream_encoder(asked());
        let mut written = Vec::new();
        unfold(&reply, &mut |event| encoder.step(&event, &mut written));
        assert!(std::str::from_utf8(&written).is_ok());
    }
}

fn stream(from: Dialect, body: &[u8]) {
    let is_array = from == Dialect::Gemini && body.first() == Some(&b'[');
    let mut frames = Frames::new(if is_array { Framing::Items } else { Framing::Events });
    let mut decoder = from.stream_decoder();
    let mut encoders = Dialect::ALL.map(|to| (to.stream_encoder(asked()), Vec::new()));
    let (mut order, mut fold) = (Order::default(), Fold::default());
    let mut say = |event: Event<'_>| {
        order.step(&event).expect("events are in order");
        fold.step(&event);
        encoders.iter_mut().for_each(|(encoder, written)| encoder.step(&event, written));
    };
    let fed = frames.feed(body, |frame| decoder.step(&frame, &mut say));
    let end = if fed.is_ok() { End::Complete } else { End::Broken };
    decoder.finish(end, &mut say);
    order.finish().expect("events have an end");
    let _ = fold.finish();
    for (_, written) in encoders {
        let mut frames = Frames::new(Framing::Events);
        let read = frames.feed(&written, |frame| {
            let is_end = frame.data == "[DONE]";
            assert!(is_end || parse(frame.data.as_bytes()).is_ok(), "{}", frame.data);
        });
        assert!(read.is_ok() && frames.is_complete());
    }
}

fn failure(from: Dialect, body: &[u8]) {
    let failure = from.decode_failure(400, body);
    Dialect::ALL.into_iter().for_each(|to| check(&to.encode_failure(&failure), body));
}
