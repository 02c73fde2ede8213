//! The node agent's contract: each call to the part that does it.

use std::{collections::HashSet, path::Path, time::Duration};

use async_trait::async_trait;
use ate_agent::{
    Activate, Activated, AssetReport, AssetUpload, Capture, Captured, LiveSet, LogTail, NodeAgent, NodeEvents,
    PoolSpec, Prepare, Probed, ResolvedImage, SnapshotLocation, SnapshotRef,
};
use ate_api::{
    Error,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::SandboxRef;

use crate::{
    node::{Inner, Node},
    workers::Command,
};

/// What is younger may belong to something the control plane has not recorded yet.
const MIN_AGE: Duration = Duration::from_secs(10 * 60);

#[async_trait]
impl NodeAgent for Node {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn events(&self) -> NodeEvents {
        self.0.context.hub.listen()
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        self.0.workers.set_pool(pool)
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        self.0.workers.remove_pool(pool).await;
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

    async fn thaw(&self, worker: &WorkerId, activation: Activation) -> Result<(), Error> {
        self.0.thaw(worker, activation).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let actor = actor.clone();
        self.0.workers.ask(worker, |reply| Command::Release { actor, activation, reply }).await
    }

    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error> {
        match (self.0.local.get(&snapshot.manifest).await, &snapshot.location) {
            (Ok(found), _) => Ok(found.manifest_bytes().to_vec()),
            (Err(e), SnapshotLocation::Local) => Err(e.into()),
            (Err(_), SnapshotLocation::External { prefix }) => {
                Ok(self.0.repository.read_manifest(&prefix.parse()?, &snapshot.manifest).await?.1)
            }
        }
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        if let SnapshotLocation::External { prefix } = &snapshot.location {
            self.0.repository.delete(&prefix.parse()?).await?;
        }
        Ok(self.0.local.remove(&snapshot.manifest).await?)
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        self.0.collect(live).await
    }

    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        self.0.logs(actor, container, tail, follow).await
    }
}

impl Inner {
    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        let in_use = self.pins.all(|worker| self.workers.exists(worker));
        let pools = self.workers.sandboxes();
        let pool_assets = pools.iter().flat_map(|s| &s.assets).map(|a| a.sha256.clone());
        let assets = live.assets.into_iter().chain(in_use.iter().cloned()).chain(pool_assets).collect();
        let removed = self.assets.collect(&assets, MIN_AGE).await?;
        self.context.verified.forget(&removed);
        self.images.collect(&live.images.into_iter().chain(in_use.iter().cloned()).collect(), MIN_AGE).await?;
        self.local.collect(&live.manifests.into_iter().chain(in_use).collect(), MIN_AGE).await?;
        let actors: HashSet<Uid> = live.actors.into_iter().collect();
        self.fence.retain(&actors);
        let logs = self.logs.clone();
        let collected = tokio::task::spawn_blocking(move || collect_logs(&logs, &actors)).await;
        collected.map_err(std::io::Error::other).flatten().map_err(|e| {
            let message = format!("cannot collect logs in {}: {e}", self.logs.display());
            Error::new(ate_api::Reason::Internal, message)
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
