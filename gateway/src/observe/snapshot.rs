//! The families that are read at scrape time: the kernel's counters and the agent's own state. They are
//! written straight into the page, so that a rule that is gone leaves no series behind.

use std::time::{SystemTime, UNIX_EPOCH};

use gateway_kernel::{Count, Counters, DETACHED, MapUsage, State};

use super::exposition::{Exposition, Kind};
use super::rule_labels::ShownRules;
use crate::proxy::EndpointHealth;

/// What the kernel (or its stand-in at accept) counted.
#[derive(Debug)]
pub struct KernelSample {
    /// Packets and bytes by reason, and what was lost.
    pub counters: Counters,
    /// Hits by rule, as far as rules have series of their own.
    pub rules: ShownRules,
    /// How full the maps are.
    pub usage: Vec<MapUsage>,
    /// Bans that left because there were too many.
    pub evicted_bans: u64,
    /// Where the rules are enforced.
    pub state: State,
}

/// What the agent says of itself.
#[derive(Debug)]
pub struct AgentSample<'a> {
    /// The hash of the configuration in force.
    pub config_hash: &'a str,
    /// Reloads that were refused since the start.
    pub reload_failures: u64,
    /// Whether the last attempt to load a configuration succeeded.
    pub last_reload_success: bool,
    /// When the agent started.
    pub started: SystemTime,
    /// Sampled events that `watch` clients were too slow to take.
    pub watch_dropped: u64,
}

/// A family's name, its help, and its value in a row.
type FamilyOf<Row> = (&'static str, &'static str, fn(&Row) -> u64);

/// Writes whether endpoints are well, of upstreams where somebody looks.
pub fn render_health(endpoints: &[EndpointHealth], page: &mut Exposition) {
    let name = "gateway_upstream_endpoint_healthy";
    page.family(name, Kind::Gauge, "1 for endpoints that get requests, 0 for those that are taken out.");
    for EndpointHealth { upstream, endpoint, is_healthy } in endpoints {
        page.sample(name, &[("upstream", upstream), ("endpoint", endpoint)], u8::from(*is_healthy));
    }
}

impl KernelSample {
    /// Writes the `gateway_kernel_…` and `gateway_rule_…` families.
    pub fn render(&self, page: &mut Exposition) {
        self.render_reasons(page);
        self.render_rules(page);
        self.render_maps(page);
        self.render_attachments(page);
        let name = "gateway_kernel_events_lost_total";
        page.family(name, Kind::Counter, "Sampled verdicts that no reader got.");
        page.sample(name, &[], self.counters.events_lost);
    }

    fn render_reasons(&self, page: &mut Exposition) {
        let families: [FamilyOf<Count>; 2] = [
            (
                "gateway_kernel_packets_total",
                "Packets judged (connections where the rules run at accept).",
                |count| count.packets,
            ),
            ("gateway_kernel_bytes_total", "Bytes on the wire of the packets judged.", |count| count.bytes),
        ];
        for (name, help, value) in families {
            page.family(name, Kind::Counter, help);
            for row in &self.counters.reasons {
                let labels =
                    [("interface", &*row.interface), ("verdict", &*row.verdict), ("reason", &*row.reason)];
                page.sample(name, &labels, value(&row.count));
            }
        }
    }

    fn render_rules(&self, page: &mut Exposition) {
        let name = "gateway_rule_hits_total";
        page.family(name, Kind::Counter, "Packets that a rule decided, shadowed ones included.");
        for (rule, list, hits) in &self.rules.series {
            page.sample(name, &[("rule", rule), ("list", list)], hits);
        }
        let name = "gateway_rule_labels_left_out";
        page.family(
            name,
            Kind::Gauge,
            "Rules that are summed under rule=\"other\", because there are more than admin.max_rule_labels.",
        );
        page.sample(name, &[], self.rules.left_out);
    }

    fn render_maps(&self, page: &mut Exposition) {
        let families: [FamilyOf<MapUsage>; 2] = [
            ("gateway_kernel_map_entries", "Entries in a map.", |map| map.entries),
            ("gateway_kernel_map_capacity", "Entries a map can hold.", |map| map.capacity),
        ];
        for (name, help, value) in families {
            page.family(name, Kind::Gauge, help);
            for map in &self.usage {
                page.sample(name, &[("map", &map.map)], value(map));
            }
        }
        let name = "gateway_bans_evicted_total";
        page.family(name, Kind::Counter, "Bans that left because there were too many; the oldest do.");
        page.sample(name, &[], self.evicted_bans);
    }

