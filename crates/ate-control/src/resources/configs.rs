//! Sandbox configurations: each change of content makes a new immutable revision. What they are defaults of is
//! `defaults`' subject.

use std::sync::Arc;

use ate_api::{
    Error, Reason,
    resource::{Condition, SandboxConfig, SandboxConfigStatus, meta::set_condition},
};
use ate_sandbox::{Isolation, revision::content_digest, signature};
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, Applied, defaults, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    records::{ConfigKey, ConfigRecord, Failure, Revision, keys, now_ms, to_json},
    revocation::conditions::set_revoked,
    usage::Filter,
};

/// Revisions deleted in one transaction, which has a limit.
const REVISIONS_AT_ONCE: usize = 64;

impl Core {
    pub(crate) async fn apply_config(&self, config: SandboxConfig) -> Result<(Applied, Entry<ConfigRecord>), Error> {
        for _ in 0..ATTEMPTS {
            match self.try_apply_config(&config, None).await {
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                done => return done,
            }
        }
        Err(too_many_conflicts(format!("sandboxconfig/{}", config.metadata.name)))
    }

    /// One try; `based_on`: only if the configuration still is of that version.
    pub(super) async fn try_apply_config(
        &self,
        config: &SandboxConfig,
        based_on: Option<u64>,
    ) -> Result<(Applied, Entry<ConfigRecord>), Error> {
        let name = config.metadata.name.clone();
        let object = format!("sandboxconfig/{name}");
        let class = &self.classes.get(&config.spec.sandbox_class).map_err(|e| e.on(object.clone()))?.descriptor;
        defaults::check(class, config)?;
        let old = self.catalog.configs.get(&name);
        if based_on.is_some() && based_on != old.as_ref().map(|o| o.version) {
            return Err(Error::new(Reason::Conflict, "it was changed in between").on(object));
        }
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
        let verification = signature::required(&config.spec, &self.options.arch).map_err(|e| e.on(object.clone()))?;
        let content = content_digest(class, &config.spec);
        let current = old.as_ref().and_then(|o| self.catalog.revisions.get(&o.value.key()));
        let same_content = current.as_ref().is_some_and(|c| c.value.content == content);

        if let Some(verification) = verification.as_ref().filter(|_| !same_content) {
            // What is on the node already is refused now; what has yet to come, when it has come.
            let checked = self.node.check_signatures(&reference, verification, false).await;
            checked.map_err(|e| Error { object: object.clone(), ..e })?;
        }

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
        let mut tx = Transaction::new().check(key.clone(), old.as_ref().map(|o| o.version).into());
        let mut new_revision = None;
        let revision = if same_content {
            old.as_ref().map_or(next, |o| o.value.revision)
        } else {
            let revision = Revision {
                reference,
                content: content.clone(),
                created_ms: now_ms(),
                verification,
                probed: false,
                capabilities: Vec::new(),
                versions: Default::default(),
                failure: None,
            };
            tx = tx
                .check(counter_key.clone(), counter.map(|c| c.version).into())
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
        let (tx, claims) = self.claim_defaults(tx, &mut resource).await?;
        let record = ConfigRecord { resource, revision };
        let version = self.db.commit(tx.put(key, to_json(&record)?)).await?;
        if let Some(revision) = new_revision {
            self.catalog.revisions.set(revision.key(), version, revision);
            self.rebuild_admitted();
        }
        self.show_claims(version, &claims);
        let mut changed: Vec<_> = claims.displaced.into_iter().map(|(n, old)| (n, old.value)).collect();
        changed.push((name, record.clone()));
        self.catalog.configs.set_all(version, changed);
        Ok((applied, Entry { version, value: Arc::new(record) }))
    }

    pub(super) async fn reload_configs(&self) -> Result<(), Error> {
        self.reload_default_class().await?;
        let page = self.db.page(keys::CONFIGS, None, 1000).await?;
        let mut absent = self.catalog.configs.all();
        absent.retain(|(name, _)| !page.iter().any(|(key, _)| *key == keys::config(name)));
        for (name, _) in absent {
            if self.reload(&self.catalog.configs, &name, &keys::config(&name)).await?.is_none() {
                for revision in self.revisions(&Filter { config: Some(name), ..Filter::default() }) {
                    self.reload_revision(&revision).await?;
                }
            }
        }
        for (key, v) in page {
            let record: ConfigRecord = crate::records::from_json(&key, &v.value)?;
            // Made by a commit whose answer was lost.
            if self.catalog.revisions.get(&record.key()).is_none() {
                self.reload_revision(&record.key()).await?;
            }
            self.catalog.configs.set(record.resource.metadata.name.clone(), v.version, record);
        }
        Ok(())
    }

    async fn reload_revision(&self, key: &ConfigKey) -> Result<(), Error> {
        self.reload(&self.catalog.revisions, key, &keys::revision(key)).await?;
        self.rebuild_admitted();
        Ok(())
    }

    /// `force`: one that is used is revoked and stays.
    pub(crate) async fn delete_config(&self, name: &str, force: bool) -> Result<(), Error> {
        self.catalog.configs.get(&name.to_owned()).ok_or_else(|| not_found("sandboxconfig", name))?;
        if let Some(refusal) = self.users_of_config(name).await? {
            return if force { self.revoke_config(name).await } else { Err(refusal) };
        }
        // From here on nobody begins to use it, and who did before is found by a second look.
        let _withdrawn = self.withdraw(name);
        match self.users_of_config(name).await? {
            None => self.remove_config(name).await,
            Some(refusal) => Err(refusal),
        }
    }

    async fn remove_config(&self, name: &str) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let old = self.catalog.configs.get(&name.to_owned()).ok_or_else(|| not_found("sandboxconfig", name))?;
            let key = keys::config(name);
            let tx = Transaction::new().check(key.clone(), Expect::Version(old.version)).delete(key);
            let (mut tx, claims) = self.give_up_defaults(tx, &old.value.resource).await?;
            let mut revisions = self.revisions(&Filter { config: Some(name.to_owned()), ..Filter::default() });
            // Those beyond what one transaction takes go before: nothing refers to them, and their numbers are not reused.
            while revisions.len() > REVISIONS_AT_ONCE {
                let first: Vec<ConfigKey> = revisions.drain(..REVISIONS_AT_ONCE).collect();
                let tx = first.iter().fold(Transaction::new(), |tx, revision| tx.delete(keys::revision(revision)));
                let version = self.db.commit(tx).await?;
                first.into_iter().for_each(|revision| self.catalog.revisions.remove(revision, version));
            }
            for revision in &revisions {
                tx = tx.delete(keys::revision(revision));
            }
            match self.db.commit(tx).await {
                Ok(version) => {
                    self.show_claims(version, &claims);
                    self.catalog.configs.remove(name.to_owned(), version);
                    for revision in revisions {
                        self.catalog.revisions.remove(revision, version);
                    }
                    return Ok(());
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("sandboxconfig/{name}")))
    }

