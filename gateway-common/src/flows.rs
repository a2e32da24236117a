//! Which packets answer something that the host sent: what the egress program writes down ([`remember`]),
//! and what the stage that drops by default asks (`answers`, `knows`).
//!
//! Pure like the stages: the tables are behind [`Flows`]. What arrives changes a flow only in place. New
//! rows come from what the host sends, so no flood from outside can fill a table.

use crate::abi::{
    ECHO_TIMEOUT_NS, FLOW_REFRESH_NS, Flow, FlowKey, FlowTable, TCP_NEW_TIMEOUT_NS, TCP_TIMEOUT_NS,
    UDP_NEW_TIMEOUT_NS, UDP_TIMEOUT_NS,
};
use crate::packet::{Address, Family, Frame, Headers, ICMP, ICMPV6, TCP, UDP};

/// Where flows are remembered.
pub trait Flows {
    /// A row that was found. In the kernel a pointer into the map: writing through it takes no row from
    /// anybody, which an update by key of an LRU table may do.
    type Row;
    /// Looks a flow up.
    fn find(&self, table: FlowTable, key: &FlowKey) -> Option<Self::Row>;
    /// What stands in a row.
    fn read(&self, row: &Self::Row) -> Flow;
    /// Writes a row in place.
    fn write(&self, row: &Self::Row, flow: Flow);
    /// Adds a flow; where the table is full, the one that was idle longest goes.
    fn insert(&self, table: FlowTable, key: &FlowKey, flow: Flow);
    /// Removes a flow.
    fn remove(&self, table: FlowTable, key: &FlowKey);
    /// Boot clock in nanoseconds.
    fn now_ns(&self) -> u64;
}

