//! From what a dialect wrote to bytes on the wire: when, in which pieces, and with which faults.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

use super::record::{Ended, Record};
use super::script::{At, Script};

/// What a dialect answers.
#[derive(Debug)]
pub(super) enum Reply {
    Json(u16, Value),
    Bytes(&'static str, Vec<u8>),
    Stream(Stream),
}

/// The events of a stream, each as it goes over the wire.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) events: Vec<String>,
    /// The event that an endless stream repeats.
    pub(super) repeats: Option<usize>,
    /// What the dialect sends when it fails under way.
    pub(super) error: String,
    /// What keeps a connection busy without saying anything.
    pub(super) ping: String,
    pub(super) is_json: bool,
}

impl Stream {
    /// An event of a stream of events (SSE).
    pub(super) fn event(&mut self, name: Option<&str>, data: &Value) {
        self.events.push(sse(name, &data.to_string()));
    }
}

pub(super) fn sse(name: Option<&str>, data: &str) -> String {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    format!("{name}data: {data}\n\n")
}

/// A step of a delivery.
#[derive(Debug, PartialEq)]
enum Step {
    Wait(Duration),
    Send(Bytes),
    Hang,
    Close,
    Reset,
    /// From here on, the first `Send` before it again and again.
    Repeat(Bytes, Duration),
}

/// The connection's mark that it is to end in a reset.
pub(super) type Resets = Arc<AtomicBool>;

/// Makes the response; `None` where the connection is to end without one.
pub(super) async fn deliver(
    reply: Reply,
    script: &Script,
    resets: &Resets,
    record: (Record, u64),
) -> Option<Response<Pieces>> {
    tokio::time::sleep(script.delay_head).await;
    if script.hang == Some(At::Head) {
        std::future::pending::<()>().await;
    }
    if script.reset == Some(At::Head) {
        resets.store(true, Ordering::Relaxed);
        record.0.ended(record.1, Ended::Broken);
        return None;
    }
    let (status, kind, steps) = match reply {
        Reply::Json(status, value) => {
            (status, "application/json", plain(value.to_string().into_bytes(), script))
        }
        Reply::Bytes(kind, bytes) => (200, kind, plain(bytes, script)),
        Reply::Stream(stream) => {
            let kind = if stream.is_json { "application/json" } else { "text/event-stream; charset=utf-8" };
            (200, kind, streamed(stream, script))
        }
    };
    let mut response = Response::new(Pieces::of(steps, Arc::clone(resets), record));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if script.gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if kind.starts_with("text/event-stream") {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    Some(response)
}

/// A reply in one piece, and the half of it that `half` sends.
fn plain(mut body: Vec<u8>, script: &Script) -> Vec<Step> {
    let mut steps = vec![Step::Wait(script.delay_first)];
    if script.gzip {
        let mut zip = Gzip::default();
        body = [zip.block(&body), zip.end()].concat();
    }
    let fails = script.half.is_some() || script.reset.is_some() || script.hang.is_some();
    if fails {
        body.truncate(body.len() / 2);
    }
    push(&mut steps, &body, script);
    if let Some(fault) = fault(script).filter(|_| fails) {
        steps.push(fault);
    }
    steps
}

fn fault(script: &Script) -> Option<Step> {
    if script.hang.is_some() {
        Some(Step::Hang)
    } else if script.reset.is_some() {
        Some(Step::Reset)
    } else {
        script.half.map(|_| Step::Close)
    }
}

fn streamed(mut stream: Stream, script: &Script) -> Vec<Step> {
    let event = |at: Option<At>| if let Some(At::Event(index)) = at { Some(index) } else { None };
    let stops = [script.half, script.end, script.error_at, event(script.reset), event(script.hang)];
    let stop = stops.into_iter().flatten().min();
    let mut last = Vec::new();
    if let Some(stop) = stop.filter(|stop| *stop < stream.events.len()) {
        if script.half.is_some() {
            let event = stream.events[stop].as_bytes();
            last = event[..event.len() / 2].to_vec();
        } else if script.error_at.is_some() {
            last = stream.error.clone().into_bytes();
        }
        stream.events.truncate(stop);
    }
    let mut zip = script.gzip.then(Gzip::default);
    let mut pack = |bytes: Vec<u8>| zip.as_mut().map_or(bytes.clone(), |zip| zip.block(&bytes));
    // The second step keeps a stream of one event in chunks: providers know no stream's length beforehand.
    let mut steps = vec![Step::Wait(script.delay_first), Step::Wait(Duration::ZERO)];
    for (index, event) in stream.events.iter().enumerate() {
        if index > 0 {
            steps.push(Step::Wait(script.delay));
        }
        let mut text = event.clone();
        if script.comments && !stream.is_json {
            text = format!(": keep-alive\n\n{}{text}", if index > 0 { &stream.ping } else { "" });
        }
        if script.crlf && !stream.is_json {
            text = text.replace('\n', "\r\n");
        }
        push(&mut steps, &pack(text.into_bytes()), script);
        if script.endless && stream.repeats == Some(index) {
            steps.push(Step::Repeat(event.clone().into(), script.delay.max(Duration::from_millis(1))));
            return steps;
        }
    }
    if !last.is_empty() {
        push(&mut steps, &pack(last), script);
    }
    if let Some(step) = fault(script).filter(|_| stop.is_some()) {
        steps.push(step);
    } else if let Some(zip) = zip {
        push(&mut steps, &zip.end(), script);
    }
    steps
}

fn push(steps: &mut Vec<Step>, bytes: &[u8], script: &Script) {
    let size = script.cut.unwrap_or(usize::MAX).min(bytes.len()).max(1);
    steps.extend(bytes.chunks(size).map(|piece| Step::Send(Bytes::copy_from_slice(piece))));
}

/// A body that comes in pieces, in time.
#[derive(Debug)]
pub(super) enum Pieces {
    Whole(Option<Bytes>, Record, u64),
    Timed(mpsc::Receiver<io::Result<Bytes>>),
}

impl Pieces {
    fn of(steps: Vec<Step>, resets: Resets, (record, number): (Record, u64)) -> Self {
        if let [Step::Wait(Duration::ZERO), Step::Send(bytes)] = &steps[..] {
            return Self::Whole(Some(bytes.clone()), record, number);
        }
        // One piece at a time: what is queued further would be written together.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let ended = run(steps, &sender, &resets).await;
            record.ended(number, ended);
            if ended == Ended::Broken {
                let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
            }
        });
        Self::Timed(receiver)
    }
}

