//! Endpoints that come from name servers and files, and go.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gateway::model::{self, Discovery, DnsDiscovery, Ejection, Family, Records};
use gateway::proxy::{Condition, Proxy};

use crate::harness::*;
use crate::name_server::{Mood, NameServer};

const TICK: Duration = Duration::from_millis(50);

/// Two servers with one port, on two addresses: each answers with its name.
fn neighbours() -> [(Upstream, &'static str); 2] {
    for _ in 0..50 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        // Somebody else may have it there.
        let Ok(second) = TcpListener::bind(("127.0.0.2", port)) else { continue };
        return [(upstream_on(first, answers("a")), "a"), (upstream_on(second, answers("b")), "b")];
    }
    panic!("no port is free on both addresses");
}

fn answers(name: &'static str) -> impl Fn(Conn) + Send + Sync {
    move |mut conn: Conn| {
        while conn.head().is_some() {
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()));
        }
    }
}

fn asks(server: &NameServer, records: Records) -> DnsDiscovery {
    DnsDiscovery {
        name: "up.test".to_owned(),
        records,
        is_secure: false,
        family: Family::Both,
        resolvers: Some(vec![server.address]),
        min_ttl: TICK,
        max_ttl: TICK,
    }
}

fn found_by(discovery: Discovery) -> model::Proxy {
    let mut model = model(&[]);
    model.upstreams[0].discovery = Some(discovery);
    model
}

/// Asks on a connection of its own, after what was found has been taken.
fn ask(proxy: &Proxy) -> String {
    proxy.take_endpoints().unwrap();
    let answer = get(&mut connect(proxy));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if head.starts_with("HTTP/1.1 200") { body.to_owned() } else { head[9..12].to_owned() }
}

/// Who answers now: several requests, so that everybody has a turn.
fn who(proxy: &Proxy) -> String {
    let mut who: Vec<String> = (0..4).map(|_| ask(proxy)).collect();
    who.sort();
    who.dedup();
    who.concat()
}

fn endpoints(proxy: &Proxy) -> Vec<String> {
    proxy.status().endpoints.into_iter().map(|endpoint| endpoint.endpoint).collect()
}

#[test]
fn addresses_come_and_go() {
    let servers = neighbours();
    let port = servers[0].0.address.port();
    let names = NameServer::start(0);
    names.has_addresses("up.test", &["127.0.0.1"]);
    let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Addresses { port }))));
    assert_eq!(ask(&proxy), "a", "whoever is there at the start serves the first request");
    names.has_addresses("up.test", &["127.0.0.1", "127.0.0.2"]);
    eventually("the second comes", || who(&proxy) == "ab");
    assert_eq!(endpoints(&proxy), [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")]);
    let accepted = servers[1].0.accepted.load(Ordering::SeqCst);
    names.has_addresses("up.test", &["127.0.0.2"]);
    eventually("the first goes", || who(&proxy) == "b");
    assert_eq!(endpoints(&proxy), [format!("127.0.0.2:{port}")]);
    assert_eq!(servers[1].0.accepted.load(Ordering::SeqCst), accepted, "who stays keeps connections");
}

#[test]
fn who_goes_finishes_what_it_has_and_loses_idle_connections() {
    let (began, begins) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let (closed, closes) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let servers = neighbours();
    let slow = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("GET /slow ") {
                began.send(()).unwrap();
                let _ = wait.lock().unwrap().recv();
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow");
        }
        let _ = closed.send(());
    });
    let names = NameServer::start(0);
    names.has_addresses("slow.test", &["127.0.0.1"]);
    names.has_addresses("other.test", &["127.0.0.1"]);
    names.has_services("up.test", &[(0, 1, slow.address.port(), "slow.test")]);
    let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Services))));
    // Clients that stay connected hold the endpoints of their last request.
    let (mut silent, mut waiting) = (connect(&proxy), connect(&proxy));
    waiting.write_all(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    begins.recv_timeout(LONG).unwrap();
    assert!(get(&mut silent).ends_with("slow"));
    names.has_services("up.test", &[(0, 1, servers[0].0.address.port(), "other.test")]);
    eventually("another one comes", || ask(&proxy) == "a");
    closes.recv_timeout(LONG).expect("the idle connection is closed");
    release.send(()).unwrap();
    assert!(response(&mut waiting).ends_with("slow"), "the request under way ends well");
    closes.recv_timeout(LONG).expect("and so does its connection");
}

