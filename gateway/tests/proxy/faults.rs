//! Upstreams that fail in the middle: what the client gets, what the access log calls it, and whether the connection serves
//! another request.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::model::{AccessLog, LogFormat, LogTarget};
use socket2::SockRef;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::*;
use crate::tls::{Files, to_secure, trusting};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
/// Its body never comes to its end.
const HALF_POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc";
/// Of an upstream that says nothing more. What has to come before it takes far less.
const PATIENCE: Duration = Duration::from_millis(400);

/// What an upstream does once it has read a request's head.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send(&'static str),
    /// A byte at a time.
    Trickle(&'static str),
    /// What was sent has to reach the client before what follows: a reset may take it back.
    Settle,
    /// Ends the connection by a reset.
    Reset,
    /// Ends it in order.
    Close,
    /// Sends no more, but reads.
    HalfClose,
    /// Says nothing, until the gateway goes.
    Hang,
    /// Sends a byte of a head now and then, for ever.
    Drip,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    /// A whole answer with this body, or of the gateway with this code.
    Whole(u16, &'static str),
    /// This much of one, and a connection that does not end in order.
    Cut(&'static str),
}

struct Fault {
    name: &'static str,
    request: &'static str,
    /// A request was served over the connection before.
    is_warm: bool,
    steps: &'static [Step],
    got: Got,
    /// What the access log says.
    why: &'static str,
    /// Connections that were opened when another request has been served.
    connections: usize,
}

fn on(name: &'static str, steps: &'static [Step], got: Got, why: &'static str, connections: usize) -> Fault {
    Fault { name, request: GET, is_warm: false, steps, got, why, connections }
}

impl Fault {
    fn of(self, request: &'static str) -> Self {
        Self { request, ..self }
    }

    fn warm(self) -> Self {
        Self { is_warm: true, ..self }
    }
}

const OF_LENGTH: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
const OF_NONE: &str = "HTTP/1.1 200 OK\r\n\r\nabc";
const LENGTH: Step = Step::Send(OF_LENGTH);
const CHUNKS: Step = Step::Send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
const UNTIL_CLOSE: Step = Step::Send(OF_NONE);
const HALF_HEAD: Step = Step::Send("HTTP/1.1 200 OK\r\ncontent-le");

fn faults() -> Vec<Fault> {
    use Got::{Cut, Whole};
    use Step::*;
    let closed = Whole(502, "upstream_closed");
    let late = Whole(504, "upstream_timeout");
    vec![
        on("no fault", &[Send(OK)], Whole(200, "ok"), "ok", 1),
        on("no fault, slowly", &[Trickle(OK)], Whole(200, "ok"), "ok", 1),
        on("a reset before the head", &[Reset], closed, "upstream_closed", 2),
        on("an end before the head", &[Close], closed, "upstream_closed", 2),
        on("half an end before the head", &[HalfClose, Hang], closed, "upstream_closed", 2),
        on("a reset in the head", &[HALF_HEAD, Settle, Reset], closed, "upstream_closed", 2),
        on("an end in the head", &[HALF_HEAD, Close], closed, "upstream_closed", 2),
        on("silence", &[Hang], late, "upstream_timeout", 2),
        on("silence in the head", &[HALF_HEAD, Hang], late, "upstream_timeout", 2),
        on("a head that never ends", &[Drip], late, "upstream_timeout", 2),
        // A request that may be sent twice is, over another connection, as long as no byte of an answer came.
        on("a pooled connection is reset", &[Reset], Whole(200, "ok"), "ok", 2).warm(),
        on("a pooled connection ends", &[Close], Whole(200, "ok"), "ok", 2).warm(),
        on("a pooled connection is half ended", &[HalfClose, Hang], Whole(200, "ok"), "ok", 2).warm(),
        on(
            "a pooled connection is reset in the head",
            &[HALF_HEAD, Settle, Reset],
            closed,
            "upstream_closed",
            2,
        )
        .warm(),
        on("a pooled connection is silent", &[Hang], late, "upstream_timeout", 2).warm(),
        on("a pooled connection is reset over a POST", &[Reset], closed, "upstream_closed", 2)
            .of(POST)
            .warm(),
        on("a reset in the body", &[LENGTH, Settle, Reset], Cut("abc"), "upstream_broke_off", 2),
        on("a reset in chunks", &[CHUNKS, Settle, Reset], Cut("abc"), "upstream_broke_off", 2),
        on("an end in the body", &[LENGTH, Settle, Close], Cut("abc"), "upstream_broke_off", 2),
        on("half an end in chunks", &[CHUNKS, Settle, HalfClose, Hang], Cut("abc"), "upstream_broke_off", 2),
        on("silence in the body", &[LENGTH, Hang], Cut("abc"), "idle_timeout", 2),
        on("silence in chunks", &[CHUNKS, Hang], Cut("abc"), "idle_timeout", 2),
        on("a malformed chunk", &[CHUNKS, Settle, Send("zz\r\n")], Cut("abc"), "upstream_broke_off", 2),
        // Whether that was all, only an end in order says.
        on(
            "a reset where the end would be",
            &[UNTIL_CLOSE, Settle, Reset],
            Cut("abc"),
            "upstream_broke_off",
            2,
        ),
        on("the end of a body without a length", &[UNTIL_CLOSE, Close], Whole(200, "abc"), "ok", 2),
        on("half an end behind an answer", &[Send(OK), HalfClose, Hang], Whole(200, "ok"), "ok", 2),
        on("a reset behind an answer", &[Send(OK), Settle, Reset], Whole(200, "ok"), "ok", 2),
        on("an end that is announced", &[Send(CLOSING)], Whole(200, "ok"), "ok", 2),
        on("more than its length", &[Send(OK), Send("more")], Whole(200, "ok"), "ok", 2),
        on("an answer before the request's end", &[Send(OK), Hang], Whole(200, "ok"), "ok", 2).of(HALF_POST),
        on("the same, and an end", &[Send(OK), Close], Whole(200, "ok"), "ok", 2).of(HALF_POST),
        on("a reset before the request's end", &[Reset], closed, "upstream_closed", 2).of(HALF_POST),
    ]
}

const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn faults_of_upstreams_are_told_and_taken_apart() {
    // Most of them wait for something: side by side, they take no longer than one.
    let check = |fault: Fault| (fault.name, std::thread::spawn(move || check(&fault)));
    let failed: Vec<_> = faults()
        .into_iter()
        .map(check)
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|(name, checked)| checked.join().err().map(|_| name))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn check(fault: &Fault) {
    let (steps, faulty) = (fault.steps, usize::from(fault.is_warm));
    let asked = Arc::new(AtomicUsize::new(0));
    let up = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("POST") {
                conn.body(3);
            }
            // One request meets the fault, those before and behind it do not.
            if asked.fetch_add(1, Ordering::SeqCst) != faulty {
                conn.send(OK);
            } else if steps.iter().any(|step| !act(&mut conn, *step)) {
                return;
            }
        }
    });
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("access.log");
    let mut model = model(&[up.address]);
    (model.upstreams[0].response_timeout, model.upstreams[0].idle_timeout) = (PATIENCE, PATIENCE);
    model.access_log = Some(AccessLog {
        to: LogTarget::File(path.clone()),
        format: LogFormat::Json,
        sample: 1_000_000,
        queue: 100,
    });
    let proxy = start(&model);
    let mut client = connect(&proxy);
    if fault.is_warm {
        assert_eq!(status(&get(&mut client)), "200", "{}", fault.name);
    }
    client.write_all(fault.request.as_bytes()).unwrap();
    let (text, is_cut) = read(&mut client);
    let context = format!("{}: {text}", fault.name);
    match fault.got {
        Got::Whole(status, what) => {
            assert!(!is_cut && text.starts_with(&format!("HTTP/1.1 {status} ")), "{context}");
            assert!(
                if status == 200 { text.contains(what) } else { text.contains(&format!("\"{what}\"")) },
                "{context}"
            );
        }
        Got::Cut(body) => {
            assert!(is_cut && text.starts_with("HTTP/1.1 200 ") && text.contains(body), "{context}");
            assert!(!text.ends_with("0\r\n\r\n"), "it looks whole: {context}");
        }
    }
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually(fault.name, || lines(&path).lines().count() == faulty + 1);
    let line: serde_json::Value = serde_json::from_str(lines(&path).lines().last().unwrap()).unwrap();
    assert_eq!(line["why"], fault.why, "{context}: {line}");
    assert_eq!(proxy.status().endpoints[0].in_use, 0, "{context}");
    assert_eq!(status(&get(&mut connect(&proxy))), "200", "{context}: the next request");
    assert_eq!(up.accepted.load(Ordering::SeqCst), fault.connections, "{context}");
}

