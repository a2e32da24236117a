//! One network namespace, and running code inside it.

use std::fs::File;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes an empty namespace with `lo` up.
    pub fn create(name: &str) -> Self {
        ip(&["netns", "add", name], "");
        let handle = File::open(format!("/run/netns/{name}")).unwrap();
        let namespace = Self { name: name.to_owned(), handle };
        namespace.ip("link set lo up\n");
        namespace
    }

    /// The name under /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside the namespace. Sockets it opens and processes it starts stay there; the file
    /// system does not change, so bpffs stays visible (`ip netns exec` would hide it behind a new /sys).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let joined = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(self.name.clone());
            let inside = thread.spawn_scoped(scope, || {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.unwrap().join()
        });
        joined.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Feeds lines to `ip -batch` inside the namespace.
    pub fn ip(&self, lines: &str) {
        ip(&["-n", &self.name, "-batch", "-"], lines);
    }

    /// Runs a command of the system inside the namespace and returns its output; panics if it fails.
    pub fn command(&self, program: &str, arguments: &[&str]) -> String {
        self.run(|| output(Command::new(program).args(arguments), ""))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not through `ip`: it would panic while panicking. A namespace that stays is swept by the next run.
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).output();
        if !deleted.is_ok_and(|output| output.status.success()) {
            eprintln!("could not delete the namespace {}", self.name);
        }
    }
}

/// Runs `ip` with these arguments and this standard input.
pub(crate) fn ip(arguments: &[&str], input: &str) {
    output(Command::new("ip").args(arguments), input);
}

fn output(command: &mut Command, input: &str) -> String {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed ({}):\n{input}{text}{errors}", output.status);
    text.into_owned()
}
