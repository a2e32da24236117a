//! How and where the programs are attached, and whom they leave alone.

use std::time::Duration;

use gateway_tests::{CLIENT_V4, DENIED_V4, Net, Setup, Traffic, eventually, require_root};
use serde_json::Value;

use crate::config;

const DENY: &str = "deny: [198.18.1.66/32]";

#[test]
fn each_mode_protects_and_is_named() {
    require_root!();
    for (attach, mode, in_link) in
        [("native", "native", "xdp"), ("generic", "generic", "xdpgeneric"), ("auto", "native", "xdp")]
    {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(&format!("{DENY}\nattach: {attach}")));
        let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
        traffic.await_more(CLIENT_V4, 100);
        let receipt = traffic.stop();
        assert_eq!(receipt.arrived(DENIED_V4), 0, "attach: {attach}");
        assert_eq!(receipt.lost(CLIENT_V4), Vec::<u64>::new(), "attach: {attach}");

        let status = agent.status();
        assert_eq!(modes(&status), [("front0".into(), mode.into())], "attach: {attach}: {status}");
        let attached = [("interface", "front0"), ("mode", mode)];
        assert_eq!(agent.metrics().sum("gateway_kernel_attached", &attached), 1.0, "attach: {attach}");
        let link = net.gateway.command("ip", &["link", "show", "front0"]);
        assert!(link.contains(&format!(" {in_link} ")) || link.contains(&format!(" {in_link}/")), "{link}");
    }
}

#[test]
fn several_interfaces_are_protected_and_counted_apart() {
    require_root!();
    let net = Net::new();
    let config = config::kernel_only("deny: [198.18.1.66/32, 198.18.2.2/32]");
    let agent = Setup::new(&net).start(&config.replace("[front0]", "[front0, back0]"));
    let status = agent.status();
    let both = [("front0".to_owned(), "native".to_owned()), ("back0".into(), "native".into())];
    let mut modes = modes(&status);
    modes.sort_by(|a, b| b.cmp(a));
    assert_eq!(modes, both, "{status}");
    net.upstream.run(|| {
        let socket = std::net::UdpSocket::bind("198.18.2.2:0").unwrap();
        socket.send_to(b"one", "198.18.2.1:9").unwrap();
    });
    let drops = |interface| [("interface", interface), ("verdict", "drop")];
    agent.await_metric("gateway_kernel_packets_total", &drops("back0"), |sum| sum == 1.0);
    assert_eq!(agent.metrics().sum("gateway_kernel_packets_total", &drops("front0")), 0.0);
}

#[test]
fn an_interface_leaves_and_joins_with_a_reload() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(DENY));
    for (interfaces, want) in [
        ("[front0, back0]", vec!["back0", "front0"]),
        ("[back0]", vec!["back0"]),
        ("[front0]", vec!["front0"]),
    ] {
        agent.configure(&config::kernel_only(DENY).replace("[front0]", interfaces));
        agent.cli(&["reload"]).ok();
        let mut have: Vec<_> = modes(&agent.status()).into_iter().map(|(name, _)| name).collect();
        have.sort();
        assert_eq!(have, want, "interfaces: {interfaces}");
        for name in ["front0", "back0"] {
            let attached = net.gateway.command("ip", &["link", "show", name]).contains("xdp");
            assert_eq!(attached, want.contains(&name), "{name} with interfaces: {interfaces}");
        }
    }
}

#[test]
fn an_interface_that_went_away_and_came_back_is_protected_again() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(DENY));
    for restart in [false, true] {
        net.unplug();
        // The agent looks at its attachments every second.
        eventually("an interface that is gone is not called protected", Duration::from_secs(4), || {
            let modes = modes(&agent.status());
            if modes == [("front0".into(), "detached".into())] { Ok(()) } else { Err(modes) }
        });
        assert_eq!(agent.metrics().sum("gateway_kernel_attached", &[("interface", "front0")]), 0.0);
        if restart {
            agent.kill();
        }
        net.plug_in();
        if restart {
            agent.start();
        }
        eventually("an interface that is back is protected again", Duration::from_secs(4), || {
            let modes = modes(&agent.status());
            if modes == [("front0".into(), "native".into())] { Ok(()) } else { Err(modes) }
        });
        let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
        traffic.await_more(CLIENT_V4, 50);
        assert_eq!(traffic.stop().arrived(DENIED_V4), 0, "restart: {restart}");
    }
}

