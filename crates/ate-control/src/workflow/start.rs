//! From what an actor starts, and under which binaries.

use std::{sync::Arc, time::Duration};

use ate_agent::Source;
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Digest, GOLDEN_ATESPACE},
};
use ate_snapshot::manifest::Platform;

use crate::{
    core::Core,
    policy::idle,
    records::{ActorRecord, ConfigKey, Location, Revision, Snapshot, TemplateRecord},
    scheduler::{Need, Wanted},
    workflow::turns::Flight,
};

/// Everything that is decided before a worker is looked for.
pub(crate) struct Start {
    pub(crate) template: Arc<TemplateRecord>,
    pub(crate) source: Source,
    pub(crate) wanted: Wanted,
    pub(crate) parent: Option<Digest>,
    /// With the golden snapshot of its template.
    pub(crate) begins: bool,
    platform: Option<Arc<Platform>>,
    idle_timeout: Option<Duration>,
}

impl Start {
    pub(crate) fn need(&self, name: &ActorName, actor: &ActorRecord) -> Need {
        let spec = &self.template.resource.spec;
        Need {
            actor: name.clone(),
            uid: actor.uid.clone(),
            activation: Activation(actor.activation.0 + 1),
            template_uid: actor.template_uid.clone(),
            begins: self.begins,
            class: match &self.wanted {
                Wanted::Pinned(revision) => revision.reference.class.clone(),
                Wanted::OfPool { .. } => self.template.class.clone(),
            },
            template_selector: spec.worker_selector.clone(),
            actor_selector: actor.selector.clone(),
            wanted: self.wanted.clone(),
            platform: self.platform.clone(),
            idle_timeout: self.idle_timeout,
            movable: name.atespace != GOLDEN_ATESPACE,
            default_port: self.template.default_port,
        }
    }
}

impl Core {
    /// Decides where an actor starts from. Waits for the template's golden snapshot if it needs one.
    pub(crate) async fn plan_start(
        &self,
        name: &ActorName,
        actor: &ActorRecord,
        boot: bool,
        flight: &Flight,
    ) -> Result<Start, Error> {
        let own = actor.snapshot.as_ref().filter(|_| !boot);
        let from_image = boot || name.atespace == GOLDEN_ATESPACE;
        let template = self.wait_for_template(actor, own.is_some(), from_image, flight).await?;
        let snapshot = own.cloned().or_else(|| template.golden.clone().filter(|_| !from_image));
        let idle_timeout = if name.atespace == GOLDEN_ATESPACE { None } else { idle::timeout_of(&template) };
        let Some(snapshot) = snapshot else {
            let needs = ate_sandbox::capability::needs(&template.resource.spec);
            let capabilities = needs.into_iter().map(str::to_owned).collect();
            let wanted = Wanted::OfPool { capabilities };
            return Ok(Start {
                template,
                source: Source::Boot,
                wanted,
                parent: None,
                begins: false,
                platform: None,
                idle_timeout,
            });
        };
        self.check_usable(name, &snapshot)?;
        let revision = self.trusted_revision(&snapshot.sandbox)?;
        self.make_verified(&revision, flight).await?;
        let platform = self.catalog.platforms.get(&snapshot.platform).map(|p| p.value);
        Ok(Start {
            template,
            source: snapshot.source(),
            wanted: Wanted::Pinned(revision),
            parent: Some(snapshot.manifest),
            begins: own.is_none(),
            platform,
            idle_timeout,
        })
    }

    fn check_usable(&self, name: &ActorName, snapshot: &Snapshot) -> Result<(), Error> {
        if let Some(why) = &snapshot.quarantined {
            return Err(Error::new(
                Reason::SnapshotCorrupt,
                format!("generation {} failed verification and is quarantined: {why}", snapshot.generation),
            )
            .on(format!("actor/{name}"))
            .hint("start it from its image and give up what it had in memory: resume with boot"));
        }
        match &snapshot.location {
            Location::Node(node) if node != self.node.name() => Err(Error::new(
                Reason::NoSuitableWorker,
                format!("the actor is paused on node {node}, which is not this one ({})", self.node.name()),
            )
            .on(format!("actor/{name}"))),
            _ => Ok(()),
        }
    }

    /// The revision a snapshot was made under, if its binaries may still run (I4).
    pub(crate) fn trusted_revision(&self, key: &ConfigKey) -> Result<Arc<Revision>, Error> {
        let revision = self.catalog.revisions.get(key).ok_or_else(|| {
            Error::new(Reason::AssetNotAdmitted, format!("no SandboxConfig here has admitted the binaries of {key}"))
                .on(format!("sandboxconfig/{}", key.name))
        })?;
        self.check_trust(&revision.value.reference)?;
        Ok(revision.value)
    }

    /// Makes sure the node has the binaries of a revision. They nearly always are there: prefetched at start and
    /// when the configuration was written.
    pub(crate) async fn make_verified(&self, revision: &Arc<Revision>, flight: &Flight) -> Result<(), Error> {
        let label = revision.reference.config_label();
        if self.scheduler.is_verified(&label) {
            return Ok(());
        }
        let probe = self.node.probe(&revision.reference);
        match tokio::time::timeout_at(flight.deadline().into(), probe).await {
            Ok(done) => done.map(|_| self.scheduler.set_verified(label)),
            Err(_) => Err(Error::new(
                Reason::DeadlineExceeded,
                format!("the binaries of {label} did not arrive on the node in time"),
            )
            .on(format!("sandboxconfig/{}", revision.reference.config.name))),
        }
    }

    async fn wait_for_template(
        &self,
        actor: &ActorRecord,
        has_own: bool,
        from_image: bool,
        flight: &Flight,
    ) -> Result<Arc<TemplateRecord>, Error> {
        let object = format!("actortemplate/{}", actor.template);
        let mut changes = self.catalog.templates.watch();
        loop {
            changes.mark_unchanged();
            let template = self
                .catalog
                .template(&actor.template, &actor.template_uid)
                .ok_or_else(|| Error::new(Reason::NotFound, "the template of the actor is gone").on(object.clone()))?;
            let images_known =
                template.value.resource.spec.containers.iter().all(|c| template.value.images.contains_key(&c.image));
            if has_own || (from_image && images_known) || (!from_image && template.value.golden.is_some()) {
                return Ok(template.value);
            }
            if template.value.phase() == "Failed" {
                let why = crate::reconcile::templates::why_not_ready(&template.value);
                return Err(Error::new(Reason::TemplateNotReady, format!("the golden snapshot failed: {why}"))
                    .hint(format!("`ate describe {object}` says more"))
                    .on(object));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = flight.cancelled() => return Err(being_deleted()),
                () = tokio::time::sleep_until(flight.deadline().into()) => if std::time::Instant::now() >= flight.deadline() {
                    let why = crate::reconcile::templates::why_not_ready(&template.value);
                    return Err(Error::new(Reason::TemplateNotReady, format!("the golden snapshot is not there yet: {why}"))
                        .hint(format!("try again; `ate describe {object}` shows how far it is"))
                        .on(object));
                },
            }
        }
    }
}

pub(crate) fn being_deleted() -> Error {
    Error::new(Reason::WrongState, "the actor is being deleted")
}
