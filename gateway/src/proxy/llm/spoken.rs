//! An answer on its way to the client, piece by piece: as it comes, or translated event by event.
//!
//! Nothing is read that the client has no room for. What a provider says in one piece is passed on in one, so that an event
//! costs neither a copy nor a wake-up of its own. A stream that breaks ends in an error that its client understands; half an
//! event never reaches it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway_llm::dialect::{Asked, Dialect, StreamDecoder, StreamEncoder};
use gateway_llm::failure::{Failure, FailureKind};
use gateway_llm::frames::{Frames, Framing};
use gateway_llm::meter::{Meter, Passed};
use gateway_llm::neutral::{End, Event, Usage};
use http_body::{Frame, SizeHint};
use memchr::memmem;
use tokio::time::Sleep;

use crate::observe::llm::ModelMeter;

use super::super::body::BodyError;
use super::super::exchange::Exchange;
use super::source::{Cut, Source};

/// What the access log says of a stream that an error ended.
const FAILED: &str = "llm_stream_failed";

/// How long a provider that has said its last event may take to end the stream. Its connection can be used again then.
const GRACE: Duration = Duration::from_millis(500);

/// How much of an event is held back until the rest of it comes. Of longer ones, which hold pictures, the client gets what
/// there is.
const MAX_HELD: usize = 1 << 20;

/// How the bytes of an answer become the client's.
pub(super) enum Passing {
    /// They are the client's, and no stream.
    Whole(Box<Meter>),
    /// They are the client's.
    Events(Box<Verbatim>),
    /// They are translated.
    Translated(Box<Translation>),
}

/// A stream that passes as it is, in whole events.
pub(super) struct Verbatim {
    meter: Meter,
    framing: Framing,
    /// The begin of an event.
    held: Vec<u8>,
    /// The client has got a part of an event.
    is_loose: bool,
}

/// A stream that is translated.
pub(super) struct Translation {
    frames: Frames,
    decoder: StreamDecoder,
    encoder: StreamEncoder,
    usage: Option<Usage>,
    has_ended: bool,
    has_failed: bool,
}

impl Verbatim {
    pub(super) fn new(meter: Meter, framing: Framing) -> Self {
        Self { meter, framing, held: Vec::new(), is_loose: false }
    }

    /// What of a piece goes on now.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let whole = self.whole_events(piece);
        if whole.is_empty() {
            return whole;
        }
        match self.meter.pass(&whole) {
            Passed::All => whole,
            Passed::Instead(other) => other.into(),
        }
    }

    fn whole_events(&mut self, mut piece: Bytes) -> Bytes {
        if self.framing == Framing::Items {
            return piece;
        }
        if self.held.is_empty() {
            let end = last_end(&piece);
            if end == piece.len() {
                self.is_loose = false;
                return piece;
            }
            if self.is_loose && end == 0 {
                return piece;
            }
            self.held.extend_from_slice(&piece.split_off(end));
            self.is_loose &= end == 0;
            return piece;
        }
        // An end may stand across both.
        let from = self.held.len().saturating_sub(3);
        self.held.extend_from_slice(&piece);
        let end = match last_end(&self.held[from..]) {
            0 if self.held.len() > MAX_HELD => {
                self.is_loose = true;
                self.held.len()
            }
            0 => 0,
            end => from + end,
        };
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest).into()
    }

    /// What is left at the end: an event without the empty line behind it, which some servers forget, or half of one.
    fn rest(&mut self) -> Result<Bytes, Cut> {
        let held = std::mem::take(&mut self.held);
        let mut frames = Frames::new(Framing::Events);
        let mut is_whole = true;
        let mut look =
            |data: &str| is_whole &= data == "[DONE]" || gateway_llm::json::parse(data.as_bytes()).is_ok();
        let fed = frames
            .feed(&held, |frame| look(&frame.data))
            .and_then(|()| frames.finish(|frame| look(&frame.data)));
        if self.is_loose || fed.is_err() || !is_whole {
            return Err(Cut::Broken);
        }
        match self.meter.pass(&held) {
            Passed::All => Ok(held.into()),
            Passed::Instead(other) => Ok(other.into()),
        }
    }
}

/// Where the last event ends; 0 if none does.
fn last_end(bytes: &[u8]) -> usize {
    // Nearly always.
    if bytes.ends_with(b"\n\n") {
        return bytes.len();
    }
    let end = |mark: &[u8]| memmem::rfind(bytes, mark).map_or(0, |at| at + mark.len());
    end(b"\n\n").max(end(b"\r\n\r\n")).max(end(b"\r\r"))
}

impl Translation {
    pub(super) fn new(from: Dialect, to: Dialect, asked: Asked) -> Self {
        Self {
            frames: Frames::new(Framing::Events),
            decoder: from.stream_decoder(),
            encoder: to.stream_encoder(asked),
            usage: None,
            has_ended: false,
            has_failed: false,
        }
    }

