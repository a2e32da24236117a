//! `kernel.default: drop`: stories of what the host sends, what comes, and under which reason it is counted.
//! Every story runs on the host, over tables of this process, and through BPF_PROG_TEST_RUN.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::abi::{Flow, FlowKey, FlowTable, NEW_FLOWS_CAPACITY};
use gateway_common::flows::{Flows, remember};
use gateway_common::packet::{Address, Frame, Headers, parse};
use gateway_common::stages::{Judgement, Outcome, Stages, judge, judge_unlisted};
use gateway_common::verdict::{Reason, Verdict};
use gateway_kernel::sandbox::{Action, Program, Sandbox};
use gateway_kernel::{DefaultVerdict, ListKind, NewEntry};

use crate::frame::*;
use crate::packets::run;

const US: &str = "198.18.0.1";
const THEM: &str = "192.0.2.80";
const ROUTER: &str = "198.18.0.254";
const US6: &str = "2001:db8::1";
const THEM6: &str = "2001:db8:f::80";
const ROUTER6: &str = "fe80::1";

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

enum Step {
    /// The host sends this.
    Out(Vec<u8>),
    /// This comes, and is counted under this reason.
    In(Vec<u8>, Reason),
    /// So many seconds pass.
    Wait(u64),
    /// So many flows are new, and so many established.
    Flows(usize, usize),
}
use Reason::{DefaultDrop, DhcpReply, NeighbourDiscovery, NotIp, Reply, ReplyError};
use Step::{Flows as Table, In, Out, Wait};

/// An Ethernet frame with this packet.
fn between(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], ether_type(from), &packet(from, to, protocol, payload))
}

fn ether_type(address: &str) -> u16 {
    if address.contains(':') { 0x86dd } else { 0x0800 }
}

fn packet(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match to.parse().unwrap() {
        IpAddr::V4(to) => {
            let mut packet = ipv4(from, protocol, &[], 0, payload);
            packet[16..20].copy_from_slice(&to.octets());
            packet
        }
        IpAddr::V6(to) => {
            let mut packet = ipv6(from, protocol, payload);
            packet[24..40].copy_from_slice(&to.octets());
            packet
        }
    }
}

fn segment(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0; 8]);
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn datagram(from: u16, to: u16) -> Vec<u8> {
    let mut datagram = [from.to_be_bytes(), to.to_be_bytes()].concat();
    datagram.extend([0, 8, 0, 0]);
    datagram
}

fn icmp(kind: u8, identifier: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An ICMP error that quotes this much of a packet.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 4, 0, 0, 0, 0, 5, 0], quoted].concat()
}

fn hop_limit(mut frame: Vec<u8>, limit: u8) -> Vec<u8> {
    frame[14 + 7] = limit;
    frame
}

/// TCP from our port 40000 to their port 443, one way or the other, in either family.
fn ours(them: &str, flags: u8) -> Vec<u8> {
    between(us(them), them, TCP, &segment(40000, 443, flags))
}

fn theirs(them: &str, flags: u8) -> Vec<u8> {
    between(them, us(them), TCP, &segment(443, 40000, flags))
}

fn us(them: &str) -> &'static str {
    if them.contains(':') { US6 } else { US }
}

/// The steps that establish that connection.
fn established(them: &str) -> Vec<Step> {
    vec![
        Out(ours(them, SYN)),
        In(theirs(them, SYN | ACK), Reply),
        Table(1, 0),
        Out(ours(them, ACK)),
        Table(0, 1),
        In(theirs(them, ACK), Reply),
    ]
}

fn after(mut steps: Vec<Step>, more: Vec<Step>) -> Vec<Step> {
    steps.extend(more);
    steps
}

fn query(them: &str) -> Vec<u8> {
    between(us(them), them, UDP, &datagram(5353, 53))
}

fn answer(them: &str) -> Vec<u8> {
    between(them, us(them), UDP, &datagram(53, 5353))
}

