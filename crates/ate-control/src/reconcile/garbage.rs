//! The deletion queue: snapshots nobody references are removed from storage, off every clock. An entry stays in the
//! store until the node says that the snapshot is gone. What is new is also kept in memory, so that it goes at once; what
//! this memory does not know of (a removal that failed, a commit whose answer was lost) is found in the store.
//!
//! One that others rest on waits until the last of these is in the queue or gone (I2).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, id::Digest};
use ate_failpoint::{period, step};
use ate_store::Transaction;
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::{
    core::Core,
    records::{Garbage, Snapshot, keys, unpack},
};

/// Snapshots removed at once. More would compete with suspends for the disk.
const PARALLEL: usize = 4;
/// Entries taken from the queue at a time; their removal is one transaction.
const BATCH: usize = 64;
/// How often the store is searched for entries. Nearly always there are none, or bases that wait.
const SEARCH: Duration = Duration::from_secs(10);
/// Lets a burst of suspends gather, so that their garbage is one commit.
const GATHER: Duration = Duration::from_millis(100);
/// One removal.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Entries kept in memory; what is beyond is found in the store.
const MAX_FRESH: usize = 4096;

/// Entries that were committed lately.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    entries: Mutex<Vec<(Digest, Garbage)>>,
    some: Notify,
}

impl Fresh {
    /// To be called once the entries are durable.
    pub(crate) fn add(&self, snapshots: &[Snapshot]) {
        if snapshots.is_empty() {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_FRESH.saturating_sub(entries.len());
        entries.extend(snapshots.iter().take(room).map(|s| (s.manifest.clone(), s.garbage())));
        self.some.notify_one();
    }

    fn take(&self) -> Vec<(Digest, Garbage)> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut search = tokio::time::interval(period(SEARCH));
    search.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.garbage.some.notified() => {
                tokio::time::sleep(GATHER).await;
                remove_fresh(&core).await
            }
            _ = search.tick() => sweep_store(&core).await,
        };
        if let Err(e) = done {
            tracing::warn!(error = %e, "the deletion queue could not be worked off yet");
        }
    }
}

async fn remove_fresh(core: &Arc<Core>) -> Result<(), Error> {
    for batch in core.garbage.take().chunks(BATCH) {
        remove_all(core, batch.to_vec()).await?;
    }
    Ok(())
}

/// Everything in the queue.
async fn sweep_store(core: &Arc<Core>) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let page = core.db.page(keys::GARBAGE, after.as_deref(), BATCH).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut entries = Vec::with_capacity(page.len());
        for (key, v) in page {
            match (Digest::parse(&key[keys::GARBAGE.len()..]), unpack::<Garbage>(&key, &v.value)) {
                (Some(manifest), Ok(garbage)) => entries.push((manifest, garbage)),
                _ => tracing::error!(key, "unreadable entry in the deletion queue"),
            }
        }
        remove_all(core, entries).await?;
        if core.stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// At most [`BATCH`] of them; those that cannot be removed yet stay in the queue.
async fn remove_all(core: &Arc<Core>, entries: Vec<(Digest, Garbage)>) -> Result<(), Error> {
    let gone: Vec<Digest> = stream::iter(entries)
        .map(|(manifest, garbage)| async move { remove(core, &manifest, &garbage).await.then_some(manifest) })
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready)
        .collect()
        .await;
    if !gone.is_empty() {
        let forget = || gone.iter().fold(Transaction::new(), |tx, m| tx.delete(keys::garbage(m)));
        step!("garbage.forget", core.db.commit(forget()), repeatable)?;
    }
    Ok(())
}

async fn remove(core: &Core, manifest: &Digest, garbage: &Garbage) -> bool {
    match core.db.first_keys(&keys::by_base_prefix(manifest), 1).await {
        Ok(resting) if resting.is_empty() => {}
        Ok(_) => {
            tracing::debug!(manifest = manifest.short(), "snapshot stays while others rest on it");
            return false;
        }
        Err(e) => {
            tracing::warn!(manifest = manifest.short(), error = %e, "cannot tell whether snapshots rest on this one");
            return false;
        }
    }
    let reference = garbage.reference(manifest);
    let delete = async { step!("garbage.delete", core.node.delete_snapshot(&reference), repeatable) };
    match tokio::time::timeout(TIMEOUT, delete).await {
        Ok(Ok(())) => true,
        Ok(Err(e)) => {
            tracing::warn!(manifest = manifest.short(), error = %e, "snapshot could not be removed yet");
            false
        }
        Err(_) => false,
    }
}
