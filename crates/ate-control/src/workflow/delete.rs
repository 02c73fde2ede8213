//! Delete: the record goes first, in one transaction with everything that points to it; then the worker is freed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{Error, Reason, id::ActorName};
use ate_failpoint::step;
use ate_store::{Expect, Transaction};

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, keys},
    usage,
    workflow::{suspend::discard, turns::Kind},
};

impl Core {
    /// Ends the actor in whatever state it is. Flights that wait for something give up.
    pub(crate) async fn delete_actor(self: &Arc<Self>, name: &ActorName, deadline: Instant) -> Result<(), Error> {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |_| async move { core.run_delete(&actor).await };
        self.turns.take(name, Kind::Delete, deadline, work).await.map(drop)
    }

    async fn run_delete(self: &Arc<Self>, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        loop {
            let actor = match self.load(name).await {
                // By a deletion nobody heard of, perhaps.
                Err(e) if e.reason == Reason::NotFound => {
                    self.vacate(name).await;
                    return Err(e);
                }
                found => found?,
            };
            self.traffic.invalidate(name, actor.value.activation);
            match step!("delete.record", self.db.commit(remove(name, &actor)?)) {
                Ok(_) => self.live.forget(name),
                Err(e) if e.reason == Reason::Conflict => {
                    self.live.forget(name);
                    continue;
                }
                Err(e) => {
                    // Perhaps it is gone. Then so must be what it holds; else it goes on.
                    self.live.doubt(name);
                    self.recover_soon(name);
                    return Err(e.on(format!("actor/{name}")));
                }
            }
            // Those in flight get an answer if it comes at once; their actor is as good as gone.
            step!("delete.close", self.traffic.close(name, actor.value.activation, Duration::ZERO), plain);
            self.clean_leftover(name).await;
            let old: Vec<_> = actor.value.snapshot.iter().chain(&actor.value.fallback).cloned().collect();
            self.garbage.add(&old);
            return Ok(actor);
        }
    }
}

fn remove(name: &ActorName, actor: &Stored<ActorRecord>) -> Result<Transaction, Error> {
    let key = keys::actor(name);
    let mut tx = Transaction::new()
        .check(key.clone(), Expect::Version(actor.version))
        .delete(key)
        .delete(keys::busy(name))
        .delete(keys::by_template(&actor.value.template_uid, name));
    tx = usage::note(tx, name, actor.value.snapshot.as_ref(), None);
    for snapshot in actor.value.snapshot.iter().chain(&actor.value.fallback) {
        tx = discard(tx, snapshot)?;
    }
    Ok(tx)
}
