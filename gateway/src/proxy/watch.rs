//! What the parts of one client connection tell each other: its socket, its requests, its timer and the
//! worker that may ask it to close. All of them run in one thread, so cells are enough. Under HTTP/2 each stream
//! has a watch of its own beside the connection's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use http::Response;

use super::framing::Refusal;
use super::interim::Interims;

/// What the connection waits for, which decides what happens when the wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The rest of a head: 408.
    Head,
    /// The next request: closed without a word.
    Idle,
    /// Something with a timeout of its own, or nothing.
    Busy,
    /// The head of the response: 504.
    Response,
    /// A body on its way to the upstream; moving bytes put the end off.
    Upload(Duration),
    /// A body on its way to the client; likewise.
    Download(Duration),
}

/// What the connection does when its timer fires.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing is due before this.
    Later(Instant),
    /// Run the connection: whoever waits will see that its time is over.
    Run,
    /// End the connection as it is.
    Close,
}

#[derive(Debug)]
pub(super) struct Watch {
    phase: Cell<Phase>,
    deadline: Cell<Instant>,
    /// Bytes moved since the timer last looked: cheaper than a new deadline for each of them.
    progress: Cell<bool>,
    /// When the whole exchange has to be over, whatever moves; and whether that was so before it was.
    limit: Cell<Option<Instant>>,
    overdue: Cell<bool>,
    expired: Cell<bool>,
    /// How much longer than its first deadline a wait for a request lasts.
    rest: Cell<Duration>,
    /// The first deadline of a wait for a request is over.
    rests: Cell<bool>,
    /// The client's socket has nothing to read, and no message has begun.
    listens: Cell<bool>,
    /// It has taken all that was written.
    flushed: Cell<bool>,
    /// The last frame of a request's body that was asked for has not come.
    awaits_client: Cell<bool>,
    refusal: Cell<Option<Refusal>>,
    interims: Interims,
    /// Heads given to the parser, and requests that came out of it.
    heads: Cell<u64>,
    requests: Cell<u64>,
    /// Unread bytes may be on their way: closing at once could destroy the answer before it is read.
    lingers: Cell<bool>,
    /// What follows the request at hand may be another protocol, and is left to whoever takes the connection over.
    holds: Cell<bool>,
    /// The client began with HTTP/2's preface.
    speaks_http2: Cell<bool>,
    /// The response was cut short: the client must not take it for complete.
    aborted: Cell<bool>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Beyond every timeout, and still far from overflow.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who asks again within this time finds a connection as it was.
const REST_AFTER: Duration = Duration::from_secs(1);

impl Watch {
    /// A connection that was just accepted.
    pub(super) fn new(now: Instant, header_timeout: Duration) -> Self {
        Self {
            phase: Cell::new(Phase::Head),
            deadline: Cell::new(now + header_timeout),
            progress: Cell::new(false),
            limit: Cell::new(None),
            overdue: Cell::new(false),
            expired: Cell::new(false),
            rest: Cell::default(),
            rests: Cell::new(false),
            listens: Cell::new(false),
            flushed: Cell::new(true),
            awaits_client: Cell::new(false),
            refusal: Cell::new(None),
            interims: Interims::default(),
            heads: Cell::new(0),
            requests: Cell::new(0),
            lingers: Cell::new(false),
            holds: Cell::new(false),
            speaks_http2: Cell::new(false),
            aborted: Cell::new(false),
            closing: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    fn enter(&self, phase: Phase, deadline: Instant) {
        self.phase.set(phase);
        self.deadline.set(deadline);
        self.expired.set(false);
        self.rest.set(Duration::ZERO);
        self.rests.set(false);
    }

    /// What comes before requests is done: the time for the first head begins.
    pub(super) fn begins(&self, now: Instant, header_timeout: Duration) {
        if self.phase.get() == Phase::Head {
            self.enter(Phase::Head, now + header_timeout);
        }
    }

    /// The first bytes of a head came, and not all of it.
    pub(super) fn head_begins(&self, timeout: Duration) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now() + timeout);
        }
    }

    /// A request is on its way through the gateway.
    pub(super) fn busy(&self, now: Instant) {
        self.enter(Phase::Busy, now + FOREVER);
    }

    /// The upstream has the whole request.
    pub(super) fn awaits_response(&self, deadline: Instant) {
        self.enter(Phase::Response, deadline);
    }

    /// The last byte of a request's body was handed on. If the response has begun already, its body is what
    /// counts.
    pub(super) fn upload_ended(&self, deadline: Instant) {
        if matches!(self.phase.get(), Phase::Upload(_)) {
            self.awaits_response(deadline);
        }
    }

