//! A herder, whoever keeps its process: this node, or the kubelet in a pod.

use std::net::Ipv4Addr;

use ateom::driver::GetInfoResponse;

use super::{attached::Attached, client::Client, kept::Keep, local::Local};

pub(crate) enum Herder {
    Local(Box<Local>),
    Attached(Box<Attached>),
}

impl Herder {
    pub(crate) fn client(&self) -> &Client {
        match self {
            Herder::Local(h) => &h.client,
            Herder::Attached(h) => &h.client,
        }
    }

    pub(crate) fn info(&self) -> &GetInfoResponse {
        match self {
            Herder::Local(h) => &h.info,
            Herder::Attached(h) => &h.info,
        }
    }

    /// Where its actor is reached.
    pub(crate) fn address(&self) -> Ipv4Addr {
        match self {
            Herder::Local(h) => h.address(),
            Herder::Attached(h) => h.address,
        }
    }

    pub(crate) fn pod(&self) -> Option<ate_agent::Pod> {
        match self {
            Herder::Local(_) => None,
            Herder::Attached(h) => Some(h.pod.clone()),
        }
    }

    /// Where to write down what outlives this node agent, if the herder does.
    pub(crate) fn keep(&self) -> Option<&Keep> {
        match self {
            Herder::Local(_) => None,
            Herder::Attached(h) => Some(&h.keep),
        }
    }

    /// Resolves when the herder has ended, with what there is to say. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> String {
        match self {
            Herder::Local(h) => h.ended().await,
            Herder::Attached(h) => h.ended().await,
        }
    }

    /// Ends it: gently if nothing is wrong with it. One in a pod is left to the kubelet, unless it is beyond use.
    pub(crate) async fn end(self, gently: bool) {
        match self {
            Herder::Local(h) => h.end(gently).await,
            Herder::Attached(h) if gently => drop(h),
            Herder::Attached(h) => h.client.end().await,
        }
    }
}