    /// Reads a piece, and writes what it means to the client.
    fn pass(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Cut> {
        let Self { frames, decoder, encoder, usage, has_ended, has_failed } = self;
        let fed = frames.feed(piece, |frame| {
            decoder.step(&frame, &mut |event| hear(&event, encoder, usage, has_ended, has_failed, out));
        });
        fed.map_err(|_| Cut::Broken)
    }

    /// The provider's stream is over.
    fn finish(&mut self, end: End, out: &mut Vec<u8>) {
        let Self { frames, decoder, encoder, usage, has_ended, has_failed } = self;
        let mut say = |event: Event<'_>| hear(&event, encoder, usage, has_ended, has_failed, out);
        if end == End::Complete {
            let _ = frames.finish(|frame| decoder.step(&frame, &mut say));
        }
        decoder.finish(end, &mut say);
    }
}

fn hear(
    event: &Event<'_>,
    encoder: &mut StreamEncoder,
    usage: &mut Option<Usage>,
    has_ended: &mut bool,
    has_failed: &mut bool,
    out: &mut Vec<u8>,
) {
    if *has_ended {
        return;
    }
    match event {
        Event::Usage(said) | Event::Start { usage: Some(said), .. } => {
            usage.get_or_insert_default().update(said)
        }
        Event::End => *has_ended = true,
        Event::Failed(_) => (*has_ended, *has_failed) = (true, true),
        _ => {}
    }
    encoder.step(event, out);
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Flows,
    /// All is said; the provider has not ended the stream.
    Closes,
    Over,
    /// It must not be taken for complete.
    Torn,
}

/// What an answer is delivered with.
pub(super) struct Delivered {
    pub(super) source: Source,
    pub(super) passing: Passing,
    pub(super) client: Dialect,
    /// The model as the client calls it.
    pub(super) model: String,
    /// How long the provider may be silent.
    pub(super) idle: Duration,
    /// How long the client may hear nothing of a stream that is translated.
    pub(super) ping: Duration,
    /// When it has to be over, whatever comes.
    pub(super) ends: Instant,
    pub(super) meter: Rc<ModelMeter>,
}

/// An answer on its way.
pub(in crate::proxy) struct Spoken {
    delivered: Delivered,
    exchange: Exchange,
    phase: Phase,
    out: Bytes,
    /// When the provider said something last, and when the client was told something last.
    heard: Instant,
    said: Instant,
    is_first: bool,
    /// Made when there is something to wait for: of an answer that is there at once, nobody pays for a timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Spoken {
    pub(super) fn new(delivered: Delivered, exchange: Exchange) -> Self {
        let now = Instant::now();
        Self {
            delivered,
            exchange,
            phase: Phase::Flows,
            out: Bytes::new(),
            heard: now,
            said: now,
            is_first: true,
            timer: None,
        }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if !self.out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.say()))));
            }
            match self.phase {
                Phase::Over => {
                    self.exchange.sent(0, true);
                    return Poll::Ready(None);
                }
                Phase::Torn => {
                    self.phase = Phase::Over;
                    self.exchange.aborted();
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
                Phase::Flows | Phase::Closes => {}
            }
            match self.delivered.source.poll(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    self.heard = Instant::now();
                    let passed =
                        if self.heard < self.delivered.ends { self.pass(piece) } else { Err(Cut::Endless) };
                    if let Err(cut) = passed {
                        self.fail(cut);
                    }
                }
                Poll::Ready(Some(Err(_))) if self.phase == Phase::Closes => self.phase = Phase::Over,
                Poll::Ready(Some(Err(cut))) => self.fail(cut),
                Poll::Ready(None) => self.end(),
                Poll::Pending => {
                    if self.timer.is_none() {
                        self.wake_at(self.due());
                    }
                    if let Some(timer) = &mut self.timer {
                        ready!(timer.as_mut().poll(cx));
                    }
                    self.look();
                }
            }
        }
    }

    /// A piece goes to the client.
    fn say(&mut self) -> Bytes {
        let piece = std::mem::take(&mut self.out);
        self.said = self.heard;
        if std::mem::take(&mut self.is_first) {
            self.delivered.meter.first_token(self.exchange.started().elapsed());
        }
        self.exchange.watch().progressed();
        self.exchange.sent(piece.len(), false);
        piece
    }

    fn pass(&mut self, piece: Bytes) -> Result<(), Cut> {
        match &mut self.delivered.passing {
            Passing::Whole(meter) => {
                let _ = meter.pass(&piece);
                self.out = piece;
            }
            Passing::Events(passed) => {
                let is_last = is_last(self.delivered.client, &piece);
                self.out = passed.pass(piece);
                if is_last && passed.held.is_empty() {
                    self.closes();
                }
            }
            // What comes behind the end says nothing.
            Passing::Translated(_) if self.phase == Phase::Closes => {}
            Passing::Translated(translation) => {
                let mut out = Vec::with_capacity(piece.len() + piece.len() / 2);
                let read = translation.pass(&piece, &mut out);
                self.out = out.into();
                read?;
                if translation.has_failed {
                    self.exchange.because(FAILED);
                    self.phase = Phase::Over;
                } else if translation.has_ended {
                    self.closes();
                }
            }
        }
        Ok(())
    }

    fn closes(&mut self) {
        self.phase = Phase::Closes;
        self.wake_at(Instant::now() + GRACE);
    }

    fn wake_at(&mut self, due: Instant) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(due.into()),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(due.into()))),
        }
    }

    /// The provider has ended the answer.
    fn end(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        match &mut self.delivered.passing {
            Passing::Whole(_) => {}
            Passing::Events(passed) => match passed.rest() {
                Ok(rest) => self.out = rest,
                Err(cut) if phase == Phase::Flows => self.fail(cut),
                Err(_) => {}
            },
            Passing::Translated(translation) => {
                if phase == Phase::Flows {
                    let mut out = Vec::new();
                    translation.finish(End::Complete, &mut out);
                    if translation.has_failed {
                        self.exchange.because(FAILED);
                    }
                    self.out = out.into();
                }
            }
        }
    }

    /// The stream ends in an error.
    fn fail(&mut self, cut: Cut) {
        self.phase = Phase::Over;
        self.exchange.because(FAILED);
        let mut out = std::mem::take(&mut self.out).to_vec();
        match &mut self.delivered.passing {
            Passing::Translated(translation) if !translation.has_ended => {
                let is_late = matches!(cut, Cut::Silent | Cut::Endless);
                let end = if is_late { End::TimedOut } else { End::Broken };
                translation.finish(end, &mut out);
            }
            Passing::Events(passed) if passed.framing == Framing::Events && !passed.is_loose => {
                let asked = Asked {
                    model: self.delivered.model.clone(),
                    stream_usage: false,
                    framing: Framing::Events,
                    now: 0,
                    echo: Vec::new(),
                };
                self.delivered.client.stream_encoder(asked).step(&Event::Failed(failure(cut)), &mut out);
            }
            // Whatever came after this would pass for a part of the answer; only a reset does not.
            _ => self.phase = Phase::Torn,
        }
        self.out = out.into();
    }

    fn is_stream(&self) -> bool {
        !matches!(self.delivered.passing, Passing::Whole(_))
    }

    /// When somebody has to be told that it goes on, or that it does not.
    fn due(&self) -> Instant {
        let over = (self.heard + self.delivered.idle).min(self.delivered.ends);
        match self.delivered.passing {
            Passing::Translated(_) => over.min(self.said + self.delivered.ping),
            _ => over,
        }
    }

    /// The timer has fired, and nothing has come.
    fn look(&mut self) {
        let now = Instant::now();
        if self.phase == Phase::Closes {
            self.phase = Phase::Over;
            return;
        }
        if now >= self.heard + self.delivered.idle {
            self.fail(Cut::Silent);
            return;
        }
        if now >= self.delivered.ends {
            self.fail(Cut::Endless);
            return;
        }
        if let Passing::Translated(translation) = &mut self.delivered.passing
            && now >= self.said + self.delivered.ping
        {
            let mut out = Vec::new();
            translation.encoder.step(&Event::Ping, &mut out);
            self.out = out.into();
            self.said = now;
        }
        self.wake_at(self.due());
    }

    pub(in crate::proxy) fn is_end(&self) -> bool {
        self.out.is_empty()
            && (self.phase == Phase::Over || (!self.is_stream() && self.delivered.source.is_end()))
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.delivered.passing {
            Passing::Whole(_) => {
                self.delivered.source.length().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Passing::Events(_) | Passing::Translated(_) => SizeHint::default(),
        }
    }

    fn usage(&mut self) -> Option<Usage> {
        match &mut self.delivered.passing {
            Passing::Whole(meter) => {
                let done = Box::new(Meter::new(self.delivered.client, None, false));
                std::mem::replace(meter, done).finish().1
            }
            Passing::Events(passed) => passed.meter.usage(),
            Passing::Translated(translation) => translation.usage,
        }
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        if let Some(usage) = self.usage() {
            self.delivered.meter.used(&usage);
            if let Some(record) = self.exchange.record() {
                record.used(&usage);
            }
        }
        if let Passing::Translated(translation) = &mut self.delivered.passing {
            let meter = self.exchange.local().llm_meter();
            meter.lost(translation.decoder.losses());
            meter.lost(translation.encoder.losses());
        }
    }
}

