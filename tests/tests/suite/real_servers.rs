//! Servers that people run, behind the gateway: nginx, Python's and Node's, over TCP, a Unix socket, TLS and HTTP/2; and
//! clients that people use, in front of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use gateway_tests::http::Connection;
use gateway_tests::{Agent, CLIENT_V4, Net, Nginx, Setup, UPSTREAM_V4, eventually, require_root, skip};

use crate::tls::Authority;

const PORT: u16 = 8081;
/// More than all buffers on the way hold together.
const LARGE: usize = 8 * 1024 * 1024;

/// A server in the upstream namespace, ended with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Runs a script of `servers/` by its interpreter.
    fn start(net: &Net, program: &str, script: &str, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/servers").join(script);
        let mut command = Command::new(program);
        command.arg(script).args(arguments).stdin(Stdio::null());
        Self(net.upstream.run(|| command.spawn().unwrap()))
    }
}

/// How a server is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Unix,
    Tls,
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The gateway in front of one upstream with these keys.
fn config(endpoint: &str, keys: &str) -> String {
    format!(
        "kernel: {{attach: \"off\"}}\nlisteners: {{web: {{address: \"198.18.1.1:8080\"}}}}\n\
         upstreams: {{app: {{endpoints: [\"{endpoint}\"]{keys}}}}}\nroutes: {{all: {{upstream: app}}}}\n"
    )
}

/// Waits until a server listens where it was told to.
fn await_server(net: &Net, way: Way, socket: &Path) {
    eventually("the server listens", Duration::from_secs(10), || match way {
        Way::Unix => std::os::unix::net::UnixStream::connect(socket).map(drop),
        Way::Tcp | Way::Tls => {
            Connection::open(&net.upstream, UPSTREAM_V4, SocketAddr::new(UPSTREAM_V4, PORT)).map(drop)
        }
    });
}

fn curl(net: &Net, path: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--max-time", "30", "--noproxy", "*"])
        .args(arguments);
    command.arg(format!("http://198.18.1.1:8080{path}"));
    net.client.run(|| command.output().unwrap())
}

