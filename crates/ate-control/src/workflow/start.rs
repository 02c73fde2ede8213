//! From what an actor starts, and under which binaries.

use std::{sync::Arc, time::Duration};

use ate_agent::Source;
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Digest, GOLDEN_ATESPACE},
    resource::template::Scope,
};
use ate_failpoint::step;
use ate_snapshot::manifest::Platform;

use crate::{
    core::Core,
    policy::idle,
    records::{ActorRecord, ConfigKey, Revision, Snapshot, TemplateRecord},
    scheduler::{Need, Wanted, can_restore},
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
    same_platform: bool,
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
            same_platform: self.same_platform,
            node: self.source.node().map(str::to_owned),
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
        let has_own = actor.snapshot.is_some() && !boot;
        let from_image = boot || name.atespace == GOLDEN_ATESPACE;
        let template = self.wait_for_template(actor, has_own, from_image, flight).await?;
        let start = self.start_of(name, actor, template, boot)?;
        if let Wanted::Pinned(revision) = &start.wanted {
            self.make_verified(revision, flight).await?;
        }
        Ok(start)
    }

    /// The decision alone, for a template that is there: its own snapshot, else the golden one, else its images.
    pub(crate) fn start_of(
        &self,
        name: &ActorName,
        actor: &ActorRecord,
        template: Arc<TemplateRecord>,
        boot: bool,
    ) -> Result<Start, Error> {
        let from_image = boot || name.atespace == GOLDEN_ATESPACE;
        let begins = actor.snapshot.is_none() && !from_image;
        if !begins || template.siblings.is_empty() {
            let golden = template.golden.clone().filter(|_| begins);
            let snapshot = actor.snapshot.clone().filter(|_| !boot).or(golden);
            return self.start_from(name, actor, template, snapshot);
        }
        // With the first that a worker is free for, or else with the one that most workers can restore.
        let mut best: Option<(usize, Start)> = None;
        for golden in template.beginnings() {
            let start = self.start_from(name, actor, template.clone(), Some(golden.clone()))?;
            let (free, all) = self.scheduler.reach(&start.need(name, actor));
            if free > 0 {
                return Ok(start);
            }
            if best.as_ref().is_none_or(|(most, _)| all > *most) {
                best = Some((all, start));
            }
        }
        best.map(|(_, start)| start)
            .ok_or_else(|| Error::new(Reason::Internal, "a template with siblings of no golden"))
    }

    fn start_from(
        &self,
        name: &ActorName,
        actor: &ActorRecord,
        template: Arc<TemplateRecord>,
        snapshot: Option<Snapshot>,
    ) -> Result<Start, Error> {
        let idle_timeout = if name.atespace == GOLDEN_ATESPACE { None } else { idle::timeout_of(&template) };
        let successor = self.successor(&template);
        let capabilities = || {
            let needs = ate_sandbox::capability::needs(&template.resource.spec);
            let capabilities = needs.into_iter().map(str::to_owned).collect();
            Wanted::OfPool { capabilities, successor: successor.clone() }
        };
        let Some(snapshot) = snapshot else {
            let wanted = match &actor.pinned {
                Some(key) => Wanted::Pinned(self.trusted_revision(key)?),
                None => capabilities(),
            };
            let source = self.files_to_keep(name, actor, &template)?;
            let platform = actor.platform.as_ref().and_then(|p| self.catalog.platforms.get(p)).map(|p| p.value);
            return Ok(Start {
                template,
                source,
                wanted,
                parent: None,
                begins: false,
                same_platform: platform.is_some(),
                platform,
                idle_timeout,
            });
        };
        self.check_usable(name, &snapshot)?;
        let wanted = match self.trusted_revision(&snapshot.sandbox) {
            Ok(revision) => {
                // Files go on under whatever has taken the place of what they were saved under.
                let moves = successor.as_ref().filter(|s| snapshot.scope == Scope::Data && s.replaces(&revision));
                Wanted::Pinned(moves.map_or(revision, |s| s.revision.clone()))
            }
            // Files need nothing of the binaries they were saved under.
            Err(_) if snapshot.scope == Scope::Data => capabilities(),
            Err(e) if e.reason == Reason::AssetRevoked => return Err(e.hint(remedy(name))),
            Err(e) => return Err(e),
        };
        let platform = self.catalog.platforms.get(&snapshot.platform).map(|p| p.value);
        Ok(Start {
            source: snapshot.source(),
            wanted,
            begins: actor.snapshot.is_none(),
            parent: Some(snapshot.manifest),
            same_platform: false,
            platform: platform.filter(|_| snapshot.scope == Scope::Full),
            template,
            idle_timeout,
        })
    }

    /// What a boot keeps of the last snapshot: the durable directories. Those of one that failed verification are given up
    /// with it.
    fn files_to_keep(&self, name: &ActorName, actor: &ActorRecord, template: &TemplateRecord) -> Result<Source, Error> {
        let kept = actor.snapshot.as_ref().filter(|s| s.quarantined.is_none() && template.has_durable_dirs());
        let Some(snapshot) = kept else { return Ok(Source::Boot) };
        self.check_usable(name, snapshot)?;
        Ok(Source::Files { snapshot: snapshot.reference() })
    }

    /// Whether a snapshot can be restored on workers of a platform.
    pub(crate) fn fits_platform(&self, snapshot: &Snapshot, platform: &Platform) -> bool {
        let made_on = self.catalog.platforms.get(&snapshot.platform);
        snapshot.scope == Scope::Data || made_on.is_none_or(|made_on| can_restore(&made_on.value, platform).is_ok())
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
        Ok(())
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

    /// Makes sure that nodes have the binaries of a revision. They nearly always are there: prefetched at start and
    /// when the configuration was written.
    pub(crate) async fn make_verified(&self, revision: &Arc<Revision>, flight: &Flight) -> Result<(), Error> {
        let label = revision.reference.config_label();
        if self.scheduler.is_verified(&label) {
            return Ok(());
        }
        let probe = async { step!("start.verify", self.node.probe(&revision.reference), repeatable) };
        match tokio::time::timeout_at(flight.deadline().into(), probe).await {
            Ok(done) => done.map(|_| self.scheduler.set_verified(label)),
            Err(_) => {
                Err(Error::new(Reason::DeadlineExceeded, format!("the binaries of {label} did not arrive in time"))
                    .on(format!("sandboxconfig/{}", revision.reference.config.name)))
            }
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

/// For somebody whose binaries were revoked.
fn remedy(name: &ActorName) -> String {
    format!(
        "move its template and pool to another configuration, or start it anew with its durable directories and without \
         its memory: ate resume actor {} -a {} --boot",
        name.name, name.atespace
    )
}

pub(crate) fn being_deleted() -> Error {
    Error::new(Reason::WrongState, "the actor is being deleted")
}
