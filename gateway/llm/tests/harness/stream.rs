//! Translates streams, and checks of each what must hold for all of them.

use gateway_llm::dialect::Dialect;
use gateway_llm::fold::{Fold, unfold};
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::json::Reader;
use gateway_llm::loss::Losses;
use gateway_llm::neutral::{End, Event, Reply};
use gateway_llm::order::Order;

use super::case::{Case, Input};
use super::translate::{Outcome, Stage};

/// A frame: its event's name, its data, all of it.
type Piece = (Option<String>, String, Vec<u8>);

/// Cuts a stream that comes in pieces.
fn cut<'p>(framing: Framing, pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Piece>, bool) {
    let mut frames = Frames::new(framing);
    let mut found = Vec::new();
    let mut say = |frame: gateway_llm::frames::Frame<'_>| {
        found.push((frame.event.map(str::to_owned), frame.data.to_string(), frame.raw.to_vec()));
    };
    let mut is_whole = true;
    for piece in pieces {
        is_whole = is_whole && frames.feed(piece, &mut say).is_ok();
    }
    is_whole = is_whole && frames.finish(&mut say).is_ok() && frames.is_complete();
    (found, is_whole)
}

/// Reads a stream. Says each event, and what has no place in events.
fn decode(
    from: Dialect,
    framing: Framing,
    bytes: &[u8],
    end: impl Fn(bool) -> End,
    say: &mut dyn FnMut(Event<'_>),
) -> Losses {
    let mut decoder = from.stream_decoder();
    let mut frames = Frames::new(framing);
    let fed = frames.feed(bytes, |frame| decoder.step(&frame, say));
    let finished = frames.finish(|frame| decoder.step(&frame, say));
    decoder.finish(end(fed.and(finished).is_ok() && frames.is_complete()), say);
    std::mem::take(decoder.losses())
}

/// Reads a stream and folds it.
fn fold(
    from: Dialect,
    framing: Framing,
    bytes: &[u8],
    end: impl Fn(bool) -> End,
) -> Result<Reply<'static>, String> {
    let mut fold = Fold::default();
    decode(from, framing, bytes, end, &mut |event| fold.step(&event));
    fold.finish().map_err(|failure| failure.message)
}

/// Translates the stream of a case.
pub(crate) fn translate(case: &Case, input: &Input, outcome: &mut Outcome) {
    let from = input.dialect;
    let end = |is_complete| case.end(is_complete).unwrap_or(End::Broken);
    check_cuts(input, outcome);
    let read = || {
        let mut order = Order::default();
        let mut fault = None;
        let mut watch = |event: Event<'_>| {
            if let Err(why) = order.step(&event) {
                fault.get_or_insert(why);
            }
        };
        decode(from, input.framing, &input.bytes, end, &mut watch);
        fault.or(order.finish().err())
    };
    let Some(fault) = outcome.stage(Stage::Decode(from), read) else { return };
    if let Some(fault) = fault {
        outcome.problems.push(format!("events are out of order: {fault}"));
    }
    let folded = fold(from, input.framing, &input.bytes, end);
    check_whole(input, folded.as_ref(), outcome);
    for to in case.to(from) {
        let write = || write(case, input, to);
        let Some((bytes, losses)) = outcome.stage(Stage::Encode(to), write) else { continue };
        show(case, to, &bytes, outcome);
        outcome.losses(to, &losses);
        if let Ok(folded) = &folded {
            check_fold(case, to, &bytes, folded, outcome);
        }
    }
}

/// The stream in another dialect, and what was lost.
fn write(case: &Case, input: &Input, to: Dialect) -> (Vec<u8>, Losses) {
    let end = |is_complete| case.end(is_complete).unwrap_or(End::Broken);
    let mut encoder = to.stream_encoder(case.asked());
    let mut out = Vec::new();
    let mut losses = decode(input.dialect, input.framing, &input.bytes, end, &mut |event| {
        encoder.step(&event, &mut out);
    });
    losses.append(std::mem::take(encoder.losses()));
    (out, losses)
}

