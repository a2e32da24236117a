//! `gateway explain`: what would happen to a packet, replayed over the rules in force, and what happened to
//! the last ones from its source; and, in `request.rs`, what would happen to a request.

mod request;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use gateway_kernel::{Entry, Event, SetBy};

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::output::{Column, Out, Paint, clean, spell};
use super::watch::flow;
use crate::control::{ExplainBody, Explained, Reply, Request};

/// What to explain.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Replay the stages for a TCP SYN from this address, and show what was last seen of it; exits 1 if it
    /// would be dropped
    Packet {
        /// The source address
        #[arg(value_name = "IP")]
        source: IpAddr,
        /// The destination; without it, stages that need one say so
        #[arg(long, value_name = "IP:PORT")]
        dst: Option<SocketAddr>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say which route takes a request, by a configuration and without sending it; exits 1 if none does
    Request(Box<request::Arguments>),
}

pub(super) fn run(arguments: &Arguments, global: &Global, out: &mut Out) -> Outcome {
    let (source, dst, json) = match &arguments.what {
        What::Request(arguments) => return request::run(arguments, out),
        What::Packet { source, dst, json } => (*source, *dst, *json),
    };
    let backend = Backend::open(global)?;
    let packet = ExplainBody { source, destination: dst };
    let mut explained = backend.explain(packet.clone())?;
    if let Backend::Here(_) = backend {
        explained.recent = recent(packet, global);
    }
    if json {
        out.json(&explained)?;
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        print(&explained, now, out)?;
    }
    if explained.explanation.verdict == "pass" { Ok(()) } else { Err(Failure::No) }
}

/// What the agent remembers of the source; `None` when there is no agent to ask, which is no failure: the
/// explanation itself comes from the maps.
fn recent(packet: ExplainBody, global: &Global) -> Option<Vec<Event>> {
    let (agent, _) = global.agent().ok()?;
    match agent.call(&Request::Explain(packet)) {
        Ok(Reply::Explanation(explained)) => explained.recent,
        _ => None,
    }
}

/// `now` is since the Unix epoch.
fn print(explained: &Explained, now: Duration, out: &mut Out) -> Outcome {
    let explanation = &explained.explanation;
    let verdict = match explanation.verdict.as_str() {
        "pass" => out.paint(Paint::Green, "pass"),
        other => out.paint(Paint::Red, &clean(other)),
    };
    let (reason, sentence) = (clean(&explanation.reason), clean(&explanation.sentence));
    out.line(format!("{}: {verdict} ({reason}): {sentence}", explanation.source))?;
    let columns = [Column::words("STAGE"), Column::words("OUTCOME"), Column::words("ENTRY")];
    let rows: Vec<Vec<String>> = explanation
        .stages
        .iter()
        .map(|stage| {
            let entry = stage.entry.as_ref().map(describe).unwrap_or_default();
            vec![clean(&stage.stage), clean(&stage.outcome), entry]
        })
        .collect();
    out.table(&columns, &rows)?;
    for entry in &explanation.shadow {
        out.line(format!("in shadow: {}", describe(entry)))?;
    }
    match explained.recent.as_deref() {
        None => out.line("last seen: unknown; events need a running agent that enforces in the kernel")?,
        Some([]) => out.line("last seen: no event lately (plain packets that pass leave none)")?,
        Some(events) => print_recent(events, now, out)?,
    }
    Ok(())
}

