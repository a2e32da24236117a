//! Servers that are asked whether they are well, and who gets the requests when they are not.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway::model::{self, HealthCheck, Probe, Protocol};
use gateway::proxy::{Condition, Proxy};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::harness::*;
use crate::http2_upstreams::server;

/// A server whose health is a test's to say. It answers checks by that, and requests with its name.
struct Patient {
    upstream: Upstream,
    is_well: Arc<AtomicBool>,
}

fn patient(name: &'static str) -> Patient {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let upstream = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("GET /up ") {
                assert!(head.contains("host: check.test\r\n"), "{head}");
                let status = if well.load(Ordering::SeqCst) { "204 No Content" } else { "500 Oh" };
                conn.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
            } else {
                conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()));
            }
        }
    });
    Patient { upstream, is_well }
}

pub(crate) fn check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        healthy: 2,
        unhealthy: 3,
        starts_up: true,
    }
}

fn http_check() -> HealthCheck {
    let host = Some("check.test".to_owned());
    check(Probe::Http { path: "/up".parse().unwrap(), host, expect: vec![200..=299] })
}

fn checked(endpoints: &[SocketAddr]) -> model::Proxy {
    let mut model = model(endpoints);
    model.upstreams[0].health = Some(http_check());
    model
}

/// Waits until this many endpoints are well.
#[track_caller]
pub(crate) fn until_well(proxy: &Proxy, count: usize) {
    eventually("the verdicts", || proxy.health().iter().filter(|one| one.is_healthy).count() == count);
}

/// Who answers the next few requests, each once.
fn answering(proxy: &Proxy) -> Vec<String> {
    let mut stream = connect(proxy);
    let answers = (0..10).map(|_| get(&mut stream)).map(|answer| {
        assert_eq!(status(&answer), "200", "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    });
    let mut answers: Vec<_> = answers.collect();
    answers.sort_unstable();
    answers.dedup();
    answers
}

#[test]
fn who_is_unhealthy_gets_nothing_until_it_is_well_again() {
    let (a, b) = (patient("a"), patient("b"));
    let proxy = start(&checked(&[a.upstream.address, b.upstream.address]));
    assert_eq!(answering(&proxy), ["a", "b"], "whoever was not asked yet is taken for well");
    a.is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["b"]);
    let endpoints = proxy.status().endpoints;
    let sick = endpoints.iter().find(|endpoint| endpoint.condition == Condition::Unhealthy).unwrap();
    assert_eq!(sick.endpoint, a.upstream.address.to_string());
    assert_eq!(sick.complaint.as_deref(), Some("it answers 500"));
    a.is_well.store(true, Ordering::SeqCst);
    until_well(&proxy, 2);
    assert_eq!(answering(&proxy), ["a", "b"]);
}

#[test]
fn a_verdict_outlives_a_reload() {
    let (a, b) = (patient("a"), patient("b"));
    let mut model = checked(&[a.upstream.address, b.upstream.address]);
    let proxy = start(&model);
    a.is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 1);
    model.upstreams[0].response_timeout = Duration::from_secs(9);
    proxy.reload(&model).unwrap();
    assert_eq!(answering(&proxy), ["b"]);
    model.upstreams[0].health = None;
    proxy.reload(&model).unwrap();
    assert_eq!(answering(&proxy), ["a", "b"], "nobody would take the verdict back");
    assert!(proxy.health().is_empty());
}

#[test]
fn an_endpoint_may_have_to_prove_itself_first() {
    let a = patient("a");
    a.is_well.store(false, Ordering::SeqCst);
    let mut model = checked(&[a.upstream.address]);
    model.upstreams[0].health.as_mut().unwrap().starts_up = false;
    model.upstreams[0].panic_threshold = 0;
    let proxy = start(&model);
    let answer = get(&mut connect(&proxy));
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("upstream_unhealthy"), "{answer}");
    a.is_well.store(true, Ordering::SeqCst);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["a"]);
}

#[test]
fn all_are_used_when_few_are_well() {
    let patients = [patient("a"), patient("b"), patient("c")];
    let addresses = patients.each_ref().map(|patient| patient.upstream.address);
    let proxy = start(&checked(&addresses));
    patients[0].is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 2);
    assert_eq!(answering(&proxy), ["b", "c"]);
    patients[1].is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["a", "b", "c"]);
}

