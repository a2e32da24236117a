//! Counts what goes to models and what comes from them.
//!
//! As in [`super::http`], a request touches cells of its own worker. Their number is bounded: where a route lets clients
//! name any model, they must not make series without end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use gateway_llm::loss::{Losses, What};
use gateway_llm::neutral::Usage;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// The name of the histogram of first tokens.
pub const FIRST_TOKEN: &str = "gateway_llm_time_to_first_token_seconds";

const REQUESTS: &str = "gateway_llm_requests_total";
const TOKENS: &str = "gateway_llm_tokens_total";
const LOSSES: &str = "gateway_llm_losses_total";
const FALLBACKS: &str = "gateway_llm_fallbacks_total";

/// Pairs of provider and model that have series of their own, in each worker. The others are one.
const MAX_PAIRS: usize = 512;
const OTHER: &str = "other";

/// Describes every metric of models; call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!(
        REQUESTS,
        "Requests that a provider answered, by lane (pass, splice, translate) and status."
    );
    describe_counter!(
        TOKENS,
        "Tokens, as providers count them. Cached and reasoning tokens are among input and output."
    );
    describe_counter!(LOSSES, "What translations could not carry, by kind.");
    describe_counter!(FALLBACKS, "Targets that were given up for the next one, by why.");
    describe_histogram!(
        FIRST_TOKEN,
        Unit::Seconds,
        "From a request's head to the first piece of its answer's body."
    );
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Nothing but the key was changed.
    Pass,
    /// Some fields were changed, all other bytes are the client's.
    Splice,
    /// It was translated.
    Translate,
}

impl Lane {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Splice => "splice",
            Self::Translate => "translate",
        }
    }
}

const LANES: [Lane; 3] = [Lane::Pass, Lane::Splice, Lane::Translate];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
const DIRECTIONS: [&str; 5] = ["input", "output", "cache_read", "cache_write", "reasoning"];

/// By model.
type Models = HashMap<Rc<str>, Rc<ModelMeter>>;

/// What a worker has counted.
#[derive(Default)]
pub(crate) struct LlmMeter {
    /// By provider.
    pairs: RefCell<HashMap<Rc<str>, Models>>,
    count: Cell<usize>,
    losses: RefCell<HashMap<&'static str, u64>>,
}

/// What it has counted for one model of one provider.
#[derive(Default)]
pub(crate) struct ModelMeter {
    is_dirty: Cell<bool>,
    requests: [[Cell<u64>; CLASSES.len()]; LANES.len()],
    tokens: [Cell<u64>; DIRECTIONS.len()],
    fallbacks: RefCell<HashMap<&'static str, u64>>,
    first_tokens: RefCell<Vec<Duration>>,
}

impl LlmMeter {
    /// The meter of a model.
    pub(crate) fn of(&self, provider: &str, model: &str) -> Rc<ModelMeter> {
        let mut pairs = self.pairs.borrow_mut();
        if let Some(known) = pairs.get(provider).and_then(|models| models.get(model)) {
            return Rc::clone(known);
        }
        let model = if self.count.get() < MAX_PAIRS { model } else { OTHER };
        let models = pairs.entry(provider.into()).or_default();
        let meter = models.entry(model.into()).or_insert_with(|| {
            self.count.set(self.count.get() + 1);
            Rc::default()
        });
        Rc::clone(meter)
    }

    /// What a translation lost.
    pub(crate) fn lost(&self, losses: &Losses) {
        let mut counts = self.losses.borrow_mut();
        for loss in losses.kept() {
            *counts.entry(loss.what.label()).or_default() += 1;
        }
        let more = losses.count() - losses.kept().len();
        if more > 0 {
            *counts.entry("more").or_default() += more as u64;
        }
        debug_assert!(counts.len() <= What::ALL.len() + 1);
    }

    /// Adds what was counted to the shared handles.
    pub(crate) fn flush(&self) {
        for (what, count) in self.losses.borrow_mut().drain() {
            counter!(LOSSES, "kind" => what).increment(count);
        }
        for (provider, models) in &*self.pairs.borrow() {
            for (model, meter) in models {
                meter.flush(provider, model);
            }
        }
    }
}

impl Drop for LlmMeter {
    fn drop(&mut self) {
        self.flush();
    }
}

impl ModelMeter {
    /// A provider has answered.
    pub(crate) fn answered(&self, lane: Lane, status: u16) {
        self.is_dirty.set(true);
        let class = usize::from((status / 100).clamp(2, 5) - 2);
        let count = &self.requests[lane as usize][class];
        count.set(count.get() + 1);
    }

    /// It was given up for the next target.
    pub(crate) fn gave_up(&self, why: &'static str) {
        self.is_dirty.set(true);
        *self.fallbacks.borrow_mut().entry(why).or_default() += 1;
    }

    /// The first piece of an answer's body is there.
    pub(crate) fn first_token(&self, after: Duration) {
        self.is_dirty.set(true);
        self.first_tokens.borrow_mut().push(after);
    }

    /// What an answer cost.
    pub(crate) fn used(&self, usage: &Usage) {
        self.is_dirty.set(true);
        let counts = [usage.input, usage.output, usage.cache_read, usage.cache_written, usage.reasoning];
        for (cell, count) in self.tokens.iter().zip(counts) {
            cell.set(cell.get().saturating_add(count.unwrap_or(0)));
        }
    }

    fn flush(&self, provider: &str, model: &str) {
        if !self.is_dirty.replace(false) {
            return;
        }
        let labels = |name: &'static str, value: &'static str| {
            [("provider", provider.to_owned()), ("model", model.to_owned()), (name, value.to_owned())]
        };
        for lane in LANES {
            for (class, count) in CLASSES.iter().zip(&self.requests[lane as usize]) {
                let count = count.take();
                if count > 0 {
                    let [provider, model, lane] = labels("lane", lane.name());
                    let labels = [provider, model, lane, ("status_class", (*class).to_owned())];
                    counter!(REQUESTS, &labels).increment(count);
                }
            }
        }
        for (direction, count) in DIRECTIONS.iter().zip(&self.tokens) {
            let count = count.take();
            if count > 0 {
                counter!(TOKENS, &labels("direction", direction)).increment(count);
            }
        }
        for (why, count) in self.fallbacks.borrow_mut().drain() {
            counter!(FALLBACKS, &labels("reason", why)).increment(count);
        }
        let mut first_tokens = self.first_tokens.borrow_mut();
        if !first_tokens.is_empty() {
            let [provider, model, _] = labels("", "");
            let first = histogram!(FIRST_TOKEN, &[provider, model]);
            first_tokens.drain(..).for_each(|after| first.record(after.as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_make_no_series_without_end() {
        let meter = LlmMeter::default();
        let first = meter.of("a", "first");
        for model in 0..10 * MAX_PAIRS {
            meter.of("a", &model.to_string());
        }
        assert!(meter.pairs.borrow()["a"].len() <= MAX_PAIRS + 1);
        assert!(Rc::ptr_eq(&first, &meter.of("a", "first")));
        assert!(Rc::ptr_eq(&meter.of("a", "beyond"), &meter.of("a", "others")));
    }
}
