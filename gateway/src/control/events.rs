//! Sampled verdicts on their way from the kernel's ring buffer to whoever watches, and into the memory of
//! recent events. While nobody watches the programs are granted a small share, enough for the memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_common::verdict::Reason;
use gateway_kernel::{Error, Event, Events, Lost, Share};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::filter::Filter;
use super::recent::Recent;

/// Watchers at a time.
const MAX_WATCHERS: usize = 16;
/// Lines that wait for one watcher before it is told that some were left out.
const QUEUE_LINES: usize = 1024;
/// How often the ring is looked into while somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Looks for each share of events that the programs are granted: one in 100 ms.
const LOOKS_PER_GRANT: u32 = 4;
/// Looks for each reading of the kernel's count of lost events: one in a second.
const LOOKS_PER_COUNT: u32 = 40;
/// How often the ring is looked into, and a share granted, while nobody watches.
const REMEMBER_EVERY: Duration = Duration::from_millis(100);

const _: () = assert!(LOOKS_PER_COUNT.is_multiple_of(LOOKS_PER_GRANT));

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Events that this watcher did not get since the line before: suppressed in the kernel, or it was slow.
    /// Of what the kernel suppressed only the reason is known, so a filter by rule or prefix might not have
    /// let it through.
    LeftOut {
        /// How many.
        left_out: u64,
        /// Under which reason.
        reason: String,
    },
    /// A sampled verdict.
    Event(Event),
}

impl Line {
    /// The line as it is sent, with its end.
    fn encode(&self) -> Bytes {
        // Strings and numbers always have a JSON form; an empty line would be skipped by the reader.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }
}

/// Everybody who watches. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Watchers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    slots: Mutex<Vec<Slot>>,
    arrival: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    filter: Filter,
    queue: mpsc::Sender<Bytes>,
    left_out: Arc<LeftOut>,
}

/// What one watcher has not got and not been told of, by reason.
#[derive(Debug)]
struct LeftOut([AtomicU64; Reason::ALL.len()]);

