//! Wrong input, and what the system refuses: named in full, and nothing half-done.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway_tests::{Agent, CLIENT_V4, Net, Setup, UPSTREAM_V4, Upstream, require_root};

use crate::config;

#[test]
fn a_list_file_with_mistakes_is_refused_whole_or_read_in_part() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(""));
    let file = agent.directory().join("list.txt");
    std::fs::write(&file, "192.0.2.0/24\n203.0.113.300\n\n2001:db8::/129\nnonsense\n198.51.100.1\n").unwrap();
    let file = file.to_str().unwrap();
    let mistakes = ["list.txt:2", "203.0.113.300", "list.txt:4", "2001:db8::/129", "list.txt:5", "nonsense"];
    let listed = || agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    agent.cli(&["deny", "import", file]).fails_with(1).says(&mistakes);
    assert_eq!(listed(), Vec::<String>::new(), "part of a wrong file was applied");
    agent.cli(&["deny", "import", file, "--skip-invalid"]).ok().says(&mistakes);
    assert_eq!(listed(), ["192.0.2.0/24", "198.51.100.1/32"]);
    agent.cli(&["deny", "add", "192.0.2.1", "192.0.2.256"]).fails_with(1).says(&["192.0.2.256"]);
    assert_eq!(listed().len(), 2);
}

#[test]
fn more_entries_than_there_is_room_for_are_refused_before_anything_is_written() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only("allow: [192.0.2.1/32]"));
    let file = agent.directory().join("long.txt");
    let capacity = 65_536_u32;
    for up in [true, false] {
        if !up {
            agent.kill();
        }
        let lines = (0..=capacity).fold(String::new(), |mut text, host| {
            writeln!(text, "{}", std::net::Ipv4Addr::from_bits(0x0a00_0000 + host)).unwrap();
            text
        });
        std::fs::write(&file, lines).unwrap();
        // Named lists have room for millions; entries that end by themselves are made singly.
        let refused = agent.cli(&["allow", "import", file.to_str().unwrap(), "--ttl", "1h"]).fails_with(1);
        refused.says(&["allow", "65536", "65537"]);
        assert_eq!(agent.cli(&["allow", "list", "--json"]).ok().prefixes(), ["192.0.2.1/32"], "up: {up}");
    }
}

#[test]
fn what_the_system_refuses_at_start_is_named() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let good = config::to(&upstream, "");
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().join("pins");
    let elsewhere = elsewhere.to_str().unwrap();
    for (name, config, pins, code, texts) in [
        ("an unknown interface", good.replace("[front0]", "[frnt0]"), None, 1, &["frnt0", "front0"][..]),
        ("a pin directory that cannot be", good.clone(), Some("/proc/self/pins"), 3, &["/proc/self/pins"]),
        ("a pin directory that is not on bpffs", good.clone(), Some(elsewhere), 3, &[elsewhere, "bpf"]),
    ] {
        let mut setup = Setup::new(&net);
        if let Some(pins) = pins {
            setup = setup.pinned_at(std::path::Path::new(pins));
        }
        let answer = setup.prepare(&config).start_in_vain();
        assert_eq!(answer.code, code, "{name}: {}", answer.err);
        answer.says(texts);
        let link = net.gateway.command("ip", &["link", "show", "front0"]);
        assert!(!link.contains("xdp"), "{name}: a start that failed left a program behind: {link}");
    }
}

#[test]
fn a_busy_port_is_named_and_a_free_one_is_taken() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let good = config::to(&upstream, "");
    let squatter = net.gateway.run(|| std::net::TcpListener::bind(Agent::v4())).unwrap();
    let mut agent = Setup::new(&net).prepare(&good);
    let answer = agent.start_in_vain();
    assert_eq!(answer.code, 3, "{}", answer.err);
    answer.says(&["198.18.1.1:8080"]);
    drop(squatter);
    agent.start();
    assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().status(), 200);
}

#[test]
fn an_upstream_that_is_down_is_a_quick_502_with_a_reason() {
    require_root!();
    let net = Net::new();
    let refusing = SocketAddr::new(UPSTREAM_V4, 9);
    let _agent = Setup::new(&net).start(&config::with("interfaces: [front0]", "", refusing));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    let start = Instant::now();
    let reply = connection.get("/").unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    assert_problem(&reply, 502);
    // The client's connection is not to blame.
    assert_problem(&connection.get("/again").unwrap(), 502);
}

#[test]
fn an_upstream_that_answers_nothing_like_http_is_a_502() {
    require_root!();
    let net = Net::new();
    for answer in [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 2x0 What\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        let upstream = Upstream::answering(&net, UPSTREAM_V4, move |_| answer.to_owned());
        let _agent = Setup::new(&net).start(&config::to(&upstream, ""));
        let reply = Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap();
        assert_problem(&reply, 502);
    }
}

#[test]
fn a_request_that_no_route_wants_is_a_404() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let config = config::to(&upstream, "").replace("\"/**\"", "\"/v1/**\"");
    let _agent = Setup::new(&net).start(&config);
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    assert_eq!(connection.get("/v1/things").unwrap().status(), 200);
    for path in ["/", "/v1x", "/v2/things"] {
        assert_problem(&connection.get(path).unwrap(), 404);
    }
}

/// A problem document with a stable code.
#[track_caller]
pub(crate) fn assert_problem(reply: &gateway_tests::http::Message, status: u16) {
    assert_eq!(reply.status(), status, "{reply:?}");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/problem+json"), "{reply:?}");
    let problem = reply.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()), "{problem}");
}
