//! What the node tells without being asked.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use ate_agent::NodeEvent;

use crate::core::Core;

/// Pause before a broken event stream is opened again.
const REOPEN: Duration = Duration::from_millis(500);

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let mut events = core.node.events();
        loop {
            tokio::select! {
                () = core.stop.cancelled() => return,
                event = events.recv() => match event {
                    Some(event) => handle(&core, event),
                    None => break,
                },
            }
        }
        tracing::warn!("the node's event stream ended, opening it again");
        tokio::time::sleep(REOPEN).await;
    }
}

fn handle(core: &Arc<Core>, event: NodeEvent) {
    match event {
        NodeEvent::Worker(report) => core.scheduler.report(report),
        NodeEvent::WorkerLost { id, message } => {
            if let Some(holder) = core.scheduler.lost(&id) {
                let why = format!("worker {id} was lost: {message}");
                recover(core, holder.actor, holder.activation, "WORKER_LOST", why);
            }
        }
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
