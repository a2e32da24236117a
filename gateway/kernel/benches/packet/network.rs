//! Network namespaces without names, and wires between them: the kernel removes them with this process,
//! however it ends. No interface has an address, so there is no way out.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{
    CpuSet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space, sched_setaffinity, unshare_unsafe,
};

use crate::{Outcome, command, context};

/// A network namespace; it lives as long as this value.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Outcome<Self> {
        in_thread(|| {
            // SAFETY: only this thread moves into the new namespace; descriptors and memory stay shared.
            context(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }, "make a network namespace")?;
            context(File::open("/proc/thread-self/ns/net"), "open a network namespace").map(Self)
        })
    }

    /// Runs `work` in a thread inside: what it looks up and the commands it starts are inside too.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        in_thread(|| {
            let inside = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
            context(inside, "enter a network namespace")?;
            work()
        })
    }
}

/// A veth pair. The receiving end polls in a kernel thread of its own, so that what receiving costs is that
/// thread's processor time and nobody else's.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The sending end's index.
    pub(crate) from: u32,
    /// The receiving end's name.
    pub(crate) to: String,
    poller: i32,
}

impl Wire {
    /// Joins two namespaces. `name` tells this wire from others of the machine.
    pub(crate) fn new(sender: &Namespace, receiver: &Namespace, name: &str, cpu: usize) -> Outcome<Self> {
        let (from, to) = (format!("{name}s"), format!("{name}r"));
        let across = format!("/proc/{}/fd/{}", std::process::id(), receiver.0.as_raw_fd());
        // Without addresses of IPv6 the ends stay silent, and every frame counted is one of the flood's.
        let up = |end: &str| format!("link set {end} addrgenmode none\nlink set {end} up\n");
        let make = format!(
            "link add {from} numtxqueues 1 numrxqueues 1 type veth peer name {to} numtxqueues 1 numrxqueues 1\n\
             link set {to} netns {across}\n{}",
            up(&from)
        );
        let from = sender.run(|| {
            ip(&make)?;
            index_of(&from)
        })?;
        let poller = receiver.run(|| {
            ip(&up(&to))?;
            // Without GRO or a native program the end has no polling and refuses what XDP sends it.
            context(enable_gro(&to), "switch GRO on")?;
            poll_in_thread(&to)?;
            poller_of(&to)
        })?;
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        context(sched_setaffinity(Pid::from_raw(poller), &cpus), "move the polling thread")?;
        // In the field it is an interrupt's work, which waits for no process either.
        context(setpriority_process(Pid::from_raw(poller), -20), "raise the polling thread's priority")?;
        Ok(Self { from, to, poller })
    }

    /// What the receiving end has cost so far.
    pub(crate) fn poller_time(&self) -> Outcome<Duration> {
        let path = format!("/proc/{}/schedstat", self.poller);
        let text = context(fs::read_to_string(&path), &format!("read {path}"))?;
        let run_ns = text.split(' ').next().and_then(|figure| figure.parse().ok());
        run_ns.map(Duration::from_nanos).ok_or_else(|| format!("{path} says {text:?}").into())
    }
}

/// Namespaces belong to threads; a thread of their own ends with what it did.
fn in_thread<T: Send>(work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err("a thread in a network namespace panicked".into()))
}

fn ip(lines: &str) -> Outcome<String> {
    command(Command::new("ip").args(["-batch", "-"]), lines)
}

fn index_of(name: &str) -> Outcome<u32> {
    let any = context(socket(AddressFamily::INET, SocketType::DGRAM, None), "open a socket")?;
    context(netdevice::name_to_index(&any, name), &format!("find the interface {name}"))
}

/// ethtool's request of ETHTOOL_SGRO; the command itself is one package more.
fn enable_gro(name: &str) -> io::Result<()> {
    const ETHTOOL_SGRO: u32 = 0x2c;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut value = Value { command: ETHTOOL_SGRO, data: 1 };
    // SAFETY: a struct of integers and pointers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value that it points to live through the call.
    match unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// /sys shows the interfaces of the namespace in which it was mounted, so it is mounted anew; in a mount
/// namespace that ends with the command.
fn poll_in_thread(name: &str) -> Outcome<()> {
    let script = format!("mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{name}/threaded");
    command(Command::new("unshare").args(["--mount", "sh", "-c", &script]), "").map(|_| ())
}

/// The kernel thread that polls an interface of one queue.
fn poller_of(name: &str) -> Outcome<i32> {
    let begins = format!("napi/{name}-");
    for entry in context(fs::read_dir("/proc"), "read /proc")?.filter_map(Result::ok) {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(&begins)
            && let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            return Ok(pid);
        }
    }
    Err(format!("no kernel thread polls {name}").into())
}
