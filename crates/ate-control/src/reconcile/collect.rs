//! Tells the node now and then what is still referenced; the node removes the rest of its copies.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ate_agent::LiveSet;
use ate_api::{
    Error,
    id::{Digest, Uid},
};

use crate::{
    core::Core,
    records::{ActorRecord, keys, unpack},
};

/// One collection on the node.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Actors beyond which the set would be too large to hand over at once (100 bytes each); then the node's copies of old
/// snapshots stay, and its own size limits apply.
const MAX_ENTRIES: usize = 2_000_000;

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(core.options.collect_interval) => {}
        }
        match live(&core).await {
            Ok(Some(set)) => match tokio::time::timeout(TIMEOUT, core.node.collect(set)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::warn!(error = %e, "collection on the node failed"),
                Err(_) => tracing::warn!("collection on the node took too long"),
            },
            Ok(None) => tracing::warn!("too many actors to name them all; nothing is collected on the node"),
            Err(e) => tracing::warn!(error = %e, "cannot tell what is still referenced; nothing is collected"),
        }
    }
}

async fn live(core: &Core) -> Result<Option<LiveSet>, Error> {
    let mut manifests: Vec<Digest> = Vec::new();
    // Few, and shared by many.
    let mut bases: BTreeSet<Digest> = BTreeSet::new();
    let mut actors: BTreeSet<Uid> = core.scheduler.holders().into_iter().map(|(_, h)| h.uid).collect();
    core.db
        .scan(keys::ACTORS, |key, v| {
            if actors.len() < MAX_ENTRIES {
                let record: ActorRecord = unpack(&key, &v.value)?;
                for snapshot in record.snapshot.into_iter().chain(record.fallback) {
                    manifests.push(snapshot.manifest);
                    bases.extend(snapshot.base.map(|b| b.manifest));
                }
                actors.insert(record.uid);
            }
            Ok(())
        })
        .await?;
    if actors.len() >= MAX_ENTRIES {
        return Ok(None);
    }
    manifests.extend(bases);
    let mut assets = BTreeSet::new();
    for key in core.revisions_in_use().await? {
        if let Some(revision) = core.catalog.revisions.get(&key) {
            assets.extend(revision.value.reference.assets.iter().map(|a| a.sha256.clone()));
        }
    }
    let templates = core.catalog.templates.all();
    let images: BTreeSet<Digest> = templates.iter().flat_map(|(_, t)| t.value.images.values().cloned()).collect();
    Ok(Some(LiveSet {
        manifests,
        assets: assets.into_iter().collect(),
        images: images.into_iter().collect(),
        actors: actors.into_iter().collect(),
    }))
}
