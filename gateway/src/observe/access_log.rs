//! A line for each request, written by a thread of its own: a worker puts an entry into a queue and goes on. When the
//! queue is full the entry is left out and counted, for no disk may make a request wait.
//!
//! Queries are not written: secrets stand in them. Whatever clients send is escaped, so that nobody can write a line
//! of his own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use gateway_kernel::Ruling;
use http::{HeaderValue, Method, Version};
use metrics::{Counter, counter, describe_counter};
use serde::Serialize;
use time::OffsetDateTime;

use crate::model::{self, LogFormat, LogTarget};
use crate::proxy::Rulings;

const DROPPED: &str = "gateway_access_log_dropped_total";

/// Bytes of lines that are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a failure to write is told of.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How soon a full queue is looked at again by who has to get something into it.
const FLUSH_RETRY: Duration = Duration::from_millis(5);

/// How long what the rules for packets say of a client is remembered, and of how many: a client's requests come together,
/// and to ask takes some system calls.
const RULINGS_LAST: Duration = Duration::from_secs(1);
const MAX_RULINGS: usize = 4096;

/// Describes the metric; call it once, after the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(
        DROPPED,
        "Lines that the access log has not: its queue was full, or they could not be written."
    );
}

/// One request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) time: SystemTime,
    pub(crate) client: IpAddr,
    /// What came could not be read as a request: nobody knows what was asked for.
    pub(crate) is_unread: bool,
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
    /// Connections to endpoints that it was tried over.
    pub(crate) attempts: u32,
    pub(crate) tls_version: Option<&'static str>,
    pub(crate) server_name: Option<String>,
    pub(crate) request_id: Option<HeaderValue>,
    /// As it goes on.
    pub(crate) trace_parent: Option<HeaderValue>,
    pub(crate) referer: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    /// Which model was asked.
    pub(crate) llm: Option<Box<LlmEntry>>,
    /// What decided about it: `ok`, or the code of what went wrong.
    pub(crate) why: &'static str,
}

/// The model that a request was sent to, or tried at last.
#[derive(Debug, Clone)]
pub(crate) struct LlmEntry {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) lane: &'static str,
    /// What the translation could not carry.
    pub(crate) losses: usize,
    /// Tokens, as the provider counts them.
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
}

/// An access log, shared by all workers. The thread ends with its last holder.
#[derive(Debug)]
pub(crate) struct AccessLog {
    settings: model::AccessLog,
    queue: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    dropped: Counter,
}

enum Message {
    Entry(Box<Entry>),
    /// Tell when everything before this is written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens its file, and starts its thread.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(settings: &model::AccessLog, rulings: Rulings) -> io::Result<Self> {
        Self::over(settings, Sink::open(&settings.to)?, rulings)
    }

    fn over(settings: &model::AccessLog, sink: Sink, rulings: Rulings) -> io::Result<Self> {
        let dropped = counter!(DROPPED);
        let (queue, messages) = sync_channel(settings.queue);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            sink,
            target: settings.to.clone(),
            format: settings.format,
            rulings: Known { rulings, by_client: HashMap::new(), since: Instant::now() },
            reopen: Arc::clone(&reopen),
            dropped: dropped.clone(),
            is_torn: false,
            complained: None,
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&messages))?;
        Ok(Self { settings: settings.clone(), queue, reopen, dropped })
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
        status >= 500 || chance % 1_000_000 < u64::from(self.settings.sample)
    }

    /// Writes a request down, some time.
    pub(crate) fn write(&self, entry: Entry) {
        match self.queue.try_send(Message::Entry(Box::new(entry))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }

    /// Waits until what was queued is written, but not for ever: a disk may hang. Not for workers.
    pub(crate) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(same)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = same;
            std::thread::sleep(FLUSH_RETRY);
        }
        // Nobody answers only where the thread is gone, and then nothing is left to wait for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

enum Sink {
    Stdout,
    Stderr,
    File(File),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
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
            #[cfg(test)]
            Self::Test(disk) => disk.write_all(bytes),
        }
    }
}

