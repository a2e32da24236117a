//! A request, end to end.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::http::Connection;
use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, Net, Nginx, Setup, UPSTREAM_V4, UPSTREAM_V6, Upstream, eventually,
    require_root, skip,
};

use crate::config;

#[test]
fn a_client_gets_the_upstreams_reply_in_both_families() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, ""));
    for client in [CLIENT_V4, CLIENT_V6] {
        let mut connection = Agent::connect(&net, client).unwrap();
        for path in ["/first", "/second?with=query"] {
            let reply = connection.get(path).unwrap();
            assert_eq!((reply.status(), reply.text().as_str()), (200, path), "{client} {path}");
        }
    }
    assert_eq!(upstream.requests().len(), 4);
    let labels = [("route", "all"), ("method", "GET"), ("status", "200")];
    agent.await_metric("gateway_http_requests_total", &labels, |sum| sum == 4.0);
}

#[test]
fn an_upstream_may_be_reached_over_ipv6() {
    require_root!();
    let net = Net::new();
    let upstream =
        Upstream::answering(&net, UPSTREAM_V6, |_| "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix".into());
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().text(), "six");
}

#[test]
fn the_upstream_sees_who_asked_and_nothing_of_the_hop() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    for (client, shown) in [(CLIENT_V4, "198.18.1.2"), (CLIENT_V6, "2001:db8:1::2")] {
        let mut connection = Agent::connect(&net, client).unwrap();
        connection
            .send(
                "GET /headers HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 203.0.113.9\r\n\
                 Forwarded: for=203.0.113.9\r\nConnection: keep-alive, Hop-Note\r\nHop-Note: 1\r\n\
                 Keep-Alive: timeout=5\r\nTE: trailers\r\nX-Kept: yes\r\n\r\n",
            )
            .unwrap();
        assert_eq!(connection.reply().unwrap().status(), 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("host").as_deref(), Some("shop.test"));
        assert_eq!(seen.header("x-kept").as_deref(), Some("yes"));
        // Nobody vouches for the client, so what it claims to have forwarded for is gone.
        assert_eq!(seen.header("x-forwarded-for").as_deref(), Some(shown), "{seen:?}");
        let forwarded = seen.header("forwarded").unwrap_or_else(|| panic!("no Forwarded in {seen:?}"));
        assert!(forwarded.contains(shown) && !forwarded.contains("203.0.113.9"), "{forwarded}");
        for hop in ["hop-note", "keep-alive"] {
            assert_eq!(seen.header(hop), None, "{hop} belongs to the first hop: {seen:?}");
        }
    }
}

#[test]
fn the_chain_of_a_trusted_proxy_is_kept_and_continued() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let config =
        config::with("interfaces: [front0]", ", trusted_proxies: [198.18.1.0/24]", upstream.address());
    let _agent = Setup::new(&net).start(&config);
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").unwrap();
    assert_eq!(connection.reply().unwrap().status(), 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("203.0.113.9, 198.18.1.2"), "{seen:?}");
}

#[test]
fn a_real_server_and_a_large_body_pass_unchanged() {
    require_root!();
    let net = Net::new();
    let Some(_nginx) = Nginx::start(&net) else { return skip("nginx is not installed") };
    let address = SocketAddr::new(UPSTREAM_V4, Nginx::PORT);
    let _agent = Setup::new(&net).start(&config::with("interfaces: [front0]", "", address));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    for (path, length, byte) in [("/1k", 1024, b'k'), ("/1m", 1024 * 1024, b'm'), ("/1k", 1024, b'k')] {
        let reply = connection.get(path).unwrap();
        assert_eq!((reply.status(), reply.body.len()), (200, length), "{path}");
        assert!(reply.body.iter().all(|have| *have == byte), "{path} changed on the way");
    }
    assert_eq!(connection.get("/none").unwrap().status(), 404);
}

#[test]
fn a_body_streams_both_ways_before_it_is_whole() {
    require_root!();
    let net = Net::new();
    // Answers a request's head at once, in chunks of which the second waits.
    let upstream = Upstream::serving(&net, UPSTREAM_V4, |connection, _| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(400));
        connection.send("4\r\nlate\r\n0\r\n\r\n").unwrap();
    });
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    connection.patience(Duration::from_millis(300));
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("early") {
        seen.extend(connection.bytes().expect("the first chunk comes while the second is not yet sent"));
    }
    assert!(!String::from_utf8_lossy(&seen).contains("late"));
    connection.patience(Duration::from_secs(5));
    while !String::from_utf8_lossy(&seen).ends_with("0\r\n\r\n") {
        seen.extend(connection.bytes().unwrap());
    }
}

