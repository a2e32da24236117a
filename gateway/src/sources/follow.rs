//! The life of one source: read, offer, keep, wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::fetch::{Fetched, Validators, fetch};
use super::last_good::{Copy, Head, Slot, Staged, StoreError, digest};
use super::schedule::{Schedule, chance};
use super::status::{Outcome, epoch_ms};
use super::{Entry, Offered, Origin, Shared, Source, Url};
use crate::files::{self, Watch};

/// Follows a source until its task is aborted.
pub(super) async fn follow(shared: Arc<Shared>, entry: Arc<Entry>) {
    match &entry.source.origin {
        Origin::Url(url) => follow_url(&shared, &entry, url).await,
        Origin::File { path } => follow_file(&shared, &entry, path).await,
    }
}

async fn follow_url(shared: &Arc<Shared>, entry: &Arc<Entry>, url: &Url) {
    let mut schedule = Schedule::new(url.refresh, shared.limits.backoff);
    // The hash of what the sink has had from this task and accepted.
    let mut delivered = None;
    loop {
        let outcome = refresh(shared, entry, url, &mut delivered).await;
        let wait = schedule.after(matches!(outcome, Outcome::Failing { .. }), chance());
        entry.status().note(outcome, Some(wait));
        tokio::select! {
            () = sleep(wait) => {}
            () = entry.wake.notified() => {}
        }
    }
}

/// One fetch, and what becomes of it.
async fn refresh(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    url: &Url,
    delivered: &mut Option<String>,
) -> Outcome {
    // A semaphore that is never closed always gives a permit.
    let _turn = shared.fetches.acquire().await;
    let known = newest_copy(shared, entry).await;
    // The body is read again if it is needed: two at a time are not held in memory.
    let known = known.map(|(slot, copy)| (slot, copy.head));
    let validators = known.as_ref().map(|(_, head)| validators(head)).unwrap_or_default();
    let (head, bytes) = match (fetch(url, &validators).await, known) {
        (Err(error), _) => return Outcome::Failing { why: error.to_string() },
        (Ok(Fetched::Body { bytes, validators }), _) => (head(&entry.source, &bytes, validators), bytes),
        (Ok(Fetched::NotModified), Some((Slot::LastGood, head)))
            if delivered.as_ref() == Some(&head.sha256) =>
        {
            return Outcome::Ok { note: None };
        }
        // The copy is what the server has, and the sink has not had it from us, or holds it: it decides anew.
        (Ok(Fetched::NotModified), _) => match newest_copy(shared, entry).await {
            Some((_, Copy { head, bytes })) => (head, bytes),
            None => return Outcome::Failing { why: "the copy went away during the fetch".to_owned() },
        },
    };
    let sha256 = head.sha256.clone();
    let outcome = hand_over(shared, entry, head, bytes).await;
    *delivered = matches!(outcome, Outcome::Ok { .. }).then_some(sha256);
    outcome
}

