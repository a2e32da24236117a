//! A new configuration while requests are served.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, Net, Setup, Traffic, UPSTREAM_V4, Upstream, eventually,
    require_root, skip,
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

/// Five thousand routes, of which every other one leads elsewhere in every other round, and those that a test looks at do
/// not.
fn five_thousand_routes(upstreams: &[Upstream; 2], round: usize) -> String {
    let mut routes = String::new();
    for number in 0..5000 {
        let upstream = ["red", "blue"][(number % 2) * (round % 2)];
        let _ = writeln!(routes, "  r{number}: {{match: {{path: \"/r{number}/**\"}}, upstream: {upstream}}}");
    }
    format!(
        "kernel: {{attach: \"off\"}}\nlisteners: {{web: {{address: \"198.18.1.1:8080\"}}}}\nupstreams:\n  \
         red: {{endpoints: [\"http://{}\"]}}\n  blue: {{endpoints: [\"http://{}\"]}}\nroutes:\n  \
         streams: {{match: {{path: \"/streams/**\"}}, upstream: red}}\n{routes}",
        upstreams[0].address(),
        upstreams[1].address()
    )
}

/// A program that loads the gateway until this is dropped.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn reloads_of_five_thousand_routes_under_load_fail_nothing_and_cut_no_stream() {
    const ROUNDS: usize = 6;
    require_root!();
    if Command::new("h2load").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("h2load is not installed");
    }
    let net = Net::new();
    // An event for each that the test asks for, and no other.
    let (next, asked) = mpsc::channel::<usize>();
    let asked = Mutex::new(asked);
    let red = Upstream::serving(&net, UPSTREAM_V4, move |connection, request| {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        if path == "/streams/events" {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.send(head).unwrap();
            while let Ok(event) = asked.lock().unwrap().recv() {
                let event = format!("data: {event}\n\n");
                connection.send(format!("{:x}\r\n{event}\r\n", event.len())).unwrap();
            }
            let _ = connection.send("0\r\n\r\n");
        } else if request.header("upgrade").is_some() {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            connection.send(head).unwrap();
            while let Ok(bytes) = connection.bytes() {
                if bytes.is_empty() || connection.send(bytes).is_err() {
                    break;
                }
            }
        } else {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nred").unwrap();
        }
    });
    let upstreams = [red, named(&net, "blue")];
    let agent = Setup::new(&net).start(&five_thousand_routes(&upstreams, 0));

    let mut events = Agent::connect(&net, CLIENT_V4).unwrap();
    events.send("GET /streams/events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = String::new();
    let mut event = |number: usize| {
        next.send(number).unwrap();
        while !seen.contains(&format!("data: {number}\n\n")) {
            let more =
                events.bytes().unwrap_or_else(|error| panic!("event {number}: {error}; so far {seen}"));
            assert!(!more.is_empty(), "the stream ended before event {number}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&more));
        }
    };
    let mut socket = Agent::connect(&net, CLIENT_V4).unwrap();
    socket
        .send(
            "GET /streams/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    assert!(String::from_utf8_lossy(&socket.bytes().unwrap()).starts_with("HTTP/1.1 101 "));

    // Enough for all rounds; it is ended after them.
    let load = |protocol: &str, path: &str| {
        let mut h2load = Command::new("h2load");
        h2load.args([protocol, "-t1", "-c4", "-m4", "-D600", &format!("http://198.18.1.1:8080{path}")]);
        Load(net.client.run(|| h2load.stdout(Stdio::null()).spawn().unwrap()))
    };
    let loads = [load("-ph2c", "/r4998/"), load("--h1", "/r4999/")];
    let answered = || {
        let route = |route| {
            agent.metrics().sum("gateway_http_requests_total", &[("route", route), ("status", "200")])
        };
        [route("r4998"), route("r4999")]
    };
    for round in 1..=ROUNDS {
        let before = answered();
        eventually("both loads go on", Duration::from_secs(20), || {
            let now = answered();
            if now[0] > before[0] && now[1] > before[1] { Ok(()) } else { Err((before, now)) }
        });
        agent.configure(&five_thousand_routes(&upstreams, round));
        agent.cli(&["reload"]).ok();
        let text = Agent::connect(&net, CLIENT_V4).unwrap().get("/r4999/").unwrap().text();
        assert_eq!(text, ["red", "blue"][round % 2], "the reload is in force");
        event(round);
        socket.send(format!("round {round}")).unwrap();
        assert_eq!(socket.bytes().unwrap(), format!("round {round}").as_bytes());
    }
    drop(loads);
    let metrics = agent.metrics();
    let all = metrics.sum("gateway_http_requests_total", &[]);
    let good = answered().iter().sum::<f64>();
    // Besides: what this test asked itself, and what was on its way when the loads were ended.
    let gone = metrics.sum("gateway_http_requests_total", &[("status", "499")]);
    assert!(
        good > 500.0 && all - good - gone <= 2.0 && gone <= 32.0,
        "{good} of {all} were good, {gone} gone"
    );
}

#[test]
fn a_log_that_is_moved_away_is_opened_anew_at_sighup() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let agent =
        Setup::new(&net).start(&format!("{}access_log: {{path: access.log}}\n", config::to(&upstream, "")));
    let (log, old) = (agent.directory().join("access.log"), agent.directory().join("access.log.1"));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut client = Agent::connect(&net, CLIENT_V4).unwrap();
    client.get("/before").unwrap();
    eventually("the first line", Duration::from_secs(5), || {
        let text = lines(&log);
        if text.ends_with('\n') { Ok(()) } else { Err(text) }
    });
    // As logrotate does it.
    std::fs::rename(&log, &old).unwrap();
    client.get("/between").unwrap();
    eventually("a line in the file that was moved", Duration::from_secs(5), || {
        let text = lines(&old);
        if text.lines().count() == 2 { Ok(()) } else { Err(text) }
    });
    agent.hang_up();
    agent.await_log("the configuration was reloaded");
    // With the next line, not before: a log that nobody writes stays where it is.
    client.get("/after").unwrap();
    eventually("the line after it", Duration::from_secs(5), || {
        let text = lines(&log);
        if text.ends_with('\n') { Ok(()) } else { Err(text) }
    });
    let (old, new) = (lines(&old), lines(&log));
    assert!(old.contains("/before") && old.contains("/between") && !old.contains("/after"), "{old}");
    assert!(new.contains("/after") && new.lines().count() == 1, "{new}");
}
