//! Finds interim responses among the bytes of an upstream over HTTP/1.1. hyper skips them; telling it to hand them out
//! would cost each request several allocations, and looking at the first bytes of a response costs next to nothing.

use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::super::interim::{MAX_INTERIM_BYTES, MAX_INTERIMS, is_interim};

/// How each of them begins.
const BEGIN: &[u8] = b"HTTP/1.1 1";

/// More fields than anybody sends in one.
const MAX_FIELDS: usize = 64;

/// What stands in front of a final response.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// An interim response that is not complete.
    begun: Vec<u8>,
    found: Vec<Response<()>>,
    /// How many more are looked for. An upstream that sends them without end is not read twice for that.
    room: u8,
}

impl Early {
    /// A request goes out.
    pub(super) fn begin(&mut self) {
        self.begun.clear();
        self.found.clear();
        self.room = MAX_INTERIMS;
    }

    /// Looks at the next bytes of the response; `false`: nothing interim comes any more.
    pub(super) fn look(&mut self, bytes: &[u8]) -> bool {
        // Nearly always.
        if self.begun.is_empty() && !begins(bytes) {
            return false;
        }
        self.begun.extend_from_slice(bytes);
        while self.room > 0 && begins(&self.begun) {
            match read(&self.begun) {
                Ok(Some((interim, length))) => {
                    self.begun.drain(..length);
                    self.found.push(interim);
                    self.room -= 1;
                    if self.begun.is_empty() {
                        return true;
                    }
                }
                Ok(None) if self.begun.len() < MAX_INTERIM_BYTES => return true,
                Ok(None) | Err(Final) => break,
            }
        }
        self.begun = Vec::new();
        false
    }

    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Response<()>> {
        std::mem::take(&mut self.found)
    }
}

/// It is not interim, or hyper will say what is wrong with it.
struct Final;

/// Whether bytes are the begin of an interim response, as far as they go.
fn begins(bytes: &[u8]) -> bool {
    let count = bytes.len().min(BEGIN.len());
    bytes[..count] == BEGIN[..count]
}

/// Reads one, and tells how long it is; `None`: there is more to come.
fn read(bytes: &[u8]) -> Result<Option<(Response<()>, usize)>, Final> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|_| Final)? else { return Ok(None) };
    let mut interim = Response::new(());
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    *interim.status_mut() = status.filter(|status| is_interim(*status)).ok_or(Final)?;
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Final)?;
        interim.headers_mut().append(name, HeaderValue::from_bytes(field.value).map_err(|_| Final)?);
    }
    Ok(Some((interim, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_looked_for_than_are_passed_on() {
        let mut early = Early::default();
        for _request in 0..2 {
            early.begin();
            let looks = (0..1000).take_while(|_| early.look(b"HTTP/1.1 102 Processing\r\n\r\n")).count();
            assert!(looks <= usize::from(MAX_INTERIMS), "{looks}");
            assert_eq!(early.take().len(), usize::from(MAX_INTERIMS));
        }
    }

    #[test]
    fn interim_responses_are_found_however_they_come() {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let large = format!("HTTP/1.1 103 x\r\na: {}\r\n\r\n{hints}", "x".repeat(2 * MAX_INTERIM_BYTES));
        for (name, bytes, expected) in [
            ("none", last.to_owned(), &[][..]),
            ("one", format!("{hints}{last}"), &[103]),
            (
                "several",
                format!("{hints}HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 C\r\n\r\n{last}"),
                &[103, 102, 100],
            ),
            ("nothing but one", hints.to_owned(), &[103]),
            ("a switch", format!("{hints}HTTP/1.1 101 x\r\nupgrade: a\r\n\r\n{hints}"), &[103]),
            ("a final one in front", format!("{last}{hints}"), &[]),
            ("half of one", hints[..30].to_owned(), &[]),
            ("no HTTP", "HTTP/1.1 1xx\r\n\r\n".to_owned(), &[]),
            ("a large one", large, &[]),
        ] {
            for size in [1, 7, 100, 1 << 20] {
                let mut early = Early::default();
                early.begin();
                let _went_on = bytes.as_bytes().chunks(size).all(|piece| early.look(piece));
                let found = early.take();
                let found: Vec<_> = found.iter().map(|interim| interim.status().as_u16()).collect();
                // One that comes in one piece needs no room.
                if !(name == "a large one" && size == 1 << 20) {
                    assert_eq!(found, expected, "{name}, {size} at a time");
                }
            }
        }
    }
}
