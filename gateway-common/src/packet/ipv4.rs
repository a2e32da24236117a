//! IPv4 (RFC 791), options skipped by the header's length.

use super::{Address, Fragment, Frame, Headers};
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
    headers.end = if total_len == 0 { Headers::UNKNOWN_END } else { offset + total_len };
    if headers.end < offset + header_len {
        return Err(Reason::BadIpv4);
    }
    headers.packet.protocol = ((u32::from_be(words[2]) >> 16) & 0xff) as u8;
    headers.packet.source = Address::v4(words[3]);
    headers.packet.destination = Address::v4(words[4]);
    headers.packet.fragment = Fragment(u32::from_be(words[1]) & (Fragment::OFFSET | Fragment::MORE));
    headers.has_addresses = true;
    headers.offset = offset + header_len;
    Ok(())
}
