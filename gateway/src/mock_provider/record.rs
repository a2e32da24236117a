//! What the mock was asked, and how each reply ended. Bounded: a benchmark asks millions of times.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use serde_json::{Value, json};

/// The requests that are remembered; older ones are forgotten.
const REMEMBERED: usize = 512;
/// The bytes of bodies that are remembered.
const BYTES: usize = 32 * 1024 * 1024;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number, from 0.
    pub number: u64,
    /// `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
    /// How the reply ended.
    pub ended: Ended,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is under way.
    NotYet,
    /// All of it was handed over.
    Whole,
    /// The mock broke it off, as its script said.
    Broken,
    /// The client left before that.
    Left,
}

impl Request {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body, if it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(super) fn to_json(&self) -> Value {
        let body = self.json().unwrap_or_else(|| String::from_utf8_lossy(&self.body).into());
        let ended = format!("{:?}", self.ended).to_lowercase();
        json!({"number": self.number, "method": self.method, "target": self.target, "headers": self.headers,
            "body": body, "ended": ended})
    }
}

/// The record, shared by all connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Record(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    bytes: usize,
    requests: VecDeque<Request>,
}

impl Record {
    /// Writes a request down; returns its number.
    pub(super) fn add(&self, parts: &Parts, body: &[u8]) -> u64 {
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.bytes += body.len();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        entries.requests.push_back(Request {
            number,
            method: parts.method.as_str().to_owned(),
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: headers.collect(),
            body: body.to_vec(),
            ended: Ended::NotYet,
        });
        while entries.requests.len() > REMEMBERED || entries.bytes > BYTES {
            let Some(oldest) = entries.requests.pop_front() else { break };
            entries.bytes -= oldest.body.len();
        }
        number
    }

    pub(super) fn ended(&self, number: u64, how: Ended) {
        let mut entries = self.entries();
        let Some(first) = entries.requests.front().map(|first| first.number) else { return };
        let Some(index) = number.checked_sub(first).and_then(|index| usize::try_from(index).ok()) else {
            return;
        };
        if let Some(request) =
            entries.requests.get_mut(index).filter(|request| request.ended == Ended::NotYet)
        {
            request.ended = how;
        }
    }

    pub(super) fn all(&self) -> Vec<Request> {
        self.entries().requests.iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        let mut entries = self.entries();
        entries.requests.clear();
        entries.bytes = 0;
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
