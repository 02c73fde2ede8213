//! Preparing ahead: an idle worker starts the sandbox that is likely to be wanted next, so that a resume does not
//! pay for it.
//!
//! Likely next is what was used last: of the templates (with their sandbox) in order of last use, the first one no
//! other idle worker is prepared for; if all are covered, the last used one.
//!
//! While new actors of a template are expected (see [`super::demand`]) the idle workers prepared for it also have a
//! standby, if its sandbox can: the golden snapshot is restored already.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use ate_agent::Prepare;
use ate_api::{Error, Reason, id::ObjectName, resource::template::Scope};
use ate_failpoint::{again, step};
use ate_sandbox::capability;

use crate::{
    core::Core,
    records::Snapshot,
    scheduler::{Preparation, Prepared, Worker},
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

impl Core {
    pub(crate) fn note_use(&self, prepared: Prepared, template: &ObjectName) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).note(prepared, template);
    }

    fn recent(&self) -> Vec<(Prepared, ObjectName)> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).0.iter().cloned().collect()
    }

    /// Whether the sandbox is of the class, if one is named, and can do this.
    fn can(&self, prepared: &Prepared, class: Option<&str>, capability: &str) -> bool {
        self.catalog.revisions.get(&prepared.sandbox).is_some_and(|r| {
            class.is_none_or(|class| r.value.reference.class == class)
                && r.value.capabilities.iter().any(|c| c == capability)
        })
    }

    fn likely_next(&self, worker: &Worker, covered: &[Prepared]) -> Option<(Prepared, ObjectName)> {
        let recent = self.recent().into_iter();
        let mut fitting = recent.filter(|(p, _)| {
            self.can(p, Some(&worker.report.class), capability::PREPARE) && self.trusted_revision(&p.sandbox).is_ok()
        });
        let first = fitting.next()?;
        if !covered.contains(&first.0) {
            return Some(first);
        }
        Some(fitting.find(|(p, _)| !covered.contains(p)).unwrap_or(first))
    }

    /// What new actors begin with on this worker, if that is restored under the sandbox that is prepared.
    fn beginning(&self, worker: &Worker, prepared: &Prepared, template: &ObjectName) -> Option<Snapshot> {
        let template = self.catalog.template(template, &prepared.template)?.value;
        // One without memory is nothing to restore: new actors boot.
        let restored = |golden: &&Snapshot| {
            let fits = || self.fits_platform(golden, &worker.report.platform);
            golden.scope == Scope::Full && golden.sandbox == prepared.sandbox && fits()
        };
        template.beginnings().find(restored).cloned()
    }

    fn wants_standby(&self, worker: &Worker, prepared: &Prepared, template: &ObjectName) -> bool {
        self.expects_new(&prepared.template)
            && self.can(prepared, None, capability::STANDBY)
            && self.beginning(worker, prepared, template).is_some()
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.scheduler.idle.notified() => {}
        }
        let (bare, prepared) = core.scheduler.free();
        let mut covered: Vec<Prepared> =
            prepared.iter().filter_map(|w| Some(w.prepared.as_ref()?.fits.clone())).collect();
        for worker in bare {
            if let Some((prepared, template)) = core.likely_next(&worker, &covered)
                && prepare(&core, &worker, &prepared, &template).await
            {
                covered.push(prepared);
            }
        }
        add_standbys(&core, prepared).await;
    }
}

/// One worker after the other, so that the others stay as they are meanwhile.
async fn add_standbys(core: &Core, workers: Vec<Worker>) {
    let recent = core.recent();
    for worker in workers {
        let Some(Preparation { fits, standby: false, .. }) = &worker.prepared else { continue };
        let Some((_, template)) = recent.iter().find(|(p, _)| p == fits) else { continue };
        if core.wants_standby(&worker, fits, template) && is_unused(core, &worker) {
            // An actor that comes now had better go elsewhere.
            core.scheduler.set_prepared(&worker.report.id, worker.uses, None);
            prepare(core, &worker, fits, template).await;
        }
    }
}

/// Nobody has taken the worker since it was looked at.
fn is_unused(core: &Core, worker: &Worker) -> bool {
    core.scheduler.worker(&worker.report.id).is_some_and(|now| now.uses == worker.uses)
}

/// With a standby if one is wanted. One that cannot be made must not cost the preparation.
async fn prepare(core: &Core, worker: &Worker, prepared: &Prepared, template: &ObjectName) -> bool {
    let standby = core.wants_standby(worker, prepared, template);
    let mut done = prepare_as(core, worker, prepared, template, standby).await;
    if let Err(e) = &done
        && standby
        && is_unused(core, worker)
    {
        tracing::warn!(worker = %worker.report.id, template = %template, error = %e, "no standby could be made");
        core.forget_demand(&prepared.template);
        done = prepare_as(core, worker, prepared, template, false).await;
    }
    done.inspect_err(|e| tracing::debug!(worker = %worker.report.id, error = %e, "nothing was prepared")).is_ok()
}

async fn prepare_as(
    core: &Core,
    worker: &Worker,
    prepared: &Prepared,
    template: &ObjectName,
    standby: bool,
) -> Result<(), Error> {
    let gone = || Error::new(Reason::NotFound, "the template is gone").on(format!("actortemplate/{template}"));
    let for_node = core.catalog.template(template, &prepared.template).ok_or_else(gone)?.value.for_node();
    let revision = core.trusted_revision(&prepared.sandbox)?;
    let snapshot = core.beginning(worker, prepared, template);
    let prepare = Prepare {
        worker: worker.report.id.clone(),
        template: for_node,
        sandbox: revision.reference.clone(),
        snapshot: snapshot.as_ref().map(Snapshot::reference),
        standby,
    };
    let call = async { step!("prepare.node", core.node.prepare(again!(prepare)), repeatable) };
    let limit = core.options.activate_timeout;
    let late = |_| Err(Error::new(Reason::DeadlineExceeded, format!("it took longer than {limit:?}")));
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)?;
    let preparation = Preparation { fits: prepared.clone(), snapshot: snapshot.map(|s| s.manifest), standby };
    core.scheduler.set_prepared(&worker.report.id, worker.uses, Some(preparation));
    Ok(())
}
