//! IPv4 (RFC 791), options skipped by the header's length.

use super::{Address, Fragment, Frame, Headers, transport};
use crate::verdict::Reason;

/// Reads the addresses and the protocol, and finds where the transport header begins.
#[inline(always)]
pub(super) fn read(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    let offset = headers.offset;
    let Some(words) = frame.words::<5>(offset) else { return Err(Reason::TruncatedIpv4) };
    let version_length = u32::from_be(words[0]);
    let header_len = ((version_length >> 24) & 0xf) as usize * 4;
    let total_len = (version_length & 0xffff) as usize;
    if version_length >> 28 != 4 || header_len < 20 {
        return Err(Reason::BadIpv4);
    }
    // Options are skipped unread, but they must be there.
    if frame.len() < offset + header_len {
        return Err(Reason::TruncatedIpv4);
    }
    // A length of 0 is what the kernel's own merged packets above 64 KiB carry (BIG TCP), which generic
    // XDP sees; from the wire, the stack refuses it.
    headers.end = if total_len == 0 { frame.len() } else { offset + total_len };
    if headers.end < offset + header_len {
        return Err(Reason::BadIpv4);
    }
    let fragment_field = u32::from_be(words[1]) & 0xffff;
    headers.packet.protocol = ((u32::from_be(words[2]) >> 16) & 0xff) as u8;
    headers.packet.source = Address::v4(words[3]);
    headers.packet.destination = Address::v4(words[4]);
    headers.packet.fragment = fragment(fragment_field & 0x1fff, fragment_field & 0x2000 != 0);
    headers.overwrites_header = overwrites_header(fragment_field & 0x1fff, headers.packet.protocol);
    headers.has_addresses = true;
    headers.offset = offset + header_len;
    Ok(())
}

/// The kind of fragment that an offset and the more-fragments bit make.
#[inline(always)]
pub(super) const fn fragment(offset: u32, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// A piece at offset 1 (8 bytes) lies inside a TCP header: the overlap attack of RFC 3128.
#[inline(always)]
pub(super) const fn overwrites_header(offset: u32, protocol: u8) -> bool {
    offset == 1 && protocol == transport::TCP
}
