//! `gateway explain`: what would happen to a packet, replayed over the rules in force.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};
use gateway_kernel::{Entry, Explanation};

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::output::{Column, Out, Paint, clean};
use crate::control::ExplainBody;
use crate::observe::list_name;

/// What to explain.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Replay the stages for a TCP SYN from this address; exits 1 if it would be dropped
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
}

pub(super) fn run(arguments: &Arguments, global: &Global, out: &mut Out) -> Outcome {
    let What::Packet { source, dst, json } = arguments.what;
    let backend = Backend::open(global)?;
    let explanation = backend.explain(ExplainBody { source, destination: dst })?;
    if json {
        out.json(&explanation)?;
    } else {
        print(&explanation, out)?;
    }
    if explanation.verdict == "pass" { Ok(()) } else { Err(Failure::No) }
}

fn print(explanation: &Explanation, out: &mut Out) -> Outcome {
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
    Ok(out.table(&columns, &rows)?)
}

fn describe(entry: &Entry) -> String {
    let mut text = format!("{} in {}, rule {}", entry.prefix, list_name(entry.list), clean(&entry.rule));
    if let Some(seconds) = entry.ttl_seconds {
        text.push_str(&format!(", for {seconds}s more"));
    }
    if entry.shadow {
        text.push_str(", shadow");
    }
    text
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListKind, Owner, StageTrace};

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
            owners: vec![Owner::Operator],
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
            stages: vec![stage("parse", "next", None), stage("ban", "drop", Some(entry))],
        };
        assert_eq!(
            printed(true, |out| print(&explanation, out)),
            "192.0.2.1: drop (banned): The source is banned.\n\
             STAGE  OUTCOME  ENTRY\n\
             parse  next\n\
             ban    drop     192.0.2.0/24 in ban, rule scan, for 60s more\n"
        );
    }
}
