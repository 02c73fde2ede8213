//! The free workers of one pool, ordered so that the best one is found at once.

use std::collections::{BTreeSet, HashMap};

use ate_api::id::{Uid, WorkerId};

use crate::records::ConfigKey;

/// What a sandbox was started ahead for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Prepared {
    pub(crate) template: Uid,
    pub(crate) sandbox: ConfigKey,
}

type Key = Option<Prepared>;

#[derive(Debug, Default)]
pub(crate) struct FreeSet {
    /// In the order in which they became free.
    by_preparation: HashMap<Key, BTreeSet<(u64, WorkerId)>>,
    place: HashMap<WorkerId, (Key, u64)>,
    next: u64,
}

impl FreeSet {
    pub(crate) fn insert(&mut self, worker: WorkerId, prepared: Key) {
        self.remove(&worker);
        self.next += 1;
        self.by_preparation.entry(prepared.clone()).or_default().insert((self.next, worker.clone()));
        self.place.insert(worker, (prepared, self.next));
    }

    pub(crate) fn remove(&mut self, worker: &WorkerId) -> bool {
        let Some((key, number)) = self.place.remove(worker) else { return false };
        if let Some(set) = self.by_preparation.get_mut(&key) {
            set.remove(&(number, worker.clone()));
            if set.is_empty() {
                self.by_preparation.remove(&key);
            }
        }
        true
    }

    pub(crate) fn contains(&self, worker: &WorkerId) -> bool {
        self.place.contains_key(worker)
    }

    /// Candidates, best first: prepared for this, not prepared, prepared for something else.
    pub(crate) fn candidates<'a>(&'a self, wanted: &'a Prepared) -> impl Iterator<Item = (&'a WorkerId, bool)> {
        let exact = self.by_preparation.iter().filter(move |(k, _)| k.as_ref() == Some(wanted));
        let none = self.by_preparation.get(&None).into_iter().flatten();
        let other = self.by_preparation.iter().filter(move |(k, _)| k.as_ref().is_some_and(|k| k != wanted));
        exact
            .flat_map(|(_, set)| set)
            .map(|(_, w)| (w, true))
            .chain(none.map(|(_, w)| (w, false)))
            .chain(other.flat_map(|(_, set)| set).map(|(_, w)| (w, false)))
    }
}
