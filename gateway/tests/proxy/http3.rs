//! HTTP/3 with clients: h3's own client where it says what is meant, and frames written by hand where it would not.

use std::collections::HashSet;
use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use gateway::model;
use gateway::proxy::Proxy;
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use tokio::runtime::Runtime;

use crate::harness::*;
use crate::tls::{self, Files, Shown, client_config, secure};

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;
type Answer = (StatusCode, HeaderMap, String, Option<HeaderMap>);

/// A proxy, and what its certificates are.
struct Site {
    files: Files,
    model: model::Proxy,
}

impl Site {
    fn new(up: &Upstream) -> Self {
        let files = Files::new();
        let mut model = secure(up, tls::tls(vec![files.certificate("a", &["a.test"])]));
        model.listeners[0].http3 = true;
        Self { files, model }
    }

    fn start(&self) -> Proxy {
        start(&self.model)
    }
}

/// A client with one connection.
struct Client {
    runtime: Runtime,
    _endpoint: Endpoint,
    connection: Connection,
    requests: Option<SendRequest<h3_quinn::OpenStreams, Bytes>>,
}

impl Client {
    fn new(proxy: &Proxy) -> Self {
        Self::showing(proxy, None).unwrap()
    }

    /// Shows a certificate.
    fn showing(
        proxy: &Proxy,
        identity: Option<(rcgen::Certificate, rcgen::KeyPair)>,
    ) -> Result<Self, ConnectionError> {
        let mut client = Self::raw(proxy, identity)?;
        let connection = h3_quinn::Connection::new(client.connection.clone());
        client.requests = Some(client.runtime.block_on(async {
            let (mut driver, requests) = h3::client::new(connection).await.unwrap();
            tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
            requests
        }));
        Ok(client)
    }

    /// Nobody speaks HTTP/3 for it.
    fn raw(
        proxy: &Proxy,
        identity: Option<(rcgen::Certificate, rcgen::KeyPair)>,
    ) -> Result<Self, ConnectionError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (endpoint, connection) = runtime.block_on(async {
            let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = proxy.status().listeners[0].address;
            let connection = endpoint.connect_with(client(identity), address, "a.test").unwrap().await;
            (endpoint, connection)
        });
        Ok(Self { runtime, _endpoint: endpoint, connection: connection?, requests: None })
    }

    /// Begins a request.
    fn begin(&self, request: Request<()>) -> Stream {
        let mut requests = self.requests.clone().unwrap();
        self.runtime.block_on(requests.send_request(request)).unwrap()
    }

    fn answer(&self, request: Request<()>) -> Answer {
        let mut stream = self.begin(request);
        self.runtime.block_on(async {
            stream.finish().await.unwrap();
            read(&mut stream).await.unwrap()
        })
    }

    /// Sends these bytes as a request's stream, and returns what came back, or with which code it was reset.
    fn write(&self, bytes: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            receive.read_to_end(1 << 20).await
        })
    }

    /// With which code the gateway closes the connection.
    fn closed(&self) -> Option<u64> {
        let closed = async { tokio::time::timeout(LONG, self.connection.closed()).await.unwrap() };
        match self.runtime.block_on(closed) {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        }
    }
}

