//! Reads a frame: Ethernet, up to two VLAN tags, IPv4 or IPv6, TCP, UDP or ICMP.
//!
//! [`parse`] lists the layers in order; each layer's file knows one header. A frame that cannot be read
//! has a [`Reason`] of its own, so that every odd packet is counted under a name.
//!
//! The layers fill in one [`Headers`] instead of returning what they found: the verifier refuses to copy a
//! value that one of two branches leaves unset, and a `Result` with a payload compiles to just that.

mod address;
mod ethernet;
mod ipv4;
mod ipv6;
mod transport;

pub use address::{Address, Family};
pub use ethernet::MAX_VLAN_TAGS;
pub use ipv6::MAX_EXTENSION_HEADERS;
pub(crate) use transport::{ICMP, ICMPV6, TCP, UDP};

use crate::verdict::Reason;

/// The bytes of a frame, from its Ethernet header on.
///
/// Headers come in 32-bit words, as their RFCs draw them; a word here is as on the wire
/// (`u32::from_be` makes it a number). One bounds check covers all words of a read, which is what the
/// kernel's verifier wants to see and what a packet should cost.
pub trait Frame {
    /// `N` words from `offset` on, if the frame has them.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
    /// Two bytes at `offset`, as on the wire.
    fn half(&self, offset: usize) -> Option<u16>;
    /// Bytes of the frame that can be read.
    fn len(&self) -> usize;
    /// The same offset; the kernel's reader hides from the verifier in which range it can be. Otherwise
    /// each way through each extension header has a range of its own, and the verifier walks all that
    /// follows once for each: loading took a second.
    fn forget_range(&self, offset: usize) -> usize {
        offset
    }
    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for &[u8] {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(N * 4)?)?;
        let mut words = [0; N];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        Some(words)
    }

    fn half(&self, offset: usize) -> Option<u16> {
        let bytes = self.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

/// What the stages and the events need to know of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// IP protocol number, behind all extension headers.
    pub protocol: u8,
    /// Whether it is a piece of a packet.
    pub fragment: Fragment,
    /// Source port of TCP and UDP, else 0.
    pub source_port: u16,
    /// Destination port of TCP and UDP, else 0.
    pub destination_port: u16,
}

impl Packet {
    /// A packet of which nothing is known yet.
    pub const BLANK: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        protocol: 0,
        fragment: Fragment::NONE,
        source_port: 0,
        destination_port: 0,
    };
}

/// Whether a packet is a piece of one: the offset in units of 8 bytes, and above it the bit that says more
/// pieces come, as in IPv4's header.
///
/// The field itself and not an enum of three: an enum is decided where it is read, and the verifier would
/// walk all that follows once for each decision in each of eight extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment(u32);

impl Fragment {
    /// A whole packet.
    pub const NONE: Self = Self(0);
    const OFFSET: u32 = 0x1fff;
    const MORE: u32 = 0x2000;

    /// A later piece, without the transport header.
    #[inline(always)]
    pub const fn is_later(self) -> bool {
        self.0 & Self::OFFSET != 0
    }

    /// The first piece of several.
    #[inline(always)]
    pub const fn is_first(self) -> bool {
        self.0 == Self::MORE
    }

    /// A piece at 8 bytes lies inside a TCP header: the overlap attack of RFC 3128.
    #[inline(always)]
    const fn is_inside_tcp_header(self) -> bool {
        self.0 & Self::OFFSET == 1
    }
}

/// What reading has found so far, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// The packet; complete when [`parse`] returns `Ok`, else as far as reading got.
    pub packet: Packet,
    /// Whether there was an IP header that could be read.
    pub has_addresses: bool,
    /// Behind all VLAN tags.
    ether_type: u16,
    /// IPv6: how many routers may still pass it on.
    hop_limit: u8,
    /// Where the next header begins; in the end the transport header.
    offset: usize,
    /// Where the packet ends by its own account: what is behind is padding.
    end: usize,
}

impl Headers {
    /// Nothing read yet.
    pub const BLANK: Self =
        Self { packet: Packet::BLANK, has_addresses: false, ether_type: 0, hop_limit: 0, offset: 0, end: 0 };

    /// Where a packet ends that does not say it: behind whatever is there.
    const UNKNOWN_END: usize = u32::MAX as usize;

    /// Whether these first bytes of a frame are all that the packet needs by its own account. A frame that is
    /// longer than them says so by its length field, or says nothing.
    #[inline(always)]
    pub const fn end_within(&self, bytes: usize) -> bool {
        self.end != 0 && self.end <= bytes
    }

    /// Where the transport header begins, when reading went well.
    #[inline(always)]
    pub(crate) const fn transport(&self) -> usize {
        self.offset
    }

    /// IPv6's hop limit; 0 of IPv4.
    #[inline(always)]
    pub(crate) const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }
}

/// Reads a frame's headers.
///
/// # Errors
/// The reason for which the frame is not judged by lists: [`Reason::NotIp`] passes, all others drop.
#[inline(always)]
pub fn parse(frame: &impl Frame, headers: &mut Headers) -> Result<(), Reason> {
    ethernet::read(frame, headers)?;
    match headers.ether_type {
        ethernet::IPV4 => ipv4::read(frame, headers)?,
        ethernet::IPV6 => ipv6::read(frame, headers)?,
        _ => return Err(Reason::NotIp),
    }
    transport::read(frame, headers)
}
