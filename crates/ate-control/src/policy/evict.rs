//! Making room: when somebody waits for a worker, the actor that has been idle longest leaves its own.

use std::{sync::Arc, time::Duration};

use crate::{core::Core, policy::idle};

/// How often it is looked at whether somebody became idle, while there is a queue.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        if core.scheduler.shortage() == 0 {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = core.scheduler.waiting.notified() => {}
            }
        }
        make_room(&core);
        if core.scheduler.shortage() > 0 {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

fn make_room(core: &Arc<Core>) {
    if core.scheduler.shortage() == 0 {
        return;
    }
    let grace = core.options.eviction_grace;
    let mut candidates: Vec<_> = core
        .scheduler
        .movable()
        .into_iter()
        .map(|(worker, h)| (core.traffic.idle_for(&h.actor).unwrap_or_else(|| h.held_for()), worker, h))
        .filter(|(idle, _, _)| *idle >= grace)
        .collect();
    candidates.sort_by_key(|(idle, _, _)| std::cmp::Reverse(*idle));
    let workers: Vec<_> = candidates.iter().map(|(_, worker, _)| worker).collect();
    let needed = core.scheduler.needed(&workers);
    for ((_, worker, holder), _) in candidates.iter().zip(needed).filter(|(_, needed)| *needed) {
        // One who has a request now stays, and another is found with the next look.
        idle::move_out(core, worker, holder, grace);
    }
}
