//! Takes actors off their workers because of what they run under: files-only where the template has durable
//! directories, with nothing saved where it has none. What is in memory was made by a binary nobody trusts any more.

use std::{sync::Arc, time::Instant};

use ate_api::{
    Error,
    id::{ActorName, GOLDEN_ATESPACE},
};
use futures::{StreamExt, stream};

use crate::{
    core::Core,
    records::ActorRecord,
    scheduler::{Holder, Stage},
    workflow::turns::{Flight, Kind, Outcome},
};

/// Actors stopped at once. More would compete for the disk.
const PARALLEL: usize = 8;

/// How an actor fared.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Its durable directories are saved.
    Suspended,
    /// It is back at its last snapshot.
    Stopped,
    Failed(Error),
}

impl Core {
    /// Everybody, each in its turn.
    pub(crate) async fn stop_all(self: &Arc<Self>, holders: Vec<Holder>, why: &str) -> Vec<(ActorName, Fate)> {
        let stopping = stream::iter(holders).map(|holder| async move {
            let fate = self.stop_one(&holder, why).await;
            (holder.actor, fate)
        });
        let mut fates: Vec<_> = stopping.buffer_unordered(PARALLEL).collect().await;
        fates.sort_by(|(a, _), (b, _)| a.cmp(b));
        fates
    }

    async fn stop_one(self: &Arc<Self>, holder: &Holder, why: &str) -> Fate {
        let deadline = Instant::now() + self.options.capture_timeout + self.options.drain;
        let durable = match self.load(&holder.actor).await {
            Ok(actor) => self
                .catalog
                .template(&actor.value.template, &actor.value.template_uid)
                .is_some_and(|t| t.value.has_durable_dirs()),
            // Deleted meanwhile.
            Err(_) => false,
        };
        if durable && holder.actor.atespace != GOLDEN_ATESPACE {
            return match self.save_files(holder, deadline).await {
                Ok(_) => Fate::Suspended,
                Err(e) => Fate::Failed(e),
            };
        }
        match self.end_activation(holder, deadline, why).await {
            Ok(_) => Fate::Stopped,
            Err(e) if e.reason == ate_api::Reason::NotFound => Fate::Stopped,
            Err(e) => Fate::Failed(e),
        }
    }

    /// Suspends an activation with its durable directories only, if it is not over anyway: who was booted anew meanwhile
    /// keeps what he has.
    async fn save_files(self: &Arc<Self>, holder: &Holder, deadline: Instant) -> Outcome {
        let (core, holder, name) = (self.clone(), holder.clone(), holder.actor.clone());
        let work = move |flight: Flight| async move {
            let found = core.settled(&holder.actor).await?;
            if !is_still(&found.value, &holder) {
                return Ok(found);
            }
            core.run_suspend(&holder.actor, Kind::Files, core.options.drain, &flight).await
        };
        self.turns.take(&name, Kind::Files, deadline, work).await
    }

    /// Ends an activation and saves nothing of it, if it is not over anyway.
    async fn end_activation(self: &Arc<Self>, holder: &Holder, deadline: Instant, why: &str) -> Outcome {
        let (core, holder, name, why) = (self.clone(), holder.clone(), holder.actor.clone(), why.to_owned());
        let work = move |_| async move {
            let found = core.settled(&holder.actor).await?;
            if !is_still(&found.value, &holder) {
                return Ok(found);
            }
            let (actor, activation, drain) = (&holder.actor, holder.activation, core.options.drain);
            if let Some(seat) = &found.value.seat {
                // So that nobody who comes meanwhile finds it running, and opens what is closed here.
                let late = Instant::now() + drain + core.options.release_timeout;
                core.scheduler.set_stage(&seat.worker, &holder.uid, activation, Stage::Leaving, Some(late));
            }
            core.traffic.close(actor, activation, drain).await;
            let rest = core.put_to_rest(actor, found, ate_api::Reason::AssetRevoked.as_str(), &why).await;
            rest.inspect_err(|_| core.recover_soon(actor))
        };
        self.turns.take(&name, Kind::Stop, deadline, work).await
    }
}

/// The activation that was to be stopped goes on.
fn is_still(actor: &ActorRecord, holder: &Holder) -> bool {
    !actor.phase.is_at_rest() && holder.is_of(actor)
}
