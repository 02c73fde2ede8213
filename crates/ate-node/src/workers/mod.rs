//! Workers: from the desired state of a pool to herder processes, and to what may be asked of each.

mod attached;
mod client;
mod herder;
mod kept;
mod local;
mod pods;
mod pool;
mod process;
mod seat;
mod state;
mod verified;
mod watcher;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ate_agent::{Hub, PoolSpec, WorkerPhase};
use ate_api::{
    Error, Reason,
    id::{ObjectName, WorkerId},
};
use ate_snapshot::manifest::Platform;
use tokio::sync::{mpsc, oneshot};

pub(crate) use client::{Client, Start};
pub(crate) use local::{Herders, clean_stale};
pub(crate) use pods::PodPlaces;
pub use pods::{Pods, Source, WorkerPod};
use pool::Pool;
pub(crate) use seat::{Begun, Capturing, Command, Reply, Seat, fenced};
pub(crate) use verified::Verified;

use crate::{fence::Fence, network::Links, pins::Pins};

/// How often it is looked at whether herders were found.
const LOOK: Duration = Duration::from_millis(20);
/// A herder and all below it end within this.
const PURGE: Duration = Duration::from_secs(15);

/// What every worker needs of its node.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) herders: Arc<Herders>,
    pub(crate) links: Links,
    pub(crate) hub: Hub,
    pub(crate) verified: Verified,
    pub(crate) platform: Arc<Platform>,
    /// The node's name.
    pub(crate) node: String,
    pub(crate) pins: Pins,
    pub(crate) fence: Fence,
    /// Where herders are found, if workers are pods.
    pub(crate) pods: Option<PodPlaces>,
}

/// How to reach each worker that exists.
#[derive(Clone, Default)]
struct Directory(Arc<Mutex<HashMap<WorkerId, mpsc::Sender<Command>>>>);

impl Directory {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, mpsc::Sender<Command>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All workers of a node.
pub(crate) struct Workers {
    context: Context,
    directory: Directory,
    pools: Mutex<BTreeMap<ObjectName, Pool>>,
}

impl Workers {
    pub(crate) fn new(context: Context) -> Self {
        Workers { context, directory: Directory::default(), pools: Mutex::default() }
    }

    /// Sets the desired state; workers come and go in the background.
    pub(crate) fn set_pool(&self, spec: PoolSpec) -> Result<(), Error> {
        if self.context.pods.is_none() {
            self.context.herders.program(&spec.sandbox.class)?;
        }
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        match pools.get(&spec.name) {
            Some(pool) => pool.set(spec),
            None => {
                let pool = Pool::start(spec.clone(), self.context.clone(), self.directory.clone());
                pools.insert(spec.name, pool);
            }
        }
        Ok(())
    }

    /// Returns when every herder that is up in a pod of a pool we know of was found, or after `limit`: what is on it is
    /// known by then. At once where workers are processes of ours.
    pub(crate) async fn found(&self, limit: Duration) {
        let Some(places) = &self.context.pods else { return };
        let all = async {
            loop {
                let pools: Vec<ObjectName> =
                    self.pools.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
                let found =
                    |id: &WorkerId| self.context.hub.worker(id).is_some_and(|w| w.phase != WorkerPhase::Starting);
                if places.is_known() && places.up(&pools).iter().all(found) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Ends the workers of a pool and returns when they have ended. Absent is fine.
    pub(crate) async fn remove_pool(&self, name: &ObjectName) {
        let pool = self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(pool) = pool {
            pool.end().await;
        }
    }

    /// Ends all workers.
    pub(crate) async fn shutdown(&self) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(pools.into_values().map(Pool::end)).await;
    }

    /// Sandboxes the pools are for.
    pub(crate) fn sandboxes(&self) -> Vec<ate_sandbox::SandboxRef> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().map(Pool::sandbox).collect()
    }

    /// Another list of revoked binaries is in force. Returns when no worker has anything left of what it started ahead under
    /// one on it, and no start that does not know of the list is on its way to a herder.
    pub(crate) async fn purge(&self) -> Result<(), Error> {
        // Those whose herder is not up yet have begun nothing, and nobody answers for them.
        let up = |id: &WorkerId| self.context.hub.worker(id).is_some_and(|w| w.phase != WorkerPhase::Starting);
        let ids: Vec<WorkerId> = self.directory.lock().keys().filter(|id| up(id)).cloned().collect();
        let asked = ids.iter().map(|id| tokio::time::timeout(PURGE, self.ask(id, |reply| Command::Revoked { reply })));
        for (id, answer) in ids.iter().zip(futures::future::join_all(asked).await) {
            match answer {
                // Whatever a worker had that is gone is gone with it.
                Ok(Err(e)) if e.reason == Reason::WorkerLost => {}
                Ok(answer) => answer?,
                Err(_) => {
                    let message = format!("what it started ahead has not ended within {PURGE:?}");
                    return Err(Error::new(Reason::DeadlineExceeded, message).on(format!("worker/{id}")));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn exists(&self, id: &WorkerId) -> bool {
        self.directory.lock().contains_key(id)
    }

    /// Asks one worker. `WORKER_LOST` if it is not there or goes away over it.
    pub(crate) async fn ask<T>(&self, id: &WorkerId, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        self.hold(id)?.ask(command).await
    }

    /// Takes hold of the worker that has this id now. `WORKER_LOST` if there is none.
    pub(crate) fn hold(&self, id: &WorkerId) -> Result<Hold, Error> {
        match self.directory.lock().get(id) {
            Some(commands) => Ok(Hold { id: id.clone(), commands: commands.clone() }),
            None => Err(lost(id)),
        }
    }
}

/// One worker, and not another that comes after it under the same id, as the next herder in a pod does.
pub(crate) struct Hold {
    id: WorkerId,
    commands: mpsc::Sender<Command>,
}

impl Hold {
    /// `WORKER_LOST` if it is gone or goes away over it.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| lost(&self.id))?;
        answer.await.map_err(|_| lost(&self.id))?.map_err(|e| e.on(format!("worker/{}", self.id)))
    }
}

fn lost(id: &WorkerId) -> Error {
    Error::new(Reason::WorkerLost, "the worker is gone").on(format!("worker/{id}"))
}