#[track_caller]
fn fetched(net: &Net, path: &str, arguments: &[&str]) -> Vec<u8> {
    let output = curl(net, path, arguments);
    assert!(output.status.success(), "{path} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file of bytes that do not repeat in step with any buffer.
fn large(directory: &Path) -> (PathBuf, Vec<u8>) {
    let bytes: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
    let path = directory.join("large");
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

/// What every application server has to give through the gateway.
fn check_application(net: &Net, agent: &Agent<'_>) {
    let connects = || agent.metrics().sum("gateway_upstream_connects_total", &[("result", "ok")]);
    let mut connection = Agent::connect(net, CLIENT_V4).unwrap();
    for _ in 0..20 {
        assert_eq!(connection.get("/length").unwrap().text(), "length");
    }
    agent.await_metric("gateway_upstream_connects_total", &[("result", "ok")], |sum| sum >= 1.0);
    assert!(connects() <= 2.0, "connections to the server are kept: {} for 20 requests", connects());

    connection.send("GET /chunks HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").unwrap();
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") || !text.contains("\r\n0\r\n") {
        text.push_str(&String::from_utf8_lossy(&connection.bytes().unwrap()));
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert!(body.contains("one ") && body.contains("two"), "{body}");
    assert!(body.to_lowercase().ends_with("0\r\nx-sum: 7\r\n\r\n"), "trailers pass: {body}");

    // Each event before the server may send the next: nothing waits in between for more.
    connection.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (mut seen, mut other) = (String::new(), Agent::connect(net, CLIENT_V4).unwrap());
    for number in 0..5 {
        while !seen.contains(&format!("data: {number}\n\n")) {
            seen.push_str(&String::from_utf8_lossy(
                &connection.bytes().expect("an event waits for the next one"),
            ));
        }
        assert!(!seen.contains(&format!("data: {}", number + 1)), "the server waits for its turn: {seen}");
        assert_eq!(other.get("/go").unwrap().text(), "gone on");
    }
    while !seen.ends_with("0\r\n\r\n") {
        seen.push_str(&String::from_utf8_lossy(&connection.bytes().unwrap()));
    }

    let (path, bytes) = large(agent.directory());
    let file = format!("@{}", path.display());
    for (name, arguments) in [
        ("with a length", &["--data-binary", &file][..]),
        ("in chunks", &["--data-binary", &file, "--header", "Transfer-Encoding: chunked"]),
        ("over HTTP/2", &["--data-binary", &file, "--http2-prior-knowledge"]),
    ] {
        assert!(fetched(net, "/echo", arguments) == bytes, "a body {name} comes back as it was sent");
    }
    if !is_installed("h2load") {
        return skip("h2load is not installed");
    }
    for protocol in ["--h1", "-ph2c"] {
        let url = "http://198.18.1.1:8080/length";
        let text = net.client.command("h2load", &[protocol, "-n1000", "-c4", "-m4", url]);
        assert!(text.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{protocol}: {text}");
        assert!(text.contains("1000 2xx"), "{protocol}: {text}");
    }
}

/// Serves by a script, and checks that over each of these ways.
fn check_script(program: &str, script: &str, ways: &[Way]) {
    for needed in [program, "curl"] {
        if !is_installed(needed) {
            return skip(&format!("{needed} is not installed"));
        }
    }
    for way in ways {
        let net = Net::new();
        let setup = Setup::new(&net);
        let directory = setup.directory().to_owned();
        let socket = directory.join("app.sock");
        let (place, path) = (PORT.to_string(), socket.display().to_string());
        let file = |name: &str| directory.join(name).display().to_string();
        Authority::new(&directory).sign("app", "app.test");
        let (cert, key) = (file("app.pem"), file("app.key"));
        let (arguments, endpoint, keys) = match way {
            Way::Tcp => (vec![place.as_str()], format!("http://198.18.2.2:{PORT}"), ""),
            Way::Unix => (vec![path.as_str()], format!("unix:{path}"), ""),
            Way::Tls => (
                vec![place.as_str(), &cert, &key],
                format!("https://198.18.2.2:{PORT}"),
                ", tls: {ca: ca.pem, name: app.test}",
            ),
        };
        let _server = Server::start(&net, program, script, &arguments);
        await_server(&net, *way, &socket);
        let agent = setup.start(&config(&endpoint, keys));
        check_application(&net, &agent);
    }
}

#[test]
fn an_application_in_python() {
    require_root!();
    check_script("/usr/bin/python3", "server.py", &[Way::Tcp, Way::Unix]);
}

/// Node writes them by itself, and curl shows every head that it gets.
#[test]
fn early_hints_of_node() {
    require_root!();
    for needed in ["node", "curl"] {
        if !is_installed(needed) {
            return skip(&format!("{needed} is not installed"));
        }
    }
    let net = Net::new();
    let setup = Setup::new(&net);
    let _server = Server::start(&net, "node", "server.js", &[&PORT.to_string()]);
    await_server(&net, Way::Tcp, Path::new(""));
    let agent = setup.start(&config(&format!("http://198.18.2.2:{PORT}"), ""));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let text = String::from_utf8(fetched(&net, "/hints", &["--include", version])).unwrap();
        let (hints, answer) = text.split_once("\r\n\r\n").unwrap();
        let (hints, answer) = (hints.to_lowercase(), answer.to_lowercase());
        assert!(hints.contains(" 103") && hints.contains("link: </a.css>; rel=preload; as=style"), "{text}");
        assert!(answer.contains(" 200") && answer.ends_with("hinted"), "{text}");
    }
    drop(agent);
}

#[test]
fn an_application_in_node() {
    require_root!();
    check_script("node", "server.js", &[Way::Tcp, Way::Unix, Way::Tls]);
}

#[test]
fn nginx_over_a_socket_tls_and_http2() {
    require_root!();
    if !is_installed("curl") {
        return skip("curl is not installed");
    }
    let net = Net::new();
    let setup = Setup::new(&net);
    let directory = setup.directory().to_owned();
    Authority::new(&directory).sign("site", "files.test");
    let Some(nginx) = Nginx::of_files(&net, &directory) else { return skip("nginx is not installed") };
    let tls = ", tls: {ca: ca.pem, name: files.test}";
    let secure = format!("https://198.18.2.2:{}", Nginx::SECURE_PORT);
    let agent = setup.start(&config(&format!("http://198.18.2.2:{}", Nginx::PORT), ""));
    let (path, bytes) = large(&directory);
    for (name, endpoint, keys, version) in [
        ("in the clear", format!("http://198.18.2.2:{}", Nginx::PORT), String::new(), "HTTP/1.1"),
        ("a socket", format!("unix:{}", nginx.socket().display()), String::new(), "HTTP/1.1"),
        ("TLS", secure.clone(), tls.to_owned(), "HTTP/1.1"),
        ("HTTP/2 by choice", secure.clone(), format!(", protocol: auto{tls}"), "HTTP/2.0"),
        ("HTTP/2 alone", secure.clone(), format!(", protocol: http2{tls}"), "HTTP/2.0"),
    ] {
        agent.configure(&config(&endpoint, &keys));
        agent.cli(&["reload"]).ok();
        let connects = || agent.metrics().sum("gateway_upstream_connects_total", &[("result", "ok")]);
        let before = connects();
        let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
        for (path, length) in [("/1k", 1 << 10), ("/1m", 1 << 20), ("/1k", 1 << 10)] {
            let reply = connection.get(path).unwrap();
            assert_eq!((reply.status(), reply.body.len()), (200, length), "{name}: {path}");
        }
        assert_eq!(connection.get("/version").unwrap().text(), version, "{name}");
        // nginx cannot know how long it will be.
        let reply = connection.get("/included.html").unwrap();
        assert_eq!(reply.text(), format!("begin{}end\n", "k".repeat(1024)), "{name}: {reply:?}");
        assert_eq!(reply.header("content-length"), None, "{name}: {reply:?}");
        let file = path.display().to_string();
        for arguments in [&["--upload-file", &file][..], &["--upload-file", &file, "--http2-prior-knowledge"]]
        {
            fetched(&net, "/uploaded", arguments);
            assert!(fetched(&net, "/uploaded", &[]) == bytes, "{name}: what was put is got");
        }
        eventually("connections are kept", Duration::from_secs(5), || {
            let opened = connects() - before;
            if (1.0..=4.0).contains(&opened) { Ok(()) } else { Err((name, opened)) }
        });
    }
}
