//! Whether events come in the order that [`Event`] promises. Encoders rely on it and check nothing; tests of every
//! decoder, and fuzzing, hold it against this.

use std::collections::BTreeMap;

use crate::neutral::{Delta, Event, PartStart};

/// Watches a stream of events.
#[derive(Debug, Default)]
pub struct Order {
    has_started: bool,
    has_usage: bool,
    /// What came last, if nothing may follow it.
    ended_by: Option<&'static str>,
    candidates: BTreeMap<u64, Progress>,
}

/// How far a candidate is.
#[derive(Debug, Default)]
struct Progress {
    /// How many parts have begun.
    begun: usize,
    open: Option<Kind>,
    has_finished: bool,
}

/// What a part is, as far as it decides what may be added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Words,
    Call,
    Audio,
    Image,
    Whole,
}

impl Order {
    /// Looks at the next event.
    ///
    /// # Errors
    /// When it is out of turn: why.
    pub fn step(&mut self, event: &Event<'_>) -> Result<(), String> {
        if let Some(end) = self.ended_by {
            return Err(format!("{event:?} comes after {end}"));
        }
        match event {
            Event::Ping => return Ok(()),
            Event::Failed(_) => {
                self.ended_by = Some("Failed");
                return Ok(());
            }
            Event::Start { .. } if self.has_started => return Err("a second Start".to_owned()),
            Event::Start { .. } => self.has_started = true,
            _ if !self.has_started => return Err(format!("{event:?} comes before Start")),
            Event::PartStart { candidate, index, part } => self.begin(*candidate, *index, part)?,
            Event::PartDelta { candidate, index, delta } => self.grow(*candidate, *index, delta)?,
            Event::PartEnd { candidate, index } => {
                let progress = self.open(*candidate, *index)?;
                progress.open = None;
            }
            Event::LogProbabilities { candidate, raw: _ } => {
                self.going(*candidate)?;
            }
            Event::Finish { candidate, finish: _, native: _ } => {
                let progress = self.going(*candidate)?;
                if progress.open.is_some() {
                    return Err(format!("candidate {candidate} finishes within a part"));
                }
                progress.has_finished = true;
            }
            Event::Usage(_) => {
                if std::mem::replace(&mut self.has_usage, true) {
                    return Err("a second Usage".to_owned());
                }
                self.all_finished("Usage")?;
            }
            Event::End => {
                self.all_finished("End")?;
                self.ended_by = Some("End");
            }
        }
        if self.has_usage && !matches!(event, Event::Usage(_) | Event::End) {
            return Err(format!("{event:?} comes after Usage"));
        }
        Ok(())
    }

    /// The stream is over.
    ///
    /// # Errors
    /// When neither [`Event::End`] nor [`Event::Failed`] came.
    pub fn finish(&self) -> Result<(), String> {
        if self.ended_by.is_some() { Ok(()) } else { Err("neither End nor Failed came".to_owned()) }
    }

    /// A candidate that may still say something.
    fn going(&mut self, candidate: u64) -> Result<&mut Progress, String> {
        let progress = self.candidates.entry(candidate).or_default();
        if progress.has_finished {
            Err(format!("candidate {candidate} goes on after its Finish"))
        } else {
            Ok(progress)
        }
    }

    fn begin(&mut self, candidate: u64, index: usize, part: &PartStart<'_>) -> Result<(), String> {
        let progress = self.going(candidate)?;
        if progress.open.is_some() {
            return Err(format!("part {index} of candidate {candidate} begins within another"));
        }
        if index != progress.begun {
            return Err(format!("part {index} of candidate {candidate} is its number {}", progress.begun));
        }
        progress.begun += 1;
        progress.open = Some(match part {
            PartStart::Text => Kind::Text,
            PartStart::Thinking { .. } | PartStart::Refusal => Kind::Words,
            PartStart::ToolCall { id, .. } if id.is_empty() => {
                return Err(format!("part {index} of candidate {candidate} calls a tool without an id"));
            }
            PartStart::ToolCall { .. } => Kind::Call,
            PartStart::Audio { .. } => Kind::Audio,
            PartStart::Image { .. } => Kind::Image,
            PartStart::Native { .. } => Kind::Whole,
        });
        Ok(())
    }

    fn open(&mut self, candidate: u64, index: usize) -> Result<&mut Progress, String> {
        let progress = self.going(candidate)?;
        if progress.open.is_some() && progress.begun == index + 1 {
            Ok(progress)
        } else {
            Err(format!("part {index} of candidate {candidate} is not open"))
        }
    }

