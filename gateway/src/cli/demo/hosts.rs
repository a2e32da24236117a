//! The hosts of the demo: two network namespaces and a wire, or loopback; and the agent that runs on one.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::traffic::{self, Upstream};
use crate::mock_provider::MockProvider;

const PREFIX: &str = "gateway-demo-";
const READY: &str = "gateway is ready";
const PATIENCE: Duration = Duration::from_secs(10);
/// A model that the mock provider has too much to do for.
const OVERLOADED: &str = "gpt-4.1-mini--status.503";

/// Where the scenes play.
pub(super) struct Hosts {
    /// The honest client's address.
    pub(super) client: IpAddr,
    /// The attacker's address.
    pub(super) attacker: IpAddr,
    /// Where the gateway listens.
    pub(super) gateway: SocketAddr,
    /// Whether packets are judged in the kernel here.
    pub(super) has_xdp: bool,
    internet: Option<Namespace>,
    host: Option<Namespace>,
    directory: PathBuf,
    pin_dir: PathBuf,
    agent: std::sync::Mutex<Option<Child>>,
    /// Where the agent tells its metrics, on its host.
    admin: SocketAddr,
    upstream: Upstream,
    /// Stands for the providers of models.
    provider: MockProvider,
}

impl Hosts {
    /// Two namespaces, joined by a veth pair, with no way out.
    pub(super) fn in_namespaces() -> Result<Self, String> {
        sweep();
        let pid = std::process::id();
        let internet = Namespace::create(&format!("{PREFIX}{pid}-internet"))?;
        let host = Namespace::create(&format!("{PREFIX}{pid}-host"))?;
        ip(&[
            "link",
            "add",
            "wire0",
            "netns",
            &internet.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &host.name,
        ])?;
        for (namespace, device, addresses) in [
            (&internet, "wire0", &["198.18.0.10/24", "198.18.0.66/24"][..]),
            (&host, "eth0", &["198.18.0.1/24"]),
        ] {
            for address in addresses {
                ip(&["-n", &namespace.name, "addr", "add", address, "dev", device])?;
            }
            ip(&["-n", &namespace.name, "link", "set", device, "up"])?;
            ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        }
        let upstream = host.run(Upstream::start)??;
        let provider = host.run(start_provider)??;
        let kernel = "kernel: {interfaces: [eth0]}";
        let hosts = Self {
            client: IpAddr::from([198, 18, 0, 10]),
            attacker: IpAddr::from([198, 18, 0, 66]),
            gateway: SocketAddr::from(([198, 18, 0, 1], 8080)),
            has_xdp: true,
            internet: Some(internet),
            host: Some(host),
            directory: directory()?,
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/{PREFIX}{pid}")),
            agent: std::sync::Mutex::new(None),
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            upstream,
            provider,
        };
        hosts.configure(kernel)?;
        Ok(hosts)
    }

    /// Three addresses of loopback.
    pub(super) fn on_loopback() -> Result<Self, String> {
        let upstream = Upstream::start()?;
        let hosts = Self {
            client: IpAddr::from([127, 0, 0, 10]),
            attacker: IpAddr::from([127, 0, 0, 66]),
            gateway: free_port()?,
            has_xdp: false,
            internet: None,
            host: None,
            directory: directory()?,
            // Never used in this mode, but named, so that no command meets another gateway's maps.
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/{PREFIX}{}", std::process::id())),
            agent: std::sync::Mutex::new(None),
            admin: free_port()?,
            upstream,
            provider: start_provider()?,
        };
        hosts.configure("kernel: {attach: off}")?;
        Ok(hosts)
    }

    fn configure(&self, kernel: &str) -> Result<(), String> {
        let text = format!(
            "{kernel}\n\
             workers: 1\n\
             listeners:\n  web: {{address: \"{}\"}}\n\
             upstreams:\n  site: {{endpoints: [\"http://{}\"]}}\n\
             routes:\n  site: {{match: {{path: \"/**\"}}, upstream: site}}\n  \
             models: {{match: {{path: \"/v1/**\"}}, llm: true}}\n\
             llm:\n  providers:\n    \
             openai: {{dialect: openai_chat, base_url: \"http://{provider}/v1\", api_key: demo}}\n    \
             anthropic: {{dialect: anthropic_messages, base_url: \"http://{provider}\", api_key: demo}}\n  \
             models:\n    fast:\n      targets:\n      \
             - {{provider: openai, model: \"{OVERLOADED}\"}}\n      \
             - {{provider: anthropic, model: claude-haiku-4-5}}\n\
             admin: {{address: \"{}\", socket: {}}}\n",
            self.gateway,
            self.upstream.address,
            self.admin,
            self.socket().display(),
            provider = self.provider.address(),
        );
        fs::write(self.config(), text)
            .map_err(|error| format!("cannot write the demo's configuration: {error}"))
    }

