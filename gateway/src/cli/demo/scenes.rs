//! What the demo shows, in order. Each scene says what it does, does it, and checks what came of it: a demo
//! that shows something else than it says fails.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::failure::{Failure, Outcome};
use super::super::output::Out;
use super::INTERRUPTED;
use super::hosts::Hosts;
use super::traffic::{ask, flood, get};

/// Datagrams of the flood.
const FLOOD: u32 = 100_000;
/// How long the attacker is banned.
const BAN: Duration = Duration::from_secs(5);
const METRICS_PATIENCE: Duration = Duration::from_secs(10);

/// Plays all scenes.
pub(super) fn play(hosts: &Hosts, out: &mut Out) -> Outcome {
    picture(hosts, out)?;
    title(out, "The agent starts")?;
    say(out, &wrong(hosts.start_agent())?)?;

    title(out, "A request goes through the proxy; the upstream learns who asked")?;
    expect_served(hosts, out, "client", hosts.client)?;
    expect_served(hosts, out, "attacker", hosts.attacker)?;

    model(hosts, out)?;

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

/// What the mock provider is told to say, and what the client must have heard at the end.
const SAID: &str = "One API, any model.";

/// A model is asked in one dialect and answers in another, after the first of its providers had too much to do.
fn model(hosts: &Hosts, out: &mut Out) -> Outcome {
    title(
        out,
        "A client of OpenAI's API asks a model; its first provider answers 503, the second speaks Anthropic's",
    )?;
    let prompt = format!("Why? [[say=\"{SAID}\"]]");
    let messages = [serde_json::json!({"role": "user", "content": prompt})];
    let body =
        serde_json::json!({"model": "fast", "stream": true, "seed": 7, "messages": messages}).to_string();
    say(out, &format!("client asks: {body}"))?;
    let answer = wrong(wrong(hosts.on_the_internet(|| ask(hosts.client, hosts.gateway, &body)))?)?;
    for line in &answer.head {
        say(out, line)?;
    }
    // The others differ in a word each.
    for event in
        answer.events.iter().filter(|event| word_of(event).is_some_and(|word| !word.is_empty())).take(1)
    {
        say(out, &format!("data: {event}"))?;
    }
    let text: String = answer.events.iter().filter_map(|event| word_of(event)).collect();
    let losses = answer.head.iter().find(|line| line.starts_with("gateway-llm-losses:"));
    expect(text == SAID, || format!("the client heard `{text}`, and the provider said `{SAID}`"))?;
    expect(answer.events.last().is_some_and(|last| last == "[DONE]"), || {
        "the stream did not end".to_owned()
    })?;
    expect(losses.is_some_and(|line| line.contains("seed")), || {
        "the client was not told that its `seed` was lost".to_owned()
    })?;
    let (count, took) = (answer.events.len(), answer.took.as_millis());
    say(out, &format!("… together: {text} ({count} events in {took} ms)"))?;
    for (metric, part) in [
        ("gateway_llm_fallbacks_total", "provider=\"openai\""),
        ("gateway_llm_tokens_total", "provider=\"anthropic\""),
    ] {
        for line in counted(hosts, metric, part)? {
            say(out, &line)?;
        }
    }
    Ok(())
}

/// Lines of metrics that have counted something, and have this in their labels. Workers tell what they counted now and then.
fn counted(hosts: &Hosts, metric: &str, part: &str) -> Outcome<Vec<String>> {
    let until = Instant::now() + METRICS_PATIENCE;
    loop {
        let lines = wrong(hosts.metrics(metric))?;
        let is_counted = |line: &String| line.contains(part) && !line.ends_with(" 0");
        let counted: Vec<String> = lines.into_iter().filter(is_counted).collect();
        if !counted.is_empty() {
            return Ok(counted);
        }
        expect(Instant::now() < until, || format!("{metric} has counted nothing for {part}"))?;
        stop_if_interrupted()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a chunk of Chat Completions adds to the text.
fn word_of(event: &str) -> Option<String> {
    let chunk: serde_json::Value = serde_json::from_str(event).ok()?;
    chunk.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned)
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::System(otherwise())) }
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
