//! `gateway status`: the agent, or, when it is down, what it left in force.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use gateway_kernel::{DefaultVerdict, Enforcement, Error, InterfaceState, ListInfo, MapUsage, State};

use super::Global;
use super::backend::Backend;
use super::failure::{Failure, Outcome};
use super::output::{Column, Out, Paint, clean, entries, spell};
use crate::control::{AgentStatus, ClientError, Phase, Status};
use crate::proxy::{self, Condition, Position};
use crate::sources::{SourceState, SourceStatus};

/// How to show it.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, global: &Global, out: &mut Out) -> Outcome {
    let status = match global.agent().and_then(|(agent, _)| agent.status()) {
        Ok(status) => status,
        Err(ClientError::Absent(_) | ClientError::Another { .. }) => pinned(global)?,
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        return Ok(out.json(&status)?);
    }
    print(&status, out)
}

/// What is in force without an agent.
fn pinned(global: &Global) -> Outcome<Status> {
    let interfaces = match gateway_kernel::attachments(&global.pin_dir) {
        Ok(interfaces) => interfaces,
        Err(error @ Error::NotPinned(_)) => {
            return Err(Failure::Wrong(format!("nothing is there: {error}")));
        }
        Err(error) => return Err(error.into()),
    };
    let backend = Backend::open(global)?;
    Ok(Status {
        agent: None,
        pin_dir: global.pin_dir.clone(),
        kernel: State {
            enforcement: Enforcement::Kernel,
            interfaces,
            default: gateway_kernel::default_verdict(&global.pin_dir)?,
        },
        maps: backend.usage()?,
        lists: backend.lists()?,
        sources: Vec::new(),
        proxy: None,
    })
}

/// A line a fact: what it is about, its name, and what there is to say.
type Row = [String; 3];

fn print(status: &Status, out: &mut Out) -> Outcome {
    let mut rows: Vec<Row> = Vec::new();
    match &status.agent {
        Some(agent) => rows.extend(agent_rows(agent, SystemTime::now())),
        None => {
            let text = "down; what it pinned stays in force, and nothing is proxied";
            rows.push(fact("agent", "phase", text));
        }
    }
    rows.extend(kernel_rows(status));
    rows.extend(status.maps.iter().map(map_row));
    rows.extend(status.lists.iter().map(list_row));
    rows.extend(status.sources.iter().map(source_row));
    rows.extend(status.proxy.iter().flat_map(proxy_rows));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.map(|cell| clean(&cell)).to_vec()).collect();
    if status.agent.is_none() && out.terminal {
        let line = out.paint(Paint::Yellow, "the agent is down");
        out.line(line)?;
    }
    Ok(out.table(&[Column::words(""), Column::words(""), Column::words("")], &rows)?)
}

fn agent_rows(agent: &AgentStatus, now: SystemTime) -> Vec<Row> {
    let phase = match agent.phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Draining => "draining",
    };
    let mut rows = vec![
        fact("agent", "phase", phase),
        fact("agent", "version", &agent.version),
        fact("agent", "pid", &agent.pid.to_string()),
        fact("agent", "up", &spell(Duration::from_secs(agent.uptime_seconds))),
        fact("agent", "socket", &agent.socket.display().to_string()),
        fact("agent", "admin", &agent.admin.map_or_else(|| "off".to_owned(), |at| at.to_string())),
        fact("config", "file", &agent.config.path.display().to_string()),
        fact("config", "hash", &agent.config.hash),
    ];
    if let Some(reload) = &agent.config.last_reload {
        let at = UNIX_EPOCH + Duration::from_millis(reload.time_ms);
        let ago = spell(now.duration_since(at).unwrap_or_default());
        let outcome = match &reload.error {
            None => format!("taken {ago} ago"),
            // All of the mistakes are in the log and in --json; a row has room for the first.
            Some(error) => format!("refused {ago} ago: {}", error.lines().next().unwrap_or_default()),
        };
        rows.push(fact("config", "last reload", &outcome));
    }
    rows
}

fn kernel_rows(status: &Status) -> Vec<Row> {
    let place = match &status.kernel.enforcement {
        Enforcement::Kernel => "in the kernel".to_owned(),
        Enforcement::Userspace { why } => format!("in userspace, at accept: {why}"),
    };
    let default = match status.kernel.default {
        DefaultVerdict::Pass => "pass",
        DefaultVerdict::Drop => "drop, but for allowed sources and answers to this host",
    };
    let mut rows = vec![
        fact("rules", "enforced", &place),
        fact("rules", "default", default),
        fact("rules", "pin directory", &status.pin_dir.display().to_string()),
    ];
    rows.extend(status.kernel.interfaces.iter().map(|interface: &InterfaceState| {
        let note = interface.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        fact("interface", &interface.name, &format!("{}{note}", interface.mode))
    }));
    rows
}

fn map_row(map: &MapUsage) -> Row {
    let percent = map.entries as f64 * 100.0 / map.capacity.max(1) as f64;
    fact("map", &map.map, &format!("{} of {} ({percent:.1} %)", map.entries, map.capacity))
}

fn list_row(list: &ListInfo) -> Row {
    let shadow = if list.shadow { ", shadow" } else { "" };
    let text = format!(
        "{} {} from {}, generation {}{shadow}",
        entries(list.entries() as usize),
        list.kind.name(),
        list.source,
        list.generation
    );
    fact("list", &list.name, &text)
}

fn source_row(source: &SourceStatus) -> Row {
    let state = match source.state {
        SourceState::Pending => "not read yet",
        SourceState::Ok => "followed",
        SourceState::Failing => "failing",
        SourceState::Held => "held",
    };
    let why = source.last_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    fact("source", &source.name, &format!("{}, {state}{why}", source.origin))
}

