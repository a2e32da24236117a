//! What a load balancer in front says of a connection before its first byte, and what the gateway says to upstreams
//! that want to hear it: the PROXY protocol, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`).
//!
//! [`read`] says how many bytes to read next and never asks for one behind the header: that one belongs to TLS or HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::ProxyVersion;

/// The longest header of version 1, its end included.
const MAX_TEXT: usize = 107;
/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;
/// Bytes behind those that are taken: addresses, and what balancers add about their own TLS.
const MAX_REST: usize = 4096;

/// Whom a connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// From the balancer itself, a health check; or it does not know, or it is no address of a network.
    Itself,
    /// From this client.
    Client(SocketAddr),
}

/// How far a header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least this many bytes more belong to it.
    Needs(usize),
    /// It is whole.
    Done(Announced),
}

/// It is no header of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY protocol header: {0}")]
pub struct Malformed(&'static str);

/// Reads a header, of which these are the first bytes.
///
/// # Errors
/// What is wrong with it: the connection has to end, since what follows could be anything.
pub fn read(bytes: &[u8]) -> Result<Progress, Malformed> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] == SIGNATURE[..begun] {
        // No header of either version is shorter than the signature.
        let missing = SIGNATURE.len() - begun;
        return if missing > 0 { Ok(Progress::Needs(missing)) } else { binary(bytes) };
    }
    text(bytes)
}

/// Writes a header: a connection from `client` to `local`. Where their families differ, IPv4 is written as
/// IPv6-mapped.
pub fn write(version: ProxyVersion, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (from, to) = one_family(client.ip().to_canonical(), local.ip().to_canonical());
    let ports = [client.port(), local.port()];
    match version {
        ProxyVersion::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", ports[0], ports[1]).into_bytes()
        }
        ProxyVersion::V2 => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let mut rest = [octets(from), octets(to)].concat();
            rest.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
            let family = if from.is_ipv4() { 0x11 } else { 0x21 };
            // Two addresses of at most 16 bytes, and two ports.
            let length = u8::try_from(rest.len()).unwrap_or(u8::MAX);
            [&SIGNATURE[..], &[0x21, family, 0, length], &rest].concat()
        }
    }
}

/// A client of one family may have come to a balancer that reached us by the other; the header has room for one.
fn one_family(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    };
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) }
}

fn text(bytes: &[u8]) -> Result<Progress, Malformed> {
    const PREFIX: &[u8] = b"PROXY ";
    let begun = bytes.len().min(PREFIX.len());
    if bytes[..begun] != PREFIX[..begun] {
        return Err(Malformed("it begins like neither version"));
    }
    if bytes.ends_with(b"\n") {
        let line = bytes.strip_suffix(b"\r\n").ok_or(Malformed("its line ends without CR"))?;
        let line = std::str::from_utf8(line).map_err(|_| Malformed("it is not ASCII"))?;
        return line_of(line).map(Progress::Done);
    }
    if bytes.len() >= MAX_TEXT {
        return Err(Malformed("its line is too long"));
    }
    // The end is two bytes, of which one may be there.
    let end = if bytes.ends_with(b"\r") { 1 } else { 2 };
    Ok(Progress::Needs(end.min(MAX_TEXT - bytes.len())))
}

fn line_of(line: &str) -> Result<Announced, Malformed> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Announced::Itself);
    }
    let (Some(source), Some(destination), Some(port), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed("it does not have two addresses and two ports"));
    };
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let number = |word: &str| -> Option<u16> {
        let is_plain =
            word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| is_plain)
    };
    match (address(source), address(destination), number(port), number(to)) {
        (Some(source), Some(_), Some(port), Some(_)) => Ok(Announced::Client(SocketAddr::new(source, port))),
        _ => Err(Malformed("an address or a port in it is none")),
    }
}

