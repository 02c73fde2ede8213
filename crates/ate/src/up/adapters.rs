//! Joins the control plane and the router, which know nothing of each other.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_api::{
    Error,
    id::{Activation, ActorName},
};
use ate_control::{Control, Traffic};
use ate_router::{Route, RouteTable, Waker};

/// The router's table as the control plane sees it.
pub(crate) struct Routes(pub(crate) Arc<RouteTable>);

#[async_trait]
impl Traffic for Routes {
    fn open(&self, actor: &ActorName, activation: Activation, address: IpAddr, default_port: u16) {
        self.0.open(actor, Route { addr: address, activation, default_port });
    }
    fn idle_for(&self, actor: &ActorName) -> Option<Duration> {
        self.0.idle_for(actor)
    }
    fn close_if_idle(&self, actor: &ActorName, activation: Activation, idle_at_least: Duration) -> bool {
        self.0.close_if_idle(actor, activation, idle_at_least)
    }
    async fn close(&self, actor: &ActorName, activation: Activation, drain: Duration) {
        self.0.close(actor, activation, drain).await;
    }
    fn invalidate(&self, actor: &ActorName, activation: Activation) {
        self.0.invalidate(actor, activation);
    }
}

/// The control plane's last word comes this long before the router gives up, so that whoever waits is told why.
const ANSWER_IN_TIME: Duration = Duration::from_millis(500);

/// The control plane as the router sees it.
pub(crate) struct Wake(pub(crate) Control);

#[async_trait]
impl Waker for Wake {
    async fn wake(&self, actor: &ActorName, deadline: Instant) -> Result<Route, Error> {
        let deadline = deadline.checked_sub(ANSWER_IN_TIME).unwrap_or(deadline);
        let running = self.0.resume(actor, false, deadline).await?;
        Ok(Route { addr: running.address, activation: running.activation, default_port: running.default_port })
    }
}