#[test]
fn a_reload_changes_the_mode_and_a_refused_one_leaves_it() {
    require_root!();
    let net = Net::new();
    let config = |interface: &str, attach: &str| {
        config::kernel_only(&format!("attach: {attach}\n{DENY}")).replace("[front0]", interface)
    };
    let agent = Setup::new(&net).start(&config("[front0]", "native"));
    for (attach, want) in [("generic", "generic"), ("auto", "generic"), ("native", "native")] {
        agent.configure(&config("[front0]", attach));
        agent.cli(&["reload"]).ok();
        assert_eq!(modes(&agent.status()), [("front0".into(), want.into())], "attach: {attach}");
    }
    // The loopback driver refuses native mode: front0 must not lose its protection over it, nor lo its own.
    agent.configure(&config("[lo, front0]", "auto"));
    agent.cli(&["reload"]).ok();
    let before = modes(&agent.status());
    agent.configure(&config("[front0, lo]", "native"));
    assert_eq!(agent.cli(&["reload"]).code, 1);
    assert_eq!(modes(&agent.status()), before);
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(CLIENT_V4, 50);
    assert_eq!(traffic.stop().arrived(DENIED_V4), 0);
}

#[test]
fn a_driver_that_refuses_leads_to_generic_or_to_an_error() {
    require_root!();
    let net = Net::new();
    // The loopback driver runs no programs of its own.
    let config = |attach: &str| config::kernel_only(attach).replace("[front0]", "[lo]");
    let mut agent = Setup::new(&net).prepare(&config("attach: native"));
    let answer = agent.start_in_vain();
    assert_eq!(answer.code, 3, "{}", answer.err);
    answer.says(&["lo", "native"]);

    agent.configure(&config("attach: auto"));
    agent.start();
    let status = agent.status();
    assert_eq!(modes(&status), [("lo".into(), "generic".into())], "{status}");
    let note = interfaces(&status)[0]["note"].as_str().unwrap_or_default().to_owned();
    assert!(!note.is_empty(), "status does not say why it is not native: {status}");
    agent.await_log("generic");
}

#[test]
fn frames_of_several_pages_are_judged_too() {
    require_root!();
    let net = Net::new();
    net.client.ip("link set eth0 mtu 9000");
    net.gateway.ip("link set front0 mtu 9000");
    let agent = Setup::new(&net).start(&config::kernel_only(DENY));
    net.client.run(|| {
        for source in ["198.18.1.2:0", "198.18.1.66:0"] {
            let socket = std::net::UdpSocket::bind(source).unwrap();
            socket.send_to(&[7; 8000], "198.18.1.1:9").unwrap();
        }
    });
    let counted = |verdict| [("interface", "front0"), ("verdict", verdict)];
    agent.await_metric("gateway_kernel_bytes_total", &counted("drop"), |sum| sum >= 8000.0);
    agent.await_metric("gateway_kernel_bytes_total", &counted("pass"), |sum| sum >= 8000.0);
}

