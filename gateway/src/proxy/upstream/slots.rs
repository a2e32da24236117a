//! Connections to an upstream where their number is bounded: one bound for all workers, and requests that wait until they
//! are below it. A connection that gets free goes to who waits in its own worker; now and then, and when nobody waits
//! there, it is closed for the sake of the others, who cannot use it.
//!
//! A bound for each worker would have needed none of this, but a worker that gets few requests would keep its share from
//! one that gets many.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;

use super::load::Load;

/// Of so many connections that get free in a worker where somebody waits, one is given up for other workers.
const GIVEN_UP: u32 = 8;

/// Requests of a worker that wait for a connection.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: Cell<usize>,
    /// A connection of this worker got free.
    released: Notify,
    turn: Cell<u32>,
}

/// A connection's place. Dropped, it is another one's.
#[derive(Debug)]
pub(in crate::proxy) struct Slot {
    load: Arc<Load>,
    waiting: Rc<Waiting>,
}

impl Slot {
    /// `None` if there are as many connections as there may be.
    pub(super) fn take(limit: usize, load: &Arc<Load>, waiting: &Rc<Waiting>) -> Option<Self> {
        let one_more = |open| (open < limit).then_some(open + 1);
        load.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { load: Arc::clone(load), waiting: Rc::clone(waiting) })
    }

    /// The connection got free. Whether it is better closed.
    pub(super) fn is_given_up(&self) -> bool {
        let here = self.waiting.count.get();
        if self.load.waiting.load(Ordering::Relaxed) <= here {
            return false;
        }
        let turn = self.waiting.turn.replace(self.waiting.turn.get().wrapping_add(1));
        here == 0 || turn % GIVEN_UP == GIVEN_UP - 1
    }

    /// The connection takes a request more.
    pub(super) fn offer(&self) {
        if self.waiting.count.get() > 0 {
            self.waiting.released.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.connections.fetch_sub(1, Ordering::Relaxed);
        self.load.freed.notify_one();
    }
}

/// A request that waits. Dropped, it no longer does.
struct Waiter<'a> {
    load: &'a Load,
    here: &'a Waiting,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.load.waiting.fetch_sub(1, Ordering::Relaxed);
        self.here.count.set(self.here.count.get() - 1);
    }
}

/// Looks again whenever a connection got free, or a place for one. `None` if nothing came of it in this time.
pub(super) async fn wait<T>(
    load: &Load,
    here: &Waiting,
    limit: Duration,
    look: impl Fn() -> Option<T>,
) -> Option<T> {
    load.waiting.fetch_add(1, Ordering::Relaxed);
    here.count.set(here.count.get() + 1);
    let _waiter = Waiter { load, here };
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::select! {
                () = load.freed.notified() => {}
                () = here.released.notified() => {}
            }
        }
    };
    tokio::time::timeout(limit, looking).await.ok()
}

/// Whether requests of other workers wait.
pub(super) fn others_wait(load: &Load, here: &Waiting) -> bool {
    load.waiting.load(Ordering::Relaxed) > here.count.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_over_all_workers() {
        let (load, here, there) = (Arc::<Load>::default(), Rc::default(), Rc::default());
        let first = Slot::take(2, &load, &here).unwrap();
        let second = Slot::take(2, &load, &there).unwrap();
        assert!(Slot::take(2, &load, &here).is_none());
        drop(first);
        assert!(Slot::take(2, &load, &there).is_some(), "and given back");
        assert!(Slot::take(1, &load, &here).is_none(), "a lower bound holds for new ones");
        drop(second);
        assert_eq!(load.connections.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn some_are_given_up_for_others() {
        let load = Arc::<Load>::default();
        for (name, here_wait, others_wait, expected) in [
            ("nobody waits", 0, 0, 0),
            ("here alone", 2, 0, 0),
            ("elsewhere alone", 0, 1, 16),
            ("both", 1, 1, 2),
        ] {
            let here = Rc::new(Waiting::default());
            here.count.set(here_wait);
            load.waiting.store(here_wait + others_wait, Ordering::Relaxed);
            let slot = Slot::take(1, &load, &here).unwrap();
            assert_eq!((0..16).filter(|_| slot.is_given_up()).count(), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_freed_or_gives_up() {
        let (load, here) = (Arc::<Load>::default(), Rc::<Waiting>::default());
        let second = Duration::from_secs(1);
        let slot = Slot::take(1, &load, &here).unwrap();
        let look = || Slot::take(1, &load, &here);
        assert!(wait(&load, &here, second, look).await.is_none());
        let freeing = async {
            tokio::time::sleep(second / 2).await;
            drop(slot);
        };
        let (waited, ()) = tokio::join!(wait(&load, &here, second, look), freeing);
        assert!(waited.is_some());
        assert_eq!((here.count.get(), load.waiting.load(Ordering::Relaxed)), (0, 0));
    }
}
