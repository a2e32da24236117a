//! Packets dropped a second, through a wire: the gateway attached natively beside nftables at its earliest
//! hook, with the same prefixes. A flood of live frames goes out of one end of a veth pair, and the other end
//! judges them in a kernel thread on a processor of its own.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gateway_kernel::sandbox::{Program as Ours, Sandbox};
use gateway_kernel::{Attach, Owner, Plan, Protection, Rules, detach};
use ipnet::{IpNet, Ipv4Net};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bpf::Program;
use crate::network::{Namespace, Wire};
use crate::prefixes::{RULE, cover, frame_v4, list};
use crate::table::{Spread, markdown};
use crate::{Outcome, Scale, command, program};

/// The benchmarking network of RFC 2544, 131,072 addresses: all of them are sources, and all are denied.
const SOURCES: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);
const PREFIXES: u32 = 100_000;
const SENDER_CPU: usize = 0;
const RECEIVER_CPU: usize = 1;
/// Frames of one call while flooding: short enough to end a round in time.
const BURST: u32 = 1 << 17;
/// Frames of one call of which the wire certainly holds many: its ring has room for 256.
const GENTLE: u32 = 16;
/// How many of those are counted one by one before anything is measured.
const GENTLE_CALLS: u32 = 200;
/// How long the receiver needs to empty the ring.
const SETTLE: Duration = Duration::from_millis(20);
/// How often it is given that long before a frame that was not counted is a mistake.
const SETTLE_TRIES: u32 = 50;

struct Side {
    name: &'static str,
    wire: Wire,
    filter: Filter,
    samples: Vec<Sample>,
}

enum Filter {
    Gateway(Box<Gateway>),
    Nftables,
}

struct Sample {
    per_cpu_s: f64,
    per_s: f64,
    sent_per_s: f64,
    busy: f64,
}

pub(crate) fn report(scale: &Scale) -> Outcome<String> {
    if std::thread::available_parallelism()?.get() <= RECEIVER_CPU {
        return Ok("Dropping through a wire was NOT measured: it needs two processors.\n".to_owned());
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return Ok("Dropping through a wire was NOT measured: nft is missing (apt-get install nftables).\n"
            .to_owned());
    }
    let (rounds, length) =
        if scale.quick { (2, Duration::from_millis(300)) } else { (7, Duration::from_secs(1)) };
    let sources = Ipv4Net::new(SOURCES.0, SOURCES.1)?;
    let prefixes = cover(sources, PREFIXES);
    if prefixes.len() != PREFIXES as usize {
        return Err(format!("{sources} was cut into {} prefixes and not {PREFIXES}", prefixes.len()).into());
    }
    let (sender, receiver) = (Namespace::new()?, Namespace::new()?);
    let flood = program::flood(sources)?;
    let mut sides = sides(&sender, &receiver, &prefixes)?;
    for side in &sides {
        check_counts_all(side, &sender, &receiver, &flood)?;
    }
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        eprintln!("wire, round {round} of {rounds}");
        for turn in 0..sides.len() {
            // Everybody comes first in some round.
            let at = (turn + round) % sides.len();
            let sample = measure(&sides[at], &sender, &receiver, &flood, length)?;
            if round > 0 {
                sides[at].samples.push(sample);
            }
        }
    }
    Ok(render(&sides, rounds, length))
}

fn sides(sender: &Namespace, receiver: &Namespace, prefixes: &[Ipv4Net]) -> Outcome<[Side; 2]> {
    // Names of the machine's other runs must differ: a polling thread is found by its interface's name.
    let id = std::process::id();
    let wire = |letter| Wire::new(sender, receiver, &format!("gw{id}{letter}"), RECEIVER_CPU);
    let (ours, theirs) = (wire('a')?, wire('b')?);
    let gateway = Gateway::protect(receiver, &ours.to, prefixes)?;
    let ruleset = ruleset(&theirs.to, prefixes)?;
    receiver.run(|| command(Command::new("nft").args(["-f", "-"]), &ruleset))?;
    Ok([
        Side { name: "gateway", wire: ours, filter: Filter::Gateway(Box::new(gateway)), samples: Vec::new() },
        Side { name: "nftables", wire: theirs, filter: Filter::Nftables, samples: Vec::new() },
    ])
}

