//! The golden snapshot: images to digests, boot a golden actor, capture all of it that the class can keep,
//! record it with the template.
//! Every step finds out whether it was done before.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Error, Reason,
    id::{ActorName, ObjectName, Uid},
    resource::{Condition, meta::set_condition},
};
use ate_failpoint::step;
use ate_store::Transaction;

use crate::{
    core::Core,
    records::{Snapshot, SnapshotRecord, TemplateRecord, keys},
    resources::{not_found, templates::default_port},
    scheduler::Prepared,
    workflow::turns::{Kind, Outcome},
};

impl Core {
    pub(crate) async fn make_golden(self: &Arc<Self>, name: &ObjectName, uid: &Uid) -> Result<(), Error> {
        let template =
            self.catalog.template(name, uid).ok_or_else(|| not_found("actortemplate", &name.to_string()))?.value;
        if let Some(golden) = template.golden.clone() {
            // Recorded before; that it was may have been lost, and the template been said to have failed.
            return self.record_golden(name, uid, golden).await;
        }
        self.check_capabilities(&template.resource, &template.class)?;
        let template = self.resolve_images(name, template).await?;
        let actor = step!("golden.actor", self.ensure_golden_actor(&template, None, None), repeatable)?;
        let snapshot = match self.captured_golden(&actor).await? {
            Some(snapshot) => snapshot,
            None => {
                let message = "the golden actor is started from its images";
                self.set_template_phase(name, uid, "ResumeGoldenActor", message).await?;
                self.boot_golden(&actor).await?;
                let message = "the golden actor is ready and is being captured";
                self.set_template_phase(name, uid, "WaitGoldenActor", message).await?;
                self.capture_golden(&actor).await.map_err(|e| e.on(format!("actortemplate/{name}")))?
            }
        };
        self.record_golden(name, uid, snapshot).await
    }

    /// The snapshot of a golden actor: the one it has, or the one it gets now.
    pub(crate) async fn golden_snapshot(self: &Arc<Self>, actor: &ActorName) -> Result<Snapshot, Error> {
        if let Some(snapshot) = self.captured_golden(actor).await? {
            return Ok(snapshot);
        }
        self.boot_golden(actor).await?;
        self.capture_golden(actor).await
    }

    /// Captured before, perhaps by a server that died before it could say so.
    async fn captured_golden(&self, actor: &ActorName) -> Result<Option<Snapshot>, Error> {
        Ok(self.load(actor).await?.value.snapshot.filter(|s| s.quarantined.is_none()))
    }

    async fn boot_golden(self: &Arc<Self>, actor: &ActorName) -> Result<(), Error> {
        // It may still run because it could not be captured the last time.
        self.end_golden(actor).await?;
        let deadline = Instant::now() + self.options.golden_timeout;
        step!("golden.boot", self.resume_record(actor, true, deadline)).map(drop)
    }

    async fn capture_golden(self: &Arc<Self>, actor: &ActorName) -> Result<Snapshot, Error> {
        let deadline = Instant::now() + self.options.golden_timeout + self.options.capture_timeout;
        let captured = step!("golden.capture", self.suspend(actor, Kind::Suspend, deadline, Duration::ZERO))?;
        captured
            .value
            .snapshot
            .clone()
            .ok_or_else(|| Error::new(Reason::ActorExited, "the golden actor ended before it could be captured"))
    }

    /// Returns when the actor was restored from its snapshot and was ready.
    pub(crate) async fn restore_golden(self: &Arc<Self>, actor: &ActorName) -> Result<(), Error> {
        self.end_golden(actor).await?;
        let restored = self.resume_record(actor, false, Instant::now() + self.options.golden_timeout).await;
        self.end_golden(actor).await?;
        restored.map(drop)
    }

    /// Takes a golden actor off its worker. Its snapshot is all of it that anybody needs.
    async fn end_golden(self: &Arc<Self>, name: &ActorName) -> Outcome {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |_| async move {
            let found = core.settled(&actor).await?;
            if found.value.phase.is_at_rest() {
                return Ok(found);
            }
            core.clean_leftover(&actor).await;
            let mut record = found.value;
            record.fall_back_to_rest();
            let tx = Transaction::new().delete(keys::busy(&actor));
            let written = step!("golden.end", core.write(&actor, found.version, record, tx));
            written.inspect_err(|_| core.recover_soon(&actor))
        };
        self.turns.take(name, Kind::Stop, Instant::now() + self.options.release_timeout * 2, work).await
    }

