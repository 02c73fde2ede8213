//! The router of a simulated world: a route table that lets requests in, and keeps its word to [`Traffic`].

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName},
};
use ate_control::{Running, Traffic};

use crate::world::World;

/// How often a drain looks whether the last request is over.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Router(Mutex<Table>);

#[derive(Default)]
struct Table {
    routes: BTreeMap<ActorName, Route>,
    /// Routes there were.
    opened: u64,
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
                self.opened += 1;
                let id = self.opened;
                let route = Route { id, activation, address, open: true, in_flight: 0, last: Instant::now() };
                self.routes.insert(actor.clone(), route);
            }
        }
    }
}

struct Route {
    id: u64,
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
    route: u64,
}

impl Request {
    /// Where it arrives, unless its connection was cut on the way.
    pub(crate) fn reaches(&self) -> Result<IpAddr, Error> {
        let table = self.world.router.lock();
        let route = table.routes.get(&self.actor).filter(|r| r.id == self.route);
        route.map(|r| r.address).ok_or_else(|| Error::new(Reason::Unavailable, "the connection was cut"))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut table = self.world.router.lock();
        if let Some(route) = table.routes.get_mut(&self.actor)
            && route.id == self.route
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
        Some(Request { world: world.clone(), actor: actor.clone(), route: route.id })
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
            {
                let mut table = self.0.router.lock();
                if table.routes.get(actor).is_none_or(|r| r.activation != activation || r.open) {
                    return;
                }
                if Instant::now() >= until {
                    table.routes.remove(actor);
                    return;
                }
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