/// Whether the connection may go on.
fn act(conn: &mut Conn, step: Step) -> bool {
    match step {
        Step::Send(bytes) => conn.send(bytes),
        Step::Trickle(bytes) => {
            for byte in bytes.as_bytes() {
                let _ = conn.stream.write_all(&[*byte]);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Step::Settle => std::thread::sleep(PATIENCE / 4),
        Step::Reset => {
            let _ = SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
            return false;
        }
        Step::Close => return false,
        Step::HalfClose => drop(conn.stream.shutdown(std::net::Shutdown::Write)),
        Step::Hang => {
            conn.is_closed();
            return false;
        }
        Step::Drip => {
            conn.send("HTTP/1.1 200 OK\r\nx: ");
            while conn.stream.write_all(b"x").is_ok() {
                std::thread::sleep(PATIENCE / 20);
            }
            return false;
        }
    }
    true
}

/// Reads one answer by its framing. Whether the connection ended before it did, or by a reset.
fn read(client: &mut TcpStream) -> (String, bool) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_whole = match length {
                Some(length) => body.len() >= length.parse().unwrap(),
                None => body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                return (text, false);
            }
        }
        match client.read(&mut buffer) {
            Ok(0) => return (text, true),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (text, true),
            Err(error) => panic!("{error}: {text}"),
        }
    }
}

