//! Imported lists: what a file becomes, the way back, and what is refused without a trace.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway_tests::{
    Agent, CLIENT_V4, DENIED_V4, GATEWAY_V4, Net, Setup, Traffic, Upstream, eventually, require_root,
};

use crate::config;

/// In the kernel, and by a program that holds the same lists in userspace.
const BOTH_PLACES: [&str; 2] = ["attach: auto", "attach: off"];

#[test]
fn a_list_is_replaced_and_the_former_one_comes_back() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let upstream = Upstream::echo(&net);
        let agent = Setup::new(&net).start(&config::to(&upstream, attach));
        let served = |source| Agent::connect(&net, source).and_then(|mut peer| peer.get("/")).is_ok();
        let file = write(&agent, "feed.txt", "198.18.1.66\n192.0.2.1\n");
        let said = agent.cli(&["deny", "import", &file]).ok().out;
        assert!(said.starts_with("feed.txt: 2 entries in force, generation "), "{said}");
        agent.cli(&["deny", "add", "192.0.2.99"]).ok();
        assert_eq!((served(DENIED_V4), served(CLIENT_V4)), (false, true), "{attach}: the first");
        write(&agent, "feed.txt", "198.18.1.2\n192.0.2.2 ttl=1h\n");
        let said = agent.cli(&["deny", "import", &file]).ok().out;
        assert!(said.contains("feed.txt: 1 entry in force") && said.contains("ban: 1 added"), "{said}");
        assert_eq!((served(DENIED_V4), served(CLIENT_V4)), (true, false), "{attach}: the second");
        agent.cli(&["deny", "rollback"]).ok();
        assert_eq!((served(DENIED_V4), served(CLIENT_V4)), (false, true), "{attach}: back");
        agent.cli(&["deny", "rollback"]).ok();
        assert_eq!((served(DENIED_V4), served(CLIENT_V4)), (true, false), "{attach}: and forth");
        let listed = agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        assert_eq!(listed, ["192.0.2.2/32", "192.0.2.99/32", "198.18.1.2/32"], "what was made singly stays");
        agent.cli(&["deny", "forget", "nothing"]).fails_with(1).says(&["nothing", "feed.txt"]);
        agent.cli(&["allow", "forget", "feed.txt"]).fails_with(1);
        let said = agent.cli(&["deny", "forget", "feed.txt"]).ok().out;
        assert_eq!(said, "feed.txt: 1 entry removed\n");
        assert!(served(CLIENT_V4), "{attach}: forgotten");
        agent.cli(&["deny", "import", &file, "--list", "config-deny"]).fails_with(1).says(&["config-deny"]);
    }
}

#[test]
fn a_dry_run_says_whom_a_list_would_have_hit() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(""));
    let traffic = Traffic::start(&net, &[CLIENT_V4, DENIED_V4]);
    traffic.await_more(DENIED_V4, 300);
    traffic.stop();
    let former = write(&agent, "feed.txt", "192.0.2.1\n192.0.2.2 reason=a\n");
    agent.cli(&["deny", "import", &former]).ok();
    let lists = || agent.cli(&["deny", "lists", "--json"]).ok().out;
    let before = lists();
    for (text, change, hits) in [
        ("198.18.1.66\n192.0.2.2\n", "1 added, 1 removed, 1 changed; 2 entries now, 2 entries then", 1),
        ("198.18.1.0/24\n", "1 added, 2 removed, 0 changed; 2 entries now, 1 entry then", 2),
        ("198.18.1.3\n192.0.2.1\n192.0.2.2 reason=a\n", "1 added, 0 removed, 0 changed", 0),
    ] {
        let file = write(&agent, "feed.txt", text);
        eventually("both sources were noted", Duration::from_secs(5), || {
            let said = agent.cli(&["deny", "import", &file, "--dry-run"]).ok().out;
            let hit = format!("it would have hit {hits} of ");
            if said.contains(change) && said.contains(&hit) { Ok(()) } else { Err(said) }
        });
    }
    assert_eq!(lists(), before, "a dry run changed something");
}

