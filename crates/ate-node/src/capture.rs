//! A snapshot on its way out: freeze, write, hash, make durable here and elsewhere. The actor is frozen from the
//! first step on, and runs on after an error of any.

use std::{sync::Arc, time::Duration};

use ate_agent::{Capture, CaptureTarget, Captured, SnapshotLocation, SnapshotRef};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, Uid, WorkerId},
    resource::template::Scope,
};
use ate_failpoint::{again, step};
use ate_snapshot::{
    DriverFile, Prefix,
    manifest::{self, ActorId, Driver, Manifest, SandboxInfo, TemplateId},
};
use ateom::driver as pb;

use crate::{
    flight::Flights,
    node::Inner,
    workers::{Begun, Capturing, Client, Command, Seat},
};

/// Tries to remove what a failed capture has uploaded; an upload that still ends makes the first ones fail.
const DISCARD_TRIES: u32 = 10;
const DISCARD_PAUSE: Duration = Duration::from_millis(500);

type Key = (WorkerId, Uid, Activation, u64);

/// Captures under way: a repeated call waits for the first.
#[derive(Default)]
pub(crate) struct Captures(Flights<Key, Result<Captured, Error>>);

/// What a capture has made so far, to be removed if it fails.
#[derive(Default)]
struct Made {
    local: Option<Digest>,
    uploaded: Option<Prefix>,
}

impl Inner {
    pub(crate) async fn capture(self: &Arc<Self>, capture: Capture) -> Result<Captured, Error> {
        let object = format!("actor/{}", capture.actor.name);
        let key = (capture.worker.clone(), capture.actor.uid.clone(), capture.activation, capture.generation);
        let node = self.clone();
        // Goes on when the caller leaves: it must end in a thaw or in a finished snapshot.
        let done = self.captures.0.run(key, async move { node.capture_once(capture).await }).await;
        let panicked = || Error::new(Reason::Internal, "the capture failed unexpectedly; see the node's log");
        done.unwrap_or_else(|| Err(panicked())).map_err(|e| e.on(object))
    }