/// What was fetched last and not refused, and where it is kept: what waits for a confirmation is newer.
async fn newest_copy(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Option<(Slot, Copy)> {
    let (shared, key) = (Arc::clone(shared), entry.source.origin.key());
    let load = move || {
        [Slot::Held, Slot::LastGood].into_iter().find_map(|slot| Some((slot, shared.store.load(&key, slot)?)))
    };
    // A load that breaks off is like a copy that is not there: the list is fetched whole.
    spawn_blocking(load).await.ok().flatten()
}

fn validators(head: &Head) -> Validators {
    Validators { etag: head.etag.clone(), last_modified: head.last_modified.clone() }
}

fn head(source: &Source, bytes: &[u8], validators: Validators) -> Head {
    Head {
        url: source.origin.to_string(),
        etag: validators.etag,
        last_modified: validators.last_modified,
        fetched_at_ms: epoch_ms(SystemTime::now()),
        sha256: digest(bytes),
    }
}

async fn follow_file(shared: &Arc<Shared>, entry: &Arc<Entry>, path: &Path) {
    let mut watch = Watch::default();
    let mut asked = false;
    loop {
        match reread(shared, entry, path, &mut watch, asked).await {
            Ok(Some(outcome)) => entry.status().note(outcome, None),
            Ok(None) => {}
            Err(why) => {
                watch.failed();
                entry.status().note(Outcome::Failing { why }, None);
            }
        }
        asked = tokio::select! {
            () = sleep(shared.limits.look) => false,
            () = entry.wake.notified() => true,
        };
    }
}

/// One look at a file, and what becomes of it; `None` when there is nothing to do.
async fn reread(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    path: &Path,
    watch: &mut Watch,
    asked: bool,
) -> Result<Option<Outcome>, String> {
    let limit = shared.limits.file_bytes;
    let looked_at = path.to_owned();
    let look = beside(move || files::look(&looked_at, limit)).await?;
    if !watch.looks(look, asked) {
        return Ok(None);
    }
    let _turn = shared.reads.acquire().await;
    let read = path.to_owned();
    let Some((stamp, bytes)) = beside(move || files::read(&read, limit)).await? else { return Ok(None) };
    // Whoever asks for it now gets what is there; otherwise it has to be what has come to rest.
    if !asked && stamp != look {
        return Ok(None);
    }
    watch.has_read(stamp);
    let head = head(&entry.source, &bytes, Validators::default());
    Ok(Some(hand_over(shared, entry, head, bytes).await))
}

/// Runs what waits for a disk beside the event loop.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the work broke off: {error}")))
}

async fn hand_over(shared: &Arc<Shared>, entry: &Arc<Entry>, head: Head, bytes: Vec<u8>) -> Outcome {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    let offered = beside(move || Ok(offer(&shared, &entry, head, bytes)));
    offered.await.unwrap_or_else(|why| Outcome::Failing { why })
}

/// Offers bytes to the sink and keeps them as it decides.
fn offer(shared: &Shared, entry: &Entry, head: Head, bytes: Vec<u8>) -> Outcome {
    let _in_turn = entry.take_turn();
    if entry.retired.load(Ordering::Acquire) {
        return Outcome::Failing { why: "the source was replaced".to_owned() };
    }
    let (source, key) = (&entry.source, entry.source.origin.key());
    // Before the offer: the sink takes the bytes away, and they may be too many to have twice.
    let staged = shared.store.stage(&key, head, &bytes);
    let length = bytes.len();
    let offered = shared.sink.offer(&source.name, bytes);
    if offered == Offered::Applied {
        tracing::info!("the list {} has changed: {length} bytes from {}", source.name, source.origin);
    }
    match offered {
        Offered::Applied | Offered::Unchanged => Outcome::Ok { note: settle(shared, source, staged).err() },
        Offered::Held { why } => {
            let kept = staged.and_then(|staged| shared.store.commit(&staged, Slot::Held));
            match kept.map_err(not_kept) {
                Ok(()) => Outcome::Held { why },
                Err(note) => Outcome::Held { why: format!("{why}; and {note}") },
            }
        }
        Offered::Refused { why } => {
            // What was held before is not what the source has now, so there is nothing to confirm.
            shared.store.forget(&key, Slot::Held);
            Outcome::Failing { why }
        }
    }
}

/// Keeps what is in force now; the error is for `status`.
pub(super) fn keep(shared: &Shared, source: &Source, head: Head, bytes: &[u8]) -> Result<(), String> {
    settle(shared, source, shared.store.stage(&source.origin.key(), head, bytes))
}

/// What is in force becomes the last good copy, and nothing waits for a confirmation any more.
fn settle(shared: &Shared, source: &Source, staged: Result<Staged, StoreError>) -> Result<(), String> {
    let kept = match &source.origin {
        Origin::Url(_) => {
            staged.and_then(|staged| shared.store.commit(&staged, Slot::LastGood)).map_err(not_kept)
        }
        // A file is its own copy.
        Origin::File { .. } => Ok(()),
    };
    shared.store.forget(&source.origin.key(), Slot::Held);
    kept
}

fn not_kept(error: StoreError) -> String {
    format!("its copy could not be kept for the next start: {error}")
}
