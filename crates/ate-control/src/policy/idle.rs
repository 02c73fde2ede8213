//! The idle policy, and the clock of everything that holds a worker.
//!
//! Everybody who can be idle or late holds a worker, so one look at the workers per tick is enough, however many
//! actors there are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::resource::duration;

use crate::{
    core::Core,
    records::TemplateRecord,
    scheduler::{Holder, Stage},
    workflow::turns::Kind,
};

/// When a template says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// `None`: never suspended for being idle.
pub(crate) fn timeout_of(template: &TemplateRecord) -> Option<Duration> {
    match template.resource.spec.idle_timeout.as_deref() {
        None => Some(DEFAULT_TIMEOUT),
        // Checked when the template was written.
        Some(text) => duration::parse(text).ok().filter(|t| !t.is_zero()),
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut tick = tokio::time::interval(core.options.tick);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for (worker, holder) in core.scheduler.holders() {
            if holder.deadline.is_some_and(|d| Instant::now() > d) {
                tracing::warn!(actor = %holder.actor, %worker, stage = ?holder.stage, "deadline passed, recovering");
                core.scheduler.set_stage(&worker, &holder.uid, holder.activation, holder.stage, None);
                core.recover_soon(&holder.actor);
            } else if holder.stage == Stage::Running {
                suspend_if_idle(&core, &worker, &holder);
            }
        }
    }
}

fn suspend_if_idle(core: &Arc<Core>, worker: &ate_api::id::WorkerId, holder: &Holder) {
    let Some(timeout) = holder.idle_timeout else { return };
    let idle = core.traffic.idle_for(&holder.actor).unwrap_or_else(|| holder.held_for());
    if idle >= timeout {
        move_out(core, worker, holder, timeout);
    }
}

/// Suspends an actor that had no request for `idle`. False: it has one now.
pub(crate) fn move_out(core: &Arc<Core>, worker: &ate_api::id::WorkerId, holder: &Holder, idle: Duration) -> bool {
    if !core.traffic.close_if_idle(&holder.actor, holder.activation, idle) {
        return false;
    }
    let (actor, uid, activation) = (holder.actor.clone(), holder.uid.clone(), holder.activation);
    let deadline = Instant::now() + core.options.capture_timeout + core.options.release_timeout;
    core.scheduler.set_stage(worker, &uid, activation, Stage::Leaving, Some(deadline));
    let suspended = core.suspend(&actor, Kind::Suspend, deadline, Duration::ZERO);
    let (core, worker) = (core.clone(), worker.clone());
    let address = holder.address;
    core.clone().spawn(async move {
        let Err(e) = suspended.await else { return };
        tracing::warn!(%actor, error = %e, "idle actor could not be suspended");
        // Still as we left it: nobody else has taken care of it.
        let untouched = |h: &Holder| h.uid == uid && h.activation == activation && h.stage == Stage::Leaving;
        if let (Some(_), Some(address)) = (core.scheduler.holder_of(&actor).filter(|(_, h)| untouched(h)), address)
            && !core.turns.is_busy(&actor)
        {
            core.scheduler.set_running(&worker, &uid, activation, address);
            core.open_traffic(&actor);
        }
    });
    true
}
