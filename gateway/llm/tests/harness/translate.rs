//! Translates an input into each dialect.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use gateway_llm::dialect::Dialect;
use gateway_llm::invalid::Invalid;
use gateway_llm::json::Reader;
use gateway_llm::loss::Losses;

use super::case::{Case, Input, Kind};
use super::{layout, stream};

/// What came of a case.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Outputs, by the names of their files.
    pub(crate) files: BTreeMap<String, String>,
    /// What is wrong, whatever the files say.
    pub(crate) problems: Vec<String>,
    /// What is not built.
    pub(crate) not_built: Vec<Stage>,
}

/// A half of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Decode(Dialect),
    Encode(Dialect),
    /// What a client of the dialect would read, streamed and whole.
    ReadBack(Dialect),
}

impl Stage {
    /// Whether a file can be there only if this is built.
    pub(crate) fn concerns(self, file: &str) -> bool {
        match self {
            Self::Decode(_) => true,
            Self::ReadBack(_) => false,
            Self::Encode(dialect) => file.split('.').nth(1) == Some(dialect.name()),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(dialect) => write!(f, "reading {dialect}"),
            Self::Encode(dialect) => write!(f, "writing {dialect}"),
            Self::ReadBack(dialect) => write!(f, "reading back {dialect}"),
        }
    }
}

const NOT_BUILT: &str = "not yet implemented";

/// Panics of what is not built are expected, and are not shown.
pub(crate) fn quiet_about_what_is_not_built() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !message(info.payload()).contains(NOT_BUILT) {
                before(info);
            }
        }));
    });
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text =
        payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic").to_owned()
}

impl Outcome {
    /// Runs a half of a translation; nothing in it may panic.
    pub(crate) fn stage<T>(&mut self, stage: Stage, run: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => Some(result),
            Err(payload) => {
                let message = message(&*payload);
                if message.contains(NOT_BUILT) {
                    if !self.not_built.contains(&stage) {
                        self.not_built.push(stage);
                    }
                } else {
                    self.problems.push(format!("{stage} panics: {message}"));
                }
                None
            }
        }
    }

    /// An output in JSON.
    pub(crate) fn json(&mut self, name: String, bytes: &[u8]) {
        match layout::pretty(bytes) {
            Ok(text) => {
                self.files.insert(name, text);
            }
            Err(error) => self.problems.push(format!("{name} is no JSON: {error}")),
        }
    }

    pub(crate) fn losses(&mut self, to: Dialect, losses: &Losses) {
        if !losses.is_empty() {
            let mut text = String::new();
            losses.kept().iter().for_each(|loss| {
                let _ = writeln!(text, "{} {}", loss.what, loss.at);
            });
            if losses.count() > losses.kept().len() {
                let _ = writeln!(text, "and {} more", losses.count() - losses.kept().len());
            }
            self.files.insert(format!("to.{to}.losses"), text);
        }
    }

    fn invalid(&mut self, name: String, invalid: &Invalid) {
        self.files.insert(name, format!("{} {invalid}\n", invalid.code()));
    }
}

/// Translates the input of a case.
pub(crate) fn translate(case: &Case, input: &Input) -> Outcome {
    let mut outcome = Outcome::default();
    match input.kind {
        Kind::Request => request(case, input, &mut outcome),
        Kind::Reply => reply(case, input, &mut outcome),
        Kind::Stream => stream::translate(case, input, &mut outcome),
        Kind::Error => error(case, input, &mut outcome),
    }
    outcome
}

fn request(case: &Case, input: &Input, outcome: &mut Outcome) {
    let from = input.dialect;
    let mut reader = Reader::default();
    let call = case.call();
    let decode = || from.decode_request(&input.bytes, &call, &mut reader);
    let Some(decoded) = outcome.stage(Stage::Decode(from), decode) else { return };
    let request = match decoded {
        Ok(request) => request,
        Err(invalid) => return outcome.invalid("invalid.txt".to_owned(), &invalid),
    };
    for to in case.to(from) {
        let mut losses = reader.losses.clone();
        let encode = || to.encode_request(&request, &case.target(to), &mut losses);
        match outcome.stage(Stage::Encode(to), encode) {
            Some(Ok(bytes)) => {
                outcome.json(format!("to.{to}.json"), &bytes);
                outcome.losses(to, &losses);
            }
            Some(Err(invalid)) => outcome.invalid(format!("to.{to}.invalid"), &invalid),
            None => {}
        }
    }
}

fn reply(case: &Case, input: &Input, outcome: &mut Outcome) {
    let from = input.dialect;
    let mut reader = Reader::default();
    let decode = || from.decode_reply(&input.bytes, &mut reader);
    let Some(decoded) = outcome.stage(Stage::Decode(from), decode) else { return };
    let reply = match decoded {
        Ok(reply) => reply,
        Err(invalid) => return outcome.invalid("invalid.txt".to_owned(), &invalid),
    };
    let asked = case.asked();
    for to in case.to(from) {
        let mut losses = reader.losses.clone();
        let encode = || to.encode_reply(&reply, &asked, &mut losses);
        if let Some(bytes) = outcome.stage(Stage::Encode(to), encode) {
            outcome.json(format!("to.{to}.json"), &bytes);
            outcome.losses(to, &losses);
        }
    }
}

fn error(case: &Case, input: &Input, outcome: &mut Outcome) {
    let from = input.dialect;
    let decode = || from.decode_failure(case.status(), &input.bytes);
    let Some(failure) = outcome.stage(Stage::Decode(from), decode) else { return };
    outcome.files.insert("failure.txt".to_owned(), format!("{failure:#?}\n"));
    for to in case.to(from) {
        if let Some(bytes) = outcome.stage(Stage::Encode(to), || to.encode_failure(&failure)) {
            outcome.json(format!("to.{to}.json"), &bytes);
        }
    }
}