#[test]
fn a_reserve_takes_over() {
    let (a, b) = (patient("a"), patient("b"));
    let mut model = checked(&[a.upstream.address, b.upstream.address]);
    model.upstreams[0].endpoints[1].priority = 1;
    let proxy = start(&model);
    assert_eq!(answering(&proxy), ["a"]);
    a.is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["b"]);
    a.is_well.store(true, Ordering::SeqCst);
    until_well(&proxy, 2);
    assert_eq!(answering(&proxy), ["a"]);
    // Without checks, a reserve is there for those that cannot be connected to.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    model.upstreams[0].endpoints[0] = model::Endpoint::tcp(closed);
    model.upstreams[0].health = None;
    proxy.reload(&model).unwrap();
    assert_eq!(answering(&proxy), ["b"]);
}

#[test]
fn the_own_zone_comes_first() {
    let (a, b) = (patient("a"), patient("b"));
    let mut model = checked(&[a.upstream.address, b.upstream.address]);
    let upstream = &mut model.upstreams[0];
    (upstream.zone, upstream.endpoints[1].zone) = (Some("near".to_owned()), Some("near".to_owned()));
    let proxy = start(&model);
    assert_eq!(answering(&proxy), ["b"]);
    b.is_well.store(false, Ordering::SeqCst);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["a"]);
}

