//! Lists that refresh by themselves: files and servers that change, shrink, break or go away.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, CLIENT_V6, DENIED_V4, DENIED_V6, ListServer, Net, Setup, Upstream, eventually,
    require_root, steady,
};
use serde_json::Value;

use crate::config;

/// A file is looked at every two seconds and read when it has come to rest; a server is asked every five.
const REFRESHED: Duration = Duration::from_secs(20);
/// Both of the denied addresses and two that nobody has.
const BOTH: &str = "198.18.1.66\n2001:db8:1::66\n192.0.2.1\n192.0.2.2\n";
/// The same length, but of the denied addresses only the one in IPv6.
const V6_ALONE: &str = "2001:db8:1::66\n192.0.2.1\n192.0.2.2\n192.0.2.3\n";
/// In the kernel, and by a program that holds the same lists in userspace.
const BOTH_PLACES: [&str; 2] = ["attach: auto", "attach: off"];

#[test]
fn a_file_that_changes_is_in_force_held_or_refused() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let setup = Setup::new(&net);
        let file = setup.directory().join("feed.txt");
        std::fs::write(&file, BOTH).unwrap();
        let kernel = format!("{attach}\nlist_cache: cache\ndeny: [{{file: feed.txt}}]");
        let agent = setup.start(&config::to(&upstream, &kernel));
        assert_denied(&net, &[DENIED_V4, DENIED_V6], &[CLIENT_V4, CLIENT_V6]);
        await_state(&agent, "feed.txt", "ok", "");

        // It changes: in force without a reload.
        replace(&file, V6_ALONE);
        eventually("the changed file is in force", REFRESHED, || served(&net, DENIED_V4));
        assert_denied(&net, &[DENIED_V6], &[DENIED_V4, CLIENT_V4, CLIENT_V6]);

        // It shrinks too much: held, and packets follow the former list.
        replace(&file, "198.18.1.66\n");
        let why = await_state(&agent, "feed.txt", "held", "gateway deny confirm feed.txt");
        assert!(why.contains("from 4 to 1"), "{attach}: {why}");
        assert!(agent.cli(&["status"]).ok().out.contains("held: it shrank"), "{attach}");
        assert_denied(&net, &[DENIED_V6], &[DENIED_V4]);
        agent.cli(&["deny", "confirm", "other.txt"]).fails_with(1).says(&["other.txt"]);
        let from_there = agent.cli_from("198.18.1.66", &["deny", "confirm", "feed.txt"]);
        from_there.fails_with(1).says(&["feed.txt: 198.18.1.66/32 covers 198.18.1.66", "would lock you out"]);
        assert_denied(&net, &[DENIED_V6], &[DENIED_V4]);
        let confirmed = agent.cli(&["deny", "confirm", "feed.txt"]).ok().out;
        assert!(confirmed.starts_with("feed.txt: 1 entry in force, generation "), "{attach}: {confirmed}");
        assert_denied(&net, &[DENIED_V4], &[DENIED_V6]);
        await_state(&agent, "feed.txt", "ok", "");
        agent.cli(&["deny", "confirm", "feed.txt"]).fails_with(1).says(&["nothing of it is held"]);

        // It breaks: refused, and the former list stays.
        for (name, text, expected) in [
            ("a bad line", "198.18.1.2\nnonsense\n", "line 2"),
            ("rubbish", "\u{0}\u{1}\u{2}\u{7f}", "bad line"),
            ("everything", "0.0.0.0/0\n", "covers every address"),
            ("a ttl", "198.18.1.2 ttl=1h\n", "has a ttl"),
        ] {
            replace(&file, text);
            await_state(&agent, "feed.txt", "failing", expected);
            let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
            assert_eq!(listed, ["198.18.1.66/32"], "{attach}: {name}");
        }
        std::fs::remove_file(&file).unwrap();
        await_state(&agent, "feed.txt", "failing", "is not there");
        assert_denied(&net, &[DENIED_V4], &[DENIED_V6, CLIENT_V4]);

        // And it is mended.
        replace(&file, "198.18.1.66\n");
        await_state(&agent, "feed.txt", "ok", "");
    }
}

#[test]
fn a_list_moves_from_deny_to_allow_with_a_reload() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let setup = Setup::new(&net);
    std::fs::write(setup.directory().join("feed.txt"), BOTH).unwrap();
    let kernel =
        |list: &str| config::to(&upstream, &format!("list_cache: cache\n{list}: [{{file: feed.txt}}]"));
    let mut agent = setup.start(&kernel("deny"));
    for (list, restarted) in [("allow", false), ("deny", false), ("allow", true), ("deny", true)] {
        agent.configure(&kernel(list));
        if restarted {
            agent.kill();
            agent.start();
        } else {
            agent.cli(&["reload"]).ok();
        }
        let denied = if list == "deny" { &[DENIED_V4, DENIED_V6][..] } else { &[] };
        assert_denied(&net, denied, &[CLIENT_V4, CLIENT_V6]);
        assert_eq!(served(&net, DENIED_V4).is_ok(), list == "allow", "{list}");
        let found = agent.cli(&[list, "lists", "--json"]).ok().json();
        assert_eq!(found[0]["name"], "feed.txt", "{list}: {found}");
        await_state(&agent, "feed.txt", "ok", "");
    }
}

