//! What one entry costs beside a long list: adding and deleting it, and how long after a ban was asked for its source
//! is dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway_kernel::feed::prefixes::Span;
use gateway_kernel::sandbox::{Action, Program as Ours, Sandbox};
use gateway_kernel::{ListKind, NewEntry, Owner};

use crate::prefixes::{Family, RULE, frame_v4, list};
use crate::table::markdown;
use crate::{Outcome, Scale};

const PREFIXES: usize = 1_000_000;
const EDITS: u32 = 10_000;
const BANS: u32 = 5000;
/// Shows that all works, and measures nothing.
const PREFIXES_QUICK: usize = 20_000;
const EDITS_QUICK: u32 = 200;
const BANS_QUICK: u32 = 50;
/// A ban that has not come into force by then never will: that is seconds.
const MOST_PACKETS: u32 = 1_000_000;
/// Of the benchmark networks (RFC 2544): no entry of the list need be near.
const FIRST: u32 = 0xc612_0000;

pub(crate) fn report(scale: &Scale) -> Outcome<String> {
    eprintln!("edit");
    let (prefixes, edits, bans) =
        if scale.quick { (PREFIXES_QUICK, EDITS_QUICK, BANS_QUICK) } else { (PREFIXES, EDITS, BANS) };
    let sandbox = Sandbox::load(Ours::Gateway)?;
    // No source is in the list already: it would be dropped before it was banned.
    let mut long = Family::V4.random(prefixes);
    let sources = Span::new(source(0), source(edits))?;
    long.retain(|prefix| {
        !sources.prefixes().any(|of_sources| prefix.contains(&of_sources) || of_sources.contains(prefix))
    });
    sandbox.rules().replace(Owner::Operator, &list(&long), &mut |_| {})?;
    drop(long);

    let (mut added, mut deleted) = (Vec::new(), Vec::new());
    let (mut dropped, mut running) = (Vec::new(), Vec::new());
    for number in 0..edits {
        let entry = entry(number, None);
        added.push(timed(|| {
            Ok(sandbox.rules().add(ListKind::Deny, std::slice::from_ref(&entry), &mut |_| {})?)
        })?);
    }
    for number in 0..edits {
        let prefix = [source(number).into()];
        deleted.push(timed(|| Ok(sandbox.rules().remove(ListKind::Deny, &prefix)?))?);
    }
    // Whoever bans goes on for a while when the ban is in force already, so packets come from another thread.
    std::thread::scope(|scope| -> Outcome<()> {
        let (ask, asked) = mpsc::channel::<NewEntry>();
        let (done, is_done) = mpsc::channel();
        let rules = sandbox.rules();
        scope.spawn(move || {
            let mut before = waited();
            for entry in asked {
                let banned = rules.add(ListKind::Ban, std::slice::from_ref(&entry), &mut |_| {});
                let waited = waited();
                let for_a_processor = waited.saturating_sub(std::mem::replace(&mut before, waited));
                if done.send(banned.map(|_| for_a_processor)).is_err() {
                    return;
                }
            }
        });
        for number in 0..bans {
            let IpAddr::V4(address) = source(number) else { continue };
            let (frame, entry) = (frame_v4(address), entry(number, Some(Duration::from_secs(600))));
            if sandbox.run(&frame, 1)?.action != Action::Pass {
                return Err(format!("{address} was dropped before it was banned").into());
            }
            let before = waited();
            let time = timed(|| {
                ask.send(entry)?;
                for _ in 0..MOST_PACKETS {
                    if sandbox.run(&frame, 1)?.action == Action::Drop {
                        return Ok(());
                    }
                }
                Err(format!("{address} was banned and still passes").into())
            })?;
            let this_thread = waited().saturating_sub(before);
            let other_thread = is_done.recv()??;
            dropped.push(time);
            // They may have waited at the same time, so the waits are not summed. Still an estimate: the other thread may
            // also have waited just before it was asked, or after the ban was in force.
            running.push(time.saturating_sub(this_thread.max(other_thread)));
        }
        Ok(())
    })?;
    let rows = [
        row("one entry added", added),
        row("one entry deleted", deleted),
        row("a ban, until its source's next packet is dropped", dropped),
        row("of it, less the longer wait of a thread for a processor", running),
    ];
    let header = ["beside a list of IPv4", "times", "median, µs", "99th percentile, µs", "longest, µs"];
    Ok(format!(
        "{}\nEach change by itself, under the writers' lock, beside a list of {prefixes} prefixes. In the third row one \
         thread bans and another runs the program over packets, so it has in it that a thread wakes, and a test run's \
         preparation. The last row leaves out what the kernel's scheduler says (/proc/thread-self/schedstat) that the one \
         of the two threads that waited longer was ready to run and did not; an estimate, as that thread's waits just before \
         and after the ban count too. The longest additions have made room for the next ones, \
         after their entry was in force.\n",
        markdown(&header, &rows)
    ))
}

fn source(number: u32) -> IpAddr {
    Ipv4Addr::from(FIRST + number).into()
}

fn entry(number: u32, ttl: Option<Duration>) -> NewEntry {
    NewEntry { prefix: source(number).into(), rule: RULE.to_owned(), ttl, shadow: false }
}

/// How long this thread was ready to run and had no processor, since it began. 0 where the kernel does not say.
fn waited() -> Duration {
    let says = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    // Nanoseconds on a processor, nanoseconds waiting for one, times that it had one.
    Duration::from_nanos(says.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0))
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn row(name: &str, mut times: Vec<Duration>) -> Vec<String> {
    times.sort_unstable();
    let at = |share: usize| {
        let time = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        time.map_or_else(|| "–".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e6))
    };
    vec![name.to_owned(), times.len().to_string(), at(50), at(99), at(100)]
}
