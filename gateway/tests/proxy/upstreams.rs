//! Bodies, broken upstreams and broken clients.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::harness::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn connections_are_reused() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    for _ in 0..20 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
    assert_eq!(up.accepted.load(Ordering::SeqCst), 1);
    let status = proxy.status();
    assert_eq!((status.endpoints[0].idle, status.endpoints[0].in_use), (1, 0));
}

#[test]
fn a_stale_connection_never_becomes_a_502() {
    for (name, pause, serve) in [
        (
            "closed after each response, unannounced",
            Duration::ZERO,
            (|conn: &mut Conn| {
                conn.head();
                conn.send(OK);
            }) as fn(&mut Conn),
        ),
        ("closed while idle", Duration::from_millis(30), |conn| {
            conn.head();
            conn.send(OK);
        }),
        ("closed after the second request's head", Duration::ZERO, |conn| {
            conn.head();
            conn.send(OK);
            conn.head();
        }),
        ("something unasked for", Duration::from_millis(30), |conn| {
            conn.head();
            conn.send(OK);
            conn.send(OK);
            std::thread::sleep(Duration::from_millis(100));
        }),
    ] {
        let up = upstream(move |mut conn| serve(&mut conn));
        let proxy = start(&model(&[up.address]));
        let mut stream = connect(&proxy);
        for turn in 0..30 {
            let answer = get(&mut stream);
            assert_eq!(status(&answer), "200", "{name}, request {turn}: {answer}");
            std::thread::sleep(pause);
        }
    }
}

#[test]
fn a_post_is_not_sent_to_a_connection_known_to_be_closed() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.body(3);
        conn.send(OK);
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    for turn in 0..10 {
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").unwrap();
        assert_eq!(status(&response(&mut stream)), "200", "request {turn}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_bad_upstream_is_answered_for() {
    for (name, reply, expected, code) in [
        ("closes at once", "", "502", "upstream_closed"),
        ("is no HTTP", "hello\r\n\r\n", "502", "upstream_protocol"),
        (
            "has both framings",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "502",
            "upstream_protocol",
        ),
        (
            "has two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
            "502",
            "upstream_protocol",
        ),
        (
            "has an unknown coding",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "502",
            "upstream_protocol",
        ),
        (
            "switches protocols",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "502",
            "upstream_protocol",
        ),
    ] {
        let up = upstream(move |mut conn| {
            conn.head();
            conn.send(reply);
        });
        let proxy = start(&model(&[up.address]));
        let mut stream = connect(&proxy);
        let answer = get(&mut stream);
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        assert!(answer.contains(code), "{name}: {answer}");
    }
    let up = upstream(|mut conn| {
        conn.head();
        conn.send(&format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000)));
    });
    let proxy = start(&model(&[up.address]));
    let answer = get(&mut connect(&proxy));
    assert_eq!(status(&answer), "502", "an oversized head: {answer}");
}

#[test]
fn an_upstream_that_is_down_is_said_to_be_and_another_is_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = start(&model(&[closed]));
    let answer = get(&mut connect(&proxy));
    assert_eq!(status(&answer), "502");
    assert!(answer.contains("upstream_connect"), "{answer}");
    assert!(proxy.status().endpoints[0].last_error.is_some());

    let up = echo();
    let proxy = start(&model(&[closed, up.address]));
    let mut stream = connect(&proxy);
    for _ in 0..10 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
}

#[test]
fn connecting_takes_no_longer_than_its_timeout_however_many_endpoints_there_are() {
    let (hole, _sockets) = black_hole();
    let up = echo();
    for (name, endpoints, expected) in [
        ("one", &[hole][..], "504"),
        ("several", &[hole, hole, hole, hole], "504"),
        ("one of them answers", &[hole, up.address, hole], "200"),
    ] {
        let mut model = model(endpoints);
        model.upstreams[0].connect_timeout = Duration::from_millis(600);
        let proxy = start(&model);
        let begun = Instant::now();
        let answer = get(&mut connect(&proxy));
        let took = begun.elapsed();
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        // Four of them, each for as long, would take 2.4 seconds.
        assert!(took < Duration::from_millis(1800), "{name}: {took:?}");
        if expected == "504" {
            assert!(answer.contains("upstream_connect_timeout"), "{name}: {answer}");
            assert!(took >= Duration::from_millis(590), "{name}: {took:?}");
        }
    }
}

