//! Streams of LLM APIs are cut into the same frames wherever the network cuts their bytes.
#![no_main]

use gateway_llm::frames::{Broken, Frame, Frames, Framing};
use libfuzzer_sys::fuzz_target;

type Piece = (Option<String>, String, Vec<u8>);

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (is_array, bytes, cuts) = input;
    let framing = if is_array { Framing::Items } else { Framing::Events };
    let mut pieces = Vec::new();
    let mut rest = &bytes[..];
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    let whole = cut(framing, &[&bytes]);
    assert_eq!(cut(framing, &pieces), whole);
    assert!(whole.0.iter().map(|(_, _, raw)| raw.len()).sum::<usize>() <= bytes.len() + 2);
});

/// The frames, why the stream broke, and whether it is whole.
fn cut(framing: Framing, pieces: &[&[u8]]) -> (Vec<Piece>, Result<(), Broken>, bool) {
    let mut frames = Frames::new(framing);
    let mut found = Vec::new();
    let mut say = |frame: Frame<'_>| {
        found.push((frame.event.map(str::to_owned), frame.data.to_string(), frame.raw.to_vec()));
    };
    let mut end = Ok(());
    for piece in pieces {
        end = end.and_then(|()| frames.feed(piece, &mut say));
    }
    end = end.and_then(|()| frames.finish(&mut say));
    let is_complete = end.is_ok() && frames.is_complete();
    (found, end, is_complete)
}
