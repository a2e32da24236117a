//! Says on whose behalf a request is forwarded: X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239), and with
//! which certificate the client came: Client-Cert and Client-Cert-Chain (RFC 9440).
//!
//! What a peer says of hops before it counts only if the listener trusts that peer. From everybody else the
//! fields are dropped and written anew, so an upstream may believe what it reads.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{FORWARDED, HOST, HeaderName, HeaderValue};
use ipnet::IpNet;
use tokio_rustls::rustls::pki_types::CertificateDer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// The other end of a client connection, with what is written of it in every request.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    text: HeaderValue,
    /// `https` or `http`.
    proto: &'static str,
    /// The certificate it showed, and those of its issuers that came with it.
    certificate: OnceCell<(HeaderValue, Option<HeaderValue>)>,
    /// The Host of the last request and the element of Forwarded it led to: a connection seldom asks for
    /// more than one.
    element: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, is_secure: bool) -> Self {
        // On a dual-stack socket an IPv4 client has a mapped address; nobody wants to see that.
        let address = address.ip().to_canonical();
        Self {
            address,
            text: value(address.to_string()),
            proto: if is_secure { "https" } else { "http" },
            certificate: OnceCell::new(),
            element: RefCell::new(None),
        }
    }

    /// Whether what it says of others is believed.
    pub(super) fn is_trusted(&self, trusted: &[IpNet]) -> bool {
        is_trusted(self.address, trusted)
    }

    /// Whether it speaks TLS with us.
    pub(super) fn is_secure(&self) -> bool {
        self.proto == "https"
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// These certificates came in its handshake, its own one first; they were verified.
    pub(super) fn shows(&self, chain: &[CertificateDer<'_>]) {
        let Some((own, issuers)) = chain.split_first() else { return };
        // Byte sequences of RFC 8941: base64 between colons.
        let sequence = |certificate: &CertificateDer<'_>| format!(":{}:", STANDARD.encode(certificate));
        let issuers = issuers.iter().map(sequence).collect::<Vec<_>>().join(", ");
        let issuers = Some(issuers).filter(|issuers| !issuers.is_empty()).map(value);
        // Once a connection: there is one handshake.
        let _ = self.certificate.set((value(sequence(own)), issuers));
    }

    /// On whose behalf the peer asks. Behind a load balancer every connection has the same peer: a log that
    /// named only that would not say who was routed where.
    pub(super) fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
        client_address(headers, self.address, trusted)
    }

    /// Our element of Forwarded.
    fn element(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let Some(host) = host else { return value(self.write_element(None)) };
        let mut cached = self.element.borrow_mut();
        match &*cached {
            Some((known, element)) if known == host => element.clone(),
            _ => {
                let element = value(self.write_element(host.to_str().ok()));
                // A copy of its own: a slice of the head would keep hyper's whole buffer for as long as the connection lasts.
                let known = HeaderValue::from_bytes(host.as_bytes());
                *cached = known.ok().map(|known| (known, element.clone()));
                element
            }
        }
    }

    fn write_element(&self, host: Option<&str>) -> String {
        let mut element = match self.address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        if let Some(host) = host {
            // A Host with a port or brackets is no token. It has been checked: there is nothing to escape.
            let quote = if host.contains([':', '[']) { "\"" } else { "" };
            let _ = write!(element, ";host={quote}{host}{quote}");
        }
        element.push_str(";proto=");
        element.push_str(self.proto);
        element
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Writes the fields into a request that is about to be forwarded; Host has been checked.
pub(super) fn write(headers: &mut HeaderMap, peer: &Peer, trusted: &[IpNet]) {
    let host = headers.get(HOST).cloned();
    let element = peer.element(host.as_ref());
    let is_trusted = is_trusted(peer.address, trusted);
    if !is_trusted {
        remove_claims(headers);
    }
    // A trusted peer that shows one of its own speaks of itself, and of nobody before it.
    if let Some((own, issuers)) = peer.certificate.get() {
        headers.insert(CLIENT_CERT, own.clone());
        match issuers {
            Some(issuers) => drop(headers.insert(CLIENT_CERT_CHAIN, issuers.clone())),
            None => drop(headers.remove(CLIENT_CERT_CHAIN)),
        }
    }
    if is_trusted {
        append(headers, X_FORWARDED_FOR, &peer.text);
        append(headers, FORWARDED, &element);
        // These two speak of the first hop: what a trusted peer says of it stays.
        headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(peer.proto));
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        return;
    }
    headers.insert(X_FORWARDED_FOR, peer.text.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.proto));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(FORWARDED, element);
}