#[test]
fn an_endpoint_may_be_a_name() {
    let up = echo();
    let mut model = model(&[up.address]);
    // It may stand for ::1 as well, where nobody listens: then the next address is tried.
    model.upstreams[0].endpoints[0].at =
        gateway::model::Location::Tcp { host: "localhost".to_owned(), port: up.address.port() };
    let proxy = start(&model);
    let mut streams: Vec<_> = (0..8).map(|_| connect(&proxy)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    }
    for stream in &mut streams {
        assert_eq!(status(&response(stream)), "200");
    }
    let endpoint = &proxy.status().endpoints[0];
    assert_eq!(endpoint.endpoint, format!("localhost:{}", up.address.port()));
    assert_eq!(endpoint.last_error, None);
}

#[test]
fn a_silent_upstream_times_out() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.is_closed();
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let begun = Instant::now();
    let mut stream = connect(&proxy);
    let answer = get(&mut stream);
    assert_eq!(status(&answer), "504");
    assert!(answer.contains("upstream_timeout"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(280) && begun.elapsed() < Duration::from_secs(3));
    assert_eq!(status(&get(&mut stream)), "504", "the connection lives on");
}

#[test]
fn bodies_that_stop_end() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun");
        conn.is_closed();
    });
    let mut stopping = model(&[up.address]);
    stopping.upstreams[0].idle_timeout = Duration::from_millis(200);
    let proxy = start(&stopping);
    let mut stream = connect(&proxy);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (answer, closed) = read_rest(&mut stream, LONG);
    assert!(closed && answer.ends_with("begun"), "a response that stops: {answer}");

    let up = upstream(|mut conn| {
        conn.head();
        conn.body(100);
    });
    let mut stopping = model(&[up.address]);
    stopping.upstreams[0].idle_timeout = Duration::from_millis(200);
    let proxy = start(&stopping);
    let mut stream = connect(&proxy);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegun").unwrap();
    let (answer, closed) = read_rest(&mut stream, LONG);
    assert_eq!((status(&answer), closed), ("408", true), "a request that stops: {answer}");
}