    async fn capture_once(self: Arc<Self>, capture: Capture) -> Result<Captured, Error> {
        let (uid, activation, generation) = (capture.actor.uid.clone(), capture.activation, capture.generation);
        self.context.fence.admit(&uid, activation)?;
        let actor = uid.clone();
        let begin = |reply| Command::BeginCapture { actor, activation, generation, reply };
        let begun = match step!("capture.begin", self.workers.ask(&capture.worker, begin), held)? {
            Capturing::Done(captured) => return Ok(*captured),
            Capturing::Begun(begun) => *begun,
        };
        let mut made = Made::default();
        let work = self.write(&capture, &begun, &mut made);
        let result = match tokio::time::timeout(capture.timeout, work).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("the snapshot took longer than {:?}", capture.timeout);
                Err(Error::new(Reason::DeadlineExceeded, message))
            }
        };
        let captured = result.as_ref().ok().map(|c| Box::new(c.clone()));
        let end = |reply| Command::EndCapture { actor: uid, activation, generation, captured, reply };
        let ended = step!("capture.end", self.workers.ask(&capture.worker, end), plain);
        match (result, ended) {
            (Ok(captured), Ok(())) => Ok(captured),
            (Ok(_), Err(called_off)) => {
                self.discard(made).await;
                Err(called_off)
            }
            (Err(e), thawed) => {
                self.discard(made).await;
                if let Err(thaw) = thawed {
                    tracing::warn!(actor = %capture.actor.name, "after a failed snapshot: {thaw}");
                }
                Err(e)
            }
        }
    }

    async fn write(
        &self,
        capture: &Capture,
        Begun { client, seat, driver }: &Begun,
        made: &mut Made,
    ) -> Result<Captured, Error> {
        let versions = self.versions(client, seat).await;
        let prefix = match &capture.target {
            CaptureTarget::Local => None,
            CaptureTarget::External { location } => {
                let (uid, generation) = (&capture.actor.uid, capture.generation);
                Some(self.repository.prefix(location, uid, generation, capture.activation)?)
            }
        };
        let base = capture.base.as_ref().filter(|b| seat.base.as_ref() == Some(&b.manifest));
        let base = base.filter(|_| capture.scope == Scope::Full);
        let mut staging = step!("capture.staging", self.local.staging())?;
        let request = pb::CheckpointRequest {
            activation: capture.activation.0,
            dir: staging.dir().to_string_lossy().into_owned(),
            scope: match capture.scope {
                Scope::Full => pb::Scope::Full,
                Scope::Data => pb::Scope::Data,
            }
            .into(),
            may_need_base: base.is_some(),
        };
        let written = step!("capture.checkpoint", client.checkpoint(again!(request), capture.timeout), repeatable)?;
        let pb::CheckpointResponse { files, needs_base } = written;
        let base = used(base, needs_base)?;
        let files: Vec<DriverFile> =
            files.into_iter().map(|f| DriverFile { name: f.name, media_type: f.media_type }).collect();
        let encoding = prefix.as_ref().and_then(Prefix::encoding);
        let files = step!("capture.seal", staging.seal(&files, encoding))?;
        let manifest = self.manifest_of(capture, seat, base, driver.clone(), versions, files);
        made.local = Some(manifest.digest());
        let snapshot = step!("capture.adopt", self.local.adopt(staging, &manifest))?;
        let location = match prefix {
            None => SnapshotLocation::Local { node: self.name.clone() },
            Some(prefix) => {
                made.uploaded = Some(prefix.clone());
                let uploaded = step!("capture.upload", self.repository.upload(&prefix, &snapshot), repeatable);
                uploaded.inspect_err(|e| {
                    if e.reason() == Reason::Fenced {
                        made.uploaded = None; // somebody else's, and committed
                    }
                })?;
                SnapshotLocation::External { prefix: prefix.to_string() }
            }
        };
        Ok(Captured {
            manifest: snapshot.digest.clone(),
            manifest_json: snapshot.manifest_bytes().to_vec(),
            size: snapshot.manifest.total_size(),
            location,
            needs_base,
        })
    }

    fn manifest_of(
        &self,
        capture: &Capture,
        seat: &Seat,
        base: Option<&SnapshotRef>,
        driver: Driver,
        versions: std::collections::BTreeMap<String, String>,
        files: Vec<manifest::File>,
    ) -> Manifest {
        Manifest {
            format_version: manifest::FORMAT_VERSION,
            media_type: manifest::MEDIA_TYPE.to_owned(),
            created_at: ate_api::time::now(),
            scope: capture.scope,
            generation: capture.generation,
            activation: capture.activation,
            actor: ActorId {
                atespace: seat.actor.name.atespace.clone(),
                name: seat.actor.name.name.clone(),
                uid: seat.actor.uid.clone(),
            },
            template: TemplateId {
                namespace: seat.template.namespace.clone(),
                name: seat.template.name.clone(),
                uid: seat.template_uid.clone(),
                spec_digest: seat.spec_digest.clone(),
            },
            parent: capture.parent.clone(),
            base: base.map(|base| manifest::Base {
                manifest: base.manifest.clone(),
                location: match &base.location {
                    SnapshotLocation::Local { .. } => None,
                    SnapshotLocation::External { prefix } => Some(prefix.clone()),
                },
            }),
            platform: (*self.context.platform).clone(),
            sandbox: SandboxInfo { sandbox: seat.sandbox.clone(), driver, versions },
            images: seat.images.clone(),
            files,
            unknown: Default::default(),
        }
    }

    /// What the binaries call themselves; for people, so a herder that cannot say does not stop a snapshot.
    async fn versions(&self, client: &Client, seat: &Seat) -> std::collections::BTreeMap<String, String> {
        if let Some(known) = self.probes.known(&seat.sandbox) {
            return known.versions;
        }
        let asked = async { client.probe(self.context.verified.ensure(&seat.sandbox).await?).await };
        match asked.await {
            Ok(answer) => {
                let probed = ate_agent::Probed {
                    capabilities: answer.capabilities,
                    versions: answer.versions.into_iter().collect(),
                };
                self.probes.learn(&seat.sandbox, probed.clone());
                probed.versions
            }
            Err(e) => {
                tracing::warn!("the versions of the binaries are unknown: {e}");
                Default::default()
            }
        }
    }

    /// The capture was not committed: what it made goes, and the actor goes on.
    pub(crate) async fn thaw(
        self: &Arc<Self>,
        worker: &WorkerId,
        actor: &Uid,
        activation: Activation,
        generation: u64,
    ) -> Result<(), Error> {
        let actor = actor.clone();
        let thaw = |reply| Command::Thaw { actor, activation, generation, reply };
        if let Some(void) = step!("thaw.worker", self.workers.ask(worker, thaw))? {
            let uploaded = match &void.location {
                SnapshotLocation::Local { .. } => None,
                SnapshotLocation::External { prefix } => Some(prefix.parse()?),
            };
            self.discard(Made { local: Some(void.manifest.clone()), uploaded }).await;
        }
        Ok(())
    }

    /// Removes what a capture made. Done before anybody is told: the next capture may have the same prefix.
    async fn discard(&self, made: Made) {
        if let Some(digest) = &made.local
            && let Err(e) = step!("discard.local", self.local.remove(digest), repeatable)
        {
            tracing::warn!("a void snapshot stays until collection: {e}");
        }
        let Some(prefix) = made.uploaded else { return };
        for _ in 0..DISCARD_TRIES {
            match step!("discard.stored", self.repository.delete(&prefix), repeatable) {
                Ok(()) => return,
                Err(e) => tracing::debug!("cannot remove a void snapshot yet: {e}"),
            }
            tokio::time::sleep(DISCARD_PAUSE).await;
        }
        tracing::warn!("void snapshot {prefix} stays");
    }
}

/// What a snapshot rests on, of what was offered.
fn used(offered: Option<&SnapshotRef>, needs_base: bool) -> Result<Option<&SnapshotRef>, Error> {
    if needs_base && offered.is_none() {
        let message = "the herder wrote a snapshot that rests on another, which is not kept for it";
        return Err(Error::new(Reason::SandboxFailed, message));
    }
    Ok(offered.filter(|_| needs_base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herder_that_wants_a_base_it_was_not_offered_is_refused() {
        let (manifest, location) = (Digest::of(b"base"), SnapshotLocation::Local { node: "here".into() });
        let base = SnapshotRef { manifest, scope: Scope::Full, location };
        assert_eq!(used(None, true).unwrap_err().reason, Reason::SandboxFailed);
        assert_eq!(used(None, false).unwrap(), None);
        assert_eq!(used(Some(&base), false).unwrap(), None);
        assert_eq!(used(Some(&base), true).unwrap(), Some(&base));
    }
}
