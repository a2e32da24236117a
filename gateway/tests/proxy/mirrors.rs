//! Copies of requests for other upstreams.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway::model::{self, AccessLog, Action, LogFormat, LogTarget, Mirror, Protocol};
use gateway::proxy::Proxy;
use http::Response;
use http_body_util::{BodyExt as _, Full};

use crate::harness::*;
use crate::http2_upstreams::server;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BYTES: usize = 8 * 1024 * 1024;

fn mirror() -> Mirror {
    Mirror { upstream: 1, share: 1_000_000, timeout: LONG, buffer: 256 * 1024, max_concurrent: 64 }
}

/// A route to `up` whose requests `shadow` gets, too.
fn mirroring(up: SocketAddr, shadow: SocketAddr, mirror: Mirror) -> model::Proxy {
    let mut model = model(&[up]);
    let mut second = model.upstreams[0].clone();
    (second.name, second.endpoints) = ("shadow".to_owned(), vec![model::Endpoint::tcp(shadow)]);
    model.upstreams.push(second);
    let Action::Forward(forward) = &mut model.routes[0].action else { panic!("the route forwards") };
    forward.mirrors = vec![mirror];
    model
}

/// A proxy, and how many copies came to such an end. Other tests count in the same process, so the upstream has a name of
/// its own.
fn counting(mut model: model::Proxy) -> (Proxy, impl Fn(&str) -> u64) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("shadow-{}", NEXT.fetch_add(1, Ordering::SeqCst));
    model.upstreams[1].name.clone_from(&name);
    count("");
    let proxy = start(&model);
    let of = move |result: &str| {
        count(&format!("gateway_mirror_requests_total{{upstream=\"{name}\",result=\"{result}\"}}"))
    };
    (proxy, of)
}

/// An upstream that tells what it got, head and body, and answers with this.
fn telling(answer: &'static str) -> (Upstream, mpsc::Receiver<(String, Vec<u8>)>) {
    let (sender, got) = mpsc::channel();
    let upstream = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body = conn.body(length.map_or(0, |length| length.parse().unwrap()));
            let _ = sender.send((head, body));
            conn.send(answer);
        }
    });
    (upstream, got)
}

#[test]
fn another_upstream_gets_a_copy_and_nobody_its_answer() {
    let (up, got) = telling(OK);
    let (shadow, copied) = telling("HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\nshadow");
    let proxy = start(&mirroring(up.address, shadow.address, mirror()));
    let mut client = connect(&proxy);
    for (name, request, body) in [
        ("no body", "GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nx-forwarded-mirror: forged\r\n\r\n", ""),
        ("a body", "POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello", "hello"),
        ("an empty one", "PUT /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n", ""),
    ] {
        client.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut client);
        assert!(status(&answer) == "200" && answer.ends_with("ok"), "{name}: {answer}");
        let (head, sent) = got.recv_timeout(LONG).unwrap();
        let (copy, copied) = copied.recv_timeout(LONG).expect(name);
        assert_eq!((sent.as_slice(), copied.as_slice()), (body.as_bytes(), body.as_bytes()), "{name}");
        let unmarked = copy.replace("x-forwarded-mirror: all\r\n", "");
        assert!(unmarked.len() < copy.len() && unmarked.len() == head.len(), "{name}: {head}{copy}");
        assert!(
            !head.contains("x-forwarded-mirror") && copy.contains("host: a.test\r\n"),
            "{name}: {head}{copy}"
        );
    }
    let accepted = shadow.accepted.load(Ordering::SeqCst);
    assert!(accepted < 4, "connections are kept: {accepted}");
}

#[test]
fn a_body_in_chunks_is_copied_with_its_trailers() {
    let whole = "2\r\nok\r\n0\r\nsum: 7\r\n\r\n";
    let (sender, got) = mpsc::channel();
    let serve = move |mut conn: Conn| {
        let head = conn.head().unwrap();
        let _ = sender.send((head.contains("mirror"), String::from_utf8(conn.body(whole.len())).unwrap()));
        conn.send(OK);
        conn.is_closed();
    };
    let up = upstream(serve);
    let proxy = start(&mirroring(up.address, up.address, mirror()));
    let mut client = connect(&proxy);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n";
    client.write_all(format!("{head}{whole}").as_bytes()).unwrap();
    assert_eq!(status(&response(&mut client)), "200");
    let mut both = [got.recv_timeout(LONG).unwrap(), got.recv_timeout(LONG).unwrap()];
    both.sort();
    assert_eq!(both, [(false, whole.to_owned()), (true, whole.to_owned())]);
}

#[test]
fn copies_go_over_http2_too() {
    let (sender, got) = mpsc::channel();
    let shadow = server(move |request| {
        let sender = sender.clone();
        async move {
            let marked = request.headers().contains_key("x-forwarded-mirror");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let _ = sender.send((marked, body.to_vec()));
            Response::new(Full::from("x").boxed_unsync())
        }
    });
    let (up, _got) = telling(OK);
    let mut model = mirroring(up.address, shadow.address, mirror());
    model.upstreams[1].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    assert_eq!(status(&response(&mut client)), "200");
    assert_eq!(got.recv_timeout(LONG).unwrap(), (true, b"hello".to_vec()));
}

#[test]
fn only_a_share_is_copied() {
    for (share, least, most) in [(0, 0, 0), (500_000, 60, 140), (1_000_000, 200, 200)] {
        let (up, _got) = telling(OK);
        let (shadow, _copied) = telling(OK);
        let (proxy, copies) = counting(mirroring(up.address, shadow.address, Mirror { share, ..mirror() }));
        let mut client = connect(&proxy);
        for _ in 0..200 {
            assert_eq!(status(&get(&mut client)), "200");
            // One after the other, so that no bound is met.
        }
        let all = || ["answered", "failed", "timeout", "too_many"].map(&copies).iter().sum::<u64>();
        eventually("too few copies", || all() >= least);
        std::thread::sleep(Duration::from_millis(300));
        assert!(all() <= most, "{share}: {}", all());
    }
}

