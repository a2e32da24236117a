//! Reads what an answer cost while it passes, and takes out what only the meter asked for.
//!
//! Bytes are not held up for it, and a piece of a stream that says nothing of usage is not even cut into frames. What
//! cannot be read costs a figure and never an answer.

use memchr::memmem;

use crate::dialect::Dialect;
use crate::frames::{Frame, Frames, Framing};
use crate::json::{Members, parse};
use crate::neutral::Usage;

/// How much of a reply that is not streamed is kept for its usage.
const MAX_REPLY: usize = 16 << 20;

/// Reads an answer that passes.
#[derive(Debug)]
pub struct Meter {
    dialect: Dialect,
    hides_usage: bool,
    reading: Reading,
    usage: Option<Usage>,
}

#[derive(Debug)]
enum Reading {
    Stream(Frames),
    Whole(Vec<u8>),
    /// It cannot be read.
    GivenUp,
}

/// What of the bytes goes on to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// They, as they are.
    All,
    /// These instead.
    Instead(Vec<u8>),
}

impl Meter {
    /// A meter of a stream, cut like this, or of a reply that comes whole. The chunk that tells an OpenAI client the
    /// usage is taken out where it `hides_usage`: the client did not ask for it, the gateway did.
    #[must_use]
    pub fn new(dialect: Dialect, framing: Option<Framing>, hides_usage: bool) -> Self {
        let reading = framing
            .map_or_else(|| Reading::Whole(Vec::new()), |framing| Reading::Stream(Frames::new(framing)));
        let hides_usage = hides_usage && dialect == Dialect::OpenaiChat && framing == Some(Framing::Events);
        Self { dialect, hides_usage, reading, usage: None }
    }

    /// The next bytes of the answer.
    #[must_use]
    pub fn pass(&mut self, bytes: &[u8]) -> Passed {
        match &mut self.reading {
            Reading::GivenUp => Passed::All,
            Reading::Whole(kept) if kept.len() + bytes.len() <= MAX_REPLY => {
                kept.extend_from_slice(bytes);
                Passed::All
            }
            Reading::Whole(_) => {
                self.reading = Reading::GivenUp;
                Passed::All
            }
            Reading::Stream(frames) => {
                let is_whole =
                    frames.is_complete() && (bytes.ends_with(b"\n\n") || bytes.ends_with(b"\r\n\r\n"));
                if is_whole && memmem::find(bytes, b"usage").is_none() {
                    return Passed::All;
                }
                self.cut(bytes)
            }
        }
    }

    fn cut(&mut self, bytes: &[u8]) -> Passed {
        let Self { dialect, hides_usage, reading, usage } = self;
        let Reading::Stream(frames) = reading else { return Passed::All };
        let mut passed = Vec::new();
        let fed = frames.feed(bytes, |frame| {
            let found = read_frame(*dialect, &frame);
            if !*hides_usage || !found.as_ref().is_some_and(|found| found.is_all) {
                passed.extend_from_slice(frame.raw);
            }
            if let Some(found) = found {
                let known = usage.get_or_insert_default();
                let later = complete(*dialect, known, found.usage);
                known.update(&later);
            }
        });
        if fed.is_err() {
            let kept = frames.take();
            self.reading = Reading::GivenUp;
            if *hides_usage {
                passed.extend_from_slice(&kept);
                return Passed::Instead(passed);
            }
        }
        if *hides_usage { Passed::Instead(passed) } else { Passed::All }
    }

    /// The answer has ended: what of it was held back, and what it cost, if it said so.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Option<Usage>) {
        let rest = match &mut self.reading {
            Reading::Stream(frames) if self.hides_usage => frames.take(),
            Reading::Whole(kept) => {
                let kept = std::mem::take(kept);
                self.usage = read_reply(self.dialect, &kept);
                Vec::new()
            }
            _ => Vec::new(),
        };
        (rest, self.usage)
    }

    /// What it cost so far.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }
}

/// Anthropic counts the input that is cached beside the fresh one, and its later figures may leave out either; of all input,
/// as it is counted here, both are parts.
fn complete(dialect: Dialect, known: &Usage, mut later: Usage) -> Usage {
    if dialect == Dialect::AnthropicMessages {
        let cached = [later.cache_read.or(known.cache_read), later.cache_written.or(known.cache_written)];
        let cached = cached.into_iter().flatten().fold(0, u64::saturating_add);
        let fresh = later.fresh_input().or_else(|| known.fresh_input());
        later.input = fresh.map(|fresh| fresh.saturating_add(cached));
    }
    later
}

struct Found {
    usage: Usage,
    /// Whether the frame says nothing else.
    is_all: bool,
}

/// The usage in a frame.
fn read_frame(dialect: Dialect, frame: &Frame<'_>) -> Option<Found> {
    memmem::find(frame.data.as_bytes(), b"usage")?;
    let members = Members::of(frame.data.as_bytes()).ok()?;
    let (raw, is_all) = match dialect {
        Dialect::OpenaiChat => (members.raw("usage")?, members.raw("choices") == Some("[]")),
        Dialect::Gemini => (members.raw("usageMetadata").or_else(|| members.raw("usage_metadata"))?, false),
        Dialect::AnthropicMessages => match members.raw("usage") {
            Some(usage) => (usage, false),
            None => (Members::of(members.raw("message")?.as_bytes()).ok()?.raw("usage")?, false),
        },
        Dialect::OpenaiResponses => {
            (Members::of(members.raw("response")?.as_bytes()).ok()?.raw("usage")?, false)
        }
    };
    read(dialect, raw).map(|usage| Found { usage, is_all })
}

/// The usage of a reply that came whole.
fn read_reply(dialect: Dialect, body: &[u8]) -> Option<Usage> {
    let members = Members::of(body).ok()?;
    let name = if dialect == Dialect::Gemini { "usageMetadata" } else { "usage" };
    read(dialect, members.raw(name)?)
}

fn read(dialect: Dialect, raw: &str) -> Option<Usage> {
    let usage =
        parse(raw.as_bytes()).ok().filter(|node| matches!(node.value, crate::json::Value::Object(_)))?;
    Some(dialect.decode_usage(&usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_later_figures_leave_out_stays() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":2,"output_tokens":1}}}"#;
        let delta = |usage: &str| format!(r#"{{"type":"message_delta","usage":{{{usage}}}}}"#);
        for (name, later, expected) in [
            ("output alone", r#""output_tokens":7"#, (17, 7)),
            ("the fresh input again", r#""input_tokens":10,"output_tokens":7"#, (17, 7)),
            (
                "all of it",
                r#""input_tokens":11,"cache_read_input_tokens":6,"cache_creation_input_tokens":2,"output_tokens":7"#,
                (19, 7),
            ),
            ("more of what is cached", r#""cache_read_input_tokens":9,"output_tokens":7"#, (21, 7)),
        ] {
            let mut meter = Meter::new(Dialect::AnthropicMessages, Some(Framing::Events), false);
            for data in [start, &delta(later)] {
                assert_eq!(
                    meter.pass(format!("event: x\ndata: {data}\n\n").as_bytes()),
                    Passed::All,
                    "{name}"
                );
            }
            let usage = meter.usage().unwrap();
            assert_eq!((usage.input, usage.output), (Some(expected.0), Some(expected.1)), "{name}");
        }
    }
}