#[test]
fn another_gateways_program_is_named_and_left_alone() {
    require_root!();
    let net = Net::new();
    let mut first = Setup::inside(&net, &net.gateway, "-first").start(&config::kernel_only(DENY));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    first.kill();
    let mut second = Setup::inside(&net, &net.gateway, "-second").prepare(&config::kernel_only(""));
    let answer = second.start_in_vain();
    assert_eq!(answer.code, 3, "{}", answer.err);
    answer.says(&["front0"]);
    traffic.await_more(CLIENT_V4, 50);
    assert_eq!(traffic.stop().arrived(DENIED_V4), 0, "the first gateway's protection was taken away");
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    require_root!();
    let net = Net::new();
    // Any program will do, so it is the gateway's own, attached by another hand in the old manner.
    let mut lender = Setup::inside(&net, &net.gateway, "-lender").start(&config::kernel_only(DENY));
    let id = program(&net);
    let pin = lender.pins().with_file_name(format!("{}-foreign", net.id()));
    let pin = pin.to_str().unwrap();
    net.gateway.command("bpftool", &["prog", "pin", "id", &id, pin]);
    lender.kill();
    lender.cli(&["detach"]).ok();
    // The kernel lets go of a link a little after its last reference is gone.
    eventually("the hook is free", Duration::from_secs(5), || {
        let link = net.gateway.command("ip", &["link", "show", "front0"]);
        if link.contains("xdp") { Err(link) } else { Ok(()) }
    });
    for (mode, hook) in [("native", "xdpdrv"), ("generic", "xdpgeneric")] {
        // Not by `ip -n`, which would hide bpffs.
        let link = ["link", "set", "dev", "front0", hook];
        net.gateway.command("ip", &[&link[..], &["pinned", pin]].concat());
        let config = config::kernel_only(&format!("attach: {mode}"));
        let mut agent = Setup::inside(&net, &net.gateway, &format!("-{mode}")).prepare(&config);
        let answer = agent.start_in_vain();
        assert_eq!(answer.code, 3, "{}", answer.err);
        answer.says(&["front0", &id, "left alone"]);
        assert_eq!(program(&net), id, "the foreign program is gone");
        net.gateway.command("ip", &[&link[..], &["off"]].concat());
        agent.start();
    }
    std::fs::remove_file(pin).unwrap();
}

#[test]
fn one_pin_directory_serves_one_agent() {
    require_root!();
    let net = Net::new();
    let mut first = Setup::inside(&net, &net.gateway, "-first").start(&config::kernel_only(DENY));
    let mut second = Setup::inside(&net, &net.gateway, "-second")
        .pinned_at(first.pins())
        .prepare(&config::kernel_only("").replace("9900", "9901"));
    let answer = second.start_in_vain();
    assert_eq!(answer.code, 3, "{}", answer.err);
    answer.says(&[first.pins().to_str().unwrap(), "--pin-dir"]);
    assert!(first.is_running());
    assert_eq!(first.cli(&["deny", "list", "--json"]).ok().prefixes(), ["198.18.1.66/32"]);
}

#[test]
fn two_gateways_live_side_by_side() {
    require_root!();
    let (left, right) = (Net::new(), Net::new());
    let left_agent = Setup::new(&left).start(&config::kernel_only(DENY));
    let right_agent = Setup::new(&right).start(&config::kernel_only(""));
    left_agent.cli(&["deny", "add", "203.0.113.1"]).ok();
    right_agent.cli(&["deny", "add", "203.0.113.2"]).ok();
    let listed = |agent: &gateway_tests::Agent| agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed(&left_agent), ["198.18.1.66/32", "203.0.113.1/32"]);
    assert_eq!(listed(&right_agent), ["203.0.113.2/32"]);
    let traffic = [&left, &right].map(|net| Traffic::start(net, &[CLIENT_V4, DENIED_V4]));
    for traffic in &traffic {
        traffic.await_more(CLIENT_V4, 50);
    }
    let [left, right] = traffic.map(Traffic::stop);
    assert_eq!(left.arrived(DENIED_V4), 0);
    assert_eq!(right.lost(DENIED_V4), Vec::<u64>::new());
}

fn interfaces(status: &Value) -> Vec<Value> {
    status["kernel"]["interfaces"].as_array().cloned().unwrap_or_else(|| panic!("no interfaces in {status}"))
}

fn modes(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    interfaces(status).iter().map(|interface| (text(&interface["name"]), text(&interface["mode"]))).collect()
}

/// The id of the XDP program on the protected interface.
fn program(net: &Net) -> String {
    let links = net.gateway.command("ip", &["-j", "-d", "link", "show", "front0"]);
    let links: Value = serde_json::from_str(&links).unwrap();
    let id = &links[0]["xdp"]["prog"]["id"];
    let id = if id.is_null() { &links[0]["xdp"]["attached"][0]["prog"]["id"] } else { id };
    id.as_u64().unwrap_or_else(|| panic!("no program in {links}")).to_string()
}
