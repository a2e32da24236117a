//! Errors of providers, and the gateway's own, in a form that every dialect can say.

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status that the client gets: the provider's own, where one answered. In the middle of a stream, the one
    /// that the error would have had before it.
    pub status: u16,
    /// Of which kind it is.
    pub kind: FailureKind,
    /// The provider's type or status, in its own word (`rate_limit_error`, `RESOURCE_EXHAUSTED`).
    pub provider_type: Option<String>,
    /// The provider's code. Where it wrote a number, the number's text.
    pub code: Option<String>,
    /// For people.
    pub message: String,
    /// Which field of the request is to blame.
    pub param: Option<String>,
    /// The provider's name for the request.
    pub request_id: Option<String>,
    /// What the provider said beside that, as JSON (Google's `details`).
    pub details: Option<String>,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The request is wrong.
    InvalidRequest,
    /// Who asks is unknown.
    Authentication,
    /// Who asks may not.
    Permission,
    /// There is no such thing, as a rule no such model.
    NotFound,
    /// The request conflicts with another.
    Conflict,
    /// The request is too large.
    TooLarge,
    /// Too many requests.
    RateLimit,
    /// There is no money left.
    Quota,
    /// A filter would not have it.
    ContentFilter,
    /// The provider broke.
    Server,
    /// The provider has too much to do.
    Overloaded,
    /// It took too long.
    Timeout,
}

impl FailureKind {
    /// What a status says where nothing else does.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Quota,
            403 => Self::Permission,
            404 | 410 => Self::NotFound,
            408 | 504 => Self::Timeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Server,
        }
    }

    /// The status of an error that has none of its own.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContentFilter => 400,
            Self::Authentication => 401,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimit | Self::Quota => 429,
            Self::Server => 500,
            Self::Overloaded => 503,
            Self::Timeout => 504,
        }
    }
}

impl Failure {
    /// An error of the gateway's own.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            status: kind.status(),
            kind,
            provider_type: None,
            code: None,
            message: message.into(),
            param: None,
            request_id: None,
            details: None,
        }
    }
}
