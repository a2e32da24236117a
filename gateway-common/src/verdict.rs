//! What may come of a packet: one table of reason, verdict, metric name and sentence.
//!
//! The number of a reason is an index into pinned counters: it never changes meaning within one
//! [`crate::abi::SCHEMA_VERSION`]; new reasons go to the end.

/// What happens to the packet.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on to the network stack.
    Pass,
    /// It ends here.
    Drop,
}

impl Verdict {
    /// The label in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($number:literal $variant:ident $verdict:ident $name:literal $sentence:literal;)*) => {
        /// Why a packet passed or was dropped.
        #[must_use]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $sentence] $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];

            /// What happens to a packet for this reason.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }

            /// The stable name in metrics, JSON and `explain`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What `explain` prints.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    0  NoMatch            Pass "no_match"            "No list names the source.";
    1  NotIp              Pass "not_ip"              "The frame is neither IPv4 nor IPv6 (ARP, for instance); lists do not concern it.";
    2  AllowList          Pass "allow_list"          "The allow list names the source; later stages are not asked.";
    3  BanShadow          Pass "ban_shadow"          "A ban in shadow mode names the source: it would be dropped, but is only counted.";
    4  DenyShadow         Pass "deny_shadow"         "A deny entry in shadow mode names the source: it would be dropped, but is only counted.";
    5  Fragment           Pass "fragment"            "No list names the source; it is a later fragment, which carries no ports.";
    6  BanList            Drop "ban_list"            "The source is banned for a time.";
    7  DenyList           Drop "deny_list"           "The deny list names the source.";
    8  TruncatedEthernet  Drop "truncated_ethernet"  "The frame is shorter than an Ethernet header.";
    9  TruncatedVlan      Drop "truncated_vlan"      "The frame ends inside a VLAN tag.";
    10 VlanDepth          Drop "vlan_depth"          "The frame has more than two VLAN tags.";
    11 TruncatedIpv4      Drop "truncated_ipv4"      "The frame ends inside the IPv4 header.";
    12 BadIpv4            Drop "bad_ipv4"            "The IPv4 header contradicts itself: wrong version, or a length shorter than the header.";
    13 TruncatedIpv6      Drop "truncated_ipv6"      "The frame ends inside the IPv6 header.";
    14 BadIpv6            Drop "bad_ipv6"            "The EtherType says IPv6, the header's version field does not.";
    15 TruncatedExtension Drop "truncated_extension" "The frame ends inside an IPv6 extension header.";
    16 ExtensionDepth     Drop "extension_depth"     "The packet has more than eight IPv6 extension headers.";
    17 TruncatedTransport Drop "truncated_transport" "The packet ends inside its TCP, UDP or ICMP header.";
    18 BadTcp             Drop "bad_tcp"             "The TCP header's data offset is shorter than a TCP header.";
    19 TinyFragment       Drop "tiny_fragment"       "A first fragment does not hold the whole transport header, or a later one would overwrite it (RFC 1858, RFC 7112).";
    20 Internal           Drop "internal"            "The program could not reach one of its own maps: a bug of this gateway.";
    21 DefaultDrop        Drop "default_drop"        "Nothing names the source, nothing that this host sent asks for the packet, and kernel.default is drop.";
    22 Reply              Pass "reply"               "It answers a connection, a query or a ping of this host.";
    23 ReplyError         Pass "reply_error"         "It is an ICMP error about a packet of this host, which finding the path's MTU needs.";
    24 NeighbourDiscovery Pass "neighbour_discovery" "It is IPv6 neighbour discovery from the link, without which nobody could reach this host.";
    25 DhcpReply          Pass "dhcp_reply"          "It is from a DHCP server's port to the client's, and this host's address may depend on it.";
}

impl Reason {
    /// The reason with this number, if there is one.
    pub const fn from_number(number: u32) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_are_unique() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_number(number as u32), Some(*reason));
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name()).count();
            assert_eq!(same, 1, "{} stands twice", reason.name());
            assert!(reason.sentence().ends_with('.'));
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u32), None);
    }
}