#[test]
fn a_client_that_leaves_cancels_its_upstream_request() {
    require_root!();
    let net = Net::new();
    let (report, reported) = std::sync::mpsc::channel();
    let upstream = Upstream::serving(&net, UPSTREAM_V4, move |connection, _| {
        connection.patience(Duration::from_secs(5));
        report.send(connection.is_closed()).unwrap();
    });
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    connection.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the upstream has the request", Duration::from_secs(5), || {
        if upstream.requests().is_empty() { Err("not yet") } else { Ok(()) }
    });
    drop(connection);
    let closed = reported.recv_timeout(Duration::from_secs(6)).unwrap();
    assert!(closed, "the upstream's connection stayed open after the client had gone");
}

#[test]
fn a_stale_pooled_connection_is_never_a_502() {
    require_root!();
    for (name, half) in [("closed", false), ("half closed", true)] {
        let net = Net::new();
        // Keeps connections in the gateway's pool, and ends each after its first reply without saying so.
        let upstream = Upstream::serving(&net, UPSTREAM_V4, move |connection, request| {
            assert!(request.start.starts_with("GET"));
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            if half { connection.finish() } else { connection.close() }
        });
        let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        for round in 0..30 {
            let reply = connection.get("/");
            let reply = reply.unwrap_or_else(|error| {
                panic!(
                    "{name}, round {round}, {} requests upstream: no reply: {error}",
                    upstream.requests().len()
                )
            });
            assert_eq!(reply.status(), 200, "{name}, round {round}: {}", reply.text());
        }
    }
}

#[test]
fn an_expected_continue_comes_before_the_body_is_sent() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    let head = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head).unwrap();
    connection.patience(Duration::from_secs(3));
    match connection.bytes() {
        Ok(interim) => {
            assert!(interim.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&interim))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no 100 Continue came"),
        Err(error) => panic!("{error}"),
    }
    connection.send("hello").unwrap();
    assert_eq!(connection.reply().unwrap().status(), 200);
    assert_eq!(upstream.requests().pop().unwrap().body, b"hello");
}

#[test]
fn the_reply_loses_what_belongs_to_the_upstreams_hop() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::answering(&net, UPSTREAM_V4, |_| {
        "HTTP/1.1 200 OK\r\nConnection: Hop-Note\r\nHop-Note: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: yes\r\n\
         Content-Length: 2\r\n\r\nok"
            .into()
    });
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    for _ in 0..2 {
        let reply = connection.get("/").unwrap();
        assert_eq!(reply.header("x-kept").as_deref(), Some("yes"), "{reply:?}");
        assert_eq!((reply.header("hop-note"), reply.header("keep-alive")), (None, None), "{reply:?}");
    }
}

#[test]
fn hosts_and_paths_lead_to_their_upstreams() {
    require_root!();
    let net = Net::new();
    let named = |name: &'static str| {
        Upstream::answering(&net, UPSTREAM_V4, move |_| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
        })
    };
    let (api, users, rest) = (named("api"), named("users"), named("rest"));
    let config = format!(
        "kernel: {{interfaces: [front0]}}\n\
         listeners: {{web: {{address: \"198.18.1.1:8080\"}}}}\n\
         upstreams:\n  api: {{endpoints: [\"http://{}\"]}}\n  users: {{endpoints: [\"http://{}\"]}}\n  rest: {{endpoints: [\"http://{}\"]}}\n\
         routes:\n\
         \x20 api: {{match: {{hosts: [api.test], path: \"/**\"}}, upstream: api}}\n\
         \x20 users: {{match: {{hosts: [api.test], path: \"/v1/users/**\", methods: [GET]}}, upstream: users}}\n\
         \x20 any: {{match: {{hosts: [\"*.any.test\"], path: \"/**\"}}, upstream: rest}}\n",
        api.address(),
        users.address(),
        rest.address()
    );
    let _agent = Setup::new(&net).start(&config);
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    for (method, host, path, want) in [
        ("GET", "api.test", "/", "api"),
        ("GET", "API.test:8080", "/v1/users", "users"),
        ("GET", "api.test", "/v1/users/7?x=1", "users"),
        ("POST", "api.test", "/v1/users/7", "api"),
        ("GET", "api.test", "/v1/usersx", "api"),
        ("GET", "a.any.test", "/v1/users/7", "rest"),
        ("GET", "any.test", "/", ""),
        ("GET", "other.test", "/", ""),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        connection.send(request).unwrap();
        let reply = connection.reply().unwrap();
        if want.is_empty() {
            assert_eq!(reply.status(), 404, "{method} {host}{path}: {reply:?}");
        } else {
            assert_eq!(reply.text(), want, "{method} {host}{path}");
        }
    }
}

