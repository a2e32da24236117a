//! Requests that two servers could read in two ways, and replies likewise: tables of what is sent, what is answered,
//! and what the other side gets to see.
//!
//! What must hold for every row: the upstream sees no request and no byte that the client's framing does not contain
//! beyond doubt; a refusal is one answer; and where the framing is in doubt, the connection ends. So each row is
//! followed at once by one more request. Whether that one is answered, by whom, and whether the upstream ever sees it,
//! tells where the gateway thinks that the row ended.

mod downgrades;
mod fields;
mod framing;
mod heads;
mod replies;
mod targets;
mod upstream;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use gateway::model;

use crate::harness::{connect, model, start};
use upstream::{Message, Recorder};

/// Follows every row. It is answered with [`FOLLOWED`].
const FOLLOWING: &str = "GET /following HTTP/1.1\r\nhost: a\r\n\r\n";
const FOLLOWED: &str = "x-following: yes\r\n";

const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_FIELDS: usize = 20;

/// One row.
struct Case {
    name: &'static str,
    sent: Vec<u8>,
    /// The statuses of the answers, without the one to [`FOLLOWING`].
    answers: Vec<u16>,
    end: End,
    /// The requests that reach the upstream: method, target, and how much of what follows.
    seen: Vec<String>,
    /// The field lines of the first of them, but for those that say on whose behalf it comes.
    fields: Option<Vec<&'static str>>,
}

/// How a row ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The request that follows is served.
    Open,
    /// The connection ends, and what follows is not looked at.
    Closed,
    /// Like `Closed`, and a part of the last request in `seen` may have reached the upstream, but not its end.
    Broken,
}

/// A row in full.
fn case(name: &'static str, sent: impl Into<Vec<u8>>, answers: &[u16], end: End, seen: &[&str]) -> Case {
    let seen = seen.iter().map(|&line| line.to_owned()).collect();
    Case { name, sent: sent.into(), answers: answers.to_vec(), end, seen, fields: None }
}

/// Every request in it is forwarded, and nothing but that.
fn passes(name: &'static str, sent: impl Into<Vec<u8>>, seen: &[&str]) -> Case {
    case(name, sent, &vec![204; seen.len()], End::Open, seen)
}

/// One 400, and nothing of it is forwarded.
fn refused(name: &'static str, sent: impl Into<Vec<u8>>) -> Case {
    case(name, sent, &[400], End::Closed, &[])
}

/// One 400, and at most this much of it is forwarded, without an end.
fn broken(name: &'static str, sent: impl Into<Vec<u8>>, seen: &str) -> Case {
    case(name, sent, &[400], End::Broken, &[seen])
}

/// A request with these field lines, separated by CRLF, and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}")
}

/// A request for this target.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn tables() -> Vec<Case> {
    [framing::cases(), heads::cases(), targets::cases(), fields::cases()].into_iter().flatten().collect()
}

#[test]
fn requests_are_read_in_one_way_or_refused() {
    each(&tables(), |case| {
        check(case, |stream, bytes| {
            let _ = stream.write_all(bytes);
        });
    });
}

/// What a request means does not depend on how it is cut into segments.
#[test]
fn requests_that_come_byte_by_byte_are_read_alike() {
    let mut cases = tables();
    cases.retain(|case| case.sent.len() < 1024);
    each(&cases, |case| {
        check(case, |stream, bytes| {
            stream.set_nodelay(true).unwrap();
            // Once it is refused, the rest cannot be sent.
            let _ = bytes.chunks(1).try_for_each(|byte| stream.write_all(byte));
        });
    });
}

#[test]
fn requests_that_are_cut_anywhere_are_read_alike() {
    let mut cases = tables();
    cases.retain(|case| framing::CUT_ANYWHERE.contains(&case.name));
    each(&cases, |case| {
        for at in 1..case.sent.len() {
            check(case, |stream, bytes| {
                stream.set_nodelay(true).unwrap();
                let _ = stream.write_all(&bytes[..at]);
                // Else both parts would come at once. Should they do so nevertheless, the row is merely easier.
                std::thread::sleep(Duration::from_millis(1));
                let _ = stream.write_all(&bytes[at..]);
            });
        }
    });
}

