//! Sandbox configurations: each change of content makes a new immutable revision; at most one per class is the
//! default, and the newest to claim it wins in the same transaction.

use std::sync::Arc;

use ate_api::{
    Error, Reason,
    resource::{Condition, SandboxConfig, SandboxConfigStatus, meta::set_condition},
};
use ate_sandbox::{Isolation, revision::content_digest};
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, Applied, in_use, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    db::Stored,
    records::{ConfigKey, ConfigRecord, Failure, Revision, keys, now_ms, to_json},
};

impl Core {
    pub(crate) async fn apply_config(&self, config: SandboxConfig) -> Result<(Applied, Entry<ConfigRecord>), Error> {
        for _ in 0..ATTEMPTS {
            match self.try_apply_config(&config).await {
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                done => return done,
            }
        }
        Err(too_many_conflicts(format!("sandboxconfig/{}", config.metadata.name)))
    }

    async fn try_apply_config(&self, config: &SandboxConfig) -> Result<(Applied, Entry<ConfigRecord>), Error> {
        let name = config.metadata.name.clone();
        let object = format!("sandboxconfig/{name}");
        let class = &self.classes.get(&config.spec.sandbox_class).map_err(|e| e.on(object.clone()))?.descriptor;
        if config.spec.default {
            class.may_be_default().map_err(|e| e.on(object.clone()))?;
        }
        let old = self.catalog.configs.get(&name);
        if let Some(old) = &old
            && old.value.resource.spec.sandbox_class != config.spec.sandbox_class
        {
            return Err(Error::new(Reason::Immutable, "sandboxClass of a configuration cannot change")
                .on(object)
                .hint("apply a configuration of another name"));
        }
        let counter_key = keys::revision_counter(&name);
        let counter = self.db.get_json::<u64>(&counter_key).await?;
        let next = counter.as_ref().map_or(0, |c| c.value) + 1;
        let reference = ate_sandbox::config::pin(class, &name, next, &config.spec, &self.options.arch)?;
        let content = content_digest(class, &config.spec);
        let current = old.as_ref().and_then(|o| self.catalog.revisions.get(&o.value.key()));
        let same_content = current.as_ref().is_some_and(|c| c.value.content == content);

        let mut resource = config.clone();
        let applied = match &old {
            None => {
                stamp_new(&mut resource.metadata);
                resource.status = Some(SandboxConfigStatus::default());
                Applied::Created
            }
            Some(old) => {
                let before = &old.value.resource;
                stamp_changed(&mut resource.metadata, &before.metadata, before.spec != resource.spec);
                resource.status.clone_from(&before.status);
                if *before == resource {
                    return Ok((Applied::Unchanged, old.clone()));
                }
                Applied::Configured
            }
        };
        let key = keys::config(&name);
        let mut tx =
            Transaction::new().check(key.clone(), old.as_ref().map_or(Expect::Absent, |o| Expect::Version(o.version)));
        let mut new_revision = None;
        let revision = if same_content {
            old.as_ref().map_or(next, |o| o.value.revision)
        } else {
            let revision = Revision {
                reference,
                content: content.clone(),
                created_ms: now_ms(),
                probed: false,
                capabilities: Vec::new(),
                versions: Default::default(),
                failure: None,
            };
            tx = tx
                .check(counter_key.clone(), counter.map_or(Expect::Absent, |c| Expect::Version(c.version)))
                .put(counter_key, to_json(&next)?)
                .check(keys::revision(&revision.key()), Expect::Absent)
                .put(keys::revision(&revision.key()), to_json(&revision)?);
            new_revision = Some(revision);
            next
        };
        let generation = resource.metadata.generation;
        let status = resource.status.get_or_insert_default();
        status.revision = revision;
        status.digest = Some(content);
        status.observed_generation = generation;
        if !same_content {
            status.capabilities.clear();
            status.versions.clear();
            set_condition(
                &mut status.conditions,
                Condition::new("Ready", false, "Probing", "fetching and trying the binaries", generation),
            );
        }
        if class.isolation == Isolation::None {
            let message = format!("class {} is no sandbox: its actors are processes of the node", class.name);
            set_condition(
                &mut status.conditions,
                Condition::new("Isolated", false, "NotASandbox", message, generation),
            );
        }
        let (tx, displaced) = self.claim_default(tx, &mut resource).await?;
        let record = ConfigRecord { resource, revision };
        let version = self.db.commit(tx.put(key, to_json(&record)?)).await?;
        if let Some(revision) = new_revision {
            self.catalog.revisions.set(revision.key(), version, revision);
            self.rebuild_admitted();
        }
        if let Some(displaced) = displaced {
            self.catalog.configs.set(displaced.resource.metadata.name.clone(), version, displaced);
        }
        self.catalog.configs.set(name, version, record.clone());
        Ok((applied, Entry { version, value: Arc::new(record) }))
    }

