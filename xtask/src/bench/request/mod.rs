//! `cargo xtask bench request`: what one proxied request costs, side by side with others in the same run.
//!
//! All proxy the same upstream, over connections that are kept. The proxy under test has CPU 0 to itself; load and
//! upstream have CPU 1. Rounds alternate, so that what changes on the machine meets everybody.

pub(super) mod load;
pub(crate) mod origin;
mod peers;
pub(crate) mod relay;
mod reload;
mod report;
mod scene;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use load::{Load, Report, idle, probe};
use peers::{Peer, Setting};
use report::{Sample, Series};
use scene::Scene;

use super::machine;
use super::scratch::{self, Directory};
use crate::process::{self, Group};
use crate::tools;

const PROXY_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const ROUNDS: u32 = 5;
const ROUND_S: u32 = 5;
const WARM_UP_S: u32 = 1;
/// What else may run on the machine: a mean of processes, before the benchmark starts its own.
const OTHER_LOAD_MAX: f64 = 0.5;
/// Envoy reads thousands of routes for seconds.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds, each of which measures everybody once
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// One short round: shows that all works, measures nothing
    #[arg(long)]
    quick: bool,
    /// Only these; Envoy, Caddy and pingora take part if they are named
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only requests that come so
    #[arg(long, value_enum, value_delimiter = ',')]
    scenes: Vec<Scene>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let scenes = if options.scenes.is_empty() { Scene::ALL.to_vec() } else { options.scenes.clone() };
    let other_load = machine::load_average();
    let (peers, absent) = prepare(options, &scenes)?;
    let (rounds, round_s) = if options.quick { (1, 1) } else { (options.rounds, ROUND_S) };

    let bench = Bench::start()?;
    for scene in scenes {
        let peers: Vec<Peer> = peers.iter().copied().filter(|peer| peer.takes_part(scene)).collect();
        let series = bench.alternate(scene, &peers, rounds, round_s)?;
        println!("{}:\n\n{}", scene.title(), report::render(scene, &series));
    }
    println!("{}", legend(&peers, rounds, round_s)?);
    for reason in absent {
        println!("\nABSENT: {reason}");
    }
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

/// Finds or builds all programs and moves to the load's CPU. Returns who is there, and of the others why not: those
/// that come from far away may be missing, but nobody shall overlook it.
fn prepare(options: &Options, scenes: &[Scene]) -> Result<(Vec<Peer>, Vec<String>)> {
    let mut programs = vec!["wrk", "curl", "openssl"];
    if scenes.contains(&Scene::H2) {
        programs.push("h2load");
    }
    let missing = tools::ensure_system_programs(&programs);
    if !missing.is_empty() {
        let advice: Vec<String> = missing.iter().map(|program| program.advice()).collect();
        bail!("{}", advice.join("; "));
    }
    ensure!(
        thread::available_parallelism()?.get() > LOAD_CPU,
        "two CPUs are needed: one for the proxy, one for load and upstream"
    );
    let wanted = if options.peers.is_empty() { &Peer::USUAL[..] } else { &options.peers };
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for &peer in wanted {
        match peer.provide() {
            Ok(()) => peers.push(peer),
            Err(error) if Peer::USUAL.contains(&peer) => return Err(error.context(peer.name())),
            Err(error) => {
                eprintln!("warning: {} is ABSENT: {error:#}", peer.name());
                absent.push(format!("{}: {error:#}", peer.name()));
            }
        }
    }
    if scenes.contains(&Scene::Idle) {
        idle::raise_limit()?;
    }
    let mut cpus = CpuSet::new();
    cpus.set(LOAD_CPU);
    sched_setaffinity(None, &cpus).context("moving to the load's CPU")?;
    Ok((peers, absent))
}

/// What lives over all rounds: the upstream, and a directory that is emptied before and after.
struct Bench {
    upstream: SocketAddr,
    pem: PathBuf,
    // Fields go in this order: the upstream ends before its directory does.
    _upstream: Group,
    dir: Directory,
}