#[test]
fn whatever_the_copy_meets_the_request_does_not_notice() {
    let silent = upstream(|mut conn| {
        conn.head();
        conn.is_closed();
    });
    let closing = upstream(|_| {});
    let broken = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    });
    let endless = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while conn.stream.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (hole, _sockets) = black_hole();
    let quick = Mirror { timeout: Duration::from_millis(1500), ..mirror() };
    for (name, shadow, mirror, result) in [
        ("says nothing", silent.address, quick, "timeout"),
        ("goes on for ever", endless.address, quick, "timeout"),
        ("cannot be reached", hole, quick, "timeout"),
        ("closes", closing.address, mirror(), "failed"),
        ("breaks off", broken.address, mirror(), "failed"),
        ("is not there", nobody, mirror(), "failed"),
    ] {
        let (up, _got) = telling(OK);
        let (proxy, copies) = counting(mirroring(up.address, shadow, mirror));
        let mut client = connect(&proxy);
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(status(&get(&mut client)), "200", "{name}");
            assert!(begun.elapsed() < Duration::from_millis(1200), "{name}: {:?}", begun.elapsed());
        }
        eventually(name, || copies(result) == 3);
    }
}

#[test]
fn a_body_waits_for_no_copy() {
    // It reads the head and then nothing.
    let stuck = upstream(|mut conn| {
        conn.head();
        std::thread::sleep(LONG);
    });
    let (up, _got) = telling(OK);
    let (proxy, copies) = counting(mirroring(up.address, stuck.address, mirror()));
    let mut client = connect(&proxy);
    write!(client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BYTES}\r\n\r\n").unwrap();
    client.write_all(&vec![b'x'; BYTES]).unwrap();
    assert_eq!(status(&response(&mut client)), "200");
    eventually("it is given up", || copies("too_slow") == 1);

    // Where there is room for all of it, a copy may lag.
    let (slow, copied) = telling(OK);
    let roomy = Mirror { buffer: 4 * BYTES, ..mirror() };
    let (proxy, copies) = counting(mirroring(up.address, slow.address, roomy));
    let mut client = connect(&proxy);
    write!(client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BYTES}\r\n\r\n").unwrap();
    client.write_all(&vec![b'x'; BYTES]).unwrap();
    assert_eq!(status(&response(&mut client)), "200");
    assert_eq!(copied.recv_timeout(LONG).unwrap().1.len(), BYTES);
    eventually("it is answered", || copies("answered") == 1);
}

#[test]
fn a_body_that_breaks_off_is_no_whole_copy() {
    let (sender, got) = mpsc::channel();
    let shadow = upstream(move |mut conn| {
        conn.head();
        let _ = sender.send(conn.body(100).len());
    });
    let up = upstream(|mut conn| {
        conn.head();
        conn.body(100);
    });
    let (proxy, copies) = counting(mirroring(up.address, shadow.address, mirror()));
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegun").unwrap();
    eventually("it does not begin", || up.accepted.load(Ordering::SeqCst) == 1);
    drop(client);
    assert!(got.recv_timeout(LONG).unwrap() <= 5);
    eventually("it is not counted", || copies("incomplete") == 1);
}

#[test]
fn copies_are_bounded_over_reloads_and_end_with_the_proxy() {
    let (closed, was_closed) = mpsc::channel();
    let silent = upstream(move |mut conn| {
        conn.head();
        let _ = closed.send(conn.is_closed());
    });
    let (up, _got) = telling(OK);
    let mut model = mirroring(up.address, silent.address, Mirror { max_concurrent: 3, ..mirror() });
    let (proxy, copies) = counting(model.clone());
    let mut client = connect(&proxy);
    for _ in 0..5 {
        assert_eq!(status(&get(&mut client)), "200");
    }
    eventually("they are not bounded", || copies("too_many") == 2);
    let name = &proxy.status().endpoints.iter().find(|e| e.upstream != "up").unwrap().upstream.clone();
    model.upstreams[1].name.clone_from(name);
    proxy.reload(&model).unwrap();
    assert_eq!(status(&get(&mut client)), "200");
    eventually("a reload forgets them", || copies("too_many") == 3);
    eventually("they do not arrive", || silent.accepted.load(Ordering::SeqCst) == 3);
    drop(client);
    let drained = tokio::runtime::Runtime::new().unwrap().block_on(proxy.drain(LONG));
    assert_eq!(drained.cut, 0, "no copy keeps the gateway from ending");
    for _ in 0..3 {
        assert_eq!(was_closed.recv_timeout(LONG), Ok(true));
    }
    eventually("they are not counted", || copies("cancelled") == 3);
}

#[test]
fn the_access_log_has_requests_and_no_copies() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("access.log");
    let (up, _got) = telling(OK);
    let (shadow, copied) = telling(OK);
    let mut model = mirroring(up.address, shadow.address, mirror());
    model.access_log = Some(AccessLog {
        to: LogTarget::File(path.clone()),
        format: LogFormat::Json,
        sample: 1_000_000,
        queue: 100,
    });
    let proxy = start(&model);
    assert_eq!(status(&get(&mut connect(&proxy))), "200");
    copied.recv_timeout(LONG).unwrap();
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually("the line is not there", || !lines(&path).is_empty());
    std::thread::sleep(Duration::from_millis(300));
    let lines = lines(&path);
    assert!(lines.lines().count() == 1 && !lines.contains("shadow"), "{lines}");
}
