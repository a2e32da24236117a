//! Looks after the endpoints for all workers: one thread for the process, so that each endpoint is asked once and not once
//! a worker.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::model::HealthCheck;

use super::super::random::Random;
use super::check;
use super::pool::Endpoint;
use super::state::State;

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
    // Tasks of an upstream end when its set is dropped.
    let mut known: Vec<(Arc<State>, JoinSet<()>)> = Vec::new();
    while let Some(wanted) = inbox.recv().await {
        known.retain(|(state, _)| wanted.iter().any(|wanted| Arc::ptr_eq(wanted, state)));
        for state in wanted {
            if !known.iter().any(|(known, _)| Arc::ptr_eq(known, &state)) {
                let tasks = look_after(&state, &turns);
                known.push((state, tasks));
            }
        }
    }
}

fn look_after(state: &Arc<State>, turns: &Rc<Semaphore>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(health) = &state.settings.health {
        for index in 0..state.settings.endpoints.len() {
            tasks.spawn_local(keep_checking(Arc::clone(state), index, health.clone(), Rc::clone(turns)));
        }
    }
    if let Some(ejection) = &state.settings.ejection {
        tasks.spawn_local(keep_looking(Arc::clone(state), ejection.interval));
    }
    tasks
}

/// Lets ejected endpoints back.
async fn keep_looking(state: Arc<State>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        state.look(Instant::now());
    }
}

/// Checks an endpoint until nobody wants to know any more.
async fn keep_checking(state: Arc<State>, index: usize, health: HealthCheck, turns: Rc<Semaphore>) {
    let Some(settings) = state.settings.endpoints.get(index) else { return };
    let Some(vitals) = state.vitals.get(index) else { return };
    let (endpoint, random, mut streak) =
        (Rc::new(Endpoint::new(settings)), Random::default(), Streak::default());
    tokio::time::sleep(part_of(FIRST_WITHIN.min(health.interval), &random)).await;
    loop {
        let turn = turns.acquire().await;
        let result = check::check(&endpoint, &state, &health).await;
        drop(turn);
        let is_good = result.is_ok();
        vitals.complain(result.err());
        let verdict = streak.count(is_good, vitals.is_first_check(), &health);
        if let Some(is_up) = verdict.filter(|is_up| state.judge(index, *is_up)) {
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
