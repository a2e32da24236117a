//! The composition root: starts everything in order, wires it together, and drains it at the end.
//!
//! Order: configuration, kernel protection, listeners, admin. Whoever is protected is protected before
//! anything listens, and the admin server comes last because it answers for all the others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gateway_kernel::{Enforcement, Error, Plan, Protection, SourceSampling, State};
use thiserror::Error as ThisError;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::control::events::{Watchers, pump};
use crate::control::feeds::Feeds;
use crate::control::{
    AdminSocket, ConfigStatus, Live, Phase, ProxyHealth, ProxyStatus, Recent, ReloadOrder, Reloaded,
    SocketError, serve_tcp, serve_unix,
};
use crate::model::{self, Model};
use crate::observe::RuleLabels;
use crate::observe::metrics::Recorder;
use crate::proxy::{Arrival, Proxy, ProxyError};

/// How often expired entries are taken out of the maps. The programs ignore them at once, anyway.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Files are taken after two looks at the same state, so within twice this time.
const LOOK_AT_CERTIFICATES_EVERY: Duration = Duration::from_secs(5);
/// How often workers are told of other endpoints at most: sources that change together are taken together.
const TAKE_ENDPOINTS_EVERY: Duration = Duration::from_millis(200);
/// How far a reload stands back behind requests. On a machine that is busy throughout it still gets a tenth of what a worker
/// gets: at 19 that is a hundredth, and a reload may take half a minute there; in the class of idle work, minutes.
const RELOAD_NICENESS: i32 = 10;
/// How long the requests of a configuration that was replaced may keep it from being freed by the thread for that.
const FREE_WITHIN: Duration = Duration::from_secs(2);
/// Reloads that wait for the one under way.
const RELOAD_QUEUE: usize = 4;
/// Threads for what reads and writes maps beside the event loop.
const MAX_BLOCKING_THREADS: usize = 4;
/// What a map operation that is under way at the end may still take.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// What the command line says of an agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// The admin socket, instead of the configuration's.
    pub socket: Option<PathBuf>,
}

/// Why an agent could not start. Nothing of it is left behind then.
#[derive(Debug, ThisError)]
pub enum StartError {
    /// The configuration has mistakes.
    #[error("the configuration has mistakes")]
    Config(config::Report),
    /// The kernel or the lists.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// The listeners.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The files of certificates that are obtained.
    #[error("{0}")]
    Acme(String),
    /// The admin socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The admin listener.
    #[error(
        "cannot listen on {address} for admin.address: {error}; stop whoever holds it, or choose another address"
    )]
    Admin {
        /// Where.
        address: SocketAddr,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The event loop.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried, as an infinitive.
        what: &'static str,
        /// The system's answer.
        error: std::io::Error,
    },
}