#[rustfmt::skip]
fn stories() -> Vec<(String, Vec<Step>)> {
    let mut stories = Vec::new();
    for (them, icmp_protocol, ping, pong) in [(THEM, ICMP, 8, 0), (THEM6, ICMPV6, 128, 129)] {
        let mut story = |name: &str, steps| stories.push((format!("{name} ({them})"), steps));
        let come = |protocol, payload: &[u8]| between(them, us(them), protocol, payload);
        let go = |protocol, payload: &[u8]| between(us(them), them, protocol, payload);
        story("nobody asked", vec![
            In(theirs(them, SYN), DefaultDrop),
            In(theirs(them, ACK), DefaultDrop),
            In(theirs(them, SYN | ACK), DefaultDrop),
            In(theirs(them, RST), DefaultDrop),
            In(answer(them), DefaultDrop),
            In(come(icmp_protocol, &icmp(ping, 7)), DefaultDrop),
            In(come(icmp_protocol, &icmp(pong, 7)), DefaultDrop),
            In(come(47, &[]), DefaultDrop),
            Table(0, 0),
        ]);
        story("a connection", established(them));
        story("other ports and addresses than the connection's", after(established(them), vec![
            In(come(TCP, &segment(443, 40001, ACK)), DefaultDrop),
            In(come(TCP, &segment(444, 40000, ACK)), DefaultDrop),
            In(come(UDP, &datagram(443, 40000)), DefaultDrop),
            In(ours(them, ACK), DefaultDrop),
        ]));
        story("a connection older than the table", vec![
            In(theirs(them, ACK), DefaultDrop),
            Out(ours(them, ACK)),
            In(theirs(them, ACK), Reply),
            Out(ours(them, ACK)),
            Table(0, 1),
        ]);
        story("accepting a connection begins no flow", vec![
            Out(ours(them, SYN | ACK)),
            In(theirs(them, ACK), DefaultDrop),
            Table(0, 0),
        ]);
        story("refusing one begins no flow", vec![
            Out(ours(them, RST | ACK)),
            In(theirs(them, SYN), DefaultDrop),
            Table(0, 0),
        ]);
        story("a SYN from a remembered port is no answer", vec![
            Out(ours(them, ACK)),
            In(theirs(them, SYN), DefaultDrop),
        ]);
        story("a refused connection never is established", vec![
            Out(ours(them, SYN)),
            In(theirs(them, RST | ACK), Reply),
            Out(ours(them, ACK)),
            Table(1, 0),
            Out(ours(them, SYN)),
            Table(1, 0),
        ]);
        story("SYN without an answer", vec![
            Out(ours(them, SYN)),
            Wait(239),
            In(theirs(them, SYN | ACK), Reply),
            Wait(241),
            In(theirs(them, SYN | ACK), DefaultDrop),
        ]);
        story("an idle connection", after(established(them), vec![
            Wait(290),
            In(theirs(them, ACK), Reply),
        ]));
        story("closed by the host", after(established(them), vec![
            Out(ours(them, FIN | ACK)),
            Table(1, 0),
            In(theirs(them, FIN | ACK), Reply),
            Out(ours(them, ACK)),
            Table(1, 0),
            Wait(239),
            In(theirs(them, ACK), Reply),
            Wait(241),
            In(theirs(them, ACK), DefaultDrop),
        ]));
        story("closed by the other side first", after(established(them), vec![
            In(theirs(them, FIN | ACK), Reply),
            Out(ours(them, ACK)),
            Table(0, 1),
            Out(ours(them, FIN | ACK)),
            In(theirs(them, ACK), Reply),
            Table(1, 0),
        ]));
        story("aborted by the host", after(established(them), vec![
            Out(ours(them, RST)),
            Table(1, 0),
            Wait(241),
            In(theirs(them, ACK), DefaultDrop),
        ]));
        story("the port again, at once", after(established(them), vec![
            Out(ours(them, FIN | ACK)),
            Out(ours(them, SYN)),
            In(theirs(them, SYN | ACK), Reply),
            Out(ours(them, ACK)),
            Table(0, 1),
        ]));
        story("reset by the other side", after(established(them), vec![
            In(theirs(them, RST), Reply),
            Wait(239),
            In(theirs(them, ACK), Reply),
            Wait(2),
            In(theirs(them, ACK), DefaultDrop),
        ]));
        story("a reset that the host does not believe", after(established(them), vec![
            In(theirs(them, RST), Reply),
            Out(ours(them, ACK)),
            Wait(241),
            In(theirs(them, ACK), Reply),
        ]));
        story("a query", vec![
            Out(query(them)),
            In(answer(them), Reply),
            In(answer(them), Reply),
            Table(1, 0),
            Wait(119),
            In(answer(them), Reply),
            Wait(121),
            In(answer(them), DefaultDrop),
        ]);
        story("an exchange over UDP", vec![
            Out(query(them)),
            In(answer(them), Reply),
            Out(query(them)),
            Table(0, 1),
            Wait(299),
            In(answer(them), Reply),
            Wait(299),
            In(answer(them), Reply),
            Wait(301),
            In(answer(them), DefaultDrop),
            Out(query(them)),
            In(answer(them), Reply),
        ]);
        story("a ping", vec![
            Out(go(icmp_protocol, &icmp(ping, 7))),
            In(come(icmp_protocol, &icmp(pong, 8)), DefaultDrop),
            In(come(icmp_protocol, &icmp(ping, 7)), DefaultDrop),
            In(come(icmp_protocol, &icmp(pong, 7)), Reply),
            In(come(icmp_protocol, &icmp(pong, 7)[..4]), DefaultDrop),
            Wait(61),
            In(come(icmp_protocol, &icmp(pong, 7)), DefaultDrop),
        ]);
        story("answering a ping begins no flow", vec![
            Out(go(icmp_protocol, &icmp(pong, 7))),
            In(come(icmp_protocol, &icmp(pong, 7)), DefaultDrop),
            Table(0, 0),
        ]);
        story("through VLAN tags", vec![
            Out(ethernet(&[0x8100], ether_type(them), &packet(us(them), them, UDP, &datagram(5353, 53)))),
            In(ethernet(&[0x88a8, 0x8100], ether_type(them), &packet(them, us(them), UDP, &datagram(53, 5353))), Reply),
        ]);
    }
    stories.extend(errors().into_iter().chain(peculiar()).map(|(name, steps)| (name.to_owned(), steps)));
    stories
}