fn client(identity: Option<(rcgen::Certificate, rcgen::KeyPair)>) -> quinn::ClientConfig {
    let mut tls = client_config(&Arc::<Shown>::default(), identity);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(LONG.try_into().unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

async fn read(stream: &mut Stream) -> Result<Answer, StreamError> {
    let head = tokio::time::timeout(LONG, stream.recv_response()).await.unwrap()?;
    rest(stream, head).await
}

async fn rest(stream: &mut Stream, head: Response<()>) -> Result<Answer, StreamError> {
    let mut body = Vec::new();
    while let Some(mut data) = tokio::time::timeout(LONG, stream.recv_data()).await.unwrap()? {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    let trailers = stream.recv_trailers().await?;
    let (head, ()) = head.into_parts();
    Ok((head.status, head.headers, String::from_utf8(body).unwrap(), trailers))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://a.test{path}")).body(()).unwrap()
}

fn reset_code<T: std::fmt::Debug>(result: Result<T, StreamError>) -> Code {
    match result {
        Err(StreamError::RemoteTerminate { code, .. }) => code,
        other => panic!("it was not reset: {other:?}"),
    }
}

/// The head of a request by hand: GET or POST https://a.test/, with these fields.
fn head(method: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    // No dynamic table; :method, :scheme and :path of the static one, and :authority with a value.
    let mut block = vec![0, 0, 0xc0 | method, 0xd7, 0xc1, 0x50, 6];
    block.extend_from_slice(b"a.test");
    for (name, value) in fields {
        // Literals with names of less than 7 bytes, or a second byte for the rest.
        match name.len() {
            short @ ..7 => block.push(0x20 | short as u8),
            long => block.extend_from_slice(&[0x27, (long - 7) as u8]),
        }
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![1, 0x40, block.len() as u8];
    frame.extend_from_slice(&block);
    frame
}

/// Indexes of the static table.
const GET: u8 = 17;
const POST: u8 = 20;

#[test]
fn a_stream_becomes_a_request() {
    let up = echo();
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut request = get("/a/../b?q=1");
    for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("x-forwarded-for", "192.0.2.1")] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let (status, headers, head, _) = client.answer(request);
    assert_eq!(status, StatusCode::OK);
    assert!(head.starts_with("GET /b?q=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: a.test",
        "cookie: a=1; b=2",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: a.test",
        "x-forwarded-proto: https",
    ] {
        assert_eq!(head.lines().filter(|l| *l == line).count(), 1, "{line} is not once in\n{head}");
    }
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(headers.contains_key("date") && !headers.contains_key("connection"), "{headers:?}");
    assert!(!headers.contains_key("alt-svc"), "who speaks it need not be told: {headers:?}");
    // The gateway's own words.
    let (status, headers, body, _) = client.answer(get("/a%2fb"));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(headers["content-length"], body.len().to_string());
    let (status, _, body, _) = client.answer(Request::head("https://a.test/a%2fb").body(()).unwrap());
    assert_eq!((status, body.as_str()), (StatusCode::BAD_REQUEST, ""));
}

#[test]
fn the_end_of_a_request_may_come_after_its_head() {
    let up = echo();
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    for (method, is_chunked) in [("GET", false), ("DELETE", false), ("POST", true)] {
        let request = Request::builder().method(method).uri("https://a.test/").body(()).unwrap();
        let mut stream = client.begin(request);
        let (_, _, head, _) = client.runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The upstream may have answered the one with a body before its end.
            let _ = stream.finish().await;
            read(&mut stream).await.unwrap()
        });
        assert_eq!(head.contains("transfer-encoding: chunked"), is_chunked, "{method}\n{head}");
    }
}

#[test]
fn who_does_not_speak_it_is_told_where_it_is_spoken() {
    let up = upstream(|mut conn| {
        while conn.head().is_some() {
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nalt-svc: h3=\":1\"\r\n\r\n");
        }
    });
    let mut site = Site::new(&up);
    let proxy = site.start();
    let config = Arc::new(client_config(&Arc::default(), None));
    let said = |proxy: &Proxy, path: &str| {
        let mut client = tls::greet(proxy, &config, "a.test");
        let answer = tls::ask(&mut client, path).unwrap();
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("alt-svc: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let here = format!("h3=\":{}\"; ma=86400", proxy.status().listeners[0].address.port());
    assert_eq!(said(&proxy, ""), [here.as_str()]);
    assert_eq!(said(&proxy, "host: b.test\r\n"), [here.as_str()], "refusals say it, too");
    // Until it is not spoken any more.
    let client = Client::new(&proxy);
    assert_eq!(client.answer(get("/")).0, StatusCode::OK);
    site.model.listeners[0].http3 = false;
    proxy.reload(&site.model).unwrap();
    assert_eq!(said(&proxy, ""), ["h3=\":1\""]);
    assert_eq!(client.closed(), Some(Code::H3_NO_ERROR.value()));
    site.model.listeners[0].http3 = true;
    eventually("the port is not taken again", || proxy.reload(&site.model).is_ok());
    assert_eq!(Client::new(&proxy).answer(get("/")).0, StatusCode::OK);
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
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut streams: Vec<_> = (0..count).map(|index| client.begin(get(&format!("/{index}")))).collect();
    client.runtime.block_on(async {
        for stream in &mut streams {
            stream.finish().await.unwrap();
        }
        for stream in &mut streams {
            let (status, _, body, _) = read(stream).await.unwrap();
            assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
        }
    });
    assert_eq!(proxy.status().listeners[0].connections, 1);
}

#[test]
fn more_streams_than_there_may_be_at_a_time_take_turns() {
    let up = echo();
    let mut site = Site::new(&up);
    site.model.listeners[0].max_concurrent_streams = 4;
    let proxy = site.start();
    let client = Client::new(&proxy);
    let answers: Vec<_> = (0..300).map(|index| client.answer(get(&format!("/{index}"))).0).collect();
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
}

#[test]
fn interim_responses_come_before_the_response_is_there() {
    let (up, go) = crate::interim::http1_upstream();
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut stream = client.begin(get("/"));
    let next = |stream: &mut Stream| {
        let head = async { tokio::time::timeout(LONG, stream.recv_response()).await.unwrap().unwrap() };
        client.runtime.block_on(head)
    };
    client.runtime.block_on(stream.finish()).unwrap();
    let hints = next(&mut stream);
    assert_eq!(
        (hints.status().as_u16(), &hints.headers()["link"]),
        (103, &"</a.css>; rel=preload".parse().unwrap())
    );
    assert_eq!(hints.headers().len(), 1, "no field of a connection: {hints:?}");
    assert_eq!(next(&mut stream).status(), 102);
    go();
    let (status, _, body, _) = client.runtime.block_on(read(&mut stream)).unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
}

#[test]
fn bodies_and_trailers_arrive_whole_both_ways() {
    let length = 3_000_000;
    let up = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
            let body = conn.body(length);
            assert!(body.iter().all(|byte| *byte == b'u') && body.len() == length);
            conn.send("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n");
            for _ in 0..30 {
                conn.send(&format!("{:x}\r\n{}\r\n", 100_000, "d".repeat(100_000)));
            }
            conn.send("0\r\nx-sum: 7\r\n\r\n");
        }
    });
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let request = Request::post("https://a.test/").header("content-length", length).header("te", "trailers");
    let mut stream = client.begin(request.body(()).unwrap());
    let (status, _, body, trailers) = client.runtime.block_on(async {
        for _ in 0..30 {
            stream.send_data(Bytes::from(vec![b'u'; length / 30])).await.unwrap();
        }
        stream.finish().await.unwrap();
        read(&mut stream).await.unwrap()
    });
    assert_eq!((status, body.len()), (StatusCode::OK, length));
    assert_eq!(trailers.unwrap()["x-sum"], "7");
}

