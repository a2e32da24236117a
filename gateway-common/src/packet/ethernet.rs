//! Ethernet II and VLAN tags (IEEE 802.1Q, 802.1ad).

use super::{Frame, Headers};
use crate::verdict::Reason;

/// VLAN tags that are read over: one of the customer's, one of the provider's.
pub const MAX_VLAN_TAGS: usize = 2;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
const VLAN_CUSTOMER: u16 = 0x8100;
const VLAN_SERVICE: u16 = 0x88a8;

/// Finds the EtherType behind all tags, and where its header begins.
#[inline(always)]
pub(super) fn read(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    let Some(ether_type) = frame.half(12) else { return Err(Reason::TruncatedEthernet) };
    headers.ether_type = u16::from_be(ether_type);
    headers.offset = 14;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_tag(headers.ether_type) {
            return Ok(());
        }
        // A tag is two bytes of priority and number, then the next EtherType.
        let Some([tag]) = frame.words(headers.offset) else { return Err(Reason::TruncatedVlan) };
        headers.ether_type = u32::from_be(tag) as u16;
        headers.offset += 4;
    }
    if is_tag(headers.ether_type) { Err(Reason::VlanDepth) } else { Ok(()) }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, VLAN_CUSTOMER | VLAN_SERVICE)
}