    /// The refusal to delete it, if there are pools that run under it, or actors or snapshots that need it.
    async fn users_of_config(&self, name: &str) -> Result<Option<Error>, Error> {
        if let Some(rollout) = self.rollout_to(name) {
            let e = Error::new(Reason::InUse, format!("{} to it is under way", rollout.object()));
            return Ok(Some(e.on(format!("sandboxconfig/{name}")).hint("wait until it is done, or undo it")));
        }
        let pools = self.catalog.pools.all().into_iter();
        let using = pools
            .filter(|(_, pool)| self.config_of(&pool.value.resource).is_ok_and(|c| c.resource.metadata.name == name));
        let pools = using.map(|(pool, _)| format!("workerpool/{pool}")).collect();
        let revisions = self.revisions(&Filter { config: Some(name.to_owned()), ..Filter::default() });
        let refusal = self.in_use(&format!("sandboxconfig/{name}"), pools, &revisions).await?;
        Ok(refusal.map(|e| {
            e.hint("delete them first, or let them move to another configuration; --force revokes its binaries instead")
        }))
    }

    /// Writes what the probe found: to the revision, and to the configuration if it is still the current one.
    pub(crate) async fn record_probe(
        &self,
        key: &ConfigKey,
        result: Result<ate_agent::Probed, Error>,
    ) -> Result<(), Error> {
        let Some(revision) = self.record_in_revision(key, &result).await? else { return Ok(()) };
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
                Err(e) => Condition::new("Ready", false, e.reason.camel_case(), e.to_string(), generation),
            };
            set_condition(&mut status.conditions, condition);
            let refusal = result.as_ref().err().filter(|e| e.reason == Reason::AssetRevoked);
            set_revoked(&mut status.conditions, generation, refusal);
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
        Err(too_many_conflicts(format!("sandboxconfig/{}", key.name)))
    }

    /// Nothing comes back if it is gone.
    async fn record_in_revision(
        &self,
        key: &ConfigKey,
        result: &Result<ate_agent::Probed, Error>,
    ) -> Result<Option<Revision>, Error> {
        for _ in 0..ATTEMPTS {
            let Some(old) = self.catalog.revisions.get(key) else { return Ok(None) };
            let mut revision = (*old.value).clone();
            match result {
                Ok(probed) => {
                    revision.probed = true;
                    revision.failure = None;
                    revision.capabilities.clone_from(&probed.capabilities);
                    revision.versions.clone_from(&probed.versions);
                }
                Err(e) => {
                    revision.failure = Some(Failure { reason: e.reason.as_str().to_owned(), message: e.to_string() });
                }
            }
            if revision == *old.value {
                return Ok(Some(revision));
            }
            match self.db.put_json(&keys::revision(key), Some(old.version), &revision).await {
                Ok(version) => {
                    self.catalog.revisions.set(key.clone(), version, revision.clone());
                    self.rebuild_admitted();
                    return Ok(Some(revision));
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_revision(key).await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("sandboxconfig/{}", key.name)))
    }
}
