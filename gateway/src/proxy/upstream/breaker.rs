//! The breaker of an upstream: when too many requests fail, nothing is sent for a while, then a few to try. One for all
//! workers, and only atomics: whoever asks whether it is closed reads one word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model;

/// The window moves by a tenth of itself.
const BUCKETS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// 0: closed. Else a [`Word`].
    word: AtomicU64,
    /// What came of requests, a tenth of the window each: a [`Bucket`].
    buckets: [AtomicU64; BUCKETS as usize],
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Requests are sent.
    Closed,
    /// Nothing is sent.
    Open,
    /// A few are sent to try.
    HalfOpen,
}

/// Leave to send a request. Who does not tell what came of it has not sent it.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    settings: &'a model::Breaker,
    /// It is one of the few after the opening that ended then.
    probe: Option<u64>,
}

impl Breaker {
    /// `None` if nothing is to be sent.
    pub(super) fn enter<'a>(&'a self, settings: &'a model::Breaker, now_ms: u64) -> Option<Pass<'a>> {
        let word = Word::unpack(self.word.load(Ordering::Relaxed));
        let Some(word) = word else { return Some(Pass { breaker: self, settings, probe: None }) };
        if word.until > now_ms {
            return None;
        }
        let admit = |word: Word| (word.admitted < settings.half_open_requests).then(|| word.admitting(1));
        self.change(word.until, admit)?;
        Some(Pass { breaker: self, settings, probe: Some(word.until) })
    }

    pub(super) fn position(&self, settings: &model::Breaker, now_ms: u64) -> Position {
        match Word::unpack(self.word.load(Ordering::Relaxed)) {
            None => Position::Closed,
            Some(word) if word.until > now_ms || word.admitted >= settings.half_open_requests => {
                Position::Open
            }
            Some(_) => Position::HalfOpen,
        }
    }

    /// Changes the word, if it still is about this opening.
    fn change(&self, until: u64, change: impl Fn(Word) -> Option<Word>) -> Option<Word> {
        let update = |packed| Some(change(Word::unpack(packed).filter(|word| word.until == until)?)?.pack());
        let changed = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        Word::unpack(changed.ok()?).and_then(change)
    }

