//! What is asked of a gateway to models: what comes in, what the provider speaks, and what is looked at.

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scene {
    /// Chat Completions to a provider of them: 1 KiB of request, 1 KiB of reply
    Pass,
    /// The same with 100 KiB of request
    #[value(name = "pass-100k")]
    Pass100k,
    /// The same with 1 MiB of request
    #[value(name = "pass-1m")]
    Pass1m,
    /// The provider knows the model by another name: 1 KiB
    Splice,
    /// The same with 100 KiB of request
    #[value(name = "splice-100k")]
    Splice100k,
    /// Chat Completions to Anthropic's Messages: 1 KiB of request, 1 KiB of reply
    Translate,
    /// The same with 100 KiB of request
    #[value(name = "translate-100k")]
    Translate100k,
    /// The same with 1 MiB of request
    #[value(name = "translate-1m")]
    Translate1m,
    /// Streams of 100 events, one a millisecond, to a provider of the same dialect
    Events,
    /// The same, translated from Anthropic's events
    #[value(name = "events-translate")]
    EventsTranslate,
    /// One connection, one request after the other: what everybody adds, nothing to wait for
    Alone,
    /// The same, translated
    #[value(name = "alone-translate")]
    AloneTranslate,
    /// One connection: from a request to the first word of a stream
    First,
    /// The same, translated
    #[value(name = "first-translate")]
    FirstTranslate,
}

/// What a gateway does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Pass,
    Splice,
    Translate,
}

/// How it is loaded, and so what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Many connections, whole replies.
    Replies,
    /// Many connections, streams.
    Events,
    /// One connection, whole replies.
    Alone,
    /// One connection, streams, of which the first word counts.
    First,
}

/// Words of a stream, an event each.
const EVENTS: usize = 100;
/// Where only the first is waited for.
const EVENTS_OF_FIRST: usize = 5;

const KIB: usize = 1024;

impl Scene {
    pub(crate) const ALL: [Self; 14] = [
        Self::Pass,
        Self::Pass100k,
        Self::Pass1m,
        Self::Splice,
        Self::Splice100k,
        Self::Translate,
        Self::Translate100k,
        Self::Translate1m,
        Self::Events,
        Self::EventsTranslate,
        Self::Alone,
        Self::AloneTranslate,
        Self::First,
        Self::FirstTranslate,
    ];

    pub(crate) fn lane(self) -> Lane {
        match self {
            Self::Pass | Self::Pass100k | Self::Pass1m | Self::Events | Self::Alone | Self::First => {
                Lane::Pass
            }
            Self::Splice | Self::Splice100k => Lane::Splice,
            Self::Translate
            | Self::Translate100k
            | Self::Translate1m
            | Self::EventsTranslate
            | Self::AloneTranslate
            | Self::FirstTranslate => Lane::Translate,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Events | Self::EventsTranslate => Kind::Events,
            Self::Alone | Self::AloneTranslate => Kind::Alone,
            Self::First | Self::FirstTranslate => Kind::First,
            _ => Kind::Replies,
        }
    }

    /// Bytes of a request's body.
    pub(crate) fn request_bytes(self) -> usize {
        match self {
            Self::Pass100k | Self::Splice100k | Self::Translate100k => 100 * KIB,
            Self::Pass1m | Self::Translate1m => 1024 * KIB,
            _ => KIB,
        }
    }

    /// Words of the stream that is asked for; none where a whole reply is.
    pub(crate) fn events(self) -> Option<usize> {
        match self.kind() {
            Kind::Events => Some(EVENTS),
            Kind::First => Some(EVENTS_OF_FIRST),
            Kind::Replies | Kind::Alone => None,
        }
    }

    pub(crate) fn title(self) -> String {
        let lane = match self.lane() {
            Lane::Pass => "passed",
            Lane::Splice => "passed, with another name of the model",
            Lane::Translate => "translated from Chat Completions to Messages",
        };
        let size = self.request_bytes() / KIB;
        match self.kind() {
            Kind::Replies => format!("requests of {size} KiB, {lane}"),
            Kind::Events => format!("streams of {EVENTS} events, one a millisecond, {lane}"),
            Kind::Alone => format!("one connection, requests of {size} KiB, {lane}"),
            Kind::First => format!("one connection, the first word of a stream, {lane}"),
        }
    }
}
