//! What the host has sent, so that replies pass where `kernel.default` is `drop`.
//!
//! Two tables, so that a burst of new flows cannot push out those that are at work: a flow begins in
//! `flows_new`, and moves to `flows` when the host has sent, has had an answer, and sends again. A query
//! and its answer, a refused connection or a scan therefore never take a place among the established; a
//! connection that the host closes goes back.
//!
//! The timeouts follow from the table. RFC numbers are least values; where Linux's connection tracking
//! (`nf_conntrack_*_timeout*`) waits longer, its value holds, because that is what operators know.

/// Flows without an answer yet, and those that are closing. An LRU table evicts in batches and a processor
/// keeps free rows of its own, so this is twice what a burst should be able to be.
pub const NEW_FLOWS_CAPACITY: u32 = 1 << 16;
/// Flows at work: the kernel's own default for connection tracking on hosts with more than 4 GiB.
pub const FLOWS_CAPACITY: u32 = 1 << 18;
/// The tables' rows on hosts that pass by default: an LRU table takes its memory when it is made (39 MB for
/// both), and there nobody asks it.
pub const UNUSED_FLOWS_CAPACITY: u32 = 1;

const SECOND: u64 = 1_000_000_000;

/// A flow's time is written again only when it is this old: a busy one costs a packet no write.
pub const FLOW_REFRESH_NS: u64 = SECOND;
/// TCP that is opening or closing: RFC 5382 (REQ-5) asks for 4 minutes at least; conntrack has 120 s.
pub const TCP_NEW_TIMEOUT_NS: u64 = 240 * SECOND;
/// TCP at work: RFC 5382 asks for 2 h 4 min at least; conntrack has 5 days.
pub const TCP_TIMEOUT_NS: u64 = 5 * 24 * 3600 * SECOND;
/// UDP without an exchange: RFC 4787 (REQ-5) asks for 2 minutes at least; conntrack has 30 s.
pub const UDP_NEW_TIMEOUT_NS: u64 = 120 * SECOND;
/// UDP with one: RFC 4787 recommends 5 minutes; conntrack has 120 s.
pub const UDP_TIMEOUT_NS: u64 = 300 * SECOND;
/// Echo: RFC 5508 (REQ-2) asks for 60 s at least; conntrack has 30 s.
pub const ECHO_TIMEOUT_NS: u64 = 60 * SECOND;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowTable {
    /// `flows_new`
    New,
    /// `flows`
    Established,
}

impl FlowTable {
    /// The map's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "flows_new",
            Self::Established => "flows",
        }
    }
}

/// A flow as the host sees it. Addresses as on the wire, IPv4 in the first word; ports in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The host's own address.
    pub local: [u32; 4],
    /// The other side's.
    pub remote: [u32; 4],
    /// The host's port; of an echo its identifier.
    pub local_port: u16,
    /// The other side's port; 0 of an echo.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Always 0: a key is compared byte by byte.
    pub padding: [u8; 2],
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Boot clock in nanoseconds: the last packet, give or take [`FLOW_REFRESH_NS`].
    pub last_ns: u64,
    /// One of the states below.
    pub state: u32,
    /// Always 0.
    pub padding: u32,
}

impl Flow {
    /// In `flows_new`: the host has sent.
    pub const SENT: u32 = 0;
    /// In `flows_new`: and has had an answer.
    pub const ANSWERED: u32 = 1;
    /// In `flows_new`: the host has sent FIN or RST.
    pub const CLOSING: u32 = 2;
    /// In `flows`.
    pub const ESTABLISHED: u32 = 3;
    /// In `flows`: the other side says that it is over (RST), and the host has not sent since.
    pub const RESET: u32 = 4;

    /// A flow of this moment.
    #[inline(always)]
    pub const fn new(state: u32, now_ns: u64) -> Self {
        Self { last_ns: now_ns, state, padding: 0 }
    }
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 4);
    assert!(size_of::<Flow>() == 16 && align_of::<Flow>() == 8);
    assert!(NEW_FLOWS_CAPACITY < FLOWS_CAPACITY);
    // A flow that is refreshed as seldom as this must not be over in between.
    assert!(FLOW_REFRESH_NS * 10 < ECHO_TIMEOUT_NS);
};
