//! The endpoints of an upstream as one worker sees them: picks the one that a request is sent to, and the ones that are
//! asked when that one cannot be connected to.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::random::Random;
use super::balance::{Fares, WARM};
use super::pool::Endpoint;
use super::state::State;
use super::view::View;

pub(super) struct Fleet {
    endpoints: Vec<Rc<Endpoint>>,
    state: Arc<State>,
    /// The state's.
    version: Arc<AtomicU64>,
    view: RefCell<Rc<View>>,
    random: Random,
}

impl Fleet {
    pub(super) fn new(endpoints: Vec<Rc<Endpoint>>, state: Arc<State>) -> Self {
        let view = RefCell::new(Rc::new(show(&state)));
        let version = Arc::clone(state.versions());
        Self { endpoints, state, version, view, random: Random::default() }
    }

    pub(super) fn endpoints(&self) -> &[Rc<Endpoint>] {
        &self.endpoints
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    /// Whether nobody gets requests.
    pub(super) fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// The endpoint whose turn it is, or the one that the request sticks to. If all failed a moment ago, one of them;
    /// `None` if none gets requests.
    pub(super) fn pick(
        &self,
        named: Option<usize>,
        key: Option<u64>,
        now: Instant,
        tried: &[usize],
    ) -> Option<usize> {
        let view = self.view();
        let fares = Faring { fleet: self, now, tried, has_choice: true };
        let named = named.filter(|index| fares.is_usable(*index) && view.has(*index));
        let of_group =
            || view.groups(key, &self.random).find_map(|group| group.pick(key, &fares, &self.random));
        let whoever = || {
            let fares = Faring { has_choice: false, ..fares };
            view.groups(key, &self.random).find_map(|group| group.pick(key, &fares, &self.random))
        };
        named.or_else(of_group).or_else(whoever)
    }

    /// The endpoints in the order in which they are asked for a connection: one after the other from this one on, those
    /// that failed a moment ago or were tried already last.
    pub(super) fn order<'a>(
        &'a self,
        first: usize,
        now: Instant,
        tried: &'a [usize],
    ) -> impl Iterator<Item = usize> + use<'a> {
        let view = self.view();
        let turns = move |is_usable: bool| {
            let (view, fares) = (Rc::clone(&view), Faring { fleet: self, now, tried, has_choice: true });
            let all = (0..).map_while(move |turn| view.after(first, turn));
            all.filter(move |index| fares.is_usable(*index) == is_usable)
        };
        turns(true).chain(turns(false))
    }

    /// Who gets requests, as the newest verdicts have it.
    fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if view.version != self.version.load(Ordering::Acquire) {
            *view = Rc::new(show(&self.state));
        }
        Rc::clone(&view)
    }
}

/// A verdict that changes meanwhile comes with another version: then it is looked at once more.
fn show(state: &State) -> View {
    let version = state.versions().load(Ordering::Acquire);
    View::new(&state.settings, version, |index| state.gets_requests(index))
}

/// How the endpoints fare, as this worker sees them.
#[derive(Clone, Copy)]
struct Faring<'a> {
    fleet: &'a Fleet,
    now: Instant,
    tried: &'a [usize],
    /// Else whoever is there will do.
    has_choice: bool,
}

impl Fares for Faring<'_> {
    fn in_flight(&self, index: usize) -> usize {
        self.fleet.endpoints[index].in_use()
    }

    fn latency(&self, index: usize) -> f64 {
        self.fleet.endpoints[index].latency.expected(self.now)
    }

    fn warmth(&self, index: usize) -> u64 {
        let Some(slow_start) = self.fleet.state.settings.slow_start else { return WARM };
        warmth(self.fleet.state.vitals[index].age(self.now), slow_start)
    }

    fn is_usable(&self, index: usize) -> bool {
        !self.has_choice
            || (!self.fleet.endpoints[index].is_cooling(self.now) && !self.tried.contains(&index))
    }
}

/// How much of its weight counts for who came so long ago, in percent: from a tenth on.
fn warmth(age: Duration, slow_start: Duration) -> u64 {
    let share = age.as_secs_f64() / slow_start.as_secs_f64();
    ((share * WARM as f64) as u64).clamp(WARM / 10, WARM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_new_warms_up() {
        let second = Duration::from_secs(1);
        for (age, expected) in [(0, 10), (1, 10), (15, 50), (30, 100), (3000, 100)] {
            assert_eq!(warmth(age * second, 30 * second), expected, "{age}");
        }
    }
}