struct Writer {
    sink: Sink,
    target: LogTarget,
    format: LogFormat,
    rulings: Known,
    reopen: Arc<AtomicBool>,
    dropped: Counter,
    /// The last write failed, and may have left half a line behind.
    is_torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut batch = Batch::default();
        while let Ok(message) = messages.recv() {
            self.take(message, &mut batch);
            while let Ok(message) = messages.try_recv() {
                self.take(message, &mut batch);
            }
            self.put(&mut batch);
        }
    }

    fn take(&mut self, message: Message, batch: &mut Batch) {
        match message {
            Message::Entry(entry) => {
                let kernel = match self.format {
                    LogFormat::Json => self.rulings.of(entry.client),
                    LogFormat::Common | LogFormat::Combined => None,
                };
                line(&mut batch.text, &entry, self.format, kernel);
                batch.lines += 1;
                if batch.text.len() >= BATCH_BYTES {
                    self.put(batch);
                }
            }
            Message::Flush(done) => {
                self.put(batch);
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
        }
    }

    fn put(&mut self, batch: &mut Batch) {
        if batch.lines == 0 {
            return;
        }
        if self.reopen.swap(false, Ordering::Relaxed) {
            match Sink::open(&self.target) {
                Ok(sink) => (self.sink, self.is_torn) = (sink, false),
                // The former one is better than none.
                Err(error) => self.complain(&error),
            }
        }
        if self.is_torn {
            batch.text.insert(0, '\n');
        }
        let written = self.sink.write(batch.text.as_bytes());
        self.is_torn = written.is_err();
        if let Err(error) = written {
            self.dropped.increment(batch.lines);
            self.complain(&error);
        }
        batch.text.clear();
        batch.lines = 0;
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, "the access log cannot be written; requests go on without it");
        }
    }
}

/// What was said of clients lately. It is asked for where lines are written and not where requests are served: they pay
/// nothing for it, and lists rarely change between the two.
struct Known {
    rulings: Rulings,
    by_client: HashMap<IpAddr, Option<Ruling>>,
    since: Instant,
}

impl Known {
    fn of(&mut self, client: IpAddr) -> Option<&Ruling> {
        if self.since.elapsed() >= RULINGS_LAST || self.by_client.len() >= MAX_RULINGS {
            self.by_client.clear();
            self.since = Instant::now();
        }
        self.by_client.entry(client).or_insert_with(|| (self.rulings)(client)).as_ref()
    }
}

fn line(out: &mut String, entry: &Entry, format: LogFormat, kernel: Option<&Ruling>) {
    match format {
        LogFormat::Json => json(out, entry, kernel),
        LogFormat::Common => common(out, entry, false),
        LogFormat::Combined => common(out, entry, true),
    }
    out.push('\n');
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    text: String,
    lines: u64,
}

/// A line as an object.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    client: IpAddr,
    listener: &'a str,
    method: Option<&'a str>,
    host: Option<String>,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
    status: u16,
    bytes: u64,
    duration_ms: f64,
    first_byte_ms: Option<f64>,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    tls_version: Option<&'a str>,
    server_name: Option<&'a str>,
    request_id: Option<String>,
    trace_id: Option<String>,
    referer: Option<String>,
    user_agent: Option<String>,
    /// Only of requests to models: most lines have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    llm: Option<LlmRow<'a>>,
    kernel: Option<Kernel<'a>>,
    why: &'a str,
}

#[derive(Serialize)]
struct LlmRow<'a> {
    provider: &'a str,
    model: &'a str,
    lane: &'a str,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    losses: usize,
}

impl<'a> LlmRow<'a> {
    fn of(entry: &'a LlmEntry) -> Self {
        let LlmEntry { provider, model, lane, losses, input, output } = entry;
        Self { provider, model, lane, input_tokens: *input, output_tokens: *output, losses: *losses }
    }
}

/// What the rules for packets say of the client.
#[derive(Serialize)]
struct Kernel<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
}

