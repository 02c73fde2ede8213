//! Bringing actors and workers together: the pick, the queue, and who could make room.

use std::{sync::Arc, time::Instant};

use ate_api::{
    Error, Reason,
    id::{ObjectName, WorkerId},
};
use tokio::sync::oneshot;

use super::{
    Claim, Need, Offer, Prepared, Ticket, Use,
    book::{Book, Holder, Pool, Seat, Stage, Worker},
    free::Suits,
    gates::Misfit,
    queue::Waiter,
};
use crate::records::Revision;

impl Book {
    pub(super) fn offer_all(&mut self, pool: &ObjectName) {
        let ids: Vec<WorkerId> =
            self.workers.values().filter(|w| &w.report.pool == pool).map(|w| w.report.id.clone()).collect();
        for id in ids {
            self.settle(&id);
        }
    }

    /// Gives a free worker to the first in the queue it suits.
    pub(super) fn offer(&mut self, id: &WorkerId) -> bool {
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
            w.need.fits_worker(&worker.report).ok()?;
            worker.has_binaries_of(&sandbox).then_some((*number, sandbox))
        })
    }

    fn take(&mut self, need: &Need, id: &WorkerId, sandbox: Arc<Revision>) -> Claim {
        let holder = Holder {
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
        };
        let worker = self.seat(id, holder);
        Claim { report: worker.report.clone(), platform: worker.platform.clone(), sandbox }
    }

    fn give_back(&mut self, id: &WorkerId) {
        self.unseat(id, Seat::Free);
        let Some(worker) = self.workers.get(id) else { return };
        if let Some(pool) = self.pools.get_mut(&worker.report.pool) {
            pool.free.insert(id.clone(), None);
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
            if let Some((id, suits)) = self.best_free(pool, need, &sandbox, exclude)
                && found.as_ref().is_none_or(|(_, _, best)| suits < *best)
            {
                found = Some((id.clone(), sandbox, suits));
            }
        }
        if let Some((id, sandbox, _)) = found {
            return Ok(Offer::Now(self.take(need, &id, sandbox)));
        }
        if fitting.is_empty() {
            // Of all reasons the one that somebody has to do something about.
            if let Some(Misfit::Revoked(e)) = misfits.iter().map(|(_, m)| m).find(|m| matches!(m, Misfit::Revoked(_))) {
                return Err(e.clone().hint("give the pool another configuration"));
            }
            return Err(no_suitable(&misfits.iter().map(|(n, m)| format!("{n}: {m}")).collect::<Vec<_>>()));
        }
        self.check_workers(need, &fitting, exclude)?;
        self.enqueue(need, exclude)
    }

    /// The free worker of a pool that suits an actor best.
    pub(super) fn best_free<'a>(
        &self,
        pool: &'a Pool,
        need: &Need,
        sandbox: &Revision,
        exclude: &[WorkerId],
    ) -> Option<(&'a WorkerId, Suits)> {
        let fits = Prepared { template: need.template_uid.clone(), sandbox: sandbox.key() };
        let wanted = Use { fits, begins: need.begins };
        let mut candidates = pool.free.candidates(&wanted);
        candidates.find(|(id, _)| {
            !exclude.contains(id)
                && self
                    .workers
                    .get(id)
                    .is_some_and(|w| w.has_binaries_of(sandbox) && need.fits_worker(&w.report).is_ok())
        })
    }

    /// Pools fit; refuses if every worker they have never will.
    fn check_workers(&self, need: &Need, pools: &[&ObjectName], exclude: &[WorkerId]) -> Result<(), Error> {
        let mut why = Vec::new();
        for w in self.workers.values().filter(|w| pools.contains(&&w.report.pool)) {
            if exclude.contains(&w.report.id) {
                why.push(format!("{}: it has just failed this actor", w.report.id));
                continue;
            }
            match need.fits_worker(&w.report) {
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

    /// Those in the queue, in its order, for whom no worker is on its way to being free.
    fn unserved(&self) -> Vec<&Waiter> {
        let mut unserved: Vec<&Waiter> = self.waiting.values().collect();
        let leaving = self.workers.values().filter(|w| match &w.seat {
            Seat::Held(h) => h.stage == Stage::Leaving,
            Seat::Cleaning(..) => true,
            Seat::Free => false,
        });
        for worker in leaving {
            self.serve(&mut unserved, worker);
        }
        unserved
    }

    /// Takes out the first whom the worker suits. False: there is none.
    fn serve(&self, waiting: &mut Vec<&Waiter>, worker: &Worker) -> bool {
        let suits = |w: &&Waiter| {
            let pool = self.pools.get(&worker.report.pool);
            !w.exclude.contains(&worker.report.id)
                && pool.is_some_and(|pool| w.need.fits_pool(&pool.info).is_ok())
                && w.need.fits_worker(&worker.report).is_ok()
        };
        waiting.iter().position(suits).map(|at| waiting.remove(at)).is_some()
    }

    pub(super) fn shortage(&self) -> usize {
        self.unserved().len()
    }

    pub(super) fn movable(&self) -> Vec<(WorkerId, Holder)> {
        let held = self.workers.iter().filter_map(|(id, w)| Some((id, w.holder()?)));
        held.filter(|(_, h)| h.movable && h.stage == Stage::Running).map(|(id, h)| (id.clone(), h.clone())).collect()
    }

    pub(super) fn needed(&self, workers: &[&WorkerId]) -> Vec<bool> {
        let mut unserved = self.unserved();
        let needs = |id: &&WorkerId| self.workers.get(*id).is_some_and(|worker| self.serve(&mut unserved, worker));
        workers.iter().map(needs).collect()
    }
}

fn no_suitable(why: &[String]) -> Error {
    if why.is_empty() {
        return Error::new(Reason::NoSuitableWorker, "there is no worker pool").hint("apply a WorkerPool");
    }
    Error::new(Reason::NoSuitableWorker, format!("no worker may take this actor: {}", why.join("; ")))
        .hint("apply a WorkerPool that fits, or change the worker selector")
}