fn show(case: &Case, to: Dialect, bytes: &[u8], outcome: &mut Outcome) {
    match framing(case, to) {
        Framing::Items => outcome.json(format!("to.{to}.json"), bytes),
        Framing::Events => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => {
                outcome.files.insert(format!("to.{to}.sse"), text);
            }
            Err(_) => outcome.problems.push(format!("the stream to {to} is no UTF-8")),
        },
    }
}

/// Only Gemini has arrays.
fn framing(case: &Case, to: Dialect) -> Framing {
    if to == Dialect::Gemini { case.asked().framing } else { Framing::Events }
}

/// Wherever the network cuts the bytes, the frames are the same, and so is what decoders are told.
fn check_cuts(input: &Input, outcome: &mut Outcome) {
    let bytes = &input.bytes[..];
    let whole = cut(input.framing, [bytes]);
    // A prime, so that it falls on every place of a line sooner or later.
    let step = if bytes.len() > 4_000 { 31 } else { 1 };
    for at in (0..bytes.len()).step_by(step) {
        let (first, second) = bytes.split_at(at);
        if cut(input.framing, [first, second]) != whole {
            outcome.problems.push(format!("frames change when the stream is cut at byte {at}"));
            return;
        }
    }
    if cut(input.framing, bytes.chunks(1)) != whole {
        outcome.problems.push("frames change when the stream comes byte by byte".to_owned());
    }
}

/// A stream says what the reply says that was not streamed, and folding loses nothing.
fn check_whole(input: &Input, folded: Result<&Reply<'static>, &String>, outcome: &mut Outcome) {
    if let Ok(folded) = folded {
        let mut again = Fold::default();
        unfold(folded, &mut |event| again.step(&event));
        if again.finish().as_ref() != Ok(folded) {
            outcome.problems.push("the folded stream changes when it is unfolded and folded".to_owned());
        }
    }
    let Some(whole) = &input.whole else { return };
    let decode = || match input.dialect.decode_reply(whole, &mut Reader::default()) {
        Ok(whole) if folded == Ok(&whole) => None,
        Ok(whole) => {
            let (whole, streamed) = (format!("{whole:#?}"), folded.map(|folded| format!("{folded:#?}")));
            let streamed = streamed.unwrap_or_else(ToString::to_string);
            let difference = super::layout::difference(&whole, &streamed);
            Some(format!("the stream says otherwise than the whole reply (-):\n{difference}"))
        }
        Err(error) => Some(format!("the whole reply: {error}")),
    };
    let problem = outcome.stage(Stage::Decode(input.dialect), decode).flatten();
    outcome.problems.extend(problem);
}

/// A client that streams is told what a client is told that does not.
fn check_fold(case: &Case, to: Dialect, bytes: &[u8], folded: &Reply<'_>, outcome: &mut Outcome) {
    let check = || {
        let mut asked = case.asked();
        asked.framing = Framing::Events;
        let whole = to.encode_reply(folded, &asked, &mut Losses::default());
        let mut reader = Reader::default();
        let mut whole = match to.decode_reply(&whole, &mut reader) {
            Ok(whole) => whole,
            Err(error) => return Some(format!("the reply to {to} cannot be read: {error}")),
        };
        let mut streamed = match fold(to, framing(case, to), bytes, |_| End::Complete) {
            Ok(streamed) => streamed,
            Err(error) => return Some(format!("the stream to {to} cannot be read: {error}")),
        };
        if !asked.stream_usage {
            whole.usage = None;
            streamed.usage = None;
        }
        (streamed != whole).then(|| {
            let (streamed, whole) = (format!("{streamed:#?}"), format!("{whole:#?}"));
            format!(
                "{to} is streamed otherwise than whole (-):\n{}",
                super::layout::difference(&whole, &streamed)
            )
        })
    };
    let problem = outcome.stage(Stage::ReadBack(to), check).flatten();
    match (problem, case.streams_otherwise.get(to.name())) {
        (Some(problem), None) => outcome.problems.push(problem),
        (None, Some(_)) => outcome.problems.push(format!("streams_otherwise names {to}, and is wrong")),
        _ => {}
    }
}
