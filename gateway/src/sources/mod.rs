//! Lists that refresh by themselves: each source is a task that turns its origin into bytes and hands them to a
//! [`Sink`]. Nothing here knows what a list means; the sink says whether the bytes were accepted, and only then
//! they become the copy that a start without the server falls back to.

mod address;
mod fetch;
mod follow;
mod last_good;
mod schedule;
mod status;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use address::Address;
use last_good::{Key, Slot, Store, digest};

pub use address::AddressError;
pub(crate) use fetch::call;
pub use last_good::last_good;
pub use status::{SourceState, SourceStatus, describe};

/// Fetches at a time, and files read at a time: what is under way is in memory whole.
const AT_ONCE: usize = 4;

/// A named origin of bytes. Sources with one URL share its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The list's name, the same in status, metrics and log. Of two sources with one name the last counts.
    pub name: String,
    /// Where its bytes are.
    pub origin: Origin,
}

/// Where the bytes of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, read whole whenever it has changed and come to rest; at most 256 MiB.
    File {
        /// Symbolic links are followed.
        path: PathBuf,
    },
    /// A server.
    Url(Url),
}

/// What is fetched, and how. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// https, or http to this host itself; with credentials, if the server asks for them.
    pub url: String,
    /// From one fetch to the next.
    pub refresh: Duration,
    /// For a whole fetch: name, connection, redirects and body.
    pub timeout: Duration,
    /// Bytes of the body; beyond 256 MiB nothing is fetched whatever this says.
    pub max_bytes: u64,
    /// Authorities in PEM that are trusted beside those of the system.
    pub ca: Option<PathBuf>,
}

/// Takes what sources bring. It runs on a blocking thread; sources call it at the same time, one source does not.
pub trait Sink: Send + Sync + 'static {
    /// Takes the bytes of the source `name`, or says why not.
    fn offer(&self, name: &str, bytes: Vec<u8>) -> Offered;
}

/// What a sink did with bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// They are in force now.
    Applied,
    /// They were in force already.
    Unchanged,
    /// They wait for a confirmation.
    Held {
        /// What is to be confirmed.
        why: String,
    },
    /// They are not accepted.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// Whether lists are fetched from `url`; for a configuration's check.
///
/// # Errors
/// When it is not a URL, not https, or http to another host. The error does not repeat the URL.
pub fn check_url(url: &str) -> Result<(), AddressError> {
    Address::parse(url).map(drop)
}

/// The running sources. Dropping it ends them; bytes that a sink has in hand then are still applied.
pub struct Sources {
    shared: Arc<Shared>,
    /// Sources are replaced from wherever a reload runs, and their tasks belong to the runtime of the start.
    runtime: Handle,
    running: Mutex<BTreeMap<String, Running>>,
}

impl Sources {
    /// Starts following `sources`, with their copies in `dir`. It has to be called within a runtime. A directory
    /// that cannot be used is no failure: lists come into force without being kept, and log and status say so.
    pub fn start(sources: Vec<Source>, dir: PathBuf, sink: Arc<dyn Sink>) -> Self {
        Self::start_within(sources, dir, sink, Limits::default())
    }

    fn start_within(sources: Vec<Source>, dir: PathBuf, sink: Arc<dyn Sink>, limits: Limits) -> Self {
        let keys: Vec<Key> = sources.iter().map(|source| source.origin.key()).collect();
        let shared = Shared {
            sink,
            store: Store::open(dir, &keys),
            limits,
            fetches: Semaphore::new(AT_ONCE),
            reads: Semaphore::new(AT_ONCE),
        };
        let started =
            Self { shared: Arc::new(shared), runtime: Handle::current(), running: Mutex::default() };
        started.replace(sources);
        started
    }

    /// Follows these sources from now on. Those that are as before go on undisturbed, but that one which fails
    /// or is held tries again at once: a reload is how operators say that they have changed something.
    pub fn replace(&self, sources: Vec<Source>) {
        let mut running = self.running();
        let mut former = std::mem::take(&mut *running);
        for source in sources {
            let next = match former.remove(&source.name) {
                Some(same) if same.entry.source == source => {
                    if matches!(same.entry.status().state, SourceState::Failing | SourceState::Held) {
                        same.entry.wake.notify_one();
                    }
                    same
                }
                other => {
                    let turn = other.map(|former| Arc::clone(&former.entry.turn)).unwrap_or_default();
                    self.follow(source, turn)
                }
            };
            running.insert(next.entry.source.name.clone(), next);
        }
        former.values().filter(|gone| !running.contains_key(&gone.entry.source.name)).for_each(|gone| {
            gone.entry.status().gone();
        });
    }

