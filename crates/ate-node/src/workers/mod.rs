//! Workers: from the desired state of a pool to herder processes, and to what may be asked of each.

mod client;
mod herder;
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
};

use ate_agent::PoolSpec;
use ate_api::{
    Error, Reason,
    id::{ObjectName, WorkerId},
};
use ate_snapshot::manifest::Platform;
use tokio::sync::{mpsc, oneshot};

pub(crate) use client::{Client, Start};
pub(crate) use herder::{Herders, clean_stale};
use pool::Pool;
pub(crate) use seat::{Begun, Capturing, Command, Reply, Seat, fenced};
pub(crate) use verified::Verified;

use crate::{events::Hub, network::Links};

/// What every worker needs of its node.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) herders: Arc<Herders>,
    pub(crate) links: Links,
    pub(crate) hub: Hub,
    pub(crate) verified: Verified,
    pub(crate) platform: Arc<Platform>,
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
        self.context.herders.program(&spec.sandbox.class)?;
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

    pub(crate) fn exists(&self, id: &WorkerId) -> bool {
        self.directory.lock().contains_key(id)
    }

    /// Asks one worker. `WORKER_LOST` if it is not there or goes away over it.
    pub(crate) async fn ask<T>(&self, id: &WorkerId, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let lost = || Error::new(Reason::WorkerLost, "the worker is gone").on(format!("worker/{id}"));
        let worker = self.directory.lock().get(id).cloned().ok_or_else(lost)?;
        let (reply, answer) = oneshot::channel();
        worker.send(command(reply)).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?.map_err(|e| e.on(format!("worker/{id}")))
    }
}
