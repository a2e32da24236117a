//! Databases that the tests write themselves, in each layout, and damaged ones.

use proptest::prelude::*;

use super::*;

/// A value of a record, as far as records need them.
#[derive(Debug, Clone)]
enum Value {
    Text(&'static str),
    Short(u16),
    Number(u32),
    Long(u64),
    Map(Vec<(&'static str, Value)>),
    List(Vec<Value>),
}

use Value::{List, Long, Map, Number, Short, Text};

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Text(text) => {
                control(out, 2, text.len());
                out.extend(text.as_bytes());
            }
            Short(number) => {
                control(out, 5, 2);
                out.extend(number.to_be_bytes());
            }
            Number(number) => {
                control(out, 6, 4);
                out.extend(number.to_be_bytes());
            }
            Long(number) => {
                control(out, 9, 8);
                out.extend(number.to_be_bytes());
            }
            Map(members) => {
                control(out, 7, members.len());
                for (name, value) in members {
                    Text(name).write(out);
                    value.write(out);
                }
            }
            List(values) => {
                control(out, 11, values.len());
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

/// Types above 7 take a second byte; sizes above 28 take one, too.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (first, more) = if size < 29 { (size as u8, None) } else { (29, Some((size - 29) as u8)) };
    if kind > 7 {
        out.extend([first, kind - 7]);
    } else {
        out.push(kind << 5 | first);
    }
    out.extend(more);
}

/// What a database is made of.
#[derive(Debug, Clone)]
struct Database {
    kind: &'static str,
    version: u16,
    ip_version: u16,
    record_bits: u16,
    networks: Vec<(&'static str, Value)>,
    /// IPv6 networks below which the IPv4 tree, ::/96, is found once more.
    aliases: Vec<&'static str>,
}

impl Database {
    fn of(kind: &'static str, networks: Vec<(&'static str, Value)>) -> Self {
        Database { kind, version: 2, ip_version: 6, record_bits: 28, networks, aliases: Vec::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tree = Tree { nodes: vec![[Place::Nothing; 2]] };
        let mut data = Vec::new();
        for (network, record) in &self.networks {
            let (bits, length) = self.key(network);
            tree.put(bits, length, Place::Record(data.len()));
            record.write(&mut data);
        }
        if !self.aliases.is_empty() {
            let v4 = tree.node(0, 96);
            for alias in &self.aliases {
                let (bits, length) = self.key(alias);
                tree.put(bits, length, Place::Node(v4));
            }
        }
        let mut out = tree.bytes(self.record_bits);
        out.extend([0; 16]);
        out.extend(data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        self.metadata(tree.nodes.len()).write(&mut out);
        out
    }

    fn metadata(&self, nodes: usize) -> Value {
        Map(vec![
            ("binary_format_major_version", Short(self.version)),
            ("binary_format_minor_version", Short(0)),
            ("build_epoch", Long(1_732_492_501)),
            ("database_type", Text(self.kind)),
            ("description", Map(vec![("en", Text("a test"))])),
            ("ip_version", Short(self.ip_version)),
            ("languages", List(vec![Text("en")])),
            ("node_count", Number(nodes as u32)),
            ("record_size", Short(self.record_bits)),
        ])
    }

    /// The bits of a network from the top, and how many of them count.
    fn key(&self, network: &str) -> (u128, u8) {
        match (network.parse().expect("a network"), self.ip_version) {
            (IpNet::V4(v4), 4) => (u128::from(v4.addr().to_bits()) << 96, v4.prefix_len()),
            (IpNet::V4(v4), _) => (v4.addr().to_bits().into(), v4.prefix_len() + 96),
            (IpNet::V6(v6), _) => (v6.addr().to_bits(), v6.prefix_len()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Nothing,
    Node(usize),
    Record(usize),
}

struct Tree {
    nodes: Vec<[Place; 2]>,
}

impl Tree {
    fn put(&mut self, bits: u128, length: u8, place: Place) {
        let parent = self.node(bits, length - 1);
        self.nodes[parent][side(bits, length - 1)] = place;
    }

    /// The node at a depth, made if it is not there.
    fn node(&mut self, bits: u128, depth: u8) -> usize {
        let mut at = 0;
        for bit in 0..depth {
            at = match self.nodes[at][side(bits, bit)] {
                Place::Node(node) => node,
                // What a record covered, both halves of it cover.
                above => {
                    self.nodes.push([above; 2]);
                    let node = self.nodes.len() - 1;
                    self.nodes[at][side(bits, bit)] = Place::Node(node);
                    node
                }
            };
        }
        at
    }

    fn bytes(&self, record_bits: u16) -> Vec<u8> {
        let mut out = Vec::new();
        for node in &self.nodes {
            let [left, right] = node.map(|place| match place {
                Place::Nothing => self.nodes.len() as u32,
                Place::Node(node) => node as u32,
                Place::Record(offset) => (self.nodes.len() + 16 + offset) as u32,
            });
            match record_bits {
                24 => {
                    out.extend(&left.to_be_bytes()[1..]);
                    out.extend(&right.to_be_bytes()[1..]);
                }
                28 => {
                    out.extend(&left.to_be_bytes()[1..]);
                    out.push((left >> 20) as u8 & 0xf0 | (right >> 24) as u8);
                    out.extend(&right.to_be_bytes()[1..]);
                }
                _ => {
                    out.extend(left.to_be_bytes());
                    out.extend(right.to_be_bytes());
                }
            }
        }
        out
    }
}

fn side(bits: u128, depth: u8) -> usize {
    (bits >> (127 - depth) & 1) as usize
}

fn maxmind(code: &'static str) -> Value {
    let names = Map(vec![("en", Text("somewhere"))]);
    Map(vec![
        ("continent", Map(vec![("code", Text("EU"))])),
        ("country", Map(vec![("geoname_id", Number(1)), ("iso_code", Text(code)), ("names", names)])),
        ("registered_country", Map(vec![("iso_code", Text("US"))])),
    ])
}

fn countries() -> Database {
    let registered = Map(vec![("registered_country", Map(vec![("iso_code", Text("SE"))]))]);
    Database::of(
        "GeoLite2-Country",
        vec![
            ("192.0.2.0/25", maxmind("NL")),
            ("192.0.2.128/25", maxmind("NL")),
            ("198.51.100.0/24", maxmind("DE")),
            ("203.0.113.0/24", registered),
            ("2001:db8::/32", maxmind("NL")),
        ],
    )
}

fn operators() -> Database {
    let asn = |number| {
        Map(vec![
            ("autonomous_system_number", Number(number)),
            ("autonomous_system_organization", Text("Example")),
        ])
    };
    Database::of(
        "GeoLite2-ASN",
        vec![
            ("192.0.2.0/24", asn(64496)),
            ("198.51.100.0/24", Map(vec![("asn", Short(64497))])),
            ("2001:db8::/32", asn(64496)),
        ],
    )
}

fn ipinfo() -> Database {
    let lite = |code, asn| {
        Map(vec![("asn", Text(asn)), ("country", Text("Netherlands")), ("country_code", Text(code))])
    };
    let short = |code, asn| Map(vec![("asn", Text(asn)), ("country", Text(code))]);
    Database::of(
        "ipinfo standard_country_asn.mmdb",
        vec![
            ("192.0.2.0/24", lite("NL", "AS64496")),
            ("198.51.100.0/24", short("NL", "AS64497")),
            ("203.0.113.0/24", short("DE", "AS64498")),
        ],
    )
}

/// What a selection gives, in one string.
fn selected(bytes: &[u8], codes: &[&str], asns: &[u32]) -> String {
    let codes: Vec<_> = codes.iter().map(|&code| code.to_owned()).collect();
    match select(bytes, &codes, asns) {
        Ok(networks) => networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" "),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn networks_are_selected() {
    let v4_only = |mut database: Database| {
        database.ip_version = 4;
        database.networks.retain(|(network, _)| !network.contains(':'));
        database
    };
    let aliased = |mut database: Database| {
        database.aliases = vec!["2002::/16", "2001::/32", "::ffff:0:0/96"];
        database
    };
    let above = Database::of("GeoLite2-Country", vec![("::/64", maxmind("NL"))]);
    let mapped =
        Database::of("x", vec![("::ffff:192.0.2.0/120", maxmind("NL")), ("2001:db8::/32", maxmind("NL"))]);
    type Row<'a> = (&'a str, Database, &'a [&'a str], &'a [u32], &'a str);
    let table: &[Row<'_>] = &[
        ("country", countries(), &["NL"], &[], "192.0.2.0/24 2001:db8::/32"),
        ("countries", countries(), &["de", "nl"], &[], "192.0.2.0/24 198.51.100.0/24 2001:db8::/32"),
        ("registered only", countries(), &["SE"], &[], "203.0.113.0/24"),
        ("registered elsewhere", countries(), &["US"], &[], ""),
        ("nowhere", countries(), &["FR"], &[], ""),
        ("nothing asked", countries(), &[], &[], ""),
        ("IPv4 only", v4_only(countries()), &["NL"], &[], "192.0.2.0/24"),
        ("repeated", aliased(countries()), &["NL"], &[], "192.0.2.0/24 2001:db8::/32"),
        ("above the IPv4 tree", above, &["NL"], &[], "0.0.0.0/0 ::/64"),
        ("mapped only", mapped, &["NL"], &[], "192.0.2.0/24 2001:db8::/32"),
        ("AS", operators(), &[], &[64496], "192.0.2.0/24 2001:db8::/32"),
        ("two of them", operators(), &[], &[64497, 64496], "192.0.2.0/24 198.51.100.0/24 2001:db8::/32"),
        ("IPinfo's countries", ipinfo(), &["NL"], &[], "192.0.2.0/24 198.51.100.0/24"),
        ("either", ipinfo(), &["DE"], &[64496], "192.0.2.0/24 203.0.113.0/24"),
        (
            "no countries",
            operators(),
            &["NL"],
            &[64496],
            "! a database of the kind GeoLite2-ASN does not say which country a network is in",
        ),
        (
            "no operators",
            countries(),
            &[],
            &[64496],
            "! a database of the kind GeoLite2-Country does not say which AS a network belongs to",
        ),
        (
            "a name",
            countries(),
            &["Germany"],
            &[],
            "! Germany is not a country; write the two letters of ISO 3166, such as NL",
        ),
    ];
    for (name, database, codes, asns, expected) in table {
        for record_bits in [24, 28, 32] {
            let bytes = Database { record_bits, ..database.clone() }.bytes();
            assert_eq!(selected(&bytes, codes, asns), *expected, "{name}, {record_bits} bits");
        }
    }
}

#[test]
fn what_is_damaged_is_said() {
    let odd = Map(vec![("country", List(vec![Text("NL")]))]);
    let twisted = || {
        // Each node leads to the next one twice, so that there are 2^100 ways to the records.
        let mut bytes = countries().bytes();
        for node in 0..100u32 {
            let next = (node + 1).to_be_bytes();
            let at = node as usize * 7;
            bytes[at..at + 3].copy_from_slice(&next[1..]);
            bytes[at + 3] = 0;
            bytes[at + 4..at + 7].copy_from_slice(&next[1..]);
        }
        bytes
    };
    let cut = |count| countries().bytes()[count..].to_vec();
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("empty", Vec::new(), "this is no MaxMind database that can be read, or a damaged one"),
        ("rubbish", vec![0xff; 5000], "this is no MaxMind database"),
        ("a text", b"192.0.2.1\n".to_vec(), "this is no MaxMind database"),
        ("without its front", cut(200), "invalid location"),
        ("its end alone", cut(countries().bytes().len() - 280), "search tree extends"),
        (
            "another version",
            Database { version: 3, ..countries() }.bytes(),
            "version - Expected: 2 Actual: 3",
        ),
        ("another IP", Database { ip_version: 5, ..countries() }.bytes(), "ip_version - Expected: 4 or 6"),
        ("an odd country", Database::of("x", vec![("192.0.2.0/24", odd)]).bytes(), "country"),
        ("in circles", twisted(), "its tree does not end"),
    ];
    for (name, bytes, fragment) in table {
        let got = selected(bytes, &["NL"], &[]);
        assert!(got.starts_with("! ") && got.contains(fragment), "{name}: {got}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = select(&bytes, &["NL".to_owned()], &[1]);
    }

    /// A valid database with some bytes changed or its front cut off is read, or refused, in bounded time.
    #[test]
    fn no_damage_panics(
        which in 0..3usize,
        record in 0..3usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let database = [countries(), operators(), ipinfo()][which].clone();
        let mut bytes = Database { record_bits: [24, 28, 32][record], ..database }.bytes();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = select(&bytes, &["NL".to_owned()], &[64496]);
    }
}
