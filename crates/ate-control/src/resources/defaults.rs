//! Defaults: the configuration of a class, the class of the cluster, the class of an atespace.
//!
//! At most one of each. Whoever claims one takes it from who had it in the same transaction, so there are never two and
//! never none in between; both sides get a condition that says so. A guard key for each is written with every change,
//! so that of two claims at once one is tried again.

use std::collections::BTreeMap;

use ate_api::{
    Error, Reason,
    resource::{Condition, SandboxConfig, choice::DEFAULT_CLASS_ANNOTATION, meta::set_condition},
};
use ate_sandbox::ClassDescriptor;
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, not_found, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    db::Stored,
    records::{AtespaceRecord, ConfigRecord, DefaultClass, keys, now_ms, to_json},
};

/// Conditions of a configuration that speak of defaults.
const CONFIG: &str = "Default";
const CLASS: &str = "DefaultClass";

/// What a write of one configuration does to the defaults.
#[derive(Default)]
pub(super) struct Claims {
    /// Configurations that lose one, as they are from now on.
    pub(super) displaced: BTreeMap<String, Stored<ConfigRecord>>,
    /// The default class changes, to this.
    pub(super) class: Option<Option<DefaultClass>>,
}

/// Whether this configuration stands for the default class of the cluster.
pub(crate) fn stands_for_class(config: &SandboxConfig) -> bool {
    config.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION).is_some_and(|v| v == "true")
}

/// # Errors
/// `NOT_A_SANDBOX` if the configuration is to be a default of any kind and its class may not.
pub(crate) fn check(class: &ClassDescriptor, config: &SandboxConfig) -> Result<(), Error> {
    if config.spec.default || stands_for_class(config) {
        let object = format!("sandboxconfig/{}", config.metadata.name);
        class.may_be_default().map_err(|e| e.on(object))?;
    }
    Ok(())
}

impl Core {
    /// Adds to the transaction that writes `resource` whatever it claims or gives up.
    pub(super) async fn claim_defaults(
        &self,
        tx: Transaction,
        resource: &mut SandboxConfig,
    ) -> Result<(Transaction, Claims), Error> {
        let mut claims = Claims::default();
        let tx = self.claim_config(tx, resource, &mut claims).await?;
        let mut tx = self.claim_class(tx, resource, &mut claims).await?;
        for (name, old) in &claims.displaced {
            let key = keys::config(name);
            tx = tx.check(key.clone(), Expect::Version(old.version)).put(key, to_json(&old.value)?);
        }
        Ok((tx, claims))
    }

    /// The only default of its class, or none of them if it gave that up.
    async fn claim_config(
        &self,
        tx: Transaction,
        resource: &mut SandboxConfig,
        claims: &mut Claims,
    ) -> Result<Transaction, Error> {
        let guard = keys::default_config(&resource.spec.sandbox_class);
        let current = self.db.get_json::<String>(&guard).await?;
        let name = resource.metadata.name.clone();
        let ours = current.as_ref().is_some_and(|c| c.value == name);
        if !resource.spec.default {
            forget(resource, CONFIG);
        }
        if resource.spec.default == ours {
            return Ok(tx);
        }
        let tx = tx.check(guard.clone(), current.as_ref().map(|c| c.version).into());
        if !resource.spec.default {
            return Ok(tx.delete(guard));
        }
        let tx = tx.put(guard, to_json(&name)?);
        let Some(Stored { value: other, .. }) = current else { return Ok(tx) };
        let message = format!("{name} was applied with default: true and is the default of the class now");
        let lose = |displaced: &mut SandboxConfig| {
            displaced.spec.default = false;
            displaced.metadata.generation += 1;
        };
        if self.displace(claims, &other, CONFIG, message, lose).await? {
            win(resource, CONFIG, &other);
        }
        Ok(tx)
    }

    /// The one that stands for the default class, or not any more.
    async fn claim_class(
        &self,
        tx: Transaction,
        resource: &mut SandboxConfig,
        claims: &mut Claims,
    ) -> Result<Transaction, Error> {
        let current = self.db.get_json::<DefaultClass>(keys::DEFAULT_CLASS).await?;
        let name = resource.metadata.name.clone();
        let ours = current.as_ref().is_some_and(|c| c.value.config == name);
        let wanted = stands_for_class(resource);
        if !wanted {
            forget(resource, CLASS);
        }
        if wanted == ours {
            return Ok(tx);
        }
        let tx = tx.check(keys::DEFAULT_CLASS, current.as_ref().map(|c| c.version).into());
        if !wanted {
            claims.class = Some(None);
            return Ok(tx.delete(keys::DEFAULT_CLASS));
        }
        let class = resource.spec.sandbox_class.clone();
        let new = DefaultClass { class: class.clone(), config: name.clone(), since_ms: now_ms() };
        let tx = tx.put(keys::DEFAULT_CLASS, to_json(&new)?);
        claims.class = Some(Some(new));
        let Some(Stored { value: DefaultClass { config: other, .. }, .. }) = current else { return Ok(tx) };
        let message = format!("{name} stands for the default class of the cluster now, which is {class}");
        let lose = |displaced: &mut SandboxConfig| {
            displaced.metadata.annotations.remove(DEFAULT_CLASS_ANNOTATION);
        };
        if self.displace(claims, &other, CLASS, message, lose).await? {
            win(resource, CLASS, &other);
        }
        Ok(tx)
    }

