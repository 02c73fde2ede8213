//! Which actors can be reached now. Only actors that run, or are being woken, have an entry.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use ate_api::{
    Error, Reason,
    id::{Activation, ActorName},
};
use tokio::sync::watch;

use crate::{
    route::{InFlight, OpenRoute},
    wake::{Route, Waker},
};

/// Locks the map is split into. A request takes one of them, shared, for a lookup.
const SHARDS: usize = 64;

/// The routes of this router. The control plane opens and closes them; requests only use them.
///
/// An activation that was closed here is never routed to again, unless it is opened anew: also not by a wake
/// whose answer was already on its way.
pub struct RouteTable {
    shards: Vec<RwLock<HashMap<ActorName, Slot>>>,
    hasher: RandomState,
}

/// Never empty: a slot without route and flight is removed.
#[derive(Default)]
struct Slot {
    route: Option<Arc<OpenRoute>>,
    flight: Option<Flight>,
}

/// A wake in progress.
struct Flight {
    done: watch::Receiver<Option<Result<(), Error>>>,
    /// The highest activation closed since the wake began: an answer up to it comes too late.
    closed: Option<Activation>,
}

impl Default for RouteTable {
    fn default() -> Self {
        RouteTable { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }
}

impl RouteTable {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets requests through to an activation. Replaces an older one and cuts its connections; does nothing if
    /// the activation is open already or a newer one is.
    pub fn open(&self, actor: &ActorName, route: Route) {
        let mut shard = self.write(actor);
        install(shard.entry(actor.clone()).or_default(), route);
    }

    /// How long an actor has had no request; `None` while one is in flight, or if the actor has no open route.
    pub fn idle_for(&self, actor: &ActorName) -> Option<Duration> {
        self.read(actor).get(actor)?.route.as_ref()?.idle_for()
    }

    /// Closes the route if nothing was in flight for at least that long. `true`: nothing is in flight for this
    /// activation and nothing will begin, which also holds if it has no route.
    pub fn close_if_idle(&self, actor: &ActorName, activation: Activation, idle_at_least: Duration) -> bool {
        let mut shard = self.write(actor);
        let idle = match shard.get(actor).and_then(|slot| slot.route.as_ref()) {
            Some(open) if open.route.activation == activation => open.close_if_idle(idle_at_least),
            _ => true,
        };
        if idle && let Some(closed) = take(&mut shard, actor, activation) {
            closed.cut();
        }
        idle
    }

    /// Closes the route: later requests wait for the next activation, those in flight have `drain` to finish, then
    /// their connections are cut. Returns when none is left.
    pub async fn close(&self, actor: &ActorName, activation: Activation, drain: Duration) {
        let Some(open) = self.take(actor, activation) else { return };
        open.close();
        open.drain(drain).await;
    }

    /// The address is no longer this activation's: its connections are cut and later requests ask anew.
    pub fn invalidate(&self, actor: &ActorName, activation: Activation) {
        if let Some(open) = self.take(actor, activation) {
            open.cut();
        }
    }

    /// The actor is gone: whatever route it has is cut.
    pub fn remove(&self, actor: &ActorName) {
        self.invalidate(actor, Activation(u64::MAX));
    }

    /// Open routes and wakes in progress.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a request on the open route, if there is one.
    pub(crate) fn begin(&self, actor: &ActorName) -> Option<InFlight> {
        self.read(actor).get(actor)?.route.as_ref()?.begin()
    }

    /// Wakes the actor, or joins whoever is doing so; on success its route is open, or was.
    ///
    /// The wake has `limit` from its own beginning and goes on when the callers leave.
    pub(crate) async fn wake(
        self: &Arc<Self>,
        actor: &ActorName,
        waker: &Arc<dyn Waker>,
        limit: Duration,
    ) -> Result<(), Error> {
        let mut done = self.flight(actor, waker, limit);
        let outcome = done.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome {
            Ok(Some(result)) => result,
            _ => Err(Error::new(Reason::Internal, "the wake ended without an answer").on(format!("actor/{actor}"))),
        }
    }

    fn flight(
        self: &Arc<Self>,
        actor: &ActorName,
        waker: &Arc<dyn Waker>,
        limit: Duration,
    ) -> watch::Receiver<Option<Result<(), Error>>> {
        let mut shard = self.write(actor);
        let slot = shard.entry(actor.clone()).or_default();
        if let Some(flight) = &slot.flight {
            return flight.done.clone();
        }
        let (answer, done) = watch::channel(None);
        slot.flight = Some(Flight { done: done.clone(), closed: None });
        let mut landing = Landing { table: self.clone(), actor: actor.clone(), route: None };
        let waker = waker.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + limit;
            let woken = tokio::time::timeout_at(deadline.into(), waker.wake(&landing.actor, deadline)).await;
            let woken = woken.unwrap_or_else(|_| {
                Err(Error::new(Reason::DeadlineExceeded, format!("not awake within {} s", limit.as_secs()))
                    .on(format!("actor/{}", landing.actor))
                    .hint("try again; `ate describe actor` shows what it is waiting for"))
            });
            let result = woken.map(|route| landing.route = Some(route));
            drop(landing);
            let _ = answer.send(Some(result));
        });
        done
    }

    fn take(&self, actor: &ActorName, activation: Activation) -> Option<Arc<OpenRoute>> {
        take(&mut self.write(actor), actor, activation)
    }

    fn shard(&self, actor: &ActorName) -> &RwLock<HashMap<ActorName, Slot>> {
        &self.shards[self.hasher.hash_one(actor) as usize % SHARDS]
    }

    // Nothing panics under these locks with a half-changed map.
    fn read(&self, actor: &ActorName) -> RwLockReadGuard<'_, HashMap<ActorName, Slot>> {
        self.shard(actor).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, actor: &ActorName) -> RwLockWriteGuard<'_, HashMap<ActorName, Slot>> {
        self.shard(actor).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a route into its slot unless the slot knows better.
fn install(slot: &mut Slot, route: Route) {
    if let Some(open) = &slot.route {
        let known = open.route.activation;
        if known > route.activation || (known == route.activation && !open.is_closed()) {
            return;
        }
        open.cut();
    }
    slot.route = Some(Arc::new(OpenRoute::new(route)));
}

/// Takes out the route up to an activation, and tells a wake in progress that it is closed.
fn take(shard: &mut HashMap<ActorName, Slot>, actor: &ActorName, activation: Activation) -> Option<Arc<OpenRoute>> {
    let slot = shard.get_mut(actor)?;
    if let Some(flight) = &mut slot.flight {
        flight.closed = flight.closed.max(Some(activation));
    }
    let taken = slot.route.take_if(|open| open.route.activation <= activation);
    if slot.route.is_none() && slot.flight.is_none() {
        shard.remove(actor);
    }
    taken
}

/// Ends a flight whatever becomes of it, also when the waker panics.
///
/// The route opens in the same step that ends the flight: a close comes before or after, never between.
struct Landing {
    table: Arc<RouteTable>,
    actor: ActorName,
    route: Option<Route>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut shard = self.table.write(&self.actor);
        let Some(slot) = shard.get_mut(&self.actor) else { return };
        let closed = slot.flight.take().and_then(|flight| flight.closed);
        if let Some(route) = self.route.filter(|route| closed.is_none_or(|closed| closed < route.activation)) {
            install(slot, route);
        }
        if slot.route.is_none() {
            shard.remove(&self.actor);
        }
    }
}