/// Checks every row, also behind one that fails, and then says which ones failed.
#[track_caller]
fn each<T: Named>(rows: &[T], check: impl Fn(&T)) {
    let fails = |row: &&T| panic::catch_unwind(AssertUnwindSafe(|| check(row))).is_err();
    let failed: Vec<_> = rows.iter().filter(fails).map(Named::name).collect();
    assert!(failed.is_empty(), "{} of {} rows failed: {failed:#?}", failed.len(), rows.len());
}

trait Named {
    fn name(&self) -> &'static str;
}

impl Named for Case {
    fn name(&self) -> &'static str {
        self.name
    }
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names: Vec<_> = tables().iter().map(|case| case.name).collect();
    for name in framing::CUT_ANYWHERE {
        assert!(names.contains(name), "no row is called {name:?}");
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A gateway in front of this upstream, with low limits.
fn gateway_to(recorder: &Recorder) -> model::Proxy {
    let mut model = model(&[recorder.address()]);
    // What HTTP/2 begins with is no request here, and looks most like one.
    model.listeners[0].http2 = false;
    model.listeners[0].max_header_bytes = MAX_HEAD_BYTES;
    model.listeners[0].max_header_count = MAX_FIELDS;
    model
}

#[track_caller]
fn check(case: &Case, send: impl Fn(&mut TcpStream, &[u8])) {
    let recorder = Recorder::start();
    let proxy = start(&gateway_to(&recorder));
    let mut stream = connect(&proxy);
    send(&mut stream, &[&case.sent, FOLLOWING.as_bytes()].concat());
    let (answers, closed) = read_answers(case.name, &mut stream);
    drop(stream);
    drop(proxy);
    let seen = recorder.finish();

    let mut expected = case.answers.clone();
    if case.end == End::Open {
        expected.push(204);
    }
    let name = case.name;
    assert_eq!(statuses(&answers), expected, "{name}: {answers}\nthe upstream saw {seen:?}");
    assert_eq!(closed, case.end != End::Open, "{name}: is the connection closed? {answers}");
    let refusals = answers.matches("application/problem+json").count();
    assert_eq!(refusals, expected.iter().filter(|status| **status >= 400).count(), "{name}: {answers}");
    check_seen(case, &seen);
}

#[track_caller]
fn check_seen(case: &Case, seen: &[Message]) {
    let name = case.name;
    let mut lines: Vec<String> = seen.iter().map(Message::to_string).collect();
    let mut expected = case.seen.clone();
    match case.end {
        End::Open => expected.push("GET /following".to_owned()),
        End::Closed => {}
        End::Broken => {
            let whole = expected.pop().unwrap_or_default();
            if lines.len() > expected.len() {
                let part = lines.pop().unwrap_or_default();
                let begun = part.strip_suffix(upstream::CUT).is_some_and(|part| whole.starts_with(part));
                assert!(begun, "{name}: {part:?} is no part of {whole:?}");
            }
        }
    }
    assert_eq!(lines, expected, "{name}: what the upstream saw");
    if let (Some(fields), Some(first)) = (&case.fields, seen.first()) {
        assert_eq!(first.fields(), *fields, "{name}: the fields that the upstream saw");
    }
}

/// Reads until the request that follows is answered, or the connection ends.
#[track_caller]
fn read_answers(name: &str, stream: &mut TcpStream) -> (String, bool) {
    let (mut read, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&read);
        if text.contains(FOLLOWED) && text.ends_with("\r\n\r\n") {
            return (text.into_owned(), false);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return (text.into_owned(), true),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (text.into_owned(), true);
            }
            Err(error) => panic!("{name}: neither answered nor closed ({error}): {text}"),
        }
    }
}

/// The statuses of the answers in a text.
fn statuses(text: &str) -> Vec<u16> {
    let after_version = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12));
    after_version.filter_map(|status| status.parse().ok()).collect()
}
