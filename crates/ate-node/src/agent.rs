//! The node agent's contract: each call to the part that does it.

use std::{collections::HashSet, path::Path, time::Duration};

use async_trait::async_trait;
use ate_agent::{
    Activate, Activated, AssetReport, AssetUpload, Capture, Captured, LiveSet, LogTail, NodeAgent, NodeEvents,
    PoolSpec, Prepare, Probed, ResolvedImage, SnapshotLocation, SnapshotRef,
};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_failpoint::{age, step};
use ate_sandbox::{Revocations, SandboxRef, Verification};
use ate_snapshot::Prefix;
use tokio::sync::mpsc;

use crate::{
    node::{Inner, Node},
    workers::Command,
};

/// What is younger may belong to something the control plane has not recorded yet.
const MIN_AGE: Duration = Duration::from_secs(10 * 60);
/// Herders that are up answer within this, or are taken for lost.
const FIND: Duration = Duration::from_secs(10);
/// Events on their way to a listener.
const EVENTS: usize = 64;

#[async_trait]
impl NodeAgent for Node {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn keeps_workers(&self) -> bool {
        self.0.context.pods.is_some()
    }

    fn events(&self) -> NodeEvents {
        if self.0.context.pods.is_none() {
            return self.0.context.hub.listen();
        }
        // Whoever is on a worker that is not found yet would be taken for lost.
        let (to, events) = mpsc::channel(EVENTS);
        let node = self.0.clone();
        tokio::spawn(async move {
            node.workers.found(FIND).await;
            let mut all = node.context.hub.listen();
            while let Some(event) = all.recv().await {
                if to.send(event).await.is_err() {
                    return;
                }
            }
        });
        events
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        self.0.workers.set_pool(pool)
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        self.0.workers.remove_pool(pool).await;
        Ok(())
    }

    async fn check_signatures(
        &self,
        sandbox: &SandboxRef,
        verification: &Verification,
        fetch: bool,
    ) -> Result<(), Error> {
        for asset in &sandbox.assets {
            self.0.assets.check_signature(asset, verification, fetch).await?;
        }
        Ok(())
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        self.0.probes.probe(&self.0.context.herders, &self.0.context.verified, sandbox).await
    }

    async fn import_asset(&self, upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        let imported = self.0.assets.import(upload).await?;
        Ok((imported.digest, imported.size, imported.url, imported.existed))
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        Ok(self.0.assets.report())
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        self.0.delete_asset(asset).await
    }

    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        self.0.context.verified.revoked().set(revocations).await?;
        self.0.workers.purge().await
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        let image = self.0.images.resolve(reference).await?;
        Ok(ResolvedImage { digest: image.digest.clone(), exposed_ports: image.config.exposed_ports.clone() })
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        self.0.prepare(prepare).await
    }

    async fn activate(&self, activate: Activate) -> Result<Activated, Error> {
        self.0.activate(activate).await
    }

    async fn capture(&self, capture: Capture) -> Result<Captured, Error> {
        self.0.capture(capture).await
    }

    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, generation: u64) -> Result<(), Error> {
        self.0.thaw(worker, actor, activation, generation).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        self.0.context.fence.release(actor, activation);
        let actor = actor.clone();
        self.0.workers.ask(worker, |reply| Command::Release { actor, activation, reply }).await
    }

    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error> {
        match (self.0.local.get(&snapshot.manifest).await, &snapshot.location) {
            (Ok(found), _) => Ok(found.manifest_bytes().to_vec()),
            (Err(e), SnapshotLocation::Local { .. }) => Err(e.into()),
            (Err(_), SnapshotLocation::External { prefix }) => {
                Ok(self.0.repository.read_manifest(&prefix.parse()?, &snapshot.manifest).await?.1)
            }
        }
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        if let SnapshotLocation::External { prefix } = &snapshot.location {
            step!("delete-snapshot.stored", self.0.repository.delete(&prefix.parse()?), repeatable)?;
        }
        step!("delete-snapshot.local", self.0.local.remove(&snapshot.manifest), repeatable)?;
        Ok(())
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        self.0.collect(live).await
    }

    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        self.0.logs(actor, container, tail, follow).await
    }
}

impl Inner {
    /// Workers may use assets that no configuration names any more: of actors that still run, and of what they prepared.
    fn used_assets(&self) -> HashSet<Digest> {
        let mut used = self.context.pins.all(|worker| self.workers.exists(worker));
        used.extend(self.workers.sandboxes().iter().flat_map(|s| &s.assets).map(|a| a.sha256.clone()));
        used
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        if self.used_assets().contains(asset) {
            return Err(Error::new(Reason::InUse, "a worker of this node uses it").on(format!("asset/{asset}")));
        }
        self.assets.remove(asset).await?;
        self.context.verified.forget(std::slice::from_ref(asset));
        Ok(())
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        let in_use = self.context.pins.all(|worker| self.workers.exists(worker));
        let pools = self.workers.sandboxes();
        let pool_assets = pools.iter().flat_map(|s| &s.assets).map(|a| a.sha256.clone());
        let assets = live.assets.into_iter().chain(in_use.iter().cloned()).chain(pool_assets).collect();
        let removed = step!("collect.assets", self.assets.collect(&assets, MIN_AGE))?;
        self.context.verified.forget(&removed);
        let images = live.images.into_iter().chain(in_use.iter().cloned()).collect();
        step!("collect.images", self.images.collect(&images, MIN_AGE), repeatable)?;
        let manifests = live.manifests.into_iter().chain(in_use).collect();
        step!("collect.snapshots", self.local.collect(&manifests, age(MIN_AGE)), repeatable)?;
        let stored: HashSet<Prefix> = live.stored.iter().filter_map(|prefix| prefix.parse().ok()).collect();
        for location in &live.locations {
            match step!("collect.stored", self.repository.collect(location, &stored, age(MIN_AGE))) {
                Ok(removed) => {
                    removed.iter().for_each(|prefix| tracing::info!(%prefix, "removed a snapshot nobody committed"));
                }
                Err(e) => tracing::warn!(location, "cannot look for snapshots nobody committed: {e}"),
            }
        }
        if let Some(pods) = self.context.pods.clone() {
            let _ = tokio::task::spawn_blocking(move || pods.clean()).await;
        }
        let actors: HashSet<Uid> = live.actors.into_iter().collect();
        self.context.fence.retain(&actors, MIN_AGE);
        let logs = self.logs.clone();
        let collected = tokio::task::spawn_blocking(move || collect_logs(&logs, &actors)).await;
        collected.map_err(std::io::Error::other).flatten().map_err(|e| {
            let message = format!("cannot collect logs in {}: {e}", self.logs.display());
            Error::new(Reason::Internal, message)
        })
    }
}

/// Removes the logs of actors that are gone. Blocks.
fn collect_logs(logs: &Path, live: &HashSet<Uid>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        let uid = entry.file_name().to_str().and_then(Uid::parse);
        let young = entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age < MIN_AGE);
        if !young && uid.is_none_or(|uid| !live.contains(&uid)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
