//! What is wrong with a body.

use std::fmt;

/// A body that cannot be used: where, and what to do about it. Says nothing of what else is in the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Of which kind it is.
    pub reason: Reason,
    /// Where, as in `messages[2].content`; empty where the body is no JSON at all.
    pub path: String,
    /// A sentence for whoever sent it.
    pub message: String,
}

/// Of which kind an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is no JSON.
    Syntax,
    /// A name stands twice in one object.
    Duplicate,
    /// A value is of the wrong type.
    Type,
    /// A field that is required is not there.
    Missing,
    /// A value is of the right type and means nothing.
    Value,
    /// It is larger or deeper than what is taken.
    TooLarge,
    /// The target cannot carry it, and the route refuses losses.
    Lossy,
}

impl Invalid {
    /// What is wrong where.
    #[must_use]
    pub fn new(reason: Reason, path: String, message: impl Into<String>) -> Self {
        Self { reason, path, message: message.into() }
    }

    /// The stable code of the error, in the gateway's own and in the dialects' errors.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.reason {
            Reason::Syntax => "invalid_json",
            Reason::Duplicate => "duplicate_key",
            Reason::Type => "invalid_type",
            Reason::Missing => "missing_required_parameter",
            Reason::Value => "invalid_value",
            Reason::TooLarge => "too_large",
            Reason::Lossy => "lossy_translation",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}
