//! Activation and preparation: from digests to verified paths, then to the worker.
//!
//! On the clock between a request and its first byte: no process, no directory scan, no fsync. What a
//! preparation did ahead is only looked up.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_agent::{Activate, Activated, Prepare, PrepareKey, Source, Template};
use ate_api::{Error, Reason, id::Digest, resource::template::Scope};
use ate_failpoint::step;
use ate_sandbox::ImageFormat;
use ate_snapshot::LocalSnapshot;
use ateom::driver as pb;

use crate::{
    node::Inner,
    pins::Use,
    restore::Restored,
    secrets::{self, Values},
    workers::{Command, Seat, Start},
    workload::{Part, assemble, image_digest, manifest_images},
};

/// Workloads that are kept assembled; a template has one, each a few kilobytes.
const KEPT: usize = 4096;

/// Assembled workloads by template, form of images, and images.
#[derive(Default)]
pub(crate) struct Plans(Mutex<HashMap<Digest, Arc<pb::Workload>>>);

/// Where the time goes, in microseconds.
struct Steps {
    last: Instant,
    us: BTreeMap<String, u64>,
}

impl Steps {
    fn mark(&mut self, step: &str) {
        let now = Instant::now();
        let us = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.us.insert(step.to_owned(), us);
        self.last = now;
    }
}

impl Inner {
    pub(crate) async fn activate(&self, activate: Activate) -> Result<Activated, Error> {
        let (object, limit) = (format!("actor/{}", activate.actor.name), activate.timeout);
        match tokio::time::timeout(limit, self.start(activate)).await {
            Ok(result) => result.map_err(|e| e.on(object)),
            Err(_) => {
                Err(Error::new(Reason::DeadlineExceeded, format!("activation took longer than {limit:?}")).on(object))
            }
        }
    }

    async fn start(&self, activate: Activate) -> Result<Activated, Error> {
        let begun = Instant::now();
        let mut steps = Steps { last: begun, us: BTreeMap::new() };
        let Activate { worker, actor, activation, template, sandbox, source, timeout } = activate;
        self.context.fence.admit_start(&actor.uid, activation)?;
        // Whoever comes after it under its id while all is made ready is somebody else's. One that is gone may be so because of
        // its binaries, which says more.
        let held = self.workers.hold(&worker);
        let (snapshot, base, files) = match &source {
            Source::Boot => (None, None, None),
            Source::Snapshot { snapshot, base } => (Some(snapshot), base.as_ref(), None),
            Source::Files { snapshot } => (None, None, Some(snapshot)),
        };
        self.context.pins.pin(&worker, Use::Active, &template, &sandbox, snapshot.into_iter().chain(base).chain(files));
        let verified = step!("activate.assets", self.context.verified.ensure(&sandbox), repeatable)?;
        steps.mark("node.assets");
        let boots = snapshot.is_none_or(|s| s.scope != Scope::Full);
        let workload = step!("activate.images", self.workload_to_start(&template, &sandbox.class, boots), repeatable)?;
        steps.mark("node.images");

        let uid = actor.uid.to_string();
        let log_dir = self.log_dir(&actor.uid);
        make_log_dir(&log_dir)?;
        let mut about = pb::Activation {
            number: activation.0,
            identity: Some(pb::Identity {
                atespace: actor.name.atespace.clone(),
                name: actor.name.name.clone(),
                uid: actor.uid.to_string(),
                template_namespace: template.name.namespace.clone(),
                template_name: template.name.name.clone(),
            }),
            log_dir: log_dir.to_string_lossy().into_owned(),
            timeout_ms: 0,
            data_archive: String::new(),
        };
        let seat = Box::new(Seat {
            images: manifest_images(&template)?,
            template: template.name,
            template_uid: template.uid,
            spec_digest: template.spec_digest,
            actor,
            activation,
            sandbox,
            base: base.or(snapshot.filter(|s| s.scope == Scope::Full)).map(|s| s.manifest.clone()),
        });
        let restored = match snapshot {
            None => None,
            Some(snapshot) => {
                let restored = step!("activate.snapshot", self.restored(snapshot, base, &seat), repeatable)?;
                Some((snapshot.scope, restored))
            }
        };
        if let Some(files) = files {
            about.data_archive = path(&step!("activate.files", self.kept_files(files, &seat), repeatable)?);
        }
        steps.mark("node.snapshot");

        // The herder is given less than the caller waits, so that its own error arrives in time.
        let left = timeout.saturating_sub(begun.elapsed()).mul_f64(0.95).max(Duration::from_millis(1));
        about.timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let (sandbox, workload) = (Some(verified), Some((*workload).clone()));
        let start = match restored {
            Some((Scope::Full, Restored { snapshot, base })) => {
                let (snapshot, base) = (Some(for_herder(&snapshot)), base.as_ref().map(for_herder));
                let activation = Some(about);
                Start::Restore(Box::new(pb::RestoreRequest { activation, sandbox, workload, snapshot, base }))
            }
            Some((Scope::Data, Restored { snapshot, .. })) => {
                about.data_archive = data_archive(&snapshot)?;
                Start::Run(Box::new(pb::RunRequest { activation: Some(about), sandbox, workload }))
            }
            None => Start::Run(Box::new(pb::RunRequest { activation: Some(about), sandbox, workload })),
        };
        // It may have been released while all this was being made ready.
        self.context.fence.admit_start(&seat.actor.uid, seat.activation)?;
        let command = |reply| Command::Start { seat, start, limit: left, reply };
        let held = held?;
        let started = step!("activate.worker", held.ask(command))?;
        steps.mark("node.herder");
        let mut steps_us = steps.us;
        steps_us.extend(started.steps_us.into_iter().map(|(step, us)| (format!("herder.{step}"), us)));
        tracing::debug!(actor = uid, activation = activation.0, node.steps_us = ?steps_us, "activated");
        Ok(Activated { address: started.address.into(), prepared: started.prepared, steps_us })
    }

