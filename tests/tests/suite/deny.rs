//! Denied sources: dropped at the driver, counted, and released when told.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use gateway_tests::frames::{self, DOT1AD, DOT1Q, Tap, Wire};
use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, GATEWAY_V4, GATEWAY_V6, Net, Setup, Traffic, Upstream,
    eventually, require_root,
};

use crate::config;

const DENY_BOTH: &str = "deny: [198.18.1.66/32, \"2001:db8:1::66/128\"]";

#[test]
fn a_denied_source_cannot_connect_and_is_counted() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, DENY_BOTH));
    for (denied, other, rule) in
        [(DENIED_V4, CLIENT_V4, "198.18.1.66/32"), (DENIED_V6, CLIENT_V6, "2001:db8:1::66/128")]
    {
        let before = agent.metrics();
        let refused = Agent::connect(&net, denied).expect_err("a denied source connected");
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "{denied}: dropped, not refused: {refused}");
        assert_eq!(Agent::connect(&net, other).unwrap().get("/").unwrap().status(), 200, "{other}");
        let drops = [("interface", "front0"), ("verdict", "drop")];
        let (packets, bytes, hits) =
            ("gateway_kernel_packets_total", "gateway_kernel_bytes_total", "gateway_rule_hits_total");
        let dropped = before.sum(packets, &drops);
        agent.await_metric(packets, &drops, |sum| sum == dropped + 1.0);
        agent.await_metric(bytes, &drops, |sum| sum >= before.sum(bytes, &drops) + 60.0);
        agent.await_metric(hits, &[("rule", rule), ("list", "config-deny")], |sum| sum == 1.0);
    }
}

#[test]
fn allow_beats_deny() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let lists = "deny: [198.18.1.0/24, \"2001:db8:1::/64\"]\nallow: [198.18.1.2/32, \"2001:db8:1::2/128\"]";
    let _agent = Setup::new(&net).start(&config::to(&upstream, lists));
    for (source, passes) in [(CLIENT_V4, true), (DENIED_V4, false), (CLIENT_V6, true), (DENIED_V6, false)] {
        assert_eq!(Agent::connect(&net, source).is_ok(), passes, "{source}");
    }
}

#[test]
fn tags_do_not_hide_a_source() {
    require_root!();
    for attach in ["native", "generic"] {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(&format!("{DENY_BOTH}\nattach: {attach}")));
        let wire = Wire::open(&net.client, "eth0");
        let mut tap = Tap::open(&net.gateway, "front0");
        let mut dropped = 0;
        for (name, tags) in [
            ("untagged", &[][..]),
            ("one tag", &[(DOT1Q, 7)]),
            ("one service tag", &[(DOT1AD, 7)]),
            ("a priority tag", &[(DOT1Q, 0xe000)]),
            ("two tags", &[(DOT1AD, 7), (DOT1Q, 8)]),
            ("two tags of one kind", &[(DOT1Q, 7), (DOT1Q, 8)]),
        ] {
            for (denied, other, gateway) in
                [(DENIED_V4, CLIENT_V4, GATEWAY_V4), (DENIED_V6, CLIENT_V6, GATEWAY_V6)]
            {
                for (source, mark) in [(denied, b"denied"), (other, b"passes")] {
                    let datagram = frames::udp(9, 9, mark);
                    let (ethertype, packet) = frames::ip(source, gateway, frames::UDP, &datagram);
                    wire.send(&frames::ethernet(tags, ethertype, &packet));
                }
                let seen = tap.until(b"passes");
                assert_eq!(seen.len(), 1, "{attach}: {name}: the frame of {denied} passed: {seen:02x?}");
                dropped += 1;
            }
        }
        let hits = agent.await_metric("gateway_rule_hits_total", &[("list", "config-deny")], |sum| sum > 0.0);
        assert_eq!(hits, f64::from(dropped), "{attach}: each dropped frame is one hit");
    }
}

#[test]
fn a_deny_holds_for_a_connection_that_is_open_and_its_end_heals_it() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, ""));
    for (client, prefix) in [(CLIENT_V4, "198.18.1.2/32"), (CLIENT_V6, "2001:db8:1::2/128")] {
        let mut connection = Agent::connect(&net, client).unwrap();
        connection.get("/before").unwrap();
        let requests = upstream.requests().len();
        agent.cli(&["deny", "add", prefix, "--reason", "misbehaves"]).ok();
        connection.patience(Duration::from_millis(400));
        let silence = connection.get("/while").expect_err("a denied source got a reply");
        assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{client}: {silence}");
        assert_eq!(upstream.requests().len(), requests, "the upstream saw a denied source's request");
        agent.await_metric("gateway_rule_hits_total", &[("rule", "misbehaves")], |sum| sum >= 1.0);
        agent.cli(&["deny", "del", prefix]).ok();
        // TCP sends the request again by itself.
        connection.patience(Duration::from_secs(10));
        assert_eq!(connection.reply().unwrap().text(), "/while", "{client}");
    }
}

#[test]
fn a_ban_ends_by_the_kernels_clock_with_or_without_the_agent() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(DENIED_V4, 20);
    for killed in [false, true] {
        if killed {
            agent.kill();
        }
        let start = Instant::now();
        agent.cli(&["deny", "add", "198.18.1.66", "--ttl", "2s"]).ok();
        let before = traffic.arrived(DENIED_V4);
        traffic.await_more(CLIENT_V4, 500);
        assert!(start.elapsed() < Duration::from_millis(1900), "this machine is too busy to tell");
        // What was on its way when the command ran may still have come in.
        let leaked = traffic.arrived(DENIED_V4) - before;
        assert!(leaked <= 20, "{leaked} datagrams of a banned source passed (agent killed: {killed})");
        let held = eventually("the ban ends", Duration::from_secs(4), || {
            let more = traffic.arrived(DENIED_V4) - before - leaked;
            if more > 0 { Ok(start.elapsed()) } else { Err(start.elapsed()) }
        });
        assert!(held >= Duration::from_millis(1900), "the ban of 2 s ended after {held:?}");
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        assert_eq!(listed, Vec::<String>::new(), "a ban that is over is not listed");
    }
    assert_eq!(traffic.stop().lost(CLIENT_V4), Vec::<u64>::new());
}

#[test]
fn a_shadow_entry_counts_and_lets_pass() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent = Setup::new(&net).start(&config::to(&upstream, ""));
    agent.cli(&["deny", "add", "198.18.1.2/32", "--shadow", "--reason", "trial"]).ok();
    assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().status(), 200);
    agent.await_metric("gateway_rule_hits_total", &[("rule", "trial")], |sum| sum >= 3.0);
    assert_eq!(agent.metrics().sum("gateway_kernel_packets_total", &[("verdict", "drop")]), 0.0);
}
