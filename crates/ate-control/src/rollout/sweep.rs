//! After a rollout: golden snapshots nobody needs any more go the way of any snapshot. What rests on one keeps its bytes
//! (the deletion queue waits for that).

use std::{collections::BTreeSet, sync::Arc};

use ate_api::{Error, Reason, id::Digest};
use ate_failpoint::{period, step};

use crate::{
    core::Core,
    records::{Rollout, RolloutPhase as Phase, TemplateRecord, now_ms},
};

/// True: nothing is left to be taken away.
pub(super) async fn sweep(core: &Arc<Core>, rollout: &Rollout) -> Result<bool, Error> {
    // Of one that failed the former ones are kept: it may yet be undone.
    let undoable = rollout.phase == Phase::Failed;
    // Starts that were planned with a former one are over after this.
    let planned = period(core.options.resume_timeout + core.options.activate_timeout);
    let planned = i64::try_from(planned.as_millis()).unwrap_or(i64::MAX);
    if now_ms() < rollout.since_ms.saturating_add(planned) {
        return Ok(false);
    }
    let began_with = running_from(core).await;
    let mut clean = true;
    for (name, template) in core.catalog.templates.all() {
        let Some(uid) = Some(template.value.uid()).filter(|_| template.value.class == rollout.class) else { continue };
        if template.value.golden.is_none() || template.value.deleting {
            continue;
        }
        // Which golden snapshot is in force may have been written without our hearing of it.
        core.reload_template(&name).await?;
        let forget = |t: &mut TemplateRecord| {
            t.former.retain(|former| undoable || began_with.contains(&former.manifest));
        };
        let kept = step!("sweep.forget", core.update_template(&name, uid, forget), repeatable);
        let kept = match kept {
            Ok(template) => template,
            Err(e) if e.reason == Reason::NotFound => continue,
            Err(e) => return Err(e),
        };
        clean &= undoable || kept.former.is_empty();
        for actor in core.golden_actors(uid).await? {
            let record = core.load(&actor).await?.value;
            // Under what is in force one may just be made, for workers of another kind.
            if record.pinned.is_some() && record.pinned == kept.golden.as_ref().map(|g| g.sandbox.clone()) {
                continue;
            }
            if !record.snapshot.is_some_and(|s| kept.goldens().any(|g| g.manifest == s.manifest)) {
                step!("sweep.delete", core.delete_actor(&actor, core.default_deadline()))?;
            }
        }
    }
    Ok(clean)
}

/// Snapshots that actors on workers were restored from: what they save may rest on these.
async fn running_from(core: &Core) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    for (_, holder) in core.scheduler.holders() {
        if let Ok(actor) = core.load(&holder.actor).await {
            found.extend(actor.value.seat.and_then(|seat| seat.parent));
        }
    }
    found
}
