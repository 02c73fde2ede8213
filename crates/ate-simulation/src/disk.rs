//! The store of a simulated world: an ordered map that survives crashes, behind the contract of [`Store`].
//!
//! It promises what the contract promises and not more: a commit goes on when its caller leaves, and one that is
//! answered with `Unavailable` may have happened, may not have, or may still be going to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use ate_store::{Change, Changes, Result, Store, StoreError, Transaction, Versioned};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::{weather::Commit, world::World};

/// Changes a watcher may be behind.
const WATCH_BUFFER: usize = 4096;

type Entries = BTreeMap<String, Versioned>;

/// What is on the disk.
#[derive(Default)]
pub(crate) struct Disk(Mutex<State>);

#[derive(Default)]
struct State {
    entries: Entries,
    version: u64,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    changes: mpsc::Sender<Change>,
    lagged: Arc<AtomicBool>,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is committed now, for those who check.
    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.lock().entries.get(key).map(|v| v.value.clone())
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<(String, Bytes)> {
        let state = self.lock();
        below(&state.entries, prefix, None).map(|(k, v)| (k.clone(), v.value.clone())).collect()
    }

    pub(crate) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(String, Versioned)> {
        let state = self.lock();
        below(&state.entries, prefix, after).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub(crate) fn versioned(&self, key: &str) -> Option<Versioned> {
        self.lock().entries.get(key).cloned()
    }

    /// All or nothing. Returns the version, or 0 if there was nothing to write.
    pub(crate) fn apply(&self, tx: &Transaction) -> Result<u64> {
        let mut state = self.lock();
        for (key, expect) in &tx.checks {
            let found = state.entries.get(key).map(|v| v.version);
            if !expect.holds(found) {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        if tx.writes.is_empty() {
            return Ok(0);
        }
        state.version += 1;
        let version = state.version;
        for (key, value) in &tx.writes {
            match value {
                Some(value) => drop(state.entries.insert(key.clone(), Versioned { version, value: value.clone() })),
                None => drop(state.entries.remove(key)),
            }
            state.publish(Change { key: key.clone(), version, value: value.clone() });
        }
        Ok(version)
    }

    pub(crate) fn watch(&self, prefix: &str) -> Changes {
        let (changes, mut received) = mpsc::channel(WATCH_BUFFER);
        let lagged = Arc::new(AtomicBool::new(false));
        self.lock().watchers.push(Watcher { prefix: prefix.to_owned(), changes, lagged: lagged.clone() });
        let delivered = stream::poll_fn(move |cx| received.poll_recv(cx)).map(Ok);
        let end = stream::once(async move { lagged.load(Relaxed).then_some(Err(StoreError::Lagged)) });
        delivered.chain(end.filter_map(|end| async { end })).boxed()
    }
}

impl State {
    fn publish(&mut self, change: Change) {
        self.watchers.retain(|w| {
            if !change.key.starts_with(&w.prefix) {
                return true;
            }
            let sent = w.changes.try_send(change.clone());
            if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                w.lagged.store(true, Relaxed);
            }
            sent.is_ok()
        });
    }
}

fn below<'a>(
    entries: &'a Entries,
    prefix: &'a str,
    after: Option<&'a str>,
) -> impl Iterator<Item = (&'a String, &'a Versioned)> {
    let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
    let rest = entries.range(from.to_owned()..).take_while(move |(k, _)| k.starts_with(prefix));
    rest.filter(move |(k, _)| after.is_none_or(|after| k.as_str() > after))
}

/// The disk as one control plane reaches it, in the weather of its world.
pub(crate) struct SimulatedStore(pub(crate) Arc<World>);

impl SimulatedStore {
    async fn read<T>(&self, read: impl FnOnce(&Disk) -> T) -> Result<T> {
        let w = &self.0;
        tokio::time::sleep(w.weather.store_delay(&w.chance)).await;
        if w.weather.read_fails(&w.chance) {
            return Err(unavailable());
        }
        Ok(read(&w.disk))
    }
}

#[async_trait]
impl Store for SimulatedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.read(|disk| disk.versioned(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        self.read(|disk| disk.page(prefix, after, limit)).await
    }

    async fn commit(&self, tx: Transaction) -> Result<u64> {
        tx.validate()?;
        let world = self.0.clone();
        let done = tokio::spawn(async move {
            let fate = world.weather.commit(&world.chance);
            tokio::time::sleep(world.weather.store_delay(&world.chance)).await;
            match fate {
                Commit::Fine => world.commit(&tx),
                Commit::Full => Err(StoreError::Full),
                Commit::Lost => Err(unavailable()),
                Commit::Unheard => world.commit(&tx).and_then(|_| Err(unavailable())),
                Commit::Late(time) => {
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        let _ = world.commit(&tx);
                    });
                    Err(unavailable())
                }
            }
        });
        done.await.unwrap_or_else(|_| Err(unavailable()))
    }

    fn watch(&self, prefix: &str) -> Changes {
        self.0.disk.watch(prefix)
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("as the weather is".to_owned())
}

#[cfg(test)]
mod tests {
    use ate_store::{Store, conformance::Backend};

    use super::*;

    /// A calm world: what the suite asks for is the contract, not the weather.
    struct Calm(Arc<World>);

    impl Backend for Calm {
        async fn open(&self) -> Arc<dyn Store> {
            Arc::new(SimulatedStore(self.0.clone()))
        }
    }

    ate_store::conformance_tests!(Calm({
        let world = World::new(1, false);
        world.weather.clear_up();
        world
    }));
}
