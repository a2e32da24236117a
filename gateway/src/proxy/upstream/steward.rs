//! Looks after the endpoints for all workers: one thread for the process, so that each endpoint is asked once and not once
//! a worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_local};

use crate::model::HealthCheck;

use super::super::random::Random;
use super::check;
use super::pool::Endpoint;
use super::state::{State, Vitals};

/// Checks at a time: each has a connection.
const MAX_CHECKS: usize = 256;

/// Within which the first checks begin: nobody waits long for them, and they do not all come at once.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// The thread, from outside. It ends when this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Steward {
    orders: mpsc::UnboundedSender<Vec<Arc<State>>>,
}

impl Steward {
    pub(in crate::proxy) fn start() -> io::Result<Self> {
        // Bounded by reloads, each of which is one order.
        let (orders, inbox) = mpsc::unbounded_channel();
        let (started, ready) = sync_mpsc::channel();
        let body = move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime: LocalRuntime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(()));
            runtime.block_on(run(inbox));
        };
        std::thread::Builder::new().name("upstreams".to_owned()).spawn(body)?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self { orders })
    }

    /// Looks after these from now on, and after no others.
    pub(in crate::proxy) fn look_after(&self, states: Vec<Arc<State>>) {
        // The thread ends only with this handle.
        let _ = self.orders.send(states);
    }
}

async fn run(mut inbox: mpsc::UnboundedReceiver<Vec<Arc<State>>>) {
    let turns = Rc::new(Semaphore::new(MAX_CHECKS));
    let mut known: HashMap<String, Care> = HashMap::new();
    while let Some(wanted) = inbox.recv().await {
        let mut former = std::mem::take(&mut known);
        for state in wanted.into_iter().filter(|state| state.is_watched()) {
            let care = match former.remove(state.name()) {
                Some(mut care) => {
                    care.turn_to(&state, &turns);
                    care
                }
                None => Care::begin(&state, &turns),
            };
            known.insert(state.name().to_owned(), care);
        }
    }
}

/// What is done for one upstream. An endpoint that stays is checked on, with the results that it has in a row, while others
/// come and go.
struct Care {
    newest: Newest,
    checks: Vec<(Arc<Vitals>, Task)>,
    looks: Option<Task>,
}

/// The upstream as it stands now, for the tasks.
type Newest = Rc<RefCell<Arc<State>>>;

/// Ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Care {
    fn begin(state: &Arc<State>, turns: &Rc<Semaphore>) -> Self {
        let newest = Rc::new(RefCell::new(Arc::clone(state)));
        let mut care = Self { newest, checks: Vec::new(), looks: None };
        care.check(turns);
        care.look();
        care
    }

    fn turn_to(&mut self, state: &Arc<State>, turns: &Rc<Semaphore>) {
        let former = self.newest.replace(Arc::clone(state));
        if Arc::ptr_eq(&former, state) {
            return;
        }
        self.check(turns);
        if former.settings.ejection != state.settings.ejection {
            self.look();
        }
    }

    /// Begins and ends checks. By other rules an endpoint has other vitals, so those of before end.
    fn check(&mut self, turns: &Rc<Semaphore>) {
        let state = Arc::clone(&self.newest.borrow());
        let Some(health) = &state.settings.health else { return self.checks.clear() };
        let mut former: HashMap<_, _> =
            self.checks.drain(..).map(|(vitals, task)| (Arc::as_ptr(&vitals), task)).collect();
        for vitals in &state.vitals {
            let task = former.remove(&Arc::as_ptr(vitals)).unwrap_or_else(|| {
                let (newest, vitals) = (Rc::clone(&self.newest), Arc::clone(vitals));
                Task(spawn_local(keep_checking(newest, vitals, health.clone(), Rc::clone(turns))))
            });
            self.checks.push((Arc::clone(vitals), task));
        }
    }

    fn look(&mut self) {
        let interval = self.newest.borrow().settings.ejection.as_ref().map(|ejection| ejection.interval);
        self.looks =
            interval.map(|interval| Task(spawn_local(keep_looking(Rc::clone(&self.newest), interval))));
    }
}

/// Lets ejected endpoints back.
async fn keep_looking(newest: Newest, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        newest.borrow().look(Instant::now());
    }
}

/// Checks an endpoint until nobody wants to know any more.
async fn keep_checking(newest: Newest, vitals: Arc<Vitals>, health: HealthCheck, turns: Rc<Semaphore>) {
    let (endpoint, random, mut streak) =
        (Rc::new(Endpoint::new(&vitals.endpoint)), Random::default(), Streak::default());
    tokio::time::sleep(part_of(FIRST_WITHIN.min(health.interval), &random)).await;
    loop {
        let turn = turns.acquire().await;
        let state = Arc::clone(&newest.borrow());
        let result = check::check(&endpoint, &state, &health).await;
        drop(turn);
        let is_good = result.is_ok();
        vitals.complain(result.err());
        let verdict = streak.count(is_good, vitals.is_first_check(), &health);
        if let Some(is_up) = verdict.filter(|is_up| state.judge(&vitals, *is_up)) {
            let verdict = if is_up { "is healthy" } else { "is unhealthy" };
            let why = vitals.complaint().unwrap_or_default();
            tracing::warn!(upstream = state.name(), %endpoint, why, "{verdict}");
        }
        // A tenth more or less, so that endpoints that came together do not stay together.
        let tenth = health.interval / 10;
        tokio::time::sleep(health.interval - tenth + part_of(2 * tenth, &random)).await;
    }
}

fn part_of(whole: Duration, random: &Random) -> Duration {
    Duration::from_nanos(random.below(u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX)))
}

/// Results in a row.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// One more result, and the verdict that follows from it. The first one decides at once: before it, nobody knew.
    fn count(&mut self, is_good: bool, is_first: bool, health: &HealthCheck) -> Option<bool> {
        let (count, other, wanted) = match is_good {
            true => (&mut self.good, &mut self.bad, health.healthy),
            false => (&mut self.bad, &mut self.good, health.unhealthy),
        };
        *other = 0;
        *count = count.saturating_add(1);
        (is_first || *count >= wanted).then_some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;

    #[test]
    fn a_verdict_takes_several_results() {
        let second = Duration::from_secs(1);
        let health = HealthCheck {
            probe: Probe::Tcp,
            interval: second,
            timeout: second,
            healthy: 2,
            unhealthy: 3,
            starts_up: true,
        };
        for (name, results, expected) in [
            ("the first decides", "-", "-"),
            ("and the first good one", "+", "+"),
            ("three bad ones", "+---", "+..-"),
            ("not in a row", "+--+--", "+....."),
            ("two good ones", "-++", "-.+"),
            ("not in a row", "-+-+", "-..."),
        ] {
            let mut streak = Streak::default();
            let verdicts: String = results
                .char_indices()
                .map(|(turn, result)| match streak.count(result == '+', turn == 0, &health) {
                    None => '.',
                    Some(true) => '+',
                    Some(false) => '-',
                })
                .collect();
            assert_eq!(verdicts, expected, "{name}");
        }
    }
}
