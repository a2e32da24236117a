//! A line for each request, written by a thread of its own: a worker puts an entry into a queue and goes on. When the
//! queue is full the entry is left out and counted, for no disk may make a request wait.
//!
//! Queries are not written: secrets stand in them. Whatever clients send is escaped, so that nobody can write a line
//! of his own.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, Version};
use metrics::{Counter, counter, describe_counter};
use serde::Serialize;
use time::OffsetDateTime;

use crate::model::{self, LogFormat, LogTarget};

const DROPPED: &str = "gateway_access_log_dropped_total";

/// Bytes of lines that are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a failure to write is told of.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Describes the metric; call it once, after the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(DROPPED, "Lines that the access log has not, because its queue was full.");
}

/// One request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) time: SystemTime,
    pub(crate) client: IpAddr,
    pub(crate) listener: String,
    pub(crate) method: Method,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) status: u16,
    /// Of the response's body.
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    /// To the head of the response.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) route: Option<String>,
    pub(crate) upstream: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) request_id: Option<HeaderValue>,
    /// As it came.
    pub(crate) trace_parent: Option<HeaderValue>,
    pub(crate) referer: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    /// What decided about it: `ok`, or the code of what went wrong.
    pub(crate) why: &'static str,
}

/// An access log, shared by all workers. The thread ends with its last holder.
#[derive(Debug)]
pub(crate) struct AccessLog {
    settings: model::AccessLog,
    queue: SyncSender<Entry>,
    reopen: Arc<AtomicBool>,
    dropped: Counter,
}

impl AccessLog {
    /// Opens its file, and starts its thread.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(settings: &model::AccessLog) -> io::Result<Self> {
        let sink = Sink::open(&settings.to)?;
        let (queue, entries) = sync_channel(settings.queue);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            sink,
            target: settings.to.clone(),
            format: settings.format,
            reopen: Arc::clone(&reopen),
            complained: None,
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&entries))?;
        Ok(Self { settings: settings.clone(), queue, reopen, dropped: counter!(DROPPED) })
    }

    pub(crate) fn settings(&self) -> &model::AccessLog {
        &self.settings
    }

    /// The file is opened anew before the next line: somebody has moved it away.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Whether a request is written down; `chance` is any number.
    pub(crate) fn takes(&self, status: u16, chance: u64) -> bool {
        status >= 500 || chance % 100 < u64::from(self.settings.sample_percent)
    }

    /// Writes a request down, some time.
    pub(crate) fn write(&self, entry: Entry) {
        match self.queue.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }
}

enum Sink {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stdout => Ok(Self::Stdout),
            LogTarget::Stderr => Ok(Self::Stderr),
            LogTarget::File(path) => OpenOptions::new().create(true).append(true).open(path).map(Self::File),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }
}

struct Writer {
    sink: Sink,
    target: LogTarget,
    format: LogFormat,
    reopen: Arc<AtomicBool>,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Entry>) {
        let mut lines = String::new();
        while let Ok(entry) = entries.recv() {
            line(&mut lines, &entry, self.format);
            while lines.len() < BATCH_BYTES
                && let Ok(entry) = entries.try_recv()
            {
                line(&mut lines, &entry, self.format);
            }
            if let Err(error) = self.put(&lines) {
                self.complain(&error);
            }
            lines.clear();
        }
    }

    fn put(&mut self, lines: &str) -> io::Result<()> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            self.sink = Sink::open(&self.target)?;
        }
        self.sink.write(lines.as_bytes())
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, "the access log cannot be written; requests go on without it");
        }
    }
}

fn line(out: &mut String, entry: &Entry, format: LogFormat) {
    match format {
        LogFormat::Json => json(out, entry),
        LogFormat::Common => common(out, entry, false),
        LogFormat::Combined => common(out, entry, true),
    }
    out.push('\n');
}

/// A line as an object.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    client: IpAddr,
    listener: &'a str,
    method: &'a str,
    host: Option<String>,
    path: &'a str,
    protocol: &'a str,
    status: u16,
    bytes: u64,
    duration_ms: f64,
    first_byte_ms: Option<f64>,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    server_name: Option<&'a str>,
    request_id: Option<String>,
    trace_id: Option<String>,
    referer: Option<String>,
    user_agent: Option<String>,
    why: &'a str,
}

fn json(out: &mut String, entry: &Entry) {
    let millis = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let row = Row {
        time: timestamp(entry.time),
        client: entry.client,
        listener: &entry.listener,
        method: entry.method.as_str(),
        host: entry.host.as_ref().map(text),
        path: &entry.path,
        protocol: protocol(entry.version),
        status: entry.status,
        bytes: entry.bytes,
        duration_ms: millis(entry.duration),
        first_byte_ms: entry.first_byte.map(millis),
        route: entry.route.as_deref(),
        upstream: entry.upstream.as_deref(),
        endpoint: entry.endpoint.as_deref(),
        server_name: entry.server_name.as_deref(),
        request_id: entry.request_id.as_ref().map(text),
        trace_id: entry.trace_parent.as_ref().and_then(|value| trace_id(value.to_str().ok()?)),
        referer: entry.referer.as_ref().map(text),
        user_agent: entry.user_agent.as_ref().map(text),
        why: entry.why,
    };
    // There is nothing in it that JSON cannot say.
    if let Ok(row) = serde_json::to_string(&row) {
        out.push_str(&row);
    }
}