/// Whether a piece of a provider's stream ends in the event that is its last. Gemini has none.
fn is_last(dialect: Dialect, piece: &[u8]) -> bool {
    let tail = &piece[piece.len().saturating_sub(128)..];
    match dialect {
        Dialect::OpenaiChat => tail.trim_ascii_end().ends_with(b"data: [DONE]"),
        Dialect::AnthropicMessages => memmem::find(tail, b"\"message_stop\"").is_some(),
        Dialect::OpenaiResponses => {
            // Of the last event alone: each is looked at, and they are long.
            let start = memmem::rfind(piece, b"\n\nevent: ").map_or(0, |at| at + 2);
            let piece = &piece[start..];
            let kinds: [&[u8]; 3] =
                [b"event: response.completed", b"event: response.incomplete", b"event: response.failed"];
            kinds.iter().any(|kind| piece.starts_with(kind))
        }
        Dialect::Gemini => false,
    }
}

fn failure(cut: Cut) -> Failure {
    match cut {
        Cut::Silent => {
            Failure::new(FailureKind::Timeout, "The provider stopped in the middle of its answer.")
        }
        Cut::Endless => Failure::new(FailureKind::Timeout, "The answer takes longer than it may."),
        Cut::Broken | Cut::TooLong => {
            Failure::new(FailureKind::Server, "The provider's answer broke off in the middle.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pieces: &[&[u8]]) -> (Vec<String>, Result<String, Cut>) {
        let mut passed =
            Verbatim::new(Meter::new(Dialect::OpenaiChat, Some(Framing::Events), false), Framing::Events);
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let said = pieces.iter().map(|piece| text(passed.pass(Bytes::copy_from_slice(piece)))).collect();
        (said, passed.rest().map(text))
    }

    #[test]
    fn clients_get_whole_events() {
        for (name, pieces, expected, rest) in [
            (
                "whole ones",
                &[&b"data: {}\n\n"[..], b": ping\n\ndata: 1\n\n"][..],
                &["data: {}\n\n", ": ping\n\ndata: 1\n\n"][..],
                Ok(""),
            ),
            ("half of one", &[b"data: {}\n\ndata: {\"a"], &["data: {}\n\n"], Err(Cut::Broken)),
            ("one in pieces", &[b"data: {", b"}\n", b"\nx"], &["", "", "data: {}\n\n"], Ok("x")),
            (
                "CR LF",
                &[b"data: {}\r\n\r", b"\ndata: 1\r\n\r\n"],
                &["", "data: {}\r\n\r\ndata: 1\r\n\r\n"],
                Ok(""),
            ),
            (
                "without the last line",
                &[b"data: {}\n\ndata: [DONE]\n"],
                &["data: {}\n\n"],
                Ok("data: [DONE]\n"),
            ),
            ("without any", &[b"data: {}"], &[""], Ok("data: {}")),
        ] {
            let (said, left) = passed(pieces);
            assert_eq!(said, expected, "{name}");
            assert_eq!(left.as_deref().map_err(|cut| *cut), rest, "{name}");
        }
    }

    #[test]
    fn a_long_event_is_not_held_for_ever() {
        let long = vec![b'x'; MAX_HELD];
        let (said, rest) = passed(&[b"data: \"", &long, &long, b"\"\n\ndata: 1\n\n", b"data: {"]);
        assert_eq!(said.iter().map(String::len).collect::<Vec<_>>(), [0, MAX_HELD + 7, MAX_HELD, 12, 0]);
        assert_eq!(rest, Err(Cut::Broken));
    }

    proptest::proptest! {
        /// Whatever is cut where, nothing is lost and nothing is added.
        #[test]
        fn bytes_stay_as_they_are(
            text in "(data: \\{\\}\n\n|: x\r\n\r\n|event: a\ndata: 1\n\n|\r\r){0,12}",
            cuts in proptest::collection::vec(0usize..100, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let (said, rest) = passed(&pieces);
            proptest::prop_assert_eq!(said.concat() + &rest.unwrap(), text);
        }
    }

    #[test]
    fn the_last_event_is_known() {
        for (dialect, piece, expected) in [
            (Dialect::OpenaiChat, "data: {}\n\ndata: [DONE]\n\n", true),
            (Dialect::OpenaiChat, "data: {\"a\":\"data: [DONE]\"}\n\n", false),
            (Dialect::AnthropicMessages, "event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n", true),
            (Dialect::AnthropicMessages, "event: message_delta\ndata: {}\n\n", false),
            (Dialect::OpenaiResponses, "event: response.completed\ndata: {}\n\n", true),
            (Dialect::OpenaiResponses, "event: response.created\ndata: {}\n\n", false),
            (Dialect::Gemini, "data: {}\n\n", false),
        ] {
            assert_eq!(is_last(dialect, piece.as_bytes()), expected, "{dialect} {piece}");
        }
    }
}
