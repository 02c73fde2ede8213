//! The deletion queue: snapshots nobody references are removed from storage, off every clock. An entry stays in the
//! store until the node says that the snapshot is gone; what is new is also kept in memory, so that the store is only
//! searched after a start and after failures.
//!
//! One that others rest on waits until the last of these is in the queue or gone (I2).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, id::Digest};
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
/// When entries that failed are tried again.
const RETRY: Duration = Duration::from_secs(30);
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
    let mut search = true;
    loop {
        if search {
            search = !sweep_store(&core).await.unwrap_or(false);
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.garbage.some.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(RETRY) => {}
        }
        let fresh = core.garbage.take();
        search |= fresh.len() == MAX_FRESH;
        for batch in fresh.chunks(BATCH) {
            search |= !remove_all(&core, batch.to_vec()).await.unwrap_or(false);
        }
    }
}

/// Everything in the queue. False: something is left.
async fn sweep_store(core: &Arc<Core>) -> Result<bool, Error> {
    let mut after: Option<String> = None;
    let mut all = true;
    loop {
        let page = core.db.page(keys::GARBAGE, after.as_deref(), BATCH).await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = Some(last.clone());
        let mut entries = Vec::with_capacity(page.len());
        for (key, v) in page {
            match (Digest::parse(&key[keys::GARBAGE.len()..]), unpack::<Garbage>(&key, &v.value)) {
                (Some(manifest), Ok(garbage)) => entries.push((manifest, garbage)),
                _ => tracing::error!(key, "unreadable entry in the deletion queue"),
            }
        }
        all &= remove_all(core, entries).await?;
        if core.stop.is_cancelled() {
            return Ok(false);
        }
    }
}

/// At most [`BATCH`] of them. False: some are not gone yet.
async fn remove_all(core: &Arc<Core>, entries: Vec<(Digest, Garbage)>) -> Result<bool, Error> {
    let count = entries.len();
    let gone: Vec<Digest> = stream::iter(entries)
        .map(|(manifest, garbage)| async move { remove(core, &manifest, &garbage).await.then_some(manifest) })
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let done = gone.len() == count;
    if !gone.is_empty() {
        core.db.commit(gone.iter().fold(Transaction::new(), |tx, m| tx.delete(keys::garbage(m)))).await?;
    }
    Ok(done)
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
    match tokio::time::timeout(TIMEOUT, core.node.delete_snapshot(&garbage.reference(manifest))).await {
        Ok(Ok(())) => true,
        Ok(Err(e)) => {
            tracing::warn!(manifest = manifest.short(), error = %e, "snapshot could not be removed yet");
            false
        }
        Err(_) => false,
    }
}