impl Bench {
    fn start() -> Result<Self> {
        let dir = Directory::new("bench-request")?;
        let upstream = scratch::free_address()?;
        let mut command = process::command(env::current_exe().context("the path of this program")?);
        command.args(["origin", "--listen", &upstream.to_string()]);
        let mut group = Group::start("the upstream", LOAD_CPU, &command)?;
        wait_until_served(&mut group, Scene::Plain, upstream).context("the upstream")?;
        let pem = peers::certificate(dir.path())?;
        Ok(Self { upstream, pem, _upstream: group, dir })
    }

    /// Measures everybody in each round.
    fn alternate(&self, scene: Scene, peers: &[Peer], rounds: u32, round_s: u32) -> Result<Vec<Series>> {
        let mut series: Vec<Series> = peers.iter().map(|&peer| Series::new(peer)).collect();
        let count = series.len();
        let is_paced = matches!(scene, Scene::Latency | Scene::Reloads);
        let rate = if is_paced { self.half_of_the_slowest(peers)? } else { 0.0 };
        for round in 0..rounds as usize {
            for turn in 0..count {
                // Everybody comes first in some round.
                let one = &mut series[(turn + round) % count];
                if !one.is_spoken {
                    continue;
                }
                let name = one.peer.name();
                let sample = self.measure(one.peer, scene, round_s, rate).with_context(|| name.to_owned())?;
                let (title, digits) = report::columns(scene)[0];
                match sample {
                    Some(sample) => {
                        eprintln!("{} of {rounds}: {name} {:.digits$} {title}", round + 1, sample[0]);
                        one.samples.push(sample);
                    }
                    None => {
                        eprintln!("{} of {rounds}: {name}: not spoken", round + 1);
                        one.is_spoken = false;
                    }
                }
            }
        }
        Ok(series)
    }

    /// Half of the requests a second that each of them can answer.
    fn half_of_the_slowest(&self, peers: &[Peer]) -> Result<f64> {
        let mut slowest = f64::INFINITY;
        for &peer in peers {
            let (_group, load) = self.serve(peer, Scene::Plain, WARM_UP_S, 0.0)?;
            let report = load.run().with_context(|| peer.name())?;
            slowest = slowest.min(report.requests_per_s);
        }
        Ok(slowest / 2.0)
    }

    /// Starts the peer, and says how it is loaded.
    fn serve(&self, peer: Peer, scene: Scene, seconds: u32, rate: f64) -> Result<(Group, Load<'_>)> {
        let address = scratch::free_address()?;
        let dir = self.dir.path().join(peer.name());
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let pem = scene.is_secure().then_some(self.pem.as_path());
        let setting = Setting { dir: &dir, scene, pem, listen: address, upstream: self.upstream };
        let mut group = Group::start(peer.name(), PROXY_CPU, &peer.command(&setting)?)?;
        wait_until_served(&mut group, scene, address)?;
        Ok((group, Load { scene, address, seconds, rate, dir: self.dir.path() }))
    }

    /// Starts the peer, warms it up, and measures it under one run of load. `None`: it does not speak what the scene
    /// is about.
    fn measure(&self, peer: Peer, scene: Scene, seconds: u32, rate: f64) -> Result<Option<Sample>> {
        if scene == Scene::Routes {
            return self.measure_routes(peer, seconds);
        }
        let (mut group, load) = self.serve(peer, scene, seconds, rate)?;
        if !probe::is_spoken(scene, load.address)? {
            return Ok(None);
        }
        if scene == Scene::Idle {
            return measure_idle(&mut group, load.address).map(Some);
        }
        Load { seconds: WARM_UP_S, ..load }.run()?;
        if scene == Scene::Reloads {
            return self.measure_reloads(peer, &mut group, load).map(Some);
        }
        let cpu_before_s = group.cpu_s()?;
        let begin = Instant::now();
        let report = load.run()?;
        let cpu_s = group.cpu_s()? - cpu_before_s;
        let wall_s = begin.elapsed().as_secs_f64();
        let rss_mib = group.rss_bytes()? as f64 / MIB;
        group.check_running()?;
        Ok(Some(sample(scene, &report, cpu_s, cpu_s / wall_s, rss_mib)))
    }
}