    pub(crate) async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        let Prepare { worker, template, sandbox, snapshot, standby } = prepare;
        self.context.pins.pin(&worker, Use::Prepared, &template, &sandbox, &snapshot);
        let key = PrepareKey {
            template_uid: template.uid.clone(),
            sandbox: sandbox.key(),
            snapshot: snapshot.as_ref().map(|s| s.manifest.clone()),
            standby,
        };
        let verified = self.context.verified.ensure(&sandbox).await?;
        let workload = self.workload(&template, &sandbox.class).await?;
        let snapshot = match &snapshot {
            None => None,
            Some(snapshot) => Some(for_herder(&self.beginning(snapshot, &template, &sandbox).await?)),
        };
        let request =
            pb::PrepareRequest { sandbox: Some(verified), workload: Some((*workload).clone()), snapshot, standby };
        let command = |reply| Command::Prepare { key, request: Box::new(request), reply };
        step!("prepare.worker", self.workers.ask(&worker, command))
    }

    /// The template's workload as the class takes it, from memory when nothing changed. Every image is made sure of;
    /// the first call for a class may take long, and comes when the template's golden snapshot is made.
    async fn workload(&self, template: &Template, class: &str) -> Result<Arc<pb::Workload>, Error> {
        let (parts, key) = self.parts(template, class).await?;
        if let Some(known) = self.plans.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let values = if self.secrets.is_some() { Values::Unread } else { Values::Nowhere };
        let workload = Arc::new(assemble(template, &parts, &values).await?);
        let mut plans = self.plans.0.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert(key, workload.clone());
        Ok(workload)
    }

    /// For who boots with the secrets as they are now, which nothing here keeps. Who is restored has its environment in its
    /// memory.
    async fn workload_to_start(
        &self,
        template: &Template,
        class: &str,
        boots: bool,
    ) -> Result<Arc<pb::Workload>, Error> {
        let needed = boots && secrets::are_named_by(template);
        let Some(secrets) = self.secrets.as_deref().filter(|_| needed) else {
            return self.workload(template, class).await;
        };
        let (parts, _) = self.parts(template, class).await?;
        let values = secrets::read(secrets, template).await?;
        Ok(Arc::new(assemble(template, &parts, &values).await?))
    }

    /// The template's containers with their images in the form the class takes, and a digest of which these are.
    async fn parts<'a>(&self, template: &'a Template, class: &str) -> Result<(Vec<Part<'a>>, Digest), Error> {
        let format = self.classes.get(class)?.descriptor.image_format;
        let mut parts = Vec::with_capacity(template.spec.containers.len());
        let mut text = format!("{}\0{}\0{format:?}", template.uid, template.spec_digest);
        for container in &template.spec.containers {
            let image = self.images.ensure(&container.image, image_digest(template, container)?).await?;
            let file = match format {
                ImageFormat::Layers => None,
                ImageFormat::Erofs => Some(self.images.as_file(&image).await?),
            };
            for digest in [Some(&image.digest), file.as_ref().map(|f| &f.sha256)].into_iter().flatten() {
                text.push('\0');
                text.push_str(digest.as_str());
            }
            parts.push(Part { container, image, file });
        }
        Ok((parts, Digest::of(text.as_bytes())))
    }
}

/// A files-only snapshot is one archive, or nothing if the actor has no durable directories.
fn data_archive(snapshot: &LocalSnapshot) -> Result<String, Error> {
    match snapshot.manifest.files.as_slice() {
        [] => Ok(String::new()),
        [file] => Ok(path(&snapshot.files_dir().join(&file.name))),
        files => {
            let message = format!("a snapshot of durable directories has one file, not {}", files.len());
            Err(Error::new(Reason::ManifestInvalid, message))
        }
    }
}

fn for_herder(snapshot: &LocalSnapshot) -> pb::Snapshot {
    pb::Snapshot { digest: snapshot.digest.to_string(), dir: path(snapshot.files_dir()) }
}

fn make_log_dir(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            let reason = if crate::disk::is_full(&e) { Reason::DiskFull } else { Reason::Unavailable };
            Err(Error::new(reason, format!("cannot create {}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
