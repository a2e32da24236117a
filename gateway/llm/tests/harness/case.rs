//! What a case's files say.

use std::collections::BTreeMap;
use std::path::Path;

use gateway_llm::dialect::{Asked, Call, Dialect};
use gateway_llm::frames::Framing;
use gateway_llm::neutral::End;
use gateway_llm::target::{Model, Quirks, Target, Thinking};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How many traps are known; a case names those that it is about.
pub(crate) const TRAPS: u8 = 68;

/// `case.json`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it shows, in a sentence.
    pub(crate) about: String,
    /// The numbers of the known traps that it is about.
    pub(crate) traps: Vec<u8>,
    /// Into which dialects it is translated, if not into all others.
    to: Option<Vec<String>>,
    /// For whom a request is written.
    #[serde(default)]
    target: TargetFile,
    /// The same, for one dialect: instead of `target`.
    #[serde(default)]
    targets: BTreeMap<String, TargetFile>,
    /// What a Gemini request's path says.
    #[serde(default)]
    call: CallFile,
    /// Of an error.
    status: Option<u16>,
    /// What the client asked that gets the reply or stream.
    #[serde(default)]
    asked: AskedFile,
    /// How a stream ends: `complete`, `broken`, `timed_out`.
    end: Option<String>,
    /// Why a stream that was translated says something else than the whole reply that was translated, where it does:
    /// dialects, and the reason for each.
    #[serde(default)]
    pub(crate) streams_otherwise: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TargetFile {
    model: String,
    quirks: String,
    context_tokens: Option<u64>,
    output_tokens: Option<u64>,
    thinking: Option<ThinkingFile>,
    takes_sampling: Option<bool>,
    structured_output: Option<bool>,
    system_turns: Option<bool>,
}