/// Runs an agent until it is told to end.
///
/// # Errors
/// See [`StartError`]; once it is ready, it ends well.
pub fn run(options: Options) -> Result<(), StartError> {
    let started = (Instant::now(), SystemTime::now());
    let model = load(&options.config).map_err(StartError::Config)?;
    let recorder = Recorder::default();
    recorder.install();
    crate::observe::http::describe();
    crate::observe::llm::describe();
    crate::sources::describe();
    crate::discovery::describe();
    crate::tls::describe();
    crate::observe::access_log::describe();
    crate::acme::describe();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(system("start the event loop"))?;
    let outcome = runtime.block_on(async {
        // Before anything else, for a signal that nobody handles would kill a half-started agent.
        let mut signals = Signals::new().map_err(system("handle signals"))?;
        let agent = Agent::start(options, model, recorder, started)?;
        agent.serve(&mut signals).await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_BREATH);
    outcome
}

/// Reads the configuration; what may not be meant is for the log.
fn load(path: &Path) -> Result<Model, config::Report> {
    let config::Checked { model, warnings } = config::check(path, &environment)?;
    for config::Diagnostic { file, line, column, message, .. } in warnings.diagnostics() {
        tracing::warn!("{file}:{line}:{column}: {message}");
    }
    Ok(model)
}

/// The variables that a configuration may refer to.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

/// What comes after the kernel.
struct Assembled {
    live: Arc<Live>,
    proxy: Arc<Proxy>,
    acme: watch::Sender<Option<model::Acme>>,
    socket: AdminSocket,
    orders: mpsc::Receiver<ReloadOrder>,
}

/// A running agent.
struct Agent {
    options: Options,
    live: Arc<Live>,
    proxy: Arc<Proxy>,
    /// Tells who obtains certificates of each configuration.
    acme: watch::Sender<Option<model::Acme>>,
    protection: Arc<Mutex<Protection>>,
    /// The plan in force, to go back to when a reload fails half-way.
    plan: Plan,
    admin: model::Admin,
    list_cache: PathBuf,
    drain_timeout: Duration,
    orders: mpsc::Receiver<ReloadOrder>,
    // Removes the socket's file when the agent goes.
    _socket: AdminSocket,
}

impl Agent {
    /// Starts everything in order, inside the runtime.
    fn start(
        options: Options,
        model: Model,
        recorder: Recorder,
        started: (Instant, SystemTime),
    ) -> Result<Self, StartError> {
        let mut protection = Protection::start(&model.kernel, &options.pin_dir)?;
        match Self::assemble(&options, &model, &mut protection, recorder, started) {
            Ok(Assembled { live, proxy, acme, socket, orders }) => {
                if let Err(error) = protection.settle() {
                    tracing::error!("what an earlier agent pinned could not be removed: {error}");
                }
                announce(&model, &live.kernel_state(), socket.path());
                live.phase.set(Phase::Ready);
                Ok(Self {
                    options,
                    live,
                    proxy,
                    acme,
                    protection: Arc::new(Mutex::new(protection)),
                    drain_timeout: model.proxy.drain_timeout,
                    plan: model.kernel,
                    admin: model.admin,
                    list_cache: model.lists.cache,
                    orders,
                    _socket: socket,
                })
            }
            Err(error) => {
                // What an agent before this one pinned comes back into force.
                if let Err(left) = protection.abandon() {
                    tracing::error!("the kernel's state before this start could not be restored: {left}");
                }
                Err(error)
            }
        }
    }

    /// Everything after the kernel: listeners, admin, and the tasks between them.
    fn assemble(
        options: &Options,
        model: &Model,
        protection: &mut Protection,
        recorder: Recorder,
        started: (Instant, SystemTime),
    ) -> Result<Assembled, StartError> {
        let rules = protection.rules().clone();
        let judge = rules.clone();
        if let Some(acme) = &model.acme {
            crate::acme::prepare(acme).map_err(StartError::Acme)?;
        }
        let rulings = rules.clone();
        let proxy = Arc::new(Proxy::start_with(
            &model.proxy,
            Arc::new(move |arrival: Arrival| match arrival.announced {
                false => judge.admits(arrival.peer, arrival.local),
                true => judge.admits_announced(arrival.peer, arrival.local),
            }),
            Arc::new(move |client| rulings.ruling(client).ok()),
        )?);
        let tcp = model.admin.address.map(listen).transpose()?;
        let socket_path = options.socket.clone().unwrap_or_else(|| model.admin.socket.clone());
        let (socket, unix) = AdminSocket::bind(&socket_path)?;
        let unix = UnixListener::from_std(unix).map_err(system("poll the admin socket"))?;
        let (reload, orders) = mpsc::channel(RELOAD_QUEUE);
        let events = protection.take_events();
        let feeds = Feeds::start(rules.clone(), &model.lists);
        let live = Arc::new(Live {
            pin_dir: options.pin_dir.clone(),
            admin: model.admin.address,
            socket: socket_path,
            rules,
            feeds,
            recorder,
            watchers: Watchers::default(),
            recent: Recent::default(),
            rule_labels: Mutex::new(RuleLabels::new(model.admin.max_rule_labels)),
            sampled: events.is_some(),
            proxy: ProxyStatus(Box::new({
                let proxy = Arc::clone(&proxy);
                move || proxy.status()
            })),
            health: ProxyHealth(Box::new({
                let proxy = Arc::clone(&proxy);
                move || proxy.health()
            })),
            reload,
            phase: Default::default(),
            started,
            kernel: Mutex::new(protection.state()),
            config: Mutex::new(ConfigStatus {
                path: options.config.clone(),
                hash: model.config_hash.clone(),
                reload_failures: 0,
                last_reload: None,
            }),
        });
        if let Some(tcp) = tcp {
            tokio::spawn(serve_tcp(tcp, Arc::clone(&live)));
        }
        tokio::spawn(serve_unix(unix, Arc::clone(&live)));
        tokio::spawn(renew_certificates(Arc::clone(&proxy)));
        tokio::spawn(take_endpoints(Arc::clone(&proxy)));
        let acme = watch::Sender::new(model.acme.clone());
        tokio::spawn(crate::acme::run(acme.subscribe()));
        if let Some(events) = events {
            tokio::spawn(pump(events, live.watchers.clone(), live.recent.clone()));
        }
        Ok(Assembled { live, proxy, acme, socket, orders })
    }

    /// Serves until a signal ends it, then drains.
    async fn serve(mut self, signals: &mut Signals) {
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = Sweep::new(&self);
        loop {
            tokio::select! {
                _ = sweeps.tick() => sweep.run().await,
                _ = signals.hangup.recv() => {
                    // The outcome is in the log; nobody waits for it.
                    let _ = self.reload().await;
                }
                Some(order) = self.orders.recv() => {
                    let outcome = self.reload().await;
                    // Whoever asked may have gone away since.
                    let _ = order.send(outcome);
                }
                () = signals.end.recv() => break,
            }
        }
        self.drain(&mut signals.end).await;
    }

    /// Loads the configuration again. All of it comes into force, or nothing does.
    async fn reload(&mut self) -> Result<Reloaded, String> {
        // Whoever moved its file away wants another one, whatever becomes of the configuration.
        self.proxy.reopen_access_log();
        let outcome = self.try_reload().await;
        self.live.note_reload(&outcome);
        match &outcome {
            Ok(reloaded) => {
                tracing::info!(hash = reloaded.hash, "the configuration was reloaded");
                for what in &reloaded.needs_restart {
                    tracing::warn!("{what} changed, which takes a restart");
                }
            }
            Err(why) => {
                tracing::error!(
                    "the reload was refused, and the configuration before it stays in force: {why}"
                );
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<Reloaded, String> {
        let path = self.options.config.clone();
        let changes = self.live.feeds.changes();
        let model = aside(move || load(&path)).await?.map_err(|report| report.render(false))?;
        // Another cache holds nothing of what was fetched so far.
        let other_cache = model.lists.cache != self.list_cache;
        let plan = if other_cache { self.as_of_now(&model.kernel).await? } else { model.kernel };
        self.apply(plan.clone()).await?;
        let proxy = Arc::clone(&self.proxy);
        let drain_timeout = model.proxy.drain_timeout;
        let (wanted, acme) = (model.proxy, model.acme.clone());
        let served = aside(move || {
            acme.as_ref().map_or(Ok(()), crate::acme::prepare)?;
            proxy.reload(&wanted).map_err(|error| error.to_string())
        })
        .await;
        let reloaded = match served.and_then(|served| served) {
            Ok(reloaded) => reloaded,
            Err(why) => return Err(self.restore(why).await),
        };
        let mut needs_restart = self.needs_restart(&model.admin);
        if reloaded.workers_need_restart {
            needs_restart.push("the number of workers".to_owned());
        }
        self.live.set_max_rule_labels(model.admin.max_rule_labels);
        if other_cache {
            needs_restart.push("kernel.list_cache".to_owned());
        }
        self.live.feeds.replace(&model.lists);
        if self.live.feeds.changes() != changes {
            // What a source brought since the configuration was read may have been overwritten.
            self.live.feeds.start_over();
        }
        self.acme.send_replace(model.acme);
        self.plan = plan;
        self.drain_timeout = drain_timeout;
        let proxy = Arc::clone(&self.proxy);
        // Nobody waits for it.
        drop(aside(move || free_former(&proxy)));
        Ok(Reloaded { hash: model.config_hash, needs_restart })
    }

    /// Goes back to the plan in force after the proxy refused its half; gives the whole story.
    async fn restore(&self, why: String) -> String {
        let restored = match self.as_of_now(&self.plan).await {
            Ok(plan) => self.apply(plan).await,
            Err(broken) => Err(broken),
        };
        self.live.feeds.start_over();
        match restored {
            Ok(()) => why,
            Err(second) => format!("{why}; and the lists before it could not be restored: {second}"),
        }
    }

    /// A plan with what was fetched since it was made.
    async fn as_of_now(&self, plan: &Plan) -> Result<Plan, String> {
        let (live, lists) = (Arc::clone(&self.live), Arc::clone(&plan.lists));
        let lists = beside(move || live.feeds.as_of_now(&lists)).await?;
        Ok(Plan { lists: Arc::new(lists), ..plan.clone() })
    }

    /// Makes the kernel follow a plan.
    async fn apply(&self, plan: Plan) -> Result<(), String> {
        let protection = Arc::clone(&self.protection);
        let state = beside(move || {
            let mut protection = protection.lock().unwrap_or_else(PoisonError::into_inner);
            protection.apply(&plan).map(|()| protection.state())
        });
        let state = state.await?.map_err(|error| error.to_string())?;
        self.live.note_kernel(state);
        Ok(())
    }

    fn needs_restart(&self, wanted: &model::Admin) -> Vec<String> {
        let mut names = Vec::new();
        if wanted.address != self.admin.address {
            names.push("admin.address".to_owned());
        }
        if wanted.socket != self.admin.socket && self.options.socket.is_none() {
            names.push("admin.socket".to_owned());
        }
        names
    }

    /// Lets what is in flight end, until the deadline or a second signal.
    async fn drain(self, signals: &mut EndSignals) {
        self.live.phase.set(Phase::Draining);
        // Whoever still waits for a reload hears that there will be none.
        drop(self.orders);
        tracing::info!("draining for at most {:?}; a second signal ends it at once", self.drain_timeout);
        tokio::select! {
            drained = self.proxy.drain(self.drain_timeout) => match drained.cut {
                0 => tracing::info!("drained"),
                cut => tracing::warn!("the deadline cut {cut} connections"),
            },
            () = signals.recv() => tracing::warn!("a second signal ended the drain"),
        }
        self.live.watchers.close();
    }
}

/// The work of every second: expired entries go, the attachments' state is looked at, and the programs note
/// sources as densely as the traffic allows.
struct Sweep {
    live: Arc<Live>,
    protection: Arc<Mutex<Protection>>,
    sampling: Arc<Mutex<SourceSampling>>,
    failing: bool,
    blind: bool,
    unhealed: Option<String>,
}

impl Sweep {
    fn new(agent: &Agent) -> Self {
        Self {
            live: Arc::clone(&agent.live),
            protection: Arc::clone(&agent.protection),
            sampling: Arc::new(Mutex::new(SourceSampling::new(agent.live.rules.clone()))),
            failing: false,
            blind: false,
            unhealed: None,
        }
    }

    async fn run(&mut self) {
        let (rules, protection) = (self.live.rules.clone(), Arc::clone(&self.protection));
        let sampling = Arc::clone(&self.sampling);
        let swept = beside(move || {
            let mut protection = protection.lock().unwrap_or_else(PoisonError::into_inner);
            let healed = protection.heal();
            let adapted = sampling.lock().unwrap_or_else(PoisonError::into_inner).adapt();
            (rules.expire(), healed, protection.state(), adapted)
        });
        let failure = match swept.await {
            Ok((expired, healed, state, adapted)) => {
                self.live.note_kernel(state);
                self.note_healed(healed);
                self.note_adapted(adapted);
                expired.err().map(|error| error.to_string())
            }
            Err(why) => Some(why),
        };
        // Once, not once a second.
        if let (false, Some(why)) = (self.failing, &failure) {
            tracing::warn!("expired entries stay in the maps, where they are ignored: {why}");
        }
        self.failing = failure.is_some();
    }
}

impl Sweep {
    /// Whatever fails here fails every second, and is worth one line.
    fn note_adapted(&mut self, adapted: Result<(), Error>) {
        if let (false, Err(error)) = (self.blind, &adapted) {
            tracing::warn!("sources are noted as densely as before: {error}");
        }
        self.blind = adapted.is_err();
    }

    /// An interface that came back is worth a line; one that cannot be attached again is worth one, once.
    fn note_healed(&mut self, healed: Result<Vec<String>, Error>) {
        match healed {
            Ok(names) => {
                self.unhealed = None;
                for name in names {
                    tracing::info!("{name} is back, and protected again");
                }
            }
            Err(error) => {
                let why = error.to_string();
                if self.unhealed.as_ref() != Some(&why) {
                    tracing::error!("an interface that came back is not protected: {why}");
                    self.unhealed = Some(why);
                }
            }
        }
    }
}

/// Takes certificates that were replaced.
async fn renew_certificates(proxy: Arc<Proxy>) {
    let mut looks = tokio::time::interval(LOOK_AT_CERTIFICATES_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let proxy = Arc::clone(&proxy);
        let look = move || {
            // What idle connections kept of former configurations, if their clients have left.
            proxy.free_former();
            proxy.renew_certificates()
        };
        if let Err(why) = beside(look).await {
            tracing::error!("certificates are not looked at: {why}");
        }
    }
}

/// Sends requests to the endpoints that are found.
async fn take_endpoints(proxy: Arc<Proxy>) {
    loop {
        proxy.endpoints_found().await;
        let taken = Arc::clone(&proxy);
        match beside(move || taken.take_endpoints().map_err(|error| error.to_string())).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) | Err(why) => tracing::error!("endpoints that were found are not used: {why}"),
        }
        tokio::time::sleep(TAKE_ENDPOINTS_EVERY).await;
    }
}

/// Runs what may take long beside the event loop.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("the work broke off: {error}"))
}

/// Runs what a reload takes in a thread of its own, which leaves the processors to requests: with as many workers as
/// processors, whatever reads thousands of routes at the same priority makes some of them wait. The thread begins at once.
/// It is used for nothing else, because a priority that was given up cannot be had back without a privilege.
fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, String>> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // If it is refused, requests wait a little.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), RELOAD_NICENESS);
        let _ = done.send(work());
    });
    async move {
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        result.await.map_err(|_| "the work broke off".to_owned())
    }
}

