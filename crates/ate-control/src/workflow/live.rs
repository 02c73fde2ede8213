//! Records of actors that hold a worker, in memory, and which of their changes are written when.
//!
//! Two changes are durable before anything else happens: the claim (who runs where, under which number) and the flip
//! (which snapshot is current). The phases in between, Running and Suspending, tell people and a restart nothing that
//! the claim does not: whoever held a worker is put to rest. They are written off the clock, and not at all when the
//! next step comes first. Until then this memory is what is shown.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{Error, id::ActorName};
use ate_failpoint::step;
use ate_store::Transaction;
use tokio::sync::Notify;

use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, Phase},
    workflow::turns::Kind,
};

/// A phase that lasts shorter is not worth a write. A hundredth of a real suspend or so.
pub(crate) const WORTH_WRITING: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(crate) struct Live {
    records: Mutex<HashMap<ActorName, Entry>>,
    /// Phases to be written, in the order of their time. Short: none waits longer than [`WORTH_WRITING`].
    due: Mutex<VecDeque<(Instant, ActorName)>>,
    some: Notify,
}

#[derive(Debug)]
struct Entry {
    /// With the version of what is stored.
    record: Stored<ActorRecord>,
    stored: Known,
}

/// What is known of the record in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Same,
    /// An earlier phase of the same activation.
    Earlier,
    /// Nobody knows, for a write has failed. The store has to be asked; it may know less than this.
    Nothing,
}

impl Live {
    fn get(&self, name: &ActorName) -> Option<Stored<ActorRecord>> {
        self.find(name, |known| known != Known::Nothing)
    }

    fn unwritten(&self, name: &ActorName) -> Option<Stored<ActorRecord>> {
        self.find(name, |known| known == Known::Earlier)
    }

    fn find(&self, name: &ActorName, which: impl Fn(Known) -> bool) -> Option<Stored<ActorRecord>> {
        let live = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(name).filter(|e| which(e.stored)).map(|e| e.record.clone())
    }

    fn set(&self, name: &ActorName, record: Stored<ActorRecord>, stored: Known) {
        let mut live = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        live.insert(name.clone(), Entry { record, stored });
    }

    /// A write has failed: from now on the store has to be asked.
    pub(crate) fn doubt(&self, name: &ActorName) {
        if let Some(entry) = self.records.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            entry.stored = Known::Nothing;
        }
    }

    /// Whether the store has it as it is here.
    pub(crate) fn is_stored(&self, name: &ActorName) -> bool {
        self.find(name, |known| known == Known::Same).is_some()
    }

    /// What was read, after a write that failed. If that is the beginning of an activation which this memory knows more
    /// of, it came as far as that.
    fn as_far_as_known(&self, name: &ActorName, mut read: Stored<ActorRecord>) -> Stored<ActorRecord> {
        let known = self.find(name, |known| known == Known::Nothing).map(|known| known.value);
        let same = |k: &ActorRecord| k.uid == read.value.uid && k.activation == read.value.activation;
        if read.value.phase == Phase::Resuming
            && let Some(known) = known.filter(same)
        {
            read.value.phase = known.phase;
            read.value.last_generation = read.value.last_generation.max(known.last_generation);
            read.value.deadline_ms = known.deadline_ms;
            read.value.seat = known.seat;
        }
        read
    }

    /// Names whose time has come.
    fn take_due(&self) -> Vec<ActorName> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let ready = due.iter().take_while(|(at, _)| *at <= now).count();
        due.drain(..ready).map(|(_, name)| name).collect()
    }

    /// From now on only the store knows.
    pub(crate) fn forget(&self, name: &ActorName) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Core {
    /// The actor as it is now.
    pub(crate) async fn load(&self, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        match self.live.get(name) {
            Some(record) => Ok(record),
            None => Ok(self.live.as_far_as_known(name, self.db.actor(name).await?)),
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
                    self.live.set(name, written.clone(), Known::Same);
                }
                Ok(written)
            }
            Err(e) => {
                self.live.doubt(name);
                Err(e)
            }
        }
    }

    /// Shows a phase that is not written yet. Its writing is up to the caller, or to [`Core::write_soon`].
    pub(crate) fn show(&self, name: &ActorName, record: &Stored<ActorRecord>) {
        self.live.set(name, record.clone(), Known::Earlier);
    }

    /// Writes the phase shown, unless the actor's next step comes first.
    pub(crate) fn write_soon(&self, name: &ActorName) {
        self.live
            .due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((Instant::now() + WORTH_WRITING, name.clone()));
        self.live.some.notify_one();
    }

    /// In the actor's turn. Nobody waits for it; the flight is in its place when this returns.
    fn write_shown(self: &Arc<Self>, name: &ActorName) {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |_| async move {
            let Some(shown) = core.live.unwritten(&actor) else { return core.load(&actor).await };
            let written = step!("resume.write", core.write(&actor, shown.version, shown.value, Transaction::new()));
            written.inspect_err(|_| core.recover_soon(&actor))
        };
        drop(self.turns.take(name, Kind::Write, self.default_deadline(), work));
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let next = core.live.due.lock().unwrap_or_else(PoisonError::into_inner).front().map(|(at, _)| *at);
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => core.live.some.notified().await,
            }
        };
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = wait => {}
        }
        for name in core.live.take_due() {
            match core.live.unwritten(&name) {
                None => {}
                // Its next step is under way and may make the write needless.
                Some(_) if core.turns.is_busy(&name) => core.write_soon(&name),
                Some(_) => core.write_shown(&name),
            }
        }
    }
}
