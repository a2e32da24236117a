//! What a killed run left behind: namespaces, processes in them, pins and directories. And the mount that
//! every run needs.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

/// Where maps and links are pinned.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Mounts bpffs where it is missing and removes what belongs to processes that are gone. One at a time on
/// the machine: tests are processes of their own, and two mounts would hide one another.
pub(crate) fn once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _lock = lock("sweep");
        mount_bpffs();
        for name in entries("/run/netns") {
            if is_left_over(&name) {
                remove_namespace(&name);
            }
        }
        for directory in [BPFFS.to_owned(), std::env::temp_dir().display().to_string()] {
            for name in entries(&directory) {
                if is_left_over(&name) {
                    let path = Path::new(&directory).join(name);
                    let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
                }
            }
        }
    });
}

/// Takes a lock that every test process on the machine sees; it goes with the value.
pub(crate) fn lock(name: &str) -> File {
    let file = File::create(std::env::temp_dir().join(format!("gateway-tests-{name}.lock"))).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return;
    }
    let mounted = Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]).status();
    assert!(mounted.is_ok_and(|status| status.success()), "cannot mount bpffs on {BPFFS}");
}

/// Whether a name is of the form `gwt-<pid>-…` and its process is gone.
fn is_left_over(name: &str) -> bool {
    let pid = name.strip_prefix("gwt-").and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

fn remove_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

fn entries(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
