//! Worker pools: written here, brought about by `reconcile::pools`.

use std::sync::Arc;

use ate_api::{
    Error, Reason,
    id::ObjectName,
    resource::{Choice, Condition, WorkerPool, meta::set_condition},
};
use ate_sandbox::resolve;

use super::{ATTEMPTS, Applied, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    records::{ConfigRecord, PoolRecord, keys},
};

impl Core {
    pub(crate) async fn apply_pool(&self, pool: WorkerPool) -> Result<(Applied, Entry<PoolRecord>), Error> {
        self.classes.get(&pool.spec.sandbox_class)?;
        let name = ObjectName::new(&pool.metadata.namespace, &pool.metadata.name);
        if let Some(config) = &pool.spec.sandbox_config_name
            && let Some(found) = self.catalog.configs.get(config)
            && found.value.resource.spec.sandbox_class != pool.spec.sandbox_class
        {
            return Err(Error::new(
                Reason::ClassMismatch,
                format!(
                    "sandboxConfigName {config} is of class {}, the pool of class {}",
                    found.value.resource.spec.sandbox_class, pool.spec.sandbox_class
                ),
            )
            .on(format!("workerpool/{name}")));
        }
        let key = keys::pool(&name);
        for _ in 0..ATTEMPTS {
            let old = self.catalog.pools.get(&name);
            let mut resource = pool.clone();
            let applied = match &old {
                None => {
                    resource.status = None;
                    stamp_new(&mut resource.metadata);
                    Applied::Created
                }
                Some(old) if old.value.deleting => {
                    return Err(
                        Error::new(Reason::WrongState, "the pool is being removed").on(format!("workerpool/{name}"))
                    );
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
            let record = PoolRecord { resource, deleting: false };
            match self.db.put_json(&key, old.map(|o| o.version), &record).await {
                Ok(version) => {
                    self.catalog.pools.set(name, version, record.clone());
                    return Ok((applied, Entry { version, value: Arc::new(record) }));
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_pool(&name).await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("workerpool/{name}")))
    }

    /// Drained, then removed, by the reconciler.
    pub(crate) async fn delete_pool(&self, name: &ObjectName) -> Result<(), Error> {
        self.update_pool(name, |pool| pool.deleting = true)
            .await?
            .ok_or_else(|| not_found("workerpool", &name.to_string()))?;
        Ok(())
    }

    pub(crate) async fn reload_pool(&self, name: &ObjectName) -> Result<(), Error> {
        self.reload(&self.catalog.pools, name, &keys::pool(name)).await.map(drop)
    }

    /// Changes a pool as it is now; `None` if there is none. Writes nothing when nothing changes.
    pub(crate) async fn update_pool(
        &self,
        name: &ObjectName,
        change: impl Fn(&mut PoolRecord),
    ) -> Result<Option<Entry<PoolRecord>>, Error> {
        for _ in 0..ATTEMPTS {
            let Some(old) = self.catalog.pools.get(name) else { return Ok(None) };
            let mut record = (*old.value).clone();
            change(&mut record);
            if record == *old.value {
                return Ok(Some(old));
            }
            match self.db.put_json(&keys::pool(name), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.pools.set(name.clone(), version, record.clone());
                    return Ok(Some(Entry { version, value: Arc::new(record) }));
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_pool(name).await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("workerpool/{name}")))
    }

    /// The configuration a pool runs under: the one it names, or the default of its class.
    pub(crate) fn config_of(&self, pool: &WorkerPool) -> Result<Arc<ConfigRecord>, Error> {
        self.config_choice(pool).map(|(_, config)| config)
    }

    /// The same, with the rule that decided.
    pub(crate) fn config_choice(&self, pool: &WorkerPool) -> Result<(Choice, Arc<ConfigRecord>), Error> {
        let name = ObjectName::new(&pool.metadata.namespace, &pool.metadata.name);
        self.choose_config(&name, &pool.spec.sandbox_class, pool.spec.sandbox_config_name.as_deref())
    }

    /// The default configuration of a class.
    pub(crate) fn default_config(&self, class: &str) -> Result<Arc<ConfigRecord>, Error> {
        self.choose_config(&ObjectName::new("", ""), class, None).map(|(_, config)| config)
    }

    fn choose_config(
        &self,
        pool: &ObjectName,
        class: &str,
        named: Option<&str>,
    ) -> Result<(Choice, Arc<ConfigRecord>), Error> {
        let all = self.catalog.configs.all();
        let candidates = all.iter().map(|(name, c)| {
            let spec = &c.value.resource.spec;
            resolve::Candidate { name, class: &spec.sandbox_class, default: spec.default }
        });
        let choice = resolve::config(pool, class, named, candidates)?;
        let found = self.catalog.configs.get(&choice.name);
        found
            .map(|c| (choice, c.value))
            .ok_or_else(|| Error::new(Reason::NoSandboxConfig, "the configuration has just been deleted"))
    }
}

/// The pool's word on whether it works.
pub(crate) fn set_ready(pool: &mut WorkerPool, ready: bool, reason: &str, message: &str) {
    let generation = pool.metadata.generation;
    let status = pool.status.get_or_insert_default();
    status.observed_generation = generation;
    set_condition(&mut status.conditions, Condition::new("Ready", ready, reason, message, generation));
}