#[test]
fn trailers_of_a_request_reach_the_upstream() {
    let (sender, bodies) = mpsc::channel();
    let up = upstream(move |mut conn| {
        let head = conn.head().unwrap();
        let body = String::from_utf8(conn.body("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n".len())).unwrap();
        let _ = sender.send((head, body));
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let request = Request::post("https://a.test/").header("trailer", "x-sum").body(()).unwrap();
    let mut stream = client.begin(request);
    client.runtime.block_on(async {
        stream.send_data(Bytes::from_static(b"hi")).await.unwrap();
        let trailers = [("x-sum", "7"), ("x-forwarded-for", "192.0.2.1")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        stream.send_trailers(trailers.into_iter().collect()).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap().0, StatusCode::OK);
    });
    let (head, body) = bodies.recv_timeout(LONG).unwrap();
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[test]
fn a_client_that_stops_waiting_ends_the_request_upstream() {
    let (sender, ended) = mpsc::channel();
    let up = upstream(move |mut conn| {
        conn.head();
        let _ = sender.send(false);
        let _ = sender.send(conn.is_closed());
    });
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut stream = client.begin(get("/"));
    client.runtime.block_on(stream.finish()).unwrap();
    assert!(!ended.recv_timeout(LONG).unwrap());
    stream.stop_sending(Code::H3_REQUEST_CANCELLED);
    assert!(ended.recv_timeout(LONG).unwrap());
    // The connection goes on.
    drop(client.begin(get("/")));
}

#[test]
fn an_answer_that_breaks_off_is_no_complete_one() {
    for (name, answer) in [
        ("with a length", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"),
        ("in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ] {
        let up = upstream(move |mut conn| {
            conn.head();
            conn.send(answer);
        });
        let proxy = Site::new(&up).start();
        let client = Client::new(&proxy);
        let mut stream = client.begin(get("/"));
        let read = client.runtime.block_on(async {
            stream.finish().await.unwrap();
            read(&mut stream).await
        });
        assert_eq!(reset_code(read), Code::H3_INTERNAL_ERROR, "{name}");
        drop(proxy);
    }
}

#[test]
fn an_answer_may_come_before_the_end_of_the_request() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
        std::thread::sleep(Duration::from_millis(100));
    });
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut stream = client.begin(Request::post("https://a.test/").body(()).unwrap());
    let (status, _, body, _) = client.runtime.block_on(async {
        stream.send_data(Bytes::from_static(b"begin")).await.unwrap();
        read(&mut stream).await.unwrap()
    });
    assert_eq!((status, body.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "no"));
}

#[test]
fn heads_have_limits() {
    let up = echo();
    let mut site = Site::new(&up);
    site.model.listeners[0].max_header_bytes = 4096;
    site.model.listeners[0].max_header_count = 10;
    let proxy = site.start();
    let client = Client::new(&proxy);
    let mut long = get("/");
    long.headers_mut().insert("x", HeaderValue::from_str(&"x".repeat(4000)).unwrap());
    // A client that has the settings knows, and sends none.
    assert_eq!(client.answer(get("/")).0, StatusCode::OK);
    assert!(client.runtime.block_on(client.requests.clone().unwrap().send_request(long)).is_err());
    let mut many = get("/");
    for _ in 0..11 {
        many.headers_mut().append("x", HeaderValue::from_static("1"));
    }
    assert_eq!(client.answer(many).0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let client = Client::raw(&proxy, None).unwrap();
    let filler = "x".repeat(60);
    let answer = client.write(&head_of(&vec![("x", filler.as_str()); 60])).unwrap();
    // 431 has no place in the static table, and stands there as Huffman has it.
    assert!(answer.windows(3).any(|bytes| bytes == [0x69, 0x90, 0xff]), "{answer:?}");
    // Far beyond, nothing is gathered: 1 GiB is announced.
    let error = client.write(&[&[1, 0xc0, 0, 0, 0, 0x40, 0, 0, 0][..], &[0; 64]].concat()).unwrap_err();
    let code = VarInt::from_u64(Code::H3_REQUEST_REJECTED.value()).unwrap();
    assert!(
        matches!(error, quinn::ReadToEndError::Read(quinn::ReadError::Reset(c)) if c == code),
        "{error:?}"
    );
    assert_eq!(Client::new(&proxy).answer(get("/")).0, StatusCode::OK);
}

/// A head of many fields by hand.
fn head_of(fields: &[(&str, &str)]) -> Vec<u8> {
    let block = &head(GET, &[])[3..];
    let mut block = block.to_vec();
    for (name, value) in fields {
        block.push(0x20 | name.len() as u8);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    let length = (block.len() as u16 | 0x4000).to_be_bytes();
    [&[1][..], &length, &block].concat()
}

#[test]
fn messages_that_are_malformed_are_reset_or_refused() {
    let (up, heads) = reporting();
    let proxy = Site::new(&up).start();
    let message = Code::H3_MESSAGE_ERROR.value();
    for (name, bytes) in [
        ("a field of HTTP/1.1", head(GET, &[("connection", "close")])),
        ("a coding", head(POST, &[("transfer-encoding", "chunked")])),
        ("an upgrade", head(GET, &[("upgrade", "websocket")])),
        ("a length that is none", head(POST, &[("content-length", "1x")])),
        ("two lengths", head(POST, &[("content-length", "0"), ("content-length", "0")])),
        ("a length, and nothing", head(POST, &[("content-length", "5")])),
        ("upper case", head(GET, &[("X", "1")])),
        ("a space in a name", head(GET, &[("a b", "1")])),
        ("a line break in a value", head(GET, &[("a", "1\r\nb: 2")])),
        ("another host", head(GET, &[("host", "b.test")])),
        ("a pseudo-field that nobody knows", head(GET, &[(":x", "1")])),
    ] {
        let client = Client::raw(&proxy, None).unwrap();
        match client.write(&bytes).unwrap_err() {
            quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) => {
                assert_eq!(code.into_inner(), message, "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(heads.try_recv().is_err(), "none of them reaches the upstream");
}

#[test]
fn frames_out_of_place_end_the_connection_and_nothing_else() {
    let (up, heads) = reporting();
    let proxy = Site::new(&up).start();
    let post = head(POST, &[]);
    for (name, bytes, code) in [
        ("data first", vec![0, 1, 7], Code::H3_FRAME_UNEXPECTED),
        ("settings in a request", vec![4, 0], Code::H3_FRAME_UNEXPECTED),
        ("a frame of HTTP/2", vec![8, 1, 0], Code::H3_FRAME_UNEXPECTED),
        ("a header that is cut", vec![1, 9, 0], Code::H3_FRAME_ERROR),
        ("a dynamic table", vec![1, 3, 2, 0, 0x80], Code::QPACK_DECOMPRESSION_FAILED),
        ("a cut integer", vec![1, 3, 0, 0, 0xff], Code::QPACK_DECOMPRESSION_FAILED),
        ("a third header", [&post[..], &[1, 2, 0, 0], &[1, 2, 0, 0]].concat(), Code::H3_FRAME_UNEXPECTED),
    ] {
        let client = Client::raw(&proxy, None).unwrap();
        let _ = client.write(&bytes);
        assert_eq!(client.closed(), Some(code.value()), "{name}");
    }
    while heads.try_recv().is_ok() {}
    // Frames that nobody knows mean nothing.
    let client = Client::raw(&proxy, None).unwrap();
    let unknown = [&[0x21, 3, 9, 9, 9][..], &head(GET, &[]), &[0x21, 0]].concat();
    assert!(!client.write(&unknown).unwrap().is_empty());
    assert!(heads.recv_timeout(LONG).is_ok());
}

#[test]
fn a_body_that_is_cut_is_not_taken_for_a_whole_one() {
    let (sender, bodies) = mpsc::channel();
    let up = upstream(move |mut conn| {
        conn.head();
        let _ = sender.send(conn.body("5\r\nhello\r\n0\r\n\r\n".len()));
    });
    let proxy = Site::new(&up).start();
    // Ten bytes are announced, five come, and then the end.
    let client = Client::raw(&proxy, None).unwrap();
    let _ = client.write(&[&head(POST, &[])[..], &[0, 10], b"hello"].concat());
    assert_eq!(client.closed(), Some(Code::H3_FRAME_ERROR.value()));
    if let Ok(body) = bodies.recv_timeout(Duration::from_secs(1)) {
        assert!(!body.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&body));
    }
    // Likewise what is shorter or longer than Content-Length says.
    for body in [&[0, 2, b'h', b'i'][..], b"\0\x09too long!"] {
        let client = Client::raw(&proxy, None).unwrap();
        let answer = client.write(&[&head(POST, &[("content-length", "5")])[..], body].concat());
        let whole = bodies.recv_timeout(Duration::from_millis(300)).is_ok_and(|body| body.len() >= 5);
        assert!(!whole, "{answer:?}");
    }
}

#[test]
fn clients_that_dawdle_are_not_waited_for() {
    let up = upstream(|mut conn| {
        conn.head();
        std::thread::sleep(Duration::from_secs(2));
    });
    let mut site = Site::new(&up);
    site.model.listeners[0].header_timeout = Duration::from_millis(300);
    site.model.listeners[0].idle_timeout = Duration::from_millis(600);
    site.model.upstreams[0].response_timeout = Duration::from_millis(300);
    site.model.upstreams[0].idle_timeout = Duration::from_millis(300);
    let proxy = site.start();
    // Half of a head, and no end: the stream alone is reset.
    let client = Client::raw(&proxy, None).unwrap();
    let bytes = head(GET, &[]);
    let reset = client.runtime.block_on(async {
        let (mut send, mut receive) = client.connection.open_bi().await.unwrap();
        send.write_all(&bytes[..8]).await.unwrap();
        tokio::time::timeout(LONG, receive.read_to_end(100)).await.unwrap()
    });
    assert!(matches!(reset, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))), "{reset:?}");
    // An upstream that does not answer, and a body that does not come.
    let client = Client::new(&proxy);
    assert_eq!(client.answer(get("/")).0, StatusCode::GATEWAY_TIMEOUT);
    let mut stream = client.begin(Request::post("https://a.test/").body(()).unwrap());
    let (status, ..) = client.runtime.block_on(read(&mut stream)).unwrap();
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    drop(stream);
    // Nothing asked for any more.
    let begun = Instant::now();
    assert_eq!(client.closed(), Some(Code::H3_NO_ERROR.value()));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    eventually("connections are left", || proxy.status().listeners[0].connections == 0);
}

#[test]
fn a_drain_answers_what_is_under_way_and_takes_nothing_new() {
    let (go, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let (seen, arrived) = mpsc::channel();
    let up = upstream(move |mut conn| {
        conn.head();
        let _ = seen.send(());
        let _ = waits.lock().unwrap().recv_timeout(LONG);
        conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n{}", "d".repeat(300_000)));
    });
    let proxy = Site::new(&up).start();
    let client = Client::new(&proxy);
    let mut stream = client.begin(get("/"));
    client.runtime.block_on(stream.finish()).unwrap();
    arrived.recv_timeout(LONG).unwrap();
    let drain = proxy.drain(LONG);
    let late = Client::raw(&proxy, None);
    assert!(late.is_err(), "no new connection is taken");
    go.send(()).unwrap();
    let (status, _, body, _) = client.runtime.block_on(read(&mut stream)).unwrap();
    assert_eq!((status, body.len()), (StatusCode::OK, 300_000));
    let refused = client.runtime.block_on(client.requests.clone().unwrap().send_request(get("/")));
    assert!(refused.is_err(), "the client was told that it is the end");
    let drained = client.runtime.block_on(drain);
    assert_eq!(drained.cut, 0);
    assert_eq!(client.closed(), Some(Code::H3_NO_ERROR.value()));
}

#[test]
fn clients_certificates_are_verified_and_shown_to_the_upstream() {
    let up = echo();
    let mut site = Site::new(&up);
    let ca = site.files.path("ca.pem");
    site.model.listeners[0].tls.as_mut().unwrap().clients =
        Some(model::ClientAuthority { ca, required: true });
    let proxy = site.start();
    let client = Client::showing(&proxy, Some(tls::signed(&site.files.issuer, &["a client"]))).unwrap();
    let (_, _, head, _) = client.answer(get("/"));
    assert!(head.contains("\r\nclient-cert: :MII"), "{head}");
    // Under TLS 1.3 a client may believe in a handshake that the server refuses.
    match Client::raw(&proxy, None) {
        Ok(nobody) => assert_eq!(nobody.closed(), None, "by TLS, and not by HTTP/3"),
        Err(error) => assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error}"),
    }
}

#[test]
fn certificates_that_are_replaced_are_taken() {
    let up = echo();
    let site = Site::new(&up);
    let proxy = site.start();
    let shown = |proxy: &Proxy| {
        let identity = Client::new(proxy).connection.peer_identity().unwrap();
        let chain = identity.downcast::<Vec<tokio_rustls::rustls::pki_types::CertificateDer<'_>>>().unwrap();
        chain[0].to_vec()
    };
    let first = shown(&proxy);
    assert!(shown(&proxy) == first);
    site.files.certificate("a", &["a.test"]);
    eventually("the new one is not taken", || proxy.renew_certificates() == 1);
    assert!(shown(&proxy) != first);
}

#[test]
fn who_is_denied_gets_no_answer() {
    let up = echo();
    let site = Site::new(&up);
    let proxy = Proxy::start(&site.model, Arc::new(|_| false)).unwrap();
    let client = std::thread::spawn(move || {
        let refused = Client::raw(&proxy, None).err();
        (refused, proxy.status().listeners[0].connections)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!client.is_finished(), "silence, and no refusal");
    let (refused, connections) = client.join().unwrap();
    assert_eq!((refused, connections), (Some(ConnectionError::TimedOut), 0));
}

#[test]
fn who_throws_all_requests_away_is_cut_off() {
    let up = echo();
    let proxy = Site::new(&up).start();
    let client = Client::raw(&proxy, None).unwrap();
    let bytes = head(GET, &[]);
    let cancel = VarInt::from_u64(Code::H3_REQUEST_CANCELLED.value()).unwrap();
    client.runtime.block_on(async {
        for _ in 0..2000 {
            let Ok((mut send, mut receive)) = client.connection.open_bi().await else { return };
            let _ = send.write_all(&bytes).await;
            let _ = send.reset(cancel);
            let _ = receive.stop(cancel);
        }
    });
    assert_eq!(client.closed(), Some(Code::H3_EXCESSIVE_LOAD.value()));
    assert_eq!(Client::new(&proxy).answer(get("/")).0, StatusCode::OK);
}

#[test]
fn under_load_clients_prove_their_address_first() {
    let up = echo();
    let mut site = Site::new(&up);
    site.model.listeners[0].header_timeout = Duration::from_secs(5);
    site.model.listeners[0].max_connections = 65;
    let proxy = site.start();
    let address = proxy.status().listeners[0].address;
    // Handshakes that never end, as of somebody who writes a stranger's address on them: each has a slot, and the last
    // slot is left for who proves its address.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let towards = hole.local_addr().unwrap();
    let (mut begun, mut senders) = (HashSet::new(), Vec::new());
    let _inside = runtime.enter();
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    while begun.len() < 150 {
        let connecting = endpoint.connect_with(client(None), towards, "a.test").unwrap();
        runtime.spawn(connecting);
        let mut datagram = [0; 2000];
        let length = hole.recv(&mut datagram).unwrap();
        // Behind the first byte, the version and a length stands the id that it chose.
        if begun.insert(datagram[6..14].to_vec()) {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(&datagram[..length], address).unwrap();
            senders.push(sender);
        }
    }
    eventually("they did not come", || proxy.status().listeners[0].connections == 64);
    assert_eq!(Client::new(&proxy).answer(get("/")).0, StatusCode::OK);
}
