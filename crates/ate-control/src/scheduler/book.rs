//! The book of workers: who holds which (I3: free, held by exactly one actor, or being cleaned).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::{WorkerPhase, WorkerReport};
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId},
};
use ate_snapshot::manifest::Platform;
use tokio::sync::oneshot;

use super::{Claim, Need, Offer, PoolInfo, Prepared, Ticket, free::FreeSet, queue::Waiter};
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
    Cleaning,
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) report: Arc<WorkerReport>,
    /// As reported, or as known since a release returned.
    pub(crate) phase: WorkerPhase,
    /// Digest of the report's platform.
    pub(crate) platform: Digest,
    pub(crate) seat: Seat,
    pub(crate) prepared: Option<Prepared>,
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

    fn is_available(&self) -> bool {
        matches!(self.seat, Seat::Free) && self.phase == WorkerPhase::Ready
    }
}

#[derive(Debug)]
struct Pool {
    info: PoolInfo,
    free: FreeSet,
    held: usize,
}

#[derive(Debug)]
pub(super) struct Book {
    pools: BTreeMap<ObjectName, Pool>,
    workers: HashMap<WorkerId, Worker>,
    by_actor: HashMap<ActorName, WorkerId>,
    waiting: BTreeMap<u64, Waiter>,
    next_ticket: u64,
    queue_limit: usize,
    verified: HashSet<String>,
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
        if self.verified.insert(config) {
            let pools: Vec<ObjectName> = self.pools.keys().cloned().collect();
            for pool in pools {
                self.offer_all(&pool);
            }
        }
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
    fn settle(&mut self, id: &WorkerId) -> bool {
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

    fn offer_all(&mut self, pool: &ObjectName) {
        let ids: Vec<WorkerId> =
            self.workers.values().filter(|w| &w.report.pool == pool).map(|w| w.report.id.clone()).collect();
        for id in ids {
            self.settle(&id);
        }
    }

    /// Gives a free worker to the first in the queue it suits.
    fn offer(&mut self, id: &WorkerId) -> bool {
        loop {
            let Some((number, sandbox)) = self.first_for(id) else { return false };
            let Some(waiter) = self.waiting.remove(&number) else { return false };
            let claim = self.take(&waiter.need, id, sandbox);
            let Err(_gone) = waiter.reply.send(claim) else { return true };
            // The one who waited has left in the same moment: the worker was not touched.
            self.give_back(id);
        }
    }

    fn first_for(&self, id: &WorkerId) -> Option<(u64, Arc<Revision>)> {
        let worker = self.workers.get(id)?;
        let pool = self.pools.get(&worker.report.pool)?;
        self.waiting.iter().find_map(|(number, w)| {
            if pool.held >= pool.info.capacity || w.exclude.contains(id) {
                return None;
            }
            let sandbox = w.need.fits_pool(&pool.info).ok()?;
            w.need.fits_platform(&worker.report.platform).ok()?;
            self.has_verified(worker, &sandbox).then_some((*number, sandbox))
        })
    }

    fn has_verified(&self, worker: &Worker, sandbox: &Revision) -> bool {
        let label = sandbox.reference.config_label();
        worker.report.configs.contains(&label) || self.verified.contains(&label)
    }

    fn take(&mut self, need: &Need, id: &WorkerId, sandbox: Arc<Revision>) -> Claim {
        let worker = self.workers.get_mut(id).expect("taken workers were just found");
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.remove(id);
            pool.held += 1;
        }
        worker.prepared = None;
        worker.uses += 1;
        worker.seat = Seat::Held(Holder {
            actor: need.actor.clone(),
            uid: need.uid.clone(),
            activation: need.activation,
            stage: Stage::Claimed,
            since: Instant::now(),
            deadline: None,
            idle_timeout: need.idle_timeout,
            movable: need.movable,
            address: None,
            default_port: need.default_port,
            sandbox: sandbox.key(),
        });
        self.by_actor.insert(need.actor.clone(), id.clone());
        Claim { report: worker.report.clone(), platform: worker.platform.clone(), sandbox }
    }

