//! The waits of a connection: one timer for all of them, and what is done when the worker wants to close.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::super::watch::{Expiry, Watch};

/// How long a new connection may take for its first request when the worker closes its connections.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// Something that waits: a connection over HTTP/1.1, or one over HTTP/2 with all of its streams.
pub(in crate::proxy) trait Timed {
    /// When the timer has to look next.
    fn deadline(&self) -> Instant;
    /// The timer looks.
    fn look(&self, now: Instant) -> Expiry;
}

impl Timed for Watch {
    fn deadline(&self) -> Instant {
        Watch::deadline(self)
    }

    fn look(&self, now: Instant) -> Expiry {
        Watch::look(self, now)
    }
}

/// The one timer of a connection. Most deadlines only move away, so it is left where it is; when it fires too
/// early, it is set anew. One that moves nearer (a head after a long wait) has to be set at once.
pub(in crate::proxy) struct Timer<'a> {
    pub(in crate::proxy) sleep: Pin<&'a mut Sleep>,
    /// The runtime knows when to wake this task.
    pub(in crate::proxy) is_set: bool,
}

/// What the end of a wait means for the connection.
#[derive(PartialEq, Eq)]
pub(in crate::proxy) enum Ended {
    Run,
    Close,
}

impl Timer<'_> {
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>, watch: &impl Timed) -> Poll<Ended> {
        loop {
            let deadline = watch.deadline().into();
            if deadline < self.sleep.deadline() {
                self.set(deadline);
            }
            if self.is_set && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.is_set = true;
            ready!(self.sleep.as_mut().poll(cx));
            match watch.look(Instant::now()) {
                Expiry::Later(deadline) => self.set(deadline.into()),
                Expiry::Run => return Poll::Ready(Ended::Run),
                Expiry::Close => return Poll::Ready(Ended::Close),
            }
        }
    }

    fn set(&mut self, deadline: tokio::time::Instant) {
        self.sleep.as_mut().reset(deadline);
        self.is_set = false;
    }
}

/// How far a connection is in closing once the worker has asked it to.
#[derive(Default)]
pub(super) struct Closing {
    begun: bool,
    has_grace: bool,
}

impl Closing {
    /// Whether hyper is to be told now that the current request is the last; `true` once.
    pub(super) fn begins(&mut self, watch: &Watch) -> bool {
        if self.begun || !watch.is_closing() {
            return false;
        }
        self.begun = watch.has_requests();
        // A connection from the backlog: its first request is most likely on the way already.
        if !self.begun && !std::mem::replace(&mut self.has_grace, true) {
            watch.idles(Instant::now(), FIRST_REQUEST_GRACE);
        }
        self.begun
    }
}