#[test]
fn what_is_no_list_is_refused_and_the_former_one_stays() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(attach));
        let file = write(&agent, "feed.txt", "192.0.2.1\n");
        agent.cli(&["deny", "import", &file]).ok();
        let rubbish: Vec<u8> =
            (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // Its name, the file, options, and what is said.
        type Row<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a [&'a str]);
        let table: &[Row<'_>] = &[
            ("rubbish", &rubbish, &[], &["feed.txt:1:", "nothing of it was applied"]),
            ("rubbish, skipped", &rubbish, &["--skip-invalid"], &["feed.txt has no entries"]),
            ("empty", b"", &[], &["feed.txt has no entries", "gateway deny forget"]),
            ("comments", b"# nothing\n\n", &[], &["feed.txt has no entries"]),
            (
                "everything",
                b"192.0.2.7\n0.0.0.0/0\n",
                &[],
                &["feed.txt:2: 0.0.0.0/0 covers every", "--force"],
            ),
            ("everything, v6", b"::/0\n", &[], &["::/0 covers every", "--force"]),
            (
                "mapped",
                b"::ffff:192.0.2.1\n",
                &[],
                &["feed.txt:1: ::ffff:192.0.2.1 is IPv4 mapped into IPv6"],
            ),
            ("mapped, by force", b"::ffff:0:0/96\n", &["--force"], &["IPv4 mapped into IPv6"]),
            ("host bits", b"192.0.2.1/24\n", &[], &["did you mean 192.0.2.0/24?"]),
            ("host bits, by force", b"192.0.2.1/24\n", &["--force"], &["did you mean 192.0.2.0/24?"]),
            ("no database", b"192.0.2.1\n", &["--country", "DE"], &["no MaxMind database"]),
        ];
        let listed = || agent.cli(&["deny", "list", "--json"]).ok().prefixes();
        for (name, bytes, options, expected) in table {
            std::fs::write(&file, bytes).unwrap();
            let arguments = [&["deny", "import", &file], *options].concat();
            agent.cli(&arguments).fails_with(1).says(expected);
            assert_eq!(listed(), ["192.0.2.1/32"], "{attach}: {name}");
        }
        let directory = agent.directory().to_str().unwrap();
        agent.cli(&["deny", "import", directory]).fails_with(1).says(&[directory, "directory"]);
        agent.cli(&["deny", "import", "/nowhere/feed.txt"]).fails_with(1).says(&["/nowhere/feed.txt"]);
        agent.cli(&["deny", "add", "0.0.0.0/0"]).fails_with(1).says(&["--force"]);
        assert_eq!(listed(), ["192.0.2.1/32"], "{attach}");

        write(&agent, "feed.txt", "0.0.0.0/0\n");
        agent.cli(&["deny", "import", &file, "--force"]).ok();
        assert_eq!(listed(), ["0.0.0.0/0"], "{attach}: by force");
        assert_eq!(agent.cli(&["explain", "packet", "203.0.113.1"]).code, 1, "{attach}: everybody");
        agent.cli(&["deny", "rollback"]).ok();
        agent.cli(&["deny", "add", "0.0.0.0/0", "--force", "--ttl", "1h"]).ok();
        assert_eq!(agent.cli(&["explain", "packet", "203.0.113.1"]).code, 1, "{attach}: everybody");
        // What is there can be taken out, whatever it covers.
        agent.cli(&["deny", "del", "0.0.0.0/0"]).ok();
        agent.cli(&["deny", "flush"]).ok();
        assert_eq!(agent.cli(&["explain", "packet", "203.0.113.1"]).code, 0, "{attach}: nobody");
    }
}