    fn give_back(&mut self, id: &WorkerId) {
        self.unseat(id, Seat::Free);
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.insert(id.clone(), None);
        }
    }

    fn unseat(&mut self, id: &WorkerId, seat: Seat) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if let Seat::Held(h) = std::mem::replace(&mut worker.seat, seat) {
            if self.by_actor.get(&h.actor) == Some(id) {
                self.by_actor.remove(&h.actor);
            }
            if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
                pool.held = pool.held.saturating_sub(1);
            }
        }
    }

    pub(super) fn claim(&mut self, need: &Arc<Need>, exclude: &[WorkerId]) -> Result<Offer, Error> {
        let mut misfits = Vec::new();
        let mut fitting = Vec::new();
        let mut found = None;
        for (name, pool) in &self.pools {
            let sandbox = match need.fits_pool(&pool.info) {
                Ok(sandbox) => sandbox,
                Err(misfit) => {
                    misfits.push((name, misfit));
                    continue;
                }
            };
            fitting.push(name);
            if pool.held >= pool.info.capacity {
                continue;
            }
            let wanted = Prepared { template: need.template_uid.clone(), sandbox: sandbox.key() };
            let pick = pool.free.candidates(&wanted).find(|(id, _)| {
                !exclude.contains(id)
                    && self.workers.get(id).is_some_and(|w| {
                        self.has_verified(w, &sandbox) && need.fits_platform(&w.report.platform).is_ok()
                    })
            });
            if let Some((id, prepared)) = pick {
                let better = prepared && !matches!(&found, Some((_, _, true)));
                if found.is_none() || better {
                    found = Some((id.clone(), sandbox, prepared));
                }
            }
        }
        if let Some((id, sandbox, _)) = found {
            return Ok(Offer::Now(self.take(need, &id, sandbox)));
        }
        if fitting.is_empty() {
            return Err(no_suitable(&misfits.iter().map(|(n, m)| format!("{n}: {m}")).collect::<Vec<_>>()));
        }
        self.check_workers(need, &fitting, exclude)?;
        self.enqueue(need, exclude)
    }

    /// Pools fit; refuses if every worker they have never will.
    fn check_workers(&self, need: &Need, pools: &[&ObjectName], exclude: &[WorkerId]) -> Result<(), Error> {
        let mut why = Vec::new();
        for w in self.workers.values().filter(|w| pools.contains(&&w.report.pool)) {
            if exclude.contains(&w.report.id) {
                why.push(format!("{}: it has just failed this actor", w.report.id));
                continue;
            }
            match need.fits_platform(&w.report.platform) {
                Ok(()) => return Ok(()),
                Err(misfit) => why.push(format!("{}: {misfit}", w.report.pool)),
            }
        }
        why.sort();
        why.dedup();
        // No worker at all yet: they are coming.
        if why.is_empty() { Ok(()) } else { Err(no_suitable(&why)) }
    }

    fn enqueue(&mut self, need: &Arc<Need>, exclude: &[WorkerId]) -> Result<Offer, Error> {
        if self.waiting.len() >= self.queue_limit {
            return Err(Error::new(
                Reason::QueueFull,
                format!("{} callers wait for a worker already", self.waiting.len()),
            )
            .on(format!("actor/{}", need.actor))
            .hint("try again later, or give the pool more replicas"));
        }
        self.next_ticket += 1;
        let (reply, claim) = oneshot::channel();
        self.waiting.insert(self.next_ticket, Waiter { need: need.clone(), exclude: exclude.to_vec(), reply });
        Ok(Offer::Later(Ticket { number: self.next_ticket, claim }))
    }

    pub(super) fn leave(&mut self, mut ticket: Ticket) -> Option<Claim> {
        self.waiting.remove(&ticket.number);
        ticket.claim.try_recv().ok()
    }

    fn held(&mut self, worker: &WorkerId, activation: Activation) -> Option<&mut Holder> {
        match &mut self.workers.get_mut(worker)?.seat {
            Seat::Held(h) if h.activation == activation => Some(h),
            _ => None,
        }
    }

    pub(super) fn set_stage(
        &mut self,
        worker: &WorkerId,
        activation: Activation,
        stage: Stage,
        deadline: Option<Instant>,
    ) {
        if let Some(h) = self.held(worker, activation) {
            h.stage = stage;
            h.since = Instant::now();
            h.deadline = deadline;
        }
    }

    pub(super) fn set_running(&mut self, worker: &WorkerId, activation: Activation, address: IpAddr) {
        if let Some(h) = self.held(worker, activation) {
            h.address = Some(address);
        }
        self.set_stage(worker, activation, Stage::Running, None);
    }

    pub(super) fn start_cleaning(&mut self, worker: &WorkerId, activation: Activation) -> bool {
        let ours = self.held(worker, activation).is_some();
        if ours {
            self.unseat(worker, Seat::Cleaning);
        }
        ours
    }

    pub(super) fn freed(&mut self, id: &WorkerId) -> bool {
        if let Some(worker) = self.workers.get_mut(id)
            && matches!(worker.seat, Seat::Cleaning)
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

    pub(super) fn shortage(&self) -> usize {
        if self.waiting.is_empty() {
            return 0;
        }
        let leaving = self.workers.values().filter(|w| match &w.seat {
            Seat::Held(h) => h.stage == Stage::Leaving,
            Seat::Cleaning => true,
            Seat::Free => false,
        });
        self.waiting.len().saturating_sub(leaving.count())
    }

    pub(super) fn movable(&self) -> Vec<(WorkerId, Holder)> {
        // The head of the queue decides which pools count: whoever is behind it is served after it anyway.
        let Some(first) = self.waiting.values().next() else { return Vec::new() };
        let fits = |w: &Worker| {
            let pool = self.pools.get(&w.report.pool)?;
            first.need.fits_pool(&pool.info).ok()?;
            first.need.fits_platform(&w.report.platform).ok()
        };
        self.workers
            .iter()
            .filter(|(id, _)| !first.exclude.contains(id))
            .filter_map(|(id, w)| Some((id, w, w.holder()?)))
            .filter(|(_, w, h)| h.movable && h.stage == Stage::Running && fits(w).is_some())
            .map(|(id, _, h)| (id.clone(), h.clone()))
            .collect()
    }

    pub(super) fn unprepared(&self) -> (Vec<Worker>, Vec<Prepared>) {
        let mut bare = Vec::new();
        let mut prepared = Vec::new();
        for w in self.workers.values().filter(|w| w.is_available()) {
            match &w.prepared {
                Some(p) => prepared.push(p.clone()),
                None => bare.push(w.clone()),
            }
        }
        (bare, prepared)
    }

    pub(super) fn set_prepared(&mut self, id: &WorkerId, uses: u64, prepared: Prepared) {
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.uses == uses && w.is_available()) else { return };
        worker.prepared = Some(prepared.clone());
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.insert(id.clone(), Some(prepared));
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

fn no_suitable(why: &[String]) -> Error {
    if why.is_empty() {
        return Error::new(Reason::NoSuitableWorker, "there is no worker pool").hint("apply a WorkerPool");
    }
    Error::new(Reason::NoSuitableWorker, format!("no worker may take this actor: {}", why.join("; ")))
        .hint("apply a WorkerPool that fits, or change the worker selector")
}