    /// A tag is resolved once; what it meant then is recorded and used from now on.
    pub(crate) async fn resolve_images(
        &self,
        name: &ObjectName,
        template: Arc<TemplateRecord>,
    ) -> Result<Arc<TemplateRecord>, Error> {
        let mut images = BTreeMap::new();
        let mut port = template.default_port;
        for (i, container) in template.resource.spec.containers.iter().enumerate() {
            // Also for those recorded: the node may have lost its copy.
            let resolve = async { step!("golden.resolve", self.node.resolve_image(&container.image), repeatable) };
            let resolved = tokio::time::timeout(self.options.golden_timeout, resolve).await.unwrap_or_else(|_| {
                Err(Error::new(Reason::DeadlineExceeded, format!("image {} did not arrive in time", container.image)))
            })?;
            if i == 0 {
                port = default_port(&template.resource, &resolved.exposed_ports);
            }
            let recorded = template.images.get(&container.image);
            images.insert(container.image.clone(), recorded.cloned().unwrap_or(resolved.digest));
        }
        let found = |t: &mut TemplateRecord| {
            t.images.clone_from(&images);
            t.default_port = port;
            let status = t.resource.status.get_or_insert_default();
            status.images = images.iter().map(|(k, d)| (k.clone(), format!("sha256:{d}"))).collect();
        };
        step!("golden.images", self.update_template(name, template.uid(), found), repeatable)
    }

    async fn set_template_phase(&self, name: &ObjectName, uid: &Uid, phase: &str, message: &str) -> Result<(), Error> {
        let show = |t: &mut TemplateRecord| {
            let generation = t.resource.metadata.generation;
            let status = t.resource.status.get_or_insert_default();
            status.phase = phase.to_owned();
            status.golden_actor_id = Some(uid.to_string());
            if phase == "WaitGoldenActor" {
                status.take_golden_snapshot_at = Some(ate_api::time::now());
            }
            set_condition(&mut status.conditions, Condition::new("Ready", false, phase, message, generation));
        };
        step!("golden.phase", self.update_template(name, uid, show), repeatable).map(drop)
    }

    /// New actors begin with it from now on; the one they began with before stays beside it.
    pub(crate) async fn record_golden(&self, name: &ObjectName, uid: &Uid, snapshot: Snapshot) -> Result<(), Error> {
        let of: Option<SnapshotRecord> = self.db.get_packed(&keys::snapshot(&snapshot.manifest)).await?;
        let actor = of.map_or_else(|| uid.to_string(), |of| of.actor.name);
        let prepared = Prepared { template: uid.clone(), sandbox: snapshot.sandbox.clone() };
        let set = |t: &mut TemplateRecord| {
            // Its golden actors go now. If it is not deleted after all it is built anew.
            if t.deleting {
                return;
            }
            t.set_golden(snapshot.clone());
            let status = t.resource.status.get_or_insert_default();
            status.phase = "Ready".to_owned();
            status.golden_actor_id = Some(actor.clone());
            status.golden_snapshot = Some(match &snapshot.location {
                crate::records::Location::Url(prefix) => prefix.clone(),
                crate::records::Location::Node(node) => format!("node:{node}"),
            });
            status.golden_manifest = Some(snapshot.manifest.to_string());
            status.sandbox_class.clone_from(&t.class);
            status.sandbox_config = Some(snapshot.sandbox.to_string());
            say_ready(t);
        };
        step!("golden.record", self.update_template(name, uid, set), repeatable)?;
        self.note_use(prepared, name);
        self.note_demand(uid);
        self.scheduler.idle.notify_one();
        Ok(())
    }
}

/// What there is to begin with, in words.
pub(crate) fn say_ready(template: &mut TemplateRecord) {
    let Some(golden) = &template.golden else { return };
    let mut message = format!("the golden snapshot was made under {}", golden.sandbox);
    match template.siblings.len() {
        0 => {}
        1 => message += ", and one for workers that cannot restore it",
        n => message += &format!(", and {n} for workers that cannot restore it"),
    }
    let generation = template.resource.metadata.generation;
    let conditions = &mut template.resource.status.get_or_insert_default().conditions;
    set_condition(conditions, Condition::new("Ready", true, "GoldenSnapshotReady", message, generation));
}
