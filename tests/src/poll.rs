//! Waiting, always bounded: a test polls for what it expects and says what it last saw.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short against every time limit in the suite, long against a look.
const STEP: Duration = Duration::from_millis(10);

/// Polls `look` until it answers `Ok`, and panics with its last answer when `limit` is over.
pub fn eventually<T, E: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= end => {
                panic!("waited {limit:?} in vain until {what}; last seen: {last:?}")
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// Checks that `look` keeps answering `Ok` for as long as `span`.
pub fn steady<E: Debug>(what: &str, span: Duration, mut look: impl FnMut() -> Result<(), E>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(seen) = look() {
            panic!("{what} did not hold for {span:?}: {seen:?}");
        }
        std::thread::sleep(STEP);
    }
}