/// Whether the first hop was under TLS, as [`write()`] has told the upstream.
pub(super) fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto == "https")
}

/// Removes whatever tells of hops before the peer, not only what is written here: X-Real-IP, the likes of
/// X-Forwarded-Port, and all of them with underscores, which many an application server takes for dashes.
pub(super) fn remove_claims(headers: &mut HeaderMap) {
    // Nearly always empty, and then nothing is allocated.
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let begins = |with: &[u8]| {
        let begin = name.get(..with.len()).unwrap_or_default();
        begin.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).eq(with.iter().copied())
    };
    match name {
        [b'f', ..] => name == b"forwarded",
        [b'c', ..] => {
            begins(b"client-cert") && (name.len() == 11 || (begins(b"client-cert-chain") && name.len() == 17))
        }
        [b'x', ..] => begins(b"x-forwarded-") || (begins(b"x-real-ip") && name.len() == 9),
        _ => false,
    }
}

/// Appends to a list, however many lines it came in, and leaves one line.
fn append(headers: &mut HeaderMap, name: HeaderName, ours: &HeaderValue) {
    let mut list = Vec::new();
    for line in headers.get_all(&name) {
        if !line.is_empty() {
            list.extend_from_slice(line.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(ours.as_bytes());
    headers.insert(name, HeaderValue::try_from(list).unwrap_or_else(|_| ours.clone()));
}

/// The address of the client: going back from the peer, the first hop that is not trusted. An element that
/// cannot be read ends the walk, for what stands before it was written by nobody we know.
fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let mut hops: Vec<Option<IpAddr>> = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        hops.extend(line.as_bytes().split(|b| *b == b',').map(node));
    }
    if hops.is_empty() {
        for line in headers.get_all(FORWARDED) {
            hops.extend(split_elements(line.as_bytes()).into_iter().map(for_parameter));
        }
    }
    for hop in hops.into_iter().rev() {
        match hop {
            Some(address) if is_trusted(client, trusted) => client = address,
            _ => break,
        }
    }
    client
}

/// An address as hops write it: bare, with a port, or an IPv6 address in brackets with or without one.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

/// Splits a Forwarded value at its commas, but not within quotes.
fn split_elements(line: &[u8]) -> Vec<&[u8]> {
    let mut quoted = false;
    line.split(|byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .collect()
}

fn for_parameter(element: &[u8]) -> Option<IpAddr> {
    let pair = element
        .split(|b| *b == b';')
        .map(<[u8]>::trim_ascii)
        .find(|pair| pair.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"for=")))?;
    let value = &pair[4..];
    let bare = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    node(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn forwarding_fields_are_written_by_trust() {
        let forged = &[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=6.6.6.6"),
        ][..];
        for (name, peer, trusted, host, sent, expected) in [
            (
                "nothing sent",
                "192.0.2.1:5",
                &[][..],
                "a.test",
                &[][..],
                ["192.0.2.1", "http", "a.test", "for=192.0.2.1;host=a.test;proto=http"],
            ),
            (
                "forged",
                "192.0.2.1:5",
                &[],
                "a.test",
                forged,
                ["192.0.2.1", "http", "a.test", "for=192.0.2.1;host=a.test;proto=http"],
            ),
            (
                "trusted others",
                "192.0.2.1:5",
                &["10.0.0.0/8"],
                "a.test",
                forged,
                ["192.0.2.1", "http", "a.test", "for=192.0.2.1;host=a.test;proto=http"],
            ),
            (
                "trusted",
                "192.0.2.1:5",
                &["192.0.2.0/24"],
                "a.test",
                forged,
                ["6.6.6.6, 192.0.2.1", "https", "evil", "for=6.6.6.6, for=192.0.2.1;host=a.test;proto=http"],
            ),
            (
                "trusted, several lines",
                "192.0.2.1:5",
                &["192.0.2.0/24"],
                "a.test",
                &[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "3.3.3.3")],
                [
                    "1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1",
                    "http",
                    "a.test",
                    "for=192.0.2.1;host=a.test;proto=http",
                ],
            ),
            (
                "IPv6 and a port are quoted",
                "[2001:db8::1]:5",
                &[],
                "a.test:80",
                &[],
                ["2001:db8::1", "http", "a.test:80", "for=\"[2001:db8::1]\";host=\"a.test:80\";proto=http"],
            ),
            (
                "a mapped address is an IPv4 address",
                "[::ffff:192.0.2.1]:5",
                &["192.0.2.1/32"],
                "a.test",
                forged,
                ["6.6.6.6, 192.0.2.1", "https", "evil", "for=6.6.6.6, for=192.0.2.1;host=a.test;proto=http"],
            ),
        ] {
            let mut map = headers(sent);
            map.insert(HOST, host.parse().unwrap());
            write(&mut map, &Peer::new(peer.parse().unwrap(), false), &nets(trusted));
            let names = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, FORWARDED];
            for (field, value) in names.iter().zip(expected) {
                let lines: Vec<_> = map.get_all(field).iter().collect();
                assert_eq!(lines, [value], "{name}: {field}");
            }
        }
    }

    #[test]
    fn without_a_host_there_is_none_to_tell() {
        let mut map = headers(&[("x-forwarded-host", "evil")]);
        write(&mut map, &Peer::new("192.0.2.1:5".parse().unwrap(), false), &[]);
        assert_eq!(map.get(X_FORWARDED_HOST), None);
        assert_eq!(map[FORWARDED], "for=192.0.2.1;proto=http");
    }

    #[test]
    fn the_element_follows_the_host() {
        let peer = Peer::new("192.0.2.1:5".parse().unwrap(), false);
        for host in ["a.test", "a.test", "b.test"] {
            let mut map = HeaderMap::new();
            map.insert(HOST, host.parse().unwrap());
            write(&mut map, &peer, &[]);
            assert_eq!(map[FORWARDED], format!("for=192.0.2.1;host={host};proto=http"));
        }
    }

    #[test]
    fn the_client_is_the_last_hop_not_trusted() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        for (name, peer, sent, expected) in [
            ("an untrusted peer", "192.0.2.1", &[("x-forwarded-for", "1.1.1.1")][..], "192.0.2.1"),
            ("one hop", "10.0.0.1", &[("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            (
                "trusted hops are skipped",
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
            ),
            (
                "lines join",
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1")],
                "1.1.1.1",
            ),
            ("all trusted: the first", "10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (
                "garbage stops the walk",
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, nonsense, 10.0.0.2")],
                "10.0.0.2",
            ),
            ("an empty element too", "10.0.0.1", &[("x-forwarded-for", "1.1.1.1,")], "10.0.0.1"),
            ("with a port", "10.0.0.1", &[("x-forwarded-for", "1.1.1.1:8080")], "1.1.1.1"),
            (
                "IPv6",
                "10.0.0.1",
                &[("x-forwarded-for", "2001:db9::1, [2001:db8::2]:80, [2001:db8::3]")],
                "2001:db9::1",
            ),
            (
                "Forwarded",
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1;by=x, proto=http;For=\"[2001:db8::2]:80\"")],
                "1.1.1.1",
            ),
            ("a comma in quotes", "10.0.0.1", &[("forwarded", "for=1.1.1.1;by=\"a,b\"")], "1.1.1.1"),
            ("Forwarded, obfuscated", "10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden")], "10.0.0.1"),
            ("none", "10.0.0.1", &[], "10.0.0.1"),
        ] {
            let got = client_address(&headers(sent), peer.parse().unwrap(), &nets(&trusted));
            assert_eq!(got, expected.parse::<IpAddr>().unwrap(), "{name}");
        }
    }
}
