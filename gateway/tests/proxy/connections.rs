//! Upstreams that take no more than so many connections, and requests that wait for one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use gateway::model::{self, Limits, Protocol};
use gateway::proxy::Proxy;

use crate::harness::*;
use crate::http2_upstreams::{self, server};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// A server that answers when it is told to, and counts the connections that a request is on: of one that was closed for
/// another's sake it may hear after that one has come.
struct Held {
    upstream: Upstream,
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    release: mpsc::Sender<()>,
}

fn held() -> Held {
    let [asked, open, most] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (count, now, peak) = (Arc::clone(&asked), Arc::clone(&open), Arc::clone(&most));
    let upstream = upstream(move |mut conn| {
        while conn.head().is_some() {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            count.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().unwrap().recv();
            now.fetch_sub(1, Ordering::SeqCst);
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    Held { upstream, asked, open, most, release }
}

fn limited(endpoints: &[std::net::SocketAddr], max_connections: usize) -> model::Proxy {
    let mut model = model(endpoints);
    model.upstreams[0].limits = Limits { max_connections: Some(max_connections), ..Limits::default() };
    model.upstreams[0].connect_timeout = LONG;
    model
}

fn asking(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy);
    stream.write_all(GET).unwrap();
    stream
}

fn refused(proxy: &Proxy) {
    let answer = get(&mut connect(proxy));
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("upstream_overloaded"), "{answer}");
}

#[test]
fn requests_wait_for_a_connection_whichever_worker_they_are_in() {
    let held = held();
    let mut model = limited(&[held.upstream.address], 2);
    model.workers = 3;
    let proxy = start(&model);
    let mut streams: Vec<_> = (0..8).map(|_| asking(&proxy)).collect();
    eventually("two are sent", || held.asked.load(Ordering::SeqCst) == 2);
    for _ in &streams {
        held.release.send(()).unwrap();
    }
    for stream in &mut streams {
        assert_eq!(status(&response(stream)), "200");
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 2);
}

#[test]
fn nobody_waits_longer_than_for_a_connect() {
    let held = held();
    let mut model = limited(&[held.upstream.address], 1);
    model.upstreams[0].connect_timeout = Duration::from_millis(200);
    let proxy = start(&model);
    let mut first = asking(&proxy);
    eventually("it is sent", || held.asked.load(Ordering::SeqCst) == 1);
    refused(&proxy);
    held.release.send(()).unwrap();
    assert_eq!(status(&response(&mut first)), "200");
    held.release.send(()).unwrap();
    assert_eq!(status(&get(&mut connect(&proxy))), "200", "the connection is used again");
    assert_eq!(held.upstream.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn no_more_wait_than_may() {
    let held = held();
    let mut model = limited(&[held.upstream.address], 1);
    model.upstreams[0].limits.max_pending = Some(2);
    let proxy = start(&model);
    let mut first = asking(&proxy);
    eventually("it is sent", || held.asked.load(Ordering::SeqCst) == 1);
    let mut waiting = [asking(&proxy), asking(&proxy)];
    // They may not have come as far yet, but then the next ones wait in their place.
    eventually("one is too many", || {
        let mut stream = asking(&proxy);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).is_ok() && answer.ends_with(b"503")
    });
    for _ in 0..3 {
        held.release.send(()).unwrap();
    }
    assert_eq!(status(&response(&mut first)), "200");
    for stream in &mut waiting {
        assert_eq!(status(&response(stream)), "200");
    }
    // Those that connect wait, too.
    let (address, _sockets) = black_hole();
    let mut model = limited(&[address], 100);
    model.upstreams[0].limits = Limits { max_pending: Some(1), ..Limits::default() };
    let proxy = start(&model);
    let _first = asking(&proxy);
    eventually("it is too many", || {
        let mut stream = asking(&proxy);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).is_ok() && answer.ends_with(b"503")
    });
}

#[test]
fn what_is_idle_to_another_server_makes_room() {
    let (a, b) = (echo(), echo());
    let proxy = start(&limited(&[a.address, b.address], 1));
    let mut stream = connect(&proxy);
    for _ in 0..6 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
    assert!(b.accepted.load(Ordering::SeqCst) >= 3);
}

#[test]
fn what_is_idle_in_another_worker_is_given_up() {
    let up = echo();
    let mut model = limited(&[up.address], 1);
    model.workers = 2;
    let proxy = start(&model);
    // One after the other, and enough of them that both workers get some.
    for _ in 0..6 {
        assert_eq!(status(&get(&mut connect(&proxy))), "200");
    }
    // And all at once.
    let mut streams: Vec<_> = (0..12).map(|_| asking(&proxy)).collect();
    for stream in &mut streams {
        assert_eq!(status(&response(stream)), "200");
    }
}

#[test]
fn a_tunnel_has_its_place_until_it_ends() {
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            if head.contains("upgrade: websocket") {
                conn.send(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                );
                let _ = conn.body(1);
                return;
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let mut model = limited(&[up.address], 1);
    model.upstreams[0].connect_timeout = Duration::from_millis(200);
    let proxy = start(&model);
    let mut tunnel = connect(&proxy);
    let asks = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    tunnel.write_all(asks.as_bytes()).unwrap();
    assert_eq!(status(&response(&mut tunnel)), "101");
    refused(&proxy);
    drop(tunnel);
    eventually("its place is another one's", || status(&get(&mut connect(&proxy))) == "200");
}

#[test]
fn requests_share_the_one_connection_there_may_be() {
    let up = server(http2_upstreams::echo);
    let mut model = limited(&[up.address], 1);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut streams: Vec<_> = (0..20).map(|_| asking(&proxy)).collect();
    for stream in &mut streams {
        assert_eq!(status(&response(stream)), "200");
    }
    assert_eq!(up.accepted(), 1);
}

#[test]
fn connections_that_end_leave_their_places() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    });
    let proxy = start(&limited(&[up.address], 1));
    let mut stream = connect(&proxy);
    for _ in 0..10 {
        assert_eq!(status(&get(&mut stream)), "200");
    }
    // Another bound holds for those that there are.
    let held = held();
    let mut model = limited(&[held.upstream.address], 1);
    let proxy = start(&model);
    let mut first = asking(&proxy);
    eventually("it is sent", || held.asked.load(Ordering::SeqCst) == 1);
    model.upstreams[0].limits.max_connections = Some(2);
    proxy.reload(&model).unwrap();
    let mut second = asking(&proxy);
    eventually("one more is", || held.asked.load(Ordering::SeqCst) == 2);
    assert_eq!(held.open.load(Ordering::SeqCst), 2);
    for stream in [&mut first, &mut second] {
        held.release.send(()).unwrap();
        held.release.send(()).unwrap();
        assert_eq!(status(&response(stream)), "200");
    }
}
