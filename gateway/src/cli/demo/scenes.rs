//! What the demo shows, in order. Each scene says what it does, does it, and checks what came of it: a demo
//! that shows something else than it says fails.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::failure::{Failure, Outcome};
use super::super::output::Out;
use super::INTERRUPTED;
use super::hosts::Hosts;
use super::traffic::{flood, get};

/// Datagrams of the flood.
const FLOOD: u32 = 100_000;
/// How long the attacker is banned.
const BAN: Duration = Duration::from_secs(5);

/// Plays all scenes.
pub(super) fn play(hosts: &Hosts, out: &mut Out) -> Outcome {
    picture(hosts, out)?;
    title(out, "The agent starts")?;
    say(out, &wrong(hosts.start_agent())?)?;

    title(out, "A request goes through the proxy; the upstream learns who asked")?;
    expect_served(hosts, out, "client", hosts.client)?;
    expect_served(hosts, out, "attacker", hosts.attacker)?;

    title(out, "An operator bans the attacker while everything runs")?;
    let attacker = hosts.attacker.to_string();
    let ttl = format!("{}s", BAN.as_secs());
    command(hosts, out, &["deny", "add", &attacker, "--ttl", &ttl, "--reason", "demo"])?;
    // From here on: the ban began while the command ran, so that a whole BAN later it is over.
    let banned_at = Instant::now();
    expect_dropped(hosts, out)?;
    expect_served(hosts, out, "client", hosts.client)?;
    command(hosts, out, &["explain", "packet", &attacker])?;

    if hosts.has_xdp {
        title(out, "The attacker floods; packets end in the driver")?;
        let (sent, took) =
            wrong(wrong(hosts.on_the_internet(|| flood(hosts.attacker, hosts.gateway, FLOOD)))?)?;
        say(out, &format!("{sent} datagrams sent in {} ms", took.as_millis()))?;
        expect_served(hosts, out, "client", hosts.client)?;
        command(hosts, out, &["counters"])?;

        title(out, "The agent is killed (SIGKILL); protection stays, and the next start takes over")?;
        hosts.kill_agent();
        expect_dropped(hosts, out)?;
        say(out, &wrong(hosts.start_agent())?)?;
        expect_served(hosts, out, "client", hosts.client)?;
    }

    title(out, "The ban ends by the kernel's own clock")?;
    while banned_at.elapsed() < BAN {
        stop_if_interrupted()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    expect_served(hosts, out, "attacker", hosts.attacker)
}

fn picture(hosts: &Hosts, out: &mut Out) -> Outcome {
    let (client, attacker, gateway) = (hosts.client, hosts.attacker, hosts.gateway);
    let place = if hosts.has_xdp { "XDP on eth0" } else { "at accept" };
    out.line(format!("client   {client} ─┐"))?;
    out.line(format!("                      ├── {gateway} gateway ({place}) ── upstream"))?;
    Ok(out.line(format!("attacker {attacker} ─┘"))?)
}

fn title(out: &mut Out, text: &str) -> Outcome {
    stop_if_interrupted()?;
    Ok(out.line(format!("\n── {text}"))?)
}

fn say(out: &mut Out, text: &str) -> Outcome {
    for line in text.lines() {
        out.line(format!("   {line}"))?;
    }
    Ok(out.flush()?)
}

fn command(hosts: &Hosts, out: &mut Out, arguments: &[&str]) -> Outcome {
    say(out, &format!("$ gateway {}", arguments.join(" ")))?;
    say(out, &wrong(hosts.command(arguments))?)
}

fn expect_served(hosts: &Hosts, out: &mut Out, who: &str, from: std::net::IpAddr) -> Outcome {
    let (reply, took) = wrong(hosts.on_the_internet(|| get(from, hosts.gateway)))?
        .map_err(|_| Failure::System(format!("{who} ({from}) was not served, which the demo expects")))?;
    say(out, &format!("{who} asks: {reply} ({} µs)", took.as_micros()))
}

fn expect_dropped(hosts: &Hosts, out: &mut Out) -> Outcome {
    let from = hosts.attacker;
    match wrong(hosts.on_the_internet(|| get(from, hosts.gateway)))? {
        Err(why) => say(out, &format!("attacker asks: {why}")),
        Ok((reply, _)) => {
            Err(Failure::System(format!("the attacker was served, which the demo does not expect: {reply}")))
        }
    }
}

fn stop_if_interrupted() -> Outcome {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Failure::No) } else { Ok(()) }
}

fn wrong<T>(result: Result<T, String>) -> Outcome<T> {
    result.map_err(Failure::System)
}
