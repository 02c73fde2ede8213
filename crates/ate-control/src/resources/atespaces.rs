//! Atespaces: the unit of isolation actors live in.

use std::sync::Arc;

use ate_api::{Error, Reason, id::GOLDEN_ATESPACE, resource::Atespace};
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, Applied, in_use, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    records::{AtespaceRecord, keys},
};

impl Core {
    pub(crate) async fn apply_atespace(&self, atespace: Atespace) -> Result<(Applied, Entry<AtespaceRecord>), Error> {
        let name = atespace.metadata.name.clone();
        if name == GOLDEN_ATESPACE {
            return Err(Error::new(Reason::PermissionDenied, "this atespace belongs to the system")
                .on(format!("atespace/{name}")));
        }
        // One that is not installed yet is no mistake; should it turn out to be no sandbox, templates are refused.
        if let Some(Ok(class)) = atespace.spec.default_sandbox_class.as_deref().map(|c| self.classes.get(c)) {
            class.descriptor.may_be_default().map_err(|e| e.on(format!("atespace/{name}")))?;
        }
        let key = keys::atespace(&name);
        for _ in 0..ATTEMPTS {
            let old = self.reload_atespace(&name).await?;
            let mut record = AtespaceRecord { resource: atespace.clone(), deleting: false };
            let applied = match &old {
                None => {
                    stamp_new(&mut record.resource.metadata);
                    Applied::Created
                }
                Some(old) => {
                    let changed = old.value.resource.spec != record.resource.spec;
                    stamp_changed(&mut record.resource.metadata, &old.value.resource.metadata, changed);
                    record.deleting = old.value.deleting;
                    if *old.value == record {
                        return Ok((Applied::Unchanged, old.clone()));
                    }
                    Applied::Configured
                }
            };
            match self.db.put_json(&key, old.map(|o| o.version), &record).await {
                Ok(version) => {
                    self.catalog.atespaces.set(name, version, record.clone());
                    return Ok((applied, Entry { version, value: Arc::new(record) }));
                }
                Err(e) if e.reason == Reason::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("atespace/{name}")))
    }

    /// The atespace as it is in the store now.
    pub(crate) async fn reload_atespace(&self, name: &str) -> Result<Option<Entry<AtespaceRecord>>, Error> {
        self.reload(&self.catalog.atespaces, &name.to_owned(), &keys::atespace(name)).await
    }

    /// Marked first, so that no actor can be created between the look and the deletion.
    pub(crate) async fn delete_atespace(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let removed = self.remove_atespace(name).await;
        if removed.is_err() && self.keep_atespace(name).await.is_err() {
            let (core, name) = (self.clone(), name.to_owned());
            self.spawn(async move {
                let keep = || core.keep_atespace(&name);
                core.insist(format!("atespace/{name}"), "one that could not be deleted is closed still", keep).await;
            });
        }
        removed
    }

    async fn remove_atespace(&self, name: &str) -> Result<(), Error> {
        let key = keys::atespace(name);
        for _ in 0..ATTEMPTS {
            let old = self.reload_atespace(name).await?.ok_or_else(|| not_found("atespace", name))?;
            let mut marked = (*old.value).clone();
            marked.deleting = true;
            let version = match self.db.put_json(&key, Some(old.version), &marked).await {
                Ok(version) => version,
                Err(e) if e.reason == Reason::Conflict => continue,
                Err(e) => return Err(e),
            };
            self.catalog.atespaces.set(name.to_owned(), version, marked);
            match self.delete_unused(name, version).await {
                Err(e) if e.reason == Reason::Conflict => {}
                done => return done,
            }
        }
        Err(too_many_conflicts(format!("atespace/{name}")))
    }

    /// One that is marked, if it still is of that version.
    async fn delete_unused(&self, name: &str, version: u64) -> Result<(), Error> {
        let users = self.db.first_keys(&format!("{}{name}/", keys::ACTORS), in_use::COUNTED).await?;
        if let Some(refusal) = in_use::refusal(&format!("atespace/{name}"), "actor", users) {
            return Err(refusal);
        }
        let key = keys::atespace(name);
        let tx = Transaction::new().check(key.clone(), Expect::Version(version)).delete(key);
        let gone = self.db.commit(tx).await?;
        self.catalog.atespaces.remove(name.to_owned(), gone);
        Ok(())
    }

    /// It is not deleted after all, whoever changed it meanwhile.
    async fn keep_atespace(&self, name: &str) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some(old) = self.reload_atespace(name).await?.filter(|old| old.value.deleting) else { return Ok(()) };
            let kept = AtespaceRecord { deleting: false, ..(*old.value).clone() };
            match self.db.put_json(&keys::atespace(name), Some(old.version), &kept).await {
                Ok(version) => {
                    self.catalog.atespaces.set(name.to_owned(), version, kept);
                    return Ok(());
                }
                Err(e) if e.reason == Reason::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("atespace/{name}")))
    }
}
