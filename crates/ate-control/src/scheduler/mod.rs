//! Who gets which worker. All in memory, rebuilt at start: an actor's record says which worker it holds, the node
//! says which workers there are, and this is the index over both.
//!
//! One mutex, held for a lookup at a time and never across an await. A pick looks at each pool once (there are
//! few) and then takes a worker from an ordered set.

mod book;
mod free;
mod gates;
mod matching;
mod queue;
mod survey;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use ate_agent::WorkerReport;
use ate_api::{
    Error,
    id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId},
};
use ate_snapshot::manifest::Platform;
use tokio::sync::{Notify, broadcast};

pub(crate) use book::{Holder, Seat, Stage, Worker};
pub(crate) use free::{Preparation, Prepared, Suits, Use};
pub(crate) use gates::{Need, PoolInfo, Wanted, can_restore};
pub(crate) use queue::{Claim, Ticket};
pub(crate) use survey::{PoolSurvey, Survey};

use book::Book;

use crate::records::ActorRecord;

/// Changes of workers that a slow watcher may be behind before it has to start again.
const CHANGES: usize = 1024;

pub(crate) struct Scheduler {
    book: Mutex<Book>,
    /// Somebody waits for a worker.
    pub(crate) waiting: Notify,
    /// A worker became idle and nobody waits for it.
    pub(crate) idle: Notify,
    changes: broadcast::Sender<WorkerId>,
}

/// Answer to a claim.
pub(crate) enum Offer {
    Now(Claim),
    Later(Ticket),
}

