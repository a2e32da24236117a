//! The program under test, run as an operator runs it: a file, a process, signals and commands.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::gateway_binary;
use crate::http::Connection;
use crate::metrics::Metrics;
use crate::namespace::Namespace;
use crate::net::{GATEWAY_V4, GATEWAY_V6, Net};
use crate::poll::eventually;
use crate::sweep::BPFFS;

/// How long a start may take before a test gives up; a debug build on a busy machine loads its programs
/// well within it.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A session from an address that no test denies.
const NO_SESSION: &str = "2001:db8:ffff::1 1 2001:db8:ffff::2 22";
/// How long an exit may take.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// What an agent starts with.
#[derive(Debug)]
pub struct Setup<'n> {
    namespace: &'n Namespace,
    directory: TempDir,
    pins: PathBuf,
    wrapper: Vec<String>,
    owns_pins: bool,
}

/// A running agent, or one that ran: its file, directory and pins stay until it is dropped.
#[derive(Debug)]
pub struct Agent<'n> {
    setup: Setup<'n>,
    process: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl<'n> Setup<'n> {
    /// An agent on the gateway host, with a directory and pins of its own.
    pub fn new(net: &'n Net) -> Self {
        Self::inside(net, &net.gateway, "")
    }

    /// One on any host; `label` keeps the directories of several apart.
    pub fn inside(net: &Net, namespace: &'n Namespace, label: &str) -> Self {
        let directory =
            tempfile::Builder::new().prefix(&format!("{}-agent{label}", net.id())).tempdir().unwrap();
        let pins = Path::new(BPFFS).join(format!("{}{label}", net.id()));
        Self { namespace, directory, pins, wrapper: Vec::new(), owns_pins: true }
    }

    /// Runs the agent through a command that changes its privileges.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Uses this pin directory; whoever made it removes it.
    pub fn pinned_at(mut self, pins: &Path) -> Self {
        self.pins = pins.to_owned();
        self.owns_pins = false;
        self
    }

    /// The agent's directory: files that the configuration names go here.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the agent and waits until it is ready. The configuration is `config` and an admin section.
    pub fn start(self, config: &str) -> Agent<'n> {
        let mut agent = self.prepare(config);
        agent.start();
        agent
    }

    /// Writes the file, but starts nothing.
    pub fn prepare(self, config: &str) -> Agent<'n> {
        let agent = Agent { setup: self, process: None };
        agent.configure(config);
        agent
    }
}

impl<'n> Agent<'n> {
    /// Where `/metrics` and `/readyz` are, on the gateway host.
    pub const ADMIN: &'static str = "127.0.0.1:9900";
    /// Where the suite's configurations listen, in both families.
    pub const PORT: u16 = 8080;

    /// The listener's address in IPv4.
    pub fn v4() -> SocketAddr {
        SocketAddr::new(GATEWAY_V4, Self::PORT)
    }

    /// The listener's address in IPv6.
    pub fn v6() -> SocketAddr {
        SocketAddr::new(GATEWAY_V6, Self::PORT)
    }

    /// Writes the configuration: `config` and an admin section.
    pub fn configure(&self, config: &str) {
        let socket = self.socket();
        let admin = format!("admin: {{address: \"{}\", socket: \"{}\"}}\n", Self::ADMIN, socket.display());
        fs::write(self.config(), format!("{config}\n{admin}")).unwrap();
    }

    /// The configuration's path.
    pub fn config(&self) -> PathBuf {
        self.setup.directory().join("gateway.yaml")
    }

    /// The agent's directory.
    pub fn directory(&self) -> &Path {
        self.setup.directory()
    }

    /// Where maps and links are pinned.
    pub fn pins(&self) -> &Path {
        &self.setup.pins
    }

    /// The socket for commands.
    pub fn socket(&self) -> PathBuf {
        self.setup.directory().join("admin.sock")
    }

    /// Starts the process and waits until it is ready.
    pub fn start(&mut self) {
        self.spawn();
        let end = Instant::now() + START_LIMIT;
        while self.admin("/readyz").is_none_or(|status| status != 200) {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the agent ended with {status} before it was ready");
            }
            assert!(Instant::now() < end, "the agent was not ready within {START_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process, expects it to end by itself, and returns its exit code and log.
    pub fn start_in_vain(&mut self) -> Answer {
        self.spawn();
        let status = self.exit();
        Answer { code: status.code().unwrap_or(-1), out: String::new(), err: self.log() }
    }

    /// Runs a command of the program on the agent's host, against its pins and socket.
    pub fn cli(&self, arguments: &[&str]) -> Answer {
        let answer = self.cli_quiet(arguments);
        eprint!("{}{}", answer.out, answer.err);
        answer
    }

    /// The same, for commands with more output than a failed test should show.
    pub fn cli_quiet(&self, arguments: &[&str]) -> Answer {
        self.answer(self.command(arguments), arguments)
    }

    /// Runs a command as somebody who is connected over SSH from `address`.
    pub fn cli_from(&self, address: &str, arguments: &[&str]) -> Answer {
        let mut command = self.command(arguments);
        command.env("SSH_CONNECTION", format!("{address} 50000 198.18.1.1 22"));
        let answer = self.answer(command, arguments);
        eprint!("{}{}", answer.out, answer.err);
        answer
    }

    fn answer(&self, mut command: Command, arguments: &[&str]) -> Answer {
        let output = self.setup.namespace.run(|| command.stdin(Stdio::null()).output()).unwrap();
        let answer = Answer {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        eprintln!("$ gateway {}  # {}", arguments.join(" "), answer.code);
        answer
    }

    /// Starts a command and leaves it running; its output goes to a pipe.
    pub fn cli_running(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        self.setup.namespace.run(|| command.stdout(Stdio::piped()).spawn()).unwrap()
    }

    /// The status of a GET on the admin listener; `None` while nobody listens.
    pub fn admin(&self, path: &str) -> Option<u16> {
        self.admin_reply(path).map(|reply| reply.status())
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin_reply("/metrics").expect("the admin listener answers").text())
    }

    /// Waits until a metric's sum satisfies `enough`.
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], enough: impl Fn(f64) -> bool) -> f64 {
        eventually(&format!("{name}{labels:?} is as expected"), Duration::from_secs(5), || {
            let metrics = self.metrics();
            let sum = metrics.sum(name, labels);
            if enough(sum) { Ok(sum) } else { Err((sum, metrics.names("gateway_"))) }
        })
    }