async fn run(steps: Vec<Step>, sender: &mpsc::Sender<io::Result<Bytes>>, resets: &Resets) -> Ended {
    for step in steps {
        match step {
            Step::Wait(Duration::ZERO) => {}
            Step::Wait(time) => tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = sender.closed() => return Ended::Left,
            },
            Step::Send(bytes) => {
                if sender.send(Ok(bytes)).await.is_err() {
                    return Ended::Left;
                }
                // The connection writes what it has before it gets more.
                tokio::task::yield_now().await;
            }
            Step::Hang => {
                sender.closed().await;
                return Ended::Left;
            }
            Step::Close => return Ended::Broken,
            Step::Reset => {
                // What was sent has to leave before the reset, or nobody would see it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                resets.store(true, Ordering::Relaxed);
                return Ended::Broken;
            }
            Step::Repeat(bytes, pause) => loop {
                if sender.send(Ok(bytes.clone())).await.is_err() {
                    return Ended::Left;
                }
                tokio::time::sleep(pause).await;
            },
        }
    }
    Ended::Whole
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes, record, number) => {
                record.ended(*number, Ended::Whole);
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Timed(receiver) => {
                receiver.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None, ..))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes, ..) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Timed(_) => http_body::SizeHint::default(),
        }
    }
}

/// gzip (RFC 1952) in stored blocks: every decoder takes it, and it needs no compressor. Each block can be decoded as
/// soon as it is there, as from a server that flushes.
#[derive(Debug, Default)]
struct Gzip {
    begun: bool,
    crc: u32,
    length: u32,
}

impl Gzip {
    fn block(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            out.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
        for chunk in bytes.chunks(usize::from(u16::MAX)) {
            let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            out.push(0);
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(chunk);
        }
        for byte in bytes {
            let mut low = (!self.crc ^ u32::from(*byte)) & 0xff;
            for _ in 0..8 {
                low = if low & 1 == 1 { low >> 1 ^ 0xedb8_8320 } else { low >> 1 };
            }
            self.crc = !(low ^ !self.crc >> 8);
        }
        self.length = self.length.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out
    }

    fn end(mut self) -> Vec<u8> {
        let mut out = self.block(&[]);
        out.extend([1, 0, 0, 0xff, 0xff]);
        out.extend(self.crc.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(steps: &[Step]) -> Vec<String> {
        let text = |step: &Step| match step {
            Step::Send(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Step::Wait(_) => None,
            other => Some(format!("{other:?}")),
        };
        steps.iter().filter_map(text).collect()
    }

    #[test]
    fn steps_of_a_stream() {
        let cases: &[(&str, &[&str])] = &[
            ("", &["one.", "two.", "three."]),
            ("cut=3", &["one", ".", "two", ".", "thr", "ee."]),
            ("end=1", &["one."]),
            ("half=1", &["one.", "tw", "Close"]),
            ("error_at=2", &["one.", "two.", "error"]),
            ("reset=1", &["one.", "Reset"]),
            ("hang=0", &["Hang"]),
            (
                "comments",
                &[": keep-alive\n\none.", ": keep-alive\n\nping.two.", ": keep-alive\n\nping.three."],
            ),
            ("endless", &["one.", "two.", "Repeat(b\"two.\", 1ms)"]),
        ];
        for (script, expected) in cases {
            let stream = Stream {
                events: ["one.", "two.", "three."].map(str::to_owned).to_vec(),
                repeats: Some(1),
                error: "error".to_owned(),
                ping: "ping.".to_owned(),
                is_json: false,
            };
            let script = Script::read("m", &format!("[[{script}]]")).unwrap();
            assert_eq!(sent(&streamed(stream, &script)), *expected, "{script:?}");
        }
    }

    #[test]
    fn gzip_in_blocks() {
        let mut zip = Gzip::default();
        let bytes = [zip.block(b"hello "), zip.block(b"world"), zip.end()].concat();
        // `printf 'hello world' | gzip | tail -c 8`: checksum and length.
        assert_eq!(bytes[bytes.len() - 8..], [0x85, 0x11, 0x4a, 0x0d, 11, 0, 0, 0]);
        assert_eq!(bytes[10..15], [0, 6, 0, 0xf9, 0xff]);
    }
}
