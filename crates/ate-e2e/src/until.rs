//! Waiting for something to become true, with a bound and a message.

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const STEP: Duration = Duration::from_millis(25);

/// Looks until `check` gives something; panics with `what` when it did not within `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < limit, "still waiting after {limit:?}: {what}");
        std::thread::park_timeout(STEP);
    }
}

/// [`until`] for conditions.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut check: impl FnMut() -> bool) {
    until(what, limit, || check().then_some(()));
}