fn json(out: &mut String, entry: &Entry, kernel: Option<&Ruling>) {
    let millis = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let asked = (!entry.is_unread).then_some(entry);
    let row = Row {
        time: timestamp(entry.time),
        client: entry.client,
        listener: &entry.listener,
        method: asked.map(|entry| entry.method.as_str()),
        host: entry.host.as_ref().map(text),
        path: asked.map(|entry| entry.path.as_str()),
        protocol: asked.map(|entry| protocol(entry.version)),
        status: entry.status,
        bytes: entry.bytes,
        duration_ms: millis(entry.duration),
        first_byte_ms: entry.first_byte.map(millis),
        route: entry.route.as_deref(),
        upstream: entry.upstream.as_deref(),
        endpoint: entry.endpoint.as_deref(),
        attempts: entry.attempts,
        tls_version: entry.tls_version,
        server_name: entry.server_name.as_deref(),
        request_id: entry.request_id.as_ref().map(text),
        trace_id: entry
            .trace_parent
            .as_ref()
            .and_then(|value| Some(trace_id(value.to_str().ok()?)?.to_owned())),
        referer: entry.referer.as_ref().map(text),
        user_agent: entry.user_agent.as_ref().map(text),
        llm: entry.llm.as_deref().map(LlmRow::of),
        kernel: kernel.map(|ruling| Kernel {
            reason: ruling.reason,
            list: ruling.list.as_deref(),
            rule: ruling.rule.as_deref(),
        }),
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
    if entry.is_unread {
        out.push('-');
    } else {
        escape(out, entry.method.as_str().as_bytes());
        out.push(' ');
        escape(out, entry.path.as_bytes());
        let _ = write!(out, " {}", protocol(entry.version));
    }
    let _ = write!(out, "\" {} {bytes}", entry.status);
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

/// JSON escapes what is below a space; there are more characters that terminals obey.
fn text(value: &HeaderValue) -> String {
    let visible = |char: char| {
        if char.is_control() && char >= ' ' { char::REPLACEMENT_CHARACTER } else { char }
    };
    String::from_utf8_lossy(value.as_bytes()).chars().map(visible).collect()
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// The trace that a `traceparent` names (W3C Trace Context, section 3.2); `None` if it names none.
pub(crate) fn trace_id(value: &str) -> Option<&str> {
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
    is_valid.then_some(trace)
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
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::observe::Exposition;
    use crate::observe::metrics::Recorder;

    fn entry() -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: "192.0.2.1".parse().unwrap(),
            is_unread: false,
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
            attempts: 1,
            tls_version: None,
            server_name: None,
            request_id: None,
            trace_parent: Some(HeaderValue::from_static(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )),
            referer: None,
            user_agent: Some(HeaderValue::from_bytes(b"a \"b\"\xe9\t").unwrap()),
            llm: None,
            why: "ok",
        }
    }

    fn nobody() -> Rulings {
        Arc::new(|_| None)
    }

    #[test]
    fn rulings_are_asked_for_once_a_while() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let rulings: Rulings = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Some(Ruling { reason: "no_match", list: None, rule: None })
        });
        let mut known = Known { rulings, by_client: HashMap::new(), since: Instant::now() };
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(number));
        for (name, clients, expected) in [
            ("one client", vec![1; 100], 1),
            ("two", vec![1, 2, 1, 2], 2),
            (
                "more than there is room for",
                (0..2 * MAX_RULINGS as u32).chain([0]).collect(),
                2 * MAX_RULINGS + 1,
            ),
        ] {
            known.by_client.clear();
            known.since = Instant::now();
            asked.store(0, Ordering::Relaxed);
            for client in clients {
                assert_eq!(known.of(address(client)).unwrap().reason, "no_match");
            }
            assert!(known.by_client.len() <= MAX_RULINGS);
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{name}");
        }
        known.since = Instant::now().checked_sub(RULINGS_LAST).unwrap();
        asked.store(0, Ordering::Relaxed);
        known.of(address(0));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "later");
    }

    fn settings(to: LogTarget) -> model::AccessLog {
        model::AccessLog { to, format: LogFormat::Common, sample: 1_000_000, queue: 2 }
    }

    #[test]
    fn a_line_has_no_quote_that_it_did_not_write() {
        let mut out = String::new();
        line(&mut out, &entry(), LogFormat::Combined, None);
        assert_eq!(
            out,
            "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b\\\\c HTTP/1.1\" 200 1234 \"-\" \
             \"a \\\"b\\\"\\xe9\\x09\"\n"
        );
        out.clear();
        line(&mut out, &Entry { bytes: 0, ..entry() }, LogFormat::Common, None);
        assert_eq!(out, "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b\\\\c HTTP/1.1\" 200 -\n");
        out.clear();
        line(&mut out, &entry(), LogFormat::Json, None);
        let row: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((out.matches('\n').count(), row["path"].as_str()), (1, Some("/a\"b\\c")));
        assert_eq!(row["time"], "2024-02-29T12:34:56.789Z");
        assert_eq!((&row["duration_ms"], &row["first_byte_ms"]), (&1.5.into(), &0.7.into()));
        assert_eq!(row["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(row["user_agent"], "a \"b\"\u{fffd}\t");
        assert!(row["referer"].is_null());
        out.clear();
        // An escape sequence for terminals, in UTF-8.
        let obeyed = Some(HeaderValue::from_bytes("\u{9b}31m".as_bytes()).unwrap());
        line(&mut out, &Entry { user_agent: obeyed, is_unread: true, ..entry() }, LogFormat::Json, None);
        let row: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&row["user_agent"], &row["method"]), (&"\u{fffd}31m".into(), &serde_json::Value::Null));
        assert!(row["path"].is_null() && row["protocol"].is_null());
        out.clear();
        line(&mut out, &Entry { is_unread: true, ..entry() }, LogFormat::Common, None);
        assert!(out.ends_with("] \"-\" 200 1234\n"), "{out}");
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
            assert_eq!(trace_id(&value), expected.then_some(trace), "{name}");
        }
    }

    #[test]
    fn errors_are_always_taken_and_others_by_their_share() {
        let settings = |sample| model::AccessLog { sample, ..settings(LogTarget::Stderr) };
        let some = AccessLog::start(&settings(300), nobody()).unwrap();
        assert_eq!((0..1_000_000).filter(|chance| some.takes(200, *chance)).count(), 300);
        assert!((0..1000).all(|chance| some.takes(503, chance)));
        assert!(!AccessLog::start(&settings(0), nobody()).unwrap().takes(404, 0));
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Says that it is asked to write, and waits for what becomes of it: how many bytes it takes before it fails, if it
    /// fails.
    struct Disk {
        asks: mpsc::Sender<()>,
        answers: mpsc::Receiver<Option<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::take(&mut self.fails) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = self.asks.send(());
            let taken = self.answers.recv().unwrap_or(None);
            self.fails = taken.is_some();
            let bytes = &bytes[..taken.unwrap_or(bytes.len())];
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        log: AccessLog,
        asked: mpsc::Receiver<()>,
        answer: mpsc::Sender<Option<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
        recorder: Recorder,
    }

    fn rig() -> Rig {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (written, recorder) = (Arc::default(), Recorder::default());
        let disk = Disk { asks, answers, written: Arc::clone(&written), fails: false };
        let log = metrics::with_local_recorder(&recorder, || {
            AccessLog::over(&settings(LogTarget::Stdout), Sink::Test(Box::new(disk)), nobody()).unwrap()
        });
        Rig { log, asked, answer, written, recorder }
    }

    impl Rig {
        fn say(&self, path: &str) {
            self.log.write(Entry { path: path.to_owned(), ..entry() });
        }

        fn dropped(&self) -> String {
            let mut page = Exposition::default();
            self.recorder.render(&mut page);
            page.finish()
                .lines()
                .find_map(|line| line.strip_prefix("gateway_access_log_dropped_total "))
                .unwrap()
                .to_owned()
        }

        /// The paths of lines, one after the other.
        fn paths(&self) -> Vec<String> {
            let text = String::from_utf8(self.written.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.split(' ').nth(6).unwrap_or("torn").to_owned()).collect()
        }
    }

    #[test]
    fn a_full_queue_stops_nobody_and_is_counted() {
        let rig = rig();
        rig.say("/a");
        // The thread holds the first line, and the queue has room for two.
        rig.asked.recv_timeout(PATIENCE).unwrap();
        ["/b", "/c", "/d", "/e", "/f"].iter().for_each(|path| rig.say(path));
        assert_eq!(rig.dropped(), "3");
        for _ in 0..3 {
            rig.answer.send(None).unwrap();
        }
        rig.log.flush(PATIENCE);
        assert_eq!(rig.paths(), ["/a", "/b", "/c"]);
    }

    #[test]
    fn what_a_full_disk_took_of_a_line_spoils_no_other_and_is_counted() {
        let rig = rig();
        rig.say("/a");
        rig.answer.send(Some(7)).unwrap();
        rig.log.flush(PATIENCE);
        assert_eq!(rig.dropped(), "1");
        rig.say("/b");
        rig.answer.send(None).unwrap();
        rig.log.flush(PATIENCE);
        assert_eq!(rig.paths(), ["torn", "/b"]);
    }

    #[test]
    fn a_disk_that_hangs_is_not_waited_for_for_ever() {
        let rig = rig();
        ["/a", "/b", "/c", "/d"].iter().for_each(|path| rig.say(path));
        rig.log.flush(Duration::from_millis(20));
        assert_eq!(rig.paths(), [""; 0]);
    }

    #[test]
    fn where_no_new_file_can_be_opened_the_former_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, moved) = (dir.path().join("logs"), dir.path().join("moved"));
        std::fs::create_dir(&logs).unwrap();
        let log = AccessLog::start(&settings(LogTarget::File(logs.join("a.log"))), nobody()).unwrap();
        std::fs::rename(&logs, &moved).unwrap();
        log.reopen();
        log.write(entry());
        log.flush(PATIENCE);
        assert_eq!(std::fs::read_to_string(moved.join("a.log")).unwrap().lines().count(), 1);
    }
}