/// Few enough frames at a time that the wire loses none: then every one of them must be counted as dropped,
/// or the figures below are of something else.
fn check_counts_all(side: &Side, sender: &Namespace, receiver: &Namespace, flood: &Program) -> Outcome<()> {
    let before = side.filter.dropped(receiver)?;
    sender.run(|| {
        for _ in 0..GENTLE_CALLS {
            flood.send(&frame(), side.wire.from, GENTLE)?;
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    })?;
    let (mut counted, sent) = (0, u64::from(GENTLE * GENTLE_CALLS));
    for _ in 0..SETTLE_TRIES {
        std::thread::sleep(SETTLE);
        counted = side.filter.dropped(receiver)? - before;
        if counted == sent {
            return Ok(());
        }
    }
    Err(format!("{} dropped {counted} of {sent} packets that were sent slowly", side.name).into())
}

fn measure(
    side: &Side,
    sender: &Namespace,
    receiver: &Namespace,
    flood: &Program,
    length: Duration,
) -> Outcome<Sample> {
    let before = (side.filter.dropped(receiver)?, side.wire.poller_time()?);
    let (sent, elapsed) = sender.run(|| {
        let mut cpus = CpuSet::new();
        cpus.set(SENDER_CPU);
        sched_setaffinity(None, &cpus)?;
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < length {
            flood.send(&frame(), side.wire.from, BURST)?;
            sent += u64::from(BURST);
        }
        Ok((sent, began.elapsed().as_secs_f64()))
    })?;
    std::thread::sleep(SETTLE);
    let dropped = (side.filter.dropped(receiver)? - before.0) as f64;
    let cpu_s = (side.wire.poller_time()? - before.1).as_secs_f64();
    if dropped == 0.0 || cpu_s == 0.0 {
        return Err(format!("{} dropped {dropped} packets in {cpu_s} s of processor time", side.name).into());
    }
    Ok(Sample {
        per_cpu_s: dropped / cpu_s,
        per_s: dropped / elapsed,
        sent_per_s: sent as f64 / elapsed,
        busy: cpu_s / elapsed,
    })
}

fn render(sides: &[Side; 2], rounds: usize, length: Duration) -> String {
    let show =
        |figures: &[f64], digits| Spread::of(figures).map_or_else(|| "–".to_owned(), |it| it.show(digits));
    let millions = |side: &Side, figure: fn(&Sample) -> f64| {
        show(&side.samples.iter().map(|sample| figure(sample) / 1e6).collect::<Vec<_>>(), 2)
    };
    let theirs = &sides[1].samples;
    let row = |side: &Side| {
        // Round by round, so that a slow minute of the machine cancels out.
        let ratio = |figure: fn(&Sample) -> f64| {
            let pairs = side.samples.iter().zip(theirs);
            show(&pairs.map(|(one, other)| figure(one) / figure(other)).collect::<Vec<_>>(), 2)
        };
        vec![
            side.name.to_owned(),
            millions(side, |sample| sample.per_cpu_s),
            ratio(|sample| sample.per_cpu_s),
            millions(side, |sample| sample.per_s),
            ratio(|sample| sample.per_s),
            millions(side, |sample| sample.sent_per_s),
            show(&side.samples.iter().map(|sample| sample.busy * 100.0).collect::<Vec<_>>(), 0),
        ]
    };
    let header = [
        "dropping from a wire",
        "millions a CPU second",
        "× nftables",
        "millions a second",
        "× nftables",
        "millions sent a second",
        "receiver busy, %",
    ];
    let rows: Vec<_> = sides.iter().map(row).collect();
    format!(
        "{}\nMedians (least–most) of {rounds} alternating rounds of {} s: frames of 60 B from random sources in \
         198.18.0.0/15, all denied by {PREFIXES} prefixes (/31 and /32), over a veth pair. The gateway is attached \
         natively, nftables has an interval set in a netdev chain at the ingress hook; each counts what it drops, and \
         both counted every frame of a slow stream before. Dropped is what these counters say; CPU is that of the \
         kernel thread that polls the receiving end, the wire's own work included. What is sent beyond that is lost \
         in the wire's full ring. Where the receiver is not busy, the sender was the limit of packets a second.\n",
        markdown(&header, &rows),
        length.as_secs_f64()
    )
}

fn frame() -> Vec<u8> {
    frame_v4(Ipv4Addr::UNSPECIFIED)
}

impl Filter {
    /// Packets dropped so far, as the filter itself counted them.
    fn dropped(&self, receiver: &Namespace) -> Outcome<u64> {
        match self {
            Self::Gateway(gateway) => {
                let rules = gateway.rules.counters()?.rules;
                Ok(rules.iter().filter(|rule| rule.rule == RULE).map(|rule| rule.count.packets).sum())
            }
            Self::Nftables => {
                let list = ["list", "counter", "netdev", "bench", "dropped"];
                let text = receiver.run(|| command(Command::new("nft").args(list), ""))?;
                let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
                let packets = words.nth(1).and_then(|figure| figure.parse().ok());
                packets.ok_or_else(|| format!("nft shows no packets: {text}").into())
            }
        }
    }
}

/// The gateway on one interface; detached when dropped.
struct Gateway {
    rules: Rules,
    // In this order: pins are removed when nobody holds their lock any more.
    _protection: Protection,
    _pins: Pins,
}

impl Gateway {
    fn protect(receiver: &Namespace, interface: &str, prefixes: &[Ipv4Net]) -> Outcome<Self> {
        // A sandbox sweeps what dead processes left, and this name is one that it knows: should this process be
        // killed, a later one removes its pins.
        drop(Sandbox::load(Ours::Gateway)?);
        let pins =
            Pins(Path::new("/sys/fs/bpf").join(format!("gateway-sandbox-{}-wire", std::process::id())));
        let plan = Plan {
            interfaces: vec![interface.to_owned()],
            attach: Attach::Native,
            default: Default::default(),
            bans: Default::default(),
            lists: Default::default(),
        };
        let protection = receiver.run(|| Ok(Protection::start(&plan, &pins.0)?))?;
        let rules = Rules::open(&pins.0)?;
        let prefixes: Vec<IpNet> = prefixes.iter().copied().map(IpNet::from).collect();
        rules.replace(Owner::Operator, &list(&prefixes), &mut |_| {})?;
        Ok(Self { rules, _protection: protection, _pins: pins })
    }
}

struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        // Nothing else can be done about it here, and a later run's sweep finds it.
        let _ = detach(&self.0);
    }
}

/// Counted, as the gateway counts.
fn ruleset(interface: &str, prefixes: &[Ipv4Net]) -> Outcome<String> {
    let mut text = String::with_capacity(prefixes.len() * 20);
    text.push_str("table netdev bench {\n counter dropped { }\n set denied { type ipv4_addr; flags interval; elements = {\n");
    for prefix in prefixes {
        writeln!(text, "{prefix},")?;
    }
    write!(
        text,
        "}}; }}\n chain ingress {{ type filter hook ingress device \"{interface}\" priority filter; policy accept;\n \
         ip saddr @denied counter name \"dropped\" drop\n }}\n}}\n"
    )?;
    Ok(text)
}