/// The bits of a TCP header that open and close; none of them for other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    const FIN: u32 = 1;
    const SYN: u32 = 2;
    const RST: u32 = 4;
    const ACK: u32 = 16;

    /// The flags of the TCP header at `offset`.
    #[inline(always)]
    fn read(frame: &impl Frame, offset: usize) -> Self {
        // The readers have seen that the header is there; the verifier has not.
        match frame.words::<1>(offset + 12) {
            Some([word]) => Self(u32::from_be(word) >> 16 & 0xff),
            None => Self(0),
        }
    }

    const fn closes(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }

    const fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }

    const fn asks(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Accepting a connection or refusing one begins no flow of the host's own. Any other segment may: the
    /// connection may be older than the table.
    const fn begins_nothing(self) -> bool {
        self.resets() || self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// Writes down what the host sends.
#[inline(always)]
pub fn remember(frame: &impl Frame, headers: &Headers, flows: &impl Flows) {
    let Some(key) = key(frame, headers, Way::Out) else { return };
    let flags = flags(frame, headers);
    if let Some(row) = flows.find(FlowTable::Established, &key) {
        let flow = flows.read(&row);
        let now_ns = flows.now_ns();
        if flags.closes() {
            flows.insert(FlowTable::New, &key, Flow::new(Flow::CLOSING, now_ns));
            flows.remove(FlowTable::Established, &key);
        } else if flow.state != Flow::ESTABLISHED || is_stale(&flow, now_ns) {
            flows.write(&row, Flow::new(Flow::ESTABLISHED, now_ns));
        }
        return;
    }
    if let Some(row) = flows.find(FlowTable::New, &key) {
        let flow = flows.read(&row);
        let now_ns = flows.now_ns();
        let state = match flow.state {
            _ if flags.closes() => Flow::CLOSING,
            _ if flags.asks() => Flow::SENT,
            Flow::ANSWERED => {
                flows.insert(FlowTable::Established, &key, Flow::new(Flow::ESTABLISHED, now_ns));
                flows.remove(FlowTable::New, &key);
                return;
            }
            state => state,
        };
        if state != flow.state || is_stale(&flow, now_ns) {
            flows.write(&row, Flow::new(state, now_ns));
        }
        return;
    }
    if !flags.begins_nothing() {
        let state = if flags.closes() { Flow::CLOSING } else { Flow::SENT };
        flows.insert(FlowTable::New, &key, Flow::new(state, flows.now_ns()));
    }
}

/// Whether a packet that arrived answers what the host sent; if so, it is written down that it came.
#[inline(always)]
pub(crate) fn answers(frame: &impl Frame, headers: &Headers, flows: &impl Flows) -> bool {
    let flags = flags(frame, headers);
    // A SYN asks, also where a flow has its ports: whoever is no longer allowed must not begin anew from the
    // port of a connection that the host remembers. It costs simultaneous open, which nobody uses, and spares
    // a SYN flood the lookups.
    if flags.asks() {
        return false;
    }
    let Some(key) = key(frame, headers, Way::In) else { return false };
    let Some((table, row)) = find(&key, flows) else { return false };
    let flow = flows.read(&row);
    let now_ns = flows.now_ns();
    if is_over(table, key.protocol, &flow, now_ns) {
        return false;
    }
    let resets = flags.resets();
    let state = match flow.state {
        // Refused: nothing is to come, and nothing will be sent that would make it established.
        Flow::SENT if resets => Flow::SENT,
        Flow::SENT => Flow::ANSWERED,
        // The stack ignores a reset that is out of its window, and sends on: then it is established again.
        Flow::ESTABLISHED if resets => Flow::RESET,
        state => state,
    };
    // After a reset the time runs from the reset on.
    if state != flow.state || (state != Flow::RESET && is_stale(&flow, now_ns)) {
        flows.write(&row, Flow::new(state, now_ns));
    }
    true
}

/// Whether the packet that an ICMP error quotes is one of a flow that the host has.
#[inline(always)]
pub(crate) fn knows(key: &FlowKey, flows: &impl Flows) -> bool {
    let Some((table, row)) = find(key, flows) else { return false };
    !is_over(table, key.protocol, &flows.read(&row), flows.now_ns())
}

#[inline(always)]
fn find<F: Flows>(key: &FlowKey, flows: &F) -> Option<(FlowTable, F::Row)> {
    if let Some(row) = flows.find(FlowTable::Established, key) {
        return Some((FlowTable::Established, row));
    }
    flows.find(FlowTable::New, key).map(|row| (FlowTable::New, row))
}

/// The flow that a packet belongs to, if its protocol has flows.
#[inline(always)]
fn key(frame: &impl Frame, headers: &Headers, way: Way) -> Option<FlowKey> {
    let packet = &headers.packet;
    if packet.fragment.is_later() {
        return None;
    }
    let (source_port, destination_port) = match packet.protocol {
        TCP | UDP => (packet.source_port, packet.destination_port),
        ICMP | ICMPV6 => {
            let identifier = echo_identifier(frame, headers.transport(), packet.protocol, way)?;
            match way {
                Way::Out => (identifier, 0),
                Way::In => (0, identifier),
            }
        }
        _ => return None,
    };
    let outward = FlowKey {
        local: packet.source.words,
        remote: packet.destination.words,
        local_port: source_port,
        remote_port: destination_port,
        protocol: packet.protocol,
        family: packet.source.family as u8,
        padding: [0; 2],
    };
    Some(match way {
        Way::Out => outward,
        Way::In => FlowKey {
            local: outward.remote,
            remote: outward.local,
            local_port: outward.remote_port,
            remote_port: outward.local_port,
            ..outward
        },
    })
}

/// The identifier of an echo request on its way out, or of an echo reply on its way in.
#[inline(always)]
fn echo_identifier(frame: &impl Frame, offset: usize, protocol: u8, way: Way) -> Option<u16> {
    let [kind, rest] = frame.words::<2>(offset)?;
    let wanted = match (protocol, way) {
        (ICMP, Way::Out) => 8,
        (ICMP, Way::In) => 0,
        (_, Way::Out) => 128,
        (_, Way::In) => 129,
    };
    if u32::from_be(kind) >> 24 == wanted { Some((u32::from_be(rest) >> 16) as u16) } else { None }
}

#[inline(always)]
fn flags(frame: &impl Frame, headers: &Headers) -> Flags {
    if headers.packet.protocol == TCP { Flags::read(frame, headers.transport()) } else { Flags(0) }
}

/// The flow of the packet that an ICMP error quotes: one that this host sent, if the error came to its
/// sender. The quote begins at `offset`; routers shorten it, but 8 bytes of its transport header are there
/// (RFC 792, RFC 4443).
#[inline(always)]
pub(crate) fn quoted(frame: &impl Frame, offset: usize, destination: &Address) -> Option<FlowKey> {
    match destination.family {
        Family::V4 => quoted_v4(frame, offset, destination),
        Family::V6 => quoted_v6(frame, offset, destination),
    }
}

#[inline(always)]
fn quoted_v4(frame: &impl Frame, offset: usize, destination: &Address) -> Option<FlowKey> {
    let words = frame.words::<5>(offset)?;
    let first = u32::from_be(words[0]);
    let header_len = ((first >> 24) & 0xf) as usize * 4;
    let is_later_fragment = u32::from_be(words[1]) & 0x1fff != 0;
    if first >> 28 != 4 || header_len < 20 || is_later_fragment || words[3] != destination.words[0] {
        return None;
    }
    let protocol = ((u32::from_be(words[2]) >> 16) & 0xff) as u8;
    let remote = Address::v4(words[4]);
    quoted_transport(frame, frame.forget_range(offset + header_len), protocol, destination, &remote)
}

/// A packet of this host that was cut into fragments has a fragment header; other extension headers in
/// what a host sends are too rare to be looked for.
#[inline(always)]
fn quoted_v6(frame: &impl Frame, offset: usize, destination: &Address) -> Option<FlowKey> {
    const FRAGMENT: u8 = 44;
    let words = frame.words::<10>(offset)?;
    let source = Address::v6([words[2], words[3], words[4], words[5]]);
    if u32::from_be(words[0]) >> 28 != 6 || source.words != destination.words {
        return None;
    }
    let mut protocol = (u32::from_be(words[1]) >> 8) as u8;
    let mut transport = offset + 40;
    if protocol == FRAGMENT {
        let [fragment] = frame.words::<1>(transport)?;
        if u32::from_be(fragment) & 0xfff8 != 0 {
            return None;
        }
        protocol = (u32::from_be(fragment) >> 24) as u8;
        transport += 8;
    }
    let remote = Address::v6([words[6], words[7], words[8], words[9]]);
    quoted_transport(frame, frame.forget_range(transport), protocol, destination, &remote)
}

#[inline(always)]
fn quoted_transport(
    frame: &impl Frame,
    offset: usize,
    protocol: u8,
    local: &Address,
    remote: &Address,
) -> Option<FlowKey> {
    let (local_port, remote_port) = match protocol {
        TCP | UDP => {
            let [ports] = frame.words::<1>(offset)?;
            ((u32::from_be(ports) >> 16) as u16, u32::from_be(ports) as u16)
        }
        ICMP | ICMPV6 => (echo_identifier(frame, offset, protocol, Way::Out)?, 0),
        _ => return None,
    };
    Some(FlowKey {
        local: local.words,
        remote: remote.words,
        local_port,
        remote_port,
        protocol,
        family: local.family as u8,
        padding: [0; 2],
    })
}

#[inline(always)]
const fn is_stale(flow: &Flow, now_ns: u64) -> bool {
    now_ns.saturating_sub(flow.last_ns) >= FLOW_REFRESH_NS
}

#[inline(always)]
const fn is_over(table: FlowTable, protocol: u8, flow: &Flow, now_ns: u64) -> bool {
    let is_new = matches!(table, FlowTable::New) || flow.state == Flow::RESET;
    let timeout_ns = match (protocol, is_new) {
        (TCP, true) => TCP_NEW_TIMEOUT_NS,
        (TCP, false) => TCP_TIMEOUT_NS,
        (UDP, true) => UDP_NEW_TIMEOUT_NS,
        (UDP, false) => UDP_TIMEOUT_NS,
        _ => ECHO_TIMEOUT_NS,
    };
    now_ns.saturating_sub(flow.last_ns) >= timeout_ns
}
