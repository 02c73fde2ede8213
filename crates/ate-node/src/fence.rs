//! The node's part of I1: an activation older than one seen for the actor is refused, on whichever worker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use ate_api::{
    Error,
    id::{Activation, Uid},
};

use crate::workers::fenced;

/// Kept in memory: herder and control plane fence too, and after a restart of the node no activation of before
/// is alive here.
#[derive(Default)]
pub(crate) struct Fence(Mutex<HashMap<Uid, Activation>>);

impl Fence {
    /// Takes note of an activation, or refuses it.
    pub(crate) fn admit(&self, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(actor) {
            Some(highest) if activation < *highest => {
                let message = format!("activation {activation} is older than {highest}, which this node has seen");
                Err(fenced(message).on(format!("actor/{actor}")))
            }
            Some(highest) => {
                *highest = activation;
                Ok(())
            }
            None => {
                seen.insert(actor.clone(), activation);
                Ok(())
            }
        }
    }

    /// Forgets actors that no longer exist.
    pub(crate) fn retain(&self, live: &HashSet<Uid>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|actor, _| live.contains(actor));
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
        fence.retain(&HashSet::from([b]));
        fence.admit(&a, Activation(1)).unwrap();
    }
}
