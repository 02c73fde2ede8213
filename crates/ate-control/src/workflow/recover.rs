//! The way back: an activation that is over without a commit puts its actor to rest at the last committed
//! generation, and says so.

use std::{sync::Arc, time::Duration};

use ate_api::{Error, id::ActorName};
use ate_store::Transaction;

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, Phase, keys},
    workflow::turns::Kind,
};

impl Core {
    /// The actor in a phase that is true. Used at the start of every flight: whatever the flight before it left
    /// behind (a failed write, a lost worker) is put in order first.
    pub(crate) async fn settled(self: &Arc<Self>, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
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
    fn is_alive(&self, name: &ActorName, actor: &ActorRecord) -> bool {
        let held = self.scheduler.holder_of(name).is_some_and(|(_, h)| h.activation == actor.activation);
        actor.phase == Phase::Running && held
    }

    /// An actor at rest holds no worker.
    async fn clean_leftover(self: &Arc<Self>, name: &ActorName) {
        if let Some((worker, holder)) = self.scheduler.holder_of(name) {
            self.clean(&worker, &holder.uid, holder.activation).await;
        }
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
        self.write(name, actor.version, record, Transaction::new().delete(keys::busy(name))).await
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
            let found = core.load(&actor).await?;
            if found.value.phase.is_at_rest() {
                core.clean_leftover(&actor).await;
                return Ok(found);
            }
            let over = match activation {
                Some(ended) => ended == found.value.activation,
                None => !core.is_alive(&actor, &found.value),
            };
            if !over {
                return Ok(found);
            }
            core.put_to_rest(&actor, found, reason, &why).await
        };
        self.turns.take(name, Kind::Recover, self.default_deadline(), work).await.map(drop)
    }

    /// Recovers an actor behind the scenes, as often as it takes (the store may be away for a while).
    pub(crate) fn recover_soon(self: &Arc<Self>, name: &ActorName) {
        let (core, name) = (self.clone(), name.clone());
        self.spawn(async move {
            let mut pause = Duration::from_millis(100);
            while !core.stop.is_cancelled() {
                match core
                    .recover(&name, None, "WORKER_LOST", "its start or suspend could not be recorded".to_owned())
                    .await
                {
                    Ok(()) => return,
                    Err(e) if e.reason == ate_api::Reason::NotFound => return,
                    Err(e) => tracing::warn!(actor = %name, error = %e, "actor could not be recovered yet"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        });
    }
}
