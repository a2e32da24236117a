//! The admin server over real sockets, with rules in this process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gateway_kernel::{Enforcement, ListKind, Rules, State};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::events::Watchers;
use super::feeds::Feeds;
use super::*;
use crate::model::ListSources;
use crate::observe::RuleLabels;
use crate::observe::metrics::Recorder;
use crate::proxy;

/// An admin server on a thread of its own; it goes when this goes.
pub(crate) struct Server {
    directory: TempDir,
    pub(crate) live: Arc<Live>,
    tcp: std::net::SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    /// Starts one; every order to reload is answered by `reload`.
    pub(crate) fn start(reload: fn() -> Result<Reloaded, String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let (orders, mut inbox) = mpsc::channel::<ReloadOrder>(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let live = {
            let _entered = runtime.enter();
            Arc::new(live(&socket, orders))
        };
        let (guard, unix) = AdminSocket::bind(&socket).expect("bound");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        tcp.set_nonblocking(true).expect("non-blocking");
        let address = tcp.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = Arc::clone(&live);
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let _guard = guard;
                let unix = tokio::net::UnixListener::from_std(unix).expect("polled");
                let tcp = tokio::net::TcpListener::from_std(tcp).expect("polled");
                tokio::spawn(serve_unix(unix, Arc::clone(&serving)));
                tokio::spawn(serve_tcp(tcp, serving));
                tokio::spawn(async move {
                    while let Some(order) = inbox.recv().await {
                        let _ = order.send(reload());
                    }
                });
                let _ = stopped.await;
            });
        });
        Self { directory, live, tcp: address, _stop: stop }
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("admin.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// Sends bytes through the door and reads until it closes.
    fn raw(&self, unix: bool, request: &[u8]) -> String {
        fn exchange<S: Read + Write>(mut stream: S, request: &[u8]) -> String {
            stream.write_all(request).expect("sent");
            let mut reply = Vec::new();
            // A door that is slammed may reset the connection after its reply.
            let _ = stream.read_to_end(&mut reply);
            String::from_utf8_lossy(&reply).into_owned()
        }
        if unix {
            exchange(UnixStream::connect(self.socket()).expect("connected"), request)
        } else {
            exchange(TcpStream::connect(self.tcp).expect("connected"), request)
        }
    }

    fn get(&self, unix: bool, path: &str) -> String {
        self.raw(unix, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }
}

/// An agent without its own tasks; within a runtime.
pub(super) fn live(socket: &Path, reload: mpsc::Sender<ReloadOrder>) -> Live {
    let rules = Rules::in_userspace().expect("rules");
    let none = ListSources { cache: "/nonexistent".into(), sources: Vec::new() };
    Live {
        pin_dir: "/sys/fs/bpf/gateway-test".into(),
        admin: None,
        socket: socket.to_owned(),
        feeds: Feeds::start(rules.clone(), &none),
        rules,
        recorder: Recorder::default(),
        watchers: Watchers::default(),
        recent: Recent::default(),
        rule_labels: Mutex::new(RuleLabels::new(1000)),
        sampled: true,
        proxy: ProxyStatus(Box::new(|| proxy::Status {
            workers: 1,
            listeners: Vec::new(),
            endpoints: Vec::new(),
            breakers: Vec::new(),
            discoveries: Vec::new(),
        })),
        health: ProxyHealth(Box::new(Vec::new)),
        reload,
        phase: Default::default(),
        started: (Instant::now(), SystemTime::now()),
        kernel: Mutex::new(State {
            enforcement: Enforcement::Userspace { why: "a test".into() },
            interfaces: Vec::new(),
            default: Default::default(),
        }),
        config: Mutex::new(ConfigStatus {
            path: "/etc/gateway/gateway.yaml".into(),
            hash: "abc".into(),
            reload_failures: 0,
            last_reload: None,
        }),
    }
}

pub(crate) fn taken() -> Result<Reloaded, String> {
    Ok(Reloaded { hash: "def".into(), needs_restart: vec!["admin.address".into()] })
}

fn refused() -> Result<Reloaded, String> {
    Err("gateway.yaml:1:1: no".into())
}

#[test]
fn each_door_shows_its_own() {
    let server = Server::start(taken);
    server.live.phase.set(Phase::Ready);
    let table = [
        ("/healthz", "200", "200"),
        ("/readyz", "200", "200"),
        ("/metrics", "200", "200"),
        ("/", "404", "404"),
        ("/api/v1/status", "404", "200"),
        ("/api/v1/identity", "404", "200"),
        ("/api/v1/counters", "404", "200"),
        ("/api/v1/lists/deny/entries", "404", "200"),
        ("/api/v1/lists/nothing/entries", "404", "404"),
        ("/api/v1/reload", "404", "404"),
    ];
    for (path, tcp, unix) in table {
        for (door, expected) in [(false, tcp), (true, unix)] {
            let reply = server.get(door, path);
            assert!(reply.starts_with(&format!("HTTP/1.1 {expected}")), "{path} unix={door}: {reply}");
        }
    }
}

#[test]
fn readiness_follows_the_agent() {
    let server = Server::start(taken);
    let table = [(Phase::Starting, "503"), (Phase::Ready, "200"), (Phase::Draining, "503")];
    for (phase, expected) in table {
        server.live.phase.set(phase);
        let reply = server.get(false, "/readyz");
        assert!(reply.starts_with(&format!("HTTP/1.1 {expected}")), "{phase:?}: {reply}");
        assert!(server.get(false, "/healthz").starts_with("HTTP/1.1 200"), "{phase:?}: alive");
    }
}

#[test]
fn bad_requests_are_bounded() {
    let server = Server::start(taken);
    let long_header = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(32 << 10));
    let many_headers = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    let long_body = format!(
        "POST /api/v1/lists/add HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        MAX_BODY_BYTES + 1
    );
    let bad_json =
        "POST /api/v1/lists/add HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{";
    let table = [
        ("long header", long_header.as_str(), "431"),
        ("many headers", many_headers.as_str(), "431"),
        ("long body", long_body.as_str(), "413"),
        ("bad JSON", bad_json, "400"),
    ];
    for (name, request, expected) in table {
        let reply = server.raw(true, request.as_bytes());
        assert!(reply.starts_with(&format!("HTTP/1.1 {expected}")), "{name}: {reply}");
    }
}

