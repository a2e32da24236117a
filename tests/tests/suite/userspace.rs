//! Without the kernel's help: the same lists, by the same code, at accept.

use gateway_tests::{Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, Net, Setup, Upstream, require_root};

use crate::config;

const DENY_BOTH: &str = "deny: [198.18.1.66/32, \"2001:db8:1::66/128\"]";
/// Root in name, as in a container: every capability is gone with the next exec.
const NO_CAPABILITIES: [&str; 4] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];

#[test]
fn the_lists_hold_at_accept() {
    require_root!();
    for (name, attach, wrapper) in [
        ("switched off", "attach: off", &[][..]),
        ("switched off, unprivileged", "attach: off", &NO_CAPABILITIES),
        ("not permitted", "attach: auto", &NO_CAPABILITIES),
    ] {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let agent = Setup::new(&net)
            .through(wrapper)
            .start(&config::to(&upstream, &format!("{DENY_BOTH}\n{attach}")));
        let served = |client| Agent::connect(&net, client).and_then(|mut connection| connection.get("/"));
        for (source, passes) in [(CLIENT_V4, true), (DENIED_V4, false), (CLIENT_V6, true), (DENIED_V6, false)]
        {
            assert_eq!(served(source).is_ok(), passes, "{name}: {source}");
        }
        assert_eq!(upstream.requests().len(), 2, "{name}: the upstream saw a denied source's request");

        let status = agent.status();
        let enforcement = &status["kernel"]["enforcement"];
        assert_eq!(enforcement["where"], "userspace", "{name}: {status}");
        let why = enforcement["why"].as_str().unwrap_or_default();
        let reason = if attach.ends_with("off") { "kernel.attach is off" } else { "the process lacks CAP_" };
        assert!(why.contains(reason), "{name}: status does not say why: {why:?}");
        let lines = agent.log().lines().filter(|line| line.contains(reason)).count();
        assert_eq!(lines, 1, "{name}: the log says it once, not {lines} times:\n{}", agent.log());
        let drops = [("interface", "accept"), ("verdict", "drop")];
        agent.await_metric("gateway_kernel_packets_total", &drops, |sum| sum == 2.0);

        // There are no pins, so the commands go through the socket.
        agent.cli(&["deny", "add", "198.18.1.2", "--reason", "by socket"]).ok();
        assert!(served(CLIENT_V4).is_err(), "{name}: an added source is served");
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        assert!(listed.contains(&"198.18.1.2/32".to_owned()), "{name}: {listed:?}");
        agent.cli(&["deny", "del", "198.18.1.2"]).ok();
        assert!(served(CLIENT_V4).is_ok(), "{name}: a released source is not served");
        agent.cli(&["deny", "add", "198.18.1.2", "--ttl", "1s"]).ok();
        assert!(served(CLIENT_V4).is_err(), "{name}: a banned source is served");
        gateway_tests::eventually("the ban ends", std::time::Duration::from_secs(4), || served(CLIENT_V4));
    }
}

#[test]
fn native_is_not_given_up_silently() {
    require_root!();
    let net = Net::new();
    let mut agent =
        Setup::new(&net).through(&NO_CAPABILITIES).prepare(&config::kernel_only("attach: native"));
    let answer = agent.start_in_vain();
    assert_eq!(answer.code, 3, "{}", answer.err);
    answer.says(&["CAP_BPF"]);
}

#[test]
fn the_commands_say_when_nobody_is_there() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).prepare(&config::kernel_only(""));
    for arguments in [&["deny", "list"][..], &["deny", "add", "192.0.2.1"], &["counters"]] {
        agent.cli(arguments).fails_with(3).says(&["gateway run", "--pin-dir"]);
    }
    agent.cli(&["reload"]).fails_with(3).says(&[agent.socket().to_str().unwrap()]);
}
