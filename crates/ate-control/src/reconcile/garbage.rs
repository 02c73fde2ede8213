//! The deletion queue: snapshots nobody references are removed from storage, off every clock. An entry stays until
//! the node says that the snapshot is gone.

use std::{sync::Arc, time::Duration};

use ate_api::id::Digest;
use ate_store::Transaction;
use futures::{StreamExt, stream};

use crate::{
    core::Core,
    records::{Garbage, keys, unpack},
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

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        if let Err(e) = sweep(&core).await {
            tracing::warn!(error = %e, "deletion queue could not be worked off");
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.garbage.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn sweep(core: &Arc<Core>) -> Result<(), ate_api::Error> {
    let mut after: Option<String> = None;
    loop {
        let page = core.db.page(keys::GARBAGE, after.as_deref(), BATCH).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let full = page.len() == BATCH;
        let done: Vec<String> = stream::iter(page)
            .map(|(key, v)| async move { remove(core, &key, &v.value).await.then_some(key) })
            .buffer_unordered(PARALLEL)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if !done.is_empty() {
            core.db.commit(done.into_iter().fold(Transaction::new(), Transaction::delete)).await?;
        }
        if !full || core.stop.is_cancelled() {
            return Ok(());
        }
    }
}

async fn remove(core: &Core, key: &str, value: &[u8]) -> bool {
    let manifest = Digest::parse(&key[keys::GARBAGE.len()..]);
    let (Some(manifest), Ok(garbage)) = (manifest, unpack::<Garbage>(key, value)) else {
        tracing::error!(key, "unreadable entry in the deletion queue dropped");
        return true;
    };
    match tokio::time::timeout(TIMEOUT, core.node.delete_snapshot(&garbage.reference(&manifest))).await {
        Ok(Ok(())) => true,
        Ok(Err(e)) => {
            tracing::warn!(manifest = manifest.short(), error = %e, "snapshot could not be removed yet");
            false
        }
        Err(_) => false,
    }
}
