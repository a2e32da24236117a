//! Frames as bytes: built by hand, sent and seen on a wire. The kernel here has no VLAN devices, and the
//! frames that matter most are those that no kernel would send.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::net::{CLIENT_MAC, GATEWAY_MAC};

/// The EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// The tag of 802.1Q.
pub const DOT1Q: u16 = 0x8100;
/// The outer tag of 802.1ad.
pub const DOT1AD: u16 = 0x88a8;
/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol numbers.
pub const UDP: u8 = 17;

/// What an IPv4 header may carry beyond addresses; the default is the plain header.
#[derive(Debug, Clone, Default)]
pub struct V4 {
    /// Option bytes; a multiple of four.
    pub options: Vec<u8>,
    /// Offset in units of eight bytes.
    pub fragment_offset: u16,
    /// Whether another fragment follows.
    pub more_fragments: bool,
}

/// An Ethernet frame from the client to the gateway, with these tags, outermost first.
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY_MAC, CLIENT_MAC].concat();
    for (tag, vlan) in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A packet of the family of `source`, with no options or extension headers.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (IPV4, ipv4(source, destination, protocol, &V4::default(), payload))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => (IPV6, ipv6(source, destination, protocol, payload)),
        _ => panic!("{source} and {destination} are of different families"),
    }
}

/// An IPv4 packet.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, extras: &V4, payload: &[u8]) -> Vec<u8> {
    let header_length = 20 + extras.options.len();
    let total = u16::try_from(header_length + payload.len()).unwrap();
    let fragment = extras.fragment_offset | u16::from(extras.more_fragments) << 13;
    let mut packet = vec![0x40 | u8::try_from(header_length / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(&extras.options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet; extension headers come as part of the payload, see [`extension`].
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An eight-byte extension header (hop-by-hop 0, routing 43, destination options 60) before `payload`.
pub fn extension(next: u8, payload: &[u8]) -> Vec<u8> {
    // One PadN option of six bytes fills it.
    [&[next, 0, 1, 4, 0, 0, 0, 0], payload].concat()
}

/// An IPv6 fragment header before `payload`; the offset is in units of eight bytes.
pub fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, field[0], field[1], 0, 0, 0, 7], payload].concat()
}

/// A UDP datagram without a checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for field in [source, destination, u16::try_from(8 + payload.len()).unwrap(), 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// A TCP SYN without options or checksum; `payload` marks it for a [`Tap`].
pub fn syn(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends frames out of an interface, byte for byte.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// Opens `interface` of `namespace`.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        // Protocol 0: this socket receives nothing.
        Self(packet_socket(namespace, interface, 0))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame).unwrap_or_else(|error| panic!("sending {} bytes: {error}", frame.len()));
    }
}

/// Sees the frames that an interface hands to its host: those that XDP let pass.
#[derive(Debug)]
pub struct Tap(Socket);

impl Tap {
    /// Opens `interface` of `namespace`; it sees what comes from now on.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let socket = packet_socket(namespace, interface, libc::ETH_P_ALL as u16);
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self(socket)
    }

    /// Reads frames of the client until one holds `last`, and returns all of them, that one included.
    /// Frames keep their order on the wire, so what is missing before `last` was dropped.
    pub fn until(&mut self, last: &[u8]) -> Vec<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(5);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let addresses = [GATEWAY_MAC, CLIENT_MAC].concat();
        while Instant::now() < end {
            let mut frame = [0; 2048];
            match self.0.read(&mut frame) {
                // Replies, and errors that quote the frame, come from the other side; a kernel's own
                // multicast has another destination.
                Ok(length) if frame[..12] == addresses => seen.push(frame[..length].to_vec()),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => panic!("reading frames: {error}"),
            }
            if seen.last().is_some_and(|frame| holds(frame, last)) {
                return seen;
            }
        }
        panic!("the last frame never came; seen: {seen:02x?}");
    }
}

/// Whether a frame holds these bytes.
pub fn holds(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}

fn packet_socket(namespace: &Namespace, interface: &str, protocol: u16) -> Socket {
    namespace.run(|| {
        let number = Protocol::from(i32::from(protocol.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(number)).unwrap();
        let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
        socket.bind(&link_address(index, protocol)).unwrap();
        socket
    })
}

/// No safe crate that the project has can spell the address of a packet socket.
#[allow(unsafe_code, reason = "sockaddr_ll has no safe constructor in std, socket2 or rustix")]
fn link_address(index: u32, protocol: u16) -> socket2::SockAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(index).unwrap(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the closure gets storage of sockaddr_storage's size and alignment, which hold a sockaddr_ll;
    // it writes a whole sockaddr_ll whose family is AF_PACKET, and gives the length it wrote.
    let initialised = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            length.write(size_of::<libc::sockaddr_ll>() as libc::socklen_t);
            Ok(())
        })
    };
    initialised.unwrap().1
}
