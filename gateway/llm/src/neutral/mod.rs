//! The form that every dialect is read into and written from.
//!
//! It can say whatever one of the dialects can say. What only one dialect knows stays in that dialect's own words, as
//! [`Native`]: it comes back byte for byte where the target speaks the same dialect, and is a loss elsewhere.
//! Encoders take these structs apart by exhaustive patterns (no `..`), so that a field that is added here makes each of
//! them say what becomes of it.

mod content;
mod event;
mod reply;
mod request;
mod signature;
mod usage;

use std::borrow::Cow;

pub use content::{CacheControl, Citation, Part, PartKind, Source, State};
pub use event::{Delta, End, Event, PartStart};
pub use reply::{Candidate, Finish, Reply};
pub use request::{
    Format, LogProbabilities, Reasoning, Request, Role, Sampling, Tool, ToolChoice, ToolKind, Turn,
};
pub use signature::Signature;
pub use usage::Usage;

use crate::dialect::Dialect;
use crate::loss::{Losses, What};

/// A text, mostly borrowed from the body it stands in.
pub type Text<'a> = Cow<'a, str>;

/// JSON, as it was written.
pub type Raw<'a> = Cow<'a, str>;

/// A field that only one dialect knows, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native<'a> {
    /// Whose field it is.
    pub dialect: Dialect,
    /// What is lost where it cannot be said.
    pub what: What,
    /// Its name.
    pub name: Text<'a>,
    /// Its value, as it was written.
    pub raw: Raw<'a>,
}

impl<'a> Native<'a> {
    /// A field in the words of a dialect.
    #[must_use]
    pub fn new(dialect: Dialect, what: What, name: impl Into<Text<'a>>, raw: impl Into<Raw<'a>>) -> Self {
        Self { dialect, what, name: name.into(), raw: raw.into() }
    }
}

/// The fields that a dialect can say again. The others are lost.
pub fn own<'n, 'a>(
    natives: &'n [Native<'a>],
    dialect: Dialect,
    at: &str,
    losses: &mut Losses,
) -> impl Iterator<Item = &'n Native<'a>> + use<'n, 'a> {
    for native in natives.iter().filter(|native| native.dialect != dialect) {
        let dot = if at.is_empty() { "" } else { "." };
        losses.add(native.what, format!("{at}{dot}{}", native.name));
    }
    natives.iter().filter(move |native| native.dialect == dialect)
}
