//! Those who want something of the control plane: people with actors, and administrators. Impatient, and often several
//! at the same actor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{Error, Reason, id::ActorName, v1::rollout::Policy};

use crate::{api::Api, objects, router::Router, world::World};

/// The same name in two atespaces, too.
const ACTORS: [(&str, &str); 5] =
    [("default", "a"), ("default", "b"), ("default", "c"), ("default", "d"), ("other", "a")];
const BINARIES: [char; 3] = ['a', 'b', 'c'];

#[derive(Debug, Clone, Copy)]
enum Errand {
    Request,
    Create,
    Resume,
    Suspend,
    Pause,
    Boot,
    Delete,
    Resize,
    Configure,
    Revoke,
    Unrevoke,
    Rollout,
    Undo,
}

/// How often each is wanted.
const ERRANDS: [(Errand, u32); 13] = [
    (Errand::Request, 40),
    (Errand::Create, 14),
    (Errand::Resume, 8),
    (Errand::Suspend, 18),
    (Errand::Pause, 8),
    (Errand::Boot, 3),
    (Errand::Delete, 6),
    (Errand::Resize, 2),
    (Errand::Configure, 2),
    (Errand::Revoke, 1),
    (Errand::Unrevoke, 2),
    (Errand::Rollout, 1),
    (Errand::Undo, 1),
];

pub(crate) fn everybody() -> Vec<ActorName> {
    ACTORS.iter().map(|(atespace, name)| ActorName::new(*atespace, *name)).collect()
}

/// One user, until there is nothing left to do.
pub(crate) async fn live(w: Arc<World>, api: Api) {
    let actors = everybody();
    while w.take_errand() {
        tokio::time::sleep(w.chance.ms(0..1200)).await;
        let (errand, _) = ERRANDS[w.chance.weighted(&ERRANDS.map(|(_, weight)| weight))];
        let Some(actor) = w.chance.one_of(&actors) else { return };
        w.with_report(|r| r.asked += 1);
        w.note(|| format!("ask {errand:?} {actor}"));
        // Some leave before they have an answer.
        let patience = if w.chance.happens(0.1) { w.chance.ms(1..1500) } else { Duration::from_secs(60) };
        let done = tokio::time::timeout(patience, run(&w, &api, errand, actor)).await;
        w.note(|| match &done {
            Ok(Ok(())) => format!("done {errand:?} {actor}"),
            Ok(Err(e)) => format!("done {errand:?} {actor}: {e}"),
            Err(_) => format!("left {errand:?} {actor}"),
        });
        match done {
            Ok(Ok(())) => w.with_report(|r| r.done += 1),
            Ok(Err(e)) if e.message.contains("ended without an answer") => w.violated("I5", e),
            _ => {}
        }
    }
}

async fn run(w: &Arc<World>, api: &Api, errand: Errand, actor: &ActorName) -> Result<(), Error> {
    let patience = w.chance.ms(2000..20_000);
    match errand {
        Errand::Request => request(w, api, actor, patience).await,
        Errand::Create => match w.chance.one_of(&objects::TEMPLATES) {
            Some(template) => api.create(actor, template).await,
            None => Ok(()),
        },
        Errand::Resume => api.resume(actor, false, patience).await,
        Errand::Suspend => at_rest(w, actor, api.suspend(actor, patience).await),
        Errand::Pause => at_rest(w, actor, api.pause(actor, patience).await),
        Errand::Boot => api.resume(actor, true, patience).await,
        Errand::Delete => api.delete(actor, patience).await,
        Errand::Resize => api.apply(&objects::pool(1 + w.chance.below(4))).await,
        Errand::Configure => api.apply(&objects::config(binary(w))).await,
        Errand::Revoke => api.revoke(&objects::binary(binary(w)), w.chance.happens(0.5)).await,
        Errand::Unrevoke => api.unrevoke(&objects::binary(binary(w))).await,
        Errand::Rollout => {
            let policies = [Policy::NextResume, Policy::Reboot, Policy::Keep];
            api.start_rollout(objects::CONFIG, policies[w.chance.below(policies.len())]).await
        }
        Errand::Undo => api.undo_rollout().await,
    }
}

fn binary(w: &World) -> char {
    BINARIES[w.chance.below(BINARIES.len())]
}

fn at_rest(w: &World, actor: &ActorName, answer: Result<Option<u64>, Error>) -> Result<(), Error> {
    if let Some(generation) = answer? {
        w.judge.told_at_rest(w, actor, generation);
    }
    Ok(())
}

/// As through the router: an open route, or one that a resume opens.
pub(crate) async fn request(w: &Arc<World>, api: &Api, actor: &ActorName, patience: Duration) -> Result<(), Error> {
    let request = match Router::enter(w, actor) {
        Some(request) => request,
        None => {
            let began = w.router.closings();
            let running = api.control.resume(actor, false, Instant::now() + patience).await?;
            w.router.woken(actor, &running, began);
            let closed = || Error::new(Reason::Unavailable, "it left again at once");
            Router::enter(w, actor).ok_or_else(closed)?
        }
    };
    tokio::time::sleep(w.chance.ms(0..30)).await;
    let life = w.machine.serve(request.reaches()?)?;
    w.judge.served(w, actor, &life);
    tokio::time::sleep(w.chance.ms(0..300)).await;
    Ok(())
}

/// Administrators put things right after the storm. True: everything is as it should be.
pub(crate) async fn put_right(api: &Api) -> bool {
    for digit in BINARIES {
        match api.unrevoke(&objects::binary(digit)).await {
            Err(e) if e.reason != Reason::NotFound => return false,
            _ => {}
        }
    }
    // A template that failed is tried again when something changes that could help.
    api.apply(&objects::pool(objects::WORKERS + 1)).await.is_ok()
        && api.apply(&objects::pool(objects::WORKERS)).await.is_ok()
}