#[test]
fn nobody_denies_the_address_they_are_connected_from() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(attach));
        let file = write(&agent, "feed.txt", "192.0.2.1\n203.0.113.0/24\n");
        let timed = write(&agent, "timed.txt", "203.0.113.0/24 ttl=1h\n");
        let attempts: [&[&str]; 5] = [
            &["deny", "add", "203.0.113.7"],
            &["deny", "add", "203.0.113.0/24", "--ttl", "1h"],
            &["deny", "add", "0.0.0.0/0", "--force"],
            &["deny", "import", &file],
            &["deny", "import", &timed],
        ];
        for attempt in attempts {
            let refused = agent.cli_from("203.0.113.7", attempt).fails_with(1);
            refused.says(&["203.0.113.7, from where you are connected", "gateway allow add 203.0.113.7"]);
            assert!(
                agent.cli(&["deny", "list", "--json"]).ok().prefixes().is_empty(),
                "{attach}: {attempt:?}"
            );
        }
        agent.cli_from("203.0.113.7", &["deny", "import", &file, "--shadow"]).ok();
        agent.cli_from("198.51.100.7", &["deny", "import", &file]).ok();
        agent.cli_from("203.0.113.7", &["allow", "add", "203.0.113.7"]).ok();
        for attempt in attempts {
            agent.cli_from("203.0.113.7", attempt).ok();
        }
    }
}

#[test]
fn explain_names_the_list_the_rule_the_generation_and_the_evidence() {
    require_root!();
    for attach in BOTH_PLACES {
        let net = Net::new();
        let agent = Setup::new(&net).start(&config::kernel_only(attach));
        let feed = write(&agent, "feed.txt", "203.0.113.0/24 reason=abuse\n198.51.100.0/24\n");
        let trial = write(&agent, "trial.txt", "203.0.113.0/25\n2001:db8:9::/48\n");
        agent.cli(&["deny", "import", &feed]).ok();
        agent.cli(&["deny", "import", &trial, "--shadow"]).ok();
        let ban =
            ["deny", "add", "198.51.100.7", "--ttl", "10m", "--reason", "scan", "--evidence", "ticket 7"];
        agent.cli(&ban).ok();
        let table: [(&str, &str, &[&str]); 4] = [
            (
                "203.0.113.7",
                "drop",
                &[
                    "203.0.113.0/24 in feed.txt, rule abuse, generation 1",
                    "in shadow: 203.0.113.0/25 in trial.txt, rule trial.txt, generation 2, shadow",
                ],
            ),
            (
                "198.51.100.7",
                "drop",
                &["198.51.100.7/32 in ban, rule scan, for ", "by the command line, evidence ticket 7"],
            ),
            ("198.51.100.8", "drop", &["198.51.100.0/24 in feed.txt, rule feed.txt, generation 1"]),
            ("2001:db8:9::1", "pass", &["in shadow: 2001:db8:9::/48 in trial.txt"]),
        ];
        for (source, verdict, expected) in table {
            let answer = agent.cli(&["explain", "packet", source]);
            assert_eq!(answer.code, i32::from(verdict == "drop"), "{attach}: {source}: {}", answer.out);
            for text in expected {
                assert!(answer.out.contains(text), "{attach}: {source}: {text:?} is not in\n{}", answer.out);
            }
        }
        let explained = agent.cli(&["explain", "packet", "198.51.100.7", "--json"]).fails_with(1).json();
        assert_eq!(explained["generation"], 2, "{attach}: {explained}");
        let stages = explained["stages"].as_array().unwrap();
        let ban = &stages.iter().find(|stage| stage["stage"] == "ban").unwrap()["entry"];
        assert_eq!((&ban["evidence"], &ban["set_by"]), (&"ticket 7".into(), &"cli".into()), "{explained}");
    }
}