    /// Counts a request that was sent while it was closed. Whether that opens it.
    fn count(&self, settings: &model::Breaker, is_failure: bool, now_ms: u64) -> bool {
        let slot = slot(settings, now_ms);
        let bucket = &self.buckets[(slot % BUCKETS) as usize];
        let add = |packed| Some(Bucket::unpack(packed).of(slot).counting(is_failure).pack());
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        is_failure && self.is_too_much(settings, slot) && {
            let open = Word { until: until(settings, now_ms), admitted: 0, succeeded: 0 }.pack();
            self.word.compare_exchange(0, open, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }

    fn is_too_much(&self, settings: &model::Breaker, slot: u64) -> bool {
        let buckets = self.buckets.iter().map(|bucket| Bucket::unpack(bucket.load(Ordering::Relaxed)));
        let (total, failed) = buckets
            .filter(|bucket| bucket.is_within(slot))
            .fold((0, 0), |(total, failed), bucket| (total + bucket.total, failed + bucket.failed));
        total >= u64::from(settings.min_requests) && failed * 100 >= total * u64::from(settings.error_ratio)
    }

    /// One of the few has told.
    fn judge(&self, settings: &model::Breaker, opening: u64, is_failure: bool, now_ms: u64) {
        if is_failure {
            let open = Word { until: until(settings, now_ms), admitted: 0, succeeded: 0 };
            self.change(opening, |_| Some(open));
            return;
        }
        let word = self.change(opening, |word| Some(Word { succeeded: word.succeeded + 1, ..word }));
        if let Some(word) = word.filter(|word| word.succeeded >= settings.half_open_requests) {
            // What was counted before is not held against it.
            self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
            let _ = self.word.compare_exchange(word.pack(), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Pass<'_> {
    /// What came of the request. Whether that has opened the breaker.
    pub(super) fn tell(mut self, is_failure: bool, now_ms: u64) -> bool {
        match self.probe.take() {
            None => self.breaker.count(self.settings, is_failure, now_ms),
            Some(opening) => {
                self.breaker.judge(self.settings, opening, is_failure, now_ms);
                is_failure
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Somebody else may try instead.
        if let Some(opening) = self.probe {
            self.breaker.change(opening, |word| Some(word.admitting(-1)));
        }
    }
}

/// An opening: when it ends, and what came of those that were sent after it.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// Never 0, so that no word is 0.
    until: u64,
    admitted: u32,
    succeeded: u32,
}

impl Word {
    const TIME_BITS: u32 = 48;

    fn unpack(packed: u64) -> Option<Self> {
        let byte = |shift: u32| ((packed >> shift) & 0xff) as u32;
        let until = packed & ((1 << Self::TIME_BITS) - 1);
        (packed != 0).then(|| Self { until, admitted: byte(48), succeeded: byte(56) })
    }

    fn pack(self) -> u64 {
        let byte = |count: u32, shift: u32| u64::from(count.min(0xff)) << shift;
        self.until | byte(self.admitted, 48) | byte(self.succeeded, 56)
    }

    fn admitting(self, more: i32) -> Self {
        Self { admitted: self.admitted.saturating_add_signed(more), ..self }
    }
}

fn until(settings: &model::Breaker, now_ms: u64) -> u64 {
    (now_ms + millis(settings.open_for)).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A tenth of the window, numbered.
fn slot(settings: &model::Breaker, now_ms: u64) -> u64 {
    now_ms * BUCKETS / millis(settings.window).max(BUCKETS)
}

/// A tenth of a window: which one, requests, and those of them that failed.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    slot: u64,
    total: u64,
    failed: u64,
}

impl Bucket {
    const COUNT_BITS: u32 = 20;
    const COUNT: u64 = (1 << Self::COUNT_BITS) - 1;
    const SLOT: u64 = u64::MAX >> (2 * Self::COUNT_BITS);

    fn unpack(packed: u64) -> Self {
        let slot = packed >> (2 * Self::COUNT_BITS);
        Self { slot, total: (packed >> Self::COUNT_BITS) & Self::COUNT, failed: packed & Self::COUNT }
    }

    fn pack(self) -> u64 {
        (self.slot << (2 * Self::COUNT_BITS)) | (self.total << Self::COUNT_BITS) | self.failed
    }

    /// The same for this slot: empty if it was another one's.
    fn of(self, slot: u64) -> Self {
        let slot = slot & Self::SLOT;
        if self.slot == slot { self } else { Self { slot, total: 0, failed: 0 } }
    }

    /// A full one counts no more: a million requests say enough.
    fn counting(self, is_failure: bool) -> Self {
        if self.total == Self::COUNT {
            return self;
        }
        Self { total: self.total + 1, failed: self.failed + u64::from(is_failure), ..self }
    }

    fn is_within(self, slot: u64) -> bool {
        (slot & Self::SLOT).wrapping_sub(self.slot) & Self::SLOT < BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> model::Breaker {
        model::Breaker {
            error_ratio: 50,
            min_requests: 4,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(30),
            half_open_requests: 2,
            slow: None,
        }
    }

    /// Plays `second:what` in order, with `+` and `-` for a request that succeeds or fails, `x` for one that is not sent
    /// after all, and `/` for one that must be refused.
    fn play(breaker: &Breaker, script: &str) {
        let settings = settings();
        for step in script.split_whitespace() {
            let (second, requests) = step.split_once(':').unwrap();
            let now = second.parse::<u64>().unwrap() * 1000;
            for what in requests.chars() {
                let pass = breaker.enter(&settings, now);
                match what {
                    '/' => assert!(pass.is_none(), "{script}: at {step}"),
                    'x' => drop(pass.unwrap_or_else(|| panic!("{script}: at {step}"))),
                    what => {
                        let pass = pass.unwrap_or_else(|| panic!("{script}: at {step}"));
                        pass.tell(what == '-', now);
                    }
                }
            }
        }
    }

    #[test]
    fn it_opens_and_closes() {
        for script in [
            // Too few, and then enough.
            "1:--- 2:- 3:/",
            "1:-++- 2:/",
            "1:-+++ 2:+++",
            // What is older than the window does not count.
            "1:--- 12:-++ 13:+",
            "5:--- 9:- 10:/",
            // After its time, two have to succeed.
            "1:---- 2:/ 30:/ 31:++ 31:+--- 31:/",
            "1:---- 31:+- 31:/ 60:/ 61:++ 62:+",
            // Those that are not sent do not count.
            "1:xxxx---x 31:+",
            "1:---- 31:xxx 31:+x+ 31:+",
        ] {
            play(&Breaker::default(), script);
        }
    }

    #[test]
    fn only_a_few_try() {
        let (breaker, settings) = (Breaker::default(), settings());
        play(&breaker, "1:----");
        assert_eq!(breaker.position(&settings, 30_999), Position::Open);
        assert_eq!(breaker.position(&settings, 31_000), Position::HalfOpen);
        let first = breaker.enter(&settings, 31_000).unwrap();
        let second = breaker.enter(&settings, 31_000).unwrap();
        assert!(breaker.enter(&settings, 31_000).is_none());
        first.tell(true, 32_000);
        assert_eq!(breaker.position(&settings, 61_999), Position::Open);
        // The other one began after the former opening, and says nothing of this one.
        second.tell(false, 62_000);
        assert!(breaker.enter(&settings, 62_000).is_some());
        play(&breaker, "62:++");
        assert_eq!(breaker.position(&settings, 62_000), Position::Closed);
    }

    proptest! {
        #[test]
        fn words_and_buckets_come_back_as_they_were(
            until in 1_u64..(1 << 48), admitted in 0_u32..256, succeeded in 0_u32..256,
            slot in 0_u64..(1 << 24), total in 0_u64..(1 << 20), failed in 0_u64..(1 << 20),
        ) {
            let word = Word::unpack(Word { until, admitted, succeeded }.pack()).unwrap();
            prop_assert_eq!((word.until, word.admitted, word.succeeded), (until, admitted, succeeded));
            let bucket = Bucket::unpack(Bucket { slot, total, failed }.pack());
            prop_assert_eq!((bucket.slot, bucket.total, bucket.failed), (slot, total, failed));
        }
    }
}
