//! Start, limits, reload and drain.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::proxy::{Proxy, ProxyError};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::harness::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_busy_port_is_named_even_where_it_could_be_shared() {
    let up = echo();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = start(&model(&[up.address]));
    for address in [plain.local_addr().unwrap(), shared.status().listeners[0].address] {
        let mut model = model(&[up.address]);
        model.listeners[0].address = address;
        let error = Proxy::start(&model, Arc::new(|_| true)).unwrap_err();
        assert!(matches!(error, ProxyError::InUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("web") && text.contains(&address.to_string()), "{text}");
    }
}

#[test]
fn connections_beyond_the_limit_wait() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.workers = 2;
    model.listeners[0].max_connections = 2;
    let proxy = start(&model);
    let mut first = connect(&proxy);
    let mut second = connect(&proxy);
    assert_eq!(status(&get(&mut first)), "200");
    assert_eq!(status(&get(&mut second)), "200");
    let mut third = connect(&proxy);
    third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(read_rest(&mut third, Duration::from_millis(300)), (String::new(), false));
    assert_eq!(proxy.status().listeners[0].connections, 2);
    assert_eq!(backlog(proxy.status().listeners[0].address), 1, "it waits in the system, not in the gateway");
    drop(first);
    third.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(status(&response(&mut third)), "200");
}

/// Connections to a local address that the system has made and nobody has accepted.
fn backlog(address: std::net::SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let waiting = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields[1].ends_with(&port) && fields[3] == "0A";
        listens.then(|| usize::from_str_radix(&fields[4][9..], 16).unwrap())
    });
    waiting.sum()
}

#[test]
fn the_limit_may_be_raised_while_connections_wait() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].max_connections = 1;
    let proxy = start(&model);
    let mut first = connect(&proxy);
    assert_eq!(status(&get(&mut first)), "200");
    let mut second = connect(&proxy);
    second.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(read_rest(&mut second, Duration::from_millis(200)), (String::new(), false));
    model.listeners[0].max_connections = 2;
    proxy.reload(&model).unwrap();
    second.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(status(&response(&mut second)), "200");
    assert_eq!(status(&get(&mut first)), "200");
}

/// Where the upstream is: says to a test that it runs as the child that it started itself.
const CHILD: &str = "GATEWAY_TEST_UPSTREAM";

/// Serves with hardly any file descriptors, in a process of its own, for the limit is the process's. What it
/// prints is for the test that started it.
fn serve_with_few_file_descriptors(upstream: &str) {
    let proxy = start(&model(&[upstream.parse().unwrap()]));
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + 7), maximum: Some(open + 7) };
    setrlimit(Resource::Nofile, limit).unwrap();
    println!("\nlistening on {}", proxy.status().listeners[0].address);
    // Until the test is done.
    let _ = std::io::stdin().read_line(&mut String::new());
    println!("\nused {} ms", cpu_ms());
}

/// The processor's time that this process has used.
fn cpu_ms() -> u128 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap()).as_millis()
}

#[test]
fn without_file_descriptors_connections_wait_and_are_not_lost() {
    if let Ok(upstream) = std::env::var(CHILD) {
        return serve_with_few_file_descriptors(&upstream);
    }
    let up = echo();
    let this = "lifecycle::without_file_descriptors_connections_wait_and_are_not_lost";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(CHILD, up.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = |what: &str| lines.find_map(|line| line.strip_prefix(what).map(str::to_owned)).unwrap();
    let address = said("listening on ");
    // A request needs two of the seven descriptors.
    let mut streams: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        // So that descriptors are taken by connections that wait, and not given back at once.
        thread::sleep(Duration::from_millis(2));
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let (answer, closed) = read_rest(stream, LONG);
        // Where a descriptor was left for the client but none for the upstream, it is told so.
        assert!(matches!(status(&answer), "200" | "502") && closed, "connection {index}: {answer:?}");
    }
    // As many as there are descriptors hold them; the rest wait, without the worker spinning over them.
    let idle: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(&address).unwrap()).collect();
    thread::sleep(Duration::from_millis(1500));
    assert!(backlog(address.parse().unwrap()) > 0, "some wait");
    drop(idle);
    eventually("it serves again", || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        status(&get(&mut stream)) == "200"
    });
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let used: u64 = said("used ").trim_end_matches(" ms").parse().unwrap();
    assert!(used < 700, "{used} ms of the processor's time for waiting");
    child.wait().unwrap();
}