#[test]
fn a_body_in_chunks_arrives_whole() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    connection.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let mut sent = Vec::new();
    for size in [1_usize, 10, 65_536, 7, 300_000] {
        let chunk: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        connection.send(format!("{size:x}\r\n")).unwrap();
        connection.send(&chunk).unwrap();
        connection.send("\r\n").unwrap();
        sent.extend(chunk);
    }
    connection.send("0\r\n\r\n").unwrap();
    assert_eq!(connection.reply().unwrap().status(), 200);
    let seen = upstream.requests().pop().unwrap();
    assert!(seen.body == sent, "{} bytes sent, {} came, or they differ", sent.len(), seen.body.len());
}

#[test]
fn a_slow_upstream_is_a_504_and_a_reply_cut_short_is_not_whole() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::serving(&net, UPSTREAM_V4, |connection, request| {
        if request.start.contains("/cut") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").unwrap();
            connection.finish();
        } else {
            connection.patience(Duration::from_secs(5));
            connection.is_closed();
        }
    });
    let config = config::to(&upstream, "").replace("\"]}", "\"], response_timeout: 500ms}");
    let _agent = Setup::new(&net).start(&config);
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    let start = std::time::Instant::now();
    crate::bad_input::assert_problem(&connection.get("/slow").unwrap(), 504);
    let took = start.elapsed();
    assert!((400..3000).contains(&took.as_millis()), "500 ms took {took:?}");
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    let error = connection.get("/cut").expect_err("a reply cut short looks whole");
    assert_ne!(error.kind(), ErrorKind::WouldBlock, "the client is left waiting");
}

/// HAProxy in front, on the client's host, speaks for a client of its own.
#[test]
fn a_client_behind_a_balancer_is_known_and_can_be_denied() {
    require_root!();
    let haproxy = |arguments: &[&str]| Command::new("haproxy").args(arguments).stdout(Stdio::null()).spawn();
    if haproxy(&["-v"]).and_then(|mut child| child.wait()).is_err() {
        return skip("haproxy is not installed");
    }
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let setup = Setup::new(&net);
    let directory = setup.directory().to_owned();
    let listener = ", proxy_protocol: [198.18.1.2/32]";
    let agent = setup.start(&config::with("interfaces: [front0]", listener, upstream.address()));
    for (name, how) in [("text", "send-proxy"), ("binary", "send-proxy-v2")] {
        let file = directory.join(format!("{name}.cfg"));
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
             listen l\n bind 127.0.0.1:9000\n server s 198.18.1.1:8080 {how}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut balancer = net.client.run(|| haproxy(&["-db", "-q", "-f", file.to_str().unwrap()])).unwrap();
        let through: SocketAddr = "127.0.0.1:9000".parse().unwrap();
        let client = std::net::IpAddr::from([127, 0, 0, 1]);
        let mut connection = eventually("the balancer listens", Duration::from_secs(5), || {
            Connection::open(&net.client, client, through)
        });
        assert_eq!(connection.get("/").unwrap().status(), 200, "{name}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{name}");
        // The client's packets never met the kernel's rules: they are asked when it is announced.
        agent.cli(&["deny", "add", "127.0.0.1"]).ok();
        let mut denied = Connection::open(&net.client, client, through).unwrap();
        assert!(denied.get("/").is_err(), "{name}");
        agent.cli(&["deny", "del", "127.0.0.1"]).ok();
        let _ = balancer.kill();
        let _ = balancer.wait();
    }
    agent.await_metric("gateway_accept_refused_total", &[("reason", "denied")], |sum| sum == 2.0);
    // Whoever comes without it is cut off, and counted.
    let mut plain = Agent::connect(&net, CLIENT_V4).unwrap();
    assert!(plain.get("/").is_err());
    agent.await_metric("gateway_accept_refused_total", &[("reason", "proxy_header")], |sum| sum == 1.0);
}
