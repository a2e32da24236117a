//! Finds the endpoints of upstreams: each source is a task that brings a set whenever there is another one. What was found
//! last stays in force while its source fails, and nothing here knows what is done with it.

mod dns;
mod file;
mod status;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::model;
use crate::proxy::DiscoveryStatus;

use dns::Dns;
use file::FromFile;
use status::Meter;
pub use status::describe;

/// Endpoints that one source may bring: as many as may be written down.
pub(crate) const MAX_ENDPOINTS: usize = 1000;

/// How long a start or a reload waits for the first set of a source that is new: so long it is better to listen later
/// than to answer 503.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Questions to name servers at a time, over all sources.
const QUESTIONS_AT_ONCE: usize = 16;

/// What brings endpoints.
trait Source {
    /// Waits until it is time to look again, and there is something to say. The first time that is at once.
    fn next(&mut self) -> impl Future<Output = Look> + Send;
}

/// What came of looking.
#[derive(Debug, Default)]
struct Look {
    /// `None`: those of before stay.
    found: Option<Vec<model::Endpoint>>,
    /// What went wrong.
    failure: Option<String>,
}

impl Look {
    fn failed(why: impl Into<String>) -> Self {
        Self { found: None, failure: Some(why.into()) }
    }
}

/// The sources that are followed. Dropping it ends them.
#[derive(Default)]
pub(crate) struct Discovery {
    sources: Mutex<Vec<Following>>,
    /// Started with the first source.
    thread: Mutex<Option<Thread>>,
    changed: Arc<Notify>,
}

/// Where the sources run.
struct Thread {
    runtime: Handle,
    questions: Arc<Semaphore>,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

struct Following {
    entry: Arc<Entry>,
    task: AbortHandle,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One source as long as it is followed.
struct Entry {
    upstream: String,
    source: model::Discovery,
    state: Mutex<State>,
    first: Condvar,
    meter: Meter,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    has_looked: bool,
    endpoints: Vec<model::Endpoint>,
    failure: Option<String>,
}

impl Discovery {
    /// Follows the sources of these upstreams, too, and waits a while for what new ones bring first.
    pub(crate) fn follow(&self, model: &model::Proxy) -> io::Result<()> {
        let mut fresh = Vec::new();
        for upstream in &model.upstreams {
            let Some(source) = &upstream.discovery else { continue };
            if self.find(&upstream.name, source).is_none() {
                fresh.push(self.begin(&upstream.name, source)?);
            }
        }
        let deadline = Instant::now() + FIRST_WITHIN;
        fresh.iter().for_each(|entry| entry.await_first(deadline));
        Ok(())
    }

    /// Ends the sources that none of these upstreams has.
    pub(crate) fn forget_all_but(&self, model: &model::Proxy) {
        let mut sources = self.sources();
        let is_wanted = |entry: &Entry| {
            let mut upstreams = model.upstreams.iter();
            upstreams.any(|u| u.name == entry.upstream && u.discovery.as_ref() == Some(&entry.source))
        };
        let former = std::mem::take(&mut *sources);
        let (kept, gone): (Vec<_>, Vec<_>) = former.into_iter().partition(|f| is_wanted(&f.entry));
        // What stays has its say in the end: of an upstream with another source, the series are the same.
        gone.iter().for_each(|following| following.entry.meter.gone());
        kept.iter().for_each(|following| following.entry.show());
        *sources = kept;
    }

    /// What was found for an upstream and is to be in force.
    pub(crate) fn endpoints(&self, upstream: &model::Upstream) -> Vec<model::Endpoint> {
        let source = upstream.discovery.as_ref();
        let entry = source.and_then(|source| self.find(&upstream.name, source));
        entry.map(|entry| entry.state().endpoints.clone()).unwrap_or_default()
    }

    /// Waits until a source has brought another set than the one before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How the sources of these upstreams fare.
    pub(crate) fn status(&self, model: &model::Proxy) -> Vec<DiscoveryStatus> {
        let status = |upstream: &model::Upstream| {
            let entry = self.find(&upstream.name, upstream.discovery.as_ref()?)?;
            let state = entry.state();
            Some(DiscoveryStatus {
                upstream: upstream.name.clone(),
                source: entry.source.to_string(),
                endpoints: state.endpoints.len(),
                failure: state.failure.clone(),
            })
        };
        model.upstreams.iter().filter_map(status).collect()
    }

