//! Interim responses (RFC 9110, section 15.2), 103 Early Hints above all: on their way from an upstream to a client.
//!
//! Whoever waits for the upstream hears them; whoever writes to the client sends them, at a point where it has written
//! nothing of the final response. So the final one waits until they are gone. 100 ends here, as the expectation did that
//! it answers (hyper answers that), and 101 is no interim response. HTTP/1.0 knows none of them.

use std::cell::{Cell, RefCell};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};

use super::hop;

/// Interim responses that one request brings its client; the others are dropped.
pub(super) const MAX_INTERIMS: u8 = 16;

/// Bytes of names and values in one of them; larger ones are dropped.
pub(super) const MAX_INTERIM_BYTES: usize = 16 * 1024;

/// Those of the request at hand.
#[derive(Debug, Default)]
pub(super) struct Interims {
    waiting: RefCell<Vec<Response<()>>>,
    /// Some of them are not sent.
    are_owed: Cell<bool>,
    /// How many more are taken.
    room: Cell<u8>,
}

impl Interims {
    /// A request begins, of a client that knows of them or does not.
    pub(super) fn begin(&self, are_known: bool) {
        self.room.set(if are_known { MAX_INTERIMS } else { 0 });
    }

    /// Whether one more would be taken.
    pub(super) fn are_wanted(&self) -> bool {
        self.room.get() > 0
    }

    /// The upstream sends one. Returns whether it goes to the client.
    pub(super) fn hear(&self, mut interim: Response<()>) -> bool {
        let is_passed_on = is_interim(interim.status()) && interim.status() != StatusCode::CONTINUE;
        if !is_passed_on || !self.are_wanted() || bytes(interim.headers()) > MAX_INTERIM_BYTES {
            return false;
        }
        hop::remove(interim.headers_mut());
        interim.headers_mut().remove(CONTENT_LENGTH);
        self.room.set(self.room.get() - 1);
        self.waiting.borrow_mut().push(interim);
        self.are_owed.set(true);
        true
    }

    /// Whether some are not sent.
    pub(super) fn are_owed(&self) -> bool {
        self.are_owed.get()
    }

    /// Hands them to whoever sends them.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        self.waiting.take()
    }

    /// They are sent, or nobody waits for that any more.
    pub(super) fn are_gone(&self) {
        self.waiting.borrow_mut().clear();
        self.are_owed.set(false);
    }
}

/// Whether a final response follows one with this status.
pub(super) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Writes one as HTTP/1.1 has it.
pub(super) fn write(interim: &Response<()>, bytes: &mut Vec<u8>) {
    let status = interim.status();
    let reason = status.canonical_reason().unwrap_or_default();
    bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in interim.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interim(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn what_reaches_the_client() {
        let large = "x".repeat(MAX_INTERIM_BYTES);
        for (name, status, fields, expected) in [
            ("hints", 103, &[("link", "</a.css>; rel=preload")][..], Some("link: </a.css>; rel=preload\r\n")),
            ("processing", 102, &[], Some("")),
            ("one that nobody knows", 199, &[("a", "b")], Some("a: b\r\n")),
            (
                "fields of a connection",
                103,
                &[
                    ("connection", "x-hop"),
                    ("x-hop", "1"),
                    ("keep-alive", "1"),
                    ("content-length", "0"),
                    ("a", "b"),
                ],
                Some("a: b\r\n"),
            ),
            ("100, which is ours", 100, &[], None),
            ("101, which is final", 101, &[("upgrade", "websocket")], None),
            ("a final one", 200, &[], None),
            ("a large one", 103, &[("a", large.as_str())], None),
        ] {
            let interims = Interims::default();
            interims.begin(true);
            assert_eq!(interims.hear(interim(status, fields)), expected.is_some(), "{name}");
            assert_eq!(interims.are_owed(), expected.is_some(), "{name}");
            let mut written = Vec::new();
            interims.take().iter().for_each(|interim| write(interim, &mut written));
            let written = String::from_utf8(written).unwrap();
            let fields = written.split_once("\r\n").map_or("", |(_, fields)| fields);
            assert_eq!(fields, expected.map_or(String::new(), |fields| format!("{fields}\r\n")), "{name}");
        }
    }

    #[test]
    fn they_are_bounded_and_not_for_everybody() {
        let interims = Interims::default();
        let heard = || (0..100).filter(|_| interims.hear(interim(103, &[]))).count();
        interims.begin(false);
        assert_eq!(heard(), 0);
        interims.begin(true);
        assert_eq!(heard(), usize::from(MAX_INTERIMS));
        interims.are_gone();
        assert!(!interims.are_owed() && interims.take().is_empty());
    }
}
