//! `cargo xtask bench request`: what one proxied request costs, side by side with others in the same run.
//!
//! All proxy the same upstream: 1 KiB from memory, keep-alive on both sides. The proxy under test has CPU 0 to
//! itself; load and upstream have CPU 1. Rounds alternate, so that what changes on the machine meets everybody.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::load::{self, Scene};
use super::peers::{self, Peer};
use super::table::{Spread, markdown};
use super::{machine, peers::UPSTREAM_IDLE_MAX};
use crate::process::{self, Group};
use crate::{tools, workspace};

const PROXY_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const CONNECTIONS: usize = 32;
const BODY_BYTES: usize = 1024;
const ROUNDS: u32 = 5;
const ROUND_S: u32 = 5;
const WARM_UP_S: u32 = 1;
/// What else may run on the machine: a mean of processes, before the benchmark starts its own.
const OTHER_LOAD_MAX: f64 = 0.5;
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a pooled connection for each of the load's, a proxy would be measured opening connections.
const _: () = assert!(CONNECTIONS <= UPSTREAM_IDLE_MAX);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds, each of which measures everybody once
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// One short round: shows that all works, measures nothing
    #[arg(long)]
    quick: bool,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only requests that come so
    #[arg(long, value_enum, value_delimiter = ',')]
    scenes: Vec<Scene>,
}

/// One peer in one round.
#[derive(Clone, Debug)]
struct Sample {
    cpu_us: f64,
    requests_per_s: f64,
    busy: f64,
    p50_us: f64,
    p99_us: f64,
    rss_mib: f64,
}

/// All samples of one peer, a round each.
struct Series {
    peer: Peer,
    samples: Vec<Sample>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let peers = if options.peers.is_empty() { Peer::ALL.to_vec() } else { options.peers.clone() };
    let wrk = prepare(&peers)?;
    let (rounds, round_s) = if options.quick { (1, 1) } else { (options.rounds, ROUND_S) };

    let other_load = machine::load_average();
    let bench = Bench::start(wrk)?;
    let scenes = if options.scenes.is_empty() { Scene::ALL.to_vec() } else { options.scenes.clone() };
    for scene in scenes {
        let speakers = peers.iter().filter(|peer| peer.speaks(scene));
        let mut series: Vec<Series> = speakers.map(|&peer| Series { peer, samples: Vec::new() }).collect();
        let count = series.len();
        for round in 0..rounds as usize {
            for turn in 0..count {
                // Everybody comes first in some round.
                let one = &mut series[(turn + round) % count];
                let sample = bench.measure(one.peer, scene, round_s).with_context(|| one.peer.name())?;
                eprintln!("{} of {rounds}: {} {:.2} µs", round + 1, one.peer.name(), sample.cpu_us);
                one.samples.push(sample);
            }
        }
        println!("{}:\n\n{}", scene.name(), render(&series)?);
    }
    println!("{}", legend(&peers, rounds, round_s)?);
    if other_load > OTHER_LOAD_MAX {
        println!(
            "\nThe machine was busy with something else (load average {other_load}): these figures are not worth much."
        );
    }
    if options.quick || rounds < ROUNDS {
        println!("\nToo short for figures: at least {ROUNDS} rounds of {ROUND_S} s make a measurement.");
    }
    Ok(())
}

/// Finds or builds all programs and moves to the load's CPU; returns wrk.
fn prepare(peers: &[Peer]) -> Result<PathBuf> {
    let missing = tools::ensure_system_programs(&["nginx", "haproxy", "wrk", "curl", "openssl"]);
    if !missing.is_empty() {
        let advice: Vec<String> = missing.iter().map(|program| program.advice()).collect();
        bail!("{}", advice.join("; "));
    }
    ensure!(
        thread::available_parallelism()?.get() > LOAD_CPU,
        "two CPUs are needed: one for the proxy, one for load and upstream"
    );
    if peers.contains(&Peer::Gateway) {
        process::run(&mut process::cargo(&[
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "gateway",
        ]))?;
    }
    let mut cpus = CpuSet::new();
    cpus.set(LOAD_CPU);
    sched_setaffinity(None, &cpus).context("moving to the load's CPU")?;
    process::find("wrk").context("wrk is missing (apt-get install wrk)")
}

/// What lives over all rounds: the upstream, and a directory that is emptied before and after.
struct Bench {
    upstream: SocketAddr,
    body: String,
    wrk: PathBuf,
    // Fields go in this order: the upstream ends before its directory does.
    _upstream: Group,
    dir: Directory,
}

impl Bench {
    fn start(wrk: PathBuf) -> Result<Self> {
        let dir = Directory::new()?;
        let body: String = ('a'..='z').cycle().take(BODY_BYTES).collect();
        let upstream = peers::free_address()?;
        let mut group = Group::start("the upstream", LOAD_CPU, &peers::upstream(&dir.0, upstream, &body)?)?;
        wait_until_served(&mut group, Scene::Plain, upstream, body.as_bytes()).context("the upstream")?;
        peers::certificate(&dir.0)?;
        Ok(Self { upstream, body, wrk, dir, _upstream: group })
    }

