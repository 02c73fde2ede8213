//! The free workers of one pool, ordered so that the best one is found at once.

use std::collections::{BTreeSet, HashMap};

use ate_api::id::{Digest, Uid, WorkerId};

use crate::records::ConfigKey;

/// What a sandbox was started ahead for: whoever wants the same can use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Prepared {
    pub(crate) template: Uid,
    pub(crate) sandbox: ConfigKey,
}

/// What was started ahead, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Preparation {
    pub(crate) fits: Prepared,
    /// Manifest of the snapshot it was told of.
    pub(crate) snapshot: Option<Digest>,
    /// That snapshot is restored already: good for one actor that begins with it.
    pub(crate) standby: bool,
}

/// How well a worker suits an actor, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suits {
    /// Prepared for this actor, as far as it can use.
    Exactly,
    /// Prepared for its template, but without the standby it could use, or with one it would waste.
    Prepared,
    Bare,
    /// Prepared for another template.
    Other,
    /// Has a standby of another template.
    OthersStandby,
}

const ORDER: [Suits; 5] = [Suits::Exactly, Suits::Prepared, Suits::Bare, Suits::Other, Suits::OthersStandby];

/// What an actor would use of a preparation.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) fits: Prepared,
    /// It begins with the golden snapshot of its template.
    pub(crate) begins: bool,
}

impl Use {
    fn suits(&self, key: &Key) -> Suits {
        match key {
            None => Suits::Bare,
            Some(p) if p.fits == self.fits && p.standby == self.begins => Suits::Exactly,
            Some(p) if p.fits == self.fits => Suits::Prepared,
            Some(p) if p.standby => Suits::OthersStandby,
            Some(_) => Suits::Other,
        }
    }
}

type Key = Option<Preparation>;

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

    /// Candidates, best first.
    pub(crate) fn candidates<'a>(&'a self, wanted: &Use) -> impl Iterator<Item = (&'a WorkerId, Suits)> {
        ORDER.into_iter().flat_map(move |suits| {
            let sets = self.by_preparation.iter().filter(move |(key, _)| wanted.suits(key) == suits);
            sets.flat_map(|(_, set)| set).map(move |(_, worker)| (worker, suits))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &Uid) -> Prepared {
        Prepared { template: template.clone(), sandbox: ConfigKey { name: "c".into(), revision: 1 } }
    }

    fn preparation(template: &Uid, standby: bool) -> Key {
        Some(Preparation { fits: fits(template), snapshot: Some(Digest::of(b"golden")), standby })
    }

    /// Names of the candidates in order.
    fn order(set: &FreeSet, template: &Uid, begins: bool) -> Vec<String> {
        set.candidates(&Use { fits: fits(template), begins }).map(|(w, _)| w.0.clone()).collect()
    }

    #[test]
    fn a_new_actor_gets_a_standby_and_one_with_memory_of_its_own_wastes_none() {
        let (ours, other) = (Uid::generate(), Uid::generate());
        let mut set = FreeSet::default();
        for (name, key) in [
            ("other-standby", preparation(&other, true)),
            ("other", preparation(&other, false)),
            ("bare", None),
            ("plain", preparation(&ours, false)),
            ("standby", preparation(&ours, true)),
        ] {
            set.insert(WorkerId(name.into()), key);
        }
        assert_eq!(order(&set, &ours, true), ["standby", "plain", "bare", "other", "other-standby"]);
        assert_eq!(order(&set, &ours, false), ["plain", "standby", "bare", "other", "other-standby"]);
        set.remove(&WorkerId("plain".into()));
        assert_eq!(order(&set, &ours, false)[0], "standby", "better than to start from nothing");
    }
}