    /// Makes the configuration the only default of its class, or none of them if it gave that up. Every change of
    /// a default writes the guard key, so that two at once conflict and one is tried again.
    async fn claim_default(
        &self,
        mut tx: Transaction,
        resource: &mut SandboxConfig,
    ) -> Result<(Transaction, Option<ConfigRecord>), Error> {
        let guard = keys::default_config(&resource.spec.sandbox_class);
        let current = self.db.get_json::<String>(&guard).await?;
        let name = resource.metadata.name.clone();
        let ours = current.as_ref().is_some_and(|c| c.value == name);
        if resource.spec.default == ours {
            return Ok((tx, None));
        }
        tx = tx.check(guard.clone(), current.as_ref().map_or(Expect::Absent, |c| Expect::Version(c.version)));
        if !resource.spec.default {
            return Ok((tx.delete(guard), None));
        }
        tx = tx.put(guard, to_json(&name)?);
        let Some(Stored { value: other, .. }) = current else { return Ok((tx, None)) };
        // From the store: whoever wrote the guard may not have come to update the memory yet.
        let Some(old) = self.db.get_json::<ConfigRecord>(&keys::config(&other)).await? else { return Ok((tx, None)) };
        let mut displaced = old.value;
        displaced.resource.spec.default = false;
        displaced.resource.metadata.generation += 1;
        let generation = displaced.resource.metadata.generation;
        let status = displaced.resource.status.get_or_insert_default();
        let message = format!("{name} was applied with default: true and is the default of the class now");
        set_condition(&mut status.conditions, Condition::new("Default", false, "Displaced", message, generation));
        let generation = resource.metadata.generation;
        let status = resource.status.get_or_insert_default();
        let message = format!("took the place of {other}");
        set_condition(&mut status.conditions, Condition::new("Default", true, "Newest", message, generation));
        let key = keys::config(&other);
        tx = tx.check(key.clone(), Expect::Version(old.version)).put(key, to_json(&displaced)?);
        Ok((tx, Some(displaced)))
    }

    async fn reload_configs(&self) -> Result<(), Error> {
        let page = self.db.page(keys::CONFIGS, None, 1000).await?;
        for (key, v) in page {
            let record: ConfigRecord = crate::records::from_json(&key, &v.value)?;
            self.catalog.configs.set(record.resource.metadata.name.clone(), v.version, record);
        }
        Ok(())
    }

