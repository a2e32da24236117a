//! `deny` and `allow`: the verbs, with the agent up and down, and from many hands at once.

use std::fmt::Write;
use std::process::Child;
use std::time::Duration;

use gateway_tests::{Net, Setup, require_root};

use crate::config;

#[test]
fn every_verb_works_with_the_agent_up_and_down() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    let (file, exported) = (agent.directory().join("list.txt"), agent.directory().join("exported.txt"));
    let file = file.to_str().unwrap();
    for (list, up) in [("deny", true), ("allow", true), ("deny", false), ("allow", false)] {
        if !up && agent.is_running() {
            agent.kill();
        }
        let listed = || agent.cli(&[list, "list", "--json"]).ok().prefixes();
        agent.cli(&[list, "add", "203.0.113.0/24", "2001:db8:bad::/48", "--reason", "test"]).ok();
        assert_eq!(listed(), ["203.0.113.0/24", "2001:db8:bad::/48"], "{list}, up: {up}");
        agent.cli(&[list, "del", "203.0.113.0/24"]).ok();
        assert_eq!(listed(), ["2001:db8:bad::/48"], "{list}, up: {up}");

        std::fs::write(file, "# a comment\n192.0.2.0/28\n\n192.0.2.77   # one host\n").unwrap();
        agent.cli(&[list, "import", file]).ok();
        let all = ["192.0.2.0/28", "192.0.2.77/32", "2001:db8:bad::/48"];
        assert_eq!(listed(), all, "{list}, up: {up}");

        let text = agent.cli(&[list, "export"]).ok().out;
        std::fs::write(&exported, &text).unwrap();
        agent.cli(&[list, "flush"]).ok();
        assert_eq!(listed(), Vec::<String>::new(), "{list}, up: {up}");
        agent.cli(&[list, "import", exported.to_str().unwrap()]).ok();
        assert_eq!(listed(), all, "what export wrote, import reads: {text}");
        agent.cli(&[list, "flush"]).ok();
    }
}

#[test]
fn an_entry_says_its_rule_its_owner_and_what_is_left_of_it() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.0/24]"));
    agent.cli(&["deny", "add", "203.0.113.7", "--ttl", "10m", "--reason", "scanner", "--shadow"]).ok();
    let entries = agent.cli(&["deny", "list", "--json"]).ok().json();
    let find = |prefix: &str| {
        let all = entries.as_array().unwrap();
        all.iter().find(|entry| entry["prefix"] == prefix).unwrap_or_else(|| panic!("{prefix} in {all:?}"))
    };
    let ban = find("203.0.113.7/32");
    assert_eq!((&ban["rule"], &ban["shadow"]), (&"scanner".into(), &true.into()));
    assert_eq!((&ban["owner"], &ban["from"]), (&"operator".into(), &"ban".into()));
    let left = ban["ttl_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&left), "{left} s are left of 10 min");
    let configured = find("192.0.2.0/24");
    assert_eq!((&configured["owner"], &configured["from"]), (&"config".into(), &"config-deny".into()));
    assert!(configured["ttl_seconds"].is_null());
}

#[test]
fn what_the_configuration_names_is_not_an_operators_to_delete() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.0/24]"));
    let answer = agent.cli(&["deny", "del", "192.0.2.0/24"]).fails_with(1);
    assert!(answer.err.contains("192.0.2.0/24"), "{}", answer.err);
    agent.cli(&["deny", "add", "203.0.113.0/24"]).ok();
    agent.cli(&["deny", "flush"]).ok();
    assert_eq!(agent.cli(&["deny", "list", "--json"]).ok().prefixes(), ["192.0.2.0/24"]);
    // An entry that is not there is an answer of no, not an error of the system.
    agent.cli(&["deny", "del", "198.51.100.0/24"]).fails_with(1).says(&["198.51.100.0/24"]);
}

#[test]
fn commands_at_the_same_time_lose_nothing() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    for (up, block) in [(true, "192.0.2"), (false, "198.51.100")] {
        if !up {
            agent.kill();
        }
        let add =
            |host: u32| agent.cli_running(&["deny", "add", &format!("{block}.{host}"), "--reason", "many"]);
        let commands: Vec<Child> = (0..20).map(add).collect();
        for command in commands {
            let output = command.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        let lost: Vec<_> = (0..20).map(|host| format!("{block}.{host}/32")).collect();
        let lost: Vec<_> = lost.iter().filter(|prefix| !listed.contains(prefix)).collect();
        assert!(lost.is_empty(), "lost (agent up: {up}): {lost:?}");
    }
    assert_eq!(agent.cli(&["deny", "flush"]).ok().code, 0);
}

#[test]
fn commands_during_reloads_lose_nothing() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.1/32]"));
    let mut commands = Vec::new();
    for round in 0..10 {
        agent.configure(&config::kernel_only(&format!("deny: [192.0.2.{round}/32]")));
        agent.hang_up();
        commands.push(agent.cli_running(&["deny", "add", &format!("198.51.100.{round}")]));
    }
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // The last signal is the one that counts; several at once may be one.
    agent.cli(&["reload"]).ok();
    let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
    let mut want = vec!["192.0.2.9/32".to_owned()];
    want.extend((0..10).map(|round| format!("198.51.100.{round}/32")));
    assert_eq!(listed, want);
}

#[test]
fn bans_killed_half_way_leave_a_table_that_adds_up() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    agent.kill();
    let file = agent.directory().join("long.txt");
    let lines = (0..40_000_u32).fold(String::new(), |mut text, host| {
        writeln!(text, "{}", std::net::Ipv4Addr::from_bits(0x0a00_0000 + host)).unwrap();
        text
    });
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let entries = || {
        let listed = agent.cli_quiet(&["deny", "list", "--json"]).ok().prefixes().len() as u64;
        let maps = agent.status()["maps"].clone();
        let maps = maps.as_array().unwrap();
        let used = maps.iter().find(|map| map["map"] == "ban").unwrap()["entries"].as_u64().unwrap();
        (listed, used)
    };
    for (round, reason) in ["one", "two", "three", "four", "five"].into_iter().enumerate() {
        let mut import = agent.cli_running(&["deny", "import", file, "--ttl", "1h", "--reason", reason]);
        std::thread::sleep(Duration::from_millis(30 + 25 * round as u64));
        import.kill().unwrap();
        import.wait().unwrap();
        // Whoever writes next finds what was torn and makes it good.
        agent.cli(&["deny", "add", "192.0.2.1"]).ok();
        agent.cli(&["deny", "del", "192.0.2.1"]).ok();
        let (listed, used) = entries();
        assert_eq!(listed, used, "entries in the list and entries counted, after a kill in round {round}");
    }
    agent.cli(&["deny", "import", file, "--ttl", "1h", "--reason", "whole"]).ok();
    assert_eq!(entries(), (40_000, 40_000));
    agent.cli(&["deny", "flush"]).ok();
    assert_eq!(entries(), (0, 0));
}
