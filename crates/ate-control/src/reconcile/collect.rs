//! Tells the node now and then what is still referenced; the node removes the rest of its copies, and what nobody
//! committed from object storage: activations that ended between writing a snapshot and committing it leave one there.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::LiveSet;
use ate_api::{
    Error,
    id::{Digest, ObjectName, Uid},
};
use ate_failpoint::{again, period, step};

use crate::{
    catalog::Entry,
    core::Core,
    records::{ActorRecord, Garbage, Location, SnapshotRecord, TemplateRecord, keys, unpack},
};

/// One collection on the node.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What nobody committed takes space and nothing else, and to list object storage may be dear.
const STORED: Duration = Duration::from_secs(3600);
/// Actors beyond which the set would be too large to hand over at once (100 bytes each); then the node's copies of old
/// snapshots stay, and its own size limits apply.
const MAX_ENTRIES: usize = 2_000_000;

pub(crate) async fn run(core: Arc<Core>) {
    let mut stored: Option<Instant> = None;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(period(core.options.collect_interval)) => {}
        }
        let search = stored.is_none_or(|at| at.elapsed() >= period(STORED));
        if search {
            stored = Some(Instant::now());
        }
        match live(&core, search).await {
            Ok(Some(set)) => match tokio::time::timeout(TIMEOUT, collect(&core, set)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::warn!(error = %e, "collection on the node failed"),
                Err(_) => tracing::warn!("collection on the node took too long"),
            },
            Ok(None) => tracing::warn!("too many actors to name them all; nothing is collected on the node"),
            Err(e) => tracing::warn!(error = %e, "cannot tell what is still referenced; nothing is collected"),
        }
    }
}

async fn collect(core: &Core, live: LiveSet) -> Result<(), Error> {
    step!("collect.node", core.node.collect(again!(live)), repeatable)
}

async fn live(core: &Core, search: bool) -> Result<Option<LiveSet>, Error> {
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
    let (locations, stored) = if search { stored(core, &templates).await? } else { Default::default() };
    Ok(Some(LiveSet {
        locations,
        stored,
        manifests,
        assets: assets.into_iter().collect(),
        images: images.into_iter().collect(),
        actors: actors.into_iter().collect(),
    }))
}

/// Where snapshots may be, and those that are there by right.
async fn stored(
    core: &Core,
    templates: &[(ObjectName, Entry<TemplateRecord>)],
) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut locations = BTreeSet::from([ate_snapshot::DEFAULT_LOCATION.to_owned()]);
    locations.extend(templates.iter().map(|(_, t)| t.value.resource.spec.snapshots_config.location.clone()));
    let mut stored = Vec::new();
    let mut note = |location| {
        if let Location::Url(prefix) = location {
            stored.push(prefix);
        }
    };
    let scanned = core.db.scan(keys::SNAPSHOTS, |key, v| {
        note(unpack::<SnapshotRecord>(&key, &v.value)?.snapshot.location);
        Ok(())
    });
    scanned.await?;
    let scanned = core.db.scan(keys::GARBAGE, |key, v| {
        note(unpack::<Garbage>(&key, &v.value)?.location);
        Ok(())
    });
    scanned.await?;
    Ok((locations.into_iter().collect(), stored))
}