#[test]
fn lists_are_changed_over_the_socket() {
    let server = Server::start(taken);
    let client = server.client();
    let prefix = "192.0.2.0/24".parse().expect("a prefix");
    let entry = WireEntry { prefix, rule: "scan".into(), ttl_ms: Some(60_000), shadow: false };
    let add = |list, entries| {
        client.call(&Request::Add(AddBody {
            batches: vec![Batch { list, entries }],
            note: None,
            force: false,
        }))
    };
    let added = add(ListKind::Ban, vec![entry]);
    assert!(matches!(added, Ok(Reply::Added(added)) if added[0].added == 1));
    let Ok(Reply::Entries(entries)) = client.call(&Request::Entries(ListKind::Ban)) else {
        panic!("no entries")
    };
    assert_eq!((entries[0].prefix, entries[0].rule.as_str()), (prefix, "scan"));
    let source = [192, 0, 2, 7].into();
    let explained = client.call(&Request::Explain(ExplainBody { source, destination: None }));
    assert!(matches!(explained, Ok(Reply::Explanation(found)) if found.explanation.verdict == "drop"));
    let removed = client.call(&Request::Remove(ListKind::Ban, RemoveBody { prefixes: vec![prefix] }));
    assert!(matches!(removed, Ok(Reply::Removed(removed)) if removed.removed == 1));
    assert!(matches!(client.call(&Request::Flush(ListKind::Ban)), Ok(Reply::Flushed(0))));
    let everything = WireEntry {
        prefix: "0.0.0.0/0".parse().expect("a prefix"),
        rule: "x".into(),
        ttl_ms: None,
        shadow: false,
    };
    let refused = add(ListKind::Deny, vec![everything]);
    assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.code == "bad_request"));
}

#[test]
fn lists_are_changed_together_or_not_at_all() {
    let server = Server::start(taken);
    let entry = |number: u32, rule: String, ttl_ms| WireEntry {
        prefix: format!("{}/32", std::net::Ipv4Addr::from(0xc612_0000 + number)).parse().expect("a prefix"),
        rule,
        ttl_ms,
        shadow: false,
    };
    let banned = |count| (0..count).map(|number| entry(number, "ban".into(), Some(60_000))).collect();
    let denied = |count| (0..count).map(|number| entry(number, format!("r{number}"), None)).collect();
    let both = |bans: u32, denials: u32| {
        server.client().call(&Request::Add(AddBody {
            batches: vec![
                Batch { list: ListKind::Ban, entries: banned(bans) },
                Batch { list: ListKind::Deny, entries: denied(denials) },
            ],
            note: None,
            force: false,
        }))
    };
    let entries = |list| match server.client().call(&Request::Entries(list)) {
        Ok(Reply::Entries(entries)) => entries.len(),
        other => panic!("{other:?}"),
    };
    // One label more than there are slots, the bans' own included.
    let refused = both(2, 4096);
    assert!(
        matches!(&refused, Err(ClientError::Refused(problem)) if problem.status == 409 && problem.code == "full"),
        "{refused:?}"
    );
    assert_eq!((entries(ListKind::Ban), entries(ListKind::Deny)), (0, 0));
    let Ok(Reply::Added(added)) = both(2, 4095) else { panic!("refused") };
    assert_eq!(added.iter().map(|added| added.added).collect::<Vec<_>>(), [2, 4095]);
    assert_eq!((entries(ListKind::Ban), entries(ListKind::Deny)), (2, 4095));
}

#[test]
fn a_body_that_the_agent_would_refuse_is_not_sent() {
    // Nobody listens, so an attempt to send it would say so.
    let client = Client::new(Path::new("/nonexistent/admin.sock"));
    let prefixes = vec!["2001:db8:1:2:3:4:5:6/128".parse().expect("a prefix"); MAX_BODY_BYTES / 26];
    let refused = client.call(&Request::Remove(ListKind::Deny, RemoveBody { prefixes }));
    assert!(matches!(refused, Err(ClientError::TooLong { bytes }) if bytes > MAX_BODY_BYTES), "{refused:?}");
}