/// What an upstream under TLS does.
#[derive(Debug, Clone, Copy)]
enum Secret {
    Send(&'static str),
    /// Says that the end of the connection is the end of what it has to say.
    Farewell,
    /// Ends the connection without that, as anybody on the way could.
    Close,
    /// Sends bytes that are no record of this session.
    Garbage,
    /// A fatal alert in the clear.
    Alert,
}

#[test]
fn faults_under_tls_do_not_pass_for_answers() {
    use Secret::*;
    type Case = (&'static str, &'static [Secret], Got);
    const CASES: [Case; 9] = [
        ("no fault", &[Send(OK), Farewell, Close], Got::Whole(200, "ok")),
        ("an end in order", &[Send(OF_NONE), Farewell, Close], Got::Whole(200, "abc")),
        ("an end that anybody may have made", &[Send(OF_NONE), Close], Got::Cut("abc")),
        ("an end within the length", &[Send(OF_LENGTH), Farewell, Close], Got::Cut("abc")),
        ("an alert in the body", &[Send(OF_LENGTH), Alert], Got::Cut("abc")),
        ("garbage in the body", &[Send(OF_LENGTH), Garbage], Got::Cut("abc")),
        ("an end before the head", &[Farewell, Close], Got::Whole(502, "upstream_closed")),
        ("an alert before the head", &[Alert], Got::Whole(502, "upstream_closed")),
        ("garbage before the head", &[Garbage], Got::Whole(502, "upstream_closed")),
    ];
    for (name, steps, got) in CASES {
        let files = Files::new();
        let up = upstream(serving(files.server(&["127.0.0.1"], None), move |stream| {
            for step in steps {
                match step {
                    Send(bytes) => stream.write_all(bytes.as_bytes()).unwrap(),
                    Farewell => {
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                    Close => return,
                    Garbage => {
                        drop(stream.sock.write_all(b"\x17\x03\x03\x00\x20 this is no record of ours at all"))
                    }
                    Alert => drop(stream.sock.write_all(b"\x15\x03\x03\x00\x02\x02\x28")),
                }
                std::thread::sleep(PATIENCE / 4);
            }
        }));
        let proxy = start(&to_secure(&up, trusting(&files)));
        let mut client = connect(&proxy);
        client.write_all(GET.as_bytes()).unwrap();
        let (text, is_cut) = read(&mut client);
        match got {
            Got::Whole(code, what) => {
                assert!(
                    !is_cut && status(&text) == code.to_string() && text.contains(what),
                    "{name}: {text}"
                );
            }
            Got::Cut(body) => {
                assert!(is_cut && status(&text) == "200" && text.contains(body), "{name}: {text}");
                assert!(!text.ends_with("0\r\n\r\n"), "it looks whole: {name}: {text}");
            }
        }
    }
}

#[test]
fn a_certificate_has_its_time() {
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    for (name, from, to, why) in
        [("expired", 2001, 2002, "it has expired"), ("not yet valid", 3001, 3002, "it is not valid yet")]
    {
        let files = Files::new();
        let time = Some((year(from), year(to)));
        let up = upstream(serving(files.server(&["127.0.0.1"], time), |stream| {
            let _ = stream.write_all(OK.as_bytes());
        }));
        let proxy = start(&to_secure(&up, trusting(&files)));
        let answer = get(&mut connect(&proxy));
        assert!(status(&answer) == "502" && answer.contains("upstream_tls"), "{name}: {answer}");
        let error = proxy.status().endpoints[0].last_error.clone().unwrap_or_default();
        assert!(error.contains(why), "{name}: {error}");
        assert!(!answer.contains(why), "{name}: strangers are not told: {answer}");
    }
}

/// Shakes hands, reads a head and goes on as `then` says.
fn serving(
    config: Arc<ServerConfig>,
    then: impl Fn(&mut StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> impl Fn(Conn) + Send + Sync + 'static {
    move |conn| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(session, conn.stream);
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
            }
        }
        then(&mut stream);
    }
}