#[test]
fn answers_are_good_for_as_long_as_they_say_within_bounds() {
    let long = Duration::from_secs(3600);
    for (name, ttl, min_ttl, max_ttl, asks_again) in [
        ("its own time", 3600, TICK, long, false),
        ("no shorter than the floor", 0, long, long, false),
        ("no longer than the ceiling", 3600, TICK, TICK, true),
        ("a short time", 0, TICK, long, true),
    ] {
        let names = NameServer::start(ttl);
        names.has_addresses("up.test", &["127.0.0.1"]);
        let question = DnsDiscovery { min_ttl, max_ttl, ..asks(&names, Records::Addresses { port: 9 }) };
        let proxy = start(&found_by(Discovery::Dns(question)));
        let asked = names.questions();
        assert!(asked >= 2, "{name}: both families, {asked}");
        if asks_again {
            eventually(name, || names.questions() >= asked + 4);
        } else {
            thread::sleep(10 * TICK);
            assert_eq!(names.questions(), asked, "{name}");
        }
        drop(proxy);
    }
}

#[test]
fn what_was_found_last_stays_while_nothing_can_be_found() {
    let servers = neighbours();
    let port = servers[0].0.address.port();
    for mood in [Mood::Fails, Mood::KnowsNobody, Mood::Empty, Mood::Dead] {
        let names = NameServer::start(0);
        names.has_addresses("up.test", &["127.0.0.1"]);
        let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Addresses { port }))));
        assert_eq!(proxy.status().discoveries[0].failure, None);
        names.feels(mood);
        names.has_addresses("up.test", &["127.0.0.2"]);
        let failure = || proxy.status().discoveries[0].failure.clone();
        eventually_slowly(&format!("{mood:?}: status says so"), || failure().is_some());
        assert_eq!(who(&proxy), "a", "{mood:?}: {:?}", failure());
        assert_eq!(proxy.status().discoveries[0].endpoints, 1, "{mood:?}");
        if mood != Mood::Dead {
            names.feels(Mood::Well);
            eventually(&format!("{mood:?}: the next set is taken"), || who(&proxy) == "b");
            assert_eq!(failure(), None, "{mood:?}");
        }
    }
}

#[test]
fn one_family_that_fails_does_not_hold_the_other_one_up() {
    let servers = neighbours();
    let port = servers[0].0.address.port();
    let names = NameServer::start(0);
    names.has_addresses("up.test", &["127.0.0.1", "::1"]);
    let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Addresses { port }))));
    assert_eq!(endpoints(&proxy).len(), 2, "{:?}", endpoints(&proxy));
    names.feels(Mood::FailsForIpv6);
    names.has_addresses("up.test", &["127.0.0.2"]);
    eventually("the new address comes, and the one that nobody denies stays", || {
        proxy.take_endpoints().unwrap();
        endpoints(&proxy) == [format!("127.0.0.2:{port}"), format!("[::1]:{port}")]
    });
    let failure = proxy.status().discoveries[0].failure.clone().unwrap();
    assert!(failure.starts_with("AAAA up.test"), "{failure}");
}

#[test]
fn nothing_was_ever_found() {
    let names = NameServer::start(0);
    names.feels(Mood::KnowsNobody);
    let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Addresses { port: 9 }))));
    assert_eq!(ask(&proxy), "503");
    let discovery = proxy.status().discoveries.remove(0);
    assert_eq!((discovery.upstream.as_str(), discovery.source.as_str()), ("up", "DNS up.test:9"));
    assert_eq!(discovery.failure.as_deref(), Some("there are no A and AAAA records for up.test"));
}

#[test]
fn services_have_priorities_and_weights() {
    let [(a, _), (b, _)] = neighbours();
    let c = upstream(answers("c"));
    let names = NameServer::start(0);
    for name in ["a.test", "c.test"] {
        names.has_addresses(name, &["127.0.0.1"]);
    }
    names.has_addresses("b.test", &["127.0.0.2"]);
    let (a, b, c) = (a.address.port(), b.address.port(), c.address.port());
    let all = [(10, 60_000, a, "a.test"), (10, 20_000, b, "B.test"), (20, 9, c, "c.test")];
    names.has_services("up.test", &all);
    let proxy = start(&found_by(Discovery::Dns(asks(&names, Records::Services))));
    let mut stream = connect(&proxy);
    let order: String = (0..8).map(|_| get(&mut stream).chars().last().unwrap()).collect();
    let count = |wanted| order.chars().filter(|name| *name == wanted).count();
    assert_eq!((count('a'), count('b'), count('c')), (6, 2, 0), "{order}");
    names.has_services("up.test", &all[2..]);
    eventually("the reserve is alone", || who(&proxy) == "c");
}

