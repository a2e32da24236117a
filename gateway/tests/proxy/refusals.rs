//! Upstreams over HTTP/2 that refuse a request without a look at it: it is sent once more, whatever it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gateway::model::{self, Protocol};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::harness::{LONG, count, eventually, response, start, status};
use crate::streams;

/// How a connection gets rid of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// By a reset of the stream.
    Reset,
    /// By a good-bye that names no stream as the last one.
    Goodbye,
    /// By a reset that does not say that nothing was done.
    Cancel,
}

/// When it does so: at the head, or after so many bytes of the body.
type After = Option<usize>;

/// A server whose first connections refuse every request. Those that follow answer with what they are sent.
struct Refusing {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _runtime: Runtime,
}

fn refusing(connections: usize, how: How, after: After) -> Refusing {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            if counter.fetch_add(1, Ordering::SeqCst) < connections {
                tokio::spawn(async move { refuse(stream, how, after).await.unwrap_or_default() });
            } else {
                tokio::spawn(echo(stream));
            }
        }
    });
    Refusing { address, accepted, _runtime: runtime }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Speaks HTTP/2 as far as that takes.
async fn refuse(mut stream: TcpStream, how: How, after: After) -> std::io::Result<()> {
    let megabyte = 1_000_000u32.to_be_bytes();
    let window = frame(4, 0, 0, &[&[0, 4][..], &megabyte].concat());
    stream.write_all(&[window, frame(8, 0, 0, &megabyte)].concat()).await?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let mut received = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            4 if head[4] == 0 => stream.write_all(&frame(4, 1, 0, &[])).await?,
            0 => received += payload.len(),
            1 if after.is_none() => {}
            _ => continue,
        }
        if matches!(head[3], 0 | 1) && received >= after.unwrap_or(0) {
            let refusal = match how {
                How::Reset => frame(3, 0, id, &7u32.to_be_bytes()),
                How::Cancel => frame(3, 0, id, &8u32.to_be_bytes()),
                How::Goodbye => frame(7, 0, 0, &[0; 8]),
            };
            stream.write_all(&refusal).await?;
        }
    }
}

async fn echo(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut reply))) = connection.accept().await {
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let (body, _) = streams::read(&mut body).await.unwrap();
            let response = Response::builder().header("content-length", body.len());
            let response = response.header("x-asked", format!("{} {}", head.method, head.uri));
            let mut sent = reply.send_response(response.body(()).unwrap(), false).unwrap();
            sent.send_data(Bytes::from(body), true).unwrap();
        });
    }
}

fn model(address: SocketAddr) -> model::Proxy {
    let mut model = crate::harness::model(&[address]);
    model.upstreams[0].name = "refusing".to_owned();
    model.upstreams[0].protocol = Protocol::Http2;
    model
}

fn request(method: &str, body: usize) -> String {
    format!("{method} /a?b HTTP/1.1\r\nhost: a.test\r\ncontent-length: {body}\r\n\r\n{}", "x".repeat(body))
}

#[test]
fn what_was_certainly_not_processed_is_sent_once_more() {
    let series = "gateway_upstream_retries_total{upstream=\"refusing\",reason=\"refused\"}";
    count(series);
    let mut sent_again = 0;
    let (get, post, long) = (request("GET", 0), request("POST", 3), request("POST", 200_000));
    for (name, sent, connections, how, after, expected, accepted) in [
        ("a stream", &get, 1, How::Reset, None, "200", 2),
        ("a stream with a body", &post, 1, How::Reset, None, "200", 2),
        ("a stream whose body has come", &post, 1, How::Reset, Some(3), "200", 2),
        ("a connection", &get, 1, How::Goodbye, None, "200", 2),
        ("a connection, with a body", &post, 1, How::Goodbye, None, "200", 2),
        ("a connection, and the body has come", &post, 1, How::Goodbye, Some(3), "200", 2),
        ("twice", &get, 2, How::Reset, None, "502", 2),
        ("twice, by connections", &post, 2, How::Goodbye, None, "502", 2),
        ("a body that is longer than what is kept", &long, 1, How::Reset, Some(100_000), "502", 1),
        ("perhaps processed", &get, 1, How::Cancel, None, "502", 1),
    ] {
        let server = refusing(connections, how, after);
        let proxy = start(&model(server.address));
        let mut client = crate::harness::connect(&proxy);
        std::io::Write::write_all(&mut client, sent.as_bytes()).unwrap();
        let answer = response(&mut client);
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        if expected == "200" {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let asked = format!("x-asked: {} http://a.test/a?b", sent.split(' ').next().unwrap());
            assert!(head.contains(&asked), "{name}: {head}");
            assert_eq!(body, sent.split_once("\r\n\r\n").unwrap().1, "{name}");
        }
        assert_eq!(server.accepted.load(Ordering::SeqCst), accepted, "{name}");
        drop(proxy);
        sent_again += u64::from(accepted == 2);
    }
    eventually("what was sent again is counted", || count(series) == sent_again);
}

/// The first half of the body goes twice, the other half has not come when the request is refused.
#[test]
fn a_body_goes_on_where_it_was() {
    let server = refusing(1, How::Reset, Some(1));
    let proxy = start(&model(server.address));
    let mut client = streams::Client::new(&proxy);
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut body) = client.sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from("first, "), false).unwrap();
    eventually("nothing is sent again", || server.accepted.load(Ordering::SeqCst) == 2);
    body.send_data(Bytes::from("second"), true).unwrap();
    let (head, read) = client.run(async {
        let (head, mut read) = answer.await.unwrap().into_parts();
        (head, streams::read(&mut read).await.unwrap().0)
    });
    assert_eq!((head.status.as_u16(), read.as_slice()), (200, &b"first, second"[..]));
}

/// A connection that refuses one request is there for the next one, and one that has a bound makes room.
#[test]
fn the_only_connection_is_replaced() {
    let server = refusing(1, How::Reset, None);
    let mut model = model(server.address);
    model.upstreams[0].limits.max_connections = Some(1);
    model.upstreams[0].connect_timeout = LONG;
    let proxy = start(&model);
    let mut client = crate::harness::connect(&proxy);
    for _ in 0..3 {
        assert_eq!(status(&crate::harness::get(&mut client)), "200");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 2);
}