impl Scheduler {
    pub(crate) fn new(queue_limit: usize) -> Self {
        Scheduler {
            book: Mutex::new(Book::new(queue_limit)),
            waiting: Notify::new(),
            idle: Notify::new(),
            changes: broadcast::channel(CHANGES).0,
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it holds the lock, short of a bug; then the book is still whole.
        self.book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn changed(&self, worker: &WorkerId) {
        if self.changes.receiver_count() > 0 {
            let _ = self.changes.send(worker.clone());
        }
    }

    /// Ids of workers that changed, from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<WorkerId> {
        self.changes.subscribe()
    }

    pub(crate) fn set_pool(&self, name: ObjectName, pool: PoolInfo) {
        self.book().set_pool(name, pool);
        self.waiting.notify_one();
    }

    pub(crate) fn remove_pool(&self, name: &ObjectName) {
        self.book().remove_pool(name);
    }

    /// The binaries of this configuration (`name@revision`) are known to work. Which workers have them, each says itself.
    pub(crate) fn set_verified(&self, config: String) {
        self.book().set_verified(config);
    }

    /// It has to be tried again before it counts.
    pub(crate) fn forget_verified(&self, config: &str) {
        self.book().forget_verified(config);
    }

    pub(crate) fn is_verified(&self, config: &str) -> bool {
        self.book().is_verified(config)
    }

    /// A worker is new or changed.
    pub(crate) fn report(&self, report: WorkerReport) {
        let id = report.id.clone();
        let idle = self.book().report(report);
        self.changed(&id);
        if idle {
            self.idle.notify_one();
        }
    }

    /// The worker is gone. Returns who was on it.
    pub(crate) fn lost(&self, id: &WorkerId) -> Option<Holder> {
        let holder = self.book().lost(id);
        self.changed(id);
        holder
    }

    /// Seats somebody whom the worker held before. False: the worker is gone or taken.
    pub(crate) fn adopt(&self, worker: &WorkerId, holder: Holder) -> bool {
        let done = self.book().adopt(worker, holder);
        self.changed(worker);
        done
    }

    /// Takes a suitable free worker, or a place in the queue. `exclude` have failed this actor already.
    pub(crate) fn claim(&self, need: &Arc<Need>, exclude: &[WorkerId]) -> Result<Offer, Error> {
        let offer = self.book().claim(need, exclude)?;
        match &offer {
            Offer::Now(claim) => self.changed(claim.worker()),
            Offer::Later(_) => self.waiting.notify_one(),
        }
        Ok(offer)
    }

    /// What a claim would find, without claiming anything.
    pub(crate) fn survey(&self, need: &Need) -> Survey {
        self.book().survey(need)
    }

    /// How many workers could take it at once, and how many if they were free.
    pub(crate) fn reach(&self, need: &Need) -> (usize, usize) {
        self.book().reach(need)
    }

    /// The platforms there are workers of, by digest.
    pub(crate) fn platforms(&self) -> BTreeMap<Digest, Platform> {
        self.book().platforms()
    }

    /// Leaves the queue; a worker that was handed over at the same moment is returned.
    pub(crate) fn leave(&self, ticket: Ticket) -> Option<Claim> {
        self.book().leave(ticket)
    }

    pub(crate) fn set_stage(
        &self,
        worker: &WorkerId,
        uid: &Uid,
        activation: Activation,
        stage: Stage,
        deadline: Option<Instant>,
    ) {
        self.book().set_stage(worker, uid, activation, stage, deadline);
        self.changed(worker);
    }

    pub(crate) fn set_running(&self, worker: &WorkerId, uid: &Uid, activation: Activation, address: std::net::IpAddr) {
        self.book().set_running(worker, uid, activation, address);
        self.changed(worker);
    }

    /// The actor that is off the worker now, which is being cleaned and not free yet. `None`: somebody else holds it.
    pub(crate) fn start_cleaning(&self, worker: &WorkerId, uid: &Uid, activation: Activation) -> Option<ActorName> {
        let off = self.book().start_cleaning(worker, uid, activation);
        self.changed(worker);
        off
    }

    /// The worker is clean of this activation: it goes to the first who waits for one like it.
    pub(crate) fn freed(&self, worker: &WorkerId, uid: &Uid, activation: Activation) {
        let idle = self.book().freed(worker, uid, activation);
        self.changed(worker);
        if idle {
            self.idle.notify_one();
        }
    }

    pub(crate) fn holder_of(&self, actor: &ActorName) -> Option<(WorkerId, Holder)> {
        self.book().holder_of(actor)
    }

    pub(crate) fn workers(&self) -> Vec<Worker> {
        self.book().workers().cloned().collect()
    }

    pub(crate) fn worker(&self, id: &WorkerId) -> Option<Worker> {
        self.book().worker(id).cloned()
    }

    /// Everybody who holds a worker.
    pub(crate) fn holders(&self) -> Vec<(WorkerId, Holder)> {
        self.book().holders()
    }

    /// Everybody on a worker that is about to go.
    pub(crate) fn on_leaving(&self) -> Vec<(WorkerId, Holder)> {
        self.book().on_leaving()
    }

    /// How many in the queue there are for whom no worker is on its way to being free.
    pub(crate) fn shortage(&self) -> usize {
        self.book().shortage()
    }

    /// Running actors that may be moved off their workers.
    pub(crate) fn movable(&self) -> Vec<(WorkerId, Holder)> {
        self.book().movable()
    }

    /// Which of these workers the queue needs, beside those that become free anyway: each serves the first in the queue whom
    /// it suits and whom none before it serves. Who waits for what there is none of keeps nobody else waiting.
    pub(crate) fn needed(&self, workers: &[&WorkerId]) -> Vec<bool> {
        self.book().needed(workers)
    }

    /// Free workers that have nothing prepared, and those that have.
    pub(crate) fn free(&self) -> (Vec<Worker>, Vec<Worker>) {
        self.book().free()
    }

    /// Notes a preparation, or that there is none any more, if nobody held the worker since it had `uses`.
    pub(crate) fn set_prepared(&self, worker: &WorkerId, uses: u64, prepared: Option<Preparation>) {
        self.book().set_prepared(worker, uses, prepared);
        self.changed(worker);
    }

    /// Current state of a pool: (workers, ready or in use, in use).
    pub(crate) fn pool_counts(&self, pool: &ObjectName) -> (usize, usize, usize) {
        self.book().pool_counts(pool)
    }
}

impl Holder {
    /// It is this actor in this activation.
    pub(crate) fn is_of(&self, actor: &ActorRecord) -> bool {
        self.uid == actor.uid && self.activation == actor.activation
    }

    /// How long somebody held his stage.
    pub(crate) fn held_for(&self) -> Duration {
        self.since.elapsed()
    }
}
