//! Follows the record of each class's rollout: one task per class, step by step, woken by changes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ate_api::{Error, Reason, id::Uid};
use ate_failpoint::step;

use super::{actors, sweep};
use crate::{
    core::Core,
    records::{Rollout, RolloutPhase as Phase, RolloutPolicy, StepState, Stopped, TemplateRecord, now_ms},
};

/// Looks at what others do (actors that resume, workers that come) this many ticks apart.
const TICKS: u32 = 5;

/// What there is to do next.
enum Next {
    AtOnce,
    /// Look again after this long.
    After(Duration),
    /// When the record changes.
    Nothing,
}

/// What is known of one rollout beside its record; a restart may forget it.
#[derive(Default)]
struct Memory {
    of: Option<Uid>,
    /// Failed attempts at the golden snapshot of a template.
    attempts: HashMap<Uid, u32>,
    failed: actors::Failed,
}

pub(crate) async fn run(core: Arc<Core>) {
    let mut changes = core.catalog.rollouts.watch();
    let mut known = HashSet::new();
    loop {
        changes.mark_unchanged();
        for (class, _) in core.catalog.rollouts.all() {
            if known.insert(class.clone()) {
                core.spawn(follow(core.clone(), class));
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = changes.changed() => {}
        }
    }
}

async fn follow(core: Arc<Core>, class: String) {
    let mut changes = core.catalog.rollouts.watch();
    let mut memory = Memory::default();
    let pause = core.options.tick * TICKS;
    loop {
        changes.mark_unchanged();
        let Some(rollout) = core.catalog.rollouts.get(&class).map(|r| r.value) else { return };
        if memory.of.as_ref() != Some(&rollout.uid) {
            memory = Memory { of: Some(rollout.uid.clone()), ..Memory::default() };
        }
        let next = step(&core, &rollout, &mut memory).await.unwrap_or_else(|e| {
            tracing::warn!(rollout = %rollout.object(), error = %e, "rollout does not go on yet");
            Next::After(pause)
        });
        let wait = match next {
            Next::AtOnce => continue,
            Next::After(time) => time,
            Next::Nothing => Duration::MAX,
        };
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn step(core: &Arc<Core>, rollout: &Rollout, memory: &mut Memory) -> Result<Next, Error> {
    if core.stop.is_cancelled() {
        return Ok(Next::Nothing);
    }
    let look_again = Next::After(core.options.tick * TICKS);
    match rollout.phase {
        phase if phase.is_active() => {
            if let Err(e) = core.trusted_revision(&rollout.to) {
                core.go_on(rollout, |r| fail(r, &e)).await?;
                return Ok(Next::AtOnce);
            }
            let behind = core.behind(rollout);
            if let Some(template) = behind.first() {
                step!("rollout.note", note_all(core, rollout, &behind), repeatable)?;
                return renew(core, rollout, template.clone(), memory).await;
            }
            if phase != Phase::Moving {
                step!("rollout.moving", begin_moving(core, rollout), repeatable)?;
                memory.failed = actors::Failed::default();
                return Ok(Next::AtOnce);
            }
            if core.left(rollout).await?.all() == 0 {
                step!("rollout.done", core.go_on(rollout, |r| r.enter(Phase::Done)), repeatable)?;
                return Ok(Next::AtOnce);
            }
            if rollout.policy == RolloutPolicy::Reboot {
                actors::move_round(core, rollout, &mut memory.failed).await?;
            }
            Ok(look_again)
        }
        Phase::Paused => {
            // Whoever asked to go on wants it to be tried again.
            *memory = Memory { of: memory.of.take(), ..Memory::default() };
            Ok(Next::Nothing)
        }
        _ if rollout.swept => Ok(Next::Nothing),
        _ => {
            if rollout.phase == Phase::Undone {
                core.take_back(rollout).await?;
            }
            if !sweep::sweep(core, rollout).await? {
                return Ok(look_again);
            }
            let swept = |r: &mut Rollout| {
                r.swept = r.uid == rollout.uid && r.phase == rollout.phase;
                Ok(())
            };
            step!("rollout.swept", core.change_rollout(&rollout.class, swept), repeatable)?;
            Ok(Next::Nothing)
        }
    }
}

/// So that people see all there is to do.
async fn note_all(core: &Core, rollout: &Rollout, behind: &[Arc<TemplateRecord>]) -> Result<(), Error> {
    for template in behind {
        if !rollout.steps.iter().any(|s| s.uid == *template.uid()) {
            core.set_step(rollout, template, StepState::Waiting).await?;
        }
    }
    Ok(())
}

async fn renew(
    core: &Arc<Core>,
    rollout: &Rollout,
    template: Arc<TemplateRecord>,
    memory: &mut Memory,
) -> Result<Next, Error> {
    let (name, uid) = (template.name(), template.uid().clone());
    let Err(e) = core.renew_golden(rollout, template).await else { return Ok(Next::AtOnce) };
    if core.catalog.template(&name, &uid).is_none_or(|t| t.value.deleting) || core.stop.is_cancelled() {
        return Ok(Next::AtOnce);
    }
    let waits = matches!(
        e.reason,
        Reason::NoFreeWorker | Reason::QueueFull | Reason::NoSuitableWorker | Reason::SecretUnavailable
    );
    let attempts = memory.attempts.entry(uid.clone()).or_default();
    *attempts += u32::from(!waits);
    let now = core.rollout(&rollout.class)?;
    let late = now.deadline_ms.is_some_and(|d| now_ms() > d);
    let final_word = !waits && !e.is_retryable();
    tracing::warn!(template = %name, error = %e, attempts, "golden snapshot of a rollout did not pass yet");
    if late || final_word || *attempts >= core.options.golden_attempts {
        let what = if now.phase == Phase::Testing { "could not be restored" } else { "could not be made" };
        let message = format!("its golden snapshot {what} under {}: {}", rollout.to, e.message);
        let e = Error { object: format!("actortemplate/{name}"), message, ..e };
        core.go_on(rollout, |r| {
            r.step(&uid).into_iter().for_each(|s| s.state = StepState::Failed);
            fail(r, &e);
        })
        .await?;
        return Ok(Next::AtOnce);
    }
    Ok(Next::After(core.options.golden_backoff * 2_u32.saturating_pow(attempts.saturating_sub(1))))
}

fn fail(rollout: &mut Rollout, e: &Error) {
    rollout.enter(Phase::Failed);
    rollout.stopped = Some(Stopped::from(e));
}

/// Every golden snapshot has passed.
async fn begin_moving(core: &Core, rollout: &Rollout) -> Result<(), Error> {
    let left = core.left(rollout).await?.all();
    core.go_on(rollout, |r| {
        r.total = r.total.max(left);
        r.enter(if r.policy == RolloutPolicy::Keep { Phase::Done } else { Phase::Moving });
    })
    .await
}
