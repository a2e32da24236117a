//! Network interfaces: their indices, and which XDP program the kernel says they run (rtnetlink).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use gateway_common::abi::{Interface, Mode};

use crate::error::Error;

/// The XDP program on an interface's hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program_id: u32,
    pub(crate) mode: Option<Mode>,
}

/// The index of an interface in this network namespace.
pub(crate) fn index_of(name: &str) -> Result<u32, Error> {
    let unknown = || Error::UnknownInterface { name: name.to_owned(), known: known() };
    let c_name = std::ffi::CString::new(name).map_err(|_| unknown())?;
    // SAFETY: the pointer is to a string ended by 0 that outlives the call.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(unknown()),
        index => Ok(index),
    }
}

/// The names of this network namespace's interfaces, with commas.
fn known() -> String {
    // SAFETY: the function takes no arguments; its list is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return "none".to_owned();
    }
    let mut names = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with an entry whose index is 0 and whose name is null; each name before it
    // is a string ended by 0.
    unsafe {
        while (*entry).if_index != 0 && !(*entry).if_name.is_null() {
            names.push(std::ffi::CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
    }
    names.join(", ")
}

/// The name in a row of the interface table.
pub(crate) fn name_of(row: &Interface) -> String {
    let used = row.name.iter().position(|byte| *byte == 0).unwrap_or(row.name.len());
    String::from_utf8_lossy(&row.name[..used]).into_owned()
}

/// A name as a row holds it.
pub(crate) fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let used = name.len().min(15);
    bytes[..used].copy_from_slice(&name.as_bytes()[..used]);
    bytes
}

const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;

/// The program on an interface's XDP hook, whoever attached it. bpf(2) knows only programs attached by
/// links; the network stack knows all.
pub(crate) fn xdp_program(index: u32) -> Result<Option<Attached>, Error> {
    let reply = get_link(index).map_err(|error| Error::Kernel {
        what: format!("say which XDP program interface {index} runs"),
        why: error.to_string(),
    })?;
    // nlmsghdr is 16 bytes, ifinfomsg 16 more.
    let Some(attributes) = reply.get(32..) else { return Ok(None) };
    let Some(xdp) = attribute(attributes, IFLA_XDP) else { return Ok(None) };
    let number = |kind| {
        let bytes = attribute(xdp, kind)?.get(..4)?;
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let mode = match attribute(xdp, IFLA_XDP_ATTACHED).and_then(|bytes| bytes.first()) {
        Some(&XDP_ATTACHED_DRV) => Some(Mode::Native),
        Some(&XDP_ATTACHED_SKB) => Some(Mode::Generic),
        _ => None,
    };
    let program_id = number(IFLA_XDP_PROG_ID)
        .or_else(|| number(IFLA_XDP_DRV_PROG_ID))
        .or_else(|| number(IFLA_XDP_SKB_PROG_ID));
    Ok(program_id.filter(|id| *id != 0).map(|program_id| Attached { program_id, mode }))
}

/// The payload of the first attribute of a kind.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(header) = bytes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two high bits are flags (nested, network byte order).
        let found = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let payload = bytes.get(4..length)?;
        if found == kind {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// One RTM_GETLINK request and its answer.
fn get_link(index: u32) -> io::Result<Vec<u8>> {
    // SAFETY: plain socket(2); the descriptor is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut request = Vec::with_capacity(32);
    request.extend_from_slice(&32_u32.to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // sequence, port
    request.extend_from_slice(&[0; 4]); // family, padding, type
    request.extend_from_slice(&index.to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // flags, change
    // SAFETY: the buffer lives through the call and its length is its own.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut reply = vec![0_u8; 32 * 1024];
    // SAFETY: as above.
    let received = unsafe { libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    reply.truncate(received);
    let kind = reply.get(4..6).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if kind != libc::RTM_NEWLINK {
        return Err(io::Error::other("the answer is not a link"));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_exists_and_runs_no_program() {
        let index = index_of("lo").unwrap();
        assert!(index > 0);
        assert_eq!(xdp_program(index).unwrap(), None);
    }

    #[test]
    fn an_unknown_interface_is_named_with_those_there_are() {
        let error = index_of("nonesuch0").unwrap_err().to_string();
        assert!(error.contains("nonesuch0") && error.contains("lo"), "{error}");
    }

    #[test]
    fn attributes_end_where_their_bytes_end() {
        let bytes = [8, 0, 1, 0, 9, 9, 9, 9, 5, 0, 43, 0, 7, 0, 0, 0];
        for (name, kind, expected) in
            [("first", 1, Some(&[9_u8, 9, 9, 9][..])), ("second", 43, Some(&[7][..])), ("none", 2, None)]
        {
            assert_eq!(attribute(&bytes, kind), expected, "{name}");
        }
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None, "a length beyond the end");
        assert_eq!(attribute(&[0, 0, 1, 0], 2), None, "a length of nothing");
    }
}