#[test]
fn a_list_from_a_server_outlives_the_server_and_the_agent() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let setup = Setup::new(&net);
        let server = ListServer::start(&net, &setup.directory().join("authority.pem"), BOTH);
        let url = server.url("/lists/drop.txt?token=secret");
        let kernel = format!(
            "{attach}\nlist_cache: cache\n\
             deny: [{{url: \"{url}\", ca: authority.pem, refresh: 5s, max_change: any}}]"
        );
        let mut agent = setup.start(&config::to(&upstream, &kernel));
        await_state(&agent, "drop.txt", "ok", "");
        assert_denied(&net, &[DENIED_V4, DENIED_V6], &[CLIENT_V4, CLIENT_V6]);
        eventually("the server is asked again", REFRESHED, || {
            let replies = server.replies();
            if replies.starts_with(&[200, 304]) { Ok(()) } else { Err(replies) }
        });
        server.serve(V6_ALONE);
        eventually("what the server changed is in force", REFRESHED, || served(&net, DENIED_V4));
        for said in [agent.cli(&["status"]).ok().out, agent.cli(&["deny", "lists"]).ok().out, agent.log()] {
            assert!(said.contains("drop.txt") && !said.contains("secret"), "{attach}: {said}");
        }

        drop(server);
        await_state(&agent, "drop.txt", "failing", "");
        agent.kill();
        agent.start();
        assert_denied(&net, &[DENIED_V6], &[DENIED_V4, CLIENT_V4]);
        await_state(&agent, "drop.txt", "failing", "");
        assert_denied(&net, &[DENIED_V6], &[DENIED_V4, CLIENT_V4]);
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        assert_eq!(listed.len(), 4, "{attach}: {listed:?}");
    }
}

#[test]
fn no_reload_takes_away_what_a_list_brought_by_itself() {
    require_root!();
    let net = Net::new();
    let upstream = Upstream::echo(&net);
    let setup = Setup::new(&net);
    let server = ListServer::start(&net, &setup.directory().join("authority.pem"), "192.0.2.1\n");
    let url = server.url("/feed");
    let kernel = format!(
        "list_cache: cache\ndeny: [{{url: \"{url}\", ca: authority.pem, refresh: 5s, max_change: any}}]"
    );
    let good = config::to(&upstream, &kernel);
    let agent = setup.start(&good);
    await_state(&agent, "feed", "ok", "");
    server.serve("192.0.2.1\n198.18.1.66\n");
    eventually("what the server changed is in force", REFRESHED, || match served(&net, DENIED_V4) {
        Ok(()) => Err("served"),
        Err(_) => Ok(()),
    });
    // The kernel's half could be taken, the proxy's cannot.
    let _squatter = net.gateway.run(|| std::net::TcpListener::bind("198.18.1.1:8099")).unwrap();
    agent.configure(
        &good.replace("198.18.1.1:8080", "198.18.1.1:8099").replace("deny: [", "deny: [192.0.2.9, "),
    );
    agent.cli(&["reload"]).fails_with(1).says(&["198.18.1.1:8099"]);
    let in_force = || {
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        if listed == ["192.0.2.1/32", "198.18.1.66/32"] { Ok(()) } else { Err(listed) }
    };
    eventually("the list is what the server has", REFRESHED, in_force);
    steady("the list is what the server has", Duration::from_secs(1), in_force);
    // Another directory for the copies takes a restart; until then those of the present one count.
    agent.configure(&good.replace("list_cache: cache", "list_cache: another"));
    let said = agent.cli(&["reload"]).ok().out;
    assert!(said.contains("kernel.list_cache changed, which takes a restart"), "{said}");
    steady("the list is what the server has", Duration::from_secs(1), in_force);
}

fn served(net: &Net, source: IpAddr) -> std::io::Result<()> {
    Agent::connect(net, source).and_then(|mut connection| connection.get("/")).map(drop)
}

#[track_caller]
fn assert_denied(net: &Net, denied: &[IpAddr], passing: &[IpAddr]) {
    for source in denied {
        assert!(served(net, *source).is_err(), "{source} is served");
    }
    for source in passing {
        assert!(served(net, *source).is_ok(), "{source} is not served");
    }
}

/// As publishers do it: the file is there whole, or not at all.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

/// Waits until a source's state is this and its error holds this; gives the error.
#[track_caller]
fn await_state(agent: &Agent, name: &str, state: &str, error: &str) -> String {
    eventually(&format!("{name} is {state}, because of {error:?}"), REFRESHED, || {
        let status = agent.cli_quiet(&["status", "--json"]).ok().json();
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let source = sources.into_iter().find(|source| source["name"] == name).unwrap_or(Value::Null);
        let why = source["last_error"].as_str().unwrap_or_default().to_owned();
        if source["state"] == state && why.contains(error) {
            return Ok(why);
        }
        std::thread::sleep(Duration::from_millis(100));
        Err(source)
    })
}
