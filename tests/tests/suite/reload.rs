//! A new configuration while requests are served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, Net, Setup, Traffic, UPSTREAM_V4, Upstream, eventually,
    require_root,
};

use crate::config;

fn named(net: &Net, name: &'static str) -> Upstream {
    Upstream::answering(net, UPSTREAM_V4, move |_| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
    })
}

#[test]
fn twenty_reloads_under_load_fail_no_request() {
    require_root!();
    let net = Net::new();
    let upstreams = [named(&net, "red"), named(&net, "blue")];
    let deny = "deny: [198.18.1.66/32]";
    let agent = Setup::new(&net).start(&config::to(&upstreams[0], deny));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = |client, requests_a_connection: usize| {
            let (net, stop, served) = (&net, &stop, &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = Agent::connect(net, client).expect("connecting during a reload");
                    for _ in 0..requests_a_connection {
                        let reply = connection.get("/").expect("a request during a reload");
                        assert_eq!(reply.status(), 200, "{}", reply.text());
                        served.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            })
        };
        // One keeps its connection throughout, the others make new ones.
        let loads = [load(CLIENT_V4, usize::MAX), load(CLIENT_V4, 3), load(CLIENT_V6, 1)];
        for round in 1..=20 {
            let (upstream, name) = (&upstreams[round % 2], ["red", "blue"][round % 2]);
            // The kernel's share changes as well; the denied source stays denied all the while.
            agent.configure(&config::to(upstream, &format!("deny: [198.18.1.66/32, 192.0.2.{round}/32]")));
            agent.hang_up();
            eventually("the reload is in force", Duration::from_secs(5), || {
                let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
                let text = connection.get("/").unwrap().text();
                if text == name { Ok(()) } else { Err(text) }
            });
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().unwrap();
        }
    });
    assert!(served.load(Ordering::Relaxed) > 100, "the load was no load: {served:?} requests");
    let receipt = traffic.stop();
    assert_eq!(receipt.arrived(DENIED_V4), 0, "a denied source passed during a reload");
    assert_eq!(receipt.lost(CLIENT_V4), Vec::<u64>::new());
    assert_eq!(
        agent.cli(&["deny", "list", "--json"]).ok().prefixes(),
        ["192.0.2.20/32", "198.18.1.66/32"],
        "the file's entries follow the file"
    );
}

#[test]
fn a_reload_that_fails_changes_nothing_and_says_so_everywhere() {
    require_root!();
    let net = Net::new();
    let upstream = named(&net, "good");
    let good = config::to(&upstream, "deny: [198.18.1.66/32]");
    let agent = Setup::new(&net).start(&good);
    let hash = agent.status()["agent"]["config"]["hash"].clone();
    assert!(hash.as_str().is_some_and(|hash| !hash.is_empty()), "status names the configuration: {hash}");

    agent.configure(&good.replace("upstream: app", "upstream: ap").replace("66/32", "67/32"));
    agent.hang_up();
    agent.await_metric("gateway_config_reload_failures_total", &[], |sum| sum == 1.0);
    agent.await_metric("gateway_config_last_reload_success", &[], |sum| sum == 0.0);
    eventually("the log names the mistake", Duration::from_secs(2), || {
        let log = agent.log();
        if log.contains("reload") && log.contains("app") { Ok(()) } else { Err(log) }
    });
    let status = agent.status();
    assert_eq!(status["agent"]["config"]["hash"], hash, "{status}");
    let error = &status["agent"]["config"]["last_reload"]["error"];
    assert!(error.as_str().is_some_and(|error| error.contains("gateway.yaml")), "{status}");
    assert_eq!(agent.cli(&["deny", "list", "--json"]).ok().prefixes(), ["198.18.1.66/32"]);
    assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().text(), "good");
    agent.cli(&["reload"]).fails_with(1).says(&["gateway.yaml"]);

    agent.configure(&good);
    agent.cli(&["reload"]).ok();
    assert_eq!(agent.status()["agent"]["config"]["hash"], hash);
    agent.await_metric("gateway_config_last_reload_success", &[], |sum| sum == 1.0);
}

#[test]
fn a_reload_whose_kernel_part_is_refused_leaves_the_proxy_as_it_was() {
    require_root!();
    let net = Net::new();
    let (old, new) = (named(&net, "old"), named(&net, "new"));
    let agent = Setup::new(&net).start(&config::to(&old, ""));
    agent.configure(&config::with("interfaces: [front0, nowhere0]", "", new.address()));
    let answer = agent.cli(&["reload"]);
    assert_ne!(answer.code, 0);
    answer.says(&["nowhere0"]);
    assert_eq!(Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().text(), "old");
}