fn binary(bytes: &[u8]) -> Result<Progress, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Needs(FIXED - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(Malformed("it is too long"));
    }
    if command >> 4 != 2 || command & 0xf > 1 {
        return Err(Malformed("its version or command is unknown"));
    }
    if rest.len() < length {
        return Ok(Progress::Needs(length - rest.len()));
    }
    if command & 0xf == 0 {
        return Ok(Progress::Done(Announced::Itself));
    }
    let short = Malformed("its addresses are cut short");
    let port = |at: usize| rest.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]])).ok_or(short);
    let announced = match family {
        // TCP over IPv4 and IPv6: two addresses, then two ports.
        0x11 if length >= 12 => {
            let address = rest.first_chunk::<4>().ok_or(short)?;
            Announced::Client(SocketAddr::new(Ipv4Addr::from(*address).into(), port(8)?))
        }
        0x21 if length >= 36 => {
            let address = rest.first_chunk::<16>().ok_or(short)?;
            Announced::Client(SocketAddr::new(Ipv6Addr::from(*address).into(), port(32)?))
        }
        0x11 | 0x21 => return Err(short),
        // Not said, or a Unix socket.
        0x00 | 0x31 => Announced::Itself,
        _ => return Err(Malformed("it is of no protocol that HTTP comes over")),
    };
    Ok(Progress::Done(announced))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// As a connection reads it: what is asked for, until it is whole. Returns what is left over, too.
    fn feed(mut bytes: &[u8]) -> (Result<Announced, Malformed>, usize) {
        let mut header = Vec::new();
        loop {
            match read(&header) {
                Ok(Progress::Done(announced)) => return (Ok(announced), bytes.len()),
                Err(malformed) => return (Err(malformed), bytes.len()),
                Ok(Progress::Needs(count)) => {
                    let count = count.min(bytes.len());
                    if count == 0 {
                        return (Err(Malformed("the end came first")), 0);
                    }
                    header.extend_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                }
            }
        }
    }

    #[test]
    fn headers_say_whom_a_connection_is_from() {
        let v4 = [203, 0, 113, 9, 192, 0, 2, 1, 0x30, 0x39, 0, 80];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 9;
        v6[32..34].copy_from_slice(&[0x30, 0x39]);
        let client = |text: &str| Some(Announced::Client(text.parse().unwrap()));
        let (ours, theirs) = (client("203.0.113.9:12345"), client("[2001:db8::9]:12345"));
        for (name, header, expected) in [
            ("text, IPv4", b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 80\r\n".to_vec(), ours),
            ("text, IPv6", b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 80\r\n".to_vec(), theirs),
            ("text, unknown", b"PROXY UNKNOWN\r\n".to_vec(), Some(Announced::Itself)),
            (
                "text, unknown with words",
                b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
                Some(Announced::Itself),
            ),
            ("binary, IPv4", v2(0x21, 0x11, &v4), ours),
            ("binary, IPv6", v2(0x21, 0x21, &v6), theirs),
            ("binary, more behind", v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), ours),
            ("binary, its own", v2(0x20, 0x00, &[]), Some(Announced::Itself)),
            ("binary, its own with addresses", v2(0x20, 0x11, &v4), Some(Announced::Itself)),
            ("binary, not said", v2(0x21, 0x00, &[]), Some(Announced::Itself)),
            ("binary, a Unix socket", v2(0x21, 0x31, &[0; 216]), Some(Announced::Itself)),
            ("text without CR", b"PROXY UNKNOWN\n".to_vec(), None),
            ("text of another family", b"PROXY TCP4 2001:db8::9 2001:db8::1 1 2\r\n".to_vec(), None),
            ("text with a port too many", b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2 3\r\n".to_vec(), None),
            ("text with a port too large", b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 80\r\n".to_vec(), None),
            ("text with a padded port", b"PROXY TCP4 203.0.113.9 192.0.2.1 080 80\r\n".to_vec(), None),
            ("text with two spaces", b"PROXY TCP4  203.0.113.9 192.0.2.1 1 80\r\n".to_vec(), None),
            ("text without an end", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(), None),
            ("a request", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), None),
            ("a greeting of TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1], None),
            ("binary of another version", v2(0x11, 0x11, &v4), None),
            ("binary with another command", v2(0x22, 0x11, &v4), None),
            ("binary over UDP", v2(0x21, 0x12, &v4), None),
            ("binary, cut short", v2(0x21, 0x11, &v4[..11]), None),
            ("binary, IPv6 as IPv4", v2(0x21, 0x21, &v4), None),
            ("binary, too long", v2(0x21, 0x11, &[0; MAX_REST + 1]), None),
        ] {
            let behind = b"GET / HTTP/1.1\r\n\r\n";
            let (read, left) = feed(&[&header[..], behind].concat());
            assert_eq!(read.ok(), expected, "{name}");
            if expected.is_some() {
                assert_eq!(left, behind.len(), "{name}: what is behind the header is not read");
            }
        }
    }

    #[test]
    fn headers_are_written_as_they_are_read() {
        let [v4, other, v6] =
            ["192.0.2.1:5", "198.51.100.7:443", "[2001:db8::1]:65535"].map(|a| a.parse().unwrap());
        let write = |version, from, to| String::from_utf8_lossy(&write(version, from, to)).into_owned();
        let v1 = |from, to| write(ProxyVersion::V1, from, to);
        assert_eq!(v1(v4, other), "PROXY TCP4 192.0.2.1 198.51.100.7 5 443\r\n");
        assert_eq!(v1(v6, v6), "PROXY TCP6 2001:db8::1 2001:db8::1 65535 65535\r\n");
        assert_eq!(v1(v6, v4), "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 65535 5\r\n");
        assert_eq!(
            super::write(ProxyVersion::V2, v4, other),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\0\x05\x01\xbb"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            from: std::net::IpAddr, to: std::net::IpAddr, ports: (u16, u16), is_text: bool
        ) {
            let (client, local) = (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
            let version = if is_text { ProxyVersion::V1 } else { ProxyVersion::V2 };
            let Ok(Progress::Done(Announced::Client(read))) = read(&write(version, client, local)) else {
                panic!("it is no header");
            };
            prop_assert_eq!(read.ip().to_canonical(), from.to_canonical());
            prop_assert_eq!(read.port(), ports.0);
        }

        #[test]
        fn every_client_is_read_as_it_was_written(address: IpAddr, port: u16, to: u16, behind: Vec<u8>) {
            let (family, binary_family, octets) = match address {
                IpAddr::V4(v4) => ("TCP4", 0x11, v4.octets().to_vec()),
                IpAddr::V6(v6) => ("TCP6", 0x21, v6.octets().to_vec()),
            };
            let text = format!("PROXY {family} {address} {address} {port} {to}\r\n").into_bytes();
            let rest = [&octets[..], &octets, &port.to_be_bytes(), &to.to_be_bytes()].concat();
            for header in [text, v2(0x21, binary_family, &rest)] {
                let read = feed(&[&header[..], &behind].concat());
                prop_assert_eq!(read, (Ok(Announced::Client(SocketAddr::new(address, port))), behind.len()));
            }
        }

        /// Whatever comes: an answer after a bounded number of bytes.
        #[test]
        fn nothing_is_read_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..400), begin in 0..4_usize) {
            let begins = [&b""[..], b"PROXY ", b"PROXY TCP4 ", &SIGNATURE];
            let bytes = [begins[begin], &bytes].concat();
            let mut length = 0;
            while let Ok(Progress::Needs(count)) = read(&bytes[..length]) {
                prop_assert!(count > 0 && length + count <= FIXED + MAX_REST);
                length += count;
                if length > bytes.len() {
                    break;
                }
            }
        }
    }
}
