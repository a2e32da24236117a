//! What an operator reads: explain, watch, counters, status, schema, check.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, Net, Setup, Traffic, Upstream, eventually,
    require_root,
};
use serde_json::json;

use crate::config;

#[test]
fn explain_says_what_then_happens() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let lists = "deny: [198.18.1.0/24, \"2001:db8:1::66/128\"]\nallow: [198.18.1.2/32]";
    let mut agent = Setup::new(&net).start(&config::to(&upstream, lists));
    agent.cli(&["deny", "add", "2001:db8:1::2", "--ttl", "1h", "--reason", "too fast"]).ok();
    for (source, rule) in [
        (CLIENT_V4, Some("198.18.1.2/32")),
        (DENIED_V4, Some("198.18.1.0/24")),
        (CLIENT_V6, Some("too fast")),
        (DENIED_V6, Some("2001:db8:1::66/128")),
    ] {
        let explained = explain(&agent, source);
        let passes = Agent::connect(&net, source).is_ok();
        assert_eq!(explained["verdict"], if passes { "pass" } else { "drop" }, "{source}: {explained}");
        let stages = explained["stages"].as_array().unwrap();
        let deciding = stages.iter().rev().find(|stage| !stage["entry"].is_null());
        let decided = deciding.and_then(|stage| stage["entry"]["rule"].as_str());
        assert_eq!(decided, rule, "{source}: {explained}");
        let labels = [("reason", explained["reason"].as_str().unwrap())];
        agent.await_metric("gateway_kernel_packets_total", &labels, |sum| sum >= 1.0);
    }
    // It reads the maps, so it needs no agent.
    agent.kill();
    assert_eq!(explain(&agent, DENIED_V4)["verdict"], "drop");
    assert_eq!(explain(&agent, "203.0.113.1".parse().unwrap())["verdict"], "pass");
    agent.cli(&["explain", "packet", "203.0.113"]).fails_with(2);
}

#[test]
fn watch_shows_a_drop_as_it_happens() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only("deny: [198.18.1.66/32]"));
    let mut watch = agent.cli_running(&["watch"]);
    let traffic = Traffic::start(&net, &[DENIED_V4]);
    let (line, lines) = std::sync::mpsc::channel();
    let output = watch.stdout.take().unwrap();
    std::thread::spawn(move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    let seen = lines.recv_timeout(Duration::from_secs(5));
    watch.kill().unwrap();
    watch.wait().unwrap();
    traffic.stop();
    let seen = seen.expect("watch said nothing of a stream of dropped datagrams");
    for text in ["drop", "198.18.1.66", "front0"] {
        assert!(seen.contains(text), "{text} is not in {seen}");
    }
}

#[test]
fn counters_and_status_agree_with_the_traffic_with_the_agent_up_and_down() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only("deny: [198.18.1.66/32]"));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(CLIENT_V4, 50);
    let sent = traffic.stop().sent();
    for up in [true, false] {
        if !up {
            agent.kill();
        }
        let counters = agent.cli(&["counters", "--json"]).ok().json();
        let rules = counters["rules"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["rule"] == "198.18.1.66/32").unwrap();
        assert_eq!(rule["packets"], sent, "up: {up}: {counters}");
        // Ethernet, IPv4, UDP and eight bytes.
        assert_eq!(rule["bytes"], sent * (14 + 20 + 8 + 8), "up: {up}: {counters}");
        let status = agent.status();
        assert!(status.to_string().contains("front0"), "up: {up}: {status}");
        let maps = status["maps"].as_array().unwrap_or_else(|| panic!("no maps in {status}"));
        let deny = maps.iter().find(|map| map["map"] == "lists_v4").unwrap();
        assert_eq!(deny["entries"], 1, "{deny}");
        assert!(deny["capacity"].as_u64().unwrap() >= 65_536, "{deny}");
        // The same for people.
        for command in ["counters", "status"] {
            assert!(agent.cli(&[command]).ok().out.contains("front0"), "{command}, up: {up}");
        }
    }
}