#[test]
fn imported_lists_outlive_the_agent_and_move_to_userspace() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only("deny: [192.0.2.0/24]"));
    let file = write(&agent, "feed.txt", "203.0.113.0/24 reason=abuse\n2001:db8:9::/48\n");
    agent.cli(&["deny", "import", &file]).ok();
    agent.cli(&["deny", "import", &file, "--list", "trial", "--shadow"]).ok();
    let lists = |agent: &Agent| {
        let lists = agent.cli(&["deny", "lists", "--json"]).ok().json();
        let row = |list: &serde_json::Value| {
            format!("{} {} {} {}", list["name"], list["entries_v4"], list["entries_v6"], list["shadow"])
        };
        let mut rows: Vec<String> = lists.as_array().unwrap().iter().map(row).collect();
        rows.sort();
        rows
    };
    let expected = ["\"config-deny\" 1 0 false", "\"feed.txt\" 1 1 false", "\"trial\" 1 1 true"];
    for kernel in ["interfaces: [front0], deny: [192.0.2.0/24]", "attach: off, deny: [192.0.2.0/24]"] {
        agent.kill();
        agent.configure(&format!("kernel: {{{kernel}}}\n"));
        agent.start();
        assert_eq!(lists(&agent), expected, "{kernel}");
        let explained = agent.cli(&["explain", "packet", "203.0.113.7"]).fails_with(1).out;
        assert!(explained.contains("203.0.113.0/24 in feed.txt, rule abuse"), "{kernel}: {explained}");
    }
}

/// What is measured is from the end of the command to the last datagram that passed, which is less than nothing as a
/// rule: the entry is in force before the command has said so.
#[test]
fn a_ban_is_in_force_when_the_command_has_ended() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(&config::kernel_only(""));
    let sender = net.client.run(|| UdpSocket::bind((DENIED_V4, 0))).unwrap();
    let receiver = net.gateway.run(|| UdpSocket::bind((GATEWAY_V4, 7070))).unwrap();
    sender.connect(SocketAddr::new(GATEWAY_V4, 7070)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let stop = AtomicBool::new(false);
    let mut worst = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each carries when it was sent: what waits in a queue must not count against the ban.
            while !stop.load(Ordering::Relaxed) {
                sender.send(&(start.elapsed().as_nanos() as u64).to_be_bytes()).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let last = || {
            let (mut stamp, mut last) = ([0; 8], Duration::ZERO);
            while receiver.recv(&mut stamp).is_ok() {
                last = Duration::from_nanos(u64::from_be_bytes(stamp));
            }
            last
        };
        for round in 0..20 {
            let mut stamp = [0; 8];
            receiver.recv(&mut stamp).expect("datagrams flow");
            let answer = agent.cli_quiet(&["deny", "add", "198.18.1.66", "--ttl", "1h"]);
            let ended = start.elapsed();
            answer.ok();
            let late = last().saturating_sub(ended);
            assert!(
                late < Duration::from_millis(50),
                "round {round}: a datagram passed {late:?} after the command"
            );
            worst = worst.max(late);
            agent.cli_quiet(&["deny", "del", "198.18.1.66"]).ok();
            eventually("datagrams flow again", Duration::from_secs(5), || receiver.recv(&mut stamp));
        }
        stop.store(true, Ordering::Relaxed);
    });
    eprintln!("the last datagram that passed was sent at most {worst:?} after the end of `deny add`");
}

