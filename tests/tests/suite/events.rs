//! Sampled verdicts: filtered for whoever watches, remembered for `explain`, and the rates beside them.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gateway_tests::{Agent, CLIENT_V4, DENIED_V4, DENIED_V6, Net, Setup, Traffic, eventually, require_root};
use serde_json::Value;

use crate::config;

const DENY_BOTH: &str = "deny: [198.18.1.66/32, {cidr: \"2001:db8:1::66/128\", reason: \"the v6 one\"}]";

#[test]
fn a_watcher_gets_what_its_filter_names() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(DENY_BOTH));
    let (v4, v6) = (DENIED_V4.to_string(), DENIED_V6.to_string());
    let filters: [(&[&str], &str); 4] = [
        (&["--rule", "the v6 one"], &v6),
        (&["--rule", "198.18.1.66/32", "--reason", "deny_list"], &v4),
        (&["--prefix", "2001:db8:1::/64", "--prefix", "192.0.2.1"], &v6),
        (&["--prefix", "198.18.1.0/24", "--reason", "bad_tcp", "--reason", "deny_list"], &v4),
    ];
    let watching = filters.map(|(filter, wanted)| {
        let arguments = [&["watch", "--json"], filter].concat();
        let mut watch = agent.cli_running(&arguments);
        let lines = lines(&mut watch);
        (arguments, watch, lines, wanted)
    });
    let mut nobody = agent.cli_running(&["watch", "--json", "--reason", "ban_list"]);
    let silence = lines(&mut nobody);
    let traffic = Traffic::start(&net, &[DENIED_V4, DENIED_V6]);
    for (arguments, mut watch, lines, wanted) in watching {
        for _ in 0..20 {
            let line = lines.recv_timeout(Duration::from_secs(5));
            let line = line.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
            let line: Value = serde_json::from_str(&line).unwrap();
            // On a slow machine some may be left out, which says of which reason.
            if line["left_out"].is_null() {
                assert_eq!(line["source"], *wanted, "{arguments:?}: {line}");
            }
            assert_eq!(line["reason"], "deny_list", "{arguments:?}: {line}");
        }
        end(&mut watch);
    }
    assert!(silence.try_recv().is_err(), "a watcher of bans heard of something else");
    end(&mut nobody);
    traffic.stop();
    agent.cli(&["watch", "--reason", "denylist"]).fails_with(2).says(&["denylist", "deny_list", "bad_tcp"]);
}

#[test]
fn explain_remembers_what_was_last_seen_of_a_source() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DENY_BOTH));
    let explain = |agent: &Agent, source: &str, code| {
        agent.cli(&["explain", "packet", source, "--json"]).fails_with(code).json()
    };
    assert_eq!(explain(&agent, "198.18.1.66", 1)["recent"], Value::Array(Vec::new()));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    let recent = eventually("eight events are remembered", Duration::from_secs(5), || {
        let explained = explain(&agent, "198.18.1.66", 1);
        match explained["recent"].as_array() {
            Some(recent) if recent.len() == 8 => Ok(recent.clone()),
            _ => Err(explained),
        }
    });
    traffic.stop();
    for event in &recent {
        let of = ["reason", "rule", "interface", "source"].map(|key| event[key].as_str().unwrap());
        assert_eq!(of, ["deny_list", "198.18.1.66/32", "front0", "198.18.1.66"], "{event}");
    }
    let times: Vec<u64> = recent.iter().map(|event| event["time_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "newest first: {times:?}");
    // Whoever passes plainly leaves no event.
    assert_eq!(explain(&agent, "198.18.1.2", 0)["recent"], Value::Array(Vec::new()));
    let answer = agent.cli(&["explain", "packet", "198.18.1.66"]).fails_with(1);
    assert!(answer.out.contains("ago\tfront0\tdrop\tdeny_list\t198.18.1.66/32\tudp"), "{}", answer.out);
    agent.kill();
    assert_eq!(explain(&agent, "198.18.1.66", 1)["recent"], Value::Null);
    let answer = agent.cli(&["explain", "packet", "198.18.1.66"]).fails_with(1);
    assert!(answer.out.contains("events need a running agent"), "{}", answer.out);
}

#[test]
fn an_agent_that_has_ended_leaves_nothing_to_be_sampled() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DENY_BOTH));
    let traffic = Traffic::start(&net, &[DENIED_V4]);
    let lost = |agent: &Agent| agent.cli_quiet(&["counters", "--json"]).ok().json()["events_lost"].clone();
    // Far more than the agent reads while nobody watches, so that some are lost.
    eventually("the credit is spent", Duration::from_secs(10), || match lost(&agent) {
        Value::Number(count) if count.as_u64() > Some(0) => Ok(()),
        other => Err(other),
    });
    agent.terminate();
    let (before, dropped) = (lost(&agent), agent.reason("deny_list"));
    eventually("more is dropped", Duration::from_secs(5), || {
        let now = agent.reason("deny_list");
        if now > dropped + 200 { Ok(()) } else { Err(now) }
    });
    assert_eq!(lost(&agent), before, "nobody reads, so nothing is lost");
    traffic.stop();
}

