//! A control plane that starts where workers outlive it: it asks who runs, before it puts anybody to rest.
//!
//! Whoever held a worker when the last one ended is *awaited*. A node reports him on that worker, under the activation
//! that is recorded: he is adopted and runs on. Who is not found within a grace is put to rest. Until one or the other
//! is decided, nothing else is begun with him. Whatever a worker holds that is nobody's any more is released.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use ate_agent::{Held, HeldStage, WorkerReport};
use ate_api::{
    Error, Reason,
    id::{ActorName, GOLDEN_ATESPACE, Uid, WorkerId},
};
use ate_failpoint::step;
use tokio::sync::watch;

use crate::{
    core::Core,
    db::Stored,
    policy::idle,
    records::{ActorRecord, Phase},
    scheduler::{Holder, Seat, Stage, Worker},
    workflow::turns::Kind,
};

/// An actor that reports are ahead of, or behind, is looked at again after this before anything is taken off a worker.
const DOUBT: std::time::Duration = std::time::Duration::from_secs(1);

/// Those whose fate is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Adoption(watch::Sender<BTreeMap<Uid, ActorName>>);

impl Adoption {
    fn awaits(&self, uid: &Uid) -> Option<ActorName> {
        self.0.borrow().get(uid).cloned()
    }

    fn decide(&self, uid: &Uid) {
        self.0.send_if_modified(|awaited| awaited.remove(uid).is_some());
    }

    /// Whether the fate of anybody is not known yet.
    pub(crate) fn goes_on(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// Returns when it is known whether the actor runs: at once, for nearly everybody. True: it was not known yet.
    async fn decided(&self, name: &ActorName) -> bool {
        let is_awaited = |awaited: &BTreeMap<Uid, ActorName>| awaited.values().any(|n| n == name);
        if !is_awaited(&self.0.borrow()) {
            return false;
        }
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(|awaited| !is_awaited(awaited)).await;
        true
    }
}

impl Core {
    /// Whoever held a worker. Before anything else may be begun with them.
    pub(crate) async fn await_all(&self) -> Result<usize, Error> {
        let awaited: BTreeMap<_, _> =
            self.find_busy().await?.into_iter().map(|(name, actor)| (actor.value.uid, name)).collect();
        let count = awaited.len();
        self.adoption.0.send_replace(awaited);
        Ok(count)
    }

    /// A worker says that it holds somebody: one who is known there, one who is awaited, or one who is nobody's.
    pub(crate) fn match_held(self: &Arc<Self>, id: &WorkerId) {
        let Some(worker) = self.scheduler.worker(id) else { return };
        let Some(held) = worker.report.holds.clone() else { return };
        if is_known_on(&worker, &held) {
            return;
        }
        let (core, report) = (self.clone(), worker.report);
        match (self.adoption.awaits(&held.actor), held.stage) {
            // It will say how that ended.
            (Some(_), HeldStage::Starting) => {}
            (Some(name), HeldStage::Running | HeldStage::Captured { .. }) => self.spawn(async move {
                match core.adopt(&name, &report, &held).await {
                    Ok(true) => {}
                    Ok(false) => core.evict(report.id.clone(), held).await,
                    Err(e) => {
                        tracing::warn!(actor = %name, worker = %report.id, error = %e, "actor could not be adopted");
                        core.forsake(&held.actor, &name).await;
                        core.evict(report.id.clone(), held).await;
                    }
                }
            }),
            (Some(name), HeldStage::Over) => self.spawn(async move {
                core.forsake(&held.actor, &name).await;
                core.evict(report.id.clone(), held).await;
            }),
            (None, _) => self.spawn(async move { core.evict(report.id.clone(), held).await }),
        }
    }

    /// False: the record says otherwise, so what the worker holds is nobody's.
    async fn adopt(self: &Arc<Self>, name: &ActorName, report: &WorkerReport, held: &Held) -> Result<bool, Error> {
        let Some(mut actor) = self.db.find_actor(name).await? else { return Ok(false) };
        if !is_of(&actor.value, report, held) {
            return Ok(false);
        }
        if let HeldStage::Captured { generation } = held.stage {
            // Whoever wanted that snapshot cannot commit it any more.
            let thaw = async {
                step!("adopt.thaw", self.node.thaw(&report.id, &held.actor, held.activation, generation), repeatable)
            };
            let limit = self.options.release_timeout;
            tokio::time::timeout(limit, thaw).await.unwrap_or_else(|_| {
                Err(Error::new(Reason::DeadlineExceeded, format!("thaw took longer than {limit:?}")))
            })?;
            actor.value.last_generation = actor.value.last_generation.max(generation);
        }
        let Some(seat) = &mut actor.value.seat else { return Ok(false) };
        seat.address = Some(report.address);
        let sandbox = seat.sandbox.clone();
        let template = self.catalog.template(&actor.value.template, &actor.value.template_uid);
        let idle_timeout = template.filter(|_| name.atespace != GOLDEN_ATESPACE);
        let holder = Holder {
            actor: name.clone(),
            uid: actor.value.uid.clone(),
            activation: held.activation,
            stage: Stage::Running,
            since: Instant::now(),
            deadline: None,
            idle_timeout: idle_timeout.and_then(|t| idle::timeout_of(&t.value)),
            movable: name.atespace != GOLDEN_ATESPACE,
            address: Some(report.address),
            default_port: self.default_port(&actor.value),
            sandbox,
        };
        actor.value.enter(Phase::Running, None);
        if self.adoption.awaits(&held.actor).is_none() || !self.scheduler.adopt(&report.id, holder) {
            return Ok(false);
        }
        self.show(name, &actor);
        self.open_traffic(name);
        self.adoption.decide(&held.actor);
        self.write_soon(name);
        tracing::info!(actor = %name, worker = %report.id, activation = %held.activation, "adopted");
        Ok(true)
    }

