//! SIGTERM: what runs is finished, nothing new begins, and the kernel goes on.

use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, DENIED_V4, Net, Setup, Traffic, UPSTREAM_V4, Upstream, eventually, require_root,
};

use crate::config;

#[test]
fn a_request_in_flight_is_finished_and_the_exit_is_0() {
    require_root!();
    let net = Net::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let upstream = Upstream::serving(&net, UPSTREAM_V4, move |connection, _| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow").unwrap();
        released.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        connection.send("done").unwrap();
    });
    let deny = "deny: [198.18.1.66/32]";
    let mut agent = Setup::new(&net).start(&config::to(&upstream, deny));
    let mut idle = Agent::connect(&net, CLIENT_V4).unwrap();
    let mut busy = Agent::connect(&net, CLIENT_V4).unwrap();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the upstream has the request", Duration::from_secs(5), || {
        if upstream.requests().is_empty() { Err("not yet") } else { Ok(()) }
    });
    agent.ask_to_end();
    eventually("nothing new is accepted", Duration::from_secs(5), || match Agent::connect(&net, CLIENT_V4) {
        Ok(_) => Err("connected"),
        Err(_) => Ok(()),
    });
    idle.patience(Duration::from_secs(5));
    assert!(idle.is_closed(), "an idle connection is closed at once");
    assert!(agent.is_running(), "the agent left a request behind");
    release.send(()).unwrap();
    assert_eq!(busy.reply().unwrap().text(), "slowdone");
    assert_eq!(agent.exit().code(), Some(0));

    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(CLIENT_V4, 200);
    let receipt = traffic.stop();
    assert_eq!(receipt.arrived(DENIED_V4), 0, "protection ended with the agent");
}

#[test]
fn a_drain_ends_at_its_deadline() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::serving(&net, UPSTREAM_V4, |connection, _| {
        // Never answers.
        connection.patience(Duration::from_secs(20));
        connection.is_closed();
    });
    let config = format!("drain_timeout: 1s\n{}", config::to(&upstream, ""));
    let mut agent = Setup::new(&net).start(&config);
    let mut stuck = Agent::connect(&net, CLIENT_V4).unwrap();
    stuck.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the upstream has the request", Duration::from_secs(5), || {
        if upstream.requests().is_empty() { Err("not yet") } else { Ok(()) }
    });
    let start = std::time::Instant::now();
    assert_eq!(agent.terminate().code(), Some(0));
    let took = start.elapsed();
    assert!((900..4000).contains(&took.as_millis()), "a drain of 1 s took {took:?}");
}
