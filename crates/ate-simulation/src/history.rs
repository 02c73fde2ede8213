//! One history: setting up, the storm, and what must hold when it is over.
//!
//! A control plane lives in a runtime of its own. A crash drops the runtime, and with it every task wherever it is; the
//! next control plane begins over the same disk.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ate_api::{Error, Reason, id::ActorName};
use ate_control::Control;

use crate::{
    api::Api, disk::SimulatedStore, machine::Node, objects, report::Report, router::SimulatedTraffic, users,
    world::World,
};

const USERS: usize = 4;
/// A storm with more than this many crashes says nothing new.
const MAX_CRASHES: u64 = 6;
/// Time for everything to come to rest by itself: longer than every deadline and every pause before another try, one
/// after the other (I5).
const REST: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that must find nothing.
const QUIET: u32 = 2;
/// Tries of an actor that is to serve again: for longer than a call goes unanswered and what failed then rests.
const TRIES: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(60);

enum End {
    Crash,
    Over,
}

pub(crate) fn run(seed: u64, traced: bool) -> Report {
    let world = World::new(seed, traced);
    loop {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => {
                world.violated("the simulation", e);
                break;
            }
        };
        let end = runtime.block_on(incarnation(world.clone()));
        drop(runtime);
        match end {
            End::Crash => world.crash(),
            End::Over => break,
        }
    }
    world.finish()
}

/// From a start of the control plane to its end.
async fn incarnation(w: Arc<World>) -> End {
    let store = Arc::new(SimulatedStore(w.clone()));
    let (node, traffic) = (Arc::new(Node(w.clone())), Arc::new(SimulatedTraffic(w.clone())));
    let started = Control::start(objects::options(), store, node, traffic, objects::classes()).await;
    let control = match started {
        Ok(control) => control,
        // The process ends with an error, and whoever keeps it starts it again.
        Err(e) => {
            w.note(|| format!("does not start: {e}"));
            return End::Crash;
        }
    };
    let api = match Api::of(control).await {
        Ok(api) => api,
        Err(e) => {
            w.violated("the simulation", e);
            return End::Over;
        }
    };
    tokio::select! {
        biased;
        () = disasters(&w) => End::Crash,
        () = live(&w, &api) => End::Over,
    }
}

/// What happens without anybody's doing. Returns when the process dies.
async fn disasters(w: &Arc<World>) {
    loop {
        tokio::time::sleep(w.chance.ms(500..1500)).await;
        let workers: Vec<_> = w.machine.lock().workers.keys().cloned().collect();
        if w.weather.worker_dies(&w.chance)
            && let Some(id) = w.chance.one_of(&workers)
        {
            w.kill_worker(id);
        }
        if w.weather.actor_ends(&w.chance)
            && let Some(id) = w.chance.one_of(&workers)
        {
            w.end_actor(id);
        }
        if w.weather.stream_breaks(&w.chance) {
            w.break_streams();
        }
        if w.weather.local_copy_lost(&w.chance) {
            w.lose_local_copy();
        }
        if w.with_report(|r| r.crashes) < MAX_CRASHES && w.weather.crashes(&w.chance) {
            return;
        }
    }
}

async fn live(w: &Arc<World>, api: &Api) {
    if !w.set_up.load(Relaxed) {
        set_up(w, api).await;
        w.set_up.store(true, Relaxed);
        w.weather.break_out();
    }
    let users = (0..USERS).map(|_| tokio::spawn(users::live(w.clone(), api.clone())));
    futures::future::join_all(users).await;
    w.note(|| "the storm is over".to_owned());
    w.weather.clear_up();
    while !users::put_right(api).await {
        tokio::time::sleep(LOOK).await;
    }
    comes_to_rest(w, api).await;
    for actor in users::everybody() {
        serves_again(w, api, &actor).await;
    }
    for actor in users::everybody() {
        match api.delete(&actor, PATIENCE).await {
            Err(e) if e.reason != Reason::NotFound => w.violated("I5", format!("{actor} cannot be deleted: {e}")),
            _ => {}
        }
    }
    comes_to_rest(w, api).await;
    let orphans = w.judge.orphans(w);
    w.with_report(|r| r.orphans = orphans);
}

/// Repeated until it is done; what is there already is left as it is. In calm weather some actors are there too.
async fn set_up(w: &Arc<World>, api: &Api) {
    for object in objects::all() {
        while let Err(e) = apply_once(api, &object).await {
            w.note(|| format!("cannot set up yet: {e}"));
            tokio::time::sleep(LOOK).await;
        }
    }
    if !w.weather.is_clear() {
        return;
    }
    for template in objects::TEMPLATES {
        while api.get("ActorTemplate", template).await.is_ok_and(|t| t["status"]["phase"] != "Ready") {
            tokio::time::sleep(LOOK).await;
        }
    }
    for (actor, template) in users::everybody().iter().zip(objects::TEMPLATES) {
        if let Err(e) = api.create(actor, template).await {
            w.violated("I5", format!("{actor} cannot be made in calm weather: {e}"));
        }
    }
}

/// An administrator who may have changed it since is not overruled.
async fn apply_once(api: &Api, object: &serde_json::Value) -> Result<(), ate_api::Error> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match api.get(kind, name).await {
        Ok(_) => Ok(()),
        Err(_) => api.apply(object).await,
    }
}

async fn comes_to_rest(w: &Arc<World>, api: &Api) {
    let until = std::time::Instant::now() + REST;
    let mut quiet = 0;
    loop {
        let unrest = match api.workers().await {
            Ok(known) => w.judge.unrest(w, &known.into_iter().collect()),
            Err(e) => vec![format!("workers cannot be listed: {e}")],
        };
        quiet = if unrest.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET {
            return;
        }
        if std::time::Instant::now() > until {
            unrest.iter().for_each(|what| w.violated("at rest", what));
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every actor there is serves a request, and can be suspended; one whose snapshot is lost can be booted.
async fn serves_again(w: &Arc<World>, api: &Api, actor: &ActorName) {
    let mut last = None;
    for _ in 0..TRIES {
        let e = match users::request(w, api, actor, PATIENCE).await {
            Ok(()) => {
                // Deleted by somebody whose call was still under way.
                let gone = |e: &Error| e.reason == Reason::NotFound && e.object.starts_with("actor/");
                if let Err(e) = api.suspend(actor, PATIENCE).await
                    && !gone(&e)
                {
                    w.violated("I5", format!("{actor} cannot be suspended: {e}"));
                }
                return;
            }
            Err(e) if e.reason == Reason::NotFound && e.object.starts_with("actor/") => return,
            Err(e) => e,
        };
        w.note(|| format!("{actor} does not serve yet: {e}"));
        if matches!(e.reason, Reason::SnapshotCorrupt | Reason::SnapshotNotFound) {
            let _ = api.resume(actor, true, PATIENCE).await;
        }
        last = Some(e);
        tokio::time::sleep(LOOK * 5).await;
    }
    if let Some(e) = last {
        w.violated("I5", format!("{actor} does not serve any more: {e}"));
    }
}
