//! bpf(2) for programs and maps of the benchmark's own: aya loads objects and has no batches, and what is
//! compared to the gateway must not become a part of the object that ships.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use crate::program::Instruction;
use crate::{Outcome, context};

/// A trie that finds the longest prefix of an address.
#[derive(Debug)]
pub(crate) struct LpmTrie {
    map: OwnedFd,
    key_bytes: u32,
}

/// Keys of one call: the kernel copies them one by one in any case.
const BATCH: usize = 1 << 16;

impl LpmTrie {
    /// An empty trie for addresses of so many bytes.
    pub(crate) fn new(address_bytes: u32, capacity: u32) -> Outcome<Self> {
        let key_bytes = 4 + address_bytes;
        let mut attributes = MapCreate {
            kind: MAP_TYPE_LPM_TRIE,
            key_bytes,
            value_bytes: 4,
            capacity,
            flags: NO_PREALLOC,
            ..MapCreate::default()
        };
        attributes.name[..9].copy_from_slice(b"bench_lpm");
        let map = descriptor(call(MAP_CREATE, &mut attributes), "make an LPM trie")?;
        Ok(Self { map, key_bytes })
    }

    /// Adds prefixes: each a length in the machine's byte order and an address in the network's.
    pub(crate) fn fill(&self, keys: &[u8]) -> Outcome<()> {
        let values = vec![0_u8; BATCH * 4];
        for chunk in keys.chunks(BATCH * self.key_bytes as usize) {
            let mut attributes = Batch {
                keys: chunk.as_ptr() as u64,
                values: values.as_ptr() as u64,
                count: (chunk.len() / self.key_bytes as usize) as u32,
                map: self.map.as_raw_fd() as u32,
                ..Batch::default()
            };
            context(call(MAP_UPDATE_BATCH, &mut attributes), "fill an LPM trie")?;
        }
        Ok(())
    }
}

impl AsFd for LpmTrie {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A loaded XDP program.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

/// What a run of many repetitions says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The last answer: an XDP action.
    pub(crate) action: u32,
    /// A repetition's time; the kernel gives whole nanoseconds.
    pub(crate) mean: Duration,
}

impl Program {
    /// Loads instructions.
    pub(crate) fn load(name: &str, instructions: &[Instruction]) -> Outcome<Self> {
        let license = c"Dual MIT/GPL";
        let mut log = vec![0_u8; 1 << 16];
        let mut attributes = ProgramLoad {
            kind: PROGRAM_TYPE_XDP,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 1,
            log_bytes: log.len() as u32,
            log: log.as_mut_ptr() as u64,
            ..ProgramLoad::default()
        };
        let used = name.len().min(15);
        attributes.name[..used].copy_from_slice(&name.as_bytes()[..used]);
        let loaded = call(PROGRAM_LOAD, &mut attributes);
        if loaded.is_err() {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            eprintln!("{}", String::from_utf8_lossy(&log[..end]));
        }
        descriptor(loaded, &format!("load the program {name}")).map(Self)
    }

    /// A program that somebody else loaded and pinned.
    pub(crate) fn pinned(path: &Path) -> Outcome<Self> {
        open(path).map(Self)
    }

    /// Runs over one frame again and again.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Outcome<Run> {
        let mut out = vec![0_u8; frame.len().max(64)];
        let mut attributes = TestRun {
            out_bytes: out.len() as u32,
            out: out.as_mut_ptr() as u64,
            ..self.test_run(frame, repeat)
        };
        context(call(PROGRAM_TEST_RUN, &mut attributes), "run a program over a frame")?;
        Ok(Run { action: attributes.action, mean: Duration::from_nanos(attributes.mean_ns.into()) })
    }

    /// Sends frames: each runs through the program, and goes out of the interface if that answers XDP_TX.
    /// The interface is looked up in the network namespace of the calling thread.
    pub(crate) fn send(&self, frame: &[u8], interface: u32, count: u32) -> Outcome<()> {
        let context_in = XdpContext { data_end: frame.len() as u32, interface, ..XdpContext::default() };
        let mut attributes = TestRun {
            context_in_bytes: size_of::<XdpContext>() as u32,
            context_in: (&raw const context_in) as u64,
            flags: LIVE_FRAMES,
            batch: LIVE_BATCH,
            ..self.test_run(frame, count)
        };
        context(call(PROGRAM_TEST_RUN, &mut attributes), "send frames by a test run").map(|_| ())
    }

    fn test_run(&self, frame: &[u8], repeat: u32) -> TestRun {
        TestRun {
            program: self.0.as_raw_fd() as u32,
            in_bytes: frame.len() as u32,
            input: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        }
    }
}