impl Default for TargetFile {
    fn default() -> Self {
        Self {
            model: "target-model".to_owned(),
            quirks: Quirks::default().name.to_owned(),
            context_tokens: None,
            output_tokens: None,
            thinking: None,
            takes_sampling: None,
            structured_output: None,
            system_turns: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum ThinkingFile {
    None,
    Budget { min: u64, max: u64, can_be_off: bool },
    Effort,
    Adaptive,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CallFile {
    model: Option<String>,
    stream: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AskedFile {
    model: String,
    stream_usage: bool,
    framing: String,
    now: u64,
    echo: BTreeMap<String, Box<RawValue>>,
}

impl Default for AskedFile {
    fn default() -> Self {
        Self {
            model: "asked-model".to_owned(),
            stream_usage: true,
            framing: "events".to_owned(),
            now: 1_800_000_000,
            echo: BTreeMap::new(),
        }
    }
}

/// What a case translates.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) kind: Kind,
    pub(crate) dialect: Dialect,
    pub(crate) bytes: Vec<u8>,
    /// Of a stream: how it is cut.
    pub(crate) framing: Framing,
    /// Of a stream: the same reply, not streamed (`whole.D.json`).
    pub(crate) whole: Option<Vec<u8>>,
    name: String,
}

/// Of which kind an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Reply,
    Stream,
    Error,
}

impl Kind {
    const ALL: [(&'static str, Self); 4] = [
        ("request", Self::Request),
        ("reply", Self::Reply),
        ("stream", Self::Stream),
        ("error", Self::Error),
    ];
}

impl Case {
    /// Reads a case, and its input.
    pub(crate) fn read(directory: &Path, dialect: &str) -> Result<(Self, Input), String> {
        let text =
            std::fs::read(directory.join("case.json")).map_err(|error| format!("case.json: {error}"))?;
        let case: Self = serde_json::from_slice(&text).map_err(|error| format!("case.json: {error}"))?;
        let input = Input::read(directory)?;
        case.check(&input)?;
        if input.dialect.name() != dialect {
            return Err(format!("{} stands among the cases of {dialect}", input.name));
        }
        Ok((case, input))
    }

    fn check(&self, input: &Input) -> Result<(), String> {
        if self.about.is_empty() {
            return Err("case.json does not say what the case is about".to_owned());
        }
        if let Some(trap) = self.traps.iter().find(|trap| !(1..=TRAPS).contains(trap)) {
            return Err(format!("there is no trap {trap}"));
        }
        if self.status.is_some() != (input.kind == Kind::Error) {
            return Err("a status belongs to an error, and an error has one".to_owned());
        }
        let named = self.to.iter().flatten().chain(self.targets.keys()).chain(self.streams_otherwise.keys());
        for name in named {
            Dialect::from_name(name).ok_or_else(|| format!("{name} is no dialect"))?;
        }
        for target in self.targets.values().chain([&self.target]) {
            Quirks::named(&target.quirks).ok_or_else(|| format!("{} are no quirks", target.quirks))?;
        }
        self.asked_framing()?;
        self.end(true)?;
        Ok(())
    }

    /// Into which dialects an input is translated.
    pub(crate) fn to(&self, from: Dialect) -> Vec<Dialect> {
        let is_wanted = |dialect: &Dialect| match &self.to {
            Some(names) => names.iter().any(|name| name == dialect.name()),
            None => *dialect != from,
        };
        Dialect::ALL.into_iter().filter(is_wanted).collect()
    }

    pub(crate) fn target(&self, to: Dialect) -> Target<'_> {
        let file = self.targets.get(to.name()).unwrap_or(&self.target);
        let thinking = file.thinking.as_ref().map(|thinking| match *thinking {
            ThinkingFile::None => Thinking::None,
            ThinkingFile::Budget { min, max, can_be_off } => Thinking::Budget { min, max, can_be_off },
            ThinkingFile::Effort => Thinking::Effort,
            ThinkingFile::Adaptive => Thinking::Adaptive,
        });
        let model_facts = Model {
            context_tokens: file.context_tokens,
            output_tokens: file.output_tokens,
            thinking,
            takes_sampling: file.takes_sampling,
            structured_output: file.structured_output,
            system_turns: file.system_turns,
        };
        let quirks = Quirks::named(&file.quirks).unwrap_or_default();
        Target { model: &file.model, model_facts, quirks }
    }

    pub(crate) fn call(&self) -> Call<'_> {
        Call { model: self.call.model.as_deref(), stream: self.call.stream }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.unwrap_or(500)
    }

    pub(crate) fn asked(&self) -> Asked {
        let AskedFile { model, stream_usage, framing: _, now, echo } = &self.asked;
        let echo = echo.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect();
        let framing = self.asked_framing().unwrap_or(Framing::Events);
        Asked { model: model.clone(), stream_usage: *stream_usage, framing, now: *now, echo }
    }

    fn asked_framing(&self) -> Result<Framing, String> {
        match self.asked.framing.as_str() {
            "events" => Ok(Framing::Events),
            "items" => Ok(Framing::Items),
            other => Err(format!("{other} is no framing")),
        }
    }

    /// How the input's stream ends, if its bytes were `complete`.
    pub(crate) fn end(&self, is_complete: bool) -> Result<End, String> {
        match self.end.as_deref() {
            None if is_complete => Ok(End::Complete),
            None | Some("broken") => Ok(End::Broken),
            Some("complete") => Ok(End::Complete),
            Some("timed_out") => Ok(End::TimedOut),
            Some(other) => Err(format!("{other} is no end")),
        }
    }
}

impl Input {
    fn read(directory: &Path) -> Result<Self, String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|error| error.to_string())? {
            let name = entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned();
            let mut pieces = name.splitn(3, '.');
            let (Some(first), Some(dialect), Some(ending)) = (pieces.next(), pieces.next(), pieces.next())
            else {
                continue;
            };
            let kind = Kind::ALL.into_iter().find(|(known, _)| *known == first).map(|(_, kind)| kind);
            let Some((kind, dialect)) = kind.zip(Dialect::from_name(dialect)) else { continue };
            let framing = if ending == "json" { Framing::Items } else { Framing::Events };
            found.push((kind, dialect, framing, name));
        }
        match <[_; 1]>::try_from(found) {
            Ok([(kind, dialect, framing, name)]) => {
                let read = |name: &str| std::fs::read(directory.join(name));
                let bytes = read(&name).map_err(|error| format!("{name}: {error}"))?;
                let whole = read(&format!("whole.{dialect}.json")).ok();
                Ok(Self { kind, dialect, bytes, framing, whole, name })
            }
            Err(found) => Err(format!("one input is needed, and there are {}", found.len())),
        }
    }

    /// Whether a file is the case's own and no expectation.
    pub(crate) fn is_own_file(&self, name: &str) -> bool {
        name == "case.json" || name == self.name || self.is_whole(name)
    }

    fn is_whole(&self, name: &str) -> bool {
        self.kind == Kind::Stream && name == format!("whole.{}.json", self.dialect)
    }
}
