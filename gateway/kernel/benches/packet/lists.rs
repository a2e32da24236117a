//! Nanoseconds a packet by list size, beside an LPM trie of the same prefixes, both above a program that only
//! makes the random source; and of ours what the list adds, for a trie's program does nothing but look up. A test run repeats one frame, and without new sources the table's hot lines would
//! stay in the cache and every list look alike.

use std::time::Instant;

use gateway_kernel::Owner;
use gateway_kernel::sandbox::{Action, Program as Ours, Sandbox};
use ipnet::IpNet;

use crate::bpf::{self, LpmTrie};
use crate::prefixes::{Family, RULE, list, lpm_keys};
use crate::table::{Spread, markdown};
use crate::{Outcome, Scale, program};

struct Row {
    family: Family,
    name: &'static str,
    prefixes: Vec<IpNet>,
    hit: bool,
}

/// One side of a row once its list is in.
struct Filled<P> {
    program: P,
    seconds: f64,
    bytes: u64,
}

pub(crate) fn report(scale: &Scale) -> Outcome<String> {
    let mut rows = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (name, count) in sizes(family, scale.quick) {
            rows.push(measure(&Row { family, name, prefixes: family.random(count), hit: false }, scale)?);
        }
        for (name, count) in hits(family, scale.quick) {
            let prefixes = [family.random(count), family.everything()].concat();
            rows.push(measure(&Row { family, name, prefixes, hit: true }, scale)?);
        }
    }
    let header = [
        "deny list",
        "gateway, ns",
        "LPM trie, ns",
        "trie / gateway",
        "of the gateway's the list, ns",
        "trie / list",
        "gateway filled in, s",
        "gateway's maps, MiB",
        "trie filled in, s",
        "tries, MiB",
    ];
    Ok(format!(
        "{}\nNanoseconds a packet above the floor's, medians (least–most) of {} alternating rounds of {} packets \
         with random sources. No source is in a network of the list, but where every source is denied; there the rule \
         is counted. Half of the prefixes are /24 and half /32 (IPv6: /48 and /64). The trie's program looks up and \
         does nothing else; the gateway's parses, judges and counts. What the list adds is what the gateway takes \
         above itself with an empty one, of the same rounds. Memory is what the kernel says of all maps made since the program was \
         loaded, so nobody else may be loading any; of a trie it counts the prefixes, not the nodes between them.\n",
        markdown(&header, &rows),
        scale.rounds,
        scale.repeat
    ))
}

fn sizes(family: Family, quick: bool) -> Vec<(&'static str, usize)> {
    let mut sizes = vec![
        ("empty", 0),
        ("10 prefixes", 10),
        ("1,000 prefixes", 1000),
        ("100,000 prefixes", 100_000),
        ("1,000,000 prefixes", 1_000_000),
        ("4,000,000 prefixes", 4_000_000),
    ];
    sizes.truncate(match (family, quick) {
        (_, true) => 4,
        (Family::V4, false) => 6,
        (Family::V6, false) => 5,
    });
    sizes
}

/// The time is limited, and one family shows what a long list does to a hit.
fn hits(family: Family, quick: bool) -> Vec<(&'static str, usize)> {
    let mut hits = vec![("every source denied", 0)];
    if family == Family::V4 && !quick {
        hits.push(("the same in 1,000,000 prefixes", 1_000_000));
    }
    hits
}

fn measure(row: &Row, scale: &Scale) -> Outcome<Vec<String>> {
    let name = format!("{:?}: {}", row.family, row.name);
    eprintln!("{name}");
    let frame = row.family.frame();
    let floor = Sandbox::load(Ours::BenchFloor)?;
    let idle = ours(&[])?;
    let ours = ours(&row.prefixes)?;
    let trie = trie(row)?;
    let (mut gateway, mut lpm, mut list) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..=scale.rounds {
        let base = floor.run(&frame, scale.repeat)?.mean.as_nanos() as f64;
        let unlisted = idle.program.run(&frame, scale.repeat)?.mean.as_nanos() as f64;
        let judged = ours.program.run(&frame, scale.repeat)?;
        let looked_up = trie.program.run(&frame, scale.repeat)?;
        let hit = (judged.action == Action::Drop, looked_up.action == program::DROP);
        if row.hit && hit != (true, true) {
            return Err(format!("{name}: (gateway, trie) dropped: {hit:?}, and both should have").into());
        }
        if round > 0 {
            let [judged, looked_up] = [judged.mean, looked_up.mean].map(|mean| mean.as_nanos() as f64);
            gateway.push(judged - base);
            lpm.push(looked_up - base);
            list.push(judged - unlisted);
        }
    }
    if row.hit {
        let counted = u64::from(scale.repeat) * (scale.rounds as u64 + 1);
        check_counted(&ours.program, counted)?;
    }
    // A nanosecond is the least that the kernel's figures can tell from nothing.
    let ratio = |to: &[f64]| -> Vec<f64> {
        lpm.iter().zip(to).map(|(trie, ours)| trie.max(1.0) / ours.max(1.0)).collect()
    };
    let show =
        |figures: &[f64], digits| Spread::of(figures).map_or_else(|| "–".to_owned(), |it| it.show(digits));
    let filled =
        |seconds: f64| if row.prefixes.len() < 1000 { "–".to_owned() } else { format!("{seconds:.2}") };
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let family = if row.family == Family::V4 { "IPv4" } else { "IPv6" };
    Ok(vec![
        format!("{family}, {}", row.name),
        show(&gateway, 0),
        show(&lpm, 0),
        show(&ratio(&gateway), 1),
        if row.prefixes.is_empty() { "–".to_owned() } else { show(&list, 0) },
        if row.prefixes.is_empty() { "–".to_owned() } else { show(&ratio(&list), 1) },
        filled(ours.seconds),
        mib(ours.bytes),
        filled(trie.seconds),
        mib(trie.bytes),
    ])
}

fn ours(prefixes: &[IpNet]) -> Outcome<Filled<Sandbox>> {
    let list = list(prefixes);
    let before = bpf::newest_map();
    let program = Sandbox::load(Ours::BenchGateway)?;
    let began = Instant::now();
    // As an agent sets it for a busy host; without one every packet that passes is noted.
    program.rules().sample_sources(1023)?;
    program.rules().replace(Owner::Operator, &list, &mut |_| {})?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Filled { program, seconds, bytes: bpf::memory_of_maps_after(before)? })
}

fn trie(row: &Row) -> Outcome<Filled<bpf::Program>> {
    let keys = lpm_keys(&row.prefixes);
    let capacity = row.prefixes.len().max(1) as u32;
    let before = bpf::newest_map();
    let (v4, v6) = (LpmTrie::new(4, capacity)?, LpmTrie::new(16, capacity)?);
    let program = program::lpm(&v4, &v6)?;
    let began = Instant::now();
    match row.family {
        Family::V4 => v4.fill(&keys)?,
        Family::V6 => v6.fill(&keys)?,
    }
    let seconds = began.elapsed().as_secs_f64();
    // The program keeps the tries.
    Ok(Filled { program, seconds, bytes: bpf::memory_of_maps_after(before)? })
}

/// A hit that is not counted would be cheaper than what runs.
fn check_counted(sandbox: &Sandbox, expected: u64) -> Outcome<()> {
    let rules = sandbox.rules().counters()?.rules;
    let counted: u64 = rules.iter().filter(|rule| rule.rule == RULE).map(|rule| rule.count.packets).sum();
    if counted == expected {
        Ok(())
    } else {
        Err(format!("the rule counted {counted} of {expected} packets").into())
    }
}