#[test]
fn rates_are_shown_with_the_agent_up_and_down() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DENY_BOTH));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    for up in [true, false] {
        if !up {
            agent.kill();
        }
        let mut watch = agent.cli_running(&["watch", "--rate", "--json"]);
        let lines = lines(&mut watch);
        let began = Instant::now();
        let seconds: Vec<Value> = (0..2)
            .map(|_| serde_json::from_str(&lines.recv_timeout(Duration::from_secs(5)).unwrap()).unwrap())
            .collect();
        assert!(began.elapsed() >= Duration::from_millis(1900), "two lines in {:?}", began.elapsed());
        end(&mut watch);
        for second in seconds {
            let row = |key: &str, name: &str, wanted: &str| {
                let rows = second[key].as_array().unwrap();
                rows.iter().find(|row| row[name] == wanted).cloned().unwrap_or_else(|| panic!("{second}"))
            };
            let dropped = row("reasons", "reason", "deny_list");
            assert_eq!((&dropped["verdict"], &dropped["interface"]), (&"drop".into(), &"front0".into()));
            let packets = dropped["packets_per_second"].as_u64().unwrap();
            assert!(packets > 10, "up: {up}: {second}");
            let rule = row("rules", "rule", "198.18.1.66/32");
            let bytes = rule["bytes_per_second"].as_u64().unwrap();
            // Ethernet, IPv4, UDP and eight bytes; the counters of a rule and its reason are read one after
            // the other while packets come, and rounded.
            assert!(bytes.abs_diff(packets * 50) <= packets * 50 / 5 + 500, "up: {up}: {second}");
            row("reasons", "reason", "no_match");
        }
    }
    traffic.stop();
}

#[test]
fn rules_beyond_the_limit_share_a_series() {
    require_root!();
    let net = Net::new();
    let deny = "deny: [198.18.1.66/32, 192.0.2.1, 192.0.2.2, 192.0.2.3]";
    let mut agent = Setup::new(&net).prepare(&config::kernel_only(deny));
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), text.replace("admin: {", "admin: {max_rule_labels: 1, ")).unwrap();
    agent.start();
    let traffic = Traffic::start(&net, &[DENIED_V4]);
    let hits = "gateway_rule_hits_total";
    agent.await_metric(hits, &[("rule", "198.18.1.66/32"), ("list", "config-deny")], |sum| sum > 10.0);
    traffic.stop();
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("gateway_rule_labels_left_out", &[]), 3.0);
    assert_eq!(metrics.sum(hits, &[("rule", "other"), ("list", "config-deny")]), 0.0);
    assert_eq!(metrics.sum(hits, &[("rule", "192.0.2.1/32")]), 0.0);
    // A reload is enough to see the others.
    std::fs::write(agent.config(), text).unwrap();
    agent.cli(&["reload"]).ok();
    assert_eq!(agent.metrics().sum("gateway_rule_labels_left_out", &[]), 0.0);
}

/// The lines that a running command prints, as they come.
fn lines(command: &mut Child) -> Receiver<String> {
    let (line, lines) = channel();
    let output = command.stdout.take().unwrap();
    std::thread::spawn(move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

fn end(command: &mut Child) {
    command.kill().unwrap();
    command.wait().unwrap();
}
