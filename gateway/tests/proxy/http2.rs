//! HTTP/2 with clients: streams beside each other, each with limits of its own, and floods that are cut off.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

use gateway::proxy::Proxy;

use crate::harness::*;

type Body = BoxBody<Bytes, std::io::Error>;

/// A client with one connection.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    sender: SendRequest<Body>,
}

#[derive(Clone)]
pub(crate) struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

impl Client {
    pub(crate) fn new(proxy: &Proxy) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stream = connect(proxy);
        stream.set_nonblocking(true).unwrap();
        let sender = runtime.block_on(async {
            let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
            let (sender, connection) = http2::handshake(Spawn, io).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a request, and waits for the head of its response in another task.
    pub(crate) fn send(
        &self,
        request: Request<Body>,
    ) -> mpsc::Receiver<Result<Response<Incoming>, hyper::Error>> {
        let (done, answer) = mpsc::channel();
        let mut sender = self.sender.clone();
        self.runtime.spawn(async move {
            let _ = done.send(sender.send_request(request).await);
        });
        answer
    }

    pub(crate) fn answer(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self.send(request).recv_timeout(LONG).unwrap().unwrap();
        self.read(response)
    }

    pub(crate) fn read(&self, response: Response<Incoming>) -> (StatusCode, HeaderMap, String) {
        let (head, body) = response.into_parts();
        let body = self.runtime.block_on(body.collect()).unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://a.test{path}")).body(empty()).unwrap()
}

#[test]
fn a_stream_becomes_a_request() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    let request = Request::get("http://A.test:8080/a/../b?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-forwarded-for", "192.0.2.1")
        .body(empty())
        .unwrap();
    let (status, headers, head) = client.answer(request);
    assert_eq!(status, StatusCode::OK);
    assert!(head.starts_with("GET /b?q=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: A.test:8080",
        "cookie: a=1; b=2",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: A.test:8080",
        "x-forwarded-proto: http",
    ] {
        assert_eq!(head.lines().filter(|l| *l == line).count(), 1, "{line} is not once in\n{head}");
    }
    assert!(!headers.contains_key("connection"), "{headers:?}");
    assert!(headers.contains_key("date"), "{headers:?}");
}

#[test]
fn streams_wait_beside_each_other() {
    let count = 50;
    let all = Arc::new(Barrier::new(count));
    let up = upstream(move |mut conn| {
        while conn.head().is_some() {
            all.wait();
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    let answers: Vec<_> = (0..count).map(|index| client.send(get(&format!("/{index}")))).collect();
    for answer in answers {
        let (status, _, body) = client.read(answer.recv_timeout(LONG).unwrap().unwrap());
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
    }
    assert_eq!(proxy.status().listeners[0].connections, 1);
}

#[test]
fn bodies_arrive_whole_both_ways() {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body = conn.body(length.unwrap().parse().unwrap());
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            let _ = conn.stream.write_all(&body);
        }
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    // More than any window.
    let sent: String = (0..600_000).map(|index| format!("{index:07}")).collect();
    let answers: Vec<_> = (0..3)
        .map(|_| client.send(Request::post("http://a.test/").body(full(sent.clone())).unwrap()))
        .collect();
    for answer in answers {
        let (status, _, body) = client.read(answer.recv_timeout(LONG).unwrap().unwrap());
        assert_eq!(status, StatusCode::OK);
        assert!(body == sent, "{} bytes came back of {}", body.len(), sent.len());
    }
}

#[test]
fn one_stream_times_out_and_the_others_go_on() {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            if !head.starts_with("GET /silent") {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
        }
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let client = Client::new(&proxy);
    let silent = client.send(get("/silent"));
    assert_eq!(client.answer(get("/")).0, StatusCode::OK);
    let (status, headers, body) = client.read(silent.recv_timeout(LONG).unwrap().unwrap());
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert!(body.contains("upstream_timeout"), "{body}");
    assert_eq!(client.answer(get("/")).0, StatusCode::OK);
}

#[test]
fn a_body_that_breaks_off_is_no_end() {
    let up = upstream(|mut conn| match conn.head() {
        Some(head) if head.starts_with("GET /half") => {
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        }
        Some(_) => conn.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfull"),
        None => {}
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    // Where the reset comes together with the head, the client sees nothing else.
    if let Ok(response) = client.send(get("/half")).recv_timeout(LONG).unwrap() {
        let body = client.runtime.block_on(response.into_body().collect());
        assert!(body.is_err(), "{body:?}");
    }
    // Only that stream.
    assert_eq!(client.send(get("/")).recv_timeout(LONG).unwrap().unwrap().status(), StatusCode::OK);
}

#[test]
fn who_resets_a_stream_cancels_its_request() {
    let (closed, is_closed) = mpsc::channel();
    let up = upstream(move |mut conn| {
        if conn.head().is_some() {
            let _ = closed.send(conn.is_closed());
        }
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    let mut sender = client.sender.clone();
    client.runtime.block_on(async {
        let answer = sender.send_request(get("/"));
        assert!(tokio::time::timeout(Duration::from_millis(200), answer).await.is_err());
    });
    assert_eq!(is_closed.recv_timeout(LONG), Ok(true));
}

#[test]
fn a_stalled_reader_is_cut_off_and_a_slow_one_is_not() {
    let up = upstream(|mut conn| {
        while conn.head().is_some() {
            let body = vec![b'x'; 8 * 1024 * 1024];
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            let _ = conn.stream.write_all(&body);
        }
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].idle_timeout = Duration::from_millis(400);
    let proxy = start(&model);
    let client = Client::new(&proxy);
    let slow = client.send(get("/")).recv_timeout(LONG).unwrap().unwrap();
    let stalled = client.send(get("/")).recv_timeout(LONG).unwrap().unwrap();
    let length = client.runtime.block_on(async {
        let (mut body, mut length) = (slow.into_body(), 0);
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        length
    });
    assert_eq!(length, 8 * 1024 * 1024);
    let body = client.runtime.block_on(stalled.into_body().collect());
    assert!(body.is_err(), "the stalled body came to an end");
}

/// A body that does not say how long it is.
pub(crate) struct Frames(pub(crate) std::vec::IntoIter<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

#[test]
fn trailers_travel_with_their_bodies() {
    let (sent, body) = mpsc::channel();
    let up = upstream(move |mut conn| {
        while conn.head().is_some() {
            // Up to the empty line behind the trailers.
            let _ = sent.send(conn.head().unwrap_or_default());
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n");
            conn.send("2\r\nok\r\n0\r\nx-end: 7\r\n\r\n");
        }
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "6".parse().unwrap());
    trailers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
    let frames = vec![Frame::data(Bytes::from("abc")), Frame::trailers(trailers)];
    let request = Request::post("http://a.test/").header("trailer", "x-sum, x-forwarded-for");
    let answer = client.send(request.body(Frames(frames.into_iter()).boxed()).unwrap());
    assert_eq!(body.recv_timeout(LONG).unwrap(), "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
    let response = answer.recv_timeout(LONG).unwrap().unwrap();
    let collected = client.runtime.block_on(response.into_body().collect()).unwrap();
    assert_eq!(collected.trailers().unwrap()["x-end"], "7");
}

#[test]
fn a_drain_finishes_what_is_open() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let up = upstream(move |mut conn| {
        if conn.head().is_some() {
            let _ = gone.lock().unwrap().recv_timeout(LONG);
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = start(&model(&[up.address]));
    let client = Client::new(&proxy);
    let open = client.send(get("/"));
    eventually("the request does not arrive", || up.accepted.load(std::sync::atomic::Ordering::SeqCst) == 1);
    let drained = proxy.drain(LONG);
    let drain = std::thread::spawn(move || Runtime::new().unwrap().block_on(drained));
    std::thread::sleep(Duration::from_millis(200));
    go.send(()).unwrap();
    let (status, _, body) = client.read(open.recv_timeout(LONG).unwrap().unwrap());
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
    assert_eq!(drain.join().unwrap().cut, 0);
    assert!(client.send(get("/")).recv_timeout(LONG).unwrap().is_err());
}

#[test]
fn what_is_refused_ends_its_stream_alone() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].max_header_count = 5;
    let proxy = start(&model);
    let client = Client::new(&proxy);
    let post = |path: &str| Request::post(format!("http://a.test{path}"));
    let mut many = post("/");
    for index in 0..6 {
        many = many.header(format!("x-{index}"), "1");
    }
    for (name, request, expected) in [
        ("an ambiguous path", get("/a%2fb"), 400),
        ("two hosts", post("/").header("host", "b.test").body(full("body")).unwrap(), 400),
        ("an expectation", post("/").header("expect", "more").body(full("body")).unwrap(), 417),
        ("too many fields", many.body(empty()).unwrap(), 431),
        ("a tunnel", Request::connect("a.test:443").body(empty()).unwrap(), 501),
        ("none of them", get("/"), 200),
    ] {
        assert_eq!(client.answer(request).0.as_u16(), expected, "{name}");
    }
    assert_eq!(proxy.status().listeners[0].connections, 1);
}

/// Whoever gives an upload up says so by a reset, and no server may take what it has of it for all.
#[test]
fn an_upload_that_is_given_up_is_no_whole_one() {
    let (read, all) = mpsc::channel();
    let up = upstream(move |mut conn| {
        if conn.head().is_some() {
            let _ = read.send(conn.body(usize::MAX));
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = crate::streams::Client::new(&proxy);
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (answer, mut body) = client.sender.send_request(request, false).unwrap();
        client.run(async {
            body.send_data(Bytes::from("abc"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_reset(reason);
            assert!(answer.await.is_err());
        });
        assert_eq!(all.recv_timeout(LONG).unwrap(), b"3\r\nabc\r\n", "{reason:?}");
    }
}

#[test]
fn an_answer_to_head_has_no_body() {
    let proxy = start(&model(&["127.0.0.1:1".parse().unwrap()]));
    let mut client = crate::streams::Client::new(&proxy);
    let request = Request::head("http://a.test/").body(()).unwrap();
    let (answer, _) = client.sender.send_request(request, true).unwrap();
    let (head, body) = client.run(answer).unwrap().into_parts();
    assert_eq!(head.status, StatusCode::BAD_GATEWAY);
    assert!(body.is_end_stream() && head.headers["content-length"] != "0", "{head:?}");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A header frame of `GET /` with this stream's number, END_STREAM and END_HEADERS, and a reset of it.
fn reset(stream: u32) -> Vec<u8> {
    // :method GET, :scheme http and :path / of the static table, and :authority as a literal.
    let block = b"\x82\x86\x84\x41\x06a.test";
    let mut frames = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5];
    frames.extend(stream.to_be_bytes());
    frames.extend(block);
    frames.extend([0, 0, 4, 3, 0]);
    frames.extend(stream.to_be_bytes());
    frames.extend(8u32.to_be_bytes());
    frames
}

fn is_cut(proxy: &Proxy, frames: &[u8]) -> bool {
    let mut stream = connect(proxy);
    let _ = stream.write_all(PREFACE);
    let mut reader = stream.try_clone().unwrap();
    let read = std::thread::spawn(move || ended(&mut reader));
    let _ = stream.write_all(frames);
    read.join().unwrap()
}

/// Reads until the gateway closes; `false` if it does not.
fn ended(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn floods_are_cut_off() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let ping: &[u8] = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let resets = |count: u32| (0..count).flat_map(|index| reset(2 * index + 1)).collect::<Vec<u8>>();
    // Streams that go on for ever in continuations, none of which is the last.
    let endless =
        [&b"\0\0\x01\x01\0\0\0\0\x01\x82"[..], &b"\0\0\x01\x09\0\0\0\0\x01\x86".repeat(5000)].concat();
    for (name, frames, expected) in [
        ("some pings", ping.repeat(100), false),
        ("a flood of pings", ping.repeat(100_000), true),
        ("a flood of settings", settings.repeat(100_000), true),
        ("some resets", resets(20), false),
        ("a flood of resets", resets(10_000), true),
        ("continuations without end", endless, true),
    ] {
        assert_eq!(is_cut(&proxy, &frames), expected, "{name}");
    }
    assert_eq!(Client::new(&proxy).answer(get("/")).0, StatusCode::OK);
}

#[test]
fn a_connection_ends_when_nobody_asks() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].idle_timeout = Duration::from_millis(200);
    model.listeners[0].header_timeout = Duration::from_millis(200);
    let proxy = start(&model);
    // Neither after a request nor without one.
    let client = Client::new(&proxy);
    assert_eq!(client.answer(get("/")).0, StatusCode::OK);
    let silent = connect(&proxy);
    (&silent).write_all(PREFACE).unwrap();
    eventually("connections stay", || proxy.status().listeners[0].connections == 0);
}

#[test]
fn a_listener_may_speak_http1_alone() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].http2 = false;
    let (answer, closed) = talk(&start(&model), PREFACE);
    assert_eq!((status(&answer), closed), ("505", true), "{answer}");
    assert!(answer.contains("HTTP/2 is not spoken here"), "{answer}");
}

#[test]
fn a_preface_may_come_in_pieces() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    for piece in PREFACE.chunks(5) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).unwrap();
    assert_eq!(settings[3], 4, "the gateway's first frame is SETTINGS");
}
