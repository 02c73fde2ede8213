//! What the node tells without being asked.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ate_agent::NodeEvent;
use ate_api::id::WorkerId;

use crate::core::Core;

/// Pause before a broken event stream is opened again.
const REOPEN: Duration = Duration::from_millis(500);

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let mut events = core.node.events();
        // Of those told before [`NodeEvent::Listed`].
        let mut listed = Some(HashSet::new());
        loop {
            tokio::select! {
                () = core.stop.cancelled() => return,
                event = events.recv() => match event {
                    Some(NodeEvent::Listed) => lose_others(&core, listed.take().unwrap_or_default()),
                    Some(event) => {
                        if let (NodeEvent::Worker(report), Some(listed)) = (&event, &mut listed) {
                            listed.insert(report.id.clone());
                        }
                        handle(&core, event);
                    }
                    None => break,
                },
            }
        }
        tracing::warn!("the node's event stream ended, opening it again");
        tokio::time::sleep(REOPEN).await;
        core.node_back.notify_one();
    }
}

fn handle(core: &Arc<Core>, event: NodeEvent) {
    match event {
        NodeEvent::Worker(report) => {
            let id = report.id.clone();
            core.scheduler.report(report);
            core.match_held(&id);
        }
        NodeEvent::WorkerLost { id, message } => lost(core, &id, &message),
        // Handled where the stream is known it belongs to.
        NodeEvent::Listed => {}
        NodeEvent::ActorEnded { worker, actor, activation, message } => {
            let held = core.scheduler.worker(&worker).and_then(|w| w.holder().cloned());
            if let Some(holder) = held.filter(|h| h.uid == actor && h.activation == activation) {
                recover(
                    core,
                    holder.actor,
                    activation,
                    "ACTOR_EXITED",
                    format!("the actor ended by itself: {message}"),
                );
            }
        }
        NodeEvent::Asset(report) => {
            core.assets.lock().unwrap_or_else(PoisonError::into_inner).insert(report.sha256.clone(), report.clone());
            let _ = core.asset_changes.send(report);
        }
    }
}

/// Workers that went while nobody listened.
fn lose_others(core: &Arc<Core>, listed: HashSet<WorkerId>) {
    for worker in core.scheduler.workers().iter().map(|w| &w.report.id).filter(|id| !listed.contains(*id)) {
        lost(core, worker, "it was gone when the node was asked again");
    }
}

fn lost(core: &Arc<Core>, id: &WorkerId, message: &str) {
    if let Some(holder) = core.scheduler.lost(id) {
        let why = format!("worker {id} was lost: {message}");
        recover(core, holder.actor, holder.activation, "WORKER_LOST", why);
    }
}

fn recover(
    core: &Arc<Core>,
    actor: ate_api::id::ActorName,
    activation: ate_api::id::Activation,
    reason: &'static str,
    why: String,
) {
    // Requests must not wait for the record.
    core.traffic.invalidate(&actor, activation);
    let core = core.clone();
    core.clone().spawn(async move {
        if let Err(e) = core.recover(&actor, Some(activation), reason, why).await
            && e.reason != ate_api::Reason::NotFound
        {
            core.recover_soon(&actor);
        }
    });
}