#[test]
fn a_denied_peer_is_not_served() {
    let up = echo();
    let allowed = Arc::new(AtomicBool::new(false));
    let admission = Arc::clone(&allowed);
    let proxy =
        Proxy::start(&model(&[up.address]), Arc::new(move |_| admission.load(Ordering::SeqCst))).unwrap();
    assert_eq!(talk(&proxy, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), (String::new(), true));
    allowed.store(true, Ordering::SeqCst);
    assert_eq!(status(&get(&mut connect(&proxy))), "200");
}

#[test]
fn a_drain_finishes_what_is_in_flight() {
    let up = upstream(|mut conn| {
        while conn.head().is_some() {
            thread::sleep(Duration::from_millis(300));
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut idle = connect(&proxy);
    assert_eq!(status(&get(&mut idle)), "200");
    let mut busy = connect(&proxy);
    busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it is on its way", || proxy.status().endpoints[0].in_use == 1);
    let address = proxy.status().listeners[0].address;
    let drained = thread::spawn(move || block_on(proxy.drain(LONG)));
    let (answer, closed) = read_rest(&mut busy, LONG);
    assert_eq!((status(&answer), closed), ("200", true));
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(read_rest(&mut idle, LONG), (String::new(), true));
    assert_eq!(drained.join().unwrap().cut, 0);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_drain_serves_a_connection_that_was_just_made() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let mut fresh = connect(&proxy);
    let mut late = connect(&proxy);
    fresh.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("both are accepted", || proxy.status().listeners[0].connections >= 1);
    let drain = proxy.drain(LONG);
    let drained = thread::spawn(move || block_on(drain));
    late.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    for stream in [&mut fresh, &mut late] {
        let (answer, closed) = read_rest(stream, LONG);
        assert_eq!((status(&answer), closed), ("200", true));
    }
    assert_eq!(drained.join().unwrap().cut, 0);
}

#[test]
fn a_drain_does_not_keep_the_status_from_being_read() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.is_closed();
    });
    let proxy = start(&model(&[up.address]));
    let mut busy = connect(&proxy);
    busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it is on its way", || proxy.status().endpoints[0].in_use == 1);
    let drain = proxy.drain(Duration::from_secs(3));
    let drained = thread::spawn(move || block_on(drain));
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(proxy.status().endpoints[0].in_use, 1);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(busy);
    assert_eq!(drained.join().unwrap().cut, 0);
}