fn print_recent(events: &[Event], now: Duration, out: &mut Out) -> Outcome {
    let columns = [
        Column::words("LAST SEEN"),
        Column::words("ON"),
        Column::words("VERDICT"),
        Column::words("REASON"),
        Column::words("RULE"),
        Column::words("PACKET"),
        Column::number("BYTES"),
    ];
    let row = |event: &Event| {
        vec![
            format!("{} ago", spell(now.saturating_sub(Duration::from_millis(event.time_ms)))),
            clean(&event.interface),
            clean(&event.verdict),
            clean(&event.reason),
            event.rule.as_deref().map_or_else(|| "-".to_owned(), clean),
            flow(event),
            event.length.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    Ok(out.table(&columns, &rows)?)
}

fn describe(entry: &Entry) -> String {
    let mut text = format!("{} in {}, rule {}", entry.prefix, clean(&entry.from), clean(&entry.rule));
    if let Some(generation) = entry.generation {
        text.push_str(&format!(", generation {generation}"));
    }
    if let Some(seconds) = entry.ttl_seconds {
        text.push_str(&format!(", for {seconds}s more"));
    }
    if let (Some(by), Some(seconds)) = (entry.set_by, entry.age_seconds) {
        let by = match by {
            SetBy::Cli => "the command line",
            SetBy::Api => "the API",
            SetBy::Policy => "a policy",
        };
        text.push_str(&format!(", set {} ago by {by}", spell(Duration::from_secs(seconds))));
    }
    if let Some(evidence) = &entry.evidence {
        text.push_str(&format!(", evidence {}", clean(evidence)));
    }
    if entry.shadow {
        text.push_str(", shadow");
    }
    text
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{Explanation, ListKind, Owner, StageTrace};

    use super::super::output::testing::printed;
    use super::*;

    #[test]
    fn stage_by_stage() {
        let entry = Entry {
            list: ListKind::Ban,
            prefix: "192.0.2.0/24".parse().expect("a prefix"),
            rule: "scan".into(),
            ttl_seconds: Some(60),
            shadow: false,
            from: "ban".into(),
            owner: Owner::Operator,
            generation: None,
            set_by: Some(SetBy::Policy),
            age_seconds: Some(3),
            evidence: Some("request 7".into()),
        };
        let on_trial = Entry {
            list: ListKind::Deny,
            from: "feed".into(),
            ttl_seconds: None,
            shadow: true,
            owner: Owner::Config,
            generation: Some(4),
            set_by: None,
            age_seconds: None,
            evidence: None,
            ..entry.clone()
        };
        let stage = |stage: &str, outcome: &str, entry| StageTrace {
            stage: stage.into(),
            outcome: outcome.into(),
            entry,
        };
        let explanation = Explanation {
            source: [192, 0, 2, 1].into(),
            verdict: "drop".into(),
            reason: "banned".into(),
            sentence: "The source is banned.".into(),
            generation: 4,
            stages: vec![stage("parse", "next", None), stage("ban", "drop", Some(entry))],
            shadow: vec![on_trial],
        };
        let event = Event {
            time_ms: 5000,
            interface: "eth0".into(),
            verdict: "drop".into(),
            reason: "ban_list".into(),
            rule: Some("scan".into()),
            source: Some([192, 0, 2, 1].into()),
            destination: Some([198, 18, 0, 1].into()),
            protocol: Some(6),
            source_port: Some(4000),
            destination_port: Some(443),
            length: 60,
        };
        let earlier = Event { time_ms: 1000, rule: None, ..event.clone() };
        let table = [
            (None, "last seen: unknown; events need a running agent that enforces in the kernel\n"),
            (Some(vec![]), "last seen: no event lately (plain packets that pass leave none)\n"),
            (
                Some(vec![event, earlier]),
                "LAST SEEN  ON    VERDICT  REASON    RULE  PACKET                                BYTES\n\
                 2s ago     eth0  drop     ban_list  scan  tcp 192.0.2.1:4000 -> 198.18.0.1:443     60\n\
                 6s ago     eth0  drop     ban_list  -     tcp 192.0.2.1:4000 -> 198.18.0.1:443     60\n",
            ),
        ];
        for (recent, section) in table {
            let explained = Explained { explanation: explanation.clone(), recent };
            let text = printed(true, |out| print(&explained, Duration::from_secs(7), out));
            let expected = format!(
                "192.0.2.1: drop (banned): The source is banned.\n\
                 STAGE  OUTCOME  ENTRY\n\
                 parse  next\n\
                 ban    drop     192.0.2.0/24 in ban, rule scan, for 60s more, set 3s ago by a policy, evidence request 7\n\
                 in shadow: 192.0.2.0/24 in feed, rule scan, generation 4, shadow\n{section}"
            );
            assert_eq!(text, expected);
        }
    }
}
