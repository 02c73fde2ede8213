//! The simulated machine: workers that live and die, snapshots that stay. Behaves as `ate-node` does, state by state;
//! what goes wrong on the way to it is [`agent`]'s.

mod agent;
mod pools;
mod snapshots;
mod storage;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ate_agent::{Activate, Activated, NodeEvent, PoolSpec, WorkerPhase};
use ate_api::{
    Error, Reason,
    id::{Activation, ObjectName, Uid, WorkerId},
};
use ate_sandbox::Revocations;
use tokio::sync::mpsc;

pub(crate) use agent::Node;
pub(crate) use storage::{Content, Storage};
pub(crate) use worker::{Life, Seat, Worker};

use crate::{os, world::World};
use worker::{Found, fenced};

/// How often those look who wait for what somebody else has begun.
const LOOK: Duration = Duration::from_millis(10);
/// What a golden actor has in memory when it is ready, so that a start from the golden snapshot shows.
const WARM: u64 = 1000;

#[derive(Default)]
pub(crate) struct Machine(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) storage: Storage,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pools: BTreeMap<ObjectName, PoolSpec>,
    /// Latest activation seen of each actor.
    fence: BTreeMap<Uid, Seen>,
    listeners: Vec<mpsc::Sender<NodeEvent>>,
    /// On disk, as on the node.
    pub(crate) revoked: Revocations,
    /// Configurations whose binaries are here.
    verified: BTreeSet<String>,
    next_worker: u32,
    next_manifest: u64,
}

#[derive(Debug, Default)]
struct Seen {
    activation: Activation,
    released: bool,
    at_ms: u64,
}

impl Machine {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything but what is on a disk is gone.
    pub(crate) fn crash(&self) {
        let mut s = self.lock();
        s.workers.clear();
        s.pools.clear();
        s.fence.clear();
        s.listeners.clear();
    }

    /// One request to whoever has the address.
    pub(crate) fn serve(&self, address: IpAddr) -> Result<Life, Error> {
        let mut s = self.lock();
        let found = s.workers.values_mut().find(|w| w.report.address == address);
        match found.map(|w| &mut w.seat) {
            Some(Seat::Running(life)) => {
                life.content.memory += 1;
                life.content.files += 1;
                Ok(life.clone())
            }
            _ => Err(Error::new(Reason::Unavailable, "nobody answers")),
        }
    }
}

impl State {
    /// Takes note of an activation, or refuses it. Whether it was released.
    fn admit(&mut self, uid: &Uid, activation: Activation) -> Result<bool, Error> {
        let seen = self.fence.entry(uid.clone()).or_default();
        if activation < seen.activation {
            return Err(fenced("an older activation"));
        }
        let released = seen.released && activation == seen.activation;
        *seen = Seen { activation, released, at_ms: os::elapsed_ms() };
        Ok(released)
    }

    fn release(&mut self, uid: &Uid, activation: Activation) {
        if self.admit(uid, activation).is_ok()
            && let Some(seen) = self.fence.get_mut(uid)
        {
            seen.released = true;
        }
    }

    fn worker(&mut self, id: &WorkerId) -> Result<&mut Worker, Error> {
        let up = self.workers.get_mut(id).filter(|w| w.report.phase != WorkerPhase::Starting);
        up.ok_or_else(|| Error::new(Reason::WorkerLost, "the worker is gone").on(format!("worker/{id}")))
    }
}

impl World {
    async fn activate(self: Arc<Self>, a: Activate) -> Result<Activated, Error> {
        let late = |_| Err(Error::new(Reason::DeadlineExceeded, "the start took too long"));
        tokio::time::timeout(a.timeout, self.start(a)).await.unwrap_or_else(late)
    }

    async fn start(self: &Arc<Self>, a: Activate) -> Result<Activated, Error> {
        let (uid, activation) = (&a.actor.uid, a.activation);
        let (mut content, base) = {
            let mut s = self.machine.lock();
            if s.admit(uid, activation)? {
                return Err(fenced("this activation was released already"));
            }
            s.revoked.check(&a.sandbox)?;
            s.storage.restore(&a.source)?
        };
        if a.actor.name.atespace == ate_api::id::GOLDEN_ATESPACE {
            content.memory = content.memory.max(WARM);
        }
        tokio::time::sleep(self.weather.node_delay(&self.chance)).await;
        let life = Life { actor: a.actor.name.clone(), uid: uid.clone(), activation, content, base };
        loop {
            let found = {
                let mut s = self.machine.lock();
                s.revoked.check(&a.sandbox)?;
                if s.admit(uid, activation)? {
                    return Err(fenced("this activation was released already"));
                }
                s.worker(&a.worker)?.start(life.clone())?
            };
            match found {
                Found::Done(address) => return Ok(activated(address)),
                Found::UnderWay => tokio::time::sleep(LOOK).await,
                Found::New => break,
            }
        }
        self.report_worker(&a.worker);
        tokio::time::sleep(self.weather.node_delay(&self.chance)).await;
        let address = {
            let mut s = self.machine.lock();
            let worker = s.worker(&a.worker)?;
            let address = worker.report.address;
            if !worker.started(uid, activation, Ok(())) {
                return Err(Error::new(Reason::Conflict, "the worker was released meanwhile"));
            }
            address
        };
        self.note(|| format!("runs {} {activation} on {} with {content:?}", a.actor.name, a.worker));
        self.with_report(|r| r.activations += 1);
        Ok(activated(address))
    }

    async fn release(self: Arc<Self>, id: WorkerId, uid: Uid, activation: Activation) -> Result<(), Error> {
        self.machine.lock().release(&uid, activation);
        loop {
            let found = self.machine.lock().worker(&id)?.release(&uid, activation)?;
            match found {
                Found::Done(()) => return Ok(()),
                Found::UnderWay => tokio::time::sleep(LOOK).await,
                Found::New => break,
            }
        }
        tokio::time::sleep(self.weather.node_delay(&self.chance)).await;
        if let Ok(worker) = self.machine.lock().worker(&id) {
            worker.seat = Seat::Idle;
        }
        self.note(|| format!("released {id} of {activation}"));
        self.report_worker(&id);
        self.retire(&id);
        Ok(())
    }
}

fn activated(address: IpAddr) -> Activated {
    Activated { address, prepared: false, steps_us: BTreeMap::new() }
}