    /// Begins with every source as at a start: whatever the sink did with what it was given is not taken for granted.
    pub fn start_over(&self) {
        for running in self.running().values_mut() {
            let former = &running.entry;
            *running = self.follow(former.source.clone(), Arc::clone(&former.turn));
        }
    }

    /// The state of every source, by name.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        self.running().values().map(|running| running.entry.status().clone()).collect()
    }

    /// Reads a source now, whatever its schedule. `false`: there is no source of this name.
    pub fn refresh_now(&self, name: &str) -> bool {
        self.entry(name).map(|entry| entry.wake.notify_one()).is_some()
    }

    /// The bytes of a source that wait for a confirmation. It reads a file.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<Vec<u8>> {
        let key = self.entry(name)?.source.origin.key();
        self.shared.store.load(&key, Slot::Held).map(|copy| copy.bytes)
    }

    /// Takes note that what was [`held`](Self::held) was confirmed and applied: it becomes the copy that a start
    /// falls back to. `false`: something else is held by now. It waits for the sink and writes files, so it belongs
    /// on a blocking thread.
    pub fn confirm(&self, name: &str, applied: &[u8]) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        let _in_turn = entry.take_turn();
        let held = self.shared.store.load(&entry.source.origin.key(), Slot::Held);
        let Some(copy) = held.filter(|copy| copy.head.sha256 == digest(applied)) else { return false };
        let note = follow::keep(&self.shared, &entry.source, copy.head, &copy.bytes).err();
        entry.status().confirmed(note);
        true
    }

    fn follow(&self, source: Source, turn: Arc<Mutex<()>>) -> Running {
        let status = SourceStatus::new(source.name.clone(), source.origin.to_string());
        let entry = Arc::new(Entry {
            source,
            status: Mutex::new(status),
            wake: Notify::new(),
            turn,
            retired: AtomicBool::new(false),
        });
        let task = self.runtime.spawn(follow::follow(Arc::clone(&self.shared), Arc::clone(&entry)));
        Running { entry, task: task.abort_handle() }
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.running().get(name).map(|running| Arc::clone(&running.entry))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        // Nothing that holds it can panic half-way through a change.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all sources use.
struct Shared {
    sink: Arc<dyn Sink>,
    store: Store,
    limits: Limits,
    fetches: Semaphore,
    /// Apart from the fetches, so that servers that hang hold up no file.
    reads: Semaphore,
}

/// The pace and the bound that are the same for all sources; tests are in more of a hurry.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From one look at a file to the next.
    look: Duration,
    /// After a first failed fetch, and the least that a refresh can be.
    backoff: Duration,
    /// Bytes of a file.
    file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(2),
            backoff: Duration::from_secs(5),
            file_bytes: last_good::MAX_BYTES,
        }
    }
}

/// One source as long as it is followed.
struct Running {
    entry: Arc<Entry>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.entry.retired.store(true, Ordering::Release);
        self.task.abort();
    }
}

/// What a source's task and [`Sources`] both hold.
struct Entry {
    source: Source,
    status: Mutex<SourceStatus>,
    wake: Notify,
    /// Held while bytes are with the sink. A source that replaces another one inherits it, so that the bytes of
    /// the former cannot come into force after its own.
    turn: Arc<Mutex<()>>,
    /// It is not followed any more, and what it still brings is dropped.
    retired: AtomicBool,
}

impl Entry {
    fn status(&self) -> MutexGuard<'_, SourceStatus> {
        // Every field is written whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        // It guards nothing but an order; a sink that panicked has ended its turn.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    fn key(&self) -> Key {
        match self {
            Self::Url(url) => Key::of(&url.url),
            Self::File { path } => Key::of(&format!("file:{}", path.display())),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path } => write!(f, "{}", path.display()),
            Self::Url(url) => match Address::parse(&url.url) {
                Ok(address) => write!(f, "{address}"),
                // It may hold a password wherever it is wrong.
                Err(_) => f.write_str("(not a URL)"),
            },
        }
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Url")
            .field("url", &Origin::Url(self.clone()).to_string())
            .field("refresh", &self.refresh)
            .field("timeout", &self.timeout)
            .field("max_bytes", &self.max_bytes)
            .field("ca", &self.ca)
            .finish()
    }
}
