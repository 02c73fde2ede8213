//! What every part of the control plane shares.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, RwLock},
    time::Instant,
};

use ate_agent::{AssetReport, NodeAgent};
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Digest, Uid, WorkerId},
};
use ate_failpoint::step;
use ate_sandbox::{Admitted, Registry, Revocations};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    catalog::Catalog,
    db::Db,
    options::Options,
    policy::{demand::Demand, prepare::Recent},
    reconcile::garbage::Fresh,
    revocation,
    scheduler::{Scheduler, Stage},
    traffic::Traffic,
    workflow::{adopt::Adoption, live::Live, turns::Turns},
};

/// A running actor, as the router needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub uid: Uid,
    pub activation: Activation,
    pub address: std::net::IpAddr,
    /// Where HTTP goes when the host name names no port.
    pub default_port: u16,
}

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) db: Db,
    pub(crate) access: Access,
    pub(crate) node: Arc<dyn NodeAgent>,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) classes: Registry,
    /// Which binaries may run; built anew when revisions or revocations change.
    pub(crate) admitted: RwLock<Arc<Admitted>>,
    /// Configurations being deleted.
    pub(crate) withdrawn: Mutex<BTreeSet<String>>,
    pub(crate) revoked: watch::Sender<Arc<Revocations>>,
    pub(crate) revoking: revocation::Turn,
    /// The node's events are listened to anew: it may have been away.
    pub(crate) node_back: Notify,
    pub(crate) catalog: Catalog,
    pub(crate) scheduler: Scheduler,
    pub(crate) turns: Arc<Turns>,
    pub(crate) live: Live,
    pub(crate) adoption: Adoption,
    pub(crate) recent: Mutex<Recent>,
    /// Templates of which new actors are expected.
    pub(crate) demand: Mutex<Demand>,
    /// Last word of the node on each asset.
    pub(crate) assets: Mutex<HashMap<Digest, AssetReport>>,
    pub(crate) asset_changes: broadcast::Sender<AssetReport>,
    /// What is new in the deletion queue.
    pub(crate) garbage: Fresh,
    /// Counts configurations that came to work.
    pub(crate) config_ready: watch::Sender<u64>,
    /// Who keeps the resources, if it is not us.
    pub(crate) keeper: OnceLock<&'static str>,
    /// Set once nothing new is to be started.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Core {
    /// The actor, if it is running now. No store, no wait.
    pub(crate) fn running(&self, actor: &ActorName) -> Option<Running> {
        let (_, h) = self.scheduler.holder_of(actor).filter(|(_, h)| h.stage == Stage::Running)?;
        Some(Running { uid: h.uid, activation: h.activation, address: h.address?, default_port: h.default_port })
    }

    pub(crate) fn spawn<F: std::future::Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.tasks.spawn(task);
    }

    /// Takes an actor off its worker and makes the worker free again. Returns when it is, or after the release
    /// timeout; then cleaning goes on behind the scenes and the worker stays out of use (I3).
    pub(crate) async fn clean(self: &Arc<Self>, worker: &WorkerId, actor: &Uid, activation: Activation) {
        let Some(name) = self.scheduler.start_cleaning(worker, actor, activation) else { return };
        // Closed by whoever ended the activation, and perhaps opened again by one who asked before it was off. Left
        // open, its requests would go to the next actor on the worker.
        self.traffic.invalidate(&name, activation);
        let Err(e) = self.release(worker, actor, activation).await else { return };
        tracing::warn!(%worker, %actor, %activation, error = %e, "worker could not be cleaned yet, trying again");
        let (core, worker, actor) = (self.clone(), worker.clone(), actor.clone());
        self.spawn(async move {
            let mut pause = std::time::Duration::from_millis(200);
            while core.scheduler.worker(&worker).is_some() && !core.stop.is_cancelled() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(10));
                if core.release(&worker, &actor, activation).await.is_ok() {
                    return;
                }
            }
        });
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let limit = self.options.release_timeout;
        let release = async { step!("clean.release", self.node.release(worker, actor, activation), repeatable) };
        match tokio::time::timeout(limit, release).await {
            Ok(Ok(())) => {
                self.scheduler.freed(worker, actor, activation);
                Ok(())
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(Error::new(Reason::DeadlineExceeded, format!("release took longer than {limit:?}"))),
        }
    }

    /// Deadline of a caller that named none.
    pub(crate) fn default_deadline(&self) -> Instant {
        Instant::now() + self.options.resume_timeout
    }
}
