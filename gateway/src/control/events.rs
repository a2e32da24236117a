//! Sampled verdicts on their way from the kernel's ring buffer to whoever watches. While nobody does,
//! the ring is not read and no share is granted, so the programs do not even write to it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_kernel::{Event, Events, Rules};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

/// Watchers at a time.
const MAX_WATCHERS: usize = 16;
/// Lines that wait for one watcher before it is told that some were left out.
const QUEUE_LINES: usize = 1024;
/// How often the ring is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Looks for each share of events that the programs are granted: one in 100 ms.
const LOOKS_PER_GRANT: u32 = 4;
/// Looks for each reading of the kernel's count of lost events: one in a second.
const LOOKS_PER_COUNT: u32 = 40;

const _: () = assert!(LOOKS_PER_COUNT.is_multiple_of(LOOKS_PER_GRANT));

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Events that this watcher did not get since the line before: suppressed in the kernel, or it was slow.
    LeftOut {
        /// How many.
        left_out: u64,
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
    queue: mpsc::Sender<Bytes>,
    left_out: Arc<AtomicU64>,
}

/// One watcher's end: a stream of lines that ends when the agent does.
#[derive(Debug)]
pub struct Watcher {
    queue: mpsc::Receiver<Bytes>,
    left_out: Arc<AtomicU64>,
}

impl Watchers {
    /// A new watcher, or `None` when there are too many.
    #[must_use]
    pub fn watch(&self) -> Option<Watcher> {
        let mut slots = self.slots();
        slots.retain(|slot| !slot.queue.is_closed());
        if slots.len() >= MAX_WATCHERS {
            return None;
        }
        let (sender, queue) = mpsc::channel(QUEUE_LINES);
        let left_out = Arc::new(AtomicU64::new(0));
        slots.push(Slot { queue: sender, left_out: Arc::clone(&left_out) });
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

    /// Gives an event to every watcher; a watcher whose queue is full loses it, and learns how many.
    fn publish(&self, event: Event) {
        let line = Line::Event(event).encode();
        for slot in self.slots().iter() {
            if let Err(mpsc::error::TrySendError::Full(_)) = slot.queue.try_send(line.clone()) {
                slot.left_out.fetch_add(1, Ordering::Relaxed);
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells every watcher of events that never left the kernel, even if no other event follows them.
    fn miss(&self, lost: u64) {
        if lost == 0 {
            return;
        }
        for slot in self.slots().iter() {
            slot.left_out.fetch_add(lost, Ordering::Relaxed);
            // An empty line wakes the watcher; one with a full queue is awake.
            let _ = slot.queue.try_send(Bytes::new());
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
            let left_out = self.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                return Poll::Ready(Some(Line::LeftOut { left_out }.encode()));
            }
            match self.queue.poll_recv(context) {
                Poll::Ready(Some(line)) if line.is_empty() => {}
                other => return other,
            }
        }
    }
}

/// Moves events from the ring buffer to the watchers for as long as the agent lives.
///
/// The ring is looked into at short intervals instead of having its descriptor polled: the runtime's way
/// to poll a foreign descriptor is unsafe code, and nobody reads lines faster than this.
pub async fn pump(mut events: Events, watchers: Watchers, rules: Rules) {
    loop {
        while !watchers.any() {
            watchers.shared.arrival.notified().await;
        }
        serve_watchers(&mut events, &watchers, &rules).await;
        // Without readers the programs are to sample nothing.
        if let Err(error) = events.pause() {
            tracing::warn!("sampling goes on although nobody watches: {error}");
        }
    }
}

async fn serve_watchers(events: &mut Events, watchers: &Watchers, rules: &Rules) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = events_lost(rules).await;
    // What waits in the ring is from before anybody watched.
    events.read(&mut |_| {});
    for look in (0..LOOKS_PER_COUNT).cycle() {
        if !watchers.any() {
            return;
        }
        if look % LOOKS_PER_GRANT == 0
            && let Err(error) = events.grant()
        {
            // Once a second at most, and only while somebody waits for what does not come.
            if look == 0 {
                tracing::warn!("no verdicts can be sampled: {error}");
            }
        }
        if look == LOOKS_PER_COUNT - 1 {
            let now = events_lost(rules).await;
            if let (Some(before), Some(now)) = (lost, now) {
                watchers.miss(now.saturating_sub(before));
            }
            lost = now;
        }
        looks.tick().await;
        events.read(&mut |event| watchers.publish(event));
    }
}

async fn events_lost(rules: &Rules) -> Option<u64> {
    let rules = rules.clone();
    let counters = tokio::task::spawn_blocking(move || rules.counters()).await;
    counters.ok()?.ok().map(|counters| counters.events_lost)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn event(length: u32) -> Event {
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

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_missed() {
        let watchers = Watchers::default();
        let mut slow = watchers.watch().expect("room");
        for length in 0..QUEUE_LINES as u32 + 5 {
            watchers.publish(event(length));
        }
        watchers.miss(2);
        assert_eq!(next(&mut slow).await, Line::LeftOut { left_out: 7 });
        assert_eq!(next(&mut slow).await, Line::Event(event(0)));
        assert_eq!(watchers.dropped(), 5);
    }

    #[tokio::test]
    async fn losses_are_told_without_waiting_for_an_event() {
        let watchers = Watchers::default();
        let mut watcher = watchers.watch().expect("room");
        let told = tokio::spawn(async move { next(&mut watcher).await });
        // The watcher is asleep by now; only the loss itself can wake it.
        tokio::task::yield_now().await;
        watchers.miss(400);
        assert_eq!(told.await.expect("told"), Line::LeftOut { left_out: 400 });
    }

    #[tokio::test]
    async fn watchers_are_bounded_and_leave() {
        let watchers = Watchers::default();
        let held: Vec<_> = (0..MAX_WATCHERS).map(|_| watchers.watch().expect("room")).collect();
        assert!(watchers.watch().is_none());
        drop(held);
        assert!(!watchers.any());
        assert!(watchers.watch().is_some());
    }

    #[tokio::test]
    async fn closing_ends_the_streams() {
        let watchers = Watchers::default();
        let mut watcher = watchers.watch().expect("room");
        watchers.close();
        assert!(poll_fn(|context| Pin::new(&mut watcher).poll_line(context)).await.is_none());
    }
}
