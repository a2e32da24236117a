//! Protection outlives the agent, and the next one takes it over without a gap.

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, Net, Setup, Traffic, Upstream, require_root,
};

use crate::config;

const DENY_BOTH: &str = "deny: [198.18.1.66/32, \"2001:db8:1::66/128\"]";

#[test]
fn kills_and_starts_under_traffic_leave_no_gap() {
    require_root!();
    for mode in ["native", "generic"] {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let lists = format!("{DENY_BOTH}\nattach: {mode}");
        let mut agent = Setup::new(&net).start(&config::to(&upstream, &lists));
        let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4, CLIENT_V6, DENIED_V6]);
        for _ in 0..3 {
            traffic.await_more(CLIENT_V6, 100);
            agent.kill();
            traffic.await_more(CLIENT_V6, 100);
            agent.start();
            assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().status(), 200);
        }
        traffic.await_more(CLIENT_V6, 100);
        let receipt = traffic.stop();
        for source in [DENIED_V4, DENIED_V6] {
            assert_eq!(receipt.arrived(source), 0, "{mode}: datagrams of {source} passed");
        }
        for source in [CLIENT_V4, CLIENT_V6] {
            assert_eq!(receipt.lost(source), Vec::<u64>::new(), "{mode}: datagrams of {source} were lost");
        }
        // The counters live on as well: every one of them is there.
        let hits = agent.await_metric("gateway_rule_hits_total", &[("list", "config-deny")], |sum| sum > 0.0);
        assert_eq!(hits, 2.0 * receipt.sent() as f64, "{mode}: hits against datagrams sent");
    }
}

#[test]
fn an_operators_entries_survive_a_kill() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.0/24]"));
    agent.cli(&["deny", "add", "203.0.113.0/24", "--reason", "mine"]).ok();
    agent.kill();
    agent.configure(&config::kernel_only("deny: [198.51.100.0/24]"));
    agent.start();
    let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed, ["198.51.100.0/24", "203.0.113.0/24"], "the file's share follows the file");
}

#[test]
fn a_start_that_fails_leaves_in_force_what_was() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let mut agent = Setup::new(&net).start(&config::to(&upstream, "deny: [192.0.2.0/24]"));
    agent.cli(&["deny", "add", "203.0.113.0/24", "--reason", "mine"]).ok();
    agent.kill();
    let squatter = net.gateway.run(|| std::net::TcpListener::bind(Agent::v4())).unwrap();
    agent.configure(&config::to(&upstream, "deny: [198.51.100.0/24]"));
    assert_eq!(agent.start_in_vain().code, 3);
    let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed, ["192.0.2.0/24", "203.0.113.0/24"], "the lists before the start that failed");
    drop(squatter);
    agent.start();
    let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed, ["198.51.100.0/24", "203.0.113.0/24"]);
}

#[test]
fn a_start_in_userspace_takes_operators_entries_along_and_lets_the_kernel_go() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.0/24]"));
    agent.cli(&["deny", "add", "203.0.113.0/24", "--reason", "mine"]).ok();
    agent.cli(&["deny", "add", "203.0.113.9", "--ttl", "10m"]).ok();
    agent.kill();
    agent.configure("kernel: {attach: off, deny: [192.0.2.0/24]}\n");
    agent.start();
    let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed, ["203.0.113.9/32", "192.0.2.0/24", "203.0.113.0/24"]);
    assert_eq!(agent.status()["kernel"]["enforcement"]["where"], "userspace");
    assert!(!net.gateway.command("ip", &["link", "show", "front0"]).contains("xdp"));
}

#[test]
fn detach_ends_protection_and_only_without_an_agent() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DENY_BOTH));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(CLIENT_V4, 50);
    agent.cli(&["detach"]).fails_with(3);
    assert_eq!(traffic.arrived(DENIED_V4), 0);
    agent.kill();
    traffic.await_more(CLIENT_V4, 50);
    assert_eq!(traffic.arrived(DENIED_V4), 0);
    agent.cli(&["detach"]).ok();
    traffic.await_more(DENIED_V4, 50);
    assert!(!net.gateway.command("ip", &["link", "show", "front0"]).contains("xdp"));
    traffic.stop();
}
