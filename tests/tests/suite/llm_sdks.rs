//! Providers' own SDKs, LangChain, the AI SDK and the wire of agents: against the mock provider, so that what they take for
//! an answer of the real one is one; and through a gateway, with the mock behind it in each of the four dialects.
//!
//! Each script plays a table of scenarios and prints a line for each; a script of its own can be played by hand, as
//! `tests/sdk/README.md` says. What a scenario sees otherwise where a provider of another dialect answers stands in
//! `tests/sdk/differences.json`, each with its reason: a difference that is gone is as much of a failure as a new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
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

/// A gateway in a process of its own, before one mock that speaks all dialects.
struct Gateway {
    process: Child,
    address: SocketAddr,
    _mock: Mock,
    directory: PathBuf,
}

/// The dialects of providers, and a model that each of them has.
const PROVIDERS: [(&str, &str); 4] = [
    ("openai_chat", "gpt-5-mini"),
    ("openai_responses", "gpt-5-mini"),
    ("anthropic_messages", "claude-sonnet-4-5"),
    ("gemini", "gemini-2.5-flash"),
];

impl Gateway {
    /// Clients know each provider's model by the name of its dialect, and their keys go on.
    fn start(label: &str) -> Self {
        let mock = Mock::start();
        let name = format!("gateway-sdks-{label}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let (at, address, admin) = (mock.address, free_address(), free_address());
        let (mut providers, mut models) = (String::new(), String::new());
        for (dialect, model) in PROVIDERS {
            let path = match dialect {
                "anthropic_messages" => "",
                "gemini" => "/v1beta",
                _ => "/v1",
            };
            // Models that a scenario names itself, as for speech, are OpenAI's.
            let all = if dialect == "openai_chat" { ", models: [\"*\"]" } else { "" };
            providers += &format!(
                "    {dialect}: {{dialect: {dialect}, base_url: \"http://{at}{path}\", api_key: pass{all}}}\n"
            );
            models += &format!("    {dialect}: {{targets: [{{provider: {dialect}, model: {model}}}]}}\n");
        }
        let config = directory.join("gateway.yaml");
        let text = format!(
            "workers: 1\nkernel: {{attach: off}}\nlisteners:\n  web: {{address: \"{address}\"}}\n\
             routes:\n  models: {{match: {{path: \"/**\"}}, llm: true}}\n\
             llm:\n  providers:\n{providers}  models:\n{models}\
             admin: {{address: \"{admin}\", socket: \"{}\"}}\n",
            directory.join("admin.sock").display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(gateway_binary());
        command.args(["run", "--config"]).arg(&config).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut said = String::new();
        let mut reader = BufReader::new(process.stdout.take().unwrap());
        while !said.contains("gateway is ready") {
            assert_ne!(reader.read_line(&mut said).unwrap(), 0, "the gateway did not start: {said}");
        }
        // Whatever else it says, somebody has to read.
        thread::spawn(move || reader.lines().for_each(drop));
        Self { process, address, _mock: mock, directory }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
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

/// Plays a script; returns the line of each scenario. `None` where its packages are not installed.
fn play(script: &str, place: &Place) -> Option<BTreeMap<String, Value>> {
    let mut command = command(script)?;
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
    assert!(!seen.is_empty(), "{script} played nothing:\n{log}");
    Some(seen)
}

/// Every scenario has to go well, and as many as the row says have to be played.
fn directly(script: &str, scenarios: usize) {
    let mock = Mock::start();
    let place = Place { base: format!("http://{}", mock.address), model: "mock", provider: "same" };
    let Some(seen) = play(script, &place) else { return not_installed(script) };
    let failed: Vec<_> = seen.values().filter(|line| line["ok"] != true).map(Value::to_string).collect();
    assert!(failed.is_empty(), "{script}: {} of {} failed:\n{}", failed.len(), seen.len(), failed.join("\n"));
    assert_eq!(seen.len(), scenarios, "{script} played others than the table says: {:?}", seen.keys());
}

fn not_installed(script: &str) {
    skip(&format!("the SDKs that {script} needs are not installed (cargo xtask test does it)"));
}

/// What a scenario sees otherwise with a provider of another dialect, and why that is right.
struct Difference {
    provider: String,
    scenario: String,
    /// A part of what it says instead.
    saw: String,
    why: String,
}

/// Those of a script.
fn differences(script: &str) -> Vec<Difference> {
    let text = fs::read_to_string(sources().join("differences.json")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let field = |row: &Value, name: &str| {
        row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
    };
    all.iter()
        .filter(|row| row["script"] == script)
        .map(|row| Difference {
            provider: field(row, "provider"),
            scenario: field(row, "scenario"),
            saw: field(row, "saw"),
            why: field(row, "why"),
        })
        .collect()
}

/// The same scenarios with each provider behind a gateway: all go well but those that cannot.
fn through(script: &str, scenarios: usize) {
    let all = differences(script);
    let gateway = Gateway::start(script);
    let base = format!("http://{}", gateway.address);
    let played: Vec<_> = thread::scope(|scope| {
        let base = &base;
        let running: Vec<_> = PROVIDERS
            .iter()
            .map(|(provider, _)| {
                scope.spawn(move || {
                    (*provider, play(script, &Place { base: base.clone(), model: provider, provider }))
                })
            })
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut faults = Vec::new();
    for (provider, seen) in played {
        let Some(seen) = seen else { return not_installed(script) };
        assert_eq!(seen.len(), scenarios, "{script} played others than the table says: {:?}", seen.keys());
        let known = |name: &str| all.iter().find(|row| row.provider == provider && row.scenario == name);
        for (name, line) in &seen {
            let saw = line["saw"].as_str().map_or_else(|| line["saw"].to_string(), str::to_owned);
            match (line["ok"] == true, known(name)) {
                (true, None) => {}
                (true, Some(row)) => faults
                    .push(format!("{provider} {name}: the difference is gone, and its reason: {}", row.why)),
                (false, Some(row)) if saw.contains(&row.saw) && !row.why.is_empty() => {}
                (false, _) => faults.push(format!("{provider} {name}: {saw}")),
            }
        }
        let is_stray = |row: &&Difference| row.provider == provider && !seen.contains_key(&row.scenario);
        faults.extend(
            all.iter().filter(is_stray).map(|row| format!("{provider}: no scenario {}", row.scenario)),
        );
    }
    assert!(faults.is_empty(), "{script}:\n{}", faults.join("\n"));
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

#[test]
fn openai_for_python_through_the_gateway() {
    through("py_openai.py", 49);
}

#[test]
fn anthropic_for_python_through_the_gateway() {
    through("py_anthropic.py", 30);
}

#[test]
fn google_genai_for_python_through_the_gateway() {
    through("py_genai.py", 30);
}

#[test]
fn langchain_through_the_gateway() {
    through("py_langchain.py", 10);
}

#[test]
fn openai_for_node_through_the_gateway() {
    through("node_openai.mjs", 25);
}

#[test]
fn anthropic_for_node_through_the_gateway() {
    through("node_anthropic.mjs", 20);
}

#[test]
fn google_genai_for_node_through_the_gateway() {
    through("node_genai.mjs", 18);
}

#[test]
fn the_ai_sdk_through_the_gateway() {
    through("node_ai.mjs", 11);
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

/// The same requests with each provider behind a gateway: their tools are called, and their streams end well.
#[test]
fn agents_through_the_gateway() {
    let gateway = Gateway::start("agents");
    let cases: [(&str, &[&str]); 2] = [
        ("claude_code.json", &["\"name\":\"Read\"", "message_stop"]),
        ("codex.json", &["\"name\":\"apply_patch\"", "response.completed"]),
    ];
    for (file, expected) in cases {
        let request = fs::read_to_string(sources().join("agents").join(file)).unwrap();
        let mut request: Value = serde_json::from_str(&request).unwrap();
        for (provider, _) in PROVIDERS {
            request["body"]["model"] = provider.into();
            let text = send(gateway.address, &request);
            for part in expected {
                assert!(text.contains(part), "{file}, {provider}: no {part} in {text}");
            }
        }
    }
}