#[rustfmt::skip]
fn errors() -> Vec<(&'static str, Vec<Step>)> {
    let v4 = |kind, quoted: &[u8]| between(ROUTER, US, ICMP, &error(kind, quoted));
    let v6 = |kind, quoted: &[u8]| between(ROUTER6, US6, ICMPV6, &error(kind, quoted));
    let quoted = |frame: Vec<u8>| frame[14..].to_vec();
    let (tcp4, udp4, tcp6, udp6) = (quoted(ours(THEM, ACK)), quoted(query(THEM)), quoted(ours(THEM6, ACK)), quoted(query(THEM6)));
    let ping4 = packet(US, THEM, ICMP, &icmp(8, 7));
    let ping6 = packet(US6, THEM6, ICMPV6, &icmp(128, 7));
    let with_options = {
        let mut packet = ipv4(US, TCP, &[1; 12], 0, &segment(40000, 443, ACK));
        packet[16..20].copy_from_slice(&packet_destination(THEM));
        packet
    };
    let later = {
        let mut packet = tcp4.clone();
        packet[7] = 185;
        packet
    };
    let fragment6 = packet(US6, THEM6, 44, &[fragment_header(UDP, 0, true), datagram(5353, 53)].concat());
    let later6 = packet(US6, THEM6, 44, &[fragment_header(UDP, 90, true), datagram(5353, 53)].concat());
    vec![
        ("errors about a connection (v4)", after(established(THEM), vec![
            In(v4(3, &tcp4), ReplyError),
            In(v4(11, &tcp4), ReplyError),
            In(v4(12, &tcp4), ReplyError),
            In(v4(3, &tcp4[..28]), ReplyError),
            In(v4(3, &with_options), ReplyError),
            In(v4(5, &tcp4), DefaultDrop),
            In(v4(3, &later), DefaultDrop),
            In(v4(3, &tcp4[..20]), DefaultDrop),
            In(v4(3, &tcp4[..12]), DefaultDrop),
            In(v4(3, &[]), DefaultDrop),
            In(v4(3, &udp4), DefaultDrop),
            In(v4(3, &quoted(theirs(THEM, ACK))), DefaultDrop),
            In(between(ROUTER, "198.18.0.9", ICMP, &error(3, &tcp4)), DefaultDrop),
            In(v4(3, &packet("198.18.0.9", THEM, TCP, &segment(40000, 443, ACK))), DefaultDrop),
            Table(0, 1),
        ])),
        ("errors about a connection (v6)", after(established(THEM6), vec![
            In(v6(1, &tcp6), ReplyError),
            In(v6(2, &tcp6), ReplyError),
            In(v6(3, &tcp6[..48]), ReplyError),
            In(v6(4, &tcp6), ReplyError),
            In(v6(5, &tcp6), DefaultDrop),
            In(v6(2, &tcp6[..40]), DefaultDrop),
            In(v6(2, &udp6), DefaultDrop),
            In(v6(2, &quoted(theirs(THEM6, ACK))), DefaultDrop),
            In(between(ROUTER6, "2001:db8::9", ICMPV6, &error(2, &tcp6)), DefaultDrop),
            In(v6(2, &packet("2001:db8::9", THEM6, TCP, &segment(40000, 443, ACK))), DefaultDrop),
        ])),
        ("errors about a query and a ping", vec![
            Out(query(THEM)), Out(query(THEM6)),
            Out(between(US, THEM, ICMP, &icmp(8, 7))), Out(between(US6, THEM6, ICMPV6, &icmp(128, 7))),
            In(v4(3, &udp4), ReplyError),
            In(v6(1, &udp6), ReplyError),
            In(v4(11, &ping4), ReplyError),
            In(v6(3, &ping6), ReplyError),
            In(v6(2, &fragment6), ReplyError),
            In(v6(2, &later6), DefaultDrop),
            // An error answers nothing: the flows wait for their answers as before.
            Table(4, 0),
            Wait(121),
            In(v4(3, &udp4), DefaultDrop),
        ]),
        ("an error of v4 in v6's type, and the other way round", after(established(THEM), vec![
            In(v4(2, &tcp4), DefaultDrop),
            In(between(ROUTER, US, ICMPV6, &error(3, &tcp4)), DefaultDrop),
        ])),
    ]
}

