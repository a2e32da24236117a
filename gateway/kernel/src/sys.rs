//! The few calls of bpf(2) that aya has no word for: maps of any length that go into a map of maps, and the
//! number of the one that is in force, which may be asked without CAP_SYS_ADMIN.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use gateway_common::abi::TABLE_FLAGS;
use gateway_common::table::Line;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// `struct { /* anonymous struct used by BPF_MAP_CREATE command */ }` of linux/bpf.h, as far as it is used.
#[repr(C)]
struct CreateMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// `struct { /* anonymous struct used by BPF_MAP_*_ELEM commands */ }` of linux/bpf.h.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a map for a table of `lines`, zeroed and in nobody's use.
pub(crate) fn create_table(lines: u32) -> io::Result<OwnedFd> {
    let mut map_name = [0; 16];
    map_name[..b"gateway_table".len()].copy_from_slice(b"gateway_table");
    let attributes = CreateMap {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: size_of::<Line>() as u32,
        max_entries: lines,
        map_flags: TABLE_FLAGS,
        inner_map_fd: 0,
        numa_node: 0,
        map_name,
    };
    let fd = bpf(BPF_MAP_CREATE, &attributes)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a map into a slot of a map of maps, in one write; programs that run see the one or the other.
pub(crate) fn set_inner(outer: BorrowedFd<'_>, slot: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let value = inner.as_raw_fd();
    let attributes = Element {
        map_fd: outer.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const slot).expose_provenance() as u64,
        value: (&raw const value).expose_provenance() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(|_| ())
}

/// The id of the map in a slot of a map of maps.
pub(crate) fn inner_id(outer: BorrowedFd<'_>, slot: u32) -> io::Result<Option<u32>> {
    let mut id = 0_u32;
    let attributes = Element {
        map_fd: outer.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const slot).expose_provenance() as u64,
        value: (&raw mut id).expose_provenance() as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_ELEM, &attributes) {
        Ok(_) => Ok(Some(id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are of the command's layout and length, and the addresses in them are of values
    // that outlive the call and are as long as the map's keys and values: four bytes each.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