    /// `gateway status --json`.
    pub fn status(&self) -> Value {
        self.cli(&["status", "--json"]).ok().json()
    }

    /// `gateway counters --json`, summed over the interfaces for one reason.
    pub fn reason(&self, reason: &str) -> u64 {
        let counters = self.cli(&["counters", "--json"]).ok().json();
        let rows = counters["reasons"].as_array().cloned().unwrap_or_default();
        let rows = rows.iter().filter(|row| row["reason"] == reason);
        rows.filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").id()
    }

    /// Whether the process is alive.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Asks for a reload.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks for a drain; does not wait.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks for a drain and waits for the exit.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.exit()
    }

    /// Waits for the exit.
    pub fn exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the agent was started");
        let status =
            eventually("the agent ends", EXIT_LIMIT, || process.try_wait().unwrap().ok_or("still running"));
        self.process = None;
        status
    }

    /// Kills the process; nothing of its own code runs any more.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit();
    }

    /// Everything it has said so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Waits until the log holds this text.
    pub fn await_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), Duration::from_secs(5), || {
            if self.log().contains(text) { Ok(()) } else { Err("it does not") }
        });
    }

    /// Connects from a client's address, or says how that failed.
    pub fn connect(net: &Net, from: std::net::IpAddr) -> std::io::Result<Connection> {
        let to = if from.is_ipv4() { Self::v4() } else { Self::v6() };
        Connection::open(&net.client, from, to)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(std::iter::empty());
        command.args(arguments).args(["--pin-dir".as_ref(), self.pins().as_os_str()]);
        command.args(["--socket".as_ref(), self.socket().as_os_str()]);
        command
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = command(self.setup.wrapper.iter().map(String::as_str));
        command.arg("run").arg("--config").arg(self.config()).arg("--pin-dir").arg(self.pins());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        eprintln!("$ {command:?}");
        self.process = Some(self.setup.namespace.run(|| command.spawn()).unwrap());
    }

    fn admin_reply(&self, path: &str) -> Option<crate::http::Message> {
        let address: SocketAddr = Self::ADMIN.parse().unwrap();
        let mut connection = Connection::open(self.setup.namespace, address.ip(), address).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        connection.send(request).ok()?;
        connection.reply().ok()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.setup.directory().join("gateway.log")
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let config = fs::read_to_string(self.config()).unwrap_or_default();
            eprintln!("--- configuration\n{config}--- log\n{}--- counters", self.log());
            let counters = command(std::iter::empty())
                .args(["counters".as_ref(), "--pin-dir".as_ref(), self.pins().as_os_str()])
                .output();
            if let Ok(counters) = counters {
                eprint!("{}", String::from_utf8_lossy(&counters.stdout));
            }
        }
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if self.setup.owns_pins {
            // Links are pinned here: removing them detaches the programs.
            let _ = fs::remove_dir_all(self.pins());
        }
    }
}

impl Answer {
    /// The answer of a command that must have worked.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails_with(0)
    }

    /// The answer of a command that must have ended with this code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; it said:\n{}{}", self.out, self.err);
        self
    }

    /// Checks that the error output holds these texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in the message:\n{}", self.err);
        }
        self
    }

    /// The output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }

    /// The prefixes in the output of `list --json`.
    #[track_caller]
    pub fn prefixes(&self) -> Vec<String> {
        let entries = self.json();
        let entries = entries.as_array().unwrap_or_else(|| panic!("not an array: {}", self.out));
        entries.iter().map(|entry| entry["prefix"].as_str().unwrap().to_owned()).collect()
    }
}

/// The program, started through `wrapper` if there is one.
fn command<'a>(mut wrapper: impl Iterator<Item = &'a str>) -> Command {
    let mut command = match wrapper.next() {
        None => Command::new(gateway_binary()),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(wrapper).arg(gateway_binary());
            command
        }
    };
    // The suite reads what it says: no colours, and nothing from the developer's shell.
    for variable in ["GATEWAY_PIN_DIR", "GATEWAY_SOCKET", "GATEWAY_CONFIG", "GATEWAY_LOG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.env("NO_COLOR", "1");
    // Commands look from where they are typed; the developer's own session is none of the suite's business.
    command.env("SSH_CONNECTION", NO_SESSION);
    command
}
