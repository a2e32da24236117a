//! xdp-filter of xdp-tools, by its own object: exact addresses in a hash table. Its loader is not used (it
//! wants a dispatcher that not every kernel takes); bpftool loads the object as it is.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway_kernel::Owner;
use gateway_kernel::sandbox::{Program as Ours, Sandbox};
use ipnet::{IpNet, Ipv4Net};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::bpf::{PinnedMap, Program};
use crate::prefixes::{frame_v4, list};
use crate::table::{Spread, markdown};
use crate::{Outcome, Scale, command, context, program};

/// Passes by default and drops listed addresses; the `dny` objects do the reverse.
const OBJECT: &str = "xdpfilt_alw_ip.o";
const BPFFS: &str = "/sys/fs/bpf";
/// The most addresses that its table holds.
const ADDRESSES: u32 = 10_000;
/// `MAP_FLAG_SRC` of xdp-filter: the address is denied as a source.
const AS_SOURCE: u64 = 1;
const LISTED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const NOT_LISTED: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

pub(crate) fn report(scale: &Scale) -> Outcome<String> {
    let Some(object) = object() else {
        return Ok(format!(
            "xdp-filter was NOT measured: {OBJECT} is missing (apt-get install xdp-tools).\n"
        ));
    };
    if Command::new("bpftool").arg("version").output().is_err() {
        return Ok("xdp-filter was NOT measured: bpftool is missing (apt-get install bpftool).\n".to_owned());
    }
    eprintln!("xdp-filter");
    let addresses: Vec<Ipv4Addr> =
        (0..ADDRESSES).map(|number| Ipv4Addr::from(u32::from(LISTED) + number)).collect();
    // A mount namespace is a thread's, so this thread ends with it.
    let filter = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&object, &addresses));
        loading.join().unwrap_or_else(|_| Err("the thread that loads xdp-filter panicked".into()))
    })?;
    let ours = Sandbox::load(Ours::Gateway)?;
    let prefixes: Vec<IpNet> =
        addresses.iter().filter_map(|address| Ipv4Net::new(*address, 32).ok()).map(IpNet::from).collect();
    ours.rules().replace(Owner::Operator, &list(&prefixes), &mut |_| {})?;
    let floor = program::pass()?;
    let mut rows = Vec::new();
    for (name, source, action) in [
        ("source not among 10,000 addresses", NOT_LISTED, program::PASS),
        ("source denied", LISTED, program::DROP),
    ] {
        rows.push(measure(name, &frame_v4(source), action, (&floor, &ours, &filter), scale)?);
    }
    let header = ["one source", "gateway, ns", "xdp-filter, ns", "xdp-filter / gateway"];
    Ok(format!(
        "{}\nNanoseconds a packet above a program that only passes, medians (least–most) of {} alternating rounds of {} \
         packets. xdp-filter's object is loaded as packaged, so the source is the same in every packet, for both: \
         all lines that a lookup reads stay in the processor's cache, and longer lists would look no slower.\n",
        markdown(&header, &rows),
        scale.rounds,
        scale.repeat
    ))
}

fn measure(
    name: &str,
    frame: &[u8],
    action: u32,
    (floor, ours, filter): (&Program, &Sandbox, &Program),
    scale: &Scale,
) -> Outcome<Vec<String>> {
    let (mut gateway, mut theirs, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        let base = floor.run(frame, scale.repeat)?.mean.as_nanos() as f64;
        let judged = ours.run(frame, scale.repeat)?;
        let filtered = filter.run(frame, scale.repeat)?;
        let judged_action = match judged.action {
            gateway_kernel::sandbox::Action::Drop => program::DROP,
            gateway_kernel::sandbox::Action::Pass => program::PASS,
            other => return Err(format!("{name}: the gateway answered {other:?}").into()),
        };
        if (judged_action, filtered.action) != (action, action) {
            return Err(format!(
                "{name}: the gateway answered {judged_action} and xdp-filter {}",
                filtered.action
            )
            .into());
        }
        if round > 0 {
            let above = [judged.mean, filtered.mean].map(|mean| mean.as_nanos() as f64 - base);
            gateway.push(above[0]);
            theirs.push(above[1]);
            ratio.push(above[1].max(1.0) / above[0].max(1.0));
        }
    }
    let show =
        |figures: &[f64], digits| Spread::of(figures).map_or_else(|| "–".to_owned(), |it| it.show(digits));
    Ok(vec![name.to_owned(), show(&gateway, 0), show(&theirs, 0), show(&ratio, 2)])
}

/// Loads the object and fills its table. The object pins its maps by name at the top of the BPF file system,
/// where an xdp-filter in use has them too; in a mount namespace with a file system of our own the two cannot
/// meet, and nothing is left behind.
fn load(object: &Path, addresses: &[Ipv4Addr]) -> Outcome<Program> {
    // SAFETY: a new mount namespace, and a working directory of its own for this thread; descriptors, which
    // the rest of the process may rely on, stay shared.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
    context(unshared, "make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    context(mount_change("/", private), "make the mounts private")?;
    context(mount("bpf", BPFFS, "bpf", MountFlags::empty(), None), "mount a BPF file system")?;
    let pin = Path::new(BPFFS).join("bench_filter");
    command(Command::new("bpftool").args(["prog", "load"]).arg(object).arg(&pin).args(["type", "xdp"]), "")?;
    let table = PinnedMap::open(&Path::new(BPFFS).join("filter_ipv4"))?;
    let processors = context(aya::util::nr_cpus().map_err(|(_, error)| error), "count processors")?;
    // The table has a value a processor.
    let value: Vec<u8> = (0..processors).flat_map(|_| AS_SOURCE.to_ne_bytes()).collect();
    for address in addresses {
        table.set(&address.octets(), &value)?;
    }
    Program::pinned(&pin)
}

/// Where the distribution keeps the object.
fn object() -> Option<PathBuf> {
    let below =
        fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let directories = below.chain(["/usr/lib".into(), "/usr/lib64".into(), "/usr/local/lib".into()]);
    directories.map(|directory| directory.join("bpf").join(OBJECT)).find(|file| file.is_file())
}
