//! `cargo xtask bench llm`: what a request to a model costs above plain hyper, side by side with other gateways in the
//! same run.
//!
//! All have the same provider behind them, which answers at once. The gateway under test has CPU 0 to itself; load and
//! provider have CPU 1. Rounds alternate, so that what changes on the machine meets everybody.

mod client;
mod load;
pub(crate) mod origin;
mod peers;
mod report;
mod scene;
mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use client::{Client, Expected};
use peers::{Peer, Setting};
use report::{Sample, Series};
use scene::{Kind, Scene};

use super::machine;
use super::request::load::CONNECTIONS;
use super::request::load::threads::percentile_us;
use super::scratch::{self, Directory};
use crate::process::{self, Group};
use crate::tools;

/// Where Chat Completions are asked for.
const PATH: &str = "/v1/chat/completions";
const PROXY_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const ROUNDS: u32 = 5;
const ROUND_S: u32 = 5;
const WARM_UP_S: u32 = 1;
/// What else may run on the machine: a mean of processes, before the benchmark starts its own.
const OTHER_LOAD_MAX: f64 = 0.5;
/// LiteLLM imports for half a minute.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const MIB: f64 = 1024.0 * 1024.0;

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

pub(crate) fn run(options: &Options) -> Result<()> {
    let scenes = if options.scenes.is_empty() { Scene::ALL.to_vec() } else { options.scenes.clone() };
    let other_load = machine::load_average();
    let (peers, absent) = prepare(&options.peers)?;
    let (rounds, round_s) = if options.quick { (1, 1) } else { (options.rounds, ROUND_S) };

    let bench = Bench::start()?;
    for scene in scenes {
        let peers: Vec<Peer> = peers.iter().copied().filter(|peer| peer.takes_part(scene)).collect();
        let series = bench.alternate(scene, &peers, rounds, round_s)?;
        println!("{}:\n\n{}", scene.title(), report::render(scene.kind(), &series));
    }
    println!("{}", legend(&peers, rounds, round_s));
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

/// Finds or builds all programs and moves to the load's CPU. Returns who is there, and of the others why not.
fn prepare(wanted: &[Peer]) -> Result<(Vec<Peer>, Vec<String>)> {
    if let Some(missing) = tools::ensure_system_programs(&["wrk"]).first() {
        bail!("{}", missing.advice());
    }
    ensure!(
        thread::available_parallelism()?.get() > LOAD_CPU,
        "two CPUs are needed: one for the gateway, one for load and provider"
    );
    let wanted = if wanted.is_empty() { &Peer::ALL[..] } else { wanted };
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for &peer in wanted {
        match peer.provide() {
            Ok(()) => peers.push(peer),
            Err(error) if peer.is_needed() => return Err(error.context(peer.name())),
            Err(error) => {
                eprintln!("warning: {} is ABSENT: {error:#}", peer.name());
                absent.push(format!("{}: {error:#}", peer.name()));
            }
        }
    }
    let mut cpus = CpuSet::new();
    cpus.set(LOAD_CPU);
    sched_setaffinity(None, &cpus).context("moving to the load's CPU")?;
    Ok((peers, absent))
}

/// What lives over all rounds: the provider, and a directory that is emptied before and after.
struct Bench {
    upstream: SocketAddr,
    // Fields go in this order: the provider ends before its directory does.
    _upstream: Group,
    dir: Directory,
}

impl Bench {
    fn start() -> Result<Self> {
        let dir = Directory::new("bench-llm")?;
        let upstream = scratch::free_address()?;
        let mut command = process::command(env::current_exe().context("the path of this program")?);
        command.args(["llm-origin", "--listen", &upstream.to_string()]);
        let mut group = Group::start("the provider", LOAD_CPU, &command)?;
        wait_until_right(&mut group, Scene::Pass, upstream, &[], Peer::Floor.expected(Scene::Pass))
            .context("the provider")?;
        Ok(Self { upstream, _upstream: group, dir })
    }

    /// Measures everybody in each round.
    fn alternate(&self, scene: Scene, peers: &[Peer], rounds: u32, round_s: u32) -> Result<Vec<Series>> {
        let mut series: Vec<Series> = peers.iter().map(|&peer| Series::new(peer)).collect();
        let count = series.len();
        for round in 0..rounds as usize {
            for turn in 0..count {
                // Everybody comes first in some round.
                let one = &mut series[(turn + round) % count];
                let name = one.peer.name();
                if one.failure.is_some() {
                    continue;
                }
                match self.measure(one.peer, scene, round_s) {
                    Ok(sample) => {
                        let (title, digits) = report::columns(scene.kind())[0];
                        eprintln!("{} of {rounds}: {name} {:.digits$} {title}", round + 1, sample[0]);
                        one.samples.push(sample);
                    }
                    // What others cannot do is a line of the table, not the end of it.
                    Err(error) if !one.peer.is_needed() => {
                        eprintln!("{} of {rounds}: {name} FAILED: {error:#}", round + 1);
                        one.failure = Some(format!("{error:#}"));
                    }
                    Err(error) => return Err(error.context(name)),
                }
            }
        }
        Ok(series)
    }

    /// Starts the peer, warms it up, and measures it under one run of load.
    fn measure(&self, peer: Peer, scene: Scene, seconds: u32) -> Result<Sample> {
        let address = scratch::free_address()?;
        let dir = self.dir.path().join(peer.name());
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let setting = Setting { dir: &dir, scene, listen: address, upstream: self.upstream };
        let (headers, expected) = (peer.headers(&setting), peer.expected(scene));
        let mut group = Group::start(peer.name(), PROXY_CPU, &peer.command(&setting)?)?;
        wait_until_right(&mut group, scene, address, &headers, expected)?;

        let load = |seconds| -> Result<(f64, Vec<f64>)> {
            match scene.kind() {
                Kind::Replies | Kind::Events => {
                    let report = load::run(&dir, scene, address, &headers, seconds, expected)?;
                    let events = scene.events().unwrap_or(1) as f64;
                    let latency = report.latency.context("no latencies")?;
                    Ok((
                        report.requests as f64 * events,
                        vec![report.requests_per_s * events, latency.p50_us, latency.p99_us],
                    ))
                }
                Kind::Alone | Kind::First => {
                    let mut took = client::run(scene, address, &headers, seconds, expected)?;
                    took.sort_unstable();
                    Ok((took.len() as f64, vec![percentile_us(&took, 500), percentile_us(&took, 990)]))
                }
            }
        };
        load(WARM_UP_S)?;
        let cpu_before_s = group.cpu_s()?;
        let begin = Instant::now();
        let (count, figures) = load(seconds)?;
        let cpu_s = group.cpu_s()? - cpu_before_s;
        let busy = cpu_s / begin.elapsed().as_secs_f64() * 100.0;
        let rss_mib = group.rss_bytes()? as f64 / MIB;
        group.check_running()?;
        let cpu_us = cpu_s * 1e6 / count;
        Ok(match (scene.kind(), figures.as_slice()) {
            (Kind::Replies, [rate, p50, p99]) => vec![cpu_us, *rate, busy, *p50, *p99, rss_mib],
            (Kind::Events, [rate, ..]) => vec![cpu_us, *rate, busy, rss_mib],
            (_, [p50, p99, ..]) => vec![*p50, *p99, cpu_us, rss_mib],
            _ => bail!("no figures"),
        })
    }
}

/// Waits until an answer comes, and makes sure that it is the right one.
fn wait_until_right(
    group: &mut Group,
    scene: Scene,
    address: SocketAddr,
    headers: &[(&str, String)],
    expected: Expected,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        let asked = Client::connect(scene, address, headers).and_then(|mut client| {
            client.ask()?;
            Ok(client)
        });
        match asked {
            Ok(client) => return client.check(expected).context("the first answer is wrong"),
            Err(error) if begin.elapsed() > START_TIMEOUT => {
                return Err(error.context(format!("not ready after {} s", START_TIMEOUT.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
        group.check_running()?;
    }
}

fn legend(peers: &[Peer], rounds: u32, round_s: u32) -> String {
    let versions: Vec<String> =
        peers.iter().map(|peer| format!("{} {}", peer.name(), peer.version())).collect();
    let wrk =
        process::find("wrk").map_or_else(|| "?".to_owned(), |program| machine::version_of(&program, "-v"));
    format!(
        "Medians (least–most) of {rounds} alternating rounds of {round_s} s; replies of 1 KiB, {CONNECTIONS} connections \
         where nothing else is said, one core for the gateway, another for load and provider. CPU is user and system time of \
         the gateway's processes; that of an event is a stream's, divided by its words. The floor is plain hyper that passes \
         on, in scenes of translation as well, where its provider answers in the client's dialect. Whole answers are read \
         and compared under load, byte for byte where nothing is translated.\n{}; {}; wrk {wrk}.",
        machine::describe(),
        versions.join(", ")
    )
}