impl LeftOut {
    fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
    }

    fn add(&self, reason: Reason, count: u64) {
        self.0[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// One reason's count, if there is any.
    fn take(&self) -> Option<(Reason, u64)> {
        Reason::ALL.iter().find_map(|reason| match self.0[*reason as usize].swap(0, Ordering::Relaxed) {
            0 => None,
            count => Some((*reason, count)),
        })
    }
}

/// One watcher's end: a stream of lines that ends when the agent does.
#[derive(Debug)]
pub struct Watcher {
    queue: mpsc::Receiver<Bytes>,
    left_out: Arc<LeftOut>,
}

impl Watchers {
    /// A new watcher, or `None` when there are too many.
    #[must_use]
    pub fn watch(&self, filter: Filter) -> Option<Watcher> {
        let mut slots = self.slots();
        slots.retain(|slot| !slot.queue.is_closed());
        if slots.len() >= MAX_WATCHERS {
            return None;
        }
        let (sender, queue) = mpsc::channel(QUEUE_LINES);
        let left_out = Arc::new(LeftOut::new());
        slots.push(Slot { filter, queue: sender, left_out: Arc::clone(&left_out) });
        self.shared.arrival.notify_one();
        Some(Watcher { queue, left_out })
    }

    /// Lines dropped because a watcher was slow, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.slots().clear();
    }

    /// Gives an event to every watcher that wants it; one whose queue is full loses it, and learns how many.
    fn publish(&self, event: Event) {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == event.reason).copied();
        let mut encoded = None;
        let slots = self.slots();
        for slot in slots.iter().filter(|slot| slot.filter.accepts(&event)) {
            let line = encoded.get_or_insert_with(|| Line::Event(event.clone()).encode());
            if let Err(mpsc::error::TrySendError::Full(_)) = slot.queue.try_send(line.clone()) {
                if let Some(reason) = reason {
                    slot.left_out.add(reason, 1);
                }
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells every watcher of events that never left the kernel, even if no other event follows them.
    fn miss(&self, lost: &Lost) {
        for slot in self.slots().iter() {
            let concerned = Reason::ALL.iter().filter(|reason| slot.filter.concerns(**reason));
            let mut any = false;
            for (reason, count) in concerned.map(|reason| (*reason, lost[*reason as usize])) {
                slot.left_out.add(reason, count);
                any |= count > 0;
            }
            if any {
                // An empty line wakes the watcher; one with a full queue is awake.
                let _ = slot.queue.try_send(Bytes::new());
            }
        }
    }

    pub(super) fn any(&self) -> bool {
        let mut slots = self.slots();
        slots.retain(|slot| !slot.queue.is_closed());
        !slots.is_empty()
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Every change under the lock is one step, so a panic leaves nothing half done.
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// The next line; `None` when the stream has ended.
    pub fn poll_line(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some((reason, left_out)) = self.left_out.take() {
                let reason = reason.name().to_owned();
                return Poll::Ready(Some(Line::LeftOut { left_out, reason }.encode()));
            }
            match self.queue.poll_recv(context) {
                Poll::Ready(Some(line)) if line.is_empty() => {}
                other => return other,
            }
        }
    }
}

/// Moves events from the ring buffer to the memory and the watchers for as long as the agent lives.
///
/// The ring is looked into at short intervals instead of having its descriptor polled: the runtime's way
/// to poll a foreign descriptor is unsafe code, and nobody reads lines faster than this.
pub async fn pump(mut events: Events, watchers: Watchers, recent: Recent) {
    loop {
        remember(&mut events, &watchers, &recent).await;
        serve_watchers(&mut events, &watchers, &recent).await;
    }
}

/// Fills the memory until somebody watches.
async fn remember(events: &mut Events, watchers: &Watchers, recent: &Recent) {
    let mut looks = tokio::time::interval(REMEMBER_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = None;
    loop {
        tokio::select! {
            () = watchers.shared.arrival.notified() => {}
            _ = looks.tick() => {}
        }
        // Also what waits when somebody comes: it is from before they watched.
        events.read(&mut |event| recent.note(&event));
        if watchers.any() {
            return;
        }
        warn_once(&mut refused, events.grant(Share::Background));
    }
}

async fn serve_watchers(events: &mut Events, watchers: &Watchers, recent: &Recent) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = events.lost().ok();
    let mut refused = None;
    for look in (0..LOOKS_PER_COUNT).cycle() {
        if !watchers.any() {
            return;
        }
        if look % LOOKS_PER_GRANT == 0 {
            warn_once(&mut refused, events.grant(Share::Watched));
        }
        if look == LOOKS_PER_COUNT - 1 {
            let now = events.lost().ok();
            if let (Some(before), Some(now)) = (lost, now) {
                watchers.miss(&since(&before, &now));
            }
            lost = now;
        }
        looks.tick().await;
        events.read(&mut |event| {
            recent.note(&event);
            watchers.publish(event);
        });
    }
}

/// A refusal is worth a line when it begins, and not ten times a second.
fn warn_once(refused: &mut Option<String>, granted: Result<(), Error>) {
    let why = granted.err().map(|error| error.to_string());
    if let (None, Some(why)) = (&refused, &why) {
        tracing::warn!("no verdicts can be sampled: {why}");
    }
    *refused = why;
}

/// What was lost between two readings; a row that became another interface's begins anew, and counts nothing.
fn since(before: &Lost, now: &Lost) -> Lost {
    std::array::from_fn(|reason| now[reason].saturating_sub(before[reason]))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A drop of which little is known.
    pub(crate) fn event(length: u32) -> Event {
        Event {
            time_ms: 0,
            interface: "eth0".into(),
            verdict: "drop".into(),
            reason: "deny_list".into(),
            rule: None,
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            length,
        }
    }

    async fn next(watcher: &mut Watcher) -> Line {
        let line = poll_fn(|context| Pin::new(&mut *watcher).poll_line(context)).await.expect("a line");
        serde_json::from_slice(&line).expect("JSON")
    }

    fn lost(counts: &[(Reason, u64)]) -> Lost {
        let mut lost = [0; Reason::ALL.len()];
        counts.iter().for_each(|(reason, count)| lost[*reason as usize] = *count);
        lost
    }

    fn left_out(left_out: u64, reason: &str) -> Line {
        Line::LeftOut { left_out, reason: reason.to_owned() }
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_missed() {
        let watchers = Watchers::default();
        let mut slow = watchers.watch(Filter::default()).expect("room");
        for length in 0..QUEUE_LINES as u32 + 5 {
            watchers.publish(event(length));
        }
        watchers.miss(&lost(&[(Reason::DenyList, 2), (Reason::BadTcp, 3)]));
        assert_eq!(next(&mut slow).await, left_out(7, "deny_list"));
        assert_eq!(next(&mut slow).await, left_out(3, "bad_tcp"));
        assert_eq!(next(&mut slow).await, Line::Event(event(0)));
        assert_eq!(watchers.dropped(), 5);
    }

    #[tokio::test]
    async fn losses_are_told_without_waiting_for_an_event() {
        let watchers = Watchers::default();
        let mut watcher = watchers.watch(Filter::default()).expect("room");
        let told = tokio::spawn(async move { next(&mut watcher).await });
        // The watcher is asleep by now; only the loss itself can wake it.
        tokio::task::yield_now().await;
        watchers.miss(&lost(&[(Reason::DenyList, 400)]));
        assert_eq!(told.await.expect("told"), left_out(400, "deny_list"));
    }

    #[tokio::test]
    async fn a_filtered_watcher_is_not_starved_by_what_others_want() {
        let watchers = Watchers::default();
        let of = |query: &str| watchers.watch(Filter::from_query(query).expect("a filter")).expect("room");
        let (mut rare, mut all) = (of("rule=rare&reason=ban_list"), of(""));
        for length in 0..QUEUE_LINES as u32 + 5 {
            watchers.publish(event(length));
        }
        watchers.miss(&lost(&[(Reason::DenyList, 400), (Reason::BanList, 2)]));
        let wanted = Event { reason: "ban_list".into(), rule: Some("rare".into()), ..event(1) };
        watchers.publish(wanted.clone());
        assert_eq!(next(&mut rare).await, left_out(2, "ban_list"), "and nothing of other reasons");
        assert_eq!(next(&mut rare).await, Line::Event(wanted));
        assert_eq!(next(&mut all).await, left_out(2 + 1, "ban_list"));
        assert_eq!(next(&mut all).await, left_out(5 + 400, "deny_list"));
        assert_eq!(watchers.dropped(), 5 + 1);
    }

    #[tokio::test]
    async fn watchers_are_bounded_and_leave() {
        let watchers = Watchers::default();
        let held: Vec<_> =
            (0..MAX_WATCHERS).map(|_| watchers.watch(Filter::default()).expect("room")).collect();
        assert!(watchers.watch(Filter::default()).is_none());
        drop(held);
        assert!(!watchers.any());
        assert!(watchers.watch(Filter::default()).is_some());
    }

    #[tokio::test]
    async fn closing_ends_the_streams() {
        let watchers = Watchers::default();
        let mut watcher = watchers.watch(Filter::default()).expect("room");
        watchers.close();
        assert!(poll_fn(|context| Pin::new(&mut watcher).poll_line(context)).await.is_none());
    }
}