    /// Starts the peer, warms it up, and measures it under one run of load.
    fn measure(&self, peer: Peer, scene: Scene, seconds: u32) -> Result<Sample> {
        let listen = peers::free_address()?;
        let mut group =
            Group::start(peer.name(), PROXY_CPU, &peer.command(&self.dir.0, scene, listen, self.upstream)?)?;
        let body = self.body.as_bytes();
        wait_until_served(&mut group, scene, listen, body)?;
        load::run(&self.wrk, scene, listen, CONNECTIONS, WARM_UP_S, body)?;

        let cpu_before_s = group.cpu_s()?;
        let begin = Instant::now();
        let report = load::run(&self.wrk, scene, listen, CONNECTIONS, seconds, body)?;
        let cpu_s = group.cpu_s()? - cpu_before_s;
        let wall_s = begin.elapsed().as_secs_f64();
        let rss_bytes = group.rss_bytes()?;
        group.check_running()?;
        Ok(Sample {
            cpu_us: cpu_s * 1e6 / report.requests as f64,
            requests_per_s: report.requests_per_s,
            busy: cpu_s / wall_s,
            p50_us: report.p50_us,
            p99_us: report.p99_us,
            rss_mib: rss_bytes as f64 / (1024.0 * 1024.0),
        })
    }
}

/// A scratch directory under the target directory; one that an interrupted run left is emptied by the next.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = workspace::target_dir().join("bench-request");
        let directory = Self(path);
        directory.remove();
        fs::create_dir_all(&directory.0).with_context(|| format!("making {}", directory.0.display()))?;
        Ok(directory)
    }

    fn remove(&self) {
        let path: &Path = &self.0;
        let _ = fs::remove_dir_all(path);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.remove();
    }
}

fn wait_until_served(group: &mut Group, scene: Scene, address: SocketAddr, body: &[u8]) -> Result<()> {
    let begin = Instant::now();
    loop {
        let Err(error) = load::probe(scene, address, body) else { return Ok(()) };
        group.check_running()?;
        if begin.elapsed() > START_TIMEOUT {
            return Err(error.context(format!("not ready after {} s", START_TIMEOUT.as_secs())));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn render(series: &[Series]) -> Result<String> {
    let nginx = series.iter().find(|series| series.peer == Peer::Nginx);
    let mut rows = Vec::new();
    for one in series {
        let column = |figure: fn(&Sample) -> f64, digits| -> Result<String> {
            let figures: Vec<f64> = one.samples.iter().map(figure).collect();
            Ok(Spread::of(&figures)
                .with_context(|| format!("no figures of {}", one.peer.name()))?
                .show(digits))
        };
        let ratio = nginx.and_then(|nginx| Spread::of(&ratios(&one.samples, &nginx.samples)));
        rows.push(vec![
            one.peer.name().to_owned(),
            column(|sample| sample.cpu_us, 2)?,
            ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.show(2)),
            column(|sample| sample.requests_per_s, 0)?,
            column(|sample| sample.busy * 100.0, 0)?,
            column(|sample| sample.p50_us, 0)?,
            column(|sample| sample.p99_us, 0)?,
            column(|sample| sample.rss_mib, 1)?,
        ]);
    }
    let header =
        ["", "CPU µs/request", "× nginx", "requests/s", "core busy %", "p50 µs", "p99 µs", "RSS MiB"];
    Ok(markdown(&header, &rows))
}

/// Round by round, so that a slow minute of the machine cancels out.
fn ratios(samples: &[Sample], to: &[Sample]) -> Vec<f64> {
    samples.iter().zip(to).map(|(one, other)| one.cpu_us / other.cpu_us).collect()
}

fn legend(peers: &[Peer], rounds: u32, round_s: u32) -> Result<String> {
    let mut versions = Vec::new();
    for peer in peers.iter().filter(|peer| **peer != Peer::Relay) {
        versions.push(format!("{} {}", peer.name(), peer.version()?));
    }
    let wrk = process::find("wrk").map_or_else(|| "?".to_owned(), |wrk| machine::version_of(&wrk, "-v"));
    Ok(format!(
        "Medians (least–most) of {rounds} alternating rounds of {round_s} s; {BODY_BYTES} B replies over \
         {CONNECTIONS} connections, one worker on one core, load and upstream on another; TLS with a P-256 certificate. CPU is user and \
         system time of the proxy's processes. Where the core is not busy, load or upstream were the limit of \
         requests/s.\n{}; {}; wrk {wrk}.",
        machine::describe(),
        versions.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(cpu_us: &[f64]) -> Vec<Sample> {
        let sample = |&cpu_us| Sample {
            cpu_us,
            requests_per_s: 1000.0,
            busy: 0.995,
            p50_us: 300.0,
            p99_us: 900.0,
            rss_mib: 8.25,
        };
        cpu_us.iter().map(sample).collect()
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let cases: [(&str, &[f64], &[f64], f64); 3] = [
            ("equal", &[10.0, 11.0, 12.0], &[10.0, 11.0, 12.0], 1.0),
            // The median of each side would say 22 / 20 = 1.1.
            ("a machine that slows down", &[11.0, 22.0, 48.0], &[10.0, 20.0, 40.0], 1.1),
            ("one bad round", &[10.0, 10.0, 99.0], &[10.0, 10.0, 10.0], 1.0),
        ];
        for (name, ours, nginx, expected) in cases {
            let median = Spread::of(&ratios(&samples(ours), &samples(nginx))).unwrap().median;
            assert!((median - expected).abs() < 1e-9, "{name}: {median}");
        }
    }

    #[test]
    fn tables_name_everybody() {
        let series = |peer, cpu_us: &[f64]| Series { peer, samples: samples(cpu_us) };
        let ours = || series(Peer::Gateway, &[11.0]);
        let cases = [
            ("with nginx", vec![ours(), series(Peer::Nginx, &[10.0])], Some("1.10 (1.10–1.10)")),
            ("without nginx", vec![ours()], Some(" – ")),
            ("nobody measured", vec![series(Peer::Relay, &[])], None),
        ];
        for (name, series, expected) in cases {
            let table = render(&series).ok();
            assert_eq!(table.is_some(), expected.is_some(), "{name}");
            if let (Some(table), Some(expected)) = (table, expected) {
                assert!(table.contains(expected), "{name}:\n{table}");
            }
        }
    }
}