fn common(out: &mut String, entry: &Entry, combined: bool) {
    let bytes = if entry.bytes == 0 { "-".to_owned() } else { entry.bytes.to_string() };
    let _ = write!(out, "{} - - [{}] \"", entry.client, clf_time(entry.time));
    escape(out, entry.method.as_str().as_bytes());
    out.push(' ');
    escape(out, entry.path.as_bytes());
    let _ = write!(out, " {}\" {} {bytes}", protocol(entry.version), entry.status);
    if combined {
        for value in [&entry.referer, &entry.user_agent] {
            out.push_str(" \"");
            match value {
                Some(value) => escape(out, value.as_bytes()),
                None => out.push('-'),
            }
            out.push('"');
        }
    }
}

/// As Apache does: quotes, backslashes and what is not printable.
fn escape(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The trace that a `traceparent` names (W3C Trace Context, section 3.2); `None` if it names none.
fn trace_id(value: &str) -> Option<String> {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let mut parts = value.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next();
    let has_lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let is_valid = has_lengths
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        && (version != "00" || more.is_none())
        && !is_zero(trace)
        && !is_zero(parent);
    is_valid.then(|| trace.to_owned())
}

/// RFC 3339, in UTC, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, (hour, minute, second, millis)) = (time.date(), time.to_hms_milli());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn clf_time(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let month = date.month().to_string();
    let month = month.get(..3).unwrap_or(&month);
    format!("{:02}/{month}/{:04}:{hour:02}:{minute:02}:{second:02} +0000", date.day(), date.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: "192.0.2.1".parse().unwrap(),
            listener: "web".to_owned(),
            method: Method::GET,
            host: Some(HeaderValue::from_static("a.test")),
            path: "/a\"b\\c".to_owned(),
            version: Version::HTTP_11,
            status: 200,
            bytes: 1234,
            duration: Duration::from_micros(1500),
            first_byte: Some(Duration::from_micros(700)),
            route: Some("users".to_owned()),
            upstream: Some("up".to_owned()),
            endpoint: Some("127.0.0.1:1".to_owned()),
            server_name: None,
            request_id: None,
            trace_parent: Some(HeaderValue::from_static(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )),
            referer: None,
            user_agent: Some(HeaderValue::from_bytes(b"a \"b\"\xe9\t").unwrap()),
            why: "ok",
        }
    }

    #[test]
    fn a_line_has_no_quote_that_it_did_not_write() {
        let mut out = String::new();
        line(&mut out, &entry(), LogFormat::Combined);
        assert_eq!(
            out,
            "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b\\\\c HTTP/1.1\" 200 1234 \"-\" \
             \"a \\\"b\\\"\\xe9\\x09\"\n"
        );
        out.clear();
        line(&mut out, &Entry { bytes: 0, ..entry() }, LogFormat::Common);
        assert_eq!(out, "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b\\\\c HTTP/1.1\" 200 -\n");
        out.clear();
        line(&mut out, &entry(), LogFormat::Json);
        let row: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((out.matches('\n').count(), row["path"].as_str()), (1, Some("/a\"b\\c")));
        assert_eq!(row["time"], "2024-02-29T12:34:56.789Z");
        assert_eq!((&row["duration_ms"], &row["first_byte_ms"]), (&1.5.into(), &0.7.into()));
        assert_eq!(row["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(row["user_agent"], "a \"b\"\u{fffd}\t");
        assert!(row["referer"].is_null());
    }

    #[test]
    fn traces_are_told_from_noise() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (name, value, expected) in [
            ("one", format!("00-{trace}-{parent}-01"), true),
            ("of a later version", format!("01-{trace}-{parent}-01-more"), true),
            ("with more than its version has", format!("00-{trace}-{parent}-01-more"), false),
            ("of no version", format!("ff-{trace}-{parent}-01"), false),
            ("in upper case", format!("00-{}-{parent}-01", trace.to_uppercase()), false),
            ("of nobody", format!("00-{}-{parent}-01", "0".repeat(32)), false),
            ("from nobody", format!("00-{trace}-{}-01", "0".repeat(16)), false),
            ("short", format!("00-{trace}-{parent}"), false),
            ("nothing", String::new(), false),
        ] {
            assert_eq!(trace_id(&value).as_deref(), expected.then_some(trace), "{name}");
        }
    }

    #[test]
    fn errors_are_always_taken_and_others_by_their_share() {
        let settings = |percent| model::AccessLog {
            to: LogTarget::Stderr,
            format: LogFormat::Json,
            sample_percent: percent,
            queue: 1,
        };
        let some = AccessLog::start(&settings(30)).unwrap();
        assert_eq!((0..1000).filter(|chance| some.takes(200, *chance)).count(), 300);
        assert!((0..1000).all(|chance| some.takes(503, chance)));
        assert!(!AccessLog::start(&settings(0)).unwrap().takes(404, 0));
    }
}
