//! Actor templates: immutable once created; the golden snapshot follows (`reconcile::templates`).

use std::sync::Arc;

use ate_api::{
    Error, Reason, canonical,
    id::{ActorName, GOLDEN_ATESPACE, ObjectName},
    resource::{ActorTemplate, ActorTemplateStatus},
};
use ate_sandbox::{capability, resolve};
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, Applied, in_use, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    records::{TemplateRecord, keys},
};

/// Where HTTP goes when neither template nor image says.
pub(crate) const DEFAULT_PORT: u16 = 80;

impl Core {
    pub(crate) async fn apply_template(
        &self,
        template: ActorTemplate,
    ) -> Result<(Applied, Entry<TemplateRecord>), Error> {
        let name = ObjectName::new(&template.metadata.namespace, &template.metadata.name);
        let object = format!("actortemplate/{name}");
        let class = self.class_of(&template);
        let descriptor = &self.classes.get(&class).map_err(|e| e.on(object.clone()))?.descriptor;
        if template.spec.sandbox_class.is_none() {
            descriptor.may_be_default().map_err(|e| e.on(object.clone()))?;
        }
        let spec_digest = canonical::digest_of(&template.spec);
        for _ in 0..ATTEMPTS {
            let Some(old) = self.catalog.templates.get(&name) else {
                self.check_capabilities(&template, &class).map_err(|e| e.on(object.clone()))?;
                return self.create_template(&name, template, class, spec_digest).await;
            };
            if old.value.deleting {
                return Err(Error::new(Reason::WrongState, "the template is being deleted").on(object));
            }
            if old.value.resource.spec != template.spec {
                return Err(Error::new(Reason::Immutable, "the spec of a template cannot change")
                    .on(object)
                    .hint("apply it under another name, and make new actors from that"));
            }
            let mut record = (*old.value).clone();
            record.resource.metadata = template.metadata.clone();
            stamp_changed(&mut record.resource.metadata, &old.value.resource.metadata, false);
            if record == *old.value {
                return Ok((Applied::Unchanged, old));
            }
            match self.db.put_json(&keys::template(&name), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.templates.set(name, version, record.clone());
                    return Ok((Applied::Configured, Entry { version, value: Arc::new(record) }));
                }
                Err(e) if e.reason == Reason::Conflict => drop(self.reload_template(&name).await?),
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(object))
    }

    async fn create_template(
        &self,
        name: &ObjectName,
        mut resource: ActorTemplate,
        class: String,
        spec_digest: ate_api::id::Digest,
    ) -> Result<(Applied, Entry<TemplateRecord>), Error> {
        stamp_new(&mut resource.metadata);
        resource.status = Some(ActorTemplateStatus::default());
        let record = TemplateRecord {
            default_port: readyz_port(&resource).unwrap_or(DEFAULT_PORT),
            resource,
            class,
            spec_digest,
            images: Default::default(),
            golden: None,
            deleting: false,
        };
        let version = self.db.put_json(&keys::template(name), None, &record).await?;
        self.catalog.templates.set(name.clone(), version, record.clone());
        Ok((Applied::Created, Entry { version, value: Arc::new(record) }))
    }

    /// Refused at once if every configuration it could run under is known to lack what it needs.
    pub(crate) fn check_capabilities(&self, template: &ActorTemplate, class: &str) -> Result<(), Error> {
        let name = ObjectName::new(&template.metadata.namespace, &template.metadata.name);
        let mut candidates = Vec::new();
        for (_, pool) in self.catalog.pools.all() {
            if pool.value.resource.spec.sandbox_class == class {
                candidates.extend(self.config_of(&pool.value.resource).ok());
            }
        }
        if candidates.is_empty() {
            candidates.extend(self.default_config(class).ok());
        }
        let mut refusal = Ok(());
        for config in candidates {
            let Some(revision) = self.catalog.revisions.get(&config.key()).filter(|r| r.value.probed) else {
                return Ok(());
            };
            let label = config.key().to_string();
            refusal = capability::check(&name, &template.spec, &label, &revision.value.capabilities);
            if refusal.is_ok() {
                return Ok(());
            }
        }
        refusal
    }

    pub(crate) async fn reload_template(&self, name: &ObjectName) -> Result<Option<Entry<TemplateRecord>>, Error> {
        if let Some(found) = self.db.get_json::<TemplateRecord>(&keys::template(name)).await? {
            self.catalog.templates.set(name.clone(), found.version, found.value);
        }
        Ok(self.catalog.templates.get(name))
    }