impl Bench {
    /// What a request costs among many routes, held against few.
    fn measure_routes(&self, peer: Peer, seconds: u32) -> Result<Option<Sample>> {
        let few = self.measure(peer, Scene::Routes10, seconds, 0.0)?;
        let many = self.measure(peer, Scene::Routes5000, seconds, 0.0)?;
        let (Some(few), Some(many)) = (few, many) else { return Ok(None) };
        Ok(Some(vec![many[0] / few[0], few[0], many[0], few[5], many[5]]))
    }

    /// What requests wait while the peer is reloaded, held against the same load in peace.
    fn measure_reloads(&self, peer: Peer, group: &mut Group, load: Load<'_>) -> Result<Sample> {
        let file = peer.reloaded_file().context("it cannot be reloaded")?;
        let quiet = load.run()?;
        let file = self.dir.path().join(peer.name()).join(file);
        let (busy, reloads) = reload::during(group, &file, load.address, || load.run())?;
        group.check_running()?;
        let latency = |report: &Report| {
            let latency = report.latency.context("no latencies")?;
            anyhow::Ok((latency.p50_us, latency.p99_us, latency.p999_us.unwrap_or(f64::NAN)))
        };
        let (quiet, busy) = (latency(&quiet)?, latency(&busy)?);
        let count = f64::from(reloads.count);
        let ratio = busy.1 / quiet.1;
        Ok(vec![ratio, quiet.1, busy.1, quiet.0, busy.0, quiet.2, busy.2, count, reloads.took_ms])
    }
}

/// In the order of the scene's columns.
fn sample(scene: Scene, report: &Report, cpu_s: f64, busy: f64, rss_mib: f64) -> Sample {
    let cpu_us = cpu_s * 1e6 / report.requests as f64;
    let p50_us = report.latency.map_or(f64::NAN, |latency| latency.p50_us);
    let p99_us = report.latency.map_or(f64::NAN, |latency| latency.p99_us);
    let p999_us = report.latency.and_then(|latency| latency.p999_us).unwrap_or(f64::NAN);
    match scene {
        Scene::Latency => vec![p99_us, p50_us, p999_us, report.requests_per_s, cpu_us, rss_mib],
        _ => vec![cpu_us, report.requests_per_s, busy * 100.0, p50_us, p99_us, rss_mib],
    }
}

/// What waiting connections weigh.
fn measure_idle(group: &mut Group, address: SocketAddr) -> Result<Sample> {
    let without = group.rss_bytes()? as f64;
    let streams = idle::open(address)?;
    let with = group.rss_bytes()? as f64;
    idle::check(&streams)?;
    group.check_running()?;
    Ok(vec![(with - without) / 1024.0 / streams.len() as f64, with / MIB, without / MIB])
}

fn wait_until_served(group: &mut Group, scene: Scene, address: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    loop {
        let Err(error) = probe::once(scene, address) else { return Ok(()) };
        group.check_running()?;
        if begin.elapsed() > START_TIMEOUT {
            return Err(error.context(format!("not ready after {} s", START_TIMEOUT.as_secs())));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn legend(peers: &[Peer], rounds: u32, round_s: u32) -> Result<String> {
    let mut versions = Vec::new();
    for peer in peers.iter().filter(|peer| **peer != Peer::Relay) {
        versions.push(format!("{} {}", peer.name(), peer.version()?));
    }
    let loader = |name: &str, flag| process::find(name).map(|program| machine::version_of(&program, flag));
    let wrk = loader("wrk", "-v").unwrap_or_else(|| "?".to_owned());
    let h2load =
        loader("h2load", "--version").map_or_else(String::new, |version| format!("; h2load {version}"));
    Ok(format!(
        "Medians (least–most) of {rounds} alternating rounds of {round_s} s; {} B replies over {} connections where \
         nothing else is said, one worker on one core, load and upstream on another; TLS with a P-256 certificate. \
         CPU is user and system time of the proxy's processes. Where the core is not busy, load or upstream were the \
         limit of requests/s. Ratios are taken round by round, to the other proxy whose first figure is least. At the \
         same rate for all, the rate is half of what the slowest answered, and a reply's time counts from when its \
         request was due.\n{}; {}; wrk {wrk}{h2load}.",
        origin::BODY_BYTES,
        load::CONNECTIONS,
        machine::describe(),
        versions.join(", ")
    ))
}
