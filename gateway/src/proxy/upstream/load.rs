//! What is under way to an upstream over all workers. Counted only where something depends on it: workers take the line
//! of cache from each other with every count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::model;

use super::retry;
use super::state::State;

#[derive(Debug, Default)]
pub(super) struct Load {
    requests: AtomicUsize,
    /// Those of them that were sent once more.
    retries: AtomicUsize,
    /// Requests for which a connection is being opened, or waited for.
    pending: AtomicUsize,
    /// Of those, the ones that wait for another request's connection to get free.
    pub(super) waiting: AtomicUsize,
    /// Connections that have a place.
    pub(super) connections: AtomicUsize,
    /// A place got free.
    pub(super) freed: Notify,
}

/// A request that is under way. Dropped, it no longer is.
#[derive(Debug)]
pub(super) struct Permit {
    state: Arc<State>,
    is_retry: bool,
}

/// There are as many requests under way as there may be.
#[derive(Debug)]
pub(super) struct TooMany;

/// A request that has no connection yet. Dropped, it has one, or will have none.
#[derive(Debug)]
pub(super) struct Pending<'a>(&'a Load);

impl<'a> Pending<'a> {
    /// `None` where nobody counts; an error if there are too many already.
    pub(super) fn new(state: &'a State) -> Result<Option<Self>, TooMany> {
        let Some(limit) = state.settings.limits.max_pending else { return Ok(None) };
        let pending = state.load.pending.fetch_add(1, Ordering::Relaxed);
        let counted = Self(&state.load);
        if pending >= limit { Err(TooMany) } else { Ok(Some(counted)) }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    /// `None` where nobody counts; an error if there are too many already.
    pub(super) fn new(state: &Arc<State>) -> Result<Option<Self>, TooMany> {
        let limit = state.settings.limits.max_requests;
        if state.settings.retry.is_none() && limit.is_none() {
            return Ok(None);
        }
        let requests = state.load.requests.fetch_add(1, Ordering::Relaxed);
        let permit = Self { state: Arc::clone(state), is_retry: false };
        if limit.is_some_and(|limit| requests >= limit) { Err(TooMany) } else { Ok(Some(permit)) }
    }

    /// Whether the request may be sent once more.
    pub(super) fn retry(&mut self, policy: &model::Retry) -> bool {
        let load = &self.state.load;
        let requests = load.requests.load(Ordering::Relaxed);
        let one_more = |retries| retry::is_affordable(requests, retries, policy).then_some(retries + 1);
        let affordable = || load.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        // One that is a retry already only goes on being one.
        self.is_retry = self.is_retry || affordable();
        self.is_retry
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.load.requests.fetch_sub(1, Ordering::Relaxed);
        if self.is_retry {
            self.state.load.retries.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
