//! Watches a history while it happens, and says which invariant does not hold.
//!
//! Has books of its own: what each actor served, what each committed snapshot is. It believes the bytes in the store, the
//! snapshots that are there, and what users were answered; nothing the control plane has in memory.

mod rest;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ate_agent::{Activate, Source};
use ate_api::id::{Activation, ActorName, Digest, Uid};
use ate_store::Transaction;

use crate::{
    machine::{Content, Life, Storage},
    records::{self, Actor, Snapshot},
    world::World,
};

#[derive(Default)]
pub(crate) struct Judge(Mutex<Books>);

#[derive(Default)]
struct Books {
    /// As last committed.
    actors: BTreeMap<ActorName, Actor>,
    served: BTreeMap<Uid, Served>,
}

/// What an actor has done for its users.
#[derive(Debug, Clone, Default)]
struct Served {
    activation: Activation,
    content: Content,
    /// Activations told to be lost when it began.
    lost: u64,
}

impl Judge {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what a transaction has just written: first who refers to what now, then what that means for the rest.
    pub(crate) fn committed(&self, w: &World, tx: &Transaction) {
        for (key, value) in &tx.writes {
            if let Some(name) = records::name_of(key) {
                self.note(w, &name, value.as_ref().map(|v| records::actor(v)));
            }
        }
        for (key, value) in tx.writes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            if key.starts_with(records::TEMPLATES) {
                records::template(value).snapshots().for_each(|s| is_whole(w, key, s));
            } else if let Some(manifest) = key.strip_prefix(records::GARBAGE).and_then(Digest::parse)
                && let Some(user) = self.user_of(w, &manifest)
            {
                w.violated("I2", format!("{} of {user} is in the deletion queue", manifest.short()));
            }
        }
    }

    fn note(&self, w: &World, name: &ActorName, now: Option<Actor>) {
        let mut books = self.books();
        let before = match &now {
            Some(now) => books.actors.insert(name.clone(), now.clone()),
            None => books.actors.remove(name),
        };
        drop(books);
        if let Some(now) = &now {
            changed(w, name, before.filter(|b| b.uid == now.uid).as_ref(), now);
        }
    }

    /// Whose current snapshot, earlier one, golden one, or base of one of these it is.
    fn user_of(&self, w: &World, manifest: &Digest) -> Option<String> {
        let uses = |s: &Snapshot| s.manifest == *manifest;
        let books = self.books();
        if let Some((name, _)) = books.actors.iter().find(|(_, a)| a.snapshots().any(uses)) {
            return Some(format!("actor {name}"));
        }
        let templates = w.disk.list(records::TEMPLATES);
        let template = templates.into_iter().find(|(_, value)| records::template(value).snapshots().any(uses));
        template.map(|(key, _)| key)
    }

    fn rests_on(&self, manifest: &Digest) -> Option<ActorName> {
        let books = self.books();
        let rests = |s: &Snapshot| s.base.as_ref().is_some_and(|b| b.manifest == *manifest);
        books.actors.iter().find(|(_, a)| a.snapshots().any(rests)).map(|(name, _)| name.clone())
    }

    /// A snapshot is gone from the machine for good.
    pub(crate) fn removed(&self, w: &World, manifest: &Digest, how: &str) {
        w.note(|| format!("{} is gone, {how}", manifest.short()));
        if let Some(user) = self.user_of(w, manifest) {
            w.violated("I2", format!("{} of {user} was {how}", manifest.short()));
        } else if let Some(actor) = self.rests_on(manifest) {
            w.violated("I2", format!("{}, on which the snapshot of {actor} rests, was {how}", manifest.short()));
        }
    }

    /// The node is asked to start an activation: its number is durable, and it begins with what is committed (I1, I6).
    pub(crate) fn activating(&self, w: &World, a: &Activate) {
        let name = &a.actor.name;
        let mut books = self.books();
        let Some(actor) = books.actors.get(name).filter(|r| r.uid == a.actor.uid).cloned() else {
            drop(books);
            return w.violated("I1", format!("{name} is started and there is no record of it"));
        };
        let claimed = actor.activation == a.activation && actor.seat.as_ref().is_some_and(|s| s.worker == a.worker);
        let (from, content) = begins_with(&w.machine.lock().storage, &a.source);
        let served = books.served.entry(a.actor.uid.clone()).or_default();
        let told = actor.lost > served.lost;
        // Files are in every snapshot; whoever boots gives up what it had.
        let lost =
            matches!(a.source, Source::Snapshot { .. }) && content.is_some_and(|c| c.files < served.content.files);
        let was = served.clone();
        *served = Served { activation: a.activation, content: content.unwrap_or_default(), lost: actor.lost };
        drop(books);
        if !claimed {
            w.violated("I1", format!("{name} is started as {} and recorded is {actor:?}", a.activation));
        }
        if let (Some(from), Some(current)) = (from, &actor.snapshot)
            && !matches!(a.source, Source::Boot)
            && from != current.manifest
        {
            w.violated(
                "I6",
                format!("{name} begins with {} and not with generation {}", from.short(), current.generation),
            );
        }
        if lost && !told {
            let what =
                format!("{name} goes back from {:?} of activation {} to {content:?}", was.content, was.activation);
            w.violated("I6", format!("{what}, and nobody is told"));
        }
    }

    /// An actor has answered a request with its counters.
    pub(crate) fn served(&self, w: &World, actor: &ActorName, life: &Life) {
        let (activation, content) = (life.activation, life.content);
        let mut books = self.books();
        let served = books.served.entry(life.uid.clone()).or_default();
        let before = served.clone();
        if activation >= before.activation {
            served.content = content;
        }
        let namesake = books.actors.get(actor).is_some_and(|recorded| recorded.uid != life.uid);
        drop(books);
        w.note(|| format!("{actor} {activation} serves {content:?}"));
        w.with_report(|r| r.served += 1);
        if life.actor != *actor {
            w.violated("I3", format!("a request for {actor} reaches {}", life.actor));
        } else if namesake {
            w.violated("I3", format!("a request for {actor} reaches an earlier one of that name"));
        } else if activation < before.activation {
            w.violated("I1", format!("activation {activation} of {actor} serves after {}", before.activation));
        } else if content.files <= before.content.files {
            w.violated("I6", format!("{actor} has {content:?} after {:?}", before.content));
        }
    }

    /// A user was told that the actor is at rest with this generation.
    pub(crate) fn told_at_rest(&self, w: &World, actor: &ActorName, generation: u64) {
        // By now somebody else may have gone on with it, or ended it; back it does not go.
        let now = self.books().actors.get(actor).and_then(|a| a.snapshot.as_ref()).map(|s| s.generation);
        if now.is_some_and(|now| now < generation) && w.machine.lock().storage.lost.is_empty() {
            w.violated("I2", format!("{actor} is at rest with generation {generation}, and recorded is {now:?}"));
        }
    }
}