#[test]
fn a_hundred_megabytes_are_taken_or_refused_in_bounded_memory() {
    require_root!();
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    let path = agent.directory().join("long.txt");
    let file = path.to_str().unwrap();
    write_long(&path, 700_000, 150);
    assert!(path.metadata().unwrap().len() > 100 << 20);
    let (code, peak) = measured(&agent, &["deny", "import", file]);
    assert_eq!(code, Some(0));
    let listed = &agent.cli(&["deny", "lists", "--json"]).ok().json()[0];
    assert_eq!(listed["entries_v4"], 700_000);
    assert!(peak < 700 << 20, "the import took {} MiB", peak >> 20);
    eprintln!("an import of 100 MiB and 700,000 prefixes took {} MiB", peak >> 20);

    // Too long to be read at all: refused before it is.
    std::fs::File::create(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    agent.cli(&["deny", "import", file]).fails_with(1).says(&[file, "longer than 256 MiB"]);

    // Through the socket there is room for some million entries; what is longer is refused before it is sent.
    agent.kill();
    agent.configure("kernel: {attach: off}\n");
    agent.start();
    write_long(&path, 3_000_000, 0);
    agent.cli(&["deny", "import", file, "--list", "another"]).fails_with(1).says(&["64 MiB"]);
    assert_eq!(agent.cli(&["deny", "lists", "--json"]).ok().json()[0]["entries_v4"], 700_000);
}

#[test]
fn an_import_killed_at_any_moment_is_the_former_list_or_the_new_one() {
    require_root!();
    const LENGTH: u32 = 300_000;
    let net = Net::new();
    let mut agent = Setup::new(&net).start(&config::kernel_only(""));
    let files = [10, 11].map(|first| {
        let path = agent.directory().join(format!("{first}.txt"));
        let lines = (0..LENGTH).fold(String::new(), |mut text, host| {
            writeln!(text, "{}", Ipv4Addr::from_bits((first << 24) + host)).unwrap();
            text
        });
        std::fs::write(&path, lines).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let import = |round: usize| ["deny", "import", &files[round % 2], "--list", "long"].map(str::to_owned);
    let run = |agent: &Agent, round: usize| {
        let arguments = import(round);
        agent.cli_running(&arguments.each_ref().map(String::as_str))
    };
    let start = Instant::now();
    assert!(run(&agent, 0).wait().unwrap().success());
    let whole = start.elapsed();
    let mut fates = [0; 2];
    for round in 1..=10 {
        if round == 6 {
            agent.kill();
        }
        let mut command = run(&agent, round);
        // Somewhere in its life, another moment every time and in every run.
        let noise = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() % 100;
        let moment = whole * (u32::try_from(round).unwrap() * 100 - noise) / 1000;
        std::thread::sleep(moment);
        command.kill().unwrap();
        command.wait().unwrap();
        let lists = agent.cli(&["deny", "lists", "--json"]).ok().json();
        let source = lists[0]["source"].as_str().unwrap_or_default().to_owned();
        assert_eq!(lists[0]["entries_v4"], LENGTH, "round {round}: {lists}");
        let new = source == files[round % 2];
        assert!(new || files.contains(&source), "round {round}: {lists}");
        fates[usize::from(new)] += 1;
        // The first and the last of what the list says it is, and none of the other.
        let (own, other) = if source == files[0] { (10, 11) } else { (11, 10) };
        for host in [0, 1, LENGTH / 2, LENGTH - 1] {
            for (first, code) in [(own, 1), (other, 0)] {
                let address = Ipv4Addr::from_bits((first << 24) + host).to_string();
                assert_eq!(
                    agent.cli_quiet(&["explain", "packet", &address]).code,
                    code,
                    "round {round}: {address}"
                );
            }
        }
    }
    let listed = agent.cli_quiet(&["deny", "list", "--json"]).ok().prefixes();
    assert_eq!(listed.len(), LENGTH as usize);
    eprintln!(
        "of ten imports of {whole:?}, {} were killed before and {} after they were in force",
        fates[0], fates[1]
    );
    assert!(run(&agent, 0).wait().unwrap().success(), "the next import works");
}

/// Writes a file into the agent's directory; gives its path.
fn write(agent: &Agent, name: &str, text: &str) -> String {
    let path = agent.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A list of so many addresses, each with a comment of so many bytes.
fn write_long(path: &Path, count: u32, comment: usize) {
    let comment = "x".repeat(comment);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for host in 0..count {
        writeln!(file, "{} # {comment}", Ipv4Addr::from_bits(0x0a00_0000 + host)).unwrap();
    }
    file.flush().unwrap();
}

/// Runs a command to its end; gives its exit code and the most memory that it held, in bytes.
fn measured(agent: &Agent, arguments: &[&str]) -> (Option<i32>, u64) {
    let mut command = agent.cli_running(arguments);
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", command.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = high.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kibibytes.unwrap_or(0) << 10);
        if let Some(status) = command.try_wait().unwrap() {
            return (status.code(), peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