/// A map that somebody else made and pinned.
#[derive(Debug)]
pub(crate) struct PinnedMap(OwnedFd);

impl PinnedMap {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        open(path).map(Self)
    }

    /// Writes one element; the caller knows how long the map's keys and values are.
    pub(crate) fn set(&self, key: &[u8; 4], value: &[u8]) -> Outcome<()> {
        let mut attributes = Element {
            map: self.0.as_raw_fd() as u32,
            key: key.as_ptr() as u64,
            value: value.as_ptr() as u64,
            ..Element::default()
        };
        context(call(MAP_UPDATE, &mut attributes), "write to a map").map(|_| ())
    }
}

/// The newest map's id: ids grow, so what is made later has greater ones.
pub(crate) fn newest_map() -> u32 {
    let mut attributes = Id::default();
    while call(MAP_NEXT_ID, &mut attributes).is_ok() {
        attributes.id = attributes.next;
    }
    attributes.id
}

/// Bytes of kernel memory that all maps after this id hold, as their descriptors say. By id, and not by
/// name, so that maps inside of maps count, which have no pin.
pub(crate) fn memory_of_maps_after(id: u32) -> Outcome<u64> {
    let mut attributes = Id { id, ..Id::default() };
    let mut bytes = 0;
    while call(MAP_NEXT_ID, &mut attributes).is_ok() {
        attributes.id = attributes.next;
        // A map may go between the two calls; then it holds nothing.
        let Ok(fd) = call(MAP_BY_ID, &mut Id { id: attributes.id, ..Id::default() }) else { continue };
        let map = descriptor(Ok(fd), "open a map")?;
        let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let held = shown.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok());
        bytes += held.unwrap_or(0);
    }
    Ok(bytes)
}

fn open(path: &Path) -> Outcome<OwnedFd> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectGet { path: c_path.as_ptr() as u64, ..ObjectGet::default() };
    descriptor(call(OBJECT_GET, &mut attributes), &format!("open {}", path.display()))
}

/// The descriptor that a command returned.
fn descriptor(answer: io::Result<i32>, what: &str) -> Outcome<OwnedFd> {
    let fd = context(answer, what)?;
    // SAFETY: the commands that come here return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One call of bpf(2).
fn call<A: Attributes>(command: libc::c_int, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: the attributes live through the call and their size is told; they are structs of integers
    // without padding, and their addresses are those of buffers that the callers hold until it returns.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const OBJECT_GET: libc::c_int = 7;
const PROGRAM_TEST_RUN: libc::c_int = 10;
const MAP_NEXT_ID: libc::c_int = 12;
const MAP_BY_ID: libc::c_int = 14;
const MAP_UPDATE_BATCH: libc::c_int = 26;

const MAP_TYPE_LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
const PROGRAM_TYPE_XDP: u32 = 6;
/// BPF_F_TEST_XDP_LIVE_FRAMES.
const LIVE_FRAMES: u32 = 2;
/// Frames that go out at once, as a driver would hand them over.
const LIVE_BATCH: u32 = 64;

/// The kernel's `union bpf_attr`, a struct a command.
trait Attributes {}

macro_rules! attributes {
    ($(struct $name:ident { $($field:ident: $kind:ty,)* })*) => {$(
        #[repr(C)]
        #[derive(Default)]
        struct $name { $($field: $kind,)* }

        impl Attributes for $name {}
    )*};
}

attributes! {
    struct MapCreate {
        kind: u32, key_bytes: u32, value_bytes: u32, capacity: u32, flags: u32, inner: u32, node: u32,
        name: [u8; 16],
    }
    struct Element { map: u32, reserved: u32, key: u64, value: u64, flags: u64, }
    struct Batch {
        after: u64, next: u64, keys: u64, values: u64, count: u32, map: u32, element_flags: u64, flags: u64,
    }
    struct ProgramLoad {
        kind: u32, count: u32, instructions: u64, license: u64, log_level: u32, log_bytes: u32, log: u64,
        kernel_version: u32, flags: u32, name: [u8; 16],
    }
    struct ObjectGet { path: u64, fd: u32, flags: u32, }
    struct TestRun {
        program: u32, action: u32, in_bytes: u32, out_bytes: u32, input: u64, out: u64, repeat: u32,
        mean_ns: u32, context_in_bytes: u32, context_out_bytes: u32, context_in: u64, context_out: u64,
        flags: u32, cpu: u32, batch: u32, reserved: u32,
    }
    struct Id { id: u32, next: u32, flags: u32, }
}

/// The kernel's `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    interface: u32,
    queue: u32,
    egress: u32,
}
