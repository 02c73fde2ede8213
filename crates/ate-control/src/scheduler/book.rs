//! The book of workers: who holds which (I3: free, held by exactly one actor, or being cleaned).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::{WorkerPhase, WorkerReport};
use ate_api::id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId};
use ate_snapshot::manifest::Platform;

use super::{PoolInfo, Preparation, free::FreeSet, queue::Waiter};
use crate::records::{ConfigKey, Revision};

/// Where an activation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Claimed,
    Running,
    /// Being suspended, paused or ended.
    Leaving,
}

#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) actor: ActorName,
    pub(crate) uid: Uid,
    pub(crate) activation: Activation,
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    /// When a transient stage must be over (I5).
    pub(crate) deadline: Option<Instant>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) movable: bool,
    pub(crate) address: Option<IpAddr>,
    pub(crate) default_port: u16,
    pub(crate) sandbox: ConfigKey,
}

#[derive(Debug, Clone)]
pub(crate) enum Seat {
    Free,
    Held(Holder),
    /// Of this activation.
    Cleaning(Uid, Activation),
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) report: Arc<WorkerReport>,
    /// As reported, or as known since a release returned.
    pub(crate) phase: WorkerPhase,
    /// Digest of the report's platform.
    pub(crate) platform: Digest,
    pub(crate) seat: Seat,
    pub(crate) prepared: Option<Preparation>,
    /// Counts its holders, to tell whether it was used in between.
    pub(crate) uses: u64,
}

impl Worker {
    pub(crate) fn holder(&self) -> Option<&Holder> {
        match &self.seat {
            Seat::Held(h) => Some(h),
            _ => None,
        }
    }

    /// Its own node has them.
    pub(super) fn has_binaries_of(&self, sandbox: &Revision) -> bool {
        self.report.configs.contains(&sandbox.reference.config_label())
    }

    pub(super) fn is_available(&self) -> bool {
        matches!(self.seat, Seat::Free) && self.phase == WorkerPhase::Ready && !self.report.leaving
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) info: PoolInfo,
    pub(super) free: FreeSet,
    pub(super) held: usize,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) pools: BTreeMap<ObjectName, Pool>,
    pub(super) workers: HashMap<WorkerId, Worker>,
    pub(super) by_actor: HashMap<ActorName, WorkerId>,
    pub(super) waiting: BTreeMap<u64, Waiter>,
    pub(super) next_ticket: u64,
    pub(super) queue_limit: usize,
    pub(super) verified: HashSet<String>,
}

impl Book {
    pub(super) fn new(queue_limit: usize) -> Self {
        Book {
            pools: BTreeMap::new(),
            workers: HashMap::new(),
            by_actor: HashMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            queue_limit,
            verified: HashSet::new(),
        }
    }

    pub(super) fn set_pool(&mut self, name: ObjectName, info: PoolInfo) {
        if let Some(pool) = self.pools.get_mut(&name) {
            pool.info = info;
        } else {
            let held = self.workers.values().filter(|w| w.report.pool == name && w.holder().is_some()).count();
            self.pools.insert(name.clone(), Pool { info, free: FreeSet::default(), held });
        }
        self.offer_all(&name);
    }

    pub(super) fn remove_pool(&mut self, name: &ObjectName) {
        self.pools.remove(name);
    }

    pub(super) fn set_verified(&mut self, config: String) {
        self.verified.insert(config);
    }

    pub(super) fn forget_verified(&mut self, config: &str) {
        self.verified.remove(config);
    }

    pub(super) fn is_verified(&self, config: &str) -> bool {
        self.verified.contains(config)
    }

    /// Returns true if the worker is idle afterwards.
    pub(super) fn report(&mut self, report: WorkerReport) -> bool {
        let id = report.id.clone();
        match self.workers.get_mut(&id) {
            Some(worker) => {
                if worker.report.platform != report.platform {
                    worker.platform = platform_digest(&report.platform);
                }
                worker.phase = report.phase;
                worker.report = Arc::new(report);
            }
            None => {
                let worker = Worker {
                    phase: report.phase,
                    platform: platform_digest(&report.platform),
                    report: Arc::new(report),
                    seat: Seat::Free,
                    prepared: None,
                    uses: 0,
                };
                self.workers.insert(id.clone(), worker);
            }
        }
        self.settle(&id)
    }