fn packet_destination(address: &str) -> [u8; 4] {
    let IpAddr::V4(address) = address.parse().unwrap() else { panic!("{address}") };
    address.octets()
}

#[rustfmt::skip]
fn peculiar() -> Vec<(&'static str, Vec<Step>)> {
    let neighbour = |source: &str, kind, limit| hop_limit(between(source, US6, ICMPV6, &icmp(kind, 0)), limit);
    let with_fragment = |mut frame: Vec<u8>, fragment: u16| {
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame
    };
    let v4_fragment = |from, to, fragment, payload: &[u8]| with_fragment(between(from, to, UDP, payload), fragment);
    let through = |headers: &[u8], from, to, payload: &[u8]| {
        between(from, to, headers[0], &extensions(headers, UDP, payload))
    };
    vec![
        ("neighbour discovery", vec![
            In(neighbour(ROUTER6, 133, 255), NeighbourDiscovery),
            In(neighbour(ROUTER6, 134, 255), NeighbourDiscovery),
            In(neighbour(THEM6, 135, 255), NeighbourDiscovery),
            In(neighbour(THEM6, 136, 255), NeighbourDiscovery),
            In(neighbour(ROUTER6, 137, 255), NeighbourDiscovery),
            In(neighbour(ROUTER6, 135, 254), DefaultDrop),
            In(neighbour(ROUTER6, 138, 255), DefaultDrop),
            In(neighbour(ROUTER6, 130, 1), NeighbourDiscovery),
            In(neighbour("febf::1", 130, 1), NeighbourDiscovery),
            In(neighbour("fec0::1", 130, 1), DefaultDrop),
            In(neighbour(THEM6, 130, 255), DefaultDrop),
            In(neighbour(ROUTER6, 131, 1), DefaultDrop),
            In(between(ROUTER, US, ICMPV6, &icmp(135, 0)), DefaultDrop),
        ]),
        ("DHCP", vec![
            In(between(ROUTER, US, UDP, &datagram(67, 68)), DhcpReply),
            In(between(ROUTER, US, UDP, &datagram(68, 67)), DefaultDrop),
            In(between(ROUTER, US, UDP, &datagram(547, 546)), DefaultDrop),
            In(between(ROUTER, US, TCP, &segment(67, 68, ACK)), DefaultDrop),
            In(between(ROUTER6, US6, UDP, &datagram(547, 546)), DhcpReply),
            In(between(ROUTER6, US6, UDP, &datagram(546, 547)), DefaultDrop),
            In(between(ROUTER6, US6, UDP, &datagram(67, 68)), DefaultDrop),
        ]),
        ("an answer in fragments", vec![
            Out(query(THEM)),
            In(v4_fragment(THEM, US, 0x2000, &datagram(53, 5353)), Reply),
            In(v4_fragment(THEM, US, 185, &datagram(53, 5353)), DefaultDrop),
        ]),
        ("a query in fragments", vec![
            Out(v4_fragment(US, THEM, 185, &datagram(5353, 53))),
            Table(0, 0),
            In(answer(THEM), DefaultDrop),
            Out(v4_fragment(US, THEM, 0x2000, &datagram(5353, 53))),
            In(answer(THEM), Reply),
        ]),
        ("a later fragment that looks like an echo reply", vec![
            Out(between(US, THEM, ICMP, &icmp(8, 7))),
            In(with_fragment(between(THEM, US, ICMP, &icmp(0, 7)), 185), DefaultDrop),
            In(with_fragment(between(THEM, US, ICMP, &error(3, &packet(US, THEM, ICMP, &icmp(8, 7)))), 185), DefaultDrop),
        ]),
        ("an answer behind extension headers", vec![
            Out(through(&[0, 60], US6, THEM6, &datagram(5353, 53))),
            In(through(&[60], THEM6, US6, &datagram(53, 5353)), Reply),
        ]),
        ("what has no flows", vec![
            Out(between(US, THEM, 47, &[])),
            In(between(THEM, US, 47, &[]), DefaultDrop),
            Out(ethernet(&[], 0x0806, &[0; 28])),
            In(ethernet(&[], 0x0806, &[0; 28]), NotIp),
            Out(vec![0; 14]),
            Table(0, 0),
        ]),
    ]
}

