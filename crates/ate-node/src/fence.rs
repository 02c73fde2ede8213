//! The node's part of I1: an activation older than one seen for the actor is refused, on whichever worker, and so is a
//! start of one that was released.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{
    Error,
    id::{Activation, Uid},
};

use crate::workers::fenced;

/// Kept in memory: herder and control plane fence too, and after a restart of the node no activation of before
/// is alive here but those that are found again.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<Mutex<HashMap<Uid, Seen>>>);

/// The latest activation seen of one actor.
struct Seen {
    activation: Activation,
    released: bool,
    at: Instant,
}

impl Fence {
    /// Takes note of an activation, or refuses it.
    pub(crate) fn admit(&self, actor: &Uid, activation: Activation) -> Result<(), Error> {
        self.note(actor, activation).map(drop)
    }

    /// The same for a start, which may be late: what was released does not come back.
    pub(crate) fn admit_start(&self, actor: &Uid, activation: Activation) -> Result<(), Error> {
        if self.note(actor, activation)? {
            return Err(fenced(format!("activation {activation} was released already")).on(format!("actor/{actor}")));
        }
        Ok(())
    }

    /// An activation from before this node agent was found.
    pub(crate) fn seated(&self, actor: &Uid, activation: Activation) {
        // If a later one was heard of already, whoever sent that will have this one released.
        let _ = self.note(actor, activation);
    }

    pub(crate) fn release(&self, actor: &Uid, activation: Activation) {
        if self.note(actor, activation).is_ok()
            && let Some(seen) = self.lock().get_mut(actor)
        {
            seen.released |= seen.activation == activation;
        }
    }

    /// Forgets actors that no longer exist and were not heard of for as long as `age`.
    pub(crate) fn retain(&self, live: &HashSet<Uid>, age: Duration) {
        self.lock().retain(|actor, seen| live.contains(actor) || seen.at.elapsed() < age);
    }

    /// Whether it was released.
    fn note(&self, actor: &Uid, activation: Activation) -> Result<bool, Error> {
        let mut all = self.lock();
        let at = Instant::now();
        let seen = all.entry(actor.clone()).or_insert(Seen { activation, released: false, at });
        if activation < seen.activation {
            let message =
                format!("activation {activation} is older than {}, which this node has seen", seen.activation);
            return Err(fenced(message).on(format!("actor/{actor}")));
        }
        seen.released &= activation == seen.activation;
        (seen.activation, seen.at) = (activation, at);
        Ok(seen.released)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ate_api::Reason;

    use super::*;

    #[test]
    fn an_activation_older_than_one_seen_is_fenced_and_each_actor_counts_for_itself() {
        let (fence, a, b) = (Fence::default(), Uid::generate(), Uid::generate());
        fence.admit(&a, Activation(2)).unwrap();
        fence.admit(&a, Activation(2)).unwrap();
        fence.admit(&b, Activation(1)).unwrap();
        fence.admit(&a, Activation(3)).unwrap();
        assert_eq!(fence.admit(&a, Activation(2)).unwrap_err().reason, Reason::Fenced);
        fence.retain(&HashSet::from([b.clone()]), Duration::MAX);
        assert_eq!(fence.admit(&a, Activation(2)).unwrap_err().reason, Reason::Fenced, "heard of a moment ago");
        fence.retain(&HashSet::from([b]), Duration::ZERO);
        fence.admit(&a, Activation(1)).unwrap();
    }

    #[test]
    fn a_late_start_of_what_was_released_is_fenced_and_the_next_activation_is_not() {
        let (fence, a) = (Fence::default(), Uid::generate());
        fence.admit_start(&a, Activation(1)).unwrap();
        fence.release(&a, Activation(1));
        assert_eq!(fence.admit_start(&a, Activation(1)).unwrap_err().reason, Reason::Fenced);
        fence.admit_start(&a, Activation(2)).unwrap();
        fence.release(&a, Activation(1));
        fence.admit_start(&a, Activation(2)).unwrap();
        // Released before it was ever started here.
        fence.release(&a, Activation(3));
        assert_eq!(fence.admit_start(&a, Activation(3)).unwrap_err().reason, Reason::Fenced);
    }
}
