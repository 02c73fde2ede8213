//! The router of a simulated world: a route table that lets requests in, and keeps its word to [`Traffic`].

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_api::id::{Activation, ActorName};
use ate_control::{Running, Traffic};

use crate::world::World;

/// How often a drain looks whether the last request is over.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Router(Mutex<Table>);

#[derive(Default)]
struct Table {
    routes: BTreeMap<ActorName, Route>,
    /// Closings there were, and the last one of each actor.
    closings: u64,
    closed: BTreeMap<ActorName, (u64, Activation)>,
}

impl Table {
    /// Takes an activation's route away.
    fn close(&mut self, actor: &ActorName, activation: Activation) {
        self.closings += 1;
        self.closed.insert(actor.clone(), (self.closings, activation));
        if self.routes.get(actor).is_some_and(|r| r.activation == activation && r.in_flight == 0) {
            self.routes.remove(actor);
        } else if let Some(route) = self.routes.get_mut(actor).filter(|r| r.activation == activation) {
            route.open = false;
        }
    }

    fn open(&mut self, actor: &ActorName, activation: Activation, address: IpAddr) {
        match self.routes.get_mut(actor).filter(|r| r.open || r.activation == activation) {
            Some(route) if route.activation > activation => {}
            Some(route) if route.activation == activation && route.address == address => route.open = true,
            _ => {
                let route = Route { activation, address, open: true, in_flight: 0, last: Instant::now() };
                self.routes.insert(actor.clone(), route);
            }
        }
    }
}

struct Route {
    activation: Activation,
    address: IpAddr,
    open: bool,
    in_flight: u32,
    last: Instant,
}

/// A request on its way. Ends when it is dropped.
pub(crate) struct Request {
    world: Arc<World>,
    actor: ActorName,
    pub(crate) activation: Activation,
    pub(crate) address: IpAddr,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut table = self.world.router.lock();
        if let Some(route) = table.routes.get_mut(&self.actor)
            && route.activation == self.activation
        {
            route.in_flight = route.in_flight.saturating_sub(1);
            route.last = Instant::now();
            if !route.open && route.in_flight == 0 {
                table.routes.remove(&self.actor);
            }
        }
    }
}

impl Router {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn crash(&self) {
        *self.lock() = Table::default();
    }

    /// Lets a request through if there is an open route.
    pub(crate) fn enter(world: &Arc<World>, actor: &ActorName) -> Option<Request> {
        let mut table = world.router.lock();
        let route = table.routes.get_mut(actor).filter(|r| r.open)?;
        route.in_flight += 1;
        let (activation, address) = (route.activation, route.address);
        Some(Request { world: world.clone(), actor: actor.clone(), activation, address })
    }
}

impl Router {
    /// When a wake begins.
    pub(crate) fn closings(&self) -> u64 {
        self.lock().closings
    }

    /// The answer to a wake is a route, unless that activation was closed since.
    pub(crate) fn woken(&self, actor: &ActorName, running: &Running, began: u64) {
        let mut table = self.lock();
        let late = table.closed.get(actor).is_some_and(|(at, n)| *at > began && *n >= running.activation);
        if !late {
            table.open(actor, running.activation, running.address);
        }
    }
}

/// The seam as the control plane gets it.
pub(crate) struct SimulatedTraffic(pub(crate) Arc<World>);

#[async_trait]
impl Traffic for SimulatedTraffic {
    fn open(&self, actor: &ActorName, activation: Activation, address: IpAddr, _: u16) {
        self.0.router.lock().open(actor, activation, address);
    }

    fn idle_for(&self, actor: &ActorName) -> Option<Duration> {
        let table = self.0.router.lock();
        table.routes.get(actor).filter(|r| r.open && r.in_flight == 0).map(|r| r.last.elapsed())
    }

    fn close_if_idle(&self, actor: &ActorName, activation: Activation, idle_at_least: Duration) -> bool {
        let mut table = self.0.router.lock();
        let idle = match table.routes.get(actor).filter(|r| r.activation == activation) {
            Some(route) => route.in_flight == 0 && route.last.elapsed() >= idle_at_least,
            None => true,
        };
        if idle {
            table.close(actor, activation);
        }
        idle
    }

    async fn close(&self, actor: &ActorName, activation: Activation, drain: Duration) {
        let until = Instant::now() + drain;
        self.0.router.lock().close(actor, activation);
        loop {
            let busy = self.0.router.lock().routes.get(actor).is_some_and(|r| r.activation == activation && !r.open);
            if !busy || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn invalidate(&self, actor: &ActorName, activation: Activation) {
        let mut table = self.0.router.lock();
        table.close(actor, activation);
        if table.routes.get(actor).is_some_and(|r| r.activation == activation) {
            table.routes.remove(actor);
        }
    }
}
