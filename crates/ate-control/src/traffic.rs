//! The seam to the router: who gets requests, and who had none for how long.

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use ate_api::id::{Activation, ActorName};

/// What the control plane needs of the router's route table. Calls that are not async must not block.
///
/// Every call names the activation it means; a call for an activation that is not the one routed changes nothing.
#[async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// Requests for the actor go to this address from now on.
    fn open(&self, actor: &ActorName, activation: Activation, address: IpAddr, default_port: u16);

    /// Time since the last request ended. `None`: requests are in flight, or nothing is known of the actor;
    /// then the time since it was started counts and `close_if_idle` has the last word.
    fn idle_for(&self, actor: &ActorName) -> Option<Duration>;

    /// In one step: if no request is in flight and none came for `idle_at_least`, lets no further one through
    /// and returns true.
    fn close_if_idle(&self, actor: &ActorName, activation: Activation, idle_at_least: Duration) -> bool;

    /// Lets no further request through and waits for those in flight, at most `drain`. Closed already: returns.
    async fn close(&self, actor: &ActorName, activation: Activation, drain: Duration);

    /// The address is no longer good: forget it now.
    fn invalidate(&self, actor: &ActorName, activation: Activation);
}

/// No router: nobody has requests in flight. For benchmarks and tests of the control plane alone.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoTraffic;

#[async_trait]
impl Traffic for NoTraffic {
    fn open(&self, _: &ActorName, _: Activation, _: IpAddr, _: u16) {}
    fn idle_for(&self, _: &ActorName) -> Option<Duration> {
        None
    }
    fn close_if_idle(&self, _: &ActorName, _: Activation, _: Duration) -> bool {
        true
    }
    async fn close(&self, _: &ActorName, _: Activation, _: Duration) {}
    fn invalidate(&self, _: &ActorName, _: Activation) {}
}