/// Tables of this process, and a clock that the test moves.
struct Host {
    now_ns: Cell<u64>,
    flows: RefCell<HashMap<(FlowTable, FlowKey), Flow>>,
}

impl Host {
    fn new() -> Self {
        Self { now_ns: Cell::new(1_000_000_000_000), flows: RefCell::default() }
    }

    fn send(&self, frame: &[u8]) {
        let mut headers = Headers::BLANK;
        if parse(&frame, &mut headers).is_ok() {
            remember(&frame, &headers, self);
        }
    }

    fn judge(&self, frame: &[u8]) -> Reason {
        judge(&frame, &mut { Headers::BLANK }, &mut &*self).reason
    }

    fn wait(&self, seconds: u64) {
        self.now_ns.set(self.now_ns.get() + seconds * 1_000_000_000);
    }
}

impl Flows for Host {
    type Row = (FlowTable, FlowKey);

    fn find(&self, table: FlowTable, key: &FlowKey) -> Option<Self::Row> {
        self.flows.borrow().contains_key(&(table, *key)).then_some((table, *key))
    }

    fn read(&self, row: &Self::Row) -> Flow {
        self.flows.borrow()[row]
    }

    fn write(&self, row: &Self::Row, flow: Flow) {
        self.flows.borrow_mut().insert(*row, flow);
    }