    fn begin(&self, upstream: &str, source: &model::Discovery) -> io::Result<Arc<Entry>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = match &mut *thread {
            Some(thread) => thread,
            none => none.insert(Thread::start()?),
        };
        let mut sources = self.sources();
        // What was found by the same question stays good, whatever else is said of it.
        let mut known = sources.iter().map(|following| &following.entry);
        let known = known.rfind(|entry| entry.upstream == upstream && entry.source.asks_the_same(source));
        let endpoints = known.map(|entry| entry.state().endpoints.clone()).unwrap_or_default();
        let entry = Arc::new(Entry {
            upstream: upstream.to_owned(),
            source: source.clone(),
            state: Mutex::new(State { endpoints, ..State::default() }),
            first: Condvar::new(),
            meter: Meter::new(upstream),
            changed: Arc::clone(&self.changed),
        });
        let task = match source.clone() {
            model::Discovery::Dns(question) => {
                let source = Dns::new(question, Arc::clone(&thread.questions));
                thread.runtime.spawn(follow(Arc::clone(&entry), source))
            }
            model::Discovery::File { path, base_dir } => {
                thread.runtime.spawn(follow(Arc::clone(&entry), FromFile::new(path, base_dir)))
            }
        };
        sources.push(Following { entry: Arc::clone(&entry), task: task.abort_handle() });
        Ok(entry)
    }

    fn find(&self, upstream: &str, source: &model::Discovery) -> Option<Arc<Entry>> {
        let sources = self.sources();
        let entries = sources.iter().map(|following| &following.entry);
        entries.into_iter().find(|e| e.upstream == upstream && e.source == *source).map(Arc::clone)
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Following>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let (alive, ended) = oneshot::channel();
        let started = Self {
            runtime: runtime.handle().clone(),
            questions: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)),
            _alive: alive,
        };
        let body = move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("discovery".to_owned()).spawn(body)?;
        Ok(started)
    }
}

async fn follow(entry: Arc<Entry>, mut source: impl Source) {
    loop {
        entry.note(source.next().await);
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is written whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let state = self.state();
        self.meter.show(state.endpoints.len(), state.failure.is_none());
    }

    fn await_first(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let has_not_looked = |state: &mut State| !state.has_looked;
        // What comes later is taken then.
        let _ = self.first.wait_timeout_while(self.state(), left, has_not_looked);
    }

    /// Takes in what came of a look: in status, metrics, and the log where it is news.
    fn note(&self, look: Look) {
        let Look { found, mut failure } = look;
        let found = found.filter(|found| {
            let count = found.len();
            if count == 0 {
                failure = failure.take().or_else(|| Some("it names no endpoint".to_owned()));
            } else if count > MAX_ENDPOINTS {
                failure = Some(format!("it names {count} endpoints; at most {MAX_ENDPOINTS} are taken"));
            }
            (1..=MAX_ENDPOINTS).contains(&count)
        });
        let (upstream, source) = (&self.upstream, &self.source);
        let mut state = self.state();
        if let Some(found) = found.filter(|found| *found != state.endpoints) {
            tracing::info!(upstream, %source, endpoints = found.len(), "other endpoints were found");
            state.endpoints = found;
            self.changed.notify_one();
        }
        match &failure {
            Some(why) if state.failure.as_ref() != Some(why) => {
                let endpoints = state.endpoints.len();
                tracing::warn!(upstream, %source, why, endpoints, "endpoints stay as they were found before");
            }
            None if state.failure.is_some() => tracing::info!(upstream, %source, "endpoints are found again"),
            _ => {}
        }
        (state.has_looked, state.failure) = (true, failure);
        self.meter.show(state.endpoints.len(), state.failure.is_none());
        self.meter.count_look(state.failure.is_none());
        self.first.notify_all();
    }
}
