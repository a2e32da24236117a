//! Asks a second endpoint when the first one has not answered for a while, and takes the answer that comes first: what a
//! slow one among many endpoints costs, few requests pay then (Dean and Barroso, The Tail at Scale, 2013).
//!
//! There is one hedge a request, of the first attempt alone, within the budget of retries: a second hedge would gain little
//! where endpoints are slow by chance, and where all are slow it would be load that they can do without.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use crate::model::Balance;

use super::super::connection::timer::{Ended, Timer};
use super::super::watch::{FOREVER, Watch};
use super::attempt::{Aim, Answer};
use super::link::{Failed, Unsent};
use super::load::Permit;
use super::retry::{self, Head, Reason};
use super::{Delivery, Upstream};

/// What the second endpoint is asked, and when.
pub(super) struct Hedge<'a> {
    head: &'a Head,
    /// What endpoints are hashed by.
    key: Option<u64>,
    after: Duration,
}

impl Upstream {
    /// `None` where nobody is asked beside the first.
    pub(super) fn hedge<'a>(&self, head: &'a Head, key: Option<u64>) -> Option<Hedge<'a>> {
        let after = self.settings().retry.as_ref()?.hedge_after?;
        (self.endpoints().len() > 1).then_some(Hedge { head, key, after })
    }

    /// One attempt, and beside it another one if that takes too long.
    pub(super) async fn hedged(
        &self,
        hedge: Hedge<'_>,
        aim: Aim<'_>,
        unsent: &mut Unsent,
        delivery: &Delivery<'_>,
        permit: Option<&mut Permit>,
    ) -> Result<Answer, Failed> {
        let mut first = pin!(self.attempt(aim, unsent, delivery));
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = tokio::time::sleep(hedge.after) => {}
        }
        let Some(second) = self.second(hedge.key, aim.first, permit) else { return first.await };
        self.meter.count_retry(Reason::Hedge);
        let now = Instant::now();
        // It has a time of its own, and when one of both fails, the other one's goes on.
        let watch = Watch::new(now, FOREVER);
        watch.busy(now);
        if let Some(limit) = delivery.watch.limit() {
            watch.ends_by(limit);
        }
        let of_second = Delivery { watch: &watch, now, ..*delivery };
        let aim_of_second = Aim { first: second, tried: &[aim.first] };
        let mut copy = Some(hedge.head.request());
        let mut second = pin!(within(&watch, self.attempt(aim_of_second, &mut copy, &of_second)));
        let (taken, is_hedged) = tokio::select! {
            biased;
            of_first = &mut first => if self.is_good(&of_first) {
                (of_first, false)
            } else {
                self.better((of_first, false), (second.await, true))
            },
            of_second = &mut second => if self.is_good(&of_second) {
                self.note_slow(aim.first, delivery.now);
                (of_second, true)
            } else {
                self.better((of_second, true), (first.await, false))
            },
        };
        if let (Ok((_, lease)), Some(trail)) = (&taken, delivery.trail) {
            trail.takes(lease.endpoint(), is_hedged);
        }
        taken
    }

    /// Who is asked beside the first, if anybody else is there and the budget allows it.
    fn second(&self, key: Option<u64>, first: usize, permit: Option<&mut Permit>) -> Option<usize> {
        let other = self.fleet.pick(None, key, Instant::now(), &[first]).filter(|other| *other != first)?;
        let retry = self.settings().retry.as_ref()?;
        permit?.retry(retry).then_some(other)
    }

    /// Whether it is what the client gets. Else the other one may still answer better: an endpoint that refuses at once
    /// must not win over one that takes its time.
    fn is_good(&self, result: &Result<Answer, Failed>) -> bool {
        let retry = self.settings().retry.as_ref();
        let is_bad =
            |answer: &Answer| retry.is_some_and(|retry| retry::wants_status(answer.0.status(), &retry.on));
        result.as_ref().is_ok_and(|answer| !is_bad(answer))
    }

    /// The last word, unless that is no answer and the former was one.
    fn better(
        &self,
        former: (Result<Answer, Failed>, bool),
        last: (Result<Answer, Failed>, bool),
    ) -> (Result<Answer, Failed>, bool) {
        if last.0.is_err() && former.0.is_ok() { former } else { last }
    }

    /// An endpoint whose answer nobody waits for any more was at least as slow as this.
    fn note_slow(&self, index: usize, began: Instant) {
        if self.settings().balance == Balance::PeakEwma
            && let Some(endpoint) = self.endpoints().get(index)
        {
            let now = Instant::now();
            endpoint.latency.observe(now.saturating_duration_since(began), now);
        }
    }
}

/// Runs something that has a watch of its own, which nobody else looks at.
async fn within<T>(watch: &Watch, running: impl Future<Output = T>) -> T {
    let sleep = pin!(tokio::time::sleep_until(watch.deadline().into()));
    let mut timer = Timer { sleep, is_set: false };
    let mut running = pin!(running);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = running.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            // What is over is seen by what runs.
            let (Ended::Run | Ended::Close) = ready!(timer.poll(cx, watch));
        }
    })
    .await
}