    fn render_attachments(&self, page: &mut Exposition) {
        let name = "gateway_kernel_attached";
        page.family(
            name,
            Kind::Gauge,
            "1 for every interface that is protected in the kernel, by mode; 0 for one that should be.",
        );
        for interface in &self.state.interfaces {
            let is_attached = u64::from(interface.mode != DETACHED);
            page.sample(name, &[("interface", &interface.name), ("mode", &interface.mode)], is_attached);
        }
    }
}

impl AgentSample<'_> {
    /// Writes the families about the agent and its configuration.
    pub fn render(&self, page: &mut Exposition) {
        let version = env!("CARGO_PKG_VERSION");
        let mut one = |name: &str, kind, help: &str, labels: &[(&str, &str)], value: String| {
            page.family(name, kind, help);
            page.sample(name, labels, value);
        };
        one("gateway_build_info", Kind::Gauge, "Always 1.", &[("version", version)], "1".to_owned());
        one(
            "gateway_config_info",
            Kind::Gauge,
            "Always 1; the hash of the configuration in force.",
            &[("hash", self.config_hash)],
            "1".to_owned(),
        );
        one(
            "gateway_config_last_reload_success",
            Kind::Gauge,
            "1 if the last attempt to load a configuration succeeded, else 0.",
            &[],
            u8::from(self.last_reload_success).to_string(),
        );
        one(
            "gateway_config_reload_failures_total",
            Kind::Counter,
            "Reloads that were refused; the configuration before them stayed in force.",
            &[],
            self.reload_failures.to_string(),
        );
        one(
            "gateway_watch_dropped_total",
            Kind::Counter,
            "Sampled verdicts dropped because a watcher was slow.",
            &[],
            self.watch_dropped.to_string(),
        );
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        one(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, in seconds since the Unix epoch.",
            &[],
            format!("{:.3}", started.as_secs_f64()),
        );
        if let Some(bytes) = resident_bytes() {
            let help = "Resident memory in bytes.";
            one("process_resident_memory_bytes", Kind::Gauge, help, &[], bytes.to_string());
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use gateway_kernel::{Enforcement, InterfaceState, ReasonCount};

    use super::*;

    #[test]
    fn the_kernel_page_is_golden() {
        let count = Count { packets: 3, bytes: 180 };
        let sample = KernelSample {
            evicted_bans: 7,
            counters: Counters {
                reasons: vec![ReasonCount {
                    interface: "eth0".into(),
                    verdict: "drop".into(),
                    reason: "deny_list".into(),
                    count,
                }],
                rules: Vec::new(),
                events_lost: 7,
            },
            rules: ShownRules {
                series: vec![("bad \"guys\"".into(), "ban".into(), 3), ("other".into(), "ban".into(), 9)],
                left_out: 2,
            },
            usage: vec![MapUsage { map: "lists_v4".into(), entries: 2, capacity: 10 }],
            state: State {
                enforcement: Enforcement::Kernel,
                interfaces: vec![InterfaceState { name: "eth0".into(), mode: "native".into(), note: None }],
                default: Default::default(),
            },
        };
        let mut page = Exposition::default();
        sample.render(&mut page);
        assert_eq!(page.finish(), include_str!("testdata/kernel.prom"));
    }

    #[test]
    fn the_agent_speaks_of_itself() {
        let sample = AgentSample {
            config_hash: "abc",
            reload_failures: 2,
            last_reload_success: false,
            started: UNIX_EPOCH + std::time::Duration::from_millis(1500),
            watch_dropped: 4,
        };
        let mut page = Exposition::default();
        sample.render(&mut page);
        let page = page.finish();
        for line in [
            "gateway_config_info{hash=\"abc\"} 1",
            "gateway_config_last_reload_success 0",
            "gateway_config_reload_failures_total 2",
            "gateway_watch_dropped_total 4",
            "process_start_time_seconds 1.500",
        ] {
            assert!(page.lines().any(|found| found == line), "no line {line} in\n{page}");
        }
    }
}