#[test]
fn each_endpoint_is_asked_once_and_not_once_a_worker() {
    let (checks, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (under_way, peak) = (Arc::clone(&checks), Arc::clone(&most));
    let up = upstream(move |mut conn| {
        conn.head();
        peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        under_way.fetch_sub(1, Ordering::SeqCst);
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let mut model = checked(&[up.address]);
    model.workers = 4;
    let proxy = start(&model);
    eventually("several checks", || up.accepted.load(Ordering::SeqCst) >= 5);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    drop(proxy);
}

#[test]
fn a_check_may_be_a_connection() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let b = patient("b");
    let mut model = checked(&[closed, b.upstream.address]);
    model.upstreams[0].health = Some(check(Probe::Tcp));
    let proxy = start(&model);
    until_well(&proxy, 1);
    assert_eq!(answering(&proxy), ["b"]);
}

#[test]
fn a_check_that_hangs_fails_in_time() {
    let silent = upstream(|mut conn| {
        conn.head();
        conn.is_closed();
    });
    let mut model = checked(&[silent.address]);
    model.upstreams[0].health.as_mut().unwrap().timeout = Duration::from_millis(50);
    let proxy = start(&model);
    until_well(&proxy, 0);
    let complaint = proxy.status().endpoints[0].complaint.clone();
    assert_eq!(complaint.as_deref(), Some("no answer within 50ms"));
}

#[test]
fn a_check_may_be_a_call_of_grpc() {
    let is_serving = Arc::new(AtomicBool::new(true));
    let serving = Arc::clone(&is_serving);
    let up = server(move |request| {
        let is_serving = serving.load(Ordering::SeqCst);
        async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(asked, &b"\0\0\0\0\x06\x0a\x04cart"[..]);
            let state = if is_serving { 1 } else { 2 };
            let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state]);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let response = Response::builder().header("content-type", "application/grpc");
            response.body(body).unwrap()
        }
    });
    let mut model = checked(&[up.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let mut health = check(Probe::Grpc { service: "cart".to_owned() });
    health.starts_up = false;
    model.upstreams[0].health = Some(health);
    let proxy = start(&model);
    until_well(&proxy, 1);
    is_serving.store(false, Ordering::SeqCst);
    until_well(&proxy, 0);
    let complaint = proxy.status().endpoints[0].complaint.clone();
    assert_eq!(complaint.as_deref(), Some("it says that it is not serving"));
}

/// A server that answers with this status until it is told to do better.
fn failing(status: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let upstream = upstream(move |mut conn| {
        while conn.head().is_some() {
            let status = if well.load(Ordering::SeqCst) { "200 OK" } else { status };
            conn.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsick"));
        }
    });
    (upstream, is_well)
}

fn ejecting(endpoints: &[SocketAddr], base_time: Duration) -> model::Proxy {
    let mut model = model(endpoints);
    model.upstreams[0].ejection = Some(model::Ejection {
        consecutive_5xx: 3,
        consecutive_gateway_errors: 3,
        success_rate: None,
        interval: Duration::from_millis(20),
        base_time,
        max_time: LONG,
        max_percent: 10,
    });
    model
}

#[test]
fn who_fails_again_and_again_is_ejected_for_a_while() {
    let ((sick, is_well), well) = (failing("500 Oh"), patient("well"));
    let mut model = ejecting(&[sick.address, well.upstream.address], Duration::from_millis(300));
    model.workers = 3;
    let proxy = start(&model);
    // Three failures, whichever workers they were found by, are enough for all of them.
    let mut failures = 0;
    while proxy.health().iter().all(|one| one.is_healthy) {
        failures += usize::from(status(&get(&mut connect(&proxy))) == "500");
        assert!(failures <= 3);
    }
    assert_eq!(failures, 3);
    let endpoints = proxy.status().endpoints;
    let out = endpoints.iter().find(|endpoint| endpoint.condition == Condition::Ejected).unwrap();
    assert_eq!(out.endpoint, sick.address.to_string());
    assert!(out.complaint.as_ref().is_some_and(|why| why.starts_with("for ")), "{out:?}");
    is_well.store(true, Ordering::SeqCst);
    eventually("it is back", || answering(&proxy).len() == 2);
}

#[test]
fn no_answer_is_a_failure_and_a_good_answer_in_between_forgives() {
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&turn);
    let mixed = upstream(move |mut conn| {
        conn.head();
        if turns.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let closing = upstream(|mut conn| drop(conn.head()));
    let well = patient("well");
    let others = [mixed.address, closing.address];
    for (other, is_ejected) in others.into_iter().zip([false, true]) {
        let proxy = start(&ejecting(&[other, well.upstream.address], LONG));
        for _ in 0..30 {
            get(&mut connect(&proxy));
        }
        assert_eq!(proxy.health().iter().any(|one| !one.is_healthy), is_ejected);
    }
}

#[test]
fn not_all_are_ejected() {
    let ((a, _), (b, _)) = (failing("503 Oh"), failing("503 Oh"));
    let proxy = start(&ejecting(&[a.address, b.address], LONG));
    let mut stream = connect(&proxy);
    for _ in 0..20 {
        assert_eq!(status(&get(&mut stream)), "503");
    }
    assert_eq!(proxy.health().iter().filter(|one| one.is_healthy).count(), 1);
}

#[test]
fn who_fails_more_often_than_the_others_is_ejected() {
    let every_second = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&every_second);
    // Never twice in a row: nothing else finds it out.
    let flaky = upstream(move |mut conn| {
        while conn.head().is_some() {
            let is_bad = turns.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            let status = if is_bad { "500 Oh" } else { "200 OK" };
            conn.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsick"));
        }
    });
    let others: Vec<_> = ["a", "b", "c", "d"].map(patient).into();
    let mut addresses = vec![flaky.address];
    addresses.extend(others.iter().map(|other| other.upstream.address));
    let mut model = ejecting(&addresses, LONG);
    let success_rate = model::SuccessRate { minimum_hosts: 5, request_volume: 4, stdev_factor: 1900 };
    model.upstreams[0].ejection.as_mut().unwrap().interval = Duration::from_millis(200);
    for (success_rate, is_ejected) in [(None, false), (Some(success_rate), true)] {
        model.upstreams[0].ejection.as_mut().unwrap().success_rate = success_rate;
        let proxy = start(&model);
        let mut stream = connect(&proxy);
        let is_out = |stream: &mut TcpStream| {
            get(stream);
            proxy.health().iter().any(|one| !one.is_healthy)
        };
        if is_ejected {
            while !is_out(&mut stream) {}
            let health = proxy.health();
            let out: Vec<_> = health.iter().filter(|one| !one.is_healthy).collect();
            assert_eq!((out.len(), &out[0].endpoint), (1, &flaky.address.to_string()));
        } else {
            assert!((0..200).all(|_| !is_out(&mut stream)));
        }
    }
}
