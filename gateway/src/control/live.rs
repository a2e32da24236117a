//! The running agent as the admin server sees it: what it may read, and the one order it may pass on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gateway_kernel::{Counters, Enforcement, Error, MapUsage, Rules, State};
use tokio::sync::{mpsc, oneshot};

use super::events::Watchers;
use super::feeds::Feeds;
use super::recent::Recent;
use super::status::{AgentStatus, ConfigStatus, Identity, Phase, ReloadStatus, Reloaded, Status};
use crate::observe::metrics::Recorder;
use crate::observe::{AgentSample, Exposition, KernelSample, RuleLabels, render_health};
use crate::proxy;

/// An order to reload, and where the answer goes: what changed, or why the old configuration stays.
pub type ReloadOrder = oneshot::Sender<Result<Reloaded, String>>;

/// The running agent.
#[derive(Debug)]
pub struct Live {
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Where scrapers reach the agent.
    pub admin: Option<SocketAddr>,
    /// Where commands reach it.
    pub socket: PathBuf,
    /// The rules in force.
    pub rules: Rules,
    /// The sources of lists.
    pub feeds: Feeds,
    /// The metrics of the request path.
    pub recorder: Recorder,
    /// Who watches verdicts.
    pub watchers: Watchers,
    /// The last events of each source.
    pub recent: Recent,
    /// Which rules have series of their own in metrics.
    pub rule_labels: Mutex<RuleLabels>,
    /// Whether verdicts are sampled at all: not where the rules run at accept.
    pub sampled: bool,
    /// What the proxy says of itself.
    pub proxy: ProxyStatus,
    /// Tells which endpoints are well.
    pub health: ProxyHealth,
    /// Orders to reload.
    pub reload: mpsc::Sender<ReloadOrder>,
    /// The life of the agent.
    pub phase: PhaseCell,
    /// When the agent started, by both clocks.
    pub started: (Instant, SystemTime),
    /// Where and how the rules are enforced, as last seen.
    pub kernel: Mutex<State>,
    /// The configuration in force.
    pub config: Mutex<ConfigStatus>,
}

impl Live {
    /// The document that `status` shows.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        Ok(Status {
            agent: Some(AgentStatus {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                phase: self.phase.get(),
                uptime_seconds: self.started.0.elapsed().as_secs(),
                config: lock(&self.config).clone(),
                admin: self.admin,
                socket: self.socket.clone(),
            }),
            pin_dir: self.pin_dir.clone(),
            kernel: lock(&self.kernel).clone(),
            maps: self.rules.usage()?,
            lists: self.rules.lists()?,
            sources: self.feeds.status(),
            proxy: Some((self.proxy.0)()),
        })
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let userspace = matches!(lock(&self.kernel).enforcement, Enforcement::Userspace { .. });
        Identity { pid: std::process::id(), pin_dir: self.pin_dir.clone(), userspace }
    }

    /// The page of metrics. What cannot be read is logged and left out: half a page beats none.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page = Exposition::default();
        // Held while the counters are read, so that two scrapes at a time see them in one order.
        let mut labels = lock(&self.rule_labels);
        match self.kernel_counts() {
            Ok((counters, usage, evicted_bans)) => {
                let rules = labels.choose(&counters.rules);
                let state = lock(&self.kernel).clone();
                KernelSample { counters, rules, usage, evicted_bans, state }.render(&mut page);
            }
            Err(error) => tracing::warn!("metrics without the kernel's counters: {error}"),
        }
        drop(labels);
        let config = lock(&self.config).clone();
        AgentSample {
            config_hash: &config.hash,
            reload_failures: config.reload_failures,
            last_reload_success: config.last_reload.is_none_or(|reload| reload.error.is_none()),
            started: self.started.1,
            watch_dropped: self.watchers.dropped(),
        }
        .render(&mut page);
        render_health(&(self.health.0)(), &mut page);
        self.recorder.render(&mut page);
        page.finish()
    }

    fn kernel_counts(&self) -> Result<(Counters, Vec<MapUsage>, u64), Error> {
        Ok((self.rules.counters()?, self.rules.usage()?, self.rules.evicted_bans()?))
    }

    /// Notes what became of a reload.
    pub fn note_reload(&self, outcome: &Result<Reloaded, String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut config = lock(&self.config);
        match outcome {
            Ok(reloaded) => config.hash.clone_from(&reloaded.hash),
            Err(_) => config.reload_failures += 1,
        }
        config.last_reload = Some(ReloadStatus {
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            error: outcome.as_ref().err().cloned(),
        });
    }

    /// Changes how many rules have series of their own.
    pub fn set_max_rule_labels(&self, max: usize) {
        lock(&self.rule_labels).set_max(max);
    }

    /// Where and how the rules are enforced, as last seen.
    #[must_use]
    pub fn kernel_state(&self) -> State {
        lock(&self.kernel).clone()
    }

    /// Notes the state of the attachments.
    pub fn note_kernel(&self, state: State) {
        *lock(&self.kernel) = state;
    }
}

/// Asks the proxy for its status. A function and not the proxy itself, which the admin API has no right to steer.
pub struct ProxyStatus(pub Box<dyn Fn() -> proxy::Status + Send + Sync>);

impl std::fmt::Debug for ProxyStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ProxyStatus")
    }
}

/// Asks the proxy which endpoints are well; for the same reason a function.
pub struct ProxyHealth(pub Box<dyn Fn() -> Vec<proxy::EndpointHealth> + Send + Sync>);

impl std::fmt::Debug for ProxyHealth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ProxyHealth")
    }
}

/// A [`Phase`] that several threads read.
#[derive(Debug, Default)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// What the agent is doing.
    #[must_use]
    pub fn get(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        let number = match phase {
            Phase::Starting => 0,
            Phase::Ready => 1,
            Phase::Draining => 2,
        };
        self.0.store(number, Ordering::Relaxed);
    }
}

fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one assignment, so a panic leaves nothing half done.
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}
