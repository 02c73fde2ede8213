//! Captures of the simulated machine, and what becomes of them.

use std::sync::Arc;

use ate_agent::{Capture, CaptureTarget, Captured, LiveSet, SnapshotLocation, SnapshotRef};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, Uid, WorkerId},
};

use super::{
    LOOK,
    storage::Stored,
    worker::{Found, Seat, fenced},
};
use crate::{os, world::World};

/// What is younger may belong to something that is not recorded yet. Ten times as long as a capture may take.
const MIN_AGE_MS: u64 = 60_000;

impl World {
    pub(super) async fn capture(self: Arc<Self>, c: Capture) -> Result<Captured, Error> {
        let (uid, activation, generation) = (&c.actor.uid, c.activation, c.generation);
        self.machine.lock().admit(uid, activation)?;
        let mut joined = false;
        loop {
            let found = self.machine.lock().worker(&c.worker)?.begin_capture(uid, activation, generation)?;
            match found {
                Found::Done(captured) => return Ok(captured),
                Found::UnderWay => {
                    joined = true;
                    tokio::time::sleep(LOOK).await;
                }
                // The one it waited for has failed.
                Found::New if joined => {
                    self.machine.lock().worker(&c.worker)?.end_capture(uid, activation, generation, None);
                    return Err(Error::new(Reason::Conflict, "the capture was called off meanwhile"));
                }
                Found::New => break,
            }
        }
        let late = |_| Err(Error::new(Reason::DeadlineExceeded, "the snapshot took too long"));
        let written = tokio::time::timeout(c.timeout, self.write(&c)).await.unwrap_or_else(late);
        let made = written.as_ref().ok().cloned();
        let ended =
            self.machine.lock().worker(&c.worker).map(|w| w.end_capture(uid, activation, generation, made.clone()));
        match (written, ended) {
            (Ok(captured), Ok(true)) => {
                self.with_report(|r| r.captures += 1);
                Ok(captured)
            }
            (Ok(captured), _) => {
                self.discard(&captured);
                Err(Error::new(Reason::Conflict, "the capture was called off meanwhile"))
            }
            (Err(e), _) => Err(e),
        }
    }

    /// Half-written files are nothing; the snapshot is there as a whole or not at all.
    async fn write(self: &Arc<Self>, c: &Capture) -> Result<Captured, Error> {
        tokio::time::sleep(self.weather.node_delay(&self.chance)).await;
        let mut s = self.machine.lock();
        s.next_manifest += 1;
        let nonce = s.next_manifest;
        let life = match &s.worker(&c.worker)?.seat {
            Seat::Capturing(life, g) if *g == c.generation => life.clone(),
            _ => return Err(Error::new(Reason::Conflict, "the capture was called off meanwhile")),
        };
        let offered = c.base.as_ref().map(|b| b.manifest.clone());
        let base = offered.filter(|b| life.base.as_ref() == Some(b) && self.chance.happens(0.8));
        let manifest_json = serde_json::to_vec(&serde_json::json!({
            "generation": c.generation,
            "activation": c.activation,
            "actor": {"uid": c.actor.uid},
            "base": base.as_ref().map(|manifest| serde_json::json!({ "manifest": manifest })),
            "nonce": nonce,
        }))
        .expect("plain JSON");
        let stored = Stored {
            manifest: Digest::of(&manifest_json),
            uid: c.actor.uid.clone(),
            activation: c.activation,
            generation: c.generation,
            content: life.content,
            base: base.clone(),
            written_ms: os::elapsed_ms(),
        };
        let location = match &c.target {
            CaptureTarget::Local => SnapshotLocation::Local { node: "node-1".into() },
            CaptureTarget::External { location } => {
                let prefix = format!("{location}/{}/{:08}-{}", c.actor.uid, c.generation, c.activation);
                if s.storage.external.contains_key(&prefix) {
                    return Err(fenced("there is a snapshot of this number"));
                }
                s.storage.external.insert(prefix.clone(), stored.clone());
                SnapshotLocation::External { prefix }
            }
        };
        self.note(|| format!("wrote {} of {} with {:?}", stored.manifest.short(), c.actor.name, life.content));
        let manifest = stored.manifest.clone();
        s.storage.local.insert(manifest.clone(), stored);
        Ok(Captured { manifest, manifest_json, size: 1000, location, needs_base: base.is_some() })
    }

    pub(super) async fn thaw(
        self: Arc<Self>,
        id: WorkerId,
        actor: Uid,
        activation: Activation,
        generation: u64,
    ) -> Result<(), Error> {
        let void = self.machine.lock().worker(&id)?.thaw(&actor, activation, generation)?;
        if let Some(captured) = void {
            self.discard(&captured);
        }
        Ok(())
    }

    /// What a capture has made and nobody will commit.
    fn discard(&self, captured: &Captured) {
        self.note(|| format!("discards {}", captured.manifest.short()));
        let (manifest, location) = (captured.manifest.clone(), captured.location.clone());
        let scope = ate_api::resource::template::Scope::Full;
        let gone = self.machine.lock().storage.delete(&SnapshotRef { manifest, scope, location });
        gone.iter().for_each(|m| self.judge.removed(self, m, "discarded by the node"));
    }

    pub(super) async fn delete(self: Arc<Self>, snapshot: SnapshotRef) -> Result<(), Error> {
        let gone = self.machine.lock().storage.delete(&snapshot);
        gone.iter().for_each(|m| self.judge.removed(&self, m, "deleted on request"));
        Ok(())
    }

    pub(super) async fn collect(self: Arc<Self>, live: LiveSet) -> Result<(), Error> {
        let gone: Vec<Digest> = {
            let mut s = self.machine.lock();
            let now = os::elapsed_ms();
            s.fence.retain(|uid, seen| live.actors.contains(uid) || seen.at_ms + MIN_AGE_MS > now);
            let used: Vec<_> = s.workers.values().filter_map(|w| w.life()?.base.clone()).collect();
            let old = s.storage.local.values().filter(|x| x.written_ms + MIN_AGE_MS < now);
            let free = old.map(|x| &x.manifest).filter(|m| !live.manifests.contains(m) && !used.contains(m));
            let free: Vec<Digest> = free.cloned().collect();
            free.iter().for_each(|m| drop(s.storage.local.remove(m)));
            // A copy of what is in object storage may go.
            free.into_iter().filter(|m| s.storage.find(m).is_none()).collect()
        };
        gone.iter().for_each(|m| self.judge.removed(&self, m, "collected on the node"));
        Ok(())
    }
}
