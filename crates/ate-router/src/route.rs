//! One open route: an actor's activation, its address, who is in flight, and the connections to it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{gate::Gate, pool::Pools, wake::Route};

/// The clock of last-activity times: milliseconds since this process first asked.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) struct OpenRoute {
    pub(crate) route: Route,
    pub(crate) opened: Instant,
    pub(crate) pools: Pools,
    /// Ends every connection and tunnel of this route.
    pub(crate) cut: CancellationToken,
    gate: Gate,
    last_activity_ms: AtomicU64,
}

impl OpenRoute {
    pub(crate) fn new(route: Route) -> Self {
        OpenRoute {
            route,
            opened: Instant::now(),
            pools: Pools::default(),
            cut: CancellationToken::new(),
            gate: Gate::default(),
            last_activity_ms: AtomicU64::new(now_ms()),
        }
    }

    /// Counts a request in flight until the returned value is dropped; `None` if closed.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<InFlight> {
        self.gate.begin().then(|| {
            self.touch();
            InFlight { route: self.clone() }
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// Time since the last request ended; `None` while one is in flight.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        (self.gate.in_flight() == 0).then(|| self.since_activity())
    }

    /// Closes and cuts if nothing was in flight for that long.
    pub(crate) fn close_if_idle(&self, at_least: Duration) -> bool {
        if self.since_activity() < at_least || !self.gate.close_if_idle() {
            return false;
        }
        // A whole request may have passed between the two looks.
        if self.since_activity() < at_least {
            self.gate.reopen();
            return false;
        }
        self.sever();
        true
    }

    /// No request begins any more; those in flight go on.
    pub(crate) fn close(&self) {
        self.gate.close();
    }

    /// Closes and cuts at once.
    pub(crate) fn cut(&self) {
        self.gate.close();
        self.sever();
    }

    /// Waits for the requests in flight, then cuts what is left; cuts also if the caller stops waiting. Call after
    /// `close`.
    pub(crate) async fn drain(&self, at_most: Duration) {
        struct SeverAtLast<'a>(&'a OpenRoute);
        impl Drop for SeverAtLast<'_> {
            fn drop(&mut self) {
                self.0.sever();
            }
        }
        let _sever = SeverAtLast(self);
        let _ = tokio::time::timeout(at_most, self.gate.drained()).await;
    }

    fn sever(&self) {
        self.cut.cancel();
        self.pools.cut();
    }

    fn since_activity(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.last_activity_ms.load(Ordering::Acquire)))
    }

    fn touch(&self) {
        self.last_activity_ms.store(now_ms(), Ordering::Release);
    }
}

/// A request in flight. Streams and tunnels hold it until their last byte.
pub(crate) struct InFlight {
    pub(crate) route: Arc<OpenRoute>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.route.touch();
        self.route.gate.end();
    }
}
