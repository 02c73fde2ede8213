//! Records of actors that hold a worker, in memory, and which of their changes are written when.
//!
//! Two changes are durable before anything else happens: the claim (who runs where, under which number) and the flip
//! (which snapshot is current). The phases in between, Running and Suspending, tell people and a restart nothing that
//! the claim does not: whoever held a worker is put to rest. They are written off the clock, and not at all when the
//! next step comes first. Until then this memory is what is shown.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{Error, id::ActorName};
use ate_store::Transaction;

use crate::{
    core::Core,
    db::Stored,
    records::ActorRecord,
    workflow::turns::{Flight, Kind},
};

/// A phase that lasts shorter is not worth a write. A hundredth of a real suspend or so.
pub(crate) const WORTH_WRITING: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<HashMap<ActorName, Entry>>);

#[derive(Debug)]
struct Entry {
    /// With the version of what is stored.
    record: Stored<ActorRecord>,
    /// What is stored is an earlier phase of the same activation.
    unwritten: bool,
}

impl Live {
    fn get(&self, name: &ActorName) -> Option<Stored<ActorRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(|e| e.record.clone())
    }

    fn unwritten(&self, name: &ActorName) -> Option<Stored<ActorRecord>> {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(name).filter(|e| e.unwritten).map(|e| e.record.clone())
    }

    fn set(&self, name: &ActorName, record: Stored<ActorRecord>, unwritten: bool) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.insert(name.clone(), Entry { record, unwritten });
    }

    /// From now on only the store knows.
    pub(crate) fn forget(&self, name: &ActorName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Core {
    /// The actor as it is now.
    pub(crate) async fn load(&self, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        match self.live.get(name) {
            Some(record) => Ok(record),
            None => self.db.actor(name).await,
        }
    }

    /// The same for a record that was just read from the store.
    pub(crate) fn freshest(&self, name: &ActorName, read: Stored<ActorRecord>) -> Stored<ActorRecord> {
        self.live.get(name).filter(|live| live.value.uid == read.value.uid).unwrap_or(read)
    }

    /// Writes the actor with what else `tx` holds, if nobody else did since `read`. Only to be called in a flight of
    /// the actor. After an error nothing is known; the store has to be asked.
    pub(crate) async fn write(
        &self,
        name: &ActorName,
        read: u64,
        record: ActorRecord,
        tx: Transaction,
    ) -> Result<Stored<ActorRecord>, Error> {
        match self.db.put_actor(name, read, record, tx).await {
            Ok(written) => {
                if written.value.phase.is_at_rest() {
                    self.live.forget(name);
                } else {
                    self.live.set(name, written.clone(), false);
                }
                Ok(written)
            }
            Err(e) => {
                self.live.forget(name);
                Err(e)
            }
        }
    }

    /// Shows a phase that is not written yet.
    pub(crate) fn show(&self, name: &ActorName, record: &Stored<ActorRecord>) {
        self.live.set(name, record.clone(), true);
    }

    /// Writes the phase shown, unless the actor's next step comes first.
    pub(crate) fn write_soon(self: &Arc<Self>, name: &ActorName) {
        if self.live.unwritten(name).is_none() {
            return;
        }
        let (core, actor) = (self.clone(), name.clone());
        let work = move |flight: Flight| async move {
            tokio::select! {
                () = flight.followed.cancelled() => {}
                () = tokio::time::sleep(WORTH_WRITING) => {}
            }
            let Some(shown) = core.live.unwritten(&actor).filter(|_| !flight.followed.is_cancelled()) else {
                return core.load(&actor).await;
            };
            let written = core.write(&actor, shown.version, shown.value, Transaction::new()).await;
            written.inspect_err(|_| core.recover_soon(&actor))
        };
        // Nobody waits for it; the flight is in its place already.
        drop(self.turns.take(name, Kind::Write, Instant::now() + self.options.resume_timeout, work));
    }
}