fn proxy_rows(proxy: &proxy::Status) -> Vec<Row> {
    let listeners = proxy.listeners.iter().map(|listener| {
        let text = format!("{}, {} connections", listener.address, listener.connections);
        fact("listener", &listener.name, &text)
    });
    let endpoints = proxy.endpoints.iter().map(|endpoint| {
        let why = |why: &Option<String>| why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let health = match (endpoint.condition, &endpoint.last_error) {
            (Condition::Unhealthy, _) => format!("unhealthy{}", why(&endpoint.complaint)),
            (Condition::Ejected, _) => format!("ejected{}", why(&endpoint.complaint)),
            (Condition::Up, None) => "up".to_owned(),
            (Condition::Up, error) => format!("down{}", why(error)),
        };
        let load = format!("{} in use, {} idle", endpoint.in_use, endpoint.idle);
        fact("upstream", &endpoint.upstream, &format!("{} {load}, {health}", endpoint.endpoint))
    });
    let breakers = proxy.breakers.iter().map(|breaker| {
        let position = match breaker.position {
            Position::Closed => "closed",
            Position::Open => "open: too many requests failed",
            Position::HalfOpen => "half open: a few requests try",
        };
        fact("breaker", &breaker.upstream, position)
    });
    let discoveries = proxy.discoveries.iter().map(|discovery| {
        let state = match &discovery.failure {
            None => "followed".to_owned(),
            Some(why) => format!("failing: {why}"),
        };
        let text = format!("{}, {} endpoints, {state}", discovery.source, discovery.endpoints);
        fact("discovery", &discovery.upstream, &text)
    });
    listeners.chain(endpoints).chain(breakers).chain(discoveries).collect()
}

fn fact(about: &str, name: &str, text: &str) -> Row {
    [about.to_owned(), name.to_owned(), text.to_owned()]
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{ListKind, Owner};

    use super::super::output::testing::printed;
    use super::*;
    use crate::control::{ConfigStatus, ReloadStatus};

    fn list(name: &str, kind: ListKind, owner: Owner, shadow: bool, entries: u64) -> ListInfo {
        // As an agent sends it: not all of it is said outside of the kernel's module.
        let list = serde_json::json!({
            "kind": kind, "name": name, "owner": owner, "source": format!("lists/{name}"), "shadow": shadow,
            "entries_v4": entries, "entries_v6": 0, "generation": 7, "loaded_at": 0, "digest": 0, "rules": [],
        });
        serde_json::from_value(list).expect("a list")
    }

    fn source(name: &str, state: SourceState, error: Option<&str>) -> SourceStatus {
        SourceStatus {
            name: name.into(),
            origin: format!("/etc/gateway/{name}"),
            state,
            last_ok_ms: None,
            last_error: error.map(str::to_owned),
            next_ms: None,
        }
    }

    fn down() -> Status {
        Status {
            agent: None,
            pin_dir: "/sys/fs/bpf/gateway".into(),
            kernel: State {
                enforcement: Enforcement::Kernel,
                interfaces: vec![InterfaceState {
                    name: "eth0".into(),
                    mode: "generic".into(),
                    note: Some("the driver has no XDP".into()),
                }],
                default: DefaultVerdict::Drop,
            },
            maps: vec![MapUsage { map: "lists_v4".into(), entries: 5, capacity: 1000 }],
            lists: vec![
                list("drop.txt", ListKind::Deny, Owner::Config, false, 3),
                list("trial", ListKind::Allow, Owner::Operator, true, 1),
            ],
            sources: vec![
                source("drop.txt", SourceState::Ok, None),
                source("other.txt", SourceState::Held, Some("it shrank")),
            ],
            proxy: None,
        }
    }

    #[test]
    fn a_fact_a_line() {
        assert_eq!(
            printed(false, |out| print(&down(), out)),
            "agent\tphase\tdown; what it pinned stays in force, and nothing is proxied\n\
             rules\tenforced\tin the kernel\n\
             rules\tdefault\tdrop, but for allowed sources and answers to this host\n\
             rules\tpin directory\t/sys/fs/bpf/gateway\n\
             interface\teth0\tgeneric (the driver has no XDP)\n\
             map\tlists_v4\t5 of 1000 (0.5 %)\n\
             list\tdrop.txt\t3 entries deny from lists/drop.txt, generation 7\n\
             list\ttrial\t1 entry allow from lists/trial, generation 7, shadow\n\
             source\tdrop.txt\t/etc/gateway/drop.txt, followed\n\
             source\tother.txt\t/etc/gateway/other.txt, held: it shrank\n"
        );
    }

    #[test]
    fn a_person_sees_at_once_that_the_agent_is_down() {
        let text = printed(true, |out| print(&down(), out));
        assert_eq!(text.lines().next(), Some("the agent is down"));
        assert!(text.contains("interface  eth0           generic"), "{text}");
    }

    #[test]
    fn a_refused_reload_is_told() {
        let agent = AgentStatus {
            pid: 7,
            version: "1".into(),
            phase: Phase::Ready,
            uptime_seconds: 61,
            config: ConfigStatus {
                path: "/etc/g.yaml".into(),
                hash: "abc".into(),
                reload_failures: 1,
                last_reload: Some(ReloadStatus { time_ms: 1000, error: Some("first\nsecond".into()) }),
            },
            admin: None,
            socket: "/run/s".into(),
        };
        let rows = agent_rows(&agent, UNIX_EPOCH + Duration::from_secs(6));
        assert_eq!(rows.last(), Some(&fact("config", "last reload", "refused 5s ago: first")));
        assert!(rows.contains(&fact("agent", "up", "1m 1s")));
        assert!(rows.contains(&fact("agent", "admin", "off")));
    }
}