#[test]
fn a_client_finds_the_agent_it_means() {
    let server = Server::start(taken);
    let find = |pin_dir: &str| Client::find(&server.socket(), Path::new(pin_dir));
    let (client, identity) = find("/sys/fs/bpf/gateway-test").expect("found");
    assert_eq!(client.identity().ok(), Some(identity));
    let other = find("/sys/fs/bpf/gateway").map(|(_, identity)| identity);
    assert!(matches!(&other, Err(ClientError::Another { .. })), "{other:?}");
}

#[test]
fn status_travels() {
    let server = Server::start(taken);
    let status = server.client().status().expect("a status");
    assert_eq!(status.agent.map(|agent| agent.pid), Some(std::process::id()));
    assert!(server.client().identity().expect("an identity").userspace);
}

#[test]
fn reloads_answer() {
    let server = Server::start(taken);
    assert_eq!(server.client().reload().ok(), taken().ok());
    let server = Server::start(refused);
    let outcome = server.client().reload();
    assert!(
        matches!(outcome, Err(ClientError::Refused(problem)) if problem.status == 422 && problem.detail.contains(":1:1"))
    );
}

#[test]
fn a_draining_agent_says_so_and_loads_nothing() {
    let server = Server::start(taken);
    server.live.phase.set(Phase::Draining);
    let outcome = server.client().reload();
    assert!(
        matches!(&outcome, Err(ClientError::Refused(problem)) if problem.code == "draining"),
        "{outcome:?}"
    );
}

#[test]
fn a_failed_reload_shows_in_status_and_metrics() {
    let server = Server::start(refused);
    let line = |wanted: &str| server.live.metrics().lines().any(|line| line == wanted);
    assert!(line("gateway_config_last_reload_success 1"));
    server.live.note_reload(&refused());
    assert!(line("gateway_config_last_reload_success 0"));
    assert!(line("gateway_config_reload_failures_total 1"));
    assert!(line("gateway_config_info{hash=\"abc\"} 1"));
    let agent = server.client().status().expect("a status").agent.expect("an agent");
    assert_eq!(agent.config.last_reload.and_then(|reload| reload.error), refused().err());
    server.live.note_reload(&taken());
    assert!(line("gateway_config_last_reload_success 1"));
    assert!(line("gateway_config_info{hash=\"def\"} 1"));
}

#[test]
fn an_explanation_carries_what_was_seen_of_the_source() {
    let server = Server::start(taken);
    let source = std::net::IpAddr::from([192, 0, 2, 7]);
    let seen = gateway_kernel::Event { source: Some(source), ..super::events::tests::event(60) };
    server.live.recent.note(&seen);
    let recent = |source: &str| {
        let source = source.parse().expect("an address");
        match server.client().call(&Request::Explain(ExplainBody { source, destination: None })) {
            Ok(Reply::Explanation(explained)) => explained.recent,
            other => panic!("{other:?}"),
        }
    };
    let table = [
        ("192.0.2.7", Some(vec![seen.clone()])),
        ("::ffff:192.0.2.7", Some(vec![seen])),
        ("192.0.2.8", Some(vec![])),
    ];
    for (source, expected) in table {
        assert_eq!(recent(source), expected, "{source}");
    }
}

#[test]
fn recent_sources_are_told() {
    let server = Server::start(taken);
    let (peer, local) = ("[::ffff:192.0.2.9]:1".parse(), "198.18.0.1:80".parse());
    assert!(server.live.rules.admits(peer.expect("a peer"), local.expect("an address")));
    let sources = server.client().call(&Request::Sources(SourcesBody { within_seconds: 60 }));
    assert!(
        matches!(&sources, Ok(Reply::Sources(seen)) if *seen == [std::net::IpAddr::from([192, 0, 2, 9])]),
        "{sources:?}"
    );
}

#[test]
fn a_filter_that_cannot_be_is_refused() {
    let server = Server::start(taken);
    let reply = server.get(true, "/api/v1/events?reason=nothing");
    for part in ["HTTP/1.1 400", "there is no reason nothing", "deny_list"] {
        assert!(reply.contains(part), "{part} is not in {reply}");
    }
}

#[test]
fn a_watcher_hears_until_the_end() {
    let server = Server::start(taken);
    let (live, client) = (Arc::clone(&server.live), server.client());
    let closer = std::thread::spawn(move || {
        // The watcher is there when closing it ends its stream; before, there is nothing to close.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !live.watchers.any() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        live.watchers.close();
    });
    let mut lines = 0;
    let ended = client.events(&Filter::default(), |_| {
        lines += 1;
        Ok(())
    });
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
    assert_eq!(lines, 0);
    closer.join().expect("closed");
}

#[test]
fn nobody_there_is_said_as_such() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    let absent = |path: &Path| matches!(Client::new(path).identity(), Err(ClientError::Absent(_)));
    assert!(absent(&path), "no file");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(absent(&path), "a dead agent's socket");
}