    fn grow(&mut self, candidate: u64, index: usize, delta: &Delta<'_>) -> Result<(), String> {
        let kind = self.open(candidate, index)?.open;
        let fits = match delta {
            Delta::Text(_) => matches!(kind, Some(Kind::Text | Kind::Words)),
            Delta::Citation(_) => kind == Some(Kind::Text),
            Delta::Arguments(_) => kind == Some(Kind::Call),
            Delta::Data(_) => matches!(kind, Some(Kind::Audio | Kind::Image)),
            Delta::Transcript(_) => kind == Some(Kind::Audio),
            // What providers attach can be attached to any part.
            Delta::Signature(_) | Delta::Native(_) => true,
        };
        if fits { Ok(()) } else { Err(format!("{delta:?} is added to a part of kind {kind:?}")) }
    }

    fn all_finished(&self, before: &str) -> Result<(), String> {
        match self.candidates.iter().find(|(_, progress)| !progress.has_finished) {
            Some((candidate, _)) => Err(format!("{before} comes before candidate {candidate} has finished")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, FailureKind};
    use crate::neutral::{Finish, Usage};

    fn start() -> Event<'static> {
        Event::Start {
            id: "r".into(),
            model: "m".into(),
            created: None,
            usage: None,
            service_tier: None,
            native: Vec::new(),
        }
    }

    fn begin(candidate: u64, index: usize) -> Event<'static> {
        Event::PartStart { candidate, index, part: PartStart::Text }
    }

    fn call(id: &'static str) -> Event<'static> {
        let part = PartStart::ToolCall { id: id.into(), name: "f".into(), is_custom: false };
        Event::PartStart { candidate: 0, index: 0, part }
    }

    fn text(candidate: u64, index: usize) -> Event<'static> {
        Event::PartDelta { candidate, index, delta: Delta::Text("t".into()) }
    }

    fn end(candidate: u64, index: usize) -> Event<'static> {
        Event::PartEnd { candidate, index }
    }

    fn finish(candidate: u64) -> Event<'static> {
        Event::Finish { candidate, finish: Finish::Stop, native: Vec::new() }
    }

    fn failed() -> Event<'static> {
        Event::Failed(Failure::new(FailureKind::Server, "broke"))
    }

    fn check(events: &[Event<'_>]) -> Result<(), String> {
        let mut order = Order::default();
        events.iter().try_for_each(|event| order.step(event))?;
        order.finish()
    }

    #[test]
    fn what_is_in_turn_passes() {
        let usage = || Event::Usage(Usage::default());
        for (name, events) in [
            ("nothing said", vec![start(), Event::End]),
            ("pings anywhere", vec![Event::Ping, start(), Event::Ping, usage(), Event::Ping, Event::End]),
            ("two parts", {
                vec![
                    start(),
                    begin(0, 0),
                    text(0, 0),
                    end(0, 0),
                    begin(0, 1),
                    end(0, 1),
                    finish(0),
                    Event::End,
                ]
            }),
            ("two candidates at once", {
                let first = vec![start(), begin(0, 0), begin(1, 0), text(0, 0), text(1, 0)];
                let then = vec![end(1, 0), finish(1), end(0, 0), finish(0), usage(), Event::End];
                first.into_iter().chain(then).collect()
            }),
            ("an error at once", vec![failed()]),
            ("an error within a part", vec![start(), begin(0, 0), failed()]),
        ] {
            assert_eq!(check(&events), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_out_of_turn_is_named() {
        let usage = || Event::Usage(Usage::default());
        for (events, expected) in [
            (vec![], "neither End nor Failed"),
            (vec![start()], "neither End nor Failed"),
            (vec![finish(0)], "before Start"),
            (vec![start(), start()], "a second Start"),
            (vec![start(), begin(0, 1)], "is its number 0"),
            (vec![start(), begin(0, 0), begin(0, 1)], "begins within another"),
            (vec![start(), text(0, 0)], "is not open"),
            (vec![start(), begin(0, 0), text(0, 1)], "is not open"),
            (vec![start(), begin(0, 0), end(0, 0), text(0, 0)], "is not open"),
            (vec![start(), begin(0, 0), end(0, 0), end(0, 0)], "is not open"),
            (vec![start(), call(""), end(0, 0)], "without an id"),
            (vec![start(), call("c"), text(0, 0)], "is added to a part"),
            (vec![start(), begin(0, 0), finish(0)], "within a part"),
            (vec![start(), finish(0), begin(0, 0)], "after its Finish"),
            (vec![start(), finish(0), finish(0)], "after its Finish"),
            (vec![start(), begin(0, 0), end(0, 0), usage()], "before candidate 0 has finished"),
            (vec![start(), begin(0, 0), end(0, 0), Event::End], "before candidate 0 has finished"),
            (vec![start(), usage(), usage()], "a second Usage"),
            (vec![start(), usage(), finish(1)], "after Usage"),
            (vec![start(), Event::End, Event::Ping], "after End"),
            (vec![failed(), Event::End], "after Failed"),
        ] {
            let error = check(&events).expect_err(expected);
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
