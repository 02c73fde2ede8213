//! The golden snapshot: images to digests, boot a golden actor, capture all of it that the class can keep,
//! record it with the template.
//! Every step finds out whether it was done before.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Error,
    id::{ObjectName, Uid},
    resource::{Condition, meta::set_condition},
};

use crate::{
    core::Core,
    records::{Snapshot, TemplateRecord},
    resources::{not_found, templates::default_port},
    scheduler::Prepared,
    workflow::turns::Kind,
};

impl Core {
    pub(crate) async fn make_golden(self: &Arc<Self>, name: &ObjectName, uid: &Uid) -> Result<(), Error> {
        let template =
            self.catalog.template(name, uid).ok_or_else(|| not_found("actortemplate", &name.to_string()))?.value;
        if template.golden.is_some() {
            return Ok(());
        }
        self.check_capabilities(&template.resource, &template.class)?;
        let template = self.resolve_images(name, template).await?;
        let actor = self.ensure_golden_actor(&template).await?;
        let deadline = Instant::now() + self.options.golden_timeout;
        let stored = self.load(&actor).await?;
        if let Some(snapshot) = stored.value.snapshot.clone().filter(|s| s.quarantined.is_none()) {
            // Captured before, perhaps by a server that died before it could say so.
            return self.record_golden(name, uid, snapshot).await;
        }
        self.set_template_phase(name, uid, "ResumeGoldenActor", "the golden actor is started from its images").await?;
        self.resume_record(&actor, true, deadline).await?;
        self.set_template_phase(name, uid, "WaitGoldenActor", "the golden actor is ready and is being captured")
            .await?;
        let captured =
            self.suspend(&actor, Kind::Suspend, deadline + self.options.capture_timeout, Duration::ZERO).await?;
        match captured.value.snapshot.clone() {
            Some(snapshot) => self.record_golden(name, uid, snapshot).await,
            None => Err(Error::new(ate_api::Reason::ActorExited, "the golden actor ended before it could be captured")
                .on(format!("actortemplate/{name}"))),
        }
    }

    /// A tag is resolved once; what it meant then is recorded and used from now on.
    async fn resolve_images(
        &self,
        name: &ObjectName,
        template: Arc<TemplateRecord>,
    ) -> Result<Arc<TemplateRecord>, Error> {
        let mut images = BTreeMap::new();
        let mut port = template.default_port;
        for (i, container) in template.resource.spec.containers.iter().enumerate() {
            // Also for those recorded: the node may have lost its copy.
            let resolve = self.node.resolve_image(&container.image);
            let resolved = tokio::time::timeout(self.options.golden_timeout, resolve).await.unwrap_or_else(|_| {
                Err(Error::new(
                    ate_api::Reason::DeadlineExceeded,
                    format!("image {} did not arrive in time", container.image),
                ))
            })?;
            if i == 0 {
                port = default_port(&template.resource, &resolved.exposed_ports);
            }
            let recorded = template.images.get(&container.image);
            images.insert(container.image.clone(), recorded.cloned().unwrap_or(resolved.digest));
        }
        self.update_template(name, template.uid(), |t| {
            t.images.clone_from(&images);
            t.default_port = port;
            let status = t.resource.status.get_or_insert_default();
            status.images = images.iter().map(|(k, d)| (k.clone(), format!("sha256:{d}"))).collect();
        })
        .await
    }

    async fn set_template_phase(&self, name: &ObjectName, uid: &Uid, phase: &str, message: &str) -> Result<(), Error> {
        self.update_template(name, uid, |t| {
            let generation = t.resource.metadata.generation;
            let status = t.resource.status.get_or_insert_default();
            status.phase = phase.to_owned();
            status.golden_actor_id = Some(uid.to_string());
            if phase == "WaitGoldenActor" {
                status.take_golden_snapshot_at = Some(ate_api::time::now());
            }
            set_condition(&mut status.conditions, Condition::new("Ready", false, phase, message, generation));
        })
        .await
        .map(drop)
    }

    async fn record_golden(&self, name: &ObjectName, uid: &Uid, snapshot: Snapshot) -> Result<(), Error> {
        let prepared = Prepared { template: uid.clone(), sandbox: snapshot.sandbox.clone() };
        self.update_template(name, uid, |t| {
            let generation = t.resource.metadata.generation;
            t.golden = Some(snapshot.clone());
            let status = t.resource.status.get_or_insert_default();
            status.phase = "Ready".to_owned();
            status.golden_actor_id = Some(uid.to_string());
            status.golden_snapshot = Some(match &snapshot.location {
                crate::records::Location::Url(prefix) => prefix.clone(),
                crate::records::Location::Node(node) => format!("node:{node}"),
            });
            status.golden_manifest = Some(snapshot.manifest.to_string());
            status.sandbox_class.clone_from(&t.class);
            status.sandbox_config = Some(snapshot.sandbox.to_string());
            let message = format!("the golden snapshot was made under {}", snapshot.sandbox);
            set_condition(
                &mut status.conditions,
                Condition::new("Ready", true, "GoldenSnapshotReady", message, generation),
            );
        })
        .await?;
        self.note_use(prepared, name);
        self.note_demand(uid);
        self.scheduler.idle.notify_one();
        Ok(())
    }
}
