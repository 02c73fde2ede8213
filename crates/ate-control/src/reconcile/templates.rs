//! Sees to it that every template gets its golden snapshot, one task per template, tried again when something
//! changes that could help.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{
    Error, Reason,
    id::{ObjectName, Uid},
    resource::{Condition, meta::set_condition},
};

use crate::{core::Core, records::TemplateRecord};

/// A template that waits for a pool or a configuration is looked at this often even if nothing seems to change.
const AGAIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(core: Arc<Core>) {
    let mut changes = core.catalog.templates.watch();
    let active: Arc<Mutex<HashSet<Uid>>> = Arc::default();
    loop {
        changes.mark_unchanged();
        for (name, template) in core.catalog.templates.all() {
            let uid = template.value.uid().clone();
            let is_ready = template.value.golden.is_some() && template.value.phase() == "Ready";
            let wanted = !is_ready && !template.value.deleting;
            if wanted && active.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone()) {
                let (core, active) = (core.clone(), active.clone());
                core.clone().spawn(async move {
                    build(&core, &name, &uid).await;
                    active.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                });
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = changes.changed() => {}
        }
    }
}

/// Tries until there is a golden snapshot or the template is gone.
async fn build(core: &Arc<Core>, name: &ObjectName, uid: &Uid) {
    let mut attempts = 0;
    loop {
        let mut pools = core.catalog.pools.watch();
        let mut ready = core.config_ready.subscribe();
        let mut revoked = core.revoked.subscribe();
        let Err(e) = core.make_golden(name, uid).await else { return };
        if core.catalog.template(name, uid).is_none_or(|t| t.value.deleting) || core.stop.is_cancelled() {
            return;
        }
        let waits = waits_for_change(e.reason);
        attempts += u32::from(!waits);
        let failed = attempts >= core.options.golden_attempts || e.reason == Reason::MissingCapability;
        tracing::warn!(template = %name, error = %e, attempts, "golden snapshot could not be made yet");
        if let Err(e) = note(core, name, uid, &e, failed).await {
            tracing::warn!(template = %name, error = %e, "status could not be written");
        }
        if waits || failed {
            // Workers coming up do not change the pool's spec, but its status, which counts as a change here.
            tokio::select! {
                () = core.stop.cancelled() => return,
                _ = pools.changed() => {}
                _ = ready.changed() => {}
                _ = revoked.changed() => {}
                // What may go away by itself is tried again, however often it was.
                () = tokio::time::sleep(AGAIN), if !failed || e.is_retryable() => {}
            }
            if failed {
                attempts = 0;
            }
        } else {
            let pause = core.options.golden_backoff * 2_u32.saturating_pow(attempts.saturating_sub(1));
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Nothing is wrong with the template: something else has to come first.
fn waits_for_change(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::NoSuitableWorker
            | R::NoFreeWorker
            | R::QueueFull
            | R::NoSandboxConfig
            | R::MissingCapability
            | R::UnknownSandboxClass
            | R::AssetRevoked
            | R::SecretUnavailable
    )
}

async fn note(core: &Core, name: &ObjectName, uid: &Uid, e: &Error, failed: bool) -> Result<(), Error> {
    core.update_template(name, uid, |t| {
        let generation = t.resource.metadata.generation;
        let status = t.resource.status.get_or_insert_default();
        status.phase = if failed { "Failed" } else { "" }.to_owned();
        // The object is the actor that the golden snapshot is of: it has a number for a name, and nobody made it.
        let hint = if e.hint.is_empty() { String::new() } else { format!("; {}", e.hint) };
        let message = format!("{} ({}){hint}", e.message, e.reason);
        set_condition(
            &mut status.conditions,
            Condition::new("Ready", false, e.reason.camel_case(), message, generation),
        );
    })
    .await
    .map(drop)
}

/// In words, for errors about actors of the template.
pub(crate) fn why_not_ready(template: &TemplateRecord) -> String {
    let status = template.resource.status.as_ref();
    let condition = status.and_then(|s| s.conditions.iter().find(|c| c.r#type == "Ready"));
    match condition {
        Some(c) => c.message.clone(),
        None => match template.phase() {
            "" => "it is about to be made".to_owned(),
            phase => format!("phase {phase}"),
        },
    }
}
