//! Shows in the status of what people declared that its binaries are revoked.

use std::{sync::Arc, time::Duration};

use ate_api::{
    Error, Reason,
    resource::{Condition, meta::set_condition},
};

use crate::core::Core;

/// Type of the condition.
const REVOKED: &str = "Revoked";
/// Before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Sets the condition; takes it back if it was there.
pub(crate) fn set_revoked(conditions: &mut Vec<Condition>, generation: u64, refusal: Option<&Error>) {
    let condition = match refusal {
        Some(e) => Condition::new(REVOKED, true, e.reason.camel_case(), e.message.clone(), generation),
        None if !conditions.iter().any(|c| c.r#type == REVOKED) => return,
        None => Condition::new(REVOKED, false, "NotRevoked", "its binaries may run again", generation),
    };
    set_condition(conditions, condition);
}

/// Of templates, whose actors begin with a golden snapshot; pools and configurations are looked at by those who keep them.
pub(crate) async fn run(core: Arc<Core>) {
    let mut revoked = core.revoked.subscribe();
    let mut templates = core.catalog.templates.watch();
    loop {
        templates.mark_unchanged();
        let mut failed = false;
        for (name, template) in core.catalog.templates.all() {
            let Some(golden) = &template.value.golden else { continue };
            let refusal = core.trusted_revision(&golden.sandbox).err().filter(|e| e.reason == Reason::AssetRevoked);
            let marked = core.update_template(&name, template.value.uid(), |t| {
                let generation = t.resource.metadata.generation;
                let status = t.resource.status.get_or_insert_default();
                set_revoked(&mut status.conditions, generation, refusal.as_ref());
            });
            if let Err(e) = marked.await
                && e.reason != Reason::NotFound
            {
                tracing::warn!(template = %name, error = %e, "status could not be written");
                failed = true;
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = templates.changed() => {}
            () = tokio::time::sleep(AGAIN), if failed => {}
            _ = revoked.changed() => {
                // Pools come to work or cease to, and idle workers prepare for others.
                core.config_ready.send_modify(|n| *n += 1);
                core.scheduler.idle.notify_one();
            }
        }
    }
}
