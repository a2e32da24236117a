//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443): ports, and that the header is there.

use super::{Frame, Headers};
use crate::verdict::Reason;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Reads the ports. A header must lie in the packet, not in the padding behind it.
#[inline(always)]
pub(super) fn read(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    let (offset, end) = (headers.offset, headers.end);
    let fragment = headers.packet.fragment;
    if fragment.is_later() {
        let overlaps = headers.packet.protocol == TCP && fragment.is_inside_tcp_header();
        return if overlaps { Err(Reason::TinyFragment) } else { Ok(()) };
    }
    // Too short a header in a first fragment is an attack with a name; in a whole packet it is a fault.
    let too_short = if fragment.is_first() { Reason::TinyFragment } else { Reason::TruncatedTransport };
    match headers.packet.protocol {
        TCP => {
            let Some(words) = frame.words::<5>(offset) else { return Err(too_short) };
            if offset + 20 > end {
                return Err(too_short);
            }
            if u32::from_be(words[3]) >> 28 < 5 {
                return Err(Reason::BadTcp);
            }
            set_ports(headers, words[0]);
        }
        UDP => {
            let Some(words) = frame.words::<2>(offset) else { return Err(too_short) };
            if offset + 8 > end {
                return Err(too_short);
            }
            set_ports(headers, words[0]);
        }
        // Type, code and checksum; what follows depends on the type.
        ICMP | ICMPV6 if frame.words::<1>(offset).is_none() || offset + 4 > end => {
            return Err(too_short);
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn set_ports(headers: &mut Headers, word: u32) {
    let word = u32::from_be(word);
    headers.packet.source_port = (word >> 16) as u16;
    headers.packet.destination_port = word as u16;
}
