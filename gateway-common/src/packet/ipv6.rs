//! IPv6 (RFC 8200) and its extension headers.

use super::{Address, Fragment, Frame, Headers};
use crate::verdict::Reason;

/// Extension headers that are read over; more are dropped (RFC 9098 tells why long chains are suspect).
pub const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Reads the addresses, and walks the extension headers to the transport header.
#[inline(always)]
pub(super) fn read(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    let offset = headers.offset;
    let Some(words) = frame.words::<10>(offset) else { return Err(Reason::TruncatedIpv6) };
    if u32::from_be(words[0]) >> 28 != 6 {
        return Err(Reason::BadIpv6);
    }
    let length_next = u32::from_be(words[1]);
    let payload_len = (length_next >> 16) as usize;
    // 0 is a jumbogram (RFC 2675) or the kernel's own merged packet above 64 KiB.
    headers.end = if payload_len == 0 { Headers::UNKNOWN_END } else { offset + 40 + payload_len };
    headers.packet.protocol = ((length_next >> 8) & 0xff) as u8;
    headers.hop_limit = (length_next & 0xff) as u8;
    headers.packet.source = Address::v6([words[2], words[3], words[4], words[5]]);
    headers.packet.destination = Address::v6([words[6], words[7], words[8], words[9]]);
    headers.has_addresses = true;
    headers.offset = offset + 40;
    skip_extensions(frame, headers)
}

/// Walks the extension headers; sets the protocol behind them and the kind of fragment.
#[inline(always)]
fn skip_extensions(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let kind = headers.packet.protocol;
        if !is_extension(kind) {
            return Ok(());
        }
        let Some([word]) = frame.words(headers.offset) else { return Err(Reason::TruncatedExtension) };
        let word = u32::from_be(word);
        headers.packet.protocol = (word >> 24) as u8;
        let length = ((word >> 16) & 0xff) as usize;
        // RFC 4302 counts in units of 4 bytes, minus 2; all others in units of 8, minus 1.
        let header_len = match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        headers.offset = frame.forget_range(headers.offset + header_len);
        if kind == FRAGMENT {
            // Offset above, the more-bit lowest: IPv4 has them the other way round.
            headers.packet.fragment = Fragment((word & 0xfff8) >> 3 | (word & 1) << 13);
            // What follows in a later piece is payload, not headers.
            if headers.packet.fragment.is_later() {
                return Ok(());
            }
        }
    }
    if is_extension(headers.packet.protocol) { Err(Reason::ExtensionDepth) } else { Ok(()) }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}
