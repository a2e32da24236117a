//! A name server on loopback whose records a test changes. It is written from RFC 1035 alone, so that it shares no mistake
//! with what it is asked by.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// By its records.
    Well,
    /// With SERVFAIL.
    Fails,
    /// With SERVFAIL when it is asked for addresses of IPv6.
    FailsForIpv6,
    /// With NXDOMAIN.
    KnowsNobody,
    /// That the name is there, and has no such record.
    Empty,
    /// Not at all: its port is closed.
    Dead,
}

#[derive(Debug)]
struct Zone {
    mood: Mood,
    ttl: u32,
    /// By name and type: the data.
    records: Vec<(String, u16, Vec<u8>)>,
    questions: usize,
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    pub(crate) fn start(ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Zone { mood: Mood::Well, ttl, records: Vec::new(), questions: 0 };
        let zone = Arc::new(Mutex::new(zone));
        let known = Arc::clone(&zone);
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question) {
                let mut zone = known.lock().unwrap();
                zone.questions += 1;
                if zone.mood == Mood::Dead {
                    return;
                }
                let _ = socket.send_to(&zone.answer(&question[..length]), peer);
            }
        });
        Self { address, zone }
    }

    pub(crate) fn feels(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = mood;
    }

    /// How often it was asked.
    pub(crate) fn questions(&self) -> usize {
        self.zone.lock().unwrap().questions
    }

    /// Gives a name these addresses and no others.
    pub(crate) fn has_addresses(&self, name: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|address| match address.parse().unwrap() {
            IpAddr::V4(ip) => (name.to_owned(), A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (name.to_owned(), AAAA, ip.octets().to_vec()),
        });
        self.replace(name, records.collect());
    }

    /// Gives a name these services and no others: priority, weight, port and target.
    pub(crate) fn has_services(&self, name: &str, services: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let mut data: Vec<u8> = [priority, weight, port].iter().flat_map(|n| n.to_be_bytes()).collect();
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            }
            data.push(0);
            (name.to_owned(), SRV, data)
        };
        self.replace(name, services.iter().map(record).collect());
    }

    fn replace(&self, name: &str, records: Vec<(String, u16, Vec<u8>)>) {
        let mut zone = self.zone.lock().unwrap();
        zone.records.retain(|(known, ..)| known != name);
        zone.records.extend(records);
    }
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        // The name begins behind the header, in labels with their lengths.
        let (mut at, mut name) = (12, String::new());
        while question[at] != 0 {
            let label = &question[at + 1..at + 1 + usize::from(question[at])];
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(std::str::from_utf8(label).unwrap());
            at += 1 + label.len();
        }
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let asked = &question[12..at + 5];
        let is_asked =
            |(known, of, _): &&(String, u16, Vec<u8>)| name.eq_ignore_ascii_case(known) && *of == kind;
        let mut records: Vec<_> = self.records.iter().filter(is_asked).collect();
        // As servers do, they tell their records in turn.
        if !records.is_empty() {
            let first = self.questions % records.len();
            records.rotate_left(first);
        }
        let code = match self.mood {
            Mood::Fails => SERVER_FAILURE,
            Mood::FailsForIpv6 if kind == AAAA => SERVER_FAILURE,
            Mood::KnowsNobody => NO_SUCH_NAME,
            Mood::Well | Mood::FailsForIpv6 | Mood::Empty | Mood::Dead => 0,
        };
        if code != 0 || self.mood == Mood::Empty {
            records.clear();
        }
        let mut answer = question[..2].to_vec();
        // An answer, to who wanted recursion and gets it; one question, some answers and nothing else.
        answer.extend([0x81, 0x80 | code, 0, 1]);
        answer.extend((records.len() as u16).to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(asked);
        for (_, kind, data) in records {
            // The name is the one at offset 12; class IN.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1]);
            answer.extend(self.ttl.to_be_bytes());
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        answer
    }
}