    /// Changes a template as it is now, if it still is the one with this uid.
    pub(crate) async fn update_template(
        &self,
        name: &ObjectName,
        uid: &ate_api::id::Uid,
        change: impl Fn(&mut TemplateRecord),
    ) -> Result<Arc<TemplateRecord>, Error> {
        for _ in 0..ATTEMPTS {
            let old = self.catalog.template(name, uid).ok_or_else(|| not_found("actortemplate", &name.to_string()))?;
            let mut record = (*old.value).clone();
            change(&mut record);
            if record == *old.value {
                return Ok(old.value);
            }
            match self.db.put_json(&keys::template(name), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.templates.set(name.clone(), version, record.clone());
                    return Ok(Arc::new(record));
                }
                Err(e) if e.reason == Reason::Conflict => drop(self.reload_template(name).await?),
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(format!("actortemplate/{name}")))
    }

    /// Marked first, so that no actor can be created between the look and the deletion.
    pub(crate) async fn delete_template(self: &Arc<Self>, name: &ObjectName) -> Result<(), Error> {
        let object = format!("actortemplate/{name}");
        let old = self.reload_template(name).await?.ok_or_else(|| not_found("actortemplate", &name.to_string()))?;
        let uid = old.value.uid().clone();
        self.update_template(name, &uid, |t| t.deleting = true).await?;
        let golden = ActorName::new(GOLDEN_ATESPACE, uid.as_str());
        let removed = self.remove_template(name, &uid, &golden, &object).await;
        if removed.is_err() {
            // Not deleted after all.
            let _ = self.update_template(name, &uid, |t| t.deleting = false).await;
        }
        removed
    }

    async fn remove_template(
        self: &Arc<Self>,
        name: &ObjectName,
        uid: &ate_api::id::Uid,
        golden: &ActorName,
        object: &str,
    ) -> Result<(), Error> {
        let mut users = self.db.first_keys(&keys::by_template_prefix(uid), in_use::COUNTED).await?;
        users.retain(|u| *u != format!("{}/{}", golden.atespace, golden.name));
        if let Some(refusal) = in_use::refusal(object, "actor", users) {
            return Err(refusal);
        }
        match self.delete_actor(golden, self.default_deadline()).await {
            Err(e) if e.reason != Reason::NotFound => return Err(e),
            _ => {}
        }
        for _ in 0..ATTEMPTS {
            let Some(now) = self.catalog.template(name, uid) else { return Ok(()) };
            let key = keys::template(name);
            let tx = Transaction::new().check(key.clone(), Expect::Version(now.version)).delete(key);
            match self.db.commit(tx).await {
                Ok(version) => {
                    self.catalog.templates.remove(name.clone(), version);
                    return Ok(());
                }
                Err(e) if e.reason == Reason::Conflict => drop(self.reload_template(name).await?),
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(object.to_owned()))
    }

    /// Creates the record of a template's golden actor, if it is not there.
    pub(crate) async fn ensure_golden_actor(&self, template: &TemplateRecord) -> Result<ActorName, Error> {
        let name = ActorName::new(GOLDEN_ATESPACE, template.uid().as_str());
        if self.db.find_actor(&name).await?.is_none() {
            let record = crate::records::ActorRecord::new(template.name(), template.uid().clone(), Default::default());
            let tx = Transaction::new()
                .check(keys::actor(&name), Expect::Absent)
                .check(keys::template(&template.name()), Expect::Present)
                .put(keys::actor(&name), crate::records::pack(&record)?)
                .put(keys::by_template(template.uid(), &name), &b""[..]);
            self.db.commit(tx).await?;
        }
        Ok(name)
    }

    /// Named by the template, else the default of the atespace of its namespace, else that of the cluster.
    pub(crate) fn class_of(&self, template: &ActorTemplate) -> String {
        let atespace = self.catalog.atespaces.get(&template.metadata.namespace);
        let default = atespace.and_then(|a| a.value.resource.spec.default_sandbox_class.clone());
        let of_atespace = default.as_deref().map(|class| (template.metadata.namespace.as_str(), class));
        resolve::class(template.spec.sandbox_class.as_deref(), of_atespace, self.options.default_class.as_deref()).name
    }
}

fn readyz_port(template: &ActorTemplate) -> Option<u16> {
    let main = template.spec.containers.first()?;
    main.readyz.as_ref().and_then(|r| u16::try_from(r.http_get.port).ok())
}

/// The port from the template if it says one, else the first the image exposes.
pub(crate) fn default_port(template: &ActorTemplate, exposed: &[u16]) -> u16 {
    readyz_port(template).or(exposed.first().copied()).unwrap_or(DEFAULT_PORT)
}
