//! Nanoseconds a packet, by list size: BPF_PROG_TEST_RUN with random sources, above a program that only makes
//! the random source. `cargo xtask bench packet` runs it and says what the machine was.
#![allow(missing_docs)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use gateway_kernel::sandbox::{Program, Sandbox};
use gateway_kernel::{Error, ListKind, NewEntry};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Packets a measurement: long enough that whole nanoseconds are precise.
const REPEAT: u32 = 2_000_000;

/// One source in so many, less one, is noted: what the agent sets at a million packets a second.
const SOURCE_MASK: u32 = 1023;

struct Row {
    name: &'static str,
    v4: Vec<NewEntry>,
    v6: Vec<NewEntry>,
}

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    match run(quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(quick: bool) -> Result<(), Error> {
    let (rounds, repeat) = if quick { (3, REPEAT / 10) } else { (9, REPEAT) };
    println!("| deny list | IPv4, ns a packet | IPv6, ns a packet |");
    println!("|---|---|---|");
    for row in rows(quick) {
        let v4 = measure(&row.v4, &frame_v4(), rounds, repeat)?;
        let v6 = measure(&row.v6, &frame_v6(), rounds, repeat)?;
        println!("| {} | {v4} | {v6} |", row.name);
    }
    println!();
    println!(
        "Above the floor's time, medians (ranges) of {rounds} alternating rounds of {repeat} packets; random \
         prefixes, half /24 and half /32 (v6: /48 and /64). Sources are random, so a lookup misses unless all are denied."
    );
    Ok(())
}

fn rows(quick: bool) -> Vec<Row> {
    let random = |name, count| Row { name, v4: random_v4(count), v6: random_v6(count) };
    let halves =
        |prefixes: [&str; 2]| prefixes.iter().filter_map(|text| text.parse().ok()).map(entry).collect();
    let mut rows = vec![
        random("empty", 0),
        random("10 prefixes", 10),
        random("1,000 prefixes", 1000),
        random("100,000 prefixes", 100_000),
        Row {
            name: "every source denied",
            v4: halves(["0.0.0.0/1", "128.0.0.0/1"]),
            v6: halves(["2000::/4", "3000::/4"]),
        },
    ];
    if !quick {
        rows.insert(4, random("1,000,000 prefixes", 1_000_000));
    }
    rows
}

/// Median and range of what judging takes above the floor.
fn measure(entries: &[NewEntry], frame: &[u8], rounds: usize, repeat: u32) -> Result<String, Error> {
    let floor = Sandbox::load(Program::BenchFloor)?;
    let chain = Sandbox::load(Program::BenchGateway)?;
    chain.rules().add(ListKind::Deny, entries, &mut |_| {})?;
    let mut above = Vec::with_capacity(rounds);
    // As dense as the agent makes it at this rate.
    chain.rules().sample_sources(SOURCE_MASK)?;
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let base = floor.run(frame, repeat)?.mean.as_nanos() as i64;
        let judged = chain.run(frame, repeat)?.mean.as_nanos() as i64;
        if round > 0 {
            above.push(judged - base);
        }
    }
    above.sort_unstable();
    Ok(format!("{} ({}–{})", above[rounds / 2], above[0], above[rounds - 1]))
}

fn entry(prefix: IpNet) -> NewEntry {
    NewEntry { prefix, rule: "bench".to_owned(), ttl: None, shadow: false }
}

fn random_v4(count: u64) -> Vec<NewEntry> {
    let mut random = Random(7);
    (0..count)
        .filter_map(|number| {
            Ipv4Net::new(Ipv4Addr::from(random.next() as u32), if number % 2 == 0 { 24 } else { 32 }).ok()
        })
        .map(|net| entry(net.trunc().into()))
        .collect()
}

fn random_v6(count: u64) -> Vec<NewEntry> {
    let mut random = Random(11);
    (0..count)
        .filter_map(|number| {
            let high = random.next() & 0x1fff_ffff_ffff_ffff | 0x2000_0000_0000_0000;
            Ipv6Net::new(Ipv6Addr::from(u128::from(high) << 64), if number % 2 == 0 { 48 } else { 64 }).ok()
        })
        .map(|net| entry(net.trunc().into()))
        .collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same lists in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A TCP SYN of 60 bytes in Ethernet.
fn frame_v4() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[17] = 46;
    frame[22] = 64;
    frame[23] = 6;
    frame[46] = 0x50;
    frame
}

fn frame_v6() -> Vec<u8> {
    let mut frame = vec![0; 74];
    (frame[12], frame[13]) = (0x86, 0xdd);
    frame[14] = 0x60;
    frame[19] = 20;
    frame[20] = 6;
    frame[66] = 0x50;
    frame
}
