//! Endpoints from a file, while requests are served.

use std::time::Duration;

use gateway_tests::{Agent, CLIENT_V4, Net, Setup, UPSTREAM_V4, Upstream, eventually, require_root};

use crate::config;

#[test]
fn a_file_of_endpoints_is_followed_and_its_loss_is_told() {
    require_root!();
    let net = Net::new();
    let named = |name: &'static str| {
        Upstream::answering(&net, UPSTREAM_V4, move |_| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
        })
    };
    let (red, blue) = (named("red"), named("blue"));
    let setup = Setup::new(&net);
    let file = setup.directory().join("endpoints.yaml");
    let list = |upstream: &Upstream| std::fs::write(&file, format!("- http://{}\n", upstream.address()));
    list(&red).unwrap();
    let written_down = format!("{{endpoints: [\"http://{}\"]}}", red.address());
    let found = config::to(&red, "").replace(&written_down, "{discover: {file: endpoints.yaml}}");
    assert!(found.contains("discover"), "{found}");
    let agent = setup.start(&found);
    let answer = || Agent::connect(&net, CLIENT_V4).unwrap().get("/").unwrap().text();
    assert_eq!(answer(), "red");
    list(&blue).unwrap();
    eventually("the new list is in force", Duration::from_secs(10), || match answer() {
        text if text == "blue" => Ok(()),
        text => Err(text),
    });
    std::fs::remove_file(&file).unwrap();
    agent.await_metric("gateway_upstream_discovery_up", &[("upstream", "app")], |up| up == 0.0);
    assert_eq!(answer(), "blue");
    assert_eq!(agent.metrics().sum("gateway_upstream_discovered_endpoints", &[("upstream", "app")]), 1.0);
    let said = agent.cli(&["status"]).ok().out;
    let row = said.lines().find(|line| line.starts_with("discovery")).expect("a row");
    assert!(row.contains("1 endpoints, failing") && row.ends_with("endpoints.yaml is not there"), "{row}");
    agent.await_log("endpoints stay as they were found before");
}