fn begins_with(storage: &Storage, source: &Source) -> (Option<Digest>, Option<Content>) {
    let (snapshot, with_memory) = match source {
        Source::Boot => return (None, Some(Content::default())),
        Source::Files { snapshot } => (snapshot, false),
        Source::Snapshot { snapshot, .. } => (snapshot, snapshot.scope == ate_api::resource::template::Scope::Full),
    };
    let content = storage.find(&snapshot.manifest).map(|s| s.content);
    let content = content.map(|c| Content { memory: if with_memory { c.memory } else { 0 }, ..c });
    (Some(snapshot.manifest.clone()), content)
}

/// One write of an actor's record.
fn changed(w: &World, name: &ActorName, before: Option<&Actor>, now: &Actor) {
    if let Some(before) = before
        && (now.activation < before.activation || now.lost < before.lost)
    {
        w.violated("I1", format!("{name} goes back from activation {} to {}", before.activation, now.activation));
    }
    for snapshot in now.snapshots() {
        let old = before.is_some_and(|b| b.snapshots().any(|s| s.manifest == snapshot.manifest));
        if old {
            continue;
        }
        is_whole(w, &name.to_string(), snapshot);
        let of = w.machine.lock().storage.find(&snapshot.manifest).map(|s| (s.uid.clone(), s.activation, s.generation));
        if of.is_some_and(|of| of != (now.uid.clone(), now.activation, snapshot.generation)) {
            w.violated("I1", format!("{name} in activation {} commits a snapshot of another", now.activation));
        }
    }
    let generation = |a: &Actor| a.snapshot.as_ref().map_or(0, |s| s.generation);
    if let Some(before) = before
        && generation(now) < generation(before)
        && let Some(gone) = &before.snapshot
        && !w.machine.lock().storage.lost.contains(&gone.manifest)
    {
        w.violated("I2", format!("{name} goes back from generation {} to {}", generation(before), generation(now)));
    }
}

/// A reference points to a complete snapshot that nobody is about to delete (I2).
fn is_whole(w: &World, user: &str, snapshot: &Snapshot) {
    let missing = {
        let s = w.machine.lock();
        let there = |m: &Digest| s.storage.find(m).is_some() || s.storage.lost.contains(m);
        let wanted = std::iter::once(&snapshot.manifest).chain(snapshot.base.as_ref().map(|b| &b.manifest));
        wanted.filter(|m| !there(m)).cloned().collect::<Vec<_>>()
    };
    for manifest in missing {
        w.violated("I2", format!("{user} refers to {}, which is not there", manifest.short()));
    }
    if w.disk.get(&format!("{}{}", records::GARBAGE, snapshot.manifest)).is_some() {
        w.violated("I2", format!("{user} refers to {}, which is in the deletion queue", snapshot.manifest.short()));
    }
}