    /// A body is on its way. The first deadline may be too early by as much as `now` is old: progress puts
    /// it off.
    pub(super) fn moves(&self, phase: Phase, now: Instant, idle: Duration) {
        self.progress.set(true);
        self.enter(phase, now + idle);
    }

    /// The head of the response is there. While the request's body is still coming, nobody may read the rest
    /// of it, and closing over it would destroy an answer such as 413 on its way to the client.
    pub(super) fn downloads(&self, now: Instant, idle: Duration) {
        if matches!(self.phase.get(), Phase::Upload(_)) {
            self.linger();
        }
        self.moves(Phase::Download(idle), now, idle);
    }

    /// The response is done.
    pub(super) fn idles(&self, now: Instant, timeout: Duration) {
        // hyper has asked already, and was told to wait.
        if self.holds.replace(false) {
            self.wake();
        }
        self.limit.set(None);
        self.overdue.set(false);
        self.enter(Phase::Idle, now + timeout);
    }

    /// The same, of a connection that gives back what it does not need while it waits for long.
    pub(super) fn idles_until_rest(&self, now: Instant, timeout: Duration) {
        self.idles(now, timeout.min(REST_AFTER));
        self.rest.set(timeout.saturating_sub(REST_AFTER));
    }

    /// Whether no request has come for a while, and the parser and its buffers hold nothing.
    pub(super) fn may_rest(&self) -> bool {
        self.rests.get() && self.listens.get() && self.flushed.get() && !self.holds.get()
    }

    pub(super) fn set_listens(&self, listens: bool) {
        self.listens.set(listens);
    }

    pub(super) fn set_flushed(&self, flushed: bool) {
        self.flushed.set(flushed);
    }

    pub(super) fn progressed(&self) {
        self.progress.set(true);
    }

    /// The request at hand and its response have to be over by then.
    pub(super) fn ends_by(&self, limit: Instant) {
        self.limit.set(Some(limit));
    }

    /// When they have to be over, if anybody said so.
    pub(super) fn limit(&self) -> Option<Instant> {
        self.limit.get()
    }

