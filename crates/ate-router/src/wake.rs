//! Who wakes an actor, and what it answers.

use std::{net::IpAddr, time::Instant};

use async_trait::async_trait;
use ate_api::{
    Error,
    id::{Activation, ActorName},
};

/// Where a running actor is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub addr: IpAddr,
    /// Which activation the address belongs to. Another actor may have the address under another one.
    pub activation: Activation,
    /// The port for host names that name none.
    pub default_port: u16,
}

/// Brings an actor to run. Implemented over the control plane.
#[async_trait]
pub trait Waker: Send + Sync + 'static {
    /// Returns once the actor runs and is ready; right away if it does already. The router calls this once at a
    /// time for one actor, and goes on waiting when the requests that caused it have left. Ends by the deadline.
    async fn wake(&self, actor: &ActorName, deadline: Instant) -> Result<Route, Error>;
}
