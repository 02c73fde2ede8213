//! Preparing ahead: an idle worker starts the sandbox that is likely to be wanted next, so that a resume does not
//! pay for it.
//!
//! Likely next is what was used last: of the templates (with their sandbox) in order of last use, the first one no
//! other idle worker is prepared for; if all are covered, the last used one.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use ate_agent::Prepare;
use ate_api::id::ObjectName;
use ate_sandbox::capability;

use crate::{
    core::Core,
    records::Revision,
    scheduler::{Prepared, Worker},
};

/// Templates remembered; more than one machine has workers for.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<(Prepared, ObjectName)>);

impl Recent {
    fn note(&mut self, prepared: Prepared, template: &ObjectName) {
        if self.0.front().is_some_and(|(p, _)| *p == prepared) {
            return;
        }
        self.0.retain(|(p, _)| *p != prepared);
        self.0.push_front((prepared, template.clone()));
        self.0.truncate(REMEMBERED);
    }
}

fn can_prepare(revision: &Revision) -> bool {
    revision.capabilities.iter().any(|c| c == capability::PREPARE)
}

impl Core {
    pub(crate) fn note_use(&self, prepared: Prepared, template: &ObjectName) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).note(prepared, template);
    }

    fn likely_next(&self, worker: &Worker, covered: &[Prepared]) -> Option<(Prepared, ObjectName)> {
        let recent: Vec<_> = self.recent.lock().unwrap_or_else(PoisonError::into_inner).0.iter().cloned().collect();
        let fits = |p: &Prepared| {
            let revision = self.catalog.revisions.get(&p.sandbox);
            revision.is_some_and(|r| r.value.reference.class == worker.report.class && can_prepare(&r.value))
        };
        let mut fitting = recent.into_iter().filter(|(p, _)| fits(p));
        let first = fitting.next()?;
        if !covered.contains(&first.0) {
            return Some(first);
        }
        Some(fitting.find(|(p, _)| !covered.contains(p)).unwrap_or(first))
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.scheduler.idle.notified() => {}
        }
        let (workers, mut covered) = core.scheduler.unprepared();
        for worker in workers {
            if let Some((prepared, template)) = core.likely_next(&worker, &covered)
                && prepare(&core, &worker, &prepared, &template).await
            {
                covered.push(prepared);
            }
        }
    }
}

async fn prepare(core: &Core, worker: &Worker, prepared: &Prepared, template: &ObjectName) -> bool {
    let Some(template) = core.catalog.template(template, &prepared.template) else { return false };
    let Ok(revision) = core.trusted_revision(&prepared.sandbox) else { return false };
    let call = core.node.prepare(Prepare {
        worker: worker.report.id.clone(),
        template: template.value.for_node(),
        sandbox: revision.reference.clone(),
        snapshot: template.value.golden.as_ref().map(crate::records::Snapshot::reference),
    });
    match tokio::time::timeout(core.options.activate_timeout, call).await {
        Ok(Ok(())) => {
            core.scheduler.set_prepared(&worker.report.id, worker.uses, prepared.clone());
            true
        }
        Ok(Err(e)) => {
            tracing::debug!(worker = %worker.report.id, error = %e, "nothing was prepared");
            false
        }
        Err(_) => false,
    }
}