#[test]
fn a_drain_cuts_at_its_deadline() {
    let up = upstream(|mut conn| {
        conn.head();
        conn.is_closed();
    });
    let proxy = start(&model(&[up.address]));
    let mut busy = connect(&proxy);
    busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it is on its way", || proxy.status().endpoints[0].in_use == 1);
    let begun = Instant::now();
    assert_eq!(block_on(proxy.drain(Duration::from_millis(300))).cut, 1);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(read_rest(&mut busy, LONG), (String::new(), true));
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let (one, two) = (echo(), echo());
    let mut config = model(&[one.address]);
    config.workers = 2;
    let proxy = Arc::new(start(&config));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, stop, served) = (Arc::clone(&proxy), Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let mut stream = connect(&proxy);
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(status(&get(&mut stream)), "200");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for turn in 0..20 {
        let address = if turn % 2 == 0 { two.address } else { one.address };
        config.upstreams[0].endpoints[0] = gateway::model::Endpoint::tcp(address);
        assert!(!proxy.reload(&config).unwrap().workers_need_restart);
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert!(served.load(Ordering::SeqCst) > 100);
    assert!(two.accepted.load(Ordering::SeqCst) > 0, "the second upstream was used");
}

#[test]
fn a_reload_changes_listeners_all_or_none() {
    let up = echo();
    let mut config = model(&[up.address]);
    let proxy = start(&config);
    let mut stream = connect(&proxy);
    assert_eq!(status(&get(&mut stream)), "200");

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wrong = config.clone();
    wrong.routes.clear();
    wrong.listeners.push(gateway::model::Listener {
        name: "second".to_owned(),
        address: busy.local_addr().unwrap(),
        ..config.listeners[0].clone()
    });
    assert!(matches!(proxy.reload(&wrong), Err(ProxyError::InUse { .. })));
    assert_eq!(status(&get(&mut stream)), "200", "the former routes hold");
    assert_eq!(proxy.status().listeners.len(), 1);

    drop(busy);
    config.listeners = vec![wrong.listeners[1].clone()];
    config.workers = 5;
    assert!(proxy.reload(&config).unwrap().workers_need_restart);
    assert_eq!(status(&get(&mut connect(&proxy))), "200", "the new listener serves");
    assert_eq!(proxy.status().listeners[0].name, "second");
    let last = get(&mut stream);
    assert_eq!(status(&last), "200", "the old connection has one request more");
    assert!(last.contains("connection: close"), "{last}");
    eventually("the old connection is gone", || proxy.status().listeners[0].connections <= 1);
}

#[test]
fn a_listener_that_goes_serves_who_is_connected_already() {
    let up = echo();
    let mut both = model(&[up.address]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    both.listeners.push(gateway::model::Listener {
        name: "goes".to_owned(),
        address: port,
        // A connection that has been answered before the reload may wait for another request.
        idle_timeout: Duration::from_millis(200),
        ..both.listeners[0].clone()
    });
    let mut one = both.clone();
    one.listeners.pop();
    let proxy = start(&one);
    for turn in 0..30 {
        proxy.reload(&both).unwrap();
        let mut stream = TcpStream::connect(port).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        proxy.reload(&one).unwrap();
        let (answer, closed) = read_rest(&mut stream, LONG);
        assert_eq!((status(&answer), closed), ("200", true), "turn {turn}: {answer}");
        // Whether the port is free again cannot be asked by connecting: another test may have it by now.
        assert_eq!(proxy.status().listeners.len(), 1, "nobody listens any more");
    }
}

/// Longer than a connection waits before it gives back what it does not need.
const UNTIL_REST: Duration = Duration::from_millis(1300);

#[test]
fn a_connection_that_rested_goes_on() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    for _ in 0..2 {
        assert_eq!(status(&get(&mut client)), "200");
        thread::sleep(UNTIL_REST);
    }
    for half in ["GET / HTTP/1.1\r\nho", "st: a\r\n\r\n"] {
        client.write_all(half.as_bytes()).unwrap();
        thread::sleep(UNTIL_REST);
    }
    assert_eq!(status(&response(&mut client)), "200", "a head that comes in parts");
    thread::sleep(UNTIL_REST);
    client
        .write_all("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n".as_bytes())
        .unwrap();
    assert_eq!(status(&response(&mut client)), "200");
    assert_eq!(status(&response(&mut client)), "200");
    thread::sleep(UNTIL_REST);
    client.write_all(b"nonsense\r\n\r\n").unwrap();
    assert_eq!(status(&response(&mut client)), "400");
}

#[test]
fn a_connection_that_rests_ends_like_any_other() {
    let up = echo();
    let mut model = model(&[up.address]);
    let resting = |proxy: &Proxy| {
        let mut client = connect(proxy);
        assert_eq!(status(&get(&mut client)), "200");
        thread::sleep(UNTIL_REST);
        client
    };
    let proxy = start(&model);
    let client = resting(&proxy);
    assert_eq!(proxy.status().listeners[0].connections, 1);
    drop(client);
    eventually("it ends with its client", || proxy.status().listeners[0].connections == 0);
    let mut client = resting(&proxy);
    let began = Instant::now();
    assert_eq!(block_on(proxy.drain(LONG)).cut, 0);
    assert!(began.elapsed() < LONG / 2, "a drain does not wait for it");
    assert_eq!(read_rest(&mut client, LONG), (String::new(), true));
    model.listeners[0].idle_timeout = 2 * UNTIL_REST;
    let proxy = start(&model);
    let mut client = resting(&proxy);
    let began = Instant::now();
    assert_eq!(read_rest(&mut client, LONG), (String::new(), true), "it ends with its time");
    assert!(began.elapsed() < LONG / 2);
    drop(proxy);
}
