//! Providers' own SDKs, LangChain, the AI SDK and the wire of agents against the mock provider: what they take for an
//! answer of the real one is one.
//!
//! Each script plays a table of scenarios and prints a line for each; a script of its own can be played by hand, as
//! `tests/sdk/README.md` says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway_tests::http::Connection;
use gateway_tests::{gateway_binary, skip};
use serde_json::Value;

/// The mock in a process of its own, ended with this.
struct Mock {
    process: Child,
    address: SocketAddr,
}

impl Mock {
    fn start() -> Self {
        let mut command = Command::new(gateway_binary());
        let mut process = command.arg("mock-provider").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        Self { process, address: address.unwrap_or_else(|| panic!("no address in {line:?}")) }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whom the SDKs talk to.
struct Place {
    base: String,
    model: &'static str,
    /// The dialect of the provider behind it, where that is another.
    provider: &'static str,
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

/// Where `cargo xtask test` installs packages: `target/tools/sdk`.
fn installed(interpreter: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/suite-<hash>
    let directory = test.ancestors().nth(3).unwrap().join("tools/sdk").join(interpreter);
    directory.join("installed").exists().then_some(directory)
}

/// The interpreter with its script; `None` where its packages are not installed.
fn command(script: &str) -> Option<Command> {
    if script.ends_with(".py") {
        let mut command = Command::new(installed("python")?.join("venv/bin/python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(sources().join(script));
        return Some(command);
    }
    // Node looks for packages beside the script, wherever it is started.
    let directory = installed("node")?;
    for name in ["scenarios.mjs", script] {
        fs::copy(sources().join(name), directory.join(name)).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(directory.join(script));
    Some(command)
}

/// Plays a script; every scenario has to go well, and as many as the row says have to be played.
fn play(script: &str, scenarios: usize, place: &Place) {
    let Some(mut command) = command(script) else {
        return skip(&format!("the SDKs that {script} needs are not installed (cargo xtask test does it)"));
    };
    command.args(["--base", &place.base, "--model", place.model, "--provider", place.provider]);
    // A proxy of this machine's is none of the tests'.
    command.env("NO_PROXY", "*").env("no_proxy", "*").stdin(Stdio::null());
    let output = command.output().unwrap();
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut seen = BTreeMap::new();
    for line in text.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("{script} said {line:?}\n{log}"));
        seen.insert(line["name"].as_str().unwrap().to_owned(), line);
    }
    let failed: Vec<_> = seen.values().filter(|line| line["ok"] != true).map(Value::to_string).collect();
    assert!(failed.is_empty(), "{script}: {} of {} failed:\n{}", failed.len(), seen.len(), failed.join("\n"));
    assert_eq!(seen.len(), scenarios, "{script} played others than the table says: {:?}\n{log}", seen.keys());
}

fn directly(script: &str, scenarios: usize) {
    let mock = Mock::start();
    play(
        script,
        scenarios,
        &Place { base: format!("http://{}", mock.address), model: "mock", provider: "same" },
    );
}

#[test]
fn openai_for_python() {
    directly("py_openai.py", 49);
}

#[test]
fn anthropic_for_python() {
    directly("py_anthropic.py", 30);
}

#[test]
fn google_genai_for_python() {
    directly("py_genai.py", 30);
}

#[test]
fn langchain() {
    directly("py_langchain.py", 10);
}

#[test]
fn openai_for_node() {
    directly("node_openai.mjs", 25);
}

#[test]
fn anthropic_for_node() {
    directly("node_anthropic.mjs", 20);
}

#[test]
fn google_genai_for_node() {
    directly("node_genai.mjs", 18);
}

#[test]
fn the_ai_sdk() {
    directly("node_ai.mjs", 11);
}

/// Sends a recorded request; returns what came until the stream's end.
fn send(address: SocketAddr, request: &Value) -> String {
    let stream = TcpStream::connect(address).unwrap();
    let mut connection = Connection::over(stream);
    connection.patience(Duration::from_secs(10));
    let body = request["body"].to_string();
    let headers = request["headers"].as_object().unwrap();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap())).collect();
    let path = request["path"].as_str().unwrap();
    let length = body.len();
    connection
        .send(format!(
            "POST {path} HTTP/1.1\r\nHost: mock\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ))
        .unwrap();
    connection.reply().unwrap().text()
}

/// The requests of agents are taken, and their tools are called.
#[test]
fn agents() {
    let mock = Mock::start();
    let cases: [(&str, &[&str]); 2] = [
        ("claude_code.json", &["thinking_delta", "signature_delta", "\"name\":\"Read\"", "message_stop"]),
        (
            "codex.json",
            &[
                "encrypted_content",
                "custom_tool_call_input.done",
                "\"name\":\"apply_patch\"",
                "response.completed",
            ],
        ),
    ];
    for (file, expected) in cases {
        let request = fs::read_to_string(sources().join("agents").join(file)).unwrap();
        let text = send(mock.address, &serde_json::from_str(&request).unwrap());
        for part in expected {
            assert!(text.contains(part), "{file}: no {part} in {text}");
        }
    }
}
