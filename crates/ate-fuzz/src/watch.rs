//! Ends the process when an input takes too long: a parser that hangs cannot be asked to stop.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// For one input. Parsers take microseconds; a machine that is busy with other tests may let one wait for long.
pub const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const IDLE: u64 = u64::MAX;

pub struct Watch {
    since: Instant,
    /// Milliseconds after `since` at which the current input was begun.
    begun: AtomicU64,
}

impl Watch {
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.begun.store(self.now(), Ordering::Relaxed);
        let result = work();
        self.begun.store(IDLE, Ordering::Relaxed);
        result
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(IDLE)
    }
}

/// Runs `work` while another thread looks at how long it has been busy with one input.
pub(crate) fn over(name: &str, work: impl FnOnce(&Watch)) {
    struct Stop<'a>(&'a Watch, thread::Thread);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.begun.store(IDLE - 1, Ordering::Relaxed);
            self.1.unpark();
        }
    }
    let watch = Watch { since: Instant::now(), begun: AtomicU64::new(IDLE) };
    let limit = u64::try_from(limit().as_millis()).unwrap_or(IDLE);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            loop {
                match watch.begun.load(Ordering::Relaxed) {
                    IDLE => {}
                    begun if begun == IDLE - 1 => return,
                    begun if watch.now().saturating_sub(begun) > limit => {
                        eprintln!("{name}: an input takes longer than {limit} ms");
                        std::process::abort();
                    }
                    _ => {}
                }
                thread::park_timeout(LOOK);
            }
        });
        // Also when `work` panics: the scope waits for the watcher.
        let _stop = Stop(&watch, watcher.thread().clone());
        work(&watch);
    });
}

/// Shorter for the tests of this crate.
fn limit() -> Duration {
    std::env::var("ATE_FUZZ_LIMIT_MS").ok().and_then(|ms| ms.parse().ok()).map_or(LIMIT, Duration::from_millis)
}
