//! What must hold once everything works again and nobody asks for anything: no transient state, no worker that is not
//! free or owned, nothing left to delete, indexes as they should be (I3, I5).

use std::collections::{BTreeMap, BTreeSet};

use ate_agent::WorkerPhase;
use ate_api::id::{Digest, WorkerId};

use super::Judge;
use crate::{
    machine::Seat,
    records::{self, Snapshot},
    world::World,
};

impl Judge {
    /// What is not at rest yet. `known`: the phase of each worker as the control plane shows it.
    pub(crate) fn unrest(&self, w: &World, known: &BTreeMap<WorkerId, String>) -> Vec<String> {
        let mut found = Vec::new();
        let books = self.books();
        for (name, actor) in &books.actors {
            let seat = actor.seat.as_ref().map(|s| &s.worker);
            let runs = w.machine.lock().workers.values().any(|worker| {
                let here = seat == Some(&worker.report.id);
                matches!(&worker.seat, Seat::Running(l) if here && l.uid == actor.uid && l.activation == actor.activation)
            });
            match actor.phase.as_str() {
                "Running" if runs => {}
                _ if actor.is_at_rest() => {}
                phase => found.push(format!("I5: {name} is {phase} on {seat:?}")),
            }
        }
        let machine = w.machine.lock();
        let mut counts = BTreeMap::new();
        for (id, worker) in &machine.workers {
            // One that retires stays for as long as its actor does.
            *counts.entry(worker.report.pool.clone()).or_insert(0) += usize::from(!worker.retires);
            let word = known.get(id).map_or("unknown", String::as_str);
            let fits = match &worker.seat {
                Seat::Idle => worker.report.phase == WorkerPhase::Ready && word == "Free",
                Seat::Running(l) => {
                    let owner = books.actors.get(&l.actor);
                    word == "Running"
                        && owner.is_some_and(|a| {
                            a.uid == l.uid
                                && a.activation == l.activation
                                && a.seat.as_ref().is_some_and(|s| s.worker == *id)
                        })
                }
                _ => false,
            };
            if !fits {
                found.push(format!("I3: worker {id} is {:?} and said to be {word}", worker.seat));
            }
        }
        for id in known.keys().filter(|id| !machine.workers.contains_key(id)) {
            found.push(format!("I3: worker {id} is said to be there and is not"));
        }
        drop(machine);
        for (pool, wanted) in w.wanted_workers() {
            let there = counts.get(&pool).copied().unwrap_or(0);
            if there != wanted {
                found.push(format!("pool {pool} has {there} of {wanted} workers"));
            }
        }
        drop(books);
        self.indexes(w, &mut found);
        found
    }

    fn indexes(&self, w: &World, found: &mut Vec<String>) {
        let books = self.books();
        let of_actors: Vec<&Snapshot> = books.actors.values().flat_map(|a| a.snapshots()).collect();
        let referenced: BTreeSet<&Digest> = of_actors.iter().map(|s| &s.manifest).collect();
        let indexed: BTreeSet<Digest> = keys(w, records::SNAPSHOTS).iter().filter_map(|k| Digest::parse(k)).collect();
        for manifest in indexed.iter().filter(|m| !referenced.contains(m)) {
            found.push(format!("snapshot {} is indexed and nobody's", manifest.short()));
        }
        for manifest in referenced.iter().filter(|m| !indexed.contains(m)) {
            found.push(format!("snapshot {} is somebody's and not indexed", manifest.short()));
        }
        let rested: BTreeSet<&Digest> = of_actors.iter().filter_map(|s| s.base.as_ref()).map(|b| &b.manifest).collect();
        for garbage in keys(w, records::GARBAGE).iter().filter_map(|k| Digest::parse(k)) {
            if !rested.contains(&garbage) {
                found.push(format!("snapshot {} is still in the deletion queue", garbage.short()));
            }
        }
        for name in keys(w, records::BUSY) {
            let busy = books.actors.iter().any(|(n, a)| n.to_string() == name && !a.is_at_rest());
            if !busy {
                found.push(format!("{name} has a busy marker and is at rest"));
            }
        }
        let by_base = keys(w, records::BY_BASE).len();
        let resting = of_actors.iter().filter(|s| s.base.is_some()).count();
        if by_base != resting {
            found.push(format!("{resting} snapshots rest on others and {by_base} are indexed as such"));
        }
    }

    /// Whole snapshots in object storage that no record names.
    pub(crate) fn orphans(&self, w: &World) -> u64 {
        let queued: BTreeSet<String> = keys(w, records::GARBAGE).into_iter().collect();
        let all: Vec<Digest> = w.machine.lock().storage.external.values().map(|s| s.manifest.clone()).collect();
        let unnamed = |m: &&Digest| self.user_of(w, m).is_none() && !queued.contains(m.as_str());
        all.iter().filter(unnamed).count() as u64
    }
}

fn keys(w: &World, prefix: &str) -> Vec<String> {
    w.disk.list(prefix).into_iter().map(|(key, _)| key[prefix.len()..].to_owned()).collect()
}
