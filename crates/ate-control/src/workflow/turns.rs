//! One thing at a time per actor, in the order asked for; equal requests share one run.
//!
//! Each actor with something to do has a chain of flights. A request equal to the last flight of the chain joins
//! it; any other becomes the next flight, which starts when the one before it is over. A flight belongs to the
//! server: it goes on when the callers leave.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ate_api::{Error, Reason, id::ActorName};
use tokio::sync::watch;

use crate::{db::Stored, records::ActorRecord};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Resume,
    /// Resume from the image.
    Boot,
    Suspend,
    /// Suspend, and keep nothing but the durable directories.
    Files,
    Pause,
    /// End the activation, and keep nothing of it.
    Stop,
    Update,
    /// Boot under the revision of a rollout, and suspend again.
    Move,
    Delete,
    /// Write a phase that is only in memory so far.
    Write,
    /// Put an actor whose worker is gone back to rest.
    Recover,
}

impl Kind {
    /// Whether equal requests want the same. Creations and updates differ; and what is to be recovered from, or deleted, may
    /// have come to be after a flight that is under way had its look.
    fn is_shared(self) -> bool {
        !matches!(self, Kind::Create | Kind::Update | Kind::Recover | Kind::Delete)
    }
}

/// How much longer than its deadline a caller waits for the flight to say why it is late.
const ANSWER_MARGIN: std::time::Duration = std::time::Duration::from_millis(50);

pub(crate) type Outcome = Result<Arc<Stored<ActorRecord>>, Error>;

/// What a running flight knows of those who wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Flight(watch::Receiver<Callers>);

#[derive(Debug, Clone, Copy)]
struct Callers {
    deadline: Instant,
    cancelled: bool,
}

impl Flight {
    /// The latest deadline of all callers.
    pub(crate) fn deadline(&self) -> Instant {
        self.0.borrow().deadline
    }

    /// The actor is going to be deleted: waiting makes no sense any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.borrow().cancelled
    }

    /// Returns when [`Flight::is_cancelled`] does.
    pub(crate) async fn cancelled(&self) {
        if self.0.clone().wait_for(|c| c.cancelled).await.is_err() {
            // The entry goes with the flight, so this is not seen while the flight runs.
            std::future::pending::<()>().await;
        }
    }
}

struct Entry {
    number: u64,
    kind: Kind,
    callers: watch::Sender<Callers>,
    outcome: watch::Receiver<Option<Outcome>>,
}

#[derive(Default)]
pub(crate) struct Turns {
    chains: Mutex<HashMap<ActorName, Vec<Entry>>>,
    next: std::sync::atomic::AtomicU64,
}

impl Turns {
    /// Runs `work` when it is the actor's turn, or joins an equal flight, and waits for the outcome until `deadline`.
    /// The flight is in its place when this returns, before the future is polled.
    pub(crate) fn take<F, W>(
        self: &Arc<Self>,
        actor: &ActorName,
        kind: Kind,
        deadline: Instant,
        work: F,
    ) -> impl Future<Output = Outcome> + Send + 'static
    where
        F: FnOnce(Flight) -> W + Send + 'static,
        W: Future<Output = Result<Stored<ActorRecord>, Error>> + Send,
    {
        let mut outcome = self.join(actor, kind, deadline, work);
        let actor = actor.clone();
        // A flight that waits until the deadline answers at the deadline, with a better reason than ours.
        let patience = deadline + ANSWER_MARGIN;
        async move {
            let answered = async {
                match outcome.wait_for(Option::is_some).await {
                    Ok(done) => done.clone().unwrap_or_else(|| Err(aborted(&actor))),
                    // The flight panicked: a bug, and the next flight puts things in order.
                    Err(_) => Err(aborted(&actor)),
                }
            };
            match tokio::time::timeout_at(patience.into(), answered).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    Err(Error::new(Reason::DeadlineExceeded, "it takes longer than the caller would wait, and goes on")
                        .on(format!("actor/{actor}")))
                }
            }
        }
    }

    /// Whether anything is going on with the actor.
    pub(crate) fn is_busy(&self, actor: &ActorName) -> bool {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).contains_key(actor)
    }

    /// Whether something waits for what is going on with the actor now.
    pub(crate) fn is_awaited(&self, actor: &ActorName) -> bool {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(actor).is_some_and(|chain| chain.len() > 1)
    }

    fn join<F, W>(
        self: &Arc<Self>,
        actor: &ActorName,
        kind: Kind,
        deadline: Instant,
        work: F,
    ) -> watch::Receiver<Option<Outcome>>
    where
        F: FnOnce(Flight) -> W + Send + 'static,
        W: Future<Output = Result<Stored<ActorRecord>, Error>> + Send,
    {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (callers, flight) = watch::channel(Callers { deadline, cancelled: false });
        let (done, outcome) = watch::channel(None);
        let before = {
            let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
            let chain = chains.entry(actor.clone()).or_default();
            if let Some(last) = chain.last().filter(|e| e.kind == kind && kind.is_shared()) {
                last.callers.send_if_modified(|c| {
                    let later = deadline > c.deadline;
                    c.deadline = c.deadline.max(deadline);
                    later
                });
                return last.outcome.clone();
            }
            if kind == Kind::Delete {
                chain.iter().for_each(|e| e.callers.send_modify(|c| c.cancelled = true));
            }
            let before = chain.last().map(|e| e.outcome.clone());
            chain.push(Entry { number, kind, callers, outcome: outcome.clone() });
            before
        };
        let (turns, name) = (self.clone(), actor.clone());
        tokio::spawn(async move {
            let place = Place { turns, actor: name, number };
            if let Some(mut before) = before {
                let _ = before.wait_for(Option::is_some).await;
            }
            let outcome = work(Flight(flight)).await.map(Arc::new);
            // Off the chain first, so that whoever acts on the answer starts something new.
            drop(place);
            let _ = done.send(Some(outcome));
        });
        outcome
    }
}

/// The flight's place in its chain, given up also when it panics.
struct Place {
    turns: Arc<Turns>,
    actor: ActorName,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut chains = self.turns.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chain) = chains.get_mut(&self.actor) {
            chain.retain(|e| e.number != self.number);
            if chain.is_empty() {
                chains.remove(&self.actor);
            }
        }
    }
}

fn aborted(actor: &ActorName) -> Error {
    Error::new(Reason::Internal, "the workflow ended without an answer").on(format!("actor/{actor}"))
}