    pub(crate) async fn delete_config(&self, name: &str) -> Result<(), Error> {
        let object = format!("sandboxconfig/{name}");
        for _ in 0..ATTEMPTS {
            let old = self.catalog.configs.get(&name.to_owned()).ok_or_else(|| not_found("sandboxconfig", name))?;
            if let Some(refusal) = in_use::refusal(&object, "user", self.users_of_config(name).await?) {
                return Err(refusal.hint("delete them first, or let them move to another configuration"));
            }
            let key = keys::config(name);
            let mut tx = Transaction::new().check(key.clone(), Expect::Version(old.version)).delete(key);
            if old.value.resource.spec.default {
                tx = tx.delete(keys::default_config(&old.value.resource.spec.sandbox_class));
            }
            let revisions: Vec<ConfigKey> =
                self.catalog.revisions.all().into_iter().map(|(k, _)| k).filter(|k| k.name == name).collect();
            // Revisions beyond what one transaction takes stay; nothing refers to them and their numbers are not reused.
            for revision in revisions.iter().take(64) {
                tx = tx.delete(keys::revision(revision));
            }
            match self.db.commit(tx).await {
                Ok(version) => {
                    self.catalog.configs.remove(name.to_owned(), version);
                    for revision in revisions {
                        self.catalog.revisions.remove(revision, version);
                    }
                    self.rebuild_admitted();
                    return Ok(());
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(object))
    }

    /// Pools that run under it, actors that run under it now, and snapshots that need it.
    async fn users_of_config(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut users = Vec::new();
        for (pool, record) in self.catalog.pools.all() {
            if self.config_of(&record.value.resource).is_ok_and(|c| c.resource.metadata.name == name) {
                users.push(format!("workerpool/{pool}"));
            }
        }
        let running = self.scheduler.holders().into_iter().filter(|(_, h)| h.sandbox.name == name);
        users.extend(running.map(|(_, h)| format!("actor/{}", h.actor)));
        let room = in_use::COUNTED.saturating_sub(users.len());
        let snapshots = self.db.first_keys(&keys::by_config_prefix(name), room).await?;
        users.extend(
            snapshots
                .into_iter()
                .filter_map(|k| k.split('/').nth(1).map(|m| format!("snapshot/{}", &m[..m.len().min(12)]))),
        );
        Ok(users)
    }

    /// Writes what the probe found: to the revision, and to the configuration if it is still the current one.
    pub(crate) async fn record_probe(
        &self,
        key: &ConfigKey,
        result: Result<ate_agent::Probed, Error>,
    ) -> Result<(), Error> {
        let Some(old) = self.catalog.revisions.get(key) else { return Ok(()) };
        let mut revision = (*old.value).clone();
        match &result {
            Ok(probed) => {
                revision.probed = true;
                revision.failure = None;
                revision.capabilities.clone_from(&probed.capabilities);
                revision.versions.clone_from(&probed.versions);
            }
            Err(e) => revision.failure = Some(Failure { reason: e.reason.as_str().to_owned(), message: e.to_string() }),
        }
        if revision != *old.value {
            let version = self.db.put_json(&keys::revision(key), Some(old.version), &revision).await?;
            self.catalog.revisions.set(key.clone(), version, revision.clone());
        }
        for _ in 0..ATTEMPTS {
            let Some(old) = self.catalog.configs.get(&key.name).filter(|c| c.value.revision == key.revision) else {
                return Ok(());
            };
            let mut record = (*old.value).clone();
            let generation = record.resource.metadata.generation;
            let status = record.resource.status.get_or_insert_default();
            status.capabilities.clone_from(&revision.capabilities);
            status.versions.clone_from(&revision.versions);
            let condition = match &result {
                Ok(_) => {
                    Condition::new("Ready", true, "Verified", "assets are verified and work on this node", generation)
                }
                Err(e) => Condition::new("Ready", false, &camel_case(e.reason), e.to_string(), generation),
            };
            set_condition(&mut status.conditions, condition);
            if record == *old.value {
                return Ok(());
            }
            match self.db.put_json(&keys::config(&key.name), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.configs.set(key.name.clone(), version, record);
                    return Ok(());
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// `ASSET_UNAVAILABLE` → `AssetUnavailable`, as conditions have it.
pub(crate) fn camel_case(reason: Reason) -> String {
    let words = reason.as_str().split('_');
    words.map(|w| w[..1].to_owned() + &w[1..].to_lowercase()).collect()
}
