//! The change feed: durable changes, in commit order, to whoever watches their prefix.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::{Change, Changes, StoreError};

/// Changes kept for one watcher that is busy: about half a second of the writer at full speed.
pub(crate) const WATCH_BUFFER: usize = 16 * 1024;

pub(crate) struct Hub {
    /// `None` once it is closed.
    watchers: Mutex<Option<Vec<Watcher>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub { watchers: Mutex::new(Some(Vec::new())) }
    }
}

struct Watcher {
    prefix: String,
    changes: mpsc::Sender<Change>,
    /// Set before the sender goes when changes had to be dropped.
    lagged: Arc<AtomicBool>,
}

impl Hub {
    pub(crate) fn watch(&self, prefix: &str) -> Changes {
        let (changes, mut received) = mpsc::channel(WATCH_BUFFER);
        let lagged = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { prefix: prefix.to_owned(), changes, lagged: lagged.clone() };
        if let Some(watchers) = &mut *self.lock() {
            watchers.push(watcher);
        }
        let delivered = stream::poll_fn(move |cx| received.poll_recv(cx)).map(Ok);
        let end = stream::once(async move { lagged.load(Ordering::Acquire).then_some(Err(StoreError::Lagged)) });
        delivered.chain(end.filter_map(|end| async { end })).boxed()
    }

    /// Hands out the writes of one group. Called by the writer only, after the group is durable.
    pub(crate) fn publish<'a>(&self, writes: impl Iterator<Item = (u64, &'a (String, Option<Bytes>))>) {
        let mut watchers = self.lock();
        let Some(watchers) = watchers.as_mut().filter(|w| !w.is_empty()) else { return };
        for (version, (key, value)) in writes {
            watchers.retain(|watcher| {
                if !key.starts_with(&watcher.prefix) {
                    return true;
                }
                let change = Change { key: key.clone(), version, value: value.clone() };
                match watcher.changes.try_send(change) {
                    Ok(()) => true,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        watcher.lagged.store(true, Ordering::Release);
                        false
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => false,
                }
            });
        }
    }

    /// Ends every stream after what it still has to deliver.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Watcher>>> {
        // No code that can panic runs under the lock in a half-changed state.
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
