//! One node of a fleet, for as long as it is one: told all there is to know, listened to, told again when it was away, and
//! given up when it stays away.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::{HeldStage, NodeEvent, WorkerReport};
use ate_api::{Error, Reason, id::WorkerId};

use super::{Inner, Member};

/// Before a node that went away is tried again.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(fleet: Arc<Inner>, member: Arc<Member>) {
    let mut heard = Instant::now();
    loop {
        let left = fleet.loss.saturating_sub(heard.elapsed());
        let why = tokio::select! {
            () = member.gone.cancelled() => return,
            why = attend(&fleet, &member, &mut heard, left) => why,
        };
        if member.here.send_replace(false) {
            tracing::warn!(node = member.name(), "a node went away: {}", why.message);
        }
        if heard.elapsed() >= fleet.loss {
            return give_up(&fleet, &member, &why.message);
        }
        tokio::select! {
            () = member.gone.cancelled() => return,
            () = tokio::time::sleep(AGAIN.min(fleet.loss)) => {}
        }
    }
}

/// Returns when the node is away. It takes part once it has been told all and has listed its workers, for which it has
/// the time that is `left`.
async fn attend(fleet: &Arc<Inner>, member: &Arc<Member>, heard: &mut Instant, left: Duration) -> Error {
    let by = Instant::now() + left;
    let mut version = match tokio::time::timeout_at(by.into(), tell(fleet, member)).await {
        Ok(Ok(version)) => version,
        Ok(Err(e)) => return e,
        Err(_) => return Error::new(Reason::Unavailable, "it does not answer"),
    };
    let mut events = member.agent.events();
    let mut listed = Some(BTreeSet::new());
    loop {
        let event = tokio::select! {
            event = events.recv() => event.ok_or("the connection ended"),
            () = member.again.notified() => Err("it did not answer a call"),
            () = tokio::time::sleep_until(by.into()), if listed.is_some() => Err("it does not answer"),
        };
        // One that takes part has nothing to say for hours, and is there.
        if listed.is_none() || event.is_ok() {
            *heard = Instant::now();
        }
        let event = match event {
            Ok(event) => event,
            Err(why) => return Error::new(Reason::Unavailable, why),
        };
        match event {
            NodeEvent::Worker(report) => {
                if let Some(listed) = &mut listed {
                    note_who_left(fleet, &report);
                    listed.insert(report.id.clone());
                }
                fleet.hub.report(WorkerReport { node: member.name().to_owned(), ..report });
            }
            NodeEvent::Listed => {
                lose(fleet, member, &listed.take().unwrap_or_default(), "it was gone when its node came back");
                // What was said meanwhile, it has not heard.
                while !take_part(fleet, member, version) {
                    version = match tell(fleet, member).await {
                        Ok(version) => version,
                        Err(e) => return e,
                    };
                }
                tracing::info!(node = member.name(), "a node takes part");
                fleet.uneven.notify_one();
            }
            NodeEvent::WorkerLost { id, message } => fleet.hub.lost(&id, message),
            other => fleet.hub.send(other),
        }
    }
}

/// Which version of what there is to know it knows.
async fn tell(fleet: &Arc<Inner>, member: &Arc<Member>) -> Result<u64, Error> {
    let (desired, n, of) = {
        let state = fleet.lock();
        let names: Vec<_> = state.here().iter().map(|m| m.name().to_owned()).collect();
        let others = names.iter().filter(|name| *name != member.name());
        let before = others.clone().filter(|name| name.as_str() < member.name()).count();
        (state.desired.clone(), before, others.count() + 1)
    };
    desired.tell(&member.agent, n, of).await?;
    Ok(desired.version)
}

/// False: there is something it does not know.
fn take_part(fleet: &Inner, member: &Member, version: u64) -> bool {
    let state = fleet.lock();
    let knows = state.desired.version == version;
    if knows && !member.gone.is_cancelled() {
        // Under the lock: whoever changes what there is to know finds it among those to be told.
        member.here.send_replace(true);
    }
    knows
}

/// A node that was away may come back with a worker that has lost whom it held, or was given another herder.
fn note_who_left(fleet: &Inner, report: &WorkerReport) {
    let before = fleet.hub.worker(&report.id).and_then(|r| r.holds).filter(|h| h.stage != HeldStage::Over);
    let Some(before) = before else { return };
    let still = report.holds.as_ref().is_some_and(|now| {
        now.actor == before.actor && now.activation == before.activation && now.stage != HeldStage::Over
    });
    if !still {
        fleet.hub.send(NodeEvent::ActorEnded {
            worker: report.id.clone(),
            actor: before.actor,
            activation: before.activation,
            message: "it was gone when its node came back".to_owned(),
        });
    }
}

fn give_up(fleet: &Arc<Inner>, member: &Arc<Member>, why: &str) {
    {
        let mut state = fleet.lock();
        if !state.members.get(member.name()).is_some_and(|m| Arc::ptr_eq(m, member)) {
            return;
        }
        state.members.remove(member.name());
        member.gone.cancel();
    }
    tracing::error!(node = member.name(), "a node is given up: not heard of for {:?}: {why}", fleet.loss);
    let message = format!("node {} was not heard of for {:?}", member.name(), fleet.loss);
    lose(fleet, member, &BTreeSet::new(), &message);
    fleet.uneven.notify_one();
}

/// The node's workers are gone, but for those `kept`.
fn lose(fleet: &Inner, member: &Member, kept: &BTreeSet<WorkerId>, message: &str) {
    let all = fleet.hub.workers();
    for gone in all.into_iter().filter(|r| r.node == member.name() && !kept.contains(&r.id)) {
        fleet.hub.lost(&gone.id, message.to_owned());
    }
}

/// Each node has its share of the pools. When there are more or fewer nodes it is told anew, and a change meanwhile begins
/// that again.
pub(super) async fn keep_shared_out(fleet: Arc<Inner>) {
    let mut uneven = false;
    loop {
        tokio::select! {
            () = fleet.stop.cancelled() => return,
            () = fleet.uneven.notified() => uneven = true,
            () = share_out(&fleet), if uneven => uneven = false,
        }
    }
}

async fn share_out(fleet: &Inner) {
    loop {
        let (desired, here) = {
            let state = fleet.lock();
            (state.desired.clone(), state.here())
        };
        for (n, member) in here.iter().enumerate() {
            if let Err(e) = desired.tell_pools(&member.agent, n, here.len()).await {
                tracing::warn!(node = member.name(), "not told of its shares: {e}");
                member.again.notify_one();
            }
        }
        // What was said meanwhile may have come before what was said here, which is older.
        if fleet.lock().desired.version == desired.version {
            return;
        }
    }
}
