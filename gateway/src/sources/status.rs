//! What operators see of a source: a line of `status`, and two metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{describe_gauge, gauge};
use serde::{Deserialize, Serialize};

const UP: &str = "gateway_list_source_up";
const LAST_SUCCESS: &str = "gateway_list_source_last_success_timestamp_seconds";

/// Describes the metrics of sources; call it once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(
        UP,
        "1 when a list's source was read and what it holds is in force; NaN when it is gone."
    );
    describe_gauge!(LAST_SUCCESS, "When a list's source was last read and in force, since the Unix epoch.");
}

/// A source as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Where it is read from: a path, or a URL without credentials and query.
    pub origin: String,
    /// What came of the last attempt.
    pub state: SourceState,
    /// When what it holds was last known to be in force, in milliseconds since the Unix epoch.
    pub last_ok_ms: Option<u64>,
    /// Why it fails or is held, or what is wrong beside that; absent when all is well.
    pub last_error: Option<String>,
    /// When it is fetched next, in milliseconds since the Unix epoch; files are looked at all the time.
    pub next_ms: Option<u64>,
}

/// What came of the last attempt to read a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// There was none yet.
    Pending,
    /// What it holds is in force.
    Ok,
    /// It could not be read, or what it holds is no list; the former list stays.
    Failing,
    /// What it holds waits for a confirmation; the former list stays.
    Held,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// In force. `note`: something beside that went wrong.
    Ok {
        note: Option<String>,
    },
    Held {
        why: String,
    },
    Failing {
        why: String,
    },
}

impl SourceStatus {
    pub(super) fn new(name: String, origin: String) -> Self {
        Self { name, origin, state: SourceState::Pending, last_ok_ms: None, last_error: None, next_ms: None }
    }

    /// Takes in what came of an attempt: in status, metrics, and the log where it is news.
    pub(super) fn note(&mut self, outcome: Outcome, next: Option<Duration>) {
        let now = SystemTime::now();
        self.next_ms = next.and_then(|wait| now.checked_add(wait)).map(epoch_ms);
        let (state, error) = match outcome {
            Outcome::Ok { note } => {
                self.last_ok_ms = Some(epoch_ms(now));
                (SourceState::Ok, note)
            }
            Outcome::Held { why } => (SourceState::Held, Some(why)),
            Outcome::Failing { why } => (SourceState::Failing, Some(why)),
        };
        if (state, &error) != (self.state, &self.last_error) {
            self.log(state, error.as_deref());
        }
        (self.state, self.last_error) = (state, error);
        self.set_gauges();
    }

    /// What was held is in force; the next attempt stays when it was to be.
    pub(super) fn confirmed(&mut self, note: Option<String>) {
        let next_ms = self.next_ms;
        self.note(Outcome::Ok { note }, None);
        self.next_ms = next_ms;
    }

    fn log(&self, state: SourceState, error: Option<&str>) {
        let (name, origin) = (&self.name, &self.origin);
        let why = error.unwrap_or_default();
        match (state, error) {
            (SourceState::Ok, Some(note)) => tracing::warn!("the list {name} is in force, but {note}"),
            (SourceState::Ok, None) => tracing::info!("the list {name} follows {origin}"),
            (SourceState::Held, _) => tracing::warn!("the list {name} from {origin} is held: {why}"),
            _ => tracing::warn!("the list {name} stays as it was, {origin} brings no new one: {why}"),
        }
    }

    fn set_gauges(&self) {
        let up = if self.state == SourceState::Ok { 1.0 } else { 0.0 };
        gauge!(UP, "list" => self.name.clone()).set(up);
        if let Some(at) = self.last_ok_ms {
            gauge!(LAST_SUCCESS, "list" => self.name.clone()).set(at as f64 / 1000.0);
        }
    }

    /// The list has no source any more. A series cannot be taken back, so it says that it is no number.
    pub(super) fn gone(&self) {
        for name in [UP, LAST_SUCCESS] {
            gauge!(name, "list" => self.name.clone()).set(f64::NAN);
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
