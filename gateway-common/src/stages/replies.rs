//! Where `kernel.default` is `drop`: what no entry names passes if the host asked for it, or could not live
//! without it. A host that passes by default pays one look at its settings here.
//!
//! This stage reads the frame a second time, some ten nanoseconds where the default is to drop. What the first
//! reading found would have to be handed to a function of its own, which takes numbers only; and in line the
//! verifier would walk the stage once for each place at which the transport header may begin.

use crate::flows::{self, Flows};
use crate::packet::{Family, Frame, Headers, ICMP, ICMPV6, UDP, parse};
use crate::verdict::Reason;

/// What the default says of a packet where it is to drop. Of one without a frame nothing can be said for it.
#[inline(always)]
pub fn judge_unlisted(frame: &impl Frame, flows: &impl Flows) -> Reason {
    let mut headers = Headers::BLANK;
    match parse(frame, &mut headers) {
        Ok(()) => reason(frame, &headers, flows),
        Err(_) => Reason::DefaultDrop,
    }
}

#[inline(always)]
fn reason(frame: &impl Frame, headers: &Headers, flows: &impl Flows) -> Reason {
    let packet = &headers.packet;
    if flows::answers(frame, headers, flows) {
        return Reason::Reply;
    }
    if packet.fragment.is_later() {
        return Reason::DefaultDrop;
    }
    match (packet.source.family, packet.protocol) {
        (Family::V4, ICMP) | (Family::V6, ICMPV6) => icmp(frame, headers, flows),
        (family, UDP) if is_dhcp_reply(family, packet.source_port, packet.destination_port) => {
            Reason::DhcpReply
        }
        _ => Reason::DefaultDrop,
    }
}

#[inline(always)]
fn icmp(frame: &impl Frame, headers: &Headers, flows: &impl Flows) -> Reason {
    let offset = headers.transport();
    let Some([word]) = frame.words::<1>(offset) else { return Reason::DefaultDrop };
    let kind = (u32::from_be(word) >> 24) as u8;
    let family = headers.packet.source.family;
    if matches!(family, Family::V6) && is_neighbour_discovery(kind, headers) {
        return Reason::NeighbourDiscovery;
    }
    if is_error(family, kind)
        && let Some(key) = flows::quoted(frame, offset + 8, &headers.packet.destination)
        && flows::knows(&key, flows)
    {
        return Reason::ReplyError;
    }
    Reason::DefaultDrop
}

/// Destination unreachable (and "fragmentation needed", which path MTU discovery lives on), time exceeded,
/// parameter problem; packet too big, which IPv6 has as a type of its own.
#[inline(always)]
const fn is_error(family: Family, kind: u8) -> bool {
    match family {
        Family::V4 => matches!(kind, 3 | 11 | 12),
        Family::V6 => matches!(kind, 1..=4),
    }
}

/// Router and neighbour discovery (RFC 4861): a hop limit of 255 proves that no router passed it on. And the
/// queries of multicast listener discovery (RFC 3810), from the link by their source address: a switch that
/// gets no answer stops forwarding the groups that neighbour solicitations are sent to.
#[inline(always)]
const fn is_neighbour_discovery(kind: u8, headers: &Headers) -> bool {
    const LISTENER_QUERY: u8 = 130;
    let is_link_local = u32::from_be(headers.packet.source.words[0]) >> 22 == 0xfe80 >> 6;
    match kind {
        133..=137 => headers.hop_limit() == 255,
        LISTENER_QUERY => is_link_local,
        _ => false,
    }
}

/// Its request went to all, so the answer of one server reverses no flow.
#[inline(always)]
const fn is_dhcp_reply(family: Family, source_port: u16, destination_port: u16) -> bool {
    match family {
        Family::V4 => source_port == 67 && destination_port == 68,
        Family::V6 => source_port == 547 && destination_port == 546,
    }
}