#[test]
fn a_response_that_breaks_off_does_not_look_complete() {
    for (name, begin) in [
        ("with a length", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun"),
        ("in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n"),
    ] {
        let up = upstream(move |mut conn| {
            conn.head();
            conn.send(begin);
            std::thread::sleep(Duration::from_millis(50));
        });
        let proxy = start(&model(&[up.address]));
        let mut stream = connect(&proxy);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut read = Vec::new();
        let end = stream.read_to_end(&mut read);
        assert!(end.is_err(), "{name}: the connection is reset, not ended");
        assert!(!read.ends_with(b"0\r\n\r\n"), "{name}");
    }
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    for (name, request, reply) in [
        ("while waiting", get, ""),
        ("in the response's body", get, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
        ("in the request's body", post, ""),
    ] {
        let (closed, was_closed) = mpsc::channel();
        let up = upstream(move |mut conn| {
            conn.head();
            conn.send(reply);
            closed.send(conn.is_closed()).unwrap();
        });
        let proxy = start(&model(&[up.address]));
        let mut stream = connect(&proxy);
        stream.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(stream);
        assert_eq!(was_closed.recv_timeout(Duration::from_secs(2)), Ok(true), "{name}");
    }
}

#[test]
fn a_body_is_asked_for_when_the_upstream_is_there() {
    let up = upstream(|mut conn| {
        let head = conn.head().unwrap();
        assert!(!head.contains("expect"), "{head}");
        let body = conn.body(3);
        conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
        conn.stream.write_all(&body).unwrap();
    });
    let proxy = start(&model(&[up.address]));
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = connect(&proxy);
    stream.write_all(head).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    assert!(response(&mut stream).ends_with("abc"));

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = start(&model(&[closed]));
    let mut stream = connect(&proxy);
    stream.write_all(head).unwrap();
    let answer = response(&mut stream);
    assert_eq!(status(&answer), "502", "nothing is asked for in vain: {answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[test]
fn an_interim_response_of_the_upstream_is_not_the_answer() {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            if head.starts_with("POST") {
                assert_eq!(conn.body(3), b"abc");
            }
            conn.send(OK);
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    for turn in 0..3 {
        assert_eq!(status(&get(&mut stream)), "200", "not asked for, request {turn}");
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
            .unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n", "once, from the gateway");
        stream.write_all(b"abc").unwrap();
        let answer = response(&mut stream);
        assert!(status(&answer) == "200" && answer.ends_with("ok"), "{answer}");
    }
}

#[test]
fn an_answer_before_the_end_of_an_upload_reaches_the_client() {
    const REPLY: &str = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
    for (name, stays) in [("the upstream stays", 500), ("the upstream closes at once", 0)] {
        let up = upstream(move |mut conn| {
            conn.head();
            conn.send(REPLY);
            std::thread::sleep(Duration::from_millis(stays));
        });
        let proxy = start(&model(&[up.address]));
        for turn in 0..5 {
            let mut stream = connect(&proxy);
            stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n").unwrap();
            let chunk = [b'x'; 10_000];
            for _ in 0..50 {
                stream.write_all(&chunk).expect("the gateway reads or waits, but does not reset");
                std::thread::sleep(Duration::from_millis(1));
            }
            let answer = response(&mut stream);
            assert!(status(&answer) == "413" && answer.ends_with("no"), "{name}, request {turn}: {answer}");
        }
    }
}

#[test]
fn each_side_is_spoken_to_in_its_own_version() {
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let until_close = "HTTP/1.0 200 OK\r\n\r\nok";
    let old = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let new = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for (name, request, reply, begin, end, closed) in [
        ("chunks for HTTP/1.0", old, chunks, "HTTP/1.0 200 OK\r\n", "\r\n\r\nok", true),
        ("chunks for HTTP/1.1", new, chunks, "HTTP/1.1 200 OK\r\n", "2\r\nok\r\n0\r\n\r\n", false),
        ("until close for HTTP/1.0", old, until_close, "HTTP/1.0 200 OK\r\n", "\r\n\r\nok", true),
        ("until close for HTTP/1.1", new, until_close, "HTTP/1.1 200 OK\r\n", "2\r\nok\r\n0\r\n\r\n", false),
    ] {
        let up = upstream(move |mut conn| {
            let head = conn.head().unwrap();
            assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
            conn.send(reply);
        });
        let proxy = start(&model(&[up.address]));
        let (answer, was_closed) = talk(&proxy, request.as_bytes());
        assert!(answer.starts_with(begin) && answer.ends_with(end), "{name}: {answer}");
        assert_eq!(answer.contains("transfer-encoding"), !closed, "{name}: {answer}");
        assert_eq!(was_closed, closed, "{name}: {answer}");
    }
}

#[test]
fn an_upload_waits_for_its_reader() {
    const BYTES: usize = 32 * 1024 * 1024;
    let (go, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let up = upstream(move |mut conn| {
        conn.head();
        wait.lock().unwrap().recv().unwrap();
        let mut left = BYTES;
        while left > 0 {
            left -= conn.body(left.min(1 << 20)).len();
        }
        conn.send(OK);
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    write!(stream, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BYTES}\r\n\r\n").unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sending = std::thread::spawn(move || {
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..BYTES / chunk.len() {
            sender.write_all(&chunk).unwrap();
            count.fetch_add(chunk.len(), Ordering::SeqCst);
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    let before = sent.load(Ordering::SeqCst);
    assert!(before < BYTES / 2, "{before} bytes were taken from the client for an upstream that reads none");
    go.send(()).unwrap();
    sending.join().unwrap();
    assert_eq!(status(&response(&mut stream)), "200");
}

#[test]
fn bodies_stream_both_ways_and_wait_for_their_readers() {
    const BYTES: usize = 32 * 1024 * 1024;
    let (progress, sent) = mpsc::channel();
    let up = upstream(move |mut conn| {
        conn.head();
        conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n"));
        let chunk = vec![b'x'; 64 * 1024];
        conn.stream.set_write_timeout(Some(LONG)).unwrap();
        for _ in 0..BYTES / chunk.len() {
            conn.stream.write_all(&chunk).unwrap();
            let _ = progress.send(chunk.len());
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before: usize = sent.try_iter().sum();
    assert!(before < BYTES / 2, "{before} bytes were taken from the upstream for a client that reads none");
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    while total < BYTES {
        total += stream.read(&mut buffer).unwrap();
    }

    let (progress, received) = mpsc::channel();
    let up = upstream(move |mut conn| {
        let head = conn.head().unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(conn.body(6), b"1\r\na\r\n");
        progress.send(0).unwrap();
        assert_eq!(conn.body(11), b"1\r\nb\r\n0\r\n\r\n");
        conn.send(OK);
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").unwrap();
    received.recv_timeout(LONG).expect("the first chunk does not wait for the second");
    stream.write_all(b"1\r\nb\r\n0\r\n\r\n").unwrap();
    assert_eq!(status(&response(&mut stream)), "200");
}

#[test]
fn trailers_pass() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n2\r\nok\r\n0\r\nsum: 7\r\n\r\n");
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").unwrap();
    let (answer, _) = read_rest(&mut stream, Duration::from_millis(300));
    assert!(answer.ends_with("0\r\nsum: 7\r\n\r\n"), "{answer}");

    let up = upstream(|mut conn| {
        conn.head();
        // The chunks and then the trailers, which end as a head does.
        let trailers = conn.head().unwrap();
        conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{trailers}", trailers.len()));
    });
    let proxy = start(&model(&[up.address]));
    let mut stream = connect(&proxy);
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
              trailer: sum, x-forwarded-for, x_real_ip\r\n\r\n\
              2\r\nok\r\n0\r\nsum: 7\r\nx-forwarded-for: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\n\r\n",
        )
        .unwrap();
    let answer = response(&mut stream);
    assert!(answer.ends_with("2\r\nok\r\n0\r\nsum: 7\r\n\r\n"), "nothing of others: {answer}");
}

#[test]
fn responses_without_a_body_are_right() {
    for (name, request, reply, expected) in [
        (
            "HEAD",
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\ndate: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\ndate: x\r\n\r\n",
        ),
        (
            "204",
            "GET",
            "HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n",
        ),
        (
            "304",
            "GET",
            "HTTP/1.1 304 Not Modified\r\netag: y\r\ndate: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\netag: y\r\ndate: x\r\n\r\n",
        ),
        (
            "after 103",
            "GET",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: x\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "hop-by-hop",
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close, a\r\na: b\r\nkeep-alive: 1\r\ncontent-length: 0\r\ndate: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        let up = upstream(move |mut conn| {
            while conn.head().is_some() {
                conn.send(reply);
            }
        });
        let proxy = start(&model(&[up.address]));
        let mut stream = connect(&proxy);
        let request = format!("{request} / HTTP/1.1\r\nhost: a\r\n\r\n");
        for _ in 0..2 {
            stream.write_all(request.as_bytes()).unwrap();
            let mut read = vec![0; expected.len()];
            stream.read_exact(&mut read).unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn an_upstream_may_be_a_socket_on_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    read.extend_from_slice(&buffer[..length]);
                    if read.ends_with(b"\r\n\r\n") || read.ends_with(b"abc") {
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", read.len());
                        stream.write_all(&[head.as_bytes(), &read].concat()).unwrap();
                        read.clear();
                    }
                }
            });
        }
    });
    let mut model = model(&[]);
    model.upstreams[0].endpoints =
        vec![gateway::model::Endpoint::new(gateway::model::Location::Unix(path.clone()), false)];
    let proxy = start(&model);
    let mut client = connect(&proxy);
    for _ in 0..3 {
        assert_eq!(status(&get(&mut client)), "200");
    }
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").unwrap();
    assert!(response(&mut client).ends_with("abc"));
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "connections are kept");
    // Who speaks HTTP/1.0 names no host, and a path is none.
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = response(&mut client);
    assert!(answer.contains("\r\nhost: localhost\r\n"), "{answer}");
    assert_eq!(proxy.status().endpoints[0].endpoint, format!("unix:{}", path.display()));

    model.upstreams[0].endpoints[0].at = gateway::model::Location::Unix(dir.path().join("nobody.sock"));
    proxy.reload(&model).unwrap();
    assert_eq!(status(&get(&mut connect(&proxy))), "502");
}

#[test]
fn a_socket_whose_backlog_is_full_is_waited_for_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let unix = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let (listener, at) = (unix(), socket2::SockAddr::unix(&path).unwrap());
    listener.bind(&at).unwrap();
    listener.listen(0).unwrap();
    let mut fillers = Vec::new();
    loop {
        let filler = unix();
        filler.set_nonblocking(true).unwrap();
        let Ok(()) = filler.connect(&at) else { break };
        fillers.push(filler);
        assert!(fillers.len() < 64, "the backlog does not get full");
    }
    let mut model = model(&[]);
    model.upstreams[0].endpoints =
        vec![gateway::model::Endpoint::new(gateway::model::Location::Unix(path), false)];
    model.upstreams[0].connect_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let answer = get(&mut connect(&proxy));
    assert!(answer.contains("upstream_connect_timeout"), "nobody accepts: {answer}");
    model.upstreams[0].connect_timeout = LONG;
    proxy.reload(&model).unwrap();
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut read = [0; 1024];
            if matches!(stream.read(&mut read), Ok(1..)) {
                stream.write_all(OK.as_bytes()).unwrap();
            }
        }
    });
    drop(fillers);
    assert_eq!(status(&response(&mut client)), "200");
}