    fn insert(&self, table: FlowTable, key: &FlowKey, flow: Flow) {
        self.flows.borrow_mut().insert((table, *key), flow);
    }

    fn remove(&self, table: FlowTable, key: &FlowKey) {
        self.flows.borrow_mut().remove(&(table, *key));
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
}

/// Lists without an entry, and a default that drops.
impl Stages for &Host {
    fn judge_source(&mut self, _source: &Address) -> Outcome {
        Outcome::Next
    }

    fn judge_default(&mut self, frame: &impl Frame) -> Outcome {
        Outcome::Decided(Judgement::without_rule(judge_unlisted(frame, *self)))
    }
}

#[test]
fn every_story_goes_as_told_on_the_host() {
    for (name, steps) in stories() {
        let host = Host::new();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Out(frame) => host.send(frame),
                In(frame, expected) => {
                    assert_eq!(host.judge(frame), *expected, "{name}, step {number}");
                }
                Wait(seconds) => host.wait(*seconds),
                Table(new, established) => {
                    let flows = host.flows.borrow();
                    let count = |of| flows.keys().filter(|(table, _)| *table == of).count();
                    let counted = (count(FlowTable::New), count(FlowTable::Established));
                    assert_eq!(counted, (*new, *established), "{name}, step {number}");
                }
            }
        }
    }
}

fn sandbox() -> Option<Sandbox> {
    crate::sandbox_with(Program::Gateway, DefaultVerdict::Drop)
}

#[test]
fn every_story_goes_as_told_in_the_kernel() {
    let Some(sandbox) = sandbox() else { return };
    for (name, steps) in stories() {
        sandbox.forget_flows().unwrap();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Out(frame) => send(&sandbox, frame),
                In(frame, expected) => {
                    // What `explain` and the like would say of it, before it changes a flow.
                    let told = sandbox.rules().judge(frame).unwrap().reason;
                    assert_eq!(told, *expected, "{name}, step {number}, as told");
                    let wanted =
                        if expected.verdict() == Verdict::Pass { Action::Pass } else { Action::Drop };
                    let found = run(&sandbox, frame);
                    assert_eq!(found, (wanted, expected.name().to_owned()), "{name}, step {number}");
                }
                Wait(seconds) => sandbox.age_flows(Duration::from_secs(*seconds)).unwrap(),
                Table(new, established) => {
                    let count = |table| sandbox.flows(table).unwrap().len();
                    let counted = (count(FlowTable::New), count(FlowTable::Established));
                    assert_eq!(counted, (*new, *established), "{name}, step {number}");
                }
            }
        }
    }
}

/// Whatever is sent goes to the next program.
fn send(sandbox: &Sandbox, frame: &[u8]) {
    const TCX_NEXT: i32 = -1;
    assert_eq!(sandbox.send(frame, 1).unwrap().0, TCX_NEXT, "{frame:02x?}");
}

/// Two hours and more, which few machines have been up when a test runs.
#[test]
fn an_idle_connection_is_remembered_for_days() {
    for (name, days, expected) in [("four days", 4, Reply), ("five days", 5, DefaultDrop)] {
        let host = Host::new();
        host.send(&ours(THEM, SYN));
        assert_eq!(host.judge(&theirs(THEM, SYN | ACK)), Reply);
        host.send(&ours(THEM, ACK));
        host.wait(days * 24 * 3600);
        assert_eq!(host.judge(&theirs(THEM, ACK)), expected, "{name}");
    }
}

