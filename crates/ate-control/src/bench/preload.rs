//! Fills the store with suspended actors, as if each had been created, resumed and suspended once.

use std::sync::Arc;

use ate_api::{
    Error, Reason,
    id::{ActorName, Digest, ObjectName},
    resource::template::Scope,
};
use ate_store::Transaction;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    core::Core,
    records::{ActorRecord, Location, Snapshot, SnapshotRecord, TemplateRecord, keys, now_ms, pack},
    usage,
};

/// Actors in one transaction: five keys each, of the 128 a transaction may write.
const BATCH: usize = 25;
/// Transactions at once, for the store to group.
const PARALLEL: usize = 16;

pub(super) fn name(i: usize) -> ActorName {
    ActorName::new("bench", format!("actor-{i:08}"))
}

pub(super) async fn actors(core: &Arc<Core>, template: &ObjectName, count: usize) -> Result<(), Error> {
    let template =
        core.catalog.templates.get(template).ok_or_else(|| Error::new(Reason::NotFound, "no template"))?.value;
    let golden = template.golden.clone().ok_or_else(|| Error::new(Reason::TemplateNotReady, "no golden snapshot"))?;
    let (template, golden) = (&*template, &golden);
    stream::iter((0..count).step_by(BATCH).map(Ok::<usize, Error>))
        .map(|from| async move {
            let from = from?;
            let mut tx = Transaction::new();
            for i in from..(from + BATCH).min(count) {
                tx = actor(tx, i, template, golden)?;
            }
            core.db.commit(tx).await.map(drop)
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await
}

fn actor(tx: Transaction, i: usize, template: &TemplateRecord, golden: &Snapshot) -> Result<Transaction, Error> {
    let name = name(i);
    let mut record = ActorRecord::new(template.name(), template.uid().clone(), Default::default());
    let manifest = Digest::of(record.uid.as_str().as_bytes());
    let snapshot = Snapshot {
        manifest: manifest.clone(),
        scope: Scope::Full,
        location: Location::Url(format!("default/actors/{}/{:08}-1", record.uid, 1)),
        generation: 1,
        created_ms: now_ms(),
        ..golden.clone()
    };
    record.snapshot = Some(snapshot.clone());
    record.activation = ate_api::id::Activation(1);
    record.last_generation = 1;
    let tx = usage::note(tx, &name, None, Some(&snapshot));
    let index =
        SnapshotRecord { actor: name.clone(), actor_uid: record.uid.clone(), template: template.name(), snapshot };
    Ok(tx
        .put(keys::actor(&name), pack(&record)?)
        .put(keys::by_template(template.uid(), &name), &b""[..])
        .put(keys::snapshot(&manifest), pack(&index)?)
        .put(keys::by_config(&golden.sandbox, &manifest), &b""[..]))
}
