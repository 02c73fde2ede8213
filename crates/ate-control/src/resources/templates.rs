//! Actor templates: immutable once created; the golden snapshot follows (`reconcile::templates`).

use std::sync::Arc;

use ate_api::{
    Error, Reason, canonical,
    id::{ActorName, Digest, GOLDEN_ATESPACE, ObjectName},
    resource::{ActorTemplate, ActorTemplateStatus, Choice},
};
use ate_sandbox::{capability, resolve};
use ate_snapshot::manifest::Platform;
use ate_store::{Expect, Transaction};

use super::{ATTEMPTS, Applied, in_use, not_found, stamp_changed, stamp_new, too_many_conflicts};
use crate::{
    catalog::Entry,
    core::Core,
    records::{ConfigKey, TemplateRecord, keys, to_json},
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
        let spec_digest = canonical::digest_of(&template.spec);
        for _ in 0..ATTEMPTS {
            let Some(old) = self.catalog.templates.get(&name) else {
                match self.create_template(&name, template.clone(), spec_digest.clone()).await {
                    Err(e) if e.reason == Reason::Conflict => self.reload_for_template(&name).await?,
                    done => return done,
                }
                continue;
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
        spec_digest: ate_api::id::Digest,
    ) -> Result<(Applied, Entry<TemplateRecord>), Error> {
        let (choice, still) = self.class_of(&resource)?;
        self.check_capabilities(&resource, &choice.name).map_err(|e| e.on(format!("actortemplate/{name}")))?;
        stamp_new(&mut resource.metadata);
        let choice = choice.at(ate_api::time::now());
        resource.status = Some(ActorTemplateStatus {
            sandbox_class: choice.name.clone(),
            sandbox_class_choice: Some(Box::new(choice.clone())),
            ..Default::default()
        });
        let record = TemplateRecord {
            default_port: readyz_port(&resource).unwrap_or(DEFAULT_PORT),
            resource,
            class: choice.name.clone(),
            class_choice: Some(choice),
            spec_digest,
            images: Default::default(),
            golden: None,
            siblings: Vec::new(),
            former: Vec::new(),
            deleting: false,
        };
        let key = keys::template(name);
        let version = self.db.commit(still.check(key.clone(), Expect::Absent).put(key, to_json(&record)?)).await?;
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
        self.reload(&self.catalog.templates, name, &keys::template(name)).await
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
        let removed = match self.update_template(name, &uid, |t| t.deleting = true).await {
            Ok(_) => self.remove_template(name, &uid, &object).await,
            Err(e) => Err(e),
        };
        if removed.is_err() && self.keep_template(name, &uid).await.is_err() {
            let (core, name) = (self.clone(), name.clone());
            self.spawn(async move {
                let keep = || core.keep_template(&name, &uid);
                core.insist(&object, "a template that could not be deleted is closed still", keep).await;
            });
        }
        removed
    }

    /// It is not deleted after all.
    async fn keep_template(&self, name: &ObjectName, uid: &ate_api::id::Uid) -> Result<(), Error> {
        self.reload_template(name).await?;
        match self.update_template(name, uid, |t| t.deleting = false).await {
            Err(e) if e.reason != Reason::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    async fn remove_template(
        self: &Arc<Self>,
        name: &ObjectName,
        uid: &ate_api::id::Uid,
        object: &str,
    ) -> Result<(), Error> {
        let mut users = self.db.first_keys(&keys::by_template_prefix(uid), in_use::COUNTED).await?;
        users.retain(|u| !u.starts_with(&format!("{GOLDEN_ATESPACE}/")));
        if let Some(refusal) = in_use::refusal(object, "actor", users) {
            return Err(refusal);
        }
        let current =
            self.catalog.template(name, uid).and_then(|t| t.value.golden.as_ref().map(|g| g.manifest.clone()));
        // If the rest of this does not happen they are made anew, or the current one, which goes last, is taken again.
        self.update_template(name, uid, |t| t.forget_goldens()).await?;
        let mut goldens = Vec::new();
        for golden in self.golden_actors(uid).await? {
            let snapshot = self.load(&golden).await.ok().and_then(|actor| actor.value.snapshot);
            goldens.push((current.is_some() && snapshot.map(|s| s.manifest) == current, golden));
        }
        goldens.sort();
        for (_, golden) in goldens {
            // One that is being captured goes when that is over.
            let capture = self.options.capture_timeout + 2 * self.options.release_timeout;
            match self.delete_actor(&golden, self.default_deadline() + capture).await {
                Err(e) if e.reason != Reason::NotFound => return Err(e),
                _ => {}
            }
        }
        for _ in 0..ATTEMPTS {
            let Some(now) = self.catalog.template(name, uid) else { return Ok(()) };
            if !now.value.deleting {
                // By another deletion, which failed: an actor may have been made since.
                return Err(Error::new(Reason::Conflict, "it has been kept meanwhile").on(object).hint("try again"));
            }
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

    /// Those whose snapshots are golden ones of a template, or were to be.
    pub(crate) async fn golden_actors(&self, template: &ate_api::id::Uid) -> Result<Vec<ActorName>, Error> {
        let prefix = format!("{}{GOLDEN_ATESPACE}/", keys::by_template_prefix(template));
        let names = self.db.first_keys(&prefix, in_use::COUNTED).await?;
        Ok(names.into_iter().map(|name| ActorName::new(GOLDEN_ATESPACE, name)).collect())
    }

    /// Creates the record of a template's golden actor, if it is not there: of the first one, which runs under what its
    /// pool runs, or of one for a certain revision, and for workers of a certain platform.
    pub(crate) async fn ensure_golden_actor(
        &self,
        template: &TemplateRecord,
        revision: Option<&ConfigKey>,
        platform: Option<(&Digest, &Platform)>,
    ) -> Result<ActorName, Error> {
        let mut name = template.uid().to_string();
        if let Some(key) = revision {
            name += &format!("-{}", Digest::of(key.to_string().as_bytes()).short());
        }
        if let Some((digest, _)) = platform {
            name += &format!("-{}", digest.short());
        }
        let name = ActorName::new(GOLDEN_ATESPACE, name);
        if self.db.find_actor(&name).await?.is_none() {
            let mut record =
                crate::records::ActorRecord::new(template.name(), template.uid().clone(), Default::default());
            record.pinned = revision.cloned();
            let mut tx = Transaction::new();
            if let Some((digest, platform)) = platform {
                record.platform = Some(digest.clone());
                tx = tx.put(keys::platform(digest), crate::records::to_json(platform)?);
            }
            let tx = tx
                .check(keys::actor(&name), Expect::Absent)
                .check(keys::template(&template.name()), Expect::Present)
                .put(keys::actor(&name), crate::records::pack(&record)?)
                .put(keys::by_template(template.uid(), &name), &b""[..]);
            let version = self.db.commit(tx).await?;
            if let Some((digest, platform)) = platform {
                self.catalog.platforms.set(digest.clone(), version, platform.clone());
            }
        }
        Ok(name)
    }

    /// The class of a new template: named by it, else the default of the atespace of its namespace, else that of the
    /// cluster, else the built-in one. With it a transaction that checks that the defaults still are what they were.
    ///
    /// # Errors
    /// `UNKNOWN_SANDBOX_CLASS`, and `NOT_A_SANDBOX` if it would get one that is no sandbox without having asked for it.
    pub(crate) fn class_of(&self, template: &ActorTemplate) -> Result<(Choice, Transaction), Error> {
        let namespace = &template.metadata.namespace;
        let named = template.spec.sandbox_class.as_deref();
        let atespace = self.catalog.atespaces.get(namespace);
        let of_atespace = atespace.as_ref().and_then(|a| a.value.resource.spec.default_sandbox_class.as_deref());
        let cluster = self.catalog.default_class.get(&());
        let of_cluster = cluster.as_ref().map(|c| (c.value.config.as_str(), c.value.class.as_str()));
        let choice = resolve::class(named, of_atespace.map(|class| (namespace.as_str(), class)), of_cluster);
        let object = || format!("actortemplate/{}", ObjectName::new(namespace, &template.metadata.name));
        let descriptor = &self.classes.get(&choice.name).map_err(|e| e.on(object()))?.descriptor;
        let mut still = Transaction::new();
        if named.is_none() {
            descriptor.may_be_default().map_err(|e| e.on(object()))?;
            still = still
                .check(keys::atespace(namespace), atespace.as_ref().map(|a| a.version).into())
                .check(keys::DEFAULT_CLASS, cluster.as_ref().map(|c| c.version).into());
        }
        Ok((choice, still))
    }

    /// What the creation of a template looks at, as it is in the store now.
    async fn reload_for_template(&self, name: &ObjectName) -> Result<(), Error> {
        self.reload_template(name).await?;
        self.reload_atespace(&name.namespace).await?;
        self.reload_default_class().await
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