    /// Takes a default from a configuration and tells it why. From the store: whoever wrote the guard may not have come to
    /// update the memory yet. False: it is gone.
    async fn displace(
        &self,
        claims: &mut Claims,
        name: &str,
        condition: &str,
        message: String,
        lose: impl FnOnce(&mut SandboxConfig),
    ) -> Result<bool, Error> {
        if !claims.displaced.contains_key(name) {
            let Some(old) = self.db.get_json::<ConfigRecord>(&keys::config(name)).await? else { return Ok(false) };
            claims.displaced.insert(name.to_owned(), old);
        }
        let Some(old) = claims.displaced.get_mut(name) else { return Ok(false) };
        let resource = &mut old.value.resource;
        lose(resource);
        let condition = Condition::new(condition, false, "Displaced", message, resource.metadata.generation);
        set_condition(&mut resource.status.get_or_insert_default().conditions, condition);
        Ok(true)
    }

    /// What to delete together with a configuration that stands for defaults.
    pub(super) async fn give_up_defaults(
        &self,
        mut tx: Transaction,
        config: &SandboxConfig,
    ) -> Result<(Transaction, Claims), Error> {
        let mut claims = Claims::default();
        if config.spec.default {
            tx = tx.delete(keys::default_config(&config.spec.sandbox_class));
        }
        let current = self.db.get_json::<DefaultClass>(keys::DEFAULT_CLASS).await?;
        if let Some(current) = current.filter(|c| c.value.config == config.metadata.name) {
            tx = tx.check(keys::DEFAULT_CLASS, Expect::Version(current.version)).delete(keys::DEFAULT_CLASS);
            claims.class = Some(None);
        }
        Ok((tx, claims))
    }

    /// Shows in memory what was committed.
    pub(super) fn show_claims(&self, version: u64, claims: &Claims) {
        match &claims.class {
            Some(Some(class)) => self.catalog.default_class.set((), version, class.clone()),
            Some(None) => self.catalog.default_class.remove((), version),
            None => {}
        }
    }

    pub(super) async fn reload_default_class(&self) -> Result<(), Error> {
        self.reload(&self.catalog.default_class, &(), keys::DEFAULT_CLASS).await.map(drop)
    }

    /// Leaves the cluster without a default class. Returns what stood for it, if anything did.
    pub(crate) async fn unset_default_class(&self) -> Result<Option<Entry<ConfigRecord>>, Error> {
        let stood = self.catalog.default_class.get(&()).map(|c| c.value.config.clone());
        let Some(name) = stood else { return Ok(None) };
        let edited = self.edit_config(
            || Ok(name.clone()),
            |config| drop(config.metadata.annotations.remove(DEFAULT_CLASS_ANNOTATION)),
        );
        edited.await.map(Some)
    }

    /// Makes a class the default of the cluster; its default configuration stands for it.
    pub(crate) async fn set_default_class(&self, class: &str) -> Result<Entry<ConfigRecord>, Error> {
        self.classes.get(class)?.descriptor.may_be_default()?;
        self.edit_config(
            || {
                let mine = |mut e: Error| {
                    e.object = format!("sandboxclass/{class}");
                    e
                };
                Ok(self.default_config(class).map_err(mine)?.resource.metadata.name.clone())
            },
            |config| drop(config.metadata.annotations.insert(DEFAULT_CLASS_ANNOTATION.to_owned(), "true".to_owned())),
        )
        .await
    }

    /// Makes a configuration the default of its class.
    pub(crate) async fn set_default_config(&self, name: &str) -> Result<Entry<ConfigRecord>, Error> {
        self.edit_config(|| Ok(name.to_owned()), |config| config.spec.default = true).await
    }

    /// Changes one configuration as it is now.
    async fn edit_config(
        &self,
        which: impl Fn() -> Result<String, Error>,
        edit: impl Fn(&mut SandboxConfig),
    ) -> Result<Entry<ConfigRecord>, Error> {
        for _ in 0..ATTEMPTS {
            let name = which()?;
            let old = self.catalog.configs.get(&name).ok_or_else(|| not_found("sandboxconfig", &name))?;
            let mut config = old.value.resource.clone();
            config.metadata.generation = 0; // counted here
            edit(&mut config);
            match self.try_apply_config(&config, Some(old.version)).await {
                Err(e) if e.reason == Reason::Conflict => self.reload_configs().await?,
                done => return done.map(|(_, entry)| entry),
            }
        }
        Err(too_many_conflicts("sandboxconfig".to_owned()))
    }

    /// Makes a class the default of one atespace, or leaves it without one.
    pub(crate) async fn set_atespace_class(
        &self,
        name: &str,
        class: Option<&str>,
    ) -> Result<Entry<AtespaceRecord>, Error> {
        if let Some(class) = class {
            self.classes.get(class)?.descriptor.may_be_default()?;
        }
        for _ in 0..ATTEMPTS {
            let old = self.reload_atespace(name).await?.ok_or_else(|| not_found("atespace", name))?;
            let mut record = (*old.value).clone();
            record.resource.spec.default_sandbox_class = class.map(str::to_owned);
            if record == *old.value {
                return Ok(old);
            }
            record.resource.metadata.generation += 1;
            match self.db.put_json(&keys::atespace(name), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.atespaces.set(name.to_owned(), version, record.clone());
                    return Ok(Entry { version, value: record.into() });
                }
                Err(e) if e.reason == Reason::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("atespace/{name}")))
    }
}

fn win(resource: &mut SandboxConfig, condition: &str, other: &str) {
    let message = format!("took the place of {other}");
    let condition = Condition::new(condition, true, "Newest", message, resource.metadata.generation);
    set_condition(&mut resource.status.get_or_insert_default().conditions, condition);
}

/// Who gave a default up need not say any more how it came by it.
fn forget(resource: &mut SandboxConfig, condition: &str) {
    if let Some(status) = &mut resource.status {
        status.conditions.retain(|c| c.r#type != condition || !c.is_true());
    }
}
