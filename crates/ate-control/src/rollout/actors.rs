//! Moves actors at rest: a boot under the new revision with their durable directories, and back to rest. Never one that
//! has a request, and only so many at a time; whoever cannot be moved stays as it was.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{Error, Reason, id::ActorName};
use ate_failpoint::step;
use futures::{StreamExt, stream};

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, ConfigKey, Rollout, RolloutPhase, Stopped},
    workflow::turns::{Flight, Kind},
};

/// Names read from the index at a time.
const PAGE: usize = 256;
/// Tries of one actor, in rounds one after the other.
const TRIES: u32 = 3;
/// Failures without a success in between after which the rollout pauses: it is not the actors then.
const IN_A_ROW: u32 = 5;

/// Who could not be moved.
#[derive(Default)]
pub(super) struct Failed {
    tries: HashMap<ActorName, u32>,
    in_a_row: u32,
    last: Option<Error>,
}

impl Failed {
    fn note(&mut self, actor: &ActorName, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.in_a_row = 0,
            // No worker is nobody's fault.
            Err(e) if matches!(e.reason, Reason::NoFreeWorker | Reason::QueueFull | Reason::NotFound) => {}
            Err(e) => {
                tracing::warn!(%actor, error = %e, "actor could not be moved and stays as it was");
                *self.tries.entry(actor.clone()).or_default() += 1;
                self.in_a_row += 1;
                self.last = Some(e);
            }
        }
    }

    fn gave_up(&self, actor: &ActorName) -> bool {
        self.tries.get(actor).is_some_and(|n| *n >= TRIES)
    }
}

/// Everybody at rest, once. Pauses the rollout when it leads nowhere.
pub(super) async fn move_round(core: &Arc<Core>, rollout: &Rollout, failed: &mut Failed) -> Result<(), Error> {
    let shared = Mutex::new(std::mem::take(failed));
    let done = move_all(core, rollout, &shared).await;
    *failed = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tried = done?;
    let Some(last) = failed.last.clone().filter(|_| failed.in_a_row >= IN_A_ROW || !tried) else { return Ok(()) };
    let count = failed.tries.len();
    let message = format!("{count} actors could not be moved and stay as they were; the last one: {}", last.message);
    let stopped = Error { message, ..last }.hint(format!(
        "`ate sandbox rollout resume --class {0}` tries again, `ate sandbox rollout undo --class {0}` goes back",
        rollout.class
    ));
    core.go_on(rollout, |r| {
        r.enter(RolloutPhase::Paused);
        r.stopped = Some(Stopped::from(&stopped));
    })
    .await
}

/// False: there was nobody at rest to try, except those who were given up.
async fn move_all(core: &Arc<Core>, rollout: &Rollout, failed: &Mutex<Failed>) -> Result<bool, Error> {
    let lock = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut tried, mut given_up) = (false, false);
    for revision in core.replaced(rollout) {
        let mut after: Option<String> = None;
        loop {
            let page = core.suspended_under(&revision, after.as_deref(), PAGE).await?;
            after = page.last().cloned();
            let last = page.len() < PAGE;
            let names = page.iter().filter_map(|name| name.split_once('/'));
            let mut names: Vec<_> = names.map(|(atespace, name)| ActorName::new(atespace, name)).collect();
            let all = names.len();
            names.retain(|name| !lock().gave_up(name));
            given_up |= names.len() < all;
            tried |= !names.is_empty();
            stream::iter(names)
                .for_each_concurrent(rollout.at_once(), |name| async move {
                    let stuck = lock().in_a_row >= IN_A_ROW;
                    if !stuck && is_moving(core, rollout) {
                        let outcome = core.move_actor(&name, rollout).await;
                        lock().note(&name, outcome);
                    }
                })
                .await;
            if last || !is_moving(core, rollout) {
                break;
            }
        }
    }
    Ok(tried || !given_up)
}

fn is_moving(core: &Core, rollout: &Rollout) -> bool {
    let now = core.catalog.rollouts.get(&rollout.class);
    !core.stop.is_cancelled()
        && now.is_some_and(|now| now.value.uid == rollout.uid && now.value.phase == RolloutPhase::Moving)
}

impl Core {
    async fn move_actor(self: &Arc<Self>, name: &ActorName, rollout: &Rollout) -> Result<(), Error> {
        let (core, actor, rollout) = (self.clone(), name.clone(), rollout.clone());
        let work = move |flight: Flight| async move { core.run_move(&actor, &rollout, &flight).await };
        let deadline = Instant::now() + self.options.resume_timeout + self.options.capture_timeout;
        self.turns.take(name, Kind::Move, deadline, work).await.map(drop)
    }

    async fn run_move(
        self: &Arc<Self>,
        name: &ActorName,
        rollout: &Rollout,
        flight: &Flight,
    ) -> Result<Stored<ActorRecord>, Error> {
        let found = self.settled(name).await?;
        let behind = |key: &ConfigKey| self.catalog.revisions.get(key).is_some_and(|r| rollout.replaces(&r.value));
        let due = found.value.phase.is_at_rest() && found.value.snapshot.as_ref().is_some_and(|s| behind(&s.sandbox));
        if !due || !is_moving(self, rollout) {
            return Ok(found);
        }
        let running = match step!("move.boot", self.run_resume(name, true, flight)) {
            // Its directories are inside its memory, and have to come out of that first.
            Err(e) if e.reason == Reason::MissingCapability => {
                let before = self.run_resume(name, false, flight).await?;
                if !self.leaves_unasked(name, &before) {
                    return Ok(before);
                }
                self.run_suspend(name, Kind::Files, Duration::ZERO, flight).await?;
                self.run_resume(name, false, flight).await?
            }
            booted => booted?,
        };
        if !self.leaves_unasked(name, &running) {
            return Ok(running);
        }
        step!("move.suspend", self.run_suspend(name, Kind::Suspend, Duration::ZERO, flight))
    }

    /// Nobody came for the actor, and no request comes through any more. Otherwise it stays for them, and is suspended
    /// when it is idle, like any.
    fn leaves_unasked(&self, name: &ActorName, running: &Stored<ActorRecord>) -> bool {
        !self.turns.is_awaited(name) && self.traffic.close_if_idle(name, running.value.activation, Duration::ZERO)
    }
}