#[test]
fn a_burst_of_new_flows_evicts_no_established_one() {
    let Some(sandbox) = sandbox() else { return };
    for step in established(THEM).into_iter().chain(established(THEM6)) {
        match step {
            Out(frame) => send(&sandbox, &frame),
            In(frame, _) => assert_eq!(run(&sandbox, &frame).1, "reply"),
            Wait(_) | Table(..) => {}
        }
    }
    let mut frame = ours(THEM, SYN);
    for number in 0..3 * NEW_FLOWS_CAPACITY {
        // Another address each time: more than there are ports.
        frame[30..34].copy_from_slice(&(0xc633_0000 + number).to_be_bytes());
        send(&sandbox, &frame);
    }
    let new = sandbox.flows(FlowTable::New).unwrap().len();
    assert!((NEW_FLOWS_CAPACITY as usize / 2..=NEW_FLOWS_CAPACITY as usize).contains(&new), "{new}");
    assert_eq!(sandbox.flows(FlowTable::Established).unwrap().len(), 2);
    for them in [THEM, THEM6] {
        assert_eq!(run(&sandbox, &theirs(them, ACK)).1, "reply");
    }
    // The newest of them are there.
    let back = between("198.53.255.255", US, TCP, &segment(443, 40000, SYN | ACK));
    assert_eq!(run(&sandbox, &back).1, "reply");
}

#[test]
fn a_busy_flow_is_written_once_a_second() {
    let Some(sandbox) = sandbox() else { return };
    for step in established(THEM) {
        match step {
            Out(frame) => send(&sandbox, &frame),
            In(frame, _) => assert_eq!(run(&sandbox, &frame).1, "reply"),
            Wait(_) | Table(..) => {}
        }
    }
    let flows = || sandbox.flows(FlowTable::Established).unwrap();
    let before = flows();
    sandbox.send(&ours(THEM, ACK), 1000).unwrap();
    sandbox.run(&theirs(THEM, ACK), 1000).unwrap();
    assert_eq!(flows(), before, "within the second");
    sandbox.age_flows(Duration::from_secs(1)).unwrap();
    sandbox.run(&theirs(THEM, ACK), 1).unwrap();
    assert!(flows()[0].1.last_ns >= before[0].1.last_ns, "a second later");
}

#[test]
fn lists_come_before_the_default() {
    let Some(sandbox) = sandbox() else { return };
    let entry = |prefix: &str, shadow| NewEntry {
        prefix: prefix.parse().unwrap(),
        rule: "test".to_owned(),
        ttl: None,
        shadow,
    };
    let add = |list, entries: &[NewEntry]| {
        sandbox.rules().add(list, entries, &mut |_| {}).unwrap();
    };
    add(ListKind::Allow, &[entry("192.0.2.0/26", false), entry("192.0.2.128/26", true)]);
    add(ListKind::Deny, &[entry("192.0.2.80/32", false), entry("192.0.2.96/32", true)]);
    send(&sandbox, &ours(THEM, SYN));
    send(&sandbox, &ours("192.0.2.96", SYN));
    let syn = |them| theirs(them, SYN);
    for (name, frame, reason) in [
        ("allowed", syn("192.0.2.1"), "allow_list"),
        ("allowed in shadow mode", syn("192.0.2.129"), "default_drop"),
        ("denied, and asked for", theirs(THEM, SYN | ACK), "deny_list"),
        ("denied in shadow mode, and asked for", theirs("192.0.2.96", SYN | ACK), "reply"),
        ("denied in shadow mode", syn("192.0.2.96"), "default_drop"),
        ("not named", syn("192.0.2.200"), "default_drop"),
    ] {
        assert_eq!(run(&sandbox, &frame).1, reason, "{name}");
    }
    let told = sandbox.rules().explain("192.0.2.200".parse().unwrap(), None).unwrap();
    assert_eq!((told.verdict.as_str(), told.reason.as_str()), ("drop", "default_drop"));
    let last = told.stages.last().unwrap();
    assert_eq!((last.stage.as_str(), last.outcome.as_str()), ("default", "drop"));
}

/// Starting an agent takes as long as the verifier does.
#[test]
fn the_verifier_walks_few_instructions() {
    let Some(sandbox) = sandbox() else { return };
    let verified = sandbox.verified_instructions();
    println!("{verified:?}");
    for (program, limit) in [("gateway_xdp", 250_000), ("gateway_egress", 20_000)] {
        let walked = verified.iter().find(|(name, _)| name == program).unwrap().1;
        assert!(walked < limit, "{program}: {walked}");
    }
}
