//! Workers that are about to go, because their pod is deleted or their node is emptied: who is on one is suspended, and
//! resumes elsewhere when somebody asks.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::id::ActorName;
use tokio::sync::mpsc;

use crate::{core::Core, scheduler::Stage, workflow::turns::Kind};

/// Who could not be suspended is tried again after this, until the worker is gone.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(core: Arc<Core>) {
    let mut changes = core.scheduler.watch();
    let (done, mut ended) = mpsc::unbounded_channel::<ActorName>();
    let mut under_way: HashSet<ActorName> = HashSet::new();
    loop {
        let on_leaving = core.scheduler.on_leaving();
        let some = !on_leaving.is_empty();
        for (id, holder) in on_leaving {
            // One that starts is suspended once it runs.
            if holder.stage != Stage::Running || !under_way.insert(holder.actor.clone()) {
                continue;
            }
            let deadline = Instant::now() + core.options.capture_timeout + core.options.drain;
            let suspended = core.suspend(&holder.actor, Kind::Suspend, deadline, core.options.drain);
            let (actor, done) = (holder.actor, done.clone());
            core.spawn(async move {
                match suspended.await {
                    Ok(_) => tracing::info!(%actor, worker = %id, "suspended, because its worker leaves"),
                    Err(e) => {
                        tracing::warn!(%actor, worker = %id, error = %e, "not suspended yet, and its worker leaves")
                    }
                }
                let _ = done.send(actor);
            });
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = changes.recv() => while changes.try_recv().is_ok() {},
            Some(actor) = ended.recv() => drop(under_way.remove(&actor)),
            () = tokio::time::sleep(AGAIN), if some => {}
        }
    }
}
