//! Upstreams that get no more requests than they may have, or none at all.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use gateway::model::{self, Breaker, Limits};
use gateway::proxy::Position;

use crate::harness::*;

/// A server that answers well or not, as a test says, and counts.
struct Moody {
    upstream: Upstream,
    is_well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

fn moody() -> Moody {
    let (is_well, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (well, count) = (Arc::clone(&is_well), Arc::clone(&asked));
    let upstream = upstream(move |mut conn| {
        while conn.head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "500 Oh" };
            conn.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nmain"));
        }
    });
    Moody { upstream, is_well, asked }
}

fn breaking(endpoint: SocketAddr, open_for: Duration) -> model::Proxy {
    let mut model = model(&[endpoint]);
    model.upstreams[0].breaker = Some(Breaker {
        error_ratio: 50,
        min_requests: 4,
        window: Duration::from_secs(60),
        open_for,
        half_open_requests: 2,
        slow: None,
    });
    model
}

#[test]
fn a_breaker_opens_over_all_workers_and_closes_again() {
    let main = moody();
    let mut model = breaking(main.upstream.address, Duration::from_millis(500));
    model.workers = 3;
    let proxy = start(&model);
    assert_eq!(proxy.status().breakers[0].position, Position::Closed);
    main.is_well.store(false, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(status(&get(&mut connect(&proxy))), "500");
    }
    let answer = get(&mut connect(&proxy));
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("upstream_breaker_open"), "{answer}");
    assert_eq!(proxy.status().breakers[0].position, Position::Open);
    assert_eq!(main.asked.load(Ordering::SeqCst), 4);
    // One that fails after its time opens it anew.
    eventually("it tries", || proxy.status().breakers[0].position == Position::HalfOpen);
    assert_eq!(status(&get(&mut connect(&proxy))), "500");
    assert_eq!(status(&get(&mut connect(&proxy))), "503");
    main.is_well.store(true, Ordering::SeqCst);
    eventually("it tries", || proxy.status().breakers[0].position == Position::HalfOpen);
    for _ in 0..10 {
        assert_eq!(status(&get(&mut connect(&proxy))), "200");
    }
    assert_eq!(proxy.status().breakers[0].position, Position::Closed);
}

#[test]
fn a_reload_of_other_settings_leaves_a_breaker_as_it_is() {
    let main = moody();
    let mut model = breaking(main.upstream.address, LONG);
    let proxy = start(&model);
    main.is_well.store(false, Ordering::SeqCst);
    for _ in 0..4 {
        get(&mut connect(&proxy));
    }
    let position = || proxy.status().breakers[0].position;
    assert_eq!(position(), Position::Open);
    model.upstreams[0].idle_timeout *= 2;
    model.upstreams[0].endpoints.push(model::Endpoint::tcp(moody().upstream.address));
    proxy.reload(&model).unwrap();
    assert_eq!(position(), Position::Open);
    model.upstreams[0].breaker.as_mut().unwrap().min_requests = 5;
    proxy.reload(&model).unwrap();
    assert_eq!(position(), Position::Closed, "by other rules it begins anew");
}

#[test]
fn another_upstream_stands_in() {
    let main = moody();
    let spare = upstream(|mut conn| {
        while conn.head().is_some() {
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nspare");
        }
    });
    let mut model = breaking(main.upstream.address, LONG);
    model.upstreams.push(model::Upstream::new("spare", vec![model::Endpoint::tcp(spare.address)]));
    model.upstreams[0].fallback = Some(1);
    let proxy = start(&model);
    let mut stream = connect(&proxy);
    assert!(get(&mut stream).ends_with("main"));
    main.is_well.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(status(&get(&mut stream)), "500");
    }
    for _ in 0..3 {
        assert!(get(&mut stream).ends_with("spare"));
    }
    // A reload that moves it in the list does not close it.
    model.upstreams.swap(0, 1);
    model.upstreams[1].fallback = Some(0);
    let shares = vec![model::Share { upstream: 1, weight: 1 }];
    model.routes[0].action = model::Action::Forward(model::Forward {
        shares,
        sticky: None,
        host: None,
        path: None,
        mirrors: Vec::new(),
    });
    proxy.reload(&model).unwrap();
    assert!(get(&mut stream).ends_with("spare"));
}

#[test]
fn slow_answers_are_failures_where_that_is_said() {
    let slow = upstream(|mut conn| {
        while conn.head().is_some() {
            std::thread::sleep(Duration::from_millis(30));
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    for (limit, expected) in [(Some(Duration::from_millis(10)), Position::Open), (None, Position::Closed)] {
        let mut model = breaking(slow.address, LONG);
        model.upstreams[0].breaker.as_mut().unwrap().slow = limit;
        let proxy = start(&model);
        let mut stream = connect(&proxy);
        for _ in 0..4 {
            assert_eq!(status(&get(&mut stream)), "200");
        }
        assert_eq!(proxy.status().breakers[0].position, expected);
    }
}

#[test]
fn an_upstream_gets_no_more_requests_than_it_may_have() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let busy = upstream(move |mut conn| {
        while conn.head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            // The head alone does not end a request.
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
            let _ = wait.lock().unwrap().recv();
            conn.send("k");
        }
    });
    let mut model = model(&[busy.address]);
    model.workers = 2;
    model.upstreams[0].limits = Limits { max_requests: Some(3) };
    let proxy = start(&model);
    let mut held: Vec<_> = (0..3).map(|_| connect(&proxy)).collect();
    for stream in &mut held {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    }
    eventually("three are under way", || asked.load(Ordering::SeqCst) == 3);
    for _ in 0..4 {
        let answer = get(&mut connect(&proxy));
        assert_eq!(status(&answer), "503", "{answer}");
        assert!(answer.contains("upstream_overloaded"), "{answer}");
    }
    for _ in &held {
        release.send(()).unwrap();
    }
    for stream in &mut held {
        assert_eq!(status(&response(stream)), "200");
    }
    // And they are given back.
    let mut next = connect(&proxy);
    for _ in 0..5 {
        release.send(()).unwrap();
        eventually("there is room", || status(&get(&mut next)) == "200");
    }
}