    /// Takes off a worker whoever is nobody's, if the worker still says so after a moment: reports may be late.
    async fn evict(self: &Arc<Self>, worker: WorkerId, held: Held) {
        loop {
            tokio::time::sleep(DOUBT).await;
            let Some(now) = self.scheduler.worker(&worker) else { return };
            let holds = now.report.holds.as_ref().is_some_and(|now| same(now, &held));
            if !holds || is_known_on(&now, &held) || self.stop.is_cancelled() {
                return;
            }
            let release =
                async { step!("adopt.release", self.node.release(&worker, &held.actor, held.activation), repeatable) };
            match tokio::time::timeout(self.options.release_timeout, release).await {
                Ok(Ok(())) => {
                    return tracing::warn!(%worker, actor = %held.actor, activation = %held.activation, "released what was nobody's");
                }
                Ok(Err(e)) if e.reason == Reason::Fenced => return,
                Ok(Err(e)) => tracing::warn!(%worker, error = %e, "a worker could not be cleaned yet"),
                Err(_) => tracing::warn!(%worker, "a worker could not be cleaned yet"),
            }
        }
    }

    /// He does not run any more: he goes to rest at what was last committed.
    async fn forsake(self: &Arc<Self>, uid: &Uid, name: &ActorName) {
        self.insist(name, "actor could not be put to rest yet", || async {
            let (core, actor) = (self.clone(), name.clone());
            let rest = move |_| async move { core.rest_awaited(&actor).await };
            // In its turn; who came before waits for the decision, and finds him gone.
            let turn = self.turns.take(name, Kind::Recover, self.default_deadline(), rest);
            self.adoption.decide(uid);
            match turn.await {
                Err(e) if e.reason == Reason::NotFound => Ok(()),
                done => done.map(drop),
            }
        })
        .await;
    }

    /// Before anything is begun with an actor: it runs, or is at rest and what was lost is told.
    pub(crate) async fn decide_first(self: &Arc<Self>, name: &ActorName) -> Result<(), Error> {
        if self.adoption.decided(name).await {
            self.rest_awaited(name).await?;
        }
        Ok(())
    }

    async fn rest_awaited(self: &Arc<Self>, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        let mut actor = self.load(name).await?;
        if actor.value.phase.is_at_rest() || self.is_alive(name, &actor.value) {
            return Ok(actor);
        }
        // That it runs is written off the clock: whoever was being started may have served already.
        actor.value.phase = Phase::Running;
        self.put_to_rest(name, actor, "WORKER_LOST", "its worker was not found again").await
    }
}

fn is_of(actor: &ActorRecord, report: &WorkerReport, held: &Held) -> bool {
    let seated = actor.seat.as_ref().is_some_and(|s| s.worker == report.id);
    !actor.phase.is_at_rest() && actor.uid == held.actor && actor.activation == held.activation && seated
}

/// It needs no decision: whoever is there is known, or on the way out.
fn is_known_on(worker: &Worker, held: &Held) -> bool {
    match &worker.seat {
        Seat::Held(h) => h.uid == held.actor && h.activation == held.activation,
        Seat::Cleaning(uid, activation) => *uid == held.actor && *activation == held.activation,
        Seat::Free => false,
    }
}

fn same(a: &Held, b: &Held) -> bool {
    a.actor == b.actor && a.activation == b.activation
}

/// Puts to rest whoever was not found within the grace.
pub(crate) async fn run(core: Arc<Core>) {
    let mut awaited = core.adoption.0.subscribe();
    tokio::select! {
        () = core.stop.cancelled() => return,
        _ = awaited.wait_for(BTreeMap::is_empty) => return,
        () = tokio::time::sleep(core.options.adoption_grace) => {}
    }
    let left = core.adoption.0.borrow().clone();
    tracing::warn!(actors = left.len(), "actors whose workers were not found again are put to rest");
    for (uid, name) in left {
        let core = core.clone();
        core.clone().spawn(async move { core.forsake(&uid, &name).await });
    }
}