#[test]
fn the_schema_is_json_and_knows_the_configuration() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).prepare("");
    let schema = agent.cli(&["schema"]).ok().json();
    for key in ["kernel", "listeners", "upstreams", "routes", "admin"] {
        assert!(schema["properties"][key].is_object(), "{key} is not in the schema");
    }
}

#[test]
fn check_names_every_mistake_with_its_place() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let good = config::to(&upstream, "deny: [192.0.2.0/24]");
    let agent = Setup::new(&net).prepare(&good);
    let path = agent.config();
    let path = path.to_str().unwrap();
    agent.cli(&["check", "--config", path]).ok();

    let mistyped = "adress"; // typos: ignore
    agent.configure(
        &good
            .replace("192.0.2.0/24", "192.0.2.0/33")
            .replace("upstream: app", "upstream: ap")
            .replace("address", mistyped),
    );
    let answer = agent.cli(&["check", "--config", path]).fails_with(1);
    let text = format!("{}{}", answer.out, answer.err);
    for part in ["gateway.yaml:3:", "192.0.2.0/33", "^", mistyped, "address", "app"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let answer = agent.cli(&["check", "--config", path, "--format", "json"]).fails_with(1);
    assert!(answer.out.contains("192.0.2.0/33") && answer.out.contains(mistyped), "{}", answer.out);
    let answer = agent.cli(&["check", "--config", "/nowhere/gateway.yaml"]).fails_with(1);
    let text = format!("{}{}", answer.out, answer.err);
    assert!(text.contains("/nowhere/gateway.yaml"), "{text}");
}

#[test]
fn health_and_readiness_are_told_apart() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(""));
    assert_eq!((agent.admin("/healthz"), agent.admin("/readyz")), (Some(200), Some(200)));
    assert_eq!(agent.admin("/nothing"), Some(404));
    let mode = std::os::unix::fs::PermissionsExt::mode(&agent.socket().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the socket's mode");
}

/// The answer; its exit code is 0 for a packet that would pass and 1 for one that would not.
fn explain(agent: &Agent, source: IpAddr) -> serde_json::Value {
    let answer = agent.cli(&["explain", "packet", &source.to_string(), "--json"]);
    let explained = answer.json();
    assert_eq!(answer.code, i32::from(explained["verdict"] == "drop"), "{explained}");
    explained
}

#[test]
fn the_access_log_says_what_the_packet_rules_say() {
    require_root!();
    for attach in ["", "attach: off"] {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let config = config::to(&upstream, &format!("allow: [\"2001:db8:1::2/128\"]\n{attach}"));
        let agent = Setup::new(&net).start(&format!("{config}access_log: {{path: access.log}}\n"));
        let log = agent.directory().join("access.log");
        let lines = || -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let on_trial = || {
            agent.cli(&["deny", "add", "198.18.1.0/24", "--shadow", "--reason", "on trial"]).ok();
            // So long what was said before is taken for true.
            std::thread::sleep(Duration::from_millis(1100));
        };
        for (step, client, before, expected) in [
            ("nothing names it", CLIENT_V4, None, json!({"reason": "no_match"})),
            (
                "in shadow mode",
                CLIENT_V4,
                Some(&on_trial),
                json!({"reason": "deny_shadow", "list": "deny", "rule": "on trial"}),
            ),
            (
                "allowed",
                CLIENT_V6,
                None,
                json!({"reason": "allow_list", "list": "config-allow", "rule": "2001:db8:1::2/128"}),
            ),
        ] {
            if let Some(before) = before {
                before();
            }
            let count = lines().len();
            assert_eq!(Agent::connect(&net, client).unwrap().get("/").unwrap().status(), 200);
            eventually("the line", Duration::from_secs(5), || {
                if lines().len() > count { Ok(()) } else { Err(format!("{:?}", lines())) }
            });
            assert_eq!(lines().pop().unwrap()["kernel"], expected, "{step}, {attach:?}");
        }
    }
}