    fn config(&self) -> PathBuf {
        self.directory.join("gateway.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// Starts the agent on its host; returns the line it prints when it is ready.
    pub(super) fn start_agent(&self) -> Result<String, String> {
        let log = self.directory.join("agent.log");
        let output =
            File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = self.gateway()?;
        command.args(["run", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = in_namespace(self.host.as_ref(), move || command.spawn())?
            .map_err(|error| format!("the agent could not be started: {error}"))?;
        *self.agent() = Some(child);
        let until = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains(READY)) {
                return Ok(line.to_owned());
            }
            let exited = self.agent().as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if exited || Instant::now() > until {
                return Err(format!("the agent did not become ready:\n{}", text.trim_end()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: nothing of the agent runs any more, not even its clean-up.
    pub(super) fn kill_agent(&self) {
        if let Some(mut child) = self.agent().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs one of the gateway's own commands; returns what it printed.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.gateway()?;
        command.args(arguments).stdin(Stdio::null());
        let output = in_namespace(self.host.as_ref(), move || command.output())?
            .map_err(|error| format!("a command could not be started: {error}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    /// Runs code on the host where client and attacker are.
    pub(super) fn on_the_internet<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        in_namespace(self.internet.as_ref(), work)
    }

    /// What the agent's metrics say, those whose names begin so.
    pub(super) fn metrics(&self, prefix: &str) -> Result<Vec<String>, String> {
        let text = in_namespace(self.host.as_ref(), || traffic::fetch(self.admin, "/metrics"))??;
        Ok(text.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect())
    }

    fn gateway(&self) -> Result<Command, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut command = Command::new(program);
        command.arg("--pin-dir").arg(&self.pin_dir).arg("--socket").arg(self.socket());
        Ok(command)
    }

    fn agent(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.agent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.kill_agent();
        if self.has_xdp {
            let _ = gateway_kernel::detach(&self.pin_dir);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn start_provider() -> Result<MockProvider, String> {
    MockProvider::start().map_err(|error| format!("no provider of models: {error}"))
}

/// A named network namespace; deleted when dropped.
struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    fn create(name: &str) -> Result<Self, String> {
        ip(&["netns", "add", name])?;
        let handle = File::open(Path::new("/run/netns").join(name));
        handle
            .map(|handle| Self { name: name.to_owned(), handle })
            .map_err(|error| format!("{name}: {error}"))
    }

    /// Runs code inside; sockets it opens and processes it starts stay there.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        let inside = || {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| format!("cannot enter {}: {error}", self.name))?;
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|_| Err("a scene of the demo panicked".to_owned()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn in_namespace<T: Send>(
    namespace: Option<&Namespace>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, String> {
    match namespace {
        Some(namespace) => namespace.run(work),
        None => Ok(work()),
    }
}

/// Whether `ip` can be used.
pub(super) fn has_ip() -> bool {
    Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("`ip` (package iproute2) could not be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("`ip {}` failed: {}", arguments.join(" "), why.trim()))
}

/// Deletes what demos of dead processes left: one that was killed could not clean up.
fn sweep() {
    let dead = |name: &str| {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).map(str::to_owned);
        owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    let left = |directory: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| dead(name))
            .collect::<Vec<_>>()
    };
    for name in left("/sys/fs/bpf") {
        let _ = gateway_kernel::detach(&Path::new("/sys/fs/bpf").join(name));
    }
    for name in left("/run/netns") {
        let _ = ip(&["netns", "del", &name]);
    }
}

fn directory() -> Result<PathBuf, String> {
    let directory = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let note = File::create(directory.join("README"));
    let _ =
        note.and_then(|mut note| note.write_all(b"Made by `gateway demo`, which removes it at its end.\n"));
    Ok(directory)
}

fn free_port() -> Result<SocketAddr, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    listener.and_then(|listener| listener.local_addr()).map_err(|error| format!("no free port: {error}"))
}
