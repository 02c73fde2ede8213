//! Start-up: the memory is rebuilt from the store, and whoever held a worker is put to rest. On one machine no
//! worker outlives its node, so each of them was lost; elsewhere they are adopted ([`crate::workflow::adopt`]).
//!
//! Only actors with a `busy` marker are looked at; a million that sleep cost nothing.

use std::sync::Arc;

use ate_api::{
    Error,
    id::{ActorName, ObjectName},
};
use ate_failpoint::{again, step};
use ate_store::Transaction;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    core::Core,
    db::Stored,
    records::{
        ActorRecord, AtespaceRecord, ConfigKey, ConfigRecord, Phase, PoolRecord, Revision, Rollout, TemplateRecord,
        from_json, keys,
    },
    scheduler::Prepared,
};

/// Actors looked at, or recovered, at once.
const PARALLEL: usize = 32;

impl Core {
    pub(crate) async fn load_catalog(self: &Arc<Self>) -> Result<(), Error> {
        let c = &self.catalog;
        let scan = |prefix| async move {
            let mut found = Vec::new();
            self.db
                .scan(prefix, |key, v| {
                    found.push((key, v));
                    Ok(())
                })
                .await?;
            Ok::<_, Error>(found)
        };
        for (key, v) in scan(keys::ATESPACES).await? {
            let mut record: AtespaceRecord = from_json(&key, &v.value)?;
            // A deletion that was cut short has not happened.
            record.deleting = false;
            c.atespaces.set(record.resource.metadata.name.clone(), v.version, record);
        }
        for (key, v) in scan(keys::REVISIONS).await? {
            let revision: Revision = from_json(&key, &v.value)?;
            c.revisions.set(revision.key(), v.version, revision);
        }
        self.rebuild_admitted();
        for (key, v) in scan(keys::CONFIGS).await? {
            let record: ConfigRecord = from_json(&key, &v.value)?;
            c.configs.set(record.resource.metadata.name.clone(), v.version, record);
        }
        if let Some(found) = self.db.get_json(keys::DEFAULT_CLASS).await? {
            c.default_class.set((), found.version, found.value);
        }
        for (key, v) in scan(keys::ROLLOUTS).await? {
            let record: Rollout = from_json(&key, &v.value)?;
            c.rollouts.set(record.class.clone(), v.version, record);
        }
        for (key, v) in scan(keys::POOLS).await? {
            let record: PoolRecord = from_json(&key, &v.value)?;
            c.pools.set(record.name(), v.version, record);
        }
        for (key, v) in scan(keys::TEMPLATES).await? {
            let mut record: TemplateRecord = from_json(&key, &v.value)?;
            record.deleting = false;
            self.expect_use(&record);
            c.templates.set(record.name(), v.version, record);
        }
        for (key, v) in scan(keys::PLATFORMS).await? {
            if let Some(digest) = ate_api::id::Digest::parse(&key[keys::PLATFORMS.len()..]) {
                c.platforms.set(digest, v.version, from_json(&key, &v.value)?);
            }
        }
        Ok(())
    }

    /// Idle workers prepare for templates there are, before anybody asks.
    fn expect_use(&self, template: &TemplateRecord) {
        if let Some(golden) = &template.golden {
            let prepared = Prepared { template: template.uid().clone(), sandbox: golden.sandbox.clone() };
            let name: ObjectName = template.name();
            self.note_use(prepared, &name);
        }
    }

    /// Whoever held a worker when the last one ended, as recorded. The marker of anybody else goes.
    pub(crate) async fn find_busy(&self) -> Result<Vec<(ActorName, Stored<ActorRecord>)>, Error> {
        let mut names = Vec::new();
        self.db
            .scan(keys::BUSY, |key, _| {
                names.extend(keys::actor_of(&key));
                Ok(())
            })
            .await?;
        let found = stream::iter(names).map(|name| async move {
            match self.db.find_actor(&name).await? {
                Some(actor) if !actor.value.phase.is_at_rest() => Ok::<_, Error>(Some((name, actor))),
                _ => {
                    let tx = Transaction::new().delete(keys::busy(&name));
                    step!("adopt.tidy", self.db.commit(again!(tx)), repeatable)?;
                    Ok(None)
                }
            }
        });
        found.buffer_unordered(PARALLEL).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    pub(crate) async fn recover_all(self: &Arc<Self>) -> Result<usize, Error> {
        let busy = self.find_busy().await?;
        let count = busy.len();
        stream::iter(busy.into_iter().map(Ok))
            .try_for_each_concurrent(PARALLEL, |(name, mut actor)| async move {
                // That it runs is written off the clock: whoever was being started may have served already.
                actor.value.phase = Phase::Running;
                self.put_to_rest(&name, actor, "NODE_RESTARTED", "the node was restarted").await.map(drop)
            })
            .await?;
        Ok(count)
    }

    /// Revisions that something still runs or restores under: their binaries are fetched before anybody waits.
    pub(crate) async fn revisions_in_use(&self) -> Result<Vec<ConfigKey>, Error> {
        let mut used: Vec<ConfigKey> = self.catalog.configs.all().into_iter().map(|(_, c)| c.value.key()).collect();
        for (key, _) in self.catalog.revisions.all() {
            let prefix = format!("{}{:010}/", keys::by_config_prefix(&key.name), key.revision);
            if !used.contains(&key) && !self.db.first_keys(&prefix, 1).await?.is_empty() {
                used.push(key);
            }
        }
        used.extend(self.scheduler.holders().into_iter().map(|(_, h)| h.sandbox));
        used.sort();
        used.dedup();
        Ok(used)
    }
}