/// Frees the configurations before the one in force. Requests that are under way keep theirs for a moment; what idle
/// connections keep is freed with a later one.
fn free_former(proxy: &Proxy) {
    let begin = Instant::now();
    while proxy.free_former() && begin.elapsed() < FREE_WITHIN {
        std::thread::sleep(FREE_WITHIN / 20);
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|error| StartError::Admin { address, error })
}

/// The signals an agent obeys.
struct Signals {
    hangup: Signal,
    end: EndSignals,
}

/// Those that end it.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let end = EndSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Self { hangup: signal(SignalKind::hangup())?, end })
    }
}

impl EndSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says in one line what is protected and where it listens; in a second one, loudly, if the kernel is not used.
fn announce(model: &Model, state: &State, socket: &Path) {
    if let Enforcement::Userspace { why } = &state.enforcement {
        tracing::warn!("the rules are enforced at accept and not in the kernel: {why}");
    }
    for interface in &state.interfaces {
        if let Some(note) = &interface.note {
            tracing::warn!("{} is {}: {note}", interface.name, interface.mode);
        }
    }
    // On stdout, so that it comes whatever the log level is; if nobody reads it, that is no failure.
    let line = ready_line(model, state, socket);
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn ready_line(model: &Model, state: &State, socket: &Path) -> String {
    let protects = match &state.enforcement {
        Enforcement::Userspace { .. } => "rules at accept".to_owned(),
        Enforcement::Kernel => {
            let one = |interface: &gateway_kernel::InterfaceState| {
                format!("{} ({})", interface.name, interface.mode)
            };
            format!("protects {}", join(state.interfaces.iter().map(one), "no interface"))
        }
    };
    let listener = |listener: &model::Listener| format!("{} {}", listener.name, listener.address);
    let listens = join(model.proxy.listeners.iter().map(listener), "nothing");
    let admin = model.admin.address.map(|address| format!("{address}, ")).unwrap_or_default();
    format!("gateway is ready: {protects}; listens on {listens}; admin on {admin}{}\n", socket.display())
}

fn join(words: impl Iterator<Item = String>, none: &str) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}
