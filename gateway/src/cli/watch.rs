//! `gateway watch`: sampled verdicts as they happen, or how many come in a second.

use clap::Args;
use clap::builder::PossibleValuesParser;
use gateway_common::verdict::Reason;
use gateway_kernel::{Event, feed};
use ipnet::IpNet;

use super::Global;
use super::failure::{Failure, Outcome};
use super::output::{Out, Paint, clean};
use super::rate;
use crate::control::events::Line;
use crate::control::{ClientError, Filter};

/// What to watch, and how to show it. Values of one option are alternatives.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Only verdicts for this reason
    #[arg(long = "reason", value_name = "NAME", value_parser = reason_names(), hide_possible_values = true)]
    reasons: Vec<String>,
    /// Only verdicts by this rule, by its label
    #[arg(long = "rule", value_name = "LABEL", value_parser = label)]
    rules: Vec<String>,
    /// Only packets from this prefix
    #[arg(long = "prefix", value_name = "CIDR", value_parser = feed::parse_prefix, conflicts_with = "rate")]
    prefixes: Vec<IpNet>,
    /// Print packets and bytes a second by verdict, reason and rule instead; needs no agent
    #[arg(long)]
    rate: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, global: &Global, out: &mut Out) -> Outcome {
    let filter = Filter::new(&arguments.reasons, &arguments.rules, &arguments.prefixes)
        .map_err(|bad| Failure::Usage(bad.to_string()))?;
    if arguments.rate {
        return rate::run(&filter, arguments.json, global, out);
    }
    let (agent, _) = global.agent()?;
    let streamed = agent.events(&filter, |line| {
        let text = String::from_utf8_lossy(line);
        if arguments.json {
            out.text(&text)?;
        } else if let Ok(line) = serde_json::from_str::<Line>(&text) {
            let line = describe(&line, out);
            out.line(line)?;
        }
        // A verdict is news: it must not wait in the buffer for the next one.
        out.flush()
    });
    match streamed {
        Ok(written) => {
            written?;
            Err(Failure::System("the agent has ended".to_owned()))
        }
        // Nothing about the command was wrong; it asks for what this agent or moment cannot give.
        Err(ClientError::Refused(problem)) if problem.status != 400 => Err(Failure::System(problem.detail)),
        Err(error) => Err(error.into()),
    }
}

/// clap lists the names in its error, and shells complete them.
fn reason_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
}

fn label(text: &str) -> Result<String, String> {
    feed::check_label(text).map(|()| text.to_owned())
}

fn describe(line: &Line, out: &Out) -> String {
    match line {
        Line::LeftOut { left_out, reason } => {
            out.paint(Paint::Yellow, &format!("({left_out} of {} left out)", clean(reason)))
        }
        Line::Event(event) => {
            let verdict = match event.verdict.as_str() {
                "pass" => out.paint(Paint::Green, "pass"),
                "drop" => out.paint(Paint::Red, "drop"),
                other => clean(other),
            };
            let rule = event.rule.as_ref().map(|rule| format!(" rule {}", clean(rule))).unwrap_or_default();
            format!(
                "{} {} {verdict} {}{rule}: {} {} bytes",
                clock(event.time_ms),
                clean(&event.interface),
                clean(&event.reason),
                flow(event),
                event.length
            )
        }
    }
}

/// `tcp 192.0.2.1:40000 -> 198.51.100.1:443`, as far as the packet was understood.
pub(super) fn flow(event: &Event) -> String {
    let end = |address: Option<std::net::IpAddr>, port: Option<u16>| match (address, port) {
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) => "?".to_owned(),
    };
    let protocol = match event.protocol {
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmpv6".to_owned(),
        Some(number) => format!("protocol {number}"),
        None => "?".to_owned(),
    };
    let (source, destination) =
        (end(event.source, event.source_port), end(event.destination, event.destination_port));
    format!("{protocol} {source} -> {destination}")
}

/// The time of day in UTC; the date is today's.
pub(super) fn clock(time_ms: u64) -> String {
    let seconds = time_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60, time_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::super::output::testing::printed;
    use super::*;

    #[test]
    fn one_line_an_event() {
        let event = Event {
            time_ms: 86_400_000 + 3_723_004,
            interface: "eth0".into(),
            verdict: "drop".into(),
            reason: "deny_list".into(),
            rule: Some("spam".into()),
            source: Some([192, 0, 2, 1].into()),
            destination: Some("2001:db8::1".parse().expect("an address")),
            protocol: Some(6),
            source_port: Some(40_000),
            destination_port: Some(443),
            length: 60,
        };
        let bare = Event {
            rule: None,
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            ..event.clone()
        };
        let icmp = Event { protocol: Some(1), source_port: None, destination_port: None, ..event.clone() };
        let table = [
            (
                Line::Event(event),
                "01:02:03.004Z eth0 drop deny_list rule spam: tcp 192.0.2.1:40000 -> [2001:db8::1]:443 60 bytes\n",
            ),
            (Line::Event(bare), "01:02:03.004Z eth0 drop deny_list: ? ? -> ? 60 bytes\n"),
            (
                Line::Event(icmp),
                "01:02:03.004Z eth0 drop deny_list rule spam: icmp 192.0.2.1 -> 2001:db8::1 60 bytes\n",
            ),
            (Line::LeftOut { left_out: 9, reason: "bad_tcp".into() }, "(9 of bad_tcp left out)\n"),
        ];
        for (line, expected) in table {
            let text = printed(true, |out| {
                let line = describe(&line, out);
                out.line(line)
            });
            assert_eq!(text, expected);
        }
    }
}
