//! Recently seen sources: who passed lately, in the kernel and at accept.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, Net, Setup, Traffic, Upstream, eventually, require_root,
};

use crate::config;

const DENY: &str = "deny: [198.18.1.66/32]";

#[test]
fn who_passed_is_seen_and_who_was_dropped_is_not() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(DENY));
    let traffic = Traffic::start(&net, &[CLIENT_V4, CLIENT_V6, DENIED_V4]);
    traffic.await_more(CLIENT_V4, 50);
    traffic.await_more(CLIENT_V6, 50);
    traffic.stop();
    for client in [CLIENT_V4, CLIENT_V6] {
        await_source(&agent, &client.to_string());
    }
    let seen = recent(&agent, 60);
    assert!(!seen.contains(&DENIED_V4.to_string()), "{seen:?}");
    // The agent has set the mask by now, and a trickle is still seen whole.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!recent(&agent, 1).contains(&CLIENT_V4.to_string()), "it has been silent for two seconds");
    let traffic = Traffic::start(&net, &[CLIENT_V4]);
    traffic.await_more(CLIENT_V4, 1);
    traffic.stop();
    assert!(recent(&agent, 1).contains(&CLIENT_V4.to_string()), "and speaks again");
}

#[test]
fn who_was_admitted_is_seen_at_accept() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, &format!("{DENY}\nattach: off")));
    Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap();
    let _ = Agent::connect(&net, DENIED_V4).and_then(|mut connection| connection.get("/"));
    assert_eq!(recent(&agent, 60), [CLIENT_V4.to_string()]);
}

fn await_source(agent: &Agent, source: &str) {
    eventually(&format!("{source} is seen"), Duration::from_secs(5), || {
        let seen = recent(agent, 60);
        if seen.contains(&source.to_owned()) { Ok(()) } else { Err(seen) }
    });
}

/// Asks the agent over its socket.
fn recent(agent: &Agent, within_seconds: u64) -> Vec<String> {
    let body = format!("{{\"within_seconds\":{within_seconds}}}");
    let request = format!(
        "POST /api/v1/sources HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
    let reply: serde_json::Value = serde_json::from_str(body).unwrap();
    let sources = reply["sources"].as_array().unwrap_or_else(|| panic!("no sources in {reply}"));
    sources.iter().map(|source| source.as_str().unwrap().to_owned()).collect()
}