    pub(super) fn lost(&mut self, id: &WorkerId) -> Option<Holder> {
        let worker = self.workers.remove(id)?;
        let holder = worker.holder().cloned();
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.remove(id);
            pool.held -= usize::from(holder.is_some());
        }
        if let Some(h) = &holder {
            self.by_actor.remove(&h.actor);
        }
        holder
    }

    /// Puts a worker into or out of the free set, and gives it to whoever waits for one like it.
    pub(super) fn settle(&mut self, id: &WorkerId) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let available = worker.is_available();
        let prepared = worker.prepared.clone();
        let Some(pool) = self.pools.get_mut(&worker.report.pool) else { return false };
        if !available {
            pool.free.remove(id);
            return false;
        }
        if !pool.free.contains(id) {
            pool.free.insert(id.clone(), prepared);
        }
        !self.offer(id)
    }

    pub(super) fn unseat(&mut self, id: &WorkerId, seat: Seat) -> Option<Holder> {
        let worker = self.workers.get_mut(id)?;
        let Seat::Held(holder) = std::mem::replace(&mut worker.seat, seat) else { return None };
        if self.by_actor.get(&holder.actor) == Some(id) {
            self.by_actor.remove(&holder.actor);
        }
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.held = pool.held.saturating_sub(1);
        }
        Some(holder)
    }

    /// Puts somebody on a worker that was just found.
    pub(super) fn seat(&mut self, id: &WorkerId, holder: Holder) -> &Worker {
        let worker = self.workers.get_mut(id).expect("workers to be seated on were just found");
        worker.prepared = None;
        worker.uses += 1;
        self.by_actor.insert(holder.actor.clone(), id.clone());
        worker.seat = Seat::Held(holder);
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.remove(id);
            pool.held += 1;
        }
        worker
    }

    /// Seats somebody whom the worker held before this book was opened. False: the worker is gone or taken.
    pub(super) fn adopt(&mut self, id: &WorkerId, holder: Holder) -> bool {
        let free = self.workers.get(id).is_some_and(|w| matches!(w.seat, Seat::Free));
        if free {
            self.seat(id, holder);
        }
        free
    }

    /// Numbers of activations are the same for many actors, and a worker may be back under its id with somebody else.
    fn held(&mut self, worker: &WorkerId, uid: &Uid, activation: Activation) -> Option<&mut Holder> {
        match &mut self.workers.get_mut(worker)?.seat {
            Seat::Held(h) if h.uid == *uid && h.activation == activation => Some(h),
            _ => None,
        }
    }

    pub(super) fn set_stage(
        &mut self,
        worker: &WorkerId,
        uid: &Uid,
        activation: Activation,
        stage: Stage,
        deadline: Option<Instant>,
    ) {
        if let Some(h) = self.held(worker, uid, activation) {
            h.stage = stage;
            h.since = Instant::now();
            h.deadline = deadline;
        }
    }

    pub(super) fn set_running(&mut self, worker: &WorkerId, uid: &Uid, activation: Activation, address: IpAddr) {
        if let Some(h) = self.held(worker, uid, activation) {
            h.address = Some(address);
        }
        self.set_stage(worker, uid, activation, Stage::Running, None);
    }

    pub(super) fn start_cleaning(&mut self, worker: &WorkerId, uid: &Uid, activation: Activation) -> Option<ActorName> {
        self.held(worker, uid, activation)?;
        self.unseat(worker, Seat::Cleaning(uid.clone(), activation)).map(|holder| holder.actor)
    }

    pub(super) fn freed(&mut self, id: &WorkerId, uid: &Uid, activation: Activation) -> bool {
        if let Some(worker) = self.workers.get_mut(id)
            && matches!(&worker.seat, Seat::Cleaning(of, n) if of == uid && *n == activation)
        {
            worker.seat = Seat::Free;
            worker.phase = WorkerPhase::Ready;
            worker.prepared = None;
        }
        self.settle(id)
    }

    pub(super) fn holder_of(&self, actor: &ActorName) -> Option<(WorkerId, Holder)> {
        let id = self.by_actor.get(actor)?;
        Some((id.clone(), self.workers.get(id)?.holder()?.clone()))
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    pub(super) fn worker(&self, id: &WorkerId) -> Option<&Worker> {
        self.workers.get(id)
    }

    pub(super) fn holders(&self) -> Vec<(WorkerId, Holder)> {
        self.workers.iter().filter_map(|(id, w)| Some((id.clone(), w.holder()?.clone()))).collect()
    }

    pub(super) fn on_leaving(&self) -> Vec<(WorkerId, Holder)> {
        let leaving = self.workers.iter().filter(|(_, w)| w.report.leaving);
        leaving.filter_map(|(id, w)| Some((id.clone(), w.holder()?.clone()))).collect()
    }

    pub(super) fn free(&self) -> (Vec<Worker>, Vec<Worker>) {
        self.workers.values().filter(|w| w.is_available()).cloned().partition(|w| w.prepared.is_none())
    }

    pub(super) fn set_prepared(&mut self, id: &WorkerId, uses: u64, prepared: Option<Preparation>) {
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.uses == uses && w.is_available()) else { return };
        worker.prepared.clone_from(&prepared);
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.insert(id.clone(), prepared);
        }
    }

    pub(super) fn pool_counts(&self, pool: &ObjectName) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for w in self.workers.values().filter(|w| &w.report.pool == pool) {
            counts.0 += 1;
            counts.1 += usize::from(w.phase != WorkerPhase::Starting);
            counts.2 += usize::from(w.holder().is_some());
        }
        counts
    }
}

fn platform_digest(platform: &Platform) -> Digest {
    Digest::of(&serde_json::to_vec(platform).expect("a platform is plain text"))
}