    /// Whether they should have been over.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.get()
    }

    /// When the timer has to look next.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = self.deadline.get();
        match self.limit.get() {
            Some(limit) if !self.overdue.get() => deadline.min(limit),
            _ => deadline,
        }
    }

    /// The timer looks.
    pub(super) fn look(&self, now: Instant) -> Expiry {
        let phase = self.phase.get();
        if let Phase::Upload(idle) | Phase::Download(idle) = phase
            && self.progress.replace(false)
        {
            self.deadline.set(now + idle);
        }
        if self.deadline() > now {
            return Expiry::Later(self.deadline());
        }
        if self.deadline.get() > now {
            self.overdue.set(true);
            return Expiry::Run;
        }
        match phase {
            Phase::Head => {
                self.refuse(Refusal::TooSlow);
                self.busy(now);
                Expiry::Run
            }
            Phase::Response | Phase::Upload(_) => {
                self.busy(now);
                self.expired.set(true);
                Expiry::Run
            }
            Phase::Download(_) => {
                self.abort();
                Expiry::Close
            }
            Phase::Idle => {
                let rest = self.rest.take();
                if rest.is_zero() {
                    return Expiry::Close;
                }
                self.deadline.set(now + rest);
                self.rests.set(true);
                Expiry::Run
            }
            Phase::Busy => Expiry::Later(now + FOREVER),
        }
    }

    /// Whether the time for the response is over.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    pub(super) fn set_awaits_client(&self, awaits: bool) {
        self.awaits_client.set(awaits);
    }

    pub(super) fn awaits_client(&self) -> bool {
        self.awaits_client.get()
    }

    /// The next request is the last, and is refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refusal.set(Some(refusal));
        self.lingers.set(true);
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get()
    }

    /// What goes to the client before the response.
    pub(super) fn interims(&self) -> &Interims {
        &self.interims
    }

    /// The upstream sends an interim response. Whoever runs the connection sends it.
    pub(super) fn hears_interim(&self, interim: Response<()>) {
        if self.interims.hear(interim) {
            self.wake();
        }
    }

    /// Waits until interim responses are sent: the response must not overtake them. A client that does not read them
    /// has no longer for it than the upstream had for the response.
    pub(super) async fn interims_sent(&self) {
        if !self.interims.are_owed() {
            return;
        }
        poll_fn(|_| {
            let is_over = !self.interims.are_owed() || self.is_expired();
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.interims.are_gone();
    }

    /// A head goes to the parser.
    pub(super) fn count_head(&self) {
        self.heads.set(self.heads.get() + 1);
    }

    /// A request came out of the parser. `Some` if it stands for one that was refused: always the last
    /// head, for none is given to the parser after it.
    pub(super) fn count_request(&self) -> Option<Refusal> {
        self.requests.set(self.requests.get() + 1);
        self.refusal.get().filter(|_| self.requests.get() == self.heads.get())
    }

    /// Whether no head was given to the parser yet.
    pub(super) fn is_new(&self) -> bool {
        self.heads.get() == 0
    }

    /// Whether a request ever came out of the parser.
    pub(super) fn has_requests(&self) -> bool {
        self.requests.get() > 0
    }

    pub(super) fn linger(&self) {
        self.lingers.set(true);
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.get()
    }

    /// Nothing behind the request at hand is read until it is answered.
    pub(super) fn hold(&self) {
        self.holds.set(true);
    }

    pub(super) fn holds(&self) -> bool {
        self.holds.get()
    }

    /// The client turned out to speak HTTP/2.
    pub(super) fn switch_to_http2(&self) {
        self.speaks_http2.set(true);
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.speaks_http2.get()
    }

    pub(super) fn abort(&self) {
        self.aborted.set(true);
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// Whether a request is on its way through the gateway.
    pub(super) fn has_request(&self) -> bool {
        !matches!(self.phase.get(), Phase::Head | Phase::Idle)
    }

    /// Asks the connection to close as soon as no request is in flight.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Lets whoever runs the connection, or the stream, look again.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_wait_means_what_was_waited_for() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let idle = Duration::from_secs(10);
        for (name, phase, expected) in [
            ("a head", Phase::Head, Expiry::Run),
            ("the next request", Phase::Idle, Expiry::Close),
            ("a response", Phase::Response, Expiry::Run),
            ("an upload", Phase::Upload(idle), Expiry::Run),
            ("a download", Phase::Download(idle), Expiry::Close),
        ] {
            let watch = Watch::new(now, second);
            watch.enter(phase, now + second);
            assert_eq!(watch.look(now), Expiry::Later(now + second), "{name}: not yet");
            assert_eq!(watch.look(now + second), expected, "{name}");
        }
    }

    #[test]
    fn moving_bytes_put_the_end_off() {
        let now = Instant::now();
        let idle = Duration::from_secs(10);
        let watch = Watch::new(now, idle);
        watch.moves(Phase::Download(idle), now, idle);
        assert_eq!(watch.look(now + idle), Expiry::Later(now + 2 * idle));
        assert_eq!(watch.look(now + 2 * idle), Expiry::Close);
    }

    #[test]
    fn a_limit_holds_whatever_moves() {
        let now = Instant::now();
        let (second, idle) = (Duration::from_secs(1), Duration::from_secs(10));
        let watch = Watch::new(now, idle);
        watch.ends_by(now + 15 * second);
        watch.moves(Phase::Download(idle), now, idle);
        assert_eq!(watch.look(now + idle), Expiry::Later(now + 15 * second));
        assert!(!watch.is_overdue());
        watch.progressed();
        assert_eq!(watch.look(now + 15 * second), Expiry::Run);
        assert!(watch.is_overdue());
        // Who does not read that it is over does not stay.
        assert_eq!(watch.look(now + 25 * second), Expiry::Close);
        // The next request has its own.
        watch.idles(now, idle);
        assert_eq!((watch.limit(), watch.is_overdue()), (None, false));
    }

    #[test]
    fn a_long_wait_for_a_request_is_a_rest() {
        let (now, timeout) = (Instant::now(), Duration::from_secs(60));
        let watch = Watch::new(now, timeout);
        watch.set_listens(true);
        watch.idles_until_rest(now, timeout);
        assert_eq!(watch.look(now), Expiry::Later(now + REST_AFTER));
        assert!(!watch.may_rest());
        assert_eq!(watch.look(now + REST_AFTER), Expiry::Run);
        assert!(watch.may_rest());
        watch.set_flushed(false);
        assert!(!watch.may_rest(), "an answer is still being written");
        watch.set_flushed(true);
        watch.set_listens(false);
        assert!(!watch.may_rest(), "a request has begun");
        watch.set_listens(true);
        assert_eq!(watch.look(now + REST_AFTER), Expiry::Later(now + timeout));
        assert_eq!(watch.look(now + timeout), Expiry::Close);
        watch.busy(now);
        assert!(!watch.may_rest());
        watch.idles_until_rest(now, REST_AFTER / 2);
        assert_eq!(watch.look(now + REST_AFTER / 2), Expiry::Close, "no wait is made longer");
    }

    #[test]
    fn only_the_last_head_is_refused() {
        let watch = Watch::new(Instant::now(), Duration::from_secs(1));
        watch.count_head();
        watch.count_head();
        watch.refuse(Refusal::TooLarge);
        assert_eq!(watch.count_request(), None);
        assert_eq!(watch.count_request(), Some(Refusal::TooLarge));
    }
}