#[test]
fn the_configuration_and_other_sets_stand_side_by_side() {
    let [(a, _), (b, _)] = neighbours();
    let names = NameServer::start(0);
    names.has_addresses("up.test", &["127.0.0.1", "127.0.0.2"]);
    let question = asks(&names, Records::Addresses { port: a.address.port() });
    let mut model = found_by(Discovery::Dns(question));
    // What is said of an endpoint goes before what is found of it.
    let said = model::Endpoint { priority: 1, ..model::Endpoint::tcp(a.address) };
    model.upstreams[0].endpoints.push(said);
    let proxy = start(&model);
    assert_eq!((who(&proxy), endpoints(&proxy).len()), ("b".to_owned(), 2));
    drop(b);
}

#[test]
fn who_stays_stays_ejected() {
    let (flaky, other) = (
        upstream(|mut conn| {
            while conn.head().is_some() {
                conn.send("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n");
            }
        }),
        upstream(answers("b")),
    );
    let names = NameServer::start(0);
    for name in ["a.test", "b.test", "c.test"] {
        names.has_addresses(name, &["127.0.0.1"]);
    }
    let (a, b) = (flaky.address.port(), other.address.port());
    names.has_services("up.test", &[(0, 1, a, "a.test"), (0, 1, b, "b.test")]);
    let mut model = found_by(Discovery::Dns(asks(&names, Records::Services)));
    model.upstreams[0].ejection = Some(Ejection {
        consecutive_5xx: 1,
        consecutive_gateway_errors: 1,
        interval: Duration::from_millis(100),
        base_time: LONG,
        max_time: LONG,
        max_percent: 100,
    });
    let proxy = start(&model);
    eventually("the one that fails is out", || who(&proxy) == "b");
    names.has_services("up.test", &[(0, 1, a, "a.test"), (0, 1, b, "b.test"), (0, 1, closed(), "c.test")]);
    eventually("a third one comes", || {
        proxy.take_endpoints().unwrap();
        endpoints(&proxy).len() == 3
    });
    let status = proxy.status().endpoints;
    let condition = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        status.iter().find(|endpoint| endpoint.endpoint == address).unwrap().condition
    };
    assert_eq!((condition(a), condition(b)), (Condition::Ejected, Condition::Up));
}

fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_file_is_followed() {
    let (a, b) = (upstream(answers("a")), upstream(answers("b")));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endpoints.yaml");
    let yaml = format!("- http://{}\n", a.address);
    let json = format!(r#"[{{"url": "http://{}", "weight": 3}}, "http://{}"]"#, b.address, a.address);
    fs::write(&path, &yaml).unwrap();
    let discovery = Discovery::File { path: path.clone(), base_dir: dir.path().to_owned() };
    let proxy = start(&found_by(discovery));
    assert_eq!(who(&proxy), "a");
    fs::write(&path, &json).unwrap();
    eventually_slowly("the other list is taken", || who(&proxy) == "ab");
    let failure = || proxy.status().discoveries[0].failure.clone();
    fs::write(&path, "- http://127.0.0.1:99999\n").unwrap();
    eventually_slowly("a mistake is told", || {
        failure().is_some_and(|why| why.contains("endpoints.yaml:1:3"))
    });
    assert_eq!(who(&proxy), "ab");
    fs::remove_file(&path).unwrap();
    eventually_slowly("its absence, too", || failure().is_some_and(|why| why.ends_with("is not there")));
    assert_eq!(who(&proxy), "ab");
    fs::write(&path, &yaml).unwrap();
    eventually_slowly("it is back", || who(&proxy) == "a" && failure().is_none());
}

/// Files are looked at once a second.
#[track_caller]
fn eventually_slowly(what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < 2 * LONG, "{what}");
        thread::sleep(TICK);
    }
}

#[test]
fn a_reload_keeps_what_the_same_question_was_answered() {
    let servers = neighbours();
    let names = NameServer::start(0);
    names.has_addresses("up.test", &["127.0.0.1"]);
    let question = asks(&names, Records::Addresses { port: servers[0].0.address.port() });
    let proxy = start(&found_by(Discovery::Dns(question.clone())));
    names.feels(Mood::Fails);
    let slower = DnsDiscovery { max_ttl: 2 * TICK, ..question.clone() };
    proxy.reload(&found_by(Discovery::Dns(slower))).unwrap();
    assert_eq!(who(&proxy), "a");
    let another = DnsDiscovery { name: "other.test".to_owned(), ..question };
    proxy.reload(&found_by(Discovery::Dns(another))).unwrap();
    assert_eq!(who(&proxy), "503");
    proxy.reload(&model(&[servers[1].0.address])).unwrap();
    assert_eq!((who(&proxy).as_str(), proxy.status().discoveries.len()), ("b", 0));
    let asked = names.questions();
    thread::sleep(6 * TICK);
    assert_eq!(names.questions(), asked, "nobody asks any more");
}
