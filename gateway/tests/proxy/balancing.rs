//! Who of several servers gets a request.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gateway::model::{self, Balance, HashKey};

use crate::harness::*;

/// A server that answers with its name.
fn named(name: &'static str) -> Upstream {
    upstream(move |mut conn| {
        while conn.head().is_some() {
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()));
        }
    })
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

/// Sends a request with these fields; the answer.
fn ask(stream: &mut TcpStream, path: &str, fields: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n").unwrap();
    let answer = response(stream);
    assert_eq!(status(&answer), "200", "{answer}");
    answer
}

fn with(balance: Balance, endpoints: &[(SocketAddr, u32)]) -> model::Proxy {
    let addresses: Vec<_> = endpoints.iter().map(|(address, _)| *address).collect();
    let mut model = model(&addresses);
    model.upstreams[0].balance = balance;
    for (endpoint, (_, weight)) in model.upstreams[0].endpoints.iter_mut().zip(endpoints) {
        endpoint.weight = *weight;
    }
    model
}

#[test]
fn weights_are_kept_to() {
    let (a, b) = (named("a"), named("b"));
    let proxy = start(&with(Balance::RoundRobin, &[(a.address, 3), (b.address, 1)]));
    let mut stream = connect(&proxy);
    let order: String = (0..8).map(|_| body(&ask(&mut stream, "/", "")).to_owned()).collect();
    assert_eq!(order, "aabaaaba");
}

#[test]
fn a_busy_server_is_left_alone() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let is_stuck = Arc::new(AtomicBool::new(false));
    let stuck = Arc::clone(&is_stuck);
    let slow = upstream(move |mut conn| {
        conn.head();
        stuck.store(true, Ordering::SeqCst);
        let _ = wait.lock().unwrap().recv();
    });
    let fast = named("fast");
    let proxy = start(&with(Balance::LeastRequest, &[(slow.address, 1), (fast.address, 1)]));
    // Requests go anywhere until one of them hangs.
    let mut hanging = Vec::new();
    while !is_stuck.load(Ordering::SeqCst) {
        let mut stream = connect(&proxy);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
        let mut answer = String::new();
        // However long it takes: else a slow answer would pass for none, and that server for a busy one.
        while !answer.ends_with("fast") && !is_stuck.load(Ordering::SeqCst) {
            answer.push_str(&read_rest(&mut stream, Duration::from_millis(20)).0);
        }
        hanging.push(stream);
    }
    let mut stream = connect(&proxy);
    for _ in 0..50 {
        assert_eq!(body(&ask(&mut stream, "/", "")), "fast");
    }
    drop(release);
}

#[test]
fn a_key_has_one_server_in_every_worker_and_after_a_reload() {
    let servers = [named("a"), named("b"), named("c")];
    let endpoints: Vec<_> = servers.iter().map(|server| (server.address, 1)).collect();
    let by = |name: &'static str| Balance::Hash(HashKey::Header(http::HeaderName::from_static(name)));
    let mut model = with(by("x-user"), &endpoints);
    model.workers = 3;
    let proxy = start(&model);
    let mut homes: HashMap<String, String> = HashMap::new();
    let ask_all = |homes: &mut HashMap<String, String>| {
        for turn in 0..60 {
            let user = format!("user-{}", turn % 20);
            let answer = ask(&mut connect(&proxy), "/", &format!("x-user: {user}\r\n"));
            let home = homes.entry(user.clone()).or_insert_with(|| body(&answer).to_owned());
            assert_eq!(body(&answer), home, "{user}");
        }
    };
    ask_all(&mut homes);
    let distinct: std::collections::HashSet<_> = homes.values().collect();
    assert!(distinct.len() > 1, "{homes:?}");
    // Another order of the same servers.
    model.upstreams[0].endpoints.reverse();
    proxy.reload(&model).unwrap();
    ask_all(&mut homes);
}

#[test]
fn a_client_sticks_until_its_server_is_gone() {
    let (a, b) = (named("a"), named("b"));
    let sticky = Balance::Sticky { cookie: "at".to_owned() };
    let proxy = start(&with(sticky.clone(), &[(a.address, 1), (b.address, 1)]));
    let mut stream = connect(&proxy);
    let first = ask(&mut stream, "/", "");
    let cookie = |answer: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
        Some(line.split(';').next().unwrap().to_owned())
    };
    let value = cookie(&first).expect("a cookie");
    assert!(first.contains("; Path=/; HttpOnly; SameSite=Lax\r\n"), "no Secure in the clear: {first}");
    let home = body(&first).to_owned();
    for _ in 0..6 {
        let answer = ask(&mut stream, "/", &format!("cookie: x=y; {value}\r\n"));
        assert_eq!((body(&answer), cookie(&answer)), (home.as_str(), None));
    }
    // Its server is gone: another one, and another cookie.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let left = if home == "a" { b.address } else { a.address };
    for gone in [vec![(left, 1)], vec![(closed, 1), (left, 1)]] {
        proxy.reload(&with(sticky.clone(), &gone)).unwrap();
        let answer = ask(&mut connect(&proxy), "/", &format!("cookie: {value}\r\n"));
        assert_ne!(body(&answer), home);
        assert!(cookie(&answer).is_some_and(|other| other != value), "{answer}");
    }
}

#[test]
fn a_server_that_fails_to_accept_is_passed_by_whatever_the_balance() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let up = named("up");
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::Hash(HashKey::Source),
        Balance::Hash(HashKey::Path),
    ] {
        let proxy = start(&with(balance, &[(closed, 5), (up.address, 1), (closed_too(), 1)]));
        let mut stream = connect(&proxy);
        for turn in 0..10 {
            assert_eq!(body(&ask(&mut stream, &format!("/{turn}"), "")), "up");
        }
    }
}

fn closed_too() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
