//! Interim responses: on their way to the client before the final one is, whatever is spoken on either side.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use gateway::model::Protocol;
use http::{Request, Response};
use tokio::sync::Semaphore;

use crate::harness::*;
use crate::streams;

const HINTS: &str =
    "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";

/// Sends hints, and the response when it is told to.
pub(crate) fn http1_upstream() -> (Upstream, Box<dyn Fn()>) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let up = upstream(move |mut conn| {
        while conn.head().is_some() {
            // The first is not passed on.
            conn.send(&format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}HTTP/1.1 102 Processing\r\n\r\n"));
            if gone.lock().unwrap().recv_timeout(LONG).is_err() {
                return;
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    (up, Box::new(move || go.send(()).unwrap()))
}

/// The same over HTTP/2.
fn http2_upstream() -> (streams::Server, Box<dyn Fn()>) {
    let go = Arc::new(Semaphore::new(0));
    let gone = Arc::clone(&go);
    let up = streams::server(move |_, mut reply| {
        let gone = Arc::clone(&gone);
        async move {
            let interim = |status: u16| Response::builder().status(status);
            reply.send_informational(interim(100).body(()).unwrap()).unwrap();
            let hints = interim(103).header("link", "</a.css>; rel=preload").body(()).unwrap();
            reply.send_informational(hints).unwrap();
            reply.send_informational(interim(102).body(()).unwrap()).unwrap();
            gone.acquire().await.unwrap().forget();
            let head = Response::builder().header("content-length", "2").body(()).unwrap();
            let mut body = reply.send_response(head, false).unwrap();
            body.send_data(Bytes::from("ok"), true).unwrap();
        }
    });
    (up, Box::new(move || go.add_permits(1)))
}

fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

fn is_told_over_http1(address: SocketAddr, protocol: Protocol, go: &dyn Fn()) {
    let mut model = model(&[address]);
    model.upstreams[0].protocol = protocol;
    let proxy = start(&model);
    let mut client = connect(&proxy);
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
        assert_eq!(head(&mut client), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert_eq!(head(&mut client), "HTTP/1.1 102 Processing\r\n\r\n");
        go();
        let answer = response(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    // Who speaks HTTP/1.0 knows nothing of them.
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    go();
    let answer = response(&mut client);
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

fn is_told_over_http2(address: SocketAddr, protocol: Protocol, go: &dyn Fn()) {
    let mut model = model(&[address]);
    model.upstreams[0].protocol = protocol;
    let proxy = start(&model);
    let mut client = streams::Client::new(&proxy);
    for _ in 0..2 {
        let request = Request::get("http://a.test/").body(()).unwrap();
        let (mut answer, _) = client.sender.send_request(request, true).unwrap();
        for status in [103, 102] {
            let next = client.run(std::future::poll_fn(|cx| answer.poll_informational(cx)));
            let interim = next.unwrap().unwrap();
            assert_eq!(interim.status(), status);
            assert_eq!(interim.headers().len(), usize::from(status == 103), "{interim:?}");
        }
        go();
        let (head, mut body) = client.run(&mut answer).unwrap().into_parts();
        assert_eq!(
            (head.status.as_u16(), client.run(streams::read(&mut body)).unwrap().0),
            (200, b"ok".to_vec())
        );
    }
}

#[test]
fn hints_come_before_the_response_over_every_version() {
    let (up, go) = http1_upstream();
    is_told_over_http1(up.address, Protocol::Http1, &go);
    is_told_over_http2(up.address, Protocol::Http1, &go);
    let (up, go) = http2_upstream();
    is_told_over_http1(up.address, Protocol::Http2, &go);
    is_told_over_http2(up.address, Protocol::Http2, &go);
}

/// The second request waits behind the first one, whose body is larger than what waits in the gateway.
#[test]
fn hints_stand_in_front_of_their_own_response() {
    const LENGTH: usize = 3_000_000;
    let up = upstream(|mut conn| {
        while conn.head().is_some() {
            conn.send(&format!("{HINTS}HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: {LENGTH}\r\n\r\n"));
            let _ = conn.stream.write_all(&vec![b'x'; LENGTH]);
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n".repeat(3).as_slice()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..3 {
        assert_eq!(head(&mut client), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert!(head(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
        let mut body = vec![0; LENGTH];
        client.read_exact(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'));
    }
}

/// The gateway answers the expectation, once, and when the body is wanted; what the upstream says of it is not passed on.
#[test]
fn an_expectation_is_answered_once() {
    let up = upstream(|mut conn| {
        if conn.head().is_some() {
            conn.send(&format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}"));
            let body = conn.body(3);
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            let _ = conn.stream.write_all(&body);
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    let request = b"POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    client.write_all(request).unwrap();
    assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(head(&mut client).starts_with("HTTP/1.1 103 "));
    client.write_all(b"abc").unwrap();
    let answer = response(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[test]
fn who_does_not_read_hints_does_not_keep_the_upstream() {
    let large = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(16_000));
    let up = upstream(move |mut conn| {
        while conn.head().is_some() {
            conn.send(&large.repeat(16));
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    model.upstreams[0].idle_timeout = Duration::from_millis(300);
    // What is left of the last answer may wait as long as for a request.
    model.listeners[0].idle_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let mut client = connect(&proxy);
    // More answers than sockets hold.
    client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n".repeat(200).as_slice()).unwrap();
    eventually("it is served", || proxy.status().endpoints[0].in_use == 1);
    eventually("the connection stays", || proxy.status().listeners[0].connections == 0);
    assert_eq!(proxy.status().endpoints[0].in_use, 0);
}
