//! How many requests are in flight on a route, and whether more may begin: one atomic word.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

const CLOSED: u64 = 1 << 63;

/// Closing and counting are one decision: no request can begin after a close that saw none.
#[derive(Default)]
pub(crate) struct Gate {
    /// Highest bit: closed. The rest: requests in flight.
    state: AtomicU64,
    drained: Notify,
}

impl Gate {
    /// Counts one more request, unless closed.
    pub(crate) fn begin(&self) -> bool {
        let more = |state| (state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Counts one less. Every successful `begin` is followed by exactly one `end`.
    pub(crate) fn end(&self) {
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.drained.notify_waiters();
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Closes if nothing is in flight.
    pub(crate) fn close_if_idle(&self) -> bool {
        self.state.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes back a `close_if_idle`.
    pub(crate) fn reopen(&self) {
        self.state.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Closes, whatever is in flight.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Returns when nothing is in flight. Call after `close`.
    pub(crate) async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_begins_after_closing() {
        let gate = Gate::default();
        assert!(gate.begin());
        assert!(!gate.close_if_idle());
        gate.end();
        assert!(gate.close_if_idle());
        assert!(!gate.begin());
        gate.reopen();
        assert!(gate.begin());
    }

    #[test]
    fn closing_when_idle_never_overlaps_a_request() {
        let gate = Arc::new(Gate::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let gate = gate.clone();
                std::thread::spawn(move || {
                    let mut begun = 0;
                    while begun < 20_000 && !gate.is_closed() {
                        if gate.begin() {
                            begun += 1;
                            gate.end();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..20_000 {
            if gate.close_if_idle() {
                assert_eq!(gate.in_flight(), 0);
                assert!(!gate.begin());
                gate.reopen();
            }
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[tokio::test]
    async fn drained_returns_with_the_last_request() {
        let gate = Arc::new(Gate::default());
        assert!(gate.begin() && gate.begin());
        gate.close();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.drained().await }
        });
        gate.end();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.end();
        waiting.await.unwrap();
    }
}
