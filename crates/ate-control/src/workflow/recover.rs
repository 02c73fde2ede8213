//! The way back: an activation that is over without a commit puts its actor to rest at the last committed
//! generation, and says so.

use std::{sync::Arc, time::Duration};

use ate_api::{Error, Reason, id::ActorName};
use ate_failpoint::step;
use ate_store::Transaction;

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, Phase, keys},
    workflow::turns::Kind,
};

/// First and longest pause between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

impl Core {
    /// The actor in a phase that is true. Used at the start of every flight: whatever the flight before it left
    /// behind (a failed write, a lost worker) is put in order first.
    pub(crate) async fn settled(self: &Arc<Self>, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        self.decide_first(name).await?;
        let actor = self.load(name).await?;
        if actor.value.phase.is_at_rest() {
            self.clean_leftover(name).await;
            return Ok(actor);
        }
        if self.is_alive(name, &actor.value) {
            return Ok(actor);
        }
        self.put_to_rest(name, actor, "WORKER_LOST", "its worker is gone").await
    }

    /// The record says it runs, and the worker it runs on is there.
    pub(super) fn is_alive(&self, name: &ActorName, actor: &ActorRecord) -> bool {
        let held = self.scheduler.holder_of(name).is_some_and(|(_, h)| h.is_of(actor));
        actor.phase == Phase::Running && held
    }

    /// An actor at rest holds no worker.
    pub(crate) async fn clean_leftover(self: &Arc<Self>, name: &ActorName) {
        if let Some((worker, holder)) = self.scheduler.holder_of(name) {
            self.clean(&worker, &holder.uid, holder.activation).await;
        }
    }

    /// Nobody is there of this name, whatever memory says. In the actor's turn.
    pub(crate) async fn vacate(self: &Arc<Self>, name: &ActorName) {
        self.live.forget(name);
        self.clean_leftover(name).await;
    }

    /// Ends the current activation without a snapshot.
    pub(crate) async fn put_to_rest(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        reason: &str,
        why: &str,
    ) -> Result<Stored<ActorRecord>, Error> {
        let mut record = actor.value;
        self.traffic.invalidate(name, record.activation);
        self.clean_leftover(name).await;
        // A resume that never got through had nothing to lose.
        let had_state = record.phase != Phase::Resuming;
        record.fall_back_to_rest();
        let back_to = match record.generation() {
            0 => "it starts anew from its template".to_owned(),
            n => format!("back to generation {n}"),
        };
        if had_state {
            record.lost += 1;
            record.tell(reason, format!("activation {} lost: {why}; {back_to}", record.activation));
        } else {
            record.tell(reason, format!("activation {} did not start: {why}", record.activation));
        }
        let tx = Transaction::new().delete(keys::busy(name));
        step!("recover.record", self.write(name, actor.version, record, tx))
    }

    /// A write that failed may still come to be, unless there is a later one: this.
    async fn settle(&self, name: &ActorName, actor: Stored<ActorRecord>) -> Result<Stored<ActorRecord>, Error> {
        step!("recover.settle", self.write(name, actor.version, actor.value, Transaction::new()))
    }

    /// Recovers one actor in its turn. `activation`: only if that one is still current.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        name: &ActorName,
        activation: Option<ate_api::id::Activation>,
        reason: &'static str,
        why: String,
    ) -> Result<(), Error> {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |_| async move {
            // What it comes to is found out below, whoever was or was not there.
            let _ = core.decide_first(&actor).await;
            let found = match core.load(&actor).await {
                // Whoever deleted it may not know that it is gone.
                Err(e) if e.reason == Reason::NotFound => {
                    core.vacate(&actor).await;
                    return Err(e);
                }
                found => found?,
            };
            if found.value.phase.is_at_rest() {
                core.clean_leftover(&actor).await;
                return if activation.is_some() { Ok(found) } else { core.settle(&actor, found).await };
            }
            let over = match activation {
                Some(ended) => ended == found.value.activation,
                None => !core.is_alive(&actor, &found.value),
            };
            if over {
                return core.put_to_rest(&actor, found, reason, &why).await;
            }
            let stored = core.live.is_stored(&actor);
            let goes_on = if stored { found } else { core.settle(&actor, found).await? };
            // It may have been about to leave, and how that ended could not be recorded.
            if core.is_alive(&actor, &goes_on.value) {
                core.reopen(&actor, &goes_on.value);
            }
            Ok(goes_on)
        };
        self.turns.take(name, Kind::Recover, self.default_deadline(), work).await.map(drop)
    }

    /// Recovers an actor behind the scenes.
    pub(crate) fn recover_soon(self: &Arc<Self>, name: &ActorName) {
        let (core, name) = (self.clone(), name.clone());
        self.spawn(async move { core.recover_patiently(&name).await });
    }

    /// As often as it takes: the store may be away for a while.
    pub(crate) async fn recover_patiently(self: &Arc<Self>, name: &ActorName) {
        let why = || "its start or suspend could not be recorded".to_owned();
        self.insist(name, "actor could not be recovered yet", || async {
            match self.recover(name, None, "WORKER_LOST", why()).await {
                Err(e) if e.reason == Reason::NotFound => Ok(()),
                done => done,
            }
        })
        .await;
    }

    /// Tries until it succeeds or the server stops.
    pub(crate) async fn insist<F: Future<Output = Result<(), Error>>>(
        &self,
        object: impl std::fmt::Display,
        failure: &str,
        attempt: impl Fn() -> F,
    ) {
        let mut pause = RETRY.0;
        while !self.stop.is_cancelled() {
            let Err(e) = attempt().await else { return };
            tracing::warn!(%object, error = %e, "{failure}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }
}
